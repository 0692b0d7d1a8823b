//! Why each leaf of a document is treated as it is: path, type, action, class, and the rule that says so.
//!
//! It walks the automaton that rewrites, over a document held whole, going out. It says what the *rules* decide; where the smallest removable
//! element takes more along, or a value has not the form of its type, the rewriter says so itself.

use super::automaton::{Form, MODIFIER, NO_SWITCH, Node, Shape, StateId};
use super::cite::Citations;
use super::compile::{Action, Compiled, Role, Rule, Unknown};
use super::tree::Tree;
use crate::fhir;
use crate::limits;

/// One leaf, or one element that ends the way.
pub struct Line<'c, 't> {
    /// Names of the schema and indexes; a name that no schema knows is `?`.
    pub path: String,
    /// FHIR type; `None` where the release defines none.
    pub kind: Option<&'static str>,
    /// `keep`, `remove`, ..., or `refuse`.
    pub action: &'static str,
    /// Class of the pseudonym.
    pub class: Option<String>,
    /// The rule; `None`: the schema itself, or `unknown:`.
    pub rule: Option<&'c Rule>,
    /// What stands there. Identity: to be shown only to whoever asked for it.
    pub value: &'t Tree,
}

/// Explains one document.
pub fn explain<'c, 't>(compiled: &'c Compiled, document: &'t Tree) -> Vec<Line<'c, 't>> {
    if let Some(plain) = &compiled.plain {
        return super::plain::explain::explain(compiled, plain, document);
    }
    let mut walk = Walk { compiled, citations: Citations::new(compiled), lines: Vec::new() };
    walk.resource(document, String::new(), false, 0);
    walk.lines
}

const REFUSE: &str = "refuse";

struct Walk<'c, 't> {
    compiled: &'c Compiled,
    citations: Citations<'c>,
    lines: Vec<Line<'c, 't>>,
}

impl<'c, 't> Walk<'c, 't> {
    fn end(&mut self, path: String, kind: Option<&'static str>, action: &'static str, value: &'t Tree) {
        self.lines.push(Line { path, kind, action, class: None, rule: None, value });
    }

    fn resource(&mut self, value: &'t Tree, path: String, contained: bool, depth: usize) {
        let name = value.member("resourceType").and_then(Tree::text).unwrap_or_default();
        let root = self.compiled.automaton.roots.get_key_value(name).filter(|_| depth <= limits::RESOURCE_DEPTH_MAX);
        match root {
            Some((name, pair)) => {
                let path = if path.is_empty() { (*name).to_owned() } else { path };
                let inherited = self.citations.resource(name);
                self.object(value, pair[usize::from(contained)], path, name, inherited, depth);
            }
            None => {
                let path = if path.is_empty() { "?".to_owned() } else { path };
                self.end(path, None, REFUSE, value);
            }
        }
    }

    fn object(
        &mut self,
        value: &'t Tree,
        state: StateId,
        path: String,
        resource: &'static str,
        inherited: Option<u16>,
        depth: usize,
    ) {
        let automaton = &self.compiled.automaton;
        let Tree::Object(members) = value else { return self.end(path, None, REFUSE, value) };
        let state = self.decided(value, state);
        let here = &automaton.states[state as usize];
        let Node::Object { shape, row } = here.node else { return self.end(path, None, REFUSE, value) };
        let shape = &automaton.shapes[shape as usize];
        if here.flags & MODIFIER != 0 {
            return self.end(path, Some(shape.name), REFUSE, value);
        }
        for (name, value) in members {
            let Some(edge) = shape.edge(name.as_bytes()) else {
                let refused = shape.folds(name.as_bytes()) || self.compiled.unknown == Unknown::Refuse;
                self.end(format!("{path}.?"), None, if refused { REFUSE } else { "remove" }, value);
                continue;
            };
            let member = &shape.members[edge as usize];
            if member.form == Form::ResourceType {
                continue;
            }
            let target = automaton.target(row, edge);
            let nearest = self.citations.own(shape.name, member.name).or(inherited);
            let path = format!("{path}.{}", member.name);
            match value {
                Tree::Array(items) if member.many => {
                    for (n, item) in items.iter().enumerate() {
                        self.element(item, target, format!("{path}[{n}]"), shape, resource, nearest, depth);
                    }
                }
                value => self.element(value, target, path, shape, resource, nearest, depth),
            }
        }
    }

    fn element(
        &mut self,
        value: &'t Tree,
        state: StateId,
        path: String,
        owner: &'c Shape,
        resource: &'static str,
        nearest: Option<u16>,
        depth: usize,
    ) {
        let automaton = &self.compiled.automaton;
        let Some(leaf) = automaton.leaf(state) else {
            return match automaton.states[state as usize].node {
                _ if matches!(value, Tree::Null) => {} // the place of a twin without an element
                Node::Slot { contained } => self.resource(value, path, contained, depth + 1),
                _ => self.object(value, state, path, resource, nearest, depth),
            };
        };
        let kind = Some(leaf.primitive.name());
        match value {
            Tree::Null => {}
            Tree::Array(_) | Tree::Object(_) => self.end(path, kind, REFUSE, value),
            Tree::Bare(_) | Tree::Text(_) => {
                let stays = matches!(leaf.role, Role::ResourceId | Role::ContainedId)
                    && fhir::definitional(owner.name)
                    && matches!(leaf.action, Action::Token { .. });
                let rule = if stays { None } else { self.citations.cite(leaf.rule, nearest) };
                let action = if stays { Action::Keep } else { leaf.action };
                let class = self.class(action, leaf.role, resource, value.text().unwrap_or_default());
                self.lines.push(Line { path, kind, action: action.word(), class, rule, value });
            }
        }
    }

