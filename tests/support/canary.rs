//! The canary corpus: resources in which every leaf that can hold text, a number or a date holds one that occurs nowhere else.
//!
//! Made from `tables/elements_*.tsv` alone, for every resource type of a release: nested backbone elements, every choice, every
//! type of extension value, twins (`_x`), contained resources, late `resourceType`, escaped spellings of names and values. A canary
//! has the form that its type requires, so that nothing is refused for its looks. What of them is still to be found in some output,
//! however encoded, has survived. Nothing of the product's tables or packs is used.

use super::json;
use super::leak::{SPELLING, every_way, without_pseudonyms};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The elements of one release as its table lists them: children by the path of their parent, inherited ones repeated.
pub struct Elements {
    children: HashMap<String, Vec<Child>>,
    /// Concrete resource types in the order of their names.
    pub resources: Vec<String>,
}

struct Child {
    name: String,
    types: Vec<String>,
    many: bool,
}

const ABSTRACT: &[&str] = &["Resource", "DomainResource", "CanonicalResource", "MetadataResource"];

const PRIMITIVES: &[&str] = &[
    "base64Binary",
    "boolean",
    "canonical",
    "code",
    "date",
    "dateTime",
    "decimal",
    "id",
    "instant",
    "integer",
    "integer64",
    "markdown",
    "oid",
    "positiveInt",
    "string",
    "time",
    "unsignedInt",
    "uri",
    "url",
    "uuid",
    "xhtml",
];

impl Elements {
    /// The table of a release (`r4`, `r4b`, `r5`) in the shared folder, or `None` where that is absent.
    pub fn shared(release: &str) -> Option<Elements> {
        let path = super::corpora::shared()?.join("tables").join(format!("elements_{release}.tsv"));
        let text = std::fs::read_to_string(path).expect("a table of the shared folder");
        let mut elements = Elements { children: HashMap::new(), resources: Vec::new() };
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let columns: Vec<&str> = line.split('\t').collect();
            let (Some((parent, name)), Some(types)) = (columns[0].rsplit_once('.'), columns.get(1)) else { continue };
            if name == "implicitRules" && !ABSTRACT.contains(&parent) {
                elements.resources.push(parent.to_owned());
            }
            elements.children.entry(parent.to_owned()).or_default().push(Child {
                name: name.to_owned(),
                types: types.split('|').map(str::to_owned).collect(),
                many: columns.get(2) == Some(&"*"),
            });
        }
        Some(elements)
    }

    fn of(&self, base: &str) -> &[Child] {
        self.children.get(base).map_or(&[], Vec::as_slice)
    }

    fn is_resource(&self, name: &str) -> bool {
        self.resources.iter().any(|r| r == name)
    }

    /// How many documents it takes to meet every choice of this type at least once.
    pub fn variants(&self, resource: &str) -> usize {
        let own = self.children.iter().filter(|(path, _)| path.split('.').next() == Some(resource));
        let most = own.flat_map(|(_, c)| c).map(|c| if c.name.ends_with("[x]") { c.types.len() } else { 1 }).max();
        most.unwrap_or(1).max(KINDS)
    }
}

/// Variants that differ in more than their choices, see [`Options::of`].
const KINDS: usize = 6;

/// One canary: what was put where.
#[derive(Debug, Clone)]
pub struct Canary {
    /// Path within the innermost type, choices as JSON spells them: `HumanName.family`, `Extension.valueCode`.
    pub element: String,
    /// Its primitive type.
    pub ty: String,
    /// Full path from the root of the document.
    pub path: String,
}

/// A document with its canaries.
pub struct Document {
    pub text: String,
    canaries: Vec<Canary>,
    dates: HashMap<String, usize>,
    /// Where each leaf stands in the text: first byte, byte behind, canary.
    spans: Vec<(usize, usize, usize)>,
}

impl Document {
    /// How many canaries are in it.
    pub fn len(&self) -> usize {
        self.canaries.len()
    }

