//! "The cloud": an ordinary FHIR R4 server in memory, on loopback, behind TLS, HTTP/1.1 and HTTP/2.
//!
//! It knows nothing of cryptonym and must not help it: ids are its own, searches are exact, errors repeat what was asked.
//! It writes down every byte it is sent and hands that, and everything it stores, to whoever wants to look for names.
//! It is for the demo and for tests; it has no access control and forgets all when it stops.

mod interactions;
mod store;
mod text;

pub use interactions::percent;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use interactions::{Answer, Call, Service};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Longest body taken, in bytes. The largest of our tests is a 60 MB transaction.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Longest request head, in bytes: a search may list a thousand ids.
const HEAD_BYTES_MAX: u32 = 256 * 1024;

/// Takes whole requests, each as HTTP/1.1 would spell it.
pub type Sink = Box<dyn Fn(&[u8]) + Send + Sync>;

/// What becomes of the bytes that the cloud receives.
pub enum Record {
    /// Only counted.
    Nothing,
    /// Kept, for [`Cloud::received`].
    Memory,
    /// Given to a function, one whole request at a time.
    To(Sink),
}

/// A running server. It stops when dropped.
pub struct Cloud {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its absolute base URL, without a slash at the end.
    pub base: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// A current resource as the cloud holds it.
pub struct Stored {
    /// Type name.
    pub kind: String,
    /// Logical id.
    pub id: String,
    /// The text that a read answers.
    pub json: String,
}

struct Shared {
    service: Mutex<Service>,
    record: Record,
    received: Mutex<Vec<u8>>,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Cloud {
    /// Listens on a free port of 127.0.0.1. The TLS configuration brings certificate and ALPN; call inside a tokio runtime.
    pub async fn start(tls: Arc<rustls::ServerConfig>, record: Record) -> io::Result<Cloud> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let base = format!("https://{address}");
        let shared = Arc::new(Shared {
            service: Mutex::new(Service::new(base.clone())),
            record,
            received: Mutex::default(),
            requests: AtomicU64::default(),
            bytes: AtomicU64::default(),
        });
        let accepting = tokio::spawn(accept(listener, TlsAcceptor::from(tls), shared.clone()));
        Ok(Cloud { address, base, shared, accepting })
    }

    /// Every byte received so far, in order of arrival of whole requests; header compression undone. Empty unless
    /// started with [`Record::Memory`].
    pub fn received(&self) -> Vec<u8> {
        lock(&self.shared.received).clone()
    }

    /// How many bytes [`Cloud::received`] would give from its start: a mark to look from later.
    pub fn received_bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    /// Requests received so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// A copy of every current resource, in order of first appearance.
    pub fn stored(&self) -> Vec<Stored> {
        let service = lock(&self.shared.service);
        service
            .store
            .all()
            .map(|(kind, id, json)| Stored { kind: kind.into(), id: id.into(), json: json.into() })
            .collect()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A panic of one request does not make the others' data wrong: nothing is written before it is complete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        // A failed accept is that client's; the loop waits for the next.
        let Ok((socket, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let (tls, shared) = (tls.clone(), shared.clone());
        connections.spawn(async move {
            let _ = socket.set_nodelay(true);
            let Ok(stream) = tls.accept(socket).await else { return };
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http2().max_header_list_size(HEAD_BYTES_MAX).adaptive_window(true);
            let service = service_fn(move |request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(answer(&shared, request).await) }
            });
            // A connection that breaks is the client's affair.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return response(shared, error(413, "too-long", "The body broke off or is too long"), false),
    };
    shared.write_down(&head, &body);

    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    if header("content-encoding").is_some_and(|coding| coding != "identity") {
        return response(shared, error(415, "not-supported", "Content-Encoding is not supported"), false);
    }
    let media =
        header("content-type").map(|media| media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let known = ["application/fhir+json", "application/json", "application/x-www-form-urlencoded"];
    if !body.is_empty() && !media.is_some_and(|media| known.contains(&media.as_str())) {
        return response(shared, error(415, "not-supported", "Only JSON is supported"), false);
    }
    let Ok(text) = std::str::from_utf8(&body) else {
        return response(shared, error(400, "structure", "The body is not UTF-8"), false);
    };
    let target = head.uri.path_and_query().map_or("", |target| target.as_str()).trim_start_matches('/');
    let call = Call {
        method: if head.method == Method::HEAD { "GET" } else { head.method.as_str() },
        target,
        if_none_exist: header("if-none-exist"),
        if_match: header("if-match"),
        body: text,
    };
    let answer = lock(&shared.service).handle(call, &format!("{:.3}", Timestamp::now()));
    response(shared, answer, header("prefer") == Some("return=minimal"))
}

impl Shared {
    /// One request as HTTP/1.1 would spell it, whatever carried it.
    fn write_down(&self, head: &http::request::Parts, body: &[u8]) {
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        let mut text = format!("{} {target} {:?}\r\n", head.method, head.version).into_bytes();
        if let Some(authority) = head.uri.authority() {
            text.extend_from_slice(format!("host: {authority}\r\n").as_bytes());
        }
        for (name, value) in &head.headers {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"\r\n");
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add((text.len() + body.len() + 2) as u64, Ordering::SeqCst);
        match &self.record {
            Record::Nothing => {}
            Record::Memory => {
                let mut received = lock(&self.received);
                received.extend_from_slice(&text);
                received.extend_from_slice(body);
                received.extend_from_slice(b"\r\n");
            }
            Record::To(sink) => {
                text.extend_from_slice(body);
                text.extend_from_slice(b"\r\n");
                sink(&text);
            }
        }
    }
}

fn error(status: u16, code: &str, text: &str) -> Answer {
    let issue = serde_json::json!({ "severity": "error", "code": code, "diagnostics": text });
    let body = serde_json::json!({ "resourceType": "OperationOutcome", "issue": [issue] }).to_string();
    Answer { status, body, ..Answer::default() }
}

fn response(shared: &Shared, answer: Answer, minimal: bool) -> Response<Full<Bytes>> {
    let mut headers = HeaderMap::new();
    if let Some(location) = &answer.location {
        let base = &lock(&shared.service).base;
        insert(&mut headers, header::LOCATION, format!("{base}/{location}"));
    }
    if let Some((version, when)) = &answer.version {
        insert(&mut headers, header::ETAG, format!("W/\"{version}\""));
        let when: Option<Timestamp> = when.parse().ok();
        if let Some(Ok(date)) = when.map(|when| DateTimePrinter::new().timestamp_to_rfc9110_string(&when)) {
            insert(&mut headers, header::LAST_MODIFIED, date);
        }
    }
    let body = if minimal && answer.status < 300 { String::new() } else { answer.body };
    if !body.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/fhir+json;charset=utf-8"));
    }
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = http::StatusCode::from_u16(answer.status).unwrap_or_default();
    *response.headers_mut() = headers;
    response
}

/// Leaves out a value that no header can carry.
fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}
