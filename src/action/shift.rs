//! `shift`: offsets of shifted dates, and the times outside FHIR that they move. The offset is `offset[subject, kind] = ±1..N days`, uniform, from HMAC-SHA256 of the subject (design §4).
//!
//! All dates of one subject move by the same number of days, so intervals survive. Births and deaths move by offsets of their own: a known
//! birth date must not give away the dates of treatment. The key is pinned to the id epoch: a rotation does not move the past.

use super::number::{Number, ten};
use super::{Done, No};
use crate::fhir::Primitive;
use crate::fhir::date::FhirDate;
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

/// How a time outside FHIR is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
    /// Microseconds since 1970.
    Micros,
    /// Nanoseconds since 1970.
    Nanos,
    /// ISO 8601 and its usual variants, as text.
    Iso,
}

impl Unit {
    /// `s`, `ms`, `us`, `ns`, `iso`.
    pub fn named(name: &str) -> Option<Unit> {
        Some(match name {
            "s" => Unit::Seconds,
            "ms" => Unit::Millis,
            "us" => Unit::Micros,
            "ns" => Unit::Nanos,
            "iso" => Unit::Iso,
            _ => return None,
        })
    }
}

/// Whether a time since 1970 is plausible for its unit: zero, or from 1980 on. A clock that counts seconds where milliseconds are expected stands in
/// January 1970, and to move it by days would change only its leading digits: its date and the offset could be read off the result.
pub fn is_plausible(text: &str, unit: Unit) -> bool {
    let per_second = match unit {
        Unit::Iso => return true,
        Unit::Seconds => 0,
        Unit::Millis => 3,
        Unit::Micros => 6,
        Unit::Nanos => 9,
    };
    let (Some(number), Some(unit)) = (Number::parse(text), ten(per_second)) else { return false };
    let first = Number { unscaled: 0, scale: 0 };
    number.unscaled == first.unscaled || unit.checked_mul(SECONDS_1980).is_some_and(|bound| number.exceeds(bound - 1))
}

/// Seconds from 1970 to 1980.
const SECONDS_1980: i128 = 315_532_800;

/// A time outside FHIR, moved by days: its time of day, precision and zone keep their spelling. What is no time of this unit is refused,
/// since it would cross unmoved. Zero since 1970 and FHIR's sentinels stay: they say "never".
pub fn time(text: &str, unit: Unit, offset_days: i32) -> Result<Done, No> {
    let per_second = match unit {
        Unit::Iso => return iso(text, offset_days),
        Unit::Seconds => 0,
        Unit::Millis => 3,
        Unit::Micros => 6,
        Unit::Nanos => 9,
    };
    if text.contains(['e', 'E']) {
        return Err(No::Date); // would not come back as it was written
    }
    let number = Number::parse(text).ok_or(No::Date)?;
    if number.unscaled == 0 {
        return Ok(Done::Stays);
    }
    let day = ten(per_second + number.scale).and_then(|t| t.checked_mul(86_400)).ok_or(No::Range)?;
    let moved = number.unscaled.checked_add(day.checked_mul(offset_days.into()).ok_or(No::Range)?).ok_or(No::Range)?;
    let moved = Number { unscaled: moved, scale: number.scale };
    // Years 0001 to 9999, as for dates; and never onto the zero that stays.
    let bound = ten(per_second).and_then(|t| t.checked_mul(253_402_300_800)).ok_or(No::Range)?;
    let opposite = Number { unscaled: -moved.unscaled, ..moved };
    if moved.unscaled == 0 || moved.exceeds(bound - 1) || opposite.exceeds(bound) {
        return Err(No::Range);
    }
    Ok(Done::Text(moved.to_string()))
}

/// `YYYY-MM-DD` or `YYYYMMDD`, perhaps with a time behind; `YYYY-MM`; `YYYY`, which stays.
fn iso(text: &str, offset_days: i32) -> Result<Done, No> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
    let (day, clock) = text.split_at(at);
    let basic = day.len() == 8 && day.bytes().all(|b| b.is_ascii_digit());
    let spelled = if basic { format!("{}-{}-{}", &day[..4], &day[4..6], &day[6..]) } else { day.to_owned() };
    let date = FhirDate::parse(Primitive::Date, &spelled).map_err(|_| No::Date)?;
    if !clock.is_empty() && (date.day().is_none() || !is_clock(clock)) {
        return Err(No::Date);
    }
    if date.month().is_none() || date.is_sentinel() {
        return Ok(Done::Stays);
    }
    let moved = match date.day() {
        Some(_) => date.add_days(offset_days),
        None => date.add_months(months(offset_days)),
    };
    let moved = moved.filter(|m| !m.is_sentinel()).ok_or(No::Range)?.to_string();
    let moved = if basic { moved.replace('-', "") } else { moved };
    Ok(Done::Text(format!("{moved}{clock}")))
}

