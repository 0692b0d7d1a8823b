//! The JSON scanner: one unit in, validated in one pass, and a list of *events* out: the places that the decider must see.
//!
//! It validates everything it passes, watched or not: grammar (RFC 8259), escapes, numbers, UTF-8, depth, duplicate names, names of
//! the release, and that each value has the JSON form of its FHIR type. It compares names only after decoding escapes, since a
//! reader behind us would. It decides nothing and holds no keys.
//!
//! Input that ends before the unit does is `Incomplete`, never an error: the framer brings more bytes or says that there are none. Nothing of
//! a unit may leave before `scan` has returned its end.
//!
//! Events are in document order. A container in which nothing is watched takes its event back when it is closed, so untouched
//! subtrees cost nothing afterwards; one that stays whatever its values say becomes *passed*: what is in it counts for the next container
//! around, members that go are cut out by place, and the decider need not enter it. That takes an object whose `where` or `codes` are
//! settled as soon as the sibling that they ask for is read: `system` stands first nearly always. The names of members come in the same order in resource after resource: each is first compared,
//! whole, with the one that followed last time, and looked up only where that fails.

use super::form::is_formed;
use super::refusal::Code;
use super::simd::{self, Search, WIDTH};
use super::spare::emptied;
use crate::limits;
use crate::rules::Unknown;
use crate::rules::automaton::{
    Automaton, CHECKED, Edge, Form, MODIFIER, NO_SWITCH, Node, OPENED, REMOVED_WHOLE, StateId, WATCH_BACK, WATCH_OUT,
};
use crate::rules::cell::{Cell, Check, FACT, FRAME, GONE, KEPT, Kind, NULLABLE, SURE, SYSTEM};

/// No event.
pub const NONE: u32 = u32::MAX;
/// The edge of a member that the schema does not know.
pub const UNKNOWN_EDGE: Edge = Edge::MAX;

/// What kind of place an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A string: the span lies between the quotes.
    Text,
    /// A number or boolean.
    Scalar,
    /// An object: the span includes the braces.
    Object,
    /// The object of a resource.
    Resource,
    /// An array: the span includes the brackets.
    Array,
    /// A member that the schema does not know.
    Unknown,
    /// An object that stays, and is not to be entered: what is in it follows as if it stood around.
    PassedObject,
    /// The same of an array.
    PassedArray,
    /// A member that goes, from something passed: the span is what is to be cut.
    Cut,
}

impl EventKind {
    /// Whether it is to be stepped over.
    #[inline]
    pub fn is_passed(self) -> bool {
        matches!(self, EventKind::PassedObject | EventKind::PassedArray)
    }
}

/// One watched place.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// Position of the separator before: `{`, `[` or `,`.
    pub from: u32,
    /// First byte of the value (behind the quote of a text).
    pub start: u32,
    /// Behind its last byte (the closing quote of a text left out).
    pub end: u32,
    /// The next event that is not inside this one.
    pub link: u32,
    /// State in which it was scanned.
    pub state: StateId,
    /// Members or elements of a container.
    pub members: u32,
    /// Of those the ones that are nothing by themselves: `null` in an array; an element's id, an extension's url (ele-1, ext-1).
    pub hollow: u32,
    /// Which member or element of its parent, from 0.
    pub index: u32,
    /// By which edge it was reached.
    pub edge: Edge,
    /// What it is.
    pub kind: EventKind,
    /// Whether a text holds escapes.
    pub escaped: bool,
    /// In how many containers it stands. What was passed stands deeper than one more than what is around it.
    pub depth: u8,
    /// Whether `state` is decided, of an object: all that its rules ask for has been read.
    pub exact: bool,
}

const _: () = assert!(limits::DEPTH_MAX < 256, "the depth of an event is a byte");

/// Why scanning stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The input ends inside the unit.
    Incomplete,
    /// The unit must not cross; at this byte of the input.
    Refused(Code, usize),
}

/// Which way the unit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the untrusted side: strict, everything must be known.
    Out,
    /// To the trusted side: what the schema does not know stays as it is and reveals nothing.
    Back,
}

/// The value to be scanned: one member's value, one element, one document.
#[derive(Debug, Clone, Copy)]
pub struct Unit {
    /// What stands there.
    pub cell: Cell,
    /// By which edge it is reached.
    pub edge: Edge,
    /// Position of the separator before.
    pub from: usize,
}

/// An open container.
#[derive(Debug, Clone, Copy)]
struct Frame {
    /// Start of its row of cells.
    row: u32,
    /// Names of its members.
    shape: u16,
    /// `}` or `]`.
    close: u8,
    /// A resource.
    resource: bool,
    /// Which flags of a leaf matter here: none where everything beneath is removed.
    watch: u16,
    /// By which edge it was reached.
    edge: Edge,
    /// The member being read, for paths; what the next one is guessed from.
    current: Edge,
    /// Its event stays even if nothing beneath is watched.
    asked: bool,
    /// What stands in it, of an array.
    cell: Cell,
    /// Members seen, by edge.
    seen: u64,
    /// Where its others begin in `spill`.
    spill: u32,
    members: u32,
    /// See [`Event::hollow`].
    hollow: u32,
    /// Members that go, whatever else is found.
    gone: u32,
    event: u32,
    /// The switch that is not decided yet.
    pending: u32,
    /// Its state is decided, and so are those around.
    exact: bool,
    /// Whether it stays, only the decider can tell.
    unsure: bool,
    /// A Coding whose `system` was read and is not that of seals.
    cleared: bool,
}

