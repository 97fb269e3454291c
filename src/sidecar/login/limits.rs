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
//! Buckets are `governor`'s (GCRA), under keyed hashes. Their memory is bounded: when there are too many, callers share larger ones until
//! those that are full again have been forgotten. Each sidecar counts for itself.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter, clock::Clock as GovernorClock, middleware::NoOpMiddleware,
    state::keyed::DashMapStateStore,
};
use tonic::metadata::MetadataMap;

use crate::{
    clock::Clock,
    id::PlayerId,
    rpc::Peer,
    sidecar::{config::LoginLimits, refusal::Refusal},
    token::LoginKey,
};

use super::{address::EmailAddress, network::Network};

/// Buckets of one kind that are kept: 2^17, some 12 MiB.
const CAPACITY: usize = 1 << 17;

/// Buckets that are shared when there are too many, and how much larger they are.
const SHARED: u16 = 4_096;
const SHARED_FACTOR: NonZeroU32 = NonZeroU32::MIN.saturating_add(15);

/// How long after full buckets were forgotten the rest is left alone.
const SWEEP: Duration = Duration::from_secs(1);

/// Places from which an address has logged in, over all addresses.
const FAMILIAR: usize = 1 << 16;

/// Time as `governor` asks for it: since the limits were made.
#[derive(Clone)]
struct SinceStart {
    clock: Clock,
    start: Instant,
}

impl GovernorClock for SinceStart {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.start)
    }
}

type Key = [u8; 16];
type Buckets<K> = RateLimiter<K, DashMapStateStore<K>, SinceStart, NoOpMiddleware<Duration>>;

/// One limit, for as many keys as come.
struct Limit {
    own: Buckets<Key>,
    shared: Buckets<u16>,
    clock: SinceStart,
    capacity: usize,
    swept_at: Mutex<Option<Duration>>,
}

impl Limit {
    fn per_hour(most: NonZeroU32, clock: &SinceStart) -> Self {
        let larger = most.saturating_mul(SHARED_FACTOR);
        Self {
            own: RateLimiter::new(
                Quota::per_hour(most),
                DashMapStateStore::default(),
                clock.clone(),
            ),
            shared: RateLimiter::new(
                Quota::per_hour(larger),
                DashMapStateStore::default(),
                clock.clone(),
            ),
            clock: clock.clone(),
            capacity: CAPACITY,
            swept_at: Mutex::default(),
        }
    }

    /// Takes one out of the key's bucket.
    ///
    /// # Errors
    /// It is empty, and this long it takes until there is one again.
    fn take(&self, key: &Key) -> Result<(), Duration> {
        let now = self.clock.now();
        let wait = if self.has_room(now) {
            self.own.check_key(key).err()
        } else {
            let [first, second, ..] = *key;
            let place = u16::from_be_bytes([first, second]) % SHARED;
            self.shared.check_key(&place).err()
        };
        wait.map_or(Ok(()), |until| Err(until.wait_time_from(now)))
    }

    fn has_room(&self, now: Duration) -> bool {
        if self.own.len() < self.capacity {
            return true;
        }
        let mut swept_at = self.swept_at.lock().unwrap_or_else(PoisonError::into_inner);
        if swept_at.is_none_or(|at| now.saturating_sub(at) >= SWEEP) {
            self.own.retain_recent();
            self.shared.retain_recent();
            *swept_at = Some(now);
        }
        self.own.len() < self.capacity
    }
}

/// All limits on asking.
pub(in crate::sidecar) struct Limits {
    key: LoginKey,
    emails: Limit,
    addresses: Limit,
    players: Limit,
    familiar: Mutex<Familiar>,
    trusted: Vec<Network>,
}

/// Where addresses have logged in from, the oldest first.
#[derive(Default)]
struct Familiar {
    /// When each was seen last, in numbers that count up.
    known: HashMap<Key, u64>,
    by_age: BTreeMap<u64, Key>,
    next: u64,
}

