//! Generator and server on different cores, so that neither takes the other's time unseen.

/// Which logical CPUs generator and server are confined to. Empty: to none in particular.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cores {
    /// The generator's.
    pub(crate) generator: Vec<usize>,
    /// The server's.
    pub(crate) server: Vec<usize>,
}

impl Cores {
    /// Divides the CPUs that this process may use, and confines the calling thread and those that it starts to the generator's.
    /// With a single CPU, or where the system gives no means, nobody is confined.
    pub(crate) fn divide() -> Self {
        let division = Self::of(&available());
        if confine_to(&division.generator) {
            division
        } else {
            Self::default()
        }
    }

    /// The lower half is the generator's; the upper half, and the odd one, the server's.
    fn of(available: &[usize]) -> Self {
        let (generator, server) = available.split_at(available.len() / 2);
        if generator.is_empty() {
            return Self::default();
        }
        Self {
            generator: generator.to_vec(),
            server: server.to_vec(),
        }
    }
}

/// The CPUs that this process may use, in order; empty where that is unknown.
#[cfg(target_os = "linux")]
fn available() -> Vec<usize> {
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
fn available() -> Vec<usize> {
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
        let cores = Cores::of(&[0, 1]);
        assert_eq!(cores.generator, [0]);
        assert_eq!(cores.server, [1]);
    }

    #[test]
    fn an_odd_core_is_the_servers() {
        let cores = Cores::of(&[2, 3, 6, 7, 8]);
        assert_eq!(cores.generator, [2, 3]);
        assert_eq!(cores.server, [6, 7, 8]);
    }

    #[test]
    fn a_single_core_is_nobodys_alone() {
        assert_eq!(Cores::of(&[4]), Cores::default());
        assert_eq!(Cores::of(&[]), Cores::default());
    }
}
