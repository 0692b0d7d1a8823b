//! The baseline: `serde_json::Value`, told beforehand where every edit goes.
//!
//! The plan is made before the clock starts, by comparing a body with what the rewriter made of it: which members go, and which texts
//! become what kind of pseudonym. A kind is chosen by trying: the first that makes the right text is right, and it is computed
//! anew in every round. What a program of this kind would keep for a body it keeps: the offsets and seals of a patient.

use super::input::keys;
use cryptonym::action::shift::{Offset, months, offset};
use cryptonym::fhir::Primitive;
use cryptonym::fhir::date::FhirDate;
use cryptonym::names::Class;
use cryptonym::rewrite::SEAL_SYSTEM;
use cryptonym::secret::Phi;
use cryptonym::token::{ClassKeys, DomainKeys, Form, Mac, MacPurpose, uuid};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Write as _;

/// The kinds of pseudonyms.
#[derive(Clone, Debug)]
enum Kind {
    /// Everything behind so many bytes, as a token of this class.
    Token(usize, usize),
    /// The UUID behind so many bytes, permuted.
    Uuid(usize),
    /// A date, moved by this offset of this subject.
    Shift(String, Offset),
    /// Only the year of a date.
    Year,
}

/// What happens to a value.
#[derive(Debug)]
enum Plan {
    Text(Kind),
    /// Members to go, members to change, members to add (the mark of a masked value).
    Object(Vec<String>, Vec<(String, Plan)>, Vec<(String, Value)>),
    /// Elements to go from last to first, elements to change.
    Array(Vec<usize>, Vec<(usize, Plan)>),
    /// A seal of this text, added to `meta.tag`.
    Sealed(Box<Plan>, String),
}

pub struct Baseline {
    plan: Plan,
    domain: DomainKeys,
    classes: Vec<ClassKeys>,
    seals: ClassKeys,
    shift: Mac,
}

/// The patient's offsets and seals of one run.
#[derive(Default)]
struct Known {
    offsets: HashMap<(String, char), i32>,
    seals: HashMap<String, String>,
}

const DAYS: u16 = 365;

impl Baseline {
    /// `output` is what the rewriter made of `input` with the rules of `pack`.
    pub fn new(pack: &str, input: &[u8], output: &[u8]) -> Baseline {
        let domain = keys();
        let schema = cryptonym::fhir::Schema::of(cryptonym::fhir::Release::R4);
        let class = |name: &str, pinned| domain.class(&Class::new(name).expect("a name"), pinned);
        let mut classes: Vec<ClassKeys> = schema
            .types()
            .filter(|(_, d)| d.category == cryptonym::fhir::Category::Resource)
            .map(|(_, d)| class(&format!("{}.id", d.name), true))
            .collect();
        classes.extend([
            class("identifier", false),
            class("uid", false),
            class("contained.id", true),
            class("uri", true),
        ]);
        let (seals, shift) = (class("seal", false), domain.mac(MacPurpose::Shift));
        let mut baseline = Baseline { plan: Plan::Array(vec![], vec![]), domain, classes, seals, shift };
        let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
        let (from, to) = (read(input), read(output));
        let mut seals = Seals::of(&baseline, pack);
        if let Some(plan) = baseline.compare(&from, &to, &mut seals) {
            baseline.plan = plan;
        }
        assert!(read(&baseline.run(input)) == to, "the baseline comes to another document");
        baseline
    }

    /// Parses, edits, writes.
    pub fn run(&self, input: &[u8]) -> Vec<u8> {
        let mut value: Value = serde_json::from_slice(input).expect("JSON");
        self.apply(&self.plan, &mut value, &mut Known::default());
        serde_json::to_vec(&value).expect("JSON")
    }

