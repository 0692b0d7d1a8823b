//! `cryptonym run`: reads the configuration, starts the proxy, and turns signals into its phases.
//!
//! Thin glue: what is checked stands in `config`, what happens in `proxy`. Nothing is bound before everything was checked,
//! and what is read later is taken as a whole or not at all.

use super::watch::{self, Watch};
use crate::config::{self, Mistake, Sources};
use crate::proxy::settings::{Settings, Untrusted};
use crate::proxy::{self, Reload};
use crate::rewrite::Overflow;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A first try without a file: one plain listener on loopback, one route, no caller who may reveal.
#[derive(Debug, Clone)]
pub struct Flags {
    /// `--upstream`: base URL of where requests go.
    pub upstream: String,
    /// `--upstream-ca`: authority of its certificate, for `https`.
    pub upstream_ca: Option<PathBuf>,
    /// `--rules`: embedded pack or file.
    pub rules: String,
    /// `--keys`: keyring file or `env:NAME`.
    pub keys: String,
    /// `--listen`: a loopback address and port.
    pub listen: String,
    /// `--admin`: address and port of health and metrics.
    pub admin: String,
    /// `--untrusted`: `upstream` or `downstream`.
    pub untrusted: String,
    /// `--domain`.
    pub domain: String,
    /// `--lossy-update`: `allow` or `refuse`; needed if the rules lose data.
    pub lossy_update: Option<String>,
}

/// Where the configuration comes from, each time it is read.
#[derive(Clone)]
enum Origin {
    File(PathBuf),
    Flags(String),
}

impl Origin {
    /// Reads and checks it, and takes down of which files it consists.
    fn load(&self, files: &RefCell<BTreeSet<PathBuf>>) -> Result<Settings, Vec<Mistake>> {
        match self {
            Origin::File(path) => {
                let folder = path.parent().unwrap_or(Path::new(""));
                with_files(folder, files, |sources| config::load(path, sources))
            }
            Origin::Flags(text) => with_files(Path::new(""), files, |sources| config::parse(text, sources)),
        }
    }

    fn name(&self) -> String {
        match self {
            Origin::File(path) => path.display().to_string(),
            Origin::Flags(_) => "flags".into(),
        }
    }
}

/// `cryptonym run --config FILE`.
pub fn run(config: &Path) -> ExitCode {
    start(Origin::File(config.to_owned()))
}

/// `cryptonym run --upstream URL --rules PACK ...`: the same configuration, made from flags.
pub fn run_flags(flags: &Flags) -> ExitCode {
    start(Origin::Flags(flags.configuration()))
}

/// Checks a configuration and starts nothing. Mistakes go to stderr.
pub fn check(config: &Path) -> ExitCode {
    let origin = Origin::File(config.to_owned());
    match origin.load(&RefCell::default()) {
        Ok(settings) => {
            for route in &settings.routes {
                super::tell(format_args!("{}", described(route)));
            }
            ExitCode::from(super::DONE)
        }
        Err(mistakes) => mistaken(&origin.name(), &mistakes),
    }
}

/// What a route does, for whoever answers for it.
fn described(route: &proxy::settings::Route) -> String {
    let rules = route.engine.rules();
    let crosses = rules.kept();
    let overflow = match route.engine.overflow() {
        Overflow::Refuse => "are refused",
        Overflow::Hash => "become hashes, one way: their callers see escapes of those",
    };
    let updates = if route.updates { "pass" } else { "are refused" };
    let border = match route.untrusted {
        Untrusted::Upstream => "requests are pseudonymized, answers shown to callers as grants say",
        Untrusted::Downstream => "answers are pseudonymized, tokens in requests resolved for callers as grants say",
    };
    format!(
        "route {}: ok: {border}; rules {}, domain {}; ids that do not fit a token {overflow}; updates {updates}\n  crosses in clear: {}",
        route.name,
        rules.name,
        route.engine.domain(),
        crosses.join(", ")
    )
}

