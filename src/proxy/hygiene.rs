//! What may cross besides body and target: HTTP as RFC 9110 to 9113 mean it, and headers by allow-list.
//!
//! A request that two programs could read differently is refused here, before its body is asked for. No header crosses
//! because it was not thought of: each list names what passes, in which form, and everything else ends here. What a body's
//! rewriting makes untrue (lengths, digests, ranges, strong validators) ends here too.

use super::location;
use super::media::{self, Media};
use super::respond::{CallerError, Failure, UpstreamError};
use super::settings::{Credentials, Route, Untrusted};
use crate::encoding::stream::{Coding, Packing};
use crate::names::Purpose;
use crate::policy::Permit;
use crate::rewrite::{self, Report};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, request, response};
use std::sync::Arc;

/// Where the caller says why it asks: a code of HL7 v3 PurposeOfUse. It ends here.
pub const PURPOSE: HeaderName = HeaderName::from_static("x-purpose-of-use");
const IF_NONE_EXIST: HeaderName = HeaderName::from_static("if-none-exist");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const X_PROVENANCE: HeaderName = HeaderName::from_static("x-provenance");

/// Headers of the connection that `Connection` may name (RFC 9110 §7.6.1). All end here.
const CONNECTION_TOKENS: [&str; 6] = ["close", "keep-alive", "te", "trailer", "upgrade", "http2-settings"];

/// A request that can only be read one way.
#[derive(Debug)]
pub struct Clean {
    /// GET, HEAD, POST, PUT or DELETE.
    pub method: Method,
    /// Lower case, with its port if it names one.
    pub host: String,
    /// Path and query as sent.
    pub target: String,
    /// Type of the body; `None`: it has none.
    pub media: Option<Media>,
    /// Coding of the body, if any.
    pub coding: Option<Coding>,
}

/// Refuses what is ambiguous, unknown or not offered. Nothing of the body was read when it returns.
pub fn request(parts: &request::Parts, has_body: bool) -> Result<Clean, Failure> {
    let method = match &parts.method {
        m if [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE].contains(m) => m.clone(),
        _ => return Err(Failure::Caller(CallerError::Method)),
    };
    let host = host(parts).map_err(Failure::Caller)?;
    let target = target(parts).map_err(Failure::Caller)?;
    let (media, coding) = body(&parts.headers, &method, has_body).map_err(Failure::Caller)?.unzip();
    let clean = Clean { host, target, media, coding: coding.flatten(), method };
    connection(&parts.headers).map_err(Failure::Caller)?;
    if parts.headers.contains_key(X_PROVENANCE) {
        return Err(Failure::Caller(CallerError::Header("x-provenance")));
    }
    Ok(clean)
}

/// Exactly one host, the same wherever it is named (RFC 9112 §3.2, RFC 9113 §8.3.1).
fn host(parts: &request::Parts) -> Result<String, CallerError> {
    let mut values = parts.headers.get_all(header::HOST).iter();
    let (named, more) = (values.next(), values.next());
    let authority = parts.uri.authority();
    if more.is_some() || (named.is_none() && (parts.version < Version::HTTP_2 || authority.is_none())) {
        return Err(CallerError::Host);
    }
    if let Some(authority) = authority {
        let same = named.is_none_or(|named| named.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()));
        if !same {
            return Err(CallerError::Authority);
        }
    }
    let scheme_fits = parts.uri.scheme_str().is_none_or(|scheme| scheme == "https" || scheme == "http");
    if !scheme_fits {
        return Err(CallerError::Target);
    }
    let text = match (named, authority) {
        (Some(named), _) => named.to_str().map_err(|_| CallerError::Host)?,
        (None, Some(authority)) => authority.as_str(),
        (None, None) => return Err(CallerError::Host),
    };
    if is_host(text) { Ok(text.to_ascii_lowercase()) } else { Err(CallerError::Host) }
}

