//! Searches and conditions: `Patient?identifier=system|value`, `_id=1,2`, `subject=Patient/1`, in URLs, headers, forms and bodies.
//!
//! Pseudonyms answer equality and nothing else. What equality can answer is rewritten value by value, every other byte of the query stays;
//! what it cannot answer is refused with advice, because a search that silently finds nothing, or finds the wrong patient, is
//! worse than a no. A parameter that this release does not define is refused: nobody knows what it carries.

use super::engine::Engine;
use super::reference::{PAGE, Way};
use super::refusal::Code;
use crate::fhir::Kind;
use crate::fhir::reference::{RequestUrl, Shape};
use crate::fhir::search::{Parameter, ParameterType, parameter};
use crate::limits;
use crate::rules::automaton::{NO_SWITCH, Node, StateId};
use crate::rules::{Action, Role};
use crate::secret::Phi;
use crate::token::{Form, Seen, danger};

/// One byte of a value after percent-decoding, and where it stands in the raw text.
struct Unit {
    byte: u8,
    start: usize,
    end: usize,
}

/// A value of a parameter taken apart without losing its spelling.
struct Value<'q> {
    raw: &'q str,
    units: Vec<Unit>,
}

impl<'q> Value<'q> {
    /// Percent-decodes once; `+` is a space. Control characters are refused.
    fn read(raw: &'q str) -> Result<Self, Code> {
        let bytes = raw.as_bytes();
        let mut units = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let (byte, end) = match bytes[at] {
                b'%' => {
                    let hex = raw
                        .get(at + 1..at + 3)
                        .filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()))
                        .ok_or(Code::BadUrl)?;
                    (u8::from_str_radix(hex, 16).map_err(|_| Code::BadUrl)?, at + 3)
                }
                b'+' => (b' ', at + 1),
                other => (other, at + 1),
            };
            if byte < 0x20 || byte == 0x7F {
                return Err(Code::BadUrl);
            }
            units.push(Unit { byte, start: at, end });
            at = end;
        }
        Ok(Value { raw, units })
    }

    /// Ranges of units between unescaped separators (search.html#escaping).
    fn split(&self, range: std::ops::Range<usize>, separator: u8) -> Vec<std::ops::Range<usize>> {
        let mut parts = Vec::new();
        let (mut from, mut at) = (range.start, range.start);
        while at < range.end {
            match self.units[at].byte {
                b'\\' => at += 1,
                b if b == separator => {
                    parts.push(from..at);
                    from = at + 1;
                }
                _ => {}
            }
            at += 1;
        }
        parts.push(from..range.end);
        parts
    }

    /// The text of a range, FHIR escapes taken off.
    fn text(&self, range: std::ops::Range<usize>) -> Result<String, Code> {
        let mut bytes = Vec::with_capacity(range.len());
        let mut units = self.units[range].iter();
        while let Some(unit) = units.next() {
            match unit.byte {
                b'\\' => match units.next().map(|u| u.byte) {
                    Some(b @ (b'\\' | b',' | b'$' | b'|')) => bytes.push(b),
                    _ => return Err(Code::SearchUnknown),
                },
                b => bytes.push(b),
            }
        }
        String::from_utf8(bytes).map_err(|_| Code::BadUrl)
    }

    /// The raw spelling of a range.
    fn raw(&self, range: std::ops::Range<usize>) -> &'q str {
        match (self.units.get(range.start), range.end.checked_sub(1).and_then(|e| self.units.get(e))) {
            (Some(first), Some(last)) if range.start < range.end => &self.raw[first.start..last.end],
            _ => "",
        }
    }
}

