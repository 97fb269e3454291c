//! What each kind of villain does: how it comes by its token, and what the gateway makes of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tickgate::{
    client::{
        Backend, CallError, Connection, Endpoint, HelloOptions, SecretToken, Session, Target,
        Ticket, Wait,
    },
    clock::Clock,
    id::{ClientId, GatewayId, PlayerGeneration, PlayerId, Revision},
    token::{ConnectClaims, Nonce, TransportKey, seal_connect},
};

use crate::{
    inquest::Case,
    plan::{PlannedVillain, VillainKind},
    progress::{Live, count},
};

/// Where villains act, and what they act with.
#[derive(Clone)]
pub(crate) struct Scene {
    /// The clock.
    pub(crate) clock: Clock,
    /// Where their sessions and tokens come from: villains are former customers.
    pub(crate) backend: Backend,
    /// Where they connect from.
    pub(crate) endpoint: Endpoint,
    /// The gateway that they try to get into.
    pub(crate) gateway: GatewayId,
    /// A gateway whose tokens must not work there.
    pub(crate) other_gateway: Option<GatewayId>,
    /// What their names begin with, so that two runs do not share players.
    pub(crate) prefix: String,
    /// Counts for the progress line.
    pub(crate) live: Arc<Live>,
}

/// A token's shortest life.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);
/// Gateways accept a token for 5 s after its end, for clocks that differ; one second more, for good measure.
const LEEWAY: Duration = Duration::from_secs(6);
/// How long an owner of a replayed token is watched for harm: the gateway needs some milliseconds to close a connection.
const WATCH: Duration = Duration::from_millis(100);
/// How long a revocation may take to reach the gateway before its token is presented.
const REVOKE_WAIT: Duration = Duration::from_secs(2);

/// A token that was left to expire.
pub(crate) struct Stale {
    attempt: Attempt,
    /// From here on it must be refused.
    pub(crate) expired_at: Instant,
}

/// What a villain met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Met {
    /// Refused.
    Refused {
        /// The name of what it saw.
        with: &'static str,
        /// Whether somebody who had the right to play was thrown out by the attempt.
        harm: bool,
        /// What an operator may ask about it.
        case: Case,
    },
    /// Let in.
    LetIn,
    /// Something before the attempt failed.
    NotPlayed(String),
}

impl Scene {
    /// Tells the progress line.
    pub(crate) fn count(&self, met: &Met) {
        match met {
            Met::Refused { .. } => count(&self.live.refused),
            Met::LetIn => count(&self.live.wrongly_admitted),
            Met::NotPlayed(_) => {}
        }
    }

    /// Plays a villain, now.
    pub(crate) async fn play(
        &self,
        villain: PlannedVillain,
        stale: Option<Result<Stale, String>>,
    ) -> Met {
        let attempt = match villain.kind {
            VillainKind::Replayed => return self.replay(villain).await,
            VillainKind::Expired => match stale {
                Some(Ok(stale)) => Ok(stale.attempt),
                Some(Err(why)) => return Met::NotPlayed(why),
                None => return Met::NotPlayed("no token was left to expire".to_owned()),
            },
            VillainKind::Forged => self.forged(villain).await,
            VillainKind::WrongGateway => match self.other_gateway.clone() {
                Some(other) => self.of_another_gateway(villain, other).await,
                None => return Met::NotPlayed("the stack has no second gateway".to_owned()),
            },
            VillainKind::SessionToken => self.session_token(villain).await,
            VillainKind::Revoked => self.revoked(villain).await,
        };
        match attempt {
            Ok(attempt) => self.present(attempt).await,
            Err(error) => Met::NotPlayed(error.to_string()),
        }
    }

    /// Presents a token, or else the ticket's own, at the ticket's gateway.
    async fn present(&self, attempt: Attempt) -> Met {
        let Attempt {
            player,
            ticket,
            token,
        } = attempt;
        let options = HelloOptions {
            token,
            ..HelloOptions::default()
        };
        let presented = options.token.as_ref().unwrap_or(&ticket.token);
        let case = Case {
            player,
            token_sha256: hex(&presented.sha256()),
        };
        match self.endpoint.connect_with(&ticket, &options).await {
            Ok(_connection) => Met::LetIn,
            Err(error) => Met::Refused {
                with: error.label(),
                harm: false,
                case,
            },
        }
    }

    /// A session of the villain's own, and a genuine ticket to the gateway for it.
    async fn genuine(&self, villain: PlannedVillain) -> Result<(Session, Ticket), CallError> {
        let session = self.session(villain).await?;
        let target = Target::Gateway(self.gateway.clone());
        let ticket = self
            .backend
            .issue_connect_token(session.id, target, None)
            .await?;
        Ok((session, ticket))
    }

    async fn session(&self, villain: PlannedVillain) -> Result<Session, CallError> {
        let (kind, number) = (villain.kind.label(), villain.number);
        let subject = format!("{}-{kind}-{number}", self.prefix);
        self.backend.create_session(&subject).await
    }

    /// A ticket that has expired some seconds from now.
    pub(crate) async fn left_to_expire(&self, villain: PlannedVillain) -> Result<Stale, CallError> {
        let session = self.session(villain).await?;
        let target = Target::Gateway(self.gateway.clone());
        let ticket = self
            .backend
            .issue_connect_token(session.id, target, Some(SHORTEST_LIFE))
            .await?;
        Ok(Stale {
            attempt: Attempt::with_its_own(&session, ticket),
            expired_at: self.clock.now() + SHORTEST_LIFE + LEEWAY,
        })
    }

