//! docs/API.md: every example in it, run by a shell with a gRPC client that is not ours, against a sidecar over TLS.
//!
//! The client is `grpcurl.py` beside this file, or what the environment variable `TICKGATE_GRPCURL` names: a real grpcurl, for instance.
//! `scripts/install-grpc-client` installs what the former needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{
    fixture::*,
    issuer::{Issuer, Signer, WEB},
    login::Mailbox,
};

/// A command in the document, and what it is said to answer.
struct Example {
    command: String,
    answer: String,
}

/// The blocks of shell that call, each with the block that follows it.
fn examples(document: &str) -> Vec<Example> {
    let blocks: Vec<(&str, &str)> = document
        .split("\n```")
        .skip(1)
        .step_by(2)
        .map(|block| block.split_once('\n').unwrap())
        .collect();
    blocks
        .windows(2)
        .filter(|pair| pair[0].0 == "sh" && pair[0].1.contains("grpcurl "))
        .map(|pair| {
            assert_ne!(pair[1].0, "sh", "no answer to {}", pair[0].1);
            Example {
                command: pair[0].1.to_owned(),
                answer: pair[1].1.trim().to_owned(),
            }
        })
        .collect()
}

type Variables = BTreeMap<String, String>;

/// Holds an answer to what the document says of it: the same names, the same values but for "…" and what a variable stands for.
fn like(expected: &Value, actual: &Value, variables: &mut Variables) -> Result<(), String> {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            let names = |object: &serde_json::Map<_, _>| object.keys().cloned().collect();
            let (wanted, there): (BTreeSet<String>, BTreeSet<String>) =
                (names(expected), names(actual));
            if wanted != there {
                return Err(format!("{there:?} and not {wanted:?}"));
            }
            expected
                .iter()
                .try_for_each(|(name, value)| like(value, &actual[name], variables))
        }
        (Value::Array(expected), Value::Array(actual)) => {
            if actual.len() < expected.len() {
                return Err(format!("{actual:?} is shorter than {expected:?}"));
            }
            let mut both = expected.iter().zip(actual);
            both.try_for_each(|(expected, actual)| like(expected, actual, variables))
        }
        (Value::String(text), Value::String(actual)) => {
            if let Some(name) = text.strip_prefix('$') {
                variables.insert(name.to_owned(), actual.clone());
                return Ok(());
            }
            let fits = match text.split_once('…') {
                Some((start, end)) => actual.starts_with(start) && actual.ends_with(end),
                None => text == actual,
            };
            fits.then_some(()).ok_or(format!("{actual} is not {text}"))
        }
        _ if expected == actual => Ok(()),
        _ => Err(format!("{actual} is not {expected}")),
    }
}

/// What a shell says to a command: whether it went well, and its two outputs.
async fn run(folder: &Path, command: &str, variables: &Variables) -> (bool, String, String) {
    let mut shell = Command::new("sh");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    shell
        .args(["-euc", command])
        .current_dir(folder)
        .envs(variables)
        .env("PATH", path)
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || shell.output().unwrap());
    let output = output.await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A folder as the document speaks of it: certificates, and grpcurl.
fn furnish(stage: &Stage) {
    let folder = stage.world.folder.path();
    stage.world.certs.write_to(&folder.join("certs")).unwrap();
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sidecar/grpcurl.py");
    let client = std::env::var_os("TICKGATE_GRPCURL").map_or(ours.clone(), Into::into);
    if client == ours {
        // Not by the file's mode, which not every checkout keeps.
        let shim = folder.join("grpcurl");
        let script = format!(
            "#!/bin/sh\nexec /usr/bin/python3 '{}' \"$@\"\n",
            ours.display()
        );
        fs::write(&shim, script).unwrap();
        fs::set_permissions(&shim, fs::Permissions::from_mode(0o755)).unwrap();
    } else {
        symlink(client, folder.join("grpcurl")).unwrap();
    }
}

