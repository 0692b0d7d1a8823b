//! Whether a value that stays has the form of its type: a rule that keeps codes keeps codes, not sentences.
//!
//! The forms are FHIR's (datatypes.html, regular expressions of the primitives), a little narrower where FHIR's would let a name or an
//! address through. A value is judged by what it says, not by how it is spelled: escapes are decoded first. Nothing here
//! changes a value or knows a rule.

use crate::fhir::date::FhirDate;
use crate::rules::Automaton;
use crate::rules::cell::Check;

/// Whether the text between quotes (or a number's digits) has the form.
#[inline]
pub fn is_formed(automaton: &Automaton, check: Check, spelling: &[u8], escaped: bool) -> bool {
    if !escaped {
        return is_form(automaton, check, spelling);
    }
    let decoded = std::str::from_utf8(spelling).ok().and_then(super::text::decode);
    // None of these types needs a backslash.
    decoded.is_some_and(|text| {
        check == Check::Nothing || !text.contains('\\') && is_form(automaton, check, text.as_bytes())
    })
}

#[inline]
fn is_form(automaton: &Automaton, check: Check, text: &[u8]) -> bool {
    match check {
        Check::Nothing => true,
        Check::Code => text.len() <= 256 && is_code(text, false),
        Check::CodingCode => text.len() <= 256 && is_code(text, text.len() <= 64),
        Check::Id => text.len() <= crate::limits::ID_CHARS_MAX && !matches!(text, b"." | b"..") && all(text, ID),
        Check::Uri => is_uri(text),
        Check::CodingSystem => is_uri(text) && text.contains(&b':'),
        Check::Canonical => all(text, URI) && !names_instance(automaton, text),
        Check::Date(primitive) => std::str::from_utf8(text).is_ok_and(|text| FhirDate::parse(primitive, text).is_ok()),
        Check::Time => is_time(text),
        Check::Integer => is_digits(text.strip_prefix(b"-").unwrap_or(text)),
        Check::Unsigned => is_digits(text),
        Check::Word => text.len() <= 256 && all(text, WORD) && text.is_ascii(),
        Check::Samples => all(text, SAMPLE),
        Check::Status => is_status(text),
        Check::TypeName => {
            is_uri(text) && text.contains(&b':')
                || std::str::from_utf8(text).is_ok_and(|name| automaton.roots.contains_key(name))
        }
    }
}

/// Characters of a FHIR id.
const ID: u8 = 1;
/// Characters of a URI: visible ASCII but `" < > \ ^ { }` and the backtick.
const URI: u8 = 2;
/// Whatever is no space and no control character.
const WORD: u8 = 4;
const DIGIT: u8 = 8;
/// Characters of samples (datatypes.html#SampledData).
const SAMPLE: u8 = 16;

/// What each byte may stand in.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut b = 0;
    while b < 256 {
        let c = b as u8;
        if c > b' ' {
            classes[b] |= WORD;
        }
        if c > b' ' && c < 0x7F && !matches!(c, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'}') {
            classes[b] |= URI;
        }
        if c.is_ascii_alphanumeric() || c == b'-' || c == b'.' {
            classes[b] |= ID;
        }
        if c.is_ascii_digit() {
            classes[b] |= DIGIT;
        }
        if c.is_ascii_digit() || matches!(c, b' ' | b'.' | b'-' | b'+' | b'E' | b'e' | b'U' | b'L') {
            classes[b] |= SAMPLE;
        }
        b += 1;
    }
    classes
};

/// Whether there is text, all of it of this class.
#[inline]
fn all(text: &[u8], class: u8) -> bool {
    !text.is_empty() && text.iter().fold(class, |seen, &b| seen & CLASSES[usize::from(b)]) != 0
}

/// Terminologies have codes of several words; elsewhere a space stands only behind a semicolon: `text/plain; charset=utf-8`.
#[inline]
fn is_code(text: &[u8], words: bool) -> bool {
    let space = |i: usize| i > 0 && i + 1 < text.len() && text[i - 1] != b' ' && (words || text[i - 1] == b';');
    let spaced = || text.iter().enumerate().all(|(i, &b)| b > b' ' || b == b' ' && space(i));
    !text.is_empty() && (text.is_ascii() || is_plain(text)) && (all(text, WORD) || spaced())
}

/// Text without spaces that only look like none: U+00A0, U+2003 and their kin.
fn is_plain(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|t| !t.chars().any(|c| c != ' ' && (c.is_whitespace() || c.is_control())))
}

#[inline]
fn is_uri(text: &[u8]) -> bool {
    all(text, URI) && !text.starts_with(b"mailto:") && !text.starts_with(b"tel:")
}

#[inline]
fn is_digits(text: &[u8]) -> bool {
    text.len() <= 20 && all(text, DIGIT)
}

