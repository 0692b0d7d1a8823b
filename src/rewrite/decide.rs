//! The decider: what happens at each watched place of a scanned unit, in either direction, as a list of edits.
//!
//! It walks the events of a unit top-down with the exact state of each place (a `where(...)` is decided as soon as its object is entered, by
//! looking ahead at the siblings), and comes back up with each element's fate: it stays or it goes. An element goes with the
//! smallest enclosing one that may go; where everything up to the resource is required, it is marked as masked instead
//! (data-absent-reason), so that the result stays valid FHIR. Bytes outside edits are copied, never written anew.
//!
//! Going out, anything doubtful is an error and the unit is not written. Coming back, anything doubtful stays as it is:
//! no plaintext appears unless a token verified and the permit allows its class.

use super::engine::Engine;
use super::json::{Direction, Event, EventKind, UNKNOWN_EDGE};
use super::reference::Way;
use super::refusal::{Code, Refusal};
use super::report::Report;
use super::seal::{self, Offsets, Seal};
use super::{dates, text};
use crate::action::shift::{self, Offset};
use crate::fhir;
use crate::limits;
use crate::policy::Permit;
use crate::rules::automaton::{Automaton, Leaf, MODIFIER, Member, NO_SWITCH, Node, REMOVED_WHOLE, SUBJECT, Shape, StateId};
use crate::rules::{Action, DateKind, NoSubject, Role};
use crate::secret::Phi;
use crate::token::{ClassKeys, Form, Revealed, Seen};
use std::borrow::Cow;

/// FHIR's own way to say that a value exists and is not shown (data-absent-reason, code system of the same name).
const MASKED: &str =
    r#"{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"masked"}]}"#;
const DIV_OPEN: &str = r#"<div xmlns="http://www.w3.org/1999/xhtml">"#;
const DIV_CLOSE: &str = "</div>";

/// A range of the input that is replaced by a range of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edit {
    start: u32,
    end: u32,
    text: (u32, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Goes,
}

/// Why a place cannot be decided; its event tells where.
struct No(Code, u32);

type Decided<T> = Result<T, No>;

/// The buffers of a decider, reused from unit to unit.
#[derive(Debug, Default)]
pub struct Desk {
    edits: Vec<Edit>,
    arena: Vec<u8>,
    word: String,
}

/// How dates move in the resource being decided.
#[derive(Debug, Default)]
struct Resource {
    /// Event of the resource.
    event: u32,
    /// Its subject's key, if exactly one.
    subject: Option<String>,
    /// Its key for an offset of its own.
    own: Option<String>,
    /// Going out: offsets used. Coming back: offsets of its valid seal.
    offsets: Offsets,
    /// Going out: at least one date was moved by an offset of its own.
    used_own: bool,
    /// Coming back: some date here would have to be unshifted and cannot be.
    unsealed: bool,
    /// Ids of contained definitional resources: they stay, and so do references to them.
    kept_contained: Vec<String>,
    /// Whether something was revealed.
    revealed: bool,
}

/// One unit being decided.
pub struct Decider<'u> {
    engine: &'u Engine,
    automaton: &'u Automaton,
    input: &'u [u8],
    events: &'u [Event],
    direction: Direction,
    permit: Option<&'u Permit>,
    desk: &'u mut Desk,
    report: &'u mut Report,
}

impl<'u> Decider<'u> {
    /// A decider over a scanned unit of `input`.
    pub fn new(
        engine: &'u Engine,
        input: &'u [u8],
        events: &'u [Event],
        direction: Direction,
        permit: Option<&'u Permit>,
        desk: &'u mut Desk,
        report: &'u mut Report,
    ) -> Self {
        desk.edits.clear();
        desk.arena.clear();
        let automaton = &engine.rules.automaton;
        Decider { engine, automaton, input, events, direction, permit, desk, report }
    }

    /// Decides the unit and appends `input[start..end]`, rewritten, to `output`. `false`: the unit as a whole goes, and nothing was
    /// appended. On a refusal nothing was appended either.
    pub fn write(mut self, start: usize, end: usize, prefix: &str, output: &mut Vec<u8>) -> Result<bool, Refusal> {
        if !self.events.is_empty() {
            let state = self.events[0].state;
            let mut fragment = Resource { event: u32::MAX, ..Resource::default() };
            let fate = self.element(0, state, &mut fragment, false, None).map_err(|no| self.refusal(no, prefix))?;
            if fate == Fate::Goes {
                return Ok(false);
            }
        }
        let mut copied = start;
        for edit in &self.desk.edits {
            output.extend_from_slice(&self.input[copied..edit.start as usize]);
            output.extend_from_slice(&self.desk.arena[edit.text.0 as usize..edit.text.1 as usize]);
            copied = edit.end as usize;
        }
        output.extend_from_slice(&self.input[copied..end]);
        Ok(true)
    }

