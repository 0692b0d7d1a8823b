//! How one resource points at another, and how a request names what it is about: the grammar of `Reference.reference`,
//! `fullUrl`, `Location` ([`Reference`]), of request paths and `Bundle.entry.request.url` ([`RequestUrl`]).
//!
//! The text comes decoded from JSON, XML or HTTP and is only taken apart: no base is known here, nothing is resolved or
//! rewritten. What has two readings is refused, never guessed: `..`, empty segments, encoded slashes, path parameters
//! (`;`), control characters. What is written from the parts is what was read.
//!
//! R4: references.html, http.html, datatypes.html#id; RFC 3986 for URIs.

use super::schema::{Release, Schema};
use crate::limits::{ID_CHARS_MAX, URL_BYTES_MAX};
use std::borrow::Cow;
use std::fmt;

/// Why a text is not a reference or request URL. Carries nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing at all.
    #[error("an empty reference")]
    Empty,
    /// Longer than [`URL_BYTES_MAX`].
    #[error("a URL longer than 16 KiB")]
    TooLong,
    /// A control character, space, backslash, or another character that a URL does not have.
    #[error("a character that a URL must not have")]
    Character,
    /// `.`, `..`, an empty segment, `;`, or an encoded slash, dot or backslash.
    #[error("a path segment that readers understand differently: empty, dots, `;` or an encoded slash")]
    Segment,
    /// `%` without two hexadecimal digits after it.
    #[error("a percent sign without two hexadecimal digits")]
    Percent,
    /// The resource type is not one of the release.
    #[error("a resource type that this FHIR release does not define")]
    Type,
    /// Not 1 to 64 characters of `A-Z a-z 0-9 - .`.
    #[error("an id that is not 1 to 64 characters of A-Z a-z 0-9 - .")]
    Id,
    /// None of the known forms.
    #[error("none of the forms that FHIR defines for a reference or request URL")]
    Form,
    /// An absolute URL as the address of a request.
    #[error("an absolute URL where FHIR wants one relative to the server")]
    Absolute,
    /// The form is known, but not with this HTTP method.
    #[error("a request that FHIR does not define with this HTTP method")]
    Method,
    /// A conditional update, patch or delete without a condition would be about every resource of the type.
    #[error("a conditional request without a condition")]
    NoCondition,
}

