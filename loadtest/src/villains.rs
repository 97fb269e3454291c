//! Clients that have no right to get in, and try: each must be refused with the code that fits.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use tickgate::wire::CloseCode;
use tokio::{task::JoinSet, time::sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    inquest::{Case, Inquest},
    plan::{PlannedVillain, VillainKind},
    report::{ByName, Villains},
    scene::{Met, Scene, Stale},
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
    inquest: Inquest,
}

impl Villainy {
    /// Gets the tokens that are left to expire. The earlier this is, the less anybody waits for them.
    pub(crate) async fn prepare(
        scene: Scene,
        planned: Vec<PlannedVillain>,
        inquest: Inquest,
    ) -> Self {
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
            inquest,
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
        let mut outcome = sum_up(&met);
        let (explained, failure) = self.inquest.hold(&cases(&met)).await;
        for (kind, explained) in explained {
            outcome.by_kind.entry(kind).or_default().explained = explained;
        }
        let failure = failure.map(|why| format!("`explain` does not account for {why}"));
        outcome.not_as_planned.extend(failure);
        outcome
    }
}

/// The refusals that can be asked about.
fn cases(met: &[(VillainKind, Met)]) -> Vec<(VillainKind, Case)> {
    let refused = met.iter().filter_map(|(kind, met)| match met {
        Met::Refused { case, .. } => Some((*kind, case.clone())),
        Met::LetIn | Met::NotPlayed(_) => None,
    });
    refused.collect()
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
                Met::Refused { with, harm, .. } => {
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
    use tickgate::id::PlayerId;

    use super::*;

    #[test]
    fn wrong_codes_harm_and_failures_are_told_apart() {
        let case = Case {
            player: PlayerId(1),
            token_sha256: String::new(),
        };
        let refused = |with, harm| Met::Refused {
            with,
            harm,
            case: case.clone(),
        };
        let outcome = sum_up(&[
            (VillainKind::Replayed, refused("token_used", false)),
            (VillainKind::Replayed, refused("token_used", true)),
            (VillainKind::Replayed, refused("server_full", false)),
            (VillainKind::Forged, Met::LetIn),
            (
                VillainKind::Expired,
                Met::NotPlayed("no gateway".to_owned()),
            ),
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
