//! How fast one address may open connections.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use fieldgate_proto::time::Instant;

/// A budget of connections for each address; for IPv6, for each network of 64 bits, since one machine has as many addresses as it
/// likes.
///
/// An address begins with [`BURST`] seconds' worth, and gets one second's worth back per second. When more than
/// [`SOURCES_MAX`] addresses are known, those with a full budget are forgotten; if that does not help, all are.
#[derive(Debug)]
pub(super) struct Sources {
    per_second: u32,
    /// When the budget of an address would be full again.
    full_at: BTreeMap<IpAddr, Instant>,
}

impl Sources {
    /// Allows `per_second` connections per second; 0 allows any number.
    pub(super) const fn new(per_second: u32) -> Self {
        Self {
            per_second,
            full_at: BTreeMap::new(),
        }
    }

    /// Takes one connection off an address's budget; says whether there was one.
    pub(super) fn admit(&mut self, now: Instant, address: IpAddr) -> bool {
        let Some(cost) = Duration::from_secs(1).checked_div(self.per_second) else {
            return true;
        };
        let source = network(address);
        let full_at = self.full_at.get(&source).copied().unwrap_or(now).max(now);
        if full_at - now + cost > Duration::from_secs(BURST) {
            return false;
        }
        if self.full_at.len() >= SOURCES_MAX && !self.full_at.contains_key(&source) {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= SOURCES_MAX {
                self.full_at.clear();
            }
        }
        self.full_at.insert(source, full_at + cost);
        true
    }
}

/// Returns what stands for an address.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => IpAddr::V4(mapped),
            None => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        },
    }
}

/// Seconds' worth of connections that an address may open at once.
const BURST: u64 = 10;
/// Addresses that are remembered.
const SOURCES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_budget_is_used_up_and_comes_back() {
        let mut sources = Sources::new(2);
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..20 {
            assert!(sources.admit(at(0), one));
        }
        assert!(!sources.admit(at(0), one));
        assert!(sources.admit(at(0), other), "nobody else pays");
        assert!(!sources.admit(at(499), one));
        assert!(sources.admit(at(500), one));
        assert!(!sources.admit(at(500), one));
        let admitted = (0..100).filter(|_| sources.admit(at(60_000), one)).count();
        assert_eq!(admitted, 20);
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let mut sources = Sources::new(1);
        for last in 0..10 {
            assert!(sources.admit(at(0), address(&format!("2001:db8::{last}"))));
        }
        assert!(!sources.admit(at(0), address("2001:db8::ffff")));
        assert!(sources.admit(at(0), address("2001:db8:0:1::1")));
        for _ in 0..10 {
            sources.admit(at(0), address("192.0.2.1"));
        }
        assert!(
            !sources.admit(at(0), address("::ffff:192.0.2.1")),
            "the same machine"
        );
    }

    #[test]
    fn nothing_is_bounded_where_nothing_is_to_be() {
        let mut sources = Sources::new(0);
        assert!((0..10_000).all(|_| sources.admit(at(0), address("192.0.2.1"))));
        assert!(sources.full_at.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut sources = Sources::new(1);
        for number in 0..40_000_u32 {
            assert!(sources.admit(at(number.into()), IpAddr::V4(number.into())));
            assert!(sources.full_at.len() <= SOURCES_MAX);
        }
    }
}
