//! Tokens of `base64Binary`: standard base64 of a marker, a header and SIV with ciphertext, so that the element stays valid FHIR.
//!
//! Canonical base64 is sealed as the bytes it means, which saves a quarter; any other spelling (line breaks, missing padding) is
//! sealed as the text it is. Either way the text comes back byte for byte. Canonical spelling is the decoder's: RFC 4648
//! section 4, padded, no stray bits, so one token has one spelling.

use super::siv::SIV_BYTES;
use super::{ClassKeys, Revealed, Rewrapped, Seen, TokenError};
use crate::limits::TOKEN_PLAIN_BYTES_MAX;
use crate::names::EpochId;
use crate::policy::Permit;
use crate::secret::Phi;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize as _, Zeroizing};

/// Starts every binary token. Not UTF-8, and no file format begins so.
const MARKER: [u8; 4] = [0xC5, 0x79, 0x70, 0x74];
const HEADER_BYTES: usize = MARKER.len() + 2;

/// What was sealed: the bytes that canonical base64 means, or the text as it stood.
const DECODED: u8 = 0;
const LITERAL: u8 = 1;

impl ClassKeys {
    /// Appends the token of a base64Binary's text.
    pub fn pseudonymize_binary(&self, phi: &Phi<'_>, out: &mut String) -> Result<(), TokenError> {
        let text = phi.expose(); // exposed to be sealed: the binary twin of the door
        if text.len() > TOKEN_PLAIN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (content, plain) = match STANDARD.decode(text) {
            Ok(bytes) => (DECODED, Zeroizing::new(bytes)),
            Err(_) => (LITERAL, Zeroizing::new(text.as_bytes().to_vec())),
        };
        let keys = &self.epochs[self.writes];
        let header = header(content, keys.id);
        let mut token = header.to_vec();
        token.extend(keys.binary.seal(&[&header], &plain));
        STANDARD.encode_string(token, out);
        Ok(())
    }

    /// What a base64Binary's text is at a place of this class.
    pub fn recognise_binary(&self, text: &str) -> Seen {
        match well_formed(text) {
            None => Seen::Foreign,
            Some(token) if self.open_binary(&token).is_some() => Seen::Token,
            Some(_) => Seen::LookAlike,
        }
    }

    /// The text behind a binary token, where the permit says that this caller may see this class.
    pub fn reidentify_binary(&self, text: &str, permit: &Permit) -> Revealed {
        let Some(token) = well_formed(text) else { return Revealed::Foreign };
        match self.open_binary(&token) {
            None => Revealed::LookAlike,
            Some(_) if !permit.allows(&self.class) => Revealed::Denied,
            Some(mut text) => Revealed::Plain(Phi::new(std::mem::take(&mut *text)), false),
        }
    }

    /// The binary twin of [`ClassKeys::rewrap`].
    pub fn rewrap_binary(&self, text: &str, out: &mut String) -> Rewrapped {
        let Some(token) = well_formed(text) else { return Rewrapped::Foreign };
        let Some(mut value) = self.open_binary(&token) else { return Rewrapped::LookAlike };
        let value = Phi::new(std::mem::take(&mut *value));
        if token[HEADER_BYTES - 1] == self.epochs[self.writes].id.get() || self.pinned {
            return Rewrapped::Current;
        }
        match self.pseudonymize_binary(&value, out) {
            Ok(()) => Rewrapped::Moved,
            Err(_) => Rewrapped::LookAlike, // it was a token, so it fits one
        }
    }

    fn open_binary(&self, token: &[u8]) -> Option<Zeroizing<String>> {
        let (header, sealed) = token.split_at_checked(HEADER_BYTES)?;
        let epoch = EpochId::new(header[HEADER_BYTES - 1]).ok()?;
        let plain = self.epoch(epoch)?.binary.open(&[header], sealed)?;
        match header[MARKER.len()] {
            DECODED => Some(Zeroizing::new(STANDARD.encode(&plain))),
            LITERAL => match String::from_utf8(plain.to_vec()) {
                Ok(text) => Some(Zeroizing::new(text)),
                Err(error) => {
                    error.into_bytes().zeroize();
                    None
                }
            },
            _ => None,
        }
    }
}

fn header(content: u8, epoch: EpochId) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = MARKER;
    [a, b, c, d, content, epoch.get()]
}

/// The bytes of a text that is spelled like a binary token: canonical base64, marker, known content, an epoch, a whole SIV.
fn well_formed(text: &str) -> Option<Vec<u8>> {
    let token = STANDARD.decode(text).ok()?;
    let header = token.strip_prefix(&MARKER)?;
    let fits = header.len() >= 2 + SIV_BYTES && header[0] <= LITERAL && EpochId::new(header[1]).is_ok();
    fits.then_some(token)
}
