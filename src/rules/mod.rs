//! Rule files: from as written (`file`) to as meant (`compile`), and the automaton that the scanner walks.
//!
//! A pack decides every element of its release. Whatever no rule names is a load error, never a default: a rule file
//! that could let something through by silence does not load. Nothing here holds keys or reads files.

mod actions;
pub mod automaton;
pub mod cell;
mod cite;
pub mod compile;
pub mod coverage;
pub mod diff;
pub mod explain;
pub mod file;
pub mod lint;
pub mod packs;
pub mod path;
pub mod plain;
pub mod tree;

pub use actions::{Method, range};
pub use automaton::{Automaton, Edge, Leaf, StateId};
pub use compile::{Action, Claim, Compiled, DateKind, NoSubject, Origin, Role, Rule, Unknown};
pub use lint::Warning;

/// One mistake in a rule file: where, what, and what to do. Rule files hold no identity, so their words may be quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line in the file, from 1; 0: the file as a whole.
    pub line: u64,
    /// Column in the line, from 1; 0 where the line or file as a whole is meant.
    pub column: u64,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Mistake { line, column, what, advice } = self;
        match column {
            0 => write!(f, "line {line}: {what}; help: {advice}"),
            _ => write!(f, "line {line}:{column}: {what}; help: {advice}"),
        }
    }
}

/// A place in a rule file: line and column from 1; zeros: the file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct At {
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

impl At {
    /// The file as a whole.
    pub const FILE: At = At { line: 0, column: 0 };
}

impl From<serde_saphyr::Location> for At {
    fn from(location: serde_saphyr::Location) -> At {
        At { line: location.line(), column: location.column() }
    }
}

fn wrong(at: At, what: impl Into<String>, advice: impl Into<String>) -> Mistake {
    Mistake { line: at.line, column: at.column, what: what.into(), advice: advice.into() }
}
