//! The sidecar's side of a seed's world: what it mints and revokes, when the gateway hears of it, and what it hears of the gateway.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rand::Rng;
use ring::signature::KeyPair;

use super::{
    cast::{Happening, Plan, TokenPlan},
    client::{Client, End, Opening, Proof, client_key},
    world::{GATEWAY, START, World},
};
use crate::{
    control::{
        Drain, GatewayEvent, GatewayEventKind, GatewayHost, Revocation, RevocationRange, SeatReport,
    },
    gateway::admit::token_sha256,
    id::{ClientId, Lineage, PlayerGeneration, Revision, SessionId},
    token::{ConnectClaims, Nonce, TransportKey, seal_connect},
};

/// A connect token of the script.
pub(super) struct Token {
    pub(super) plan: TokenPlan,
    made: Option<Made>,
    /// How the client that comes with it proves its key.
    proof: Proof,
    /// It was ahead of the log when its client connected.
    was_ahead: bool,
    is_used: bool,
}

/// What a token is once it is made.
pub(super) struct Made {
    text: String,
    sha256: [u8; 32],
    /// How long the log was.
    revision: usize,
    client: ClientId,
}

impl Token {
    pub(super) fn planned(plan: TokenPlan) -> Self {
        Self {
            plan,
            made: None,
            proof: Proof::Absent,
            was_ahead: false,
            is_used: false,
        }
    }

    /// The client id that it gives to a new seat.
    pub(super) fn client(&self) -> Option<ClientId> {
        self.made.as_ref().map(|made| made.client)
    }
}

impl World {
    pub(super) fn happen(&mut self, happening: Happening) {
        self.note(|| format!("{happening:?}"));
        match happening {
            Happening::Mint(token) => self.mint(token),
            Happening::Connect(number, plan) => self.connect(number, plan),
            Happening::Revoke(revocation) => {
                self.log.push(revocation);
                let at = self.now + self.log_lag;
                self.arriving.push_back((at, self.log.len()));
            }
            Happening::Leave(number) => {
                if let Some(client) = self.clients.get_mut(&number) {
                    client.leave(self.now);
                }
            }
            Happening::Break(number) => {
                if let Some(client) = self.clients.get_mut(&number) {
                    client.break_off(self.now);
                }
            }
            Happening::Vanish(number) => {
                if let Some(client) = self.clients.get_mut(&number) {
                    client.vanished = true;
                    client.end.get_or_insert(End::Lost);
                }
            }
            Happening::Roam(number) => {
                if let Some(client) = self.clients.get_mut(&number) {
                    client.roams();
                    self.outcome.roamed += 1;
                }
            }
            Happening::Move(number) => {
                if let Some(client) = self.clients.get_mut(&number) {
                    client.moves();
                }
            }
            Happening::Flood(number) => {
                if let Some(client) = self.clients.get_mut(&number) {
                    client.floods = true;
                }
            }
            Happening::Dark(long) => {
                self.network.darken(self.now + long);
                self.outcome.darkened += 1;
            }
            Happening::Drain(true) => {
                self.is_draining = true;
                self.host.drain(Drain::Within(Duration::from_secs(60)));
            }
            Happening::Drain(false) => {
                self.is_draining = false;
                self.host.drain(Drain::Cancel);
            }
            Happening::NewLineage(still_to_come) => {
                self.host.detached();
                self.attach(still_to_come);
            }
        }
    }

    /// The gateway attaches and gets a log of a new lineage, of which so many events are still to come.
    pub(super) fn attach(&mut self, still_to_come: usize) {
        let seats = self.host.live_seats();
        let dead: Vec<SessionId> = seats
            .iter()
            .map(|seat| seat.session)
            .filter(|session| self.is_dead(*session))
            .collect();
        self.reported = seats.iter().map(|seat| seat.session).collect();
        let tail = self.log.len().saturating_sub(still_to_come);
        self.lineage = Lineage(self.lineage.0 + 1);
        self.host
            .reset_log(self.lineage, Revision(tail as u64), &dead);
        self.revoked.extend(dead);
        self.covered = (tail, tail);
        self.arriving.clear();
        if tail < self.log.len() {
            let at = self.now + self.log_lag;
            self.arriving.push_back((at, self.log.len()));
        }
        self.host
            .attached(self.shared.clock.wall(), Duration::from_secs(3_600));
    }

    /// Whether the session has ended, as the sidecar knows.
    fn is_dead(&self, session: SessionId) -> bool {
        self.log.iter().any(|event| self.ends(event, session))
    }

    /// All sessions begin in their player's first generation.
    fn ends(&self, event: &Revocation, session: SessionId) -> bool {
        match *event {
            Revocation::Session(revoked) => revoked == session,
            Revocation::Player(player, _) => self
                .tokens
                .iter()
                .any(|token| token.plan.session == session && token.plan.player == player),
        }
    }

    /// None is minted for a session that has ended.
    fn mint(&mut self, index: usize) {
        let plan = self.tokens[index].plan;
        if self.is_dead(plan.session) {
            return;
        }
        let now = self.shared.clock.wall();
        // Of one length, so that all tokens are.
        let client = ClientId(self.rng.random_range(1_000_000..9_999_999));
        let public = client_key(plan.session).public_key().as_ref().try_into();
        let claims = ConnectClaims {
            player: plan.player,
            session: plan.session,
            player_generation: PlayerGeneration(0),
            client,
            nonce: Nonce(self.rng.random()),
            gateway: self.shared.id.clone(),
            revision: Revision(self.log.len() as u64),
            session_ends_at: START.after(Duration::from_secs(3_600)),
            client_key: plan.is_bound.then(|| public.unwrap()),
            issued_at: now,
            expires_at: now.after(Duration::from_secs(30)),
        };
        let forged = TransportKey::from_bytes(&self.rng.random());
        let key = if plan.is_forged { &forged } else { &self.key };
        let text = seal_connect(key, &claims);
        self.tokens[index].made = Some(Made {
            sha256: token_sha256(&text),
            text,
            revision: self.log.len(),
            client,
        });
    }

