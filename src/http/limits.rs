//! Who may have how much at a time: connections and event streams of a client, requests in a second, pages of history.
//!
//! A client is a credential, or else an address, of IPv6 the /64 that one customer has. What comes from this machine itself
//! has no limit of its own: it is a tool, a test or a proxy that was not named in `EVERTAIL_TRUSTED_PROXIES`.

use super::listen::Peer;
use super::{App, Caller, Problem, ProblemCode};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The reason in the notice of a stream for which there is no place.
pub(super) const OVERLOADED: &str = "overloaded";
/// The reason in the notice of a stream whose client has asked too often.
const RATE_LIMITED: &str = "rate_limited";

/// From how many clients on those that have been quiet are forgotten.
const CLIENTS_REMEMBERED: usize = 10_000;
/// Pages of history that one client may be reading at a time, however many streams it has open.
const HISTORY_PAGES_MAX: usize = 1;

/// How much each client may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitSettings {
    /// Connections of one address; `None` for no limit.
    pub address_connections_max: Option<usize>,
    /// Event streams of one client; `None` for no limit.
    pub client_streams_max: Option<usize>,
    /// Requests of one client in a second, of which as many may come at once; `None` for no limit.
    pub client_requests_per_second: Option<NonZeroU32>,
    /// How long an event stream lasts, and up to a tenth less; `None` for ever.
    pub stream_age_max: Option<Duration>,
    /// What comes from this machine is limited too.
    pub counts_this_machine: bool,
}

/// Whom a limit is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// Who shows no credential.
    Address(IpAddr),
    /// The id of a credential.
    Credential(Arc<str>),
}

impl Client {
    /// `None` for this machine, unless it counts.
    pub(super) fn of_address(address: IpAddr, settings: &LimitSettings) -> Option<Self> {
        let address = address.to_canonical();
        if address.is_loopback() && !settings.counts_this_machine {
            return None;
        }
        Some(Self::Address(match address {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        }))
    }
}

/// Why a request is not looked at now: the problem, and the word for it in a notice.
pub(super) fn refusal(app: &App, peer: Peer, caller: &Caller) -> Option<(Problem, &'static str)> {
    if peer.is_turned_away {
        let detail =
            "there are as many connections as there may be, of all clients or of this one; come back later";
        return Some((Problem::new(ProblemCode::ConnectionsFull, detail), OVERLOADED));
    }
    rate(app, caller)
}

/// Why a request is one too many of its client.
pub(super) fn rate(app: &App, caller: &Caller) -> Option<(Problem, &'static str)> {
    if app.limits.request(caller.client.as_ref()) {
        return None;
    }
    let max = app.settings.limits.client_requests_per_second.map(NonZeroU32::get);
    let detail = "repeat more slowly; nothing was done";
    let problem = Problem::new(ProblemCode::RateLimited, detail).with("requests_per_second_max", max);
    Some((problem, RATE_LIMITED))
}

/// Keeps the limits.
#[derive(Debug)]
pub(super) struct Limits {
    connections: Counts,
    streams: Counts,
    requests: Option<DefaultKeyedRateLimiter<Client>>,
    history: Mutex<HashMap<Client, Weak<Semaphore>>>,
}

impl Limits {
    pub(super) fn new(settings: &LimitSettings) -> Self {
        Self {
            connections: Counts::new(settings.address_connections_max),
            streams: Counts::new(settings.client_streams_max),
            requests: settings
                .client_requests_per_second
                .map(|count| RateLimiter::keyed(Quota::per_second(count))),
            history: Mutex::default(),
        }
    }

    /// A place for a connection; `None` if the client has as many as it may.
    pub(super) fn connection(&self, client: Option<&Client>) -> Option<Held> {
        self.connections.hold(client)
    }

    /// A place for an event stream; `None` if the client has as many as it may.
    pub(super) fn stream(&self, client: Option<&Client>) -> Option<Held> {
        self.streams.hold(client)
    }

