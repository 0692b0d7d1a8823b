//! The command line: one file or folder per command.

#[cfg(feature = "proxy")]
pub mod certs;
#[cfg(feature = "proxy")]
pub mod demo;
