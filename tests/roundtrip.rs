//! There and back: what the reversible pack rewrote comes back as it was, links hold on the way, and what goes out is FHIR.
//!
//! Pairs made by hand come first, faulty ones among them, because a check that finds nothing proves nothing.

mod support;

use std::collections::BTreeMap;
use support::corpora::{self, File, say};
use support::json;
use support::product::{PSEUDONYMIZED, Product, REVERSIBLE, plugged};
use support::roundtrip::{Links, Mapping, Required, identity_fault, rewriting_faults, shape_faults};
use support::schema::Schema;

const PATIENT: &str = r#"{"resourceType":"Patient","id":"p1","name":[{"family":"Ng","given":["Bo","Al"],"_given":[null,{"id":"g2"}]}],"gender":"male","multipleBirthInteger":2}"#;

#[test]
fn faults_of_a_round_trip_are_found() {
    let Some(schema) = Schema::shared() else { return };
    let fault = |before: &str, back: &str| identity_fault(&schema, before, back);
    assert_eq!(fault(PATIENT, PATIENT), None);
    let respelled = PATIENT.replace("\"Ng\"", "\"N\\u0067\"");
    assert_eq!(fault(&respelled, PATIENT), None, "a rewritten leaf may come back canonical");
    let faulty = [
        (PATIENT.replace("\"Ng\"", "\"Nh\""), "Patient.name.family"),
        (PATIENT.replace(":2}", ":2.0}"), "Patient.multipleBirthInteger"),
        (PATIENT.replace("\"male\"", "\"m\\u0061le\""), "Patient.gender"),
        (PATIENT.replace("\"id\":\"p1\",", ""), "member"),
        (PATIENT.replace("[\"Bo\",\"Al\"]", "[\"Bo\"]"), "2 elements"),
        (PATIENT.replace(",\"gender\"", ", \"gender\""), "other bytes"),
        (
            PATIENT.replace(
                "\"gender\":\"male\",\"multipleBirthInteger\":2",
                "\"multipleBirthInteger\":2,\"gender\":\"male\"",
            ),
            "member",
        ),
    ];
    for (back, word) in faulty {
        let found = fault(PATIENT, &back).unwrap_or_else(|| panic!("nothing found in {back}"));
        assert!(found.contains(word), "{found} for {back}");
    }
}

