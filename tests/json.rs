//! The scanner against the grammar of JSON (JSONTestSuite), and a body against the places where a network may cut it.
//!
//! Documents that are no FHIR go through the direction back, which validates all and passes what it does not know byte for byte; the
//! direction out is strict and is tried with the same texts inside a resource. Where the suite is absent its tests say so.

mod support;

use cryptonym::rewrite::json::skip;
use cryptonym::rewrite::{Code, Engine, Format, Rewriter};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use support::corpora::{self, say};
use support::inside::{RELEASES, backward, engine, outward, packs_of};

/// The suite's files of one kind (`y_`, `n_`, `i_`), by name.
fn suite(kind: &str) -> Vec<(String, Vec<u8>)> {
    fn walk(folder: &Path, kind: &str, found: &mut Vec<(String, Vec<u8>)>) {
        for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                walk(&path, kind, found);
            } else if name.starts_with(kind) && name.ends_with(".json") {
                found.push((name, std::fs::read(&path).expect("a file of the suite")));
            }
        }
    }
    let mut found = Vec::new();
    if let Some(shared) = corpora::shared() {
        walk(&shared.join("data/json"), kind, &mut found);
        if found.is_empty() {
            say("skipped: no JSONTestSuite");
        }
    }
    found.sort();
    found
}

/// The pack that loses nothing.
fn reversible() -> &'static Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let (_, yaml) =
            packs_of("r4").into_iter().find(|(name, _)| name.ends_with("reversible")).expect("a shipped pack");
        engine(yaml)
    })
}

/// All of a body through a rewriter in pieces of these lengths, the rest as one; what came out, even where it was refused.
fn run(mut rewriter: Rewriter, input: &[u8], pieces: impl IntoIterator<Item = usize>) -> (Result<(), Code>, Vec<u8>) {
    let mut output = Vec::new();
    let mut rest = input;
    for length in pieces {
        let (piece, more) = rest.split_at(length.min(rest.len()));
        rest = more;
        if let Err(refusal) = rewriter.write(piece, &mut output) {
            return (Err(refusal.code), output);
        }
    }
    let done = rewriter.write(rest, &mut output).and_then(|()| rewriter.finish(&mut output));
    (done.map_err(|refusal| refusal.code), output)
}

/// Whether the text is one JSON value to the scanner: the code if it is not.
fn scanned(text: &[u8]) -> Result<(), String> {
    let text = [text, b" "].concat(); // a number ends only where something follows
    let end = skip(&text, 0).map_err(|stop| format!("{stop:?}"))?;
    if text[end..].iter().all(u8::is_ascii_whitespace) { Ok(()) } else { Err("text behind the value".to_owned()) }
}

fn back(format: Format) -> Rewriter {
    Rewriter::reidentify(Arc::clone(reversible()), format, None)
}

#[test]
fn what_is_json_passes_untouched() {
    for (name, text) in suite("y_") {
        let duplicate = name.starts_with("y_object_duplicated_key");
        let (done, output) = run(back(Format::Json), &text, []);
        if duplicate {
            assert_eq!(done, Err(Code::DuplicateKey), "{name}");
            assert!(scanned(&text).is_err(), "{name}");
            continue;
        }
        assert_eq!(scanned(&text), Ok(()), "{name}");
        assert_eq!((done, &output), (Ok(()), &text), "{name}");
        if !text.contains(&b'\n') {
            let lines = [b"{\"a\":1}\n", &text[..], b"\n[]"].concat();
            assert_eq!(run(back(Format::Ndjson), &lines, []), (Ok(()), lines.clone()), "{name} as a line");
        }
    }
}

