//! Certificates made on the spot: a development authority with everybody's certificates, and a gateway's own QUIC certificate.
//!
//! All keys are ECDSA P-256. [`DevCerts::write_to`] makes these files, keys with mode 0600:
//!
//! | file | what it is | names |
//! |---|---|---|
//! | `ca.pem` | the authority that signed all but the QUIC certificates. Its key is not kept: to add a gateway, make all anew | |
//! | `sidecar.pem`, `.key` | the sidecar's listeners | DNS `localhost`, IP `127.0.0.1`, `::1` |
//! | `gateway-<id>.pem`, `.key` | a gateway towards the sidecar (control channel) | URI `tickgate://gateway/<id>` |
//! | `gateway-<id>-quic.pem`, `.key` | a gateway towards game clients; signed by itself, since clients pin it | DNS `localhost` |
//! | `gateway-<id>-quic.sha256` | the SHA-256 of that certificate in DER: 64 hexadecimal digits | |
//! | `admin.pem`, `.key` | an operator | URI `tickgate://admin/dev` |
//! | `backend.pem`, `.key` | a game's backend | URI `tickgate://backend/dev` |

use std::{
    collections::HashSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use thiserror::Error;
use webpki::KeyUsage;
use zeroize::Zeroizing;

use crate::{
    clock::Timestamp,
    id::GatewayId,
    tls::{self, Identity, TlsError},
};

/// The server name of a development gateway's QUIC certificate.
pub const DEV_SERVER_NAME: &str = "localhost";

/// Why there are no certificates.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CertsError {
    /// The certificate library refuses a name or a key.
    #[error("cannot make a certificate for {what}: {source}")]
    Refused {
        /// What it was for.
        what: String,
        /// What is wrong.
        source: rcgen::Error,
    },
    /// A server name is none.
    #[error("{0:?} is no server name: give a DNS name or an IP address")]
    BadName(String),
    /// Two certificates would have the same file.
    #[error(
        "the gateway ids make two certificates fall into the same file, {0}: give every gateway another id, none of them another one's with \"-quic\""
    )]
    SameFile(String),
    /// A file is there already.
    #[error("{} exists already, and nothing was written: remove it, choose another directory, or ask for the files to be replaced", .0.display())]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {}: {source}; check that the directory may be written to", .path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl CertsError {
    /// The error as a fixed label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::BadName(_) => "bad_name",
            Self::SameFile(_) => "same_file",
            Self::Exists(_) => "exists",
            Self::Write { .. } => "unwritable_file",
        }
    }
}

/// One gateway's certificates.
#[derive(Debug, Clone)]
pub struct GatewayCerts {
    /// The gateway.
    pub id: GatewayId,
    /// Who it is to the sidecar.
    pub control: Identity,
    /// Who it is to game clients.
    pub quic: Identity,
}

/// A development authority, and a certificate for everybody. For development only: production has an authority of its own.
#[derive(Debug, Clone)]
pub struct DevCerts {
    /// The authority's certificate.
    pub ca: CertificateDer<'static>,
    /// The sidecar's listeners.
    pub sidecar: Identity,
    /// The gateways, in the order asked for.
    pub gateways: Vec<GatewayCerts>,
    /// An operator.
    pub admin: Identity,
    /// A game's backend.
    pub backend: Identity,
}

impl DevCerts {
    /// Makes a new authority, and certificates for a sidecar, these gateways, an operator and a backend.
    ///
    /// # Errors
    /// [`CertsError::Refused`]; not for valid gateway ids.
    pub fn generate(gateways: &[GatewayId]) -> Result<Self, CertsError> {
        let ca = authority()?;
        let uri = |text: String| -> Result<Vec<SanType>, rcgen::Error> {
            Ok(vec![SanType::URI(text.try_into()?)])
        };
        let client = |name: &str, role: &str| {
            issue(
                &ca,
                &format!("tickgate {role}"),
                uri(format!("tickgate://{role}/{name}")),
                ExtendedKeyUsagePurpose::ClientAuth,
            )
        };
        let gateway = |id: &GatewayId| {
            Ok(GatewayCerts {
                id: id.clone(),
                control: client(id.as_str(), "gateway")?,
                quic: quic_identity(DEV_SERVER_NAME)?,
            })
        };
        Ok(Self {
            sidecar: issue(
                &ca,
                "tickgate sidecar",
                loopback_names(),
                ExtendedKeyUsagePurpose::ServerAuth,
            )?,
            gateways: gateways.iter().map(gateway).collect::<Result<_, _>>()?,
            admin: client("dev", "admin")?,
            backend: client("dev", "backend")?,
            ca: ca.der().clone(),
        })
    }

