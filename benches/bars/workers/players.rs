//! A thousand players who each change their address twice while they play.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use tickgate::client::{
    HelloOptions,
    fleet::{Change, Fleet, FleetConfig, Member, News, Players},
};

use super::gateway::Stage;
use crate::rig::stopwatch;

const PLAYERS: usize = 1_000;
/// Come in this time, move once in each of two such times, and play on for another.
const PHASE: Duration = Duration::from_secs(2);
/// Between two inputs of one player.
const EVERY: Duration = Duration::from_millis(100);
/// Sockets of the fleet, at as many addresses.
const SOCKETS: u8 = 32;

/// What came of it.
#[derive(Default)]
pub(super) struct Told {
    pub(super) moves: u64,
    pub(super) answers: u64,
    /// Answers to somebody else.
    pub(super) strange: u64,
    /// Refused, or closed by whomever.
    pub(super) lost: u64,
    /// Why the first of them was.
    pub(super) why: Option<String>,
    /// Neither lost nor with an answer to anything that they sent after their last move.
    pub(super) silent: u64,
    /// The longest time from a move to the first answer to what was sent after it.
    pub(super) longest: Duration,
}

impl Told {
    fn lose(&mut self, after: Duration, was_in: bool, why: &dyn std::fmt::Debug) {
        self.lost += 1;
        self.why.get_or_insert_with(|| {
            let place = if was_in { "in play" } else { "at the door" };
            format!("{why:?} {place} after {:.1} s", after.as_secs_f64())
        });
    }
}

/// One player's course.
struct Course {
    member: Member,
    number: u32,
    is_in: bool,
    is_lost: bool,
    next_input: Instant,
    /// When it moves, last first.
    moves: Vec<Instant>,
    sent: u32,
    /// When it moved last, and the first of its inputs since, until that or a later one is answered.
    moved: Option<(Instant, u32)>,
}

pub(super) fn play(stage: &Stage) -> Told {
    let fleet = Fleet::new(FleetConfig {
        sources: (1..=SOCKETS)
            .map(|host| Ipv4Addr::new(127, 0, 77, host).into())
            .collect(),
        sockets: usize::from(SOCKETS),
        ..FleetConfig::default()
    });
    let mut players = Players::new(fleet.unwrap());
    let mut tickets = stage.tickets(PLAYERS).into_iter();
    let start = stopwatch::start();
    let at = |phase: u32, number: usize| {
        start + PHASE * phase + PHASE * u32::try_from(number).unwrap() / PLAYERS as u32
    };
    let mut told = Told::default();
    let mut courses: Vec<Course> = Vec::with_capacity(PLAYERS);
    let mut numbers = HashMap::new();
    let end = start + PHASE * 4;
    loop {
        let now = stopwatch::start();
        if now >= end {
            break;
        }
        while courses.len() < PLAYERS && at(0, courses.len()) <= now {
            let number = courses.len();
            let ticket = tickets.next().unwrap();
            let member = players.join(ticket, HelloOptions::default()).unwrap();
            numbers.insert(member, number);
            courses.push(Course {
                member,
                number: number as u32,
                is_in: false,
                is_lost: false,
                next_input: now,
                moves: vec![at(2, number), at(1, number)],
                sent: 0,
                moved: None,
            });
        }
        for course in &mut courses {
            course.act(now, &mut players, &mut told);
        }
        players.turn(now + Duration::from_millis(2)).unwrap();
        while let Some(event) = players.poll() {
            let course = &mut courses[numbers[&event.member]];
            match event.news {
                News::Joined(_) => course.is_in = true,
                News::Datagram(payload) => course.answered(event.at, &payload, &mut told),
                News::Message(_) => {}
                News::Refused(error) => {
                    course.is_lost = true;
                    told.lose(now - start, course.is_in, &error);
                }
                News::Closed(closed) => {
                    course.is_lost = true;
                    told.lose(now - start, course.is_in, &closed);
                }
                _ => {}
            }
        }
    }
    let silent = |course: &&Course| {
        !course.is_lost && (!course.is_in || course.moved.is_some() || !course.moves.is_empty())
    };
    told.silent = courses.iter().filter(silent).count() as u64;
    told
}

impl Course {
    fn act(&mut self, now: Instant, players: &mut Players, told: &mut Told) {
        if !self.is_in {
            return;
        }
        if self.moves.last().is_some_and(|at| *at <= now) {
            self.moves.pop();
            // Every other one knows of it and takes another connection id; for the others a router has changed its mind.
            let change = if self.number.is_multiple_of(2) {
                Change::Known
            } else {
                Change::Silent
            };
            let socket = (self.number as usize + 7 * (2 - self.moves.len())) % usize::from(SOCKETS);
            players
                .fleet_mut()
                .move_to(self.member, socket, change)
                .unwrap();
            told.moves += 1;
            self.moved = Some((now, self.sent));
        }
        if self.next_input <= now {
            self.next_input += EVERY;
            let mut payload = [0; 32];
            payload[..4].copy_from_slice(&self.number.to_be_bytes());
            payload[4..8].copy_from_slice(&self.sent.to_be_bytes());
            self.sent += 1;
            // It fails only for one that is lost, and that is told.
            let _ = players.send_datagram(self.member, &payload);
        }
    }

    fn answered(&mut self, at: Instant, payload: &[u8], told: &mut Told) {
        told.answers += 1;
        let word = |place: usize| u32::from_be_bytes(payload[place..place + 4].try_into().unwrap());
        if word(0) != self.number {
            told.strange += 1;
        } else if let Some((moved, _)) = self.moved.take_if(|(_, first)| word(4) >= *first) {
            told.longest = told.longest.max(at.saturating_duration_since(moved));
        }
    }
}
