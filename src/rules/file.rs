//! A rule file as written: serde and nothing else. What it means is decided in `compile`.
//!
//! Unknown members are errors, so a misspelt `elments:` can never silently leave identity in clear.

use super::Mistake;
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;

/// The whole file (contract §1).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RulesFile {
    /// `cryptonym/v1`.
    pub api_version: Spanned<String>,
    /// `Rules`.
    pub kind: Spanned<String>,
    /// The pack's name, shown in reports and carried in seals.
    pub name: Spanned<String>,
    /// `fhir`.
    pub format: Spanned<String>,
    /// `R4`, `R4B`, `R5`.
    pub release: Spanned<String>,
    /// What the pack may legally be called.
    pub claim: Spanned<String>,
    /// `refuse` or `remove`.
    pub unknown: Spanned<String>,
    /// Where ages are generalized.
    #[serde(rename = "as_of")]
    pub as_of: Option<Spanned<String>>,
    /// `remove`, `year`, `refuse`, `own`.
    #[serde(rename = "no_subject")]
    pub no_subject: Spanned<String>,
    /// What happens to codes by their system.
    pub codes: Codes,
    /// Datatype rules: the net. A key may name several types, `a|b`.
    pub types: BTreeMap<String, Spanned<Action>>,
    /// Element rules: the exceptions, first match wins.
    #[serde(default)]
    pub elements: Vec<Spanned<ElementRule>>,
    /// Search parameters that the release does not define.
    #[serde(default)]
    pub search: Vec<SearchRule>,
    /// Tests that travel with the rules.
    #[serde(default)]
    pub tests: Vec<serde::de::IgnoredAny>,
}

/// `codes:`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Codes {
    /// Systems by URL, or `standard` for the shipped list.
    pub keep_systems: Vec<Spanned<String>>,
    /// What happens to codes and displays of every other system.
    pub others: Spanned<Action>,
}

/// One entry of `elements:`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElementRule {
    /// FHIRPath subset.
    pub path: Spanned<String>,
    /// What is done.
    #[serde(rename = "do")]
    pub action: Spanned<Action>,
    /// The reason, for people.
    #[serde(default)]
    pub why: Option<String>,
}

/// One entry of `search:`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchRule {
    /// Resource type.
    pub resource: String,
    /// Parameter name.
    pub name: String,
    /// FHIR search parameter type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Element that it searches.
    pub path: String,
}

/// An action as written: a word, or a word with parameters.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Action {
    /// `keep`
    Word(String),
    /// `{ token: { class: mrn } }`
    Call(BTreeMap<String, Parameters>),
}

/// The parameters of every action; which belong to which is checked in `compile`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Class of the pseudonym.
    pub class: Option<String>,
    /// Pad to length buckets.
    pub pad: Option<bool>,
    /// Longest shift in days.
    pub days: Option<u32>,
    /// Keep the day of the week.
    pub weekday: Option<bool>,
}

/// Parses the YAML. Shape errors come one at a time from the parser; meaning is checked afterwards, all at once.
pub fn parse(yaml: &str) -> Result<RulesFile, Mistake> {
    serde_saphyr::from_str(yaml).map_err(|e| Mistake {
        line: e.location().map_or(0, |l| l.line()),
        what: e.without_snippet().to_string(),
        advice: "see the rule file format in docs/rules.md".to_owned(),
    })
}
