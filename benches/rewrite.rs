//! What does privacy cost? The rewriter beside what a careful Rust program would do without it: parse a body into `serde_json::Value`,
//! make the same edits, write it.
//!
//! The baseline is told beforehand where every edit goes and of which kind (`baseline.rs`): it matches no rules, checks no grammar of
//! FHIR and looks for no subject, it only walks there, computes the same tokens by the same public functions, and must come to the same
//! document, which is asserted. So the ratio is the least that a reader may expect.
//!
//! Rounds are interleaved, and the median of each one's *thread CPU time* is quoted: on a shared machine absolute figures drift, the
//! ratios hold. Real Synthea records are read from `../shared` (or `CRYPTONYM_SHARED`); without them, a made-up Bundle stands in.

#![allow(clippy::print_stdout)] // a bench prints its figures

#[path = "support/baseline.rs"]
mod baseline;
#[path = "support/input.rs"]
mod input;

use baseline::Baseline;
use cryptonym::rewrite::{Format, Rewriter};
use input::{engine, key_holder, median, thread_cpu};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

const ROUNDS: usize = 15;
const CHUNK_BYTES: usize = 64 * 1024;
const PACK: &str = "fhir-r4-pseudonymized";

/// One way to do the work, and its times.
struct Contender<'a> {
    name: &'static str,
    work: Box<dyn FnMut() + 'a>,
    times: Vec<Duration>,
}

fn contender<'a>(name: &'static str, work: impl FnMut() + 'a) -> Contender<'a> {
    Contender { name, work: Box::new(work), times: Vec::new() }
}

/// Runs the contenders in turn, beginning with another in each round, so that each stands behind each; the first is what the others are measured by.
fn race(title: &str, bytes: usize, repeat: usize, mut contenders: Vec<Contender<'_>>) {
    for round in 0..=ROUNDS {
        let first = round % contenders.len();
        let (last, begin) = contenders.split_at_mut(first);
        for contender in begin.iter_mut().chain(last) {
            let start = thread_cpu();
            (0..repeat).for_each(|_| (contender.work)());
            if round > 0 {
                contender.times.push(thread_cpu() - start); // the first round warms up
            }
        }
    }
    println!("{title}: {bytes} bytes, median of {ROUNDS} interleaved rounds of thread CPU time");
    let base = median(contenders[0].times.clone()).as_secs_f64();
    for contender in contenders {
        let time = median(contender.times).as_secs_f64();
        let rate = (bytes * repeat) as f64 / time / 1e6;
        println!("  {:52} {rate:8.1} MB/s  {:6.2} x", contender.name, base / time);
    }
}

fn in_chunks(mut rewriter: Rewriter, input: &[u8], chunk: usize, output: &mut Vec<u8>) {
    output.clear();
    for part in input.chunks(chunk) {
        rewriter.write(part, output).expect("the input is accepted");
    }
    rewriter.finish(output).expect("the input is whole");
    black_box(&output);
}

fn bodies(title: &str, input: &[u8], repeat: usize) {
    let analytics = engine(PACK);
    let reversible = engine("fhir-r4-reversible");
    let mut sealed = Vec::new();
    in_chunks(Rewriter::pseudonymize(Arc::clone(&analytics), Format::Json), input, input.len(), &mut sealed);
    let mut kept = Vec::new();
    in_chunks(Rewriter::pseudonymize(Arc::clone(&reversible), Format::Json), input, input.len(), &mut kept);
    let baseline = Baseline::new(PACK, input, &sealed);
    let permit = key_holder();
    let (mut a, mut b, mut c, mut d, mut e) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut pooled = Rewriter::pseudonymize(Arc::clone(&analytics), Format::Json);
    let mut pooled_back = Rewriter::reidentify(Arc::clone(&analytics), Format::Json, Some(Arc::clone(&permit)));
    let whole = input.len();
    let contenders = vec![
        contender("serde_json::Value: parse, identical edits, write", || {
            black_box(baseline.run(black_box(input)));
        }),
        contender("serde_json::Value: parse, write (no edits)", || {
            let value: serde_json::Value = serde_json::from_slice(black_box(input)).expect("JSON");
            black_box(serde_json::to_vec(&value).expect("JSON"));
        }),
        contender("pseudonymized pack", || {
            in_chunks(Rewriter::pseudonymize(Arc::clone(&analytics), Format::Json), input, whole, &mut a);
        }),
        contender("pseudonymized pack, one rewriter for all bodies", || {
            b.clear();
            pooled.document(black_box(input), &mut b).expect("the input is accepted");
        }),
        contender("pseudonymized pack, 64 KiB chunks", || {
            in_chunks(Rewriter::pseudonymize(Arc::clone(&analytics), Format::Json), input, CHUNK_BYTES, &mut c);
        }),
        contender("pseudonymized pack, back", || {
            d.clear();
            pooled_back.document(black_box(&sealed), &mut d).expect("the output is accepted");
        }),
        contender("reversible pack", || {
            in_chunks(Rewriter::pseudonymize(Arc::clone(&reversible), Format::Json), input, whole, &mut e);
        }),
    ];
    race(title, input.len(), repeat, contenders);
    let mut back = Vec::new();
    let contenders = vec![
        contender("reversible pack", || {
            in_chunks(Rewriter::pseudonymize(Arc::clone(&reversible), Format::Json), input, whole, &mut back);
        }),
        contender("reversible pack, back", || {
            let rewriter = Rewriter::reidentify(Arc::clone(&reversible), Format::Json, Some(Arc::clone(&permit)));
            in_chunks(rewriter, &kept, whole, &mut Vec::with_capacity(kept.len()));
        }),
    ];
    race(&format!("{title}, both ways (MB/s of plain input)"), input.len(), repeat, contenders);
}

fn main() {
    bodies("1 MB Bundle", &input::bundle(1_000_000), 1);
    bodies("4 KB resource", &input::resource(4_000), 200);
}
