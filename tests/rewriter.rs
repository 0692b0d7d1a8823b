//! The rewriter through one door: a pack, an input, what comes out, in whole and cut anywhere.
//!
//! `check` runs every case whole, byte by byte, at every single cut, and back again; adding a case costs a line.

use cryptonym::names::{Caller, Class, Domain};
use cryptonym::policy::{Grant, Permit, Policy, Reveal, danger};
use cryptonym::rewrite::{Code, Engine, Format, Options, Report, Rewriter};
use cryptonym::rules::{Compiled, packs};
use cryptonym::token::Keyring;
use proptest::prelude::*;
use std::sync::{Arc, OnceLock};

const RULES: &str = r#"
apiVersion: cryptonym/v1
kind: Rules
name: test
format: fhir
release: R4
claim: none
unknown: refuse
no_subject: year
codes: { keep_systems: [standard], others: remove }
types:
  resource-id: { token: {} }
  Identifier.value: { token: { class: identifier } }
  HumanName: remove
  string|markdown|xhtml|base64Binary|uri|url|oid|uuid: remove
  date|dateTime|instant: { shift: { days: 365 } }
  Meta.lastUpdated|Bundle.timestamp|Bundle.entry.response.lastModified|Bundle.entry.request.ifModifiedSince: remove
  canonical|id|code|time|boolean|decimal|integer|unsignedInt|positiveInt: keep
  Extension.url|Identifier.system|Coding.system|Quantity.unit|Quantity.system|Bundle.link.relation|Bundle.entry.response.status: keep
elements:
  - { path: "nodesByType('Identifier').where(system = 'http://h/mrn').value", do: { token: { class: mrn } } }
  - { path: "nodesByType('Identifier').where(system = 'http://h/open').value", do: keep }
  - { path: "Patient.contact", do: remove }
"#;

fn engine_of(yaml: &str, domain: &str) -> Arc<Engine> {
    let rules = Compiled::new(yaml).unwrap_or_else(|m| panic!("{m:?}"));
    let keyring = Keyring::generate([9; 32], "2026-11-23T10:00:00Z");
    Arc::new(Engine::new(rules, &keyring, &Domain::new(domain).unwrap(), Options::default()).unwrap())
}

/// `test`, or a pack's name.
fn engine(name: &str) -> Arc<Engine> {
    static ENGINES: OnceLock<[Arc<Engine>; 3]> = OnceLock::new();
    let all = ENGINES.get_or_init(|| {
        let pack = |name| engine_of(packs::embedded(name).unwrap(), "d");
        [engine_of(RULES, "d"), pack("fhir-r4-pseudonymized"), pack("fhir-r4-reversible")]
    });
    Arc::clone(match name {
        "test" => &all[0],
        "pseudonymized" => &all[1],
        _ => &all[2],
    })
}

fn everything() -> Option<Arc<Permit>> {
    Some(Arc::new(danger::key_holder(Caller::new("t").unwrap(), None)))
}

type Written = Result<(String, Report), (Code, String, u64)>;

fn run(mut rewriter: Rewriter, input: &[u8], cuts: &[usize]) -> (Written, Vec<u8>) {
    let mut output = Vec::new();
    let mut from = 0;
    let mut steps = || {
        for &cut in cuts.iter().chain([&input.len()]) {
            rewriter.write(&input[from..cut], &mut output)?;
            from = cut;
        }
        rewriter.finish(&mut output)
    };
    let done = steps();
    let written = done
        .map_err(|r| (r.code, r.path, r.byte))
        .map(|()| (String::from_utf8(output.clone()).unwrap(), rewriter.take_report()));
    (written, output)
}

fn out(engine: &Arc<Engine>, input: &[u8], cuts: &[usize]) -> (Written, Vec<u8>) {
    run(Rewriter::pseudonymize(Arc::clone(engine), Format::Json), input, cuts)
}

fn back(engine: &Arc<Engine>, input: &str, permit: Option<Arc<Permit>>) -> String {
    run(Rewriter::reidentify(Arc::clone(engine), Format::Json, permit), input.as_bytes(), &[]).0.expect("comes back").0
}

/// Runs whole, byte by byte, and with one cut at every place: nobody may see where the network cut.
#[track_caller]
fn pseudonymized(name: &str, input: &str) -> Result<String, Code> {
    let engine = engine(name);
    let (whole, bytes) = out(&engine, input.as_bytes(), &[]);
    for cut in 0..=input.len() {
        let (other, other_bytes) = out(&engine, input.as_bytes(), &[cut]);
        assert_eq!(other, whole, "cut at {cut}");
        assert_eq!(other_bytes, bytes, "cut at {cut}");
    }
    let every: Vec<usize> = (1..input.len()).collect();
    assert_eq!(out(&engine, input.as_bytes(), &every).0, whole, "byte by byte");
    whole.map(|(text, _)| text).map_err(|(code, ..)| code)
}

