//! TLS configurations: one provider, chosen here and nowhere else, and one function per kind of connection.
//!
//! | connection | server | client |
//! |---|---|---|
//! | QUIC, game client to gateway | [`quic_server_config`]: TLS 1.3, ALPN `tickgate/1`, no tickets, no early data | [`pinned_quic_client_config`]: the leaf's SHA-256 is known beforehand |
//! | gRPC to a sidecar | [`rpc_server_config`]: ALPN `h2`, client certificates if a CA is given | [`rpc_client_config`]: the sidecar's CA, and an identity where one is asked for |

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, ring::cipher_suite, verify_tls12_signature,
        verify_tls13_signature,
    },
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::TLS13,
};
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;

/// The ALPN protocol of the game port (RFC 7301): Tickgate's protocol, version 1.
pub const ALPN: &[u8] = b"tickgate/1";

/// The ALPN protocol of gRPC: HTTP/2 (RFC 9113, section 3.2).
const ALPN_HTTP2: &[u8] = b"h2";

/// Why there is no TLS configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; check the path and that this user may read it", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A certificate file holds none, or a damaged one.
    #[error("{} holds no PEM certificate, or a damaged one; it must hold \"BEGIN CERTIFICATE\" sections, the leaf first (`tickgate certs` makes some for development)", .path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A key file holds none, or a damaged one.
    #[error("{} holds no PEM private key, or a damaged one; it must hold one \"BEGIN PRIVATE KEY\" section, not encrypted (`tickgate certs` makes some for development)", .path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A certificate and a key that do not belong together, or a key of an unknown kind.
    #[error("{} and {} do not go together: {source}; give the key that the certificate was made for (ECDSA P-256, P-384, Ed25519 or RSA)", .certificate.display(), .key.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// There is no certificate to trust.
    #[error(
        "no certificate authority is given, so no peer could be trusted; name a file with at least one CA certificate"
    )]
    NoAuthority,
    /// A certificate to trust is no certificate, or none that can be trusted.
    #[error(
        "a CA certificate cannot be used: {0}; it must be an X.509 version 3 certificate in PEM"
    )]
    BadAuthority(rustls::Error),
    /// There is no certificate hash to hold the server to.
    #[error(
        "no certificate hash is given, so no gateway could be trusted; a connect ticket carries at least one"
    )]
    NoPins,
    /// An identity is not usable.
    #[error(
        "certificate and key are not usable: {0}; they must belong together (ECDSA P-256, P-384, Ed25519 or RSA)"
    )]
    Identity(rustls::Error),
    /// The TLS library refuses the configuration. Cannot happen with the provider chosen here.
    #[error("TLS configuration refused: {0}")]
    Refused(rustls::Error),
}

impl TlsError {
    /// The error as a fixed label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Read { .. } => "unreadable_file",
            Self::NoCertificate { .. } => "no_certificate",
            Self::NoKey { .. } => "no_key",
            Self::Mismatch { .. } => "key_mismatch",
            Self::NoAuthority => "no_authority",
            Self::BadAuthority(_) => "bad_authority",
            Self::NoPins => "no_pins",
            Self::Identity(_) => "bad_identity",
            Self::Refused(_) => "refused",
        }
    }
}

/// The one cryptographic provider: ring, with TLS_AES_128_GCM_SHA256 first.
///
/// First, because SHA-384 without hardware support is a sixth of a handshake's cost, and 128 bits are enough (NIST SP 800-57).
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = rustls::crypto::ring::default_provider();
        let first = cipher_suite::TLS13_AES_128_GCM_SHA256.suite();
        // The sort is stable: the others keep their order.
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != first);
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

/// Who we are to a peer: a certificate chain, leaf first, and the leaf's private key.
#[derive(Debug)]
pub struct Identity {
    /// The certificates, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key. Its `Debug` says nothing.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl Identity {
    /// Reads an identity from two PEM files and makes sure that they belong together.
    ///
    /// # Errors
    /// Which file is wrong, and what to do about it.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = load_certificates(certificate)?;
        let private = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|_| TlsError::NoKey { path: key.into() })?;
        let identity = Self {
            chain,
            key: private,
        };
        identity.certified().map_err(|source| TlsError::Mismatch {
            certificate: certificate.into(),
            key: key.into(),
            source,
        })?;
        Ok(identity)
    }

    /// The SHA-256 of the leaf certificate in DER, by which clients pin it.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(self.chain.first().map_or(&[], AsRef::as_ref))
    }

    fn certified(&self) -> Result<CertifiedKey, rustls::Error> {
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &provider())
    }
}

