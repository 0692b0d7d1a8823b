//! The promises of tokens, escapes and keyrings as properties (design §4): what holds for every value, and what no change survives.

use cryptonym::limits::{FOREIGN_ID_CHARS_MAX, ID_CHARS_MAX, TOKEN_ID_CHARS_MAX};
use cryptonym::names::{Caller, Class, Domain, EpochId};
use cryptonym::policy::{Grant, Permit, Policy, Reveal, danger::key_holder};
use cryptonym::secret::Phi;
use cryptonym::token::spelling::{self, Packing};
use cryptonym::token::{
    ClassKeys, DomainKeys, Form, KeyError, Keyring, MacPurpose, Revealed, Seen, TokenError, danger, uuid,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// Two live epochs beside a staged one; 2 is active. The lowest usable is 1.
static KEYRING: LazyLock<Keyring> = LazyLock::new(|| keyring(&[(1, "reveal-only"), (2, "active"), (3, "staged")]));
static HOSPITAL: LazyLock<DomainKeys> = LazyLock::new(|| KEYRING.domain(&name("hospital"), None).unwrap());
static MRN: LazyLock<ClassKeys> = LazyLock::new(|| HOSPITAL.class(&class("mrn"), false));
static PATIENT_ID: LazyLock<ClassKeys> = LazyLock::new(|| HOSPITAL.class(&class("Patient.id"), true));
static ALL: LazyLock<Permit> = LazyLock::new(|| key_holder(Caller::new("test").unwrap(), None));

const ID: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.";
const PADDED: Form = Form { padded: true, raw_spelling: false };
const RAW: Form = Form { padded: false, raw_spelling: true };
const PADDED_RAW: Form = Form { padded: true, raw_spelling: true };
const FORMS: [Form; 4] = [Form { padded: false, raw_spelling: false }, PADDED, RAW, PADDED_RAW];

fn class(text: &str) -> Class {
    Class::new(text).unwrap()
}

fn name(text: &str) -> Domain {
    Domain::new(text).unwrap()
}

fn epoch(id: u8) -> EpochId {
    EpochId::new(id).unwrap()
}

/// A keyring of epochs whose secrets are 32 times their id.
fn keyring(epochs: &[(u8, &str)]) -> Keyring {
    let mut yaml = String::from("apiVersion: cryptonym/v1\nkind: Keyring\nepochs:\n");
    for &(id, state) in epochs {
        let one = Keyring::generate([id; 32], "2026-11-23T10:00:00Z").to_yaml();
        let line = one.lines().last().unwrap();
        yaml +=
            &(line.replace("id: 1", &format!("id: {id}")).replace("state: active", &format!("state: {state}")) + "\n");
    }
    Keyring::parse(&yaml).unwrap()
}

fn token(keys: &ClassKeys, value: &str, form: Form) -> String {
    let mut token = String::new();
    keys.pseudonymize(&Phi::new(value), form, &mut token).unwrap();
    token
}

fn binary(keys: &ClassKeys, value: &str) -> String {
    let mut token = String::new();
    keys.pseudonymize_binary(&Phi::new(value), &mut token).unwrap();
    token
}

fn escaped(keys: &ClassKeys, value: &str) -> String {
    let mut escape = String::new();
    keys.escape(value, None, &mut escape).unwrap();
    escape
}

fn plain(value: &str, raw: bool) -> Revealed {
    Revealed::Plain(Phi::new(value.to_owned()), raw)
}

/// Nothing of ours: whatever it is taken for, it is not a token.
#[track_caller]
fn rejected(keys: &ClassKeys, text: &str) {
    assert!(matches!(keys.reidentify(text, &ALL), Revealed::LookAlike | Revealed::Foreign));
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[A-Za-z0-9.-]{0,80}",
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "[\\x00A]{0,20}",
        "[0-9]{1,12}",
    ]
}

fn any_form() -> impl Strategy<Value = Form> {
    prop::sample::select(FORMS.to_vec())
}

