//! The actions beyond keep, remove, token and shift, at one value: what stands beside it, the key, and what becomes of it.
//!
//! A page of its own because it is no part of the hot path. Going out an action that cannot work on a value refuses the unit or removes the element
//! (each says which); coming back these actions do nothing: what the other side has is what there is.

use super::decide::{Decided, Decider, Fate, No, Resource};
use super::engine::Engine;
use super::json::EventKind;
use super::reference::Way;
use super::refusal::Code;

use crate::action::generalize::{Beside, generalize};
use crate::action::hash::{Scope, Shape, digest, hash};
use crate::action::mask::mask;
use crate::action::perturb::perturb;
use crate::action::{self, Done};
use crate::fhir::{JsonKind, Primitive};
use crate::names::Class;
use crate::rules::automaton::{Leaf, Node};
use crate::rules::{Action, Method, Role, range};
use crate::secret::Phi;
use crate::token::Mac;
use base64::Engine as _;
use std::borrow::Cow;

/// How values are hashed at one place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hashing<'h> {
    mac: &'h Mac,
    shape: Shape,
}

impl Hashing<'_> {
    /// Appends the hash of a value of this class.
    pub(super) fn write(&self, class: &Class, value: &str, out: &mut String) {
        hash(self.mac, class, self.shape, &Phi::new(value), out);
    }

    /// A UUID in place of another: RFC 9562 version 8, which is for bits of one's own.
    pub(super) fn uuid(&self, class: &Class, uuid: &str) -> [u8; 16] {
        let mut bytes: [u8; 16] =
            digest(self.mac, class, &Phi::new(uuid))[..16].try_into().expect("a digest has 32 bytes");
        bytes[6] = bytes[6] & 0x0F | 0x80;
        bytes[8] = bytes[8] & 0x3F | 0x80;
        bytes
    }
}

impl From<action::No> for Code {
    fn from(no: action::No) -> Code {
        match no {
            action::No::Date => Code::BadDate,
            action::No::Number => Code::BadNumber,
            action::No::Domain => Code::FpeDomain,
            action::No::Alphabet => Code::FpeAlphabet,
            action::No::Range => Code::ShiftRange,
        }
    }
}

impl Decider<'_> {
    /// One value under an action of `Compiled::methods`, going out.
    pub(super) fn act(&mut self, at: u32, leaf: Leaf, method: u16, resource: &mut Resource) -> Decided<Fate> {
        let engine = self.engine;
        let method_number = method as usize;
        let method = &engine.rules.methods[method_number];
        let value = self.text(at)?;
        let phi = Phi::new(&*value);
        let no = |no: action::No| No(no.into(), at);
        let done = match method {
            Method::Mask(rule) => Done::Text(mask(rule, &phi)),
            Method::Substitute(with) if leaf.role == Role::Narrative => Done::Text(in_div(with)),
            Method::Substitute(with) => Done::Text(with.clone()),
            Method::Hash { class, shape } => Done::Text(self.hashed(at, leaf, class, *shape, &value, resource)?),
            Method::Fpe { .. } => {
                let keyed = engine.fpe[method_number].as_ref().ok_or(No(Code::NoDocumentKey, at))?;
                Done::Text(match leaf.primitive {
                    Primitive::Decimal => keyed.number(&value, None, true).map_err(no)?,
                    primitive => match range(primitive) {
                        Some(range) => keyed.number(&value, Some(range), true).map_err(no)?,
                        None => keyed.text(&value, true).map_err(no)?,
                    },
                })
            }
            Method::Generalize(to) => {
                let unit = self.beside(at, b"code")?.or(self.beside(at, b"unit")?);
                let country = self.beside(at, b"country")?;
                let beside =
                    Beside { unit: unit.as_deref(), country: country.as_deref(), range: range(leaf.primitive) };
                generalize(*to, leaf.primitive, &phi, &beside).map_err(no)?
            }
            Method::Perturb { class, span } => {
                let subject = resource.subject.as_deref().or(resource.own.as_deref()).unwrap_or_default();
                Done::Text(perturb(&engine.perturb, class, span, subject, &phi, range(leaf.primitive)).map_err(no)?)
            }
        };
        match done {
            Done::Goes => {
                self.report.removed += 1;
                return Ok(Fate::Goes);
            }
            Done::Stays => {}
            Done::Text(word) => {
                debug_assert!(leaf.primitive.json() == JsonKind::String || !word.contains(['"', '\\']));
                self.write_text(at, &word);
            }
        }
        self.report.changed[method.number()] += 1;
        Ok(Fate::Stays)
    }

    /// The text of a member of the object in which a value stands; `None` also where it is no text (`Observation.code` is no unit).
    fn beside(&self, at: u32, name: &[u8]) -> Decided<Option<Cow<'_, str>>> {
        let Some(parent) = self.parent(at) else { return Ok(None) };
        let Node::Object { shape, .. } = self.automaton.states[self.events[parent as usize].state as usize].node else {
            return Ok(None);
        };
        let member = self.member(parent, &self.automaton.shapes[shape as usize], name);
        let text = member.filter(|&member| self.events[member as usize].kind == EventKind::Text);
        text.map(|member| self.text(member)).transpose()
    }

    /// A way on which whatever would become a token becomes a hash.
    pub(super) fn hashing(&self, at: u32, shape: Shape) -> Decided<Way<'_>> {
        let mac = match shape.scope {
            Scope::Domain => &self.engine.hash,
            Scope::Document => self.desk.document.as_ref().ok_or(No(Code::NoDocumentKey, at))?,
        };
        Ok(Way::hashing(Hashing { mac, shape }))
    }

    fn hashed(
        &self,
        at: u32,
        leaf: Leaf,
        class: &Class,
        shape: Shape,
        value: &str,
        resource: &Resource,
    ) -> Decided<String> {
        let engine = self.engine;
        let mut way = self.hashing(at, shape)?;
        let mut word = String::new();
        let plain = |word: &mut String| {
            if let Some(hashing) = way.hash {
                hashing.write(class, value, word);
            }
        };
        let done = match leaf.role {
            Role::ResourceId => engine.resource_id(self.type_name, value, &mut word, &mut way).map(drop),
            Role::ContainedId => engine.contained_id(self.type_name, value, &mut word, &mut way).map(drop),
            Role::Reference | Role::FullUrl | Role::Location => {
                engine.reference(value, &resource.kept_contained, &mut word, &mut way).map(drop)
            }
            Role::RequestUrl => engine.request_url(&self.method(at)?, value, &mut word, &mut way).map(drop),
            Role::Link => engine.link(value, &self.desk.caller, &mut word, &mut way).map(drop),
            Role::Uri | Role::CodingSystem => engine.hashed_uri(class, value, &mut word, &mut way).map(drop),
            Role::Narrative => {
                plain(&mut word);
                word = in_div(&word);
                Ok(())
            }
            Role::Base64 => {
                if let Some(hashing) = way.hash {
                    let digest = digest(hashing.mac, class, &Phi::new(value));
                    base64::engine::general_purpose::STANDARD
                        .encode_string(&digest[..shape.bits as usize / 8], &mut word);
                }
                Ok(())
            }
            Role::Text | Role::Identifier | Role::ElementId | Role::CodingCode => {
                plain(&mut word);
                Ok(())
            }
            Role::Condition | Role::Date(_) | Role::Scalar => Err(Code::WrongForm),
        };
        done.map_err(|code| No(code, at))?;
        Ok(word)
    }
}

