//! What is done with values beyond tokens: one page per action, each a pure function of a value, its keys and what stands beside it.
//!
//! A value comes in decoded, as [`Phi`](crate::secret::Phi); what goes out is text that may cross. An action that cannot work on a value never
//! lets it pass: it says [`No`] and the message is refused, or it says [`Done::Goes`] and the element is removed. Which of the
//! two is written at each action. Nothing here knows JSON, rules or a clock: "today" is a date that the rule file declares (`as_of`).
//!
//! No two actions share a key, none shares one with tokens: the labels are in `token::derivation`.

pub mod fpe;
pub mod generalize;
pub mod hash;
pub mod mask;
pub mod number;
pub mod perturb;
pub mod shift;
mod zip3;

/// What became of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// This text stands in its place.
    Text(String),
    /// It tells no more than it may, and stays byte for byte.
    Stays,
    /// It goes, with the element that holds it.
    Goes,
}

/// Why an action cannot work on a value. Carries nothing of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum No {
    /// Not a date of its FHIR type.
    #[error("not a FHIR date")]
    Date,
    /// Not a number, or one of more than 36 digits.
    #[error("not a number of at most 36 digits")]
    Number,
    /// Under 10^6 possible values, or over the length that FF1 is given (SP 800-38G r1, section 5.1).
    #[error("a value with too few or too many symbols of its alphabet for FF1")]
    Domain,
    /// Symbols that are neither of the alphabet nor separators: they would cross in clear.
    #[error("a value with letters or digits outside its alphabet")]
    Alphabet,
    /// A moved time leaves the calendar.
    #[error("a moved time would leave the calendar")]
    Range,
}
