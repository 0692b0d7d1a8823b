//! The scanner of plain JSON: one message in, validated in one pass, and a list of places that the decider must see.
//!
//! As strict as the scanner of FHIR, whose primitives it uses: grammar (RFC 8259), UTF-8, escapes, depth, duplicate names, names compared
//! after decoding. It knows which rule decides each value, since that needs no key: what is kept leaves no event, what is named
//! by no rule is refused or cut here. Coming back nothing is refused but what is not JSON.
//!
//! Input that ends before the message does is `Incomplete`, never an error. Nothing of a message may leave before `scan` has returned its end.

use crate::limits;
use crate::rewrite::json::{Direction, Scan, refuse, scalar, space, string, word};
use crate::rewrite::refusal::Code;
use crate::rewrite::simd::Plain;
use crate::rewrite::text;
use crate::rules::plain::automaton::{BACK, COVERED, CUT, KEYS, SUBJECT, hash};
use crate::rules::plain::only::NO_RULE;
use crate::rules::plain::{Automaton, Form, RuleIx, StateId, Sym};
use crate::rules::{Action, Compiled, Unknown};
use std::borrow::Cow;

/// Stands for the message itself where a container is named.
pub const MESSAGE: u32 = u32::MAX;

/// What must happen at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It goes: a value with its name and one separator.
    Cut,
    /// A value by its rule; of a text the span lies between the quotes.
    Value(Form),
    /// The name of a member, between the quotes.
    Name,
    /// The member that carries the seal.
    Seal,
}

/// One place.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// Separator before the member or element.
    pub from: u32,
    /// Separator behind it.
    pub sep: u32,
    /// First byte of the value or name.
    pub start: u32,
    /// Behind its last byte.
    pub end: u32,
    /// In which container, numbered; `MESSAGE`: it is the message.
    pub container: u32,
    /// Which member or element of it.
    pub index: u32,
    /// State of the value; of a name, that of its object.
    pub state: StateId,
    /// What decides. Coming back: the first rule that makes tokens here.
    pub rule: RuleIx,
    /// What must happen.
    pub what: What,
    /// Whether a text holds escapes.
    pub escaped: bool,
}

impl Event {
    /// Where the value or name begins, its quote included.
    pub fn place(&self) -> usize {
        self.start as usize - usize::from(matches!(self.what, What::Value(Form::Text) | What::Name))
    }
}

/// A value that names the subject.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    /// Between quotes, or a number.
    pub start: u32,
    /// Behind it.
    pub end: u32,
    /// State, whose rules say how it is spelled over there.
    pub state: StateId,
    /// Whether it holds escapes.
    pub escaped: bool,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    state: StateId,
    object: bool,
    /// Beneath a cut: validated only.
    mute: bool,
    /// Of the value being read.
    next_state: StateId,
    next_mute: bool,
    /// Member names before this frame's in `names`.
    names: u32,
    members: u32,
    /// Where the member being read begins.
    from: u32,
    sym: Sym,
    /// Number among containers that have events; `MESSAGE` where it has none yet.
    number: u32,
    /// First event of the member being read.
    events: u32,
}

/// Scanner state, reused from message to message.
#[derive(Debug, Default)]
pub struct Scanner {
    /// What was found, in document order.
    pub events: Vec<Event>,
    /// Who the message is about.
    pub named: Vec<Named>,
    /// Containers that have events.
    pub containers: u32,
    /// The closing brace of a message that is an object.
    pub close: Option<u32>,
    stack: Vec<Frame>,
    names: Vec<u64>,
    /// Refuse at this byte: to find the path of a place that the decider refused.
    stop_at: Option<usize>,
}

/// Where a message begins, and in which state.
#[derive(Debug, Clone, Copy)]
pub struct Begin {
    /// First byte, perhaps white space.
    pub at: usize,
    /// State of the message.
    pub state: StateId,
}

/// What stands between quotes, decoded.
fn decoded(input: &[u8], start: usize, end: usize, escaped: bool) -> Scan<Cow<'_, str>> {
    let Ok(spelling) = std::str::from_utf8(&input[start..end]) else { return refuse(Code::BadUtf8, start) };
    match escaped {
        false => Ok(Cow::Borrowed(spelling)),
        true => text::decode(spelling).map_or_else(|| refuse(Code::BadText, start), Ok),
    }
}

impl Scanner {
    /// Scans the message that begins at `begin`. Returns the position behind it.
    pub fn scan(
        &mut self,
        rules: &Compiled,
        automaton: &Automaton,
        input: &[u8],
        begin: Begin,
        direction: Direction,
    ) -> Scan<usize> {
        let mut pass = Pass { scanner: self, rules, automaton, input, out: direction == Direction::Out };
        pass.run(begin)
    }

