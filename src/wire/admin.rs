//! The JSON of `/admin`: what a trim has done or would do, the holds, and the tokens.

use crate::event::Seq;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A hold on a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Hold")]
pub struct HoldJson {
    /// The stream that is held.
    pub stream: String,
    /// What the hold is called, once for each stream.
    pub name: String,
    /// Why.
    pub reason: String,
    /// Since when.
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
    /// The oldest event that it keeps; left out where the stream has none, and where only the hold itself is told.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_seq: Option<Seq>,
}

/// All holds, by stream and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Holds")]
pub struct HoldsJson {
    /// Each of them.
    pub holds: Vec<HoldJson>,
}

/// What one stream loses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "TrimShare")]
pub struct ShareJson {
    /// The stream.
    pub stream: String,
    /// How many events.
    pub events: u64,
    /// Their data. *Units*: bytes.
    pub bytes: u64,
}

/// One trim: of the whole log, or of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "TrimPart")]
pub struct TrimJson {
    /// The stream, if it is of one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stream: Option<String>,
    /// How many events.
    pub events: u64,
    /// Their data. *Units*: bytes.
    pub bytes: u64,
    /// The last of them; left out when there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub through_seq: Option<Seq>,
    /// What each stream loses; told of a trim that is only planned.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub streams: Vec<ShareJson>,
    /// The hold at which it stops, where more was to go.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_by: Option<HoldJson>,
}

/// The answer to a trim, and to the dry run of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Trim")]
pub struct TrimAnswer {
    /// Nothing was trimmed: this is what would be.
    pub dry_run: bool,
    /// The oldest retained seq of the log as it is now; `last_seq + 1` when nothing is retained.
    pub first_seq: Seq,
    /// What goes, or went.
    #[serde(flatten)]
    pub trim: TrimJson,
}

/// The answer to a dry run of retention as it is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RetentionPlan")]
pub struct RetentionAnswer {
    /// Always true.
    pub dry_run: bool,
    /// The oldest retained seq of the log as it is now; `last_seq + 1` when nothing is retained.
    pub first_seq: Seq,
    /// How many events all trims take together.
    pub events: u64,
    /// Their data. *Units*: bytes.
    pub bytes: u64,
    /// The trim of the whole log, then those of single streams that have something to lose, as if the one before had been
    /// done.
    pub trims: Vec<TrimJson>,
}

/// An API token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Token")]
pub struct TokenJson {
    /// The token itself: in the answer to its making, and never again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token: Option<String>,
    /// By which it is revoked.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Streams that it may append to.
    pub append: Vec<String>,
    /// Streams that it may read.
    pub read: Vec<String>,
    /// Whether it may trim, hold, and make tokens.
    pub admin: bool,
    /// Whether it may read the metrics.
    #[serde(default)]
    pub metrics: bool,
    /// Since when it is.
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
    /// When it ends, if it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: Option<String>,
    /// Since when it is not valid any more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(extend("format" = "date-time"))]
    pub revoked_at: Option<String>,
}

impl fmt::Debug for TokenJson {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {} ({})", self.id, self.name)
    }
}

/// All tokens, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Tokens")]
pub struct TokensJson {
    /// Each of them, revoked and expired ones too.
    pub tokens: Vec<TokenJson>,
}
