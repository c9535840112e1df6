//! What the kernel holds because we asked.

use alloc::collections::BTreeSet;
use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use crate::name::check_setting_key;
use crate::{Element, Instance, LinkName, Mac, Netns, Passage, PortBinding, Protocol};

/// Address family.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// `0.0.0.0` or `::`, which stands for all addresses of the family, and is before them.
    #[must_use]
    pub const fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

/// A network namespace as an op sees it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ns {
    /// The namespace that the executor was opened in.
    Host,
    /// A container's.
    Sandbox(Netns),
}

/// An interface: a name and the namespace that it is looked up in.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Link {
    /// Where it lives.
    pub ns: Ns,
    /// What it is called there.
    pub name: LinkName,
}

impl Link {
    /// An interface of the host.
    #[must_use]
    pub fn host(name: LinkName) -> Self {
        Self { ns: Ns::Host, name }
    }

    /// An interface of a container.
    #[must_use]
    pub fn sandbox(netns: Netns, name: LinkName) -> Self {
        Self {
            ns: Ns::Sandbox(netns),
            name,
        }
    }
}

/// One thing in the kernel. Variant order is apply order within the host and within a container, and
/// teardown is the reverse: the firewall stands before the first cable does (walls before cables), all
/// of it in one run so that it fits one nf_tables batch; then links from the bridge outwards.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    /// The nf_tables tables of the instance: sets, chains and static rules.
    Ruleset(Instance),
    /// A bridge known to the ruleset, and who may talk through it.
    Zone(Zone),
    /// The way out for a subnet.
    Masquerade(Masquerade),
    /// A published port.
    Dnat(Dnat),
    /// A published port that needs no translation.
    Pinhole(Pinhole),
    /// What a port of a bridge may claim to be.
    Guard(Guard),
    /// A port of a bridge that can't reach other isolated ports.
    Isolated(Isolated),
    /// The way through a foreign chain that drops what is forwarded.
    Passage(Passage),
    /// A bridge.
    Bridge(Bridge),
    /// A cable, both ends in the host.
    Veth(Veth),
    /// The far end of a cable, moved into a container.
    Move(Move),
    /// What is left of a cable when somebody took its other end away: never wanted.
    LooseEnd(LooseEnd),
    /// The near end of a cable, plugged into a bridge and up.
    Master(Master),
    /// A bridge port that may send a frame back where it came from.
    Hairpin(Hairpin),
    /// A setting of one interface.
    LinkSysctl(LinkSysctl),
    /// An IP address on an interface.
    Address(Address),
    /// An interface that is up.
    Up(Up),
    /// A route.
    Route(Route),
    /// Forwarding between interfaces, host-wide.
    Forwarding(Forwarding),
}

/// A bridge's entry in the ruleset (sets `bridges`, `own` or `isolated`, `internal`, `open`
/// and `trusted`, map `gateways6`).
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Zone {
    /// Whose table.
    pub instance: Instance,
    /// The bridge.
    pub bridge: LinkName,
    /// Nothing passes between this network and anything else.
    pub internal: bool,
    /// Its containers reach each other.
    pub icc: bool,
    /// Open networks see each other's unpublished ports.
    pub open: bool,
    /// The host's IPv6 address on the bridge, if ports are published by it: stands in for ::1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Ipv6Addr>,
    /// Interfaces of the host from which unpublished ports are reached, too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub trusted: BTreeSet<LinkName>,
}

/// Source NAT for what leaves a subnet by another interface than its bridge, and for what a
/// container sends to a published port of its own network.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Masquerade {
    /// Whose table.
    pub instance: Instance,
    /// The subnet, host bits zero.
    pub subnet: IpNet,
    /// The bridge it lives on.
    pub bridge: LinkName,
}

/// Destination NAT from a port of the host to a port of a container: one element of a hash map,
/// deleted by its key (address, protocol, port).
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Dnat {
    /// Whose table.
    pub instance: Instance,
    /// The host address that it listens on; `None` for all of `to`'s family.
    pub at: Option<IpAddr>,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The host's port.
    pub port: u16,
    /// The container's address and port.
    pub to: SocketAddr,
}

