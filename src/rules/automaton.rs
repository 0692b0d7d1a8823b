//! The automaton that the scanner walks: one state per place of the schema and per set of rules still in play there.
//!
//! A state is an object, a leaf, a slot for any resource, or the twin `_x` of a primitive. Arrays are transparent: they share
//! the state of their elements. Member names are found through the *shape* of an object (one hash table per FHIR type, shared
//! by all its states), and the target through the state's own row, so the cost of a member does not grow with the rules.
//!
//! Rules with `where(...)` need the value of a sibling that may come later. Such an object has *switches*; the scanner
//! walks its undecided state, in which everything that any outcome might touch is watched, and the decider, who knows
//! the siblings, goes on from the decided variant.

use super::compile::{Action, Role};
use crate::fhir::{Primitive, TypeId};
use std::collections::HashMap;

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
/// Opened for the decider even if nothing beneath is watched (`meta`, `meta.tag`: the seal goes there).
pub const OPENED: u8 = 8;
/// A `modifierExtension` that no rule names: refused going out.
pub const MODIFIER: u8 = 16;
/// The Reference that names the subject.
pub const SUBJECT: u8 = 32;

/// Kept, and of a type whose form is known: looked at going out, so that nothing else crosses in its name.
pub const CHECKED: u8 = 64;

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
    /// The members that are asked, each with its literals; the last outcome of each is "none of them".
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
    pub literals: Vec<String>,
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
    /// In the order of edges.
    pub members: Vec<Member>,
    slots: Vec<u16>,
}

const EMPTY: u16 = u16::MAX;

/// A hash of a member name that looks at up to sixteen bytes and the length. Not keyed: the table is fixed at load, holds
/// only names of the schema, and compares the whole name after the hash.
#[inline]
fn hash(name: &[u8]) -> usize {
    let n = name.len();
    let word = |at: usize, len: usize| {
        let mut bytes = [0u8; 8];
        bytes[..len].copy_from_slice(&name[at..at + len]);
        u64::from_le_bytes(bytes)
    };
    let (a, b) = if n >= 8 { (word(0, 8), word(n - 8, 8)) } else { (word(0, n), 0) };
    let mixed = (a ^ b.rotate_left(23) ^ (n as u64)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 40) as usize
}

impl Shape {
    /// Builds the table: at most half full, linear probing.
    pub fn new(type_id: TypeId, name: &'static str, members: Vec<Member>) -> Self {
        let size = (members.len() * 2).next_power_of_two().max(4);
        let mut slots = vec![EMPTY; size];
        for (edge, member) in members.iter().enumerate() {
            let mut at = hash(member.name.as_bytes()) & (size - 1);
            while slots[at] != EMPTY {
                at = (at + 1) & (size - 1);
            }
            slots[at] = edge as u16;
        }
        Shape { type_id, name, members, slots }
    }

    /// The edge of a member name, decoded.
    #[inline]
    pub fn edge(&self, name: &[u8]) -> Option<Edge> {
        let mask = self.slots.len() - 1;
        let mut at = hash(name) & mask;
        loop {
            let edge = self.slots[at];
            if edge == EMPTY {
                return None;
            }
            if self.members[edge as usize].name.as_bytes() == name {
                return Some(edge);
            }
            at = (at + 1) & mask;
        }
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
    /// All leaves.
    pub leaves: Vec<Leaf>,
    /// One per FHIR type, and one per form of twin.
    pub shapes: Vec<Shape>,
    /// Switches of states that have them.
    pub switches: Vec<Switch>,
    /// The slot of a whole document: any resource.
    pub slot: StateId,
    /// Root state by resource type: standing on its own, contained.
    pub roots: HashMap<&'static str, [StateId; 2]>,
}

impl Automaton {
    /// The state of one member of an object.
    #[inline]
    pub fn target(&self, row: u32, edge: Edge) -> StateId {
        self.targets[row as usize + edge as usize]
    }

    /// The root state of a resource type, or `None` where the release does not define it.
    pub fn root(&self, resource_type: &str, contained: bool) -> Option<StateId> {
        self.roots.get(resource_type).map(|pair| pair[contained as usize])
    }

    /// The leaf of a leaf state.
    pub fn leaf(&self, state: StateId) -> Option<&Leaf> {
        match self.states[state as usize].node {
            Node::Leaf(leaf) => Some(&self.leaves[leaf as usize]),
            _ => None,
        }
    }
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
