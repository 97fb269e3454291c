//! Ways to log in: each proves an account in its own way, and yields an identity. What they have in common is one small trait.
//!
//! ```text
//! RequestOtp ──────► otp ─────┬──► keyed hash ──► store          Login ──► the method named ──► Proven ──► session, or link
//!                             └──► mail, in its own time                        ▲
//! CreateChallenge ─► nonce ──────► keyed hash ──► store ────────────────────────┤ spent once
//! CreateLoginNonce ► nonce ─► keyed hash ─► store;  client ─► issuer ─► oidc ───┤
//! RequestVerification ► verification ► keyed hash ► store, mail ──► magic_link ─┤
//!                                                            └────► password ───┘ set by a mailed link
//! ```
//!
//! Accounts come to be by proving them, and become one player's only when that player, logged in, proves another one.

pub(super) mod address;
pub(super) mod dev;
pub(super) mod device_key;
pub(super) mod draw;
pub(super) mod limits;
pub(super) mod magic_link;
pub(super) mod network;
pub(super) mod nonce;
pub(super) mod oidc;
pub(super) mod otp;
pub(super) mod password;
#[cfg(test)]
mod timing;
pub(super) mod verification;

use std::sync::Arc;

use crate::{
    id::PlayerGeneration,
    proto::login_request::Method as Asked,
    store::{Identity, Join},
};

use self::{
    address::EmailAddress,
    dev::DevLogin,
    device_key::DeviceKey,
    magic_link::MagicLink,
    nonce::Nonces,
    oidc::Oidc,
    otp::Otp,
    password::{Hasher, Password},
    verification::Verifications,
};
use super::{StartError, config::LoginConfig, mail::Mailer, refusal::Refusal};

/// The provider of accounts that are an e-mail address, however it was proved.
pub(super) const EMAIL: &str = "email";

/// A way to log in.
pub(super) trait Method {
    /// What the caller brings.
    type Proof: Send;

    /// What it is called in sessions, tokens, logs and metrics.
    const NAME: &'static str;

    /// Whether what was brought proves an account, and which. What can be used once is used up by it.
    ///
    /// # Errors
    /// The refusal that the caller is told.
    fn prove(&self, proof: Self::Proof) -> impl Future<Output = Result<Identity, Refusal>> + Send;
}

/// An account that was proved.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) identity: Identity,
    /// The method's name.
    pub(super) method: &'static str,
    /// The generation that the player had when it was proved, where the proof is something that stays: a session of a later one was
    /// not earned by it.
    pub(super) generation: Option<PlayerGeneration>,
}

impl Proven {
    /// How the account joins those that a player has already: of e-mail addresses there is one.
    pub(super) fn join(&self) -> Join {
        if self.identity.provider == EMAIL {
            Join::Only
        } else {
            Join::Beside
        }
    }

    /// The e-mail address that was proved, if it was one.
    pub(super) fn email(&self) -> Option<EmailAddress> {
        let is_email = self.identity.provider == EMAIL;
        let subject = Some(&self.identity.subject).filter(|_| is_email);
        subject.and_then(|address| address.parse().ok())
    }
}

/// The ways to log in that are switched on.
pub(super) struct Methods {
    /// None where dev login is not allowed.
    pub(super) dev: Option<DevLogin>,
    pub(super) otp: Option<Otp>,
    pub(super) device_key: Option<DeviceKey>,
    pub(super) magic_link: Option<MagicLink>,
    pub(super) password: Option<Password>,
    /// None where no issuer is named.
    pub(super) oidc: Option<Oidc>,
    /// None where no mail leaves.
    pub(super) verifications: Option<Arc<Verifications>>,
}

impl Methods {
    /// What they are called in sessions, tokens, logs and metrics.
    pub(super) const NAMES: [&'static str; 6] = [
        DevLogin::NAME,
        Otp::NAME,
        DeviceKey::NAME,
        MagicLink::NAME,
        Password::NAME,
        Oidc::NAME,
    ];

    /// Those that are configured, but for dev login and OpenID Connect.
    pub(super) fn new(
        config: LoginConfig,
        mailer: Option<Mailer>,
        nonces: &Nonces,
    ) -> Result<Self, StartError> {
        let LoginConfig {
            otp,
            device_key,
            magic_link,
            password,
            oidc: _,
            magic_link_life,
            audience,
            fresh_login: _,
            limits: _,
        } = config;
        let Nonces { store, key, clock } = nonces;
        let verifications = mailer.clone().map(|mailer| {
            Arc::new(Verifications {
                store: Arc::clone(store),
                key: Arc::clone(key),
                mailer,
                clock: clock.clone(),
                magic_link_life,
            })
        });
        let hasher = password.then(Hasher::new).transpose();
        Ok(Self {
            dev: None,
            oidc: None,
            otp: mailer.filter(|_| otp).map(|mailer| Otp {
                store: Arc::clone(store),
                key: Arc::clone(key),
                mailer,
                clock: clock.clone(),
            }),
            magic_link: verifications.clone().filter(|_| magic_link).map(MagicLink),
            password: hasher.map_err(StartError::Hashing)?.map(|hasher| Password {
                store: Arc::clone(store),
                key: Arc::clone(key),
                hasher,
                clock: clock.clone(),
            }),
            device_key: device_key.then(|| DeviceKey {
                nonces: nonces.clone(),
                audience,
            }),
            verifications,
        })
    }

    /// What the method that the caller asks for is called.
    pub(super) fn name_of(asked: &Asked) -> &'static str {
        match asked {
            Asked::Dev(_) => DevLogin::NAME,
            Asked::Otp(_) => Otp::NAME,
            Asked::DeviceKey(_) => DeviceKey::NAME,
            Asked::MagicLink(_) => MagicLink::NAME,
            Asked::Password(_) => Password::NAME,
            Asked::Oidc(_) => Oidc::NAME,
        }
    }

    /// Proves an account by the method that the caller asks for.
    pub(super) async fn prove(&self, asked: Option<Asked>) -> Result<Proven, Refusal> {
        match asked {
            Some(Asked::Dev(login)) => prove_by(self.dev.as_ref(), login).await,
            Some(Asked::Otp(login)) => prove_by(self.otp.as_ref(), login).await,
            Some(Asked::DeviceKey(login)) => prove_by(self.device_key.as_ref(), login).await,
            Some(Asked::MagicLink(login)) => prove_by(self.magic_link.as_ref(), login).await,
            Some(Asked::Oidc(login)) => prove_by(self.oidc.as_ref(), login).await,
            Some(Asked::Password(login)) => {
                let method = self.password.as_ref();
                let method = method.ok_or(Refusal::MethodOff(Password::NAME))?;
                let (email, generation) = method.prove(login).await?;
                Ok(Proven {
                    identity: email.identity(),
                    method: Password::NAME,
                    generation: Some(generation),
                })
            }
            None => Err(Refusal::Argument {
                field: "method",
                allowed: "one of: dev, otp, device_key, magic_link, password, oidc",
            }),
        }
    }
}

async fn prove_by<M: Method>(method: Option<&M>, proof: M::Proof) -> Result<Proven, Refusal> {
    let method = method.ok_or(Refusal::MethodOff(M::NAME))?;
    Ok(Proven {
        identity: method.prove(proof).await?,
        method: M::NAME,
        generation: None,
    })
}