    /// Writes all files into `directory`, which is made if it is not there. Files that are there already are never touched.
    ///
    /// # Errors
    /// [`CertsError::Exists`] for the first file that is there already (then nothing is written), [`CertsError::SameFile`],
    /// [`CertsError::Write`].
    pub fn write_to(&self, directory: &Path) -> Result<(), CertsError> {
        let files = self.files()?;
        for file in &files {
            let path = directory.join(&file.name);
            if path.symlink_metadata().is_ok() {
                return Err(CertsError::Exists(path));
            }
        }
        make_directory(directory)?;
        files.iter().try_for_each(|file| {
            let path = directory.join(&file.name);
            create(&path, file).map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => CertsError::Exists(path),
                _ => CertsError::Write { path, source },
            })
        })
    }

    /// Writes all files into `directory`, replacing those that are there already, each one at once. Interrupted, it leaves the
    /// directory without `ca.pem`, and never with one authority's file and certificates of another.
    ///
    /// # Errors
    /// [`CertsError::SameFile`], [`CertsError::Write`].
    pub fn replace_in(&self, directory: &Path) -> Result<(), CertsError> {
        let files = self.files()?;
        make_directory(directory)?;
        let path = Layout::new(directory).ca();
        remove(&path).map_err(|source| CertsError::Write { path, source })?;
        files.iter().try_for_each(|file| {
            let path = directory.join(&file.name);
            replace(&path, file).map_err(|source| CertsError::Write { path, source })
        })
    }

    /// All files in the order in which they are written: `ca.pem` comes last and says that the others are there.
    fn files(&self) -> Result<Vec<NewFile>, CertsError> {
        let Self {
            ca,
            sidecar,
            gateways,
            admin,
            backend,
        } = self;
        let mut files = Vec::new();
        let mut identity = |stem: String, identity: &Identity| {
            let chain = identity.chain.iter().map(certificate_pem).collect();
            files.push(NewFile::public(format!("{stem}.pem"), chain));
            files.push(NewFile {
                name: format!("{stem}.key"),
                content: key_pem(&identity.key),
                secret: true,
            });
        };
        identity("sidecar".into(), sidecar);
        identity("admin".into(), admin);
        identity("backend".into(), backend);
        for GatewayCerts { id, control, quic } in gateways {
            identity(format!("gateway-{id}"), control);
            identity(format!("gateway-{id}-quic"), quic);
        }
        for GatewayCerts { id, quic, .. } in gateways {
            let digits: String = quic.fingerprint().iter().map(hexadecimal).collect();
            let name = format!("gateway-{id}-quic.sha256");
            files.push(NewFile::public(name, format!("{digits}\n")));
        }
        files.push(NewFile::public("ca.pem".into(), certificate_pem(ca)));
        let mut names = HashSet::new();
        match files.iter().find(|file| !names.insert(&file.name)) {
            None => Ok(files),
            Some(twice) => Err(CertsError::SameFile(twice.name.clone())),
        }
    }
}

/// Where the files of a directory made by [`DevCerts::write_to`] are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    directory: PathBuf,
}

/// The two files of an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl IdentityFiles {
    /// Reads the identity.
    ///
    /// # Errors
    /// See [`Identity::load`].
    pub fn load(&self) -> Result<Identity, TlsError> {
        Identity::load(&self.certificate, &self.key)
    }
}

impl Layout {
    /// The layout of `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// The sidecar's identity.
    pub fn sidecar(&self) -> IdentityFiles {
        self.identity("sidecar")
    }

    /// A gateway's identity towards the sidecar.
    pub fn gateway(&self, id: &GatewayId) -> IdentityFiles {
        self.identity(&format!("gateway-{id}"))
    }

    /// A gateway's identity towards game clients.
    pub fn gateway_quic(&self, id: &GatewayId) -> IdentityFiles {
        self.identity(&format!("gateway-{id}-quic"))
    }

    /// An operator's identity.
    pub fn admin(&self) -> IdentityFiles {
        self.identity("admin")
    }

    /// A backend's identity.
    pub fn backend(&self) -> IdentityFiles {
        self.identity("backend")
    }

    /// Whether everything that [`DevCerts::write_to`] makes for these gateways is there and of one piece: certificates and keys go
    /// together, and those that the authority signs were signed by this one and hold at `now`.
    pub fn is_complete(&self, gateways: &[GatewayId], now: Timestamp) -> bool {
        let Ok(authorities) = tls::load_certificates(&self.ca()) else {
            return false;
        };
        let loads = |files: IdentityFiles| files.load().ok();
        let signed = |files: IdentityFiles, usage: KeyUsage| {
            loads(files).is_some_and(|identity| is_signed(&identity, &authorities, usage, now))
        };
        let of_gateway = |id: &GatewayId| {
            signed(self.gateway(id), KeyUsage::client_auth())
                && loads(self.gateway_quic(id)).is_some()
        };
        signed(self.sidecar(), KeyUsage::server_auth())
            && signed(self.admin(), KeyUsage::client_auth())
            && signed(self.backend(), KeyUsage::client_auth())
            && gateways.iter().all(of_gateway)
    }

    fn identity(&self, stem: &str) -> IdentityFiles {
        IdentityFiles {
            certificate: self.directory.join(format!("{stem}.pem")),
            key: self.directory.join(format!("{stem}.key")),
        }
    }
}

