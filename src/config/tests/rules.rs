//! What values may be, beside each other too, and what they are if nobody says.

use super::*;

#[test]
fn values_are_held_to_their_ranges_and_every_fault_is_told() {
    let error = Config::parse(
        "[session]\nconnect_life = \"5m 1s\"\nidle = \"0s\"\n[gateway]\ncapacity = 0\nserver_name = \"a b\"\n[demo]\ntick_hz = 0",
    )
    .unwrap_err();
    let faults: Vec<_> = error
        .problems()
        .iter()
        .map(|problem| (problem.key.as_str(), problem.position.map(|at| at.line)))
        .collect();
    assert_eq!(
        faults,
        [
            ("session.idle", Some(3)),
            ("session.connect_life", Some(2)),
            ("gateway.capacity", Some(5)),
            ("gateway.server_name", Some(6)),
            ("seat.activity_window", None),
            ("demo.tick_hz", Some(8)),
        ]
    );
}

#[test]
fn a_gateway_has_no_more_seats_than_it_can_attach_with() {
    let most = format!("1 to {}", crate::control::MAX_SEATS);
    assert_eq!(check::allowed("gateway.capacity"), most);
}

#[test]
fn rules_between_keys_hold() {
    for (text, expected) in [
        (
            "[session]\nabsolute = \"30m\"\ntoken_life = \"5m\"",
            "session.idle: 1h is longer than session.absolute (30m)",
        ),
        (
            "[sidecar]\nadmin_listen = \"127.0.0.1:7800\"",
            "line 2, column 16: sidecar.admin_listen: 127.0.0.1:7800 is the address of sidecar.auth_listen already",
        ),
        (
            "[sidecar]\nsession_key = { file = \"certs/transport.key\" }",
            "sidecar.transport_key: the same source as sidecar.session_key",
        ),
        (
            "[sidecar]\nprevious_refresh_key = { file = \"certs/refresh.key\" }",
            "line 2, column 24: sidecar.previous_refresh_key: the same source as sidecar.refresh_key",
        ),
        (
            "[sidecar]\nmetrics_listen = \"127.0.0.1:7801\"",
            "sidecar.metrics_listen: 127.0.0.1:7801 is the address of sidecar.control_listen already",
        ),
        (
            "[gateway]\nmax_handshakes = 100",
            "gateway.retry_above: 256 is more than gateway.max_handshakes (100)",
        ),
        (
            "[gateway]\nworkers = 256",
            "line 2, column 11: gateway.workers: 256 is out of range; allowed: 1 to 255",
        ),
        (
            "[gateway.budget]\ndatagrams = 3000",
            "line 2, column 13: gateway.budget.datagrams: 3000 is more than gateway.budget.packets (2000)",
        ),
        (
            "[gateway]\nnext_certificate = \"next.pem\"",
            "line 2, column 20: gateway.next_certificate: gateway.next_key is missing",
        ),
        (
            "[gateway.control]\nmax_stale = \"10s\"",
            "line 2, column 13: gateway.control.max_stale: 10s is shorter than gateway.control.admit_while_stale (30s)",
        ),
        (
            "[gateway]\ndrain = \"25h\"",
            "line 2, column 9: gateway.drain: 1day 1h is out of range; allowed: 0s to 24h",
        ),
        (
            "[seat]\ngrace = \"11m\"",
            "line 2, column 9: seat.grace: 11m is out of range; allowed: 0s to 10m",
        ),
        (
            "[gateway]\nadvertise = [\"0.0.0.0:7777\"]",
            "line 2, column 13: gateway.advertise: nobody can reach 0.0.0.0:7777",
        ),
        (
            "[gateway]\nkey = \"certs/gateway-gateway-1.key\"",
            "line 2, column 7: gateway.key: the same file as gateway.control.key",
        ),
        (
            "[gateway]\nidle_timeout = \"3s\"",
            "line 2, column 16: gateway.idle_timeout: 3s is out of range; allowed: 4s to 10m",
        ),
        (
            "[gateway]\nlisten = \"0.0.0.0:0\"",
            "line 2, column 10: gateway.listen: 0.0.0.0:0 leaves open what to tell clients",
        ),
        (
            "[log]\nfilter = \"tickgate=loud\"",
            "line 2, column 10: log.filter: \"tickgate=loud\" is no filter",
        ),
        (
            "[session]\nidle = \"10s\"\n[seat]\nactivity_window = \"6s\"",
            "line 4, column 19: seat.activity_window: more than half of session.idle (10s)",
        ),
    ] {
        let error = refusal(text);
        assert!(error.contains(expected), "{error}\nbut not\n{expected}");
    }
}

