//! The proxy's configuration: from as written (contract §4) to as meant ([`Settings`]), once, before any port is bound.
//!
//! As written is serde and nothing else; every field is optional there, so that what is missing is reported together with
//! what is wrong. As meant has no choice left open. All mistakes are reported at once, each with its line; a file with one
//! mistake yields nothing. What the contract names and this version cannot do is a mistake too, never ignored.
//!
//! A configuration holds no identity, so its words may be quoted in a mistake, but values of `${VAR}` may be secret: they
//! never are.

mod file;
mod upstream;
mod values;

use crate::encoding::stream::Packing;
use crate::names::{Caller, Class, Domain, EpochId, Purpose};
use crate::policy::{Grant, Policy, Reveal};
use crate::proxy::limits::{CONFIG_BYTES_MAX, CONNECTIONS_MAX, THREADS_MAX, Tunable};
use crate::proxy::proxy_protocol::Network;
use crate::proxy::settings::{Credentials, KnownCaller, Listener, ListenerTls, Mark, Route, Settings, Untrusted};
use crate::proxy::tls;
use crate::rewrite::{self, Engine, Options, Overflow};
use crate::rules::Compiled;
use crate::token::Keyring;
use file::{
    AdminFile, AuditFile, CallerFile, CredentialsFile, File, GrantFile, Later, LimitsFile, ListenerFile,
    ListenerTlsFile, MarkFile, MatchFile, PairFile, ProxyProtocolFile, RouteFile, Text,
};
use rustls::sign::CertifiedKey;
use serde_saphyr::Spanned;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use values::{Base, address, duration, expand, is_local, path_prefix};

/// The JSON Schema of a configuration as written.
#[cfg(feature = "cli")]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(File)
}

/// One mistake in a configuration: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line in the file, from 1; 0: the file as a whole.
    pub line: u64,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{}; help: {}", self.what, self.advice)
    }
}

/// Reads a keyring from a path or `env:NAME`; the flag allows a file that others may read. Mistakes as lines for people.
pub type ReadKeyring<'a> = &'a dyn Fn(&str, bool) -> Result<Keyring, Vec<String>>;

/// What a configuration refers to and cannot contain. Arguments, so that tests need no files and no environment.
pub struct Sources<'a> {
    /// Compiles the rules of an embedded pack's name or a file; mistakes as lines for people.
    pub rules: &'a dyn Fn(&str) -> Result<Compiled, Vec<String>>,
    /// Reads the keyring.
    pub keyring: ReadKeyring<'a>,
    /// The environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Where relative paths start: the folder of the configuration.
    pub folder: &'a Path,
    /// Takes down every file that the configuration consists of, whether it could be read or not: what to watch.
    pub files: &'a RefCell<BTreeSet<PathBuf>>,
}

/// Reads and checks the configuration of a file.
pub fn load(path: &Path, sources: &Sources<'_>) -> Result<Settings, Vec<Mistake>> {
    sources.files.borrow_mut().insert(path.to_owned());
    let text = read(path).map_err(|what| {
        vec![Mistake {
            line: 0,
            what: format!("the configuration {what}"),
            advice: "give the path of a YAML file".into(),
        }]
    })?;
    parse(&text, sources)
}

/// Checks the configuration of a text.
pub fn parse(text: &str, sources: &Sources<'_>) -> Result<Settings, Vec<Mistake>> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| {
        vec![Mistake {
            line: error.location().map_or(0, |location| location.line()),
            what: error.without_snippet().to_string().lines().next().unwrap_or_default().to_owned(),
            advice: "see the list of keys in docs/configuration.md".into(),
        }]
    })?;
    let mut reader = Reader { sources, mistakes: Vec::new(), line: 0 };
    let settings = reader.settings(file);
    reader.mistakes.sort_by_key(|mistake| mistake.line);
    match settings {
        Some(settings) if reader.mistakes.is_empty() => Ok(settings),
        _ => Err(reader.mistakes),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = read_bytes(path)?;
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| format!("{} cannot be read: {}", path.display(), error.kind());
    let length = std::fs::metadata(path).map_err(told)?.len();
    if length > CONFIG_BYTES_MAX {
        return Err(format!("{} is larger than {CONFIG_BYTES_MAX} bytes", path.display()));
    }
    std::fs::read(path).map_err(told)
}

