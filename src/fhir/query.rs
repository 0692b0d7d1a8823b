//! The syntax of searches: `a=b&c=d` in URLs and forms, what stands inside a value (`,` `$` `|` and their escapes), what
//! stands inside a name (modifiers, chains, `_has`).
//!
//! There are two layers of encoding: percent and `+` around a whole name or value, FHIR's backslash inside a value.
//! [`pairs`] takes off the first; the second comes off by [`unescape`] only after a value was split. Writing puts them on
//! again in one fixed spelling. What parameters mean is in [`search`](super::search); what happens to values, elsewhere.
//! Errors carry nothing of the text.
//!
//! WHATWG URL §5 (urlencoded); R4: search.html#escaping, #modifiers, #chaining, #has, #token, #reference.

use super::reference::{Reference, ReferenceError, is_id};
use super::schema::{Release, Schema};
use crate::limits::{NAME_BYTES_MAX, SEARCH_VALUES_MAX};
use std::borrow::Cow;
use std::fmt;

/// Why a query is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Longer than the caller allows.
    #[error("a query longer than its limit")]
    TooLong,
    /// More than [`SEARCH_VALUES_MAX`] parameters, or values of one parameter.
    #[error("more than 1024 parameters, or values in one parameter")]
    TooMany,
    /// `%` without two hexadecimal digits after it.
    #[error("a percent sign without two hexadecimal digits")]
    Percent,
    /// The decoded bytes are not UTF-8.
    #[error("percent-encoded text that is not UTF-8")]
    Utf8,
    /// A control character, encoded or not.
    #[error("a control character in a query")]
    Control,
    /// A parameter without a name, a name of no known grammar, or one with an unknown modifier or resource type.
    #[error("a search parameter name that FHIR does not define")]
    Name,
    /// A backslash before anything but `,` `$` `|` `\`.
    #[error("a backslash that escapes nothing; FHIR escapes only , $ | and \\")]
    Escape,
    /// A token with more parts than its modifier has, or an `:of-type` value without its three.
    #[error("a token with the wrong number of | in it")]
    Token,
    /// A value of a reference parameter that is neither an id nor a reference.
    #[error("a reference value that is no id, relative reference or URL")]
    Reference,
}

impl From<ReferenceError> for QueryError {
    fn from(_: ReferenceError) -> QueryError {
        QueryError::Reference
    }
}

/// One parameter, percent-decoded: `identifier=http%3A...%7C4711`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair<'a> {
    /// What stands before the first `=`. Never empty.
    pub name: Cow<'a, str>,
    /// What stands after it, FHIR escapes still on; empty without `=`.
    pub value: Cow<'a, str>,
}

/// Takes a query (without `?`) or a body of `application/x-www-form-urlencoded` apart. Order and repetitions are kept:
/// repeated parameters mean AND. Empty pieces (`a=1&&b=2`) say nothing and are left out.
pub fn pairs(text: &[u8], bytes_max: usize) -> Result<Vec<Pair<'_>>, QueryError> {
    if text.len() > bytes_max {
        return Err(QueryError::TooLong);
    }
    let mut pairs = Vec::new();
    for piece in text.split(|b| *b == b'&').filter(|piece| !piece.is_empty()) {
        if pairs.len() == SEARCH_VALUES_MAX {
            return Err(QueryError::TooMany);
        }
        let (name, value) = match piece.iter().position(|b| *b == b'=') {
            Some(at) => (&piece[..at], &piece[at + 1..]),
            None => (piece, &[][..]),
        };
        let name = decode(name)?;
        // Some readers take `;` for `&`: in a name it could hide a parameter from us.
        if name.is_empty() || name.contains(';') {
            return Err(QueryError::Name);
        }
        pairs.push(Pair { name, value: decode(value)? });
    }
    Ok(pairs)
}

/// Writes one more parameter of a query or form, with `&` before it if it is not the first.
pub fn write_pair(output: &mut String, name: &str, value: &str) {
    if !output.is_empty() {
        output.push('&');
    }
    encode(output, name);
    output.push('=');
    encode(output, value);
}

