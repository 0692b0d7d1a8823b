//! The command line beside files: rules, keys, audit, help. One door: words in; exit code, both outputs and files out.

mod cli_support;

use cli_support::{Desk, pack};
use serde_json::Value;

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

// === rules ===

#[test]
fn rule_files_carry_their_tests() {
    let desk = Desk::new("cli-test");
    let with = |tests: &str| pack("fhir-r4-pseudonymized") + "tests:\n" + tests;
    desk.write(
        "good.yaml",
        with(
            "  - name: a name never leaves
    input: { resourceType: Patient, gender: male, multipleBirthInteger: 2, name: [{ family: Ng }] }
    expect: { multipleBirthInteger: 2, resourceType: Patient, gender: male }
  - name: what is no element is refused
    input: { resourceType: Patient, nme: 1 }
    refuse: unknown-element
",
        ),
    );
    assert_eq!(desk.run("test good.yaml").with(0).out, "2 passed, 0 failed\n");

    desk.write(
        "bad.yaml",
        with(
            "  - name: gender goes
    input: { resourceType: Patient, gender: male, active: true }
    expect: { resourceType: Patient, active: false }
  - name: refused
    input: { resourceType: Patient }
    refuse: empty
",
        ),
    );
    let done = desk.run("test good.yaml bad.yaml").with(1);
    assert_eq!(done.out, "2 passed, 2 failed\n");
    for line in ["- $.active: false", "+ $.active: true", "+ $.gender: \"male\"", "expected: refused[empty]"] {
        assert!(done.err.contains(line), "{line}: {}", done.err);
    }
    desk.write("neither.yaml", with("  - name: nothing\n    input: {}\n"));
    let done = desk.run("test neither.yaml").with(78);
    assert!(done.err.contains("expects nothing, or two things"), "{}", done.err);
    // Tokens of the test key are the same everywhere, and come back.
    desk.write(
        "token.yaml",
        with(
            "  - name: id\n    input: { resourceType: Patient, id: p }\n    expect: { resourceType: Patient, id: x }\n",
        ),
    );
    let token = |desk: &Desk| {
        let err = desk.run("test token.yaml").with(1).err;
        err.split("+ $.id: \"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let first = token(&desk);
    assert_eq!(first, token(&desk));
    desk.write(
        "back.yaml",
        with(&format!(
            "  - name: id\n    reveal: true\n    input: {{ resourceType: Patient, id: {first} }}\n    expect: {{ resourceType: Patient, id: p }}\n"
        )),
    );
    desk.run("test back.yaml").with(0);
}

#[test]
fn explain_names_the_rule_of_each_leaf_and_no_value_unasked() {
    let desk = Desk::new("cli-explain");
    desk.write("p.json", r#"{"resourceType":"Patient","id":"4711","name":[{"family":"Lovelace"}],"nme":"Byron"}"#);
    let said = desk.run("explain --rules fhir-r4-pseudonymized --json p.json").with(0).out;
    assert!(!said.contains("Lovelace") && !said.contains("4711") && !said.contains("Byron") && !said.contains("nme"));
    let lines = json_lines(&said);
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["path"], "Patient.id");
    assert_eq!(lines[0]["type"], "id");
    assert_eq!(lines[0]["action"], "token");
    assert_eq!(lines[0]["class"], "Patient.id");
    assert_eq!(lines[0]["rule"]["file"], "fhir-r4-pseudonymized");
    let line = lines[0]["rule"]["line"].as_u64().unwrap() as usize;
    assert!(pack("fhir-r4-pseudonymized").lines().nth(line - 1).unwrap().contains("resource-id"));
    assert_eq!(lines[1]["action"], "remove");
    assert_eq!(lines[2]["action"], "refuse");
    assert_eq!(lines[2]["rule"], Value::Null);
    let said = desk.run("explain --rules fhir-r4-pseudonymized --values p.json").with(0).out;
    assert!(said.contains("Lovelace"));
    desk.run("explain --rules nowhere.yaml p.json").with(78);
    desk.run("explain --rules fhir-r4-pseudonymized nothing.json").with(1);
    let said = desk.feed("explain --rules fhir-r4-pseudonymized -", b"{\"Byron").with(1);
    assert!(!said.err.contains("Byron"), "{}", said.err);
}

#[test]
fn coverage_and_diff_can_be_read_by_programs() {
    let desk = Desk::new("cli-coverage");
    let page: Value =
        serde_json::from_str(&desk.run("coverage --rules fhir-r4-pseudonymized --json").with(0).out).unwrap();
    assert_eq!(page["pack"], "fhir-r4-pseudonymized");
    assert_eq!(page["release"], "R4");
    let elements = page["elements"].as_u64().unwrap();
    let counts = page["by_action"].as_object().unwrap();
    assert_eq!(counts.values().map(|n| n.as_u64().unwrap()).sum::<u64>(), elements);
    let kept = page["kept"].as_array().unwrap();
    assert!(kept.iter().any(|row| row["path"] == "Patient.gender" && row["type"] == "code"));
    assert!(kept.iter().all(|row| row["path"] != "HumanName.family"));
    assert!(desk.run("coverage --rules fhir-r4-pseudonymized").with(0).out.contains("Patient.gender  code  keep"));
    // A pack of plain JSON has no release to count the elements of.
    let said = desk.run("coverage --rules open-mhealth").with(0).out;
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("open-mhealth: ") && last.contains(" rules of plain JSON: "), "{last}");

    desk.write("mine.yaml", pack("fhir-r4-pseudonymized").replace("Address.state: keep", "Address.state: remove"));
    let lines = json_lines(&desk.run("diff --rules fhir-r4-pseudonymized --rules mine.yaml --json").with(0).out);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["element"], "Address.state");
    assert_eq!(lines[0]["from"], "keep");
    assert_eq!(lines[0]["to"], "remove");
    let said = desk.run("diff --rules mine.yaml --rules mine.yaml").with(0).out;
    assert_eq!(said, "0 elements are treated differently\n");
    desk.run("diff --rules mine.yaml").with(2);
    desk.run("check --rules mine.yaml fhir-r4-reversible").with(0);
}

