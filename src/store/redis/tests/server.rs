//! A real Redis server for a test: on a port of its own, with its data in a folder that is thrown away.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// What a server needs to be fit for a store.
pub(crate) const FIT: &[&str] = &[
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--maxmemory-policy",
    "noeviction",
];

/// A running server. Dropped, it is killed.
pub(crate) struct Server {
    port: u16,
    is_tls: bool,
    folder: PathBuf,
    options: Vec<String>,
    child: Option<Child>,
    _data: Option<tempfile::TempDir>,
}

impl Server {
    /// A server that is fit for a store.
    pub(crate) fn start() -> Self {
        Self::with(FIT)
    }

    /// A server with these options.
    pub(crate) fn with(options: &[&str]) -> Self {
        Self::that(false, options)
    }

    /// A server that is fit for a store and speaks nothing but TLS, with this certificate and key (PEM). It asks for none of its clients.
    pub(crate) fn over_tls(certificate: &Path, key: &Path) -> Self {
        Self::over_tls_with(certificate, key, &[])
    }

    /// Such a server with more options.
    pub(crate) fn over_tls_with(certificate: &Path, key: &Path, more: &[&str]) -> Self {
        let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
        let tls = ["--tls-cert-file", certificate, "--tls-key-file", key];
        let rest = ["--tls-auth-clients", "no"];
        Self::that(true, &[FIT, &tls, &rest, more].concat())
    }

    fn that(is_tls: bool, options: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut server = Self {
            port: 0,
            is_tls,
            folder: data.path().to_owned(),
            options: options.iter().map(ToString::to_string).collect(),
            child: None,
            _data: Some(data),
        };
        // Somebody else may take the port in between.
        for _ in 0..20 {
            server.port = free_port();
            server.up();
            if server.child.is_some() {
                return server;
            }
        }
        panic!("redis-server does not start with {options:?}");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.is_tls { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}/0", self.port)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends it a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success());
    }

    /// Starts it again, at its port and over its data.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "it is running");
        for _ in 0..50 {
            self.up();
            if self.child.is_some() {
                return;
            }
        }
        panic!("the server does not come up again on port {}", self.port);
    }

    /// Runs `redis-cli` against it.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli")
            .args(["-p", &port])
            .args(arguments)
            .output()
            .expect("redis-cli, of the package redis-tools");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts it, and waits until it says that it is there; not if it could not have the port.
    fn up(&mut self) {
        let port = self.port.to_string();
        let ports = if self.is_tls {
            ["--port", "0", "--tls-port", &port]
        } else {
            ["--tls-port", "0", "--port", &port]
        };
        let mut child = Command::new("redis-server")
            .args(ports)
            .args(["--bind", "127.0.0.1"])
            .args(["--save", ""])
            .arg("--dir")
            .arg(&self.folder)
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server: install it (Debian and Ubuntu: apt-get install redis-server)");
        let log = BufReader::new(child.stdout.take().unwrap());
        let is_up = log
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("Ready to accept connections"));
        if is_up {
            self.child = Some(child);
        } else {
            child.wait().unwrap();
        }
    }
}

fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