    fn out(&self) -> bool {
        self.direction == Direction::Out
    }

    // === elements ===

    /// The fate of one event in exact state `state`. `bound`: every enclosing element up to the resource is required.
    fn element(&mut self, at: u32, state: StateId, resource: &mut Resource, bound: bool, full_url: Option<u32>) -> Decided<Fate> {
        let event = self.events[at as usize];
        match event.kind {
            EventKind::Unknown => {
                self.report.removed += 1;
                Ok(Fate::Goes)
            }
            EventKind::Array => self.array(at, state, resource, bound, full_url),
            EventKind::Object => self.object(at, state, resource, bound),
            EventKind::Resource => self.resource(at, event.state, resource, full_url),
            EventKind::Text | EventKind::Scalar => match self.automaton.leaf(state) {
                Some(&leaf) => self.leaf(at, leaf, state, resource),
                None => Ok(Fate::Stays), // a slot's or object's place held text: only coming back, where it stays
            },
        }
    }

    fn array(&mut self, at: u32, state: StateId, resource: &mut Resource, bound: bool, full_url: Option<u32>) -> Decided<Fate> {
        let event = self.events[at as usize];
        let flags = self.automaton.states[state as usize].flags;
        if self.out() && flags & REMOVED_WHOLE != 0 {
            self.report.removed += 1;
            return Ok(Fate::Goes);
        }
        // Elements of primitives and of their twins stand in step with each other: a removed one leaves `null`.
        let in_step = match self.automaton.states[state as usize].node {
            Node::Leaf(_) => true,
            Node::Object { shape, .. } => self.automaton.shapes[shape as usize].name == "Element",
            Node::Slot { .. } => false,
        };
        let mark = self.desk.edits.len();
        let mut removed = 0;
        let mut next = at + 1;
        while next < event.link {
            let child = self.events[next as usize];
            if self.element(next, state, resource, bound && event.members == 1, full_url)? == Fate::Goes {
                if in_step {
                    self.replace(child_span(&child), b"null");
                } else {
                    self.cut(&child, removed);
                }
                removed += 1;
            }
            next = child.link;
        }
        if removed > 0 && removed + event.nulls == event.members {
            self.desk.edits.truncate(mark);
            return Ok(Fate::Goes);
        }
        Ok(Fate::Stays)
    }

    fn object(&mut self, at: u32, state: StateId, resource: &mut Resource, bound: bool) -> Decided<Fate> {
        let flags = self.automaton.states[state as usize].flags;
        if self.out() {
            if flags & MODIFIER != 0 {
                return Err(No(Code::ModifierExtension, at));
            }
            if flags & REMOVED_WHOLE != 0 {
                self.report.removed += 1;
                return Ok(Fate::Goes);
            }
        }
        let state = self.decided(at, state)?;
        self.members(at, state, resource, bound)
    }

    /// The members of an object in its decided state: their fates, and by them its own.
    fn members(&mut self, at: u32, state: StateId, resource: &mut Resource, bound: bool) -> Decided<Fate> {
        let event = self.events[at as usize];
        let automaton = self.automaton;
        let Node::Object { shape, row } = automaton.states[state as usize].node else { return Ok(Fate::Stays) };
        if self.out() && automaton.states[state as usize].flags & REMOVED_WHOLE != 0 {
            self.report.removed += 1;
            return Ok(Fate::Goes);
        }
        let shape = &automaton.shapes[shape as usize];
        if shape.name == "Coding" && self.is_seal(at) {
            return self.seal_coding(at, resource);
        }
        let full_url = if shape.name == "Bundle.entry" { self.member(at, shape, b"fullUrl") } else { None };
        let mark = self.desk.edits.len();
        let (mut removed, mut frames) = (0, 0);
        let mut next = at + 1;
        while next < event.link {
            let child = self.events[next as usize];
            let (member, target) = if child.edge == UNKNOWN_EDGE {
                (None, child.state)
            } else {
                (Some(&shape.members[child.edge as usize]), automaton.target(row, child.edge))
            };
            let required = member.is_some_and(|m| m.required);
            let fate = match member {
                Some(m) if m.name == "ifNoneExist" && shape.name == "Bundle.entry.request" => self.condition(next, target, at, shape)?,
                _ => self.element(next, target, resource, bound && required, full_url)?,
            };
            match fate {
                Fate::Stays => frames += u32::from(member.is_some_and(|m| is_frame(shape, m))),
                Fate::Goes if required && bound => self.mask(&child, member),
                Fate::Goes if required && self.out() => {
                    self.desk.edits.truncate(mark);
                    return Ok(Fate::Goes);
                }
                Fate::Goes => {
                    self.cut(&child, removed);
                    removed += 1;
                }
            }
            next = child.link;
        }
        // What is left may be only a frame: an Extension with nothing but its url, an element with nothing but its id.
        if removed > 0 && event.members - removed <= frames && event.kind == EventKind::Object {
            self.desk.edits.truncate(mark);
            return Ok(Fate::Goes);
        }
        Ok(Fate::Stays)
    }

