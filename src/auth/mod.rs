//! Who may do what: credentials in, an [`Identity`] with its [`Grants`] out.
//!
//! Layer L2, beside `log`, whose file keeps the tokens. May import `event`, `log` and `wire`; knows no HTTP but the client that
//! fetches keys.
//!
//! | file | holds |
//! |---|---|
//! | `grant` | what someone may append to, read and administer |
//! | `identity` | who it is, and until when |
//! | `token` | API tokens: made, shown once, recognised by a hash |
//! | `jwt`, `keys`, `verify` | JSON Web Tokens: their claims; the keys, whose kind fixes the algorithm; the signatures |
//! | `seal` | sessions and tickets of pages: what the server itself signs |
//!
//! # What a credential is worth
//! Nothing here decides on a request. [`Auth::authenticate`] says who it is; `http` asks the grants, and narrows what is
//! read by them (`event::Selection::granted`). Whoever holds a stream open waits for [`Auth::ended`].

mod grant;
mod identity;
mod jwt;
mod keys;
mod seal;
mod token;
mod verify;

pub use grant::{Grants, GrantsError, PATTERNS_MAX};
pub use identity::{Identity, Refused};
pub use keys::{KeyError, KeySource};
pub use token::{Secret, TokenDraft, all_shown, shown};

use crate::event::{Pattern, StreamName, Timestamp};
use crate::log::{Log, TokenTable};
use identity::Basis;
use jwt::Jwts;
use seal::{Sealed, Seals};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// Longest life of a session of a page.
pub const SESSION_MAX: Duration = Duration::from_secs(24 * 3600);
/// Longest life of a ticket.
pub const TICKET_MAX: Duration = Duration::from_secs(24 * 3600);
/// How often the clock is looked at while someone waits for an end: it may be set.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How to authenticate.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// The keys of JSON Web Tokens, if those are taken.
    pub keys: Option<KeySource>,
    /// Who must have issued them (`iss`), if it matters.
    pub issuer: Option<String>,
    /// For whom they must be (`aud`).
    pub audience: String,
    /// Streams that everyone may read.
    pub anonymous_read: Vec<Pattern>,
}

/// What a client shows.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// An API token or a JSON Web Token.
    Bearer(&'a str),
    /// A session of a page.
    Session(&'a str),
    /// A ticket for this stream.
    Ticket(&'a str, &'a StreamName),
}

/// Authenticates the clients of one log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Auth(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    tokens: watch::Receiver<Arc<TokenTable>>,
    jwts: Option<Jwts>,
    seals: Seals,
    anonymous: Option<Arc<Identity>>,
}

impl Auth {
    /// Reads the keys. Where they are fetched and do not come, it goes on without them and asks again when they are needed.
    ///
    /// *Errors*: a key file cannot be read or used. *Cancel safety*: safe.
    pub async fn open(log: &Log, settings: AuthSettings) -> Result<Self, KeyError> {
        let AuthSettings { keys, issuer, audience, anonymous_read } = settings;
        let jwts = match keys {
            Some(source) => Some(Jwts::open(source, issuer, audience).await?),
            None => None,
        };
        let anonymous =
            (!anonymous_read.is_empty()).then(|| Arc::new(Identity::anonymous(anonymous_read.into())));
        let seals = Seals::new(log.seal_key().as_bytes());
        Ok(Self(Arc::new(Parts { tokens: log.tokens(), jwts, seals, anonymous })))
    }

