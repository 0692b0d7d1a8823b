//! What must not be seen: identity (`Phi`) and keys (`SecretKey`); and what may be logged (`LogSafe`).
//!
//! None of these types prints its content. `Phi` becomes a token through one door, `token::ClassKeys::pseudonymize`,
//! and comes back through one, `token::ClassKeys::reidentify` with a [`Permit`](crate::policy::Permit).
//! Whoever calls an `expose…` explains at that place why the content may be read there.

use std::borrow::Cow;
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// An identifying value of a person, decoded (no JSON or percent escapes). Shows only its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Phi<'a>(Cow<'a, str>);

impl<'a> Phi<'a> {
    /// Marks text as identifying.
    pub fn new(text: impl Into<Cow<'a, str>>) -> Self {
        Phi(text.into())
    }

    /// The text itself. The caller says why it may be read here.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The same, detached from the buffer it was read from.
    pub fn into_owned(self) -> Phi<'static> {
        Phi(Cow::Owned(self.0.into_owned()))
    }
}

impl fmt::Debug for Phi<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Phi({} bytes)", self.0.len())
    }
}

/// 32 secret bytes: an epoch's root or a key derived from it. Wiped on drop, never printed, never compared.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Takes the bytes; the caller wipes its own copy.
    pub fn new(bytes: [u8; 32]) -> Self {
        SecretKey(bytes)
    }

    /// The bytes, for a key schedule or the key file. The caller keeps no copy.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// Text that may stand in a log, a metric label or an answer to anybody: it comes from configuration, a specification or this
/// program, never from traffic. A type opts in; nothing else is logged.
pub trait LogSafe {
    /// The text.
    fn log_safe(&self) -> Cow<'_, str>;
}

impl LogSafe for &'static str {
    fn log_safe(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_printed() {
        let shown = format!("{:?} {:?}", Phi::new("Ng"), SecretKey::new([7; 32]));
        assert_eq!(shown, "Phi(2 bytes) SecretKey(..)");
    }
}
