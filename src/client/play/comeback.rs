//! What to do when a client is not in, or not in any more: a state machine without I/O. Failures, time and chance come in; where and when
//! to try next, or that it is over, goes out.

use std::time::{Duration, Instant};

use crate::{
    client::{Backoff, CallError, Closed, ConnectError, JoinError, Patience, Target, join::Pauses},
    id::GatewayId,
    wire::{Advice, CloseCode},
};

/// A connection that lived for so long ends a row of failures (docs/PROTOCOL.md, "Coming back").
const SETTLED: Duration = Duration::from_secs(10);

/// How hard a client tries to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Persistence {
    /// How fast to try, and how long gateways may refuse new tokens in a row ([`Patience::total`], default 30 s): a gateway that has
    /// just restarted does so for a moment. Waits are those of docs/PROTOCOL.md, but never longer than 8 s (there: 30 s) times
    /// up to one and a half: somebody looks at the screen, and a gateway that is back should not wait long for its players.
    pub patience: Patience,
    /// How long a client may be away, or not get in, before it gives up. Default 5 min.
    pub away_at_most: Duration,
    /// How long a lost connection's own gateway is tried before any other that the target allows: the seat waits there. Default
    /// 20 s: the gateway keeps it for 15 s, counted from when it misses the client itself. A gateway that is known to be gone or
    /// draining is not waited for.
    pub own_gateway_for: Duration,
}

