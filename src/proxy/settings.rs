//! What the proxy runs by, as meant: every choice made, every certificate parsed, every rule compiled.
//!
//! `crate::config` makes this from a file and is the only place that knows the file's form. Nothing here is read
//! again from disk, and no `Option` stands for "not thought of".

use super::limits::Tunable;
use super::proxy_protocol::Network;
use super::tls::Identity;
use super::upstream::health::Health;
use crate::encoding::stream::Packing;
use crate::names::Caller;
use crate::policy::Policy;
use crate::rewrite::Engine;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything that [`serve`](super::serve) needs.
pub struct Settings {
    /// Where requests come in.
    pub listeners: Vec<Listener>,
    /// Where probes and scrapers come in. Port 0: any free one.
    pub admin: SocketAddr,
    /// Where reveals are recorded. `None` only if no grant reveals anything.
    pub audit: Option<PathBuf>,
    /// At least one.
    pub routes: Vec<Arc<Route>>,
    /// Who can be recognised.
    pub callers: Vec<KnownCaller>,
    /// What they may see.
    pub policy: Policy,
    /// Bounds that a site may set.
    pub limits: Tunable,
}

/// One listening socket.
pub struct Listener {
    /// Where.
    pub address: Address,
    /// `None`: plain HTTP/1, on a loopback address, a Unix socket, or where the configuration names it.
    pub tls: Option<ListenerTls>,
    /// Peers that must say by the PROXY protocol for whom they speak.
    pub speakers: Vec<Network>,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Address and port; port 0 takes any free one.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// TLS of a listener.
pub struct ListenerTls {
    /// Ready for handshakes.
    pub config: Arc<rustls::ServerConfig>,
    /// When the first of its certificates ends, in seconds since 1970.
    pub expires: i64,
    /// Tells apart who vouches for clients: a digest of authorities and whether they are asked for.
    pub trust: [u8; 32],
}

impl ListenerTls {
    /// Lets sessions of the former settings be resumed, unless clients are vouched for by others now: a resumed session
    /// is not verified anew. Says whether they are the same.
    pub fn resume(&mut self, former: &ListenerTls) -> bool {
        let same = self.trust == former.trust;
        if same {
            let mut config = self.config.as_ref().clone();
            config.ticketer = former.config.ticketer.clone();
            config.session_storage = former.config.session_storage.clone();
            self.config = Arc::new(config);
        }
        same
    }
}

/// Which side of a route may not know who the patient is (design §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untrusted {
    /// The one that is called: requests are pseudonymized, answers shown as far as the permit reaches.
    Upstream,
    /// The one that calls in: tokens in requests are resolved as far as the permit reaches, answers pseudonymized.
    Downstream,
}

/// One border: requests that match go through these rules to this upstream.
pub struct Route {
    /// Name in logs, metrics, grants and audit.
    pub name: String,
    /// Host without port, lower case; `None` matches every host.
    pub host: Option<String>,
    /// Path prefix without a slash at its end; empty matches every path.
    pub path: String,
    /// The base URL by which callers reach it, without a slash at its end.
    pub public_base: String,
    /// Rules bound to keys.
    pub engine: Arc<Engine>,
    /// Which side may not know.
    pub untrusted: Untrusted,
    /// Where requests go.
    pub upstream: Upstream,
    /// What becomes of `Authorization`.
    pub credentials: Credentials,
    /// Codings that the upstream is asked for and that unrevealed answers may bear, the best first.
    pub packings: Vec<Packing>,
    /// Whether `PUT` may overwrite a richer record with a poorer one (design §3, "both ways or one way").
    pub updates: bool,
}

