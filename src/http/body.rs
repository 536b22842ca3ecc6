//! Reading a request body: bounded in bytes and time, refused before it is sent where the headers already say too much.

use super::{HttpSettings, Problem, ProblemCode};
use axum::BoxError;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Most bytes that are read of a body that is refused. As many as the largest body that a setting allows.
const DISCARDED_BYTES_MAX: u64 = 64 << 20;

tokio::task_local! {
    /// In the task of a request that shares its connection with others: the room for the bodies of all of them.
    pub(super) static ROOM: Arc<Room>;
}

/// What the bodies of a connection's requests may hold together while they arrive. A body without room waits, and the
/// client with it: what is not taken keeps its window closed.
///
/// Parts of many bodies may fill the room, with none of them whole. So there is one turn beside it: whose turn it is needs
/// no room for the rest, and gives both back in the end, which the body time-out brings if nothing else does.
#[derive(Debug)]
pub(super) struct Room {
    /// Woken in order of asking, as bodies are read to their end or given up.
    bytes: Semaphore,
    turn: Semaphore,
}

impl Room {
    /// Room for so many bytes, and the rest of one body.
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes: Semaphore::new(bytes), turn: Semaphore::new(1) }
    }
}

/// The part of a room that one body holds.
struct Share<'r> {
    room: &'r Room,
    bytes: Option<SemaphorePermit<'r>>,
    turn: Option<SemaphorePermit<'r>>,
}

impl<'r> Share<'r> {
    /// Waits until so many bytes more have room, or it is this body's turn.
    async fn grow(&mut self, bytes: usize) {
        const OPEN: &str = "the room is never closed";
        if self.turn.is_some() {
            return;
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            more = self.room.bytes.acquire_many(bytes) => match (&mut self.bytes, more.expect(OPEN)) {
                (Some(held), more) => held.merge(more),
                (none, more) => *none = Some(more),
            },
            turn = self.room.turn.acquire() => self.turn = Some(turn.expect(OPEN)),
        }
    }
}

/// The whole body.
///
/// *Errors*: 413 beyond the limit (before a `100 Continue` where Content-Length tells), 408 when it takes too long, 415
/// for a content encoding, 400 when the connection broke.
pub(super) async fn read<B>(headers: &HeaderMap, body: B, settings: &HttpSettings) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let detail = "send the body without Content-Encoding";
        return Err(Problem::new(ProblemCode::ContentEncodingUnsupported, detail));
    }
    let bytes_max = settings.batch_bytes_max;
    let too_large = || {
        let detail = format!("send at most {bytes_max} bytes, in several requests");
        Problem::new(ProblemCode::BodyTooLarge, detail).with("bytes_max", bytes_max)
    };
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large());
    }
    let body = Limited::new(body, bytes_max);
    let collected = async {
        match ROOM.try_with(Arc::clone) {
            // In a box, as only requests of HTTP/2 have a room, and every future has space for the larger branch.
            Ok(room) => Box::pin(collect_within(&room, body)).await,
            Err(_) => body.collect().await.map(|collected| collected.to_bytes()),
        }
    };
    match tokio::time::timeout(settings.body_timeout, collected).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(ProblemCode::RequestInvalid, "the body ended before it was complete")),
        Err(_) => {
            let seconds = settings.body_timeout.as_secs();
            let detail = format!("send the whole body within {seconds} seconds");
            Err(Problem::new(ProblemCode::RequestTimeout, detail))
        }
    }
}

/// The whole body, its parts taken as there is room.
async fn collect_within<B>(room: &Room, body: B) -> Result<Bytes, B::Error>
where
    B: Body<Data = Bytes>,
{
    let mut share = Share { room, bytes: None, turn: None };
    let mut body = pin!(body);
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // What is no data is a trailer, of no meaning here.
        if let Ok(data) = frame?.into_data() {
            share.grow(data.len()).await;
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

/// Reads what is left of the body of a refused request, within bounds, and drops it.
///
/// A connection that is closed with bytes unread is reset: a client that sends before it reads, as proxies do, would see
/// that and not the refusal. Whoever has asked whether to send has been answered, and sends nothing.
pub(super) async fn discard(headers: &HeaderMap, body: &mut Incoming, settings: &HttpSettings) {
    let announced = body.size_hint().exact();
    if headers.contains_key(header::EXPECT) || announced.is_some_and(|bytes| bytes > DISCARDED_BYTES_MAX) {
        return;
    }
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if bytes > DISCARDED_BYTES_MAX {
                break;
            }
        }
    };
    // However it ends, the answer is the refusal; where the next request begins is then hyper's to know.
    let _ = tokio::time::timeout(settings.body_timeout, rest).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use std::convert::Infallible;
    use tokio::sync::mpsc::{Receiver, Sender, channel};

    /// A body of what is sent, and the sender.
    fn body() -> (Sender<&'static str>, impl Body<Data = Bytes, Error = Infallible>) {
        let (sender, receiver) = channel::<&'static str>(4);
        let parts = stream::unfold(receiver, |mut receiver: Receiver<&'static str>| async {
            let part = receiver.recv().await?;
            Some((Ok(Frame::data(Bytes::from(part))), receiver))
        });
        (sender, StreamBody::new(parts))
    }

    #[test]
    fn bodies_that_have_filled_the_room_wait_and_are_all_read_in_turn() {
        let room = Room::new(8);
        let mut bodies: Vec<_> = (0..4)
            .map(|_| {
                let (sender, body) = body();
                (Some(sender), Box::pin(collect_within(&room, body)))
            })
            .collect();
        for (sender, body) in &mut bodies {
            for part in ["abcd", "ef"] {
                sender.as_ref().unwrap().try_send(part).unwrap();
            }
            assert!(body.now_or_never().is_none());
        }
        // The first has had room for both its parts, and the second has the turn.
        let left: Vec<_> = bodies.iter().map(|(sender, _)| 4 - sender.as_ref().unwrap().capacity()).collect();
        assert_eq!(left, [0, 0, 1, 1], "nobody takes a part before the one in hand has room");
        // The first comes to its end last of all. Each round ends one body at least, or they wait for one another for ever.
        let mut first = bodies.remove(0);
        bodies.iter_mut().for_each(|(sender, _)| *sender = None);
        for _ in 0..3 {
            bodies.retain_mut(|(_, body)| match body.now_or_never() {
                Some(read) => read != Ok(Bytes::from("abcdef")),
                None => true,
            });
        }
        assert!(bodies.is_empty());
        first.0 = None;
        assert_eq!(first.1.now_or_never(), Some(Ok(Bytes::from("abcdef"))));
        assert_eq!((room.bytes.available_permits(), room.turn.available_permits()), (8, 1));
    }

    #[test]
    fn body_that_is_given_up_makes_room() {
        let room = Room::new(1);
        let (one, first) = body();
        let (other, second) = body();
        let (mut first, mut second) =
            (Box::pin(collect_within(&room, first)), Box::pin(collect_within(&room, second)));
        for (sender, body) in [(&one, &mut first), (&other, &mut second)] {
            sender.try_send("abc").unwrap();
            sender.try_send("def").unwrap();
            assert!(body.now_or_never().is_none());
        }
        assert_eq!((one.capacity(), other.capacity()), (4, 3));
        drop(first);
        drop(other);
        assert_eq!(second.now_or_never(), Some(Ok(Bytes::from("abcdef"))));
    }
}
