//! The seal: the only thing that unshifts a date (design §4).
//!
//! A resource with shifted dates carries one `meta.tag` coding whose code is a token of class `seal` over
//! `1 PACK OFFSETS SUBJECT`. It says which offsets were used, so that a subject's id assigned later, another window of days or another
//! pack never makes a wrong date out of a right one.

use super::engine::Engine;
use crate::action::shift::Offset;
use crate::token::danger;

/// The system of the coding.
pub const SYSTEM: &str = "urn:cryptonym:seal";

/// Offsets in days by kind, in the order of [`Offset::ALL`].
pub type Offsets = [Option<i32>; 3];

/// What a seal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Offsets used.
    pub offsets: Offsets,
    /// The subject's key; empty where the resource had an offset of its own.
    pub subject: String,
}

/// Appends what the token of a seal is made of. `subject` is empty where the resource had an offset of its own.
pub fn write(engine: &Engine, offsets: &Offsets, subject: &str, out: &mut String) {
    out.extend(["1 ", &engine.rules.name, " "]);
    for (kind, offset) in Offset::ALL.iter().zip(offsets) {
        let Some(days) = offset else { continue };
        out.push(kind.letter());
        out.push(if *days < 0 { '-' } else { '+' });
        // Of one width, so that the token's length says nothing about it.
        for unit in [1000, 100, 10, 1] {
            out.push(char::from(b'0' + (days.unsigned_abs() / unit % 10) as u8));
        }
        out.push(',');
    }
    out.push(' ');
    out.push_str(subject);
}

const _: () = assert!(crate::limits::SHIFT_DAYS_MAX < 10_000, "an offset has four digits");

impl Seal {
    /// Reads a code. `None`: not a seal of this domain.
    pub fn read(engine: &Engine, code: &str) -> Option<Seal> {
        // Opened without a permit: offsets are applied only where the permit allows class `seal`, the subject is only compared.
        let text = danger::open(&engine.seals, code)?;
        let mut parts = text.expose().splitn(4, ' ');
        if parts.next() != Some("1") {
            return None;
        }
        let (_pack, written, subject) = (parts.next()?, parts.next()?, parts.next()?);
        let mut offsets = Offsets::default();
        for item in written.split_terminator(',') {
            let at = Offset::ALL.iter().position(|k| item.starts_with(k.letter()))?;
            offsets[at] = Some(item[1..].parse().ok()?);
        }
        Some(Seal { offsets, subject: subject.to_owned() })
    }
}
