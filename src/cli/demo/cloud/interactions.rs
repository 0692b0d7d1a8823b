//! The RESTful interactions of R4 (http.html) that the cloud knows, as a function from a call to an answer.
//!
//! The same function serves a request on the wire and an entry of a batch. It does no I/O; the time comes with the call.
//! It answers as common servers do, in error texts too: those repeat what was asked, ids and search values included.

use super::store::{Prepared, REFERENCE_PARAMETERS, Store};
use super::text::{Head, relink};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;

/// Matches on one page unless `_count` says otherwise, and the most it may say.
const PAGE_DEFAULT: usize = 20;
const PAGE_MAX: usize = 1000;

/// Searches whose further pages are kept; the oldest go first.
const CURSORS_MAX: usize = 1000;

/// What was asked.
#[derive(Default, Clone, Copy)]
pub struct Call<'a> {
    /// `GET`, `POST`, `PUT`, `DELETE`.
    pub method: &'a str,
    /// Path and query below the base, without a leading slash.
    pub target: &'a str,
    /// `If-None-Exist`.
    pub if_none_exist: Option<&'a str>,
    /// `If-Match`.
    pub if_match: Option<&'a str>,
    /// A resource, or the form of a `_search`.
    pub body: &'a str,
}

/// What is said to it.
#[derive(Default)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Type/id/_history/version`, relative.
    pub location: Option<String>,
    /// Version and `lastUpdated` of the one resource that the answer is about.
    pub version: Option<(u64, String)>,
    /// A resource; empty where there is none.
    pub body: String,
}

