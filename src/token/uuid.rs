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

/// Where the hyphens of 8-4-4-4-12 stand.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];
const ONES: u64 = 0x0101_0101_0101_0101;

/// The bytes of a UUID written in exactly one way: lower case, 8-4-4-4-12, nothing around it (RFC 9562 section 4).
pub fn parse(text: &str) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
    if HYPHENS.iter().any(|&at| text[at] != b'-') {
        return None;
    }
    let four = |at: usize| u64::from(u32::from_be_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]));
    let groups = [(0, 4), (9, 14), (19, 24), (28, 32)].map(|(a, b)| four(a) << 32 | four(b));
    let (mut uuid, mut wrong) = ([0; 16], 0);
    for (bytes, digits) in uuid.chunks_exact_mut(4).zip(groups) {
        let (value, invalid) = hex_value(digits);
        wrong |= invalid;
        bytes.copy_from_slice(&value.to_be_bytes());
    }
    (wrong == 0).then_some(uuid)
}

/// The value of eight digits, the first in the most significant byte, and bits set where one is no digit or no lower-case one.
fn hex_value(digits: u64) -> (u32, u64) {
    let letter = digits >> 6 & ONES;
    let low = digits & (ONES * 0x0F);
    // A digit is 0x30 to 0x39, a letter 0x61 to 0x66.
    let high = (digits & (ONES * 0xF0)) ^ (ONES * 0x30 + letter * 0x30);
    let above = (low + ONES * 6 + letter * 3) & (ONES * 0x10);
    let below = letter & !((low + ONES * 0x0F) >> 4);
    let nibbles = low + letter * 9;
    let bytes = (nibbles >> 4 | nibbles) & 0x00FF_00FF_00FF_00FF;
    let pairs = (bytes >> 8 | bytes) & 0x0000_FFFF_0000_FFFF;
    ((pairs >> 16 | pairs) as u32, high | above | below)
}

/// Appends the UUID as `parse` reads it.
pub fn format(uuid: [u8; 16], out: &mut String) {
    let mut text = [b'-'; 36];
    for (bytes, (a, b)) in uuid.chunks_exact(4).zip([(0, 4), (9, 14), (19, 24), (28, 32)]) {
        let digits = hex_digits(u32::from_be_bytes(bytes.try_into().expect("four bytes"))).to_be_bytes();
        text[a..a + 4].copy_from_slice(&digits[..4]);
        text[b..b + 4].copy_from_slice(&digits[4..]);
    }
    out.push_str(std::str::from_utf8(&text).expect("digits and hyphens are ASCII"));
}

/// The eight digits of a value, the first in the most significant byte.
fn hex_digits(value: u32) -> u64 {
    let value = u64::from(value);
    let pairs = (value << 16 | value) & 0x0000_FFFF_0000_FFFF;
    let bytes = (pairs << 8 | pairs) & 0x00FF_00FF_00FF_00FF;
    let nibbles = (bytes << 4 | bytes) & (ONES * 0x0F);
    let letter = (nibbles + ONES * 6) >> 4 & ONES;
    nibbles + ONES * 0x30 + letter * 39
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_told_right_at_every_place() {
        for byte in 0..=255u8 {
            for at in 0..8 {
                let mut eight = *b"09afc3e1";
                eight[at] = byte;
                let (value, wrong) = hex_value(u64::from_be_bytes(eight));
                let text =
                    std::str::from_utf8(&eight).ok().filter(|t| !t.contains(|c: char| c.is_uppercase() || c == '+'));
                assert_eq!(wrong == 0, text.is_some_and(|t| u32::from_str_radix(t, 16) == Ok(value)), "{byte} at {at}");
                if wrong == 0 {
                    assert_eq!(hex_digits(value).to_be_bytes(), eight);
                }
            }
        }
        let text = "0b4c4f42-7d3a-4a0e-9f65-0d5cbb5a1f3e";
        let uuid = parse(text).unwrap();
        assert_eq!(uuid[..8], [0x0b, 0x4c, 0x4f, 0x42, 0x7d, 0x3a, 0x4a, 0x0e]);
        let mut again = String::new();
        format(uuid, &mut again);
        assert_eq!(again, text);
        assert_eq!(parse(&text.to_uppercase()), None);
        assert_eq!(parse(&text.replace('-', "0")), None);
    }
}
