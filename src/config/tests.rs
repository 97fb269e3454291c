//! The rules of the configuration, from outside.

use std::{collections::BTreeSet, time::Duration};

use super::*;

const REPOSITORY_FILE: &str = include_str!("../../config.toml");

fn refusal(text: &str) -> String {
    Config::parse(text).unwrap_err().to_string()
}

/// The keys of `table` with their sections; what `check` knows as one key is not taken apart.
fn keys_of(table: &toml::Table, prefix: &str, keys: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match value {
            toml::Value::Table(inner) if check::allowed(&path).is_empty() => {
                keys_of(inner, &format!("{path}."), keys);
            }
            _ => {
                keys.insert(path);
            }
        }
    }
}

fn keys(text: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    keys_of(&text.parse().unwrap(), "", &mut keys);
    keys
}

#[test]
fn the_repositorys_file_is_the_default() {
    assert_eq!(Config::parse(REPOSITORY_FILE).unwrap(), Config::default());
    assert_eq!(Config::parse("").unwrap(), Config::default());
}

#[test]
fn every_key_stands_in_the_repositorys_file() {
    let schema = keys(&Config::default().to_toml());
    let rules: BTreeSet<_> = check::KEYS.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(keys(REPOSITORY_FILE), schema);
    assert_eq!(rules, schema);
}

#[test]
fn the_repositorys_file_says_what_each_key_allows() {
    let mut section = String::new();
    let mut above = "";
    for line in REPOSITORY_FILE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if !line.starts_with('#') && !line.is_empty() {
            let key = format!("{section}{}", line.split(' ').next().unwrap());
            assert_eq!(
                above,
                format!("# Allowed: {}", check::allowed(&key)),
                "{key}"
            );
        }
        above = line;
    }
}

#[test]
fn the_configuration_survives_its_text() {
    let text = "[log]\nfilter = \"warn,tickgate=debug\"\n[session]\nidle = \"90m\"\n\
                [sidecar]\nsession_key = { env = \"SESSION_KEY\" }\nstore = \"/var/lib/tickgate\"\n\
                [gateway]\nid = \"eu-1\"\nadvertise = [\"203.0.113.7:7777\"]\nsocket_buffer = \"65536\"\n\
                 metrics_listen = \"\"\nnext_certificate = \"a.pem\"\nnext_key = \"a.key\"\nstate = \"\"\n\
                [gateway.control]\nsidecar = \"https://sidecar.internal:7801\"\nmax_stale = \"2h\"";
    let config = Config::parse(text).unwrap();
    assert_eq!(config.session.idle, Duration::from_secs(5_400));
    assert_eq!(
        config.sidecar.session_key,
        KeySource::Env("SESSION_KEY".into())
    );
    assert_eq!(config.gateway.socket_buffer, Size(65_536));
    assert_eq!(
        (config.gateway.metrics_listen, &config.gateway.state),
        (None, &None)
    );
    assert_eq!(
        config.gateway.control.max_stale,
        Some(Duration::from_secs(7_200))
    );
    assert_eq!(Config::parse(&config.to_toml()).unwrap(), config);
}

