//! `cryptonym test`: the tests that travel with rule files.
//!
//! They run under a key that is fixed and public, so that a token may stand in an expectation. Their values are inventions
//! of whoever wrote the rules; so they may be shown.

use super::{CONFIG, DONE, REFUSED, complain, packs, say, tell};
use crate::names::{Caller, Domain};
use crate::policy::danger;
use crate::rewrite::{Engine, Format, Options, Rewriter};
use crate::rules::file::{TestAsWritten, TestCase};
use crate::rules::tree::Tree;
use crate::rules::{Compiled, file};
use crate::secret::SecretKey;
use crate::token::Keyring;
use clap::Args;
use std::process::ExitCode;
use std::sync::Arc;

/// The secret of the one epoch under which tests run.
const TEST_SECRET: [u8; 32] = *b"cryptonym test key, never a real";

/// Arguments of `test`.
#[derive(Debug, Args)]
#[command(
    after_help = "A test has a name, an input, and what is expected of it: `expect` (a value) or `refuse` (a code).
With `reveal: true` the input is re-identified instead. Tokens are those of a fixed test key.

Example:
  cryptonym test rules.yaml"
)]
pub struct Test {
    /// Rule files, or names of embedded packs
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
}

/// Runs all tests of all files.
pub fn run(args: &Test) -> ExitCode {
    let (mut passed, mut failed) = (0u64, 0u64);
    let mut invalid = false;
    for name in &args.files {
        match load(name) {
            Ok((engine, cases)) => {
                for TestCase { line, test } in &cases {
                    match outcome(&engine, test) {
                        Ok(()) => passed += 1,
                        Err(lines) => {
                            failed += 1;
                            complain(format_args!("{name}:{line}: test failed: {}", test.name));
                            for line in lines {
                                complain(format_args!("  {line}"));
                            }
                        }
                    }
                }
                if cases.is_empty() {
                    complain(format_args!("{name}: no tests; help: write some under `tests:`"));
                }
            }
            Err(mistakes) => {
                invalid = true;
                say::mistakes(&mistakes, CONFIG);
            }
        }
    }
    tell(format_args!("{passed} passed, {failed} failed"));
    ExitCode::from(if invalid {
        CONFIG
    } else if failed > 0 {
        REFUSED
    } else {
        DONE
    })
}

fn load(name: &str) -> Result<(Arc<Engine>, Vec<TestCase>), Vec<String>> {
    let yaml = packs::read(name)?;
    let compiled = Compiled::new(&yaml).map_err(|mistakes| packs::written(name, &mistakes))?;
    let cases = file::tests(&yaml).map_err(|mistakes| packs::written(name, &mistakes))?;
    let keyring = Keyring::generate(TEST_SECRET, "2000-01-01T00:00:00Z");
    let domain = Domain::new("test").expect("a name");
    let engine =
        Engine::new(compiled, &keyring, &domain, Options::default()).map_err(|e| vec![format!("{name}: {e}")])?;
    Ok((Arc::new(engine), cases))
}

/// Runs one test; the lines say how it differs.
fn outcome(engine: &Arc<Engine>, case: &TestAsWritten) -> Result<(), Vec<String>> {
    let mut rewriter = if case.reveal {
        let permit = danger::key_holder(Caller::new("test").expect("a name"), None);
        Rewriter::reidentify(Arc::clone(engine), Format::Json, Some(Arc::new(permit)))
    } else {
        Rewriter::pseudonymize(Arc::clone(engine), Format::Json).within(&SecretKey::new(TEST_SECRET))
    };
    let mut written = Vec::new();
    let done = rewriter.document(case.input.to_json().as_bytes(), &mut written);
    match (done, &case.expect, &case.refuse) {
        (Err(refusal), _, Some(code)) if refusal.code.as_str() == code => Ok(()),
        (Err(refusal), _, Some(code)) => Err(vec![format!("expected: refused[{code}]"), format!("found: {refusal}")]),
        (Err(refusal), _, None) => Err(vec![format!("found: {refusal}")]),
        (Ok(()), _, Some(code)) => {
            Err(vec![format!("expected: refused[{code}]"), format!("found: {}", String::from_utf8_lossy(&written))])
        }
        (Ok(()), Some(expected), None) => {
            let found: Tree =
                serde_json::from_slice(&written).map_err(|error| vec![format!("the output is not JSON: {error}")])?;
            let mut lines = Vec::new();
            differences(expected, &found, "$", &mut lines);
            if lines.is_empty() { Ok(()) } else { Err(lines) }
        }
        (Ok(()), None, None) => Err(vec!["nothing is expected".to_owned()]),
    }
}

/// Where two values differ: `- ` what was expected, `+ ` what was found.
fn differences(expected: &Tree, found: &Tree, path: &str, lines: &mut Vec<String>) {
    match (expected, found) {
        (Tree::Object(a), Tree::Object(b)) => {
            for (name, value) in a {
                match found.member(name) {
                    Some(other) => differences(value, other, &format!("{path}.{name}"), lines),
                    None => lines.push(format!("- {path}.{name}: {}", value.to_json())),
                }
            }
            let new = b.iter().filter(|(name, _)| expected.member(name).is_none());
            lines.extend(new.map(|(name, value)| format!("+ {path}.{name}: {}", value.to_json())));
        }
        (Tree::Array(a), Tree::Array(b)) if a.len() == b.len() => {
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                differences(a, b, &format!("{path}[{n}]"), lines);
            }
        }
        (a, b) if a == b => {}
        (a, b) => {
            lines.push(format!("- {path}: {}", a.to_json()));
            lines.push(format!("+ {path}: {}", b.to_json()));
        }
    }
}
