//! The keys of JSON Web Tokens: of a file, or of a JWKS that is fetched.
//!
//! A key has one algorithm, from its kind, and a token is verified by the algorithm of the key and no other, whatever its
//! header says. So a public key never serves as the secret of an HMAC, and `none` is no algorithm of any key.

use super::verify;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Shortest secret of HS256: as long as its hash (RFC 7518, section 3.2). *Units*: bytes.
const SECRET_BYTES_MIN: usize = 32;
/// Largest set of keys, and most keys of it that are used. *Units*: bytes.
const SET_BYTES_MAX: usize = 256 << 10;
const KEYS_MAX: usize = 64;
/// How long a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Keys are fetched at most so often, whoever sends which `kid`.
const FETCH_EVERY: Duration = Duration::from_secs(60);
/// Keys are taken to be what they were for so long: a key that was withdrawn is forgotten after it.
const FRESH: Duration = Duration::from_secs(300);

/// Where the keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// One key: a public key in PEM, or the secret of HS256.
    KeyFile(PathBuf),
    /// A JWKS as a file.
    SetFile(PathBuf),
    /// A JWKS that is fetched.
    SetUrl(String),
}

/// Keys cannot be used. Each display ends with the next step to take.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file cannot be read.
    #[error("{path} cannot be read; check EVERTAIL_JWT_KEY_FILE and EVERTAIL_JWKS")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It holds nothing that verifies a token.
    #[error(
        "{place} holds no key: {what}; give it a public key in PEM, a secret of 32 bytes or more, or a JWKS"
    )]
    None {
        /// Where.
        place: String,
        /// What is wrong.
        what: &'static str,
    },
    /// It could not be fetched.
    #[error("{url} could not be fetched; check EVERTAIL_JWKS and what answers there")]
    Fetch {
        /// What was asked.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
}

/// A key with its one algorithm.
#[derive(Debug)]
pub(super) struct Key {
    /// Its name in a set.
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// The keys as they are now.
#[derive(Debug)]
pub(super) struct Keys {
    known: RwLock<Arc<[Key]>>,
    place: Place,
}

/// Where they come from.
#[derive(Debug)]
enum Place {
    KeyFile(PathBuf),
    SetFile(PathBuf),
    Fetched(Fetched),
}

#[derive(Debug)]
struct Fetched {
    url: String,
    http: reqwest::Client,
    /// When they were last asked for, and when they last came. Held while they are fetched, so that all who need them wait
    /// for one answer.
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    asked: Option<Instant>,
    came: Option<Instant>,
}

/// A JWKS; what it holds beside keys, and keys of kinds that nobody here knows, are left alone.
#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

impl Keys {
    /// *Errors*: a file cannot be used. Keys that cannot be fetched now are asked for again.
    pub(super) async fn open(source: KeySource) -> Result<Self, KeyError> {
        verify::install();
        let place = match source {
            KeySource::KeyFile(path) => Place::KeyFile(path),
            KeySource::SetFile(path) => Place::SetFile(path),
            KeySource::SetUrl(url) => {
                // For the process, once. Whoever was first has taken one that does as well.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let http = reqwest::Client::builder()
                    .timeout(FETCH_TIMEOUT)
                    .redirect(reqwest::redirect::Policy::none())
                    .user_agent(concat!("evertail/", env!("CARGO_PKG_VERSION")))
                    .build()
                    .map_err(|source| KeyError::Fetch { url: url.clone(), source })?;
                Place::Fetched(Fetched { url, http, times: Mutex::default() })
            }
        };
        let keys = Self { known: RwLock::new(Arc::from([])), place };
        match keys.fetched() {
            Some(_) => keys.refresh(FETCH_EVERY, true).await,
            None => keys.replace(keys.place.keys().await?),
        }
        Ok(keys)
    }

    /// Takes the keys as they are now, however long ago they came, and tells how many there are.
    ///
    /// *Errors*: they cannot be used; those before still are.
    pub(super) async fn reload(&self) -> Result<usize, KeyError> {
        let mut times = match self.fetched() {
            Some(fetched) => Some(fetched.times.lock().await),
            None => None,
        };
        if let Some(times) = &mut times {
            times.asked = Some(Instant::now());
        }
        let keys = self.place.keys().await?;
        if let Some(times) = &mut times {
            times.came = Some(Instant::now());
        }
        let count = keys.len();
        self.replace(keys);
        Ok(count)
    }

    /// The key of this name; for a token that names none, or where there is but one without a name, that one.
    ///
    /// *Errors*: there is none, and whether that is because none could be fetched.
    pub(super) async fn find(&self, id: Option<&str>) -> Result<Arc<[Key]>, bool> {
        // Looked at again from time to time, so that what was withdrawn is forgotten.
        self.refresh(FRESH, false).await;
        if let Some(found) = self.found(id) {
            return Ok(found);
        }
        self.refresh(FETCH_EVERY, true).await;
        let is_without_keys = self.fetched().is_some() && self.known().is_empty();
        self.found(id).ok_or(is_without_keys)
    }

    fn found(&self, id: Option<&str>) -> Option<Arc<[Key]>> {
        let known = self.known();
        is_found(&known, id)?;
        Some(known)
    }

