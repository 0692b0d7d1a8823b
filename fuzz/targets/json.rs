//! The rewriter: any bytes, cut anywhere. Where the network cuts is invisible; what was written comes back without a refusal; nothing panics.
//! The first two bytes choose the cut and the rules, so that a crash reproduces from its input alone.
#![no_main]

use cryptonym::names::{Caller, Domain};
use cryptonym::policy::danger;
use cryptonym::rewrite::{Engine, Format, Options, Rewriter};
use cryptonym::rules::{Compiled, packs};
use cryptonym::token::Keyring;
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, OnceLock};

fn engine(pack: usize) -> &'static Arc<Engine> {
    static ENGINES: OnceLock<Vec<Arc<Engine>>> = OnceLock::new();
    &ENGINES.get_or_init(|| {
        let keyring = Keyring::generate([3; 32], "2026-11-23T10:00:00Z");
        let domain = Domain::new("fuzz").expect("a name");
        let load = |(_, yaml): &(&str, &str)| {
            let rules = Compiled::new(yaml).expect("an embedded pack loads");
            Arc::new(Engine::new(rules, &keyring, &domain, Options::default()).expect("keys for the domain"))
        };
        packs::PACKS.iter().map(load).collect()
    })[pack % packs::PACKS.len()]
}

fn run(mut rewriter: Rewriter, input: &[u8], cut: usize) -> (bool, Vec<u8>) {
    let mut output = Vec::new();
    let (first, rest) = input.split_at(cut.min(input.len()));
    let done = rewriter.write(first, &mut output).is_ok()
        && rewriter.write(rest, &mut output).is_ok()
        && rewriter.finish(&mut output).is_ok();
    (done, output)
}

fuzz_target!(init: { engine(0); }, |bytes: &[u8]| {
    let [cut, pack, input @ ..] = bytes else { return };
    let (engine, format) = (engine(*pack as usize), if pack & 128 == 0 { Format::Json } else { Format::Ndjson });
    let whole = run(Rewriter::pseudonymize(Arc::clone(engine), format), input, 0);
    let cut = run(Rewriter::pseudonymize(Arc::clone(engine), format), input, *cut as usize);
    assert_eq!(whole, cut);
    let permit = || Some(Arc::new(danger::key_holder(Caller::new("fuzz").expect("a name"), None)));
    if whole.0 {
        assert!(std::str::from_utf8(&whole.1).is_ok());
        let back = run(Rewriter::reidentify(Arc::clone(engine), format, permit()), &whole.1, 0);
        assert!(back.0, "what was written comes back");
    }
    run(Rewriter::reidentify(Arc::clone(engine), format, permit()), input, 0);
});
