//! What goes wrong in an exchange, and how it is said: one enum, one `match`, no catch-all.
//!
//! An answer made here carries a stable code, what happened and what to do. It never carries a value from traffic: every
//! text is written here or in the code list of the rewriter, and paths are log-safe by the rewriter's word.

use super::body::Outgoing;
use crate::rewrite::Refusal;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use std::sync::Arc;

/// Why an exchange ends without the upstream's answer. Each variant says whose fault it is.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The caller's request breaks a rule of HTTP, or asks for what is not offered.
    Caller(CallerError),
    /// The rewriter refused the caller's request.
    Request(Arc<Refusal>),
    /// The rewriter refused the upstream's answer.
    Answer(Arc<Refusal>),
    /// The upstream did not answer, or not properly.
    Upstream(UpstreamError),
    /// Something on our side.
    Own(OwnError),
}

/// What a caller can do wrong before the rewriter sees anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerError {
    /// No `Host`, several, or none that is a host.
    Host,
    /// An absolute target or `:authority` that is not the `Host`.
    Authority,
    /// A target that is neither a path nor an absolute URL.
    Target,
    /// A method that is not offered.
    Method,
    /// A `Transfer-Encoding` other than exactly one `chunked`.
    TransferEncoding,
    /// `Connection` names a header that decides something.
    Connection,
    /// `Upgrade` to anything.
    Upgrade,
    /// An `Expect` other than `100-continue`.
    Expectation,
    /// A header that carries a resource or whose loss would change the meaning.
    Header(&'static str),
    /// A body where none belongs.
    Body,
    /// A media type that is missing, repeated, unknown or not UTF-8.
    MediaType,
    /// A `Content-Encoding` that cannot be read, or several.
    Encoding,
    /// A body that is not what its `Content-Encoding` says, or not whole.
    Undecodable,
    /// A body that expands too far.
    Expands,
    /// Asks only for media types that cannot be rewritten.
    Accept,
    /// No route for this host and path.
    Route,
    /// `PUT` where the rules lose data.
    LossyUpdate,
    /// The body ended before its announced end, or was malformed on the wire.
    Cut,
    /// The body stalled.
    Stalled,
}

/// What an upstream can do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamError {
    /// No connection, or it broke before the answer.
    Unreachable,
    /// No answer in time.
    Slow,
    /// The answer broke off or stalled.
    Cut,
    /// An answer without length or chunks: its end could not be told from a cut.
    Unframed,
    /// A body whose media type is missing, repeated, unknown or not UTF-8.
    MediaType,
    /// A `Content-Encoding` that cannot be read, or several.
    Encoding,
    /// A body that is not what its `Content-Encoding` says, not whole, or expands too far.
    Undecodable,
    /// A partial answer or a change of protocol that was not asked for.
    Status,
    /// A `Location` that leads away from this route.
    Location,
    /// Every endpoint failed lately, so none is asked. Seconds until one will be.
    Open(u32),
}

/// What can go wrong on our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnError {
    /// The audit record could not be made durable, so nothing was revealed.
    AuditUnwritable,
    /// As many exchanges as allowed are in flight.
    Overloaded,
    /// An answer could not be compressed.
    Uncoded,
}

/// How a failure is said.
pub struct Words {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable code, documented in `docs/errors.md`.
    pub code: &'static str,
    /// What happened.
    pub what: &'static str,
    /// What to do.
    pub help: &'static str,
}

impl Failure {
    /// One of each kind that this room makes, for the list of codes in the documentation. The rewriter's are `Code::ALL`.
    pub fn every() -> Vec<Failure> {
        use CallerError as C;
        use UpstreamError as U;
        let header = C::Header("x-provenance");
        let caller = [
            C::Host,
            C::Authority,
            C::Target,
            C::Method,
            C::TransferEncoding,
            C::Connection,
            C::Upgrade,
            C::Expectation,
            header,
            C::Body,
            C::MediaType,
            C::Encoding,
            C::Undecodable,
            C::Expands,
            C::Accept,
            C::Route,
            C::LossyUpdate,
            C::Cut,
            C::Stalled,
        ];
        let upstream = [
            U::Unreachable,
            U::Slow,
            U::Cut,
            U::Unframed,
            U::MediaType,
            U::Encoding,
            U::Undecodable,
            U::Location,
            U::Status,
            U::Open(1),
        ];
        let own = [OwnError::AuditUnwritable, OwnError::Overloaded, OwnError::Uncoded];
        let caller = caller.into_iter().map(Failure::Caller);
        caller.chain(upstream.map(Failure::Upstream)).chain(own.map(Failure::Own)).collect()
    }

