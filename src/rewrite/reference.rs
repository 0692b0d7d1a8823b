//! Ids and everything that is spelled with them: references, full URLs, request URLs, URIs, identifiers. One function per
//! kind and both ways through it, so that what goes out and what comes back cannot drift apart.
//!
//! Each appends the rewritten text to `out` and says whether it differs. Going out, an error refuses the unit; coming back, the caller
//! leaves the text as it was. A token that is valid at its place stays itself going out; a look-alike is never treated as an id.

use super::act::Hashing;
use super::engine::Engine;
use super::form::names_record;
use super::json::Direction;
use super::refusal::Code;
use crate::fhir;
use crate::fhir::Schema;
use crate::fhir::reference::{Reference, ReferenceError, RequestUrl};
use crate::limits;
use crate::names::Class;
use crate::policy::Permit;
use crate::rules::Action;
use crate::secret::Phi;
use crate::token::{self, ClassKeys, Form, Mac, Revealed, Rewrapped, Seen, danger};

/// Any other URI.
pub(super) const URN: &str = "urn:cryptonym:";
const URN_UUID: &str = "urn:uuid:";
/// Query parameter that carries a paging link of the untrusted side.
pub const PAGE: &str = "_cryptonym-page";

/// Which way a text goes, and what was seen on it.
pub struct Way<'w> {
    out: bool,
    permit: Option<&'w Permit>,
    /// Going out: whatever would become a token becomes this hash.
    pub(super) hash: Option<Hashing<'w>>,
    /// Going out, in a URL: ids are known by the hashes of one document only, so that none can be asked for.
    pub(super) forgotten: bool,
    /// In a conditional reference of a body: it links records and asks for nothing now.
    pub(super) linking: bool,
    /// Classes revealed, one entry a value.
    pub revealed: Vec<Class>,
    /// Tokens that stayed.
    pub stayed: u64,
}

impl<'w> Way<'w> {
    /// To the untrusted side.
    pub fn out() -> Self {
        Way { out: true, permit: None, hash: None, forgotten: false, linking: false, revealed: Vec::new(), stayed: 0 }
    }

    /// To the untrusted side, as hashes instead of tokens.
    pub(super) fn hashing(hash: Hashing<'w>) -> Self {
        Way { hash: Some(hash), ..Way::out() }
    }

    /// To the untrusted side, where no id can be asked for.
    pub(super) fn forgotten() -> Self {
        Way { forgotten: true, ..Way::out() }
    }

    /// To the trusted side, for a caller with this permit.
    pub fn back(permit: Option<&'w Permit>) -> Self {
        Way { out: false, permit, hash: None, forgotten: false, linking: false, revealed: Vec::new(), stayed: 0 }
    }

    /// Notes that a value of this class was revealed.
    pub(super) fn reveals(&mut self, class: &Class) {
        self.revealed.push(class.clone());
    }

    /// What this caller may see.
    pub fn permit(&self) -> Option<&'w Permit> {
        self.permit
    }

    /// Whether it goes to the untrusted side.
    pub fn is_out(&self) -> bool {
        self.out
    }
}

type Changed = Result<bool, Code>;

