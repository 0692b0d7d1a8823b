//! What a pack does with every element of its release: the inventory that an officer signs.
//!
//! A row is one element (`HumanName.family`, `Patient.contact.gender`) under one decision. Most elements have one row; one more stands
//! for each rule that decides the same element differently somewhere (`where(...)`, a path, a listed code system). Recursion
//! of FHIR's types ends by itself: the walk is over the states of the automaton, of which there are finitely many, not over paths.
//! It is the automaton that rewrites which is walked here, so this page cannot promise what the rewriter does not do.

use super::automaton::{Form, NO_SWITCH, Node, REMOVED_WHOLE, StateId};
use super::cite::Citations;
use super::compile::{Action, Compiled, Origin, Role, Rule};
use crate::fhir;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// One element under one decision.
#[derive(Debug, Clone)]
pub struct Row<'c> {
    /// `Type.member`.
    pub path: String,
    /// FHIR type of the element.
    pub kind: &'static str,
    /// What is done.
    pub action: Action,
    /// The same for people, with its parameters: `token(Patient.id)`.
    pub does: String,
    /// By which rule; `None`: by the schema itself (ids of definitional resources stay).
    pub rule: Option<&'c Rule>,
    /// A complex element that is removed with all it holds. Such rows are not counted as elements.
    pub whole: bool,
    /// The shortest path of the release on which this decision is met.
    pub example: String,
}

impl Row<'_> {
    /// The rule's own name where it is an exception (`elements:`, `codes:`) from what holds for the element in general.
    pub fn exception(&self) -> Option<&str> {
        self.rule.filter(|rule| rule.origin != Origin::Type).map(|rule| rule.name.as_str())
    }
}

/// The whole inventory.
#[derive(Debug, Clone)]
pub struct Coverage<'c> {
    /// How many elements with a value the release has.
    pub elements: usize,
    /// Sorted by path, what is more open first.
    pub rows: Vec<Row<'c>>,
    /// Elements by action. Each counts once, under the most open of its decisions.
    pub by_action: BTreeMap<&'static str, usize>,
}

/// From what shows the most to what shows nothing.
const OPENNESS: &[&str] =
    &["keep", "perturb", "generalize", "shift", "mask", "fpe", "token", "hash", "substitute", "remove"];

fn openness(action: Action) -> usize {
    OPENNESS.iter().position(|word| *word == action.word()).unwrap_or(0)
}

/// By element; what is more open first; what holds in general before exceptions.
fn order<'r>(row: &'r Row<'_>) -> (&'r str, usize, bool, u64) {
    (&row.path, openness(row.action), row.exception().is_some(), row.rule.map_or(0, |rule| rule.line))
}

/// The inventory of a pack of `format: json`: no release lists elements there, so that its rules are all there is.
fn of_rules<'c>(compiled: &'c Compiled) -> Coverage<'c> {
    let row = |rule: &'c Rule| Row {
        path: rule.name.clone(),
        kind: "json",
        action: rule.action,
        does: compiled.describe(rule.action),
        rule: Some(rule),
        whole: false,
        example: rule.name.clone(),
    };
    let mut rows: Vec<Row<'c>> = compiled.rules.iter().map(row).collect();
    rows.sort_by(|a, b| order(a).cmp(&order(b)));
    let mut by_action = BTreeMap::new();
    for row in &rows {
        *by_action.entry(row.action.word()).or_default() += 1;
    }
    Coverage { elements: rows.len(), rows, by_action }
}

/// Takes the inventory.
pub fn coverage(compiled: &Compiled) -> Coverage<'_> {
    if compiled.plain.is_some() {
        return of_rules(compiled);
    }
    let mut walk = Walk { compiled, citations: Citations::new(compiled), rows: Vec::new(), known: HashMap::new() };
    // First what can be met in an output; then what stands only inside elements that go as a whole.
    walk.all(true);
    walk.all(false);
    let mut rows = walk.rows;
    rows.sort_by(|a, b| order(a).cmp(&order(b)));
    let mut by_action = BTreeMap::new();
    let mut last = None;
    let mut elements = 0;
    for row in rows.iter().filter(|row| !row.whole) {
        if last != Some(&row.path) {
            *by_action.entry(row.action.word()).or_default() += 1;
            elements += 1;
        }
        last = Some(&row.path);
    }
    Coverage { elements, rows, by_action }
}

/// What tells one row from another: element, and the rule in `Compiled::rules` (by address) with its action.
type Decision = (Action, Option<*const Rule>);

struct Walk<'c> {
    compiled: &'c Compiled,
    citations: Citations<'c>,
    rows: Vec<Row<'c>>,
    known: HashMap<(&'static str, &'static str), Vec<Decision>>,
}

