//! Actions from as written to as meant: every parameter known, in range, and fit for the places where the rule applies.
//!
//! An action's name, its parameters and the datatypes that it can work on stand together here and nowhere else; the arithmetic is in the room
//! `action`. What is misspelt, missing or out of range is a mistake with its place, never a default.

use super::compile::Role;
use super::file::{self, Scalar};
use super::{At, Mistake, wrong};
use crate::action::fpe::Alphabet;
use crate::action::generalize::{Day, To};
use crate::action::hash::{self, Encoding, Scope, Shape};
use crate::action::mask::Mask;
use crate::action::number::Number;
use crate::action::perturb::{Kind, Span};
use crate::fhir::Primitive;
use crate::fhir::date::FhirDate;
use crate::limits;
use crate::names::Class;
use std::collections::BTreeMap;

/// An action other than keep, remove, token and shift, with its parameters.
#[derive(Debug, Clone, PartialEq)]
pub enum Method {
    /// Characters covered, or a fixed text.
    Mask(Mask),
    /// A given value.
    Substitute(String),
    /// A keyed hash.
    Hash {
        /// Equal only within it. For resource ids the class is the type's own.
        class: Class,
        /// Length, spelling, scope.
        shape: Shape,
    },
    /// Format-preserving encryption.
    Fpe {
        /// Equal only within it.
        class: Class,
        /// What is permuted of a text.
        alphabet: Alphabet,
    },
    /// Less precise.
    Generalize(To),
    /// Keyed noise.
    Perturb {
        /// Noise of its own.
        class: Class,
        /// How much.
        span: Span,
    },
}

impl Method {
    /// The names, as rule files write them and as counts are labelled.
    pub const WORDS: [&'static str; 6] = ["mask", "substitute", "hash", "fpe", "generalize", "perturb"];

    /// Its place in [`Method::WORDS`].
    pub fn number(&self) -> usize {
        match self {
            Method::Mask(_) => 0,
            Method::Substitute(_) => 1,
            Method::Hash { .. } => 2,
            Method::Fpe { .. } => 3,
            Method::Generalize(_) => 4,
            Method::Perturb { .. } => 5,
        }
    }

    /// Its name.
    pub fn word(&self) -> &'static str {
        Method::WORDS[self.number()]
    }

    /// Its class, if it has one.
    pub fn class(&self) -> Option<&Class> {
        match self {
            Method::Hash { class, .. } | Method::Fpe { class, .. } | Method::Perturb { class, .. } => Some(class),
            Method::Mask(_) | Method::Substitute(_) | Method::Generalize(_) => None,
        }
    }
}

impl std::fmt::Display for Method {
    /// With its parameters, for people: `hash(mrn, 128 bits)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = self.word();
        match self {
            Method::Mask(Mask::With(with)) | Method::Substitute(with) => write!(f, "{word}({with})"),
            Method::Mask(Mask::Characters { cover, keep_last: 0 }) => write!(f, "{word}({cover})"),
            Method::Mask(Mask::Characters { cover, keep_last }) => write!(f, "{word}({cover}, last {keep_last} kept)"),
            Method::Hash { class, shape } => {
                let scope = if shape.scope == Scope::Document { ", within one document" } else { "" };
                write!(f, "{word}({class}, {} bits{scope})", shape.bits)
            }
            Method::Fpe { class, .. } => write!(f, "{word}({class})"),
            Method::Generalize(to) => match to {
                To::Year => write!(f, "{word}(year)"),
                To::Month => write!(f, "{word}(month)"),
                To::Decade => write!(f, "{word}(decade)"),
                To::Zip3 => write!(f, "{word}(zip3)"),
                To::Age90 { .. } => write!(f, "{word}(age90)"),
                To::Round { places } => write!(f, "{word}(round to {places} places)"),
            },
            Method::Perturb { class, span } => {
                let of = if span.kind == Kind::Proportional { " of the value" } else { "" };
                write!(f, "{word}({class}, span {}{of})", span.span)
            }
        }
    }
}

