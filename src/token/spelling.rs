//! How a token is written: the 64 symbols of a FHIR id, a header that says how long it is, one spelling per token.
//!
//! ```text
//! Zq   e   pl   c   [LLLL]   SIV || ciphertext, 6 bits a symbol, most significant bit first
//! |    |   |    |   length where it does not fit in `pl` (24 bits)
//! |    |   |    class hint
//! |    |   packing (2 bits) and length of the plaintext in its own units (10 bits; 1023: see LLLL)
//! |    epoch, 1 to 63
//! marker
//! ```
//!
//! A token starts with a letter and ends alphanumeric; where it ends is in its header, so that it can be cut out of any
//! text. This page checks form only: whether a token is ours, `ClassKeys` says. It knows no key.

use super::siv::SIV_BYTES;
use crate::limits::TOKEN_PLAIN_BYTES_MAX;
use crate::names::EpochId;
use std::ops::Range;

/// The symbols of a FHIR id, by value. The two that are not alphanumeric come last, so that a symbol whose low bits are
/// zero never is one of them.
pub(super) const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.";

/// Starts every token. No English word, drug name or FHIR code has it, and both cases together keep it out of shouted text.
pub const MARKER: &str = "Zq";

const HEADER_CHARS: usize = 6;
const HEADER_CHARS_MAX: usize = HEADER_CHARS + 4;
const LENGTH_FOLLOWS: usize = 1023;

const VALUES: [u8; 256] = {
    let mut values = [NO_SYMBOL; 256];
    let mut i = 0;
    while i < 64 {
        values[ALPHABET[i] as usize] = i as u8;
        i += 1;
    }
    values
};
const NO_SYMBOL: u8 = 0xff;

/// The value of a symbol, 0 to 63.
pub(super) fn value(symbol: u8) -> Option<u8> {
    Some(VALUES[usize::from(symbol)]).filter(|&v| v != NO_SYMBOL)
}

/// The symbol of the low 6 bits.
pub(super) fn symbol(value: u8) -> u8 {
    ALPHABET[usize::from(value & 63)]
}

/// How the plaintext is packed before it is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// A lower-case UUID as 16 bytes; the length is 16.
    Uuid = 0,
    /// Text of id symbols, 6 bits each; the length counts symbols.
    Symbols = 1,
    /// UTF-8; the length counts bytes.
    Utf8 = 2,
    /// A flag byte and UTF-8, perhaps padded; the length counts all of it, so padding hides the value's.
    Framed = 3,
}

/// What a token says about itself. Not verified by anything here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Under which epoch it was made.
    pub epoch: EpochId,
    /// How its plaintext is packed.
    pub packing: Packing,
    /// Length of the plaintext, in the packing's unit.
    pub length: usize,
    /// 6 bits of the class.
    pub class_hint: u8,
}

impl Header {
    /// Characters of the header itself: 6, or 10 where the length needs more symbols.
    pub fn chars(&self) -> usize {
        if self.length < LENGTH_FOLLOWS { HEADER_CHARS } else { HEADER_CHARS_MAX }
    }

    /// Characters of the whole token.
    pub fn token_chars(&self) -> usize {
        self.chars() + body_chars(self.sealed_bytes())
    }

    /// Bytes of SIV and ciphertext.
    pub(super) fn sealed_bytes(&self) -> usize {
        SIV_BYTES
            + match self.packing {
                Packing::Symbols => packed_bytes(self.length),
                _ => self.length,
            }
    }

    /// The header as characters.
    pub(super) fn spell(&self) -> Spelled {
        debug_assert!(self.length <= TOKEN_PLAIN_BYTES_MAX, "the caller has refused longer values");
        let short = self.length.min(LENGTH_FOLLOWS);
        let mut chars = *b"Zq........";
        chars[2] = symbol(self.epoch.get());
        chars[3] = symbol((self.packing as u8) << 4 | (short >> 6) as u8);
        chars[4] = symbol(short as u8);
        chars[5] = symbol(self.class_hint);
        for (i, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            chars[HEADER_CHARS + i] = symbol((self.length >> shift) as u8);
        }
        Spelled { chars, len: self.chars() }
    }

    /// Reads the header with which `text` starts. Where anything is out of form there is none.
    fn read(text: &[u8]) -> Option<Header> {
        let symbols = text.strip_prefix(MARKER.as_bytes())?;
        let at = |i: usize| symbols.get(i).and_then(|&s| value(s));
        let epoch = EpochId::new(at(0)?).ok()?;
        let (high, low) = (at(1)?, at(2)?);
        let packing = match high >> 4 {
            0 => Packing::Uuid,
            1 => Packing::Symbols,
            2 => Packing::Utf8,
            _ => Packing::Framed,
        };
        let class_hint = at(3)?;
        let mut length = usize::from(high & 15) << 6 | usize::from(low);
        if length == LENGTH_FOLLOWS {
            length = (4..8).try_fold(0, |length, i| Some(length << 6 | usize::from(at(i)?)))?;
            if length < LENGTH_FOLLOWS {
                return None; // it would have fitted: a second spelling of the same token
            }
        }
        let fits = match packing {
            Packing::Uuid => length == 16,
            Packing::Symbols | Packing::Framed => length > 0,
            Packing::Utf8 => true,
        };
        fits.then_some(Header { epoch, packing, length, class_hint })
    }
}

/// A header's characters: 6 or 10, without an allocation.
#[derive(Clone, Copy)]
pub(super) struct Spelled {
    chars: [u8; HEADER_CHARS_MAX],
    len: usize,
}