    /// The path at which scanning stopped: names of the rule file, positions, `?` for everything else.
    pub fn path(&self, automaton: &Automaton, prefix: &str) -> String {
        let mut path = prefix.to_owned();
        for frame in &self.stack {
            match (frame.object, automaton.name(frame.sym)) {
                (false, _) => path.push_str(&format!("[{}]", frame.members.saturating_sub(1))),
                (true, Some(name)) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => {
                    path.push('.');
                    path.push_str(name);
                }
                (true, Some(name)) => path.push_str(&format!("['{name}']")),
                (true, None) => path.push_str(".?"),
            }
        }
        path
    }

    /// The path of a byte of a message that was scanned before.
    pub fn path_of(
        &mut self,
        rules: &Compiled,
        automaton: &Automaton,
        input: &[u8],
        begin: Begin,
        direction: Direction,
        at: usize,
        prefix: &str,
    ) -> String {
        self.stop_at = Some(at);
        // Stops there by a refusal, which says nothing but where it is.
        let _ = self.scan(rules, automaton, input, begin, direction);
        self.stop_at = None;
        self.path(automaton, prefix)
    }
}

struct Pass<'p> {
    scanner: &'p mut Scanner,
    rules: &'p Compiled,
    automaton: &'p Automaton,
    input: &'p [u8],
    out: bool,
}

