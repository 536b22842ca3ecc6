//! What the log shows of its streams, totals of the table held back until they are durable; and the end of a stream.

use super::{Append, AppendError, ExpectedLastSeq, Log};
use crate::event::{Content, EventType, Pattern, Receipt, Seq, StreamName, quote};
use crate::store::{StoreError, StreamTotals};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long totals that are ahead of the log are waited for. The writer notices the commit of another process within its
/// notice interval, so more than this means that it cannot write.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

/// Streams could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum StreamsError {
    /// Another process has committed events that could not be made durable yet. Ask again.
    #[error("events of another process are not durable yet")]
    Ahead,
    /// The table could not be read.
    #[error("the table could not be read")]
    Store(#[from] StoreError),
}

impl Log {
    /// The streams that any of the patterns means, or all, by name, and of those what is granted, if not all is: at most so
    /// many that follow `after`.
    ///
    /// *Errors*: see [`StreamsError`]. *Cancel safety*: safe.
    pub async fn streams(
        &self,
        patterns: &[Pattern],
        granted: Option<&[Pattern]>,
        after: &str,
        count: usize,
    ) -> Result<Vec<StreamTotals>, StreamsError> {
        let mut bounds = self.shared.bounds.subscribe();
        let streams = self.shared.store.streams(patterns, granted, after, count).await?;
        // A commit is in the table before the log shows it. Another process's may not even be on disk: a total of it
        // could be gone after a crash.
        let newest = streams.iter().map(|stream| stream.last_seq).max().unwrap_or(0);
        match timeout(SHOWN_WITHIN, bounds.wait_for(|bounds| bounds.last_seq >= newest)).await {
            Ok(Ok(_)) => Ok(streams),
            _ => Err(StreamsError::Ahead),
        }
    }

    /// One stream; `None` if it never had an event.
    ///
    /// *Errors*: see [`StreamsError`]. *Cancel safety*: safe.
    pub async fn stream(&self, name: &StreamName) -> Result<Option<StreamTotals>, StreamsError> {
        let pattern = Pattern::Exact(name.as_str().to_owned());
        Ok(self.streams(&[pattern], None, "", 1).await?.pop())
    }

    /// Ends a stream: appends its final event, which has the reason as payload, and takes no other after it. Closing it
    /// again gives the receipt of that event, as a duplicate.
    ///
    /// *Errors*: as [`Log::append`]. *Cancel safety*: dropping the future never cancels the commit.
    pub async fn close_stream(
        &self,
        stream: StreamName,
        reason: Option<&str>,
        expected: Option<ExpectedLastSeq>,
    ) -> Result<Receipt, AppendError> {
        let mut content = Content::new(stream);
        content.r#type = EventType::closed();
        content.data = reason.map(|reason| Arc::from(format!("{{\"reason\":{}}}", quote(reason))));
        let receipts = self.append(Append { contents: vec![content], expected, origin: None }).await?;
        Ok(receipts.into_iter().next().expect("an event has a receipt"))
    }

    /// The final event of a stream, if the log shows that it is closed.
    ///
    /// *Errors*: the table could not be read. *Cancel safety*: safe.
    pub async fn closed_seq(&self, stream: &str) -> Result<Option<Seq>, StoreError> {
        let seq = self.shared.store.closed_seq(stream).await?;
        Ok(seq.filter(|seq| *seq <= self.bounds().last_seq))
    }
}
