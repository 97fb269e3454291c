//! What Linux says about processes, threads and sockets. On systems without /proc everything here is unknown (`None`), and the
//! report says so.

use std::{fs, path::Path, time::Duration};

/// CPU time and memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ProcessUsage {
    /// User and system time of all its threads since its start.
    pub(crate) cpu: Duration,
    /// Resident memory now, in bytes.
    pub(crate) rss_bytes: u64,
    /// The most resident memory it ever had, in bytes.
    pub(crate) rss_peak_bytes: u64,
}

/// The usage of process `pid`; none if there is no such process or no /proc.
pub(crate) fn process(pid: u32) -> Option<ProcessUsage> {
    let directory = format!("/proc/{pid}");
    let stat = fs::read_to_string(format!("{directory}/stat")).ok()?;
    let status = fs::read_to_string(format!("{directory}/status")).ok()?;
    Some(ProcessUsage {
        cpu: cpu_of_stat(&stat, ticks_per_second())?,
        rss_bytes: kilobytes(&status, "VmRSS:")?,
        rss_peak_bytes: kilobytes(&status, "VmHWM:")?,
    })
}

/// How long a thread has run, and how long it has waited for a CPU while it could have run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ThreadTime {
    /// Time on a CPU.
    pub(crate) running: Duration,
    /// Time on a run queue: others had the CPU.
    pub(crate) waiting: Duration,
}

/// What a thread did with a span of time, as shares of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct ThreadShares {
    /// Share of it on a CPU.
    pub(crate) running: f64,
    /// Share of it on a run queue.
    pub(crate) waiting: f64,
}

impl ThreadShares {
    /// Share of it in which the thread had something to do, whether or not it was given a CPU for it.
    pub(crate) fn busy(&self) -> f64 {
        self.running + self.waiting
    }
}

impl ThreadTime {
    /// What the thread did with the time `span` since `earlier`.
    pub(crate) fn shares_since(self, earlier: Self, span: Duration) -> ThreadShares {
        let share = |now: Duration, then: Duration| {
            now.saturating_sub(then).as_secs_f64() / span.as_secs_f64().max(f64::MIN_POSITIVE)
        };
        ThreadShares {
            running: share(self.running, earlier.running),
            waiting: share(self.waiting, earlier.waiting),
        }
    }
}

/// The times of the calling thread, to the nanosecond.
pub(crate) fn this_thread() -> Option<ThreadTime> {
    parse_schedstat(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

/// How many packets the kernel has dropped at the receive queues of this process's UDP sockets that are open now.
pub(crate) fn own_udp_drops() -> Option<u64> {
    let sockets: Vec<u64> = fs::read_dir("/proc/self/fd")
        .ok()?
        .filter_map(|entry| socket_inode(&fs::read_link(entry.ok()?.path()).ok()?))
        .collect();
    let drops = |path: &str| {
        fs::read_to_string(path)
            .map(|table| drops_of(&table, &sockets))
            .unwrap_or(0)
    };
    fs::metadata("/proc/net/udp").ok()?;
    Some(drops("/proc/net/udp") + drops("/proc/net/udp6"))
}

/// The inode in a link such as `socket:[4711]`.
fn socket_inode(link: &Path) -> Option<u64> {
    let text = link.to_str()?;
    text.strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// The drops of the sockets with these inodes in a table such as /proc/net/udp: the inode is its 10th column, drops the last.
fn drops_of(table: &str, inodes: &[u64]) -> u64 {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut columns = line.split_ascii_whitespace();
            let inode: u64 = columns.nth(9)?.parse().ok()?;
            let drops: u64 = columns.last()?.parse().ok()?;
            inodes.contains(&inode).then_some(drops)
        })
        .sum()
}

/// User plus system time (columns 14 and 15, in clock ticks) of a line such as /proc/1/stat. The name in column 2 may hold spaces
/// and brackets, so columns are counted after its last bracket.
fn cpu_of_stat(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut columns = rest.split_ascii_whitespace().skip(11);
    let user: u64 = columns.next()?.parse().ok()?;
    let system: u64 = columns.next()?.parse().ok()?;
    let millis = (user + system).saturating_mul(1_000) / ticks_per_second.max(1);
    Some(Duration::from_millis(millis))
}

fn parse_schedstat(text: &str) -> Option<ThreadTime> {
    let mut columns = text.split_ascii_whitespace();
    Some(ThreadTime {
        running: Duration::from_nanos(columns.next()?.parse().ok()?),
        waiting: Duration::from_nanos(columns.next()?.parse().ok()?),
    })
}

/// A line such as `VmRSS:  1760 kB` of /proc/1/status, in bytes.
fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    number.checked_mul(1_024)
}

#[cfg(target_os = "linux")]
fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second()
}

#[cfg(not(target_os = "linux"))]
fn ticks_per_second() -> u64 {
    100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_stat_are_counted_after_the_name() {
        let stat = "21255 (a) b (c)) R 21251 21251 15629 0 -1 4194304 2852 6586 0 0 102 48 3 1 20 0 1 0 187525";
        assert_eq!(cpu_of_stat(stat, 100), Some(Duration::from_millis(1_500)));
        assert_eq!(cpu_of_stat("21255 (cat", 100), None);
    }

    #[test]
    fn drops_are_those_of_our_own_sockets() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  119: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 5
  120: 0100007F:1F91 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 70
  121: 0100007F:1F92 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4713 2 0000000000000000 900
";
        assert_eq!(drops_of(table, &[4711, 4713]), 905);
        assert_eq!(drops_of(table, &[]), 0);
    }

    #[test]
    fn only_sockets_have_a_socket_inode() {
        assert_eq!(socket_inode(Path::new("socket:[4711]")), Some(4711));
        assert_eq!(socket_inode(Path::new("/dev/null")), None);
    }

    #[test]
    fn memory_and_thread_times_are_parsed() {
        let status = "Name:\tx\nVmHWM:\t    1760 kB\nVmRSS:\t     800 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(800 * 1_024));
        assert_eq!(kilobytes(status, "VmSwap:"), None);
        let time = parse_schedstat("1040023328 9061549 41\n").unwrap();
        assert_eq!(time.running, Duration::from_nanos(1_040_023_328));
        let shares = time.shares_since(ThreadTime::default(), Duration::from_secs(2));
        assert!((shares.running - 0.52).abs() < 0.001, "{shares:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_found() {
        let usage = process(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 0 && usage.rss_peak_bytes >= usage.rss_bytes);
        assert!(this_thread().is_some());
        assert!(own_udp_drops().is_some());
    }
}