/// A reference, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference<'a> {
    /// `Patient/1`, `Patient/1/_history/2`
    Relative {
        /// A resource type of the release.
        resource_type: &'a str,
        /// The logical id.
        id: &'a str,
        /// The version id.
        version: Option<&'a str>,
    },
    /// `https://ehr.example/fhir/Patient/1`: the RESTful form below some base.
    Absolute {
        /// Scheme, authority and path, without the slash before the type: `https://ehr.example/fhir`.
        base: &'a str,
        /// A resource type of the release.
        resource_type: &'a str,
        /// The logical id.
        id: &'a str,
        /// The version id.
        version: Option<&'a str>,
    },
    /// `urn:uuid:` and a UUID in lower case; this is the UUID, 36 characters.
    UrnUuid(&'a str),
    /// Another absolute URI, whole: `urn:oid:1.2.3`, an upper-case UUID, a URL of another shape, or with query or fragment.
    OtherUri(&'a str),
    /// `#p1`: a contained resource, without the `#`. Empty: the container.
    Fragment(&'a str),
    /// `Patient?identifier=system|value`: found by search in a transaction.
    Conditional {
        /// A resource type of the release.
        resource_type: &'a str,
        /// The query, encoded as it stood, not empty (see [`query`](super::query)).
        query: &'a str,
    },
}

impl<'a> Reference<'a> {
    /// Takes a decoded text apart. Text that is no reference at all is an error, not an [`OtherUri`](Reference::OtherUri).
    pub fn parse(release: Release, text: &'a str) -> Result<Reference<'a>, ReferenceError> {
        // The two that a body is full of first; what follows would take them for the same.
        if let Some(uuid) = text.strip_prefix("urn:uuid:").filter(|uuid| is_lower_uuid(uuid)) {
            return Ok(Reference::UrnUuid(uuid));
        }
        if let Some((resource_type, id)) = text.split_once('/')
            && is_id(id)
            && known_type(release, resource_type).is_ok()
        {
            return Ok(Reference::Relative { resource_type, id, version: None });
        }
        check_characters(text)?;
        if let Some(fragment) = text.strip_prefix('#') {
            return match fragment.is_empty() || is_id(fragment) {
                true => Ok(Reference::Fragment(fragment)),
                false => Err(ReferenceError::Id),
            };
        }
        if let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) {
            return absolute(release, text, rest);
        }
        if has_scheme(text) {
            return Ok(Reference::OtherUri(text));
        }
        if text.contains('#') {
            return Err(ReferenceError::Form);
        }
        if let Some((resource_type, query)) = text.split_once('?') {
            known_type(release, resource_type)?;
            return match query.is_empty() {
                true => Err(ReferenceError::NoCondition),
                false => Ok(Reference::Conditional { resource_type, query }),
            };
        }
        check_segments(text)?;
        let segments: Vec<&str> = text.split('/').collect();
        let (resource_type, id, version) = match segments[..] {
            [resource_type, id] => (resource_type, id, None),
            [resource_type, id, "_history", version] => (resource_type, id, Some(version)),
            _ => return Err(ReferenceError::Form),
        };
        known_type(release, resource_type)?;
        if !is_id(id) || !version.is_none_or(is_id) {
            return Err(ReferenceError::Id);
        }
        Ok(Reference::Relative { resource_type, id, version })
    }
}

impl fmt::Display for Reference<'_> {
    /// The text that parses to this reference.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version_of =
            |version: &Option<&str>| version.map(|version| format!("/_history/{version}")).unwrap_or_default();
        match self {
            Reference::Relative { resource_type, id, version } => {
                write!(f, "{resource_type}/{id}{}", version_of(version))
            }
            Reference::Absolute { base, resource_type, id, version } => {
                write!(f, "{base}/{resource_type}/{id}{}", version_of(version))
            }
            Reference::UrnUuid(uuid) => write!(f, "urn:uuid:{uuid}"),
            Reference::OtherUri(uri) => f.write_str(uri),
            Reference::Fragment(id) => write!(f, "#{id}"),
            Reference::Conditional { resource_type, query } => write!(f, "{resource_type}?{query}"),
        }
    }
}

/// A URL that begins with `http://` or `https://`; `rest` is what follows.
fn absolute<'a>(release: Release, text: &'a str, rest: &'a str) -> Result<Reference<'a>, ReferenceError> {
    let path_end = rest.find(['?', '#']).unwrap_or(rest.len());
    let path = &rest[..path_end];
    check_segments(path.strip_suffix('/').unwrap_or(path))?; // `http://host/` is a common spelling of no path
    let segments: Vec<&str> = path.split('/').collect();
    let (resource_type, id, version) = match segments[..] {
        [_, .., resource_type, id, "_history", version] => (resource_type, id, Some(version)),
        [_, .., resource_type, id] => (resource_type, id, None),
        _ => return Ok(Reference::OtherUri(text)),
    };
    let restful = path_end == rest.len()
        && known_type(release, resource_type).is_ok()
        && is_id(id)
        && version.is_none_or(is_id)
        && !segments[0].contains('@'); // user information may look like another host
    if !restful {
        return Ok(Reference::OtherUri(text));
    }
    let tail = 1 + resource_type.len() + 1 + id.len() + version.map_or(0, |version| "/_history/".len() + version.len());
    Ok(Reference::Absolute { base: &text[..text.len() - tail], resource_type, id, version })
}

/// What a request is about: path and query below the base of a FHIR server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestUrl<'a> {
    /// Whether it began with a slash, as on the wire; not in bundles.
    pub slash: bool,
    /// What the path says.
    pub shape: Shape<'a>,
    /// What stands after `?`, encoded as it stood; `None` without `?`.
    pub query: Option<&'a str>,
}

