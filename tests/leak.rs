//! No identifying value gets out: the leak check tried on pairs made by hand, where it must find what is planted, and then
//! on real records through the command line.
//!
//! The pairs come first, because a check that finds nothing proves nothing.

mod support;

use std::collections::BTreeMap;
use support::canary::Reviewed;
use support::corpora::{self, File, say};
use support::inside::{self, RELEASES, engine, packs_of};
use support::json;
use support::leak::{LeakCheck, SPELLING, Spelling, is_date, unmoved_dates};
use support::product::{PACKS, Product, REVERSIBLE, plugged};
use support::schema::Schema;

const TABLE: &str = "Patient.id\tstring\t1
Patient.implicitRules\turi\t1
Patient.name\tHumanName\t*
Patient.birthDate\tdate\t1
Patient.gender\tcode\t1
Patient.text\tNarrative\t1
Patient.address\tAddress\t*
Patient.photo\tAttachment\t*
Patient.identifier\tIdentifier\t*
Patient.maritalStatus\tCodeableConcept\t1
Patient.generalPractitioner\tReference\t*
Patient.contained\tResource\t*
Patient.extension\tExtension\t*
HumanName.family\tstring\t1
HumanName.given\tstring\t*
Address.city\tstring\t1
Address.postalCode\tstring\t1
Attachment.data\tbase64Binary\t1
Identifier.system\turi\t1
Identifier.value\tstring\t1
Narrative.div\txhtml\t1
Narrative.status\tcode\t1
CodeableConcept.coding\tCoding\t*
CodeableConcept.text\tstring\t1
Coding.system\turi\t1
Coding.code\tcode\t1
Coding.display\tstring\t1
Reference.reference\tstring\t1
Reference.display\tstring\t1
Extension.url\turi\t1
Extension.value[x]\tstring|date|decimal\t1
Practitioner.implicitRules\turi\t1
Practitioner.id\tstring\t1";

const RULES: &str = "HumanName.family\tstring\t1\tA\tpseudonym:name
HumanName.given\tstring\t*\tA\tpseudonym:name
Address.city\tstring\t1\tB\tredact
Address.postalCode\tstring\t1\tB\tzip3
Identifier.value\tstring\t1\tH\tpseudonym:identifier
CodeableConcept.text\tstring\t1\tR\tredact
Reference.display\tstring\t1\tR\tredact|pseudonym:name
Extension.value[x]\tstring|date\t1\tR\tby type; strings redact";

const SPELLED: Spelling = Spelling {
    marker: "Tk",
    binary_marker: b"Tk\x01",
    escape: "Fx",
    added: &["<div xmlns=\"http://www.w3.org/1999/xhtml\">"],
};

const INPUT: &str = r#"{"resourceType":"Patient","id":"6c5d9ca9-54d7-42f5-bfae-a7c19cd217f2","name":[{"family":"Zürcher-Ng","given":["Bo"]}],
"birthDate":"1965-01-13","gender":"male","address":[{"city":"Easthampton","postalCode":"01027"}],"identifier":[{"system":"http://hospital.example/mrn","value":"S99914534"}],
"maritalStatus":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v3-MaritalStatus","code":"M","display":"Married person"}],"text":"Married person"},
"text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">Mister Abram Q. Lemke of Springfield</div>"},
"photo":[{"data":"UGhvdG8gb2YgQWJyYW0gTGVta2UgYnkgdGhlIHNlYQ=="}],"generalPractitioner":[{"reference":"Practitioner/dr-w0lf","display":"Dr Wolf Hund"}]}"#;

/// Epoch 1, a UUID of 16 bytes: 43 symbols after the header.
const TOKEN: &str = "TkBAQAabcdefghijklmnopqrstuvwxyzABCDEF0123456789x";

fn leaks(output: &str) -> Vec<String> {
    let schema = Schema::parse(TABLE, RULES);
    let mut check = LeakCheck::new(&schema, &SPELLED);
    check.input(INPUT).unwrap();
    let mut paths: Vec<String> = check.check(output.as_bytes()).0.into_iter().map(|leak| leak.path).collect();
    paths.dedup();
    paths
}

