//! JSON string text: decoding a spelling (RFC 8259 §7) and writing the canonical one (RFC 8785 §3.2.2.2).

use std::borrow::Cow;

/// The characters that a spelling between quotes stands for. The scanner has checked its grammar; what remains is a surrogate
/// half on its own, for which there is no character: `None`.
pub fn decode(spelling: &str) -> Option<Cow<'_, str>> {
    let Some(first) = memchr::memchr(b'\\', spelling.as_bytes()) else { return Some(Cow::Borrowed(spelling)) };
    let mut out = String::with_capacity(spelling.len());
    out.push_str(&spelling[..first]);
    let mut rest = &spelling[first..];
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let (c, length) = escape(&rest[at..])?;
        out.push(c);
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    Some(Cow::Owned(out))
}

/// One escape at the start of `text`, and its length.
fn escape(text: &str) -> Option<(char, usize)> {
    let c = match text.as_bytes().get(1)? {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let high = hex(text, 2)?;
            if !(0xD800..0xE000).contains(&high) {
                return Some((char::from_u32(high)?, 6));
            }
            if high >= 0xDC00 || !text.get(6..)?.starts_with("\\u") {
                return None;
            }
            let low = hex(text, 8)?;
            if !(0xDC00..0xE000).contains(&low) {
                return None;
            }
            return Some((char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00))?, 12));
        }
        &c @ (b'"' | b'\\' | b'/') => c as char,
        _ => return None,
    };
    Some((c, 2))
}

fn hex(text: &str, at: usize) -> Option<u32> {
    u32::from_str_radix(text.get(at..at + 4)?, 16).ok()
}

/// Appends the canonical spelling of `text`, without the quotes.
pub fn encode(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    if bytes.iter().fold(true, |plain, &b| plain & (b >= 0x20) & (b != b'"') & (b != b'\\')) {
        return out.extend_from_slice(bytes); // tokens and ids, that is nearly all
    }
    let mut copied = 0;
    for (at, &b) in bytes.iter().enumerate() {
        let short: &[u8] = match b {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            0x20.. => continue,
            0x08 => b"\\b",
            0x09 => b"\\t",
            0x0A => b"\\n",
            0x0C => b"\\f",
            0x0D => b"\\r",
            _ => &[b'\\', b'u', b'0', b'0', b'0' + (b >> 4), b"0123456789abcdef"[(b & 15) as usize]],
        };
        out.extend_from_slice(&bytes[copied..at]);
        out.extend_from_slice(short);
        copied = at + 1;
    }
    out.extend_from_slice(&bytes[copied..]);
}

/// Whether a spelling is the canonical one: written again, it comes out the same.
pub fn is_canonical(spelling: &str, decoded: &str) -> bool {
    if !spelling.contains('\\') {
        return true; // control characters never stand unescaped, the scanner saw to that
    }
    let mut again = Vec::with_capacity(spelling.len());
    encode(decoded, &mut again);
    again == spelling.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(spelling: &str, expected: Option<&str>, canonical: bool) {
        let decoded = decode(spelling);
        assert_eq!(decoded.as_deref(), expected, "{spelling}");
        if let Some(decoded) = decoded {
            assert_eq!(is_canonical(spelling, &decoded), canonical, "{spelling}");
        }
    }

    #[test]
    fn spellings() {
        check("plain é", Some("plain é"), true);
        check(r"caf\u00e9", Some("café"), false);
        check(r#"a\"b\\c\n"#, Some("a\"b\\c\n"), true);
        check(r"a\/b", Some("a/b"), false);
        check(r"\u0001\u001f", Some("\u{1}\u{1f}"), true);
        check(r"\u001F", Some("\u{1f}"), false);
        check(r"\ud83d\ude00", Some("😀"), false);
        check(r"\ud83d", None, false);
        check(r"\ude00\ud83d", None, false);
        check(r"\ud83dx", None, false);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(text in any::<String>()) {
            let mut spelling = Vec::new();
            encode(&text, &mut spelling);
            let spelling = String::from_utf8(spelling).unwrap();
            let decoded = decode(&spelling);
            prop_assert_eq!(decoded.as_deref(), Some(text.as_str()));
            prop_assert!(is_canonical(&spelling, &text));
            prop_assert_eq!(serde_json::from_str::<String>(&format!("\"{spelling}\"")).unwrap(), text);
        }
    }
}
