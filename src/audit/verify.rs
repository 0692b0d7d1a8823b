//! Reading a chain back: where it first breaks, and how.
//!
//! A missing tail breaks nothing: a chain that was cut after any line is a shorter chain. Whoever must know compares the returned
//! [`Chain::lines`] and [`Chain::head`] with a checkpoint. No line's content is repeated in what this page says.

use super::chain::{Chain, Link};

/// The first place where a file is not the chain that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct Break {
    /// Line in the file, from 1.
    pub line: u64,
    /// What is wrong there.
    pub fault: Fault,
}

/// How a chain is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The line's own hash is not that of its content.
    #[error("this line was changed after it was written")]
    Changed,
    /// The line has no end.
    #[error("this line is incomplete: it was torn by a crash while it was written, or cut")]
    Cut,
    /// The line is whole, but linked to another predecessor than the one that stands there.
    #[error("the line before this one was replaced")]
    Replaced,
    /// Records between the line before and this one are nowhere in the file.
    #[error("{count} lines before this one, from record {from}, were removed")]
    Removed {
        /// Number of the first missing record.
        from: u64,
        /// How many are missing.
        count: u64,
    },
    /// The record that belongs here stands elsewhere, or one stands here again.
    #[error("the lines from here on are out of order or repeated")]
    Reordered,
}

/// Checks lines (without or with their newline) that go on after `chain`: [`Chain::start`], or the end of an earlier file.
/// Returns where the chain then stands.
pub fn verify<'l>(mut chain: Chain, lines: impl IntoIterator<Item = &'l [u8]>) -> Result<Chain, Break> {
    let mut lines = lines.into_iter().zip(1..);
    while let Some((bytes, line)) = lines.next() {
        let at = |fault| Break { line, fault };
        let link = read(bytes).map_err(at)?;
        if !link.follows(&chain) {
            return Err(at(fault(&link, &chain, lines.map(|(bytes, _)| bytes))));
        }
        chain = link.onward();
    }
    Ok(chain)
}

/// Why a whole line does not follow. What is missing here and found further on was moved, not removed.
fn fault<'l>(link: &Link<'_>, chain: &Chain, mut rest: impl Iterator<Item = &'l [u8]>) -> Fault {
    let expected = chain.lines();
    if link.seq == expected {
        return Fault::Replaced;
    }
    if link.seq < expected || rest.any(|line| read(line).is_ok_and(|other| other.seq == expected)) {
        return Fault::Reordered;
    }
    Fault::Removed { from: expected, count: link.seq - expected }
}

fn read(line: &[u8]) -> Result<Link<'_>, Fault> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let whole = line.ends_with(b"\"}");
    let text = std::str::from_utf8(line).ok();
    text.and_then(Link::read).ok_or(if whole { Fault::Changed } else { Fault::Cut })
}