/// A port of a container that is open to whoever routes to its address: one element of a hash set.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Pinhole {
    /// Whose table.
    pub instance: Instance,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The container's address and port.
    pub to: SocketAddr,
}

/// The MAC address and the IP addresses that a container may send from and claim by ARP and
/// neighbour discovery: elements of hash sets. Whatever else comes in at the port is dropped.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Guard {
    /// Whose table.
    pub instance: Instance,
    /// The port of the bridge, the host's end of the cable.
    pub port: LinkName,
    /// The container's MAC address.
    pub mac: Mac,
    /// The container's addresses, the IPv6 link-local one among them.
    pub addresses: BTreeSet<IpAddr>,
}

/// A port of a bridge whose frames reach another such port only if they were let through as
/// packets: containers of one network don't talk but by published ports. Not `IFLA_BRPORT_ISOLATED`,
/// which knows no published ports: with bridge-nf-call-iptables on, these lead from port to port.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Isolated {
    /// Whose table.
    pub instance: Instance,
    /// The port, the host's end of the cable.
    pub port: LinkName,
}

/// A bridge of the host, marked with its link group.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Bridge {
    /// Whose.
    pub instance: Instance,
    /// Its name.
    pub name: LinkName,
    /// Fixed, or the bridge would take the lowest of its ports' and change it as they come and go.
    pub mac: Mac,
    /// Maximum transmission unit, bytes (`IFLA_MTU`).
    pub mtu_bytes: u32,
    /// That of an internal network, which its group tells.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub internal: bool,
}

impl Bridge {
    /// Its link group (`IFLA_GROUP`).
    #[must_use]
    pub fn group(&self) -> u32 {
        match self.internal {
            true => self.instance.internal_group(),
            false => self.instance.bridge_group(),
        }
    }
}

/// A veth pair, both ends marked with the link group of cables and still in the host.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Veth {
    /// Whose.
    pub instance: Instance,
    /// The end that stays in the host.
    pub name: LinkName,
    /// Maximum transmission unit of both ends, bytes (`IFLA_MTU`).
    pub mtu_bytes: u32,
}

/// The far end of the veth `host`, renamed and readdressed on its way into a container.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Move {
    /// The end that stays in the host.
    pub host: LinkName,
    /// Where the other end goes.
    pub to: Link,
    /// Its MAC address there.
    pub mac: Mac,
}

/// An end of a cable that has our mark and whose other end is not where it belongs: the host's, or one in
/// a container under a name that is wanted there. It is found and removed, never added.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct LooseEnd {
    /// The end that is left.
    pub link: Link,
}

/// A link enslaved to a bridge and up, without an address of its own (`addrgenmode none`).
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Master {
    /// The port.
    pub link: LinkName,
    /// The bridge.
    pub bridge: LinkName,
}

/// Hairpin mode of a bridge port (`IFLA_BRPORT_MODE`): with bridge-nf-call-iptables on, a
/// container reaches its own published port by it alone.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Hairpin {
    /// The port.
    pub link: LinkName,
}

/// `net.FAMILY.conf.LINK.KEY`. It lives and dies with its link.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct LinkSysctl {
    /// The interface.
    pub link: Link,
    /// `ipv4` or `ipv6`.
    pub family: Family,
    /// The last part of the key, such as `accept_ra`.
    #[serde(deserialize_with = "setting_key")]
    pub key: String,
    /// The value.
    pub value: i64,
}

fn setting_key<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let key = String::deserialize(from)?;
    check_setting_key(&key).map(|()| key)
}

/// An address on an interface; an IPv6 one skips duplicate address detection, since IPAM has
/// already seen to it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Address {
    /// The interface.
    pub link: Link,
    /// Address and prefix length, host bits kept.
    pub address: IpNet,
}

/// An interface that is administratively up (`IFF_UP`).
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Up {
    /// The interface.
    pub link: Link,
}

