//! The `cryptonym` command: one file per command, exit codes and words in one place (contract §3).

pub mod audit;
#[cfg(feature = "proxy")]
pub mod certs;
pub mod check;
pub mod convert;
pub mod coverage;
#[cfg(feature = "proxy")]
pub mod demo;
pub mod diff;
pub mod explain;
mod files;
pub mod help;
pub mod keys;
pub mod packs;
mod plan;
pub mod rotation;
#[cfg(feature = "proxy")]
pub mod run;
pub mod say;
pub mod schema;
pub mod test;
#[cfg(feature = "proxy")]
mod watch;

pub use say::{complain, tell};

#[cfg(feature = "proxy")]
use clap::Args;
use clap::{Parser, Subcommand};
#[cfg(feature = "proxy")]
use std::path::PathBuf;
use std::process::ExitCode;

/// Done.
pub const DONE: u8 = 0;
/// Something was refused, or reading or writing failed.
pub const REFUSED: u8 = 1;
/// A command line that cannot be meant; clap's own code for it.
pub const USAGE: u8 = 2;
/// Rules, keys or configuration invalid or missing (`EX_CONFIG` of sysexits.h).
pub const CONFIG: u8 = 78;

/// NAT for identity: pseudonymizes FHIR on the way out, re-identifies it on the way back for those who may know.
#[derive(Debug, Parser)]
#[command(name = "cryptonym", version, propagate_version = true, disable_help_subcommand = true, max_term_width = 100, after_help = EXAMPLES)]
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
    /// Move tokens of old key epochs to the active one; nothing is revealed
    Rewrap(convert::Rewrap),
    /// Check rule files or a proxy configuration; every mistake at once
    Check(check::Check),
    /// Run the tests that travel with rule files
    Test(test::Test),
    /// Say which rule decides each leaf of a document
    Explain(explain::Explain),
    /// Say what a pack does with every element of its release
    Coverage(coverage::Coverage),
    /// Say what changes when one pack takes the place of another
    Diff(diff::Diff),
    /// Make and look after key files
    #[command(subcommand)]
    Keys(rotation::Keys),
    /// Check and search audit files
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Write the JSON Schema of a kind of file, for editors
    Schema(schema::Schema),
    /// Explain the code of a refusal, or a command
    Help(help::Help),
    /// Write completions for a shell
    Completions(help::Completions),
    /// Start the proxy
    #[cfg(feature = "proxy")]
    Run(Run),
    /// Show it all on this machine: a hospital, the proxy, a cloud, and who sees what
    #[cfg(feature = "proxy")]
    Demo {
        /// Leave it running and print curl lines
        #[arg(long)]
        keep: bool,
    },
    /// Make certificates for trying things out
    #[cfg(feature = "proxy")]
    #[command(subcommand)]
    Certs(Certs),
}

#[cfg(feature = "proxy")]
#[derive(Debug, Subcommand)]
enum Certs {
    /// Write an authority, a server and a client certificate for this machine
    Dev {
        /// Folder for them
        #[arg(short, long, value_name = "FOLDER", default_value = "certs")]
        output: PathBuf,
    },
}

#[cfg(feature = "proxy")]
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cryptonym run --config proxy.yaml\n  cryptonym run --upstream http://127.0.0.1:8080/fhir --rules fhir-r4-reversible --keys keys.yaml"
)]
struct Run {
    /// Configuration file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["upstream", "rules", "keys"], required_unless_present = "upstream")]
    config: Option<PathBuf>,
    /// A first try without a file: base URL of where requests go
    #[arg(long, value_name = "URL", requires_all = ["rules", "keys"])]
    upstream: Option<String>,
    /// Authority of the upstream's certificate
    #[arg(long, value_name = "FILE")]
    upstream_ca: Option<PathBuf>,
    /// Rule file, or name of an embedded pack
    #[arg(long, value_name = "RULES")]
    rules: Option<String>,
    /// Key file, or env:NAME
    #[arg(long, value_name = "KEYS")]
    keys: Option<String>,
    /// Loopback address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Loopback address of health and metrics
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: String,
    /// Which side may not know who the patient is: upstream, or downstream
    #[arg(long, value_name = "SIDE", default_value = "upstream")]
    untrusted: String,
    /// Pseudonymisation domain
    #[arg(long, default_value = "default")]
    domain: String,
    /// Whether updates may overwrite the other side's record: allow or refuse; no default where the rules lose data
    #[arg(long, value_name = "CHOICE")]
    lossy_update: Option<String>,
}

#[cfg(feature = "proxy")]
fn start(args: Run) -> ExitCode {
    if let Some(config) = &args.config {
        return run::run(config);
    }
    run::run_flags(&run::Flags {
        upstream: args.upstream.unwrap_or_default(),
        upstream_ca: args.upstream_ca,
        rules: args.rules.unwrap_or_default(),
        keys: args.keys.unwrap_or_default(),
        listen: args.listen,
        admin: args.admin,
        untrusted: args.untrusted,
        domain: args.domain,
        lossy_update: args.lossy_update,
    })
}

/// Runs the command and says how it ended.
pub fn main() -> ExitCode {
    match Command::parse().verb {
        Verb::Pseudonymize(args) => convert::pseudonymize(&args),
        Verb::Reidentify(args) => convert::reidentify(&args),
        Verb::Rewrap(args) => convert::rewrap(&args),
        Verb::Check(args) => check::check(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Schema(args) => schema::run(&args),
        Verb::Help(args) => help::help(&args),
        Verb::Completions(args) => help::completions(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Coverage(args) => coverage::run(&args),
        Verb::Diff(args) => diff::run(&args),
        #[cfg(feature = "proxy")]
        Verb::Run(args) => start(args),
        #[cfg(feature = "proxy")]
        Verb::Demo { keep } => demo::demo(keep),
        #[cfg(feature = "proxy")]
        Verb::Certs(Certs::Dev { output }) => certs::dev(&output),
        Verb::Keys(args) => rotation::run(&args),
        Verb::Audit(args) => audit::run(&args),
    }
}
