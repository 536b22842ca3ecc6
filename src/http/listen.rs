//! The accept loop: one task a connection, every wait bounded.
//!
//! `axum::serve` has no time-outs and no cap, so that half-sent requests and silent sockets stay open for ever.
//!
//! | a client that | is ended by |
//! |---|---|
//! | sends its request head slowly, or nothing at first | [`ConnectionSettings::header_timeout`], in `Timed` |
//! | sends its body slowly | the body time-out of the append route |
//! | keeps an unused connection | [`ConnectionSettings::idle_timeout`], in `Timed` |
//! | does not read what it asked for | `TCP_USER_TIMEOUT`: [`ConnectionSettings::send_timeout`] |

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Response;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use socket2::SockRef;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tower::ServiceExt;

/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// Largest request head, and most bytes of an answer that wait in user space for the socket.
const BUFFER_BYTES_MAX: usize = 16 << 10;
/// How long accepting pauses when the system refuses, for want of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of connections.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// Most connections at one time; further ones wait in the listen queue.
    pub connections_max: usize,
    /// How long a request head may take to arrive.
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// How long sent bytes may stay unacknowledged, or the client's window closed.
    pub send_timeout: Duration,
    /// Kernel memory for what is sent and not yet acknowledged. *Units*: bytes.
    pub send_buffer_bytes: usize,
    /// How long requests may take to end once the server stops.
    pub drain_timeout: Duration,
}

/// Serves until `shutdown`, then lets requests end within the drain time.
///
/// The caller ends open streams itself, through the `closing` of the router.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: ConnectionSettings,
    shutdown: impl Future<Output = ()>,
) {
    let permits = Arc::new(Semaphore::new(settings.connections_max));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            (listener.accept().await, permit)
        };
        let (socket, permit) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accepted => accepted,
        };
        let socket = match socket {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = bound(&socket, &settings) {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a connection ended before it was set up"
            );
            continue;
        }
        let connection = graceful.watch(connection(socket, router.clone(), &settings));
        connections.spawn(async move {
            // A connection that breaks is the client's affair; what it was promised is in the log.
            if let Err(error) = connection.await {
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection broke");
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(settings.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections were cut at the end of the drain time");
    }
    connections.shutdown().await;
}

/// Bounds what the kernel holds for a reader that does not read.
fn bound(socket: &TcpStream, settings: &ConnectionSettings) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_send_buffer_size(settings.send_buffer_bytes)?;
    socket.set_tcp_user_timeout(Some(settings.send_timeout))
}

fn connection(
    socket: TcpStream,
    router: Router,
    settings: &ConnectionSettings,
) -> http1::Connection<
    TokioIo<Timed>,
    impl hyper::service::Service<
        Request<Incoming>,
        Response = Response<Serving>,
        Error = std::convert::Infallible,
        Future: Send,
    > + use<>,
> {
    let phase = Arc::new(Phase::default());
    let io = TokioIo::new(Timed {
        socket,
        phase: phase.clone(),
        timer: Box::pin(tokio::time::sleep(settings.header_timeout)),
        armed: Some(Phase::HEAD),
        has_spoken: false,
        header_timeout: settings.header_timeout,
        idle_timeout: settings.idle_timeout,
    });
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        phase.set(Phase::SERVING);
        let end = PhaseEnd(phase.clone());
        let router = router.clone();
        async move { Ok(router.oneshot(request.map(Body::new)).await?.map(|body| Serving { body, _end: end })) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        // `Timed` holds both times, which hyper's one timer cannot tell apart. It is set all the same, beyond both:
        // only then does hyper read again after an answer, and so let `Timed` begin the idle time.
        .header_read_timeout(settings.idle_timeout + settings.header_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(io, service)
}

/// What a connection is doing, shared by its socket and its service.
#[derive(Debug, Default)]
struct Phase(AtomicU8);

impl Phase {
    /// Between requests.
    const IDLE: u8 = 0;
    /// Part of a request head has come.
    const HEAD: u8 = 1;
    /// A request is being answered; its body and its stream have bounds of their own.
    const SERVING: u8 = 2;

    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Goes with an answer; when that is gone, sent or not, the connection is between requests.
struct PhaseEnd(Arc<Phase>);

impl Drop for PhaseEnd {
    fn drop(&mut self) {
        self.0.set(Phase::IDLE);
    }
}

/// The body of an answer.
struct Serving {
    body: Body,
    _end: PhaseEnd,
}

impl HttpBody for Serving {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket whose reads are timed by what the connection is doing.
struct Timed {
    socket: TcpStream,
    phase: Arc<Phase>,
    timer: Pin<Box<Sleep>>,
    /// The phase that the timer runs for.
    armed: Option<u8>,
    /// A first byte has come. Until then the head's time runs from the beginning: who connects and says nothing has no
    /// longer than who speaks slowly.
    has_spoken: bool,
    header_timeout: Duration,
    idle_timeout: Duration,
}

impl Timed {
    fn arm(&mut self, phase: u8) {
        if phase == Phase::SERVING || self.armed == Some(phase) {
            return;
        }
        let timeout = if phase == Phase::HEAD { self.header_timeout } else { self.idle_timeout };
        self.timer.as_mut().reset(Instant::now() + timeout);
        self.armed = Some(phase);
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let filled = buffer.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(cx, buffer);
        let has_read = buffer.filled().len() > filled;
        match this.phase.get() {
            Phase::SERVING => {
                this.armed = None;
                return read;
            }
            Phase::IDLE if has_read => {
                this.phase.set(Phase::HEAD);
                this.armed = if this.has_spoken { None } else { Some(Phase::HEAD) };
                this.has_spoken = true;
            }
            _ => {}
        }
        if this.has_spoken {
            this.arm(this.phase.get());
        }
        if read.is_pending() && this.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client was silent for too long",
            )));
        }
        read
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
