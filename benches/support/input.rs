//! What the benches measure with: bodies, keys, and a clock that counts only this thread's work.

#![allow(dead_code)] // each bench takes what it needs

use cryptonym::names::{Caller, Domain};
use cryptonym::policy::{Permit, danger};
use cryptonym::rewrite::{Engine, Options};
use cryptonym::rules::{Compiled, packs};
use cryptonym::token::{DomainKeys, Keyring};
use rustix::time::{ClockId, clock_gettime};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// CPU time of this thread.
pub fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The middle one.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn keyring() -> Keyring {
    Keyring::generate([7; 32], "2026-11-23T10:00:00Z")
}

fn domain() -> Domain {
    Domain::new("bench").expect("a name")
}

/// Keys of the domain in which everything here is measured.
pub fn keys() -> DomainKeys {
    keyring().domain(&domain(), None).expect("the keyring has an active epoch")
}

/// An embedded pack, bound to those keys.
pub fn engine(pack: &str) -> Arc<Engine> {
    engine_of(packs::embedded(pack).expect("an embedded pack"))
}

/// A rule file, bound to those keys.
pub fn engine_of(yaml: &str) -> Arc<Engine> {
    let rules = Compiled::new(yaml).expect("the rules load");
    Arc::new(Engine::new(rules, &keyring(), &domain(), Options::default()).expect("keys for the domain"))
}

/// A permit for everything.
pub fn key_holder() -> Arc<Permit> {
    Arc::new(danger::key_holder(Caller::new("bench").expect("a name"), None))
}

/// Where the shared records are, if they are there.
pub fn records() -> Option<PathBuf> {
    let shared = std::env::var_os("CRYPTONYM_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")), PathBuf::from);
    let file = shared.join("data/synthea-bundles/057aa36e-b892-9964-75b9-ffb46b097e34.json");
    file.exists().then_some(file)
}

/// The entries of a real Synthea record where the shared records are there, else of one made up here; compact, names in their order.
fn entries() -> Vec<Vec<u8>> {
    match records().map(std::fs::read) {
        Some(Ok(bundle)) => objects_at(&compact(&bundle), 2),
        _ => made_up(),
    }
}

/// JSON without white space between its tokens.
fn compact(json: &[u8]) -> Vec<u8> {
    let (mut text, mut escaped) = (false, false);
    let mut keeps = |&b: &u8| {
        let keeps = text || !b.is_ascii_whitespace();
        if b == b'"' && !escaped {
            text = !text;
        }
        escaped = b == b'\\' && !escaped;
        keeps
    };
    json.iter().copied().filter(|b| keeps(b)).collect()
}

/// The objects of compact JSON that stand so deep in others and in arrays.
fn objects_at(json: &[u8], deep: usize) -> Vec<Vec<u8>> {
    let (mut text, mut escaped, mut depth, mut start) = (false, false, 0, 0);
    let mut objects = Vec::new();
    for (at, &b) in json.iter().enumerate() {
        match b {
            b'"' if !escaped => text = !text,
            b'{' | b'[' if !text => {
                if depth == deep && b == b'{' {
                    start = at;
                }
                depth += 1;
            }
            b'}' | b']' if !text => {
                depth -= 1;
                if depth == deep && b == b'}' {
                    objects.push(json[start..=at].to_vec());
                }
            }
            _ => {}
        }
        escaped = b == b'\\' && !escaped;
    }
    objects
}

fn made_up() -> Vec<Vec<u8>> {
    let observation = |i: usize| {
        format!(
            r#"{{"fullUrl":"urn:uuid:00000000-0000-4000-8000-{i:012}","resource":{{"resourceType":"Observation","id":"00000000-0000-4000-8000-{i:012}","status":"final","category":[{{"coding":[{{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"vital-signs","display":"vital-signs"}}]}}],"code":{{"coding":[{{"system":"http://loinc.org","code":"8302-2","display":"Body Height"}}],"text":"Body Height"}},"subject":{{"reference":"urn:uuid:00000000-0000-4000-9000-{:012}"}},"effectiveDateTime":"2011-02-02T16:30:49-05:00","issued":"2011-02-02T16:30:49.825-05:00","valueQuantity":{{"value":181.2,"unit":"cm","system":"http://unitsofmeasure.org","code":"cm"}}}}}}"#,
            i % 10
        )
        .into_bytes()
    };
    let patient = br#"{"fullUrl":"urn:uuid:00000000-0000-4000-9000-000000000000","resource":{"resourceType":"Patient","id":"00000000-0000-4000-9000-000000000000","identifier":[{"system":"http://hospital.example/mrn","value":"4711"}],"name":[{"use":"official","family":"Ng","given":["Ada","May"]}],"gender":"female","birthDate":"1973-05-31","address":[{"line":["1 Main Street"],"city":"Boston","state":"MA","postalCode":"02108","country":"US"}]}}"#;
    std::iter::once(patient.to_vec()).chain((1..4000).map(observation)).collect()
}

/// A compact transaction of about this many bytes.
pub fn bundle(bytes: usize) -> Vec<u8> {
    bundle_of(&entries(), bytes)
}

/// The same of made-up records, the same everywhere.
pub fn made_up_bundle(bytes: usize) -> Vec<u8> {
    bundle_of(&made_up(), bytes)
}

/// A made-up patient.
pub fn made_up_resource() -> Vec<u8> {
    objects_at(&made_up()[0], 1).swap_remove(0)
}

fn bundle_of(entries: &[Vec<u8>], bytes: usize) -> Vec<u8> {
    let mut out = br#"{"resourceType":"Bundle","type":"transaction","entry":["#.to_vec();
    for (i, entry) in entries.iter().enumerate() {
        if i > 0 && out.len() >= bytes {
            break;
        }
        if i > 0 {
            out.push(b',');
        }
        out.extend(entry);
    }
    out.extend(b"]}");
    out
}

/// The compact resource nearest to this many bytes.
pub fn resource(bytes: usize) -> Vec<u8> {
    let resources = entries().into_iter().map(|entry| objects_at(&entry, 1).swap_remove(0));
    resources.min_by_key(|resource| resource.len().abs_diff(bytes)).expect("there are entries")
}
