//! A rule file of `format: json` as written: serde and nothing else. What it means is decided in `compile`.
//!
//! Unknown members are errors, so `release:` or `types:`, which only FHIR has, can never be taken for a decision that was made.

use crate::rules::Mistake;
use crate::rules::file::{Action, TestAsWritten};
use serde::Deserialize;
use serde_saphyr::Spanned;

/// The whole file (contract §1, docs/rules.md).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PlainFile {
    /// `cryptonym/v1`.
    pub api_version: Spanned<String>,
    /// `Rules`.
    pub kind: Spanned<String>,
    /// The pack's name.
    pub name: Spanned<String>,
    /// `json`.
    pub format: Spanned<String>,
    /// What the pack may legally be called.
    pub claim: Spanned<String>,
    /// `refuse` or `remove`.
    pub unknown: Spanned<String>,
    /// Where ages are generalized.
    #[serde(rename = "as_of")]
    pub as_of: Option<Spanned<String>>,
    /// Times of a message without exactly one subject.
    #[serde(rename = "no_subject")]
    pub no_subject: Option<Spanned<String>>,
    /// Paths of the values that name whom a message is about.
    #[serde(default)]
    pub subject: Option<Spanned<Paths>>,
    /// Member of a message that carries the seal of its shifted times.
    #[serde(default)]
    pub seal: Option<Spanned<String>>,
    /// What is done with values, first match wins.
    pub elements: Vec<Spanned<ElementRule>>,
    /// What is done with the names of members that are data, first match wins.
    #[serde(default)]
    pub keys: Vec<Spanned<ElementRule>>,
    /// Request paths that may cross, below the route's base.
    #[serde(default)]
    pub urls: Vec<Spanned<String>>,
    /// Tests that travel with the rules.
    #[serde(default)]
    pub tests: Vec<Spanned<TestAsWritten>>,
}

/// One path or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Paths {
    /// `$.user`
    One(String),
    /// `[$.user, $.owner.id]`
    Several(Vec<String>),
}

/// One entry of `elements:` or `keys:`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElementRule {
    /// JSONPath, or several under one decision.
    pub path: Paths,
    /// Which values: all, or those of a kind, or those listed.
    #[serde(default)]
    pub only: Option<Only>,
    /// What is done.
    #[serde(rename = "do")]
    pub action: Spanned<Action>,
    /// The reason, for people.
    #[serde(default)]
    pub why: Option<String>,
}

/// Which values a rule is about.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Only {
    /// `number`, `code` and so on.
    Kind(String),
    /// Texts, each written out.
    Listed(Vec<String>),
}

/// The one member that says which kind of rule file this is; all others are read by the kind's own page.
#[derive(Debug, Deserialize)]
struct Head {
    format: Option<String>,
}

/// Whether this text says `format: json`. Broken YAML is asked line by line, so that the right page says what is wrong with it.
pub fn is_plain(yaml: &str) -> bool {
    match serde_saphyr::from_str::<Head>(yaml) {
        Ok(head) => head.format.as_deref() == Some("json"),
        Err(_) => yaml.lines().filter_map(|line| line.strip_prefix("format:")).any(|word| word.trim() == "json"),
    }
}

/// Parses the YAML. Shape errors come one at a time from the parser; meaning is checked afterwards, all at once.
pub fn parse(yaml: &str) -> Result<PlainFile, Mistake> {
    serde_saphyr::from_str(yaml).map_err(|e| Mistake {
        line: e.location().map_or(0, |l| l.line()),
        column: e.location().map_or(0, |l| l.column()),
        what: e.without_snippet().to_string(),
        advice: "see `format: json` in docs/rules.md".to_owned(),
    })
}
