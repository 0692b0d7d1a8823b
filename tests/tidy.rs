//! The architecture, held by a test: which room may know which, and what no room of the core may touch.
//!
//! It reads the sources as text. `findings` takes them as pairs of path and text, so that each rule is tried here on a
//! page that breaks it; the last test reads the real pages.

use std::collections::BTreeSet;
use std::path::Path;

/// Each room, and the rooms it may mention: those to its left in the arrow of design §9. A room that is not here is a finding.
const ROOMS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("secret", &[]),
    ("names", &["limits", "secret"]),
    ("policy", &["limits", "secret", "names"]),
    ("token", &["limits", "secret", "names", "policy"]),
    ("action", &["limits", "secret", "names", "policy", "token", "fhir"]),
    ("fhir", &["limits", "names"]),
    ("rules", &["limits", "secret", "names", "policy", "token", "action", "fhir"]),
    ("rewrite", &["limits", "secret", "names", "policy", "token", "action", "fhir", "rules"]),
    ("audit", &["limits", "secret", "names", "policy"]),
    ("encoding", &["limits"]),
    ("batch", CORE),
    ("proxy", CORE),
    ("config", SHELL),
    (
        "cli",
        &[
            "limits", "secret", "names", "policy", "token", "action", "fhir", "rules", "rewrite", "audit", "encoding",
            "batch", "proxy", "config",
        ],
    ),
];

/// The rooms that know no socket, file, clock or chance.
const CORE: &[&str] =
    &["limits", "secret", "names", "policy", "token", "action", "fhir", "rules", "rewrite", "audit", "encoding"];

const SHELL: &[&str] = &[
    "limits", "secret", "names", "policy", "token", "action", "fhir", "rules", "rewrite", "audit", "encoding", "batch",
    "proxy",
];

/// What the core never names. Words end where identifiers do: `Instant` is also a FHIR type, `Instant::now` is not.
const FORBIDDEN_IN_CORE: &[&str] = &[
    "tokio",
    "hyper",
    "rustls",
    "std::fs",
    "std::net",
    "std::time",
    "std::env",
    "std::process",
    "std::thread",
    "getrandom",
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
    "SystemTime",
    "Instant::now",
];

/// What no page has when it is committed.
const FORBIDDEN: &[&str] = &["todo!", "unimplemented!", "dbg!", "TODO", "FIXME", "#[ignore"];

/// The one page that may allow `unsafe`: the lint denies it everywhere else.
const UNSAFE_PAGE: &str = "rewrite/simd.rs";

fn findings(pages: &[(String, String)]) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in pages {
        if !text.starts_with("//!") {
            findings.push(format!("{path}: opens without a letter to its reader (//!)"));
        }
        for word in FORBIDDEN.iter().filter(|word| has_word(text, word)) {
            findings.push(format!("{path}: {word}"));
        }
        if path != UNSAFE_PAGE && has_word(&without_comments(text), "unsafe_code") {
            findings.push(format!("{path}: unsafe stands in {UNSAFE_PAGE} only"));
        }
        let room = path.split(['/', '.']).next().unwrap_or_default();
        if matches!(room, "lib" | "main") {
            continue;
        }
        let Some((_, may)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            findings.push(format!("{path}: the room `{room}` is in no list of tests/tidy.rs: say what it may know"));
            continue;
        };
        let code = without_comments(text);
        for known in mentioned(&code) {
            let is_room = ROOMS.iter().any(|(name, _)| *name == known);
            if is_room && known != room && !may.contains(&known.as_str()) {
                findings.push(format!("{path}: `{room}` knows `{known}`, which is not to its left"));
            }
        }
        if CORE.contains(&room) && !is_test_page(path) {
            // Tests of the core may read files; the core may not.
            let code = code.split("#[cfg(test)]").next().unwrap_or_default();
            for word in FORBIDDEN_IN_CORE.iter().filter(|word| has_word(code, word)) {
                findings.push(format!("{path}: the core touches {word}"));
            }
        }
    }
    findings
}

fn is_test_page(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The text without comments that fill a line or follow code. A `//` inside a string ends the line for us, which only hides string.
fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Whether `word` stands in `text` with no identifier character around it.
fn has_word(text: &str, word: &str) -> bool {
    let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word).any(|(at, _)| {
        let ends_open = word.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let touches =
            joins(text[..at].chars().next_back()) || (ends_open && joins(text[at + word.len()..].chars().next()));
        !touches
    })
}

