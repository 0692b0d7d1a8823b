//! What the FHIR specification says, as data and grammar: element tables, search parameters, whom a resource is about,
//! references and URLs, search syntax, dates.
//!
//! Nothing here holds a key or decides what happens to a value; nothing reads a file, socket or clock. Whatever the
//! specification does not define is `None` or a typed error, and no error carries a piece of the text it is about.
//! The tables are checked in under `tables/` and written by `tools/tables.py`.

pub mod about;
pub mod date;
pub mod query;
pub mod reference;
pub mod schema;
pub mod search;
pub mod words;

pub use schema::{Category, Element, JsonKind, Kind, Primitive, Release, Schema, TypeDef, TypeId, definitional};
