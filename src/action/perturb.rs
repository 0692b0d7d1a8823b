//! `perturb`: a number moved by noise that is drawn from a keyed hash of the subject and the value.
//!
//! `noise = uniform(-span/2 ..= span/2)` in steps of the last place written, from `HMAC-SHA256(key, lp(class) lp(subject) lp(value))`. The same
//! number of the same patient always becomes the same, so that asking again averages nothing out; the same number of another patient
//! becomes another, so that the order and frequency of values do not give them back.
//!
//! `proportional`: the span is a share of the value. The noise reaches at least one step either way, so that a span too small
//! for the value never means that nothing happens. What is no number is refused.

use super::No;
use super::number::{Number, ten};
use crate::names::Class;
use crate::secret::Phi;
use crate::token::Mac;

/// What `span` is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The value's own unit.
    Fixed,
    /// A share of the value.
    Proportional,
}

/// The parameters of `perturb`, but for its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Width of the interval around the value, above zero.
    pub span: Number,
    /// Of what.
    pub kind: Kind,
    /// Digits behind the point of the result; `None`: as many as the value has.
    pub places: Option<u32>,
}

/// The moved number, held within `least..=most` (the range of its datatype) if that is given.
pub fn perturb(
    mac: &Mac,
    class: &Class,
    span: &Span,
    subject: &str,
    phi: &Phi<'_>,
    range: Option<(i128, i128)>,
) -> Result<String, No> {
    // Exposed to arithmetic whose result is the noisy value.
    let value = phi.expose();
    let number = Number::parse(value).ok_or(No::Number)?;
    let places = if range.is_some() { 0 } else { span.places.unwrap_or(number.scale) };
    let rounded = number.round(places as i32).widen(places).ok_or(No::Number)?;
    // Half the width, in steps of the last place: the product first, so that nothing is lost before the division.
    let (product, scale) = match span.kind {
        Kind::Fixed => (Some(span.span.unscaled), span.span.scale),
        Kind::Proportional => (
            number.unscaled.checked_abs().and_then(|n| n.checked_mul(span.span.unscaled)),
            number.scale + span.span.scale,
        ),
    };
    let product = product.ok_or(No::Number)?;
    let width = match places.checked_sub(scale) {
        Some(up) => ten(up).and_then(|t| product.checked_mul(t)).ok_or(No::Number)?,
        None => ten(scale - places).map_or(0, |t| product / t),
    };
    let half = (width / 2).clamp(1, i128::MAX / 4);
    let tag = mac.tag(&[class.as_str().as_bytes(), subject.as_bytes(), number.to_string().as_bytes()]);
    let wide = u128::from_be_bytes(tag[..16].try_into().expect("a tag has 32 bytes"));
    let noise = (wide % (2 * half + 1) as u128) as i128 - half;
    let mut moved = rounded.unscaled.checked_add(noise).ok_or(No::Number)?;
    if let Some((least, most)) = range {
        moved = moved.clamp(least, most);
    }
    Ok(Number { unscaled: moved, scale: places }.to_string())
}
