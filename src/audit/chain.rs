//! The chain: each line carries the hash of the line before it and ends with its own.
//!
//! ```text
//! {"seq":N,"prev":"hash of line N-1", ...the record... ,"hash":"SHA-256 of this line up to here"}
//! ```
//!
//! `prev` of line 0 is 64 zeros. `hash` covers every byte before `,"hash"`, so nothing in a line stands outside the chain.
//! A chain is a value: keep a copy, and take it back where a line could not be made durable.

use super::record::Record;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

const HASH_BEFORE: &str = r#","hash":""#;
const HASH_AFTER: &str = r#""}"#;
const HASH_CHARS: usize = 64;

/// Where a chain of lines stands: what the next line is linked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    next: u64,
    head: String,
}

/// Why a file cannot be gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// No audit line, or a torn one.
    #[error(
        "the last line of the audit file is incomplete or was changed: check the file with `cryptonym audit verify`; \
         a line torn by a crash released nothing and may be removed"
    )]
    LastLine,
}

impl Chain {
    /// A new file: before line 0.
    pub fn start() -> Chain {
        Chain { next: 0, head: "0".repeat(HASH_CHARS) }
    }

    /// Goes on after the last line of a file, `None` for an empty one. Only that line is checked here; see
    /// [`verify`](super::verify) for all of them.
    pub fn resume(last: Option<&str>) -> Result<Chain, ResumeError> {
        let Some(last) = last else { return Ok(Chain::start()) };
        let link = Link::read(last.trim_end_matches(['\r', '\n'])).ok_or(ResumeError::LastLine)?;
        Ok(link.onward())
    }

    /// The next line, with its newline.
    pub fn line(&mut self, record: &Record<'_>) -> String {
        let mut line = format!(r#"{{"seq":{},"prev":"{}""#, self.next, self.head);
        record.write_members(&mut line);
        let hash = hash(&line);
        line.extend([HASH_BEFORE, &hash, HASH_AFTER, "\n"]);
        *self = Chain { next: self.next + 1, head: hash };
        line
    }

    /// How many lines the chain has.
    pub fn lines(&self) -> u64 {
        self.next
    }

    /// Hash of the last line, hexadecimal: what a checkpoint keeps, together with `lines`.
    pub fn head(&self) -> &str {
        &self.head
    }
}

/// What a line says about its place.
#[derive(Debug)]
pub(super) struct Link<'l> {
    pub(super) seq: u64,
    pub(super) prev: &'l str,
    hash: &'l str,
}

impl<'l> Link<'l> {
    /// Reads a line (without its newline) whose own hash is right.
    pub(super) fn read(line: &'l str) -> Option<Link<'l>> {
        let (hashed, hash) = line.strip_suffix(HASH_AFTER)?.rsplit_once(HASH_BEFORE)?;
        let (seq, rest) = hashed.strip_prefix(r#"{"seq":"#)?.split_once(r#","prev":""#)?;
        let (prev, _) = rest.split_once(r#"","#)?;
        let right = hash.len() == HASH_CHARS && self::hash(hashed) == hash;
        right.then_some(Link { seq: seq.parse().ok()?, prev, hash })
    }

    /// Whether this is the line that comes next.
    pub(super) fn follows(&self, chain: &Chain) -> bool {
        self.seq == chain.next && self.prev == chain.head
    }

    /// The chain after this line. The numbers end where 2^64 lines were written.
    pub(super) fn onward(&self) -> Chain {
        Chain { next: self.seq.saturating_add(1), head: self.hash.to_owned() }
    }
}

fn hash(line: &str) -> String {
    let mut hex = String::with_capacity(HASH_CHARS);
    for byte in Sha256::digest(line.as_bytes()) {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
    }
    hex
}
