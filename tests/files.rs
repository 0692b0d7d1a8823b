//! Files and folders through the command line: no input is lost, and no output is named after a person.

use std::path::PathBuf;
use std::process::Command;

fn cryptonym(arguments: &[&str]) -> (Option<i32>, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_cryptonym")).args(arguments).output().expect("the command runs");
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir_all(&folder).unwrap();
    assert_eq!(cryptonym(&["keys", "generate", "-o", folder.join("k.yaml").to_str().unwrap()]).0, Some(0));
    folder
}

const PATIENT: &str = r#"{"resourceType":"Patient","gender":"male"}"#;

#[test]
fn names_of_outputs_tell_nothing_of_people() {
    let at = folder("names");
    let inputs = at.join("in");
    std::fs::create_dir_all(&inputs).unwrap();
    for name in ["Lovelace.0815471199.json", "Patient.0815471199.json", "ada.19500203.json", "Patient.000.ndjson"] {
        std::fs::write(inputs.join(name), PATIENT).unwrap();
    }
    let (keys, out) = (at.join("k.yaml"), at.join("out"));
    let arguments = [
        "pseudonymize",
        "--rules",
        "fhir-r4-reversible",
        "--keys",
        keys.to_str().unwrap(),
        "-o",
        out.to_str().unwrap(),
        inputs.to_str().unwrap(),
    ];
    assert_eq!(cryptonym(&arguments).0, Some(0));
    let names: Vec<String> =
        std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), 4);
    assert!(names.contains(&"Patient.000.ndjson".to_owned()));
    assert!(
        names.iter().all(|n| !n.contains("0815471199") && !n.contains("19500203") && !n.contains("Lovelace")),
        "{names:?}"
    );
}

#[test]
fn two_inputs_of_one_name_are_not_one_output() {
    let at = folder("collide");
    for part in ["a", "b"] {
        std::fs::create_dir_all(at.join(part)).unwrap();
        std::fs::write(at.join(part).join("Patient.json"), PATIENT).unwrap();
    }
    let paths: Vec<String> =
        ["k.yaml", "out", "a", "b"].iter().map(|p| at.join(p).to_str().unwrap().to_owned()).collect();
    let (code, words) = cryptonym(&[
        "pseudonymize",
        "--rules",
        "fhir-r4-reversible",
        "--keys",
        &paths[0],
        "-o",
        &paths[1],
        &paths[2],
        &paths[3],
    ]);
    assert_eq!(code, Some(2), "{words}");
    assert!(!at.join("out").exists());
}
