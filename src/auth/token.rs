//! API tokens: `evt_<id>_<secret>`, of which the file keeps the id and a hash.
//!
//! The secret is 32 random bytes, so that its hash needs no salt and no slow function: nobody guesses one of 2^256, and a
//! slow function would be a lever for who sends bad tokens.

use super::grant::Grants;
use crate::event::{Pattern, Timestamp};
use crate::log::{StoredToken, TokenTable};
use crate::wire::admin::{TokenJson, TokensJson};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq;

const PREFIX: &str = "evt_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// A token as it is shown once. Its Debug shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text that whoever made it is shown.
    #[cfg(test)]
    fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What a token is to be.
#[derive(Debug, Clone)]
pub struct TokenDraft {
    /// What people call it.
    pub name: Arc<str>,
    /// What it may do.
    pub grants: Grants,
    /// When it ends, if it does.
    pub expires_at: Option<Timestamp>,
}

impl TokenDraft {
    /// Makes the token: what is shown, and what is kept. The log says since when it is.
    ///
    /// *Errors*: the system has no random numbers.
    pub fn make(self) -> Result<(Secret, StoredToken), std::io::Error> {
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        let random = SystemRandom::new();
        let filled = random.fill(&mut id).and_then(|()| random.fill(&mut secret));
        filled.map_err(|_| std::io::Error::other("the system gives no random numbers"))?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = URL_SAFE_NO_PAD.encode(secret);
        let token = StoredToken {
            id: Arc::from(id.as_str()),
            name: self.name,
            hash: hash(&secret),
            append: self.grants.append.to_vec(),
            read: self.grants.read.to_vec(),
            admin: self.grants.admin,
            metrics: self.grants.metrics,
            created_at: Timestamp::EPOCH,
            expires_at: self.expires_at,
            revoked_at: None,
        };
        Ok((Secret(format!("{PREFIX}{id}_{secret}")), token))
    }
}

/// A token as it is shown; with its secret only when it was made just now.
pub fn shown(token: &StoredToken, secret: Option<&Secret>) -> TokenJson {
    let texts = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect();
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    TokenJson {
        token: secret.map(|secret| secret.0.clone()),
        id: token.id.to_string(),
        name: token.name.to_string(),
        append: texts(&token.append),
        read: texts(&token.read),
        admin: token.admin,
        metrics: token.metrics,
        created_at: token.created_at.to_string(),
        expires_at: time(token.expires_at),
        revoked_at: time(token.revoked_at),
    }
}

/// All tokens as they are shown, the oldest first.
pub fn all_shown(table: &TokenTable) -> TokensJson {
    let mut tokens: Vec<&StoredToken> = table.values().collect();
    tokens.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    TokensJson { tokens: tokens.into_iter().map(|token| shown(token, None)).collect() }
}

/// Whether a text is meant as a token of ours.
pub(super) fn is_token(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// The id of a token, and the hash of its secret; `None` if it has not the form of one.
pub(super) fn read(text: &str) -> Option<(&str, [u8; 32])> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let is_form = id.len() == 2 * ID_BYTES && URL_SAFE_NO_PAD.decode(secret).ok()?.len() == SECRET_BYTES;
    is_form.then(|| (id, hash(secret)))
}

fn hash(secret: &str) -> [u8; 32] {
    digest(&SHA256, secret.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Compares in a time that does not tell where they differ.
pub(super) fn is_same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> TokenDraft {
        let grants = Grants { append: Arc::new([]), read: Arc::new([]), admin: true, metrics: false };
        TokenDraft { name: Arc::from("n"), grants, expires_at: None }
    }

    #[test]
    fn a_token_is_recognised_by_its_hash_and_no_other_is() {
        let (secret, token) = draft().make().unwrap();
        let (other, _) = draft().make().unwrap();
        let (id, hash) = read(secret.expose()).unwrap();
        assert_eq!(id, &*token.id);
        assert!(is_same(&hash, &token.hash));
        assert!(!is_same(&read(other.expose()).unwrap().1, &token.hash));
        assert!(!format!("{secret:?} {token:?}").contains(&secret.expose()[21..]));
    }

    #[test]
    fn what_has_not_the_form_of_a_token_is_none() {
        let (secret, _) = draft().make().unwrap();
        let text = secret.expose();
        for bad in ["", "evt_", "evt__", "evt_a_b", &text[..text.len() - 1], &format!("{text}A"), &text[4..]]
        {
            assert!(read(bad).is_none(), "{bad}");
        }
    }
}