fn decode(text: &[u8]) -> Result<Cow<'_, str>, QueryError> {
    let decoded = if text.iter().any(|b| matches!(b, b'%' | b'+')) {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.iter();
        while let Some(b) = rest.next() {
            bytes.push(match b {
                b'+' => b' ',
                b'%' => match (rest.next().and_then(hex), rest.next().and_then(hex)) {
                    (Some(high), Some(low)) => high << 4 | low,
                    _ => return Err(QueryError::Percent),
                },
                _ => *b,
            });
        }
        Cow::Owned(String::from_utf8(bytes).map_err(|_| QueryError::Utf8)?)
    } else {
        Cow::Borrowed(std::str::from_utf8(text).map_err(|_| QueryError::Utf8)?)
    };
    if decoded.chars().any(char::is_control) { Err(QueryError::Control) } else { Ok(decoded) }
}

fn hex(digit: &u8) -> Option<u8> {
    char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Percent-encodes all but the characters that mean themselves in queries and forms alike (RFC 3986 §3.4 less `+ & = ;`).
fn encode(output: &mut String, text: &str) {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b',' | b'$' | b'*') {
            output.push(char::from(b));
        } else {
            output.push('%');
            output.push(char::from(HEX[usize::from(b >> 4)]));
            output.push(char::from(HEX[usize::from(b & 15)]));
        }
    }
}

/// Splits a value at each `separator` that is not escaped; the parts keep their escapes. First `,` (means OR), then `$`
/// (parts of a composite), then `|` (parts of a token or quantity).
pub fn split(value: &str, separator: char) -> Result<Vec<&str>, QueryError> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, c) in value.char_indices() {
        if escaped {
            if !matches!(c, ',' | '$' | '|' | '\\') {
                return Err(QueryError::Escape);
            }
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == separator {
            parts.push(&value[start..at]);
            if parts.len() == SEARCH_VALUES_MAX {
                return Err(QueryError::TooMany);
            }
            start = at + c.len_utf8();
        }
    }
    if escaped {
        return Err(QueryError::Escape);
    }
    parts.push(&value[start..]);
    Ok(parts)
}

/// Takes the escapes off one part: what was meant. A separator that is still bare stands for itself.
pub fn unescape(part: &str) -> Result<Cow<'_, str>, QueryError> {
    if !part.contains('\\') {
        return Ok(Cow::Borrowed(part));
    }
    let mut meant = String::with_capacity(part.len());
    let mut rest = part.chars();
    while let Some(c) = rest.next() {
        meant.push(match c {
            '\\' => match rest.next() {
                Some(c @ (',' | '$' | '|' | '\\')) => c,
                _ => return Err(QueryError::Escape),
            },
            _ => c,
        });
    }
    Ok(Cow::Owned(meant))
}

/// Puts the escapes on: the result, split and unescaped, is the text again.
pub fn escape(text: &str) -> Cow<'_, str> {
    let special = |c: char| matches!(c, ',' | '$' | '|' | '\\');
    if !text.contains(special) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 4);
    for c in text.chars() {
        if special(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    Cow::Owned(escaped)
}

/// One value of a token parameter (search.html#token), without escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token<'a> {
    /// `None`: no `|`, any system. Empty: `|code`, no system. Else `system|`.
    pub system: Option<Cow<'a, str>>,
    /// What stands after `|`, or the whole. Empty: `system|`, any code of the system.
    pub code: Cow<'a, str>,
}

impl<'a> Token<'a> {
    /// Reads one of the values that [`split`] at `,` (or `$`) gave.
    pub fn parse(value: &'a str) -> Result<Token<'a>, QueryError> {
        match split(value, '|')?[..] {
            [code] => Ok(Token { system: None, code: unescape(code)? }),
            [system, code] => Ok(Token { system: Some(unescape(system)?), code: unescape(code)? }),
            _ => Err(QueryError::Token),
        }
    }
}

impl fmt::Display for Token<'_> {
    /// The value with its escapes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.system {
            Some(system) => write!(f, "{}|{}", escape(system), escape(&self.code)),
            None => f.write_str(&escape(&self.code)),
        }
    }
}

