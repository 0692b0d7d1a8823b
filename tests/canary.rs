//! Every leaf of every resource type of every release holds a canary, and every pack runs over all of them: what comes out is
//! on a reviewed list with its reason, or the test fails.
//!
//! The list is `tests/data/canaries.tsv`. A faulty pack must be caught: twenty are made from the shipped ones by one edit each.

mod support;

use cryptonym::rewrite::Engine;
use cryptonym::rules::packs;
use std::collections::HashSet;
use std::sync::Arc;
use support::canary::{self, Census, Elements, Reviewed};
use support::corpora::{self, say};
use support::inside::{engine, outward, packs_of};

const LIST: &str = include_str!("data/canaries.tsv");

/// Runs the corpus of some types through a pack: all of it, or of each type one variant, another for another `sample`. A refused element is left out and the rest tried again.
fn census(elements: &Elements, engine: &Arc<Engine>, types: &[&String], sample: Option<usize>) -> Census {
    let mut census = Census::default();
    let mut rewriter = outward(engine);
    for (number, ty) in types.iter().enumerate() {
        let mut omit = HashSet::new();
        let all = elements.variants(ty);
        for variant in (0..all).filter(|variant| sample.is_none_or(|sample| (number + sample) % all == *variant)) {
            let options = canary::Options::of(variant);
            let mut output = Vec::new();
            let document = loop {
                let document = canary::document(elements, ty, options, &omit);
                output.clear();
                let Err(refusal) = rewriter.document(document.text.as_bytes(), &mut output) else { break document };
                let code = refusal.code.as_str().to_owned();
                let at = document.element_at(refusal.byte as usize);
                let at = at.unwrap_or_else(|| panic!("{ty}: {refusal}, and no leaf there"));
                *census.refusals.entry((at.element.clone(), at.ty.clone(), code)).or_default() += 1;
                let fresh = omit.insert(format!("{} {}", at.element, at.ty));
                assert!(fresh, "{ty}: {refusal} again without {} ({})", at.element, at.path);
            };
            census.documents += 1;
            census.canaries += document.len();
            let text = String::from_utf8(output).expect("output is UTF-8");
            for canary in document.survivors(&text) {
                let key = (canary.element.clone(), canary.ty.clone());
                census.survivors.entry(key).or_insert((0, canary.path.clone())).0 += 1;
            }
        }
    }
    census
}

/// Survivors of a pack that are not on the list, a line each.
fn unlisted(list: &Reviewed, pack: &str, census: &Census) -> Vec<String> {
    let new = census.survivors.iter().filter(|((element, ty), _)| !list.allows(pack, element, ty));
    new.map(|((element, ty), (count, path))| format!("{pack}\t{element}\t{ty}\t{count} times, such as {path}"))
        .collect()
}

fn every_pack_of(release: &str) {
    let Some(elements) = Elements::shared(release) else { return };
    let list = Reviewed::read(LIST);
    let (mut found, mut packs) = (Vec::new(), Vec::new());
    for (number, (pack, yaml)) in packs_of(release).into_iter().enumerate() {
        let types: Vec<&String> = elements.resources.iter().collect();
        let census = census(&elements, &engine(yaml), &types, (!corpora::all()).then_some(number));
        say(&format!(
            "{pack}: {} documents of {} types, {} canaries, {} elements survive, {} are refused",
            census.documents,
            types.len(),
            census.canaries,
            census.survivors.len(),
            census.refusals.len()
        ));
        found.extend(unlisted(&list, pack, &census));
        let refused = census.refusals.iter().filter(|((e, t, code), _)| !list.allows(pack, e, &format!("{t}:{code}")));
        found.extend(refused.map(|((e, t, code), n)| format!("{pack}\t{e}\t{t}:{code}\trefused {n} times")));
        packs.push(pack);
    }
    let stale = list.stale(&packs);
    assert!(found.is_empty(), "{} survivors that nobody reviewed:\n{}", found.len(), found.join("\n"));
    // A sample does not need every line.
    assert!(stale.is_empty() || !corpora::all(), "on the list and not needed:\n{}", stale.join("\n"));
}

#[test]
fn no_canary_of_r4_survives_but_those_reviewed() {
    every_pack_of("r4");
}

#[test]
fn no_canary_of_r4b_survives_but_those_reviewed() {
    every_pack_of("r4b");
}

#[test]
fn no_canary_of_r5_survives_but_those_reviewed() {
    every_pack_of("r5");
}

