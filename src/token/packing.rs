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

/// Values that pack into so many bytes need no buffer of their own: names, ids, seals.
pub(super) const SHORT_BYTES: usize = spelling::SHORT_SEALED_BYTES - super::siv::SIV_BYTES;

/// What a packed value is; `length` is what the header says, `bytes` how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) packing: Packing,
    pub(super) length: usize,
    pub(super) bytes: usize,
}

/// The most bytes that a value may pack to. Fails only where it is too long for any token.
pub(super) fn room(text: &str, form: Form) -> Result<usize, TokenError> {
    let more = if form == Form::default() { 0 } else { PAD_BYTES_MIN };
    if text.len() > TOKEN_PLAIN_BYTES_MAX - more {
        return Err(TokenError::TooLong);
    }
    Ok(if form.padded { bucket(text.len() + PAD_BYTES_MIN) } else { text.len() + more })
}

/// Packs a value into `bytes`, which has the room for it and holds zeros. Whatever is behind the packed bytes stays zero.
pub(super) fn pack(text: &str, form: Form, bytes: &mut [u8]) -> Packed {
    if form != Form::default() {
        return frame(text, form, bytes);
    }
    if let Some(uuid) = uuid::parse(text) {
        bytes[..uuid.len()].copy_from_slice(&uuid);
        return Packed { packing: Packing::Uuid, length: uuid.len(), bytes: uuid.len() };
    }
    if !text.is_empty() && spelling::pack_symbols(text, bytes).is_some() {
        return Packed { packing: Packing::Symbols, length: text.len(), bytes: spelling::packed_bytes(text.len()) };
    }
    bytes[..text.len()].copy_from_slice(text.as_bytes()); // over all that the symbols left
    Packed { packing: Packing::Utf8, length: text.len(), bytes: text.len() }
}

fn frame(text: &str, form: Form, bytes: &mut [u8]) -> Packed {
    let end = 1 + text.len();
    let length = if form.padded { bucket(text.len() + PAD_BYTES_MIN) } else { end };
    bytes[0] = if form.padded { PADDED } else { 0 } | if form.raw_spelling { RAW_SPELLING } else { 0 };
    bytes[1..end].copy_from_slice(text.as_bytes());
    if form.padded {
        bytes[end] = 0x80;
    }
    Packed { packing: Packing::Framed, length, bytes: length }
}

fn bucket(bytes: usize) -> usize {
    bytes.next_power_of_two().clamp(BUCKET_BYTES_MIN, TOKEN_PLAIN_BYTES_MAX)
}

/// The value, where these bytes are exactly what `pack` makes of it.
pub(super) fn unpack(packing: Packing, length: usize, bytes: &[u8]) -> Option<(Zeroizing<String>, Form)> {
    let (mut text, mut form) = (Zeroizing::new(String::new()), Form::default());
    match packing {
        Packing::Uuid => uuid::format(bytes.try_into().ok()?, &mut text),
        Packing::Symbols => {
            text.reserve_exact(length);
            spelling::unpack_symbols(bytes, length, &mut text);
        }
        Packing::Utf8 => text.push_str(std::str::from_utf8(bytes).ok()?),
        Packing::Framed => {
            let (&flags, framed) = bytes.split_first()?;
            form = Form { padded: flags & PADDED != 0, raw_spelling: flags & RAW_SPELLING != 0 };
            let content = if form.padded {
                &framed[..framed.iter().rposition(|&b| b != 0)?] // drops the stop byte too; packing again checks it
            } else {
                framed
            };
            text.push_str(std::str::from_utf8(content).ok()?);
        }
    }
    let room = room(&text, form).ok()?;
    let (mut short, mut long);
    let again: &mut [u8] = if room <= SHORT_BYTES {
        short = Zeroizing::new([0; SHORT_BYTES]);
        &mut short[..]
    } else {
        long = Zeroizing::new(vec![0; room]);
        &mut long[..]
    };
    let packed = pack(&text, form, again);
    (packed == Packed { packing, length, bytes: bytes.len() } && again[..packed.bytes] == *bytes)
        .then_some((text, form))
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
