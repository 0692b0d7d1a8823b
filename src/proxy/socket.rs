//! The two kinds of socket a listener may have, and a stream whose peer must take what it is sent.
//!
//! TCP, or a Unix socket in a folder that only those may enter who may call. Nothing here reads a byte of its own accord.

use super::limits as l;
use super::settings::Address;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{Sleep, sleep};

/// A bound socket. A Unix socket's file goes away with it.
pub enum Socket {
    /// Of the network.
    Tcp(TcpListener),
    /// Of this machine, with its file.
    Unix(UnixListener, PathBuf),
}

impl Socket {
    /// Binds. A Unix socket that a former process left behind is replaced, one that somebody serves is not.
    pub async fn bind(address: &Address) -> io::Result<Socket> {
        match address {
            Address::Tcp(address) => TcpListener::bind(address).await.map(Socket::Tcp),
            Address::Unix(path) => {
                let left_behind = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
                    && UnixStream::connect(path).await.is_err();
                if left_behind {
                    std::fs::remove_file(path)?;
                }
                let socket = UnixListener::bind(path)?;
                let socket = Socket::Unix(socket, path.clone());
                set_mode(path)?;
                Ok(socket)
            }
        }
    }

    /// Where it is bound, if it is of the network.
    pub fn address(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Socket::Tcp(socket) => socket.local_addr().map(Some),
            Socket::Unix(..) => Ok(None),
        }
    }

    /// The next peer, with its address if it has one.
    pub async fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match self {
            Socket::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                let _ = stream.set_nodelay(true); // a socket that is gone already says so at the next read
                Ok((Stream::Tcp(stream), Some(peer.ip().to_canonical())))
            }
            Socket::Unix(socket, _) => Ok((Stream::Unix(socket.accept().await?.0), None)),
        }
    }
}

/// Owner and group may connect; the folder decides who gets that far.
fn set_mode(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o660))
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = self {
            let _ = std::fs::remove_file(path); // nobody listens any more; who comes later must see that
        }
    }
}

/// A connection of either kind.
pub enum Stream {
    /// Of the network.
    Tcp(TcpStream),
    /// Of this machine.
    Unix(UnixStream),
}

/// A connection that no event loop watches, on its way from the one that accepted it to the one that serves it.
pub enum Detached {
    /// Of the network.
    Tcp(std::net::TcpStream),
    /// Of this machine.
    Unix(std::os::unix::net::UnixStream),
}

impl Stream {
    /// Takes it from its event loop.
    pub fn detach(self) -> io::Result<Detached> {
        match self {
            Stream::Tcp(stream) => stream.into_std().map(Detached::Tcp),
            Stream::Unix(stream) => stream.into_std().map(Detached::Unix),
        }
    }
}

impl Detached {
    /// Gives it to the event loop of this thread.
    pub fn attach(self) -> io::Result<Stream> {
        match self {
            Detached::Tcp(stream) => TcpStream::from_std(stream).map(Stream::Tcp),
            Detached::Unix(stream) => UnixStream::from_std(stream).map(Stream::Unix),
        }
    }
}

/// Calls a method of the stream, of whichever kind it is.
macro_rules! either {
    ($stream:expr, $method:ident ( $($argument:expr),* )) => {
        match $stream {
            Stream::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

/// A connection whose peer must take what is written to it, be it slowly. A reader that stalls on purpose would otherwise
/// keep a rewritten answer, and its upstream connection, as long as it likes.
pub struct Unstalled {
    inner: Stream,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Unstalled {
    /// Watches from now on.
    pub fn new(inner: Stream) -> Unstalled {
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
        either!(&mut self.inner, poll_read(cx, buffer))
    }
}

impl AsyncWrite for Unstalled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = either!(&mut self.inner, poll_write(cx, bytes));
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = either!(&mut self.inner, poll_write_vectored(cx, slices));
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.inner, poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.inner, poll_shutdown(cx))
    }
}
