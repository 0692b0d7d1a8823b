//! The whole way as its users have it: a caller's client, the proxy from a configuration file, the cloud behind TLS, the
//! command line with the same keys. Everything is on loopback and on free ports; nothing outlives its test.
//!
//! Requests are kept one by one as the cloud received them, so that a test can look for names in all bytes or compare one body.

use bytes::Bytes;
use cryptonym::cli::certs::{Authority, Pair, THIS_MACHINE, write_new};
use cryptonym::cli::demo::client::{Client, Reply, server_tls};
use cryptonym::cli::demo::cloud::{Cloud, Record};
use cryptonym::cli::demo::start::{RunningProxy, Starts};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The pseudonymisation domain of route and command line.
pub const DOMAIN: &str = "e2e";

/// Requests in flight at one time: two cores have no use for more.
const AT_ONCE: usize = 8;

/// A folder with an authority, certificates and keys in it.
pub struct Site {
    pub folder: PathBuf,
    pub authority: Authority,
    pub ward: Pair,
    pub vendor: Pair,
    pub server: Pair,
}

impl Site {
    /// `name` tells the tests of this file apart; a folder of an earlier run is removed.
    pub fn new(name: &str) -> Site {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cloud-e2e-{name}"));
        std::fs::remove_dir_all(&folder).ok();
        let authority = Authority::new("test authority").unwrap();
        let (ward, vendor) = (authority.client("ward", "ward.example"), authority.client("vendor", "vendor.example"));
        let (ward, vendor, server) = (ward.unwrap(), vendor.unwrap(), authority.server(&THIS_MACHINE).unwrap());
        let keyring = (Starts::own().keyring)().unwrap();
        let certificate = authority.certificate();
        let files = [
            ("ca.pem", certificate.as_str()),
            ("server.pem", &server.certificate),
            ("server-key.pem", &server.key),
            ("keyring.yaml", &keyring),
        ];
        write_new(&folder, &files).unwrap();
        Site { folder, authority, ward, vendor, server }
    }

    /// Writes the proxy's configuration; gives its path and where it will listen.
    pub fn configuration(&self, pack: &str, upstream: &str) -> (PathBuf, SocketAddr) {
        let [listener, admin] = free_ports();
        let lossy = if pack.ends_with("reversible") { "" } else { "    lossy_update: allow\n" };
        let text = format!(
            r#"apiVersion: cryptonym/v1
kind: Proxy
listeners:
  - address: {listener}
    tls: {{ cert: server.pem, key: server-key.pem, client_ca: ca.pem, client_auth: required }}
admin: {{ address: {admin} }}
keyring: keyring.yaml
audit: {{ file: audit.jsonl }}
routes:
  - name: cloud
    untrusted: upstream
    upstream: {{ url: "{upstream}", tls: {{ ca: ca.pem }} }}
    public_base: "https://{listener}"
    rules: {pack}
    domain: {DOMAIN}
{lossy}callers:
  - {{ name: ward, match: {{ dns: ward.example }} }}
  - {{ name: vendor, match: {{ dns: vendor.example }} }}
grants:
  - {{ callers: [ward], routes: [cloud], reidentify: {{ "*": plain }} }}
"#
        );
        let path = self.folder.join("proxy.yaml");
        std::fs::write(&path, text).unwrap();
        (path, listener)
    }

    /// `pseudonymize` or `reidentify` with the keys of this site: documents of one line each as one NDJSON file, and documents as
    /// files beside it, in one run. What comes out of each, in order. Fails the test if anything is refused.
    pub fn command(&self, command: &str, pack: &str, base: Option<&str>, input: Input<'_>) -> [Vec<String>; 2] {
        let (from, to) = (self.folder.join("in"), self.folder.join("out"));
        for folder in [&from, &to] {
            std::fs::remove_dir_all(folder).ok();
        }
        std::fs::create_dir_all(&from).unwrap();
        for (number, document) in input.documents.iter().enumerate() {
            std::fs::write(from.join(format!("{number}.json")), document).unwrap();
        }
        std::fs::write(from.join("lines.ndjson"), input.lines.join("\n")).unwrap();

        let mut process = Command::new(binary());
        process.arg(command).args(["--rules", pack, "--domain", DOMAIN, "--keep-names"]);
        process.arg("--keys").arg(self.folder.join("keyring.yaml")).stdin(Stdio::null());
        if command == "reidentify" {
            process.args(["--purpose", "TREAT", "--caller", "ward"]);
        }
        if let Some(base) = base {
            process.args(["--base", base]);
        }
        let output = process.arg("-o").arg(&to).arg(&from).output().expect("the command runs");
        assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));

        let read = |name: &str| std::fs::read_to_string(to.join(name)).unwrap();
        let lines: Vec<String> = read("lines.ndjson").lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), input.lines.len());
        [lines, (0..input.documents.len()).map(|number| read(&format!("{number}.json"))).collect()]
    }
}

