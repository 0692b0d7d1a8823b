//! `cryptonym check`: whether rule files would load, and every reason why not.

use super::{CONFIG, DONE, complain, packs, tell};
use clap::Args;
use std::process::ExitCode;

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cryptonym check --rules rules.yaml")]
pub struct Check {
    /// Rule files, or names of embedded packs
    #[arg(long, value_name = "RULES", num_args = 1.., required = true)]
    pub rules: Vec<String>,
}

/// Checks and reports.
pub fn check(args: &Check) -> ExitCode {
    let mut wrong = 0;
    for name in &args.rules {
        match packs::load(name) {
            Ok(rules) => tell(format_args!("{name}: ok: {} rules for {}", rules.rules.len(), rules.release.name())),
            Err(mistakes) => {
                wrong += mistakes.len();
                for mistake in mistakes {
                    complain(format_args!("{mistake}"));
                }
            }
        }
    }
    ExitCode::from(if wrong == 0 { DONE } else { CONFIG })
}
