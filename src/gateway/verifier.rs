//! Sessions by JTI and connect tokens by their text: for callers who know no handles.

use std::{fmt, sync::Arc};

use thiserror::Error;

use super::{
    admit::{self, Refusal},
    shared::Shared,
};
use crate::{
    clock::Timestamp,
    id::{ClientId, PlayerId, SessionId},
};

/// What an engine asks that keeps its players by JTI: may this session stay, and whose is this token?
///
/// An engine written against a trait of this shape takes a [`Verifier`] for it, and its tests one of their own. A loop that is
/// written for Tickgate keeps [`Handle`](crate::seat::Handle)s and calls [`Seats::verify`](super::Seats::verify) or
/// [`verify_batch`](super::Seats::verify_batch), which cost a hundredth.
///
/// `tick` is the number of the caller's tick, for verifiers that spread work over ticks by it. Any number is right for one that does not.
pub trait SessionVerifier: Send + Sync {
    /// Whether the session named by this JTI may play on at this instant. False for a text that names no session.
    fn is_session_authorized(&self, jti: &str, tick: u64) -> bool;

    /// Whose token this is, if it is good at this instant. The token is not used up.
    ///
    /// # Errors
    /// [`VerifyError`], with the true reason as its label. It is for logs: to tell a client which check a token fails helps forgers.
    fn verify_session(&self, token: &str, tick: u64) -> Result<VerifiedSession, VerifyError>;
}

/// What a good connect token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedSession {
    /// The session.
    pub session: SessionId,
    /// Whose it is.
    pub player: PlayerId,
    /// The client id of a seat that is taken with this token. A session that has a seat already keeps the seat's.
    pub client: ClientId,
    /// When the token stops being good, but for some seconds of leeway.
    pub expires_at: Timestamp,
    /// The session's absolute end.
    pub session_ends_at: Timestamp,
}

/// Why a connect token is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[error("the connect token is not good here: {}", .0.label())]
pub struct VerifyError(Refusal);

impl VerifyError {
    /// The reason as a fixed label, the same as for a client that is refused at the door.
    pub const fn label(self) -> &'static str {
        self.0.label()
    }

    /// What a client with this token would be refused for. Its [close code](Refusal::close_code) says what to do about it.
    pub const fn refusal(self) -> Refusal {
        self.0
    }
}

/// Verifies by the seats, keys and revocations of a gateway. Clones are of the same gateway, and any thread may ask. From
/// [`Gateway::verifier`](super::Gateway::verifier).
///
/// `is_session_authorized` is a lock and a hash map; `verify_session` opens a PASETO, some 4 µs, and reads the clock. Neither needs
/// the number of the tick: the tick pass writes out activity, whoever asks in between.
#[derive(Clone)]
pub struct Verifier {
    shared: Arc<Shared>,
}

impl Verifier {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl SessionVerifier for Verifier {
    /// Whether the session has a live seat here: a suspended one, whose client is away, is not authorized to act.
    fn is_session_authorized(&self, jti: &str, _tick: u64) -> bool {
        jti.parse()
            .is_ok_and(|session| self.shared.seats.is_session_authorized(session))
    }

