//! How players come in: logging in, and what mailed links do.

use std::net::IpAddr;

use tonic::{Request, metadata::MetadataMap};
use zeroize::Zeroizing;

use crate::{
    clock::Timestamp,
    proto::{
        self, consume_verification_request::Purpose as Used, login_request::Method,
        request_verification_request::Purpose as Wanted,
    },
    rpc,
    store::{Found, OneTimePurpose, PasswordSet, SessionRevocation},
};

use super::{
    super::{
        audit::{self, Event, Revoked},
        login::{
            Methods, Proven,
            address::EmailAddress,
            password::{self, Password},
            verification::{Verifications, address_of},
        },
        mail::Room,
        refusal::{BadLogin, Refusal},
        sessions::LoggedIn,
    },
    AuthApi,
    ways::EmailChange,
};

impl AuthApi {
    /// Where a call comes from, if calls of its kind do not come from there too often.
    pub(super) fn limited<T>(
        &self,
        call: &'static str,
        request: &Request<T>,
    ) -> Result<IpAddr, Refusal> {
        let peer = rpc::peer(request);
        let origin = self.limits.origin(peer.as_ref(), request.metadata())?;
        audit::origin(origin);
        self.limits.call_from(call, origin)?;
        Ok(origin)
    }

    /// Has the audit know where a call comes from that is not limited by it.
    pub(super) fn whence<T>(&self, request: &Request<T>) {
        let peer = rpc::peer(request);
        if let Ok(origin) = self.limits.origin(peer.as_ref(), request.metadata()) {
            audit::origin(origin);
        }
    }

    /// A session for whoever proves an account, or for the bearer, whose account it is from now on too.
    pub(super) async fn log_in(
        &self,
        request: Request<proto::LoginRequest>,
    ) -> Result<LoggedIn, Refusal> {
        let asked = request.get_ref().method.as_ref();
        let method = asked.map_or("none", Methods::name_of);
        audit::method(method);
        let logged_in = self.prove_and_start(method, request).await;
        logged_in.inspect_err(|refusal| self.refused(refusal))
    }

    /// Counts what was refused.
    fn refused(&self, refusal: &Refusal) {
        let reason = refusal.of_login();
        self.sessions.counters.refused_logins.count(reason);
    }

    async fn prove_and_start(
        &self,
        method: &'static str,
        request: Request<proto::LoginRequest>,
    ) -> Result<LoggedIn, Refusal> {
        let origin = match &request.get_ref().method {
            // It is there on loopback alone.
            Some(Method::Dev(_)) => None,
            // Whoever has used up one way is let in by another.
            _ => Some(self.limited(method, &request)?),
        };
        let (metadata, _, proto::LoginRequest { method, link }) = request.into_parts();
        // Before anything is used up: whoever is nobody can link nothing.
        let caller = match link {
            true => {
                let caller = self.changing(&metadata).await?;
                let owner = self.owner(caller.player.id).await?;
                Some((caller, owner))
            }
            false => None,
        };
        let proven = self.methods.prove(method).await?;
        if let Some((caller, owner)) = caller {
            self.link(&caller, owner, &proven).await?;
        }
        if let Some(email) = proven.email() {
            if let Some(origin) = origin {
                self.limits.familiar(&email, origin).await;
            }
            if let Some(password) = self.by_mail(&proven) {
                password.forget_failures(&email).await?;
            }
        }
        self.start(proven, link).await
    }

    /// The password's ledger of failures, where the address was proved otherwise than by the password, which sees to it itself.
    fn by_mail(&self, proven: &Proven) -> Option<&Password> {
        let password = self.methods.password.as_ref();
        password.filter(|_| proven.method != Password::NAME)
    }

    /// The session that was earned. Where the proof stays good, as a password does until it is replaced, it may have been replaced
    /// between the look and the session: such a session is ended before anybody has a token of it.
    async fn start(&self, proven: Proven, linked: bool) -> Result<LoggedIn, Refusal> {
        let Proven {
            identity,
            method,
            generation,
        } = proven;
        let logged_in = self.sessions.log_in(identity, method, linked).await?;
        let session = &logged_in.found.session;
        if generation.is_some_and(|proved| proved != session.player_generation) {
            let at = self.sessions.clock.wall();
            let ended = self.sessions.store.revoke_session(session.id, at).await?;
            if let SessionRevocation::Ended(revision) = ended {
                let player = logged_in.found.player.id;
                self.sessions
                    .note_revoked(session.id, player, revision, at, Revoked::Outdated);
            }
            return Err(Refusal::Login(BadLogin::Outdated));
        }
        Ok(logged_in)
    }

    /// Mails the link that is asked for; until when it is good.
    pub(super) async fn mail_link(
        &self,
        request: Request<proto::RequestVerificationRequest>,
    ) -> Result<Timestamp, Refusal> {
        let origin = self.limited("request_verification", &request)?;
        let (metadata, _, request) = request.into_parts();
        let (purpose, expires_at) = self.mail_one(&metadata, request.purpose, origin).await?;
        audit::record(Event::Mailed { purpose });
        Ok(expires_at)
    }