/// A new identity for a game port, signed by itself: clients pin its [`fingerprint`](Identity::fingerprint).
///
/// # Errors
/// [`CertsError::BadName`] if `server_name` is no DNS name or IP address.
pub fn quic_identity(server_name: &str) -> Result<Identity, CertsError> {
    let refused = refused(server_name);
    let names = match ServerName::try_from(server_name) {
        Ok(ServerName::DnsName(name)) => {
            vec![SanType::DnsName(
                name.as_ref().try_into().map_err(&refused)?,
            )]
        }
        Ok(ServerName::IpAddress(address)) => vec![SanType::IpAddress(address.into())],
        _ => return Err(CertsError::BadName(server_name.into())),
    };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(&refused)?;
    let params = leaf(server_name, names, ExtendedKeyUsagePurpose::ServerAuth);
    let certificate = params.self_signed(&key).map_err(&refused)?;
    Ok(identity(certificate.der(), &key))
}

/// Whether one of `authorities` has signed the identity for `usage`, as a TLS peer would check it.
fn is_signed(
    identity: &Identity,
    authorities: &[CertificateDer<'_>],
    usage: KeyUsage,
    now: Timestamp,
) -> bool {
    let anchors: Vec<_> = authorities
        .iter()
        .filter_map(|authority| webpki::anchor_from_trusted_cert(authority).ok())
        .collect();
    let Some((leaf, intermediates)) = identity.chain.split_first() else {
        return false;
    };
    let provider = tls::provider();
    let algorithms = provider.signature_verification_algorithms.all;
    let now = UnixTime::since_unix_epoch(now.since(Timestamp(0)));
    webpki::EndEntityCert::try_from(leaf).is_ok_and(|leaf| {
        leaf.verify_for_usage(algorithms, &anchors, intermediates, now, usage, None, None)
            .is_ok()
    })
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, CertsError> {
    const NAME: &str = "tickgate development authority";
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(refused(NAME))?;
    let mut params = dated(NAME);
    // It signs leaves, and no further authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, key).map_err(refused(NAME))
}

fn issue(
    ca: &CertifiedIssuer<'_, KeyPair>,
    name: &str,
    alternative_names: Result<Vec<SanType>, rcgen::Error>,
    usage: ExtendedKeyUsagePurpose,
) -> Result<Identity, CertsError> {
    let refused = refused(name);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(&refused)?;
    let mut params = leaf(name, alternative_names.map_err(&refused)?, usage);
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, ca).map_err(&refused)?;
    Ok(identity(certificate.der(), &key))
}

fn leaf(name: &str, names: Vec<SanType>, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = dated(name);
    params.subject_alt_names = names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params
}

/// Fixed dates, since a development stack must not stop working under somebody's hands; 2049 is the last year that certificates
/// write with two digits (RFC 5280, section 4.1.2.5).
fn dated(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn loopback_names() -> Result<Vec<SanType>, rcgen::Error> {
    Ok(vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ])
}

fn identity(certificate: &CertificateDer<'static>, key: &KeyPair) -> Identity {
    Identity {
        chain: vec![certificate.clone()],
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
    }
}

fn refused(what: &str) -> impl Fn(rcgen::Error) -> CertsError {
    move |source| CertsError::Refused {
        what: what.into(),
        source,
    }
}

/// A file that is to be written.
struct NewFile {
    name: String,
    content: Zeroizing<String>,
    secret: bool,
}

impl NewFile {
    fn public(name: String, content: String) -> Self {
        Self {
            name,
            content: Zeroizing::new(content),
            secret: false,
        }
    }
}

fn make_directory(path: &Path) -> Result<(), CertsError> {
    fs::create_dir_all(path).map_err(|source| CertsError::Write {
        path: path.into(),
        source,
    })
}

/// Makes the file with its final mode, so that there is no instant in which others could open a key.
fn create(path: &Path, file: &NewFile) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if file.secret { 0o600 } else { 0o644 });
    io::Write::write_all(&mut options.open(path)?, file.content.as_bytes())
}

/// Makes the file beside the old one and moves it over it: the old one's mode does not survive, and no reader sees half a file.
fn replace(path: &Path, file: &NewFile) -> io::Result<()> {
    let beside = path.with_file_name(format!("{}.new", file.name));
    remove(&beside)?;
    create(&beside, file)?;
    fs::rename(&beside, path)
}

/// Removes a file; one that is not there is as well.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A certificate in PEM (RFC 7468).
pub(crate) fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    pem("CERTIFICATE", certificate).to_string()
}

/// A private key in PEM (RFC 7468).
pub(crate) fn key_pem(key: &PrivateKeyDer<'_>) -> Zeroizing<String> {
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    pem(label, key.secret_der())
}

fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    // 48 bytes make a line of 64 characters. Room for all at once: growing would leave copies of a key behind.
    let mut text = Zeroizing::new(String::with_capacity(der.len() * 3 / 2 + 128));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in der.chunks(48) {
        BASE64_STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

fn hexadecimal(byte: &u8) -> String {
    format!("{byte:02x}")
}

#[cfg(test)]
mod tests;
