//! One sentence that says how it stands with a player, from what is remembered and what is known now.

use crate::{
    clock::Timestamp,
    id::{GatewayId, SessionId},
};

use super::{
    books::Door,
    event::{Event, Kind, close_code},
};

/// A session as the sentence needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionFacts {
    pub(crate) id: SessionId,
    /// What ended it, as a fixed label; none while it is live.
    pub(crate) ended: Option<&'static str>,
    pub(crate) created_at: Timestamp,
    /// The attached gateways on which it has a seat.
    pub(crate) gateways: Vec<GatewayId>,
}

/// How it stands with a player whose sessions (newest first) and events (oldest first) these are.
///
/// What is so now goes before what was: a seat before a later refusal at another door. Of what was, the last thing counts, but for
/// mints that were answered: those are only the way to it.
pub(crate) fn of_player(now: Timestamp, sessions: &[SessionFacts], events: &[Event]) -> String {
    let seats: Vec<_> = sessions
        .iter()
        .flat_map(|session| {
            let gateways = session.gateways.iter();
            gateways.map(move |gateway| seat(session, gateway, events))
        })
        .collect();
    let mut sentence = if seats.is_empty() {
        match last_word(events) {
            Some(last) => of_last(now, last, events),
            None => return of_sessions(sessions, events),
        }
    } else {
        seats.join(", and ")
    };
    let newest_seat = events.iter().rposition(|event| is_seat(&event.kind));
    let later = events.get(newest_seat.map_or(0, |at| at + 1)..);
    let refused = later
        .unwrap_or_default()
        .iter()
        .rev()
        .find(|event| matches!(event.kind, Kind::Refused { .. }));
    if let Some(refused) = refused.filter(|_| !seats.is_empty()) {
        sentence.push_str("; last ");
        sentence.push_str(&of_last(now, refused, events));
    }
    sentence
}

/// How it stands at a gateway's door with those whom nobody knows.
pub(crate) fn of_gateway(gateway: &GatewayId, door: &Door) -> String {
    match door.refusals.as_slice() {
        [] => format!("no refusal at {gateway} is remembered that names nobody"),
        [.., last] => {
            let (reason, _) = last.event.kind.outcome().unwrap_or_default();
            let (count, at) = (door.refusals.len(), last.event.at);
            let plural = if count == 1 { "" } else { "s" };
            format!(
                "{count} refusal{plural} at {gateway} that name nobody, the last at {at}: {reason}"
            )
        }
    }
}

/// A seat that is known now.
fn seat(session: &SessionFacts, gateway: &GatewayId, events: &[Event]) -> String {
    let of_it = |event: &&Event| {
        event.session == Some(session.id) && event.gateway.as_ref() == Some(gateway)
    };
    if let Some(label) = session.ended {
        return format!("{label}, and {gateway} has not taken the seat away yet");
    }
    let last = events
        .iter()
        .filter(of_it)
        .rfind(|event| is_seat(&event.kind));
    match last {
        Some(Event {
            at,
            kind: Kind::Suspended,
            ..
        }) => format!("seat kept on {gateway}, whose connection was lost at {at}"),
        _ => match since(events.iter().filter(of_it)) {
            Some(at) => format!("in play on {gateway} since {at}"),
            None => format!("in play on {gateway}"),
        },
    }
}

/// When the seat that these events end with was taken.
fn since<'a>(events: impl Iterator<Item = &'a Event>) -> Option<Timestamp> {
    events.fold(None, |since, event| match event.kind {
        Kind::Admitted => Some(event.at),
        // Of a seat whose admission is forgotten, that it was there then.
        Kind::Resumed { .. } => since.or(Some(event.at)),
        Kind::Ended { .. } => None,
        _ => since,
    })
}

const fn is_seat(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Admitted | Kind::Resumed { .. } | Kind::Suspended
    )
}

/// The last event that says something about being in or out.
fn last_word(events: &[Event]) -> Option<&Event> {
    events.iter().rev().find(|event| match event.kind {
        Kind::LoggedIn | Kind::Refreshed | Kind::Active => false,
        Kind::Minted { .. } => !is_answered(event, events),
        _ => true,
    })
}

/// Whether the gateway has said what became of a token. By the clocks of two machines that may be before it was minted.
fn is_answered(mint: &Event, events: &[Event]) -> bool {
    events.iter().any(|event| {
        event.token_sha256 == mint.token_sha256 && !matches!(event.kind, Kind::Minted { .. })
    })
}

/// What the last event says, of a player without a known seat.
fn of_last(now: Timestamp, last: &Event, events: &[Event]) -> String {
    let at = last.at;
    let place = match &last.gateway {
        Some(gateway) => gateway.to_string(),
        None => "a gateway".to_owned(),
    };
    match &last.kind {
        Kind::Refused { reason, code } => {
            format!(
                "refused at {place}: {reason}, at {at} (told {})",
                close_code(*code)
            )
        }
        Kind::Ended { reason, .. } => match &**reason {
            "left" => format!("left {place} at {at}"),
            "lost" => {
                format!("lost the connection to {place} and did not come back: seat ended at {at}")
            }
            "session_revoked" => {
                format!("removed from {place}: {reason}, at {at}{}", cause(events))
            }
            _ => format!("removed from {place}: {reason}, at {at}"),
        },
        Kind::Minted { expires_at } if now <= *expires_at => format!(
            "holds a connect token for {place} that was not presented yet and expires at {expires_at}"
        ),
        Kind::Minted { expires_at } => format!(
            "was given a connect token for {place} that was not presented there, and expired at {expires_at}"
        ),
        Kind::Admitted | Kind::Resumed { .. } | Kind::Suspended => {
            format!(
                "last seen on {place} at {at} ({}), and has no seat now that is known",
                last.kind.label()
            )
        }
        kind @ (Kind::RefreshReused { .. }
        | Kind::LoggedOut { .. }
        | Kind::SessionRevoked { .. }
        | Kind::PlayerRevoked { .. }
        | Kind::LoggedIn
        | Kind::Refreshed
        | Kind::Active) => format!("{} at {at}", in_words(kind)),
    }
}

/// What revoked, if it is remembered.
fn cause(events: &[Event]) -> String {
    let revocation = events.iter().rfind(|event| event.kind.revision().is_some());
    match revocation {
        Some(event) => format!(", after: {} at {}", in_words(&event.kind), event.at),
        None => String::new(),
    }
}

const fn in_words(kind: &Kind) -> &'static str {
    match kind {
        Kind::RefreshReused { .. } => {
            "a refresh token was used a second time, which revoked the session"
        }
        Kind::LoggedOut { .. } => "logged out",
        Kind::SessionRevoked { .. } => "a session was revoked",
        Kind::PlayerRevoked { .. } => "all sessions were revoked",
        other => other.label(),
    }
}

/// How it stands with a player who has done nothing but log in, as far as is remembered.
fn of_sessions(sessions: &[SessionFacts], events: &[Event]) -> String {
    match sessions {
        [] if events.is_empty() => "nothing is remembered of this player".to_owned(),
        [] => "has no session any more".to_owned(),
        [newest, ..] => match newest.ended {
            Some(label) => format!("not in play: the newest session is over ({label})"),
            None => format!(
                "logged in since {}, and has no seat that is known",
                newest.created_at
            ),
        },
    }
}