/// The SHA-256 of a certificate in DER.
pub fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// Reads the certificates of a PEM file: a chain with its leaf first, or the authorities to trust.
///
/// # Errors
/// If the file cannot be read, or holds no certificate or a damaged one.
pub fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let certificates: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError::NoCertificate { path: path.into() }),
    }
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, TlsError> {
    std::fs::read(path)
        .map(zeroize::Zeroizing::new)
        .map_err(|source| TlsError::Read {
            path: path.into(),
            source,
        })
}

/// The game port's server: TLS 1.3 alone, ALPN [`ALPN`], no tickets and no early data.
///
/// Early data could be replayed (RFC 9001, section 9.2), and a resumed handshake is no cheaper than a full one here. The
/// certificate resolver does nothing but hand out this one: quinn-proto calls it with its endpoint waiting.
///
/// # Errors
/// [`TlsError::Identity`] if certificate and key do not belong together.
pub fn quic_server_config(identity: &Identity) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Refused)?
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(TlsError::Identity)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Our order of cipher suites, not the client's: the cheap one is as good, and the server pays for thousands.
    config.ignore_client_order = true;
    Ok(config)
}

/// A game client's side: any certificate with one of these SHA-256 hashes is the gateway's, and no other is.
///
/// Names and validity dates are not looked at, and no public certificate authority is needed: the hashes came over an
/// authenticated channel, minutes ago. That the server holds the certificate's key is verified all the same.
///
/// # Errors
/// [`TlsError::NoPins`] if `pins` is empty.
pub fn pinned_quic_client_config(pins: Vec<[u8; 32]>) -> Result<ClientConfig, TlsError> {
    if pins.is_empty() {
        return Err(TlsError::NoPins);
    }
    let provider = provider();
    let verifier = PinnedServer {
        pins,
        algorithms: provider.signature_verification_algorithms,
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Refused)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed handshake shows no certificate, so it could not be held to the pins.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A sidecar's listener: ALPN `h2`; with `client_ca` every client must show a certificate from one of these authorities.
///
/// # Errors
/// [`TlsError::Identity`], and [`TlsError::NoAuthority`] or [`TlsError::BadAuthority`] for `client_ca`.
pub fn rpc_server_config(
    identity: &Identity,
    client_ca: Option<&[CertificateDer<'_>]>,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Refused)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider())
                    .build()
                    // It fails for an empty store, which `roots` has refused, and for revocation lists, of which there are none.
                    .map_err(|_| TlsError::NoAuthority)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(TlsError::Identity)?;
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    // Channels live for hours: resumption would save nothing, and let in a client without judging its certificate again.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// The client's side of gRPC: the server must show a certificate from one of the authorities `ca`; `identity` is shown if asked for.
///
/// # Errors
/// [`TlsError::NoAuthority`], [`TlsError::BadAuthority`], [`TlsError::Identity`].
pub fn rpc_client_config(
    ca: &[CertificateDer<'_>],
    identity: Option<&Identity>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Refused)?
        .with_root_certificates(roots(ca)?);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(TlsError::Identity)?,
    };
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots(ca: &[CertificateDer<'_>]) -> Result<RootCertStore, TlsError> {
    if ca.is_empty() {
        return Err(TlsError::NoAuthority);
    }
    let mut roots = RootCertStore::empty();
    for certificate in ca {
        roots
            .add(certificate.clone().into_owned())
            .map_err(TlsError::BadAuthority)?;
    }
    Ok(roots)
}

/// Holds a server to the hashes of its certificate.
struct PinnedServer {
    pins: Vec<[u8; 32]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for PinnedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedServer")
            .field("pins", &self.pins.len())
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let hash = fingerprint(end_entity);
        let known = self
            .pins
            .iter()
            .fold(Choice::from(0), |known, pin| known | pin.ct_eq(&hash));
        if known.into() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[cfg(feature = "certs")]
mod tests;
