//! An OpenID issuer: HTTPS on loopback with a CA of its own, discovery, keys that change, and tokens signed by them. It can misbehave.

use std::sync::{Arc, Mutex};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, LOCATION},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use ring::{
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tickgate::{certs::DevCerts, sidecar::OidcIssuer, tls};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

/// The client ids that it has given the game.
pub(crate) const WEB: &str = "web.apps.example.com";
pub(crate) const ANDROID: &str = "android.apps.example.com";

/// A key that it signs with, and how it is published.
pub(crate) struct Signer {
    kid: String,
    key: SigningKey,
}

enum SigningKey {
    P256(Box<EcdsaKeyPair>),
    Rsa(Box<RsaKeyPair>),
}

impl Signer {
    pub(crate) fn p256(kid: &str) -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).unwrap();
        Self {
            kid: kid.to_owned(),
            key: SigningKey::P256(Box::new(pair)),
        }
    }

    /// ring makes no RSA keys: this one was made for these tests (openssl genpkey), and is nobody's.
    pub(crate) fn rsa(kid: &str) -> Self {
        let pair = RsaKeyPair::from_pkcs8(include_bytes!("data/issuer-rsa.der")).unwrap();
        Self {
            kid: kid.to_owned(),
            key: SigningKey::Rsa(Box::new(pair)),
        }
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match &self.key {
            SigningKey::P256(_) => "ES256",
            SigningKey::Rsa(_) => "RS256",
        }
    }

    pub(crate) fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let (kid, alg) = (&self.kid, self.algorithm());
        match &self.key {
            SigningKey::P256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({
                    "kty": "EC", "crv": "P-256", "use": "sig", "alg": alg, "kid": kid, "x": text(x), "y": text(y),
                })
            }
            SigningKey::Rsa(pair) => {
                let PublicKeyComponents::<Vec<u8>> { n, e } = pair.public().into();
                json!({
                    "kty": "RSA", "use": "sig", "alg": alg, "kid": kid, "n": text(&n), "e": text(&e),
                })
            }
        }
    }

    /// A token with these claims, signed.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_of(
            &json!({ "alg": self.algorithm(), "kid": self.kid, "typ": "JWT" }),
            claims,
        )
    }

    /// The same with any header; what is signed, and how, is what the key does.
    pub(crate) fn token_of(&self, header: &Value, claims: &Value) -> String {
        let input = format!("{}.{}", part(header), part(claims));
        let random = SystemRandom::new();
        let signature = match &self.key {
            SigningKey::P256(pair) => {
                let signature = pair.sign(&random, input.as_bytes()).unwrap();
                signature.as_ref().to_vec()
            }
            SigningKey::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, input.as_bytes(), &mut signature)
                    .unwrap();
                signature
            }
        };
        format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A part of a token.
pub(crate) fn part(json: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(json.to_string())
}

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Well,
    /// Hangs up before TLS.
    Down,
    /// Says nothing more after TLS.
    Silent,
    /// An error page in place of the keys.
    Broken,
    /// More keys than anybody needs.
    Oversized,
    /// Its keys elsewhere.
    Redirecting,
    /// Its keys without TLS.
    PlainText,
    /// The discovery document of somebody else.
    SomebodyElse,
    /// No keys at all.
    Keyless,
}

struct State {
    mode: Mode,
    keys: Vec<Value>,
    /// How often its keys were asked for, or it was in vain.
    asked: usize,
}

/// A running issuer; dropped, it is gone.
pub(crate) struct Issuer {
    pub(crate) url: String,
    ca: CertificateDer<'static>,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl Issuer {
    pub(crate) async fn up(keys: &[&Signer]) -> Self {
        let certs = DevCerts::generate(&[]).unwrap();
        let mut tls = tls::rpc_server_config(&certs.sidecar, None).unwrap();
        tls.alpn_protocols.clear();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            mode: Mode::Well,
            keys: keys.iter().map(|key| key.jwk()).collect(),
            asked: 0,
        }));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, acceptor, url.clone(), Arc::clone(&state)));
        Self {
            url,
            ca: certs.ca,
            state,
            _tasks: tasks,
        }
    }

    /// As a sidecar is told of it.
    pub(crate) fn config(&self, name: &str) -> OidcIssuer {
        OidcIssuer {
            name: name.parse().unwrap(),
            issuer: self.url.parse().unwrap(),
            client_ids: vec![WEB.to_owned(), ANDROID.to_owned()],
            ca: vec![self.ca.clone()],
        }
    }

    pub(crate) fn answers(&self, mode: Mode) {
        self.state.lock().unwrap().mode = mode;
    }

    pub(crate) fn publishes(&self, keys: &[&Signer]) {
        self.state.lock().unwrap().keys = keys.iter().map(|key| key.jwk()).collect();
    }

    /// How often somebody has come for its keys.
    pub(crate) fn asked(&self) -> usize {
        self.state.lock().unwrap().asked
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    url: String,
    state: Arc<Mutex<State>>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, url, state) = (acceptor.clone(), url.clone(), Arc::clone(&state));
        connections.spawn(async move {
            let mode = {
                let mut state = state.lock().unwrap();
                if matches!(state.mode, Mode::Down | Mode::Silent) {
                    state.asked += 1;
                }
                state.mode
            };
            if mode == Mode::Down {
                return;
            }
            // Who does not trust it hangs up here.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            if mode == Mode::Silent {
                return std::future::pending().await;
            }
            let answer = service_fn(|request| {
                let answer = answer(&request, &url, &mut state.lock().unwrap());
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            // Whoever is told too much hangs up in the middle.
            drop(served);
        });
    }
}

fn answer(request: &Request<Incoming>, url: &str, state: &mut State) -> Response<Full<Bytes>> {
    let of = |json: Value| {
        Response::builder()
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .body(Full::from(json.to_string()))
            .unwrap()
    };
    let keys = json!({ "keys": state.keys });
    match request.uri().path() {
        "/.well-known/openid-configuration" => {
            let issuer = match state.mode {
                Mode::SomebodyElse => "https://accounts.example.com",
                _ => url,
            };
            let keys = match state.mode {
                Mode::PlainText => format!("{}/keys", url.replace("https", "http")),
                _ => format!("{url}/keys"),
            };
            if matches!(state.mode, Mode::SomebodyElse | Mode::PlainText) {
                state.asked += 1;
            }
            of(json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{url}/authorize"),
                "token_endpoint": format!("{url}/token"),
                "jwks_uri": keys,
                "response_types_supported": ["code", "id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            }))
        }
        path => {
            state.asked += 1;
            match state.mode {
                Mode::Broken => Response::builder()
                    .status(StatusCode::BAD_GATEWAY)
                    .body(Full::from("<html>502</html>"))
                    .unwrap(),
                Mode::Oversized => {
                    let many = vec![json!({ "kty": "RSA", "n": "x".repeat(1 << 10) }); 200];
                    let keys = [state.keys.clone(), many].concat();
                    of(json!({ "keys": keys }))
                }
                Mode::Redirecting if path == "/keys" => Response::builder()
                    .status(StatusCode::FOUND)
                    .header(LOCATION, format!("{url}/elsewhere"))
                    .body(Full::default())
                    .unwrap(),
                Mode::Keyless => of(json!({ "keys": [] })),
                _ => of(keys),
            }
        }
    }
}
