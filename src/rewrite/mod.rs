//! The rewriter: slices in, slices out, cut anywhere; one resource is the unit of decision.
//!
//! ```text
//! bytes → framer (this file) → scanner (json) → events → decider (decide) → edits → bytes
//! ```
//! JSON has no order: `resourceType`, `system` and the subject may come after the values that they govern. So the framer finds
//! the resources of a streamed Bundle (its entries) or of NDJSON (its lines), holds one at a time, bounded by `limits`, and lets
//! it go only when it was scanned to its end and decided. Everything else of a Bundle is a unit of its own, too.
//!
//! After the first refusal a rewriter refuses everything: nothing of the failed unit, and nothing behind it, ever comes out.

mod act;
mod dates;
mod decide;
mod engine;
mod form;
pub mod json;
mod leaf;
mod memo;
mod plain;
mod reference;
pub mod refusal;
mod report;
mod seal;
mod search;
pub mod simd;
mod spare;
pub mod text;
pub mod url;

pub use engine::{Base, Engine, Options, Overflow};
pub use refusal::{Code, Refusal};
pub use report::Report;
pub use seal::SYSTEM as SEAL_SYSTEM;

use crate::limits;
use crate::policy::Permit;
use crate::rules::automaton::{Node, StateId};
use crate::secret::SecretKey;
use decide::{Decider, Desk};
use json::{Direction, Scanner, Stop, Unit};
use spare::Spare;
use std::sync::Arc;

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON document.
    Json,
    /// One JSON document a line.
    Ndjson,
}

/// What the framer expects next in a JSON document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The document.
    Start,
    /// A document that is one unit.
    Whole,
    /// `,` or `}` of the streamed Bundle.
    AfterMember,
    /// An entry or, before the first, `]`.
    Entry { first: bool },
    /// `,` or `]` of the entries.
    AfterEntry,
    /// Nothing but white space.
    End,
}

/// The streamed Bundle.
#[derive(Debug, Default)]
struct Bundle {
    /// Edges seen, for the duplicate check.
    seen: Vec<u16>,
    /// Entries read, and written.
    entries: u64,
    written: u64,
}

/// One body on its way, in one direction. Owns its buffer; shares the engine.
pub struct Rewriter {
    engine: Arc<Engine>,
    format: Format,
    direction: Direction,
    /// How strictly it is read. What goes out is, and so is what a caller outside asks.
    read_as: Direction,
    permit: Option<Arc<Permit>>,
    scanner: Scanner,
    desk: Desk,
    plain: plain::Table,
    report: Report,
    /// What came in and is not yet written: the one unit that is not whole yet.
    buffer: Vec<u8>,
    /// Bytes of the input before what is looked at.
    base: u64,
    /// Do not scan again before this many bytes are there: an incomplete unit is retried when it has doubled.
    try_at: usize,
    /// NDJSON: how much of the buffer holds no line feed.
    searched: usize,
    line: u64,
    next: Next,
    bundle: Bundle,
    refused: Option<Refusal>,
}

/// What a step of the framer came to.
enum Step {
    /// Consumed up to here.
    To(usize),
    /// Needs more input.
    More,
}

impl Rewriter {
    /// Towards the untrusted side.
    pub fn pseudonymize(engine: Arc<Engine>, format: Format) -> Self {
        Rewriter::new(engine, format, Direction::Out, None)
    }

    /// Towards the trusted side. Without a permit tokens stay tokens; foreign ids are escaped either way.
    pub fn reidentify(engine: Arc<Engine>, format: Format, permit: Option<Arc<Permit>>) -> Self {
        Rewriter::new(engine, format, Direction::Back, permit)
    }

    fn new(engine: Arc<Engine>, format: Format, direction: Direction, permit: Option<Arc<Permit>>) -> Self {
        let read_as = if engine.calls_in { Direction::Out } else { direction };
        let Spare { scanner, desk, buffer } = engine.spares.take();
        Rewriter {
            engine,
            format,
            direction,
            read_as,
            permit,
            scanner,
            desk,
            plain: plain::Table::default(),
            report: Report::default(),
            buffer,
            base: 0,
            try_at: 0,
            searched: 0,
            line: 1,
            next: Next::Start,
            bundle: Bundle::default(),
            refused: None,
        }
    }

