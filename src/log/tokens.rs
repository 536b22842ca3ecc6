//! API tokens: kept in the log's file, changed by its writer, and each change an event of the stream `evertail`.
//!
//! The log knows a token by its id and keeps the hash; what a token looks like, and whether one is right, is `auth`'s.

use super::writer::Command;
use super::{AppendError, Log};
use crate::event::{Origin, Timestamp};
use crate::store::StoredToken;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// Most tokens that are neither revoked nor expired.
pub const TOKENS_MAX: usize = 10_000;

/// All tokens by id, revoked and expired ones too.
pub type TokenTable = HashMap<Arc<str>, StoredToken>;

/// A token was not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There are [`TOKENS_MAX`] tokens.
    #[error("there are {TOKENS_MAX} tokens, the most there may be")]
    TooMany,
    /// There is no such token.
    #[error("there is no token of this id")]
    Unknown,
    /// The log did not commit it.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// What is asked of the writer.
#[derive(Debug)]
pub(super) struct TokenCommand {
    pub(super) change: TokenChange,
    pub(super) origin: Option<Arc<Origin>>,
    pub(super) reply: oneshot::Sender<Result<StoredToken, TokenError>>,
}

#[derive(Debug)]
pub(super) enum TokenChange {
    Create(Box<StoredToken>),
    Revoke(Arc<str>),
}

/// The key of `meta.seal_key`. It is shown nowhere.
#[derive(Clone)]
pub(super) struct SealKey(Arc<str>);

impl SealKey {
    pub(super) fn new(key: String) -> Self {
        Self(Arc::from(key))
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

pub(super) fn table(tokens: Vec<StoredToken>) -> Arc<TokenTable> {
    Arc::new(tokens.into_iter().map(|token| (token.id.clone(), token)).collect())
}

/// Whether someone may come in by it.
pub(super) fn is_live(token: &StoredToken, now: Timestamp) -> bool {
    token.revoked_at.is_none() && token.expires_at.is_none_or(|expires_at| expires_at > now)
}

impl Log {
    /// The tokens as they are now and become. What another process changes in the file is seen too, within about a second.
    pub fn tokens(&self) -> watch::Receiver<Arc<TokenTable>> {
        self.shared.tokens.subscribe()
    }

    /// The key that sessions and tickets of this log are sealed with. Not for any log or answer.
    pub fn seal_key(&self) -> Arc<str> {
        self.shared.seal_key.0.clone()
    }

    /// Adds a token. Durable and in force when this returns, and told by an event of the stream `evertail`. The log says
    /// since when it is.
    ///
    /// *Errors*: see [`TokenError`]. *Cancel safety*: dropping the future does not cancel it.
    pub async fn create_token(&self, token: StoredToken) -> Result<StoredToken, TokenError> {
        self.ask_for_token(TokenChange::Create(Box::new(token))).await
    }

    /// Revokes a token, told by an event of the stream `evertail`; revoking it again is no error and tells nothing.
    ///
    /// *Errors*: see [`TokenError`]. *Cancel safety*: dropping the future does not cancel it.
    pub async fn revoke_token(&self, id: Arc<str>) -> Result<StoredToken, TokenError> {
        self.ask_for_token(TokenChange::Revoke(id)).await
    }

    async fn ask_for_token(&self, change: TokenChange) -> Result<StoredToken, TokenError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Token(TokenCommand { change, origin: self.origin.clone(), reply })).await?;
        answer.await.unwrap_or(Err(TokenError::Append(AppendError::Unavailable)))
    }
}