    /// The element of the leaf that a refusal at this byte was about.
    pub fn element_at(&self, byte: usize) -> Option<&Canary> {
        let after = self.spans.partition_point(|(start, ..)| *start <= byte + 1);
        let span = after.checked_sub(1).map(|i| self.spans[i]).filter(|(_, end, _)| byte <= *end);
        span.or(self.spans.get(after).copied()).map(|(.., canary)| &self.canaries[canary])
    }

    /// The canaries that can be made out in some output, however it is encoded.
    pub fn survivors(&self, output: &str) -> Vec<&Canary> {
        let open = without_pseudonyms(output, &SPELLING);
        let text = every_way(&open, &SPELLING).to_lowercase();
        let mut found = BTreeSet::new();
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            if !bytes[at].is_ascii_digit() {
                at += 1;
                continue;
            }
            let end = bytes[at..].iter().position(|b| !b.is_ascii_digit()).map_or(bytes.len(), |n| at + n);
            let digits = text[at..end].trim_start_matches('0');
            if let Some(canary) = digits.parse::<u64>().ok().and_then(number_canary) {
                found.insert(canary);
            }
            if let Some(&canary) = text.get(at..at + 10).and_then(|date| self.dates.get(date)) {
                found.insert(canary);
            }
            at = end;
        }
        found.into_iter().filter_map(|canary| self.canaries.get(canary)).collect()
    }
}

/// Canary `k` is the number `FIRST + k * STEP`: nine digits, far from its neighbours, so that a number moved or rounded is no
/// other canary.
const FIRST: u64 = 800_000_407;
const STEP: u64 = 1_013;

fn number_canary(number: u64) -> Option<usize> {
    let over = number.checked_sub(FIRST)?;
    (over % STEP == 0 && number < 1_000_000_000).then_some((over / STEP) as usize)
}

/// What a document tries besides its choices.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    variant: usize,
    /// Every primitive has a twin with an id and an extension.
    twins: bool,
    /// Primitives have their twin alone.
    twins_only: bool,
    /// Every reference names one and the same patient, so that dates have a subject.
    one_subject: bool,
    /// Codings are of a standard terminology.
    standard: bool,
    contained: bool,
    late: bool,
    escaped: bool,
}

impl Options {
    /// The options of a variant: each is on in some of the first [`KINDS`].
    pub fn of(variant: usize) -> Options {
        let kind = variant % KINDS;
        Options {
            variant,
            twins: matches!(kind, 1 | 5),
            twins_only: kind == 5,
            one_subject: matches!(kind, 1 | 2 | 4),
            standard: matches!(kind, 2 | 3),
            contained: matches!(kind, 0 | 4),
            late: matches!(kind, 3 | 4),
            escaped: kind == 4,
        }
    }
}

enum Tree {
    Object(Vec<(String, Tree)>),
    Array(Vec<Tree>),
    /// A string.
    Text(String, usize),
    /// A number or literal, as JSON spells it.
    Bare(String, usize),
    Null,
}

/// No canary.
const NONE: usize = usize::MAX;
/// Deepest nesting of elements.
const DEPTH: usize = 9;
/// Past this many canaries a document is no longer deepened.
const ENOUGH: usize = 1_000;
/// Dates of one document lie at least 400 days apart, so that a moved one is no other canary.
const DATES: usize = 8_000;

/// One document of a resource type. `omit`: elements (as [`Canary::element`] and type) that are left out.
pub fn document(elements: &Elements, resource: &str, options: Options, omit: &HashSet<String>) -> Document {
    let mut maker = Maker {
        elements,
        options,
        omit,
        canaries: Vec::new(),
        dates: HashMap::new(),
        turn: options.variant * 7,
        stack: Vec::new(),
    };
    let tree = maker.resource(resource, resource, 0);
    let Maker { canaries, dates, .. } = maker;
    let mut document = Document { text: String::new(), canaries, dates, spans: Vec::new() };
    write(&tree, options.escaped, &mut document);
    document
}

