//! Who calls: players with their sessions, thieves of their tokens, and operators.

use rand::{Rng, seq::IndexedRandom};

use super::{
    record::{Answer, Ask, Millis, Why},
    server::{Request, Served, Tokens},
};

/// A retry comes no later than this after the first try: an answer that was lost can be had for 10 s.
const PATIENCE: Millis = 8_000;

/// Sessions that one client uses at once.
const MOST_HELD: usize = 4;

/// A session that a client uses.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) session: u128,
    pub(super) player: u128,
    /// By generation; those that were never seen are none.
    tokens: Vec<Option<Tokens>>,
    /// When the newest token was first presented.
    tried_at: Option<Millis>,
}

impl Held {
    fn newest(&self) -> (u32, &Tokens) {
        let newest = self.tokens.iter().enumerate().rev();
        let mut known = newest.filter_map(|(index, tokens)| Some((index, tokens.as_ref()?)));
        let (index, tokens) = known.next().unwrap();
        (index as u32, tokens)
    }
}

/// What a client does next.
pub(super) enum Deed {
    Call(Ask, Request),
    /// The player plays: a gateway reports it.
    Play(u128),
}

/// Somebody with an account.
#[derive(Debug)]
pub(super) struct Client {
    account: u32,
    held: Vec<Held>,
}

impl Client {
    pub(super) fn new(account: u32) -> Self {
        Self {
            account,
            held: Vec::new(),
        }
    }

    pub(super) fn act(&mut self, now: Millis, rng: &mut impl Rng) -> Deed {
        let may_log_in = self.held.len() < MOST_HELD;
        if self.held.is_empty() || (may_log_in && rng.random_bool(0.1)) {
            let account = self.account;
            return Deed::Call(Ask::LogIn { account }, Request::LogIn { account });
        }
        let index = rng.random_range(0..self.held.len());
        let held = &mut self.held[index];
        let (session, player) = (held.session, held.player);
        match rng.random_range(0..100) {
            0..40 => refresh(held, now),
            40..52 => {
                let token = held.newest().1.session.clone();
                Deed::Call(Ask::Look { session }, Request::WhoAmI { token })
            }
            52..64 => Deed::Call(Ask::Look { session }, Request::Look { session }),
            64..67 => {
                let token = held.newest().1.refresh.clone();
                Deed::Call(Ask::Revoke { session }, Request::LogOut { token })
            }
            67..69 => Deed::Call(Ask::Revoke { session }, Request::Revoke { session }),
            69..70 => Deed::Call(
                Ask::RevokePlayer { player },
                Request::RevokePlayer { player },
            ),
            // A thief, or a client that has lost its newest token.
            70..74 => {
                let known = held.tokens.iter().enumerate();
                let known: Vec<_> = known.filter_map(|(g, t)| Some((g, t.as_ref()?))).collect();
                let (generation, tokens) = known.choose(rng).unwrap();
                let ask = Ask::Refresh {
                    session,
                    generation: *generation as u32,
                };
                let token = tokens.refresh.clone();
                Deed::Call(ask, Request::Refresh { token })
            }
            _ => Deed::Play(session),
        }
    }

    /// The same refresh again, if its answer has not arrived and it makes sense still.
    pub(super) fn retry(&mut self, ask: &Ask, now: Millis) -> Option<Deed> {
        let Ask::Refresh {
            session,
            generation,
        } = ask
        else {
            return None;
        };
        let held = self.held.iter_mut().find(|held| held.session == *session)?;
        let is_newest = held.newest().0 == *generation;
        let in_time = held.tried_at.is_some_and(|at| now < at + PATIENCE);
        (is_newest && in_time).then(|| refresh(held, now))
    }

    /// An answer has arrived.
    pub(super) fn hear(&mut self, ask: &Ask, served: Served, rng: &mut impl Rng) {
        let Served { answer, tokens, .. } = served;
        match (ask, answer, tokens) {
            (
                _,
                Answer::LoggedIn {
                    session, player, ..
                },
                Some(tokens),
            ) => self.held.push(Held {
                session,
                player,
                tokens: vec![Some(tokens)],
                tried_at: None,
            }),
            (Ask::Refresh { session, .. }, Answer::Renewed { generation, .. }, Some(tokens)) => {
                if let Some(held) = self.held.iter_mut().find(|held| held.session == *session) {
                    let place = generation as usize;
                    if held.tokens.len() <= place {
                        held.tokens.resize(place + 1, None);
                        held.tried_at = None;
                    }
                    held.tokens[place] = Some(tokens);
                }
            }
            // It is over. Some do not take that for an answer.
            (
                Ask::Refresh { session, .. } | Ask::Look { session } | Ask::Revoke { session },
                Answer::Over(Why::Reused | Why::Revoked | Why::Expired | Why::Idle | Why::Unknown)
                | Answer::Revoked { .. },
                _,
            ) if rng.random_bool(0.4) => self.held.retain(|held| held.session != *session),
            _ => {}
        }
    }
}

fn refresh(held: &mut Held, now: Millis) -> Deed {
    held.tried_at.get_or_insert(now);
    let (generation, tokens) = held.newest();
    let ask = Ask::Refresh {
        session: held.session,
        generation,
    };
    let token = tokens.refresh.clone();
    Deed::Call(ask, Request::Refresh { token })
}