impl Flags {
    /// The file that these flags stand for. JSON strings are YAML strings, so no value can break out of its place;
    /// `${VAR}` is replaced in them as it is in a file.
    fn configuration(&self) -> String {
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let mut upstream = format!("url: {}", text(&self.upstream));
        if let Some(ca) = &self.upstream_ca {
            upstream.push_str(&format!(", tls: {{ca: {}}}", text(&ca.to_string_lossy())));
        }
        let lossy = self.lossy_update.as_ref().map(|choice| format!(", lossy_update: {}", text(choice)));
        format!(
            "apiVersion: cryptonym/v1\nkind: Proxy\nlisteners: [{{address: {listen}}}]\nadmin: {{address: {admin}}}\nkeyring: {keys}\nroutes:\n  \
             - {{name: default, untrusted: {untrusted}, public_base: {base}, rules: {rules}, domain: {domain}, \
             upstream: {{{upstream}}}{lossy}}}\n",
            listen = text(&self.listen),
            admin = text(&self.admin),
            keys = text(&self.keys),
            untrusted = text(&self.untrusted),
            base = text(&format!("http://{}", self.listen)),
            rules = text(&self.rules),
            domain = text(&self.domain),
            lossy = lossy.unwrap_or_default(),
        )
    }
}

fn start(origin: Origin) -> ExitCode {
    let files = RefCell::default();
    let settings = match origin.load(&files) {
        Ok(settings) => settings,
        Err(mistakes) => return mistaken(&origin.name(), &mistakes),
    };
    log_to_stderr();
    keep_memory_in();
    // Exchanges have threads of their own; here live signals, accepting, admin and reload.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let watch = Watch::new(files.into_inner());
    let served = runtime.block_on(serve(origin, settings, watch));
    runtime.shutdown_background(); // a file system that does not answer must not hold the end up
    match served {
        Ok(true) => ExitCode::from(super::DONE),
        Ok(false) => ExitCode::from(super::REFUSED),
        Err(error) => failed(&error),
    }
}

async fn serve(origin: Origin, settings: Settings, watch: Watch) -> io::Result<bool> {
    let hangup = signal(SignalKind::hangup())?; // before the ports: the signal must not end a proxy that is about to serve
    let running = proxy::serve(settings, stop_signals()?).await?;
    let addresses: Vec<String> = running.addresses.iter().map(ToString::to_string).collect();
    tracing::info!(listening = addresses.join(" "), admin = %running.admin, "ready");
    tokio::spawn(reload(origin, running.reload(), watch, hangup));
    Ok(running.ended().await)
}

/// Reads everything anew on SIGHUP, and when a file of the configuration has changed. What is not wholly good is not taken.
async fn reload(origin: Origin, reload: Reload, mut watch: Watch, mut hangup: Signal) {
    let mut tick = tokio::time::interval(watch::INTERVAL);
    loop {
        let asked = tokio::select! {
            asked = hangup.recv() => asked.is_some(),
            _ = tick.tick() => false,
        };
        let (origin, reload) = (origin.clone(), reload.clone());
        let looked = tokio::task::spawn_blocking(move || {
            if watch.changed() || asked {
                read_anew(&origin, &reload, &mut watch);
            }
            watch
        });
        // A panic while reading must not end the watch in silence: the proxy goes on, and says that it no longer looks.
        match looked.await {
            Ok(back) => watch = back,
            Err(_) => return tracing::error!("the configuration is no longer watched: restart the proxy to reload"),
        }
    }
}

fn read_anew(origin: &Origin, reload: &Reload, watch: &mut Watch) {
    let files = RefCell::default();
    let loaded = origin.load(&files);
    watch.read(files.into_inner());
    match loaded {
        Ok(settings) => match reload.take(settings) {
            Ok(()) => tracing::info!("reloaded"),
            Err(kept) => tracing::error!(reason = %kept, "not reloaded; the former configuration goes on"),
        },
        Err(mistakes) => {
            reload.keep();
            for mistake in &mistakes {
                tracing::error!(%mistake, "not reloaded");
            }
            tracing::error!(mistakes = mistakes.len(), "not reloaded; the former configuration goes on");
        }
    }
}