/// An error, as status, issue type and diagnostics of an `OperationOutcome`.
pub struct Fault(u16, &'static str, String);

impl Fault {
    fn invalid(text: impl Into<String>) -> Fault {
        Fault(400, "invalid", text.into())
    }

    /// The `OperationOutcome`.
    pub fn outcome(&self) -> Value {
        let issue = json!({ "severity": "error", "code": self.1, "diagnostics": self.2 });
        json!({ "resourceType": "OperationOutcome", "issue": [issue] })
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Fault {
        Fault(400, "structure", format!("Failed to parse request body as JSON resource: {error}"))
    }
}

impl From<Fault> for Answer {
    fn from(fault: Fault) -> Answer {
        Answer { status: fault.0, body: fault.outcome().to_string(), ..Answer::default() }
    }
}

/// A search whose pages are still to be fetched.
struct Cursor {
    key: String,
    found: Vec<u32>,
    link_self: String,
}

/// The server apart from its socket.
pub struct Service {
    /// The absolute URL of this server.
    pub base: String,
    /// What is stored.
    pub store: Store,
    cursors: std::collections::VecDeque<Cursor>,
}

impl Service {
    /// `base`: the absolute URL of this server, without a slash at its end.
    pub fn new(base: String) -> Service {
        Service { base, store: Store::default(), cursors: Default::default() }
    }

    /// Does what is asked at the given time (RFC 3339).
    pub fn handle(&mut self, call: Call<'_>, now: &str) -> Answer {
        self.dispatch(call, now).unwrap_or_else(Answer::from)
    }

    fn dispatch(&mut self, call: Call<'_>, now: &str) -> Result<Answer, Fault> {
        let (path, query) = call.target.split_once('?').unwrap_or((call.target, ""));
        let query = parameters(query)?;
        let segments: Vec<String> =
            path.split('/').filter(|s| !s.is_empty()).map(|s| decode(s, false)).collect::<Result<_, _>>()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (call.method, segments.as_slice()) {
            ("GET", ["metadata"]) => Ok(self.capabilities()),
            ("GET", []) => self.page(&query),
            ("POST", []) => self.bundle(call.body, now),
            (_, [kind, ..]) if !is_type(kind) => {
                Err(Fault(404, "not-supported", format!("Unknown resource type '{kind}'")))
            }
            ("GET", [kind]) => self.search(kind, &query, call.target),
            ("POST", [kind, "_search"]) => {
                let form = [query, parameters(call.body)?].concat();
                self.search(kind, &form, &format!("{kind}?{}", encode(&form)))
            }
            ("POST", [kind]) => self.create(kind, call, now),
            ("PUT", [kind]) => self.update_by_search(kind, &query, call, now),
            (_, [kind, id, ..]) if !is_id(id) => Err(Fault::invalid(format!("Invalid id '{id}' for {kind}"))),
            ("GET", [kind, id]) => self.read(kind, id),
            ("PUT", [kind, id]) => self.update(kind, id, call, now),
            ("DELETE", [kind, id]) => {
                self.store.delete(kind, id, now);
                Ok(Answer { status: 204, ..Answer::default() })
            }
            ("GET", [kind, id, "_history"]) => self.history(kind, id),
            ("GET", [kind, id, "_history", version]) => self.read_version(kind, id, version),
            (method, _) => Err(Fault(405, "not-supported", format!("{method} is not supported on '{path}'"))),
        }
    }

    fn read(&self, kind: &str, id: &str) -> Result<Answer, Fault> {
        let count = self.store.versions(kind, id).len();
        self.read_version(kind, id, &count.to_string())
    }

    fn read_version(&self, kind: &str, id: &str, version: &str) -> Result<Answer, Fault> {
        let versions = self.store.versions(kind, id);
        let number: Option<usize> = version.parse().ok();
        let held = number.and_then(|number| versions.get(number.checked_sub(1)?));
        match (number, held) {
            (Some(number), Some(held)) => match &held.text {
                Some(text) => {
                    let version = Some((number as u64, held.when.to_string()));
                    Ok(Answer { status: 200, version, body: text.to_string(), ..Answer::default() })
                }
                None => Err(Fault(410, "deleted", format!("Resource was deleted at {}: {kind}/{id}", held.when))),
            },
            _ => Err(Fault(404, "not-found", format!("Resource {kind}/{id} is not known"))),
        }
    }

    fn history(&self, kind: &str, id: &str) -> Result<Answer, Fault> {
        let versions = self.store.versions(kind, id);
        if versions.is_empty() {
            return Err(Fault(404, "not-found", format!("Resource {kind}/{id} is not known")));
        }
        let mut entries = Vec::new();
        for (number, version) in versions.iter().enumerate().rev() {
            let full_url = format!("{}/{kind}/{id}", self.base);
            let resource = version.text.as_deref().map(|text| format!(r#","resource":{text}"#)).unwrap_or_default();
            let url = if version.method == "POST" { kind.to_owned() } else { format!("{kind}/{id}") };
            let status = match version.method {
                "DELETE" => "204 No Content",
                _ if number == 0 => "201 Created",
                _ => "200 OK",
            };
            entries.push(format!(
                r#"{{"fullUrl":"{full_url}"{resource},"request":{{"method":"{}","url":"{url}"}},"response":{{"status":"{status}","etag":"W/\"{}\"","lastModified":"{}"}}}}"#,
                version.method,
                number + 1,
                version.when,
            ));
        }
        let links = [("self", format!("{}/{kind}/{id}/_history", self.base))];
        Ok(Answer {
            status: 200,
            body: bundle_text("history", Some(entries.len()), &links, &entries),
            ..Answer::default()
        })
    }

    fn create(&mut self, kind: &str, call: Call<'_>, now: &str) -> Result<Answer, Fault> {
        check_type(kind, call.body)?;
        if let Some(query) = call.if_none_exist
            && let Some(id) = self.find_one(kind, &parameters(query)?)?
        {
            return Ok(Answer { location: self.location(kind, &id), ..self.read(kind, &id)? });
        }
        let id = self.store.assign_id(kind);
        let prepared = self.store.prepare(kind, &id, call.body, now)?;
        Ok(self.put_in(prepared, "POST"))
    }

    fn update(&mut self, kind: &str, id: &str, call: Call<'_>, now: &str) -> Result<Answer, Fault> {
        check_type(kind, call.body)?;
        match Head::read(call.body)?.id() {
            Some(said) if said == id => {}
            said => {
                let said = said.unwrap_or_default();
                return Err(Fault::invalid(format!(
                    "Can not update resource: body id '{said}' does not match URL id '{id}'"
                )));
            }
        }
        self.check_match(kind, id, call.if_match)?;
        let prepared = self.store.prepare(kind, id, call.body, now)?;
        Ok(self.put_in(prepared, "PUT"))
    }

    fn update_by_search(
        &mut self,
        kind: &str,
        query: &[(String, String)],
        call: Call<'_>,
        now: &str,
    ) -> Result<Answer, Fault> {
        check_type(kind, call.body)?;
        if query.is_empty() {
            return Err(Fault::invalid("An update needs an id or search parameters in its URL"));
        }
        let id = match self.find_one(kind, query)? {
            Some(id) => id,
            None => Head::read(call.body)?.id().filter(|id| is_id(id)).unwrap_or_else(|| self.store.assign_id(kind)),
        };
        self.check_match(kind, &id, call.if_match)?;
        let prepared = self.store.prepare(kind, &id, call.body, now)?;
        Ok(self.put_in(prepared, "PUT"))
    }

    fn check_match(&self, kind: &str, id: &str, if_match: Option<&str>) -> Result<(), Fault> {
        let count = self.store.versions(kind, id).len();
        match if_match {
            Some(tag) if tag != "*" && tag.trim_start_matches("W/").trim_matches('"') != count.to_string() => {
                Err(Fault(412, "conflict", format!("Version of {kind}/{id} is {count}, If-Match said {tag}")))
            }
            _ => Ok(()),
        }
    }

    fn put_in(&mut self, prepared: Prepared, method: &'static str) -> Answer {
        let (kind, id, version) = (prepared.kind.clone(), prepared.id.clone(), prepared.version);
        self.store.commit(prepared, method);
        let held = &self.store.versions(&kind, &id)[version as usize - 1];
        Answer {
            status: if version == 1 { 201 } else { 200 },
            location: self.location(&kind, &id),
            version: Some((version, held.when.to_string())),
            body: held.text.as_deref().unwrap_or_default().to_owned(),
        }
    }

    fn location(&self, kind: &str, id: &str) -> Option<String> {
        Some(format!("{kind}/{id}/_history/{}", self.store.versions(kind, id).len()))
    }

    /// The id of the only match. Two matches are an error (http.html#ccreate, #cond-update).
    fn find_one(&self, kind: &str, query: &[(String, String)]) -> Result<Option<String>, Fault> {
        let found = self.store.search(kind, query, &self.base).map_err(unknown_parameter)?;
        let mut ids = found.iter().filter_map(|&slot| self.store.at(slot)).map(|(_, id, _)| id.to_owned());
        match (ids.next(), ids.next()) {
            (one, None) => Ok(one),
            _ => Err(Fault(
                412,
                "multiple-matches",
                format!("{} resources of type {kind} match the condition", found.len()),
            )),
        }
    }

    fn search(&mut self, kind: &str, query: &[(String, String)], target: &str) -> Result<Answer, Fault> {
        let (counts, query): (Vec<_>, Vec<_>) = query.iter().cloned().partition(|(name, _)| name == "_count");
        let count = page_size(counts.last().map(|(_, value)| value.as_str()))?;
        let found: Vec<u32> =
            self.store.search(kind, &query, &self.base).map_err(unknown_parameter)?.into_iter().collect();
        let link_self = format!("{}/{target}", self.base);
        let mut key = String::new();
        if found.len() > count {
            let mut random = [0; 16];
            getrandom::fill(&mut random).map_err(|_| Fault(500, "exception", "No randomness".to_owned()))?;
            key = random.iter().map(|byte| format!("{byte:02x}")).collect();
            self.cursors.push_back(Cursor { key: key.clone(), found: found.clone(), link_self: link_self.clone() });
            if self.cursors.len() > CURSORS_MAX {
                self.cursors.pop_front();
            }
        }
        Ok(self.page_text(&key, &found, &link_self, 0, count))
    }

    fn page(&self, query: &[(String, String)]) -> Result<Answer, Fault> {
        let value = |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let key = value("_getpages").ok_or_else(|| Fault::invalid("This is the base URL of a FHIR server"))?;
        let offset = value("_getpagesoffset").and_then(|offset| offset.parse().ok()).unwrap_or(0);
        let count = page_size(value("_count"))?;
        match self.cursors.iter().find(|cursor| cursor.key == key) {
            Some(cursor) => Ok(self.page_text(key, &cursor.found, &cursor.link_self, offset, count)),
            None => Err(Fault(410, "not-found", format!("Search ID '{key}' does not exist and may have expired"))),
        }
    }

    fn page_text(&self, key: &str, found: &[u32], link_self: &str, offset: usize, count: usize) -> Answer {
        let shown = found.iter().skip(offset).take(count);
        let entries: Vec<String> = shown
            .filter_map(|&slot| self.store.at(slot))
            .map(|(kind, id, text)| {
                format!(r#"{{"fullUrl":"{}/{kind}/{id}","resource":{text},"search":{{"mode":"match"}}}}"#, self.base)
            })
            .collect();
        let mut links = vec![("self", link_self.to_owned())];
        let next = offset.saturating_add(count);
        if count > 0 && next < found.len() {
            links.push(("next", format!("{}/?_getpages={key}&_getpagesoffset={next}&_count={count}", self.base)));
        }
        Answer { status: 200, body: bundle_text("searchset", Some(found.len()), &links, &entries), ..Answer::default() }
    }

    fn capabilities(&self) -> Answer {
        let interactions: Vec<Value> =
            ["create", "update", "read", "vread", "delete", "history-instance", "search-type"]
                .map(|code| json!({ "code": code }))
                .into();
        let searches: Vec<Value> = REFERENCE_PARAMETERS
            .iter()
            .map(|name| json!({ "name": name, "type": "reference" }))
            .chain([json!({ "name": "identifier", "type": "token" }), json!({ "name": "_id", "type": "token" })])
            .collect();
        let types = ["Patient", "Practitioner", "Encounter", "Observation", "Condition", "DocumentReference"];
        let resources: Vec<Value> = types
            .map(|kind| json!({ "type": kind, "versioning": "versioned", "conditionalCreate": true, "interaction": interactions, "searchParam": searches }))
            .into();
        let statement = json!({
            "resourceType": "CapabilityStatement", "status": "active", "date": "2026-11-23", "kind": "instance", "fhirVersion": "4.0.1",
            "format": ["json"], "implementation": { "description": "an in-memory FHIR server", "url": self.base },
            "rest": [{ "mode": "server", "interaction": [{ "code": "transaction" }, { "code": "batch" }], "resource": resources }],
        });
        Answer { status: 200, body: statement.to_string(), ..Answer::default() }
    }
}

/// A Bundle as it is received. Resources stay text.
#[derive(Deserialize)]
struct Bundle<'a> {
    #[serde(borrow, rename = "resourceType")]
    resource_type: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    entry: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, default, rename = "fullUrl")]
    full_url: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    resource: Option<&'a RawValue>,
    #[serde(borrow)]
    request: EntryRequest<'a>,
}

#[derive(Deserialize)]
struct EntryRequest<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    url: Cow<'a, str>,
    #[serde(borrow, default, rename = "ifNoneExist")]
    if_none_exist: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "ifMatch")]
    if_match: Option<Cow<'a, str>>,
}

