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
use super::form::is_formed;
use super::json::{Direction, Event, EventKind, Scanner, UNKNOWN_EDGE};
use super::memo::{self, Memo};
use super::reference::Subject;
use super::refusal::{Code, Refusal};
use super::report::Report;
use super::seal::{self, Offsets, Seal};
use super::spare::emptied;
use super::text;
use crate::fhir;
use crate::limits;
use crate::names::Class;
use crate::policy::Permit;
use crate::rules::automaton::{
    Automaton, CHECKED_LATE, Leaf, MODIFIER, Member, NO_SWITCH, Node, REMOVED_WHOLE, SUBJECT, Shape, StateId,
};
use crate::rules::cell::{self, FRAME, GONE, KEPT, Kind, REQUIRED};
use crate::rules::{Action, Role};
use crate::secret::Phi;
use crate::token::{Form, Mac, Rewrapped};
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
    /// The key of hashes that hold in this stream's document, run or exchange only.
    pub(super) document: Option<Mac>,
    /// For whom links are made that callers outside may follow.
    pub(super) caller: String,
    /// The last subject's offsets, as far as they were drawn.
    pub(super) drawn: (String, Offsets),
    /// The seal read last, and the code that it was read from.
    read: Option<(String, Seal)>,
    /// Values revealed by class, not yet in a report: a handful of classes, met again and again.
    revealed: Vec<(Class, u64)>,
}

impl Desk {
    /// A new desk in the emptied buffers of this one.
    pub(super) fn emptied(self) -> Desk {
        Desk {
            edits: emptied(self.edits),
            arena: emptied(self.arena),
            word: String::from_utf8(emptied(self.word.into_bytes())).unwrap_or_default(),
            memo: self.memo.emptied(),
            ..Desk::default()
        }
    }

    /// Moves what was counted here into a report.
    pub fn settle(&mut self, report: &mut Report) {
        for (class, count) in self.revealed.drain(..) {
            *report.reveals.entry(class).or_default() += count;
        }
    }

    /// Counts what a remembered text reveals once more.
    pub(super) fn reveal_again(&mut self, kind: u32, text: &str) {
        let memo = std::mem::take(&mut self.memo);
        for class in memo.get(kind, text).into_iter().flat_map(|known| &known.revealed) {
            self.reveals(class);
        }
        self.memo = memo;
    }

    pub(super) fn reveals(&mut self, class: &Class) {
        match self.revealed.iter_mut().find(|(known, _)| known == class) {
            Some((_, count)) => *count += 1,
            None => self.revealed.push((class.clone(), 1)),
        }
    }
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
    facts: &'u [u32],
    pub(super) direction: Direction,
    pub(super) permit: Option<&'u Permit>,
    pub(super) desk: &'u mut Desk,
    pub(super) report: &'u mut Report,
    /// Whether some Coding of the unit may be a seal.
    sealed: bool,
    /// The type of the resource around.
    pub(super) type_name: &'static str,
    /// The object around.
    around: u32,
}

impl<'u> Decider<'u> {
    /// A decider over the scanned unit `input[start..end]`. A unit that is not UTF-8 has none, and the error is where.
    pub fn new(
        engine: &'u Engine,
        input: &'u [u8],
        (start, end): (usize, usize),
        scanned: &'u Scanner,
        direction: Direction,
        permit: Option<&'u Permit>,
        desk: &'u mut Desk,
        report: &'u mut Report,
    ) -> Result<Self, usize> {
        desk.edits.clear();
        desk.arena.clear();
        let automaton = &engine.rules.automaton;
        let unit = std::str::from_utf8(&input[start..end]).map_err(|e| start + e.valid_up_to())?;
        let (events, facts) = (&scanned.events[..], &scanned.facts[..]);
        let role = |&fact: &u32| automaton.leaf(events[fact as usize].state).map(|l| l.role);
        Ok(Decider {
            engine,
            automaton,
            input,
            unit,
            base: start,
            events,
            facts,
            direction,
            permit,
            desk,
            report,
            sealed: facts.iter().any(|fact| role(fact) == Some(Role::CodingSystem)),
            type_name: "Bundle", // a member of a streamed Bundle: the one resource whose members are units of their own
            around: 0,
        })
    }