#[test]
fn conveniences_take_development_and_loopback() {
    let conveniences = "[sidecar]\ndev_login = true\ngenerate_keys = true\nplain_text = true\n";
    let error = refusal(conveniences);
    for line in [
        "line 2, column 13: sidecar.dev_login: a development convenience, and environment is \"production\"",
        "line 3, column 17: sidecar.generate_keys: a development convenience",
        "line 4, column 14: sidecar.plain_text: a development convenience",
    ] {
        assert!(error.contains(line), "{error}");
    }

    let development = format!("environment = \"development\"\n{conveniences}");
    assert!(Config::parse(&development).is_ok());

    let exposed = format!("{development}control_listen = \"0.0.0.0:7801\"\n");
    let error = refusal(&exposed);
    assert!(
        error.contains("sidecar.dev_login: a development convenience, and sidecar.control_listen (0.0.0.0:7801) is not a loopback address"),
        "{error}"
    );
}

#[test]
fn a_key_that_stands_in_the_configuration_is_refused_and_not_quoted() {
    let key = "k4.local.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for text in [
        format!("[sidecar]\nsession_key = \"{key}\""),
        format!("[sidecar]\nsession_key = {{ file = \"{key}\" }}"),
        format!("[sidecar]\nsession_key = {{ env = \"{key}\" }}"),
        format!("[sidecar]\nsession_key = {{ \"{key}\" = true }}"),
        format!("[sidecar]\nsession_key = \"{}\"", &key[9..]),
        format!("[sidecar]\nprevious_session_key = \"{key}\""),
        format!("[session]\nidle = \"{key}\""),
        format!("environment = \"{key}\""),
        format!("\"{key}\" = 1"),
        format!("[log]\nfilter = \"={key}\""),
        format!("[gateway]\nserver_name = \"{key}!\""),
        format!("[sidecar]\nsession_key = {key}"),
    ] {
        let error = Config::parse(&text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("AAAA"), "{error}");
    }
}

#[test]
fn relative_paths_count_from_the_files_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tickgate.toml");
    std::fs::write(&path, "[sidecar]\ncertificate = \"/etc/tickgate.pem\"").unwrap();
    let config = Config::load(&path).unwrap();
    let within = |name: &str| directory.path().join(name);
    assert_eq!(config.sidecar.certificate, Path::new("/etc/tickgate.pem"));
    assert_eq!(config.sidecar.key, within("certs/sidecar.key"));
    assert_eq!(
        config.sidecar.store,
        Store::Embedded(within("data/store.redb"))
    );
    assert_eq!(
        config.sidecar.transport_key,
        KeySource::File(within("certs/transport.key"))
    );
    assert_eq!(config.gateway.control.ca, within("certs/ca.pem"));

    std::fs::write(&path, "\n[demo]\ntick = 1").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{}: line 3, column 1: demo.tick", path.display())),
        "{error}"
    );
    let error = Config::load(&within("absent.toml")).unwrap_err();
    assert_eq!(error.label(), "config_unreadable");
}

#[test]
fn a_development_stack_keeps_to_loopback_and_its_own_directory() {
    let plain = "environment = \"development\"\n[sidecar]\nplain_text = true";
    let mut config = Config::parse(plain)
        .unwrap()
        .into_development(Path::new("/state"), true);
    // What it switched on for itself is within the rules.
    assert_eq!(Config::parse(&config.to_toml()).unwrap(), config);
    assert!(config.sidecar.dev_login && config.sidecar.generate_keys);
    assert!(!config.sidecar.plain_text, "dev.json says https");
    assert_eq!(config.gateway.server_name, DEV_SERVER_NAME);
    assert_eq!(config.gateway.listen, "127.0.0.1:0".parse().unwrap());
    assert!(config.paths_mut().all(|path| path.starts_with("/state")));
    let fixed = Config::default().into_development(Path::new("/state"), false);
    assert_eq!(
        fixed.gateway.control.sidecar.to_string(),
        "https://127.0.0.1:7801"
    );
}

