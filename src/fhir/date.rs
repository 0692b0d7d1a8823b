//! Dates as FHIR writes them: `date`, `dateTime`, `instant` (R4 datatypes, regular expressions of the primitives).
//!
//! A date is read as year, month, day and the rest of its text; only the first three can change, the rest (time of day,
//! fraction, zone) keeps every byte. Which dates move and by how much is decided elsewhere. No clock, no time zones
//! beyond their spelling; the calendar is the proleptic Gregorian one, years 0001 to 9999.

use super::schema::Primitive;
use std::fmt;

/// Why a text is not such a date. Carries nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DateError {
    /// Not in the form of its type.
    #[error("not a FHIR date: YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss with a zone")]
    Form,
    /// In form, but the calendar has no such day (February 30), or the year is 0000.
    #[error("a day that the calendar does not have")]
    Calendar,
}

/// A date read from text, or moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FhirDate<'a> {
    year: u16,
    /// `None`: only the year is known.
    month: Option<u8>,
    /// `None`: only year and month are known.
    day: Option<u8>,
    /// `T` and all after it, as it stood; empty without a time.
    rest: &'a str,
}

/// Longest fraction of a second, in digits (R5 dateTime). R4 sets no bound; no clock writes more, and digits that no
/// clock writes could carry an identifier past a rule that keeps the time of day.
const FRACTION_DIGITS_MAX: usize = 9;

impl<'a> FhirDate<'a> {
    /// Reads the text of a `date`, `dateTime` or `instant`; of other primitives there is no date.
    pub fn parse(primitive: Primitive, text: &'a str) -> Result<FhirDate<'a>, DateError> {
        let begins = if text.as_bytes().get(10) == Some(&b'T') { Some(10) } else { text.find('T') };
        let (date, rest) = text.split_at(begins.unwrap_or(text.len()));
        let year = number(date.get(..4).ok_or(DateError::Form)?)?;
        let (month, day) = match date.len() {
            4 => (None, None),
            7 => (Some(part(date, 4)?), None),
            10 => (Some(part(date, 4)?), Some(part(date, 7)?)),
            _ => return Err(DateError::Form),
        };
        let fits = match primitive {
            Primitive::Date => rest.is_empty(),
            Primitive::DateTime => rest.is_empty() || (day.is_some() && is_time(rest)),
            Primitive::Instant => day.is_some() && is_time(rest),
            _ => false,
        };
        if !fits {
            return Err(DateError::Form);
        }
        if year == 0
            || month.is_some_and(|month| !(1..=12).contains(&month))
            || day.is_some_and(|day| day == 0 || day > days_in_month(year, month.unwrap_or(0)))
        {
            return Err(DateError::Calendar);
        }
        Ok(FhirDate { year, month, day, rest })
    }

    /// 1 to 9999.
    pub fn year(&self) -> u16 {
        self.year
    }

    /// 1 to 12, if it is known.
    pub fn month(&self) -> Option<u8> {
        self.month
    }

    /// 1 to 31, if it is known.
    pub fn day(&self) -> Option<u8> {
        self.day
    }

    /// Time of day and zone as they stand, with the `T`; empty if there are none.
    pub fn rest(&self) -> &'a str {
        self.rest
    }

    /// A date that systems write for "unknown", "never ends" or "since ever". It tells nothing about anyone, and moved it
    /// would look like a date that does.
    pub fn is_sentinel(&self) -> bool {
        matches!(
            (self.year, self.month, self.day),
            (9999, Some(12), Some(31) | None) | (1900, Some(1), Some(1)) | (1, Some(1), Some(1))
        )
    }

