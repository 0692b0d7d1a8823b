//! The proxy's configuration: from as written (contract §4) to as meant ([`Settings`]), once, before any port is bound.
//!
//! As written is serde and nothing else; every field is optional there, so that what is missing is reported together with
//! what is wrong. As meant has no choice left open. All mistakes are reported at once, each with its line; a file with one
//! mistake yields nothing. What the contract names and this version cannot do is a mistake too, never ignored.
//!
//! A configuration holds no identity, so its words may be quoted in a mistake, but values of `${VAR}` may be secret: they
//! never are.

use crate::names::{Caller, Class, Domain, EpochId, Purpose};
use crate::policy::{Grant, Policy, Reveal};
use crate::proxy::limits::{self, CONFIG_BYTES_MAX, CONNECTIONS_MAX, TIMEOUT_MAX, Tunable};
use crate::proxy::settings::{Credentials, KnownCaller, Listener, ListenerTls, Mark, Route, Settings, Upstream};
use crate::proxy::tls;
use crate::rewrite::{self, Engine, Options, Overflow};
use crate::rules::Compiled;
use crate::token::Keyring;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

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
}

// -- as written

type Text = Option<Spanned<String>>;
type Later = Option<Spanned<IgnoredAny>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
struct File {
    #[serde(rename = "apiVersion")]
    api_version: Text,
    kind: Text,
    #[serde(default)]
    listeners: Vec<Spanned<ListenerFile>>,
    admin: Option<AdminFile>,
    keyring: Text,
    #[serde(default)]
    allow_readable_keys: bool,
    audit: Option<AuditFile>,
    #[serde(default)]
    routes: Vec<Spanned<RouteFile>>,
    #[serde(default)]
    callers: Vec<Spanned<CallerFile>>,
    #[serde(default)]
    grants: Vec<Spanned<GrantFile>>,
    limits: Option<LimitsFile>,
    budgets: Later,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenerFile {
    address: Text,
    tls: Option<ListenerTlsFile>,
    proxy_protocol: Later,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenerTlsFile {
    cert: Text,
    key: Text,
    client_ca: Text,
    client_auth: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdminFile {
    address: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditFile {
    file: Text,
    fsync: Option<Spanned<bool>>,
    checkpoint_key: Later,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteFile {
    name: Text,
    #[serde(rename = "match")]
    matching: Option<MatchFile>,
    untrusted: Text,
    upstream: Option<Spanned<UpstreamFile>>,
    public_base: Text,
    rules: Text,
    domain: Text,
    id_epoch: Option<Spanned<u8>>,
    overflow: Text,
    lossy_update: Text,
    credentials: Option<Spanned<CredentialsFile>>,
    reveal_found: Later,
    allow: Later,
    encodings: Later,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MatchFile {
    host: Text,
    path: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpstreamFile {
    url: Text,
    tls: Option<UpstreamTlsFile>,
    timeouts: Option<TimeoutsFile>,
    urls: Later,
    health: Later,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpstreamTlsFile {
    ca: Text,
    cert: Text,
    key: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeoutsFile {
    connect: Text,
    first_byte: Text,
    whole: Text,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum CredentialsFile {
    Drop,
    Forward,
    Replace(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallerFile {
    name: Text,
    #[serde(rename = "match")]
    matching: Option<MarkFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkFile {
    dns: Text,
    subject: Text,
    spiffe: Text,
    jwt: Later,
    api_key_sha256: Later,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantFile {
    #[serde(default)]
    callers: Vec<Spanned<String>>,
    #[serde(default)]
    routes: Vec<Spanned<String>>,
    #[serde(default)]
    reidentify: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    purposes: Vec<Spanned<String>>,
    pseudonymize: Later,
    expires: Later,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsFile {
    connections: Option<Spanned<usize>>,
    exchanges: Option<Spanned<usize>>,
    drain_delay: Text,
    drain_timeout: Text,
}

// -- as meant

/// Reads and checks the configuration of a file.
pub fn load(path: &Path, sources: &Sources<'_>) -> Result<Settings, Vec<Mistake>> {
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

    /// A file's bytes through a function; both can be mistaken.
    fn file<T>(
        &mut self,
        key: &str,
        value: (String, u64),
        read: impl Fn(&[u8]) -> Result<T, tls::TlsError>,
    ) -> Option<T> {
        let path = self.path(&value.0);
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
        let ListenerFile { address, tls, proxy_protocol } = written.value;
        self.later("proxy_protocol", &proxy_protocol);
        let tls_wanted = tls.is_some();
        let tls = tls.map(|tls| self.listener_tls(tls));
        let value = self.required("address", address, "write address: 127.0.0.1:8443")?;
        let line = value.1;
        let address = self.read("address", value, "write an IP address and a port: 127.0.0.1:8443", |t| {
            t.parse::<SocketAddr>().ok()
        })?;
        if !tls_wanted && !address.ip().is_loopback() {
            self.wrong(
                line,
                "a listener that others can reach has no TLS",
                "add `tls: {cert, key}`, or listen on 127.0.0.1",
            );
        }
        Some(Listener { address, tls: tls.flatten() })
    }

    fn listener_tls(&mut self, written: ListenerTlsFile) -> Option<ListenerTls> {
        let ListenerTlsFile { cert, key, client_ca, client_auth } = written;
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
        let chain = self.required("cert", cert, "name the listener's certificate chain");
        let chain = chain.and_then(|value| self.file("cert", value, tls::certificates));
        let key = self.required("key", key, "name the certificate's private key");
        let key = key.and_then(|value| self.file("key", value, tls::private_key));
        let (chain, key) = (chain?, key?);
        let made = tls::expires(&chain[0]).and_then(|expires| {
            let config = tls::server(chain, key, roots.zip(auth))?;
            Ok(ListenerTls { config, expires })
        });
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
            None => self.path(&source).to_string_lossy().into_owned(),
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
        for (key, value) in
            [("reveal_found", &route.reveal_found), ("allow", &route.allow), ("encodings", &route.encodings)]
        {
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
        match self.required("untrusted", route.untrusted, "say which side may not know who the patient is: upstream") {
            Some((side, line)) if side == "downstream" => {
                self.wrong(line, "`untrusted: downstream` is not supported yet", "use untrusted: upstream");
            }
            Some(value) => {
                let _ = self.read("untrusted", value, "write upstream", |text| (text == "upstream").then_some(()));
            }
            None => {}
        }
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
            Some(value) => self.read("overflow", value, "write refuse (hash comes later)", |text| match text {
                "refuse" => Some(Overflow::Refuse),
                _ => None,
            }),
            None => Some(Overflow::Refuse),
        };
        let credentials = self.credentials(route.credentials);
        let rules = self.required("rules", route.rules, "name an embedded pack, or a rule file");
        let rules = rules.and_then(|(source, line)| {
            let source = match Path::new(&source).extension() {
                Some(_) => self.path(&source).to_string_lossy().into_owned(),
                None => source,
            };
            (self.sources.rules)(&source).map_err(|mistakes| self.all("rules", line, mistakes)).ok()
        });
        let updates = self.updates(route.lossy_update, rules.as_ref());

        let (name, path, public_base, upstream) = (name?, path?, public_base?, upstream?);
        let (domain, id_epoch, overflow, credentials) = (domain?, id_epoch?, overflow?, credentials?);
        let (rules, keyring, updates) = (rules?, keyring?, updates?);
        let base =
            rewrite::Base { trusted: public_base.clone(), untrusted: format!("{}{}", upstream.origin, upstream.path) };
        let options = Options { id_epoch, overflow, bases: vec![base], refuse_updates: !updates };
        let engine = Engine::new(rules, keyring, &domain, options);
        let engine = engine.map_err(|mistake| self.wrong(line, mistake, "see the keyring and `id_epoch`")).ok()?;
        Some(Route {
            name: name.as_str().to_owned(),
            host: host.map(|(host, _)| host.to_ascii_lowercase()),
            path,
            public_base,
            engine: Arc::new(engine),
            upstream,
            credentials,
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

    fn upstream(&mut self, written: Spanned<UpstreamFile>) -> Option<Upstream> {
        self.line = written.referenced.line();
        let UpstreamFile { url, tls, timeouts, urls, health } = written.value;
        self.later("upstream.urls", &urls);
        self.later("upstream.health", &health);
        let url = self.required("url", url, "write https://HOST[:PORT]/PATH");
        let line = url.as_ref().map_or(self.line, |url| url.1);
        let base =
            url.and_then(|url| self.read("url", url, "write https://HOST[:PORT]/PATH, without query", Base::parse));
        let tls = tls.map(|tls| self.upstream_tls(tls));
        let TimeoutsFile { connect, first_byte, whole } =
            timeouts.unwrap_or(TimeoutsFile { connect: None, first_byte: None, whole: None });
        let connect = self.duration("timeouts.connect", connect, limits::CONNECT_TIMEOUT);
        let first_byte = self.duration("timeouts.first_byte", first_byte, limits::FIRST_BYTE_TIMEOUT);
        let whole = self.duration("timeouts.whole", whole, limits::WHOLE_TIMEOUT);
        let base = base?;
        let tls = match (base.secure, tls) {
            (true, Some(tls)) => Some(tls?),
            (true, None) => {
                self.line = line;
                self.missing(
                    "upstream.tls.ca",
                    "name the authority of the upstream's certificate; no other is trusted",
                );
                return None;
            }
            (false, _) if !base.is_loopback() => {
                let what = "the upstream is reached without TLS";
                self.wrong(line, what, "write https://; plain http is for 127.0.0.1 only");
                return None;
            }
            (false, Some(_)) => {
                self.wrong(line, "an upstream with `tls` is written as http://", "write https://");
                return None;
            }
            (false, None) => None,
        };
        Some(Upstream {
            origin: base.origin,
            path: base.path,
            tls,
            connect: connect?,
            first_byte: first_byte?,
            whole: whole?,
        })
    }

    fn upstream_tls(&mut self, written: UpstreamTlsFile) -> Option<Arc<rustls::ClientConfig>> {
        let UpstreamTlsFile { ca, cert, key } = written;
        let line = self.line;
        let has_own = cert.is_some() || key.is_some();
        let roots = self.required("ca", ca, "name the authority of the upstream's certificate");
        let roots = roots.and_then(|value| self.file("ca", value, tls::authorities));
        let own = if has_own {
            let chain = self.required("cert", cert, "a key needs its certificate");
            let chain = chain.and_then(|value| self.file("cert", value, tls::certificates));
            let key = self.required("key", key, "a certificate needs its key");
            let key = key.and_then(|value| self.file("key", value, tls::private_key));
            Some((chain?, key?))
        } else {
            None
        };
        let made = tls::client(roots?, own);
        made.map_err(|error| {
            self.wrong(line, format!("`upstream.tls`: the file {error}"), "give matching `cert` and `key`")
        })
        .ok()
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
        let Some(LimitsFile { connections, exchanges, drain_delay, drain_timeout }) = written else { return limits };
        for (key, written, place) in
            [("connections", connections, &mut limits.connections), ("exchanges", exchanges, &mut limits.exchanges)]
        {
            match written {
                Some(count) if (1..=CONNECTIONS_MAX).contains(&count.value) => *place = count.value,
                Some(count) => {
                    let advice = format!("a number from 1 to {CONNECTIONS_MAX}");
                    self.wrong(count.referenced.line(), format!("`limits.{key}` is out of range"), advice);
                }
                None => {}
            }
        }
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

/// Replaces `${VAR}` and `${VAR:-default}`. The text of a mistake names the variable, never its value.
fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        expanded.push_str(&rest[..start]);
        let Some(length) = rest[start..].find('}') else { return Err("`${` without its `}`".into()) };
        let inside = &rest[start + 2..start + length];
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err("`${...}` holds no name of a variable".into());
        }
        let value = variable(name).filter(|value| !value.is_empty()).or(default.map(str::to_owned));
        expanded.push_str(&value.ok_or_else(|| format!("the variable {name} is not set"))?);
        rest = &rest[start + length + 1..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// `/fhir`, or nothing for `/`: unreserved characters only, so that it has one spelling.
fn path_prefix(text: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'.' | b'_' | b'~');
    let trimmed = text.strip_suffix('/').unwrap_or(text);
    let segments_whole = trimmed.split('/').skip(1).all(|segment| !matches!(segment, "" | "." | ".."));
    let fits = (trimmed.is_empty() || trimmed.starts_with('/')) && trimmed.bytes().all(plain) && segments_whole;
    fits.then(|| trimmed.to_owned())
}

/// An absolute base URL, in parts.
struct Base {
    secure: bool,
    host: String,
    origin: String,
    path: String,
}

impl Base {
    fn parse(text: &str) -> Option<Base> {
        let uri: http::Uri = text.parse().ok()?;
        let secure = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || uri.query().is_some() || text.contains('#') {
            return None;
        }
        let origin = format!("{}://{}", uri.scheme_str()?, authority.as_str().to_ascii_lowercase());
        Some(Base { secure, host: authority.host().to_ascii_lowercase(), origin, path: path_prefix(uri.path())? })
    }

    fn whole(&self) -> String {
        format!("{}{}", self.origin, self.path)
    }

    fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

/// `500ms`, `5s`, `2m` or `1h`; more than nothing, at most a day.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u32 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return None,
    };
    unit.checked_mul(number).filter(|time| !time.is_zero() && *time <= TIMEOUT_MAX)
}
