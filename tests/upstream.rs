//! The way to the untrusted side, over real sockets: upstreams that close, stall, refuse, plant answers and come back.
//!
//! An upstream is a script: what each of its connections does with each request that it reads. What is asserted is what
//! the caller gets and what the upstream saw, never how long it took.
#![cfg(feature = "proxy")]

#[path = "proxy_support/mod.rs"]
mod support;

use bytes::Bytes;
use http::StatusCode;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What is done with one request.
#[derive(Clone, Copy)]
enum Do {
    /// A whole answer, with this version in its `ETag`.
    Answer(u32),
    /// Two whole answers to one request, in one write.
    Twice(u32, u32),
    /// A head that promises more than follows, then the end.
    Break,
    /// A whole answer, then the end, as servers close idle connections.
    AnswerAndClose(u32),
    /// The end, without a word.
    Close,
    /// A head and the beginning of a body, and then nothing more.
    Stall,
    /// Nothing at all.
    Silence,
    /// Bytes that are no answer.
    Garbage,
    /// A gateway's word that nobody is there.
    Unavailable,
}

fn whole(version: u32) -> String {
    let length = PATIENT.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {JSON}\r\netag: W/\"{version}\"\r\ncontent-length: {length}\r\n\r\n{PATIENT}"
    )
}

/// A raw HTTP/1 upstream.
struct Raw {
    address: SocketAddr,
    /// Number of the connection, method.
    seen: Arc<Mutex<Vec<(usize, String)>>>,
    /// Connections that ended.
    over: Arc<AtomicUsize>,
}

