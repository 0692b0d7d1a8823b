//! The linter: what a rule file may legally be called, and what deserves a second look although it loads.
//!
//! A claim that its actions cannot carry is a mistake: the file does not load. Everything else here is a [`Warning`] with a stable code: the
//! pack does what it says, and somebody should know what that means. It looks at the compiled automaton, at what really happens at
//! each place, never at the words of the file.
//!
//! It is no lawyer. What it knows is the list of 45 CFR 164.514(b)(2)(i) and (e)(2), as far as FHIR names the places.

use super::actions::{Method, is_link};
use super::automaton::{Leaf, Node};
use super::compile::{Action, Claim, Compiled, DateKind, NoSubject, Role};
use super::{At, Mistake, wrong};
use crate::action::generalize::To;
use crate::action::hash::Scope;
use crate::action::mask::Mask;
use crate::fhir::about::{self, Subject};
use crate::fhir::{Category, Primitive};
use std::collections::{BTreeMap, BTreeSet};

/// Something that deserves a second look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Stable: `low-entropy`, `shift-live` ...
    pub code: &'static str,
    /// Where in the file; zeros: the file as a whole.
    pub at: At,
    /// What.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "warning[{}]: {}; help: {}", self.code, self.what, self.advice)
    }
}

/// Every code of a warning.
pub const CODES: &[&str] = &[
    "dead-rule",
    "fpe-domain",
    "id-overflow",
    "keep-all",
    "keep-text",
    "low-entropy",
    "names-kept",
    "shift-live",
    "shift-subject",
];

/// A leaf and where it stands: the type that holds it, and its name there.
struct Place {
    owner: &'static str,
    member: &'static str,
    leaf: Leaf,
}

impl Place {
    fn is(&self, places: &[(&str, &[&str])]) -> bool {
        places.iter().any(|(owner, members)| *owner == self.owner && members.contains(&self.member))
    }
}

fn places(rules: &Compiled) -> Vec<Place> {
    let automaton = &rules.automaton;
    let mut seen = BTreeSet::new();
    let mut places = Vec::new();
    for state in &automaton.states {
        let Node::Object { shape, row } = state.node else { continue };
        let shape = &automaton.shapes[shape as usize];
        for (edge, member) in shape.members.iter().enumerate().filter(|(_, member)| !member.twin) {
            if let Some(&leaf) = automaton.leaf(automaton.target(row, edge as u16))
                && leaf.rule != u32::MAX
                && seen.insert((shape.name, member.name, leaf.rule, leaf.role.number()))
            {
                places.push(Place { owner: shape.name, member: member.name, leaf });
            }
        }
    }
    places
}

/// Where FHIR itself says that identity stands.
const NAMES: (&str, &[&str]) = ("HumanName", &["text", "family", "given", "prefix", "suffix"]);
const STREETS: (&str, &[&str]) = ("Address", &["text", "line"]);
const TOWNS: (&str, &[&str]) = ("Address", &["city", "district", "postalCode"]);
const CONTACTS: (&str, &[&str]) = ("ContactPoint", &["value"]);
const IDENTIFIERS: (&str, &[&str]) = ("Identifier", &["value"]);
const PICTURES: (&str, &[&str]) = ("Attachment", &["data", "url", "title"]);
const NARRATIVE: (&str, &[&str]) = ("Narrative", &["div"]);
const POSITION: (&str, &[&str]) = ("Location.position", &["longitude", "latitude", "altitude"]);

/// What the claim of a pack forbids: one mistake for each rule that breaks it.
pub(super) fn claim(rules: &Compiled) -> Vec<Mistake> {
    type Judge = fn(&Compiled, &Place) -> Option<&'static str>;
    let (name, judge): (_, Judge) = match rules.claim {
        Claim::SafeHarbor => ("safe-harbor", safe_harbor),
        Claim::LimitedDataSet => ("limited-data-set", limited_data_set),
        Claim::Pseudonymized | Claim::None => return Vec::new(),
    };
    let mut broken: BTreeMap<(u32, &str), BTreeSet<String>> = BTreeMap::new();
    for place in places(rules) {
        if let Some(why) = judge(rules, &place) {
            broken.entry((place.leaf.rule, why)).or_default().insert(format!("{}.{}", place.owner, place.member));
        }
    }
    broken
        .into_iter()
        .map(|((rule, why), places)| {
            let rule = &rules.rules[rule as usize];
            let what = format!("claim: {name}: `{}` at {}: {why}", rule.name, shown(&places));
            wrong(
                At { line: rule.line, column: rule.column },
                what,
                "choose an action that the claim can carry, or another claim",
            )
        })
        .collect()
}

