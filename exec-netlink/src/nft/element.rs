//! What varies: elements of sets and maps for a bridge, a subnet, a published port, a guarded port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mydocker_core::{LinkName, Mac};

use super::abi::*;
use super::attr::{Writer, attrs, find};
use super::set::Set;

/// Bytes of an interface name in a key, NUL-padded (`IFNAMSIZ`, linux/if.h).
const NAME_BYTES: usize = 16;

/// An element of one of our sets, by its meaning.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Element {
    /// A bridge of ours. Command: `nft add element inet TABLE bridges { NAME }`
    Bridge(LinkName),
    /// A network whose members reach each other through the IP layer (`own`).
    Own(LinkName),
    /// A network with no way in or out (`internal`).
    Internal(LinkName),
    /// A network that sees all other open ones (`open`).
    Open(LinkName),
    /// A subnet whose way out is masqueraded (`masquerade4`, `masquerade6`).
    Masquerade {
        /// The subnet, without host bits.
        subnet: IpNet,
        /// The bridge from which it comes.
        bridge: LinkName,
    },
    /// An IPv4 port of the host that leads to a container (`publish4`, `publish4_at`).
    Publish4 {
        /// The host's address; `None` for all of them.
        at: Option<Ipv4Addr>,
        /// The transport protocol (`IPPROTO_*`): 6 TCP, 17 UDP, 132 SCTP.
        protocol: u8,
        /// The host's port.
        port: u16,
        /// The container's address and port.
        to: SocketAddrV4,
    },
    /// An IPv6 port of the host that leads to a container (`publish6`, `publish6_at`).
    Publish6 {
        /// The host's address; `None` for all of them.
        at: Option<Ipv6Addr>,
        /// The transport protocol (`IPPROTO_*`).
        protocol: u8,
        /// The host's port.
        port: u16,
        /// The container's address and port, without scope and flow.
        to: SocketAddrV6,
    },
    /// A port of a bridge that is guarded. Command: `nft add element bridge TABLE ports { NAME }`
    Port(LinkName),
    /// A MAC address that a guarded port may send from (`macs`).
    Mac(LinkName, Mac),
    /// An IP address that a guarded port may send from (`addresses4`, `addresses6`); an IPv4 one it
    /// may claim by ARP, too.
    Address(LinkName, Mac, IpAddr),
    /// An IPv6 address that a guarded port may claim by a neighbour advertisement (`targets6`).
    Target(LinkName, Ipv6Addr),
    /// Something in a set of ours that we never put there.
    Stray(RawElement),
}

/// An element as the kernel holds it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct RawElement {
    /// The set or map.
    pub set: Set,
    /// The key, or where it starts: every field padded to a multiple of four bytes
    /// (`NFTA_SET_ELEM_KEY`, linux/netfilter/nf_tables.h).
    pub key: Vec<u8>,
    /// Where the key ends, in sets of intervals (`NFTA_SET_ELEM_KEY_END`).
    pub key_end: Option<Vec<u8>>,
    /// The value, in maps (`NFTA_SET_ELEM_DATA`).
    pub data: Option<Vec<u8>>,
}

impl Element {
    /// Traffic from `subnet`, whose bridge is `bridge`, leaves under the host's address.
    #[must_use]
    pub fn masquerade(subnet: IpNet, bridge: LinkName) -> Self {
        Self::Masquerade {
            subnet: subnet.trunc(),
            bridge,
        }
    }

    /// Connections to a port of the host, at one of its addresses or at all of them, go to `to`.
    /// The unspecified address means all. Nothing if the families differ.
    #[must_use]
    pub fn publish(at: Option<IpAddr>, protocol: u8, port: u16, to: SocketAddr) -> Option<Self> {
        let at = at.filter(|at| !at.is_unspecified());
        match (at, to) {
            (None, SocketAddr::V4(to)) => Some(Self::Publish4 {
                at: None,
                protocol,
                port,
                to,
            }),
            (None, SocketAddr::V6(to)) => Some(Self::Publish6 {
                at: None,
                protocol,
                port,
                to: bare(to),
            }),
            (Some(IpAddr::V4(at)), SocketAddr::V4(to)) => Some(Self::Publish4 {
                at: Some(at),
                protocol,
                port,
                to,
            }),
            (Some(IpAddr::V6(at)), SocketAddr::V6(to)) => Some(Self::Publish6 {
                at: Some(at),
                protocol,
                port,
                to: bare(to),
            }),
            (Some(IpAddr::V4(_)), SocketAddr::V6(_)) | (Some(IpAddr::V6(_)), SocketAddr::V4(_)) => {
                None
            }
        }
    }