impl Frame {
    /// What is around a unit.
    fn outside(watch: u16) -> Frame {
        Frame {
            row: 0,
            shape: 0,
            close: 0,
            resource: false,
            watch,
            edge: UNKNOWN_EDGE,
            current: UNKNOWN_EDGE,
            asked: false,
            cell: Cell::default(),
            seen: 0,
            spill: 0,
            members: 0,
            hollow: 0,
            gone: 0,
            event: NONE,
            pending: NO_SWITCH,
            exact: true,
            unsure: true,
            cleared: false,
        }
    }

    #[inline]
    fn is_object(&self) -> bool {
        self.close == b'}'
    }

    #[inline]
    fn mute(&self) -> bool {
        self.watch == 0
    }
}

/// Guesses kept: a place is taken by hash of shape and member, and a wrong guess costs one look into the table of names.
const GUESSES: usize = 1024;

/// Scanner state, reused from unit to unit so that a small resource costs no allocation.
#[derive(Debug)]
pub struct Scanner {
    /// What was found, valid after `scan` returned an end.
    pub events: Vec<Event>,
    /// Events that say what must be known before the first date of their resource, and resources in resources.
    pub facts: Vec<u32>,
    /// Outer containers.
    stack: Vec<Frame>,
    spill: Vec<u32>,
    name: Vec<u8>,
    /// Which member came last after which.
    guesses: Box<[Edge; GUESSES]>,
    /// URIs of this stream that were found well formed: the same few systems and profiles come again and again.
    uris: Vec<(Check, Vec<u8>)>,
    resources: usize,
}

/// URIs remembered, by hash; a power of two.
const URIS: usize = 64;
/// Longest of them, in bytes.
const URI_BYTES_MAX: usize = 128;

impl Scanner {
    /// A new scanner in the emptied buffers of this one.
    /// Guesses are kept: they say in which order the members of types come, by number, and nothing of whom.
    pub(super) fn emptied(self) -> Scanner {
        Scanner {
            events: emptied(self.events),
            facts: emptied(self.facts),
            stack: emptied(self.stack),
            spill: emptied(self.spill),
            name: emptied(self.name),
            guesses: self.guesses,
            uris: Vec::new(),
            resources: 0,
        }
    }