    /// The one translation outward.
    pub fn words(&self) -> Words {
        use StatusCode as S;
        let (status, code, what, help) = match self {
            Failure::Request(refusal) => (
                S::from_u16(refusal.code.http_status()).unwrap_or(S::BAD_REQUEST),
                refusal.code.as_str(),
                refusal.code.what(),
                refusal.code.advice(),
            ),
            Failure::Answer(refusal) => {
                (S::BAD_GATEWAY, refusal.code.as_str(), refusal.code.what(), refusal.code.advice())
            }
            Failure::Caller(error) => match error {
                CallerError::Host => {
                    (S::BAD_REQUEST, "http-host", "the request has no single valid Host", "send exactly one Host")
                }
                CallerError::Authority => (
                    S::BAD_REQUEST,
                    "http-authority",
                    "the target names another host than the Host header",
                    "send a path as the target, or the same host in both",
                ),
                CallerError::Target => (
                    S::BAD_REQUEST,
                    "http-target",
                    "the target is not the path of a resource",
                    "send a path such as /Patient/ID",
                ),
                CallerError::Method => (
                    S::METHOD_NOT_ALLOWED,
                    "http-method",
                    "this method is not offered",
                    "use GET, HEAD, POST, PUT or DELETE",
                ),
                CallerError::TransferEncoding => (
                    S::NOT_IMPLEMENTED,
                    "http-transfer-encoding",
                    "a transfer coding other than one `chunked`",
                    "send a Content-Length, or Transfer-Encoding: chunked",
                ),
                CallerError::Connection => (
                    S::BAD_REQUEST,
                    "http-connection",
                    "the Connection header names a header that is not of the connection",
                    "name only headers of the connection there",
                ),
                CallerError::Upgrade => (
                    S::BAD_REQUEST,
                    "http-upgrade",
                    "a change of protocol: its bytes could not be rewritten",
                    "leave out the Upgrade header",
                ),
                CallerError::Expectation => (
                    S::EXPECTATION_FAILED,
                    "http-expect",
                    "an unknown expectation",
                    "send Expect: 100-continue or none",
                ),
                CallerError::Header(name) => (
                    S::BAD_REQUEST,
                    "http-header",
                    match *name {
                        "x-provenance" => "X-Provenance carries a resource that cannot be rewritten in a header",
                        "if-match" => "If-Match is not a list of version ids",
                        "if-none-match" => "If-None-Match is neither * nor a list of version ids",
                        "authorization" => "more than one Authorization header",
                        _ => "a header of this request cannot be passed on",
                    },
                    match *name {
                        "x-provenance" => "post the Provenance as a resource",
                        "if-match" | "if-none-match" => "send W/\"VERSION\" as ETag gave it",
                        _ => "send the header once, in the form that FHIR gives it",
                    },
                ),
                CallerError::Body => (
                    S::BAD_REQUEST,
                    "http-body",
                    "a request of this method has no body",
                    "leave out the body, or use POST",
                ),
                CallerError::MediaType => (
                    S::UNSUPPORTED_MEDIA_TYPE,
                    "media-type",
                    "a body that is not declared as JSON in UTF-8",
                    "send one Content-Type: application/fhir+json or application/fhir+ndjson",
                ),
                CallerError::Encoding => (
                    S::UNSUPPORTED_MEDIA_TYPE,
                    "content-encoding",
                    "a body with several content codings, or with one that cannot be read",
                    "send it as it is, or with one of gzip, deflate, br, zstd",
                ),
                CallerError::Undecodable => (
                    S::BAD_REQUEST,
                    "body-undecodable",
                    "the body is not what its Content-Encoding says, or not whole",
                    "send the request again, or without Content-Encoding",
                ),
                CallerError::Expands => (
                    S::PAYLOAD_TOO_LARGE,
                    "body-expands",
                    "the body expands to more than 200 times its size",
                    "send it without Content-Encoding",
                ),
                CallerError::Accept => (
                    S::NOT_ACCEPTABLE,
                    "accept",
                    "only media types that cannot be rewritten are asked for",
                    "accept application/fhir+json",
                ),
                CallerError::Route => (
                    S::NOT_FOUND,
                    "no-route",
                    "no route for this host and path",
                    "ask the operator for the base URL of this proxy",
                ),
                CallerError::LossyUpdate => (
                    S::FORBIDDEN,
                    "lossy-update",
                    "this route removes data, so an update would overwrite the record with a poorer one",
                    "update the record at its source, or let the operator set lossy_update: allow for a mirror",
                ),
                CallerError::Cut => (
                    S::BAD_REQUEST,
                    "body-cut",
                    "the body ended before its end or is malformed on the wire",
                    "send the request again, whole",
                ),
                CallerError::Stalled => (
                    S::REQUEST_TIMEOUT,
                    "body-stalled",
                    "the body brought nothing for too long",
                    "send the request again, without pauses",
                ),
            },
            Failure::Upstream(error) => match error {
                UpstreamError::Unreachable => (
                    S::BAD_GATEWAY,
                    "upstream-unreachable",
                    "no connection to the upstream, or it broke before an answer",
                    "try again; the request may have taken effect",
                ),
                UpstreamError::Slow => (
                    S::GATEWAY_TIMEOUT,
                    "upstream-slow",
                    "the upstream did not answer in time",
                    "try again later; the request may have taken effect",
                ),
                UpstreamError::Cut => (
                    S::BAD_GATEWAY,
                    "upstream-cut",
                    "the upstream's answer broke off",
                    "try again; the request may have taken effect",
                ),
                UpstreamError::Unframed => (
                    S::BAD_GATEWAY,
                    "upstream-unframed",
                    "the upstream's answer has neither length nor chunks, so its end cannot be told from a cut",
                    "make the upstream speak HTTP/1.1 or HTTP/2 with lengths",
                ),
                UpstreamError::MediaType => (
                    S::BAD_GATEWAY,
                    "upstream-media-type",
                    "the upstream's answer is not declared as JSON in UTF-8",
                    "see the upstream's log: error pages of gateways are often HTML",
                ),
                UpstreamError::Encoding => (
                    S::BAD_GATEWAY,
                    "upstream-encoding",
                    "the upstream's answer has several content codings, or one that cannot be read",
                    "let the upstream use gzip, deflate, br, zstd or none",
                ),
                UpstreamError::Undecodable => (
                    S::BAD_GATEWAY,
                    "upstream-undecodable",
                    "the upstream's answer is not what its Content-Encoding says, not whole, or expands to more than 200 times its size",
                    "switch off compression at the upstream",
                ),
                UpstreamError::Location => (
                    S::BAD_GATEWAY,
                    "upstream-location",
                    "the upstream names a place that is not behind this proxy",
                    "make the upstream's own base URL the one that this route is configured with",
                ),
                UpstreamError::Status => (
                    S::BAD_GATEWAY,
                    "upstream-status",
                    "the upstream answered with a status that was not asked for",
                    "see the upstream's log",
                ),
                UpstreamError::Open(_) => (
                    S::SERVICE_UNAVAILABLE,
                    "upstream-open",
                    "the upstream has failed several times in a row, so it was not asked",
                    "try again after the time in Retry-After; nothing was sent",
                ),
            },
            Failure::Own(error) => match error {
                OwnError::AuditUnwritable => (
                    S::SERVICE_UNAVAILABLE,
                    "audit-unwritable",
                    "the audit record could not be written, so nothing was revealed",
                    "try again later; the operator must make the audit file writable",
                ),
                OwnError::Overloaded => (
                    S::SERVICE_UNAVAILABLE,
                    "overloaded",
                    "as many exchanges as allowed are in flight",
                    "try again in a second",
                ),
                OwnError::Uncoded => (
                    S::SERVICE_UNAVAILABLE,
                    "uncoded",
                    "the answer could not be compressed",
                    "ask again without Accept-Encoding",
                ),
            },
        };
        Words { status, code, what, help }
    }