    /// Reads or fetches the keys of JSON Web Tokens again, and tells how many there are; `None` where those are not taken. Who
    /// was let in by a key that is gone stays in until its token ends.
    ///
    /// *Errors*: the keys cannot be used; those before still are. *Cancel safety*: safe.
    pub async fn reload(&self) -> Result<Option<usize>, KeyError> {
        match &self.0.jwts {
            Some(jwts) => jwts.reload().await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether there is anyone who could come in.
    pub fn has_credentials(&self) -> bool {
        let now = Timestamp::now();
        let is_live = |token| identity::check_token(token, now).is_ok();
        self.0.jwts.is_some() || self.0.anonymous.is_some() || self.0.tokens.borrow().values().any(is_live)
    }

    /// Whether there is something that everyone may read.
    pub fn lets_anyone_read(&self) -> bool {
        self.0.anonymous.is_some()
    }

    /// Who shows this, or who comes with nothing.
    ///
    /// *Errors*: see [`Refused`]. *Cancel safety*: safe.
    pub async fn authenticate(&self, credential: Option<Credential<'_>>) -> Result<Arc<Identity>, Refused> {
        match credential {
            None => self.0.anonymous.clone().ok_or(Refused::Missing),
            Some(Credential::Bearer(text)) if token::is_token(text) => self.token(text),
            Some(Credential::Bearer(text)) => match &self.0.jwts {
                Some(jwts) => jwts.identity(text).await.map(Arc::new),
                None => Err(Refused::Invalid),
            },
            Some(Credential::Session(text)) => {
                self.sealed(self.0.seals.open(seal::Purpose::Session, text)?, None)
            }
            Some(Credential::Ticket(text, stream)) => {
                self.sealed(self.0.seals.open(seal::Purpose::Ticket, text)?, Some(stream))
            }
        }
    }

    fn token(&self, text: &str) -> Result<Arc<Identity>, Refused> {
        let (id, hash) = token::read(text).ok_or(Refused::Invalid)?;
        let tokens = self.0.tokens.borrow().clone();
        let token = tokens.get(id);
        // Compared even where there is none, so that a guess takes as long as a near miss.
        let is_it = token::is_same(token.map_or(&[0; 32], |token| &token.hash), &hash);
        match token {
            Some(token) if is_it => {
                identity::check_token(token, Timestamp::now())?;
                Ok(Arc::new(Identity::of_token(token)))
            }
            _ => Err(Refused::Invalid),
        }
    }

    /// Who holds what the server has sealed. What stands behind a token is looked up again.
    fn sealed(&self, sealed: Sealed, stream: Option<&StreamName>) -> Result<Arc<Identity>, Refused> {
        let now = Timestamp::now();
        if Timestamp::from_microseconds(sealed.until) <= now {
            return Err(Refused::Expired);
        }
        if sealed.stream.as_deref() != stream.map(StreamName::as_str) {
            return Err(Refused::Invalid);
        }
        let mut identity = match &sealed.token {
            Some(id) => {
                let tokens = self.0.tokens.borrow().clone();
                let token = tokens.get(id.as_str()).ok_or(Refused::Invalid)?;
                identity::check_token(token, now)?;
                Identity::of_token(token)
            }
            None => Identity::of_claims(&sealed).ok_or(Refused::Invalid)?,
        };
        match stream {
            // A ticket says when its stream may be opened; the credential, until when it is open.
            Some(stream) => identity.keep_to(stream),
            None => {
                let until = Timestamp::from_microseconds(sealed.until);
                identity.expires_at = Some(identity.expires_at.map_or(until, |end| end.min(until)));
            }
        }
        self.check(&identity)?;
        Ok(Arc::new(identity))
    }

    /// A session for whoever has shown a credential, and its length.
    pub fn session(&self, identity: &Identity) -> Option<(String, Duration)> {
        let (sealed, length) = seal(identity, SESSION_MAX, None)?;
        Some((self.0.seals.seal(seal::Purpose::Session, &sealed), length))
    }

    /// A ticket to open this stream for so long, and its length: no longer than the credential.
    pub fn ticket(
        &self,
        identity: &Identity,
        stream: &StreamName,
        length: Duration,
    ) -> Option<(String, Duration)> {
        let (sealed, length) = seal(identity, length.min(TICKET_MAX), Some(stream))?;
        Some((self.0.seals.seal(seal::Purpose::Ticket, &sealed), length))
    }

    /// Whether someone who was let in still would be.
    ///
    /// *Errors*: not any more, and why.
    pub fn check(&self, identity: &Identity) -> Result<(), Refused> {
        let now = Timestamp::now();
        if identity.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(Refused::Expired);
        }
        match &identity.basis {
            Basis::Token(id) => {
                let tokens = self.0.tokens.borrow();
                identity::check_token(tokens.get(id).ok_or(Refused::Invalid)?, now)
            }
            Basis::Claims(_) | Basis::Anonymous => Ok(()),
        }
    }

    /// Waits until the credential of someone who was let in does not hold any more, and says why.
    ///
    /// *Cancel safety*: safe.
    pub async fn ended(self, identity: Arc<Identity>) -> Refused {
        let mut tokens = self.0.tokens.clone();
        loop {
            tokens.mark_unchanged();
            if let Err(refused) = self.check(&identity) {
                return refused;
            }
            let left = identity.expires_at.map_or(LOOK_EVERY, |end| {
                let left = end.microseconds() - Timestamp::now().microseconds();
                Duration::from_micros(u64::try_from(left).unwrap_or(0) + 1_000)
            });
            tokio::select! {
                changed = tokens.changed(), if matches!(identity.basis, Basis::Token(_)) => {
                    // The log has closed; streams end for that.
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                () = sleep(left.min(LOOK_EVERY)) => {}
            }
        }
    }
}

/// What is sealed of someone: nothing for who has no credential.
fn seal(identity: &Identity, length: Duration, stream: Option<&StreamName>) -> Option<(Sealed, Duration)> {
    let now = Timestamp::now();
    let left = identity.expires_at.map(|end| end.microseconds() - now.microseconds());
    let left = left.map_or(Duration::MAX, |left| Duration::from_micros(u64::try_from(left).unwrap_or(0)));
    let length = length.min(left);
    let micros = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
    let until = now.microseconds().saturating_add(micros);
    let stream = stream.map(|stream| stream.as_str().to_owned());
    identity.sealed(until, stream).map(|sealed| (sealed, length))
}