/// What the command line is given.
#[derive(Default)]
pub struct Input<'a> {
    pub lines: &'a [&'a str],
    pub documents: &'a [&'a str],
}

/// The command of this build, or the one named by `CRYPTONYM_BIN`.
pub fn binary() -> PathBuf {
    std::env::var_os("CRYPTONYM_BIN").map_or_else(|| env!("CARGO_BIN_EXE_cryptonym").into(), PathBuf::from)
}

fn free_ports() -> [SocketAddr; 2] {
    let sockets = [0, 1].map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    sockets.map(|socket| socket.local_addr().unwrap())
}

/// A request as the cloud received it, spelled as HTTP/1.1.
#[derive(Clone)]
pub struct Received {
    pub head: String,
    pub body: String,
}

impl Received {
    /// Method and target.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1")
    }
}

/// Cloud, proxy and two callers.
pub struct World {
    pub site: Site,
    pub pack: &'static str,
    pub cloud: Cloud,
    pub ward: Arc<Client>,
    pub vendor: Arc<Client>,
    /// Trusts the authority and shows no certificate: the cloud asks for none.
    pub inside: Arc<Client>,
    /// Where callers reach the proxy.
    pub base: String,
    received: Arc<Mutex<Vec<Received>>>,
    proxy: Option<RunningProxy>,
}

impl World {
    pub async fn new(name: &str, pack: &'static str) -> World {
        let site = Site::new(&format!("{name}-{pack}"));
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let kept = received.clone();
        let sink = move |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec()).expect("what is sent to the cloud is UTF-8");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head ends with an empty line");
            let head = head.replacen(" HTTP/2.0\r\n", " HTTP/1.1\r\n", 1);
            kept.lock().unwrap().push(Received { head, body: body.strip_suffix("\r\n").unwrap_or(body).to_owned() });
        };
        let cloud = Cloud::start(server_tls(&site.server).unwrap(), Record::To(Box::new(sink))).await.unwrap();
        let (config, _) = site.configuration(pack, &cloud.base);
        let proxy = (Starts::own().proxy)(config).await.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let trusted = site.authority.certificate();
        let client = |identity| Arc::new(Client::new(&trusted, identity).unwrap());
        World {
            pack,
            base: format!("https://{}", proxy.address),
            ward: client(Some(&site.ward)),
            vendor: client(Some(&site.vendor)),
            inside: client(None),
            received,
            proxy: Some(proxy),
            cloud,
            site,
        }
    }

    /// Everything that the cloud was sent so far, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The request that came last.
    pub fn last(&self) -> Received {
        self.received.lock().unwrap().last().expect("something was received").clone()
    }

    /// One request of the ward. Fails the test unless the answer is 2xx.
    pub async fn ask(&self, method: &str, target: &str, body: &str) -> Reply {
        let mut replies = self.ask_all(&self.ward, &[(method, target, body)]).await;
        replies.remove(0)
    }

    /// `PUT` of many resources by the ward.
    pub async fn put_all(&self, paths: &[String], texts: &[&str]) -> Vec<Reply> {
        let puts: Vec<_> = paths.iter().zip(texts).map(|(path, text)| ("PUT", path.as_str(), *text)).collect();
        self.ask_all(&self.ward, &puts).await
    }

    /// Many requests, a few at a time; the answers in the order of the requests. Fails the test unless all are 2xx.
    pub async fn ask_all(&self, client: &Arc<Client>, requests: &[(&str, &str, &str)]) -> Vec<Reply> {
        let mut replies: Vec<Option<Reply>> = (0..requests.len()).map(|_| None).collect();
        let mut tasks = tokio::task::JoinSet::new();
        let mut refused = Vec::new();
        let mut waiting = requests.iter().enumerate();
        loop {
            while tasks.len() < AT_ONCE
                && let Some((number, (method, target, body))) = waiting.next()
            {
                let (client, method, body) = (client.clone(), (*method).to_owned(), (*body).to_owned());
                let url = if target.starts_with("https://") {
                    (*target).to_owned()
                } else {
                    format!("{}/{target}", self.base)
                };
                tasks.spawn(async move { (number, client.send(&method, &url, &[], &body).await) });
            }
            let Some(ended) = tasks.join_next().await else { break };
            let (number, reply) = ended.unwrap();
            let reply = reply.unwrap_or_else(|error| panic!("{} {}: {error}", requests[number].0, requests[number].1));
            if !(200..300).contains(&reply.status) {
                refused.push(format!("{} {}: {} {}", requests[number].0, requests[number].1, reply.status, reply.body));
            }
            replies[number] = Some(reply);
        }
        let first: Vec<&String> = refused.iter().take(5).collect();
        assert!(refused.is_empty(), "{} of {} with {}: {first:#?}", refused.len(), requests.len(), self.pack);
        replies.into_iter().map(|reply| reply.expect("every request was answered")).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            (proxy.stop)();
        }
    }
}

