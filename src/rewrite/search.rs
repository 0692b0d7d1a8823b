//! Searches and conditions: `Patient?identifier=system|value`, `_id=1,2`, `subject=Patient/1`, in URLs, headers, forms and bodies.
//!
//! Pseudonyms answer equality and nothing else. What equality can answer is rewritten value by value, every other byte of the query stays;
//! what it cannot answer is refused with advice, because a search that silently finds nothing, or finds the wrong patient, is
//! worse than a no. A parameter that this release does not define is refused: nobody knows what it carries.

use super::dates;
use super::engine::Engine;
use super::form::is_formed;
use super::json::Direction;
use super::reference::{PAGE, Subject, Way};
use super::refusal::Code;
use crate::action::generalize::To;
use crate::action::shift::{self, Offset};
use crate::fhir::date::FhirDate;
use crate::fhir::reference::{RequestUrl, Shape};
use crate::fhir::search::{Parameter, ParameterType, Place};
use crate::fhir::{Kind, Primitive, about, words};
use crate::limits;
use crate::rules::automaton::{Automaton, NO_SWITCH, Node, StateId};
use crate::rules::cell::Check;
use crate::rules::{Action, DateKind, Method, Role};
use crate::secret::Phi;
use crate::token::{ClassKeys, Form, Revealed, Seen, danger};

