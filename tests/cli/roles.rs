//! The roles as processes: they come up, heed signals, and end in good order.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use tickgate::{
    client::{Account, Closed, Endpoint, Target},
    role::dev::DevJson,
    tls,
    wire::CloseCode,
};

use super::process::{Running, empty, get, mode, tickgate};

const ANY_PORTS: &str = "[log]\nformat = \"json\"\n[sidecar]\nauth_listen = \"127.0.0.1:0\"\n\
    control_listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n";

/// The steps of the help's list that come before the roles.
const STEPS: [&str; 6] = [
    "certs",
    "keys generate session --out certs/session.key",
    "keys generate refresh --out certs/refresh.key",
    "keys generate transport --out certs/transport.key",
    "keys generate login --out certs/login.key",
    "check-config",
];

fn prepare(directory: &Path) {
    for step in STEPS {
        let arguments: Vec<_> = step.split(' ').collect();
        let done = tickgate(directory, &arguments);
        assert_eq!(done.code, 0, "{step}: {done:?}");
    }
}

/// A field of a line that a role logs as JSON.
pub(super) fn field(line: &str, name: &str) -> String {
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    event["fields"][name].as_str().unwrap().to_owned()
}

/// The step-by-step list of the help, on a machine that has nothing yet.
#[test]
fn the_helps_list_of_steps_brings_a_sidecar_up() {
    let directory = empty();
    let help = tickgate(directory.path(), &["--help"]).stdout;
    for step in STEPS.into_iter().chain(["sidecar"]) {
        assert!(
            help.contains(&format!("\n  tickgate {step}")),
            "{step}: {help}"
        );
    }
    fs::write(directory.path().join("config.toml"), ANY_PORTS).unwrap();
    prepare(directory.path());

    let mut sidecar = Running::start(directory.path(), &["sidecar"]);
    sidecar.says(&["sidecar is up"]);
    let told = sidecar.says(&["the sidecar tells metrics and health"]);
    assert!(directory.path().join("data/store.redb").exists());
    assert_eq!(mode(&directory.path().join("data")), 0o700);
    let address: SocketAddr = field(&told, "address").parse().unwrap();
    assert!(get(address, "/ready").ends_with("\r\n\r\nready\n"));
    assert!(get(address, "/metrics").contains("\ntickgate_sidecar_gateways_attached 0"));

    sidecar.signal("TERM");
    assert_eq!(sidecar.end().1, 0);
}

/// The development stack says when it is up, with lines that a program can read, and ends in good order when it is asked to.
#[test]
fn the_development_stack_comes_up_and_ends_in_good_order() {
    let directory = empty();
    fs::write(
        directory.path().join("config.toml"),
        "[log]\nformat = \"json\"\n",
    )
    .unwrap();
    let arguments = ["dev", "--ephemeral-ports", "--state-dir", "state"];
    let mut dev = Running::start(directory.path(), &arguments);

    // The stack gives up by itself, and this reader with it, when it does not come up.
    dev.says(&["\"dev_json\":"]);
    let state = directory.path().join("state");
    let told = DevJson::of_running(&state).unwrap().unwrap();
    assert_eq!(told.pid, dev.id());
    assert_eq!(mode(&state), 0o700);

    // A second one keeps its hands off what the first has told.
    let second = tickgate(directory.path(), &arguments);
    assert_eq!(second.code, 1, "{second:?}");
    assert!(
        second.stderr.contains("another development stack runs in"),
        "{}",
        second.stderr
    );
    assert_eq!(DevJson::of_running(&state).unwrap(), Some(told));

    dev.signal("TERM");
    let (rest, code) = dev.end();
    assert!(!rest.contains("k4.local"), "a key is in the log");
    assert_eq!(code, 0);
    assert!(!state.join("dev.json").exists());
    assert_eq!(DevJson::of_running(&state).unwrap(), None);
}