    fn apply(&self, plan: &Plan, value: &mut Value, known: &mut Known) {
        match (plan, value) {
            (Plan::Text(kind), Value::String(text)) => *text = self.pseudonym(kind, text, known),
            (Plan::Object(gone, changed, added), Value::Object(members)) => {
                for name in gone {
                    members.remove(name);
                }
                for (name, plan) in changed {
                    self.apply(plan, members.get_mut(name).expect("planned"), known);
                }
                members.extend(added.iter().cloned());
            }
            (Plan::Array(gone, changed), Value::Array(items)) => {
                for (at, plan) in changed {
                    self.apply(plan, &mut items[*at], known);
                }
                for &at in gone {
                    items.remove(at);
                }
            }
            (Plan::Sealed(plan, text), value) => {
                self.apply(plan, value, known);
                let code = known.seals.entry(text.clone()).or_insert_with(|| {
                    let mut token = String::new();
                    let form = Form { padded: true, raw_spelling: false };
                    self.seals.pseudonymize(&Phi::new(text.as_str()), form, &mut token).expect("short");
                    token
                });
                let tag = serde_json::json!({"system": SEAL_SYSTEM, "code": code});
                match value["meta"]["tag"].as_array_mut() {
                    Some(tags) => tags.push(tag),
                    None => value["meta"]["tag"] = Value::Array(vec![tag]),
                }
            }
            _ => unreachable!("planned for this document"),
        }
    }

    fn pseudonym(&self, kind: &Kind, text: &str, known: &mut Known) -> String {
        let mut out = String::with_capacity(text.len() + 32);
        match kind {
            Kind::Token(head, class) => {
                out.push_str(&text[..*head]);
                // Exposed to be sealed, as everywhere.
                self.classes[*class].pseudonymize(&Phi::new(&text[*head..]), Form::default(), &mut out).expect("short");
            }
            Kind::Uuid(head) => {
                out.push_str(&text[..*head]);
                let bytes = uuid::parse(&text[*head..]).expect("planned");
                uuid::format(self.domain.uuids().pseudonymize(bytes), &mut out);
            }
            Kind::Shift(subject, which) => {
                let days = *known
                    .offsets
                    .entry((subject.clone(), which.letter()))
                    .or_insert_with(|| offset(&self.shift, *which, subject, DAYS, false));
                let date = FhirDate::parse(primitive(text), text).expect("planned");
                let moved = if date.day().is_some() { date.add_days(days) } else { date.add_months(months(days)) };
                write!(out, "{}", moved.expect("planned")).expect("memory");
            }
            Kind::Year if text.len() > 10 && text.contains('.') => {
                out.push_str(&text[..4]);
                out.push_str("-01-01T00:00:00Z");
            }
            Kind::Year => out.push_str(&text[..4]),
        }
        out
    }

    // === the plan ===

    fn compare(&self, from: &Value, to: &Value, seals: &mut Seals) -> Option<Plan> {
        if from == to {
            return None;
        }
        Some(match (from, to) {
            (Value::String(from), Value::String(to)) => Plan::Text(self.kind(from, to, seals)),
            (Value::Object(a), Value::Object(b)) => {
                let mut to = to.clone();
                let seal = b.get("resourceType").and_then(|_| take_seal(&mut to));
                let text = seal.map(|code| seals.enter(&code));
                let gone = a.keys().filter(|name| to.get(name).is_none()).cloned().collect();
                let changed = a
                    .iter()
                    .filter_map(|(name, value)| Some((name.clone(), self.compare(value, to.get(name)?, seals)?)));
                let changed = changed.collect();
                let added = to.as_object().into_iter().flatten().filter(|(name, _)| !a.contains_key(*name));
                let added = added.map(|(name, value)| (name.clone(), value.clone())).collect();
                let plan = Plan::Object(gone, changed, added);
                match text {
                    Some(text) => Plan::Sealed(Box::new(plan), text),
                    None => plan,
                }
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                let changed = a.iter().zip(b).enumerate();
                Plan::Array(vec![], changed.filter_map(|(i, (a, b))| Some((i, self.compare(a, b, seals)?))).collect())
            }
            (Value::Array(a), Value::Array(b)) => {
                // Elements went. Those that stayed keep their order; an element is taken for the next of the same shape.
                let (mut gone, mut changed, mut next) = (vec![], vec![], 0);
                for (i, item) in a.iter().enumerate() {
                    if next < b.len() && a.len() - i >= b.len() - next && same_kind(item, &b[next]) {
                        changed.extend(self.compare(item, &b[next], seals).map(|plan| (i, plan)));
                        next += 1;
                    } else {
                        gone.push(i);
                    }
                }
                gone.reverse();
                Plan::Array(gone, changed)
            }
            _ => unreachable!("the rewriter does not change what a value is"),
        })
    }