impl Entry<'_> {
    fn call(&self) -> Call<'_> {
        Call {
            method: &self.request.method,
            target: self.request.url.trim_start_matches('/'),
            if_none_exist: self.request.if_none_exist.as_deref(),
            if_match: self.request.if_match.as_deref(),
            body: self.resource.map_or("", RawValue::get),
        }
    }
}

/// What an entry of a transaction will do, once every entry is known to be possible.
enum Plan {
    Write(Prepared),
    /// A conditional create that found its resource.
    Exists(String, String),
    /// `GET` and `DELETE`.
    Other,
}

impl Service {
    fn bundle(&mut self, body: &str, now: &str) -> Result<Answer, Fault> {
        let bundle: Bundle<'_> = serde_json::from_str(body)?;
        let answers = match (&*bundle.resource_type, &*bundle.kind) {
            ("Bundle", "batch") => bundle.entry.iter().map(|entry| self.handle(entry.call(), now)).collect(),
            ("Bundle", "transaction") => self.transaction(&bundle.entry, now)?,
            _ => {
                return Err(Fault::invalid("Only a Bundle of type transaction or batch can be posted to the base URL"));
            }
        };
        let entries: Vec<String> = answers.into_iter().map(entry_text).collect();
        let kind = format!("{}-response", bundle.kind);
        Ok(Answer { status: 200, body: bundle_text(&kind, None, &[], &entries), ..Answer::default() })
    }

