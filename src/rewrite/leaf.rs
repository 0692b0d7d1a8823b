//! What happens to one value: the part of the decider that knows keys.
//!
//! Going out a value is kept, removed, shifted or becomes its token; an error refuses the unit. Coming back a value is revealed only if it is a
//! token of the class of its place and the permit allows that class; whatever else it is, it stays.

use super::dates;
use super::decide::{Decided, Decider, Desk, Fate, No, Resource};
use super::reference::{Way, rewrapped};
use super::refusal::Code;
use super::text;
use crate::action::shift::{self, Offset};
use crate::fhir::date::FhirDate;
use crate::names::Class;
use crate::rules::automaton::{Leaf, Shape, StateId};
use crate::rules::{Action, DateKind, Method, NoSubject, Role};
use crate::secret::Phi;
use crate::token::{ClassKeys, Form, Revealed, Seen};
use std::borrow::Cow;

const DIV_OPEN: &str = r#"<div xmlns="http://www.w3.org/1999/xhtml">"#;
const DIV_CLOSE: &str = "</div>";

impl Decider<'_> {
    /// Decides one value.
    pub(super) fn leaf(&mut self, at: u32, leaf: Leaf, resource: &mut Resource) -> Decided<Fate> {
        match (leaf.action, self.out()) {
            (Action::Remove, true) => {
                self.report.removed += 1;
                return Ok(Fate::Goes);
            }
            (Action::Keep | Action::Remove, _) => {}
            (Action::Shift { days, weekday }, true) => return self.shift(at, leaf, days, weekday, resource),
            (Action::Shift { .. }, false) => self.unshift(at, leaf, resource)?,
            (Action::Token { class, pad }, _) => self.token(at, leaf, class, pad, resource)?,
            (Action::Other { method, .. }, true) => return self.act(at, leaf, method, resource),
            (Action::Other { .. }, false) => {}
        }
        Ok(Fate::Stays)
    }

    // === dates ===

    fn shift(&mut self, at: u32, leaf: Leaf, days: u16, weekday: bool, resource: &mut Resource) -> Decided<Fate> {
        let Role::Date(kind) = leaf.role else { return Err(No(Code::BadDate, at)) };
        let text = self.text(at)?;
        let Some(date) = dates::moving(&text, leaf.primitive).map_err(|code| No(code, at))? else {
            return Ok(Fate::Stays);
        };
        let offset = match (&resource.subject, self.engine.rules.no_subject) {
            // A relative's birth is not the patient's: whoever knows the one must not learn the other.
            _ if kind != DateKind::Event && self.type_name != "Patient" && resource.event != u32::MAX => {
                self.own_offset(kind, days, weekday, resource)
            }
            (Some(subject), _) => self.offset(kind, subject, days, weekday),
            (None, NoSubject::Remove) => {
                self.report.removed += 1;
                return Ok(Fate::Goes);
            }
            (None, NoSubject::Refuse) => return Err(No(Code::NoSubject, at)),
            (None, NoSubject::Year) => {
                self.report.shifts += 1;
                self.write_text(at, &dates::year(&text, leaf.primitive));
                return Ok(Fate::Stays);
            }
            // A fragment has no seal to carry an offset of its own.
            (None, NoSubject::Own) if resource.event == u32::MAX => return Err(No(Code::NoSubject, at)),
            (None, NoSubject::Own) => {
                resource.used_own = true;
                self.own_offset(kind, days, weekday, resource)
            }
        };
        resource.offsets[which(kind) as usize] = Some(offset);
        let moved = dates::shift(&date, offset).map_err(|code| No(code, at))?;
        self.report.shifts += 1;
        self.write_date(at, &moved);
        Ok(Fate::Stays)
    }

    /// An offset keyed by the resource itself: its id, else its fullUrl, else its bytes.
    fn own_offset(&mut self, kind: DateKind, days: u16, weekday: bool, resource: &Resource) -> i32 {
        match &resource.own {
            Some(own) => self.offset(kind, own, days, weekday),
            None => {
                let event = self.events[resource.event as usize];
                // Exposed to a keyed hash only.
                let bytes = String::from_utf8_lossy(&self.input[event.start as usize..event.end as usize]);
                shift::offset(&self.engine.shift, which(kind), &bytes, days, weekday)
            }
        }
    }

    /// The offset of a subject, drawn once for all the resources of one subject that follow each other.
    fn offset(&mut self, kind: DateKind, subject: &str, days: u16, weekday: bool) -> i32 {
        let drawn = &mut self.desk.drawn;
        if drawn.0 != subject {
            *drawn = (subject.to_owned(), Default::default());
        }
        let draw = || shift::offset(&self.engine.shift, which(kind), subject, days, weekday);
        *drawn.1[which(kind) as usize].get_or_insert_with(draw)
    }

    /// Nothing in a date needs an escape.
    fn write_date(&mut self, at: u32, date: &FhirDate<'_>) {
        let from = self.desk.arena.len();
        date.write(&mut self.desk.arena);
        self.written(at, from);
    }

    fn unshift(&mut self, at: u32, leaf: Leaf, resource: &mut Resource) -> Decided<()> {
        let Role::Date(kind) = leaf.role else { return Ok(()) };
        let text = self.text(at)?;
        let Ok(Some(date)) = dates::moving(&text, leaf.primitive) else { return Ok(()) };
        match resource.offsets[which(kind) as usize] {
            Some(offset) => {
                if let Ok(moved) = dates::shift(&date, -offset) {
                    self.report.shifts += 1;
                    self.reveals(self.engine.seals.class(), resource);
                    self.write_date(at, &moved);
                }
            }
            None => resource.unsealed |= self.engine.allows(self.permit, self.engine.seals.class()),
        }
        Ok(())
    }

    // === tokens ===

    /// A value at a place whose rule is `token`, in either direction.
    fn token(&mut self, at: u32, leaf: Leaf, class: u16, pad: bool, resource: &mut Resource) -> Decided<()> {
        let spelling = self.spelling(at)?;
        // What a fragment names depends on the resource around, however it is spelled.
        let local = spelling.starts_with('#') || self.events[at as usize].escaped;
        let repeats = matches!(leaf.role, Role::Reference | Role::Identifier | Role::Text) && !local;
        let kind = leaf.rule << 8 | leaf.role.number();
        let from = self.desk.arena.len();
        let Desk { memo, arena, .. } = &mut *self.desk;
        if repeats && let Some(known) = memo.get(kind, spelling) {
            arena.extend_from_slice(known.word.as_bytes());
            let changed = known.changed;
            self.report.stayed += known.stayed;
            resource.revealed |= !known.revealed.is_empty();
            self.desk.reveal_again(kind, spelling);
            if changed {
                self.report.tokens += 1;
                self.written(at, from);
            }
            return Ok(());
        }
        let mut way = if self.out() { Way::out() } else { Way::back(self.permit) };
        let mut word = std::mem::take(&mut self.desk.word);
        word.clear();
        let changed = self.spelled(at, leaf, class, pad, resource, &mut word, &mut way);
        let (changed, raw) = match changed {
            Ok(done) => done,
            Err(code) if self.out() || self.asked() || code == Code::ForeignIdTooLong => return Err(No(code, at)),
            Err(_) => (false, false), // coming back, what cannot be understood stays as it is
        };
        if self.asked() && way.stayed > 0 {
            return Err(No(Code::Unresolved, at));
        }
        if changed {
            self.report.tokens += 1;
            if raw {
                self.desk.arena.extend_from_slice(word.as_bytes());
            } else {
                text::encode(&word, &mut self.desk.arena);
            }
            self.written(at, from);
        }
        self.desk.word = word;
        self.report.stayed += way.stayed;
        for class in &way.revealed {
            self.reveals(class, resource);
        }
        let Desk { memo, arena, .. } = &mut *self.desk;
        if repeats && let Some(known) = memo.put(kind, spelling) {
            known.word.push_str(std::str::from_utf8(&arena[from..]).unwrap_or_default());
            known.changed = changed;
            known.revealed.extend(way.revealed.iter().cloned());
            known.stayed = way.stayed;
        }
        Ok(())
    }

    /// Appends the value's other spelling; whether it differs, and whether it is a JSON spelling already.
    fn spelled(
        &self,
        at: u32,
        leaf: Leaf,
        class: u16,
        pad: bool,
        resource: &Resource,
        word: &mut String,
        way: &mut Way<'_>,
    ) -> Result<(bool, bool), Code> {
        let engine = self.engine;
        let keys = &engine.classes[class as usize];
        let value = self.text(at).map_err(|No(code, _)| code)?;
        let changed = match leaf.role {
            Role::ResourceId => engine.resource_id(self.type_name, &value, word, way),
            Role::ContainedId => engine.contained_id(self.type_name, &value, word, way),
            Role::Reference | Role::FullUrl | Role::Location => {
                engine.reference(&value, &resource.kept_contained, word, way)
            }
            Role::RequestUrl => engine.request_url(&self.method(at).map_err(|No(code, _)| code)?, &value, word, way),
            Role::Link => engine.link(&value, &self.desk.caller, word, way),
            Role::Uri => engine.uri(keys, &value, word, way),
            Role::Identifier => engine.identifier(keys, &value, word, way),
            Role::Base64 => engine.base64(keys, &value, word, way),
            Role::Text | Role::ElementId | Role::CodingSystem | Role::CodingCode | Role::Narrative if way.is_out() => {
                seal_text(keys, leaf.role, self.spelling(at).map_err(|No(code, _)| code)?, &value, pad, word)
            }
            Role::Text | Role::ElementId | Role::CodingSystem | Role::CodingCode | Role::Narrative => {
                if self.engine.rewraps {
                    return Ok((rewrap_text(keys, leaf.role, &value, word, way), false));
                }
                return Ok(open_text(keys, leaf.role, &value, word, way));
            }
            Role::Condition | Role::Date(_) | Role::Scalar => Err(Code::WrongForm),
        };
        changed.map(|changed| (changed, false))
    }

    /// `Bundle.entry.request.ifNoneExist`: a search on the type that the request's url names.
    pub(super) fn condition(
        &mut self,
        at: u32,
        state: StateId,
        request: u32,
        shape: &Shape,
        resource: &mut Resource,
    ) -> Decided<Fate> {
        let Some(&leaf) = self.automaton.leaf(state) else { return Ok(Fate::Stays) };
        let hashed = match leaf.action {
            Action::Token { .. } => None,
            Action::Other { method, .. } if self.out() => match &self.engine.rules.methods[method as usize] {
                Method::Hash { shape, .. } => Some(*shape),
                _ => return self.leaf(at, leaf, resource),
            },
            _ => return self.leaf(at, leaf, resource),
        };
        let value = self.text(at)?;
        let url = match self.member(request, shape, b"url") {
            Some(url) => self.text(url)?,
            None => Cow::Borrowed(""),
        };
        let type_name = url.split(['/', '?']).next().unwrap_or_default();
        // What http.html wants is the part behind `?`; some write the type and the `?` as well.
        let bare =
            value.strip_prefix(type_name).and_then(|rest| rest.strip_prefix('?')).filter(|_| !type_name.is_empty());
        let bare = bare.unwrap_or(&value);
        let mut word = value[..value.len() - bare.len()].to_owned();
        let mut way = match hashed {
            Some(shape) => self.hashing(at, shape)?,
            None if self.out() => Way::out(),
            None => Way::back(self.permit),
        };
        let done = self.engine.condition(type_name, bare, &mut word, &mut way);
        let (stayed, revealed) = (way.stayed, way.revealed);
        match done {
            Ok(true) => {
                self.report.tokens += 1;
                self.write_text(at, &word);
            }
            Ok(false) => {}
            Err(code) if self.out() || self.asked() => return Err(No(code, at)),
            Err(_) => return Ok(Fate::Stays),
        }
        if self.asked() && stayed > 0 {
            return Err(No(Code::Unresolved, at));
        }
        self.report.stayed += stayed;
        for class in &revealed {
            self.reveals(class, resource);
        }
        Ok(Fate::Stays)
    }

    /// Counts a value that this caller gets to see.
    pub(super) fn reveals(&mut self, class: &Class, resource: &mut Resource) {
        resource.revealed = true;
        self.desk.reveals(class);
    }
}

