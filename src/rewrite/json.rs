//! The JSON scanner: one unit in, validated in one pass, and a list of *events* out: the places that the decider must see.
//!
//! It validates everything it passes, watched or not: grammar (RFC 8259), escapes, numbers, UTF-8, depth, duplicate names, names of
//! the release, and that each value has the JSON form of its FHIR type. It compares names only after decoding escapes, since a
//! reader behind us would. It decides nothing and holds no keys.
//!
//! Input that ends before the unit does is `Incomplete`, never an error: the framer brings more bytes or says that there are none. Nothing of
//! a unit may leave before `scan` has returned its end.
//!
//! Events are in document order. A container is opened lazily, when something beneath it is watched, so untouched subtrees
//! cost nothing afterwards. `from` and `sep` are the separators around a member, which is what removing it needs.

use super::refusal::Code;
use crate::fhir::Primitive;
use crate::fhir::date::FhirDate;
use crate::limits;
use crate::rules::Role;
use crate::rules::Unknown;
use crate::rules::automaton::{
    Automaton, CHECKED, Edge, Form, Leaf, MODIFIER, Node, OPENED, REMOVED_WHOLE, Shape, StateId, WATCH_BACK, WATCH_OUT,
};

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
}

/// One watched place.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// Position of the separator before: `{`, `[` or `,`.
    pub from: u32,
    /// Position of the separator after: `,`, `}` or `]`.
    pub sep: u32,
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
    /// `null`s among the elements of an array.
    pub nulls: u32,
    /// Which member or element of its parent, from 0.
    pub index: u32,
    /// By which edge it was reached.
    pub edge: Edge,
    /// What it is.
    pub kind: EventKind,
    /// Whether a text holds escapes.
    pub escaped: bool,
}

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
    /// State of the value.
    pub state: StateId,
    /// By which edge it is reached.
    pub edge: Edge,
    /// An array of such values.
    pub many: bool,
    /// JSON form of the value (of each element).
    pub form: Form,
    /// Position of the separator before.
    pub from: usize,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    state: StateId,
    row: u32,
    shape: u16,
    object: bool,
    mute: bool,
    nullable: bool,
    form: Form,
    resource: bool,
    seen: u64,
    spill: u32,
    members: u32,
    nulls: u32,
    from: u32,
    start: u32,
    index: u32,
    edge: Edge,
    /// The member being read, for paths.
    current: Edge,
    event: u32,
    last: u32,
}

/// Scanner state, reused from unit to unit so that a small resource costs no allocation.
#[derive(Debug, Default)]
pub struct Scanner {
    /// What was found, valid after `scan` returned an end.
    pub events: Vec<Event>,
    stack: Vec<Frame>,
    spill: Vec<u32>,
    name: Vec<u8>,
    resources: usize,
}

type Scan<T> = Result<T, Stop>;

fn refuse<T>(code: Code, at: usize) -> Scan<T> {
    Err(Stop::Refused(code, at))
}

#[inline]
fn byte(input: &[u8], at: usize) -> Scan<u8> {
    input.get(at).copied().ok_or(Stop::Incomplete)
}

