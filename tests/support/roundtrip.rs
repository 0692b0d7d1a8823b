//! Two documents side by side: what was rewritten, what was kept, what is gone, what came back; and the graph of links.
//!
//! Written against design §5 "Round trip" and §1 "Untouched means untouched", with the tests' own reader. It never
//! guesses: where an array lost elements, the rest is matched by what was kept in it, and a match that fails is an error.

use super::json::{self, Node};
use super::schema::{Kind, Place, Schema, percent_decoded};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The system of the one coding that pseudonymizing may add.
pub const SEAL: &str = "urn:cryptonym:seal";

/// One leaf of the document before, and what stands at its place after.
pub struct Pair<'p, 'a> {
    pub place: &'p Place,
    pub kind: Kind,
    /// The object before in which the leaf stands.
    pub beside: &'p Node<'a>,
    pub before: &'a str,
    /// `None`: it was removed, alone or with something around it.
    pub after: Option<&'a str>,
}

/// Visits each leaf before with its counterpart after. Returns the places of members or elements that are new after
/// (the seal, and what it needed, not among them).
pub fn side_by_side<'a>(
    schema: &Schema,
    before: &Node<'a>,
    after: &Node<'a>,
    visit: &mut dyn FnMut(Pair<'_, 'a>),
) -> Vec<String> {
    let mut walk = Walk { schema, visit, added: Vec::new() };
    walk.value(&schema.root(before), before, before, Some(after));
    walk.added
}

struct Walk<'w, 'a> {
    schema: &'w Schema,
    visit: &'w mut dyn FnMut(Pair<'_, 'a>),
    added: Vec<String>,
}

impl<'a> Walk<'_, 'a> {
    fn value(&mut self, place: &Place, parent: &Node<'a>, before: &Node<'a>, after: Option<&Node<'a>>) {
        match (before, after) {
            (Node::Object(members), _) => {
                for member in members {
                    let inner = self.schema.step(place, &member.name, &member.value);
                    self.value(&inner, before, &member.value, after.and_then(|a| a.get(&member.name)));
                }
                if let Some(after) = after {
                    match after {
                        Node::Object(afters) => {
                            for new in afters
                                .iter()
                                .filter(|m| before.get(&m.name).is_none() && !may_be_new(&m.name, &m.value))
                            {
                                self.added.push(format!("{}.{}", place.path, new.name));
                            }
                        }
                        _ => self.added.push(format!("{} (was an object)", place.path)),
                    }
                }
            }
            (Node::Array(items), _) => {
                let afters: Vec<&Node<'a>> = match after {
                    Some(Node::Array(afters)) => afters.iter().filter(|n| !is_seal(n)).collect(),
                    Some(_) => {
                        self.added.push(format!("{} (was an array)", place.path));
                        Vec::new()
                    }
                    None => Vec::new(),
                };
                let mut next = 0;
                for (index, item) in items.iter().enumerate() {
                    let inner = self.schema.item(place, item);
                    let left = items.len() - index;
                    let same = next < afters.len()
                        && (afters.len() - next == left || self.could_be(&inner, parent, item, afters[next]));
                    self.value(&inner, parent, item, same.then(|| afters[next]));
                    next += usize::from(same);
                }
                if next < afters.len() {
                    self.added.push(format!("{} ({} elements)", place.path, afters.len() - next));
                }
            }
            (Node::Scalar("null"), after) => {
                if !matches!(after, None | Some(Node::Scalar("null"))) {
                    self.added.push(format!("{} (was null)", place.path));
                }
            }
            (Node::Scalar(raw), after) => {
                let kind = self.schema.kind(place, parent);
                match after {
                    Some(Node::Scalar("null")) | None => {
                        (self.visit)(Pair { place, kind, beside: parent, before: raw, after: None })
                    }
                    Some(Node::Scalar(now)) => {
                        (self.visit)(Pair { place, kind, beside: parent, before: raw, after: Some(now) })
                    }
                    Some(_) => self.added.push(format!("{} (was a leaf)", place.path)),
                }
            }
        }
    }

    /// Whether `after` can be what `before` became: every kept leaf that is still there is the same.
    fn could_be(&self, place: &Place, parent: &Node<'a>, before: &Node<'a>, after: &Node<'a>) -> bool {
        match (before, after) {
            (Node::Object(members), Node::Object(afters)) => {
                afters.iter().all(|m| before.get(&m.name).is_some() || may_be_new(&m.name, &m.value))
                    && members.iter().all(|m| {
                        after.get(&m.name).is_none_or(|now| {
                            self.could_be(&self.schema.step(place, &m.name, &m.value), before, &m.value, now)
                        })
                    })
            }
            (Node::Array(items), Node::Array(afters)) => {
                afters.len() <= items.len()
                    && (afters.len() < items.len()
                        || items
                            .iter()
                            .zip(afters)
                            .all(|(b, a)| self.could_be(&self.schema.item(place, b), parent, b, a)))
            }
            (Node::Scalar(b), Node::Scalar(a)) => b == a || self.schema.kind(place, parent) != Kind::Kept,
            _ => false,
        }
    }
}

