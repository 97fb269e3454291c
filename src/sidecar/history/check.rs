//! Holds a history to what a sidecar promises, whatever crashed, was lost or came twice.
//!
//! | rule | |
//! |---|---|
//! | `login` | A session whose login was answered may be used until it may have ended. An account is one player, a session one login |
//! | `refresh` | So may a session whose refresh was answered, with the successor or a later one; its generation never falls |
//! | `successor` | A generation has one successor, and its tokens claim the same each time |
//! | `reuse` | A session ends for a token used before only if one was really presented, older than the grace allows |
//! | `revocation` | Once a revocation was answered, nobody finds the session usable any more |
//! | `end` | Nor past its absolute end, nor without activity for too long; and it ends for these no earlier |
//! | `generation` | A player's generation never falls |
//! | `log` | Revisions of answered revocations increase, name one event each, and the log has them, without a gap, and stays as it was |
//!
//! It knows the sidecar's rules for *when* a session may have ended and nothing of how they are carried out.

use std::{collections::BTreeMap, fmt};

use super::record::{Answer, Ask, Call, History, Logged, Millis, Span, Why};

/// What the sidecar was told of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lives {
    /// A parent may be presented again for so long after its successor was made.
    pub(crate) grace: Millis,
    /// A session ends without activity for so long.
    pub(crate) idle: Millis,
    /// So much of known activity a crash may undo.
    pub(crate) granule: Millis,
    /// A session is forgotten so long after its absolute end.
    pub(crate) kept: Millis,
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    /// Which rule.
    pub(crate) rule: &'static str,
    pub(crate) detail: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.detail)
    }
}

fn hold(rule: &'static str, holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds {
        return Ok(());
    }
    let detail = otherwise();
    Err(Broken { rule, detail })
}

/// Whether a player's generation ends a session that was made in another, if both are known.
fn ends(generation: Option<u64>, of_session: Option<u64>) -> Option<bool> {
    Some(of_session? < generation?)
}

/// A login that was answered.
struct Login {
    player: u128,
    player_generation: Option<u64>,
    answered: u64,
    /// When the session was made.
    made: Span,
    ends_at: Millis,
}

/// A history with what is asked of it again and again.
struct Reading<'a> {
    history: &'a History,
    lives: Lives,
    logins: BTreeMap<u128, Login>,
}

/// Whether the history keeps every rule.
///
/// # Errors
/// The first rule that it breaks.
pub(crate) fn check(history: &History, lives: Lives) -> Result<(), Broken> {
    let reading = Reading {
        history,
        lives,
        logins: logins(history)?,
    };
    for call in &history.calls {
        match &call.ask {
            Ask::Refresh {
                session,
                generation,
            } => reading.refresh(call, *session, *generation)?,
            Ask::Look { session } => reading.look(call, *session)?,
            Ask::LogIn { .. } | Ask::Revoke { .. } | Ask::RevokePlayer { .. } | Ask::ReadLog => {}
        }
    }
    reading.successors()?;
    reading.player_generations()?;
    reading.log()
}

/// The logins that were answered, by session.
fn logins(history: &History) -> Result<BTreeMap<u128, Login>, Broken> {
    let mut logins = BTreeMap::new();
    let mut players = BTreeMap::new();
    for call in &history.calls {
        let (Ask::LogIn { account }, Some((answered, answer))) = (&call.ask, &call.answer) else {
            continue;
        };
        let Answer::LoggedIn {
            session,
            player,
            player_generation,
            ends_at,
        } = answer
        else {
            continue;
        };
        let known = *players.entry(account).or_insert(player);
        hold("login", known == player, || {
            format!("account {account} is player {known:x} and {player:x}")
        })?;
        let login = Login {
            player: *player,
            player_generation: *player_generation,
            answered: *answered,
            made: Span {
                from: call
                    .presented
                    .iter()
                    .map(|span| span.from)
                    .min()
                    .unwrap_or(0),
                to: call
                    .presented
                    .iter()
                    .map(|span| span.to)
                    .max()
                    .unwrap_or(Millis::MAX),
            },
            ends_at: *ends_at,
        };
        let before = logins.insert(*session, login);
        hold("login", before.is_none(), || {
            format!("two logins are session {session:x}")
        })?;
    }
    Ok(logins)
}

