//! The world around the proxy in its tests: an authority, an upstream that records what reaches it, and clients of both
//! HTTP versions. Everything is on loopback and on free ports; nothing outlives its test.
#![allow(dead_code)] // each test binary needs a part of it

pub mod frames;

use bytes::Bytes;
use cryptonym::config::{self, Sources};
use cryptonym::proxy::{self, Running};
use cryptonym::rules::Compiled;
use cryptonym::token::Keyring;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Both versions, for tests that must hold on each.
pub const BOTH: [Http; 2] = [Http::One, Http::Two];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    One,
    Two,
}

// -- certificates

/// A folder of its own with an authority and the certificates that the tests name.
pub struct Pki {
    pub folder: PathBuf,
}

static FOLDERS: AtomicUsize = AtomicUsize::new(0);

impl Pki {
    pub fn new() -> Pki {
        let name = format!("cryptonym-test-{}-{}", std::process::id(), FOLDERS.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        let leaf = |name: &str, sans: Vec<SanType>, common_names: &[&str], usage| {
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.subject_alt_names = sans;
            params.distinguished_name = Default::default();
            // rcgen keeps one value of a type, so a second common name goes by its object identifier.
            let types = [DnType::CommonName, DnType::CustomDnType(vec![2, 5, 4, 3])];
            for (kind, common_name) in types.into_iter().zip(common_names) {
                params.distinguished_name.push(kind, *common_name);
            }
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &authority).unwrap();
            std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        };
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let uri = |name: &str| SanType::URI(name.try_into().unwrap());
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        leaf("server", vec![dns("localhost"), SanType::IpAddress([127, 0, 0, 1].into())], &[], ServerAuth);
        leaf("ward", vec![dns("ward.example")], &[], ClientAuth);
        leaf("lab", vec![uri("spiffe://hospital.example/lab")], &[], ClientAuth);
        leaf("desk", vec![], &["front desk"], ClientAuth);
        leaf("clerks", vec![], &["front desk", "back desk"], ClientAuth);
        leaf("stranger", vec![dns("stranger.example")], &["ward"], ClientAuth);
        leaf("both", vec![dns("ward.example"), uri("spiffe://hospital.example/lab")], &[], ClientAuth);
        Pki { folder }
    }

    fn chain(&self, name: &str) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_file(self.folder.join(format!("{name}.pem"))).unwrap()]
    }

    fn key(&self, name: &str) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(self.folder.join(format!("{name}.key"))).unwrap()
    }

    pub fn client_config(&self, who: Option<&str>, http: Http) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.chain("ca").remove(0)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match who {
            None => builder.with_no_client_auth(),
            Some(name) => builder.with_client_auth_cert(self.chain(name), self.key(name)).unwrap(),
        };
        config.alpn_protocols = vec![match http {
            Http::One => b"http/1.1".to_vec(),
            Http::Two => b"h2".to_vec(),
        }];
        Arc::new(config)
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

// -- the upstream

/// A request as the upstream saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub target: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// Whether its body ended as HTTP ends bodies.
    pub complete: bool,
    /// Whether it ended at all, in whatever way.
    pub over: bool,
}

/// What the upstream answers next. Without one it answers with the last body it was sent.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub chunks: Vec<Bytes>,
    /// Whether it breaks off after the chunks.
    pub cut: bool,
    pub delay: Duration,
}

impl Reply {
    pub fn json(text: impl Into<Bytes>) -> Reply {
        let headers = vec![("content-type", "application/fhir+json".to_owned())];
        Reply { status: 200, headers, chunks: vec![text.into()], cut: false, delay: Duration::ZERO }
    }

    pub fn ndjson(chunks: Vec<Bytes>) -> Reply {
        let headers = vec![("content-type", "application/fhir+ndjson".to_owned())];
        Reply { status: 200, headers, chunks, cut: false, delay: Duration::ZERO }
    }

