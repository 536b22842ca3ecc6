//! One connection: the handshake of TLS, where there is one, then HTTP/2 (see `http2`) or HTTP/1.1, of which this is:
//! its requests through hyper, then, if one of them opens an event stream, that stream alone.
//!
//! hyper keeps 10 KB for a connection and several allocations for each chunk, which is nothing for a request and a lot
//! for 10,000 readers. So an event stream takes its socket from hyper, and everything else of the connection is freed.
//!
//! | a client that | is ended by |
//! |---|---|
//! | does not finish the handshake of TLS | [`ConnectionSettings::header_timeout`], for handshake and request head together |
//! | sends its request head slowly, or nothing at first | [`ConnectionSettings::header_timeout`] |
//! | sends its body slowly | the body time-out of the append route |
//! | keeps an unused connection | [`ConnectionSettings::idle_timeout`] |
//! | does not read what it asked for | `TCP_USER_TIMEOUT`: [`ConnectionSettings::send_timeout`] |

use super::ConnectionSettings;
use super::guard::OverTls;
use super::http2;
use super::listen::Peer;
use super::service::{AnswerBody, Service};
use super::socket::Socket;
use super::stream::EventStream;
use super::tls::Tls;
use super::transfer::{Alone, Transfer};
use axum::body::Body;
use axum::http::{Request, Response, Version};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::server::TlsStream;

/// The type of the record that begins TLS.
const HANDSHAKE_RECORD: u8 = 22;
/// The answer to a request without TLS. Not a problem with a code: it was never a request of the API.
const PLAIN_ANSWER: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\r\n\
    This port speaks TLS; use https.\n";

/// How long a stop waits for the first request of a connection that has just been made: it was let in, so it is answered. A
/// round trip, and more.
const FIRST_REQUEST_WAIT: Duration = Duration::from_secs(1);

/// A connection ended before its time; no affair of ours, since what was promised is in the log.
pub(super) type Broken = Box<dyn std::error::Error + Send + Sync>;

/// Serves a connection to its end, whatever it speaks. Once `stopping` is true it ends after the requests that are under way; open streams
/// are told by the `closing` of the service. `places` are those that streams on HTTP/2 share with connections.
pub(super) async fn serve(
    socket: TcpStream,
    peer: Peer,
    service: Service,
    settings: Arc<ConnectionSettings>,
    places: Arc<Semaphore>,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), Broken> {
    let since = Instant::now();
    let socket = match &settings.tls {
        None => Socket::Plain(socket),
        Some(tls) => {
            // In a box, as is what it makes: plain connections stay small.
            let shaking = Box::pin(timeout_at(since + settings.header_timeout, handshake(tls, socket)));
            let shaken = tokio::select! {
                biased;
                shaken = shaking => shaken.map_err(|_| "the client did not finish the handshake in time")?,
                // Nothing was asked yet.
                _ = stopping.wait_for(|is_stopping| *is_stopping) => return Ok(()),
            };
            let Some(socket) = shaken? else { return Ok(()) };
            let is_http2 = socket.get_ref().1.alpn_protocol() == Some(b"h2");
            let socket = Socket::Tls(socket);
            if is_http2 {
                return Box::pin(http2::serve(socket, peer, service, settings, places, stopping, since))
                    .await;
            }
            socket
        }
    };
    serve_http1(socket, peer, service, settings, stopping, since).await
}

/// The start of TLS; `None` for a client that does not speak it, and has been told.
async fn handshake(tls: &Tls, mut socket: TcpStream) -> Result<Option<Box<TlsStream<TcpStream>>>, Broken> {
    let mut first = [0];
    // Every client of TLS begins with a record of this type (RFC 8446, section 5.1), and no client of HTTP does.
    if socket.peek(&mut first).await? == 0 || first == [HANDSHAKE_RECORD] {
        return Ok(Some(Box::new(tls.accept(socket).await?)));
    }
    // What is not read would make the kernel take the answer back.
    let _ = socket.try_read(&mut [0; 4 << 10]);
    socket.write_all(PLAIN_ANSWER).await?;
    socket.shutdown().await?;
    Ok(None)
}

async fn serve_http1(
    socket: Socket,
    peer: Peer,
    service: Service,
    settings: Arc<ConnectionSettings>,
    stopping: watch::Receiver<bool>,
    since: Instant,
) -> Result<(), Broken> {
    let handle = settings.streams.clone();
    // In a box of its own, so that a stream does not carry along the room that its request needed.
    match Box::pin(requests(socket, peer, service, settings, stopping, since)).await? {
        Some((socket, Opened { version, response })) => {
            // Aborts the stream when this task is aborted.
            let mut streams = JoinSet::new();
            let socket = socket.detach()?;
            let sent = async move {
                let (head, stream) = response.into_parts();
                let transfer = Alone::begin(socket.attach()?, version, &head.headers).await?;
                stream.send(Transfer::Alone(transfer)).await
            };
            streams.spawn_on(sent, &handle);
            streams.join_next().await.expect("one was spawned")??;
            Ok(())
        }
        None => Ok(()),
    }
}

/// An event stream that is to take the connection over.
struct Opened {
    version: Version,
    response: Response<Box<EventStream>>,
}

