//! What the writer appends of its own accord: events of the stream `evertail`, in one transaction with what they tell of.

use super::{Failure, Knowledge, Writer, encode_during, plan, refuse};
use crate::event::{Content, Origin, Timestamp};
use crate::log::holds::{HOLDS_MAX, HoldCommand, HoldError};
use crate::log::plan::Append;
use crate::log::tokens::{TOKENS_MAX, TokenChange, TokenCommand, TokenError, is_live, table};
use crate::log::{AppendError, own};
use crate::store::{Appender, Cause, CommitError, Hold, StoreError};
use std::error::Error;
use std::sync::Arc;

impl Writer {
    /// Tells of what was trimmed for this cause. False if it cannot be told now; it stays to be told.
    pub(super) async fn tell(
        &mut self,
        cause: Cause,
        reason: Option<&str>,
        origin: Option<Arc<Origin>>,
    ) -> Result<bool, Failure> {
        let told = self.commit_own(origin, async |appender| {
            let untold = appender.take_untold(cause).await?;
            Ok((untold.iter().map(|trim| own::trimmed(trim, cause, reason)).collect(), ()))
        });
        Ok(told.await?.is_ok())
    }

    /// Sets or releases a hold, and answers whoever asked.
    pub(super) async fn change_hold(&mut self, command: HoldCommand) -> Result<(), Failure> {
        let HoldCommand { stream, name, reason, is_release, origin, reply } = command;
        let changed = self.commit_own(origin, async |appender| {
            let existing = appender.find_hold(&stream, &name).await.map_err(CommitError::Failed)?;
            if is_release {
                let Some(hold) = existing else { return Ok((Vec::new(), Err(HoldError::Unknown))) };
                appender.remove_hold(&stream, &name).await?;
                let told = own::released(&hold, reason.as_deref());
                return Ok((vec![told], Ok((hold, false))));
            }
            let reason = reason.unwrap_or_default();
            if let Some(hold) = existing {
                let is_same = hold.reason == reason;
                let answer =
                    if is_same { Ok((hold, false)) } else { Err(HoldError::Differs(Box::new(hold))) };
                return Ok((Vec::new(), answer));
            }
            if appender.count_holds().await.map_err(CommitError::Failed)? >= HOLDS_MAX as u64 {
                return Ok((Vec::new(), Err(HoldError::TooMany)));
            }
            let hold = Hold { stream, name, reason, created_at: Timestamp::now() };
            appender.add_hold(&hold).await?;
            Ok((vec![own::held(&hold)], Ok((hold, true))))
        });
        let answer = changed.await?.unwrap_or_else(|refusal| Err(refusal.into()));
        self.keeper.wake();
        let _ = reply.send(answer);
        Ok(())
    }

    /// Makes or revokes a token, and answers whoever asked once it is in force.
    pub(super) async fn change_token(&mut self, command: TokenCommand) -> Result<(), Failure> {
        let TokenCommand { change, origin, reply } = command;
        let changed = self.commit_own(origin, async |appender| {
            let tokens = appender.tokens().await.map_err(CommitError::Failed)?;
            let now = Timestamp::now();
            match change {
                TokenChange::Create(mut token) => {
                    let live = tokens.iter().filter(|token| is_live(token, now)).count();
                    if live >= TOKENS_MAX {
                        return Ok((Vec::new(), Err(TokenError::TooMany)));
                    }
                    token.created_at = now;
                    appender.add_token(&token).await?;
                    Ok((vec![own::token_created(&token)], Ok(*token)))
                }
                TokenChange::Revoke(id) => {
                    let Some(mut token) = tokens.into_iter().find(|token| *token.id == *id) else {
                        return Ok((Vec::new(), Err(TokenError::Unknown)));
                    };
                    if token.revoked_at.is_some() {
                        return Ok((Vec::new(), Ok(token)));
                    }
                    token.revoked_at = Some(now);
                    appender.revoke_token(&id, now).await?;
                    Ok((vec![own::token_revoked(&token)], Ok(token)))
                }
            }
        });
        let answer = changed.await?.unwrap_or_else(|refusal| Err(refusal.into()));
        self.load_tokens().await?;
        let _ = reply.send(answer);
        Ok(())
    }

    /// Takes up the tokens as they stand in the file, and tells whoever let someone in by them.
    pub(super) async fn load_tokens(&mut self) -> Result<(), Failure> {
        match self.appender.tokens().await {
            Ok(tokens) => {
                self.shared.tokens.send_if_modified(|known| {
                    let tokens = table(tokens);
                    let is_changed = *known != tokens;
                    *known = tokens;
                    is_changed
                });
                Ok(())
            }
            // What another process wrote. Nobody is let in by a list that cannot be read.
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::error!(error = &error as &dyn Error, "no token is valid until the table is mended");
                self.shared.tokens.send_replace(Arc::default());
                Ok(())
            }
            Err(error) => Err(("reading the tokens", CommitError::Failed(error))),
        }
    }

    /// Commits what a change of the file's own tables does, with the events that tell of it, and shows them.
    ///
    /// The inner error: nothing was changed, and it may be tried again.
    async fn commit_own<T>(
        &mut self,
        origin: Option<Arc<Origin>>,
        change: impl AsyncFnOnce(&mut Appender) -> Result<(Vec<Content>, T), CommitError>,
    ) -> Result<Result<T, AppendError>, Failure> {
        match self.try_commit_own(origin, change).await {
            Ok(value) => Ok(Ok(value)),
            Err(error) => {
                let Some(refusal) = refuse(&error) else { return Err(("committing", error)) };
                tracing::warn!(error = &error as &dyn Error, "a change of the server's own was refused");
                Ok(Err(refusal()))
            }
        }
    }

    async fn try_commit_own<T>(
        &mut self,
        origin: Option<Arc<Origin>>,
        change: impl AsyncFnOnce(&mut Appender) -> Result<(Vec<Content>, T), CommitError>,
    ) -> Result<T, CommitError> {
        while !self.lock().await? {}
        let (contents, value) = match change(&mut self.appender).await {
            Ok(changed) => changed,
            Err(error) => return Err(self.appender.roll_back(error).await),
        };
        let append = Append { contents, expected: None, origin };
        let plan = plan(self.position, Timestamp::now(), [&append].into_iter(), Knowledge::default());
        // Nothing to tell is nothing changed: the lock is released.
        let (_, frames) =
            encode_during(self.appender.append_locked(&plan.events, &plan.origins), &plan.events).await?;
        self.publish(&plan.events, frames);
        Ok(value)
    }
}
