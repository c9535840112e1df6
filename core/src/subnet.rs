//! Subnet: a range of addresses and what each is for.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::Family;

/// One subnet of a network. Checked when it is made and when it is read: gateway, range and reserved
/// addresses lie inside and are hosts.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "Written")]
pub struct Subnet {
    /// Host bits are zero.
    pub net: IpNet,
    /// The bridge's own address and the containers' next hop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// First and last address that are handed out unasked; the whole subnet by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<(IpAddr, IpAddr)>,
    /// Addresses set aside, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<String, IpAddr>,
}

/// A subnet as a file has it.
#[derive(Deserialize)]
struct Written {
    net: IpNet,
    #[serde(default)]
    gateway: Option<IpAddr>,
    #[serde(default)]
    range: Option<(IpAddr, IpAddr)>,
    #[serde(default)]
    reserved: BTreeMap<String, IpAddr>,
}

impl TryFrom<Written> for Subnet {
    type Error = SubnetError;

    fn try_from(written: Written) -> Result<Self, SubnetError> {
        let subnet = Self::new(written.net)?;
        if let Some(gateway) = written.gateway {
            subnet.host("gateway", gateway)?;
        }
        if let Some((first, last)) = written.range {
            subnet.host("start of the lease range", first)?;
            subnet.host("end of the lease range", last)?;
            if first > last {
                return Err(SubnetError::RangeReversed { first, last });
            }
        }
        for reserved in written.reserved.values() {
            subnet.host("reserved address", *reserved)?;
        }
        Ok(Self {
            gateway: written.gateway,
            range: written.range,
            reserved: written.reserved,
            ..subnet
        })
    }
}

/// Why a subnet can't be had.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SubnetError {
    /// No room for a gateway and a container.
    #[error("subnet {0} is too small: the longest prefix is /30 (IPv4) or /126 (IPv6)")]
    TooSmall(IpNet),
    /// A prefix that swallows whole parts of the address space.
    #[error("subnet {0} is too large: the shortest prefix is /8 (IPv4) or /16 (IPv6)")]
    TooLarge(IpNet),
    /// Loopback, multicast, link-local or unspecified.
    #[error(
        "subnet {0} is reserved by the protocol: choose a private one such as 10.88.0.0/24 or fd00:88::/64"
    )]
    Special(IpNet),
    /// An address that no interface of the subnet can have.
    #[error(
        "{what} {address} is not a host address of subnet {net}: choose one from {first} to {last}"
    )]
    NotAHost {
        /// What it was to be: `gateway`, `reserved address`.
        what: &'static str,
        /// The address.
        address: IpAddr,
        /// The subnet.
        net: IpNet,
        /// The lowest that would do.
        first: IpAddr,
        /// The highest that would do.
        last: IpAddr,
    },
    /// A lease range that is not part of the subnet.
    #[error("lease range {range} is not inside subnet {net}")]
    RangeOutside {
        /// The range.
        range: IpNet,
        /// The subnet.
        net: IpNet,
    },
    /// A lease range of nothing but network or broadcast address.
    #[error("lease range {range} has no host address of subnet {net}")]
    RangeEmpty {
        /// The range.
        range: IpNet,
        /// The subnet.
        net: IpNet,
    },
    /// A lease range whose first address is behind its last.
    #[error("lease range {first} to {last} goes backwards")]
    RangeReversed {
        /// What it begins with.
        first: IpAddr,
        /// What it ends with.
        last: IpAddr,
    },
}

impl Subnet {
    /// A subnet with its first host as gateway, as `ip` users expect of a bridge.
    ///
    /// # Errors
    /// Its size or place makes it unusable.
    pub fn new(net: IpNet) -> Result<Self, SubnetError> {
        let net = net.trunc();
        let (shortest, longest) = match net {
            IpNet::V4(_) => (8, 30),
            IpNet::V6(_) => (16, 126),
        };
        if net.prefix_len() > longest {
            return Err(SubnetError::TooSmall(net));
        }
        if net.prefix_len() < shortest {
            return Err(SubnetError::TooLarge(net));
        }
        let special = match net.network() {
            IpAddr::V4(first) => {
                first.octets()[0] == 0
                    || first.is_loopback()
                    || first.is_link_local()
                    || first.octets()[0] >= 224
            }
            IpAddr::V6(first) => {
                first.is_unspecified() || first.is_multicast() || first.is_unicast_link_local()
            }
        };
        if special {
            return Err(SubnetError::Special(net));
        }
        let mut subnet = Self {
            net,
            gateway: None,
            range: None,
            reserved: BTreeMap::new(),
        };
        subnet.gateway = Some(subnet.hosts().0);
        Ok(subnet)
    }