impl Raw {
    /// What each connection does with its first, second ... request; beyond the script everything is answered with 0.
    async fn start(script: &'static [&'static [Do]]) -> Raw {
        Raw::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), script)
    }

    fn on(socket: TcpListener, script: &'static [&'static [Do]]) -> Raw {
        let address = socket.local_addr().unwrap();
        let (seen, over) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicUsize>::default());
        let (told, ended) = (seen.clone(), over.clone());
        tokio::spawn(async move {
            for number in 0.. {
                let Ok((stream, _)) = socket.accept().await else { return };
                let (told, ended) = (told.clone(), ended.clone());
                let steps = script.get(number).copied().unwrap_or_default();
                tokio::spawn(async move {
                    converse(stream, number, steps, &told).await;
                    ended.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        Raw { address, seen, over }
    }

    fn seen(&self) -> Vec<(usize, String)> {
        self.seen.lock().unwrap().clone()
    }

    async fn ended(&self, connections: usize) {
        until(|| self.over.load(Ordering::Relaxed) >= connections).await;
    }
}

async fn until(fulfilled: impl Fn() -> bool) {
    let started = Instant::now();
    while !fulfilled() {
        assert!(started.elapsed() < Duration::from_secs(20), "it never happened");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn converse(mut stream: TcpStream, number: usize, steps: &[Do], told: &Mutex<Vec<(usize, String)>>) {
    for turn in 0.. {
        let step = steps.get(turn).copied().unwrap_or(Do::Answer(0));
        let Some(method) = read_request(&mut stream, !matches!(step, Do::Silence)).await else { return };
        told.lock().unwrap().push((number, method));
        let text = match step {
            Do::Answer(version) | Do::AnswerAndClose(version) => whole(version),
            Do::Twice(first, second) => format!("{}{}", whole(first), whole(second)),
            Do::Break | Do::Stall => whole(0).replace(PATIENT, "{\"resourceType\":"),
            Do::Garbage => "SMTP ready\r\n\r\n".into(),
            Do::Unavailable => "HTTP/1.1 503 Away\r\ncontent-length: 0\r\n\r\n".into(),
            Do::Close | Do::Silence => String::new(),
        };
        let _ = stream.write_all(text.as_bytes()).await;
        match step {
            Do::Break | Do::Close | Do::AnswerAndClose(_) => return,
            Do::Stall | Do::Silence => {
                // Until the other side gives up; what was not read before is left unread.
                let mut gone = [0; 1];
                while !matches!(stream.peek(&mut gone).await, Ok(0) | Err(_)) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                return;
            }
            _ => {}
        }
    }
}

/// Reads a head, and a body of known length. `None`: the connection has ended.
async fn read_request(stream: &mut TcpStream, whole: bool) -> Option<String> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
        }
        bytes.push(stream.read_u8().await.ok()?);
    };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; if whole { length } else { 0 }];
    stream.read_exact(&mut body).await.ok()?;
    Some(head.split(' ').next().unwrap().to_ascii_uppercase())
}

/// A proxy before these endpoints; more keys of the upstream as YAML lines indented by six.
async fn before(endpoints: &[SocketAddr], tls: bool, more: &'static str) -> World {
    let pki = Pki::new();
    before_with(pki, endpoints, tls, more).await
}

async fn before_with(pki: Pki, endpoints: &[SocketAddr], tls: bool, more: &'static str) -> World {
    let mut upstream = Upstream::start(&pki, false).await;
    upstream.address = endpoints[0];
    let setting = Setting { upstream_tls: tls, upstream: more, ..Setting::default() };
    let scheme = if tls { "https" } else { "http" };
    let urls: Vec<String> = endpoints.iter().map(|address| format!("{scheme}://{address}/r4")).collect();
    let text = configuration(&setting, endpoints[0]);
    let text = text.replace(&format!("url: {}", urls[0]), &format!("urls: [{}]", urls.join(", ")));
    // Each thread has connections of its own, and the scripts here are written for connections.
    let text = format!("{text}limits: {{threads: 1}}\n");
    let settings = parse(&text, &pki.folder).unwrap();
    let proxy = cryptonym::proxy::serve(settings, std::future::pending()).await.unwrap();
    World { pki, upstream, proxy }
}

/// A port that nobody listens on.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// `GET` or `POST`, in short: status and version, or status and code.
async fn ask(world: &World, method: &str) -> String {
    let request = match method {
        "POST" => post(Http::One, "/fhir/Patient", JSON, PATIENT),
        method => for_version(Http::One, request(method, "/fhir/Patient/1").body(Default::default()).unwrap()),
    };
    let got = world.send(Http::One, None, request).await;
    let word = match got.header("etag") {
        Some(tag) => tag.trim_matches(['W', '/', '"']).to_owned(),
        None if got.status.is_success() => String::new(),
        None => got.code(),
    };
    // The connection is given back a moment after the last byte.
    tokio::time::sleep(Duration::from_millis(30)).await;
    format!("{} {word}", got.status.as_u16())
}

#[tokio::test]
async fn what_goes_out_once_and_what_goes_out_again() {
    use Do::{Answer, AnswerAndClose, Break, Close, Garbage, Twice};
    // What the connections do; what is asked and what comes of it; which connection saw what.
    type Case = (&'static [&'static [Do]], &'static [(&'static str, &'static str)], &'static [(usize, &'static str)]);
    const CASES: &[Case] = &[
        // A connection serves one exchange after the other.
        (
            &[&[Answer(1), Answer(2), Answer(3)]],
            &[("GET", "200 1"), ("POST", "200 2"), ("GET", "200 3")],
            &[(0, "GET"), (0, "POST"), (0, "GET")],
        ),
        // One that the server closed while it was idle costs nobody anything.
        (&[&[AnswerAndClose(1)], &[Answer(2)]], &[("GET", "200 1"), ("POST", "200 2")], &[(0, "GET"), (1, "POST")]),
        // Closed instead of an answer: asked again if that changes nothing, and only then.
        (
            &[&[Answer(1), Close], &[Answer(2)]],
            &[("GET", "200 1"), ("GET", "200 2")],
            &[(0, "GET"), (0, "GET"), (1, "GET")],
        ),
        (&[&[Close], &[Answer(2)]], &[("DELETE", "200 2")], &[(0, "DELETE"), (1, "DELETE")]),
        (&[&[Close], &[Close]], &[("GET", "502 upstream-unreachable")], &[(0, "GET"), (1, "GET")]),
        (
            &[&[Answer(1), Close], &[Answer(2)]],
            &[("GET", "200 1"), ("POST", "502 upstream-unreachable"), ("POST", "200 2")],
            &[(0, "GET"), (0, "POST"), (1, "POST")],
        ),
        // Behind the head of an answer nothing is asked again, and its connection serves nobody else.
        (&[&[Break], &[Answer(2)]], &[("GET", "502 upstream-cut"), ("GET", "200 2")], &[(0, "GET"), (1, "GET")]),
        // What is no answer is not worth asking for again.
        (
            &[&[Garbage], &[Answer(2)]],
            &[("GET", "502 upstream-unreachable"), ("GET", "200 2")],
            &[(0, "GET"), (1, "GET")],
        ),
        // A second answer to the first request is nobody's.
        (&[&[Twice(1, 66)], &[Answer(2)]], &[("GET", "200 1"), ("GET", "200 2")], &[(0, "GET"), (1, "GET")]),
        (&[&[Twice(1, 66)], &[Answer(2)]], &[("GET", "200 1"), ("POST", "200 2")], &[(0, "GET"), (1, "POST")]),
    ];
    for (number, (script, asked, expected)) in CASES.iter().enumerate() {
        let raw = Raw::start(script).await;
        let world = before(&[raw.address], false, "").await;
        for (method, outcome) in *asked {
            assert_eq!(ask(&world, method).await, *outcome, "case {number}, {method}");
        }
        let seen = raw.seen();
        let seen: Vec<_> = seen.iter().map(|(connection, method)| (*connection, method.as_str())).collect();
        assert_eq!(seen, *expected, "case {number}");
    }
}

#[tokio::test]
async fn who_goes_away_takes_its_request_along() {
    for (step, status) in [(Do::Silence, None), (Do::Stall, Some("200"))] {
        let script: &'static [&'static [Do]] = if status.is_none() { &[&[Do::Silence]] } else { &[&[Do::Stall]] };
        let raw = Raw::start(script).await;
        let world = before(&[raw.address], false, "").await;
        let mut client = world.connect(None, Http::One).await;
        client.write_all(b"GET /fhir/Patient/1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        until(|| !raw.seen().is_empty()).await;
        drop(client);
        raw.ended(1).await; // its connection was closed, though it never answered
        assert_eq!(ask(&world, "GET").await, "200 0", "{}", matches!(step, Do::Stall));
        assert_eq!(raw.seen().len(), 2);
    }
}

#[tokio::test]
async fn an_upstream_that_stalls_is_given_up_in_either_direction() {
    let raw = Raw::start(&[&[Do::Stall], &[Do::Silence], &[Do::Silence]]).await;
    let world = before(&[raw.address], false, "timeouts: {progress: 200ms, first_byte: 300ms}").await;
    assert_eq!(ask(&world, "GET").await, "504 upstream-slow"); // in the middle of its answer
    assert_eq!(ask(&world, "GET").await, "504 upstream-slow"); // before it
    // It takes nothing of a long request.
    let lines = Bytes::from(format!("{PATIENT}\n").repeat(400_000));
    let got = world.send(Http::Two, None, post(Http::Two, "/fhir/Patient", NDJSON, lines)).await;
    assert_eq!((got.status, got.code().as_str()), (StatusCode::GATEWAY_TIMEOUT, "upstream-slow"));
    raw.ended(2).await; // the third cannot see the end behind what it left unread
    assert_eq!(ask(&world, "GET").await, "200 0");
}

#[tokio::test]
async fn what_cannot_be_reached_is_sent_to_the_next_endpoint() {
    let (one, two) = (Raw::start(&[]).await, Raw::start(&[]).await);
    let world = before(&[nobody(), one.address, two.address], false, "health: {failures: 1, open: 600s}").await;
    for method in ["GET", "POST", "POST", "GET", "POST", "DELETE"] {
        assert_eq!(ask(&world, method).await, "200 0");
    }
    let (one, two) = (one.seen().len(), two.seen().len());
    assert_eq!((one + two, one.min(two) > 0), (6, true), "each once, and both have their share: {one} {two}");
    let (_, page) = world.admin("/metrics").await;
    assert!(page.contains("cryptonym_upstream_up{endpoint=\"http://127.0.0.1:"), "{page}");
    assert_eq!(
        page.lines().filter(|line| line.starts_with("cryptonym_upstream_up") && line.ends_with(" 0")).count(),
        1
    );
}

#[tokio::test]
async fn an_endpoint_that_only_says_that_nobody_is_there_gets_no_more() {
    let (bad, good) =
        (Raw::start(&[&[Do::Unavailable, Do::Unavailable, Do::Unavailable]]).await, Raw::start(&[]).await);
    let world = before(&[bad.address, good.address], false, "health: {failures: 2, open: 600s}").await;
    for _ in 0..10 {
        world.send(Http::One, None, get(Http::One, "/fhir/Patient/1")).await;
    }
    assert_eq!((bad.seen().len(), good.seen().len()), (2, 8));
    // Of the only one it is passed on, and shuts nobody out.
    let only = Raw::start(&[&[Do::Unavailable, Do::Unavailable, Do::Unavailable]]).await;
    let world = before(&[only.address], false, "health: {failures: 2, open: 600s}").await;
    for status in [503, 503, 503, 200] {
        let got = world.send(Http::One, None, get(Http::One, "/fhir/Patient/1")).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(got.status.as_u16(), status);
    }
}

#[tokio::test]
async fn an_open_circuit_answers_at_once_and_closes_when_the_upstream_is_back() {
    let address = nobody();
    let world = before(&[address], false, "health: {failures: 2, open: 1s}").await;
    for _ in 0..2 {
        assert_eq!(ask(&world, "GET").await, "502 upstream-unreachable");
    }
    let got = world.send(Http::Two, None, get(Http::Two, "/fhir/Patient/real-1")).await;
    assert_eq!((got.status, got.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "upstream-open"));
    assert_eq!(got.header("retry-after"), Some("1"));
    assert!(!got.text().contains("real-1"));
    let raw = Raw::on(TcpListener::bind(address).await.unwrap(), &[]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..3 {
        assert_eq!(ask(&world, "POST").await, "200 0");
    }
    assert_eq!(raw.seen().len(), 3);
}

#[tokio::test]
async fn an_endpoint_that_is_asked_how_it_is_comes_back_by_itself() {
    let address = nobody();
    let health = "health: {path: metadata, interval: 100ms, timeout: 100ms, failures: 2, open: 600s}";
    let world = before(&[address], false, health).await;
    let is = async |value: &str| {
        for _ in 0..500 {
            let (_, page) = world.admin("/metrics").await;
            if page.lines().any(|line| line.starts_with("cryptonym_upstream_up") && line.ends_with(value)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("upstream_up never was{value}");
    };
    is(" 0").await;
    assert_eq!(ask(&world, "GET").await, "503 upstream-open");
    let _raw = Raw::on(TcpListener::bind(address).await.unwrap(), &[]);
    is(" 1").await;
    assert_eq!(ask(&world, "GET").await, "200 0");
}

// -- HTTP/2

/// An HTTP/2 upstream that bears so many streams on a connection, answers when it is let, and says goodbye after so many
/// answers.
struct Two {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    waiting: Arc<AtomicUsize>,
    gate: Arc<tokio::sync::Semaphore>,
}

impl Two {
    async fn start(pki: &Pki, streams: u32, goodbye_after: usize) -> Two {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = vec![CertificateDer::from_pem_file(pki.folder.join("server.pem")).unwrap()];
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(pki.folder.join("server.key")).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let (connections, waiting) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let two = Two { address, connections: connections.clone(), waiting: waiting.clone(), gate: gate.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let (acceptor, waiting, gate) = (acceptor.clone(), waiting.clone(), gate.clone());
                let connections = connections.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    connections.fetch_add(1, Ordering::Relaxed);
                    let (answered, goodbye) = (Arc::<AtomicUsize>::default(), Arc::new(tokio::sync::Notify::new()));
                    let told = goodbye.clone();
                    let service = service_fn(move |_| {
                        let (waiting, gate) = (waiting.clone(), gate.clone());
                        let (answered, told) = (answered.clone(), told.clone());
                        async move {
                            waiting.fetch_add(1, Ordering::Relaxed);
                            gate.acquire().await.unwrap().forget();
                            if answered.fetch_add(1, Ordering::Relaxed) + 1 == goodbye_after {
                                told.notify_one();
                            }
                            let answer = http::Response::builder().header("content-type", JSON);
                            let body = http_body_util::Full::new(Bytes::from_static(PATIENT.as_bytes()));
                            Ok::<_, std::convert::Infallible>(answer.body(body).unwrap())
                        }
                    });
                    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    builder.max_concurrent_streams(streams);
                    let connection = builder.serve_connection(TokioIo::new(stream), service);
                    tokio::pin!(connection);
                    tokio::select! {
                        _ = connection.as_mut() => return,
                        () = goodbye.notified() => connection.as_mut().graceful_shutdown(),
                    }
                    let _ = connection.await;
                });
            }
        });
        two
    }
}

#[tokio::test]
async fn streams_beyond_what_a_connection_bears_find_another() {
    let pki = Pki::new();
    let two = Two::start(&pki, 2, usize::MAX).await;
    let world = Arc::new(before_with(pki, &[two.address], true, "tls: {ca: ca.pem}").await);
    two.gate.add_permits(1);
    assert_eq!(ask(&world, "GET").await, "200 "); // from here on it is known how many streams a connection bears
    let asking: Vec<_> = (0..6)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { ask(&world, "POST").await })
        })
        .collect();
    until(|| two.waiting.load(Ordering::Relaxed) == 7).await; // all six at once, though two fit on a connection
    two.gate.add_permits(6);
    for one in asking {
        assert_eq!(one.await.unwrap(), "200 ");
    }
    assert_eq!(two.connections.load(Ordering::Relaxed), 3);
    two.gate.add_permits(1);
    assert_eq!(ask(&world, "GET").await, "200 ");
    assert_eq!(two.connections.load(Ordering::Relaxed), 3, "what is open is used again");
}

