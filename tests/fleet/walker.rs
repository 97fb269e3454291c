//! Players of the demo world, which knows its players by their handles: a seat that were given anew would begin at its birthplace.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tickgate::{
    client::Connection,
    demo::protocol::{Input, Snapshot},
};
use tokio_util::sync::CancellationToken;

/// Inputs as they are sent here: 30 a second, so that the 33 which a snapshot acknowledges are the last second.
pub const EVERY: Duration = Duration::from_millis(33);

/// How many inputs before the newest a snapshot tells of.
pub const WINDOW: u32 = 32;

/// One who walks about in the world, and takes note of what it is told.
pub struct Walker {
    connection: Arc<Connection>,
    sequence: u32,
    turns: tokio::time::Interval,
    /// The last snapshot and when it came.
    pub last: Option<(Snapshot, Instant)>,
    /// The longest time between two snapshots.
    pub longest_gap: Duration,
    pub snapshots: u32,
    /// The fewest and the most players that a snapshot told of.
    pub players: (u32, u32),
}

impl Walker {
    /// Its inputs are numbered from `first` on.
    pub fn new(connection: Arc<Connection>, first: u32) -> Self {
        let mut turns = tokio::time::interval(EVERY);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self {
            connection,
            sequence: first,
            turns,
            last: None,
            longest_gap: Duration::ZERO,
            snapshots: 0,
            players: (u32::MAX, 0),
        }
    }

    /// The number of the next input.
    pub const fn next_input(&self) -> u32 {
        self.sequence
    }

    /// Steers once, and takes what comes until the next turn.
    pub async fn turn(&mut self, right: i8) {
        let input = Input {
            sequence: self.sequence,
            right,
            up: 0,
        };
        self.sequence += 1;
        let bytes = input.encode().to_vec().into();
        self.connection.send_datagram(bytes).unwrap();
        loop {
            tokio::select! {
                datagram = self.connection.recv_datagram() => {
                    self.note(Snapshot::decode(&datagram.unwrap()).unwrap());
                }
                _ = self.turns.tick() => return,
            }
        }
    }

    fn note(&mut self, snapshot: Snapshot) {
        let now = Instant::now();
        if let Some((_, before)) = self.last {
            self.longest_gap = self.longest_gap.max(now - before);
        }
        self.last = Some((snapshot, now));
        self.snapshots += 1;
        let (fewest, most) = self.players;
        self.players = (fewest.min(snapshot.players), most.max(snapshot.players));
    }

    /// Steers until the world has acknowledged an input sent from now on; what it says then.
    pub async fn is_heard(&mut self, right: i8) -> Snapshot {
        let from = self.sequence;
        let since = |newest: u32| newest.wrapping_sub(from) < u32::MAX / 2;
        self.until(right, |snapshot| since(snapshot.received.newest))
            .await
    }

    /// Stands, by the world's word, still.
    pub async fn rests(&mut self) -> (i32, i32) {
        let mut before = None;
        let place = |snapshot: &Snapshot| (snapshot.x, snapshot.y);
        let stood = self.until(0, |snapshot| {
            before
                .replace((snapshot.tick, place(snapshot)))
                .is_some_and(|(tick, was)| tick < snapshot.tick && was == place(snapshot))
        });
        place(&stood.await)
    }

    /// Steers until a snapshot that came is as `wanted` has it.
    async fn until(&mut self, right: i8, mut wanted: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        let steer = async {
            loop {
                let before = self.snapshots;
                self.turn(right).await;
                if let Some((snapshot, _)) = self.last.filter(|_| self.snapshots > before)
                    && wanted(&snapshot)
                {
                    return snapshot;
                }
            }
        };
        super::soon("the world's answer", steer).await
    }

    /// Looks on, without a step, until told to stop; what it saw.
    pub async fn look_on(mut self, stop: CancellationToken) -> Self {
        while !stop.is_cancelled() {
            self.turn(0).await;
        }
        self
    }
}
