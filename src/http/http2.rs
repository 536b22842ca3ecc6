//! One connection of HTTP/2: many requests and event streams at one time, so that a browser is not kept to six.
//!
//! Each request is a task. An event stream is sent by the same loop as on HTTP/1.1, on the threads of streams, and handed
//! to its answer chunk by chunk: there are never more than two chunks of it in memory that the client has not taken.
//!
//! | a client that | is ended by |
//! |---|---|
//! | opens no stream, or has none left | a GOAWAY after the header or the idle time-out, then the header time-out |
//! | sends its body slowly | the body time-out of the append route |
//! | sends many bodies at one time | nothing; they wait for room: [`BODIES_BYTES_MAX`] |
//! | lets an answer wait for its window | the reset of that answer after [`ConnectionSettings::send_timeout`] |
//! | is not there any more | a ping without its answer, or `TCP_USER_TIMEOUT` |
//! | opens streams and resets them (CVE-2023-44487) | [`RESETS_MAX`], [`ABANDONED_MAX`] |
//! | has streams reset by its own errors (CVE-2025-8671) | [`ERRORS_MAX`] |
//! | sends heads without end (CVE-2024-27316) | [`ConnectionSettings::header_bytes_max`], from which h2 takes its bound of CONTINUATION frames |
//! | sends frames that are empty or nearly | the budget of h2 0.4.16 and later |

use super::ConnectionSettings;
use super::body::{ROOM, Room};
use super::connection::Broken;
use super::guard::OverTls;
use super::listen::Peer;
use super::service::{AnswerBody, Service};
use super::socket::Socket;
use super::stream::came_with;
use super::transfer::{Transfer, TransferBody};
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, header};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Most requests and open streams of a connection at one time. Browsers open up to 100.
const STREAMS_MAX: u32 = 128;
/// Most requests that are reset before they were even looked at. A page that is left while it opens its streams resets
/// as many as it has.
const RESETS_MAX: usize = STREAMS_MAX as usize;
/// How many requests more may be given up by the client before they were answered than were answered.
const ABANDONED_MAX: u32 = STREAMS_MAX;
/// Most streams that the client's own errors may end.
const ERRORS_MAX: usize = 64;
/// Most tasks of a connection. A stream that was reset gives its place up at once, its task a moment later.
const TASKS_MAX: usize = 4 * STREAMS_MAX as usize;
/// What one request body may have under way before it is taken. All of a connection may have it at one time: else bodies
/// that wait for room would close the window of the one that they wait for. *Units*: bytes.
const RECEIVED_BYTES_MAX: u32 = 128 << 10;
/// What the request bodies of a connection may hold once they are taken, and the rest of one more. *Units*: bytes.
const BODIES_BYTES_MAX: usize = 8 << 20;
/// What one answer may have waiting for the socket. *Units*: bytes.
const SENT_BYTES_MAX: usize = 32 << 10;
/// Largest piece of an answer that is handed over at one time: its progress is seen between pieces. *Units*: bytes.
const PIECE_BYTES_MAX: usize = 16 << 10;

tokio::task_local! {
    /// In the task of a request: since when a piece of its answer waits to be taken.
    static WAITING_SINCE: Cell<Option<Instant>>;
}