#[test]
fn the_defaults_are_those_of_gateway_and_sidecar() {
    use crate::{
        gateway::{Limits, SeatRates},
        seat::SeatConfig,
        sidecar::SessionLives,
    };
    let Config {
        sidecar,
        gateway,
        session,
        seat,
        demo,
        ..
    } = Config::default();
    let limits = Limits {
        handshakes: gateway.max_handshakes as usize,
        retry_above: gateway.retry_above as usize,
        handshake_timeout: gateway.handshake_timeout,
        prefix_rate: gateway.prefix_rate,
        prefix_burst: gateway.prefix_burst,
        awaiting_hello: gateway.max_awaiting_hello as usize,
        hello_timeout: gateway.hello_timeout,
        idle_timeout: gateway.idle_timeout,
        single_use: gateway.single_use_capacity as usize,
        admit_while_stale: gateway.control.admit_while_stale,
        max_stale: gateway.control.max_stale,
        message_backlog: gateway.message_backlog.bytes(),
        rates: SeatRates {
            packets: gateway.budget.packets,
            datagrams: gateway.budget.datagrams,
            bytes: u32::try_from(gateway.budget.bytes.0).unwrap(),
            messages: gateway.budget.messages,
            moves: gateway.budget.moves,
            burst: gateway.budget.burst,
        },
        ..Limits::default()
    };
    assert_eq!(limits, Limits::default());
    assert_eq!(
        gateway.socket_buffer.bytes(),
        crate::gateway::DEFAULT_SOCKET_BUFFER
    );
    let seats = SeatConfig::default();
    assert_eq!(
        (gateway.capacity, session.idle, seat.grace),
        (seats.capacity, seats.idle, seats.grace)
    );
    assert_eq!(
        (seat.same_player, seats.same_player),
        (SamePlayer::NewestWins, crate::seat::SamePlayer::NewestWins)
    );
    assert_eq!(
        sidecar.connect_tokens_per_minute,
        crate::sidecar::DEFAULT_CONNECT_TOKENS_PER_MINUTE
    );
    assert_eq!(
        sidecar.refreshes_per_minute,
        crate::sidecar::DEFAULT_REFRESHES_PER_MINUTE
    );
    assert_eq!(seat.window_ticks(demo.tick_hz), seats.window);
    let lives = SessionLives {
        idle: session.idle,
        absolute: session.absolute,
        session_token: session.token_life,
        connect_token: session.connect_life,
        longest_connect_token: session.longest_connect_life,
    };
    assert_eq!(lives, SessionLives::default());
}

#[test]
fn the_default_files_are_those_that_certs_makes() {
    let (config, layout) = (Config::default(), Layout::new("certs"));
    let id = &config.gateway.id;
    for (certificate, key, made) in [
        (
            &config.sidecar.certificate,
            &config.sidecar.key,
            layout.sidecar(),
        ),
        (
            &config.gateway.certificate,
            &config.gateway.key,
            layout.gateway_quic(id),
        ),
        (
            &config.gateway.control.certificate,
            &config.gateway.control.key,
            layout.gateway(id),
        ),
    ] {
        assert_eq!((certificate, key), (&made.certificate, &made.key));
    }
    assert_eq!(config.sidecar.client_ca, layout.ca());
    assert_eq!(config.gateway.control.ca, layout.ca());
}

#[test]
fn the_activity_window_holds_at_every_rate() {
    let seat = Seat::default();
    for hz in [1, 20, 60, 128] {
        assert_eq!(seat.window_ticks(hz), hz);
    }
    let short = Seat {
        activity_window: Duration::from_millis(50),
        ..seat
    };
    assert_eq!(short.window_ticks(1), 1);
}