    fn kind(&self, from: &str, to: &str, seals: &Seals) -> Kind {
        let heads = [0, "urn:uuid:".len()].into_iter().chain(from.match_indices(['/', '#', '|']).map(|(i, _)| i + 1));
        let mut known = Known::default();
        for head in heads.filter(|&h| h <= from.len() && from.is_char_boundary(h) && to.starts_with(&from[..h])) {
            let tokens = (0..self.classes.len()).map(|class| Kind::Token(head, class));
            let uuid = uuid::parse(&from[head..]).map(|_| Kind::Uuid(head));
            let fits = |kind: &Kind| self.pseudonym(kind, from, &mut known) == to;
            if let Some(kind) = uuid.into_iter().chain(tokens).find(fits) {
                return kind;
            }
        }
        for subject in &seals.subjects {
            for which in Offset::ALL {
                let kind = Kind::Shift(subject.clone(), which);
                if FhirDate::parse(primitive(from), from).is_ok() && self.pseudonym(&kind, from, &mut known) == to {
                    return kind;
                }
            }
        }
        assert!(from.starts_with(&to[..4]), "no kind makes this text of that");
        Kind::Year
    }
}

/// What seals say. A bench holds the keys, and may look.
struct Seals {
    keys: ClassKeys,
    subjects: Vec<String>,
    prefix: String,
}

impl Seals {
    fn of(baseline: &Baseline, pack: &str) -> Seals {
        let keys = baseline.domain.class(&Class::new("seal").expect("a name"), false);
        Seals { keys, subjects: Vec::new(), prefix: format!("1 {pack} ") }
    }

    /// The text of a seal; its subject is the one whose dates are met next.
    fn enter(&mut self, code: &str) -> String {
        let cryptonym::token::Revealed::Plain(text, _) = self.keys.reidentify(code, &super::input::key_holder()) else {
            unreachable!("sealed by the same keys")
        };
        let text = text.expose().to_owned(); // to be sealed again, in every round
        assert!(text.starts_with(&self.prefix));
        let subject = text.rsplit(' ').next().unwrap_or_default().to_owned();
        if !self.subjects.contains(&subject) {
            self.subjects.insert(0, subject);
        }
        text
    }
}

fn take_seal(resource: &mut Value) -> Option<String> {
    let tags = resource.get_mut("meta")?.get_mut("tag")?.as_array_mut()?;
    let at = tags.iter().position(|tag| tag["system"] == SEAL_SYSTEM)?;
    let code = tags.remove(at)["code"].as_str().map(str::to_owned);
    if tags.is_empty() {
        let meta = resource["meta"].as_object_mut()?;
        meta.remove("tag");
        if meta.is_empty() {
            resource.as_object_mut()?.remove("meta");
        }
    }
    code
}

/// Whether an element may be what stands in the other's place: the same members or fewer, texts that could be the same.
fn same_kind(from: &Value, to: &Value) -> bool {
    match (from, to) {
        (Value::Object(a), Value::Object(b)) => {
            b.keys().all(|name| a.contains_key(name))
                && ["url", "system", "use"].iter().all(|name| b.get(*name).is_none_or(|v| a.get(*name) == Some(v)))
        }
        (Value::String(_), Value::String(_)) => true,
        (a, b) => a == b,
    }
}

fn primitive(text: &str) -> Primitive {
    if text.len() > 10 { Primitive::DateTime } else { Primitive::Date }
}
