//! Real records from end to end: a caller's client, TLS, the proxy, TLS, the cloud, and back; the command line beside it.
//!
//! What the cloud received and stored is searched by the independent leak check of `support`; what comes back is compared with
//! what was sent, byte by byte where the design promises it. By default a sample of three patients goes through; with
//! `CRYPTONYM_CORPUS=all` a hundred, every bundle, and the transaction of 60 MB.
#![cfg(all(feature = "cli", feature = "proxy"))]

mod cloud_support;
mod support;

use cloud_support::{World, run};
use cryptonym::cli::demo::client::Reply;
use cryptonym::cli::demo::cloud::percent;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;
use support::corpora::{self, say};
use support::leak::{LeakCheck, SPELLING, unmoved_dates};
use support::product::{PSEUDONYMIZED, REVERSIBLE};
use support::roundtrip::{SEAL, identity_fault};
use support::schema::Schema;

// -- the records

/// One resource of the corpus, on one line.
#[derive(Clone)]
struct Resource {
    kind: String,
    id: String,
    text: String,
}

impl Resource {
    fn new(text: &str) -> Resource {
        let (kind, id) = name_of(text);
        Resource { kind: kind.to_owned(), id: id.to_owned(), text: text.to_owned() }
    }

    fn path(&self) -> String {
        format!("{}/{}", self.kind, self.id)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

/// Type and id of a resource that begins with both, as every line of this corpus does.
fn name_of(text: &str) -> (&str, &str) {
    let rest = text.strip_prefix("{\"resourceType\":\"").expect("the type comes first");
    let (kind, rest) = rest.split_once("\",\"id\":\"").expect("the id comes second");
    (kind, rest.split('"').next().unwrap_or_default())
}

/// The records of a hundred patients, or of three with at most `each` of a type.
fn resources(each: usize) -> Vec<Resource> {
    let Some(shared) = corpora::shared() else { return Vec::new() };
    let folder = shared.join("data/synthea-ndjson-100");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        say("skipped: no synthea-ndjson-100");
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "gz")).collect();
    paths.sort();
    let files: Vec<String> = paths.iter().filter_map(|path| corpora::read(path)).map(|file| file.text).collect();
    if corpora::all() && each == usize::MAX {
        return files.iter().flat_map(|text| text.lines()).map(Resource::new).collect();
    }
    let of = |text: &str, kind: &str| text.starts_with(&format!("{{\"resourceType\":\"{kind}\""));
    let patients: Vec<Resource> =
        files.iter().filter(|text| of(text, "Patient")).flat_map(|text| text.lines()).take(3).map(Resource::new).collect();
    let mut chosen = Vec::new();
    for text in files.iter().filter(|text| !["Patient", "Practitioner", "Organization"].iter().any(|kind| of(text, kind))) {
        for patient in &patients {
            chosen.extend(text.lines().filter(|line| line.contains(&patient.id)).take(each.min(6)).map(Resource::new));
        }
    }
    for text in files.iter().filter(|text| of(text, "Practitioner") || of(text, "Organization")) {
        let named = text.lines().map(Resource::new).filter(|one| chosen.iter().any(|other| other.text.contains(&one.id)));
        let named: Vec<Resource> = named.collect();
        chosen.extend(named);
    }
    chosen.extend(patients);
    chosen
}

/// Bundles to be posted to the base, in an order in which each finds what it refers to.
fn bundles() -> Vec<corpora::File> {
    let sample = ["0-practitionerInformation", "6c8f3e83-"];
    let paths = corpora::paths_of_everything("synthea-bundles");
    let chosen = paths.iter().filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        corpora::all() || sample.iter().any(|start| name.starts_with(start))
    });
    chosen.filter_map(|path| corpora::read(path)).collect()
}

/// A Bundle with its resources as written.
#[derive(Deserialize)]
struct Bundle<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    entry: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(rename = "fullUrl")]
    full_url: Option<String>,
    #[serde(borrow)]
    resource: &'a RawValue,
}

// -- the checks

/// Numbers have no token: the pack that loses nothing keeps coordinates.
fn is_coordinate(path: &str) -> bool {
    path.ends_with(".position.latitude")
        || path.ends_with(".position.longitude")
        || path.ends_with(".extension.extension.valueDecimal")
}