    /// Takes the switch of an object, if it has one: the variant in which its rules are decided.
    fn decided(&mut self, at: u32, state: StateId) -> Decided<StateId> {
        let switch = self.automaton.states[state as usize].switch;
        if switch == NO_SWITCH {
            return Ok(state);
        }
        let automaton = self.automaton;
        let switch = &automaton.switches[switch as usize];
        let mut number = 0;
        for test in &switch.tests {
            let none = test.literals.len();
            let outcome = match self.child(at, test.edge) {
                Some(leaf) => {
                    let value = self.text(leaf)?;
                    test.literals.binary_search_by(|l| l.as_str().cmp(&value)).unwrap_or(none)
                }
                None => none,
            };
            number = number * (none + 1) + outcome;
        }
        Ok(switch.variants[number])
    }

    // === resources and seals ===

    fn resource(&mut self, at: u32, state: StateId, container: &mut Resource, full_url: Option<u32>) -> Decided<Fate> {
        let automaton = self.automaton;
        let Node::Object { shape, .. } = automaton.states[state as usize].node else { return Ok(Fate::Stays) };
        let name = automaton.shapes[shape as usize].name;
        if automaton.root(name, true) == Some(state) {
            return self.members(at, state, container, true); // contained: the container's subject and seal
        }
        let mut resource = Resource { event: at, ..Resource::default() };
        self.facts(at, name, full_url, &mut resource)?;
        let state = self.decided(at, state)?;
        self.members(at, state, &mut resource, true)?;
        if self.out() && resource.offsets.iter().any(Option::is_some) {
            self.seal(at, shape, &resource)?;
        }
        if resource.unsealed {
            self.report.unsealed += 1;
        }
        if resource.revealed {
            let who = resource.subject.or(resource.own);
            self.report.subjects.extend(who.map(|s| self.engine.keys.handle(&s)));
        }
        self.report.resources += 1;
        Ok(Fate::Stays)
    }

    /// What must be known of a resource before its first date: whom it is about, and the seals that it bears.
    fn facts(&mut self, at: u32, name: &str, full_url: Option<u32>, resource: &mut Resource) -> Decided<()> {
        let link = self.events[at as usize].link;
        let mut subjects: Vec<String> = Vec::new();
        let mut several = false;
        let mut seals = Vec::new();
        let mut id = None;
        let mut next = at + 1;
        while next < link {
            let event = self.events[next as usize];
            if event.kind == EventKind::Resource {
                self.contained(next, resource)?;
                next = event.link;
                continue;
            }
            if event.kind == EventKind::Text {
                let flags = self.automaton.states[event.state as usize].flags;
                let role = self.automaton.leaf(event.state).map(|l| l.role);
                if flags & SUBJECT != 0 && role == Some(Role::Reference) {
                    match self.subject(next)? {
                        Some(key) if !subjects.contains(&key) => subjects.push(key),
                        Some(_) => {}
                        None => several = true, // about somebody whom we cannot name: not exactly one
                    }
                } else if role == Some(Role::ResourceId) {
                    id = Some(next);
                } else if role == Some(Role::CodingSystem) && self.text(next)? == seal::SYSTEM {
                    if self.out() {
                        return Err(No(Code::Sealed, next));
                    }
                    seals.push(next);
                }
            }
            next += 1;
        }
        let trusted_id = match id {
            Some(id) => {
                let text = self.text(id)?;
                self.engine.trusted_id(name, &text, self.direction)
            }
            None => None,
        };
        let trusted_url = match full_url {
            Some(url) => {
                let text = self.text(url)?;
                self.engine.trusted_uuid(&text, self.direction)
            }
            None => None,
        };
        if name == "Patient" {
            resource.subject = trusted_url.clone().or(trusted_id.clone());
        } else if subjects.len() == 1 && !several {
            resource.subject = subjects.pop();
        }
        resource.own = trusted_id.or(trusted_url);
        if !self.out() {
            self.choose_seal(&seals, resource)?;
        }
        Ok(())
    }

