//! The automaton that the scanner walks: one state per place of the schema and per set of rules still in play there.
//!
//! A state is an object, a leaf, a slot for any resource, or the twin `_x` of a primitive. Arrays are transparent: they share
//! the state of their elements. Member names are found through the *shape* of an object (one hash table per FHIR type, shared
//! by all its states), and the target through the state's own row, so the cost of a member does not grow with the rules.
//!
//! Rules with `where(...)` need the value of a sibling that may come later. Such an object has *switches*; the scanner
//! walks its undecided state, in which everything that any outcome might touch is watched, and the decider, who knows
//! the siblings, goes on from the decided variant.

use super::cell::{Cell, Check, Kind, Spelled};
use super::compile::{Action, Role};
use super::path::{Ask, How};
use crate::fhir::{Primitive, TypeId};
use crate::names::{ByWord, WordHasher};
use std::collections::HashSet;
use std::hash::BuildHasherDefault;

/// Index of a state.
pub type StateId = u32;

/// Index of an edge within its shape. `_x` follows its `x`.
pub type Edge = u16;

/// What a state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A JSON object of a FHIR type: row of targets.
    Object {
        /// Its members.
        shape: u16,
        /// Start of its row in `targets`.
        row: u32,
    },
    /// A primitive value.
    Leaf(u32),
    /// Any resource: `contained` or standing on its own.
    Slot {
        /// `contained`: ids are local, the subject is the container's.
        contained: bool,
    },
}

/// Watched going out: the decider must see this place.
pub const WATCH_OUT: u8 = 1;
/// Watched coming back.
pub const WATCH_BACK: u8 = 2;
/// Everything beneath is removed, so the element goes as a whole and nothing beneath it is watched.
pub const REMOVED_WHOLE: u8 = 4;
/// Of a cell, opened for the decider even if nothing beneath is watched (`meta`, `meta.tag`: the seal goes there).
pub const OPENED: u8 = 8;
/// A `modifierExtension` that no rule names: refused going out.
pub const MODIFIER: u8 = 16;
/// The Reference that names the subject.
pub const SUBJECT: u8 = 32;

/// Kept, and of a type whose form is known: looked at going out, so that nothing else crosses in its name.
pub const CHECKED: u8 = 64;
/// The same, where a sibling that may come later decides whether it crosses at all: the decider looks.
pub const CHECKED_LATE: u8 = 128;

/// One state.
#[derive(Debug, Clone, Copy)]
pub struct State {
    /// What it is.
    pub node: Node,
    /// `WATCH_OUT` and so on.
    pub flags: u8,
    /// Index in `switches`, or `NO_SWITCH`.
    pub switch: u32,
}

/// No switch at this object.
pub const NO_SWITCH: u32 = u32::MAX;

/// How a rule-relevant sibling decides which variant of an object holds.
#[derive(Debug, Clone)]
pub struct Switch {
    /// The members that are asked, each with its outcomes.
    pub tests: Vec<Test>,
    /// Mixed-radix table of variants, first test slowest.
    pub variants: Vec<StateId>,
}

/// One member whose value matters.
#[derive(Debug, Clone)]
pub struct Test {
    /// Which member.
    pub edge: Edge,
    /// Literal values, in the order of outcomes.
    literals: Vec<String>,
    /// What else is asked of its text; every answer to all of them is an outcome of its own, behind those of the literals.
    others: Vec<(How, String)>,
    /// Whether absence is an outcome of its own, the last one.
    absence: bool,
    table: Table,
}

impl Test {
    /// Most questions about one member that are not of equality.
    pub const OTHERS_MAX: usize = 8;

    /// Of what is asked about a member. At most [`Test::OTHERS_MAX`] different questions may not be of equality.
    pub fn new(edge: Edge, asked: &[Ask]) -> Self {
        let (mut literals, mut others) = (Vec::new(), Vec::new());
        for ask in asked {
            match ask {
                Ask::Text(How::Is, literal, _) => literals.push(literal.clone()),
                Ask::Text(how, with, _) => others.push((*how, with.clone())),
                Ask::There(_) => {}
            }
        }
        literals.sort();
        literals.dedup();
        others.sort();
        others.dedup();
        // Elsewhere what is not there is as what equals nothing.
        let absence = asked.iter().any(|ask| matches!(ask, Ask::There(_) | Ask::Text(_, _, false)));
        let table = Table::new(literals.iter().map(String::as_bytes));
        Test { edge, literals, others, absence, table }
    }

