//! The library's own door: packs as they are embedded, rewriters over whole documents. For checks that run over tens of thousands
//! of documents, which a process each would make slow; the command line has its own checks in [`super::product`].

use cryptonym::names::{Caller, Domain};
use cryptonym::policy::danger;
use cryptonym::rewrite::{Engine, Format, Options, Refusal, Rewriter};
use cryptonym::rules::{Compiled, packs};
use cryptonym::secret::SecretKey;
use cryptonym::token::Keyring;
use std::sync::Arc;

/// The releases that packs exist for, as their names spell them.
pub const RELEASES: &[&str] = &["r4", "r4b", "r5"];

/// Rules and keys of a pack; the keys are the same in every run.
pub fn engine(yaml: &str) -> Arc<Engine> {
    let keyring = Keyring::generate([7; 32], "2026-11-23T10:00:00Z");
    let domain = Domain::new("canary").expect("a name");
    let rules = Compiled::new(yaml).unwrap_or_else(|mistakes| panic!("the pack does not load: {}", mistakes[0]));
    Arc::new(Engine::new(rules, &keyring, &domain, Options::default()).expect("keys"))
}

/// The FHIR packs of a release, by name.
pub fn packs_of(release: &str) -> Vec<(&'static str, &'static str)> {
    let prefix = format!("fhir-{release}-");
    packs::PACKS.iter().copied().filter(|(name, _)| name.starts_with(&prefix)).collect()
}

/// A rewriter towards the untrusted side.
pub fn outward(engine: &Arc<Engine>) -> Rewriter {
    Rewriter::pseudonymize(Arc::clone(engine), Format::Json).within(&SecretKey::new([5; 32]))
}

/// A rewriter back, for one who holds the keys.
pub fn backward(engine: &Arc<Engine>) -> Rewriter {
    let permit = danger::key_holder(Caller::new("oracle").expect("a name"), None);
    Rewriter::reidentify(Arc::clone(engine), Format::Json, Some(Arc::new(permit)))
}

/// One document through a rewriter.
pub fn document(rewriter: &mut Rewriter, input: &str) -> Result<String, Refusal> {
    let mut output = Vec::new();
    rewriter.document(input.as_bytes(), &mut output)?;
    Ok(String::from_utf8(output).expect("output is UTF-8"))
}