/// What can change while it runs does; what cannot is named; and a broken file changes nothing.
#[test]
fn a_sidecar_reads_its_configuration_again_when_it_is_told_to() {
    let directory = empty();
    let file = directory.path().join("config.toml");
    fs::write(&file, ANY_PORTS).unwrap();
    prepare(directory.path());
    let mut sidecar = Running::start(directory.path(), &["sidecar"]);
    sidecar.says(&["the sidecar tells metrics and health"]);

    let changed = ANY_PORTS.replace("[log]", "[log]\nfilter = \"debug\"")
        + "connect_tokens_per_minute = 7\n[gateway]\ncapacity = 3\n";
    fs::write(&file, changed).unwrap();
    sidecar.signal("HUP");
    let read = sidecar.says(&["were read again"]);
    assert_eq!(field(&read, "changed"), "log.filter");
    let kept = sidecar.says(&["\"WARN\"", "take effect at the next start"]);
    assert_eq!(field(&kept, "kept"), "sidecar.connect_tokens_per_minute");

    fs::write(&file, "[sidecar]\nauth_listen = 7\n").unwrap();
    sidecar.signal("HUP");
    let refused = sidecar.says(&["nothing has changed"]);
    assert!(
        refused.contains("line 2, column 15: sidecar.auth_listen"),
        "{refused}"
    );

    fs::write(&file, ANY_PORTS).unwrap();
    fs::write(directory.path().join("certs/sidecar.pem"), "no certificate").unwrap();
    sidecar.signal("HUP");
    let refused = sidecar.says(&["nothing has changed"]);
    assert!(refused.contains("certs/sidecar.pem"), "{refused}");

    sidecar.signal("TERM");
    assert_eq!(sidecar.end().1, 0);
}

/// SIGTERM lets those in play play on; a second one does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_asked_to_end_lets_its_players_play_on() {
    let directory = empty();
    let file = directory.path().join("config.toml");
    let development = format!("environment = \"development\"\n{ANY_PORTS}dev_login = true\n");
    fs::write(&file, &development).unwrap();
    prepare(directory.path());
    let mut sidecar = Running::start(directory.path(), &["sidecar"]);
    let up = sidecar.says(&["sidecar is up"]);

    let of_gateway = format!(
        "{development}[gateway]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\ndrain = \"1h\"\n\
         [gateway.control]\nsidecar = \"https://{}\"\n",
        field(&up, "control"),
    );
    fs::write(directory.path().join("gateway.toml"), of_gateway).unwrap();
    let mut gateway = Running::start(directory.path(), &["gateway", "--config", "gateway.toml"]);
    let metrics = gateway.says(&["the gateway tells metrics and health"]);
    let metrics: SocketAddr = field(&metrics, "address").parse().unwrap();
    gateway.says(&["attached to the sidecar"]);

    let ca = tls::load_certificates(&directory.path().join("certs/ca.pem")).unwrap();
    let account = Account::connect(&format!("https://{}", field(&up, "auth")), &ca).unwrap();
    let session = account.login_dev("ada").await.unwrap();
    let endpoint = Endpoint::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let ticket = account
        .issue_connect_token(&session, Target::Any)
        .await
        .unwrap();
    let connection = endpoint.connect(&ticket).await.unwrap();
    assert!(get(metrics, "/ready").starts_with("HTTP/1.1 200 "));

    gateway.signal("TERM");
    gateway.says(&["nobody is admitted any more"]);
    let draining = async {
        while !get(metrics, "/metrics").contains("\ntickgate_gateway_draining 1") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), draining)
        .await
        .unwrap();
    assert!(get(metrics, "/ready").starts_with("HTTP/1.1 503 "));
    assert!(get(metrics, "/live").starts_with("HTTP/1.1 200 "));
    assert_eq!(connection.close_reason(), None);

    gateway.signal("TERM");
    let closed = tokio::time::timeout(Duration::from_secs(10), connection.closed());
    let closed = closed.await.unwrap();
    assert!(
        matches!(
            closed,
            Closed::Gateway {
                code: CloseCode::Drained,
                ..
            }
        ),
        "{closed:?}"
    );
    assert_eq!(gateway.end().1, 0);
    sidecar.signal("INT");
    assert_eq!(sidecar.end().1, 0);
}
