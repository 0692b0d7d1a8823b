//! The automaton of a pack of `format: json`: all paths of all rules walked at once, by one table look-up a member.
//!
//! The paths are a nondeterministic automaton (a position is a path and how far it has come), made deterministic when the pack is
//! loaded (subset construction): a state is the set of positions in play at a place. Names that occur in paths are numbered once; what
//! a member costs is one hash of its name and one look-up by (state, number), whatever the number of rules.
//!
//! A name that no path spells out at a place is *unknown* there, though a wildcard may match its value: names can be data (maps keyed
//! by user), so only a `keys:` rule lets them pass.

use super::only::{Back, Kind, Leaf, NO_RULE, Only, RuleIx};
use super::path::Step;
use std::collections::{BTreeMap, HashMap};

/// Index of a state.
pub type StateId = u32;
/// Number of a name that occurs in some path.
pub type Sym = u32;
/// A name that occurs in no path.
pub const NO_SYM: Sym = Sym::MAX;

/// Everything beneath is removed by one rule, so it goes as a whole.
pub const CUT: u8 = 1;
/// The value names whom the message is about.
pub const SUBJECT: u8 = 2;
/// Some value here may come back: it is looked at on the way.
pub const BACK: u8 = 4;
/// Names of members are data here.
pub const KEYS: u8 = 8;
/// A rule on an ancestor removes what no earlier rule names.
pub const COVERED: u8 = 16;

/// Most states of a pack. Explicit paths need one for each of their places; only many `..` in one path multiply.
pub const STATES_MAX: usize = 1 << 14;
/// Most positions of all states together: what loading a pack may cost.
const POSITIONS_MAX: usize = 1 << 19;

/// One place of a message.
#[derive(Debug, Clone, Copy)]
pub struct State {
    /// Where members of unknown names lead.
    pub other: StateId,
    /// Where elements of an array lead.
    pub element: StateId,
    /// Index in `leaves`: what happens to a value.
    pub leaf: u32,
    /// Index in `leaves`: what happens to the names of members.
    pub keys: u32,
    /// `CUT` and so on.
    pub flags: u8,
}

/// Where a member of a known name leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// State of its value.
    pub target: StateId,
    /// Spelled out at this very place, not by `..name`: then it is a name also where names are data.
    pub here: bool,
}

/// The whole automaton.
#[derive(Debug, Default)]
pub struct Automaton {
    /// All states.
    pub states: Vec<State>,
    /// What rules come to, shared by states.
    pub leaves: Vec<Leaf>,
    /// A message.
    pub message: StateId,
    /// An element of an array that is the whole document: a message too, unless paths begin with `$[*]`.
    pub element: StateId,
    /// The member of a message that holds its seal.
    pub seal: Option<Sym>,
    names: Names,
    edges: Edges,
}

impl Automaton {
    /// The number of a name.
    #[inline]
    pub fn sym(&self, name: &[u8]) -> Sym {
        self.names.find(name)
    }

    /// The name of a number, for paths in refusals: names of rule files hold no identity.
    pub fn name(&self, sym: Sym) -> Option<&str> {
        self.names.texts.get(sym as usize).map(|t| &**t)
    }

    /// Where a member leads whose name is known at this place.
    #[inline]
    pub fn edge(&self, state: StateId, sym: Sym) -> Option<Known> {
        if sym == NO_SYM { None } else { self.edges.find(state, sym) }
    }

    /// Whether an unknown name equals one that is known here but for upper and lower case: a reader that folds case would take it for
    /// that one.
    pub fn folds(&self, state: StateId, name: &[u8]) -> bool {
        let folded = name.to_ascii_lowercase();
        let others = self.names.folded.get(&folded[..]);
        others.is_some_and(|syms| syms.iter().any(|&s| self.edge(state, s).is_some()))
    }
}

/// What a path is for.
#[derive(Debug, Clone)]
pub enum Effect {
    /// A rule of `elements:`.
    Value {
        /// Which.
        rule: RuleIx,
        /// For which values.
        only: Only,
        /// Everything beneath goes.
        removes: bool,
        /// How what it makes comes back.
        back: Back,
    },
    /// A rule of `keys:`.
    Names {
        /// Which.
        rule: RuleIx,
        /// For which names.
        only: Only,
        /// How what it makes comes back.
        back: Back,
    },
    /// Names the subject.
    Subject,
}

/// A path and its purpose.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// The path.
    pub steps: Vec<Step>,
    /// What it is for.
    pub effect: Effect,
}

/// A path and how far it has come.
type Position = (u16, u8);

/// What tells one state from another: positions in play, and the removal in force. Positions before `..` stay in play for ever: hundreds in some
/// packs, and the same in nearly all states, so they are numbered as one set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    /// Set of positions before `..`.
    deep: u32,
    /// All others, sorted.
    positions: Vec<Position>,
    covered: RuleIx,
}

