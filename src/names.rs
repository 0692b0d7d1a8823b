//! Names that configuration gives: class, domain, epoch, caller, purpose. All are public words, none comes from traffic.

use crate::secret::LogSafe;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroU8;
use std::sync::Arc;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, over 64 characters, or a character outside `A-Z a-z 0-9 . _ : / -`.
    #[error("a name has 1 to 64 characters of A-Z a-z 0-9 . _ : / -")]
    Form,
    /// An epoch id outside 1 to 63.
    #[error("an epoch id is a number from 1 to 63")]
    Epoch,
}

/// A map by words of a specification, filled when rules load and only asked afterwards: whoever sends words cannot fill it, so its hash
/// is not keyed, and quick.
pub type ByWord<V> = HashMap<&'static str, V, BuildHasherDefault<WordHasher>>;

/// See [`ByWord`].
#[derive(Debug, Clone, Copy, Default)]
pub struct WordHasher(u64);

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.write_u64(u64::from_le_bytes(chunk.try_into().expect("eight bytes")));
        }
        self.write_u64(chunks.remainder().iter().fold(bytes.len() as u64, |word, &b| word << 8 | u64::from(b)));
    }

    fn write_u8(&mut self, _: u8) {} // ends a text; its length is in already

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ mixed >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'/' | b'-'))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// 1 to 64 characters of `A-Z a-z 0-9 . _ : / -`.
            pub fn new(text: &str) -> Result<Self, NameError> {
                if is_name(text) { Ok($name(text.into())) } else { Err(NameError::Form) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl LogSafe for $name {
            fn log_safe(&self) -> Cow<'_, str> {
                Cow::Borrowed(&self.0)
            }
        }
    };
}

name! {
    /// What kind of thing a value is: `Patient.id`, `mrn`. Tokens of different classes never equal each other.
    Class
}
name! {
    /// Pseudonymisation domain (EDPB Guidelines 01/2025): one recipient or project. Domains are unlinkable.
    Domain
}
name! {
    /// Who asks: a name that the configuration gives to a client certificate, key or token.
    Caller
}
name! {
    /// Why the caller asks: a code of HL7 v3 PurposeOfUse (`TREAT`, `HRESCH`) or of the organisation.
    Purpose
}

/// One version of the key, 1 to 63. Never reused (contract §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EpochId(NonZeroU8);

impl EpochId {
    /// 1 to 63: what one symbol of a token's header can say, 0 left out.
    pub fn new(id: u8) -> Result<Self, NameError> {
        match NonZeroU8::new(id) {
            Some(id) if id.get() <= 63 => Ok(EpochId(id)),
            _ => Err(NameError::Epoch),
        }
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0.get()
    }
}

impl fmt::Display for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