    /// This many days later, the rest unchanged. `None` if the day is not known or the year would leave 0001 to 9999.
    pub fn add_days(&self, days: i32) -> Option<FhirDate<'a>> {
        let number = day_number(self.year, self.month?, self.day?).checked_add(days)?;
        let (year, month, day) = civil(number)?;
        Some(FhirDate { year, month: Some(month), day: Some(day), rest: self.rest })
    }

    /// This many months later. `None` unless exactly year and month are known (a day need not exist in the other month),
    /// or if the year would leave 0001 to 9999.
    pub fn add_months(&self, months: i32) -> Option<FhirDate<'a>> {
        let (Some(month), None) = (self.month, self.day) else { return None };
        let count = (i32::from(self.year) * 12 + i32::from(month) - 1).checked_add(months)?;
        let year = u16::try_from(count.div_euclid(12)).ok().filter(|year| (1..=9999).contains(year))?;
        let month = u8::try_from(count.rem_euclid(12) + 1).ok()?;
        Some(FhirDate { year, month: Some(month), day: None, rest: self.rest })
    }

    /// Appends the text of the date: of one that was read and not moved, the same bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        let digits = |n: u16, unit: u16| b'0' + (n / unit % 10) as u8;
        out.extend([1000, 100, 10, 1].map(|unit| digits(self.year, unit)));
        for part in [self.month, self.day].into_iter().flatten() {
            out.extend([b'-', digits(part.into(), 10), digits(part.into(), 1)]);
        }
        out.extend_from_slice(self.rest.as_bytes());
    }

    /// Days since 0001-01-01, for the distance between two dates. `None` if the day is not known.
    pub fn day_number(&self) -> Option<i32> {
        Some(day_number(self.year, self.month?, self.day?))
    }
}

impl fmt::Display for FhirDate<'_> {
    /// As `write`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(10 + self.rest.len());
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// The two digits after the `-` at this place.
fn part(date: &str, at: usize) -> Result<u8, DateError> {
    let digits = date.get(at..at + 3).and_then(|part| part.strip_prefix('-')).ok_or(DateError::Form)?;
    number(digits)?.try_into().map_err(|_| DateError::Form)
}

/// Two or four digits.
fn number(digits: &str) -> Result<u16, DateError> {
    let digit = |n: u16, b: u8| b.is_ascii_digit().then(|| n * 10 + u16::from(b - b'0'));
    digits.bytes().try_fold(0, digit).ok_or(DateError::Form)
}

/// `Thh:mm:ss[.f+](Z|±hh:mm)`: seconds up to 60 (leap), no 24:00, zones up to 14:00.
fn is_time(rest: &str) -> bool {
    let bytes = rest.as_bytes();
    let two = |at: usize| match bytes.get(at..at + 2) {
        Some([tens @ b'0'..=b'9', ones @ b'0'..=b'9']) => Some((tens - b'0') * 10 + (ones - b'0')),
        _ => None,
    };
    let clock = bytes.first() == Some(&b'T')
        && two(1).is_some_and(|hour| hour <= 23)
        && bytes.get(3) == Some(&b':')
        && two(4).is_some_and(|minute| minute <= 59)
        && bytes.get(6) == Some(&b':')
        && two(7).is_some_and(|second| second <= 60);
    if !clock {
        return false;
    }
    let mut zone = 9;
    if bytes.get(9) == Some(&b'.') {
        let digits = bytes[10..].iter().take_while(|b| b.is_ascii_digit()).count();
        if !(1..=FRACTION_DIGITS_MAX).contains(&digits) {
            return false;
        }
        zone = 10 + digits;
    }
    match &bytes[zone..] {
        b"Z" => true,
        [b'+' | b'-', _, _, b':', _, _] => match (two(zone + 1), two(zone + 4)) {
            (Some(hour), Some(minute)) => (hour <= 13 && minute <= 59) || (hour == 14 && minute == 0),
            _ => false,
        },
        _ => false,
    }
}

