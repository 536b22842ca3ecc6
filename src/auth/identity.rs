//! Who someone is, what it rests on, and until when.

use super::grant::Grants;
use super::seal::Sealed;
use crate::event::{Origin, Pattern, StreamName, Timestamp};
use crate::log::StoredToken;
use std::sync::Arc;

/// Why someone is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No credential, where one is needed.
    #[error("no credential was given")]
    Missing,
    /// Not a credential of this server, or one that was revoked.
    #[error("the credential is not valid here, or was revoked")]
    Invalid,
    /// It was valid.
    #[error("the credential has expired")]
    Expired,
    /// The keys that would tell could not be fetched.
    #[error("the keys of tokens could not be fetched")]
    Unavailable,
}

/// Someone who was let in.
#[derive(Debug, Clone)]
pub struct Identity {
    /// As what it appends: `token:<id>:<name>`, `jwt:<subject>`, `anonymous`.
    pub name: Arc<str>,
    /// What it may do.
    pub grants: Grants,
    /// When that ends.
    pub expires_at: Option<Timestamp>,
    pub(super) basis: Basis,
    /// It may read something, if only a stream without events.
    is_reader: bool,
}

/// What an identity rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Basis {
    /// A token, by its id: looked at again as long as the identity is used.
    Token(Arc<str>),
    /// Claims that someone else has signed, and of whom: they hold until they expire.
    Claims(Arc<str>),
    /// Nothing.
    Anonymous,
}

impl Identity {
    fn new(name: String, grants: Grants, expires_at: Option<Timestamp>, basis: Basis) -> Self {
        let is_reader = !grants.read.is_empty();
        Self { name: Arc::from(name), grants, expires_at, basis, is_reader }
    }

    pub(super) fn anonymous(read: Arc<[Pattern]>) -> Self {
        let grants = Grants { append: Arc::new([]), read, admin: false, metrics: false };
        Self::new("anonymous".to_owned(), grants, None, Basis::Anonymous)
    }

    pub(super) fn of_token(token: &StoredToken) -> Self {
        let grants = Grants {
            append: token.append.clone().into(),
            read: token.read.clone().into(),
            admin: token.admin,
            metrics: token.metrics,
        };
        let name = format!("token:{}:{}", token.id, token.name);
        Self::new(name, grants, token.expires_at, Basis::Token(token.id.clone()))
    }

    pub(super) fn of_subject(subject: &str, grants: Grants, expires_at: Timestamp) -> Self {
        Self::new(format!("jwt:{subject}"), grants, Some(expires_at), Basis::Claims(Arc::from(subject)))
    }

    /// Who was sealed with the claims it had.
    pub(super) fn of_claims(sealed: &Sealed) -> Option<Self> {
        let patterns = |texts: &[String]| Grants::patterns(texts.iter().map(String::as_str)).ok();
        let grants = Grants {
            append: patterns(&sealed.append)?.into(),
            read: patterns(&sealed.read)?.into(),
            admin: sealed.admin,
            metrics: sealed.metrics,
        };
        let expires_at = Timestamp::from_microseconds(sealed.expires_at?);
        Some(Self::of_subject(sealed.subject.as_deref()?, grants, expires_at))
    }

    /// What is sealed of it; nothing of who has shown nothing.
    pub(super) fn sealed(&self, until: i64, stream: Option<String>) -> Option<Sealed> {
        let mut sealed = Sealed { until, stream, ..Sealed::default() };
        match &self.basis {
            Basis::Token(id) => sealed.token = Some(id.to_string()),
            Basis::Claims(subject) => {
                let texts = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect();
                sealed.subject = Some(subject.to_string());
                sealed.append = texts(&self.grants.append);
                sealed.read = texts(&self.grants.read);
                sealed.admin = self.grants.admin;
                sealed.metrics = self.grants.metrics;
                sealed.expires_at = self.expires_at.map(Timestamp::microseconds);
            }
            Basis::Anonymous => return None,
        }
        Some(sealed)
    }

    /// Keeps of its grants the reading of this stream, if it has that.
    pub(super) fn keep_to(&mut self, stream: &StreamName) {
        let may_read = self.grants.read.iter().any(|pattern| pattern.matches(stream.as_str()));
        let read: Vec<Pattern> =
            may_read.then(|| Pattern::Exact(stream.as_str().to_owned())).into_iter().collect();
        self.grants = Grants { append: Arc::new([]), read: read.into(), admin: false, metrics: false };
    }

    /// Whether it may read anything at all. Not a question of whether that is there.
    pub fn is_reader(&self) -> bool {
        self.is_reader
    }

    /// Whether it is nobody in particular.
    pub fn is_anonymous(&self) -> bool {
        self.basis == Basis::Anonymous
    }

    /// What is stored with the events that it appends.
    pub fn origin(&self, address: &str) -> Origin {
        Origin { producer: self.name.clone(), address: Some(address.into()) }
    }
}

/// *Errors*: the token is revoked or has expired.
pub(super) fn check_token(token: &StoredToken, now: Timestamp) -> Result<(), Refused> {
    if token.revoked_at.is_some() {
        return Err(Refused::Invalid);
    }
    match token.expires_at {
        Some(expires_at) if expires_at <= now => Err(Refused::Expired),
        _ => Ok(()),
    }
}
