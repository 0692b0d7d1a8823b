//! `cryptonym coverage`: what a pack does with every element of its release.

use super::{CONFIG, DONE, packs, say, tell};
use crate::rules::coverage::{Row, coverage};
use crate::rules::{Action, Rule};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Arguments of `coverage`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cryptonym coverage --rules fhir-r4-pseudonymized
  cryptonym coverage --rules rules.yaml --json | jq -r '.kept[].path'")]
pub struct Coverage {
    /// Rule file, or name of an embedded pack
    #[arg(long, value_name = "RULES")]
    rules: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Page<'a> {
    pack: &'a str,
    release: &'a str,
    /// Elements with a value of their own, as `Type.member`.
    elements: usize,
    kept: Vec<Entry<'a>>,
    by_action: BTreeMap<&'static str, usize>,
    /// Every decision that is not `keep`.
    changed: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    path: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    action: &'a str,
    rule: Option<RuleAt<'a>>,
}

/// A rule and where it stands.
#[derive(Serialize)]
pub struct RuleAt<'a> {
    file: &'a str,
    line: u64,
    name: &'a str,
}

impl<'a> RuleAt<'a> {
    /// The rule of a pack that was loaded from `file`.
    pub fn new(file: &'a str, rule: &'a Rule) -> Self {
        RuleAt { file, line: rule.line, name: &rule.name }
    }
}

impl std::fmt::Display for RuleAt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{} {}", self.file, self.line, self.name)
    }
}

/// Prints the inventory.
pub fn run(args: &Coverage) -> ExitCode {
    let compiled = match packs::load(&args.rules) {
        Ok(compiled) => compiled,
        Err(mistakes) => return say::mistakes(&mistakes, CONFIG),
    };
    let coverage = coverage(&compiled);
    let entry = |row| entry(row, &args.rules);
    if args.json {
        let (kept, changed): (Vec<_>, Vec<_>) = coverage.rows.iter().partition(|row| row.action == Action::Keep);
        let page = Page {
            pack: &compiled.name,
            release: compiled.release.name(),
            elements: coverage.elements,
            kept: kept.into_iter().map(entry).collect(),
            by_action: coverage.by_action.clone(),
            changed: changed.into_iter().map(entry).collect(),
        };
        say::json(&page);
    } else {
        for row in &coverage.rows {
            let Entry { path, kind, action, rule } = entry(row);
            let whole = if row.whole { " with all it holds" } else { "" };
            let rule = rule.map_or_else(|| "by the release itself".to_owned(), |rule| rule.to_string());
            tell(format_args!("{path}  {kind}  {action}{whole}  {rule}"));
        }
        let counts: Vec<String> = coverage.by_action.iter().map(|(action, n)| format!("{action} {n}")).collect();
        let what = match compiled.plain {
            // No release lists the elements of plain JSON: its rules are all there is to count.
            Some(_) => "rules of plain JSON".to_owned(),
            None => format!("elements of {}", compiled.release.name()),
        };
        tell(format_args!("{}: {} {what}: {}", compiled.name, coverage.elements, counts.join(", ")));
    }
    ExitCode::from(DONE)
}

fn entry<'a>(row: &'a Row<'_>, file: &'a str) -> Entry<'a> {
    let rule = row.rule.map(|rule| RuleAt::new(file, rule));
    Entry { path: &row.path, kind: row.kind, action: &row.does, rule }
}
