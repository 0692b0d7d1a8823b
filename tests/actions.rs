//! The actions through one door: a rule, a resource in, the resource out. Adding a case costs a line.
//!
//! Each rule stands under `elements:` or `types:` of a small pack that removes or keeps the rest. What rule files refuse is golden too.

use cryptonym::action::fpe::{Alphabet, Ff1, Keyed};
use cryptonym::action::hash::{Encoding, Scope, Shape, hash};
use cryptonym::action::number::Number;
use cryptonym::action::perturb::{Kind, Span, perturb};
use cryptonym::action::shift::{Unit, time};
use cryptonym::action::{Done, generalize};
use cryptonym::fhir::Primitive;
use cryptonym::names::{Class, Domain};
use cryptonym::rewrite::{Engine, Format, Options, Report, Rewriter};
use cryptonym::rules::Compiled;
use cryptonym::secret::{Phi, SecretKey};
use cryptonym::token::{Keyring, MacPurpose};
use proptest::prelude::*;
use std::sync::Arc;

/// A small pack with some rules in place of others: keys of `types`, then whole `elements`.
fn pack(head: &str, types: &str, elements: &str) -> String {
    let mut net = String::new();
    for (name, action) in [
        ("resource-id", "{ token: {} }"),
        ("Identifier.value", "{ token: { class: identifier } }"),
        ("Meta.lastUpdated", "remove"),
        ("Bundle.timestamp", "remove"),
        ("Bundle.entry.response.lastModified", "remove"),
        ("Bundle.entry.request.ifModifiedSince", "remove"),
        ("string", "remove"),
        ("markdown", "remove"),
        ("xhtml", "remove"),
        ("base64Binary", "remove"),
        ("uri", "keep"),
        ("url", "remove"),
        ("oid", "remove"),
        ("uuid", "remove"),
        ("date", "remove"),
        ("dateTime", "remove"),
        ("instant", "remove"),
        ("canonical", "keep"),
        ("id", "keep"),
        ("code", "keep"),
        ("time", "keep"),
        ("boolean", "keep"),
        ("decimal", "keep"),
        ("integer", "keep"),
        ("unsignedInt", "keep"),
        ("positiveInt", "keep"),
    ] {
        if !types.lines().any(|line| line.trim().starts_with(&format!("{name}:"))) {
            net.push_str(&format!("  {name}: {action}\n"));
        }
    }
    let elements = if elements.is_empty() { String::new() } else { format!("elements:\n{elements}\n") };
    format!(
        "apiVersion: cryptonym/v1\nkind: Rules\nname: t\nformat: fhir\nrelease: R4\nunknown: refuse\nno_subject: year\n{}{head}\ntypes:\n{net}{types}\n{elements}",
        if head.contains("claim:") { "" } else { "claim: none\n" }.to_owned()
            + if head.contains("codes:") { "" } else { "codes: { keep_systems: [standard], others: remove }\n" },
    )
}

fn engine(yaml: &str) -> Arc<Engine> {
    let rules = Compiled::new(yaml).unwrap_or_else(|m| panic!("{m:#?}\n{yaml}"));
    let keyring = Keyring::generate([9; 32], "2026-11-23T10:00:00Z");
    Arc::new(Engine::new(rules, &keyring, &Domain::new("d").unwrap(), Options::default()).unwrap())
}

fn run(engine: &Arc<Engine>, document: u8, input: &str) -> Result<(String, Report), &'static str> {
    let rewriter = Rewriter::pseudonymize(Arc::clone(engine), Format::Json);
    let mut rewriter = if document == 0 { rewriter } else { rewriter.within(&SecretKey::new([document; 32])) };
    let mut output = Vec::new();
    let code = |refusal: cryptonym::rewrite::Refusal| refusal.code.as_str();
    rewriter.write(input.as_bytes(), &mut output).map_err(code)?;
    let report = {
        let done = rewriter.take_report();
        rewriter.finish(&mut output).map_err(code)?;
        let mut all = rewriter.take_report();
        all.add(done);
        all
    };
    Ok((String::from_utf8(output).unwrap(), report))
}

/// One rule of `types`, what a resource holds, what it then holds (or the code of the refusal).
#[track_caller]
fn typed(types: &str, input: &str, expected: Result<&str, &str>) {
    check(&engine(&pack("as_of: 2026-11-23", types, "")), input, expected);
}

