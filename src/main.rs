//! The `cryptonym` command.
fn main() {}
