//! The leak check: no identifying value of the input may occur in the output more often than the input's kept leaves spell it.
//!
//! The output is any bytes: a file, or everything a cloud received on the wire. It is decoded in every way (JSON escapes,
//! percent, base64, twice), folded to lower case, our pseudonyms are cut out, and each identifying value is counted in it.
//! The same is done to the input's kept leaves, so that "Boston" in a code's display is no leak. Values under four
//! characters are counted as whole leaves only. Dates have their own check, at their own place: see [`unmoved_dates`].
//! Nothing of the product's code is used; only the spelling of its pseudonyms is known, in [`Spelling`].

use super::json::{self, Node};
use super::schema::{Kind, Place, Schema, percent_decoded};
use aho_corasick::{AhoCorasick, AhoCorasickKind};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// How the product spells what it makes up. Everything so spelled is cut out of the output before the search.
pub struct Spelling {
    /// The two symbols that open a token, as text; epoch, packing and length follow, see [`token_chars`].
    pub marker: &'static str,
    /// The bytes that open a token in a base64Binary.
    pub binary_marker: &'static [u8],
    /// The symbols that open an escaped foreign id.
    pub escape: &'static str,
    /// Literals that rewriting adds, as written.
    pub added: &'static [&'static str],
}

/// The product's spelling, as design §4 has it and the token room fixed it.
pub const SPELLING: Spelling = Spelling {
    marker: "Zq",
    binary_marker: &[0xC5, 0x79, 0x70, 0x74],
    escape: "Xj",
    added: &["<div xmlns=\"http://www.w3.org/1999/xhtml\">", "urn:cryptonym:seal", "urn:cryptonym:"],
};

/// Longest text searched as one; longer values are cut into pieces at lines, tags and words.
const PIECE_CHARS_MAX: usize = 64;
/// Shortest piece of a long value that is searched alone.
const PIECE_CHARS_MIN: usize = 12;

/// The identity in some documents, and what of them may be seen.
pub struct LeakCheck<'s> {
    schema: &'s Schema,
    spelling: &'s Spelling,
    /// Folded value to the place it was first seen at.
    values: HashMap<String, String>,
    kept: String,
    uuids: HashSet<String>,
    /// Paths that the pack under test keeps although the tables call them identity.
    keeps: fn(&str) -> bool,
}

/// One value that got out.
#[derive(Debug, Clone, PartialEq)]
pub struct Leak {
    pub path: String,
    pub value: String,
    pub in_output: u64,
    pub in_kept: u64,
}

/// All values that got out. Empty is what is hoped for.
#[derive(Debug, Default)]
pub struct Leaks(pub Vec<Leak>);

impl fmt::Display for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut by_path: BTreeMap<&str, Vec<&Leak>> = BTreeMap::new();
        for leak in &self.0 {
            by_path.entry(&leak.path).or_default().push(leak);
        }
        for (path, leaks) in by_path {
            write!(f, "\n{path}: {} values got out, such as", leaks.len())?;
            for leak in leaks.iter().take(3) {
                write!(f, " {:?} ({} times, kept leaves say it {} times)", leak.value, leak.in_output, leak.in_kept)?;
            }
        }
        Ok(())
    }
}

impl<'s> LeakCheck<'s> {
    pub fn new(schema: &'s Schema, spelling: &'s Spelling) -> Self {
        LeakCheck {
            schema,
            spelling,
            values: HashMap::new(),
            kept: String::new(),
            uuids: HashSet::new(),
            keeps: |_| false,
        }
    }

    /// The same for a pack that keeps some places on purpose.
    pub fn keeping(self, keeps: fn(&str) -> bool) -> Self {
        LeakCheck { keeps, ..self }
    }