#[test]
fn a_redis_server_has_a_section_of_its_own_and_its_password_a_place() {
    let text = "[sidecar]\nstore = \"redis\"\n[sidecar.redis]\nurl = \"rediss://tickgate@db.internal:6380/2\"\n\
                password = { file = \"redis.password\" }\nca = \"ca.pem\"\nprefix = \"eu:\"";
    let mut config = Config::parse(text).unwrap();
    assert_eq!(config.sidecar.store, Store::Redis);
    assert_eq!(config.sidecar.redis.prefix, "eu:");
    assert_eq!(Config::parse(&config.to_toml()).unwrap(), config);
    let folder = tempfile::tempdir().unwrap();
    config.rebase(folder.path());
    let password = folder.path().join("redis.password");
    let files: Vec<_> = config.input_files().collect();
    assert!(files.contains(&&*password), "{files:?}");
    let missing = config.sidecar.redis_settings().unwrap_err();
    assert_eq!(missing.label(), "key_missing");
    std::fs::write(&password, "correct horse\n").unwrap();
    std::fs::write(folder.path().join("ca.pem"), "PEM").unwrap();
    let settings = config.sidecar.redis_settings().unwrap();
    let shown = format!("{settings:?} {}", config.to_toml());
    assert!(!shown.contains("horse"), "{shown}");

    for (text, expected) in [
        (
            "[sidecar.redis]\nurl = \"redis://:hunter2@db/0\"",
            "line 2, column 7: sidecar.redis.url: a password never stands in the URL",
        ),
        (
            "[sidecar.redis]\nurl = \"db:6379\"",
            "line 2, column 7: sidecar.redis.url: not a URL of the form redis://host:port/database",
        ),
        (
            "[sidecar.redis]\npassword = \"hunter2\"",
            "line 2, column 12: sidecar.redis.password: a key never stands in the configuration",
        ),
        (
            "[sidecar.redis]\nprefix = \"\"",
            "line 2, column 10: sidecar.redis.prefix: \"\" is empty",
        ),
        (
            "[sidecar.redis]\nca = \"ca.pem\"",
            "line 2, column 6: sidecar.redis.ca: without TLS",
        ),
    ] {
        let error = refusal(text);
        assert!(error.starts_with(expected), "{error}\nbut not\n{expected}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let error = refusal("environment = \"production\"\n\n[session]\nidel = \"1h\"\n");
    assert!(
        error.starts_with("line 4, column 1: session.idel: unknown key `idel`"),
        "{error}"
    );
    assert!(error.contains("`idle`"), "{error}");
    let error = refusal("[gateway.control]\n\nurl = 1");
    assert!(
        error.starts_with("line 3, column 1: gateway.control.url: unknown key"),
        "{error}"
    );
    let error = refusal("[sesion]\nidle = \"1h\"");
    assert!(
        error.starts_with("line 1, column 2: sesion: unknown key `sesion`"),
        "{error}"
    );
    let error = refusal("log.level = \"info\"");
    assert!(
        error.contains("line 1") && error.contains("log.level: unknown key"),
        "{error}"
    );
}

#[test]
fn a_wrong_value_is_named_with_its_line_and_what_is_allowed() {
    for (text, expected) in [
        (
            "environment = \"staging\"",
            "line 1, column 15: environment: unknown value `staging`",
        ),
        (
            "\n[session]\nidle = \"soon\"",
            "line 3, column 8: session.idle: invalid value",
        ),
        (
            "[session]\nidle = 60",
            "line 2, column 8: session.idle: invalid type",
        ),
        (
            "[gateway]\ncapacity = -1",
            "line 2, column 12: gateway.capacity: invalid value",
        ),
        (
            "[gateway]\nlisten = \"localhost\"",
            "line 2, column 10: gateway.listen: invalid value",
        ),
        (
            "[gateway]\nadvertise = [\"1.2.3.4:5\", \"x\"]",
            "line 2, column 27: gateway.advertise: invalid value",
        ),
        (
            "[gateway]\nid = \"Gateway\"",
            "line 2, column 6: gateway.id: invalid value",
        ),
        (
            "[gateway]\nsocket_buffer = \"4MB\"",
            "line 2, column 17: gateway.socket_buffer: invalid value",
        ),
        (
            "[gateway.control]\nsidecar = \"http://127.0.0.1:1\"",
            "line 2, column 11: gateway.control.sidecar: invalid value",
        ),
        (
            "[sidecar]\nstore = \"redis://localhost\"",
            "line 2, column 9: sidecar.store: invalid value",
        ),
        (
            "[sidecar]\nsession_key = { file = \"a\", env = \"B\" }",
            "line 2, column 15: sidecar.session_key: a key comes from exactly one place",
        ),
        (
            "[sidecar]\nprevious_session_key = { vault = \"a\" }",
            "line 2, column 24: sidecar.previous_session_key: a key comes from `file` or `env`",
        ),
        (
            "[sidecar]\nmetrics_listen = \"off\"",
            "line 2, column 18: sidecar.metrics_listen: invalid value",
        ),
        (
            "[gateway.control]\nmax_stale = \"always\"",
            "line 2, column 13: gateway.control.max_stale: invalid value",
        ),
        (
            "[seat]\nsame_player = \"newest\"",
            "line 2, column 15: seat.same_player: unknown value `newest`",
        ),
        (
            "[sidecar]\nsession_key = { vault = \"a\" }",
            "line 2, column 15: sidecar.session_key: a key comes from `file` or `env`",
        ),
    ] {
        let error = refusal(text);
        assert!(error.starts_with(expected), "{error}\nbut not\n{expected}");
        assert!(error.contains("; allowed: "), "{error}");
    }
}

#[test]
fn a_text_that_is_no_toml_is_named_by_line() {
    let error = refusal("[session]\nidle = \"1h\"\n= 3\n");
    assert!(error.starts_with("line 3, column 1: "), "{error}");
    let error = refusal("[session]\nidle = \"1h\"\nidle = \"2h\"\n");
    assert!(error.starts_with("line 3, column 1: "), "{error}");
}

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
    use crate::{gateway::Limits, seat::SeatConfig, sidecar::SessionLives};
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
