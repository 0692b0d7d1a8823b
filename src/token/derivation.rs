//! Every label under which a key is derived, and nothing else.
//!
//! An epoch's secret is never used itself: each use has its own key,
//! `HKDF-SHA256(secret, info = format version, domain, purpose, class)`, every component preceded by its length, so that no
//! two uses can meet by where one name ends and the next begins. Changing a byte here makes every token unreadable:
//! a change is a new format version beside the old one, never an edit.

use super::cipher::{self, Mac};
use crate::names::{Class, Domain};
use crate::secret::SecretKey;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// First component of everything keyed: the version of the token format.
pub const FORMAT: &str = "cryptonym/v1";

/// First S2V component of a token that is text.
pub(super) const TOKEN_LABEL: &[u8] = b"cryptonym/v1 token";

/// First S2V component of a token that stands in a base64Binary.
pub(super) const BINARY_LABEL: &[u8] = b"cryptonym/v1 binary";

/// What a derived key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// AES-256-SIV key (64 bytes) of the tokens of one class.
    Token,
    /// HMAC key of escapes of foreign values.
    EscapeMac,
    /// The two symbols that tell one domain's escapes from another's (12 bits, shown).
    DomainTag,
    /// AES-256 key of the permutation of UUIDs.
    Uuid,
    /// HMAC key of the offsets of action `shift`.
    Shift,
    /// HMAC key of the action `hash`, scope `domain`.
    Hash,
    /// HMAC key of the action `hash`, scope `document`, from a secret that is forgotten.
    DocumentHash,
    /// AES-256 key of the action `fpe`, of one class.
    Fpe,
    /// HMAC key of the noise of the action `perturb`.
    Perturb,
    /// HMAC key of what takes the place of ids too long for a token.
    Overflow,
    /// HMAC key of the handles under which the audit names subjects.
    Audit,
    /// Key check value of an epoch (shown in the key file), the same in every domain.
    Check,
}

impl Purpose {
    fn label(self) -> &'static str {
        match self {
            Purpose::Token => "token",
            Purpose::EscapeMac => "escape-mac",
            Purpose::DomainTag => "domain-tag",
            Purpose::Uuid => "uuid",
            Purpose::Shift => "shift",
            Purpose::Hash => "hash",
            Purpose::DocumentHash => "document-hash",
            Purpose::Fpe => "fpe",
            Purpose::Perturb => "perturb",
            Purpose::Overflow => "overflow",
            Purpose::Audit => "audit",
            Purpose::Check => "check",
        }
    }
}

/// `HKDF-SHA256(secret, "", lp(FORMAT) lp(domain) lp(purpose) lp(class))`; RFC 5869.
/// Without a domain or class the component is empty, which no name is.
pub(super) fn key<const N: usize>(
    secret: &SecretKey,
    domain: Option<&Domain>,
    purpose: Purpose,
    class: Option<&Class>,
) -> Zeroizing<[u8; N]> {
    let mut info = Vec::with_capacity(160);
    for component in [FORMAT, domain.map_or("", Domain::as_str), purpose.label(), class.map_or("", Class::as_str)] {
        info.extend(length_prefix(component.as_bytes()));
        info.extend(component.as_bytes());
    }
    let mut key = Zeroizing::new([0; N]);
    // No salt: the secret is 32 uniform bytes (RFC 5869 section 3.1).
    cipher::hkdf_sha256(secret.expose(), &[], &info, key.as_mut_slice()).expect("a key is far shorter than 255 hashes");
    key
}

/// The HMAC key of one purpose in one domain, ready for use.
pub(super) fn mac(secret: &SecretKey, domain: &Domain, purpose: Purpose) -> Mac {
    Mac::new(key::<32>(secret, Some(domain), purpose, None).as_slice())
}

/// Check value of an epoch: tells a mistyped or exchanged secret from the right one, and nothing about it.
pub(super) fn check_value(secret: &SecretKey) -> [u8; 16] {
    *key(secret, None, Purpose::Check, None)
}

/// First 6 bits of SHA-256 of the class: lets a reader skip keys of classes that cannot fit. Not keyed, proves nothing.
pub(super) fn class_hint(class: &Class) -> u8 {
    Sha256::digest(class.as_str().as_bytes())[0] >> 2
}

/// Length in bytes, 8 bytes big-endian: makes a concatenation of components uniquely readable.
pub(super) fn length_prefix(component: &[u8]) -> [u8; 8] {
    (component.len() as u64).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_component_changes_the_key() {
        let secret = SecretKey::new([7; 32]);
        let domain = |d| Domain::new(d).unwrap();
        let class = |c| Class::new(c).unwrap();
        let keys = [
            key::<32>(&secret, Some(&domain("ab")), Purpose::Token, Some(&class("c"))),
            key::<32>(&secret, Some(&domain("a")), Purpose::Token, Some(&class("bc"))),
            key::<32>(&secret, Some(&domain("ab")), Purpose::Uuid, Some(&class("c"))),
            key::<32>(&secret, Some(&domain("ab")), Purpose::Token, None),
            key::<32>(&secret, None, Purpose::Token, Some(&class("c"))),
            key::<32>(&SecretKey::new([8; 32]), Some(&domain("ab")), Purpose::Token, Some(&class("c"))),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|b| a != b));
        }
    }

    /// The format is a promise to every token ever written: this value may never change.
    /// It was computed by another program (RFC 5869 over Python's hmac).
    #[test]
    fn derivation_is_pinned() {
        let pinned = [179, 39, 24, 125, 87, 189, 214, 33, 7, 165, 125, 10, 32, 111, 105, 139];
        assert_eq!(check_value(&SecretKey::new([7; 32])), pinned);
    }
}
