//! Rule files of `format: json`: telemetry and other JSON that has no schema.
//!
//! FHIR has a release that names every element; here only the rules do. So a value that no rule names, and a member whose very
//! name no rule names, is refused or removed (`unknown`), never passed: the structure that may cross is the structure that was written down.
//!
//! `file` is as written, `compile` as meant, `automaton` what the scanner walks; `only` says which values of a place a rule is about.

pub mod automaton;
mod compile;
pub mod explain;
pub mod file;
mod lint;
pub mod only;
pub mod path;
pub mod url;

pub use automaton::{Automaton, StateId, Sym};
pub use compile::{compile, is_scalar};
pub use only::{Form, Leaf, RuleIx};

use crate::action::shift::Unit;

/// What a compiled pack has beside rules and classes when its format is `json`.
#[derive(Debug)]
pub struct Plain {
    /// What the scanner walks.
    pub automaton: Automaton,
    /// By rule: how the times that it shifts are written.
    pub units: Vec<Option<Unit>>,
    /// Member of a message that carries the seal of its shifted times; without one no time comes back.
    pub seal: Option<String>,
    /// What happens to times of a message without exactly one subject.
    pub no_subject: NoSubject,
    /// Request paths that may cross.
    pub urls: Vec<url::Pattern>,
}

/// What happens to times of a message without exactly one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSubject {
    /// They are removed.
    Remove,
    /// The message is refused.
    Refuse,
}
