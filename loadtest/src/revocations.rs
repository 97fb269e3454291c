//! Revokes players while they play, and watches that each is thrown out in time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use hdrhistogram::CreationError;
use tickgate::{
    client::{Backend, Wait},
    clock::Clock,
    id::SessionId,
    wire::CloseCode,
};
use tokio::{sync::mpsc, task::JoinSet, time::sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    measure::{Latencies, Summary},
    plan::PlannedRevocation,
    players::Close,
    progress::{Live, count},
    report::Revocations,
};

/// A revoked player must be gone this long after RevokeSession was sent.
pub(crate) const DEADLINE: Duration = Duration::from_secs(2);

/// What came of the revocations.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// Counts.
    pub(crate) counts: Revocations,
    /// From sending to the close seen.
    pub(crate) latency: Summary,
    /// What did not go as planned, in words.
    pub(crate) not_as_planned: Vec<String>,
}

/// What is needed to revoke players.
pub(crate) struct Revoker {
    /// The clock.
    pub(crate) clock: Clock,
    /// Who revokes.
    pub(crate) backend: Backend,
    /// Whom, and when after the start.
    pub(crate) planned: Vec<PlannedRevocation>,
    /// The sessions of the clients that are connected when play begins.
    pub(crate) sessions: HashMap<u32, SessionId>,
    /// The ends of connections.
    pub(crate) closes: mpsc::Receiver<Close>,
    /// Counts for the progress line.
    pub(crate) live: Arc<Live>,
    /// Ends it before its time: nothing more is revoked, what was is still watched.
    pub(crate) stop: CancellationToken,
}

impl Revoker {
    /// Makes the planned revocations from `start` on, and waits until all must have had their effect.
    pub(crate) async fn run(mut self, start: Instant) -> Watch {
        let mut ledger = Ledger::default();
        let mut calls = JoinSet::new();
        let mut planned = std::mem::take(&mut self.planned).into_iter().peekable();
        let mut last_sent = start;
        loop {
            let next_due = planned.peek().map(|revocation| start + revocation.at);
            // With nothing left to send: until what was sent must have had its effect.
            let wake = next_due.unwrap_or(last_sent + DEADLINE + MARGIN);
            if next_due.is_none() && calls.is_empty() && ledger.all_closed() {
                break;
            }
            tokio::select! {
                Some(close) = self.closes.recv() => {
                    if ledger.closed(close) {
                        count(&self.live.revoked);
                    }
                }
                Some(done) = calls.join_next() => {
                    if let Ok((client, answer)) = done {
                        ledger.answered(client, answer);
                    }
                }
                () = self.stop.cancelled(), if next_due.is_some() => {
                    planned = Vec::new().into_iter().peekable();
                }
                () = sleep_until(wake.into()) => match planned.next() {
                    Some(revocation) => {
                        last_sent = self.clock.now();
                        self.send(revocation.client, last_sent, &mut ledger, &mut calls);
                    }
                    None if calls.is_empty() => break,
                    // A call still runs: it has its own deadline. Look again a little later.
                    None => last_sent += CALL_PATIENCE,
                },
            }
        }
        Watch {
            ledger,
            closes: self.closes,
        }
    }

    fn send(&self, client: u32, now: Instant, ledger: &mut Ledger, calls: &mut Calls) {
        let Some(session) = self.sessions.get(&client).copied() else {
            ledger.absent(client);
            return;
        };
        if !ledger.sent(client, now) {
            return;
        }
        let backend = self.backend.clone();
        calls.spawn(async move {
            let answer = backend.revoke_session(session, Wait::Commit).await;
            (client, answer.map(drop).map_err(|error| error.to_string()))
        });
    }
}

/// The revocations that were made, watched until the players' connections are ended by the run itself.
pub(crate) struct Watch {
    ledger: Ledger,
    closes: mpsc::Receiver<Close>,
}

impl Watch {
    /// Settles what came of each revocation, now that the players' connections are gone.
    ///
    /// `blur` is how late the generator itself may have been to see a close. A close is held against the server only as far as it is
    /// later than that explains.
    ///
    /// # Errors
    /// As [`Latencies::new`].
    pub(crate) fn settle(mut self, end: Instant, blur: Duration) -> Result<Outcome, CreationError> {
        while let Ok(close) = self.closes.try_recv() {
            self.ledger.closed(close);
        }
        self.ledger.settle(end, blur)
    }
}

type Calls = JoinSet<(u32, Result<(), String>)>;

