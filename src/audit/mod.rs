//! Stub: the room that other hands are writing.
use crate::names::{Caller, Class, Purpose};
use std::collections::{BTreeMap, BTreeSet};
/// One revealing batch.
pub struct Record<'a> {
    /// RFC 3339.
    pub time: String,
    /// Who.
    pub caller: &'a Caller,
    /// Why.
    pub purpose: Option<&'a Purpose>,
    /// Where.
    pub route: &'a str,
    /// What, by class.
    pub reveals: &'a BTreeMap<Class, u64>,
    /// Whose, as keyed handles.
    pub subjects: &'a BTreeSet<String>,
}
/// The chain of lines.
#[derive(Clone)]
pub struct Chain;
impl Chain {
    /// Goes on after the last line of a file.
    pub fn resume(_last: Option<&str>) -> Result<Chain, String> {
        Ok(Chain)
    }
    /// The next line, with its newline.
    pub fn line(&mut self, record: &Record<'_>) -> String {
        let reveals: BTreeMap<_, _> = record.reveals.iter().map(|(c, n)| (c.as_str(), n)).collect();
        format!(
            "{{\"time\":\"{}\",\"caller\":\"{}\",\"route\":\"{}\",\"reveals\":{:?}}}\n",
            record.time, record.caller, record.route, reveals
        )
    }
}
