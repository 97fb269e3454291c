//! The calling end: channels that connect when first used and again by themselves, over TLS or, on loopback, in plain text.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

/// How long connecting may take, TLS included. Half of a listener's patience: whoever calls is waiting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A silent peer is asked for a sign of life this often...
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// ...and given up when none comes for this long: a dead one is noticed within 15 s.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no channel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RpcError {
    /// The URL is none that a channel can have.
    #[error("{0:?} is no address of a gRPC service: write https://host:port, without a path")]
    BadUrl(String),
    /// Plain text beyond loopback.
    #[error(
        "{0:?} would send secrets in plain text: http:// is for loopback addresses alone, use https://"
    )]
    PlainText(String),
    /// TLS without a configuration for it.
    #[error(
        "{0:?} needs TLS, but no certificate authority is given: name the file of the CA that signed the server's certificate"
    )]
    NoTls(String),
    /// The server name is none.
    #[error("{0:?} is no server name: give the DNS name or IP address in the server's certificate")]
    BadServerName(String),
}

impl RpcError {
    /// The error as a fixed label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::BadUrl(_) => "bad_url",
            Self::PlainText(_) => "plain_text",
            Self::NoTls(_) => "no_tls",
            Self::BadServerName(_) => "bad_server_name",
        }
    }
}

/// A channel to the gRPC service at `url`. It connects when it is first used, and again whenever the connection was lost.
///
/// `https://host:port` needs `tls` (see [`rpc_client_config`](crate::tls::rpc_client_config)); the certificate must be valid for
/// `server_name`, or for the URL's host if that is none. `http://host:port` works if the host is a loopback address or a name that
/// resolves to one, and `tls` is not used. Needs to be called within a tokio runtime.
///
/// # Errors
/// See [`RpcError`]. That nobody answers, or the wrong one, is an error of the calls made over the channel.
pub fn connect(
    url: &str,
    server_name: Option<&str>,
    tls: Option<ClientConfig>,
) -> Result<Channel, RpcError> {
    let tls = tls.map(|tls| Arc::new(ArcSwap::from_pointee(tls)));
    connect_with(url, server_name, tls)
}

/// As [`connect`], with a TLS configuration that may be replaced: whatever connects after that goes by the new one.
///
/// # Errors
/// As [`connect`].
pub fn connect_with(
    url: &str,
    server_name: Option<&str>,
    tls: Option<Arc<ArcSwap<ClientConfig>>>,
) -> Result<Channel, RpcError> {
    let target = Target::parse(url, server_name, tls)?;
    let endpoint = Endpoint::from(target.uri.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        // Between two calls too: the next one should not be the one to find out.
        .keep_alive_while_idle(true);
    let target = Arc::new(target);
    Ok(
        endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let target = Arc::clone(&target);
            async move { target.dial().await.map(TokioIo::new) }
        })),
    )
}

/// Where a channel goes, and how.
struct Target {
    uri: Uri,
    host: String,
    port: u16,
    /// None in plain text.
    tls: Option<(Arc<ArcSwap<ClientConfig>>, ServerName<'static>)>,
}

impl Target {
    fn parse(
        url: &str,
        server_name: Option<&str>,
        tls: Option<Arc<ArcSwap<ClientConfig>>>,
    ) -> Result<Self, RpcError> {
        let bad_url = || RpcError::BadUrl(url.into());
        let uri: Uri = url.parse().map_err(|_| bad_url())?;
        let authority = uri.authority().ok_or_else(bad_url)?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if !bare || authority.as_str().contains('@') {
            return Err(bad_url());
        }
        // IPv6 addresses stand in brackets in URLs (RFC 3986, section 3.2.2), and nowhere else.
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host)
            .to_owned();
        let (default_port, tls) = match (uri.scheme_str(), tls) {
            (Some("https"), Some(config)) => {
                (443, Some((config, secured(server_name.unwrap_or(&host))?)))
            }
            (Some("https"), None) => return Err(RpcError::NoTls(url.into())),
            (Some("http"), _) if may_be_loopback(&host) => (80, None),
            (Some("http"), _) => return Err(RpcError::PlainText(url.into())),
            _ => return Err(bad_url()),
        };
        // The parser lets "host:" and "host:99999" pass as hosts without a port.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => default_port,
            Some(port) => port
                .strip_prefix(':')
                .and_then(|digits| digits.parse().ok())
                .filter(|port| *port != 0)
                .ok_or_else(bad_url)?,
            None => return Err(bad_url()),
        };
        Ok(Self {
            uri,
            host,
            port,
            tls,
        })
    }

    async fn dial(&self) -> io::Result<Box<dyn Transport>> {
        match &self.tls {
            None => Ok(Box::new(self.dial_loopback().await?)),
            Some((config, name)) => {
                let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
                stream.set_nodelay(true)?;
                let connector = TlsConnector::from(config.load_full());
                let stream = connector.connect(name.clone(), stream).await?;
                // Whoever does not agree on h2 would answer our preface with something else.
                if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(io::Error::new(
                        io::ErrorKind::Unsupported,
                        "the server does not speak HTTP/2, so it is no gRPC server",
                    ));
                }
                Ok(Box::new(stream))
            }
        }
    }

    /// Connects in plain text to those of the host's addresses that are loopback, whatever else its name resolves to.
    async fn dial_loopback(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(
            io::ErrorKind::PermissionDenied,
            "plain text is for loopback addresses alone, and the host has none",
        );
        for address in lookup_host((self.host.as_str(), self.port)).await? {
            if !address.ip().is_loopback() {
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn secured(name: &str) -> Result<ServerName<'static>, RpcError> {
    ServerName::try_from(name.to_owned()).map_err(|_| RpcError::BadServerName(name.into()))
}

/// Addresses are known at once; of names, only `localhost` (RFC 6761, section 6.3), whose addresses are looked at when it is dialled.
fn may_be_loopback(host: &str) -> bool {
    host.parse::<IpAddr>().map_or_else(
        |_| host.eq_ignore_ascii_case("localhost"),
        |ip| ip.is_loopback(),
    )
}

/// What a channel runs over.
trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}
