//! JSON Web Tokens of an issuer that the server knows by its keys, and of those who pretend to be it.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// Who signs.
pub(crate) enum Signer {
    Hs256(Vec<u8>),
    Rs256(Box<RsaKeyPair>, Vec<u8>),
    Es256(EcdsaKeyPair, Vec<u8>),
    EdDsa(Ed25519KeyPair, Vec<u8>),
}

/// A private key as openssl makes it, in DER, and its public key in PEM.
fn openssl(arguments: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let run = |arguments: &[&str], input: &[u8]| {
        let mut child = Command::new("openssl")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is there; install it");
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "openssl {arguments:?}");
        output.stdout
    };
    // In DER it would be of an older form that ring does not read.
    let pem = run(&[&["genpkey"], arguments].concat(), &[]);
    let public = run(&["pkey", "-pubout"], &pem);
    let text = String::from_utf8(pem).unwrap();
    let private: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    (STANDARD.decode(private).unwrap(), public)
}

impl Signer {
    pub(crate) fn hs256() -> Self {
        Self::Hs256(b"a secret of more than thirty-two bytes".to_vec())
    }

    pub(crate) fn rs256() -> Self {
        let (private, public) = openssl(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
        Self::Rs256(Box::new(RsaKeyPair::from_pkcs8(&private).unwrap()), public)
    }

    pub(crate) fn es256() -> Self {
        let (private, public) = openssl(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        // ring wants the public key within the private one, as openssl writes it.
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &private, &SystemRandom::new());
        Self::Es256(key.unwrap(), public)
    }

    pub(crate) fn eddsa() -> Self {
        let (private, public) = openssl(&["-algorithm", "ED25519"]);
        Self::EdDsa(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&private).unwrap(), public)
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::Rs256(..) => "RS256",
            Self::Es256(..) => "ES256",
            Self::EdDsa(..) => "EdDSA",
        }
    }

    /// What EVERTAIL_JWT_KEY_FILE holds.
    pub(crate) fn key_file(&self) -> &[u8] {
        match self {
            Self::Hs256(secret) => secret,
            Self::Rs256(_, public) | Self::Es256(_, public) | Self::EdDsa(_, public) => public,
        }
    }

    /// Its key in a JWKS.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Hs256(secret) => json!({"kty": "oct", "alg": "HS256", "kid": kid, "k": text(secret)}),
            Self::Rs256(key, _) => {
                let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "use": "sig", "kid": kid, "n": text(&public.n), "e": text(&public.e)})
            }
            Self::Es256(key, _) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": kid, "x": text(x), "y": text(y)})
            }
            Self::EdDsa(key, _) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(key.public_key().as_ref())})
            }
        }
    }

    /// A token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"alg": self.algorithm(), "typ": "JWT"}), claims)
    }

    /// A token that says of itself what it likes.
    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", text(header), text(claims));
        let signature = match self {
            Self::Hs256(secret) => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes()).as_ref().to_vec()
            }
            Self::Rs256(key, _) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Self::Es256(key, _) => {
                key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec()
            }
            Self::EdDsa(key, _) => key.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Seconds since 1970, so many from now.
pub(crate) fn seconds(from_now: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + from_now
}

/// Claims that are in order, and grant `a.*`.
pub(crate) fn claims() -> Value {
    json!({
        "sub": "alice", "aud": "evertail", "iss": "id", "exp": seconds(600), "nbf": seconds(-1),
        "evertail": {"append": ["a.*"], "read": ["a.*"]},
    })
}

/// Those claims, but for one.
pub(crate) fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}
