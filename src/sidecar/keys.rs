//! The keys that tokens are sealed and opened with, which change while the sidecar runs.
//!
//! Session and refresh tokens are sealed with the current key and opened with all. A connect token is sealed with the newest key, of those
//! that may seal, that *its gateway has said it holds*: so no rotation, no gateway that hears of one late, and no sidecar that has read its
//! files later than others makes a token that its gateway cannot open.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use thiserror::Error;

use crate::{
    clock::Timestamp,
    id::{GatewayId, Incarnation},
    token::{
        FIRST_EPOCH, KeyId, KeyRole, MasterKey, Purpose, RefreshClaims, RefreshKey, RefreshKeyring,
        Rejection, Rotating, SessionClaims, SessionKey, SessionKeyring, SharedKey, TransportKey,
        TransportMasterKey, ensure_unshared,
    },
};

use super::registry::Holder;

/// The keys that a sidecar seals and opens tokens with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKeys {
    /// Session tokens'.
    pub session: Rotating<SessionKey>,
    /// Refresh tokens'. One that has sealed is needed for as long as sessions live.
    pub refresh: Rotating<RefreshKey>,
    /// The keys of gateway processes derive from these.
    pub transport: Rotating<MasterKey>,
}

impl TokenKeys {
    /// One key for each, which do not rotate now.
    pub const fn new(
        session: SessionKey,
        refresh: RefreshKey,
        transport: TransportMasterKey,
    ) -> Self {
        Self {
            session: Rotating::only(session),
            refresh: Rotating::only(refresh),
            transport: Rotating::only(MasterKey {
                epoch: FIRST_EPOCH,
                key: transport,
            }),
        }
    }

    /// Every key with its purpose, its role and, where it has one, its number.
    fn all(&self) -> impl Iterator<Item = (Purpose, KeyRole, KeyId, Option<u32>)> {
        let Self {
            session,
            refresh,
            transport,
        } = self;
        let session = session.all();
        let session = session.map(|(role, key)| (Purpose::Session, role, key.id(), None));
        let refresh = refresh.all();
        let refresh = refresh.map(|(role, key)| (Purpose::Refresh, role, key.id(), None));
        let transport = transport.all().map(|(role, MasterKey { epoch, key })| {
            (Purpose::Connect, role, key.id(), Some(*epoch))
        });
        session.chain(refresh).chain(transport)
    }

    /// Checks that no key has two purposes, `login` being the one of what log-ins keep, and that gateways can tell the transport keys apart.
    pub(crate) fn check(&self, login: KeyId) -> Result<(), InvalidKeys> {
        let mut keys: Vec<_> = self
            .all()
            .map(|(purpose, _, id, _)| (purpose, id))
            .collect();
        keys.push((Purpose::Login, login));
        ensure_unshared(&keys)?;
        let mut epochs: Vec<_> = self.all().filter_map(|(.., epoch)| epoch).collect();
        epochs.sort_unstable();
        match epochs.windows(2).find(|pair| pair.first() == pair.last()) {
            Some(pair) => Err(InvalidKeys::SameEpoch(
                pair.first().copied().unwrap_or_default(),
            )),
            None => Ok(()),
        }
    }
}

/// Why keys cannot be used together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidKeys {
    /// One key serves two purposes.
    #[error(transparent)]
    Shared(#[from] SharedKey),
    /// Two master transport keys with one number: gateways could not tell them apart.
    #[error("two transport keys have epoch {0}: the newer one has a higher one")]
    SameEpoch(u32),
}

impl InvalidKeys {
    /// The error's fixed name.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Shared(shared) => shared.label(),
            Self::SameEpoch(_) => "same_epoch",
        }
    }
}

/// The keys in force.
pub(super) struct Keys {
    live: ArcSwap<Live>,
    login: KeyId,
}

struct Live {
    keys: TokenKeys,
    session: SessionKeyring,
    refresh: RefreshKeyring,
    known: Vec<Known>,
}

/// What is told of a key.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) purpose: Purpose,
    pub(super) role: KeyRole,
    pub(super) id: KeyId,
    pub(super) epoch: Option<u32>,
    sealed_at: Arc<AtomicU64>,
}

