//! Who asks, and what that allows: the credential of a request, and every refusal that rests on it.
//!
//! What may not be read is not refused but not there: selections are narrowed, and a stream that may not be read is
//! answered like one without events. See `docs/security.md` for what that leaves to be seen.

use super::guard::OverTls;
use super::origin::is_own_page;
use super::{Caller, Problem, ProblemCode, form};
use crate::auth::{Auth, Credential, Identity, Refused};
use crate::event::{Origin, Pattern, StreamName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use std::sync::Arc;

/// The cookie of a session.
pub(super) const SESSION_COOKIE: &str = "evertail_session";
/// The parameter of a ticket.
pub(super) const TICKET: &str = "ticket";

/// What whoever asks may do.
#[derive(Debug, Clone, Default)]
pub(super) enum Access {
    /// Everything: authentication is off.
    #[default]
    Open,
    /// What this identity may.
    Known(Auth, Arc<Identity>),
}

impl Access {
    /// Finds out who asks. `stream` is the one that the request would read, if it reads one: a ticket is for that.
    ///
    /// *Errors*: see [`Refusal`].
    pub(super) async fn of(
        auth: &Auth,
        request: &Parts,
        caller: &Caller,
        stream: Option<&StreamName>,
    ) -> Result<Self, Refusal> {
        let ticket = stream.and_then(|stream| Some((ticket(request)?, stream)));
        let session;
        let credential = match (bearer(&request.headers)?, &ticket) {
            (Some(bearer), _) => Some(Credential::Bearer(bearer)),
            (None, Some((ticket, stream))) => Some(Credential::Ticket(ticket, stream)),
            (None, None) => {
                session = cookie(&request.headers)?;
                if session.is_some() {
                    check_page(request)?;
                }
                session.map(Credential::Session)
            }
        };
        match auth.authenticate(credential).await {
            Ok(identity) => Ok(Self::Known(auth.clone(), identity)),
            Err(refused) => {
                failed(caller, refused);
                Err(Refusal::Credential(refused))
            }
        }
    }

    /// On whose behalf the log is asked.
    pub(super) fn origin(&self, caller: &Caller) -> Option<Arc<Origin>> {
        let Self::Known(_, identity) = self else { return None };
        Some(Arc::new(identity.origin(&caller.address.to_string())))
    }

    /// *Errors*: events may not be appended to this stream.
    pub(super) fn check_append(&self, stream: &StreamName) -> Result<(), Problem> {
        match self {
            Self::Known(_, identity) if !identity.grants.may_append(stream) => {
                let detail =
                    format!("this credential does not grant appending to {stream}; use one that does");
                Err(self.forbidden(detail))
            }
            _ => Ok(()),
        }
    }

    /// *Errors*: not for who administers.
    pub(super) fn check_admin(&self) -> Result<(), Problem> {
        match self {
            Self::Known(_, identity) if !identity.grants.admin => {
                Err(self.forbidden("this credential does not grant administering; use one that does".into()))
            }
            _ => Ok(()),
        }
    }

    /// *Errors*: the metrics are for who was granted them, and for who administers.
    pub(super) fn check_metrics(&self) -> Result<(), Problem> {
        match self {
            Self::Known(_, identity) if !identity.grants.metrics && !identity.grants.admin => {
                let detail = "this credential does not grant the metrics; use one that does";
                Err(self.forbidden(detail.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Whether anything at all may be read.
    pub(super) fn is_reader(&self) -> bool {
        match self {
            Self::Open => true,
            Self::Known(_, identity) => identity.is_reader(),
        }
    }

    /// *Errors*: nothing may be read.
    pub(super) fn check_reader(&self) -> Result<(), Problem> {
        match self.is_reader() {
            true => Ok(()),
            false => Err(self.forbidden("this credential grants no reading; use one that does".to_owned())),
        }
    }

    /// What selections are narrowed by; `None` where everything may be read.
    pub(super) fn reading(&self) -> Option<Arc<[Pattern]>> {
        match self {
            Self::Open => None,
            Self::Known(_, identity) => identity.grants.reading(),
        }
    }

    /// Waits until what was shown does not hold any more, for ever if there is nothing to wait for.
    pub(super) fn ended(&self) -> Option<impl Future<Output = Refused> + Send + use<>> {
        match self {
            Self::Known(auth, identity) if !identity.is_anonymous() => {
                Some(auth.clone().ended(identity.clone()))
            }
            _ => None,
        }
    }

    /// *Errors*: what was shown does not hold any more.
    pub(super) fn check_still(&self) -> Result<(), Refused> {
        match self {
            Self::Open => Ok(()),
            Self::Known(auth, identity) => auth.check(identity),
        }
    }

    /// Who it is, and who tells; nobody where authentication is off, and nobody who has shown nothing.
    pub(super) fn known(&self) -> Option<(&Auth, &Identity)> {
        match self {
            Self::Known(auth, identity) if !identity.is_anonymous() => Some((auth, identity)),
            _ => None,
        }
    }

    /// 403 for who is known, 401 for who is nobody and might have a credential.
    fn forbidden(&self, detail: String) -> Problem {
        match self.known() {
            Some(_) => Problem::new(ProblemCode::Forbidden, detail),
            None => credential_problem(Refused::Missing),
        }
    }
}

/// Why a request is not looked at.
pub(super) enum Refusal {
    /// For its credential.
    Credential(Refused),
    /// For the page that it comes from.
    Page(Problem),
}

impl Refusal {
    /// The word for it in a notice; none where no page of this server is waiting for one.
    pub(super) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Credential(refused) => Some(reason(*refused)),
            Self::Page(_) => None,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Credential(refused) => credential_problem(refused),
            Refusal::Page(problem) => problem,
        }
    }
}

/// The word for it in a notice.
pub(super) fn reason(refused: Refused) -> &'static str {
    match refused {
        Refused::Missing | Refused::Invalid => "unauthorized",
        Refused::Expired => "expired",
        Refused::Unavailable => "unavailable",
    }
}

/// Why someone is not let in.
pub(super) fn credential_problem(refused: Refused) -> Problem {
    let (code, detail) = match refused {
        Refused::Missing => {
            (ProblemCode::Unauthorized, "send a token as `Authorization: Bearer ...`; see docs/auth.md")
        }
        Refused::Invalid => (
            ProblemCode::CredentialInvalid,
            "the credential is not one of this server, or was revoked; get a new one",
        ),
        Refused::Expired => (ProblemCode::CredentialExpired, "the credential has expired; get a new one"),
        Refused::Unavailable => {
            (ProblemCode::KeysUnavailable, "the keys that verify the token could not be fetched; try again")
        }
    };
    Problem::new(code, detail)
}

/// Every authentication that failed passes here. Nothing of the credential is told.
fn failed(caller: &Caller, refused: Refused) {
    if refused != Refused::Missing {
        caller.asked.line().in_scope(|| {
            tracing::info!(client = %caller.address, reason = %refused, "a credential was refused");
        });
    }
}

/// The token of the one `Authorization` header.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let invalid = Refusal::Credential(Refused::Invalid);
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    let token = text
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match token {
        Some((_, token)) => Ok(Some(token.trim())),
        None => Err(invalid),
    }
}

/// The session of the one cookie of that name.
fn cookie(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut sessions = pairs.filter(|(name, _)| *name == SESSION_COOKIE);
    match (sessions.next(), sessions.next()) {
        (None, _) => Ok(None),
        (Some((_, session)), None) => Ok(Some(session)),
        // One of them was not set by this server.
        (Some(_), Some(_)) => Err(Refusal::Credential(Refused::Invalid)),
    }
}

/// Whether the request has a cookie of a session.
pub(super) fn has_cookie(headers: &HeaderMap) -> bool {
    !matches!(cookie(headers), Ok(None))
}

/// A browser adds a cookie by itself, whichever page of the same site asks: only pages of this server may use it, and must
/// say so where something could change.
fn check_page(request: &Parts) -> Result<(), Refusal> {
    let is_safe = matches!(request.method, Method::GET | Method::HEAD);
    let is_own = is_own_page(&request.headers, OverTls::is_in(&request.extensions));
    if is_own && (is_safe || request.headers.contains_key(header::ORIGIN)) {
        return Ok(());
    }
    let detail =
        "a session is for pages of this server, which send their Origin; others send a token or a ticket";
    Err(Refusal::Page(Problem::new(ProblemCode::OriginRefused, detail)))
}

/// The ticket of the URL.
fn ticket(request: &Parts) -> Option<String> {
    let mut pairs = form::pairs(request.uri.query().unwrap_or_default()).filter_map(Result::ok);
    pairs.find(|(name, _)| name == TICKET).map(|(_, value)| value)
}
