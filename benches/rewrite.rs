//! What does privacy cost? The rewriter beside what a plain proxy in Rust would do with a body: `serde_json::Value` parse and write.
//!
//! Rounds are interleaved and medians are quoted, since machines are noisy. The input is a file given as argument (`cargo bench --bench
//! rewrite -- FILE`), else a Bundle of repeated observations made here. Prints MB/s of input, and the ratio.

#![allow(clippy::print_stdout)] // a bench prints its figures

use cryptonym::names::{Caller, Domain};
use cryptonym::policy::danger;
use cryptonym::rewrite::{Engine, Format, Options, Rewriter};
use cryptonym::rules::{Compiled, packs};
use cryptonym::token::Keyring;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 9;
const CHUNK_BYTES: usize = 64 * 1024;

fn engine(pack: &str) -> Arc<Engine> {
    let yaml = packs::embedded(pack).expect("an embedded pack");
    let rules = Compiled::new(yaml).expect("an embedded pack loads");
    let keyring = Keyring::generate([7; 32], "2026-11-23T10:00:00Z");
    let domain = Domain::new("bench").expect("a name");
    Arc::new(Engine::new(rules, &keyring, &domain, Options::default()).expect("keys for the domain"))
}

fn run(mut rewriter: Rewriter, input: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(input.len() * 3 / 2);
    for chunk in input.chunks(CHUNK_BYTES) {
        rewriter.write(chunk, &mut output).expect("the input is accepted");
    }
    rewriter.finish(&mut output).expect("the input is whole");
    output
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let done = work();
    (start.elapsed(), done)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn sample() -> Vec<u8> {
    let mut bundle = String::from(r#"{"resourceType":"Bundle","type":"collection","entry":["#);
    for i in 0..4000 {
        if i > 0 {
            bundle.push(',');
        }
        bundle.push_str(&format!(
            r#"{{"fullUrl":"urn:uuid:00000000-0000-4000-8000-{i:012}","resource":{{"resourceType":"Observation","id":"obs-{i}","status":"final","category":[{{"coding":[{{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"vital-signs","display":"vital-signs"}}]}}],"code":{{"coding":[{{"system":"http://loinc.org","code":"8302-2","display":"Body Height"}}],"text":"Body Height"}},"subject":{{"reference":"Patient/p-{}"}},"effectiveDateTime":"2011-02-02T16:30:49-05:00","issued":"2011-02-02T16:30:49.825-05:00","valueQuantity":{{"value":181.2,"unit":"cm","system":"http://unitsofmeasure.org","code":"cm"}}}}}}"#,
            i % 100
        ));
    }
    bundle.push_str("]}");
    bundle.into_bytes()
}

fn main() {
    let file = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    let input = file.map_or_else(sample, |f| std::fs::read(f).expect("the file is there"));
    let megabytes = input.len() as f64 / 1e6;
    let analytics = engine("fhir-r4-pseudonymized");
    let reversible = engine("fhir-r4-reversible");
    let permit = || Some(Arc::new(danger::key_holder(Caller::new("bench").expect("a name"), None)));
    let sealed = run(Rewriter::pseudonymize(Arc::clone(&reversible), Format::Json), &input);
    let names = ["serde_json::Value parse + write", "pseudonymized pack", "reversible pack", "reversible pack, back"];
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(
            timed(|| {
                let value: serde_json::Value = serde_json::from_slice(black_box(&input)).expect("JSON");
                black_box(serde_json::to_vec(&value).expect("JSON"))
            })
            .0,
        );
        times[1].push(timed(|| black_box(run(Rewriter::pseudonymize(Arc::clone(&analytics), Format::Json), &input))).0);
        times[2]
            .push(timed(|| black_box(run(Rewriter::pseudonymize(Arc::clone(&reversible), Format::Json), &input))).0);
        times[3].push(
            timed(|| black_box(run(Rewriter::reidentify(Arc::clone(&reversible), Format::Json, permit()), &sealed))).0,
        );
    }
    let base = median(times[0].clone()).as_secs_f64();
    println!("{megabytes:.1} MB, median of {ROUNDS} interleaved rounds, {} KiB chunks, one thread", CHUNK_BYTES / 1024);
    for (name, times) in names.iter().zip(times) {
        let time = median(times).as_secs_f64();
        println!("{name:32} {:8.1} MB/s   {:5.1} x", megabytes / time, base / time);
    }
}
