//! Histories that are written by hand: good ones, and bad ones that the checker must reject.

use super::{
    check::{Lives, check},
    record::{Activity, Answer, Ask, History, Logged, Millis, Span, Why},
};

const LIVES: Lives = Lives {
    grace: 10_000,
    idle: 100_000,
    granule: 1_000,
    kept: 60_000,
};
const ENDS_AT: Millis = 500_000;

/// Writes a history, one call after the other.
#[derive(Default)]
struct Script(History);

impl Script {
    fn call(&mut self, ask: Ask, at: &[Millis], answer: Option<Answer>) -> &mut Self {
        let call = self.0.begin(ask);
        for at in at {
            self.0.present(call, Span { from: *at, to: *at });
        }
        if let Some(answer) = answer {
            self.0.answered(call, answer);
        }
        self
    }

    /// Account 1, player 1, session 1, at time 0.
    fn logged_in() -> Self {
        let mut script = Self::default();
        script.log_in(1, 1, 1, 0, 0);
        script
    }

    fn log_in(
        &mut self,
        account: u32,
        player: u128,
        session: u128,
        generation: u64,
        at: Millis,
    ) -> &mut Self {
        let answer = Answer::LoggedIn {
            session,
            player,
            player_generation: Some(generation),
            ends_at: ENDS_AT,
        };
        self.call(Ask::LogIn { account }, &[at], Some(answer))
    }

    fn refresh(&mut self, generation: u32, at: &[Millis], answer: Option<Answer>) -> &mut Self {
        let ask = Ask::Refresh {
            session: 1,
            generation,
        };
        self.call(ask, at, answer)
    }

    fn look(&mut self, at: Millis, answer: Answer) -> &mut Self {
        self.call(Ask::Look { session: 1 }, &[at], Some(answer))
    }

    fn revoke(&mut self, session: u128, at: Millis, revision: u64) -> &mut Self {
        let answer = Answer::Revoked {
            revision: Some(revision),
        };
        self.call(Ask::Revoke { session }, &[at], Some(answer))
    }

    fn revoke_player(&mut self, at: Millis, generation: u64, revision: u64) -> &mut Self {
        let answer = Answer::PlayerRevoked {
            generation: Some(generation),
            revision,
        };
        self.call(Ask::RevokePlayer { player: 1 }, &[at], Some(answer))
    }

    fn log(&mut self, events: &[Logged]) -> &mut Self {
        let events = events.to_vec();
        self.call(Ask::ReadLog, &[0], Some(Answer::Log { tail: 0, events }))
    }

    fn active(&mut self, at: Millis, is_settled: bool) -> &mut Self {
        self.0.activity.push(Activity {
            session: 1,
            at,
            is_settled,
        });
        self
    }

    fn verdict(&self) -> Option<&'static str> {
        check(&self.0, LIVES).err().map(|broken| broken.rule)
    }
}

fn renewed(generation: u32) -> Option<Answer> {
    renewed_at(generation, 7)
}

fn renewed_at(generation: u32, at: Millis) -> Option<Answer> {
    Some(Answer::Renewed {
        generation,
        claims: (at, "player".to_owned()),
    })
}

fn over(why: Why) -> Answer {
    Answer::Over(why)
}

fn live(generation: u32, player_generation: u64, head: u64) -> Answer {
    Answer::Live {
        generation: Some(generation),
        player_generation: Some(player_generation),
        head: Some(head),
    }
}

#[track_caller]
fn good(write: impl for<'a> FnOnce(&'a mut Script) -> &'a mut Script) {
    let mut script = Script::logged_in();
    write(&mut script);
    if let Err(broken) = check(&script.0, LIVES) {
        panic!("{broken}");
    }
}

#[track_caller]
fn bad(rule: &str, write: impl for<'a> FnOnce(&'a mut Script) -> &'a mut Script) {
    let mut script = Script::logged_in();
    write(&mut script);
    assert_eq!(script.verdict(), Some(rule), "{:#?}", script.0);
}

