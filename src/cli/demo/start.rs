//! Where the demo meets the rest of the program: how a keyring is made and how the proxy is started.
//!
//! Both are values, so that a test can put a relay in the proxy's place and see the demo's claims fail.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
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
    Err("this build has no keyring".to_owned())
}

async fn start_proxy(_config: PathBuf) -> Result<RunningProxy, String> {
    Err("this build has no proxy".to_owned())
}
