//! What the server itself signs for pages: sessions, which stand in a cookie, and tickets, which stand in a URL.
//!
//! # Layout
//! `<prefix><payload>.<mac>`: the payload is JSON in base64url, the mac HMAC-SHA-256 over prefix and payload, with the key
//! of the file, so that both outlive a restart. The prefix names the purpose: none is taken for the other.
//!
//! It holds no secret and no permission of its own: of a token it names the id, and what the token may do is looked up when
//! it is used. Of a JWT, which nobody could look up, it holds the grants.

use super::identity::Refused;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};

/// Longest text that is looked at. *Units*: bytes.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// What something was sealed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Session,
    Ticket,
}

impl Purpose {
    fn prefix(self) -> &'static str {
        match self {
            Self::Session => "evs_",
            Self::Ticket => "evk_",
        }
    }
}

/// What is sealed. Times are microseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealed {
    /// When it ends.
    pub(super) until: i64,
    /// The one stream that it is for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) stream: Option<String>,
    /// The id of the token that stands behind it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) token: Option<String>,
    /// The subject of the JWT that stood behind it, with its end and its grants.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) expires_at: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(super) append: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(super) read: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub(super) admin: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub(super) metrics: bool,
}

/// Seals, and opens what it has sealed. Debug does not show the key: ring's does not.
#[derive(Debug)]
pub(super) struct Seals {
    key: hmac::Key,
}

impl Seals {
    pub(super) fn new(key: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    pub(super) fn seal(&self, purpose: Purpose, sealed: &Sealed) -> String {
        let payload = serde_json::to_vec(sealed).expect("what is sealed always serialises");
        let signed = format!("{}{}", purpose.prefix(), URL_SAFE_NO_PAD.encode(payload));
        let mac = hmac::sign(&self.key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
    }

    /// *Errors*: it is not of this server, or not for this purpose.
    pub(super) fn open(&self, purpose: Purpose, text: &str) -> Result<Sealed, Refused> {
        let payload = self.payload(purpose, text).ok_or(Refused::Invalid)?;
        serde_json::from_slice(&payload).map_err(|_| Refused::Invalid)
    }

    fn payload(&self, purpose: Purpose, text: &str) -> Option<Vec<u8>> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (signed, mac) = text.rsplit_once('.')?;
        let payload = signed.strip_prefix(purpose.prefix())?;
        // In constant time.
        hmac::verify(&self.key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(mac).ok()?).ok()?;
        URL_SAFE_NO_PAD.decode(payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_purpose_and_unchanged_only() {
        let seals = Seals::new(b"key");
        let sealed = Sealed { until: 5, token: Some("a".into()), ..Sealed::default() };
        let text = seals.seal(Purpose::Ticket, &sealed);
        assert_eq!(seals.open(Purpose::Ticket, &text), Ok(sealed));
        assert_eq!(seals.open(Purpose::Session, &text), Err(Refused::Invalid));
        assert_eq!(seals.open(Purpose::Session, &text.replace("evk_", "evs_")), Err(Refused::Invalid));
        assert_eq!(Seals::new(b"other").open(Purpose::Ticket, &text), Err(Refused::Invalid));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            // The last character of a mac has bits that say nothing; base64 refuses them.
            assert!(seals.open(Purpose::Ticket, &String::from_utf8(bytes).unwrap()).is_err(), "{at}");
        }
        assert!(!format!("{seals:?}").contains("key:") || !format!("{seals:?}").contains("107"));
    }
}
