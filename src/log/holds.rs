//! Legal holds: no trim passes the oldest event of a stream that is held.

use super::writer::Command;
use super::{AppendError, Log};
use crate::event::{Origin, StreamName};
use crate::store::{HeldStream, Hold, StoreError};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Most holds at one time.
pub const HOLDS_MAX: usize = 1_000;

/// A hold was not set or released.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The stream has a hold of this name for another reason.
    #[error("the stream has a hold of this name for another reason")]
    Differs(Box<Hold>),
    /// There are [`HOLDS_MAX`] holds.
    #[error("there are {HOLDS_MAX} holds, the most there may be")]
    TooMany,
    /// There is no such hold.
    #[error("the stream has no hold of this name")]
    Unknown,
    /// The log did not commit it.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// What is asked of the writer.
#[derive(Debug)]
pub(super) struct HoldCommand {
    pub(super) stream: StreamName,
    pub(super) name: Arc<str>,
    pub(super) reason: Option<Arc<str>>,
    pub(super) is_release: bool,
    pub(super) origin: Option<Arc<Origin>>,
    pub(super) reply: oneshot::Sender<Result<(Hold, bool), HoldError>>,
}

impl Log {
    /// All holds, by stream and name.
    ///
    /// *Errors*: the table could not be read. *Cancel safety*: safe.
    pub async fn holds(&self) -> Result<Vec<HeldStream>, StoreError> {
        self.shared.store.holds(HOLDS_MAX).await
    }

    /// Holds a stream: no trim passes its oldest event until the hold is released. Durable when this returns, and told
    /// by an event of the stream `evertail`. True with it if it is new; the same hold again is no error.
    ///
    /// *Errors*: see [`HoldError`]. *Cancel safety*: dropping the future does not cancel it.
    pub async fn hold(
        &self,
        stream: StreamName,
        name: Arc<str>,
        reason: Arc<str>,
    ) -> Result<(Hold, bool), HoldError> {
        self.ask_for_hold(stream, name, Some(reason), false).await
    }

    /// Releases a hold, told by an event of the stream `evertail`, for a reason if there is one.
    ///
    /// *Errors*: see [`HoldError`]. *Cancel safety*: dropping the future does not cancel it.
    pub async fn release(
        &self,
        stream: StreamName,
        name: Arc<str>,
        reason: Option<Arc<str>>,
    ) -> Result<Hold, HoldError> {
        Ok(self.ask_for_hold(stream, name, reason, true).await?.0)
    }

    async fn ask_for_hold(
        &self,
        stream: StreamName,
        name: Arc<str>,
        reason: Option<Arc<str>>,
        is_release: bool,
    ) -> Result<(Hold, bool), HoldError> {
        let (reply, answer) = oneshot::channel();
        let command = HoldCommand { stream, name, reason, is_release, origin: self.origin.clone(), reply };
        self.ask(Command::Hold(command)).await?;
        answer.await.unwrap_or(Err(HoldError::Append(AppendError::Unavailable)))
    }
}
