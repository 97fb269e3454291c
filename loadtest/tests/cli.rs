//! What `loadtest` says when it cannot do what it is asked: exit code 2, within 2 s, with a message that names the way out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use tickgate::certs::DevCerts;

/// Runs `loadtest` and holds it to exit code 2 within 2 s. Returns what it said.
fn refused(arguments: &[&str]) -> String {
    let begun = Instant::now();
    let Output { status, stderr, .. } = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2), "{arguments:?}: {said}");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{arguments:?} took {took:?}");
    said
}

/// Runs `loadtest run --dev-json` on such a file.
fn refused_target(dev_json: &Path) -> String {
    refused(&["run", "--dev-json", dev_json.to_str().unwrap()])
}

#[test]
fn wrong_arguments_name_what_is_allowed() {
    assert!(refused(&["run", "--clients", "none"]).contains("--clients"));
    assert!(refused(&["run", "--endpoints", "4"]).contains("16..=1024"));
    assert!(refused(&["run", "--duration", "5"]).contains("15s or 2m"));
    assert!(refused(&["run", "--clients", "5", "--revocations", "6"]).contains("at most as many"));
    assert!(refused(&["run", "--bogus"]).contains("--help"));
    assert!(refused(&["walk"]).contains("walk"));
    assert!(refused(&["run", "--json", "/nonexistent/report.json"]).contains("--json"));
}

#[test]
fn an_absent_or_broken_dev_json_names_who_writes_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dev.json");
    assert!(refused_target(&path).contains("tickgate dev"));
    fs::write(&path, "{\"auth_url\": 7}").unwrap();
    assert!(refused_target(&path).contains("not a dev.json"));
}

/// A dev.json of a stack at `address`, with usable certificates.
fn describe_stack_at(address: &str, directory: &Path) -> std::path::PathBuf {
    let ids = ["gateway-1".parse().unwrap(), "gateway-2".parse().unwrap()];
    DevCerts::generate(&ids)
        .unwrap()
        .write_to(directory)
        .unwrap();
    let path = directory.join("dev.json");
    let text = format!(
        r#"{{"auth_url": "https://{address}", "admin_url": "https://{address}", "control_url": "https://{address}",
            "ca": "ca.pem", "backend_certificate": "backend.pem", "backend_key": "backend.key",
            "admin_certificate": "admin.pem", "admin_key": "admin.key",
            "gateways": [{{"id": "gateway-1", "address": "{address}", "demo": true}},
                         {{"id": "gateway-2", "address": "{address}", "demo": false}}],
            "pid": 1}}"#
    );
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_stack_that_is_gone_or_silent_is_told_soon() {
    let directory = tempfile::tempdir().unwrap();
    // Bound and never accepted: the kernel takes the connection, and nobody says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let dev_json = describe_stack_at(&address, directory.path());
    let said = refused_target(&dev_json);
    assert!(
        said.contains("Is it running?") && said.contains(&address),
        "{said}"
    );
    drop(silent);
    let said = refused_target(&dev_json);
    assert!(
        said.contains("Is it running?") && said.contains(&address),
        "{said}"
    );
}

#[test]
fn help_teaches() {
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["run", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for word in ["open loop", "Exit codes", "Examples", "--dev-json"] {
        assert!(help.contains(word), "{word} is missing:\n{help}");
    }
    assert!(!help.contains("__dev-stack"));
}
