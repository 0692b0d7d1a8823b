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

/// What became of a text. Its buffers are used again for whatever takes its place.
#[derive(Debug, Default)]
pub struct Remembered {
    /// `None`: forgotten, only its buffers are left.
    kind: Option<u32>,
    text: String,
    /// The rewritten text, spelled for JSON where it is a leaf's.
    pub word: String,
    /// Whether it differs.
    pub changed: bool,
    /// Classes that were revealed by it.
    pub revealed: Vec<Class>,
    /// Tokens in it that stayed.
    pub stayed: u64,
}

/// The memory of one stream.
#[derive(Debug, Default)]
pub struct Memo {
    entries: Vec<Remembered>,
}

impl Memo {
    /// A memory of nothing, in the buffers of this one.
    pub(super) fn emptied(mut self) -> Memo {
        for entry in self.entries.iter_mut().filter(|entry| entry.kind.is_some()) {
            let buffer = |text: &mut String| {
                let mut text = std::mem::take(text);
                text.clear();
                if text.capacity() > 4 * TEXT_BYTES_MAX { String::new() } else { text }
            };
            let (text, word) = (buffer(&mut entry.text), buffer(&mut entry.word));
            *entry = Remembered { text, word, ..Remembered::default() };
        }
        self
    }

    /// What became of this text at a place of this kind.
    pub fn get(&self, kind: u32, text: &str) -> Option<&Remembered> {
        let entry = self.entries.get(place(kind, text))?;
        (entry.kind == Some(kind) && entry.text == text).then_some(entry)
    }

    /// Remembers it in place of whatever stood there; the caller fills in what became of it. `None`: too long to remember.
    pub fn put(&mut self, kind: u32, text: &str) -> Option<&mut Remembered> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        if self.entries.is_empty() {
            self.entries.resize_with(ENTRIES, Remembered::default);
        }
        let entry = &mut self.entries[place(kind, text)];
        entry.kind = Some(kind);
        entry.text.clear();
        entry.text.push_str(text);
        entry.word.clear();
        entry.revealed.clear();
        (entry.changed, entry.stayed) = (false, 0);
        Some(entry)
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
