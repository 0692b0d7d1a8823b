//! Stub: the room that other hands are writing. `real` becomes `tokn` and back; a line that is no `{...}` is refused.
use crate::names::{Class, Domain, EpochId};
use crate::policy::Permit;
use crate::{rules, token::Keyring};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One route's rules and keys.
pub struct Engine {
    options: Options,
}
/// What to do with ids that do not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overflow {
    /// Refuse.
    Refuse,
    /// Hash.
    Hash,
}
/// Options of a route.
pub struct Options {
    /// Id epoch.
    pub id_epoch: Option<EpochId>,
    /// Overflow.
    pub overflow: Overflow,
    /// Our bases.
    pub bases: Vec<String>,
    /// Base of the untrusted side.
    pub upstream_base: Option<String>,
}
impl Engine {
    /// Binds rules to keys.
    pub fn new(_: rules::Compiled, _: &Keyring, _: Domain, options: Options) -> Result<Engine, Vec<String>> {
        Ok(Engine { options })
    }
}
/// Format of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// One document.
    Json,
    /// Lines.
    Ndjson,
}
/// Why not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// Not JSON.
    Syntax,
    /// Cannot be answered.
    Search,
    /// Not ours.
    Foreign,
}
impl Code {
    /// Stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Syntax => "json-syntax",
            Code::Search => "search-unanswerable",
            Code::Foreign => "foreign-url",
        }
    }
    /// What happened.
    pub fn what(self) -> &'static str {
        "the body is not JSON"
    }
    /// What to do.
    pub fn advice(self) -> &'static str {
        "send JSON"
    }
    /// Status on the wire.
    pub fn http_status(self) -> u16 {
        400
    }
}
/// An honest no.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Code.
    pub code: Code,
    /// Log-safe path.
    pub path: String,
    /// Byte.
    pub byte: u64,
}
/// What was done.
#[derive(Default, Debug)]
pub struct Report {
    /// By action.
    pub fields: [u64; 4],
    /// By class.
    pub reveals: BTreeMap<Class, u64>,
    /// Keyed handles.
    pub subjects: BTreeSet<String>,
}
enum Way {
    Out,
    Back(Option<Arc<Permit>>),
}
/// A body on its way.
pub struct Rewriter {
    way: Way,
    format: Format,
    held: Vec<u8>,
    byte: u64,
    report: Report,
}
impl Rewriter {
    /// Outward.
    pub fn pseudonymize(_: Arc<Engine>, format: Format) -> Rewriter {
        Rewriter { way: Way::Out, format, held: vec![], byte: 0, report: Report::default() }
    }
    /// Back.
    pub fn reidentify(_: Arc<Engine>, format: Format, permit: Option<Arc<Permit>>) -> Rewriter {
        Rewriter { way: Way::Back(permit), format, held: vec![], byte: 0, report: Report::default() }
    }
    /// More input.
    pub fn write(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Refusal> {
        self.held.extend_from_slice(input);
        if self.format == Format::Ndjson {
            let end = self.held.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
            let lines: Vec<u8> = self.held.drain(..end).collect();
            for line in lines.split_inclusive(|&b| b == b'\n') {
                self.one(line, output)?;
            }
        }
        Ok(())
    }
    /// No more input.
    pub fn finish(&mut self, output: &mut Vec<u8>) -> Result<(), Refusal> {
        let rest = std::mem::take(&mut self.held);
        if rest.is_empty() && self.format == Format::Ndjson { Ok(()) } else { self.one(&rest, output) }
    }
    fn one(&mut self, document: &[u8], output: &mut Vec<u8>) -> Result<(), Refusal> {
        let text = String::from_utf8_lossy(document);
        let trimmed = text.trim();
        let level = trimmed.matches('{').count() == trimmed.matches('}').count();
        if !(trimmed.starts_with('{') && trimmed.ends_with('}') && level) {
            return Err(Refusal { code: Code::Syntax, path: String::new(), byte: self.byte });
        }
        self.byte += document.len() as u64;
        let out = match &self.way {
            Way::Out => text.replace("real", "tokn"),
            Way::Back(None) => text.into_owned(),
            Way::Back(Some(_)) => {
                let n = text.matches("tokn").count() as u64;
                if n > 0 {
                    *self.report.reveals.entry(Class::new("Patient.id").expect("a name")).or_default() += n;
                }
                text.replace("tokn", "real")
            }
        };
        self.report.fields[0] += 1;
        output.extend_from_slice(out.as_bytes());
        Ok(())
    }
    /// Since the last take.
    pub fn take_report(&mut self) -> Report {
        std::mem::take(&mut self.report)
    }
}
/// URLs.
pub mod url {
    use super::*;
    fn no(code: Code) -> Refusal {
        Refusal { code, path: String::new(), byte: 0 }
    }
    /// Request line.
    pub fn request(_: &Engine, _method: &str, target: &str) -> Result<String, Refusal> {
        if target.contains("name=") { Err(no(Code::Search)) } else { Ok(target.replace("real", "tokn")) }
    }
    /// If-None-Exist.
    pub fn condition(_: &Engine, _resource_type: &str, query: &str) -> Result<String, Refusal> {
        Ok(query.replace("real", "tokn"))
    }
    /// Location of an answer.
    pub fn location(engine: &Engine, value: &str, permit: Option<&Permit>) -> Result<String, Refusal> {
        let base = engine.options.upstream_base.as_deref().unwrap_or_default();
        let rest = match value.strip_prefix(base) {
            Some(rest) => format!("{}{rest}", engine.options.bases.first().map_or("", |b| b)),
            None if value.contains("://") => return Err(no(Code::Foreign)),
            None => value.to_owned(),
        };
        Ok(if permit.is_some() { rest.replace("tokn", "real") } else { rest })
    }
}
