//! `cryptonym check`: whether rule files would load, and every reason why not.

use super::{CONFIG, DONE, complain, packs, tell};
use clap::Args;
use std::process::ExitCode;

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cryptonym check --rules rules.yaml")]
pub struct Check {
    /// Rule files, or names of embedded packs
    #[arg(long, value_name = "RULES", num_args = 1.., required_unless_present = "config")]
    pub rules: Vec<String>,
    /// Configuration of the proxy, with all that it names
    #[arg(long, value_name = "FILE", conflicts_with = "rules")]
    pub config: Option<std::path::PathBuf>,
}

/// Checks and reports.
pub fn check(args: &Check) -> ExitCode {
    if let Some(config) = &args.config {
        #[cfg(feature = "proxy")]
        return super::run::check(config);
        #[cfg(not(feature = "proxy"))]
        {
            complain(format_args!("{}: this build has no proxy", config.display()));
            return ExitCode::from(CONFIG);
        }
    }
    let mut wrong = 0;
    for name in &args.rules {
        match packs::load(name) {
            Ok(rules) => {
                tell(format_args!("{name}: ok: {} rules for {}", rules.rules.len(), rules.release.name()));
                for warning in &rules.warnings {
                    let line = packs::place(name, warning.at.line, warning.at.column, format_args!("{warning}"));
                    complain(format_args!("{line}"));
                }
            }
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
