//! Holds `src/` to the house's layers: who may use whom, which crates may be named where, who may read the clock, how long a file
//! may be. The rules are the tables below; docs/ARCHITECTURE.md says why.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers may fail as its tests do"
)]

use std::{collections::BTreeMap, fmt, fs, path::Path};

use source::{Named, Outline, Source};

#[path = "architecture/contract.rs"]
mod contract;
#[path = "architecture/source.rs"]
mod source;

/// Every module at the top of `src/`, and the others that it may use outside tests. Lower ones come first, and nobody may use what
/// comes later.
#[rustfmt::skip]
const LAYERS: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("clock", &[]),
    ("proto", &[]),
    // The sockets of the gateway and of the client fleet.
    ("udp", &[]),
    // What tests of many random histories share.
    ("seeds", &[]),
    // Tells over HTTP what gateway and sidecar make known to it.
    ("admin", &[]),
    ("wire", &["clock", "id"]),
    ("token", &["clock", "id"]),
    ("seat", &["clock", "id"]),
    ("tls", &["id"]),
    ("certs", &["clock", "id", "tls"]),
    ("rpc", &["clock", "id", "tls"]),
    ("control", &["clock", "id", "proto", "rpc", "seat", "token", "wire"]),
    // Of `control` it speaks the revocation log's words.
    ("store", &["clock", "control", "id", "proto", "seat", "token", "wire"]),
    ("client", &["clock", "id", "proto", "rpc", "tls", "token", "udp", "wire"]),
    ("gateway", &["admin", "clock", "control", "id", "rpc", "seat", "tls", "token", "udp", "wire"]),
    ("sidecar", &["admin", "clock", "control", "id", "proto", "rpc", "seat", "store", "tls", "token", "wire"]),
    ("demo", &["client", "clock", "gateway", "id", "seat", "wire"]),
    ("config", &["certs", "clock", "control", "gateway", "id", "rpc", "seat", "sidecar", "store", "tls", "token"]),
    ("role", ALL),
    ("cli", ALL),
    // Puts together what the modules have for it.
    ("fuzzing", ALL),
    ("lib", ALL),
    ("main", ALL),
];

/// May use everything: the roles are put together here.
const ALL: &[&str] = &["*"];

/// Where a crate, or a part of one, may be named outside tests.
enum Where {
    Only(&'static [&'static str]),
    NotIn(&'static [&'static str]),
}

use Where::{NotIn, Only};

/// Without I/O, tasks or threads of their own: `now` and bytes come in, decisions and bytes go out.
#[rustfmt::skip]
const PURE: &[&str] = &[
    "clock", "id", "seat", "token", "wire", "gateway/core", "control/link", "control/attachment",
];
/// The program, as against the library.
const PROGRAM: &[&str] = &["cli", "main"];

/// Crates that are kept to some places. A place is a module at the top, or a deeper one with '/'.
#[rustfmt::skip]
const CRATES: &[(&str, Where)] = &[
    ("quinn_proto", Only(&["client/fleet", "gateway", "udp"])),
    ("quinn_udp", Only(&["udp"])),
    ("tickgate_steering", Only(&["gateway", "udp"])),
    ("mio", Only(&["client/fleet", "gateway", "udp"])),
    ("quinn", Only(&["client"])),
    ("socket2", Only(&["client", "udp"])),
    ("std::net::UdpSocket", Only(&["client", "config", "gateway", "role", "udp"])),
    ("tonic", Only(&["client", "control", "proto", "rpc", "sidecar"])),
    ("tonic_health", Only(&["sidecar"])),
    ("tonic_reflection", Only(&["sidecar"])),
    ("prost", Only(&["client", "control", "proto", "rpc", "sidecar", "store"])),
    ("tokio_rustls", Only(&["rpc"])),
    ("hyper", Only(&["admin"])),
    ("hyper_util", Only(&["admin", "rpc", "sidecar/login/oidc"])),
    ("hyper_rustls", Only(&["sidecar/login/oidc"])),
    ("http_body_util", Only(&["sidecar/login/oidc", "sidecar/lasting"])),
    ("openidconnect", Only(&["sidecar/login/oidc"])),
    ("rustls_native_certs", Only(&["sidecar/login/oidc"])),
    ("prometheus_client", Only(&["admin", "gateway", "sidecar"])),
    ("redb", Only(&["store"])),
    ("lettre", Only(&["sidecar/mail"])),
    ("argon2", Only(&["sidecar/login"])),
    ("governor", Only(&["sidecar/limit"])),
    ("redis", Only(&["store/redis"])),
    ("rcgen", Only(&["certs"])),
    ("rusty_paseto", Only(&["token"])),
    ("jiff", Only(&["clock"])),
    ("toml", Only(&["config"])),
    ("clap", Only(PROGRAM)),
    ("anyhow", Only(PROGRAM)),
    ("tracing_subscriber", Only(&["cli", "config", "main"])),
    ("rustls", NotIn(PURE)),
    ("tokio", NotIn(PURE)),
    ("tokio_stream", NotIn(PURE)),
    ("tokio_util", NotIn(PURE)),
    ("std::fs", NotIn(PURE)),
    ("std::thread", NotIn(PURE)),
];