/// A code system of HL7: whatever keeps codes of standard systems keeps its codes.
const HL7_SYSTEM: &str = "http://terminology.hl7.org/CodeSystem/observation-category";

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
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(b as char),
            b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b'@' | b'!' | b'*' | b'\'' | b'(' | b')' => out.push(b as char),
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
    /// It is what this method makes of it.
    Other(u16),
    /// It did not cross.
    Removed,
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
            changed |= self.parameter(resource_type, query, name, value, out, way)?;
        }
        Ok(changed)
    }

    fn parameter(
        &self,
        resource_type: &str,
        query: &str,
        name: &str,
        raw: &str,
        out: &mut String,
        way: &mut Way<'_>,
    ) -> Changed {
        let (code, modifier) = match name.split_once(':') {
            Some((code, modifier)) => (code, Some(modifier)),
            None => (name, None),
        };
        if steers(code) {
            let value = Value::read(raw)?;
            let text = value.text(0..value.units.len())?;
            let plain = modifier.is_none() || matches!((code, modifier), ("_include" | "_revinclude", Some("iterate")));
            let sorts = self.asked(way) && code == "_sort" && !self.sorts_by_kept(resource_type, &text);
            return if sorts {
                Err(Code::SearchUnanswerable)
            } else if plain && self.steered(resource_type, code, &text) {
                out.push_str(raw);
                Ok(false)
            } else {
                Err(Code::SearchUnknown)
            };
        }
        if name.contains('.') {
            return Err(Code::SearchUnanswerable); // a chain
        }
        let defined = self.rules.parameter(resource_type, code);
        let Some(defined) = defined else {
            return Err(if code == "_has" { Code::SearchUnanswerable } else { Code::SearchUnknown });
        };
        let value = Value::read(raw)?;
        let parts = value.split(0..value.units.len(), b',');
        if parts.len() > limits::SEARCH_VALUES_MAX {
            return Err(Code::BadUrl);
        }
        let mut changed = false;
        let mut written: Vec<std::ops::Range<usize>> = Vec::new();
        for (n, part) in parts.into_iter().enumerate() {
            let mark = out.len();
            if n > 0 {
                out.push(',');
            }
            let from = out.len();
            changed |= match defined.kind {
                ParameterType::Date if modifier.is_none() => {
                    self.date(resource_type, query, defined, value.text(part.clone())?, value.raw(part), out, way)?
                }
                _ => self.one_value(resource_type, code, modifier, defined, &value, part, out, way)?,
            };
            // One value went out as several pseudonyms: back it is one again.
            if !way.is_out() && from < out.len() {
                if written.iter().any(|before| out[before.clone()] == out[from..]) {
                    out.truncate(mark);
                    changed = true;
                } else {
                    written.push(from..out.len());
                }
            }
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
                let roots: Vec<StateId> = defined
                    .places
                    .iter()
                    .filter_map(|p| self.rules.automaton.state_at(resource_type, p.path))
                    .collect();
                if roots.len() != defined.places.len() {
                    return Err(Code::SearchUnanswerable);
                }
                self.identifier_value(resource_type, &roots, value, part, out, way)
            }
            ParameterType::Token if modifier.is_none() && !defined.places.is_empty() => {
                let text = value.text(part.clone())?;
                let coded = |kind| is(kind, "CodeableConcept") || is(kind, "Coding");
                let coding = |place: &Place| {
                    if is(place.kind, "Coding") { place.path.to_owned() } else { format!("{}.coding", place.path) }
                };
                if defined.places.iter().all(|place| coded(place.kind)) {
                    let codings: Vec<String> = defined.places.iter().map(coding).collect();
                    if words::is_word(&text) {
                        return self.bare_code(resource_type, &codings, &text, out, way);
                    }
                    let behind = out.ends_with(',');
                    if behind && !way.is_out() && self.is_pseudonym_of_word(resource_type, &codings, &text, way) {
                        out.pop(); // the comma: it was put behind its word
                        return Ok(true);
                    }
                }
                let automaton = &self.rules.automaton;
                let formed = |check, text: &str| is_formed(automaton, check, text.as_bytes(), false);
                let kept = defined.places.iter().all(|place| match place.kind {
                    // In the form in which a body may have it.
                    Kind::Primitive(primitive) => {
                        let word = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                            && text.len() <= 32;
                        let said = match primitive {
                            Primitive::Boolean => matches!(&*text, "true" | "false"),
                            _ => word,
                        };
                        let state = automaton.state_at(resource_type, place.path);
                        let leaf = state.and_then(|s| automaton.leaf(s));
                        said && leaf.is_some_and(|l| l.action == Action::Keep && formed(l.check, &text))
                    }
                    kind if coded(kind) => {
                        // Only a code of a system whose codes cross in clear: nobody else's code is safe to ask for in clear.
                        let parts = value.split(part.clone(), b'|');
                        let read = |part: &std::ops::Range<usize>| value.text(part.clone()).unwrap_or_default();
                        match &parts[..] {
                            [system, code] => {
                                let (system, code) = (read(system), read(code));
                                let fits = |check| code.is_empty() || formed(check, &code);
                                formed(Check::CodingSystem, &system)
                                    && self.code_is_kept(resource_type, &coding(place), &system, fits)
                            }
                            _ => false,
                        }
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

    /// A date, perhaps behind a prefix (`ge2015-01-01`). Where the dates that it looks at are shifted it moves with the one patient whom the
    /// same search names; without one it would find other days than were asked for. So would a year or a month, which are
    /// spans that the shifted calendar does not have.
    fn date(
        &self,
        resource_type: &str,
        query: &str,
        defined: &Parameter,
        text: String,
        raw: &str,
        out: &mut String,
        way: &mut Way<'_>,
    ) -> Changed {
        let schema = self.rules.schema();
        let mut actions = Vec::new();
        for place in &defined.places {
            let inner: &[&str] = match place.kind {
                Kind::Primitive(_) => &[""],
                Kind::Complex(id) if schema.definition(id).name == "Period" => &[".start", ".end"],
                Kind::Complex(id) if schema.definition(id).name == "Timing" => &[".event"],
                _ => return Err(Code::SearchUnanswerable),
            };
            for end in inner {
                let leaf = self.rules.automaton.state_at(resource_type, &format!("{}{end}", place.path));
                match leaf.and_then(|state| self.rules.automaton.leaf(state)) {
                    Some(leaf) if matches!(leaf.role, Role::Date(DateKind::Event | DateKind::Server)) => {
                        actions.push(leaf.action);
                    }
                    _ => return Err(Code::SearchUnanswerable),
                }
            }
        }
        let Some(&action) = actions.first() else { return Err(Code::SearchUnanswerable) };
        if actions.iter().any(|other| *other != action) {
            return Err(Code::SearchUnanswerable);
        }
        let (prefix, date) = match text.get(..2).filter(|prefix| prefix.bytes().all(|b| b.is_ascii_lowercase())) {
            Some("eq" | "ne" | "gt" | "lt" | "ge" | "le" | "sa" | "eb" | "ap") => text.split_at(2),
            Some(_) => return Err(Code::SearchUnknown),
            None => ("", text.as_str()),
        };
        let date = FhirDate::parse(Primitive::DateTime, date).map_err(|_| Code::SearchUnanswerable)?;
        let (days, weekday) = match action {
            Action::Keep => {
                out.push_str(raw);
                return Ok(false);
            }
            Action::Shift { days, weekday } => (days, weekday),
            // Over there they are years: the year finds what was asked for, and more.
            Action::Other { method, .. } if matches!(prefix, "" | "eq" | "ge" | "le") => {
                match &self.rules.methods[method as usize] {
                    Method::Generalize(To::Year) => {}
                    Method::Generalize(To::Age90 { as_of, .. }) if date.year() + 90 > as_of.0 => {}
                    _ => return Err(Code::SearchUnanswerable),
                }
                let year = text.get(..prefix.len() + 4).filter(|_| way.is_out() || self.calls_in).unwrap_or(raw);
                out.push_str(year);
                return Ok(year != raw);
            }
            _ => return Err(Code::SearchUnanswerable),
        };
        let subject = self.searched_subject(resource_type, query, way.is_out()).ok_or(Code::SearchUnanswerable)?;
        if date.day().is_none() || date.is_sentinel() {
            return Err(Code::SearchUnanswerable);
        }
        if !way.is_out() && !self.allows(way.permit(), self.seals.class()) {
            way.stayed += 1;
            out.push_str(raw);
            return Ok(false);
        }
        let offset = shift::offset(&self.shift, Offset::Event, &subject, days, weekday);
        let moved = dates::shift(&date, if way.is_out() { offset } else { -offset })?;
        if !way.is_out() {
            way.revealed.push(self.seals.class().clone());
        }
        out.push_str(prefix);
        write_value(&moved.to_string(), out);
        Ok(true)
    }

    /// The key of the one patient to whom a search is bound by a parameter for the subject of what it looks for.
    fn searched_subject(&self, resource_type: &str, query: &str, out: bool) -> Option<String> {
        let subjects = about::subject(self.rules.release, resource_type);
        let Some(about::Subject::References(subjects)) = subjects else { return None };
        let direction = if out { Direction::Out } else { Direction::Back };
        let mut found = None;
        for (name, raw) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let (code, modifier) = name.split_once(':').map_or((name, None), |(code, modifier)| (code, Some(modifier)));
            let Some(defined) = self.rules.parameter(resource_type, code) else { continue };
            let named = |place: &Place| subjects.split('|').any(|subject| subject == place.path);
            let names = !defined.places.is_empty() && defined.places.iter().all(named);
            if defined.kind != ParameterType::Reference || !names {
                continue;
            }
            let value = Value::read(raw).ok()?;
            let text = value.text(0..value.units.len()).ok()?;
            let patient = matches!((modifier, defined.targets), (Some("Patient"), _) | (None, ["Patient"]));
            let key = match self.subject_key(&text, direction) {
                Subject::Patient(key) => key,
                _ if patient && crate::fhir::reference::is_id(&text) => self.trusted_id("Patient", &text, direction)?,
                _ => return None,
            };
            if found.replace(key).is_some() {
                return None;
            }
        }
        found
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
        resource_type: &str,
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
            if !is_system(&self.rules.automaton, &named) {
                return Err(Code::SearchUnknown);
            }
            out.push_str(value.raw(part)); // any value of this system
            return Ok(false);
        }
        let text = value.text(last.clone())?;
        let system = system.map(|s| value.text(s)).transpose()?;
        // `value|system`, a common slip, would ask for the value in clear.
        if way.is_out() && system.as_deref().is_some_and(|s| !s.is_empty() && !is_system(&self.rules.automaton, s)) {
            return Err(Code::SearchUnknown);
        }
        let mut looked: Vec<Looked> = Vec::new();
        for &place in places {
            for state in self.variants(place, system.as_deref()) {
                let next = self.looked_for(state)?;
                let known = |l: &Looked| {
                    matches!((l, &next), (Looked::Kept, Looked::Kept))
                        || matches!((l, &next), (Looked::Token(a), Looked::Token(b)) if a == b)
                        || matches!((l, &next), (Looked::Other(a), Looked::Other(b)) if a == b)
                        || matches!((l, &next), (Looked::Removed, Looked::Removed))
                };
                if !looked.iter().any(known) {
                    looked.push(next);
                }
            }
        }
        let mut alternatives: Vec<String> = Vec::new();
        let mut changed = false;
        // Coming back it is of one of the classes, or of none.
        let back = !way.is_out() && !self.asked(way) && looked.iter().any(|l| matches!(l, Looked::Token(_)));
        if back {
            let mut word = String::new();
            let stayed = way.stayed;
            for one in &looked {
                let Looked::Token(class) = one else { continue };
                word.clear();
                if self.identifier(&self.classes[*class], &text, &mut word, way)? {
                    changed = true;
                    break;
                }
            }
            if changed {
                way.stayed = stayed;
            } else {
                way.stayed = way.stayed.min(stayed + 1);
            }
            let mut written = String::new();
            write_value(&word, &mut written);
            alternatives.push(if changed { written } else { value.raw(last.clone()).to_owned() });
        }
        for one in looked.iter().filter(|_| !back) {
            match one {
                Looked::Kept => alternatives.push(value.raw(last.clone()).to_owned()),
                // No search can ask for it. A reference by it still says which records belong together: as an id of that type would.
                Looked::Removed if self.asked(way) => return Err(Code::SearchUnanswerable),
                Looked::Removed => {
                    let keys = self.ids.get(resource_type).filter(|_| way.linking).ok_or(Code::SearchUnanswerable)?;
                    let mut word = String::new();
                    changed |= self.value(keys, &text, None, false, &mut word, way)?;
                    let mut written = String::new();
                    write_value(&word, &mut written);
                    alternatives.push(written);
                }
                // No caller outside may ask by what it cannot know.
                Looked::Other(_) if self.asked(way) => return Err(Code::SearchUnanswerable),
                // Coming back nothing of it is undone.
                Looked::Other(_) if !way.is_out() => alternatives.push(value.raw(last.clone()).to_owned()),
                Looked::Other(method) => {
                    changed = true;
                    let word = self.searched(*method, &text).ok_or(Code::SearchUnanswerable)?;
                    let mut written = String::new();
                    write_value(&word, &mut written);
                    alternatives.push(written);
                }
                // Yes or no to a true identifier would be a disclosure: only tokens are looked for, each in its own class.
                Looked::Token(class) if self.asked(way) => {
                    let (mut word, mut written) = (String::new(), String::new());
                    let stayed = way.stayed;
                    match self.classes[*class].recognise(&text) {
                        Seen::Foreign => return Err(Code::SearchUnanswerable),
                        Seen::LookAlike if looked.len() > 1 => continue,
                        Seen::Token | Seen::LookAlike => {}
                    }
                    changed |= self.identifier(&self.classes[*class], &text, &mut word, way)?;
                    if way.stayed > stayed {
                        return Err(Code::Unresolved);
                    }
                    write_value(&word, &mut written);
                    alternatives.push(written);
                }
                Looked::Token(class) => {
                    let keys = &self.classes[*class];
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

    /// Whether this way is that of a caller outside who asks.
    pub(super) fn asked(&self, way: &Way<'_>) -> bool {
        self.calls_in && !way.is_out()
    }

    /// Whether an order tells nothing that does not cross in clear: by primitives only that all stay.
    fn sorts_by_kept(&self, resource_type: &str, text: &str) -> bool {
        text.split(',').all(|one| {
            let parameter = self.rules.parameter(resource_type, one.strip_prefix('-').unwrap_or(one));
            parameter.is_some_and(|parameter| {
                !parameter.places.is_empty()
                    && parameter.places.iter().all(|place| {
                        let leaf = self
                            .rules
                            .automaton
                            .state_at(resource_type, place.path)
                            .and_then(|s| self.rules.automaton.leaf(s));
                        leaf.is_some_and(|leaf| leaf.action == Action::Keep)
                    })
            })
        })
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
            let outcomes: Vec<usize> = match system {
                Some(system) if members[test.edge as usize].name == "system" => {
                    vec![test.outcome(Some(system.as_bytes()))]
                }
                _ => (0..test.outcomes()).collect(),
            };
            numbers = numbers.iter().flat_map(|n| outcomes.iter().map(move |o| n * test.outcomes() + o)).collect();
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
                Action::Other { method, .. } => Ok(Looked::Other(method)),
                Action::Remove => Ok(Looked::Removed),
                _ => Err(Code::SearchUnanswerable),
            },
            _ => Err(Code::SearchUnanswerable),
        }
    }

    /// A code of HL7's own without its system means any system: as itself for the systems whose codes cross in clear, and as the
    /// pseudonyms that it has in all others.
    fn bare_code(
        &self,
        resource_type: &str,
        codings: &[String],
        code: &str,
        out: &mut String,
        way: &Way<'_>,
    ) -> Changed {
        if !codings.iter().all(|coding| self.code_is_kept(resource_type, coding, HL7_SYSTEM, |_| true)) {
            return Err(Code::SearchUnanswerable);
        }
        out.push_str(code);
        if !way.is_out() || way.hash.is_some() || way.forgotten {
            return Ok(false);
        }
        let classes = self.code_classes(resource_type, codings);
        for keys in &classes {
            for token in keys.every_token(&Phi::new(code), Form::default()).map_err(|_| Code::BadUrl)? {
                out.push(',');
                out.push_str(&token);
            }
        }
        Ok(!classes.is_empty())
    }

    /// Coming back, whether this is what [`Engine::bare_code`] added.
    fn is_pseudonym_of_word(&self, resource_type: &str, codings: &[String], text: &str, way: &mut Way<'_>) -> bool {
        let Some(permit) = way.permit() else { return false };
        self.code_classes(resource_type, codings).into_iter().any(|keys| match keys.reidentify(text, permit) {
            // Exposed to be compared with words that are public.
            Revealed::Plain(phi, _) => words::is_word(phi.expose()),
            _ => false,
        })
    }

    /// The classes of codes whose system is not listed.
    fn code_classes(&self, resource_type: &str, codings: &[String]) -> Vec<&ClassKeys> {
        let automaton = &self.rules.automaton;
        let mut classes = Vec::new();
        for state in codings.iter().filter_map(|coding| automaton.state_at(resource_type, coding)) {
            for variant in self.variants(state, None) {
                let Node::Object { shape, row } = automaton.states[variant as usize].node else { continue };
                let edge = automaton.shapes[shape as usize].edge(b"code");
                let leaf = edge.and_then(|edge| automaton.leaf(automaton.target(row, edge)));
                match leaf.map(|leaf| leaf.action) {
                    Some(Action::Token { class, .. }) if !classes.contains(&class) => classes.push(class),
                    _ => {} // kept, gone, or one way: no other spelling finds it
                }
            }
        }
        classes.into_iter().map(|class| &self.classes[usize::from(class)]).collect()
    }

    fn code_is_kept(&self, resource_type: &str, coding: &str, system: &str, fits: impl Fn(Check) -> bool) -> bool {
        let automaton = &self.rules.automaton;
        let Some(state) = self.rules.automaton.state_at(resource_type, coding) else { return false };
        !system.is_empty()
            && self.variants(state, Some(system)).into_iter().all(|variant| {
                let Node::Object { shape, row } = automaton.states[variant as usize].node else { return false };
                let edge = automaton.shapes[shape as usize].edge(b"code");
                edge.and_then(|e| automaton.leaf(automaton.target(row, e)))
                    .is_some_and(|l| l.action == Action::Keep && fits(l.check))
            })
    }

    /// A request of FHIR's REST interface: on the wire, or in a Bundle entry.
    pub(super) fn rest_url(&self, url: &RequestUrl<'_>, out: &mut String, way: &mut Way<'_>) -> Changed {
        if url.slash {
            out.push('/');
        }
        let mut changed = false;
        let mut searched = "Resource";
        // Its answers would go where nobody rewrites them.
        let subscribes = matches!(&url.shape, Shape::Type { resource_type } | Shape::TypeSearch { resource_type }
            | Shape::Instance { resource_type, .. } | Shape::InstanceOperation { resource_type, .. } if resource_type == "Subscription");
        if subscribes && self.asked(way) {
            return Err(Code::OperationRefused);
        }
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
            // How a subscription fares: no parameter carries anything, and the answer is decided like any other.
            Shape::InstanceOperation { resource_type, id, operation }
                if resource_type == "Subscription" && operation == "$status" && url.query.is_none() =>
            {
                out.push_str("Subscription/");
                changed |= self.resource_id("Subscription", id, out, way)?;
                out.push_str("/$status");
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
    pub(super) fn page(&self, target: &str, caller: &str) -> Option<Result<String, Code>> {
        let (_, query) = target.split_once('?')?;
        let token = query.strip_prefix(PAGE)?.strip_prefix('=')?;
        // It came from the untrusted side and goes back there unchanged: nothing is shown to anybody.
        Some(match danger::open(&self.links, token) {
            Some(link) if self.calls_in => match link.expose().split_once('\n') {
                Some((to, rest)) if to == caller && (rest.is_empty() || rest.starts_with(['/', '?'])) => {
                    Ok(rest.to_owned())
                }
                _ => Err(Code::LookAlike),
            },
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

/// An absolute URI, as the systems of identifiers and codes are: with an authority or a namespace, since `MRN:4711` has a colon too.
fn is_system(automaton: &Automaton, text: &str) -> bool {
    let scheme = text.split(':').next().unwrap_or_default();
    let named = scheme.len() < text.len() && scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let rest = text.get(scheme.len() + 1..).unwrap_or_default();
    named
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        && (rest.starts_with('/') || scheme.eq_ignore_ascii_case("urn") && rest.contains(':'))
        && !text.contains('|')
        && is_formed(automaton, Check::CodingSystem, text.as_bytes(), false)
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
        match code {
            "_count" => !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit()),
            "_pretty" => matches!(text, "true" | "false"),
            "_format" => matches!(text, "json" | "application/json" | "application/fhir+json"),
            "_summary" => matches!(text, "true" | "false" | "text" | "data" | "count"),
            "_total" => matches!(text, "none" | "estimate" | "accurate"),
            "_sort" => {
                text.split(',').all(|p| self.rules.parameter(resource_type, p.strip_prefix('-').unwrap_or(p)).is_some())
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
                        target && (param == "*" || self.rules.parameter(source, param).is_some())
                    }
                    _ => false,
                }
            }),
            _ => false,
        }
    }
}
