//! What varies in the ruleset: elements of sets and maps, and the objects that they make up.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use self::Value::{Address, Advertised, Link, Port, Subnet};
use super::TableFamily;
use crate::{
    Dnat, Footprint, Guard, Instance, Isolated, LinkName, Mac, Masquerade, Object, Pinhole,
    Protocol, Zone,
};

/// An element of a set or map: added as it is, deleted by its key.
/// Equivalent to: nft add element FAMILY TABLE SET { KEY : DATA }
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Element {
    /// The family of its table.
    pub table: TableFamily,
    /// The set or map.
    pub set: &'static str,
    key: [Option<Value>; KEY_MAX],
    data: [Option<Value>; DATA_MAX],
}

/// Fields of a key.
const KEY_MAX: usize = 3;
/// Fields of what a map has for a key.
const DATA_MAX: usize = 2;

/// The value of one field of a key or of data.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Value {
    /// An interface.
    Link(LinkName),
    /// A MAC address.
    Mac(Mac),
    /// An IP address.
    Address(IpAddr),
    /// All addresses of a subnet, host bits zero: in sets of intervals.
    Subnet(IpNet),
    /// A transport protocol.
    Protocol(Protocol),
    /// A port.
    Port(u16),
    /// What a neighbour advertisement is about, for which nft has no type.
    Advertised(Ipv6Addr),
}

impl Element {
    /// The element of `set` in the table of that family; `None` if it has more fields than any
    /// element of ours.
    #[must_use]
    pub fn new(
        table: TableFamily,
        set: &'static str,
        key: &[Value],
        data: &[Value],
    ) -> Option<Self> {
        Some(Self {
            table,
            set,
            key: fields(key)?,
            data: fields(data)?,
        })
    }

    /// Whether it has the place of another.
    #[must_use]
    pub fn same_key(&self, other: &Self) -> bool {
        (self.table, self.set, self.key) == (other.table, other.set, other.key)
    }

    /// The fields of its key, in order.
    pub fn key(&self) -> impl Iterator<Item = Value> {
        self.key.into_iter().flatten()
    }

    /// The fields of what a map has for the key, in order; none in a set.
    pub fn data(&self) -> impl Iterator<Item = Value> {
        self.data.into_iter().flatten()
    }
}

fn fields<const N: usize>(values: &[Value]) -> Option<[Option<Value>; N]> {
    let mut all = [None; N];
    for (index, value) in values.iter().enumerate() {
        *all.get_mut(index)? = Some(*value);
    }
    Some(all)
}

fn inet<const K: usize>(set: &'static str, key: [Value; K]) -> Element {
    member(TableFamily::Inet, set, key)
}

fn bridge<const K: usize>(set: &'static str, key: [Value; K]) -> Element {
    member(TableFamily::Bridge, set, key)
}

fn member<const K: usize>(table: TableFamily, set: &'static str, key: [Value; K]) -> Element {
    const { assert!(K <= KEY_MAX) };
    Element {
        table,
        set,
        key: core::array::from_fn(|index| key.get(index).copied()),
        data: [None; DATA_MAX],
    }
}

/// In the words of `nft`: `"br0" . 10.0.0.2`, with its data if it has any.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_key(self, f)?;
        let mut sign = ':';
        for value in self.data() {
            write!(f, " {sign} {value}")?;
            sign = '.';
        }
        Ok(())
    }
}

/// The key alone, by which an element is deleted.
pub(crate) struct Key<'a>(pub(crate) &'a Element);

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_key(self.0, f)
    }
}

fn write_key(element: &Element, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, value) in element.key().enumerate() {
        f.write_str(if index > 0 { " . " } else { "" })?;
        write!(f, "{value}")?;
    }
    Ok(())
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(name) => write!(f, "\"{name}\""),
            Self::Mac(mac) => write!(f, "{mac}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Subnet(subnet) => write!(f, "{subnet}"),
            Self::Protocol(protocol) => write!(f, "{protocol}"),
            Self::Port(port) => write!(f, "{port}"),
            Self::Advertised(address) => write!(f, "{:#x}", address.to_bits()),
        }
    }
}

impl Object {
    /// The elements that it is made of; none if it is no element of the ruleset.
    #[must_use]
    pub fn elements(&self) -> Vec<Element> {
        match self {
            Self::Zone(zone) => zone.elements(),
            Self::Masquerade(masquerade) => vec![masquerade.element()],
            Self::Dnat(dnat) => vec![dnat.element()],
            Self::Pinhole(pinhole) => vec![pinhole.element()],
            Self::Guard(guard) => guard.elements(),
            Self::Isolated(isolated) => vec![bridge("isolated", [Link(isolated.port)])],
            Self::Ruleset(_)
            | Self::Passage(_)
            | Self::Bridge(_)
            | Self::Veth(_)
            | Self::Move(_)
            | Self::Master(_)
            | Self::LooseEnd(_)
            | Self::Hairpin(_)
            | Self::LinkSysctl(_)
            | Self::Address(_)
            | Self::Up(_)
            | Self::Route(_)
            | Self::Forwarding(_) => Vec::new(),
        }
    }
}

