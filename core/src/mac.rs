//! MAC addresses, derived from IP addresses.

use alloc::string::{String, ToString};
use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::instance::fnv1a;
use crate::name::shown;

/// An Ethernet address that an interface may have: unicast, not all zero.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// A string that is no MAC address of an interface.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is not a MAC address of an interface: write six hex octets such as 02:6d:0a:00:00:02, unicast and not all zero"
)]
pub struct MacError(pub String);

impl Mac {
    /// The MAC that goes with an address: a reused address meets the neighbour entry it left
    /// behind, which is right again. Locally administered (IEEE 802, bit 1 of the first octet);
    /// `02:6d` and the four octets of an IPv4 address, `06` and 40 bits of hash of an IPv6 address.
    #[must_use]
    pub fn of_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                Self([0x02, 0x6d, a, b, c, d])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, ..] = fnv1a(&[&v6.octets()]).to_be_bytes();
                Self([0x06, a, b, c, d, e])
            }
        }
    }

    /// A MAC from a hash, for a bridge that has no address.
    pub(crate) fn of_hash(hash: u64) -> Self {
        let [a, b, c, d, e, ..] = hash.to_be_bytes();
        Self([0x0a, a, b, c, d, e])
    }

    /// The address that an interface with this MAC gives itself (RFC 4291, appendix A), which is
    /// how the kernel does it unless told otherwise (`addrgenmode eui64`).
    #[must_use]
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let id = [a ^ 0x02, b, c, 0xff, 0xfe, d, e, f];
        Ipv6Addr::from(0xfe80 << 112 | u128::from(u64::from_be_bytes(id)))
    }

    /// The six octets, as `IFLA_ADDRESS` has them.
    #[must_use]
    pub fn octets(self) -> [u8; 6] {
        self.0
    }

    /// From the six octets, if they can be the address of an interface.
    #[must_use]
    pub fn from_octets(octets: [u8; 6]) -> Option<Self> {
        (octets[0] & 1 == 0 && octets != [0; 6]).then_some(Self(octets))
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(value: &str) -> Result<Self, MacError> {
        let fail = || MacError(shown(value));
        let mut octets = [0; 6];
        let mut parts = value.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(fail)?;
            let hex = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            *octet = u8::from_str_radix(if hex { part } else { "" }, 16).map_err(|_| fail())?;
        }
        if parts.next().is_some() {
            return Err(fail());
        }
        Self::from_octets(octets).ok_or_else(fail)
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(value: String) -> Result<Self, MacError> {
        value.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As `{:02x}` would have it, in a tenth of the instructions: a plan says it ten times.
        let hex = |digit: u8| b"0123456789abcdef"[usize::from(digit & 0xf)];
        let mut text = [b':'; 17];
        for (octet, place) in self.0.iter().zip(text.chunks_mut(3)) {
            (place[0], place[1]) = (hex(octet >> 4), hex(*octet));
        }
        f.write_str(core::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_from_the_address() {
        assert_eq!(
            Mac::of_address("10.0.0.2".parse().unwrap()).to_string(),
            "02:6d:0a:00:00:02"
        );
        let v6 = |text: &str| Mac::of_address(text.parse().unwrap());
        assert_eq!(v6("fd00::2").octets()[0], 0x06);
        assert_ne!(
            v6("fd00::2"),
            v6("fd00::1:0:0:2"),
            "one suffix, two addresses"
        );
    }

    #[test]
    fn a_link_local_address_is_as_the_kernel_makes_it() {
        let mac: Mac = "02:6d:0a:58:00:02".parse().unwrap();
        assert_eq!(mac.link_local().to_string(), "fe80::6d:aff:fe58:2");
    }

    #[test]
    fn parses_only_interface_addresses() {
        assert!("02:6d:0a:00:00:02".parse::<Mac>().is_ok());
        for bad in [
            "",
            "02:6d:0a:00:00",
            "02:6d:0a:00:00:02:03",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "2:6d:0a:00:00:02",
            "+2:6d:0a:00:00:02",
            "zz:6d:0a:00:00:02",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
        let told = "\u{1b}[2J".parse::<Mac>().unwrap_err().to_string();
        assert!(!told.contains(char::is_control), "{told:?}");
    }
}
