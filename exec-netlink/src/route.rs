//! Routes: the messages that add, remove and list them, as pure functions.

use std::net::IpAddr;

use ipnet::IpNet;
use mydocker_core::{ErrorKind, Instance, OpError, Route};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage::{DelRoute, GetRoute, NewRoute};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;

use crate::address::ip;
use crate::nft::attr::{attrs, native_u32};
use crate::rtnl::{Request, RouteSocket};

fn message(index: u32, route: &Route) -> Result<RouteMessage, OpError> {
    let destination = route.destination.trunc();
    let message = RouteMessageBuilder::<IpAddr>::new()
        .protocol(RouteProtocol::Other(Instance::ROUTE_PROTOCOL))
        .output_interface(index)
        .destination_prefix(destination.addr(), destination.prefix_len())
        .and_then(|message| message.gateway(route.via))
        .map_err(|error| OpError {
            kind: ErrorKind::Os(Errno::EINVAL as i32),
            detail: format!("EINVAL: {error}"),
        })?;
    Ok(match route.metric {
        Some(metric) => message.priority(metric).build(),
        None => message.build(),
    })
}

/// Equivalent to: ip route add DESTINATION via VIA dev LINK proto 77 [metric N]
pub(crate) fn add(index: u32, route: &Route) -> Result<Request, OpError> {
    let message = message(index, route)?;
    Ok(Request::with(NewRoute(message), NLM_F_CREATE | NLM_F_EXCL))
}

/// Only a route of our protocol matches. One of IPv4 without a metric would match any: see
/// [`Seen::is`]. Equivalent to: ip route del …
pub(crate) fn delete(index: u32, route: &Route) -> Result<Request, OpError> {
    let mut route = route.clone();
    if route.via.is_ipv6() {
        route.metric = route.metric.or(Some(IPV6_METRIC));
    }
    Ok(Request::new(DelRoute(message(index, &route)?)))
}

/// Lists the routes of all tables. Equivalent to: ip route show table all
pub(crate) fn list() -> Request {
    Request::new(GetRoute(RouteMessage::default()))
}

/// Whether the host takes a packet to that address for its own, as `fib daddr type local` says.
/// One that leads nowhere is not. Equivalent to: ip route get ADDRESS
pub(crate) fn is_local(socket: &mut RouteSocket, address: IpAddr) -> bool {
    let mut message = RouteMessage::default();
    let (family, destination, bits) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, RouteAddress::Inet(v4), 32),
        IpAddr::V6(v6) => (AddressFamily::Inet6, RouteAddress::Inet6(v6), 128),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = bits;
    message
        .attributes
        .push(RouteAttribute::Destination(destination));
    let answer = socket.ask(Request::new(GetRoute(message)));
    let kind = answer
        .ok()
        .flatten()
        .and_then(|route| route.get(KIND_AT).copied());
    kind == Some(abi::RTN_LOCAL)
}

/// A route as the kernel describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) destination: IpNet,
    pub(crate) via: Option<IpAddr>,
    /// The interface it leaves by.
    pub(crate) index: Option<u32>,
    pub(crate) metric: Option<u32>,
    pub(crate) protocol: u8,
    pub(crate) table: u32,
    kind: u8,
}

/// linux/rtnetlink.h
mod abi {
    pub(super) const AF_INET: u8 = 2;
    pub(super) const AF_INET6: u8 = 10;
    pub(super) const RTN_UNICAST: u8 = 1;
    pub(super) const RTN_LOCAL: u8 = 2;
    pub(super) const RT_TABLE_MAIN: u32 = 254;
    pub(super) const RT_TABLE_LOCAL: u32 = 255;
    pub(super) const RTM_F_CLONED: u32 = 0x200;
    pub(super) const RTA_DST: u16 = 1;
    pub(super) const RTA_OIF: u16 = 4;
    pub(super) const RTA_GATEWAY: u16 = 5;
    pub(super) const RTA_PRIORITY: u16 = 6;
    pub(super) const RTA_TABLE: u16 = 15;
}

/// Bytes of `struct rtmsg` (linux/rtnetlink.h).
const HEADER_BYTES: usize = 12;
/// Where `rtm_type` is in it.
const KIND_AT: usize = 7;
/// What IPv6 gives a route that has no metric (`IP6_RT_PRIO_USER`, linux/ipv6_route.h).
const IPV6_METRIC: u32 = 1024;

impl Seen {
    /// Reads an `RTM_NEWROUTE` of IPv4 or IPv6; an IPv6 one of the kernel's default metric has
    /// none.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let (head, rest) = payload.split_first_chunk::<HEADER_BYTES>()?;
        let [family, prefix_len, _, _, table, protocol, _, kind, ..] = *head;
        let any = match family {
            abi::AF_INET => IpAddr::from([0; 4]),
            abi::AF_INET6 => IpAddr::from([0; 16]),
            _ => return None,
        };
        if native_u32(head.get(8..)?)? & abi::RTM_F_CLONED != 0 {
            return None;
        }
        let value = |kind| attrs(rest).find(|attr| attr.kind == kind).map(|a| a.value);
        let number = |kind| value(kind).and_then(native_u32);
        let destination = match value(abi::RTA_DST) {
            Some(bytes) => ip(bytes)?,
            None => any,
        };
        let unset = if family == abi::AF_INET6 {
            IPV6_METRIC
        } else {
            0
        };
        Some(Self {
            destination: IpNet::new(destination, prefix_len).ok()?,
            via: value(abi::RTA_GATEWAY).and_then(ip),
            index: number(abi::RTA_OIF),
            metric: number(abi::RTA_PRIORITY).filter(|metric| *metric != unset),
            protocol,
            table: number(abi::RTA_TABLE).unwrap_or(u32::from(table)),
            kind,
        })
    }

    /// Whether it is one of ours, by its mark; whose interface it leaves by is another question.
    pub(crate) fn is_marked(&self) -> bool {
        let ours = self.protocol == Instance::ROUTE_PROTOCOL;
        ours && self.table == abi::RT_TABLE_MAIN && self.kind == abi::RTN_UNICAST
    }

    /// Whether it is `route`, by the link of that index.
    pub(crate) fn is(&self, index: u32, route: &Route) -> bool {
        self.is_marked()
            && (self.index, self.via) == (Some(index), Some(route.via))
            && (self.destination, self.metric) == (route.destination, route.metric)
    }

    /// Whether it leads somewhere else: what it leads to is taken.
    pub(crate) fn leads_away(&self) -> bool {
        self.kind == abi::RTN_UNICAST && self.table != abi::RT_TABLE_LOCAL
    }
}