    /// Takes one document of the input.
    pub fn input(&mut self, document: &str) -> Result<(), String> {
        let node = json::parse(document)?;
        self.uuids.extend(uuids(document).map(|u| u.to_lowercase()));
        self.uuids.extend(
            document.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| is_hash(w.as_bytes())).map(str::to_owned),
        );
        let mut identity = Vec::new();
        let keeps = self.keeps;
        let kept = &mut self.kept;
        self.schema.leaves(&node, &mut |place, kind, raw| match kind {
            kind if kind == Kind::Kept || keeps(&place.path) => {
                kept.push_str(raw);
                kept.push('\n');
            }
            Kind::Identity => identity.push((place.clone(), json::decoded(raw).into_owned())),
            Kind::Url => {
                let mut url = json::decoded(raw);
                if place.declared.ends_with(".ifNoneExist") {
                    // A query alone (R4 bundle-definitions, Bundle.entry.request.ifNoneExist).
                    url = format!("?{url}").into();
                }
                for (part, identifies) in self.schema.url_parts(&url) {
                    if identifies {
                        identity.push((place.clone(), percent_decoded(&part).into_owned()));
                    } else {
                        kept.push_str(&part);
                    }
                }
                kept.push('\n');
            }
            Kind::Kept | Kind::Date | Kind::ServerTime => {}
        });
        names(&node, &mut |name| {
            kept.push_str(&json::canonical(name));
            kept.push('\n');
        });
        for (place, value) in identity {
            self.identity(&place, &value);
        }
        Ok(())
    }

    /// Text that is known to be in the output for other reasons, such as HTTP header names.
    pub fn known(&mut self, text: &str) {
        self.kept.push_str(text);
        self.kept.push('\n');
    }

    fn identity(&mut self, place: &Place, value: &str) {
        let mut take = |text: &str| {
            let folded = text.trim().to_lowercase();
            if !folded.is_empty() && folded != "null" {
                self.values.entry(folded).or_insert_with(|| place.path.clone());
            }
        };
        if place.ty == "base64Binary" {
            take(&value.chars().take(PIECE_CHARS_MAX).collect::<String>());
            let bytes = base64_decoded(value.trim().as_bytes());
            if let Ok(text) = std::str::from_utf8(&bytes) {
                pieces(text).for_each(&mut take);
            }
        } else if place.ty == "xhtml" {
            value.split(['<', '>', '"']).filter(|piece| is_telling(piece)).flat_map(pieces).for_each(&mut take);
        } else if value.chars().count() > PIECE_CHARS_MAX {
            pieces(value).for_each(&mut take);
        } else {
            take(value);
        }
    }

    /// Searches the output.
    pub fn check(&self, output: &[u8]) -> Leaks {
        let raw = String::from_utf8_lossy(output);
        let (open, inside) = cut(&raw, self.spelling, &self.uuids);
        let dates_kept: &dyn Fn(&str) -> bool = &|literal| self.values.contains_key(literal);
        let seen = folded(&without_dates(&every_way(&open, self.spelling), dates_kept));
        let kept = folded(&without_dates(&every_way(&self.kept, self.spelling), dates_kept));

        let mut patterns: Vec<(String, &str)> = Vec::new();
        let mut short: Vec<&str> = Vec::new();
        for value in self.values.keys() {
            if value.chars().count() < 4 {
                short.push(value);
            } else {
                patterns.push((value.clone(), value));
                if value.contains(' ') {
                    patterns.push((value.replace(' ', "+"), value));
                }
            }
        }
        let mut counts: HashMap<&str, (u64, u64)> = HashMap::new();
        if !patterns.is_empty() {
            let machine = AhoCorasick::builder()
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(patterns.iter().map(|(pattern, _)| pattern))
                .expect("the values fit an automaton");
            for hit in machine.find_overlapping_iter(&seen) {
                counts.entry(patterns[hit.pattern().as_usize()].1).or_default().0 += 1;
            }
            for hit in machine.find_overlapping_iter(&kept) {
                counts.entry(patterns[hit.pattern().as_usize()].1).or_default().1 += 1;
            }
            // A pseudonym that is no pseudonym: the marker, then the value itself. Ten characters do not occur in ciphertext by chance.
            for hit in machine.find_overlapping_iter(&inside) {
                let value = patterns[hit.pattern().as_usize()].1;
                if value.len() >= 10 {
                    counts.entry(value).or_default().0 += 1;
                }
            }
        }
        let short: HashSet<&str> = short.into_iter().collect();
        for (text, in_output) in [(&seen, true), (&kept, false)] {
            for leaf in whole_leaves(text) {
                if let Some(value) = short.get(leaf) {
                    let count = counts.entry(value).or_default();
                    if in_output { count.0 += 1 } else { count.1 += 1 }
                }
            }
        }
        let mut leaks: Vec<Leak> = counts
            .into_iter()
            .filter(|(_, (in_output, in_kept))| in_output > in_kept)
            .map(|(value, (in_output, in_kept))| Leak {
                path: self.values[value].clone(),
                value: value.to_owned(),
                in_output,
                in_kept,
            })
            .collect();
        leaks.sort_by(|a, b| (&a.path, &a.value).cmp(&(&b.path, &b.value)));
        Leaks(leaks)
    }

    /// How many values are searched for.
    pub fn len(&self) -> usize {
        self.values.len()
    }
}

