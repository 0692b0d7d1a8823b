//! A small memory of what a stream has rewritten: the same patient, encounter and practitioner stand in hundreds of resources of a body.
//!
//! It lives and dies with one stream and one direction. It is no cache between exchanges: that would be a store of identity with a timing
//! channel, and computing a token anew is cheaper than looking into one that has left the processor's cache.

use crate::names::Class;

/// Entries. In real records 64 entries hit 85 % of ids, which is all that repeats; twice that, since place is taken by hash.
const ENTRIES: usize = 128;
/// Longest text remembered, in bytes: references and identifiers, no free text.
const TEXT_BYTES_MAX: usize = 256;

/// Kinds of places beside those of leaves, which are numbered by their rules.
pub const SUBJECT: u32 = u32::MAX;
/// The audit handle of a subject.
pub const HANDLE: u32 = u32::MAX - 1;
/// The seal of a subject and its offsets.
pub const SEAL: u32 = u32::MAX - 2;

/// What became of a text.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    /// The rewritten text, spelled for JSON where it is a leaf's.
    pub word: String,
    /// Whether it differs.
    pub changed: bool,
    /// Classes that were revealed by it.
    pub revealed: Vec<Class>,
    /// Tokens in it that stayed.
    pub stayed: u64,
}

#[derive(Debug)]
struct Entry {
    kind: u32,
    text: String,
    what: Remembered,
}

/// The memory of one stream.
#[derive(Debug, Default)]
pub struct Memo {
    entries: Vec<Option<Entry>>,
}

impl Memo {
    /// What became of this text at a place of this kind.
    pub fn get(&self, kind: u32, text: &str) -> Option<&Remembered> {
        let entry = self.entries.get(place(kind, text))?.as_ref()?;
        (entry.kind == kind && entry.text == text).then_some(&entry.what)
    }

    /// Remembers it in place of whatever stood there.
    pub fn put(&mut self, kind: u32, text: &str, what: Remembered) {
        if text.len() > TEXT_BYTES_MAX {
            return;
        }
        if self.entries.is_empty() {
            self.entries.resize_with(ENTRIES, || None);
        }
        self.entries[place(kind, text)] = Some(Entry { kind, text: text.to_owned(), what });
    }
}

/// Where a text is kept. Not keyed: a clash costs one computation, nothing else.
fn place(kind: u32, text: &str) -> usize {
    let mut h = 0xcbf2_9ce4_8422_2325u64 ^ u64::from(kind);
    let mut chunks = text.as_bytes().chunks_exact(8);
    for chunk in &mut chunks {
        h = (h ^ u64::from_le_bytes(chunk.try_into().expect("eight bytes"))).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        h ^= h >> 29;
    }
    for &b in chunks.remainder() {
        h = (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (h >> 40) as usize % ENTRIES
}
