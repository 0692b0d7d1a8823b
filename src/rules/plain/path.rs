//! Paths of `format: json`: the JSONPath (RFC 9535) that can be walked while a message streams by.
//!
//! ```text
//! path    := "$" segment*
//! segment := "." name | "." "*" | "[" "'" text "'" "]" | "[" "*" "]" | ".." name | ".." "*" | ".." "[" ... "]"
//! ```
//! One thing is narrower than in the RFC, where both wildcards mean both: `.*` is every member of an object, `[*]` every element of an array;
//! only `..*` is everything beneath. What is an array in one message and an object in the next was not looked at by whoever wrote the rule.
//! Positions, slices, filters and lists are errors, never ignored: a rule that silently selects nothing lets identity out.

/// One segment of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A member of this name.
    Name(String),
    /// Any member.
    Any,
    /// Any element.
    Each,
    /// A member of this name at any depth.
    DeepName(String),
    /// Any member or element at any depth.
    DeepAny,
    /// Any element at any depth.
    DeepEach,
}

/// Where and why a path could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathError {
    /// Character offset, from 0.
    pub at: usize,
    /// What was expected.
    pub expected: &'static str,
}

/// Most segments of a path. The deepest message that is accepted has 128 levels; nobody names that many.
pub const STEPS_MAX: usize = 64;

struct Reader<'p> {
    text: &'p str,
    at: usize,
}

/// Reads a path.
pub fn parse(text: &str) -> Result<Vec<Step>, PathError> {
    let mut reader = Reader { text, at: 0 };
    if !reader.eat("$") {
        return reader.fail("`$`, which stands for the message");
    }
    let mut steps = Vec::new();
    while reader.at < text.len() {
        if steps.len() == STEPS_MAX {
            return reader.fail("at most 64 segments");
        }
        steps.push(reader.step()?);
    }
    Ok(steps)
}

impl Reader<'_> {
    fn fail<T>(&self, expected: &'static str) -> Result<T, PathError> {
        Err(PathError { at: self.text[..self.at].chars().count(), expected })
    }

    fn eat(&mut self, word: &str) -> bool {
        let hit = self.text[self.at..].starts_with(word);
        self.at += if hit { word.len() } else { 0 };
        hit
    }

    fn step(&mut self) -> Result<Step, PathError> {
        let deep = self.eat("..");
        let bracket = self.eat("[");
        let name = if bracket {
            self.bracket()?
        } else if !deep && !self.eat(".") {
            return self.fail("`.name`, `['name']`, `[*]`, `.*` or `..`");
        } else if self.eat("*") {
            None
        } else {
            Some(self.name()?)
        };
        Ok(match (deep, name) {
            (false, Some(name)) => Step::Name(name),
            (false, None) if bracket => Step::Each,
            (false, None) => Step::Any,
            (true, Some(name)) => Step::DeepName(name),
            (true, None) if bracket => Step::DeepEach,
            (true, None) => Step::DeepAny,
        })
    }

    /// `name` without quotes (RFC 9535 section 2.5.1.1, member-name-shorthand).
    fn name(&mut self) -> Result<String, PathError> {
        let rest = &self.text[self.at..];
        let first = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
        if !rest.starts_with(first) {
            return self.fail("a name of letters, digits and `_`; write others as ['a-b']");
        }
        let length = rest.find(|c: char| !first(c) && !c.is_ascii_digit()).unwrap_or(rest.len());
        self.at += length;
        Ok(rest[..length].to_owned())
    }

    /// Behind `[`: `*]` or a quoted name and `]`.
    fn bracket(&mut self) -> Result<Option<String>, PathError> {
        if self.eat("*]") {
            return Ok(None);
        }
        let quote = match self.text[self.at..].chars().next() {
            Some(c @ ('\'' | '"')) => c,
            _ => {
                return self
                    .fail("`*` or a name in quotes: positions, slices and filters cannot be walked in a stream");
            }
        };
        self.at += 1;
        let mut name = String::new();
        loop {
            let Some(c) = self.text[self.at..].chars().next() else { return self.fail("the closing quote") };
            self.at += c.len_utf8();
            match c {
                '\\' => match self.text[self.at..].chars().next() {
                    Some(c @ ('\'' | '"' | '\\')) => {
                        name.push(c);
                        self.at += 1;
                    }
                    _ => return self.fail("`\\\\` or an escaped quote"),
                },
                c if c == quote => break,
                c => name.push(c),
            }
        }
        if !self.eat("]") {
            return self.fail("`]`: one name in each pair of brackets");
        }
        Ok(Some(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&[Step], usize>) {
        let found = parse(text);
        assert_eq!(found.as_deref().map_err(|e| e.at), expected, "{text}");
    }

    fn name(name: &str) -> Step {
        Step::Name(name.to_owned())
    }

    fn deep(name: &str) -> Step {
        Step::DeepName(name.to_owned())
    }

    #[test]
    fn the_streaming_kind_of_jsonpath() {
        check("$", Ok(&[]));
        check("$.a.b[*].c", Ok(&[name("a"), name("b"), Step::Each, name("c")]));
        check("$.a.*", Ok(&[name("a"), Step::Any]));
        check("$..c", Ok(&[deep("c")]));
        check("$..*", Ok(&[Step::DeepAny]));
        check("$..[*]", Ok(&[Step::DeepEach]));
        check("$..['c d']", Ok(&[deep("c d")]));
        check("$['a b'][\"it's\"]", Ok(&[name("a b"), name("it's")]));
        check(r"$['it\'s \\ \u']", Err(13));
        check(r"$['it\'s \\']", Ok(&[name(r"it's \")]));
        check("$.Größe_2", Ok(&[name("Größe_2")]));
        check("", Err(0));
        check("a.b", Err(0));
        check("$a", Err(1));
        check("$.", Err(2));
        check("$.2a", Err(2));
        check("$.a-b", Err(3));
        check("$[0]", Err(2));
        check("$[1:2]", Err(2));
        check("$[?(@.x)]", Err(2));
        check("$['a','b']", Err(5));
        check("$['a", Err(4));
        check("$. a", Err(2));
    }
}
