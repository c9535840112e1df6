//! Addresses: the messages that add, remove and list them, as pure functions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage::{DelAddress, GetAddress, NewAddress};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::AddressMessageBuilder;

use crate::nft::attr::{attrs, native_u32};
use crate::rtnl::Request;

fn message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = match address {
        IpNet::V4(net) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build(),
        IpNet::V6(net) => AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build(),
    };
    // `ip addr add` gives none unless asked, and the kernel knows it anyway.
    let broadcast = |attribute: &_| matches!(attribute, AddressAttribute::Broadcast(_));
    message.attributes.retain(|attribute| !broadcast(attribute));
    message
}

/// IPAM has already seen to it that an address is unique, and detecting duplicates would keep
/// an IPv6 one from being used for a second or two.
/// Equivalent to: ip addr add ADDRESS dev LINK [nodad]
pub(crate) fn add(index: u32, address: IpNet) -> Request {
    let mut message = message(index, address);
    if address.addr().is_ipv6() {
        let flags = AddressAttribute::Flags(AddressFlags::Nodad);
        message.attributes.push(flags);
    }
    Request::with(NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// No interface has a multicast address of ours, and the builder leaves one out: without any, the
/// kernel would remove the first address of the link.
/// Equivalent to: ip addr del ADDRESS dev LINK
pub(crate) fn delete(index: u32, address: IpNet) -> Option<Request> {
    let unicast = !address.addr().is_multicast();
    unicast.then(|| Request::new(DelAddress(message(index, address))))
}

/// Lists the addresses of all links. Equivalent to: ip addr
pub(crate) fn list() -> Request {
    Request::new(GetAddress(AddressMessage::default()))
}

/// An address as the kernel describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) index: u32,
    pub(crate) address: IpNet,
}

/// Bytes of `struct ifaddrmsg` (linux/if_addr.h), and the attributes that we read.
const HEADER_BYTES: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

impl Seen {
    /// Reads an `RTM_NEWADDR`.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let (head, rest) = payload.split_first_chunk::<HEADER_BYTES>()?;
        let of_kind = |kind| attrs(rest).find(|attr| attr.kind == kind);
        // IPv6 has a local address only with a peer.
        let attr = of_kind(IFA_LOCAL).or_else(|| of_kind(IFA_ADDRESS))?;
        Some(Self {
            index: native_u32(head.get(4..)?)?,
            address: IpNet::new(ip(attr.value)?, head[1]).ok()?,
        })
    }

    /// Whether it is of the kind that the kernel makes by itself.
    pub(crate) fn is_link_local(&self) -> bool {
        match self.address.addr() {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => address.is_unicast_link_local(),
        }
    }
}

/// An address of either family, by its length.
pub(crate) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