#[test]
fn a_session_ends_for_a_cause() {
    good(|s| s.look(50_000, live(0, 0, 0)));
    good(|s| s.revoke(1, 5, 1).look(6, over(Why::Revoked)));
    // Asked for, and perhaps done, though nobody was told.
    good(|s| {
        s.call(Ask::Revoke { session: 1 }, &[5], None)
            .look(6, over(Why::Revoked))
    });
    good(|s| s.look(100_000, over(Why::Idle)));
    good(|s| s.active(450_000, true).look(500_000, over(Why::Expired)));
    good(|s| s.look(560_000, over(Why::Unknown)));
    bad("login", |s| s.look(6, over(Why::Revoked)));
    bad("login", |s| s.look(6, over(Why::Unknown)));
    bad("login", |s| s.look(6, over(Why::Untold)));
    bad("login", |s| s.refresh(0, &[6], Some(over(Why::Untold))));
    // One that never arrived ends nothing, nor one of another session, nor one of the player before the login.
    bad("login", |s| {
        s.call(Ask::Revoke { session: 1 }, &[], None)
            .look(6, over(Why::Revoked))
    });
    bad("login", |s| s.revoke(2, 5, 1).look(6, over(Why::Revoked)));
    bad("login", |s| {
        s.revoke_player(5, 1, 1).log_in(1, 1, 2, 1, 6);
        s.call(Ask::Look { session: 2 }, &[7], Some(over(Why::Revoked)))
    });
    bad("end", |s| s.look(99_999, over(Why::Idle)));
    bad("end", |s| s.look(499_999, over(Why::Expired)));
    bad("login", |s| s.look(559_999, over(Why::Unknown)));
}

#[test]
fn an_account_is_one_player_and_a_login_one_session() {
    good(|s| s.log_in(1, 1, 2, 0, 5).log_in(2, 2, 3, 0, 5));
    bad("login", |s| s.log_in(1, 2, 2, 0, 5));
    bad("login", |s| s.log_in(1, 1, 1, 0, 5));
}

#[test]
fn activity_keeps_a_session_and_nothing_else_does() {
    good(|s| s.active(60_000, true).look(158_999, live(0, 0, 0)));
    good(|s| s.active(60_000, true).look(159_000, over(Why::Idle)));
    bad("end", |s| {
        s.active(60_000, true).look(158_999, over(Why::Idle))
    });
    // A crash may have taken what was not on the disk.
    good(|s| s.active(60_000, false).look(100_000, over(Why::Idle)));
    bad("end", |s| {
        s.active(60_000, false).look(99_999, over(Why::Idle))
    });
    bad("end", |s| s.look(100_000, live(0, 0, 0)));
    bad("end", |s| {
        s.active(60_000, true).look(160_000, live(0, 0, 0))
    });
    bad("end", |s| {
        s.active(450_000, true).look(500_000, live(0, 0, 0))
    });
    bad("end", |s| s.refresh(0, &[100_000], renewed(1)));
}

#[test]
fn a_lost_answer_can_be_asked_for_again() {
    good(|s| s.refresh(0, &[5], None).refresh(0, &[10_004], renewed(1)));
    // The same message twice, the second time too late.
    good(|s| s.refresh(0, &[5, 10_005], Some(over(Why::Reused))));
    good(|s| {
        s.refresh(0, &[5], None)
            .refresh(0, &[10_005], Some(over(Why::Reused)))
    });
    bad("reuse", |s| {
        s.refresh(0, &[5], None)
            .refresh(0, &[10_004], Some(over(Why::Reused)))
    });
    bad("reuse", |s| {
        s.refresh(0, &[], None)
            .refresh(0, &[50_000], Some(over(Why::Reused)))
    });
    bad("login", |s| {
        s.refresh(0, &[5], None)
            .refresh(0, &[10_004], Some(over(Why::Untold)))
    });
    // Its successor was used: then it is reuse at once.
    good(|s| {
        s.refresh(0, &[5], renewed(1)).refresh(1, &[6], renewed(2));
        s.refresh(0, &[7], Some(over(Why::Reused)));
        s.refresh(2, &[8], Some(over(Why::Revoked)));
        s.look(9, over(Why::Revoked))
    });
    bad("reuse", |s| {
        s.refresh(0, &[5], renewed(1));
        s.refresh(1, &[8], None);
        s.refresh(0, &[7], Some(over(Why::Reused)))
    });
}