    /// Decides the unit and appends it, rewritten, to `output`. `false`: the unit as a whole goes, and nothing was
    /// appended. On a refusal nothing was appended either. `place` names where the unit stands, if it must be named.
    pub fn write(mut self, place: impl FnOnce() -> String, output: &mut Vec<u8>) -> Result<bool, Refusal> {
        if let Some(first) = self.events.first() {
            let mut fragment = Resource { event: u32::MAX, ..Resource::default() };
            let fate = match self.element(0, first.state, 0, &mut fragment, false, None) {
                Ok(fate) => fate,
                Err(no) => return Err(self.refusal(no, place())),
            };
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

    #[inline]
    pub(super) fn out(&self) -> bool {
        self.direction == Direction::Out
    }

    /// Whether this is a request of a caller outside: whatever in it is not clear is refused, as in everything that goes out.
    #[inline]
    pub(super) fn asked(&self) -> bool {
        self.engine.calls_in && !self.out()
    }

    // === elements ===

    /// The fate of one event in exact state `state`; `flags` are those of its cell. `bound`: every enclosing element up to the resource
    /// is required.
    #[inline]
    fn element(
        &mut self,
        at: u32,
        state: StateId,
        flags: u16,
        resource: &mut Resource,
        bound: bool,
        full_url: Option<u32>,
    ) -> Decided<Fate> {
        let event = &self.events[at as usize];
        match event.kind {
            EventKind::Text | EventKind::Scalar => {
                let late = self.automaton.states[event.state as usize].flags & CHECKED_LATE != 0;
                if flags & (KEPT | GONE) != 0 && !late {
                    return Ok(self.settled(flags));
                }
                match self.automaton.leaf(state) {
                    Some(&leaf) => {
                        if late && self.out() && leaf.action == Action::Keep {
                            self.formed(at, &leaf)?;
                        }
                        self.leaf(at, leaf, resource)
                    }
                    None => Ok(Fate::Stays), // a slot's or object's place held text: only coming back, where it stays
                }
            }
            EventKind::Object => self.object(at, if event.exact { event.state } else { state }, resource, bound),
            EventKind::Array => self.array(at, state, flags, resource, bound, full_url),
            EventKind::Resource => self.resource(at, event.state, resource, full_url),
            EventKind::Unknown => {
                self.report.removed += 1;
                Ok(Fate::Goes)
            }
            EventKind::PassedObject | EventKind::PassedArray | EventKind::Cut => {
                self.passed(at, resource).map(|()| Fate::Stays)
            }
        }
    }

    /// The fate of a leaf that is kept or removed whatever it says.
    #[inline]
    fn settled(&mut self, flags: u16) -> Fate {
        if self.out() && flags & GONE != 0 {
            self.report.removed += 1;
            return Fate::Goes;
        }
        Fate::Stays
    }

    /// A value that crosses in clear only since a sibling says so has the form of its type, like all others that do.
    fn formed(&self, at: u32, leaf: &Leaf) -> Decided<()> {
        let (event, spelling) = (&self.events[at as usize], self.spelling(at)?);
        match is_formed(self.automaton, leaf.check, spelling.as_bytes(), event.escaped) {
            true => Ok(()),
            false => Err(No(Code::BadValue, at)),
        }
    }

    /// What stands in something that was passed: it stays, or was found to go.
    #[inline]
    fn passed(&mut self, at: u32, resource: &mut Resource) -> Decided<()> {
        let event = &self.events[at as usize];
        match event.kind {
            EventKind::PassedObject | EventKind::PassedArray => return Ok(()),
            EventKind::Cut => {
                self.report.removed += 1;
                self.desk.edits.push(Edit { start: event.start, end: event.end, text: (0, 0) });
                return Ok(());
            }
            _ => {}
        }
        let fate = self.element(at, event.state, 0, resource, false, None)?;
        debug_assert!(fate == Fate::Stays, "only what is sure to stay is passed");
        Ok(())
    }

    fn array(
        &mut self,
        at: u32,
        state: StateId,
        flags: u16,
        resource: &mut Resource,
        bound: bool,
        full_url: Option<u32>,
    ) -> Decided<Fate> {
        let events = self.events;
        let event = &events[at as usize];
        let its = &self.automaton.states[state as usize];
        if self.out() && its.flags & REMOVED_WHOLE != 0 {
            self.report.removed += 1;
            return Ok(Fate::Goes);
        }
        // Elements of primitives and of their twins stand in step with each other: a removed one leaves `null`.
        let in_step = match its.node {
            Node::Leaf(_) => true,
            Node::Object { shape, .. } => self.automaton.shapes[shape as usize].kind == Kind::Twin,
            Node::Slot { .. } => false,
        };
        let mark = self.desk.edits.len();
        let mut removed = 0;
        let mut next = at + 1;
        while next < event.link {
            let child = &events[next as usize];
            if child.depth != event.depth + 1 || child.kind.is_passed() {
                self.passed(next, resource)?;
                next = child.link;
                continue;
            }
            if self.element(next, state, flags, resource, bound && event.members == 1, full_url)? == Fate::Goes {
                if in_step {
                    self.replace(child_span(child), b"null");
                } else {
                    self.cut(child, removed);
                }
                removed += 1;
            }
            next = child.link;
        }
        if removed > 0 && removed + event.hollow == event.members {
            self.desk.edits.truncate(mark);
            return Ok(Fate::Goes);
        }
        Ok(Fate::Stays)
    }

    fn object(&mut self, at: u32, state: StateId, resource: &mut Resource, bound: bool) -> Decided<Fate> {
        let state = self.decided(at, state)?;
        let its = &self.automaton.states[state as usize];
        if self.out() {
            if its.flags & MODIFIER != 0 {
                return Err(No(Code::ModifierExtension, at));
            }
            if its.flags & REMOVED_WHOLE != 0 {
                self.report.removed += 1;
                return Ok(Fate::Goes);
            }
        }
        self.members(at, state, resource, bound)
    }

    /// The members of an object in its decided state: their fates, and by them its own.
    fn members(&mut self, at: u32, state: StateId, resource: &mut Resource, bound: bool) -> Decided<Fate> {
        let events = self.events;
        let event = &events[at as usize];
        let automaton = self.automaton;
        let out = self.out();
        let its = &automaton.states[state as usize];
        let Node::Object { shape, row } = its.node else { return Ok(Fate::Stays) };
        if out && its.flags & REMOVED_WHOLE != 0 {
            self.report.removed += 1;
            return Ok(Fate::Goes);
        }
        let shape = &automaton.shapes[shape as usize];
        let mut full_url = None;
        match shape.kind {
            Kind::Plain | Kind::Twin | Kind::Resource => {}
            Kind::Coding if self.sealed && self.is_seal(at) => return self.seal_coding(at, resource),
            Kind::Coding => {}
            Kind::Entry => full_url = self.member(at, shape, b"fullUrl"),
            Kind::Request => self.updates(at, shape)?,
        }
        let outer = std::mem::replace(&mut self.around, at);
        let mark = self.desk.edits.len();
        // Coming back only what was added goes, whatever is left.
        let (mut removed, mut hollow) = (0, if out { event.hollow } else { 0 });
        let mut next = at + 1;
        while next < event.link {
            let child = &events[next as usize];
            if child.depth != event.depth + 1 || child.kind.is_passed() {
                self.passed(next, resource)?;
                next = child.link;
                continue;
            }
            let cell = if child.edge == UNKNOWN_EDGE { cell::Cell::default() } else { automaton.cell(row, child.edge) };
            let fate = if shape.kind == Kind::Request && is_condition(shape, child) {
                self.condition(next, cell.state, at, shape, resource)?
            } else {
                let bound = bound && cell.flags & REQUIRED != 0;
                self.element(next, cell.state, cell.flags, resource, bound, full_url)?
            };
            if fate == Fate::Goes && out && cell.flags & FRAME != 0 {
                hollow -= 1;
            }
            match fate {
                Fate::Stays => {}
                Fate::Goes if cell.flags & REQUIRED == 0 => {
                    self.cut(child, removed);
                    removed += 1;
                }
                Fate::Goes if bound => self.mask(child, shape.members.get(child.edge as usize)),
                Fate::Goes if out => {
                    self.desk.edits.truncate(mark);
                    self.around = outer;
                    return Ok(Fate::Goes);
                }
                Fate::Goes => {
                    self.cut(child, removed);
                    removed += 1;
                }
            }
            next = child.link;
        }
        self.around = outer;
        // What is left may be only a frame: an Extension with nothing but its url, an element with nothing but its id.
        if removed > 0 && event.members - removed <= hollow && event.kind == EventKind::Object {
            self.desk.edits.truncate(mark);
            return Ok(Fate::Goes);
        }
        Ok(Fate::Stays)
    }

    /// Refuses an update in a batch or transaction where the route does.
    fn updates(&self, at: u32, shape: &Shape) -> Decided<()> {
        let request = self.out() != self.engine.calls_in;
        if !request || !self.engine.refuse_updates {
            return Ok(());
        }
        let method = self.member(at, shape, b"method").map(|m| self.text(m)).transpose()?;
        if matches!(method.as_deref(), Some("PUT" | "PATCH")) {
            return Err(No(Code::LossyUpdate, at));
        }
        Ok(())
    }

    /// Takes the switch of an object, if it has one: the variant in which its rules are decided.
    fn decided(&mut self, at: u32, state: StateId) -> Decided<StateId> {
        let automaton = self.automaton;
        let switch = automaton.states[state as usize].switch;
        if switch == NO_SWITCH {
            return Ok(state);
        }
        let switch = &automaton.switches[switch as usize];
        let mut number = 0;
        for test in &switch.tests {
            let value = self.child(at, test.edge).map(|leaf| self.text(leaf)).transpose()?;
            number = number * test.outcomes() + test.outcome(value.as_deref().map(str::as_bytes));
        }
        Ok(switch.variants[number])
    }

    // === resources and seals ===

    fn resource(&mut self, at: u32, state: StateId, container: &mut Resource, full_url: Option<u32>) -> Decided<Fate> {
        let automaton = self.automaton;
        let Node::Object { shape, .. } = automaton.states[state as usize].node else { return Ok(Fate::Stays) };
        let name = automaton.shapes[shape as usize].name;
        let outer = std::mem::replace(&mut self.type_name, name);
        let fate = if full_url.is_none() && automaton.root(name, true) == Some(state) {
            self.members(at, state, container, true) // contained: the container's subject and seal
        } else {
            self.root(at, state, shape, full_url)
        };
        self.type_name = outer;
        fate
    }

    /// A resource that stands on its own.
    fn root(&mut self, at: u32, state: StateId, shape: u16, full_url: Option<u32>) -> Decided<Fate> {
        let name = self.type_name;
        if self.asked() && name == "Subscription" {
            return Err(No(Code::OperationRefused, at)); // its answers would go where nobody rewrites them
        }
        let mark = self.desk.edits.len();
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
            self.seal(at, shape, mark, &resource)?;
        }
        if resource.unsealed {
            self.report.unsealed += 1;
        }
        if resource.revealed
            && let Some(who) = resource.subject.or(resource.own)
        {
            self.names(&who);
        }
        self.report.resources += 1;
        Ok(Fate::Stays)
    }

    /// Notes the audit's name for a subject of whom something was revealed.
    fn names(&mut self, who: &str) {
        let Desk { memo, .. } = &mut *self.desk;
        if let Some(known) = memo.get(memo::HANDLE, who) {
            if !self.report.subjects.contains(&known.word) {
                self.report.subjects.insert(known.word.clone());
            }
            return;
        }
        let word = self.engine.keys.handle(who);
        if let Some(known) = memo.put(memo::HANDLE, who) {
            known.word.push_str(&word);
        }
        self.report.subjects.insert(word);
    }

    /// What must be known of a resource before its first date: whom it is about, and the seals that it bears.
    fn facts(&mut self, at: u32, name: &str, full_url: Option<u32>, resource: &mut Resource) -> Decided<()> {
        let link = self.events[at as usize].link;
        let mut subjects: Vec<String> = Vec::new();
        let mut several = false;
        let mut seals = Vec::new();
        let mut id = None;
        let mut past = at + 1;
        let first = self.facts.partition_point(|&fact| fact <= at);
        for &next in self.facts[first..].iter().take_while(|&&fact| fact < link) {
            if next < past {
                continue; // of a resource in this one
            }
            let event = &self.events[next as usize];
            if event.kind == EventKind::Resource {
                self.contained(next, resource)?;
                past = event.link;
            } else {
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
        }
        if name != "Patient" && subjects.len() == 1 && !several {
            resource.subject = subjects.pop();
            if !self.out() {
                return self.choose_seal(&seals, resource); // its own key is for those that have no subject
            }
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
        }
        // With its type: one's own `Location/1` must not give away the offset of `Patient/1`.
        resource.own = trusted_id.or(trusted_url).map(|id| format!("{name}/{id}"));
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
        if let Subject::Patient(key) = &subject
            && let Some(known) = self.desk.memo.put(memo::SUBJECT, spelling)
        {
            known.word.push_str(key);
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
            let code = self.text(code)?;
            valid.extend(self.read_seal(&code));
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
        } else if self.asked()
            && let Some(&seal) = seals.first()
        {
            return Err(No(Code::Unresolved, seal)); // shifted dates would be taken for true ones
        }
        Ok(())
    }

    /// What a seal says. One patient's resources of a stream share one seal.
    fn read_seal(&mut self, code: &str) -> Option<Seal> {
        if self.desk.read.as_ref().is_none_or(|(known, _)| known != code) {
            self.desk.read = Seal::read(self.engine, code).map(|seal| (code.to_owned(), seal));
        }
        self.desk.read.as_ref().map(|(_, seal)| seal.clone())
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
        if self.engine.rewraps {
            self.rewrap_seal(at)?;
            return Ok(Fate::Stays);
        }
        // In a Bundle's own members a seal says nothing: none is ever written there.
        if resource.event == u32::MAX || !self.engine.allows(self.permit, self.engine.seals.class()) {
            self.report.stayed += 1;
            return Ok(Fate::Stays);
        }
        self.reveals(self.engine.seals.class(), resource);
        Ok(Fate::Goes)
    }

    /// A seal under the epoch that is written with: what it says stays, and so do the dates.
    fn rewrap_seal(&mut self, at: u32) -> Decided<()> {
        let Node::Object { shape, .. } = self.automaton.states[self.events[at as usize].state as usize].node else {
            return Ok(());
        };
        let Some(code) = self.member(at, &self.automaton.shapes[shape as usize], b"code") else { return Ok(()) };
        let mut token = String::new();
        match self.engine.seals.rewrap(&self.text(code)?, &mut token) {
            Rewrapped::Moved => {
                self.report.tokens += 1;
                self.write_text(code, &token);
            }
            Rewrapped::LookAlike => self.report.stayed += 1,
            Rewrapped::Current | Rewrapped::Foreign => {}
        }
        Ok(())
    }

    /// Writes the seal last in its parent: into `meta.tag`, with `tag` and `meta` where they are absent or have gone. `mark`: the first
    /// edit of the resource.
    fn seal(&mut self, at: u32, shape: u16, mark: usize, resource: &Resource) -> Decided<()> {
        let end = |event: u32| self.events[event as usize].end - 1;
        let within = |event: u32, name: &[u8]| {
            let Node::Object { shape, .. } = self.automaton.states[self.events[event as usize].state as usize].node
            else {
                return Err(No(Code::WrongForm, event));
            };
            let member = self.member(event, &self.automaton.shapes[shape as usize], name);
            Ok(member.filter(|&m| self.survives(m, mark)))
        };
        let meta = self.member(at, &self.automaton.shapes[shape as usize], b"meta").filter(|&m| self.survives(m, mark));
        let (place, before, behind): (u32, &[u8], &[u8]) = match meta {
            None => (end(at), br#","meta":{"tag":["#, b"]}"),
            Some(meta) => match within(meta, b"tag")? {
                None => (end(meta), br#","tag":["#, b"]"),
                Some(tag) => (end(tag), b",", b""),
            },
        };
        let from = self.desk.arena.len() as u32;
        self.desk.arena.extend_from_slice(before);
        self.coding(at, resource)?;
        self.desk.arena.extend_from_slice(behind);
        let edit = Edit { start: place, end: place, text: (from, self.desk.arena.len() as u32) };
        let index = mark + self.desk.edits[mark..].partition_point(|e| e.start < place);
        self.desk.edits.insert(index, edit);
        Ok(())
    }

    /// Appends the coding of a resource's seal to the arena.
    fn coding(&mut self, at: u32, resource: &Resource) -> Decided<()> {
        let subject = resource.subject.as_deref().filter(|_| !resource.used_own).unwrap_or_default();
        let Desk { memo, arena, word: text, .. } = &mut *self.desk;
        // Its text is public; the memory is keyed by it. One patient's resources of a stream share one seal.
        text.clear();
        seal::write(self.engine, &resource.offsets, subject, text);
        if let Some(known) = memo.get(memo::SEAL, text) {
            arena.extend_from_slice(known.word.as_bytes());
            return Ok(());
        }
        let mut word = String::with_capacity(256);
        word.extend([r#"{"system":""#, seal::SYSTEM, r#"","code":""#]);
        // Padded: its length would tell how long the offset is written.
        let form = Form { padded: true, raw_spelling: false };
        let done = self.engine.seals.pseudonymize(&Phi::new(&**text), form, &mut word);
        done.map_err(|_| No(Code::ResourceTooLarge, at))?;
        word.push_str("\"}");
        arena.extend_from_slice(word.as_bytes());
        if let Some(known) = memo.put(memo::SEAL, text) {
            known.word.push_str(&word);
        }
        Ok(())
    }

    /// Whether no cut since `mark` covers this event.
    fn survives(&self, at: u32, mark: usize) -> bool {
        let event = &self.events[at as usize];
        !self.desk.edits[mark..].iter().any(|e| e.start <= event.start && e.end >= event.end && e.end > e.start)
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
            // What the scanner saw no backslash in says what it spells.
            return Ok(Cow::Borrowed(spelling));
        }
        text::decode(spelling).ok_or(No(Code::BadText, at))
    }

    /// The event of a direct member, unless it was passed.
    fn child(&self, at: u32, edge: u16) -> Option<u32> {
        let (link, depth) = (self.events[at as usize].link, self.events[at as usize].depth + 1);
        let mut next = at + 1;
        while next < link {
            let event = &self.events[next as usize];
            if event.edge == edge && event.depth == depth && event.kind != EventKind::Unknown && !event.kind.is_passed()
            {
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
    pub(super) fn parent(&self, at: u32) -> Option<u32> {
        (0..at).rev().find(|&i| {
            let event = &self.events[i as usize];
            event.link > at && matches!(event.kind, EventKind::Object | EventKind::Resource)
        })
    }

    /// The HTTP method of the `Bundle.entry.request` in which the url at `at` stands.
    pub(super) fn method(&self, at: u32) -> Decided<Cow<'u, str>> {
        let Node::Object { shape, .. } = self.automaton.states[self.events[self.around as usize].state as usize].node
        else {
            return Err(No(Code::BadRequestEntry, at));
        };
        match self.member(self.around, &self.automaton.shapes[shape as usize], b"method") {
            Some(method) => self.text(method),
            None => Err(No(Code::BadRequestEntry, at)),
        }
    }

    /// Where a decision failed, in schema names and indexes.
    #[cold]
    fn refusal(&self, No(code, at): No, place: String) -> Refusal {
        let mut path = place;
        let last = &self.events[at as usize];
        let around = |event: &&Event| event.start <= last.start && event.end >= last.end;
        let mut outer: Option<&Event> = None;
        for event in self.events[..=at as usize].iter().filter(around) {
            match outer.map(|outer| (outer.kind, self.automaton.states[outer.state as usize].node)) {
                Some((EventKind::Array | EventKind::PassedArray, _)) => path.push_str(&format!("[{}]", event.index)),
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
            outer = Some(event);
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
    #[inline]
    fn cut(&mut self, event: &Event, removed: u32) {
        let end = child_span(event).1;
        let (start, end) = if event.index == removed { (event.from + 1, self.behind(end)) } else { (event.from, end) };
        self.desk.edits.push(Edit { start, end, text: (0, 0) });
    }

    /// Behind the separator that follows a value.
    #[inline]
    fn behind(&self, end: u32) -> u32 {
        let blanks = self.input[end as usize..].iter().take_while(|b| b.is_ascii_whitespace()).count();
        end + blanks as u32 + 1
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

/// `Bundle.entry.request.ifNoneExist`.
fn is_condition(request: &Shape, child: &Event) -> bool {
    request.members.get(child.edge as usize).is_some_and(|m| m.name == "ifNoneExist")
}

const _: () = assert!(limits::RESOURCE_BYTES_MAX <= u32::MAX as usize, "positions in a unit are 32 bits");