    /// All entries or none (http.html#transaction): first every target, then every text, and only then the writes.
    fn transaction(&mut self, entries: &[Entry<'_>], now: &str) -> Result<Vec<Answer>, Fault> {
        let mut targets = Vec::with_capacity(entries.len());
        let mut links: HashMap<&str, String> = HashMap::new();
        let mut once = HashSet::new();
        for entry in entries {
            let target = self.target(entry)?;
            if let Some((kind, id)) = &target.name {
                let name = format!("{kind}/{id}");
                if target.writes && !once.insert(name.clone()) {
                    return Err(Fault::invalid(format!("Transaction contains {name} more than once")));
                }
                if let Some(full_url) = &entry.full_url {
                    links.insert(full_url, name);
                }
            }
            targets.push(target);
        }

        let mut plans = Vec::with_capacity(entries.len());
        for (entry, target) in entries.iter().zip(targets) {
            plans.push(match target {
                Target { name: Some((kind, id)), writes: true } if entry.request.method != "DELETE" => {
                    let text =
                        relink(entry.call().body, |link| links.get(link).cloned().or_else(|| self.resolve(link)));
                    Plan::Write(self.store.prepare(&kind, &id, &text, now)?)
                }
                Target { name: Some((kind, id)), writes: false } if entry.request.method == "POST" => {
                    Plan::Exists(kind, id)
                }
                _ => Plan::Other,
            });
        }

        let mut answers: Vec<Option<Answer>> = entries.iter().map(|_| None).collect();
        let mut plans: Vec<Option<Plan>> = plans.into_iter().map(Some).collect();
        for method in ["DELETE", "POST", "PUT", "GET"] {
            for (number, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.request.method == method) {
                let answer = match plans[number].take() {
                    Some(Plan::Write(prepared)) => {
                        let answer = self.put_in(prepared, if method == "POST" { "POST" } else { "PUT" });
                        Answer { body: String::new(), ..answer }
                    }
                    Some(Plan::Exists(kind, id)) => {
                        Answer { location: self.location(&kind, &id), body: String::new(), ..self.read(&kind, &id)? }
                    }
                    _ => self.handle(entry.call(), now),
                };
                answers[number] = Some(answer);
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Which resource an entry is about, and whether it will be written.
    fn target(&mut self, entry: &Entry<'_>) -> Result<Target, Fault> {
        let call = entry.call();
        let (path, query) = call.target.split_once('?').unwrap_or((call.target, ""));
        let named = path.split_once('/').filter(|(kind, id)| is_type(kind) && is_id(id));
        match (call.method, named) {
            ("GET", _) => Ok(Target { name: None, writes: false }),
            ("POST", None) if is_type(path) => {
                check_type(path, call.body)?;
                if let Some(condition) = call.if_none_exist
                    && let Some(id) = self.find_one(path, &parameters(condition)?)?
                {
                    return Ok(Target { name: Some((path.to_owned(), id)), writes: false });
                }
                Ok(Target { name: Some((path.to_owned(), self.store.assign_id(path))), writes: true })
            }
            ("PUT", Some((kind, id))) => {
                check_type(kind, call.body)?;
                if Head::read(call.body)?.id().as_deref() != Some(id) {
                    return Err(Fault::invalid(format!("Body id does not match request.url '{}'", call.target)));
                }
                self.check_match(kind, id, call.if_match)?;
                Ok(Target { name: Some((kind.to_owned(), id.to_owned())), writes: true })
            }
            ("PUT", None) if is_type(path) && !query.is_empty() => {
                check_type(path, call.body)?;
                let id = match self.find_one(path, &parameters(query)?)? {
                    Some(id) => id,
                    None => self.store.assign_id(path),
                };
                Ok(Target { name: Some((path.to_owned(), id)), writes: true })
            }
            ("DELETE", Some((kind, id))) => Ok(Target { name: Some((kind.to_owned(), id.to_owned())), writes: true }),
            (method, _) => Err(Fault::invalid(format!("Invalid request in transaction: {method} '{}'", call.target))),
        }
    }

    /// A conditional reference with exactly one match becomes a plain one. Others stay as they are.
    fn resolve(&self, link: &str) -> Option<String> {
        let (kind, query) = link.split_once('?').filter(|(kind, _)| is_type(kind))?;
        let id = self.find_one(kind, &parameters(query).ok()?).ok()??;
        Some(format!("{kind}/{id}"))
    }
}

struct Target {
    name: Option<(String, String)>,
    writes: bool,
}

fn entry_text(answer: Answer) -> String {
    let mut output = String::from("{");
    let is_resource = !answer.body.is_empty() && answer.status < 400;
    if is_resource {
        // Writing to a String cannot fail.
        let _ = write!(output, r#""resource":{},"#, answer.body);
    }
    let status = http::StatusCode::from_u16(answer.status).unwrap_or_default();
    let _ = write!(
        output,
        r#""response":{{"status":"{} {}""#,
        answer.status,
        status.canonical_reason().unwrap_or("Unknown")
    );
    if let Some(location) = answer.location {
        let _ = write!(output, r#","location":"{location}""#);
    }
    if let Some((version, when)) = answer.version {
        let _ = write!(output, r#","etag":"W/\"{version}\"","lastModified":"{when}""#);
    }
    if !is_resource && !answer.body.is_empty() {
        let _ = write!(output, r#","outcome":{}"#, answer.body);
    }
    output.push_str("}}");
    output
}

fn bundle_text(kind: &str, total: Option<usize>, links: &[(&str, String)], entries: &[String]) -> String {
    let mut output = format!(r#"{{"resourceType":"Bundle","type":"{kind}""#);
    if let Some(total) = total {
        let _ = write!(output, r#","total":{total}"#);
    }
    if !links.is_empty() {
        let links: Vec<Value> =
            links.iter().map(|(relation, url)| json!({ "relation": relation, "url": url })).collect();
        let _ = write!(output, r#","link":{}"#, Value::from(links));
    }
    // An empty array is not FHIR JSON.
    if !entries.is_empty() {
        let _ = write!(output, r#","entry":[{}]"#, entries.join(","));
    }
    output.push('}');
    output
}

fn check_type(kind: &str, body: &str) -> Result<(), Fault> {
    let said = Head::read(body)?.kind;
    if said == kind { Ok(()) } else { Err(Fault::invalid(format!("Resource of type '{said}' was sent to '{kind}'"))) }
}

fn unknown_parameter(name: String) -> Fault {
    Fault::invalid(format!("Unknown search parameter '{name}'"))
}

fn page_size(count: Option<&str>) -> Result<usize, Fault> {
    match count.map(str::parse::<usize>) {
        None => Ok(PAGE_DEFAULT),
        Some(Ok(count)) => Ok(count.min(PAGE_MAX)),
        Some(Err(_)) => Err(Fault::invalid("Invalid value of _count")),
    }
}

fn is_type(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase()) && text.bytes().all(|b| b.is_ascii_alphabetic())
}

/// The id datatype: 1 to 64 of `A-Z a-z 0-9 - .` (R4 datatypes.html#id).
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

/// Name and value pairs of a query or form, in order, decoded.
fn parameters(query: &str) -> Result<Vec<(String, String)>, Fault> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| Ok((decode(name, true)?, decode(value, true)?)))
        .collect()
}

fn encode(parameters: &[(String, String)]) -> String {
    let pairs: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{}={}", percent(name), percent(value))).collect();
    pairs.join("&")
}

/// Percent-encodes all but the unreserved characters of RFC 3986 §2.3.
pub fn percent(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => output.push(byte.into()),
            _ => {
                let _ = write!(output, "%{byte:02X}");
            }
        }
    }
    output
}

fn decode(text: &str, form: bool) -> Result<String, Fault> {
    let mut output = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        output.push(match byte {
            b'+' if form => b' ',
            b'%' => {
                let digits: Option<u8> = bytes.next().zip(bytes.next()).and_then(|(high, low)| {
                    let digit = |b: u8| char::from(b).to_digit(16);
                    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
                });
                digits.ok_or_else(|| Fault::invalid("Invalid percent-encoding in URL"))?
            }
            byte => byte,
        });
    }
    String::from_utf8(output).map_err(|_| Fault::invalid("URL is not UTF-8"))
}
