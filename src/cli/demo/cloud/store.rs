//! What the cloud keeps: every version of every resource as text, and an exact index for searches.
//!
//! No method here takes time proportional to what is stored, except a search by `system|` and a listing of one type. It
//! does no I/O; the time is an argument.

use super::text::stamp;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};

/// Search parameters by reference that this server knows, for any type that has such an element.
pub const REFERENCE_PARAMETERS: &[&str] = &[
    "patient",
    "subject",
    "encounter",
    "practitioner",
    "performer",
    "author",
    "requester",
    "recorder",
    "asserter",
    "actor",
    "location",
    "organization",
    "service-provider",
    "general-practitioner",
    "managing-organization",
    "based-on",
    "part-of",
    "focus",
    "has-member",
    "derived-from",
    "result",
    "medication",
    "device",
    "context",
    "claim",
    "insurer",
    "provider",
    "prescription",
    "target",
    "who",
    "custodian",
    "authenticator",
    "individual",
    "participant",
    "condition",
    "diagnosis",
    "specimen",
    "link",
    "entity",
    "agent",
    "beneficiary",
    "payor",
    "coverage",
    "care-team",
    "owner",
    "requestor",
    "reason-reference",
    "addresses",
    "study",
    "source",
    "sender",
    "recipient",
];

/// One stored version. No text: this version says that the resource was deleted.
#[derive(Clone)]
pub struct Version {
    /// The resource as it is answered.
    pub text: Option<Box<str>>,
    /// `meta.lastUpdated`, RFC 3339.
    pub when: Box<str>,
    /// How it came: `POST`, `PUT`, `DELETE`.
    pub method: &'static str,
}

struct Slot {
    kind: Box<str>,
    id: Box<str>,
    versions: Vec<Version>,
}

/// Everything stored. Slots are in order of first appearance and never go away.
#[derive(Default)]
pub struct Store {
    slots: Vec<Slot>,
    /// `Patient/1` → slot.
    by_name: HashMap<Box<str>, u32>,
    /// `Patient` → slots that exist.
    by_kind: HashMap<Box<str>, BTreeSet<u32>>,
    /// `Patient?identifier=sys|val`, `Observation?subject=Patient/1` → slots whose current version says so.
    index: HashMap<Box<str>, BTreeSet<u32>>,
    last_id: u64,
}

/// A resource made ready to be stored: everything that can fail has been done.
pub struct Prepared {
    /// Type name.
    pub kind: String,
    /// Logical id.
    pub id: String,
    /// The version that it will become.
    pub version: u64,
    when: String,
    text: String,
    keys: Vec<String>,
}

impl Store {
    /// A short id that no resource of this type has.
    pub fn assign_id(&mut self, kind: &str) -> String {
        loop {
            self.last_id += 1;
            let id = self.last_id.to_string();
            if !self.by_name.contains_key(format!("{kind}/{id}").as_str()) {
                return id;
            }
        }
    }

    /// Stamps a resource with its next version. Stores nothing yet. Fails on text that is not a JSON object.
    pub fn prepare(&self, kind: &str, id: &str, text: &str, when: &str) -> Result<Prepared, serde_json::Error> {
        let version = self.versions(kind, id).len() as u64 + 1;
        let text = stamp(text, id, version, when)?;
        let keys = keys(kind, &serde_json::from_str(&text)?);
        Ok(Prepared { kind: kind.to_owned(), id: id.to_owned(), version, when: when.to_owned(), text, keys })
    }

    /// Stores what was prepared.
    pub fn commit(&mut self, prepared: Prepared, method: &'static str) {
        let Prepared { kind, id, when, text, keys, .. } = prepared;
        let slot = self.slot(&kind, &id);
        self.forget(slot);
        for key in keys {
            self.index.entry(key.into()).or_default().insert(slot);
        }
        self.by_kind.entry(kind.into()).or_default().insert(slot);
        self.slots[slot as usize].versions.push(Version { text: Some(text.into()), when: when.into(), method });
    }

    /// Adds a version that says the resource is gone. Without effect where there is none.
    pub fn delete(&mut self, kind: &str, id: &str, when: &str) {
        if self.current(kind, id).is_some() {
            let slot = self.slot(kind, id);
            self.forget(slot);
            self.slots[slot as usize].versions.push(Version { text: None, when: when.into(), method: "DELETE" });
        }
    }

    fn slot(&mut self, kind: &str, id: &str) -> u32 {
        let name = format!("{kind}/{id}");
        if let Some(&slot) = self.by_name.get(name.as_str()) {
            return slot;
        }
        let slot = u32::try_from(self.slots.len()).expect("memory ends before four thousand million resources");
        self.slots.push(Slot { kind: kind.into(), id: id.into(), versions: Vec::new() });
        self.by_name.insert(name.into(), slot);
        slot
    }

    /// Takes a slot's current version out of every index.
    fn forget(&mut self, slot: u32) {
        let held = &self.slots[slot as usize];
        let Some(text) = held.versions.last().and_then(|version| version.text.as_deref()) else { return };
        let old: Value = serde_json::from_str(text).expect("it was read when it was prepared");
        for key in keys(&held.kind, &old) {
            if let Some(slots) = self.index.get_mut(key.as_str()) {
                slots.remove(&slot);
                if slots.is_empty() {
                    self.index.remove(key.as_str());
                }
            }
        }
        if let Some(slots) = self.by_kind.get_mut(&held.kind) {
            slots.remove(&slot);
        }
    }

