//! Which of the values at a place a rule is about (`only:`), and what all rules of a place come to.
//!
//! Plain JSON has no schema: a member that is meant to hold a number may hold a name. So a rule can say what it expects; a value
//! of another kind falls to the next rule, and at last to `unknown`. The decision costs the same however many rules there are.

use crate::action::number::Number;
use crate::action::shift::{self, Unit};

/// Index of a rule in `Compiled::rules`.
pub type RuleIx = u16;
/// No rule.
pub const NO_RULE: RuleIx = u16::MAX;

/// The kinds that a rule may ask for, beside texts written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Every value.
    Any,
    /// A text.
    String,
    /// A number.
    Number,
    /// A number without point and exponent.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A text like a code: at most 64 characters, no space, no `@`.
    Code,
    /// A text that is an ISO 8601 date or time.
    Time,
    /// A UUID in its usual spelling.
    Uuid,
    /// A number, or a text that is one: at most 20 digits.
    Numeric,
    /// A text that is a time of day, without a day.
    Clock,
}

impl Kind {
    /// Every kind that has a name in rule files.
    pub const NAMED: [(&'static str, Kind); 9] = [
        ("string", Kind::String),
        ("number", Kind::Number),
        ("integer", Kind::Integer),
        ("boolean", Kind::Boolean),
        ("code", Kind::Code),
        ("time", Kind::Time),
        ("uuid", Kind::Uuid),
        ("numeric", Kind::Numeric),
        ("clock", Kind::Clock),
    ];
}

/// The JSON form of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A string.
    Text,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
}

/// What the rules of one place come to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// First rule by kind.
    first: [RuleIx; 10],
    /// First rule by text, sorted.
    listed: Vec<(String, RuleIx)>,
    /// Rules that make tokens: a value that comes back may be one of any of them.
    pub tokens: Vec<RuleIx>,
    /// The first rule of all: it decides `null`, which is of every kind.
    pub any: RuleIx,
    /// Whether some rule shifts times.
    pub shifts: bool,
}

/// How values of a rule come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// Not at all, or they never changed.
    No,
    /// By their token.
    Token,
    /// By the seal of the message.
    Shift,
}

/// What one rule asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Only {
    /// A kind.
    Kind(Kind),
    /// One of these texts.
    Listed(Vec<String>),
}

impl Default for Leaf {
    fn default() -> Self {
        Leaf { first: [NO_RULE; 10], listed: Vec::new(), tokens: Vec::new(), any: NO_RULE, shifts: false }
    }
}

