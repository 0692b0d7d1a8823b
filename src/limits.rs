//! Every bound of the core, in one place: unit in the name, reason beside it, relations asserted at compile time.
//!
//! A bound is a promise about memory or time (design §1.6). None is a tuning knob: a message over one is refused with
//! a code and advice, never truncated and never passed on.

/// Longest single resource held before it is refused, in bytes.
/// The largest honest ones seen are DocumentReference and Binary with embedded scans; 16 MiB takes a 12 MB PDF.
/// Four times this (input, edits, output, one growing buffer) is what one exchange may hold at worst.
pub const RESOURCE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Deepest nesting of JSON objects and arrays. FHIR's own examples reach 21; Questionnaires of the field reach 60.
pub const DEPTH_MAX: usize = 128;

/// Deepest nesting of resources in resources (Bundle in Bundle, contained, Parameters). Each level with a late
/// `resourceType` is searched once more, so this bounds the extra work to a small constant factor.
pub const RESOURCE_DEPTH_MAX: usize = 8;

/// Longest member name, in bytes. The longest of any FHIR release has 38.
pub const NAME_BYTES_MAX: usize = 1024;

/// Most members of one object. Bounds the duplicate-name check, which is linear in the names of one object.
pub const MEMBERS_MAX: usize = 4096;

/// Longest request target (path and query), in bytes; the same bound applies to each URL inside a body.
pub const URL_BYTES_MAX: usize = 16 * 1024;

/// Most values one search parameter may list (`_id=1,2,3`), and most parameters of one search.
pub const SEARCH_VALUES_MAX: usize = 1024;

/// Most (class, epoch) pairs over which one bare `identifier=value` is expanded (design §5).
pub const SEARCH_EXPANSION_MAX: usize = 16;

/// Longest FHIR id, in characters (R4 datatypes, `id`).
pub const ID_CHARS_MAX: usize = 64;

/// Longest foreign id that fits an escape, in characters: 64 less prefix 2, domain tag 2, MAC 8.
pub const FOREIGN_ID_CHARS_MAX: usize = 52;

/// Longest trusted id that fits a token whatever it is made of, in characters (design §4, arithmetic).
pub const TOKEN_ID_CHARS_MAX: usize = 36;

/// Longest plaintext of one token, in bytes: what the four extra length symbols can say (24 bits).
pub const TOKEN_PLAIN_BYTES_MAX: usize = (1 << 24) - 1;

/// Longest shift, in days either way. Ten years: more would move children across age groups that analysts rely on.
pub const SHIFT_DAYS_MAX: u16 = 3650;

const _: () = assert!(FOREIGN_ID_CHARS_MAX + 2 + 2 + 8 == ID_CHARS_MAX);
const _: () = assert!(RESOURCE_BYTES_MAX <= TOKEN_PLAIN_BYTES_MAX + 1, "a leaf of a held resource always fits a token");
const _: () = assert!(RESOURCE_DEPTH_MAX < DEPTH_MAX);
