//! What changes for whom when one pack takes the place of another: element by element, from which action to which.

use super::compile::Compiled;
use super::coverage::{Row, coverage};
use std::collections::BTreeMap;

/// One element whose treatment differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `Type.member`.
    pub element: String,
    /// FHIR type.
    pub kind: &'static str,
    /// Where it differs: the path of an exception, or everywhere else.
    pub under: Option<String>,
    /// Action in the first pack; `None`: it has no such element, or no such exception.
    pub from: Option<String>,
    /// Action in the second.
    pub to: Option<String>,
}

/// All differences, sorted by element.
pub fn diff(from: &Compiled, to: &Compiled) -> Vec<Change> {
    let (from_rows, to_rows) = (decisions(from), decisions(to));
    let mut keys: Vec<_> = from_rows.keys().chain(to_rows.keys()).collect();
    keys.sort();
    keys.dedup();
    let mut changes = Vec::new();
    for key in keys {
        let (a, b) = (from_rows.get(key), to_rows.get(key));
        let actions = |found: Option<&(&'static str, Vec<String>)>| found.map(|(_, actions)| actions.join(" | "));
        let (from, to) = (actions(a), actions(b));
        if from != to {
            let kind = a.or(b).map_or("", |(kind, _)| kind);
            changes.push(Change { element: key.0.clone(), kind, under: key.1.clone(), from, to });
        }
    }
    changes
}

type Decisions = BTreeMap<(String, Option<String>), (&'static str, Vec<String>)>;

/// What a pack does, by element and exception.
fn decisions(compiled: &Compiled) -> Decisions {
    let mut decisions = Decisions::new();
    for row in coverage(compiled).rows {
        let under = row.exception().map(str::to_owned);
        let Row { path, kind, does, .. } = row;
        let entry = decisions.entry((path, under)).or_insert_with(|| (kind, Vec::new()));
        if !entry.1.contains(&does) {
            entry.1.push(does);
            entry.1.sort();
        }
    }
    decisions
}
