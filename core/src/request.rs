//! Requests: what somebody wants, before anybody has looked whether it can be had.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    ContainerName, Driver, EndpointId, Family, ForeignForward, GatewayMode, LinkName, Mac, Netns,
    NetworkName, PortSpec,
};

/// What somebody wants.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// A new network.
    CreateNetwork(NetworkSpec),
    /// A network gone; it must have no endpoints.
    RemoveNetwork(NetworkName),
    /// A container on a network.
    Attach(AttachSpec),
    /// A container off a network.
    Detach(EndpointId),
    /// More ports of an endpoint published; all else of it stays as it is.
    Publish {
        /// Which endpoint.
        id: EndpointId,
        /// Which ports.
        ports: Vec<PortSpec>,
    },
    /// Ports of an endpoint published no more; all else of it stays as it is.
    Unpublish {
        /// Which endpoint.
        id: EndpointId,
        /// Which ports. What one leaves out it does not care about: `80/tcp` stands for every port
        /// of the host that leads to the container's 80, `8080:80/tcp` for 8080 of every address.
        ports: Vec<PortSpec>,
    },
}

/// The network that somebody wants.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// Its name.
    pub name: NetworkName,
    /// What makes it.
    #[serde(default)]
    pub driver: Driver,
    /// Its subnets; host bits that are not zero name the gateway (`10.0.0.1/24`). Empty means a
    /// free /24 from the pools.
    #[serde(default)]
    pub subnets: Vec<IpNet>,
    /// Gateways, each inside one of the subnets; the first host of those without.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// How its containers meet the world, by family; masqueraded by default.
    #[serde(default)]
    pub gateway_modes: BTreeMap<Family, GatewayMode>,
    /// Ranges to lease from, each inside one of the subnets.
    #[serde(default)]
    pub ip_ranges: Vec<IpNet>,
    /// Addresses that no container gets, by name.
    #[serde(default)]
    pub aux_addresses: BTreeMap<String, IpAddr>,
    /// An IPv6 subnet as well: a /64 of its own if `subnets` names none.
    #[serde(default)]
    pub ipv6: bool,
    /// Maximum transmission unit, bytes; that of the way out by default.
    #[serde(default)]
    pub mtu_bytes: Option<u32>,
    /// Nothing passes between this network and anything else.
    #[serde(default)]
    pub internal: bool,
    /// Its containers reach each other.
    #[serde(default = "yes")]
    pub icc: bool,
    /// It sees no other network, and none sees it.
    #[serde(default = "yes")]
    pub isolate: bool,
    /// Its containers may send under MAC and IP addresses that are not theirs, as one that routes
    /// for others or moves an address between containers must.
    #[serde(default)]
    pub spoof: bool,
    /// Interfaces of the host from which its unpublished ports are reached, too, by whoever routes
    /// there.
    #[serde(default)]
    pub trusted: BTreeSet<LinkName>,
    /// What to do about firewalls of others that would drop its packets.
    #[serde(default)]
    pub foreign_forward: ForeignForward,
    /// The bridge's name, if it is to have one of its own.
    #[serde(default)]
    pub bridge: Option<LinkName>,
    /// Routes that every container of it gets.
    #[serde(default)]
    pub routes: Vec<StaticRoute>,
    /// Whatever its owner wants to remember.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl NetworkSpec {
    /// A network of that name and nothing special about it.
    #[must_use]
    pub fn new(name: NetworkName) -> Self {
        Self {
            name,
            driver: Driver::Bridge,
            subnets: Vec::new(),
            gateways: Vec::new(),
            gateway_modes: BTreeMap::new(),
            ip_ranges: Vec::new(),
            aux_addresses: BTreeMap::new(),
            ipv6: false,
            mtu_bytes: None,
            internal: false,
            icc: true,
            isolate: true,
            spoof: false,
            trusted: BTreeSet::new(),
            foreign_forward: ForeignForward::Accept,
            bridge: None,
            routes: Vec::new(),
            labels: BTreeMap::new(),
        }
    }
}

/// A route of a network's containers.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StaticRoute {
    /// What it leads to.
    pub destination: IpNet,
    /// The next hop, an address of one of the network's subnets.
    pub via: IpAddr,
}

/// The endpoint that somebody wants.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AttachSpec {
    /// The network to join.
    pub network: NetworkName,
    /// Who joins.
    pub container: ContainerName,
    /// The container's namespace.
    pub netns: Netns,
    /// Addresses to have, at most one of each subnet; the next free one of those without.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// The MAC address to have; derived from the first address by default.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// Ports to publish.
    #[serde(default)]
    pub ports: Vec<PortSpec>,
    /// The interface's name in the container; the first free `ethN` by default.
    #[serde(default)]
    pub ifname: Option<LinkName>,
    /// Whether the container's default route may leave by this network.
    #[serde(default = "yes")]
    pub default_route: bool,
    /// The default route's metric.
    #[serde(default)]
    pub metric: Option<u32>,
    /// Settings of the container's interface.
    #[serde(default)]
    pub sysctls: Vec<Setting>,
}

impl AttachSpec {
    /// A container on a network and nothing special about it.
    #[must_use]
    pub fn new(network: NetworkName, container: ContainerName, netns: Netns) -> Self {
        Self {
            network,
            container,
            netns,
            addresses: Vec::new(),
            mac: None,
            ports: Vec::new(),
            ifname: None,
            default_route: true,
            metric: None,
            sysctls: Vec::new(),
        }
    }

    /// Which endpoint it would be.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        EndpointId {
            network: self.network.clone(),
            container: self.container.clone(),
        }
    }
}

/// `net.FAMILY.conf.INTERFACE.KEY = VALUE` of a container's interface.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// `ipv4` or `ipv6`.
    pub family: Family,
    /// The last part of the key: `[a-z0-9_]+`.
    pub key: String,
    /// The value.
    pub value: i64,
}

fn yes() -> bool {
    true
}
