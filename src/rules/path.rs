//! Element paths of rules: the FHIRPath subset that selects elements (field notes: of 299 paths that people write all but
//! a few are within it).
//!
//! ```text
//! paths := path { "|" path }
//! path  := root { "." step } [ "as" T ]   |   "(" path ")" { "." step }
//! root  := Type | Resource | DomainResource | %resource | $this | nodesByType('T') | nodesByName('name')
//! step  := name | nodesByType('T') | nodesByName('name') | ofType(T) | as(T) | extension('url') | children() | descendants() | where(test)
//! test  := all { "or" all };  all := one { "and" one };  one := ( test ) | [ $this. ] name about
//! about := = 'text' | != 'text' | .exists() | .hasValue() | .empty() | .word('text');  word := startsWith | endsWith | contains
//!          each of those with a dot may be followed by .not()
//! ```
//! What lies outside is an error with its position, never ignored: a rule that silently selects nothing lets identity out. So is a test that goes
//! deeper than one member: over two Codings `coding.system = ... and coding.code = ...` may be true of two different ones. So are places in an array (`[0]`, `first()`):
//! a rule about the first name leaves the second one to another, and which is first is the sender's whim.

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A member by JSON name or by declared choice name (`value`).
    Child(String),
    /// Any member.
    AnyChild,
    /// Any element below.
    Descendants,
    /// The element itself or any element below, of this type.
    NodesByType(String),
    /// Any element below of this name.
    NodesByName(String),
    /// Only if the element has this type.
    OfType(String),
    /// Only if what is asked of every member named is true.
    Where(All),
}

/// What is asked of one text member. As in FHIRPath, a member that is not there is neither equal nor unequal to anything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// Whether it is there.
    There(bool),
    /// Whether it is there, and its text is so (or, with `false`, is not).
    Text(How, String, bool),
}

/// How a text is compared with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// The same characters.
    Is,
    /// It begins with the other.
    StartsWith,
    /// It ends with the other.
    EndsWith,
    /// The other is somewhere in it.
    Contains,
}

impl How {
    /// Compares.
    pub fn holds(self, text: &[u8], with: &str) -> bool {
        let with = with.as_bytes();
        match self {
            How::Is => text == with,
            How::StartsWith => text.starts_with(with),
            How::EndsWith => text.ends_with(with),
            How::Contains => memchr::memmem::find(text, with).is_some(),
        }
    }
}

impl Ask {
    /// Whether it is true of a value, or of its absence.
    pub fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Ask::There(there) => value.is_some() == *there,
            Ask::Text(how, with, so) => value.is_some_and(|text| how.holds(text.as_bytes(), with) == *so),
        }
    }
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

/// Most paths that alternatives (`|`, `or`) may multiply to.
const PATHS_MAX: usize = 64;
/// Deepest parentheses.
const DEPTH_MAX: usize = 8;

const STEPS: &str = "a member, nodesByType('T'), nodesByName('name'), ofType(T), extension('url'), children(), descendants() or where(member = 'text')";
const TEST: &str = "`=` or `!=` and a text, or .exists(), .empty(), .startsWith('text'), .endsWith('text'), .contains('text'): a test is about one text member of the element itself, since over two Codings a deeper one may be true of two different ones; go there with a step, as in coding.where(system = '...' and code = '...')";

/// A conjunction: members, and what is asked of them.
pub type All = Vec<(String, Ask)>;

struct Reader<'p> {
    text: &'p str,
    at: usize,
    depth: usize,
}

