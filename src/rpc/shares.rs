//! No network holds more than its share of a listener's connections.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// What one household or machine has, as 16 bytes: an IPv4 address, or the first 64 bits of an IPv6 address (RFC 6177: a site has them at
/// the least).
pub fn network_of(address: IpAddr) -> [u8; 16] {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).octets()
        }
    }
}

/// Whose connections are many people's, and count for no share: a proxy's.
pub type Exempt = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// How many connections each network holds.
#[derive(Clone)]
pub(super) struct Shares {
    /// Networks that hold none are not in there, so it is no larger than there are connections.
    held: Arc<Mutex<HashMap<[u8; 16], usize>>>,
    most: usize,
    exempt: Exempt,
}

impl Shares {
    pub(super) fn new(most: usize, exempt: Exempt) -> Self {
        Self {
            held: Arc::default(),
            most,
            exempt,
        }
    }

    /// Room for one more connection from there; none if its network has its share.
    pub(super) fn take(&self, address: IpAddr) -> Option<Share> {
        if (self.exempt)(address.to_canonical()) {
            return Some(Share(None));
        }
        let network = network_of(address);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of_network = held.entry(network).or_default();
        if *of_network >= self.most {
            return None;
        }
        *of_network += 1;
        Some(Share(Some((self.clone(), network))))
    }

    fn give_back(&self, network: [u8; 16]) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_network) = held.get_mut(&network) {
            *of_network = of_network.saturating_sub(1);
            if *of_network == 0 {
                held.remove(&network);
            }
        }
    }
}

/// One connection's part of its network's share, given back when it is dropped.
pub(super) struct Share(Option<(Shares, [u8; 16])>);

impl Drop for Share {
    fn drop(&mut self) {
        if let Some((shares, network)) = self.0.take() {
            shares.give_back(network);
        }
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_has_its_share_and_gives_it_back() {
        let proxy: IpAddr = "10.0.0.1".parse().unwrap();
        let shares = Shares::new(2, Arc::new(move |address| address == proxy));
        let take = |text: &str| shares.take(text.parse().unwrap());
        let first = take("2001:db8::1");
        let second = take("2001:db8::ffff:1");
        assert!(first.is_some() && second.is_some());
        assert!(take("2001:db8::2").is_none(), "the same network");
        let other = take("2001:db8:0:1::1");
        assert!(other.is_some(), "another one");
        drop(first);
        let third = take("2001:db8::2");
        assert!(third.is_some());
        // Written as IPv6, it is the same.
        let both = [take("192.0.2.1"), take("::ffff:192.0.2.1")];
        assert!(both.iter().all(Option::is_some) && take("192.0.2.1").is_none());
        let many: Vec<_> = (0..10).map(|_| take("::ffff:10.0.0.1")).collect();
        assert!(
            many.iter().all(Option::is_some),
            "a proxy's are many people's"
        );
        drop((second, third, other, both, many));
        assert!(shares.held.lock().unwrap().is_empty());
    }
}
