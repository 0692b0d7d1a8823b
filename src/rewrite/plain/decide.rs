//! The decider of plain JSON: what happens at each place that the scanner listed, as edits; bytes outside edits are copied.
//!
//! Going out, anything doubtful is an error and the message is not written. Coming back, a value is revealed only at a place whose rule makes tokens
//! of its class, if it verifies and the permit allows; values minted over there are escaped there; everything else stays.

use super::method;
use super::scan::{Event, MESSAGE, Named, Scanner, What};
use crate::action::shift::{self, Offset};
use crate::action::{Done, No};
use crate::names::Class;
use crate::policy::Permit;
use crate::rewrite::engine::Engine;
use crate::rewrite::json::Direction;
use crate::rewrite::leaf::{open_text, rewrap_text, seal_text};
use crate::rewrite::memo::Memo;
use crate::rewrite::reference::Way;
use crate::rewrite::refusal::Code;
use crate::rewrite::report::Report;
use crate::rewrite::seal::{self, Seal};
use crate::rewrite::text;
use crate::rules::plain::{Form, Leaf, NoSubject, Plain, RuleIx, StateId};
use crate::rules::{Action, Role};
use crate::secret::Phi;
use crate::token::{Form as Padding, Mac, Rewrapped, Seen, danger};
use std::borrow::Cow;
use std::collections::HashSet;

/// A range of the input that is replaced by a range of the arena.
#[derive(Debug, Clone, Copy)]
struct Edit {
    start: u32,
    end: u32,
    text: (u32, u32),
}

/// Buffers, reused from message to message.
#[derive(Debug, Default)]
pub struct Desk {
    edits: Vec<Edit>,
    arena: Vec<u8>,
    word: String,
    /// By container: how many of its members have gone.
    removed: Vec<u32>,
    /// Names that were written, by container: two may not become one.
    names: HashSet<(u32, String)>,
    memo: Memo,
    /// The last subject's offset.
    drawn: Option<(String, i32)>,
}

/// Why a place cannot be decided: at this byte.
pub type Failed = (Code, usize);

/// One message being decided.
pub struct Decider<'u> {
    pub engine: &'u Engine,
    pub plain: &'u Plain,
    pub input: &'u [u8],
    pub scanner: &'u Scanner,
    pub direction: Direction,
    pub permit: Option<&'u Permit>,
    /// The key of hashes of scope `document`.
    pub document: Option<&'u Mac>,
    pub desk: &'u mut Desk,
    pub report: &'u mut Report,
    /// Whom the message is about, if exactly one.
    pub subject: Option<String>,
    /// Coming back: the offset of the seal. Going out: the offset that was used.
    pub offset: Option<i32>,
}

/// What becomes of a value.
enum Fate {
    Stays,
    Goes,
    /// Replaced by what stands in the arena from here on.
    Written(usize),
}

impl<'u> Decider<'u> {
    /// Decides the message and appends it, rewritten, to `output`. `false`: it goes as a whole. On an error nothing was appended.
    pub fn write(mut self, start: usize, end: usize, output: &mut Vec<u8>) -> Result<bool, Failed> {
        self.desk.edits.clear();
        self.desk.arena.clear();
        self.desk.names.clear();
        self.desk.removed.clear();
        self.desk.removed.resize(self.scanner.containers as usize, 0);
        self.subject = self.find_subject()?;
        let events = &self.scanner.events;
        if !self.out() && !self.engine.rewraps {
            for event in events.iter().filter(|e| e.what == What::Seal) {
                self.unseal(event)?;
            }
        }
        for event in events {
            let fate = match event.what {
                What::Cut => Fate::Goes,
                What::Name => self.name(event)?,
                What::Value(form) if self.out() => self.value(event, form)?,
                What::Value(form) => self.back(event, form)?,
                What::Seal if self.engine.rewraps => self.rewrap_seal(event)?,
                What::Seal if self.offset.is_some() => Fate::Goes,
                What::Seal => Fate::Stays,
            };
            match fate {
                Fate::Stays => {}
                Fate::Goes if event.container == MESSAGE => return Ok(false),
                Fate::Goes => self.cut(event),
                Fate::Written(from) => {
                    let text = (from as u32, self.desk.arena.len() as u32);
                    self.desk.edits.push(Edit { start: event.start, end: event.end, text });
                }
            }
        }
        if self.out() && self.offset.is_some() {
            self.seal()?;
        }
        let mut copied = start;
        for edit in &self.desk.edits {
            output.extend_from_slice(&self.input[copied..edit.start as usize]);
            output.extend_from_slice(&self.desk.arena[edit.text.0 as usize..edit.text.1 as usize]);
            copied = edit.end as usize;
        }
        output.extend_from_slice(&self.input[copied..end]);
        self.report.resources += 1;
        Ok(true)
    }

