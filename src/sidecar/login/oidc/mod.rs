//! Login by OpenID Connect: an issuer such as Google says who somebody is, in an identity token that it signs.
//!
//! ```text
//! CreateLoginNonce ─► nonce ─► client ─► issuer (its own pages) ─► identity token with the nonce ─► Login
//!                       │                                                                             │
//!                     store ◄── spent once ── nonce ◄── verify: signature, iss, aud, azp, exp, iat ◄──┘
//!                                                          ▲
//!                            keys ◄── discovery, JWKS over HTTPS
//! ```
//!
//! The nonce is spent last, by a token that fits in all else. Whoever saw a nonce on its way (it stands in URLs) can thus not use it up:
//! that takes a token with the nonce in it which the issuer has signed, for this game. Such a token logs in once, however often and at
//! however many sidecars it is handed in; its owner, if somebody else was faster, is told `nonce_already_used`.
//!
//! The account is the issuer's `sub` and nothing else. An e-mail address in the token is not looked at: it may be anybody's at another
//! issuer, and accounts are linked by proving both.

mod https;
mod keys;
mod settings;
mod verify;

use std::sync::Arc;

use openidconnect::ClientId;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    proto,
    sidecar::{metrics::Counters, refusal::Refusal},
    store::{Identity, OneTimePurpose},
};

use super::{
    Method,
    nonce::{Drawn, Nonces},
};

pub use self::settings::{
    InvalidIssuerAddress, InvalidIssuerName, IssuerAddress, IssuerName, MAX_CLIENT_IDS,
    MAX_ISSUERS, OidcError, OidcIssuer, are_client_ids,
};
pub(in crate::sidecar) use self::verify::{BadIdToken, nonce_text};
use self::{
    https::Https,
    keys::{Keeper, Keys},
    verify::{Expected, Vouched},
};

/// The login method.
pub(in crate::sidecar) struct Oidc {
    nonces: Nonces,
    issuers: Vec<Issuer>,
}

struct Issuer {
    name: IssuerName,
    address: IssuerAddress,
    client_ids: Vec<ClientId>,
    keys: Keys,
}

/// What keeps the issuers' keys.
pub(in crate::sidecar) struct Keepers(Vec<Keeper>);

impl Keepers {
    /// Keeps them until it is told to stop.
    pub(in crate::sidecar) fn run(self, tasks: &TaskTracker, stop: &CancellationToken) {
        for keeper in self.0 {
            tasks.spawn(keeper.run(stop.clone()));
        }
    }
}

impl Oidc {
    /// The method, and who keeps its keys; none without issuers. Nobody is asked for anything yet, so that an issuer that is down keeps no sidecar from starting.
    pub(in crate::sidecar) fn new(
        issuers: Vec<OidcIssuer>,
        nonces: Nonces,
        counters: &Arc<Counters>,
    ) -> Result<Option<(Self, Keepers)>, OidcError> {
        if issuers.is_empty() {
            return Ok(None);
        }
        if issuers.len() > MAX_ISSUERS {
            return Err(OidcError::TooMany(issuers.len()));
        }
        let mut known: Vec<Issuer> = Vec::with_capacity(issuers.len());
        let mut keepers = Vec::with_capacity(issuers.len());
        for issuer in issuers {
            let OidcIssuer {
                name,
                issuer: address,
                client_ids,
                ca,
            } = issuer;
            if known.iter().any(|other| other.name == name) {
                return Err(OidcError::SameName(name));
            }
            if !are_client_ids(&client_ids) {
                return Err(OidcError::ClientIds(name));
            }
            let https = Https::new(&name, address.clone(), &ca)?;
            let clock = nonces.clock.clone();
            let (keys, keeper) = keys::keys(name.clone(), https, clock, Arc::clone(counters));
            keepers.push(keeper);
            known.push(Issuer {
                name,
                address,
                client_ids: client_ids.into_iter().map(ClientId::new).collect(),
                keys,
            });
        }
        let method = Self {
            nonces,
            issuers: known,
        };
        Ok(Some((method, Keepers(keepers))))
    }

    /// Draws a nonce for an identity token.
    pub(in crate::sidecar) async fn nonce(&self) -> Result<Drawn, Refusal> {
        self.nonces.draw(OneTimePurpose::LoginNonce).await
    }

    async fn vouched(&self, issuer: &Issuer, token: &str) -> Result<Vouched, Refusal> {
        let verify = |keys: &_| {
            let expected = Expected {
                issuer: issuer.address.url(),
                client_ids: &issuer.client_ids,
                now: self.nonces.clock.wall(),
            };
            verify::verify(token, &expected, keys)
        };
        let known = issuer.keys.known();
        match verify(&known.keys) {
            Err(BadIdToken::UnknownKey) => {}
            judged => return judged.map_err(Refusal::IdToken),
        }
        let known = issuer.keys.beyond(&known).await;
        match verify(&known.keys) {
            // It may well be the issuer's: who can tell, as long as that does not answer?
            Err(BadIdToken::UnknownKey) if !known.is_up() => Err(Refusal::IssuerDown {
                wait: known.wait(self.nonces.clock.now()),
            }),
            judged => judged.map_err(Refusal::IdToken),
        }
    }
}

impl Method for Oidc {
    type Proof = proto::OidcLogin;

    const NAME: &'static str = "oidc";

    /// The nonce is spent last: see above.
    async fn prove(&self, login: proto::OidcLogin) -> Result<Identity, Refusal> {
        let proto::OidcLogin { issuer, id_token } = login;
        let named = |known: &&Issuer| known.name.as_str() == issuer;
        let issuer = self.issuers.iter().find(named).ok_or(Refusal::Argument {
            field: "oidc.issuer",
            allowed: "the name of an issuer as sidecar.login.oidc has it, such as google",
        })?;
        let Vouched { subject, nonce } = self.vouched(issuer, &id_token).await?;
        let purpose = OneTimePurpose::LoginNonce;
        self.nonces.spend(&nonce, purpose).await?;
        Ok(Identity {
            provider: issuer.name.to_string(),
            subject,
        })
    }
}