    /// The set or map that it belongs to.
    #[must_use]
    pub fn set(&self) -> Set {
        match self {
            Self::Bridge(_) => Set::Bridges,
            Self::Own(_) => Set::Own,
            Self::Internal(_) => Set::Internal,
            Self::Open(_) => Set::Open,
            Self::Masquerade {
                subnet: IpNet::V4(_),
                ..
            } => Set::Masquerade4,
            Self::Masquerade {
                subnet: IpNet::V6(_),
                ..
            } => Set::Masquerade6,
            Self::Publish4 { at: None, .. } => Set::Publish4,
            Self::Publish4 { at: Some(_), .. } => Set::Publish4At,
            Self::Publish6 { at: None, .. } => Set::Publish6,
            Self::Publish6 { at: Some(_), .. } => Set::Publish6At,
            Self::Port(_) => Set::Ports,
            Self::Mac(..) => Set::Macs,
            Self::Address(_, _, IpAddr::V4(_)) => Set::Addresses4,
            Self::Address(_, _, IpAddr::V6(_)) => Set::Addresses6,
            Self::Target(..) => Set::Targets6,
            Self::Stray(raw) => raw.set,
        }
    }

    /// The element as the kernel holds it.
    #[must_use]
    pub fn to_raw(&self) -> RawElement {
        let mut raw = RawElement {
            set: self.set(),
            key: Vec::new(),
            key_end: None,
            data: None,
        };
        match self {
            Self::Bridge(name) | Self::Internal(name) | Self::Open(name) | Self::Port(name) => {
                raw.key.extend_from_slice(&padded(*name));
            }
            Self::Own(name) => raw.key.extend_from_slice(&padded(*name).repeat(2)),
            Self::Masquerade { subnet, bridge } => {
                raw.key = subnet_key(subnet.network(), *bridge);
                raw.key_end = Some(subnet_key(subnet.broadcast(), *bridge));
            }
            Self::Publish4 {
                at,
                protocol,
                port,
                to,
            } => {
                raw.key.extend(at.iter().flat_map(Ipv4Addr::octets));
                raw.key.extend_from_slice(&port_key(*protocol, *port));
                raw.data = Some([&to.ip().octets()[..], &port_word(to.port())].concat());
            }
            Self::Publish6 {
                at,
                protocol,
                port,
                to,
            } => {
                raw.key.extend(at.iter().flat_map(Ipv6Addr::octets));
                raw.key.extend_from_slice(&port_key(*protocol, *port));
                raw.data = Some([&to.ip().octets()[..], &port_word(to.port())].concat());
            }
            Self::Mac(port, mac) => raw.key = mac_key(*port, *mac),
            Self::Address(port, mac, address) => {
                raw.key = mac_key(*port, *mac);
                match address {
                    IpAddr::V4(address) => raw.key.extend_from_slice(&address.octets()),
                    IpAddr::V6(address) => raw.key.extend_from_slice(&address.octets()),
                }
            }
            Self::Target(port, target) => {
                raw.key.extend_from_slice(&padded(*port));
                raw.key.extend_from_slice(&target.octets());
            }
            Self::Stray(stray) => raw = stray.clone(),
        }
        raw
    }
}

impl From<RawElement> for Element {
    /// What the element means; [`Element::Stray`] if we would never have written it.
    fn from(raw: RawElement) -> Self {
        match decode(&raw) {
            Some(element) if element.to_raw() == raw => element,
            Some(_) | None => Self::Stray(raw),
        }
    }
}

/// What the element means if it is one of ours. Padding and length are left to the comparison with
/// what we would have written.
fn decode(raw: &RawElement) -> Option<Element> {
    let mut key = Fields(&raw.key);
    let mut data = Fields(raw.data.as_deref().unwrap_or_default());
    Some(match raw.set {
        Set::Bridges => Element::Bridge(key.name()?),
        Set::Own => Element::Own(key.name()?),
        Set::Internal => Element::Internal(key.name()?),
        Set::Open => Element::Open(key.name()?),
        Set::Masquerade4 => {
            let (first, last) = (key.ipv4()?, Fields(raw.key_end.as_deref()?).ipv4()?);
            let differ = u32::from(first) ^ u32::from(last);
            let prefix = u8::try_from(differ.leading_zeros()).ok()?;
            let subnet = IpNet::V4(Ipv4Net::new(first, prefix).ok()?);
            Element::Masquerade {
                subnet,
                bridge: key.name()?,
            }
        }
        Set::Masquerade6 => {
            let (first, last) = (key.ipv6()?, Fields(raw.key_end.as_deref()?).ipv6()?);
            let differ = u128::from(first) ^ u128::from(last);
            let prefix = u8::try_from(differ.leading_zeros()).ok()?;
            let subnet = IpNet::V6(Ipv6Net::new(first, prefix).ok()?);
            Element::Masquerade {
                subnet,
                bridge: key.name()?,
            }
        }
        Set::Ports => Element::Port(key.name()?),
        Set::Macs => Element::Mac(key.name()?, key.mac()?),
        Set::Addresses4 => Element::Address(key.name()?, key.mac()?, key.ipv4()?.into()),
        Set::Addresses6 => Element::Address(key.name()?, key.mac()?, key.ipv6()?.into()),
        Set::Targets6 => Element::Target(key.name()?, key.ipv6()?),
        set @ (Set::Publish4 | Set::Publish4At) => {
            let at = if set == Set::Publish4At {
                Some(key.ipv4()?)
            } else {
                None
            };
            let (protocol, port) = (key.protocol()?, key.port()?);
            let to = SocketAddrV4::new(data.ipv4()?, data.port()?);
            Element::Publish4 {
                at,
                protocol,
                port,
                to,
            }
        }
        set @ (Set::Publish6 | Set::Publish6At) => {
            let at = if set == Set::Publish6At {
                Some(key.ipv6()?)
            } else {
                None
            };
            let (protocol, port) = (key.protocol()?, key.port()?);
            let to = SocketAddrV6::new(data.ipv6()?, data.port()?, 0, 0);
            Element::Publish6 {
                at,
                protocol,
                port,
                to,
            }
        }
    })
}