impl Familiar {
    /// Makes a place the newest; of too many, the one that was seen longest ago is forgotten.
    fn renew(&mut self, key: Key) {
        self.next += 1;
        if let Some(before) = self.known.insert(key, self.next) {
            self.by_age.remove(&before);
        }
        self.by_age.insert(self.next, key);
        if self.by_age.len() > FAMILIAR
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Limits {
    pub(in crate::sidecar) fn new(limits: LoginLimits, key: LoginKey, clock: Clock) -> Self {
        let LoginLimits {
            per_email,
            per_address,
            per_player,
            trusted_proxies,
        } = limits;
        let start = clock.now();
        let clock = SinceStart { clock, start };
        Self {
            key,
            emails: Limit::per_hour(per_email, &clock),
            addresses: Limit::per_hour(per_address, &clock),
            players: Limit::per_hour(per_player, &clock),
            familiar: Mutex::default(),
            trusted: trusted_proxies,
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
        let prefix = prefix(origin);
        let key = self.key_of("limit-address", &[call.as_bytes(), &prefix]);
        refuse(self.addresses.take(&key))
    }

    /// A letter to this address, asked for from there.
    pub(in crate::sidecar) fn to_email(
        &self,
        email: &EmailAddress,
        origin: IpAddr,
    ) -> Result<(), Refusal> {
        let familiar = self.familiar_key(email, origin);
        let is_familiar = {
            let places = self.familiar.lock().unwrap_or_else(PoisonError::into_inner);
            places.known.contains_key(&familiar)
        };
        let key = if is_familiar {
            familiar
        } else {
            self.key_of("limit-email", &[email.as_str().as_bytes()])
        };
        refuse(self.emails.take(&key))
    }

    /// The owner of the address has logged in from there.
    pub(in crate::sidecar) fn familiar(&self, email: &EmailAddress, origin: IpAddr) {
        let key = self.familiar_key(email, origin);
        let mut places = self.familiar.lock().unwrap_or_else(PoisonError::into_inner);
        places.renew(key);
    }

    /// Something that changes how the player logs in.
    pub(in crate::sidecar) fn by_player(&self, player: PlayerId) -> Result<(), Refusal> {
        let key = self.key_of("limit-player", &[&player.to_bytes()]);
        refuse(self.players.take(&key))
    }

    fn familiar_key(&self, email: &EmailAddress, origin: IpAddr) -> Key {
        let prefix = prefix(origin);
        self.key_of("limit-familiar", &[email.as_str().as_bytes(), &prefix])
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

/// What one household or machine has: an IPv4 address, or the first 64 bits of an IPv6 address.
fn prefix(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).octets()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualTime, Timestamp};

    const MINUTE: Duration = Duration::from_secs(60);

    fn limits(trusted: &[&str]) -> (Limits, ManualTime) {
        let time = ManualTime::starting_at(Timestamp(0));
        let limits = LoginLimits {
            trusted_proxies: trusted.iter().map(|text| text.parse().unwrap()).collect(),
            ..LoginLimits::default()
        };
        let limits = Limits::new(limits, LoginKey::generate(), time.clock());
        (limits, time)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn count(mut take: impl FnMut() -> Result<(), Refusal>) -> usize {
        (0..1_000).take_while(|_| take().is_ok()).count()
    }

    #[test]
    fn each_has_its_own_and_gets_it_back_over_the_hour() {
        let (limits, time) = limits(&[]);
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

    /// Whoever uses an address's limit up does not keep its owner out, where the owner has been before.
    #[test]
    fn an_attacker_uses_up_nobodys_letters() {
        let (limits, _time) = limits(&[]);
        let ada: EmailAddress = "ada@example.com".parse().unwrap();
        let home = ip("192.0.2.1");
        limits.familiar(&ada, home);
        let attack = |n: u32| limits.to_email(&ada, IpAddr::V4(n.into()));
        let sent = (1..100_u32).filter(|n| attack(*n).is_ok()).count();
        assert_eq!(sent, 5);
        assert_eq!(count(|| limits.to_email(&ada, home)), 5);
    }

    #[test]
    fn a_place_that_is_seen_again_and_again_is_not_forgotten() {
        let mut places = Familiar::default();
        let key = |n: u32| {
            let mut key = [0; 16];
            key[..4].copy_from_slice(&n.to_be_bytes());
            key
        };
        for n in 0..3 * FAMILIAR as u32 {
            places.renew(key(u32::MAX));
            places.renew(key(n));
        }
        assert_eq!(
            (places.known.len(), places.by_age.len()),
            (FAMILIAR, FAMILIAR)
        );
        assert!(places.known.contains_key(&key(u32::MAX)));
        assert!(!places.known.contains_key(&key(0)));
    }

    #[test]
    fn memory_is_bounded_and_nobody_is_without_a_limit() {
        let (mut limits, time) = limits(&[]);
        limits.addresses.capacity = 100;
        let from = |n: u32| limits.call_from("login", IpAddr::V4(n.into()));
        for n in 0..10_000 {
            assert!(from(n).is_ok());
        }
        assert!(limits.addresses.own.len() <= 100);
        assert!(limits.addresses.shared.len() <= usize::from(SHARED));
        assert_eq!(
            count(|| from(1_000_000)),
            30 * 16 - count_shared(&limits, 1_000_000)
        );
        time.advance(60 * MINUTE);
        assert!(from(1).is_ok());
        assert_eq!(limits.addresses.own.len(), 1);
    }

    /// How much others have taken of the bucket that this one shares with them: between the first 100 and it, some ten thousand.
    fn count_shared(limits: &Limits, n: u32) -> usize {
        let place = |n: u32| {
            let prefix = prefix(IpAddr::V4(n.into()));
            let key = limits.key_of("limit-address", &[b"login", &prefix]);
            u16::from_be_bytes([key[0], key[1]]) % SHARED
        };
        (100..10_000)
            .filter(|other| place(*other) == place(n))
            .count()
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
        let (limits, _time) = limits(&["10.0.0.0/8", "192.0.2.7"]);
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