/// Up to three places.
fn shown(places: &BTreeSet<String>) -> String {
    let first: Vec<&str> = places.iter().take(3).map(String::as_str).collect();
    let more = if places.len() > 3 { format!(" and {} more", places.len() - 3) } else { String::new() };
    format!("{}{more}", first.join(", "))
}

/// 45 CFR 164.514(b)(2)(i) and (c).
fn safe_harbor(rules: &Compiled, place: &Place) -> Option<&'static str> {
    let Leaf { role, action, .. } = place.leaf;
    let date = matches!(role, Role::Date(_));
    let kept = match action {
        Action::Remove => return None,
        Action::Keep => true,
        Action::Token { .. } => {
            return Some(
                "a token is derived from the value and outlives the document, which 164.514(c) does not allow",
            );
        }
        Action::Shift { .. } => {
            return Some("a shifted date still holds day and month; 164.514(b)(2)(i)(C) allows the year");
        }
        Action::Other { method, .. } => match &rules.methods[method as usize] {
            Method::Hash { shape, .. } if shape.scope == Scope::Domain => {
                return Some(
                    "a keyed hash that outlives the document is derived from the value (164.514(c)): use `scope: document`",
                );
            }
            Method::Fpe { .. } => {
                return Some(
                    "a value encrypted under a key that outlives the document is derived from it (164.514(c))",
                );
            }
            Method::Generalize(To::Month) => {
                return Some("164.514(b)(2)(i)(C) allows the year of a date, not its month");
            }
            Method::Generalize(To::Year | To::Decade) if role == Role::Date(DateKind::Birth) => {
                return Some("a year of birth tells ages over 89, (C): use `generalize: { to: age90 }`");
            }
            Method::Mask(Mask::Characters { keep_last: 1.., .. }) => true,
            Method::Perturb { .. } | Method::Generalize(To::Round { .. }) => {
                place.is(&[POSITION]) || place.owner == "Age"
            }
            Method::Mask(_) | Method::Substitute(_) | Method::Hash { .. } | Method::Generalize(_) => return None,
        },
    };
    if !kept {
        return None;
    }
    Some(match () {
        () if date => "of a date only the year may stay, (C)",
        () if place.is(&[NAMES]) => "names, (A)",
        () if place.is(&[STREETS, TOWNS, POSITION]) => "places smaller than a state, (B)",
        () if place.is(&[("Age", &["value"])]) => "ages over 89, (C): use `generalize: { to: age90 }`",
        () if place.is(&[CONTACTS]) => "telephone, fax, e-mail, addresses of the net, (D)-(F), (N), (O)",
        () if place.is(&[IDENTIFIERS]) => "numbers of records, plans, accounts, licences, devices, (G)-(M)",
        () if place.is(&[PICTURES, NARRATIVE]) => "pictures and unexamined text, (Q), (R)",
        () if matches!(role, Role::ResourceId | Role::Reference | Role::FullUrl) => {
            "unique identifying codes, (R): use hash with `scope: document`"
        }
        () => return None,
    })
}

/// 45 CFR 164.514(e)(2): dates and towns may stay, and codes derived from identifiers are not on the list.
fn limited_data_set(rules: &Compiled, place: &Place) -> Option<&'static str> {
    let kept = match place.leaf.action {
        Action::Keep => true,
        Action::Other { method, .. } => {
            matches!(rules.methods[method as usize], Method::Mask(Mask::Characters { keep_last: 1.., .. }))
        }
        Action::Remove | Action::Token { .. } | Action::Shift { .. } => false,
    };
    if !kept {
        return None;
    }
    Some(match () {
        () if place.is(&[NAMES]) => "names, (e)(2)(i)",
        () if place.is(&[STREETS]) => "addresses below town, state and ZIP code, (e)(2)(ii)",
        () if place.is(&[CONTACTS]) => "telephone, fax, e-mail, addresses of the net, (e)(2)(iii)-(v), (xiii), (xiv)",
        () if place.is(&[IDENTIFIERS]) => "numbers of records, plans, accounts, licences, devices, (e)(2)(vi)-(xii)",
        () if place.is(&[PICTURES, NARRATIVE]) => "pictures and unexamined text, (e)(2)(xv), (xvi)",
        () => return None,
    })
}

/// Elements with few possible values, whose equal pseudonyms are told apart by counting them.
fn has_few_values(place: &Place) -> bool {
    let few: &[(&str, &[&str])] = &[
        ("HumanName", &["prefix", "suffix", "use"]),
        ("Address", &["state", "country", "use", "type"]),
        ("ContactPoint", &["system", "use"]),
        ("Quantity", &["unit", "code"]),
        ("Attachment", &["contentType", "language"]),
    ];
    let bound =
        place.leaf.primitive == Primitive::Code && place.leaf.role != Role::CodingCode && place.owner != "Extension";
    bound && !place.owner.starts_with("Parameters") || place.is(few)
}

