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
    let wide = |eight: &[u8]| valued(u64::from_be_bytes(eight.try_into().expect("eight bytes"))).1 == 0;
    let from = 8 * text.chunks_exact(8).take_while(|eight| wide(eight)).count();
    text[from..].iter().position(|&s| value(s).is_none()).map_or(text.len(), |at| from + at)
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

/// Longest token that is spelled in one piece, in sealed bytes: ids, names, seals, addresses.
pub(super) const SHORT_SEALED_BYTES: usize = 96;

/// Appends a token: its header, then the sealed bytes as `body_chars` symbols, most significant bit first, zero bits after.
pub(super) fn write_token(header: &Spelled, sealed: &[u8], out: &mut String) {
    const STRIDE_BYTES: usize = SHORT_SEALED_BYTES;
    const _: () = assert!(STRIDE_BYTES.is_multiple_of(3), "a stride ends with a symbol");
    let (mut text, mut at) = ([0; HEADER_CHARS_MAX + STRIDE_BYTES / 3 * 4 + 8], header.len);
    text[..at].copy_from_slice(header.as_bytes());
    out.reserve(at + body_chars(sealed.len()));
    let mut strides = sealed.chunks_exact(STRIDE_BYTES);
    let rest = strides.remainder();
    for stride in &mut strides {
        write_symbols(stride, &mut text[at..]);
        out.push_str(ascii(&text[..at + STRIDE_BYTES / 3 * 4]));
        at = 0;
    }
    write_symbols(rest, &mut text[at..]);
    out.push_str(ascii(&text[..at + body_chars(rest.len())]));
}

fn ascii(symbols: &[u8]) -> &str {
    std::str::from_utf8(symbols).expect("symbols are ASCII")
}

/// Writes bytes as symbols, eight at a time, the last ones out of zero bits: `text` has room for the last eight.
fn write_symbols(bytes: &[u8], text: &mut [u8]) {
    let groups = text.chunks_exact_mut(8);
    let whole = bytes.chunks_exact(6);
    let mut last = [0; 6];
    let rest = whole.remainder();
    last[..rest.len()].copy_from_slice(rest);
    for (group, six) in groups.zip(whole.chain(std::iter::once(&last[..]))) {
        let bits = six.iter().fold(0, |bits, &b| bits << 8 | u64::from(b));
        group.copy_from_slice(&spelled(spread(bits)).to_be_bytes());
    }
}

/// The sealed bytes of a body that `well_formed` has seen; `sealed` is as long as its header says. `None`: not that long, or no symbols.
pub(super) fn read_body(body: &[u8], sealed: &mut [u8]) -> Option<()> {
    (body.len() == body_chars(sealed.len())).then_some(())?;
    read_symbols(body, sealed)
}

/// Packs text of id symbols, 6 bits each, zero bits after, into the first `packed_bytes` of `bytes`. `None`: another character stands in it.
pub(super) fn pack_symbols(text: &str, bytes: &mut [u8]) -> Option<()> {
    read_symbols(text.as_bytes(), &mut bytes[..packed_bytes(text.len())])
}

/// Symbols to bytes, 6 bits each, most significant first; of the last symbols only as many bits as there is room for.
fn read_symbols(symbols: &[u8], bytes: &mut [u8]) -> Option<()> {
    let mut wrong = 0;
    let mut whole = symbols.chunks_exact(8);
    let mut rooms = bytes.chunks_mut(6);
    for eight in &mut whole {
        let (values, invalid) = valued(u64::from_be_bytes(eight.try_into().expect("eight bytes")));
        wrong |= invalid;
        let six = gather(values).to_be_bytes();
        let room = rooms.next()?;
        room.copy_from_slice(&six[2..2 + room.len()]);
    }
    let rest = whole.remainder();
    if !rest.is_empty() {
        let mut eight = [ALPHABET[0]; 8]; // whose value is zero
        eight[..rest.len()].copy_from_slice(rest);
        let (values, invalid) = valued(u64::from_be_bytes(eight));
        wrong |= invalid;
        let six = gather(values).to_be_bytes();
        if let Some(room) = rooms.next() {
            room.copy_from_slice(&six[2..2 + room.len()]);
        }
    }
    (wrong == 0).then_some(())
}

/// Appends the text of `length` symbols that these bytes pack.
pub(super) fn unpack_symbols(bytes: &[u8], length: usize, out: &mut String) {
    let mut left = length;
    for six in bytes.chunks(6) {
        let bits = six.iter().fold(0, |bits, &b| bits << 8 | u64::from(b)) << (8 * (6 - six.len()));
        let eight = spelled(spread(bits)).to_be_bytes();
        let count = left.min(8);
        out.push_str(ascii(&eight[..count]));
        left -= count;
    }
}

// === eight symbols at a time, the first in the most significant byte; held equal to the table by a test ===