/// Serves requests until the connection ends, or one opens an event stream.
async fn requests(
    socket: Socket,
    peer: Peer,
    service: Service,
    settings: Arc<ConnectionSettings>,
    mut stopping: watch::Receiver<bool>,
    since: Instant,
) -> Result<Option<(Socket, Opened)>, Broken> {
    let is_tls = socket.is_tls();
    let state = Arc::new(State::new(since));
    let io = TokioIo::new(Watched { socket, state: state.clone() });
    let of_service = state.clone();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let end = PhaseEnd::begin(of_service.clone());
        let service = service.clone();
        if is_tls {
            request.extensions_mut().insert(OverTls);
        }
        async move {
            let version = request.version();
            let (head, body) = service.answer(request, peer).await.into_parts();
            match body {
                AnswerBody::Whole(body) => {
                    Ok::<_, Infallible>(Response::from_parts(head, Serving { body, _end: end }))
                }
                AnswerBody::Stream(stream) => {
                    end.0.open(Opened { version, response: Response::from_parts(head, stream) });
                    // The connection is taken from under this future.
                    pending().await
                }
            }
        }
    });
    let mut connection = http1::Builder::new()
        .max_headers(settings.headers_max)
        // Also the most bytes of an answer that wait in user space for the socket.
        .max_buf_size(settings.header_bytes_max)
        // Most answers are small: copied behind their head they are cheaper to send than as two pieces.
        .writev(false)
        .serve_connection(io, service);
    let mut stopped = pin!(stopping.wait_for(|is_stopping| *is_stopping));
    // When the connection is to end by itself; `None` before the server stops, and after it was told so.
    let mut leaves_at = None;
    let mut is_stopping = false;
    // Moved forward only when it rings, so that a busy connection does not touch the timer for each request.
    let mut timer = pin!(sleep_until(state.deadline(&settings).unwrap_or_else(Instant::now)));
    let opened = poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(ended.map(|()| None).map_err(Broken::from));
            }
            if let Some(opened) = state.take() {
                return Poll::Ready(Ok(Some(opened)));
            }
            if !is_stopping && stopped.as_mut().poll(cx).is_ready() {
                is_stopping = true;
                leaves_at = Some(Instant::now() + FIRST_REQUEST_WAIT);
            }
            match leaves_at {
                Some(at) if !state.is_new() || at <= Instant::now() => {
                    leaves_at = None;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                _ => break,
            }
        }
        let deadline = state.deadline(&settings).into_iter().chain(leaves_at).min();
        if let Some(deadline) = deadline.filter(|deadline| *deadline < timer.deadline()) {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if leaves_at.is_some_and(|at| at <= now) {
                cx.waker().wake_by_ref();
                break;
            }
            match state.deadline(&settings) {
                Some(deadline) if deadline <= now => {
                    return Poll::Ready(Err("the client was silent for too long".into()));
                }
                Some(deadline) => timer.as_mut().reset(deadline),
                None => timer.as_mut().reset(now + settings.idle_timeout),
            }
        }
        Poll::Pending
    })
    .await?;
    Ok(opened.map(|opened| (connection.into_parts().io.into_inner().socket, opened)))
}

/// What a connection is doing; shared by its socket, its service and its time-outs, all within one task.
struct State(Mutex<Inner>);

struct Inner {
    phase: Phase,
    since: Instant,
    opened: Option<Opened>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has come yet. Counts as a head: who connects and says nothing has no longer than who speaks slowly.
    New,
    /// Between requests.
    Idle,
    /// Part of a request head has come.
    Head,
    /// A request is being answered; its body has a bound of its own.
    Serving,
}

impl State {
    fn new(since: Instant) -> Self {
        Self(Mutex::new(Inner { phase: Phase::New, since, opened: None }))
    }

    /// Until when the client must have spoken, if it is its turn.
    fn deadline(&self, settings: &ConnectionSettings) -> Option<Instant> {
        let inner = self.inner();
        match inner.phase {
            Phase::New | Phase::Head => Some(inner.since + settings.header_timeout),
            Phase::Idle => Some(inner.since + settings.idle_timeout),
            Phase::Serving => None,
        }
    }

    /// Whether nothing has come yet.
    fn is_new(&self) -> bool {
        self.inner().phase == Phase::New
    }

    /// Bytes have come from the client.
    fn hear(&self) {
        let mut inner = self.inner();
        match inner.phase {
            Phase::New => inner.phase = Phase::Head,
            Phase::Idle => {
                inner.phase = Phase::Head;
                inner.since = Instant::now();
            }
            Phase::Head | Phase::Serving => {}
        }
    }

    fn open(&self, opened: Opened) {
        self.inner().opened = Some(opened);
    }

    fn take(&self) -> Option<Opened> {
        self.inner().opened.take()
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Goes with an answer; when that is gone, sent or not, the connection is between requests.
struct PhaseEnd(Arc<State>);

impl PhaseEnd {
    fn begin(state: Arc<State>) -> Self {
        state.inner().phase = Phase::Serving;
        Self(state)
    }
}

impl Drop for PhaseEnd {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.phase = Phase::Idle;
        inner.since = Instant::now();
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

/// A socket that tells when the client speaks.
struct Watched {
    socket: Socket,
    state: Arc<State>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if buffer.filled().len() > filled {
            self.state.hear();
        }
        read
    }
}

impl AsyncWrite for Watched {
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
