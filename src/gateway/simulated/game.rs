//! The game of a seed's world, and what must hold of what it is told.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;

use super::{client::End, world::World};
use crate::{
    gateway::{Channel, Exchange},
    id::{ClientId, PlayerId, SessionId},
    seat::{EndReason, Handle, Joined, SamePlayer, SeatChange, Verdict},
    wire::CloseCode,
};

/// What the game says to whoever joins, at once: more than a send window, so that it waits for room again and again.
const BURST_PARTS: u32 = 12;
const BURST_PART: usize = 16_000;
/// The game's reason for a kick.
pub(super) const KICK: u32 = 0xC0FF_EE00;

/// What the game knows of the seats, from the changes alone.
#[derive(Debug, Default)]
pub(super) struct Game {
    pub(super) seats: BTreeMap<Handle, Seen>,
    ended: BTreeSet<Handle>,
    /// The client ids that each session's seats had, in order.
    clients: BTreeMap<SessionId, Vec<ClientId>>,
    /// Who is thrown out at which tick.
    kicks: BTreeMap<u64, Handle>,
}

#[derive(Debug)]
pub(super) struct Seen {
    pub(super) session: SessionId,
    player: PlayerId,
    is_suspended: bool,
}

impl Game {
    /// Takes a change in: each join and end is told once, and in between suspensions and resumptions in turn.
    fn take(&mut self, change: &SeatChange) {
        let handle = change.handle();
        match *change {
            SeatChange::Joined(Joined {
                session,
                player,
                client,
                ..
            }) => {
                assert!(!self.ended.contains(&handle), "a handle was used again");
                let seen = Seen {
                    session,
                    player,
                    is_suspended: false,
                };
                assert!(self.seats.insert(handle, seen).is_none(), "joined twice");
                self.clients.entry(session).or_default().push(client);
            }
            SeatChange::Resumed { .. } => {
                let seen = self.seats.get_mut(&handle).expect("resumed, not joined");
                seen.is_suspended = false;
            }
            SeatChange::Suspended { .. } => {
                let seen = self.seats.get_mut(&handle).expect("suspended, not joined");
                assert!(!seen.is_suspended, "suspended twice");
                seen.is_suspended = true;
            }
            SeatChange::Ended {
                session, client, ..
            } => {
                let seen = self.seats.remove(&handle);
                let seen = seen.expect("ended without a join, or twice");
                assert_eq!(seen.session, session);
                assert_eq!(self.clients[&session].last(), Some(&client));
                assert!(self.ended.insert(handle));
            }
        }
    }
}

impl World {
    /// The game: every change is told once, every input comes from a seat that was told, and is answered.
    pub(super) fn tick(&mut self) {
        let mut notes = Vec::new();
        let Exchange {
            tick,
            changes,
            inputs,
            seats,
            mut out,
            ..
        } = self.simulation.tick();
        for change in changes {
            notes.push(format!("{change:?}"));
            self.game.take(change);
            match *change {
                SeatChange::Joined(joined) => {
                    self.outcome.joined += 1;
                    for part in 0..BURST_PARTS {
                        let mut message = vec![0xff; BURST_PART];
                        message[4..8].copy_from_slice(&part.to_be_bytes());
                        // Refused if its end is told in the same tick.
                        out.message(joined.handle, &message);
                    }
                    if !self.listeners {
                        let ticks = self.rng.random_range(1..600);
                        self.game.kicks.insert(tick.0 + ticks, joined.handle);
                    }
                }
                SeatChange::Resumed { .. } => self.outcome.resumed += 1,
                SeatChange::Suspended { .. } => {
                    assert!(!self.grace.is_zero(), "suspended without a grace");
                    self.outcome.suspended += 1;
                }
                SeatChange::Ended { reason, .. } => match reason {
                    EndReason::Lost => self.outcome.grace_over += 1,
                    EndReason::Superseded => self.outcome.replaced += 1,
                    _ => {}
                },
            }
        }
        // What was told is how it is, until somebody does something.
        for (handle, seen) in &self.game.seats {
            let expected = match seen.is_suspended {
                true => Verdict::Suspended,
                false => Verdict::Live,
            };
            assert_eq!(seats.verify(*handle), expected, "{handle}");
        }
        if let Some(handle) = self.game.kicks.remove(&tick.0) {
            seats.end(handle, EndReason::Kicked(KICK));
        }
        for input in inputs.iter() {
            self.outcome.inputs += 1;
            assert_eq!(input.payload.len(), 8);
            match input.channel {
                Channel::Datagram => assert!(out.datagram(input.handle, input.payload)),
                Channel::Message => assert!(out.message(input.handle, input.payload)),
            }
        }
        drop((out, seats));
        for note in notes {
            self.note(|| note);
        }
        self.check_players();
        self.hear();
        let seated: BTreeSet<_> = self.game.seats.values().map(|seen| seen.session).collect();
        assert_eq!(self.reported, seated, "what the sidecar was told");
    }

