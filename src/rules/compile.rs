//! From a rule file as written to rules as meant: every mistake at once, or an automaton that decides every element.
//!
//! Precedence (contract §1): `elements` in order, first match wins, a match on an ancestor included; then the innermost `types` rule
//! on the element or its nearest ancestor, where `Type.child` beats `Type`; then `codes`; then the primitive's rule. What none
//! of these names is a load error: silence must never let identity out.

use super::actions::{self, Around, Meant, Method};
use super::automaton::*;
use super::cell::Check;
use super::file::{self, RulesFile};
use super::path::{self, Ask, How, Path, Step};
use super::plain::{self, Plain};
use super::{At, Mistake, lint, packs, wrong};
use crate::action::generalize::{Day, To};
use crate::action::hash::Scope;
use crate::fhir::about::{self, LifeDate, Subject};
use crate::fhir::date::FhirDate;
use crate::fhir::search::{Parameter, ParameterType, Place as SearchPlace, parameter};
use crate::fhir::{self, Category, Kind, Primitive, Release, Schema, TypeId};
use crate::names::Class;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Index of a class in `Compiled::classes`.
pub type ClassIx = u16;

/// What is done with a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Its bytes stay.
    Keep,
    /// It goes, with the smallest enclosing element that must go too.
    Remove,
    /// A reversible pseudonym.
    Token {
        /// Of which class. For resource ids the class is the type's own.
        class: ClassIx,
        /// Padded to length buckets.
        pad: bool,
    },
    /// A date moved by the subject's offset.
    Shift {
        /// At most this many days either way.
        days: u16,
        /// By whole weeks.
        weekday: bool,
    },
    /// Any other, with its parameters in `Compiled::methods`.
    Other {
        /// Which.
        method: u16,
        /// Its place in [`Method::WORDS`].
        kind: u8,
    },
}

impl Action {
    /// The action's name, as rule files write it.
    pub fn word(self) -> &'static str {
        match self {
            Action::Keep => "keep",
            Action::Remove => "remove",
            Action::Token { .. } => "token",
            Action::Shift { .. } => "shift",
            Action::Other { kind, .. } => Method::WORDS[usize::from(kind)],
        }
    }
}

/// What stands at a leaf: decides how a token is spelled there and what else must be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Any other string.
    Text,
    /// `Identifier.value`.
    Identifier,
    /// `Resource.id`.
    ResourceId,
    /// The id of a contained resource.
    ContainedId,
    /// `Reference.reference`.
    Reference,
    /// `Bundle.entry.fullUrl`.
    FullUrl,
    /// `Bundle.entry.request.url`.
    RequestUrl,
    /// `Bundle.entry.request.ifNoneExist`.
    Condition,
    /// `Bundle.entry.response.location`.
    Location,
    /// `Bundle.link.url`.
    Link,
    /// Any other uri, url, oid, uuid.
    Uri,
    /// `Narrative.div`.
    Narrative,
    /// base64Binary.
    Base64,
    /// A date, dateTime or instant.
    Date(DateKind),
    /// `Element.id` of a datatype or backbone element.
    ElementId,
    /// `Coding.system`.
    CodingSystem,
    /// `Coding.code`.
    CodingCode,
    /// A number or boolean.
    Scalar,
}

impl Role {
    /// A small number of its own, dates together.
    pub fn number(self) -> u32 {
        match self {
            Role::Text => 0,
            Role::Identifier => 1,
            Role::ResourceId => 2,
            Role::ContainedId => 3,
            Role::Reference => 4,
            Role::FullUrl => 5,
            Role::RequestUrl => 6,
            Role::Condition => 7,
            Role::Location => 8,
            Role::Link => 9,
            Role::Uri => 10,
            Role::Narrative => 11,
            Role::Base64 => 12,
            Role::Date(_) => 13,
            Role::ElementId => 14,
            Role::CodingSystem => 15,
            Role::Scalar => 16,
            Role::CodingCode => 17,
        }
    }
}

/// Which offset a date takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DateKind {
    /// Whatever happened.
    Event,
    /// A birth: an offset of its own.
    Birth,
    /// A death: an offset of its own.
    Death,
    /// Written by servers, never shifted.
    Server,
}

/// What a pack may legally be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// 45 CFR 164.514(b)(2).
    SafeHarbor,
    /// 45 CFR 164.514(e)(2).
    LimitedDataSet,
    /// GDPR Art. 4(5).
    Pseudonymized,
    /// No claim.
    None,
}

/// What happens to elements and types that the release does not define.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// The message is refused.
    Refuse,
    /// They are removed and counted.
    Remove,
}

/// What happens to dates of a resource without exactly one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSubject {
    /// They are removed.
    Remove,
    /// Only the year stays.
    Year,
    /// The message is refused.
    Refuse,
    /// An offset of the resource's own, carried in the seal.
    Own,
}

/// From which part of a rule file a rule comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `elements:`
    Element,
    /// `keys:`
    Keys,
    /// `types:`
    Type,
    /// `codes:`
    Codes,
}

/// A rule as it may be cited: in `explain`, in counts, in mistakes.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Section of the file.
    pub origin: Origin,
    /// Line in the file.
    pub line: u64,
    /// Column in the line.
    pub column: u64,
    /// Path or type, as written.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// Why, as written.
    pub why: Option<String>,
}

/// Rules as meant. Immutable; bound to keys by `rewrite::Engine`.
#[derive(Debug)]
pub struct Compiled {
    /// The pack's name.
    pub name: String,
    /// FHIR release.
    pub release: Release,
    /// Legal claim.
    pub claim: Claim,
    /// Unknown elements.
    pub unknown: Unknown,
    /// Dates without a subject.
    pub no_subject: NoSubject,
    /// Every rule, elements first.
    pub rules: Vec<Rule>,
    /// Every class of tokens that a rule names.
    pub classes: Vec<Class>,
    /// Actions beyond keep, remove, token and shift: `Action::Other` is an index here.
    pub methods: Vec<Method>,
    /// Search parameters of the file's own.
    pub search: Vec<Parameter>,
    /// What deserves a second look, though the file loads.
    pub warnings: Vec<lint::Warning>,
    /// What the scanner walks.
    pub automaton: Automaton,
    /// A pack of `format: json`: what it has instead of a release and its automaton, which then mean nothing.
    pub plain: Option<Plain>,
}

impl Rule {
    fn at(&self) -> At {
        At { line: self.line, column: self.column }
    }
}

impl Compiled {
    /// Compiles a rule file. All mistakes come at once.
    pub fn new(yaml: &str) -> Result<Compiled, Vec<Mistake>> {
        if plain::file::is_plain(yaml) {
            return plain::compile(yaml);
        }
        let file = file::parse(yaml).map_err(|m| vec![m])?;
        let mut compiler = Compiler::new(&file)?;
        compiler.build();
        compiler.finish(&file)
    }

    /// Whether the pack loses data: an update through it would overwrite the other side's record with a poorer copy.
    pub fn lossy(&self) -> bool {
        if let Some(plain) = &self.plain {
            let loses = |action| match action {
                Action::Keep | Action::Token { .. } => false,
                Action::Shift { .. } => plain.seal.is_none(),
                _ => true,
            };
            return self.unknown == Unknown::Remove || self.rules.iter().any(|r| loses(r.action));
        }
        self.no_subject != NoSubject::Own
            || self.unknown == Unknown::Remove
            || self.automaton.leaves.iter().any(|l| matches!(l.action, Action::Remove | Action::Other { .. }))
    }