#[track_caller]
fn check(engine: &Arc<Engine>, input: &str, expected: Result<&str, &str>) {
    let whole = |text: &str| format!(r#"{{"resourceType":{text}}}"#);
    let got = run(engine, 0, &whole(input)).map(|(text, _)| text);
    assert_eq!(got.as_deref(), expected.map(whole).as_deref(), "{input}");
}

#[test]
fn text_is_masked_and_substituted() {
    let family = |rule: &str| format!("  HumanName.family: {{ {rule} }}");
    let name = r#""Patient","name":[{"family":"Nightingale"}]"#;
    typed(&family("mask: {}"), name, Ok(r#""Patient","name":[{"family":"***********"}]"#));
    typed(&family("mask: { char: x, keep_last: 3 }"), name, Ok(r#""Patient","name":[{"family":"xxxxxxxxale"}]"#));
    typed(&family("mask: { with: withheld }"), name, Ok(r#""Patient","name":[{"family":"withheld"}]"#));
    typed(&family("substitute: { with: 'O\"B' }"), name, Ok(r#""Patient","name":[{"family":"O\"B"}]"#));
    typed(
        "  date: { substitute: { with: 1970-01-01 } }",
        r#""Patient","birthDate":"1980-03-04""#,
        Ok(r#""Patient","birthDate":"1970-01-01""#),
    );
    typed(
        "  Patient.multipleBirthInteger: { substitute: { with: 1 } }",
        r#""Patient","multipleBirthInteger":2"#,
        Ok(r#""Patient","multipleBirthInteger":1"#),
    );
    typed("  boolean: { substitute: { with: true } }", r#""Patient","active":false"#, Ok(r#""Patient","active":true"#));
    typed(
        "  xhtml: { substitute: { with: withheld } }",
        r#""Patient","text":{"status":"generated","div":"<div>Ng</div>"}"#,
        Ok(
            r#""Patient","text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">withheld</div>"}"#,
        ),
    );
    // Escapes are decoded before characters are counted.
    typed(
        &family("mask: { keep_last: 1 }"),
        r#""Patient","name":[{"family":"Zo\u00eb"}]"#,
        Ok(r#""Patient","name":[{"family":"**ë"}]"#),
    );
}

#[test]
fn dates_numbers_and_codes_are_generalized() {
    let to = |to: &str, of: &str| format!("  {of}: {{ generalize: {{ to: {to} }} }}");
    typed(&to("year", "date"), r#""Patient","birthDate":"1980-03-04""#, Ok(r#""Patient","birthDate":"1980""#));
    typed(&to("month", "date"), r#""Patient","birthDate":"1980-03-04""#, Ok(r#""Patient","birthDate":"1980-03""#));
    typed(&to("decade", "date"), r#""Patient","birthDate":"1987-03-04""#, Ok(r#""Patient","birthDate":"1980""#));
    typed(&to("year", "date"), r#""Patient","birthDate":"4.3.1980""#, Err("bad-date"));
    typed(
        &to("age90", "date"),
        r#""Patient","birthDate":"1930-03-04","gender":"female""#,
        Ok(r#""Patient","gender":"female""#),
    );
    typed(
        &to("year", "instant"),
        r#""Slot","start":"2019-05-04T10:00:00+02:00","end":"2019-05-04T10:00:00Z","schedule":{"display":"x"},"status":"free""#,
        Ok(
            r#""Slot","start":"2019-01-01T00:00:00Z","end":"2019-01-01T00:00:00Z","schedule":{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"masked"}]},"status":"free""#,
        ),
    );
    let zip = to("zip3", "Address.postalCode");
    typed(&zip, r#""Patient","address":[{"postalCode":"02139"}]"#, Ok(r#""Patient","address":[{"postalCode":"021"}]"#));
    typed(&zip, r#""Patient","address":[{"postalCode":"03601"}]"#, Ok(r#""Patient","address":[{"postalCode":"000"}]"#));
    let abroad = format!("{zip}\n  Address.country: keep");
    typed(
        &abroad,
        r#""Patient","address":[{"postalCode":"10115","country":"DE"}]"#,
        Ok(r#""Patient","address":[{"country":"DE"}]"#),
    );
    for (value, code, expected) in [("104", "a", "90"), ("67", "a", "67"), ("1100", "mo", "1080"), ("104", "mo", "104")]
    {
        let age = |v: &str| format!(r#""Condition","onsetAge":{{"value":{v},"code":"{code}"}}"#);
        typed(&to("age90", "Age.value"), &age(value), Ok(&age(expected)));
    }
    typed(
        &to("age90", "Age.value"),
        r#""Condition","onsetAge":{"value":104,"unit":"winters"},"abatementAge":{"value":95}"#,
        Ok(r#""Condition","abatementAge":{"value":90}"#),
    );
    let by_path = "  - { path: Observation.value.ofType(integer), do: { generalize: { to: age90 } } }";
    let code = r#""Observation","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"30525-0"}]}"#;
    let aged = engine(&pack("as_of: 2026-11-23", "", by_path));
    check(&aged, &format!(r#"{code},"valueInteger":95"#), Ok(&format!(r#"{code},"valueInteger":90"#)));
    let pressure = r#""Condition","onsetRange":{"low":{"value":104,"code":"mm[Hg]"},"high":{"value":104}}"#;
    typed(&to("age90", "Quantity.value"), pressure, Ok(pressure));
    typed(
        "  decimal: { generalize: { to: round, places: 1 } }",
        r#""Location","position":{"longitude":-71.0589,"latitude":42.3601}"#,
        Ok(r#""Location","position":{"longitude":-71.1,"latitude":42.4}"#),
    );
}

#[test]
fn equal_values_hash_alike_within_their_scope() {
    let rules = |scope: &str| {
        pack(
            "",
            &format!(
                "  resource-id: {{ hash: {{ scope: {scope} }} }}\n  Identifier.value: {{ hash: {{ class: mrn, bits: 96, encoding: base32, scope: {scope} }} }}"
            ),
            "",
        )
    };
    let input = r#"{"resourceType":"Bundle","type":"collection","entry":[{"fullUrl":"urn:uuid:53fefa32-fcbb-4ff8-8a92-55ee120877b7","resource":{"resourceType":"Patient","id":"p1","identifier":[{"value":"4711"}]}},{"resource":{"resourceType":"Observation","status":"final","subject":{"reference":"Patient/p1"},"focus":[{"reference":"urn:uuid:53fefa32-fcbb-4ff8-8a92-55ee120877b7"}],"identifier":[{"value":"4711"}]}}]}"#;
    let parts = |text: &str| -> Vec<String> {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let (p, o) = (&value["entry"][0], &value["entry"][1]["resource"]);
        let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
        vec![
            text(&p["resource"]["id"]),
            text(&o["subject"]["reference"]),
            text(&p["fullUrl"]),
            text(&o["focus"][0]["reference"]),
            text(&p["resource"]["identifier"][0]["value"]),
            text(&o["identifier"][0]["value"]),
        ]
    };
    let domain = engine(&rules("domain"));
    let one = parts(&run(&domain, 0, input).unwrap().0);
    assert_eq!(format!("Patient/{}", one[0]), one[1]);
    assert_eq!(one[2], one[3]);
    assert_eq!(one[4], one[5]);
    assert_eq!((one[0].len(), one[4].len()), (32, 20));
    assert!(!one.iter().any(|t| t.contains("p1") || t.contains("4711") || t.contains("53fefa32")));
    assert_eq!(parts(&run(&domain, 0, input).unwrap().0), one, "the domain's key stays");
    let document = engine(&rules("document"));
    assert_eq!(run(&document, 0, input).map(|_| ()), Err("no-document-key"));
    let (first, second) = (parts(&run(&document, 1, input).unwrap().0), parts(&run(&document, 2, input).unwrap().0));
    assert_eq!((format!("Patient/{}", first[0]), &first[2], &first[4]), (first[1].clone(), &first[3], &first[5]));
    assert!(first.iter().zip(&second).zip(&one).all(|((a, b), c)| a != b && b != c && a != c), "nothing links outside");
}

#[test]
fn values_keep_their_form_under_fpe() {
    let rules = engine(&pack(
        "",
        "  ContactPoint.value: { fpe: { class: phone } }\n  Identifier.value: { fpe: { class: mrn, alphabet: upper-alphanumeric } }\n  positiveInt: { fpe: {} }\n  decimal: { fpe: {} }",
        "",
    ));
    let telecom = |value: &str| format!(r#"{{"resourceType":"Patient","telecom":[{{"value":"{value}"}}]}}"#);
    let (phone, report) = run(&rules, 0, &telecom("+1 (617) 555-0123")).unwrap();
    let phone = phone.split('"').nth(9).unwrap().to_owned();
    assert_eq!(
        phone.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>(),
        "+0 (000) 000-0000"
    );
    assert_ne!(phone, "+1 (617) 555-0123");
    assert_eq!(report.by_action().filter(|&(_, n)| n > 0).collect::<Vec<_>>(), [("fpe", 1)]);
    for (value, code) in [("12345", "fpe-domain"), ("call 6175550123", "fpe-alphabet"), ("", "fpe-domain")] {
        let refused = run(&rules, 0, &telecom(value)).map(|_| ());
        assert!(refused == Err(code) || value.is_empty() && refused.is_err(), "{value}: {refused:?}");
    }
    let (dose, _) =
        run(&rules, 0, r#"{"resourceType":"Location","position":{"longitude":-71.0589,"latitude":42.3601}}"#).unwrap();
    let place: serde_json::Value = serde_json::from_str(&dose).unwrap();
    assert!(
        place["position"]["longitude"].is_number() && !dose.contains("71.0589") && !dose.contains("42.3601"),
        "{dose}"
    );
}

#[test]
fn numbers_are_perturbed_alike_for_one_patient() {
    let rules = engine(&pack("", "  Quantity.value: { perturb: { span: 10 } }", ""));
    let input = |patient: &str| {
        format!(
            r#"{{"resourceType":"Observation","status":"final","code":{{"coding":[{{"system":"http://loinc.org","code":"8867-4"}}]}},"subject":{{"reference":"Patient/{patient}"}},"valueQuantity":{{"value":72}}}}"#
        )
    };
    let value = |patient: &str| -> f64 {
        let text = run(&rules, 0, &input(patient)).unwrap().0;
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["valueQuantity"]["value"].as_f64().unwrap()
    };
    assert_eq!(value("a"), value("a"));
    let seen: std::collections::BTreeSet<i64> = (0..60).map(|i| value(&format!("p{i}")) as i64).collect();
    assert!(seen.len() > 5 && seen.iter().all(|v| (67..=77).contains(v)), "{seen:?}");
}

#[test]
fn coming_back_other_actions_do_nothing() {
    let rules = engine(&pack(
        "as_of: 2026-11-23",
        "  date: { generalize: { to: year } }\n  HumanName.family: { mask: {} }\n  Identifier.value: { hash: {} }",
        "",
    ));
    let stored =
        r#"{"resourceType":"Patient","birthDate":"1980","name":[{"family":"**"}],"identifier":[{"value":"00ff"}]}"#;
    let mut back = Rewriter::reidentify(Arc::clone(&rules), Format::Json, None);
    let mut output = Vec::new();
    back.write(stored.as_bytes(), &mut output).unwrap();
    back.finish(&mut output).unwrap();
    assert_eq!(String::from_utf8(output).unwrap(), stored);
    assert!(rules.rules().lossy());
}

#[test]
fn searches_and_urls_spell_what_bodies_hold() {
    let rules = engine(&pack("", "  resource-id: { hash: {} }\n  Identifier.value: { hash: { class: mrn } }", ""));
    let (body, _) = run(
        &rules,
        0,
        r#"{"resourceType":"Patient","id":"p1","identifier":[{"system":"http://h/mrn","value":"4711"}]}"#,
    )
    .unwrap();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let (id, mrn) = (body["id"].as_str().unwrap(), body["identifier"][0]["value"].as_str().unwrap());
    let url = |target: &str| cryptonym::rewrite::url::request(&rules, "GET", target);
    assert_eq!(url("Patient/p1").unwrap(), format!("Patient/{id}"));
    assert_eq!(url("Patient?identifier=http://h/mrn|4711").unwrap(), format!("Patient?identifier=http://h/mrn|{mrn}"));
    // What a document's key has hashed cannot be asked for.
    let forgotten = engine(&pack("", "  resource-id: { hash: { scope: document } }", ""));
    assert!(cryptonym::rewrite::url::request(&forgotten, "GET", "Patient/p1").is_err());
    assert_eq!(cryptonym::rewrite::url::request(&forgotten, "GET", "metadata").unwrap(), "metadata");
}

#[test]
fn a_search_parameter_of_ones_own_is_rewritten_like_its_element() {
    let yaml = pack("search:\n  - { resource: Patient, name: mrn, type: token, path: Patient.identifier }", "", "");
    let rules = engine(&yaml);
    let url = |target: &str| cryptonym::rewrite::url::request(&rules, "GET", target).map_err(|r| r.code.as_str());
    let (own, defined) =
        (url("Patient?mrn=http://h/mrn|4711").unwrap(), url("Patient?identifier=http://h/mrn|4711").unwrap());
    assert_eq!(own, defined.replace("?identifier=", "?mrn="));
    assert!(!own.contains("4711"), "{own}");
    assert_eq!(url("Observation?mrn=4711"), Err("search-unknown"));
    let search = |entry: &str| format!("search:\n  - {{ {entry} }}");
    for (entry, what) in [
        ("resource: Patent, name: mrn, type: token, path: Patent.identifier", "not a resource type"),
        ("resource: Patient, name: identifier, type: token, path: Patient.identifier", "defines it already"),
        ("resource: Patient, name: mrn, type: tokn, path: Patient.identifier", "name or type `tokn`"),
        ("resource: Patient, name: mrn, type: token, path: Patient.identifer", "names no element"),
        ("resource: Patient, name: mrn, type: token, path: identifier", "names no element"),
    ] {
        mistake(&search(entry), "", "", what);
    }
}

#[test]
fn paths_select_what_they_say() {
    let patient = r#""Patient","gender":"male","name":[{"use":"official"}],"telecom":[{"system":"phone","use":"home"},{"system":"fax","use":"work"}],"contact":[{"gender":"male","telecom":[{"system":"phone"}]}],"extension":[{"url":"http://x","valueBoolean":true},{"url":"http://y","valueBoolean":true}]"#;
    let without = |cut: &[&str]| cut.iter().fold(patient.to_owned(), |text, cut| text.replace(cut, ""));
    for (path, cut) in [
        ("Patient.gender | Patient.name", &[r#","gender":"male","name":[{"use":"official"}]"#][..]),
        (
            "Patient.telecom.where(system = 'phone' or use = 'work')",
            &[r#","telecom":[{"system":"phone","use":"home"},{"system":"fax","use":"work"}]"#],
        ),
        ("Patient.telecom.where(system = 'fax' and use = 'work')", &[r#",{"system":"fax","use":"work"}"#]),
        ("nodesByName('use')", &[r#","name":[{"use":"official"}]"#, r#","use":"home""#, r#","use":"work""#]),
        ("Patient.contact.children()", &[r#","contact":[{"gender":"male","telecom":[{"system":"phone"}]}]"#]),
        ("Patient.contact.descendants()", &[r#","contact":[{"gender":"male","telecom":[{"system":"phone"}]}]"#]),
        ("Patient.extension('http://x').value", &[r#"{"url":"http://x","valueBoolean":true},"#]),
        (
            "(Patient.extension.value as boolean)",
            &[r#","extension":[{"url":"http://x","valueBoolean":true},{"url":"http://y","valueBoolean":true}]"#],
        ),
    ] {
        let rules = engine(&pack("", "  Extension.url: keep", &format!("  - {{ path: \"{path}\", do: remove }}")));
        check(&rules, patient, Ok(&without(cut)));
    }
    mistake("", "", "  - { path: Patient.gender | Patient.gendre, do: remove }", "matches no element");
    let deep = "  - { path: \"Patient.maritalStatus.where(coding.code = 'M')\", do: remove }";
    let deep = Compiled::new(&pack("", "", deep)).map(|_| ()).unwrap_err();
    assert!(deep[0].what.contains("at character") && deep[0].advice.contains("two different ones"), "{deep:?}");
}

// === rule files ===

/// The first mistake, as `LINE:COLUMN: WHAT; help: ADVICE` without the place.
#[track_caller]
fn mistake(head: &str, types: &str, elements: &str, what: &str) {
    let mistakes = Compiled::new(&pack(head, types, elements)).map(|_| ()).expect_err(what);
    assert!(mistakes.iter().any(|m| m.what.contains(what)), "{what}: {mistakes:#?}");
    assert!(mistakes.iter().all(|m| !m.advice.is_empty()), "{mistakes:#?}");
}

#[test]
fn mistakes_in_actions_are_named() {
    let string = |rule: &str| format!("  string: {rule}");
    for (rule, what) in [
        ("{ hash: { bit: 96 } }", "hash: a parameter that it does not have: `bit`; did you mean `bits`?"),
        ("{ hash: { bits: 64 } }", "hash: `bits` is out of range"),
        ("{ hash: { bits: 100 } }", "whole bytes"),
        ("{ hash: { encoding: hexa } }", "`encoding` is not `hexa`; did you mean `hex`?"),
        ("{ hash: { scope: run } }", "`scope` is not `run`"),
        ("{ hash: { class: 'a b' } }", "class `a b` has the wrong form"),
        ("{ fpe: { alphabet: aab } }", "`alphabet` is not `aab`"),
        ("{ mask: { char: '**' } }", "`char` is one character"),
        ("{ mask: { with: x, char: y } }", "`with` stands alone"),
        ("{ substitute: {} }", "`with` is missing"),
        ("{ generalize: {} }", "`to` is missing"),
        ("{ generalize: { to: years } }", "`to` is not `years`; did you mean `year`?"),
        ("{ generalize: { to: age90 } }", "needs the day"),
        ("{ generalize: { to: round } }", "round without `places`"),
        ("{ generalize: { to: year } }", "year, month and decade are for date"),
        ("{ perturb: { span: 1 } }", "perturb is for numbers"),
        ("{ perturb: { span: 0 } }", "not above zero"),
        ("{ shift: {} }", "`days` is missing"),
        ("{ hsah: {} }", "`hsah` is not an action; did you mean `hash`?"),
        ("{ scrub: {} }", "not supported"),
        ("{ crosswalk: {} }", "not supported"),
        ("{ token: {}, hash: {} }", "one name"),
        ("{ keep: { class: x } }", "keep: a parameter"),
    ] {
        mistake("", &string(rule), "", what);
    }
    mistake("", "  boolean: { fpe: {} }", "", "a boolean has two values");
    mistake("", "  decimal: { hash: {} }", "", "a hash is text");
    mistake("", "  decimal: { mask: {} }", "", "mask is for string");
    mistake("", "  resource-id: { mask: {} }", "", "so that links hold");
    mistake("", "  resource-id: { hash: { encoding: base64url } }", "", "no underscores");
    mistake("", "  positiveInt: { substitute: { with: 0 } }", "", "has not the form");
    mistake("", "  positiveInt: { generalize: { to: round, places: 1 } }", "", "round is for numbers");
    mistake("as_of: yesterday", "", "", "as_of: `yesterday` is not a day");
    mistake("codes: { keep_systems: [standard], others: { mask: {} } }", "", "", "not for codes");
}

#[test]
fn mistakes_have_their_place() {
    let yaml = pack("", "", "  - { path: Patient.gender, do: { hash: { bit: 1 } } }");
    let at = yaml.lines().position(|line| line.contains("bit: 1")).unwrap() as u64 + 1;
    let mistakes = Compiled::new(&yaml).map(|_| ()).unwrap_err();
    assert_eq!((mistakes[0].line, mistakes[0].column), (at, 33), "{mistakes:?}");
}

#[test]
fn claims_are_held() {
    let harbor = "claim: safe-harbor\nas_of: 2026-11-23";
    let ids = "  resource-id: { hash: { scope: document } }\n  Identifier.value: { hash: { scope: document } }";
    let with = |more: &str| format!("{ids}\n{more}");
    mistake("claim: safe-harbor", ids, "", "safe-harbor without as_of");
    mistake(harbor, "", "", "a token is derived from the value");
    mistake(
        harbor,
        "  resource-id: { hash: {} }\n  Identifier.value: remove",
        "",
        "keyed hash that outlives the document",
    );
    mistake(harbor, &with("  date: { shift: { days: 10 } }"), "", "a shifted date");
    mistake(harbor, &with("  date: keep"), "", "of a date only the year");
    mistake(harbor, &with("  date: { generalize: { to: month } }"), "", "not its month");
    mistake(harbor, &with("  date: { generalize: { to: year } }"), "", "a year of birth");
    mistake(harbor, &with("  HumanName.family: keep"), "", "names, (A)");
    mistake(harbor, &with("  HumanName.family: { mask: { keep_last: 1 } }"), "", "names, (A)");
    mistake(harbor, &with("  Address.city: keep"), "", "smaller than a state");
    mistake(
        harbor,
        &with("  Identifier.value: keep").replacen("  Identifier.value: { hash: { scope: document } }\n", "", 1),
        "",
        "numbers of records",
    );
    mistake(harbor, &with("  HumanName.given: { fpe: { alphabet: alphanumeric } }"), "", "encrypted under a key");
    let fine = with(
        "  Location.position: remove\n  Age.value: { generalize: { to: age90 } }\n  date: { generalize: { to: age90 } }\n  Address.postalCode: { generalize: { to: zip3 } }",
    );
    Compiled::new(&pack(harbor, &fine, "")).unwrap_or_else(|m| panic!("{m:#?}"));
    let limited = "claim: limited-data-set";
    mistake(limited, "  Address.line: keep", "", "addresses below town");
    mistake(limited, "  ContactPoint.value: keep", "", "(e)(2)(iii)");
    Compiled::new(&pack(limited, "  Address.city: keep\n  date: keep", "")).unwrap_or_else(|m| panic!("{m:#?}"));
}

#[test]
fn warnings_name_what_deserves_a_second_look() {
    let codes = |head: &str, types: &str, elements: &str| -> Vec<&'static str> {
        let rules = Compiled::new(&pack(head, types, elements)).unwrap_or_else(|m| panic!("{m:#?}"));
        rules.warnings.iter().map(|w| w.code).collect()
    };
    assert_eq!(codes("", "", ""), [""; 0]);
    assert_eq!(codes("", "  code: { hash: {} }", ""), ["low-entropy"]);
    assert_eq!(codes("", "  code: { hash: { scope: document } }", ""), [""; 0]);
    assert_eq!(codes("", "  id: { token: {} }", ""), ["id-overflow"]);
    assert_eq!(codes("", "  date: { shift: { days: 9 } }", ""), ["shift-live", "shift-subject"]);
    assert_eq!(codes("", "  Address.postalCode: { fpe: {} }", ""), ["fpe-domain"]);
    let hidden = "  - { path: Patient.gender, do: remove }\n  - { path: Patient.gender, do: keep }";
    assert_eq!(codes("", "", hidden), ["dead-rule"]);
}

// === properties ===

fn keys() -> cryptonym::token::DomainKeys {
    Keyring::generate([7; 32], "2026-11-23T10:00:00Z").domain(&Domain::new("d").unwrap(), None).unwrap()
}

fn class(name: &str) -> Class {
    Class::new(name).unwrap()
}

fn done(done: Result<Done, cryptonym::action::No>, value: &str) -> Option<String> {
    match done.ok()? {
        Done::Text(text) => Some(text),
        Done::Stays => Some(value.to_owned()),
        Done::Goes => None,
    }
}

proptest! {
    #[test]
    fn fpe_is_a_bijection_that_keeps_separators(value in "[0-9]{3,9}[-/ .][0-9]{3,9}") {
        let keyed = Keyed::new(&keys().fpe_key(&class("c")), Alphabet::new("digits").unwrap());
        let other = keyed.text(&value, true).unwrap();
        prop_assert_eq!(other.len(), value.len());
        prop_assert!(other.chars().zip(value.chars()).all(|(a, b)| a.is_ascii_digit() == b.is_ascii_digit() && (a.is_ascii_digit() || a == b)));
        prop_assert_eq!(keyed.text(&other, false).unwrap(), value);
    }

    #[test]
    fn numbers_stay_numbers_of_their_type_under_fpe(n in 1i64..=i64::from(i32::MAX), scale in 0u32..8, negative: bool) {
        let keyed = Keyed::new(&keys().fpe_key(&class("c")), Alphabet::new("digits").unwrap());
        let range = Some((1, i128::from(i32::MAX)));
        let other = keyed.number(&n.to_string(), range, true).unwrap();
        prop_assert!((1..=i64::from(i32::MAX)).contains(&other.parse::<i64>().unwrap()) && !other.starts_with('0'));
        prop_assert_eq!(keyed.number(&other, range, false).unwrap(), n.to_string());
        let number = Number { unscaled: if negative { -i128::from(n) } else { n.into() }, scale }.to_string();
        let other = keyed.number(&number, None, true).unwrap();
        prop_assert_eq!(Number::parse(&other).unwrap().scale, scale);
        prop_assert_eq!(other.starts_with('-'), negative);
        prop_assert_eq!(keyed.number(&other, None, false).unwrap(), number);
    }

    /// Another implementation of FF1 says the same, in 128 bits and beyond.
    #[test]
    fn ff1_equals_another_implementation(key: [u8; 32], tweak in proptest::collection::vec(any::<u8>(), 0..40), radix in 2u32..=65536, seed in proptest::collection::vec(any::<u16>(), 20..90)) {
        let numerals: Vec<u16> = seed.iter().map(|&n| (u32::from(n) % radix) as u16).collect();
        let wide: Vec<u32> = numerals.iter().map(|&n| n.into()).collect();
        let ours = Ff1::<aes::Aes256Enc>::new(&key, radix).unwrap();
        let theirs = fpe::ff1::FF1::<aes::Aes256>::new(&key, radix).unwrap();
        let other = theirs.encrypt(&tweak, &fpe::ff1::FlexibleNumeralString::from(numerals)).unwrap();
        let other: Vec<u32> = Vec::<u16>::from(other).into_iter().map(u32::from).collect();
        prop_assert_eq!(&ours.encrypt(&tweak, &wide).unwrap(), &other);
        prop_assert_eq!(ours.decrypt(&tweak, &other).unwrap(), wide);
    }

    #[test]
    fn hashes_are_equal_exactly_for_equal_values_of_a_class(a: String, b: String) {
        let shape = Shape { bits: 96, encoding: Encoding::Hex, scope: Scope::Domain };
        let of = |domain: &str, name: &str, value: &str| {
            let keys = Keyring::generate([7; 32], "2026-11-23T10:00:00Z").domain(&Domain::new(domain).unwrap(), None).unwrap();
            let mut out = String::new();
            hash(&keys.mac(MacPurpose::Hash), &class(name), shape, &Phi::new(value), &mut out);
            out
        };
        prop_assert_eq!(of("d", "c", &a), of("d", "c", &a));
        prop_assert_eq!(of("d", "c", &a) == of("d", "c", &b), a == b);
        prop_assert_ne!(of("d", "c", &a), of("d", "k", &a));
        prop_assert_ne!(of("d", "c", &a), of("e", "c", &a));
    }

    #[test]
    fn perturbed_numbers_stay_within_their_span(n in -1_000_000i64..1_000_000, scale in 0u32..4, span in 2i128..500, patient: String) {
        let mac = keys().mac(MacPurpose::Perturb);
        let rule = Span { span: Number { unscaled: span, scale: 0 }, kind: Kind::Fixed, places: None };
        let number = Number { unscaled: n.into(), scale };
        let moved = || perturb(&mac, &class("c"), &rule, &patient, &Phi::new(number.to_string()), None).unwrap();
        prop_assert_eq!(moved(), moved());
        let moved = Number::parse(&moved()).unwrap();
        prop_assert_eq!(moved.scale, scale);
        prop_assert!((moved.unscaled - number.unscaled).abs() * 2 <= span * 10i128.pow(scale));
    }

    /// Equal to their precision, equal after it: what comes out depends on nothing finer.
    #[test]
    fn generalized_dates_tell_no_more_than_their_precision(year in 1i32..=9999, month in 1u8..=12, day in 1u8..=28, other_month in 1u8..=12, other_day in 1u8..=28) {
        use generalize::{Beside, To, generalize};
        let cut = |to, month: u8, day: u8| {
            let text = format!("{year:04}-{month:02}-{day:02}");
            done(generalize(to, Primitive::Date, &Phi::new(&*text), &Beside::default()), &text)
        };
        prop_assert_eq!(cut(To::Year, month, day), Some(format!("{year:04}")));
        prop_assert_eq!(cut(To::Month, month, day), cut(To::Month, month, other_day));
        prop_assert_eq!(cut(To::Decade, month, day), cut(To::Decade, other_month, other_day));
        let age = To::Age90 { as_of: (2026, 11, 23), bare: true };
        let fits = cut(age, month, day).is_none_or(|text| text == format!("{year:04}") && year >= 1936);
        prop_assert!(fits);
    }

    #[test]
    fn rounded_numbers_depend_on_nothing_finer(n in -1_000_000i64..1_000_000, places in 0i32..3) {
        let number = Number { unscaled: n.into(), scale: 4 };
        let rounded = number.round(places);
        prop_assert_eq!(rounded.round(places), rounded);
        prop_assert!(rounded.scale <= places as u32);
        let off = rounded.widen(4).unwrap().unscaled - number.unscaled;
        prop_assert!(off.abs() * 2 <= 10i128.pow(4 - places as u32));
    }

    #[test]
    fn a_zip_code_keeps_three_digits_at_most(zip in "[0-9]{5}(-[0-9]{4})?", tail in "[0-9]{2}") {
        use generalize::{Beside, To, generalize};
        let cut = |zip: &str| done(generalize(To::Zip3, Primitive::String, &Phi::new(zip), &Beside::default()), zip);
        let shown = cut(&zip).unwrap();
        prop_assert!(shown == "000" || zip.starts_with(&shown) && shown.len() == 3);
        prop_assert_eq!(cut(&format!("{}{tail}", &zip[..3])), Some(shown));
    }

    #[test]
    fn moved_times_come_back(seconds in 40_000_000i64..200_000_000_000, days in 1i32..=400, millis in 0u32..1000) {
        for (unit, text) in [(Unit::Seconds, format!("{seconds}.{millis:03}")), (Unit::Millis, format!("{seconds}{millis:03}"))] {
            let moved = done(time(&text, unit, days), &text).unwrap();
            prop_assert_ne!(&moved, &text);
            prop_assert_eq!(done(time(&moved, unit, -days), &moved).unwrap(), text);
        }
    }
}