struct Maker<'e> {
    elements: &'e Elements,
    options: Options,
    omit: &'e HashSet<String>,
    canaries: Vec<Canary>,
    dates: HashMap<String, usize>,
    /// Takes turns where one of several is chosen.
    turn: usize,
    /// Types around, against endless recursion.
    stack: Vec<String>,
}

impl Maker<'_> {
    fn turn(&mut self) -> usize {
        self.turn += 1;
        self.turn
    }

    fn resource(&mut self, ty: &str, path: &str, depth: usize) -> Tree {
        let mut members = self.members(ty, path, depth);
        let name = ("resourceType".to_owned(), Tree::Text(ty.to_owned(), NONE));
        if self.options.late {
            members.push(name);
        } else {
            members.insert(0, name);
        }
        Tree::Object(members)
    }

    fn members(&mut self, base: &str, path: &str, depth: usize) -> Vec<(String, Tree)> {
        self.stack.push(base.to_owned());
        let mut members = Vec::new();
        // What comes first goes deepest; every variant begins elsewhere.
        let children = self.elements.of(base);
        let (head, tail) = children.split_at(self.options.variant * 5 % children.len().max(1));
        let elements = self.elements;
        for child in tail.iter().chain(head) {
            match child.name.as_str() {
                // Always refused where no rule names it; tests/hostile.rs has it.
                "modifierExtension" => {}
                "extension" => {
                    let some = self.extensions(path, depth);
                    if !some.is_empty() {
                        members.push(("extension".to_owned(), Tree::Array(some)));
                    }
                }
                "contained" => {
                    if depth == 0 && self.options.contained {
                        let all = &elements.resources;
                        let some = [self.turn(), self.turn() + all.len() / 2].map(|n| &all[n % all.len()]);
                        let some = some.map(|ty| self.resource(ty, &format!("{path}.contained({ty})"), DEPTH - 3));
                        members.push(("contained".to_owned(), Tree::Array(some.into())));
                    }
                }
                // An extension that holds extensions has no value, and a URL of ours alone.
                "value[x]" if base == "Extension" => {}
                name => {
                    let Some(stem) = name.strip_suffix("[x]") else {
                        // The definitions waver between `id` and `string`; the specification says `id` of a resource's.
                        let is_id = name == "id" && self.elements.is_resource(base);
                        let ty = if is_id { "id" } else { &child.types[0] };
                        self.member(base, name, ty, child.many, path, depth, &mut members);
                        continue;
                    };
                    let ty = &child.types[(self.options.variant + members.len()) % child.types.len()];
                    let (head, tail) = ty.split_at(1);
                    let name = format!("{stem}{}{tail}", head.to_uppercase());
                    self.member(base, &name, ty, child.many, path, depth, &mut members);
                }
            }
        }
        self.stack.pop();
        members
    }

    /// Extensions on an element: of every type on the document's resource, of one type in turn elsewhere.
    fn extensions(&mut self, path: &str, depth: usize) -> Vec<Tree> {
        let types: Vec<String> = self
            .elements
            .of("Extension")
            .iter()
            .filter(|c| c.name == "value[x]")
            .flat_map(|c| c.types.clone())
            .filter(|ty| depth == 0 || PRIMITIVES.contains(&ty.as_str()))
            .collect();
        if self.stack.iter().filter(|t| *t == "Extension").count() > 1 || self.canaries.len() > ENOUGH {
            return Vec::new();
        }
        let path = format!("{path}.extension");
        if depth == 0 {
            let mut all: Vec<Tree> = types.iter().map(|ty| self.extension(ty, &path, 2)).collect();
            let inner = self.extension("string", &format!("{path}.extension"), 3);
            let url = self.leaf("Extension.url", "uri", &format!("{path}.url"));
            all.push(Tree::Object(vec![("url".into(), url), ("extension".into(), Tree::Array(vec![inner]))]));
            return all;
        }
        let ty = types[self.turn() % types.len()].clone();
        vec![self.extension(&ty, &path, depth)]
    }

    fn extension(&mut self, ty: &str, path: &str, depth: usize) -> Tree {
        self.stack.push("Extension".to_owned());
        let mut members = vec![("url".to_owned(), self.leaf("Extension.url", "uri", &format!("{path}.url")))];
        let (head, tail) = ty.split_at(1);
        self.member("Extension", &format!("value{}{tail}", head.to_uppercase()), ty, false, path, depth, &mut members);
        self.stack.pop();
        Tree::Object(members)
    }

    fn member(
        &mut self,
        base: &str,
        name: &str,
        ty: &str,
        many: bool,
        path: &str,
        depth: usize,
        members: &mut Vec<(String, Tree)>,
    ) {
        let element = format!("{base}.{name}");
        let path = format!("{path}.{name}");
        if self.omit.contains(&format!("{element} {ty}")) {
            return;
        }
        if !PRIMITIVES.contains(&ty) {
            if let Some(tree) = self.complex(&element, ty, &path, depth + 1) {
                members.push((name.to_owned(), if many { Tree::Array(vec![tree]) } else { tree }));
            }
            return;
        }
        let frame =
            (base == "Extension" && name == "url") || name == "id" || ty == "xhtml" || self.fixed(&element).is_some();
        let twin = self.options.twins && !frame && self.canaries.len() < ENOUGH && depth < DEPTH;
        if !(twin && self.options.twins_only) {
            let value = self.leaf(&element, ty, &path);
            let value = if many { Tree::Array(vec![value, self.leaf(&element, ty, &path)]) } else { value };
            members.push((name.to_owned(), value));
        }
        if twin {
            let inner = format!("{path}(twin)");
            let mut about = vec![("id".to_owned(), self.leaf("Element.id", "string", &format!("{inner}.id")))];
            let some = self.extensions(&inner, depth + 1);
            if !some.is_empty() {
                about.push(("extension".to_owned(), Tree::Array(some)));
            }
            let about = Tree::Object(about);
            let about = match (many, self.options.twins_only) {
                (true, true) => Tree::Array(vec![about]),
                (true, false) => Tree::Array(vec![about, Tree::Null]),
                (false, _) => about,
            };
            members.push((format!("_{name}"), about));
        }
    }

    fn complex(&mut self, element: &str, ty: &str, path: &str, depth: usize) -> Option<Tree> {
        if ty == "Resource" {
            // A Bundle's entries and a Parameters' parts hold each other; one level of Patient says enough.
            if self.stack.iter().filter(|t| self.elements.is_resource(t)).count() > 1 {
                return None;
            }
            return Some(self.resource("Patient", &format!("{path}(Patient)"), DEPTH - 3));
        }
        let base = match ty {
            "BackboneElement" | "Element" => element,
            ty => ty.strip_prefix('#').unwrap_or(ty),
        };
        let base = if self.elements.of(base).is_empty() { "Quantity" } else { base };
        let around = self.stack.iter().filter(|t| *t == base).count();
        if around > 1 || depth > DEPTH || (self.canaries.len() > ENOUGH && depth > 2) {
            return None;
        }
        let members = self.members(base, path, depth);
        (!members.is_empty()).then_some(Tree::Object(members))
    }

    /// What FHIR reads itself by, and no canary can stand for.
    fn fixed(&self, element: &str) -> Option<&'static str> {
        match element {
            "Bundle.entry.request.method" => Some("PUT"),
            "Coding.system" if self.options.standard => Some("http://loinc.org"),
            _ => None,
        }
    }

    fn leaf(&mut self, element: &str, ty: &str, path: &str) -> Tree {
        if let Some(text) = self.fixed(element) {
            return Tree::Text(text.to_owned(), NONE);
        }
        if ty == "boolean" {
            return Tree::Bare("true".to_owned(), NONE);
        }
        let canary = self.canaries.len();
        let n = FIRST + canary as u64 * STEP;
        let turn = self.turn();
        // A code of a local system is another thing than one of a terminology.
        let local = matches!(element, "Coding.code" | "Coding.display") && !self.options.standard;
        let (element, ty) = (format!("{element}{}", if local { "(local)" } else { "" }), ty.to_owned());
        self.canaries.push(Canary { element: element.clone(), ty: ty.clone(), path: path.to_owned() });
        let text = match (element.as_str(), ty.as_str()) {
            ("Reference.reference", _) if self.options.one_subject => {
                // One and the same patient, everywhere.
                "Patient/cnry800000407".to_owned()
            }
            ("Reference.reference", _) => match turn % 6 {
                0 => format!("Patient/cnry{n}"),
                1 => format!("http://canary.example/fhir/Practitioner/cnry{n}/_history/1"),
                2 => format!("urn:uuid:c0ffee00-0000-4000-8000-000{n}"),
                3 => format!("Patient?identifier=http://canary.example/mrn|cnry{n}"),
                4 => format!("urn:oid:2.999.{n}"),
                _ => format!("Practitioner/cnry{n}"),
            },
            ("Bundle.entry.fullUrl", _) => format!("http://canary.example/fhir/Patient/cnry{n}"),
            ("Bundle.entry.request.url", _) => format!("Patient/cnry{n}"),
            ("Bundle.entry.request.ifNoneExist", _) => format!("identifier=http://canary.example/mrn|cnry{n}"),
            ("Bundle.entry.response.location", _) => format!("Patient/cnry{n}/_history/1"),
            ("Bundle.link.url", _) => format!("http://canary.example/fhir/Patient?family=cnry{n}"),
            ("Address.postalCode", _) => n.to_string(),
            (_, "string") => format!("Cnry{n} Ng"),
            (_, "markdown") => format!("**Cnry{n}**\n\nsaid \"x\""),
            (_, "code" | "id") => format!("cnry{n}"),
            (_, "uri" | "url") => format!("http://canary.example/cnry{n}"),
            (_, "canonical") => format!("http://canary.example/StructureDefinition/cnry{n}|1"),
            (_, "oid") => format!("urn:oid:2.999.{n}"),
            (_, "uuid") => format!("urn:uuid:c0ffee00-0000-4000-8000-000{n}"),
            (_, "base64Binary") => base64(format!("Scan of Cnry{n} Ng").as_bytes()),
            (_, "xhtml") => {
                format!("<div xmlns=\"http://www.w3.org/1999/xhtml\"><p title=\"x\">Cnry{n} Ng</p></div>")
            }
            (_, "time") => format!("12:34:56.{n}"),
            (_, "date") => self.date(canary),
            (_, "dateTime") => format!("{}T12:34:56+02:00", self.date(canary)),
            (_, "instant") => format!("{}T12:34:56.789Z", self.date(canary)),
            (_, "integer64") => n.to_string(),
            (_, "decimal") => return Tree::Bare(format!("{n}.25"), canary),
            (_, "integer" | "unsignedInt" | "positiveInt") => return Tree::Bare(n.to_string(), canary),
            (element, ty) => panic!("no canary for {element}, a {ty}"),
        };
        Tree::Text(text, canary)
    }

    /// A date that no other leaf of the document has, in years 1000 to 9779.
    fn date(&mut self, canary: usize) -> String {
        let number = self.dates.len();
        assert!(number < DATES, "too many dates for one document");
        let day = 365_250 + (number % (DATES / 2)) * 800 + if number < DATES / 2 { 0 } else { 400 };
        let date = civil(day as i64);
        self.dates.insert(date.clone(), canary);
        date
    }
}

