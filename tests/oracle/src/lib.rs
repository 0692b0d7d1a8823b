//! Whether what cryptonym writes is FHIR to somebody else: fhirbolt, strict, R4, as generic elements.
//!
//! The promise is relative: wherever fhirbolt accepts the input, it accepts the output. fhirbolt refuses a late `resourceType`,
//! knows no cardinalities and overflows the stack on deep nesting, so it is asked about honest records only.
//! The command is the one named by `CRYPTONYM_BIN`, else the release build beside this package.
#![cfg(test)]

use fhirbolt::FhirReleases;
use fhirbolt::element::Element;
use std::path::{Path, PathBuf};
use std::process::Command;

fn accepts(document: &str) -> bool {
    fhirbolt::json::from_str::<Element<{ FhirReleases::R4 }>>(document, None).is_ok()
}

#[test]
fn fhirbolt_tells_fhir_from_what_is_none() {
    assert!(accepts(r#"{"resourceType":"Patient","name":[{"family":"Ng"}],"birthDate":"1965-01-13"}"#));
    assert!(!accepts(r#"{"resourceType":"Patient","family":"Ng"}"#));
    assert!(!accepts(r#"{"resourceType":"Patient","name":[{"family":{"a":"Ng"}}]}"#));
    assert!(!accepts(r#"{"resourceType":"Patient","active":"yes"}"#));
}

#[test]
fn what_cryptonym_writes_is_accepted_where_its_input_was() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let binary =
        std::env::var_os("CRYPTONYM_BIN").map_or_else(|| root.join("../../target/release/cryptonym"), PathBuf::from);
    let shared = std::env::var_os("CRYPTONYM_SHARED").map_or_else(|| root.join("../../../shared"), PathBuf::from);
    if !shared.is_dir() {
        return println!("skipped: no ../shared");
    }
    assert!(binary.is_file(), "no command at {}: build it, or set CRYPTONYM_BIN", binary.display());
    let folder = std::env::temp_dir().join(format!("cryptonym-oracle-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let keys = folder.join("keys");
    assert!(Command::new(&binary).args(["keys", "generate", "-o"]).arg(&keys).status().unwrap().success());

    let (mut asked, mut not_asked, mut refused) = (0, 0, 0);
    for corpus in ["synthea-bulk-10", "synthea-bundles", "fhir-r4-examples-json"] {
        let mut inputs: Vec<PathBuf> = std::fs::read_dir(shared.join("data").join(corpus))
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path())
            .collect();
        inputs.retain(|path| {
            path.file_name().is_some_and(|n| n != "log.ndjson")
                && path.extension().is_some_and(|e| e == "json" || e == "ndjson")
        });
        inputs.sort();
        for input in inputs {
            let ndjson = input.extension().is_some_and(|e| e == "ndjson");
            let text = std::fs::read_to_string(&input).unwrap();
            for pack in ["fhir-r4-pseudonymized", "fhir-r4-reversible"] {
                let output = folder.join(if ndjson { "out.ndjson" } else { "out.json" });
                std::fs::remove_file(&output).ok();
                let run = Command::new(&binary)
                    .args(["pseudonymize", "--rules", pack, "--keys"])
                    .arg(&keys)
                    .arg("-o")
                    .arg(&output)
                    .arg(&input)
                    .output()
                    .unwrap();
                if !run.status.success() {
                    assert!(
                        corpus == "fhir-r4-examples-json",
                        "{}: {}",
                        input.display(),
                        String::from_utf8_lossy(&run.stderr)
                    );
                    refused += 1;
                    continue;
                }
                let written = std::fs::read_to_string(&output).unwrap();
                let documents = |text: &str| -> Vec<String> {
                    if ndjson { text.lines().map(str::to_owned).collect() } else { vec![text.to_owned()] }
                };
                for (number, (before, after)) in documents(&text).iter().zip(documents(&written)).enumerate() {
                    if !accepts(before) {
                        not_asked += 1;
                        continue;
                    }
                    asked += 1;
                    assert!(
                        accepts(&after),
                        "{} with {pack}: document {} is no FHIR to fhirbolt",
                        input.display(),
                        number + 1
                    );
                }
            }
        }
    }
    std::fs::remove_dir_all(&folder).ok();
    println!("{asked} documents accepted, {not_asked} whose input was not, {refused} files refused by us");
    assert!(asked > 0);
}
