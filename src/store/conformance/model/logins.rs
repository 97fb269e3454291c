//! Steps of the ways to log in.

use super::*;
use crate::store::{
    Code, Join, KeyedHash, OneTime, OneTimePurpose, PasswordSet, Payload, Unlinked,
};

fn hash(n: u8) -> KeyedHash {
    [n; 32]
}

impl Pair {
    /// One of a few, so that they meet.
    fn any_hash(&mut self) -> KeyedHash {
        hash(self.rng.random_range(0..3))
    }

    fn any_identity(&mut self) -> Identity {
        let provider = ["dev", "email"].choose(&mut self.rng).unwrap();
        let subject = ["ada", "bob", "eve"].choose(&mut self.rng).unwrap();
        Identity {
            provider: (*provider).to_owned(),
            subject: (*subject).to_owned(),
        }
    }

    /// A while until which something is worth something.
    fn any_end(&mut self) -> Timestamp {
        let seconds = self.rng.random_range(0..6_000);
        self.now.after(Duration::from_secs(seconds))
    }

    fn any_purpose(&mut self) -> OneTimePurpose {
        let all = &OneTimePurpose::ALL[..2];
        *all.choose(&mut self.rng).unwrap()
    }

    pub(super) async fn step_of_logins(&mut self) {
        match self.rng.random_range(0..47) {
            0..4 => self.issue().await,
            4..12 => self.spend().await,
            12..15 => self.put_code().await,
            15..25 => self.guess().await,
            25..31 => self.attempt().await,
            31..36 => self.link().await,
            36 => self.set_password().await,
            37 | 38 => self.account().await,
            39..41 => self.unlink().await,
            41..46 => self.place().await,
            _ => self.purge_logins().await,
        }
    }

    async fn issue(&mut self) {
        let key = self.any_hash();
        let length = self.rng.random_range(0..64);
        let mut payload = vec![0; length];
        self.rng.fill(&mut payload[..]);
        let entry = OneTime {
            key,
            purpose: self.any_purpose(),
            payload: Payload::new(payload).unwrap(),
            expires_at: self.any_end(),
        };
        let model = self.model.issue(entry.clone()).await.unwrap();
        assert_eq!(self.subject.issue(entry).await.unwrap(), model);
        self.reach("issue", model);
    }

    async fn spend(&mut self) {
        let (key, purpose) = (self.any_hash(), self.any_purpose());
        let model = self.model.spend(key, purpose, self.now).await.unwrap();
        let subject = self.subject.spend(key, purpose, self.now).await.unwrap();
        assert_eq!(subject, model);
        self.reach("spend", model);
    }

    async fn put_code(&mut self) {
        let code = Code {
            key: self.any_hash(),
            hash: self.any_hash(),
            expires_at: self.any_end(),
            tries: self.rng.random_range(1..3),
        };
        self.model.put_code(code).await.unwrap();
        self.subject.put_code(code).await.unwrap();
    }

    async fn guess(&mut self) {
        let (key, guess) = (self.any_hash(), self.any_hash());
        let model = self.model.guess(key, guess, self.now).await.unwrap();
        let subject = self.subject.guess(key, guess, self.now).await.unwrap();
        assert_eq!(subject, model);
        self.reach("guess", model);
    }

    async fn attempt(&mut self) {
        let key = self.any_hash();
        if self.rng.random_bool(0.1) {
            self.model.forget_attempts(key).await.unwrap();
            return self.subject.forget_attempts(key).await.unwrap();
        }
        let (now, end) = (self.now, self.any_end());
        let model = self.model.attempt(key, 2, now, end).await.unwrap();
        let subject = self.subject.attempt(key, 2, now, end).await.unwrap();
        assert_eq!(subject, model);
        self.reach("attempt", model);
    }

    async fn account(&mut self) {
        let identity = self.any_identity();
        let model = self.model.account(identity.clone()).await.unwrap();
        let mut subject = self.subject.account(identity).await.unwrap();
        if let Some(account) = &mut subject {
            account.player = self.players[&account.player];
        }
        assert_eq!(subject, model);
        self.reach("account", model);
    }

    async fn link(&mut self) {
        let [model, subject] = self.any_asking();
        let joins = [Join::Beside, Join::Only, Join::Instead];
        let (identity, join) = (self.any_identity(), *joins.choose(&mut self.rng).unwrap());
        let model = self.model.link(identity.clone(), model, join);
        let model = model.await.unwrap();
        let subject = self.subject.link(identity, subject, join);
        assert_eq!(subject.await.unwrap(), model);
        self.reach("link", model);
    }

    /// A session that links or takes away: mostly the newest one, which is still live as often as not.
    fn any_asking(&mut self) -> [SessionId; 2] {
        let asking = match self.rng.random_range(0..10) {
            0..7 => self.sessions.last().copied(),
            7..9 => self.any_session(),
            _ => None,
        };
        asking.unwrap_or([SessionId(7); 2])
    }

    async fn unlink(&mut self) {
        let [model, subject] = self.any_asking();
        let (identity, with_password) = (self.any_identity(), self.rng.random_bool(0.5));
        let asking = self.model.session(model).await.unwrap();
        let is_unclear = match asking {
            Some(found) => self.is_nearly_idle(found.player.id).await,
            None => false,
        };
        let now = self.now;
        let model = self
            .model
            .unlink(identity.clone(), model, with_password, now);
        let subject = self.subject.unlink(identity, subject, with_password, now);
        let (model, mut subject) = (model.await.unwrap(), subject.await.unwrap());
        if let (
            Unlinked::Unlinked { sessions, .. },
            Unlinked::Unlinked {
                sessions: counted, ..
            },
        ) = (&model, &mut subject)
            && is_unclear
        {
            *counted = *sessions;
        }
        assert_eq!(subject, model);
        self.reach("unlink", model);
    }

    async fn place(&mut self) {
        let (account, now) = (self.any_hash(), self.now);
        let place = [self.rng.random_range(0..3); 16];
        if self.rng.random_bool(0.5) {
            let end = self.any_end();
            let model = self.model.remember_place(account, place, now, end);
            model.await.unwrap();
            let subject = self.subject.remember_place(account, place, now, end);
            return subject.await.unwrap();
        }
        let model = self.model.known_place(account, place, now).await.unwrap();
        let subject = self.subject.known_place(account, place, now).await;
        assert_eq!(subject.unwrap(), model);
        self.reach("place", model);
    }

    async fn set_password(&mut self) {
        let identity = self.any_identity();
        let password = format!("${}", self.rng.random_range(0..1_000));
        let known = self.model.account(identity.clone()).await.unwrap();
        let is_unclear = match known {
            Some(account) => self.is_nearly_idle(account.player).await,
            None => false,
        };
        let model = self
            .model
            .set_password(identity.clone(), password.clone(), self.now);
        let model = model.await.unwrap();
        let subject = self.subject.set_password(identity, password, self.now);
        let subject = subject.await.unwrap();
        self.made_both(model.player, subject.player);
        let translated = PasswordSet {
            player: self.players[&subject.player],
            sessions: if is_unclear {
                model.sessions
            } else {
                subject.sessions
            },
            ..subject
        };
        assert_eq!(translated, model);
        let name = if model.is_new_player { "New" } else { "Known" };
        self.reach("password", format_args!("{name}"));
    }

    async fn purge_logins(&mut self) {
        let minutes = self.rng.random_range(0..60);
        let before = self.now.before(Duration::from_secs(60) * minutes);
        let model = self.model.purge_logins(before).await.unwrap();
        assert_eq!(self.subject.purge_logins(before).await.unwrap(), model);
    }
}