    /// The ids of contained definitional resources, which stay.
    fn contained(&mut self, at: u32, resource: &mut Resource) -> Decided<()> {
        let event = self.events[at as usize];
        let Node::Object { shape, .. } = self.automaton.states[event.state as usize].node else { return Ok(()) };
        let shape = &self.automaton.shapes[shape as usize];
        if fhir::definitional(shape.name)
            && let Some(id) = self.member(at, shape, b"id")
        {
            let id = self.text(id)?.into_owned();
            resource.kept_contained.push(id);
        }
        Ok(())
    }

    /// The key of the subject that a reference names. `None`: not a patient whom we can name.
    fn subject(&mut self, at: u32) -> Decided<Option<String>> {
        let text = self.text(at)?;
        Ok(self.engine.subject_key(&text, self.direction))
    }

    /// Of several seals the one of the resource's subject counts, else none; a single one counts as it is.
    fn choose_seal(&mut self, seals: &[u32], resource: &mut Resource) -> Decided<()> {
        let mut valid = Vec::new();
        for &system in seals {
            let Some(coding) = self.parent(system) else { continue };
            let Node::Object { shape, .. } = self.automaton.states[self.events[coding as usize].state as usize].node else { continue };
            let Some(code) = self.member(coding, &self.automaton.shapes[shape as usize], b"code") else { continue };
            valid.extend(Seal::read(self.engine, &self.text(code)?));
        }
        valid.dedup();
        let chosen = match valid.len() {
            1 => valid.pop(),
            _ => valid.into_iter().find(|s| Some(&s.subject) == resource.subject.as_ref()),
        };
        if let Some(seal) = chosen
            && self.engine.allows(self.permit, self.engine.seals.class())
        {
            resource.offsets = seal.offsets;
        }
        Ok(())
    }

    /// Whether the Coding at this event is a seal.
    fn is_seal(&mut self, at: u32) -> bool {
        let Node::Object { shape, .. } = self.automaton.states[self.events[at as usize].state as usize].node else { return false };
        let shape = &self.automaton.shapes[shape as usize];
        let Some(system) = self.member(at, shape, b"system") else { return false };
        matches!(self.text(system), Ok(text) if text == seal::SYSTEM)
    }

    /// A seal coming back: taken off for callers who may unshift, left for the others.
    fn seal_coding(&mut self, at: u32, resource: &mut Resource) -> Decided<Fate> {
        if self.out() {
            return Err(No(Code::Sealed, at));
        }
        if !self.engine.allows(self.permit, self.engine.seals.class()) {
            self.report.stayed += 1;
            return Ok(Fate::Stays);
        }
        self.count_reveal(self.engine.seals.class(), resource);
        Ok(Fate::Goes)
    }