/// A time of day, without a day: `08:00`, `T08:00:30.5+02:00`.
pub fn is_time_of_day(text: &str) -> bool {
    is_clock(&format!("T{}", text.strip_prefix(['T', 't']).unwrap_or(text)))
}

/// `T` or a space, `hh:mm[:ss[.f]]` or `hhmm[ss[.f]]`, and perhaps a zone: nothing else, since it crosses as it is.
fn is_clock(text: &str) -> bool {
    let mut rest = text.as_bytes();
    let mut eat = |wanted: &[u8]| match rest.split_first() {
        Some((first, others)) if wanted.contains(first) => {
            rest = others;
            true
        }
        _ => false,
    };
    let two = |eat: &mut dyn FnMut(&[u8]) -> bool| eat(b"0123456789") && eat(b"0123456789");
    if !eat(b"Tt ") || !two(&mut eat) {
        return false;
    }
    eat(b":");
    if !two(&mut eat) {
        return false;
    }
    if eat(b":") && !two(&mut eat) {
        return false;
    }
    if eat(b"0123456789") && !eat(b"0123456789") {
        return false; // hhmmss
    }
    if eat(b".,") {
        let digits = (0..9).take_while(|_| eat(b"0123456789")).count();
        if digits == 0 {
            return false;
        }
    }
    eat(b" ");
    if eat(b"+-") {
        if !two(&mut eat) {
            return false;
        }
        if eat(b":") && !two(&mut eat) {
            return false;
        }
        if eat(b"0123456789") && !eat(b"0123456789") {
            return false; // ±hhmm
        }
    } else {
        eat(b"Zz");
    }
    rest.is_empty()
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
    fn times_outside_fhir_move_by_whole_days() {
        for (unit, text, days, expected) in [
            ("s", "1700000000", 1, Ok(Some("1700086400"))),
            ("ms", "1700000000123", -1, Ok(Some("1699913600123"))),
            ("us", "1700000000123456", 2, Ok(Some("1700172800123456"))),
            ("ns", "1700000000123456789", 1, Ok(Some("1700086400123456789"))),
            ("s", "1700000000.250", 1, Ok(Some("1700086400.250"))),
            ("s", "0", 1, Ok(None)),
            ("s", "86400", -1, Err(No::Range)),
            ("s", "1.7e9", 1, Err(No::Date)),
            ("s", "253402300799", 1, Err(No::Range)),
            ("ms", "soon", 1, Err(No::Date)),
            ("iso", "2026-02-28", 1, Ok(Some("2026-03-01"))),
            ("iso", "2026-02", 40, Ok(Some("2026-03"))),
            ("iso", "2026", 40, Ok(None)),
            ("iso", "9999-12-31", 40, Ok(None)),
            ("iso", "20260228T101112Z", 1, Ok(Some("20260301T101112Z"))),
            ("iso", "2026-02-28 10:11:12.123 +0100", 1, Ok(Some("2026-03-01 10:11:12.123 +0100"))),
            ("iso", "2026-02-28T10:11", 1, Ok(Some("2026-03-01T10:11"))),
            ("iso", "2026-02-28T10:11:12+01:00", 1, Ok(Some("2026-03-01T10:11:12+01:00"))),
            ("iso", "2026-02-28T10:11 Ng", 1, Err(No::Date)),
            ("iso", "2026-02-28T1", 1, Err(No::Date)),
            ("iso", "2026-02T10:11", 1, Err(No::Date)),
            ("iso", "28.2.2026", 1, Err(No::Date)),
        ] {
            let unit = Unit::named(unit).unwrap();
            let moved = time(text, unit, days).map(|done| match done {
                Done::Text(text) => Some(text),
                _ => None,
            });
            assert_eq!(moved.as_ref().map(|m| m.as_deref()).map_err(|no| *no), expected, "{text}");
            if let Ok(Some(moved)) = moved {
                assert_eq!(time(&moved, unit, -days), Ok(Done::Text(text.to_owned())), "{text} and back");
            }
        }
    }

    #[test]
    fn months_follow_days() {
        assert_eq!([1, -1, 14, 46, -46, 365, -365].map(months), [1, -1, 1, 2, -2, 12, -12]);
    }
}
