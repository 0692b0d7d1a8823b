//! `cryptonym run`: reads the configuration, starts the proxy, and turns signals into its phases.
//!
//! Thin glue: what is checked stands in `config`, what happens in `proxy`. Nothing is bound before everything was checked.

use crate::config::{self, Mistake, Sources};
use crate::proxy;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// A first try without a file: one plain listener on loopback, one route, no caller who may reveal.
#[derive(Debug, Clone)]
pub struct Flags {
    /// `--upstream`: base URL of the untrusted side.
    pub upstream: String,
    /// `--upstream-ca`: authority of its certificate, for `https`.
    pub upstream_ca: Option<PathBuf>,
    /// `--rules`: embedded pack or file.
    pub rules: String,
    /// `--keys`: keyring file or `env:NAME`.
    pub keys: String,
    /// `--listen`: a loopback address and port.
    pub listen: String,
    /// `--untrusted`: `upstream`.
    pub untrusted: String,
    /// `--domain`.
    pub domain: String,
    /// `--lossy-update`: `allow` or `refuse`; needed if the rules lose data.
    pub lossy_update: Option<String>,
}

/// `cryptonym run --config FILE`.
pub fn run(config: &Path) -> ExitCode {
    let folder = config.parent().unwrap_or(Path::new(""));
    start(&config.display().to_string(), |sources| config::load(config, sources), folder)
}

/// `cryptonym run --upstream URL --rules PACK ...`: the same configuration, made from flags.
pub fn run_flags(flags: &Flags) -> ExitCode {
    let text = flags.configuration();
    start("flags", |sources| config::parse(&text, sources), Path::new(""))
}

/// Checks a configuration and starts nothing. Mistakes go to stderr.
pub fn check(config: &Path) -> ExitCode {
    let folder = config.parent().unwrap_or(Path::new(""));
    match with_sources(folder, |sources| config::load(config, sources)) {
        Ok(settings) => {
            for route in &settings.routes {
                super::tell(format_args!("{}", described(route)));
            }
            ExitCode::from(super::DONE)
        }
        Err(mistakes) => mistaken(&config.display().to_string(), &mistakes),
    }
}

/// What a route does, for whoever answers for it.
fn described(route: &proxy::settings::Route) -> String {
    let rules = route.engine.rules();
    let crosses = rules.kept();
    let updates = if route.updates { "pass" } else { "are refused" };
    format!(
        "route {}: ok: rules {}, domain {}; ids that do not fit a token are refused; updates {updates}\n  crosses in clear: {}",
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
            "apiVersion: cryptonym/v1\nkind: Proxy\nlisteners: [{{address: {listen}}}]\nkeyring: {keys}\nroutes:\n  \
             - {{name: default, untrusted: {untrusted}, public_base: {base}, rules: {rules}, domain: {domain}, \
             upstream: {{{upstream}}}{lossy}}}\n",
            listen = text(&self.listen),
            keys = text(&self.keys),
            untrusted = text(&self.untrusted),
            base = text(&format!("http://{}", self.listen)),
            rules = text(&self.rules),
            domain = text(&self.domain),
            lossy = lossy.unwrap_or_default(),
        )
    }
}

fn start(
    name: &str,
    load: impl FnOnce(&Sources<'_>) -> Result<proxy::settings::Settings, Vec<Mistake>>,
    folder: &Path,
) -> ExitCode {
    let settings = match with_sources(folder, load) {
        Ok(settings) => settings,
        Err(mistakes) => return mistaken(name, &mistakes),
    };
    log_to_stderr();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(serve(settings)) {
        Ok(true) => ExitCode::from(super::DONE),
        Ok(false) => ExitCode::from(super::REFUSED),
        Err(error) => failed(&error),
    }
}

async fn serve(settings: proxy::settings::Settings) -> io::Result<bool> {
    heed_hangups()?;
    let running = proxy::serve(settings, stop_signals()?).await?;
    let addresses: Vec<String> = running.addresses.iter().map(ToString::to_string).collect();
    tracing::info!(listening = addresses.join(" "), admin = %running.admin, "ready");
    Ok(running.ended().await)
}

/// Says on SIGHUP that nothing is read anew: the signal must not end a proxy that somebody meant to reload.
fn heed_hangups() -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::warn!("SIGHUP: this version reads its configuration at start only; restart it to reload");
        }
    });
    Ok(())
}

/// Resolves at the first SIGTERM or SIGINT. The second ends the process at once: whoever sends it does not want to wait.
fn stop_signals() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let next = async |terminate: &mut tokio::signal::unix::Signal, interrupt: &mut tokio::signal::unix::Signal| {
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
        .with_writer(io::stderr)
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber); // a second start in one process keeps the first
}

pub(crate) fn with_sources<T>(folder: &Path, load: impl FnOnce(&Sources<'_>) -> T) -> T {
    load(&Sources {
        rules: &super::packs::load,
        keyring: &super::keys::load,
        variable: &|name| std::env::var(name).ok(),
        folder: if folder.as_os_str().is_empty() { Path::new(".") } else { folder },
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
            untrusted: "upstream".into(),
            domain: "default".into(),
            lossy_update: Some("allow".into()),
        };
        let asked = std::cell::RefCell::new(String::new());
        let read = |flags: Flags| {
            let sources = Sources {
                rules: &|name| {
                    *asked.borrow_mut() = name.to_owned();
                    Err(vec!["asked".into()])
                },
                keyring: &|_, _| Err(vec!["asked".into()]),
                variable: &|_| None,
                folder: Path::new("."),
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