/// Three digits, and behind them nothing or the reason phrase that IANA has for them or for another: servers mix them up.
/// A method stands there in an example of the specification.
fn is_status(text: &[u8]) -> bool {
    if matches!(text, b"GET" | b"HEAD" | b"POST" | b"PUT" | b"PATCH" | b"DELETE") {
        return true;
    }
    let Some((code, phrase)) = text.split_at_checked(3) else { return false };
    let known = |phrase: &[u8]| REASONS.iter().any(|reason| reason.as_bytes().eq_ignore_ascii_case(phrase));
    all(code, DIGIT) && (phrase.is_empty() || phrase.strip_prefix(b" ").is_some_and(known))
}

/// Reason phrases of RFC 9110 section 15 and of the registry beside it.
const REASONS: [&str; 46] = [
    "",
    "OK",
    "Created",
    "Accepted",
    "Non-Authoritative Information",
    "No Content",
    "Reset Content",
    "Partial Content",
    "Multi-Status",
    "Multiple Choices",
    "Moved Permanently",
    "Found",
    "See Other",
    "Not Modified",
    "Temporary Redirect",
    "Permanent Redirect",
    "Bad Request",
    "Unauthorized",
    "Payment Required",
    "Forbidden",
    "Not Found",
    "Method Not Allowed",
    "Not Acceptable",
    "Proxy Authentication Required",
    "Request Timeout",
    "Conflict",
    "Gone",
    "Length Required",
    "Precondition Failed",
    "Content Too Large",
    "Payload Too Large",
    "URI Too Long",
    "Unsupported Media Type",
    "Expectation Failed",
    "Misdirected Request",
    "Unprocessable Content",
    "Unprocessable Entity",
    "Locked",
    "Failed Dependency",
    "Precondition Required",
    "Too Many Requests",
    "Request Header Fields Too Large",
    "Internal Server Error",
    "Not Implemented",
    "Bad Gateway",
    "Service Unavailable",
];

fn is_time(text: &[u8]) -> bool {
    let (clock, fraction) = match text.iter().position(|&b| b == b'.') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let shape = clock.len() == 8
        && clock.iter().enumerate().all(|(i, b)| if matches!(i, 2 | 5) { *b == b':' } else { b.is_ascii_digit() });
    shape && fraction.is_none_or(|f| f.len() <= 9 && all(f, DIGIT))
}

/// Whether a canonical ends in `Type/id` of a type whose instances are about someone: then it is no canonical.
fn names_instance(automaton: &Automaton, text: &[u8]) -> bool {
    let end = text.iter().position(|b| matches!(b, b'|' | b'#')).unwrap_or(text.len());
    let mut parts = text[..end].rsplit(|&b| b == b'/');
    let (_, kind) = (parts.next(), parts.next().unwrap_or_default());
    std::str::from_utf8(kind).is_ok_and(|kind| automaton.roots.contains_key(kind) && !crate::fhir::definitional(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(check: Check, text: &str, expected: bool) {
        assert_eq!(
            is_formed(&Automaton::default(), check, text.as_bytes(), text.contains('\\')),
            expected,
            "{check:?} {text}"
        );
    }

    #[test]
    fn forms() {
        check(Check::Code, "final", true);
        check(Check::Code, "text/plain; charset=utf-8", true);
        check(Check::Code, "John Doe", false);
        check(Check::Code, r"fin\u0061l", true);
        check(Check::Code, r"a\\b", false);
        check(Check::Code, "", false);
        check(Check::CodingCode, "two words", true);
        check(Check::CodingCode, "two  spaces", false);
        check(Check::CodingCode, " first", false);
        check(Check::CodingCode, "Ada\u{a0}Ng", false);
        check(Check::CodingCode, "Ångström", true);
        check(Check::CodingCode, &"word ".repeat(14), false);
        check(Check::Id, "a.b-C1", true);
        check(Check::Id, "..", false);
        check(Check::Id, &"a".repeat(65), false);
        check(Check::Uri, "urn:oid:1.2.3", true);
        check(Check::Uri, "mailto:ng@example.org", false);
        check(Check::Uri, "a b", false);
        check(Check::Uri, "é", false);
        check(Check::CodingSystem, "http://loinc.org", true);
        check(Check::CodingSystem, "loinc", false);
        check(Check::Canonical, "http://x.example/Questionnaire/1|2.0", true);
        check(Check::Date(crate::fhir::Primitive::Date), "2024-02-29", true);
        check(Check::Date(crate::fhir::Primitive::Date), "yesterday", false);
        check(Check::Time, "10:00:00.5", true);
        check(Check::Time, "10:00", false);
        check(Check::Time, "10:00:00.", false);
        check(Check::Integer, "-12", true);
        check(Check::Unsigned, "-12", false);
        check(Check::Word, r#"W/\"3141\""#, true);
        check(Check::Word, "Ada Ng", false);
        check(Check::Samples, "-13 12.5 E U 1e3", true);
        check(Check::Samples, "Ada", false);
        check(Check::Status, "201", true);
        check(Check::Status, "201 Created", true);
        check(Check::Status, "201 Ada Ng", false);
        check(Check::TypeName, "http://hl7.org/fhir/StructureDefinition/Patient", true);
        check(Check::TypeName, "Ada", false);
        check(Check::Unsigned, "123456789012345678901", false);
    }
}
