//! From a rule file of `format: json` as written to rules as meant: every mistake at once, or an automaton.
//!
//! There is no schema to check paths against, so what can be checked is checked the harder: paths, kinds, parameters, rules that could
//! never decide anything because earlier ones decide everything.

use super::automaton::{self, Effect, Pattern};
use super::file::{self, ElementRule, Only as Written, Paths, PlainFile};
use super::lint;
use super::only::{Back, Kind, NO_RULE, Only, RuleIx};
use super::path::{self, Step};
use super::url;
use super::{NoSubject, Plain};
use crate::action::generalize::Day;
use crate::action::number::Number;
use crate::action::shift::Unit;
use crate::fhir::date::FhirDate;
use crate::fhir::{Primitive, Release};
use crate::names::Class;
use crate::rules::actions::{self, Around, Meant, Method};
use crate::rules::compile::{Action, Claim, ClassIx, Compiled, Origin, Rule, Unknown, snake};
use crate::rules::file::Action as ActionWritten;
use crate::rules::{At, Mistake, wrong};
use serde_saphyr::Spanned;

#[derive(Default)]
struct Compiler {
    mistakes: Vec<Mistake>,
    rules: Vec<Rule>,
    units: Vec<Option<Unit>>,
    classes: Vec<Class>,
    methods: Vec<Method>,
    patterns: Vec<Pattern>,
    subjects: Vec<String>,
    read: Vec<lint::Read>,
}

/// Compiles a rule file. All mistakes come at once.
pub fn compile(yaml: &str) -> Result<Compiled, Vec<Mistake>> {
    let file = file::parse(yaml).map_err(|m| vec![m])?;
    Compiler::default().compile(&file)
}

impl Compiler {
    fn compile(mut self, file: &PlainFile) -> Result<Compiled, Vec<Mistake>> {
        self.word("apiVersion", &file.api_version, &[("cryptonym/v1", ())]);
        self.word("kind", &file.kind, &[("Rules", ())]);
        self.word("format", &file.format, &[("json", ())]);
        let claims = [("pseudonymized", Claim::Pseudonymized), ("none", Claim::None)];
        let claim = self.word("claim", &file.claim, &claims).unwrap_or(Claim::None);
        let unknown = [("refuse", Unknown::Refuse), ("remove", Unknown::Remove)];
        let unknown = self.word("unknown", &file.unknown, &unknown).unwrap_or(Unknown::Refuse);
        let name = &file.name.value;
        if name.is_empty() || name.len() > 64 || Class::new(name).is_err() {
            let at = file.name.referenced.into();
            self.mistakes.push(wrong(at, "name: has the wrong form", "1 to 64 characters of A-Z a-z 0-9 . _ -"));
        }
        let as_of = file.as_of.as_ref().and_then(|written| self.day(written));
        self.subject(file.subject.as_ref());
        for entry in &file.elements {
            self.rule(entry, as_of, false);
        }
        for entry in &file.keys {
            self.rule(entry, as_of, true);
        }
        let no_subject = self.no_subject(file);
        let subjects = !self.subjects.is_empty();
        self.paths_of_subjects(file);
        if let Some(seal) = &file.seal
            && (seal.value.is_empty() || self.window().is_none())
        {
            let at = seal.referenced.into();
            self.mistakes.push(wrong(
                at,
                "seal: no rule shifts a time",
                "name a member, and only where times are shifted",
            ));
        }
        let urls = self.urls(&file.urls);
        let seal = file.seal.as_ref().map(|s| s.value.clone());
        let automaton = automaton::build(&self.patterns, seal.as_deref()).unwrap_or_else(|_| {
            let what = format!("paths: more than {} states", automaton::STATES_MAX);
            self.mistakes.push(wrong(At::default(), what, "use fewer `..` in one path: spell out where it begins"));
            automaton::Automaton::default()
        });
        if !automaton.states.is_empty() {
            self.idle(&automaton);
        }
        if !self.mistakes.is_empty() {
            self.mistakes.sort_by_key(|m| (m.line, m.column));
            self.mistakes.dedup();
            return Err(self.mistakes);
        }
        let plain = Plain { automaton, units: self.units, seal, no_subject, urls };
        let mut compiled = Compiled {
            name: name.clone(),
            release: Release::R4,
            claim,
            unknown,
            no_subject: crate::rules::NoSubject::Refuse,
            rules: self.rules,
            classes: self.classes,
            methods: self.methods,
            search: Default::default(),
            warnings: Vec::new(),
            automaton: crate::rules::Automaton::default(),
            plain: Some(plain),
        };
        compiled.warnings = lint::warnings(&compiled, &self.read, no_subject, subjects);
        Ok(compiled)
    }

