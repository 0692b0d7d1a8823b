//! The whole way as its users have it: a caller's client, the proxy from a configuration file, the cloud behind TLS, the
//! command line with the same keys. Everything is on loopback and on free ports; nothing outlives its test.
//!
//! Requests are kept one by one as the cloud received them, so that a test can look for names in all bytes or compare one body.

use cryptonym::cli::certs::{Authority, Pair, THIS_MACHINE, write_new};
use cryptonym::cli::demo::client::{Client, Reply, server_tls};
use cryptonym::cli::demo::cloud::{Cloud, Record};
use cryptonym::cli::demo::start::{RunningProxy, Starts};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

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

    /// `pseudonymize` or `reidentify` with the keys of this site.
    pub fn command(&self, command: &str, pack: &str) -> Command {
        let mut process = Command::new(binary());
        process.arg(command).args(["--rules", pack, "--domain", DOMAIN, "--keep-names"]);
        process.arg("--keys").arg(self.folder.join("keyring.yaml")).stdin(Stdio::null());
        if command == "reidentify" {
            process.args(["--purpose", "TREAT", "--caller", "ward"]);
        }
        process
    }

    /// Documents through the command line, as files of one folder; what comes out, in order.
    pub fn documents(&self, command: &str, pack: &str, base: Option<&str>, documents: &[&str]) -> Vec<String> {
        let (from, to) = (self.folder.join("in"), self.folder.join("out"));
        for folder in [&from, &to] {
            std::fs::remove_dir_all(folder).ok();
        }
        std::fs::create_dir_all(&from).unwrap();
        for (number, document) in documents.iter().enumerate() {
            std::fs::write(from.join(format!("{number}.json")), document).unwrap();
        }
        let mut process = self.command(command, pack);
        if let Some(base) = base {
            process.args(["--base", base]);
        }
        succeeds(process.arg("-o").arg(&to).arg(&from));
        (0..documents.len()).map(|number| std::fs::read_to_string(to.join(format!("{number}.json"))).unwrap()).collect()
    }

    /// Documents of one line each through the command line, as one NDJSON file.
    pub fn lines(&self, command: &str, pack: &str, documents: &[&str]) -> Vec<String> {
        let (from, to) = (self.folder.join("in.ndjson"), self.folder.join("out.ndjson"));
        std::fs::write(&from, documents.join("\n") + "\n").unwrap();
        succeeds(self.command(command, pack).arg("-o").arg(&to).arg(&from));
        std::fs::read_to_string(to).unwrap().lines().map(str::to_owned).collect()
    }
}

#[track_caller]
fn succeeds(process: &mut Command) -> Output {
    let output = process.output().expect("the command runs");
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    output
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

    /// How many requests the cloud was sent: a mark to look from later.
    pub fn mark(&self) -> usize {
        self.received.lock().unwrap().len()
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