    /// How many questions are not of equality.
    pub fn others(&self) -> usize {
        self.others.len()
    }

    /// How many outcomes there are.
    pub fn outcomes(&self) -> usize {
        self.literals.len() + (1 << self.others.len()) + usize::from(self.absence)
    }

    /// Whether something asked is true where an outcome holds.
    pub fn holds(&self, outcome: usize, ask: &Ask) -> bool {
        if self.absence && outcome + 1 == self.outcomes() {
            return ask.holds(None);
        }
        if let Some(literal) = self.literal(outcome) {
            return ask.holds(Some(literal));
        }
        let answers = outcome - self.literals.len();
        match ask {
            Ask::There(there) => *there,
            Ask::Text(How::Is, _, so) => !so,
            Ask::Text(how, with, so) => {
                let at = self.others.iter().position(|(h, w)| h == how && w == with);
                at.is_some_and(|at| (answers >> at & 1 == 1) == *so)
            }
        }
    }

    /// The literal of an outcome; none where it is none.
    pub fn literal(&self, outcome: usize) -> Option<&str> {
        self.literals.get(outcome).map(String::as_str)
    }

    /// The outcome of a value, or of its absence.
    pub fn outcome(&self, value: Option<&[u8]>) -> usize {
        let known = value.and_then(|value| self.table.find(value, |i| self.literals[i].as_bytes()));
        if let Some(literal) = known {
            return literal;
        }
        if self.absence && value.is_none() {
            return self.outcomes() - 1;
        }
        let answer = |(at, (how, with)): (usize, &(How, String))| {
            usize::from(value.is_some_and(|text| how.holds(text, with))) << at
        };
        self.literals.len() + self.others.iter().enumerate().map(answer).sum::<usize>()
    }
}

/// A leaf as decided.
#[derive(Debug, Clone, Copy)]
pub struct Leaf {
    /// What stands here.
    pub role: Role,
    /// Its FHIR type.
    pub primitive: Primitive,
    /// What is done.
    pub action: Action,
    /// The form that it must have to be kept.
    pub check: Check,
    /// Index of the rule in `Compiled::rules`; `u32::MAX` for what the schema itself decides.
    pub rule: u32,
}

/// A member of a shape.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// JSON name.
    pub name: &'static str,
    /// Array by definition.
    pub many: bool,
    /// Minimum cardinality 1 or more.
    pub required: bool,
    /// `_x`.
    pub twin: bool,
    /// The JSON form of its value.
    pub form: Form,
}

/// The JSON form of a member's value (of each element, where it is an array).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A string.
    String,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// An object.
    Object,
    /// `resourceType`, a string that the scanner has read already.
    ResourceType,
}

/// The members of one FHIR type, found by name.
#[derive(Debug, Clone)]
pub struct Shape {
    /// FHIR type.
    pub type_id: TypeId,
    /// Its name, for paths in refusals.
    pub name: &'static str,
    /// What the decider must know of it.
    pub kind: Kind,
    /// In the order of edges.
    pub members: Vec<Member>,
    /// The names as they stand in JSON, in the order of edges.
    pub spelled: Vec<Spelled>,
    table: Table,
}

impl Shape {
    /// Builds the table of names.
    pub fn new(type_id: TypeId, name: &'static str, members: Vec<Member>) -> Self {
        let table = Table::new(members.iter().map(|m| m.name.as_bytes()));
        let spelled = members.iter().map(|m| Spelled::new(m.name)).collect();
        Shape { type_id, name, kind: Kind::of(name, &members), members, spelled, table }
    }

