//! Turning identifying text into tokens, and back.
//!
//! There is one door in each direction: [`ClassKeys::pseudonymize`], and [`ClassKeys::reidentify`] with a [`Permit`]
//! (their twins for base64Binary are in `binary`, for `urn:uuid:` in `uuid`). A token is AES-SIV (RFC 5297) under a key of its
//! epoch, domain and class, bound to its own header, spelled in exactly one way: it reveals the value it was made from, or nothing.
//!
//! Nothing here reads a clock, a file or randomness: keys come in through a [`Keyring`]. No error and no `Debug` shows a
//! value or a key.

pub mod binary;
pub mod cipher;
pub mod derivation;
pub mod escape;
pub mod keyring;
mod packing;
pub mod siv;
pub mod spelling;
pub mod uuid;

pub use cipher::Mac;
pub use keyring::{Keyring, Mistake, State, StepError};
pub use spelling::{find, well_formed};
pub use uuid::Uuids;

use crate::names::{Class, Domain, EpochId};
use crate::policy::Permit;
use crate::secret::{Phi, SecretKey};
use aes::Aes256Enc;
use derivation::Purpose;
use escape::Escapes;
use siv::{SIV_BYTES, Siv};
use spelling::{Header, Packing};
use std::fmt::Write as _;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Why a value cannot become a token or an escape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Over [`TOKEN_PLAIN_BYTES_MAX`](crate::limits::TOKEN_PLAIN_BYTES_MAX).
    #[error("a value is too long for a token (over 16777213 bytes)")]
    TooLong,
    /// Over the characters that the caller of `escape` has room for.
    #[error("a value of the untrusted side is too long to be escaped (an id has room for 52 characters)")]
    ForeignTooLong,
}

/// Why a domain has no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The id epoch is not in the keyring or is destroyed.
    #[error(
        "epoch {0} is not live in the keyring, so ids cannot be pinned to it: name an epoch that is active or reveal-only"
    )]
    NotLive(EpochId),
    /// The id epoch is staged.
    #[error("epoch {0} is staged, and staged epochs are not yet used: activate it before ids are pinned to it")]
    Staged(EpochId),
}

/// How a value is sealed. Default: as short as it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Form {
    /// Padded to a bucket (16, 32, 64 ... bytes), where the length would tell.
    pub padded: bool,
    /// The content is a JSON spelling (what stands between the quotes) that must come back byte for byte.
    pub raw_spelling: bool,
}

/// What a text at a place of this class is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Not spelled like a token.
    Foreign,
    /// Spelled like a token, but not one of this domain and class under any live epoch. Never an id: refused going out.
    LookAlike,
    /// A token of this domain and class.
    Token,
}

/// What became of a text that was to be revealed.
#[derive(Debug, PartialEq, Eq)]
pub enum Revealed {
    /// The value; `true`: it is a JSON spelling, to be written between quotes as it is.
    Plain(Phi<'static>, bool),
    /// A token of this class, which this caller may not see: it stays.
    Denied,
    /// As [`Seen::LookAlike`]: it stays and is counted.
    LookAlike,
    /// As [`Seen::Foreign`].
    Foreign,
}

/// What a domain's keyed hashes are for, beside those of this room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacPurpose {
    /// Offsets of the action `shift`.
    Shift,
    /// The action `hash`, scope `domain`.
    Hash,
    /// Noise of the action `perturb`.
    Perturb,
    /// What takes the place of ids too long for a token.
    Overflow,
}

/// What became of a token that was to move to another epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewrapped {
    /// It moved.
    Moved,
    /// It is of the epoch that is written with already.
    Current,
    /// As [`Seen::LookAlike`]: it stays and is counted.
    LookAlike,
    /// As [`Seen::Foreign`].
    Foreign,
}

/// One live epoch: its tokens can be revealed.
struct LiveEpoch {
    id: EpochId,
    secret: SecretKey,
}

/// The keys of one domain. Made once per configuration, shared by threads without a lock.
pub struct DomainKeys {
    domain: Domain,
    live: Arc<[LiveEpoch]>,
    active: EpochId,
    id_epoch: EpochId,
    escapes: Escapes,
    uuids: Uuids,
    audit: Mac,
    shift: Mac,
}

