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
        Check::Code => text.len() <= 256 && text.is_ascii() && is_code(text, false),
        Check::CodingCode => text.len() <= 256 && is_code(text, text.len() <= 64),
        Check::PublishedCode => {
            let words = memchr::memchr(b' ', text).is_some();
            // Names have capitals: words of a code are small, or numbered.
            let small = |part: &[u8]| part.iter().any(u8::is_ascii_digit) || part.iter().all(u8::is_ascii_lowercase);
            let fits = || text.len() <= 32 && text.split(|&b| b == b' ').all(small);
            text.len() <= 256 && is_code(text, words && fits())
        }
        Check::Id => text.len() <= crate::limits::ID_CHARS_MAX && !matches!(text, b"." | b"..") && all(text, ID),
        Check::Uri => is_uri(text) && !names_record(automaton, text, true),
        Check::CodingSystem => is_uri(text) && text.contains(&b':') && !names_record(automaton, text, true),
        Check::Canonical => is_canonical(automaton, text),
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
/// Characters of a version: `2.71`, `4.0.1-ballot`, `20150731`.
const VERSION: u8 = 64;
/// Whatever separates the parts of a URL no more than a slash does, and encodes nothing.
const PATH: u8 = 32;

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
        if !matches!(c, b'%' | b'\\' | b'?' | b'#' | b'&' | b'=' | b';') {
            classes[b] |= PATH;
        }
        if c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'+' | b'~') {
            classes[b] |= VERSION;
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
    !text.is_empty() && fold(text, class) != 0
}

/// Those of these classes to which each byte belongs.
#[inline]
fn fold(text: &[u8], classes: u8) -> u8 {
    text.iter().fold(classes, |seen, &b| seen & CLASSES[usize::from(b)])
}

/// Terminologies have codes of several words; elsewhere a space stands only in a media type, behind a semicolon: `text/plain; charset=utf-8`.
#[inline]
fn is_code(text: &[u8], words: bool) -> bool {
    let parameter = |i: usize| text[i - 1] == b';' && text[..i].contains(&b'/') && text[i..].contains(&b'=');
    let space = |i: usize| i > 0 && i + 1 < text.len() && text[i - 1] != b' ' && (words || parameter(i));
    let spaced = || text.iter().enumerate().all(|(i, &b)| b > b' ' || b == b' ' && space(i));
    !text.is_empty() && (text.is_ascii() || is_plain(text)) && (all(text, WORD) || spaced())
}

/// Text without spaces that only look like none: U+00A0, U+2003 and their kin, and those that show nothing at all.
fn is_plain(text: &[u8]) -> bool {
    let unseen = |c: char| {
        matches!(
            c,
            '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'
                ..='\u{180F}'
        ) || matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{2800}' | '\u{3164}')
            || matches!(c, '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{E0000}'..='\u{E0FFF}')
    };
    std::str::from_utf8(text)
        .is_ok_and(|t| !t.chars().any(|c| c != ' ' && (c.is_whitespace() || c.is_control() || unseen(c))))
}

#[inline]
fn is_uri(text: &[u8]) -> bool {
    all(text, URI) && (text.starts_with(b"http") || !reaches_someone(text))
}

/// Whether a URI says how somebody is reached or where somebody is, or holds its own content.
fn reaches_someone(text: &[u8]) -> bool {
    const SCHEMES: [&[u8]; 20] = [
        b"acct",
        b"callto",
        b"cid",
        b"data",
        b"facetime",
        b"fax",
        b"geo",
        b"h323",
        b"im",
        b"mailto",
        b"mid",
        b"modem",
        b"pres",
        b"sip",
        b"sips",
        b"skype",
        b"sms",
        b"smsto",
        b"tel",
        b"xmpp",
    ];
    let scheme = text.iter().position(|&b| b == b':').map(|end| &text[..end]);
    scheme.is_some_and(|scheme| SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme)))
}

/// A definition's name: a URI, perhaps a version behind `|` and a fragment behind `#`, and nothing that finds a record.
fn is_canonical(automaton: &Automaton, text: &[u8]) -> bool {
    if !is_uri(text) {
        return false;
    }
    let Some(at) = memchr::memchr(b'|', text) else { return !names_record(automaton, text, false) };
    let (url, rest) = (&text[..at], &text[at + 1..]);
    let (version, fragment) = match memchr::memchr(b'#', rest) {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &b""[..]),
    };
    all(version, VERSION) && !names_record(automaton, url, false) && !names_record(automaton, fragment, false)
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

/// Whether a URL names a record: some segment of it is called like a type of records, in whatever case (`exact`: in its own) and percent-encoded
/// or not, and something follows. What is called so behind a definitional type is the name of a definition: `StructureDefinition/Patient`.
pub(super) fn names_record(automaton: &Automaton, text: &[u8], exact: bool) -> bool {
    if fold(text, PATH) != 0 {
        // Nearly always: nothing but slashes separates.
        return names_in(automaton, text, exact, |text| memchr::memchr(b'/', text));
    }
    if memchr::memchr(b'%', text).is_some() {
        return match percent_decoded(text) {
            Some(decoded) => names_record(automaton, &decoded, exact),
            None => true, // encoded more than once: nobody can tell what it means
        };
    }
    let separates = |b: &u8| matches!(b, b'/' | b'\\' | b'?' | b'#' | b'&' | b'=' | b';');
    names_in(automaton, text, exact, |text| text.iter().position(separates))
}

