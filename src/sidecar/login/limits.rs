//! How often each e-mail address, network address and player may ask, in an hour.
//!
//! What is limited is asking, and never an account: whoever asks too often from somewhere is sent away there, and the owner of the
//! account is served elsewhere. The one limit that an attacker could use up for somebody else is that on an e-mail address; so where its
//! owner has logged in from before, it has one of its own.
//!
//! ```text
//! e-mail address, from anywhere                     5 an hour
//! e-mail address, from where it has logged in       5 an hour, its own
//! network address (IPv4, IPv6 /64) and call        30 an hour
//! player                                            10 an hour
//! ```
//!
//! What has been asked is counted under keyed hashes, within bounded [memory](crate::sidecar::limit), by each sidecar for itself. Where
//! owners have logged in from is in the store: every sidecar knows it, also after a restart.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use tonic::metadata::MetadataMap;

use crate::{
    clock::Clock,
    id::PlayerId,
    rpc::{Peer, network_of},
    sidecar::{config::LoginLimits, limit::Limit, refusal::Refusal},
    store::{KeyedHash, Place, Store, StoreError},
    token::LoginKey,
};

use super::{address::EmailAddress, network::Network};

/// How long the places of an address are remembered after its owner was last seen at one: half a year, over a summer without the game.
const PLACES_KEPT: Duration = Duration::from_secs(180 * 24 * 60 * 60);

/// A place that is remembered for longer than this needs no writing down when its owner is seen there again.
const PLACES_RENEWED: Duration = Duration::from_secs(90 * 24 * 60 * 60);

type Key = [u8; 16];

/// All limits on asking.
pub(in crate::sidecar) struct Limits {
    key: LoginKey,
    emails: Limit<Key>,
    addresses: Limit<Key>,
    players: Limit<Key>,
    trusted: Vec<Network>,
    store: Arc<dyn Store>,
    clock: Clock,
}

impl Limits {
    pub(in crate::sidecar) fn new(
        limits: LoginLimits,
        key: LoginKey,
        clock: Clock,
        store: Arc<dyn Store>,
    ) -> Self {
        let LoginLimits {
            per_email,
            per_address,
            per_player,
            trusted_proxies,
        } = limits;
        Self {
            key,
            emails: Limit::per_hour(per_email, &clock),
            addresses: Limit::per_hour(per_address, &clock),
            players: Limit::per_hour(per_player, &clock),
            trusted: trusted_proxies,
            store,
            clock,
        }
    }

