//! Where a packet goes next, and from which address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use mydocker_core::{Address, Family, Link, LinkName, Move, Ns};

use super::rules::Packet;
use super::{Loss, Station, Uplink, Way, Wires};

impl<'a> Wires<'a> {
    /// The longest prefix, of equals the least metric.
    pub(super) fn way(&self, ns: &Ns, to: IpAddr) -> Result<Way<'a>, Loss> {
        let here = || self.addresses.iter().filter(|a| a.link.ns == *ns);
        if to.is_loopback() || here().any(|a| a.address.addr() == to) {
            return Ok(Way::Itself);
        }
        let links = here().map(|a| (a.address.trunc(), 0, &a.link, to));
        let routes = self.routes.iter().filter(|route| route.link.ns == *ns);
        let routes = routes.map(|r| (r.destination, r.metric.unwrap_or(0), &r.link, r.via));
        let fitting = links
            .chain(routes)
            .filter(|(net, _, link, _)| net.contains(&to) && self.up.contains(link));
        let rank = |net: &IpNet, metric| (u8::MAX - net.prefix_len(), metric);
        let best = fitting.min_by_key(|(net, metric, ..)| rank(net, *metric));
        let nowhere = || Loss::NoRoute(ns.clone(), to);
        let (_, _, link, next) = best.ok_or_else(nowhere)?;
        let source = self.address_on(link, next).ok_or_else(nowhere)?;
        Ok(Way::By(link, next, source))
    }

    /// The interface by which the host sends something on; `None` if it keeps it.
    pub(super) fn route(&self, to: IpAddr) -> Option<LinkName> {
        if self.is_hosts(to) {
            return None;
        }
        let mut bridges = self.hosts();
        let bridge = bridges
            .find(|a| a.address.contains(&to))
            .map(|a| a.link.name);
        bridge.or(self.uplinks.first().map(|uplink| uplink.name))
    }

    /// What the kernel chooses as the source of a packet of the host's own.
    pub(super) fn hosts_source(&self, to: IpAddr) -> IpAddr {
        let loopback = match to {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        match self.route(to) {
            None if to.is_loopback() => loopback,
            None => to,
            Some(out) => self.address_of(out, to).unwrap_or(loopback),
        }
    }

    pub(super) fn masquerade(&self, packet: &Packet) -> Option<IpAddr> {
        self.address_of(packet.oif?, packet.destination)
    }

    /// The host's address on an interface, in the subnet of `to` if it has one there.
    pub(super) fn address_of(&self, link: LinkName, to: IpAddr) -> Option<IpAddr> {
        if self.is_bridge(link) {
            return self.address_on(&Link::host(link), to);
        }
        let uplink = self.uplinks.iter().find(|uplink| uplink.name == link)?;
        let mut addresses = uplink.addresses.iter().copied();
        addresses.find(|address| Family::of(*address) == Family::of(to))
    }

    /// An interface's address: that in the subnet of `to`, or the first of its family.
    fn address_on(&self, link: &Link, to: IpAddr) -> Option<IpAddr> {
        let on = || {
            self.addresses
                .iter()
                .filter(|a| a.link == *link)
                .map(|a| a.address)
        };
        let beside = on().find(|address| address.contains(&to));
        let first = || on().find(|address| Family::of(address.addr()) == Family::of(to));
        Some(beside.or_else(first)?.addr())
    }

    pub(super) fn is_at(&self, link: &Link, address: IpAddr) -> bool {
        let mut all = self.addresses.iter();
        all.any(|a| a.link == *link && a.address.addr() == address)
    }

    pub(super) fn is_hosts(&self, address: IpAddr) -> bool {
        let on_uplink = |uplink: &Uplink| uplink.addresses.contains(&address);
        address.is_loopback()
            || self.uplinks.iter().any(on_uplink)
            || self.hosts().any(|a| a.address.addr() == address)
    }

    /// The host's addresses on bridges.
    fn hosts(&self) -> impl Iterator<Item = &'a Address> {
        self.addresses
            .iter()
            .copied()
            .filter(|a| a.link.ns == Ns::Host)
    }

    pub(super) fn is_bridge(&self, name: LinkName) -> bool {
        self.hosts().any(|address| address.link.name == name)
    }

    /// Who answers for an address on a bridge.
    pub(super) fn station(&self, bridge: LinkName, address: IpAddr) -> Result<Station<'a>, Loss> {
        if self.is_at(&Link::host(bridge), address) {
            return Ok(Station::Host);
        }
        let plugged = |m: &&Move| self.masters.get(&m.host) == Some(&bridge);
        let mut here = self.moves.iter().copied().filter(plugged);
        let found = here.find(|m| self.is_at(&m.to, address));
        match found {
            Some(moved) => Ok(Station::Container(moved.host, &moved.to)),
            None => Err(Loss::Nobody(bridge, address)),
        }
    }
}