/// An action as meant, its class not yet among those of the pack.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Meant {
    Keep,
    Remove,
    Token { class: Class, pad: bool },
    Shift { days: u16, weekday: bool },
    Method(Method),
}

/// What decides the meaning of an action beside its own words.
pub(super) struct Around<'a> {
    /// The class where the rule names none.
    pub(super) class: &'a str,
    /// Whether an age without a unit is one of years: an `elements` rule, or an Age.
    pub(super) bare: bool,
    /// The day on which ages are reckoned.
    pub(super) as_of: Option<Day>,
}

/// Each action and its parameters.
const ACTIONS: [(&str, &[&str]); 10] = [
    ("keep", &[]),
    ("remove", &[]),
    ("token", &["class", "pad"]),
    ("shift", &["days", "weekday"]),
    ("mask", &["with", "char", "keep_last"]),
    ("substitute", &["with"]),
    ("hash", &["class", "bits", "encoding", "scope"]),
    ("fpe", &["class", "alphabet"]),
    ("generalize", &["to", "places"]),
    ("perturb", &["class", "span", "kind", "places"]),
];

/// One action as written, being read.
struct Reader<'m> {
    at: At,
    word: &'m str,
    parameters: BTreeMap<String, Scalar>,
    mistakes: &'m mut Vec<Mistake>,
}

/// Reads an action. After a mistake `Remove` stands for it: nothing crosses by a rule that is wrong.
pub(super) fn read(written: &file::Action, at: At, around: &Around<'_>, mistakes: &mut Vec<Mistake>) -> Meant {
    let (word, parameters) = match written {
        file::Action::Word(word) => (word.as_str(), BTreeMap::new()),
        file::Action::Call(call) => match call.iter().next() {
            Some((word, parameters)) if call.len() == 1 => (word.as_str(), parameters.clone().unwrap_or_default()),
            _ => {
                mistakes.push(wrong(at, "an action has one name", "write e.g. { token: { class: mrn } }"));
                return Meant::Remove;
            }
        },
    };
    let Some((word, known)) = ACTIONS.iter().find(|(name, _)| *name == word) else {
        let names: Vec<&str> = ACTIONS.iter().map(|(name, _)| *name).collect();
        let what = match word {
            "crosswalk" | "scrub" => format!("{word}: is not supported by this version"),
            _ => format!("`{word}` is not an action{}", like(word, &names)),
        };
        mistakes.push(wrong(at, what, format!("use one of: {}", names.join(", "))));
        return Meant::Remove;
    };
    let before = mistakes.len();
    for name in parameters.keys().filter(|name| !known.contains(&name.as_str())) {
        let advice = match known.len() {
            0 => format!("{word} has no parameters"),
            _ => format!("{word} has: {}", known.join(", ")),
        };
        mistakes.push(wrong(
            at,
            format!("{word}: a parameter that it does not have: `{name}`{}", like(name, known)),
            advice,
        ));
    }
    let mut reader = Reader { at, word, parameters, mistakes };
    let meant = reader.meant(around);
    meant.filter(|_| mistakes.len() == before).unwrap_or(Meant::Remove)
}

