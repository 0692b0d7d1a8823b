//! What was done: counts by action and class, never a value. The proxy turns it into metrics and audit records, the command
//! line into its last lines.

use crate::names::Class;
use crate::rules::Method;
use std::collections::{BTreeMap, BTreeSet};

/// Counts since the last take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Resources written.
    pub resources: u64,
    /// Leaves that became tokens, or were resolved from them.
    pub tokens: u64,
    /// Dates shifted (or unshifted).
    pub shifts: u64,
    /// Elements removed.
    pub removed: u64,
    /// Values changed by the other actions, in the order of [`Method::WORDS`].
    pub changed: [u64; Method::WORDS.len()],
    /// Resources whose dates could not be unshifted for want of a valid seal.
    pub unsealed: u64,
    /// Values revealed, by class.
    pub reveals: BTreeMap<Class, u64>,
    /// Tokens seen that this caller may not reveal, or that do not verify: they stayed.
    pub stayed: u64,
    /// Keyed handles of the subjects of whom something was revealed.
    pub subjects: BTreeSet<String>,
}

impl Report {
    /// Whether anything was revealed, so that a record must be durable before the bytes leave.
    pub fn reveals_anything(&self) -> bool {
        !self.reveals.is_empty()
    }

    /// Every action with its count.
    pub fn by_action(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [("token", self.tokens), ("shift", self.shifts), ("remove", self.removed)]
            .into_iter()
            .chain(Method::WORDS.into_iter().zip(self.changed))
    }

    /// Adds another report to this one.
    pub fn add(&mut self, other: Report) {
        self.resources += other.resources;
        self.tokens += other.tokens;
        self.shifts += other.shifts;
        self.removed += other.removed;
        for (count, more) in self.changed.iter_mut().zip(other.changed) {
            *count += more;
        }
        self.unsealed += other.unsealed;
        self.stayed += other.stayed;
        for (class, n) in other.reveals {
            *self.reveals.entry(class).or_default() += n;
        }
        self.subjects.extend(other.subjects);
    }
}
