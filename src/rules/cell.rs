//! What the scanner must know of a member's value, in eight bytes: it stands in one row with its neighbours, so that reading a member
//! costs one load. Worked out once, when rules are loaded; nothing here decides anything that `compile` did not.

use super::automaton::{Form, Leaf, Member, StateId};
use super::compile::{Action, Role};
use crate::fhir::Primitive;

/// The flags of a state stand in the low bits, as they are (`WATCH_OUT` ... `CHECKED_LATE`), but for `SUBJECT`: `FACT` says it here, and its bit
/// means [`SURE`]. These are the cell's own.
pub const MANY: u16 = 1 << 15;
/// A leaf that is kept: going out it stays, coming back nothing is done to it.
pub const KEPT: u16 = 1 << 8;
/// A leaf that is removed: going out it goes, coming back nothing is done to it.
pub const GONE: u16 = 1 << 9;
/// A leaf that must be known before the first date of its resource: its id, its subject.
pub const FACT: u16 = 1 << 10;
/// A member that is nothing by itself (ele-1, ext-1 of the specification).
pub const FRAME: u16 = 1 << 11;
/// A member that must be there.
pub const REQUIRED: u16 = 1 << 12;
/// An element of the array may be `null`: a primitive, or the twin of one.
pub const NULLABLE: u16 = 1 << 13;
/// A leaf of which it is known before its value is read whether it stays or goes going out, and that may go if it does: kept, removed, a token, a moved date.
pub const SURE: u16 = super::automaton::SUBJECT as u16;
/// A `Coding.system`: the one of seals marks a fact, too.
pub const SYSTEM: u16 = 1 << 14;

/// What stands at the end of an edge.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// The state.
    pub state: StateId,
    /// Flags of the state and of the cell.
    pub flags: u16,
    /// The JSON form of the value (of each element, where it is an array).
    pub form: Form,
    /// The form of its type, where a kept value must have it.
    pub check: Check,
}

const _: () = assert!(size_of::<Cell>() == 8);

impl Default for Cell {
    fn default() -> Self {
        Cell { state: 0, flags: 0, form: Form::Object, check: Check::Nothing }
    }
}

impl Cell {
    pub(super) fn new(
        state: StateId,
        flags: u8,
        leaf: Option<&Leaf>,
        member: &Member,
        frame: bool,
        twin: bool,
        dates_stay: bool,
    ) -> Cell {
        let mut all = u16::from(flags) & !SURE;
        let mut set = |flag, holds| all |= if holds { flag } else { 0 };
        set(MANY, member.many);
        set(KEPT, leaf.is_some_and(|l| l.action == Action::Keep));
        set(GONE, leaf.is_some_and(|l| l.action == Action::Remove));
        let sure = |l: &Leaf| match l.action {
            Action::Keep => flags & super::automaton::CHECKED_LATE == 0,
            Action::Remove => !member.required,
            Action::Token { .. } => true,
            Action::Shift { .. } => dates_stay,
            Action::Other { .. } => false,
        };
        set(SURE, leaf.is_some_and(sure));
        let subject = flags & super::automaton::SUBJECT != 0;
        set(FACT, leaf.is_some_and(|l| l.role == Role::ResourceId || subject && l.role == Role::Reference));
        set(SYSTEM, leaf.is_some_and(|l| l.role == Role::CodingSystem));
        set(FRAME, frame);
        set(REQUIRED, member.required);
        set(NULLABLE, member.form != Form::Object || twin);
        Cell { state, flags: all, form: member.form, check: leaf.map_or(Check::Nothing, |l| l.check) }
    }

    /// The cell of an array's elements.
    #[inline]
    pub fn one(self) -> Cell {
        Cell { flags: self.flags & !MANY, ..self }
    }

    /// Whether an array of such values is meant.
    #[inline]
    pub fn many(self) -> bool {
        self.flags & MANY != 0
    }
}