fn is_seal(node: &Node) -> bool {
    node.get("system").and_then(|n| n.text()).is_some_and(|s| s == SEAL)
}

/// What rewriting may add: the seal, and where a required element went, the reason why it is absent.
fn may_be_new(name: &str, value: &Node) -> bool {
    let reason = |node: &Node| node.get("url").and_then(|n| n.text()).is_some_and(|url| url == ABSENT);
    let reasons = |node: &Node| matches!(node, Node::Array(items) if items.iter().all(reason) && !items.is_empty());
    let twin =
        || name.starts_with('_') && value.items().iter().all(|v| is_null(v) || v.get("extension").is_some_and(reasons));
    is_seal_member(name, value) || (name == "extension" && reasons(value)) || twin()
}

/// The extension that says why a required element is not there.
const ABSENT: &str = "http://hl7.org/fhir/StructureDefinition/data-absent-reason";

/// `tag` or `meta` that hold the seal and nothing else.
fn is_seal_member(name: &str, value: &Node) -> bool {
    match (name, value) {
        ("tag", Node::Array(items)) => !items.is_empty() && items.iter().all(is_seal),
        ("meta", Node::Object(members)) => {
            matches!(members.as_slice(), [only] if is_seal_member(&only.name, &only.value))
        }
        _ => false,
    }
}

/// Faults of a pseudonymized document beside its original. `lossless`: the reversible pack, which may remove nothing.
pub fn rewriting_faults(schema: &Schema, before: &str, after: &str, lossless: bool) -> Result<Vec<String>, String> {
    let (before, after) = (json::parse(before)?, json::parse(after)?);
    let mut faults = Vec::new();
    let added = side_by_side(schema, &before, &after, &mut |pair| match (pair.kind, pair.after) {
        (_, None) if lossless => faults.push(format!("{}: gone", pair.place.path)),
        (_, None) => {}
        (Kind::Kept, Some(after)) if lossless && pair.before != after && !looks_rewritten(after) => {
            faults.push(format!("{}: a kept leaf changed its spelling", pair.place.path));
        }
        _ => {}
    });
    faults.extend(added.into_iter().map(|path| format!("{path}: new")));
    faults.extend(shape_faults(schema, &after));
    Ok(faults)
}

/// Whether a leaf holds a pseudonym. Packs may rewrite what the tables leave to them; what stays must stay as it was.
fn looks_rewritten(raw: &str) -> bool {
    raw.contains(super::leak::SPELLING.marker) || raw.contains("urn:uuid:") || raw.contains("urn:cryptonym:")
}

/// Faults that make a document no FHIR: empty objects or arrays, arrays out of step with their twins, nulls without a twin.
pub fn shape_faults(schema: &Schema, node: &Node) -> Vec<String> {
    let mut faults = Vec::new();
    shape(schema, &schema.root(node), node, &mut faults);
    faults
}

fn is_null(node: &Node) -> bool {
    *node == Node::Scalar("null")
}