impl Reading<'_> {
    /// Calls of a kind about a session or its player.
    fn calls<'a, T>(
        &'a self,
        wanted: impl Fn(&'a Ask) -> Option<T> + 'a,
    ) -> impl Iterator<Item = (&'a Call, T)> + 'a {
        let calls = self.history.calls.iter();
        calls.filter_map(move |call| wanted(&call.ask).map(|of| (call, of)))
    }

    /// Revocations that end the session.
    fn revocations<'a>(&'a self, session: u128) -> impl Iterator<Item = &'a Call> + 'a {
        let player = self.logins.get(&session).map(|login| login.player);
        let calls = self.calls(move |ask| match ask {
            Ask::Revoke { session: of } => (*of == session).then_some(()),
            Ask::RevokePlayer { player: of } => (Some(*of) == player).then_some(()),
            _ => None,
        });
        calls.map(|(call, ())| call)
    }

    /// Each time that a refresh token of the session was presented, and of which generation.
    fn presented<'a>(&'a self, session: u128) -> impl Iterator<Item = (u32, Span)> + 'a {
        self.calls(move |ask| match ask {
            Ask::Refresh {
                session: of,
                generation,
            } if *of == session => Some(*generation),
            _ => None,
        })
        .flat_map(|(call, generation)| call.presented.iter().map(move |span| (generation, *span)))
    }

    /// Whether a token of this generation, presented in this time, may have been used before, and too long ago for a lost answer: its
    /// successor was presented too, or it was itself, longer ago than the grace.
    fn may_be_reuse(&self, session: u128, generation: u32, at: Span) -> bool {
        self.presented(session).any(|(other, earlier)| {
            let is_grandparent = other == generation + 1 && earlier.from <= at.to;
            let is_late = other == generation && earlier.from + self.lives.grace <= at.to;
            is_grandparent || is_late
        })
    }

    /// Whether the session may have been revoked by this time.
    fn may_be_revoked(&self, session: u128, login: &Login, by: Millis) -> bool {
        let of_player = |call: &&Call| match &call.answer {
            // One that was made after it is of its generation; unless it came twice, and raised it once more.
            Some((_, Answer::PlayerRevoked { generation, .. })) if call.presented.len() == 1 => {
                ends(*generation, login.player_generation).unwrap_or(true)
            }
            _ => true,
        };
        let asked = self.revocations(session).filter(of_player);
        let asked = asked.flat_map(|call| &call.presented);
        { asked }.any(|span| span.from <= by && span.to >= login.made.from)
            || self.presented(session).any(|(generation, span)| {
                let span = Span {
                    from: span.from,
                    to: span.to.min(by),
                };
                span.from <= by && self.may_be_reuse(session, generation, span)
            })
    }

    /// The least that the sidecar has to know of the session's last activity.
    fn active_at_least(&self, session: u128, login: &Login, by: Millis) -> Millis {
        let reported = self.history.activity.iter();
        let reported = reported
            .filter(|one| one.session == session && one.is_settled && one.at <= by)
            .map(|one| one.at.saturating_sub(self.lives.granule));
        reported.fold(login.made.from, Millis::max)
    }

    fn active_at_most(&self, session: u128, login: &Login, by: Millis) -> Millis {
        let reported = self.history.activity.iter();
        let reported = reported.filter(|one| one.session == session && one.at <= by);
        reported.map(|one| one.at).fold(login.made.to, Millis::max)
    }

    /// Whether what the sidecar says of the end of a session may be so, on one of the occasions on which it may have said it.
    fn may_be_over(&self, session: u128, login: &Login, why: Why, said: &[Span]) -> bool {
        said.iter().any(|at| match why {
            Why::Reused => false,
            Why::Revoked => self.may_be_revoked(session, login, at.to),
            Why::Expired => login.ends_at <= at.to,
            Why::Idle => self.active_at_least(session, login, at.from) + self.lives.idle <= at.to,
            Why::Unknown => login.ends_at + self.lives.kept <= at.to,
            Why::Untold => [Why::Revoked, Why::Expired, Why::Idle]
                .iter()
                .any(|why| self.may_be_over(session, login, *why, &[*at])),
        })
    }

    /// Whether it may still be used, as was said at `order` and not before the call `began`.
    fn is_usable(&self, session: u128, call: &Call) -> Result<(), Broken> {
        let Some(login) = self.logins.get(&session) else {
            return Ok(());
        };
        for revocation in self.revocations(session) {
            let Some((answered, answer)) = &revocation.answer else {
                continue;
            };
            let is_ended = match answer {
                Answer::Revoked { .. } => true,
                // A session that was made after it, or at the same time, may be of the new generation.
                Answer::PlayerRevoked { generation, .. } => {
                    ends(*generation, login.player_generation)
                        .unwrap_or(login.answered < revocation.began)
                }
                _ => false,
            };
            hold("revocation", !is_ended || call.began < *answered, || {
                format!("{session:x} was revoked by {revocation:?}, and then {call:?}")
            })?;
        }
        let at = |span: &Span| span.from < login.ends_at;
        hold("end", call.presented.iter().any(at), || {
            format!("{session:x} ends at {}, and then {call:?}", login.ends_at)
        })?;
        let at = |span: &Span| {
            span.from < self.active_at_most(session, login, span.to) + self.lives.idle
        };
        hold("end", call.presented.iter().any(at), || {
            format!("{session:x} is idle, and then {call:?}")
        })
    }

    /// The newest generation that was answered before this call began.
    fn acknowledged(&self, session: u128, before: u64) -> u32 {
        let refreshes = self.calls(move |ask| match ask {
            Ask::Refresh { session: of, .. } => (*of == session).then_some(()),
            _ => None,
        });
        let answered = refreshes.filter_map(|(call, ())| match &call.answer {
            Some((at, Answer::Renewed { generation, .. })) if *at < before => Some(*generation),
            _ => None,
        });
        answered.max().unwrap_or(0)
    }

    fn refresh(&self, call: &Call, session: u128, presented: u32) -> Result<(), Broken> {
        let Some((_, answer)) = &call.answer else {
            return Ok(());
        };
        match answer {
            Answer::Renewed { generation, .. } => {
                hold("successor", *generation == presented + 1, || {
                    format!("{session:x} was given {generation} for {presented}")
                })?;
                let known = self.acknowledged(session, call.began);
                hold("refresh", *generation >= known, || {
                    format!("{session:x} was at {known}, and then {call:?}")
                })?;
                self.is_usable(session, call)
            }
            Answer::Over(why) => {
                let Some(login) = self.logins.get(&session) else {
                    return Ok(());
                };
                let mut said = call.presented.iter();
                let is_reuse = said.any(|at| self.may_be_reuse(session, presented, *at));
                if *why == Why::Reused {
                    return hold("reuse", is_reuse, || {
                        format!("{session:x} was ended for a token that nobody had used: {call:?}")
                    });
                }
                let may_be = (*why == Why::Untold && is_reuse)
                    || self.may_be_over(session, login, *why, &call.presented);
                let rule = match why {
                    Why::Expired | Why::Idle => "end",
                    _ if presented == 0 => "login",
                    _ => "refresh",
                };
                hold(rule, may_be, || {
                    format!("{session:x} is over without a cause: {call:?}")
                })
            }
            _ => Ok(()),
        }
    }

    fn look(&self, call: &Call, session: u128) -> Result<(), Broken> {
        let (Some((_, answer)), Some(login)) = (&call.answer, self.logins.get(&session)) else {
            return Ok(());
        };
        match answer {
            Answer::Live { generation, .. } => {
                let known = self.acknowledged(session, call.began);
                hold("refresh", generation.is_none_or(|g| g >= known), || {
                    format!("{session:x} was at {known}, and then {call:?}")
                })?;
                self.is_usable(session, call)
            }
            Answer::Over(why) => {
                let rule = match why {
                    Why::Expired | Why::Idle => "end",
                    _ => "login",
                };
                let may_be = self.may_be_over(session, login, *why, &call.presented);
                hold(rule, may_be, || {
                    format!("{session:x} is over without a cause: {call:?}")
                })
            }
            _ => Ok(()),
        }
    }

    /// One successor to each generation.
    fn successors(&self) -> Result<(), Broken> {
        let mut known = BTreeMap::new();
        for call in &self.history.calls {
            if let (Ask::Refresh { session, .. }, Some((_, answer))) = (&call.ask, &call.answer)
                && let Answer::Renewed { generation, claims } = answer
            {
                let first = *known.entry((*session, *generation)).or_insert(claims);
                hold("successor", first == claims, || {
                    format!("generation {generation} of {session:x} is {first:?} and {claims:?}")
                })?;
            }
        }
        Ok(())
    }

    /// What an answer says of a player's generation.
    fn player_generation(&self, call: &Call) -> Option<(u128, u64, u64)> {
        let (at, answer) = call.answer.as_ref()?;
        let (player, generation) = match (&call.ask, answer) {
            (
                Ask::LogIn { .. },
                Answer::LoggedIn {
                    player,
                    player_generation,
                    ..
                },
            ) => (*player, (*player_generation)?),
            (
                Ask::Look { session },
                Answer::Live {
                    player_generation, ..
                },
            ) => (self.logins.get(session)?.player, (*player_generation)?),
            (Ask::RevokePlayer { player }, Answer::PlayerRevoked { generation, .. }) => {
                (*player, (*generation)?)
            }
            _ => return None,
        };
        Some((player, generation, *at))
    }

    fn player_generations(&self) -> Result<(), Broken> {
        let told: Vec<_> = self.history.calls.iter().collect();
        for earlier in &told {
            let Some((player, before, at)) = self.player_generation(earlier) else {
                continue;
            };
            for later in told.iter().filter(|later| later.began > at) {
                if let Some((of, after, _)) = self.player_generation(later) {
                    let raises = matches!(later.ask, Ask::RevokePlayer { .. });
                    let holds = of != player || before + u64::from(raises) <= after;
                    hold("generation", holds, || {
                        format!(
                            "player {player:x} was at {before} by {earlier:?}, and then {later:?}"
                        )
                    })?;
                }
            }
        }
        Ok(())
    }

    /// What a call was told of the log: a revision that it has, with its event if that is known; and whether the call made it.
    fn revision(call: &Call) -> Option<(u64, u64, Option<Logged>)> {
        let (at, answer) = call.answer.as_ref()?;
        match (&call.ask, answer) {
            (
                Ask::Revoke { session },
                Answer::Revoked {
                    revision: Some(revision),
                },
            ) => Some((*at, *revision, Some(Logged::Session(*session)))),
            (
                Ask::RevokePlayer { player },
                Answer::PlayerRevoked {
                    generation,
                    revision,
                },
            ) => Some((*at, *revision, Some(Logged::Player(*player, *generation)))),
            (_, Answer::Live { head, .. }) => Some((*at, (*head)?, None)),
            (_, Answer::Log { tail, events }) => Some((*at, tail + events.len() as u64, None)),
            _ => None,
        }
    }

    fn log(&self) -> Result<(), Broken> {
        let calls = &self.history.calls;
        let mut events = BTreeMap::new();
        for call in calls {
            if let Some((_, revision, Some(event))) = Self::revision(call) {
                let known = *events.entry(revision).or_insert(event);
                hold("log", known == event, || {
                    format!("revision {revision} is {known:?} and {event:?}")
                })?;
            }
        }
        for earlier in calls {
            let Some((at, before, _)) = Self::revision(earlier) else {
                continue;
            };
            for later in calls.iter().filter(|later| later.began > at) {
                if let Some((_, after, event)) = Self::revision(later) {
                    let appends = event.is_some_and(|event| events.get(&before) != Some(&event));
                    hold("log", before + u64::from(appends) <= after, || {
                        format!("the log was at {before} by {earlier:?}, and then {later:?}")
                    })?;
                }
            }
        }
        for call in calls {
            if let Some((_, Answer::Log { tail, events: read })) = &call.answer {
                for (revision, event) in (tail + 1..).zip(read) {
                    let known = *events.entry(revision).or_insert(*event);
                    hold("log", known == *event, || {
                        format!("revision {revision} is {known:?} and {event:?} in the log")
                    })?;
                }
                let mut ended: Vec<_> = read
                    .iter()
                    .filter(|e| matches!(e, Logged::Session(_)))
                    .collect();
                let all = ended.len();
                ended.sort_unstable_by_key(|event| match event {
                    Logged::Session(id) | Logged::Player(id, _) => *id,
                });
                ended.dedup();
                hold("log", ended.len() == all, || {
                    format!("a session has two events in {read:?}")
                })?;
            }
        }
        Ok(())
    }
}
