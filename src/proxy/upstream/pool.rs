//! Connections to one endpoint. One of HTTP/1 belongs to one exchange at a time; those of HTTP/2 are shared, the one with
//! the fewest streams first.
//!
//! A connection of HTTP/1 comes back only when hyper says that it is ready: its answer was read to the end and its request
//! sent to the end. One whose answer was left unread, or that brought bytes that nobody asked for, closes itself and is
//! never given out again, so no answer reaches another exchange than its own.

use super::Head;
use crate::proxy::body::Outgoing;
use crate::proxy::limits as l;
use crate::proxy::metrics::Metrics;
use crate::proxy::settings;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prometheus::{IntCounter, IntGauge};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tower_service::Service;

/// Why there is no answer, and what of the request is left.
pub(super) enum Broken {
    /// No connection could be made.
    Unconnected(Outgoing),
    /// A connection that was at hand turned out closed before anything was sent.
    Unsent(Outgoing),
    /// It broke when something may have been sent. `legible`: not by an answer that is none.
    Sent {
        /// See above.
        legible: bool,
    },
}

/// A connection for one exchange.
enum Taken {
    One(http1::SendRequest<Outgoing>),
    Two(Stream),
}

/// A shared connection, for one exchange more.
pub(super) struct Stream(Arc<Channel>);

struct Channel {
    sender: http2::SendRequest<Outgoing>,
    /// It said something: perhaps how many streams it allows.
    heard: Arc<Notify>,
    spoke: AtomicBool,
    streams: AtomicUsize,
    used: Mutex<Instant>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        *lock(&self.0.used) = Instant::now();
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Kept {
    /// Idle ones of HTTP/1, and since when; the last used is the first taken.
    one: Vec<(http1::SendRequest<Outgoing>, Instant)>,
    two: Vec<Arc<Channel>>,
}

/// What is known of an endpoint, whichever thread learned it.
pub(super) struct Known {
    /// It is not known to speak HTTP/1: one connection is made at a time, since others may find room on it.
    shares: AtomicBool,
    /// How many streams of HTTP/2 it allows at once on a connection, by its last word.
    allowed: AtomicUsize,
}

impl Known {
    /// What is assumed at first.
    pub(super) fn new(settings: &settings::Upstream) -> Arc<Known> {
        let allowed = AtomicUsize::new(l::H2_STREAMS_MAX as usize);
        Arc::new(Known { shares: AtomicBool::new(settings.tls.is_some()), allowed })
    }
}

/// The connections of one endpoint and one thread.
pub(super) struct Pool {
    connector: HttpsConnector<HttpConnector>,
    origin: Uri,
    scheme: Scheme,
    authority: Authority,
    connect: Duration,
    idle: Duration,
    kept: Mutex<Kept>,
    /// Connections kept at most: this thread's share of those of the endpoint.
    idle_max: usize,
    two_max: usize,
    known: Arc<Known>,
    dialing: tokio::sync::Mutex<()>,
    open: IntGauge,
    connected: IntCounter,
    unconnected: IntCounter,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // nothing in here panics half way
}

impl Pool {
    pub(super) fn new(
        settings: &settings::Upstream,
        origin: &str,
        labels: &[&str; 2],
        metrics: &Metrics,
        threads: usize,
        known: Arc<Known>,
    ) -> Pool {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = match &settings.tls {
            Some(tls) => HttpsConnectorBuilder::new()
                .with_tls_config(tls.as_ref().clone())
                .https_only()
                .enable_all_versions()
                .wrap_connector(tcp),
            None => {
                // Plain HTTP to loopback. The connector wants a TLS configuration; one without roots trusts nobody.
                let nobody = crate::proxy::tls::client(rustls::RootCertStore::empty().into(), None)
                    .expect("a client without a certificate of its own has no key that could not fit");
                let builder = HttpsConnectorBuilder::new().with_tls_config(nobody.as_ref().clone());
                builder.https_or_http().enable_http1().wrap_connector(tcp)
            }
        };
        let origin: Uri = origin.parse().expect("an origin of the settings is a URL");
        let counted = |outcome| metrics.upstream_connects.with_label_values(&[labels[0], labels[1], outcome]);
        Pool {
            connector,
            scheme: origin.scheme().expect("an origin has a scheme").clone(),
            authority: origin.authority().expect("an origin has an authority").clone(),
            origin,
            connect: settings.connect,
            idle: settings.idle,
            kept: Mutex::default(),
            idle_max: (l::UPSTREAM_IDLE_MAX / threads).max(1),
            two_max: (l::UPSTREAM_H2_CONNECTIONS_MAX / threads).max(1),
            known,
            dialing: tokio::sync::Mutex::new(()),
            open: metrics.upstream_connections.with_label_values(labels),
            connected: counted("made"),
            unconnected: counted("failed"),
        }
    }

    /// One request and the head of its answer. `fresh`: a kept connection of HTTP/1 has failed just now, so none is taken.
    /// Who drops this before it returns takes the request back: the stream is reset, the connection of HTTP/1 closed.
    pub(super) async fn exchange(
        self: &Arc<Pool>,
        head: &Head,
        body: Outgoing,
        fresh: bool,
    ) -> Result<(Response<Incoming>, Option<Stream>), Broken> {
        let Some(taken) = self.take(fresh).await else { return Err(Broken::Unconnected(body)) };
        match taken {
            Taken::One(mut sender) => {
                let request = head.request(body, &self.scheme, &self.authority, false);
                let response = sender.try_send_request(request).await.map_err(broken)?;
                self.give_back(sender);
                Ok((response, None))
            }
            Taken::Two(stream) => {
                let request = head.request(body, &self.scheme, &self.authority, true);
                let mut sender = stream.0.sender.clone();
                let response = sender.try_send_request(request).await.map_err(broken)?;
                if !stream.0.spoke.swap(true, Ordering::Relaxed) {
                    stream.0.heard.notify_one();
                }
                Ok((response, Some(stream)))
            }
        }
    }