impl<'p> Reader<'p> {
    fn fail<T>(&self, expected: &'static str) -> Result<T, PathError> {
        Err(PathError { at: self.text[..self.at].chars().count(), expected })
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

    /// A word that ends where names do.
    fn eat_word(&mut self, word: &str) -> bool {
        let from = self.at;
        let ends = self.eat(word) && !self.text[self.at..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if !ends {
            self.at = from;
        }
        ends
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

    fn deeper(&mut self) -> Result<(), PathError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { self.fail("fewer parentheses inside each other") } else { Ok(()) }
    }

    /// Alternatives of a test, each a conjunction.
    fn test(&mut self) -> Result<Vec<All>, PathError> {
        let mut any = self.conjunction()?;
        while self.eat_word("or") {
            any.extend(self.conjunction()?);
        }
        Ok(any)
    }

    fn conjunction(&mut self) -> Result<Vec<All>, PathError> {
        let mut all = self.comparison()?;
        while self.eat_word("and") {
            let more = self.comparison()?;
            all = all.iter().flat_map(|a| more.iter().map(move |b| [&a[..], &b[..]].concat())).collect();
            if all.len() > PATHS_MAX {
                return self.fail("fewer alternatives");
            }
        }
        Ok(all)
    }

    fn comparison(&mut self) -> Result<Vec<All>, PathError> {
        if self.eat("(") {
            self.deeper()?;
            let inner = self.test()?;
            self.depth -= 1;
            self.close()?;
            return Ok(inner);
        }
        self.eat("$this.");
        let member = self.name()?.to_owned();
        Ok(vec![vec![(member, self.ask()?)]])
    }

    fn ask(&mut self) -> Result<Ask, PathError> {
        if self.eat("!=") {
            return Ok(Ask::Text(How::Is, self.literal()?, false));
        }
        if self.eat("=") {
            return Ok(Ask::Text(How::Is, self.literal()?, true));
        }
        self.spaces();
        let start = self.at;
        let name = if self.eat(".") { self.name()? } else { "" };
        let how = match name {
            "startsWith" => Some(How::StartsWith),
            "endsWith" => Some(How::EndsWith),
            "contains" => Some(How::Contains),
            "exists" | "hasValue" | "empty" => None,
            _ => {
                self.at = start;
                return self.fail(TEST);
            }
        };
        if !self.eat("(") {
            return self.fail("an opening parenthesis");
        }
        let literal = how.map(|how| Ok((how, self.literal()?))).transpose()?;
        self.close()?;
        let so = !self.eat(".not()");
        Ok(match literal {
            Some((how, literal)) => Ask::Text(how, literal, so),
            None => Ask::There((name != "empty") == so),
        })
    }

    /// One step, as the alternatives that it may be.
    fn step(&mut self) -> Result<Vec<Vec<Step>>, PathError> {
        self.spaces();
        let start = self.at;
        let name = self.name()?;
        if !self.eat("(") {
            return Ok(vec![vec![Step::Child(name.to_owned())]]);
        }
        let one = |step| vec![vec![step]];
        let step = match name {
            "nodesByType" => one(Step::NodesByType(self.literal()?)),
            "nodesByName" => one(Step::NodesByName(self.literal()?)),
            "ofType" | "as" => one(Step::OfType(self.name()?.to_owned())),
            "children" => one(Step::AnyChild),
            "descendants" => one(Step::Descendants),
            "extension" => {
                let url = vec![("url".to_owned(), Ask::Text(How::Is, self.literal()?, true))];
                vec![vec![Step::Child("extension".to_owned()), Step::Where(url)]]
            }
            "where" => self.test()?.into_iter().map(|all| vec![Step::Where(all)]).collect(),
            _ => {
                self.at = start;
                return self.fail(STEPS);
            }
        };
        self.close()?;
        Ok(step)
    }

    /// A path without alternatives of its own, or a parenthesis with all of theirs, and the steps behind.
    fn path(&mut self) -> Result<Vec<Path>, PathError> {
        let mut paths = if self.eat("(") {
            self.deeper()?;
            let inner = self.union()?;
            self.depth -= 1;
            self.close()?;
            inner
        } else {
            vec![self.root()?]
        };
        while self.eat(".") {
            let alternatives = self.step()?;
            let go_on = |path: &Path, steps: &Vec<Step>| Path {
                root: path.root.clone(),
                steps: path.steps.iter().chain(steps).cloned().collect(),
            };
            paths = paths.iter().flat_map(|path| alternatives.iter().map(move |steps| go_on(path, steps))).collect();
            if paths.len() > PATHS_MAX {
                return self.fail("fewer alternatives");
            }
        }
        if self.eat_word("as") {
            let name = self.name()?.to_owned();
            paths.iter_mut().for_each(|path| path.steps.push(Step::OfType(name.clone())));
        }
        Ok(paths)
    }

    fn root(&mut self) -> Result<Path, PathError> {
        let every = Path { root: None, steps: Vec::new() };
        if self.eat("%resource") || self.eat_word("$this") {
            return Ok(every);
        }
        self.spaces();
        let start = self.at;
        match &self.step()?[..] {
            [steps] => match &steps[..] {
                [Step::Child(name)] if name == "Resource" || name == "DomainResource" => Ok(every),
                [Step::Child(name)] => Ok(Path { root: Some(name.clone()), ..every }),
                [Step::NodesByType(_) | Step::NodesByName(_)] => Ok(Path { steps: steps.clone(), ..every }),
                _ => {
                    self.at = start;
                    self.fail("a resource type, Resource, nodesByType('T') or nodesByName('name')")
                }
            },
            _ => {
                self.at = start;
                self.fail("a resource type, Resource, nodesByType('T') or nodesByName('name')")
            }
        }
    }

    fn union(&mut self) -> Result<Vec<Path>, PathError> {
        let mut paths = self.path()?;
        while self.eat("|") {
            paths.extend(self.path()?);
            if paths.len() > PATHS_MAX {
                return self.fail("fewer alternatives");
            }
        }
        Ok(paths)
    }
}

/// Reads a path, as all the alternatives that it names; see the grammar at the top of this file.
pub fn parse(text: &str) -> Result<Vec<Path>, PathError> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let paths = reader.union()?;
    reader.spaces();
    if reader.at < text.len() { reader.fail("`.` and a step, `|` and a path, or the end") } else { Ok(paths) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, usize>) {
        let plain = |text: String| text.replace("Text(Is, ", "").replace(", true)", "");
        let shown = |p: &Path| plain(format!("{:?} {:?}", p.root, p.steps));
        let shown = parse(text).map(|all| all.iter().map(shown).collect::<Vec<_>>().join(" | ")).map_err(|e| e.at);
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
        check("Observation.value.ofType(Quantity)", Ok(r#"Some("Observation") [Child("value"), OfType("Quantity")]"#));
        check(
            "Patient.telecom.where(system='phone' and use='home')",
            Ok(r#"Some("Patient") [Child("telecom"), Where([("system", "phone"), ("use", "home")])]"#),
        );
    }

    #[test]
    fn alternatives_are_paths_of_their_own() {
        check("Patient.name | Person.name", Ok(r#"Some("Patient") [Child("name")] | Some("Person") [Child("name")]"#));
        check(
            "nodesByType('ContactPoint').where(system = 'phone' or (use='home' and system='fax')).value",
            Ok(
                r#"None [NodesByType("ContactPoint"), Where([("system", "phone")]), Child("value")] | None [NodesByType("ContactPoint"), Where([("use", "home"), ("system", "fax")]), Child("value")]"#,
            ),
        );
        check("Observation.value as Quantity", Ok(r#"Some("Observation") [Child("value"), OfType("Quantity")]"#));
        check(
            "(Observation.value as Quantity).unit",
            Ok(r#"Some("Observation") [Child("value"), OfType("Quantity"), Child("unit")]"#),
        );
        check("%resource.id", Ok(r#"None [Child("id")]"#));
        check("Patient.assigner", Ok(r#"Some("Patient") [Child("assigner")]"#));
        check("nodesByName('display')", Ok(r#"None [NodesByName("display")]"#));
        check("Patient.contact.children()", Ok(r#"Some("Patient") [Child("contact"), AnyChild]"#));
        check("Patient.contact.descendants()", Ok(r#"Some("Patient") [Child("contact"), Descendants]"#));
        check(
            "Patient.extension('http://x').value",
            Ok(r#"Some("Patient") [Child("extension"), Where([("url", "http://x")]), Child("value")]"#),
        );
        check(
            "Patient.where($this.gender = 'male').name",
            Ok(r#"Some("Patient") [Where([("gender", "male")]), Child("name")]"#),
        );
    }

    #[test]
    fn tests_are_about_one_text_member() {
        check("Patient.where(a != 'b')", Ok(r#"Some("Patient") [Where([("a", "b", false))])]"#));
        check("Patient.where(a.exists())", Ok(r#"Some("Patient") [Where([("a", There(true))])]"#));
        check("Patient.where(a.empty())", Ok(r#"Some("Patient") [Where([("a", There(false))])]"#));
        check("Patient.where(a.exists().not())", Ok(r#"Some("Patient") [Where([("a", There(false))])]"#));
        check("Patient.where(a.startsWith('b'))", Ok(r#"Some("Patient") [Where([("a", Text(StartsWith, "b")])]"#));
        check(
            "Patient.where(a.contains('b').not())",
            Ok(r#"Some("Patient") [Where([("a", Text(Contains, "b", false))])]"#),
        );
    }

    #[test]
    fn what_lies_outside_is_an_error_with_its_place() {
        check("", Err(0));
        check("Patient.", Err(8));
        check("Patient.name.first()", Err(13));
        check("Patient.name[0]", Err(12));
        check("Patient.where(a.b = 'c')", Err(15));
        check("nodesByType('Identifier", Err(13));
        check("Patient.name |", Err(14));
        check("(Patient.name", Err(13));
        check("Patient.where(a ~ 'c')", Err(16));
        check("Patient.where(a.matches('c'))", Err(15));
        check("Patient.where(a.exists(b))", Err(23));
        check("Patient.where(a.startsWith())", Err(27));
        check("where(a = 'b').name", Err(0));
        check("Patient.name or Patient.id", Err(13));
        check(&format!("{}Patient", "(".repeat(20)), Err(9));
        let any = vec!["a = 'b'"; 70].join(" or ");
        assert!(parse(&format!("Patient.where({any})")).is_err());
    }
}
