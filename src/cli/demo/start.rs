//! Where the demo meets the rest of the program: how a keyring is made and how the proxy is started.
//!
//! Both are values, so that a test can put a relay in the proxy's place and see the demo's claims fail.

use crate::cli::run::with_sources;
use crate::token::Keyring;
use jiff::Timestamp;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;

/// A proxy that serves in this process.
pub struct RunningProxy {
    /// Where callers reach it.
    pub address: SocketAddr,
    /// Where probes reach it.
    pub admin: SocketAddr,
    /// Tells it to stop; returns at once.
    pub stop: Box<dyn FnOnce() + Send>,
}

/// What starting a proxy gives, or the mistakes as lines for people.
pub type Starting = Pin<Box<dyn Future<Output = Result<RunningProxy, String>>>>;

/// What the demo is given.
pub struct Starts {
    /// The text of a new keyring file.
    pub keyring: fn() -> Result<String, String>,
    /// Starts the proxy of a configuration file.
    pub proxy: fn(PathBuf) -> Starting,
}

impl Starts {
    /// The proxy of this program.
    pub fn own() -> Starts {
        Starts { keyring: new_keyring, proxy: |config| Box::pin(start_proxy(config)) }
    }
}

fn new_keyring() -> Result<String, String> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| error.to_string())?;
    Ok(Keyring::generate(secret, &format!("{:.0}", Timestamp::now())).to_yaml().to_string())
}

async fn start_proxy(config: PathBuf) -> Result<RunningProxy, String> {
    let folder = config.parent().unwrap_or(Path::new("."));
    let settings = with_sources(folder, |sources| crate::config::load(&config, sources)).map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })?;
    let running = crate::proxy::serve(settings, std::future::pending()).await.map_err(|error| error.to_string())?;
    let address = *running.addresses.first().ok_or("no listener")?;
    Ok(RunningProxy { address, admin: running.admin, stop: Box::new(move || running.drain()) })
}
