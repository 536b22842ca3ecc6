//! JSON Web Tokens of others: who they are of, and what their claim `evertail` grants.
//!
//! ```json
//! {"sub":"alice","aud":"evertail","exp":1795250000,"evertail":{"append":["audits"],"read":["orders.*"],"admin":false}}
//! ```

use super::grant::Grants;
use super::identity::{Identity, Refused};
use super::keys::{KeyError, KeySource, Keys, is_found};
use crate::event::{Timestamp, check_subject};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;

/// Longest token that is looked at. *Units*: bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// By how much the clock of who signs may differ.
const LEEWAY_SECONDS: u64 = 5;

/// Recognises tokens of one issuer.
#[derive(Debug)]
pub(super) struct Jwts {
    keys: Keys,
    issuer: Option<String>,
    audience: String,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    #[serde(default)]
    evertail: Granted,
}

/// The claim that says what the token may do. A member that is misspelt must not go for one that is not there.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Granted {
    #[serde(default)]
    append: Vec<String>,
    #[serde(default)]
    read: Vec<String>,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    metrics: bool,
}

impl Jwts {
    pub(super) async fn open(
        source: KeySource,
        issuer: Option<String>,
        audience: String,
    ) -> Result<Self, KeyError> {
        Ok(Self { keys: Keys::open(source).await?, issuer, audience })
    }

    /// Takes the keys as they are now, and tells how many there are.
    pub(super) async fn reload(&self) -> Result<usize, KeyError> {
        self.keys.reload().await
    }

    /// Whose token it is.
    ///
    /// *Errors*: see [`Refused`]; why exactly is for the log of the server, without the token.
    pub(super) async fn identity(&self, token: &str) -> Result<Identity, Refused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused::Invalid);
        }
        let header = decode_header(token).map_err(|_| Refused::Invalid)?;
        if header.crit.is_some() {
            // It asks for something that must be understood, and nothing is (RFC 7515, section 4.1.11).
            return Err(Refused::Invalid);
        }
        let id = header.kid.as_deref();
        let keys = self.keys.find(id).await.map_err(|is_without_keys| match is_without_keys {
            true => Refused::Unavailable,
            false => Refused::Invalid,
        })?;
        let key = is_found(&keys, id).ok_or(Refused::Invalid)?;
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.audience]);
        let mut required = vec!["exp", "aud", "sub"];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        let claims = decode::<Claims>(token, &key.key, &validation).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => Refused::Expired,
            kind => {
                tracing::debug!(reason = reason(kind), "a JSON Web Token was refused");
                Refused::Invalid
            }
        })?;
        let Claims { sub, exp, evertail } = claims.claims;
        let patterns = |texts: &[String]| Grants::patterns(texts.iter().map(String::as_str));
        let (append, read) = match (patterns(&evertail.append), patterns(&evertail.read)) {
            (Ok(append), Ok(read)) => (append, read),
            _ => {
                tracing::debug!(
                    reason = "its claim evertail names no streams",
                    "a JSON Web Token was refused"
                );
                return Err(Refused::Invalid);
            }
        };
        check_subject(&sub).map_err(|_| Refused::Invalid)?;
        let (append, read) = (append.into(), read.into());
        let grants = Grants { append, read, admin: evertail.admin, metrics: evertail.metrics };
        let expires_at = Timestamp::from_microseconds(((exp + LEEWAY_SECONDS as f64) * 1e6) as i64);
        Ok(Identity::of_subject(&sub, grants, expires_at))
    }
}

/// Why a token is refused, in words of ours: the error of a parser would show what it had read.
fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSignature => "its signature is not of the key",
        ErrorKind::InvalidAlgorithm => "its algorithm is not that of the key",
        ErrorKind::MissingRequiredClaim(_) => "it lacks one of exp, aud, sub and iss",
        ErrorKind::InvalidIssuer => "its issuer is another one",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        _ => "it has not the form of one",
    }
}
