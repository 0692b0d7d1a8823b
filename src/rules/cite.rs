//! Which rule to name for a decision, and how to say what it does.
//!
//! The automaton keeps one representative of all rules that remove by inheritance, since telling them apart would copy the graph beneath
//! each. Whoever explains a decision to a person wants the rule that was written there; this page finds it again.

use super::compile::{Action, Compiled, Origin, Rule, bases, choice};
use crate::fhir;
use std::collections::HashMap;

/// The `types` rules of a pack by what they name.
pub(super) struct Citations<'c> {
    compiled: &'c Compiled,
    types: HashMap<&'c str, u16>,
}

impl<'c> Citations<'c> {
    pub(super) fn new(compiled: &'c Compiled) -> Self {
        let types = compiled.rules.iter().enumerate().filter(|(_, rule)| rule.origin == Origin::Type);
        Citations { compiled, types: types.map(|(index, rule)| (rule.name.as_str(), index as u16)).collect() }
    }

    /// The `types` rule on a resource type as a whole.
    pub(super) fn resource(&self, name: &str) -> Option<u16> {
        self.types.get(name).copied()
    }

    /// The `types` rule written for this very element: `Type.child`, else its complex type.
    pub(super) fn own(&self, owner: &str, member: &str) -> Option<u16> {
        let schema = self.compiled.schema();
        let mut owners = vec![owner];
        let mut names = vec![member];
        let mut complex = None;
        if let Some(type_id) = schema.type_named(owner) {
            owners.extend(bases(schema.definition(type_id)));
            if let Some(element) = schema.element(type_id, member) {
                names.push(choice(element.declared));
                if let fhir::Kind::Complex(type_id) = element.kind {
                    complex = Some(schema.definition(type_id).name);
                }
            }
        }
        let mut found = owners.iter().flat_map(|owner| names.iter().map(move |name| format!("{owner}.{name}")));
        found.find_map(|name| self.types.get(name.as_str()).copied()).or_else(|| self.types.get(complex?).copied())
    }

    /// The rule to name for the rule index that a leaf carries. `nearest`: the `types` rule on the element or its nearest ancestor.
    pub(super) fn cite(&self, rule: u32, nearest: Option<u16>) -> Option<&'c Rule> {
        let rules = &self.compiled.rules;
        let stated = rules.get(rule as usize)?;
        let inherited = nearest.map(|index| &rules[index as usize]).filter(|rule| rule.action == Action::Remove);
        match stated {
            Rule { origin: Origin::Type, action: Action::Remove, .. } => inherited.or(Some(stated)),
            _ => Some(stated),
        }
    }
}

impl Compiled {
    /// An action with its parameters, for people: `token(mrn)`, `shift(365 days)`.
    pub fn describe(&self, action: Action) -> String {
        match action {
            Action::Token { class, pad } => {
                let class = self.classes[class as usize].as_str();
                if pad { format!("token({class}, padded)") } else { format!("token({class})") }
            }
            Action::Shift { days, weekday } => {
                format!("shift({days} days{})", if weekday { ", by weeks" } else { "" })
            }
            Action::Other { method, .. } => self.methods[method as usize].to_string(),
            Action::Keep | Action::Remove => action.word().to_owned(),
        }
    }
}
