//! TLS: which certificates are trusted, what the server has to be called, and who we are. It must not
//! know HTTP. The one place that names a crypto provider, so that another can take ring's place.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::roots;

/// A bundle of every public CA has 220 KiB.
const MAX_FILE: u64 = 2 << 20;

/// How ALPN calls HTTP/1.1 (RFC 7301, section 6).
pub(super) const HTTP1: &[u8] = b"http/1.1";

/// How it calls HTTP/2 over TLS (RFC 9113, section 3.2).
pub(super) const HTTP2: &[u8] = b"h2";

/// The oldest TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2
    #[default]
    Tls12,
    /// TLS 1.3
    Tls13,
}

/// How the server is told to be the right one. The default trusts the system's CA certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// PEM file of the CA certificates that are trusted, and no others.
    pub ca_file: Option<PathBuf>,
    /// PEM file of a client certificate and its chain; wants `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the client certificate's private key.
    pub key_file: Option<PathBuf>,
    /// The name or address that the certificate has to carry, where it is not the URL's host.
    pub server_name: Option<String>,
    /// The oldest version that is spoken.
    pub min_version: MinVersion,
    /// Takes every certificate: whoever sits in between can read and change everything.
    pub insecure_skip_verify: bool,
}

/// TLS options that can't be used.
#[derive(Debug)]
pub enum TlsError {
    /// A file can't be read.
    Read {
        /// Which key of the options.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds no PEM of the expected sort.
    Pem {
        /// Which key of the options.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Only one of `cert_file` and `key_file` is set.
    Pair,
    /// `server_name` is neither a name nor an address.
    ServerName(String),
    /// Certificate and key don't belong together, or the like.
    Rustls(rustls::Error),
    /// The system has no CA certificates.
    NoRoots(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Read { key, path, source } => {
                write!(f, "tls.{key} {}: {source}", path.display())
            }
            TlsError::Pem { key, path, why } => write!(f, "tls.{key} {}: {why}", path.display()),
            TlsError::Pair => f.write_str("tls.cert_file and tls.key_file go together"),
            TlsError::ServerName(name) => {
                write!(f, "tls.server_name {name:?} is neither a host name nor an address")
            }
            TlsError::Rustls(error) => write!(f, "tls: {error}"),
            TlsError::NoRoots(why) => write!(
                f,
                "this system has no CA certificates{why}; install its ca-certificates package or set \
                 tls.ca_file"
            ),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TlsError::Read { source, .. } => Some(source),
            TlsError::Rustls(error) => Some(error),
            _ => None,
        }
    }
}

impl TlsOptions {
    /// The name that the server's certificate has to carry.
    ///
    /// # Errors
    /// It is neither a host name nor an address.
    pub(super) fn name(&self, host: &super::Host) -> Result<ServerName<'static>, TlsError> {
        if self.server_name.is_none()
            && let super::Host::Address(address) = host
        {
            return Ok(ServerName::IpAddress((*address).into()));
        }
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => host.to_string(),
        };
        ServerName::try_from(name.clone()).map_err(|_| TlsError::ServerName(name))
    }

    /// Reads the files and builds what a connection needs. The system's CA certificates are read only without
    /// `ca_file`, and once for all.
    ///
    /// # Errors
    /// A file that can't be used, or no CA certificates.
    pub(super) fn load(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions: &[_] = match self.min_version {
            MinVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            MinVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(TlsError::Rustls)?;
        let builder = if self.insecure_skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        } else {
            builder.with_root_certificates(match &self.ca_file {
                Some(path) => Arc::new(roots_of(path)?),
                None => roots::system().map_err(TlsError::NoRoots)?,
            })
        };
        let mut config = match (&self.cert_file, &self.key_file) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(certificates("cert_file", cert)?, private_key(key)?)
                .map_err(TlsError::Rustls)?,
            _ => return Err(TlsError::Pair),
        };
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        // There is one server; the default remembers 256.
        config.resumption = Resumption::in_memory_sessions(1);
        Ok(Arc::new(config))
    }

    /// Whether the system's CA certificates are what is trusted.
    pub(super) fn trusts_the_system(&self) -> bool {
        self.ca_file.is_none() && !self.insecure_skip_verify
    }
}

fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca_file", path)? {
        roots.add(certificate).map_err(|error| TlsError::Pem {
            key: "ca_file",
            path: path.to_owned(),
            why: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let fail = |source| TlsError::Read { key, path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(fail)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(fail(io::Error::other("larger than 2 MiB; is it the right file?")));
    }
    Ok(bytes)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |why: String| TlsError::Pem { key, path: path.to_owned(), why };
    let bytes = read(key, path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| fail(format!("not a PEM file: {error}")))?;
    if found.is_empty() {
        return Err(fail("it holds no certificate (-----BEGIN CERTIFICATE-----)".into()));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read("key_file", path)?).map_err(|_| TlsError::Pem {
        key: "key_file",
        path: path.to_owned(),
        // The parser's own words could repeat a part of the key.
        why: "it holds no private key (-----BEGIN PRIVATE KEY-----)".into(),
    })
}

/// `insecure_skip_verify`: any certificate will do, but the server has to have its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