    /// All versions, oldest first; empty where the resource was never heard of.
    pub fn versions(&self, kind: &str, id: &str) -> &[Version] {
        match self.by_name.get(format!("{kind}/{id}").as_str()) {
            Some(&slot) => &self.slots[slot as usize].versions,
            None => &[],
        }
    }

    /// The current text, unless never heard of or deleted.
    pub fn current(&self, kind: &str, id: &str) -> Option<&str> {
        self.versions(kind, id).last().and_then(|version| version.text.as_deref())
    }

    /// Type, id and text of a slot that a search found; `None` where it was deleted since.
    pub fn at(&self, slot: u32) -> Option<(&str, &str, &str)> {
        let held = &self.slots[slot as usize];
        let text = held.versions.last()?.text.as_deref()?;
        Some((&held.kind, &held.id, text))
    }

    /// Every current resource: type, id, text.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        (0..self.slots.len()).filter_map(|slot| self.at(slot as u32))
    }

    /// Slots of a type that match all parameters (R4 search.html), in order of first appearance. `Err` names a parameter
    /// that this server does not know.
    pub fn search(&self, kind: &str, parameters: &[(String, String)], base: &str) -> Result<BTreeSet<u32>, String> {
        let everything = || self.by_kind.get(kind).cloned().unwrap_or_default();
        let mut found: Option<BTreeSet<u32>> = None;
        for (name, value) in parameters {
            let mut matches = BTreeSet::new();
            for value in value.split(',').filter(|value| !value.is_empty()) {
                match name.as_str() {
                    "_id" => matches.extend(
                        self.by_name.get(format!("{kind}/{value}").as_str()).filter(|slot| self.at(**slot).is_some()),
                    ),
                    "identifier" => match value.strip_suffix('|') {
                        Some(system) => {
                            matches.extend(everything().into_iter().filter(|&slot| self.has_system(slot, system)));
                        }
                        None => matches.extend(self.lookup(kind, "identifier", value)),
                    },
                    // Result parameters that change nothing here.
                    "_format" | "_pretty" | "_total" => matches = everything(),
                    _ => {
                        let (parameter, target) = match name.split_once(':') {
                            Some((parameter, target)) => (parameter, Some(target)),
                            None => (name.as_str(), None),
                        };
                        if !REFERENCE_PARAMETERS.contains(&parameter) {
                            return Err(name.clone());
                        }
                        let value = value.strip_prefix(base).map_or(value, |relative| relative.trim_start_matches('/'));
                        match target {
                            _ if value.contains('/') => matches.extend(self.lookup(kind, parameter, value)),
                            Some(target) => matches.extend(self.lookup(kind, parameter, &format!("{target}/{value}"))),
                            // Only `patient` says which type a bare id has.
                            None if parameter == "patient" => {
                                matches.extend(self.lookup(kind, parameter, &format!("Patient/{value}")));
                            }
                            None => {
                                for target in self.by_kind.keys() {
                                    matches.extend(self.lookup(kind, parameter, &format!("{target}/{value}")));
                                }
                            }
                        }
                    }
                }
            }
            found = Some(match found {
                Some(found) => found.intersection(&matches).copied().collect(),
                None => matches,
            });
        }
        Ok(found.unwrap_or_else(everything))
    }

    fn lookup(&self, kind: &str, parameter: &str, value: &str) -> impl Iterator<Item = u32> {
        self.index.get(format!("{kind}?{parameter}={value}").as_str()).into_iter().flatten().copied()
    }

    fn has_system(&self, slot: u32, system: &str) -> bool {
        let Some((_, _, text)) = self.at(slot) else { return false };
        let resource: Value = serde_json::from_str(text).expect("it was read when it was prepared");
        identifiers(&resource).any(|identifier| identifier["system"] == system)
    }
}

/// What a resource can be found by.
fn keys(kind: &str, resource: &Value) -> Vec<String> {
    let mut keys = Vec::new();
    for identifier in identifiers(resource) {
        let system = identifier["system"].as_str().unwrap_or_default();
        if let Some(value) = identifier["value"].as_str() {
            keys.push(format!("{kind}?identifier={value}"));
            keys.push(format!("{kind}?identifier={system}|{value}"));
        }
    }
    let mut names = Vec::new();
    references(resource, &mut names, &mut |names, target| {
        let mut add = |parameter: &str| keys.push(format!("{kind}?{parameter}={target}"));
        for name in names {
            add(&kebab(name));
        }
        // `patient` and `practitioner` are searches over whichever element points to one.
        for (prefix, parameter) in [("Patient/", "patient"), ("Practitioner/", "practitioner")] {
            if target.starts_with(prefix) && !names.contains(&parameter) {
                add(parameter);
            }
        }
    });
    keys
}

/// The elements `identifier` of a resource, one or many.
fn identifiers(resource: &Value) -> impl Iterator<Item = &Value> {
    match &resource["identifier"] {
        Value::Array(many) => many.iter(),
        one => std::slice::from_ref(one).iter(),
    }
}

/// Every `Reference.reference` outside contained resources, with the names of the elements above it.
fn references<'a>(value: &'a Value, names: &mut Vec<&'a str>, found: &mut impl FnMut(&[&str], &str)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, names, found)),
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(target) if name == "reference" => {
                        let target = target.split("/_history/").next().unwrap_or_default();
                        found(names, target);
                    }
                    Value::Array(_) | Value::Object(_) if name != "contained" => {
                        names.push(name);
                        references(member, names, found);
                        names.pop();
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// `serviceProvider` → `service-provider`: how search parameters spell the names of elements.
fn kebab(name: &str) -> String {
    let mut output = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            output.push('-');
        }
        output.push(letter.to_ascii_lowercase());
    }
    output
}