impl Engine {
    /// One value of a class, as itself: `TOKEN` ⇄ value; foreign values ⇄ escapes where `escapes`.
    pub(super) fn value(
        &self,
        keys: &ClassKeys,
        value: &str,
        room: Option<usize>,
        escapes: bool,
        out: &mut String,
        way: &mut Way<'_>,
    ) -> Changed {
        if way.forgotten {
            return Err(Code::SearchUnanswerable);
        }
        if let Some(hashing) = way.hash {
            hashing.write(keys.class(), value, out);
            return Ok(true);
        }
        if way.out {
            match keys.recognise(value) {
                Seen::Token => out.push_str(value),
                Seen::LookAlike => return Err(Code::LookAlike),
                Seen::Foreign => {
                    if escapes && let Some(foreign) = keys.unescape(value) {
                        out.push_str(foreign);
                        return Ok(true);
                    }
                    let at = out.len();
                    keys.pseudonymize(&Phi::new(value), Form::default(), out).map_err(|_| Code::ResourceTooLarge)?;
                    if room.is_some() && out.len() - at > limits::ID_CHARS_MAX {
                        let Some(mac) = &self.overflow else { return Err(Code::IdTooLong) };
                        out.truncate(at);
                        overflow_id(mac, keys.class(), value, out);
                    }
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        if self.rewraps {
            return Ok(rewrapped(keys.rewrap(value, out), value, out, way));
        }
        let revealed = match way.permit {
            Some(permit) => keys.reidentify(value, permit),
            None if keys.recognise(value) == Seen::Foreign => Revealed::Foreign,
            None => Revealed::Denied,
        };
        match revealed {
            Revealed::Plain(phi, _) => {
                way.reveals(keys.class());
                // Exposed to a caller whose permit allows this class.
                out.push_str(phi.expose());
                Ok(true)
            }
            Revealed::Denied | Revealed::LookAlike => {
                way.stayed += 1;
                out.push_str(value);
                Ok(false)
            }
            Revealed::Foreign if escapes => {
                let too_long = if self.calls_in { Code::IdTooLong } else { Code::ForeignIdTooLong };
                keys.escape(value, room, out).map_err(|_| too_long)?;
                Ok(true)
            }
            Revealed::Foreign => {
                out.push_str(value);
                Ok(false)
            }
        }
    }

    /// `Resource.id`, and the id wherever a URL names a resource.
    pub(super) fn resource_id(&self, type_name: &str, id: &str, out: &mut String, way: &mut Way<'_>) -> Changed {
        let Some(keys) = self.ids.get(type_name) else {
            out.push_str(id);
            return Ok(false);
        };
        if way.out && !fhir::reference::is_id(id) {
            return Err(Code::BadId);
        }
        self.value(keys, id, Some(limits::FOREIGN_ID_CHARS_MAX), true, out, way)
    }

    /// The id of a contained resource: local, so nothing foreign is escaped.
    pub(super) fn contained_id(&self, type_name: &str, id: &str, out: &mut String, way: &mut Way<'_>) -> Changed {
        if fhir::definitional(type_name) {
            out.push_str(id);
            return Ok(false);
        }
        if way.out && !fhir::reference::is_id(id) {
            return Err(Code::BadId);
        }
        self.value(&self.contained, id, Some(limits::ID_CHARS_MAX), false, out, way)
    }

    /// `Reference.reference`, `fullUrl`, `Location`.
    pub(super) fn reference(
        &self,
        text: &str,
        kept_contained: &[String],
        out: &mut String,
        way: &mut Way<'_>,
    ) -> Changed {
        if text.len() > limits::URL_BYTES_MAX {
            return Err(Code::BadReference);
        }
        match Reference::parse(self.rules.release, text).map_err(|_| Code::BadReference)? {
            Reference::Relative { resource_type, id, version } => {
                self.resource_url("", resource_type, id, version, out, way)
            }
            Reference::Absolute { base, resource_type, id, version } => {
                if let Some(other) = self.other_base(base, way.out) {
                    let changed = self.resource_url(other, resource_type, id, version, out, way)?;
                    return Ok(changed || other != base);
                }
                if fhir::definitional(resource_type) && !self.names_instance(base) {
                    out.push_str(text);
                    return Ok(false);
                }
                // One token for the whole: base and id apart could be joined anew, and a real id revealed inside somebody else's URL.
                self.other_uri(&self.uris, text, out, way)
            }
            Reference::UrnUuid(uuid) => self.urn_uuid(uuid, out, way),
            Reference::Fragment(id) => {
                out.push('#');
                if id.is_empty() || kept_contained.iter().any(|k| k == id) {
                    out.push_str(id);
                    return Ok(false);
                }
                self.contained_id("", id, out, way)
            }
            Reference::Conditional { resource_type, query } => {
                out.push_str(resource_type);
                out.push('?');
                let mut rewritten = String::new();
                let before = std::mem::replace(&mut way.linking, true);
                let changed = self.condition(resource_type, query, &mut rewritten, way);
                way.linking = before;
                let changed = changed?;
                out.push_str(&rewritten);
                Ok(changed)
            }
            Reference::OtherUri(uri) => self.other_uri(&self.uris, uri, out, way),
        }
    }

    /// Whether some part of a foreign base is called like a type of records: what follows it is then somebody's id
    /// (`http://h/Patient/4711/Questionnaire/1`), and the whole is no name of a definition.
    fn names_instance(&self, base: &str) -> bool {
        names_record(&self.rules.automaton, format!("{base}/1").as_bytes(), false)
    }

    fn resource_url(
        &self,
        base: &str,
        type_name: &str,
        id: &str,
        version: Option<&str>,
        out: &mut String,
        way: &mut Way<'_>,
    ) -> Changed {
        if !base.is_empty() {
            out.push_str(base);
            out.push('/');
        }
        out.push_str(type_name);
        out.push('/');
        let changed = self.resource_id(type_name, id, out, way)?;
        if let Some(version) = version {
            if way.out && self.ids.contains_key(type_name) && !self.keeps_versions(type_name) {
                return Ok(true);
            }
            out.push_str("/_history/");
            out.push_str(version);
        }
        Ok(changed)
    }

    /// Whether the records of a type keep their version: where it goes, so does what names it.
    fn keeps_versions(&self, type_name: &str) -> bool {
        let automaton = &self.rules.automaton;
        let state = automaton.state_at(type_name, "meta.versionId");
        state.and_then(|state| automaton.leaf(state)).is_some_and(|leaf| leaf.action == Action::Keep)
    }

    /// The other side's spelling of a base that is ours.
    fn other_base(&self, base: &str, out: bool) -> Option<&str> {
        let found = |b: &&super::engine::Base| base == if out { &b.trusted } else { &b.untrusted };
        self.bases.iter().find(found).map(|b| if out { b.untrusted.as_str() } else { b.trusted.as_str() })
    }

    fn urn_uuid(&self, uuid: &str, out: &mut String, way: &mut Way<'_>) -> Changed {
        out.push_str(URN_UUID);
        let uuids = self.keys.uuids();
        let bytes = token::uuid::parse(uuid).ok_or(Code::BadReference)?;
        if way.forgotten {
            return Err(Code::SearchUnanswerable);
        }
        if let Some(hashing) = way.hash {
            token::uuid::format(hashing.uuid(&self.uuid_class, uuid), out);
            return Ok(true);
        }
        let other = if way.out {
            Some(uuids.pseudonymize(bytes))
        } else {
            way.permit.and_then(|p| uuids.reidentify(bytes, &self.uuid_class, p))
        };
        match other {
            Some(other) => {
                if !way.out {
                    way.reveals(&self.uuid_class);
                }
                token::uuid::format(other, out);
                Ok(true)
            }
            None => {
                way.stayed += u64::from(!self.rewraps); // pinned, so it stays by right
                out.push_str(uuid);
                Ok(false)
            }
        }
    }

    /// Any URI as a whole.
    fn other_uri(&self, keys: &ClassKeys, uri: &str, out: &mut String, way: &mut Way<'_>) -> Changed {
        match uri.strip_prefix(URN) {
            Some(token) => {
                let mut plain = String::new();
                let changed = self.value(keys, token, None, false, &mut plain, way)?;
                if way.out && changed {
                    return Err(Code::LookAlike); // the prefix is reserved for tokens
                }
                if !changed {
                    out.push_str(URN);
                }
                out.push_str(&plain);
                Ok(changed)
            }
            None if way.out => {
                out.push_str(URN);
                self.value(keys, uri, None, false, out, way)
            }
            None => {
                out.push_str(uri);
                Ok(false)
            }
        }
    }

    /// A uri, url or anything else that may name a resource or may not.
    pub(super) fn uri(&self, keys: &ClassKeys, text: &str, out: &mut String, way: &mut Way<'_>) -> Changed {
        match Reference::parse(self.rules.release, text) {
            Ok(
                Reference::UrnUuid(_)
                | Reference::Absolute { .. }
                | Reference::Relative { .. }
                | Reference::Fragment(_),
            ) => self.reference(text, &[], out, way),
            _ => self.other_uri(keys, text, out, way),
        }
    }

    /// `Identifier.value`: URIs keep their kind, everything else becomes its token.
    pub(super) fn identifier(&self, keys: &ClassKeys, text: &str, out: &mut String, way: &mut Way<'_>) -> Changed {
        if let Some(uuid) = text.strip_prefix(URN_UUID)
            && token::uuid::parse(uuid).is_some()
        {
            return self.urn_uuid(uuid, out, way);
        }
        if text.starts_with("urn:") || text.starts_with("http://") || text.starts_with("https://") {
            if !way.out && !text.starts_with(URN) {
                return self.value(keys, text, None, true, out, way); // minted over there: escaped
            }
            return self.other_uri(keys, text, out, way);
        }
        self.value(keys, text, None, true, out, way)
    }

    /// base64Binary.
    pub(super) fn base64(&self, keys: &ClassKeys, text: &str, out: &mut String, way: &mut Way<'_>) -> Changed {
        if way.out {
            match keys.recognise_binary(text) {
                Seen::Token => return Ok(false),
                Seen::LookAlike => return Err(Code::LookAlike),
                Seen::Foreign => {}
            }
            keys.pseudonymize_binary(&Phi::new(text), out).map_err(|_| Code::ResourceTooLarge)?;
            return Ok(true);
        }
        if self.rewraps {
            return Ok(rewrapped(keys.rewrap_binary(text, out), text, out, way));
        }
        let Some(permit) = way.permit else {
            way.stayed += u64::from(self.calls_in && keys.recognise_binary(text) != Seen::Foreign);
            return Ok(false);
        };
        match keys.reidentify_binary(text, permit) {
            Revealed::Plain(phi, _) => {
                way.reveals(keys.class());
                // Exposed to a caller whose permit allows this class.
                out.push_str(phi.expose());
                Ok(true)
            }
            Revealed::Foreign => Ok(false),
            Revealed::Denied | Revealed::LookAlike => {
                way.stayed += 1;
                Ok(false)
            }
        }
    }

    /// `Bundle.entry.request.url`.
    pub(super) fn request_url(&self, method: &str, text: &str, out: &mut String, way: &mut Way<'_>) -> Changed {
        if text.len() > limits::URL_BYTES_MAX {
            return Err(Code::BadUrl);
        }
        if method == "POST" && Schema::of(self.rules.release).resource(text).is_some() {
            out.push_str(text); // a create names a type and nobody
            return Ok(false);
        }
        match RequestUrl::parse(self.rules.release, method, text) {
            Ok(url) => self.rest_url(&url, out, way),
            // bundle.html wants them relative to the server; an absolute one is a reference like others, if nobody else's.
            Err(ReferenceError::Absolute) => match Reference::parse(self.rules.release, text) {
                Ok(Reference::Absolute { base, resource_type, .. })
                    if fhir::definitional(resource_type) || self.other_base(base, way.out).is_some() =>
                {
                    self.reference(text, &[], out, way)
                }
                _ => Err(Code::BadRequestEntry),
            },
            Err(_) => Err(Code::BadRequestEntry),
        }
    }

    /// `Bundle.link.url`. In a request it is one URI like others. In an answer it is carried as a token, opaque and bound to us: what its
    /// parameters mean is the upstream's secret, and a client must come back through the proxy, never go to another host. A link that was
    /// given to a caller outside works for this caller only.
    pub(super) fn link(&self, text: &str, caller: &str, out: &mut String, way: &mut Way<'_>) -> Changed {
        if way.out != self.calls_in || way.hash.is_some() || text.starts_with(URN) {
            return self.other_uri(&self.uris, text, out, way);
        }
        if self.calls_in {
            let Some((base, rest)) = self.bases.iter().find_map(|b| Some((b, below(text, &b.trusted)?))) else {
                return self.other_uri(&self.uris, text, out, way);
            };
            out.extend([base.untrusted.as_str(), "?", PAGE, "="]);
            let bound = format!("{caller}\n{rest}");
            self.links.pseudonymize(&Phi::new(&*bound), Form::default(), out).map_err(|_| Code::BadUrl)?;
            return Ok(true);
        }
        if self.rewraps {
            out.push_str(text); // a store's own links are not ours to move
            return Ok(false);
        }
        let Some(first) = self.bases.first() else {
            out.push_str(text); // files: nobody follows links through us
            return Ok(false);
        };
        let base = self.bases.iter().find(|b| below(text, &b.untrusted).is_some());
        let rest = base.map_or(text, |b| &text[b.untrusted.len()..]);
        out.push_str(&base.unwrap_or(first).trusted);
        out.push('?');
        out.push_str(PAGE);
        out.push('=');
        self.links.pseudonymize(&Phi::new(rest), Form::default(), out).map_err(|_| Code::BadUrl)?;
        Ok(true)
    }

    // === keys of subjects: as the trusted side spells them ===

    /// The id of a resource as the trusted side knows it. Opened without a permit: it only keys an offset or is compared.
    pub(super) fn trusted_id(&self, type_name: &str, id: &str, direction: Direction) -> Option<String> {
        let Some(keys) = self.ids.get(type_name) else { return Some(id.to_owned()) };
        if let Some(phi) = danger::open(keys, id) {
            return Some(phi.expose().to_owned());
        }
        if direction == Direction::Out {
            return Some(id.to_owned());
        }
        let mut escaped = String::new();
        keys.escape(id, Some(limits::FOREIGN_ID_CHARS_MAX), &mut escaped).ok()?;
        Some(escaped)
    }

    /// The bare UUID of a `urn:uuid:`.
    pub(super) fn trusted_uuid(&self, text: &str, direction: Direction) -> Option<String> {
        let uuid = text.strip_prefix(URN_UUID)?;
        match direction {
            Direction::Out => token::uuid::parse(uuid).map(|_| uuid.to_owned()),
            Direction::Back => {
                let mut trusted = String::new();
                token::uuid::format(danger::open_uuid(self.keys.uuids(), token::uuid::parse(uuid)?), &mut trusted);
                Some(trusted)
            }
        }
    }

    /// Whom a reference in a subject's place names.
    pub(super) fn subject_key(&self, text: &str, direction: Direction) -> Subject {
        let patient = |key: Option<String>| key.map_or(Subject::Unknown, Subject::Patient);
        match Reference::parse(self.rules.release, text) {
            Ok(Reference::Relative { resource_type: "Patient", id, .. }) => {
                patient(self.trusted_id("Patient", id, direction))
            }
            Ok(Reference::Absolute { base, resource_type: "Patient", id, .. }) => {
                match self.other_base(base, direction == Direction::Out) {
                    Some(_) => patient(self.trusted_id("Patient", id, direction)),
                    None => Subject::Unknown,
                }
            }
            Ok(Reference::Relative { .. } | Reference::Absolute { .. }) => Subject::Other,
            Ok(Reference::UrnUuid(_)) => patient(self.trusted_uuid(text, direction)),
            Ok(Reference::Conditional { resource_type, .. }) if resource_type != "Patient" => Subject::Other,
            _ => Subject::Unknown,
        }
    }
}

/// The rest of a URL below a base.
fn below<'t>(text: &'t str, base: &str) -> Option<&'t str> {
    text.strip_prefix(base).filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

/// What a value became that was to move to another epoch: itself, or the token that was appended.
pub(super) fn rewrapped(moved: Rewrapped, value: &str, out: &mut String, way: &mut Way<'_>) -> bool {
    match moved {
        Rewrapped::Moved => return true,
        Rewrapped::LookAlike => way.stayed += 1,
        Rewrapped::Current | Rewrapped::Foreign => {}
    }
    out.push_str(value);
    false
}

/// What takes the place of an id too long for a token: `x` and 128 bits of HMAC over class and id. It has room in an escape, so it comes back
/// as other ids of the untrusted side do, and goes out again as itself.
fn overflow_id(mac: &Mac, class: &Class, id: &str, out: &mut String) {
    out.push('x');
    for byte in &mac.tag(&[class.as_str().as_bytes(), id.as_bytes()])[..16] {
        out.push_str(&format!("{byte:02x}"));
    }
}

/// Whom a reference names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// A patient, by key.
    Patient(String),
    /// Somebody or something that is no patient.
    Other,
    /// Perhaps a patient, whom we cannot name.
    Unknown,
}