proptest! {
    #[test]
    fn a_token_gives_its_value_back(value in any_value(), form in any_form()) {
        let token = token(&MRN, &value, form);
        prop_assert_eq!(MRN.recognise(&token), Seen::Token);
        prop_assert_eq!(MRN.reidentify(&token, &ALL), plain(&value, form.raw_spelling));
        prop_assert_eq!(danger::open(&MRN, &token), Some(Phi::new(value)));
    }

    #[test]
    fn a_token_looks_like_a_fhir_id(value in any_value(), form in any_form()) {
        let token = token(&MRN, &value, form);
        prop_assert!(token.starts_with(|c: char| c.is_ascii_alphabetic()));
        prop_assert!(token.ends_with(|c: char| c.is_ascii_alphanumeric()));
        prop_assert!(token.bytes().all(|b| ID.contains(&b)));
        let header = spelling::well_formed(&token).unwrap();
        prop_assert_eq!((header.token_chars(), header.epoch), (token.len(), epoch(2)));
    }

    #[test]
    fn an_id_that_should_fit_fits(id in "[A-Za-z0-9.-]{1,36}", uuid in any::<[u8; 16]>()) {
        prop_assert!(id.len() <= TOKEN_ID_CHARS_MAX && token(&PATIENT_ID, &id, Form::default()).len() <= ID_CHARS_MAX);
        let mut text = String::new();
        uuid::format(uuid, &mut text);
        prop_assert_eq!(token(&PATIENT_ID, &text, Form::default()).len(), 49);
    }

    #[test]
    fn same_in_same_out_and_nothing_else_the_same(a in any_value(), b in any_value()) {
        let distinct: BTreeSet<String> = [&a, &b]
            .into_iter()
            .flat_map(|value| FORMS.map(|form| token(&MRN, value, form)))
            .collect();
        prop_assert_eq!(distinct.len(), if a == b { 4 } else { 8 });
        prop_assert!(distinct.contains(&token(&HOSPITAL.class(&class("mrn"), false), &b, Form::default())));
    }

    #[test]
    fn other_class_domain_or_epoch_is_another_token_and_opens_nothing(value in any_value(), form in any_form()) {
        let ours = token(&MRN, &value, form);
        let rotated = keyring(&[(2, "reveal-only"), (3, "active")]);
        for other in [
            HOSPITAL.class(&class("ssn"), false),
            KEYRING.domain(&name("cloud"), None).unwrap().class(&class("mrn"), false),
            keyring(&[(1, "active")]).domain(&name("hospital"), None).unwrap().class(&class("mrn"), false),
        ] {
            prop_assert_ne!(&ours, &token(&other, &value, form));
            prop_assert_eq!(other.recognise(&ours), Seen::LookAlike);
            prop_assert_eq!(other.reidentify(&ours, &ALL), Revealed::LookAlike);
        }
        let later = rotated.domain(&name("hospital"), None).unwrap().class(&class("mrn"), false);
        prop_assert_ne!(&ours, &token(&later, &value, form));
        prop_assert_eq!(later.reidentify(&ours, &ALL), plain(&value, form.raw_spelling));
    }

    #[test]
    fn a_token_is_cut_out_of_any_text(before in any_value(), value in any_value(), form in any_form(), after in any_value()) {
        let token = token(&MRN, &value, form);
        let text = format!("{before}{token}{after}");
        let cut = before.len()..before.len() + token.len();
        prop_assume!(spelling::find(&format!("{before}Z")).next().is_none());
        prop_assert!(spelling::find(&text).any(|range| range == cut));
        let twice = format!("{token}{token}");
        prop_assert_eq!(spelling::find(&twice).collect::<Vec<_>>(), vec![0..token.len(), token.len()..twice.len()]);
    }

    #[test]
    fn nothing_spelled_by_chance_is_a_token(text in any_value(), tail in "[A-Za-z0-9.-]{22,120}") {
        for text in [&text, &format!("Zq{tail}")] {
            rejected(&MRN, text);
            prop_assert_ne!(MRN.recognise(text), Seen::Token);
            prop_assert_eq!(danger::open(&MRN, text), None);
        }
        prop_assert!(spelling::find(&text).all(|range| spelling::well_formed(&text[range]).is_some()));
    }

    #[test]
    fn a_binary_token_gives_its_text_back(bytes in any::<Vec<u8>>(), literal in any_value()) {
        use base64::Engine as _;
        let canonical = base64::engine::general_purpose::STANDARD.encode(bytes);
        for text in [canonical, literal] {
            let token = binary(&MRN, &text);
            prop_assert_eq!(MRN.recognise_binary(&token), Seen::Token);
            prop_assert_eq!(MRN.reidentify_binary(&token, &ALL), plain(&text, false));
            prop_assert_eq!(HOSPITAL.class(&class("ssn"), false).reidentify_binary(&token, &ALL), Revealed::LookAlike);
            prop_assert_eq!(MRN.recognise(&token), Seen::Foreign);
            prop_assert_eq!(spelling::find(&token).count(), 0);
        }
    }

    #[test]
    fn an_escape_gives_its_value_back_at_its_own_place_only(value in any_value(), other in any_value(), at in any::<prop::sample::Index>(), to in 0usize..64) {
        let escape = escaped(&PATIENT_ID, &value);
        prop_assert_eq!(PATIENT_ID.unescape(&escape), Some(&*value));
        prop_assert_eq!(PATIENT_ID.recognise(&escape), Seen::Foreign);
        prop_assert_eq!(MRN.unescape(&escape), None);
        let cloud = KEYRING.domain(&name("cloud"), None).unwrap();
        prop_assert_eq!(cloud.class(&class("Patient.id"), true).unescape(&escape), None);
        prop_assert_eq!(PATIENT_ID.unescape(&other), None);
        if other != value {
            let transplanted = format!("{}{other}", &escape[..12]);
            prop_assert_eq!(PATIENT_ID.unescape(&transplanted), None);
        }
        let mut changed = escape.clone().into_bytes();
        changed[at.index(12)] = ID[to];
        if changed != escape.as_bytes() {
            prop_assert_eq!(PATIENT_ID.unescape(std::str::from_utf8(&changed).unwrap()), None);
        }
    }

    #[test]
    fn uuids_are_permuted_and_back(uuid in any::<[u8; 16]>()) {
        let pseudonym = HOSPITAL.uuids().pseudonymize(uuid);
        prop_assert_ne!(pseudonym, uuid);
        prop_assert_eq!(HOSPITAL.uuids().reidentify(pseudonym, &class("Patient.id"), &ALL), Some(uuid));
        prop_assert_eq!(danger::open_uuid(HOSPITAL.uuids(), pseudonym), uuid);
        prop_assert_ne!(KEYRING.domain(&name("cloud"), None).unwrap().uuids().pseudonymize(uuid), pseudonym);
        let mut text = String::new();
        uuid::format(uuid, &mut text);
        prop_assert_eq!(uuid::parse(&text), Some(uuid));
    }
}