impl Keyring {
    /// The keys of a domain. Ids, escapes, UUIDs and offsets are pinned to `id_epoch`, default the lowest live one that is not
    /// staged: ids in a store cannot be renamed when the key rotates (design §4).
    pub fn domain(&self, domain: &Domain, id_epoch: Option<EpochId>) -> Result<DomainKeys, KeyError> {
        let usable = |state| matches!(state, State::Active | State::RevealOnly);
        let id_epoch = match id_epoch {
            Some(id) => match self.state(id) {
                Some(state) if usable(state) => id,
                Some(State::Staged) => return Err(KeyError::Staged(id)),
                _ => return Err(KeyError::NotLive(id)),
            },
            None => self.default_id_epoch(),
        };
        let live: Arc<[LiveEpoch]> = self.live().map(|(id, secret)| LiveEpoch { id, secret: secret.clone() }).collect();
        let pinned = live.iter().find(|epoch| epoch.id == id_epoch).ok_or(KeyError::NotLive(id_epoch))?;
        let mac = |purpose| derivation::mac(&pinned.secret, domain, purpose);
        let tag = derivation::key(&pinned.secret, Some(domain), Purpose::DomainTag, None);
        let uuid = derivation::key(&pinned.secret, Some(domain), Purpose::Uuid, None);
        Ok(DomainKeys {
            domain: domain.clone(),
            active: self.active(),
            id_epoch,
            escapes: Escapes::new(mac(Purpose::EscapeMac), *tag),
            uuids: Uuids::new(&uuid),
            audit: mac(Purpose::Audit),
            shift: mac(Purpose::Shift),
            live,
        })
    }
}

impl DomainKeys {
    /// The keys of one class. `pinned` (ids, and whatever a store is keyed by): new tokens are made under the id epoch,
    /// else under the active one. Every live epoch reveals.
    pub fn class(&self, class: &Class, pinned: bool) -> ClassKeys {
        let writes_under = if pinned { self.id_epoch } else { self.active };
        let hint = derivation::class_hint(class);
        let keys = |epoch: &LiveEpoch| {
            let key = derivation::key::<64>(&epoch.secret, Some(&self.domain), Purpose::Token, Some(class));
            // What every token of the class is bound to, as separate S2V components: nothing runs together. Its header follows.
            let siv = |label| {
                let bound = [label, self.domain.as_str().as_bytes(), class.as_str().as_bytes()];
                Siv::new(key.as_slice(), &bound).expect("64 bytes are two keys of AES-256")
            };
            let text = siv(derivation::TOKEN_LABEL);
            let uuid = Zeroizing::new(text.after(uuid_header(epoch.id, hint).as_bytes()));
            EpochKeys { id: epoch.id, text, uuid, binary: siv(derivation::BINARY_LABEL) }
        };
        ClassKeys {
            domain: self.domain.clone(),
            class: class.clone(),
            hint,
            epochs: self.live.iter().map(keys).collect(),
            writes: self.live.iter().position(|epoch| epoch.id == writes_under).expect("both epochs are live"),
            pinned,
            escapes: self.escapes.clone(),
        }
    }

    /// Whose keys these are.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Under which epoch ids, escapes, UUIDs and offsets are made.
    pub fn id_epoch(&self) -> EpochId {
        self.id_epoch
    }

    /// The permutation of UUIDs.
    pub fn uuids(&self) -> &Uuids {
        &self.uuids
    }

    /// A keyed hash of this domain, pinned to the id epoch.
    pub fn mac(&self, purpose: MacPurpose) -> Mac {
        match purpose {
            MacPurpose::Shift => self.shift.clone(),
            MacPurpose::Hash => derivation::mac(self.pinned(), &self.domain, Purpose::Hash),
            MacPurpose::Perturb => derivation::mac(self.pinned(), &self.domain, Purpose::Perturb),
            MacPurpose::Overflow => derivation::mac(self.pinned(), &self.domain, Purpose::Overflow),
        }
    }

    /// The key of the action `fpe` for one class. Pinned to the id epoch: nothing in its output says under which epoch it was made.
    pub fn fpe_key(&self, class: &Class) -> Zeroizing<[u8; 32]> {
        derivation::key(self.pinned(), Some(&self.domain), Purpose::Fpe, Some(class))
    }

    /// The keyed hash of one document, run or exchange, from 32 random bytes of the caller's, who forgets them (action `hash`, scope `document`).
    pub fn document_mac(&self, secret: &SecretKey) -> Mac {
        derivation::mac(secret, &self.domain, Purpose::DocumentHash)
    }

    fn pinned(&self) -> &SecretKey {
        let epoch = self.live.iter().find(|epoch| epoch.id == self.id_epoch);
        &epoch.expect("the id epoch was found live when these keys were made").secret
    }

    /// The name under which audit and budgets know a subject: 96 bits of HMAC as 24 hexadecimal digits. Pinned to the
    /// id epoch, so that one person is counted once across rotations.
    pub fn handle(&self, subject: &str) -> String {
        let mut handle = String::with_capacity(24);
        for byte in &self.audit.tag(&[subject.as_bytes()])[..12] {
            write!(handle, "{byte:02x}").expect("writing to a String cannot fail");
        }
        handle
    }