#[test]
fn what_is_no_json_is_refused() {
    for (name, text) in suite("n_") {
        assert!(scanned(&text).is_err(), "{name} passes the scanner");
        let (done, output) = run(back(Format::Json), &text, []);
        assert!(done.is_err(), "{name} passes");
        assert_eq!(String::from_utf8_lossy(&output).trim(), "", "{name}: something of it came out");
        let blank = text.iter().all(u8::is_ascii_whitespace);
        if !text.contains(&b'\n') && !blank {
            let (done, output) = run(back(Format::Ndjson), &[b"{}\n", &text[..], b"\n{}"].concat(), []);
            assert!(done.is_err(), "{name} passes as a line");
            assert_eq!(output, b"{}\n", "{name} as a line");
        }
        // Inside a resource, where a careless reader would resynchronize.
        for (head, tail) in [
            (r#"{"resourceType":"Patient","extension":"#, "}"),
            (r#"{"resourceType":"Patient","name":[{"text":"#, "}]}"),
        ] {
            if blank || name == "n_multidigit_number_then_00.json" {
                continue;
            }
            let document = [head.as_bytes(), &text, tail.as_bytes()].concat();
            let (done, output) = run(outward(reversible()), &document, []);
            assert!(done.is_err() && output.is_empty(), "{name} passes inside a resource");
        }
    }
}

#[test]
fn what_readers_may_decide_crashes_nothing() {
    for (name, text) in suite("i_").into_iter().chain(suite("")) {
        let (done, output) = run(back(Format::Json), &text, []);
        if done.is_ok() {
            assert_eq!(output, text, "{name}");
            assert!(std::str::from_utf8(&output).is_ok(), "{name} came out and is no UTF-8");
        }
        let _ = run(back(Format::Ndjson), &text, []);
        let _ = run(outward(reversible()), &text, []);
        let document = [br#"{"resourceType":"Patient","name":[{"text":"#, &text[..], b"}]}"].concat();
        let _ = run(outward(reversible()), &document, []);
    }
}

/// Strings of the suite as a patient's name: there and back they say the same.
#[test]
fn strings_inside_a_resource_come_back() {
    let mut strings = 0;
    for (name, text) in suite("y_string") {
        let text = String::from_utf8(text).expect("what is JSON is UTF-8");
        let Some(inner) = text.trim().strip_prefix('[').and_then(|t| t.strip_suffix(']')) else { continue };
        if serde_json::from_str::<String>(inner).is_err() {
            continue;
        }
        let document = format!(r#"{{"resourceType":"Patient","name":[{{"text":{inner},"given":[{inner}]}}]}}"#);
        let (done, output) = run(outward(reversible()), document.as_bytes(), []);
        assert_eq!(done, Ok(()), "{name}");
        let (done, output) = run(backward(reversible()), &output, []);
        assert_eq!((done, String::from_utf8_lossy(&output).as_ref()), (Ok(()), &*document), "{name}");
        strings += 1;
    }
    say(&format!("{strings} strings went there and back"));
}

/// A generator of numbers that any two runs share (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most.max(1) as u64) as usize
    }
}

/// Where the network cuts is invisible: small documents at every byte, large ones byte by byte and at random, in both directions.
#[test]
fn where_a_body_is_cut_is_invisible() {
    let (mut small, mut large) = (0, 0);
    for release in RELEASES {
        let set = format!("fhir-{release}-examples-json");
        let paths = corpora::paths_of_everything(&set);
        for (pack, yaml) in packs_of(release) {
            let engine = engine(yaml);
            let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
            let size = |path: &std::path::PathBuf| path.metadata().map_or(0, |m| m.len());
            let least = if corpora::all() { 40 } else { 6 };
            for path in paths.iter().filter(|p| size(p) < 1_500).take(least) {
                let Some(file) = corpora::read(path) else { continue };
                let input = file.text.as_bytes();
                let whole = run(outward(&engine), input, []);
                for cut in 0..input.len() {
                    assert_eq!(run(outward(&engine), input, [cut]), whole, "{} with {pack} cut at {cut}", file.name);
                }
                let back = run(backward(&engine), &whole.1, []);
                for cut in (0..whole.1.len()).step_by(if corpora::all() { 1 } else { 7 }) {
                    let name = &file.name;
                    assert_eq!(run(backward(&engine), &whole.1, [cut]), back, "{name} back with {pack} cut at {cut}");
                }
                small += 1;
            }
            for path in paths.iter().filter(|p| (20_000..80_000).contains(&size(p))).take(least) {
                let Some(file) = corpora::read(path) else { continue };
                let input = file.text.as_bytes();
                let whole = run(outward(&engine), input, []);
                assert_eq!(run(outward(&engine), input, vec![1; input.len()]), whole, "{} byte by byte", file.name);
                for _ in 0..8 {
                    let most = 1 + numbers.below(4_000);
                    let pieces: Vec<usize> = (0..input.len()).map(|_| numbers.below(most)).collect();
                    assert_eq!(run(outward(&engine), input, pieces), whole, "{} with {pack} in pieces", file.name);
                }
                large += 1;
            }
        }
    }
    say(&format!("{small} small documents cut at every byte, {large} large ones byte by byte and at random"));
}