/// Values of every packing, at and around the edges of lengths, remainders and buckets.
fn samples() -> Vec<(String, Form)> {
    let mut samples: Vec<(String, Form)> = vec![
        (String::new(), Form::default()),
        ("4711".into(), Form::default()),
        ("a-b.".into(), Form::default()),
        ("0b4c4f42-7d3a-4a0e-9f65-0d5cbb5a1f3e".into(), Form::default()),
        ("0B4C4F42-7D3A-4A0E-9F65-0D5CBB5A1F3E".into(), Form::default()),
        ("Müller, Zoë".into(), Form::default()),
        ("\u{0}\u{80}".into(), PADDED),
        ("quote \\\" \\u0041".into(), PADDED_RAW),
        (String::new(), RAW),
    ];
    samples.extend([13, 14, 15].map(|n| ("x".repeat(n), PADDED)));
    samples.extend([1022, 1023, 1024].map(|n| ("x".repeat(n), Form::default())));
    samples
}

#[test]
fn every_change_of_one_character_is_rejected() {
    for (value, form) in samples() {
        let token = token(&MRN, &value, form);
        let stride = if token.len() > 200 { 37 } else { 1 };
        for at in (0..token.len()).filter(|at| at % stride == 0 || *at < 12 || *at + 2 > token.len()) {
            for to in ID.iter().copied().chain(*b"_ /%") {
                let mut changed = token.clone().into_bytes();
                if changed[at] != to {
                    changed[at] = to;
                    rejected(&MRN, std::str::from_utf8(&changed).unwrap());
                }
            }
        }
    }
}