fn which(kind: DateKind) -> Offset {
    match kind {
        DateKind::Event | DateKind::Server => Offset::Event,
        DateKind::Birth => Offset::Birth,
        DateKind::Death => Offset::Death,
    }
}

/// A token of free text: of its decoded value, or of its spelling where that is not canonical, so that it comes back byte for byte.
pub(super) fn seal_text(
    keys: &ClassKeys,
    role: Role,
    spelling: &str,
    value: &str,
    padded: bool,
    word: &mut String,
) -> Result<bool, Code> {
    let narrative = role == Role::Narrative;
    let inner =
        if narrative { value.strip_prefix(DIV_OPEN).and_then(|v| v.strip_suffix(DIV_CLOSE)) } else { Some(value) };
    match inner.map(|inner| keys.recognise(inner)) {
        Some(Seen::Token) => return Ok(false),
        Some(Seen::LookAlike) => return Err(Code::LookAlike),
        Some(Seen::Foreign) | None => {}
    }
    if narrative {
        word.push_str(DIV_OPEN);
    }
    let raw_spelling = !text::is_canonical(spelling, value);
    let phi = Phi::new(if raw_spelling { spelling } else { value });
    keys.pseudonymize(&phi, Form { padded, raw_spelling }, word).map_err(|_| Code::ResourceTooLarge)?;
    if narrative {
        word.push_str(DIV_CLOSE);
    }
    Ok(true)
}

