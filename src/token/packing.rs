//! What is sealed inside a token: a value packed as short as it goes, each in exactly one way.
//!
//! The shortest that applies is the only one accepted back, so one value has one plaintext per [`Form`], and a token one spelling.
//! Packed bytes are identity: they live in wiped buffers.

use super::spelling::{self, Packing};
use super::{Form, TokenError, uuid};
use crate::limits::TOKEN_PLAIN_BYTES_MAX;
use zeroize::Zeroizing;

/// Flag byte of a framed value: it was padded to a bucket.
const PADDED: u8 = 1;
/// Flag byte of a framed value: it is a JSON spelling.
const RAW_SPELLING: u8 = 2;

/// Smallest bucket of padded plaintext, in bytes; the others are its doubles, the last the longest plaintext there is.
const BUCKET_BYTES_MIN: usize = 16;
/// Flag byte before and stop byte after a padded value.
const PAD_BYTES_MIN: usize = 2;

/// A value ready to be sealed; `length` is what the header says.
pub(super) struct Packed {
    pub(super) packing: Packing,
    pub(super) length: usize,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

/// Packs a value. Fails only where it is too long for any token.
pub(super) fn pack(text: &str, form: Form) -> Result<Packed, TokenError> {
    let room = TOKEN_PLAIN_BYTES_MAX - if form == Form::default() { 0 } else { PAD_BYTES_MIN };
    if text.len() > room {
        return Err(TokenError::TooLong);
    }
    if form != Form::default() {
        return Ok(frame(text, form));
    }
    if let Some(uuid) = uuid::parse(text) {
        return Ok(Packed { packing: Packing::Uuid, length: 16, bytes: Zeroizing::new(uuid.to_vec()) });
    }
    match spelling::pack_symbols(text) {
        Some(bytes) if !text.is_empty() => {
            Ok(Packed { packing: Packing::Symbols, length: text.len(), bytes: Zeroizing::new(bytes) })
        }
        _ => {
            let bytes = Zeroizing::new(text.as_bytes().to_vec());
            Ok(Packed { packing: Packing::Utf8, length: text.len(), bytes })
        }
    }
}

fn frame(text: &str, form: Form) -> Packed {
    let length = if form.padded { bucket(text.len() + PAD_BYTES_MIN) } else { 1 + text.len() };
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    bytes.push(if form.padded { PADDED } else { 0 } | if form.raw_spelling { RAW_SPELLING } else { 0 });
    bytes.extend(text.as_bytes());
    if form.padded {
        bytes.push(0x80);
        bytes.resize(length, 0);
    }
    Packed { packing: Packing::Framed, length, bytes }
}

fn bucket(bytes: usize) -> usize {
    bytes.next_power_of_two().clamp(BUCKET_BYTES_MIN, TOKEN_PLAIN_BYTES_MAX)
}

/// The value, where these bytes are exactly what `pack` makes of it.
pub(super) fn unpack(packing: Packing, length: usize, bytes: &[u8]) -> Option<(Zeroizing<String>, Form)> {
    let utf8 = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let (text, form) = match packing {
        Packing::Uuid => {
            let mut text = String::with_capacity(36);
            uuid::format(bytes.try_into().ok()?, &mut text);
            (text, Form::default())
        }
        Packing::Symbols => (spelling::unpack_symbols(bytes, length), Form::default()),
        Packing::Utf8 => (utf8(bytes)?, Form::default()),
        Packing::Framed => {
            let (&flags, framed) = bytes.split_first()?;
            let form = Form { padded: flags & PADDED != 0, raw_spelling: flags & RAW_SPELLING != 0 };
            let content = if form.padded {
                &framed[..framed.iter().rposition(|&b| b != 0)?] // drops the stop byte too; packing again checks it
            } else {
                framed
            };
            (utf8(content)?, form)
        }
    };
    let text = Zeroizing::new(text);
    let again = pack(&text, form).ok()?;
    (again.packing == packing && again.length == length && again.bytes[..] == *bytes).then_some((text, form))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No key of ours seals such bytes. Were they accepted all the same, one value would have two tokens.
    #[test]
    fn a_value_is_accepted_from_its_shortest_packing_only() {
        let cases: &[(Packing, usize, &[u8])] = &[
            (Packing::Symbols, 36, &[0; 27][..26]),
            (Packing::Symbols, 1, &[0b1]),
            (Packing::Symbols, 2, &[0, 0b1]),
            (Packing::Utf8, 4, b"4711"),
            (Packing::Utf8, 36, b"0b4c4f42-7d3a-4a0e-9f65-0d5cbb5a1f3e"),
            (Packing::Utf8, 2, &[b' ', 0xff]),
            (Packing::Utf8, 3, b"a b c"),
            (Packing::Uuid, 16, &[0; 15]),
            (Packing::Framed, 0, b""),
            (Packing::Framed, 3, b"\x00Ng"),
            (Packing::Framed, 3, b"\x04Ng"),
            (Packing::Framed, 16, &[0; 16]),
            (Packing::Framed, 16, b"\x01Ng\x81\0\0\0\0\0\0\0\0\0\0\0\0"),
            (Packing::Framed, 8, b"\x01Ng\x80\0\0\0\0"),
            (Packing::Framed, 32, b"\x01Ng\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            (Packing::Framed, 16, b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ];
        for (packing, length, bytes) in cases {
            assert!(unpack(*packing, *length, bytes).is_none(), "{packing:?} {bytes:?}");
        }
    }
}
