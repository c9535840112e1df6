//! How a call is judged: the way of its first packet, and that of the answer.

use alloc::collections::BTreeSet;
use core::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{Arrival, Callee, Caller, Grant, Neighbour, Source, Wall};
use crate::{
    ContainerName, Endpoint, Family, GatewayMode, LinkName, Network, PortBinding, Protocol, State,
    Subnet,
};

/// A call, and what it meets.
pub(super) struct Question<'s> {
    pub(super) state: &'s State,
    pub(super) hosts: &'s BTreeSet<IpAddr>,
    pub(super) to: SocketAddr,
    pub(super) protocol: Protocol,
}

/// Where the host has a packet from.
#[derive(Clone, Copy)]
enum Origin<'s> {
    Network(&'s Network),
    Interface(LinkName),
    Host,
}

/// How a container sends something.
enum Way<'s> {
    /// To itself.
    Itself,
    /// By an interface, to a neighbour there: who is called, or who passes it on.
    By(&'s Endpoint, IpAddr),
}

impl<'s> Question<'s> {
    pub(super) fn answer(&self, from: &Caller) -> Result<Arrival, Wall> {
        let to = self.to.ip();
        if !is_one_machines(to) {
            return Err(Wall::Unfit(to));
        }
        match from {
            Caller::Container(container) => self.by_container(container),
            Caller::Host => self.by_host(Origin::Host, self.hosts_source()),
            Caller::Outside { address, .. } if Family::of(*address) != Family::of(to) => {
                Err(Wall::Unfit(to))
            }
            // The kernel drops it as a martian, `route_localnet` or not: that is the bridges'.
            Caller::Outside { .. } if to.is_loopback() => Err(Wall::Loopback(to)),
            Caller::Outside { interface, address } => {
                self.by_host(Origin::Interface(*interface), *address)
            }
        }
    }

    fn by_container(&self, container: &ContainerName) -> Result<Arrival, Wall> {
        let to = self.to.ip();
        if self.state.joined(container).next().is_none() {
            return Err(Wall::Unknown(container.clone()));
        }
        let way = self.way(container, to);
        let (endpoint, next) = match way.ok_or_else(|| Wall::NoRoute(container.clone(), to))? {
            Way::Itself => return Ok(self.arrival(Callee::Caller, Source::Caller, Grant::Itself)),
            Way::By(endpoint, next) => (endpoint, next),
        };
        let network = self.network(endpoint)?;
        let source = beside(endpoint, next).ok_or(Wall::Unfit(to))?;
        if is_gateway(network, next) {
            return self.by_host(Origin::Network(network), source);
        }
        let neighbour = self.holder(network, next)?;
        if !network.icc {
            return Err(Wall::NoIcc(network.name.clone()));
        }
        let at = Callee::Endpoint(neighbour.id.clone());
        if next != to {
            let why = Grant::NextHop(neighbour.id.clone());
            return Ok(self.arrival(at, Source::Caller, why));
        }
        self.check_way_back(neighbour, source, None)?;
        let why = Grant::SameNetwork(network.name.clone());
        Ok(self.arrival(at, Source::Caller, why))
    }

    /// What the host does with it: takes it for its own, or passes it on.
    fn by_host(&self, origin: Origin, source: IpAddr) -> Result<Arrival, Wall> {
        let to = self.to.ip();
        if self.is_hosts(to) {
            return match self.publication() {
                Some((endpoint, binding)) if covers(binding, to) => {
                    self.to_published(origin, source, endpoint, binding)
                }
                elsewhere => Ok(self.to_host(elsewhere)),
            };
        }
        let networks = self.networks();
        let mut subnets =
            networks.flat_map(|network| network.subnets.iter().map(move |s| (network, s)));
        match subnets.find(|(_, subnet)| subnet.net.contains(&to)) {
            Some((network, subnet)) => self.to_address(origin, source, network, subnet),
            None => self.out(origin),
        }
    }

    fn to_host(&self, elsewhere: Option<(&Endpoint, &PortBinding)>) -> Arrival {
        let (port, protocol) = (self.to.port(), self.protocol);
        let why = match elsewhere {
            Some((endpoint, binding)) => Grant::PublishedElsewhere {
                by: endpoint.id.clone(),
                binding: binding.clone(),
            },
            None => Grant::Unpublished { port, protocol },
        };
        self.arrival(Callee::Host, Source::Caller, why)
    }

    /// What is published is everybody's who can talk to the host, but for internal networks.
    fn to_published(
        &self,
        origin: Origin,
        source: IpAddr,
        endpoint: &Endpoint,
        binding: &PortBinding,
    ) -> Result<Arrival, Wall> {
        let network = self.network(endpoint)?;
        if let Origin::Network(from) = origin
            && from.internal
        {
            return Err(Wall::Internal(from.name.clone()));
        }
        // A neighbour would be answered past the host, which alone can undo the translation; and
        // nobody answers a loopback address.
        let lost = source.is_loopback() || network.subnets.iter().any(|s| s.net.contains(&source));
        let gateway = network
            .way_out(binding.family())
            .and_then(|subnet| subnet.gateway);
        let seen = match gateway {
            Some(gateway) if lost => Source::Gateway(gateway),
            Some(_) | None => Source::Caller,
        };
        let back = match seen {
            Source::Gateway(gateway) => gateway,
            Source::Caller | Source::Host => source,
        };
        self.check_way_back(endpoint, back, Some(source))?;
        let why = Grant::Published {
            by: endpoint.id.clone(),
            binding: binding.clone(),
        };
        Ok(Arrival {
            port: binding.container_port,
            ..self.arrival(Callee::Endpoint(endpoint.id.clone()), seen, why)
        })
    }