/// Packs with one rule deleted or weakened: pack, what is written there, what is written instead, a type that shows it.
const FAULTS: &[(&str, &str, &str, &str)] = &[
    ("fhir-r4-pseudonymized", "resource-id: { token: {} }", "resource-id: keep", "Patient"),
    (
        "fhir-r4-pseudonymized",
        "Identifier.value: { token: { class: identifier } }",
        "Identifier.value: keep",
        "Patient",
    ),
    ("fhir-r4-pseudonymized", "HumanName: remove", "HumanName.family: keep", "Patient"),
    (
        "fhir-r4-pseudonymized",
        "Address.city|Address.district|Address.postalCode: remove",
        "Address.district: remove\n  Address.city|Address.postalCode: keep",
        "Patient",
    ),
    ("fhir-r4-pseudonymized", "ContactPoint: remove", "ContactPoint.value: keep", "Patient"),
    ("fhir-r4-pseudonymized", "Attachment: remove", "Attachment.title: keep", "DocumentReference"),
    ("fhir-r4-pseudonymized", "Annotation: remove", "Annotation.text: keep", "Observation"),
    ("fhir-r4-pseudonymized", "Narrative: remove", "Narrative.div: keep", "Patient"),
    (
        "fhir-r4-pseudonymized",
        "date|dateTime|instant: { shift: { days: 365 } }",
        "date|dateTime|instant: keep",
        "Patient",
    ),
    ("fhir-r4-pseudonymized", "Meta.lastUpdated: remove", "Meta.lastUpdated: keep", "Observation"),
    (
        "fhir-r4-pseudonymized",
        "string|markdown|xhtml|base64Binary: remove",
        "string|markdown|xhtml|base64Binary: keep",
        "Observation",
    ),
    ("fhir-r4-pseudonymized", "uri|url|oid|uuid: remove", "uri|url|oid|uuid: keep", "Endpoint"),
    ("fhir-r4-pseudonymized", "id: { token: { class: uid } }", "id: keep", "ImagingStudy"),
    ("fhir-r4-pseudonymized", "Meta.versionId: remove", "Meta.versionId: keep", "Observation"),
    ("fhir-r4-pseudonymized", "Extension.valueCode|", "", "Observation"),
    ("fhir-r4-pseudonymized", "Extension.valueDecimal|", "", "Observation"),
    ("fhir-r4-pseudonymized", "|Parameters.parameter.valuePositiveInt", "", "Parameters"),
    ("fhir-r4-pseudonymized", "others: remove", "others: keep", "Observation"),
    (
        "fhir-r4-pseudonymized",
        "  - path: Location.position\n    do: remove\n",
        "  - path: Location.position.altitude\n    do: remove\n",
        "Location",
    ),
    ("fhir-r4-pseudonymized", "elements:\n", "elements:\n  - path: Patient.birthDate\n    do: keep\n", "Patient"),
    (
        "fhir-r4-pseudonymized",
        "elements:\n",
        "elements:\n  - path: nodesByType('Reference').display\n    do: keep\n",
        "Observation",
    ),
    (
        "fhir-r4-reversible",
        "HumanName.family: { token: { class: name, pad: true } }",
        "HumanName.family: keep",
        "Patient",
    ),
    (
        "fhir-r4-reversible",
        "Address.postalCode: { token: { class: address, pad: true } }",
        "Address.postalCode: keep",
        "Patient",
    ),
    (
        "fhir-r4-reversible",
        "ContactPoint.value: { token: { class: telecom, pad: true } }",
        "ContactPoint.value: keep",
        "Patient",
    ),
    ("fhir-r4-reversible", "  Extension.valueCode: { token: { class: text } }", "  #", "Observation"),
    (
        "fhir-r4-reversible",
        "OperationOutcome.issue.diagnostics\n    do: { token: { class: outcome } }",
        "OperationOutcome.issue.diagnostics\n    do: keep",
        "OperationOutcome",
    ),
];

#[test]
fn every_seeded_fault_is_caught() {
    let Some(elements) = Elements::shared("r4") else { return };
    let list = Reviewed::read(LIST);
    let mut missed = Vec::new();
    for (pack, from, to, ty) in FAULTS {
        let yaml = packs::embedded(pack).expect("a shipped pack");
        assert_eq!(yaml.matches(from).count(), 1, "{pack} says this once: {from}");
        let census = census(&elements, &engine(&yaml.replace(from, to)), &[&(*ty).to_owned()], None);
        match unlisted(&list, pack, &census).first() {
            Some(line) => say(&format!("caught: {} instead of {}: {line}", to.trim(), from.trim()).replace('\n', " ")),
            None => missed.push(format!("{pack}: {to} instead of {from}")),
        }
    }
    assert!(FAULTS.len() >= 20 && missed.is_empty(), "missed:\n{}", missed.join("\n"));
}
