//! The network shell: everything between a socket and the rewriter.
//!
//! [`serve`] runs a proxy inside this process until it is told to stop; the command, the demo and the tests enter by it.
//! `exchange` is the page to read first. The core is called through `body` (bodies) and `hygiene` (headers); it knows
//! nothing of sockets, and nothing here knows what is inside a resource.

pub mod admin;
pub mod audit;
pub mod body;
pub mod entry;
pub mod exchange;
pub mod hygiene;
pub mod limits;
pub mod media;
pub mod metrics;
pub mod respond;
pub mod server;
pub mod settings;
pub mod tls;
pub mod upstream;

use audit::Audit;
use metrics::Metrics;
use server::Phase;
use settings::Settings;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use upstream::Upstream;

/// What all exchanges of a proxy share. Nothing in it changes while it runs, but counters and the phase.
pub struct Shared {
    settings: Settings,
    /// One per route, in the order of the routes.
    upstreams: Vec<Upstream>,
    metrics: Arc<Metrics>,
    audit: Option<Audit>,
    /// One permit per exchange in flight.
    slots: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
}

/// A proxy that runs. Dropping this does not stop it.
pub struct Running {
    /// Where each listener is bound, in the order of the settings.
    pub addresses: Vec<SocketAddr>,
    /// Where the admin listener is bound.
    pub admin: SocketAddr,
    stop: Arc<Notify>,
    supervisor: JoinHandle<bool>,
}

impl Running {
    /// Begins to drain: readiness off, no new connection, open exchanges may end. Returns at once.
    pub fn drain(&self) {
        self.stop.notify_one();
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
        sockets.push(TcpListener::bind(listener.address).await?);
    }
    let admin = TcpListener::bind(settings.admin).await?;
    let addresses = sockets.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
    let admin_address = admin.local_addr()?;

    let metrics = Arc::new(Metrics::new(&settings));
    let audit = settings.audit.as_deref().map(|path| Audit::open(path, metrics.clone())).transpose()?;
    let (phase, phase_seen) = watch::channel(Phase::Serving);
    let shared = Arc::new(Shared {
        upstreams: settings.routes.iter().map(|route| Upstream::new(&route.upstream)).collect(),
        slots: Arc::new(Semaphore::new(settings.limits.exchanges)),
        phase: phase_seen,
        metrics,
        audit,
        settings,
    });

    let mut places = Vec::new();
    for (index, socket) in sockets.into_iter().enumerate() {
        let own = Arc::new(Semaphore::new(shared.settings.limits.connections));
        tokio::spawn(server::listen(socket, index, shared.clone(), own.clone()));
        places.push(own);
    }
    tokio::spawn(admin::listen(admin, shared.clone()));
    let stop = Arc::new(Notify::new());
    let supervisor = tokio::spawn(supervise(phase, shared, places, stop.clone(), shutdown));
    Ok(Running { addresses, admin: admin_address, stop, supervisor })
}

/// Waits for the word to stop, then goes through the phases.
async fn supervise(
    phase: watch::Sender<Phase>,
    shared: Arc<Shared>,
    places: Vec<Arc<Semaphore>>,
    stop: Arc<Notify>,
    shutdown: impl Future<Output = ()>,
) -> bool {
    tokio::select! {
        () = shutdown => {}
        () = stop.notified() => {}
    }
    let limits = shared.settings.limits;
    tracing::info!("draining");
    phase.send_replace(Phase::Leaving);
    tokio::time::sleep(limits.drain_delay).await;
    phase.send_replace(Phase::Draining);
    let all = async {
        for own in &places {
            // Every place free again means that every connection of this listener has ended.
            let _ = own.acquire_many(u32::try_from(limits.connections).unwrap_or(u32::MAX)).await;
        }
    };
    let in_time = tokio::time::timeout(limits.drain_timeout, all).await.is_ok();
    phase.send_replace(Phase::Ended);
    tracing::info!(in_time, "ended");
    in_time
}
