//! The `cryptonym` command: one file per command, exit codes and words in one place (contract §3).

pub mod check;
pub mod convert;
pub mod keys;
pub mod packs;
#[cfg(feature = "proxy")]
pub mod run;
mod say;

pub use say::{complain, tell};

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Done.
pub const DONE: u8 = 0;
/// Something was refused, or reading or writing failed.
pub const REFUSED: u8 = 1;
/// Rules, keys or configuration invalid or missing (`EX_CONFIG` of sysexits.h).
pub const CONFIG: u8 = 78;

/// NAT for identity: pseudonymizes FHIR on the way out, re-identifies it on the way back for those who may know.
#[derive(Debug, Parser)]
#[command(name = "cryptonym", version, propagate_version = true, max_term_width = 100, after_help = EXAMPLES)]
pub struct Command {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  cryptonym demo
  cryptonym keys generate -o keys.yaml
  cryptonym pseudonymize --rules fhir-r4-pseudonymized --keys keys.yaml -o out.json patient.json
  cryptonym reidentify --rules fhir-r4-reversible --keys keys.yaml --purpose TREAT --caller ward --audit audit.jsonl -o back.json out.json
  cryptonym run --config proxy.yaml";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Rewrite identity in files or standard input into pseudonyms
    Pseudonymize(convert::Pseudonymize),
    /// Turn pseudonyms back; every batch is recorded with --audit
    Reidentify(convert::Reidentify),
    /// Check rule files or a proxy configuration; every mistake at once
    Check(check::Check),
    /// Make and look after key files
    #[command(subcommand)]
    Keys(Keys),
}

#[derive(Debug, Subcommand)]
enum Keys {
    /// Write a new keyring of one active epoch; never overwrites
    #[command(after_help = "Example:\n  cryptonym keys generate -o keys.yaml")]
    Generate(Generate),
}

#[derive(Debug, Args)]
struct Generate {
    /// The key file to make, readable by its owner alone
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Runs the command and says how it ended.
pub fn run() -> ExitCode {
    match Command::parse().verb {
        Verb::Pseudonymize(args) => convert::pseudonymize(&args),
        Verb::Reidentify(args) => convert::reidentify(&args),
        Verb::Check(args) => check::check(&args),
        Verb::Keys(Keys::Generate(args)) => match keys::generate(&args.output) {
            Ok(()) => {
                tell(format_args!("wrote {}; keep a copy where only its owners can read it", args.output.display()));
                ExitCode::from(DONE)
            }
            Err(error) => {
                complain(format_args!("cryptonym: {error}"));
                ExitCode::from(REFUSED)
            }
        },
    }
}
