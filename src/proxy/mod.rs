//! The network shell: everything between a socket and the rewriter.
//!
//! [`serve`] runs a proxy inside this process until it is told to stop; the command, the demo and the tests enter by it.
//! `exchange` is the page to read first. The core is called through `body` (bodies) and `hygiene` (headers); it knows
//! nothing of sockets, and nothing here knows what is inside a resource.

pub mod access;
pub mod admin;
pub mod audit;
pub mod body;
pub mod entry;
pub mod exchange;
pub mod hygiene;
pub mod limits;
pub mod location;
pub mod media;
pub mod metrics;
pub mod proxy_protocol;
pub mod respond;
pub mod server;
pub mod settings;
pub mod socket;
pub mod tls;
pub mod upstream;
pub mod workers;

use access::AccessLog;
use arc_swap::ArcSwap;
use audit::Audit;
use metrics::Metrics;
use server::{Phase, Places};
use settings::Settings;
use socket::Socket;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use upstream::Upstream;
use workers::Workers;

/// What all exchanges of a proxy share.
pub struct Shared {
    /// What exchanges that begin now go by. One that is open keeps what it began with.
    serving: ArcSwap<Serving>,
    /// Rises when other authorities vouch for clients: connections that were made before are wound up.
    trust: watch::Sender<u64>,
    metrics: Arc<Metrics>,
    access: AccessLog,
    /// One permit per exchange in flight.
    slots: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
    workers: Workers,
}

/// One set of settings, with what was opened for it. Nothing in it changes.
pub struct Serving {
    settings: Settings,
    /// One per route, in the order of the routes.
    upstreams: Vec<Upstream>,
    audit: Option<Audit>,
}

impl Serving {
    /// Opens what the settings ask for; the audit file stays open if it is the same as before.
    fn new(settings: Settings, metrics: &Arc<Metrics>, former: Option<&Serving>) -> io::Result<Serving> {
        let same = former.filter(|former| former.settings.audit == settings.audit);
        let audit = match (same, &settings.audit) {
            (Some(former), _) => former.audit.clone(),
            (None, Some(path)) => Some(Audit::open(path, metrics.clone())?),
            (None, None) => None,
        };
        let threads = settings.limits.threads;
        let upstream = |route: &Arc<settings::Route>| Upstream::new(&route.upstream, &route.name, threads, metrics);
        let upstreams = settings.routes.iter().map(upstream).collect();
        Ok(Serving { settings, upstreams, audit })
    }
}

/// A proxy that runs. Dropping this does not stop it.
pub struct Running {
    /// Where each TCP listener is bound, in the order of the settings.
    pub addresses: Vec<SocketAddr>,
    /// Where the admin listener is bound.
    pub admin: SocketAddr,
    shared: Arc<Shared>,
    stop: Arc<Notify>,
    supervisor: JoinHandle<bool>,
}

/// Why new settings were not taken. The former ones go on.
#[derive(Debug, thiserror::Error)]
pub enum Kept {
    /// They change what is bound or counted at start. Names of keys.
    #[error("{} cannot change while the proxy runs: restart it", .0.join(", "))]
    NeedsRestart(Vec<&'static str>),
    /// Their audit file cannot be opened.
    #[error("the audit file cannot be opened: {0}")]
    Audit(io::Error),
}

/// The way to give a running proxy other settings.
#[derive(Clone)]
pub struct Reload(Arc<Shared>);

impl Reload {
    /// Takes new settings as a whole, or none of them.
    pub fn take(&self, mut settings: Settings) -> Result<(), Kept> {
        let taken = self.try_take(&mut settings).and_then(|trust_changed| {
            let shared = &self.0;
            let former = shared.serving.load_full();
            let serving = Serving::new(settings, &shared.metrics, Some(&former)).map_err(Kept::Audit)?;
            shared.metrics.know(&serving.settings);
            shared.serving.store(Arc::new(serving));
            if trust_changed {
                shared.trust.send_modify(|count| *count += 1);
            }
            Ok(())
        });
        self.0.metrics.reloaded(taken.is_ok());
        taken
    }

    /// What was read could not be settings: the former ones go on, and the metrics say so.
    pub fn keep(&self) {
        self.0.metrics.reloaded(false);
    }