/// Reads a key or a value field by field.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn name(&mut self) -> Option<LinkName> {
        let bytes: [u8; NAME_BYTES] = self.take()?;
        let text = bytes.split(|b| *b == 0).next()?;
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    fn ipv4(&mut self) -> Option<Ipv4Addr> {
        self.take::<4>().map(Ipv4Addr::from)
    }

    fn ipv6(&mut self) -> Option<Ipv6Addr> {
        self.take::<16>().map(Ipv6Addr::from)
    }

    fn mac(&mut self) -> Option<Mac> {
        let [a, b, c, d, e, f, _, _] = self.take()?;
        Mac::from_octets([a, b, c, d, e, f])
    }

    fn protocol(&mut self) -> Option<u8> {
        self.take().map(|[protocol, _, _, _]| protocol)
    }

    fn port(&mut self) -> Option<u16> {
        self.take()
            .map(|[high, low, _, _]| u16::from_be_bytes([high, low]))
    }
}

fn bare(to: SocketAddrV6) -> SocketAddrV6 {
    SocketAddrV6::new(*to.ip(), to.port(), 0, 0)
}

fn padded(name: LinkName) -> [u8; NAME_BYTES] {
    let mut bytes = [0; NAME_BYTES];
    for (to, from) in bytes.iter_mut().zip(name.as_str().bytes()) {
        *to = from;
    }
    bytes
}

fn subnet_key(address: IpAddr, bridge: LinkName) -> Vec<u8> {
    let mut key = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    key.extend_from_slice(&padded(bridge));
    key
}

fn mac_key(port: LinkName, mac: Mac) -> Vec<u8> {
    [&padded(port)[..], &mac.octets(), &[0; 2]].concat()
}

fn port_key(protocol: u8, port: u16) -> [u8; 8] {
    let [high, low] = port.to_be_bytes();
    [protocol, 0, 0, 0, high, low, 0, 0]
}

fn port_word(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

impl RawElement {
    /// One entry of `NFTA_SET_ELEM_LIST_ELEMENTS`.
    pub(super) fn encode(&self, out: &mut Writer) {
        let value = |out: &mut Writer, kind, value: &[u8]| {
            out.nest(kind, |data| {
                data.bytes(NFTA_DATA_VALUE, value);
            });
        };
        out.nest(NFTA_LIST_ELEM, |element| {
            value(element, NFTA_SET_ELEM_KEY, &self.key);
            if let Some(end) = &self.key_end {
                value(element, NFTA_SET_ELEM_KEY_END, end);
            }
            if let Some(data) = &self.data {
                value(element, NFTA_SET_ELEM_DATA, data);
            }
        });
    }

    /// Reads entries of `NFTA_SET_ELEM_LIST_ELEMENTS`.
    pub(super) fn decode_list(set: Set, list: &[u8]) -> impl Iterator<Item = Self> {
        attrs(list)
            .filter(|attr| attr.kind == NFTA_LIST_ELEM)
            .map(move |element| {
                let value = |kind| {
                    let data = find(element.value, kind)?;
                    Some(find(data.value, NFTA_DATA_VALUE)?.value.to_vec())
                };
                Self {
                    set,
                    key: value(NFTA_SET_ELEM_KEY).unwrap_or_default(),
                    key_end: value(NFTA_SET_ELEM_KEY_END),
                    data: value(NFTA_SET_ELEM_DATA),
                }
            })
    }
}
