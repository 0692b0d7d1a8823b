//! Element paths of rules: any text is one or several paths or an error at a place inside it; each path has a root or steps, or names
//! any resource, and reads the same whatever white space surrounds it.
#![no_main]

use cryptonym::rules::path;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match path::parse(text) {
        Err(error) => {
            assert!(error.at <= text.len() && !error.expected.is_empty());
        }
        Ok(parsed) => {
            assert!(!parsed.is_empty());
            let any_resource = ["Resource", "%resource", "$this"].iter().any(|word| text.contains(word));
            assert!(parsed.iter().all(|path| path.root.is_some() || !path.steps.is_empty() || any_resource));
            assert_eq!(path::parse(&format!(" {text} ")), Ok(parsed));
        }
    }
});
