//! Connections: accepting, TLS, who the peer is, and winding up.
//!
//! Each connection speaks what its handshake agreed on, so no byte is guessed at and the time for a head runs from the
//! first moment. A connection over the listener's limit waits in the kernel, one over its address's limit is closed before
//! its handshake. Nothing here reads a request.

use super::Shared;
use super::exchange::exchange;
use super::limits as l;
use super::proxy_protocol::{self, Spoken};
use super::socket::{Socket, Stream, Unstalled};
use super::tls::{self, Identity};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus::IntGauge;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// What connections are told, in this order and never back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// All is well.
    Serving,
    /// `/readyz` is off; new connections still come in.
    Leaving,
    /// No new connection; open ones end after their exchanges.
    Draining,
    /// What is still open is dropped.
    Ended,
}

/// The places of one listener: one permit per connection, and how many of them each address holds.
pub struct Places {
    all: Arc<Semaphore>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

impl Places {
    /// So many at once.
    pub fn new(connections: usize) -> Arc<Places> {
        Arc::new(Places { all: Arc::new(Semaphore::new(connections)), by_address: Mutex::default() })
    }

    /// Returns once every place is free again: every connection of this listener has ended.
    pub async fn free(&self, connections: usize) {
        let _ = self.all.acquire_many(u32::try_from(connections).unwrap_or(u32::MAX)).await;
    }

    /// One of an address's places; `None`: it holds as many as it may.
    fn of(self: &Arc<Places>, address: IpAddr, most: usize) -> Option<AddressPlace> {
        let address = household(address);
        let mut held = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(AddressPlace { places: self.clone(), address })
    }
}

/// The part of an address that one peer cannot choose freely: of IPv6 the network of 64 bits.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() >> 64 << 64).into(),
        four => four,
    }
}

struct AddressPlace {
    places: Arc<Places>,
    address: IpAddr,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut held = self.places.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

/// Accepts until the phase says otherwise.
pub async fn listen(socket: Socket, listener: usize, shared: Arc<Shared>, places: Arc<Places>) {
    let mut phase = shared.phase.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
            accepted = accept(&socket, &places) => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let Ok(stream) = stream.detach() else { continue }; // gone already
                let (served, places) = (shared.clone(), places.clone());
                shared.workers.give(async move {
                    let shared = served;
                    let _place = place;
                    let _open = Open::new(&shared.metrics.open_connections);
                    let Ok(stream) = stream.attach() else { return };
                    if let Err(reason) = connection(stream, peer, listener, &shared, &places).await {
                        shared.metrics.connections_refused.with_label_values(&[reason]).inc();
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, mostly: waiting lets others end; a busy loop would not.
                tracing::warn!(kind = ?error.kind(), "accept");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn accept(socket: &Socket, places: &Places) -> io::Result<(Stream, Option<IpAddr>, OwnedSemaphorePermit)> {
    let place = places.all.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = socket.accept().await?;
    Ok((stream, peer, place))
}

/// From the first byte to the last. The settings are those of its beginning; each exchange looks at them anew. An error
/// is why it was refused before a request, as a label.
async fn connection(
    stream: Stream,
    peer: Option<IpAddr>,
    listener: usize,
    shared: &Arc<Shared>,
    places: &Arc<Places>,
) -> Result<(), &'static str> {
    let trust = shared.trust.subscribe(); // before the settings are looked at, so that no change falls between
    let serving = shared.serving.load_full();
    let settings = &serving.settings.listeners[listener];
    let mut stream = Unstalled::new(stream);
    let speaks = peer.is_some_and(|peer| settings.speakers.iter().any(|network| network.contains(peer)));
    let peer = if speaks {
        match timeout(l::HANDSHAKE_TIMEOUT, proxy_protocol::read(&mut stream)).await {
            Ok(Ok(Spoken::For(client))) => Some(client),
            Ok(Ok(Spoken::Itself)) => peer,
            Ok(Err(_)) | Err(_) => return Err("proxy-protocol"),
        }
    } else {
        peer
    };
    // The place is taken before the handshake: a handshake is what costs.
    let _own = match peer {
        Some(address) => Some(places.of(address, serving.settings.limits.per_address).ok_or("per-address")?),
        None => None,
    };
    let acceptor = settings.tls.as_ref().map(|tls| TlsAcceptor::from(tls.config.clone()));
    drop(serving);
    match acceptor {
        None => serve(stream, false, None, shared, trust).await,
        Some(acceptor) => match timeout(l::HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let session = stream.get_ref().1;
                let h2 = session.alpn_protocol() == Some(b"h2");
                let leaf = session.peer_certificates().and_then(|chain| chain.first());
                let identity = leaf.map(|leaf| Arc::new(tls::identity(leaf)));
                serve(stream, h2, identity, shared, trust).await;
            }
            Ok(Err(_)) | Err(_) => shared.metrics.handshake_errors.inc(),
        },
    }
    Ok(())
}

/// Counts a connection as open for as long as it lives, even if it ends by a panic.
struct Open(IntGauge);

impl Open {
    fn new(gauge: &IntGauge) -> Open {
        gauge.inc();
        Open(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn serve<S>(
    stream: S,
    h2: bool,
    identity: Option<Arc<Identity>>,
    shared: &Arc<Shared>,
    trust: watch::Receiver<u64>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = {
        let shared = shared.clone();
        service_fn(move |request: Request<Incoming>| {
            let (shared, identity) = (shared.clone(), identity.clone());
            async move { Ok::<_, Infallible>(exchange(shared, identity, request).await) }
        })
    };
    let io = TokioIo::new(stream);
    if h2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(l::H2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(l::H2_CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(l::H2_STREAMS_MAX)
            .max_header_list_size(l::H2_HEADER_LIST_BYTES_MAX)
            .max_send_buf_size(l::H2_SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(l::H2_RESETS_MAX)
            .max_local_error_reset_streams(l::H2_LOCAL_RESETS_MAX)
            .keep_alive_interval(l::H2_PING_INTERVAL)
            .keep_alive_timeout(l::H2_PING_TIMEOUT)
            .serve_connection(io, service);
        until_drained(connection, |c| c.graceful_shutdown(), shared, trust).await;
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(l::HEAD_TIMEOUT)
            .max_header_size(l::HEAD_BYTES_MAX)
            .max_buf_size(l::BUFFER_BYTES_MAX)
            .serve_connection(io, service);
        until_drained(connection, |c| c.graceful_shutdown(), shared, trust).await;
    }
}

/// Drives a connection; when draining begins, or other authorities vouch for clients than when it was made, asks it to end
/// after what is open (`Connection: close`, GOAWAY); when the time to drain is over, drops it, which aborts what is open.
async fn until_drained<C: Future>(
    connection: C,
    wind_up: impl Fn(Pin<&mut C>),
    shared: &Shared,
    mut trust: watch::Receiver<u64>,
) {
    let (mut draining, mut ended) = (shared.phase.clone(), shared.phase.clone());
    tokio::pin!(connection);
    let drained = async {
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = draining.wait_for(|phase| *phase >= Phase::Draining) => {}
            _ = trust.changed() => {}
        }
        wind_up(connection.as_mut());
        connection.as_mut().await;
    };
    tokio::select! {
        () = drained => {}
        _ = ended.wait_for(|phase| *phase == Phase::Ended) => {}
    }
}