/// A token of free text under the epoch that is written with.
pub(super) fn rewrap_text(keys: &ClassKeys, role: Role, value: &str, word: &mut String, way: &mut Way<'_>) -> bool {
    let narrative = role == Role::Narrative;
    let inner =
        if narrative { value.strip_prefix(DIV_OPEN).and_then(|v| v.strip_suffix(DIV_CLOSE)) } else { Some(value) };
    let Some(inner) = inner else { return false };
    let mut moved = String::new();
    if !rewrapped(keys.rewrap(inner, &mut moved), inner, &mut moved, way) {
        return false;
    }
    if narrative {
        word.extend([DIV_OPEN, &moved, DIV_CLOSE]);
    } else {
        word.push_str(&moved);
    }
    true
}

pub(super) fn open_text(
    keys: &ClassKeys,
    role: Role,
    value: &str,
    word: &mut String,
    way: &mut Way<'_>,
) -> (bool, bool) {
    let inner = match role {
        Role::Narrative => value.strip_prefix(DIV_OPEN).and_then(|v| v.strip_suffix(DIV_CLOSE)).unwrap_or_default(),
        _ => value,
    };
    match way.permit().map(|permit| keys.reidentify(inner, permit)) {
        Some(Revealed::Plain(phi, raw)) => {
            way.reveals(keys.class());
            // Exposed to a caller whose permit allows this class.
            word.push_str(phi.expose());
            (true, raw)
        }
        Some(Revealed::Denied | Revealed::LookAlike) => {
            way.stayed += 1;
            (false, false)
        }
        Some(Revealed::Foreign) | None => (false, false),
    }
}
