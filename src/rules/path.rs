//! Element paths of rules: the FHIRPath subset that selects elements (field notes: 215 of 299 paths that people write are
//! plain, 46 use `nodesByType`, 18 use `where`).
//!
//! ```text
//! path := root { "." step }
//! root := Type | "Resource" | "DomainResource" | nodesByType('T')
//! step := name | nodesByType('T') | ofType(T) | where(name = 'literal' { and name = 'literal' })
//! ```
//! What lies outside is an error with its position, never ignored: a rule that silently selects nothing lets identity out.

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A member by JSON name or by declared choice name (`value`).
    Child(String),
    /// The element itself or any element below, of this type.
    NodesByType(String),
    /// Only if the element has this type.
    OfType(String),
    /// Only if every member named equals its literal.
    Where(Vec<(String, String)>),
}

/// A parsed path: on which resource types it starts, and its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Resource type, or `None` for every resource.
    pub root: Option<String>,
    /// Steps below the root.
    pub steps: Vec<Step>,
}

/// Where and why a path could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathError {
    /// Character offset, from 0.
    pub at: usize,
    /// What was expected.
    pub expected: &'static str,
}

struct Reader<'p> {
    text: &'p str,
    at: usize,
}

impl<'p> Reader<'p> {
    fn fail<T>(&self, expected: &'static str) -> Result<T, PathError> {
        Err(PathError { at: self.at, expected })
    }

    fn spaces(&mut self) {
        self.at += self.text[self.at..].len() - self.text[self.at..].trim_start().len();
    }

    fn eat(&mut self, word: &str) -> bool {
        self.spaces();
        let hit = self.text[self.at..].starts_with(word);
        if hit {
            self.at += word.len();
        }
        hit
    }

    fn name(&mut self) -> Result<&'p str, PathError> {
        self.spaces();
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').unwrap_or(rest.len());
        if end == 0 || !rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return self.fail("a name");
        }
        self.at += end;
        Ok(&rest[..end])
    }

    fn literal(&mut self) -> Result<String, PathError> {
        if !self.eat("'") {
            return self.fail("a text in single quotes");
        }
        let rest = &self.text[self.at..];
        let Some(end) = rest.find('\'') else { return self.fail("a closing single quote") };
        if rest[..end].contains('\\') {
            return self.fail("a text without escapes");
        }
        self.at += end + 1;
        Ok(rest[..end].to_owned())
    }

    fn close(&mut self) -> Result<(), PathError> {
        if self.eat(")") { Ok(()) } else { self.fail("a closing parenthesis") }
    }

    fn step(&mut self) -> Result<Step, PathError> {
        let start = self.at;
        let name = self.name()?;
        if !self.eat("(") {
            return Ok(Step::Child(name.to_owned()));
        }
        let step = match name {
            "nodesByType" => Step::NodesByType(self.literal()?),
            "ofType" | "as" => Step::OfType(self.name()?.to_owned()),
            "where" => {
                let mut all = Vec::new();
                loop {
                    let member = self.name()?.to_owned();
                    if !self.eat("=") {
                        return self.fail("`=`");
                    }
                    all.push((member, self.literal()?));
                    if !self.eat("and ") {
                        break Step::Where(all);
                    }
                }
            }
            _ => {
                self.at = start;
                return self.fail("a member, nodesByType('T'), ofType(T) or where(member = 'text')");
            }
        };
        self.close()?;
        Ok(step)
    }
}

/// Reads a path; see the grammar at the top of this file.
pub fn parse(text: &str) -> Result<Path, PathError> {
    let mut reader = Reader { text, at: 0 };
    let mut path = Path { root: None, steps: Vec::new() };
    match reader.step()? {
        Step::Child(name) if name == "Resource" || name == "DomainResource" => {}
        Step::Child(name) => path.root = Some(name),
        step @ Step::NodesByType(_) => path.steps.push(step),
        Step::OfType(_) | Step::Where(_) => {
            return Err(PathError { at: 0, expected: "a resource type, Resource or nodesByType('T')" });
        }
    }
    while reader.eat(".") {
        path.steps.push(reader.step()?);
    }
    reader.spaces();
    if reader.at < text.len() { reader.fail("`.` and a step, or the end") } else { Ok(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, usize>) {
        let shown = parse(text).map(|p| format!("{:?} {:?}", p.root, p.steps)).map_err(|e| e.at);
        assert_eq!(shown.as_deref().map_err(|&at| at), expected, "{text}");
    }

    #[test]
    fn what_people_write_is_read() {
        check("Patient.gender", Ok(r#"Some("Patient") [Child("gender")]"#));
        check("Resource.meta.source", Ok(r#"None [Child("meta"), Child("source")]"#));
        check(
            "nodesByType('Identifier').where(system = 'http://h/mrn').value",
            Ok(r#"None [NodesByType("Identifier"), Where([("system", "http://h/mrn")]), Child("value")]"#),
        );
        check(
            "Observation.value.ofType(Quantity)",
            Ok(r#"Some("Observation") [Child("value"), OfType("Quantity")]"#),
        );
        check("Patient.telecom.where(system='phone' and use='home')", Ok(
            r#"Some("Patient") [Child("telecom"), Where([("system", "phone"), ("use", "home")])]"#));
    }

    #[test]
    fn what_lies_outside_is_an_error_with_its_place() {
        check("", Err(0));
        check("Patient.", Err(8));
        check("Patient.name.first()", Err(13));
        check("Patient.name[0]", Err(12));
        check("Patient.where(a.b = 'c')", Err(15));
        check("nodesByType('Identifier", Err(13));
    }
}