/// Writes text as part of a search value: FHIR escapes, then percent-encoding of whatever a URL or form could take for its own.
fn write_value(text: &str, out: &mut String) {
    for &b in text.as_bytes() {
        match b {
            b',' | b'$' | b'|' | b'\\' => {
                out.push_str("%5C");
                out.push_str(&format!("%{b:02X}"));
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b'@' => {
                out.push(b as char)
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
}

/// What happens to an Identifier's value where a search looks for it.
enum Looked {
    /// It stands in clear.
    Kept,
    /// It is a token of this class.
    Token(usize),
}

type Changed = Result<bool, Code>;

impl Engine {
    /// A search on one type, without its `?`: a condition, a conditional reference, the query of a URL, a form.
    pub(super) fn condition(&self, resource_type: &str, query: &str, out: &mut String, way: &mut Way<'_>) -> Changed {
        if query.len() > limits::URL_BYTES_MAX {
            return Err(Code::BadUrl);
        }
        let root = resource_type == "Resource" || self.rules.schema().resource(resource_type).is_some();
        if !root {
            return Err(Code::BadUrl);
        }
        let mut changed = false;
        for (n, pair) in query.split('&').enumerate() {
            if n >= limits::SEARCH_VALUES_MAX {
                return Err(Code::BadUrl);
            }
            if n > 0 {
                out.push('&');
            }
            let (name, value) = pair.split_once('=').ok_or(Code::SearchUnknown)?;
            if name.len() > limits::NAME_BYTES_MAX
                || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b':' | b'.'))
            {
                return Err(Code::SearchUnknown);
            }
            out.push_str(name);
            out.push('=');
            changed |= self.parameter(resource_type, name, value, out, way)?;
        }
        Ok(changed)
    }

    fn parameter(&self, resource_type: &str, name: &str, raw: &str, out: &mut String, way: &mut Way<'_>) -> Changed {
        let (code, modifier) = match name.split_once(':') {
            Some((code, modifier)) => (code, Some(modifier)),
            None => (name, None),
        };
        if steers(code) {
            let value = Value::read(raw)?;
            let text = value.text(0..value.units.len())?;
            let plain = modifier.is_none() || matches!((code, modifier), ("_include" | "_revinclude", Some("iterate")));
            return if plain && self.steered(resource_type, code, &text) {
                out.push_str(raw);
                Ok(false)
            } else {
                Err(Code::SearchUnknown)
            };
        }
        if name.contains('.') {
            return Err(Code::SearchUnanswerable); // a chain
        }
        let defined = parameter(self.rules.release, resource_type, code);
        let Some(defined) = defined else {
            return Err(if code == "_has" { Code::SearchUnanswerable } else { Code::SearchUnknown });
        };
        let value = Value::read(raw)?;
        let parts = value.split(0..value.units.len(), b',');
        if parts.len() > limits::SEARCH_VALUES_MAX {
            return Err(Code::BadUrl);
        }
        let mut changed = false;
        for (n, part) in parts.into_iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            changed |= self.one_value(resource_type, code, modifier, defined, &value, part, out, way)?;
        }
        Ok(changed)
    }

    fn one_value(
        &self,
        resource_type: &str,
        code: &str,
        modifier: Option<&str>,
        defined: &Parameter,
        value: &Value<'_>,
        part: std::ops::Range<usize>,
        out: &mut String,
        way: &mut Way<'_>,
    ) -> Changed {
        let schema = self.rules.schema();
        let is = |kind: Kind, name: &str| matches!(kind, Kind::Complex(id) if schema.definition(id).name == name);
        if code == "_id" {
            let id = value.text(part)?;
            return match modifier {
                None if resource_type != "Resource" => self.resource_id(resource_type, &id, out, way),
                _ => Err(Code::SearchUnanswerable),
            };
        }
        match defined.kind {
            ParameterType::Reference => {
                let text = value.text(part.clone())?;
                match modifier {
                    Some("identifier") => Err(Code::SearchUnanswerable),
                    Some(target) if schema.resource(target).is_some() => {
                        self.bare_reference(&text, &[target], out, way)
                    }
                    Some(_) => Err(Code::SearchUnknown),
                    None => self.bare_reference(&text, defined.targets, out, way),
                }
            }
            ParameterType::Token
                if !defined.places.is_empty() && defined.places.iter().all(|p| is(p.kind, "Identifier")) =>
            {
                if modifier.is_some() {
                    return Err(Code::SearchUnanswerable);
                }
                let roots: Vec<StateId> =
                    defined.places.iter().filter_map(|p| self.state_at(resource_type, p.path)).collect();
                if roots.len() != defined.places.len() {
                    return Err(Code::SearchUnanswerable);
                }
                self.identifier_value(&roots, value, part, out, way)
            }
            ParameterType::Token if modifier.is_none() && !defined.places.is_empty() => {
                let text = value.text(part.clone())?;
                let coded = |kind| is(kind, "CodeableConcept") || is(kind, "Coding");
                let kept = defined.places.iter().all(|place| match place.kind {
                    Kind::Primitive(_) => {
                        let word = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                            && text.len() <= 32;
                        word && self
                            .state_at(resource_type, place.path)
                            .and_then(|s| self.rules.automaton.leaf(s))
                            .is_some_and(|l| l.action == Action::Keep)
                    }
                    kind if coded(kind) => {
                        // Only a code of a system whose codes cross in clear: nobody else's code is safe to ask for in clear.
                        let parts = value.split(part.clone(), b'|');
                        let coding =
                            if is(kind, "Coding") { place.path.to_owned() } else { format!("{}.coding", place.path) };
                        parts.len() == 2
                            && self.code_is_kept(
                                resource_type,
                                &coding,
                                &value.text(parts[0].clone()).unwrap_or_default(),
                            )
                    }
                    _ => false,
                });
                if !kept {
                    return Err(Code::SearchUnanswerable);
                }
                out.push_str(value.raw(part));
                Ok(false)
            }
            _ => Err(Code::SearchUnanswerable),
        }
    }

    /// A reference as a search spells it: also a bare id, where the type is clear.
    fn bare_reference(&self, text: &str, targets: &[&str], out: &mut String, way: &mut Way<'_>) -> Changed {
        if crate::fhir::reference::is_id(text) {
            return match targets {
                [target] => self.resource_id(target, text, out, way),
                _ => Err(Code::SearchUnanswerable),
            };
        }
        let mut word = String::new();
        let changed = self.reference(text, &[], &mut word, way)?;
        if word.contains('?') || word.starts_with('#') {
            return Err(Code::SearchUnanswerable);
        }
        write_value(&word, out);
        Ok(changed)
    }

    /// `system|value`, `|value`, `system|`, `value`.
    fn identifier_value(
        &self,
        places: &[StateId],
        value: &Value<'_>,
        part: std::ops::Range<usize>,
        out: &mut String,
        way: &mut Way<'_>,
    ) -> Changed {
        let parts = value.split(part.clone(), b'|');
        let (system, last) = match &parts[..] {
            [last] => (None, last.clone()),
            [system, last] => (Some(system.clone()), last.clone()),
            _ => return Err(Code::SearchUnknown),
        };
        let prefix = system.clone().map(|s| format!("{}|", value.raw(s))).unwrap_or_default();
        if last.is_empty() {
            let named = system.map(|s| value.text(s)).transpose()?.unwrap_or_default();
            if !is_system(&named) {
                return Err(Code::SearchUnknown);
            }
            out.push_str(value.raw(part)); // any value of this system
            return Ok(false);
        }
        let text = value.text(last.clone())?;
        let system = system.map(|s| value.text(s)).transpose()?;
        // `value|system`, a common slip, would ask for the value in clear.
        if way.is_out() && system.as_deref().is_some_and(|s| !s.is_empty() && !is_system(s)) {
            return Err(Code::SearchUnknown);
        }
        let mut looked: Vec<Looked> = Vec::new();
        for &place in places {
            for state in self.variants(place, system.as_deref()) {
                let next = self.looked_for(state)?;
                let known = |l: &Looked| {
                    matches!((l, &next), (Looked::Kept, Looked::Kept))
                        || matches!((l, &next), (Looked::Token(a), Looked::Token(b)) if a == b)
                };
                if !looked.iter().any(known) {
                    looked.push(next);
                }
            }
        }
        let mut alternatives: Vec<String> = Vec::new();
        let mut changed = false;
        for one in &looked {
            match one {
                Looked::Kept => alternatives.push(value.raw(last.clone()).to_owned()),
                Looked::Token(class) => {
                    let keys = &self.classes[*class];
                    if !way.is_out() {
                        let mut word = String::new();
                        changed |= self.identifier(keys, &text, &mut word, way)?;
                        let mut written = String::new();
                        write_value(&word, &mut written);
                        alternatives.push(if changed { written } else { value.raw(last.clone()).to_owned() });
                        continue;
                    }
                    changed = true;
                    let plain =
                        keys.recognise(&text) == Seen::Foreign && keys.unescape(&text).is_none() && !is_uri(&text);
                    if plain {
                        let tokens = keys.every_token(&Phi::new(&*text), Form::default()).map_err(|_| Code::BadUrl)?;
                        alternatives.extend(tokens);
                    } else {
                        let mut word = String::new();
                        match self.identifier(keys, &text, &mut word, way) {
                            Ok(_) => {
                                let mut written = String::new();
                                write_value(&word, &mut written);
                                alternatives.push(written);
                            }
                            Err(Code::LookAlike) if looked.len() > 1 => {} // a token of one of the other classes
                            Err(code) => return Err(code),
                        }
                    }
                }
            }
        }
        if alternatives.is_empty() {
            return Err(Code::LookAlike);
        }
        if alternatives.len() > limits::SEARCH_EXPANSION_MAX {
            return Err(Code::SearchUnanswerable);
        }
        for (n, alternative) in alternatives.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            out.push_str(&prefix);
            out.push_str(alternative);
        }
        Ok(changed)
    }

    /// The state of an element by its path below a resource type.
    fn state_at(&self, resource_type: &str, path: &str) -> Option<StateId> {
        let automaton = &self.rules.automaton;
        let mut state = automaton.root(resource_type, false)?;
        for name in path.split('.') {
            let Node::Object { shape, row } = automaton.states[state as usize].node else { return None };
            let edge = automaton.shapes[shape as usize].edge(name.as_bytes())?;
            state = automaton.target(row, edge);
        }
        Some(state)
    }

    /// The decided states of an object whose `system` has this value; all that differ by `system` where it is not known.
    fn variants(&self, state: StateId, system: Option<&str>) -> Vec<StateId> {
        let automaton = &self.rules.automaton;
        let switch = automaton.states[state as usize].switch;
        if switch == NO_SWITCH {
            return vec![state];
        }
        let Node::Object { shape, .. } = automaton.states[state as usize].node else { return vec![state] };
        let members = &automaton.shapes[shape as usize].members;
        let switch = &automaton.switches[switch as usize];
        let mut numbers = vec![0usize];
        for test in &switch.tests {
            let none = test.literals.len();
            let outcomes: Vec<usize> = match system {
                Some(system) if members[test.edge as usize].name == "system" => {
                    vec![test.literals.binary_search_by(|l| l.as_str().cmp(system)).unwrap_or(none)]
                }
                _ => (0..=none).collect(),
            };
            numbers = numbers.iter().flat_map(|n| outcomes.iter().map(move |o| n * (none + 1) + o)).collect();
        }
        numbers.into_iter().map(|n| switch.variants[n]).collect()
    }

    fn looked_for(&self, identifier: StateId) -> Result<Looked, Code> {
        let automaton = &self.rules.automaton;
        let Node::Object { shape, row } = automaton.states[identifier as usize].node else {
            return Err(Code::SearchUnanswerable);
        };
        let edge = automaton.shapes[shape as usize].edge(b"value").ok_or(Code::SearchUnanswerable)?;
        match automaton.leaf(automaton.target(row, edge)) {
            Some(leaf) if leaf.role == Role::Identifier => match leaf.action {
                Action::Keep => Ok(Looked::Kept),
                Action::Token { class, .. } => Ok(Looked::Token(class as usize)),
                _ => Err(Code::SearchUnanswerable),
            },
            _ => Err(Code::SearchUnanswerable),
        }
    }

    fn code_is_kept(&self, resource_type: &str, coding: &str, system: &str) -> bool {
        let automaton = &self.rules.automaton;
        let Some(state) = self.state_at(resource_type, coding) else { return false };
        !system.is_empty()
            && self.variants(state, Some(system)).into_iter().all(|variant| {
                let Node::Object { shape, row } = automaton.states[variant as usize].node else { return false };
                let edge = automaton.shapes[shape as usize].edge(b"code");
                edge.and_then(|e| automaton.leaf(automaton.target(row, e))).is_some_and(|l| l.action == Action::Keep)
            })
    }

    /// A request of FHIR's REST interface: on the wire, or in a Bundle entry.
    pub(super) fn rest_url(&self, url: &RequestUrl<'_>, out: &mut String, way: &mut Way<'_>) -> Changed {
        if url.slash {
            out.push('/');
        }
        let mut changed = false;
        let mut searched = "Resource";
        match &url.shape {
            Shape::Root => {}
            Shape::Metadata => out.push_str("metadata"),
            Shape::Type { resource_type } | Shape::TypeSearch { resource_type } => {
                out.push_str(resource_type);
                if matches!(url.shape, Shape::TypeSearch { .. }) {
                    out.push_str("/_search");
                }
                searched = resource_type;
            }
            Shape::Instance { resource_type, id } => {
                out.push_str(resource_type);
                out.push('/');
                changed |= self.resource_id(resource_type, id, out, way)?;
                searched = resource_type;
            }
            Shape::InstanceHistory { resource_type, id } => {
                out.push_str(resource_type);
                out.push('/');
                changed |= self.resource_id(resource_type, id, out, way)?;
                out.push_str("/_history");
                searched = resource_type;
            }
            Shape::Version { resource_type, id, version } => {
                out.push_str(resource_type);
                out.push('/');
                changed |= self.resource_id(resource_type, id, out, way)?;
                out.push_str("/_history/");
                out.push_str(version);
                searched = resource_type;
            }
            Shape::Compartment { resource_type, id, member, search } => {
                out.push_str(resource_type);
                out.push('/');
                changed |= self.resource_id(resource_type, id, out, way)?;
                out.push('/');
                out.push_str(member.as_deref().unwrap_or("*"));
                if *search {
                    out.push_str("/_search");
                }
                searched = member.as_deref().unwrap_or("Resource");
            }
            Shape::SystemSearch
            | Shape::SystemHistory
            | Shape::TypeHistory { .. }
            | Shape::SystemOperation { .. }
            | Shape::TypeOperation { .. }
            | Shape::InstanceOperation { .. } => {
                return Err(Code::OperationRefused);
            }
        }
        if let Some(query) = url.query.filter(|q| !q.is_empty()) {
            let mut rewritten = String::new();
            changed |= self.condition(searched, query, &mut rewritten, way)?;
            out.push('?');
            out.push_str(&rewritten);
        }
        Ok(changed)
    }

    /// The untrusted side's own paging link behind `?_cryptonym-page=TOKEN`, relative to its base.
    pub(super) fn page(&self, target: &str) -> Option<Result<String, Code>> {
        let (_, query) = target.split_once('?')?;
        let token = query.strip_prefix(PAGE)?.strip_prefix('=')?;
        // It came from the untrusted side and goes back there unchanged: nothing is shown to anybody.
        Some(match danger::open(&self.links, token) {
            // Only what is below our upstream's base: a link to another host is not followed for anybody.
            Some(link) if link.expose().is_empty() || link.expose().starts_with(['/', '?']) => {
                Ok(link.expose().to_owned())
            }
            Some(_) => Err(Code::BadUrl),
            None => Err(Code::LookAlike),
        })
    }
}