#[test]
fn faults_of_a_rewriting_are_found() {
    let Some(schema) = Schema::shared() else { return };
    let faults = |after: &str, lossless| rewriting_faults(&schema, PATIENT, after, lossless).unwrap();
    let removed = PATIENT.replace(r#""name":[{"family":"Ng","given":["Bo","Al"],"_given":[null,{"id":"g2"}]}],"#, "");
    assert_eq!(faults(&removed, false), [""; 0]);
    assert!(!faults(&removed, true).is_empty(), "the reversible pack removes nothing");
    let sealed = PATIENT.replace("\"p1\",", r#""p1","meta":{"tag":[{"system":"urn:cryptonym:seal","code":"x"}]},"#);
    assert_eq!(faults(&sealed, true), [""; 0]);
    let faulty = [
        (PATIENT.replace("\"male\"", "\"female\""), "kept leaf"),
        (PATIENT.replace(":2}", ":2.0}"), "kept leaf"),
        (PATIENT.replace("\"gender\"", "\"active\":true,\"gender\""), "new"),
        (PATIENT.replace("[null,{\"id\":\"g2\"}]", "[{\"id\":\"g2\"}]"), "its twin"),
        (PATIENT.replace("[\"Bo\",\"Al\"]", "[]"), "empty array"),
        (PATIENT.replace("{\"id\":\"g2\"}", "{}"), "empty object"),
        (PATIENT.replace("[\"Bo\",\"Al\"]", "[null,\"Al\"]"), "null in both"),
        (PATIENT.replace("\"Ng\"", "\"\""), "empty string"),
        (PATIENT.replace("\"gender\":\"male\",", "\"gender\":null,"), "null"),
        (PATIENT.replace("\"gender\"", "\"extension\":[{\"url\":\"u\"}],\"gender\""), "without value"),
    ];
    for (after, word) in faulty {
        let found = faults(&after, true);
        assert!(found.iter().any(|f| f.contains(word)), "{found:?} for {after}");
    }
}

#[test]
fn a_required_element_that_went_is_missed() {
    let Some(schema) = Schema::shared() else { return };
    let lost = |before: &str, after: &str| {
        Required::load().lost(&schema, &json::parse(before).unwrap(), &json::parse(after).unwrap())
    };
    let before = r##"{"resourceType":"Bundle","type":"collection","entry":[{"resource":{"resourceType":"Observation","status":"final","code":{"text":"x"}}},{"resource":{"resourceType":"MedicationRequest","status":"active","intent":"order","medicationReference":{"reference":"#m"},"subject":{"display":"x"},"text":{"status":"generated","div":"<div/>"}}}]}"##;
    assert_eq!(lost(before, before), [""; 0]);
    for (gone, path) in [
        (r#","code":{"text":"x"}"#, "Observation.code"),
        (r#""type":"collection","#, "Bundle.type"),
        (r##""medicationReference":{"reference":"#m"},"##, "MedicationRequest.medication[x]"),
        (r#","div":"<div/>""#, "Narrative.div"),
    ] {
        let found = lost(before, &before.replace(gone, ""));
        assert!(found.len() == 1 && found[0].starts_with(path), "{path}: {found:?}");
    }
}

#[test]
fn faults_of_links_are_found() {
    let Some(schema) = Schema::shared() else { return };
    let bundle = |patient: &str, full_url: &str, references: [&str; 5]| {
        let items: Vec<String> = references.iter().map(|r| format!(r#"{{"reference":"{r}"}}"#)).collect();
        let mut links = Links::default();
        let document = format!(
            r#"{{"resourceType":"Bundle","type":"collection","entry":[{{"fullUrl":"{full_url}","resource":{{"resourceType":"Patient","id":"{patient}","identifier":[{{"system":"s","value":"v"}}]}}}},
            {{"resource":{{"resourceType":"List","status":"current","mode":"working","contained":[{{"resourceType":"Device","id":"d"}}],"subject":{},"source":{},"encounter":{},"extension":[{{"url":"u","valueReference":{}}},{{"url":"u","valueReference":{}}}]}}}}]}}"#,
            items[0], items[1], items[2], items[3], items[4]
        );
        links.add(&schema, &document).unwrap();
        links
    };
    let uuid = "urn:uuid:6c5d9ca9-54d7-42f5-bfae-a7c19cd217f2";
    let before =
        bundle("p", uuid, ["Patient/p", uuid, "#d", "Patient?identifier=s|v", "http://h/fhir/Patient/p/_history/2"]);
    assert_eq!(before.resolved(), 5, "{:?}", before.references);
    let other = "urn:uuid:00000000-54d7-42f5-bfae-a7c19cd217f2";
    let moved =
        bundle("q", other, ["Patient/q", other, "#d", "Patient?identifier=s|v", "http://h/fhir/Patient/q/_history/2"]);
    assert_eq!(before.faults(&moved), [""; 0]);
    for (references, word) in [
        (["Patient/r", other, "#d", "Patient?identifier=s|v", "http://h/fhir/Patient/q/_history/2"], "not after"),
        (["Patient/q", uuid, "#d", "Patient?identifier=s|v", "http://h/fhir/Patient/q/_history/2"], "not after"),
        (["Patient/q", other, "#e", "Patient?identifier=s|v", "http://h/fhir/Patient/q/_history/2"], "not after"),
        (["Patient/q", other, "#d", "Patient?identifier=s|w", "http://h/fhir/Patient/q/_history/2"], "not after"),
        (
            ["Patient/q", "Patient/q", "#d", "Patient?identifier=s|v", "http://h/fhir/Patient/q/_history/2"],
            "became one",
        ),
    ] {
        let faults = before.faults(&bundle("q", other, references));
        assert!(faults.iter().any(|f| f.contains(word)), "{faults:?} for {references:?}");
    }
}

#[test]
fn a_value_with_two_pseudonyms_is_found() {
    let Some(schema) = Schema::shared() else { return };
    let patient = |family: &str| format!(r#"{{"resourceType":"Patient","name":[{{"family":"{family}"}}]}}"#);
    let faults = |pairs: &[(&str, &str)]| {
        let mut mapping = Mapping::default();
        for (before, after) in pairs {
            mapping.add(&schema, &patient(before), &patient(after)).unwrap();
        }
        mapping.faults.into_keys().collect::<Vec<_>>().join(", ")
    };
    assert_eq!(faults(&[("Ng", "T1"), ("N\\u0067", "T1"), ("Li", "T2")]), "");
    assert!(faults(&[("Ng", "T1"), ("Ng", "T2")]).contains("two pseudonyms"));
    assert!(faults(&[("Ng", "T1"), ("Li", "T1")]).contains("one pseudonym"));
}

/// Every file of Synthea, whole: no refusal, the same bytes back, links, shapes, required elements.
#[test]
fn records_of_synthea_come_back() {
    let Some(schema) = Schema::shared() else { return };
    if !plugged() {
        return;
    }
    let required = Required::load();
    for corpus in corpora::SYNTHEA {
        let (mut before_links, mut after_links, mut mapping) = (Links::default(), Links::default(), Mapping::default());
        let paths = corpora::paths(corpus, 3);
        for path in &paths {
            let Some(file) = corpora::read(path) else { continue };
            let output = there_and_back(&schema, &file);
            for (before, after) in file.documents().into_iter().zip(output.documents()) {
                let faults = rewriting_faults(&schema, before, after, true).unwrap();
                assert!(faults.is_empty(), "{}: {} faults, such as {}", file.name, faults.len(), faults[0]);
                let lost = required.lost(&schema, &json::parse(before).unwrap(), &json::parse(after).unwrap());
                assert!(lost.is_empty(), "{}: {lost:?}", file.name);
                before_links.add(&schema, before).unwrap();
                after_links.add(&schema, after).unwrap();
                mapping.add(&schema, before, after).unwrap();
            }
            one_way_is_fhir(&schema, &required, &file);
        }
        let faults = before_links.faults(&after_links);
        assert!(faults.is_empty(), "{corpus}: {} faults of links, such as {}", faults.len(), faults[0]);
        assert!(mapping.faults.is_empty(), "{corpus}: {:?}", mapping.faults);
        if !paths.is_empty() {
            say(&format!(
                "{corpus}: {} files, {} references, {} of them found their target",
                paths.len(),
                before_links.references.len(),
                before_links.resolved()
            ));
        }
    }
}

/// The 60 MB transaction, there and back. Only where everything is asked for.
#[test]
fn the_large_transaction_comes_back() {
    let Some(schema) = Schema::shared() else { return };
    if !plugged() || !corpora::all() {
        return say("skipped: asked for with CRYPTONYM_CORPUS=all");
    }
    for path in corpora::paths(corpora::BIG, 1) {
        if let Some(file) = corpora::read(&path) {
            there_and_back(&schema, &file);
        }
    }
}

/// The specification's examples hold what no hospital sends; a refusal is honest, a wrong answer is not. Prints the census.
#[test]
fn examples_of_the_specification_come_back_or_are_refused() {
    let Some(schema) = Schema::shared() else { return };
    if !plugged() {
        return;
    }
    let mut census: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut passed = 0;
    for path in corpora::paths(corpora::EXAMPLES, 15) {
        let Some(file) = corpora::read(&path) else { continue };
        let out = Product::get().pseudonymize(REVERSIBLE, "json", file.text.as_bytes());
        if out.code == Some(1) {
            let refusals = out.refusals();
            assert!(!refusals.is_empty() && out.file.is_none(), "{}: exit 1 without a word, or with output", file.name);
            census.entry(refusals[0].clone()).or_default().push(file.name.clone());
            continue;
        }
        assert_eq!(out.code, Some(0), "{}", file.name);
        let after = out.text();
        let faults = shape_faults(&schema, &json::parse(&after).unwrap());
        let had = shape_faults(&schema, &json::parse(&file.text).unwrap());
        assert!(faults.iter().all(|f| had.contains(f)), "{}: {faults:?}", file.name);
        let back = Product::get().reidentify(REVERSIBLE, "json", after.as_bytes());
        assert_eq!(back.code, Some(0), "{}: {}", file.name, String::from_utf8_lossy(&back.stderr));
        if let Some(fault) = identity_fault(&schema, &file.text, &back.text()) {
            panic!("{}: {fault}", file.name);
        }
        passed += 1;
    }
    say(&format!("{}: {passed} come back", corpora::EXAMPLES));
    for (code, files) in census {
        say(&format!("  refused[{code}] {} times, such as {}", files.len(), files[0]));
    }
}

/// The reversible pack's output for a file that must pass and come back.
#[track_caller]
fn there_and_back(schema: &Schema, file: &File) -> File {
    let suffix = if file.is_ndjson() { "ndjson" } else { "json" };
    let out = Product::get().pseudonymize(REVERSIBLE, suffix, file.text.as_bytes());
    assert_eq!(out.code, Some(0), "{}: {}", file.name, String::from_utf8_lossy(&out.stderr));
    let output = File { name: file.name.clone(), text: out.text() };
    let back = Product::get().reidentify(REVERSIBLE, suffix, output.text.as_bytes());
    assert_eq!(back.code, Some(0), "{} back: {}", file.name, String::from_utf8_lossy(&back.stderr));
    let back = File { name: file.name.clone(), text: back.text() };
    if back.text != file.text {
        for (number, (before, after)) in file.documents().into_iter().zip(back.documents()).enumerate() {
            if let Some(fault) = identity_fault(schema, before, after) {
                panic!("{}, document {}: {fault}", file.name, number + 1);
            }
        }
        assert_eq!(file.documents().len(), back.documents().len(), "{}: documents", file.name);
    }
    output
}

/// What the one-way pack writes is FHIR where the input was.
#[track_caller]
fn one_way_is_fhir(schema: &Schema, required: &Required, file: &File) {
    let out = Product::get().pseudonymize(
        PSEUDONYMIZED,
        if file.is_ndjson() { "ndjson" } else { "json" },
        file.text.as_bytes(),
    );
    assert_eq!(out.code, Some(0), "{}: {}", file.name, String::from_utf8_lossy(&out.stderr));
    let output = File { name: file.name.clone(), text: out.text() };
    assert_eq!(file.documents().len(), output.documents().len(), "{}: documents", file.name);
    for (before, after) in file.documents().into_iter().zip(output.documents()) {
        let faults = rewriting_faults(schema, before, after, false).unwrap();
        assert!(faults.is_empty(), "{}: {} faults, such as {}", file.name, faults.len(), faults[0]);
        let lost = required.lost(schema, &json::parse(before).unwrap(), &json::parse(after).unwrap());
        assert!(lost.is_empty(), "{}: {lost:?}", file.name);
    }
}