// === keys ===

const PERSON: &str = r#"{"resourceType":"Patient","id":"p1","identifier":[{"value":"MRN-1"}],"name":[{"family":"Lovelace"}],"text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">Ada</div>"},"photo":[{"data":"QWRhIQ=="}],"birthDate":"1815-12-10","generalPractitioner":[{"reference":"Practitioner/d1"}]}"#;

#[test]
fn an_epoch_lives_from_staged_to_destroyed() {
    let desk = Desk::new("cli-rotation");
    let out = |words: &str| {
        let options = "--rules fhir-r4-reversible --keys k.yaml";
        let (verb, rest) = words.split_once(' ').unwrap();
        let more = if verb == "reidentify" { "--purpose TREAT --caller ward --strict" } else { "" };
        desk.run(&format!("{verb} {options} {more} {rest}"))
    };
    let states = || -> Vec<String> {
        let list = json_lines(&desk.run("keys list --keys k.yaml --json").with(0).out);
        list.iter().map(|e| format!("{} {}", e["epoch"], e["state"].as_str().unwrap())).collect()
    };
    let same = |name: &str| assert_eq!(desk.read(name), PERSON, "{name}");
    desk.write("person.json", PERSON);
    out("pseudonymize -o old.json person.json").with(0);

    desk.run("keys stage --keys k.yaml").with(0);
    assert_eq!(states(), ["1 active", "2 staged"]);
    out("pseudonymize -o staged.json person.json").with(0);
    assert_eq!(desk.read("staged.json"), desk.read("old.json"), "nothing is written under a staged epoch");

    desk.run("keys activate --keys k.yaml 2").with(2); // not confirmed
    assert_eq!(states(), ["1 active", "2 staged"]);
    desk.run("keys activate --keys k.yaml --yes 2").with(0);
    assert_eq!(states(), ["1 reveal-only", "2 active"]);
    out("pseudonymize -o new.json person.json").with(0);
    let (old, new): (Value, Value) =
        (serde_json::from_str(&desk.read("old.json")).unwrap(), serde_json::from_str(&desk.read("new.json")).unwrap());
    for pinned in ["/id", "/generalPractitioner/0/reference", "/birthDate"] {
        assert_eq!(old.pointer(pinned), new.pointer(pinned), "{pinned}");
    }
    let rotates = ["/identifier/0/value", "/name/0/family", "/text/div", "/photo/0/data", "/meta/tag/0/code"];
    for rotated in rotates {
        assert_ne!(old.pointer(rotated), new.pointer(rotated), "{rotated}");
    }
    // Every live epoch reveals.
    out("reidentify -o back-old.json old.json").with(0);
    out("reidentify -o back-new.json new.json").with(0);
    same("back-old.json");
    same("back-new.json");

    // Old tokens become what is written today, and nothing is seen on the way.
    let done = out("rewrap --strict -o moved.json old.json").with(0);
    assert_eq!(desk.read("moved.json"), desk.read("new.json"));
    assert!(!done.err.contains("Lovelace") && !desk.read("moved.json").contains("Lovelace"));
    out("rewrap -o again.json moved.json").with(0);
    assert_eq!(desk.read("again.json"), desk.read("moved.json"));
    desk.write("foreign.json", r#"{"resourceType":"Patient","id":"42","identifier":[{"value":"theirs"}]}"#);
    out("rewrap -o foreign-out.json foreign.json").with(0);
    assert_eq!(desk.read("foreign-out.json"), desk.read("foreign.json"), "what is not ours stays");

    // Destroyed: only what was pinned to it is lost, and that is said before.
    let secret = desk.read("k.yaml").split("secret: ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let before = desk.read("k.yaml");
    let dry = desk.run("keys destroy --keys k.yaml --dry-run 1").with(0);
    assert!(dry.err.contains("ids are pinned to epoch 1"), "{}", dry.err);
    assert_eq!(desk.read("k.yaml"), before);
    desk.run("keys destroy --keys k.yaml --yes 2").with(1); // active
    let done = desk.run("keys destroy --keys k.yaml --yes 1").with(0);
    assert!(!done.err.contains(&secret) && !done.out.contains(&secret));
    assert!(!desk.read("k.yaml").contains(&secret));
    assert_eq!(states(), ["1 destroyed", "2 active"]);
    desk.run("keys destroy --keys k.yaml --yes 1").with(1);
    let done = desk
        .run(
            "reidentify --rules fhir-r4-reversible --keys k.yaml --purpose TREAT --caller ward -o lost.json moved.json",
        )
        .with(0);
    assert!(done.err.contains("tokens stayed"), "{}", done.err);
    let lost: Value = serde_json::from_str(&desk.read("lost.json")).unwrap();
    assert_eq!(lost.pointer("/name/0/family").unwrap(), "Lovelace", "what was moved is not lost");
    assert_ne!(lost.pointer("/id").unwrap(), "p1");

    // Ids are never used again, and a staged epoch may be withdrawn.
    desk.run("keys stage --keys k.yaml").with(0);
    desk.run("keys retire --keys k.yaml --yes 3").with(0);
    desk.run("keys activate --keys k.yaml --yes 3").with(1);
    assert_eq!(states(), ["1 destroyed", "2 active", "3 reveal-only"]);
    desk.run("keys activate --keys k.yaml --yes 9").with(1);
    desk.run("keys activate --keys k.yaml --yes 64").with(2);
    desk.run("keys list --keys nothing.yaml").with(78);
    desk.run("keys stage --keys env:KEYS").with(2);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(desk.at("k.yaml").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(desk.names(".").iter().all(|name| !name.ends_with(".part")));
}

// === audit ===

#[test]
fn audit_files_are_checked_and_searched() {
    let desk = Desk::new("cli-audit");
    let reidentify = "reidentify --rules fhir-r4-reversible --keys k.yaml --purpose TREAT --audit a.jsonl";
    for (n, caller) in [(1, "ward"), (2, "lab"), (1, "ward")] {
        desk.write("in.json", format!(r#"{{"resourceType":"Patient","id":"p{n}","name":[{{"family":"Name{n}"}}]}}"#));
        desk.run("pseudonymize --rules fhir-r4-reversible --keys k.yaml -o out.json in.json").with(0);
        desk.run(&format!("{reidentify} --caller {caller} -o back.json out.json")).with(0);
    }
    let whole = desk.run("audit verify a.jsonl").with(0).out;
    assert!(whole.starts_with("a.jsonl: whole: lines 3 head "), "{whole}");
    let head = whole.trim_end().rsplit(' ').next().unwrap().to_owned();
    desk.run(&format!("audit verify --lines 3 --head {head} a.jsonl")).with(0);

    let count = |words: &str| json_lines(&desk.run(&format!("audit find {words} a.jsonl")).with(0).out).len();
    assert_eq!(count(""), 3);
    assert_eq!(count("--caller ward"), 2);
    assert_eq!(count("--caller nobody"), 0);
    assert_eq!(count("--patient p2 --keys k.yaml"), 1);
    assert_eq!(count("--patient p1 --keys k.yaml --caller lab"), 0);
    assert_eq!(count("--since 2000-01-01"), 3);
    assert_eq!(count("--until 2000-01-01"), 0);
    let found = desk.run("audit find --caller lab a.jsonl").with(0);
    assert!(!found.out.contains("Name2") && !found.out.contains("\"p2\""), "{}", found.out);
    let handle = json_lines(&found.out)[0]["subjects"][0].as_str().unwrap().to_owned();
    assert_eq!(count(&format!("--subject {handle}")), 1);

    // What was changed, and what is missing.
    let text = desk.read("a.jsonl");
    desk.write("changed.jsonl", text.replacen("lab", "den", 1));
    let done = desk.run("audit verify changed.jsonl").with(1);
    assert!(done.err.contains("line 2: this line was changed"), "{}", done.err);
    let shorter: String = text.split_inclusive('\n').take(2).collect();
    desk.write("shorter.jsonl", &shorter);
    desk.run("audit verify shorter.jsonl").with(0); // the chain alone cannot know
    let done = desk.run(&format!("audit verify --lines 3 --head {head} shorter.jsonl")).with(1);
    assert!(done.err.contains("newest lines are missing"), "{}", done.err);
    let other = "0".repeat(64);
    desk.run(&format!("audit verify --lines 3 --head {other} a.jsonl")).with(1);
    desk.run("audit verify nothing.jsonl").with(1);
}

// === help ===

#[test]
fn every_code_and_every_command_is_explained() {
    let desk = Desk::new("cli-help");
    let codes = desk.run("help codes").with(0).out;
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md")).unwrap();
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md")).unwrap();
    let mut count = 0;
    for line in codes.lines() {
        let code = line.split(':').next().unwrap();
        assert!(page.contains(&format!("`{code}`")), "{code} is not in docs/errors.md");
        count += 1;
    }
    assert!(count > 50, "{count}");
    let said = desk.run("help unknown-element").with(0).out;
    assert!(said.contains("not defined in this release") && said.contains("What to do: "), "{said}");
    assert_eq!(desk.run("help refused[unknown-element]").with(0).out, said);
    desk.run("help nothing-of-the-kind").with(2);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(desk.run(&format!("completions {shell}")).with(0).out.contains("pseudonymize"), "{shell}");
    }
    for words in [
        "pseudonymize",
        "reidentify",
        "rewrap",
        "check",
        "test",
        "explain",
        "coverage",
        "diff",
        "schema",
        "keys generate",
        "keys list",
        "keys stage",
        "keys activate",
        "keys retire",
        "keys destroy",
        "audit verify",
        "audit find",
        "help",
        "completions",
        "run",
    ] {
        let said = desk.run(&format!("{words} --help")).with(0).out;
        assert!(said.contains("Example"), "{words}: {said}");
        // docs/cli.md has every command and every option.
        assert!(manual.contains(&format!("cryptonym {words}")), "docs/cli.md: {words}");
        for option in said.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 3) {
            let option = option.trim_end_matches(|c: char| !c.is_ascii_lowercase());
            let known = manual.contains(option) || matches!(option, "--help" | "--version");
            assert!(known, "docs/cli.md: {words} {option}");
        }
        assert!(desk.run(&format!("help {words}")).with(0).out.contains("Example"), "{words}");
    }
    assert!(desk.run("--version").with(0).out.starts_with("cryptonym "));
    desk.run("frobnicate").with(2);
}

// === schemas ===

/// Why a value is not of a schema: the parts of JSON Schema that ours use, and nothing else.
fn misfit(root: &Value, schema: &Value, value: &Value, path: &str) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        return misfit(root, root.pointer(name.trim_start_matches('#')).expect(name), value, path);
    }
    for word in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[word].as_array() {
            let wrong: Vec<_> = choices.iter().filter_map(|choice| misfit(root, choice, value, path)).collect();
            return (wrong.len() == choices.len()).then(|| wrong.join(" or "));
        }
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = |name: &Value| name == kind || name == "integer" && value.is_i64();
    let right = match &schema["type"] {
        Value::Null => true,
        Value::Array(names) => names.iter().any(fits),
        name => fits(name),
    };
    if !right {
        return Some(format!("{path}: {kind}"));
    }
    if let Value::Array(items) = value {
        let each = items.iter().enumerate();
        return each.filter_map(|(n, item)| misfit(root, &schema["items"], item, &format!("{path}[{n}]"))).next();
    }
    let object = value.as_object()?;
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(name) {
            return Some(format!("{path}: no {name}"));
        }
    }
    object.iter().find_map(|(name, value)| {
        let path = format!("{path}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => Some(format!("{path}: unknown")),
            (Value::Null, other) => misfit(root, other, value, &path),
            (property, _) => misfit(root, property, value, &path),
        }
    })
}