    /// One seat for a player, unless the policy allows more.
    fn check_players(&self) {
        if self.policy == SamePlayer::Allow {
            return;
        }
        let mut players = BTreeSet::new();
        for seen in self.game.seats.values() {
            assert!(players.insert(seen.player), "{} twice", seen.player);
        }
    }

    /// No seat for a revoked session, from the moment on that the revocation was applied.
    pub(super) fn check_revoked(&self) {
        let seats = &self.shared.seats;
        for session in &self.revoked {
            assert_eq!(seats.find(*session), None, "{session} is revoked");
        }
        for (handle, seen) in &self.game.seats {
            if self.revoked.contains(&seen.session) {
                assert!(seats.verify(*handle).is_ended(), "{handle} is revoked");
            }
        }
    }

    /// Everything has come to its end, and all who counted agree.
    pub(super) fn check_end(&mut self) {
        let seats = &self.game.seats;
        assert!(seats.is_empty(), "ends were never told: {seats:?}");
        let counts = self.shared.seats.counts();
        assert_eq!((counts.live, counts.suspended), (0, 0));
        let counted = [
            counts.joined,
            counts.resumed,
            counts.suspensions,
            counts.ended_in_all(),
        ];
        assert_eq!(self.told, counted, "events and counts");
        assert_eq!(counts.joined, self.outcome.joined);
        assert_eq!(counts.joined, self.game.ended.len() as u64);
        self.check_clients();
    }

    /// What clients saw is what was to be seen.
    fn check_clients(&mut self) {
        for client in self.clients.values() {
            if let Some(welcome) = &client.welcome {
                let ids = &self.game.clients[&welcome.session];
                assert!(ids.contains(&welcome.client), "a client id out of nowhere");
                let own = client.token.and_then(|index| self.tokens[index].client());
                // A seat of one's own has the token's client id, another's keeps its own.
                assert_eq!(own == Some(welcome.client), !welcome.resumed);
            }
            let order: Vec<u32> = client
                .messages_received
                .iter()
                .filter_map(|payload| payload.strip_prefix(&client.number().to_be_bytes()))
                .map(|sequence| u32::from_be_bytes(sequence.try_into().unwrap()))
                .collect();
            assert!(
                order.is_sorted_by(|a, b| a + 10 == *b),
                "messages out of order or lost: {order:?}"
            );
            let burst: Vec<u32> = client
                .messages_received
                .iter()
                .filter(|message| message.len() == BURST_PART)
                .map(|message| u32::from_be_bytes(message[4..8].try_into().unwrap()))
                .collect();
            assert!(
                burst.is_sorted_by(|a, b| a + 1 == *b),
                "a burst out of order or with a hole: {burst:?}"
            );
            if burst.len() == BURST_PARTS as usize {
                self.outcome.bursts += 1;
            }
            self.outcome.moved += client.moved;
            if let Some(End::Closed(code)) = &client.end {
                // Who sends too much is closed for it, and nobody else.
                if *code == CloseCode::RateLimited && client.floods {
                    self.outcome.flooded += 1;
                    continue;
                }
                let never = [
                    CloseCode::Left,
                    CloseCode::RateLimited,
                    CloseCode::InternalError,
                    CloseCode::SessionIdle,
                    CloseCode::SessionExpired,
                ];
                assert!(!never.contains(code), "closed as {code:?}");
                self.outcome.kicked += u64::from(*code == CloseCode::Kicked);
            }
        }
    }
}
