//! Texts that say they are tokens, and what an authentic one says: the latter as the checks behind the MAC see it.

use std::fmt::Debug;

use super::{
    ConnectClaims, ConnectKeyring, InvalidKey, LEEWAY, LoginKey, RefreshClaims, RefreshKey,
    RefreshKeyring, Rejection, SessionClaims, SessionKey, SessionKeyring, TransportKey, named_key,
    read_connect, read_refresh, read_session,
};
use crate::{clock::Timestamp, id::GatewayId};

/// The gateway for which the inputs' connect tokens are meant.
const GATEWAY: &str = "gateway-1";

/// Reads the input as the claims of every purpose.
///
/// # Panics
/// If claims do not survive being written, are judged by other bounds than they name, or are those of two purposes at once.
pub fn claims(input: &[u8]) {
    let (Ok(text), Ok(gateway)) = (str::from_utf8(input), GATEWAY.parse::<GatewayId>()) else {
        return;
    };
    let session = SessionClaims::from_json(text);
    let refresh = RefreshClaims::from_json(text);
    let connect = ConnectClaims::from_json(text);
    let understood = [session.is_ok(), refresh.is_ok(), connect.is_ok()];
    assert!(
        understood.iter().filter(|is_one| **is_one).count() < 2,
        "claims of two purposes"
    );
    if let Some(claims) = only_bad_claims(session) {
        assert_eq!(
            SessionClaims::from_json(&claims.to_json()),
            Ok(claims.clone())
        );
        let check = |now| claims.check(now);
        keeps_its_times(claims.issued_at, claims.expires_at, check);
    }
    if let Some(claims) = only_bad_claims(refresh) {
        assert_eq!(RefreshClaims::from_json(&claims.to_json()), Ok(claims));
        keeps_its_times(claims.issued_at, claims.expires_at, |now| claims.check(now));
    }
    if let Some(claims) = only_bad_claims(connect) {
        assert_eq!(
            ConnectClaims::from_json(&claims.to_json()),
            Ok(claims.clone())
        );
        let check = |now| {
            claims.check(&gateway, now)?;
            claims.check_expiry(now)
        };
        keeps_its_times(claims.issued_at, claims.expires_at, check);
        if claims.gateway != gateway {
            assert!(check(claims.issued_at).is_err(), "another gateway's token");
        }
    }
}

/// What was read, if it could be. Behind the MAC there is one reason why it could not.
fn only_bad_claims<T: Debug + PartialEq>(claims: Result<T, Rejection>) -> Option<T> {
    match claims {
        Ok(claims) => Some(claims),
        Err(rejection) => {
            assert_eq!(rejection, Rejection::BadClaims);
            None
        }
    }
}

/// Whatever the times, and whenever it is judged: what is accepted lies between them, leeway granted.
fn keeps_its_times(
    issued: Timestamp,
    expires: Timestamp,
    check: impl Fn(Timestamp) -> Result<(), Rejection>,
) {
    let edges = [Timestamp(0), Timestamp(u64::MAX), issued, expires];
    for edge in edges {
        for now in [edge.before(LEEWAY), edge, edge.after(LEEWAY)] {
            if check(now).is_ok() {
                assert!(issued < expires, "an end before the beginning");
                assert!(issued <= now.after(LEEWAY), "from the future");
                assert!(now < expires.after(LEEWAY), "expired");
            }
        }
    }
}

/// Offers the input, as text, to everything that opens tokens or reads keys. The keys are known: 32 ones, twos, threes and fours.
///
/// # Panics
/// If it opens for two purposes, if it opens although it names no key, or if a key does not survive being written.
pub fn tokens(input: &[u8]) {
    let (Ok(text), Ok(gateway)) = (str::from_utf8(input), GATEWAY.parse::<GatewayId>()) else {
        return;
    };
    // Nothing here depends on the keys, but making them costs more than all the rest.
    thread_local! {
        static KEYS: Keys = Keys::new();
    }
    KEYS.with(|keys| keys.offer(text, &gateway));
    keeps_its_text(text, SessionKey::from_paserk(text), |key| {
        key.to_paserk().to_string()
    });
    keeps_its_text(text, RefreshKey::from_paserk(text), |key| {
        key.to_paserk().to_string()
    });
    keeps_its_text(text, LoginKey::from_paserk(text), |key| {
        key.to_paserk().to_string()
    });
}

struct Keys {
    session: (SessionKey, SessionKeyring),
    refresh: (RefreshKey, RefreshKeyring),
    transport: TransportKey,
    connect: Option<ConnectKeyring>,
}

impl Keys {
    fn new() -> Self {
        let session = SessionKey::from_bytes(&[1; 32]);
        let refresh = RefreshKey::from_bytes(&[2; 32]);
        let transport = TransportKey::from_bytes(&[3; 32]);
        let connect = GATEWAY.parse().ok().map(|gateway| {
            let mut keyring = ConnectKeyring::new(gateway);
            keyring.replace(vec![transport.clone()]);
            keyring
        });
        Self {
            session: (session.clone(), SessionKeyring::new(session, None)),
            refresh: (refresh.clone(), RefreshKeyring::new(refresh, None)),
            transport,
            connect,
        }
    }

    fn offer(&self, text: &str, gateway: &GatewayId) {
        let named = named_key(text);
        let opened = [
            read_session(&self.session.0, text).map(|_| ()),
            read_refresh(&self.refresh.0, text).map(|_| ()),
            read_connect(&self.transport, gateway, text).map(|_| ()),
        ];
        assert!(
            opened.iter().filter(|result| result.is_ok()).count() < 2,
            "a token of two purposes"
        );
        match named {
            Err(rejection) => {
                assert_eq!(rejection, Rejection::Malformed);
                let refused = |result: &Result<(), _>| *result == Err(Rejection::Malformed);
                assert!(opened.iter().all(refused), "no key is named");
            }
            Ok(id) => {
                let held = [
                    self.session.0.id(),
                    self.refresh.0.id(),
                    self.transport.id(),
                ];
                for (result, held) in opened.iter().zip(held) {
                    let is_unknown = *result == Err(Rejection::UnknownKey);
                    assert_eq!(is_unknown, id != held, "by its key alone");
                }
            }
        }
        // As the servers do it, at the time that the inputs' tokens are of.
        let now = Timestamp(1_700_000_000_000);
        let _ = self.session.1.open(text, now);
        let _ = self.refresh.1.open(text, now);
        let _ = self.connect.as_ref().map(|keyring| keyring.open(text, now));
    }
}

fn keeps_its_text<K>(text: &str, key: Result<K, InvalidKey>, paserk: impl Fn(&K) -> String) {
    if let Ok(key) = key {
        assert_eq!(paserk(&key), text, "a key has one text");
    }
}
