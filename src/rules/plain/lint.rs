//! What deserves a second look in a pack of `format: json`, although it does what it says.
//!
//! The great risk of a pack without a schema is to keep what nobody has looked at. A rule that keeps a whole structure, texts of any
//! kind or names that are data is possible, and never silent.

use super::NoSubject;
use super::only::{Kind, Only};
use super::path::Step;
use crate::rules::compile::{Action, Compiled};
use crate::rules::{At, Warning};

/// A rule as it was read, for those questions that the automaton no longer knows.
#[derive(Debug)]
pub(super) struct Read {
    /// Its paths.
    pub paths: Vec<Vec<Step>>,
    /// Which values.
    pub only: Only,
    /// About names of members.
    pub names: bool,
}

/// Every warning, in the order of the rules.
pub(super) fn warnings(rules: &Compiled, read: &[Read], no_subject: NoSubject, subjects: bool) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let shifts = rules.rules.iter().find(|r| matches!(r.action, Action::Shift { .. }));
    if let (Some(rule), false) = (shifts, subjects) {
        let becomes = if no_subject == NoSubject::Remove { "removed" } else { "a reason to refuse the message" };
        warnings.push(Warning {
            code: "shift-subject",
            at: At { line: rule.line, column: rule.column },
            what: format!("no path names a subject, so that every time is {becomes}"),
            advice: "add `subject:` with the path of the value that names whom a message is about".to_owned(),
        });
    }
    for (rule, read) in rules.rules.iter().zip(read) {
        let at = At { line: rule.line, column: rule.column };
        let mut warn = |code, what: String, advice: &str| {
            warnings.push(Warning { code, at, what, advice: advice.to_owned() });
        };
        if rule.action != Action::Keep {
            continue;
        }
        let text = matches!(read.only, Only::Kind(Kind::Any | Kind::String));
        if read.names {
            warn("names-kept", format!("`{}`: names that are data cross as they are", rule.name), "use token");
        } else if read.paths.iter().any(|path| path.iter().any(|step| matches!(step, Step::DeepAny | Step::DeepEach))) {
            let what = format!("`{}` keeps all values beneath, whatever they are", rule.name);
            warn("keep-all", what, "name the values that may cross");
        } else if text {
            let what = format!("`{}` keeps any text: a sentence or a name as well as a code", rule.name);
            warn("keep-text", what, "say what is expected: `only: number`, `only: code`, or a list of texts");
        }
    }
    warnings
}
