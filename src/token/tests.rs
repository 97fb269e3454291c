//! What holds of every token, whatever its purpose.

use proptest::prelude::*;

use super::{
    envelope,
    purpose::{REFRESH_ASSERTION, SESSION_ASSERTION, connect_assertion},
    *,
};
use crate::{
    clock::Timestamp,
    id::{ClientId, GatewayId, Incarnation, PlayerGeneration, PlayerId, Revision, SessionId},
};

const NOW: Timestamp = Timestamp(1_700_000_000_123);
const MINUTE: Duration = Duration::from_secs(60);
const MS: Duration = Duration::from_millis(1);

fn gateway() -> GatewayId {
    "eu-1.arena".parse().unwrap()
}

fn session_claims() -> SessionClaims {
    SessionClaims {
        player: PlayerId(7),
        session: SessionId(0x0192_5f6a_0000_1234_5678_9abc_def0_1234),
        generation: 3,
        player_generation: PlayerGeneration(2),
        role: "player".into(),
        method: "dev".into(),
        issued_at: NOW,
        expires_at: NOW.after(15 * MINUTE),
    }
}

fn refresh_claims() -> RefreshClaims {
    RefreshClaims {
        session: SessionId(0x0192_5f6a_0000_1234_5678_9abc_def0_1234),
        generation: 3,
        player_generation: PlayerGeneration(2),
        issued_at: NOW,
        expires_at: NOW.after(24 * 60 * MINUTE),
    }
}

fn connect_claims() -> ConnectClaims {
    ConnectClaims {
        player: PlayerId(7),
        session: SessionId(0x0192_5f6a_0000_1234_5678_9abc_def0_1234),
        player_generation: PlayerGeneration(2),
        client: ClientId(u64::MAX),
        nonce: Nonce([0xa5; 24]),
        gateway: gateway(),
        revision: Revision(42),
        session_ends_at: NOW.after(60 * MINUTE),
        client_key: None,
        issued_at: NOW,
        expires_at: NOW.after(MINUTE / 2),
    }
}

fn transport_key() -> TransportKey {
    TransportKey::from_bytes(&[9; 32])
}

fn connect_keyring() -> ConnectKeyring {
    let mut keyring = ConnectKeyring::new(gateway());
    keyring.replace(vec![transport_key()]);
    keyring
}

fn session_keyring() -> SessionKeyring {
    SessionKeyring::new(SessionKey::from_bytes(&[9; 32]), None)
}

fn refresh_keyring() -> RefreshKeyring {
    RefreshKeyring::new(RefreshKey::from_bytes(&[9; 32]), None)
}

/// Seals any payload as a connect token of our gateway.
fn seal_payload(payload: &str) -> String {
    envelope::seal(&transport_key().0, payload, &connect_assertion(&gateway()))
}

#[test]
fn claims_survive_their_token() {
    let keyring = session_keyring();
    assert_eq!(
        keyring.open(&keyring.seal(&session_claims()), NOW),
        Ok(session_claims())
    );
    let keyring = refresh_keyring();
    assert_eq!(
        keyring.open(&keyring.seal(&refresh_claims()), NOW),
        Ok(refresh_claims())
    );
    let keyring = connect_keyring();
    for client_key in [None, Some([0xee; 32])] {
        let claims = ConnectClaims {
            client_key,
            ..connect_claims()
        };
        let token = seal_connect(&transport_key(), &claims);
        assert_eq!(keyring.open(&token, NOW), Ok(claims));
    }
}

#[test]
fn claims_are_written_as_documented() {
    let json: serde_json::Value = serde_json::from_str(&connect_claims().to_json()).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "sub": "00000000000000000000000000000007",
            "jti": "01J9FPM00028T5CY4TQKFF04HM",
            "pgen": 2,
            "cid": "18446744073709551615",
            "nonce": "paWlpaWlpaWlpaWlpaWlpaWlpaWlpaWl",
            "aud": "eu-1.arena",
            "rev": 42,
            "sexp": "2023-11-14T23:13:20.123Z",
            "iat": "2023-11-14T22:13:20.123Z",
            "exp": "2023-11-14T22:13:50.123Z",
        })
    );
    let json: serde_json::Value = serde_json::from_str(&session_claims().to_json()).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "sub": "00000000000000000000000000000007",
            "jti": "01J9FPM00028T5CY4TQKFF04HM",
            "gen": 3,
            "pgen": 2,
            "role": "player",
            "amr": "dev",
            "iat": "2023-11-14T22:13:20.123Z",
            "exp": "2023-11-14T22:28:20.123Z",
        })
    );
    let json: serde_json::Value = serde_json::from_str(&refresh_claims().to_json()).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "jti": "01J9FPM00028T5CY4TQKFF04HM",
            "gen": 3,
            "pgen": 2,
            "iat": "2023-11-14T22:13:20.123Z",
            "exp": "2023-11-15T22:13:20.123Z",
        })
    );
}

