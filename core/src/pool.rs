//! Pool: which addresses of a subnet are leased, a bit per address.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Serialize;

use crate::Subnet;
use crate::bitmap::Bitmap;

/// The leases of one subnet. Memory follows what is leased, so a /8 and a /64 start empty; the
/// next free address is found in O(log n) at any fill.
///
/// An index, not a record: the truth is the endpoints, and [`State`](crate::State) rebuilds pools
/// from them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pool {
    base: IpAddr,
    /// First and last offset that are handed out unasked.
    first: u128,
    last: u128,
    /// Last offset of the subnet.
    end: u128,
    /// Where the search for the next lease starts: a released address rests until the search
    /// comes round again.
    cursor: u128,
    taken: Bitmap,
    /// Addresses that nobody may lease, in `first..=last`.
    reserved: u128,
    leased: u128,
}

/// How much of a subnet is leased.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Usage {
    /// The subnet.
    pub subnet: IpNet,
    /// Addresses that are leased.
    pub leased: u128,
    /// Addresses that can be leased in all.
    pub capacity: u128,
}

/// Why an address can't be leased.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PoolError {
    /// Not an address of this subnet.
    Outside,
    /// Network, broadcast, gateway, set aside by name, or leased already.
    Taken,
}

impl Pool {
    /// The pool of a subnet, nothing leased.
    #[must_use]
    pub fn new(subnet: &Subnet) -> Self {
        let base = subnet.net.network();
        let end = offset(base, subnet.net.broadcast()).unwrap_or_default();
        let (first, last) = subnet.range.map_or((0, end), |(first, last)| {
            (
                offset(base, first).unwrap_or_default(),
                offset(base, last).unwrap_or(end),
            )
        });
        let mut pool = Self {
            base,
            first,
            last,
            end,
            cursor: first,
            taken: Bitmap::default(),
            reserved: 0,
            leased: 0,
        };
        for address in subnet.never_leased() {
            if let Some(offset) = offset(base, address)
                && pool.taken.set(offset)
                && (first..=last).contains(&offset)
            {
                pool.reserved += 1;
            }
        }
        pool
    }

    /// The address that the next lease gets; `None` when all are taken.
    #[must_use]
    pub fn next_free(&self) -> Option<IpAddr> {
        let free_from = |offset| {
            let found = self.taken.first_clear(offset);
            found.filter(|offset| *offset <= self.last)
        };
        let found = free_from(self.cursor).or_else(|| free_from(self.first))?;
        Some(at(self.base, found))
    }

    /// The address with the place here that `address` has in another pool, if it is one to be leased
    /// unasked, and free. A MAC address follows from the first of an endpoint's addresses: where the
    /// others have its place, an address that comes back comes back with its MAC address, and neighbours
    /// who remember it are right.
    #[must_use]
    pub fn counterpart(&self, other: &Self, address: IpAddr) -> Option<IpAddr> {
        let place = offset(other.base, address)?;
        let free = (self.first..=self.last).contains(&place) && !self.taken.get(place);
        free.then(|| at(self.base, place))
    }

    /// Whether an address can be leased on request.
    ///
    /// # Errors
    /// It is outside the subnet, or taken.
    pub fn check(&self, address: IpAddr) -> Result<(), PoolError> {
        match offset(self.base, address) {
            Some(offset) if offset <= self.end => {
                if self.taken.get(offset) {
                    Err(PoolError::Taken)
                } else {
                    Ok(())
                }
            }
            Some(_) | None => Err(PoolError::Outside),
        }
    }

    /// Leases an address. One that was next in line moves the search on; one asked for by name
    /// does not.
    ///
    /// # Errors
    /// It is outside the subnet, or taken.
    pub fn lease(&mut self, address: IpAddr) -> Result<(), PoolError> {
        self.check(address)?;
        let offset = offset(self.base, address).ok_or(PoolError::Outside)?;
        if self.next_free() == Some(address) {
            self.cursor = if offset < self.last {
                offset + 1
            } else {
                self.first
            };
        }
        self.taken.set(offset);
        self.leased += 1;
        Ok(())
    }

    /// Ends a lease; one that is not held is fine.
    pub fn release(&mut self, address: IpAddr) {
        let Some(offset) = offset(self.base, address).filter(|o| self.taken.get(*o)) else {
            return;
        };
        self.taken.clear(offset);
        self.leased -= 1;
    }

    /// How many addresses are leased.
    #[must_use]
    pub fn leased(&self) -> u128 {
        self.leased
    }

    /// How many addresses can be leased in all.
    #[must_use]
    pub fn capacity(&self) -> u128 {
        (self.last - self.first + 1).saturating_sub(self.reserved)
    }

    /// The address that the search for the next lease starts at.
    #[must_use]
    pub fn cursor(&self) -> IpAddr {
        at(self.base, self.cursor)
    }

    /// Takes the search up where it was; an address outside the range is ignored.
    pub fn set_cursor(&mut self, address: IpAddr) {
        if let Some(offset) = offset(self.base, address)
            && (self.first..=self.last).contains(&offset)
        {
            self.cursor = offset;
        }
    }
}