    fn day(&mut self, written: &Spanned<String>) -> Option<Day> {
        let date = FhirDate::parse(Primitive::Date, &written.value).ok();
        let day = date.and_then(|date| Some((date.year(), date.month()?, date.day()?)));
        if day.is_none() {
            let what = format!("as_of: `{}` is not a day", written.value);
            self.mistakes.push(wrong(written.referenced.into(), what, "write YYYY-MM-DD"));
        }
        day
    }

    /// A member that is one of some words.
    fn word<T: Copy>(&mut self, name: &str, written: &Spanned<String>, words: &[(&str, T)]) -> Option<T> {
        let found = words.iter().find(|(word, _)| *word == written.value);
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let what =
                format!("{name}: `{}` is not known here{}", written.value, actions::like(&written.value, &names));
            self.mistakes.push(wrong(written.referenced.into(), what, format!("one of: {}", names.join(", "))));
        }
        found.map(|(_, value)| *value)
    }

    fn path(&mut self, text: &str, at: At) -> Option<Vec<Step>> {
        match path::parse(text) {
            Ok(steps) => Some(steps),
            Err(e) => {
                let what = format!("path `{text}`: at character {}", e.at + 1);
                self.mistakes.push(wrong(at, what, format!("expected {}", e.expected)));
                None
            }
        }
    }

    fn class(&mut self, class: Class) -> ClassIx {
        match self.classes.iter().position(|c| *c == class) {
            Some(at) => at as ClassIx,
            None => {
                self.classes.push(class);
                (self.classes.len() - 1) as ClassIx
            }
        }
    }

    // === rules ===

    fn rule(&mut self, entry: &Spanned<ElementRule>, as_of: Option<Day>, names: bool) {
        let at: At = entry.referenced.into();
        let texts = texts(&entry.value.path);
        let paths: Vec<Vec<Step>> = texts.iter().filter_map(|text| self.path(text, at)).collect();
        let Some(first) = paths.first() else {
            if texts.is_empty() {
                self.mistakes.push(wrong(at, "path: an empty list", "name at least one path"));
            }
            return;
        };
        let class = default_class(first);
        let only = self.only(entry.value.only.as_ref(), at);
        let written = &entry.value.action;
        let (written, at) = (&written.value, At::from(written.referenced));
        let (written, unit) = self.times(written, at);
        let around = Around { class: &class, bare: true, as_of };
        let meant = actions::read(&written, at, &around, &mut self.mistakes);
        let back = match meant {
            Meant::Token { .. } => Back::Token,
            Meant::Shift { .. } => Back::Shift,
            _ => Back::No,
        };
        let removes = meant == Meant::Remove;
        if let Err((what, advice)) = fits(&meant, &only, unit, names) {
            self.mistakes.push(wrong(at, what, advice));
        }
        let action = match meant {
            Meant::Keep => Action::Keep,
            Meant::Remove => Action::Remove,
            Meant::Token { class, pad } => Action::Token { class: self.class(class), pad },
            Meant::Shift { days, weekday } => Action::Shift { days, weekday },
            Meant::Method(method) => {
                let kind = method.number() as u8;
                self.methods.push(method);
                Action::Other { method: (self.methods.len() - 1) as u16, kind }
            }
        };
        if self.rules.len() >= NO_RULE as usize {
            return self.mistakes.push(wrong(
                at,
                "more than 65535 rules",
                "join those of one action in a list of paths",
            ));
        }
        let mut name = texts.join(", ");
        match (&only, &entry.value.only) {
            (_, Some(Written::Kind(kind))) => name.push_str(&format!(" (only {kind})")),
            (Only::Listed(listed), _) => name.push_str(&format!(" (only {} listed texts)", listed.len())),
            _ => {}
        }
        if names {
            name.insert_str(0, "names of ");
        }
        let rule = self.rules.len() as RuleIx;
        let at = At::from(entry.referenced);
        let origin = if names { Origin::Keys } else { Origin::Element };
        self.rules.push(Rule { origin, line: at.line, column: at.column, name, action, why: entry.value.why.clone() });
        self.units.push(unit);
        self.read.push(lint::Read { paths: paths.clone(), only: only.clone(), names });
        for steps in paths {
            let only = only.clone();
            // A removal that is only about some values says nothing about what is beneath.
            let removes = removes && only == Only::Kind(Kind::Any);
            let effect = match names {
                true => Effect::Names { rule, only, back },
                false => Effect::Value { rule, only, removes, back },
            };
            if !names && removes && steps.is_empty() {
                self.mistakes.push(wrong(at, "`$` is the whole message", "remove its members, or do not send it"));
            }
            self.patterns.push(Pattern { steps, effect });
        }
    }

    fn only(&mut self, written: Option<&Written>, at: At) -> Only {
        match written {
            None => Only::Kind(Kind::Any),
            Some(Written::Listed(texts)) => Only::Listed(texts.clone()),
            Some(Written::Kind(name)) => match Kind::NAMED.iter().find(|(known, _)| known == name) {
                Some(&(_, kind)) => Only::Kind(kind),
                None => {
                    let names: Vec<&str> = Kind::NAMED.iter().map(|(name, _)| *name).collect();
                    let what = format!("only: `{name}` is not known here{}", actions::like(name, &names));
                    self.mistakes.push(wrong(at, what, format!("one of: {}, or a list of texts", names.join(", "))));
                    Only::Kind(Kind::Any)
                }
            },
        }
    }

    /// Takes `unit` and `subject`, which only `format: json` has, from a shift.
    fn times(&mut self, written: &ActionWritten, at: At) -> (ActionWritten, Option<Unit>) {
        let ActionWritten::Call(call) = written else { return (written.clone(), None) };
        let mut call = call.clone();
        let Some(Some(parameters)) = call.get_mut("shift") else { return (written.clone(), None) };
        if let Some(subject) = parameters.remove("subject") {
            let subject = subject.to_string();
            if !self.subjects.contains(&subject) {
                self.subjects.push(subject);
            }
        }
        let unit = parameters.remove("unit").map(|unit| unit.to_string());
        let known = unit.as_deref().and_then(Unit::named);
        if known.is_none() {
            self.mistakes.push(wrong(at, "shift: `unit` is missing or not known", "one of: s, ms, us, ns, iso"));
        }
        (ActionWritten::Call(call), known)
    }

    fn window(&self) -> Option<(u16, bool)> {
        self.rules.iter().find_map(|r| match r.action {
            Action::Shift { days, weekday } => Some((days, weekday)),
            _ => None,
        })
    }

    fn no_subject(&mut self, file: &PlainFile) -> NoSubject {
        let window = self.window();
        let differs = |r: &Rule| matches!(r.action, Action::Shift { days, weekday } if Some((days, weekday)) != window);
        if self.rules.iter().any(differs) {
            self.mistakes.push(wrong(
                At::default(),
                "shift: rules differ in `days` or `weekday`",
                "one subject has one offset: write the same in every shift of a pack",
            ));
        }
        match &file.no_subject {
            Some(written) => {
                let words = [("remove", NoSubject::Remove), ("refuse", NoSubject::Refuse)];
                self.word("no_subject", written, &words).unwrap_or(NoSubject::Refuse)
            }
            None if window.is_some() => {
                let what = "no_subject: is missing, and times are shifted";
                self.mistakes.push(wrong(At::default(), what, "one of: remove, refuse"));
                NoSubject::Refuse
            }
            None => NoSubject::Refuse,
        }
    }

    fn subject(&mut self, written: Option<&Spanned<Paths>>) {
        if let Some(written) = written {
            self.subjects = texts(&written.value);
        }
    }

    fn paths_of_subjects(&mut self, file: &PlainFile) {
        let at = file.subject.as_ref().map_or(At::default(), |s| s.referenced.into());
        for text in std::mem::take(&mut self.subjects) {
            if let Some(steps) = self.path(&text, at) {
                self.patterns.push(Pattern { steps, effect: Effect::Subject });
            }
        }
    }

    fn urls(&mut self, written: &[Spanned<String>]) -> Vec<url::Pattern> {
        let mut urls = Vec::new();
        for entry in written {
            let at: At = entry.referenced.into();
            let read = url::parse(&entry.value, |name| Class::new(name).ok().map(|class| self.class(class)));
            match read {
                Some(pattern) => urls.push(pattern),
                None => self.mistakes.push(wrong(
                    at,
                    format!("urls: `{}` has the wrong form", entry.value),
                    "write /v1/users/{user}/points: literal segments and classes in braces, no query",
                )),
            }
        }
        urls
    }

    /// Rules that never decide anything.
    fn idle(&mut self, automaton: &automaton::Automaton) {
        for (rule, idle) in self.rules.iter().enumerate() {
            if !automaton.leaves.iter().any(|leaf| leaf.heeds(rule as RuleIx)) {
                self.mistakes.push(wrong(
                    At { line: idle.line, column: idle.column },
                    format!("`{}` never decides anything", idle.name),
                    "an earlier rule decides all its values: put this one before it, or leave it out",
                ));
            }
        }
    }
}