/// Expected output, where `TOKEN` stands for any token of ours and `SEAL` for the coding of a seal.
#[track_caller]
fn check(name: &str, input: &str, expected: Result<&str, Code>) {
    let got = pseudonymized(name, input).map(|text| {
        let mut shown = String::new();
        let mut copied = 0;
        for range in cryptonym::token::find(&text) {
            shown.push_str(&text[copied..range.start]);
            shown.push_str("TOKEN");
            copied = range.end;
        }
        shown.push_str(&text[copied..]);
        shown.replace(r#"{"system":"urn:cryptonym:seal","code":"TOKEN"}"#, "SEAL")
    });
    assert_eq!(got.as_deref().map_err(|c| *c), expected, "{input}");
}

#[test]
fn what_no_rule_touches_keeps_its_bytes() {
    let input =
        "{ \"resourceType\" : \"Patient\",\n\t\"gender\":\"female\" , \"multipleBirthInteger\": 2,\"active\":true }\n";
    check("test", input, Ok(input));
    check(
        "test",
        r#"{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"8302-2"}]},"valueQuantity":{"value":1.50e+01,"unit":"cm"}}"#,
        Ok(
            r#"{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"8302-2"}]},"valueQuantity":{"value":1.50e+01,"unit":"cm"}}"#,
        ),
    );
}

#[test]
fn a_removed_element_takes_one_comma_along() {
    check(
        "test",
        r#"{"resourceType":"Patient","name":[{"family":"Ng"}],"gender":"male"}"#,
        Ok(r#"{"resourceType":"Patient","gender":"male"}"#),
    );
    check(
        "test",
        r#"{"name":[{"family":"Ng"}],"gender":"male","resourceType":"Patient"}"#,
        Ok(r#"{"gender":"male","resourceType":"Patient"}"#),
    );
    check(
        "test",
        r#"{"name":[{"family":"Ng"}], "contact":[{"gender":"male"}] , "resourceType":"Patient"}"#,
        Ok(r#"{ "resourceType":"Patient"}"#),
    );
    check("test", r#"{"resourceType":"Patient" , "name":[{"family":"Ng"}] }"#, Ok(r#"{"resourceType":"Patient"  }"#));
}

#[test]
fn an_element_goes_with_what_it_empties() {
    // maritalStatus holds nothing but free text; an Extension nothing but its url; a contact nothing but its id.
    check(
        "test",
        r#"{"resourceType":"Patient","maritalStatus":{"text":"wed"},"gender":"male"}"#,
        Ok(r#"{"resourceType":"Patient","gender":"male"}"#),
    );
    check(
        "test",
        r#"{"resourceType":"Patient","extension":[{"url":"http://x/y","valueString":"Ng"}]}"#,
        Ok(r#"{"resourceType":"Patient"}"#),
    );
    check(
        "test",
        r#"{"resourceType":"Patient","extension":[{"url":"http://x/y","valueString":"Ng"},{"url":"http://x/z","valueBoolean":true}]}"#,
        Ok(r#"{"resourceType":"Patient","extension":[{"url":"http://x/z","valueBoolean":true}]}"#),
    );
    check(
        "test",
        r#"{"resourceType":"Patient","_gender":{"id":"a","extension":[{"url":"http://x/y","valueString":"Ng"}]},"gender":"male"}"#,
        Ok(r#"{"resourceType":"Patient","gender":"male"}"#),
    );
}

#[test]
fn where_nothing_may_go_the_value_is_marked_as_masked() {
    check(
        "test",
        r#"{"resourceType":"Observation","status":"final","code":{"text":"Ng's pressure"}}"#,
        Ok(
            r#"{"resourceType":"Observation","status":"final","code":{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"masked"}]}}"#,
        ),
    );
    check(
        "test",
        r#"{"resourceType":"Endpoint","status":"active","connectionType":{"code":"x","system":"http://loinc.org"},"payloadType":[{"text":"Ng"}],"address":"http://ng.example"}"#,
        Ok(
            r#"{"resourceType":"Endpoint","status":"active","connectionType":{"code":"x","system":"http://loinc.org"},"payloadType":[{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"masked"}]}],"_address":{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"masked"}]}}"#,
        ),
    );
}

#[test]
fn an_identifier_is_decided_by_its_system_wherever_that_stands() {
    let mrn = r#"{"resourceType":"Patient","identifier":[{"value":"4711","system":"http://h/mrn"}]}"#;
    check("test", mrn, Ok(r#"{"resourceType":"Patient","identifier":[{"value":"TOKEN","system":"http://h/mrn"}]}"#));
    check(
        "test",
        &mrn.replace("mrn", "open"),
        Ok(r#"{"resourceType":"Patient","identifier":[{"value":"4711","system":"http://h/open"}]}"#),
    );
    let token = |system: &str| pseudonymized("test", &mrn.replace("mrn", system)).unwrap().replace(system, "");
    assert_ne!(token("mrn"), token("other"), "another class, another token");
    assert_eq!(token("other"), token("third"), "one class, one token");
    // The same text with the system escaped in its spelling.
    check(
        "test",
        &mrn.replace("http:", "http\\u003a"),
        Ok(r#"{"resourceType":"Patient","identifier":[{"value":"TOKEN","system":"http\u003a//h/mrn"}]}"#),
    );
}

#[test]
fn codes_of_listed_systems_stay_and_others_go() {
    check(
        "test",
        r#"{"resourceType":"Condition","code":{"coding":[{"system":"http://snomed.info/sct","code":"1","display":"d"},{"system":"http://h/local","code":"NG-ROOM"}]},"subject":{"display":"Ng"}}"#,
        Ok(
            r#"{"resourceType":"Condition","code":{"coding":[{"system":"http://snomed.info/sct","code":"1"},{"system":"http://h/local"}]},"subject":{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"masked"}]}}"#,
        ),
    );
}

#[test]
fn dates_move_with_their_patient_and_are_sealed() {
    let observation = |reference: &str, date: &str| {
        format!(
            r#"{{"resourceType":"Observation","status":"final","subject":{{"reference":"{reference}"}},"effectiveDateTime":"{date}"}}"#
        )
    };
    check(
        "test",
        &observation("Patient/p1", "2020-01-31T10:00:00.5+01:00").replace("2020-01-31", "2020"),
        Err(Code::BadDate),
    );
    let date_of =
        |text: &str| text.split("effectiveDateTime\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let moved = pseudonymized("test", &observation("Patient/p1", "2020-01-31T10:00:00.5+01:00")).unwrap();
    assert!(date_of(&moved).ends_with("T10:00:00.5+01:00") && !date_of(&moved).starts_with("2020-01-31"));
    assert!(
        moved.ends_with(r#""}]}}"#) && moved.contains(r#","meta":{"tag":[{"system":"urn:cryptonym:seal""#),
        "{moved}"
    );
    let again = pseudonymized("test", &observation("Patient/p1", "2020-01-31")).unwrap();
    assert_eq!(date_of(&again), date_of(&moved)[..10]);
    check(
        "test",
        &observation("Patient/p1", "2020"),
        Ok(
            r#"{"resourceType":"Observation","status":"final","subject":{"reference":"Patient/TOKEN"},"effectiveDateTime":"2020"}"#,
        ),
    );
    check(
        "test",
        &observation("Group/g1", "2020-05-05"),
        Ok(
            r#"{"resourceType":"Observation","status":"final","subject":{"reference":"Group/TOKEN"},"effectiveDateTime":"2020"}"#,
        ),
    );
    check(
        "test",
        &observation("Patient/p1", "9999-12-31"),
        Ok(
            r#"{"resourceType":"Observation","status":"final","subject":{"reference":"Patient/TOKEN"},"effectiveDateTime":"9999-12-31"}"#,
        ),
    );
    check("test", &observation("Patient/p1", "2020-13-31"), Err(Code::BadDate));
    check("test", &moved, Err(Code::Sealed));
}

#[test]
fn the_seal_goes_last_into_what_is_there() {
    let with = |meta: &str| format!(r#"{{"resourceType":"Patient","id":"p",{meta}"birthDate":"1980-02-03"}}"#);
    let shown = |meta: &str| {
        let text = pseudonymized("test", &with(meta)).unwrap();
        let at = text.find("\"meta\"").unwrap();
        text[at..].split("\"urn:cryptonym:seal\"").next().unwrap().to_owned()
    };
    assert_eq!(shown(""), r#""meta":{"tag":[{"system":"#);
    assert_eq!(shown(r#""meta":{"versionId":"7"},"#), r#""meta":{"versionId":"7","tag":[{"system":"#);
    assert_eq!(
        shown(r#""meta":{"tag":[{"system":"http://loinc.org","code":"a"}]},"#),
        r#""meta":{"tag":[{"system":"http://loinc.org","code":"a"},{"system":"#
    );
    assert_eq!(shown(r#""meta":{"lastUpdated":"2020-01-01T00:00:00Z"},"#), r#""meta":{"tag":[{"system":"#);
}

#[test]
fn bundles_are_streamed_and_held_alike() {
    let entry = r#"{"fullUrl":"urn:uuid:6c5d9ca9-54d7-42f5-bfae-a7c19cd217f2","resource":{"resourceType":"Patient","id":"p1","birthDate":"1980-02-03","name":[{"family":"Ng"}]},"request":{"method":"PUT","url":"Patient/p1","ifNoneExist":"identifier=http://h/mrn|4711"}}"#;
    let streamed = format!(
        r#"{{"resourceType":"Bundle","type":"transaction","timestamp":"2020-01-01T00:00:00Z","entry":[{entry} , {entry}], "total":2}}"#
    );
    let held = format!(
        r#"{{"type":"transaction","resourceType":"Bundle","timestamp":"2020-01-01T00:00:00Z","entry":[{entry} , {entry}], "total":2}}"#
    );
    let streamed = pseudonymized("test", &streamed).unwrap();
    let held = pseudonymized("test", &held).unwrap();
    let swap = r#""resourceType":"Bundle","type":"transaction""#;
    assert_eq!(streamed, held.replace(r#""type":"transaction","resourceType":"Bundle""#, swap));
    assert!(
        !streamed.contains("4711")
            && !streamed.contains("p1\"")
            && !streamed.contains("6c5d9ca9")
            && !streamed.contains("timestamp"),
        "{streamed}"
    );
}

#[test]
fn tests_of_a_member() {
    let rules = |test: &str| {
        format!(
            "{}\n  - {{ path: \"nodesByType('ContactPoint').where({test}).value\", do: keep }}\n",
            RULES.trim_end().replace("HumanName: remove", "HumanName|ContactPoint: remove\n  ContactPoint.use: keep")
        )
    };
    let shown = |engine: &Arc<Engine>, point: &str| {
        let document = format!(r#"{{"resourceType":"Patient","telecom":[{point}]}}"#);
        out(engine, document.as_bytes(), &[]).0.unwrap().0.contains("4711")
    };
    let (old, other, none) =
        (r#"{"value":"4711","use":"old"}"#, r#"{"use":"mobile","value":"4711"}"#, r#"{"value":"4711"}"#);
    for (test, of_old, of_other, of_none) in [
        ("use = 'old'", true, false, false),
        ("use != 'old'", false, true, false),
        ("use.exists()", true, true, false),
        ("use.hasValue()", true, true, false),
        ("use.empty()", false, false, true),
        ("use.exists().not()", false, false, true),
        ("use.startsWith('ol')", true, false, false),
        ("use.startsWith('ol').not()", false, true, false),
        ("use.endsWith('ile')", false, true, false),
        ("use.contains('l')", true, true, false),
        ("use.contains('b') or use = 'old'", true, true, false),
        ("use.contains('b') and use != 'mobile'", false, false, false),
        ("use.empty() or use.contains('ld')", true, false, true),
    ] {
        let engine = engine_of(&rules(test), "d");
        let crosses = [old, other, none].map(|point| shown(&engine, point));
        assert_eq!(crosses, [of_old, of_other, of_none], "{test}");
    }
}

#[test]
fn references_of_every_form() {
    let refers =
        |to: &str| format!(r#"{{"resourceType":"Observation","status":"final","focus":[{{"reference":"{to}"}}]}}"#);
    let shown = |to: &str| refers(to);
    for (to, becomes) in [
        ("Patient/1", Ok("Patient/TOKEN")),
        ("Patient/1/_history/2", Ok("Patient/TOKEN/_history/2")), // these rules keep Meta.versionId
        ("Questionnaire/phq-9/_history/2", Ok("Questionnaire/phq-9/_history/2")),
        ("https://other.example/fhir/Patient/1", Ok("urn:cryptonym:TOKEN")),
        ("Practitioner?identifier=http://h/mrn|4711", Ok("Practitioner?identifier=http://h/mrn|TOKEN")),
        ("Practitioner?identifier=http://h/open|4711", Ok("Practitioner?identifier=http://h/open|4711")),
        ("Questionnaire/phq-9", Ok("Questionnaire/phq-9")),
        ("urn:oid:1.2.3", Ok("urn:cryptonym:TOKEN")),
        ("#", Ok("#")),
        ("#p1", Ok("#TOKEN")),
        ("Patient/../Observation/1", Err(Code::BadReference)),
        ("Patient/1?x=y", Err(Code::BadReference)),
        ("Practitioner?name=Ng", Err(Code::SearchUnanswerable)),
        ("Practitioner?nonsense=Ng", Err(Code::SearchUnknown)),
        ("Mr. Ng", Err(Code::BadReference)),
    ] {
        check("test", &refers(to), becomes.map(shown).as_deref().map_err(|c| *c));
    }
}

#[test]
fn what_must_not_cross_is_refused() {
    for (input, code) in [
        (r#"{"resourceType":"Patient","gender":"male","gender":"male"}"#, Code::DuplicateKey),
        (r#"{"resourceType":"Patient","gender":"male","g\u0065nder":"male"}"#, Code::DuplicateKey),
        (r#"{"resourceType":"Patient","Gender":"male"}"#, Code::KeyCase),
        (r#"{"resourceType":"Patient","nickname":"Ng"}"#, Code::UnknownElement),
        (r#"{"resourceType":"Ng"}"#, Code::UnknownType),
        (r#"{"gender":"male"}"#, Code::NoResourceType),
        (r#"{"resourceType":"Patient","birthDate":19800203}"#, Code::WrongForm),
        (r#"{"resourceType":"Patient","gender":["male"]}"#, Code::WrongForm),
        (r#"{"resourceType":"Patient","name":{"family":"Ng"}}"#, Code::WrongForm),
        (r#"{"resourceType":"Patient","gender":null}"#, Code::WrongForm),
        (r#"{"resourceType":"Patient","meta":{}}"#, Code::Empty),
        (
            r#"{"resourceType":"Patient","modifierExtension":[{"url":"http://x","valueBoolean":true}]}"#,
            Code::ModifierExtension,
        ),
        (r#"{"resourceType":"Patient","id":"has space"}"#, Code::BadId),
        (r#"{"resourceType":"Patient","id":"1234567890123456789012345678901234567890"}"#, Code::IdTooLong),
        (r#"{"resourceType":"Patient","gender":"male"}x"#, Code::Trailing),
        (r#"{"resourceType":"Patient","gender":"male""#, Code::Truncated),
        (r#"{"resourceType":"Patient","gender":"ma\ule"}"#, Code::BadJson),
        (r#"{"resourceType":"Patient","gender":01}"#, Code::WrongForm),
        (r#"{"resourceType":"Bundle","type":"batch","entry":[]}"#, Code::Empty),
        (
            r#"{"resourceType":"Bundle","type":"batch","entry":[{"resource":{"resourceType":"Patient","x":1}}]}"#,
            Code::UnknownElement,
        ),
    ] {
        check("test", input, Err(code));
    }
}

#[test]
fn after_a_refusal_nothing_more_comes_out() {
    let engine = engine("test");
    let good = r#"{"resource":{"resourceType":"Patient","gender":"male"}}"#;
    let bad = r#"{"resource":{"resourceType":"Patient","name":[{"family":"Canary","family":"x"}]}}"#;
    let mut rewriter = Rewriter::pseudonymize(Arc::clone(&engine), Format::Json);
    let mut output = Vec::new();
    let input = format!(r#"{{"resourceType":"Bundle","type":"batch","entry":[{good},{bad},{good}]}}"#);
    let refusal = rewriter.write(input.as_bytes(), &mut output).unwrap_err();
    assert_eq!((refusal.code, refusal.path.as_str()), (Code::DuplicateKey, "Bundle.entry[1].resource.name[0].family"));
    let length = output.len();
    assert_eq!(rewriter.write(good.as_bytes(), &mut output), Err(refusal.clone()));
    assert_eq!(rewriter.finish(&mut output), Err(refusal));
    assert_eq!(output.len(), length);
    assert!(!String::from_utf8(output).unwrap().contains("Canary"));
}

#[test]
fn only_a_permit_reveals_and_only_its_classes() {
    let engine = engine("reversible");
    let input = r#"{"resourceType":"Patient","id":"p1","identifier":[{"system":"http://h/mrn","value":"4711"}],"name":[{"family":"Ng"}],"birthDate":"1980-02-03"}"#;
    let sealed = pseudonymized("reversible", input).unwrap();
    assert_eq!(back(&engine, &sealed, everything()), input);
    assert_eq!(back(&engine, &sealed, None), sealed);
    let caller = Caller::new("lab").unwrap();
    let classes = [(Some(Class::new("identifier").unwrap()), Reveal::Plain)].into();
    let policy = Policy::new(vec![Grant { callers: vec![caller.clone()], routes: vec![], purposes: vec![], classes }]);
    let seen = back(&engine, &sealed, policy.permit(&caller, "r", None).map(Arc::new));
    assert!(
        seen.contains("4711")
            && !seen.contains("Ng")
            && !seen.contains("\"p1\"")
            && !seen.contains("1980-02-03")
            && seen.contains("urn:cryptonym:seal")
    );
}

#[test]
fn a_token_at_a_place_of_another_class_or_domain_stays() {
    let engine = engine("reversible");
    let sealed = pseudonymized(
        "reversible",
        r#"{"resourceType":"Patient","identifier":[{"system":"http://h/mrn","value":"4711"}]}"#,
    )
    .unwrap();
    let token = sealed[cryptonym::token::find(&sealed).next().unwrap()].to_owned();
    let planted = format!(r#"{{"resourceType":"Patient","name":[{{"family":"{token}"}}],"gender":"{token}"}}"#);
    assert_eq!(back(&engine, &planted, everything()), planted);
    check("reversible", &planted, Err(Code::LookAlike));
    let other = engine_of(packs::embedded("fhir-r4-reversible").unwrap(), "other");
    assert_eq!(back(&other, &sealed, everything()), sealed);
}

#[test]
fn foreign_ids_are_escaped_and_come_back_as_they_were() {
    let engine = engine("reversible");
    let answer = r#"{"resourceType":"Observation","id":"42","status":"final","subject":{"reference":"Patient/7"},"identifier":[{"value":"THEIRS"}]}"#;
    let shown = back(&engine, answer, None);
    assert!(!shown.contains("\"42\"") && shown.contains("42\"") && shown.contains("THEIRS\""), "{shown}");
    let (again, _) = out(&engine, shown.as_bytes(), &[]);
    assert_eq!(again.unwrap().0, answer);
    let forged = shown.replacen("42\"", "43\"", 1);
    let (changed, _) = out(&engine, forged.as_bytes(), &[]);
    assert!(!changed.unwrap().0.contains("\"43\""), "a forged escape is a trusted id like any other");
    let long = format!(r#"{{"resourceType":"Patient","id":"{}"}}"#, "x".repeat(53));
    let refused = run(Rewriter::reidentify(engine, Format::Json, None), long.as_bytes(), &[]).0.unwrap_err();
    assert_eq!(refused.0, Code::ForeignIdTooLong);
}

#[test]
fn of_several_seals_the_one_of_the_subject_counts() {
    let engine = engine("reversible");
    let seal_of = |text: &str| text.split(r#"seal","code":""#).nth(1).unwrap().split('"').next().unwrap().to_owned();
    let observation = |patient: &str| {
        format!(
            r#"{{"resourceType":"Observation","status":"final","subject":{{"reference":"Patient/{patient}"}},"effectiveDateTime":"2020-02-03"}}"#
        )
    };
    let (ours, theirs) = (
        pseudonymized("reversible", &observation("a")).unwrap(),
        pseudonymized("reversible", &observation("b")).unwrap(),
    );
    let merged = ours
        .replace("\"tag\":[", &format!(r#""tag":[{{"system":"urn:cryptonym:seal","code":"{}"}},"#, seal_of(&theirs)));
    assert_eq!(back(&engine, &merged, everything()), observation("a"));
    let neither = ours
        .replace(&seal_of(&ours), &seal_of(&theirs))
        .replace("\"tag\":[", r#""tag":[{"system":"urn:cryptonym:seal","code":"forged"},"#);
    assert!(!back(&engine, &neither, everything()).contains("urn:cryptonym:seal"), "all are removed");
    let forged = ours.replace(&seal_of(&ours), "forged");
    assert_ne!(back(&engine, &forged, everything()), observation("a"), "no valid seal, no unshift");
}

#[test]
fn ndjson_keeps_its_lines() {
    let engine = engine("test");
    let line = r#"{"resourceType":"Patient","gender":"male","name":[{"family":"Ng"}]}"#;
    let kept = r#"{"resourceType":"Patient","gender":"male"}"#;
    let input = format!("{line}\r\n\n{line}");
    for cut in 0..=input.len() {
        let (written, _) = run(Rewriter::pseudonymize(Arc::clone(&engine), Format::Ndjson), input.as_bytes(), &[cut]);
        assert_eq!(written.unwrap().0, format!("{kept}\r\n\n{kept}"));
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[A-Za-z ]{1,12}", any::<String>().prop_filter("not empty", |s| !s.is_empty())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever stands in it: it comes back, it is cut anywhere, and the name is nowhere in what leaves.
    #[test]
    fn a_patient_comes_back_and_never_shows(family in name(), given in prop::collection::vec(name(), 1..4), id in "[A-Za-z0-9.-]{1,36}", value in name(), day in 1u8..29, cut in any::<prop::sample::Index>()) {
        prop_assume!(id != "." && id != "..");
        let document = serde_json::json!({"resourceType": "Patient", "id": id, "identifier": [{"system": "http://h/x", "value": value}],
            "name": [{"family": family, "given": given}], "birthDate": format!("1980-03-{day:02}"), "gender": "other"});
        let input = document.to_string();
        let engine = engine("reversible");
        let (whole, _) = out(&engine, input.as_bytes(), &[]);
        let (cut, _) = out(&engine, input.as_bytes(), &[cut.index(input.len())]);
        prop_assert_eq!(&whole, &cut);
        if let Ok((sealed, _)) = whole {
            let visible: String = {
                let mut text = sealed.clone();
                let ranges: Vec<_> = cryptonym::token::find(&sealed).collect();
                for range in ranges.into_iter().rev() {
                    text.replace_range(range, "");
                }
                text
            };
            if family.len() > 12 && family.is_ascii() { prop_assert!(!visible.contains(&family)); }
            let again: serde_json::Value = serde_json::from_str(&back(&engine, &sealed, everything())).unwrap();
            prop_assert_eq!(again, document);
        }
    }

    /// No bytes at all make it panic, and what is refused leaves no half of a unit behind.
    #[test]
    fn any_bytes_are_survived(input in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), noise in any::<u8>()) {
        let engine = engine("test");
        let _ = out(&engine, &input, &[]);
        let mut real = br#"{"resourceType":"Patient","name":[{"family":"CanaryCanary"}],"contact":[{"name":{"text":"CanaryCanary"}}],"gender":"male"}"#.to_vec();
        let place = at.index(real.len());
        real[place] = noise;
        let (_, bytes) = out(&engine, &real, &[]);
        prop_assert!(!String::from_utf8_lossy(&bytes).contains("CanaryCanary"));
    }
}

// === found by an independent attack; each line of the tables is a case that got through once ===

#[test]
fn a_foreign_url_is_one_token_and_never_joined_anew() {
    let refers =
        |to: &str| format!(r#"{{"resourceType":"Observation","status":"final","focus":[{{"reference":"{to}"}}]}}"#);
    let engine = engine("reversible");
    let foreign = pseudonymized("reversible", &refers("http://evil.example/x/Patient/1")).unwrap();
    assert_eq!(back(&engine, &foreign, everything()), refers("http://evil.example/x/Patient/1"));
    let patient = pseudonymized("reversible", &refers("Patient/MRN4711")).unwrap();
    let token = patient[cryptonym::token::find(&patient).next().unwrap()].to_owned();
    for planted in [
        format!("http://evil.example/x/Patient/{token}"),
        format!("http://cryptonym.invalid/{token}/Patient/{token}"),
        format!("urn:cryptonym:{token}"),
    ] {
        assert_eq!(back(&engine, &refers(&planted), everything()), refers(&planted));
    }
}

#[test]
fn what_is_kept_has_the_form_of_its_type() {
    for (member, code) in [
        (r#""gender":"John Smith""#, Code::BadValue),
        (r#""gender":"male ""#, Code::BadValue),
        (r#""meta":{"lastUpdated":"Ada Lovelace"}"#, Code::BadValue),
        (r#""meta":{"versionId":"Ada Lovelace"}"#, Code::BadValue),
        (r#""meta":{"profile":["Ada Lovelace"]}"#, Code::BadValue),
        (r#""meta":{"profile":["http://h/Patient/MRN4711"]}"#, Code::BadValue),
        (r#""meta":{"tag":[{"system":"Lovelace, Ada","code":"a"}]}"#, Code::BadValue),
        (r#""identifier":[{"system":"MRN 4711 Lovelace","value":"x"}]"#, Code::BadValue),
        (r#""extension":[{"url":"Lovelace, Ada 1815-12-10","valueBoolean":true}]"#, Code::BadValue),
        (r#""extension":[{"url":"http://x","valueTime":"Ada Lovelace"}]"#, Code::BadValue),
        (r#""extension":[{"url":"http://x","valueInteger":1e5}]"#, Code::BadValue),
        (r#""multipleBirthInteger":1.5"#, Code::BadValue),
        (r#""implicitRules":"mailto:ada@lovelace.example""#, Code::BadValue),
    ] {
        check("reversible", &format!(r#"{{"resourceType":"Patient",{member}}}"#), Err(code));
    }
}

/// Found by an attack: whatever names a record instead of a definition, reaches somebody, or is a sentence.
#[test]
fn a_canonical_names_a_definition_and_no_record() {
    let canonical = |text: &str| {
        let plan = r#"{"resourceType":"CarePlan","status":"active","intent":"plan","subject":{"reference":"Patient/p"},"instantiatesCanonical":["@"]}"#;
        pseudonymized_whole_of("pseudonymized", &plan.replace('@', text))
    };
    for text in [
        "http://h/fhir/Patient/4711",
        "http://h/fhir/Patient/4711/_history/3",
        "http://h/fhir/Patient/4711/",
        "http://h/fhir/Patient//4711",
        "http://h/fhir/Patient/4711/$everything",
        "http://h/fhir/Patient?identifier=urn:mrn|4711",
        "http://h/fhir/patient/4711",
        "Patient%2F4711",
        "http://h/Questionnaire/1#Patient/4711",
        "mailto:ada.lovelace@x.org",
        "Tel:+4930123456",
    ] {
        assert_eq!(canonical(text), Err(Code::BadValue), "{text}");
    }
    for text in ["http://hl7.org/fhir/StructureDefinition/Patient|4.0.1", "http://h/Questionnaire/1", "#q"] {
        assert!(canonical(text).unwrap().contains(text), "{text}");
    }
    for member in [
        r#""identifier":[{"system":"MAILTO:ada@x.org","value":"1"}]"#,
        r#""identifier":[{"system":"http://h/Patient/4711","value":"1"}]"#,
        r#""gender":"Ada; Lovelace; London""#,
        r#""maritalStatus":{"coding":[{"system":"http://loinc.org","code":"Ada Lovelace"}]}"#,
        r#""maritalStatus":{"coding":[{"system":"http://loinc.org","version":"Ada Lovelace","code":"1-8"}]}"#,
    ] {
        let patient = format!(r#"{{"resourceType":"Patient",{member}}}"#);
        assert_eq!(pseudonymized_whole_of("pseudonymized", &patient), Err(Code::BadValue), "{member}");
    }
    let foreign = r#"{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"1-8"}]},"focus":[{"reference":"http://h/patient/4711/Questionnaire/1"}]}"#;
    assert!(!pseudonymized_whole_of("reversible", foreign).unwrap().contains("4711"));
}

fn pseudonymized_whole_of(name: &str, input: &str) -> Result<String, Code> {
    out(&engine(name), input.as_bytes(), &[]).0.map(|(text, _)| text).map_err(|(code, ..)| code)
}

/// Found by an attack: what a fragment names depends on the resource in which it stands, also where its `#` is escaped.
#[test]
fn a_fragment_means_what_its_own_resource_contains() {
    let about = |kind: &str| {
        format!(
            r##"{{"resourceType":"Observation","status":"final","code":{{"coding":[{{"system":"http://loinc.org","code":"1-8"}}]}},"contained":[{{"resourceType":"{kind}","id":"Lovelace"}}],"focus":[{{"reference":"\u0023Lovelace"}}]}}"##
        )
    };
    let mut rewriter = Rewriter::pseudonymize(engine("pseudonymized"), Format::Ndjson);
    let mut output = Vec::new();
    let lines = format!("{}\n{}\n", about("Basic").replace("Basic", "List"), about("List"));
    rewriter.write(lines.as_bytes(), &mut output).unwrap();
    rewriter.finish(&mut output).unwrap();
    assert!(!String::from_utf8(output).unwrap().contains("Lovelace"));
    let mut rewriter = Rewriter::pseudonymize(engine("pseudonymized"), Format::Ndjson);
    let questionnaire = about("Questionnaire").replace(r#""id":"Lovelace"}"#, r#""id":"Lovelace","status":"draft"}"#);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    rewriter.document(questionnaire.as_bytes(), &mut first).unwrap();
    rewriter.document(about("List").as_bytes(), &mut second).unwrap();
    assert!(String::from_utf8(first).unwrap().contains("Lovelace"), "the id of a definition stays, and what names it");
    assert!(!String::from_utf8(second).unwrap().contains("Lovelace"));
}

/// A `where` of a modifierExtension is decided before it is refused.
#[test]
fn a_modifier_extension_that_a_rule_names_is_decided_by_it() {
    let pack = packs::embedded("fhir-r4-pseudonymized").unwrap();
    let rule =
        "\nelements:\n  - { path: \"Patient.modifierExtension.where(url = 'http://ok')\", do: remove, why: test }\n";
    let engine = engine_of(&pack.replacen("\nelements:\n", rule, 1), "test");
    let sent = |url: &str| {
        let patient = format!(
            r#"{{"resourceType":"Patient","modifierExtension":[{{"url":"{url}","valueBoolean":true}}],"active":true}}"#
        );
        out(&engine, patient.as_bytes(), &[]).0.map(|(text, _)| text).map_err(|(code, ..)| code)
    };
    assert_eq!(sent("http://ok"), Ok(r#"{"resourceType":"Patient","active":true}"#.to_owned()));
    assert_eq!(sent("http://other"), Err(Code::ModifierExtension));
}

#[test]
fn uids_and_codes_of_extensions_do_not_cross() {
    let study = r#"{"resourceType":"ImagingStudy","status":"available","subject":{"reference":"Patient/p"},"series":[{"uid":"1.2.276.4711","modality":{"system":"http://dicom.nema.org/resources/ontology/DCM","code":"DX"}}]}"#;
    let patient = r#"{"resourceType":"Patient","extension":[{"url":"http://x","valueCode":"Ada"},{"url":"http://x","valueId":"MRN4711"}],"gender":"female"}"#;
    for pack in ["pseudonymized", "reversible"] {
        let (study, patient) = (pseudonymized(pack, study).unwrap(), pseudonymized(pack, patient).unwrap());
        assert!(!study.contains("4711") && !patient.contains("4711") && !patient.contains("Ada"), "{study} {patient}");
    }
}

#[test]
fn no_birth_shares_another_offset() {
    let offset = |input: &str, member: &str| {
        let text = pseudonymized("reversible", input).unwrap();
        let at = text.rfind(&format!("\"{member}\":\"")).unwrap() + member.len() + 4;
        let day = |text: &str| {
            cryptonym::fhir::date::FhirDate::parse(cryptonym::fhir::Primitive::Date, text)
                .unwrap()
                .day_number()
                .unwrap()
        };
        day(&text[at..at + 10]) - day("1980-02-03")
    };
    let patient = offset(r#"{"resourceType":"Patient","id":"p","birthDate":"1980-02-03"}"#, "birthDate");
    let event = offset(
        r#"{"resourceType":"Observation","status":"final","subject":{"reference":"Patient/p"},"effectiveDateTime":"1980-02-03"}"#,
        "effectiveDateTime",
    );
    let time = offset(
        r#"{"resourceType":"Patient","id":"p","extension":[{"url":"http://hl7.org/fhir/StructureDefinition/patient-birthTime","valueDateTime":"1980-02-03"}]}"#,
        "valueDateTime",
    );
    let relative = offset(
        r#"{"resourceType":"RelatedPerson","id":"r","patient":{"reference":"Patient/p"},"birthDate":"1980-02-03"}"#,
        "birthDate",
    );
    assert_ne!(patient, event);
    assert_eq!(patient, time);
    assert!(relative != patient && relative != event);
    // Found by an attack: the offset of a resource's own is its own, also where ids are counted for each type.
    let place = offset(
        r#"{"resourceType":"Location","id":"p","extension":[{"url":"http://x","valueDate":"1980-02-03"}]}"#,
        "valueDate",
    );
    let relative = offset(
        r#"{"resourceType":"RelatedPerson","id":"p","patient":{"reference":"Patient/x"},"birthDate":"1980-02-03"}"#,
        "birthDate",
    );
    assert!(place != event && relative != patient);
}

#[test]
fn a_bundle_of_its_own_dates_is_the_same_held_and_streamed() {
    let members = r#""identifier":{"system":"http://x","value":"v","period":{"start":"2020-02-03"}}"#;
    check("reversible", &format!(r#"{{"resourceType":"Bundle","type":"collection",{members}}}"#), Err(Code::NoSubject));
    check("reversible", &format!(r#"{{"type":"collection",{members},"resourceType":"Bundle"}}"#), Err(Code::NoSubject));
}

#[test]
fn it_comes_back_whatever_stands_around_it() {
    let engine = engine("reversible");
    for input in [
        r#"{"resourceType":"Patient","id":"p","meta":{"id":"m1"},"birthDate":"1980-02-03"}"#,
        r#"{"resourceType":"Bundle","type":"searchset","link":[{"relation":"next","url":"Patient/1"},{"relation":"self","url":"urn:uuid:6c5d9ca9-54d7-42f5-bfae-a7c19cd217f2"},{"relation":"x","url":"http://ehr/fhir/Patient/1"}]}"#,
        r#"{"resourceType":"Appointment","status":"booked","start":"2020-02-03T10:00:00Z","participant":[{"actor":{"reference":"Patient/p"},"status":"accepted"},{"actor":{"reference":"Practitioner/q"},"status":"accepted"}]}"#,
        r#"{"resourceType":"Observation","status":"final","text":{"status":"generated","div":"<div xmlns=\"http:\/\/www.w3.org\/1999\/xhtml\">Ng\u0020<\/div>"}}"#,
        r#"{"resourceType":"Patient","name":[{"given":["A","B"],"_given":[null,{"extension":[{"url":"http://x","valueString":"s"}]}]}]}"#,
    ] {
        let sealed = pseudonymized("reversible", input).unwrap_or_else(|c| panic!("{c:?}: {input}"));
        assert_eq!(back(&engine, &sealed, everything()), input);
    }
    let appointment = pseudonymized("pseudonymized", r#"{"resourceType":"Appointment","status":"booked","start":"2020-02-03T10:00:00Z","participant":[{"actor":{"reference":"Patient/p"},"status":"accepted"},{"actor":{"reference":"Practitioner/q"},"status":"accepted"}]}"#).unwrap();
    assert!(appointment.contains("urn:cryptonym:seal"), "one patient and her doctor are one subject");
}

#[test]
fn the_seal_does_not_tell_how_long_its_offset_is_written() {
    let length = |i: usize| {
        let text =
            pseudonymized_whole(&format!(r#"{{"resourceType":"Patient","id":"p{i:04}","birthDate":"1980-02-03"}}"#));
        text.split(r#"seal","code":""#).nth(1).unwrap().split('"').next().unwrap().len()
    };
    let lengths: std::collections::BTreeSet<usize> = (0..200).map(length).collect();
    assert_eq!(lengths.len(), 1);
}

fn pseudonymized_whole(input: &str) -> String {
    out(&engine("reversible"), input.as_bytes(), &[]).0.unwrap().0
}

#[test]
fn words_of_the_untrusted_side_reveal_nothing() {
    let engine = engine("reversible");
    let note = pseudonymized(
        "reversible",
        r#"{"resourceType":"Observation","status":"final","note":[{"text":"told nobody"}]}"#,
    )
    .unwrap();
    let token = note[cryptonym::token::find(&note).next().unwrap()].to_owned();
    let outcome = format!(
        r#"{{"resourceType":"OperationOutcome","issue":[{{"severity":"error","code":"invalid","diagnostics":"{token}"}}]}}"#
    );
    assert_eq!(back(&engine, &outcome, everything()), outcome);
}

#[test]
fn a_search_asks_for_nothing_in_clear() {
    let engine = engine("reversible");
    let asked = |target: &str| cryptonym::rewrite::url::request(&engine, "GET", target).map_err(|r| r.code);
    for (target, code) in [
        ("/Patient?identifier=MRN4711%7C", Code::SearchUnknown),
        ("/Patient?identifier=MRN4711%7Chttp://sys", Code::SearchUnknown),
        ("/Patient?_sort=AdaLovelace", Code::SearchUnknown),
        ("/Patient?_elements=AdaLovelace", Code::SearchUnknown),
        ("/Patient?_include=Ada:Lovelace", Code::SearchUnknown),
        ("/Patient?_summary=Ada", Code::SearchUnknown),
        ("/Patient?gender=AdaLovelace", Code::SearchUnanswerable),
        // Found by an attack: what is asked for has the form that a body must have.
        ("/Patient?active=lovelace-ada-1815-12-10", Code::SearchUnanswerable),
        ("/Observation?code=http://loinc.org%7CAda%20%20Lovelace", Code::SearchUnanswerable),
        ("/Observation?code=http://loinc.org%7CAda%20Lovelace", Code::SearchUnanswerable),
        (
            "/Observation?_tag=http://loinc.org%7CAda%20Lovelace%20born%201815-12-10%20at%2012%20Saint%20James%20Square%20in%20London",
            Code::SearchUnanswerable,
        ),
        ("/Observation?code=http://loinc.org/Patient/4711%7C1-8", Code::SearchUnanswerable),
        ("/Patient?identifier=tel:%2B4930123%7C1", Code::SearchUnknown),
        ("/Patient?identifier=mailto:ada@x.org%7C", Code::SearchUnknown),
        ("/Patient?identifier=MRN:4711%7Chttp://h", Code::SearchUnknown),
        ("/Patient?name=Lovelace", Code::SearchUnanswerable),
        ("/Patient?birthdate=1815-12-10", Code::SearchUnanswerable),
        ("/Observation?category=ada-lovelace", Code::SearchUnanswerable),
        ("/Observation?category:not=vital-signs", Code::SearchUnanswerable),
        ("/Observation?subject:Patient.identifier=4711", Code::SearchUnanswerable),
        // Shifted dates: one patient, a whole day, and never a birth.
        ("/Observation?date=ge2015-01-01", Code::SearchUnanswerable),
        ("/Observation?patient=p1,p2&date=ge2015-01-01", Code::SearchUnanswerable),
        ("/Observation?patient=p1&subject=Patient/p2&date=ge2015-01-01", Code::SearchUnanswerable),
        ("/Observation?patient=p1&date=2015", Code::SearchUnanswerable),
        ("/Observation?patient=p1&date=2015-01", Code::SearchUnanswerable),
        ("/Observation?patient=p1&date=AdaLovelace", Code::SearchUnanswerable),
        ("/Observation?patient=p1&date:missing=true", Code::SearchUnanswerable),
        ("/Patient?_id=p1&birthdate=1815-12-10", Code::SearchUnanswerable),
        ("/Subscription/p1/$status?a=b", Code::OperationRefused),
        ("/Patient?_content=Ada", Code::SearchUnanswerable),
        ("/Patient/$everything", Code::OperationRefused),
    ] {
        assert_eq!(asked(target), Err(code), "{target}");
    }
    for (target, crosses) in [
        ("/Patient?_id=p1,p2", vec!["/Patient?_id=Zq"]),
        ("/Observation?patient=p1&_count=10", vec!["/Observation?patient=Zq", "&_count=10"]),
        ("/Observation?category=vital-signs", vec!["/Observation?category=vital-signs,Zq"]),
        ("/Encounter?class=AMB,EMER", vec!["/Encounter?class=AMB,Zq", ",EMER,Zq"]),
        ("/Observation?subject=Patient/p1", vec!["/Observation?subject=Patient/Zq"]),
        ("/Patient?identifier=http://h/mrn%7C4711", vec!["/Patient?identifier=http://h/mrn|Zq"]),
        (
            "/Observation?code=http://loinc.org%7C8302-2&_sort=-date",
            vec!["code=http://loinc.org%7C8302-2", "_sort=-date"],
        ),
        ("/Patient/p1/_history/2", vec!["/Patient/Zq", "/_history/2"]),
        ("/Observation?patient=p1&date=ge2015-06-15", vec!["/Observation?patient=Zq", "&date=ge201"]),
        ("/Subscription/p1/$status", vec!["/Subscription/Zq", "/$status"]),
    ] {
        let crossed = asked(target).unwrap();
        assert!(!crossed.contains("2015-06-15"), "{crossed}");
        assert!(
            crosses.iter().all(|c| crossed.contains(c)) && !crossed.contains("4711") && !crossed.contains("p1"),
            "{crossed}"
        );
    }
}

#[test]
fn a_bare_code_in_a_bundle_comes_back_alone() {
    let bundle = r#"{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"GET","url":"Observation?category=laboratory,exam&_count=10"}}]}"#;
    let engine = engine("reversible");
    let text = out(&engine, bundle.as_bytes(), &[]).0.unwrap().0;
    assert!(text.contains("=laboratory,Zq") && text.contains(",exam,Zq") && text.contains("&_count=10"), "{text}");
    assert_eq!(back(&engine, &text, everything()), bundle);
    assert_eq!(back(&engine, &text, None), text);
}

/// A search for a shifted date moves by the offset of the patient's own records, and back.
#[test]
fn a_date_that_is_searched_moves_with_its_patient() {
    let bundle = r#"{"resourceType":"Bundle","type":"batch","entry":[{"resource":{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/p1"},"effectiveDateTime":"2015-06-15"},"request":{"method":"POST","url":"Observation"}},{"request":{"method":"GET","url":"Observation?patient=p1&date=ge2015-06-15"}}]}"#;
    let engine = engine("reversible");
    let (written, _) = out(&engine, bundle.as_bytes(), &[]);
    let text = written.unwrap().0;
    let date = &text.split(r#""effectiveDateTime":""#).nth(1).unwrap()[..10];
    assert_ne!(date, "2015-06-15");
    assert!(text.contains(&format!("&date=ge{date}")), "{text}");
    assert_eq!(back(&engine, &text, everything()), bundle);
}

/// Newer releases: what is new in them is decided like everything else.
#[test]
fn newer_releases_cross() {
    let cases = [
        (
            "fhir-r5-reversible",
            r#"{"resourceType":"Encounter","status":"completed","subject":{"reference":"Patient/p1"},"virtualService":[{"addressUrl":"https://meet.example/ng","sessionKey":"k4711"}],"actualPeriod":{"start":"2015-06-15"},"reason":[{"value":[{"concept":{"text":"Nguyen fell"}}]}]}"#,
        ),
        (
            "fhir-r5-reversible",
            r#"{"resourceType":"SubscriptionStatus","type":"heartbeat","eventsSinceSubscriptionStart":"9007199254740993","subscription":{"reference":"Subscription/p1"}}"#,
        ),
        (
            "fhir-r4b-reversible",
            r#"{"resourceType":"NutritionProduct","status":"active","instance":{"lotNumber":"k4711","expiry":"2015-06-15"}}"#,
        ),
    ];
    for (pack, input) in cases {
        let engine = engine_of(packs::embedded(pack).unwrap(), "d");
        let (written, _) = out(&engine, input.as_bytes(), &[]);
        let text = written.unwrap().0;
        for secret in ["Nguyen", "k4711", "2015-06-15", "/p1"] {
            assert!(!text.contains(secret), "{pack}: {text}");
        }
        assert_eq!(back(&engine, &text, everything()), input);
    }
    let engine = engine_of(packs::embedded("fhir-r5-pseudonymized").unwrap(), "d");
    let big = r#"{"resourceType":"SubscriptionStatus","type":"heartbeat","eventsSinceSubscriptionStart":"Ng","subscription":{"reference":"Subscription/p1"}}"#;
    assert_eq!(out(&engine, big.as_bytes(), &[]).0.unwrap_err().0, Code::BadValue, "an integer64 is digits");
}

/// A code that a sibling's system lets cross has the form of a code, wherever the system stands; one that goes may have any.
#[test]
fn a_code_is_looked_at_where_it_stays() {
    let coded =
        |coding: &str| format!(r#"{{"resourceType":"Observation","status":"final","code":{{"coding":[{coding}]}}}}"#);
    let long = "Ng lives at the corner of the street behind the church and has a dog that barks";
    for (coding, expected) in [
        (format!(r#"{{"code":"{long}","system":"http://loinc.org"}}"#), Err(Code::BadValue)),
        (format!(r#"{{"system":"http://loinc.org","code":"{long}"}}"#), Err(Code::BadValue)),
        (format!(r#"{{"code":"{long}"}}"#), Ok(())),
    ] {
        let got = pseudonymized("pseudonymized", &coded(&coding));
        assert!(got.as_deref().is_ok_and(|text| !text.contains("Ng")) || got.is_err(), "{got:?}");
        assert_eq!(got.map(|_| ()), expected, "{coding}");
    }
}

/// De-identified by the list: no token, no day, no number of a record, ages of 90 at most.
#[test]
fn safe_harbor_holds() {
    let input = r#"{"resourceType":"Bundle","type":"collection","entry":[{"fullUrl":"http://h/Patient/p1","resource":{"resourceType":"Patient","id":"p1","identifier":[{"value":"4711"}],"name":[{"family":"Ng"}],"birthDate":"1929-03-04","address":[{"line":["Hill 5"],"city":"Berne","postalCode":"03604","country":"US"},{"postalCode":"10001","state":"NY","country":"US"}]}},{"resource":{"resourceType":"Condition","subject":{"reference":"Patient/p1"},"recordedDate":"2019-05-04","onsetAge":{"value":93,"unit":"a","system":"http://unitsofmeasure.org","code":"a"}}}]}"#;
    let engine = engine_of(packs::embedded("fhir-r4-safe-harbor").unwrap(), "d");
    let mut output = Vec::new();
    let secret = cryptonym::secret::SecretKey::new([3; 32]);
    Rewriter::pseudonymize(engine, Format::Json).within(&secret).document(input.as_bytes(), &mut output).unwrap();
    let text = String::from_utf8(output).unwrap();
    for gone in ["4711", "Ng", "1929", "Hill", "Berne", "03604", "10001", "p1", "-05-04", "93"] {
        assert!(!text.contains(gone), "{gone}: {text}");
    }
    for stays in [r#""postalCode":"100""#, r#""state":"NY""#, r#""recordedDate":"2019""#, r#""value":90"#] {
        assert!(text.contains(stays), "{stays}: {text}");
    }
    assert_eq!(cryptonym::token::find(&text).count(), 0, "{text}");
    let id = &text.split(r#""id":""#).nth(1).unwrap()[..32];
    assert!(text.contains(&format!(r#""Patient/{id}""#)), "links hold: {text}");
}