    /// Whether a value that is kept has its form.
    #[inline]
    fn is_formed(&mut self, automaton: &Automaton, check: Check, text: &[u8], escaped: bool) -> bool {
        if !matches!(check, Check::Uri | Check::CodingSystem | Check::Canonical)
            || escaped
            || text.len() > URI_BYTES_MAX
        {
            return is_formed(automaton, check, text, escaped);
        }
        if self.uris.is_empty() {
            self.uris.resize_with(URIS, || (Check::Nothing, Vec::new()));
        }
        let tail = text.last_chunk::<8>().map_or(0, |tail| u64::from_le_bytes(*tail));
        let mixed = (tail ^ text.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let known = &mut self.uris[(mixed >> 58) as usize % URIS];
        if known.0 == check && known.1 == text {
            return true;
        }
        let formed = is_formed(automaton, check, text, false);
        if formed {
            known.0 = check;
            known.1.clear();
            known.1.extend_from_slice(text);
        }
        formed
    }
}

impl Default for Scanner {
    fn default() -> Self {
        Scanner {
            events: Vec::new(),
            facts: Vec::new(),
            stack: Vec::new(),
            spill: Vec::new(),
            name: Vec::new(),
            guesses: Box::new([0; GUESSES]),
            uris: Vec::new(),
            resources: 0,
        }
    }
}

pub(super) type Scan<T> = Result<T, Stop>;

pub(super) fn refuse<T>(code: Code, at: usize) -> Scan<T> {
    Err(Stop::Refused(code, at))
}

#[inline(always)]
fn byte(input: &[u8], at: usize) -> Scan<u8> {
    input.get(at).copied().ok_or(Stop::Incomplete)
}

/// Skips white space; the byte found and its position.
#[inline(always)]
pub(super) fn space<S: Search>(search: S, input: &[u8], at: usize) -> Scan<(u8, usize)> {
    let b = byte(input, at)?;
    if b > b' ' {
        return Ok((b, at));
    }
    spaces(search, input, at)
}

/// The same, where there is some: a line feed and the indentation behind it at once.
#[inline]
fn spaces<S: Search>(search: S, input: &[u8], mut at: usize) -> Scan<(u8, usize)> {
    while let Some(chunk) = input.get(at..).and_then(<[u8]>::first_chunk::<WIDTH>) {
        let others = !search.blanks(chunk);
        if others == 0 {
            at += WIDTH;
            continue;
        }
        at += others.trailing_zeros() as usize;
        break;
    }
    loop {
        let b = byte(input, at)?;
        if b > b' ' {
            return Ok((b, at));
        }
        if !matches!(b, b' ' | b'\n' | b'\r' | b'\t') {
            return refuse(Code::BadJson, at);
        }
        at += 1;
    }
}

/// From behind an opening quote to its closing quote, and whether there are escapes.
#[inline(always)]
pub(super) fn string<S: Search>(search: S, input: &[u8], mut at: usize) -> Scan<(usize, bool)> {
    let mut escaped = false;
    loop {
        while let Some(chunk) = input.get(at..).and_then(<[u8]>::first_chunk::<WIDTH>) {
            let stops = search.stops(chunk);
            if stops != 0 {
                at += stops.trailing_zeros() as usize;
                break;
            }
            at += WIDTH;
        }
        match byte(input, at)? {
            b'"' => return Ok((at, escaped)),
            b'\\' => {
                escaped = true;
                at = escape(input, at)?;
            }
            0..0x20 => return refuse(Code::BadJson, at),
            _ => at += 1, // the last bytes of the input, one by one
        }
    }
}

#[cold]
fn escape(input: &[u8], at: usize) -> Scan<usize> {
    match byte(input, at + 1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(at + 2),
        b'u' => {
            for i in at + 2..at + 6 {
                if !byte(input, i)?.is_ascii_hexdigit() {
                    return refuse(Code::BadJson, at);
                }
            }
            Ok(at + 6)
        }
        _ => refuse(Code::BadJson, at),
    }
}

/// A number by RFC 8259 §6; its end. One that touches the end of the input may go on.
fn number(input: &[u8], start: usize) -> Scan<usize> {
    let digits = |mut at: usize| -> Scan<usize> {
        let first = at;
        while byte(input, at)?.is_ascii_digit() {
            at += 1;
        }
        if at == first { refuse(Code::BadJson, start) } else { Ok(at) }
    };
    let mut at = start;
    if byte(input, at)? == b'-' {
        at += 1;
    }
    at = if byte(input, at)? == b'0' { at + 1 } else { digits(at)? };
    if byte(input, at)? == b'.' {
        at = digits(at + 1)?;
    }
    if matches!(byte(input, at)?, b'e' | b'E') {
        at += 1;
        if matches!(byte(input, at)?, b'+' | b'-') {
            at += 1;
        }
        at = digits(at)?;
    }
    Ok(at)
}

pub(super) fn word(input: &[u8], at: usize, word: &[u8]) -> Scan<usize> {
    for (i, &b) in word.iter().enumerate() {
        if byte(input, at + i)? != b {
            return refuse(Code::BadJson, at);
        }
    }
    Ok(at + word.len())
}

pub(super) fn scalar(input: &[u8], at: usize, first: u8) -> Scan<usize> {
    match first {
        b't' => word(input, at, b"true"),
        b'f' => word(input, at, b"false"),
        b'n' => word(input, at, b"null"),
        b'-' | b'0'..=b'9' => number(input, at),
        _ => refuse(Code::BadJson, at),
    }
}

/// A value of any shape, validated and passed over: for members that no schema knows. Recursion is bounded by the depth limit.
fn any<S: Search>(search: S, input: &[u8], at: usize, depth: usize) -> Scan<usize> {
    let (first, at) = space(search, input, at)?;
    match first {
        b'"' => Ok(string(search, input, at + 1)?.0 + 1),
        b'{' | b'[' => {
            if depth >= limits::DEPTH_MAX {
                return refuse(Code::TooDeep, at);
            }
            let close = if first == b'{' { b'}' } else { b']' };
            let (mut next, mut p) = space(search, input, at + 1)?;
            let mut names = std::collections::HashSet::new();
            if next == close {
                return Ok(p + 1);
            }
            loop {
                if first == b'{' {
                    if next != b'"' {
                        return refuse(Code::BadJson, p);
                    }
                    let (end, _) = string(search, input, p + 1)?;
                    if names.len() >= limits::MEMBERS_MAX {
                        return refuse(Code::TooManyMembers, p);
                    }
                    let spelling = std::str::from_utf8(&input[p + 1..end]).or(refuse(Code::BadUtf8, p))?;
                    let Some(name) = super::text::decode(spelling) else { return refuse(Code::BadText, p) };
                    if !names.insert(name) {
                        return refuse(Code::DuplicateKey, p);
                    }
                    let (colon, q) = space(search, input, end + 1)?;
                    if colon != b':' {
                        return refuse(Code::BadJson, q);
                    }
                    p = q + 1;
                }
                p = any(search, input, p, depth + 1)?;
                (next, p) = space(search, input, p)?;
                if next == close {
                    return Ok(p + 1);
                }
                if next != b',' {
                    return refuse(Code::BadJson, p);
                }
                (next, p) = space(search, input, p + 1)?;
                if next == close {
                    return refuse(Code::BadJson, p);
                }
            }
        }
        first => scalar(input, at, first),
    }
}

/// The member name in the streamed Bundle that begins (after white space) at `at`, and where its value begins.
pub fn member_name(input: &[u8], at: usize) -> Result<(String, usize), Stop> {
    let search = simd::Plain;
    let (quote, p) = space(search, input, at)?;
    if quote != b'"' {
        return refuse(Code::BadJson, p);
    }
    let (end, _) = string(search, input, p + 1)?;
    if end - p > limits::NAME_BYTES_MAX {
        return refuse(Code::UnknownElement, p);
    }
    let spelling = std::str::from_utf8(&input[p + 1..end]).or(refuse(Code::BadUtf8, p))?;
    let Some(name) = super::text::decode(spelling) else { return refuse(Code::BadText, p) };
    let (colon, q) = space(search, input, end + 1)?;
    if colon != b':' {
        return refuse(Code::BadJson, q);
    }
    Ok((name.into_owned(), q + 1))
}

/// The end of a value of any shape, validated and passed over.
pub fn skip(input: &[u8], at: usize) -> Result<usize, Stop> {
    let end = any(simd::Plain, input, at, 1)?;
    if std::str::from_utf8(&input[at..end]).is_err() {
        return refuse(Code::BadUtf8, at);
    }
    Ok(end)
}

/// Whether a whole document is one number. To the scanner a number ends only where something follows; here nothing does.
pub fn is_number(document: &[u8]) -> bool {
    let space = |b: &u8| matches!(b, b' ' | b'\n' | b'\r' | b'\t');
    let text: Vec<u8> = document.iter().copied().skip_while(space).chain([b' ']).collect();
    number(&text, 0).is_ok_and(|end| text[end..].iter().all(space))
}

/// The root state of the resource whose `{` is at `at`; its `resourceType` is usually its first member, else searched among its own.
#[inline]
fn resource_type<S: Search>(search: S, automaton: &Automaton, contained: bool, input: &[u8], at: usize) -> Scan<Named> {
    const FIRST: &[u8; 17] = b"{\"resourceType\":\"";
    if input.get(at..).and_then(<[u8]>::first_chunk) == Some(FIRST) {
        let from = at + FIRST.len();
        let (end, escaped) = string(search, input, from)?;
        if !escaped {
            return Ok(Named::of(automaton, contained, std::str::from_utf8(&input[from..end]).ok()));
        }
    }
    any_resource_type(search, automaton, contained, input, at)
}

/// What an object in the place of a resource calls itself.
enum Named {
    /// A type of the release.
    Known(StateId),
    /// Something else.
    Unknown,
    /// Nothing.
    Nothing,
}

impl Named {
    fn of(automaton: &Automaton, contained: bool, name: Option<&str>) -> Named {
        match name {
            Some(name) => automaton.root(name, contained).map_or(Named::Unknown, Named::Known),
            None => Named::Nothing,
        }
    }
}

fn any_resource_type<S: Search>(
    search: S,
    automaton: &Automaton,
    contained: bool,
    input: &[u8],
    at: usize,
) -> Scan<Named> {
    let (mut first, mut p) = space(search, input, at + 1)?;
    loop {
        if first != b'"' {
            return Ok(Named::Nothing); // empty, or no JSON: the scan that follows says what is wrong
        }
        let (end, escaped) = string(search, input, p + 1)?;
        let spelling = &input[p + 1..end];
        let is_type = if escaped {
            std::str::from_utf8(spelling).ok().and_then(super::text::decode).is_some_and(|n| n == "resourceType")
        } else {
            spelling == b"resourceType"
        };
        let (colon, q) = space(search, input, end + 1)?;
        if colon != b':' {
            return refuse(Code::BadJson, q);
        }
        let (c, q) = space(search, input, q + 1)?;
        if is_type {
            if c != b'"' {
                return refuse(Code::WrongForm, q);
            }
            let (end, _) = string(search, input, q + 1)?;
            let name = std::str::from_utf8(&input[q + 1..end]).ok().and_then(super::text::decode);
            return Ok(Named::of(automaton, contained, name.as_deref()));
        }
        p = any(search, input, q, 1)?;
        let (c, q) = space(search, input, p)?;
        if c != b',' {
            return Ok(Named::Nothing);
        }
        (first, p) = space(search, input, q + 1)?;
    }
}

/// One scan, to be done with the search that this processor has.
struct Job<'s> {
    scanner: &'s mut Scanner,
    automaton: &'s Automaton,
    input: &'s [u8],
    at: usize,
    unit: Unit,
    out: bool,
    unknown: Unknown,
}