/// More than [`STATES_MAX`] states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyStates;

/// Builds the automaton of all patterns.
pub fn build(patterns: &[Pattern], seal: Option<&str>) -> Result<Automaton, TooManyStates> {
    let mut builder = Builder {
        patterns,
        automaton: Automaton::default(),
        keys: HashMap::new(),
        deep: Vec::new(),
        deep_sets: HashMap::new(),
        queue: Vec::new(),
        positions: 0,
    };
    for pattern in patterns {
        for step in &pattern.steps {
            if let Step::Name(name) | Step::DeepName(name) = step {
                builder.automaton.names.add(name);
            }
        }
    }
    builder.automaton.seal = seal.map(|name| builder.automaton.names.add(name));
    builder.automaton.names.settle();
    let all: Vec<Position> = (0..patterns.len() as u16).map(|pattern| (pattern, 0)).collect();
    let none = builder.deep_set(Vec::new());
    let message = builder.state(none, &all, NO_RULE)?;
    while let Some((state, key)) = builder.queue.pop() {
        builder.expand(state, &key)?;
    }
    let arrays = patterns.iter().any(|p| p.steps.first() == Some(&Step::Each));
    let element = if arrays { builder.automaton.states[message as usize].element } else { message };
    Ok(Automaton { message, element, ..builder.automaton })
}

struct Builder<'p> {
    patterns: &'p [Pattern],
    automaton: Automaton,
    keys: HashMap<Key, StateId>,
    deep: Vec<Vec<Position>>,
    deep_sets: HashMap<Vec<Position>, u32>,
    queue: Vec<(StateId, Key)>,
    /// Of all states together.
    positions: usize,
}

impl Builder<'_> {
    /// The number of a sorted set of positions before `..`.
    fn deep_set(&mut self, set: Vec<Position>) -> u32 {
        let next = self.deep.len() as u32;
        let number = *self.deep_sets.entry(set.clone()).or_insert(next);
        if number == next {
            self.deep.push(set);
        }
        number
    }

    /// The state of a set of positions: `deep`, and these.
    fn state(&mut self, deep: u32, more: &[Position], covered: RuleIx) -> Result<StateId, TooManyStates> {
        let is_deep = |position: &Position| {
            matches!(self.step(*position), Some(Step::DeepName(_) | Step::DeepAny | Step::DeepEach))
        };
        let (new, mut positions): (Vec<Position>, Vec<Position>) = more.iter().partition(|p| is_deep(p));
        positions.sort_unstable();
        positions.dedup();
        let mut set = deep;
        if new.iter().any(|p| self.deep[deep as usize].binary_search(p).is_err()) {
            let mut union = [&self.deep[deep as usize][..], &new].concat();
            union.sort_unstable();
            union.dedup();
            set = self.deep_set(union);
        }
        let key = Key { deep: set, positions, covered };
        if let Some(&state) = self.keys.get(&key) {
            return Ok(state);
        }
        self.positions += key.positions.len() + self.deep[set as usize].len();
        if self.automaton.states.len() >= STATES_MAX || self.positions > POSITIONS_MAX {
            return Err(TooManyStates);
        }
        let state = self.automaton.states.len() as StateId;
        self.automaton.states.push(State { other: state, element: state, leaf: 0, keys: 0, flags: 0 });
        self.keys.insert(key.clone(), state);
        self.queue.push((state, key));
        Ok(state)
    }

    fn step(&self, (pattern, step): Position) -> Option<&Step> {
        self.patterns[pattern as usize].steps.get(step as usize)
    }

    /// Decides a state: what has arrived takes effect, what goes on leads to its children.
    fn expand(&mut self, state: StateId, key: &Key) -> Result<(), TooManyStates> {
        let (mut values, mut names) = (Leaf::default(), Leaf::default());
        let mut flags = 0;
        let mut covered = key.covered;
        let mut earliest = NO_RULE;
        let in_play = [&self.deep[key.deep as usize][..], &key.positions].concat();
        for &position in &in_play {
            let effect = &self.patterns[position.0 as usize].effect;
            if self.step(position).is_some() {
                if let Effect::Value { rule, .. } = effect {
                    earliest = earliest.min(*rule);
                }
                continue;
            }
            match effect {
                Effect::Value { rule, only, removes, back } => {
                    values.add(*rule, only, *back);
                    if *removes {
                        covered = covered.min(*rule);
                    }
                }
                Effect::Names { rule, only, back } => names.add(*rule, only, *back),
                Effect::Subject => flags |= SUBJECT,
            }
        }
        if key.covered != NO_RULE {
            values.add(key.covered, &Only::Kind(Kind::Any), Back::No);
        }
        if covered != NO_RULE {
            flags |= COVERED | if earliest > covered { CUT } else { 0 };
        }
        if !values.tokens.is_empty() || values.shifts && self.automaton.seal.is_some() {
            flags |= BACK;
        }
        if !names.is_empty() {
            flags |= KEYS;
        }
        // Where any member leads, any element, and what a member of a name that is spelled here has beside.
        let mut positions = Vec::new();
        let mut elements = Vec::new();
        let mut named: BTreeMap<Sym, (bool, Vec<Position>)> = BTreeMap::new();
        for &(pattern, at) in &in_play {
            let Some(step) = self.step((pattern, at)) else { continue };
            match step {
                Step::Any => positions.push((pattern, at + 1)),
                Step::Each | Step::DeepEach => elements.push((pattern, at + 1)),
                Step::DeepAny => {
                    positions.push((pattern, at + 1));
                    elements.push((pattern, at + 1));
                }
                Step::Name(name) | Step::DeepName(name) => {
                    let (here, more) = named.entry(self.automaton.names.find(name.as_bytes())).or_default();
                    *here |= matches!(step, Step::Name(_));
                    more.push((pattern, at + 1));
                }
            }
        }
        for (sym, (here, more)) in named {
            let target = self.state(key.deep, &[&positions[..], &more].concat(), covered)?;
            self.automaton.edges.insert(state, sym, Known { target, here });
        }
        let other = self.state(key.deep, &positions, covered)?;
        let element = self.state(key.deep, &elements, covered)?;
        let leaf = self.leaf(values);
        let keys = self.leaf(names);
        self.automaton.states[state as usize] = State { other, element, leaf, keys, flags };
        Ok(())
    }

    fn leaf(&mut self, leaf: Leaf) -> u32 {
        let leaves = &mut self.automaton.leaves;
        // Few differ: most places have one rule or none.
        match leaves.iter().rposition(|l| *l == leaf) {
            Some(at) => at as u32,
            None => {
                leaves.push(leaf);
                (leaves.len() - 1) as u32
            }
        }
    }
}

