//! Moving FHIR dates as text: only the calendar part changes; time of day, zone and precision keep their bytes.

use super::refusal::Code;
use crate::action::shift::months;
use crate::fhir::Primitive;
use crate::fhir::date::FhirDate;

/// The date, if it moves at all: a bare year does not (design §4), a sentinel does not. Text that is no FHIR date is an error.
pub fn moving(text: &str, primitive: Primitive) -> Result<Option<FhirDate<'_>>, Code> {
    let date = FhirDate::parse(primitive, text).map_err(|_| Code::BadDate)?;
    Ok((date.month().is_some() && !date.is_sentinel()).then_some(date))
}

/// Moves a date by days; one that names only a month moves by whole months. Out of the calendar, or onto a sentinel, is an error:
/// such a date would not come back.
pub fn shift<'d>(date: &FhirDate<'d>, offset_days: i32) -> Result<FhirDate<'d>, Code> {
    let moved = match date.day() {
        Some(_) => date.add_days(offset_days),
        None => date.add_months(months(offset_days)),
    };
    moved.filter(|m| !m.is_sentinel()).ok_or(Code::ShiftRange)
}

/// Only the year; an instant, which must name a moment, becomes the first of its year.
pub fn year(text: &str, primitive: Primitive) -> String {
    let year = text.get(..4).unwrap_or_default();
    if primitive == Primitive::Instant { format!("{year}-01-01T00:00:00Z") } else { year.to_owned() }
}
