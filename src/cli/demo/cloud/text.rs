//! A resource as text: what the server adds or links is spliced into the text as received, so that `1.50` stays `1.50`.
//!
//! Only `id`, `meta.versionId`, `meta.lastUpdated` and resolved links change (R4 http.html#create, #update,
//! bundle.html#references). Everything here takes text that serde_json has accepted before.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// The members of a resource that a server looks at before it knows the type. The rest is skipped, but checked for grammar.
#[derive(Deserialize)]
pub struct Head<'a> {
    /// Type name.
    #[serde(borrow, rename = "resourceType")]
    pub kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    meta: Option<&'a RawValue>,
}

impl<'a> Head<'a> {
    /// Reads a whole resource. Fails on anything but one JSON object with a `resourceType`.
    pub fn read(text: &'a str) -> Result<Head<'a>, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The logical id, where the text has one that is a string.
    pub fn id(&self) -> Option<String> {
        self.id.and_then(|id| serde_json::from_str(id.get()).ok())
    }
}

/// Puts the server's id, version and time into a resource. Every other byte stays.
pub fn stamp(text: &str, id: &str, version: u64, last_updated: &str) -> Result<String, serde_json::Error> {
    let head = Head::read(text)?;
    let id = format!("\"{id}\"");
    let version = format!("\"{version}\"");
    let last_updated = format!("\"{last_updated}\"");
    let open = text.find('{').unwrap_or_default() + 1;

    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    match head.id {
        Some(old) => edits.push((place(text, old), id)),
        None => edits.push((open..open, format!("\"id\":{id},"))),
    }
    match head.meta {
        None => {
            edits.push((open..open, format!("\"meta\":{{\"versionId\":{version},\"lastUpdated\":{last_updated}}},")))
        }
        Some(meta) => {
            let members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(meta.get())?;
            let inside = place(text, meta).start + 1;
            let mut added = String::new();
            for (name, value) in [("versionId", version), ("lastUpdated", last_updated)] {
                match members.get(name) {
                    Some(old) => edits.push((place(text, old), value)),
                    None => added.push_str(&format!("\"{name}\":{value},")),
                }
            }
            if members.is_empty() {
                added.pop();
            }
            edits.push((inside..inside, added));
        }
    }
    Ok(splice(text, edits))
}

/// Where a raw value stands in the text that it was read from.
fn place(text: &str, value: &RawValue) -> Range<usize> {
    let start = value.get().as_ptr().addr() - text.as_ptr().addr();
    start..start + value.get().len()
}

fn splice(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| (range.start, range.end));
    let mut output = String::with_capacity(text.len() + edits.iter().map(|(_, new)| new.len()).sum::<usize>());
    let mut done = 0;
    for (range, new) in edits {
        output.push_str(&text[done..range.start]);
        output.push_str(&new);
        done = range.end;
    }
    output.push_str(&text[done..]);
    output
}

/// Replaces links to entries of a transaction. `resolve` gets `Reference.reference` strings, other whole `urn:` strings
/// (not `value`: an Identifier is a name, not a link), and the targets of `href` and `src` in narrative.
pub fn relink(text: &str, resolve: impl Fn(&str) -> Option<String>) -> String {
    let mut edits = Vec::new();
    let mut name = "";
    for (literal, is_name) in strings(text) {
        let inner = &text[literal.start + 1..literal.end - 1];
        if is_name {
            name = inner;
        } else if name == "div" {
            for attribute in ["href=\\\"", "src=\\\""] {
                for (at, _) in inner.match_indices(attribute) {
                    let start = at + attribute.len();
                    let end = inner[start..].find("\\\"").map_or(inner.len(), |length| start + length);
                    if let Some(new) = resolve(&inner[start..end]) {
                        edits.push((literal.start + 1 + start..literal.start + 1 + end, new));
                    }
                }
            }
        } else if (name == "reference" || inner.starts_with("urn:")) && name != "value" {
            let decoded: Option<Cow<'_, str>> = if inner.contains('\\') {
                serde_json::from_str(&text[literal.clone()]).ok()
            } else {
                Some(Cow::Borrowed(inner))
            };
            if let Some(new) = decoded.and_then(|link| resolve(&link)) {
                edits.push((literal.start + 1..literal.end - 1, new));
            }
        }
    }
    if edits.is_empty() { text.to_owned() } else { splice(text, edits) }
}

/// Every string literal with its quotes, and whether it is a member's name.
fn strings(text: &str) -> impl Iterator<Item = (Range<usize>, bool)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + memchr::memchr(b'"', &bytes[at..])?;
        let mut end = start + 1;
        loop {
            end += memchr::memchr2(b'"', b'\\', &bytes[end..])?;
            if bytes[end] == b'"' {
                break;
            }
            end += 2;
        }
        at = end + 1;
        let next = bytes[at..].iter().find(|byte| !byte.is_ascii_whitespace());
        Some((start..at, next == Some(&b':')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_touches_nothing_else() {
        let check = |input: &str, expected: &str| assert_eq!(stamp(input, "7", 2, "T").unwrap(), expected);
        check(
            r#" { "resourceType" : "X", "value": 1.50 }"#,
            r#" {"id":"7","meta":{"versionId":"2","lastUpdated":"T"}, "resourceType" : "X", "value": 1.50 }"#,
        );
        check(
            r#"{"resourceType":"X","id":"old","meta":{},"v":1e2}"#,
            r#"{"resourceType":"X","id":"7","meta":{"versionId":"2","lastUpdated":"T"},"v":1e2}"#,
        );
        check(
            r#"{"meta":{"profile":["p"],"versionId":"1"},"id":"7","resourceType":"X"}"#,
            r#"{"meta":{"lastUpdated":"T","profile":["p"],"versionId":"2"},"id":"7","resourceType":"X"}"#,
        );
    }

    #[test]
    fn links_are_resolved_and_names_are_not() {
        let resolve = |link: &str| (link == "urn:uuid:1").then(|| "Patient/9".to_owned());
        let check = |input: &str, expected: &str| assert_eq!(relink(input, resolve), expected);
        check(
            r#"{"a":[{"reference" : "urn:uuid:1"},{"uri":"urn:uuid:2"}]}"#,
            r#"{"a":[{"reference" : "Patient/9"},{"uri":"urn:uuid:2"}]}"#,
        );
        check(r#"{"reference":"urn:uuid:1"}"#, r#"{"reference":"Patient/9"}"#);
        check(r#"{"value":"urn:uuid:1","text":"see urn:uuid:1"}"#, r#"{"value":"urn:uuid:1","text":"see urn:uuid:1"}"#);
        check(r#"{"div":"<a href=\"urn:uuid:1\">\\\" x</a>"}"#, r#"{"div":"<a href=\"Patient/9\">\\\" x</a>"}"#);
    }
}
