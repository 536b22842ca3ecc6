//! How an answer of unknown length is sent. On HTTP/1.1 on a socket of its own: the head, then chunks, then the end
//! (RFC 9112, section 7.1). On HTTP/2 handed to the body of an answer, chunk by chunk.

use super::socket::Socket;
use axum::http::{HeaderMap, Version};
use bytes::Bytes;
use std::future::poll_fn;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;

/// Most bytes that a client may send after its request, where there is nothing to send.
const NOISE_BYTES_MAX: usize = 16 << 10;

/// A chunk that is cheaper to copy behind its size than to send in three parts. *Units*: bytes.
const SMALL_BYTES_MAX: usize = 1 << 10;

/// The sending side of an open answer.
#[derive(Debug)]
pub(super) enum Transfer {
    /// On HTTP/1.1: a socket of its own.
    Alone(Alone),
    /// On HTTP/2: the body of one answer among others.
    Handed(mpsc::Sender<Piece>),
}

/// What an answer is handed.
#[derive(Debug)]
pub(super) enum Piece {
    Chunk(Bytes),
    End,
}

impl Transfer {
    /// One that hands its chunks to a body.
    pub(super) fn handed() -> (Self, TransferBody) {
        let (sender, receiver) = mpsc::channel(1);
        (Self::Handed(sender), TransferBody(receiver))
    }

    /// Sends some bytes, at least one, as one chunk. Returns once they are with the kernel or taken by the body.
    ///
    /// *Cancel safety*: none; a part of the chunk may have gone.
    pub(super) async fn send(&mut self, bytes: &Bytes) -> io::Result<()> {
        match self {
            Self::Alone(alone) => alone.send(bytes).await,
            Self::Handed(sender) => {
                let sent = sender.send(Piece::Chunk(bytes.clone())).await;
                sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
                // There is room again when it was taken.
                sender.reserve().await.map_err(|_| io::ErrorKind::BrokenPipe)?;
                Ok(())
            }
        }
    }

    /// Ends the answer, whole.
    pub(super) async fn end(self) -> io::Result<()> {
        match self {
            Self::Alone(alone) => alone.end().await,
            Self::Handed(sender) => {
                sender.send(Piece::End).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
            }
        }
    }

    /// Waits until the client has gone.
    ///
    /// *Cancel safety*: safe.
    pub(super) async fn gone(&mut self) {
        match self {
            Self::Alone(alone) => alone.gone().await,
            Self::Handed(sender) => sender.closed().await,
        }
    }
}

/// The chunks of a [`Transfer`], for the body of an answer.
#[derive(Debug)]
pub(super) struct TransferBody(mpsc::Receiver<Piece>);

impl TransferBody {
    /// The next chunk, not empty; `None` at the end.
    ///
    /// *Errors*: the sender is gone without having ended: the answer is torn.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, axum::Error>>> {
        self.0.poll_recv(cx).map(|piece| match piece {
            Some(Piece::Chunk(bytes)) => Some(Ok(bytes)),
            Some(Piece::End) => None,
            None => Some(Err(axum::Error::new("the stream broke"))),
        })
    }
}

/// A socket that has one answer to send and nothing after it.
#[derive(Debug)]
pub(super) struct Alone {
    socket: Socket,
    /// HTTP/1.0 has no chunks: there the end of the connection is the end of the answer.
    is_chunked: bool,
    noise_bytes: usize,
}

impl Alone {
    /// Sends the head of a 200 answer. The connection is not used again after it.
    pub(super) async fn begin(mut socket: Socket, version: Version, headers: &HeaderMap) -> io::Result<Self> {
        let is_chunked = version > Version::HTTP_10;
        let mut head = Vec::with_capacity(512);
        head.extend_from_slice(if is_chunked { b"HTTP/1.1 200 OK\r\n" } else { b"HTTP/1.0 200 OK\r\n" });
        for (name, value) in headers {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        if is_chunked {
            head.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        let date = chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT");
        write!(head, "connection: close\r\ndate: {date}\r\n\r\n")?;
        socket.write_all(&head).await?;
        // Within TLS written is not yet sent.
        socket.flush().await?;
        Ok(Self { socket, is_chunked, noise_bytes: 0 })
    }

    async fn send(&mut self, bytes: &Bytes) -> io::Result<()> {
        self.write(bytes).await?;
        self.socket.flush().await
    }

    async fn write(&mut self, bytes: &Bytes) -> io::Result<()> {
        if !self.is_chunked {
            return self.socket.write_all(bytes).await;
        }
        let mut size = [0; 18];
        let mut room = size.as_mut_slice();
        write!(room, "{:x}\r\n", bytes.len())?;
        let size_len = 18 - room.len();
        if bytes.len() <= SMALL_BYTES_MAX {
            let mut chunk = [0; SMALL_BYTES_MAX + 20];
            let mut rest = chunk.as_mut_slice();
            for part in [&size[..size_len], bytes, b"\r\n"] {
                rest.write_all(part)?;
            }
            let room = rest.len();
            return self.socket.write_all(&chunk[..SMALL_BYTES_MAX + 20 - room]).await;
        }
        let mut parts = [IoSlice::new(&size[..size_len]), IoSlice::new(bytes), IoSlice::new(b"\r\n")];
        let mut parts = parts.as_mut_slice();
        while !parts.is_empty() {
            match self.socket.write_vectored(parts).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => IoSlice::advance_slices(&mut parts, written),
            }
        }
        Ok(())
    }

    async fn end(mut self) -> io::Result<()> {
        if self.is_chunked {
            self.socket.write_all(b"0\r\n\r\n").await?;
        }
        self.socket.shutdown().await
    }

    /// What the client sends instead of going is not read as a request, and has a bound.
    async fn gone(&mut self) {
        let Self { socket, noise_bytes, .. } = self;
        poll_fn(|cx| {
            loop {
                let mut room = [MaybeUninit::uninit(); 512];
                let mut buffer = ReadBuf::uninit(&mut room);
                match Pin::new(&mut *socket).poll_read(cx, &mut buffer) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() && *noise_bytes < NOISE_BYTES_MAX => {
                        *noise_bytes += buffer.filled().len();
                    }
                    Poll::Ready(_) => return Poll::Ready(()),
                }
            }
        })
        .await;
    }
}
