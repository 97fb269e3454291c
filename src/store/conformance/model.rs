//! A store against the memory store: whatever is done to both, and however often the one is closed and opened again, they say the same.

mod logins;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
};

use futures_util::future::BoxFuture;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{
    id::{GatewayId, Incarnation},
    store::{Logins, RefreshClaim, Refreshed, memory::MemoryStore},
};

/// Opens the store, over what it kept when it was open before.
pub(in crate::store) type Open = Box<dyn Fn() -> BoxFuture<'static, Arc<dyn Store>> + Send + Sync>;

/// Both stores. They draw ids of their own: what the subject says is translated into the model's.
struct Pair {
    model: MemoryStore,
    subject: Arc<dyn Store>,
    open: Open,
    sessions: Vec<[SessionId; 2]>,
    to_model: HashMap<SessionId, SessionId>,
    /// The model's by the subject's, and in the order in which they were made.
    players: HashMap<PlayerId, PlayerId>,
    made: Vec<[PlayerId; 2]>,
    now: Timestamp,
    rng: ChaCha8Rng,
    /// Outcomes by name.
    reached: BTreeMap<String, usize>,
}

impl Pair {
    async fn new(open: Open, seed: u64) -> Self {
        Self {
            model: MemoryStore::new(LIVES),
            subject: open().await,
            open,
            sessions: Vec::new(),
            to_model: HashMap::new(),
            players: HashMap::new(),
            made: Vec::new(),
            now: START,
            rng: ChaCha8Rng::seed_from_u64(seed),
            reached: BTreeMap::new(),
        }
    }

    fn reach(&mut self, call: &str, outcome: impl Debug) {
        let outcome = format!("{outcome:?}");
        let name: String = outcome.chars().take_while(|c| c.is_alphabetic()).collect();
        *self.reached.entry(format!("{call} {name}")).or_default() += 1;
    }

    fn any_player(&mut self) -> Option<[PlayerId; 2]> {
        self.made.choose(&mut self.rng).copied()
    }

    /// Players that both have made.
    fn made_both(&mut self, model: PlayerId, subject: PlayerId) {
        if self.players.insert(subject, model).is_none() {
            self.made.push([model, subject]);
        }
    }

    fn any_session(&mut self) -> Option<[SessionId; 2]> {
        // Mostly one of the last: the first ones are over some time.
        let recent = self.sessions.len().saturating_sub(6);
        let from = if self.rng.random_bool(0.8) { recent } else { 0 };
        self.sessions[from..].choose(&mut self.rng).copied()
    }

    fn any_gateway(&mut self) -> GatewayId {
        let n = self.rng.random_range(0..20);
        format!("gateway-{n}").parse().unwrap()
    }

    /// In the model's words. The exact activity of a session that is over is nobody's concern, and the file may not have it.
    fn translated(&self, mut found: Found) -> Found {
        found.session.id = self.to_model[&found.session.id];
        found.player.id = self.players[&found.player.id];
        self.without_idle_time(found)
    }

    fn without_idle_time(&self, mut found: Found) -> Found {
        if found.standing(self.now, LIVES.idle) != Standing::Live {
            found.session.active_at = Timestamp(0);
        }
        found
    }

    async fn log_in(&mut self) {
        let subject = ["ada", "bob", "eve"].choose(&mut self.rng).unwrap();
        let mut new = account(subject);
        new.at = self.now;
        let life = *[LIVES.longest, LIVES.idle / 2]
            .choose(&mut self.rng)
            .unwrap();
        new.ends_at = self.now.after(life);
        let model = self.model.start_session(new.clone()).await.unwrap();
        let subject = self.subject.start_session(new).await.unwrap();
        assert_eq!(model.is_new_player, subject.is_new_player);
        let ids = [model.found.session.id, subject.found.session.id];
        self.sessions.push(ids);
        self.to_model.insert(ids[1], ids[0]);
        self.made_both(model.found.player.id, subject.found.player.id);
        assert_eq!(self.translated(subject.found), model.found);
    }