impl simd::Work for Job<'_> {
    type Done = Scan<usize>;

    #[inline(always)]
    fn run<S: Search>(self, search: S) -> Scan<usize> {
        let Job { scanner, automaton, input, at, unit, out, unknown } = self;
        let watch = u16::from(if out { WATCH_OUT | CHECKED } else { WATCH_BACK });
        let mut top = Frame::outside(watch);
        let walk = Walk { search, automaton, input, out, unknown };
        let end = walk.value(scanner, &mut top, at, unit);
        if end.is_err() {
            scanner.stack.push(top); // `path` asks where it was
        }
        end
    }
}

impl Scanner {
    /// Scans the value at `input[at..]`. Returns the position behind it; `events` then holds what must be decided. That it is UTF-8
    /// remains to be seen.
    pub fn scan(
        &mut self,
        automaton: &Automaton,
        input: &[u8],
        at: usize,
        unit: Unit,
        direction: Direction,
        unknown: Unknown,
    ) -> Result<usize, Stop> {
        self.stack.clear();
        self.events.clear();
        self.facts.clear();
        self.spill.clear();
        self.resources = 0;
        simd::with_fastest(Job { scanner: self, automaton, input, at, unit, out: direction == Direction::Out, unknown })
    }
}

/// The walk through one unit.
struct Walk<'s, S> {
    search: S,
    automaton: &'s Automaton,
    input: &'s [u8],
    out: bool,
    unknown: Unknown,
}

