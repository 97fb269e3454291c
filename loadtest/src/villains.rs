//! Clients that have no right to get in, and try: each must be refused with the code that fits.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
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
    id::{ClientId, GatewayId, PlayerGeneration, Revision},
    token::{ConnectClaims, Nonce, TransportKey, seal_connect},
    wire::CloseCode,
};
use tokio::{task::JoinSet, time::sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    plan::{PlannedVillain, VillainKind},
    progress::{Live, count},
    report::{ByName, Villains},
};

impl VillainKind {
    /// What the gateway must tell a villain of this kind.
    const fn expected(self) -> CloseCode {
        match self {
            Self::Replayed => CloseCode::TokenUsed,
            Self::Expired => CloseCode::TokenExpired,
            Self::Forged | Self::WrongGateway | Self::SessionToken => CloseCode::TokenRejected,
            Self::Revoked => CloseCode::SessionRevoked,
        }
    }
}

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
struct Stale {
    ticket: Ticket,
    /// From here on it must be refused.
    expired_at: Instant,
}

/// What a villain met.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Met {
    Refused {
        with: &'static str,
        /// Whether somebody who had the right to play was thrown out by the attempt.
        harm: bool,
    },
    LetIn,
    /// Something before the attempt failed.
    NotPlayed(String),
}

/// What came of all villains.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// By kind.
    pub(crate) by_kind: BTreeMap<&'static str, Villains>,
    /// How many were let in.
    pub(crate) wrongly_admitted: u64,
    /// What did not go as planned, in words.
    pub(crate) not_as_planned: Vec<String>,
}

/// The villains of a run, with the tokens that must be made long before they are used.
pub(crate) struct Villainy {
    scene: Scene,
    planned: Vec<PlannedVillain>,
    stale: HashMap<u32, Result<Stale, String>>,
}

impl Villainy {
    /// Gets the tokens that are left to expire. The earlier this is, the less anybody waits for them.
    pub(crate) async fn prepare(scene: Scene, planned: Vec<PlannedVillain>) -> Self {
        let mut minting = JoinSet::new();
        for villain in planned.iter().filter(|v| v.kind == VillainKind::Expired) {
            let (scene, villain) = (scene.clone(), *villain);
            minting.spawn(async move {
                let stale = scene.left_to_expire(villain).await;
                (villain.number, stale.map_err(|error| error.to_string()))
            });
        }
        let stale = minting.join_all().await.into_iter().collect();
        Self {
            scene,
            planned,
            stale,
        }
    }

    /// Lets the villains come as planned, after `start`. When stopped, those that are still to come do not.
    pub(crate) async fn run(mut self, start: Instant, stop: CancellationToken) -> Outcome {
        let mut villains = JoinSet::new();
        for planned in std::mem::take(&mut self.planned) {
            let stale = match planned.kind {
                VillainKind::Expired => self.stale.remove(&planned.number),
                _ => None,
            };
            let (scene, stop) = (self.scene.clone(), stop.clone());
            villains.spawn(async move {
                let not_before = match &stale {
                    Some(Ok(stale)) => stale.expired_at,
                    _ => start,
                };
                let due = (start + planned.at).max(not_before);
                tokio::select! {
                    () = sleep_until(due.into()) => {}
                    () = stop.cancelled() => return None,
                }
                let met = scene.play(planned, stale).await;
                scene.count(&met);
                Some((planned.kind, met))
            });
        }
        let met: Vec<_> = villains.join_all().await.into_iter().flatten().collect();
        self.scene.endpoint.shutdown().await;
        sum_up(&met)
    }
}

impl Scene {
    fn count(&self, met: &Met) {
        match met {
            Met::Refused { .. } => count(&self.live.refused),
            Met::LetIn => count(&self.live.wrongly_admitted),
            Met::NotPlayed(_) => {}
        }
    }