/// The path shapes of FHIR's RESTful interface (http.html, operations.html). Segments are percent-decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape<'a> {
    /// Nothing: batch, transaction, or a search over all types.
    Root,
    /// `metadata`
    Metadata,
    /// `_search`
    SystemSearch,
    /// `_history`
    SystemHistory,
    /// `$op`
    SystemOperation {
        /// The name with its `$`.
        operation: Cow<'a, str>,
    },
    /// `Type`: create, search, conditional update, patch and delete.
    Type {
        /// A resource type of the release.
        resource_type: Cow<'a, str>,
    },
    /// `Type/_search`
    TypeSearch {
        /// A resource type of the release.
        resource_type: Cow<'a, str>,
    },
    /// `Type/_history`
    TypeHistory {
        /// A resource type of the release.
        resource_type: Cow<'a, str>,
    },
    /// `Type/$op`
    TypeOperation {
        /// A resource type of the release.
        resource_type: Cow<'a, str>,
        /// The name with its `$`.
        operation: Cow<'a, str>,
    },
    /// `Type/id`
    Instance {
        /// A resource type of the release.
        resource_type: Cow<'a, str>,
        /// The logical id.
        id: Cow<'a, str>,
    },
    /// `Type/id/_history`
    InstanceHistory {
        /// A resource type of the release.
        resource_type: Cow<'a, str>,
        /// The logical id.
        id: Cow<'a, str>,
    },
    /// `Type/id/_history/version`
    Version {
        /// A resource type of the release.
        resource_type: Cow<'a, str>,
        /// The logical id.
        id: Cow<'a, str>,
        /// The version id.
        version: Cow<'a, str>,
    },
    /// `Type/id/$op`
    InstanceOperation {
        /// A resource type of the release.
        resource_type: Cow<'a, str>,
        /// The logical id.
        id: Cow<'a, str>,
        /// The name with its `$`.
        operation: Cow<'a, str>,
    },
    /// `Patient/id/Type`, `Patient/id/*`, `Patient/id/Type/_search`
    Compartment {
        /// The type that defines the compartment.
        resource_type: Cow<'a, str>,
        /// Its logical id.
        id: Cow<'a, str>,
        /// The type looked for, `None` for `*`.
        member: Option<Cow<'a, str>>,
        /// Whether `/_search` follows (the query is in the body).
        search: bool,
    },
}

/// Types that define a compartment (compartmentdefinition.html).
const COMPARTMENTS: [&str; 5] = ["Device", "Encounter", "Patient", "Practitioner", "RelatedPerson"];