/// A name, an IPv4 address or an IPv6 address in brackets, and at most one port (RFC 3986 §3.2.2). User information has an
/// @ and is none of it.
fn is_host(text: &str) -> bool {
    let end = text.find(']').map_or_else(|| text.find(':').unwrap_or(text.len()), |bracket| bracket + 1);
    let (name, port) = text.split_at(end);
    let named = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')),
    };
    let numbered = port.strip_prefix(':').map_or(port.is_empty(), |digits| {
        (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
    });
    named && numbered
}

/// A path that stays where it is whoever resolves it: no dot segments, no empty ones, nothing escaped that would be a
/// separator or a dot. What its segments mean is the rewriter's to judge.
fn target(parts: &request::Parts) -> Result<String, CallerError> {
    let target = parts.uri.path_and_query().ok_or(CallerError::Target)?;
    let path = target.path().strip_prefix('/').ok_or(CallerError::Target)?.as_bytes();
    let dots = path.split(|&b| b == b'/').any(|segment| segment == b"." || segment == b"..");
    let escaped = path.windows(3).any(|w| {
        w[0] == b'%' && [b"2e", b"2f", b"5c", b"00", b"25"].iter().any(|hidden| w[1..].eq_ignore_ascii_case(*hidden))
    });
    if dots || escaped || path.starts_with(b"/") || path.windows(2).any(|w| w == b"//") || path.contains(&b'\\') {
        return Err(CallerError::Target);
    }
    Ok(target.as_str().to_owned())
}

/// Framing and protocol of the connection.
fn connection(headers: &HeaderMap) -> Result<(), CallerError> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(CallerError::TransferEncoding);
    }
    for token in tokens(headers, &header::CONNECTION) {
        if !CONNECTION_TOKENS.iter().any(|known| token.eq_ignore_ascii_case(known.as_bytes())) && passes(token) {
            return Err(CallerError::Connection);
        }
    }
    // Clients that could speak HTTP/2 offer `h2c` and go on without it (RFC 9113 Appendix B): it ends here.
    if tokens(headers, &header::UPGRADE).any(|token| !token.eq_ignore_ascii_case(b"h2c")) {
        return Err(CallerError::Upgrade);
    }
    let mut expectations = headers.get_all(header::EXPECT).iter();
    if let Some(expectation) = expectations.next()
        && (expectations.next().is_some() || !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(CallerError::Expectation);
    }
    Ok(())
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).iter();
    values.flat_map(|v| v.as_bytes().split(|&b| b == b',')).map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether a header of this name decides anything here or beyond, so that `Connection` must not make it vanish.
fn passes(name: &[u8]) -> bool {
    let Ok(name) = HeaderName::from_bytes(name) else { return true };
    let text = name.as_str();
    text.starts_with("content-")
        || text.starts_with("if-")
        || [
            header::HOST,
            header::AUTHORIZATION,
            header::ACCEPT,
            header::EXPECT,
            header::COOKIE,
            header::TRANSFER_ENCODING,
            PREFER,
            PURPOSE,
            TRACEPARENT,
            X_PROVENANCE,
        ]
        .contains(&name)
}

fn body(headers: &HeaderMap, method: &Method, has_body: bool) -> Result<Option<(Media, Option<Coding>)>, CallerError> {
    if !has_body {
        return Ok(None);
    }
    if method != Method::POST && method != Method::PUT {
        return Err(CallerError::Body);
    }
    let coding = coding(headers).ok_or(CallerError::Encoding)?;
    Media::of(headers).map(|media| Some((media, coding))).ok_or(CallerError::MediaType)
}

/// The content coding of a body: at most one, of those that can be read. `None`: it cannot.
fn coding(headers: &HeaderMap) -> Option<Option<Coding>> {
    let mut named = tokens(headers, &header::CONTENT_ENCODING).filter(|name| !name.eq_ignore_ascii_case(b"identity"));
    match (named.next(), named.next()) {
        (None, _) => Some(None),
        (Some(name), None) => Coding::named(name).map(Some),
        (Some(_), Some(_)) => None,
    }
}