impl Engine {
    /// The way of a URL or header to the untrusted side: ids are spelled as the rule for `resource-id` spells them in bodies.
    pub(super) fn outward(&self) -> Way<'_> {
        let ids = self.rules.rules.iter().find(|rule| rule.name == "resource-id").map(|rule| rule.action);
        match ids {
            Some(Action::Other { method, .. }) => match &self.rules.methods[method as usize] {
                Method::Hash { shape, .. } if shape.scope == Scope::Domain => {
                    Way::hashing(Hashing { mac: &self.hash, shape: *shape })
                }
                _ => Way::forgotten(),
            },
            _ => Way::out(),
        }
    }

    /// An Identifier's value as a search spells it under an action of `Compiled::methods`. `None`: what pseudonyms cannot answer.
    pub(super) fn searched(&self, method: u16, value: &str) -> Option<String> {
        let phi = Phi::new(value);
        match &self.rules.methods[method as usize] {
            Method::Hash { class, shape } if shape.scope == Scope::Domain => {
                let mut word = String::new();
                hash(&self.hash, class, *shape, &phi, &mut word);
                Some(word)
            }
            Method::Fpe { .. } => self.fpe[method as usize].as_ref()?.text(value, true).ok(),
            _ => None,
        }
    }
}

/// Text as a narrative.
fn in_div(inner: &str) -> String {
    format!(r#"<div xmlns="http://www.w3.org/1999/xhtml">{inner}</div>"#)
}

impl Engine {
    /// A uri that may name a resource or may not: hashed by component as references are, else as a whole under the rule's own class.
    fn hashed_uri(&self, class: &Class, uri: &str, out: &mut String, way: &mut Way<'_>) -> Result<bool, Code> {
        use crate::fhir::reference::Reference;
        match Reference::parse(self.rules.release, uri) {
            Ok(
                Reference::UrnUuid(_)
                | Reference::Absolute { .. }
                | Reference::Relative { .. }
                | Reference::Fragment(_),
            ) => self.reference(uri, &[], out, way),
            _ => {
                out.push_str(super::reference::URN);
                if let Some(hashing) = way.hash {
                    hashing.write(class, uri, out);
                }
                Ok(true)
            }
        }
    }
}
