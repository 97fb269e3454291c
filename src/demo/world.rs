//! The world's rules: who is in it, where they move, and what they are told.

use super::{
    neighbours::Neighbours,
    protocol::{self, Input, MAX_SNAPSHOT, Other, Snapshot, WORLD_SIZE},
};
use crate::{
    id::{ClientId, Tick},
    seat::{Handle, SeatChange, Verdict},
};

/// The part of the speed that a tick takes off: one in 16. A tick adds the thrust, so the top speed is 16 x 127 positions per tick,
/// which crosses the world in 2^20 / 2,032 = 516 ticks.
const DRAG: i32 = 16;

/// Something that a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received<'a> {
    /// Unreliable: an [`Input`] if it is well-formed.
    Datagram(&'a [u8]),
    /// Reliable: any bytes.
    Message(&'a [u8]),
}

/// Where the world puts what is to be sent. False when it is not sent: the seat has ended, or there is no room.
pub trait Out {
    /// Sends a datagram to a seat.
    fn datagram(&mut self, to: Handle, payload: &[u8]) -> bool;
    /// Sends a message to a seat.
    fn message(&mut self, to: Handle, payload: &[u8]) -> bool;
}

/// What the world has seen, since its start unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Players in the world now, those of suspended seats included.
    pub players: u32,
    /// The most players at once.
    pub most_players: u32,
    /// Seats that were found live: one for each seat and tick.
    pub live: u64,
    /// Seats that were found suspended: one for each seat and tick.
    pub suspended: u64,
    /// Seats that were refused, and whose players were taken out.
    pub refused: u64,
    /// Inputs taken.
    pub inputs: u64,
    /// Datagrams that are no input.
    pub malformed: u64,
    /// Inputs and messages of seats that are not in the world (any more).
    pub strays: u64,
    /// Snapshots sent.
    pub snapshots: u64,
    /// Messages sent back.
    pub messages: u64,
    /// Snapshots and messages that could not be sent.
    pub unsent: u64,
}

#[derive(Debug)]
struct Player {
    handle: Handle,
    client: ClientId,
    position: (i32, i32),
    speed: (i32, i32),
    thrust: (i8, i8),
    /// Its seat is suspended: it stands still where others see it, and goes on as it went when its session comes back.
    suspended: bool,
    /// None until the first input.
    received: Option<protocol::Received>,
    /// Whether a snapshot is due at the end of this tick.
    unanswered: bool,
}

/// The demo world. Each call of [`step`](Self::step) is a tick.
///
/// A tick costs three looks at every slot (verify, move, and sort by place if anybody is to be answered) and, per answer, eight looks
/// at others and a copy of at most 158 bytes. Nothing is allocated once the world has grown to its size, which the seat table's
/// capacity bounds.
#[derive(Debug)]
pub struct World {
    /// By the seat's slot.
    players: Vec<Option<Player>>,
    /// Slots whose players are unanswered.
    unanswered: Vec<u32>,
    neighbours: Neighbours,
    snapshot: Vec<u8>,
    stats: Stats,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// An empty world.
    pub fn new() -> Self {
        Self {
            players: Vec::new(),
            unanswered: Vec::new(),
            neighbours: Neighbours::new(),
            snapshot: Vec::with_capacity(MAX_SNAPSHOT),
            stats: Stats::default(),
        }
    }

    /// What the world has seen.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// Where a seat's player is, if it is in the world.
    pub fn position(&self, seat: Handle) -> Option<(i32, i32)> {
        Some(player(&self.players, seat)?.position)
    }

    /// One tick: takes in who came and went, asks for every seat whether it may stay, takes the inputs, moves everybody whose seat is
    /// live, and answers each who sent an input with one snapshot.
    pub fn step<'a>(
        &mut self,
        tick: Tick,
        changes: &[SeatChange],
        inputs: impl IntoIterator<Item = (Handle, Received<'a>)>,
        verify: impl Fn(Handle) -> Verdict,
        out: &mut impl Out,
    ) {
        for change in changes {
            self.apply(change);
        }
        self.verify(verify);
        for (from, received) in inputs {
            self.take(from, received, out);
        }
        self.advance();
        self.answer(tick, out);
    }

    fn apply(&mut self, change: &SeatChange) {
        match change {
            SeatChange::Joined(joined) => self.enter(joined.handle, joined.client),
            SeatChange::Resumed { handle, .. } => {
                // A new connection counts its inputs from a new start.
                if let Some(player) = player_mut(&mut self.players, *handle) {
                    player.received = None;
                }
            }
            // Verify says so too, and says it sooner.
            SeatChange::Suspended { .. } => {}
            SeatChange::Ended { handle, .. } => self.leave(*handle),
        }
    }

    fn enter(&mut self, handle: Handle, client: ClientId) {
        let slot = handle.slot() as usize;
        if self.players.len() <= slot {
            self.players.resize_with(slot + 1, || None);
        }
        let Some(place) = self.players.get_mut(slot) else {
            return;
        };
        let newcomer = Player {
            handle,
            client,
            position: birthplace(client),
            speed: (0, 0),
            thrust: (0, 0),
            suspended: false,
            received: None,
            unanswered: false,
        };
        // The predecessor's end is told before its slot is used again; so this replaces nobody.
        if place.replace(newcomer).is_none() {
            self.stats.players += 1;
            self.stats.most_players = self.stats.most_players.max(self.stats.players);
        }
    }

