//! Why each value of a plain message is treated as it is: the same walk as the scanner's, over a message held whole, going out.

use super::Plain;
use super::automaton::{COVERED, CUT, KEYS, StateId};
use super::only::{Form, RuleIx};
use crate::rules::compile::{Action, Compiled, Unknown};
use crate::rules::explain::Line;
use crate::rules::tree::Tree;

/// Explains one document: a message, or an array of messages.
pub fn explain<'c, 't>(compiled: &'c Compiled, plain: &'c Plain, document: &'t Tree) -> Vec<Line<'c, 't>> {
    let mut walk = Walk { compiled, plain, lines: Vec::new() };
    match document {
        Tree::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                walk.value(item, plain.automaton.element, format!("$[{n}]"));
            }
        }
        message => walk.value(message, plain.automaton.message, "$".to_owned()),
    }
    walk.lines
}

struct Walk<'c, 't> {
    compiled: &'c Compiled,
    plain: &'c Plain,
    lines: Vec<Line<'c, 't>>,
}

impl<'c, 't> Walk<'c, 't> {
    /// A decision: by a rule, or by `unknown:`.
    fn line(&mut self, path: String, kind: &'static str, rule: Option<RuleIx>, value: &'t Tree) {
        let rule = rule.map(|rule| &self.compiled.rules[rule as usize]);
        let unknown = if self.compiled.unknown == Unknown::Refuse { "refuse" } else { "remove" };
        let action = rule.map_or(unknown, |rule| rule.action.word());
        let class = rule.and_then(|rule| self.compiled.class(rule.action)).map(ToString::to_string);
        self.lines.push(Line { path, kind: Some(kind), action, class, rule, value });
    }

    fn value(&mut self, value: &'t Tree, state: StateId, path: String) {
        let automaton = &self.plain.automaton;
        let place = automaton.states[state as usize];
        let leaf = &automaton.leaves[place.leaf as usize];
        let any = (!leaf.is_empty()).then_some(leaf.any);
        match value {
            Tree::Object(_) | Tree::Array(_) if place.flags & CUT != 0 => self.line(path, "any", any, value),
            Tree::Object(members) => members.iter().for_each(|(name, value)| self.member(name, value, state, &path)),
            Tree::Array(items) => {
                for (n, item) in items.iter().enumerate() {
                    self.value(item, place.element, format!("{path}[{n}]"));
                }
            }
            Tree::Null => self.line(path, "null", any, value),
            Tree::Text(text) => self.line(path, "string", leaf.rule(Form::Text, text), value),
            Tree::Bare(spelling) if matches!(spelling.as_str(), "true" | "false") => {
                self.line(path, "boolean", leaf.rule(Form::Boolean, spelling), value);
            }
            Tree::Bare(spelling) => self.line(path, "number", leaf.rule(Form::Number, spelling), value),
        }
    }

    fn member(&mut self, name: &str, value: &'t Tree, state: StateId, path: &str) {
        let automaton = &self.plain.automaton;
        let place = automaton.states[state as usize];
        let sym = automaton.sym(name.as_bytes());
        let known = automaton.edge(state, sym);
        let target = known.map_or(place.other, |k| k.target);
        if known.is_some_and(|k| k.here || place.flags & KEYS == 0) {
            return self.value(value, target, format!("{path}.{}", automaton.name(sym).unwrap_or("?")));
        }
        let path = format!("{path}.?");
        let rule = automaton.leaves[place.keys as usize].rule(Form::Text, name);
        match rule.map(|rule| self.compiled.rules[rule as usize].action) {
            None if place.flags & COVERED != 0 => {
                let leaf = &automaton.leaves[automaton.states[target as usize].leaf as usize];
                self.line(path, "name", Some(leaf.any), value);
            }
            None | Some(Action::Remove) => self.line(path, "name", rule, value),
            Some(_) => {
                self.line(path.clone(), "name", rule, value);
                self.value(value, target, path);
            }
        }
    }
}