fn shape(schema: &Schema, place: &Place, node: &Node, faults: &mut Vec<String>) {
    match node {
        Node::Object(members) => {
            if members.is_empty() {
                faults.push(format!("{}: empty object", place.path));
            }
            if place.ty == "Extension"
                && members.iter().all(|m| m.name != "extension" && !m.name.trim_start_matches('_').starts_with("value"))
            {
                faults.push(format!("{}: an extension without value or extension", place.path));
            }
            let mut seen = HashSet::new();
            for member in members {
                if !seen.insert(&member.name) {
                    faults.push(format!("{}.{}: twice", place.path, member.name));
                }
                let inner = schema.step(place, &member.name, &member.value);
                if let Node::Array(items) = &member.value {
                    let twin_name = member.name.strip_prefix('_').map_or(format!("_{}", member.name), str::to_owned);
                    let twin = node.get(&twin_name);
                    match twin {
                        Some(Node::Array(twins)) if twins.len() != items.len() => {
                            faults.push(format!("{}: {} elements, its twin {}", inner.path, items.len(), twins.len()))
                        }
                        Some(Node::Array(twins)) if items.iter().zip(twins).any(|(a, b)| is_null(a) && is_null(b)) => {
                            faults.push(format!("{}: null in both twins", inner.path));
                        }
                        Some(Node::Array(_)) => {}
                        Some(_) => faults.push(format!("{}: its twin is no array", inner.path)),
                        None if !member.name.starts_with('_') && items.contains(&Node::Scalar("null")) => {
                            faults.push(format!("{}: null without a twin", inner.path))
                        }
                        None => {}
                    }
                    if items.iter().all(|i| *i == Node::Scalar("null")) && !items.is_empty() {
                        faults.push(format!("{}: nothing but null", inner.path));
                    }
                } else if member.value == Node::Scalar("null") {
                    faults.push(format!("{}: null", inner.path));
                }
                shape(schema, &inner, &member.value, faults);
            }
        }
        Node::Array(items) => {
            if items.is_empty() {
                faults.push(format!("{}: empty array", place.path));
            }
            for item in items {
                shape(schema, &schema.item(place, item), item, faults);
            }
        }
        Node::Scalar("\"\"") => faults.push(format!("{}: empty string", place.path)),
        Node::Scalar(_) => {}
    }
}

/// Required elements of R4 (minimum cardinality 1), by path of the object they stand in.
pub struct Required(HashMap<String, Vec<String>>);

impl Required {
    /// From `tests/data/required_r4.tsv`: path, tab, names separated by commas; a choice as `value[x]`.
    pub fn load() -> Required {
        let text = include_str!("../data/required_r4.tsv");
        let lines = text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once('\t'));
        Required(lines.map(|(path, names)| (path.to_owned(), names.split(',').map(str::to_owned).collect())).collect())
    }

    /// Required elements that `before` has and `after` has not, at objects that `after` still has.
    pub fn lost(&self, schema: &Schema, before: &Node, after: &Node) -> Vec<String> {
        let had = self.missing(schema, before);
        let mut missing = self.missing(schema, after);
        for (path, count) in had {
            if let Some(now) = missing.get_mut(&path) {
                *now = now.saturating_sub(count);
            }
        }
        missing
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(path, count)| format!("{path}: required, missing {count} times"))
            .collect()
    }

    fn missing(&self, schema: &Schema, node: &Node) -> BTreeMap<String, usize> {
        let mut missing = BTreeMap::new();
        self.look(schema, &schema.root(node), node, &mut missing);
        missing
    }

    fn look(&self, schema: &Schema, place: &Place, node: &Node, missing: &mut BTreeMap<String, usize>) {
        match node {
            Node::Object(members) => {
                let base = match place.ty.as_str() {
                    "BackboneElement" | "Element" => place.declared.as_str(),
                    other => other.strip_prefix('#').unwrap_or(other),
                };
                for name in self.0.get(base).into_iter().flatten() {
                    let present = match name.strip_suffix("[x]") {
                        Some(stem) => members.iter().any(|m| {
                            let name = m.name.strip_prefix('_').unwrap_or(&m.name);
                            name.strip_prefix(stem).is_some_and(|rest| rest.starts_with(char::is_uppercase))
                        }),
                        None => members.iter().any(|m| m.name.strip_prefix('_').unwrap_or(&m.name) == name),
                    };
                    if !present {
                        *missing.entry(format!("{base}.{name}")).or_default() += 1;
                    }
                }
                for member in members {
                    self.look(schema, &schema.step(place, &member.name, &member.value), &member.value, missing);
                }
            }
            Node::Array(items) => items.iter().for_each(|i| self.look(schema, &schema.item(place, i), i, missing)),
            Node::Scalar(_) => {}
        }
    }
}