impl Known {
    /// When a token was last sealed with it, as far as this process knows; 0 if never.
    pub(super) fn sealed_at(&self) -> Timestamp {
        Timestamp(self.sealed_at.load(Ordering::Relaxed))
    }
}

impl Live {
    /// `before` is what was in force: what it knows of a key stays known.
    fn new(keys: TokenKeys, before: Option<&Self>) -> Self {
        let known = keys.all().map(|(purpose, role, id, epoch)| {
            let earlier = before.and_then(|live| live.known(purpose, id));
            Known {
                purpose,
                role,
                id,
                epoch,
                sealed_at: earlier.map_or_else(Arc::default, |known| Arc::clone(&known.sealed_at)),
            }
        });
        Self {
            known: known.collect(),
            session: keys.session.clone().into(),
            refresh: keys.refresh.clone().into(),
            keys,
        }
    }

    fn known(&self, purpose: Purpose, id: KeyId) -> Option<&Known> {
        let mut known = self.known.iter();
        known.find(|known| known.purpose == purpose && known.id == id)
    }

    /// A token that was issued at `at` is being sealed with this key.
    fn note(&self, purpose: Purpose, id: KeyId, at: Timestamp) {
        if let Some(known) = self.known(purpose, id) {
            known.sealed_at.fetch_max(at.0, Ordering::Relaxed);
        }
    }
}

impl Keys {
    /// Keys that have been [checked](TokenKeys::check) together with the key of log-ins. The process begins `now`.
    pub(super) fn new(keys: TokenKeys, login: KeyId, now: Timestamp) -> Self {
        let live = Live::new(keys, None);
        // The process before this one may have sealed with the keys of before until a moment ago: it had not read yet that they are that, or
        // a gateway did not hold the current one.
        let TokenKeys {
            session,
            refresh,
            transport,
        } = &live.keys;
        for key in &session.previous {
            live.note(Purpose::Session, key.id(), now);
        }
        for key in &refresh.previous {
            live.note(Purpose::Refresh, key.id(), now);
        }
        for master in &transport.previous {
            live.note(Purpose::Connect, master.key.id(), now);
        }
        Self {
            live: ArcSwap::from_pointee(live),
            login,
        }
    }

    /// Seals and opens with these from now on; whether they are others than before.
    pub(super) fn replace(&self, keys: TokenKeys) -> Result<bool, InvalidKeys> {
        keys.check(self.login)?;
        let before = self.live.load();
        if before.keys == keys {
            return Ok(false);
        }
        self.live.store(Arc::new(Live::new(keys, Some(&before))));
        Ok(true)
    }

    /// What is told of each key.
    pub(super) fn known(&self) -> Vec<Known> {
        self.live.load().known.clone()
    }

    pub(super) fn seal_session(&self, claims: &SessionClaims) -> String {
        let live = self.live.load();
        let id = live.keys.session.current.id();
        live.note(Purpose::Session, id, claims.issued_at);
        live.session.seal(claims)
    }