/// The value of a member: what stands there, by which edge, as which member, and where its first byte is.
type Value = (Cell, Edge, u32, usize);

impl<S: Search> Walk<'_, S> {
    #[inline(always)]
    fn value(&self, scanner: &mut Scanner, top: &mut Frame, at: usize, unit: Unit) -> Scan<usize> {
        let &Walk { search, automaton, input, out, unknown } = self;
        let Unit { mut cell, mut edge, mut from } = unit;
        let mut index = 0u32;
        let (mut first, mut p) = space(search, input, at)?;
        'value: loop {
            match first {
                b'"' if matches!(cell.form, Form::String | Form::ResourceType) && !cell.many() => {
                    let (end, escaped) = string(search, input, p + 1)?;
                    let mut asked = cell.flags & top.watch;
                    if asked != 0 {
                        let text = &input[p + 1..end];
                        if top.pending != NO_SWITCH && self.settles(scanner, top, edge, text, escaped) {
                            cell = automaton.cell(top.row, edge);
                            asked = cell.flags & top.watch;
                        }
                        if asked & u16::from(CHECKED) != 0 && !scanner.is_formed(automaton, cell.check, text, escaped) {
                            return refuse(Code::BadValue, p);
                        }
                        if asked & !u16::from(CHECKED) != 0 {
                            self.text(scanner, top, cell, edge, from, index, p + 1, end, escaped);
                        }
                    }
                    p = end + 1;
                }
                b'{' if cell.form == Form::Object && !cell.many() => {
                    let mut state = cell.state;
                    let mut known = true;
                    if let Node::Slot { contained } = automaton.states[state as usize].node {
                        match resource_type(search, automaton, contained, input, p)? {
                            Named::Known(root) => state = root,
                            Named::Unknown if out && (unknown == Unknown::Refuse || scanner.stack.is_empty()) => {
                                return refuse(Code::UnknownType, p);
                            }
                            Named::Nothing if out => {
                                any(search, input, p, scanner.stack.len())?; // broken JSON has its own code
                                return refuse(Code::NoResourceType, p);
                            }
                            Named::Unknown | Named::Nothing => known = false,
                        }
                    }
                    if known {
                        self.open(scanner, top, state, cell, edge, from, index, p, b'}')?;
                        let (next, q) = space(search, input, p + 1)?;
                        if next == b'"' {
                            match self.member(scanner, top, q)? {
                                Some((next_cell, next_edge, next_index, at)) => {
                                    from = p;
                                    (cell, edge, index) = (next_cell, next_edge, next_index);
                                    (first, p) = space(search, input, at)?;
                                    continue 'value;
                                }
                                None => p = self.skipped(scanner, top, p, q)?,
                            }
                        } else if next != b'}' {
                            return refuse(Code::BadJson, q);
                        } else if out {
                            return refuse(Code::Empty, p);
                        } else {
                            p = q + 1;
                            self.close(scanner, top, p);
                        }
                    } else {
                        let end = any(search, input, p, scanner.stack.len())?;
                        if out && !top.mute() {
                            top.unsure = true;
                            scanner.leaf(cell, edge, from, index, EventKind::Unknown, p, end, false);
                        }
                        p = end;
                    }
                }
                b'[' if cell.many() => {
                    self.open(scanner, top, cell.state, cell, edge, from, index, p, b']')?;
                    let (next, q) = space(search, input, p + 1)?;
                    if next != b']' {
                        cell = top.cell;
                        (from, index, first, p) = (p, 0, next, q);
                        top.members = 1;
                        continue 'value;
                    }
                    if out {
                        return refuse(Code::Empty, p);
                    }
                    p = q + 1;
                    self.close(scanner, top, p);
                }
                b'-' | b'0'..=b'9' if cell.form == Form::Number && !cell.many() => {
                    let end = number(input, p)?;
                    let asked = cell.flags & top.watch;
                    if asked & u16::from(CHECKED) != 0 && !is_formed(automaton, cell.check, &input[p..end], false) {
                        return refuse(Code::BadValue, p);
                    }
                    if asked & !u16::from(CHECKED) != 0 {
                        self.counts(top, cell);
                        scanner.leaf(cell, edge, from, index, EventKind::Scalar, p, end, false);
                    }
                    p = end;
                }
                b't' | b'f' if cell.form == Form::Boolean && !cell.many() => {
                    let end = scalar(input, p, first)?;
                    if cell.flags & top.watch & !u16::from(CHECKED) != 0 {
                        self.counts(top, cell);
                        scanner.leaf(cell, edge, from, index, EventKind::Scalar, p, end, false);
                    }
                    p = end;
                }
                b'n' if top.close == b']' && cell.flags & NULLABLE != 0 => {
                    p = word(input, p, b"null")?;
                    top.hollow += 1;
                }
                b'"' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9' | b'[' | b'{' => {
                    if out {
                        return refuse(Code::WrongForm, p);
                    }
                    p = any(search, input, p, scanner.stack.len())?;
                }
                _ => return refuse(Code::BadJson, p),
            }
            loop {
                if scanner.stack.is_empty() {
                    return Ok(p);
                }
                let (c, q) = space(search, input, p)?;
                if c == b',' {
                    let (next, r) = space(search, input, q + 1)?;
                    if !top.is_object() {
                        (cell, edge, from, index) = (top.cell, top.edge, q, top.members);
                        top.members += 1;
                        (first, p) = (next, r);
                        continue 'value;
                    }
                    if next != b'"' {
                        return refuse(Code::BadJson, r);
                    }
                    match self.member(scanner, top, r)? {
                        Some((next_cell, next_edge, next_index, at)) => {
                            from = q;
                            (cell, edge, index) = (next_cell, next_edge, next_index);
                            (first, p) = space(search, input, at)?;
                            continue 'value;
                        }
                        None => {
                            p = self.skipped(scanner, top, q, r)?;
                            continue;
                        }
                    }
                }
                if c != top.close {
                    return refuse(Code::BadJson, q);
                }
                p = q + 1;
                self.close(scanner, top, p);
            }
        }
    }

    /// Notes a text that is watched.
    #[inline(always)]
    fn text(
        &self,
        scanner: &mut Scanner,
        top: &mut Frame,
        cell: Cell,
        edge: Edge,
        from: usize,
        index: u32,
        start: usize,
        end: usize,
        escaped: bool,
    ) {
        let mut fact = cell.flags & FACT != 0;
        if cell.flags & SYSTEM != 0 {
            if escaped || &self.input[start..end] == super::seal::SYSTEM.as_bytes() {
                // Perhaps a seal: its Coding is the decider's, and so is what it means for the dates around.
                (fact, top.unsure, top.asked) = (true, true, true);
            } else {
                top.cleared = true;
            }
        }
        // A kept `system` has said what it had to, and coming back the `code` beside it is not that of a seal.
        let said = match self.out {
            true => cell.flags & (SYSTEM | KEPT) == SYSTEM | KEPT,
            false => cell.flags & (KEPT | GONE) != 0,
        };
        if said && top.cleared && top.exact {
            return;
        }
        if fact {
            scanner.facts.push(scanner.events.len() as u32);
        }
        self.counts(top, cell);
        scanner.leaf(cell, edge, from, index, EventKind::Text, start, end, escaped);
    }

    /// What a leaf that is watched means for the container in which it stands.
    #[inline(always)]
    fn counts(&self, top: &mut Frame, cell: Cell) {
        top.unsure |= !top.exact; // what stands before the sibling that decides it
        if self.out {
            top.unsure |= cell.flags & SURE == 0;
            top.gone += u32::from(cell.flags & GONE != 0);
        }
    }

    /// Decides the rules of the object being read, where they ask for nothing but this member: it goes on in the decided state.
    fn settles(&self, scanner: &mut Scanner, top: &mut Frame, edge: Edge, text: &[u8], escaped: bool) -> bool {
        let switch = &self.automaton.switches[top.pending as usize];
        let [test] = &switch.tests[..] else { return false };
        // A resource keeps the state of its type: by it the decider knows whether it is contained.
        if test.edge != edge || top.resource || escaped {
            return false;
        }
        let state = switch.variants[test.outcome(Some(text))];
        let its = &self.automaton.states[state as usize];
        let Node::Object { row, .. } = its.node else { return false };
        top.row = row;
        top.pending = NO_SWITCH;
        top.exact = scanner.stack.last().is_some_and(|outer| outer.exact);
        if top.event != NONE {
            let event = &mut scanner.events[top.event as usize];
            // In an undecided place the decider finds out by itself, from the state that holds there.
            if top.exact {
                (event.state, event.exact) = (state, true);
            }
            if self.out && its.flags & (REMOVED_WHOLE | MODIFIER) != 0 {
                (top.asked, top.unsure) = (true, true);
            }
        }
        true
    }

    /// Leaves the container that ends before `end`. An event beneath which nothing is watched is taken back; one that is sure to stay is passed.
    #[inline(always)]
    fn close(&self, scanner: &mut Scanner, top: &mut Frame, end: usize) {
        scanner.spill.truncate(top.spill as usize);
        scanner.resources -= usize::from(top.resource);
        let (mut stays, unsure) = (true, self.out || top.unsure || !top.exact);
        if top.event != NONE {
            let link = scanner.events.len() as u32;
            if link == top.event + 1 && !top.asked {
                scanner.events.pop();
                if top.resource {
                    scanner.facts.pop();
                }
            } else {
                let (at, is_object) = (top.event as usize, top.is_object());
                let event = &mut scanner.events[at];
                event.end = end as u32;
                (event.members, event.hollow) = (top.members, top.hollow);
                // The outermost is the unit's: it may go as a whole.
                let sure = !top.unsure && top.exact && scanner.stack.len() > 1;
                stays = sure && (top.gone == 0 || is_object && top.members - top.gone > top.hollow);
                if stays {
                    event.kind = if is_object { EventKind::PassedObject } else { EventKind::PassedArray };
                    event.link = top.event + 1;
                    if top.gone > 0 {
                        self.cut(scanner, at);
                    }
                } else {
                    event.link = link;
                }
            }
        }
        *top = scanner.stack.pop().expect("a container was opened");
        top.unsure |= unsure && !stays;
    }

    /// Turns the members that go from the object at event `at` into cuts: with one separator, the one before, or, if all before have gone,
    /// the one behind.
    fn cut(&self, scanner: &mut Scanner, at: usize) {
        let depth = scanner.events[at].depth + 1;
        let mut removed = 0;
        for event in &mut scanner.events[at + 1..] {
            let its = event.depth == depth && matches!(event.kind, EventKind::Text | EventKind::Scalar);
            if !its || !self.automaton.removes(event.state) {
                continue;
            }
            let quote = u32::from(event.kind == EventKind::Text);
            let end = event.end + quote;
            if event.index == removed {
                let blanks = self.input[end as usize..].iter().take_while(|b| b.is_ascii_whitespace()).count();
                (event.start, event.end) = (event.from + 1, end + blanks as u32 + 1);
            } else {
                (event.start, event.end) = (event.from, end);
            }
            event.kind = EventKind::Cut;
            removed += 1;
        }
    }

    /// Reads a member name at the quote `at`: what follows, and where. `None`: a name that the schema does not know and that is to be
    /// passed over.
    #[inline(always)]
    fn member(&self, scanner: &mut Scanner, top: &mut Frame, at: usize) -> Scan<Option<Value>> {
        let shape = &self.automaton.shapes[top.shape as usize];
        let place = (usize::from(top.shape) * 61 + usize::from(top.current.wrapping_add(1))) % GUESSES;
        let guess = scanner.guesses[place];
        let right =
            match (shape.spelled.get(usize::from(guess)), self.input.get(at + 1..).and_then(<[u8]>::first_chunk)) {
                (Some(name), Some(chunk)) => {
                    name.wanted != 0 && self.search.equal(chunk, &name.bytes) & name.wanted == name.wanted
                }
                _ => false,
            };
        let (edge, value) = if right {
            (guess, at + 1 + usize::from(shape.spelled[usize::from(guess)].length))
        } else {
            match self.looked_up(scanner, top, at)? {
                Some((edge, value)) => {
                    scanner.guesses[place] = edge;
                    (edge, value)
                }
                None => return Ok(None),
            }
        };
        top.current = edge;
        self.only_once(scanner, top, u32::from(edge), at)?;
        let index = top.members;
        top.members += 1;
        let cell = self.automaton.cell(top.row, edge);
        top.hollow += u32::from(cell.flags & FRAME != 0);
        Ok(Some((cell, edge, index, value)))
    }

    /// Refuses a name that its object has had before.
    #[inline(always)]
    fn only_once(&self, scanner: &mut Scanner, top: &mut Frame, mark: u32, at: usize) -> Scan<()> {
        if mark < 64 {
            let bit = 1u64 << mark;
            if top.seen & bit != 0 {
                return refuse(Code::DuplicateKey, at);
            }
            top.seen |= bit;
        } else {
            if scanner.spill[top.spill as usize..].contains(&mark) {
                return refuse(Code::DuplicateKey, at);
            }
            scanner.spill.push(mark);
        }
        if top.members as usize >= limits::MEMBERS_MAX {
            return refuse(Code::TooManyMembers, at);
        }
        Ok(())
    }

    /// Looks a name up whose quote is at `at`: its edge, and where its value begins.
    #[inline(never)]
    fn looked_up(&self, scanner: &mut Scanner, top: &mut Frame, at: usize) -> Scan<Option<(Edge, usize)>> {
        let &Walk { search, automaton, input, out, unknown } = self;
        let (end, escaped) = string(search, input, at + 1)?;
        let mut name = &input[at + 1..end];
        let mut decoded = std::mem::take(&mut scanner.name);
        if name.len() > limits::NAME_BYTES_MAX {
            return refuse(Code::UnknownElement, at);
        }
        if escaped {
            let spelling = std::str::from_utf8(name).or(refuse(Code::BadUtf8, at))?;
            let Some(text) = super::text::decode(spelling) else { return refuse(Code::BadText, at) };
            decoded.clear();
            decoded.extend_from_slice(text.as_bytes());
            name = &decoded;
        }
        let shape = &automaton.shapes[top.shape as usize];
        let Some(edge) = shape.edge(name) else {
            top.current = UNKNOWN_EDGE;
            self.only_once(scanner, top, 0x8000_0000 | fold_hash(name), at)?;
            top.members += 1;
            if out && shape.folds(name) {
                return refuse(Code::KeyCase, at);
            }
            if out && unknown == Unknown::Refuse {
                return refuse(Code::UnknownElement, at);
            }
            scanner.name = decoded;
            return Ok(None);
        };
        scanner.name = decoded;
        top.current = edge;
        let (colon, p) = space(search, input, end + 1)?;
        if colon != b':' {
            return refuse(Code::BadJson, p);
        }
        Ok(Some((edge, p + 1)))
    }

    /// Passes over a member that the schema does not know: `from` is the separator before it, `at` the quote of its name.
    #[cold]
    fn skipped(&self, scanner: &mut Scanner, top: &mut Frame, from: usize, at: usize) -> Scan<usize> {
        let &Walk { search, input, out, .. } = self;
        let (end, _) = string(search, input, at + 1)?;
        let (colon, p) = space(search, input, end + 1)?;
        if colon != b':' {
            return refuse(Code::BadJson, p);
        }
        let end = any(search, input, p + 1, scanner.stack.len())?;
        if out && !top.mute() {
            let index = top.members - 1;
            top.unsure = true;
            scanner.leaf(Cell::default(), UNKNOWN_EDGE, from, index, EventKind::Unknown, at, end, false);
        }
        Ok(end)
    }

    /// Enters a container whose first byte is at `start`.
    #[inline(always)]
    fn open(
        &self,
        scanner: &mut Scanner,
        top: &mut Frame,
        state: StateId,
        cell: Cell,
        edge: Edge,
        from: usize,
        index: u32,
        start: usize,
        close: u8,
    ) -> Scan<()> {
        if scanner.stack.len() >= limits::DEPTH_MAX {
            return refuse(Code::TooDeep, start);
        }
        let its = &self.automaton.states[state as usize];
        let flags = its.flags;
        let (mut shape, mut row, mut kind) = (0, 0, EventKind::Array);
        let (mut pending, mut unsure) = (NO_SWITCH, false);
        if close == b'}' {
            kind = EventKind::Object;
            pending = its.switch;
            if let Node::Object { shape: number, row: begins } = its.node {
                (shape, row) = (number, begins);
                match self.automaton.shapes[usize::from(number)].kind {
                    Kind::Plain | Kind::Coding => {}
                    Kind::Twin => unsure = self.out,
                    Kind::Entry | Kind::Request => unsure = true,
                    Kind::Resource => {
                        (kind, unsure) = (EventKind::Resource, true);
                        scanner.resources += 1;
                        if scanner.resources > limits::RESOURCE_DEPTH_MAX {
                            return refuse(Code::TooDeepResources, start);
                        }
                    }
                }
            }
        }
        let mut watch = top.watch;
        let mut asked = false;
        let mut event = NONE;
        if watch != 0 {
            event = scanner.events.len() as u32;
            let (from, start) = (from as u32, start as u32);
            scanner.events.push(Event {
                from,
                start,
                end: 0,
                link: 0,
                state,
                members: 0,
                hollow: 0,
                index,
                edge,
                kind,
                escaped: false,
                depth: scanner.stack.len() as u8,
                exact: false,
            });
            let goes = self.out && flags & REMOVED_WHOLE != 0;
            asked = goes || cell.flags & u16::from(OPENED) != 0 || self.out && flags & MODIFIER != 0;
            unsure |= asked;
            if kind == EventKind::Resource {
                scanner.facts.push(event);
            }
            if goes {
                watch = 0;
            }
        }
        let outer = std::mem::replace(
            top,
            Frame {
                row,
                shape,
                close,
                resource: kind == EventKind::Resource,
                watch,
                edge,
                current: UNKNOWN_EDGE,
                asked,
                cell: cell.one(),
                seen: 0,
                spill: scanner.spill.len() as u32,
                members: 0,
                hollow: 0,
                gone: 0,
                event,
                pending,
                exact: top.exact && pending == NO_SWITCH,
                unsure,
                cleared: false,
            },
        );
        scanner.stack.push(outer);
        Ok(())
    }
}