/// Reads of time, which belong into `clock` alone, tests included.
const CLOCK_READS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
];
const CLOCK: &str = "clock";

/// The longest file, in lines: without its tests, and in all.
const LONGEST: (usize, usize) = (600, 800);

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Broken {
    file: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}", self.file, self.line, self.rule)
    }
}

fn check(sources: &[Source]) -> Vec<Broken> {
    let outlines: Vec<Outline> = sources.iter().map(Source::outline).collect();
    let test_places: Vec<String> = sources
        .iter()
        .zip(&outlines)
        .flat_map(|(source, outline)| {
            let module = source.module().join("/");
            outline
                .test_modules
                .iter()
                .map(move |test| format!("{module}/{test}"))
        })
        .collect();
    let mut broken = Vec::new();
    for (source, outline) in sources.iter().zip(&outlines) {
        let report = |line: usize, rule: String| Broken {
            file: source.name.clone(),
            line,
            rule,
        };
        let is_test = test_places.iter().any(|place| is_in(source, place));
        broken.extend(
            shape(source, outline, is_test)
                .into_iter()
                .map(|(line, rule)| report(line, rule)),
        );
        for named in outline.named.iter().chain(&outline.named_in_tests) {
            broken.extend(clock_read(source, named).map(|rule| report(named.line, rule)));
        }
        if !is_test {
            for named in &outline.named {
                broken.extend(layer_broken(source, named).map(|rule| report(named.line, rule)));
                broken.extend(crate_misplaced(source, named).map(|rule| report(named.line, rule)));
            }
        }
    }
    broken
}

/// What can be said of a file as a whole.
fn shape(source: &Source, outline: &Outline, is_test: bool) -> Vec<(usize, String)> {
    let mut broken = Vec::new();
    if !source.text.starts_with("//!") {
        broken.push((
            1,
            "a file begins with `//!` and the one reason for which it exists".to_owned(),
        ));
    }
    if !LAYERS.iter().any(|(module, _)| *module == source.room()) {
        broken.push((
            1,
            format!(
                "`{}` has no row in LAYERS (tests/architecture.rs): give it one",
                source.room()
            ),
        ));
    }
    let (most_code, most) = LONGEST;
    let code = if is_test { 0 } else { outline.code_lines };
    if code > most_code {
        broken.push((
            most_code,
            format!("{code} lines without tests, {most_code} at most: split the file"),
        ));
    }
    if outline.lines > most {
        broken.push((
            most,
            format!("{} lines, {most} at most: split the file", outline.lines),
        ));
    }
    broken
}

fn clock_read(source: &Source, named: &Named) -> Option<String> {
    let path = named.segments.join("::");
    let read = CLOCK_READS
        .iter()
        .any(|read| path == *read || path.ends_with(&format!("::{read}")));
    (read && source.room() != CLOCK)
        .then(|| format!("`{path}`: only `{CLOCK}` reads time; take a Clock, or `now`"))
}

