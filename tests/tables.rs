//! The FHIR tables against what others say: the element list they came from, and HL7's own examples.
//!
//! Both lie outside the repository (`../shared`, or where `CRYPTONYM_SHARED` points); without them these tests say so and
//! pass. What is said about the tables without outside help stands beside the code in `src/fhir/`.

#![allow(clippy::print_stderr)] // a test that is skipped says so

use cryptonym::fhir::date::FhirDate;
use cryptonym::fhir::reference::{Reference, ReferenceError, RequestUrl};
use cryptonym::fhir::{JsonKind, Kind, Primitive, Release, Schema, TypeId, query, search};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("CRYPTONYM_SHARED")
        .map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").into(), PathBuf::from);
    let path = root.join(path);
    if !path.exists() {
        eprintln!("skipped: no ../shared");
        return None;
    }
    Some(path)
}

/// The types and cardinality of a row, and those of the schema, in the words of the row.
fn compare(schema: &Schema, line: &str) -> Result<(), String> {
    let columns: Vec<&str> = line.split('\t').collect();
    let [path, types, max, targets] = columns[..] else { return Err(format!("not a row: {line}")) };
    let (parent, name) = path.rsplit_once('.').ok_or("no parent")?;
    let id = schema.type_named(parent).ok_or(format!("{parent} is not known"))?;
    let elements: Vec<_> = schema.definition(id).elements.iter().filter(|element| element.declared == name).collect();

    let mut found = BTreeSet::new();
    for element in &elements {
        if element.many != (max == "*") {
            return Err(format!("{path}: max {max}"));
        }
        let type_name = match element.kind {
            Kind::Primitive(primitive) => primitive.name().to_owned(),
            Kind::Resource => "Resource".to_owned(),
            Kind::Complex(id) => schema.definition(id).name.to_owned(),
        };
        if matches!(&*type_name, "Reference" | "CodeableReference" | "canonical") {
            let expected = if targets == "Resource" { "" } else { targets };
            if element.targets.join("|") != expected {
                return Err(format!("{path}: targets {:?}", element.targets));
            }
        }
        if let Some(stem) = name.strip_suffix("[x]") {
            let ending = element.name.strip_prefix(stem).ok_or(format!("{path}: {}", element.name))?;
            if !ending.eq_ignore_ascii_case(&type_name) {
                return Err(format!("{path}: {} is a {type_name}", element.name));
            }
        }
        found.insert(type_name);
    }
    let expected: BTreeSet<String> = types
        .split('|')
        .map(|type_name| match type_name {
            "Element" | "BackboneElement" => path,
            // The definitions waver between `id` and `string`; the text of the specification does not.
            "id" | "string" if name == "id" && schema.resource(parent).is_some() => "id",
            "id" | "string" if name == "id" => "string",
            _ => type_name.trim_start_matches('#'),
        })
        .map(str::to_owned)
        .collect();
    if found == expected { Ok(()) } else { Err(format!("{path}: {found:?} instead of {types}")) }
}

const ABSTRACT: [&str; 8] = [
    "Resource",
    "DomainResource",
    "Element",
    "BackboneElement",
    "DataType",
    "BackboneType",
    "CanonicalResource",
    "MetadataResource",
];

#[test]
fn every_element_of_every_release_is_in_the_schema() {
    for (release, file) in [(Release::R4, "r4"), (Release::R4b, "r4b"), (Release::R5, "r5")] {
        let Some(path) = shared(&format!("tables/elements_{file}.tsv")) else { return };
        let schema = Schema::of(release);
        let text = std::fs::read_to_string(path).unwrap();
        let mut rows = 0;
        let mut mistakes = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let type_name = line.split('.').next().unwrap_or_default();
            if ABSTRACT.contains(&type_name) {
                continue; // abstract: their rows are checked in every type that inherits them
            }
            rows += 1;
            mistakes.extend(compare(schema, line).err());
        }
        assert!(mistakes.is_empty(), "{file}: {mistakes:#?}");
        assert!(rows > 7000, "{file}: only {rows} rows");
    }
}

#[test]
fn the_search_parameters_are_those_of_the_release() {
    for (release, file) in [(Release::R4, "r4"), (Release::R4b, "r4b"), (Release::R5, "r5")] {
        let Some(path) = shared(&format!("tables/search_params_{file}.tsv")) else { return };
        let text = std::fs::read_to_string(path).unwrap();
        let rows = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect::<Vec<_>>());
        let mut expected: BTreeSet<_> =
            rows.map(|row| (row[0].to_owned(), row[1].to_owned(), row[2].to_owned())).collect();
        // The definitions of R4B hold this one twice, with two types.
        expected.remove(&("Resource".to_owned(), "_filter".to_owned(), "token".to_owned()));
        let found = search::parameters(release)
            .iter()
            .map(|row| (row.resource.to_owned(), row.code.to_owned(), format!("{:?}", row.kind).to_ascii_lowercase()));
        assert_eq!(found.collect::<BTreeSet<_>>(), expected);
    }
}