#[test]
fn every_cut_and_every_addition_is_rejected() {
    for (value, form) in samples() {
        let token = token(&MRN, &value, form);
        for at in 0..token.len() {
            rejected(&MRN, &token[..at]);
            rejected(&MRN, &token[at + 1..]);
            rejected(&MRN, &format!("{}{}", &token[..at], &token[at + 1..]));
        }
        for addition in ID.map(char::from).into_iter().chain(['=', ' ']) {
            rejected(&MRN, &format!("{token}{addition}"));
            rejected(&MRN, &format!("{addition}{token}"));
        }
    }
}

#[test]
fn headers_cannot_be_swapped() {
    let tokens: Vec<String> = samples().iter().map(|(value, form)| token(&MRN, value, *form)).collect();
    for a in &tokens {
        for b in &tokens {
            let spliced = format!("{}{}", &a[..6], &b[6..]);
            if spliced != *b && spliced != *a {
                rejected(&MRN, &spliced);
            }
        }
    }
}

#[test]
fn values_are_packed_as_the_design_says() {
    let packing = |value: &str, form| spelling::well_formed(&token(&MRN, value, form)).unwrap();
    let cases = [
        ("0b4c4f42-7d3a-4a0e-9f65-0d5cbb5a1f3e", Form::default(), Packing::Uuid, 16, 49),
        ("0B4C4F42-7D3A-4A0E-9F65-0D5CBB5A1F3E", Form::default(), Packing::Symbols, 36, 64),
        ("4711", Form::default(), Packing::Symbols, 4, 32),
        ("", Form::default(), Packing::Utf8, 0, 28),
        ("a b", Form::default(), Packing::Utf8, 3, 32),
        ("Ng", PADDED, Packing::Framed, 16, 49),
        ("Schmidt-Rottluff", PADDED, Packing::Framed, 32, 71),
        ("Ng", RAW, Packing::Framed, 3, 32),
    ];
    for (value, form, expected, length, chars) in cases {
        let header = packing(value, form);
        assert_eq!((header.packing, header.length, header.token_chars()), (expected, length, chars), "{value}");
    }
    let hidden: BTreeSet<usize> = (0..=14).map(|n| token(&MRN, &"x".repeat(n), PADDED).len()).collect();
    assert_eq!(hidden.len(), 1, "padding hides lengths up to 14");
}

#[test]
fn the_longest_value_fits_and_a_longer_one_is_refused() {
    let max = cryptonym::limits::TOKEN_PLAIN_BYTES_MAX;
    let mut out = String::new();
    for (bytes, form) in [(max, Form::default()), (max - 2, PADDED), (max - 2, RAW)] {
        let longer = Phi::new(" ".repeat(bytes + 1));
        assert_eq!(MRN.pseudonymize(&longer, form, &mut out), Err(TokenError::TooLong));
        assert!(out.is_empty());
    }
    let longest = token(&MRN, &" ".repeat(max - 2), PADDED);
    assert_eq!(spelling::well_formed(&longest).unwrap().length, max);
}

#[test]
fn a_text_full_of_markers_is_searched_in_linear_time() {
    // Each claims to be some 20 MB long: measured anew for each, this would take hours.
    let text = "ZqBP-A..A-".repeat(200_000);
    assert_eq!(spelling::find(&text).count(), 0);
}