impl Pass<'_> {
    fn run(&mut self, begin: Begin) -> Scan<usize> {
        let input = self.input;
        let scanner = &mut *self.scanner;
        (scanner.containers, scanner.close) = (0, None);
        scanner.events.clear();
        scanner.named.clear();
        scanner.stack.clear();
        scanner.names.clear();
        let (mut first, mut p) = space(Plain, input, begin.at)?;
        let start = p;
        let (mut state, mut mute) = (begin.state, false);
        'value: loop {
            if self.scanner.stop_at.is_some_and(|at| at <= p) {
                return refuse(Code::BadValue, p);
            }
            match first {
                b'"' => {
                    let (end, escaped) = string(Plain, input, p + 1)?;
                    if !mute {
                        self.text(state, p + 1, end, escaped)?;
                    }
                    p = end + 1;
                }
                b'{' | b'[' => {
                    let object = first == b'{';
                    self.push(state, mute, object, p)?;
                    let (next, q) = space(Plain, input, p + 1)?;
                    if next == if object { b'}' } else { b']' } {
                        p = q + 1;
                        self.pop(p);
                    } else if object {
                        if next != b'"' {
                            return refuse(Code::BadJson, q);
                        }
                        p = self.member(q, p)?;
                        (state, mute) = self.next();
                        (first, p) = space(Plain, input, p)?;
                        continue 'value;
                    } else {
                        (state, mute) = self.element(p);
                        (first, p) = (next, q);
                        continue 'value;
                    }
                }
                b'n' => {
                    let end = word(input, p, b"null")?;
                    if !mute {
                        self.null(state, p, end)?;
                    }
                    p = end;
                }
                b't' | b'f' | b'-' | b'0'..=b'9' => {
                    let form = if matches!(first, b't' | b'f') { Form::Boolean } else { Form::Number };
                    let end = scalar(input, p, first)?;
                    if !mute {
                        self.scalar(state, form, p, end)?;
                    }
                    p = end;
                }
                _ => return refuse(Code::BadJson, p),
            }
            loop {
                let Some(top) = self.scanner.stack.last() else { break 'value };
                let object = top.object;
                let (c, q) = space(Plain, input, p)?;
                self.settle(p, q);
                if c == if object { b'}' } else { b']' } {
                    p = q + 1;
                    self.pop(p);
                    continue;
                }
                if c != b',' {
                    return refuse(Code::BadJson, q);
                }
                let (next, r) = space(Plain, input, q + 1)?;
                if object {
                    if next != b'"' {
                        return refuse(Code::BadJson, r);
                    }
                    p = self.member(r, q)?;
                    (state, mute) = self.next();
                    (first, p) = space(Plain, input, p)?;
                } else {
                    (state, mute) = self.element(q);
                    (first, p) = (next, r);
                }
                continue 'value;
            }
        }
        if std::str::from_utf8(&input[start..p]).is_err() {
            return refuse(Code::BadUtf8, start);
        }
        Ok(p)
    }

    fn next(&self) -> (StateId, bool) {
        let top = self.scanner.stack.last().expect("a value of a container");
        (top.next_state, top.next_mute)
    }

    /// The next element of the array on top, its separator at `from`.
    fn element(&mut self, from: usize) -> (StateId, bool) {
        let events = self.scanner.events.len() as u32;
        let top = self.scanner.stack.last_mut().expect("an element stands in an array");
        top.members += 1;
        (top.from, top.events) = (from as u32, events);
        (self.automaton.states[top.state as usize].element, top.mute)
    }

    fn push(&mut self, state: StateId, mute: bool, object: bool, start: usize) -> Scan<()> {
        if self.scanner.stack.len() >= limits::DEPTH_MAX {
            return refuse(Code::TooDeep, start);
        }
        let goes = self.out && !mute && self.automaton.states[state as usize].flags & CUT != 0;
        if goes {
            self.cut(state);
        }
        let mute = mute || goes;
        self.scanner.stack.push(Frame {
            state,
            object,
            mute,
            next_state: state,
            next_mute: mute,
            names: self.scanner.names.len() as u32,
            members: 0,
            from: start as u32,
            sym: Sym::MAX,
            number: MESSAGE,
            events: self.scanner.events.len() as u32,
        });
        Ok(())
    }

    fn pop(&mut self, end: usize) {
        let frame = self.scanner.stack.pop().expect("pop follows push");
        self.scanner.names.truncate(frame.names as usize);
        if self.scanner.stack.is_empty() && frame.object {
            self.scanner.close = Some(end as u32 - 1);
        }
    }

    /// The member or element that was read last ends at `end`, its separator is at `sep`.
    fn settle(&mut self, end: usize, sep: usize) {
        let scanner = &mut *self.scanner;
        let top = scanner.stack.last().expect("a separator stands in a container");
        // Its own events are the first two at most: the name's and the value's.
        for event in scanner.events[top.events as usize..].iter_mut().take(2).filter(|e| e.container == top.number) {
            event.sep = sep as u32;
            if event.what == What::Cut {
                event.end = end as u32;
            }
        }
    }

    /// Reads a member name at the quote `at`; where its value begins.
    fn member(&mut self, at: usize, from: usize) -> Scan<usize> {
        let input = self.input;
        let (end, escaped) = string(Plain, input, at + 1)?;
        if end - at > limits::NAME_BYTES_MAX {
            return refuse(Code::MemberName, at);
        }
        let name = decoded(input, at + 1, end, escaped)?;
        let sym = self.automaton.sym(name.as_bytes());
        let depth = self.scanner.stack.len();
        let events = self.scanner.events.len() as u32;
        let top = self.scanner.stack.last_mut().expect("a member stands in an object");
        (top.from, top.sym, top.events) = (from as u32, sym, events);
        top.members += 1;
        if top.members as usize > limits::MEMBERS_MAX {
            return refuse(Code::TooManyMembers, at);
        }
        // A clash of hashes refuses a message, it never lets one pass.
        let mark = hash(name.as_bytes());
        if self.scanner.names[top.names as usize..].contains(&mark) {
            return refuse(Code::DuplicateKey, at);
        }
        self.scanner.names.push(mark);
        let place = self.automaton.states[top.state as usize];
        let known = self.automaton.edge(top.state, sym);
        (top.next_state, top.next_mute) = (known.map_or(place.other, |k| k.target), top.mute);
        let (state, mute) = (top.state, top.mute);
        let is_seal = depth == 1 && sym != Sym::MAX && self.automaton.seal == Some(sym);
        let spelled = known.is_some_and(|k| k.here || place.flags & KEYS == 0);
        if is_seal {
            if self.out {
                return refuse(Code::Sealed, at);
            }
            top.next_mute = true;
        } else if !mute && !spelled {
            self.unspelled(state, &name, at, end, escaped)?;
        }
        let (colon, p) = space(Plain, input, end + 1)?;
        if colon != b':' {
            return refuse(Code::BadJson, p);
        }
        if is_seal && let (b'"', value) = space(Plain, input, p + 1)? {
            let (end, escaped) = string(Plain, input, value + 1)?;
            self.event(What::Seal, state, NO_RULE, value + 1, end, escaped);
        }
        Ok(p + 1)
    }

    /// A name that no path spells at its place: data, if a rule says so; else unknown.
    fn unspelled(&mut self, state: StateId, name: &str, at: usize, end: usize, escaped: bool) -> Scan<()> {
        let automaton = self.automaton;
        let place = automaton.states[state as usize];
        let leaf = &automaton.leaves[place.keys as usize];
        if !self.out {
            if let Some(&rule) = leaf.tokens.first() {
                self.name(state, rule, at, end, escaped);
            }
            return Ok(());
        }
        let action = leaf.rule(Form::Text, name).map(|rule| (rule, self.rules.rules[rule as usize].action));
        match action {
            Some((_, Action::Keep)) => Ok(()),
            Some((_, Action::Remove)) => {
                self.drop_member(state);
                Ok(())
            }
            Some((rule, _)) => {
                self.name(state, rule, at, end, escaped);
                Ok(())
            }
            None if place.flags & KEYS == 0 && automaton.folds(state, name.as_bytes()) => refuse(Code::KeyCase, at),
            None if place.flags & COVERED == 0 && self.rules.unknown == Unknown::Refuse => refuse(Code::MemberName, at),
            None => {
                self.drop_member(state);
                Ok(())
            }
        }
    }

    fn name(&mut self, state: StateId, rule: RuleIx, at: usize, end: usize, escaped: bool) {
        self.event(What::Name, state, rule, at + 1, end, escaped);
    }

    /// The member being read goes, whatever its value is.
    fn drop_member(&mut self, state: StateId) {
        self.scanner.stack.last_mut().expect("a member stands in an object").next_mute = true;
        self.cut(state);
    }

    fn event(&mut self, what: What, state: StateId, rule: RuleIx, start: usize, end: usize, escaped: bool) {
        let scanner = &mut *self.scanner;
        let (from, container, index) = match scanner.stack.last_mut() {
            None => (0, MESSAGE, 0),
            Some(top) => {
                if top.number == MESSAGE {
                    top.number = scanner.containers;
                    scanner.containers += 1;
                }
                (top.from, top.number, top.members - 1)
            }
        };
        let (start, end) = (start as u32, end as u32);
        scanner.events.push(Event { from, sep: 0, start, end, container, index, state, rule, what, escaped });
    }

    /// The member or element being read goes; where it ends is known when its separator comes.
    fn cut(&mut self, state: StateId) {
        let from = self.scanner.stack.last().map_or(0, |f| f.from as usize);
        self.event(What::Cut, state, NO_RULE, from, from, false);
    }

    // === values ===

    fn text(&mut self, state: StateId, start: usize, end: usize, escaped: bool) -> Scan<()> {
        let automaton = self.automaton;
        let place = automaton.states[state as usize];
        let leaf = &automaton.leaves[place.leaf as usize];
        if place.flags & SUBJECT != 0 {
            self.scanner.named.push(Named { start: start as u32, end: end as u32, state, escaped });
        }
        if !self.out {
            if place.flags & BACK != 0 {
                let rule = leaf.tokens.first().copied().unwrap_or(leaf.any);
                self.event(What::Value(Form::Text), state, rule, start, end, escaped);
            }
            return Ok(());
        }
        let value = decoded(self.input, start, end, escaped)?;
        self.decide(leaf.rule(Form::Text, &value), state, Form::Text, start, end, escaped)
    }

    fn scalar(&mut self, state: StateId, form: Form, start: usize, end: usize) -> Scan<()> {
        let automaton = self.automaton;
        let place = automaton.states[state as usize];
        let leaf = &automaton.leaves[place.leaf as usize];
        if place.flags & SUBJECT != 0 && form == Form::Number {
            self.scanner.named.push(Named { start: start as u32, end: end as u32, state, escaped: false });
        }
        // ASCII: the grammar of numbers and booleans saw to it.
        let value = std::str::from_utf8(&self.input[start..end]).unwrap_or_default();
        if !self.out {
            if form == Form::Number && place.flags & BACK != 0 {
                self.event(What::Value(form), state, leaf.any, start, end, false);
            }
            return Ok(());
        }
        self.decide(leaf.rule(form, value), state, form, start, end, false)
    }

    fn null(&mut self, state: StateId, start: usize, end: usize) -> Scan<()> {
        if !self.out {
            return Ok(());
        }
        let leaf = &self.automaton.leaves[self.automaton.states[state as usize].leaf as usize];
        let rule = (!leaf.is_empty()).then_some(leaf.any);
        match rule.map(|rule| self.rules.rules[rule as usize].action) {
            Some(Action::Remove) | None => self.decide(rule, state, Form::Boolean, start, end, false),
            Some(_) => Ok(()), // says that there is no value
        }
    }

    /// What happens to a value of this rule, or of none.
    fn decide(
        &mut self,
        rule: Option<RuleIx>,
        state: StateId,
        form: Form,
        start: usize,
        end: usize,
        escaped: bool,
    ) -> Scan<()> {
        let quote = usize::from(form == Form::Text);
        match rule.map(|rule| (rule, self.rules.rules[rule as usize].action)) {
            Some((_, Action::Keep)) => {}
            None if self.rules.unknown == Unknown::Refuse => return refuse(Code::Unmatched, start - quote),
            None | Some((_, Action::Remove)) => self.cut(state),
            Some((rule, _)) => {
                self.event(What::Value(form), state, rule, start, end, escaped);
            }
        }
        Ok(())
    }
}

const _: () = assert!(limits::RESOURCE_BYTES_MAX < u32::MAX as usize, "positions in a message are 32 bits");