impl Zone {
    fn elements(&self) -> Vec<Element> {
        let name = Link(self.bridge);
        let itself = if self.icc { "own" } else { "isolated" };
        let mut all = vec![inet("bridges", [name]), inet(itself, [name, name])];
        all.extend(self.internal.then(|| inet("internal", [name])));
        all.extend(self.open.then(|| inet("open", [name])));
        all.extend(self.gateway6.map(|gateway| Element {
            data: [Some(Address(gateway.into())), None],
            ..inet("gateways6", [name])
        }));
        let from = |link: &LinkName| inet("trusted", [Link(*link), name]);
        all.extend(self.trusted.iter().map(from));
        all
    }
}

impl Masquerade {
    fn element(&self) -> Element {
        let set = match self.subnet {
            IpNet::V4(_) => "masquerade4",
            IpNet::V6(_) => "masquerade6",
        };
        inet(set, [Subnet(self.subnet), Link(self.bridge)])
    }
}

impl Dnat {
    fn element(&self) -> Element {
        let [any, at] = match self.to {
            SocketAddr::V4(_) => ["publish4", "publish4_at"],
            SocketAddr::V6(_) => ["publish6", "publish6_at"],
        };
        let (protocol, port) = (Value::Protocol(self.protocol), Port(self.port));
        let key = match self.at {
            None => inet(any, [protocol, port]),
            Some(address) => inet(at, [Address(address), protocol, port]),
        };
        let data = [Some(Address(self.to.ip())), Some(Port(self.to.port()))];
        Element { data, ..key }
    }
}

impl Pinhole {
    fn element(&self) -> Element {
        let set = match self.to {
            SocketAddr::V4(_) => "pinholes4",
            SocketAddr::V6(_) => "pinholes6",
        };
        let (protocol, port) = (Value::Protocol(self.protocol), Port(self.to.port()));
        inet(set, [Address(self.to.ip()), protocol, port])
    }
}

impl Guard {
    fn elements(&self) -> Vec<Element> {
        let (port, mac) = (Link(self.port), Value::Mac(self.mac));
        let mut all = vec![bridge("ports", [port]), bridge("macs", [port, mac])];
        for address in &self.addresses {
            let set = match address {
                IpAddr::V4(_) => "addresses4",
                IpAddr::V6(_) => "addresses6",
            };
            all.push(bridge(set, [port, mac, Address(*address)]));
            if let IpAddr::V6(target) = address {
                all.push(bridge("targets6", [port, Advertised(*target)]));
            }
        }
        // What goes into one set shares a message.
        all.sort();
        all
    }
}

/// The objects that the elements of both tables of `instance` make up, and its ruleset; `None` if
/// some are left over or missing, as we would never have put them.
#[must_use]
pub fn objects_of(
    instance: Instance,
    elements: impl IntoIterator<Item = Element>,
) -> Option<Footprint> {
    let mut parts = Parts::default();
    for element in elements {
        parts.take(instance, &element)?;
    }
    parts.whole(instance)
}

/// What was made out of elements so far.
#[derive(Default)]
struct Parts {
    all: Footprint,
    bridges: BTreeSet<LinkName>,
    own: BTreeSet<LinkName>,
    apart: BTreeSet<LinkName>,
    internal: BTreeSet<LinkName>,
    open: BTreeSet<LinkName>,
    gateways6: BTreeMap<LinkName, Ipv6Addr>,
    trusted: BTreeMap<LinkName, BTreeSet<LinkName>>,
    ports: BTreeSet<LinkName>,
    macs: BTreeMap<LinkName, Mac>,
    addresses: BTreeMap<(LinkName, Mac), BTreeSet<IpAddr>>,
    targets: BTreeSet<(LinkName, Ipv6Addr)>,
}