/// Dates that stand in the output where they stood in the input, unmoved. `before` and `after` are one document each.
/// What legally stays: a bare year, a sentinel, and a date whose kind says that it is a server's.
pub fn unmoved_dates(schema: &Schema, before: &str, after: &str) -> Result<Vec<String>, String> {
    let (before, after) = (json::parse(before)?, json::parse(after)?);
    let mut unmoved = Vec::new();
    super::roundtrip::side_by_side(schema, &before, &after, &mut |pair| {
        let Some(after) = pair.after else { return };
        let date = json::decoded(pair.before).into_owned();
        let sentinel = date.starts_with("9999-12-31") || date.starts_with("1900-01-01");
        if pair.kind == Kind::Date && date.len() > 4 && !sentinel && date == json::decoded(after) {
            unmoved.push(pair.place.path.clone());
        }
    });
    Ok(unmoved)
}

/// The pieces by which a long text is looked for: lines, cut further at spaces.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| {
        let mut rest = line.trim();
        let mut found = Vec::new();
        while !rest.is_empty() {
            let end = rest.char_indices().nth(PIECE_CHARS_MAX).map_or(rest.len(), |(at, _)| at);
            let end = if end == rest.len() {
                end
            } else {
                rest[..end].rfind(' ').filter(|&at| at >= PIECE_CHARS_MIN).unwrap_or(end)
            };
            found.push(rest[..end].trim());
            rest = rest[end..].trim_start();
        }
        found.into_iter().filter(|piece| piece.chars().count() >= PIECE_CHARS_MIN)
    })
}

/// Whether a piece of markup is text or an address, not a tag's name.
fn is_telling(piece: &str) -> bool {
    piece.chars().count() >= PIECE_CHARS_MIN && !piece.contains("www.w3.org/1999/xhtml") && !piece.ends_with('=')
}

/// Calls `visit` with each member name.
fn names(node: &Node, visit: &mut dyn FnMut(&str)) {
    match node {
        Node::Object(members) => members.iter().for_each(|m| {
            visit(&m.name);
            names(&m.value, visit);
        }),
        Node::Array(items) => items.iter().for_each(|i| names(i, visit)),
        Node::Scalar(_) => {}
    }
}

fn is_symbol(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')
}

/// The text with everything cut out that is spelled as a pseudonym of ours. UUIDs stay: they carry no mark.
pub fn without_pseudonyms(text: &str, spelling: &Spelling) -> String {
    let known = uuids(text).map(str::to_lowercase).collect();
    cut(text, spelling, &known).0
}

