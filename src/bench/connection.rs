//! One connection: requests as bytes, answers through one buffer that the whole thread shares.

use super::BenchError;
use super::response::{Head, Response};
use super::target::Target;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// Bytes taken from a socket at a time. One buffer for all connections of a thread: ten thousand readers of their own
/// buffers would be measured as the memory of this process, and miss its caches.
const READ_BYTES: usize = 256 << 10;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// An HTTP/1.1 connection with at most one request under way.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    response: Response,
}

impl Connection {
    /// Connects.
    ///
    /// *Errors*: [`BenchError::Connection`].
    pub async fn open(target: &Target, keeps_headers: bool) -> Result<Self, BenchError> {
        let stream =
            TcpStream::connect(target.address).await.map_err(BenchError::connection("connecting"))?;
        stream.set_nodelay(true).map_err(BenchError::connection("connecting"))?;
        Ok(Self { stream, response: Response::new(keeps_headers) })
    }

    /// Sends a request.
    pub async fn send(&mut self, mut bytes: &[u8]) -> Result<(), BenchError> {
        while !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream.writable().await.map_err(BenchError::connection("sending"))?;
                }
                Err(source) => return Err(BenchError::Connection { what: "sending", source }),
            }
        }
        Ok(())
    }

    /// Sends a GET.
    pub async fn get(&mut self, target: &Target, headers: &str) -> Result<(), BenchError> {
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", target.path, target.host);
        self.send(request.as_bytes()).await
    }

    /// Reads the whole answer; its body goes to `sink`. The status.
    pub async fn receive(&mut self, mut sink: impl FnMut(&[u8])) -> Result<u16, BenchError> {
        while !self.more(&mut sink).await? {}
        Ok(self.head().map_or(0, |head| head.status))
    }

    /// Reads once; the body that came goes to `sink`. Whether the answer is whole.
    ///
    /// *Cancel safety*: nothing is lost that was not given to `sink`.
    pub async fn more(&mut self, mut sink: impl FnMut(&[u8])) -> Result<bool, BenchError> {
        let Self { stream, response } = self;
        poll_fn(|context| {
            BUFFER.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(buffer);
                // Not `try_read`: only this one remembers that a short read has emptied the socket, which saves the
                // call that would find out.
                match Pin::new(&mut *stream).poll_read(context, &mut read) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Err(source)) => {
                        Poll::Ready(Err(BenchError::Connection { what: "reading", source }))
                    }
                    Poll::Ready(Ok(())) if read.filled().is_empty() => {
                        Poll::Ready(match response.may_end() {
                            true => Ok(true),
                            false => Err(BenchError::Connection {
                                what: "reading",
                                source: io::ErrorKind::UnexpectedEof.into(),
                            }),
                        })
                    }
                    Poll::Ready(Ok(())) => {
                        let progress = response.push(read.filled(), &mut sink);
                        Poll::Ready(progress.map(|progress| progress.is_complete))
                    }
                }
            })
        })
        .await
    }

    /// The head of the answer, once it is there.
    pub fn head(&self) -> Option<&Head> {
        self.response.head()
    }
}

/// One GET on a connection of its own: the head and the body, which must be small.
pub async fn fetch(target: &Target, headers: &str) -> Result<(Head, Vec<u8>), BenchError> {
    let mut connection = Connection::open(target, true).await?;
    connection.get(target, headers).await?;
    let mut body = Vec::new();
    connection.receive(|bytes| body.extend_from_slice(bytes)).await?;
    let head = connection.head().cloned();
    Ok((head.ok_or_else(|| BenchError::Answer("it has no head".into()))?, body))
}
