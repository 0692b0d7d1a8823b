//! The census: every pack over every official example of its release. What is refused is on a list, with its reason.
//!
//! HL7's examples hold every resource type and much that no honest record holds. Refused is at most one in two hundred, besides ids that are too
//! long for a token; what the reversible pack wrote comes back. The examples lie outside the repository; without
//! them this test says so and passes. `CRYPTONYM_WRITE=1` writes the list anew, for review.

mod support;

use cryptonym::names::{Caller, Domain};
use cryptonym::policy::{Permit, danger};
use cryptonym::rewrite::{Code, Engine, Format, Options, Refusal, Rewriter};
use cryptonym::rules::{Compiled, packs};
use cryptonym::secret::SecretKey;
use cryptonym::token::Keyring;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use support::corpora::{SYNTHEA, paths, paths_of_everything, read, say};

/// Release, folder of examples, how many at least.
const EXAMPLES: [(&str, &str, usize); 3] = [
    ("r4", "fhir-r4-examples-json", 683),
    ("r4b", "fhir-r4b-examples-json", 360),
    ("r5", "fhir-r5-examples-json", 421),
];

const LIST: &str = "tests/data/refused_examples.tsv";

fn engine(pack: &str) -> Arc<Engine> {
    let rules =
        Compiled::new(packs::embedded(pack).unwrap()).unwrap_or_else(|mistakes| panic!("{pack}: {mistakes:#?}"));
    let keyring = Keyring::generate([9; 32], "2026-11-23T10:00:00Z");
    Arc::new(Engine::new(rules, &keyring, &Domain::new("census").unwrap(), Options::default()).unwrap())
}

fn out(engine: &Arc<Engine>, input: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut output = Vec::new();
    let rewriter = Rewriter::pseudonymize(Arc::clone(engine), Format::Json);
    rewriter.within(&SecretKey::new([5; 32])).document(input, &mut output)?;
    Ok(output)
}

fn back(engine: &Arc<Engine>, input: &[u8], permit: &Arc<Permit>) -> Vec<u8> {
    let mut output = Vec::new();
    let mut rewriter = Rewriter::reidentify(Arc::clone(engine), Format::Json, Some(Arc::clone(permit)));
    rewriter.document(input, &mut output).expect("what we wrote can be read");
    output
}

/// Rewritten leaves come back in the canonical spelling of RFC 8785; the examples of R4B and R5 write five characters as escapes.
fn canonical(text: &[u8]) -> String {
    let mut text = String::from_utf8(text.to_vec()).expect("the examples are UTF-8");
    for (escape, plain) in [("3c", "<"), ("3e", ">"), ("3d", "="), ("26", "&"), ("27", "'")] {
        text = text.replace(&format!("\\u00{escape}"), plain);
    }
    text
}

/// `Patient.contact[3].name` → `Patient.contact.name`.
fn place(path: &str) -> String {
    let mut inside = false;
    let outside = |c: &char| {
        inside = if *c == '[' { true } else { inside && *c != ']' };
        !inside && *c != ']'
    };
    path.chars().filter(outside).collect()
}

#[test]
fn the_official_examples_cross() {
    let permit = Arc::new(danger::key_holder(Caller::new("census").unwrap(), None));
    let mut refused: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut faults = Vec::new();
    for (release, folder, at_least) in EXAMPLES {
        let paths = paths_of_everything(folder);
        if paths.is_empty() {
            return;
        }
        assert!(paths.len() >= at_least, "{folder}: only {} examples", paths.len());
        let documents: Vec<(String, Vec<u8>)> = paths
            .iter()
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
            .collect();
        for (pack, _) in packs::PACKS.iter().filter(|(pack, _)| pack.starts_with(&format!("fhir-{release}-"))) {
            let engine = engine(pack);
            let (mut others, mut changed) = (0, Vec::new());
            for (name, input) in &documents {
                match out(&engine, input) {
                    Ok(output) if pack.ends_with("-reversible") => {
                        if canonical(&back(&engine, &output, &permit)) != canonical(input) {
                            changed.push(name);
                        }
                    }
                    Ok(_) => {}
                    Err(Refusal { code, path, .. }) => {
                        others += usize::from(code != Code::IdTooLong);
                        let line = format!("{release}\t{name}\t{}\t{}", code.as_str(), place(&path));
                        refused.entry(line).or_default().push(pack);
                    }
                }
            }
            say(&format!(
                "{pack}: {} examples, {others} refused besides long ids, {} changed",
                documents.len(),
                changed.len()
            ));
            if !changed.is_empty() {
                faults.push(format!("{pack}: did not come back: {changed:?}"));
            }
            if others * 200 > documents.len() {
                faults.push(format!("{pack}: {others} of {} refused", documents.len()));
            }
        }
    }
    // A reason is by code and place: the same words for all that are alike.
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join(LIST);
    let text = std::fs::read_to_string(&list).unwrap_or_default();
    let rows = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplitn(3, '\t').collect::<Vec<_>>());
    let known: BTreeMap<&str, (&str, &str)> = rows.map(|row| (row[2], (row[1], row[0]))).collect();
    let written: String = refused
        .iter()
        .map(|(line, by)| {
            let by: Vec<&str> = by.iter().map(|pack| pack.splitn(3, '-').nth(2).unwrap_or(pack)).collect();
            let reason = known.get(line.as_str()).map_or("?", |(_, reason)| reason);
            format!("{line}\t{}\t{reason}\n", by.join(","))
        })
        .collect();
    let head =
        "# Official examples of HL7 that are refused: release, file, code, place, by which packs, why that is right.\n";
    if std::env::var_os("CRYPTONYM_WRITE").is_some() {
        std::fs::write(&list, format!("{head}{written}")).unwrap();
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(!written.contains("\t?\n"), "refused without a reason in {LIST}: {written}");
    assert_eq!(text, format!("{head}{written}"), "{LIST} is not current");
}

/// Records as hospitals have them: nothing is refused, by no pack.
#[test]
fn records_of_synthea_cross() {
    let files: Vec<_> = SYNTHEA.iter().flat_map(|corpus| paths(corpus, 2)).filter_map(|path| read(&path)).collect();
    for (pack, _) in packs::PACKS.iter().filter(|(pack, _)| pack.starts_with("fhir-r4-")) {
        let engine = engine(pack);
        let mut documents = 0;
        for file in &files {
            for document in file.documents() {
                documents += 1;
                if let Err(refusal) = out(&engine, document.as_bytes()) {
                    panic!("{pack}: {}: {refusal}", file.name);
                }
            }
        }
        say(&format!("{pack}: {documents} records of Synthea"));
    }
}
