//! The stack that is put under load: one of our own in a child process, or a running one that its dev.json describes.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Deserialize;
use tempfile::TempDir;
use tickgate::{
    clock::Clock,
    id::GatewayId,
    role::dev::{self, DevOptions},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{STACK_ROLE, StackArgs},
    cores,
};

/// What a development stack writes about itself once everything listens. Fields that the load test does not need are left out.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DevJson {
    /// Where players log in.
    pub(crate) auth_url: String,
    /// Where backends call.
    pub(crate) admin_url: String,
    /// The certificate of the CA that signed the sidecar's.
    pub(crate) ca: PathBuf,
    /// The certificate of a backend.
    pub(crate) backend_certificate: PathBuf,
    /// Its key.
    pub(crate) backend_key: PathBuf,
    /// The certificate of an operator.
    pub(crate) admin_certificate: PathBuf,
    /// Its key.
    pub(crate) admin_key: PathBuf,
    /// The gateways.
    pub(crate) gateways: Vec<GatewayEntry>,
    /// The stack's process.
    pub(crate) pid: u32,
}

/// A gateway of the stack.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct GatewayEntry {
    id: String,
    /// Whether it plays the demo world.
    #[serde(default)]
    demo: bool,
}

impl DevJson {
    /// Reads the file at `path`. Relative paths in it are taken from its own directory, or else from the current one.
    ///
    /// # Errors
    /// When it cannot be read or is not what a development stack writes.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| {
            format!(
                "cannot read {}: a running `tickgate dev` writes dev.json into its state directory",
                path.display()
            )
        })?;
        let mut this: Self = serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is not a dev.json as `tickgate dev` writes it",
                path.display()
            )
        })?;
        let directory = path.parent().unwrap_or(Path::new("."));
        for file in [
            &mut this.ca,
            &mut this.backend_certificate,
            &mut this.backend_key,
            &mut this.admin_certificate,
            &mut this.admin_key,
        ] {
            let beside = directory.join(&*file);
            if beside.exists() {
                *file = beside;
            }
        }
        Ok(this)
    }

    /// The gateway that plays the demo world.
    ///
    /// # Errors
    /// When there is none, or its id is not valid.
    pub(crate) fn demo_gateway(&self) -> anyhow::Result<GatewayId> {
        let Some(entry) = self.gateways.iter().find(|gateway| gateway.demo) else {
            bail!(
                "dev.json names no gateway with the demo world: start the stack with `tickgate dev`"
            );
        };
        Ok(entry.id.parse()?)
    }

    /// Another gateway, whose tokens the first one must refuse.
    pub(crate) fn other_gateway(&self) -> Option<GatewayId> {
        let entry = self.gateways.iter().find(|gateway| !gateway.demo)?;
        entry.id.parse().ok()
    }
}

/// A development stack in a child process. It ends when this is dropped, and by itself when this process ends in whatever way.
#[derive(Debug)]
pub(crate) struct OwnStack {
    child: Child,
    directory: TempDir,
}

/// How long a stack of our own may take to start. It makes keys and a store, which takes well under a second.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// How often it is looked whether the stack has started.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a stack may take to end by itself before it is killed.
const END_DEADLINE: Duration = Duration::from_secs(3);

impl OwnStack {
    /// Starts a stack with `capacity` seats, confined to `server_cores`, and waits until everything listens.
    ///
    /// # Errors
    /// When it cannot be started, ends at once, or does not listen in time; the message names its log, which is kept.
    pub(crate) async fn start(
        capacity: u32,
        server_cores: &[usize],
        clock: &Clock,
    ) -> anyhow::Result<(Self, DevJson)> {
        let directory = tempfile::Builder::new()
            .prefix("loadtest-stack-")
            .tempdir()
            .context("cannot make a directory for the stack")?;
        let child = spawn(directory.path(), capacity, server_cores)?;
        let mut stack = Self { child, directory };
        match stack.wait_until_it_listens(clock).await {
            Ok(dev_json) => Ok((stack, dev_json)),
            Err(error) => {
                let log = stack.keep_log();
                let tail = last_lines(&log, 10);
                Err(error.context(format!(
                    "the development stack did not start; its log is {}\n{tail}",
                    log.display()
                )))
            }
        }
    }

