//! Documents built from a fuzzer's bytes, with one identifying value planted in them at many places, in many spellings; and the property
//! that it is in no output. `leak` holds it for the shipped packs; `planted` holds it for a pack with a hole, and must fail.

use cryptonym::names::Domain;
use cryptonym::rewrite::{Engine, Format, Options, Rewriter};
use cryptonym::rules::Compiled;
use cryptonym::token::Keyring;
use std::sync::Arc;

/// Ten letters: chance does not spell them in a pseudonym.
pub const VALUE: &str = "Zzyzxquill";

/// What a pack does with town and postal code.
#[derive(Clone, Copy)]
pub enum Places {
    Removed,
    #[allow(dead_code, reason = "`planted` has no such pack")]
    Kept,
}

/// Members of a resource in which `@` stands for the value, and `%` for the value where a limited data set must keep it: town and postal
/// code (45 CFR 164.514(e)(2)(ii)). A name may stand once in an object.
const MEMBERS: &[(&str, &str)] = &[
    ("id", r#""@""#),
    ("identifier", r#"[{"system":"http://h/mrn","value":"@"},{"value":"urn:oid:1.2.@"}]"#),
    ("name", r#"[{"family":"@","given":["A","@"],"prefix":["@"],"text":"Dr @"}]"#),
    ("name", r#"[{"_family":{"id":"@","extension":[{"url":"http://e","valueString":"@"}]},"given":[null],"_given":[{"id":"@"}]}]"#),
    ("telecom", r#"[{"system":"phone","value":"@"},{"_value":{"extension":[{"url":"http://e","valueCode":"@"}]}}]"#),
    ("address", r#"[{"line":["@"],"city":"%","postalCode":"%","text":"@ street"}]"#),
    ("text", r#"{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">@</div>"}"#),
    ("extension", r#"[{"url":"http://e","valueString":"@"},{"url":"http://f","extension":[{"url":"g","valueUri":"http://x/@"}]}]"#),
    ("extension", r#"[{"url":"http://e","valueHumanName":{"family":"@"}},{"url":"http://f","valueReference":{"display":"@"}}]"#),
    ("photo", r#"[{"title":"@","url":"http://x/@"}]"#),
    ("contact", r#"[{"name":{"text":"@"},"organization":{"reference":"Organization/@"}}]"#),
    ("generalPractitioner", r##"[{"reference":"Practitioner/@"},{"reference":"#@"},{"display":"@"},{"identifier":{"value":"@"}}]"##),
    ("managingOrganization", r#"{"reference":"http://other/fhir/Organization/@","display":"@"}"#),
    ("maritalStatus", r#"{"coding":[{"system":"http://local","code":"@","display":"@"}],"text":"@"}"#),
    ("maritalStatus", r#"{"coding":[{"code":"@","display":"@","system":"http:\/\/local"},{"display":"@"}]}"#),
    ("meta", r#"{"source":"http://x/@","tag":[{"system":"http://l","code":"@","display":"@"}],"extension":[{"url":"http://e","valueId":"@"}]}"#),
    ("communication", r#"[{"language":{"text":"@"},"extension":[{"url":"http://e","valueMarkdown":"*@*"}]}]"#),
    ("link", r#"[{"other":{"reference":"Patient/@"},"type":"seealso"}]"#),
    ("_gender", r#"{"id":"@","extension":[{"url":"http://e","valueAddress":{"city":"%","line":["@"]}}]}"#),
    ("gender", r#""male""#),
    ("birthDate", r#""1980-03-04""#),
    ("active", "true"),
];

/// The next choice of the fuzzer; nought where it has none left.
fn choice(bytes: &mut &[u8], most: usize) -> usize {
    let Some((first, rest)) = bytes.split_first() else { return 0 };
    *bytes = rest;
    usize::from(*first) % most
}

/// The text with the value in it, in one of its spellings; where `places` are kept, they are others.
fn spelled(text: &str, spelling: usize, places: Places) -> String {
    let escape = |c: char| format!("\\u{:04X}", u32::from(c));
    let value: String = match spelling {
        0 => VALUE.to_owned(),
        1 => VALUE.chars().map(escape).collect(),
        2 => VALUE.chars().enumerate().map(|(i, c)| if i % 3 == 0 { escape(c) } else { c.to_string() }).collect(),
        _ => VALUE.chars().enumerate().map(|(i, c)| if i == 9 { escape(c) } else { c.to_string() }).collect(),
    };
    let place = match places {
        Places::Removed => value.as_str(),
        Places::Kept => "Springfield",
    };
    text.replace('%', place).replace('@', &value)
}

fn patient(bytes: &mut &[u8], depth: usize, places: Places) -> String {
    let late = choice(bytes, 2) == 1;
    let mut names: Vec<&str> = Vec::new();
    let mut members: Vec<String> = Vec::new();
    for _ in 0..1 + choice(bytes, 6) {
        let (name, text) = MEMBERS[choice(bytes, MEMBERS.len())];
        let spelling = choice(bytes, 8);
        if names.contains(&name) {
            continue;
        }
        names.push(name);
        // A name may be spelled with escapes as well.
        let key = if spelling & 4 == 0 {
            name.to_owned()
        } else {
            let first = name.chars().next().unwrap_or_default();
            format!("\\u{:04x}{}", u32::from(first), &name[first.len_utf8()..])
        };
        let space = ["", " ", "\t"][choice(bytes, 3)];
        members.push(format!("\"{key}\"{space}:{space}{}", spelled(text, spelling & 3, places)));
    }
    if depth == 0 && choice(bytes, 3) == 2 {
        members.push(format!("\"contained\":[{}]", patient(bytes, 1, places)));
    }
    let ty = r#""resourceType":"Patient""#.to_owned();
    if late {
        members.push(ty);
    } else {
        members.insert(0, ty);
    }
    format!("{{{}}}", members.join(","))
}

/// A document of the bytes' choosing.
fn document(bytes: &mut &[u8], places: Places) -> (Format, String) {
    match choice(bytes, 5) {
        0 => (Format::Json, patient(bytes, 0, places)),
        1 => (Format::Ndjson, format!("{}\n{}\n", patient(bytes, 0, places), patient(bytes, 0, places))),
        2 => {
            let entry = format!(r#"{{"fullUrl":"http://other/fhir/Patient/{VALUE}","resource":{}}}"#, patient(bytes, 0, places));
            (Format::Json, format!(r#"{{"resourceType":"Bundle","type":"collection","entry":[{entry}]}}"#))
        }
        3 => {
            let entry = format!(r#"{{"resource":{}}}"#, patient(bytes, 0, places));
            (Format::Json, format!(r#"{{"type":"collection","entry":[{entry}],"resourceType":"Bundle"}}"#))
        }
        _ => {
            let part = format!(r#"{{"name":"x","part":[{{"name":"y","resource":{}}}]}}"#, patient(bytes, 0, places));
            (Format::Json, format!(r#"{{"resourceType":"Parameters","parameter":[{part},{{"name":"z","valueString":"{VALUE}"}}]}}"#))
        }
    }
}

/// Rules and keys.
pub fn engine(yaml: &str) -> Arc<Engine> {
    let keyring = Keyring::generate([3; 32], "2026-11-23T10:00:00Z");
    let rules = Compiled::new(yaml).expect("the pack loads");
    let domain = Domain::new("fuzz").expect("a name");
    Arc::new(Engine::new(rules, &keyring, &domain, Options::default()).expect("keys for the domain"))
}

/// JSON escapes by number undone.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\u") {
        out.push_str(&rest[..at]);
        let digits = rest.get(at + 2..at + 6).and_then(|d| u32::from_str_radix(d, 16).ok());
        out.extend(digits.and_then(char::from_u32));
        rest = rest.get(at + 6..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Nothing of a document leaves in which the planted value can be read, whether it passes or is refused.
pub fn nothing_shows(engine: &Arc<Engine>, places: Places, mut bytes: &[u8]) {
    let cut = choice(&mut bytes, 256) * 4;
    let (format, document) = document(&mut bytes, places);
    let mut rewriter = Rewriter::pseudonymize(Arc::clone(engine), format);
    let mut output = Vec::new();
    let (first, rest) = document.as_bytes().split_at(cut.min(document.len()));
    let done = rewriter
        .write(first, &mut output)
        .and_then(|()| rewriter.write(rest, &mut output))
        .and_then(|()| rewriter.finish(&mut output));
    let mut shown = String::from_utf8(output).expect("output is UTF-8");
    if let Err(refusal) = done {
        shown.push_str(&refusal.to_string());
    }
    assert!(!unescaped(&shown).to_lowercase().contains(&VALUE.to_lowercase()), "the planted value got out: {document} became {shown}");
}