/// Names and their numbers.
#[derive(Debug, Default)]
struct Names {
    texts: Vec<Box<str>>,
    /// At most half full, linear probing.
    slots: Vec<Sym>,
    folded: HashMap<Box<[u8]>, Vec<Sym>>,
    numbers: HashMap<Box<str>, Sym>,
}

impl Names {
    fn add(&mut self, name: &str) -> Sym {
        let number = self.texts.len() as Sym;
        let known = *self.numbers.entry(name.into()).or_insert(number);
        if known == number {
            self.texts.push(name.into());
            self.folded.entry(name.as_bytes().to_ascii_lowercase().into()).or_default().push(number);
        }
        known
    }

    fn settle(&mut self) {
        self.slots = vec![NO_SYM; (self.texts.len() * 2).next_power_of_two().max(4)];
        for (sym, text) in self.texts.iter().enumerate() {
            let mut at = hash(text.as_bytes()) as usize & (self.slots.len() - 1);
            while self.slots[at] != NO_SYM {
                at = (at + 1) & (self.slots.len() - 1);
            }
            self.slots[at] = sym as Sym;
        }
        self.numbers = HashMap::new();
    }

    #[inline]
    fn find(&self, name: &[u8]) -> Sym {
        if self.slots.is_empty() {
            return NO_SYM;
        }
        let mask = self.slots.len() - 1;
        let mut at = hash(name) as usize & mask;
        loop {
            let sym = self.slots[at];
            if sym == NO_SYM || self.texts[sym as usize].as_bytes() == name {
                return sym;
            }
            at = (at + 1) & mask;
        }
    }
}

/// Where known names lead, by state and number.
#[derive(Debug, Default)]
struct Edges {
    slots: Vec<(StateId, Sym, Known)>,
    count: usize,
}

const FREE: (StateId, Sym, Known) = (0, NO_SYM, Known { target: 0, here: false });

impl Edges {
    fn insert(&mut self, state: StateId, sym: Sym, known: Known) {
        if self.slots.len() < (self.count + 1) * 2 {
            let grown = vec![FREE; (self.slots.len() * 2).max(16)];
            for (state, sym, known) in std::mem::replace(&mut self.slots, grown) {
                if sym != NO_SYM {
                    self.put(state, sym, known);
                }
            }
        }
        self.put(state, sym, known);
        self.count += 1;
    }

    fn put(&mut self, state: StateId, sym: Sym, known: Known) {
        let at = self.place(state, sym);
        self.slots[at] = (state, sym, known);
    }

    #[inline]
    fn find(&self, state: StateId, sym: Sym) -> Option<Known> {
        if self.slots.is_empty() {
            return None;
        }
        let (_, found, known) = self.slots[self.place(state, sym)];
        (found != NO_SYM).then_some(known)
    }