    /// Mails a link; what it is for, and until when it is good.
    async fn mail_one(
        &self,
        metadata: &MetadataMap,
        wanted: Option<Wanted>,
        origin: IpAddr,
    ) -> Result<(&'static str, Timestamp), Refusal> {
        let wanted = wanted.ok_or(Refusal::Argument {
            field: "purpose",
            allowed: "one of: magic_link, password_reset, email_change",
        })?;
        match wanted {
            Wanted::MagicLink(email) => {
                let method = self.methods.magic_link.as_ref();
                let method = method.ok_or(Refusal::MethodOff("magic_link"))?;
                let (email, room) = self.addressed(&email, origin).await?;
                Ok(("magic_link", method.request(email, room).await?))
            }
            Wanted::PasswordReset(email) => {
                self.hashes()?;
                let (email, room) = self.addressed(&email, origin).await?;
                let payload = email.as_str().as_bytes().to_vec();
                let purpose = OneTimePurpose::PasswordReset;
                let mailed = self
                    .verifications()?
                    .mail(purpose, email, payload, None, room);
                Ok(("password_reset", mailed.await?))
            }
            Wanted::EmailChange(email) => {
                let verifications = self.verifications()?;
                let Found { session, .. } = self.changing(metadata).await?;
                let (email, room) = self.addressed(&email, origin).await?;
                let payload = EmailChange::payload(session.id, &email);
                let purpose = OneTimePurpose::EmailChange;
                // It needs the session, which is known until its absolute end.
                let until = Some(session.ends_at);
                let mailed = verifications.mail(purpose, email, payload, until, room);
                Ok(("email_change", mailed.await?))
            }
        }
    }

    /// Does what a mailed link is for.
    pub(super) async fn use_link(
        &self,
        request: Request<proto::ConsumeVerificationRequest>,
    ) -> Result<proto::ConsumeVerificationResponse, Refusal> {
        let origin = self.limited("consume_verification", &request);
        let origin = origin.inspect_err(|refusal| self.refused(refusal))?;
        let proto::ConsumeVerificationRequest { token, purpose } = request.into_inner();
        let token = Zeroizing::new(token);
        let used = match purpose {
            Some(Used::NewPassword(new)) => self.set_password(&token, new, origin).await,
            Some(Used::EmailChange(true)) => self.change_email(&token).await,
            Some(Used::EmailChange(false)) | None => Err(Refusal::Argument {
                field: "purpose",
                allowed: "one of: new_password, email_change (true)",
            }),
        };
        used.inspect_err(|refusal| self.refused(refusal))
    }

    async fn set_password(
        &self,
        token: &str,
        new: String,
        origin: IpAddr,
    ) -> Result<proto::ConsumeVerificationResponse, Refusal> {
        // Whatever can be refused is, before the token is used up.
        let method = self.hashes()?;
        let new = password::sound(new)?;
        let place = method.hasher.place()?;
        let purpose = OneTimePurpose::PasswordReset;
        let payload = self.verifications()?.spend(token, purpose).await?;
        let email = address_of(payload.bytes())?;
        let phc = place.hash(new).await?;
        let at = self.sessions.clock.wall();
        let set = self.sessions.store.set_password(email.identity(), phc, at);
        let PasswordSet {
            player,
            is_new_player,
            revision,
            sessions,
        } = set.await?;
        // Told before anything else can fail: it is done.
        self.sessions.explain.player_revoked(player, revision, at);
        self.sessions.counters.revocations.count("player");
        audit::record(Event::PasswordSet {
            player,
            is_new_player,
        });
        audit::record(Event::PlayerRevoked {
            player,
            revision,
            sessions,
            reason: Revoked::PasswordSet,
        });
        self.limits.familiar(&email, origin).await;
        if let Err(error) = method.forget_failures(&email).await {
            // The password is set all the same; a login by mail, or the next reset, forgets them too.
            tracing::warn!(
                label = error.label(),
                "failed attempts at a password were not forgotten"
            );
        }
        Ok(proto::ConsumeVerificationResponse {
            player_id: player.to_string(),
            is_new_player,
            sessions_ended: sessions,
        })
    }

    /// The address, if it is one and not mailed to too often, and room for a letter to it: which comes first, so that one that cannot be
    /// sent is none of those that the address may get.
    async fn addressed(
        &self,
        email: &str,
        origin: IpAddr,
    ) -> Result<(EmailAddress, Room), Refusal> {
        let email = email.parse().map_err(|_| Refusal::Email("purpose"))?;
        let room = self.verifications()?.mailer.room()?;
        self.limits.to_email(&email, origin).await?;
        Ok((email, room))
    }

    fn hashes(&self) -> Result<&Password, Refusal> {
        let password = self.methods.password.as_ref();
        password.ok_or(Refusal::MethodOff(Password::NAME))
    }

    pub(super) fn verifications(&self) -> Result<&Verifications, Refusal> {
        let verifications = self.methods.verifications.as_deref();
        verifications.ok_or(Refusal::MethodOff("e-mail change"))
    }
}
