//! `urn:uuid:` pseudonyms: one UUID becomes another, by a keyed permutation of all 2^128.
//!
//! A transaction's `fullUrl` must stay a UUID, so there is no room for a marker or a tag: a permuted UUID cannot be told from
//! another, nor is it authenticated. Whoever reverses one therefore knows *by its place* that it was permuted (design §4).

use crate::names::Class;
use crate::policy::Permit;
use aes::Aes256;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use std::fmt;

/// The permutation of one domain and its inverse. The same UUID has one pseudonym, whatever it identifies.
#[derive(Clone)]
pub struct Uuids(Aes256);

impl Uuids {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Uuids(Aes256::new(key.into()))
    }

    /// `AES-256(key, uuid)`: one block (FIPS 197), hence a permutation. Version and variant bits are not kept:
    /// FHIR asks for none.
    pub fn pseudonymize(&self, uuid: [u8; 16]) -> [u8; 16] {
        let mut block = uuid.into();
        self.0.encrypt_block(&mut block);
        block.into()
    }

    /// The UUID behind a pseudonym; nothing where this caller may not see the class of what it identifies.
    pub fn reidentify(&self, pseudonym: [u8; 16], class: &Class, permit: &Permit) -> Option<[u8; 16]> {
        permit.allows(class).then(|| self.inverse(pseudonym))
    }

    pub(super) fn inverse(&self, pseudonym: [u8; 16]) -> [u8; 16] {
        let mut block = pseudonym.into();
        self.0.decrypt_block(&mut block);
        block.into()
    }
}

impl fmt::Debug for Uuids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Uuids(..)")
    }
}

/// Where the hyphens of 8-4-4-4-12 stand, and where each byte's two digits begin.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];
const DIGITS: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// The bytes of a UUID written in exactly one way: lower case, 8-4-4-4-12, nothing around it (RFC 9562 section 4).
pub fn parse(text: &str) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
    if HYPHENS.iter().any(|&at| text[at] != b'-') {
        return None;
    }
    let mut uuid = [0; 16];
    let mut all = 0;
    for (byte, at) in uuid.iter_mut().zip(DIGITS) {
        let (high, low) = (VALUES[usize::from(text[at])], VALUES[usize::from(text[at + 1])]);
        all |= high | low;
        *byte = high << 4 | low & 15;
    }
    (all <= 15).then_some(uuid)
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The value of each digit; of any other character more than fifteen.
const VALUES: [u8; 256] = {
    let mut values = [0xff; 256];
    let mut i = 0;
    while i < 16 {
        values[HEX[i] as usize] = i as u8;
        i += 1;
    }
    values
};

/// Appends the UUID as `parse` reads it.
pub fn format(uuid: [u8; 16], out: &mut String) {
    let mut text = [b'-'; 36];
    for (byte, at) in uuid.into_iter().zip(DIGITS) {
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
    }
    out.push_str(std::str::from_utf8(&text).expect("digits and hyphens are ASCII"));
}
