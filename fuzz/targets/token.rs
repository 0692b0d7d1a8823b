//! Tokens: any text becomes a token that gives it back; no text that was not made here is taken for a token; escapes likewise.
#![no_main]

use cryptonym::names::{Caller, Class, Domain};
use cryptonym::policy::danger;
use cryptonym::secret::Phi;
use cryptonym::token::{self, ClassKeys, Form, Keyring, Revealed, Seen};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

fn keys() -> &'static ClassKeys {
    static KEYS: OnceLock<ClassKeys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let keyring = Keyring::generate([3; 32], "2026-11-23T10:00:00Z");
        let domain = keyring.domain(&Domain::new("fuzz").expect("a name"), None).expect("an active epoch");
        domain.class(&Class::new("mrn").expect("a name"), false)
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let keys = keys();
    assert_ne!(keys.recognise(text), Seen::Token, "forged");
    assert_eq!(keys.unescape(text), None, "forged");
    for range in token::find(text) {
        assert!(token::well_formed(&text[range]).is_some());
    }
    let permit = danger::key_holder(Caller::new("fuzz").expect("a name"), None);
    for padded in [false, true] {
        let mut made = String::new();
        let form = Form { padded, raw_spelling: false };
        if keys.pseudonymize(&Phi::new(text), form, &mut made).is_ok() {
            assert_eq!(keys.reidentify(&made, &permit), Revealed::Plain(Phi::new(text).into_owned(), false));
        }
    }
});