impl Scanner {
    #[inline(always)]
    fn leaf(
        &mut self,
        cell: Cell,
        edge: Edge,
        from: usize,
        index: u32,
        kind: EventKind,
        start: usize,
        end: usize,
        escaped: bool,
    ) {
        let link = self.events.len() as u32 + 1;
        self.events.push(Event {
            from: from as u32,
            start: start as u32,
            end: end as u32,
            link,
            state: cell.state,
            members: 0,
            hollow: 0,
            index,
            edge,
            kind,
            escaped,
            depth: self.stack.len() as u8,
            exact: false,
        });
    }

    /// The element path at which scanning stopped, of schema names only.
    pub fn path(&self, automaton: &Automaton, prefix: &str) -> String {
        let mut path = prefix.to_owned();
        for frame in &self.stack {
            if frame.close == 0 {
                continue;
            }
            if !frame.is_object() {
                path.push_str(&format!("[{}]", frame.members.saturating_sub(1)));
                continue;
            }
            let shape = &automaton.shapes[frame.shape as usize];
            if frame.resource && path.is_empty() {
                path.push_str(shape.name);
            }
            path.push('.');
            path.push_str(shape.members.get(frame.current as usize).map_or("?", |m| m.name));
        }
        path
    }
}

/// A hash of an unknown name, 31 bits, for the duplicate check. A clash refuses a message, it never lets one pass.
fn fold_hash(name: &[u8]) -> u32 {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    for &b in name {
        h = (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (h >> 33) as u32
}