    /// Whether the client may make a request now. If not, it may within a second.
    fn request(&self, client: Option<&Client>) -> bool {
        let (Some(requests), Some(client)) = (&self.requests, client) else { return true };
        if requests.len() > CLIENTS_REMEMBERED {
            requests.retain_recent();
        }
        requests.check_key(client).is_ok()
    }

    /// What all readers of a client share while they read history, so that whoever opens many gets no more of it.
    pub(super) fn history(&self, client: Option<&Client>) -> Option<Arc<Semaphore>> {
        let client = client?;
        let mut shares = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(client).and_then(Weak::upgrade) {
            return Some(share);
        }
        if shares.len() > CLIENTS_REMEMBERED {
            shares.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(HISTORY_PAGES_MAX));
        shares.insert(client.clone(), Arc::downgrade(&share));
        Some(share)
    }
}

/// How many of something each has.
#[derive(Debug)]
struct Counts {
    max: Option<usize>,
    held: Arc<Places>,
}

type Places = Mutex<HashMap<Client, usize>>;

/// A place that is held while this lives.
#[derive(Debug)]
pub(super) struct Held {
    place: Option<(Client, Arc<Places>)>,
}

impl Counts {
    fn new(max: Option<usize>) -> Self {
        Self { max, held: Arc::default() }
    }

    fn hold(&self, key: Option<&Client>) -> Option<Held> {
        let (Some(max), Some(key)) = (self.max, key) else { return Some(Held { place: None }) };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(key).copied().unwrap_or(0);
        if count >= max {
            return None;
        }
        held.insert(key.clone(), count + 1);
        Some(Held { place: Some((key.clone(), self.held.clone())) })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some((key, held)) = self.place.take() else { return };
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(held.remove(&key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Option<Client> {
        Client::of_address(address.parse().unwrap(), &LimitSettings::default())
    }

    fn limits(connections: usize, requests: u32) -> Limits {
        Limits::new(&LimitSettings {
            address_connections_max: Some(connections),
            client_streams_max: None,
            client_requests_per_second: NonZeroU32::new(requests),
            ..LimitSettings::default()
        })
    }

    #[test]
    fn a_client_is_an_address_or_the_network_of_a_customer() {
        assert_eq!(client("127.0.0.1"), None);
        assert_eq!(client("::1"), None);
        assert_eq!(client("::ffff:127.0.0.1"), None);
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_eq!(client("2001:db8:1:2:3::4"), client("2001:db8:1:2:ffff::1"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }

    #[test]
    fn a_place_is_free_again_when_it_is_left() {
        let limits = limits(2, 0);
        let (one, other) = (client("192.0.2.1"), client("192.0.2.2"));
        let first = limits.connection(one.as_ref()).unwrap();
        let second = limits.connection(one.as_ref()).unwrap();
        assert!(limits.connection(one.as_ref()).is_none());
        assert!(limits.connection(other.as_ref()).is_some());
        assert!(limits.connection(None).is_some());
        drop(second);
        assert!(limits.connection(one.as_ref()).is_some());
        drop(first);
        assert!(limits.connections.held.lock().unwrap().is_empty());
    }

    #[test]
    fn requests_beyond_those_of_a_second_wait() {
        let limits = limits(1, 3);
        let one = client("192.0.2.1");
        for _ in 0..3 {
            assert!(limits.request(one.as_ref()));
        }
        assert!(!limits.request(one.as_ref()));
        assert!(limits.request(client("192.0.2.2").as_ref()));
        assert!(limits.request(None));
    }

    #[test]
    fn readers_of_a_client_share_one_place() {
        let limits = limits(1, 0);
        let one = client("192.0.2.1");
        let share = limits.history(one.as_ref()).unwrap();
        assert!(Arc::ptr_eq(&share, &limits.history(one.as_ref()).unwrap()));
        assert!(limits.history(None).is_none());
        drop(share);
        assert!(limits.history(one.as_ref()).is_some());
    }
}