    /// The edge of a member name, decoded.
    #[inline]
    pub fn edge(&self, name: &[u8]) -> Option<Edge> {
        self.table.find(name, |edge| self.members[edge].name.as_bytes()).map(|edge| edge as Edge)
    }

    /// Whether a name equals a known one only after case folding: a reader that folds case would take it for that one.
    pub fn folds(&self, name: &[u8]) -> bool {
        self.members.iter().any(|m| m.name.as_bytes().eq_ignore_ascii_case(name) && m.name.as_bytes() != name)
    }
}

/// The whole automaton of one pack.
#[derive(Debug, Default)]
pub struct Automaton {
    /// All states.
    pub states: Vec<State>,
    /// Rows of targets, one cell per edge of the shape.
    pub targets: Vec<StateId>,
    /// The same rows, with what the scanner must know of each target. Filled by `lay_out`.
    pub cells: Vec<Cell>,
    /// All leaves.
    pub leaves: Vec<Leaf>,
    /// One per FHIR type, and one per form of twin.
    pub shapes: Vec<Shape>,
    /// Switches of states that have them.
    pub switches: Vec<Switch>,
    /// The slot of a whole document: any resource.
    pub slot: StateId,
    /// Root state by resource type: standing on its own, contained.
    pub roots: ByWord<[StateId; 2]>,
    /// Types whose instances are records, folded to lower case.
    pub records: HashSet<String, BuildHasherDefault<WordHasher>>,
}

impl Automaton {
    /// Lays out the cells, once all states are settled. `dates_stay`: no date goes for want of a subject.
    /// `opened`: where the cells stand that the decider must see even if nothing beneath is watched.
    pub fn lay_out(&mut self, dates_stay: bool, opened: &[usize]) {
        let mut cells = vec![Cell::default(); self.targets.len()];
        let tested = self.tested();
        for state in &self.states {
            let Node::Object { shape: number, row } = state.node else { continue };
            let shape = &self.shapes[number as usize];
            for (edge, member) in shape.members.iter().enumerate() {
                let at = row as usize + edge;
                cells[at] = self.lay(self.targets[at], member, shape, dates_stay);
                if tested.contains(&(number, edge as Edge)) {
                    cells[at].flags |= u16::from(WATCH_OUT | WATCH_BACK);
                }
            }
        }
        for &at in opened {
            cells[at].flags |= u16::from(OPENED);
        }
        self.cells = cells;
    }

    /// The members that some switch asks, of whichever state of their type: the decider must see them.
    fn tested(&self) -> HashSet<(u16, Edge)> {
        let switched = self.states.iter().filter(|state| state.switch != NO_SWITCH);
        let asked = switched.filter_map(|state| match state.node {
            Node::Object { shape, .. } => Some((shape, &self.switches[state.switch as usize])),
            _ => None,
        });
        asked.flat_map(|(shape, switch)| switch.tests.iter().map(move |test| (shape, test.edge))).collect()
    }

    fn lay(&self, target: StateId, member: &Member, within: &Shape, dates_stay: bool) -> Cell {
        let state = &self.states[target as usize];
        let leaf = self.leaf(target);
        let frame = !member.twin && (member.name == "id" || member.name == "url" && within.name == "Extension");
        let twin = matches!(state.node, Node::Object { shape, .. } if self.shapes[shape as usize].kind == Kind::Twin);
        Cell::new(target, state.flags, leaf, member, frame, twin, dates_stay)
    }

    /// The cell of a whole document: any resource.
    pub fn document(&self) -> Cell {
        let member = Member { name: "", many: false, required: true, twin: false, form: Form::Object };
        Cell::new(self.slot, self.states[self.slot as usize].flags, None, &member, false, false, false)
    }

    /// What the scanner must know of one member of an object.
    #[inline]
    pub fn cell(&self, row: u32, edge: Edge) -> Cell {
        self.cells[row as usize + edge as usize]
    }

    /// The state of one member of an object.
    #[inline]
    pub fn target(&self, row: u32, edge: Edge) -> StateId {
        self.targets[row as usize + edge as usize]
    }