/// How much longer than the deadline a close is waited for, so that an overdue one is told from one that the generator saw late.
const MARGIN: Duration = Duration::from_millis(500);
/// How much longer than the players a call to the sidecar is waited for, each time.
const CALL_PATIENCE: Duration = Duration::from_millis(500);

/// Who was revoked when, and what became of them. Pure: instants come in.
#[derive(Debug, Default)]
struct Ledger {
    entries: BTreeMap<u32, Entry>,
    /// Ends of connections that nobody had asked for then.
    closed_before: HashMap<u32, Close>,
}

#[derive(Debug, Default)]
struct Entry {
    /// When RevokeSession was sent; none if there was no connection to revoke.
    sent: Option<Instant>,
    answer: Option<Result<(), String>>,
    close: Option<Close>,
}

impl Ledger {
    fn absent(&mut self, client: u32) {
        self.entries.insert(client, Entry::default());
    }

    /// A revocation is about to be sent. Says whether there is a connection left to revoke.
    fn sent(&mut self, client: u32, now: Instant) -> bool {
        if self.closed_before.contains_key(&client) {
            self.absent(client);
            return false;
        }
        let entry = Entry {
            sent: Some(now),
            ..Entry::default()
        };
        self.entries.insert(client, entry);
        true
    }

    fn answered(&mut self, client: u32, answer: Result<(), String>) {
        if let Some(entry) = self.entries.get_mut(&client) {
            entry.answer = Some(answer);
        }
    }

    /// A connection has ended. Says whether that was a revocation's doing.
    fn closed(&mut self, close: Close) -> bool {
        match self.entries.get_mut(&close.client) {
            Some(entry) => {
                entry.close = Some(close);
                close.code == Some(CloseCode::SessionRevoked)
            }
            None => {
                self.closed_before.insert(close.client, close);
                false
            }
        }
    }

    fn all_closed(&self) -> bool {
        let is_closed = |entry: &Entry| entry.sent.is_none() || entry.close.is_some();
        self.entries.values().all(is_closed)
    }

    fn settle(&self, end: Instant, blur: Duration) -> Result<Outcome, CreationError> {
        let mut counts = Revocations::default();
        let mut latencies = Latencies::new()?;
        let mut failures = Vec::new();
        for entry in self.entries.values() {
            counts.planned += 1;
            match entry.fate(end, blur) {
                Fate::Failed(why) => {
                    counts.failed += 1;
                    failures.push(why);
                    continue;
                }
                Fate::Closed(took) => {
                    counts.closed += 1;
                    latencies.record(took);
                }
                Fate::ClosedOtherwise => counts.closed_otherwise += 1,
                Fate::StillAlive => counts.still_alive += 1,
                Fate::Undecided => counts.undecided += 1,
            }
            counts.acknowledged += 1;
            counts.seen += u32::from(entry.is_seen_as_revoked());
        }
        let mut not_as_planned = Vec::new();
        if let Some(why) = failures.first() {
            let (failed, planned) = (counts.failed, counts.planned);
            not_as_planned.push(format!(
                "{failed} of {planned} revocations could not be made: {why}"
            ));
        }
        if counts.closed_otherwise > 0 {
            not_as_planned.push(format!(
                "{} revoked players saw their connection end with something other than session_revoked",
                counts.closed_otherwise
            ));
        }
        if counts.undecided > 0 {
            not_as_planned.push(format!(
                "the generator was too slow to tell whether {} revoked players were gone within 2 s",
                counts.undecided
            ));
        }
        let unasked = |close: &&Close| close.code == Some(CloseCode::SessionRevoked);
        let unasked = self.closed_before.values().filter(unasked).count();
        if unasked > 0 {
            not_as_planned.push(format!(
                "{unasked} players were closed as session_revoked whom this run had not revoked"
            ));
        }
        Ok(Outcome {
            counts,
            latency: latencies.summary(),
            not_as_planned,
        })
    }
}

/// What became of one planned revocation.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Failed(String),
    Closed(Duration),
    ClosedOtherwise,
    StillAlive,
    /// Late, or never seen; but the generator may have been what was late.
    Undecided,
}

impl Entry {
    fn is_seen_as_revoked(&self) -> bool {
        self.close
            .is_some_and(|close| close.code == Some(CloseCode::SessionRevoked))
    }