/// Walks a resource and reports every key or value that the schema would not expect, as `Type.key: what`.
fn walk(schema: &Schema, resource: &Value, strangers: &mut BTreeMap<String, usize>) {
    let name = resource.get("resourceType").and_then(Value::as_str).unwrap_or("no resourceType");
    match schema.resource(name) {
        Some(id) => walk_object(schema, id, resource, strangers),
        None => *strangers.entry(format!("resource type {name}")).or_default() += 1,
    }
}

fn walk_object(schema: &Schema, id: TypeId, value: &Value, strangers: &mut BTreeMap<String, usize>) {
    let type_name = schema.definition(id).name;
    let mut stranger = |key: &str, what: &str| {
        *strangers.entry(format!("{type_name}.{key}: {what}")).or_default() += 1;
    };
    let Some(members) = value.as_object() else { return stranger("", "not an object") };
    let mut inner = Vec::new();
    for (key, value) in members {
        if key == "resourceType" {
            continue;
        }
        let twin = key.strip_prefix('_');
        let Some(element) = schema.element(id, twin.unwrap_or(key)) else {
            stranger(key, "not known");
            continue;
        };
        if element.many != value.is_array() {
            stranger(key, "array or not");
            continue;
        }
        let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for item in items {
            match (element.kind, twin) {
                (Kind::Primitive(_), Some(_)) if item.is_object() || item.is_null() => {}
                (Kind::Primitive(_), None) if item.is_null() && element.many => {}
                (Kind::Primitive(primitive), None) => {
                    let fits = match primitive.json() {
                        JsonKind::String => item.is_string(),
                        JsonKind::Number => item.is_number(),
                        JsonKind::Boolean => item.is_boolean(),
                    };
                    if !fits {
                        stranger(key, "JSON kind");
                    }
                }
                (Kind::Complex(_) | Kind::Resource, None) => inner.push((element.kind, item)),
                (_, Some(_)) => stranger(key, "not a twin"),
            }
        }
    }
    for element in schema.definition(id).elements.iter().filter(|element| element.required) {
        let stands = |name: &str| members.contains_key(name) || members.contains_key(&format!("_{name}"));
        if !schema.definition(id).elements.iter().any(|other| other.declared == element.declared && stands(other.name))
        {
            stranger(element.declared, "required, but absent");
        }
    }
    for (kind, item) in inner {
        match kind {
            Kind::Complex(id) => walk_object(schema, id, item, strangers),
            _ => walk(schema, item, strangers),
        }
    }
}

fn examples(release: Release, folder: &str, at_least: usize, expected: &[&str]) {
    let Some(folder) = shared(folder) else { return };
    let mut strangers = BTreeMap::new();
    let mut files = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|suffix| suffix == "json") {
            files += 1;
            let value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            walk(Schema::of(release), &value, &mut strangers);
        }
    }
    assert!(files >= at_least, "only {files} examples");
    let found: Vec<&str> = strangers.keys().map(String::as_str).collect();
    assert_eq!(found, expected, "{strangers:#?}");
}

#[test]
fn the_official_examples_of_r4_hold_nothing_unknown() {
    // The one exception is HL7's: Questionnaire-qs1 leaves out a required element.
    examples(Release::R4, "data/fhir-r4-examples-json", 683, &["Questionnaire.item.linkId: required, but absent"]);
}

#[test]
fn the_official_examples_of_r4b_hold_nothing_unknown() {
    examples(Release::R4b, "data/fhir-r4b-examples-json", 360, &[]);
}

#[test]
fn the_official_examples_of_r5_hold_nothing_unknown() {
    examples(Release::R5, "data/fhir-r5-examples-json", 421, &[]);
}

/// Hands every primitive of a resource to `each`, with its type, the key and the name of the type that has the key.
fn leaves(schema: &Schema, resource: &Value, each: &mut dyn FnMut(&'static str, &'static str, Primitive, &Value)) {
    if let Some(id) = resource.get("resourceType").and_then(Value::as_str).and_then(|name| schema.resource(name)) {
        object_leaves(schema, id, resource, each);
    }
}

fn object_leaves(
    schema: &Schema,
    id: TypeId,
    value: &Value,
    each: &mut dyn FnMut(&'static str, &'static str, Primitive, &Value),
) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let Some(element) = schema.element(id, key) else { continue };
        for item in value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice) {
            match element.kind {
                Kind::Primitive(primitive) => each(schema.definition(id).name, element.name, primitive, item),
                Kind::Complex(id) => object_leaves(schema, id, item, each),
                Kind::Resource => leaves(schema, item, each),
            }
        }
    }
}

