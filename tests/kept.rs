//! Nothing lost: every leaf whose rule is `keep` is in the output byte for byte, over every set of public records and every pack.
//!
//! Which rule a leaf has is `explain`'s word; that the rewriter does it is looked at here with the tests' own reader. A kept leaf may go
//! only with the smallest enclosing element in which something had to go; under the packs that lose nothing none does. Prints, for each pack, how many leaves were kept, changed, removed.

mod support;

use cryptonym::rules::Compiled;
use cryptonym::rules::explain::explain;
use cryptonym::rules::tree::Tree;
use std::collections::BTreeMap;
use support::corpora::{self, say};
use support::inside::{self, RELEASES, engine, packs_of};
use support::json::{self, Node};

/// Every leaf by its path with indexes, in the order of the document, as spelled.
fn leaves<'a>(node: &Node<'a>, path: &str, found: &mut BTreeMap<String, &'a str>) {
    match node {
        Node::Object(members) => {
            let ty = node.get("resourceType").and_then(|n| n.text());
            let path = if path.is_empty() { ty.unwrap_or_default().into_owned() } else { path.to_owned() };
            for member in members {
                leaves(&member.value, &format!("{path}.{}", member.name), found);
            }
        }
        Node::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                leaves(item, &format!("{path}[{index}]"), found);
            }
        }
        Node::Scalar("null") => {}
        Node::Scalar(raw) => drop(found.insert(path.to_owned(), raw)),
    }
}

/// The path without indexes: elements before a removed one move up.
fn shape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

/// The extension in the place of a required element whose content had to go.
const ABSENT: &str = "\"http://hl7.org/fhir/StructureDefinition/data-absent-reason\"";

#[derive(Default)]
struct Table {
    documents: usize,
    leaves: BTreeMap<&'static str, usize>,
    kept: usize,
    along: usize,
}

/// Holds one document beside its output; adds to the table. Faults: `place TAB what`.
fn hold(compiled: &Compiled, before: &str, after: &str, table: &mut Table, faults: &mut BTreeMap<String, usize>) {
    let (Ok(node), Ok(tree)) = (json::parse(before), serde_json::from_str::<Tree>(before)) else { return };
    let (mut input, mut output) = (BTreeMap::new(), BTreeMap::new());
    leaves(&node, "", &mut input);
    leaves(&json::parse(after).expect("output is JSON"), "", &mut output);
    let mut there: BTreeMap<(String, &str), usize> = BTreeMap::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (path, raw) in output {
        *places.entry(shape(&path)).or_default() += 1;
        *there.entry((shape(&path), raw)).or_default() += 1;
    }
    table.documents += 1;
    let mut missing: BTreeMap<String, usize> = BTreeMap::new();
    let mut removed = Vec::new();
    for line in explain(compiled, &tree) {
        *table.leaves.entry(line.action).or_default() += 1;
        if line.action != "keep" {
            // What is generalized goes where no true value says less.
            removed.extend(matches!(line.action, "remove" | "generalize").then(|| shape(&line.path)));
            continue;
        }
        let raw =
            input.get(&line.path).unwrap_or_else(|| panic!("explain names a place that is not there: {}", line.path));
        let place = shape(&line.path);
        match there.get_mut(&(place.clone(), raw)) {
            Some(count) if *count > 0 => {
                *count -= 1;
                table.kept += 1;
            }
            _ => *missing.entry(place).or_default() += 1,
        }
    }
    for (place, count) in missing {
        // What is there and is none of the kept leaves is a changed one, but for the mark of an element that had to go.
        if there.iter().any(|((p, raw), n)| *p == place && *n > 0 && *raw != ABSENT) {
            *faults.entry(format!("{place}: changed")).or_default() += count;
        }
        // It may have gone with an element around, below the resource, in which something had to go.
        let mut around = place.as_str();
        let mut excused = false;
        while let Some((outer, _)) = around.rsplit_once('.').filter(|(outer, _)| outer.contains('.')) {
            around = outer;
            excused |= removed.iter().any(|r| r.strip_prefix(around).is_some_and(|rest| rest.starts_with('.')));
        }
        if !excused {
            *faults.entry(format!("{place}: gone, and nothing around it had to go")).or_default() += count;
        }
        table.along += count;
    }
}

#[test]
fn every_kept_leaf_of_every_public_record_is_there_byte_for_byte() {
    let mut found = Vec::new();
    for release in RELEASES {
        if corpora::shared().is_none() {
            return;
        }
        for (pack, yaml) in packs_of(release) {
            let compiled = Compiled::new(yaml).expect("a shipped pack loads");
            let mut rewriter = inside::outward(&engine(yaml));
            let (mut table, mut faults) = (Table::default(), BTreeMap::new());
            for (set, _) in corpora::FHIR_SETS.iter().filter(|(_, releases)| releases.contains(release)) {
                for path in corpora::files_below(set, 10) {
                    let Some(file) = corpora::read(&path) else { continue };
                    for document in file.documents() {
                        if let Ok(output) = inside::document(&mut rewriter, document) {
                            hold(&compiled, document, &output, &mut table, &mut faults);
                        }
                    }
                }
            }
            say(&format!(
                "{pack}: {} documents; rules say {:?}; of those to keep {} are there byte for byte, {} went with an element around",
                table.documents, table.leaves, table.kept, table.along
            ));
            found.extend(faults.iter().map(|(place, count)| format!("{pack}\t{place}\t{count} times")));
            assert!(!pack.ends_with("reversible") || table.along == 0, "{pack} loses nothing");
        }
    }
    assert!(found.is_empty(), "{} kept leaves are not there:\n{}", found.len(), found.join("\n"));
}