    async fn take(&self, fresh: bool) -> Option<Taken> {
        if let Some(taken) = self.at_hand(fresh) {
            return Some(taken);
        }
        let taken = tokio::time::timeout(self.connect, self.dial(fresh)).await.ok().flatten();
        if taken.is_some() { &self.connected } else { &self.unconnected }.inc();
        taken
    }

    /// A connection that is open already.
    fn at_hand(&self, fresh: bool) -> Option<Taken> {
        let mut kept = lock(&self.kept);
        kept.two.retain(|channel| !channel.sender.is_closed());
        let full = kept.two.len() >= self.two_max;
        let room = self.known.allowed.load(Ordering::Relaxed).clamp(1, l::H2_STREAMS_MAX as usize);
        let least = kept.two.iter().min_by_key(|channel| channel.streams.load(Ordering::Relaxed));
        if let Some(channel) = least.filter(|channel| full || channel.streams.load(Ordering::Relaxed) < room) {
            channel.streams.fetch_add(1, Ordering::Relaxed);
            return Some(Taken::Two(Stream(channel.clone())));
        }
        if fresh {
            return None;
        }
        while let Some((sender, since)) = kept.one.pop() {
            if sender.is_ready() && since.elapsed() < self.idle {
                return Some(Taken::One(sender));
            }
        }
        None
    }

    /// A new connection, TCP, TLS and HTTP; or room on one that another made meanwhile.
    async fn dial(&self, fresh: bool) -> Option<Taken> {
        let turn = if self.known.shares.load(Ordering::Relaxed) { Some(self.dialing.lock().await) } else { None };
        let turn = turn.filter(|_| self.known.shares.load(Ordering::Relaxed)); // it became known while this waited
        if turn.is_some()
            && let Some(taken) = self.at_hand(fresh)
        {
            return Some(taken);
        }
        let io = self.connector.clone().call(self.origin.clone()).await.ok()?;
        let open = Open::new(&self.open);
        if io.connected().is_negotiated_h2() {
            self.known.shares.store(true, Ordering::Relaxed);
            let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(l::UPSTREAM_H2_STREAM_WINDOW_BYTES)
                .initial_connection_window_size(l::UPSTREAM_H2_CONNECTION_WINDOW_BYTES)
                .max_header_list_size(l::H2_HEADER_LIST_BYTES_MAX)
                .max_send_buf_size(l::H2_SEND_BUFFER_BYTES)
                .keep_alive_interval(l::H2_PING_INTERVAL)
                .keep_alive_timeout(l::H2_PING_TIMEOUT)
                .handshake(io)
                .await
                .ok()?;
            let (assumed, told) = (connection.current_max_send_streams(), self.known.clone());
            let heard = Arc::new(Notify::new());
            let hears = heard.clone();
            tokio::spawn(async move {
                let _open = open;
                loop {
                    tokio::select! {
                        _ = &mut connection => return, // its exchanges hear of its end
                        () = hears.notified() => {}
                    }
                    // Until its first word hyper assumes a number; what its connections said before is worth more.
                    let allowed = connection.current_max_send_streams();
                    if allowed != assumed {
                        told.allowed.store(allowed, Ordering::Relaxed);
                    }
                }
            });
            let (streams, used) = (AtomicUsize::new(1), Mutex::new(Instant::now()));
            let channel = Arc::new(Channel { sender, heard, spoke: AtomicBool::new(false), streams, used });
            lock(&self.kept).two.push(channel.clone());
            Some(Taken::Two(Stream(channel)))
        } else {
            self.known.shares.store(false, Ordering::Relaxed);
            drop(turn);
            let (sender, connection) = http1::Builder::new()
                .max_header_size(l::HEAD_BYTES_MAX)
                .max_buf_size(l::UPSTREAM_BUFFER_BYTES_MAX)
                .handshake(io)
                .await
                .ok()?;
            tokio::spawn(async move {
                let _open = open;
                let _ = connection.await; // its exchange hears of its end
            });
            Some(Taken::One(sender))
        }
    }

    /// Keeps a connection of HTTP/1, once its exchange is over in both directions.
    fn give_back(self: &Arc<Pool>, mut sender: http1::SendRequest<Outgoing>) {
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            if sender.ready().await.is_err() {
                return;
            }
            let Some(pool) = pool.upgrade() else { return };
            let mut kept = lock(&pool.kept);
            if kept.one.len() < pool.idle_max {
                kept.one.push((sender, Instant::now()));
            }
        });
    }

    /// Closes what was idle too long.
    pub(super) fn sweep(&self) {
        let mut kept = lock(&self.kept);
        kept.one.retain(|(sender, since)| sender.is_ready() && since.elapsed() < self.idle);
        kept.two.retain(|channel| !channel.sender.is_closed() && !channel.is_idle(self.idle));
        for channel in &kept.two {
            channel.heard.notify_one();
        }
    }
}

impl Channel {
    fn is_idle(&self, idle: Duration) -> bool {
        self.streams.load(Ordering::Relaxed) == 0 && lock(&self.used).elapsed() >= idle
    }
}

fn broken(mut error: hyper::client::conn::TrySendError<Request<Outgoing>>) -> Broken {
    match error.take_message() {
        Some(request) => Broken::Unsent(request.into_body()),
        None => Broken::Sent { legible: !error.error().is_parse() },
    }
}

/// Counts a connection as open for as long as it lives.
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
