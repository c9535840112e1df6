//! Links: the messages that make, change, find and remove them, as pure functions.

use std::os::fd::{AsRawFd, BorrowedFd};

use mydocker_core::{Bridge, LinkName, Mac, Move, Veth};
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage::{DelLink, GetLink, NewLink, SetLink};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkProtoInfoBridge,
};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::netlink::Message;
use crate::nft::attr::{attrs, native_i32, native_u32};
use crate::rtnl::Request;

/// What a bridge has unless somebody sets it (`ETH_DATA_LEN`, linux/if_ether.h), bytes.
pub(crate) const BRIDGE_MTU_BYTES: u32 = 1500;
/// The loopback interface is the first of every namespace (`LOOPBACK_IFINDEX`, net/flow.h).
pub(crate) const LOOPBACK_INDEX: u32 = 1;

fn create<T>(link: LinkMessageBuilder<T>) -> Request {
    Request::with(NewLink(link.build()), NLM_F_CREATE | NLM_F_EXCL)
}

/// A change of a link that is there: without `NLM_F_CREATE` none is made.
fn change<T>(link: LinkMessageBuilder<T>) -> Request {
    Request::new(NewLink(link.build()))
}

/// A bridge. Its MTU is for [`resize`]: one given at creation is taken back as soon as the last
/// port leaves (`br_mtu_auto_adjust`), one that was set stays.
/// Equivalent to: ip link add NAME address MAC group G type bridge
pub(crate) fn bridge(bridge: &Bridge) -> Request {
    // `LinkBridge::new` would raise it, too.
    let link = LinkMessageBuilder::<LinkBridge>::new(bridge.name.as_str())
        .address(bridge.mac.octets().to_vec())
        .link_group(bridge.group());
    create(link)
}

/// Equivalent to: ip link set NAME mtu N
pub(crate) fn resize(index: u32, mtu_bytes: u32) -> Request {
    change(LinkUnspec::new_with_index(index).mtu(mtu_bytes))
}

/// A cable. Its far end is born where it is to go, if that is known: `netns` must be open until
/// the message is sent. It must not be up in this message (`ENOTCONN`).
/// Equivalent to: ip link add NAME … type veth peer name PEER … [netns NETNS address MAC]
pub(crate) fn veth(veth: &Veth, moved: Option<(&Move, BorrowedFd<'_>)>) -> Request {
    let peer = match moved {
        None => LinkUnspec::new_with_name(veth.peer().as_str()),
        Some((moved, netns)) => LinkUnspec::new_with_name(moved.to.name.as_str())
            .address(moved.mac.octets().to_vec())
            .setns_by_fd(netns.as_raw_fd()),
    };
    let peer = InfoVeth::Peer(end_of(veth, peer).build());
    let near = LinkVeth::new(veth.name.as_str(), veth.peer().as_str());
    create(end_of(veth, near).set_info_data(InfoData::Veth(peer)))
}

/// What both ends of a cable have.
fn end_of<T>(veth: &Veth, end: LinkMessageBuilder<T>) -> LinkMessageBuilder<T> {
    end.mtu(veth.mtu_bytes)
        .link_group(veth.instance.cable_group())
        .append_extra_attribute(LinkAttribute::NumTxQueues(1))
        .append_extra_attribute(LinkAttribute::NumRxQueues(1))
}

/// Sends a link to another namespace under another name; it goes down on the way.
/// Equivalent to: ip link set LINK netns NETNS name NAME [address MAC]
pub(crate) fn send(index: u32, netns: BorrowedFd<'_>, name: LinkName, mac: Option<Mac>) -> Request {
    let link = LinkUnspec::new_with_index(index)
        .setns_by_fd(netns.as_raw_fd())
        .name(name.as_str());
    change(match mac {
        Some(mac) => link.address(mac.octets().to_vec()),
        None => link,
    })
}

/// Plugs a link into a bridge and then raises it, without an IPv6 address of its own if it could have one.
/// That mode is refused at creation; set on a link that is up, it is told to everybody who heeds links, and
/// IPv6 walks all of its routes for that.
/// Equivalent to: ip link set LINK master BRIDGE addrgenmode none; ip link set LINK up
pub(crate) fn plug(link: &Known, bridge: u32) -> [Request; 2] {
    let mut port = LinkUnspec::new_with_index(link.index).controller(bridge);
    if link.has_ipv6 {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let inet6 = AfSpecUnspec::Inet6(vec![mode]);
        port = port.append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![inet6]));
    }
    [change(port), raise(link.index)]
}

/// Equivalent to: ip link set LINK nomaster down
pub(crate) fn unplug(index: u32) -> Request {
    change(LinkUnspec::new_with_index(index).nocontroller().down())
}

/// Equivalent to: ip link set LINK up
pub(crate) fn raise(index: u32) -> Request {
    change(LinkUnspec::new_with_index(index).up())
}

