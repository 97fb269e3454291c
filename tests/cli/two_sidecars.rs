//! Two sidecars over one Redis server, each with its own copy of the key files: a key is changed step by step, as docs/OPERATIONS.md says,
//! and nobody is refused.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use serde_json::Value;
use tempfile::TempDir;
use tickgate::{
    client::{Account, Session, Target},
    tls,
};

use super::{
    process::{Outcome, Running, empty, tickgate},
    redis_server::Server,
    roles::field,
};

/// Where everything is: two folders with the same certificates and keys.
struct Deployment {
    folder: TempDir,
    _redis: Server,
    sidecars: [Sidecar; 2],
    _gateway: Running,
}

struct Sidecar {
    _process: Running,
    account: Account,
    admin: String,
}

impl Deployment {
    fn start() -> Self {
        let (folder, redis) = (empty(), Server::start());
        let first = folder.path().join("a");
        fs::create_dir(&first).unwrap();
        run(&first, &["certs"]);
        for kind in ["session", "refresh", "transport", "login"] {
            let file = format!("certs/{kind}.key");
            run(&first, &["keys", "generate", kind, "--out", &file]);
        }
        let second = folder.path().join("b");
        copy(&first.join("certs"), &second.join("certs"));
        let config = format!(
            "environment = \"development\"\n[log]\nformat = \"json\"\nfilter = \"warn,tickgate::sidecar=info\"\n[sidecar]\nauth_listen = \"127.0.0.1:0\"\ncontrol_listen = \"127.0.0.1:0\"\n\
             admin_listen = \"127.0.0.1:0\"\nmetrics_listen = \"\"\ndev_login = true\nstore = \"redis\"\n\
             [sidecar.redis]\nurl = \"{}\"\n",
            redis.url()
        );
        let ca = tls::load_certificates(&first.join("certs/ca.pem")).unwrap();
        let mut control = String::new();
        let sidecars = [&first, &second].map(|folder| {
            fs::write(folder.join("config.toml"), &config).unwrap();
            let mut process = Running::start(folder, &["sidecar"]);
            let up = process.says(&["sidecar is up"]);
            if control.is_empty() {
                control = field(&up, "control");
            }
            let address = |name| field(&up, name).parse::<SocketAddr>().unwrap();
            Sidecar {
                account: Account::connect(&format!("https://{}", address("auth")), &ca).unwrap(),
                admin: format!("https://{}", address("admin")),
                _process: process,
            }
        });
        let of_gateway = format!(
            "[gateway]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"\"\n[gateway.control]\nsidecar = \"https://{control}\"\n"
        );
        fs::write(first.join("gateway.toml"), of_gateway).unwrap();
        let mut gateway = Running::start(&first, &["gateway", "--config", "gateway.toml"]);
        gateway.says(&["attached to the sidecar"]);
        Self {
            folder,
            _redis: redis,
            sidecars,
            _gateway: gateway,
        }
    }

