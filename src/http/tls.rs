//! TLS: the certificate that connections are given, and how it is replaced while they run.
//!
//! The files are compared with what is served every few seconds. Each handshake takes what is served at its time, so a
//! new certificate disturbs no open connection; files that cannot be used change nothing.

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// What a connection may have encrypted and not yet handed to the kernel. *Units*: bytes.
const BUFFER_BYTES_MAX: usize = 16 << 10;

/// Where the certificate and its key are, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of the server, then those of the authorities between it and one that clients know.
    pub certificate: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there, or not for this user.
    #[error("{file} cannot be read; name a file that this user may read with {variable}")]
    Unreadable {
        /// The file.
        file: String,
        /// The setting that names it.
        variable: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM, or has nothing of the kind that is looked for.
    #[error("{file} holds no {what} in PEM form; name one that does with {variable}")]
    NotPem {
        /// The file.
        file: String,
        /// What it should hold.
        what: &'static str,
        /// The setting that names it.
        variable: &'static str,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// Certificate and key are there, and cannot be used together.
    #[error("{certificate} and {key} cannot be used; give a certificate and the private key it was made for")]
    Unusable {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// The certificate that is served. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: TlsFiles,
    /// A plain lock: it is held for a clone or an assignment.
    served: Mutex<Served>,
}

#[derive(Debug)]
struct Served {
    contents: Contents,
    config: Arc<ServerConfig>,
}

/// The bytes of both files.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Contents(***)")
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// *Errors*: they cannot be served.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let config = contents.config(&files)?;
        Ok(Self(Arc::new(Inner { files, served: Mutex::new(Served { contents, config }) })))
    }

    /// Reads the files again. True if they have changed: handshakes from now on get the new certificate.
    ///
    /// *Errors*: they cannot be served; what was served still is.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let contents = Contents::read(&self.0.files)?;
        if self.served().contents == contents {
            return Ok(false);
        }
        let config = contents.config(&self.0.files)?;
        *self.served() = Served { contents, config };
        tracing::info!(certificate = %self.0.files.certificate.display(), "the certificate was replaced");
        Ok(true)
    }

    /// Looks at the files every few seconds, for ever. Files that cannot be served are told once, and not at once: they
    /// may be between the replacement of the one and of the other.
    ///
    /// *Cancel safety*: safe.
    pub(super) async fn watch(&self) {
        let mut complaint = Complaint::default();
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let tls = self.clone();
            // A file may be on a slow disk.
            let looked = tokio::task::spawn_blocking(move || tls.reload()).await;
            match looked {
                Ok(Err(error)) if complaint.is_due(&error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the new certificate is not used; the one before still is"
                ),
                Ok(Err(_)) => {}
                Ok(Ok(_)) => complaint = Complaint::default(),
                Err(_) => return std::future::pending().await,
            }
        }
    }

    /// The server's side of a handshake. The caller bounds its time.
    pub(super) fn accept(&self, socket: TcpStream) -> impl Future<Output = io::Result<TlsStream<TcpStream>>> {
        let acceptor = TlsAcceptor::from(self.served().config.clone());
        acceptor.accept_with(socket, |session| session.set_buffer_limit(Some(BUFFER_BYTES_MAX)))
    }

    fn served(&self) -> std::sync::MutexGuard<'_, Served> {
        self.0.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was last wrong with the files, and whether it was told.
#[derive(Debug, Default)]
struct Complaint {
    text: String,
    times: u32,
}

impl Complaint {
    /// Whether this error is to be told: when it is seen the second time in a row, and only then.
    fn is_due(&mut self, error: &TlsError) -> bool {
        let text = error.to_string();
        self.times = if self.text == text { self.times.saturating_add(1) } else { 1 };
        self.text = text;
        self.times == 2
    }
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |path: &Path, variable| {
            std::fs::read(path).map_err(|source| TlsError::Unreadable { file: shown(path), variable, source })
        };
        Ok(Self {
            certificate: read(&files.certificate, "EVERTAIL_TLS_CERTIFICATE")?,
            key: read(&files.key, "EVERTAIL_TLS_KEY")?,
        })
    }

    /// How connections are to be made with this certificate: TLS 1.2 and 1.3, HTTP/2 where the client has it.
    fn config(&self, files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
        let not_pem = |path: &Path, what, variable| {
            let file = shown(path);
            move |source| TlsError::NotPem { file, what, variable, source }
        };
        let no_certificate = not_pem(&files.certificate, "certificate", "EVERTAIL_TLS_CERTIFICATE");
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = match chain {
            Ok(chain) if chain.is_empty() => return Err(no_certificate(pem::Error::NoItemsFound)),
            Ok(chain) => chain,
            Err(source) => return Err(no_certificate(source)),
        };
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(not_pem(
            &files.key,
            "private key",
            "EVERTAIL_TLS_KEY",
        ))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        let mut config = config.map_err(|source| TlsError::Unusable {
            certificate: shown(&files.certificate),
            key: shown(&files.key),
            source,
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_stay_broken_are_told_once() {
        let error = |file: &str| TlsError::Unreadable {
            file: file.to_owned(),
            variable: "EVERTAIL_TLS_KEY",
            source: io::ErrorKind::NotFound.into(),
        };
        let mut complaint = Complaint::default();
        let told = ["a", "a", "a", "b", "a", "a"].map(|file| complaint.is_due(&error(file)));
        assert_eq!(told, [false, true, false, false, false, true]);
    }
}