    fn out(&self) -> bool {
        self.direction == Direction::Out
    }

    fn spelling(&self, start: u32, end: u32) -> Result<&'u str, Failed> {
        let bytes = &self.input[start as usize..end as usize];
        std::str::from_utf8(bytes).map_err(|_| (Code::BadUtf8, start as usize))
    }

    fn text(&self, start: u32, end: u32, escaped: bool) -> Result<Cow<'u, str>, Failed> {
        let spelling = self.spelling(start, end)?;
        match escaped {
            false => Ok(Cow::Borrowed(spelling)),
            true => text::decode(spelling).ok_or((Code::BadText, start as usize)),
        }
    }

    fn leaf(&self, state: StateId, names: bool) -> &'u Leaf {
        let state = self.plain.automaton.states[state as usize];
        &self.plain.automaton.leaves[if names { state.keys } else { state.leaf } as usize]
    }

    fn action(&self, rule: RuleIx) -> Action {
        self.engine.rules.rules[rule as usize].action
    }

    /// Cuts a member or element with one separator: the one before it, or, if all before it have gone, the one behind.
    fn cut(&mut self, event: &Event) {
        self.report.removed += u64::from(event.what != What::Seal);
        // Its name may have been rewritten already.
        while self.desk.edits.last().is_some_and(|e| e.start >= event.from) {
            self.desk.edits.pop();
        }
        let removed = &mut self.desk.removed[event.container as usize];
        let first = event.index == *removed;
        *removed += 1;
        let quote = u32::from(matches!(event.what, What::Value(Form::Text) | What::Seal));
        let behind = event.sep + u32::from(self.input[event.sep as usize] == b',');
        let (start, end) = if first { (event.from + 1, behind) } else { (event.from, event.end + quote) };
        self.desk.edits.push(Edit { start, end, text: (0, 0) });
    }

    // === the subject, and its seal ===

    fn find_subject(&self) -> Result<Option<String>, Failed> {
        let mut found: Option<String> = None;
        for named in &self.scanner.named {
            let key = self.subject_key(named)?;
            match &found {
                None => found = Some(key),
                Some(other) if *other == key => {}
                Some(_) => return Ok(None),
            }
        }
        Ok(found)
    }

    /// The subject as the trusted side spells it; of one minted over there, the escape.
    fn subject_key(&self, named: &Named) -> Result<String, Failed> {
        let value = self.text(named.start, named.end, named.escaped)?;
        let leaf = self.leaf(named.state, false);
        for &rule in &leaf.tokens {
            let Action::Token { class, pad } = self.action(rule) else { continue };
            let keys = &self.engine.classes[class as usize];
            // Opened without a permit: the subject is hashed and compared, never written.
            if let Some(phi) = danger::open(keys, &value) {
                return Ok(phi.expose().to_owned());
            }
            if !self.out() && !pad && leaf.rule(Form::Text, &value) == Some(rule) {
                let mut escape = String::new();
                keys.escape(&value, None, &mut escape).map_err(|_| (Code::ForeignIdTooLong, named.start as usize))?;
                return Ok(escape);
            }
        }
        Ok(value.into_owned())
    }

    /// A seal coming back: its offset, where this caller may unshift.
    fn unseal(&mut self, event: &Event) -> Result<(), Failed> {
        let value = self.text(event.start, event.end, event.escaped)?;
        let class = self.engine.seals.class();
        match Seal::read(self.engine, &value) {
            Some(seal) if self.engine.allows(self.permit, class) => self.offset = seal.offsets[0],
            Some(_) => self.report.stayed += 1,
            None => {}
        }
        Ok(())
    }

    /// A seal under the epoch that is written with: what it says stays, and so do the times.
    fn rewrap_seal(&mut self, event: &Event) -> Result<Fate, Failed> {
        let value = self.text(event.start, event.end, event.escaped)?;
        let mut token = String::new();
        match self.engine.seals.rewrap(&value, &mut token) {
            Rewrapped::Moved => {
                let from = self.desk.arena.len();
                self.desk.arena.extend_from_slice(token.as_bytes());
                self.report.tokens += 1;
                return Ok(Fate::Written(from));
            }
            Rewrapped::LookAlike => self.report.stayed += 1,
            Rewrapped::Current | Rewrapped::Foreign => {}
        }
        Ok(Fate::Stays)
    }

    /// Writes the seal last in the message.
    fn seal(&mut self) -> Result<(), Failed> {
        let Some(member) = &self.plain.seal else { return Ok(()) };
        let Some(close) = self.scanner.close else { return Err((Code::NoPlaceForSeal, 0)) };
        let seal = Seal { offsets: [self.offset, None, None], subject: self.subject.clone().unwrap_or_default() };
        let from = self.desk.arena.len();
        self.desk.arena.extend_from_slice(b",\"");
        text::encode(member, &mut self.desk.arena);
        self.desk.arena.extend_from_slice(b"\":\"");
        let mut word = String::new();
        // Padded: its length would tell how long the subject is.
        let form = Padding { padded: true, raw_spelling: false };
        let mut text = String::with_capacity(96);
        seal::write(self.engine, &seal.offsets, &seal.subject, &mut text);
        let phi = Phi::new(text);
        self.engine.seals.pseudonymize(&phi, form, &mut word).map_err(|_| (Code::ResourceTooLarge, close as usize))?;
        self.desk.arena.extend_from_slice(word.as_bytes());
        self.desk.arena.push(b'"');
        let text = (from as u32, self.desk.arena.len() as u32);
        self.desk.edits.push(Edit { start: close, end: close, text });
        Ok(())
    }

    // === names ===

    fn name(&mut self, event: &Event) -> Result<Fate, Failed> {
        let at = event.place();
        let fate = match self.out() {
            true => self.value(event, Form::Text)?,
            false => self.back(event, Form::Text)?,
        };
        let name = match fate {
            Fate::Written(from) => String::from_utf8_lossy(&self.desk.arena[from..]).into_owned(),
            _ => self.spelling(event.start, event.end)?.to_owned(),
        };
        if !self.desk.names.insert((event.container, name)) {
            return Err((Code::DuplicateKey, at));
        }
        Ok(fate)
    }

    // === values ===

    fn value(&mut self, event: &Event, form: Form) -> Result<Fate, Failed> {
        let at = event.place();
        match self.action(event.rule) {
            Action::Keep => Ok(Fate::Stays),
            Action::Remove => Ok(Fate::Goes),
            Action::Token { class, pad } if form == Form::Text => self.token(event, event.rule, class, pad),
            Action::Token { .. } => Err((Code::RuleForm, at)),
            Action::Shift { days, weekday } => self.shift(event, form, days, weekday),
            Action::Other { method, .. } => {
                let value = self.text(event.start, event.end, event.escaped)?;
                let subject = self.subject.as_deref().unwrap_or_default();
                let done = method::apply(self.engine, method, form, &value, subject, self.document)
                    .map_err(|code| (code, at))?;
                if !matches!(done, Done::Goes) {
                    let number = self.engine.rules.methods[method as usize].number();
                    self.report.changed[number] += 1;
                }
                self.done(event, form, done)
            }
        }
    }

    /// What an action came to. A number stays one.
    fn done(&mut self, event: &Event, form: Form, done: Done) -> Result<Fate, Failed> {
        let from = self.desk.arena.len();
        match (done, form) {
            (Done::Stays, _) => return Ok(Fate::Stays),
            (Done::Goes, _) => return Ok(Fate::Goes),
            (Done::Text(word), Form::Text) => text::encode(&word, &mut self.desk.arena),
            (Done::Text(word), _) if crate::rules::plain::is_scalar(&word) => {
                self.desk.arena.extend_from_slice(word.as_bytes());
            }
            (Done::Text(_), _) => return Err((Code::RuleForm, event.place())),
        }
        Ok(Fate::Written(from))
    }

    fn shift(&mut self, event: &Event, form: Form, days: u16, weekday: bool) -> Result<Fate, Failed> {
        let at = event.place();
        let Some(subject) = &self.subject else {
            return match self.plain.no_subject {
                NoSubject::Remove => Ok(Fate::Goes),
                NoSubject::Refuse => Err((Code::NoSubject, at)),
            };
        };
        let offset = match &self.desk.drawn {
            Some((drawn, offset)) if drawn == subject => *offset,
            _ => {
                let offset = shift::offset(&self.engine.shift, Offset::Event, subject, days, weekday);
                self.desk.drawn = Some((subject.clone(), offset));
                offset
            }
        };
        let done = self.moved(event, form, event.rule, offset)?;
        if let Some(unit) = self.plain.units[event.rule as usize]
            && !shift::is_plausible(&self.text(event.start, event.end, event.escaped)?, unit)
        {
            return Err((Code::BadTime, event.place()));
        }
        if matches!(done, Done::Text(_)) {
            self.offset = Some(offset);
            self.report.shifts += 1;
        }
        self.done(event, form, done)
    }

    fn moved(&self, event: &Event, form: Form, rule: RuleIx, offset: i32) -> Result<Done, Failed> {
        let at = event.place();
        let (Some(unit), true) = (self.plain.units[rule as usize], form != Form::Boolean) else {
            return Err((Code::RuleForm, at));
        };
        let value = self.text(event.start, event.end, event.escaped)?;
        shift::time(&value, unit, offset).map_err(|no| match no {
            No::Range => (Code::ShiftRange, at),
            _ => (Code::BadTime, at),
        })
    }

    /// Coming back.
    fn back(&mut self, event: &Event, form: Form) -> Result<Fate, Failed> {
        let value = self.text(event.start, event.end, event.escaped)?;
        let leaf = self.leaf(event.state, event.what == What::Name);
        let own = leaf.rule(form, &value);
        if form == Form::Text {
            let is_token = |rule: RuleIx| match self.action(rule) {
                Action::Token { class, .. } => self.engine.classes[class as usize].recognise(&value) == Seen::Token,
                _ => false,
            };
            let rule = leaf.tokens.iter().copied().find(|&rule| is_token(rule));
            let rule = rule.or(own.filter(|rule| leaf.tokens.contains(rule)));
            if let Some(rule) = rule
                && let Action::Token { class, pad } = self.action(rule)
            {
                return self.token(event, rule, class, pad);
            }
        }
        match own.filter(|&rule| matches!(self.action(rule), Action::Shift { .. })) {
            Some(rule) => self.unshift(event, form, rule),
            None => Ok(Fate::Stays),
        }
    }

    fn unshift(&mut self, event: &Event, form: Form, rule: RuleIx) -> Result<Fate, Failed> {
        let Some(offset) = self.offset else { return Ok(Fate::Stays) };
        match self.moved(event, form, rule, -offset) {
            Ok(done) => {
                if matches!(done, Done::Text(_)) {
                    self.report.shifts += 1;
                    self.reveals(self.engine.seals.class().clone(), None);
                }
                self.done(event, form, done)
            }
            Err(_) => Ok(Fate::Stays), // coming back, what cannot be understood stays as it is
        }
    }

    /// A value at a place whose rule is `token`, in either direction.
    fn token(&mut self, event: &Event, rule: RuleIx, class: u16, pad: bool) -> Result<Fate, Failed> {
        let at = event.place();
        let spelling = self.spelling(event.start, event.end)?;
        let from = self.desk.arena.len();
        if let Some(known) = self.desk.memo.get(u32::from(rule), spelling) {
            self.report.stayed += known.stayed;
            let changed = known.changed;
            self.desk.arena.extend_from_slice(known.word.as_bytes());
            for class in known.revealed.clone() {
                self.reveals(class, Some(from));
            }
            self.report.tokens += u64::from(changed);
            return Ok(if changed { Fate::Written(from) } else { Fate::Stays });
        }
        let value = self.text(event.start, event.end, event.escaped)?;
        let keys = &self.engine.classes[class as usize];
        let mut way = if self.out() { Way::out() } else { Way::back(self.permit) };
        let mut word = std::mem::take(&mut self.desk.word);
        word.clear();
        let (changed, raw) = match (pad, self.out()) {
            (true, true) => {
                let sealed = seal_text(keys, Role::Text, spelling, &value, pad, &mut word);
                (sealed.map_err(|code| (code, at))?, false)
            }
            (true, false) if self.engine.rewraps => (rewrap_text(keys, Role::Text, &value, &mut word, &mut way), false),
            (true, false) => open_text(keys, Role::Text, &value, &mut word, &mut way),
            (false, _) => {
                let changed = self.engine.value(keys, &value, None, true, &mut word, &mut way);
                (changed.map_err(|code| (code, at))?, false)
            }
        };
        if changed {
            match raw {
                true => self.desk.arena.extend_from_slice(word.as_bytes()),
                false => text::encode(&word, &mut self.desk.arena),
            }
            self.report.tokens += 1;
        }
        self.desk.word = word;
        self.report.stayed += way.stayed;
        for class in &way.revealed {
            self.reveals(class.clone(), Some(from));
        }
        if let Some(known) = self.desk.memo.put(u32::from(rule), spelling) {
            known.word.push_str(&String::from_utf8_lossy(&self.desk.arena[from..]));
            (known.changed, known.revealed, known.stayed) = (changed, way.revealed, way.stayed);
        }
        Ok(if changed { Fate::Written(from) } else { Fate::Stays })
    }

    /// Counts a value that this caller gets to see: of the message's subject, else of one of its own.
    fn reveals(&mut self, class: Class, from: Option<usize>) {
        let handle = match (&self.subject, from) {
            (Some(subject), _) => Some(self.engine.handle(subject)),
            (None, Some(from)) => Some(self.engine.handle(&String::from_utf8_lossy(&self.desk.arena[from..]))),
            (None, None) => None,
        };
        self.report.subjects.extend(handle);
        *self.report.reveals.entry(class).or_default() += 1;
    }
}