/// The first of the route's packings that the caller takes (RFC 9110 §12.5.3).
pub fn packing(route: &Route, from: &HeaderMap) -> Option<Packing> {
    let refused = |parameters: &[u8]| {
        let weight = parameters.trim_ascii().strip_prefix(b"q=");
        weight.is_some_and(|weight| weight.starts_with(b"0") && weight.iter().all(|b| matches!(b, b'0' | b'.')))
    };
    let takes = |packing: &Packing| {
        tokens(from, &header::ACCEPT_ENCODING).any(|range| {
            let mut parts = range.split(|&b| b == b';');
            let named = parts.next().unwrap_or_default().trim_ascii();
            named.eq_ignore_ascii_case(packing.name().as_bytes()) && !parts.any(refused)
        })
    };
    route.packings.iter().copied().find(takes)
}

/// Why the caller asks, if it says so once and with a word that can be a purpose. Otherwise it has not said.
pub fn purpose(headers: &HeaderMap) -> Option<Purpose> {
    let mut values = headers.get_all(PURPOSE).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Purpose::new(value.to_str().ok()?).ok(),
        _ => None,
    }
}

/// The headers of the request to the upstream. Conditional reads are left out where answers are shown by a permit: a `304`
/// would serve what another caller was shown. Callers outside may not ask when a record was changed.
pub fn request_headers(
    route: &Route,
    parts: &request::Parts,
    clean: &Clean,
    below: &str,
    permit: Option<&Permit>,
    report: &mut Report,
) -> Result<HeaderMap, Failure> {
    let from = &parts.headers;
    let mut to = HeaderMap::new();
    to.insert(
        header::ACCEPT,
        media::accept(from, route.engine.rules().plain.is_some()).ok_or(Failure::Caller(CallerError::Accept))?,
    );
    to.insert(header::ACCEPT_ENCODING, accept_encoding(route));
    if let Some(media) = &clean.media {
        to.insert(header::CONTENT_TYPE, media.header());
    }
    if let Some(value) = versions(from, &header::IF_MATCH).map_err(Failure::Caller)? {
        to.insert(header::IF_MATCH, value);
    }
    let reads = clean.method == Method::GET || clean.method == Method::HEAD;
    let outside = route.untrusted == Untrusted::Downstream;
    if outside || !(permit.is_some() && reads) {
        if let Some(value) = versions(from, &header::IF_NONE_MATCH).map_err(Failure::Caller)? {
            to.insert(header::IF_NONE_MATCH, value);
        }
        if let Some(value) = one(from, &header::IF_MODIFIED_SINCE).filter(|value| !outside && is_http_date(value)) {
            to.insert(header::IF_MODIFIED_SINCE, value.clone());
        }
    }
    if from.contains_key(IF_NONE_EXIST) {
        let malformed = Failure::Caller(CallerError::Header("if-none-exist"));
        let query = one(from, &IF_NONE_EXIST).and_then(|value| value.to_str().ok()).ok_or(malformed.clone())?;
        let resource_type = below.split(['/', '?']).next().unwrap_or_default();
        let query = query.strip_prefix('?').unwrap_or(query);
        let rewritten = match route.untrusted {
            Untrusted::Upstream => rewrite::url::condition(&route.engine, resource_type, query),
            Untrusted::Downstream => {
                rewrite::url::resolve_condition(&route.engine, resource_type, query, permit, report)
            }
        };
        let rewritten = rewritten.map_err(|refusal| Failure::Request(Arc::new(refusal)))?;
        to.insert(IF_NONE_EXIST, HeaderValue::try_from(rewritten).map_err(|_| malformed)?);
    }
    if let Some(value) = preferences(from) {
        to.insert(PREFER, value);
    }
    if let Some(value) = one(from, &TRACEPARENT).filter(|value| is_traceparent(value.as_bytes())) {
        to.insert(TRACEPARENT, value.clone());
    }
    match &route.credentials {
        Credentials::Drop => {}
        Credentials::Replace(value) => {
            to.insert(header::AUTHORIZATION, value.clone());
        }
        Credentials::Forward => {
            if from.contains_key(header::AUTHORIZATION) {
                let value = one(from, &header::AUTHORIZATION);
                let mut value = value.ok_or(Failure::Caller(CallerError::Header("authorization")))?.clone();
                value.set_sensitive(true);
                to.insert(header::AUTHORIZATION, value);
            }
        }
    }
    Ok(to)
}