/// No identifying value of what was sent is in what was seen.
#[track_caller]
fn names_nobody<'t>(schema: &Schema, pack: &str, sent: impl IntoIterator<Item = &'t str>, seen: &str, who: &str) -> usize {
    let keeps: fn(&str) -> bool = if pack == REVERSIBLE { is_coordinate } else { |_| false };
    let mut check = LeakCheck::new(schema, &SPELLING).keeping(keeps);
    for document in sent {
        check.input(document).unwrap();
    }
    let leaks = check.check(seen.as_bytes());
    assert!(leaks.0.is_empty(), "{who} with {pack}: {leaks}");
    check.len()
}

/// Everything that the cloud was sent, as one text.
fn wire(world: &World) -> String {
    world.received().iter().flat_map(|one| [one.head.clone(), "\r\n\r\n".into(), one.body.clone(), "\r\n".into()]).collect()
}

fn storage(world: &World) -> String {
    world.cloud.stored().iter().map(|one| format!("{} HTTP/1.1\r\n{}\r\n", one.id, one.json)).collect()
}

#[track_caller]
fn dates_moved<'t>(schema: &Schema, pairs: impl IntoIterator<Item = (&'t str, &'t str)>) {
    for (before, after) in pairs {
        let unmoved = unmoved_dates(schema, before, after).unwrap();
        assert!(unmoved.is_empty(), "unmoved: {unmoved:?} in {before:.120}");
    }
}

/// Equal, or the first difference.
#[track_caller]
fn same(one: &str, other: &str, what: &str) {
    if one != other {
        let at = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        let show = |text: &str| String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(80)..text.len().min(at + 160)]).into_owned();
        panic!("{what}: from byte {at}\n  {}\n  {}", show(one), show(other));
    }
}

/// Without the version and time that the cloud put in, and without what holds nothing else.
fn unstamped(text: &str) -> String {
    let Some(start) = text.find("\"versionId\":\"") else { return text.to_owned() };
    let time = start + text[start..].find("\"lastUpdated\":\"").expect("the cloud writes both") + 15;
    let mut end = time + text[time..].find('"').expect("a string ends") + 1;
    let mut start = start;
    if text[..start].ends_with("\"meta\":{") && text[end..].starts_with('}') {
        (start, end) = (start - 8, end + 1);
    }
    if text[end..].starts_with(',') {
        end += 1;
    } else if text[..start].ends_with(',') {
        start -= 1;
    }
    format!("{}{}", &text[..start], &text[end..])
}

/// The text with each `Reference.reference` for which there is another one replaced.
fn with_references(text: &str, other: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for (at, name) in text.match_indices("\"reference\"") {
        let after = text[at + name.len()..].trim_start();
        let Some(literal) = after.strip_prefix(':').map(str::trim_start).and_then(|value| value.strip_prefix('"')) else { continue };
        let start = text.len() - literal.len();
        let length = literal.find('"').expect("a string ends");
        if let Some(new) = other(&literal[..length]) {
            out.push_str(&text[copied..start]);
            out.push_str(&new);
            copied = start + length;
        }
    }
    out.push_str(&text[copied..]);
    out
}

fn bodies(world: &World, method: &str) -> Vec<String> {
    let start = format!("{method} ");
    world.received().into_iter().filter(|one| one.head.starts_with(&start)).map(|one| one.body).collect()
}

// -- resource by resource