#[test]
fn a_refresh_that_was_answered_stays() {
    good(|s| s.refresh(0, &[5], renewed(1)).look(6, live(1, 0, 0)));
    bad("refresh", |s| {
        s.refresh(0, &[5], renewed(1)).look(6, live(0, 0, 0))
    });
    bad("refresh", |s| {
        s.refresh(0, &[5], renewed(1))
            .refresh(1, &[6], Some(over(Why::Unknown)))
    });
    bad("refresh", |s| {
        s.refresh(0, &[5], renewed(1))
            .refresh(1, &[6], Some(over(Why::Untold)))
    });
    bad("refresh", |s| {
        s.refresh(0, &[5], renewed(1)).refresh(1, &[6], renewed(2));
        s.refresh(0, &[7], renewed(1))
    });
    bad("successor", |s| s.refresh(0, &[5], renewed(2)));
    bad("successor", |s| {
        s.refresh(0, &[5], renewed_at(1, 5));
        s.refresh(0, &[6], renewed_at(1, 6))
    });
}

#[test]
fn a_revocation_that_was_answered_stays() {
    for of_player in [false, true] {
        let revoke = |s: &mut Script| {
            if of_player {
                s.revoke_player(5, 1, 1);
            } else {
                s.revoke(1, 5, 1);
            }
        };
        bad("revocation", |s| {
            revoke(s);
            s.look(6, live(0, 0, 1))
        });
        bad("revocation", |s| {
            revoke(s);
            s.refresh(0, &[6], renewed(1))
        });
    }
    // Asked for once, and done twice.
    good(|s| {
        let twice = s.0.begin(Ask::RevokePlayer { player: 1 });
        s.0.present(twice, Span { from: 5, to: 5 });
        s.0.present(twice, Span { from: 7, to: 7 });
        let generation = Some(1);
        s.0.answered(
            twice,
            Answer::PlayerRevoked {
                generation,
                revision: 1,
            },
        );
        s.log_in(1, 1, 2, 1, 6);
        s.call(Ask::Look { session: 2 }, &[8], Some(over(Why::Revoked)))
    });
    // Looked at before, answered after.
    good(|s| {
        let look = s.0.begin(Ask::Look { session: 1 });
        s.0.present(look, Span { from: 4, to: 4 });
        s.revoke(1, 5, 1);
        s.0.answered(look, live(0, 0, 0));
        s
    });
    // Of the new generation.
    good(|s| {
        s.revoke_player(5, 1, 1).log_in(1, 1, 2, 1, 6);
        s.call(Ask::Look { session: 2 }, &[7], Some(live(0, 1, 1)))
    });
}

#[test]
fn generations_and_revisions_go_up() {
    bad("generation", |s| {
        s.revoke_player(5, 1, 1).revoke_player(6, 1, 2)
    });
    bad("generation", |s| {
        s.revoke_player(5, 1, 1).log_in(1, 1, 2, 0, 6)
    });
    bad("log", |s| s.revoke(2, 5, 1).revoke(3, 6, 1));
    bad("log", |s| s.revoke(2, 5, 2).revoke(3, 6, 1));
    bad("log", |s| s.revoke(2, 5, 2).look(6, live(0, 0, 1)));
}

#[test]
fn the_log_is_what_was_answered() {
    let (two, three) = (Logged::Session(2), Logged::Session(3));
    good(|s| {
        s.revoke(2, 5, 1)
            .log(&[two])
            .revoke(3, 6, 2)
            .log(&[two, three])
    });
    bad("log", |s| s.revoke(2, 5, 1).log(&[]));
    bad("log", |s| s.revoke(2, 5, 1).log(&[three]));
    bad("log", |s| s.log(&[two]).log(&[three, two]));
    bad("log", |s| s.log(&[two, three, two]));
}