    /// The epoch that a text spelled like a token names, where that epoch is live. Not verified: for counting.
    pub fn epoch_of(&self, text: &str) -> Option<EpochId> {
        let epoch = well_formed(text)?.epoch;
        self.live.iter().any(|live| live.id == epoch).then_some(epoch)
    }
}

/// The ciphers of one class under one epoch.
struct EpochKeys {
    id: EpochId,
    text: Siv<Aes256Enc>,
    /// Of `text`: what S2V comes to behind the header that all UUIDs of the class share.
    uuid: Zeroizing<u128>,
    binary: Siv<Aes256Enc>,
}

/// The keys of one class in one domain: one per live epoch. `Send` and `Sync`; a call takes no lock.
pub struct ClassKeys {
    domain: Domain,
    class: Class,
    hint: u8,
    epochs: Vec<EpochKeys>,
    /// Index into `epochs`: under which new tokens are made.
    writes: usize,
    pinned: bool,
    escapes: Escapes,
}

impl ClassKeys {
    /// What kind of value these keys are for.
    pub fn class(&self) -> &Class {
        &self.class
    }

    /// Appends the token of a value: `AES-SIV(key, (label, domain, class, header), packed value)`, spelled after its header.
    pub fn pseudonymize(&self, phi: &Phi<'_>, form: Form, out: &mut String) -> Result<(), TokenError> {
        self.write_token(&self.epochs[self.writes], phi, form, out)
    }

    /// The tokens that this value may already have in a store: one per live epoch, the current one first; one alone where ids are
    /// pinned. An equality search asks for all of them (design §4, rotation).
    pub fn every_token(&self, phi: &Phi<'_>, form: Form) -> Result<Vec<String>, TokenError> {
        let (current, others) = (&self.epochs[self.writes], self.epochs.iter().enumerate());
        let others = others.filter(|&(i, _)| i != self.writes && !self.pinned).map(|(_, epoch)| epoch);
        std::iter::once(current)
            .chain(others)
            .map(|epoch| {
                let mut token = String::new();
                self.write_token(epoch, phi, form, &mut token).map(|()| token)
            })
            .collect()
    }

    /// What a text is at a place of this class.
    pub fn recognise(&self, text: &str) -> Seen {
        match well_formed(text) {
            None => Seen::Foreign,
            Some(header) if self.open(text, header).is_some() => Seen::Token,
            Some(_) => Seen::LookAlike,
        }
    }

    /// Appends the same value's token under the epoch that is written with. Nothing is revealed: the value lives and is wiped within
    /// this call. Where it need not move, nothing is appended.
    pub fn rewrap(&self, text: &str, out: &mut String) -> Rewrapped {
        let Some(header) = well_formed(text) else { return Rewrapped::Foreign };
        let Some((mut value, form)) = self.open(text, header) else { return Rewrapped::LookAlike };
        let value = Phi::new(std::mem::take(&mut *value));
        let writes = &self.epochs[self.writes];
        // What is pinned was written under the id epoch and is what a store is keyed by.
        if header.epoch == writes.id || self.pinned {
            return Rewrapped::Current;
        }
        match self.write_token(writes, &value, form, out) {
            Ok(()) => Rewrapped::Moved,
            Err(_) => Rewrapped::LookAlike, // it was a token, so it fits one
        }
    }

    /// The value behind a token, where the permit says that this caller may see this class.
    pub fn reidentify(&self, text: &str, permit: &Permit) -> Revealed {
        let Some(header) = well_formed(text) else { return Revealed::Foreign };
        match self.open(text, header) {
            None => Revealed::LookAlike,
            Some(_) if !permit.allows(&self.class) => Revealed::Denied,
            Some((mut text, form)) => Revealed::Plain(Phi::new(std::mem::take(&mut *text)), form.raw_spelling),
        }
    }

    /// Appends the escape of a value that the untrusted side minted: what the trusted side gets to see instead of it.
    /// `chars_max` is the room there is: [`FOREIGN_ID_CHARS_MAX`](crate::limits::FOREIGN_ID_CHARS_MAX) in an id, `None` elsewhere.
    pub fn escape(&self, foreign: &str, chars_max: Option<usize>, out: &mut String) -> Result<(), TokenError> {
        self.escapes.escape(&self.domain, &self.class, foreign, chars_max, out)
    }

