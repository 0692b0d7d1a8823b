//! Request targets and search conditions: nothing panics, and what crosses is again a request of FHIR's interface.
#![no_main]

use cryptonym::fhir::Release;
use cryptonym::fhir::reference::RequestUrl;
use cryptonym::names::Domain;
use cryptonym::rewrite::{Engine, Options, url};
use cryptonym::rules::{Compiled, packs};
use cryptonym::token::Keyring;
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let rules = Compiled::new(packs::PACKS[1].1).expect("an embedded pack loads");
        let keyring = Keyring::generate([3; 32], "2026-11-23T10:00:00Z");
        Engine::new(rules, &keyring, &Domain::new("fuzz").expect("a name"), Options::default()).expect("keys")
    })
}

fuzz_target!(init: { engine(); }, |bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for method in ["GET", "PUT", "POST", "DELETE"] {
        if let Ok(crosses) = url::request(engine(), method, text) {
            assert!(RequestUrl::parse(Release::R4, method, &crosses).is_ok());
        }
    }
    let _ = url::condition(engine(), "Patient", text);
    let _ = url::condition(engine(), "Observation", text);
});