    /// Where a call comes from: its peer, or whom a proxy that is trusted says it is from.
    ///
    /// # Errors
    /// It cannot be told: then nothing could be limited.
    pub(in crate::sidecar) fn origin(
        &self,
        peer: Option<&Peer>,
        metadata: &MetadataMap,
    ) -> Result<IpAddr, Refusal> {
        let peer = peer.ok_or(Refusal::NoOrigin)?.address.ip().to_canonical();
        if !self.is_trusted(peer) {
            // Anybody can write the header.
            return Ok(peer);
        }
        let mut forwarded: Vec<&str> = Vec::new();
        for value in metadata.get_all("x-forwarded-for") {
            let value = value.to_str().map_err(|_| Refusal::NoOrigin)?;
            forwarded.extend(value.split(',').map(str::trim));
        }
        // Each proxy appends whom it was called by: from the end, the first that is no proxy of ours.
        for text in forwarded.iter().rev() {
            let address: IpAddr = text.parse().map_err(|_| Refusal::NoOrigin)?;
            let address = address.to_canonical();
            if !self.is_trusted(address) {
                return Ok(address);
            }
        }
        Err(Refusal::NoOrigin)
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// A call of this kind from there.
    pub(in crate::sidecar) fn call_from(
        &self,
        call: &'static str,
        origin: IpAddr,
    ) -> Result<(), Refusal> {
        let key = self.key_of("limit-address", &[call.as_bytes(), &network_of(origin)]);
        refuse(self.addresses.take(key, self.neighbourhood(origin)))
    }

    /// A letter to this address, asked for from there.
    pub(in crate::sidecar) async fn to_email(
        &self,
        email: &EmailAddress,
        origin: IpAddr,
    ) -> Result<(), Refusal> {
        let (account, place) = self.place_of(email, origin);
        let now = self.clock.wall();
        let key = match self.store.known_place(account, place, now).await? {
            Some(_) => place,
            None => self.key_of("limit-email", &[email.as_str().as_bytes()]),
        };
        refuse(self.emails.take(key, self.neighbourhood(origin)))
    }

    /// The owner of the address has logged in from there. It is written down now and then alone, and whoever has logged in is in, also
    /// if it cannot be.
    pub(in crate::sidecar) async fn familiar(&self, email: &EmailAddress, origin: IpAddr) {
        if let Err(error) = self.remember(email, origin).await {
            tracing::warn!(
                label = error.label(),
                "where somebody has logged in from was not written down"
            );
        }
    }

    async fn remember(&self, email: &EmailAddress, origin: IpAddr) -> Result<(), StoreError> {
        let (account, place) = self.place_of(email, origin);
        let now = self.clock.wall();
        let until = self.store.known_place(account, place, now).await?;
        if until.is_some_and(|until| until > now.after(PLACES_RENEWED)) {
            return Ok(());
        }
        let forget_at = now.after(PLACES_KEPT);
        let remembered = self.store.remember_place(account, place, now, forget_at);
        remembered.await
    }

    /// Something that changes how the player logs in.
    pub(in crate::sidecar) fn by_player(&self, player: PlayerId) -> Result<(), Refusal> {
        let key = self.key_of("limit-player", &[&player.to_bytes()]);
        refuse(self.players.take(key, None))
    }

    /// What keyed hashes are made with.
    pub(in crate::sidecar) fn key(&self) -> &LoginKey {
        &self.key
    }

    /// What the account of an address, and a place that its owner may be at, are known by.
    fn place_of(&self, email: &EmailAddress, origin: IpAddr) -> (KeyedHash, Place) {
        let email = email.as_str().as_bytes();
        let account = self.key.hash("familiar-account", &[email]);
        let place = self.key_of("familiar-place", &[email, &network_of(origin)]);
        (account, place)
    }

    /// With whom newcomers from there share when too many ask: whoever has as many addresses as he likes has them of one provider.
    fn neighbourhood(&self, origin: IpAddr) -> Option<u64> {
        let [a, b, c, d, e, f, g, h, ..] = self.key_of("limit-network", &[&wide(origin)]);
        Some(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    fn key_of(&self, usage: &'static str, parts: &[&[u8]]) -> Key {
        let hash = self.key.hash(usage, parts);
        let mut key = [0; 16];
        key.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        key
    }
}

fn refuse(taken: Result<(), Duration>) -> Result<(), Refusal> {
    taken.map_err(|wait| Refusal::TooManyLogins { wait })
}

/// What one provider has: the first 32 bits of an IPv6 address, or the first 16 of an IPv4 address.
fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            std::net::Ipv4Addr::new(a, b, 0, 0)
                .to_ipv6_mapped()
                .octets()
        }
        IpAddr::V6(address) => {
            let [a, b, ..] = address.segments();
            Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0).octets()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{ManualTime, Timestamp},
        sidecar::SessionLives,
        store::{Logins, memory::MemoryStore},
    };

    const MINUTE: Duration = Duration::from_secs(60);

    struct Set {
        store: Arc<MemoryStore>,
        key: LoginKey,
        time: ManualTime,
    }

    impl Set {
        fn new() -> Self {
            let store = MemoryStore::new(SessionLives::default().for_store());
            Self {
                store: Arc::new(store),
                key: LoginKey::generate(),
                time: ManualTime::starting_at(Timestamp(0)),
            }
        }