/// Collects mistakes on the way. A `None` means that a mistake was noted.
struct Reader<'a> {
    sources: &'a Sources<'a>,
    mistakes: Vec<Mistake>,
    /// Of the section being read: for what is missing in it.
    line: u64,
}

impl Reader<'_> {
    fn wrong(&mut self, line: u64, what: impl Into<String>, advice: impl Into<String>) {
        self.mistakes.push(Mistake { line, what: what.into(), advice: advice.into() });
    }

    fn missing(&mut self, key: &str, advice: &str) {
        self.wrong(self.line, format!("`{key}` is missing"), advice);
    }

    fn later(&mut self, key: &str, value: &Later) {
        if let Some(value) = value {
            let what = format!("`{key}` is not supported yet");
            self.wrong(value.referenced.line(), what, "remove it; what it asks for would not happen");
        }
    }

    /// A string with its variables replaced, and its line.
    fn text(&mut self, value: Text) -> Option<(String, u64)> {
        let value = value?;
        let line = value.referenced.line();
        match expand(&value.value, self.sources.variable) {
            Ok(text) => Some((text, line)),
            Err(what) => {
                self.wrong(line, what, "set the variable, or write ${VAR:-default}");
                None
            }
        }
    }

    fn required(&mut self, key: &str, value: Text, advice: &str) -> Option<(String, u64)> {
        if value.is_none() {
            self.missing(key, advice);
        }
        self.text(value)
    }

    /// A string read by a function; what it does not take is a mistake.
    fn read<T>(
        &mut self,
        key: &str,
        value: (String, u64),
        advice: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let found = read(&value.0);
        if found.is_none() {
            self.wrong(value.1, format!("the value of `{key}` cannot be used"), advice);
        }
        found
    }

    fn path(&self, text: &str) -> PathBuf {
        self.sources.folder.join(text)
    }

    /// A path that belongs to the configuration.
    fn named(&self, text: &str) -> PathBuf {
        let path = self.path(text);
        self.sources.files.borrow_mut().insert(path.clone());
        path
    }

    /// A file's bytes through a function; both can be mistaken.
    fn file<T>(
        &mut self,
        key: &str,
        value: (String, u64),
        read: impl Fn(&[u8]) -> Result<T, tls::TlsError>,
    ) -> Option<T> {
        let path = self.named(&value.0);
        let read =
            read_bytes(&path).and_then(|bytes| read(&bytes).map_err(|error| format!("{} {error}", path.display())));
        match read {
            Ok(found) => Some(found),
            Err(what) => {
                self.wrong(value.1, format!("`{key}`: {what}"), "name a PEM file that this process may read");
                None
            }
        }
    }

    fn settings(&mut self, file: File) -> Option<Settings> {
        let here = |wanted: &'static str| move |text: &str| (text == wanted).then_some(());
        match self.required("apiVersion", file.api_version, "write apiVersion: cryptonym/v1") {
            Some(value) => self.read("apiVersion", value, "write cryptonym/v1", here("cryptonym/v1")),
            None => None,
        };
        match self.required("kind", file.kind, "write kind: Proxy") {
            Some(value) => self.read("kind", value, "write Proxy", here("Proxy")),
            None => None,
        };
        self.later("budgets", &file.budgets);

        let has_client_ca =
            file.listeners.iter().any(|l| l.value.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()));
        if file.listeners.is_empty() {
            self.missing("listeners", "name at least one `address`");
        }
        let listeners: Vec<_> = file.listeners.into_iter().filter_map(|l| self.listener(l)).collect();
        let admin = self.admin(file.admin);
        let keyring = self.keyring(file.keyring, file.allow_readable_keys);
        self.line = 0;
        if file.routes.is_empty() {
            self.missing("routes", "name at least one");
        }
        let routes: Vec<_> =
            file.routes.into_iter().filter_map(|route| self.route(route, keyring.as_ref())).map(Arc::new).collect();
        self.distinct_routes(&routes);
        if !file.callers.is_empty() && !has_client_ca {
            let line = file.callers[0].referenced.line();
            self.wrong(
                line,
                "callers are told by client certificates, and no listener asks for any",
                "add `client_ca` to a listener's `tls`",
            );
        }
        let callers: Vec<_> = file.callers.into_iter().filter_map(|caller| self.caller(caller)).collect();
        let known = Known {
            callers: callers.iter().map(|caller: &KnownCaller| caller.name.clone()).collect(),
            routes: routes.iter().map(|route: &Arc<Route>| route.name.clone()).collect(),
        };
        let grants: Vec<_> = file.grants.into_iter().filter_map(|grant| self.grant(grant, &known)).collect();
        let reveals = grants.iter().any(|grant: &Grant| grant.classes.values().any(|&reveal| reveal == Reveal::Plain));
        let audit = self.audit(file.audit, reveals);
        let limits = self.limits(file.limits);
        let policy = Policy::new(grants);
        Some(Settings { listeners, admin: admin?, audit, routes, callers, policy, limits })
    }

    fn listener(&mut self, written: Spanned<ListenerFile>) -> Option<Listener> {
        self.line = written.referenced.line();
        let ListenerFile { address: place, tls, proxy_protocol, allow_plain } = written.value;
        let speakers = proxy_protocol.map_or(Vec::new(), |written| self.speakers(written));
        let tls_wanted = tls.is_some();
        let tls = tls.map(|tls| self.listener_tls(tls));
        let value = self.required("address", place, "write address: 127.0.0.1:8443, or unix:PATH")?;
        let (line, folder) = (value.1, self.sources.folder);
        let advice = "write an IP address and a port: 127.0.0.1:8443, or unix:PATH";
        let address = self.read("address", value, advice, |text| address(text, folder))?;
        if !tls_wanted && !allow_plain && !is_local(&address) {
            self.wrong(
                line,
                "a listener that others can reach has no TLS",
                "add `tls: {cert, key}`, listen on 127.0.0.1, or write allow_plain: true if identity may cross that network in clear",
            );
        }
        Some(Listener { address, tls: tls.flatten(), speakers })
    }

    fn speakers(&mut self, written: ProxyProtocolFile) -> Vec<Network> {
        if written.from.is_empty() {
            self.missing("proxy_protocol.from", "name the balancers that are believed: from: [10.0.0.0/8]");
        }
        let advice = "write an address or a network, without bits beyond its mask: 10.0.0.0/8";
        let texts = written.from.into_iter().filter_map(|text| {
            let value = self.text(Some(text))?;
            self.read("proxy_protocol.from", value, advice, Network::parse)
        });
        texts.collect()
    }

    fn listener_tls(&mut self, written: ListenerTlsFile) -> Option<ListenerTls> {
        let ListenerTlsFile { cert, key, client_ca, client_auth, certificates } = written;
        let line = self.line;
        let auth = match self.text(client_auth) {
            Some(value) => self.read("client_auth", value, "write optional or required", |text| match text {
                "optional" => Some(tls::ClientAuth::Optional),
                "required" => Some(tls::ClientAuth::Required),
                _ => None,
            }),
            None => None,
        };
        if auth.is_some() && client_ca.is_none() {
            self.missing("client_ca", "name the authority that signs client certificates");
        }
        if auth.is_none() && client_ca.is_some() {
            self.missing("client_auth", "write optional (devices without certificates get pseudonyms) or required");
        }
        let roots = self.text(client_ca).and_then(|value| self.file("client_ca", value, tls::authorities));
        let first = self.pair(PairFile { cert, key });
        let more: Vec<_> = certificates
            .into_iter()
            .map(|pair| {
                self.line = pair.referenced.line();
                self.pair(pair.value)
            })
            .collect();
        self.line = line;
        let pairs: Vec<(CertifiedKey, i64)> = [first].into_iter().chain(more).collect::<Option<_>>()?;
        let expires = pairs.iter().map(|(_, expires)| *expires).min()?;
        let clients = roots.zip(auth);
        let trust = tls::trust(clients.as_ref().map(|(roots, auth)| (roots.as_ref(), *auth)));
        let made = tls::server(pairs.into_iter().map(|(pair, _)| pair).collect(), clients);
        made.map(|config| ListenerTls { config, expires, trust })
            .map_err(|error| self.wrong(line, format!("`tls`: a file {error}"), "give PEM files made for TLS"))
            .ok()
    }

    /// A certificate chain with its key, and when it ends.
    fn pair(&mut self, written: PairFile) -> Option<(CertifiedKey, i64)> {
        let line = self.line;
        let chain = self.required("cert", written.cert, "name the certificate chain");
        let chain = chain.and_then(|value| self.file("cert", value, tls::certificates));
        let key = self.required("key", written.key, "name the certificate's private key");
        let key = key.and_then(|value| self.file("key", value, tls::private_key));
        let (chain, key) = (chain?, key?);
        let made = tls::expires(&chain[0]).and_then(|expires| Ok((tls::pair(chain, key)?, expires)));
        made.map_err(|error| self.wrong(line, format!("`tls`: the file {error}"), "give matching `cert` and `key`"))
            .ok()
    }

    fn admin(&mut self, written: Option<AdminFile>) -> Option<SocketAddr> {
        let Some(value) = written.and_then(|admin| self.text(admin.address)) else {
            return Some(SocketAddr::from(([127, 0, 0, 1], 9901)));
        };
        self.read("admin.address", value, "write an IP address and a port: 127.0.0.1:9901", |text| text.parse().ok())
    }

    fn keyring(&mut self, written: Text, allow_readable: bool) -> Option<Keyring> {
        self.line = 0;
        let (source, line) = self.required("keyring", written, "name a keyring file, or env:NAME")?;
        let source = match source.strip_prefix("env:") {
            Some(_) => source,
            None => self.named(&source).to_string_lossy().into_owned(),
        };
        let found = (self.sources.keyring)(&source, allow_readable);
        found.map_err(|mistakes| self.all("keyring", line, mistakes)).ok()
    }

    fn all(&mut self, key: &str, line: u64, mistakes: Vec<String>) {
        for mistake in mistakes {
            self.mistakes.push(Mistake { line, what: format!("`{key}`: {mistake}"), advice: "see that file".into() });
        }
    }

    fn audit(&mut self, written: Option<AuditFile>, reveals: bool) -> Option<PathBuf> {
        self.line = 0;
        let Some(AuditFile { file, fsync, checkpoint_key }) = written else {
            if reveals {
                self.missing(
                    "audit",
                    "a grant reveals, and no reveal goes unrecorded: write audit: {file: audit.jsonl}",
                );
            }
            return None;
        };
        self.later("audit.checkpoint_key", &checkpoint_key);
        if let Some(fsync) = fsync.filter(|fsync| !fsync.value) {
            let what = "`fsync: false` would let a reveal leave before its record is durable";
            self.wrong(fsync.referenced.line(), what, "leave it out");
        }
        let (file, _) = self.required("audit.file", file, "name the file to append to")?;
        Some(self.path(&file))
    }

    fn route(&mut self, written: Spanned<RouteFile>, keyring: Option<&Keyring>) -> Option<Route> {
        self.line = written.referenced.line();
        let line = self.line;
        let route = written.value;
        for (key, value) in [("reveal_found", &route.reveal_found), ("allow", &route.allow)] {
            self.later(key, value);
        }
        let name = self.required("name", route.name, "name the route; grants and metrics use it");
        let name = name.and_then(|value| {
            self.read("name", value, "1 to 64 characters of A-Z a-z 0-9 . _ : / -", |text| Class::new(text).ok())
        });
        let (host, path) = match route.matching {
            Some(MatchFile { host, path }) => (self.text(host), self.text(path)),
            None => (None, None),
        };
        let path = match path {
            Some(value) => self.read("match.path", value, "write a path such as /fhir, without escapes", path_prefix),
            None => Some(String::new()),
        };
        let advice = "say which side may not know who the patient is: upstream or downstream";
        let untrusted = self.required("untrusted", route.untrusted, advice).and_then(|value| {
            self.read("untrusted", value, "write upstream or downstream", |text| match text {
                "upstream" => Some(Untrusted::Upstream),
                "downstream" => Some(Untrusted::Downstream),
                _ => None,
            })
        });
        let public_base =
            self.required("public_base", route.public_base, "the base URL by which callers reach this route");
        let public_base = public_base.and_then(|value| {
            self.read("public_base", value, "write https://HOST[:PORT][/PATH], without query", |text| {
                Base::parse(text).map(|base| base.whole())
            })
        });
        let upstream = match route.upstream {
            Some(upstream) => self.upstream(upstream),
            None => {
                self.missing("upstream", "write upstream: {url: https://HOST/PATH, tls: {ca: FILE}}");
                None
            }
        };
        self.line = line;
        let domain = match self.text(route.domain) {
            Some(value) => {
                self.read("domain", value, "1 to 64 characters of A-Z a-z 0-9 . _ : / -", |t| Domain::new(t).ok())
            }
            None => Domain::new("default").ok(),
        };
        let id_epoch = match route.id_epoch {
            Some(epoch) => match EpochId::new(epoch.value) {
                Ok(id) => Some(Some(id)),
                Err(error) => {
                    self.wrong(epoch.referenced.line(), error.to_string(), "name the epoch that the domain's ids use");
                    None
                }
            },
            None => Some(None),
        };
        let overflow = match self.text(route.overflow) {
            Some(value) => self.read("overflow", value, "write refuse or hash", |text| match text {
                "refuse" => Some(Overflow::Refuse),
                "hash" => Some(Overflow::Hash),
                _ => None,
            }),
            None => Some(Overflow::Refuse),
        };
        let credentials = self.credentials(route.credentials);
        let packings = route.encodings.into_iter().filter_map(|coding| self.packing(coding)).collect();
        let rules = self.required("rules", route.rules, "name an embedded pack, or a rule file");
        let rules = rules.and_then(|(source, line)| {
            let source = match Path::new(&source).extension() {
                Some(_) => self.named(&source).to_string_lossy().into_owned(),
                None => source,
            };
            (self.sources.rules)(&source).map_err(|mistakes| self.all("rules", line, mistakes)).ok()
        });
        let updates = self.updates(route.lossy_update, rules.as_ref());

        let (name, path, public_base, upstream) = (name?, path?, public_base?, upstream?);
        let (domain, id_epoch, overflow, credentials) = (domain?, id_epoch?, overflow?, credentials?);
        let (rules, keyring, updates) = (rules?, keyring?, updates?);
        let untrusted = untrusted?;
        let calls_in = untrusted == Untrusted::Downstream;
        if calls_in && rules.plain.is_some() {
            let what = "`untrusted: downstream` is not supported yet with rules of `format: json`";
            self.wrong(line, what, "use rules of `format: fhir`");
            return None;
        }
        if calls_in && overflow == Overflow::Hash {
            let what = "`overflow: hash` makes ids that no caller outside could use again";
            self.wrong(line, what, "write overflow: refuse");
            return None;
        }
        // Each endpoint may call itself by its own name: all of them are this route. On the way to them the first is meant.
        let bases = upstream.origins.iter().map(|origin| {
            let (callers, upstreams) = (public_base.clone(), format!("{origin}{}", upstream.path));
            let (trusted, untrusted) = if calls_in { (upstreams, callers) } else { (callers, upstreams) };
            rewrite::Base { trusted, untrusted }
        });
        let bases = bases.collect();
        let options = Options { id_epoch, overflow, bases, refuse_updates: !updates, calls_in, ..Options::default() };
        let engine = Engine::new(rules, keyring, &domain, options);
        let engine = engine.map_err(|mistake| self.wrong(line, mistake, "see the keyring and `id_epoch`")).ok()?;
        Some(Route {
            name: name.as_str().to_owned(),
            host: host.map(|(host, _)| host.to_ascii_lowercase()),
            path,
            public_base,
            engine: Arc::new(engine),
            untrusted,
            upstream,
            credentials,
            packings,
            updates,
        })
    }

    /// Whether updates may pass: a choice without a default where the rules lose data (design §3).
    fn updates(&mut self, written: Text, rules: Option<&Compiled>) -> Option<bool> {
        let lossy = rules.map(Compiled::lossy);
        match self.text(written) {
            Some(value) => self.read("lossy_update", value, "write allow or refuse", |text| match text {
                "allow" => Some(true),
                "refuse" => Some(lossy == Some(false)),
                _ => None,
            }),
            None if lossy == Some(true) => {
                self.missing(
                    "lossy_update",
                    "these rules lose data: write allow (the upstream is a mirror, updates may overwrite it) or refuse (it is the record)",
                );
                None
            }
            None => Some(true),
        }
    }

    fn packing(&mut self, written: Spanned<String>) -> Option<Packing> {
        let value = self.text(Some(written))?;
        self.read("encodings", value, "write gzip or zstd; br and deflate are read where they come", |text| {
            [Packing::Gzip, Packing::Zstd].into_iter().find(|packing| packing.name() == text)
        })
    }

    fn credentials(&mut self, written: Option<Spanned<CredentialsFile>>) -> Option<Credentials> {
        let Some(written) = written else { return Some(Credentials::Drop) };
        let (referenced, defined) = (written.referenced, written.defined);
        match written.value {
            CredentialsFile::Drop => Some(Credentials::Drop),
            CredentialsFile::Forward => Some(Credentials::Forward),
            CredentialsFile::Replace(text) => {
                let value = self.text(Some(Spanned::new(text, referenced, defined)))?;
                self.read("credentials.replace", value, "write the value of an Authorization header", |text| {
                    let mut value = http::HeaderValue::from_str(text).ok()?;
                    value.set_sensitive(true);
                    Some(Credentials::Replace(value))
                })
            }
        }
    }

    fn duration(&mut self, key: &str, written: Text, default: Duration) -> Option<Duration> {
        match self.text(written) {
            Some(value) => self.read(key, value, "write a time such as 500ms, 5s or 2m, up to a day", duration),
            None => Some(default),
        }
    }

    fn distinct_routes(&mut self, routes: &[Arc<Route>]) {
        let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
        for route in routes {
            if !names.insert(route.name.as_str()) {
                self.wrong(0, format!("two routes are named {}", route.name), "give each a name of its own");
            }
            if !places.insert((route.host.as_deref(), route.path.as_str())) {
                let what = format!("route {} matches what another one matches", route.name);
                self.wrong(0, what, "give each a host or path of its own");
            }
        }
    }

    fn caller(&mut self, written: Spanned<CallerFile>) -> Option<KnownCaller> {
        self.line = written.referenced.line();
        let CallerFile { name, matching } = written.value;
        let name = self.required("name", name, "name the caller; grants and audit use it");
        let name = name.and_then(|value| {
            self.read("name", value, "1 to 64 characters of A-Z a-z 0-9 . _ : / -", |text| Caller::new(text).ok())
        });
        let Some(MarkFile { dns, subject, spiffe, jwt, api_key_sha256 }) = matching else {
            self.missing(
                "match",
                "say how the caller is told: match: {dns: NAME}, {spiffe: ID} or {subject: COMMON NAME}",
            );
            return None;
        };
        self.later("match.jwt", &jwt);
        self.later("match.api_key_sha256", &api_key_sha256);
        let marks = [
            self.text(dns).map(|(text, _)| Mark::Dns(text)),
            self.text(spiffe).map(|(text, _)| Mark::Uri(text)),
            self.text(subject).map(|(text, _)| Mark::Subject(text)),
        ];
        let mut marks = marks.into_iter().flatten();
        match (marks.next(), marks.next()) {
            (Some(mark), None) => Some(KnownCaller { name: name?, mark }),
            _ => {
                self.wrong(
                    self.line,
                    "a caller has exactly one mark",
                    "write one of dns, spiffe, subject; list a caller twice for two",
                );
                None
            }
        }
    }

    fn grant(&mut self, written: Spanned<GrantFile>, known: &Known) -> Option<Grant> {
        self.line = written.referenced.line();
        let GrantFile { callers, routes, reidentify, purposes, pseudonymize, expires } = written.value;
        self.later("grants.pseudonymize", &pseudonymize);
        self.later("grants.expires", &expires);
        if callers.is_empty() {
            self.missing("callers", "name the callers that the grant is for");
        }
        if reidentify.is_empty() {
            self.missing("reidentify", "say which classes: reidentify: {\"*\": plain, mrn: token}");
        }
        let mut grant = Grant { callers: vec![], routes: vec![], purposes: vec![], classes: BTreeMap::new() };
        for caller in callers {
            let Some(value) = self.text(Some(caller)) else { continue };
            let found = self.read("callers", value, "name one of `callers`", |text| {
                known.callers.iter().find(|known| known.as_str() == text).cloned()
            });
            grant.callers.extend(found);
        }
        for route in routes {
            let Some(value) = self.text(Some(route)) else { continue };
            let found = self.read("routes", value, "name one of `routes`", |text| known.routes.get(text).cloned());
            grant.routes.extend(found);
        }
        for purpose in purposes {
            let Some(value) = self.text(Some(purpose)) else { continue };
            let advice = "a code of PurposeOfUse, such as TREAT";
            grant.purposes.extend(self.read("purposes", value, advice, |text| Purpose::new(text).ok()));
        }
        for (class, reveal) in reidentify {
            let line = reveal.referenced.line();
            let class = match class.as_str() {
                "*" => Some(None),
                text => Class::new(text).ok().map(Some),
            };
            let Some(value) = self.text(Some(reveal)) else { continue };
            let reveal =
                self.read("reidentify", value, "write plain or token (masked comes later)", |text| match text {
                    "plain" => Some(Reveal::Plain),
                    "token" => Some(Reveal::Token),
                    _ => None,
                });
            match (class, reveal) {
                (Some(class), Some(reveal)) => {
                    grant.classes.insert(class, reveal);
                }
                (None, _) => {
                    self.wrong(line, "this cannot be a class", "write a class of the rules, or \"*\" for all others")
                }
                (_, None) => {}
            }
        }
        Some(grant)
    }

    fn limits(&mut self, written: Option<LimitsFile>) -> Tunable {
        let mut limits = Tunable::default();
        let Some(written) = written else { return limits };
        let LimitsFile { connections, connections_per_address, exchanges, threads, stall, drain_delay, drain_timeout } =
            written;
        for (key, written, place, most) in [
            ("connections", connections, &mut limits.connections, CONNECTIONS_MAX),
            ("connections_per_address", connections_per_address, &mut limits.per_address, CONNECTIONS_MAX),
            ("exchanges", exchanges, &mut limits.exchanges, CONNECTIONS_MAX),
            ("threads", threads, &mut limits.threads, THREADS_MAX),
        ] {
            match written {
                Some(count) if (1..=most).contains(&count.value) => *place = count.value,
                Some(count) => {
                    let advice = format!("a number from 1 to {most}");
                    self.wrong(count.referenced.line(), format!("`limits.{key}` is out of range"), advice);
                }
                None => {}
            }
        }
        limits.stall = self.duration("limits.stall", stall, limits.stall).unwrap_or_default();
        limits.drain_delay = self.duration("limits.drain_delay", drain_delay, limits.drain_delay).unwrap_or_default();
        limits.drain_timeout =
            self.duration("limits.drain_timeout", drain_timeout, limits.drain_timeout).unwrap_or_default();
        limits
    }
}

/// What a grant may name.
struct Known {
    callers: BTreeSet<Caller>,
    routes: BTreeSet<String>,
}
