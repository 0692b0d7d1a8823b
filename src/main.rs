//! The `cryptonym` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    cryptonym::cli::run()
}