/// Runs a test on a runtime of its own.
pub fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}

// -- the one large body

/// An upstream that takes a body piece by piece, says how much of it came so far, and answers with an empty answer.
pub struct Basin {
    pub base: String,
    body: Arc<Mutex<Vec<u8>>>,
    running: tokio::task::JoinHandle<()>,
}

impl Basin {
    pub async fn start(site: &Site) -> Basin {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let tls = tokio_rustls::TlsAcceptor::from(server_tls(&site.server).unwrap());
        let body: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = body.clone();
        let running = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (tls, kept) = (tls.clone(), kept.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(socket).await else { return };
                    let service = service_fn(move |mut request: Request<Incoming>| {
                        let kept = kept.clone();
                        async move {
                            while let Some(Ok(frame)) = request.body_mut().frame().await {
                                kept.lock().unwrap().extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                            }
                            let text = r#"{"resourceType":"Bundle","type":"transaction-response"}"#;
                            let answer = Response::builder().header("content-type", "application/fhir+json");
                            Ok::<_, Infallible>(answer.body(Full::new(Bytes::from_static(text.as_bytes()))).unwrap())
                        }
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A connection that breaks shows in the client's answer.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Basin { base, body, running }
    }

    /// Bytes so far.
    pub fn level(&self) -> usize {
        self.body.lock().unwrap().len()
    }

    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.body.lock().unwrap())
    }
}

impl Drop for Basin {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// `cryptonym run`, in a process of its own; it ends with this.
pub struct Process(Child);

impl Process {
    /// Starts the proxy and waits until it listens.
    pub fn start(config: &Path, listener: SocketAddr) -> Process {
        let mut process = Command::new(binary());
        process.args(["run", "--config"]).arg(config).stdin(Stdio::null()).stderr(Stdio::null());
        let mut process = Process(process.spawn().expect("the command runs"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(listener).is_err() {
            assert!(process.0.try_wait().unwrap().is_none(), "the proxy ended before it listened");
            assert!(Instant::now() < deadline, "the proxy does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        process
    }

    /// The most memory that was ever resident, in kB (proc(5), VmHWM). `None` where the system does not say.
    pub fn peak(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Posts a body to the base of a listener in chunks, as HTTP/1.1; `between` sees how much was sent. Gives the whole answer.
pub async fn post_in_pieces(site: &Site, listener: SocketAddr, body: &str, mut between: impl FnMut(usize)) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(site.authority.certificate().as_bytes()).unwrap()).unwrap();
    let certificate = CertificateDer::from_pem_slice(site.ward.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(site.ward.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_client_auth_cert(vec![certificate], key).unwrap();
    let socket = tokio::net::TcpStream::connect(listener).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();

    let head = format!(
        "POST / HTTP/1.1\r\nhost: {listener}\r\ncontent-type: application/fhir+json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut sent = 0;
    for piece in body.as_bytes().chunks(64 * 1024) {
        stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.unwrap();
        stream.write_all(piece).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
        sent += piece.len();
        between(sent);
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    // A server that closes without a TLS goodbye has still answered.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}
