//! The request line and headers of an exchange: the same grammar as inside bodies, behind three doors.

use super::engine::Engine;
use super::reference::Way;
use super::refusal::{Code, Refusal};
use super::report::Report;
use crate::fhir::reference::RequestUrl;
use crate::limits;
use crate::policy::Permit;

/// Rewrites a request target (path and query below the base) for the untrusted side.
pub fn request(engine: &Engine, method: &str, target: &str) -> Result<String, Refusal> {
    let place = "URL";
    if target.len() > limits::URL_BYTES_MAX {
        return Err(Refusal::of(Code::BadUrl, place));
    }
    if let Some(page) = engine.page(target) {
        return match (method, page) {
            ("GET", Ok(link)) => Ok(link),
            ("GET", Err(code)) => Err(Refusal::of(code, place)),
            _ => Err(Refusal::of(Code::BadUrl, place)),
        };
    }
    let url = RequestUrl::parse(engine.rules.release, method, target).map_err(|_| Refusal::of(Code::BadUrl, place))?;
    let mut out = String::with_capacity(target.len() + 64);
    engine.rest_url(&url, &mut out, &mut Way::out()).map_err(|code| Refusal::of(code, place))?;
    Ok(out)
}

/// Rewrites a search on one type: the header `If-None-Exist`, the form of `_search`.
pub fn condition(engine: &Engine, resource_type: &str, query: &str) -> Result<String, Refusal> {
    let mut out = String::with_capacity(query.len() + 64);
    let query = query.strip_prefix('?').unwrap_or(query);
    engine.condition(resource_type, query, &mut out, &mut Way::out()).map_err(|code| Refusal::of(code, "search"))?;
    Ok(out)
}

/// Rewrites `Location` and `Content-Location` of an answer. What cannot be understood must not be followed: it is refused.
pub fn location(engine: &Engine, value: &str, permit: Option<&Permit>, report: &mut Report) -> Result<String, Refusal> {
    let mut out = String::with_capacity(value.len() + 64);
    let mut way = Way::back(permit);
    engine.reference(value, &[], &mut out, &mut way).map_err(|code| Refusal::of(code, "Location"))?;
    report.stayed += way.stayed;
    for class in way.revealed {
        *report.reveals.entry(class).or_default() += 1;
    }
    Ok(out)
}