impl Parts {
    fn take(&mut self, instance: Instance, element: &Element) -> Option<()> {
        let [first, second, third] = element.key;
        let (key, data) = ((first?, second, third), element.data);
        match (element.set, key) {
            ("bridges", (Link(bridge), None, None)) => drop(self.bridges.insert(bridge)),
            ("own", (Link(bridge), Some(Link(same)), None)) if same == bridge => {
                self.own.insert(bridge);
            }
            ("isolated", (Link(bridge), Some(Link(same)), None)) if same == bridge => {
                self.apart.insert(bridge);
            }
            ("isolated", (Link(port), None, None)) => {
                self.all
                    .insert(Object::Isolated(Isolated { instance, port }));
            }
            ("internal", (Link(bridge), None, None)) => drop(self.internal.insert(bridge)),
            ("open", (Link(bridge), None, None)) => drop(self.open.insert(bridge)),
            ("gateways6", (Link(bridge), None, None)) => {
                let [Some(Address(IpAddr::V6(gateway))), None] = data else {
                    return None;
                };
                self.gateways6.insert(bridge, gateway);
            }
            ("trusted", (Link(from), Some(Link(bridge)), None)) => {
                self.trusted.entry(bridge).or_default().insert(from);
            }
            ("masquerade4" | "masquerade6", (Subnet(subnet), Some(Link(bridge)), None)) => {
                self.all.insert(Object::Masquerade(Masquerade {
                    instance,
                    subnet,
                    bridge,
                }));
            }
            ("publish4" | "publish6", (Value::Protocol(protocol), Some(Port(port)), None)) => {
                self.publish(instance, None, protocol, port, data)?
            }
            (
                "publish4_at" | "publish6_at",
                (Address(at), Some(Value::Protocol(protocol)), Some(Port(port))),
            ) => self.publish(instance, Some(at), protocol, port, data)?,
            (
                "pinholes4" | "pinholes6",
                (Address(address), Some(Value::Protocol(protocol)), Some(Port(port))),
            ) => {
                let to = SocketAddr::new(address, port);
                self.all.insert(Object::Pinhole(Pinhole {
                    instance,
                    protocol,
                    to,
                }));
            }
            ("ports", (Link(port), None, None)) => drop(self.ports.insert(port)),
            ("macs", (Link(port), Some(Value::Mac(mac)), None)) => {
                // A second one is somebody else's doing.
                if self.macs.insert(port, mac).is_some() {
                    return None;
                }
            }
            (
                "addresses4" | "addresses6",
                (Link(port), Some(Value::Mac(mac)), Some(Address(address))),
            ) => {
                let known = self.addresses.entry((port, mac)).or_default();
                known.insert(address);
            }
            ("targets6", (Link(port), Some(Advertised(target)), None)) => {
                self.targets.insert((port, target));
            }
            _ => return None,
        }
        Some(())
    }

    fn publish(
        &mut self,
        instance: Instance,
        at: Option<IpAddr>,
        protocol: Protocol,
        port: u16,
        data: [Option<Value>; DATA_MAX],
    ) -> Option<()> {
        let [Some(Address(address)), Some(Port(to))] = data else {
            return None;
        };
        self.all.insert(Object::Dnat(Dnat {
            instance,
            at,
            protocol,
            port,
            to: SocketAddr::new(address, to),
        }));
        Some(())
    }

