//! The rules of the configuration, from outside.

mod rules;

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