    /// A container, by its own address, past the host's.
    fn to_address(
        &self,
        origin: Origin,
        source: IpAddr,
        network: &Network,
        subnet: &Subnet,
    ) -> Result<Arrival, Wall> {
        if subnet.gateway.is_none() {
            return Err(Wall::NoGateway(network.name.clone()));
        }
        let why = self.grant(origin, network)?;
        let endpoint = self.holder(network, self.to.ip())?;
        self.check_way_back(endpoint, source, None)?;
        let at = Callee::Endpoint(endpoint.id.clone());
        Ok(self.arrival(at, Source::Caller, why))
    }

    /// What lets anybody call a container of `network` by its own address.
    fn grant(&self, origin: Origin, network: &Network) -> Result<Grant, Wall> {
        let (from, interface) = match origin {
            Origin::Host => return Ok(Grant::FromHost(network.name.clone())),
            Origin::Network(from) if from.name == network.name && from.icc => {
                return Ok(Grant::SameNetwork(network.name.clone()));
            }
            Origin::Network(from) => (Some(from), from.bridge),
            Origin::Interface(interface) => (None, interface),
        };
        let internal = [from, Some(network)]
            .into_iter()
            .flatten()
            .find(|n| n.internal);
        if let Some(internal) = internal {
            return Err(Wall::Internal(internal.name.clone()));
        }
        if let Some(from) = from.filter(|from| from.name == network.name) {
            return Err(Wall::NoIcc(from.name.clone()));
        }
        if let Some((endpoint, binding)) = self.pinhole(network) {
            let (by, binding) = (endpoint.id.clone(), binding.clone());
            return Ok(Grant::Open { by, binding });
        }
        if let Some(from) = from.filter(|from| !from.isolate && !network.isolate) {
            let (from, to) = (from.name.clone(), network.name.clone());
            return Ok(Grant::NotIsolated(from, to));
        }
        if network.trusted.contains(&interface) {
            let network = network.name.clone();
            return Ok(Grant::Trusted { interface, network });
        }
        let from = from.map(|from| Neighbour::Network(from.name.clone()));
        Err(Wall::Closed {
            to: self.to,
            protocol: self.protocol,
            from: from.unwrap_or(Neighbour::Interface(interface)),
        })
    }

    /// To somewhere that is not ours.
    fn out(&self, origin: Origin) -> Result<Arrival, Wall> {
        let (source, why) = match origin {
            Origin::Network(from) if from.internal => {
                return Err(Wall::Internal(from.name.clone()));
            }
            Origin::Network(from) => {
                let nat = from.gateway_mode(Family::of(self.to.ip())) == GatewayMode::Nat;
                let source = if nat { Source::Host } else { Source::Caller };
                (source, Grant::WayOut(from.name.clone()))
            }
            Origin::Interface(_) | Origin::Host => (Source::Caller, Grant::NotOurs),
        };
        Ok(self.arrival(Callee::Outside, source, why))
    }

    /// Whether the answer of `endpoint` finds the way back: a container on several networks may
    /// have another one's for it, where it may not speak under its address here. A published port is
    /// translated by the host, which passes the answer on to who asked.
    fn check_way_back(
        &self,
        endpoint: &Endpoint,
        to: IpAddr,
        asker: Option<IpAddr>,
    ) -> Result<(), Wall> {
        let lost = || Wall::NoWayBack(endpoint.id.clone(), to);
        let Way::By(by, next) = self.way(&endpoint.id.container, to).ok_or_else(lost)? else {
            return Err(lost());
        };
        let network = self.network(by)?;
        let by_host = is_gateway(network, next);
        if !by_host && next != to {
            return Err(lost());
        }
        if by.id == endpoint.id {
            return Ok(());
        }
        let own = self.network(endpoint)?;
        let passes = if by_host {
            let asker = asker.unwrap_or(to);
            let is_host = asker.is_loopback() || self.is_hosts(asker);
            // To a network that it has no address on, the host sends out by an uplink.
            let mut beside = own.subnets.iter().filter(|s| s.net.contains(&asker));
            let is_led = beside.all(|subnet| subnet.gateway.is_some());
            is_host || !network.internal && !own.internal && is_led
        } else {
            asker.is_none() && network.icc
        };
        if network.spoof && passes {
            return Ok(());
        }
        let (id, network) = (endpoint.id.clone(), network.name.clone());
        Err(Wall::AnswersAstray(id, network))
    }