/// Parts a text into what is not pseudonym, and the inside of what was cut out as one (folded).
fn cut(text: &str, spelling: &Spelling, known_uuids: &HashSet<String>) -> (String, String) {
    let added: Vec<String> = spelling.added.iter().flat_map(|a| [(*a).to_owned(), a.replace('"', "\\\"")]).collect();
    let mut opens = [false; 256];
    let base64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        [usize::from(spelling.binary_marker[0] >> 2)];
    let firsts = [spelling.marker.as_bytes()[0], spelling.escape.as_bytes()[0], base64].into_iter();
    for byte in firsts.chain(added.iter().map(|a| a.as_bytes()[0])).chain(*b"0123456789abcdefABCDEF") {
        opens[usize::from(byte)] = true;
    }
    let mut open = String::with_capacity(text.len());
    let mut inside = String::new();
    let bytes = text.as_bytes();
    let mut copied = 0;
    let mut before = b' ';
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        // Whatever we make up starts after something that is no symbol of its alphabet.
        if !opens[usize::from(byte)] || (is_symbol(before) && is_symbol(byte)) {
            before = byte;
            at += 1;
            continue;
        }
        let rest = &bytes[at..];
        let length = pseudonym(rest, spelling, known_uuids)
            .or_else(|| added.iter().find(|a| rest.starts_with(a.as_bytes())).map(String::len));
        if let Some(length) = length {
            open.push_str(&text[copied..at]);
            open.push('\u{1}');
            inside.push_str(&text[at..at + length]);
            inside.push('\n');
            at += length;
            copied = at;
            before = b' ';
        } else {
            before = byte;
            at += 1;
        }
    }
    open.push_str(&text[copied..]);
    (open, inside.to_lowercase())
}

/// The length of the pseudonym at the start of `rest`, if there is one.
fn pseudonym(rest: &[u8], spelling: &Spelling, known_uuids: &HashSet<String>) -> Option<usize> {
    let run = rest.iter().position(|&b| !is_symbol(b)).unwrap_or(rest.len());
    if rest.starts_with(spelling.marker.as_bytes()) {
        return token_chars(&rest[..run]);
    }
    if rest.starts_with(spelling.escape.as_bytes()) && run > ESCAPE_CHARS {
        return Some(run);
    }
    if let Some(uuid) = rest.get(..36).filter(|u| is_uuid(u)) {
        let uuid = String::from_utf8_lossy(uuid).to_lowercase();
        return (!known_uuids.contains(&uuid)).then_some(36);
    }
    // A hash of a scope that ends with its document: 128 bits, hexadecimal. One that the input held is none of ours.
    if let Some(hash) = rest.get(..32).filter(|h| is_hash(h) && !rest.get(32).is_some_and(u8::is_ascii_alphanumeric)) {
        return (!known_uuids.contains(String::from_utf8_lossy(hash).as_ref())).then_some(32);
    }
    let base64 = rest.iter().position(|&b| !is_base64(b)).unwrap_or(rest.len());
    let head = &rest[..base64.min(8)];
    (base64 >= 24 && base64_decoded(head).starts_with(spelling.binary_marker)).then_some(base64)
}

/// Symbols of an escape before the foreign id: prefix 2, domain tag 2, MAC 8.
const ESCAPE_CHARS: usize = 12;

/// The length of the token at the start of a run of symbols, as its header tells it: marker 2, epoch 1, packing (2 bits) and length
/// (10 bits) 2, class 1; all bits of the length set: 4 symbols of length more; then SIV (16 bytes) and text, 6 bits a symbol.
fn token_chars(run: &[u8]) -> Option<usize> {
    let symbol = |at: usize| match *run.get(at)? {
        b @ b'A'..=b'Z' => Some(usize::from(b - b'A')),
        b @ b'a'..=b'z' => Some(usize::from(b - b'a') + 26),
        b @ b'0'..=b'9' => Some(usize::from(b - b'0') + 52),
        b'-' => Some(62),
        _ => Some(63),
    };
    let (high, low) = (symbol(3)?, symbol(4)?);
    let (mut length, mut chars) = ((high & 15) << 6 | low, 6);
    if length == 1023 {
        length = symbol(6)? << 18 | symbol(7)? << 12 | symbol(8)? << 6 | symbol(9)?;
        chars = 10;
    }
    let text = if high >> 4 == 1 { (length * 6).div_ceil(8) } else { length };
    let chars = chars + ((16 + text) * 8).div_ceil(6);
    (chars <= run.len()).then_some(chars)
}

