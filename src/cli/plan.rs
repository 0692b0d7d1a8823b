//! Which input goes where: names, folders, suffixes, and what may not be written to.
//!
//! Links are refused and counted: one could lead out of a folder. Names of files can be names of people, so outputs get names of their own.

use super::convert::Common;
use super::say::LogFormat;
use crate::batch::{self, Job};
use crate::encoding::Coding;
use crate::rewrite::Format;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// One input and where its output goes.
pub struct Task {
    /// The file.
    pub input: PathBuf,
    /// `None`: standard output.
    pub output: Option<PathBuf>,
    /// How it is framed.
    pub format: Format,
    /// How it is packed.
    pub coding: Coding,
}

/// All tasks, in the order of names, and how many inputs were refused on sight.
pub struct Plan {
    /// What there is to do.
    pub tasks: Vec<Task>,
    /// Links, unknown suffixes.
    pub refused: u64,
}

/// Makes the plan. The error is a mistake of the command line, and nothing was written.
pub fn plan(common: &Common, job: &Job, log: LogFormat) -> Result<Plan, String> {
    let mut plan = Plan { tasks: Vec::new(), refused: 0 };
    if common.inputs.len() == 1 && !common.inputs[0].is_dir() {
        let input = common.inputs[0].clone();
        if let Some(output) = &common.output {
            if same_file(&input, output) {
                return Err("the output is the input; help: name another output".to_owned());
            }
            if output.is_dir() {
                return Err(format!("{} is a folder; help: of one input the output is a file", output.display()));
            }
        }
        plan.add(input, common.output.clone(), common, log);
        return Ok(plan);
    }
    let Some(folder) = &common.output else {
        return Err("several inputs need -o FOLDER".to_owned());
    };
    let occupied = folder.is_dir() && std::fs::read_dir(folder).is_ok_and(|mut d| d.next().is_some());
    if folder.exists() && !folder.is_dir() || occupied && !common.force {
        return Err(format!("{} is not an empty folder; help: name a new one, or use --force", folder.display()));
    }
    let mut outputs = BTreeSet::new();
    for input in &common.inputs {
        if input.is_dir() && within(folder, input) {
            return Err("the output folder lies in an input folder; help: name another folder".to_owned());
        }
        let (root, found) = if input.is_dir() {
            (input.as_path(), batch::files_below(input).map_err(|e| format!("{}: {e}", input.display()))?)
        } else {
            (input.parent().unwrap_or(Path::new("")), vec![input.clone()])
        };
        for file in found {
            let relative = file.strip_prefix(root).unwrap_or(&file);
            let output = folder.join(if common.keep_names { relative.to_owned() } else { nameless(relative, job) });
            if same_file(&file, &output) {
                return Err("an output is its input; help: name another folder".to_owned());
            }
            if !outputs.insert(output.clone()) {
                return Err(
                    "two inputs have the same output name; help: name their folder, or convert them apart".to_owned()
                );
            }
            plan.add(file, Some(output), common, log);
        }
    }
    Ok(plan)
}

impl Plan {
    fn add(&mut self, input: PathBuf, output: Option<PathBuf>, common: &Common, log: LogFormat) {
        let mut skip = |why: &str| {
            log.problem(&input.display().to_string(), &format!("skipped: {why}"));
            self.refused += 1;
        };
        if input.is_symlink() {
            return skip("a symbolic link");
        }
        let stated = common.format();
        let Some((suffix, coding)) = batch::kind(&input).or(stated.map(|format| (format, packed(&input)))) else {
            return skip(
                "unknown suffix; help: name it .json, .ndjson or .jsonl, each also .gz or .zst, or use --format",
            );
        };
        self.tasks.push(Task { input, output, format: stated.unwrap_or(suffix), coding });
    }
}

fn packed(path: &Path) -> Coding {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    Coding::of(&name).0
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// Whether an output folder, which may not be there yet, lies in an input folder.
fn within(folder: &Path, input: &Path) -> bool {
    let there = folder.ancestors().find_map(|part| {
        let part = if part.as_os_str().is_empty() { Path::new(".") } else { part };
        part.canonicalize().ok()
    });
    match (there, input.canonicalize()) {
        (Some(folder), Ok(input)) => folder.starts_with(input),
        _ => false,
    }
}

/// Bulk-style names stay (`Patient.000.ndjson`); any other part of a path may be somebody's name or number and becomes a keyed handle.
fn nameless(relative: &Path, job: &Job) -> PathBuf {
    const FORMATS: [&str; 5] = ["json", "ndjson", "jsonl", "gz", "zst"];
    let count = relative.components().count();
    let hidden = |text: &str| format!("doc-{}", job.engine.handle(text));
    relative
        .components()
        .enumerate()
        .map(|(n, part)| {
            let text = part.as_os_str().to_string_lossy();
            if n + 1 < count {
                return hidden(&text);
            }
            let words: Vec<&str> = text.split('.').collect();
            let formats = words.iter().rev().take_while(|w| FORMATS.contains(w)).count();
            let (stem, formats) = words.split_at(words.len() - formats);
            // A running number of a bulk export has at most four digits; longer ones may be a record number or a birth date.
            let bulk = match stem {
                [kind] => job.engine.rules().schema().resource(kind).is_some(),
                [kind, number] => {
                    job.engine.rules().schema().resource(kind).is_some()
                        && number.len() <= 4
                        && number.bytes().all(|b| b.is_ascii_digit())
                }
                _ => false,
            };
            if bulk { text.into_owned() } else { format!("{}.{}", hidden(&text), formats.join(".")) }
        })
        .collect()
}
