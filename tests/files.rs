//! Files and folders through the command line: no input is lost, no output is named after a person, and as many cores as there are
//! write the same bytes as one.

mod cli_support;

use cli_support::Desk;
use std::io::Write as _;

const PATIENT: &str = r#"{"resourceType":"Patient","gender":"male"}"#;
const PSEUDONYMIZE: &str = "pseudonymize --rules fhir-r4-reversible --keys k.yaml";
const REIDENTIFY: &str = "reidentify --rules fhir-r4-reversible --keys k.yaml --purpose TREAT --caller ward";

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// So many lines, each a patient of its own; every 1000th is none.
fn lines(count: usize) -> String {
    let line = |n: usize| match n % 1000 {
        999 => "{\"resourceType\":\"Nobody\"}\n".to_owned(),
        _ => format!(
            "{{\"resourceType\":\"Patient\",\"id\":\"p{n}\",\"name\":[{{\"family\":\"Name{n}\"}}],\"birthDate\":\"1980-01-02\"}}\n"
        ),
    };
    (0..count).map(line).collect()
}

#[test]
fn names_of_outputs_tell_nothing_of_people() {
    let desk = Desk::new("names");
    for name in ["Lovelace.0815471199.json", "Patient.0815471199.json", "ada.19500203.json", "Patient.000.ndjson"] {
        desk.write(&format!("in/{name}"), PATIENT);
    }
    desk.run(&format!("{PSEUDONYMIZE} -o out in")).with(0);
    let names = desk.names("out");
    assert_eq!(names.len(), 4);
    assert!(names.contains(&"Patient.000.ndjson".to_owned()));
    let telling = |n: &&String| n.contains("0815471199") || n.contains("19500203") || n.contains("Lovelace");
    assert_eq!(names.iter().find(telling), None);
}

#[test]
fn two_inputs_of_one_name_are_not_one_output() {
    let desk = Desk::new("collide");
    desk.write("a/Patient.json", PATIENT);
    desk.write("b/Patient.json", PATIENT);
    desk.run(&format!("{PSEUDONYMIZE} -o out a b")).with(2);
    assert!(!desk.has("out"));
}

#[test]
fn folders_are_mirrored_in_every_coding_and_come_back() {
    let desk = Desk::new("codings");
    let text = lines(900);
    desk.write("in/Patient.ndjson", &text);
    desk.write("in/sub/Patient.ndjson.gz", gzip(text.as_bytes()));
    desk.write("in/sub/Patient.001.jsonl", &text);
    desk.write("in/Patient.json", PATIENT);
    desk.run(&format!("{PSEUDONYMIZE} --keep-names -o out in")).with(0);
    assert_eq!(desk.names("out"), ["Patient.json", "Patient.ndjson", "sub"]);
    assert_eq!(desk.names("out/sub"), ["Patient.001.jsonl", "Patient.ndjson.gz"]);
    let packed = std::fs::read(desk.at("out/sub/Patient.ndjson.gz")).unwrap();
    assert_eq!(packed[3..8], [0; 5], "the header has neither name nor time");

    // Every coding says the same, and what was packed once is unpacked by another.
    desk.run(&format!("{PSEUDONYMIZE} -o once.ndjson.zst in/Patient.ndjson")).with(0);
    desk.run(&format!("{REIDENTIFY} -o back.ndjson once.ndjson.zst")).with(0);
    assert_eq!(desk.read("back.ndjson"), text);
    desk.run(&format!("{REIDENTIFY} --keep-names -o back out")).with(0);
    assert_eq!(desk.read("back/Patient.ndjson"), text);
    assert_eq!(desk.read("back/sub/Patient.001.jsonl"), text);

    // A folder that is not empty needs a word.
    desk.run(&format!("{PSEUDONYMIZE} -o out in")).with(2);
    desk.run(&format!("{PSEUDONYMIZE} --force --keep-names -o out in")).with(0);
}

