//! The primitives, as formulas. Each is held to its published vectors in `tests/vectors.rs` through these very functions.
//!
//! This page knows bytes and keys, not classes, domains or spellings. It never returns plaintext that did not verify.

use super::derivation::length_prefix;
use aes_siv::KeyInit;
use aes_siv::siv::{Aes128Siv, Aes256Siv};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::fmt;
use zeroize::Zeroizing;

/// Bytes that SIV adds before the ciphertext: the synthetic IV, which is also the authentication tag (RFC 5297).
pub const SIV_BYTES: usize = 16;

/// Key of AES-SIV: half for S2V, half for CTR (RFC 5297 section 2.2). Wiped on drop.
#[derive(Clone)]
pub enum SivKey {
    /// AES-256-SIV, the cipher of every token.
    Aes256(Zeroizing<[u8; 64]>),
    /// AES-128-SIV, in which the RFC writes its own examples.
    Aes128(Zeroizing<[u8; 32]>),
}

impl fmt::Debug for SivKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SivKey(..)")
    }
}

/// `V || C` where `V = S2V(K1, components.., plaintext)`, `C = CTR(K2, V, plaintext)`; RFC 5297 section 2.6.
/// Deterministic on purpose: equal input gives equal output. At most 126 components.
pub fn siv_seal(key: &SivKey, components: &[&[u8]], plaintext: &[u8]) -> Vec<u8> {
    // The cipher object is made anew each time: its encrypt takes `&mut self`, and one shared by threads would need a lock.
    match key {
        SivKey::Aes256(key) => Aes256Siv::new((&**key).into()).encrypt(components, plaintext),
        SivKey::Aes128(key) => Aes128Siv::new((&**key).into()).encrypt(components, plaintext),
    }
    .expect("only more than 126 components fail, and callers pass a fixed handful")
}

/// The plaintext of `V || C`, or nothing where `V` is not `S2V(K1, components.., plaintext)`; RFC 5297 section 2.7.
/// The comparison takes constant time.
pub fn siv_open(key: &SivKey, components: &[&[u8]], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    match key {
        SivKey::Aes256(key) => Aes256Siv::new((&**key).into()).decrypt(components, sealed),
        SivKey::Aes128(key) => Aes128Siv::new((&**key).into()).decrypt(components, sealed),
    }
    .ok()
    .map(Zeroizing::new)
}

/// `HMAC-SHA256(key, message)`; RFC 2104.
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = keyed(key);
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// `okm = HKDF-SHA256(ikm, salt, info)`; RFC 5869. `None` where more than 255 hashes (8160 bytes) are asked for.
#[must_use]
pub fn hkdf_sha256(ikm: &[u8], salt: &[u8], info: &[u8], okm: &mut [u8]) -> Option<()> {
    hkdf::Hkdf::<Sha256>::new(Some(salt), ikm).expand(info, okm).ok()
}

/// A keyed HMAC-SHA256, ready for use from any thread.
#[derive(Clone)]
pub struct Mac(Hmac<Sha256>);

impl Mac {
    pub(super) fn new(key: &[u8]) -> Self {
        Mac(keyed(key))
    }

    /// `HMAC-SHA256(key, lp(part) lp(part) ...)`: each part is preceded by its length, so ("ab","c") is not ("a","bc").
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(&length_prefix(part));
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mac(..)")
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}