/// What the upstream is asked to code its answer in.
fn accept_encoding(route: &Route) -> HeaderValue {
    let names: Vec<&str> = route.packings.iter().map(|packing| packing.name()).collect();
    if names.is_empty() {
        return HeaderValue::from_static("identity");
    }
    HeaderValue::try_from(names.join(", ")).expect("made of names from a list in this program")
}

/// The FHIR interaction (R4 §2.21.0), as far as method and path tell it: a word for the audit.
pub fn interaction(method: &Method, below: &str) -> &'static str {
    let (path, query) = below.split_once('?').unwrap_or((below, ""));
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match (method.as_str(), segments.as_slice()) {
        (_, [.., last]) if last.starts_with('$') => "operation",
        (_, [.., "_search"]) => "search-type",
        ("GET" | "HEAD", ["metadata"]) => "capabilities",
        ("GET" | "HEAD", [.., "_history"]) => "history",
        ("GET" | "HEAD", [.., "_history", _]) => "vread",
        ("GET" | "HEAD", [_, _]) => "read",
        ("GET" | "HEAD", [_]) => "search-type",
        ("GET" | "HEAD", []) => "search-system",
        ("POST", []) if query.is_empty() => "batch",
        ("POST", [_]) => "create",
        ("PUT", _) => "update",
        ("DELETE", _) => "delete",
        _ => "other",
    }
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (only, None) => only,
        _ => None,
    }
}

/// `*` or a list of entity tags whose text can be a FHIR version id. Leaving out a malformed condition would make a
/// conditional update unconditional, so it is refused.
fn versions(headers: &HeaderMap, name: &HeaderName) -> Result<Option<HeaderValue>, CallerError> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    let words: Vec<&[u8]> = tokens(headers, name).collect();
    let plain = words.len() <= 16 && (words == [b"*"] || (!words.is_empty() && words.iter().all(|w| is_version(w))));
    if !plain {
        return Err(CallerError::Header(if *name == header::IF_MATCH { "if-match" } else { "if-none-match" }));
    }
    let value = HeaderValue::from_bytes(&words.join(&b", "[..])).expect("its parts were header values");
    Ok(Some(value))
}

/// `W/"3"` or `"3"`, with the characters of a FHIR id between the quotes.
fn is_version(word: &[u8]) -> bool {
    let opaque = word.strip_prefix(b"W/").unwrap_or(word);
    opaque.strip_prefix(b"\"").and_then(|w| w.strip_suffix(b"\"")).is_some_and(|id| {
        (1..=64).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
    })
}

/// IMF-fixdate (RFC 9110 §5.6.7): nothing but a date fits.
fn is_http_date(value: &HeaderValue) -> bool {
    let shape = b"Aaa, 00 Aaa 0000 00:00:00 GMT";
    value.len() == shape.len()
        && value.as_bytes().iter().zip(shape).all(|(b, s)| match s {
            b'0' => b.is_ascii_digit(),
            b'A' => b.is_ascii_uppercase(),
            b'a' => b.is_ascii_lowercase(),
            other => b == other,
        })
}

/// W3C Trace Context §3.2, version 00: random numbers only. `tracestate` and `baggage` are free text and end here.
fn is_traceparent(value: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&[u8]> = value.split(|&b| b == b'-').collect();
    matches!(parts[..], [b"00", trace, parent, flags]
        if trace.len() == 32 && parent.len() == 16 && flags.len() == 2 && hex(trace) && hex(parent) && hex(flags))
}