    async fn wait_until_it_listens(&mut self, clock: &Clock) -> anyhow::Result<DevJson> {
        let path = self.directory.path().join("dev.json");
        let deadline = clock.now() + START_DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            if path.exists() {
                match DevJson::read(&path) {
                    Ok(dev_json) => return Ok(dev_json),
                    // Perhaps it is still being written.
                    Err(error) if clock.now() >= deadline => return Err(error),
                    Err(_) => {}
                }
            }
            if clock.now() >= deadline {
                bail!("it wrote no dev.json within {START_DEADLINE:?}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether its process has ended, which nobody has asked it to.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Keeps the stack's directory when it ends, and tells where its log is.
    pub(crate) fn keep_log(&mut self) -> PathBuf {
        self.directory.disable_cleanup(true);
        log_in(self.directory.path())
    }
}

impl Drop for OwnStack {
    fn drop(&mut self) {
        // Its standard input ends: the sign to end.
        drop(self.child.stdin.take());
        let rounds = END_DEADLINE.as_millis() / LOOK_EVERY.as_millis();
        for _ in 0..rounds {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(LOOK_EVERY),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_in(directory: &Path) -> PathBuf {
    directory.join("stack.log")
}

fn spawn(directory: &Path, capacity: u32, server_cores: &[usize]) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("cannot find this very program")?;
    let log = File::create(log_in(directory)).context("cannot make the stack's log")?;
    let mut command = Command::new(program);
    command
        .arg(STACK_ROLE)
        .arg("--state-dir")
        .arg(directory)
        .arg("--capacity")
        .arg(capacity.to_string())
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log);
    if !server_cores.is_empty() {
        let list: Vec<String> = server_cores.iter().map(ToString::to_string).collect();
        command.arg("--cores").arg(list.join(","));
    }
    // A process group of its own: Ctrl-C is for the generator, which then ends the stack after its report.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().context("cannot start the stack")
}

fn last_lines(path: &Path, count: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// The child's side: runs the development stack until standard input ends.
pub(crate) fn run_as_stack(args: StackArgs) -> ExitCode {
    // Before the runtime starts its threads, which inherit it.
    cores::confine_to(&args.cores);
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: StackArgs) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    end_with_standard_input(cancel.clone())?;
    let mut options = DevOptions::new(args.state_dir);
    options.ephemeral_ports = true;
    options.config.gateway.capacity = args.capacity;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(dev::run(options, cancel))?;
    Ok(())
}

/// Cancels when standard input ends, which it does when the parent lets go of it or is gone; and soon after ends the process
/// however busy it is.
fn end_with_standard_input(cancel: CancellationToken) -> io::Result<()> {
    let watch = move || {
        // Nobody writes to it: this returns at its end.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        cancel.cancel();
        std::thread::sleep(END_DEADLINE);
        std::process::exit(1);
    };
    std::thread::Builder::new()
        .name("parent".to_owned())
        .spawn(watch)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"{
        "auth_url": "https://127.0.0.1:7443", "admin_url": "https://127.0.0.1:7444", "control_url": "https://127.0.0.1:7445",
        "ca": "certs/ca.pem", "backend_certificate": "/abs/backend.pem", "backend_key": "/abs/backend.key",
        "admin_certificate": "/abs/admin.pem", "admin_key": "/abs/admin.key",
        "gateways": [{"id": "gateway-2", "address": "127.0.0.1:7778", "demo": false},
                     {"id": "gateway-1", "address": "127.0.0.1:7777", "demo": true}],
        "pid": 123
    }"#;

    #[test]
    fn a_dev_json_names_its_gateways_and_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dev.json");
        fs::write(&path, EXAMPLE).unwrap();
        fs::create_dir(directory.path().join("certs")).unwrap();
        fs::write(directory.path().join("certs/ca.pem"), "").unwrap();
        let dev_json = DevJson::read(&path).unwrap();
        assert_eq!(dev_json.demo_gateway().unwrap().as_str(), "gateway-1");
        assert_eq!(dev_json.other_gateway().unwrap().as_str(), "gateway-2");
        assert_eq!(dev_json.ca, directory.path().join("certs/ca.pem"));
        assert_eq!(dev_json.backend_key, Path::new("/abs/backend.key"));
    }

    #[test]
    fn what_is_no_dev_json_is_refused_with_a_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dev.json");
        let absent = format!("{:#}", DevJson::read(&path).unwrap_err());
        assert!(absent.contains("tickgate dev"), "{absent}");
        fs::write(&path, "{}").unwrap();
        let empty = format!("{:#}", DevJson::read(&path).unwrap_err());
        assert!(empty.contains("auth_url"), "{empty}");
    }
}