/// One value of `identifier:of-type`: `system|code|value`, the type of the identifier and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfType<'a> {
    /// System of `Identifier.type.coding`.
    pub system: Cow<'a, str>,
    /// Code of `Identifier.type.coding`.
    pub code: Cow<'a, str>,
    /// `Identifier.value`.
    pub value: Cow<'a, str>,
}

impl<'a> OfType<'a> {
    /// Reads one of the values that [`split`] at `,` gave. All three parts must be there (search.html#token).
    pub fn parse(value: &'a str) -> Result<OfType<'a>, QueryError> {
        match split(value, '|')?[..] {
            [system, code, value] if !system.is_empty() && !code.is_empty() && !value.is_empty() => {
                Ok(OfType { system: unescape(system)?, code: unescape(code)?, value: unescape(value)? })
            }
            _ => Err(QueryError::Token),
        }
    }
}

impl fmt::Display for OfType<'_> {
    /// The value with its escapes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}|{}", escape(&self.system), escape(&self.code), escape(&self.value))
    }
}

/// One value of a reference parameter (search.html#reference), unescaped before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferenceValue<'a> {
    /// `patient=1`: an id whose type the parameter, its modifier or the server knows.
    Id(&'a str),
    /// `subject=Patient/1`, a URL or URN.
    Reference(Reference<'a>),
}

impl<'a> ReferenceValue<'a> {
    /// Reads an unescaped value. Fragments and conditions are no search values.
    pub fn parse(release: Release, value: &'a str) -> Result<ReferenceValue<'a>, QueryError> {
        if is_id(value) {
            return Ok(ReferenceValue::Id(value));
        }
        match Reference::parse(release, value)? {
            Reference::Fragment(_) | Reference::Conditional { .. } => Err(QueryError::Reference),
            reference => Ok(ReferenceValue::Reference(reference)),
        }
    }
}

/// What a colon after a parameter's code asks for (search.html#modifiers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the words of the specification
pub enum Modifier<'a> {
    Missing,
    Exact,
    Contains,
    Text,
    Not,
    In,
    NotIn,
    Above,
    Below,
    Identifier,
    OfType,
    /// `_include:iterate`
    Iterate,
    /// `subject:Patient`: the type of the reference.
    Type(&'a str),
}

impl<'a> Modifier<'a> {
    fn parse(release: Release, text: &'a str) -> Result<Modifier<'a>, QueryError> {
        Ok(match text {
            "missing" => Modifier::Missing,
            "exact" => Modifier::Exact,
            "contains" => Modifier::Contains,
            "text" => Modifier::Text,
            "not" => Modifier::Not,
            "in" => Modifier::In,
            "not-in" => Modifier::NotIn,
            "above" => Modifier::Above,
            "below" => Modifier::Below,
            "identifier" => Modifier::Identifier,
            "of-type" => Modifier::OfType,
            "iterate" => Modifier::Iterate,
            _ => Modifier::Type(resource_type(release, text)?),
        })
    }
}

impl fmt::Display for Modifier<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Modifier::Missing => "missing",
            Modifier::Exact => "exact",
            Modifier::Contains => "contains",
            Modifier::Text => "text",
            Modifier::Not => "not",
            Modifier::In => "in",
            Modifier::NotIn => "not-in",
            Modifier::Above => "above",
            Modifier::Below => "below",
            Modifier::Identifier => "identifier",
            Modifier::OfType => "of-type",
            Modifier::Iterate => "iterate",
            Modifier::Type(name) => name,
        })
    }
}

/// The name of a parameter, decoded: which resource it looks at, step by step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name<'a> {
    /// `birthdate`, `name:exact`, `subject:Patient`
    Plain {
        /// The code of the parameter.
        code: &'a str,
        /// What follows the colon.
        modifier: Option<Modifier<'a>>,
    },
    /// `subject:Patient.identifier`: a parameter of what a reference points at.
    Chain {
        /// The code of a reference parameter.
        code: &'a str,
        /// The type after the colon.
        resource_type: Option<&'a str>,
        /// The parameter there.
        rest: Box<Name<'a>>,
    },
    /// `_has:Observation:patient:code`: a parameter of what points here.
    Has {
        /// The type that points here.
        resource_type: &'a str,
        /// The code of its reference parameter.
        reference: &'a str,
        /// The parameter there.
        rest: Box<Name<'a>>,
    },
}

