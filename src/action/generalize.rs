//! `generalize`: less precise, still true. Dates to month, year or decade; ZIP codes to three digits; ages over 89 to 90; numbers rounded.
//!
//! A date that is none is refused: what it says is unknown. A postal code that is no ZIP code, and a birth that makes its person older than 89,
//! are removed: there is no true value that says less. So is an age in a unit that nobody knows. Everything else is
//! cut, never moved: the result holds nothing that the input did not.
//!
//! Sources: 45 CFR 164.514(b)(2)(i)(B) for ZIP codes, (C) for dates and ages. The day on which ages are reckoned is declared (`as_of`).

use super::number::Number;
use super::zip3::POPULOUS;
use super::{Done, No};
use crate::fhir::Primitive;
use crate::fhir::date::FhirDate;
use crate::secret::Phi;

/// A day of the calendar: year, month, day.
pub type Day = (u16, u8, u8);

/// The parameter `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// `2019-05-04T10:00:00Z` → `2019`.
    Year,
    /// → `2019-05`.
    Month,
    /// → `2010`, the first year of its ten.
    Decade,
    /// The first three digits of a ZIP code, `000` where 20,000 people or fewer live behind them.
    Zip3,
    /// Ages over 89 become 90. Dates become their year, and go where a birth then would make its person older than 89.
    Age90 {
        /// The day on which people have their age.
        as_of: Day,
        /// Numbers without a unit are years (an `elements` rule names them, or they are an Age); else they are no ages.
        bare: bool,
    },
    /// Numbers, half away from zero: so many digits behind the point, before it where negative.
    Round {
        /// -9 to 9.
        places: i32,
    },
}

/// What stands beside a value and decides what it means. Identity like the value: nothing of it comes out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside<'b> {
    /// A Quantity's `code`, else its `unit`.
    pub unit: Option<&'b str>,
    /// An Address's `country`.
    pub country: Option<&'b str>,
    /// The range of the number's datatype.
    pub range: Option<(i128, i128)>,
}

/// The age from which there is only "90 or more", in years.
const AGE_MAX: i32 = 89;

/// Generalizes a value of a FHIR primitive.
pub fn generalize(to: To, primitive: Primitive, phi: &Phi<'_>, beside: &Beside<'_>) -> Result<Done, No> {
    // Exposed to be cut: every branch returns less than it was given.
    let value = phi.expose();
    match (to, primitive) {
        (To::Zip3, _) => Ok(zip3(value, beside.country)),
        (To::Round { places }, _) => round(value, places, beside.range),
        (_, Primitive::Date | Primitive::DateTime | Primitive::Instant) => date(to, primitive, value),
        (To::Age90 { bare, .. }, _) => Ok(age(value, bare, beside.unit)),
        (To::Year | To::Month | To::Decade, _) => Err(No::Date),
    }
}

/// A date cut. An instant, which must name a moment, becomes the first of its month or year.
fn date(to: To, primitive: Primitive, text: &str) -> Result<Done, No> {
    let date = FhirDate::parse(primitive, text).map_err(|_| No::Date)?;
    if let To::Age90 { as_of, .. } = to
        && age_of(&date, as_of) > AGE_MAX
    {
        return Ok(Done::Goes);
    }
    let year = match to {
        To::Decade => (date.year() / 10 * 10).max(1),
        _ => date.year(),
    };
    let month = date.month().filter(|_| to == To::Month);
    let cut = match (primitive, month) {
        (Primitive::Instant, month) => format!("{year:04}-{:02}-01T00:00:00Z", month.unwrap_or(1)),
        (_, Some(month)) => format!("{year:04}-{month:02}"),
        (_, None) => format!("{year:04}"),
    };
    Ok(if cut == text { Done::Stays } else { Done::Text(cut) })
}

/// How old somebody born on this date is; of a date that names no day or month, the oldest that it may mean.
fn age_of(birth: &FhirDate<'_>, (year, month, day): Day) -> i32 {
    let birthday = (birth.month().unwrap_or(1), birth.day().unwrap_or(1));
    i32::from(year) - i32::from(birth.year()) - i32::from((month, day) < birthday)
}