    async fn refresh(&mut self) {
        let Some([model, subject]) = self.any_session() else {
            return;
        };
        let known = self.model.session(model).await.unwrap();
        let (generation, player_generation) = known.map_or((0, Default::default()), |found| {
            let Found { session, .. } = found;
            (session.generation, session.player_generation)
        });
        let generation = match self.rng.random_range(0..10) {
            0..5 => generation,
            5..9 => generation.saturating_sub(1),
            _ => self.rng.random_range(0..generation + 2),
        };
        let claim = |session| RefreshClaim {
            session,
            generation,
            player_generation,
        };
        let model = self.model.refresh(claim(model), self.now).await.unwrap();
        let subject = self.subject.refresh(claim(subject), self.now);
        let mut subject = subject.await.unwrap();
        if let Refreshed::Rotated(successor) | Refreshed::Again(successor) = &mut subject {
            successor.found = self.translated(successor.found.clone());
        }
        assert_eq!(subject, model);
        let outcome = match model {
            Refreshed::Rotated(_) => "Rotated",
            Refreshed::Again(_) => "Again",
            Refreshed::Reused(_) => "Reused",
            Refreshed::Ended(None) => "Unknown",
            Refreshed::Ended(Some(EndedBy::Revocation)) => "Revoked",
            Refreshed::Ended(Some(EndedBy::AbsoluteEnd)) => "Over",
            Refreshed::Ended(Some(EndedBy::Idleness)) => "Idle",
        };
        self.reach("refresh", format_args!("{outcome}"));
    }

    async fn change_role(&mut self) {
        let Some([model, subject]) = self.any_player() else {
            return;
        };
        let role = ["player", "moderator"].choose(&mut self.rng).unwrap();
        let before = self.model.set_role(model, (*role).to_owned()).await;
        let changed = self.subject.set_role(subject, (*role).to_owned()).await;
        assert_eq!(changed.unwrap(), before.unwrap());
    }

    /// Whether a session of the player is so close to idleness that a store which many share may count it already: activity is
    /// written by granules, and what another sidecar has not written yet nobody else knows.
    async fn is_nearly_idle(&self, player: PlayerId) -> bool {
        let known = self.model.sessions(Some(player), None, usize::MAX).await;
        let nearly = self.now.after(LIVES.granule());
        self.subject.is_shared()
            && known.unwrap().iter().any(|found| {
                found.standing(self.now, LIVES.idle) == Standing::Live
                    && found.standing(nearly, LIVES.idle) != Standing::Live
            })
    }

    async fn revoke(&mut self) {
        let Some([model, subject]) = self.any_session() else {
            return;
        };
        if self.rng.random_bool(0.7) {
            let model = self.model.revoke_session(model, self.now).await.unwrap();
            let subject = self.subject.revoke_session(subject, self.now).await;
            assert_eq!(subject.unwrap(), model);
        } else if let Some(found) = self.subject.session(subject).await.unwrap() {
            let (subject, model) = (found.player.id, self.players[&found.player.id]);
            let is_unclear = self.is_nearly_idle(model).await;
            let model = self.model.revoke_player(model, self.now).await.unwrap();
            let subject = self.subject.revoke_player(subject, self.now).await;
            let without_count = |mut outcome| {
                if let PlayerRevocation::Ended { sessions, .. } = &mut outcome
                    && is_unclear
                {
                    *sessions = 0;
                }
                outcome
            };
            assert_eq!(without_count(subject.unwrap()), without_count(model));
        }
    }

    async fn grant(&mut self) {
        let gateway = self.any_gateway();
        if let Some([model, subject]) = self.any_session() {
            self.model.grant(model, gateway.clone()).await.unwrap();
            self.subject.grant(subject, gateway).await.unwrap();
        }
    }

    async fn attach(&mut self) {
        let gateway: GatewayId = ["one", "two"]
            .choose(&mut self.rng)
            .unwrap()
            .parse()
            .unwrap();
        let process = Incarnation(self.rng.random_range(0..8));
        let model = self.model.attach_gateway(gateway.clone(), process).await;
        let subject = self.subject.attach_gateway(gateway, process).await;
        assert_eq!(subject.unwrap(), model.unwrap());
    }

    fn play(&mut self) {
        if let Some([model, subject]) = self.any_session() {
            self.model.note_activity(&[model], self.now);
            self.subject.note_activity(&[subject], self.now);
        }
    }

    async fn purge(&mut self) {
        let model = self.model.purge(self.now).await.unwrap();
        assert_eq!(self.subject.purge(self.now).await.unwrap(), model);
    }

    async fn reopen(&mut self) {
        self.subject.close().await.unwrap();
        self.subject = (self.open)().await;
    }