    /// Writes the seal last in its parent: into `meta.tag`, with `tag` and `meta` where they are absent or have gone.
    fn seal(&mut self, at: u32, shape: u16, resource: &Resource) -> Decided<()> {
        let seal = Seal {
            offsets: resource.offsets,
            subject: if resource.used_own { String::new() } else { resource.subject.clone().unwrap_or_default() },
        };
        self.desk.word.clear();
        seal.write(self.engine, &mut self.desk.word);
        let coding = format!(r#"{{"system":"{}","code":"{}"}}"#, seal::SYSTEM, self.desk.word);
        let shape = &self.automaton.shapes[shape as usize];
        let meta = self.member(at, shape, b"meta").filter(|&m| self.survives(m));
        let (place, text) = match meta {
            None => (self.events[at as usize].end - 1, format!(r#","meta":{{"tag":[{coding}]}}"#)),
            Some(meta) => {
                let Node::Object { shape, .. } = self.automaton.states[self.events[meta as usize].state as usize].node else {
                    return Err(No(Code::WrongForm, meta));
                };
                match self.member(meta, &self.automaton.shapes[shape as usize], b"tag").filter(|&t| self.survives(t)) {
                    None => (self.events[meta as usize].end - 1, format!(r#","tag":[{coding}]"#)),
                    Some(tag) => (self.events[tag as usize].end - 1, format!(",{coding}")),
                }
            }
        };
        let text = self.store(text.as_bytes());
        let edit = Edit { start: place, end: place, text };
        let index = self.desk.edits.partition_point(|e| e.start < place);
        self.desk.edits.insert(index, edit);
        Ok(())
    }

    /// Whether no cut covers this event.
    fn survives(&self, at: u32) -> bool {
        let event = self.events[at as usize];
        !self.desk.edits.iter().any(|e| e.start <= event.start && e.end >= event.end && e.end > e.start)
    }

    // === leaves ===

    fn leaf(&mut self, at: u32, leaf: Leaf, state: StateId, resource: &mut Resource) -> Decided<Fate> {
        if self.out() {
            return match leaf.action {
                Action::Keep => Ok(Fate::Stays),
                Action::Remove => {
                    self.report.removed += 1;
                    Ok(Fate::Goes)
                }
                Action::Shift { days, weekday } => self.shift(at, leaf, days, weekday, resource),
                Action::Token { class, pad } => {
                    self.token(at, leaf, class as usize, pad, resource)?;
                    Ok(Fate::Stays)
                }
            };
        }
        match leaf.action {
            Action::Shift { .. } => self.unshift(at, leaf, resource)?,
            Action::Token { class, .. } => self.reveal(at, leaf, class as usize, resource)?,
            Action::Keep | Action::Remove => {}
        }
        let _ = state;
        Ok(Fate::Stays)
    }

    fn shift(&mut self, at: u32, leaf: Leaf, days: u16, weekday: bool, resource: &mut Resource) -> Decided<Fate> {
        let Role::Date(kind) = leaf.role else { return Err(No(Code::BadDate, at)) };
        let kind = match kind {
            DateKind::Event | DateKind::Server => Offset::Event,
            DateKind::Birth => Offset::Birth,
            DateKind::Death => Offset::Death,
        };
        let text = self.text(at)?;
        if !dates::moves(&text, leaf.primitive).map_err(|code| No(code, at))? {
            return Ok(Fate::Stays);
        }
        let key = match (&resource.subject, self.engine.rules.no_subject) {
            (Some(subject), _) => subject.clone(),
            (None, NoSubject::Remove) => {
                self.report.removed += 1;
                return Ok(Fate::Goes);
            }
            (None, NoSubject::Refuse) => return Err(No(Code::NoSubject, at)),
            (None, NoSubject::Year) => {
                let year = dates::year(&text, leaf.primitive);
                self.report.shifts += 1;
                self.write_text(at, &year);
                return Ok(Fate::Stays);
            }
            (None, NoSubject::Own) => {
                if resource.event == u32::MAX {
                    return Err(No(Code::NoSubject, at)); // a fragment has no seal
                }
                resource.used_own = true;
                match &resource.own {
                    Some(own) => own.clone(),
                    None => {
                        let event = self.events[resource.event as usize];
                        // Exposed to a keyed hash only.
                        String::from_utf8_lossy(&self.input[event.start as usize..event.end as usize]).into_owned()
                    }
                }
            }
        };
        let offset = shift::offset(&self.engine.shift, kind, &key, days, weekday);
        resource.offsets[kind as usize] = Some(offset);
        let moved = dates::shift(&text, offset, leaf.primitive).map_err(|code| No(code, at))?;
        self.report.shifts += 1;
        self.write_text(at, &moved);
        Ok(Fate::Stays)
    }

    fn unshift(&mut self, at: u32, leaf: Leaf, resource: &mut Resource) -> Decided<()> {
        let Role::Date(kind) = leaf.role else { return Ok(()) };
        let kind = match kind {
            DateKind::Event | DateKind::Server => Offset::Event,
            DateKind::Birth => Offset::Birth,
            DateKind::Death => Offset::Death,
        };
        let text = self.text(at)?;
        if !dates::moves(&text, leaf.primitive).unwrap_or(false) {
            return Ok(());
        }
        match resource.offsets[kind as usize] {
            Some(offset) => {
                if let Ok(moved) = dates::shift(&text, -offset, leaf.primitive) {
                    self.report.shifts += 1;
                    self.count_reveal(self.engine.seals.class(), resource);
                    self.write_text(at, &moved);
                }
            }
            None => resource.unsealed |= self.engine.allows(self.permit, self.engine.seals.class()),
        }
        Ok(())
    }

    fn token(&mut self, at: u32, leaf: Leaf, class: usize, pad: bool, resource: &Resource) -> Decided<()> {
        let engine = self.engine;
        let keys = &engine.classes[class];
        let event = self.events[at as usize];
        let spelling = self.spelling(at)?;
        let value = self.text(at)?;
        let mut word = std::mem::take(&mut self.desk.word);
        word.clear();
        let way = &mut Way::out();
        let changed = match leaf.role {
            Role::ResourceId => engine.resource_id(self.resource_name(at), &value, &mut word, way),
            Role::ContainedId => engine.contained_id(self.resource_name(at), &value, &mut word, way),
            Role::Reference | Role::FullUrl | Role::Location => engine.reference(&value, &resource.kept_contained, &mut word, way),
            Role::RequestUrl => engine.request_url(&self.method(at)?, &value, &mut word, way),
            Role::Link => engine.uri(&engine.uris, &value, &mut word, way),
            Role::Uri => engine.uri(keys, &value, &mut word, way),
            Role::Identifier => engine.identifier(keys, &value, &mut word, way),
            Role::Base64 => engine.base64(keys, &value, &mut word, way),
            Role::Narrative => {
                let inner = value.strip_prefix(DIV_OPEN).and_then(|v| v.strip_suffix(DIV_CLOSE));
                match inner.map(|v| keys.recognise(v)) {
                    Some(Seen::Token) => Ok(false),
                    Some(Seen::LookAlike) => Err(Code::LookAlike),
                    _ => {
                        word.push_str(DIV_OPEN);
                        let done = free_text(keys, spelling, &value, pad, &mut word);
                        word.push_str(DIV_CLOSE);
                        done
                    }
                }
            }
            Role::Text | Role::ElementId | Role::CodingSystem => match keys.recognise(&value) {
                Seen::Token => Ok(false),
                Seen::LookAlike => Err(Code::LookAlike),
                Seen::Foreign => free_text(keys, spelling, &value, pad, &mut word),
            },
            Role::Condition | Role::Date(_) | Role::Scalar => Err(Code::WrongForm),
        };
        let changed = changed.map_err(|code| No(code, at))?;
        if changed {
            self.report.tokens += 1;
            let (start, end) = (event.start, event.end);
            let from = self.desk.arena.len() as u32;
            text::encode(&word, &mut self.desk.arena);
            self.desk.edits.push(Edit { start, end, text: (from, self.desk.arena.len() as u32) });
        }
        self.desk.word = word;
        Ok(())
    }

    fn reveal(&mut self, at: u32, leaf: Leaf, class: usize, resource: &mut Resource) -> Decided<()> {
        let engine = self.engine;
        let keys = &engine.classes[class];
        let value = self.text(at)?;
        let mut word = std::mem::take(&mut self.desk.word);
        word.clear();
        let mut seen = Way::back(self.permit);
        let way = &mut seen;
        let mut raw = false;
        let changed = match leaf.role {
            Role::ResourceId => engine.resource_id(self.resource_name(at), &value, &mut word, way),
            Role::ContainedId => engine.contained_id(self.resource_name(at), &value, &mut word, way),
            Role::Reference | Role::FullUrl | Role::Location => engine.reference(&value, &resource.kept_contained, &mut word, way),
            Role::RequestUrl => engine.request_url(&self.method(at)?, &value, &mut word, way),
            Role::Link => engine.link(&value, &mut word, way),
            Role::Uri => engine.uri(keys, &value, &mut word, way),
            Role::Identifier => engine.identifier(keys, &value, &mut word, way),
            Role::Base64 => engine.base64(keys, &value, &mut word, way),
            Role::Text | Role::ElementId | Role::CodingSystem | Role::Narrative => {
                let inner = if leaf.role == Role::Narrative {
                    value.strip_prefix(DIV_OPEN).and_then(|v| v.strip_suffix(DIV_CLOSE)).unwrap_or_default()
                } else {
                    &*value
                };
                match self.permit.map(|p| keys.reidentify(inner, p)) {
                    Some(Revealed::Plain(phi, spelled)) => {
                        raw = spelled;
                        seen.revealed.push(keys.class().clone());
                        // Exposed to a caller whose permit allows this class.
                        word.push_str(phi.expose());
                        Ok(true)
                    }
                    Some(Revealed::Denied | Revealed::LookAlike) => {
                        seen.stayed += 1;
                        Ok(false)
                    }
                    Some(Revealed::Foreign) | None => Ok(false),
                }
            }
            Role::Condition | Role::Date(_) | Role::Scalar => Ok(false),
        };
        // Coming back, what cannot be understood stays as it is; only a foreign id without room is an error.
        let changed = match changed {
            Ok(changed) => changed,
            Err(Code::ForeignIdTooLong) => return Err(No(Code::ForeignIdTooLong, at)),
            Err(_) => false,
        };
        self.report.stayed += seen.stayed;
        for class in &seen.revealed {
            self.count_reveal(class, resource);
        }
        if changed {
            self.report.tokens += 1;
            let event = self.events[at as usize];
            let from = self.desk.arena.len() as u32;
            if raw {
                self.desk.arena.extend_from_slice(word.as_bytes());
            } else {
                text::encode(&word, &mut self.desk.arena);
            }
            self.desk.edits.push(Edit { start: event.start, end: event.end, text: (from, self.desk.arena.len() as u32) });
        }
        self.desk.word = word;
        Ok(())
    }

    /// `Bundle.entry.request.ifNoneExist`: a search on the type that the request's url names.
    fn condition(&mut self, at: u32, state: StateId, request: u32, shape: &Shape) -> Decided<Fate> {
        let Some(&leaf) = self.automaton.leaf(state) else { return Ok(Fate::Stays) };
        match (leaf.action, self.out()) {
            (Action::Keep, _) | (Action::Remove, false) => return Ok(Fate::Stays),
            (Action::Remove, true) => return Ok(Fate::Goes),
            _ => {}
        }
        let value = self.text(at)?;
        let url = match self.member(request, shape, b"url") {
            Some(url) => self.text(url)?,
            None => Cow::Borrowed(""),
        };
        let type_name = url.split(['/', '?']).next().unwrap_or_default();
        let mut word = String::new();
        let mut seen = if self.out() { Way::out() } else { Way::back(self.permit) };
        match self.engine.condition(type_name, &value, &mut word, &mut seen) {
            Ok(true) => {
                self.report.tokens += 1;
                self.write_text(at, &word);
            }
            Ok(false) => {}
            Err(code) if self.out() => return Err(No(code, at)),
            Err(_) => {}
        }
        for class in seen.revealed {
            *self.report.reveals.entry(class).or_default() += 1;
        }
        Ok(Fate::Stays)
    }

    fn count_reveal(&mut self, class: &crate::names::Class, resource: &mut Resource) {
        resource.revealed = true;
        *self.report.reveals.entry(class.clone()).or_default() += 1;
    }

    // === looking around ===

    fn spelling(&self, at: u32) -> Decided<&'u str> {
        let event = self.events[at as usize];
        let bytes = &self.input[event.start as usize..event.end as usize];
        std::str::from_utf8(bytes).map_err(|_| No(Code::BadUtf8, at))
    }

    /// The decoded text of a leaf.
    fn text(&self, at: u32) -> Decided<Cow<'u, str>> {
        let spelling = self.spelling(at)?;
        if !self.events[at as usize].escaped {
            return Ok(Cow::Borrowed(spelling));
        }
        text::decode(spelling).ok_or(No(Code::BadText, at))
    }

    /// The event of a direct member.
    fn child(&self, at: u32, edge: u16) -> Option<u32> {
        let link = self.events[at as usize].link;
        let mut next = at + 1;
        while next < link {
            let event = &self.events[next as usize];
            if event.edge == edge && event.kind != EventKind::Unknown {
                return Some(next);
            }
            next = event.link;
        }
        None
    }

    fn member(&self, at: u32, shape: &Shape, name: &[u8]) -> Option<u32> {
        self.child(at, shape.edge(name)?)
    }

    /// The nearest object around an event.
    fn parent(&self, at: u32) -> Option<u32> {
        (0..at).rev().find(|&i| {
            let event = &self.events[i as usize];
            event.link > at && matches!(event.kind, EventKind::Object | EventKind::Resource)
        })
    }

    /// The HTTP method of the `Bundle.entry.request` in which a url stands.
    fn method(&self, at: u32) -> Decided<Cow<'u, str>> {
        let Some(parent) = self.parent(at) else { return Err(No(Code::BadRequestEntry, at)) };
        let Node::Object { shape, .. } = self.automaton.states[self.events[parent as usize].state as usize].node else {
            return Err(No(Code::BadRequestEntry, at));
        };
        match self.member(parent, &self.automaton.shapes[shape as usize], b"method") {
            Some(method) => self.text(method),
            None => Err(No(Code::BadRequestEntry, at)),
        }
    }

    /// The type of the resource in which an event stands.
    fn resource_name(&self, at: u32) -> &'static str {
        let around = (0..at).rev().find(|&i| self.events[i as usize].link > at && self.events[i as usize].kind == EventKind::Resource);
        match around.map(|i| self.automaton.states[self.events[i as usize].state as usize].node) {
            Some(Node::Object { shape, .. }) => self.automaton.shapes[shape as usize].name,
            _ => "Bundle", // a member of a streamed Bundle: the one resource whose members are units of their own
        }
    }

    /// Where a decision failed, in schema names and indexes.
    fn refusal(&self, No(code, at): No, prefix: &str) -> Refusal {
        let mut path = prefix.to_owned();
        for i in 0..=at {
            let event = &self.events[i as usize];
            if i < at && event.link <= at {
                continue;
            }
            let parent = (0..i).rev().find(|&p| self.events[p as usize].link > i);
            match parent.map(|p| (self.events[p as usize].kind, self.automaton.states[self.events[p as usize].state as usize].node)) {
                Some((EventKind::Array, _)) => path.push_str(&format!("[{}]", event.index)),
                Some((_, Node::Object { shape, .. })) => {
                    let shape = &self.automaton.shapes[shape as usize];
                    path.push('.');
                    path.push_str(shape.members.get(event.edge as usize).map_or("?", |m| m.name));
                }
                _ => {}
            }
            if path.is_empty()
                && let Node::Object { shape, .. } = self.automaton.states[event.state as usize].node
            {
                path.push_str(self.automaton.shapes[shape as usize].name);
            }
        }
        Refusal { code, path, byte: u64::from(self.events[at as usize].start) }
    }

    // === edits ===

    fn store(&mut self, bytes: &[u8]) -> (u32, u32) {
        let from = self.desk.arena.len() as u32;
        self.desk.arena.extend_from_slice(bytes);
        (from, self.desk.arena.len() as u32)
    }

    fn write_text(&mut self, at: u32, word: &str) {
        let event = self.events[at as usize];
        let from = self.desk.arena.len() as u32;
        text::encode(word, &mut self.desk.arena);
        self.desk.edits.push(Edit { start: event.start, end: event.end, text: (from, self.desk.arena.len() as u32) });
    }

    fn replace(&mut self, (start, end): (u32, u32), bytes: &[u8]) {
        let text = self.store(bytes);
        self.desk.edits.push(Edit { start, end, text });
    }

    /// Cuts a member or element with one separator: the one before it, or, if all before it have gone, the one behind.
    fn cut(&mut self, event: &Event, removed: u32) {
        let (start, end) = if event.index == removed { (event.from + 1, event.sep + 1) } else { (event.from, child_span(event).1) };
        self.desk.edits.push(Edit { start, end, text: (0, 0) });
    }

    /// Puts FHIR's mark of a masked value where a required element has gone: `"_x":{…}` for a primitive, `{…}` for the others.
    fn mask(&mut self, event: &Event, member: Option<&Member>) {
        self.report.removed += 1;
        let (start, end) = child_span(event);
        let Some(member) = member else { return };
        let primitive = member.form != crate::rules::automaton::Form::Object;
        let masked = if member.many { format!("[{MASKED}]") } else { MASKED.to_owned() };
        if !primitive {
            return self.replace((start, end), masked.as_bytes());
        }
        let name = self.input[event.from as usize + 1..].iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(0) as u32;
        let text = format!(r#""_{}":{masked}"#, member.name);
        self.replace((event.from + 1 + name, end), text.as_bytes());
    }
}

/// The span of a value with its quotes.
fn child_span(event: &Event) -> (u32, u32) {
    match event.kind {
        EventKind::Text => (event.start - 1, event.end + 1),
        _ => (event.start, event.end),
    }
}

/// Members that are nothing by themselves (ele-1, ext-1 of the specification).
fn is_frame(shape: &Shape, member: &Member) -> bool {
    !member.twin && (member.name == "id" || member.name == "url" && shape.name == "Extension")
}

/// A token of free text: of its decoded value, or of its spelling where that is not canonical, so that it comes back byte for byte.
fn free_text(keys: &ClassKeys, spelling: &str, value: &str, padded: bool, out: &mut String) -> Result<bool, Code> {
    let raw_spelling = !text::is_canonical(spelling, value);
    let phi = Phi::new(if raw_spelling { spelling } else { value });
    keys.pseudonymize(&phi, Form { padded, raw_spelling }, out).map_err(|_| Code::ResourceTooLarge)?;
    Ok(true)
}

const _: () = assert!(limits::RESOURCE_BYTES_MAX <= u32::MAX as usize, "positions in a unit are 32 bits");