    /// The foreign value inside an escape of this domain and class; nothing where it is not one.
    pub fn unescape<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.escapes.unescape(&self.domain, &self.class, text)
    }

    fn write_token(&self, keys: &EpochKeys, phi: &Phi<'_>, form: Form, out: &mut String) -> Result<(), TokenError> {
        // Exposed to be sealed: this is the door.
        let value = phi.expose();
        if form == Form::default()
            && let Some(uuid) = uuid::parse(value)
        {
            self.write_uuid(keys, uuid, out);
            return Ok(());
        }
        let room = packing::room(value, form)?;
        // In either buffer the plaintext ends as ciphertext.
        if room <= packing::SHORT_BYTES {
            self.seal(keys, value, form, &mut [0; SIV_BYTES + packing::SHORT_BYTES], out);
        } else {
            self.seal(keys, value, form, &mut vec![0; SIV_BYTES + room], out);
        }
        Ok(())
    }

    fn seal(&self, keys: &EpochKeys, value: &str, form: Form, buffer: &mut [u8], out: &mut String) {
        let packed = packing::pack(value, form, &mut buffer[SIV_BYTES..]);
        let header = Header { epoch: keys.id, packing: packed.packing, length: packed.length, class_hint: self.hint };
        let spelled = header.spell();
        let sealed = &mut buffer[..SIV_BYTES + packed.bytes];
        keys.text.seal_in_place(&[spelled.as_bytes()], sealed);
        spelling::write_token(&spelled, sealed, out);
    }

    /// The token of a UUID, which is what most ids are: one block each way, and no buffer but this one, which ends as ciphertext.
    fn write_uuid(&self, keys: &EpochKeys, uuid: [u8; 16], out: &mut String) {
        let mut sealed = [0; SIV_BYTES + 16];
        sealed[SIV_BYTES..].copy_from_slice(&uuid);
        keys.text.seal_after(*keys.uuid, &mut sealed);
        spelling::write_token(&uuid_header(keys.id, self.hint), &sealed, out);
    }

    /// The UUID behind such a token. One that verifies was sealed by `write_uuid`, or by `pack` to the same bytes.
    fn open_uuid(&self, keys: &EpochKeys, body: &[u8]) -> Option<Zeroizing<String>> {
        let mut sealed = Zeroizing::new([0; SIV_BYTES + 16]);
        spelling::read_body(body, sealed.as_mut_slice())?;
        if !keys.text.opens_after(*keys.uuid, sealed.as_mut_slice()) {
            return None;
        }
        let mut value = Zeroizing::new(String::with_capacity(36));
        uuid::format(*sealed.last_chunk()?, &mut value);
        Some(value)
    }

    /// The value of a token whose form is right. What verifies was sealed here, in its only spelling: the body's slack is zero
    /// (`well_formed`), the header is authenticated, and `unpack` accepts only what `pack` makes.
    fn open(&self, text: &str, header: Header) -> Option<(Zeroizing<String>, Form)> {
        if header.class_hint != self.hint {
            return None;
        }
        let (spelled, body) = text.as_bytes().split_at(header.chars());
        let keys = self.epoch(header.epoch)?;
        if header.packing == Packing::Uuid {
            return Some((self.open_uuid(keys, body)?, Form::default()));
        }
        let opened = |sealed: &mut [u8]| {
            spelling::read_body(body, sealed)?;
            if !keys.text.opens_after(keys.text.after(spelled), sealed) {
                return None;
            }
            packing::unpack(header.packing, header.length, &sealed[SIV_BYTES..])
        };
        match header.sealed_bytes() {
            short @ ..=spelling::SHORT_SEALED_BYTES => {
                opened(&mut Zeroizing::new([0; spelling::SHORT_SEALED_BYTES])[..short])
            }
            long => opened(&mut Zeroizing::new(vec![0; long])),
        }
    }

    fn epoch(&self, id: EpochId) -> Option<&EpochKeys> {
        self.epochs.iter().find(|keys| keys.id == id)
    }
}

/// The header of every UUID's token of one class under one epoch.
fn uuid_header(epoch: EpochId, class_hint: u8) -> spelling::Spelled {
    Header { epoch, packing: Packing::Uuid, length: 16, class_hint }.spell()
}

/// Reading without a permit. The word stands at each place that does so.
pub mod danger {
    use super::{ClassKeys, Phi, Uuids, well_formed};

    /// The value behind a token, for the rewriter alone: to unshift a date it must compare the subject inside a seal with the
    /// subject of the resource, for callers who may see neither. What comes out may decide, and must never be written anywhere.
    pub fn open(keys: &ClassKeys, text: &str) -> Option<Phi<'static>> {
        let (mut value, _) = keys.open(text, well_formed(text)?)?;
        Some(Phi::new(std::mem::take(&mut *value)))
    }

    /// The UUID behind a pseudonym, for the same comparison.
    pub fn open_uuid(uuids: &Uuids, pseudonym: [u8; 16]) -> [u8; 16] {
        uuids.inverse(pseudonym)
    }
}
