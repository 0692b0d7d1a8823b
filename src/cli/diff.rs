//! `cryptonym diff`: what changes for whom when one pack takes the place of another.

use super::{CONFIG, DONE, packs, say, tell};
use crate::rules::diff::{Change, diff};
use clap::Args;
use serde::Serialize;
use std::process::ExitCode;

/// Arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cryptonym diff --rules fhir-r4-pseudonymized --rules mine.yaml")]
pub struct Diff {
    /// Twice: the pack before, the pack after
    #[arg(long, value_name = "RULES", required = true)]
    rules: Vec<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    element: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    under: Option<&'a str>,
    from: Option<&'a str>,
    to: Option<&'a str>,
}

/// Prints the differences.
pub fn run(args: &Diff) -> ExitCode {
    let [before, after] = args.rules.as_slice() else {
        return say::usage("diff compares two packs; help: give --rules twice");
    };
    let (before, after) = match (packs::load(before), packs::load(after)) {
        (Ok(before), Ok(after)) => (before, after),
        (before, after) => {
            let mistakes: Vec<String> = [before.err(), after.err()].into_iter().flatten().flatten().collect();
            return say::mistakes(&mistakes, CONFIG);
        }
    };
    let changes = diff(&before, &after);
    for Change { element, kind, under, from, to } in &changes {
        if args.json {
            let (under, from, to) = (under.as_deref(), from.as_deref(), to.as_deref());
            say::json(&Line { element, kind, under, from, to });
        } else {
            let word = |action: &Option<String>| action.clone().unwrap_or_else(|| "no rule of its own".to_owned());
            let under = under.as_ref().filter(|under| *under != element).map(|u| format!(" (under {u})"));
            tell(format_args!("{element}  {kind}{}: {} -> {}", under.unwrap_or_default(), word(from), word(to)));
        }
    }
    if !args.json {
        tell(format_args!("{} elements are treated differently", changes.len()));
    }
    ExitCode::from(DONE)
}
