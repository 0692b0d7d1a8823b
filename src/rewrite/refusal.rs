//! Refusals: an honest no that names whose fault it is, where, and what to do; never a value.
//!
//! Every way in which a message can fail to cross has one [`Code`]. Its words for people are here and nowhere else; the
//! command line prints them (contract §3) and the proxy answers them as an OperationOutcome.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $what:literal, $advice:literal;)*) => {
        /// Why a message was refused. Stable: other programs rely on the text.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code, for documentation and completeness tests.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The stable text, as in `refused[bad-json]`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// What happened.
            pub fn what(self) -> &'static str {
                match self { $(Code::$name => $what,)* }
            }

            /// What to do.
            pub fn advice(self) -> &'static str {
                match self { $(Code::$name => $advice,)* }
            }

            /// The HTTP status of a request that is refused so.
            pub fn http_status(self) -> u16 {
                match self { $(Code::$name => $status,)* }
            }
        }
    };
}

codes! {
    /// Not JSON by RFC 8259.
    BadJson = "bad-json", 400, "the text is not JSON (RFC 8259)", "send well-formed JSON";
    /// Ends in the middle.
    Truncated = "truncated", 400, "the input ends in the middle", "send the whole message";
    /// Something after the end.
    Trailing = "trailing", 400, "there is text after the end of the message", "send one message; NDJSON needs its own format";
    /// Not UTF-8.
    BadUtf8 = "bad-utf8", 400, "the text is not UTF-8", "send UTF-8 without a byte order mark";
    /// A compressed input that is damaged or ends early.
    BadEncoding = "bad-encoding", 400, "the compressed input is damaged or ends in the middle", "send it whole; zstd with a window of at most 8 MiB";
    /// A compressed input that expands too far.
    ExpandsTooFar = "expands-too-far", 413, "the compressed input expands to more than 200 times its size", "send it uncompressed if it is honest";
    /// A surrogate half on its own.
    BadText = "bad-text", 400, "a string holds half of a surrogate pair", "send whole characters";
    /// One name twice in an object.
    DuplicateKey = "duplicate-key", 400, "a member name occurs twice in one object", "send each member once";
    /// A name that differs from a known one only in case.
    KeyCase = "key-case", 400, "a member name differs from a defined one only in upper and lower case", "spell names as FHIR does";
    /// Nested too deep.
    TooDeep = "too-deep", 400, "objects or arrays are nested too deep", "flatten the message; the limit is in docs/errors.md";
    /// Resources in resources too deep.
    TooDeepResources = "too-deep-resources", 400, "resources are nested in resources too deep", "send nested Bundles on their own";
    /// Too many members.
    TooManyMembers = "too-many-members", 400, "an object has too many members", "split the message";
    /// One resource over the bound.
    ResourceTooLarge = "resource-too-large", 413, "one resource is larger than the limit", "split it, or send large attachments as Binary by reference; put resourceType first in a Bundle";
    /// No resourceType.
    NoResourceType = "no-resource-type", 400, "an object that must be a resource has no resourceType", "send FHIR resources";
    /// Resource type not of the release.
    UnknownType = "unknown-type", 422, "the resource type is not defined in this release", "check the release of the rule file";
    /// Element not of the release.
    UnknownElement = "unknown-element", 422, "an element is not defined in this release", "remove it, send it as an extension, or set `unknown: remove`";
    /// JSON form does not fit the type.
    WrongForm = "wrong-form", 422, "a value has not the JSON form that its FHIR type requires", "send strings, numbers, arrays and objects as the release defines them";
    /// A kept value that is not of its type.
    BadValue = "bad-value", 422, "a value that would cross as it is has not the form of its FHIR type", "send codes without spaces, absolute URIs, dates and numbers as FHIR defines them";
    /// Empty object or array.
    Empty = "empty", 422, "an object or array is empty, which FHIR forbids", "leave the element out";
    /// modifierExtension without a rule.
    ModifierExtension = "modifier-extension", 422, "a modifierExtension that no rule names changes the meaning of the resource", "name it in the rule file, or send the resource without it";
    /// Date not of FHIR's form.
    BadDate = "bad-date", 422, "a date that must be shifted or generalized is not a FHIR date", "send YYYY, YYYY-MM, YYYY-MM-DD or a dateTime with zone";
    /// Not a number that an action can work on.
    BadNumber = "bad-number", 422, "a value that must be generalized, perturbed or encrypted is not a number of at most 36 digits", "send a number, or remove the element by a rule";
    /// Too few possible values for FF1.
    FpeDomain = "fpe-domain", 422, "a value has too few or too many symbols for format-preserving encryption (under 10^6 values, or over 1024 symbols)", "use token, hash or remove for this element, or a larger alphabet";
    /// Symbols outside the alphabet of FF1.
    FpeAlphabet = "fpe-alphabet", 422, "a value holds letters or digits outside the alphabet of its rule, which would cross in clear", "name an alphabet that holds them all, or use token, hash or remove";
    /// A hash of one document without its key.
    NoDocumentKey = "no-document-key", 500, "a rule hashes within one document, run or exchange, and no key was made for it", "this is a fault of the program: report it";
    /// The shifted date leaves the calendar.
    ShiftRange = "shift-range", 422, "a shifted date would leave years 0001 to 9999 or become a sentinel date", "correct the date, or use a smaller `days`";
    /// Dates without exactly one subject.
    NoSubject = "no-subject", 422, "dates need a resource with exactly one subject", "name the patient, or choose another `no_subject` in the rule file";
    /// Reference of unknown shape.
    BadReference = "bad-reference", 422, "a reference or URL has a shape that cannot be examined", "use Type/id, urn:uuid, an absolute URL, #id or Type?identifier=system|value";
    /// An id FHIR does not allow.
    BadId = "bad-id", 422, "an id is not a FHIR id", "1 to 64 characters of A-Z a-z 0-9 - .";
    /// An id that does not fit a token.
    IdTooLong = "id-too-long", 422, "an id is too long to become a token of 64 characters", "ids up to 36 characters always fit; shorten it or see `overflow`";
    /// A foreign id that does not fit an escape.
    ForeignIdTooLong = "foreign-id-too-long", 502, "the other side minted an id too long to be shown", "have it mint ids of at most 52 characters";
    /// Looks like a token of ours but does not verify.
    LookAlike = "look-alike", 422, "a value looks like a token of this proxy but is not one of this domain and class", "send the original value, or a token from this domain at its own place";
    /// A token in a request from outside that stays one.
    Unresolved = "unresolved-token", 403, "the request holds a token, or a seal, that is not resolved for this caller at this place", "send tokens as they were given, at their own places; the operator grants callers the classes they may use";
    /// A body that already bears a seal.
    Sealed = "sealed", 422, "the resource bears a seal: its dates are shifted already", "read it as a caller who may unshift, or leave the resource unchanged";
    /// A search that pseudonyms cannot answer.
    SearchUnanswerable = "search-unanswerable", 422, "a search parameter asks for something that pseudonyms cannot answer", "search by _id, identifier, reference, or a code with its system (system|code)";
    /// A search parameter nobody knows.
    SearchUnknown = "search-unknown", 400, "a search parameter is not defined in this release, or its form cannot be examined", "check its spelling; see docs/errors.md";
    /// A URL of unknown shape.
    BadUrl = "bad-url", 400, "the URL has no shape of FHIR's REST interface that can be examined", "use [type]/[id], [type]?search, [type]/_search, or the base";
    /// An operation that is not on the list.
    OperationRefused = "operation-refused", 403, "this operation is not allowed through the proxy", "use read, search, create, update, delete, batch or transaction";
    /// An update through rules that lose data.
    LossyUpdate = "lossy-update", 403, "an update through rules that lose data would overwrite the other side's record with a poorer copy", "create instead, or let the route say `lossy_update: allow` where the other side is a mirror";
    /// A value that no rule names (`format: json`).
    Unmatched = "unmatched", 422, "no rule of the pack names this value, or none a value of its kind", "name it under `elements`, or set `unknown: remove`";
    /// A member name that no rule names (`format: json`).
    MemberName = "member-name", 422, "no rule of the pack names this member, and a name can be data", "spell it in a path, or say under `keys` what happens to names here";
    /// A rule on a value of a JSON form that it cannot work on.
    RuleForm = "rule-form", 422, "the rule of this place cannot work on a value of this JSON form: tokens, hashes and masks are text", "use fpe, generalize or perturb for numbers, or tell forms apart by `only`";
    /// Not a time of the rule's unit.
    BadTime = "bad-time", 422, "a time that must be moved or cut is not written in the unit of its rule", "send ISO 8601 or a number since 1970 without exponent, as `unit` says";
    /// A message that cannot carry its seal.
    NoPlaceForSeal = "no-place-for-seal", 422, "times are shifted in a message that is no object, so there is no place for their seal", "send an object, or leave `seal` out: then no time comes back";
    /// A request path that the pack does not name.
    UrlUnnamed = "url-unnamed", 403, "the request path or query is not among those that the pack lets cross", "name the path under `urls`; queries never cross";
    /// Bundle entry that is a request of unknown kind.
    BadRequestEntry = "bad-request-entry", 422, "a Bundle entry's request cannot be examined", "send method and url as FHIR defines them";
}

/// A refused message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: Code,
    /// Element path of schema names and indexes; what no schema knows is `?`.
    pub path: String,
    /// Offset in the input, in bytes from 0.
    pub byte: u64,
}

impl Refusal {
    /// A refusal of something without a place in a body: a URL, a header.
    pub fn of(code: Code, place: &'static str) -> Self {
        Refusal { code, path: place.to_owned(), byte: 0 }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { code, path, byte } = self;
        let path = if path.is_empty() { "?" } else { path };
        write!(f, "refused[{}] at {path}, byte {byte}: {}; help: {}", code.as_str(), code.what(), code.advice())
    }
}

impl std::error::Error for Refusal {}