/// Equivalent to: ip link set LINK down
pub(crate) fn lower(index: u32) -> Request {
    change(LinkUnspec::new_with_index(index).down())
}

/// Asks the bridge, which tells of nothing but its port; as a change of the link it would be told to
/// everybody who heeds links. Equivalent to: bridge link set dev LINK hairpin on, or off
pub(crate) fn hairpin(index: u32, on: bool) -> Request {
    let mode = DefaultNla::new(abi::IFLA_BRPORT_MODE, vec![on.into()]);
    let port = vec![LinkProtoInfoBridge::Other(mode)];
    let mut link = LinkUnspec::new_with_index(index)
        .append_extra_attribute(LinkAttribute::ProtoInfoBridge(port))
        .build();
    link.header.interface_family = AddressFamily::Bridge;
    Request::new(SetLink(link))
}

/// Equivalent to: ip link del LINK
pub(crate) fn delete(index: u32) -> Request {
    Request::new(DelLink(LinkUnspec::new_with_index(index).build()))
}

/// Puts a link into a group. Equivalent to: ip link set LINK group GROUP
pub(crate) fn regroup(index: u32, group: u32) -> Request {
    change(LinkUnspec::new_with_index(index).link_group(group))
}

/// Removes all links of a group at once. Equivalent to: ip link del group GROUP
pub(crate) fn delete_group(group: u32) -> Request {
    let all = LinkMessageBuilder::<LinkUnspec>::new().link_group(group);
    Request::new(DelLink(all.build()))
}

/// Looks one link up by name. Equivalent to: ip link show NAME
pub(crate) fn find(name: LinkName) -> Request {
    tersely(LinkUnspec::new_with_name(name.as_str()))
}

/// Lists all links. Equivalent to: ip link
pub(crate) fn list() -> Request {
    tersely(LinkMessageBuilder::<LinkUnspec>::new())
}

/// Statistics are most of a link's description, and nobody here reads them.
fn tersely(links: LinkMessageBuilder<LinkUnspec>) -> Request {
    let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    Request::new(GetLink(links.append_extra_attribute(mask).build()))
}

/// What must be known of a link of ours to change it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) index: u32,
    /// Whether it can have IPv6 addresses; not with an MTU below 1280.
    pub(crate) has_ipv6: bool,
}

/// A link as the kernel describes it. Only what we look at is read, and none of it is trusted to
/// be there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) group: u32,
    pub(crate) mtu_bytes: u32,
    pub(crate) mac: Option<Mac>,
    /// The bridge that it is a port of, by index.
    pub(crate) master: Option<u32>,
    /// The other end of a veth: its index in its own namespace.
    pub(crate) peer: Option<u32>,
    /// Whether the other end is in another namespace.
    pub(crate) peer_is_away: bool,
    pub(crate) kind: String,
    /// `IN6_ADDR_GEN_MODE_*` (linux/if_link.h), if it has IPv6 at all.
    pub(crate) addr_gen_mode: Option<u8>,
    pub(crate) hairpin: bool,
}

/// linux/if.h, linux/if_link.h, linux/rtnetlink.h, linux/socket.h
mod abi {
    pub(super) const AF_UNSPEC: u8 = 0;
    pub(super) const RTM_NEWLINK: u16 = 16;
    pub(super) const RTM_DELLINK: u16 = 17;
    pub(super) const IFF_UP: u32 = 1;
    pub(super) const IFLA_ADDRESS: u16 = 1;
    pub(super) const IFLA_IFNAME: u16 = 3;
    pub(super) const IFLA_MTU: u16 = 4;
    pub(super) const IFLA_LINK: u16 = 5;
    pub(super) const IFLA_MASTER: u16 = 10;
    pub(super) const IFLA_LINKINFO: u16 = 18;
    pub(super) const IFLA_AF_SPEC: u16 = 26;
    pub(super) const IFLA_GROUP: u16 = 27;
    pub(super) const IFLA_LINK_NETNSID: u16 = 37;
    pub(super) const IFLA_INFO_KIND: u16 = 1;
    pub(super) const IFLA_INFO_SLAVE_KIND: u16 = 4;
    pub(super) const IFLA_INFO_SLAVE_DATA: u16 = 5;
    pub(super) const IFLA_BRPORT_MODE: u16 = 4;
    pub(super) const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
    pub(super) const AF_INET6: u16 = 10;
}

/// Bytes of `struct ifinfomsg` (linux/rtnetlink.h).
const HEADER_BYTES: usize = 16;
/// `IN6_ADDR_GEN_MODE_NONE` (linux/if_link.h).
const ADDR_GEN_MODE_NONE: u8 = 1;

/// The link that an `RTM_DELLINK` says is gone. A bridge tells the like of a port that leaves it, which
/// is no end of a link.
pub(crate) fn gone(message: &Message<'_>) -> Option<u32> {
    let (head, _) = message.payload.split_first_chunk::<HEADER_BYTES>()?;
    let whole = message.kind == abi::RTM_DELLINK && head[0] == abi::AF_UNSPEC;
    whole.then(|| native_u32(head.get(4..)?)).flatten()
}

