//! `--rules`: an embedded pack by name, or a file.

use crate::rules::{Compiled, packs};

/// Loads and compiles rules. Every mistake, each with file and line.
pub fn load(name_or_path: &str) -> Result<Compiled, Vec<String>> {
    let yaml = match packs::embedded(name_or_path) {
        Some(yaml) => yaml.to_owned(),
        None => std::fs::read_to_string(name_or_path).map_err(|error| {
            let known: Vec<&str> = packs::PACKS.iter().map(|(name, _)| *name).collect();
            vec![format!("{name_or_path}: cannot read: {error}; help: name a file, or one of the packs {}", known.join(", "))]
        })?,
    };
    Compiled::new(&yaml).map_err(|mistakes| mistakes.iter().map(|m| format!("{name_or_path}:{}: {}; help: {}", m.line, m.what, m.advice)).collect())
}