impl Leaf {
    /// Adds a rule. Rules come in any order; of two that ask for the same the earlier one counts.
    pub fn add(&mut self, rule: RuleIx, only: &Only, back: Back) {
        match only {
            Only::Kind(kind) => {
                let first = &mut self.first[*kind as usize];
                *first = (*first).min(rule);
            }
            Only::Listed(texts) => {
                for text in texts {
                    match self.listed.binary_search_by(|(t, _)| t.cmp(text)) {
                        Ok(at) => self.listed[at].1 = self.listed[at].1.min(rule),
                        Err(at) => self.listed.insert(at, (text.clone(), rule)),
                    }
                }
            }
        }
        self.any = self.any.min(rule);
        self.shifts |= back == Back::Shift;
        if back == Back::Token && !self.tokens.contains(&rule) {
            self.tokens.push(rule);
            self.tokens.sort_unstable();
        }
    }

    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.any == NO_RULE
    }

    /// Whether this rule decides some value: it is not hidden behind earlier ones.
    pub fn heeds(&self, rule: RuleIx) -> bool {
        let before = |kind: Kind| self.first[kind as usize] < rule;
        let hidden = |kinds: &[Kind]| kinds.iter().any(|&k| before(k)) || before(Kind::Any);
        let by_kind = Kind::NAMED.iter().any(|&(_, kind)| {
            let wider: &[Kind] = match kind {
                Kind::Integer => &[Kind::Number, Kind::Numeric],
                Kind::Code | Kind::Time | Kind::Uuid | Kind::Clock => &[Kind::String],
                _ => &[],
            };
            self.first[kind as usize] == rule && !hidden(wider)
        });
        by_kind
            || self.first[Kind::Any as usize] == rule
            || self.listed.iter().any(|(_, r)| *r == rule) && !hidden(&[Kind::String])
    }

    /// The rule for one value: of a text its characters, of a number its spelling.
    pub fn rule(&self, form: Form, value: &str) -> Option<RuleIx> {
        let first = |kind: Kind| self.first[kind as usize];
        let mut rule = first(Kind::Any);
        match form {
            Form::Boolean => rule = rule.min(first(Kind::Boolean)),
            Form::Number => {
                rule = rule.min(first(Kind::Number)).min(first(Kind::Numeric));
                if first(Kind::Integer) < rule && !value.contains(['.', 'e', 'E']) {
                    rule = first(Kind::Integer);
                }
            }
            Form::Text => {
                rule = rule.min(first(Kind::String));
                if let Ok(at) = self.listed.binary_search_by(|(text, _)| text.as_str().cmp(value)) {
                    rule = rule.min(self.listed[at].1);
                }
                let kinds: [(Kind, Is); 5] = [
                    (Kind::Code, is_code),
                    (Kind::Time, is_time),
                    (Kind::Uuid, is_uuid),
                    (Kind::Numeric, is_numeric),
                    (Kind::Clock, shift::is_time_of_day),
                ];
                for (kind, is) in kinds {
                    if first(kind) < rule && is(value) {
                        rule = first(kind);
                    }
                }
            }
        }
        (rule != NO_RULE).then_some(rule)
    }
}

/// Whether a text is of a kind.
type Is = fn(&str) -> bool;

fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len()) && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '@')
}

fn is_time(text: &str) -> bool {
    shift::time(text, Unit::Iso, 0).is_ok()
}

fn is_numeric(text: &str) -> bool {
    text.len() <= 20 && Number::parse(text).is_some()
}

fn is_uuid(text: &str) -> bool {
    let dash = |i: usize| matches!(i, 8 | 13 | 18 | 23);
    text.len() == 36 && text.bytes().enumerate().all(|(i, b)| if dash(i) { b == b'-' } else { b.is_ascii_hexdigit() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_asks_for_such_a_value_decides() {
        let rules = [
            Only::Listed(vec!["at rest".into(), "mg".into()]),
            Only::Kind(Kind::Uuid),
            Only::Kind(Kind::Integer),
            Only::Kind(Kind::Time),
            Only::Kind(Kind::Code),
            Only::Kind(Kind::Number),
            Only::Kind(Kind::Boolean),
        ];
        let mut leaf = Leaf::default();
        for (i, only) in rules.iter().enumerate().rev() {
            leaf.add(i as RuleIx, only, Back::No);
        }
        let cases = [
            (Form::Text, "at rest", Some(0)),
            (Form::Text, "mg", Some(0)),
            (Form::Text, "123e4567-e89b-12d3-a456-426655440000", Some(1)),
            (Form::Number, "-12", Some(2)),
            (Form::Number, "1.0", Some(5)),
            (Form::Number, "1e3", Some(5)),
            (Form::Text, "2026-02-28T10:00:00Z", Some(3)),
            (Form::Text, "mmol/L", Some(4)),
            (Form::Text, "12", Some(4)),
            (Form::Boolean, "true", Some(6)),
            (Form::Text, "Kim Ng", None),
            (Form::Text, "kim@example.com", None),
            (Form::Text, "", None),
        ];
        for (form, value, expected) in cases {
            assert_eq!(leaf.rule(form, value), expected, "{value}");
        }
        assert!((0..7).all(|rule| leaf.heeds(rule)));
        leaf.add(7, &Only::Kind(Kind::Integer), Back::No);
        leaf.add(8, &Only::Kind(Kind::String), Back::No);
        leaf.add(9, &Only::Listed(vec!["x".into()]), Back::No);
        assert_eq!([7, 8, 9].map(|rule| leaf.heeds(rule)), [false, true, false]);
    }
}