/// Units of time: the most that is not over 89 years, and what 90 years are.
fn unit_of_age(unit: &str) -> Option<(i128, i128)> {
    let unit = unit.trim().trim_matches(['{', '}']).to_ascii_lowercase();
    Some(match unit.as_str() {
        "a" | "a_j" | "a_g" | "a_t" | "y" | "yr" | "yrs" | "year" | "years" => (89, 90),
        "mo" | "mo_j" | "mo_g" | "mo_s" | "mos" | "month" | "months" => (89 * 12, 90 * 12),
        // From here on the shortest 89 years and the shortest 90 years that the calendar has.
        "wk" | "wks" | "w" | "week" | "weeks" => (89 * 365 / 7, 90 * 365 / 7),
        "d" | "day" | "days" => (89 * 365, 90 * 365),
        "h" | "hr" | "hrs" | "hour" | "hours" => (89 * 365 * 24, 90 * 365 * 24),
        "min" | "mins" | "minute" | "minutes" => (89 * 365 * 1440, 90 * 365 * 1440),
        "s" | "sec" | "second" | "seconds" => (89 * 365 * 86_400, 90 * 365 * 86_400),
        _ => return None,
    })
}

/// A number of years, or of the unit beside it.
fn age(value: &str, bare: bool, unit: Option<&str>) -> Done {
    let (most, ninety) = match (unit.map(unit_of_age), bare) {
        (Some(Some(known)), _) => known,
        (None, true) => (i128::from(AGE_MAX), 90),
        (Some(None), true) => return Done::Goes, // an age in a unit that nobody knows
        (_, false) => return Done::Stays,        // no age
    };
    match Number::parse(value) {
        Some(number) if number.exceeds(most) => Done::Text(ninety.to_string()),
        Some(_) => Done::Stays,
        None => Done::Goes,
    }
}

fn round(value: &str, places: i32, range: Option<(i128, i128)>) -> Result<Done, No> {
    let number = Number::parse(value).ok_or(No::Number)?;
    let mut rounded = number.round(places);
    if rounded == number {
        return Ok(Done::Stays);
    }
    if let Some((least, most)) = range
        && rounded.scale == 0
    {
        rounded.unscaled = rounded.unscaled.clamp(least, most);
    }
    Ok(Done::Text(rounded.to_string()))
}