#[test]
fn the_longest_tokens_fit() {
    let claims = ConnectClaims {
        gateway: "x".repeat(63).parse().unwrap(),
        client_key: Some([1; 32]),
        revision: Revision(u64::MAX),
        player_generation: PlayerGeneration(u32::MAX),
        ..connect_claims()
    };
    let token = seal_connect(&transport_key(), &claims);
    assert!(token.len() <= 740, "{}", token.len());
    let claims = SessionClaims {
        role: "r".repeat(64),
        method: "m".repeat(64),
        generation: u32::MAX,
        player_generation: PlayerGeneration(u32::MAX),
        ..session_claims()
    };
    let token = session_keyring().seal(&claims);
    assert!(token.len() <= 740, "{}", token.len());
}

#[test]
fn a_token_of_one_purpose_never_opens_as_another_even_under_the_same_key_bytes() {
    // The same 32 bytes everywhere.
    let session = session_keyring().seal(&session_claims());
    let refresh = refresh_keyring().seal(&refresh_claims());
    let connect = seal_connect(&transport_key(), &connect_claims());
    let bad_mac = Some(Rejection::BadMac);
    for foreign in [&session, &refresh] {
        assert_eq!(connect_keyring().open(foreign, NOW).err(), bad_mac);
    }
    for foreign in [&session, &connect] {
        assert_eq!(refresh_keyring().open(foreign, NOW).err(), bad_mac);
    }
    for foreign in [&refresh, &connect] {
        assert_eq!(session_keyring().open(foreign, NOW).err(), bad_mac);
    }
    // Nor when the claims would fit: it is the assertion that tells them apart, not the shape of the payload.
    let key = SessionKey::from_bytes(&[9; 32]);
    for assertion in [SESSION_ASSERTION, REFRESH_ASSERTION] {
        let disguised = envelope::seal(&key.0, &connect_claims().to_json(), assertion);
        assert_eq!(connect_keyring().open(&disguised, NOW).err(), bad_mac);
    }
    let disguised = envelope::seal(&key.0, &refresh_claims().to_json(), SESSION_ASSERTION);
    assert_eq!(refresh_keyring().open(&disguised, NOW).err(), bad_mac);
}

#[test]
fn a_token_of_one_purpose_never_opens_under_the_key_of_another() {
    let master = TransportMasterKey::from_bytes(&[8; 32]);
    let derived = master.derive(&gateway(), Incarnation(1), 1);
    let mut keyring = ConnectKeyring::new(gateway());
    keyring.replace(vec![derived.clone()]);
    let session = SessionKeyring::new(
        SessionKey::from_bytes(&[1; 32]),
        Some(SessionKey::from_bytes(&[2; 32])),
    );
    let connect = seal_connect(&derived, &connect_claims());
    assert_eq!(keyring.open(&connect, NOW), Ok(connect_claims()));
    assert_eq!(session.open(&connect, NOW), Err(Rejection::UnknownKey));
    let token = session.seal(&session_claims());
    assert_eq!(keyring.open(&token, NOW), Err(Rejection::UnknownKey));
    // A connect token sealed under the master key itself is worth nothing either.
    let master = TransportKey::from_paserk(&master.to_paserk()).unwrap();
    let token = seal_connect(&master, &connect_claims());
    assert_eq!(keyring.open(&token, NOW), Err(Rejection::UnknownKey));
}

#[test]
fn a_connect_token_opens_at_its_gateway_and_process_only() {
    let for_other = ConnectClaims {
        gateway: "eu-2.arena".parse().unwrap(),
        ..connect_claims()
    };
    // Another gateway, even if it held the same key.
    let token = seal_connect(&transport_key(), &for_other);
    assert_eq!(connect_keyring().open(&token, NOW), Err(Rejection::BadMac));
    // The audience is judged as well, whoever sealed it under our assertion.
    let token = seal_payload(&for_other.to_json());
    assert_eq!(
        connect_keyring().open(&token, NOW),
        Err(Rejection::WrongAudience)
    );
    // An earlier process of the same gateway.
    let master = TransportMasterKey::generate();
    let token = seal_connect(
        &master.derive(&gateway(), Incarnation(1), 1),
        &connect_claims(),
    );
    let mut keyring = ConnectKeyring::new(gateway());
    keyring.replace(vec![master.derive(&gateway(), Incarnation(2), 1)]);
    assert_eq!(keyring.open(&token, NOW), Err(Rejection::UnknownKey));
}

