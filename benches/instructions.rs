//! How many instructions does the rewriter take for a byte, and a token room for a token? The regression gate: counts repeat where times do not.
//!
//! `cargo bench --bench instructions` runs this program under callgrind once for each scenario, counts what lies within [`measured`] alone, prints a
//! table and compares it with `instructions.tsv`: more than 3 % above it fails, so does more than 3 % below (write the new figure down, or the next
//! loss hides in the gain). `-- --write` writes the file anew; `-- NAME...` runs only those. Without valgrind it ends with 77. Bodies are
//! made up here, so that the counts are the same on every machine with the same compiler, libraries and vector registers; those named
//! `synthea` are read from the shared records, and left out where these are not.
//!
//! callgrind shows programs a processor without SHA instructions: hashes count for more here than they cost.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a bench prints its figures

#[path = "support/input.rs"]
mod input;

use cryptonym::names::Class;
use cryptonym::rewrite::{Format, Rewriter};
use cryptonym::secret::Phi;
use cryptonym::token::{ClassKeys, Form};
use input::{engine, engine_of, key_holder};
use std::hint::black_box;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;

const TOLERANCE: f64 = 0.03;
const BODY_BYTES: usize = 200_000;
/// Rules that name no element which occurs, beside one that does: their number is what is asked about.
const FEW_RULES: usize = 10;
const MANY_RULES: usize = 1000;
/// More instructions for each byte that many rules may cost than few do.
const MANY_RULES_COST: f64 = 0.10;

/// What is counted, and per how many of what.
struct Job {
    work: Box<dyn FnMut()>,
    per: usize,
}

/// The only function that callgrind counts.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
}

type Scenario = (&'static str, &'static str, fn() -> Job);

const SCENARIOS: &[Scenario] = &[
    ("bundle.pseudonymized.out", "byte", || body("fhir-r4-pseudonymized", input::made_up_bundle(BODY_BYTES), false)),
    ("bundle.pseudonymized.back", "byte", || body("fhir-r4-pseudonymized", input::made_up_bundle(BODY_BYTES), true)),
    ("bundle.reversible.out", "byte", || body("fhir-r4-reversible", input::made_up_bundle(BODY_BYTES), false)),
    ("bundle.reversible.back", "byte", || body("fhir-r4-reversible", input::made_up_bundle(BODY_BYTES), true)),
    ("resource.pseudonymized.out", "byte", || body("fhir-r4-pseudonymized", input::made_up_resource(), false)),
    ("synthea.pseudonymized.out", "byte", || body("fhir-r4-pseudonymized", input::bundle(BODY_BYTES), false)),
    ("synthea.pseudonymized.back", "byte", || body("fhir-r4-pseudonymized", input::bundle(BODY_BYTES), true)),
    ("synthea.reversible.out", "byte", || body("fhir-r4-reversible", input::bundle(BODY_BYTES), false)),
    ("synthea.reversible.back", "byte", || body("fhir-r4-reversible", input::bundle(BODY_BYTES), true)),
    ("synthea.resource.out", "byte", || body("fhir-r4-pseudonymized", input::resource(4_000), false)),
    ("rules.few", "byte", || rules(FEW_RULES)),
    ("rules.many", "byte", || rules(MANY_RULES)),
    ("token.id", "token", || token(|i| format!("pat-{i:08}"), Form::default())),
    ("token.uuid", "token", || token(|i| format!("00000000-0000-4000-8000-{i:012}"), Form::default())),
    ("token.text", "token", || token(|i| format!("Quillfeather {i}"), Form { padded: true, raw_spelling: false })),
    ("reveal.id", "token", || reveal(|i| format!("pat-{i:08}"))),
];

/// One body through a rewriter in used buffers, which has seen nothing of this body's texts.
fn body(pack: &'static str, input: Vec<u8>, back: bool) -> Job {
    rewriting(engine(pack), input, back)
}

fn rewriting(engine: Arc<cryptonym::rewrite::Engine>, input: Vec<u8>, back: bool) -> Job {
    let mut sealed = Vec::new();
    let mut out = Rewriter::pseudonymize(Arc::clone(&engine), Format::Json);
    out.document(&input, &mut sealed).expect("the input is accepted");
    drop(out); // its buffers serve the one that is measured, its memory of texts does not
    let mut output = Vec::with_capacity(2 * sealed.len());
    let body = if back { sealed } else { input };
    let per = body.len();
    let work = move || {
        output.clear();
        let mut rewriter = match back {
            true => Rewriter::reidentify(Arc::clone(&engine), Format::Json, Some(key_holder())),
            false => Rewriter::pseudonymize(Arc::clone(&engine), Format::Json),
        };
        rewriter.write(black_box(&body), &mut output).expect("the input is accepted");
        rewriter.finish(&mut output).expect("the input is whole");
        black_box(&output);
    };
    Job { work: Box::new(work), per }
}

