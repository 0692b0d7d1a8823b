//! Rule files: from as written (`file`) to as meant (`compile`), and the automaton that the scanner walks.
//!
//! A pack decides every element of its release. Whatever no rule names is a load error, never a default: a rule file
//! that could let something through by silence does not load. Nothing here holds keys or reads files.

pub mod automaton;
pub mod compile;
pub mod file;
pub mod packs;
pub mod path;

pub use automaton::{Automaton, Edge, Leaf, StateId};
pub use compile::{Action, Claim, Compiled, DateKind, NoSubject, Role, Unknown};

/// One mistake in a rule file: where, what, and what to do. Rule files hold no identity, so their words may be quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line in the file, from 1; 0 where the parser does not say.
    pub line: u64,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}; help: {}", self.line, self.what, self.advice)
    }
}