#[test]
fn keys_rotate() {
    let (old, new) = (SessionKey::generate(), SessionKey::generate());
    let before = SessionKeyring::new(old.clone(), None).seal(&session_claims());
    let rotated = SessionKeyring::new(new.clone(), Some(old));
    assert_eq!(rotated.open(&before, NOW), Ok(session_claims()));
    let done = SessionKeyring::new(new, None);
    assert_eq!(
        done.open(&rotated.seal(&session_claims()), NOW),
        Ok(session_claims())
    );
    assert_eq!(done.open(&before, NOW), Err(Rejection::UnknownKey));

    let (old, new) = (RefreshKey::generate(), RefreshKey::generate());
    let before = RefreshKeyring::new(old.clone(), None).seal(&refresh_claims());
    let rotated = RefreshKeyring::new(new.clone(), Some(old));
    assert_eq!(rotated.open(&before, NOW), Ok(refresh_claims()));
    let done = RefreshKeyring::new(new, None);
    let after = rotated.seal(&refresh_claims());
    assert_eq!(done.open(&after, NOW), Ok(refresh_claims()));
    assert_eq!(done.open(&before, NOW), Err(Rejection::UnknownKey));

    let mut keyring = connect_keyring();
    let token = seal_connect(&transport_key(), &connect_claims());
    keyring.replace(vec![TransportKey::generate(), transport_key()]);
    assert!(keyring.open(&token, NOW).is_ok());
    keyring.replace(Vec::new());
    assert!(keyring.is_empty());
    assert_eq!(keyring.open(&token, NOW), Err(Rejection::UnknownKey));
}

#[test]
fn times_are_judged_with_leeway_and_expiry_last() {
    let keyring = connect_keyring();
    let token = seal_connect(&transport_key(), &connect_claims());
    let expires = connect_claims().expires_at;
    let earliest = NOW.before(LEEWAY);
    assert!(keyring.open(&token, earliest).is_ok());
    assert_eq!(
        keyring.open(&token, earliest.before(MS)),
        Err(Rejection::NotYetValid)
    );
    assert!(
        keyring
            .open(&token, expires.after(LEEWAY).before(MS))
            .is_ok()
    );
    let late = expires.after(LEEWAY);
    assert_eq!(keyring.open(&token, late), Err(Rejection::Expired));

    // Late, and wrong in another way too: the other way is told.
    let foreign = ConnectClaims {
        gateway: "eu-2".parse().unwrap(),
        ..connect_claims()
    };
    let token = seal_payload(&foreign.to_json());
    assert_eq!(keyring.open(&token, late), Err(Rejection::WrongAudience));
    let forged = seal_connect(&TransportKey::generate(), &connect_claims());
    assert_eq!(keyring.open(&forged, late), Err(Rejection::UnknownKey));
    let keyring = session_keyring();
    let token = keyring.seal(&session_claims());
    let late = session_claims().expires_at.after(LEEWAY);
    assert_eq!(keyring.open(&token, late), Err(Rejection::Expired));
    assert_eq!(
        keyring.open(&token, earliest.before(MS)),
        Err(Rejection::NotYetValid)
    );
    let keyring = refresh_keyring();
    let token = keyring.seal(&refresh_claims());
    let late = refresh_claims().expires_at.after(LEEWAY);
    assert!(keyring.open(&token, late.before(MS)).is_ok());
    assert_eq!(keyring.open(&token, late), Err(Rejection::Expired));
    assert_eq!(
        keyring.open(&token, earliest.before(MS)),
        Err(Rejection::NotYetValid)
    );
}

#[test]
fn contradictory_times_are_bad_claims() {
    let keyring = connect_keyring();
    for expires_at in [NOW, NOW.before(MS), NOW.after(MAX_CONNECT_LIFE + MS)] {
        let claims = ConnectClaims {
            expires_at,
            ..connect_claims()
        };
        let token = seal_connect(&transport_key(), &claims);
        assert_eq!(keyring.open(&token, NOW), Err(Rejection::BadClaims));
    }
    let claims = ConnectClaims {
        expires_at: NOW.after(MAX_CONNECT_LIFE),
        ..connect_claims()
    };
    assert!(
        keyring
            .open(&seal_connect(&transport_key(), &claims), NOW)
            .is_ok()
    );
}