/// A unicast route, marked with [`Instance::ROUTE_PROTOCOL`].
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Route {
    /// The interface it leaves by.
    pub link: Link,
    /// What it leads to, host bits zero.
    pub destination: IpNet,
    /// The next hop.
    pub via: IpAddr,
    /// Its priority, less is better (`RTA_PRIORITY`); `None` leaves it to the kernel.
    pub metric: Option<u32>,
}

/// `net.ipv4.ip_forward` or `net.ipv6.conf.all.forwarding`: turned on when a network needs it
/// and never off again but by the undo of that very plan.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Forwarding {
    /// Which of the two.
    pub family: Family,
}

/// All objects we want, or all the kernel shows.
pub type Footprint = BTreeSet<Object>;

/// What an object can stand on.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Base {
    /// An interface.
    Link(Link),
    /// A host's interface as a port of a bridge: what is set on a port goes when it leaves.
    Port(LinkName),
    /// The tables of an instance.
    Ruleset(Instance),
}

impl Dnat {
    /// The binding that it carries out.
    #[must_use]
    pub fn binding(&self) -> PortBinding {
        let family = Family::of(self.to.ip());
        PortBinding {
            host_ip: self.at.unwrap_or(family.unspecified()),
            host_port: self.port,
            container_port: self.to.port(),
            protocol: self.protocol,
        }
    }
}

impl Pinhole {
    /// The binding that it carries out.
    #[must_use]
    pub fn binding(&self) -> PortBinding {
        PortBinding {
            host_ip: self.to.ip(),
            host_port: self.to.port(),
            container_port: self.to.port(),
            protocol: self.protocol,
        }
    }
}

impl Guard {
    /// Its addresses but for the link-local ones, which are the same on many links.
    pub fn routed(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let link_local = |address: &IpAddr| match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        let all = self.addresses.iter().copied();
        all.filter(move |address| !link_local(address))
    }
}

impl Veth {
    /// What the far end is called before it moves: `mdp…` to the near end's `mdv…`.
    #[must_use]
    pub fn peer(&self) -> LinkName {
        peer_of(self.name)
    }
}

impl Move {
    /// What the far end is called before it moves.
    #[must_use]
    pub fn peer(&self) -> LinkName {
        peer_of(self.host)
    }
}

fn peer_of(host: LinkName) -> LinkName {
    let text = host.as_str();
    let rest = text.strip_prefix("mdv").unwrap_or(text);
    // 12 bytes at most follow a three-byte prefix, so this is a name again.
    let rest = rest.get(..rest.len().min(12)).unwrap_or_default();
    alloc::format!("mdp{rest}").parse().unwrap_or(host)
}

