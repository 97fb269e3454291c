//! The embedded store against the memory store: whatever is done to both, and however often the file is closed and opened again, they
//! say the same.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{
    control::Revocation,
    id::{GatewayId, Incarnation},
    store::{
        Logins, RefreshClaim, Refreshed, Standing,
        conformance::{LIVES, START, account},
        memory::MemoryStore,
    },
};

const SEEDS: u64 = 12;
const STEPS: usize = 150;

/// Both stores. They draw ids of their own: what the embedded one says is translated into the model's.
struct Pair {
    path: std::path::PathBuf,
    model: MemoryStore,
    embedded: EmbeddedStore,
    sessions: Vec<[SessionId; 2]>,
    to_model: HashMap<SessionId, SessionId>,
    players: HashMap<PlayerId, PlayerId>,
    now: Timestamp,
    rng: ChaCha8Rng,
    /// Outcomes of refreshes, by name.
    reached: BTreeMap<&'static str, usize>,
}

impl Pair {
    fn new(folder: &Path, seed: u64) -> Self {
        let path = folder.join(format!("{seed}.redb"));
        Self {
            model: MemoryStore::new(LIVES),
            embedded: EmbeddedStore::open(&path, LIVES).unwrap(),
            path,
            sessions: Vec::new(),
            to_model: HashMap::new(),
            players: HashMap::new(),
            now: START,
            rng: ChaCha8Rng::seed_from_u64(seed),
            reached: BTreeMap::new(),
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
        let embedded = self.embedded.start_session(new).await.unwrap();
        assert_eq!(model.is_new_player, embedded.is_new_player);
        let ids = [model.found.session.id, embedded.found.session.id];
        self.sessions.push(ids);
        self.to_model.insert(ids[1], ids[0]);
        self.players
            .insert(embedded.found.player.id, model.found.player.id);
        assert_eq!(self.translated(embedded.found), model.found);
    }

    async fn refresh(&mut self) {
        let Some([model, embedded]) = self.any_session() else {
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
        let embedded = self.embedded.refresh(claim(embedded), self.now);
        let mut embedded = embedded.await.unwrap();
        if let Refreshed::Rotated(successor) | Refreshed::Again(successor) = &mut embedded {
            successor.found = self.translated(successor.found.clone());
        }
        assert_eq!(embedded, model);
        let outcome = match model {
            Refreshed::Rotated(_) => "rotated",
            Refreshed::Again(_) => "again",
            Refreshed::Reused(_) => "reused",
            Refreshed::Ended(None) => "unknown",
            Refreshed::Ended(Some(by)) => by.label(),
        };
        *self.reached.entry(outcome).or_default() += 1;
    }

    async fn change_role(&mut self) {
        let Some((&embedded, &model)) = self.players.iter().next() else {
            return;
        };
        let role = ["player", "moderator"].choose(&mut self.rng).unwrap();
        let before = self.model.set_role(model, (*role).to_owned()).await;
        let changed = self.embedded.set_role(embedded, (*role).to_owned()).await;
        assert_eq!(changed.unwrap(), before.unwrap());
    }

    async fn revoke(&mut self) {
        let Some([model, embedded]) = self.any_session() else {
            return;
        };
        if self.rng.random_bool(0.7) {
            let model = self.model.revoke_session(model, self.now).await.unwrap();
            let embedded = self.embedded.revoke_session(embedded, self.now).await;
            assert_eq!(embedded.unwrap(), model);
        } else if let Some(found) = self.embedded.session(embedded).await.unwrap() {
            let (embedded, model) = (found.player.id, self.players[&found.player.id]);
            let model = self.model.revoke_player(model, self.now).await.unwrap();
            let embedded = self.embedded.revoke_player(embedded, self.now).await;
            assert_eq!(embedded.unwrap(), model);
        }
    }

    async fn grant(&mut self) {
        let gateway = self.any_gateway();
        if let Some([model, embedded]) = self.any_session() {
            self.model.grant(model, gateway.clone()).await.unwrap();
            self.embedded.grant(embedded, gateway).await.unwrap();
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
        let embedded = self.embedded.attach_gateway(gateway, process).await;
        assert_eq!(embedded.unwrap(), model.unwrap());
    }

    fn play(&mut self) {
        if let Some([model, embedded]) = self.any_session() {
            self.model.note_activity(&[model], self.now);
            self.embedded.note_activity(&[embedded], self.now);
        }
    }

    async fn purge(&mut self) {
        let model = self.model.purge(self.now).await.unwrap();
        assert_eq!(self.embedded.purge(self.now).await.unwrap(), model);
    }

    async fn reopen(&mut self) {
        self.embedded.close().await.unwrap();
        self.embedded = EmbeddedStore::open(&self.path, LIVES).unwrap();
    }

    /// Both know the same sessions, log and grants.
    async fn compare(&mut self) {
        let player = self.players.iter().next();
        let player = player.map(|(embedded, model)| [*model, *embedded]);
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
            let embedded = self.embedded.sessions(of, until, limit).await.unwrap();
            let embedded: Vec<_> = embedded
                .into_iter()
                .map(|found| self.translated(found))
                .collect();
            assert_eq!(embedded, model);
        }
        let state = self.model.log_state().await.unwrap();
        let own = self.embedded.log_state().await.unwrap();
        assert_eq!((own.tail, own.head), (state.tail, state.head));
        let model = self.model.log_after(state.tail, usize::MAX).await.unwrap();
        let range = self.embedded.log_after(state.tail, usize::MAX).await;
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
        let dead = self.embedded.dead_among(all(1), self.now).await.unwrap();
        let model = self.model.dead_among(all(0), self.now).await.unwrap();
        assert_eq!(translate(dead), model);
        let gateway: GatewayId = "gateway-3".parse().unwrap();
        let model = self.model.granted_among(gateway.clone(), all(0)).await;
        let granted = self.embedded.granted_among(gateway, all(1)).await.unwrap();
        assert_eq!(translate(granted), model.unwrap());
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
        match self.rng.random_range(0..100) {
            0..15 => self.log_in().await,
            15..50 => self.refresh().await,
            50..55 => self.change_role().await,
            55..63 => self.revoke().await,
            63..75 => self.grant().await,
            75..80 => self.attach().await,
            80..93 => self.play(),
            93..96 => self.purge().await,
            _ => self.reopen().await,
        }
        self.compare().await;
    }
}

#[tokio::test]
async fn the_file_says_what_the_model_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut reached = BTreeMap::<_, usize>::new();
    for seed in 0..SEEDS {
        let mut pair = Pair::new(folder.path(), seed);
        for step in 0..STEPS {
            // Shown if it fails: which seed, and how far it came.
            println!("seed {seed}, step {step}");
            pair.step().await;
        }
        for (outcome, n) in pair.reached {
            *reached.entry(outcome).or_default() += n;
        }
    }
    println!("{reached:?}");
    assert_eq!(reached.len(), 7, "an outcome is never reached: {reached:?}");
}