    pub fn status(mut self, status: u16) -> Reply {
        self.status = status;
        self
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Reply {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
        self
    }
}

#[derive(Default)]
struct Record {
    seen: Mutex<Vec<Seen>>,
    raw: Mutex<Vec<u8>>,
    replies: Mutex<VecDeque<Reply>>,
    stored: Mutex<Bytes>,
}

/// An HTTP/1 and HTTP/2 server that keeps every byte.
pub struct Upstream {
    pub address: SocketAddr,
    record: Arc<Record>,
}

impl Upstream {
    /// Over TLS it speaks HTTP/2, without it HTTP/1: so both ways to an upstream are walked.
    pub async fn start(pki: &Pki, tls: bool) -> Upstream {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let record = Arc::new(Record::default());
        let acceptor = tls.then(|| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(pki.chain("server"), pki.key("server"))
                .unwrap();
            config.alpn_protocols = vec![b"h2".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        let kept = record.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let (record, acceptor) = (kept.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let answering = record.clone();
                    let service = service_fn(move |request| answer(answering.clone(), request));
                    match acceptor {
                        None => {
                            let io = TokioIo::new(Tee { inner: stream, record });
                            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                        }
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            let io = TokioIo::new(Tee { inner: stream, record });
                            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                            let _ = builder.serve_connection(io, service).await;
                        }
                    }
                });
            }
        });
        Upstream { address, record }
    }

    pub fn next(&self, reply: Reply) {
        self.record.replies.lock().unwrap().push_back(reply);
    }

    /// Nothing is prepared any more.
    pub fn forget(&self) {
        self.record.replies.lock().unwrap().clear();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.record.seen.lock().unwrap().clone()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request reached the upstream")
    }

    /// The last request, once it fulfils a condition.
    pub async fn until(&self, fulfilled: impl Fn(&Seen) -> bool) -> Seen {
        let started = std::time::Instant::now();
        loop {
            if let Some(seen) = self.seen().pop().filter(&fulfilled) {
                return seen;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "the upstream never saw it");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Every byte that came in, in clear.
    pub fn raw(&self) -> Vec<u8> {
        self.record.raw.lock().unwrap().clone()
    }

    pub fn stored(&self) -> Bytes {
        self.record.stored.lock().unwrap().clone()
    }
}

async fn answer(record: Arc<Record>, request: Request<Incoming>) -> Result<Response<Scripted>, Infallible> {
    let (parts, mut body) = request.into_parts();
    let index = {
        let mut seen = record.seen.lock().unwrap();
        seen.push(Seen {
            target: parts.uri.path_and_query().unwrap().to_string(),
            headers: parts.headers,
            body: vec![],
            complete: false,
            over: false,
        });
        seen.len() - 1
    };
    let complete = loop {
        match body.frame().await {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                record.seen.lock().unwrap()[index].body.extend_from_slice(&data);
            }
            Some(Err(_)) => break false,
            None => break true,
        }
    };
    let whole = {
        let mut seen = record.seen.lock().unwrap();
        (seen[index].complete, seen[index].over) = (complete, true);
        Bytes::from(seen[index].body.clone())
    };
    if !whole.is_empty() {
        *record.stored.lock().unwrap() = whole;
    }
    let reply = record.replies.lock().unwrap().pop_front();
    let reply = reply.unwrap_or_else(|| Reply::json(record.stored.lock().unwrap().clone()));
    tokio::time::sleep(reply.delay).await;
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    let exact = (!reply.cut && reply.chunks.len() == 1).then(|| reply.chunks[0].len() as u64);
    Ok(response.body(Scripted { chunks: reply.chunks.into(), cut: reply.cut, exact, pause: None }).unwrap())
}

/// A body from a script, which may break off.
pub struct Scripted {
    chunks: VecDeque<Bytes>,
    cut: bool,
    exact: Option<u64>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Scripted {
    /// These chunks, then an end.
    pub fn of(chunks: Vec<Bytes>) -> Scripted {
        Scripted { chunks: chunks.into(), cut: false, exact: None, pause: None }
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match self.chunks.pop_front() {
            Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            // A moment's pause, so that head and chunks are on their way before it breaks.
            None if self.cut => {
                let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(50))));
                pause.as_mut().poll(cx).map(|()| Some(Err(std::io::ErrorKind::BrokenPipe.into())))
            }
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.exact.map(http_body::SizeHint::with_exact).unwrap_or_default()
    }
}

