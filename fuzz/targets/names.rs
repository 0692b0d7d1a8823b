//! Names from configuration: any bytes are taken or refused, and what is taken reads back as it was.
#![no_main]

use cryptonym::names::Class;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(class) = Class::new(text) {
        assert_eq!(class.as_str(), text);
    }
});
