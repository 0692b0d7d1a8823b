//! AES-SIV (RFC 5297): deterministic authenticated encryption, the cipher of every token.
//!
//! Why not crate `aes-siv`: it expands the CTR key again on every call, computes S2V from its first component each time, and needs
//! `&mut self`, so it cannot be shared by threads without a lock. A resource has dozens of tokens under the same key and
//! leading components; here these are folded once. The AES beneath is crate `aes`.
//! `tests/vectors.rs` holds this page to the RFC, to Wycheproof, and to that crate over random input.
//!
//! Blocks are `u128`, most significant byte first, as the RFC writes its doubling. Nothing here branches on a secret.

use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherEncrypt, BlockSizeUser, KeyInit};
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Bytes that SIV adds before the ciphertext: the synthetic IV, which is also the authentication tag.
pub const SIV_BYTES: usize = 16;

const BLOCK_BYTES: usize = 16;

/// Counter blocks encrypted at a time: as many as the AES units of today's processors keep in flight.
const STRIDE_BLOCKS: usize = 8;

/// One key, with the leading S2V components already folded in. Wiped on drop, shared by threads without a lock.
#[derive(Clone)]
pub struct Siv<C> {
    mac: C,
    ctr: C,
    /// CMAC's subkeys (RFC 4493 section 2.3), for a whole and for a padded last block.
    k1: u128,
    k2: u128,
    /// `D` of S2V after the leading components.
    folded: u128,
}

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit> Siv<C> {
    /// `K1 || K2 = key` (RFC 5297 section 2.6), and `D` over `leading` (section 2.4). `None`: the key is not two keys of this cipher.
    pub fn new(key: &[u8], leading: &[&[u8]]) -> Option<Self> {
        let (k1, k2) = key.split_at(key.len() / 2);
        let (mac, ctr) = (C::new_from_slice(k1).ok()?, C::new_from_slice(k2).ok()?);
        let l = encrypt(&mac, 0);
        let mut siv = Siv { mac, ctr, k1: double(l), k2: double(double(l)), folded: 0 };
        siv.folded = siv.cmac(&[0; BLOCK_BYTES]);
        siv.folded = siv.fold(leading);
        Some(siv)
    }

    /// `V || C` where `V = S2V(leading.., components.., plaintext)`, `C = CTR(V, plaintext)`; RFC 5297 section 2.6.
    /// Deterministic on purpose: equal input gives equal output. The RFC allows 126 components in all; callers pass a handful.
    pub fn seal(&self, components: &[&[u8]], plaintext: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(SIV_BYTES + plaintext.len());
        sealed.extend([0; SIV_BYTES]);
        sealed.extend(plaintext);
        self.seal_in_place(components, &mut sealed);
        sealed
    }

    /// The same where the plaintext already stands behind room for `V`: nothing of it is left anywhere.
    pub fn seal_in_place(&self, components: &[&[u8]], room_and_plaintext: &mut [u8]) {
        self.seal_after(self.fold(components), room_and_plaintext);
    }

    /// `D` of S2V behind one component more: for components that many messages share.
    pub fn after(&self, component: &[u8]) -> u128 {
        self.fold(&[component])
    }

    /// `seal_in_place` behind components that [`after`](Siv::after) has folded in.
    pub fn seal_after(&self, d: u128, room_and_plaintext: &mut [u8]) {
        let (siv, text) = room_and_plaintext.split_at_mut(SIV_BYTES);
        let v = self.s2v(d, text);
        siv.copy_from_slice(&v.to_be_bytes());
        self.xor_keystream(v, text);
    }

    /// The plaintext of `V || C`, or nothing where `V` is not `S2V(leading.., components.., plaintext)`; RFC 5297 section 2.7.
    /// The comparison takes constant time; what does not verify is wiped.
    pub fn open(&self, components: &[&[u8]], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut text = Zeroizing::new(sealed.to_vec());
        if !self.opens_after(self.fold(components), &mut text) {
            return None;
        }
        text.drain(..SIV_BYTES);
        Some(text)
    }

    /// Turns `V || C` into `V || plaintext` behind components that were folded in; whether `V` is right for it. What does not verify is
    /// for the caller to wipe.
    pub fn opens_after(&self, d: u128, sealed: &mut [u8]) -> bool {
        let Some((siv, text)) = sealed.split_first_chunk_mut::<SIV_BYTES>() else { return false };
        self.xor_keystream(u128::from_be_bytes(*siv), text);
        let v = self.s2v(d, text);
        v.to_be_bytes().ct_eq(siv).into()
    }

    /// `D = dbl(D) xor CMAC(component)` for each component; RFC 5297 section 2.4.
    fn fold(&self, components: &[&[u8]]) -> u128 {
        components.iter().fold(self.folded, |d, component| double(d) ^ self.cmac(component))
    }

    /// `S2V` behind `d`; RFC 5297 section 2.4. A longer text is changed for a moment (`xorend`) and comes back as it was.
    fn s2v(&self, d: u128, text: &mut [u8]) -> u128 {
        if let Ok(block) = <[u8; BLOCK_BYTES]>::try_from(&*text) {
            return encrypt(&self.mac, u128::from_be_bytes(block) ^ d ^ self.k1);
        }
        let Some(end) = text.last_chunk_mut::<BLOCK_BYTES>() else {
            return encrypt(&self.mac, double(d) ^ pad(text) ^ self.k1);
        };
        let kept = u128::from_be_bytes(*end);
        *end = (kept ^ d).to_be_bytes();
        let v = self.cmac(text);
        if let Some(end) = text.last_chunk_mut::<BLOCK_BYTES>() {
            *end = kept.to_be_bytes();
        }
        v
    }

    /// `AES-CMAC(K1, message)`; RFC 4493 section 2.4.
    fn cmac(&self, message: &[u8]) -> u128 {
        let (blocks, rest) = message.as_chunks::<BLOCK_BYTES>();
        let chain = |blocks: &[[u8; BLOCK_BYTES]]| {
            blocks.iter().fold(0, |x, block| encrypt(&self.mac, x ^ u128::from_be_bytes(*block)))
        };
        match blocks.split_last() {
            Some((last, before)) if rest.is_empty() => {
                encrypt(&self.mac, chain(before) ^ u128::from_be_bytes(*last) ^ self.k1)
            }
            _ => encrypt(&self.mac, chain(blocks) ^ pad(rest) ^ self.k2),
        }
    }

    /// Counter mode from `V` with the top bit of its last two 32-bit words cleared; RFC 5297 section 2.5.
    fn xor_keystream(&self, v: u128, text: &mut [u8]) {
        let mut counter = v & !(1 << 63) & !(1 << 31);
        if let Ok(block) = <&mut [u8; BLOCK_BYTES]>::try_from(&mut *text) {
            *block = (u128::from_be_bytes(*block) ^ encrypt(&self.ctr, counter)).to_be_bytes(); // a UUID
            return;
        }
        for stride in text.chunks_mut(STRIDE_BLOCKS * BLOCK_BYTES) {
            let count = stride.len().div_ceil(BLOCK_BYTES);
            let mut blocks = [aes::Block::default(); STRIDE_BLOCKS];
            for block in &mut blocks[..count] {
                *block = counter.to_be_bytes().into();
                counter = counter.wrapping_add(1);
            }
            self.ctr.encrypt_blocks(&mut blocks[..count]);
            for (text, key) in stride.chunks_mut(BLOCK_BYTES).zip(&blocks) {
                text.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            }
        }
    }
}

impl<C> Drop for Siv<C> {
    fn drop(&mut self) {
        // The two ciphers wipe themselves (crate aes, feature zeroize).
        self.k1.zeroize();
        self.k2.zeroize();
        self.folded.zeroize();
    }
}

impl<C> fmt::Debug for Siv<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Siv(..)")
    }
}

fn encrypt<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>>(cipher: &C, block: u128) -> u128 {
    let mut block = block.to_be_bytes().into();
    cipher.encrypt_block(&mut block);
    u128::from_be_bytes(block.into())
}

/// Doubling in GF(2^128); RFC 5297 section 2.3.
fn double(block: u128) -> u128 {
    (block << 1) ^ ((block >> 127) * 0x87)
}

/// Fewer than 16 bytes as a block, followed by one set bit (RFC 4493 section 2.4, `padding`).
fn pad(bytes: &[u8]) -> u128 {
    let bits = bytes.iter().fold(1, |bits, &b| bits << 8 | u128::from(b)); // a one before all, shifted away below
    (bits << 8 | 0x80) << (8 * (BLOCK_BYTES - 1 - bytes.len()))
}