/// Everything that deserves a second look.
pub(super) fn warnings(rules: &Compiled) -> Vec<Warning> {
    let places = places(rules);
    let mut found: BTreeMap<(&'static str, u32), BTreeSet<String>> = BTreeMap::new();
    let mut working = BTreeSet::new();
    for place in &places {
        let name = || format!("{}.{}", place.owner, place.member);
        let mut note = |code, rule| {
            found.entry((code, rule)).or_default().insert(name());
        };
        working.insert(place.leaf.rule);
        let deterministic = match place.leaf.action {
            Action::Token { .. } => true,
            Action::Other { method, .. } => match &rules.methods[method as usize] {
                Method::Fpe { alphabet, .. } => {
                    if place.is(&[("Address", &["postalCode"])]) && alphabet.least_symbols() > 5 {
                        note("fpe-domain", place.leaf.rule);
                    }
                    true
                }
                Method::Hash { shape, .. } => shape.scope == Scope::Domain,
                _ => false,
            },
            Action::Keep | Action::Remove | Action::Shift { .. } => false,
        };
        if deterministic && has_few_values(place) {
            note("low-entropy", place.leaf.rule);
        }
        if matches!(place.leaf.action, Action::Token { .. })
            && place.leaf.primitive == Primitive::Id
            && !is_link(place.leaf.role)
        {
            note("id-overflow", place.leaf.rule);
        }
        if matches!(place.leaf.action, Action::Shift { .. }) {
            note("shift-live", u32::MAX);
        }
    }
    for (number, rule) in rules.rules.iter().enumerate() {
        // Removals count as one another (they are inherited as one), and the codes rule may stand for nothing.
        if rule.action != Action::Remove && !working.contains(&(number as u32)) && !rule.name.starts_with("codes.") {
            found.insert(("dead-rule", number as u32), BTreeSet::new());
        }
    }
    let mut warnings: Vec<Warning> =
        found.into_iter().map(|((code, rule), places)| warning(rules, code, rule, &places)).collect();
    warnings.extend(without_subject(rules));
    warnings.sort_by_key(|w| (w.at.line, w.at.column, w.code));
    warnings
}

fn warning(rules: &Compiled, code: &'static str, rule: u32, places: &BTreeSet<String>) -> Warning {
    let named = rules.rules.get(rule as usize);
    let at = named.map_or(At::FILE, |r| At { line: r.line, column: r.column });
    let name = named.map_or("", |r| r.name.as_str());
    let shown = shown(places);
    let (what, advice) = match code {
        "low-entropy" => (
            format!(
                "`{name}` gives equal pseudonyms to equal values at {shown}, which have few values: counting undoes it"
            ),
            "remove or generalize them, or hash with `scope: document`",
        ),
        "id-overflow" => (
            format!(
                "`{name}`: ids over 36 characters may not fit the 64 of {shown} as a token; such messages are refused"
            ),
            "have ids of at most 36 characters, or hash them",
        ),
        "fpe-domain" => (
            format!("`{name}`: a value of five digits has fewer than 10^6 forms and is refused at {shown}"),
            "generalize it, or use a larger alphabet",
        ),
        "shift-live" => (
            "shift: on a live route the recipient can learn offsets from the times at which messages arrive".to_owned(),
            "shift for batches; on live routes generalize dates, or know that the offset is no secret there",
        ),
        _ => (
            format!("`{name}` decides nothing: other rules come before it everywhere"),
            "remove it, or move it before the rule that hides it",
        ),
    };
    Warning { code, at, what, advice: advice.to_owned() }
}

/// What becomes of shifted dates in resources that name no patient.
fn without_subject(rules: &Compiled) -> Option<Warning> {
    if !rules.rules.iter().any(|r| matches!(r.action, Action::Shift { .. })) {
        return None;
    }
    let becomes = match rules.no_subject {
        NoSubject::Own => return None,
        NoSubject::Remove => "are removed",
        NoSubject::Year => "are cut to their year",
        NoSubject::Refuse => "refuse their message",
    };
    let resources = rules.schema().types().filter(|(_, d)| d.category == Category::Resource);
    let about_nobody =
        resources.filter(|(_, d)| about::subject(rules.release, d.name) == Some(Subject::Nobody)).count();
    Some(Warning {
        code: "shift-subject",
        at: At::FILE,
        what: format!("shift: dates of {about_nobody} resource types that are about no one patient {becomes}"),
        advice: "that is what `no_subject` says; `own` moves them by an offset of the resource's own".to_owned(),
    })
}
