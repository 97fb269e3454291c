//! What one connection may take of the gateway in time, and what becomes of one that takes more. Pure: `now` and counts in, a verdict out.
//!
//! Everything that a peer can have the gateway do per packet has a token bucket: packets, datagrams, bytes, messages, and changes of
//! address. What is beyond a bucket is dropped and counted, and so is only as dear as dropping it: the burst after a lost link, or a clock
//! that jumps, costs nobody his seat. What is dropped is charged to a second bucket of the same size, so that whoever sends more than
//! *twice* his share for long is found out, the sooner the more it is, and closed.
//!
//! Nobody but the peer may be able to have it closed, though, and packets and addresses are seen before they are known to be the peer's:
//! whoever has seen one of its packets can send others with the same connection id. So only what was decrypted can close a connection.
//! Messages are held back by flow control instead, and lost or closed for it never.

use std::time::Instant;

use quinn_proto::FrameStats;

use super::buckets::Refill;
use crate::gateway::config::SeatRates;

/// What became of something that a peer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is within the budget.
    Within,
    /// It is not, and to be dropped.
    Over,
    /// It is not, and has not been for so long that the connection is to be closed.
    TooLong,
}

/// Two buckets of one size: of what is let through, and of what is dropped before it is too much.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    within: Refill,
    over: Refill,
}

impl Allowance {
    const fn same(refill: Refill) -> Self {
        Self {
            within: refill,
            over: refill,
        }
    }
}

/// When each of the two will be full again; none: it is.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    within: Option<Instant>,
    over: Option<Instant>,
}

impl Account {
    fn take(&mut self, allowance: &Allowance, now: Instant, cost: u32) -> Verdict {
        if let Some(full_at) = allowance.within.take_many(now, self.within, cost) {
            self.within = Some(full_at);
            Verdict::Within
        } else if let Some(full_at) = allowance.over.take_many(now, self.over, cost) {
            self.over = Some(full_at);
            Verdict::Over
        } else {
            Verdict::TooLong
        }
    }
}

/// The budgets, the same for every connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budgets {
    packets: Allowance,
    datagrams: Allowance,
    bytes: Allowance,
    messages: Refill,
    moves: Allowance,
}

impl Budgets {
    pub(super) fn new(rates: &SeatRates) -> Self {
        let per_second = |rate| Refill::over(rate, rates.burst);
        Self {
            packets: Allowance::same(per_second(rates.packets)),
            datagrams: Allowance::same(per_second(rates.datagrams)),
            bytes: Allowance::same(per_second(rates.bytes)),
            messages: per_second(rates.messages),
            // A minute's worth at once: a phone that goes back and forth between two networks on a train. And whoever keeps up more than
            // half the rate for some minutes does it on purpose: three times a minute's worth, refilled at half the rate.
            moves: Allowance {
                within: Refill::per_minute(rates.moves, 1),
                over: Refill::per_minute(rates.moves.div_ceil(2), 6),
            },
        }
    }
}

/// What one connection has had.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spending {
    packets: Account,
    datagrams: Account,
    bytes: Account,
    messages: Option<Instant>,
    moves: Account,
    /// Packets handed to QUIC, and frames that it found in them, since it was last asked.
    handed: u64,
    frames: u64,
}

/// What a packet would be dropped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// There are too many packets.
    Packets,
    /// It comes from another address than the one before, and there were too many addresses.
    Moves,
}

impl Spending {
    /// A packet has come that is not decrypted yet. None if it is to be looked at.
    ///
    /// The verdict of too many packets is to be believed only if they are the peer's own: see [`is_the_peers`](Self::is_the_peers).
    pub(super) fn packet(
        &mut self,
        budgets: &Budgets,
        now: Instant,
        is_of_other_address: bool,
    ) -> Option<(Excess, Verdict)> {
        if is_of_other_address && !budgets.moves.within.has(now, self.moves.within, 1) {
            return Some((Excess::Moves, Verdict::Over));
        }
        match self.packets.take(&budgets.packets, now, 1) {
            Verdict::Within => {
                self.handed += 1;
                None
            }
            verdict => Some((Excess::Packets, verdict)),
        }
    }

    /// The peer's address has changed: QUIC has decrypted a packet that came from another one.
    pub(super) fn moved(&mut self, budgets: &Budgets, now: Instant) -> Verdict {
        self.moves.within = budgets
            .moves
            .within
            .take_many(now, self.moves.within, 1)
            .or(self.moves.within);
        match budgets.moves.over.take_many(now, self.moves.over, 1) {
            Some(full_at) => {
                self.moves.over = Some(full_at);
                Verdict::Within
            }
            None => Verdict::TooLong,
        }
    }

