//! Generator and server on different cores, so that neither takes the other's time unseen.

/// Which logical CPUs belong to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Division {
    /// The generator's.
    pub(crate) generator: Vec<usize>,
    /// The server's. With a single core they are the same.
    pub(crate) server: Vec<usize>,
}

/// Divides the CPUs that this process may use: the lower half to the generator, the upper half, and the odd one, to the server.
pub(crate) fn divide(available: &[usize]) -> Division {
    let half = available.len() / 2;
    if half == 0 {
        return Division {
            generator: available.to_vec(),
            server: available.to_vec(),
        };
    }
    let (generator, server) = available.split_at(half);
    Division {
        generator: generator.to_vec(),
        server: server.to_vec(),
    }
}

/// The CPUs that this process may use, in order; empty where that is unknown.
#[cfg(target_os = "linux")]
pub(crate) fn available() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|cpu| set.is_set(*cpu))
            .collect(),
        Err(_) => Vec::new(),
    }
}

/// Confines the calling thread, and those that it starts from now on, to `cpus`. Says whether it could.
#[cfg(target_os = "linux")]
pub(crate) fn confine_to(cpus: &[usize]) -> bool {
    if cpus.is_empty() {
        return false;
    }
    let mut set = rustix::thread::CpuSet::new();
    for &cpu in cpus {
        set.set(cpu);
    }
    rustix::thread::sched_setaffinity(None, &set).is_ok()
}

/// The CPUs that this process may use: unknown here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn available() -> Vec<usize> {
    Vec::new()
}

/// Confines nothing here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn confine_to(_cpus: &[usize]) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_are_one_each() {
        let division = divide(&[0, 1]);
        assert_eq!(division.generator, [0]);
        assert_eq!(division.server, [1]);
    }

    #[test]
    fn an_odd_core_is_the_servers() {
        let division = divide(&[2, 3, 6, 7, 8]);
        assert_eq!(division.generator, [2, 3]);
        assert_eq!(division.server, [6, 7, 8]);
    }

    #[test]
    fn a_single_core_is_shared() {
        assert_eq!(divide(&[4]).generator, divide(&[4]).server);
        assert!(divide(&[]).generator.is_empty());
    }
}