impl<'a> RequestUrl<'a> {
    /// Takes a request apart: `target` is path and query below the base, with or without a leading slash; absolute URLs
    /// are refused. Path segments are percent-decoded once; the query is left as it is.
    pub fn parse(release: Release, method: &str, target: &'a str) -> Result<RequestUrl<'a>, ReferenceError> {
        match check_characters(target) {
            Ok(()) | Err(ReferenceError::Empty) => {}
            Err(error) => return Err(error),
        }
        if target.contains('#') {
            return Err(ReferenceError::Form);
        }
        if target.starts_with("http://") || target.starts_with("https://") {
            return Err(ReferenceError::Absolute);
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let (slash, path) = match path.strip_prefix('/') {
            Some(path) => (true, path),
            None => (false, path),
        };
        let shape = Shape::parse(release, path)?;
        if !shape.allows(method) {
            return Err(ReferenceError::Method);
        }
        let about_all = matches!(shape, Shape::Type { .. }) && matches!(method, "PUT" | "PATCH" | "DELETE");
        if about_all && query.is_none_or(str::is_empty) {
            return Err(ReferenceError::NoCondition);
        }
        Ok(RequestUrl { slash, shape, query })
    }
}

impl fmt::Display for RequestUrl<'_> {
    /// Path and query again, segments decoded where they were encoded without need.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.slash {
            f.write_str("/")?;
        }
        self.shape.fmt(f)?;
        match self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

impl<'a> Shape<'a> {
    fn parse(release: Release, path: &'a str) -> Result<Shape<'a>, ReferenceError> {
        if path.is_empty() {
            return Ok(Shape::Root);
        }
        check_segments(path)?;
        let segments = path.split('/').map(decode_segment).collect::<Result<Vec<_>, _>>()?;
        let resource_type = segments[0].clone();
        match segments.iter().map(Cow::as_ref).collect::<Vec<&str>>()[..] {
            ["metadata"] => return Ok(Shape::Metadata),
            ["_search"] => return Ok(Shape::SystemSearch),
            ["_history"] => return Ok(Shape::SystemHistory),
            [operation] if is_operation(operation) => return Ok(Shape::SystemOperation { operation: resource_type }),
            [first, ..] => known_type(release, first)?,
            [] => return Err(ReferenceError::Form),
        }
        let rest: Vec<&str> = segments[1..].iter().map(Cow::as_ref).collect();
        Ok(match rest[..] {
            [] => Shape::Type { resource_type },
            ["_search"] => Shape::TypeSearch { resource_type },
            ["_history"] => Shape::TypeHistory { resource_type },
            [operation] if is_operation(operation) => {
                Shape::TypeOperation { resource_type, operation: segments[1].clone() }
            }
            [id, ..] if !is_id(id) => return Err(ReferenceError::Id),
            [_] => Shape::Instance { resource_type, id: segments[1].clone() },
            [_, "_history"] => Shape::InstanceHistory { resource_type, id: segments[1].clone() },
            [_, "_history", version] if is_id(version) => {
                Shape::Version { resource_type, id: segments[1].clone(), version: segments[3].clone() }
            }
            [_, "_history", _] => return Err(ReferenceError::Id),
            [_, operation] if is_operation(operation) => {
                Shape::InstanceOperation { resource_type, id: segments[1].clone(), operation: segments[2].clone() }
            }
            [_, member] | [_, member, "_search"] if COMPARTMENTS.contains(&&*resource_type) => {
                let member = match member {
                    "*" => None,
                    _ => known_type(release, member).map(|()| Some(segments[2].clone()))?,
                };
                Shape::Compartment { resource_type, id: segments[1].clone(), member, search: segments.len() == 4 }
            }
            _ => return Err(ReferenceError::Form),
        })
    }

    /// Whether FHIR defines the method on this shape (http.html#summary). `HEAD` may stand wherever `GET` may.
    fn allows(&self, method: &str) -> bool {
        let methods: &[&str] = match self {
            Shape::Root => &["GET", "POST"],
            Shape::Metadata | Shape::SystemHistory | Shape::TypeHistory { .. } => &["GET"],
            Shape::InstanceHistory { .. } | Shape::Version { .. } => &["GET"],
            Shape::SystemSearch | Shape::TypeSearch { .. } => &["POST"],
            Shape::SystemOperation { .. } | Shape::TypeOperation { .. } | Shape::InstanceOperation { .. } => {
                &["GET", "POST"]
            }
            Shape::Type { .. } => &["GET", "POST", "PUT", "PATCH", "DELETE"],
            Shape::Instance { .. } => &["GET", "PUT", "PATCH", "DELETE"],
            Shape::Compartment { search: false, .. } => &["GET"],
            Shape::Compartment { search: true, .. } => &["POST"],
        };
        methods.contains(&if method == "HEAD" { "GET" } else { method })
    }
}

impl fmt::Display for Shape<'_> {
    /// The path without a leading slash. Every segment is made of characters that need no encoding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Root => Ok(()),
            Shape::Metadata => f.write_str("metadata"),
            Shape::SystemSearch => f.write_str("_search"),
            Shape::SystemHistory => f.write_str("_history"),
            Shape::SystemOperation { operation } => f.write_str(operation),
            Shape::Type { resource_type } => f.write_str(resource_type),
            Shape::TypeSearch { resource_type } => write!(f, "{resource_type}/_search"),
            Shape::TypeHistory { resource_type } => write!(f, "{resource_type}/_history"),
            Shape::TypeOperation { resource_type, operation } => write!(f, "{resource_type}/{operation}"),
            Shape::Instance { resource_type, id } => write!(f, "{resource_type}/{id}"),
            Shape::InstanceHistory { resource_type, id } => write!(f, "{resource_type}/{id}/_history"),
            Shape::Version { resource_type, id, version } => write!(f, "{resource_type}/{id}/_history/{version}"),
            Shape::InstanceOperation { resource_type, id, operation } => write!(f, "{resource_type}/{id}/{operation}"),
            Shape::Compartment { resource_type, id, member, search } => {
                write!(f, "{resource_type}/{id}/{}", member.as_deref().unwrap_or("*"))?;
                f.write_str(if *search { "/_search" } else { "" })
            }
        }
    }
}