    fn arrival(&self, at: Callee, source: Source, why: Grant) -> Arrival {
        let port = self.to.port();
        Arrival {
            at,
            port,
            source,
            why,
        }
    }

    /// By the longest prefix, of equals by its own subnet, then by the network joined first.
    fn way(&self, container: &ContainerName, to: IpAddr) -> Option<Way<'s>> {
        let joined = || self.state.joined(container);
        let own = |endpoint: &Endpoint| endpoint.addresses.iter().any(|a| a.addr() == to);
        if to.is_loopback() || joined().any(own) {
            return Some(Way::Itself);
        }
        let links = joined().flat_map(|e| e.addresses.iter().map(move |a| (a.trunc(), e, to)));
        let routes = joined().flat_map(|endpoint| {
            let network = self.state.network(&endpoint.id.network);
            let routes = network.map(|network| endpoint.routes(network));
            let routes = routes.into_iter().flatten();
            routes.map(move |route| (route.destination, endpoint, route.via))
        });
        let fitting = links.chain(routes).filter(|(net, ..)| net.contains(&to));
        let longer = |a: &(IpNet, _, _), b: &(IpNet, _, _)| b.0.prefix_len() > a.0.prefix_len();
        let (_, endpoint, next) = fitting.reduce(|a, b| if longer(&a, &b) { b } else { a })?;
        Some(Way::By(endpoint, next))
    }

    /// Where the host sends a call from: by the bridge, if it leads there, else from loopback or
    /// the very address that is called.
    fn hosts_source(&self) -> IpAddr {
        let to = self.to.ip();
        let subnets = self.networks().flat_map(|network| &network.subnets);
        let gateway = subnets
            .filter(|s| s.net.contains(&to))
            .find_map(|s| s.gateway);
        match gateway {
            Some(gateway) if !self.is_hosts(to) => gateway,
            Some(_) | None => to,
        }
    }

    fn is_hosts(&self, address: IpAddr) -> bool {
        address.is_loopback()
            || self.hosts.contains(&address)
            || self.networks().any(|network| is_gateway(network, address))
    }

    /// Networks that are in the kernel.
    fn networks(&self) -> impl Iterator<Item = &'s Network> {
        let state = self.state;
        state
            .networks()
            .filter(|network| state.is_up(&network.name))
    }

    fn network(&self, endpoint: &Endpoint) -> Result<&'s Network, Wall> {
        let network = self.state.network(&endpoint.id.network);
        network.ok_or_else(|| Wall::Unknown(endpoint.id.container.clone()))
    }

    fn holder(&self, network: &Network, address: IpAddr) -> Result<&'s Endpoint, Wall> {
        let has = |endpoint: &&Endpoint| endpoint.addresses.iter().any(|a| a.addr() == address);
        let nobody = || Wall::Nobody(address, network.name.clone());
        self.state
            .endpoints_of(&network.name)
            .find(has)
            .ok_or_else(nobody)
    }

    /// Who publishes the port: at the address that is called, or else anywhere in its family.
    fn publication(&self) -> Option<(&'s Endpoint, &'s PortBinding)> {
        let (to, protocol) = (self.to, self.protocol);
        let all = self.state.endpoints();
        let all = all.flat_map(|endpoint| endpoint.host_ports().map(move |port| (endpoint, port)));
        let mut same = all.filter(|(_, binding)| {
            (binding.host_port, binding.protocol) == (to.port(), protocol)
                && binding.family() == Family::of(to.ip())
        });
        let first = same.next()?;
        let covering = core::iter::once(first)
            .chain(same)
            .find(|(_, b)| covers(b, to.ip()));
        covering.or(Some(first))
    }

    /// The port of the container's own address, if it is open.
    fn pinhole(&self, network: &Network) -> Option<(&'s Endpoint, &'s PortBinding)> {
        let (to, protocol) = (self.to, self.protocol);
        let endpoint = self.holder(network, to.ip()).ok()?;
        let is_it = |binding: &&PortBinding| {
            binding.host_ip == to.ip()
                && (binding.container_port, binding.protocol) == (to.port(), protocol)
        };
        Some((endpoint, endpoint.ports.iter().find(is_it)?))
    }
}

fn covers(binding: &PortBinding, called: IpAddr) -> bool {
    binding.host_ip.is_unspecified() || binding.host_ip == called
}

fn is_gateway(network: &Network, address: IpAddr) -> bool {
    network
        .subnets
        .iter()
        .any(|subnet| subnet.gateway == Some(address))
}

/// The address of an endpoint in the subnet of a neighbour's.
fn beside(endpoint: &Endpoint, neighbour: IpAddr) -> Option<IpAddr> {
    let mut addresses = endpoint.addresses.iter();
    addresses.find(|a| a.contains(&neighbour)).map(IpNet::addr)
}

/// Whether an address is one machine's, and the same one's on every link.
fn is_one_machines(address: IpAddr) -> bool {
    let elsewhere = match address {
        IpAddr::V4(address) => address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(elsewhere || address.is_unspecified() || address.is_multicast())
}
