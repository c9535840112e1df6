//! Packets in the model kernel: what becomes of a connection's first one, and of its answer.
//!
//! Objects are taken for what they do: cables, bridges, addresses and routes for where a packet
//! goes, the ruleset for whether it may. Not modelled: frames between containers that pass the
//! rules for packets as well (`net.bridge.bridge-nf-call-iptables`), tables of others, `rp_filter`,
//! and what rules do to an answer that ends at the host.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each match picks one kind out of a set of all kinds"
)]

mod routes;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use mydocker_core::{
    Address, Element, Footprint, Hook, Link, LinkName, Master, Move, Netns, Ns, Object, Protocol,
    Route, Ruleset, TableFamily, Up,
};

use rules::Packet;

/// An interface of the host that leads out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Uplink {
    /// Its name.
    pub name: LinkName,
    /// The host's addresses on it.
    pub addresses: Vec<IpAddr>,
}

/// Who begins a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Sender {
    /// A container.
    Container(Netns),
    /// The host.
    Host,
    /// Another machine.
    Outside {
        /// The interface that its packets come in by.
        interface: LinkName,
        /// Its address.
        address: IpAddr,
    },
}

/// Where a packet arrived.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// Who has it.
    pub at: Receiver,
    /// Its destination port by now.
    pub port: u16,
    /// Its source address as it was sent.
    pub sent_from: IpAddr,
    /// Its source address by now.
    pub source: IpAddr,
}

/// Who has a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Receiver {
    /// A container, by that interface.
    Container(Link),
    /// Who sent it.
    Sender,
    /// The host.
    Host,
    /// Whoever is at the other end of the first uplink.
    Outside,
}

/// What became of a packet, or of the answer to it, that did not arrive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Loss {
    /// By a rule of ours.
    Dropped {
        /// Family and name of the table.
        table: String,
        /// The chain.
        chain: &'static str,
        /// The rule, in the words of `nft`.
        rule: String,
    },
    /// Nobody on the bridge has the next hop's address.
    Nobody(LinkName, IpAddr),
    /// The namespace has no route there.
    NoRoute(Ns, IpAddr),
    /// A loopback address on a cable.
    Martian(IpAddr),
    /// The answer came to somebody who did not ask, or not from whom it was asked.
    Astray(IpAddr),
}

/// A host, its bridges and all that is plugged in.
#[derive(Debug)]
pub struct Wires<'a> {
    uplinks: &'a [Uplink],
    ruleset: Option<Ruleset>,
    elements: BTreeMap<(TableFamily, &'static str), Vec<Element>>,
    addresses: Vec<&'a Address>,
    routes: Vec<&'a Route>,
    moves: Vec<&'a Move>,
    masters: BTreeMap<LinkName, LinkName>,
    /// Of bridges; all else is in none.
    groups: BTreeMap<LinkName, u32>,
    up: BTreeSet<&'a Link>,
}

/// How a container sends something.
enum Way<'a> {
    Itself,
    /// By an interface, to the next hop, from an address.
    By(&'a Link, IpAddr, IpAddr),
}

/// Who is at the end of a frame's way.
enum Station<'a> {
    Host,
    Container(LinkName, &'a Link),
}

impl<'a> Wires<'a> {
    /// The host that holds these objects, of one instance, and has these interfaces besides; all
    /// that is neither its own nor on a bridge it sends out by the first.
    #[must_use]
    pub fn new(objects: &'a Footprint, uplinks: &'a [Uplink]) -> Self {
        let mut wires = Self {
            uplinks,
            ruleset: None,
            elements: BTreeMap::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            moves: Vec::new(),
            masters: BTreeMap::new(),
            groups: BTreeMap::new(),
            up: BTreeSet::new(),
        };
        for object in objects {
            wires.take_in(object);
        }
        wires
    }

    fn take_in(&mut self, object: &'a Object) {
        for element in object.elements() {
            let set = self.elements.entry((element.table, element.set));
            set.or_default().push(element);
        }
        match object {
            Object::Ruleset(instance) => self.ruleset = Some(Ruleset::of(*instance)),
            Object::Address(address) => self.addresses.push(address),
            Object::Route(route) => self.routes.push(route),
            Object::Move(moved) => self.moves.push(moved),
            Object::Master(Master { link, bridge }) => {
                self.masters.insert(*link, *bridge);
            }
            Object::Bridge(bridge) => {
                self.groups.insert(bridge.name, bridge.group());
            }
            Object::Up(Up { link }) => {
                self.up.insert(link);
            }
            _ => {}
        }
    }