#[test]
fn what_is_clean_is_called_clean() {
    let clean = [
        "",
        r#"{"resourceType":"Patient","id":"TOKEN","name":[{"family":"TOKEN","given":["TOKEN"]}],"birthDate":"1963-11-02","gender":"male"}"#,
        // A display of a standard says the same words as the free text beside it: once is kept, twice is a leak.
        r#"{"maritalStatus":{"coding":[{"display":"Married person"}]}}"#,
        // Chance: a pseudonym that spells a short value, other UUIDs, a moved date beside a house number.
        r#"{"id":"TkBAQA01027defghijklmnopqrstuvwxyzABCDEF012345678","reference":"urn:uuid:01027ca9-54d7-42f5-bfae-a7c19cd217f2","text":{"div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">TOKEN</div>"}}"#,
        r#"{"note":"abounding"}"#,
        "POST /fhir/Patient HTTP/1.1\r\nhost: cloud.example\r\n\r\n{\"gender\":\"male\"}",
    ];
    for output in clean {
        assert_eq!(leaks(&output.replace("TOKEN", TOKEN)), Vec::<String>::new(), "{output}");
    }
}

#[test]
fn what_is_planted_is_found_in_every_guise() {
    let planted = [
        (r#"{"name":[{"family":"Zürcher-Ng"}]}"#, "Patient.name.family"),
        (r#"{"name":[{"family":"Z\u00fcrcher\u002dNG"}]}"#, "Patient.name.family"),
        ("GET /Patient?family=Z%C3%BCrcher-Ng HTTP/1.1", "Patient.name.family"),
        ("GET /Patient?given=bo HTTP/1.1", "Patient.name.given"),
        (r#"{"given":["Bo"]}"#, "Patient.name.given"),
        (r#"{"id":"6c5d9ca9-54d7-42f5-bfae-a7c19cd217f2"}"#, "Patient.id"),
        (r#"{"reference":"urn:uuid:6C5D9CA9-54d7-42f5-bfae-a7c19cd217f2"}"#, "Patient.id"),
        (r#"{"reference":"Practitioner/dr-w0lf"}"#, "Patient.generalPractitioner.reference"),
        (r#"{"x":["01027"]}"#, "Patient.address.postalCode"),
        (r#"{"note":"moved from EASTHAMPTON last year"}"#, "Patient.address.city"),
        (r#"{"note":"see RWFzdGhhbXB0b24="}"#, "Patient.address.city"),
        (r#"{"note":"see eyJ2IjoiUzk5OTE0NTM0In0"}"#, "Patient.identifier.value"),
        (r#"{"id":"TkBAQAxxxxxxxxS99914534xxxxxxxxxxxxxxxxxxxxxxxxxx"}"#, ""), // nine characters inside a token: chance may do that
        (r#"{"id":"TkBAQAxxxxxxxxeasthamptonxxxxxxxxxxxxxxxxxxxxxxxx"}"#, "Patient.address.city"),
        (r#"{"id":"TOKENeasthampton"}"#, "Patient.address.city"), // a token ends where its header says
        (r#"{"id":"TkBAQAeasthampton"}"#, "Patient.address.city"), // too short to be one
        (r#"{"a":"Married person","b":"Married person"}"#, "Patient.maritalStatus.text"),
        (r#"{"conclusion":"Mister Abram Q. Lemke of Springfield"}"#, "Patient.text.div"),
        (r#"{"data":"UGhvdG8gb2YgQWJyYW0gTGVta2UgYnkgdGhlIHNlYQ=="}"#, "Patient.photo.data"),
        (r#"{"text":"Photo of Abram Lemke by the sea"}"#, "Patient.photo.data"),
        ("POST /fhir HTTP/1.1\r\nx-note: dr wolf hund\r\n\r\n", "Patient.generalPractitioner.display"),
        ("GET /x?name=Dr+Wolf+Hund HTTP/1.1", "Patient.generalPractitioner.display"),
    ];
    for (output, path) in planted {
        let expected: Vec<String> = if path.is_empty() { vec![] } else { vec![path.to_owned()] };
        assert_eq!(leaks(&output.replace("TOKEN", TOKEN)), expected, "{output}");
    }
}

#[test]
fn the_whole_input_as_output_is_a_leak_at_every_place() {
    let found = leaks(INPUT);
    for path in [
        "Patient.id",
        "Patient.name.family",
        "Patient.name.given",
        "Patient.address.city",
        "Patient.identifier.value",
        "Patient.text.div",
        "Patient.photo.data",
    ] {
        assert!(found.iter().any(|f| f == path), "{path} not in {found:?}");
    }
}

#[test]
fn dates_that_did_not_move_are_found_at_their_own_place() {
    let schema = Schema::parse(TABLE, RULES);
    let unmoved = |before: &str, after: &str| unmoved_dates(&schema, before, after).unwrap();
    let at = |date: &str| format!(r#"{{"resourceType":"Patient","gender":"male","birthDate":"{date}"}}"#);
    assert_eq!(unmoved(&at("1965-01-13"), &at("1965-01-13")), ["Patient.birthDate"]);
    assert_eq!(unmoved(&at("1965-01-13"), &at("1965-02-13")), [""; 0]);
    assert_eq!(unmoved(&at("1965"), &at("1965")), [""; 0]);
    assert_eq!(unmoved(&at("9999-12-31"), &at("9999-12-31")), [""; 0]);
    assert_eq!(unmoved(&at("1965-01"), &at("1965-01")), ["Patient.birthDate"]);
    assert_eq!(unmoved(&at("1965-01-13"), r#"{"resourceType":"Patient"}"#), [""; 0]);
    assert!(is_date("2011-02-02T16:30:49.825-05:00") && is_date("1965") && !is_date("01027") && !is_date("19650113"));
}

/// The other way round: records that nobody rewrote are leaks, at the places one would name first.
#[test]
fn records_that_went_through_unchanged_are_found() {
    let Some(schema) = Schema::shared() else { return };
    for (corpus, name) in [("synthea-bulk-10", "Patient.000.ndjson"), ("synthea-bulk-10", "Device.000.ndjson")] {
        let Some(path) = corpora::shared().map(|s| s.join("data").join(corpus).join(name)) else { return };
        let Some(file) = corpora::read(&path) else { return };
        let mut check = LeakCheck::new(&schema, &SPELLING);
        for document in file.documents() {
            check.input(document).unwrap();
            let unmoved = unmoved_dates(&schema, document, document).unwrap();
            assert!(!unmoved.is_empty(), "{name} has dates");
        }
        let leaks = check.check(file.text.as_bytes());
        say(&leaks.to_string());
        let found = |path: &str| leaks.0.iter().any(|leak| leak.path == path);
        let expected: &[&str] = match name {
            "Patient.000.ndjson" => &[
                "Patient.id",
                "Patient.name.family",
                "Patient.name.given",
                "Patient.address.line",
                "Patient.telecom.value",
                "Patient.identifier.value",
            ],
            _ => &["Device.id", "Device.serialNumber", "Device.patient.reference"],
        };
        for path in expected {
            assert!(found(path), "{path} of {name} not found");
        }
    }
}

fn is_coordinate(path: &str) -> bool {
    path.ends_with(".position.latitude")
        || path.ends_with(".position.longitude")
        || path.ends_with(".extension.extension.valueDecimal")
}

/// Everything that a corpus holds goes through the command line, and nothing of its identity comes out.
#[test]
fn records_of_synthea_leak_nothing() {
    let Some(schema) = Schema::shared() else { return };
    if !plugged() {
        return;
    }
    let large = corpora::all().then_some(corpora::BIG);
    for corpus in corpora::SYNTHEA.iter().copied().chain(large) {
        for path in corpora::paths(corpus, 3) {
            let Some(file) = corpora::read(&path) else { continue };
            let suffix = if file.is_ndjson() { "ndjson" } else { "json" };
            for pack in PACKS {
                // Numbers have no token: the pack that loses nothing keeps coordinates, and this is the one place that lets it.
                let keeps: fn(&str) -> bool = if pack == REVERSIBLE { is_coordinate } else { |_| false };
                let mut check = LeakCheck::new(&schema, &SPELLING).keeping(keeps);
                for document in file.documents() {
                    check.input(document).unwrap();
                }
                let outcome = Product::get().pseudonymize(pack, suffix, file.text.as_bytes());
                assert_eq!(outcome.code, Some(0), "{}: {}", file.name, String::from_utf8_lossy(&outcome.stderr));
                let output = File { name: file.name.clone(), text: outcome.text() };
                let leaks = check.check(output.text.as_bytes());
                assert!(leaks.0.is_empty(), "{} with {pack}: {leaks}", file.name);
                for (before, after) in file.documents().into_iter().zip(output.documents()) {
                    let unmoved = unmoved_dates(&schema, before, after).unwrap();
                    assert!(unmoved.is_empty(), "{} with {pack}: unmoved {:?}", file.name, &unmoved[..1]);
                }
                say(&format!("{corpus}/{} with {pack}: {} values, none got out", file.name, check.len()));
            }
        }
    }
}

/// Values that the tables call identity and a pack may let through, thirty lines at most, each with its reason.
const EXCEPTIONS: &str = include_str!("data/leaks.tsv");

/// Every other set of FHIR JSON, every pack of its release. A refusal is honest, and its words may hold no value either.
#[test]
fn no_public_record_leaks_through_any_pack() {
    let list = Reviewed::read(EXCEPTIONS);
    assert!(list.len() <= 30, "{} exceptions", list.len());
    let mut found: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut seen = Vec::new();
    for release in RELEASES {
        let Some(schema) = Schema::of(release) else { return };
        for (pack, yaml) in packs_of(release) {
            seen.push(pack);
            let mut rewriter = inside::outward(&engine(yaml));
            for (set, _) in corpora::FHIR_SETS.iter().filter(|(_, releases)| releases.contains(release)) {
                let (mut passed, mut values) = (0, 0);
                let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
                for path in corpora::files_below(set, 12) {
                    let Some(file) = corpora::read(&path) else { continue };
                    for document in file.documents() {
                        let Ok(node) = json::parse(document) else { continue };
                        let ty = node.get("resourceType").and_then(|n| n.text()).unwrap_or_default();
                        if !schema.is_resource(&ty) {
                            continue;
                        }
                        // 164.514(e)(2)(ii): a town or city and a ZIP code may stand in a limited data set.
                        let keeps: fn(&str) -> bool =
                            if pack.ends_with("limited-data-set") { is_town } else { |_| false };
                        let mut check = LeakCheck::new(&schema, &SPELLING).keeping(keeps);
                        check.input(document).expect("it was parsed before");
                        values += check.len();
                        let output = match inside::document(&mut rewriter, document) {
                            Ok(output) => {
                                passed += 1;
                                let unmoved = unmoved_dates(&schema, document, &output).expect("output is JSON");
                                for path in unmoved {
                                    note(&mut found, &list, pack, &path, "date", &file.name);
                                }
                                output
                            }
                            Err(refusal) => {
                                *refused.entry(refusal.code.as_str()).or_default() += 1;
                                refusal.to_string()
                            }
                        };
                        for leak in check.check(output.as_bytes()).0 {
                            note(
                                &mut found,
                                &list,
                                pack,
                                &leak.path,
                                "value",
                                &format!("{}: {:?}", file.name, leak.value),
                            );
                        }
                    }
                }
                say(&format!("{set} with {pack}: {passed} pass, {values} values looked for, refused {refused:?}"));
            }
        }
    }
    let lines: Vec<String> =
        found.iter().map(|(key, (count, such))| format!("{key}\t{count} times, such as {such}")).collect();
    assert!(lines.is_empty(), "{} places leak:\n{}", lines.len(), lines.join("\n"));
    let stale = list.stale(&seen);
    assert!(stale.is_empty() || !corpora::all(), "on the list and not needed:\n{}", stale.join("\n"));
}

fn is_town(path: &str) -> bool {
    path.ends_with(".city") || path.ends_with(".postalCode")
}

/// Notes a leak unless it is on the list. Indexes do not tell places apart.
fn note(
    found: &mut BTreeMap<String, (usize, String)>,
    list: &Reviewed,
    pack: &str,
    path: &str,
    kind: &str,
    such: &str,
) {
    if !list.allows(pack, path, kind) {
        found.entry(format!("{pack}\t{path}\t{kind}")).or_insert((0, such.to_owned())).0 += 1;
    }
}
