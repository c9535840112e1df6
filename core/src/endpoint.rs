//! Endpoint: joins one container to one network.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use crate::name::check_setting_key;
use crate::network::ipv6_settings;
use crate::{
    Address, ContainerName, Dnat, Family, Footprint, Guard, Hairpin, Instance, Isolated, Link,
    LinkName, LinkSysctl, Mac, Master, Move, Netns, Network, NetworkName, Object, Pinhole,
    PortBinding, Route, Up, Veth, request::Setting,
};

/// Which endpoint: a container joins a network once.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct EndpointId {
    /// The network.
    pub network: NetworkName,
    /// The container.
    pub container: ContainerName,
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.container, self.network)
    }
}

/// An endpoint as it is kept: all that its removal needs, whatever becomes of the container.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Endpoint {
    /// Which it is.
    #[serde(flatten)]
    pub id: EndpointId,
    /// The container's namespace.
    pub netns: Netns,
    /// The interface in the container.
    pub ifname: LinkName,
    /// The other end of its cable, a port of the bridge.
    pub host_link: LinkName,
    /// The container's MAC address.
    pub mac: Mac,
    /// One address of each subnet of the network, with its prefix length.
    pub addresses: Vec<IpNet>,
    /// Published ports; one at an address of its own is open there, and not translated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortBinding>,
    /// Counts a container's networks in the order it joined them: the lowest that has a way out
    /// has the default route.
    pub rank: u32,
    /// Whether it may have the default route at all.
    pub default_route: bool,
    /// The default route's metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// Settings of the container's interface.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "settings"
    )]
    pub sysctls: Vec<Setting>,
}

/// What a plan checked is not taken on trust from a file.
fn settings<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Setting>, D::Error> {
    let settings = Vec::<Setting>::deserialize(from)?;
    for setting in &settings {
        check_setting_key(&setting.key)?;
    }
    Ok(settings)
}

impl Endpoint {
    /// The host's end of the cable, by name of the endpoint.
    pub(crate) fn host_link(instance: Instance, id: &EndpointId) -> LinkName {
        let hash = instance.hash(&["endpoint", id.network.as_str(), id.container.as_str()]);
        LinkName::derived("mdv", hash, 11)
    }

    /// The routes that it would have if its container had no other network: the default route of
    /// each family that leads out, then those that the network gives to all.
    pub(crate) fn routes(&self, network: &Network) -> Vec<Route> {
        let link = Link::sandbox(self.netns.clone(), self.ifname);
        let route = |destination, via, metric| Route {
            link: link.clone(),
            destination,
            via,
            metric,
        };
        let families = network.families().filter(|_| self.default_route);
        let gateways = families.filter_map(|family| network.way_out(family)?.gateway);
        let defaults = gateways.map(|via| route(everything(Family::of(via)), via, self.metric));
        // The next hop itself, when it is a container, has no use for the way to itself.
        let mine = |via| self.addresses.iter().any(|a| a.addr() == via);
        let given = network.routes.iter().filter(|given| !mine(given.via));
        let given = given.map(|given| route(given.destination, given.via, None));
        defaults.chain(given).collect()
    }

    /// What it wants in the kernel, but for its routes, which its container's other networks have
    /// a say in.
    pub(crate) fn objects(&self, instance: Instance, network: &Network) -> Footprint {
        let link = Link::sandbox(self.netns.clone(), self.ifname);
        let lo = Link {
            name: LinkName::LOOPBACK,
            ..link.clone()
        };
        let host = self.host_link;
        let mut objects = Footprint::from([
            Object::Veth(Veth {
                instance,
                name: host,
                mtu_bytes: network.mtu_bytes,
            }),
            Object::Move(Move {
                host,
                to: link.clone(),
                mac: self.mac,
            }),
            Object::Master(Master {
                link: host,
                bridge: network.bridge,
            }),
            Object::Up(Up { link: lo }),
            Object::Up(Up { link: link.clone() }),
        ]);
        if self.host_ports().next().is_some() {
            objects.insert(Object::Hairpin(Hairpin { link: host }));
        }
        if !network.icc {
            let port = host;
            objects.insert(Object::Isolated(Isolated { instance, port }));
        }
        let has = |family| {
            self.addresses
                .iter()
                .any(|a| Family::of(a.addr()) == family)
        };
        objects.extend(ipv6_settings(&link, has(Family::V6)));
        objects.extend(self.sysctls.iter().map(|Setting { family, key, value }| {
            let (link, key) = (link.clone(), key.clone());
            Object::LinkSysctl(LinkSysctl {
                link,
                family: *family,
                key,
                value: *value,
            })
        }));
        if !network.spoof {
            objects.insert(self.guard(instance));
        }
        for address in &self.addresses {
            let (link, address) = (link.clone(), *address);
            objects.insert(Object::Address(Address { link, address }));
        }
        objects.extend(
            self.ports
                .iter()
                .filter_map(|binding| self.publication(instance, binding)),
        );
        objects
    }

    /// What it may claim to be: its addresses, and with IPv6 the link-local one.
    fn guard(&self, instance: Instance) -> Object {
        let mut addresses: BTreeSet<IpAddr> = self.addresses.iter().map(IpNet::addr).collect();
        if addresses.iter().any(IpAddr::is_ipv6) {
            addresses.insert(self.mac.link_local().into());
        }
        let (port, mac) = (self.host_link, self.mac);
        Object::Guard(Guard {
            instance,
            port,
            mac,
            addresses,
        })
    }

    /// Whether a port is open at the container's own address, and none of the host's.
    #[must_use]
    pub fn is_pinhole(&self, binding: &PortBinding) -> bool {
        self.addresses.iter().any(|a| a.addr() == binding.host_ip)
    }

    /// The published ports that are ports of the host.
    pub fn host_ports(&self) -> impl Iterator<Item = &PortBinding> {
        let ports = self.ports.iter();
        ports.filter(|binding| !self.is_pinhole(binding))
    }

    /// The element that publishes a port; a binding always has an address of its family.
    fn publication(&self, instance: Instance, binding: &PortBinding) -> Option<Object> {
        if self.is_pinhole(binding) {
            return Some(Object::Pinhole(Pinhole {
                instance,
                protocol: binding.protocol,
                to: SocketAddr::new(binding.host_ip, binding.container_port),
            }));
        }
        let to = self
            .addresses
            .iter()
            .find(|a| Family::of(a.addr()) == binding.family())?;
        Some(Object::Dnat(Dnat {
            instance,
            at: (!binding.host_ip.is_unspecified()).then_some(binding.host_ip),
            protocol: binding.protocol,
            port: binding.host_port,
            to: SocketAddr::new(to.addr(), binding.container_port),
        }))
    }
}

/// `0.0.0.0/0` or `::/0`.
fn everything(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
        Family::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}