/// How far `address` lies behind `base`; `None` if before it or of the other family.
fn offset(base: IpAddr, address: IpAddr) -> Option<u128> {
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            u128::from(address.to_bits()).checked_sub(u128::from(base.to_bits()))
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => address.to_bits().checked_sub(base.to_bits()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// The address `offset` behind `base`.
fn at(base: IpAddr, offset: u128) -> IpAddr {
    match base {
        IpAddr::V4(base) => Ipv4Addr::from_bits(base.to_bits().wrapping_add(offset as u32)).into(),
        IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits().wrapping_add(offset)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn pool(net: &str) -> Pool {
        let net = net.parse().unwrap();
        Pool::new(&Subnet::new(net).unwrap())
    }

    fn lease_next(pool: &mut Pool) -> Option<IpAddr> {
        let address = pool.next_free()?;
        pool.lease(address).unwrap();
        Some(address)
    }

    fn all(net: &str) -> Vec<IpAddr> {
        let mut pool = pool(net);
        core::iter::from_fn(|| lease_next(&mut pool)).collect()
    }

    // The original handed out .255 and .0 of a /24, 10.0.1.0 of a /22 and 10.0.0.4 of a /30.
    #[test]
    fn hands_out_hosts_only() {
        let v24 = all("10.0.0.0/24");
        assert_eq!(v24.len(), 253);
        assert_eq!(v24[0], "10.0.0.2".parse::<IpAddr>().unwrap());
        assert_eq!(v24[252], "10.0.0.254".parse::<IpAddr>().unwrap());
        assert_eq!(all("10.0.0.0/30"), ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        let v22 = all("10.0.0.0/22");
        assert_eq!(v22.len(), 1021);
        assert!(
            v22.contains(&"10.0.1.0".parse().unwrap()),
            "an ordinary host of a /22"
        );
        let v120 = all("fd00:1::/120");
        assert_eq!(v120.len(), 254);
        assert_eq!(v120[0], "fd00:1::2".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn huge_subnets_cost_what_is_leased() {
        for net in ["10.0.0.0/8", "fd00::/64", "fd00::/16"] {
            let mut pool = pool(net);
            for _ in 0..5000 {
                lease_next(&mut pool).unwrap();
            }
            assert!(pool.taken.leaves() <= 4, "{net}");
            assert_eq!(pool.leased(), 5000);
        }
    }

    #[test]
    fn a_full_subnet_still_finds_its_last_address() {
        let mut pool = pool("10.0.0.0/14");
        while lease_next(&mut pool).is_some() {}
        assert_eq!(pool.leased(), (1 << 18) - 3);
        assert_eq!(pool.leased(), pool.capacity());
        let odd = "10.3.3.9".parse().unwrap();
        pool.release(odd);
        assert_eq!(pool.next_free(), Some(odd));
    }

    #[test]
    fn a_released_address_rests() {
        let mut pool = pool("10.0.0.0/29");
        let first = lease_next(&mut pool).unwrap();
        pool.release(first);
        let rest: Vec<IpAddr> = core::iter::from_fn(|| lease_next(&mut pool)).collect();
        assert_eq!(rest.last(), Some(&first));
        assert_eq!(rest.len(), 5);
    }

    #[test]
    fn counterparts_have_the_same_place() {
        let (mut small, mut large) = (pool("10.0.0.0/29"), pool("fd00::/64"));
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let like = |small: &Pool, large: &Pool, text| large.counterpart(small, ip(text));
        assert_eq!(like(&small, &large, "10.0.0.5"), Some(ip("fd00::5")));
        large.lease(ip("fd00::5")).unwrap();
        assert_eq!(like(&small, &large, "10.0.0.5"), None);
        // Leased, the gateway's, the broadcast address, and one beyond the end.
        small.lease(ip("10.0.0.2")).unwrap();
        for text in ["fd00::2", "fd00::1", "fd00::7", "fd00::9"] {
            assert_eq!(like(&large, &small, text), None, "{text}");
        }
    }

    #[test]
    fn an_address_asked_for_by_name_does_not_move_the_search() {
        let mut pool = pool("10.0.0.0/24");
        pool.lease("10.0.0.200".parse().unwrap()).unwrap();
        assert_eq!(pool.next_free(), Some("10.0.0.2".parse().unwrap()));
        assert_eq!(
            pool.lease("10.0.0.1".parse().unwrap()),
            Err(PoolError::Taken)
        );
        assert_eq!(
            pool.lease("10.0.1.1".parse().unwrap()),
            Err(PoolError::Outside)
        );
        assert_eq!(
            pool.lease("fd00::1".parse().unwrap()),
            Err(PoolError::Outside)
        );
    }

    proptest! {
        /// Against a set: leases are distinct, inside, and found as long as there are any.
        #[test]
        fn agrees_with_a_set(
            prefix in 20u8..=30,
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..400),
        ) {
            let net = ipnet::Ipv4Net::new([10, 4, 0, 0].into(), prefix).unwrap();
            let subnet = Subnet::new(net.into()).unwrap();
            let mut pool = Pool::new(&subnet);
            let mut model: BTreeSet<IpAddr> = BTreeSet::new();
            let room = net.hosts().count() - 1;
            for (lease, pick) in steps {
                if lease || model.is_empty() {
                    match lease_next(&mut pool) {
                        Some(address) => {
                            prop_assert!(net.hosts().any(|host| IpAddr::V4(host) == address));
                            prop_assert_ne!(Some(address), subnet.gateway);
                            prop_assert!(model.insert(address));
                        }
                        None => prop_assert_eq!(model.len(), room),
                    }
                } else {
                    let address = *model.iter().nth(pick.index(model.len())).unwrap();
                    model.remove(&address);
                    pool.release(address);
                    prop_assert_eq!(pool.check(address), Ok(()));
                }
                prop_assert_eq!(pool.leased(), model.len() as u128);
            }
        }
    }
}