/// A FHIR id (datatypes.html#id) that is not a step in a path (`.`, `..`).
pub fn is_id(text: &str) -> bool {
    (1..=ID_CHARS_MAX).contains(&text.len()) && all(text, ID) && !matches!(text, "." | "..")
}

/// A UUID as FHIR writes it: 8-4-4-4-12 hexadecimal digits in lower case.
pub fn is_lower_uuid(text: &str) -> bool {
    let Ok(text) = <&[u8; 36]>::try_from(text.as_bytes()) else { return false };
    let digits = |from: usize, to: usize| text[from..to].iter().fold(HEX, |all, &b| all & CLASSES[usize::from(b)]) != 0;
    [8, 13, 18, 23].iter().all(|&at| text[at] == b'-')
        && digits(0, 8) & digits(9, 13) & digits(14, 18) & digits(19, 23) & digits(24, 36)
}

/// A digit of a UUID in lower case.
const HEX: u8 = 1;
/// A character of an id.
const ID: u8 = 2;
/// ASCII that stands in a URL.
const URL: u8 = 4;

/// What each byte may stand in.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut b = 0;
    while b < 128 {
        let c = b as u8;
        if matches!(c, b'0'..=b'9' | b'a'..=b'f') {
            classes[b] |= HEX;
        }
        if c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.') {
            classes[b] |= ID;
        }
        if c > b' ' && c < 0x7F && !matches!(c, b'\\' | b'"' | b'<' | b'>' | b'`') {
            classes[b] |= URL;
        }
        b += 1;
    }
    classes
};

fn all(text: &str, class: u8) -> bool {
    text.bytes().fold(class, |all, b| all & CLASSES[usize::from(b)]) != 0
}

fn is_operation(segment: &str) -> bool {
    segment.strip_prefix('$').is_some_and(|name| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.len() <= ID_CHARS_MAX
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    })
}

/// `scheme:` and something after it (RFC 3986 §3.1).
fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
            && !rest.is_empty()
    })
}

fn known_type(release: Release, name: &str) -> Result<(), ReferenceError> {
    Schema::of(release).resource(name).map(|_| ()).ok_or(ReferenceError::Type)
}

/// No control characters, no space in any script, no backslash and the like, and not too long.
fn check_characters(text: &str) -> Result<(), ReferenceError> {
    if text.is_empty() {
        return Err(ReferenceError::Empty);
    }
    if text.len() > URL_BYTES_MAX {
        return Err(ReferenceError::TooLong);
    }
    if all(text, URL) {
        return Ok(());
    }
    let strange = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '\\' | '"' | '<' | '>' | '`');
    if text.chars().any(strange) { Err(ReferenceError::Character) } else { Ok(()) }
}

/// No segment of the path that a server, proxy or library might step over, merge or cut.
fn check_segments(path: &str) -> Result<(), ReferenceError> {
    for segment in path.split('/') {
        let lower = segment.to_ascii_lowercase();
        let coded = ["%2f", "%5c", "%2e", "%3b", "%25"].iter().any(|code| lower.contains(code));
        if segment.is_empty() || matches!(segment, "." | "..") || segment.contains(';') || coded {
            return Err(ReferenceError::Segment);
        }
    }
    Ok(())
}

