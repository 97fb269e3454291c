//! A share of a processor for one process, by the kernel's own means: cgroup v2 where it has the controller, else v1.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context;

/// Microseconds in which the share is given out anew: short, so that nobody waits for his turn for as long as a tick.
const PERIOD_US: f64 = 10_000.0;

/// A control group with a limit. Removed when dropped, once its process is gone.
pub(crate) struct Quota {
    directory: PathBuf,
}

impl Quota {
    /// A group whose processes have `share` of one processor.
    pub(crate) fn new(share: f64) -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tickgate-peers-{}-{number}", std::process::id());
        let us = (share * PERIOD_US).round();
        let (root, limits): (&str, [(&str, String); 2]) = if has_cpu_controller() {
            let both = format!("{us} {PERIOD_US}");
            (V2, [("cpu.max", both.clone()), ("cpu.max", both)])
        } else {
            let limits = [
                ("cpu.cfs_period_us", PERIOD_US.to_string()),
                ("cpu.cfs_quota_us", us.to_string()),
            ];
            (V1, limits)
        };
        let directory = Path::new(root).join(name);
        fs::create_dir(&directory).with_context(|| {
            format!(
                "cannot make {}: it takes root and a cgroup with the cpu controller",
                directory.display()
            )
        })?;
        let quota = Self { directory };
        for (file, limit) in limits {
            let path = quota.directory.join(file);
            fs::write(&path, limit).with_context(|| path.display().to_string())?;
        }
        Ok(quota)
    }

    /// Puts a process, with all its threads, under the limit.
    pub(crate) fn hold(&self, process: u32) -> anyhow::Result<()> {
        let path = self.directory.join("cgroup.procs");
        fs::write(&path, process.to_string()).with_context(|| path.display().to_string())
    }
}

const V2: &str = "/sys/fs/cgroup";
const V1: &str = "/sys/fs/cgroup/cpu";

fn has_cpu_controller() -> bool {
    let enabled = fs::read_to_string(Path::new(V2).join("cgroup.subtree_control"));
    enabled.is_ok_and(|enabled| enabled.split_whitespace().any(|name| name == "cpu"))
}

impl Drop for Quota {
    fn drop(&mut self) {
        // A group is a directory that holds its own files alone.
        let _ = fs::remove_dir(&self.directory);
    }
}
