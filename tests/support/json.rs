//! A JSON reader of the tests' own that keeps the spelling: each scalar is the slice of the document it was written as.
//!
//! It exists because "untouched means untouched" cannot be tested with a reader that turns `1.50` into a number. It is no
//! validator: documents are read by serde_json first, and whatever that accepts, this reads too. It shares no code with
//! the product's scanner, and it must never: two readers with one mistake prove nothing.

use std::borrow::Cow;

/// A value with its spelling.
#[derive(Debug, Clone, PartialEq)]
pub enum Node<'a> {
    Object(Vec<Member<'a>>),
    Array(Vec<Node<'a>>),
    /// Number, string, `true`, `false`, `null`: as written, quotes included.
    Scalar(&'a str),
}

/// One member of an object, in the document's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Member<'a> {
    /// The name, decoded.
    pub name: Cow<'a, str>,
    pub value: Node<'a>,
}

impl<'a> Node<'a> {
    /// The member of that name, if this is an object that has it.
    pub fn get(&self, name: &str) -> Option<&Node<'a>> {
        match self {
            Node::Object(members) => members.iter().find(|m| m.name == name).map(|m| &m.value),
            _ => None,
        }
    }

    /// The decoded text of a string; numbers and literals as written; `None` for objects, arrays and `null`.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        match self {
            Node::Scalar("null") => None,
            Node::Scalar(raw) => Some(decoded(raw)),
            _ => None,
        }
    }

    /// The elements of an array, or the value itself as the only one.
    pub fn items(&self) -> &[Node<'a>] {
        match self {
            Node::Array(items) => items,
            other => std::slice::from_ref(other),
        }
    }
}

/// Reads one document. The message of an error names only the byte.
pub fn parse(text: &str) -> Result<Node<'_>, String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|e| format!("not JSON at column {}", e.column()))?;
    let mut reader = Reader { text, at: 0 };
    reader.space();
    Ok(reader.value())
}

/// The decoded text of a scalar as written: the content of a string, or the literal itself.
pub fn decoded(raw: &str) -> Cow<'_, str> {
    match raw.strip_prefix('"').and_then(|r| r.strip_suffix('"')) {
        Some(inner) if !inner.contains('\\') => Cow::Borrowed(inner),
        Some(inner) => Cow::Owned(unescape(inner)),
        None => Cow::Borrowed(raw),
    }
}

/// Whether a string is spelled as RFC 8785 §3.2.2.2 spells it, so that decoding and encoding gives the same bytes.
pub fn is_canonical(raw: &str) -> bool {
    !raw.starts_with('"') || canonical(&decoded(raw)) == raw
}

/// The canonical spelling (RFC 8785 §3.2.2.2), quotes included.
pub fn canonical(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Undoes JSON escapes wherever they stand; what is no valid escape stays. Lone surrogates become U+FFFD.
pub fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let simple = match after.as_bytes().first() {
            Some(b'"') => Some('"'),
            Some(b'\\') => Some('\\'),
            Some(b'/') => Some('/'),
            Some(b'b') => Some('\u{8}'),
            Some(b'f') => Some('\u{c}'),
            Some(b'n') => Some('\n'),
            Some(b'r') => Some('\r'),
            Some(b't') => Some('\t'),
            _ => None,
        };
        if let Some(c) = simple {
            out.push(c);
            rest = &after[1..];
        } else if let Some(high) = code_unit(after) {
            rest = &after[5..];
            match rest.strip_prefix('\\').and_then(code_unit) {
                Some(low) if (0xD800..0xDC00).contains(&high) && (0xDC00..0xE000).contains(&low) => {
                    let c = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                    out.push(char::from_u32(c).unwrap_or('\u{FFFD}'));
                    rest = &rest[6..];
                }
                _ => out.push(char::from_u32(high).unwrap_or('\u{FFFD}')),
            }
        } else {
            out.push('\\');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// The number in `uXXXX` at the start of `text`.
fn code_unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('u')?.get(..4)?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn byte(&self) -> u8 {
        self.text.as_bytes()[self.at]
    }

    fn space(&mut self) {
        while self.at < self.text.len() && matches!(self.byte(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Node<'a> {
        match self.byte() {
            b'{' => {
                let mut members = Vec::new();
                self.list(b'}', |reader| {
                    let name = decoded(reader.scalar());
                    reader.space();
                    reader.at += 1; // the colon
                    reader.space();
                    let value = reader.value();
                    members.push(Member { name, value });
                });
                Node::Object(members)
            }
            b'[' => {
                let mut items = Vec::new();
                self.list(b']', |reader| items.push(reader.value()));
                Node::Array(items)
            }
            _ => Node::Scalar(self.scalar()),
        }
    }

    fn list(&mut self, end: u8, mut item: impl FnMut(&mut Self)) {
        self.at += 1;
        self.space();
        while self.byte() != end {
            item(self);
            self.space();
            if self.byte() == b',' {
                self.at += 1;
                self.space();
            }
        }
        self.at += 1;
    }

    fn scalar(&mut self) -> &'a str {
        let bytes = self.text.as_bytes();
        let start = self.at;
        if bytes[start] == b'"' {
            self.at += 1;
            while bytes[self.at] != b'"' {
                self.at += if bytes[self.at] == b'\\' { 2 } else { 1 };
            }
            self.at += 1;
        } else {
            while self.at < bytes.len() && !matches!(bytes[self.at], b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r')
            {
                self.at += 1;
            }
        }
        &self.text[start..self.at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_is_kept_and_decoding_is_right() {
        let node = parse(r#" {"n": 1.50, "a\u0062": ["\u00e9\ud83d\ude00\n", null, -0e+1]} "#).unwrap();
        assert_eq!(node.get("n"), Some(&Node::Scalar("1.50")));
        let items = node.get("ab").unwrap().items();
        assert_eq!(items[0].text().unwrap(), "é😀\n");
        assert_eq!(items[1].text(), None);
        assert_eq!(items[2], Node::Scalar("-0e+1"));
        assert!(is_canonical(r#""a\n\"\\é/""#) && !is_canonical(r#""\u00e9""#) && !is_canonical(r#""a\/b""#));
        assert!(parse("{\"a\":1}x").is_err());
    }
}