#[test]
fn sizes_and_urls_are_read_exactly() {
    for (text, bytes) in [
        ("0", 0),
        ("1000", 1_000),
        ("64KiB", 65_536),
        ("4 MiB", 4 << 20),
        ("1GiB", 1 << 30),
    ] {
        let config: toml::Table = format!("size = \"{text}\"").parse().unwrap();
        let size: Size = config["size"].clone().try_into().unwrap();
        assert_eq!(size, Size(bytes), "{text}");
    }
    assert_eq!(Size(4 << 20).to_string(), "4MiB");
    assert_eq!(Size(1_000).to_string(), "1000");

    for good in [
        "https://127.0.0.1:7801",
        "https://[::1]:7801",
        "https://sidecar.internal:443/",
    ] {
        assert!(good.parse::<SidecarUrl>().is_ok(), "{good}");
    }
    for bad in [
        "",
        "https://",
        "https://a",
        "https://a:x",
        "https://a:1/path",
        "http://a:1",
        "https://u@a:1",
        "https://:1",
    ] {
        assert!(bad.parse::<SidecarUrl>().is_err(), "{bad}");
    }
}

#[test]
fn issuers_stand_in_a_list_or_in_sections_and_are_google_unless_they_say_otherwise() {
    let listed = "[sidecar.login]\noidc = [{ client_ids = [\"a\"] }, { name = \"studio\", issuer = \"https://idp.example.com\", client_ids = [\"b\"], ca = \"ca.pem\" }]";
    let config = Config::parse(listed).unwrap();
    let sections = "[[sidecar.login.oidc]]\nclient_ids = [\"a\"]\n[[sidecar.login.oidc]]\nname = \"studio\"\n\
                    issuer = \"https://idp.example.com\"\nclient_ids = [\"b\"]\nca = \"ca.pem\"";
    assert_eq!(Config::parse(sections).unwrap(), config);
    assert_eq!(Config::parse(&config.to_toml()).unwrap(), config);
    let [google, studio] = &config.sidecar.login.oidc[..] else {
        panic!("not two");
    };
    let text = (google.name.to_string(), google.issuer.to_string());
    assert_eq!(
        (&*text.0, &*text.1),
        ("google", "https://accounts.google.com")
    );
    assert_eq!(studio.client_ids, ["b"]);
    assert!(config.input_files().any(|file| file == Path::new("ca.pem")));
    let mut moved = config;
    moved.rebase(Path::new("/etc/tickgate"));
    let ca = moved.sidecar.login.oidc[1].ca.as_deref();
    assert_eq!(ca, Some(Path::new("/etc/tickgate/ca.pem")));
}

#[test]
fn what_is_wrong_with_an_issuer_is_named_with_its_line() {
    for (text, expected) in [
        (
            "[sidecar.login]\noidc = [{}]",
            "line 2, column 8: sidecar.login.oidc: google needs 1 to 16 client_ids",
        ),
        (
            "[[sidecar.login.oidc]]\nclient_ids = [\"a b\"]",
            "sidecar.login.oidc: google needs 1 to 16 client_ids",
        ),
        (
            "[[sidecar.login.oidc]]\nclient_ids = [\"a\"]\n[[sidecar.login.oidc]]\nclient_ids = [\"b\"]",
            "sidecar.login.oidc: two of them are called google",
        ),
        (
            "[sidecar.login]\noidc = [{ client_ids = [\"a\"], issuer = \"http://idp.example.com\" }]",
            "line 2, column 40: sidecar.login.oidc: invalid value",
        ),
        (
            "[[sidecar.login.oidc]]\nname = \"email\"",
            "line 2, column 8: sidecar.login.oidc: invalid value",
        ),
        (
            "[[sidecar.login.oidc]]\nclient_id = \"a\"",
            "line 2, column 1: sidecar.login.oidc: unknown key `client_id`",
        ),
    ] {
        let error = refusal(text);
        assert!(error.contains(expected), "{error}\nbut not\n{expected}");
        assert!(error.contains("; allowed: up to 16 of"), "{error}");
    }
}
