//! Why a player was refused, was removed, or is in: what is remembered, beside what is known now.

use std::collections::BTreeSet;

use crate::{
    id::{GatewayId, PlayerId, Revision, SessionId},
    proto,
    store::{EndedBy, Found, Standing},
};

use super::{
    super::{
        explain::{Event, History, SessionFacts, of_gateway, of_player},
        registry::Arrival,
        sessions::session_info,
    },
    AdminApi, Refusal, Sessions,
};

/// How many of a player's sessions are told: more than anybody reads.
const SESSIONS: usize = 100;

/// A session with the attached gateways on which it has a seat.
struct Seated {
    found: Found,
    standing: Standing,
    gateways: Vec<GatewayId>,
}

impl AdminApi {
    pub(super) async fn explain_session(
        &self,
        id: SessionId,
    ) -> Result<proto::ExplainResponse, Refusal> {
        let Sessions { store, explain, .. } = &*self.sessions;
        let player = match explain.player_of(id) {
            Some(player) => player,
            None => {
                let found = store.session(id).await?;
                found.ok_or(Refusal::NothingKnown)?.player.id
            }
        };
        self.explain_player(player).await
    }

    pub(super) async fn explain_player(
        &self,
        player: PlayerId,
    ) -> Result<proto::ExplainResponse, Refusal> {
        let Sessions {
            store,
            explain,
            clock,
            lives,
            ..
        } = &*self.sessions;
        let (now, idle) = (clock.wall(), lives.idle);
        let found = store.sessions(Some(player), None, SESSIONS).await?;
        let history = explain.player(player);
        if found.is_empty() && history.is_none() {
            return Err(Refusal::NothingKnown);
        }
        let sessions: Vec<_> = found
            .into_iter()
            .map(|found| Seated {
                standing: found.standing(now, idle),
                gateways: self.registry.seats_of(found.session.id),
                found,
            })
            .collect();
        let History {
            mut events,
            forgotten,
        } = history.unwrap_or_default();
        events.extend(sessions.iter().filter_map(activity));
        events.sort_by_key(|event| event.at);
        let facts: Vec<_> = sessions.iter().map(facts).collect();
        let infos = sessions
            .iter()
            .map(|seated| session_info(&seated.found, now, idle, &seated.gateways));
        Ok(proto::ExplainResponse {
            player_id: player.to_string(),
            summary: of_player(now, &facts, &events),
            sessions: infos.collect(),
            revocations: self.arrivals(&revisions(&sessions, &events)),
            events: events.into_iter().map(Into::into).collect(),
            forgotten,
            remembers_since_ms: explain.since().0,
        })
    }

    pub(super) fn explain_gateway(
        &self,
        gateway: &GatewayId,
    ) -> Result<proto::ExplainResponse, Refusal> {
        let door = match self.sessions.explain.gateway(gateway) {
            Some(door) => door,
            None if self.registry.knows(gateway) => Default::default(),
            None => return Err(Refusal::NothingKnown),
        };
        Ok(proto::ExplainResponse {
            player_id: String::new(),
            summary: of_gateway(gateway, &door),
            sessions: Vec::new(),
            forgotten: door.forgotten,
            events: door.refusals.into_iter().map(Into::into).collect(),
            revocations: Vec::new(),
            remembers_since_ms: self.sessions.explain.since().0,
        })
    }

    /// Where each of these has arrived.
    fn arrivals(&self, revisions: &BTreeSet<Revision>) -> Vec<proto::RevocationArrival> {
        let names = |gateways: Vec<GatewayId>| gateways.iter().map(GatewayId::to_string).collect();
        let arrival = |revision: &Revision| {
            let Arrival {
                arrived,
                outstanding,
            } = self.registry.arrival(*revision);
            proto::RevocationArrival {
                revision: revision.0,
                arrived: names(arrived),
                outstanding: names(outstanding),
            }
        };
        revisions.iter().map(arrival).collect()
    }
}

/// A session's last activity, where it says something: of one that is live, or that ended for want of it.
fn activity(seated: &Seated) -> Option<Event> {
    let session = &seated.found.session;
    let tells = matches!(
        seated.standing,
        Standing::Live | Standing::Ended(EndedBy::Idleness)
    );
    let gateway = match seated.gateways.as_slice() {
        [only] => Some(only.clone()),
        // Which of several it was is not kept.
        _ => None,
    };
    (tells && session.active_at > session.created_at)
        .then(|| Event::activity(session.id, gateway, session.active_at))
}

fn facts(seated: &Seated) -> SessionFacts {
    let session = &seated.found.session;
    SessionFacts {
        id: session.id,
        ended: match seated.standing {
            Standing::Live => None,
            Standing::Ended(by) => Some(by.label()),
        },
        created_at: session.created_at,
        gateways: seated.gateways.clone(),
    }
}

/// The revocations of a player and its sessions: those that stand in the store, and those that are remembered.
fn revisions(sessions: &[Seated], events: &[Event]) -> BTreeSet<Revision> {
    let stored = sessions.iter().flat_map(|seated| {
        let Found {
            session, player, ..
        } = &seated.found;
        [session.revoked, Some(player.revoked_revision)]
    });
    let remembered = events.iter().map(|event| event.kind.revision());
    let all = stored.chain(remembered).flatten();
    // Revision 0 is before the first event.
    all.filter(|revision| *revision > Revision(0)).collect()
}
