//! The audit chain: what was written verifies, and every tampering is found where it begins (design §8).

use cryptonym::audit::{Break, Chain, Fault, Outcome, Record, ResumeError, verify};
use cryptonym::names::{Caller, Class, Purpose};
use std::collections::{BTreeMap, BTreeSet};

fn lines(count: u64) -> Vec<String> {
    let (caller, purpose) = (Caller::new("ward").unwrap(), Purpose::new("TREAT").unwrap());
    let reveals = BTreeMap::from([(Class::new("mrn").unwrap(), 3), (Class::new("Patient.id").unwrap(), 1)]);
    let subjects = BTreeSet::from(["00112233445566778899aabb".to_owned(), "Ng, Ada".to_owned()]);
    let mut chain = Chain::start();
    let record = |batch| Record {
        time: "2026-11-23T10:00:00Z",
        caller: &caller,
        purpose: (batch > 0).then_some(&purpose),
        route: "a \"quoted\"\n\\ route\u{85}",
        method: "GET",
        interaction: "read",
        outcome: Outcome::Revealed,
        reveals: &reveals,
        subjects: &subjects,
        batch,
    };
    (0..count).map(|batch| chain.line(&record(batch))).collect()
}

fn check(lines: &[String]) -> Result<Chain, Break> {
    verify(Chain::start(), lines.iter().map(String::as_bytes))
}

/// The same lines after `tamper` broke them: the file line where verification stops, and why.
#[track_caller]
fn broken(line: u64, fault: Fault, tamper: impl FnOnce(&mut Vec<String>)) {
    let mut lines = lines(6);
    tamper(&mut lines);
    assert_eq!(check(&lines), Err(Break { line, fault }));
}

#[test]
fn a_line_is_one_line_of_json_without_a_name() {
    for (seq, line) in lines(2).iter().enumerate() {
        assert!(line.ends_with('\n') && line.lines().count() == 1);
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(json["seq"], seq);
        assert_eq!(json["purpose"], if seq == 0 { serde_json::Value::Null } else { "TREAT".into() });
        assert_eq!(json["route"], "a \"quoted\"\n\\ route\u{85}");
        assert_eq!(json["reveals"], serde_json::json!({ "mrn": 3, "Patient.id": 1 }));
        assert_eq!(json["subjects"], serde_json::json!(["00112233445566778899aabb", "?"]));
        assert_eq!(json["hash"].as_str().unwrap().len(), 64);
    }
    let [first, second] = lines(2).try_into().unwrap();
    let field = |line: &str, name| serde_json::from_str::<serde_json::Value>(line).unwrap()[name].clone();
    assert_eq!(field(&first, "prev"), "0".repeat(64));
    assert_eq!(field(&second, "prev"), field(&first, "hash"));
}

#[test]
fn what_was_written_verifies_and_goes_on() {
    let all = lines(6);
    let end = check(&all).unwrap();
    assert_eq!(end.lines(), 6);
    assert_eq!(Chain::resume(all.last().map(String::as_str)), Ok(end.clone()));
    let half = check(&all[..3]).unwrap();
    assert_eq!(verify(half, all[3..].iter().map(String::as_bytes)), Ok(end));
    assert_eq!(Chain::resume(None), Ok(Chain::start()));
    assert_eq!(check(&[]), Ok(Chain::start()));
}

#[test]
fn tampering_is_found_where_it_begins() {
    broken(3, Fault::Changed, |lines| lines[2] = lines[2].replace("ward", "lab"));
    broken(1, Fault::Changed, |lines| lines[0] = lines[0].replace("\"prev\":\"0", "\"prev\":\"1"));
    broken(4, Fault::Cut, |lines| lines[3].truncate(100));
    broken(6, Fault::Cut, |lines| lines[5].truncate(100));
    broken(3, Fault::Cut, |lines| lines[2].clear());
    broken(3, Fault::Removed { from: 2, count: 2 }, |lines| drop(lines.drain(2..4)));
    broken(1, Fault::Removed { from: 0, count: 1 }, |lines| drop(lines.remove(0)));
    broken(3, Fault::Reordered, |lines| lines.swap(2, 4));
    broken(4, Fault::Reordered, |lines| lines.insert(3, lines[2].clone()));
    // A whole line of another chain in the place of ours: its own hash is right, its successor tells.
    let mut other = Chain::start();
    let (caller, none) = (Caller::new("lab").unwrap(), BTreeMap::new());
    let record = Record {
        time: "2026-11-23T10:00:00Z",
        caller: &caller,
        purpose: None,
        route: "r",
        method: "GET",
        interaction: "read",
        outcome: Outcome::Denied,
        reveals: &none,
        subjects: &BTreeSet::new(),
        batch: 0,
    };
    let forged = other.line(&record);
    broken(2, Fault::Replaced, |lines| lines[0] = forged);
}

#[test]
fn every_changed_byte_is_found() {
    let good = lines(3);
    for at in 0..good[1].len() - 1 {
        let mut bad: Vec<Vec<u8>> = good.iter().map(|line| line.clone().into_bytes()).collect();
        bad[1][at] ^= 1;
        let found = verify(Chain::start(), bad.iter().map(Vec::as_slice)).unwrap_err();
        assert_eq!(found.line, 2, "byte {at}");
    }
}

#[test]
fn a_torn_last_line_is_not_gone_on_with() {
    let line = lines(1).remove(0);
    for at in 0..line.len() - 1 {
        assert_eq!(Chain::resume(Some(&line[..at])), Err(ResumeError::LastLine));
    }
}