/// `; did you mean ...?` where one name is near.
pub(super) fn like(word: &str, names: &[&str]) -> String {
    let near = |name: &&&str| {
        let (a, b) = (word.to_ascii_lowercase(), name.to_ascii_lowercase());
        distance(a.as_bytes(), b.as_bytes()) <= if b.len() < 4 { 1 } else { 2 }
    };
    names.iter().find(near).map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// Levenshtein distance.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

impl Reader<'_> {
    fn wrong(&mut self, what: &str, advice: impl Into<String>) {
        self.mistakes.push(wrong(self.at, format!("{}: {what}", self.word), advice));
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.parameters.get(name).map(Scalar::to_string)
    }

    fn flag(&mut self, name: &str) -> bool {
        match self.parameters.get(name) {
            None => false,
            Some(Scalar::Bool(flag)) => *flag,
            Some(_) => {
                self.wrong(&format!("`{name}` is true or false"), "write it without quotes");
                false
            }
        }
    }

    /// A whole number within bounds; `None` also where it is absent.
    fn whole(&mut self, name: &str, least: i64, most: i64) -> Option<i64> {
        match self.parameters.get(name)? {
            Scalar::Whole(n) if (least..=most).contains(n) => Some(*n),
            _ => {
                self.wrong(&format!("`{name}` is out of range"), format!("a whole number from {least} to {most}"));
                None
            }
        }
    }

    /// One of some words; the first where it is absent.
    fn choice<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let Some(written) = self.text(name) else { return Some(words[0].1) };
        let found = words.iter().find(|(word, _)| *word == written);
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(
                &format!("`{name}` is not `{written}`{}", like(&written, &names)),
                format!("one of: {}", names.join(", ")),
            );
        }
        found.map(|(_, value)| *value)
    }

    fn class(&mut self, default: &str) -> Option<Class> {
        let name = self.text("class").unwrap_or_else(|| default.to_owned());
        let class = Class::new(&name).ok();
        if class.is_none() {
            self.wrong(&format!("class `{name}` has the wrong form"), "1 to 64 characters of A-Z a-z 0-9 . _ : / -");
        }
        class
    }

    fn meant(&mut self, around: &Around<'_>) -> Option<Meant> {
        Some(match self.word {
            "keep" => Meant::Keep,
            "remove" => Meant::Remove,
            "token" => Meant::Token { class: self.class(around.class)?, pad: self.flag("pad") },
            "shift" => {
                let weekday = self.flag("weekday");
                let (least, most) = (if weekday { 7 } else { 1 }, i64::from(limits::SHIFT_DAYS_MAX));
                if !self.parameters.contains_key("days") {
                    self.wrong("`days` is missing", format!("a number from {least} to {most}"));
                }
                Meant::Shift { days: self.whole("days", least, most)? as u16, weekday }
            }
            "mask" => Meant::Method(Method::Mask(self.mask()?)),
            "substitute" => match self.text("with") {
                Some(with) if !with.is_empty() => Meant::Method(Method::Substitute(with)),
                _ => {
                    self.wrong("`with` is missing", "write the value that stands there instead");
                    return None;
                }
            },
            "hash" => {
                let class = self.class(around.class)?;
                let bits = self.whole("bits", i64::from(hash::BITS_MIN), i64::from(hash::BITS_MAX));
                if self.parameters.contains_key("bits") && bits? % 8 != 0 {
                    self.wrong("`bits` is not a number of whole bytes", "96, 128, 160, 192, 224 or 256");
                }
                let encoding =
                    [("hex", Encoding::Hex), ("base32", Encoding::Base32), ("base64url", Encoding::Base64Url)];
                let shape = Shape {
                    bits: bits.unwrap_or(128) as u32,
                    encoding: self.choice("encoding", &encoding)?,
                    scope: self.choice("scope", &[("domain", Scope::Domain), ("document", Scope::Document)])?,
                };
                Meant::Method(Method::Hash { class, shape })
            }
            "fpe" => {
                let class = self.class(around.class)?;
                let name = self.text("alphabet").unwrap_or_else(|| "digits".to_owned());
                let Some(alphabet) = Alphabet::new(&name) else {
                    self.wrong(
                        &format!("`alphabet` is not `{name}`"),
                        "digits, hex, lower, upper, alphanumeric, lower-alphanumeric, upper-alphanumeric, or 2 to 256 letters and digits, each once",
                    );
                    return None;
                };
                Meant::Method(Method::Fpe { class, alphabet })
            }
            "generalize" => Meant::Method(Method::Generalize(self.generalize(around)?)),
            "perturb" => {
                let class = self.class(around.class)?;
                let span = self.text("span").as_deref().and_then(Number::parse).filter(|n| n.unscaled > 0);
                let Some(span) = span else {
                    self.wrong(
                        "`span` is missing or not above zero",
                        "the width of the noise: 10 moves a value by up to 5 either way",
                    );
                    return None;
                };
                let kind = self.choice("kind", &[("fixed", Kind::Fixed), ("proportional", Kind::Proportional)])?;
                if kind == Kind::Proportional && span.exceeds(2) {
                    self.wrong(
                        "`span` is a share of the value and at most 2",
                        "0.1 moves a value by up to 5 % either way",
                    );
                }
                let places = self.whole("places", 0, 9).map(|n| n as u32);
                Meant::Method(Method::Perturb { class, span: Span { span, kind, places } })
            }
            _ => return None,
        })
    }

    fn mask(&mut self) -> Option<Mask> {
        if let Some(with) = self.text("with") {
            if self.parameters.len() > 1 || with.is_empty() {
                self.wrong("`with` stands alone and is not empty", "either with, or char and keep_last");
            }
            return Some(Mask::With(with));
        }
        let cover = self.text("char").unwrap_or_else(|| "*".to_owned());
        let mut cover = cover.chars();
        match (cover.next(), cover.next()) {
            (Some(cover), None) if !cover.is_whitespace() && !cover.is_control() => {
                let keep_last = self.whole("keep_last", 0, 64).unwrap_or(0) as usize;
                Some(Mask::Characters { cover, keep_last })
            }
            _ => {
                self.wrong("`char` is one character that can be seen", "for example *");
                None
            }
        }
    }

    fn generalize(&mut self, around: &Around<'_>) -> Option<To> {
        if !self.parameters.contains_key("to") {
            self.wrong("`to` is missing", "one of: year, month, decade, zip3, age90, round");
            return None;
        }
        let age = around.as_of.map(|as_of| To::Age90 { as_of, bare: around.bare });
        let words = [
            ("year", Some(To::Year)),
            ("month", Some(To::Month)),
            ("decade", Some(To::Decade)),
            ("zip3", Some(To::Zip3)),
            ("age90", age),
            ("round", Some(To::Round { places: 0 })),
        ];
        let to = self.choice("to", &words)?;
        if matches!(to, Some(To::Round { .. })) {
            if !self.parameters.contains_key("places") {
                self.wrong(
                    "round without `places`",
                    "digits behind the point, negative before it: 1 makes 42.3601 to 42.4",
                );
            }
            return Some(To::Round { places: self.whole("places", -9, 9)? as i32 });
        }
        if self.parameters.contains_key("places") {
            self.wrong("`places` belongs to `to: round`", "leave it out");
        }
        if to.is_none() {
            self.wrong("age90 needs the day on which ages are reckoned", "add `as_of: YYYY-MM-DD` to the file");
        }
        to
    }
}