    /// Judges a connect token of this gateway process as admission does: its key and MAC, `aud`, `iat`, `exp`, the session's end,
    /// that neither session nor player was revoked, that the revocation log covers the token, and that the sidecar was heard of lately
    /// enough for all that to mean something.
    ///
    /// Whether it was used makes no difference, since that is for the one who presents it first. A token that names a client key is refused,
    /// because its bearer has to prove that he holds the key, and here he cannot. A token ahead of the log (`log_behind`) may be good a
    /// moment later; admission waits for that, and this does not.
    fn verify_session(&self, token: &str, _tick: u64) -> Result<VerifiedSession, VerifyError> {
        let shared = &*self.shared;
        let now = shared.clock.wall();
        if !shared.sidecar_is_fresh(now) {
            return Err(VerifyError(Refusal::ControlStale));
        }
        let claims = admit::open(shared, token, now).map_err(VerifyError)?;
        if claims.client_key.is_some() {
            return Err(VerifyError(Refusal::ProofMissing));
        }
        admit::hold(shared, &claims, now).map_err(VerifyError)?;
        Ok(VerifiedSession {
            session: claims.session,
            player: claims.player,
            client: claims.client,
            expires_at: claims.expires_at,
            session_ends_at: claims.session_ends_at,
        })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("gateway", &self.shared.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        gateway::admit::tests::{Door, HEAD, START, TAIL},
        id::{PlayerGeneration, Revision},
        seat::{Connection, EndReason, Revoked},
        token::{Rejection, TransportKey, seal_connect},
    };

    const ANY: [u64; 3] = [0, 61, u64::MAX];

    /// As an engine holds it.
    fn engine(door: &Door) -> Box<dyn SessionVerifier> {
        Box::new(Verifier::new(Arc::clone(&door.shared)))
    }

    #[test]
    fn a_good_token_is_verified_again_and_again_and_then_admits() {
        let door = Door::plain();
        let (engine, token) = (engine(&door), door.token());
        let expected = VerifiedSession {
            session: door.claims.session,
            player: door.claims.player,
            client: door.claims.client,
            expires_at: door.claims.expires_at,
            session_ends_at: door.claims.session_ends_at,
        };
        for tick in ANY {
            assert_eq!(engine.verify_session(&token, tick), Ok(expected));
        }
        assert!(door.shared.seats.is_empty(), "nothing has happened");
        door.ask().unwrap();
        assert_eq!(door.refusal(), Refusal::TokenUsed);
        // It is its session's all the same.
        assert_eq!(engine.verify_session(&token, 0), Ok(expected));
    }

    #[test]
    fn a_session_is_authorized_while_its_seat_is_live() {
        let door = Door::plain();
        let engine = engine(&door);
        let jti = door.claims.session.to_string();
        let asked = |expected: bool| {
            for tick in ANY {
                assert_eq!(engine.is_session_authorized(&jti, tick), expected);
            }
        };
        asked(false);
        let admission = door.ask().unwrap();
        asked(true);
        let connection = Connection { worker: 0, id: 1 };
        assert!(
            door.shared
                .seats
                .suspend(admission.handle, connection, START)
        );
        asked(false);
        assert!(door.shared.seats.end(admission.handle, EndReason::Left));
        asked(false);
    }

    #[test]
    fn a_text_that_is_no_jti_is_nobodys() {
        let door = Door::plain();
        door.ask().unwrap();
        let (engine, jti) = (engine(&door), door.claims.session.to_string());
        assert!(engine.is_session_authorized(&jti, 0));
        for text in [
            "",
            "x",
            "../../etc/passwd",
            &jti[1..],
            &format!("{jti}0"),
            "é",
        ] {
            assert!(!engine.is_session_authorized(text, 0), "{text}");
        }
    }

    /// Each rule that a token can break is told by its label, and is the one that admission refuses it for.
    #[test]
    fn a_bad_token_is_refused_as_at_the_door() {
        type Break = fn(&mut Door);
        let rules: [(&str, Break); 11] = [
            ("control_stale", |door| {
                door.shared
                    .heard_of_sidecar(START.before(Duration::from_secs(31)));
            }),
            ("unknown_key", |door| {
                door.shared.keys_mut().replace(Vec::new());
            }),
            ("bad_mac", |door| {
                door.claims.gateway = "two".parse().unwrap();
            }),
            ("not_yet_valid", |door| {
                door.claims.issued_at = START.after(Duration::from_secs(6));
            }),
            ("proof_missing", Door::bind),
            ("expired", |door| {
                door.claims.issued_at = START.before(Duration::from_secs(20));
                door.claims.expires_at = START.before(Duration::from_secs(5));
            }),
            ("session_expired", |door| {
                door.claims.session_ends_at = START;
            }),
            ("session_revoked", |door| {
                let session = door.claims.session;
                door.shared
                    .change_revocations(|log| log.apply_session(session, START));
            }),
            ("session_revoked", |door| {
                let all = Revoked::Player(door.claims.player, PlayerGeneration(1));
                let next = Revision(HEAD.0 + 1);
                door.shared
                    .change_revocations(|log| log.apply(HEAD, next, [all], START))
                    .unwrap();
            }),
            ("token_before_log", |door| {
                door.claims.revision = Revision(TAIL.0 - 1);
            }),
            ("log_behind", |door| {
                door.claims.revision = Revision(HEAD.0 + 1);
            }),
        ];
        for (label, broken) in rules {
            let mut door = Door::plain();
            broken(&mut door);
            let error = engine(&door).verify_session(&door.token(), 7).unwrap_err();
            assert_eq!(error.label(), label);
            assert!(error.to_string().ends_with(label), "{error}");
            if label != "log_behind" {
                assert_eq!(door.refusal(), error.refusal());
            }
        }
    }

    #[test]
    fn a_forged_token_is_refused_wherever_it_was_changed() {
        let door = Door::plain();
        let (engine, token) = (engine(&door), door.token());
        let forged = seal_connect(&TransportKey::from_bytes(&[2; 32]), &door.claims);
        let refused = |text: &str| engine.verify_session(text, 0).unwrap_err().refusal();
        assert_eq!(refused(&forged), Refusal::Token(Rejection::UnknownKey));
        assert_eq!(refused(""), Refusal::Token(Rejection::Malformed));
        // The head, the ciphertext and the footer.
        for at in [0, 12, token.len() / 2, token.len() - 2] {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(matches!(refused(&changed), Refusal::Token(_)), "at {at}");
        }
        assert!(engine.verify_session(&token, 0).is_ok());
    }
}
