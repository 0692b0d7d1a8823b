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
use super::memo::{self, Memo, Remembered};
use super::reference::Subject;
use super::refusal::{Code, Refusal};
use super::report::Report;
use super::seal::{self, Offsets, Seal};
use super::text;
use crate::fhir;
use crate::limits;
use crate::policy::Permit;
use crate::rules::Role;
use crate::rules::automaton::{Automaton, MODIFIER, Member, NO_SWITCH, Node, REMOVED_WHOLE, SUBJECT, Shape, StateId};
use crate::secret::Phi;
use crate::token::Form;
use std::borrow::Cow;

/// FHIR's own way to say that a value exists and is not shown (data-absent-reason, code system of the same name).
const MASKED: &str =
    r#"{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"masked"}]}"#;

/// A range of the input that is replaced by a range of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edit {
    start: u32,
    end: u32,
    text: (u32, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    Goes,
}

/// Why a place cannot be decided; its event tells where.
pub(super) struct No(pub(super) Code, pub(super) u32);

pub(super) type Decided<T> = Result<T, No>;

/// The buffers of a decider, reused from unit to unit.
#[derive(Debug, Default)]
pub struct Desk {
    edits: Vec<Edit>,
    pub(super) arena: Vec<u8>,
    pub(super) word: String,
    pub(super) memo: Memo,
    /// The last subject's offsets, as far as they were drawn.
    pub(super) drawn: (String, Offsets),
}

/// How dates move in the resource being decided.
#[derive(Debug, Default)]
pub(super) struct Resource {
    /// Event of the resource.
    pub(super) event: u32,
    /// Its subject's key, if exactly one.
    pub(super) subject: Option<String>,
    /// Its key for an offset of its own.
    pub(super) own: Option<String>,
    /// Going out: offsets used. Coming back: offsets of its valid seal.
    pub(super) offsets: Offsets,
    /// Going out: at least one date was moved by an offset of its own.
    pub(super) used_own: bool,
    /// Coming back: some date here would have to be unshifted and cannot be.
    pub(super) unsealed: bool,
    /// Ids of contained definitional resources: they stay, and so do references to them.
    pub(super) kept_contained: Vec<String>,
    /// Whether something was revealed.
    pub(super) revealed: bool,
}

/// One unit being decided.
pub struct Decider<'u> {
    pub(super) engine: &'u Engine,
    pub(super) automaton: &'u Automaton,
    pub(super) input: &'u [u8],
    /// The unit as text, and where it begins in `input`.
    pub(super) unit: &'u str,
    base: usize,
    pub(super) events: &'u [Event],
    pub(super) direction: Direction,
    pub(super) permit: Option<&'u Permit>,
    pub(super) desk: &'u mut Desk,
    pub(super) report: &'u mut Report,
}

impl<'u> Decider<'u> {
    /// A decider over the scanned unit `input[start..end]`.
    pub fn new(
        engine: &'u Engine,
        input: &'u [u8],
        (start, end): (usize, usize),
        events: &'u [Event],
        direction: Direction,
        permit: Option<&'u Permit>,
        desk: &'u mut Desk,
        report: &'u mut Report,
    ) -> Self {
        desk.edits.clear();
        desk.arena.clear();
        let automaton = &engine.rules.automaton;
        // The scanner has checked it; the separators before a unit are ASCII.
        let unit = std::str::from_utf8(&input[start..end]).unwrap_or_default();
        Decider { engine, automaton, input, unit, base: start, events, direction, permit, desk, report }
    }

    /// Decides the unit and appends it, rewritten, to `output`. `false`: the unit as a whole goes, and nothing was
    /// appended. On a refusal nothing was appended either.
    pub fn write(mut self, prefix: &str, output: &mut Vec<u8>) -> Result<bool, Refusal> {
        if !self.events.is_empty() {
            let state = self.events[0].state;
            let mut fragment = Resource { event: u32::MAX, ..Resource::default() };
            let fate = self.element(0, state, &mut fragment, false, None).map_err(|no| self.refusal(no, prefix))?;
            if fate == Fate::Goes {
                return Ok(false);
            }
        }
        let mut copied = self.base;
        for edit in &self.desk.edits {
            output.extend_from_slice(&self.input[copied..edit.start as usize]);
            output.extend_from_slice(&self.desk.arena[edit.text.0 as usize..edit.text.1 as usize]);
            copied = edit.end as usize;
        }
        output.extend_from_slice(&self.input[copied..self.base + self.unit.len()]);
        Ok(true)
    }

