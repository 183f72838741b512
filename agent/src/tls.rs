//! A TCP connection and the name of who should answer → an encrypted one to whoever can prove that name, or why not.
//!
//! Client side only, TLS 1.2 and 1.3 (rustls with ring). Who may vouch is a PEM file of certificates: the one that is named,
//! else `SSL_CERT_FILE`, else the system's own bundle. A file is read once for all that need it ([`Trusts`]); the roots of a
//! system take some 100 KiB. No revocation lists, and no way to leave the proof out.

mod expiry;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
pub use tokio_rustls::client::TlsStream;

/// Where systems keep the certificates that they trust.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Names another bundle, as OpenSSL has it.
const VARIABLE: &str = "SSL_CERT_FILE";
/// Largest file of certificates that is read.
const MAX_BYTES: u64 = 4 << 20;

/// Why there is no encrypted connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// The other end's certificate proves nothing here.
    Certificate(String),
    /// Anything else: no TLS there, no version in common, a connection that ends.
    Handshake(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(why) => write!(out, "certificate not accepted: {why}"),
            Self::Handshake(why) => write!(out, "no TLS: {why}"),
        }
    }
}

impl TlsError {
    fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(why)) => Self::Certificate(why.to_string()),
            Some(other) => Self::Handshake(other.to_string()),
            None => Self::Handshake(error.to_string()),
        }
    }
}

/// PEM files of what the two ends prove to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Files {
    /// Who may vouch for the other end; else the system's.
    pub authority: Option<PathBuf>,
    /// By what the other end knows this one, the chain above it included; goes with `key`.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl Files {
    pub fn authority(file: Option<&Path>) -> Self {
        Self { authority: file.map(Path::to_owned), ..Self::default() }
    }
}

/// Who is believed, and which protocols are spoken over it.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// `protocols`: for ALPN, the best first.
    pub fn new(files: &Files, protocols: &[&str]) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots(files.authority.as_deref())?);
        let mut config = match (&files.certificate, &files.key) {
            (None, None) => config.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let secret =
                    PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{}: {error}", key.display()))?;
                let chain = certificates(certificate)?;
                let together = || format!("{} with {}", certificate.display(), key.display());
                config.with_client_auth_cert(chain, secret).map_err(|error| format!("{}: {error}", together()))?
            }
            (Some(_), None) => return Err("a client certificate needs its key".to_owned()),
            (None, Some(_)) => return Err("a client's key needs its certificate".to_owned()),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(Self(Arc::new(config)))
    }

    /// One that accepts no certificate.
    #[cfg(test)]
    #[allow(clippy::expect_used)]
    pub fn in_nobody() -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Self(Arc::new(config.expect("versions").with_root_certificates(RootCertStore::empty()).with_no_client_auth()))
    }

    /// `host`: a name or an address, as in a URL without brackets.
    pub async fn connect(&self, stream: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, TlsError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| TlsError::Handshake(error.to_string()))?;
        let connector = TlsConnector::from(Arc::clone(&self.0));
        connector.connect(name, stream).await.map_err(|error| TlsError::of(&error))
    }
}

/// Unix time (s) at which the first of the certificates that the other end showed expires.
pub fn earliest_expiry(stream: &TlsStream<TcpStream>) -> Option<i64> {
    let (_, connection) = stream.get_ref();
    connection.peer_certificates()?.iter().filter_map(|certificate| expiry::not_after(certificate)).min()
}

/// Trust by the file that it is read from, each read once.
#[derive(Debug, Default)]
pub struct Trusts(Mutex<HashMap<Option<PathBuf>, Trust>>);

impl Trusts {
    /// A file that cannot be read is tried again with the next call.
    pub fn of(&self, certificate: Option<&Path>) -> Result<Trust, String> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = certificate.map(Path::to_owned);
        if let Some(trust) = known.get(&key) {
            return Ok(trust.clone());
        }
        let trust = Trust::new(&Files::authority(certificate), &["http/1.1"])?;
        known.insert(key, trust.clone());
        Ok(trust)
    }
}

fn roots(certificate: Option<&Path>) -> Result<RootCertStore, String> {
    let named = certificate.map(Path::to_owned).or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from));
    let found = named.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file()));
    let path = found.ok_or("no bundle of trusted certificates is on this system; name one")?;
    let certificates = certificates(&path)?;
    let mut roots = RootCertStore::empty();
    // Bundles may hold some that this library does not understand; those of others still count.
    let (added, ignored) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(format!("{}: holds no certificate that can be used", path.display()));
    }
    if ignored > 0 {
        log::debug!("{}: {ignored} certificates cannot be used", path.display());
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let size = std::fs::metadata(path).map_err(|error| wrong(&error))?.len();
    if size > MAX_BYTES {
        return Err(wrong(&format_args!("{size} bytes are too many for certificates")));
    }
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
    read.collect::<Result<_, _>>().map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::{Files, Trust};

    #[test]
    fn a_file_that_is_no_certificate_is_refused_by_its_name() {
        let trust = |authority: &str| Trust::new(&Files::authority(Some(Path::new(authority))), &[]).unwrap_err();
        let missing = trust("/nonexistent/ca.pem");
        assert!(missing.starts_with("/nonexistent/ca.pem: "), "{missing}");
        assert_eq!(trust("/proc/self/status"), "/proc/self/status: holds no certificate that can be used");
    }
}