#[tokio::test]
async fn a_goodbye_costs_no_exchange() {
    let pki = Pki::new();
    let two = Two::start(&pki, 100, 3).await;
    let world = before_with(pki, &[two.address], true, "tls: {ca: ca.pem}").await;
    two.gate.add_permits(100);
    for _ in 0..9 {
        assert_eq!(ask(&world, "POST").await, "200 ");
    }
    assert_eq!(two.connections.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn idle_connections_are_closed_before_the_server_would() {
    let raw = Raw::start(&[]).await;
    let world = before(&[raw.address], false, "timeouts: {idle: 100ms}").await;
    assert_eq!(ask(&world, "GET").await, "200 0");
    raw.ended(1).await;
    assert_eq!(ask(&world, "GET").await, "200 0");
    assert_eq!(raw.seen().last(), Some(&(1, "GET".to_owned())));
}

// -- the configuration

#[test]
fn upstreams_that_make_no_sense_are_mistakes() {
    let pki = Pki::new();
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let text = configuration(&Setting::default(), address);
    for (upstream, word) in [
        ("url: http://127.0.0.1:1/r4, urls: [http://127.0.0.1:2/r4]", "both `url` and `urls`"),
        ("urls: []", "`url` is missing"),
        ("urls: [http://127.0.0.1:1/r4, http://127.0.0.1:1/r4]", "named twice"),
        ("urls: [http://127.0.0.1:1/r4, http://127.0.0.1:2/r5]", "more than host and port"),
        ("urls: [http://127.0.0.1:1/r4, http://10.0.0.1:2/r4]", "without TLS"),
        ("url: http://127.0.0.1:1/r4, timeouts: {connect: 10s, whole: 5s}", "`timeouts.connect` is longer"),
        ("url: http://127.0.0.1:1/r4, timeouts: {first_byte: 10s, whole: 5s}", "`timeouts.first_byte` is longer"),
        ("url: http://127.0.0.1:1/r4, timeouts: {progress: 10s, whole: 5s}", "`timeouts.progress` is longer"),
        ("url: http://127.0.0.1:1/r4, timeouts: {idle: 1h}", "`timeouts.idle`"),
        ("url: http://127.0.0.1:1/r4, timeouts: {idle: 0s}", "`timeouts.idle`"),
        ("url: http://127.0.0.1:1/r4, health: {failures: 0}", "`health.failures`"),
        ("url: http://127.0.0.1:1/r4, health: {interval: 5s}", "no `path`"),
        ("url: http://127.0.0.1:1/r4, health: {path: metadata, interval: 1s, timeout: 2s}", "`health.timeout`"),
        ("url: http://127.0.0.1:1/r4, health: {path: metadata, interval: 1ms}", "shorter than 100ms"),
        ("url: http://127.0.0.1:1/r4, health: {open: 1h}", "`health.open` is longer"),
        ("url: http://127.0.0.1:1/r4, health: {path: 'a?b'}", "`health.path`"),
    ] {
        let text = text.replace(
            &format!("      url: http://{address}/r4\n      timeouts: {{}}\n"),
            &format!("      {{{upstream}}}\n"),
        );
        let Err(mistakes) = parse(&text, &pki.folder) else { panic!("taken: {upstream}") };
        let found: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        assert!(found.len() == 1 && found[0].contains(word), "{upstream}: {found:?}");
    }
}