/// The path from the crate's root, if it is one into this crate.
fn internal(source: &Source, named: &Named) -> Option<Vec<String>> {
    let mut rest = named.segments.as_slice();
    let mut path: Vec<String> = Vec::new();
    match rest.first()?.as_str() {
        "crate" | "tickgate" => rest = &rest[1..],
        "self" | "super" => {
            path.extend(source.module().into_iter().map(str::to_owned));
            while let Some("self" | "super") = rest.first().map(String::as_str) {
                if rest[0] == "super" {
                    path.pop();
                }
                rest = &rest[1..];
            }
        }
        _ => return None,
    }
    path.extend_from_slice(rest);
    Some(path)
}

fn layer_broken(source: &Source, named: &Named) -> Option<String> {
    let used = internal(source, named)?.into_iter().next()?;
    let room = source.room();
    let known = LAYERS.iter().any(|(module, _)| *module == used);
    let (_, may_use) = LAYERS.iter().find(|(module, _)| *module == room)?;
    let allowed = used == room || *may_use == ALL || may_use.contains(&used.as_str());
    (known && !allowed).then(|| {
        let list = if may_use.is_empty() {
            "nobody".to_owned()
        } else {
            may_use.join(", ")
        };
        format!(
            "`{}`: {room} may not use {used}; it may use {list}",
            named.segments.join("::")
        )
    })
}

fn crate_misplaced(source: &Source, named: &Named) -> Option<String> {
    let path = format!("{}::", named.segments.join("::"));
    let (name, place) = CRATES
        .iter()
        .find(|(name, _)| path.starts_with(&format!("{name}::")))?;
    let rule = match place {
        Only(places) if !places.iter().any(|place| is_in(source, place)) => {
            format!("only {} may name {name}", places.join(", "))
        }
        NotIn(places) => {
            let place = places.iter().find(|place| is_in(source, place))?;
            format!("{place} may not name {name}")
        }
        Only(_) => return None,
    };
    Some(format!("`{}`: {rule}", named.segments.join("::")))
}

/// Whether a file lies in a place such as `gateway` or `gateway/core`.
fn is_in(source: &Source, place: &str) -> bool {
    let rest = source.name.strip_prefix(place);
    rest.is_some_and(|rest| rest.starts_with(['/', '.']))
}

fn sources() -> Vec<Source> {
    fn walk(root: &Path, below: &str, sources: &mut Vec<Source>) {
        for entry in fs::read_dir(root.join(below)).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{below}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                walk(root, &format!("{name}/"), sources);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(entry.path()).unwrap();
                sources.push(Source { name, text });
            }
        }
    }
    let mut sources = Vec::new();
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        "",
        &mut sources,
    );
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    sources
}