    /// What becomes of a connection's first packet, and of the answer to it.
    ///
    /// # Errors
    /// One of the two does not arrive.
    pub fn send(
        &self,
        from: &Sender,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Result<Delivery, Loss> {
        let mut packet = Packet {
            iif: None,
            oif: None,
            mac: None,
            source: to.ip(),
            destination: to.ip(),
            protocol,
            port: to.port(),
            mark: 0,
            dnatted: false,
            answers: false,
        };
        let (first, at) = match from {
            Sender::Container(netns) => self.container_sends(netns, &mut packet)?,
            Sender::Host => {
                packet.source = self.hosts_source(to.ip());
                (packet.clone(), self.host_sends(&mut packet)?)
            }
            Sender::Outside { interface, address } => {
                packet.source = *address;
                packet.iif = Some(*interface);
                (packet.clone(), self.outside_sends(&mut packet)?)
            }
        };
        if let Receiver::Container(link) = &at
            && self.is_at(link, packet.destination)
        {
            self.answer(&first, &packet, &link.ns)?;
        }
        Ok(Delivery {
            at,
            port: packet.port,
            sent_from: first.source,
            source: packet.source,
        })
    }

    fn container_sends(
        &self,
        netns: &Netns,
        packet: &mut Packet,
    ) -> Result<(Packet, Receiver), Loss> {
        let ns = Ns::Sandbox(netns.clone());
        let Way::By(link, next, source) = self.way(&ns, packet.destination)? else {
            return Ok((packet.clone(), Receiver::Sender));
        };
        packet.source = source;
        let first = packet.clone();
        let (port, bridge) = self.leave(link, packet)?;
        let at = match self.station(bridge, next)? {
            Station::Host => {
                packet.iif = Some(bridge);
                self.receive(packet)?
            }
            Station::Container(to, link) => {
                self.switch(port, to, packet)?;
                Receiver::Container(link.clone())
            }
        };
        Ok((first, at))
    }

    fn host_sends(&self, packet: &mut Packet) -> Result<Receiver, Loss> {
        packet.oif = self.route(packet.destination);
        self.pass(TableFamily::Inet, Hook::Output, packet)?;
        self.leave_host(packet)
    }

    fn outside_sends(&self, packet: &mut Packet) -> Result<Receiver, Loss> {
        for address in [packet.source, packet.destination] {
            if address.is_loopback() {
                return Err(Loss::Martian(address));
            }
        }
        self.receive(packet)
    }

    /// The host takes a packet off a cable or a bridge.
    fn receive(&self, packet: &mut Packet) -> Result<Receiver, Loss> {
        self.pass(TableFamily::Inet, Hook::Prerouting, packet)?;
        packet.oif = self.route(packet.destination);
        if packet.oif.is_none() {
            self.pass(TableFamily::Inet, Hook::Input, packet)?;
            return Ok(Receiver::Host);
        }
        self.pass(TableFamily::Inet, Hook::Forward, packet)?;
        self.leave_host(packet)
    }

    fn leave_host(&self, packet: &mut Packet) -> Result<Receiver, Loss> {
        packet.oif = self.route(packet.destination);
        self.pass(TableFamily::Inet, Hook::Postrouting, packet)?;
        let Some(out) = packet.oif else {
            return Ok(Receiver::Host);
        };
        if !self.is_bridge(out) {
            return Ok(Receiver::Outside);
        }
        match self.station(out, packet.destination)? {
            Station::Host => Ok(Receiver::Host),
            Station::Container(port, link) => {
                (packet.iif, packet.oif) = (None, Some(port));
                self.pass(TableFamily::Bridge, Hook::Output, packet)?;
                self.pass(TableFamily::Bridge, Hook::Postrouting, packet)?;
                Ok(Receiver::Container(link.clone()))
            }
        }
    }

    /// Out of a container: the port of the bridge that it comes in by.
    fn leave(&self, link: &Link, packet: &mut Packet) -> Result<(LinkName, LinkName), Loss> {
        let nowhere = || Loss::NoRoute(link.ns.clone(), packet.destination);
        let moved = self
            .moves
            .iter()
            .find(|m| m.to == *link)
            .ok_or_else(nowhere)?;
        let bridge = self.masters.get(&moved.host).ok_or_else(nowhere)?;
        (packet.iif, packet.mac) = (Some(moved.host), Some(moved.mac));
        self.pass(TableFamily::Bridge, Hook::Prerouting, packet)?;
        Ok((moved.host, *bridge))
    }

    /// From one port of a bridge to another.
    fn switch(&self, from: LinkName, to: LinkName, packet: &mut Packet) -> Result<(), Loss> {
        (packet.iif, packet.oif) = (Some(from), Some(to));
        self.pass(TableFamily::Bridge, Hook::Forward, packet)?;
        self.pass(TableFamily::Bridge, Hook::Postrouting, packet)
    }

    /// The answer of the container in `ns`, who got `got` when `first` was sent: its address is the
    /// translated one, and only the host that translated it can translate it back.
    fn answer(&self, first: &Packet, got: &Packet, ns: &Ns) -> Result<(), Loss> {
        let Way::By(link, next, _) = self.way(ns, got.source)? else {
            return Err(Loss::Astray(got.source));
        };
        let mut packet = Packet {
            source: got.destination,
            destination: got.source,
            mark: 0,
            answers: true,
            ..got.clone()
        };
        let (port, bridge) = self.leave(link, &mut packet)?;
        match self.station(bridge, next)? {
            Station::Host => {
                packet.destination = first.source;
                (packet.iif, packet.oif) = (Some(bridge), self.route(first.source));
                match packet.oif {
                    // Nobody is out there who did not call from there.
                    Some(out) if !self.is_bridge(out) && first.iif.is_none() => {
                        Err(Loss::Astray(got.source))
                    }
                    Some(_) => self.pass(TableFamily::Inet, Hook::Forward, &mut packet),
                    None => Ok(()),
                }
            }
            Station::Container(to, _) => {
                let same = |a: &Packet, b: &Packet| {
                    (a.source, a.destination, a.port) == (b.source, b.destination, b.port)
                };
                if next != first.source || !same(first, got) {
                    return Err(Loss::Astray(got.source));
                }
                self.switch(port, to, &mut packet)
            }
        }
    }
}
