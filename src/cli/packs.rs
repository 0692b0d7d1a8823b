//! `--rules`: an embedded pack by name, or a file.

use crate::rules::{Compiled, Mistake, packs};

/// Largest rule file, in bytes. The shipped packs have some ten thousand.
const RULE_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The text of a rule file.
pub fn read(name_or_path: &str) -> Result<String, Vec<String>> {
    if let Some(yaml) = packs::embedded(name_or_path) {
        return Ok(yaml.to_owned());
    }
    let known = || packs::PACKS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let unreadable = |error: std::io::Error| {
        vec![format!("{name_or_path}: cannot read: {error}; help: name a file, or one of the packs {}", known())]
    };
    let size = std::fs::metadata(name_or_path).map_err(unreadable)?.len();
    if size > RULE_FILE_BYTES_MAX {
        return Err(vec![format!("{name_or_path}: over {RULE_FILE_BYTES_MAX} bytes, so it is not a rule file")]);
    }
    std::fs::read_to_string(name_or_path).map_err(unreadable)
}

/// Loads and compiles rules. Every mistake, each with file and line.
pub fn load(name_or_path: &str) -> Result<Compiled, Vec<String>> {
    Compiled::new(&read(name_or_path)?).map_err(|mistakes| written(name_or_path, &mistakes))
}

/// Mistakes as `FILE:LINE: WHAT; help: ADVICE`.
pub fn written(name: &str, mistakes: &[Mistake]) -> Vec<String> {
    mistakes.iter().map(|m| place(name, m.line, m.column, format_args!("{}; help: {}", m.what, m.advice))).collect()
}

/// `FILE:LINE:COLUMN: WHAT`; line 0 is the file as a whole, column 0 the line.
pub fn place(file: &str, line: u64, column: u64, what: std::fmt::Arguments<'_>) -> String {
    match column {
        0 => format!("{file}:{line}: {what}"),
        _ => format!("{file}:{line}:{column}: {what}"),
    }
}