/// What the grammars of references and dates make of every leaf of the official examples. Exceptions are listed.
#[test]
fn the_grammars_understand_the_official_examples() {
    let Some(folder) = shared("data/fhir-r4-examples-json") else { return };
    let schema = Schema::of(Release::R4);
    let (mut references, mut dates) = (0, 0);
    let mut strangers: BTreeSet<String> = BTreeSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let value =
            std::fs::read_to_string(file.unwrap().path()).ok().and_then(|text| serde_json::from_str(&text).ok());
        leaves(schema, &value.unwrap_or_default(), &mut |type_name, key, primitive, value| {
            let text = value.as_str().unwrap_or_default();
            let error = match (type_name, key) {
                ("Reference", "reference") | ("Bundle.entry", "fullUrl") => {
                    references += 1;
                    Reference::parse(Release::R4, text).err().map(|error| error.to_string())
                }
                ("Bundle.entry.request", "url") => {
                    references += 1;
                    // The method stands beside; this is about the shape.
                    let parse = |method| RequestUrl::parse(Release::R4, method, text);
                    parse("GET").or_else(|_| parse("POST")).err().map(|error| error.to_string())
                }
                _ if matches!(primitive, Primitive::Date | Primitive::DateTime | Primitive::Instant) => {
                    dates += 1;
                    match FhirDate::parse(primitive, text) {
                        Ok(date) if date.to_string() == text => None,
                        Ok(_) => Some("written differently".to_owned()),
                        Err(error) if value.is_string() => Some(error.to_string()),
                        Err(_) => None, // null beside an extension
                    }
                }
                _ => None,
            };
            if let Some(error) = error {
                strangers.insert(format!("{type_name}.{key}: {error}"));
            }
        });
    }
    assert!(references > 2000 && dates > 2000, "{references} references, {dates} dates");
    let found: Vec<&str> = strangers.iter().map(String::as_str).collect();
    // One bundle addresses its requests by absolute URL; bundle.html wants them relative to the server.
    assert_eq!(found, [format!("Bundle.entry.request.url: {}", ReferenceError::Absolute)]);
}

/// Requests that developers of a FHIR server wrote for it (`.http` files, `{{variables}}` stand for ids and the base).
#[test]
fn the_grammars_understand_real_requests() {
    let Some(folder) = shared("data/fhir-http-requests") else { return };
    let mut folders = vec![folder];
    let (mut understood, mut strangers) = (0, BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|suffix| suffix == "http") {
                for line in String::from_utf8_lossy(&std::fs::read(path).unwrap()).lines() {
                    match request(line) {
                        Some(Ok(())) => understood += 1,
                        Some(Err(error)) => _ = strangers.insert(error),
                        None => {}
                    }
                }
            }
        }
    }
    assert!(understood > 100, "{understood}");
    // Not FHIR: operations and endpoints of that server alone, an operator `!=`, a slash before the query.
    let own = ["$bulk-update", "/_operations/", "/searchparameter/", "/connect/", "_security!="];
    strangers.retain(|stranger: &String| !own.iter().any(|word| stranger.contains(word)));
    let expected =
        format!("GET /Patient/?_id=smart-patient-A&_revinclude=Observation:subject: {}", ReferenceError::Segment);
    assert_eq!(strangers.into_iter().collect::<Vec<_>>(), [expected]);
}

/// `None`: not a request to a FHIR endpoint.
fn request(line: &str) -> Option<Result<(), String>> {
    let mut words = line.split_whitespace();
    let method = words.next().filter(|word| matches!(*word, "GET" | "POST" | "PUT" | "PATCH" | "DELETE"))?;
    let target = words.next()?.trim_start_matches("https://");
    let target = ["{{hostname}}", "{{fhirurl}}", "{{baseUrl}}"].iter().find_map(|base| target.strip_prefix(base))?;
    let mut plain = String::new();
    for (at, part) in target.split("{{").enumerate() {
        plain.push_str(if at == 0 { part } else { "x1" });
        plain.push_str(if at == 0 { "" } else { part.split_once("}}")?.1 });
    }
    Some(understand(method, &plain).map_err(|error| format!("{method} {target}: {error}")))
}

fn understand(method: &str, target: &str) -> Result<(), String> {
    let url = RequestUrl::parse(Release::R4, method, target).map_err(|error| error.to_string())?;
    let parts = query::pairs(url.query.unwrap_or_default().as_bytes(), 4096).map_err(|error| error.to_string())?;
    for pair in parts {
        query::Name::parse(Release::R4, &pair.name).map_err(|error| error.to_string())?;
        query::split(&pair.value, ',').map_err(|error| error.to_string())?;
    }
    Ok(())
}