impl Default for Persistence {
    fn default() -> Self {
        let patience = Patience::default();
        let retry_later = Backoff {
            longest: Duration::from_secs(8),
            ..patience.retry_later
        };
        Self {
            patience: Patience {
                retry_later,
                ..patience
            },
            away_at_most: Duration::from_secs(5 * 60),
            own_gateway_for: Duration::from_secs(20),
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Try again after this pause.
    Again(Duration),
    /// Do not try again.
    Over(Advice),
}

/// The gateway that has, or may have, the client's seat.
#[derive(Debug)]
struct Home {
    gateway: GatewayId,
    /// Until when it is tried before any other, once the connection is lost.
    until: Option<Instant>,
}

/// The coming and coming back of one client.
#[derive(Debug)]
pub(super) struct Comeback {
    persistence: Persistence,
    target: Target,
    pauses: Pauses,
    home: Option<Home>,
    /// When the row of failures began.
    row_since: Option<Instant>,
    /// Since when gateways have refused new tokens and nothing else went wrong.
    refused_since: Option<Instant>,
    joined_at: Option<Instant>,
}

impl Comeback {
    pub(super) fn new(persistence: Persistence, target: Target) -> Self {
        Self {
            persistence,
            target,
            pauses: Pauses::new(persistence.patience),
            home: None,
            row_since: None,
            refused_since: None,
            joined_at: None,
        }
    }

    /// Where to try now.
    pub(super) fn target(&self, now: Instant) -> Target {
        match &self.home {
            Some(Home { gateway, until }) if until.is_none_or(|until| now < until) => {
                Target::Gateway(gateway.clone())
            }
            _ => self.target.clone(),
        }
    }

    /// The client is in.
    pub(super) fn joined(&mut self, gateway: GatewayId, now: Instant) {
        self.home = Some(Home {
            gateway,
            until: None,
        });
        self.refused_since = None;
        self.joined_at = Some(now);
    }

    /// The client was in, and is no more.
    pub(super) fn closed(&mut self, closed: &Closed, now: Instant, random: u32) -> Next {
        let joined_at = self.joined_at.take();
        if joined_at.is_some_and(|at| now.saturating_duration_since(at) >= SETTLED) {
            self.pauses.restart();
            self.row_since = None;
        }
        if let Some(home) = &mut self.home {
            home.until = Some(now + self.persistence.own_gateway_for);
        }
        self.after(closed.advice(), Some(closed), now, random)
    }

    /// The client did not get in.
    pub(super) fn failed(&mut self, failure: &JoinError, now: Instant, random: u32) -> Next {
        let (advice, closed) = match failure {
            // The sidecar says that this gateway is not there: then another one may do, and at once.
            JoinError::Ticket(CallError::Unavailable(_) | CallError::NotFound(_)) => {
                if self.leave_home(now) {
                    return self.within_limits(Advice::NewToken, Duration::ZERO, now);
                }
                (Advice::RetryLater, None)
            }
            // A failure inside the sidecar is as if it were away (docs/PROTOCOL.md, "Getting a ticket").
            JoinError::Ticket(CallError::Failed(_)) => (Advice::RetryLater, None),
            JoinError::Connect(ConnectError::Refused(closed)) => (closed.advice(), Some(closed)),
            other => (other.advice_in_between(), None),
        };
        self.after(advice, closed, now, random)
    }

    fn after(
        &mut self,
        advice: Advice,
        closed: Option<&Closed>,
        now: Instant,
        random: u32,
    ) -> Next {
        let code = closed.and_then(Closed::code);
        if matches!(code, Some(CloseCode::Drained | CloseCode::ServerFull)) {
            self.leave_home(now);
        }
        // Only a gateway that says so refuses: a lost connection is another matter.
        if advice == Advice::NewToken && code.is_some() {
            let since = *self.refused_since.get_or_insert(now);
            let patience = self.persistence.patience.total;
            if now.saturating_duration_since(since) >= patience {
                return Next::Over(Advice::GiveUp);
            }
        } else {
            self.refused_since = None;
        }
        let pause = if advice == Advice::NewToken && code.is_none() {
            self.pauses.after_loss(random)
        } else {
            match self.pauses.after(advice, random) {
                Some(pause) => pause,
                None => return Next::Over(advice),
            }
        };
        self.within_limits(advice, pause, now)
    }

    fn within_limits(&mut self, advice: Advice, pause: Duration, now: Instant) -> Next {
        let since = *self.row_since.get_or_insert(now);
        let away = (now + pause).saturating_duration_since(since);
        if away > self.persistence.away_at_most {
            // It may be that later is better; how much later is for the player to say.
            let later = matches!(advice, Advice::NewToken | Advice::RetryLater);
            return Next::Over(if later { Advice::RetryLater } else { advice });
        }
        Next::Again(pause)
    }

    /// Lets go of a lost seat's gateway. Says whether that makes a difference: whether it was to be tried, and the target has others.
    fn leave_home(&mut self, now: Instant) -> bool {
        let before = self.target(now);
        self.home = None;
        before != self.target
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualTime, Timestamp};

    const SECOND: Duration = Duration::from_secs(1);
    /// The random number that makes a pause exactly what is due.
    const EVEN: u32 = u32::MAX / 2;

    fn now() -> Instant {
        ManualTime::starting_at(Timestamp(0)).clock().now()
    }

    fn comeback(target: Target) -> Comeback {
        Comeback::new(Persistence::default(), target)
    }

    fn gateway(id: &str) -> GatewayId {
        id.parse().unwrap()
    }

    fn at(id: &str) -> Target {
        Target::Gateway(gateway(id))
    }

    fn code(code: CloseCode) -> Closed {
        Closed::Gateway {
            code,
            reason: bytes::Bytes::new(),
        }
    }

    fn refused(by: CloseCode) -> JoinError {
        ConnectError::Refused(code(by)).into()
    }

    fn unavailable() -> JoinError {
        CallError::Unavailable("gateway not attached".into()).into()
    }

    fn unreachable() -> JoinError {
        CallError::Unreachable("connection refused".into()).into()
    }

    /// In play for a while at gateway "eu", as a client of this target.
    fn in_play(target: Target, now: Instant) -> Comeback {
        let mut comeback = comeback(target);
        comeback.joined(gateway("eu"), now - 60 * SECOND);
        comeback
    }

    fn pause(next: Next) -> Duration {
        match next {
            Next::Again(pause) => pause,
            Next::Over(advice) => panic!("over: {advice:?}"),
        }
    }

    #[test]
    fn every_code_is_followed_as_it_advises() {
        let now = now();
        for known in CloseCode::ALL {
            let mut comeback = in_play(Target::Any, now);
            let next = comeback.closed(&code(*known), now, EVEN);
            match known.advice() {
                Advice::NewToken => assert_eq!(next, Next::Again(Duration::ZERO)),
                Advice::RetryLater => assert!(pause(next).abs_diff(SECOND) < SECOND / 1_000),
                final_advice => assert_eq!(next, Next::Over(final_advice)),
            }
        }
        let mut comeback = in_play(Target::Any, now);
        let unknown = comeback.closed(&Closed::Unknown(0xbeef), now, EVEN);
        assert_eq!(unknown, Next::Over(Advice::GiveUp));
    }

    #[test]
    fn a_lost_connection_is_made_again_soon_and_not_with_everybody() {
        let now = now();
        for lost in [Closed::Lost, Closed::Reset, Closed::StreamEnded] {
            let pauses = [0, EVEN, u32::MAX].map(|random| {
                let mut comeback = in_play(Target::Any, now);
                pause(comeback.closed(&lost, now, random))
            });
            assert_eq!(pauses[0], Duration::ZERO);
            assert!(pauses[1] > pauses[0] && pauses[2] > pauses[1]);
            assert_eq!(pauses[2], Duration::from_millis(250));
        }
    }

    #[test]
    fn the_seats_gateway_comes_first_for_as_long_as_the_seat_may_be_there() {
        let now = now();
        let mut comeback = in_play(Target::Any, now);
        comeback.closed(&Closed::Lost, now, EVEN);
        assert_eq!(comeback.target(now), at("eu"));
        // In a tunnel nothing is reached, which says nothing about the gateway.
        for second in 1..20 {
            let later = now + second * SECOND;
            comeback.failed(&unreachable(), later, 0);
            assert_eq!(comeback.target(later), at("eu"));
        }
        assert_eq!(comeback.target(now + 21 * SECOND), Target::Any);
    }

    #[test]
    fn a_gateway_that_is_away_is_left_at_once_if_the_target_allows() {
        let now = now();
        let mut comeback = in_play(Target::Any, now);
        comeback.closed(&Closed::Reset, now, EVEN);
        let next = comeback.failed(&unavailable(), now, EVEN);
        assert_eq!(next, Next::Again(Duration::ZERO));
        assert_eq!(comeback.target(now), Target::Any);
        // If there is no other either, it waits.
        assert!(pause(comeback.failed(&unavailable(), now, EVEN)) >= SECOND);

        let mut comeback = in_play(at("eu"), now);
        comeback.closed(&Closed::Reset, now, EVEN);
        assert!(pause(comeback.failed(&unavailable(), now, EVEN)) >= SECOND);
        assert_eq!(comeback.target(now), at("eu"));
    }

    #[test]
    fn a_gateway_that_drains_is_left() {
        let now = now();
        let mut comeback = in_play(Target::Any, now);
        pause(comeback.closed(&code(CloseCode::Drained), now, EVEN));
        assert_eq!(comeback.target(now), Target::Any);
        let mut comeback = in_play(Target::Any, now);
        comeback.closed(&Closed::Lost, now, EVEN);
        pause(comeback.failed(&refused(CloseCode::Drained), now, EVEN));
        assert_eq!(comeback.target(now), Target::Any);
    }

    #[test]
    fn new_tokens_may_be_refused_for_half_a_minute() {
        let start = now();
        let mut comeback = comeback(at("eu"));
        let mut now = start;
        let over = loop {
            match comeback.failed(&refused(CloseCode::TokenRejected), now, u32::MAX) {
                Next::Again(pause) => now += pause,
                Next::Over(advice) => break advice,
            }
        };
        assert_eq!(over, Advice::GiveUp);
        let tried_for = now - start;
        assert!(tried_for >= 30 * SECOND && tried_for < 40 * SECOND);
    }

    #[test]
    fn a_refusal_long_after_another_trouble_is_the_first() {
        let start = now();
        let mut comeback = comeback(at("eu"));
        comeback.failed(&refused(CloseCode::TokenRejected), start, EVEN);
        comeback.failed(&unreachable(), start + 20 * SECOND, EVEN);
        let later = start + 60 * SECOND;
        pause(comeback.failed(&refused(CloseCode::TokenRejected), later, EVEN));
    }

    #[test]
    fn who_is_away_for_too_long_gives_up_and_may_try_later() {
        let start = now();
        let mut comeback = in_play(at("eu"), start);
        let mut now = start + pause(comeback.closed(&Closed::Lost, start, EVEN));
        let mut longest = Duration::ZERO;
        let over = loop {
            match comeback.failed(&unreachable(), now, u32::MAX) {
                Next::Again(pause) => {
                    longest = longest.max(pause);
                    now += pause;
                }
                Next::Over(advice) => break advice,
            }
        };
        assert_eq!(over, Advice::RetryLater);
        assert_eq!(longest, 12 * SECOND);
        assert!(now - start > 280 * SECOND && now - start <= 300 * SECOND);
    }

    #[test]
    fn a_connection_that_lived_ends_the_row() {
        let start = now();
        let mut comeback = comeback(at("eu"));
        for _ in 0..5 {
            comeback.failed(&unavailable(), start, EVEN);
        }
        // One that is lost at once does not.
        comeback.joined(gateway("eu"), start);
        let now = start + SECOND;
        assert!(pause(comeback.closed(&Closed::Reset, now, EVEN)) > SECOND);
        comeback.joined(gateway("eu"), now);
        let now = now + SETTLED;
        assert!(pause(comeback.closed(&Closed::Reset, now, EVEN)) < SECOND);
    }

    #[test]
    fn a_session_that_is_over_ends_it() {
        let now = now();
        let over = CallError::Unauthenticated("revoked".into()).into();
        let next = comeback(Target::Any).failed(&over, now, EVEN);
        assert_eq!(next, Next::Over(Advice::LogIn));
        let superseded = in_play(Target::Any, now).closed(&code(CloseCode::Superseded), now, EVEN);
        assert_eq!(superseded, Next::Over(Advice::GiveUp));
    }
}
