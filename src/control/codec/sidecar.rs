//! What a sidecar says.

use std::time::Duration;

use bytes::Bytes;

use super::{
    MAX_KEYS, MAX_RANGE_EVENTS, MAX_REPORTED, Malformed,
    lists::{concatenate, id_bytes, session_ids},
};
use crate::{
    clock::{Timestamp, millis},
    control::{
        CarriedKey, Drain, Revocation, RevocationRange,
        message::{Attached, FromSidecar, Snapshot},
    },
    id::{Lineage, PlayerGeneration, PlayerId, Revision, SessionId},
    proto::{self, revocation, sidecar_message::Message},
};

/// A sidecar's message for the wire.
pub fn encode_sidecar(message: FromSidecar) -> proto::SidecarMessage {
    let message = match message {
        FromSidecar::Attached(attached) => Message::Attached(encode_attached(attached)),
        FromSidecar::SnapshotDead { dead, more_dead } => {
            Message::SnapshotDead(proto::SnapshotDead {
                session_ids: concatenate(&dead),
                more_dead,
            })
        }
        FromSidecar::Keys(keys) => Message::Keys(encode_keys(keys)),
        FromSidecar::Revocations(range) => Message::Revocations(proto::Revocations {
            from: range.from.0,
            to: range.to.0,
            events: range.events.into_iter().map(encode_event).collect(),
        }),
        FromSidecar::Heartbeat { time, head } => Message::Heartbeat(proto::SidecarHeartbeat {
            time_ms: time.0,
            head: head.0,
        }),
        FromSidecar::IdleMoved(sessions) => Message::IdleMoved(encode_moved(&sessions)),
        FromSidecar::Drain(drain) => Message::Drain(encode_drain(drain)),
    };
    proto::SidecarMessage {
        message: Some(message),
    }
}

/// A sidecar's message from the wire.
///
/// # Errors
/// [`Malformed`] when an id, a count or a range is not what the protocol allows.
pub fn decode_sidecar(message: proto::SidecarMessage) -> Result<FromSidecar, Malformed> {
    Ok(match message.message.ok_or(Malformed("message"))? {
        Message::Attached(attached) => FromSidecar::Attached(decode_attached(attached)?),
        Message::SnapshotDead(portion) => FromSidecar::SnapshotDead {
            dead: session_ids(&portion.session_ids, "snapshot_dead.session_ids")?,
            more_dead: portion.more_dead,
        },
        Message::Keys(keys) => FromSidecar::Keys(decode_keys(keys)?),
        Message::Revocations(range) => FromSidecar::Revocations(decode_range(&range)?),
        Message::Heartbeat(heartbeat) => FromSidecar::Heartbeat {
            time: Timestamp(heartbeat.time_ms),
            head: Revision(heartbeat.head),
        },
        Message::IdleMoved(moved) => FromSidecar::IdleMoved(decode_moved(&moved)?),
        Message::Drain(drain) => FromSidecar::Drain(decode_drain(&drain)),
    })
}

fn encode_attached(attached: Attached) -> proto::Attached {
    let Attached {
        keys,
        time,
        idle_timeout,
        lineage,
        snapshot,
    } = attached;
    proto::Attached {
        keys: Some(encode_keys(keys)),
        time_ms: time.0,
        idle_timeout_ms: millis(idle_timeout),
        lineage: Bytes::copy_from_slice(&lineage.to_bytes()),
        snapshot: snapshot.map(encode_snapshot),
    }
}

fn decode_attached(attached: proto::Attached) -> Result<Attached, Malformed> {
    Ok(Attached {
        keys: decode_keys(attached.keys.ok_or(Malformed("attached.keys"))?)?,
        time: Timestamp(attached.time_ms),
        idle_timeout: Duration::from_millis(attached.idle_timeout_ms),
        lineage: Lineage::from_bytes(id_bytes(&attached.lineage, "attached.lineage")?),
        snapshot: attached
            .snapshot
            .as_ref()
            .map(decode_snapshot)
            .transpose()?,
    })
}

fn encode_snapshot(snapshot: Snapshot) -> proto::Snapshot {
    let Snapshot {
        revision,
        dead_count,
        dead,
        more_dead,
    } = snapshot;
    proto::Snapshot {
        dead_session_ids: concatenate(&dead),
        revision: revision.0,
        more_dead,
        dead_count,
    }
}