    fn whole(mut self, instance: Instance) -> Option<Footprint> {
        let fits = self.own.is_disjoint(&self.apart)
            && self.own.union(&self.apart).eq(&self.bridges)
            && self.internal.is_subset(&self.bridges)
            && self.open.is_subset(&self.bridges)
            && self
                .gateways6
                .keys()
                .all(|bridge| self.bridges.contains(bridge))
            && self
                .trusted
                .keys()
                .all(|bridge| self.bridges.contains(bridge))
            && self.macs.keys().eq(&self.ports);
        if !fits {
            return None;
        }
        let zone = |bridge: &LinkName| {
            Object::Zone(Zone {
                instance,
                bridge: *bridge,
                internal: self.internal.contains(bridge),
                icc: self.own.contains(bridge),
                open: self.open.contains(bridge),
                gateway6: self.gateways6.get(bridge).copied(),
                trusted: self.trusted.get(bridge).cloned().unwrap_or_default(),
            })
        };
        self.all.extend(self.bridges.iter().map(zone));
        let mut claimed = BTreeSet::new();
        for (port, mac) in self.macs {
            let addresses = self.addresses.remove(&(port, mac)).unwrap_or_default();
            claimed.extend(addresses.iter().filter_map(|address| match address {
                IpAddr::V4(_) => None,
                IpAddr::V6(target) => Some((port, *target)),
            }));
            self.all.insert(Object::Guard(Guard {
                instance,
                port,
                mac,
                addresses,
            }));
        }
        self.all.insert(Object::Ruleset(instance));
        (claimed == self.targets && self.addresses.is_empty()).then_some(self.all)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    fn name(text: &str) -> LinkName {
        text.parse().unwrap()
    }

    fn one_of_each() -> Footprint {
        let instance = Instance::DEFAULT;
        let mut all = Footprint::from([Object::Ruleset(instance)]);
        for (bridge, internal, open) in [("br0", false, true), ("br1", true, false)] {
            let (bridge, trusted) = (name(bridge), ["eth0", "eth1"].map(name).into());
            let gateway6 = open.then_some(Ipv6Addr::LOCALHOST);
            all.insert(Object::Zone(Zone {
                instance,
                bridge,
                internal,
                icc: open,
                open,
                gateway6,
                trusted,
            }));
        }
        for subnet in ["10.0.0.0/24", "fd00::/64"] {
            let (subnet, bridge) = (subnet.parse().unwrap(), name("br0"));
            all.insert(Object::Masquerade(Masquerade {
                instance,
                subnet,
                bridge,
            }));
        }
        for (at, to) in [
            (None, "10.0.0.2:80"),
            (Some("127.0.0.1"), "10.0.0.2:80"),
            (None, "[fd00::2]:80"),
            (Some("fd00::1"), "[fd00::2]:80"),
        ] {
            let (protocol, port) = (Protocol::Tcp, 8080);
            let (at, to) = (at.map(|at| at.parse().unwrap()), to.parse().unwrap());
            all.insert(Object::Dnat(Dnat {
                instance,
                at,
                protocol,
                port,
                to,
            }));
        }
        let port = name("mdv1");
        all.insert(Object::Isolated(Isolated { instance, port }));
        for to in ["10.0.0.2:80", "[fd00::2]:80"] {
            let (protocol, to) = (Protocol::Udp, to.parse().unwrap());
            all.insert(Object::Pinhole(Pinhole {
                instance,
                protocol,
                to,
            }));
        }
        for (port, addresses) in [("mdv0", &["10.0.0.2", "fd00::2"][..]), ("mdv1", &[])] {
            let (port, mac) = (name(port), "02:6d:0a:00:00:02".parse().unwrap());
            let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
            all.insert(Object::Guard(Guard {
                instance,
                port,
                mac,
                addresses,
            }));
        }
        all
    }

    #[test]
    fn objects_come_back_from_their_elements() {
        let all = one_of_each();
        let elements: Vec<Element> = all.iter().flat_map(Object::elements).collect();
        assert_eq!(objects_of(Instance::DEFAULT, elements), Some(all));
    }

    #[test]
    fn what_lacks_a_part_or_has_one_too_many_is_not_ours() {
        let all = one_of_each();
        let elements: Vec<Element> = all.iter().flat_map(Object::elements).collect();
        // These are whole objects, or an option of one.
        let optional = ["internal", "open", "trusted", "gateways6", "addresses4"];
        let whole = ["isolated", "publish", "pinholes", "masquerade"];
        for missing in 0..elements.len() {
            let set = elements[missing].set;
            if whole.iter().any(|name| set.starts_with(name)) || optional.contains(&set) {
                continue;
            }
            let mut rest = elements.clone();
            rest.remove(missing);
            assert_eq!(
                objects_of(Instance::DEFAULT, rest),
                None,
                "{}",
                elements[missing]
            );
        }
        for stray in [
            inet("own", [Link(name("br0")), Link(name("br1"))]),
            inet("internal", [Link(name("nobody"))]),
            inet("own", [Link(name("br1")), Link(name("br1"))]),
            inet("trusted", [Link(name("eth0")), Link(name("nobody"))]),
            inet("publish4", [Value::Protocol(Protocol::Tcp), Port(1)]),
            bridge(
                "macs",
                [
                    Link(name("mdv0")),
                    Value::Mac("02:00:00:00:00:01".parse().unwrap()),
                ],
            ),
            inet("gateways6", [Link(name("br0"))]),
            inet("nosuch", [Link(name("br0"))]),
        ] {
            let more = elements.iter().copied().chain([stray]);
            assert_eq!(objects_of(Instance::DEFAULT, more), None, "{stray}");
        }
    }

    #[test]
    fn it_prints_as_nft_takes_it() {
        let all = one_of_each();
        let printed: BTreeSet<_> = all
            .iter()
            .flat_map(Object::elements)
            .map(|e| e.to_string())
            .collect();
        for element in [
            "\"br0\"",
            "\"br0\" . \"br0\"",
            "10.0.0.0/24 . \"br0\"",
            "tcp . 8080 : 10.0.0.2 . 80",
            "fd00::1 . tcp . 8080 : fd00::2 . 80",
            "\"mdv0\" . 02:6d:0a:00:00:02 . fd00::2",
            "\"mdv0\" . 0xfd000000000000000000000000000002",
        ] {
            assert!(printed.contains(element), "{element} is not in {printed:?}");
        }
    }
}
