//! NDJSON on all cores: pieces of whole lines go to workers, and come back in their order.

use super::ordered::{Budget, ordered};
use super::{BatchError, CHUNK_BYTES, Job, Refused, Release, unread};
use crate::limits;
use crate::rewrite::{Code, Refusal, Report, Rewriter};
use std::io::{self, BufRead};

/// Bytes of a piece: some dozens of records, so that handing over costs nothing beside the rewriting.
const PIECE_BYTES: usize = 128 * 1024;
/// Bytes of pieces between reading and writing, however many cores there are. With outputs and the buffers of the rewriters
/// this keeps a run below 64 MiB as long as no single line is larger than a few MiB.
const IN_FLIGHT_BYTES: usize = 4 * 1024 * 1024;

/// Whole lines, or the word that one was too long to be held.
struct Piece {
    lines: Vec<u8>,
    /// Number of the first line, from 1.
    first: u64,
    too_long: bool,
    charged: usize,
}

/// What became of a piece.
struct Rewritten {
    written: Vec<u8>,
    report: Report,
    done: u64,
    refused: Vec<(u64, Refusal)>,
    charged: usize,
}

/// Gives the budget free when the sink is gone, so that the source never waits for nobody.
struct Closing<'b>(&'b Budget);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Job {
    /// Rewrites line by line; whether the input was read to its end.
    pub(super) fn lines(
        &self,
        input: &mut dyn BufRead,
        release: &mut Release<'_>,
        refused: Refused<'_>,
    ) -> Result<bool, BatchError> {
        let budget = Budget::new(IN_FLIGHT_BYTES);
        let mut pieces = Pieces::new(input);
        let mut unreadable = None;
        let mut failed = None;
        let mut stopped = false;
        let closing = Closing(&budget);
        let source = || match pieces.next() {
            Ok(piece) => piece.map(|piece| Piece { charged: budget.take(piece.lines.len()), ..piece }),
            Err(error) => {
                unreadable = Some(error);
                None
            }
        };
        let (hear, failure, stop, out) = (&mut *refused, &mut failed, &mut stopped, &mut *release);
        let sink = |rewritten: Rewritten| {
            let _ = &closing;
            out.written.extend_from_slice(&rewritten.written);
            out.report.add(rewritten.report);
            out.outcome.done += rewritten.done;
            out.outcome.refused += rewritten.refused.len() as u64;
            for (line, refusal) in &rewritten.refused {
                hear(*line, refusal);
            }
            let flushed = out.flush_when_full();
            budget.give(rewritten.charged);
            *stop = self.fail_fast && !rewritten.refused.is_empty();
            match flushed {
                Ok(()) => !*stop,
                Err(error) => {
                    *failure = Some(error);
                    false
                }
            }
        };
        ordered(self.workers, source, || self.rewriter(), |rewriter, piece| self.piece(rewriter, piece), sink);
        if let Some(error) = failed {
            return Err(error);
        }
        if let Some(error) = unreadable {
            refused(0, &unread(error)?);
            release.outcome.refused += 1;
            return Ok(false);
        }
        Ok(true)
    }

    fn piece(&self, rewriter: &mut Rewriter, piece: Piece) -> Rewritten {
        let mut refused = Vec::new();
        let (mut written, mut done) = (Vec::with_capacity(piece.lines.len() + piece.lines.len() / 4), 0);
        let too_long = || Refusal { code: Code::ResourceTooLarge, path: String::new(), byte: 0 };
        if piece.too_long {
            refused.push((piece.first, too_long()));
        }
        let mut number = piece.first;
        let mut rest = piece.lines.as_slice();
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (line, behind) = rest.split_at(end);
            let content = line.strip_suffix(b"\n").unwrap_or(line);
            if content.iter().all(u8::is_ascii_whitespace) {
                written.extend_from_slice(line);
            } else {
                match rewriter.document(content, &mut written) {
                    Ok(()) => {
                        done += 1;
                        written.extend_from_slice(&line[content.len()..]);
                    }
                    Err(refusal) => {
                        refused.push((number, refusal));
                        if self.fail_fast {
                            break;
                        }
                    }
                }
            }
            number += 1;
            rest = behind;
        }
        Rewritten { written, report: rewriter.take_report(), done, refused, charged: piece.charged }
    }
}