/// The form that a kept value must have (datatypes.html, regular expressions of the primitives).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Whatever the type says, nothing is asked of its text.
    Nothing,
    /// `code`.
    Code,
    /// `Coding.code`, where codes of systems cross that the pack lists by itself: some have several words.
    CodingCode,
    /// `Coding.code` of published terminologies: no words in it but small ones, and pairs of codes (ICD-10-GM: `A54.4† M73.04*`).
    PublishedCode,
    /// `id`.
    Id,
    /// `uri`, `url`, `oid`, `uuid`.
    Uri,
    /// `Coding.system`: a URI with its scheme.
    CodingSystem,
    /// `canonical`.
    Canonical,
    /// A date of this type.
    Date(Primitive),
    /// `time`.
    Time,
    /// `integer`, `integer64`.
    Integer,
    /// `unsignedInt`, `positiveInt`.
    Unsigned,
    /// A string that is one word: an entity tag, a link relation, a parameter's name.
    Word,
    /// `SampledData.data`: decimals and the letters E, U, L.
    Samples,
    /// An HTTP status with its reason phrase.
    Status,
    /// `Reference.type`: a resource type, or a URI with its scheme.
    TypeName,
}

impl Check {
    /// What is asked of this element of this type where it is kept.
    pub fn of(owner: &str, element: &str, primitive: Primitive) -> Check {
        match (owner, element) {
            ("Coding", "code") => return Check::CodingCode,
            ("Coding", "system") => return Check::CodingSystem,
            ("Coding", "version") => return Check::Word,
            ("Reference", "type") => return Check::TypeName,
            ("SampledData", "data" | "offsets") => return Check::Samples,
            ("Bundle.entry.response", "status") => return Check::Status,
            ("Bundle.entry.response", "etag")
            | ("Bundle.entry.request", "ifMatch" | "ifNoneMatch")
            | ("Bundle.link", "relation")
            | ("Parameters.parameter", "name") => return Check::Word,
            _ => {}
        }
        match primitive {
            Primitive::Code => Check::Code,
            Primitive::Id => Check::Id,
            Primitive::Uri | Primitive::Url | Primitive::Oid | Primitive::Uuid => Check::Uri,
            Primitive::Canonical => Check::Canonical,
            Primitive::Date | Primitive::DateTime | Primitive::Instant => Check::Date(primitive),
            Primitive::Time => Check::Time,
            Primitive::Integer | Primitive::Integer64 => Check::Integer,
            Primitive::UnsignedInt | Primitive::PositiveInt => Check::Unsigned,
            _ => Check::Nothing,
        }
    }
}

/// What the decider must know of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// A resource.
    Resource,
    /// The twin `_x` of a primitive.
    Twin,
    /// `Coding`: may be a seal.
    Coding,
    /// `Bundle.entry`: its fullUrl names the resource in it.
    Entry,
    /// `Bundle.entry.request`: its method says what its url may be.
    Request,
}

impl Kind {
    pub(super) fn of(name: &str, members: &[Member]) -> Kind {
        match name {
            "Element" => Kind::Twin,
            "Coding" => Kind::Coding,
            "Bundle.entry" => Kind::Entry,
            "Bundle.entry.request" => Kind::Request,
            _ if members.last().is_some_and(|m| m.form == Form::ResourceType) => Kind::Resource,
            _ => Kind::Plain,
        }
    }
}

/// A member's name as it stands in compact JSON behind the opening quote: `name":`. Compared with 32 bytes of input at once.
#[derive(Debug, Clone, Copy)]
pub struct Spelled {
    /// The name, the closing quote and the colon; zeros behind.
    pub bytes: [u8; 32],
    /// One bit for each of those bytes; none where the name is too long for this.
    pub wanted: u32,
    /// Their number.
    pub length: u8,
}

impl Spelled {
    pub(super) fn new(name: &str) -> Spelled {
        let mut bytes = [0; 32];
        let length = name.len() + 2;
        if length > bytes.len() {
            return Spelled { bytes, wanted: 0, length: 0 };
        }
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        bytes[name.len()..length].copy_from_slice(b"\":");
        Spelled { bytes, wanted: u32::MAX >> (32 - length), length: length as u8 }
    }
}
