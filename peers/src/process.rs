//! A server's process, and what the system says of it: processor time, memory, packets that the kernel dropped.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};

use crate::{
    quota::Quota,
    server::{Announced, Kind},
};

/// A server that runs. Dropping it ends it.
pub(crate) struct Server {
    child: Child,
    pub(crate) kind: Kind,
    pub(crate) announced: Announced,
    /// Kept for as long as the process: it is removed afterwards.
    quota: Option<Quota>,
}

impl Server {
    /// Starts this program again as a server that has `core` to itself, or `share` of it.
    pub(crate) fn start(kind: Kind, core: usize, share: Option<f64>) -> anyhow::Result<Self> {
        let quota = share.map(Quota::new).transpose()?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", &kind.to_string(), &core.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start the server {kind}"))?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("a server without a voice")?;
        let read = BufReader::new(stdout).read_line(&mut line);
        let announced = read
            .map_err(anyhow::Error::from)
            .and_then(|_| Announced::read(&line));
        let announced = match announced {
            Ok(announced) => announced,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error.context(format!("the server {kind} did not start")));
            }
        };
        // From here on its end is seen to, whatever fails.
        let server = Self {
            announced,
            child,
            kind,
            quota,
        };
        if let Some(quota) = &server.quota {
            quota.hold(server.child.id())?;
        }
        Ok(server)
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).context(path)
    }

    /// Processor time of all its threads, kernel included.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(self.child.id())
    }

    /// Bytes of memory that belong to this process alone: heap and stacks, without its program and its files.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        let rollup = self.proc("smaps_rollup")?;
        let line = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Anonymous:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        Ok(kilobytes
            .context("no Anonymous in smaps_rollup")?
            .parse::<f64>()?
            * 1_024.0)
    }

    /// Packets that the kernel has dropped because the server took them too late.
    pub(crate) fn drops(&self) -> anyhow::Result<u64> {
        drops_at(self.announced.address.port())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time of all threads that a process has now, to the nanosecond. Threads that have ended are not in it; the servers here end
/// none.
fn cpu_of(process: u32) -> anyhow::Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        // The first number: time on a processor.
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let first = text.split_whitespace().next();
        nanos += first.context("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Processor time of this process.
pub(crate) fn own_cpu() -> anyhow::Result<Duration> {
    cpu_of(std::process::id())
}

/// The drops of the UDP sockets that are bound to a port, from `/proc/net/udp`: the last column.
fn drops_at(port: u16) -> anyhow::Result<u64> {
    let table = fs::read_to_string("/proc/net/udp")?;
    let suffix = format!(":{port:04X}");
    let mut drops = 0;
    let mut found = false;
    for line in table.lines().skip(1) {
        let mut columns = line.split_whitespace();
        if columns.nth(1).is_some_and(|local| local.ends_with(&suffix)) {
            found = true;
            drops += columns
                .next_back()
                .context("a short line")?
                .parse::<u64>()?;
        }
    }
    if !found {
        bail!("no UDP socket at port {port}");
    }
    Ok(drops)
}
