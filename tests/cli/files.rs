//! Arguments, the configuration, keys and certificates: what ends by itself.

use std::{fs, process::Command};

use tickgate::token::{LoginKey, RefreshKey, SessionKey, TransportMasterKey};

#[cfg(unix)]
use super::process::mode;
use super::process::{Outcome, empty, tickgate};

#[test]
fn every_help_teaches() {
    let directory = empty();
    for (arguments, teaching) in [
        (&["--help"][..], "A deployment, step by step"),
        (&["dev", "--help"], "dev.json in there says where"),
        (
            &["sidecar", "--help"],
            "on disk before they are acknowledged",
        ),
        (&["gateway", "--help"], "verifies every seat on every tick"),
        (&["certs", "--help"], "which game clients pin"),
        (
            &["keys", "generate", "--help"],
            "refuses to start when two are the same",
        ),
        (&["sessions", "list", "--help"], "newest first"),
        (&["sessions", "revoke", "--help"], "that is on disk"),
        (
            &["sessions", "revoke-player", "--help"],
            "The player may log in again",
        ),
        (&["gateways", "list", "--help"], "One that is not here"),
        (
            &["gateways", "drain", "--help"],
            "may stay until the deadline",
        ),
        (&["explain", "--help"], "true reason"),
        (&["token", "inspect", "--help"], "Nothing is consumed"),
        (
            &["check-config", "--help"],
            "the key, its line, and what is",
        ),
    ] {
        let help = tickgate(directory.path(), arguments);
        assert_eq!(help.code, 0, "{help:?}");
        let words = help.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(teaching), "{arguments:?}: {}", help.stdout);
        if arguments.len() > 1 {
            assert!(words.contains("Examples: tickgate"), "{}", help.stdout);
            assert!(words.contains("What to do next"), "{}", help.stdout);
        }
    }
}

#[test]
fn wrong_arguments_are_a_usage_error() {
    let directory = empty();
    for arguments in [
        &["--no-such-flag"][..],
        &["certs", "--no-such-flag"],
        &["no-such-command"],
        &[],
        &["certs", "--gateway", "Not An Id"],
        &["dev", "--capacity", "0"],
        &["dev", "--log", "=loud="],
        &["keys", "generate", "connect"],
        &["sessions"],
        &["sessions", "revoke", "ada"],
        &["sessions", "list", "--limit", "0"],
        &["gateways", "drain", "eu-1", "--deadline", "soon"],
        &["gateways", "drain", "eu-1", "--deadline", "1s", "--cancel"],
        &["explain"],
        &["explain", "ada"],
        &["explain", "--gateway", "eu-1", "01JDAAAAAAAAAAAAAAAAAAAAAA"],
        &["token", "inspect", "k4.local.A"],
        &["token", "inspect", "-", "--gateway", "eu-1"],
    ] {
        let refused = tickgate(directory.path(), arguments);
        assert_eq!(refused.code, 2, "{arguments:?}: {refused:?}");
        assert!(!refused.stderr.is_empty());
    }
}

#[test]
fn a_good_configuration_is_shown_with_key_sources_alone() {
    let directory = empty();
    let file = directory.path().join("good.toml");
    fs::write(
        &file,
        "[sidecar]\nsession_key = { env = \"THE_SESSION_KEY\" }\n[demo]\ntick_hz = 30\n",
    )
    .unwrap();
    let key = SessionKey::generate().to_paserk();
    let output = Command::new(env!("CARGO_BIN_EXE_tickgate"))
        .args(["check-config", "good.toml"])
        .env("THE_SESSION_KEY", &*key)
        .current_dir(&directory)
        .output()
        .unwrap();
    let good = Outcome::from(output);
    assert_eq!(good.code, 0, "{good:?}");
    assert!(
        good.stdout.starts_with("# ok: good.toml"),
        "{}",
        good.stdout
    );
    assert!(good.stdout.contains("tick_hz = 30") && good.stdout.contains("THE_SESSION_KEY"));
    assert!(!format!("{good:?}").contains("k4.local"), "{good:?}");
    assert!(
        good.stderr
            .contains("note: certs/sidecar.pem is not there yet"),
        "{}",
        good.stderr
    );

    let json = tickgate(
        directory.path(),
        &["check-config", "--json", "--config", "good.toml"],
    );
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(report["ok"], true);
    assert_eq!(report["missing_files"][0], "certs/sidecar.pem");
    assert_eq!(report["config"]["demo"]["tick_hz"], 30);
    assert_eq!(report["config"]["gateway"]["listen"], "0.0.0.0:7777");
}