    /// A datagram of the game's has come, with so many bytes.
    pub(super) fn datagram(&mut self, budgets: &Budgets, now: Instant, bytes: usize) -> Verdict {
        match self.datagrams.take(&budgets.datagrams, now, 1) {
            Verdict::Within => self.bytes.take(&budgets.bytes, now, cost(bytes)),
            verdict => verdict,
        }
    }

    /// Whether messages may be read now; if not, they wait where they are.
    pub(super) fn may_read(&self, budgets: &Budgets, now: Instant) -> bool {
        budgets.messages.has(now, self.messages, 0)
            && budgets.bytes.within.has(now, self.bytes.within, 0)
    }

    /// A message of so many bytes was read. It may be more than there was left: then it takes the longer until the next one may.
    pub(super) fn message(&mut self, budgets: &Budgets, now: Instant, bytes: usize) {
        self.messages = Some(budgets.messages.charge(now, self.messages, 1));
        let full_at = budgets
            .bytes
            .within
            .charge(now, self.bytes.within, cost(bytes));
        self.bytes.within = Some(full_at);
    }

    /// Whether the packets of late were the peer's, of which `stats` counts the frames that were decrypted: each packet of its own has one
    /// at the least, and one that somebody else made up has none. If they were not, they are forgotten.
    pub(super) fn is_the_peers(&mut self, stats: &FrameStats) -> bool {
        let frames = frames(stats);
        let of_late = frames.saturating_sub(self.frames);
        let is_the_peers = of_late >= self.handed / 2;
        (self.frames, self.handed) = (frames, 0);
        if !is_the_peers {
            self.packets.over = None;
        }
        is_the_peers
    }
}

