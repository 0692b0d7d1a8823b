//! A rule file as written: serde and nothing else. What it means is decided in `compile`.
//!
//! Unknown members are errors, so a misspelt `elments:` can never silently leave identity in clear.

use super::Mistake;
use super::tree::Tree;
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;

/// The whole file (contract §1).
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RulesFile {
    /// `cryptonym/v1`.
    #[cfg_attr(feature = "cli", schemars(with = "String"))]
    pub api_version: Spanned<String>,
    /// `Rules`.
    #[cfg_attr(feature = "cli", schemars(with = "String"))]
    pub kind: Spanned<String>,
    /// The pack's name, shown in reports and carried in seals.
    #[cfg_attr(feature = "cli", schemars(with = "String"))]
    pub name: Spanned<String>,
    /// `fhir`.
    #[cfg_attr(feature = "cli", schemars(with = "String"))]
    pub format: Spanned<String>,
    /// `R4`, `R4B`, `R5`.
    #[cfg_attr(feature = "cli", schemars(with = "String"))]
    pub release: Spanned<String>,
    /// What the pack may legally be called.
    #[cfg_attr(feature = "cli", schemars(with = "String"))]
    pub claim: Spanned<String>,
    /// `refuse` or `remove`.
    #[cfg_attr(feature = "cli", schemars(with = "String"))]
    pub unknown: Spanned<String>,
    /// Where ages are generalized.
    #[serde(rename = "as_of")]
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub as_of: Option<Spanned<String>>,
    /// `remove`, `year`, `refuse`, `own`.
    #[serde(rename = "no_subject")]
    #[cfg_attr(feature = "cli", schemars(with = "String"))]
    pub no_subject: Spanned<String>,
    /// What happens to codes by their system.
    pub codes: Codes,
    /// Datatype rules: the net. A key may name several types, `a|b`.
    #[cfg_attr(feature = "cli", schemars(with = "BTreeMap<String, Action>"))]
    pub types: BTreeMap<String, Spanned<Action>>,
    /// Element rules: the exceptions, first match wins.
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "Vec<ElementRule>"))]
    pub elements: Vec<Spanned<ElementRule>>,
    /// Search parameters that the release does not define.
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "Vec<SearchRule>"))]
    pub search: Vec<Spanned<SearchRule>>,
    /// Tests that travel with the rules.
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "Vec<TestAsWritten>"))]
    pub tests: Vec<Spanned<TestAsWritten>>,
}

/// One entry of `tests:`.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TestAsWritten {
    /// A sentence.
    pub name: String,
    /// What is rewritten.
    pub input: Tree,
    /// What it becomes, as parsed values.
    pub expect: Option<Tree>,
    /// Or the code of its refusal.
    pub refuse: Option<String>,
    /// Re-identify instead.
    #[serde(default)]
    pub reveal: bool,
}

/// One test and the line where it stands.
#[derive(Debug)]
pub struct TestCase {
    /// Line in the file, from 1.
    pub line: u64,
    /// The test.
    pub test: TestAsWritten,
}

/// The tests of a rule file: each expects either a value or a refusal.
pub fn tests(yaml: &str) -> Result<Vec<TestCase>, Vec<Mistake>> {
    let written = match super::plain::file::is_plain(yaml) {
        true => super::plain::file::parse(yaml).map(|file| file.tests),
        false => parse(yaml).map(|file| file.tests),
    };
    let written = written.map_err(|mistake| vec![mistake])?;
    let mut mistakes = Vec::new();
    for test in &written {
        if test.value.expect.is_some() == test.value.refuse.is_some() {
            let what = format!("test `{}`: expects nothing, or two things", test.value.name);
            mistakes.push(super::wrong(test.referenced.into(), what, "give it either `expect` or `refuse`"));
        }
    }
    let cases = written.into_iter().map(|test| TestCase { line: test.referenced.line(), test: test.value });
    if mistakes.is_empty() { Ok(cases.collect()) } else { Err(mistakes) }
}

/// `codes:`
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Codes {
    /// Systems by URL, or `standard` for the shipped list.
    #[cfg_attr(feature = "cli", schemars(with = "Vec<String>"))]
    pub keep_systems: Vec<Spanned<String>>,
    /// What happens to codes and displays of every other system.
    #[cfg_attr(feature = "cli", schemars(with = "Action"))]
    pub others: Spanned<Action>,
}

/// One entry of `elements:`.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ElementRule {
    /// FHIRPath subset.
    #[cfg_attr(feature = "cli", schemars(with = "String"))]
    pub path: Spanned<String>,
    /// What is done.
    #[serde(rename = "do")]
    #[cfg_attr(feature = "cli", schemars(with = "Action"))]
    pub action: Spanned<Action>,
    /// The reason, for people.
    #[serde(default)]
    pub why: Option<String>,
}

/// One entry of `search:`.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
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

/// An action as written: a word, or a word with parameters. Which belong to which is checked in `actions`.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Action {
    /// `keep`
    Word(String),
    /// `{ token: { class: mrn } }`
    Call(BTreeMap<String, Option<BTreeMap<String, Scalar>>>),
}

/// A parameter as written.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Scalar {
    /// `true`
    Bool(bool),
    /// `96`
    Whole(i64),
    /// `0.5`
    Decimal(f64),
    /// `mrn`
    Text(String),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Bool(b) => b.fmt(f),
            Scalar::Whole(n) => n.fmt(f),
            Scalar::Decimal(n) => n.fmt(f),
            Scalar::Text(text) => text.fmt(f),
        }
    }
}

/// Parses the YAML. Shape errors come one at a time from the parser; meaning is checked afterwards, all at once.
pub fn parse(yaml: &str) -> Result<RulesFile, Mistake> {
    serde_saphyr::from_str(yaml).map_err(|e| Mistake {
        line: e.location().map_or(0, |l| l.line()),
        column: e.location().map_or(0, |l| l.column()),
        what: e.without_snippet().to_string(),
        advice: "see the rule file format in docs/rules.md".to_owned(),
    })
}
