//! Elements of sets and maps as the kernel takes and shows them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mydocker_core::{Element, LinkName, Mac, Protocol, Set, SetType, TableFamily, Value};

use super::abi::*;
use super::attr::{Attr, Writer, agree, attrs, find};

/// Bytes of an interface name in a key, NUL-padded (`IFNAMSIZ`, linux/if.h).
const NAME_BYTES: usize = 16;
/// Bytes that every field of a key is padded to a multiple of.
const WORD_BYTES: usize = 4;

/// Writes an element as one entry of `NFTA_SET_ELEM_LIST_ELEMENTS`.
pub(super) fn encode(element: &Element, out: &mut Writer) {
    out.nest(NFTA_LIST_ELEM, |entry| {
        value(entry, NFTA_SET_ELEM_KEY, element.key(), first_address);
        if element.key().any(|value| matches!(value, Value::Subnet(_))) {
            value(entry, NFTA_SET_ELEM_KEY_END, element.key(), last_address);
        }
        if element.data().next().is_some() {
            value(entry, NFTA_SET_ELEM_DATA, element.data(), first_address);
        }
    });
}

/// Fields one after another; of a subnet, the address that `end` says.
fn value(
    out: &mut Writer,
    kind: u16,
    fields: impl Iterator<Item = Value>,
    end: fn(&IpNet) -> IpAddr,
) {
    out.nest(kind, |nest| {
        let start = nest.open(NFTA_DATA_VALUE);
        for field in fields {
            match field {
                Value::Link(name) => nest.bytes.extend_from_slice(&padded(name)),
                Value::Mac(mac) => nest.bytes.extend_from_slice(&mac.octets()),
                Value::Address(address) => put_address(nest, address),
                Value::Subnet(subnet) => put_address(nest, end(&subnet)),
                Value::Protocol(protocol) => nest.bytes.push(protocol.number()),
                Value::Port(port) => nest.bytes.extend_from_slice(&port.to_be_bytes()),
                Value::Advertised(address) => nest.bytes.extend_from_slice(&address.octets()),
            }
            let padded = nest.bytes.len().next_multiple_of(WORD_BYTES);
            nest.bytes.resize(padded, 0);
        }
        nest.close(start);
    });
}

fn put_address(out: &mut Writer, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.bytes.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => out.bytes.extend_from_slice(&address.octets()),
    }
}

fn first_address(subnet: &IpNet) -> IpAddr {
    subnet.network()
}

fn last_address(subnet: &IpNet) -> IpAddr {
    subnet.broadcast()
}

/// Reads the entries of `NFTA_SET_ELEM_LIST_ELEMENTS` of `set`; nothing for one that we would
/// never have written.
pub(super) fn decode_list(
    family: TableFamily,
    set: Set,
    list: &[u8],
) -> impl Iterator<Item = Option<Element>> {
    let entries = attrs(list).filter(|attr| attr.kind == NFTA_LIST_ELEM);
    entries.map(move |entry| decode(family, set, entry))
}

fn decode(family: TableFamily, set: Set, entry: Attr<'_>) -> Option<Element> {
    let fields = |kind| {
        let data = find(entry.value, kind)?;
        Some(find(data.value, NFTA_DATA_VALUE)?.value)
    };
    let mut end = fields(NFTA_SET_ELEM_KEY_END).map(Fields);
    let mut key = read(fields(NFTA_SET_ELEM_KEY)?, set.key)?;
    if set.interval {
        for (field, first) in set.key.iter().zip(&mut key) {
            let last = end.as_mut()?.take(*field)?;
            if let (Value::Address(from), Value::Address(to)) = (*first, last) {
                *first = Value::Subnet(subnet(from, to)?);
            }
        }
    }
    let data = read(fields(NFTA_SET_ELEM_DATA).unwrap_or_default(), set.data)?;
    let element = Element::new(family, set.name, &key, &data)?;
    // Padding, length and what else there may be are left to the comparison with what we would
    // have written.
    let mut ours = Writer::default();
    encode(&element, &mut ours);
    attrs(&ours.bytes)
        .all(|ours| agree(ours.value, entry.value))
        .then_some(element)
}

/// The values of all fields; nothing if there are bytes left over.
fn read(bytes: &[u8], types: &[SetType]) -> Option<Vec<Value>> {
    let mut fields = Fields(bytes);
    let values: Option<Vec<Value>> = types.iter().map(|field| fields.take(*field)).collect();
    values.filter(|_| fields.0.is_empty())
}

/// The subnet from its first to its last address.
fn subnet(first: IpAddr, last: IpAddr) -> Option<IpNet> {
    let prefix = |differ: u32, width: u32| u8::try_from(width.min(differ)).ok();
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let differ = first.to_bits() ^ last.to_bits();
            let net = Ipv4Net::new(first, prefix(differ.leading_zeros(), 32)?).ok()?;
            Some(IpNet::V4(net))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let differ = first.to_bits() ^ last.to_bits();
            let net = Ipv6Net::new(first, prefix(differ.leading_zeros(), 128)?).ok()?;
            Some(IpNet::V6(net))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// Reads a key or data field by field.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take(&mut self, field: SetType) -> Option<Value> {
        Some(match field {
            SetType::Ipv4Addr => Value::Address(Ipv4Addr::from(self.bytes::<4>()?).into()),
            SetType::Ipv6Addr => Value::Address(Ipv6Addr::from(self.bytes::<16>()?).into()),
            SetType::InetProto => {
                let [number, ..] = self.bytes::<WORD_BYTES>()?;
                Value::Protocol(Protocol::of_number(number)?)
            }
            SetType::InetService => {
                let [high, low, ..] = self.bytes::<WORD_BYTES>()?;
                Value::Port(u16::from_be_bytes([high, low]))
            }
            SetType::Ifname => Value::Link(self.name()?),
            SetType::EtherAddr => {
                let [a, b, c, d, e, f, ..] = self.bytes::<{ 2 * WORD_BYTES }>()?;
                Value::Mac(Mac::from_octets([a, b, c, d, e, f])?)
            }
            SetType::Advertised => Value::Advertised(self.bytes::<16>()?.into()),
        })
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn name(&mut self) -> Option<LinkName> {
        let bytes: [u8; NAME_BYTES] = self.bytes()?;
        let text = bytes.split(|b| *b == 0).next()?;
        std::str::from_utf8(text).ok()?.parse().ok()
    }
}

fn padded(name: LinkName) -> [u8; NAME_BYTES] {
    let mut bytes = [0; NAME_BYTES];
    for (to, from) in bytes.iter_mut().zip(name.as_str().bytes()) {
        *to = from;
    }
    bytes
}