fn resources_go_through(pack: &'static str) {
    let Some(schema) = Schema::shared() else { return };
    let sent = resources(usize::MAX);
    if sent.is_empty() {
        return;
    }
    run(async move {
        let world = World::new("resources", pack).await;
        let texts: Vec<&str> = sent.iter().map(|one| one.text.as_str()).collect();
        let paths: Vec<String> = sent.iter().map(Resource::path).collect();
        let puts: Vec<_> = paths.iter().zip(&texts).map(|(path, text)| ("PUT", path.as_str(), *text)).collect();
        let started = Instant::now();
        let written = world.ask_all(&world.ward, &puts).await;
        let seconds = started.elapsed().as_secs_f64();
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        say(&format!("{pack}: {} PUT, {bytes} bytes, 0 refused, {seconds:.1} s", sent.len()));

        // The command line says the same, byte by byte, as NDJSON and as documents.
        let expected = world.site.lines("pseudonymize", pack, &texts);
        assert_eq!(expected.len(), sent.len());
        let (mut one, mut other) = (bodies(&world, "PUT"), expected.clone());
        one.sort();
        other.sort();
        one.iter().zip(&other).for_each(|(one, other)| same(one, other, "the proxy's body, the command's line"));
        let few: Vec<&str> = texts.iter().step_by(10).copied().collect();
        let documents = world.site.documents("pseudonymize", pack, None, &few);
        expected.iter().step_by(10).zip(&documents).for_each(|(one, other)| same(one, other, "a line, a document"));
        let targets: HashSet<String> = world.received().iter().map(|one| one.line().to_owned()).collect();
        for line in &expected {
            let (kind, id) = name_of(line);
            assert!(targets.contains(&format!("PUT /{kind}/{id}")), "path and body name the same");
        }

        dates_moved(&schema, texts.iter().copied().zip(expected.iter().map(String::as_str)));
        let stored: HashMap<String, String> =
            world.cloud.stored().into_iter().map(|one| (format!("{}/{}", one.kind, one.id), one.json)).collect();
        assert_eq!(stored.len(), sent.len());
        let stored: Vec<&String> = expected
            .iter()
            .map(|line| {
                let (kind, id) = name_of(line);
                let text = &stored[&format!("{kind}/{id}")];
                same(&unstamped(text), line, "stored, received");
                text
            })
            .collect();

        // Who may know gets everything back.
        let reads: Vec<_> = paths.iter().map(|path| ("GET", path.as_str(), "")).collect();
        let started = Instant::now();
        let read = world.ask_all(&world.ward, &reads).await;
        say(&format!("{pack}: {} authorized GET, {:.1} s", reads.len(), started.elapsed().as_secs_f64()));
        let by_command = world.site.lines("reidentify", pack, &stored.iter().map(|text| text.as_str()).collect::<Vec<_>>());
        for (number, resource) in sent.iter().enumerate() {
            let body = &read[number].body;
            same(body, &by_command[number], "the ward's answer, the command's line");
            same(body, &written[number].body, "read, answer to the update");
            if pack == REVERSIBLE {
                let fault = identity_fault(&schema, &resource.text, &unstamped(body));
                assert_eq!(fault, None, "{}", resource.path());
                assert!(!body.contains(SEAL), "a seal is left in {}", resource.path());
            }
        }

        // Who may not gets what the cloud has.
        let names: Vec<String> = expected.iter().map(|line| name_of(line)).map(|(kind, id)| format!("{kind}/{id}")).collect();
        let reads: Vec<_> = names.iter().map(|name| ("GET", name.as_str(), "")).collect();
        let mut seen = String::new();
        for (reply, text) in world.ask_all(&world.vendor, &reads).await.iter().zip(&stored) {
            same(&reply.body, text, "the vendor's answer, what is stored");
            seen.push_str(&format!("{:?}\n{}\n", reply.headers, reply.body));
        }

        let values = names_nobody(&schema, pack, texts.iter().copied(), &wire(&world), "the cloud received");
        names_nobody(&schema, pack, texts.iter().copied(), &storage(&world), "the cloud stored");
        names_nobody(&schema, pack, texts.iter().copied(), &seen, "the vendor got");
        say(&format!("{pack}: {values} identifying values, none in {} bytes received", wire(&world).len()));
    });
}

#[test]
fn resources_go_through_pseudonymized() {
    resources_go_through(PSEUDONYMIZED);
}

#[test]
fn resources_go_through_and_come_back() {
    resources_go_through(REVERSIBLE);
}

// -- transactions

/// What the ward is told a resource is called, and what it then reads by that name.
struct Created {
    reference: String,
    expected: String,
    sent_id: Option<String>,
}

/// What the entries of a bundle became, from the answer.
fn created(bundle: &Bundle<'_>, answer: &Reply, known: &mut HashMap<String, String>) -> Vec<Created> {
    let answer = answer.json();
    let answers = answer["entry"].as_array().unwrap();
    assert_eq!(answers.len(), bundle.entry.len());
    let mut links: HashMap<&str, String> = HashMap::new();
    let mut references = Vec::new();
    for (entry, answer) in bundle.entry.iter().zip(answers) {
        let response = &answer["response"];
        assert!(response["status"].as_str().unwrap().starts_with("201"), "{response}");
        let location = response["location"].as_str().unwrap();
        let reference = location.split("/_history/").next().unwrap().to_owned();
        assert!(reference.contains("/Xj"), "an id that the cloud gave is shown escaped: {location}");
        if let (Some(full_url), "transaction") = (&entry.full_url, bundle.kind.as_str()) {
            links.insert(full_url, reference.clone());
        }
        references.push(reference);
    }
    let mut made = Vec::new();
    for (entry, reference) in bundle.entry.iter().zip(&references) {
        let text = entry.resource.get();
        let expected = with_references(text, |link| links.get(link).or_else(|| known.get(link)).cloned());
        let value: Value = serde_json::from_str(text).unwrap();
        made.push((value, Created { reference: reference.clone(), expected, sent_id: None }));
    }
    made.into_iter()
        .map(|(value, made)| {
            for identifier in value["identifier"].as_array().into_iter().flatten() {
                let text = |name: &str| identifier[name].as_str().unwrap_or_default();
                let kind = value["resourceType"].as_str().unwrap_or_default();
                known.insert(format!("{kind}?identifier={}|{}", text("system"), text("value")), made.reference.clone());
            }
            Created { sent_id: value["id"].as_str().map(str::to_owned), ..made }
        })
        .collect()
}