/// Where a route leads.
#[derive(Clone)]
pub struct Upstream {
    /// Where it is reached: `https://host[:port]`, or `http://` on loopback. At least one; the first is the one whose URLs
    /// references bear on their way there.
    pub origins: Vec<String>,
    /// Path under which its FHIR base stands, without a slash at its end.
    pub path: String,
    /// `None`: plain HTTP, on a loopback address only.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Time to connect, TLS included.
    pub connect: Duration,
    /// Time from the end of the request to the head of the answer.
    pub first_byte: Duration,
    /// Longest pause of an upstream that takes nothing of a request or brings nothing of an answer.
    pub progress: Duration,
    /// After which an idle connection is closed: shorter than its own time.
    pub idle: Duration,
    /// Time for everything.
    pub whole: Duration,
    /// How each endpoint's health is judged.
    pub health: Health,
}

/// What becomes of the caller's `Authorization` header (design §3).
#[derive(Clone)]
pub enum Credentials {
    /// It ends here.
    Drop,
    /// It ends here, and the upstream gets this one. Marked sensitive.
    Replace(http::HeaderValue),
    /// It goes on as it is.
    Forward,
}

/// A caller and the mark in a verified client certificate that tells it.
pub struct KnownCaller {
    /// The name that grants, logs and audit use.
    pub name: Caller,
    /// How it is told.
    pub mark: Mark,
}

/// One property of a certificate, compared as a whole.
pub enum Mark {
    /// A DNS subject alternative name; case does not matter.
    Dns(String),
    /// A URI subject alternative name: a SPIFFE id.
    Uri(String),
    /// The only common name of the subject.
    Subject(String),
}

impl Settings {
    /// What is bound or counted when a proxy starts and differs between two settings: names of keys.
    pub fn fixed_otherwise(&self, other: &Settings) -> Vec<&'static str> {
        let places = |settings: &Settings| -> Vec<(Address, bool)> {
            settings.listeners.iter().map(|listener| (listener.address.clone(), listener.tls.is_some())).collect()
        };
        let fixed = [
            ("listeners", places(self) != places(other)),
            ("admin.address", self.admin != other.admin),
            ("limits.connections", self.limits.connections != other.limits.connections),
            ("limits.exchanges", self.limits.exchanges != other.limits.exchanges),
            ("limits.threads", self.limits.threads != other.limits.threads),
        ];
        fixed.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }

    /// The route for a host and path, and its place in the list: the longest path prefix among those whose host fits; a named host before any host.
    pub fn route(&self, host: &str, path: &str) -> Option<(usize, &Arc<Route>)> {
        let fitting = self.routes.iter().enumerate().filter(|(_, route)| route.matches(host, path));
        fitting.max_by_key(|(_, route)| (route.host.is_some(), route.path.len()))
    }

    /// Whose certificate this is. A certificate that fits two callers is nobody's: the configuration is ambiguous, and
    /// guessing would reveal.
    pub fn caller(&self, identity: &Identity) -> Option<Caller> {
        let mut found = self.callers.iter().filter(|known| known.mark.fits(identity)).map(|known| &known.name);
        let first = found.next()?;
        found.all(|other| other == first).then(|| first.clone())
    }
}

impl Route {
    fn matches(&self, host: &str, path: &str) -> bool {
        let bare = match host.rsplit_once(':') {
            Some((bare, port)) if port.bytes().all(|b| b.is_ascii_digit()) => bare,
            _ => host,
        };
        self.host.as_ref().is_none_or(|own| own.eq_ignore_ascii_case(bare)) && self.below(path).is_some()
    }

    /// The rest of a path or target below this route's prefix, without its leading slash.
    pub fn below<'a>(&self, target: &'a str) -> Option<&'a str> {
        let rest = target.strip_prefix(self.path.as_str())?;
        match rest.as_bytes().first() {
            None | Some(b'?') => Some(rest),
            Some(b'/') => Some(&rest[1..]),
            Some(_) => None,
        }
    }
}

impl Mark {
    fn fits(&self, identity: &Identity) -> bool {
        match self {
            Mark::Dns(name) => identity.dns.iter().any(|own| own.eq_ignore_ascii_case(name)),
            Mark::Uri(uri) => identity.uris.contains(uri),
            Mark::Subject(name) => identity.common_name.as_ref() == Some(name),
        }
    }
}