    pub(super) fn out(&self) -> bool {
        self.direction == Direction::Out
    }

    // === elements ===

    /// The fate of one event in exact state `state`. `bound`: every enclosing element up to the resource is required.
    fn element(
        &mut self,
        at: u32,
        state: StateId,
        resource: &mut Resource,
        bound: bool,
        full_url: Option<u32>,
    ) -> Decided<Fate> {
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
                Some(&leaf) => self.leaf(at, leaf, resource),
                None => Ok(Fate::Stays), // a slot's or object's place held text: only coming back, where it stays
            },
        }
    }

    fn array(
        &mut self,
        at: u32,
        state: StateId,
        resource: &mut Resource,
        bound: bool,
        full_url: Option<u32>,
    ) -> Decided<Fate> {
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
        if self.out() && self.engine.refuse_updates && shape.name == "Bundle.entry.request" {
            let method = self.member(at, shape, b"method").map(|m| self.text(m)).transpose()?;
            if matches!(method.as_deref(), Some("PUT" | "PATCH")) {
                return Err(No(Code::LossyUpdate, at));
            }
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
                Some(m) if m.name == "ifNoneExist" && shape.name == "Bundle.entry.request" => {
                    self.condition(next, target, at, shape, resource)?
                }
                _ => self.element(next, target, resource, bound && required, full_url)?,
            };
            match fate {
                Fate::Stays => frames += u32::from(self.out() && member.is_some_and(|m| is_frame(shape, m))),
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
        if name == "Bundle" {
            // A Bundle is streamed when it says first what it is, and then has no place for a seal of its own. Held, it must come to
            // the same.
            resource.event = u32::MAX;
            (resource.subject, resource.own, resource.offsets) = (None, None, Offsets::default());
        }
        let state = self.decided(at, state)?;
        self.members(at, state, &mut resource, true)?;
        if self.out() && resource.event != u32::MAX && resource.offsets.iter().any(Option::is_some) {
            self.seal(at, shape, &resource)?;
        }
        if resource.unsealed {
            self.report.unsealed += 1;
        }
        if resource.revealed
            && let Some(who) = resource.subject.or(resource.own)
        {
            let handle = self.handle(&who);
            self.report.subjects.insert(handle);
        }
        self.report.resources += 1;
        Ok(Fate::Stays)
    }

    /// The audit's name for a subject.
    fn handle(&mut self, who: &str) -> String {
        if let Some(known) = self.desk.memo.get(memo::HANDLE, who) {
            return known.word.clone();
        }
        let word = self.engine.keys.handle(who);
        self.desk.memo.put(memo::HANDLE, who, Remembered { word: word.clone(), ..Remembered::default() });
        word
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
                        Subject::Patient(key) if !subjects.contains(&key) => subjects.push(key),
                        Subject::Patient(_) | Subject::Other => {}
                        Subject::Unknown => several = true, // perhaps another patient: not exactly one
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

    /// Whom the reference in a subject's place names.
    fn subject(&mut self, at: u32) -> Decided<Subject> {
        let spelling = self.spelling(at)?;
        if let Some(known) = self.desk.memo.get(memo::SUBJECT, spelling) {
            return Ok(Subject::Patient(known.word.clone()));
        }
        let subject = self.engine.subject_key(&self.text(at)?, self.direction);
        if let Subject::Patient(key) = &subject {
            let known = Remembered { word: key.clone(), changed: true, ..Remembered::default() };
            self.desk.memo.put(memo::SUBJECT, spelling, known);
        }
        Ok(subject)
    }

    /// Of several seals the one of the resource's subject counts, else none; a single one counts as it is.
    fn choose_seal(&mut self, seals: &[u32], resource: &mut Resource) -> Decided<()> {
        let mut valid = Vec::new();
        for &system in seals {
            let Some(coding) = self.parent(system) else { continue };
            let Node::Object { shape, .. } = self.automaton.states[self.events[coding as usize].state as usize].node
            else {
                continue;
            };
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
        let Node::Object { shape, .. } = self.automaton.states[self.events[at as usize].state as usize].node else {
            return false;
        };
        let shape = &self.automaton.shapes[shape as usize];
        let Some(system) = self.member(at, shape, b"system") else { return false };
        matches!(self.text(system), Ok(text) if text == seal::SYSTEM)
    }

    /// A seal coming back: taken off for callers who may unshift, left for the others.
    fn seal_coding(&mut self, at: u32, resource: &mut Resource) -> Decided<Fate> {
        if self.out() {
            return Err(No(Code::Sealed, at));
        }
        // In a Bundle's own members a seal says nothing: none is ever written there.
        if resource.event == u32::MAX || !self.engine.allows(self.permit, self.engine.seals.class()) {
            self.report.stayed += 1;
            return Ok(Fate::Stays);
        }
        self.reveals(self.engine.seals.class(), resource);
        Ok(Fate::Goes)
    }

    /// Writes the seal last in its parent: into `meta.tag`, with `tag` and `meta` where they are absent or have gone.
    fn seal(&mut self, at: u32, shape: u16, resource: &Resource) -> Decided<()> {
        let seal = Seal {
            offsets: resource.offsets,
            subject: if resource.used_own { String::new() } else { resource.subject.clone().unwrap_or_default() },
        };
        // Its text is public; the memory is keyed by it. One patient's resources of a stream share one seal.
        let text = seal.text(self.engine);
        let coding = match self.desk.memo.get(memo::SEAL, &text) {
            Some(known) => known.word.clone(),
            None => {
                let mut word = format!(r#"{{"system":"{}","code":""#, seal::SYSTEM);
                // Padded: its length would tell how long the offset is written.
                let form = Form { padded: true, raw_spelling: false };
                self.engine
                    .seals
                    .pseudonymize(&Phi::new(&*text), form, &mut word)
                    .map_err(|_| No(Code::ResourceTooLarge, at))?;
                word.push_str("\"}");
                self.desk.memo.put(memo::SEAL, &text, Remembered { word: word.clone(), ..Remembered::default() });
                word
            }
        };
        let shape = &self.automaton.shapes[shape as usize];
        let meta = self.member(at, shape, b"meta").filter(|&m| self.survives(m));
        let (place, text) = match meta {
            None => (self.events[at as usize].end - 1, format!(r#","meta":{{"tag":[{coding}]}}"#)),
            Some(meta) => {
                let Node::Object { shape, .. } = self.automaton.states[self.events[meta as usize].state as usize].node
                else {
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

    // === looking around ===

    /// What stands between the quotes.
    pub(super) fn spelling(&self, at: u32) -> Decided<&'u str> {
        let event = self.events[at as usize];
        self.unit.get(event.start as usize - self.base..event.end as usize - self.base).ok_or(No(Code::BadUtf8, at))
    }

    /// The decoded text of a leaf.
    pub(super) fn text(&self, at: u32) -> Decided<Cow<'u, str>> {
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

    pub(super) fn member(&self, at: u32, shape: &Shape, name: &[u8]) -> Option<u32> {
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
    pub(super) fn method(&self, at: u32) -> Decided<Cow<'u, str>> {
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
    pub(super) fn resource_name(&self, at: u32) -> &'static str {
        let around = (0..at)
            .rev()
            .find(|&i| self.events[i as usize].link > at && self.events[i as usize].kind == EventKind::Resource);
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
            match parent.map(|p| {
                (self.events[p as usize].kind, self.automaton.states[self.events[p as usize].state as usize].node)
            }) {
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

    /// Replaces a leaf's text by what was appended to the arena from `from` on.
    pub(super) fn written(&mut self, at: u32, from: usize) {
        let event = self.events[at as usize];
        let text = (from as u32, self.desk.arena.len() as u32);
        self.desk.edits.push(Edit { start: event.start, end: event.end, text });
    }

    pub(super) fn write_text(&mut self, at: u32, word: &str) {
        let from = self.desk.arena.len();
        text::encode(word, &mut self.desk.arena);
        self.written(at, from);
    }

    fn replace(&mut self, (start, end): (u32, u32), bytes: &[u8]) {
        let text = self.store(bytes);
        self.desk.edits.push(Edit { start, end, text });
    }

    /// Cuts a member or element with one separator: the one before it, or, if all before it have gone, the one behind.
    fn cut(&mut self, event: &Event, removed: u32) {
        let (start, end) =
            if event.index == removed { (event.from + 1, event.sep + 1) } else { (event.from, child_span(event).1) };
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
        let name =
            self.input[event.from as usize + 1..].iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(0) as u32;
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

const _: () = assert!(limits::RESOURCE_BYTES_MAX <= u32::MAX as usize, "positions in a unit are 32 bits");
