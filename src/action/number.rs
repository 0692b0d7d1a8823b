//! Numbers as JSON and FHIR write them, exactly: sign, digits and scale. No floating point, so that what is rounded or moved
//! is what was written.
//!
//! At most 36 significant digits, so that sums and products of the other pages stay within 128 bits; more are an error, never a guess.

use std::fmt;

/// Most digits that a number may have, without its exponent's zeros and with them.
pub const DIGITS_MAX: u32 = 36;

/// `±digits / 10^scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// With its sign; below `10^36` either way.
    pub unscaled: i128,
    /// Digits behind the point.
    pub scale: u32,
}

/// `10^power`, at most `10^38`, which 128 bits hold.
pub fn ten(power: u32) -> Option<i128> {
    10i128.checked_pow(power)
}

const BOUND: i128 = 10i128.pow(DIGITS_MAX);

impl Number {
    /// Reads a JSON number (RFC 8259 section 6), its exponent worked in. `None`: not one, or over 36 digits.
    pub fn parse(text: &str) -> Option<Number> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok().filter(|e| e.abs() <= 64)?),
            None => (text, 0),
        };
        let (negative, digits) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa),
        };
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return None,
            Some((whole, fraction)) => (whole, fraction),
            None => (digits, ""),
        };
        if whole.is_empty() || whole.len() > 1 && whole.starts_with('0') {
            return None;
        }
        let mut unscaled: i128 = 0;
        for b in whole.bytes().chain(fraction.bytes()) {
            if !b.is_ascii_digit() {
                return None;
            }
            unscaled = unscaled.checked_mul(10)?.checked_add(i128::from(b - b'0'))?;
        }
        let scale = i32::try_from(fraction.len()).ok()? - exponent;
        if scale < 0 {
            unscaled = unscaled.checked_mul(ten(scale.unsigned_abs())?)?;
        }
        let number = Number { unscaled: if negative { -unscaled } else { unscaled }, scale: scale.max(0) as u32 };
        (unscaled < BOUND && number.scale <= DIGITS_MAX).then_some(number)
    }

    /// Half away from zero, to so many places behind the point (before it, where negative). One that has no more stays as it is.
    pub fn round(self, places: i32) -> Number {
        let drop = i64::from(self.scale) - i64::from(places);
        if drop <= 0 {
            return self;
        }
        let step = u32::try_from(drop).ok().and_then(ten);
        let Some(step) = step else { return Number { unscaled: 0, scale: places.max(0) as u32 } };
        let rounded =
            (self.unscaled.abs() / step + i128::from(self.unscaled.abs() % step * 2 >= step)) * self.unscaled.signum();
        match places {
            0.. => Number { unscaled: rounded, scale: places as u32 },
            // `step` is at least the zeros that come back, so this stays below it.
            _ => Number { unscaled: ten(places.unsigned_abs()).map_or(0, |zeros| rounded * zeros), scale: 0 },
        }
    }

    /// The same number with at least so many places. `None`: over 38 digits.
    pub fn widen(self, scale: u32) -> Option<Number> {
        let more = scale.saturating_sub(self.scale);
        Some(Number { unscaled: self.unscaled.checked_mul(ten(more)?)?, scale: self.scale + more })
    }

    /// Whether it is greater than a whole number.
    pub fn exceeds(self, whole: i128) -> bool {
        match ten(self.scale).and_then(|t| whole.checked_mul(t)) {
            Some(bound) => self.unscaled > bound,
            None => false, // the bound has more digits than any number here
        }
    }
}

impl fmt::Display for Number {
    /// As JSON writes it, without an exponent; `-0` becomes `0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.unscaled < 0 { "-" } else { "" };
        let digits = self.unscaled.unsigned_abs();
        if self.scale == 0 {
            return write!(f, "{sign}{digits}");
        }
        let text = format!("{digits:0width$}", width = self.scale as usize + 1);
        let (whole, fraction) = text.split_at(text.len() - self.scale as usize);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, places: i32, expected: Option<&str>) {
        assert_eq!(Number::parse(text).map(|n| n.round(places).to_string()).as_deref(), expected, "{text} to {places}");
    }

    #[test]
    fn numbers_are_read_and_rounded_exactly() {
        check("42.3601", 1, Some("42.4"));
        check("-71.0589", 1, Some("-71.1"));
        check("-71.05", 1, Some("-71.1"));
        check("0.04", 1, Some("0.0"));
        check("42", 1, Some("42"));
        check("42.5", 0, Some("43"));
        check("1247", -2, Some("1200"));
        check("1250", -2, Some("1300"));
        check("49", -2, Some("0"));
        check("1.50e+01", 4, Some("15.0"));
        check("1.5e3", 0, Some("1500"));
        check("15e-1", 0, Some("2"));
        check("-0.0", 3, Some("0.0"));
        check("5", -40, Some("0"));
        check("999999999999999999999999999999999999", 0, Some("999999999999999999999999999999999999"));
        for wrong in
            ["", "-", "01", "1.", ".5", "+1", "1e", "1e99", "0x1", "1 ", "1000000000000000000000000000000000000"]
        {
            check(wrong, 0, None);
        }
    }
}