#[test]
fn only_a_permit_reveals() {
    let grants = |class: &str| {
        let classes = [(Some(Class::new(class).unwrap()), Reveal::Plain)].into();
        Policy::new(vec![Grant {
            callers: vec![Caller::new("ward").unwrap()],
            routes: vec![],
            purposes: vec![],
            classes,
        }])
    };
    let permit = grants("ssn").permit(&Caller::new("ward").unwrap(), "route", None).unwrap();
    let mrn = token(&MRN, "4711", Form::default());
    assert_eq!(MRN.reidentify(&mrn, &permit), Revealed::Denied);
    assert_eq!(MRN.reidentify("Zq", &permit), Revealed::Foreign);
    assert_eq!(MRN.reidentify_binary(&binary(&MRN, "QUJD"), &permit), Revealed::Denied);
    assert_eq!(HOSPITAL.uuids().reidentify([7; 16], &class("mrn"), &permit), None);
}

#[test]
fn ids_are_pinned_and_other_classes_rotate() {
    let phi = Phi::new("4711");
    let epochs = |keys: &ClassKeys| -> Vec<u8> {
        let tokens = keys.every_token(&phi, Form::default()).unwrap();
        assert_eq!(tokens[0], token(keys, "4711", Form::default()));
        tokens.iter().map(|token| HOSPITAL.epoch_of(token).unwrap().get()).collect()
    };
    assert_eq!(epochs(&PATIENT_ID), [1]);
    assert_eq!(epochs(&MRN), [2, 1, 3]);
    let moved = KEYRING.domain(&name("hospital"), Some(epoch(2))).unwrap();
    assert_eq!(epochs(&moved.class(&class("Patient.id"), true)), [2]);
    assert_eq!(KEYRING.domain(&name("hospital"), Some(epoch(3))).err(), Some(KeyError::Staged(epoch(3))));
    assert_eq!(KEYRING.domain(&name("hospital"), Some(epoch(9))).err(), Some(KeyError::NotLive(epoch(9))));
}

#[test]
fn binary_tokens_survive_no_change() {
    for value in ["", "QUJD", "QUI", "line\nbreak", "QUJ="] {
        let token = binary(&MRN, value);
        for at in 0..token.len() {
            for to in (b'!'..=b'~').filter(|&to| to != token.as_bytes()[at]) {
                let mut changed = token.clone().into_bytes();
                changed[at] = to;
                assert_ne!(MRN.recognise_binary(std::str::from_utf8(&changed).unwrap()), Seen::Token);
            }
            assert_ne!(MRN.recognise_binary(&token[..at]), Seen::Token);
        }
        assert_ne!(MRN.recognise_binary(&(token + "AAAA")), Seen::Token);
    }
    assert_eq!(MRN.recognise_binary("QUJD"), Seen::Foreign);
}

#[test]
fn an_escape_has_room_for_what_the_limits_say() {
    let mut out = String::new();
    PATIENT_ID.escape(&"x".repeat(FOREIGN_ID_CHARS_MAX), Some(FOREIGN_ID_CHARS_MAX), &mut out).unwrap();
    assert_eq!(out.len(), ID_CHARS_MAX);
    let long = "x".repeat(FOREIGN_ID_CHARS_MAX + 1);
    assert_eq!(PATIENT_ID.escape(&long, Some(FOREIGN_ID_CHARS_MAX), &mut out), Err(TokenError::ForeignTooLong));
    assert_eq!(out.len(), ID_CHARS_MAX, "a refusal writes nothing");
}

#[test]
fn uuids_have_one_spelling() {
    for text in [
        "",
        "0b4c4f42-7d3a-4a0e-9f65-0d5cbb5a1f3",
        "0b4c4f42-7d3a-4a0e-9f65-0d5cbb5a1f3e0",
        "0B4c4f42-7d3a-4a0e-9f65-0d5cbb5a1f3e",
        "0b4c4f4207d3a-4a0e-9f65-0d5cbb5a1f3e0",
        "0b4c4f42-7d3a-4a0e-9f65-0d5cbb5a1f3g",
        "{b4c4f42-7d3a-4a0e-9f65-0d5cbb5a1f3}",
        "0b4c4f42-7d3a-4a0e-9f650d5cbb5a1f3e-",
    ] {
        assert_eq!(uuid::parse(text), None, "{text}");
    }
}