/// Why `back` is not the round trip of `before` (design §5): the same bytes where every string is spelled canonically; else the
/// same values, kept leaves and numbers as spelled, in the same order. `None` where it is.
pub fn identity_fault(schema: &Schema, before: &str, back: &str) -> Option<String> {
    if before == back {
        return None;
    }
    let (Ok(node), Ok(back_node)) = (json::parse(before), json::parse(back)) else { return Some("not JSON".into()) };
    let mut respelled = 0;
    let mut fault = None;
    same(schema, &schema.root(&node), &node, &node, &back_node, &mut respelled, &mut fault);
    if fault.is_none() && respelled == 0 {
        let at = before.bytes().zip(back.bytes()).take_while(|(a, b)| a == b).count();
        fault = Some(format!("same values, but other bytes from byte {at}"));
    }
    fault
}

#[allow(clippy::too_many_arguments)]
fn same(
    schema: &Schema,
    place: &Place,
    parent: &Node,
    a: &Node,
    b: &Node,
    respelled: &mut usize,
    fault: &mut Option<String>,
) {
    if fault.is_some() {
        return;
    }
    match (a, b) {
        (Node::Object(xs), Node::Object(ys)) => {
            if let Some((x, y)) = xs.iter().zip(ys).find(|(x, y)| x.name != y.name) {
                *fault = Some(format!("{}: member {:?} came back as {:?}", place.path, x.name, y.name));
            } else if xs.len() != ys.len() {
                *fault = Some(format!("{}: {} members came back as {}", place.path, xs.len(), ys.len()));
            }
            for (x, y) in xs.iter().zip(ys) {
                same(schema, &schema.step(place, &x.name, &x.value), a, &x.value, &y.value, respelled, fault);
            }
        }
        (Node::Array(xs), Node::Array(ys)) => {
            if xs.len() != ys.len() {
                *fault = Some(format!("{}: {} elements came back as {}", place.path, xs.len(), ys.len()));
            }
            for (x, y) in xs.iter().zip(ys) {
                same(schema, &schema.item(place, x), parent, x, y, respelled, fault);
            }
        }
        (Node::Scalar(x), Node::Scalar(y)) if x == y => {}
        (Node::Scalar(x), Node::Scalar(y)) => {
            let kind = schema.kind(place, parent);
            // Free text and narrative carry their spelling in the token; ids, identifiers and URLs may come back canonical: equal
            // values have equal pseudonyms (design §1), so a pseudonym cannot remember how its value was escaped.
            let respellable = kind != Kind::Kept && !matches!(place.ty.as_str(), "markdown" | "xhtml");
            let (old, new) = (json::decoded(x), json::decoded(y));
            let equal = (!json::is_canonical(x) && old == new)
                || (kind == Kind::Url && percent_decoded(&old) == percent_decoded(&new));
            if respellable && equal {
                *respelled += 1;
            } else {
                *fault = Some(format!("{}: another value, or another spelling, came back", place.path));
            }
        }
        _ => *fault = Some(format!("{}: another kind of value came back", place.path)),
    }
}

/// The links of a set of documents: every reference in order, and every target.
#[derive(Default)]
pub struct Links {
    /// Path and text of each reference, fragments with a number of the container they are local to.
    pub references: Vec<(String, String)>,
    targets: HashSet<String>,
    containers: usize,
}

impl Links {
    /// Adds one document.
    pub fn add(&mut self, schema: &Schema, document: &str) -> Result<(), String> {
        let node = json::parse(document)?;
        self.container(schema, &schema.root(&node), &node);
        Ok(())
    }

    fn container(&mut self, schema: &Schema, place: &Place, node: &Node) {
        self.containers += 1;
        let container = self.containers;
        self.targets.insert(format!("{container}#"));
        if let Some(id) = node.get("id").and_then(|n| n.text()) {
            self.targets.insert(format!("{}/{id}", place.resource));
        }
        for contained in node.get("contained").map(Node::items).unwrap_or_default() {
            if let Some(id) = contained.get("id").and_then(|n| n.text()) {
                self.targets.insert(format!("{container}#{id}"));
            }
        }
        for identifier in node.get("identifier").map(Node::items).unwrap_or_default() {
            let part = |name| identifier.get(name).and_then(|n| n.text()).unwrap_or_default().into_owned();
            self.targets.insert(format!("{}?identifier={}|{}", place.resource, part("system"), part("value")));
        }
        self.inside(schema, place, node, container);
    }