impl Spelled {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.chars[..self.len]
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("symbols are ASCII")
    }
}

/// The header of a text that is, whole and exactly, spelled like a token.
pub fn well_formed(text: &str) -> Option<Header> {
    let header = starts_run(text.as_bytes())?;
    (header.token_chars() == text.len() && run_length(text.as_bytes()) == text.len()).then_some(header)
}

/// Byte ranges of everything in a text that is spelled like a token, first to last, without overlap.
/// Linear in the text, whatever it holds: each run of symbols is measured once.
pub fn find(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let (mut from, mut run_end) = (0, 0);
    std::iter::from_fn(move || {
        loop {
            let start = from + memchr::memmem::find(text.get(from..)?.as_bytes(), MARKER.as_bytes())?;
            if start >= run_end {
                run_end = start + run_length(&text.as_bytes()[start..]);
            }
            if let Some(header) = starts_run(&text.as_bytes()[start..run_end]) {
                from = start + header.token_chars();
                return Some(start..from);
            }
            from = start + MARKER.len(); // the marker's second letter cannot start another
        }
    })
}

/// How many symbols stand at the start.
fn run_length(text: &[u8]) -> usize {
    text.iter().position(|&s| value(s).is_none()).unwrap_or(text.len())
}

/// The header of the token with which a run of symbols starts, where the run is long enough for it.
fn starts_run(run: &[u8]) -> Option<Header> {
    let header = Header::read(run)?;
    let last = run.get(header.token_chars() - 1)?;
    let slack = body_chars(header.sealed_bytes()) * 6 - header.sealed_bytes() * 8;
    (value(*last)?.trailing_zeros() as usize >= slack).then_some(header)
}

/// Symbols of `bytes` bytes: always one more than whole symbols, so that the last has at least two zero bits
/// and is a letter or a digit.
pub(super) fn body_chars(bytes: usize) -> usize {
    bytes * 8 / 6 + 1
}

/// Bytes that `symbols` symbols pack to.
pub(super) fn packed_bytes(symbols: usize) -> usize {
    (symbols * 6).div_ceil(8)
}

/// Writes bytes as `body_chars` symbols, most significant bit first, zero bits after.
pub(super) fn write_body(bytes: &[u8], out: &mut String) {
    const STRIDE_BYTES: usize = 48;
    out.reserve(body_chars(bytes.len()));
    let mut strides = bytes.chunks_exact(STRIDE_BYTES);
    for stride in &mut strides {
        push_symbols(stride, STRIDE_BYTES / 3 * 4, out);
    }
    let rest = strides.remainder();
    push_symbols(rest, body_chars(rest.len()), out);
}

/// Appends the first `count` symbols, at most 64, of these bytes and zero bits.
fn push_symbols(bytes: &[u8], count: usize, out: &mut String) {
    let mut padded = [0; 51];
    padded[..bytes.len()].copy_from_slice(bytes);
    let mut symbols = [0; 68];
    let groups = symbols.chunks_exact_mut(4).zip(padded.chunks_exact(3));
    for (group, bytes) in groups.take(count.div_ceil(4)) {
        let bits = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        group.copy_from_slice(&[18, 12, 6, 0].map(|shift| symbol((bits >> shift) as u8)));
    }
    out.push_str(std::str::from_utf8(&symbols[..count]).expect("symbols are ASCII"));
}

/// The bytes of a body that `well_formed` has seen.
pub(super) fn read_body(body: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = unpack_bits(body)?;
    // 3 bytes are 4 symbols; a remainder of 0, 1 or 2 bytes takes 1, 2 or 3 more.
    bytes.truncate(body.len() / 4 * 3 + (body.len() % 4).checked_sub(1)?);
    Some(bytes)
}

/// The same of a UUID's token, without a buffer. `None`: not of that length.
pub(super) fn read_uuid_body<const N: usize>(body: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if body.len() != body_chars(N) {
        return None;
    }
    for (group, bytes) in body.chunks(4).zip(bytes.chunks_mut(3)) {
        let mut bits = 0;
        for i in 0..4 {
            bits = bits << 6 | u32::from(group.get(i).map_or(Some(0), |&s| value(s))?);
        }
        bytes.copy_from_slice(&bits.to_be_bytes()[1..=bytes.len()]);
    }
    Some(bytes)
}

/// Packs text of id symbols, 6 bits each, zero bits after. `None`: another character stands in it.
pub(super) fn pack_symbols(text: &str) -> Option<Vec<u8>> {
    unpack_bits(text.as_bytes())
}

/// The text of `length` symbols that these bytes pack.
pub(super) fn unpack_symbols(bytes: &[u8], length: usize) -> String {
    let bit_pair = |i: usize| u16::from(bytes.get(i).copied().unwrap_or(0));
    (0..length)
        .map(|i| {
            let (byte, bit) = (i * 6 / 8, i * 6 % 8);
            char::from(symbol(((bit_pair(byte) << 8 | bit_pair(byte + 1)) >> (10 - bit)) as u8))
        })
        .collect()
}

/// Symbols to bytes, 6 bits each, most significant first, the last byte filled with zero bits.
fn unpack_bits(symbols: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(packed_bytes(symbols.len()));
    for group in symbols.chunks(4) {
        let bits =
            group.iter().try_fold(0, |bits, &s| Some(bits << 6 | u32::from(value(s)?)))? << (6 * (4 - group.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..=packed_bytes(group.len())]);
    }
    Some(bytes)
}