/// Thirty-two lower-case hexadecimal digits, with letters and digits among them.
fn is_hash(text: &[u8]) -> bool {
    text.len() == 32
        && text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && text.iter().any(u8::is_ascii_digit)
        && text.iter().any(u8::is_ascii_lowercase)
}

fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text
            .iter()
            .enumerate()
            .all(|(i, &b)| if matches!(i, 8 | 13 | 18 | 23) { b == b'-' } else { b.is_ascii_hexdigit() })
}

/// Everything in `text` that is spelled as a UUID.
fn uuids(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices('-').filter_map(|(at, _)| {
        let start = at.checked_sub(8)?;
        let uuid = text.get(start..start + 36)?;
        is_uuid(uuid.as_bytes()).then_some(uuid)
    })
}

/// The text with escapes undone twice and percent-encoding once, and everything in it that base64 could have said.
pub fn every_way(text: &str, spelling: &Spelling) -> String {
    let mut out = json::unescape(text);
    if out.contains('\\') {
        out = json::unescape(&out);
    }
    let mut out = percent_decoded(&out).into_owned();
    let mut said = String::new();
    for run in out.as_bytes().split(|&b| !is_base64(b)).filter(|run| run.len() >= 8) {
        // A shifted reading counts only with sixteen printable bytes, which 22 characters say.
        for skip in 0..if run.len() < 25 { 1 } else { 4 } {
            let bytes = base64_decoded(&run[skip..]);
            if bytes.starts_with(spelling.binary_marker) {
                continue;
            }
            // Chance makes short printable stretches of any bytes: only a whole run, or sixteen in a row, is speech.
            let least = if skip == 0 { bytes.len().min(16) } else { 16 };
            let speech = |b: &u8| *b >= b' ' || b.is_ascii_whitespace();
            if !bytes.split(|b| !speech(b)).any(|stretch| stretch.len() >= least) {
                continue;
            }
            for stretch in String::from_utf8_lossy(&bytes)
                .split(|c: char| c == '\u{FFFD}' || (c.is_control() && !c.is_whitespace()))
            {
                if stretch.len() >= least && !stretch.is_empty() {
                    said.push('\u{1}');
                    said.push_str(&percent_decoded(&json::unescape(stretch)));
                }
            }
        }
    }
    out.push_str(&said);
    out
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
}

/// What base64 (or base64url) says, white space and all else skipped; the last incomplete group is dropped.
pub fn base64_decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut word, mut bits) = (0u32, 0);
    for &byte in text {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => continue,
        };
        word = word << 6 | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
        }
    }
    out
}

/// String literals that are dates, taken out: a moved date must not count as somebody's house number.
fn without_dates(text: &str, keep: &dyn Fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, literal) in text.split('"').enumerate() {
        if index > 0 {
            out.push('"');
        }
        if !is_date(literal) || keep(literal) {
            out.push_str(literal);
        }
    }
    out
}

/// `YYYY`, `YYYY-MM`, `YYYY-MM-DD`, with a time perhaps.
pub fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = |mask: &[u8]| {
        mask.len() <= bytes.len()
            && mask.iter().zip(bytes).all(|(m, b)| if *m == b'0' { b.is_ascii_digit() } else { m == b })
    };
    match bytes.len() {
        4 => shape(b"0000"),
        7 => shape(b"0000-00"),
        10 => shape(b"0000-00-00"),
        17.. => {
            shape(b"0000-00-00T00:00")
                && bytes[16..].iter().all(|b| b.is_ascii_digit() || matches!(b, b':' | b'.' | b'+' | b'-' | b'Z'))
        }
        _ => false,
    }
}

fn folded(text: &str) -> String {
    text.to_lowercase()
}

/// Texts that stand alone: string literals, and the parts of request lines between `/ ? & = | ,` and spaces.
fn whole_leaves(text: &str) -> impl Iterator<Item = &str> {
    let lines = text
        .lines()
        .filter(|line| line.contains(" http/1."))
        .flat_map(|line| line.split(['/', '?', '&', '=', '|', ',', ' ']));
    text.split('"').map(str::trim).chain(lines).filter(|leaf| !leaf.is_empty() && leaf.len() <= 12)
}