/// A state on the way, how it was reached, and the `types` rule that is inherited there.
struct Stop {
    state: StateId,
    path: String,
    inherited: Option<u16>,
}

impl<'c> Walk<'c> {
    /// Breadth first from every resource type, so that the first path to a state is a shortest one.
    fn all(&mut self, visible: bool) {
        let automaton = &self.compiled.automaton;
        let mut roots: Vec<_> = automaton.roots.iter().collect();
        roots.sort();
        let mut queue: VecDeque<Stop> = VecDeque::new();
        for nth in [0, 1] {
            queue.extend(roots.iter().map(|(name, pair)| Stop {
                state: pair[nth],
                path: (**name).to_owned(),
                inherited: self.citations.resource(name),
            }));
        }
        let mut seen = HashSet::new();
        while let Some(stop) = queue.pop_front() {
            if !seen.insert(stop.state) {
                continue;
            }
            let state = &automaton.states[stop.state as usize];
            if state.switch != NO_SWITCH {
                for &variant in &automaton.switches[state.switch as usize].variants {
                    queue.push_back(Stop { state: variant, path: stop.path.clone(), inherited: stop.inherited });
                }
                continue;
            }
            self.members(&stop, visible, &mut queue);
        }
    }

    fn members(&mut self, stop: &Stop, visible: bool, queue: &mut VecDeque<Stop>) {
        let automaton = &self.compiled.automaton;
        let Node::Object { shape, row } = automaton.states[stop.state as usize].node else { return };
        let shape = &automaton.shapes[shape as usize];
        for (edge, member) in shape.members.iter().enumerate() {
            if member.form == Form::ResourceType {
                continue;
            }
            let target = automaton.target(row, edge as u16);
            let state = &automaton.states[target as usize];
            let path = format!("{}.{}", stop.path, member.name);
            let inherited = self.citations.own(shape.name, member.name).or(stop.inherited);
            if let Some(leaf) = automaton.leaf(target) {
                if !visible && self.known.contains_key(&(shape.name, member.name)) {
                    continue;
                }
                let stays = matches!(leaf.role, Role::ResourceId | Role::ContainedId)
                    && fhir::definitional(shape.name)
                    && matches!(leaf.action, Action::Token { .. });
                let rule = if stays { None } else { self.citations.cite(leaf.rule, inherited) };
                let action = if stays { Action::Keep } else { leaf.action };
                let does = self.does(action, leaf.role, shape.name);
                self.row(shape.name, member.name, leaf.primitive.name(), action, does, rule, false, path);
            } else if visible && state.flags & REMOVED_WHOLE != 0 {
                if !member.twin {
                    let rule = self.citations.cite(self.rule_beneath(target), inherited);
                    let kind = self.type_of(target);
                    let does = Action::Remove.word().to_owned();
                    self.row(shape.name, member.name, kind, Action::Remove, does, rule, true, path);
                }
            } else {
                queue.push_back(Stop { state: target, path, inherited });
            }
        }
    }

    fn row(
        &mut self,
        owner: &'static str,
        member: &'static str,
        kind: &'static str,
        action: Action,
        does: String,
        rule: Option<&'c Rule>,
        whole: bool,
        example: String,
    ) {
        let decision = (action, rule.map(|rule| rule as *const Rule));
        let known = self.known.entry((owner, member)).or_default();
        if !known.contains(&decision) {
            known.push(decision);
            self.rows.push(Row { path: format!("{owner}.{member}"), kind, action, does, rule, whole, example });
        }
    }

    /// Ids have the class of the resource that they name, whatever class their rule gives.
    fn does(&self, action: Action, role: Role, owner: &str) -> String {
        let word = action.word();
        match (action, role) {
            (Action::Token { .. } | Action::Other { .. }, Role::ResourceId) => format!("{word}({owner}.id)"),
            (Action::Token { .. } | Action::Other { .. }, Role::ContainedId) => format!("{word}(contained.id)"),
            (
                Action::Token { .. } | Action::Other { .. },
                Role::Reference | Role::FullUrl | Role::RequestUrl | Role::Condition | Role::Location | Role::Link,
            ) => format!("{word}(of the id it names)"),
            _ => self.compiled.describe(action),
        }
    }

