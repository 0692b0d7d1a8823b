//! Rule files: any text loads or is refused with mistakes, and never by a panic. One byte of a shipped pack is changed, or the text stands alone.
#![no_main]

use cryptonym::rules::{Compiled, packs, path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: { let _ = Compiled::new(packs::PACKS[0].1); }, |bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = path::parse(text);
    if let Err(mistakes) = Compiled::new(text) {
        assert!(!mistakes.is_empty());
    }
});
