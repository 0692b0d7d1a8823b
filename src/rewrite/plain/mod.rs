//! Messages of packs of `format: json`: the same framer, with a scanner and a decider that know no FHIR.
//!
//! ```text
//! bytes → framer (rewrite) → scan (one message) → events → decide → edits → bytes
//! ```
//! A document is one message, or an array of messages: then each element is a unit, streamed, with a subject and a seal of its own.
//! Nothing of a message leaves before it was scanned to its end and decided; the array around it is brackets, commas and white space.

mod decide;
mod method;
mod scan;
pub mod url;

use super::engine::Engine;
use super::json::{Direction, Stop};
use super::refusal::{Code, Refusal};
use super::report::Report;
use crate::limits;
use crate::policy::Permit;
use crate::rules::plain::Plain;
use crate::token::Mac;
use decide::{Decider, Desk};
use scan::{Begin, Scanner};

/// The buffers of one stream.
#[derive(Debug, Default)]
pub struct Table {
    scanner: Scanner,
    desk: Desk,
}

/// What one message came to.
pub enum Came {
    /// To its end, here; whether anything was written.
    To(usize, bool),
    /// The input ends inside it.
    Incomplete,
}

/// One stream's view of its rules, keys and counts.
pub struct Messages<'m> {
    pub engine: &'m Engine,
    pub plain: &'m Plain,
    pub direction: Direction,
    pub permit: Option<&'m Permit>,
    pub document: Option<&'m Mac>,
    pub table: &'m mut Table,
    pub report: &'m mut Report,
}

impl Messages<'_> {
    /// Rewrites the message that begins (after white space) at `input[at..]`. Positions in refusals count from the start of `input`.
    pub fn message(
        &mut self,
        input: &[u8],
        at: usize,
        element: bool,
        prefix: &str,
        output: &mut Vec<u8>,
    ) -> Result<Came, Refusal> {
        let automaton = &self.plain.automaton;
        let state = if element { automaton.element } else { automaton.message };
        let (rules, begin) = (&self.engine.rules, Begin { at, state });
        let Table { scanner, desk } = &mut *self.table;
        let end = match scanner.scan(rules, automaton, input, begin, self.direction) {
            Ok(end) => end,
            Err(Stop::Incomplete) => return Ok(Came::Incomplete),
            Err(Stop::Refused(code, byte)) => {
                return Err(Refusal { code, path: scanner.path(automaton, prefix), byte: byte as u64 });
            }
        };
        if end - at > limits::RESOURCE_BYTES_MAX {
            return Err(Refusal { code: Code::ResourceTooLarge, path: prefix.to_owned(), byte: at as u64 });
        }
        let decider = Decider {
            engine: self.engine,
            plain: self.plain,
            input,
            scanner,
            direction: self.direction,
            permit: self.permit,
            document: self.document,
            desk,
            report: self.report,
            subject: None,
            offset: None,
        };
        match decider.write(at, end, output) {
            Ok(written) => Ok(Came::To(end, written)),
            Err((code, byte)) => {
                let path = scanner.path_of(rules, automaton, input, begin, self.direction, byte, prefix);
                Err(Refusal { code, path, byte: byte as u64 })
            }
        }
    }

    /// A whole document: one message, or an array of them.
    pub fn document(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Refusal> {
        if input.len() > limits::RESOURCE_BYTES_MAX {
            return Err(refusal(Code::ResourceTooLarge, 0));
        }
        let mark = output.len();
        let done = match skip_space(input, 0) {
            Some(open) if input[open] == b'[' => self.array(input, open, output),
            Some(first) if input[first] == b'-' || input[first].is_ascii_digit() => self.number(input, output),
            _ => match self.message(input, 0, false, "$", output) {
                Ok(Came::To(end, true)) => self.rest(input, end, output),
                Ok(Came::To(..)) => Err(refusal(Code::Unmatched, 0)),
                Ok(Came::Incomplete) => Err(refusal(Code::Truncated, input.len())),
                Err(refusal) => Err(refusal),
            },
        };
        if done.is_err() {
            output.truncate(mark);
        }
        done
    }

    /// A number on its own ends where the input does: white space behind it shows the scanner that it does.
    fn number(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Refusal> {
        let mut longer = input.to_vec();
        longer.push(b'\n');
        match self.message(&longer, 0, false, "$", output)? {
            Came::To(end, true) => self.rest(input, end, output),
            Came::To(..) => Err(refusal(Code::Unmatched, 0)),
            Came::Incomplete => Err(refusal(Code::Truncated, input.len())),
        }
    }

    fn array(&mut self, input: &[u8], open: usize, output: &mut Vec<u8>) -> Result<(), Refusal> {
        let truncated = || refusal(Code::Truncated, input.len());
        output.extend_from_slice(&input[..=open]);
        let mut at = open + 1;
        let first = skip_space(input, at).ok_or_else(truncated)?;
        if input[first] == b']' {
            output.extend_from_slice(&input[at..=first]);
            return self.rest(input, first + 1, output);
        }
        let mut written = false;
        for number in 0.. {
            let mark = output.len();
            if written {
                output.push(b',');
            }
            match self.message(input, at, true, &format!("$[{number}]"), output)? {
                Came::To(end, stays) => {
                    at = end;
                    if stays {
                        written = true;
                    } else {
                        output.truncate(mark);
                    }
                }
                Came::Incomplete => return Err(truncated()),
            }
            let sep = skip_space(input, at).ok_or_else(truncated)?;
            match input[sep] {
                b',' => {
                    output.extend_from_slice(&input[at..sep]);
                    at = sep + 1;
                }
                b']' => {
                    output.extend_from_slice(&input[at..=sep]);
                    return self.rest(input, sep + 1, output);
                }
                _ => return Err(refusal(Code::BadJson, sep)),
            }
        }
        Ok(())
    }

    /// Behind the document: white space and nothing else.
    fn rest(&self, input: &[u8], end: usize, output: &mut Vec<u8>) -> Result<(), Refusal> {
        match skip_space(input, end) {
            Some(more) => Err(refusal(Code::Trailing, more)),
            None => {
                output.extend_from_slice(&input[end..]);
                Ok(())
            }
        }
    }
}

fn skip_space(input: &[u8], at: usize) -> Option<usize> {
    input[at..].iter().position(|b| !matches!(b, b' ' | b'\n' | b'\r' | b'\t')).map(|i| at + i)
}

fn refusal(code: Code, at: usize) -> Refusal {
    Refusal { code, path: "$".to_owned(), byte: at as u64 }
}
