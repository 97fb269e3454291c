//! Whether the operators would have found out: what `explain` says of each villain, held against what the villain did.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tickgate::{
    client::{About, Admin, CallError, ExplainedEvent, Explanation},
    clock::Clock,
    id::{GatewayId, PlayerId},
};
use tokio::time::sleep;

use crate::plan::VillainKind;

/// A refusal that an operator may ask about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Case {
    /// Whose session the villain came with.
    pub(crate) player: PlayerId,
    /// SHA-256 of the token that was presented, in hexadecimal: what mint and refusal share.
    pub(crate) token_sha256: String,
}

/// How long events may take from a gateway to the sidecar: they go with its reports, of which there are 20 a second, and the 5 s after
/// which a broken control channel is noticed are allowed for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is asked again.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The true reasons that a refusal of this kind may have, which no client is told.
const fn true_reasons(kind: VillainKind) -> &'static [&'static str] {
    match kind {
        VillainKind::Replayed => &["token_used"],
        VillainKind::Expired => &["expired"],
        VillainKind::Revoked => &["session_revoked"],
        VillainKind::WrongGateway | VillainKind::SessionToken => &["unknown_key"],
        VillainKind::Forged => &["bad_mac", "unknown_key"],
    }
}

/// Whether the sidecar has minted the very token that was presented: then its player is known.
const fn was_minted(kind: VillainKind) -> bool {
    match kind {
        VillainKind::Replayed
        | VillainKind::Expired
        | VillainKind::Revoked
        | VillainKind::WrongGateway => true,
        VillainKind::Forged | VillainKind::SessionToken => false,
    }
}

/// The operators' line, and the gateway where it all happened.
#[derive(Clone)]
pub(crate) struct Inquest {
    /// Whom to ask.
    pub(crate) admin: Admin,
    /// Where the villains were refused.
    pub(crate) gateway: GatewayId,
    /// The clock.
    pub(crate) clock: Clock,
}

impl Inquest {
    /// Asks about each case until it is explained or patience ends. How many are, by kind, and why the first of the others is not.
    pub(crate) async fn hold(
        &self,
        cases: &[(VillainKind, Case)],
    ) -> (HashMap<&'static str, u64>, Option<String>) {
        let deadline = self.clock.now() + PATIENCE;
        let mut explained = HashMap::new();
        let mut failure = None;
        for (kind, case) in cases {
            match self.ask(*kind, case, deadline).await {
                Ok(()) => *explained.entry(kind.label()).or_default() += 1,
                Err(why) => {
                    failure.get_or_insert(format!("a {} villain: {why}", kind.label()));
                }
            }
        }
        (explained, failure)
    }

    async fn ask(&self, kind: VillainKind, case: &Case, deadline: Instant) -> Result<(), String> {
        let about = if was_minted(kind) {
            About::Player(case.player)
        } else {
            About::Gateway(self.gateway.clone())
        };
        loop {
            let found = match self.admin.explain(&about).await {
                Ok(explanation) => verdict(kind, case, &self.gateway, &explanation),
                Err(CallError::NotFound(what)) => Err(what),
                Err(error) => return Err(error.to_string()),
            };
            match found {
                Ok(()) => return Ok(()),
                Err(why) if self.clock.now() >= deadline => return Err(why),
                Err(_) => sleep(ASK_EVERY).await,
            }
        }
    }
}

/// Whether the explanation names the true reason of this refusal, and for a revocation that it has arrived.
fn verdict(
    kind: VillainKind,
    case: &Case,
    gateway: &GatewayId,
    explanation: &Explanation,
) -> Result<(), String> {
    let of_case = |wanted: &'static str| {
        move |event: &&ExplainedEvent| {
            event.kind == wanted && event.token_sha256.as_deref() == Some(&*case.token_sha256)
        }
    };
    let events = &explanation.events;
    let refusal = events.iter().find(of_case("refused"));
    let refusal = refusal.ok_or("no refusal of its token is on record")?;
    let reason = refusal.reason.as_deref().unwrap_or_default();
    if !true_reasons(kind).contains(&reason) {
        return Err(format!("explained as {reason:?}"));
    }
    if was_minted(kind) && !events.iter().any(|event| of_case("token_minted")(&event)) {
        return Err("its token's mint is not on record".to_owned());
    }
    if kind == VillainKind::Revoked {
        let mut arrivals = explanation.revocations.iter();
        if !arrivals.any(|revocation| revocation.arrived.contains(gateway)) {
            return Err(format!("its revocation has not arrived at {gateway}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tickgate::{client::RevocationArrival, clock::Timestamp, id::Revision};

    use super::*;

    fn event(kind: &str, reason: Option<&str>) -> ExplainedEvent {
        ExplainedEvent {
            at: Timestamp(1),
            kind: kind.to_owned(),
            session: None,
            gateway: None,
            reason: reason.map(str::to_owned),
            close_code: None,
            token_sha256: Some("ab".to_owned()),
            revision: None,
            remote: None,
        }
    }

    #[test]
    fn only_the_true_reason_of_the_very_token_will_do() {
        let gateway: GatewayId = "one".parse().unwrap();
        let case = Case {
            player: PlayerId(1),
            token_sha256: "ab".to_owned(),
        };
        let mut said = Explanation {
            player: Some(PlayerId(1)),
            summary: String::new(),
            sessions: Vec::new(),
            events: vec![event("token_minted", None)],
            forgotten: 0,
            remembers_since: Timestamp(0),
            revocations: Vec::new(),
        };
        let judge = |kind, said: &Explanation| verdict(kind, &case, &gateway, said);
        assert!(judge(VillainKind::Replayed, &said).is_err());
        said.events.push(event("refused", Some("token_used")));
        judge(VillainKind::Replayed, &said).unwrap();
        assert!(judge(VillainKind::Expired, &said).is_err());
        said.events[0].token_sha256 = Some("cd".to_owned());
        assert!(judge(VillainKind::Replayed, &said).is_err(), "not its mint");

        said.events = vec![
            event("token_minted", None),
            event("refused", Some("session_revoked")),
        ];
        assert!(
            judge(VillainKind::Revoked, &said).is_err(),
            "arrived nowhere"
        );
        said.revocations.push(RevocationArrival {
            revision: Revision(1),
            arrived: vec![gateway.clone()],
            outstanding: Vec::new(),
        });
        judge(VillainKind::Revoked, &said).unwrap();

        said.events = vec![event("refused", Some("bad_mac"))];
        judge(VillainKind::Forged, &said).unwrap();
        assert!(judge(VillainKind::SessionToken, &said).is_err());
    }
}