/// The day `day` days after 0000-03-01, Gregorian.
fn civil(day: i64) -> String {
    let era = day / 146_097;
    let of_era = day % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year_of_era + i64::from(month >= 10), (month + 2) % 12 + 1);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Standard base64 (RFC 4648 §4).
pub fn base64(bytes: &[u8]) -> String {
    const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let symbol = SYMBOLS[(word >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() { symbol as char } else { '=' });
        }
    }
    out
}

fn write(tree: &Tree, escaped: bool, document: &mut Document) {
    match tree {
        Tree::Object(members) => {
            document.text.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                if index > 0 {
                    document.text.push(',');
                }
                write_string(name, escaped, &mut document.text);
                document.text.push(':');
                write(value, escaped, document);
            }
            document.text.push('}');
        }
        Tree::Array(items) => {
            document.text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    document.text.push(',');
                }
                write(item, escaped, document);
            }
            document.text.push(']');
        }
        Tree::Text(text, canary) => {
            let start = document.text.len();
            write_string(text, escaped, &mut document.text);
            if *canary != NONE {
                document.spans.push((start, document.text.len(), *canary));
            }
        }
        Tree::Bare(text, canary) => {
            let start = document.text.len();
            document.text.push_str(text);
            if *canary != NONE {
                document.spans.push((start, document.text.len(), *canary));
            }
        }
        Tree::Null => document.text.push_str("null"),
    }
}