/// `NNN` of `NNN`, `NNNNN`, `NNNNN-NNNN`, `NNNNNNNNN`, in the United States or where no country is named.
fn zip3(value: &str, country: Option<&str>) -> Done {
    let here = |c: &str| {
        let c = c.trim().to_ascii_lowercase();
        matches!(
            c.as_str(),
            "" | "us" | "usa" | "u.s." | "u.s.a." | "840" | "united states" | "united states of america"
        )
    };
    let value = value.trim();
    let digits: Vec<u8> = match value.as_bytes() {
        [first @ .., b'-', _, _, _, _] if first.len() == 5 => {
            first.iter().chain(&value.as_bytes()[6..]).copied().collect()
        }
        all => all.to_vec(),
    };
    let zip = matches!(digits.len(), 3 | 5 | 9) && digits.iter().all(u8::is_ascii_digit);
    if !zip || !country.is_none_or(here) {
        return Done::Goes;
    }
    let (row, column) =
        (usize::from(digits[0] - b'0'), usize::from(digits[1] - b'0') * 10 + usize::from(digits[2] - b'0'));
    let prefix = if POPULOUS[row].as_bytes()[column] == b'#' { &value[..3] } else { "000" };
    if prefix == value { Done::Stays } else { Done::Text(prefix.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Primitive::{Date, DateTime, Decimal, Instant, PositiveInt};

    const AS_OF: Day = (2026, 11, 23);
    const AGE: To = To::Age90 { as_of: AS_OF, bare: true };

    #[track_caller]
    fn check(to: To, primitive: Primitive, value: &str, expected: Result<Option<&str>, No>) {
        beside(to, primitive, value, Beside::default(), expected);
    }

    #[track_caller]
    fn beside(to: To, primitive: Primitive, value: &str, beside: Beside<'_>, expected: Result<Option<&str>, No>) {
        let shown = generalize(to, primitive, &Phi::new(value), &beside).map(|done| match done {
            Done::Text(text) => Some(text),
            Done::Stays => Some(value.to_owned()),
            Done::Goes => None,
        });
        assert_eq!(shown.as_ref().map(|d| d.as_deref()).map_err(|no| *no), expected, "{value}");
    }

    #[test]
    fn dates_are_cut() {
        check(To::Year, Date, "2019-05-04", Ok(Some("2019")));
        check(To::Year, DateTime, "2019-05-04T10:00:00+02:00", Ok(Some("2019")));
        check(To::Year, Instant, "2019-05-04T10:00:00Z", Ok(Some("2019-01-01T00:00:00Z")));
        check(To::Year, Date, "2019", Ok(Some("2019")));
        check(To::Month, Date, "2019-05-04", Ok(Some("2019-05")));
        check(To::Month, Date, "2019", Ok(Some("2019")));
        check(To::Month, Instant, "2019-05-04T10:00:00Z", Ok(Some("2019-05-01T00:00:00Z")));
        check(To::Decade, Date, "2019-05-04", Ok(Some("2010")));
        check(To::Decade, Date, "0007", Ok(Some("0001")));
        check(To::Year, Date, "Tuesday", Err(No::Date));
        check(To::Year, Date, "2019-02-30", Err(No::Date));
        check(To::Year, PositiveInt, "2019", Err(No::Date));
    }

    #[test]
    fn births_of_the_very_old_go() {
        check(AGE, Date, "1936-11-23", Ok(None)); // 90 today
        check(AGE, Date, "1936-11-24", Ok(Some("1936"))); // 89, for one more day
        check(AGE, Date, "1936-11", Ok(None)); // may be 90
        check(AGE, Date, "1936-12", Ok(Some("1936")));
        check(AGE, Date, "1936", Ok(None));
        check(AGE, Date, "1937", Ok(Some("1937")));
        check(AGE, Date, "2030-01-01", Ok(Some("2030")));
        check(AGE, DateTime, "1901-02-03T04:05:06Z", Ok(None));
    }

    #[test]
    fn ages_end_at_ninety() {
        let unit = |unit| Beside { unit: Some(unit), ..Beside::default() };
        check(AGE, Decimal, "89", Ok(Some("89")));
        check(AGE, Decimal, "89.1", Ok(Some("90")));
        check(AGE, Decimal, "104", Ok(Some("90")));
        check(AGE, Primitive::String, "104", Ok(Some("90")));
        check(AGE, Primitive::String, "at 92", Ok(None));
        beside(AGE, Decimal, "104", unit("a"), Ok(Some("90")));
        beside(AGE, Decimal, "104", unit("mo"), Ok(Some("104")));
        beside(AGE, Decimal, "1100", unit("months"), Ok(Some("1080")));
        beside(AGE, Decimal, "40000", unit("d"), Ok(Some("32850")));
        beside(AGE, Decimal, "104", unit("winters"), Ok(None));
        let any = To::Age90 { as_of: AS_OF, bare: false };
        beside(any, Decimal, "120", unit("mm[Hg]"), Ok(Some("120")));
        beside(any, Decimal, "120", unit("a"), Ok(Some("90")));
        check(any, Decimal, "120", Ok(Some("120")));
    }

    #[test]
    fn zip_codes_keep_three_digits_where_enough_people_live() {
        let code = |value, expected| check(To::Zip3, Primitive::String, value, Ok(expected));
        code("02139", Some("021"));
        code("02139-4307", Some("021"));
        code("021394307", Some("021"));
        code("021", Some("021"));
        code("03601", Some("000")); // under 20,000
        code("09012", Some("000")); // military
        code("00000", Some("000"));
        for none in ["", "0213", "02139-43", "SW1A 1AA", "O2139", "021390", "02139-430x"] {
            code(none, None);
        }
        let within = |country, expected| {
            let there = Beside { country: Some(country), ..Beside::default() };
            beside(To::Zip3, Primitive::String, "10115", there, Ok(expected));
        };
        within("US", Some("101"));
        within("DE", None);
    }

    #[test]
    fn numbers_are_rounded_within_their_type() {
        check(To::Round { places: 1 }, Decimal, "42.3601", Ok(Some("42.4")));
        check(To::Round { places: 1 }, Decimal, "4.2e1", Ok(Some("4.2e1"))); // no more precise than that: as written
        check(To::Round { places: 2 }, Decimal, "forty", Err(No::Number));
        let range = Beside { range: Some((1, 2_147_483_647)), ..Beside::default() };
        beside(To::Round { places: -1 }, PositiveInt, "4", range, Ok(Some("1")));
        beside(To::Round { places: -1 }, PositiveInt, "2147483647", range, Ok(Some("2147483647")));
    }

    /// The table is the census': every prefix, and none besides.
    #[test]
    #[allow(clippy::print_stdout)]
    fn the_table_of_prefixes_is_the_census() {
        let shared = std::env::var("CRYPTONYM_SHARED")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").into());
        let Ok(table) = std::fs::read_to_string(format!("{shared}/tables/zip3_census2020.tsv")) else {
            println!("skipped: no ../shared");
            return;
        };
        let populous: Vec<&str> = table
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (prefix, rest) = line.split_once('\t')?;
                (rest.split('\t').next()?.parse::<u64>().ok()? > 20_000).then_some(prefix)
            })
            .collect();
        for prefix in 1..1000 {
            let prefix = format!("{prefix:03}");
            let kept = zip3(&format!("{prefix}01"), None) == Done::Text(prefix.clone());
            assert_eq!(kept, populous.contains(&prefix.as_str()), "{prefix}");
        }
    }
}