#[test]
fn handles_and_macs_are_keyed_and_pinned() {
    let cloud = KEYRING.domain(&name("cloud"), None).unwrap();
    let handle = HOSPITAL.handle("4711");
    assert!(handle.len() == 24 && handle.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_ne!(handle, cloud.handle("4711"));
    assert_ne!(handle, HOSPITAL.handle("4712"));
    let rotated = keyring(&[(1, "reveal-only"), (2, "reveal-only"), (3, "active")]);
    assert_eq!(handle, rotated.domain(&name("hospital"), None).unwrap().handle("4711"));
    let (ours, theirs) = (HOSPITAL.mac(MacPurpose::Shift), cloud.mac(MacPurpose::Shift));
    assert_ne!(ours.tag(&[b"a", b"bc"]), ours.tag(&[b"ab", b"c"]));
    assert_ne!(ours.tag(&[b"a"]), theirs.tag(&[b"a"]));
}

#[test]
fn keys_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<DomainKeys>();
    shared::<ClassKeys>();
    shared::<Keyring>();
}

/// The format is a promise to every token ever written: these spellings may never change.
/// They were computed by another program (Python's hmac, OpenSSL's AES-SIV) from the description in `token::spelling`.
#[test]
fn the_format_is_pinned() {
    let cases = [
        (token(&PATIENT_ID, "4711", Form::default()), "ZqBQEOBcgUzSNN9Bb4bou1sfzLidCYkA"),
        (token(&MRN, "Müller", PADDED), "ZqCwQOr-HUIr2.YQUmm9E871n9xPN2YlSh-W2JAEsKFNdarb4"),
        (binary(&MRN, "QUJD"), "xXlwdAACkG6b4xxN5NTwU8fY3p3QywyCrg=="),
        (escaped(&PATIENT_ID, "42"), "XjFbpXlgBzfP42"),
        (HOSPITAL.handle("4711"), "e27fc04f06ddecb692de3116"),
    ];
    for (actual, pinned) in cases {
        assert_eq!(actual, pinned);
    }
}

const GOOD: &str = "check: CHECK, secret: SECRET";

/// A keyring of these epochs, with the right check value and secret (32 times 7) filled in.
fn parse(epochs: &str) -> Result<Keyring, Vec<String>> {
    let good = Keyring::generate([7; 32], "2026-11-23T10:00:00Z").to_yaml();
    let field = |name: &str| good.split(name).nth(1).unwrap().split([',', ' ']).next().unwrap().to_owned();
    let yaml = epochs.replace("GOOD", GOOD).replace("CHECK", &field("check: ")).replace("SECRET", &field("secret: "));
    let yaml =
        if yaml.contains("kind") { yaml } else { format!("apiVersion: cryptonym/v1\nkind: Keyring\nepochs:\n{yaml}") };
    Keyring::parse(&yaml).map_err(|mistakes| {
        let said: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        let (check, secret) = (field("check: "), field("secret: "));
        assert!(said.iter().all(|said| !said.contains(&secret) && !said.contains(&check)), "no mistake repeats a key");
        said
    })
}

#[test]
fn a_keyring_reads_what_it_writes() {
    let keyring = keyring(&[(1, "reveal-only"), (2, "active"), (3, "staged")]);
    let again = Keyring::parse(&keyring.to_yaml()).unwrap();
    assert_eq!(*keyring.to_yaml(), *again.to_yaml());
    assert_eq!(again.active(), epoch(2));
    assert!(!format!("{again:?}").contains("AgICAgIC"), "no secret is printed");
    assert!(parse("- { id: 7, created: 2026-11-23T10:00:00.123+01:00, state: active, GOOD }").is_ok());
    let destroyed = "- { id: 1, created: 2026-11-23T10:00:00Z, state: destroyed }\n- { id: 2, created: 2026-11-23T10:00:00Z, state: active, GOOD }";
    assert!(parse(destroyed).is_ok());
}