    /// The class of issue that FHIR gives it (`http://hl7.org/fhir/issue-type`).
    fn issue_type(&self) -> &'static str {
        match self {
            Failure::Caller(CallerError::Route) => "not-found",
            Failure::Caller(CallerError::LossyUpdate) => "business-rule",
            Failure::Caller(_) | Failure::Request(_) => "not-supported",
            Failure::Answer(_) | Failure::Upstream(_) => "transient",
            Failure::Own(_) => "transient",
        }
    }
}

/// The error of a body: what hyper gets to see when a message must break off. Prints the code only.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.words().code)
    }
}

impl std::error::Error for Failure {}

/// The answer to a failed exchange: an `OperationOutcome` (FHIR R4 §2.41).
pub fn answer(failure: &Failure) -> Response<Outgoing> {
    let words = failure.words();
    let place = match failure {
        Failure::Request(refusal) if !refusal.path.is_empty() => Some(&refusal.path),
        _ => None,
    };
    let mut issue = serde_json::json!({
        "severity": "error",
        "code": failure.issue_type(),
        "details": { "coding": [{ "system": "urn:cryptonym:error", "code": words.code }] },
        "diagnostics": format!("{}; help: {}", words.what, words.help),
    });
    if let Some(place) = place {
        issue["expression"] = serde_json::json!([place]);
    }
    let text = serde_json::json!({ "resourceType": "OperationOutcome", "issue": [issue] }).to_string();
    let mut response = Response::new(Outgoing::whole(Bytes::from(text)));
    *response.status_mut() = words.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/fhir+json; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if words.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE"));
    }
    if words.status == StatusCode::SERVICE_UNAVAILABLE {
        let seconds = if let Failure::Upstream(UpstreamError::Open(seconds)) = failure { *seconds } else { 1 };
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_a_code_of_its_own_and_an_honest_status() {
        let every = Failure::every();
        let codes: std::collections::BTreeSet<_> = every.iter().map(|failure| failure.words().code).collect();
        assert_eq!(codes.len(), every.len());
        for failure in every {
            let words = failure.words();
            let theirs = matches!(failure, Failure::Caller(_));
            assert_eq!(
                words.status.is_client_error() || words.status == StatusCode::NOT_IMPLEMENTED,
                theirs,
                "{failure}"
            );
            assert!(!words.what.is_empty() && !words.help.is_empty());
            assert_eq!(answer(&failure).status(), words.status);
        }
    }
}