/// The rooms that stand behind `crate::`, one by one or in braces.
fn mentioned(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, head) in code.match_indices("crate::") {
        let rest = &code[at + head.len()..];
        match rest.strip_prefix('{') {
            None => drop(rooms.insert(identifier(rest))),
            Some(list) => {
                let (mut depth, mut first) = (0, true);
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => first = true,
                        c if first && c.is_alphabetic() => {
                            rooms.insert(identifier(&list[at..]));
                            first = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    rooms
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The stable texts of the codes in `src/rewrite/refusal.rs`: `Name = "text", status, ...`.
fn codes(refusal: &str) -> Vec<&str> {
    refusal
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.trim().split_once(" = \"")?;
            let (code, rest) = rest.split_once('"')?;
            let status = rest.strip_prefix(", ")?.split(',').next()?;
            (name.starts_with(char::is_uppercase) && status.parse::<u16>().is_ok()).then_some(code)
        })
        .collect()
}

/// Codes that the page does not explain, and codes it explains that are none.
fn undocumented(refusal: &str, page: &str) -> Vec<String> {
    let codes = codes(refusal);
    codes
        .iter()
        .filter(|code| !page.contains(&format!("`{code}`")))
        .map(|code| format!("docs/errors.md does not explain `{code}`"))
        .collect()
}

/// All files of a folder and the folders in it.
fn files(folder: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                files(&path, into);
            }
        } else {
            into.push(path);
        }
    }
}

fn page(path: &str, text: &str) -> Vec<(String, String)> {
    vec![(path.to_owned(), text.to_owned())]
}

#[test]
fn each_rule_finds_the_page_that_breaks_it() {
    let broken = [
        ("token/mod.rs", "use x;", "letter"),
        ("token/mod.rs", "//! x\nfn f() { todo!() }", "todo!"),
        ("token/mod.rs", "//! x\nuse crate::rewrite::Engine;", "not to its left"),
        ("fhir/mod.rs", "//! x\nuse crate::{limits, token::{Keyring, fhir}};", "`fhir` knows `token`"),
        ("fhir/mod.rs", "//! x\nfn f() -> crate::secret::Phi { g() }", "`fhir` knows `secret`"),
        ("batch/mod.rs", "//! x\nuse crate::proxy::Listener;", "`batch` knows `proxy`"),
        ("proxy/mod.rs", "//! x\nuse crate::config::Config;", "`proxy` knows `config`"),
        ("stray/mod.rs", "//! x", "no list"),
        ("token/mod.rs", "//! x\nuse std::fs;", "std::fs"),
        ("rewrite/json.rs", "//! x\nlet now = std::time::Instant::now();", "std::time"),
        ("action/shift.rs", "//! x\nfn f() { println!(\"x\") }", "println!"),
        ("audit/mod.rs", "//! x\nasync fn f() { tokio::spawn(g()) }", "tokio"),
        ("rewrite/json.rs", "//! x\n#![allow(unsafe_code)]", "only"),
    ];
    for (path, text, word) in broken {
        let found = findings(&page(path, text));
        assert!(found.iter().any(|f| f.contains(word)), "{path} {text:?}: {found:?}");
    }
    let tidy = [
        (
            "token/mod.rs",
            "//! x\n/// See [`crate::rewrite`], tokio.\nuse crate::{limits::MAX, names::{Class, Domain}};",
        ),
        ("fhir/date.rs", "//! x\nuse Primitive::Instant;\nfn blueprintln() {}"),
        ("fhir/date.rs", "//! x\n#[cfg(test)]\nmod tests { use std::fs; }"),
        ("proxy/mod.rs", "//! x\nuse crate::rewrite::Engine;\nuse std::net::SocketAddr;"),
        ("main.rs", "//! x\nfn main() {}"),
    ];
    for (path, text) in tidy {
        assert_eq!(findings(&page(path, text)), [""; 0]);
    }
    let refusal = "    BadJson = \"bad-json\", 400, \"w\", \"a\";\n    let other = \"no\";\n    Empty = \"empty\", 422, \"w\", \"a\";";
    assert_eq!(codes(refusal), ["bad-json", "empty"]);
    assert_eq!(undocumented(refusal, "`bad-json` is"), ["docs/errors.md does not explain `empty`"]);
}

#[test]
fn the_pages_are_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    let pages: Vec<(String, String)> = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| {
            (
                path.strip_prefix(&root).expect("below src").to_string_lossy().into_owned(),
                std::fs::read_to_string(path).expect("a source page"),
            )
        })
        .collect();
    assert!(pages.len() >= 6, "the sources are where they should be");
    let findings = findings(&pages);
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

/// No page names the machine it was written on.
#[test]
fn no_page_names_a_machine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["src", "tests", "benches", "fuzz", "rules", "docs", "certs", ".ci"] {
        files(&root.join(folder), &mut paths);
    }
    paths.extend(["Cargo.toml", "README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| root.join(name)));
    let machine = concat!("/wo", "rk/");
    let named: Vec<_> =
        paths.iter().filter(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains(machine))).collect();
    assert!(named.is_empty(), "{named:?}");
}

/// Every code of a refusal is explained in docs/errors.md (contract §3).
#[test]
#[allow(clippy::print_stdout)]
fn every_code_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (Ok(refusal), Ok(page)) = (
        std::fs::read_to_string(root.join("src/rewrite/refusal.rs")),
        std::fs::read_to_string(root.join("docs/errors.md")),
    ) else {
        println!("skipped: no codes or no page about them yet");
        return;
    };
    assert!(!codes(&refusal).is_empty(), "the codes are where this test looks for them");
    let undocumented = undocumented(&refusal, &page);
    assert!(undocumented.is_empty(), "\n{}", undocumented.join("\n"));
}
