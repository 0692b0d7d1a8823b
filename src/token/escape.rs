//! How values minted by the untrusted side are shown to the trusted side, so that they never mix with its own.
//!
//! `Xj` + domain tag (2 symbols) + MAC (8 symbols) + the value. Only a valid MAC unescapes: a trusted id that happens to look
//! like an escape is never sent out in clear, and two clouds' `Patient/42` stay apart. An escape hides nothing and carries no secret.

use super::TokenError;
use super::cipher::Mac;
use super::spelling::symbol;
use crate::names::{Class, Domain};
use subtle::ConstantTimeEq;

/// Starts every escape. Chosen as the token's marker was, and different from it.
pub const PREFIX: &str = "Xj";

const TAG_CHARS: usize = 2;
const MAC_CHARS: usize = 8;
/// What an escape adds to a value, in characters.
pub const ESCAPE_CHARS: usize = PREFIX.len() + TAG_CHARS + MAC_CHARS;

/// The escapes of one domain and class.
#[derive(Debug, Clone)]
pub(super) struct Escapes {
    pub(super) mac: Mac,
    pub(super) tag: [u8; TAG_CHARS],
}

impl Escapes {
    /// `tag` is 12 keyed bits of the domain.
    pub(super) fn new(mac: Mac, tag: [u8; 2]) -> Self {
        let bits = u16::from_be_bytes(tag);
        Escapes { mac, tag: [symbol((bits >> 10) as u8), symbol((bits >> 4) as u8)] }
    }

    /// Appends the escape of a foreign value of at most `chars_max` characters.
    pub(super) fn escape(
        &self,
        domain: &Domain,
        class: &Class,
        foreign: &str,
        chars_max: Option<usize>,
        out: &mut String,
    ) -> Result<(), TokenError> {
        if chars_max.is_some_and(|max| foreign.chars().count() > max) {
            return Err(TokenError::ForeignTooLong);
        }
        out.push_str(PREFIX);
        out.extend(self.tag.iter().chain(&self.short_mac(domain, class, foreign)).map(|&s| char::from(s)));
        out.push_str(foreign);
        Ok(())
    }

    /// The foreign value inside, where its MAC is right.
    pub(super) fn unescape<'t>(&self, domain: &Domain, class: &Class, text: &'t str) -> Option<&'t str> {
        let rest = text.strip_prefix(PREFIX)?;
        let (shown, foreign) = rest.split_at_checked(TAG_CHARS + MAC_CHARS)?;
        let (tag, mac) = shown.as_bytes().split_at(TAG_CHARS);
        let right = tag.ct_eq(&self.tag) & mac.ct_eq(&self.short_mac(domain, class, foreign));
        bool::from(right).then_some(foreign)
    }

    /// First 48 bits of `HMAC-SHA256(key, lp(domain) lp(class) lp(value))`, 6 bits a symbol. Short, since forging one gains
    /// only that the forger's own value is taken for the untrusted side's, and each try is a request.
    fn short_mac(&self, domain: &Domain, class: &Class, foreign: &str) -> [u8; MAC_CHARS] {
        let mac = self.mac.tag(&[domain.as_str().as_bytes(), class.as_str().as_bytes(), foreign.as_bytes()]);
        let bits = u64::from_be_bytes(mac[..8].try_into().expect("a hash has 32 bytes"));
        std::array::from_fn(|i| symbol((bits >> (58 - 6 * i)) as u8))
    }
}
