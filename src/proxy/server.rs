//! Sockets: accepting, TLS, who the peer is, and winding connections up.
//!
//! Each connection speaks what its handshake agreed on, so no byte is guessed at and the time for a head runs from the
//! first moment. A connection over the limit waits in the kernel. Nothing here reads a request.

use super::Shared;
use super::exchange::exchange;
use super::limits as l;
use super::tls;
use crate::names::Caller;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus::IntGauge;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};
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

/// Accepts until the phase says otherwise. `places` has one permit per connection.
pub async fn listen(socket: TcpListener, listener: usize, shared: Arc<Shared>, places: Arc<Semaphore>) {
    let mut phase = shared.phase.clone();
    let acceptor = shared.settings.listeners[listener].tls.as_ref().map(|tls| TlsAcceptor::from(tls.config.clone()));
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
            accepted = accept(&socket, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                tokio::spawn(connection(stream, acceptor.clone(), shared.clone(), place));
            }
            Err(error) => {
                // Out of file descriptors, mostly: waiting lets others end; a busy loop would not.
                tracing::warn!(kind = ?error.kind(), "accept");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn accept(socket: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = socket.accept().await?;
    Ok((stream, place))
}

async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    place: OwnedSemaphorePermit,
) {
    let _place = place;
    let _open = Open::new(&shared.metrics.open_connections);
    let _ = stream.set_nodelay(true); // a socket that is gone already says so at the next read
    match acceptor {
        None => serve(Unstalled::new(stream), false, None, &shared).await,
        Some(acceptor) => match timeout(l::HANDSHAKE_TIMEOUT, acceptor.accept(Unstalled::new(stream))).await {
            Ok(Ok(stream)) => {
                let session = stream.get_ref().1;
                let h2 = session.alpn_protocol() == Some(b"h2");
                let leaf = session.peer_certificates().and_then(|chain| chain.first());
                let caller = leaf.and_then(|leaf| shared.settings.caller(&tls::identity(leaf)));
                serve(stream, h2, caller, &shared).await;
            }
            Ok(Err(_)) | Err(_) => shared.metrics.handshake_errors.inc(),
        },
    }
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

async fn serve<S>(stream: S, h2: bool, caller: Option<Caller>, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = {
        let shared = shared.clone();
        service_fn(move |request: Request<Incoming>| {
            let (shared, caller) = (shared.clone(), caller.clone());
            async move { Ok::<_, Infallible>(exchange(shared, caller, request).await) }
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
        until_drained(connection, |c| c.graceful_shutdown(), shared).await;
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(l::HEAD_TIMEOUT)
            .max_header_size(l::HEAD_BYTES_MAX)
            .max_buf_size(l::BUFFER_BYTES_MAX)
            .serve_connection(io, service);
        until_drained(connection, |c| c.graceful_shutdown(), shared).await;
    }
}

/// Drives a connection; when draining begins, asks it to end after what is open (`Connection: close`, GOAWAY); when the
/// time for that is over, drops it, which aborts what is still open.
async fn until_drained<C: Future>(connection: C, wind_up: impl Fn(Pin<&mut C>), shared: &Shared) {
    let (mut draining, mut ended) = (shared.phase.clone(), shared.phase.clone());
    tokio::pin!(connection);
    let drained = async {
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = draining.wait_for(|phase| *phase >= Phase::Draining) => {}
        }
        wind_up(connection.as_mut());
        connection.as_mut().await;
    };
    tokio::select! {
        () = drained => {}
        _ = ended.wait_for(|phase| *phase == Phase::Ended) => {}
    }
}

/// A socket whose peer must take what is written to it, be it slowly. A reader that stalls on purpose would otherwise keep a
/// rewritten answer, and its upstream connection, as long as it likes.
struct Unstalled {
    inner: TcpStream,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Unstalled {
    fn new(inner: TcpStream) -> Unstalled {
        Unstalled { inner, waiting: None }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(l::WRITE_STALL_TIMEOUT)));
        waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Unstalled {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Unstalled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