/// A string, its first and its middle character escaped by number where asked for.
fn write_string(text: &str, escaped: bool, out: &mut String) {
    let canonical = json::canonical(text);
    if !escaped {
        return out.push_str(&canonical);
    }
    let inner = &canonical[1..canonical.len() - 1];
    let middle = inner.len() / 2;
    out.push('"');
    let mut after_slash = false;
    for (at, c) in inner.char_indices() {
        if (at == 0 || at == middle) && c.is_ascii_alphanumeric() && !after_slash {
            out.push_str(&format!("\\u{:04x}", c as u32));
        } else {
            out.push(c);
        }
        after_slash = c == '\\' && !after_slash;
    }
    out.push('"');
}

/// The reviewed list of survivors: packs, elements, types and a reason, tabs between. Each of the first three lists patterns with spaces
/// between, in which `*` stands for anything; an element pattern behind `!` is excepted.
pub struct Reviewed {
    lines: Vec<(String, String, String, String)>,
    used: std::sync::Mutex<BTreeSet<usize>>,
}

impl Reviewed {
    /// From a table with the columns pack, element, type, reason.
    pub fn read(text: &str) -> Reviewed {
        let lines = text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()).map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [pack, element, ty, reason] = columns[..] else { panic!("not four columns: {line}") };
            assert!(reason.len() > 10, "no reason: {line}");
            (pack.to_owned(), element.to_owned(), ty.to_owned(), reason.to_owned())
        });
        Reviewed { lines: lines.collect(), used: Default::default() }
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether this pack may let this canary through.
    pub fn allows(&self, pack: &str, element: &str, ty: &str) -> bool {
        let found = self.lines.iter().position(|(packs, elements, types, _)| {
            let not = |glob: &str| glob.strip_prefix('!').is_some_and(|glob| fits(glob, element));
            packs.split(' ').any(|p| fits(p, pack))
                && elements.split(' ').any(|e| fits(e, element))
                && !elements.split(' ').any(not)
                && types.split(' ').any(|t| fits(t, ty))
        });
        if let Some(line) = found {
            self.used.lock().expect("no test panicked here").insert(line);
        }
        found.is_some()
    }

    /// Lines for these packs that nothing needed.
    pub fn stale(&self, packs: &[&str]) -> Vec<String> {
        let used = self.used.lock().expect("no test panicked here");
        let mine = |line: &str| line.split(' ').any(|glob| packs.iter().any(|pack| fits(glob, pack)));
        let stale = self.lines.iter().enumerate().filter(|(n, line)| !used.contains(n) && mine(&line.0));
        stale.map(|(_, (pack, element, ty, _))| format!("{pack} {element} {ty}")).collect()
    }
}

/// Whether a text fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => {
            text.starts_with(head)
                && (head.len()..=text.len()).any(|at| text.is_char_boundary(at) && fits(tail, &text[at..]))
        }
    }
}

/// What came of a pack: survivors and refusals by element and type, with one full path each.
#[derive(Default)]
pub struct Census {
    pub documents: usize,
    pub canaries: usize,
    pub survivors: BTreeMap<(String, String), (usize, String)>,
    pub refusals: BTreeMap<(String, String, String), usize>,
}
