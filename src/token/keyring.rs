//! The keyring: epochs, their states and secrets, as the key file writes them (contract §2) and as this program means them.
//!
//! A keyring either is right in every line or is not a keyring: all mistakes are reported together, with their lines, and none
//! repeats anything from the file but an epoch's number. This page reads and writes text; files are the command line's.

use super::derivation;
use crate::names::EpochId;
use crate::secret::SecretKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// How far an epoch is in its life. It only ever moves downwards in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// On every replica, so that all can reveal before one writes. Not written with.
    Staged,
    /// New values are written under it. There is exactly one.
    Active,
    /// Its tokens are revealed; only pinned ids are still written under it.
    RevealOnly,
    /// Its secret is gone: its tokens will never be revealed again.
    Destroyed,
}

impl State {
    fn parse(text: &str) -> Option<State> {
        [State::Staged, State::Active, State::RevealOnly, State::Destroyed].into_iter().find(|s| s.as_str() == text)
    }

    /// As the key file writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Staged => "staged",
            State::Active => "active",
            State::RevealOnly => "reveal-only",
            State::Destroyed => "destroyed",
        }
    }
}

/// One epoch as meant: a secret exactly where the state is live.
#[derive(Debug, Clone)]
struct Epoch {
    id: EpochId,
    created: String,
    state: State,
    check: Option<[u8; 16]>,
    secret: Option<SecretKey>,
}

/// All epochs of a key file; exactly one is active. Prints no secret.
#[derive(Debug, Clone)]
pub struct Keyring {
    epochs: Vec<Epoch>,
    active: EpochId,
}

/// One mistake in a key file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line in the file, from 1; none where it is about the file as a whole.
    pub line: Option<u64>,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.fault),
            None => self.fault.fmt(f),
        }
    }
}

impl std::error::Error for Mistake {}

/// What can be wrong in a key file, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not YAML, or not of this shape.
    #[error(
        "this is not a keyring: it has apiVersion, kind and epochs, and each epoch id, created, state, check and secret, \
         once each and nothing else"
    )]
    Shape,
    /// Another `apiVersion`.
    #[error("apiVersion must be cryptonym/v1")]
    ApiVersion,
    /// Another `kind`.
    #[error("kind must be Keyring")]
    Kind,
    /// No number from 1 to 63.
    #[error("an epoch's id must be a number from 1 to 63")]
    Id,
    /// The same id again.
    #[error("epoch {0} occurs twice: ids are never reused")]
    Reused(EpochId),
    /// A field is absent.
    #[error("an epoch lacks `{0}`")]
    Missing(&'static str),
    /// Unknown state.
    #[error("an epoch's state must be staged, active, reveal-only or destroyed")]
    State,
    /// No timestamp.
    #[error("an epoch's created must be a time like 2026-11-23T10:00:00Z")]
    Created,
    /// Secret of a wrong form.
    #[error("an epoch's secret must be base64 of exactly 32 bytes")]
    Secret,
    /// A destroyed epoch with a secret.
    #[error("a destroyed epoch must have no secret: remove it, that is what destroys its tokens")]
    NotDestroyed,
    /// Check value of a wrong form, or not the secret's.
    #[error(
        "an epoch's check value does not belong to its secret: one of the two was altered; restore them from a backup"
    )]
    Check,
    /// Two epochs with one secret.
    #[error("epoch {0} has the secret of another epoch: a new epoch needs a new secret")]
    SameSecret(EpochId),
    /// No active epoch.
    #[error("no epoch is active: exactly one must be")]
    NoneActive,
    /// Several active epochs.
    #[error("epoch {0} is a second active one: exactly one must be")]
    SecondActive(EpochId),
}

/// Why a step of an epoch's life cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// No such epoch.
    #[error("epoch {0} is not in this keyring")]
    Unknown(EpochId),
    /// Every id was used.
    #[error(
        "this keyring has used every epoch id from 1 to 63, and ids are never reused: begin a new one for a new store"
    )]
    Full,
    /// The step does not lead on from this state.
    #[error("epoch {id} is {}, so it cannot be {step}: {help}", state.as_str())]
    Not {
        /// Which epoch.
        id: EpochId,
        /// Its state.
        state: State,
        /// The step, as a participle.
        step: &'static str,
        /// What can be done.
        help: &'static str,
    },
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct KeyringAsWritten {
    /// `cryptonym/v1`
    #[cfg_attr(feature = "cli", schemars(with = "String"))]
    api_version: Spanned<String>,
    /// `Keyring`
    #[cfg_attr(feature = "cli", schemars(with = "String"))]
    kind: Spanned<String>,
    /// Exactly one is active; ids are never reused.
    #[cfg_attr(feature = "cli", schemars(with = "Vec<EpochAsWritten>"))]
    epochs: Vec<Spanned<EpochAsWritten>>,
}

