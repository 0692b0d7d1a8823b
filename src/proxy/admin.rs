//! The operator's side door: `/livez`, `/readyz[?verbose]`, `/metrics`, `/config`, on a socket of its own.
//!
//! It says nothing about any patient or request: names from configuration, numbers, yes and no.

use super::Shared;
use super::limits as l;
use super::server::Phase;
use super::settings::{Address, Credentials, Settings, Untrusted};
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Serves until the proxy has ended. It still answers while draining, so that the drain can be watched.
pub async fn listen(socket: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(l::ADMIN_CONNECTIONS_MAX));
    let mut phase = shared.phase.clone();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            _ = phase.wait_for(|phase| *phase == Phase::Ended) => return,
            accepted = socket.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let _place = place;
            let mut ended = shared.phase.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(&shared, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(l::HEAD_TIMEOUT)
                .max_header_size(l::HEAD_BYTES_MAX)
                .max_buf_size(l::BUFFER_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                _ = ended.wait_for(|phase| *phase == Phase::Ended) => {}
            }
        });
    }
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, String::new());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => readiness(shared, request.uri().query() == Some("verbose")),
        "/metrics" => text(StatusCode::OK, shared.metrics.page()),
        "/config" => text(StatusCode::OK, configuration(&shared.serving.load().settings)),
        _ => text(StatusCode::NOT_FOUND, "/livez /readyz /metrics /config\n".into()),
    }
}

/// What the proxy runs by now, as JSON: names, places and choices; no key, no credential, no certificate.
fn configuration(settings: &Settings) -> String {
    let listeners = settings.listeners.iter().map(|listener| {
        let address = match &listener.address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(path) => format!("unix:{}", path.display()),
        };
        serde_json::json!({
            "address": address,
            "tls": listener.tls.is_some(),
            "certificate_expires": listener.tls.as_ref().map(|tls| tls.expires),
            "proxy_protocol": !listener.speakers.is_empty(),
        })
    });
    let routes = settings.routes.iter().map(|route| {
        serde_json::json!({
            "name": route.name,
            "host": route.host,
            "path": if route.path.is_empty() { "/" } else { &route.path },
            "untrusted": match route.untrusted {
                Untrusted::Upstream => "upstream",
                Untrusted::Downstream => "downstream",
            },
            "public_base": route.public_base,
            "upstream": route.upstream.origins.iter().map(|origin| format!("{origin}{}", route.upstream.path)).collect::<Vec<_>>(),
            "rules": route.engine.rules().name,
            "domain": route.engine.domain().to_string(),
            "updates": route.updates,
            "credentials": match route.credentials {
                Credentials::Drop => "drop",
                Credentials::Replace(_) => "replace",
                Credentials::Forward => "forward",
            },
        })
    });
    let callers: std::collections::BTreeSet<&str> = settings.callers.iter().map(|known| known.name.as_str()).collect();
    let limits = &settings.limits;
    let page = serde_json::json!({
        "listeners": listeners.collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
        "callers": callers,
        "audit": settings.audit.is_some(),
        "limits": {
            "connections": limits.connections,
            "connections_per_address": limits.per_address,
            "exchanges": limits.exchanges,
            "threads": limits.threads,
            "drain_delay_ms": limits.drain_delay.as_millis() as u64,
            "drain_timeout_ms": limits.drain_timeout.as_millis() as u64,
        },
    });
    format!("{page:#}\n")
}

fn readiness(shared: &Shared, verbose: bool) -> Response<Full<Bytes>> {
    let now = jiff::Timestamp::now().as_second();
    let serving = shared.serving.load();
    let in_date =
        serving.settings.listeners.iter().filter_map(|listener| listener.tls.as_ref()).all(|tls| tls.expires > now);
    let checks = [
        ("serving", *shared.phase.borrow() == Phase::Serving),
        ("certificates", in_date),
        ("audit", serving.audit.as_ref().is_none_or(|audit| audit.is_writable())),
    ];
    let ready = checks.iter().all(|(_, good)| *good);
    let mut page = String::new();
    for (name, good) in checks.iter().filter(|(_, good)| verbose || !good) {
        page.push_str(&format!("[{}]{name}\n", if *good { '+' } else { '-' }));
    }
    page.push_str(if ready { "ok\n" } else { "not ready\n" });
    text(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, page)
}

fn text(status: StatusCode, page: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(page)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}
