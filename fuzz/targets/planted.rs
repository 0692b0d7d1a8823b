//! Must fail. The property of `leak` over a pack with one hole, so that a harness which finds nothing is found out itself.
#![no_main]

#[path = "../shared/planted.rs"]
mod planted;

use cryptonym::rewrite::Engine;
use cryptonym::rules::packs;
use libfuzzer_sys::fuzz_target;
use planted::Places;
use std::sync::{Arc, OnceLock};

fn engine() -> &'static Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let pack = packs::embedded("fhir-r4-reversible").expect("a shipped pack");
        let hole = "elements:\n  - { path: Patient.contact.name.text, do: keep }\n";
        assert!(pack.contains("elements:\n"));
        planted::engine(&pack.replacen("elements:\n", hole, 1))
    })
}

fuzz_target!(init: { engine(); }, |bytes: &[u8]| planted::nothing_shows(engine(), Places::Removed, bytes));