    /// A search parameter of a resource type: the release's, else the file's own.
    pub fn parameter(&self, resource_type: &str, code: &str) -> Option<&Parameter> {
        let own = || self.search.iter().find(|p| p.resource == resource_type && p.code == code);
        parameter(self.release, resource_type, code).or_else(own)
    }

    /// The class of an action, if it has one. Ids of resources have the class of their type instead.
    pub fn class(&self, action: Action) -> Option<&Class> {
        match action {
            Action::Keep | Action::Remove | Action::Shift { .. } => None,
            Action::Token { class, .. } => self.classes.get(class as usize),
            Action::Other { method, .. } => self.methods[method as usize].class(),
        }
    }

    /// Whether some rule hashes by a key of one document, run or exchange, which the rewriter must then be given.
    pub fn needs_document_key(&self) -> bool {
        let scoped = |m: &Method| matches!(m, Method::Hash { shape, .. } if shape.scope == Scope::Document);
        self.methods.iter().any(scoped)
    }

    /// The rules by which anything crosses in clear, by name.
    pub fn kept(&self) -> Vec<&str> {
        self.rules.iter().filter(|r| r.action == Action::Keep).map(|r| r.name.as_str()).collect()
    }

    /// The pack's schema.
    pub fn schema(&self) -> &'static Schema {
        Schema::of(self.release)
    }
}

/// One rule that selects elements by a path: the author's, or the schema's own mark of a subject.
struct PathRule {
    path: Path,
    effect: Effect,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Rule(u16),
    Subject,
    Birth,
}

/// How far a path rule has come at some element; `maybe`: only if a `where` holds that is not decided yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Position {
    rule: u16,
    step: u8,
    maybe: bool,
}

/// Everything that tells one state from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    place: Place,
    positions: Vec<Position>,
    /// First `elements` rule in force.
    element: Option<u16>,
    /// Earlier ones that may come into force.
    maybe: Vec<u16>,
    /// `types` rule inherited from the nearest ancestor.
    types: Option<u16>,
    kind: DateKind,
    /// For a Coding's members: whether its system is listed. `None`: not a Coding, or not known yet.
    listed: Option<bool>,
    /// For an object with switches: whether they are decided.
    decided: bool,
    subject: bool,
    modifier: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Object { type_id: TypeId, root: Option<bool> },
    Leaf { owner: TypeId, element: u16, root: Option<bool> },
    Twin { owner: TypeId, element: u16 },
    Slot { contained: bool },
    ResourceType,
}