impl<'a> Name<'a> {
    /// Reads a decoded name. Resource types must be of the release; whether codes are known is another question. Names
    /// longer than [`NAME_BYTES_MAX`] are refused, which bounds the steps.
    pub fn parse(release: Release, name: &'a str) -> Result<Name<'a>, QueryError> {
        if name.len() > NAME_BYTES_MAX {
            return Err(QueryError::TooLong);
        }
        if let Some(rest) = name.strip_prefix("_has:") {
            let (type_name, rest) = rest.split_once(':').ok_or(QueryError::Name)?;
            let (reference, rest) = rest.split_once(':').ok_or(QueryError::Name)?;
            return Ok(Name::Has {
                resource_type: resource_type(release, type_name)?,
                reference: code(reference)?,
                rest: Box::new(Name::parse(release, rest)?),
            });
        }
        if let Some((step, rest)) = name.split_once('.') {
            let (step, type_name) = match step.split_once(':') {
                Some((step, type_name)) => (step, Some(resource_type(release, type_name)?)),
                None => (step, None),
            };
            let rest = Box::new(Name::parse(release, rest)?);
            return Ok(Name::Chain { code: code(step)?, resource_type: type_name, rest });
        }
        let (name, modifier) = match name.split_once(':') {
            Some((name, modifier)) => (name, Some(Modifier::parse(release, modifier)?)),
            None => (name, None),
        };
        Ok(Name::Plain { code: code(name)?, modifier })
    }
}

impl fmt::Display for Name<'_> {
    /// The name that parses to this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Plain { code, modifier: None } => f.write_str(code),
            Name::Plain { code, modifier: Some(modifier) } => write!(f, "{code}:{modifier}"),
            Name::Chain { code, resource_type: None, rest } => write!(f, "{code}.{rest}"),
            Name::Chain { code, resource_type: Some(name), rest } => write!(f, "{code}:{name}.{rest}"),
            Name::Has { resource_type, reference, rest } => write!(f, "_has:{resource_type}:{reference}:{rest}"),
        }
    }
}

fn resource_type(release: Release, name: &str) -> Result<&str, QueryError> {
    Schema::of(release).resource(name).map(|_| name).ok_or(QueryError::Name)
}