/// Everything may be missing and is text, so that one reading finds all mistakes.
#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct EpochAsWritten {
    /// 1 to 63
    #[cfg_attr(feature = "cli", schemars(with = "u8"))]
    id: Option<Spanned<String>>,
    /// RFC 3339
    #[cfg_attr(feature = "cli", schemars(with = "String"))]
    created: Option<Spanned<String>>,
    /// `staged`, `active`, `reveal-only`, `destroyed`
    #[cfg_attr(feature = "cli", schemars(with = "String"))]
    state: Option<Spanned<String>>,
    /// Key check value, base64 of 16 bytes
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    check: Option<Spanned<String>>,
    /// Base64 of 32 bytes; absent when destroyed
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    secret: Option<Spanned<SecretText>>,
}

/// The JSON Schema of a key file.
#[cfg(feature = "cli")]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(KeyringAsWritten)
}

/// The base64 of a secret, wiped on drop.
struct SecretText(Zeroizing<String>);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| SecretText(Zeroizing::new(text)))
    }
}

impl Keyring {
    /// A keyring of one active epoch. The caller brings 32 random bytes and the time (RFC 3339).
    pub fn generate(secret: [u8; 32], created: &str) -> Keyring {
        let id = EpochId::new(1).expect("1 is between 1 and 63");
        let secret = SecretKey::new(secret);
        let check = Some(derivation::check_value(&secret));
        let epoch = Epoch { id, created: created.to_owned(), state: State::Active, check, secret: Some(secret) };
        Keyring { epochs: vec![epoch], active: id }
    }

    /// Adds a staged epoch: replicas can reveal under it, none writes with it. The caller brings 32 random bytes and the time.
    pub fn stage(&mut self, secret: [u8; 32], created: &str) -> Result<EpochId, StepError> {
        let last = self.epochs.iter().map(|epoch| epoch.id.get()).max().unwrap_or(0);
        let id = EpochId::new(last + 1).map_err(|_| StepError::Full)?;
        let secret = SecretKey::new(secret);
        let check = Some(derivation::check_value(&secret));
        self.epochs.push(Epoch { id, created: created.to_owned(), state: State::Staged, check, secret: Some(secret) });
        Ok(id)
    }

    /// Makes a staged epoch the active one; the one that was active reveals only. Returns that one.
    pub fn activate(&mut self, id: EpochId) -> Result<EpochId, StepError> {
        let help = "stage a new epoch first; an epoch never becomes active again";
        self.step(id, &[State::Staged], State::Active, "activated", help)?;
        let before = std::mem::replace(&mut self.active, id);
        self.epoch_mut(before)?.state = State::RevealOnly;
        Ok(before)
    }

    /// Withdraws a staged epoch that is not to be used: it reveals only.
    pub fn retire(&mut self, id: EpochId) -> Result<(), StepError> {
        let help = "activating another epoch retires the active one; what only reveals is retired already";
        self.step(id, &[State::Staged], State::RevealOnly, "retired", help)
    }

    /// Forgets an epoch's secret: what was written under it is never revealed again. Its check value stays, to know the secret by if it turns up.
    pub fn destroy(&mut self, id: EpochId) -> Result<(), StepError> {
        let help = "activate another epoch first, and move its tokens with `cryptonym rewrap`";
        self.step(id, &[State::RevealOnly, State::Staged], State::Destroyed, "destroyed", help)?;
        self.epoch_mut(id)?.secret = None; // wiped on drop
        Ok(())
    }

    fn step(
        &mut self,
        id: EpochId,
        from: &[State],
        to: State,
        step: &'static str,
        help: &'static str,
    ) -> Result<(), StepError> {
        let epoch = self.epoch_mut(id)?;
        if !from.contains(&epoch.state) {
            return Err(StepError::Not { id, state: epoch.state, step, help });
        }
        epoch.state = to;
        Ok(())
    }