    fn leave(&mut self, handle: Handle) {
        // The player is gone already if its seat was refused before its end was told.
        if let Some(place) = self.players.get_mut(handle.slot() as usize)
            && place.take_if(|player| player.handle == handle).is_some()
        {
            self.stats.players -= 1;
        }
    }

    /// Every seat, every tick: who is refused is out of the world before anything else happens in it, and who is suspended stands
    /// still in it.
    fn verify(&mut self, verify: impl Fn(Handle) -> Verdict) {
        let (mut suspended, mut refused) = (0, 0);
        for place in &mut self.players {
            let Some(player) = place else { continue };
            let verdict = verify(player.handle);
            player.suspended = verdict == Verdict::Suspended;
            suspended += u32::from(player.suspended);
            if verdict.is_ended() {
                *place = None;
                refused += 1;
            }
        }
        self.stats.players -= refused;
        self.stats.refused += u64::from(refused);
        self.stats.suspended += u64::from(suspended);
        self.stats.live += u64::from(self.stats.players - suspended);
    }

    fn take(&mut self, from: Handle, received: Received<'_>, out: &mut impl Out) {
        let Some(player) = player_mut(&mut self.players, from) else {
            self.stats.strays += 1;
            return;
        };
        match received {
            Received::Datagram(payload) => {
                let Ok(input) = Input::decode(payload) else {
                    self.stats.malformed += 1;
                    return;
                };
                self.stats.inputs += 1;
                if player.steer(input) {
                    self.unanswered.push(from.slot());
                }
            }
            Received::Message(payload) => {
                if out.message(from, payload) {
                    self.stats.messages += 1;
                } else {
                    self.stats.unsent += 1;
                }
            }
        }
    }

    fn advance(&mut self) {
        for player in self.players.iter_mut().flatten() {
            if !player.suspended {
                player.advance();
            }
        }
    }

    fn answer(&mut self, tick: Tick, out: &mut impl Out) {
        let Self {
            players,
            unanswered,
            neighbours,
            snapshot: bytes,
            stats,
        } = self;
        if unanswered.is_empty() {
            return;
        }
        let everybody = players.iter().flatten();
        neighbours.arrange(everybody.map(|player| (player.handle.slot(), player.position)));
        for slot in unanswered.drain(..) {
            let Some(Some(player)) = players.get_mut(slot as usize) else {
                continue;
            };
            player.unanswered = false;
            let (handle, position) = (player.handle, player.position);
            let Some(received) = player.received else {
                continue;
            };
            let mut snapshot = Snapshot::new(tick, received, position, stats.players);
            let around = neighbours.around(position).iter();
            for slot in around.filter(|other| **other != slot) {
                let Some(Some(other)) = players.get(*slot as usize) else {
                    continue;
                };
                if !snapshot.show(other.seen()) {
                    break;
                }
            }
            bytes.clear();
            snapshot.encode(bytes);
            if out.datagram(handle, bytes) {
                stats.snapshots += 1;
            } else {
                stats.unsent += 1;
            }
        }
    }
}

impl Player {
    /// Takes an input; says whether it is the first of this tick. An older one than was seen is acknowledged, and steers no more.
    fn steer(&mut self, input: Input) -> bool {
        let newest = match &mut self.received {
            Some(received) => received.note(input.sequence),
            none => {
                *none = Some(protocol::Received::first(input.sequence));
                true
            }
        };
        if newest {
            self.thrust = (input.right, input.up);
        }
        !std::mem::replace(&mut self.unanswered, true)
    }

    fn advance(&mut self) {
        let along = |position: &mut i32, speed: &mut i32, thrust: i8| {
            // Rounded away from zero: what does not thrust comes to rest.
            let drag = (speed.abs() + DRAG - 1) / DRAG * speed.signum();
            *speed += i32::from(thrust) - drag;
            *position = (*position + *speed).rem_euclid(WORLD_SIZE);
        };
        along(&mut self.position.0, &mut self.speed.0, self.thrust.0);
        along(&mut self.position.1, &mut self.speed.1, self.thrust.1);
    }

    fn seen(&self) -> Other {
        Other {
            client: self.client,
            x: self.position.0,
            y: self.position.1,
        }
    }
}

fn player(players: &[Option<Player>], seat: Handle) -> Option<&Player> {
    let player = players.get(seat.slot() as usize)?.as_ref()?;
    (player.handle == seat).then_some(player)
}

fn player_mut(players: &mut [Option<Player>], seat: Handle) -> Option<&mut Player> {
    let player = players.get_mut(seat.slot() as usize)?.as_mut()?;
    (player.handle == seat).then_some(player)
}

/// Client ids are random, so their bits scatter the players.
fn birthplace(client: ClientId) -> (i32, i32) {
    let [a, b, c, d, e, f, g, h] = client.0.to_be_bytes();
    let within = |bytes| i32::from_be_bytes(bytes).rem_euclid(WORLD_SIZE);
    (within([a, b, c, d]), within([e, f, g, h]))
}