fn is_uri(text: &str) -> bool {
    text.starts_with("urn:") || text.starts_with("http://") || text.starts_with("https://")
}

/// An absolute URI, as the systems of identifiers and codes are.
fn is_system(text: &str) -> bool {
    let scheme = text.split(':').next().unwrap_or_default();
    let named = scheme.len() < text.len() && scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    named
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        && !text.contains([' ', '"', '<', '>', '|'])
}

/// Parameters that steer the answer.
fn steers(code: &str) -> bool {
    matches!(
        code,
        "_count" | "_sort" | "_elements" | "_include" | "_revinclude" | "_summary" | "_total" | "_format" | "_pretty"
    )
}

impl Engine {
    /// Whether the value of a steering parameter is made of words of the specification: anything else could carry identity.
    fn steered(&self, resource_type: &str, code: &str, text: &str) -> bool {
        let schema = self.rules.schema();
        let release = self.rules.release;
        match code {
            "_count" => !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit()),
            "_pretty" => matches!(text, "true" | "false"),
            "_format" => matches!(text, "json" | "application/json" | "application/fhir+json"),
            "_summary" => matches!(text, "true" | "false" | "text" | "data" | "count"),
            "_total" => matches!(text, "none" | "estimate" | "accurate"),
            "_sort" => {
                text.split(',').all(|p| parameter(release, resource_type, p.strip_prefix('-').unwrap_or(p)).is_some())
            }
            "_elements" => {
                let Some(type_id) = schema.resource(resource_type) else { return false };
                text.split(',')
                    .all(|e| schema.declared(type_id, e).next().is_some() || schema.element(type_id, e).is_some())
            }
            "_include" | "_revinclude" => text.split(',').all(|one| {
                let parts: Vec<&str> = one.split(':').collect();
                match parts[..] {
                    ["*"] => true,
                    [source, param] | [source, param, _] if schema.resource(source).is_some() => {
                        let target = parts.get(2).is_none_or(|t| schema.resource(t).is_some());
                        target && (param == "*" || parameter(release, source, param).is_some())
                    }
                    _ => false,
                }
            }),
            _ => false,
        }
    }
}
