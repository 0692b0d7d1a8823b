//! What one audit line says. Everything in it may be logged: names from configuration, words of this program, keyed handles.
//!
//! The line is written by hand, in one fixed order, since its bytes are what the chain hashes.

use crate::names::{Caller, Class, Purpose};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What came of the exchange or batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Values were revealed.
    Revealed,
    /// Revealing was asked for and denied.
    Denied,
    /// The exchange was refused.
    Refused,
}

impl Outcome {
    /// As the line says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Revealed => "revealed",
            Outcome::Denied => "denied",
            Outcome::Refused => "refused",
        }
    }
}

/// One released batch of one exchange.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// When, RFC 3339; the shell's clock.
    pub time: &'a str,
    /// Who.
    pub caller: &'a Caller,
    /// Why, where the caller said so.
    pub purpose: Option<&'a Purpose>,
    /// The route's name, from configuration.
    pub route: &'a str,
    /// Method of the request (`GET`), or the command (`reidentify`). A word of this program: an unknown method never gets here.
    pub method: &'static str,
    /// FHIR interaction (`read`, `search-type`) or kind of input. A word of this program.
    pub interaction: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// How many values of which class were revealed.
    pub reveals: &'a BTreeMap<Class, u64>,
    /// Whose, as keyed handles (hexadecimal, from `token::DomainKeys::handle`). What is not such a handle is written as `?`.
    pub subjects: &'a BTreeSet<String>,
    /// Number of the batch within its exchange, from 0.
    pub batch: u64,
}

impl Record<'_> {
    /// Appends the members of the line that are the record's own.
    pub(super) fn write_members(&self, line: &mut String) {
        let purpose = self.purpose.map(Purpose::as_str);
        for (name, value) in [
            ("time", Some(self.time)),
            ("caller", Some(self.caller.as_str())),
            ("purpose", purpose),
            ("route", Some(self.route)),
            ("method", Some(self.method)),
            ("interaction", Some(self.interaction)),
            ("outcome", Some(self.outcome.as_str())),
        ] {
            member(name, line);
            match value {
                Some(value) => quote(value, line),
                None => line.push_str("null"),
            }
        }
        member("reveals", line);
        list('{', '}', self.reveals, line, |(class, count), line| {
            quote(class.as_str(), line);
            write!(line, ":{count}").expect("writing to a String cannot fail");
        });
        member("subjects", line);
        list('[', ']', self.subjects, line, |subject, line| {
            quote(if is_handle(subject) { subject } else { "?" }, line)
        });
        member("batch", line);
        write!(line, "{}", self.batch).expect("writing to a String cannot fail");
    }
}

fn member(name: &str, line: &mut String) {
    line.push(',');
    quote(name, line);
    line.push(':');
}

fn list<T>(
    open: char,
    close: char,
    items: impl IntoIterator<Item = T>,
    line: &mut String,
    write: impl Fn(T, &mut String),
) {
    line.push(open);
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            line.push(',');
        }
        write(item, line);
    }
    line.push(close);
}

fn is_handle(subject: &str) -> bool {
    (16..=64).contains(&subject.len()) && subject.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A JSON string (RFC 8259 section 7). Control characters are escaped, so a line stays a line.
fn quote(text: &str, line: &mut String) {
    line.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => line.extend(['\\', character]),
            c if c.is_control() => write!(line, "\\u{:04x}", u32::from(c)).expect("writing to a String cannot fail"),
            c => line.push(c),
        }
    }
    line.push('"');
}