#[test]
fn every_mistake_of_a_keyring_is_told_at_once() {
    const AT: &str = "created: 2026-11-23T10:00:00Z";
    let cases: &[(&str, &[&str])] = &[
        ("- { id: 1, AT, state: staged, GOOD }", &["no epoch is active: exactly one must be"]),
        (
            "- { id: 1, AT, state: active, GOOD }\n- { id: 2, AT, state: active, GOOD }",
            &["line 5: epoch 2 has the secret of another", "line 5: epoch 2 is a second active one"],
        ),
        (
            "- { id: 1, AT, state: active, GOOD }\n- { id: 1, AT, state: destroyed }",
            &["line 5: epoch 1 occurs twice: ids are never reused"],
        ),
        ("- { id: 0, AT, state: active, GOOD }", &["line 4: an epoch's id must be a number from 1 to 63"]),
        ("- { id: 64, AT, state: active, GOOD }", &["line 4: an epoch's id must be a number"]),
        ("- { id: one, AT, state: active, GOOD }", &["line 4: an epoch's id must be a number"]),
        ("- { id: 1, created: yesterday, state: active, GOOD }", &["line 4: an epoch's created must be a time"]),
        ("- { id: 1, AT, state: retired, GOOD }", &["line 4: an epoch's state must be staged, active"]),
        (
            "- { id: 1, AT, state: active, check: AAAA, secret: SECRET }",
            &["line 4: an epoch's check value does not belong"],
        ),
        (
            "- { id: 1, AT, state: active, check: AAAAAAAAAAAAAAAAAAAAAA==, secret: SECRET }",
            &["line 4: an epoch's check value does not belong to its secret"],
        ),
        (
            "- { id: 1, AT, state: active, check: CHECK, secret: AAAA }",
            &["line 4: an epoch's secret must be base64 of exactly"],
        ),
        ("- { id: 1, AT, state: active, secret: SECRET }", &["line 4: an epoch lacks `check`"]),
        ("- { id: 1, AT, state: active, check: CHECK }", &["line 4: an epoch lacks `secret`"]),
        ("- { id: 1, AT, state: destroyed, GOOD }", &["line 4: a destroyed epoch must have no secret"]),
        (
            "- { id: 99,\n    created: now,\n    state: retired,\n    check: AAAA,\n    secret: AAAA }\n- {}",
            &[
                "line 4: an epoch's id",
                "line 5: an epoch's created",
                "line 6: an epoch's state",
                "line 7: an epoch's check",
                "line 8: an epoch's secret",
                "line 9: an epoch lacks `id`",
                "line 9: an epoch lacks `created`",
                "line 9: an epoch lacks `state`",
                "line 9: an epoch lacks `secret`",
            ],
        ),
        ("- { id: 1, AT, state: active, GOOD, colour: SECRET }", &["line 4: this is not a keyring: it has apiVersion"]),
        ("- { id: 1, id: 1, AT, state: active, GOOD }", &["line 4: this is not a keyring"]),
        ("- [ SECRET", &["this is not a keyring"]),
        (
            "apiVersion: cryptonym/v2\nkind: Rules\nepochs: []",
            &["line 1: apiVersion must be", "line 2: kind must be Keyring"],
        ),
        ("kind: Keyring", &["this is not a keyring"]),
        ("kind", &["this is not a keyring"]),
    ];
    for (yaml, expected) in cases {
        let said = parse(&yaml.replace("AT,", &format!("{AT},"))).expect_err(yaml);
        let fits = said.len() == expected.len() && said.iter().zip(*expected).all(|(said, part)| said.contains(part));
        assert!(fits, "{yaml}\nexpected {expected:#?}\nsaid {said:#?}");
    }
}
