//! What happened at the door and to seats, remembered for a while for those who ask why a player was refused, removed, or is in.

use std::{
    borrow::Cow,
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::farewell::close_code;
use crate::{
    clock::Timestamp,
    control::{GatewayEvent, GatewayEventKind},
    id::SessionId,
    seat::{EndReason, SeatChange},
};

/// Events kept until the sidecar takes them; beyond, the oldest goes and is counted. At 144 bytes each, 576 KiB, taken at the start so
/// that the tick never has to: every seat of a full table of the default size ending at once, or 4 s of refusals at 1,000 a second.
const CAPACITY: usize = 4_096;

const _: () = assert!(size_of::<GatewayEvent>() <= 144, "the arithmetic above");

/// Events that go into one report: what one message of the control channel carries.
const REPORTED: usize = 512;

/// The events that the sidecar was not told yet. Kept while the control channel is down too, since that is when somebody will ask.
///
/// Nothing in them is secret: of a token there is its hash alone.
#[derive(Debug)]
pub(super) struct Events {
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    events: VecDeque<GatewayEvent>,
    lost: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            kept: Mutex::new(Kept {
                events: VecDeque::with_capacity(CAPACITY),
                lost: 0,
            }),
        }
    }
}

impl Events {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an event.
    pub(super) fn record(&self, event: GatewayEvent) {
        self.kept().push(event);
    }

    /// Remembers the ends among a tick's changes.
    pub(super) fn record_ends(&self, changes: &[SeatChange], at: Timestamp) {
        let mut kept = None;
        for change in changes {
            if let SeatChange::Ended {
                session, reason, ..
            } = *change
            {
                let kept = kept.get_or_insert_with(|| self.kept());
                kept.push(ended(session, reason, at));
            }
        }
    }

    /// Moves the oldest events to the end of `into`, at most what a report carries: how many were lost since the last call, and
    /// whether there are more.
    pub(super) fn take(&self, into: &mut Vec<GatewayEvent>) -> (u64, bool) {
        let mut kept = self.kept();
        let count = kept.events.len().min(REPORTED);
        into.extend(kept.events.drain(..count));
        (std::mem::take(&mut kept.lost), !kept.events.is_empty())
    }
}

impl Kept {
    fn push(&mut self, event: GatewayEvent) {
        if self.events.len() >= CAPACITY {
            self.events.pop_front();
            self.lost += 1;
        }
        self.events.push_back(event);
    }
}

fn ended(session: SessionId, reason: EndReason, at: Timestamp) -> GatewayEvent {
    let code = match reason {
        // Nobody was there to be told anything.
        EndReason::Left | EndReason::Lost => 0,
        _ => close_code(reason) as u16,
    };
    GatewayEvent {
        at,
        kind: GatewayEventKind::Ended {
            reason: Cow::Borrowed(reason.label()),
            code,
        },
        session: Some(session),
        token_sha256: None,
        remote: None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        id::{ClientId, PlayerGeneration, PlayerId},
        seat::{Connection, Grant, Handle, SeatConfig, SeatTable},
    };

    const AT: Timestamp = Timestamp(1_700_000_000_000);

    /// Any will do.
    fn handle() -> Handle {
        let grant = Grant {
            session: SessionId(1),
            player: PlayerId(1),
            player_generation: PlayerGeneration(0),
            client: ClientId(1),
            ends_at: AT.after(Duration::from_secs(1)),
            connection: Connection { worker: 0, id: 0 },
        };
        let table = SeatTable::new(SeatConfig::default());
        table.install(grant, AT).unwrap().handle()
    }

    fn numbered(n: u128) -> GatewayEvent {
        ended(SessionId(n), EndReason::Idle, AT)
    }

    #[test]
    fn events_come_oldest_first_in_reports_of_bounded_size() {
        let events = Events::default();
        for n in 0..REPORTED as u128 + 1 {
            events.record(numbered(n));
        }
        let mut taken = Vec::new();
        assert_eq!(events.take(&mut taken), (0, true));
        assert_eq!(taken.len(), REPORTED);
        assert_eq!(events.take(&mut taken), (0, false));
        assert_eq!(
            taken,
            (0..=REPORTED as u128).map(numbered).collect::<Vec<_>>()
        );
        assert_eq!(events.take(&mut taken), (0, false));
    }

    #[test]
    fn when_too_much_happens_the_oldest_is_forgotten_and_counted() {
        let events = Events::default();
        for n in 0..CAPACITY as u128 + 7 {
            events.record(numbered(n));
        }
        let mut taken = Vec::new();
        assert_eq!(events.take(&mut taken), (7, true));
        assert_eq!(taken[0], numbered(7));
        assert_eq!(events.take(&mut taken), (0, true));
    }

    #[test]
    fn ends_say_what_the_client_was_told() {
        let events = Events::default();
        let told = [
            (EndReason::Left, "left", 0),
            (EndReason::Lost, "lost", 0),
            (EndReason::SessionRevoked, "session_revoked", 0x30),
            (EndReason::Kicked(7), "kicked", 0x44),
        ];
        let changes: Vec<_> = told
            .iter()
            .map(|(reason, _, _)| SeatChange::Ended {
                handle: handle(),
                session: SessionId(1),
                client: ClientId(1),
                reason: *reason,
            })
            .collect();
        events.record_ends(&changes, AT);
        let mut taken = Vec::new();
        events.take(&mut taken);
        let kinds: Vec<_> = taken.into_iter().map(|event| event.kind).collect();
        let expected: Vec<_> = told
            .iter()
            .map(|(_, reason, code)| GatewayEventKind::Ended {
                reason: Cow::Borrowed(*reason),
                code: *code,
            })
            .collect();
        assert_eq!(kinds, expected);
    }
}
