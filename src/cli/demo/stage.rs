//! What the demo needs before its first sentence: a folder, certificates, keys, a configuration, the cloud, the proxy.
//!
//! Everything is made anew at each run, lives in one folder that only its owner may enter, and is gone when the [`Stage`] is
//! dropped, whatever the reason. The configuration is a real file: `--keep` shows it to people as an example.

use super::client::{Client, ClientError, server_tls};
use super::cloud::{Cloud, Record};
use super::start::{RunningProxy, Starts};
use crate::cli::certs::{Authority, CertsError, THIS_MACHINE, write_new};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

/// Why the demo could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Certificates.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// TLS clients.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The temporary folder, a free port, randomness.
    #[error("the demo needs a temporary folder and free ports of 127.0.0.1: {0}")]
    Io(#[from] io::Error),
    /// The proxy did not start.
    #[error("the proxy did not start: {0}")]
    Proxy(String),
}

/// Everything that runs.
pub struct Stage {
    /// May know who the patients are.
    pub ward: Client,
    /// May not.
    pub vendor: Client,
    /// The untrusted side.
    pub cloud: Cloud,
    /// The base URL by which callers reach the proxy.
    pub base: String,
    /// Where the files are.
    pub folder: PathBuf,
    proxy: Option<RunningProxy>,
    // Last: the files go when nothing uses them any more.
    _folder: Folder,
}

impl Stage {
    /// Sets everything up on free ports of 127.0.0.1.
    pub async fn set(starts: &Starts) -> Result<Stage, StageError> {
        let folder = Folder::new()?;
        let path = folder.0.clone();

        let authority = Authority::new("cryptonym demo authority")?;
        let (proxy, server) = (authority.server(&THIS_MACHINE)?, authority.server(&THIS_MACHINE)?);
        let ward = authority.client("ward", "ward.hospital.example")?;
        let vendor = authority.client("vendor", "vendor.example")?;
        let trusted = authority.certificate();
        let cloud = Cloud::start(server_tls(&server)?, Record::Memory).await?;

        let [listener, admin] = free_ports()?;
        let keyring = (starts.keyring)().map_err(StageError::Proxy)?;
        write_new(
            &path,
            &[
                ("ca.pem", trusted.as_str()),
                ("proxy.pem", &proxy.certificate),
                ("proxy-key.pem", &proxy.key),
                ("ward.pem", &ward.certificate),
                ("ward-key.pem", &ward.key),
                ("vendor.pem", &vendor.certificate),
                ("vendor-key.pem", &vendor.key),
                ("keyring.yaml", &keyring),
                ("proxy.yaml", &configuration(listener, admin, &cloud.base)),
            ],
        )?;
        let running = (starts.proxy)(path.join("proxy.yaml")).await.map_err(StageError::Proxy)?;
        Ok(Stage {
            ward: Client::new(&trusted, Some(&ward))?,
            vendor: Client::new(&trusted, Some(&vendor))?,
            cloud,
            base: format!("https://{}", running.address),
            folder: path,
            proxy: Some(running),
            _folder: folder,
        })
    }

    /// The proxy's admin address.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.proxy.as_ref().map(|proxy| proxy.admin)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            (proxy.stop)();
        }
    }
}

/// The configuration (contract §4), with a word on each line that a reader may wonder about.
fn configuration(listener: SocketAddr, admin: SocketAddr, cloud: &str) -> String {
    format!(
        r#"# The proxy of `cryptonym demo`: between a hospital and a cloud that may not know who the patients are.
apiVersion: cryptonym/v1
kind: Proxy
listeners:
  - address: {listener}
    tls: {{ cert: proxy.pem, key: proxy-key.pem, client_ca: ca.pem, client_auth: required }}
admin: {{ address: {admin} }}            # /readyz, /metrics
keyring: keyring.yaml                       # the secret that all pseudonyms are made with
audit: {{ file: audit.jsonl }}                # written before anything is revealed
routes:
  - name: cloud
    untrusted: upstream                     # the cloud may not know; requests are pseudonymized
    upstream: {{ url: "{cloud}", tls: {{ ca: ca.pem }} }}
    public_base: "https://{listener}"
    rules: fhir-r4-reversible               # loses nothing: whoever may know gets everything back
    domain: demo
callers:                                    # told by their client certificates
  - {{ name: ward, match: {{ dns: ward.hospital.example }} }}
  - {{ name: vendor, match: {{ dns: vendor.example }} }}
grants:                                     # the vendor has none: it sees pseudonyms
  - {{ callers: [ward], routes: [cloud], reidentify: {{ "*": plain }} }}
"#
    )
}

/// Two ports that were free a moment ago. The configuration must name the proxy's address before the proxy runs.
fn free_ports() -> io::Result<[SocketAddr; 2]> {
    let sockets = [TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?];
    Ok([sockets[0].local_addr()?, sockets[1].local_addr()?])
}

/// A folder that is removed with all that is in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Folder> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let path = std::env::temp_dir().join(format!("cryptonym-demo-{name}"));
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed stays in the system's temporary folder; nobody is left to be told.
        let _ = fs::remove_dir_all(Path::new(&self.0));
    }
}