fn bundles_go_through(pack: &'static str) {
    let Some(schema) = Schema::shared() else { return };
    let sent = bundles();
    if sent.is_empty() {
        return;
    }
    run(async move {
        let world = World::new("bundles", pack).await;
        let texts: Vec<&str> = sent.iter().map(|file| file.text.as_str()).collect();
        let by_command = world.site.documents("pseudonymize", pack, None, &texts);
        let mut known = HashMap::new();
        let mut all = Vec::new();
        for ((file, text), expected) in sent.iter().zip(&texts).zip(&by_command) {
            let started = Instant::now();
            let answer = world.ask("POST", "", text).await;
            let seconds = started.elapsed().as_secs_f64();
            let received = world.received().pop().unwrap();
            assert_eq!(received.line(), "POST /");
            same(&received.body, expected, "the proxy's body, the command's file");
            dates_moved(&schema, [(*text, expected.as_str())]);
            let bundle: Bundle<'_> = serde_json::from_str(text).unwrap();
            let made = created(&bundle, &answer, &mut known);
            say(&format!("{pack}: {}, {} entries, {} bytes, {seconds:.2} s", file.name, made.len(), text.len()));
            all.extend(made);
        }

        let reads: Vec<_> = all.iter().map(|one| ("GET", one.reference.as_str(), "")).collect();
        let read = world.ask_all(&world.ward, &reads).await;
        if pack == REVERSIBLE {
            for (one, reply) in all.iter().zip(&read) {
                let shown = one.reference.split('/').nth(1).unwrap();
                let body = unstamped(&reply.body);
                let body = match &one.sent_id {
                    Some(id) => body.replacen(&format!("\"{shown}\""), &format!("\"{id}\""), 1),
                    None => body.replacen(&format!("\"id\":\"{shown}\","), "", 1),
                };
                assert_eq!(identity_fault(&schema, &one.expected, &body), None, "{}", one.reference);
                assert!(!body.contains(SEAL), "a seal is left in {}", one.reference);
            }
        }

        // The command line reads the cloud's copy alike.
        let stored: HashMap<String, String> =
            world.cloud.stored().into_iter().map(|one| (format!("{}/{}", one.kind, one.id), one.json)).collect();
        assert_eq!(stored.len(), all.len());
        let theirs: Vec<&str> = all
            .iter()
            .map(|one| {
                let (kind, shown) = one.reference.split_once('/').unwrap();
                // Prefix, domain tag and MAC are twelve symbols; then comes the cloud's own id.
                stored[&format!("{kind}/{}", &shown[12..])].as_str()
            })
            .collect();
        let by_command = world.site.documents("reidentify", pack, None, &theirs);
        read.iter().zip(&by_command).for_each(|(one, other)| same(&one.body, other, "the ward's answer, the command's file"));

        let kinds: BTreeSet<&str> = stored.keys().filter_map(|name| name.split('/').next()).collect();
        let pages: Vec<String> = kinds.iter().map(|kind| format!("{kind}?_count=1000")).collect();
        let pages: Vec<_> = pages.iter().map(|page| ("GET", page.as_str(), "")).collect();
        let seen = world.ask_all(&world.vendor, &pages).await;
        let seen: String = seen.iter().map(|reply| format!("{:?}\n{}\n", reply.headers, reply.body)).collect();
        let values = names_nobody(&schema, pack, texts.iter().copied(), &wire(&world), "the cloud received");
        names_nobody(&schema, pack, texts.iter().copied(), &storage(&world), "the cloud stored");
        names_nobody(&schema, pack, texts.iter().copied(), &seen, "the vendor got");
        say(&format!("{pack}: {values} identifying values of bundles, none in {} bytes", wire(&world).len()));
    });
}

#[test]
fn bundles_go_through_pseudonymized() {
    bundles_go_through(PSEUDONYMIZED);
}

#[test]
fn bundles_go_through_and_come_back() {
    bundles_go_through(REVERSIBLE);
}