/// Cuts an input into pieces behind line ends.
struct Pieces<'i> {
    input: &'i mut dyn BufRead,
    held: Vec<u8>,
    /// Behind the last line end in `held`.
    whole: usize,
    line: u64,
    ended: bool,
}

impl<'i> Pieces<'i> {
    fn new(input: &'i mut dyn BufRead) -> Self {
        Pieces { input, held: Vec::with_capacity(PIECE_BYTES + CHUNK_BYTES), whole: 0, line: 1, ended: false }
    }

    fn next(&mut self) -> io::Result<Option<Piece>> {
        loop {
            if self.ended && self.held.is_empty() {
                return Ok(None);
            }
            if self.ended {
                self.whole = self.held.len();
            }
            if self.whole > 0 && (self.ended || self.held.len() >= PIECE_BYTES) {
                return Ok(Some(self.cut(false)));
            }
            if self.held.len() > limits::RESOURCE_BYTES_MAX {
                self.held = Vec::new();
                self.skip_line()?;
                return Ok(Some(self.cut(true)));
            }
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.ended = chunk.is_empty();
            if let Some(at) = memchr::memrchr(b'\n', chunk) {
                self.whole = self.held.len() + at + 1;
            }
            self.held.extend_from_slice(chunk);
            let length = chunk.len();
            self.input.consume(length);
        }
    }

    fn cut(&mut self, too_long: bool) -> Piece {
        let mut rest = Vec::with_capacity(PIECE_BYTES + CHUNK_BYTES);
        rest.extend_from_slice(&self.held[self.whole..]);
        self.held.truncate(self.whole);
        let lines = std::mem::replace(&mut self.held, rest);
        let first = self.line;
        self.line += if too_long { 1 } else { memchr::memchr_iter(b'\n', &lines).count() as u64 };
        self.whole = 0;
        Piece { lines, first, too_long, charged: 0 }
    }

    /// Reads on to the end of a line that is too long to be held.
    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let chunk = self.input.fill_buf()?;
            if chunk.is_empty() {
                return Ok(());
            }
            let found = memchr::memchr(b'\n', chunk);
            let length = found.map_or(chunk.len(), |at| at + 1);
            self.input.consume(length);
            if found.is_some() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(input: &[u8], chunk: usize) -> Vec<(u64, usize, bool)> {
        let mut reader = io::BufReader::with_capacity(chunk, input);
        let mut pieces = Pieces::new(&mut reader);
        std::iter::from_fn(|| pieces.next().unwrap()).map(|p| (p.first, p.lines.len(), p.too_long)).collect()
    }

    #[test]
    fn pieces_end_behind_lines_and_are_numbered() {
        assert_eq!(pieces(b"", 10), []);
        assert_eq!(pieces(b"a\n\nb", 2), [(1, 4, false)]);
        let line = [vec![b'x'; 50_000], vec![b'\n']].concat();
        let found = pieces(&line.repeat(10), 64 * 1024);
        assert_eq!(found.iter().map(|p| p.1).sum::<usize>(), 10 * line.len());
        assert!(found.windows(2).all(|w| w[1].0 == w[0].0 + (w[0].1 / line.len()) as u64), "{found:?}");
        assert!(found.len() > 2);
    }

    #[test]
    fn a_line_that_is_too_long_is_counted_and_not_held() {
        let long = vec![b'x'; limits::RESOURCE_BYTES_MAX + 200_000];
        let input = [b"a\n".as_slice(), &long, b"\nb\n"].concat();
        assert_eq!(pieces(&input, CHUNK_BYTES), [(1, 2, false), (2, 0, true), (3, 2, false)]);
        assert_eq!(pieces(&long, CHUNK_BYTES), [(1, 0, true)]);
    }
}