impl Object {
    /// Bases that exist because this object does.
    pub fn gives(&self) -> impl Iterator<Item = Base> {
        let (first, second) = match self {
            Self::Ruleset(instance) => (Some(Base::Ruleset(*instance)), None),
            Self::Bridge(bridge) => (Some(Base::Link(Link::host(bridge.name))), None),
            Self::Veth(veth) => (
                Some(Base::Link(Link::host(veth.name))),
                Some(Base::Link(Link::host(veth.peer()))),
            ),
            Self::Move(Move { to: link, .. }) | Self::LooseEnd(LooseEnd { link }) => {
                (Some(Base::Link(link.clone())), None)
            }
            Self::Master(master) => (Some(Base::Port(master.link)), None),
            Self::Zone(_)
            | Self::Masquerade(_)
            | Self::Dnat(_)
            | Self::Pinhole(_)
            | Self::Guard(_)
            | Self::Passage(_)
            | Self::Hairpin(_)
            | Self::Isolated(_)
            | Self::LinkSysctl(_)
            | Self::Address(_)
            | Self::Up(_)
            | Self::Route(_)
            | Self::Forwarding(_) => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// Bases that this object can't exist without.
    pub fn needs(&self) -> impl Iterator<Item = Base> {
        let host = |name| Some(Base::Link(Link::host(name)));
        let (first, second) = match self {
            // A passage outlives our tables: somebody else's are what it stands on.
            Self::Ruleset(_)
            | Self::Passage(_)
            | Self::Bridge(_)
            | Self::Veth(_)
            | Self::LooseEnd(_)
            | Self::Forwarding(_) => (None, None),
            Self::Zone(zone) => (Some(Base::Ruleset(zone.instance)), None),
            Self::Masquerade(masquerade) => (Some(Base::Ruleset(masquerade.instance)), None),
            Self::Dnat(dnat) => (Some(Base::Ruleset(dnat.instance)), None),
            Self::Pinhole(pinhole) => (Some(Base::Ruleset(pinhole.instance)), None),
            Self::Guard(guard) => (Some(Base::Ruleset(guard.instance)), None),
            Self::Isolated(isolated) => (Some(Base::Ruleset(isolated.instance)), None),
            Self::Move(moved) => (host(moved.host), host(moved.peer())),
            Self::Master(master) => (host(master.link), host(master.bridge)),
            Self::Hairpin(Hairpin { link }) => (host(*link), Some(Base::Port(*link))),
            Self::LinkSysctl(LinkSysctl { link, .. })
            | Self::Address(Address { link, .. })
            | Self::Up(Up { link })
            | Self::Route(Route { link, .. }) => (Some(Base::Link(link.clone())), None),
        };
        first.into_iter().chain(second)
    }

    /// Whose firewall it is part of, if it is.
    #[must_use]
    pub fn firewall(&self) -> Option<Instance> {
        if let Self::Passage(passage) = self {
            return Some(passage.instance);
        }
        self.gives()
            .chain(self.needs())
            .find_map(|base| match base {
                Base::Ruleset(instance) => Some(instance),
                Base::Link(_) | Base::Port(_) => None,
            })
    }

    /// Whether the two want one name or one key, so that the kernel holds at most one of them.
    #[must_use]
    pub fn excludes(&self, other: &Self) -> bool {
        let shared = |base| other.gives().any(|theirs| theirs == base);
        self.gives().any(shared) || self.shares_key(other)
    }

    /// Whether the two have an element of one key in one set, whatever a map has for it.
    #[must_use]
    pub fn shares_key(&self, other: &Self) -> bool {
        if self.firewall() != other.firewall() {
            return false;
        }
        let (ours, theirs) = (self.elements(), other.elements());
        let same = |a: &Element| theirs.iter().any(|b| a.same_key(b));
        ours.iter().any(same)
    }

    /// Whether it is never removed by an op of its own: a setting goes with its link, and whose
    /// wish an up loopback is, nobody can tell.
    #[must_use]
    pub fn lingers(&self) -> bool {
        matches!(self, Self::LinkSysctl(_))
            || matches!(self, Self::Up(up) if up.link.name == LinkName::LOOPBACK)
    }

    /// The namespace that it is in.
    #[must_use]
    pub fn ns(&self) -> &Ns {
        match self {
            Self::Move(moved) => &moved.to.ns,
            Self::LooseEnd(LooseEnd { link })
            | Self::LinkSysctl(LinkSysctl { link, .. })
            | Self::Address(Address { link, .. })
            | Self::Up(Up { link })
            | Self::Route(Route { link, .. }) => &link.ns,
            Self::Ruleset(_)
            | Self::Zone(_)
            | Self::Masquerade(_)
            | Self::Dnat(_)
            | Self::Pinhole(_)
            | Self::Guard(_)
            | Self::Passage(_)
            | Self::Bridge(_)
            | Self::Veth(_)
            | Self::Master(_)
            | Self::Hairpin(_)
            | Self::Isolated(_)
            | Self::Forwarding(_) => &Ns::Host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_setting_that_is_read_holds_a_command() {
        let read = |key: &str| {
            let text = alloc::format!(
                r#"{{"link":{{"ns":"host","name":"br0"}},"family":"v4","key":"{key}","value":1}}"#
            );
            serde_json::from_str::<LinkSysctl>(&text).is_ok()
        };
        assert!(read("route_localnet"));
        for bad in ["", "a=1; reboot #", "../../../kernel/panic", "$(x)"] {
            assert!(!read(bad), "{bad}");
        }
    }
}