    /// Where this pair is, or where it would be.
    #[inline]
    fn place(&self, state: StateId, sym: Sym) -> usize {
        let mask = self.slots.len() - 1;
        let mixed = (u64::from(state) << 32 | u64::from(sym)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut at = (mixed >> 32) as usize & mask;
        loop {
            let (s, y, _) = self.slots[at];
            if y == NO_SYM || s == state && y == sym {
                return at;
            }
            at = (at + 1) & mask;
        }
    }
}

/// A hash of a name, eight bytes at a time. Not keyed: the table is fixed at load and compares the whole name after the hash.
#[inline]
pub fn hash(name: &[u8]) -> u64 {
    let mut h = name.len() as u64 ^ 0x51_7c_c1_b7_27_22_0a_95;
    let mut chunks = name.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        h = (h ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        h ^= h >> 29;
    }
    let mut last = [0u8; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    h = (h ^ u64::from_le_bytes(last)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    h ^ h >> 29
}

#[cfg(test)]
mod tests {
    use super::super::only::Form;
    use super::super::path;
    use super::*;

    /// Rules in order, `-` before those that remove; the rule that decides a text at a place written as names and `[]`.
    #[track_caller]
    fn check(rules: &[&str], place: &str, expected: Option<RuleIx>) {
        let patterns: Vec<Pattern> = rules
            .iter()
            .enumerate()
            .map(|(i, text)| {
                let removes = text.starts_with('-');
                let steps = path::parse(text.trim_start_matches('-')).expect("a path");
                let only = Only::Kind(Kind::Any);
                Pattern { steps, effect: Effect::Value { rule: i as RuleIx, only, removes, back: Back::No } }
            })
            .collect();
        let automaton = build(&patterns, None).expect("few states");
        let mut state = automaton.message;
        for name in place.split('.').filter(|n| !n.is_empty()) {
            let place = automaton.states[state as usize];
            let known = automaton.edge(state, automaton.sym(name.as_bytes()));
            state = if name == "[]" { place.element } else { known.map_or(place.other, |k| k.target) };
        }
        let leaf = &automaton.leaves[automaton.states[state as usize].leaf as usize];
        assert_eq!(leaf.rule(Form::Text, "x"), expected, "{rules:?} at {place}");
    }

    #[test]
    fn the_first_path_that_matches_decides() {
        check(&["$.a.b", "$.a.b"], "a.b", Some(0));
        check(&["$.a.b"], "a", None);
        check(&["$.a.b"], "a.b.c", None);
        check(&["$.a[*].b"], "a.[].b", Some(0));
        check(&["$.a[*].b"], "a.x.b", None);
        check(&["$.a.*.b"], "a.x.b", Some(0));
        check(&["$.a.*.b"], "a.[].b", None);
        check(&["$.a[*].b"], "a.b", None);
        check(&["$.a[*]"], "a.[]", Some(0));
        check(&["$..[*]"], "a.[].[]", Some(0));
        check(&["$..[*]"], "a.[].x", None);
        check(&["$..b"], "b", Some(0));
        check(&["$..b"], "x.[].y.b", Some(0));
        check(&["$..b.c"], "b.b.c", Some(0));
        check(&["$..b.c"], "b.x.c", None);
        check(&["$.a..*"], "a", None);
        check(&["$.a..*"], "a.x.[]", Some(0));
        check(&["$..a..b"], "x.a.y.b", Some(0));
        check(&["$..a..b"], "b.x.a", None);
        check(&["$.x", "$..x"], "x", Some(0));
        check(&["$.x", "$..x"], "y.x", Some(1));
        check(&["$"], "", Some(0));
    }

    #[test]
    fn a_removal_covers_what_is_beneath() {
        check(&["-$.a"], "a.b.c", Some(0));
        check(&["-$.a", "$.a.b"], "a.b", Some(0));
        check(&["$.a.b", "-$.a"], "a.b", Some(0));
        check(&["$.a.b", "-$.a"], "a.c", Some(1));
        check(&["$.a.b", "-$.a"], "a.b.c", Some(1));
        check(&["$.a"], "a.b", None);
    }

    #[test]
    fn a_thousand_rules_need_a_thousand_states() {
        let steps = |i: usize| path::parse(&format!("$.group{}.member{i}", i % 30)).expect("a path");
        let patterns: Vec<Pattern> = (0..1000).map(|i| Pattern { steps: steps(i), effect: Effect::Subject }).collect();
        let automaton = build(&patterns, None).expect("few states");
        assert_eq!(automaton.states.len(), 1000 + 30 + 2);
        let many: Vec<Pattern> = (0..40)
            .map(|i| path::parse(&format!("$..a..b{i}..c..d")).expect("a path"))
            .map(|steps| Pattern { steps, effect: Effect::Subject })
            .collect();
        assert_eq!(build(&many, None).err(), Some(TooManyStates));
    }
}