/// Bytes as a cost. No packet has more than 65,535.
fn cost(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Frames that were decrypted, of those kinds of which a client sends many.
fn frames(stats: &FrameStats) -> u64 {
    [
        stats.acks,
        stats.crypto,
        stats.data_blocked,
        stats.datagram,
        stats.max_data,
        stats.max_stream_data,
        stats.max_streams_bidi,
        stats.max_streams_uni,
        stats.new_connection_id,
        stats.path_challenge,
        stats.path_response,
        stats.ping,
        stats.reset_stream,
        stats.retire_connection_id,
        stats.stop_sending,
        stats.stream,
        stats.stream_data_blocked,
        stats.streams_blocked_bidi,
        stats.streams_blocked_uni,
    ]
    .iter()
    .sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    fn budgets() -> Budgets {
        Budgets::new(&SeatRates::default())
    }

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Sends datagrams of `bytes` bytes at a steady rate for so long. How many were let through and dropped, and when it was enough.
    fn send(per_second: u32, bytes: usize, lasts: Duration) -> (u32, u32, Option<Duration>) {
        let (start, budgets) = (Clock::system().now(), budgets());
        let mut spending = Spending::default();
        let (mut within, mut over, mut after) = (0, 0, Duration::ZERO);
        while after < lasts {
            match spending.datagram(&budgets, start + after, bytes) {
                Verdict::Within => within += 1,
                Verdict::Over => over += 1,
                Verdict::TooLong => return (within, over, Some(after)),
            }
            after += Duration::from_secs(1) / per_second;
        }
        (within, over, None)
    }

    #[test]
    fn who_keeps_to_the_rate_is_never_touched() {
        let hour = secs(3_600.0);
        // The largest datagrams at 128 Hz.
        assert_eq!(send(128, 1_150, hour), (128 * 3_600, 0, None));
        let (within, over, closed) = send(512, 64, secs(600.0));
        assert_eq!((over, closed), (0, None));
        assert!(within >= 512 * 600);
    }

    #[test]
    fn who_sends_up_to_twice_the_rate_is_trimmed_and_who_sends_more_is_closed() {
        let (within, over, closed) = send(1_000, 64, secs(600.0));
        assert_eq!(closed, None);
        assert!((within + over) == 600_000);
        // The burst, and the rate from then on.
        assert!((2_048 + 512 * 598..=2_048 + 512 * 601).contains(&within));
        // At three times the rate a burst of 2,048 lasts 2 s, and as many again dropped, less what comes in: 4 s.
        let (_, _, closed) = send(1_536, 64, secs(600.0));
        assert!((secs(5.9)..secs(6.1)).contains(&closed.unwrap()));
        // Garbage at full speed is closed in a quarter of a second.
        let (within, over, closed) = send(20_000, 64, secs(600.0));
        assert!(closed.unwrap() < secs(0.25));
        assert!(within + over < 5_000);
        // So is who sends few that are too large: 1.2 MB/s.
        let (_, over, closed) = send(500, 2_400, secs(600.0));
        assert!(over > 0 && closed.is_some());
    }

    /// A client at 128 Hz whose line is away for two seconds in every five, and which sends all that it has kept at once.
    #[test]
    fn bursts_after_stalls_are_within() {
        let (start, budgets) = (Clock::system().now(), budgets());
        let mut spending = Spending::default();
        let (mut after, mut kept) = (Duration::ZERO, 0);
        while after < secs(1_000.0) {
            let now = start + after;
            kept += 1;
            if after.as_secs() % 5 >= 2 {
                for _ in 0..kept {
                    assert_eq!(spending.packet(&budgets, now, false), None);
                    let verdict = spending.datagram(&budgets, now, 1_150);
                    assert_eq!(verdict, Verdict::Within, "after {after:?}");
                }
                kept = 0;
            }
            after += Duration::from_secs(1) / 128;
        }
        // Once, eight seconds' worth in one instant.
        let now = start + secs(2_000.0);
        for _ in 0..8 * 128 {
            assert_eq!(spending.datagram(&budgets, now, 1_150), Verdict::Within);
        }
    }

    #[test]
    fn only_packets_that_were_decrypted_close() {
        let (now, budgets) = (Clock::system().now(), budgets());
        let mut spending = Spending::default();
        let mut flood = |spending: &mut Spending| {
            let mut handed = 0_u64;
            loop {
                match spending.packet(&budgets, now, false) {
                    None => handed += 1,
                    Some((Excess::Packets, Verdict::Over)) => {}
                    Some((Excess::Packets, Verdict::TooLong)) => return handed,
                    other => panic!("{other:?}"),
                }
            }
        };
        let handed = flood(&mut spending);
        assert_eq!(handed, 8_000);
        // Somebody else sends in its name, while it plays.
        let mut stats = FrameStats::default();
        (stats.datagram, stats.acks) = (500, 250);
        assert!(!spending.is_the_peers(&stats));
        let Some((Excess::Packets, Verdict::Over)) = spending.packet(&budgets, now, false) else {
            panic!("it goes on as before");
        };
        // Now it is its own doing.
        let mut spending = Spending::default();
        stats.ping += flood(&mut spending);
        assert!(spending.is_the_peers(&stats));
    }

    #[test]
    fn messages_wait_and_what_was_too_much_is_waited_for() {
        let (now, budgets) = (Clock::system().now(), budgets());
        let mut spending = Spending::default();
        let mut read = 0;
        while spending.may_read(&budgets, now) {
            spending.message(&budgets, now, 10);
            read += 1;
        }
        // The last one was one too many.
        assert_eq!(read, 4 * 256 + 1);
        let soon = now + Duration::from_secs(1) / 256;
        assert!(!spending.may_read(&budgets, soon - Duration::from_millis(1)));
        assert!(spending.may_read(&budgets, soon));
        // Bytes count as well, however few messages they are in.
        let mut spending = Spending::default();
        for _ in 0..128 {
            assert!(spending.may_read(&budgets, now));
            spending.message(&budgets, now, 16_384);
        }
        spending.message(&budgets, now, 16_384);
        assert!(!spending.may_read(&budgets, now));
        assert!(spending.may_read(&budgets, now + secs(0.04)));
    }

    /// Moves as often as it can for so long; how often that was, and whether it was enough.
    fn wander(every: Duration, lasts: Duration) -> (u32, Option<Duration>) {
        let (start, budgets) = (Clock::system().now(), budgets());
        let (mut spending, mut moves, mut after) = (Spending::default(), 0, Duration::ZERO);
        while after < lasts {
            let now = start + after;
            match spending.packet(&budgets, now, true) {
                None => {
                    moves += 1;
                    if spending.moved(&budgets, now) == Verdict::TooLong {
                        return (moves, Some(after));
                    }
                }
                Some((Excess::Moves, Verdict::Over)) => {}
                other => panic!("{other:?}"),
            }
            after += every;
        }
        (moves, None)
    }

    #[test]
    fn who_changes_his_address_now_and_then_may_and_who_never_stops_is_closed() {
        // Every ten seconds for an hour.
        assert_eq!(wander(secs(10.0), secs(3_600.0)), (360, None));
        // Twelve times within a second, and no thirteenth time before five seconds are over.
        assert_eq!(wander(secs(0.05), secs(4.9)), (12, None));
        // With every packet.
        let (moves, closed) = wander(secs(0.02), secs(3_600.0));
        assert!((secs(200.0)..secs(300.0)).contains(&closed.unwrap()));
        assert!(moves < 80);
    }
}
