//! The accept loop: a task for each connection, bounded in number.
//!
//! `axum::serve` has no time-outs and no cap, so that half-sent requests and silent sockets stay open for ever.

use super::connection;
use super::service::Service;
use super::tls::Tls;
use socket2::SockRef;
use std::future::{Future, pending};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections that the kernel holds until they are accepted; it takes less where `net.core.somaxconn` is less.
///
/// One too many is not refused but dropped, and tries again after a second: thousands of readers that come back at
/// once must fit.
const BACKLOG: u32 = 4096;
/// Largest TCP segment. Taken over by the connections, and of effect only on loopback, where segments are of 64 KiB.
///
/// One such segment fills the send buffer of a stream, and the receiver leaves a single segment unacknowledged for 40 ms:
/// a reader of history got 5,000 events a second.
const SEGMENT_BYTES_MAX: u32 = 16 << 10;
/// How long accepting pauses when the system refuses, for want of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections are taken only to be told that there is no place for them, where there are so many places. Beyond
/// these, one too many is closed as it comes.
pub fn turned_away_max(connections_max: usize) -> usize {
    (connections_max / 8).clamp(1, 64)
}

/// How long a connection waits for a place before it is told that there is none: whoever makes room has mostly just left.
const PLACE_WAIT: Duration = Duration::from_secs(1);

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// There is no place for it: whatever it asks, it is told so, and the connection ends.
    pub(super) is_turned_away: bool,
}

/// Bounds of connections.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// Most connections at one time; further ones are told so. An event stream on HTTP/2 counts as one more and is turned
    /// away beyond it.
    pub connections_max: usize,
    /// Most headers of a request on HTTP/1.1; on HTTP/2 their bytes bound them.
    pub headers_max: usize,
    /// Largest request head, at least 8 KiB. *Units*: bytes.
    pub header_bytes_max: usize,
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
    /// Where open streams run. Apart from the requests, so that an append does not queue behind the thousands of readers
    /// that the append before it woke.
    pub streams: Handle,
    /// The certificate; without one, connections are plain.
    pub tls: Option<Tls>,
}

/// Listens on an address.
///
/// *Errors*: it is in use, or not an address of this machine.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    SockRef::from(&socket).set_tcp_mss(SEGMENT_BYTES_MAX)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Listens on a socket that someone else has bound, who keeps it: what connects while nobody serves on it waits there. How
/// many may wait is theirs to say.
///
/// *Errors*: it does not listen.
pub fn adopt(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    let socket = SockRef::from(&listener);
    if !socket.is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a connection"));
    }
    socket.set_tcp_mss(SEGMENT_BYTES_MAX)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Serves until `shutdown`, then lets requests end within the drain time.
///
/// The caller ends open streams itself, through the `closing` of the service.
pub async fn serve(
    listener: TcpListener,
    service: Service,
    settings: ConnectionSettings,
    shutdown: impl Future<Output = ()>,
) {
    let permits = Arc::new(Semaphore::new(settings.connections_max));
    let turned_away = Arc::new(Semaphore::new(turned_away_max(settings.connections_max)));
    service.note_connections_max(settings.connections_max);
    let settings = Arc::new(settings);
    let stopping = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let tls = settings.tls.clone();
    let mut watching = pin!(async {
        match &tls {
            Some(tls) => tls.watch().await,
            None => pending().await,
        }
    });
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            () = &mut watching => unreachable!("the certificate is watched for ever"),
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (socket, address) = match accepted {
            Ok((socket, peer)) => (socket, peer.ip()),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = bound(&socket, &settings) {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "a connection ended before it was set up");
            continue;
        }
        // Of all connections, and of those of this address.
        let (place, of_address) = (permits.clone().try_acquire_owned().ok(), service.place_of(address));
        let has_place = place.is_some() && of_address.is_some();
        let waiting = if has_place { None } else { turned_away.clone().try_acquire_owned().ok() };
        if !has_place && waiting.is_none() {
            continue;
        }
        let (service, settings) = (service.clone(), settings.clone());
        let (places, stopping) = (permits.clone(), stopping.subscribe());
        let connected = service.connected();
        connections.spawn(async move {
            let place = match place {
                None if of_address.is_some() => {
                    timeout(PLACE_WAIT, places.clone().acquire_owned()).await.ok().and_then(Result::ok)
                }
                place => place,
            };
            let is_turned_away = place.is_none() || of_address.is_none();
            let waiting = waiting.filter(|_| is_turned_away);
            let peer = Peer { address, is_turned_away };
            if let Err(error) = connection::serve(socket, peer, service, settings, places, stopping).await {
                tracing::debug!(error = &*error as &dyn std::error::Error, "a connection broke");
            }
            drop((place, of_address, waiting, connected));
        });
    }
    drop(listener);
    stopping.send_replace(true);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(settings.drain_timeout, ended).await.is_err() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_segments_are_smaller_than_the_send_buffer() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        for socket in [&client, &accepted] {
            assert!(SockRef::from(socket).tcp_mss().unwrap() <= SEGMENT_BYTES_MAX);
        }
    }
}