fn is_leap(year: u16) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_month(year: u16, month: u8) -> u8 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of a common year before each month.
const BEFORE_MONTH: [i32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

/// Days in 400, 100 and 4 years of the Gregorian calendar, and in one.
const DAYS_400: i32 = 146_097;
const DAYS_100: i32 = 36_524;
const DAYS_4: i32 = 1_461;
const DAYS_1: i32 = 365;

/// Days since 0001-01-01, which is 0.
fn day_number(year: u16, month: u8, day: u8) -> i32 {
    let past = i32::from(year) - 1;
    let leap_day = i32::from(month > 2 && is_leap(year));
    let in_year = BEFORE_MONTH[usize::from(month) - 1] + leap_day + i32::from(day) - 1;
    past * DAYS_1 + past / 4 - past / 100 + past / 400 + in_year
}

/// The day of a day number, `None` outside the years 0001 to 9999.
fn civil(number: i32) -> Option<(u16, u8, u8)> {
    let last = day_number(9999, 12, 31);
    if !(0..=last).contains(&number) {
        return None;
    }
    // The last day of a leap cycle would count as the first of a fifth quarter or fourth-and-more year: `min` holds it back.
    let (cycles, left) = (number / DAYS_400, number % DAYS_400);
    let centuries = (left / DAYS_100).min(3);
    let left = left - centuries * DAYS_100;
    let (quads, left) = (left / DAYS_4, left % DAYS_4);
    let years = (left / DAYS_1).min(3);
    let in_year = left - years * DAYS_1;
    let year = u16::try_from(cycles * 400 + centuries * 100 + quads * 4 + years + 1).ok()?;

    let mut month = 1;
    let mut day = in_year;
    while day >= i32::from(days_in_month(year, month)) {
        day -= i32::from(days_in_month(year, month));
        month += 1;
    }
    Some((year, month, u8::try_from(day + 1).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Primitive::{Date, DateTime, Instant, String as Text};

    #[test]
    fn what_is_a_date() {
        for (primitive, text, expected) in [
            (Date, "2024", Ok(())),
            (Date, "2024-02", Ok(())),
            (Date, "2024-02-29", Ok(())),
            (Date, "0001-01-01", Ok(())),
            (Date, "9999-12-31", Ok(())),
            (Date, "2023-02-29", Err(DateError::Calendar)),
            (Date, "1900-02-29", Err(DateError::Calendar)),
            (Date, "2000-02-29", Ok(())),
            (Date, "2023-04-31", Err(DateError::Calendar)),
            (Date, "2023-00", Err(DateError::Calendar)),
            (Date, "2023-13", Err(DateError::Calendar)),
            (Date, "2023-01-00", Err(DateError::Calendar)),
            (Date, "0000", Err(DateError::Calendar)),
            (Date, "0000-01-01", Err(DateError::Calendar)),
            (Date, "", Err(DateError::Form)),
            (Date, "24", Err(DateError::Form)),
            (Date, "02024", Err(DateError::Form)),
            (Date, "+024", Err(DateError::Form)),
            (Date, " 2024", Err(DateError::Form)),
            (Date, "2024-1-1", Err(DateError::Form)),
            (Date, "2024/01/01", Err(DateError::Form)),
            (Date, "2024-01-+1", Err(DateError::Form)),
            (Date, "2024-01-01Z", Err(DateError::Form)),
            (Date, "20é24-1-1", Err(DateError::Form)),
            (Date, "202é-01-1", Err(DateError::Form)),
            (Date, "2024-0é", Err(DateError::Form)),
            (Date, "2024-01-01T00:00:00Z", Err(DateError::Form)),
            (DateTime, "2024", Ok(())),
            (DateTime, "2024-01-01", Ok(())),
            (DateTime, "2024-01-01T", Err(DateError::Form)),
            (DateTime, "2024-01T10:00:00Z", Err(DateError::Form)),
            (DateTime, "2024-01-01T23:59:60Z", Ok(())),
            (DateTime, "2024-01-01T23:59:61Z", Err(DateError::Form)),
            (DateTime, "2024-01-01T24:00:00Z", Err(DateError::Form)),
            (DateTime, "2024-01-01T10:60:00Z", Err(DateError::Form)),
            (DateTime, "2024-01-01T10:00:00", Err(DateError::Form)),
            (DateTime, "2024-01-01T10:00Z", Err(DateError::Form)),
            (DateTime, "2024-01-01t10:00:00z", Err(DateError::Form)),
            (DateTime, "2024-01-01T10:00:00z", Err(DateError::Form)),
            (DateTime, "2024-01-01T10:00:00.123456789+14:00", Ok(())),
            (DateTime, "2024-01-01T10:00:00.1234567890Z", Err(DateError::Form)),
            (DateTime, "2024-01-01T10:00:00.Z", Err(DateError::Form)),
            (DateTime, "2024-01-01T10:00:00+14:01", Err(DateError::Form)),
            (DateTime, "2024-01-01T10:00:00-13:59", Ok(())),
            (DateTime, "2024-01-01T10:00:00+1:00", Err(DateError::Form)),
            (DateTime, "2024-01-01T10:00:00+01:00 ", Err(DateError::Form)),
            (DateTime, "2024-01-01T10:00:00+é0:0", Err(DateError::Form)),
            (DateTime, "2023-02-30T10:00:00Z", Err(DateError::Calendar)),
            (Instant, "2024-01-01T10:00:00.5Z", Ok(())),
            (Instant, "2024-01-01", Err(DateError::Form)),
            (Instant, "2024", Err(DateError::Form)),
            (Text, "2024", Err(DateError::Form)),
        ] {
            let parsed = FhirDate::parse(primitive, text);
            assert_eq!(parsed.map(|_| ()), expected, "{text}");
            if let Ok(date) = parsed {
                assert_eq!(date.to_string(), text);
            }
        }
    }

    #[track_caller]
    fn moved(text: &str, days: i32, expected: Option<&str>) {
        let primitive = if text.len() > 10 { DateTime } else { Date };
        let date = FhirDate::parse(primitive, text).unwrap().add_days(days);
        assert_eq!(date.map(|date| date.to_string()).as_deref(), expected, "{text} + {days}");
    }

    #[test]
    fn days_are_added_and_the_rest_is_kept() {
        moved("2024-02-28", 1, Some("2024-02-29"));
        moved("2024-02-28", 2, Some("2024-03-01"));
        moved("2023-02-28", 1, Some("2023-03-01"));
        moved("2024-01-01", -1, Some("2023-12-31"));
        moved("2000-12-31", 366, Some("2002-01-01"));
        moved("1970-01-01", 19_723, Some("2024-01-01"));
        moved("1582-10-04", 1, Some("1582-10-05"));
        moved("0001-01-01", -1, None);
        moved("9999-12-31", 1, None);
        moved("9999-12-31", i32::MAX, None);
        moved("2024-01-01", i32::MIN, None);
        moved("2024", 1, None);
        moved("2024-05", 1, None);
        moved("2024-12-31T23:59:60.000-05:00", 1, Some("2025-01-01T23:59:60.000-05:00"));
    }

    #[test]
    fn months_are_added() {
        for (text, months, expected) in [
            ("2024-01", -1, Some("2023-12")),
            ("2024-12", 1, Some("2025-01")),
            ("2024-05", 24, Some("2026-05")),
            ("0001-01", -1, None),
            ("9999-12", 1, None),
            ("9999-12", i32::MAX, None),
            ("2024", 1, None),
            ("2024-01-31", 1, None),
        ] {
            let date = FhirDate::parse(Date, text).unwrap().add_months(months);
            assert_eq!(date.map(|date| date.to_string()).as_deref(), expected, "{text} + {months}");
        }
    }

    #[test]
    fn sentinels() {
        for (text, expected) in [
            ("9999-12-31", true),
            ("9999-12", true),
            ("1900-01-01", true),
            ("0001-01-01", true),
            ("9999-12-30", false),
            ("1900-01", false),
            ("1900", false),
            ("1970-01-01", false),
        ] {
            assert_eq!(FhirDate::parse(Date, text).unwrap().is_sentinel(), expected, "{text}");
        }
        assert!(FhirDate::parse(DateTime, "1900-01-01T00:00:00Z").unwrap().is_sentinel());
    }

    /// Every day of the calendar, one after the other: the two directions agree and no number is left out.
    #[test]
    fn every_day_has_a_number_and_every_number_a_day() {
        let mut number = 0;
        for year in 1..=9999 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    assert_eq!(day_number(year, month, day), number);
                    assert_eq!(civil(number), Some((year, month, day)));
                    number += 1;
                }
            }
        }
        assert_eq!(number, 3_652_059);
        assert_eq!((civil(-1), civil(number)), (None, None));
    }
}