/// Keys and identity are in this process's memory: no core dump holds them, no debugger of the same user reads them, and
/// where the limit on locked memory allows all of it, they are never written to swap.
fn keep_memory_in() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let dumps = setrlimit(Resource::Core, none).is_ok();
    let undumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable).is_ok();
    // Under a limit, memory that is asked for later could be denied, and the process would end in the middle of its work.
    let unlimited = getrlimit(Resource::Memlock).current.is_none();
    let locked = unlimited && mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).is_ok();
    tracing::info!(core_dumps_off = dumps && undumpable, memory_locked = locked, "memory");
}

/// Resolves at the first SIGTERM or SIGINT. The second ends the process at once: whoever sends it does not want to wait.
fn stop_signals() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let next = async |terminate: &mut Signal, interrupt: &mut Signal| {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        next(&mut terminate, &mut interrupt).await;
        tokio::spawn(async move {
            next(&mut terminate, &mut interrupt).await;
            std::process::exit(1);
        });
    })
}

/// JSON lines of our own events only. What dependencies log may quote a header, so none of it is let in.
fn log_to_stderr() {
    let level = match std::env::var("CRYPTONYM_LOG").as_deref() {
        Ok("error") => "cryptonym=error",
        Ok("warn") => "cryptonym=warn",
        Ok("debug") => "cryptonym=debug",
        _ => "cryptonym=info",
    };
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_writer(proxy::access::Stderr::default)
        .log_internal_errors(false) // it would say so on standard error, and panic where that is closed
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber); // a second start in one process keeps the first
}

pub(crate) fn with_sources<T>(folder: &Path, load: impl FnOnce(&Sources<'_>) -> T) -> T {
    with_files(folder, &RefCell::default(), load)
}

fn with_files<T>(folder: &Path, files: &RefCell<BTreeSet<PathBuf>>, load: impl FnOnce(&Sources<'_>) -> T) -> T {
    load(&Sources {
        rules: &super::packs::load,
        keyring: &super::keys::load,
        variable: &|name| std::env::var(name).ok(),
        folder: if folder.as_os_str().is_empty() { Path::new(".") } else { folder },
        files,
    })
}

fn mistaken(name: &str, mistakes: &[Mistake]) -> ExitCode {
    for mistake in mistakes {
        super::complain(format_args!("{name}: {mistake}"));
    }
    super::complain(format_args!("{} mistakes; nothing was started", mistakes.len()));
    ExitCode::from(super::CONFIG)
}

fn failed(error: &io::Error) -> ExitCode {
    super::complain(format_args!("the proxy cannot start: {error}; help: check addresses and the audit file"));
    ExitCode::from(super::REFUSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_stand_for_a_file_and_cannot_break_out_of_it() {
        let flags = |rules: &str| Flags {
            upstream: "http://127.0.0.1:8080/fhir".into(),
            upstream_ca: None,
            rules: rules.into(),
            keys: "env:KEYS".into(),
            listen: "127.0.0.1:0".into(),
            admin: "127.0.0.1:0".into(),
            untrusted: "upstream".into(),
            domain: "default".into(),
            lossy_update: Some("allow".into()),
        };
        let asked = RefCell::new(String::new());
        let read = |flags: Flags| {
            let sources = Sources {
                rules: &|name| {
                    *asked.borrow_mut() = name.to_owned();
                    Err(vec!["asked".into()])
                },
                keyring: &|_, _| Err(vec!["asked".into()]),
                variable: &|_| None,
                folder: Path::new("."),
                files: &Default::default(),
            };
            config::parse(&flags.configuration(), &sources).err().unwrap_or_default()
        };
        for rules in ["fhir-r4-pseudonymized", "a\", untrusted: nobody, rules: \"b", "a\nadmin: {}"] {
            let mistakes = read(flags(rules));
            assert!(mistakes.iter().all(|mistake| mistake.what.ends_with("asked")), "{mistakes:?}");
            assert_eq!(*asked.borrow(), rules);
        }
    }
}
