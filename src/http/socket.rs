//! The socket of a connection, plain or within TLS.
//!
//! An enum, so that who serves requests or streams on it is compiled once and has no pointer to follow.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// What bytes go over.
#[derive(Debug)]
pub(super) enum Socket {
    Plain(TcpStream),
    /// In a box: it is 1 KB, and plain connections are to stay small.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Moves a plain socket to the event loop of the thread that calls. What is within TLS cannot be taken out of it, and
    /// is woken by the loop that it began with.
    pub(super) fn detach(self) -> io::Result<Detached> {
        match self {
            Self::Plain(socket) => Ok(Detached::Plain(socket.into_std()?)),
            Self::Tls(socket) => Ok(Detached::Tls(socket)),
        }
    }
}

/// A socket between two event loops.
#[derive(Debug)]
pub(super) enum Detached {
    Plain(std::net::TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Detached {
    pub(super) fn attach(self) -> io::Result<Socket> {
        match self {
            Self::Plain(socket) => Ok(Socket::Plain(TcpStream::from_std(socket)?)),
            Self::Tls(socket) => Ok(Socket::Tls(socket)),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(socket) => Pin::new(socket).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Tls(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
