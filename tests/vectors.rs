//! Published vectors through our own functions: whoever changes a cipher, or a library beneath one, sees it here.
//!
//! The RFCs' own examples stand in this file. The large public sets (Wycheproof) are read from a folder beside the repository
//! and skipped, aloud, where it is absent.

#![allow(clippy::print_stdout)] // what was skipped is said aloud

use aes::{Aes128Enc, Aes192Enc, Aes256Enc};
use cryptonym::action::No;
use cryptonym::action::fpe::Ff1;
use cryptonym::token::cipher::{hkdf_sha256, hmac_sha256};
use cryptonym::token::siv::Siv;
use proptest::prelude::*;
use serde_json::Value;
use std::path::PathBuf;

fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "vectors have whole bytes");
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("vectors are hexadecimal"))
        .collect()
}

fn shared(path: &str) -> Option<Value> {
    let root = std::env::var_os("CRYPTONYM_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")), PathBuf::from);
    match std::fs::read(root.join("data/crypto").join(path)) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).expect("vector files are JSON")),
        Err(_) => {
            println!("skipped: no ../shared");
            None
        }
    }
}

/// Our AES-SIV under a key of any of its three sizes. Tokens use the largest; the RFC writes its examples in the smallest.
/// The first `folded` components go in with the key, as a token's do.
enum AnySiv {
    Aes128(Siv<Aes128Enc>),
    Aes192(Siv<Aes192Enc>),
    Aes256(Siv<Aes256Enc>),
}

impl AnySiv {
    fn new(key: &[u8], leading: &[&[u8]]) -> Self {
        match key.len() {
            32 => AnySiv::Aes128(Siv::new(key, leading).unwrap()),
            48 => AnySiv::Aes192(Siv::new(key, leading).unwrap()),
            64 => AnySiv::Aes256(Siv::new(key, leading).unwrap()),
            other => panic!("no AES-SIV has a key of {other} bytes"),
        }
    }

    fn seal(&self, components: &[&[u8]], plaintext: &[u8]) -> Vec<u8> {
        match self {
            AnySiv::Aes128(siv) => siv.seal(components, plaintext),
            AnySiv::Aes192(siv) => siv.seal(components, plaintext),
            AnySiv::Aes256(siv) => siv.seal(components, plaintext),
        }
    }

    fn open(&self, components: &[&[u8]], sealed: &[u8]) -> Option<Vec<u8>> {
        match self {
            AnySiv::Aes128(siv) => siv.open(components, sealed),
            AnySiv::Aes192(siv) => siv.open(components, sealed),
            AnySiv::Aes256(siv) => siv.open(components, sealed),
        }
        .map(|plaintext| plaintext.to_vec())
    }
}

#[track_caller]
fn siv(key: &str, components: &[&str], plaintext: &str, sealed: &str) {
    let components: Vec<Vec<u8>> = components.iter().map(|c| hex(c)).collect();
    let components: Vec<&[u8]> = components.iter().map(Vec::as_slice).collect();
    for folded in 0..=components.len() {
        let (leading, components) = components.split_at(folded);
        let siv = AnySiv::new(&hex(key), leading);
        assert_eq!(siv.seal(components, &hex(plaintext)), hex(sealed));
        assert_eq!(siv.open(components, &hex(sealed)), Some(hex(plaintext)));
        for bit in 0..hex(sealed).len() * 8 {
            let mut changed = hex(sealed);
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(siv.open(components, &changed), None, "bit {bit} may not be changed");
        }
    }
}

#[test]
fn a_key_of_another_length_is_none() {
    for bytes in [0, 1, 31, 33, 48, 63, 65, 128] {
        assert!(Siv::<Aes256Enc>::new(&vec![7; bytes], &[]).is_none(), "{bytes}");
    }
}