/// The preferences of FHIR that need nothing more from the proxy. `respond-async` would start a bulk export, whose
/// manifest cannot be rewritten yet.
fn preferences(headers: &HeaderMap) -> Option<HeaderValue> {
    const KNOWN: [&str; 5] =
        ["return=minimal", "return=representation", "return=OperationOutcome", "handling=strict", "handling=lenient"];
    let wanted: Vec<&str> = headers
        .get_all(PREFER)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&b| b == b',' || b == b';'))
        .filter_map(|word| KNOWN.into_iter().find(|known| known.as_bytes().eq_ignore_ascii_case(word.trim_ascii())))
        .collect();
    (!wanted.is_empty()).then(|| HeaderValue::try_from(wanted.join(", ")).expect("made of words from the list above"))
}

/// What an answer's head allows: how its body is read, and the headers that go on.
pub struct CleanAnswer {
    /// Type of the body; `None`: it has none, or one that HTTP forbids.
    pub media: Option<Media>,
    /// Coding of the body, if any.
    pub coding: Option<Coding>,
    /// Headers for the caller. No length: the body knows its own.
    pub headers: HeaderMap,
    /// What the headers reveal.
    pub report: Report,
}

/// Refuses an answer that cannot be read one way, and picks the headers that go on. `asked` is the path that the upstream
/// was asked for.
pub fn answer(
    route: &Route,
    method: &Method,
    asked: &str,
    parts: &response::Parts,
    has_body: bool,
    permit: Option<&Permit>,
) -> Result<CleanAnswer, Failure> {
    let conditional_read = permit.is_none() && (method == Method::GET || method == Method::HEAD);
    let unasked = match parts.status {
        StatusCode::PARTIAL_CONTENT | StatusCode::SWITCHING_PROTOCOLS => true,
        StatusCode::NOT_MODIFIED => !conditional_read,
        // Beyond 599 nobody knows what a status means (RFC 9110 §15).
        status => status.is_informational() || status.as_u16() > 599,
    };
    if unasked {
        return Err(Failure::Upstream(UpstreamError::Status));
    }
    let from = &parts.headers;
    let bodiless = *method == Method::HEAD
        || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RESET_CONTENT);
    let mut coded = None;
    let media = if bodiless || !has_body {
        None
    } else {
        coded = coding(from).ok_or(Failure::Upstream(UpstreamError::Encoding))?;
        let chunked =
            one(from, &header::TRANSFER_ENCODING).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"chunked"));
        let framed = parts.version >= Version::HTTP_2 || chunked || one(from, &header::CONTENT_LENGTH).is_some();
        if !framed || (from.contains_key(header::TRANSFER_ENCODING) && !chunked) {
            return Err(Failure::Upstream(UpstreamError::Unframed));
        }
        Some(Media::of(from).ok_or(Failure::Upstream(UpstreamError::MediaType))?)
    };
    let (headers, report) = answer_headers(route, asked, from, media.as_ref(), permit)?;
    Ok(CleanAnswer { media, coding: coded, headers, report })
}

