//! cryptonym: a TLS reverse proxy that rewrites identity in FHIR traffic into keyed pseudonyms, and back.
//! The map of this library is `ARCHITECTURE.md`; each room opens with a letter to its reader.

pub mod action;
pub mod audit;
#[cfg(feature = "cli")]
pub mod batch;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "proxy")]
pub mod config;
#[cfg(any(feature = "cli", feature = "proxy"))]
pub mod encoding;
pub mod fhir;
pub mod limits;
pub mod names;
pub mod policy;
#[cfg(feature = "proxy")]
pub mod proxy;
pub mod rewrite;
pub mod rules;
pub mod secret;
pub mod token;