fn decode_snapshot(snapshot: &proto::Snapshot) -> Result<Snapshot, Malformed> {
    const FIELD: &str = "attached.snapshot.dead_session_ids";
    Ok(Snapshot {
        revision: Revision(snapshot.revision),
        dead_count: snapshot.dead_count,
        dead: session_ids(&snapshot.dead_session_ids, FIELD)?,
        more_dead: snapshot.more_dead,
    })
}

fn encode_keys(keys: Vec<CarriedKey>) -> proto::TransportKeys {
    let key = |CarriedKey { epoch, key }| proto::TransportKey { epoch, key };
    proto::TransportKeys {
        keys: keys.into_iter().map(key).collect(),
    }
}

fn decode_keys(keys: proto::TransportKeys) -> Result<Vec<CarriedKey>, Malformed> {
    let usable = keys.keys.len() <= MAX_KEYS && keys.keys.iter().all(|key| key.key.len() == 32);
    if !usable {
        return Err(Malformed("keys"));
    }
    let key = |proto::TransportKey { epoch, key }| CarriedKey { epoch, key };
    Ok(keys.keys.into_iter().map(key).collect())
}

pub(super) fn encode_event(event: Revocation) -> proto::Revocation {
    use revocation::Subject;
    let subject = match event {
        Revocation::Session(session) => {
            Subject::SessionId(Bytes::copy_from_slice(&session.to_bytes()))
        }
        Revocation::Player(player, generation) => Subject::Player(proto::PlayerRevocation {
            player_id: Bytes::copy_from_slice(&player.to_bytes()),
            player_generation: generation.0,
        }),
    };
    proto::Revocation {
        subject: Some(subject),
    }
}

fn decode_range(range: &proto::Revocations) -> Result<RevocationRange, Malformed> {
    let covered = range
        .to
        .checked_sub(range.from)
        .ok_or(Malformed("revocations.to"))?;
    // Each event has a revision of its own, and each revision an event: one that is missing here would never come again.
    let count = range.events.len();
    if count > MAX_RANGE_EVENTS || u64::try_from(count).unwrap_or(u64::MAX) != covered {
        return Err(Malformed("revocations.events"));
    }
    Ok(RevocationRange {
        from: Revision(range.from),
        to: Revision(range.to),
        events: range
            .events
            .iter()
            .map(decode_event)
            .collect::<Result<_, _>>()?,
    })
}

fn decode_event(event: &proto::Revocation) -> Result<Revocation, Malformed> {
    use revocation::Subject;
    const FIELD: &str = "revocations.events.subject";
    match &event.subject {
        Some(Subject::SessionId(id)) => Ok(Revocation::Session(SessionId::from_bytes(id_bytes(
            id, FIELD,
        )?))),
        Some(Subject::Player(player)) => Ok(Revocation::Player(
            PlayerId::from_bytes(id_bytes(&player.player_id, FIELD)?),
            PlayerGeneration(player.player_generation),
        )),
        // A kind of revocation that this gateway does not know: ending the stream is loud, skipping it would keep a dead seat.
        None => Err(Malformed(FIELD)),
    }
}

fn encode_moved(sessions: &[(SessionId, Timestamp)]) -> proto::IdleMoved {
    let moved = |(session, active_at): &(SessionId, Timestamp)| proto::SessionActivity {
        session_id: Bytes::copy_from_slice(&session.to_bytes()),
        active_at_ms: active_at.0,
    };
    proto::IdleMoved {
        sessions: sessions.iter().map(moved).collect(),
    }
}

fn decode_moved(moved: &proto::IdleMoved) -> Result<Vec<(SessionId, Timestamp)>, Malformed> {
    if moved.sessions.len() > MAX_REPORTED {
        return Err(Malformed("idle_moved.sessions"));
    }
    moved
        .sessions
        .iter()
        .map(|activity| {
            let session = id_bytes(&activity.session_id, "idle_moved.sessions.session_id")?;
            let active_at = Timestamp(activity.active_at_ms);
            Ok((SessionId::from_bytes(session), active_at))
        })
        .collect()
}

fn encode_drain(drain: Drain) -> proto::Drain {
    match drain {
        Drain::Within(deadline) => proto::Drain {
            deadline_ms: millis(deadline),
            cancel: false,
        },
        Drain::Cancel => proto::Drain {
            deadline_ms: 0,
            cancel: true,
        },
    }
}

fn decode_drain(drain: &proto::Drain) -> Drain {
    if drain.cancel {
        Drain::Cancel
    } else {
        Drain::Within(Duration::from_millis(drain.deadline_ms))
    }
}