    /// Both know the same sessions, log and grants.
    async fn compare(&mut self) {
        let player = self.any_player();
        let before = self.any_session();
        let limit = self.rng.random_range(1..50);
        for (player, before) in [
            (None, None),
            (player, None),
            (player, before),
            (None, before),
        ] {
            let listed = |of: usize| (player.map(|p| p[of]), before.map(|b| b[of]));
            let (of, until) = listed(0);
            let model = self.model.sessions(of, until, limit).await.unwrap();
            let model: Vec<_> = model
                .into_iter()
                .map(|found| self.without_idle_time(found))
                .collect();
            let (of, until) = listed(1);
            let subject = self.subject.sessions(of, until, limit).await.unwrap();
            let subject: Vec<_> = subject
                .into_iter()
                .map(|found| self.translated(found))
                .collect();
            assert_eq!(subject, model);
        }
        let state = self.model.log_state().await.unwrap();
        let own = self.subject.log_state().await.unwrap();
        assert_eq!((own.tail, own.head), (state.tail, state.head));
        let model = self.model.log_after(state.tail, usize::MAX).await.unwrap();
        let range = self.subject.log_after(state.tail, usize::MAX).await;
        let mut range = range.unwrap().unwrap();
        for event in &mut range.events {
            *event = match *event {
                Revocation::Session(id) => Revocation::Session(self.to_model[&id]),
                Revocation::Player(id, generation) => {
                    Revocation::Player(self.players[&id], generation)
                }
            };
        }
        assert_eq!(Some(range), model);

        let all = |of: usize| self.sessions.iter().map(|ids| ids[of]).collect::<Vec<_>>();
        let translate = |ids: Vec<SessionId>| -> Vec<_> {
            ids.into_iter().map(|id| self.to_model[&id]).collect()
        };
        let dead = self.subject.dead_among(all(1), self.now).await.unwrap();
        let model = self.model.dead_among(all(0), self.now).await.unwrap();
        assert_eq!(translate(dead), model);
        let gateway: GatewayId = "gateway-3".parse().unwrap();
        let model = self.model.granted_among(gateway.clone(), all(0)).await;
        let granted = self.subject.granted_among(gateway.clone(), all(1)).await;
        assert_eq!(translate(granted.unwrap()), model.unwrap());
        let ids = |active: Vec<(SessionId, Timestamp)>| active.into_iter().map(|(id, _)| id);
        let model = self.model.active_elsewhere(gateway.clone(), all(0)).await;
        let active = self.subject.active_elsewhere(gateway, all(1)).await;
        let active = translate(ids(active.unwrap()).collect());
        assert_eq!(active, ids(model.unwrap()).collect::<Vec<_>>());
    }

    async fn step(&mut self) {
        // Never none: ids are ordered by the time of login, and both stores shall list them alike.
        let pause = match self.rng.random_range(0..20) {
            0..10 => 1,
            10..16 => self.rng.random_range(1..4_000),
            16..19 => self.rng.random_range(1..300_000),
            _ => self.rng.random_range(1..3_000_000),
        };
        self.now = self.now.after(Duration::from_millis(pause));
        match self.rng.random_range(0..150) {
            0..15 => self.log_in().await,
            15..50 => self.refresh().await,
            50..55 => self.change_role().await,
            55..63 => self.revoke().await,
            63..75 => self.grant().await,
            75..80 => self.attach().await,
            80..93 => self.play(),
            93..96 => self.purge().await,
            96..100 => self.reopen().await,
            _ => self.step_of_logins().await,
        }
        self.compare().await;
    }
}

/// So many runs of so many steps each, the stores of which `open` opens, by seed.
pub(in crate::store) async fn says_what_the_model_says(
    seeds: u64,
    steps: usize,
    open: impl Fn(u64) -> Open,
) {
    let mut reached = BTreeMap::<_, usize>::new();
    for seed in 0..seeds {
        let mut pair = Pair::new(open(seed), seed).await;
        for step in 0..steps {
            // Shown if it fails: which seed, and how far it came.
            println!("seed {seed}, step {step}");
            pair.step().await;
        }
        for (outcome, n) in pair.reached {
            *reached.entry(outcome).or_default() += n;
        }
    }
    println!("{reached:?}");
    assert_eq!(
        reached.len(),
        OUTCOMES,
        "an outcome is never reached: {reached:?}"
    );
}

/// Of refresh 7, issue 2, spend 5, guess 5, attempt 2, account 2, link 5 (nobody has too many), set_password 2, unlink 4, place 2.
const OUTCOMES: usize = 36;
