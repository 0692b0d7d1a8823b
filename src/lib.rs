//! cryptonym: a TLS reverse proxy that rewrites identity in FHIR traffic into keyed pseudonyms, and back.
//! The map of this library is `ARCHITECTURE.md`; each room opens with a letter to its reader.

pub mod limits;
pub mod names;
pub mod policy;
pub mod secret;
pub mod token;
pub mod rules;
pub mod rewrite;
pub mod audit;
#[cfg(feature = "proxy")]
pub mod config;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(all(feature = "cli", feature = "proxy"))]
pub mod cli;