struct Tee<S> {
    inner: S,
    record: Arc<Record>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tee<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        self.record.raw.lock().unwrap().extend_from_slice(&buffer.filled()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tee<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

// -- the log

/// Everything that is logged in this process, by all tests.
pub mod log {
    use super::*;

    static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

    struct Keep;

    impl std::io::Write for Keep {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            LINES.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// From the first world on, at the finest level of our own events.
    pub fn keep() {
        let filter = tracing_subscriber::EnvFilter::new("cryptonym=trace");
        let subscriber = tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(|| Keep).finish();
        let _ = tracing::subscriber::set_global_default(subscriber); // every world but the first finds it set
    }

    pub fn text() -> String {
        String::from_utf8(LINES.lock().unwrap().clone()).unwrap()
    }
}

// -- the proxy

/// What a test changes in the configuration.
pub struct World {
    pub pki: Pki,
    pub upstream: Upstream,
    pub proxy: Running,
}

#[derive(Clone, Copy)]
pub struct Setting {
    pub upstream_tls: bool,
    pub untrusted: &'static str,
    pub client_auth: &'static str,
    pub rules: &'static str,
    /// More keys of the listener, as YAML lines indented by four.
    pub listener: &'static str,
    /// More keys of the route, as YAML lines indented by four.
    pub route: &'static str,
    /// More keys of the upstream, as YAML lines indented by six.
    pub upstream: &'static str,
    /// More keys of the file.
    pub file: &'static str,
    /// Relative to the test's folder.
    pub audit: &'static str,
}

impl Default for Setting {
    fn default() -> Self {
        Setting {
            upstream_tls: false,
            untrusted: "upstream",
            client_auth: "optional",
            rules: "reversible",
            listener: "",
            route: "",
            upstream: "",
            file: "",
            audit: "audit.jsonl",
        }
    }
}

pub const PUBLIC_BASE: &str = "https://localhost:8443/fhir";

impl World {
    pub async fn new() -> World {
        World::with(Setting::default()).await
    }

    pub async fn with(setting: Setting) -> World {
        let pki = Pki::new();
        let upstream = Upstream::start(&pki, setting.upstream_tls).await;
        World::around(setting, pki, upstream).await
    }

    pub async fn around(setting: Setting, pki: Pki, upstream: Upstream) -> World {
        log::keep();
        let settings = parse(&configuration(&setting, upstream.address), &pki.folder).unwrap();
        let proxy = proxy::serve(settings, std::future::pending()).await.unwrap();
        World { pki, upstream, proxy }
    }

    pub fn upstream_base(&self) -> String {
        format!("http://{}/r4", self.upstream.address)
    }

    /// A new connection, by certificate and version.
    pub async fn connect(&self, who: Option<&str>, http: Http) -> tokio_rustls::client::TlsStream<TcpStream> {
        self.try_connect(who, http).await.unwrap()
    }

    pub async fn try_connect(
        &self,
        who: Option<&str>,
        http: Http,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.proxy.addresses[0]).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(self.pki.client_config(who, http)).connect(name, stream).await
    }

    /// One request on a connection of its own.
    pub async fn send(&self, http: Http, who: Option<&str>, request: Request<Full<Bytes>>) -> Got {
        self.send_body(http, who, request).await
    }

    pub async fn send_body<B>(&self, http: Http, who: Option<&str>, request: Request<B>) -> Got
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let io = TokioIo::new(self.connect(who, http).await);
        let answer = match http {
            Http::One => {
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await
            }
            Http::Two => {
                let executor = TokioExecutor::new();
                let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await
            }
        };
        let Ok(answer) = answer else { return Got::nothing() };
        let (parts, mut body) = answer.into_parts();
        let mut got = Got { status: parts.status, headers: parts.headers, body: vec![], complete: false };
        loop {
            match body.frame().await {
                Some(Ok(frame)) => got.body.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(_)) => return got,
                None => {
                    got.complete = true;
                    return got;
                }
            }
        }
    }

    /// Bytes as they are, on HTTP/1; everything that comes back until the connection ends or is quiet.
    pub async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect(None, Http::One).await;
        let _ = stream.write_all(bytes).await;
        let _ = stream.flush().await;
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(Ok(n @ 1..)) = tokio::time::timeout(Duration::from_millis(400), stream.read(&mut buffer)).await {
            got.extend_from_slice(&buffer[..n]);
        }
        got
    }

    /// A page of the admin listener.
    pub async fn admin(&self, target: &str) -> (StatusCode, String) {
        let stream = TcpStream::connect(self.proxy.admin).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(target).header("host", "admin").body(Full::<Bytes>::default()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status();
        let page = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(page.to_vec()).unwrap())
    }

    pub fn audit_lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.pki.folder.join("audit.jsonl")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// What a client got.
#[derive(Debug)]
pub struct Got {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// Whether the message ended as HTTP ends messages.
    pub complete: bool,
}