fn texts(paths: &Paths) -> Vec<String> {
    match paths {
        Paths::One(text) => vec![text.clone()],
        Paths::Several(texts) => texts.clone(),
    }
}

/// The class that a path gives where its rule names none: `$.device.serialNumber` → `device.serial_number`.
fn default_class(steps: &[Step]) -> String {
    let names = steps.iter().filter_map(|step| match step {
        Step::Name(name) | Step::DeepName(name) => Some(name.as_str()),
        Step::Any | Step::Each | Step::DeepAny | Step::DeepEach => None,
    });
    snake(&names.collect::<Vec<_>>().join("."))
}

/// Whether an action makes sense for such values; else what is wrong and what to do.
fn fits(meant: &Meant, only: &Only, unit: Option<Unit>, names: bool) -> Result<(), (&'static str, &'static str)> {
    let number = matches!(only, Only::Kind(Kind::Number | Kind::Integer | Kind::Boolean));
    match meant {
        Meant::Token { .. } if number => Err((
            "token: a token is text and cannot stand where a number is expected",
            "use fpe, generalize or perturb",
        )),
        Meant::Shift { .. } if unit == Some(Unit::Iso) && number => {
            Err(("shift: `unit: iso` is text", "numbers since 1970 have s, ms, us or ns"))
        }
        Meant::Method(Method::Substitute(with)) if number && !is_scalar(with) => {
            Err(("substitute: `with` is text where a number or boolean is expected", "write a number, true or false"))
        }
        Meant::Method(Method::Mask(_) | Method::Hash { .. }) if number => {
            Err(("its result is text and cannot stand where a number is expected", "use fpe, generalize or perturb"))
        }
        _ if names && number => Err(("keys: names of members are texts", "leave `only` out, or name a kind of text")),
        _ => Ok(()),
    }
}

/// Whether a text is a JSON number or boolean.
pub fn is_scalar(text: &str) -> bool {
    matches!(text, "true" | "false") || Number::parse(text).is_some()
}
