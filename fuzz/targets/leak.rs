//! No planted value is ever in the output: documents are built from the bytes, and go through every FHIR pack.
#![no_main]

#[path = "../shared/planted.rs"]
mod planted;

use cryptonym::rewrite::Engine;
use cryptonym::rules::packs;
use libfuzzer_sys::fuzz_target;
use planted::Places;
use std::sync::{Arc, OnceLock};

fn engines() -> &'static [(Arc<Engine>, Places)] {
    static ENGINES: OnceLock<Vec<(Arc<Engine>, Places)>> = OnceLock::new();
    ENGINES.get_or_init(|| {
        let fhir = packs::PACKS.iter().filter(|(name, _)| name.starts_with("fhir-"));
        fhir.map(|(name, yaml)| {
            let places = if name.ends_with("limited-data-set") { Places::Kept } else { Places::Removed };
            (planted::engine(yaml), places)
        })
        .collect()
    })
}

fuzz_target!(init: { engines(); }, |bytes: &[u8]| {
    let [pack, bytes @ ..] = bytes else { return };
    let engines = engines();
    let (engine, places) = &engines[usize::from(*pack) % engines.len()];
    planted::nothing_shows(engine, *places, bytes);
});