#[test]
fn authentic_tokens_with_other_claims_are_refused() {
    let good = connect_claims().to_json();
    let keyring = connect_keyring();
    assert!(keyring.open(&seal_payload(&good), NOW).is_ok());
    for bad in [
        String::new(),
        "{}".into(),
        "[]".into(),
        good.replace("\"rev\":42,", ""),
        good.replace("\"rev\":42", "\"rev\":-1"),
        good.replace("\"rev\":42", "\"rev\":42,\"rev\":42"),
        good.replace("\"rev\":42", "\"rev\":42,\"more\":1"),
        good.replace("\"pgen\":2", "\"pgen\":4294967296"),
        good.replace("18446744073709551615", "18446744073709551616"),
        good.replace("paWl", "paW"),
        good.replace("paWl", "pa+l"),
        good.replace("2023-11-14T22:13:50.123Z", "tomorrow"),
        good.replace("eu-1", "EU 1"),
        "[".repeat(300),
    ] {
        assert_ne!(bad, good);
        assert_eq!(
            keyring.open(&seal_payload(&bad), NOW),
            Err(Rejection::BadClaims),
            "{bad}"
        );
    }

    let good = refresh_claims().to_json();
    let seal = |payload: &str| {
        let key = RefreshKey::from_bytes(&[9; 32]);
        envelope::seal(&key.0, payload, REFRESH_ASSERTION)
    };
    assert!(refresh_keyring().open(&seal(&good), NOW).is_ok());
    for bad in [
        "{}".into(),
        session_claims().to_json(),
        good.replace("\"gen\":3,", ""),
        good.replace("\"gen\":3", "\"gen\":4294967296"),
        good.replace("\"gen\":3", "\"gen\":3,\"more\":1"),
        good.replace("\"gen\":3", "\"gen\":3,\"gen\":3"),
        good.replace("2023-11-15T22:13:20.123Z", "2023-11-14T22:13:20.123Z"),
    ] {
        assert_ne!(bad, good);
        assert_eq!(
            refresh_keyring().open(&seal(&bad), NOW),
            Err(Rejection::BadClaims),
            "{bad}"
        );
    }
}

#[test]
fn a_key_of_two_purposes_is_found() {
    let shared = SessionKey::generate();
    let same_bytes = TransportMasterKey::from_paserk(&shared.to_paserk()).unwrap();
    let keys = [
        (SessionKey::PURPOSE, SessionKey::generate().id()),
        (SessionKey::PURPOSE, shared.id()),
        (
            TransportMasterKey::PURPOSE,
            TransportMasterKey::generate().id(),
        ),
        (TransportMasterKey::PURPOSE, same_bytes.id()),
    ];
    let error = ensure_unshared(&keys).unwrap_err();
    assert_eq!(
        (error.id, error.first, error.second),
        (shared.id(), Purpose::Session, Purpose::Connect)
    );
    assert!(
        error
            .to_string()
            .contains("as session key and as connect key")
    );
    assert_eq!(ensure_unshared(&keys[..3]), Ok(()));
    assert_eq!(ensure_unshared(&[keys[1], keys[1]]), Ok(()));
}

#[test]
fn every_single_changed_character_is_refused() {
    let token = seal_connect(&transport_key(), &connect_claims());
    let keyring = connect_keyring();
    for at in 0..token.len() {
        // One flipped bit, low and high, and characters of the alphabet and outside it.
        for new in [
            token.as_bytes()[at] ^ 1,
            token.as_bytes()[at] ^ 0x20,
            b'A',
            b'.',
            b'=',
            b'\n',
        ] {
            let mut changed = token.clone().into_bytes();
            changed[at] = new;
            let changed = String::from_utf8(changed).unwrap();
            if changed != token {
                assert!(keyring.open(&changed, NOW).is_err(), "{at}: {changed}");
            }
        }
        assert!(keyring.open(&token[..at], NOW).is_err());
    }
}

proptest! {
    #[test]
    fn arbitrary_text_is_refused(text in any::<String>()) {
        prop_assert!(connect_keyring().open(&text, NOW).is_err());
        prop_assert!(session_keyring().open(&text, NOW).is_err());
        prop_assert!(refresh_keyring().open(&text, NOW).is_err());
    }

    #[test]
    fn token_like_text_is_refused(text in "v4\\.local\\.[A-Za-z0-9_-]{0,600}(\\.[A-Za-z0-9_-]{0,90})?") {
        prop_assert!(connect_keyring().open(&text, NOW).is_err());
    }

    #[test]
    fn a_good_footer_saves_no_bad_token(body in "[A-Za-z0-9_-]{0,600}") {
        let token = seal_connect(&transport_key(), &connect_claims());
        let footer = token.rsplit_once('.').unwrap().1;
        let forged = format!("v4.local.{body}.{footer}");
        prop_assert!(matches!(
            connect_keyring().open(&forged, NOW),
            Err(Rejection::BadMac | Rejection::Malformed)
        ));
    }

    #[test]
    fn any_replaced_span_is_refused(
        at in 0usize..800,
        length in 0usize..12,
        new in any::<String>(),
    ) {
        let token = seal_connect(&transport_key(), &connect_claims());
        let start = at.min(token.len());
        let end = (start + length).min(token.len());
        let changed = format!("{}{new}{}", &token[..start], &token[end..]);
        prop_assume!(changed != token);
        prop_assert!(connect_keyring().open(&changed, NOW).is_err());
    }

    #[test]
    fn authentic_payloads_never_panic(payload in any::<String>()) {
        prop_assert!(connect_keyring().open(&seal_payload(&payload), NOW).is_err());
    }
}