/// The link that an `RTM_NEWLINK` says is down.
pub(crate) fn down(message: &Message<'_>) -> Option<u32> {
    let (head, _) = message.payload.split_first_chunk::<HEADER_BYTES>()?;
    let is_down = native_u32(head.get(8..)?)? & abi::IFF_UP == 0;
    let whole = message.kind == abi::RTM_NEWLINK && head[0] == abi::AF_UNSPEC;
    (whole && is_down)
        .then(|| native_u32(head.get(4..)?))
        .flatten()
}

impl Seen {
    /// Reads an `RTM_NEWLINK`.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let (head, rest) = payload.split_first_chunk::<HEADER_BYTES>()?;
        let mut seen = Self {
            index: native_u32(head.get(4..)?)?,
            up: native_u32(head.get(8..)?)? & abi::IFF_UP != 0,
            ..Self::default()
        };
        for attr in attrs(rest) {
            let number = native_u32(attr.value);
            match attr.kind {
                abi::IFLA_ADDRESS => {
                    let octets = attr.value.try_into().ok();
                    seen.mac = octets.and_then(Mac::from_octets);
                }
                abi::IFLA_IFNAME => seen.name = attr.string().unwrap_or_default().to_owned(),
                abi::IFLA_MTU => seen.mtu_bytes = number.unwrap_or_default(),
                abi::IFLA_LINK => seen.peer = number,
                abi::IFLA_MASTER => seen.master = number,
                abi::IFLA_GROUP => seen.group = number.unwrap_or_default(),
                abi::IFLA_LINK_NETNSID => {
                    // -1 is this namespace.
                    seen.peer_is_away = native_i32(attr.value).is_some_and(|id| id >= 0);
                }
                abi::IFLA_LINKINFO => seen.read_info(attr.value),
                abi::IFLA_AF_SPEC => seen.addr_gen_mode = addr_gen_mode(attr.value),
                _ => {}
            }
        }
        Some(seen)
    }

    fn read_info(&mut self, info: &[u8]) {
        let text = |kind| {
            attrs(info)
                .find(|a| a.kind == kind)
                .and_then(|a| a.string())
        };
        self.kind = text(abi::IFLA_INFO_KIND).unwrap_or_default().to_owned();
        if text(abi::IFLA_INFO_SLAVE_KIND) != Some("bridge") {
            return;
        }
        for data in attrs(info).filter(|attr| attr.kind == abi::IFLA_INFO_SLAVE_DATA) {
            let mut options = attrs(data.value);
            let hairpin = options.find(|attr| attr.kind == abi::IFLA_BRPORT_MODE);
            self.hairpin =
                hairpin.is_some_and(|attr| attr.value.first().is_some_and(|on| *on != 0));
        }
    }

    pub(crate) fn known(&self) -> Known {
        Known {
            index: self.index,
            has_ipv6: self.addr_gen_mode.is_some(),
        }
    }

    /// Its name, if it is one that we could have given.
    pub(crate) fn link_name(&self) -> Option<LinkName> {
        self.name.parse().ok()
    }

    /// Whether it makes no IPv6 address for itself.
    pub(crate) fn is_silent(&self) -> bool {
        self.addr_gen_mode
            .is_none_or(|mode| mode == ADDR_GEN_MODE_NONE)
    }
}

fn addr_gen_mode(spec: &[u8]) -> Option<u8> {
    let inet6 = attrs(spec).find(|attr| attr.kind == abi::AF_INET6)?;
    let mode = attrs(inet6.value).find(|attr| attr.kind == abi::IFLA_INET6_ADDR_GEN_MODE)?;
    mode.value.first().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_are_found_among_others() {
        let mut payload = vec![0; HEADER_BYTES];
        payload[4] = 7;
        payload[8] = 1;
        let mut attr = |kind: u16, value: &[u8]| {
            let len = u16::try_from(4 + value.len()).unwrap();
            payload.extend(len.to_ne_bytes());
            payload.extend(kind.to_ne_bytes());
            payload.extend(value);
            payload.resize(payload.len().next_multiple_of(4), 0);
        };
        attr(9999, b"from the future");
        attr(abi::IFLA_IFNAME, b"web\0");
        attr(abi::IFLA_GROUP, &5_u32.to_ne_bytes());
        let seen = Seen::decode(&payload).unwrap();
        let Seen {
            index,
            name,
            up,
            group,
            ..
        } = &seen;
        assert_eq!((*index, name.as_str(), *up, *group), (7, "web", true, 5));
        assert!(!seen.known().has_ipv6);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Seen::decode(&bytes);
            let _ = crate::address::Seen::decode(&bytes);
            let _ = crate::route::Seen::decode(&bytes);
        }
    }
}
