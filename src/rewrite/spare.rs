//! Buffers of rewriters that have ended, for those that begin: a fresh set costs a small body more than its rewriting.
//!
//! What is handed on is built anew around buffers that were emptied, field by field: whatever a page of this room adds to its state
//! begins fresh unless it is named here. So nothing that one exchange saw (its memory of texts, subject, offsets, counts, keys, held
//! bytes, refusal) can reach another, even of a rewriter that was dropped half-way. Nothing large is kept, and few sets.

use super::decide::Desk;
use super::json::Scanner;
use std::sync::Mutex;

/// Sets kept for one engine: more bodies than this at one time begin with fresh ones.
const SETS_MAX: usize = 16;
/// Bytes of one buffer; a larger one is given back to the allocator.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// The buffers of one rewriter, empty.
#[derive(Debug, Default)]
pub(super) struct Spare {
    pub(super) scanner: Scanner,
    pub(super) desk: Desk,
    pub(super) buffer: Vec<u8>,
}

/// The spare buffers of one engine.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<Spare>>);

impl Pool {
    /// A set of empty buffers, used before or not.
    pub(super) fn take(&self) -> Spare {
        self.0.lock().ok().and_then(|mut sets| sets.pop()).unwrap_or_default()
    }

    /// Keeps the buffers of a rewriter that has ended, however it ended.
    pub(super) fn give(&self, scanner: Scanner, desk: Desk, buffer: Vec<u8>) {
        let spare = Spare { scanner: scanner.emptied(), desk: desk.emptied(), buffer: emptied(buffer) };
        if let Ok(mut sets) = self.0.lock()
            && sets.len() < SETS_MAX
        {
            sets.push(spare);
        }
    }
}

/// The buffer without its contents, or none where it has grown large.
pub(super) fn emptied<T>(mut buffer: Vec<T>) -> Vec<T> {
    if buffer.capacity() * size_of::<T>() > BUFFER_BYTES_MAX {
        return Vec::new();
    }
    buffer.clear();
    buffer
}

#[cfg(test)]
mod tests {
    use crate::names::{Caller, Domain};
    use crate::policy::danger;
    use crate::rewrite::{Engine, Format, Options, Report, Rewriter};
    use crate::rules::{Compiled, packs};
    use crate::token::Keyring;
    use proptest::prelude::*;
    use std::sync::{Arc, LazyLock};

    /// What bodies of other exchanges look like: good ones, refused ones, ones that end half-way.
    const BODIES: [&str; 6] = [
        r#"{"resourceType":"Patient","id":"p1","name":[{"family":"Ng"}],"birthDate":"1973-05-31","identifier":[{"system":"http://h.example/mrn","value":"4711"}]}"#,
        r#"{"resourceType":"Observation","id":"o1","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/p1"},"effectiveDateTime":"2020-02-02"}"#,
        r#"{"resourceType":"Bundle","type":"transaction","entry":[{"fullUrl":"urn:uuid:00000000-0000-4000-8000-000000000001","resource":{"resourceType":"Patient","id":"p2","birthDate":"1980-01-01"},"request":{"method":"POST","url":"Patient"}},{"resource":{"resourceType":"Encounter","id":"e1","status":"finished","class":{"code":"AMB"},"subject":{"reference":"Patient/p2"},"period":{"start":"2020-01-01T10:00:00Z"}},"request":{"method":"PUT","url":"Encounter/e1"}}]}"#,
        r#"{"resourceType":"Patient","id":"p3","id":"p4"}"#,
        r#"{"resourceType":"Observation","id":"o2","status":"final","subject":{"reference":"Patient/p3"},"nobody":"knows"}"#,
        r#"{"resourceType":"Bundle","type":"batch","entry":[{"resource":{"resourceType":"Patient","id":"p5"},"request":{"method":"PUT","url":"Patient/p5"}},{"resource":{"resourceType":"Pati"#,
    ];