    /// With the key of hashes that hold in this document, run or exchange only (action `hash`, `scope: document`): 32 random bytes that the
    /// caller forgets. Rewriters of one run take the same. Without it a value under such a rule is refused.
    #[must_use]
    pub fn within(mut self, document: &SecretKey) -> Self {
        self.desk.document = Some(self.engine.keys.document_mac(document));
        self
    }

    /// For an answer to this caller outside: links in it are given to nobody else.
    #[must_use]
    pub fn answering(mut self, caller: &str) -> Self {
        self.desk.caller = caller.to_owned();
        self
    }

    /// Takes input, appends whatever of the output is decided. After a refusal `output` holds only whole units before it.
    pub fn write(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Refusal> {
        self.step(input, false, output)
    }

    /// The end of the input. A document that stops half-way is a refusal, not a flush.
    pub fn finish(&mut self, output: &mut Vec<u8>) -> Result<(), Refusal> {
        self.step(&[], true, output)
    }

    /// One whole document at once, for callers that do their own framing (a line of NDJSON, a small body). Independent of what
    /// `write` has seen; a refusal of one document does not touch the next.
    pub fn document(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Refusal> {
        self.whole(input, output)
    }

    /// Resources since the last take whose dates could not be unshifted for want of a valid seal.
    pub fn unsealed(&self) -> u64 {
        self.report.unsealed
    }

    /// What was done since the last take.
    pub fn take_report(&mut self) -> Report {
        self.desk.settle(&mut self.report);
        std::mem::take(&mut self.report)
    }

    fn step(&mut self, input: &[u8], last: bool, output: &mut Vec<u8>) -> Result<(), Refusal> {
        if let Some(refusal) = &self.refused {
            return Err(refusal.clone());
        }
        let done = match self.format {
            Format::Json => self.json(input, last, output),
            Format::Ndjson => self.ndjson(input, last, output),
        };
        if let Err(refusal) = &done {
            self.refused = Some(refusal.clone());
            self.buffer = Vec::new();
        }
        done
    }

    // === NDJSON ===

    fn ndjson(&mut self, input: &[u8], last: bool, output: &mut Vec<u8>) -> Result<(), Refusal> {
        let mut held = std::mem::take(&mut self.buffer);
        let rest = if held.is_empty() {
            self.lines(input, last, output)?
        } else {
            held.extend_from_slice(input);
            self.lines(&held, last, output)?
        };
        self.hold(held, input, rest);
        self.searched = self.buffer.len();
        self.bounded()
    }

    /// Writes the whole lines of `buffer`; how many bytes are left.
    fn lines(&mut self, buffer: &[u8], last: bool, output: &mut Vec<u8>) -> Result<usize, Refusal> {
        let mut from = 0;
        let mut searched = self.searched;
        while let Some(length) = memchr::memchr(b'\n', &buffer[searched..]) {
            let end = searched + length;
            self.line(&buffer[from..end], from, output)?;
            output.push(b'\n');
            self.line += 1;
            from = end + 1;
            searched = from;
        }
        if last && from < buffer.len() {
            self.line(&buffer[from..], from, output)?;
            from = buffer.len();
        }
        self.base += from as u64;
        Ok(buffer.len() - from)
    }

    /// Keeps the last `rest` bytes of what was held and came in: in `held`, whose own bytes come first, or in `input` alone.
    fn hold(&mut self, mut held: Vec<u8>, input: &[u8], rest: usize) {
        match held.len() {
            0 => held.extend_from_slice(&input[input.len() - rest..]),
            whole => drop(held.drain(..whole - rest)),
        }
        self.buffer = held;
    }

    fn line(&mut self, line: &[u8], at: usize, output: &mut Vec<u8>) -> Result<(), Refusal> {
        if line.iter().all(u8::is_ascii_whitespace) {
            output.extend_from_slice(line); // blank lines and the CR of a line end stay
            return Ok(());
        }
        let number = self.line;
        self.whole(line, output).map_err(|mut refusal| {
            refusal.byte += self.base + at as u64;
            refusal.path = format!("line {number}: {}", refusal.path);
            refusal
        })
    }

    // === one document as one unit ===

    fn whole(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Refusal> {
        let engine = Arc::clone(&self.engine);
        if let Some(mut messages) = self.messages(&engine) {
            return messages.document(input, output);
        }
        if input.len() > limits::RESOURCE_BYTES_MAX {
            return Err(self.refusal(Code::ResourceTooLarge, 0));
        }
        let unit = Unit { cell: engine.rules.automaton.document(), edge: 0, from: 0 };
        let end = match self.scan(&engine, input, 0, unit) {
            Ok(end) => end,
            Err(Stop::Incomplete) if self.read_as == Direction::Back && json::is_number(input) => {
                output.extend_from_slice(input);
                return Ok(());
            }
            Err(Stop::Incomplete) => {
                return Err(Refusal { byte: input.len() as u64, ..self.scan_refusal(Code::Truncated, 0, "") });
            }
            Err(Stop::Refused(code, at)) => return Err(self.scan_refusal(code, at, "")),
        };
        if let Some(more) = input[end..].iter().position(|b| !b.is_ascii_whitespace()) {
            return Err(Refusal { code: Code::Trailing, path: String::new(), byte: (end + more) as u64 });
        }
        self.decided(&engine, input, 0, input.len(), String::new, output).map(drop)
    }

    /// Decides what was scanned and lies within `start..end`, and appends it. Positions in a refusal are those in `input`.
    fn decided(
        &mut self,
        engine: &Engine,
        input: &[u8],
        start: usize,
        end: usize,
        place: impl Fn() -> String,
        output: &mut Vec<u8>,
    ) -> Result<bool, Refusal> {
        let (span, permit) = ((start, end), self.permit.as_deref());
        let (scanner, desk, report) = (&self.scanner, &mut self.desk, &mut self.report);
        match Decider::new(engine, input, span, scanner, self.direction, permit, desk, report) {
            Ok(decider) => decider.write(place, output),
            Err(at) => Err(Refusal { code: Code::BadUtf8, path: place(), byte: at as u64 }),
        }
    }

    fn scan(&mut self, engine: &Engine, input: &[u8], at: usize, unit: Unit) -> Result<usize, Stop> {
        self.scanner.scan(&engine.rules.automaton, input, at, unit, self.read_as, engine.rules.unknown)
    }

    // === a streamed document ===

    fn json(&mut self, input: &[u8], last: bool, output: &mut Vec<u8>) -> Result<(), Refusal> {
        let mut held = std::mem::take(&mut self.buffer);
        if held.is_empty() {
            let rest = self.units(input, last, output)?;
            self.hold(held, input, rest);
        } else {
            held.extend_from_slice(input);
            let rest = if held.len() < self.try_at && !last { held.len() } else { self.units(&held, last, output)? };
            self.hold(held, input, rest);
        }
        if last && self.next == Next::Whole {
            let document = std::mem::take(&mut self.buffer);
            self.whole(&document, output).map_err(|r| Refusal { byte: r.byte + self.base, ..r })?;
            self.next = Next::End;
            return Ok(());
        }
        if last && (self.next != Next::End || !self.buffer.is_empty()) {
            return Err(self.refusal(Code::Truncated, self.buffer.len()));
        }
        self.bounded()
    }

    /// Writes the whole units of `buffer`; how many bytes are left.
    fn units(&mut self, buffer: &[u8], last: bool, output: &mut Vec<u8>) -> Result<usize, Refusal> {
        let mut at = 0;
        while at < buffer.len() {
            match self.one(buffer, at, last, output)? {
                Step::To(end) => at = end,
                Step::More => break,
            }
        }
        let rest = buffer.len() - at;
        self.base += at as u64;
        self.try_at = if at == 0 { rest * 2 } else { 0 };
        Ok(rest)
    }

    fn bounded(&self) -> Result<(), Refusal> {
        if self.buffer.len() > limits::RESOURCE_BYTES_MAX {
            return Err(self.refusal(Code::ResourceTooLarge, 0));
        }
        Ok(())
    }

    fn one(&mut self, buffer: &[u8], at: usize, last: bool, output: &mut Vec<u8>) -> Result<Step, Refusal> {
        if self.next == Next::Whole {
            return Ok(Step::More);
        }
        let Some(space) = buffer[at..].iter().position(|b| !matches!(b, b' ' | b'\n' | b'\r' | b'\t')) else {
            if self.next == Next::End || last {
                output.extend_from_slice(&buffer[at..]);
                return Ok(Step::To(buffer.len()));
            }
            return Ok(Step::More);
        };
        let p = at + space;
        if self.next == Next::End && space > 0 {
            output.extend_from_slice(&buffer[at..p]); // as where the input is cut behind it
            return Ok(Step::To(p));
        }
        match (self.next, buffer[p]) {
            (Next::Start, b'[') if self.engine.rules.plain.is_some() => {
                self.next = Next::Entry { first: true };
                output.extend_from_slice(&buffer[at..=p]);
                Ok(Step::To(p + 1))
            }
            (Next::Start, _) if self.engine.rules.plain.is_some() => {
                self.next = Next::Whole;
                Ok(Step::More)
            }
            (Next::Entry { first: true }, b']') | (Next::AfterEntry, b']') if self.engine.rules.plain.is_some() => {
                self.next = Next::End;
                output.extend_from_slice(&buffer[at..=p]);
                Ok(Step::To(p + 1))
            }
            (Next::Start, b'{') => match bundle_head(buffer, p) {
                Head::More if !last => Ok(Step::More),
                Head::Bundle(end) => {
                    self.bundle.seen.push(self.bundle_edge(b"resourceType"));
                    self.report.resources += 1;
                    self.next = Next::AfterMember;
                    output.extend_from_slice(&buffer[at..end]);
                    Ok(Step::To(end))
                }
                Head::More | Head::Other => {
                    self.next = Next::Whole;
                    Ok(Step::More)
                }
            },
            (Next::Start, _) if self.read_as == Direction::Back => {
                self.next = Next::Whole; // some other JSON of the untrusted side: validated, nothing revealed
                Ok(Step::More)
            }
            (Next::AfterMember, b'}') => {
                self.next = Next::End;
                output.extend_from_slice(&buffer[at..=p]);
                Ok(Step::To(p + 1))
            }
            (Next::AfterMember, b',') => self.member(buffer, at, p, last, output),
            (Next::Entry { first: true }, b']') if self.read_as == Direction::Back => {
                self.next = Next::AfterMember;
                output.extend_from_slice(&buffer[at..=p]);
                Ok(Step::To(p + 1))
            }
            (Next::Entry { first: true }, b']') => Err(self.refusal(Code::Empty, p)),
            (Next::Entry { .. }, _) => self.entry(buffer, at, p, last, output),
            (Next::AfterEntry, b']') => {
                if self.bundle.written == 0 {
                    return Err(self.refusal(Code::Empty, p)); // every entry was of an unknown type and removed
                }
                self.next = Next::AfterMember;
                output.extend_from_slice(&buffer[at..=p]);
                Ok(Step::To(p + 1))
            }
            (Next::AfterEntry, b',') => {
                output.extend_from_slice(&buffer[at..p]);
                self.next = Next::Entry { first: false };
                Ok(Step::To(p + 1)) // the comma is written with the entry behind it, if that stays
            }
            (Next::End, _) => Err(self.refusal(Code::Trailing, p)),
            (Next::Whole, _) => Ok(Step::More),
            (Next::Start | Next::AfterMember | Next::AfterEntry, _) => Err(self.refusal(Code::BadJson, p)),
        }
    }

    fn bundle_row(&self) -> (StateId, u16, u32) {
        let automaton = &self.engine.rules.automaton;
        let state = automaton.root("Bundle", false).expect("every release defines Bundle");
        match automaton.states[state as usize].node {
            Node::Object { shape, row } => (state, shape, row),
            _ => unreachable!("the root of a resource is an object"),
        }
    }

    fn bundle_edge(&self, name: &[u8]) -> u16 {
        let (_, shape, _) = self.bundle_row();
        self.engine.rules.automaton.shapes[shape as usize].edge(name).expect("a member of every Bundle")
    }

    /// One member of the Bundle, its comma at `comma`.
    fn member(
        &mut self,
        buffer: &[u8],
        at: usize,
        comma: usize,
        last: bool,
        output: &mut Vec<u8>,
    ) -> Result<Step, Refusal> {
        let engine = Arc::clone(&self.engine);
        let automaton = &engine.rules.automaton;
        let (_, shape, row) = self.bundle_row();
        let shape = &automaton.shapes[shape as usize];
        let (name, value) = match json::member_name(buffer, comma + 1) {
            Ok(found) => found,
            Err(stop) => return self.stopped(stop, buffer, last, "Bundle"),
        };
        let out = self.read_as == Direction::Out;
        let Some(edge) = shape.edge(name.as_bytes()) else {
            if out && shape.folds(name.as_bytes()) {
                return Err(self.refusal(Code::KeyCase, comma));
            }
            if out && engine.rules.unknown == crate::rules::Unknown::Refuse {
                return Err(Refusal { path: "Bundle.?".to_owned(), ..self.refusal(Code::UnknownElement, comma) });
            }
            return match json::skip(buffer, value) {
                Ok(end) => {
                    if out {
                        self.report.removed += 1;
                    } else {
                        output.extend_from_slice(&buffer[at..end]);
                    }
                    Ok(Step::To(end))
                }
                Err(stop) => self.stopped(stop, buffer, last, "Bundle.?"),
            };
        };
        if self.bundle.seen.contains(&edge) {
            return Err(self.refusal(Code::DuplicateKey, comma));
        }
        let member = &shape.members[edge as usize];
        if name == "entry" {
            match buffer[value..].iter().position(|b| !b.is_ascii_whitespace()).map(|i| value + i) {
                None if !last => return Ok(Step::More),
                Some(open) if buffer[open] == b'[' => {
                    self.bundle.seen.push(edge);
                    self.next = Next::Entry { first: true };
                    output.extend_from_slice(&buffer[at..=open]);
                    return Ok(Step::To(open + 1));
                }
                _ => {}
            }
        }
        let unit = Unit { cell: automaton.cell(row, edge), edge, from: comma };
        let place = || format!("Bundle.{}", member.name);
        let end = match self.scan(&engine, buffer, value, unit) {
            Ok(end) => end,
            Err(stop) => return self.stopped(stop, buffer, last, &place()),
        };
        self.bundle.seen.push(edge);
        self.decide(&engine, buffer, at, end, place, output)?;
        Ok(Step::To(end))
    }

    /// One entry, beginning at `start`.
    fn entry(
        &mut self,
        buffer: &[u8],
        at: usize,
        start: usize,
        last: bool,
        output: &mut Vec<u8>,
    ) -> Result<Step, Refusal> {
        let engine = Arc::clone(&self.engine);
        if engine.rules.plain.is_some() {
            return self.element(&engine, buffer, at, last, output); // white space is the message's
        }
        let (_, _, row) = self.bundle_row();
        let edge = self.bundle_edge(b"entry");
        let unit = Unit { cell: engine.rules.automaton.cell(row, edge).one(), edge, from: start };
        let number = self.bundle.entries;
        let place = || format!("Bundle.entry[{number}]");
        let end = match self.scan(&engine, buffer, start, unit) {
            Ok(end) => end,
            Err(stop) => return self.stopped(stop, buffer, last, &place()),
        };
        let mark = output.len();
        if self.bundle.written > 0 {
            output.push(b',');
        }
        if self.decide(&engine, buffer, at, end, place, output)? {
            self.bundle.written += 1;
        } else {
            output.truncate(mark);
        }
        self.bundle.entries += 1;
        self.next = Next::AfterEntry;
        Ok(Step::To(end))
    }

    /// Messages of a pack of `format: json`, which know no FHIR.
    fn messages<'m>(&'m mut self, engine: &'m Engine) -> Option<plain::Messages<'m>> {
        Some(plain::Messages {
            engine,
            plain: engine.rules.plain.as_ref()?,
            direction: self.direction,
            permit: self.permit.as_deref(),
            document: self.desk.document.as_ref(),
            table: &mut self.plain,
            report: &mut self.report,
        })
    }

    /// One element of an array of messages, beginning at `start`.
    fn element(
        &mut self,
        engine: &Engine,
        buffer: &[u8],
        start: usize,
        last: bool,
        output: &mut Vec<u8>,
    ) -> Result<Step, Refusal> {
        let prefix = format!("$[{}]", self.bundle.entries);
        let mark = output.len();
        if self.bundle.written > 0 {
            output.push(b',');
        }
        let base = self.base;
        let Some(mut messages) = self.messages(engine) else { return Err(self.refusal(Code::BadJson, start)) };
        let came = messages.message(buffer, start, true, &prefix, output);
        match came.map_err(|r| Refusal { byte: r.byte + base, ..r })? {
            plain::Came::To(end, stays) => {
                if stays {
                    self.bundle.written += 1;
                } else {
                    output.truncate(mark);
                }
                self.bundle.entries += 1;
                self.next = Next::AfterEntry;
                Ok(Step::To(end))
            }
            plain::Came::Incomplete => {
                output.truncate(mark);
                match last {
                    true => Err(Refusal { path: prefix, ..self.refusal(Code::Truncated, buffer.len()) }),
                    false => Ok(Step::More),
                }
            }
        }
    }

    fn decide(
        &mut self,
        engine: &Engine,
        buffer: &[u8],
        start: usize,
        end: usize,
        place: impl Fn() -> String,
        output: &mut Vec<u8>,
    ) -> Result<bool, Refusal> {
        let base = self.base;
        self.decided(engine, buffer, start, end, place, output).map_err(|r| Refusal { byte: r.byte + base, ..r })
    }

    fn stopped(&mut self, stop: Stop, buffer: &[u8], last: bool, prefix: &str) -> Result<Step, Refusal> {
        match stop {
            Stop::Incomplete if !last => Ok(Step::More),
            Stop::Incomplete => Err(self.scan_refusal(Code::Truncated, buffer.len(), prefix)),
            Stop::Refused(code, at) => Err(self.scan_refusal(code, at, prefix)),
        }
    }

    fn scan_refusal(&self, code: Code, at: usize, prefix: &str) -> Refusal {
        let path = self.scanner.path(&self.engine.rules.automaton, prefix);
        Refusal { code, path, byte: self.base + at as u64 }
    }

    fn refusal(&self, code: Code, at: usize) -> Refusal {
        let path = match self.next {
            Next::Start | Next::Whole | Next::End => String::new(),
            Next::AfterMember => "Bundle".to_owned(),
            Next::Entry { .. } | Next::AfterEntry => format!("Bundle.entry[{}]", self.bundle.entries),
        };
        Refusal { code, path, byte: self.base + at as u64 }
    }
}

/// Its buffers, emptied, serve the next body of the engine.
impl Drop for Rewriter {
    fn drop(&mut self) {
        let (scanner, desk) = (std::mem::take(&mut self.scanner), std::mem::take(&mut self.desk));
        self.engine.spares.give(scanner, desk, std::mem::take(&mut self.buffer));
    }
}

/// How a document begins.
enum Head {
    /// Not enough of it is there.
    More,
    /// A Bundle that says so first; up to here.
    Bundle(usize),
    /// Anything else: one unit.
    Other,
}

/// Looks whether the object at `at` begins with `"resourceType":"Bundle"`: only then can it be streamed.
fn bundle_head(buffer: &[u8], at: usize) -> Head {
    let mut p = at + 1;
    for word in [&b"\"resourceType\""[..], b":", b"\"Bundle\""] {
        while buffer.get(p).is_some_and(u8::is_ascii_whitespace) {
            p += 1;
        }
        let there = &buffer[p..buffer.len().min(p + word.len())];
        if !word.starts_with(there) {
            return Head::Other;
        }
        if there.len() < word.len() {
            return Head::More;
        }
        p += word.len();
    }
    Head::Bundle(p)
}
