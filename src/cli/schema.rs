//! `cryptonym schema`: the JSON Schema of rule files, keyrings and configurations, from the types that read them.
//!
//! A schema knows shapes and names; what a file means, `check` says.

use super::{DONE, tell};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Arguments of `schema`.
#[derive(Debug, Args)]
#[command(after_help = "An editor that speaks the YAML language server takes it from the first line of a file:
  # yaml-language-server: $schema=rules.schema.json

Example:
  cryptonym schema rules > rules.schema.json")]
pub struct Schema {
    /// Which kind of file
    #[arg(value_enum, value_name = "KIND")]
    kind: Kind,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// The configuration of the proxy
    #[cfg(feature = "proxy")]
    Config,
    /// Rule files
    Rules,
    /// Key files
    Keyring,
}

/// Writes the schema to standard output.
pub fn run(args: &Schema) -> ExitCode {
    let (mut schema, title, example) = match args.kind {
        #[cfg(feature = "proxy")]
        Kind::Config => (crate::config::schema(), "Configuration of the cryptonym proxy", config_example()),
        Kind::Rules => {
            (schemars::schema_for!(crate::rules::file::RulesFile), "Rule file of cryptonym", rules_example())
        }
        Kind::Keyring => (crate::token::keyring::schema(), "Keyring of cryptonym", keyring_example()),
    };
    schema.insert("title".to_owned(), title.into());
    schema.insert("examples".to_owned(), json!([example]));
    let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    tell(format_args!("{text}"));
    ExitCode::from(DONE)
}

#[cfg(feature = "proxy")]
fn config_example() -> Value {
    json!({
        "apiVersion": "cryptonym/v1", "kind": "Proxy", "keyring": "keys.yaml",
        "listeners": [{ "address": "127.0.0.1:8443", "tls": { "cert": "certs/server.pem", "key": "certs/server-key.pem" } }],
        "routes": [{
            "name": "cloud", "match": { "path": "/fhir" }, "untrusted": "upstream",
            "upstream": { "url": "https://cloud.example/fhir" }, "public_base": "https://proxy.example/fhir",
            "rules": "fhir-r4-reversible",
        }],
    })
}

fn rules_example() -> Value {
    json!({
        "apiVersion": "cryptonym/v1", "kind": "Rules", "name": "ward-7", "format": "fhir", "release": "R4", "claim": "pseudonymized",
        "unknown": "refuse", "no_subject": "year", "codes": { "keep_systems": ["standard"], "others": "remove" },
        "types": { "resource-id": { "token": {} }, "string|markdown": "remove" },
        "elements": [{ "path": "Patient.gender", "do": "keep", "why": "164.514(b)(2)(i): not an identifier" }],
        "tests": [{
            "name": "a name never leaves", "input": { "resourceType": "Patient", "name": [{ "family": "Ng" }] },
            "expect": { "resourceType": "Patient" },
        }],
    })
}

fn keyring_example() -> Value {
    json!({
        "apiVersion": "cryptonym/v1", "kind": "Keyring",
        "epochs": [{ "id": 1, "created": "2026-11-23T10:00:00Z", "state": "active", "check": "BASE64_16", "secret": "BASE64_32" }],
    })
}