/// A pack with so many element rules, each of which keeps what the pack keeps anyway.
fn rules(count: usize) -> Job {
    let pack = cryptonym::rules::packs::embedded("fhir-r4-pseudonymized").expect("an embedded pack");
    let mut lines = String::new();
    let schema = cryptonym::fhir::Schema::of(cryptonym::fhir::Release::R4);
    let codes = schema.types().flat_map(|(_, d)| {
        let about = d.category == cryptonym::fhir::Category::Resource;
        about.then(|| format!("{}.meta.security.where(system = 'http://SYSTEM.example').version", d.name))
    });
    let paths: Vec<String> = codes.collect();
    for at in 0..count {
        let path = paths[at % paths.len()].replace("SYSTEM", &format!("s{at}"));
        lines.push_str(&format!("  - {{ path: \"{path}\", do: remove, why: \"measured\" }}\n"));
    }
    let at = pack.find("\nelements:\n").expect("the pack has element rules") + "\nelements:\n".len();
    let yaml = format!("{}{lines}{}", &pack[..at], &pack[at..]);
    rewriting(engine_of(&yaml), input::made_up_bundle(BODY_BYTES), false)
}

const TOKENS: usize = 1000;

fn class() -> ClassKeys {
    input::keys().class(&Class::new("identifier").expect("a name"), true)
}

fn token(value: fn(usize) -> String, form: Form) -> Job {
    let (keys, values) = (class(), (0..TOKENS).map(value).collect::<Vec<_>>());
    let mut out = String::with_capacity(1000);
    let work = move || {
        for value in &values {
            out.clear();
            // Exposed to be sealed, as everywhere.
            keys.pseudonymize(&Phi::new(value.as_str()), form, &mut out).expect("short");
            black_box(&out);
        }
    };
    Job { work: Box::new(work), per: TOKENS }
}

fn reveal(value: fn(usize) -> String) -> Job {
    let (keys, permit) = (class(), key_holder());
    let sealed = |i| {
        let mut token = String::new();
        keys.pseudonymize(&Phi::new(value(i)), Form::default(), &mut token).expect("short");
        token
    };
    let tokens: Vec<String> = (0..TOKENS).map(sealed).collect();
    let work = move || {
        for token in &tokens {
            black_box(keys.reidentify(token, &permit));
        }
    };
    Job { work: Box::new(work), per: TOKENS }
}

/// Counts one scenario in a process of its own.
fn count(name: &str) -> Option<f64> {
    let program = std::env::current_exe().expect("this program has a name");
    let valgrind = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*measured*"])
        .args([program.as_os_str(), "--one".as_ref(), name.as_ref()])
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&valgrind.stderr);
    let total = said.lines().find_map(|line| line.split_once("Collected : "))?.1.trim().parse::<f64>().ok()?;
    let per = String::from_utf8_lossy(&valgrind.stdout).trim().parse::<f64>().ok()?;
    Some(total / per)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [one, name] = &arguments[..]
        && one == "--one"
    {
        let (.., job) = SCENARIOS.iter().find(|(known, ..)| known == name).expect("a scenario");
        let mut job = job();
        (job.work)(); // caches and guesses are those of a program that has run
        measured(&mut job.work);
        println!("{}", job.per);
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("no valgrind");
        return ExitCode::from(77);
    }
    let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.tsv"));
    let recorded = std::fs::read_to_string(&file).unwrap_or_default();
    let known = |name: &str| {
        let mut rows = recorded.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        rows.find(|row| row[0] == name).and_then(|row| row.get(2)?.parse::<f64>().ok())
    };
    let write = arguments.iter().any(|a| a == "--write");
    let wanted = |name: &str| arguments.iter().all(|a| a.starts_with("--")) || arguments.iter().any(|a| a == name);
    let (mut rows, mut wrong, mut rules) = (String::from("scenario\tper\tinstructions\n"), 0, Vec::new());
    for (name, unit, _) in SCENARIOS.iter().filter(|(name, ..)| wanted(name)) {
        if name.starts_with("synthea.") && input::records().is_none() {
            println!("{name:32} skipped: the shared records are not there");
            continue;
        }
        let Some(now) = count(name) else {
            eprintln!("{name}: could not be counted");
            return ExitCode::FAILURE;
        };
        rows.push_str(&format!("{name}\t{unit}\t{now:.2}\n"));
        if name.starts_with("rules.") {
            rules.push(now);
        }
        let verdict = match known(name) {
            None => "not recorded".to_owned(),
            Some(then) => {
                let change = now / then - 1.0;
                let within = change.abs() <= TOLERANCE;
                wrong += usize::from(!within);
                format!("recorded {then:.2}, {:+.1} %{}", 100.0 * change, if within { "" } else { ": OUT OF BOUNDS" })
            }
        };
        println!("{name:32} {now:9.2} instructions per {unit:6} {verdict}");
    }
    if let [few, many] = rules[..] {
        let cost = many / few - 1.0;
        wrong += usize::from(cost > MANY_RULES_COST);
        println!(
            "{MANY_RULES} rules beside {FEW_RULES}: {:+.1} %, {:.0} % are allowed",
            100.0 * cost,
            100.0 * MANY_RULES_COST
        );
    }
    if write {
        std::fs::write(&file, rows).expect("the table can be written");
        return ExitCode::SUCCESS;
    }
    ExitCode::from(u8::from(wrong > 0))
}