fn answer_headers(
    route: &Route,
    asked: &str,
    from: &HeaderMap,
    media: Option<&Media>,
    permit: Option<&Permit>,
) -> Result<(HeaderMap, Report), Failure> {
    let mut to = HeaderMap::new();
    let mut report = Report::default();
    if let Some(media) = media {
        to.insert(header::CONTENT_TYPE, media.header());
    }
    // A version id is the same on both sides, but the bytes it stands for are not: only a weak tag is true (RFC 9110 §8.8.1).
    if let Some(tag) = one(from, &header::ETAG).filter(|tag| is_version(tag.as_bytes())) {
        let weak = if tag.as_bytes().starts_with(b"W/") { tag.clone() } else { weaken(tag) };
        to.insert(header::ETAG, weak);
    }
    for name in [header::LAST_MODIFIED, header::RETRY_AFTER] {
        let plain =
            |v: &&HeaderValue| is_http_date(v) || (!v.is_empty() && v.as_bytes().iter().all(u8::is_ascii_digit));
        // When a record was changed is a date of it: no caller outside learns it.
        let tells = name == header::LAST_MODIFIED && route.untrusted == Untrusted::Downstream;
        if let Some(value) = one(from, &name).filter(plain).filter(|_| !tells) {
            to.insert(name, value.clone());
        }
    }
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        if !from.contains_key(&name) {
            continue;
        }
        let broken = Failure::Upstream(UpstreamError::Location);
        let value = one(from, &name).and_then(|value| value.to_str().ok()).ok_or(broken.clone())?;
        let value = location::resolve(&route.upstream.origins[0], asked, value);
        let text = match (own_base(route, &value), route.untrusted) {
            (Some(base), _) => Ok(base.to_owned()),
            (None, Untrusted::Upstream) => rewrite::url::location(&route.engine, &value, permit, &mut report),
            (None, Untrusted::Downstream) => rewrite::url::location_outside(&route.engine, &value),
        };
        let text = text.map_err(|refusal| Failure::Answer(Arc::new(refusal)))?;
        if !leads_here(route, &text) {
            return Err(broken);
        }
        to.insert(name, HeaderValue::try_from(text).map_err(|_| broken)?);
    }
    if permit.is_some() {
        to.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        to.insert(header::VARY, HeaderValue::from_static("Authorization, X-Purpose-Of-Use"));
    } else {
        if !route.packings.is_empty() {
            to.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        to.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    }
    Ok((to, report))
}

/// The route's public base, if a URL is the base of one of its endpoints itself.
fn own_base<'a>(route: &'a Route, url: &str) -> Option<&'a str> {
    let url = url.strip_suffix('/').unwrap_or(url);
    let mut own = route.upstream.origins.iter().map(|origin| url.strip_prefix(origin.as_str()));
    own.any(|path| path == Some(route.upstream.path.as_str())).then_some(route.public_base.as_str())
}

/// Whether a URL stays on this route: a client that followed it elsewhere would bypass the proxy.
fn leads_here(route: &Route, url: &str) -> bool {
    let below = url.strip_prefix(route.public_base.as_str());
    let ours = below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    let absolute = url.starts_with("//") || url.split(['/', '?', '#']).next().unwrap_or_default().contains(':');
    ours || !(absolute || url.contains('\\'))
}

