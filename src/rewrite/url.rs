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
    if let Some(plain) = &engine.rules.plain {
        return super::plain::url::request(engine, plain, target);
    }
    if let Some(link) = page(engine, method, target, "") {
        return link;
    }
    let url = RequestUrl::parse(engine.rules.release, method, target).map_err(|_| Refusal::of(Code::BadUrl, place))?;
    let mut out = String::with_capacity(target.len() + 64);
    engine.rest_url(&url, &mut out, &mut engine.outward()).map_err(|code| Refusal::of(code, place))?;
    Ok(out)
}

/// A page of an answer, by the link that was given to this caller.
fn page(engine: &Engine, method: &str, target: &str, caller: &str) -> Option<Result<String, Refusal>> {
    let link = engine.page(target, caller)?;
    Some(match (method, link) {
        ("GET", Ok(link)) => Ok(link),
        ("GET", Err(code)) => Err(Refusal::of(code, "URL")),
        _ => Err(Refusal::of(Code::BadUrl, "URL")),
    })
}

/// Resolves a request target of a caller outside (path and query below the base): its tokens become what they stand for, as
/// far as the permit reaches. What stays a token, and what asks for a true identity, is refused.
pub fn resolve(
    engine: &Engine,
    method: &str,
    target: &str,
    caller: &str,
    permit: Option<&Permit>,
    report: &mut Report,
) -> Result<String, Refusal> {
    let no = |code| Refusal::of(code, "URL");
    if target.len() > limits::URL_BYTES_MAX || engine.rules.plain.is_some() {
        return Err(no(Code::BadUrl));
    }
    if let Some(link) = page(engine, method, target, caller) {
        return link;
    }
    let url = RequestUrl::parse(engine.rules.release, method, target).map_err(|_| no(Code::BadUrl))?;
    let mut out = String::with_capacity(target.len());
    let mut way = Way::back(permit);
    engine.rest_url(&url, &mut out, &mut way).map_err(no)?;
    resolved(way, report, "URL").map(|()| out)
}

/// Resolves a search on one type of a caller outside: the header `If-None-Exist`.
pub fn resolve_condition(
    engine: &Engine,
    resource_type: &str,
    query: &str,
    permit: Option<&Permit>,
    report: &mut Report,
) -> Result<String, Refusal> {
    let mut out = String::with_capacity(query.len());
    let mut way = Way::back(permit);
    let query = query.strip_prefix('?').unwrap_or(query);
    engine.condition(resource_type, query, &mut out, &mut way).map_err(|code| Refusal::of(code, "search"))?;
    resolved(way, report, "search").map(|()| out)
}

fn resolved(way: Way<'_>, report: &mut Report, place: &'static str) -> Result<(), Refusal> {
    if way.stayed > 0 {
        return Err(Refusal::of(Code::Unresolved, place));
    }
    for class in way.revealed {
        *report.reveals.entry(class).or_default() += 1;
    }
    Ok(())
}

/// Rewrites `Location` and `Content-Location` of an answer to a caller outside.
pub fn location_outside(engine: &Engine, value: &str) -> Result<String, Refusal> {
    let mut out = String::with_capacity(value.len() + 64);
    engine.reference(value, &[], &mut out, &mut engine.outward()).map_err(|code| Refusal::of(code, "Location"))?;
    Ok(out)
}

/// Rewrites a search on one type: the header `If-None-Exist`, the form of `_search`.
pub fn condition(engine: &Engine, resource_type: &str, query: &str) -> Result<String, Refusal> {
    if engine.rules.plain.is_some() {
        return Err(Refusal::of(Code::UrlUnnamed, "search"));
    }
    let mut out = String::with_capacity(query.len() + 64);
    let query = query.strip_prefix('?').unwrap_or(query);
    engine
        .condition(resource_type, query, &mut out, &mut engine.outward())
        .map_err(|code| Refusal::of(code, "search"))?;
    Ok(out)
}

/// Rewrites `Location` and `Content-Location` of an answer. What cannot be understood must not be followed: it is refused.
pub fn location(engine: &Engine, value: &str, permit: Option<&Permit>, report: &mut Report) -> Result<String, Refusal> {
    let mut out = String::with_capacity(value.len() + 64);
    let mut way = Way::back(permit);
    if let Some(plain) = &engine.rules.plain {
        return super::plain::url::location(engine, plain, value, permit, report);
    }
    engine.reference(value, &[], &mut out, &mut way).map_err(|code| Refusal::of(code, "Location"))?;
    report.stayed += way.stayed;
    for class in &way.revealed {
        *report.reveals.entry(class.clone()).or_default() += 1;
    }
    Ok(out)
}
