//! What the writer does after the acks and while it is idle: trimming, the index, checkpoints. A step of each at a time,
//! so that appends wait for no more.

use super::{Failure, Trim, Writer, refuse};
use crate::event::Seq;
use crate::store::{CommitError, Trimmed};
use tokio::time::Instant;

impl Writer {
    /// What is due after the acks: trimming, the index, a checkpoint. A step of each, so that appends wait for no more.
    pub(super) async fn keep_up(&mut self) -> Result<(), Failure> {
        if let Some(time) = self.keeper.look(Instant::now()) {
            let bounds = *self.shared.bounds.borrow();
            let old = self.appender.cursor_before(time, bounds.first_seq, bounds.last_seq).await;
            self.keeper.found_old(old.map_err(|error| ("looking for old events", error.into()))?);
        }
        self.trim_step().await?;
        let trimmed_seq = self.shared.bounds.borrow().first_seq - 1;
        match self.appender.index_block(self.position.last_seq, trimmed_seq).await {
            // What cannot be indexed now is searched without the index.
            Ok(_) | Err(CommitError::Full | CommitError::Busy) => {}
            Err(error) => return Err(("indexing", error)),
        }
        match self.appender.checkpoint_if_due().await {
            Ok(()) => {}
            Err(error @ CommitError::Failed(_)) => return Err(("checkpointing", error)),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the WAL was not checkpointed and grows"
                );
            }
        }
        Ok(())
    }

    /// The last seq that retention does not keep.
    pub(super) fn beyond_retention(&self) -> Option<Seq> {
        let bounds = *self.shared.bounds.borrow();
        self.keeper.beyond(bounds.first_seq - 1, bounds.last_seq)
    }

    /// A trim of what there is now.
    pub(super) fn bounded(&self, trim: Trim) -> Trim {
        Trim { through: trim.through.min(self.shared.bounds.borrow().last_seq), ..trim }
    }

    /// One step of what is to be trimmed: trims, then tells the readers, then whoever has all that was asked for.
    async fn trim_step(&mut self) -> Result<(), Failure> {
        let asked = self.trims.iter().map(|trim| trim.through).max();
        let Some(through) = asked.max(self.beyond_retention()) else { return Ok(()) };
        let trimmed_seq = self.shared.bounds.borrow().first_seq - 1;
        if through > trimmed_seq {
            match self.appender.trim_step(trimmed_seq, through).await {
                Ok(Trimmed { trimmed_seq, bytes }) => {
                    self.keeper.take_bytes(bytes);
                    self.is_trim_refused = false;
                    self.shared.window.trim(trimmed_seq);
                    self.shared.bounds.send_modify(|bounds| bounds.first_seq = trimmed_seq + 1);
                    self.pulse.want();
                }
                Err(error) => {
                    let Some(refusal) = refuse(&error) else { return Err(("trimming", error)) };
                    if !self.is_trim_refused {
                        tracing::warn!(error = &error as &dyn std::error::Error, "nothing was trimmed");
                    }
                    self.is_trim_refused = true;
                    for trim in self.trims.drain(..) {
                        let _ = trim.reply.send(Err(refusal()));
                    }
                }
            }
        }
        let bounds = *self.shared.bounds.borrow();
        for trim in self.trims.extract_if(.., |trim| trim.through < bounds.first_seq) {
            let _ = trim.reply.send(Ok(bounds));
        }
        Ok(())
    }
}