    /// The family of its addresses.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.net.addr())
    }

    /// Lowest and highest address that an interface can have.
    #[must_use]
    pub fn hosts(&self) -> (IpAddr, IpAddr) {
        match self.net {
            IpNet::V4(net) => (
                core::net::Ipv4Addr::from_bits(net.network().to_bits() + 1).into(),
                core::net::Ipv4Addr::from_bits(net.broadcast().to_bits() - 1).into(),
            ),
            // RFC 4291 2.6.1: the lowest is the subnet-router anycast address. No broadcast.
            IpNet::V6(net) => (
                core::net::Ipv6Addr::from_bits(net.network().to_bits() + 1).into(),
                net.broadcast().into(),
            ),
        }
    }

    /// The address with the subnet's prefix length, as an interface carries it.
    #[must_use]
    pub fn with_prefix(&self, address: IpAddr) -> IpNet {
        // The prefix length is that of a network of this family, so it fits.
        IpNet::new(address, self.net.prefix_len()).unwrap_or(self.net)
    }

    /// Whether the two share an address.
    #[must_use]
    pub fn overlaps(&self, other: &IpNet) -> bool {
        self.net.contains(other) || other.contains(&self.net)
    }

    /// What no container may get: network, broadcast, gateway, reserved.
    pub(crate) fn never_leased(&self) -> impl Iterator<Item = IpAddr> {
        let broadcast = (self.family() == Family::V4).then(|| self.net.broadcast());
        [self.net.network()]
            .into_iter()
            .chain(broadcast)
            .chain(self.gateway)
            .chain(self.reserved.values().copied())
    }

    /// Checks that `address` can be an interface's.
    pub(crate) fn host(&self, what: &'static str, address: IpAddr) -> Result<IpAddr, SubnetError> {
        let (first, last) = self.hosts();
        if (first..=last).contains(&address) {
            return Ok(address);
        }
        Err(SubnetError::NotAHost {
            what,
            address,
            net: self.net,
            first,
            last,
        })
    }

    /// The lease range that `--ip-range` asks for, less what is no host.
    pub(crate) fn lease_range(&self, range: IpNet) -> Result<(IpAddr, IpAddr), SubnetError> {
        let range = range.trunc();
        if !self.net.contains(&range) {
            return Err(SubnetError::RangeOutside {
                range,
                net: self.net,
            });
        }
        let (first, last) = self.hosts();
        let (first, last) = (range.network().max(first), range.broadcast().min(last));
        if first > last {
            return Err(SubnetError::RangeEmpty {
                range,
                net: self.net,
            });
        }
        Ok((first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_checked_too() {
        let read = |rest: &str| {
            let text = std::format!(r#"{{"net":"10.0.0.0/24"{rest}}}"#);
            serde_json::from_str::<Subnet>(&text).is_ok()
        };
        for good in [
            "",
            r#","gateway":"10.0.0.7""#,
            r#","range":["10.0.0.1","10.0.0.254"],"reserved":{"a":"10.0.0.9"}"#,
        ] {
            assert!(read(good), "{good}");
        }
        for bad in [
            r#","gateway":"10.0.1.1""#,
            r#","gateway":"fd00::1""#,
            r#","range":["10.0.0.9","10.0.0.3"]"#,
            r#","range":["10.0.0.9","10.0.0.255"]"#,
            r#","range":["::","10.0.0.9"]"#,
            r#","reserved":{"a":"10.0.0.0"}"#,
        ] {
            assert!(!read(bad), "{bad}");
        }
        assert!(serde_json::from_str::<Subnet>(r#"{"net":"10.0.0.0/32"}"#).is_err());
    }

    #[test]
    fn refuses_what_no_bridge_can_carry() {
        for bad in [
            "10.0.0.0/31",
            "10.0.0.0/7",
            "127.0.0.0/24",
            "224.0.0.0/24",
            "0.0.0.0/8",
            "169.254.0.0/16",
            "fd00::/127",
            "fe80::/64",
            "ff02::/64",
            "::/64",
        ] {
            assert!(Subnet::new(bad.parse().unwrap()).is_err(), "{bad}");
        }
        for good in [
            "10.0.0.0/8",
            "10.0.0.0/30",
            "fd00::/64",
            "fd00::/126",
            "2001:db8::/16",
        ] {
            assert!(Subnet::new(good.parse().unwrap()).is_ok(), "{good}");
        }
    }
}