    /// The state of an element by its path below a resource type: `meta.versionId`.
    pub fn state_at(&self, resource_type: &str, path: &str) -> Option<StateId> {
        let mut state = self.root(resource_type, false)?;
        for name in path.split('.') {
            let Node::Object { shape, row } = self.states[state as usize].node else { return None };
            let edge = self.shapes[shape as usize].edge(name.as_bytes())?;
            state = self.target(row, edge);
        }
        Some(state)
    }

    /// The root state of a resource type, or `None` where the release does not define it.
    pub fn root(&self, resource_type: &str, contained: bool) -> Option<StateId> {
        self.roots.get(resource_type).map(|pair| pair[contained as usize])
    }

    /// Whether a word is, in any case, the name of a type whose instances are records.
    pub fn is_record(&self, word: &[u8]) -> bool {
        let mut folded = [0; 48];
        let Some(folded) = folded.get_mut(..word.len()) else { return false };
        folded.copy_from_slice(word);
        folded.make_ascii_lowercase();
        std::str::from_utf8(folded).is_ok_and(|word| self.records.contains(word))
    }

    /// Whether a leaf goes.
    pub fn removes(&self, state: StateId) -> bool {
        self.leaf(state).is_some_and(|leaf| leaf.action == Action::Remove)
    }

    /// The leaf of a leaf state.
    pub fn leaf(&self, state: StateId) -> Option<&Leaf> {
        match self.states[state as usize].node {
            Node::Leaf(leaf) => Some(&self.leaves[leaf as usize]),
            _ => None,
        }
    }
}

/// Where words stand in a list, by hash: at most half full, linear probing. Not keyed: the table is fixed at load, holds only
/// words of schema and rules, and compares the whole word after the hash.
#[derive(Debug, Clone)]
struct Table(Vec<u16>);

const EMPTY: u16 = u16::MAX;

impl Table {
    fn new<'w>(words: impl ExactSizeIterator<Item = &'w [u8]>) -> Self {
        let size = (words.len() * 2).next_power_of_two().max(4);
        let mut slots = vec![EMPTY; size];
        for (index, word) in words.enumerate() {
            let mut at = hash(word) & (size - 1);
            while slots[at] != EMPTY {
                at = (at + 1) & (size - 1);
            }
            slots[at] = index as u16;
        }
        Table(slots)
    }

    #[inline]
    fn find<'w>(&self, word: &[u8], words: impl Fn(usize) -> &'w [u8]) -> Option<usize> {
        let mask = self.0.len() - 1;
        let mut at = hash(word) & mask;
        loop {
            let index = self.0[at];
            if index == EMPTY {
                return None;
            }
            if words(index as usize) == word {
                return Some(index as usize);
            }
            at = (at + 1) & mask;
        }
    }
}

/// Looks at the first and last eight bytes and the length.
#[inline]
fn hash(word: &[u8]) -> usize {
    let n = word.len();
    let (a, b) = match (word.first_chunk::<8>(), word.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => match (word.first_chunk::<4>(), word.last_chunk::<4>()) {
            (Some(first), Some(last)) => (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()),
            _ => word.iter().fold((0, 0), |(a, b), &byte| (a << 8 | u64::from(byte), b)),
        },
    };
    let mixed = (a ^ b.rotate_left(23) ^ (n as u64)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 40) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::{Release, Schema};

    #[test]
    fn every_member_is_found_and_no_other() {
        let schema = Schema::of(Release::R4);
        let (type_id, definition) = schema.types().next().expect("R4 has types");
        let members: Vec<Member> = definition
            .elements
            .iter()
            .map(|e| Member { name: e.name, many: e.many, required: e.required, twin: false, form: Form::String })
            .collect();
        let shape = Shape::new(type_id, definition.name, members.clone());
        for (edge, member) in members.iter().enumerate() {
            assert_eq!(shape.edge(member.name.as_bytes()), Some(edge as u16));
            assert_eq!(shape.edge(format!("{}x", member.name).as_bytes()), None);
        }
        assert!(shape.folds(members[0].name.to_uppercase().as_bytes()));
    }
}
