//! Tickgate's roles as real processes, on ports of their own choosing, from configuration files in a folder of the test's.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tickgate::{
    certs::DevCerts,
    client::{Account, Backend},
    id::GatewayId,
};

/// Everything that one deployment's processes share: certificates, keys, and the sidecar's store.
pub struct Deployment {
    folder: tempfile::TempDir,
    pub certs: DevCerts,
    /// The Redis server that its sidecars share; none: each opens the file.
    pub redis: Option<String>,
    /// The authority of that server's certificate, PEM, where it speaks TLS.
    pub redis_ca: Option<PathBuf>,
}

impl Deployment {
    /// Certificates for these gateways; nothing runs yet.
    pub fn of(gateways: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ids: Vec<GatewayId> = gateways.iter().map(|id| id.parse().unwrap()).collect();
        let certs = DevCerts::generate(&ids).unwrap();
        certs.write_to(&folder.path().join("certs")).unwrap();
        Self {
            folder,
            certs,
            redis: None,
            redis_ca: None,
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the sidecar over this deployment's one store, with `extra` lines in its `[sidecar]` section.
    pub fn sidecar(&self, extra: &str) -> SidecarProcess {
        self.sidecar_at(([127, 0, 0, 1], 0).into(), extra)
    }

    /// As [`sidecar`](Self::sidecar), with the control channel at `control`: where the gateways of an earlier process look for it.
    pub fn sidecar_at(&self, control: SocketAddr, extra: &str) -> SidecarProcess {
        let (store, redis) = match &self.redis {
            Some(url) => {
                let ca = self.redis_ca.as_ref();
                let ca = ca.map(|ca| format!("ca = \"{}\"", ca.display()));
                let ca = ca.unwrap_or_default();
                ("redis", format!("[sidecar.redis]\nurl = \"{url}\"\n{ca}"))
            }
            None => ("store.redb", String::new()),
        };
        let config = format!(
            r#"
            environment = "development"
            [log]
            format = "json"
            [sidecar]
            auth_listen = "127.0.0.1:0"
            control_listen = "{control}"
            admin_listen = "127.0.0.1:0"
            generate_keys = true
            session_key = {{ file = "session.key" }}
            refresh_key = {{ file = "refresh.key" }}
            transport_key = {{ file = "transport.key" }}
            login_key = {{ file = "login.key" }}
            store = "{store}"
            metrics_listen = ""
            dev_login = true
            {extra}
            {redis}
            "#
        );
        let (process, up) = self.start("sidecar", "sidecar", &config, "sidecar is up");
        let address =
            |name: &str| -> SocketAddr { up["fields"][name].as_str().unwrap().parse().unwrap() };
        let ca = std::slice::from_ref(&self.certs.ca);
        SidecarProcess {
            account: Account::connect(&format!("https://{}", address("auth")), ca).unwrap(),
            backend: Backend::connect(
                &format!("https://{}", address("admin")),
                ca,
                &self.certs.backend,
            )
            .unwrap(),
            auth: address("auth"),
            control: address("control"),
            admin: address("admin"),
            process,
        }
    }

    /// Starts a process of gateway `id` on `listen`, which keeps its keys in the file `state`.
    pub fn gateway(
        &self,
        id: &str,
        listen: SocketAddr,
        control: SocketAddr,
        state: &str,
    ) -> GatewayProcess {
        self.gateway_with(id, listen, control, state, "metrics_listen = \"\"")
    }

    /// As [`gateway`](Self::gateway), with `extra` lines in its `[gateway]` section.
    pub fn gateway_with(
        &self,
        id: &str,
        listen: SocketAddr,
        control: SocketAddr,
        state: &str,
        extra: &str,
    ) -> GatewayProcess {
        let config = format!(
            r#"
            [log]
            format = "json"
            [gateway]
            id = "{id}"
            listen = "{listen}"
            certificate = "certs/gateway-{id}-quic.pem"
            key = "certs/gateway-{id}-quic.key"
            state = "{state}"
            {extra}
            [gateway.control]
            sidecar = "https://127.0.0.1:{port}"
            certificate = "certs/gateway-{id}.pem"
            key = "certs/gateway-{id}.key"
            "#,
            port = control.port(),
        );
        let (process, up) = self.start("gateway", id, &config, "gateway is listening");
        let address = up["fields"]["address"].as_str().unwrap().parse().unwrap();
        GatewayProcess { process, address }
    }

    /// Starts a role, and waits for the line in its log that says that it is up.
    fn start(&self, role: &str, name: &str, config: &str, up: &str) -> (Process, Value) {
        let path = self.path().join(format!("{name}.toml"));
        std::fs::write(&path, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tickgate"))
            .arg(role)
            .arg("--config")
            .arg(path)
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let up = lines
            .by_ref()
            .map(|line| line.unwrap())
            .find_map(|line| match serde_json::from_str::<Value>(&line) {
                Ok(event) if event["fields"]["message"] == up => Some(event),
                _ => {
                    said.push(line);
                    None
                }
            })
            .unwrap_or_else(|| panic!("{name} did not start:\n{}", said.join("\n")));
        let log = Arc::new(Mutex::new(said));
        let rest = Arc::clone(&log);
        // Read on, or the process would wait for somebody to.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                rest.lock().unwrap().push(line);
            }
        });
        (Process { child, log }, up)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// A process, killed when it is dropped.
pub struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// SIGKILL: no farewell, no flush.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself, and with which code.
    pub fn ended(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().unwrap().map(|status| status.code())
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `tickgate sidecar`.
pub struct SidecarProcess {
    pub process: Process,
    pub account: Account,
    pub backend: Backend,
    pub auth: SocketAddr,
    pub control: SocketAddr,
    pub admin: SocketAddr,
}

/// A `tickgate gateway`.
pub struct GatewayProcess {
    pub process: Process,
    pub address: SocketAddr,
}
