//! Network: a bridge, its subnets and its options.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::shown;
use crate::{
    Address, Bridge, Family, Footprint, ForeignForward, Instance, Link, LinkName, LinkSysctl, Mac,
    Masquerade, NetworkName, Object, Subnet, Up, Zone, request::StaticRoute,
};

/// What makes a network.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// A bridge of the host, veth pairs and NAT.
    #[default]
    Bridge,
}

/// A word that is no driver.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a network driver: there is `bridge`")]
pub struct DriverError(String);

impl FromStr for Driver {
    type Err = DriverError;

    fn from_str(value: &str) -> Result<Self, DriverError> {
        match value {
            "bridge" => Ok(Self::Bridge),
            other => Err(DriverError(shown(other))),
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.pad("bridge"),
        }
    }
}

/// How the containers of a network meet the world in one address family.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayMode {
    /// Behind the host's address: what leaves is masqueraded, published ports are the host's.
    #[default]
    Nat,
    /// Under their own addresses, to which others have a route: published ports are open there,
    /// nothing is translated.
    Routed,
    /// Not at all: the host has no address on the bridge.
    Isolated,
}

/// A word that is no gateway mode.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a gateway mode: write nat, routed or isolated")]
pub struct GatewayModeError(String);

impl FromStr for GatewayMode {
    type Err = GatewayModeError;

    fn from_str(value: &str) -> Result<Self, GatewayModeError> {
        match value {
            "nat" => Ok(Self::Nat),
            "routed" => Ok(Self::Routed),
            "isolated" => Ok(Self::Isolated),
            other => Err(GatewayModeError(shown(other))),
        }
    }
}

/// A network as it is kept. Immutable but for its labels: change is a new network.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Network {
    /// Its name.
    pub name: NetworkName,
    /// What makes it.
    pub driver: Driver,
    /// The bridge's name: the network's own if an interface can have it, else derived.
    pub bridge: LinkName,
    /// The bridge's MAC address.
    pub mac: Mac,
    /// Its subnets, of either family; an endpoint has an address of each.
    pub subnets: Vec<Subnet>,
    /// Maximum transmission unit of bridge and cables, bytes.
    pub mtu_bytes: u32,
    /// Nothing passes between this network and anything else.
    pub internal: bool,
    /// Its containers reach each other.
    pub icc: bool,
    /// It sees no other network, and none sees it.
    pub isolate: bool,
    /// Its containers may send under MAC and IP addresses that are not theirs.
    #[serde(default)]
    pub spoof: bool,
    /// Families that are not masqueraded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gateway_modes: BTreeMap<Family, GatewayMode>,
    /// Interfaces of the host from which its unpublished ports are reached, too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub trusted: BTreeSet<LinkName>,
    /// What to do about firewalls of others that would drop its packets.
    #[serde(default, skip_serializing_if = "ForeignForward::is_default")]
    pub foreign_forward: ForeignForward,
    /// Routes that every container of it gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<StaticRoute>,
    /// Whatever its owner wants to remember.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Network {
    /// The families that it has a subnet of.
    pub fn families(&self) -> impl Iterator<Item = Family> + '_ {
        let has = |family| {
            self.subnets
                .iter()
                .any(move |subnet| subnet.family() == family)
        };
        [Family::V4, Family::V6]
            .into_iter()
            .filter(move |family| has(*family))
    }

    /// How its containers meet the world.
    #[must_use]
    pub fn gateway_mode(&self, family: Family) -> GatewayMode {
        self.gateway_modes.get(&family).copied().unwrap_or_default()
    }

    /// The subnet whose gateway containers send what they have no better route for.
    #[must_use]
    pub fn way_out(&self, family: Family) -> Option<&Subnet> {
        let leads_out = |subnet: &&Subnet| subnet.family() == family && subnet.gateway.is_some();
        if self.internal {
            None
        } else {
            self.subnets.iter().find(leads_out)
        }
    }

    /// The host's IPv6 address on the bridge, if ports are published by it.
    fn gateway6(&self) -> Option<Ipv6Addr> {
        match self.way_out(Family::V6)?.gateway? {
            IpAddr::V6(gateway) => self.translates(Family::V6).then_some(gateway),
            IpAddr::V4(_) => None,
        }
    }

    /// Whether its containers hide behind addresses of the host.
    fn translates(&self, family: Family) -> bool {
        !self.internal && self.gateway_mode(family) == GatewayMode::Nat
    }

    /// What it wants in the kernel, apart from the ruleset that all networks share.
    pub(crate) fn objects(&self, instance: Instance) -> Footprint {
        let link = Link::host(self.bridge);
        let mut objects = Footprint::from([
            Object::Zone(Zone {
                instance,
                bridge: self.bridge,
                internal: self.internal,
                icc: self.icc,
                open: !self.isolate,
                gateway6: self.gateway6(),
                trusted: self.trusted.clone(),
            }),
            Object::Bridge(Bridge {
                instance,
                name: self.bridge,
                mac: self.mac,
                mtu_bytes: self.mtu_bytes,
                internal: self.internal,
            }),
            Object::Up(Up { link: link.clone() }),
        ]);
        objects.extend(ipv6_settings(
            &link,
            self.families().any(|f| f == Family::V6),
        ));
        if self.way_out(Family::V4).is_some() && self.translates(Family::V4) {
            // Lets 127.0.0.1:PORT of the host lead to a container; the ruleset's `raw` chain
            // takes back what else it would open.
            let (family, key, value) = (Family::V4, "route_localnet".to_string(), 1);
            objects.insert(Object::LinkSysctl(LinkSysctl {
                link: link.clone(),
                family,
                key,
                value,
            }));
        }
        for subnet in &self.subnets {
            if let Some(gateway) = subnet.gateway {
                let address = subnet.with_prefix(gateway);
                objects.insert(Object::Address(Address {
                    link: link.clone(),
                    address,
                }));
                if self.translates(subnet.family()) {
                    let (subnet, bridge) = (subnet.net, self.bridge);
                    objects.insert(Object::Masquerade(Masquerade {
                        instance,
                        subnet,
                        bridge,
                    }));
                }
            }
        }
        objects
    }
}

/// The settings of IPv6 that are ours to make.
pub(crate) const IPV6_SETTINGS: [&str; 3] = ["accept_dad", "accept_ra", "disable_ipv6"];

/// What must be set before an interface comes up, so that router advertisements change nothing
/// (CVE-2020-10749), a network without IPv6 has no IPv6 (CVE-2024-32473), and nobody waits a
/// second for a link-local address, without which the host asks no neighbour for its MAC.
pub(crate) fn ipv6_settings(link: &Link, wanted: bool) -> impl Iterator<Item = Object> {
    let [accept_dad, accept_ra, disable_ipv6] = IPV6_SETTINGS;
    let settings = if wanted {
        [
            Some((accept_dad, 0)),
            Some((accept_ra, 0)),
            Some((disable_ipv6, 0)),
        ]
    } else {
        [None, None, Some((disable_ipv6, 1))]
    };
    settings.into_iter().flatten().map(move |(key, value)| {
        Object::LinkSysctl(LinkSysctl {
            link: link.clone(),
            family: Family::V6,
            key: key.to_string(),
            value,
        })
    })
}
