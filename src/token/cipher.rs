//! The keyed hashes, as formulas. Each is held to its published vectors in `tests/vectors.rs` through these very functions.
//!
//! This page knows bytes and keys, not classes, domains or spellings. The cipher has a page of its own, `siv`.

use super::derivation::length_prefix;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::fmt;

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