fn names_in(automaton: &Automaton, text: &[u8], exact: bool, separator: impl Fn(&[u8]) -> Option<usize>) -> bool {
    let (mut rest, mut named, mut before): (&[u8], bool, &[u8]) = (text, false, b"");
    while let Some(end) = separator(rest) {
        let part = &rest[..end];
        rest = &rest[end + 1..];
        let Some(&first) = part.first() else { continue };
        if named {
            return true;
        }
        let begins = if exact { first.is_ascii_uppercase() } else { first.is_ascii_alphabetic() };
        let is = || automaton.is_record(part) && (!exact || is_type(automaton, part));
        named = begins && part.last() != Some(&b':') && is() && !is_definitional(before);
        before = part;
    }
    named && !rest.is_empty()
}

fn is_type(automaton: &Automaton, part: &[u8]) -> bool {
    std::str::from_utf8(part).is_ok_and(|part| automaton.roots.contains_key(part))
}

fn is_definitional(part: &[u8]) -> bool {
    std::str::from_utf8(part).is_ok_and(crate::fhir::definitional)
}

/// Decoded once. `None`: broken, or it still holds a percent sign.
fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&b, behind)) = rest.split_first() {
        rest = behind;
        decoded.push(match b {
            b'%' => {
                let (hex, behind) = rest.split_at_checked(2)?;
                rest = behind;
                u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok().filter(|&b| b != b'%')?
            }
            b => b,
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn automaton() -> Automaton {
        let mut automaton = Automaton::default();
        for name in ["Patient", "Questionnaire", "List"] {
            automaton.roots.insert(name, [0, 0]);
        }
        automaton.records.extend(["patient".to_owned(), "list".to_owned()]);
        automaton
    }

    #[test]
    fn urls_that_name_a_record_are_told_from_names_of_definitions() {
        for (url, canonical, uri) in [
            ("http://h/fhir/StructureDefinition/Patient", true, true),
            ("http://h/fhir/StructureDefinition/Patient|4.0.1", true, true),
            ("http://h/Patient", true, true),
            ("http://h/Questionnaire/1#2", true, true),
            ("http://h/Patient/4711", false, false),
            ("http://h/Patient/4711/", false, false),
            ("http://h/Patient//4711", false, false),
            ("http://h/Patient/4711/_history/3", false, false),
            ("http://h/Patient/4711/$everything", false, false),
            ("http://h/Patient?identifier=urn:mrn|4711", false, false),
            ("http://h/Patient%2F4711", false, false),
            ("http://h/%50atient/4711", false, false),
            ("http://h/Patient%252F4711", false, false),
            ("http://h/Questionnaire/1#Patient/4711", false, false),
            ("Patient/4711", false, false),
            ("http://h/patient/4711", false, true),
            ("http://h/list/of/systems", false, true),
        ] {
            assert_eq!(is_formed(&automaton(), Check::Canonical, url.as_bytes(), false), canonical, "{url}");
            assert_eq!(is_formed(&automaton(), Check::Uri, url.as_bytes(), false), uri, "{url}");
        }
    }

    #[track_caller]
    fn check(check: Check, text: &str, expected: bool) {
        assert_eq!(is_formed(&automaton(), check, text.as_bytes(), text.contains('\\')), expected, "{check:?} {text}");
    }

    #[test]
    fn forms() {
        check(Check::Code, "final", true);
        check(Check::Code, "text/plain; charset=utf-8", true);
        check(Check::Code, "John Doe", false);
        check(Check::Code, r"fin\u0061l", true);
        check(Check::Code, r"a\\b", false);
        check(Check::Code, "", false);
        check(Check::Code, "Ada; Lovelace", false);
        check(Check::Code, "Ada\u{200b}Lovelace", false);
        check(Check::CodingCode, "Ada\u{2060}Ng", false);
        check(Check::Uri, "MAILTO:ng@example.org", false);
        check(Check::Uri, "Tel:+4930", false);
        check(Check::Uri, "sip:ada@x.org", false);
        check(Check::Canonical, "mailto:ng@example.org", false);
        check(Check::Canonical, "http://snomed.info/sct?fhir_vs", true);
        check(Check::Canonical, "http://x.example/Questionnaire/1|a/b", false);
        check(Check::Canonical, "#q1", true);
        check(Check::CodingCode, "two words", true);
        check(Check::CodingCode, "two  spaces", false);
        check(Check::CodingCode, " first", false);
        check(Check::CodingCode, "Ada\u{a0}Ng", false);
        check(Check::CodingCode, "Ångström", true);
        check(Check::PublishedCode, "8302-2", true);
        check(Check::PublishedCode, "A54.4† M73.04*", true);
        check(Check::PublishedCode, "Ada Lovelace 1815", false);
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