    /// The owner connects with its token and plays on; the villain has overheard the token.
    async fn replay(&self, villain: PlannedVillain) -> Met {
        let (session, ticket) = match self.genuine(villain).await {
            Ok(genuine) => genuine,
            Err(error) => return Met::NotPlayed(error.to_string()),
        };
        let owner = match self.endpoint.connect(&ticket).await {
            Ok(owner) => owner,
            Err(error) => return Met::NotPlayed(format!("the token's owner: {error}")),
        };
        match self.present(Attempt::with_its_own(&session, ticket)).await {
            Met::Refused { with, case, .. } => Met::Refused {
                with,
                harm: is_gone(&owner).await,
                case,
            },
            other => other,
        }
    }

    async fn forged(&self, villain: PlannedVillain) -> Result<Attempt, CallError> {
        let (session, ticket) = self.genuine(villain).await?;
        let mut rng = ChaCha8Rng::seed_from_u64(villain.seed);
        let genuine = ticket.token.expose();
        let forgery = match villain.number % 3 {
            0 => with_a_byte_changed(genuine, &mut rng),
            1 => self.sealed_under_a_key_of_its_own(&session, &mut rng),
            _ => {
                let sealed = self.sealed_under_a_key_of_its_own(&session, &mut rng);
                with_footer_of(&sealed, genuine)
            }
        };
        Ok(Attempt::with_another(
            &session,
            ticket,
            SecretToken::new(forgery),
        ))
    }

    /// A connect token that is right in every claim, under a key that the villain made.
    fn sealed_under_a_key_of_its_own(&self, session: &Session, rng: &mut ChaCha8Rng) -> String {
        let now = self.clock.wall();
        let claims = ConnectClaims {
            player: session.player,
            session: session.id,
            player_generation: PlayerGeneration::default(),
            client: ClientId(rng.random()),
            nonce: Nonce(rng.random()),
            gateway: self.gateway.clone(),
            revision: Revision::default(),
            session_ends_at: session.ends_at,
            client_key: None,
            issued_at: now,
            expires_at: now.after(Duration::from_secs(30)),
        };
        seal_connect(&TransportKey::from_bytes(&rng.random()), &claims)
    }

    async fn of_another_gateway(
        &self,
        villain: PlannedVillain,
        other: GatewayId,
    ) -> Result<Attempt, CallError> {
        let (session, ticket) = self.genuine(villain).await?;
        let foreign = self
            .backend
            .issue_connect_token(session.id, Target::Gateway(other), None)
            .await?;
        Ok(Attempt::with_another(&session, ticket, foreign.token))
    }

    async fn session_token(&self, villain: PlannedVillain) -> Result<Attempt, CallError> {
        let (session, ticket) = self.genuine(villain).await?;
        Ok(Attempt::with_another(
            &session,
            ticket,
            session.token.clone(),
        ))
    }

    async fn revoked(&self, villain: PlannedVillain) -> Result<Attempt, CallError> {
        let (session, ticket) = self.genuine(villain).await?;
        self.backend
            .revoke_session(session.id, Wait::Gateways(REVOKE_WAIT))
            .await?;
        Ok(Attempt::with_its_own(&session, ticket))
    }
}

/// What a villain is going to try.
struct Attempt {
    player: PlayerId,
    ticket: Ticket,
    /// The token to present in the ticket's own one's place.
    token: Option<SecretToken>,
}

impl Attempt {
    fn with_its_own(session: &Session, ticket: Ticket) -> Self {
        Self {
            player: session.player,
            ticket,
            token: None,
        }
    }

    fn with_another(session: &Session, ticket: Ticket, token: SecretToken) -> Self {
        Self {
            token: Some(token),
            ..Self::with_its_own(session, ticket)
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the connection ends within [`WATCH`].
async fn is_gone(connection: &Connection) -> bool {
    tokio::time::timeout(WATCH, connection.closed())
        .await
        .is_ok()
}

/// `v4.local.payload[.footer]` with one character of the payload changed: a byte of nonce, ciphertext or tag.
fn with_a_byte_changed(token: &str, rng: &mut ChaCha8Rng) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let Some(payload) = parts.get(2).filter(|payload| payload.len() > 1) else {
        return token.to_owned();
    };
    // Not the last character: some of its bits may stand for nothing.
    let position = rng.random_range(0..payload.len() - 1);
    let changed: String = payload
        .char_indices()
        .map(|(i, c)| match c {
            c if i != position => c,
            'A' => 'B',
            _ => 'A',
        })
        .collect();
    let mut parts = parts.clone();
    if let Some(payload) = parts.get_mut(2) {
        *payload = &changed;
    }
    parts.join(".")
}

/// `sealed` with the footer, and so the key id, of `genuine`.
fn with_footer_of(sealed: &str, genuine: &str) -> String {
    let body: Vec<&str> = sealed.split('.').take(3).collect();
    let footer = genuine.split('.').nth(3).unwrap_or_default();
    format!("{}.{footer}", body.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(3)
    }

    #[test]
    fn one_character_of_the_payload_is_changed_and_nothing_else() {
        let token = "v4.local.AbCdEfGh.footer";
        for _ in 0..20 {
            let changed = with_a_byte_changed(token, &mut rng());
            let differences = token.bytes().zip(changed.bytes()).filter(|(a, b)| a != b);
            assert_eq!(differences.count(), 1, "{changed}");
            assert_eq!(changed.len(), token.len());
            assert!(changed.starts_with("v4.local.") && changed.ends_with("h.footer"));
        }
        assert_eq!(with_a_byte_changed("nonsense", &mut rng()), "nonsense");
    }

    #[test]
    fn a_footer_can_be_borrowed() {
        assert_eq!(
            with_footer_of("v4.local.forged.mine", "v4.local.x.theirs"),
            "v4.local.forged.theirs"
        );
    }
}