    fn inside(&mut self, schema: &Schema, place: &Place, node: &Node, container: usize) {
        match node {
            Node::Object(members) => {
                for member in members {
                    let inner = schema.step(place, &member.name, &member.value);
                    match (inner.declared.as_str(), member.value.text()) {
                        ("Reference.reference", Some(text)) => {
                            let text =
                                if text.starts_with('#') { format!("{container}{text}") } else { text.into_owned() };
                            self.references.push((inner.path.clone(), text));
                        }
                        ("Bundle.entry.fullUrl", Some(text)) => {
                            self.targets.insert(text.into_owned());
                        }
                        _ => {}
                    }
                    for item in member.value.items() {
                        let item_place = schema.item(&inner, item);
                        let is_resource = matches!(item, Node::Object(_))
                            && item_place.ty == item_place.resource
                            && !item_place.resource.is_empty();
                        if is_resource && inner.declared != place.declared && !item_place.contained {
                            self.container(schema, &item_place, item);
                        } else {
                            self.inside(schema, &item_place, item, container);
                        }
                    }
                }
            }
            Node::Array(items) => items.iter().for_each(|i| self.inside(schema, &schema.item(place, i), i, container)),
            Node::Scalar(_) => {}
        }
    }

    /// Whether a reference finds its target among these documents.
    pub fn resolves(&self, reference: &str) -> bool {
        let bare = reference.split("/_history/").next().unwrap_or(reference);
        if self.targets.contains(bare) {
            return true;
        }
        if let Some((ty, query)) = reference.split_once('?') {
            return self.targets.contains(&format!("{ty}?{}", percent_decoded(query)));
        }
        // An absolute reference finds what it names by type and id.
        let mut tail = bare.rsplitn(3, '/');
        match (tail.next(), tail.next(), tail.next()) {
            (Some(id), Some(ty), Some(_)) => self.targets.contains(&format!("{ty}/{id}")),
            _ => false,
        }
    }

    /// How many references find their target.
    pub fn resolved(&self) -> usize {
        self.references.iter().filter(|(_, text)| self.resolves(text)).count()
    }

    /// Faults of the links after beside the links before, reference by reference: equal before ⇔ equal after, and what
    /// found its target before finds it after. `self` is before; both sides hold the same references in the same order.
    pub fn faults(&self, after: &Links) -> Vec<String> {
        if self.references.len() != after.references.len() {
            return vec![format!("{} references became {}", self.references.len(), after.references.len())];
        }
        let mut faults = Vec::new();
        let (mut there, mut back) = (HashMap::new(), HashMap::new());
        for ((path, old), (_, new)) in self.references.iter().zip(&after.references) {
            if *there.entry(old).or_insert(new) != new {
                faults.push(format!("{path}: one reference became two"));
            }
            if *back.entry(new).or_insert(old) != old {
                faults.push(format!("{path}: two references became one"));
            }
            if self.resolves(old) && !after.resolves(new) {
                faults.push(format!("{path}: found its target before, not after"));
            }
        }
        faults
    }
}

/// "Same in, same out" over many documents: equal values at one place give equal pseudonyms, different ones different.
#[derive(Default)]
pub struct Mapping {
    there: HashMap<(String, String), String>,
    back: HashMap<(String, String), String>,
    pub faults: BTreeMap<String, usize>,
}

impl Mapping {
    /// Adds a document and its rewriting.
    pub fn add(&mut self, schema: &Schema, before: &str, after: &str) -> Result<(), String> {
        let (before, after) = (json::parse(before)?, json::parse(after)?);
        side_by_side(schema, &before, &after, &mut |pair| {
            let Some(now) = pair.after else { return };
            if pair.kind != Kind::Identity || matches!(pair.place.ty.as_str(), "xhtml" | "markdown" | "base64Binary") {
                return;
            }
            // The class of an Identifier depends on its system (design §5).
            let system = pair.beside.get("system").and_then(|n| n.text()).unwrap_or_default();
            let place = format!("{} {system}", pair.place.declared);
            let old = json::decoded(pair.before).into_owned();
            let new = json::decoded(now).into_owned();
            let there = self.there.entry((place.clone(), old.clone())).or_insert_with(|| new.clone());
            if *there != new {
                *self.faults.entry(format!("{place}: one value, two pseudonyms")).or_default() += 1;
            }
            let back = self.back.entry((place.clone(), new)).or_insert_with(|| old.clone());
            if *back != old {
                *self.faults.entry(format!("{place}: two values, one pseudonym")).or_default() += 1;
            }
        });
        Ok(())
    }
}