proptest! {
    /// Another implementation, over lengths at and around every block and stride.
    #[test]
    fn aes_siv_agrees_with_the_crate(
        key in any::<[u8; 64]>(),
        leading in prop::collection::vec(any::<Vec<u8>>(), 0..4),
        header in any::<Vec<u8>>(),
        plaintext in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        use aes_siv::KeyInit as _;
        let leading: Vec<&[u8]> = leading.iter().map(Vec::as_slice).collect();
        let all = leading.iter().copied().chain([&*header]);
        let expected = aes_siv::siv::Aes256Siv::new(&key.into()).encrypt(all, &plaintext).unwrap();
        let siv = Siv::<Aes256Enc>::new(&key, &leading).unwrap();
        prop_assert_eq!(&siv.seal(&[&header], &plaintext), &expected);
        prop_assert_eq!(&*siv.open(&[&header], &expected).unwrap(), &plaintext);
    }
}

#[test]
fn aes_siv_of_rfc_5297() {
    // Appendix A.1: deterministic.
    siv(
        "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
        &["101112131415161718191a1b1c1d1e1f2021222324252627"],
        "112233445566778899aabbccddee",
        "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c",
    );
    // Appendix A.2: three components, the last of them the nonce.
    siv(
        "7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f",
        &[
            "00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100",
            "102030405060708090a0",
            "09f911029d74e35bd84156c5635688c0",
        ],
        "7468697320697320736f6d6520706c61696e7465787420746f20656e6372797074207573696e67205349562d414553",
        "7bdb6e3b432667eb06f4d14bff2fbd0fcb900f2fddbe404326601965c889bf17dba77ceb094fa663b7a3f748ba8af829ea64ad544a272e9c485b62a3fd5c0d",
    );
}