/// Skips white space; the byte found and its position.
#[inline]
fn space(input: &[u8], mut at: usize) -> Scan<(u8, usize)> {
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

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// From behind an opening quote to its closing quote, and whether there are escapes. Eight bytes at a time: the lowest
/// marked byte of each word is exact, which is all that is used.
#[inline]
fn string(input: &[u8], mut at: usize) -> Scan<(usize, bool)> {
    let mut escaped = false;
    loop {
        while let Some(chunk) = input.get(at..at + 8) {
            let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
            let quote = word ^ (ONES * b'"' as u64);
            let slash = word ^ (ONES * b'\\' as u64);
            let stop = (quote.wrapping_sub(ONES) & !quote)
                | (slash.wrapping_sub(ONES) & !slash)
                | (word.wrapping_sub(ONES * 0x20) & !word);
            let stop = stop & HIGHS;
            if stop != 0 {
                at += (stop.trailing_zeros() / 8) as usize;
                break;
            }
            at += 8;
        }
        match byte(input, at)? {
            b'"' => return Ok((at, escaped)),
            b'\\' => {
                escaped = true;
                at = escape(input, at)?;
            }
            0..0x20 => return refuse(Code::BadJson, at),
            _ => at += 1,
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

fn word(input: &[u8], at: usize, word: &[u8]) -> Scan<usize> {
    for (i, &b) in word.iter().enumerate() {
        if byte(input, at + i)? != b {
            return refuse(Code::BadJson, at);
        }
    }
    Ok(at + word.len())
}

fn scalar(input: &[u8], at: usize, first: u8) -> Scan<usize> {
    match first {
        b't' => word(input, at, b"true"),
        b'f' => word(input, at, b"false"),
        b'n' => word(input, at, b"null"),
        b'-' | b'0'..=b'9' => number(input, at),
        _ => refuse(Code::BadJson, at),
    }
}

/// A value of any shape, validated and passed over: for members that no schema knows. Recursion is bounded by the depth limit.
fn any(input: &[u8], at: usize, depth: usize) -> Scan<usize> {
    let (first, at) = space(input, at)?;
    match first {
        b'"' => Ok(string(input, at + 1)?.0 + 1),
        b'{' | b'[' => {
            if depth >= limits::DEPTH_MAX {
                return refuse(Code::TooDeep, at);
            }
            let close = if first == b'{' { b'}' } else { b']' };
            let (mut next, mut p) = space(input, at + 1)?;
            let mut names = std::collections::HashSet::new();
            if next == close {
                return Ok(p + 1);
            }
            loop {
                if first == b'{' {
                    if next != b'"' {
                        return refuse(Code::BadJson, p);
                    }
                    let (end, _) = string(input, p + 1)?;
                    if names.len() >= limits::MEMBERS_MAX {
                        return refuse(Code::TooManyMembers, p);
                    }
                    let spelling = std::str::from_utf8(&input[p + 1..end]).or(refuse(Code::BadUtf8, p))?;
                    let Some(name) = super::text::decode(spelling) else { return refuse(Code::BadText, p) };
                    if !names.insert(name) {
                        return refuse(Code::DuplicateKey, p);
                    }
                    let (colon, q) = space(input, end + 1)?;
                    if colon != b':' {
                        return refuse(Code::BadJson, q);
                    }
                    p = q + 1;
                }
                p = any(input, p, depth + 1)?;
                (next, p) = space(input, p)?;
                if next == close {
                    return Ok(p + 1);
                }
                if next != b',' {
                    return refuse(Code::BadJson, p);
                }
                (next, p) = space(input, p + 1)?;
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
    let (quote, p) = space(input, at)?;
    if quote != b'"' {
        return refuse(Code::BadJson, p);
    }
    let (end, _) = string(input, p + 1)?;
    if end - p > limits::NAME_BYTES_MAX {
        return refuse(Code::UnknownElement, p);
    }
    let spelling = std::str::from_utf8(&input[p + 1..end]).or(refuse(Code::BadUtf8, p))?;
    let Some(name) = super::text::decode(spelling) else { return refuse(Code::BadText, p) };
    let (colon, q) = space(input, end + 1)?;
    if colon != b':' {
        return refuse(Code::BadJson, q);
    }
    Ok((name.into_owned(), q + 1))
}

/// The end of a value of any shape, validated and passed over.
pub fn skip(input: &[u8], at: usize) -> Result<usize, Stop> {
    let end = any(input, at, 1)?;
    if std::str::from_utf8(&input[at..end]).is_err() {
        return refuse(Code::BadUtf8, at);
    }
    Ok(end)
}

/// The `resourceType` of the object whose `{` is at `at`: usually its first member, else searched among its own members.
fn resource_type(input: &[u8], at: usize) -> Scan<Option<String>> {
    let (mut first, mut p) = space(input, at + 1)?;
    loop {
        if first != b'"' {
            return Ok(None); // empty, or no JSON: the scan that follows says what is wrong
        }
        let (end, escaped) = string(input, p + 1)?;
        let spelling = &input[p + 1..end];
        let is_type = if escaped {
            std::str::from_utf8(spelling).ok().and_then(super::text::decode).is_some_and(|n| n == "resourceType")
        } else {
            spelling == b"resourceType"
        };
        let (colon, q) = space(input, end + 1)?;
        if colon != b':' {
            return refuse(Code::BadJson, q);
        }
        let (c, q) = space(input, q + 1)?;
        if is_type {
            if c != b'"' {
                return refuse(Code::WrongForm, q);
            }
            let (end, _) = string(input, q + 1)?;
            let text = std::str::from_utf8(&input[q + 1..end]).ok().and_then(super::text::decode);
            return Ok(text.map(std::borrow::Cow::into_owned));
        }
        p = any(input, q, 1)?;
        let (c, q) = space(input, p)?;
        if c != b',' {
            return Ok(None);
        }
        (first, p) = space(input, q + 1)?;
    }
}

impl Scanner {
    /// Scans the value at `input[at..]`. Returns the position behind it; `events` then holds what must be decided.
    pub fn scan(
        &mut self,
        automaton: &Automaton,
        input: &[u8],
        at: usize,
        unit: Unit,
        direction: Direction,
        unknown: Unknown,
    ) -> Scan<usize> {
        self.stack.clear();
        self.events.clear();
        self.spill.clear();
        self.resources = 0;
        let out = direction == Direction::Out;
        let watch = if out { WATCH_OUT } else { WATCH_BACK };
        let mut value = unit;
        let mut index = 0u32;
        let (mut first, mut p) = space(input, at)?;
        let begin = p;
        'value: loop {
            let state = automaton.states[value.state as usize];
            let mute = self.stack.last().is_some_and(|f| f.mute);
            match first {
                b'"' if matches!(value.form, Form::String | Form::ResourceType) && !value.many => {
                    let (end, escaped) = string(input, p + 1)?;
                    if out
                        && state.flags & CHECKED != 0
                        && !mute
                        && !is_formed(automaton, state.node, &input[p + 1..end])
                    {
                        return refuse(Code::BadValue, p);
                    }
                    if state.flags & watch != 0 && !mute {
                        self.leaf(&value, index, EventKind::Text, p + 1, end, escaped);
                    }
                    p = end + 1;
                }
                b't' | b'f' if value.form == Form::Boolean && !value.many => {
                    let end = scalar(input, p, first)?;
                    if state.flags & watch != 0 && !mute {
                        self.leaf(&value, index, EventKind::Scalar, p, end, false);
                    }
                    p = end;
                }
                b'-' | b'0'..=b'9' if value.form == Form::Number && !value.many => {
                    let end = number(input, p)?;
                    if out && state.flags & CHECKED != 0 && !mute && !is_formed(automaton, state.node, &input[p..end]) {
                        return refuse(Code::BadValue, p);
                    }
                    if state.flags & watch != 0 && !mute {
                        self.leaf(&value, index, EventKind::Scalar, p, end, false);
                    }
                    p = end;
                }
                b'n' if self.stack.last().is_some_and(|f| !f.object && f.nullable) => {
                    p = word(input, p, b"null")?;
                    if let Some(frame) = self.stack.last_mut() {
                        frame.nulls += 1;
                    }
                }
                b'[' if value.many => {
                    self.push(automaton, &value, index, p, false, mute, out)?;
                    let (next, q) = space(input, p + 1)?;
                    if next != b']' {
                        (value.many, value.from, index, first, p) = (false, p, 0, next, q);
                        if let Some(frame) = self.stack.last_mut() {
                            frame.members = 1;
                        }
                        continue 'value;
                    }
                    if out {
                        return refuse(Code::Empty, p);
                    }
                    p = q + 1;
                    self.pop(p);
                }
                b'{' if value.form == Form::Object && !value.many => {
                    let known = match state.node {
                        Node::Slot { contained } => match resource_type(input, p)? {
                            Some(name) => match automaton.root(&name, contained) {
                                Some(root) => {
                                    value.state = root;
                                    true
                                }
                                None if out && (unknown == Unknown::Refuse || self.stack.is_empty()) => {
                                    return refuse(Code::UnknownType, p);
                                }
                                None => false,
                            },
                            None if out => {
                                let end = any(input, p, self.stack.len())?; // broken JSON has its own code
                                return if end == 0 {
                                    refuse(Code::BadJson, p)
                                } else {
                                    refuse(Code::NoResourceType, p)
                                };
                            }
                            None => false,
                        },
                        _ => true,
                    };
                    if !known {
                        let end = any(input, p, self.stack.len())?;
                        if out {
                            self.unknown(&value, index, p, end, mute);
                        }
                        p = end;
                    } else {
                        self.push(automaton, &value, index, p, true, mute, out)?;
                        let (next, q) = space(input, p + 1)?;
                        if next == b'"' {
                            match self.member(automaton, input, q, p, out, unknown)? {
                                Some((next_value, next_index, at)) => {
                                    (value, index) = (next_value, next_index);
                                    (first, p) = space(input, at)?;
                                    continue 'value;
                                }
                                None => p = self.skipped(input, q, out)?,
                            }
                        } else if next != b'}' {
                            return refuse(Code::BadJson, q);
                        } else if out {
                            return refuse(Code::Empty, p);
                        } else {
                            p = q + 1;
                            self.pop(p);
                        }
                    }
                }
                b'"' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9' | b'[' | b'{' => {
                    if out {
                        return refuse(Code::WrongForm, p);
                    }
                    p = any(input, p, self.stack.len())?;
                }
                _ => return refuse(Code::BadJson, p),
            }
            loop {
                let Some(top) = self.stack.last_mut() else { break 'value };
                let (c, q) = space(input, p)?;
                if top.last != NONE {
                    self.events[top.last as usize].sep = q as u32;
                    top.last = NONE;
                }
                let close = if top.object { b'}' } else { b']' };
                if c == close {
                    p = q + 1;
                    self.pop(p);
                    continue;
                }
                if c != b',' {
                    return refuse(Code::BadJson, q);
                }
                let (next, r) = space(input, q + 1)?;
                if !top.object {
                    index = top.members;
                    top.members += 1;
                    let (state, edge, form) = (top.state, top.edge, top.form);
                    value = Unit { state, edge, many: false, form, from: q };
                    (first, p) = (next, r);
                    continue 'value;
                }
                if next != b'"' {
                    return refuse(Code::BadJson, r);
                }
                match self.member(automaton, input, r, q, out, unknown)? {
                    Some((next_value, next_index, at)) => {
                        (value, index) = (next_value, next_index);
                        (first, p) = space(input, at)?;
                        continue 'value;
                    }
                    None => p = self.skipped(input, r, out)?,
                }
            }
        }
        if std::str::from_utf8(&input[begin..p]).is_err() {
            return refuse(Code::BadUtf8, begin);
        }
        Ok(p)
    }

    /// Reads a member name at the quote `at`: the value that follows, its index, and where it begins. `None`: a name that the schema
    /// does not know and that is to be passed over.
    #[inline]
    fn member(
        &mut self,
        automaton: &Automaton,
        input: &[u8],
        at: usize,
        from: usize,
        out: bool,
        unknown: Unknown,
    ) -> Scan<Option<(Unit, u32, usize)>> {
        let (end, escaped) = string(input, at + 1)?;
        let mut name = &input[at + 1..end];
        if escaped || name.len() > limits::NAME_BYTES_MAX {
            if name.len() > limits::NAME_BYTES_MAX {
                return refuse(Code::UnknownElement, at);
            }
            let spelling = std::str::from_utf8(name).or(refuse(Code::BadUtf8, at))?;
            let Some(decoded) = super::text::decode(spelling) else { return refuse(Code::BadText, at) };
            self.name.clear();
            self.name.extend_from_slice(decoded.as_bytes());
            name = &self.name;
        }
        let top = self.stack.last_mut().expect("a member stands in an object");
        let shape: &Shape = &automaton.shapes[top.shape as usize];
        let edge = shape.edge(name);
        let mark = match edge {
            Some(edge) => u32::from(edge),
            None => 0x8000_0000 | fold_hash(name),
        };
        top.current = edge.unwrap_or(UNKNOWN_EDGE);
        if mark < 64 {
            let bit = 1u64 << mark;
            if top.seen & bit != 0 {
                return refuse(Code::DuplicateKey, at);
            }
            top.seen |= bit;
        } else {
            if self.spill[top.spill as usize..].contains(&mark) {
                return refuse(Code::DuplicateKey, at);
            }
            self.spill.push(mark);
        }
        let index = top.members;
        top.members += 1;
        if top.members as usize > limits::MEMBERS_MAX {
            return refuse(Code::TooManyMembers, at);
        }
        let Some(edge) = edge else {
            if out && shape.folds(name) {
                return refuse(Code::KeyCase, at);
            }
            if out && unknown == Unknown::Refuse {
                return refuse(Code::UnknownElement, at);
            }
            return Ok(None);
        };
        let member = &shape.members[edge as usize];
        let state = automaton.target(top.row, edge);
        let unit = Unit { state, edge, many: member.many, form: member.form, from };
        let p = end + 1;
        if input.get(p) == Some(&b':') {
            return Ok(Some((unit, index, p + 1)));
        }
        let (colon, p) = space(input, p)?;
        if colon != b':' {
            return refuse(Code::BadJson, p);
        }
        Ok(Some((unit, index, p + 1)))
    }

    /// Passes over a member that the schema does not know; `at` is the quote of its name.
    #[cold]
    fn skipped(&mut self, input: &[u8], at: usize, out: bool) -> Scan<usize> {
        let (end, _) = string(input, at + 1)?;
        let (colon, p) = space(input, end + 1)?;
        if colon != b':' {
            return refuse(Code::BadJson, p);
        }
        let end = any(input, p + 1, self.stack.len())?;
        if out {
            let top = self.stack.last().expect("a member stands in an object");
            let (mute, index) = (top.mute, top.members - 1);
            // The separator before the name: white space lies between.
            let before = input[..at].iter().rposition(|b| !b.is_ascii_whitespace()).unwrap_or(0);
            let unit = Unit { state: 0, edge: UNKNOWN_EDGE, many: false, form: Form::Object, from: before };
            self.unknown(&unit, index, at, end, mute);
        }
        Ok(end)
    }

    fn unknown(&mut self, value: &Unit, index: u32, start: usize, end: usize, mute: bool) {
        if !mute {
            self.leaf(value, index, EventKind::Unknown, start, end, false);
        }
    }

    #[inline]
    fn leaf(&mut self, value: &Unit, index: u32, kind: EventKind, start: usize, end: usize, escaped: bool) {
        self.open();
        let at = self.events.len() as u32;
        self.events.push(Event {
            from: value.from as u32,
            sep: 0,
            start: start as u32,
            end: end as u32,
            link: at + 1,
            state: value.state,
            members: 0,
            nulls: 0,
            index,
            edge: value.edge,
            kind,
            escaped,
        });
        if let Some(top) = self.stack.last_mut() {
            top.last = at;
        }
    }

    /// Opens every container on the stack that is not open yet.
    #[inline]
    fn open(&mut self) {
        let mut at = self.stack.len();
        while at > 0 && self.stack[at - 1].event == NONE {
            at -= 1;
        }
        for i in at..self.stack.len() {
            let frame = self.stack[i];
            let kind = match (frame.object, frame.resource) {
                (true, true) => EventKind::Resource,
                (true, false) => EventKind::Object,
                (false, _) => EventKind::Array,
            };
            let event = self.events.len() as u32;
            self.events.push(Event {
                from: frame.from,
                sep: 0,
                start: frame.start,
                end: 0,
                link: 0,
                state: frame.state,
                members: 0,
                nulls: 0,
                index: frame.index,
                edge: frame.edge,
                kind,
                escaped: false,
            });
            self.stack[i].event = event;
            if i > 0 {
                self.stack[i - 1].last = event;
            }
        }
    }

    #[inline]
    fn push(
        &mut self,
        automaton: &Automaton,
        value: &Unit,
        index: u32,
        start: usize,
        object: bool,
        mute: bool,
        out: bool,
    ) -> Scan<()> {
        if self.stack.len() >= limits::DEPTH_MAX {
            return refuse(Code::TooDeep, start);
        }
        let state = automaton.states[value.state as usize];
        let mut resource = false;
        let (shape, row) = match state.node {
            Node::Object { shape, row } if object => {
                resource =
                    automaton.shapes[shape as usize].members.last().is_some_and(|m| m.form == Form::ResourceType);
                (shape, row)
            }
            _ => (0, 0),
        };
        if resource {
            self.resources += 1;
            if self.resources > limits::RESOURCE_DEPTH_MAX {
                return refuse(Code::TooDeepResources, start);
            }
        }
        let nullable = value.form != Form::Object
            || matches!(state.node, Node::Object { shape, .. } if automaton.shapes[shape as usize].name == "Element");
        self.stack.push(Frame {
            state: value.state,
            row,
            shape,
            object,
            mute,
            nullable,
            form: value.form,
            resource,
            seen: 0,
            spill: self.spill.len() as u32,
            members: 0,
            nulls: 0,
            from: value.from as u32,
            start: start as u32,
            index,
            edge: value.edge,
            current: UNKNOWN_EDGE,
            event: NONE,
            last: NONE,
        });
        let goes = out && state.flags & REMOVED_WHOLE != 0;
        let asked = state.flags & OPENED != 0 || out && state.flags & MODIFIER != 0;
        if (goes || asked) && !mute {
            self.open();
            if let Some(top) = self.stack.last_mut() {
                top.mute = goes;
            }
        }
        Ok(())
    }

    #[inline]
    fn pop(&mut self, end: usize) {
        let frame = self.stack.pop().expect("pop follows push");
        self.spill.truncate(frame.spill as usize);
        if frame.resource {
            self.resources -= 1;
        }
        if frame.event != NONE {
            let link = self.events.len() as u32;
            let event = &mut self.events[frame.event as usize];
            event.end = end as u32;
            event.link = link;
            event.members = frame.members;
            event.nulls = frame.nulls;
        }
    }

    /// The element path at which scanning stopped, of schema names only.
    pub fn path(&self, automaton: &Automaton, prefix: &str) -> String {
        let mut path = prefix.to_owned();
        for frame in &self.stack {
            if !frame.object {
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

/// Whether a value that stays has the form of its type (datatypes.html, regular expressions of the primitives): a rule that keeps
/// codes keeps codes, not sentences. Spelled without escapes, which none of these types needs.
fn is_formed(automaton: &Automaton, node: Node, value: &[u8]) -> bool {
    let Node::Leaf(leaf) = node else { return true };
    let leaf = automaton.leaves[leaf as usize];
    let Ok(text) = std::str::from_utf8(value) else { return false };
    if value.contains(&b'\\') {
        let unescaped = super::text::decode(text);
        return unescaped.is_some_and(|t| !t.contains('\\') && is_form(automaton, leaf, &t));
    }
    is_form(automaton, leaf, text)
}

fn is_form(automaton: &Automaton, leaf: Leaf, text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = |b: &[u8]| !b.is_empty() && b.len() <= 20 && b.iter().all(u8::is_ascii_digit);
    let uri = || {
        !bytes.is_empty()
            && bytes
                .iter()
                .all(|&b| b > b' ' && b < 0x7F && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'}'))
    };
    match leaf.primitive {
        Primitive::Code => {
            // Terminologies have codes of several words; elsewhere a space stands only behind a semicolon: `text/plain; charset=utf-8`.
            let words = leaf.role == Role::CodingCode && bytes.len() <= 64;
            let space =
                |i: usize| i > 0 && i + 1 < bytes.len() && bytes[i - 1] != b' ' && (words || bytes[i - 1] == b';');
            !bytes.is_empty()
                && bytes.len() <= 256
                && (0..bytes.len()).all(|i| bytes[i] > b' ' || bytes[i] == b' ' && space(i))
        }
        Primitive::Id => crate::fhir::reference::is_id(text),
        Primitive::Uri | Primitive::Url | Primitive::Oid | Primitive::Uuid => {
            uri()
                && (leaf.role != Role::CodingSystem || text.contains(':'))
                && !text.starts_with("mailto:")
                && !text.starts_with("tel:")
        }
        Primitive::Canonical => uri() && !names_instance(automaton, text),
        Primitive::Date | Primitive::DateTime | Primitive::Instant => FhirDate::parse(leaf.primitive, text).is_ok(),
        Primitive::Time => {
            let (clock, fraction) = text.split_once('.').map_or((text, None), |(c, f)| (c, Some(f)));
            let shape = clock.len() == 8
                && clock
                    .bytes()
                    .enumerate()
                    .all(|(i, b)| if matches!(i, 2 | 5) { b == b':' } else { b.is_ascii_digit() });
            shape && fraction.is_none_or(|f| f.len() <= 9 && digits(f.as_bytes()))
        }
        Primitive::Integer | Primitive::Integer64 => digits(bytes.strip_prefix(b"-").unwrap_or(bytes)),
        Primitive::UnsignedInt | Primitive::PositiveInt => digits(bytes),
        _ => true,
    }
}

/// Whether a canonical ends in `Type/id` of a type whose instances are about someone: then it is no canonical.
fn names_instance(automaton: &Automaton, text: &str) -> bool {
    let mut parts = text.split(['|', '#']).next().unwrap_or_default().rsplit('/');
    let (_, kind) = (parts.next(), parts.next().unwrap_or_default());
    automaton.roots.contains_key(kind) && !crate::fhir::definitional(kind)
}

/// A hash of an unknown name, 31 bits, for the duplicate check. A clash refuses a message, it never lets one pass.
fn fold_hash(name: &[u8]) -> u32 {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    for &b in name {
        h = (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (h >> 33) as u32
}