    fn engine() -> Arc<Engine> {
        let rules = Compiled::new(packs::embedded("fhir-r4-reversible").expect("embedded")).expect("the pack loads");
        let keyring = Keyring::generate([7; 32], "2026-11-23T10:00:00Z");
        let domain = Domain::new("test").expect("a name");
        Arc::new(Engine::new(rules, &keyring, &domain, Options::default()).expect("keys"))
    }

    /// So that the next rewriter has buffers that nobody used.
    fn forget(engine: &Engine) {
        engine.spares.0.lock().unwrap().clear();
    }

    fn rewriter(engine: &Arc<Engine>, back: bool, format: Format) -> Rewriter {
        let permit = || Arc::new(danger::key_holder(Caller::new("test").expect("a name"), None));
        match back {
            true => Rewriter::reidentify(Arc::clone(engine), format, Some(permit())),
            false => Rewriter::pseudonymize(Arc::clone(engine), format),
        }
    }

    /// Everything that a body comes to: its bytes, its refusal, its report.
    fn outcome(engine: &Arc<Engine>, back: bool, body: &[u8], chunk: usize) -> (Vec<u8>, String, Report) {
        let (mut rewriter, mut output) = (rewriter(engine, back, Format::Json), Vec::new());
        let written = body.chunks(chunk).try_for_each(|part| rewriter.write(part, &mut output));
        let ended = written.and_then(|()| rewriter.finish(&mut output));
        (output, format!("{ended:?}"), rewriter.take_report())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn used_buffers_give_what_fresh_ones_give(
            before in prop::collection::vec((0..BODIES.len(), any::<bool>(), any::<bool>(), 1..400usize), 1..6),
            body in 0..BODIES.len(),
            back: bool,
            chunk in 1..600usize,
        ) {
            static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(engine);
            let engine = &*ENGINE;
            let sent = outcome(engine, false, BODIES[body].as_bytes(), 1000).0;
            let text = if back { &sent[..] } else { BODIES[body].as_bytes() };
            forget(engine);
            let fresh = outcome(engine, back, text, chunk);
            forget(engine);
            for (earlier, back, lines, cut) in before {
                // Dropped wherever the cut falls, after a refusal, or never ended.
                let mut rewriter = rewriter(engine, back, if lines { Format::Ndjson } else { Format::Json });
                let text = BODIES[earlier].as_bytes();
                let _ = rewriter.write(&text[..cut.min(text.len())], &mut Vec::new());
                if lines {
                    let _ = rewriter.document(text, &mut Vec::new());
                }
            }
            prop_assert!(!engine.spares.0.lock().unwrap().is_empty());
            prop_assert_eq!(outcome(engine, back, text, chunk), fresh);
        }
    }

    #[test]
    fn nothing_of_a_body_stays_in_its_buffers() {
        let engine = engine();
        for body in BODIES {
            outcome(&engine, false, body.as_bytes(), 100);
            let kept = format!("{:?}", engine.spares.0.lock().unwrap());
            for value in ["Ng", "4711", "p1", "p2", "p5", "1973", "Pati"] {
                assert!(!kept.contains(&format!("\"{value}")), "{value} stayed");
            }
            assert!(engine.spares.0.lock().unwrap().iter().all(|s| s.buffer.is_empty() && s.scanner.events.is_empty()));
        }
    }

    #[test]
    fn what_has_grown_large_is_not_kept() {
        assert_eq!(super::emptied(Vec::<u8>::with_capacity(100_000)).capacity(), 0);
        let kept = super::emptied(vec![7u8; 1000]);
        assert!(kept.is_empty() && kept.capacity() >= 1000);
        let engine = engine();
        drop((0..40).map(|_| rewriter(&engine, false, Format::Json)).collect::<Vec<_>>());
        assert_eq!(engine.spares.0.lock().unwrap().len(), super::SETS_MAX);
    }
}