    /// Whether these settings can follow the present ones, and whether clients are vouched for by others. Tickets of TLS
    /// sessions outlive the change of a certificate, not that of an authority: a resumed session is not verified anew.
    fn try_take(&self, settings: &mut Settings) -> Result<bool, Kept> {
        let former = self.0.serving.load();
        let fixed = settings.fixed_otherwise(&former.settings);
        if !fixed.is_empty() {
            return Err(Kept::NeedsRestart(fixed));
        }
        let mut trust_changed = false;
        for (new, old) in settings.listeners.iter_mut().zip(&former.settings.listeners) {
            if let (Some(new), Some(old)) = (&mut new.tls, &old.tls) {
                trust_changed |= !new.resume(old);
            }
        }
        Ok(trust_changed)
    }
}

impl Running {
    /// Begins to drain: readiness off, no new connection, open exchanges may end. Returns at once.
    pub fn drain(&self) {
        self.stop.notify_one();
    }

    /// The way to change its settings.
    pub fn reload(&self) -> Reload {
        Reload(self.shared.clone())
    }

    /// Waits until the proxy has ended. `false`: some exchanges did not end in time and were aborted.
    pub async fn ended(self) -> bool {
        self.supervisor.await.unwrap_or(false)
    }
}

/// Binds every socket, opens the audit file, and serves until `shutdown` resolves or [`Running::drain`] is called. An
/// error means that nothing is served.
pub async fn serve(settings: Settings, shutdown: impl Future<Output = ()> + Send + 'static) -> io::Result<Running> {
    let mut sockets = Vec::new();
    for listener in &settings.listeners {
        sockets.push(Socket::bind(&listener.address).await?);
    }
    let admin = TcpListener::bind(settings.admin).await?;
    let addresses =
        sockets.iter().map(Socket::address).collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect();
    let admin_address = admin.local_addr()?;

    let metrics = Arc::new(Metrics::default());
    metrics.know(&settings);
    let limits = settings.limits;
    let (phase, phase_seen) = watch::channel(Phase::Serving);
    let shared = Arc::new(Shared {
        serving: ArcSwap::from_pointee(Serving::new(settings, &metrics, None)?),
        trust: watch::Sender::new(0),
        slots: Arc::new(Semaphore::new(limits.exchanges)),
        workers: Workers::start(limits.threads, &phase_seen)?,
        phase: phase_seen,
        access: AccessLog::start(metrics.access_log_dropped.clone())?,
        metrics,
    });
    shared.metrics.reloaded(true);

    let mut places = Vec::new();
    for (index, socket) in sockets.into_iter().enumerate() {
        let own = Places::new(limits.connections);
        tokio::spawn(server::listen(socket, index, shared.clone(), own.clone()));
        places.push(own);
    }
    tokio::spawn(admin::listen(admin, shared.clone()));
    let stop = Arc::new(Notify::new());
    let supervisor = tokio::spawn(supervise(phase, shared.clone(), places, stop.clone(), shutdown));
    Ok(Running { addresses, admin: admin_address, shared, stop, supervisor })
}

/// Waits for the word to stop, then goes through the phases.
async fn supervise(
    phase: watch::Sender<Phase>,
    shared: Arc<Shared>,
    places: Vec<Arc<Places>>,
    stop: Arc<Notify>,
    shutdown: impl Future<Output = ()>,
) -> bool {
    tokio::select! {
        () = shutdown => {}
        () = stop.notified() => {}
    }
    let limits = shared.serving.load().settings.limits;
    phase.send_replace(Phase::Leaving);
    tracing::info!("draining");
    tokio::time::sleep(limits.drain_delay).await;
    phase.send_replace(Phase::Draining);
    let all = async {
        for own in &places {
            own.free(limits.connections).await;
        }
    };
    let in_time = tokio::time::timeout(limits.drain_timeout, all).await.is_ok();
    phase.send_replace(Phase::Ended);
    // What was aborted has its line in the log before that is closed.
    let _ = tokio::time::timeout(limits::WORKERS_END_TIMEOUT, shared.workers.ended()).await;
    tracing::info!(in_time, "ended");
    shared.access.flush(limits::ACCESS_FLUSH_TIMEOUT).await;
    in_time
}