/// Serves a connection to its end. `places` are those of open streams, of all connections. Once `stopping` is true no
/// more requests are taken, and the connection ends with the last of those that there are.
pub(super) async fn serve(
    socket: Socket,
    peer: Peer,
    service: Service,
    settings: Arc<ConnectionSettings>,
    places: Arc<Semaphore>,
    mut stopping: watch::Receiver<bool>,
    since: Instant,
) -> Result<(), Broken> {
    let requests = Arc::new(Requests::new(since));
    // Here alone, so that all tasks end with the connection.
    let tasks = Arc::new(Mutex::new(JoinSet::new()));
    let tasks_seen = Tasks {
        set: Arc::downgrade(&tasks),
        send_timeout: settings.send_timeout,
        room: Arc::new(Room::new(BODIES_BYTES_MAX)),
    };
    let answering = hyper::service::service_fn({
        let answering =
            Answering { peer, service, tasks: tasks_seen.clone(), places, streams: settings.streams.clone() };
        let requests = requests.clone();
        move |request| {
            let answering = answering.clone();
            let open = Open::begin(requests.clone());
            async move { Ok::<_, Infallible>(answering.answer(request, open).await) }
        }
    });
    let connection = http2::Builder::new(tasks_seen)
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(settings.header_bytes_max).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(ERRORS_MAX)
        .initial_stream_window_size(RECEIVED_BYTES_MAX)
        .initial_connection_window_size(RECEIVED_BYTES_MAX * STREAMS_MAX)
        .max_send_buf_size(SENT_BYTES_MAX)
        .keep_alive_interval(settings.send_timeout)
        .keep_alive_timeout(settings.send_timeout)
        .serve_connection(TokioIo::new(socket), answering);
    let mut connection = pin!(connection);
    let mut stopped = pin!(stopping.wait_for(|is_stopping| *is_stopping));
    let mut is_stopping = false;
    // When the client was asked to go, having nothing to do here.
    let mut dismissed: Option<Instant> = None;
    let mut timer = pin!(sleep_until(since + settings.header_timeout));
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended.map_err(Broken::from));
            }
            requests.check(&tasks)?;
            if !is_stopping && stopped.as_mut().poll(cx).is_ready() {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
                continue;
            }
            let now = Instant::now();
            let deadline = requests.deadline(&settings, dismissed);
            if deadline.is_some_and(|deadline| deadline <= now) {
                if dismissed.is_some() {
                    return Poll::Ready(Err("the client was silent for too long".into()));
                }
                dismissed = Some(now);
                connection.as_mut().graceful_shutdown();
                continue;
            }
            if let Some(deadline) = deadline.filter(|deadline| *deadline < timer.deadline()) {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            timer.as_mut().reset(deadline.unwrap_or(now + settings.idle_timeout));
        }
    })
    .await
}

/// What is needed to answer a request.
#[derive(Clone)]
struct Answering {
    peer: Peer,
    service: Service,
    tasks: Tasks,
    places: Arc<Semaphore>,
    streams: tokio::runtime::Handle,
}

impl Answering {
    async fn answer(self, mut request: Request<Incoming>, open: Open) -> Response<Http2Body> {
        request.extensions_mut().insert(OverTls);
        name_host(&mut request);
        let came_with = came_with(request.headers());
        let (mut head, body) = self.service.answer(request, self.peer).await.into_parts();
        // Says nothing here, and must not be sent (RFC 9113, section 8.2.2).
        head.headers.remove(header::CONNECTION);
        let source = match body {
            AnswerBody::Whole(body) => Source::Whole(body),
            AnswerBody::Stream(stream) => match self.places.try_acquire_owned() {
                Ok(place) => {
                    let (transfer, body) = Transfer::handed();
                    self.tasks.spawn_on(&self.streams, async move {
                        // Goes with the loop, which holds the memory.
                        let _place = place;
                        let _ = stream.send(transfer).await;
                    });
                    Source::Stream(body)
                }
                Err(_) => Source::Whole(Body::from(stream.turn_away(came_with))),
            },
        };
        let mut body = Http2Body { source, rest: Bytes::new(), open };
        // An empty body is not asked for.
        body.open.is_answered = body.is_end_stream();
        Response::from_parts(head, body)
    }
}

/// `:authority` is what `Host` is in HTTP/1.1 (RFC 9113, section 8.3.1). A `Host` that differs stays as a second one.
fn name_host(request: &mut Request<Incoming>) {
    let Some(authority) = request.uri().authority() else { return };
    let Ok(authority) = HeaderValue::try_from(authority.as_str()) else { return };
    if request.headers().get(header::HOST) != Some(&authority) {
        request.headers_mut().append(header::HOST, authority);
    }
}

/// The tasks of a connection, for as long as that is there.
#[derive(Clone)]
struct Tasks {
    set: Weak<Mutex<JoinSet<()>>>,
    send_timeout: Duration,
    room: Arc<Room>,
}