#[test]
fn what_is_in_force_is_a_configuration_itself() {
    let directory = empty();
    let shown = tickgate(directory.path(), &["check-config"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    fs::write(directory.path().join("config.toml"), &shown.stdout).unwrap();
    let again = tickgate(directory.path(), &["check-config"]);
    assert!(
        again.stdout.starts_with("# ok: config.toml"),
        "{}",
        again.stdout
    );
    let body = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    assert_eq!(body(&again.stdout), body(&shown.stdout));
}

#[test]
fn a_bad_configuration_is_told_by_key_and_line() {
    let directory = empty();
    let file = directory.path().join("config.toml");
    fs::write(&file, "[session]\nidle = \"1h\"\nconnect_life = \"10m\"\n").unwrap();
    let expected = "config.toml: line 3, column 16: session.connect_life: 10m is out of range; allowed: 1s to 5m";
    // Every role refuses it likewise, before it starts anything.
    for arguments in [&["check-config"][..], &["sidecar"], &["gateway"], &["dev"]] {
        let bad = tickgate(directory.path(), arguments);
        assert_eq!(bad.code, 2, "{arguments:?}: {bad:?}");
        assert!(bad.stderr.contains(expected), "{}", bad.stderr);
        assert!(bad.stderr.contains("what to do: "), "{}", bad.stderr);
        assert_eq!(bad.stdout, "");
    }
    assert!(!directory.path().join(".tickgate").exists());

    let json = tickgate(directory.path(), &["check-config", "config.toml", "--json"]);
    assert_eq!(json.code, 2);
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["error"], "config_invalid");
    assert_eq!(report["problems"][0]["key"], "session.connect_life");
    assert_eq!(report["problems"][0]["line"], 3);

    fs::write(&file, "[gateway]\nport = 7777\n").unwrap();
    let unknown = tickgate(directory.path(), &["check-config"]);
    assert_eq!(unknown.code, 2);
    assert!(
        unknown
            .stderr
            .contains("line 2, column 1: gateway.port: unknown key"),
        "{}",
        unknown.stderr
    );

    let absent = tickgate(directory.path(), &["check-config", "absent.toml"]);
    assert_eq!(absent.code, 2);
    assert!(
        absent.stderr.contains("cannot read absent.toml"),
        "{}",
        absent.stderr
    );
}

#[test]
fn production_refuses_development_conveniences() {
    let directory = empty();
    fs::write(
        directory.path().join("config.toml"),
        "[sidecar]\ndev_login = true\n",
    )
    .unwrap();
    let refused = tickgate(directory.path(), &["sidecar"]);
    assert_eq!(refused.code, 2);
    assert!(
        refused
            .stderr
            .contains("line 2, column 13: sidecar.dev_login: a development convenience"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_sidecar_without_keys_says_how_to_make_them() {
    let directory = empty();
    let refused = tickgate(directory.path(), &["sidecar"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("the session key is missing: no file certs/session.key"),
        "{}",
        refused.stderr
    );
    assert!(
        refused
            .stderr
            .contains("tickgate keys generate session --out certs/session.key"),
        "{}",
        refused.stderr
    );

    // One key for both purposes is no better than none.
    for file in ["session.key", "transport.key"] {
        fs::create_dir_all(directory.path().join("certs")).unwrap();
        fs::write(
            directory.path().join("certs").join(file),
            "k4.local.cHFyc3R1dnd4eXp7fH1-f4CBgoOEhYaHiImKi4yNjo8\n",
        )
        .unwrap();
    }
    let refresh = directory.path().join("certs/refresh.key");
    fs::write(refresh, &*RefreshKey::generate().to_paserk()).unwrap();
    let login = directory.path().join("certs/login.key");
    fs::write(login, &*LoginKey::generate().to_paserk()).unwrap();
    let refused = tickgate(directory.path(), &["sidecar"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("every purpose needs a key of its own"),
        "{}",
        refused.stderr
    );
    assert!(!refused.stderr.contains("cHFyc3R1"), "{}", refused.stderr);
}

#[test]
fn a_gateway_without_certificates_says_how_to_make_them() {
    let directory = empty();
    let refused = tickgate(directory.path(), &["gateway"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    for part in ["error: ", "certs/ca.pem", "`tickgate certs` makes them"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
}

#[test]
fn a_gateway_with_another_ones_certificate_says_whose_it_is() {
    let directory = empty();
    assert_eq!(tickgate(directory.path(), &["certs"]).code, 0);
    fs::write(
        directory.path().join("config.toml"),
        "[gateway]\nid = \"eu-1\"\n",
    )
    .unwrap();
    let refused = tickgate(directory.path(), &["gateway"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    let told = "certs/gateway-gateway-1.pem says that its holder is gateway gateway-1, and gateway.id is eu-1";
    assert!(refused.stderr.contains(told), "{}", refused.stderr);
}

#[test]
fn keys_are_made_for_their_owner_alone() {
    let directory = empty();
    let made = tickgate(
        directory.path(),
        &[
            "keys",
            "generate",
            "transport",
            "--out",
            "keys/transport.key",
        ],
    );
    assert_eq!(made.code, 0, "{made:?}");
    assert_eq!(made.stdout, "");
    let path = directory.path().join("keys/transport.key");
    let text = fs::read_to_string(&path).unwrap();
    let key = TransportMasterKey::from_paserk(text.trim_end()).unwrap();
    assert!(
        made.stderr.contains(&key.id().to_string()),
        "{}",
        made.stderr
    );
    assert!(!made.stderr.contains(text.trim_end()));
    #[cfg(unix)]
    assert_eq!(mode(&path), 0o600);

    let again = tickgate(
        directory.path(),
        &[
            "keys",
            "generate",
            "transport",
            "--out",
            "keys/transport.key",
        ],
    );
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.stderr.contains("what to do: "), "{}", again.stderr);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);

    let printed = tickgate(directory.path(), &["keys", "generate"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let key = SessionKey::from_paserk(printed.stdout.trim_end()).unwrap();
    assert_eq!(
        printed.stderr.trim_end(),
        format!("session key {}", key.id())
    );
}

#[test]
fn certificates_are_made_once_and_keys_are_private() {
    let directory = empty();
    let arguments = ["certs", "--gateway", "eu-1", "--gateway", "eu-2", "--json"];
    let made = tickgate(directory.path(), &arguments);
    assert_eq!(made.code, 0, "{made:?}");
    let report: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
    let file = |pointer: &str| {
        let name = report.pointer(pointer).and_then(|name| name.as_str());
        directory
            .path()
            .join(name.unwrap_or_else(|| panic!("{pointer} in {report}")))
    };
    assert!(file("/ca").exists());
    for holder in [
        "/sidecar",
        "/admin",
        "/backend",
        "/gateways/0/control",
        "/gateways/0/quic",
        "/gateways/1/control",
        "/gateways/1/quic",
    ] {
        let (certificate, key) = (
            file(&format!("{holder}/certificate")),
            file(&format!("{holder}/key")),
        );
        let identity = tickgate::tls::Identity::load(&certificate, &key).unwrap();
        #[cfg(unix)]
        assert_eq!(mode(&key), 0o600, "{}", key.display());
        if holder.ends_with("quic") {
            let hash: String = identity
                .fingerprint()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(report.pointer(&format!("{holder}/sha256")).unwrap(), &hash);
            assert_eq!(
                fs::read_to_string(certificate.with_extension("sha256"))
                    .unwrap()
                    .trim_end(),
                hash
            );
        }
    }

    let before = fs::read(file("/sidecar/key")).unwrap();
    let again = tickgate(directory.path(), &arguments);
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.stderr.contains("--force"), "{}", again.stderr);
    assert_eq!(fs::read(file("/sidecar/key")).unwrap(), before);

    let forced = tickgate(directory.path(), &["certs", "--gateway", "eu-1", "--force"]);
    assert_eq!(forced.code, 0, "{forced:?}");
    assert!(
        forced.stdout.contains("eu-1, to players") && forced.stdout.contains("SHA-256 "),
        "{}",
        forced.stdout
    );
    assert_ne!(fs::read(file("/sidecar/key")).unwrap(), before);
}

#[test]
fn the_default_configuration_names_the_certificates_that_are_made_by_default() {
    let directory = empty();
    assert_eq!(tickgate(directory.path(), &["certs"]).code, 0);
    for purpose in ["session", "refresh", "transport", "login"] {
        let file = format!("certs/{purpose}.key");
        let made = tickgate(
            directory.path(),
            &["keys", "generate", purpose, "--out", &file],
        );
        assert_eq!(made.code, 0, "{made:?}");
    }
    let checked = tickgate(directory.path(), &["check-config"]);
    assert_eq!(checked.stderr, "", "nothing is missing");
}