/// One percent-decoding. Every segment of a request is ASCII; what else it decodes to is of no known form.
fn decode_segment(segment: &str) -> Result<Cow<'_, str>, ReferenceError> {
    if !segment.contains('%') {
        return Ok(Cow::Borrowed(segment));
    }
    let mut decoded = String::with_capacity(segment.len());
    let mut rest = segment;
    while let Some((before, after)) = rest.split_once('%') {
        decoded.push_str(before);
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or(ReferenceError::Percent)?;
        if !byte.is_ascii_graphic() {
            return Err(ReferenceError::Character);
        }
        decoded.push(char::from(byte));
        rest = &after[2..];
    }
    decoded.push_str(rest);
    Ok(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ReferenceError as E;
    use proptest::prelude::*;

    const UUID: &str = "0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0";

    fn parse(text: &str) -> Result<Reference<'_>, E> {
        Reference::parse(Release::R4, text)
    }

    #[test]
    fn references() {
        let relative = |id, version| Ok(Reference::Relative { resource_type: "Patient", id, version });
        let absolute = |base, id, version| Ok(Reference::Absolute { base, resource_type: "Patient", id, version });
        let urn = format!("urn:uuid:{UUID}");
        let upper = urn.to_uppercase().replace("URN:UUID", "urn:uuid");
        let (id_64, id_65) = ("a".repeat(64), "a".repeat(65));
        let (longest, too_long) = (format!("Patient/{id_64}"), format!("Patient/{id_65}"));
        let far_too_long = format!("urn:x:{}", "y".repeat(URL_BYTES_MAX));
        for (text, expected) in [
            ("Patient/1", relative("1", None)),
            ("Patient/A-b.9", relative("A-b.9", None)),
            ("Patient/1/_history/2", relative("1", Some("2"))),
            (&longest, relative(&id_64, None)),
            (&too_long, Err(E::Id)),
            ("https://ehr.example/fhir/Patient/1", absolute("https://ehr.example/fhir", "1", None)),
            ("http://ehr.example:8080/Patient/1/_history/2", absolute("http://ehr.example:8080", "1", Some("2"))),
            ("http://h/a/Patient/Patient/1", absolute("http://h/a/Patient", "1", None)),
            (&urn, Ok(Reference::UrnUuid(UUID))),
            (&upper, Ok(Reference::OtherUri(&upper))),
            ("urn:uuid:1", Ok(Reference::OtherUri("urn:uuid:1"))),
            ("urn:oid:1.2.3", Ok(Reference::OtherUri("urn:oid:1.2.3"))),
            ("http://h/fhir", Ok(Reference::OtherUri("http://h/fhir"))),
            ("http://h/", Ok(Reference::OtherUri("http://h/"))),
            ("http://Patient/1", Ok(Reference::OtherUri("http://Patient/1"))),
            ("http://h/Unknown/1", Ok(Reference::OtherUri("http://h/Unknown/1"))),
            ("http://h/Patient/1?x=y", Ok(Reference::OtherUri("http://h/Patient/1?x=y"))),
            ("http://h/Patient/1#x", Ok(Reference::OtherUri("http://h/Patient/1#x"))),
            ("http://h/Patient/a_b", Ok(Reference::OtherUri("http://h/Patient/a_b"))),
            ("http://u@h/Patient/1", Ok(Reference::OtherUri("http://u@h/Patient/1"))),
            ("http://h/Patient/1/", Ok(Reference::OtherUri("http://h/Patient/1/"))),
            ("#", Ok(Reference::Fragment(""))),
            ("#p1", Ok(Reference::Fragment("p1"))),
            (
                "Patient?identifier=s|v",
                Ok(Reference::Conditional { resource_type: "Patient", query: "identifier=s|v" }),
            ),
            ("", Err(E::Empty)),
            (&far_too_long, Err(E::TooLong)),
            ("Patient", Err(E::Form)),
            ("Smith, John", Err(E::Character)),
            ("Smith", Err(E::Form)),
            ("Patient/1/2", Err(E::Form)),
            ("Patient/1/_history", Err(E::Form)),
            ("Patient/1/Observation/2", Err(E::Form)),
            ("patient/1", Err(E::Type)),
            ("Resource/1", Err(E::Type)),
            ("HumanName/1", Err(E::Type)),
            ("Patient/a_b", Err(E::Id)),
            ("Patient/a%20b", Err(E::Id)),
            ("Patient/é", Err(E::Id)),
            ("Patient/1/_history/a_b", Err(E::Id)),
            ("#a_b", Err(E::Id)),
            ("##", Err(E::Id)),
            ("Patient/1#x", Err(E::Form)),
            ("Patient?", Err(E::NoCondition)),
            ("Nobody?a=b", Err(E::Type)),
            ("?a=b", Err(E::Type)),
            ("Patient/.", Err(E::Segment)),
            ("Patient/..", Err(E::Segment)),
            ("../Patient/1", Err(E::Segment)),
            ("/Patient/1", Err(E::Segment)),
            ("Patient/1/", Err(E::Segment)),
            ("Patient//1", Err(E::Segment)),
            ("Patient/1;x", Err(E::Segment)),
            ("Patient/1%2F2", Err(E::Segment)),
            ("Patient/%2e%2E", Err(E::Segment)),
            ("http://h/fhir/../Patient/1", Err(E::Segment)),
            ("http://h//Patient/1", Err(E::Segment)),
            ("http:///Patient/1", Err(E::Segment)),
            ("http://h/a%2fb/Patient/1", Err(E::Segment)),
            ("http://h/Patient;x/1", Err(E::Segment)),
            ("http://", Err(E::Segment)),
            ("Patient/1\n", Err(E::Character)),
            ("Patient/1\u{0}", Err(E::Character)),
            ("Patient/1\u{2028}", Err(E::Character)),
            ("http://h\\@x/Patient/1", Err(E::Character)),
            (":x", Err(E::Form)),
            ("urn:", Err(E::Form)),
        ] {
            let found = parse(text);
            assert_eq!(found, expected, "{text}");
            if let Ok(reference) = found {
                assert_eq!(reference.to_string(), text);
            }
        }
    }

    fn request(method: &str, target: &str) -> Result<String, E> {
        let url = RequestUrl::parse(Release::R4, method, target)?;
        let shape = format!("{:?}", url.shape);
        Ok(format!("{} {url}", shape.split(' ').next().unwrap_or_default()))
    }

    #[test]
    fn request_urls() {
        for (method, target, expected) in [
            ("POST", "", Ok("Root ")),
            ("POST", "/", Ok("Root /")),
            ("GET", "?_type=Patient", Ok("Root ?_type=Patient")),
            ("GET", "/metadata", Ok("Metadata /metadata")),
            ("GET", "_history", Ok("SystemHistory _history")),
            ("POST", "/_search", Ok("SystemSearch /_search")),
            ("GET", "/$export", Ok("SystemOperation /$export")),
            ("GET", "$export-poll-status?_jobId=1", Ok("SystemOperation $export-poll-status?_jobId=1")),
            ("POST", "Patient", Ok("Type Patient")),
            ("GET", "Patient?", Ok("Type Patient?")),
            ("HEAD", "Patient?name=x", Ok("Type Patient?name=x")),
            ("PUT", "Patient?identifier=a|b", Ok("Type Patient?identifier=a|b")),
            ("PUT", "Patient", Err(E::NoCondition)),
            ("DELETE", "Patient?", Err(E::NoCondition)),
            ("PATCH", "Patient", Err(E::NoCondition)),
            ("POST", "Patient/_search", Ok("TypeSearch Patient/_search")),
            ("GET", "Patient/_search", Err(E::Method)),
            ("GET", "Patient/_history", Ok("TypeHistory Patient/_history")),
            ("POST", "Patient/$match", Ok("TypeOperation Patient/$match")),
            ("POST", "Patient/%24match", Ok("TypeOperation Patient/$match")),
            ("GET", "Patient/1", Ok("Instance Patient/1")),
            ("GET", "Patient/%31?_pretty=true", Ok("Instance Patient/1?_pretty=true")),
            ("GET", "P%61tient/1", Ok("Instance Patient/1")),
            ("POST", "Patient/1", Err(E::Method)),
            ("get", "Patient/1", Err(E::Method)),
            ("TRACE", "Patient/1", Err(E::Method)),
            ("GET", "Patient/1/_history", Ok("InstanceHistory Patient/1/_history")),
            ("GET", "Patient/1/_history/2", Ok("Version Patient/1/_history/2")),
            ("DELETE", "Patient/1/_history/2", Err(E::Method)),
            ("GET", "Patient/1/$everything", Ok("InstanceOperation Patient/1/$everything")),
            ("GET", "Patient/1/Observation?code=x", Ok("Compartment Patient/1/Observation?code=x")),
            ("GET", "Patient/1/*", Ok("Compartment Patient/1/*")),
            ("POST", "Patient/1/Observation/_search", Ok("Compartment Patient/1/Observation/_search")),
            ("GET", "Organization/1/Patient", Err(E::Form)),
            ("GET", "Patient/1/Nothing", Err(E::Type)),
            ("GET", "Patient/1/Observation/2", Err(E::Form)),
            ("GET", "Patient/1/_history/2/3", Err(E::Form)),
            ("GET", "Nothing", Err(E::Type)),
            ("GET", "Nothing/1", Err(E::Type)),
            ("GET", "https://h/Patient/1", Err(E::Absolute)),
            ("GET", "urn:uuid:1", Err(E::Type)),
            ("GET", "Patient/a_b", Err(E::Id)),
            ("GET", "Patient/1/_history/a_b", Err(E::Id)),
            ("GET", "Patient/_tag", Err(E::Id)),
            ("GET", "Patient/$", Err(E::Id)),
            ("GET", "Patient/1#x", Err(E::Form)),
            ("GET", "Patient/", Err(E::Segment)),
            ("GET", "//Patient/1", Err(E::Segment)),
            ("GET", "Patient/../Observation", Err(E::Segment)),
            ("GET", "Patient/%2e%2e", Err(E::Segment)),
            ("GET", "Patient/1%2F$everything", Err(E::Segment)),
            ("GET", "Patient/%252e", Err(E::Segment)),
            ("GET", "Patient/1;v=2", Err(E::Segment)),
            ("GET", "Patient/%", Err(E::Percent)),
            ("GET", "Patient/%4", Err(E::Percent)),
            ("GET", "Patient/%4é", Err(E::Percent)),
            ("GET", "Patient/%zz", Err(E::Percent)),
            ("GET", "Patient/%+1", Err(E::Percent)),
            ("GET", "Patient/%00", Err(E::Character)),
            ("GET", "Patient/%E9", Err(E::Character)),
            ("GET", "Patient/1 2", Err(E::Character)),
        ] {
            assert_eq!(request(method, target), expected.map(str::to_owned), "{method} {target}");
        }
    }

    #[test]
    fn ids() {
        for (text, expected) in [("1", true), ("A.b-C", true), ("...", true), ("", false), (".", false), ("..", false)]
        {
            assert_eq!(is_id(text), expected, "{text}");
        }
        assert!(is_id(&"a".repeat(64)) && !is_id(&"a".repeat(65)));
        assert!(is_lower_uuid(UUID) && !is_lower_uuid(&UUID.to_uppercase()) && !is_lower_uuid(&UUID[1..]));
    }

    fn id() -> impl Strategy<Value = String> {
        "[A-Za-z0-9.-]{1,64}".prop_filter("a step in a path", |id| is_id(id))
    }

    proptest! {
        /// What is written from parts parses to these parts.
        #[test]
        fn written_references_parse(id in id(), version in proptest::option::of(id()), base in "https?://[a-z]{1,9}(/[a-z0-9]{1,5}){0,2}") {
            let version = version.as_deref();
            for reference in [
                Reference::Relative { resource_type: "Observation", id: &id, version },
                Reference::Absolute { base: &base, resource_type: "Observation", id: &id, version },
                Reference::Fragment(&id),
            ] {
                let written = reference.to_string();
                prop_assert_eq!(parse(&written), Ok(reference));
            }
        }

        /// Whatever parses is written back as it was; nothing panics.
        #[test]
        fn whatever_parses_is_written_back(text in "(http://h/|Patient|#|urn:uuid:)?[Pa-z0-9/.?#%;:_\u{0}\u{e9}$-]{0,20}") {
            if let Ok(reference) = parse(&text) {
                prop_assert_eq!(reference.to_string(), &*text);
            }
            if let Ok(url) = RequestUrl::parse(Release::R4, "GET", &text) {
                let again = url.to_string();
                prop_assert_eq!(RequestUrl::parse(Release::R4, "GET", &again), Ok(url.clone()));
                prop_assert!(text.contains('%') || again == text);
            }
        }
    }
}
