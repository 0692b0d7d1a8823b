//! `hash`: `HMAC-SHA256(key, lp(class) lp(value))`, cut to at least 96 bits; equal values of a class stay equal, none comes back.
//!
//! The key decides how far equality reaches (`scope`): a key of the domain, pinned like ids, since nothing in a hash says under which epoch it
//! was made; or one of a single document, run or exchange, which is forgotten afterwards, so that links hold inside and nothing outside.
//! It cannot fail. What it hides is the value, not how often it occurs.

use crate::names::Class;
use crate::secret::Phi;
use crate::token::Mac;
use std::fmt::Write as _;

/// Fewest bits of a hash: among 2^32 values of a class two meet with a chance under 2^-32.
pub const BITS_MIN: u32 = 96;
/// Most bits: all of SHA-256.
pub const BITS_MAX: u32 = 256;

/// How far equality reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything in the domain.
    Domain,
    /// One document, run or exchange.
    Document,
}

/// How bytes become text. Every one but `base64url` fits a FHIR id, all fit a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Lower case, 4 bits a character.
    Hex,
    /// RFC 4648 section 6 in lower case, without padding: 5 bits a character.
    Base32,
    /// RFC 4648 section 5 without padding: 6 bits a character.
    Base64Url,
}

/// The parameters of `hash`, but for its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// 96 to 256, whole bytes.
    pub bits: u32,
    /// As text.
    pub encoding: Encoding,
    /// Which key.
    pub scope: Scope,
}

/// All 32 bytes.
pub fn digest(mac: &Mac, class: &Class, phi: &Phi<'_>) -> [u8; 32] {
    // Exposed to a keyed hash only.
    mac.tag(&[class.as_str().as_bytes(), phi.expose().as_bytes()])
}

/// Appends the hash as text.
pub fn hash(mac: &Mac, class: &Class, shape: Shape, phi: &Phi<'_>, out: &mut String) {
    let digest = digest(mac, class, phi);
    encode(&digest[..shape.bits as usize / 8], shape.encoding, out);
}

fn encode(bytes: &[u8], encoding: Encoding, out: &mut String) {
    match encoding {
        Encoding::Hex => {
            for byte in bytes {
                write!(out, "{byte:02x}").expect("writing to a String cannot fail");
            }
        }
        Encoding::Base32 => symbols(bytes, 5, b"abcdefghijklmnopqrstuvwxyz234567", out),
        Encoding::Base64Url => {
            symbols(bytes, 6, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", out);
        }
    }
}

/// So many bits a symbol, the last filled up with zeros.
fn symbols(bytes: &[u8], width: u32, alphabet: &[u8], out: &mut String) {
    let (mut held, mut bits) = (0u32, 0);
    for &byte in bytes {
        held = held << 8 | u32::from(byte);
        bits += 8;
        while bits >= width {
            bits -= width;
            out.push(alphabet[(held >> bits) as usize & (alphabet.len() - 1)] as char);
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        out.push(alphabet[(held << (width - bits)) as usize & (alphabet.len() - 1)] as char);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    /// RFC 4648 section 10, in our spelling.
    #[test]
    fn encodings() {
        let text = |bytes: &[u8], encoding| {
            let mut out = String::new();
            encode(bytes, encoding, &mut out);
            out
        };
        for (bytes, base32) in
            [("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("foob", "mzxw6yq"), ("foobar", "mzxw6ytboi")]
        {
            assert_eq!(text(bytes.as_bytes(), Encoding::Base32), base32);
            let other = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
            assert_eq!(text(bytes.as_bytes(), Encoding::Base64Url), other);
        }
        assert_eq!(text(&[0, 255, 16], Encoding::Hex), "00ff10");
    }
}