    async fn play(&self, villain: PlannedVillain, stale: Option<Result<Stale, String>>) -> Met {
        let attempt = match villain.kind {
            VillainKind::Replayed => return self.replay(villain).await,
            VillainKind::Expired => match stale {
                Some(Ok(stale)) => Ok((stale.ticket, None)),
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
            Ok((ticket, token)) => self.present(&ticket, token).await,
            Err(error) => Met::NotPlayed(error.to_string()),
        }
    }

    /// Presents a token, or else the ticket's own, at the ticket's gateway.
    async fn present(&self, ticket: &Ticket, token: Option<SecretToken>) -> Met {
        let options = HelloOptions {
            token,
            ..HelloOptions::default()
        };
        match self.endpoint.connect_with(ticket, &options).await {
            Ok(_connection) => Met::LetIn,
            Err(error) => Met::Refused {
                with: error.label(),
                harm: false,
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

    async fn left_to_expire(&self, villain: PlannedVillain) -> Result<Stale, CallError> {
        let session = self.session(villain).await?;
        let target = Target::Gateway(self.gateway.clone());
        let ticket = self
            .backend
            .issue_connect_token(session.id, target, Some(SHORTEST_LIFE))
            .await?;
        Ok(Stale {
            ticket,
            expired_at: self.clock.now() + SHORTEST_LIFE + LEEWAY,
        })
    }

    /// The owner connects with its token and plays on; the villain has overheard the token.
    async fn replay(&self, villain: PlannedVillain) -> Met {
        let ticket = match self.genuine(villain).await {
            Ok((_, ticket)) => ticket,
            Err(error) => return Met::NotPlayed(error.to_string()),
        };
        let owner = match self.endpoint.connect(&ticket).await {
            Ok(owner) => owner,
            Err(error) => return Met::NotPlayed(format!("the token's owner: {error}")),
        };
        match self.present(&ticket, None).await {
            Met::Refused { with, .. } => Met::Refused {
                with,
                harm: is_gone(&owner).await,
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
        Ok((ticket, Some(SecretToken::new(forgery))))
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
        Ok((ticket, Some(foreign.token)))
    }

    async fn session_token(&self, villain: PlannedVillain) -> Result<Attempt, CallError> {
        let (session, ticket) = self.genuine(villain).await?;
        Ok((ticket, Some(session.token)))
    }

    async fn revoked(&self, villain: PlannedVillain) -> Result<Attempt, CallError> {
        let (session, ticket) = self.genuine(villain).await?;
        self.backend
            .revoke_session(session.id, Wait::Gateways(REVOKE_WAIT))
            .await?;
        Ok((ticket, None))
    }
}

/// A ticket, and the token to present in its own one's place.
type Attempt = (Ticket, Option<SecretToken>);

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

fn sum_up(met: &[(VillainKind, Met)]) -> Outcome {
    let mut outcome = Outcome::default();
    for kind in VillainKind::ALL {
        let expected = kind.expected().label();
        let mut villains = Villains {
            expected,
            ..Villains::default()
        };
        let mut failures = Vec::new();
        let mut harmed = 0;
        for (_, met) in met.iter().filter(|(of, _)| *of == kind) {
            match met {
                Met::Refused { with, harm } => {
                    villains.tried += 1;
                    villains.refused += 1;
                    *villains.refused_with.entry((*with).to_owned()).or_default() += 1;
                    harmed += u64::from(*harm);
                }
                Met::LetIn => {
                    villains.tried += 1;
                    villains.admitted += 1;
                }
                Met::NotPlayed(why) => {
                    villains.not_played += 1;
                    failures.push(why);
                }
            }
        }
        let kind = kind.label();
        outcome.wrongly_admitted += villains.admitted;
        outcome
            .not_as_planned
            .extend(wrong_codes(kind, expected, &villains.refused_with));
        if let Some(why) = failures.first() {
            outcome.not_as_planned.push(format!(
                "{} {kind} villains could not be played: {why}",
                villains.not_played
            ));
        }
        if harmed > 0 {
            outcome.not_as_planned.push(format!(
                "{harmed} players were thrown out by a villain that replayed their token"
            ));
        }
        outcome.by_kind.insert(kind, villains);
    }
    outcome
}

fn wrong_codes(
    kind: &'static str,
    expected: &'static str,
    seen: &ByName,
) -> impl Iterator<Item = String> {
    seen.iter()
        .filter(move |(name, _)| *name != expected)
        .map(move |(name, count)| {
            format!("{count} {kind} villains saw {name} where {expected} is due")
        })
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
        assert_eq!(with_footer_of("v4.local.forged.mine", "v4.local.x.theirs"), "v4.local.forged.theirs");
    }

    #[test]
    fn wrong_codes_harm_and_failures_are_told_apart() {
        let refused = |with, harm| Met::Refused { with, harm };
        let outcome = sum_up(&[
            (VillainKind::Replayed, refused("token_used", false)),
            (VillainKind::Replayed, refused("token_used", true)),
            (VillainKind::Replayed, refused("server_full", false)),
            (VillainKind::Forged, Met::LetIn),
            (VillainKind::Expired, Met::NotPlayed("no gateway".to_owned())),
        ]);
        let replayed = &outcome.by_kind["replayed"];
        assert_eq!((replayed.tried, replayed.refused), (3, 3));
        assert_eq!(replayed.refused_with["token_used"], 2);
        assert_eq!(outcome.wrongly_admitted, 1);
        let said = outcome.not_as_planned.join("\n");
        assert!(said.contains("1 replayed villains saw server_full where token_used is due"));
        assert!(said.contains("1 players were thrown out"), "{said}");
        assert!(said.contains("1 expired villains could not be played: no gateway"));
        assert_eq!(outcome.not_as_planned.len(), 3);
    }

    #[test]
    fn every_kind_is_in_the_report_even_if_it_never_came() {
        let outcome = sum_up(&[]);
        assert_eq!(outcome.by_kind.len(), VillainKind::ALL.len());
        assert_eq!(outcome.by_kind["revoked"].expected, "session_revoked");
        assert!(outcome.not_as_planned.is_empty());
    }
}
