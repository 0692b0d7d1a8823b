//! Request paths of a route whose pack is of `format: json`: only those that the pack spells (`urls:`), and no query.
//!
//! Nothing is decoded here, so nothing that is encoded passes.

use crate::limits;
use crate::policy::Permit;
use crate::rewrite::engine::Engine;
use crate::rewrite::reference::Way;
use crate::rewrite::refusal::{Code, Refusal};
use crate::rewrite::report::Report;
use crate::rules::plain::Plain;
use crate::rules::plain::url::{Pattern, Segment};

/// Rewrites a request target (path and query below the base). The base itself always crosses: the configuration names it.
pub fn request(engine: &Engine, plain: &Plain, target: &str) -> Result<String, Refusal> {
    let no = |code| Refusal::of(code, "URL");
    if target.len() > limits::URL_BYTES_MAX {
        return Err(no(Code::BadUrl));
    }
    if matches!(target, "" | "/") {
        return Ok(target.to_owned());
    }
    rewritten(engine, plain, target, &mut Way::out()).map_err(no)
}

/// Rewrites `Location` of an answer, which must be a path that the pack spells.
pub fn location(
    engine: &Engine,
    plain: &Plain,
    value: &str,
    permit: Option<&Permit>,
    report: &mut Report,
) -> Result<String, Refusal> {
    let mut way = Way::back(permit);
    let out = rewritten(engine, plain, value, &mut way).map_err(|code| Refusal::of(code, "Location"))?;
    report.stayed += way.stayed;
    for class in way.revealed {
        *report.reveals.entry(class).or_default() += 1;
    }
    Ok(out)
}

fn rewritten(engine: &Engine, plain: &Plain, target: &str, way: &mut Way<'_>) -> Result<String, Code> {
    // A query, a fragment or anything percent-encoded fits no literal and, as a value, has no spelling of its own.
    if target.contains(['?', '#', '%']) {
        return Err(Code::UrlUnnamed);
    }
    let (slash, path) = target.strip_prefix('/').map_or(("", target), |path| ("/", path));
    let segments: Vec<&str> = path.split('/').collect();
    let pattern = plain.urls.iter().find(|pattern| fits(pattern, &segments)).ok_or(Code::UrlUnnamed)?;
    let mut out = String::with_capacity(target.len() + 64);
    for (i, (segment, text)) in pattern.0.iter().zip(&segments).enumerate() {
        out.push_str(if i == 0 { slash } else { "/" });
        match segment {
            Segment::Literal(literal) => out.push_str(literal),
            Segment::Value(class) => {
                let from = out.len();
                engine.value(&engine.classes[*class as usize], text, None, true, &mut out, way)?;
                // Unfolded from an escape or a token it may be anything: it must stay one segment, and not climb.
                if !is_segment(&out[from..]) {
                    return Err(Code::BadUrl);
                }
            }
        }
    }
    Ok(out)
}

fn fits(pattern: &Pattern, segments: &[&str]) -> bool {
    let one = |(segment, text): (&Segment, &&str)| match segment {
        Segment::Literal(literal) => literal == text,
        Segment::Value(_) => is_segment(text),
    };
    pattern.0.len() == segments.len() && pattern.0.iter().zip(segments).all(one)
}

/// One plain segment (RFC 3986 section 2.3), not a step up.
fn is_segment(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
}