    fn connect(&mut self, number: usize, plan: Plan) {
        let token = match &plan {
            Plan::Token(index, _) => Some(*index),
            Plan::Silence | Plan::Garbage(_) => None,
        };
        let opening = match plan {
            Plan::Silence => Opening::Silence,
            Plan::Garbage(bytes) => Opening::Garbage(bytes),
            Plan::Token(index, proof) => {
                let token = &mut self.tokens[index];
                let Some(made) = &token.made else { return };
                token.proof = proof;
                token.was_ahead = made.revision > self.covered.1;
                Opening::Token(made.text.clone(), token.plan.session, proof)
            }
        };
        let host = u8::try_from(number + 1).unwrap();
        let address = SocketAddr::new(Ipv4Addr::new(10, 0, 1, host).into(), 5_000);
        let mut client = Client::connect(
            self.now,
            self.rng.random(),
            Arc::clone(&self.entropy),
            address,
            GATEWAY,
            self.pin,
            opening,
        );
        client.says_nothing = self.listeners;
        client.token = token;
        self.clients.insert(number, client);
    }

    /// Applies what has come of the log.
    pub(super) fn log_arrives(&mut self) {
        while let Some(&(at, to)) = self.arriving.front()
            && at <= self.now
        {
            self.arriving.pop_front();
            let (tail, from) = self.covered;
            let events = self.log[from..to].to_vec();
            let ended: Vec<SessionId> = self
                .tokens
                .iter()
                .map(|token| token.plan.session)
                .filter(|session| events.iter().any(|event| self.ends(event, *session)))
                .collect();
            let live = |session: &&SessionId| self.shared.seats.find(**session).is_some();
            let mut seated: Vec<_> = ended.iter().filter(live).collect();
            seated.dedup();
            self.outcome.revoked_live += seated.len() as u64;
            self.host.apply_revocations(&RevocationRange {
                from: Revision(from as u64),
                to: Revision(to as u64),
                events,
            });
            self.covered = (tail, to);
            self.revoked.extend(ended);
            // The very next verify refuses.
            self.check_revoked();
        }
    }

    /// Takes the gateway's report, as often as it can be taken.
    pub(super) fn hear(&mut self) {
        let mut report = SeatReport::default();
        self.host.take_report(&mut report);
        assert_eq!(report.draining, self.is_draining);
        assert_eq!(report.events_lost, 0);
        for seat in &report.opened {
            self.reported.insert(seat.session);
        }
        for session in &report.closed {
            self.reported.remove(session);
        }
        for event in report.events {
            self.hear_event(&event);
        }
    }

    fn hear_event(&mut self, event: &GatewayEvent) {
        match &event.kind {
            GatewayEventKind::Admitted => self.check_admission(event, 0),
            GatewayEventKind::Resumed { .. } => self.check_admission(event, 1),
            GatewayEventKind::Suspended => self.told[2] += 1,
            GatewayEventKind::Ended { .. } => self.told[3] += 1,
            GatewayEventKind::Refused { reason, .. } => {
                assert!(event.remote.is_some());
                self.check_refusal(event, reason);
                let count = self.outcome.refused.entry(reason.to_string());
                *count.or_default() += 1;
            }
        }
    }

    fn token_of(&mut self, event: &GatewayEvent) -> Option<&mut Token> {
        let sha256 = event.token_sha256?;
        self.tokens.iter_mut().find(|token| {
            token
                .made
                .as_ref()
                .is_some_and(|made| made.sha256 == sha256)
        })
    }

    /// Nobody is let in whom the log, up to what is known of it, has thrown out; nor by a token that is ahead of it or before it.
    fn check_admission(&mut self, event: &GatewayEvent, kind: usize) {
        self.told[kind] += 1;
        let (tail, head) = self.covered;
        let session = event.session.unwrap();
        assert!(!self.is_draining, "admitted while draining");
        assert!(!self.revoked.contains(&session), "{session} was revoked");
        let token = self
            .token_of(event)
            .expect("admitted with no token of ours");
        let made = token.made.as_ref().unwrap();
        assert!((tail..=head).contains(&made.revision), "not covered");
        assert_eq!(token.plan.session, session);
        assert!(!token.plan.is_forged);
        assert!(
            !std::mem::replace(&mut token.is_used, true),
            "a token let two in"
        );
        let is_bound = token.plan.is_bound;
        assert!(!is_bound || token.proof == Proof::Right, "not proven");
        let was_ahead = token.was_ahead;
        self.outcome.proven += u64::from(is_bound);
        self.outcome.caught_up += u64::from(was_ahead);
    }

    fn check_refusal(&mut self, event: &GatewayEvent, reason: &str) {
        match reason {
            "draining" => assert!(self.is_draining),
            "session_revoked" => assert!(self.revoked.contains(&event.session.unwrap())),
            "token_used" => assert!(self.token_of(event).unwrap().is_used),
            "proof_missing" | "proof_wrong" => {
                assert!(self.token_of(event).unwrap().plan.is_bound);
            }
            "unknown_key" => assert!(self.token_of(event).unwrap().plan.is_forged),
            _ => {}
        }
    }
}