#[test]
fn the_code_keeps_to_the_house() {
    let sources = sources();
    assert!(sources.iter().any(|source| source.name == "lib.rs"));
    let broken: Vec<String> = check(&sources).iter().map(Broken::to_string).collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn the_layers_have_no_cycle() {
    let level: BTreeMap<_, _> = LAYERS
        .iter()
        .enumerate()
        .map(|(level, (module, _))| (*module, level))
        .collect();
    assert_eq!(level.len(), LAYERS.len(), "a module stands there twice");
    for (module, may_use) in LAYERS.iter().filter(|(_, may_use)| *may_use != ALL) {
        for used in *may_use {
            assert!(
                level[used] < level[module],
                "{module} may use {used}, which comes later"
            );
        }
    }
}

/// The broken rules of a file that is planted among good ones.
fn planted(name: &str, text: &str) -> Vec<String> {
    let text = format!("//! Planted.\n{text}");
    check(&[Source {
        name: name.to_owned(),
        text,
    }])
    .iter()
    .map(Broken::to_string)
    .collect()
}

#[test]
fn a_planted_use_is_found() {
    for (name, text, expected) in [
        (
            "wire/frame.rs",
            "use crate::{id::ClientId, token::Purpose};",
            "src/wire/frame.rs:2: `crate::token::Purpose`: wire may not use token",
        ),
        (
            "seat/mod.rs",
            "fn f() { super::wire::VERSION; }",
            "src/seat/mod.rs:2: `super::wire::VERSION`: seat may not use wire",
        ),
        (
            "seat/deep/er.rs",
            "\nuse super::super::super::gateway::Gateway;",
            "src/seat/deep/er.rs:3: `super::super::super::gateway::Gateway`: seat may not use gateway",
        ),
        (
            "id.rs",
            "use crate::clock::Timestamp;",
            "id may not use clock; it may use nobody",
        ),
        (
            "sidecar/login.rs",
            "use quinn_proto::Endpoint;",
            "only client/fleet, gateway, udp may name quinn_proto",
        ),
        (
            "gateway/mod.rs",
            "fn f(x: quinn::Connection) {}",
            "only client may name quinn",
        ),
        (
            "gateway/admit.rs",
            "pub(crate) use tonic as t;",
            "only client, control, proto, rpc, sidecar may name tonic",
        ),
        (
            "token/key.rs",
            "fn f() { std::fs::read(x) }",
            "token may not name std::fs",
        ),
        (
            "gateway/core/link.rs",
            "use tokio::sync::Notify;",
            "gateway/core may not name tokio",
        ),
        ("attic/mod.rs", "", "`attic` has no row in LAYERS"),
    ] {
        let broken = planted(name, text);
        assert!(
            broken.len() == 1 && broken[0].contains(expected),
            "{text}: {broken:?}"
        );
    }
}

#[test]
fn planted_time_length_and_beginning_are_found() {
    let read = "#[cfg(test)]\nmod tests {\n    fn f() { std::time::Instant::now(); }\n}";
    assert_eq!(
        planted("seat/table.rs", read),
        [
            "src/seat/table.rs:4: `std::time::Instant::now`: only `clock` reads time; take a Clock, or `now`"
        ]
    );
    assert!(planted("clock.rs", "fn f() { Instant::now(); }").is_empty());
    assert!(planted("id.rs", &"\n".repeat(600))[0].contains("601 lines without tests"));
    let bare = Source {
        name: "id.rs".to_owned(),
        text: "pub struct Id;".to_owned(),
    };
    assert!(check(&[bare])[0].rule.contains("begins with `//!`"));
}

#[test]
fn tests_may_use_what_code_may_not() {
    let parent = Source {
        name: "wire/mod.rs".to_owned(),
        text: "//! Parent.\n#[cfg(test)]\nmod proof;\n#[cfg(test)]\nmod tests { use crate::gateway::Gateway; use tokio::net; }".to_owned(),
    };
    let child = Source {
        name: "wire/proof.rs".to_owned(),
        text: "//! Child.\nuse crate::gateway::Gateway;\n".to_owned(),
    };
    assert_eq!(check(&[parent, child]), []);
}

/// Whoever writes a client in another language has the proto files alone.
#[test]
fn every_message_field_value_and_call_is_explained() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/tickgate/v1");
    let mut read = 0;
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let missing = contract::uncommented(&text);
        assert!(
            missing.is_empty(),
            "{}: without a comment right above: {missing:?}",
            path.display()
        );
        read += 1;
    }
    assert!(read >= 5, "{read} proto files");
}

#[test]
fn a_planted_declaration_without_a_comment_is_found() {
    let explained = "// A.\nmessage A {\n  oneof b {\n    // C.\n    string c = 1;\n  }\n}\n";
    assert!(contract::uncommented(explained).is_empty());
    for planted in [
        "message B {",
        "  repeated bytes b = 7;",
        "  map<string, string> b = 2 [deprecated = true];",
        "  KIND_B = 0;",
        "  rpc B(C) returns (D);",
        "enum B {",
        "service B {",
    ] {
        for above in ["", "\n", "// A.\n\n"] {
            let missing = contract::uncommented(&format!("{above}{planted}\n"));
            assert_eq!(missing.len(), 1, "{above:?} {planted}");
        }
        assert!(contract::uncommented(&format!("// B.\n{planted}\n")).is_empty());
    }
}