const ONES: u64 = 0x0101_0101_0101_0101;

/// 48 bits as eight values of 6 bits.
fn spread(bits: u64) -> u64 {
    let halves = (bits & 0xFFFF_FF00_0000) << 8 | bits & 0xFF_FFFF;
    let quarters = (halves & 0x00FF_F000_00FF_F000) << 4 | halves & 0x0000_0FFF_0000_0FFF;
    (quarters & 0x0FC0_0FC0_0FC0_0FC0) << 2 | quarters & 0x003F_003F_003F_003F
}

/// The inverse of [`spread`].
fn gather(values: u64) -> u64 {
    let quarters = (values & 0x3F00_3F00_3F00_3F00) >> 2 | values & 0x003F_003F_003F_003F;
    let halves = (quarters & 0x0FFF_0000_0FFF_0000) >> 4 | quarters & 0x0000_0FFF_0000_0FFF;
    (halves & 0x00FF_FFFF_0000_0000) >> 8 | halves & 0xFF_FFFF
}

/// In each byte 1 where it is at least `least`, else 0; bytes and `least` are below 128.
fn reaches(bytes: u64, least: u64) -> u64 {
    (bytes + ONES * (128 - least)) >> 7 & ONES
}

/// The symbols of eight values below 64: `A` is 65 more, `a` 71, `0` 4 less, `-` and `.` 17 less. No byte borrows from its neighbour.
fn spelled(values: u64) -> u64 {
    values + ONES * 65 + reaches(values, 26) * 6 - reaches(values, 52) * 75 - reaches(values, 62) * 13
}

/// The values of eight symbols, and bits set where one is none.
fn valued(symbols: u64) -> (u64, u64) {
    let wide = symbols & (ONES * 0x80);
    let low = symbols & (ONES * 0x7F);
    let least = |byte: u8| reaches(low, u64::from(byte));
    let (dash, zero, upper, lower) = (least(b'-'), least(b'0'), least(b'A'), least(b'a'));
    let symbol = dash - least(b'.' + 1) + zero - least(b'9' + 1) + upper - least(b'Z' + 1) + lower - least(b'z' + 1);
    let values = low + dash * 17 - zero * 13 - upper * 69 - lower * 6;
    (values & (ONES * 0x3F), (symbol ^ ONES) | wide)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_at_a_time_come_to_what_the_table_says() {
        for byte in 0..=255u8 {
            for at in 0..8 {
                let mut eight = *b"AzZ09-.a";
                eight[at] = byte;
                let (values, wrong) = valued(u64::from_be_bytes(eight));
                assert_eq!(wrong == 0, value(byte).is_some(), "{byte} at {at}");
                if wrong == 0 {
                    assert_eq!(values.to_be_bytes(), eight.map(|s| value(s).unwrap()));
                    assert_eq!(spelled(values).to_be_bytes(), eight);
                    assert_eq!(spread(gather(values)), values);
                }
            }
        }
    }

    #[test]
    fn what_is_written_reads_back_at_every_length() {
        let header = Header { epoch: EpochId::new(1).unwrap(), packing: Packing::Utf8, length: 1, class_hint: 3 };
        let bytes: Vec<u8> = (0..400u32).map(|i| (i * 89 + 7) as u8).collect();
        for length in SIV_BYTES..bytes.len() {
            let mut token = String::new();
            write_token(&header.spell(), &bytes[..length], &mut token);
            let body = &token.as_bytes()[HEADER_CHARS..];
            let table: Vec<u8> = (0..body_chars(length))
                .map(|i| {
                    let bit = |i: usize| bytes[..length].get(i / 8).is_some_and(|b| b >> (7 - i % 8) & 1 != 0);
                    symbol((0..6).fold(0, |v, b| v << 1 | u8::from(bit(6 * i + b))))
                })
                .collect();
            assert_eq!(body, table, "{length}");
            let mut read = vec![0; length];
            read_body(body, &mut read).unwrap();
            assert_eq!(read, bytes[..length]);
            assert_eq!(read_body(&body[1..], &mut read), None);
        }
    }

    #[test]
    fn text_of_symbols_packs_and_unpacks_at_every_length() {
        let text: String = ALPHABET.iter().cycle().skip(5).take(200).map(|&s| char::from(s)).collect();
        for length in 0..text.len() {
            let mut bytes = [0; 200];
            pack_symbols(&text[..length], &mut bytes).unwrap();
            let mut again = String::new();
            unpack_symbols(&bytes[..packed_bytes(length)], length, &mut again);
            assert_eq!(again, text[..length]);
            assert_eq!(pack_symbols(&format!("{}_", &text[..length]), &mut bytes), None);
            assert_eq!(pack_symbols(&format!("é{}", &text[..length]), &mut bytes), None);
        }
    }
}
