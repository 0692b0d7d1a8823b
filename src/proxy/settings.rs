//! What the proxy runs by, as meant: every choice made, every certificate parsed, every rule compiled.
//!
//! `crate::config` makes this from a file and is the only place that knows the file's form. Nothing here is read
//! again from disk, and no `Option` stands for "not thought of".

use super::limits::Tunable;
use super::tls::Identity;
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
    /// Address and port; port 0 takes any free one.
    pub address: SocketAddr,
    /// `None`: plain HTTP/1, on a loopback address only.
    pub tls: Option<ListenerTls>,
}

/// TLS of a listener.
pub struct ListenerTls {
    /// Ready for handshakes.
    pub config: Arc<rustls::ServerConfig>,
    /// When the certificate ends, in seconds since 1970.
    pub expires: i64,
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
    /// The untrusted side.
    pub upstream: Upstream,
    /// What becomes of `Authorization`.
    pub credentials: Credentials,
    /// Whether `PUT` may overwrite a richer record with a poorer one (design §3, "both ways or one way").
    pub updates: bool,
}

/// The untrusted side of a route.
pub struct Upstream {
    /// `https://host[:port]`, or `http://` on loopback.
    pub origin: String,
    /// Path under which its FHIR base stands, without a slash at its end.
    pub path: String,
    /// `None`: plain HTTP, on a loopback address only.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Time to connect, TLS included.
    pub connect: Duration,
    /// Time from the end of the request to the head of the answer.
    pub first_byte: Duration,
    /// Time for everything.
    pub whole: Duration,
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