impl Got {
    fn nothing() -> Got {
        Got { status: StatusCode::IM_A_TEAPOT, headers: HeaderMap::new(), body: vec![], complete: false }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The code of an `OperationOutcome`.
    pub fn code(&self) -> String {
        let outcome: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        assert_eq!(outcome["resourceType"], "OperationOutcome", "{}", self.text());
        outcome["issue"][0]["details"]["coding"][0]["code"].as_str().unwrap().to_owned()
    }
}

pub fn configuration(setting: &Setting, upstream: SocketAddr) -> String {
    let Setting { untrusted, client_auth, rules, listener, route, file, audit, .. } = setting;
    let (scheme, tls) = if setting.upstream_tls { ("https", "tls: {ca: ca.pem}") } else { ("http", "timeouts: {}") };
    let more = if setting.upstream.is_empty() { tls } else { setting.upstream };
    format!(
        r#"
apiVersion: cryptonym/v1
kind: Proxy
listeners:
  - address: 127.0.0.1:0
    tls: {{cert: server.pem, key: server.key, client_ca: ca.pem, client_auth: {client_auth}}}
{listener}
admin: {{address: "127.0.0.1:0"}}
keyring: keys.yaml
audit: {{file: "{audit}"}}
routes:
  - name: cloud
    match: {{path: /fhir}}
    untrusted: {untrusted}
    public_base: {PUBLIC_BASE}
    rules: {rules}
    upstream:
      url: {scheme}://{upstream}/r4
      {more}
{route}
callers:
  - {{name: ward, match: {{dns: ward.example}}}}
  - {{name: lab, match: {{spiffe: "spiffe://hospital.example/lab"}}}}
  - {{name: desk, match: {{subject: front desk}}}}
grants:
  - {{callers: [ward], reidentify: {{"*": plain}}}}
  - {{callers: [desk], reidentify: {{"*": plain}}, purposes: [HOPERAT]}}
  - {{callers: [lab], reidentify: {{"*": plain}}, purposes: [HRESCH]}}
{file}
"#
    )
}

/// Reads a configuration as the command does, but with rules and keys of the test.
pub fn parse(text: &str, folder: &Path) -> Result<proxy::settings::Settings, Vec<config::Mistake>> {
    config::parse(
        text,
        &Sources {
            rules: &|name| Ok(rules(name)),
            keyring: &|_, _| Ok(keyring()),
            variable: &|name| (name == "SET").then(|| "value".to_owned()),
            folder,
            files: &Default::default(),
        },
    )
}

/// Stands for a pack: one that loses data, or one that loses nothing.
fn rules(name: &str) -> Compiled {
    let pack = match name {
        "lossy" => "fhir-r4-pseudonymized",
        "plain" => "device-telemetry",
        _ => "fhir-r4-reversible",
    };
    Compiled::new(cryptonym::rules::packs::embedded(pack).unwrap()).unwrap()
}

fn keyring() -> Keyring {
    Keyring::generate([7; 32], "2026-11-23T10:00:00Z")
}

pub fn request(method: &str, target: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("https://localhost{target}"))
}

/// On HTTP/1 the target is a path and the host a header; on HTTP/2 both are in the URI.
pub fn for_version<B>(http: Http, mut request: Request<B>) -> Request<B> {
    if http == Http::One {
        let target = request.uri().path_and_query().unwrap().as_str().parse().unwrap();
        *request.uri_mut() = target;
        request.headers_mut().insert("host", http::HeaderValue::from_static("localhost"));
    }
    request
}

pub fn get(http: Http, target: &str) -> Request<Full<Bytes>> {
    for_version(http, request("GET", target).body(Full::default()).unwrap())
}

pub fn post(http: Http, target: &str, media: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let body = Full::new(body.into());
    for_version(http, request("POST", target).header("content-type", media).body(body).unwrap())
}

pub const JSON: &str = "application/fhir+json";
pub const NDJSON: &str = "application/fhir+ndjson";
pub const PATIENT: &str = r#"{"resourceType":"Patient","id":"real-1"}"#;

/// More than a megabyte of honest lines, then a line that breaks off: it can only be refused when most has passed.
pub fn long_and_broken() -> Vec<Bytes> {
    let mut chunks = long_and_honest();
    chunks.push(Bytes::from_static(b"{\"resourceType\":\"Patient\",\"id\":\n"));
    chunks
}

pub fn long_and_honest() -> Vec<Bytes> {
    let line = format!("{PATIENT}\n");
    let lines = line.repeat(64 * 1024 / line.len());
    vec![Bytes::from(lines); 20]
}