    fn epoch_mut(&mut self, id: EpochId) -> Result<&mut Epoch, StepError> {
        self.epochs.iter_mut().find(|epoch| epoch.id == id).ok_or(StepError::Unknown(id))
    }

    /// When an epoch was made, as the file says it.
    pub fn created(&self, id: EpochId) -> Option<&str> {
        self.epochs.iter().find(|epoch| epoch.id == id).map(|epoch| epoch.created.as_str())
    }

    /// The epoch to which ids are pinned where a domain names none: the lowest that is active or reveals only.
    pub fn default_id_epoch(&self) -> EpochId {
        let usable = |state| matches!(state, State::Active | State::RevealOnly);
        self.epochs().filter(|&(_, state)| usable(state)).map(|(id, _)| id).min().unwrap_or(self.active)
    }

    /// Reads a key file's text.
    pub fn parse(text: &str) -> Result<Keyring, Vec<Mistake>> {
        let options = serde_saphyr::options! { with_snippet: false };
        let written: KeyringAsWritten = serde_saphyr::from_str_with_options(text, options)
            // The library's own words may quote the file: only its position is passed on.
            .map_err(|error| vec![mistake(error.location(), Fault::Shape)])?;
        as_meant(written)
    }

    /// The key file's text, which holds the secrets.
    pub fn to_yaml(&self) -> Zeroizing<String> {
        // Room for all of it, so that no half-written copy is left behind by growth.
        let mut yaml = Zeroizing::new(String::with_capacity(128 + 256 * self.epochs.len()));
        yaml.push_str("apiVersion: cryptonym/v1\nkind: Keyring\nepochs:\n");
        for epoch in &self.epochs {
            yaml.push_str(&format!(
                "  - {{ id: {}, created: {}, state: {}",
                epoch.id,
                epoch.created,
                epoch.state.as_str()
            ));
            if let Some(check) = &epoch.check {
                yaml.push_str(", check: ");
                STANDARD.encode_string(check, &mut yaml);
            }
            if let Some(secret) = &epoch.secret {
                yaml.push_str(", secret: ");
                STANDARD.encode_string(secret.expose(), &mut yaml);
            }
            yaml.push_str(" }\n");
        }
        yaml
    }

    /// The epoch under which new values are written.
    pub fn active(&self) -> EpochId {
        self.active
    }

    /// Every epoch and its state, as listed.
    pub fn epochs(&self) -> impl Iterator<Item = (EpochId, State)> + '_ {
        self.epochs.iter().map(|epoch| (epoch.id, epoch.state))
    }

    /// The state of an epoch; `None`: it is not in this keyring.
    pub fn state(&self, id: EpochId) -> Option<State> {
        self.epochs().find(|&(known, _)| known == id).map(|(_, state)| state)
    }

    pub(super) fn live(&self) -> impl Iterator<Item = (EpochId, &SecretKey)> + '_ {
        self.epochs.iter().filter_map(|epoch| Some((epoch.id, epoch.secret.as_ref()?)))
    }
}

fn mistake(location: Option<Location>, fault: Fault) -> Mistake {
    Mistake { line: location.map(|l| l.line()).filter(|&line| line > 0), fault }
}

fn as_meant(written: KeyringAsWritten) -> Result<Keyring, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    if written.api_version.value != derivation::FORMAT {
        mistakes.push(mistake(Some(written.api_version.referenced), Fault::ApiVersion));
    }
    if written.kind.value != "Keyring" {
        mistakes.push(mistake(Some(written.kind.referenced), Fault::Kind));
    }
    let mut epochs: Vec<Epoch> = Vec::new();
    let mut active = None;
    for entry in written.epochs {
        let at = entry.referenced;
        let Some(epoch) = epoch_as_meant(entry, &mut mistakes) else { continue };
        if epochs.iter().any(|other| other.id == epoch.id) {
            mistakes.push(mistake(Some(at), Fault::Reused(epoch.id)));
        }
        if epoch.secret.is_some() && epochs.iter().any(|other| other.check == epoch.check) {
            mistakes.push(mistake(Some(at), Fault::SameSecret(epoch.id)));
        }
        if epoch.state == State::Active {
            if active.is_some() {
                mistakes.push(mistake(Some(at), Fault::SecondActive(epoch.id)));
            }
            active = Some(epoch.id);
        }
        epochs.push(epoch);
    }
    match active {
        Some(active) if mistakes.is_empty() => Ok(Keyring { epochs, active }),
        None if mistakes.is_empty() => Err(vec![mistake(None, Fault::NoneActive)]),
        _ => Err(mistakes),
    }
}