/// A parameter code: a letter or `_`, then letters, digits, `-`, `_`.
fn code(text: &str) -> Result<&str, QueryError> {
    let good = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        && text != "_has";
    if good { Ok(text) } else { Err(QueryError::Name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use QueryError as E;
    use proptest::prelude::*;

    #[test]
    fn queries_are_taken_apart() {
        for (text, expected) in [
            (&b""[..], Ok("")),
            (b"a=1", Ok("[a][1]")),
            (b"a=1&b=2&a=3", Ok("[a][1][b][2][a][3]")),
            (b"a", Ok("[a][]")),
            (b"a=", Ok("[a][]")),
            (b"a=b=c", Ok("[a][b=c]")),
            (b"&&a=1&", Ok("[a][1]")),
            (b"name%3Aexact=O%27Neil+Jr", Ok("[name:exact][O'Neil Jr]")),
            (b"n=M%C3%BCller", Ok("[n][Müller]")),
            (b"n=%2B%26%3D%25", Ok("[n][+&=%]")),
            ("n=Müller".as_bytes(), Ok("[n][Müller]")),
            (b"f=application/fhir+json;v=4", Ok("[f][application/fhir json;v=4]")),
            (b"=1", Err(E::Name)),
            (b"a;b=1", Err(E::Name)),
            (b"a%3Bb=1", Err(E::Name)),
            (b"a=%", Err(E::Percent)),
            (b"a=%4", Err(E::Percent)),
            (b"a=%4g", Err(E::Percent)),
            (b"a=%+1", Err(E::Percent)),
            (b"a=%FF", Err(E::Utf8)),
            (b"a=\xff", Err(E::Utf8)),
            (b"a=%C0%AF", Err(E::Utf8)),
            (b"a=%ED%A0%80", Err(E::Utf8)),
            (b"a=%00", Err(E::Control)),
            (b"a=%0A", Err(E::Control)),
            (b"a\n=1", Err(E::Control)),
            (b"a=%C2%85", Err(E::Control)),
        ] {
            let found = pairs(text, 64)
                .map(|pairs| pairs.iter().map(|pair| format!("[{}][{}]", pair.name, pair.value)).collect::<String>());
            assert_eq!(found, expected.map(str::to_owned), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn queries_are_bounded() {
        assert!(pairs(&[b'a'; 64], 64).is_ok());
        assert_eq!(pairs(&[b'a'; 65], 64), Err(E::TooLong));
        let many = |count: usize| "a&".repeat(count).into_bytes();
        assert!(pairs(&many(SEARCH_VALUES_MAX), usize::MAX).is_ok());
        assert_eq!(pairs(&many(SEARCH_VALUES_MAX + 1), usize::MAX), Err(E::TooMany));
        assert!(split(&",".repeat(SEARCH_VALUES_MAX - 1), ',').is_ok());
        assert_eq!(split(&",".repeat(SEARCH_VALUES_MAX), ','), Err(E::TooMany));
        assert_eq!(Name::parse(Release::R4, &"a".repeat(NAME_BYTES_MAX + 1)), Err(E::TooLong));
        let deep = "a.".repeat(NAME_BYTES_MAX / 2 - 1) + "a";
        assert!(Name::parse(Release::R4, &deep).is_ok());
    }

    #[test]
    fn values_are_split_where_they_are_not_escaped() {
        for (value, separator, expected) in [
            ("", ',', Ok(vec![""])),
            ("a,b", ',', Ok(vec!["a", "b"])),
            (r"a\,b,c", ',', Ok(vec![r"a\,b", "c"])),
            (r"a\\,b", ',', Ok(vec![r"a\\", "b"])),
            (r"s|a\|b", '|', Ok(vec!["s", r"a\|b"])),
            ("a$b,c", '$', Ok(vec!["a", "b,c"])),
            (",", ',', Ok(vec!["", ""])),
            (r"a\", ',', Err(E::Escape)),
            (r"a\n", ',', Err(E::Escape)),
            ("é,ü", ',', Ok(vec!["é", "ü"])),
        ] {
            assert_eq!(split(value, separator), expected, "{value}");
        }
        assert_eq!(unescape(r"a\,\$\|\\b"), Ok(Cow::Borrowed(r"a,$|\b")));
        assert_eq!(unescape(r"\"), Err(E::Escape));
        assert_eq!(unescape(r"\a"), Err(E::Escape));
    }

    #[test]
    fn tokens() {
        for (value, system, code) in [
            ("4711", None, "4711"),
            ("http://a|4711", Some("http://a"), "4711"),
            ("|4711", Some(""), "4711"),
            ("http://a|", Some("http://a"), ""),
            (r"http://a|47\|11\,\\", Some("http://a"), r"47|11,\"),
            ("", None, ""),
        ] {
            let token = Token::parse(value).unwrap();
            assert_eq!((token.system.as_deref(), &*token.code), (system, code), "{value}");
            assert_eq!(token.to_string(), value);
        }
        assert_eq!(Token::parse("a|b|c"), Err(E::Token));
        let of_type = OfType::parse(r"http://t|MR|47\$11").unwrap();
        assert_eq!((&*of_type.system, &*of_type.code, &*of_type.value), ("http://t", "MR", "47$11"));
        assert_eq!(of_type.to_string(), r"http://t|MR|47\$11");
        for value in ["a|b", "a|b|c|d", "|b|c", "a||c", "a|b|", "x"] {
            assert_eq!(OfType::parse(value), Err(E::Token), "{value}");
        }
    }

    #[test]
    fn reference_values() {
        let parse = |value| ReferenceValue::parse(Release::R4, value);
        assert_eq!(parse("1"), Ok(ReferenceValue::Id("1")));
        assert_eq!(parse("Patient"), Ok(ReferenceValue::Id("Patient")));
        assert!(matches!(parse("Patient/1"), Ok(ReferenceValue::Reference(Reference::Relative { id: "1", .. }))));
        assert!(matches!(parse("http://h/Patient/1"), Ok(ReferenceValue::Reference(Reference::Absolute { .. }))));
        for value in ["", "#", "#a", "Patient?a=b", "Patient/1/2", "John Smith", ".."] {
            assert_eq!(parse(value), Err(E::Reference), "{value}");
        }
    }

    #[test]
    fn names() {
        let parse = |name| Name::parse(Release::R4, name);
        let plain = |code, modifier| Name::Plain { code, modifier };
        for (name, expected) in [
            ("birthdate", plain("birthdate", None)),
            ("_id", plain("_id", None)),
            ("name:exact", plain("name", Some(Modifier::Exact))),
            ("identifier:of-type", plain("identifier", Some(Modifier::OfType))),
            ("subject:Patient", plain("subject", Some(Modifier::Type("Patient")))),
            ("subject:identifier", plain("subject", Some(Modifier::Identifier))),
            (
                "subject:Patient.identifier",
                Name::Chain { code: "subject", resource_type: Some("Patient"), rest: plain("identifier", None).into() },
            ),
            (
                "patient.name:contains",
                Name::Chain {
                    code: "patient",
                    resource_type: None,
                    rest: plain("name", Some(Modifier::Contains)).into(),
                },
            ),
            (
                "_has:Observation:patient:code",
                Name::Has { resource_type: "Observation", reference: "patient", rest: plain("code", None).into() },
            ),
        ] {
            let found = parse(name);
            assert_eq!(found.as_ref(), Ok(&expected), "{name}");
            assert_eq!(expected.to_string(), name);
        }
        for name in [
            "_has:Observation:patient:_has:AuditEvent:entity:agent:Practitioner.name",
            "patient._has:Group:member:_id",
            "subject:Patient.general-practitioner.name:exact",
            "_include:iterate",
        ] {
            assert_eq!(parse(name).map(|name| name.to_string()).as_deref(), Ok(name));
        }
        for name in [
            "",
            "a:",
            ":exact",
            "a:b",
            "a:exact:exact",
            "a:Nobody",
            "a..b",
            "a.",
            ".a",
            "1a",
            "a b",
            "a:text.b",
            "_has",
            "_has:",
            "_has:Observation",
            "_has:Observation:patient",
            "_has:Observation:patient:",
            "_has:Nobody:patient:code",
            "_has:Observation:a.b:code",
            "é",
            "a:Patient.",
            "a;b",
            "a[0]",
        ] {
            assert_eq!(parse(name), Err(E::Name), "{name}");
        }
    }

    proptest! {
        /// What is written is read back.
        #[test]
        fn written_queries_are_read_back(all in proptest::collection::vec(("[^;\\p{Cc}]{1,9}", "\\P{Cc}{0,20}"), 0..5)) {
            let mut text = String::new();
            for (name, value) in &all {
                write_pair(&mut text, name, value);
            }
            prop_assert!(text.is_ascii());
            let read = pairs(text.as_bytes(), text.len()).unwrap();
            let read: Vec<_> = read.into_iter().map(|pair| (pair.name.into_owned(), pair.value.into_owned())).collect();
            prop_assert_eq!(read, all);
        }

        /// Escaped parts, joined, split into the same parts.
        #[test]
        fn escaped_values_are_read_back(parts in proptest::collection::vec("[a,$|\\\\é]{0,6}", 1..5), separator in "[,$|]") {
            let joined = parts.iter().map(|part| escape(part)).collect::<Vec<_>>().join(&separator);
            let read = split(&joined, separator.chars().next().unwrap()).unwrap();
            let read: Vec<_> = read.into_iter().map(|part| unescape(part).unwrap().into_owned()).collect();
            prop_assert_eq!(read, parts);
        }

        /// Whatever comes, nothing panics, and what is understood is written back the same.
        #[test]
        fn any_name(name in "(_has:|Patient|[a-c:._;-]){0,8}") {
            if let Ok(parsed) = Name::parse(Release::R4, &name) {
                prop_assert_eq!(parsed.to_string(), name);
            }
        }
    }
}