struct Compiler {
    schema: &'static Schema,
    release: Release,
    mistakes: Vec<Mistake>,
    rules: Vec<Rule>,
    paths: Vec<PathRule>,
    types: HashMap<String, u16>,
    used: BTreeSet<u16>,
    /// Paths that end at some element, certainly or perhaps.
    reached: BTreeSet<u16>,
    classes: Vec<Class>,
    methods: Vec<Method>,
    as_of: Option<Day>,
    search: Vec<Parameter>,
    keep_systems: Vec<String>,
    /// No system but those of published terminologies keeps its codes.
    only_published: bool,
    keep_codes: u16,
    other_codes: u16,
    undecided: BTreeMap<&'static str, String>,
    bad: BTreeSet<(u16, String)>,
    keys: HashMap<Key, StateId>,
    /// `own_rule` by owner and member: asked again for every state in which a member stands.
    own_rules: HashMap<(String, &'static str), Option<u16>>,
    /// Members that some `where` asks for.
    queue: Vec<(StateId, Key)>,
    automaton: Automaton,
    shapes: HashMap<(TypeId, bool), u16>,
    unknown: Unknown,
    no_subject: NoSubject,
    claim: Claim,
    /// Any datatype: from it a twin `_x` takes the two members that every element has, `id` and `extension`.
    plain_type: TypeId,
}

/// The name of a twin's shape, and of the owner of its members in `types` (`Element.extension`).
const ELEMENT: &str = "Element";

/// `HumanName.family` → `human_name.family`.
pub(super) fn snake(path: &str) -> String {
    let mut out = String::new();
    for (i, c) in path.char_indices() {
        if c.is_ascii_uppercase() && i > 0 && !path[..i].ends_with('.') {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// The class that a path gives where its rule names none.
fn default_class(path: &Path) -> String {
    let mut words: Vec<&str> = path.root.as_deref().into_iter().collect();
    for step in &path.steps {
        match step {
            Step::Child(name) | Step::NodesByType(name) | Step::NodesByName(name) => words.push(name),
            Step::OfType(_) | Step::Where(_) | Step::AnyChild | Step::Descendants => {}
        }
    }
    snake(&words.join("."))
}

impl Compiler {
    fn new(file: &RulesFile) -> Result<Compiler, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        macro_rules! choose {
            ($field:expr, $name:literal, { $($word:literal => $value:expr),* $(,)? }) => {
                match $field.value.as_str() {
                    $($word => Some($value),)*
                    other => {
                        let allowed: &[&str] = &[$($word),*];
                        mistakes.push(wrong($field.referenced.into(), format!(concat!($name, ": `{}` is not known here{}"), other, actions::like(other, allowed)), format!("one of: {}", allowed.join(", "))));
                        None
                    }
                }
            };
        }
        choose!(file.api_version, "apiVersion", { "cryptonym/v1" => () });
        choose!(file.kind, "kind", { "Rules" => () });
        choose!(file.format, "format", { "fhir" => () });
        let release =
            choose!(file.release, "release", { "R4" => Release::R4, "R4B" => Release::R4b, "R5" => Release::R5 });
        let claim = choose!(file.claim, "claim", {
            "safe-harbor" => Claim::SafeHarbor, "limited-data-set" => Claim::LimitedDataSet,
            "pseudonymized" => Claim::Pseudonymized, "none" => Claim::None });
        let unknown = choose!(file.unknown, "unknown", { "refuse" => Unknown::Refuse, "remove" => Unknown::Remove });
        let no_subject = choose!(file.no_subject, "no_subject", {
            "remove" => NoSubject::Remove, "year" => NoSubject::Year, "refuse" => NoSubject::Refuse, "own" => NoSubject::Own });
        if file.name.value.is_empty() || file.name.value.len() > 64 || Class::new(&file.name.value).is_err() {
            mistakes.push(wrong(
                file.name.referenced.into(),
                "name: has the wrong form",
                "1 to 64 characters of A-Z a-z 0-9 . _ -",
            ));
        }
        let as_of = file.as_of.as_ref().and_then(|written| {
            let day = FhirDate::parse(Primitive::Date, &written.value)
                .ok()
                .and_then(|d| Some((d.year(), d.month()?, d.day()?)));
            if day.is_none() {
                let what = format!("as_of: `{}` is not a day", written.value);
                mistakes.push(wrong(written.referenced.into(), what, "write YYYY-MM-DD"));
            }
            day
        });
        if claim == Some(Claim::SafeHarbor) && file.as_of.is_none() {
            let advice = "add `as_of: YYYY-MM-DD`: ages over 89 are reckoned on that day";
            mistakes.push(wrong(file.claim.referenced.into(), "claim: safe-harbor without as_of", advice));
        }
        let (Some(release), Some(claim), Some(unknown), Some(no_subject)) = (release, claim, unknown, no_subject)
        else {
            return Err(mistakes);
        };
        let schema = Schema::of(release);
        let plain_type = schema.type_named("Period").expect("every release defines Period");
        let mut compiler = Compiler {
            schema,
            release,
            mistakes,
            rules: Vec::new(),
            paths: Vec::new(),
            types: HashMap::new(),
            used: BTreeSet::new(),
            reached: BTreeSet::new(),
            classes: Vec::new(),
            methods: Vec::new(),
            as_of,
            search: Vec::new(),
            keep_systems: Vec::new(),
            only_published: false,
            keep_codes: 0,
            other_codes: 0,
            undecided: BTreeMap::new(),
            bad: BTreeSet::new(),
            keys: HashMap::new(),
            own_rules: HashMap::new(),
            queue: Vec::new(),
            automaton: Automaton::default(),
            shapes: HashMap::new(),
            unknown,
            no_subject,
            claim,
            plain_type,
        };
        compiler.read_elements(file);
        compiler.read_types(file);
        compiler.read_codes(file);
        compiler.read_search(file);
        compiler.mark_subjects();
        Ok(compiler)
    }

    fn action(&mut self, written: &file::Action, at: At, class: &str, bare: bool) -> Action {
        let around = Around { class, bare, as_of: self.as_of };
        match actions::read(written, at, &around, &mut self.mistakes) {
            Meant::Keep => Action::Keep,
            Meant::Remove => Action::Remove,
            Meant::Token { class, pad } => Action::Token { class: index(&mut self.classes, class), pad },
            Meant::Shift { days, weekday } => Action::Shift { days, weekday },
            Meant::Method(method) => {
                let kind = method.number() as u8;
                Action::Other { method: index(&mut self.methods, method), kind }
            }
        }
    }

    fn rule(
        &mut self,
        origin: Origin,
        name: &str,
        At { line, column }: At,
        action: Action,
        why: Option<String>,
    ) -> u16 {
        self.rules.push(Rule { origin, line, column, name: name.to_owned(), action, why });
        (self.rules.len() - 1) as u16
    }

    fn read_elements(&mut self, file: &RulesFile) {
        for entry in &file.elements {
            let line = At::from(entry.value.path.referenced);
            let text = &entry.value.path.value;
            let paths = match path::parse(text) {
                Ok(paths) => paths,
                Err(e) => {
                    self.mistakes.push(wrong(
                        line,
                        format!("path `{text}`: at character {}", e.at + 1),
                        format!("expected {}", e.expected),
                    ));
                    continue;
                }
            };
            let unknown = |path: &&Path| path.root.as_ref().is_some_and(|root| self.schema.resource(root).is_none());
            if let Some(Path { root: Some(root), .. }) = paths.iter().find(unknown) {
                self.mistakes.push(wrong(
                    line,
                    format!("path `{text}`: {root} is not a resource type of {}", file.release.value),
                    "start with a resource type, Resource or nodesByType('T')",
                ));
                continue;
            }
            let class = default_class(&paths[0]);
            let action = self.action(&entry.value.action.value, entry.value.action.referenced.into(), &class, true);
            let rule = self.rule(Origin::Element, text, line, action, entry.value.why.clone());
            self.paths.extend(paths.into_iter().map(|path| PathRule { path, effect: Effect::Rule(rule) }));
        }
    }

    fn read_types(&mut self, file: &RulesFile) {
        for (names, written) in &file.types {
            let line = At::from(written.referenced);
            for name in names.split('|') {
                let name = name.trim();
                let complex = match self.known_type(name) {
                    Some(complex) => complex,
                    None => {
                        self.mistakes.push(wrong(
                            line,
                            format!("types: `{name}` is no type or Type.child of {}", file.release.value),
                            "name a datatype, a primitive, resource-id, or an element as Type.child",
                        ));
                        continue;
                    }
                };
                let action = self.action(&written.value, line, &snake(name), name.starts_with("Age."));
                if complex && action == Action::Keep {
                    self.mistakes.push(wrong(
                        line,
                        format!("types: keep on `{name}`, which has parts"),
                        "keep only leaves: name each part that may cross, as Type.child",
                    ));
                }
                let rule = self.rule(Origin::Type, name, line, action, None);
                if self.types.insert(name.to_owned(), rule).is_some() {
                    self.mistakes.push(wrong(
                        line,
                        format!("types: `{name}` is decided twice"),
                        "leave one of the two",
                    ));
                }
            }
        }
    }

    /// Whether a key of `types` is known, and if so whether it names something with parts.
    fn known_type(&self, name: &str) -> Option<bool> {
        if name == "resource-id" || Primitive::named(name).is_some() {
            return Some(false);
        }
        if self.schema.type_named(name).is_some() {
            return Some(true);
        }
        let (owner, child) = name.rsplit_once('.')?;
        let mut found = self
            .schema
            .types()
            .filter(|(_, d)| d.name == owner || bases(d).contains(&owner))
            .flat_map(|(_, d)| &d.elements)
            .filter(|e| choice(e.declared) == child || e.name == child)
            .peekable();
        found.peek()?;
        Some(found.any(|e| !matches!(e.kind, Kind::Primitive(_))))
    }

    fn read_codes(&mut self, file: &RulesFile) {
        for system in &file.codes.keep_systems {
            if system.value == "standard" {
                self.keep_systems.extend(packs::STANDARD_SYSTEMS.iter().map(|s| (*s).to_owned()));
            } else {
                self.keep_systems.push(system.value.clone());
            }
        }
        self.only_published = file.codes.keep_systems.iter().all(|system| system.value == "standard");
        self.keep_systems.sort();
        self.keep_systems.dedup();
        let line = At::from(file.codes.others.referenced);
        let others = self.action(&file.codes.others.value, line, "coding.code", false);
        let fits = match others {
            Action::Keep | Action::Remove | Action::Token { .. } => true,
            Action::Shift { .. } => false,
            Action::Other { method, .. } => matches!(self.methods[method as usize], Method::Hash { .. }),
        };
        if !fits {
            self.mistakes.push(wrong(
                line,
                "codes: this action is not for codes",
                "others: keep, remove, token or hash",
            ));
        }
        self.keep_codes = self.rule(Origin::Codes, "codes.keep_systems", line, Action::Keep, None);
        self.other_codes = self.rule(Origin::Codes, "codes.others", line, others, None);
        self.used.extend([self.keep_codes, self.other_codes]);
    }

    /// Search parameters that the release does not define: one kind of value, one plain path.
    fn read_search(&mut self, file: &RulesFile) {
        for written in &file.search {
            let rule = &written.value;
            let mut fail = |what: String, advice: &str| {
                let what = format!("search: {}.{}: {what}", rule.resource, rule.name);
                self.mistakes.push(wrong(written.referenced.into(), what, advice));
            };
            let Some(type_id) = self.schema.resource(&rule.resource) else {
                fail(format!("not a resource type of {}", self.release.name()), "check its spelling");
                continue;
            };
            if parameter(self.release, &rule.resource, &rule.name).is_some() {
                fail("the release defines it already".to_owned(), "leave it out, or choose another name");
                continue;
            }
            let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            let named = !rule.name.is_empty() && rule.name.bytes().all(word);
            let kind = ParameterType::named(&rule.kind)
                .filter(|kind| !matches!(kind, ParameterType::Composite | ParameterType::Special));
            let (Some(kind), true) = (kind, named) else {
                let advice = "a name of letters, digits, - and _; a type: number, date, string, token, reference, quantity or uri";
                fail(format!("the name or type `{}` is not known", rule.kind), advice);
                continue;
            };
            let path = rule.path.strip_prefix(rule.resource.as_str()).and_then(|rest| rest.strip_prefix('.'));
            let mut found = None;
            let mut below = Some(Kind::Complex(type_id));
            for step in path.unwrap_or_default().split('.') {
                found = match below {
                    Some(Kind::Complex(id)) => self.schema.element(id, step),
                    _ => None,
                };
                below = found.map(|element| element.kind);
            }
            let (Some(element), Some(path)) = (found, path) else {
                fail(
                    format!("path `{}` names no element", rule.path),
                    "a plain path by JSON names: Patient.identifier",
                );
                continue;
            };
            self.search.push(Parameter {
                resource: self.schema.definition(type_id).name,
                code: interned(&rule.name),
                kind,
                places: vec![SearchPlace { path: interned(path), kind: element.kind }],
                targets: element.targets,
                components: &[],
            });
        }
    }

    fn mark_subjects(&mut self) {
        // A time of birth hangs on `_birthDate`, or wherever somebody put it.
        let url = ("url".to_owned(), Ask::Text(How::Is, about::BIRTH_TIME_EXTENSION.to_owned(), true));
        let steps = vec![Step::NodesByType("Extension".to_owned()), Step::Where(vec![url])];
        self.paths.push(PathRule { path: Path { root: None, steps }, effect: Effect::Birth });
        let schema = self.schema;
        for (_, definition) in schema.types().filter(|(_, d)| d.category == Category::Resource) {
            // A Patient is its own subject: the decider knows its id without a mark.
            let Some(Subject::References(paths)) = about::subject(self.release, definition.name) else { continue };
            for path in paths.split('|') {
                let steps = path.split('.').map(|name| Step::Child(name.to_owned())).collect();
                let path = Path { root: Some(definition.name.to_owned()), steps };
                self.paths.push(PathRule { path, effect: Effect::Subject });
            }
        }
    }

    // === building ===

    fn build(&mut self) {
        let schema = self.schema;
        let roots: Vec<(TypeId, &'static str)> =
            schema.types().filter(|(_, d)| d.category == Category::Resource).map(|(id, d)| (id, d.name)).collect();
        for (type_id, name) in roots {
            let pair = [false, true].map(|contained| {
                let mut key = Key {
                    place: Place::Object { type_id, root: Some(contained) },
                    positions: Vec::new(),
                    element: None,
                    maybe: Vec::new(),
                    types: None,
                    kind: DateKind::Event,
                    listed: None,
                    decided: false,
                    subject: false,
                    modifier: false,
                };
                let begins: Vec<Position> = (0..self.paths.len() as u16)
                    .filter(|&r| {
                        let rule = &self.paths[r as usize];
                        // A contained resource follows its container's subject, so its own mark counts for nothing.
                        let applies = rule.path.root.as_deref().is_none_or(|root| root == name);
                        applies && !(contained && rule.effect == Effect::Subject)
                    })
                    .map(|rule| Position { rule, step: 0, maybe: false })
                    .collect();
                if let Some(&rule) = self.types.get(name) {
                    self.used.insert(rule);
                    key.types = Some(rule);
                }
                self.arrive(&mut key, &begins, name);
                self.state(key)
            });
            self.automaton.roots.insert(name, pair);
            if !fhir::definitional(name) {
                self.automaton.records.insert(name.to_ascii_lowercase());
            }
        }
        self.automaton.slot = self.state(Key {
            place: Place::Slot { contained: false },
            positions: Vec::new(),
            element: None,
            maybe: Vec::new(),
            types: None,
            kind: DateKind::Event,
            listed: None,
            decided: false,
            subject: false,
            modifier: false,
        });
        while let Some((id, key)) = self.queue.pop() {
            self.expand(id, key);
        }
        self.settle();
    }

    /// Enters an element of type `type_name`: positions that end or wait here take effect on `key`.
    fn arrive(&mut self, key: &mut Key, incoming: &[Position], type_name: &str) {
        let mut pending: Vec<Position> = incoming.to_vec();
        while let Some(position) = pending.pop() {
            let rule = &self.paths[position.rule as usize];
            let Some(step) = rule.path.steps.get(position.step as usize) else {
                self.reached.insert(position.rule);
                match rule.effect {
                    Effect::Subject => key.subject = true,
                    Effect::Birth if position.maybe => {}
                    Effect::Birth => key.kind = DateKind::Birth,
                    Effect::Rule(rule) if position.maybe => key.maybe.push(rule),
                    Effect::Rule(rule) => {
                        self.used.insert(rule);
                        key.element = Some(key.element.map_or(rule, |r| r.min(rule)));
                    }
                }
                continue;
            };
            match step {
                Step::OfType(name) => {
                    if name == type_name || Primitive::named(name).is_some_and(|p| p.name() == type_name) {
                        pending.push(Position { step: position.step + 1, ..position });
                    }
                }
                Step::NodesByType(name) => {
                    key.positions.push(position); // searches on below
                    if name == type_name {
                        pending.push(Position { step: position.step + 1, ..position });
                    }
                }
                Step::Child(_) | Step::AnyChild | Step::Descendants | Step::NodesByName(_) | Step::Where(_) => {
                    key.positions.push(position);
                }
            }
        }
        key.positions.sort();
        key.positions.dedup();
        if let Some(element) = key.element {
            key.maybe.retain(|&r| r < element);
        }
        key.maybe.sort();
        key.maybe.dedup();
    }

    fn state(&mut self, key: Key) -> StateId {
        if let Some(&id) = self.keys.get(&key) {
            return id;
        }
        let id = self.automaton.states.len() as StateId;
        self.automaton.states.push(State { node: Node::Leaf(0), flags: 0, switch: NO_SWITCH });
        self.keys.insert(key.clone(), id);
        self.queue.push((id, key));
        id
    }

    fn expand(&mut self, id: StateId, key: Key) {
        match key.place {
            Place::Object { type_id, root } => self.expand_object(id, key, type_id, root),
            Place::Twin { .. } => self.expand_object(id, key, self.plain_type, None),
            Place::Leaf { owner, element, root } => {
                let (leaf, watch) = self.leaf(&key, owner, element, root);
                self.automaton.leaves.push(leaf);
                let node = Node::Leaf((self.automaton.leaves.len() - 1) as u32);
                self.automaton.states[id as usize] = State { node, flags: watch, switch: NO_SWITCH };
            }
            Place::Slot { contained } => {
                let flags = WATCH_OUT | WATCH_BACK;
                self.automaton.states[id as usize] = State { node: Node::Slot { contained }, flags, switch: NO_SWITCH };
            }
            Place::ResourceType => {
                let leaf = Leaf {
                    role: Role::Text,
                    primitive: Primitive::Code,
                    action: Action::Keep,
                    check: Check::Nothing, // the scanner has read it
                    rule: u32::MAX,
                };
                self.automaton.leaves.push(leaf);
                let node = Node::Leaf((self.automaton.leaves.len() - 1) as u32);
                self.automaton.states[id as usize] = State { node, flags: 0, switch: NO_SWITCH };
            }
        }
    }

    fn expand_object(&mut self, id: StateId, key: Key, type_id: TypeId, root: Option<bool>) {
        let schema = self.schema;
        let definition = schema.definition(type_id);
        let twin = matches!(key.place, Place::Twin { .. });
        let shape = self.shape(type_id, twin);
        if !key.decided && !twin {
            let switch = self.switch(&key, type_id, shape);
            if let Some(switch) = switch {
                self.automaton.switches.push(switch);
                self.automaton.states[id as usize].switch = (self.automaton.switches.len() - 1) as u32;
            }
        }
        // Undecided `where` steps are walked as if they held, marked maybe.
        let mut here = key.clone();
        if !key.decided {
            here = self.resolve(&key, |_, _| None, definition.name);
        }
        let row = self.automaton.targets.len() as u32;
        let members = self.automaton.shapes[shape as usize].members.len();
        self.automaton.targets.resize(row as usize + members, 0);
        let mut edge = 0usize;
        let owner_name = if twin { ELEMENT } else { definition.name };
        for (index, element) in definition.elements.iter().enumerate() {
            if twin && !in_twin(element) {
                continue;
            }
            let target = self.child(&here, type_id, owner_name, index as u16, element, root);
            self.automaton.targets[row as usize + edge] = target;
            edge += 1;
            if matches!(element.kind, Kind::Primitive(_)) && has_twin(definition, element) {
                let target = self.twin(&here, type_id, index as u16, element);
                self.automaton.targets[row as usize + edge] = target;
                edge += 1;
            }
        }
        if definition.category == Category::Resource && !twin {
            let mut place = here.clone();
            place.place = Place::ResourceType;
            place.positions.clear();
            place.maybe.clear();
            (place.element, place.types, place.kind, place.listed) = (None, None, DateKind::Event, None);
            (place.decided, place.subject, place.modifier) = (false, false, false);
            self.automaton.targets[row as usize + edge] = self.state(place);
        }
        let mut flags = 0;
        if key.modifier && key.element.is_none() {
            flags |= MODIFIER | WATCH_OUT;
        }
        if key.subject {
            flags |= SUBJECT;
        }
        let state = &mut self.automaton.states[id as usize];
        state.node = Node::Object { shape, row };
        state.flags |= flags;
    }

    /// The members of a type, in the order of edges: each element, a primitive's twin right behind it, `resourceType` last.
    fn shape(&mut self, type_id: TypeId, twin: bool) -> u16 {
        if let Some(&shape) = self.shapes.get(&(type_id, twin)) {
            return shape;
        }
        let schema = self.schema;
        let definition = schema.definition(type_id);
        let mut members = Vec::new();
        for element in definition.elements.iter().filter(|e| !twin || in_twin(e)) {
            let form = match element.kind {
                Kind::Primitive(p) => match p.json() {
                    fhir::JsonKind::String => Form::String,
                    fhir::JsonKind::Number => Form::Number,
                    fhir::JsonKind::Boolean => Form::Boolean,
                },
                Kind::Complex(_) | Kind::Resource => Form::Object,
            };
            let (many, required) = (element.many, element.required);
            members.push(Member { name: element.name, many, required, twin: false, form });
            if matches!(element.kind, Kind::Primitive(_)) && has_twin(definition, element) {
                // Names live as long as the program: a few thousand twins per release, made once per pack at most.
                let name: &'static str = twin_name(element.name);
                members.push(Member { name, many, required: false, twin: true, form: Form::Object });
            }
        }
        if definition.category == Category::Resource && !twin {
            members.push(Member {
                name: "resourceType",
                many: false,
                required: true,
                twin: false,
                form: Form::ResourceType,
            });
        }
        let name = if twin { ELEMENT } else { definition.name };
        self.automaton.shapes.push(Shape::new(type_id, name, members));
        let shape = (self.automaton.shapes.len() - 1) as u16;
        self.shapes.insert((type_id, twin), shape);
        shape
    }

    fn child(
        &mut self,
        from: &Key,
        owner: TypeId,
        owner_name: &str,
        index: u16,
        element: &fhir::Element,
        root: Option<bool>,
    ) -> StateId {
        let schema = self.schema;
        let (place, type_name) = match element.kind {
            Kind::Primitive(p) => (Place::Leaf { owner, element: index, root }, p.name()),
            Kind::Complex(type_id) => (Place::Object { type_id, root: None }, schema.definition(type_id).name),
            Kind::Resource => {
                // A resource in a slot is decided by its own root; of the rules around it only one that removes the slot counts.
                let place = Place::Slot { contained: element.name == "contained" };
                let key = self.below(from, place, owner_name, element, "Resource");
                let rule = key.element.or(key.types).filter(|&r| self.rules[r as usize].action == Action::Remove);
                let (positions, maybe) = (Vec::new(), Vec::new());
                let kind = DateKind::Event;
                return self.state(Key { positions, maybe, element: rule, types: None, kind, modifier: false, ..key });
            }
        };
        let mut key = self.below(from, place, owner_name, element, type_name);
        if element.name == "modifierExtension" {
            key.modifier = true;
        }
        if matches!(element.kind, Kind::Primitive(_)) {
            key.subject = from.subject && element.name == "reference";
            key.listed = if schema.definition(owner).name == "Coding" { from.listed } else { None };
            key.positions.clear();
        }
        self.state(key)
    }

    fn twin(&mut self, from: &Key, owner: TypeId, index: u16, element: &fhir::Element) -> StateId {
        let Kind::Primitive(primitive) = element.kind else { unreachable!("only primitives have twins") };
        let owner_name = self.schema.definition(owner).name;
        let mut key = self.below(from, Place::Twin { owner, element: index }, owner_name, element, primitive.name());
        // A primitive that is removed takes what is said about it along. Any other rule is about the value alone: keeping a
        // birth date must not keep whatever extensions hang on it.
        let removes = |rule: &u16| self.rules[*rule as usize].action == Action::Remove;
        key.element = key.element.filter(removes).or(from.element);
        key.types = key.types.filter(removes).or(from.types);
        key.maybe.retain(|rule| removes(rule) || from.maybe.contains(rule));
        if key.kind == DateKind::Server {
            key.kind = from.kind; // a date that somebody hangs on a server's time is not the server's
        }
        self.state(Key { listed: None, subject: false, ..key })
    }

    /// What holds at an element, coming from its parent.
    fn below(&mut self, from: &Key, place: Place, owner_name: &str, element: &fhir::Element, type_name: &str) -> Key {
        let complex = matches!(element.kind, Kind::Complex(_));
        let mut key = Key {
            place,
            positions: Vec::new(),
            element: from.element,
            maybe: from.maybe.clone(),
            types: self
                .own_rule(owner_name, element, complex.then_some(type_name))
                .map(|r| self.alike(r))
                .or(from.types),
            kind: match about::life_date(owner_name, element.name) {
                Some(LifeDate::Birth) => DateKind::Birth,
                Some(LifeDate::Death) => DateKind::Death,
                None if about::server_time(owner_name, element.name) => DateKind::Server,
                None => from.kind,
            },
            listed: None,
            decided: false,
            subject: false,
            modifier: false,
        };
        let mut incoming = Vec::new();
        for &position in &from.positions {
            match &self.paths[position.rule as usize].path.steps[position.step as usize] {
                Step::Child(name) if name == element.name || name == choice(element.declared) => {
                    incoming.push(Position { step: position.step + 1, ..position });
                }
                Step::NodesByType(_) => incoming.push(position),
                Step::AnyChild => incoming.push(Position { step: position.step + 1, ..position }),
                Step::Descendants => incoming.extend([position, Position { step: position.step + 1, ..position }]),
                Step::NodesByName(name) => {
                    incoming.push(position);
                    if name == element.name || name == choice(element.declared) {
                        incoming.push(Position { step: position.step + 1, ..position });
                    }
                }
                Step::Child(_) | Step::OfType(_) | Step::Where(_) => {}
            }
        }
        self.arrive(&mut key, &incoming, type_name);
        key
    }

    /// The `types` rule on this very element: `Type.child`, else its complex type.
    fn own_rule(&mut self, owner: &str, element: &fhir::Element, complex: Option<&str>) -> Option<u16> {
        if let Some(&known) = self.own_rules.get(&(owner.to_owned(), element.name)) {
            return known;
        }
        let rule = self.find_own_rule(owner, element, complex);
        self.used.extend(rule);
        self.own_rules.insert((owner.to_owned(), element.name), rule);
        rule
    }

    /// One rule for all that remove: what is inherited is the removal, and telling its authors apart would copy the graph beneath for each.
    fn alike(&self, rule: u16) -> u16 {
        if self.rules[rule as usize].action != Action::Remove {
            return rule;
        }
        let first = self.rules.iter().position(|r| r.origin == Origin::Type && r.action == Action::Remove);
        first.map_or(rule, |first| first as u16)
    }

    fn find_own_rule(&self, owner: &str, element: &fhir::Element, complex: Option<&str>) -> Option<u16> {
        let schema = self.schema;
        let mut owners = vec![owner];
        if let Some(type_id) = schema.type_named(owner) {
            owners.extend(bases(schema.definition(type_id))); // else the members of a twin
        }
        let mut found =
            owners.iter().flat_map(|o| [format!("{o}.{}", element.name), format!("{o}.{}", choice(element.declared))]);
        found.find_map(|name| self.types.get(&name).copied()).or_else(|| self.types.get(complex?).copied())
    }

    // === switches ===

    /// The members whose values decide `where` steps (and the codes rule) at this object, and every decided variant.
    fn switch(&mut self, key: &Key, type_id: TypeId, shape: u16) -> Option<Switch> {
        let schema = self.schema;
        let type_name = schema.definition(type_id).name;
        let mut asked: BTreeMap<Edge, Vec<Ask>> = BTreeMap::new();
        let mut bad = Vec::new();
        for position in &key.positions {
            let rule = &self.paths[position.rule as usize];
            let Some(Step::Where(tests)) = rule.path.steps.get(position.step as usize) else { continue };
            for (member, ask) in tests {
                let edge = self.automaton.shapes[shape as usize].edge(member.as_bytes());
                let known = edge.map(|e| self.automaton.shapes[shape as usize].members[e as usize]);
                match (edge, known) {
                    (Some(edge), Some(m)) if m.form == Form::String && !m.many => {
                        asked.entry(edge).or_default().push(ask.clone());
                    }
                    _ => bad.push((position.rule, member.clone())),
                }
            }
        }
        for (path, member) in bad {
            if let Effect::Rule(rule) = self.paths[path as usize].effect {
                self.bad.insert((rule, format!("{type_name} has no single text member `{member}`")));
            }
        }
        let coding = type_name == "Coding" && self.codes_matter(key);
        let system =
            coding.then(|| self.automaton.shapes[shape as usize].edge(b"system").expect("Coding has a system"));
        if let Some(system) = system {
            let kept = self.keep_systems.iter().map(|system| Ask::Text(How::Is, system.clone(), true));
            asked.entry(system).or_default().extend(kept);
        }
        if asked.is_empty() {
            return None;
        }
        let tests: Vec<Test> = asked.iter().map(|(&edge, asked)| Test::new(edge, asked)).collect();
        if tests.iter().any(|test| test.others() > Test::OTHERS_MAX) {
            self.mistakes.push(wrong(
                At::FILE,
                format!("rules ask more than {} questions about one member of {type_name}", Test::OTHERS_MAX),
                "compare with `=` where that says the same: equality costs least",
            ));
            return None;
        }
        let total: usize = tests.iter().map(Test::outcomes).product();
        if total > 4096 {
            self.mistakes.push(wrong(
                At::FILE,
                format!("rules ask for {total} combinations of values at {type_name}"),
                "use fewer where() members per type",
            ));
            return None;
        }
        let mut variants = Vec::with_capacity(total);
        for number in 0..total {
            let mut rest = number;
            let mut outcomes: HashMap<&str, (&Test, usize)> = HashMap::new();
            for test in tests.iter().rev() {
                let name = self.automaton.shapes[shape as usize].members[test.edge as usize].name;
                outcomes.insert(name, (test, rest % test.outcomes()));
                rest /= test.outcomes();
            }
            let holds = |member: &str, ask: &Ask| {
                Some(outcomes.get(member).is_some_and(|(test, outcome)| test.holds(*outcome, ask)))
            };
            let mut variant = self.resolve(key, holds, type_name);
            variant.decided = true;
            if system.is_some() {
                let literal = outcomes.get("system").and_then(|(test, outcome)| test.literal(*outcome));
                variant.listed = Some(literal.is_some_and(|s| self.keep_systems.iter().any(|k| k == s)));
            }
            variants.push(self.state(variant));
        }
        Some(Switch { tests, variants })
    }

    /// Whether listed and other systems are treated differently at this Coding.
    fn codes_matter(&self, key: &Key) -> bool {
        key.element.is_none() && key.types.is_none()
    }

    /// Advances `where` steps: `holds` says yes, no, or `None` for not known yet.
    fn resolve(&mut self, key: &Key, holds: impl Fn(&str, &Ask) -> Option<bool>, type_name: &str) -> Key {
        let mut next = Key { positions: Vec::new(), ..key.clone() };
        let mut incoming = Vec::new();
        for &position in &key.positions {
            match self.paths[position.rule as usize].path.steps.get(position.step as usize) {
                Some(Step::Where(tests)) => {
                    let outcomes: Vec<Option<bool>> = tests.iter().map(|(m, l)| holds(m, l)).collect();
                    if outcomes.contains(&Some(false)) {
                        continue;
                    }
                    let maybe = position.maybe || outcomes.contains(&None);
                    incoming.push(Position { step: position.step + 1, maybe, ..position });
                }
                _ => next.positions.push(position),
            }
        }
        // `arrive` pushes what goes on; a nodesByType behind a where starts at this element.
        self.arrive(&mut next, &incoming, type_name);
        next
    }

    // === leaves ===

    fn leaf(&mut self, key: &Key, owner: TypeId, index: u16, root: Option<bool>) -> (Leaf, u8) {
        let schema = self.schema;
        let definition = schema.definition(owner);
        let element = &definition.elements[index as usize];
        let Kind::Primitive(primitive) = element.kind else { unreachable!("a leaf is primitive") };
        let role = role(definition.name, element, primitive, root, key.kind);
        let pseudo = match role {
            Role::ResourceId
            | Role::ContainedId
            | Role::Reference
            | Role::FullUrl
            | Role::RequestUrl
            | Role::Condition
            | Role::Location
            | Role::Link => "resource-id",
            _ => primitive.name(),
        };
        let by_type = self.types.get(pseudo).copied();
        let coded = definition.name == "Coding" && matches!(element.name, "code" | "display");
        let decide = |listed: Option<bool>, element_rule: Option<u16>| {
            let codes = match (coded, listed) {
                (true, Some(true)) if element.name == "code" => Some(self.keep_codes),
                (true, Some(false)) => Some(self.other_codes),
                _ => None,
            };
            // A local system's display is decided with its code, even where `Coding.display` has a rule for listed ones.
            let own = if codes == Some(self.other_codes) { None } else { key.types };
            element_rule.or(own).or(codes).or(by_type)
        };
        let mut watch = 0;
        let chosen = decide(key.listed, key.element);
        let mut possible: Vec<u16> = chosen.into_iter().chain(key.maybe.iter().copied()).collect();
        if coded && key.listed.is_none() {
            possible.extend([Some(true), Some(false)].into_iter().filter_map(|l| decide(l, key.element)));
        }
        let place = format!("{}.{}", definition.name, element.name);
        let (rule, action) = match chosen {
            Some(rule) => {
                if Some(rule) == by_type {
                    self.used.insert(rule);
                }
                (u32::from(rule), self.rules[rule as usize].action)
            }
            None => {
                self.undecided.entry(pseudo).or_insert_with(|| place.clone());
                (u32::MAX, Action::Remove)
            }
        };
        for &rule in &possible {
            let action = self.rules[rule as usize].action;
            if let Err(why) = self.fits(action, role, primitive) {
                self.bad.insert((rule, format!("{place}: {why}")));
            }
            match action {
                Action::Keep => {}
                Action::Remove => watch |= WATCH_OUT,
                Action::Token { .. } | Action::Shift { .. } => watch |= WATCH_OUT | WATCH_BACK,
                Action::Other { .. } => watch |= WATCH_OUT,
            }
        }
        let mut check = Check::of(definition.name, element.name, primitive);
        // What a Coding of any system may keep, by whichever rule, is not of published terminologies only.
        let listed = coded && key.listed == Some(true) && key.element.is_none() && key.types.is_none();
        if check == Check::CodingCode && listed && self.only_published {
            check = Check::PublishedCode;
        }
        let keeps = |rule: &u16| self.rules[*rule as usize].action == Action::Keep;
        if check != Check::Nothing && possible.iter().any(keeps) {
            watch |= if possible.iter().all(keeps) { CHECKED } else { CHECKED_LATE };
        }
        // Asked by subjects, requests, neighbours and seals, whatever is done with them. What switches ask is seen to when cells are laid out.
        let asked = matches!(role, Role::CodingSystem | Role::ResourceId | Role::FullUrl | Role::RequestUrl)
            || key.subject
            || definition.name == "Bundle.entry.request" && element.name == "method"
            || self.stands_beside(definition, element.name);
        if asked {
            watch |= WATCH_OUT;
        }
        // Coming back also the code of what may be a seal.
        if asked || definition.name == "Coding" && element.name == "code" {
            watch |= WATCH_BACK;
        }
        if key.subject {
            watch |= SUBJECT;
        }
        (Leaf { role, primitive, action, check, rule }, watch)
    }

    /// Whether an action makes sense at a leaf.
    fn fits(&self, action: Action, role: Role, primitive: Primitive) -> Result<(), &'static str> {
        match (action, role) {
            (Action::Keep | Action::Remove, _) => Ok(()),
            (Action::Other { method, .. }, _) => actions::fits(&self.methods[method as usize], role, primitive),
            (Action::Shift { .. }, Role::Date(DateKind::Server)) => {
                Err("server times are never shifted; give this element its own rule: keep or remove")
            }
            (Action::Shift { .. }, Role::Date(_)) => Ok(()),
            (Action::Shift { .. }, _) => Err("shift is for date, dateTime and instant"),
            (Action::Token { .. }, Role::Scalar) => {
                Err("a token is text and cannot stand where a number or boolean is required")
            }
            (Action::Token { .. }, Role::Date(_)) => Err("a token cannot stand where a date is required"),
            (Action::Token { .. }, _) if primitive == Primitive::Canonical => {
                Err("canonical URLs name definitions, not people, and stay")
            }
            (Action::Token { .. }, _) if primitive == Primitive::Time => {
                Err("a token cannot stand where a time is required")
            }
            (Action::Token { .. }, _) => Ok(()),
        }
    }

    /// Members that decide what another action makes of their neighbour: the unit of an age, the country of a ZIP code.
    fn stands_beside(&self, definition: &fhir::TypeDef, member: &str) -> bool {
        let to = |f: fn(&To) -> bool| self.methods.iter().any(|m| matches!(m, Method::Generalize(to) if f(to)));
        match member {
            "country" => definition.name == "Address" && to(|to| *to == To::Zip3),
            "code" | "unit" => {
                let quantity = definition.name == "Quantity" || bases(definition).contains(&"Quantity");
                quantity && to(|to| matches!(to, To::Age90 { .. }))
            }
            _ => false,
        }
    }

    /// Which objects are removed whole, and which must be opened: a fixpoint over the graph of states.
    fn settle(&mut self) {
        let automaton = &mut self.automaton;
        let n = automaton.states.len();
        // `certain[s]`: whatever stands at s goes away, whichever way undecided rules fall.
        let mut certain = vec![true; n];
        for (id, state) in automaton.states.iter().enumerate() {
            match state.node {
                Node::Leaf(leaf) => {
                    let leaf = automaton.leaves[leaf as usize];
                    certain[id] = leaf.action == Action::Remove;
                }
                Node::Slot { .. } => {} // settled below
                Node::Object { .. } => {}
            }
        }
        for (key, &id) in &self.keys {
            if let Place::Leaf { .. } = key.place
                && (!key.maybe.is_empty() || key.listed.is_none() && key.maybe_coded(self.schema))
            {
                let all_remove = key.maybe.iter().all(|&r| self.rules[r as usize].action == Action::Remove);
                let coded = key.maybe_coded(self.schema) && key.element.is_none() && key.types.is_none();
                if !all_remove || coded {
                    certain[id as usize] = false;
                }
            }
            if let Place::Slot { .. } = key.place {
                certain[id as usize] = key.element.is_some();
            }
            // Resource roots never go as a whole.
            if let Place::Object { root: Some(_), .. } = key.place {
                certain[id as usize] = false;
            }
            if key.place == Place::ResourceType {
                certain[id as usize] = false;
            }
        }
        loop {
            let mut changed = false;
            for id in 0..n {
                if !certain[id] {
                    continue;
                }
                if let Node::Object { shape, row } = automaton.states[id].node {
                    let shape = &automaton.shapes[shape as usize];
                    let goes = (0..shape.members.len()).all(|edge| {
                        let name = shape.members[edge].name;
                        // An Extension that holds only its url, an element that holds only its id, are nothing.
                        let frame = shape.name == "Extension" && name == "url" || name == "id";
                        frame || certain[automaton.targets[row as usize + edge] as usize]
                    });
                    if !goes {
                        certain[id] = false;
                        changed = true;
                    }
                }
            }
            if !changed {
                break;
            }
        }
        for (id, state) in automaton.states.iter_mut().enumerate() {
            if certain[id] && state.flags & MODIFIER == 0 {
                state.flags |= REMOVED_WHOLE | WATCH_OUT;
            }
        }
        // The seal's home: `meta` of a resource, and its `tag`. The places, not their states: a Coding elsewhere has the same.
        let mut opened = Vec::new();
        for pair in automaton.roots.values() {
            let Node::Object { shape, row } = automaton.states[pair[0] as usize].node else { continue };
            let Some(edge) = automaton.shapes[shape as usize].edge(b"meta") else { continue };
            let meta = automaton.targets[row as usize + edge as usize];
            opened.push(row as usize + edge as usize);
            let Node::Object { shape, row } = automaton.states[meta as usize].node else { continue };
            let Some(edge) = automaton.shapes[shape as usize].edge(b"tag") else { continue };
            opened.push(row as usize + edge as usize);
        }
        automaton.lay_out(self.no_subject != NoSubject::Remove, &opened);
    }

    // === the end ===

    fn finish(mut self, file: &RulesFile) -> Result<Compiled, Vec<Mistake>> {
        if !self.undecided.is_empty() {
            let all: Vec<String> =
                self.undecided.iter().map(|(name, place)| format!("{name} (e.g. {place})")).collect();
            self.mistakes.push(wrong(
                At::FILE,
                format!("types: no rule for {}", all.join(", ")),
                "decide each of them under `types:`",
            ));
        }
        let mut by_rule: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for (rule, why) in &self.bad {
            by_rule.entry(*rule).or_default().push(why);
        }
        for (rule, whys) in by_rule {
            let rule = &self.rules[rule as usize];
            let more = if whys.len() > 3 { format!(" (and {} more places)", whys.len() - 3) } else { String::new() };
            let what = format!("`{}`: {}{more}", rule.name, whys[..whys.len().min(3)].join("; "));
            self.mistakes.push(wrong(rule.at(), what, "choose another action, or name the part that is meant"));
        }
        for (number, path) in self.paths.iter().enumerate() {
            let Effect::Rule(rule) = path.effect else { continue };
            // Of alternatives each must name something.
            if !self.used.contains(&rule) || !self.reached.contains(&(number as u16)) {
                let rule = &self.rules[rule as usize];
                self.mistakes.push(wrong(
                    rule.at(),
                    format!("path `{}` matches no element of {}", rule.name, file.release.value),
                    "check the spelling of each step against the release",
                ));
            }
        }
        let shifts: BTreeSet<(u16, bool)> = self
            .rules
            .iter()
            .filter_map(|r| match r.action {
                Action::Shift { days, weekday } => Some((days, weekday)),
                _ => None,
            })
            .collect();
        if shifts.len() > 1 {
            self.mistakes.push(wrong(
                At::FILE,
                "shift: rules differ in `days` or `weekday`",
                "one patient has one offset: write the same in every shift of a pack",
            ));
        }
        let mut mistakes = self.mistakes;
        let mut compiled = Compiled {
            name: file.name.value.clone(),
            release: self.release,
            claim: self.claim,
            unknown: self.unknown,
            no_subject: self.no_subject,
            rules: self.rules,
            classes: self.classes,
            methods: self.methods,
            search: self.search,
            warnings: Vec::new(),
            automaton: self.automaton,
            plain: None,
        };
        // Of a file with other mistakes the claim would be judged by what they left behind.
        if mistakes.is_empty() {
            mistakes = lint::claim(&compiled);
        }
        if !mistakes.is_empty() {
            mistakes.sort_by_key(|m| (m.line, m.column));
            mistakes.dedup();
            return Err(mistakes);
        }
        compiled.warnings = lint::warnings(&compiled);
        Ok(compiled)
    }
}

impl Key {
    fn maybe_coded(&self, schema: &Schema) -> bool {
        match self.place {
            Place::Leaf { owner, element, .. } => {
                let definition = schema.definition(owner);
                definition.name == "Coding"
                    && matches!(definition.elements[element as usize].name, "code" | "display")
                    && self.listed.is_none()
            }
            _ => false,
        }
    }
}

/// `value[x]` → `value`.
pub(super) fn choice(declared: &str) -> &str {
    declared.strip_suffix("[x]").unwrap_or(declared)
}

/// The types from which a type takes elements: a rule `Resource.meta` is about every resource.
pub(super) fn bases(definition: &fhir::TypeDef) -> &'static [&'static str] {
    match (definition.category, definition.name) {
        (Category::Resource, _) => &["DomainResource", "Resource"],
        (Category::Backbone, _) => &["BackboneElement", "Element"],
        (_, "Age" | "Count" | "Distance" | "Duration" | "MoneyQuantity" | "SimpleQuantity") => &["Quantity", "Element"],
        (Category::Datatype, _) => &["Element"],
    }
}

/// The members of a twin.
fn in_twin(element: &fhir::Element) -> bool {
    matches!(element.name, "id" | "extension")
}

/// `Element.id`, `Extension.url` and resource ids are plain members without a twin (json.html); `Narrative.div` has none either.
fn has_twin(definition: &fhir::TypeDef, element: &fhir::Element) -> bool {
    let bare = element.name == "id" && definition.category != Category::Resource
        || element.name == "url" && definition.name == "Extension"
        || matches!(element.kind, Kind::Primitive(Primitive::Xhtml));
    !bare
}

/// `_x` for `x`. Made once per name for the life of the program: names of the schema, a few thousand in all.
fn twin_name(name: &'static str) -> &'static str {
    interned(&format!("_{name}"))
}

/// The one copy of a name of the schema or of a rule file, kept for the life of the program: each once, however often files are loaded.
fn interned(name: &str) -> &'static str {
    use std::sync::{Mutex, OnceLock};
    static NAMES: OnceLock<Mutex<HashSet<&'static str>>> = OnceLock::new();
    let mut names = NAMES.get_or_init(Mutex::default).lock().expect("no panic while held");
    if let Some(known) = names.get(name) {
        return known;
    }
    let name: &'static str = name.to_owned().leak();
    names.insert(name);
    name
}

fn role(owner: &str, element: &fhir::Element, primitive: Primitive, root: Option<bool>, kind: DateKind) -> Role {
    match (owner, element.name) {
        (_, "id") if root == Some(false) => return Role::ResourceId,
        (_, "id") if root == Some(true) => return Role::ContainedId,
        ("Reference", "reference") => return Role::Reference,
        ("Identifier", "value") => return Role::Identifier,
        ("Coding", "system") => return Role::CodingSystem,
        ("Coding", "code") => return Role::CodingCode,
        ("Bundle.entry", "fullUrl") => return Role::FullUrl,
        ("Bundle.entry.request", "url") => return Role::RequestUrl,
        ("Bundle.entry.request", "ifNoneExist") => return Role::Condition,
        ("Bundle.entry.response", "location") => return Role::Location,
        ("Bundle.link", "url") => return Role::Link,
        (_, "id") => return Role::ElementId,
        _ => {}
    }
    match primitive {
        Primitive::Uri | Primitive::Url | Primitive::Canonical | Primitive::Oid | Primitive::Uuid => Role::Uri,
        Primitive::Xhtml => Role::Narrative,
        Primitive::Base64Binary => Role::Base64,
        Primitive::Date | Primitive::DateTime | Primitive::Instant => Role::Date(kind),
        Primitive::Boolean
        | Primitive::Integer
        | Primitive::Integer64
        | Primitive::Decimal
        | Primitive::UnsignedInt
        | Primitive::PositiveInt => Role::Scalar,
        Primitive::String | Primitive::Markdown | Primitive::Code | Primitive::Id | Primitive::Time => Role::Text,
    }
}

/// The place of a thing in a list, at its end where it is new.
fn index<T: PartialEq>(all: &mut Vec<T>, one: T) -> u16 {
    let at = all.iter().position(|known| *known == one).unwrap_or_else(|| {
        all.push(one);
        all.len() - 1
    });
    at as u16
}