/// The range of a whole number's datatype (datatypes.html#primitive).
pub fn range(primitive: Primitive) -> Option<(i128, i128)> {
    match primitive {
        Primitive::Integer => Some((i128::from(i32::MIN), i128::from(i32::MAX))),
        Primitive::UnsignedInt => Some((0, i128::from(i32::MAX))),
        Primitive::PositiveInt => Some((1, i128::from(i32::MAX))),
        Primitive::Integer64 => Some((i128::from(i64::MIN), i128::from(i64::MAX))),
        _ => None,
    }
}

fn is_number(primitive: Primitive) -> bool {
    primitive == Primitive::Decimal || range(primitive).is_some()
}

fn is_date(primitive: Primitive) -> bool {
    matches!(primitive, Primitive::Date | Primitive::DateTime | Primitive::Instant)
}

/// The places that spell resource ids.
pub(super) fn is_link(role: Role) -> bool {
    matches!(
        role,
        Role::ResourceId
            | Role::ContainedId
            | Role::Reference
            | Role::FullUrl
            | Role::RequestUrl
            | Role::Condition
            | Role::Location
            | Role::Link
    )
}

/// Whether a method makes sense at a leaf.
pub(super) fn fits(method: &Method, role: Role, primitive: Primitive) -> Result<(), &'static str> {
    use Primitive::{Base64Binary, Code, Decimal, Id, Markdown, Oid, String, Uri, Url, Uuid, Xhtml};
    if is_link(role) && !matches!(method, Method::Hash { .. }) {
        return Err("ids of resources and links to them are kept, removed, tokens or hashes, so that links hold");
    }
    let fit = match method {
        Method::Mask(Mask::With(text)) if primitive == Code => !text.contains(' '),
        Method::Mask(_) => matches!(primitive, String | Markdown | Code),
        Method::Substitute(with) => return substitutes(with, role, primitive),
        Method::Hash { shape, .. } => {
            if (is_link(role) || primitive == Id) && shape.encoding == Encoding::Base64Url {
                return Err("an id has no underscores: use encoding hex or base32");
            }
            matches!(primitive, String | Markdown | Code | Id | Uri | Url | Oid | Uuid | Base64Binary | Xhtml)
        }
        Method::Fpe { .. } => {
            matches!(primitive, String | Code | Id) && role != Role::ElementId || is_number(primitive)
        }
        Method::Generalize(to) => match to {
            To::Year | To::Month | To::Decade => is_date(primitive),
            To::Age90 { .. } => is_date(primitive) || is_number(primitive) || primitive == String,
            To::Zip3 => primitive == String,
            To::Round { places } => is_number(primitive) && (primitive == Decimal || *places <= 0),
        },
        Method::Perturb { .. } => is_number(primitive),
    };
    match method {
        _ if fit => Ok(()),
        Method::Mask(_) => Err("mask is for string, markdown and code"),
        Method::Hash { .. } => {
            Err("a hash is text: it cannot stand where a number, boolean, date, time or canonical is required")
        }
        Method::Fpe { .. } if primitive == Primitive::Boolean => {
            Err("a boolean has two values, and fpe needs a domain of at least 10^6")
        }
        Method::Fpe { .. } => Err("fpe is for string, code, id and numbers"),
        Method::Generalize(To::Age90 { .. }) => Err("age90 is for dates, numbers and strings"),
        Method::Generalize(To::Zip3) => Err("zip3 is for strings"),
        Method::Generalize(To::Round { .. }) => Err("round is for numbers; whole ones with `places` of 0 or below"),
        Method::Generalize(_) => Err("year, month and decade are for date, dateTime and instant"),
        Method::Perturb { .. } => Err("perturb is for numbers"),
        Method::Substitute(_) => Ok(()),
    }
}

