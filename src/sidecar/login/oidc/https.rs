//! Asks an issuer over HTTPS: one small answer at a time, bounded in size and time. Redirects are not followed.

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use openidconnect::{
    AsyncHttpClient, DiscoveryError, HttpRequest, HttpResponse,
    core::{CoreJsonWebKeySet, CoreProviderMetadata},
    http::{HeaderValue, Request, header::USER_AGENT},
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use thiserror::Error;

use crate::tls;

use super::settings::{IssuerAddress, IssuerName, OidcError};

/// The longest answer, in bytes. Google's keys have 2 KiB; those of issuers with many tenants, and certificates beside each key, 30.
pub(super) const MAX_ANSWER: usize = 128 << 10;

/// How long connecting may take; to what is not there by IPv6, IPv4 is tried beside it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long asking for the keys may take in all: two answers. Less than callers wait for theirs (10 s).
const TIMEOUT: Duration = Duration::from_secs(6);

/// Who asks: some servers answer nobody else.
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("tickgate/", env!("CARGO_PKG_VERSION")));

type Connector = HttpsConnector<HttpConnector>;

/// The line to one issuer.
pub(super) struct Https {
    client: Client<Connector, Empty<Bytes>>,
    issuer: IssuerAddress,
}

/// Why there are no new keys. The text is for the log.
#[derive(Debug)]
pub(super) struct NotFetched {
    /// Its fixed name.
    pub(super) label: &'static str,
    pub(super) detail: String,
}

impl Https {
    pub(super) fn new(
        name: &IssuerName,
        issuer: IssuerAddress,
        ca: &[CertificateDer<'static>],
    ) -> Result<Self, OidcError> {
        let roots = roots(ca).ok_or_else(|| OidcError::NoAuthority(name.clone()))?;
        let tls = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|_| OidcError::Tls(name.clone()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        // Keys are asked for once in a while: no connection is kept for that.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self { client, issuer })
    }

    /// Discovers where the issuer's keys are, and fetches them (OpenID Connect Discovery 1.0, section 4).
    pub(super) async fn fetch(&self) -> Result<Arc<CoreJsonWebKeySet>, NotFetched> {
        let discovered = CoreProviderMetadata::discover_async(self.issuer.url().clone(), self);
        match tokio::time::timeout(TIMEOUT, discovered).await {
            // Keys of kinds that we do not know are left out; with none at all nobody could log in.
            Ok(Ok(metadata)) if metadata.jwks().keys().is_empty() => Err(NotFetched {
                label: "no_keys",
                detail: "none of the issuer's keys is one that we know how to use".to_owned(),
            }),
            Ok(Ok(metadata)) => Ok(Arc::new(metadata.jwks().clone())),
            Ok(Err(error)) => Err(not_fetched(&error)),
            Err(_) => Err(NotFetched {
                label: "timeout",
                detail: format!("no answer within {} s", TIMEOUT.as_secs()),
            }),
        }
    }

    async fn get(&self, request: HttpRequest) -> Result<HttpResponse, GetError> {
        let (mut parts, _) = request.into_parts();
        parts.headers.insert(USER_AGENT, AGENT);
        let request = Request::from_parts(parts, Empty::new());
        let answer = self.client.request(request).await?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| match error.downcast::<LengthLimitError>() {
            Ok(_) => GetError::TooLong,
            Err(error) => GetError::Cut(error),
        })?;
        Ok(HttpResponse::from_parts(parts, body.to_bytes().to_vec()))
    }
}

impl<'c> AsyncHttpClient<'c> for Https {
    type Error = GetError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, GetError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.get(request))
    }
}

/// Those who may have signed the issuer's certificate: `ca`, or whom this machine trusts. None if there is nobody.
fn roots(ca: &[CertificateDer<'static>]) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if ca.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        roots.add_parsable_certificates(ca.iter().cloned());
    }
    (!roots.is_empty()).then_some(roots)
}

/// Why there was no answer.
#[derive(Debug, Error)]
pub(super) enum GetError {
    #[error("the issuer cannot be reached")]
    Unreachable(#[from] hyper_util::client::legacy::Error),
    #[error("the issuer's answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
    #[error("the issuer's answer was cut")]
    Cut(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl GetError {
    const fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::TooLong => "too_long",
            Self::Cut(_) => "cut",
        }
    }
}

fn not_fetched(error: &DiscoveryError<GetError>) -> NotFetched {
    let label = match error {
        DiscoveryError::Request(error) => error.label(),
        DiscoveryError::Response(..) => "status",
        DiscoveryError::Validation(_) => "another_issuer",
        // A document or a URL in it.
        _ => "malformed",
    };
    NotFetched {
        label,
        detail: Chain(error).to_string(),
    }
}

/// An error with what has caused it: that a certificate is not trusted stands at the very end.
struct Chain<'a>(&'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