fn weaken(tag: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).expect("a header value with W/ before it")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request as hyper hands it over: target, then headers one a line.
    #[track_caller]
    fn check(method: &str, target: &str, headers: &str, has_body: bool, expected: Result<(), CallerError>) {
        let mut builder = http::Request::builder().method(method).uri(target);
        for line in headers.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            builder = builder.header(name, value);
        }
        let (parts, ()) = builder.body(()).unwrap().into_parts();
        let found = match request(&parts, has_body) {
            Ok(_) => Ok(()),
            Err(Failure::Caller(error)) => Err(error),
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(found, expected, "{method} {target}\n{headers}");
    }

    #[test]
    fn a_request_is_read_one_way_or_not_at_all() {
        use CallerError as E;
        check("GET", "/Patient/1", "host: a", false, Ok(()));
        check("GET", "/Patient/1", "host: a:8443", false, Ok(()));
        check("GET", "http://a/Patient/1", "host: A", false, Ok(()));
        check("GET", "/Patient/1", "", false, Err(E::Host));
        check("GET", "/Patient/1", "host: a\nhost: a", false, Err(E::Host));
        check("GET", "/Patient/1", "host: u@a", false, Err(E::Host));
        check("GET", "/Patient/1", "host: [::1]:8443", false, Ok(()));
        for host in ["a/b", "a:", "a:1:2", "a:b", ":1", "[::1", "[::1]]", "[a]", "[::1]x", "a]", "a:123456"] {
            check("GET", "/Patient/1", &format!("host: {host}"), false, Err(E::Host));
        }
        check("GET", "http://b/Patient/1", "host: a", false, Err(E::Authority));
        check("GET", "http://u@a/Patient/1", "host: a", false, Err(E::Authority));
        check("GET", "http://u@a/Patient/1", "host: u@a", false, Err(E::Host));
        check("GET", "*", "host: a", false, Err(E::Target));
        check("GET", "/a..b/.c?x=../y//z", "host: a", false, Ok(()));
        for path in [
            "/../x",
            "/x/..",
            "/x/./y",
            "/x//y",
            "//x",
            "/x%2Fy",
            "/x%2f..",
            "/%2e%2E/x",
            "/x%5cy",
            "/x%252fy",
            "/x%00",
        ] {
            check("GET", path, "host: a", false, Err(E::Target));
        }
        for method in ["TRACE", "OPTIONS", "PATCH", "PROPFIND", "get"] {
            check(method, "/", "host: a", false, Err(E::Method));
        }
        check("CONNECT", "a:443", "host: a:443", false, Err(E::Method));
        check("POST", "/", "host: a\ntransfer-encoding: gzip, chunked", false, Err(E::TransferEncoding));
        check(
            "POST",
            "/",
            "host: a\ntransfer-encoding: chunked\ntransfer-encoding: chunked",
            false,
            Err(E::TransferEncoding),
        );
        check("GET", "/", "host: a\nconnection: X-A, Host", false, Err(E::Connection));
        check("GET", "/", "host: a\nconnection: authorization", false, Err(E::Connection));
        check("GET", "/", "host: a\nconnection: content-type", false, Err(E::Connection));
        check("GET", "/", "host: a\nconnection: keep-alive, x-a", false, Ok(()));
        check("GET", "/", "host: a\nupgrade: websocket\nconnection: upgrade", false, Err(E::Upgrade));
        check("GET", "/", "host: a\nupgrade: h2c\nconnection: Upgrade, HTTP2-Settings", false, Ok(()));
        check("GET", "/", "host: a\nexpect: 200-maybe", false, Err(E::Expectation));
        check("GET", "/", "host: a\nx-provenance: {}", false, Err(E::Header("x-provenance")));
        check("GET", "/", "host: a", true, Err(E::Body));
        check("DELETE", "/", "host: a", true, Err(E::Body));
        check("POST", "/", "host: a", true, Err(E::MediaType));
        check("POST", "/", "host: a\ncontent-type: application/json\ncontent-encoding: X-GZIP", true, Ok(()));
        for coding in ["compress", "gzip, gzip", "gzip\ncontent-encoding: br", "gzip;q=1", "aes128gcm"] {
            let headers = format!("host: a\ncontent-type: application/json\ncontent-encoding: {coding}");
            check("POST", "/", &headers, true, Err(E::Encoding));
        }
        check("POST", "/", "host: a\ncontent-type: application/json\ncontent-encoding: identity", true, Ok(()));
    }

    #[test]
    fn conditions_carry_version_ids_only() {
        let read = |text: &str| {
            versions(
                &HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_str(text).unwrap())]),
                &header::IF_MATCH,
            )
        };
        assert_eq!(read("W/\"3\"").unwrap().unwrap(), "W/\"3\"");
        assert_eq!(read("*").unwrap().unwrap(), "*");
        for bad in ["W/\"Ng, Ada\"", "3", "\"\"", "W/\"a b\"", "*, W/\"3\"", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(is_http_date(&HeaderValue::from_static("Mon, 23 Nov 2026 10:00:00 GMT")));
        assert!(!is_http_date(&HeaderValue::from_static("Ada, Ng Nov 2026 10:00:00 GMT")));
        assert!(is_traceparent(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(!is_traceparent(b"00-patient-ng-01"));
    }
}
