//! Instance: which mydocker on this host something belongs to.

use alloc::format;
use alloc::string::{String, ToString};

use serde::{Deserialize, Serialize};

/// Which mydocker on this host owns an object. Several live side by side, each under its own
/// run root and with marks of its own, also within one network namespace.
#[derive(
    Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize,
)]
#[serde(transparent)]
pub struct Instance(u32);

impl Instance {
    /// The instance of the default run root.
    pub const DEFAULT: Self = Self(0);

    /// `rtm_protocol` of every route of ours (`ip route … proto 77`); below the numbers that
    /// `/etc/iproute2/rt_protos` gives to routing daemons. All instances share it: a route's
    /// device tells them apart.
    pub const ROUTE_PROTOCOL: u8 = 77;

    /// The instance of any other run root, told apart by a 24-bit hash of its path.
    #[must_use]
    pub fn of_run_root(path: &str) -> Self {
        let hash = fnv1a(&[path.as_bytes()]);
        Self(1 + (hash % 0xff_ffff) as u32)
    }

    /// `IFLA_GROUP` of every bridge of ours but those of internal networks, and of nothing else in its
    /// namespace: `m` and the instance. The ruleset goes by it.
    #[must_use]
    pub fn bridge_group(self) -> u32 {
        0x6d00_0000 | self.0
    }

    /// `IFLA_GROUP` of every bridge of an internal network: `i` and the instance.
    #[must_use]
    pub fn internal_group(self) -> u32 {
        0x6900_0000 | self.0
    }

    /// `IFLA_GROUP` of both ends of every cable of ours: `c` and the instance. A container that runs
    /// a mydocker of its own, of the same instance, has its uplink in this group, so it is not that
    /// of bridges.
    #[must_use]
    pub fn cable_group(self) -> u32 {
        0x6300_0000 | self.0
    }

    /// Whether a link of that group is ours. The kernel keeps it when a link moves between
    /// namespaces, so it is the mark of ownership. All of them had the group of bridges once.
    #[must_use]
    pub fn owns(self, group: u32) -> bool {
        let ours = [
            self.bridge_group(),
            self.internal_group(),
            self.cable_group(),
        ];
        ours.contains(&group)
    }

    /// `IFLA_GROUP` of links of ours that are about to be removed all at once: `l` and the instance.
    /// One that carries it is as much ours, should nobody get to remove it.
    #[must_use]
    pub fn leaving_group(self) -> u32 {
        0x6c00_0000 | self.0
    }

    /// The name of our nf_tables tables: `mydocker`, and a suffix for all but the default.
    #[must_use]
    pub fn table(self) -> String {
        match self {
            Self::DEFAULT => "mydocker".to_string(),
            Self(tag) => format!("mydocker_{tag:06x}"),
        }
    }

    /// A 64-bit hash of `parts` that differs between instances: the source of derived names.
    pub(crate) fn hash(self, parts: &[&str]) -> u64 {
        let tag = self.0.to_be_bytes();
        let mut all = alloc::vec![&tag[..]];
        all.extend(parts.iter().map(|part| part.as_bytes()));
        fnv1a(&all)
    }
}

/// FNV-1a, 64 bits, each part followed by a byte that no part contains.
/// Source: <http://www.isthe.com/chongo/tech/comp/fnv/>. Its upper bits mix poorly for short
/// input, hence the final avalanche (MurmurHash3's fmix64).
pub(crate) fn fnv1a(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_differ_between_instances() {
        let (a, b) = (Instance::DEFAULT, Instance::of_run_root("/tmp/run"));
        assert_eq!(a.table(), "mydocker");
        assert_ne!(a.table(), b.table());
        for group in [a.bridge_group(), a.internal_group(), a.cable_group()] {
            assert!(a.owns(group) && !b.owns(group) && group != a.leaving_group());
        }
        assert_ne!(a.hash(&["x"]), b.hash(&["x"]));
        assert_ne!(a.hash(&["ab", "c"]), a.hash(&["a", "bc"]));
    }
}