impl Tasks {
    fn spawn_on(&self, runtime: &tokio::runtime::Handle, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(set) = self.set.upgrade() {
            locked(&set).spawn_on(task, runtime);
        }
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    /// Runs the task of a request until its answer is sent, or waits too long for the client.
    fn execute(&self, task: F) {
        let send_timeout = self.send_timeout;
        let bounded = async move {
            tokio::select! {
                biased;
                () = task => {}
                // What is left of the task tells the client by a reset as it goes.
                () = stalled(send_timeout) => tracing::debug!("an answer was not taken in time"),
            }
        };
        if let Some(set) = self.set.upgrade() {
            let bounded = ROOM.scope(self.room.clone(), bounded);
            locked(&set).spawn(WAITING_SINCE.scope(Cell::new(None), bounded));
        }
    }
}

/// Waits until a piece of the answer has waited for so long.
async fn stalled(limit: Duration) {
    loop {
        let now = Instant::now();
        let since = WAITING_SINCE.with(Cell::get).unwrap_or(now);
        if since + limit <= now {
            return;
        }
        sleep_until(since + limit).await;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a connection is doing; shared by its time-outs and the tasks of its requests.
struct Requests(Mutex<Inner>);

struct Inner {
    /// Requests whose answer is not sent to its end.
    open: u32,
    /// When the last of them was, or the connection began.
    since: Instant,
    has_asked: bool,
    /// Requests that the client gave up before they were answered, less those that were.
    abandoned: u32,
}

impl Requests {
    fn new(since: Instant) -> Self {
        Self(Mutex::new(Inner { open: 0, since, has_asked: false, abandoned: 0 }))
    }

    /// Until when the client must have asked for something.
    fn deadline(&self, settings: &ConnectionSettings, dismissed: Option<Instant>) -> Option<Instant> {
        let inner = locked(&self.0);
        match dismissed {
            _ if inner.open > 0 => None,
            Some(dismissed) => Some(dismissed.max(inner.since) + settings.header_timeout),
            None if inner.has_asked => Some(inner.since + settings.idle_timeout),
            None => Some(inner.since + settings.header_timeout),
        }
    }

    /// *Errors*: the client makes work that it does not want done.
    fn check(&self, tasks: &Mutex<JoinSet<()>>) -> Result<(), Broken> {
        let mut tasks = locked(tasks);
        while tasks.try_join_next().is_some() {}
        if tasks.len() > TASKS_MAX || locked(&self.0).abandoned > ABANDONED_MAX {
            return Err("the client gave up too many requests".into());
        }
        Ok(())
    }
}

/// Goes with a request until its answer is sent or given up.
struct Open {
    requests: Arc<Requests>,
    is_answered: bool,
}

impl Open {
    fn begin(requests: Arc<Requests>) -> Self {
        let mut inner = locked(&requests.0);
        inner.open += 1;
        inner.has_asked = true;
        drop(inner);
        Self { requests, is_answered: false }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut inner = locked(&self.requests.0);
        inner.open -= 1;
        if inner.open == 0 {
            inner.since = Instant::now();
        }
        inner.abandoned =
            if self.is_answered { inner.abandoned.saturating_sub(1) } else { inner.abandoned + 1 };
    }
}

/// The body of an answer, in pieces.
struct Http2Body {
    source: Source,
    /// What is left of the chunk that the last piece was of.
    rest: Bytes,
    open: Open,
}

enum Source {
    Whole(Body),
    Stream(TransferBody),
}

impl HttpBody for Http2Body {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        // It is asked for once the head has gone, which it does not if the client has reset the stream.
        this.open.is_answered = true;
        // Whoever asks for more has had the piece before taken.
        let _ = WAITING_SINCE.try_with(|since| since.set(None));
        if this.rest.is_empty() {
            let polled = match &mut this.source {
                Source::Whole(body) => Pin::new(body).poll_frame(cx),
                Source::Stream(body) => {
                    body.poll_chunk(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
                }
            };
            match polled {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return other,
            }
        }
        let _ = WAITING_SINCE.try_with(|since| since.set(Some(Instant::now())));
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES_MAX));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(body) => self.rest.is_empty() && body.is_end_stream(),
            Source::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(body) if self.rest.is_empty() => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}
