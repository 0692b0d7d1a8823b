//! Offsets of shifted dates: `offset[subject, kind] = ±1..N days`, uniform, from HMAC-SHA256 of the subject (design §4).
//!
//! All dates of one subject move by the same number of days, so intervals survive. Births and deaths move by offsets of their own: a known
//! birth date must not give away the dates of treatment. The key is pinned to the id epoch: a rotation does not move the past.

use crate::token::Mac;

/// Which of a subject's offsets. The label is part of the hash and of the seal: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offset {
    /// Of everything that happened.
    Event,
    /// Of the birth.
    Birth,
    /// Of the death.
    Death,
}

impl Offset {
    /// Every kind, in the order of seals.
    pub const ALL: [Offset; 3] = [Offset::Event, Offset::Birth, Offset::Death];

    /// One letter, as it stands in a seal.
    pub fn letter(self) -> char {
        match self {
            Offset::Event => 'e',
            Offset::Birth => 'b',
            Offset::Death => 'd',
        }
    }
}

/// The offset in days: never zero, at most `days` either way; whole weeks where `weekday`.
///
/// `days` is at least 1, with `weekday` at least 7 (the compiler saw to it). A 128-bit value modulo at most 7300 is uniform to 2^-115.
pub fn offset(mac: &Mac, kind: Offset, subject: &str, days: u16, weekday: bool) -> i32 {
    let label = [kind.letter() as u8];
    let tag = mac.tag(&[&label, subject.as_bytes()]);
    let wide = u128::from_be_bytes(tag[..16].try_into().expect("a tag has 32 bytes"));
    let (unit, steps) = if weekday { (7, days / 7) } else { (1, days) };
    let steps = i32::from(steps.max(1));
    let drawn = (wide % (2 * steps as u128)) as i32;
    unit * if drawn < steps { -(drawn + 1) } else { drawn - steps + 1 }
}

/// The same offset for dates that name only a month: whole months of the same sign, at least one.
pub fn months(offset_days: i32) -> i32 {
    let whole = (offset_days.abs() * 12 + 182) / 365;
    whole.max(1) * offset_days.signum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Domain, EpochId};
    use crate::token::{Keyring, MacPurpose};
    use std::collections::BTreeSet;

    fn mac() -> Mac {
        let keyring = Keyring::generate([1; 32], "2026-11-23T10:00:00Z");
        let keys = keyring.domain(&Domain::new("d").unwrap(), Some(EpochId::new(1).unwrap())).unwrap();
        keys.mac(MacPurpose::Shift)
    }

    #[test]
    fn offsets_cover_their_range_and_never_stand_still() {
        let mac = mac();
        let seen: BTreeSet<i32> = (0..2000).map(|i| offset(&mac, Offset::Event, &format!("p{i}"), 10, false)).collect();
        assert_eq!(seen, (-10..=10).filter(|&d| d != 0).collect());
        let weeks: BTreeSet<i32> = (0..2000).map(|i| offset(&mac, Offset::Event, &format!("p{i}"), 20, true)).collect();
        assert_eq!(weeks, [-14, -7, 7, 14].into());
    }

    #[test]
    fn births_and_deaths_have_offsets_of_their_own() {
        let mac = mac();
        let differ = (0..100).filter(|i| {
            let of = |kind| offset(&mac, kind, &format!("p{i}"), 365, false);
            of(Offset::Event) != of(Offset::Birth) && of(Offset::Birth) != of(Offset::Death)
        });
        assert!(differ.count() > 95);
    }

    #[test]
    fn months_follow_days() {
        assert_eq!([1, -1, 14, 46, -46, 365, -365].map(months), [1, -1, 1, 2, -2, 12, -12]);
    }
}