#[test]
fn what_ends_early_or_expands_too_far_leaves_no_output() {
    let desk = Desk::new("damaged");
    let whole = gzip(lines(900).as_bytes());
    desk.write("cut.ndjson.gz", &whole[..whole.len() - 9]);
    desk.write("empty.ndjson.zst", b"");
    desk.write("cut.json.gz", &gzip(PATIENT.as_bytes())[..20]);
    desk.write("bomb.ndjson.gz", gzip(&vec![b' '; 48 * 1024 * 1024]));
    desk.write("two.ndjson.gz", [gzip(lines(1).as_bytes()), gzip(lines(2).as_bytes())].concat());
    for (name, code) in [
        ("cut.ndjson.gz", "bad-encoding"),
        ("empty.ndjson.zst", "bad-encoding"),
        ("cut.json.gz", "bad-encoding"),
        ("bomb.ndjson.gz", "expands-too-far"),
    ] {
        let done = desk.run(&format!("{PSEUDONYMIZE} -o out.ndjson {name}")).with(1);
        assert!(done.err.contains(&format!("{name}: refused[{code}]")), "{}", done.err);
        assert!(!desk.has("out.ndjson"), "{name}");
    }
    let done = desk.run(&format!("{PSEUDONYMIZE} -o out.ndjson two.ndjson.gz")).with(0);
    assert!(done.err.contains("3 done, 0 refused"), "{}", done.err);
    assert!(desk.names(".").iter().all(|name| !name.ends_with(".part")));
}

#[test]
fn all_cores_write_what_one_core_writes() {
    let desk = Desk::new("cores");
    let text = lines(6000);
    desk.write("in.ndjson", &text);
    let one = desk.run(&format!("{PSEUDONYMIZE} --threads 1 -o one.ndjson in.ndjson")).with(1);
    for threads in [2, 7] {
        let many = desk.run(&format!("{PSEUDONYMIZE} --threads {threads} -o many.ndjson in.ndjson")).with(1);
        assert_eq!(desk.read("many.ndjson"), desk.read("one.ndjson"));
        assert_eq!(many.err, one.err);
    }
    assert!(one.err.contains("in.ndjson:1000: refused[unknown-type] at ?, byte"), "{}", one.err);
    assert!(one.err.ends_with("5994 done, 6 refused\n"), "{}", one.err);
    assert_eq!(desk.read("one.ndjson").lines().count(), 5994);
    // From a pipe too, and back in order.
    let piped = desk.feed(&format!("{PSEUDONYMIZE} --format ndjson"), text.as_bytes()).with(1);
    assert_eq!(piped.out, desk.read("one.ndjson"));
    let back = desk.feed(&format!("{REIDENTIFY} --format ndjson"), piped.out.as_bytes()).with(0);
    let kept: String = text.split_inclusive('\n').filter(|line| !line.contains("Nobody")).collect();
    assert_eq!(back.out, kept);
}

#[test]
fn the_first_refusal_ends_a_run_that_is_to_fail_fast() {
    let desk = Desk::new("fast");
    desk.write("in.ndjson", lines(3500));
    let done = desk.run(&format!("{PSEUDONYMIZE} --fail-fast -o out.ndjson in.ndjson")).with(1);
    assert!(done.err.ends_with("999 done, 1 refused\n"), "{}", done.err);
}

#[test]
fn refusals_can_be_read_by_programs() {
    let desk = Desk::new("json-log");
    desk.write("in.ndjson", format!("{PATIENT}\n{{\"resourceType\":\"Patient\",\"Nme\":1}}\n"));
    let done = desk.run(&format!("{PSEUDONYMIZE} --log-format json -o out.ndjson in.ndjson")).with(1);
    let said: Vec<serde_json::Value> = done.err.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(said[0]["file"], "in.ndjson");
    assert_eq!(said[0]["line"], 2);
    assert_eq!(said[0]["code"], "unknown-element");
    assert_eq!(said[0]["path"], "Patient.?");
    assert!(said[0]["byte"].is_u64() && said[0]["what"].is_string() && said[0]["help"].is_string());
    assert_eq!(said[1]["done"], 1);
    assert_eq!(said[1]["refused"], 1);
}