    fn folder(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// What an operator types beside the first sidecar, about both.
    fn keys(&self, arguments: &[&str]) -> Outcome {
        let [a, b] = &self.sidecars;
        let both = ["--admin", &a.admin, "--also", &b.admin, "--json"];
        let all: Vec<_> = ["keys"]
            .iter()
            .chain(arguments)
            .chain(&both)
            .copied()
            .collect();
        tickgate(&self.folder("a"), &all)
    }

    fn copy_key(&self, kind: &str) {
        let [from, to] = ["a", "b"].map(|name| self.folder(name).join(format!("certs/{kind}.key")));
        let beside = to.with_extension("new");
        fs::copy(from, &beside).unwrap();
        fs::rename(beside, to).unwrap();
    }

    /// Waits until a sidecar has the key in this role, and all gateways hold it.
    async fn has(&self, sidecar: usize, key: &str, role: Option<&str>) {
        let list = [
            "keys",
            "list",
            "--json",
            "--admin",
            &self.sidecars[sidecar].admin,
        ];
        let folder = self.folder(["a", "b"][sidecar]);
        let has = async {
            loop {
                let told = tickgate(&folder, &list);
                let told: Value = serde_json::from_str(&told.stdout).unwrap();
                let keys = told["keys"].as_array().unwrap();
                let found = keys.iter().find(|listed| listed["id"] == *key);
                let in_force = found.and_then(|key| key["in_force"].as_str());
                let waits = found.is_some_and(|key| key["outstanding"] != serde_json::json!([]));
                let is_clear = role.is_some() || told["holding_others"] == serde_json::json!([]);
                if in_force == role && !waits && is_clear {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let has = tokio::time::timeout(Duration::from_secs(30), has).await;
        has.unwrap_or_else(|_| panic!("sidecar {sidecar} never had {key} as {role:?}"));
    }

    /// A session of either is a session of both, and either mints what the gateway opens.
    async fn serves(&self, session: &Session) {
        for Sidecar { account, .. } in &self.sidecars {
            account.who_am_i(&session.token).await.unwrap();
            let minted = async {
                while account
                    .issue_connect_token(session, Target::Any)
                    .await
                    .is_err()
                {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), minted)
                .await
                .unwrap();
        }
    }
}

fn run(folder: &Path, arguments: &[&str]) {
    let done = tickgate(folder, arguments);
    assert_eq!(done.code, 0, "{arguments:?}: {done:?}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn told(done: &Outcome) -> Value {
    assert_eq!(done.code, 0, "{done:?}");
    serde_json::from_str(&done.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_at_two_sidecars_step_by_step() {
    let deployment = Deployment::start();
    let [a, b] = &deployment.sidecars;
    for kind in ["session", "transport"] {
        let session = a.account.login_dev("ada").await.unwrap();
        deployment.serves(&session).await;
        // 1. Published at one: the other has not read it, and nothing is promoted.
        let published = told(&tickgate(
            &deployment.folder("a"),
            &["keys", "rotate", kind, "--publish", "--json"],
        ));
        let (old, new) = (
            published["current"].as_str().unwrap().to_owned(),
            published["next"].as_str().unwrap().to_owned(),
        );
        deployment.has(0, &new, Some("next")).await;
        let early = deployment.keys(&["rotate", kind, "--wait", "0s"]);
        assert_eq!(early.code, 5, "{early:?}");
        assert!(early.stderr.contains(&b.admin), "{early:?}");
        deployment.serves(&session).await;
        // 2. Copied, it is promoted; the other goes on with the old one until it has the file.
        deployment.copy_key(kind);
        let rotated = told(&deployment.keys(&["rotate", kind]));
        assert_eq!(
            (&rotated["current"], &rotated["previous"]),
            (&new.as_str().into(), &old.as_str().into())
        );
        deployment.has(0, &new, Some("current")).await;
        deployment.has(1, &new, Some("next")).await;
        let of_new = a.account.login_dev("ada").await.unwrap();
        let of_old = b.account.login_dev("ada").await.unwrap();
        for session in [&session, &of_new, &of_old] {
            deployment.serves(session).await;
        }
        // 3. Not before all have it, and not before its tokens are over, unless it must be.
        let early = deployment.keys(&["retire", kind]);
        assert_eq!(early.code, 6, "{early:?}");
        deployment.copy_key(kind);
        deployment.has(1, &new, Some("current")).await;
        let early = deployment.keys(&["retire", kind]);
        assert_eq!(early.code, 6, "{early:?}");
        assert!(
            early.stderr.contains("may still be needed until"),
            "{early:?}"
        );
        let retired = told(&deployment.keys(&["retire", kind, "--now"]));
        assert_eq!(retired["previous"], Value::Null);
        // The first sidecar has let go of it when the command returns; the other when it has the file.
        deployment.has(0, &new, Some("current")).await;
        deployment.copy_key(kind);
        for sidecar in [0, 1] {
            deployment.has(sidecar, &old, None).await;
        }
        deployment.serves(&of_new).await;
        let outcome = b.account.who_am_i(&session.token).await;
        assert_eq!(outcome.is_err(), kind == "session");
    }
}