        /// Those of a sidecar that has just been started.
        fn limits(&self, trusted: &[&str]) -> Limits {
            let limits = LoginLimits {
                trusted_proxies: trusted.iter().map(|text| text.parse().unwrap()).collect(),
                ..LoginLimits::default()
            };
            let store = Arc::clone(&self.store) as Arc<dyn Store>;
            Limits::new(limits, self.key.clone(), self.time.clock(), store)
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn count(mut take: impl FnMut() -> Result<(), Refusal>) -> usize {
        (0..1_000).take_while(|_| take().is_ok()).count()
    }

    async fn letters(limits: &Limits, to: &EmailAddress, from: IpAddr) -> usize {
        let mut sent = 0;
        while limits.to_email(to, from).await.is_ok() {
            sent += 1;
        }
        sent
    }

    #[test]
    fn each_has_its_own_and_gets_it_back_over_the_hour() {
        let set = Set::new();
        let (limits, time) = (set.limits(&[]), &set.time);
        let from = |address: &str| limits.call_from("login", ip(address));
        assert_eq!(count(|| from("192.0.2.1")), 30);
        assert_eq!(count(|| limits.call_from("otp", ip("192.0.2.1"))), 30);
        assert_eq!(count(|| from("192.0.2.2")), 30);
        // One IPv6 network is one caller.
        assert_eq!(count(|| from("2001:db8::1")), 30);
        assert_eq!(count(|| from("2001:db8::ffff:1")), 0);
        assert_eq!(count(|| from("2001:db8:0:1::1")), 30);
        assert_eq!(count(|| limits.by_player(PlayerId(1))), 10);
        let Err(Refusal::TooManyLogins { wait }) = from("192.0.2.1") else {
            panic!("not refused");
        };
        assert_eq!(wait, 2 * MINUTE);
        time.advance(wait);
        assert_eq!(count(|| from("192.0.2.1")), 1);
        time.advance(60 * MINUTE);
        assert_eq!(count(|| from("192.0.2.1")), 30);
    }

    /// Whoever uses an address's limit up does not keep its owner out, where the owner has been before: also when the sidecar was started
    /// anew since, or another one is asked.
    #[tokio::test]
    async fn an_attacker_uses_up_nobodys_letters() {
        let set = Set::new();
        let ada: EmailAddress = "ada@example.com".parse().unwrap();
        let home = ip("192.0.2.1");
        set.limits(&[]).familiar(&ada, home).await;
        for limits in [set.limits(&[]), set.limits(&[])] {
            let mut sent = 0;
            for n in 1..100_u32 {
                sent += usize::from(limits.to_email(&ada, IpAddr::V4(n.into())).await.is_ok());
            }
            assert_eq!(sent, 5);
            assert_eq!(letters(&limits, &ada, home).await, 5);
            // It is ada's home, and nobody else's.
            let bob: EmailAddress = "bob@example.com".parse().unwrap();
            assert_eq!(letters(&limits, &bob, ip("192.0.2.9")).await, 5);
            assert_eq!(letters(&limits, &bob, home).await, 0);
        }
    }

    #[tokio::test]
    async fn a_place_is_remembered_for_as_long_as_its_owner_is_seen_there() {
        let set = Set::new();
        let limits = set.limits(&[]);
        let ada: EmailAddress = "ada@example.com".parse().unwrap();
        let home = ip("2001:db8::1");
        let (account, place) = limits.place_of(&ada, home);
        let until = || async {
            let now = set.time.clock().wall();
            set.store.known_place(account, place, now).await.unwrap()
        };
        limits.familiar(&ada, home).await;
        let first = Timestamp(0).after(PLACES_KEPT);
        assert_eq!(until().await, Some(first));
        // Written down again no sooner than needed.
        set.time.advance(PLACES_RENEWED - MINUTE);
        limits.familiar(&ada, home).await;
        assert_eq!(until().await, Some(first));
        set.time.advance(MINUTE);
        limits.familiar(&ada, home).await;
        assert_eq!(until().await, Some(first.after(PLACES_RENEWED)));
        set.time.advance(PLACES_KEPT);
        assert_eq!(until().await, None);
    }

    #[test]
    fn a_header_is_believed_of_proxies_that_are_trusted_alone() {
        let peer = |text: &str| Peer {
            address: (ip(text), 1_234).into(),
            role: None,
        };
        let with = |values: &[&str]| {
            let mut metadata = MetadataMap::new();
            for value in values {
                metadata.append("x-forwarded-for", value.parse().unwrap());
            }
            metadata
        };
        let limits = Set::new().limits(&["10.0.0.0/8", "192.0.2.7"]);
        for (from, header, expected) in [
            ("203.0.113.1", vec![], Some("203.0.113.1")),
            ("203.0.113.1", vec!["198.51.100.1"], Some("203.0.113.1")),
            ("10.1.2.3", vec!["198.51.100.1"], Some("198.51.100.1")),
            (
                "::ffff:10.1.2.3",
                vec!["198.51.100.1"],
                Some("198.51.100.1"),
            ),
            // What the client itself wrote stands before what the proxies wrote.
            (
                "10.1.2.3",
                vec!["1.2.3.4, 198.51.100.1, 192.0.2.7"],
                Some("198.51.100.1"),
            ),
            (
                "10.1.2.3",
                vec!["1.2.3.4", "198.51.100.1"],
                Some("198.51.100.1"),
            ),
            ("10.1.2.3", vec![], None),
            ("10.1.2.3", vec!["10.9.9.9"], None),
            ("10.1.2.3", vec!["198.51.100.1, unknown"], None),
        ] {
            let origin = limits.origin(Some(&peer(from)), &with(&header));
            assert_eq!(origin.ok(), expected.map(ip), "{from} {header:?}");
        }
        assert!(limits.origin(None, &with(&[])).is_err());
    }
}