#[test]
fn hmac_sha256_of_rfc_4231() {
    let cases = [
        (
            "0b".repeat(20),
            "4869205468657265".into(),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            "4a656665".into(),
            "7768617420646f2079612077616e7420666f72206e6f7468696e673f".into(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        ("aa".repeat(20), "dd".repeat(50), "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (
            "0102030405060708090a0b0c0d0e0f10111213141516171819".into(),
            "cd".repeat(50),
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
        ),
    ];
    for (key, message, mac) in cases {
        assert_eq!(hmac_sha256(&hex(&key), &hex(&message))[..], hex(mac));
    }
}

#[test]
fn hmac_sha256_of_the_rfc_folder_and_acvp() {
    if let Some(file) = shared("rfc/rfc4231_hmac_sha256.json") {
        let tests = file["tests"].as_array().expect("tests");
        assert_eq!(tests.len(), 5);
        for test in tests {
            let mac = bytes(test, "mac"); // one of them is truncated
            assert_eq!(
                hmac_sha256(&bytes(test, "key"), &bytes(test, "data"))[..mac.len()],
                mac[..],
                "test {}",
                test["n"]
            );
        }
    }
    if let Some(file) = shared("acvp/HMAC-SHA2-256-2.0/internalProjection.json") {
        let groups = file["testGroups"].as_array().expect("groups");
        for test in groups.iter().flat_map(|group| group["tests"].as_array().expect("tests")) {
            let mac = bytes(test, "mac");
            assert_eq!(
                hmac_sha256(&bytes(test, "key"), &bytes(test, "msg"))[..mac.len()],
                mac[..],
                "test {}",
                test["tcId"]
            );
        }
    }
}

/// Our FF1 under a key of any size: `None` where it is no key.
fn ff1(key: &[u8], radix: u32, tweak: &[u8], numerals: &[u32], forward: bool) -> Option<Result<Vec<u32>, No>> {
    fn run<C>(ff1: Ff1<C>, tweak: &[u8], numerals: &[u32], forward: bool) -> Result<Vec<u32>, No>
    where
        C: aes::cipher::BlockCipherEncrypt
            + aes::cipher::BlockSizeUser<BlockSize = aes::cipher::consts::U16>
            + aes::cipher::KeyInit,
    {
        if forward { ff1.encrypt(tweak, numerals) } else { ff1.decrypt(tweak, numerals) }
    }
    Some(match key.len() {
        16 => run(Ff1::<Aes128Enc>::new(key, radix)?, tweak, numerals, forward),
        24 => run(Ff1::<Aes192Enc>::new(key, radix)?, tweak, numerals, forward),
        _ => run(Ff1::<Aes256Enc>::new(key, radix)?, tweak, numerals, forward),
    })
}

/// One pair, both ways. A domain under 10^6 is refused (SP 800-38G r1), whatever older vectors say; returns whether it was.
#[track_caller]
fn ff1_pair(key: &[u8], radix: u32, tweak: &[u8], plain: &[u32], cipher: &[u32]) -> bool {
    let domain = (0..plain.len()).try_fold(1u64, |all, _| all.checked_mul(radix.into()));
    let small = domain.is_some_and(|all| all < 1_000_000);
    let (there, back) = (ff1(key, radix, tweak, plain, true), ff1(key, radix, tweak, cipher, false));
    if small {
        assert_eq!((there, back), (Some(Err(No::Domain)), Some(Err(No::Domain))));
    } else {
        assert_eq!(there.expect("a key").as_deref(), Ok(cipher));
        assert_eq!(back.expect("a key").as_deref(), Ok(plain));
    }
    small
}

/// Symbols as numerals; what is outside the alphabet becomes a numeral that no radix has.
fn numerals(text: &str, alphabet: &str) -> Vec<u32> {
    text.chars().map(|c| alphabet.chars().position(|a| a == c).map_or(u32::MAX, |at| at as u32)).collect()
}

#[test]
fn ff1_of_nist_and_acvp() {
    if let Some(file) = shared("rfc/nist_ff1_samples.json") {
        let alphabet = "0123456789abcdefghijklmnopqrstuvwxyz";
        let tests = file["tests"].as_array().expect("tests");
        assert_eq!(tests.len(), 9);
        for test in tests {
            let text = |name: &str| numerals(test[name].as_str().expect("text"), alphabet);
            let radix = test["radix"].as_u64().expect("radix") as u32;
            assert!(!ff1_pair(&bytes(test, "key"), radix, &bytes(test, "tweak"), &text("pt"), &text("ct")));
        }
    }
    let Some(file) = shared("acvp/ACVP-AES-FF1-1.0/internalProjection.json") else { return };
    let mut count = 0;
    for group in file["testGroups"].as_array().expect("groups") {
        let (alphabet, radix) =
            (group["alphabet"].as_str().expect("alphabet"), group["radix"].as_u64().expect("radix"));
        for test in group["tests"].as_array().expect("tests") {
            let text = |name: &str| numerals(test[name].as_str().expect("text"), alphabet);
            assert!(!ff1_pair(&bytes(test, "key"), radix as u32, &bytes(test, "tweak"), &text("pt"), &text("ct")));
            count += 1;
        }
    }
    assert_eq!(count, 750);
}

#[test]
fn ff1_of_wycheproof() {
    let (mut valid, mut small, mut invalid) = (0, 0, 0);
    for name in [
        "base10",
        "base16",
        "base26",
        "base32",
        "base36",
        "base45",
        "base62",
        "base64",
        "base85",
        "radix10",
        "radix36",
        "radix256",
        "radix65536",
    ] {
        let Some(file) = shared(&format!("wycheproof/aes_ff1_{name}_test.json")) else { return };
        for group in file["testGroups"].as_array().expect("groups") {
            let radix = group["radix"].as_u64().expect("radix") as u32;
            for test in group["tests"].as_array().expect("tests") {
                let symbols = |field: &str| match &test[field] {
                    Value::String(text) => numerals(text, group["alphabet"].as_str().expect("alphabet")),
                    list => {
                        let list = list.as_array().expect("a list").iter();
                        list.map(|n| n.as_i64().and_then(|n| u32::try_from(n).ok()).unwrap_or(u32::MAX)).collect()
                    }
                };
                let (key, tweak, plain) = (bytes(test, "key"), bytes(test, "tweak"), symbols("msg"));
                if test["result"] == "valid" {
                    valid += 1;
                    small += usize::from(ff1_pair(&key, radix, &tweak, &plain, &symbols("ct")));
                } else {
                    invalid += 1;
                    let done = ff1(&key, radix, &tweak, &plain, true);
                    assert!(!matches!(done, Some(Ok(_))), "{name} {}", test["tcId"]);
                }
            }
        }
    }
    assert_eq!((valid, small, invalid), (30_523, 87, 4_925));
}

#[test]
fn hkdf_sha256_of_rfc_5869() {
    // Appendix A.1, A.3.
    let cases = [
        (
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        ("", "", "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"),
    ];
    for (salt, info, expected) in cases {
        let mut okm = [0; 42];
        hkdf_sha256(&[0x0b; 22], &hex(salt), &hex(info), &mut okm).expect("42 bytes are few");
        assert_eq!(okm[..], hex(expected));
    }
    assert!(hkdf_sha256(&[0; 32], &[], &[], &mut vec![0; 255 * 32]).is_some());
    assert!(hkdf_sha256(&[0; 32], &[], &[], &mut vec![0; 255 * 32 + 1]).is_none());
}

/// Runs `check(group, test, valid)` over a Wycheproof file.
fn wycheproof(file: &str, check: impl Fn(&Value, &Value, bool)) {
    let Some(file) = shared(file) else { return };
    let mut count = 0;
    for group in file["testGroups"].as_array().expect("groups") {
        for test in group["tests"].as_array().expect("tests") {
            check(group, test, test["result"] == "valid");
            count += 1;
        }
    }
    assert!(count > 0, "the file holds vectors");
}

fn bytes(test: &Value, field: &str) -> Vec<u8> {
    hex(test[field].as_str().unwrap_or_else(|| panic!("a vector has {field}")))
}

#[test]
fn aes_siv_of_wycheproof() {
    wycheproof("wycheproof/aes_siv_cmac_test.json", |_, test, valid| {
        let siv = AnySiv::new(&bytes(test, "key"), &[]);
        let (aad, sealed) = (bytes(test, "aad"), bytes(test, "ct"));
        let expected = valid.then(|| bytes(test, "msg"));
        assert_eq!(siv.open(&[&aad], &sealed), expected, "test {}", test["tcId"]);
        if let Some(plaintext) = expected {
            assert_eq!(siv.seal(&[&aad], &plaintext), sealed, "test {}", test["tcId"]);
        }
    });
}

#[test]
fn hmac_sha256_of_wycheproof() {
    wycheproof("wycheproof/hmac_sha256_test.json", |group, test, valid| {
        let shown = group["tagSize"].as_u64().expect("tagSize") as usize / 8;
        let mac = hmac_sha256(&bytes(test, "key"), &bytes(test, "msg"));
        assert_eq!(mac[..shown] == bytes(test, "tag"), valid, "test {}", test["tcId"]);
    });
}

#[test]
fn hkdf_sha256_of_wycheproof() {
    wycheproof("wycheproof/hkdf_sha256_test.json", |_, test, valid| {
        let mut okm = vec![0; test["size"].as_u64().expect("size") as usize];
        let done = hkdf_sha256(&bytes(test, "ikm"), &bytes(test, "salt"), &bytes(test, "info"), &mut okm);
        assert_eq!(done.is_some() && okm == bytes(test, "okm"), valid, "test {}", test["tcId"]);
    });
}

#[test]
fn aes_siv_of_the_rfc_folder() {
    let Some(file) = shared("rfc/rfc5297_aes_siv.json") else { return };
    for test in file["tests"].as_array().expect("tests") {
        let components: Vec<&str> =
            test["ad"].as_array().expect("ad").iter().map(|c| c.as_str().expect("hex")).collect();
        let field = |name: &str| test[name].as_str().expect("hex");
        siv(field("key"), &components, field("pt"), field("ct"));
    }
}