    pub(super) fn open_session(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<SessionClaims, Rejection> {
        self.live.load().session.open(token, now)
    }

    pub(super) fn seal_refresh(&self, claims: &RefreshClaims) -> String {
        let live = self.live.load();
        let id = live.keys.refresh.current.id();
        live.note(Purpose::Refresh, id, claims.issued_at);
        live.refresh.seal(claims)
    }

    pub(super) fn open_refresh(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<RefreshClaims, Rejection> {
        self.live.load().refresh.open(token, now)
    }

    /// The keys of one gateway process with their epochs: the current one, the previous ones, the next.
    pub(super) fn for_process(
        &self,
        gateway: &GatewayId,
        incarnation: Incarnation,
    ) -> Vec<(u32, TransportKey)> {
        let live = self.live.load();
        let masters = live.keys.transport.all();
        let derived = masters.map(|(_, MasterKey { epoch, key })| {
            (*epoch, key.derive(gateway, incarnation, *epoch))
        });
        derived.collect()
    }

    /// The key that seals for one gateway process which holds `held`, of a token that is issued `now`: the current one, or as long as that
    /// is not held, the newest before it that is. None while it holds none of them: it is about to be told.
    ///
    /// A process that has never said what it holds has not been answered yet. It admits nobody before that, and the answer brings all
    /// keys.
    pub(super) fn sealing(
        &self,
        gateway: &GatewayId,
        incarnation: Incarnation,
        held: &[KeyId],
        now: Timestamp,
    ) -> Option<TransportKey> {
        let live = self.live.load();
        let Rotating {
            next: _,
            current,
            previous,
        } = &live.keys.transport;
        std::iter::once(current).chain(previous).find_map(|master| {
            let key = master.key.derive(gateway, incarnation, master.epoch);
            let is_held = held.is_empty() || held.contains(&key.id());
            is_held.then(|| {
                live.note(Purpose::Connect, master.key.id(), now);
                key
            })
        })
    }

    /// Who of these gateways does not hold what is derived for it from the transport key of this id.
    pub(super) fn outstanding(&self, id: KeyId, holders: &[Holder]) -> Vec<GatewayId> {
        let live = self.live.load();
        let mut masters = live.keys.transport.all().map(|(_, master)| master);
        let Some(MasterKey { epoch, key }) = masters.find(|master| master.key.id() == id) else {
            return Vec::new();
        };
        let holders = holders.iter().filter(|holder| {
            let derived = key.derive(&holder.gateway, holder.incarnation, *epoch);
            !holder.keys.contains(&derived.id())
        });
        holders.map(|holder| holder.gateway.clone()).collect()
    }

    /// Who of these gateways holds what is derived for it from no transport key that there is.
    pub(super) fn strangers(&self, holders: &[Holder]) -> Vec<GatewayId> {
        let live = self.live.load();
        let holders = holders.iter().filter(|holder| {
            let masters = live.keys.transport.all();
            let derived = masters.map(|(_, MasterKey { epoch, key })| {
                key.derive(&holder.gateway, holder.incarnation, *epoch).id()
            });
            let known: Vec<_> = derived.collect();
            holder.keys.iter().any(|key| !known.contains(key))
        });
        holders.map(|holder| holder.gateway.clone()).collect()
    }

    /// The id of the transport key that seals.
    pub(super) fn current_transport(&self) -> KeyId {
        self.live.load().keys.transport.current.key.id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::LoginKey;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn master(epoch: u32, byte: u8) -> MasterKey {
        MasterKey {
            epoch,
            key: TransportMasterKey::from_bytes(&[byte; 32]),
        }
    }

    fn keys(transport: Rotating<MasterKey>) -> TokenKeys {
        TokenKeys {
            session: SessionKey::from_bytes(&[101; 32]).into(),
            refresh: RefreshKey::from_bytes(&[102; 32]).into(),
            transport,
        }
    }

    fn login() -> KeyId {
        LoginKey::from_bytes(&[103; 32]).id()
    }

    fn process() -> (GatewayId, Incarnation) {
        ("eu".parse().unwrap(), Incarnation(7))
    }

    fn derived(master: &MasterKey) -> KeyId {
        let (gateway, incarnation) = process();
        master.key.derive(&gateway, incarnation, master.epoch).id()
    }

    fn sealing(keys: &Keys, held: &[KeyId]) -> Option<KeyId> {
        let (gateway, incarnation) = process();
        let key = keys.sealing(&gateway, incarnation, held, NOW);
        key.map(|key| key.id())
    }

    #[test]
    fn a_token_is_sealed_with_the_newest_key_that_its_gateway_holds() {
        let (one, two) = (master(1, 1), master(2, 2));
        let [first, second] = [derived(&one), derived(&two)];
        let before = Rotating::only(one.clone());
        let published = Rotating {
            next: Some(two.clone()),
            ..before.clone()
        };
        let promoted = Rotating {
            previous: vec![one],
            ..Rotating::only(two.clone())
        };
        let retired = Rotating::only(two);
        let live = Keys::new(keys(before), login(), NOW);
        assert_eq!(sealing(&live, &[first]), Some(first));
        assert_eq!(live.replace(keys(published)), Ok(true));
        // Also where the next one has arrived: other sidecars may not know it yet.
        assert_eq!(sealing(&live, &[first, second]), Some(first));
        assert_eq!(live.replace(keys(promoted)), Ok(true));
        assert_eq!(sealing(&live, &[first, second]), Some(second));
        assert_eq!(sealing(&live, &[first]), Some(first), "it hears of it late");
        assert_eq!(
            sealing(&live, &[]),
            Some(second),
            "it has not been answered"
        );
        assert_eq!(live.replace(keys(retired.clone())), Ok(true));
        assert_eq!(live.replace(keys(retired)), Ok(false), "nothing is new");
        assert_eq!(sealing(&live, &[first, second]), Some(second));
        assert_eq!(sealing(&live, &[first]), None, "it is about to be told");
    }

    #[test]
    fn when_a_key_last_sealed_is_remembered_through_a_rotation() {
        let (one, two) = (master(1, 1), master(2, 2));
        let live = Keys::new(keys(Rotating::only(one.clone())), login(), NOW);
        let first = derived(&one);
        let (gateway, incarnation) = process();
        for seconds in [3, 1] {
            let at = NOW.after(std::time::Duration::from_secs(seconds));
            live.sealing(&gateway, incarnation, &[first], at).unwrap();
        }
        let promoted = Rotating {
            previous: vec![one],
            ..Rotating::only(two)
        };
        live.replace(keys(promoted.clone())).unwrap();
        let sealed = |live: &Keys, role| {
            let known = live.known().into_iter();
            let mut of_role = known.filter(|k| (k.purpose, k.role) == (Purpose::Connect, role));
            of_role.next().map(|known| known.sealed_at().since(NOW))
        };
        let three = std::time::Duration::from_secs(3);
        assert_eq!(sealed(&live, KeyRole::Previous), Some(three));
        assert_eq!(live.known().len(), 4);
        // A process that begins with a previous key does not know that it was not sealed with a moment ago.
        let again = Keys::new(keys(promoted), login(), NOW.after(three));
        assert_eq!(sealed(&again, KeyRole::Previous), Some(three));
        assert_eq!(
            again
                .known()
                .iter()
                .filter(|k| k.sealed_at().0 == 0)
                .count(),
            3
        );
    }

    #[test]
    fn who_does_not_hold_a_key_is_told_by_name() {
        let (one, two) = (master(1, 1), master(2, 2));
        let published = Rotating {
            next: Some(two.clone()),
            ..Rotating::only(one.clone())
        };
        let live = Keys::new(keys(published), login(), NOW);
        let (gateway, incarnation) = process();
        let holder = |keys: &[KeyId]| Holder {
            gateway: gateway.clone(),
            incarnation,
            keys: keys.into(),
        };
        let both = holder(&[derived(&one), derived(&two)]);
        let late = holder(&[derived(&one)]);
        assert!(
            live.outstanding(two.key.id(), std::slice::from_ref(&both))
                .is_empty()
        );
        assert_eq!(
            live.outstanding(two.key.id(), std::slice::from_ref(&late)),
            std::slice::from_ref(&gateway)
        );
        assert!(live.strangers(&[both.clone(), late]).is_empty());
        // Once it is retired, who holds it still is told.
        live.replace(keys(Rotating::only(two.clone()))).unwrap();
        let new = holder(&[derived(&two)]);
        assert!(live.strangers(&[new]).is_empty());
        assert_eq!(live.strangers(&[both]), [gateway]);
    }

    #[test]
    fn keys_that_cannot_be_told_apart_are_refused_and_change_nothing() {
        let live = Keys::new(keys(Rotating::only(master(1, 1))), login(), NOW);
        let same_epoch = Rotating {
            previous: vec![master(1, 2)],
            ..Rotating::only(master(1, 1))
        };
        let refused = live.replace(keys(same_epoch)).unwrap_err();
        assert_eq!(refused.label(), "same_epoch");
        for byte in [101, 102, 103] {
            let shared = live.replace(keys(Rotating::only(master(2, byte))));
            assert_eq!(shared.unwrap_err().label(), "shared_key");
        }
        assert_eq!(sealing(&live, &[]), Some(derived(&master(1, 1))));
    }
}