/// The calls that the services have.
fn calls() -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    for (service, file) in [("AuthService", "auth"), ("AdminService", "admin")] {
        let path = format!(
            "{}/proto/tickgate/v1/{file}.proto",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = fs::read_to_string(path).unwrap();
        let rpcs = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("rpc "));
        calls.extend(rpcs.map(|rpc| format!("{service}/{}", rpc.split('(').next().unwrap())));
    }
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_document_is_answered_as_it_says() {
    let document = format!("{}/docs/API.md", env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(document).unwrap();
    let examples = examples(&document);
    for call in calls() {
        let named = |example: &Example| example.command.contains(&format!("tickgate.v1.{call}"));
        assert!(examples.iter().any(named), "no example of {call}");
    }
    let signer = Signer::p256("1");
    let issuer = Issuer::up(&[&signer]).await;
    let world = World::new();
    let mut config = world.config();
    config.login.oidc = vec![issuer.config("google")];
    let stage = world.start_with(config).await;
    let _gateway = stage.attach().await;
    furnish(&stage);
    let mut mailbox = Mailbox::of(&stage);
    let addresses = stage.sidecar.addresses();
    let mut variables = Variables::from([
        ("AUTH".to_owned(), addresses.auth.to_string()),
        ("ADMIN".to_owned(), addresses.admin.to_string()),
    ]);
    for Example { command, answer } in examples {
        if command.contains("$CODE") {
            variables.insert("CODE".to_owned(), mailbox.code().await);
        }
        if command.contains("$LINK_TOKEN") {
            let letter = mailbox.next().await.replace("=\r\n", "");
            let (_, token) = letter.split_once("&token=3D").unwrap();
            let token = token.lines().next().unwrap().trim();
            variables.insert("LINK_TOKEN".to_owned(), token.to_owned());
        }
        if command.contains("$ID_TOKEN") {
            let now = START.0 / 1_000;
            let claims = json!({
                "iss": issuer.url, "aud": WEB, "sub": "1", "nonce": variables["NONCE"], "iat": now, "exp": now + 3_600,
            });
            variables.insert("ID_TOKEN".to_owned(), signer.token(&claims));
        }
        let (well, out, err) = run(stage.world.folder.path(), &command, &variables).await;
        let said = format!("{command}\n{out}{err}");
        if answer.starts_with("ERROR") {
            assert!(!well, "{said}");
            for line in answer.lines() {
                assert!(err.contains(line.trim()), "{said}\nand not: {line}");
            }
        } else if answer.starts_with('{') {
            assert!(well, "{said}");
            let expected = serde_json::from_str(&answer).unwrap();
            let actual = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{said}"));
            like(&expected, &actual, &mut variables).unwrap_or_else(|why| panic!("{said}\n{why}"));
        } else {
            assert!(well, "{said}");
            // Whichever version of reflection a client asks names itself.
            let services = |list: &str| -> Vec<String> {
                let other = |line: &&str| !line.starts_with("grpc.reflection.");
                list.lines().filter(other).map(str::to_owned).collect()
            };
            assert_eq!(services(&out), services(&answer), "{said}");
        }
    }
    stage.down().await;
}

#[test]
fn an_answer_that_is_not_as_the_document_says_is_found() {
    let mut variables = Variables::new();
    let expected = json!({"a": "$A", "b": ["v4.…"], "c": true});
    let mut check = |actual: Value| like(&expected, &actual, &mut variables);
    assert_eq!(check(json!({"a": "1", "b": ["v4.x"], "c": true})), Ok(()));
    for wrong in [
        json!({"a": "1", "b": ["v4.x"]}),
        json!({"a": "1", "b": ["v4.x"], "c": true, "d": 1}),
        json!({"a": "1", "b": [], "c": true}),
        json!({"a": "1", "b": ["v3.x"], "c": true}),
        json!({"a": "1", "b": ["v4.x"], "c": false}),
        json!({"a": 1, "b": ["v4.x"], "c": true}),
    ] {
        assert!(check(wrong.clone()).is_err(), "{wrong}");
    }
    assert_eq!(variables["A"], "1");
}