    fn type_of(&self, state: StateId) -> &'static str {
        let automaton = &self.compiled.automaton;
        match automaton.states[state as usize].node {
            Node::Object { shape, .. } => automaton.shapes[shape as usize].name,
            _ => "Resource",
        }
    }

    /// The rule of the first leaf beneath an object that goes as a whole. All its leaves go; one names the reason.
    fn rule_beneath(&self, state: StateId) -> u32 {
        let automaton = &self.compiled.automaton;
        let mut seen = HashSet::new();
        let mut queue = VecDeque::from([state]);
        while let Some(state) = queue.pop_front() {
            let here = &automaton.states[state as usize];
            match here.node {
                Node::Leaf(leaf) => return automaton.leaves[leaf as usize].rule,
                Node::Object { shape, row } if seen.insert(state) => {
                    if here.switch != NO_SWITCH {
                        queue.extend(&automaton.switches[here.switch as usize].variants);
                        continue;
                    }
                    // The frame of an element (its id) is kept or not by rules of its own; it is not the reason.
                    let members = automaton.shapes[shape as usize].members.iter().enumerate();
                    let telling = members.filter(|(_, member)| member.name != "id" && !member.twin);
                    queue.extend(telling.map(|(edge, _)| automaton.target(row, edge as u16)));
                }
                _ => {}
            }
        }
        u32::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::packs;
    use std::collections::BTreeSet;

    fn pack(change: impl Fn(&str) -> String) -> Compiled {
        let yaml = packs::embedded("fhir-r4-pseudonymized").expect("a pack");
        Compiled::new(&change(yaml)).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
    }

    /// `action @ rule` of every row of an element, and whether it goes as a whole.
    fn rows(coverage: &Coverage<'_>, path: &str) -> Vec<String> {
        let rows = coverage.rows.iter().filter(|row| row.path == path);
        rows.map(|row| {
            let whole = if row.whole { " whole" } else { "" };
            format!("{} @ {}{whole}", row.action.word(), row.rule.map_or("-", |rule| &rule.name))
        })
        .collect()
    }

    #[test]
    fn each_element_of_the_release_has_its_decisions() {
        let compiled = pack(|yaml| {
            yaml.to_owned()
                + "  - path: Patient.contact\n    do: remove\n"
                + "  - path: nodesByType('Identifier').where(system = 'http://h/mrn').value\n    do: { token: { class: mrn } }\n"
        });
        let coverage = coverage(&compiled);
        let check = |path: &str, expected: &[&str]| assert_eq!(rows(&coverage, path), expected, "{path}");
        check("Patient.gender", &["keep @ code"]);
        check("Patient.birthDate", &["shift @ date"]);
        check(
            "Identifier.value",
            &["token @ Identifier.value", "token @ nodesByType('Identifier').where(system = 'http://h/mrn').value"],
        );
        // What is inherited beats `codes:`; the line that says so is named, not the first that removes.
        check("Coding.code", &["keep @ codes.keep_systems", "remove @ Signature", "remove @ codes.others"]);
        check("HumanName.family", &["remove @ HumanName"]);
        check("Patient.contact", &["remove @ Patient.contact whole"]);
        check("Patient.id", &["token @ resource-id"]);
        check("Questionnaire.id", &["keep @ -"]);
        check("Address.line", &["remove @ Address.line"]);

        // Every element of the tables with a value of its own is there, and no other; twins bring `Element.id`.
        let schema = compiled.schema();
        let leaves = schema.types().flat_map(|(_, definition)| {
            let leaves = definition.elements.iter().filter(|e| matches!(e.kind, fhir::Kind::Primitive(_)));
            leaves.map(|e| format!("{}.{}", definition.name, e.name))
        });
        let expected: BTreeSet<String> = leaves.chain(["Element.id".to_owned()]).collect();
        let found: BTreeSet<String> =
            coverage.rows.iter().filter(|row| !row.whole).map(|row| row.path.clone()).collect();
        let unreached: Vec<_> = expected.difference(&found).collect();
        assert!(found.is_subset(&expected), "{:?}", found.difference(&expected).collect::<Vec<_>>());
        // Types that no resource uses.
        assert!(unreached.iter().all(|path| !path.starts_with("Patient")), "{unreached:?}");
        assert!(unreached.len() < 40, "{unreached:?}");
        assert_eq!(coverage.elements, found.len());
        assert_eq!(coverage.by_action.values().sum::<usize>(), coverage.elements);
    }

    #[test]
    fn a_difference_says_what_changes_for_whom() {
        let before = pack(str::to_owned);
        assert_eq!(super::super::diff::diff(&before, &before), []);
        let after = pack(|yaml| {
            let yaml = yaml.replace("  Address.state: keep", "  Address.state: remove");
            yaml.replace("elements:\n", "elements:\n  - path: Patient.gender\n    do: remove\n")
        });
        let changes: Vec<String> = super::super::diff::diff(&before, &after)
            .into_iter()
            .map(|c| {
                let word = |w: Option<String>| w.unwrap_or_else(|| "-".to_owned());
                format!("{} {} {} > {}", c.element, word(c.under), word(c.from), word(c.to))
            })
            .collect();
        assert_eq!(
            changes,
            ["Address.state - keep > remove", "Patient.gender - keep > -", "Patient.gender Patient.gender - > remove"]
        );
    }
}