#[test]
fn no_other_file_is_overwritten() {
    let desk = Desk::new("part");
    desk.write("in.json", PATIENT);
    desk.write("out.json.part", "mine");
    desk.run(&format!("{PSEUDONYMIZE} -o out.json in.json")).with(0);
    assert_eq!(desk.read("out.json.part"), "mine");
    assert_eq!(desk.read("out.json"), PATIENT);
    // Nor an input.
    desk.run(&format!("{PSEUDONYMIZE} -o in.json in.json")).with(2);
    desk.run(&format!("{PSEUDONYMIZE} -o ./in.json in.json")).with(2);
    desk.write("in/a.json", PATIENT);
    desk.run(&format!("{PSEUDONYMIZE} --force --keep-names -o in in")).with(2);
    desk.run(&format!("{PSEUDONYMIZE} -o in/out in")).with(2);
    assert_eq!(desk.read("in.json"), PATIENT);
}

#[cfg(unix)]
#[test]
fn links_and_unknown_suffixes_are_refused_and_counted() {
    let desk = Desk::new("links");
    desk.write("in/Patient.json", PATIENT);
    desk.write("in/notes.txt", "x");
    std::os::unix::fs::symlink(desk.at("k.yaml"), desk.at("in/link.json")).unwrap();
    let done = desk.run(&format!("{PSEUDONYMIZE} -o out in")).with(1);
    assert!(done.err.contains("link.json: skipped: a symbolic link"), "{}", done.err);
    assert!(done.err.contains("notes.txt: skipped: unknown suffix"), "{}", done.err);
    assert!(done.err.ends_with("1 done, 2 refused\n"), "{}", done.err);
    assert_eq!(desk.names("out"), ["Patient.json"]);
}

#[test]
fn a_long_id_is_refused_or_hashed_everywhere_alike() {
    let desk = Desk::new("overflow");
    let long = "long-".repeat(9);
    let body = format!(
        r#"{{"resourceType":"Observation","id":"o","status":"final","code":{{"coding":[{{"code":"x"}}]}},"subject":{{"reference":"Patient/{long}"}}}}"#
    );
    desk.write("in.ndjson", format!("{{\"resourceType\":\"Patient\",\"id\":\"{long}\"}}\n{body}\n"));
    let done = desk.run(&format!("{PSEUDONYMIZE} -o out.ndjson in.ndjson")).with(1);
    assert_eq!(done.err.matches("refused[id-too-long]").count(), 2, "{}", done.err);
    desk.run(&format!("{PSEUDONYMIZE} --overflow hash -o out.ndjson in.ndjson")).with(0);
    let out = desk.read("out.ndjson");
    assert!(!out.contains("long-"));
    let id = out.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(id.len() == 33 && id.starts_with('x'), "{id}");
    assert!(out.contains(&format!("Patient/{id}\"")), "{out}");
    // One way; shown escaped, and the escape goes out as the same hash.
    desk.run(&format!("{REIDENTIFY} -o back.ndjson out.ndjson")).with(0);
    assert!(!desk.read("back.ndjson").contains("long-"));
    desk.run(&format!("{PSEUDONYMIZE} -o again.ndjson back.ndjson")).with(0);
    assert_eq!(desk.read("again.ndjson"), out);
}

#[test]
fn tokens_that_stay_are_counted() {
    let desk = Desk::new("strict");
    desk.write("in.json", r#"{"resourceType":"Patient","id":"p"}"#);
    desk.run(&format!("{PSEUDONYMIZE} --domain other -o out.json in.json")).with(0);
    let done = desk.run(&format!("{REIDENTIFY} -o back.json out.json")).with(0);
    assert!(done.err.contains("1 tokens stayed"), "{}", done.err);
    desk.run(&format!("{REIDENTIFY} --strict -o back2.json out.json")).with(1);
}
