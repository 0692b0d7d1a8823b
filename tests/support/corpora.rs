//! The public test records of the shared folder, walked as documents. Where the folder is absent there is nothing to walk,
//! and the test that asked says so.
//!
//! By default a sample is walked, so that `cargo test` stays quick in a build without optimization; with the environment
//! variable `CRYPTONYM_CORPUS=all` everything is.

use flate2::read::GzDecoder;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One file of a corpus, decompressed. NDJSON or a single document by its name.
pub struct File {
    pub name: String,
    pub text: String,
}

impl File {
    pub fn is_ndjson(&self) -> bool {
        self.name.ends_with(".ndjson")
    }

    /// The documents in it, one for each line of NDJSON that is not blank.
    pub fn documents(&self) -> Vec<&str> {
        if self.is_ndjson() { self.text.lines().filter(|l| !l.trim().is_empty()).collect() } else { vec![&self.text] }
    }
}

/// The shared folder: `CRYPTONYM_SHARED`, else beside the repository. Prints why, where there is none.
pub fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("CRYPTONYM_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    say("skipped: no ../shared");
    None
}

/// Whether everything is asked for rather than a sample.
pub fn all() -> bool {
    std::env::var("CRYPTONYM_CORPUS").is_ok_and(|v| v == "all")
}

/// A line for whoever reads the test's output.
#[allow(clippy::print_stdout)]
pub fn say(text: &str) {
    println!("{text}");
}

/// The corpora of Synthea: every record must pass.
pub const SYNTHEA: &[&str] = &[
    "synthea-ndjson-100",
    "synthea-bulk-10",
    "synthea-bundles",
    "synthea-bundles/all-120-bz2/synthea",
    "synthea-pathling",
];

/// The one large transaction, 60 MB.
pub const BIG: &str = "synthea-bundles/all-120-bz2/big-tx";

/// The examples of the specification.
pub const EXAMPLES: &str = "fhir-r4-examples-json";

/// Paths of the records of one corpus in the order of their names.
pub fn paths_of_everything(corpus: &str) -> Vec<PathBuf> {
    let Some(shared) = shared() else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(shared.join("data").join(corpus)) else {
        say(&format!("skipped: no {corpus}"));
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_file() && is_record(p)).collect();
    paths.sort();
    if paths.is_empty() {
        say(&format!("skipped: no records in {corpus}"));
    }
    paths
}

/// The same; a sample of `sample` files unless everything is asked for.
pub fn paths(corpus: &str, sample: usize) -> Vec<PathBuf> {
    let mut paths = paths_of_everything(corpus);
    if !all() {
        // The smallest, and the patients before all.
        paths.sort_by_key(|p| (!p.to_string_lossy().contains("/Patient."), p.metadata().map_or(0, |m| m.len())));
        paths.truncate(sample);
    }
    paths
}

fn is_record(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // The log of the export server is no FHIR.
    name != "log.ndjson" && [".json", ".ndjson", ".ndjson.gz", ".json.bz2"].iter().any(|end| name.ends_with(end))
}

/// Reads one file; `None`, with a line printed, where nothing here can decompress it.
pub fn read(path: &Path) -> Option<File> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let mut text = String::new();
    if let Some(name) = name.strip_suffix(".gz") {
        GzDecoder::new(std::fs::File::open(path).ok()?).read_to_string(&mut text).ok()?;
        return Some(File { name: name.to_owned(), text });
    }
    if let Some(name) = name.strip_suffix(".bz2") {
        let python = "import bz2,sys;sys.stdout.buffer.write(bz2.open(sys.argv[1]).read())";
        let output = Command::new("bunzip2")
            .arg("-c")
            .arg(path)
            .output()
            .or_else(|_| Command::new("python3").args(["-c", python]).arg(path).output());
        match output {
            Ok(output) if output.status.success() => text = String::from_utf8(output.stdout).ok()?,
            _ => {
                say(&format!("skipped {name}: neither bunzip2 nor python3 here"));
                return None;
            }
        }
        return Some(File { name: name.to_owned(), text });
    }
    std::fs::File::open(path).ok()?.read_to_string(&mut text).ok()?;
    Some(File { name, text })
}

/// Every set of FHIR JSON that is not Synthea's, and the releases whose packs it is for.
pub const FHIR_SETS: &[(&str, &[&str])] = &[
    ("fhir-r4-examples-json", &["r4"]),
    ("fhir-r4-conformance-sample", &["r4"]),
    ("fhir-r4b-examples-json", &["r4b"]),
    ("fhir-r5-examples-json", &["r5"]),
    ("fhir-test-cases/r4", &["r4"]),
    ("fhir-test-cases/r4b", &["r4b"]),
    ("fhir-test-cases/r5", &["r5"]),
    ("fhir-test-cases/rX", &["r4", "r4b", "r5"]),
    ("fhir-test-cases/validator", &["r4", "r4b", "r5"]),
    ("fhir-edge-cases", &["r4", "r4b", "r5"]),
    ("fhir-http-requests", &["r4", "r5"]),
    ("fhirpath-js-cases", &["r4", "r5"]),
    ("peers", &["r4"]),
];

/// JSON and NDJSON below a folder of the records, at any depth, in the order of their paths; by default a sample of `sample` files of
/// at most 60 KB from all over.
pub fn files_below(set: &str, sample: usize) -> Vec<PathBuf> {
    let Some(shared) = shared() else { return Vec::new() };
    let (mut found, mut folders) = (Vec::new(), vec![shared.join("data").join(set)]);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|e| e.path()) {
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if [".json", ".ndjson", ".ndjson.gz"].iter().any(|end| name.ends_with(end)) {
                found.push(path);
            }
        }
    }
    found.sort();
    if found.is_empty() {
        say(&format!("skipped: no records in {set}"));
    }
    if !all() {
        found.retain(|p| p.metadata().is_ok_and(|m| m.len() <= 60_000));
        let every = found.len().div_ceil(sample).max(1);
        found = found.into_iter().step_by(every).collect();
    }
    found
}