    /// The class of a pseudonym: the rule's own, but for ids, whose class is that of the resource named.
    fn class(&self, action: Action, role: Role, resource: &str, text: &str) -> Option<String> {
        let class = self.compiled.class(action)?;
        match role {
            Role::ResourceId => Some(format!("{resource}.id")),
            Role::ContainedId => Some("contained.id".to_owned()),
            Role::Reference | Role::FullUrl | Role::Location | Role::RequestUrl | Role::Condition | Role::Link => {
                let named = text.split(['/', '?']).find(|part| self.compiled.schema().resource(part).is_some());
                match named {
                    Some(name) if !fhir::definitional(name) => Some(format!("{name}.id")),
                    Some(_) => None,
                    None if text.starts_with("urn:uuid:") => Some("urn:uuid".to_owned()),
                    None if text.starts_with('#') => Some("contained.id".to_owned()),
                    None => Some("uri".to_owned()),
                }
            }
            _ => Some(class.as_str().to_owned()),
        }
    }

    /// The variant of an object whose rules ask for the value of a sibling.
    fn decided(&self, value: &Tree, state: StateId) -> StateId {
        let automaton = &self.compiled.automaton;
        let here = &automaton.states[state as usize];
        let Node::Object { shape, .. } = here.node else { return state };
        if here.switch == NO_SWITCH {
            return state;
        }
        let switch = &automaton.switches[here.switch as usize];
        let mut number = 0;
        for test in &switch.tests {
            let name = automaton.shapes[shape as usize].members[test.edge as usize].name;
            let text = value.member(name).and_then(Tree::text);
            number = number * test.outcomes() + test.outcome(text.map(str::as_bytes));
        }
        switch.variants[number]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::packs;

    #[track_caller]
    fn check(document: &str, expected: &[&str]) {
        let yaml = packs::embedded("fhir-r4-pseudonymized").expect("a pack").replace(
            "elements:\n",
            "elements:\n  - path: nodesByType('Identifier').where(system = 'http://h/mrn').value\n    do: { token: { class: mrn } }\n",
        );
        let compiled = Compiled::new(&yaml).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        let document: Tree = serde_json::from_str(document).expect("JSON");
        let lines: Vec<String> = explain(&compiled, &document)
            .iter()
            .map(|line| {
                let class = line.class.as_deref().unwrap_or("-");
                format!("{} {} {} {class}", line.path, line.kind.unwrap_or("-"), line.action)
            })
            .collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn every_leaf_has_its_line() {
        check(
            r#"{"resourceType":"Patient","id":"p","gender":"male","name":[{"given":["A",null]}],
                "identifier":[{"value":"1","system":"http://h/mrn"},{"value":"2"}],"generalPractitioner":[{"reference":"Practitioner/x"}],
                "_birthDate":{"extension":[{"url":"http://e","valueString":"x"}]}}"#,
            &[
                "Patient.id id token Patient.id",
                "Patient.gender code keep -",
                "Patient.name[0].given[0] string remove -",
                "Patient.identifier[0].value string token mrn",
                "Patient.identifier[0].system uri keep -",
                "Patient.identifier[1].value string token identifier",
                "Patient.generalPractitioner[0].reference string token Practitioner.id",
                "Patient._birthDate.extension[0].url uri keep -",
                "Patient._birthDate.extension[0].valueString string remove -",
            ],
        );
        check(
            r#"{"resourceType":"Bundle","type":"collection","entry":[{"resource":{"resourceType":"Basic","contained":[{"resourceType":"Patient","id":"c"}],
                "code":{"coding":[{"code":"a","system":"http://loinc.org"},{"code":"b","system":"http://local"}]}}}]}"#,
            &[
                "Bundle.type code keep -",
                "Bundle.entry[0].resource.contained[0].id id token contained.id",
                "Bundle.entry[0].resource.code.coding[0].code code keep -",
                "Bundle.entry[0].resource.code.coding[0].system uri keep -",
                "Bundle.entry[0].resource.code.coding[1].code code remove -",
                "Bundle.entry[0].resource.code.coding[1].system uri keep -",
            ],
        );
    }

    #[test]
    fn what_would_be_refused_is_said_without_its_name() {
        check(
            r#"{"resourceType":"Patient","nme":1,"gender":{},"modifierExtension":[{"url":"http://e"}]}"#,
            &[
                "Patient.? - refuse -",
                "Patient.gender code refuse -",
                "Patient.modifierExtension[0] Extension refuse -",
            ],
        );
        check(r#"{"resourceType":"Patiens"}"#, &["? - refuse -"]);
        check("[1]", &["? - refuse -"]);
    }
}