/// Whether a given value has the form of the type in whose place it stands.
fn substitutes(with: &str, role: Role, primitive: Primitive) -> Result<(), &'static str> {
    let word = |with: &str| !with.is_empty() && !with.contains(char::is_whitespace);
    let fit = match primitive {
        Primitive::Boolean => matches!(with, "true" | "false"),
        Primitive::Decimal => Number::parse(with).is_some(),
        Primitive::Integer | Primitive::UnsignedInt | Primitive::PositiveInt | Primitive::Integer64 => {
            let (least, most) = range(primitive).unwrap_or_default();
            Number::parse(with).is_some_and(|n| n.scale == 0 && (least..=most).contains(&n.unscaled))
        }
        Primitive::Date | Primitive::DateTime | Primitive::Instant => FhirDate::parse(primitive, with).is_ok(),
        Primitive::Time => FhirDate::parse(Primitive::DateTime, &format!("2000-01-01T{with}Z"))
            .is_ok_and(|d| d.rest().len() == with.len() + 2),
        Primitive::Id => crate::fhir::reference::is_id(with),
        Primitive::Code => word(with) || with.split(' ').all(word),
        Primitive::Uri | Primitive::Url | Primitive::Canonical => word(with) && with.contains(':'),
        Primitive::Oid => with.starts_with("urn:oid:") && word(with),
        Primitive::Uuid => with.starts_with("urn:uuid:") && word(with),
        Primitive::Base64Binary => {
            with.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
                && with.len().is_multiple_of(4)
        }
        Primitive::Xhtml => !with.contains(['<', '&', '>']),
        Primitive::String | Primitive::Markdown => true,
    };
    match role {
        Role::ElementId => Err("an element's id is a key inside the resource: keep, remove, hash or token"),
        _ if fit => Ok(()),
        _ => Err("substitute: the value in `with` has not the form of this type"),
    }
}
