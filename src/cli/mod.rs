//! The `cryptonym` command, one file per subcommand.
pub mod run;
