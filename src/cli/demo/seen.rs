//! Looks for names in bytes as a curious reader would: also behind percent signs, JSON escapes, base64 and capital letters.
//!
//! A name that is found proves a leak; a name that is not found is gone in these spellings only. The demo's claims rest on
//! this and on nothing that the rewriter says of itself.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

/// Base64 as attachments carry it, its padding optional.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Shortest run of base64 symbols that is decoded: what nine bytes of text take.
const BASE64_RUN_MIN: usize = 12;

/// Every reading of some bytes.
pub struct Readings(Vec<Vec<u8>>);

impl Readings {
    /// Reads the bytes in every spelling, decoded once more behind each.
    pub fn of(bytes: &[u8]) -> Readings {
        let mut all = vec![bytes.to_vec(), unescape(bytes), unpercent(bytes)];
        let inside: Vec<Vec<u8>> = all.iter().map(|reading| unbase64(reading)).collect();
        all.extend(inside.iter().map(|reading| unescape(reading)).collect::<Vec<_>>());
        all.extend(inside);
        all.iter_mut().for_each(|reading| reading.make_ascii_lowercase());
        Readings(all)
    }

    /// The first of these texts that stands in any reading; letter case does not matter.
    pub fn find<'t>(&self, texts: impl IntoIterator<Item = &'t String>) -> Option<&'t str> {
        texts.into_iter().map(String::as_str).find(|text| {
            let lower = text.to_ascii_lowercase();
            let finder = memchr::memmem::Finder::new(&lower);
            self.0.iter().any(|reading| finder.find(reading).is_some())
        })
    }
}

/// `\u0041`, `\/`, `\"` → the character; whatever else stays.
fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        output.extend_from_slice(&rest[..at]);
        let hex =
            rest.get(at + 2..at + 6).and_then(|digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        let (character, length) = match (rest.get(at + 1), hex.and_then(char::from_u32)) {
            (Some(b'u'), Some(character)) => (Some(character), 6),
            (Some(&byte @ (b'/' | b'"' | b'\\')), _) => (Some(char::from(byte)), 2),
            _ => (Some('\\'), 1),
        };
        output.extend(character.into_iter().flat_map(|c| c.to_string().into_bytes()));
        rest = &rest[at + length..];
    }
    output.extend_from_slice(rest);
    output
}

/// `%41` → the byte, `+` → a space.
fn unpercent(bytes: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex =
            bytes.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                output.push(byte);
                at += 2;
            }
            (b'+', _) => output.push(b' '),
            (byte, _) => output.push(byte),
        }
        at += 1;
    }
    output
}

/// Every long run of base64 symbols, decoded, one per line.
fn unbase64(bytes: &[u8]) -> Vec<u8> {
    let is_symbol = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let mut output = Vec::new();
    for run in bytes.split(|byte| !is_symbol(byte)).filter(|run| run.len() >= BASE64_RUN_MIN) {
        // A last symbol alone carries no byte.
        let whole = if run.len() % 4 == 1 { &run[..run.len() - 1] } else { run };
        output.extend(BASE64.decode(whole).unwrap_or_default());
        output.push(b'\n');
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_every_spelling() {
        let name = ["Quillfeather".to_owned()];
        for spelling in [
            "QUILLFEATHER",
            r"Quil\u006cfeather",
            "Quill%66eather",
            "IFF1aWxsZmVhdGhlcg==",
            "UXVpbGxmZWF0aGVy",
            "RnJhdSBRdWlsbGZlYXRoZXI",
        ] {
            let bytes = format!("{{\"data\":\"{spelling}\"}}");
            assert_eq!(Readings::of(bytes.as_bytes()).find(&name), Some("Quillfeather"), "{spelling}");
        }
        assert_eq!(Readings::of(b"Quill feather %zz \\u00").find(&name), None);
    }
}
