//! Request paths that a pack of `format: json` lets cross (`urls:`): literal segments, and values of a class.
//!
//! Outside FHIR no grammar says where in a URL an identity stands. So a path crosses only if the pack spells it, and a query never does.

use crate::rules::compile::ClassIx;

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Exactly this.
    Literal(String),
    /// A value of this class: it becomes its token.
    Value(ClassIx),
}

/// One path below the route's base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(pub Vec<Segment>);

/// Reads `/v1/users/{user}/points`; `class` numbers the classes in braces.
pub fn parse(text: &str, mut class: impl FnMut(&str) -> Option<ClassIx>) -> Option<Pattern> {
    let literal = |s: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'$' | b':' | b'@');
        !s.is_empty() && s != "." && s != ".." && s.bytes().all(plain)
    };
    let segments = text.strip_prefix('/')?.split('/').map(|segment| {
        match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            Some(name) => class(name).map(Segment::Value),
            None => literal(segment).then(|| Segment::Literal(segment.to_owned())),
        }
    });
    segments.collect::<Option<Vec<_>>>().map(Pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_segments_are_values() {
        let class = |name: &str| (name == "user").then_some(7);
        let literal = |text: &str| Segment::Literal(text.to_owned());
        assert_eq!(
            parse("/v1/users/{user}/points", class),
            Some(Pattern(vec![literal("v1"), literal("users"), Segment::Value(7), literal("points")]))
        );
        for wrong in ["", "v1", "/", "/v1/", "/v1//x", "/a/../b", "/u-{user}", "/{other}", "/a?b", "/a%20b", "/a b"] {
            assert_eq!(parse(wrong, class), None, "{wrong}");
        }
    }
}