#[test]
fn schemas_fit_what_they_describe() {
    let desk = Desk::new("cli-schema");
    let schema =
        |kind: &str| -> Value { serde_json::from_str(&desk.run(&format!("schema {kind}")).with(0).out).unwrap() };
    let read = |yaml: &str| -> Value { serde_saphyr::from_str(yaml).unwrap() };
    for kind in ["rules", "keyring", "config"] {
        let schema = schema(kind);
        assert_eq!(misfit(&schema, &schema, &schema["examples"][0], "$"), None, "{kind}");
    }
    let rules = schema("rules");
    for name in ["fhir-r4-pseudonymized", "fhir-r4-reversible"] {
        assert_eq!(misfit(&rules, &rules, &read(&pack(name)), "$"), None, "{name}");
        let misspelt = pack(name).replace("\nelements:", "\nelments:");
        assert_eq!(misfit(&rules, &rules, &read(&misspelt), "$").as_deref(), Some("$.elments: unknown"));
    }
    assert!(rules["properties"]["no_subject"]["description"].is_string());
    let keyring = schema("keyring");
    assert_eq!(misfit(&keyring, &keyring, &read(&desk.read("k.yaml")), "$"), None);
    let nobody = misfit(&keyring, &keyring, &read("{apiVersion: cryptonym/v1, kind: Keyring}"), "$");
    assert_eq!(nobody.as_deref(), Some("$: no epochs"));
    desk.run("schema nothing").with(2);
}