    fn fate(&self, end: Instant, blur: Duration) -> Fate {
        let Some(sent) = self.sent else {
            return Fate::Failed("the player was not connected".to_owned());
        };
        match &self.answer {
            Some(Ok(())) => {}
            Some(Err(why)) => return Fate::Failed(why.clone()),
            None => return Fate::Failed("no answer from the sidecar".to_owned()),
        }
        let until = self.close.map_or(end, |close| close.at);
        let alive_for = until.saturating_duration_since(sent);
        if alive_for > DEADLINE.saturating_add(blur) {
            return Fate::StillAlive;
        }
        match self.close {
            Some(_) if alive_for > DEADLINE => Fate::Undecided,
            Some(_) if self.is_seen_as_revoked() => Fate::Closed(alive_for),
            Some(_) => Fate::ClosedOtherwise,
            None => Fate::Undecided,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(client: u32, at: Instant, code: Option<CloseCode>) -> Close {
        Close { client, at, code }
    }

    fn revoked(ledger: &mut Ledger, client: u32, start: Instant, closed_after_ms: Option<u64>) {
        assert!(ledger.sent(client, start));
        ledger.answered(client, Ok(()));
        if let Some(ms) = closed_after_ms {
            let at = start + Duration::from_millis(ms);
            assert!(ledger.closed(close(client, at, Some(CloseCode::SessionRevoked))));
        }
    }

    #[test]
    fn each_revocation_comes_to_one_end() {
        let start = Clock::system().now();
        let mut ledger = Ledger::default();
        revoked(&mut ledger, 1, start, Some(30));
        revoked(&mut ledger, 2, start, Some(2_001));
        revoked(&mut ledger, 3, start, None);
        revoked(&mut ledger, 4, start, None);
        ledger.closed(close(4, start, None));
        ledger.sent(5, start);
        ledger.answered(5, Err("not found".to_owned()));
        ledger.absent(6);
        let end = start + Duration::from_secs(5);
        let outcome = ledger.settle(end, Duration::ZERO).unwrap();
        let counts = outcome.counts;
        assert_eq!(counts.planned, 6);
        assert_eq!(counts.acknowledged, 4);
        assert_eq!(counts.closed, 1);
        assert_eq!(counts.still_alive, 2, "too late is not in time");
        assert_eq!(counts.closed_otherwise, 1);
        assert_eq!(counts.failed, 2);
        assert_eq!(counts.seen, 2);
        assert_eq!(outcome.latency.count, 1);
        assert!(outcome.latency.max.abs_diff(30_000) <= 30);
        assert_eq!(outcome.not_as_planned.len(), 2, "{outcome:?}");
    }

    #[test]
    fn what_the_generators_own_lag_explains_is_not_held_against_the_server() {
        let start = Clock::system().now();
        let mut ledger = Ledger::default();
        revoked(&mut ledger, 1, start, Some(2_500));
        revoked(&mut ledger, 2, start, Some(3_500));
        revoked(&mut ledger, 3, start, None);
        let end = start + Duration::from_secs(5);
        let settled = |blur_ms| {
            let blur = Duration::from_millis(blur_ms);
            let counts = ledger.settle(end, blur).unwrap().counts;
            (counts.undecided, counts.still_alive)
        };
        assert_eq!(settled(0), (0, 3));
        assert_eq!(settled(1_000), (1, 2));
        assert_eq!(settled(60_000), (3, 0));
    }

    #[test]
    fn a_close_may_come_before_the_sidecars_answer() {
        let start = Clock::system().now();
        let mut ledger = Ledger::default();
        ledger.sent(1, start);
        assert!(!ledger.all_closed());
        ledger.closed(close(1, start, Some(CloseCode::SessionRevoked)));
        assert!(ledger.all_closed());
        ledger.answered(1, Ok(()));
        let outcome = ledger.settle(start, Duration::ZERO).unwrap();
        assert_eq!(outcome.counts.closed, 1);
    }

    #[test]
    fn who_was_gone_before_cannot_be_revoked_and_is_not_counted_as_thrown_out() {
        let start = Clock::system().now();
        let mut ledger = Ledger::default();
        assert!(!ledger.closed(close(1, start, Some(CloseCode::SessionRevoked))));
        assert!(!ledger.sent(1, start));
        let outcome = ledger.settle(start, Duration::ZERO).unwrap();
        assert_eq!(outcome.counts.failed, 1);
        assert!(
            outcome
                .not_as_planned
                .iter()
                .any(|what| what.contains("had not revoked"))
        );
    }
}