    fn known(&self) -> Arc<[Key]> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, keys: Vec<Key>) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = keys.into();
    }

    fn fetched(&self) -> Option<&Fetched> {
        match &self.place {
            Place::Fetched(fetched) => Some(fetched),
            Place::KeyFile(_) | Place::SetFile(_) => None,
        }
    }

    /// Fetches the keys, unless they came within this time, or were asked for within a minute. Who can do without them does
    /// not wait while another fetches them.
    async fn refresh(&self, age: Duration, is_needed: bool) {
        let Some(fetched) = self.fetched() else { return };
        let mut times = match fetched.times.try_lock() {
            Ok(times) => times,
            Err(_) if is_needed => fetched.times.lock().await,
            Err(_) => return,
        };
        let is_within = |time: Option<Instant>, span| time.is_some_and(|time| time.elapsed() < span);
        if is_within(times.came, age) || is_within(times.asked, FETCH_EVERY) {
            return;
        }
        times.asked = Some(Instant::now());
        match fetched.fetch().await {
            Ok(keys) => {
                times.came = Some(Instant::now());
                self.replace(keys);
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the keys of tokens were not fetched; those there are stay in use"
                );
            }
        }
    }
}

/// The key of a list that a token is to be verified with.
pub(super) fn is_found<'k>(keys: &'k [Key], id: Option<&str>) -> Option<&'k Key> {
    match (keys, id) {
        // A key file has one key, and no name for it.
        ([key], _) if key.id.is_none() => Some(key),
        ([key], None) => Some(key),
        (_, Some(id)) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
        (_, None) => None,
    }
}

impl Place {
    /// The keys that are there now.
    async fn keys(&self) -> Result<Vec<Key>, KeyError> {
        let (path, keys) = match self {
            Self::Fetched(fetched) => return fetched.fetch().await,
            Self::KeyFile(path) => (path, tokio::fs::read(path).await.map(|bytes| Ok(vec![single(&bytes)?]))),
            Self::SetFile(path) => (path, tokio::fs::read(path).await.map(|bytes| set(&bytes, true))),
        };
        let keys = keys.map_err(|source| KeyError::File { path: path.clone(), source })?;
        keys.map_err(|what| KeyError::None { place: path.display().to_string(), what })
    }
}

impl Fetched {
    async fn fetch(&self) -> Result<Vec<Key>, KeyError> {
        let failed =
            |source: reqwest::Error| KeyError::Fetch { url: self.url.clone(), source: source.without_url() };
        let response = self.http.get(&self.url).header("accept", "application/json").send().await;
        let mut response = response.and_then(reqwest::Response::error_for_status).map_err(failed)?;
        let none = |what| KeyError::None { place: self.url.clone(), what };
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > SET_BYTES_MAX {
                return Err(none("it is too large"));
            }
        }
        set(&bytes, false).map_err(none)
    }
}

/// The key of a key file.
fn single(bytes: &[u8]) -> Result<Key, &'static str> {
    let trimmed = bytes.trim_ascii();
    let key = |algorithm, key| Ok(Key { id: None, algorithm, key });
    if !trimmed.starts_with(b"-----BEGIN") {
        // What `openssl rand -hex 32 > file` writes ends with a line end that nobody means.
        return match trimmed.len() {
            SECRET_BYTES_MIN.. => key(Algorithm::HS256, DecodingKey::from_secret(trimmed)),
            _ => Err("a secret has 32 bytes or more"),
        };
    }
    if memchr::memmem::find(trimmed, b"PRIVATE KEY").is_some() {
        return Err("it is a private key, which belongs to who signs");
    }
    let public = [
        (Algorithm::RS256, DecodingKey::from_rsa_pem(trimmed)),
        (Algorithm::ES256, DecodingKey::from_ec_pem(trimmed)),
        (Algorithm::EdDSA, DecodingKey::from_ed_pem(trimmed)),
    ];
    let found = public.into_iter().find_map(|(algorithm, key)| Some((algorithm, key.ok()?)));
    match found {
        Some((Algorithm::ES256, ec)) if !ec.try_get_as_bytes().is_ok_and(|point| point.len() == 65) => {
            Err("its curve is not P-256")
        }
        Some((algorithm, found)) => key(algorithm, found),
        None => Err("it is no public key of RSA, EC or Ed25519"),
    }
}

/// The keys of a JWKS. Secrets are taken from a file only: whoever could fetch one could sign with it.
fn set(bytes: &[u8], with_secrets: bool) -> Result<Vec<Key>, &'static str> {
    let set: Set = serde_json::from_slice(bytes).map_err(|_| "it is no JWKS")?;
    let jwks = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    let keys =
        jwks.filter_map(|jwk| of_set(&jwk)).filter(|key| with_secrets || key.algorithm != Algorithm::HS256);
    let keys: Vec<Key> = keys.take(KEYS_MAX).collect();
    if keys.is_empty() {
        Err("no key of it is for RS256, ES256, EdDSA or, in a file, HS256")
    } else {
        Ok(keys)
    }
}

/// A key of a set, if it is of a kind that is used here.
fn of_set(jwk: &Jwk) -> Option<Key> {
    if jwk.common.public_key_use.as_ref().is_some_and(|used| *used != PublicKeyUse::Signature) {
        return None;
    }
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        AlgorithmParameters::OctetKey(_) => (Algorithm::HS256, KeyAlgorithm::HS256),
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|said| said != named) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let is_weak = algorithm == Algorithm::HS256
        && key.try_get_as_bytes().is_ok_and(|secret| secret.len() < SECRET_BYTES_MIN);
    (!is_weak).then(|| Key { id: jwk.common.key_id.clone(), algorithm, key })
}