/// One epoch, or all that is wrong with it.
fn epoch_as_meant(entry: Spanned<EpochAsWritten>, mistakes: &mut Vec<Mistake>) -> Option<Epoch> {
    let before = mistakes.len();
    let (at, entry) = (entry.referenced, entry.value);
    let mut read = |name, field: Option<Spanned<String>>, fault: Fault, fits: &dyn Fn(&str) -> bool| match field {
        Some(field) if fits(&field.value) => Some(field.value),
        Some(field) => {
            mistakes.push(mistake(Some(field.referenced), fault));
            None
        }
        None => {
            mistakes.push(mistake(Some(at), Fault::Missing(name)));
            None
        }
    };
    let id = read("id", entry.id, Fault::Id, &|text| epoch_id(text).is_some()).and_then(|text| epoch_id(&text));
    let created = read("created", entry.created, Fault::Created, &is_timestamp);
    let state =
        read("state", entry.state, Fault::State, &|text| State::parse(text).is_some()).and_then(|s| State::parse(&s));
    let checked_at = entry.check.as_ref().map_or(at, |check| check.referenced);
    let mut wrong = |location, fault| mistakes.push(mistake(Some(location), fault));

    // A destroyed epoch may keep its check value, to recognise a secret that turns up again.
    let check = match entry.check.map(|check| decode::<16>(&check.value)) {
        Some(None) => {
            wrong(checked_at, Fault::Check);
            None
        }
        Some(Some(check)) => Some(*check),
        None => None,
    };
    let secret = match (state, entry.secret) {
        (Some(State::Destroyed), Some(secret)) => {
            wrong(secret.referenced, Fault::NotDestroyed);
            None
        }
        (Some(State::Destroyed), None) => None,
        (_, None) => {
            wrong(at, Fault::Missing("secret"));
            None
        }
        (_, Some(secret)) => {
            let decoded = decode::<32>(&secret.value.0);
            if decoded.is_none() {
                wrong(secret.referenced, Fault::Secret);
            }
            decoded.map(|bytes| SecretKey::new(*bytes))
        }
    };
    match (&secret, check) {
        (Some(secret), Some(check)) if !bool::from(derivation::check_value(secret).ct_eq(&check)) => {
            wrong(checked_at, Fault::Check);
        }
        (Some(_), None) if checked_at == at => wrong(at, Fault::Missing("check")),
        _ => {}
    }
    (mistakes.len() == before).then_some(Epoch { id: id?, created: created?, state: state?, check, secret })
}

fn epoch_id(text: &str) -> Option<EpochId> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain).and_then(|id| EpochId::new(id).ok())
}

/// `2026-11-23T10:00:00`, an optional fraction, `Z` or an offset: RFC 3339, by form.
fn is_timestamp(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    let Some((start, zone)) = text.as_bytes().split_at_checked(FORM.len()) else { return false };
    let digit = |b: u8| b.is_ascii_digit();
    let fits = start.iter().zip(FORM).all(|(&b, &form)| if form == b'0' { digit(b) } else { b == form });
    let zone = match zone.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction.iter().take_while(|&&b| digit(b)).count();
            if !(1..=9).contains(&digits) {
                return false;
            }
            &fraction[digits..]
        }
        None => zone,
    };
    let zone_fits = match zone {
        b"Z" => true,
        [b'+' | b'-', a, b, b':', c, d] => [a, b, c, d].into_iter().all(|&b| digit(b)),
        _ => false,
    };
    fits && zone_fits
}

/// Exactly N bytes of standard base64, wiped on drop.
fn decode<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    let mut exact = Zeroizing::new([0; N]);
    if bytes.len() != N {
        return None;
    }
    exact.copy_from_slice(&bytes);
    Some(exact)
}
