//! How the demo speaks: headings, two columns, claims. At most 100 columns; colour only where a person looks.
//!
//! A claim is printed with the result of the check that it stands for. One that is false is printed as such and counted.

use std::io::{self, Write};

const WIDTH: usize = 100;
const LABEL: usize = 10;
const COLUMN: usize = 43;

/// The demo's output, and how many claims held.
pub struct Voice<'a> {
    output: &'a mut dyn Write,
    colour: bool,
    /// Claims that were true.
    pub held: usize,
    /// Claims that were false.
    pub failed: usize,
}

/// The columns' meaning: what a patient's own side sees is green, what strangers see is yellow.
#[derive(Clone, Copy)]
pub enum Ink {
    /// Real values.
    Real,
    /// Pseudonyms.
    Pseudonym,
}

impl<'a> Voice<'a> {
    /// `colour`: whether the output is a terminal that wants it.
    pub fn new(output: &'a mut dyn Write, colour: bool) -> Voice<'a> {
        Voice { output, colour, held: 0, failed: 0 }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A line as it is, cut to the width.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.output, "{}", cut(text, WIDTH))
    }

    /// A line that must stay whole, so that it can be copied.
    pub fn verbatim(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.output, "{text}")
    }

    /// The heading of a part.
    pub fn heading(&mut self, text: &str) -> io::Result<()> {
        let text = self.paint("1", text);
        writeln!(self.output, "\n{text}")
    }

    /// Two columns: heads, then one labelled row for each thing that both show.
    pub fn columns(&mut self, heads: [&str; 2], rows: &[(String, String, String)], inks: [Ink; 2]) -> io::Result<()> {
        let heads = format!("{:LABEL$} {:COLUMN$}  {}", "", heads[0], heads[1]);
        let heads = self.paint("2", heads.trim_end());
        writeln!(self.output, "{heads}")?;
        for (label, left, right) in rows {
            let code = |ink| match ink {
                Ink::Real => "32",
                Ink::Pseudonym => "33",
            };
            let left = self.paint(code(inks[0]), &format!("{:COLUMN$}", cut(left, COLUMN)));
            let right = self.paint(code(inks[1]), &cut(right, COLUMN));
            writeln!(self.output, "{:LABEL$} {left}  {right}", cut(label, LABEL))?;
        }
        Ok(())
    }

    /// A sentence that was checked.
    pub fn claim(&mut self, holds: bool, text: &str) -> io::Result<()> {
        let (mark, rest) = if holds {
            self.held += 1;
            (self.paint("32", "  ok "), text.to_owned())
        } else {
            self.failed += 1;
            (self.paint("1;31", "  NOT TRUE "), self.paint("31", text))
        };
        writeln!(self.output, "{mark} {rest}")
    }
}

/// At most so many characters; what is missing shows as an ellipsis.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}
