//! The only place of the command line that prints. Results go to standard output, everything for people to standard error.

use std::fmt;
use std::io::Write;

/// A line for people.
pub fn complain(line: fmt::Arguments<'_>) {
    // A closed standard error is no reason to fail: the exit code says the same.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// A line of result.
pub fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
