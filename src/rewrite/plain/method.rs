//! The actions beyond keep, remove, token and shift on plain JSON: which form of value each can work on, and with which key.
//!
//! Without a schema the form of the value itself decides: numbers stay numbers, text stays text. What an action cannot
//! work on is refused; it never crosses.

use crate::action::generalize::{self, Beside, To};
use crate::action::hash::{self, Scope};
use crate::action::perturb::perturb;
use crate::action::shift::{self, Unit};
use crate::action::{Done, No, mask};
use crate::fhir::Primitive;
use crate::rewrite::engine::Engine;
use crate::rewrite::refusal::Code;
use crate::rules::Method;
use crate::rules::plain::Form;
use crate::secret::Phi;
use crate::token::Mac;

/// Applies a method of the pack to one value, decoded. `document`: the key of hashes that hold in this document, run or exchange only.
pub fn apply(
    engine: &Engine,
    method: u16,
    form: Form,
    value: &str,
    subject: &str,
    document: Option<&Mac>,
) -> Result<Done, Code> {
    let phi = Phi::new(value);
    match (&engine.rules.methods[method as usize], form) {
        (Method::Substitute(with), _) => Ok(Done::Text(with.clone())),
        (Method::Mask(how), Form::Text) => Ok(Done::Text(mask::mask(how, &phi))),
        (Method::Hash { class, shape }, Form::Text) => {
            let mac = match shape.scope {
                Scope::Domain => &engine.hash,
                Scope::Document => document.ok_or(Code::NoDocumentKey)?,
            };
            let mut out = String::new();
            hash::hash(mac, class, *shape, &phi, &mut out);
            Ok(Done::Text(out))
        }
        (Method::Fpe { .. }, Form::Text | Form::Number) => {
            let keyed = engine.fpe[method as usize].as_ref().ok_or(Code::RuleForm)?;
            let done = match form {
                Form::Number => keyed.number(value, None, true),
                _ => keyed.text(value, true),
            };
            done.map(Done::Text).map_err(code)
        }
        (Method::Generalize(to @ (To::Round { .. } | To::Age90 { .. })), Form::Number) => {
            generalize::generalize(*to, Primitive::Decimal, &phi, &Beside::default()).map_err(code)
        }
        (Method::Generalize(to), Form::Text) => generalized(*to, value),
        (Method::Perturb { class, span }, Form::Number) => {
            perturb(&engine.perturb, class, span, subject, &phi, None).map(Done::Text).map_err(code)
        }
        _ => Err(Code::RuleForm),
    }
}

/// A text: a ZIP code, or a date, of whose time and zone nothing stays.
fn generalized(to: To, value: &str) -> Result<Done, Code> {
    let (primitive, text) = match to {
        To::Round { .. } => return Err(Code::RuleForm),
        To::Zip3 => (Primitive::String, value),
        To::Year | To::Month | To::Decade | To::Age90 { .. } => {
            shift::time(value, Unit::Iso, 0).map_err(|_| Code::BadTime)?;
            let end = value.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(value.len());
            (Primitive::Date, &value[..end])
        }
    };
    generalize::generalize(to, primitive, &Phi::new(text), &Beside::default()).map_err(code)
}

fn code(no: No) -> Code {
    match no {
        No::Date => Code::BadTime,
        No::Number => Code::BadNumber,
        No::Domain => Code::FpeDomain,
        No::Alphabet => Code::FpeAlphabet,
        No::Range => Code::ShiftRange,
    }
}
