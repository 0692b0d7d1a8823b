//! The packs that ship: each file under `rules/` is what its source says for its release, and every line says why.
//!
//! Twelve files kept by hand would drift apart, so four sources under `rules/source/` say what differs between releases, and
//! `CRYPTONYM_WRITE=1 cargo test --test packs` writes the files anew. What they do is tested elsewhere, through the rewriter.

use cryptonym::rules::coverage::coverage;
use cryptonym::rules::{Compiled, Rule, packs};
use std::path::{Path, PathBuf};

const RELEASES: [&str; 3] = ["R4", "R4B", "R5"];
const SOURCES: [&str; 4] = ["safe-harbor", "limited-data-set", "pseudonymized", "reversible"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// What a source says for one release: a line `@R4,R5 ...` is for these alone; `$release` and `$r` are the release's name.
fn render(source: &str, release: &str) -> String {
    let mut text = String::new();
    for line in source.lines() {
        let line = match line.strip_prefix('@') {
            None => line,
            Some(marked) => {
                let (releases, line) = marked.split_once(' ').expect("a mark, a space, the line");
                assert!(releases.split(',').all(|name| RELEASES.contains(&name)), "{line}");
                if !releases.split(',').any(|name| name == release) {
                    continue;
                }
                line
            }
        };
        text.push_str(&line.replace("$release", release).replace("$r", &release.to_lowercase()));
        text.push('\n');
    }
    text
}

/// A file is as expected, or is written so where that was asked for.
#[track_caller]
fn current(path: &Path, expected: &str) {
    if std::env::var_os("CRYPTONYM_WRITE").is_some() {
        std::fs::write(path, expected).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == expected, "{} is not current: CRYPTONYM_WRITE=1 cargo test --test packs", path.display());
}

#[test]
fn every_pack_is_what_its_source_says() {
    for source in SOURCES {
        let text = std::fs::read_to_string(root().join(format!("rules/source/{source}.yaml.in"))).unwrap();
        for release in RELEASES {
            let name = format!("fhir-{}-{source}", release.to_lowercase());
            current(&root().join(format!("rules/{name}.yaml")), &render(&text, release));
        }
    }
}

#[test]
fn every_pack_loads_and_is_what_its_name_says() {
    let mut names = Vec::new();
    for source in SOURCES {
        for release in RELEASES {
            let name = format!("fhir-{}-{source}", release.to_lowercase());
            let yaml = packs::embedded(&name).unwrap_or_else(|| panic!("{name} is not embedded"));
            let rules = Compiled::new(yaml).unwrap_or_else(|mistakes| panic!("{name}: {mistakes:#?}"));
            assert_eq!((rules.name.as_str(), rules.release.name()), (name.as_str(), release));
            assert_eq!(rules.lossy(), source != "reversible", "{name}");
            names.push(name);
        }
    }
    let embedded = packs::PACKS.iter().map(|(name, _)| *name).filter(|name| name.starts_with("fhir-"));
    assert_eq!(embedded.count(), names.len());
}

/// The reason of a rule is its `why`, or stands behind it in the file. It cites the list, or says that the list has no such thing.
#[test]
fn every_rule_says_why() {
    let mut silent = Vec::new();
    for (name, yaml) in packs::PACKS.iter().filter(|(name, _)| name.starts_with("fhir-")) {
        for rule in Compiled::new(yaml).unwrap().rules {
            let why = reason(yaml, Some(&rule));
            if !why.starts_with('(') && !why.starts_with("not on the list") {
                silent.push(format!("{name}:{} {}", rule.line, rule.name));
            }
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

/// The letter at the head of a rule file, as one paragraph.
fn letter(yaml: &str) -> String {
    let lines = yaml.lines().map_while(|line| line.strip_prefix("# "));
    lines.collect::<Vec<_>>().join(" ")
}

/// The line of a rule file at which a rule stands. The two of `codes:` share one in the compiled rules.
fn line<'y>(yaml: &'y str, rule: &Rule) -> (usize, &'y str) {
    let listed = |(_, line): &(usize, &str)| line.contains("keep_systems:");
    let found = match rule.name.as_str() {
        "codes.keep_systems" => yaml.lines().enumerate().find(listed),
        _ => yaml.lines().enumerate().nth(rule.line as usize - 1),
    };
    let (index, text) = found.expect("a rule stands in its file");
    (index + 1, text)
}

/// Why a rule is there: its `why`, or what stands behind it in the file.
fn reason(yaml: &str, rule: Option<&Rule>) -> String {
    let Some(rule) = rule else { return "ids of definitions, which canonical URLs name".to_owned() };
    let written = || line(yaml, rule).1.split_once(" # ").map(|(_, why)| why);
    rule.why.as_deref().or_else(written).unwrap_or_default().to_owned()
}

/// The rule by which elements are decided, as it is written in the file, and where.
fn cited(yaml: &str, rule: Option<&Rule>) -> String {
    let Some(rule) = rule else { return "the release itself".to_owned() };
    let (number, text) = line(yaml, rule);
    let key = text.trim().trim_start_matches("- path: ").split(": ").next().unwrap_or_default();
    let key = if rule.name.starts_with("codes.") { &rule.name } else { key };
    format!("`{}`, line {number}", key.replace('|', " "))
}

/// `Type.a`, `Type.b`, `Other.c` as `Type` a, b; `Other` c.
fn compact(paths: &[&str]) -> String {
    let mut owners: Vec<(&str, Vec<&str>)> = Vec::new();
    for path in paths {
        let (owner, member) = path.rsplit_once('.').unwrap_or(("", path));
        match owners.last_mut() {
            Some((last, members)) if *last == owner => members.push(member),
            _ => owners.push((owner, vec![member])),
        }
    }
    let owners = owners.iter().map(|(owner, members)| format!("**{owner}** {}", members.join(", ")));
    owners.collect::<Vec<_>>().join("; ")
}

/// The page of a pack: what an officer reads before signing.
fn page(name: &str, yaml: &str) -> String {
    let rules = Compiled::new(yaml).unwrap();
    let inventory = coverage(&rules);
    let counts: Vec<String> = inventory.by_action.iter().map(|(action, n)| format!("{n} {action}")).collect();
    let mut text = format!(
        "# {name}\n\n<!-- Written by tests/packs.rs from rules/{name}.yaml; do not edit. -->\n\n{}\n\nFHIR {}, claim `{}`. {} elements with a value: {}. An element \
         that is decided in several ways counts under the most open of them.\n",
        letter(yaml),
        rules.release.name(),
        yaml.lines().find_map(|line| line.strip_prefix("claim: ")).unwrap_or_default(),
        inventory.elements,
        counts.join(", "),
    );
    type Group<'g> = ((usize, &'g str, Option<&'g Rule>), Vec<&'g str>);
    let mut groups: Vec<Group<'_>> = Vec::new();
    for row in &inventory.rows {
        let line = row.rule.map_or(0, |rule| line(yaml, rule).0);
        let does = if row.does.ends_with(".id)") { "token of its type" } else { &row.does };
        let same = |group: &&mut Group<'_>| group.0.0 == line && group.0.1 == does;
        match groups.iter_mut().find(same) {
            Some((_, paths)) if paths.last() != Some(&row.path.as_str()) => paths.push(&row.path),
            Some(_) => {}
            None => groups.push(((line, does, row.rule), vec![&row.path])),
        }
    }
    groups.sort_by_key(|((line, does, _), _)| (*line, *does));
    let (kept, changed): (Vec<&Group<'_>>, Vec<&Group<'_>>) = groups.iter().partition(|group| group.0.1 == "keep");
    text.push_str("\n## What crosses in clear\n\n| rule | elements | why |\n|---|---|---|\n");
    for ((_, _, rule), paths) in &kept {
        text.push_str(&format!("| {} | {} | {} |\n", cited(yaml, *rule), paths.len(), reason(yaml, *rule)));
    }
    text.push_str("\n## What becomes what\n\n| what | rule | elements, for example | why |\n|---|---|---|---|\n");
    for ((_, does, rule), paths) in &changed {
        let mut examples: Vec<String> = paths.iter().take(3).map(|path| format!("`{path}`")).collect();
        if paths.len() > 3 {
            examples.push(format!("{} more", paths.len() - 3));
        }
        text.push_str(&format!(
            "| {does} | {} | {} | {} |\n",
            cited(yaml, *rule),
            examples.join(", "),
            reason(yaml, *rule)
        ));
    }
    text.push_str("\n## Every element that crosses in clear\n");
    for ((_, _, rule), paths) in &kept {
        text.push_str(&format!("\nBy {}: {}.\n", cited(yaml, *rule), compact(paths)));
    }
    text
}

/// The pages under `docs/packs/` say what the packs do: they are made from the automaton that rewrites.
#[test]
fn every_page_is_current() {
    for (name, yaml) in packs::PACKS.iter().filter(|(name, _)| name.starts_with("fhir-")) {
        current(&root().join(format!("docs/packs/{name}.md")), &page(name, yaml));
    }
}
