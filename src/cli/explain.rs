//! `cryptonym explain`: which rule decides each leaf of a document.

use super::coverage::RuleAt;
use super::{CONFIG, DONE, REFUSED, complain, packs, say, tell};
use crate::batch;
use crate::encoding::{self, Coding};
use crate::limits;
use crate::rewrite::Format;
use crate::rules::Compiled;
use crate::rules::explain::{Line, explain};
use crate::rules::tree::Tree;
use clap::Args;
use serde::Serialize;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cryptonym explain --rules fhir-r4-pseudonymized patient.json
  cryptonym explain --rules rules.yaml --json patient.json | jq -r 'select(.action == \"keep\").path'")]
pub struct Explain {
    /// Rule file, or name of an embedded pack
    #[arg(long, value_name = "RULES")]
    rules: String,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Print the values too: they are identity
    #[arg(long)]
    values: bool,
    /// The document, or one a line; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    path: &'a str,
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    action: &'a str,
    class: Option<&'a str>,
    rule: Option<RuleAt<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

/// Explains the file.
pub fn run(args: &Explain) -> ExitCode {
    let compiled = match packs::load(&args.rules) {
        Ok(compiled) => compiled,
        Err(mistakes) => return say::mistakes(&mistakes, CONFIG),
    };
    let name = args.file.display();
    let (text, format) = match read(&args.file) {
        Ok(read) => read,
        Err(problem) => {
            complain(format_args!("{name}: {problem}"));
            return ExitCode::from(REFUSED);
        }
    };
    let documents: Vec<(Option<usize>, &str)> = match format {
        Format::Json => vec![(None, &text)],
        Format::Ndjson => text.lines().enumerate().map(|(n, line)| (Some(n + 1), line)).collect(),
    };
    let mut refused = false;
    for (line, document) in documents.into_iter().filter(|(line, text)| line.is_none() || !text.trim().is_empty()) {
        match serde_json::from_str::<Tree>(document) {
            Ok(tree) => show(args, &compiled, line, &tree),
            // The parser's own words are about grammar; only the position is passed on all the same.
            Err(error) => {
                let line = line.unwrap_or(error.line());
                complain(format_args!("{name}:{line}: not JSON, at column {}", error.column()));
                refused = true;
            }
        }
    }
    ExitCode::from(if refused { REFUSED } else { DONE })
}

fn show(args: &Explain, compiled: &Compiled, at: Option<usize>, tree: &Tree) {
    for Line { path, kind, action, class, rule, value } in explain(compiled, tree) {
        let rule = rule.map(|rule| RuleAt::new(&args.rules, rule));
        let value = args.values.then(|| value.to_json());
        if args.json {
            say::json(&Shown { line: at, path: &path, kind, action, class: class.as_deref(), rule, value });
            continue;
        }
        let at = at.map(|n| format!("{n}: ")).unwrap_or_default();
        let class = class.map(|class| format!("({class})")).unwrap_or_default();
        let rule = rule.map(|rule| format!("  {rule}")).unwrap_or_default();
        let value = value.map(|value| format!("  = {value}")).unwrap_or_default();
        tell(format_args!("{at}{path}  {}  {action}{class}{rule}{value}", kind.unwrap_or("?")));
    }
}

/// A document of at most the size that the rewriter holds.
fn read(path: &Path) -> Result<(String, Format), String> {
    let (mut input, format): (Box<dyn BufRead>, Format) = if path == Path::new("-") {
        (Box::new(std::io::BufReader::new(std::io::stdin())), Format::Json)
    } else {
        let (format, coding) = batch::kind(path).unwrap_or((Format::Json, Coding::Plain));
        let file = std::fs::File::open(path).map_err(|error| format!("cannot read: {error}"))?;
        let input = encoding::reader(std::io::BufReader::new(file), coding);
        (input.map_err(|error| format!("cannot read: {error}"))?, format)
    };
    let mut text = String::new();
    let bound = limits::RESOURCE_BYTES_MAX as u64;
    (&mut input).take(bound + 1).read_to_string(&mut text).map_err(|error| format!("cannot read: {error}"))?;
    if text.len() as u64 > bound {
        return Err(format!("over {bound} bytes; help: explain a smaller part"));
    }
    Ok((text, format))
}
