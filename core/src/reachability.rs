//! Reachability: who reaches whom, and why. From what is wanted alone, not from rules: what the
//! ruleset and the kernel must come to as well.

use alloc::collections::BTreeSet;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use crate::{
    ContainerName, Endpoint, EndpointId, Family, GatewayMode, LinkName, Network, NetworkName,
    PortBinding, Protocol, State, Subnet,
};

/// The first packet of a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Call {
    /// Who calls.
    pub from: Caller,
    /// The address that is called, and its port.
    pub to: SocketAddr,
    /// The transport protocol.
    pub protocol: Protocol,
}

/// Who calls.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Caller {
    /// A container, from the address that its routes choose.
    Container(ContainerName),
    /// The host itself.
    Host,
    /// Another machine, which sends what it does not know where to through the host.
    Outside {
        /// The interface of the host that its packets come in by.
        interface: LinkName,
        /// Its address, of the family that it calls.
        address: IpAddr,
    },
}

/// Where a call arrives, with nothing of ours in the way of its answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// Who gets it.
    pub at: Callee,
    /// The port that it arrives at: of a published one, the container's.
    pub port: u16,
    /// Whom it comes from, as the callee sees it.
    pub source: Source,
    /// What lets it through.
    pub why: Grant,
}

/// Who is called.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Callee {
    /// A container, by its interface on that network.
    Endpoint(EndpointId),
    /// The caller, which is called by none but itself.
    Caller,
    /// The host, whose own firewall judges next.
    Host,
    /// Whoever the host's routes lead to, past its own firewall.
    Outside,
}

/// Whom a call comes from, as the callee sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// The caller, as it is.
    Caller,
    /// The host, on the callee's network: the answer to the caller itself could not come back.
    Gateway(IpAddr),
    /// The host, by its address on the interface that leads out.
    Host,
}

/// What lets a call through.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "fields are what their text says")]
pub enum Grant {
    /// It never leaves the caller.
    Itself,
    /// Neighbours.
    SameNetwork(NetworkName),
    /// Handed to a container that the caller's network has a route by.
    NextHop(EndpointId),
    /// A port of the host.
    Published {
        by: EndpointId,
        binding: PortBinding,
    },
    /// A port of the container's own address.
    Open {
        by: EndpointId,
        binding: PortBinding,
    },
    /// Neither network is isolated.
    NotIsolated(NetworkName, NetworkName),
    /// An interface with privileges.
    Trusted {
        interface: LinkName,
        network: NetworkName,
    },
    /// The host to a container.
    FromHost(NetworkName),
    /// A container to the world.
    WayOut(NetworkName),
    /// The host's own services.
    Unpublished { port: u16, protocol: Protocol },
    /// The host's own services, though the port is published somewhere else.
    PublishedElsewhere {
        by: EndpointId,
        binding: PortBinding,
    },
    /// No container is concerned.
    NotOurs,
}

/// What stands in a call's way.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "fields are what their text says")]
pub enum Wall {
    /// Nobody knows the caller.
    #[error("there is no container `{0}`")]
    Unknown(ContainerName),
    /// Multicast, broadcast, IPv6 link-local, unspecified, or of another family than the caller's.
    #[error("{0} is not an address that can be routed to from there")]
    Unfit(IpAddr),
    /// Loopback of the host.
    #[error("{0} of the host is reached from the host alone")]
    Loopback(IpAddr),
    /// Nobody is there.
    #[error("nobody on network `{1}` has address {0}")]
    Nobody(IpAddr, NetworkName),
    /// The caller has no route.
    #[error("container `{0}` has no route to {1}")]
    NoRoute(ContainerName, IpAddr),
    /// The callee has no route.
    #[error("{0} has no route back to {1}")]
    NoWayBack(EndpointId, IpAddr),
    /// The callee answers by an interface whose address it was not called by.
    #[error("{0} would answer by network `{1}`, under an address that it does not have there")]
    AnswersAstray(EndpointId, NetworkName),
    /// Neighbours that don't talk.
    #[error(
        "icc is off on network `{0}`: its containers reach each other by published ports alone"
    )]
    NoIcc(NetworkName),
    /// Internal on either side.
    #[error("network `{0}` is internal")]
    Internal(NetworkName),
    /// Gateway mode `isolated`.
    #[error("network `{0}` is isolated: the host has no address on it")]
    NoGateway(NetworkName),
    /// Not published, and asked from another network or from outside.
    #[error("port {}/{protocol} of {} is closed to {from}", .to.port(), .to.ip())]
    Closed {
        to: SocketAddr,
        protocol: Protocol,
        from: Neighbour,
    },
}

/// From where a packet comes that the host passes on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Neighbour {
    /// A network of ours.
    Network(NetworkName),
    /// An interface of the host that is none of ours.
    Interface(LinkName),
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(name) => write!(f, "network `{name}`: one of the two is isolated"),
            Self::Interface(name) => write!(f, "`{name}`, which the network does not trust"),
        }
    }
}

/// `published by web on front at every address of the host`
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Itself => f.write_str("it does not leave the caller"),
            Self::SameNetwork(network) => {
                write!(f, "both are on network `{network}`, which is not filtered")
            }
            Self::NextHop(router) => write!(f, "the caller has a route by {router}"),
            Self::Published { by, binding } => write!(f, "published by {by} at {}", At(binding)),
            Self::Open { by, binding } => {
                let PortBinding {
                    container_port,
                    protocol,
                    ..
                } = binding;
                let network = &by.network;
                write!(
                    f,
                    "{container_port}/{protocol} of {by} is open at its own address: \
                     network `{network}` is routed"
                )
            }
            Self::NotIsolated(from, to) => {
                write!(f, "neither network `{from}` nor `{to}` is isolated")
            }
            Self::Trusted { interface, network } => {
                write!(f, "network `{network}` trusts interface `{interface}`")
            }
            Self::FromHost(network) => {
                write!(f, "the host reaches all on network `{network}`")
            }
            Self::WayOut(network) => write!(f, "network `{network}` leads out"),
            Self::Unpublished { port, protocol } => write!(
                f,
                "nobody publishes {port}/{protocol}: the host's own services and firewall decide"
            ),
            Self::PublishedElsewhere { by, binding } => write!(
                f,
                "published by {by} at {} alone: the host's own services and firewall decide",
                At(binding)
            ),
            Self::NotOurs => f.write_str("no container is concerned: the host decides"),
        }
    }
}

/// Where a port is published.
struct At<'a>(&'a PortBinding);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.0.host_ip;
        match (address.is_unspecified(), Family::of(address)) {
            (true, Family::V4) => f.write_str("every IPv4 address of the host"),
            (true, Family::V6) => f.write_str("every IPv6 address of the host"),
            (false, _) => write!(f, "{address}"),
        }
    }
}

impl State {
    /// Whether a call arrives, where and why, if the kernel holds what is wanted and `hosts` are
    /// the host's addresses, but for loopback and those on our bridges. A closed port counts as
    /// arrived: whether somebody listens is not asked, and neither is what containers, other
    /// firewalls and the administrator's chain do.
    ///
    /// ```
    /// # use mydocker_core::*;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut state = State::new(Instance::DEFAULT);
    /// let front = NetworkSpec { subnets: vec!["10.0.0.0/24".parse()?], ..NetworkSpec::new("front".parse()?) };
    /// let web = AttachSpec {
    ///     ports: vec!["8080:80".parse()?],
    ///     ..AttachSpec::new("front".parse()?, "web".parse()?, "/run/netns/web".parse()?)
    /// };
    /// for request in [Request::CreateNetwork(front), Request::Attach(web)] {
    ///     let plan = state.plan(&Facts::default(), &request)?;
    ///     state.absorb(&Entry::Begin(plan))?;
    ///     state.absorb(&Entry::End(Outcome::Committed))?;
    /// }
    /// let hosts = ["192.0.2.1".parse()?].into();
    /// let from = Caller::Outside { interface: "eth0".parse()?, address: "192.0.2.9".parse()? };
    /// let call = |to: &str| -> Result<Call, Box<dyn std::error::Error>> {
    ///     Ok(Call { from: from.clone(), to: to.parse()?, protocol: Protocol::Tcp })
    /// };
    /// let arrival = state.reach(&hosts, &call("192.0.2.1:8080")?)?;
    /// assert_eq!(arrival.port, 80);
    /// assert_eq!(arrival.source, Source::Caller);
    /// assert_eq!(arrival.why.to_string(), "published by web on front at every IPv4 address of the host");
    /// let wall = state.reach(&hosts, &call("10.0.0.2:80")?).unwrap_err();
    /// assert_eq!(wall.to_string(), "port 80/tcp of 10.0.0.2 is closed to `eth0`, which the network does not trust");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What stands in its way, or in that of its answer.
    pub fn reach(&self, hosts: &BTreeSet<IpAddr>, call: &Call) -> Result<Arrival, Wall> {
        let question = Question {
            state: self,
            hosts,
            to: call.to,
            protocol: call.protocol,
        };
        question.answer(&call.from)
    }
}

/// A call, and what it meets.
struct Question<'s> {
    state: &'s State,
    hosts: &'s BTreeSet<IpAddr>,
    to: SocketAddr,
    protocol: Protocol,
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
    fn answer(&self, from: &Caller) -> Result<Arrival, Wall> {
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
        self.check_way_back(neighbour, source, false)?;
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
        self.check_way_back(endpoint, back, true)?;
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
        self.check_way_back(endpoint, source, false)?;
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
        if let Some((endpoint, binding)) = self.pinhole(network) {
            let (by, binding) = (endpoint.id.clone(), binding.clone());
            return Ok(Grant::Open { by, binding });
        }
        if let Some(from) = from.filter(|from| from.name == network.name) {
            return Err(Wall::NoIcc(from.name.clone()));
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
    /// have another one's for it, where it may not speak under its address here.
    fn check_way_back(
        &self,
        endpoint: &Endpoint,
        to: IpAddr,
        translated: bool,
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
            self.is_hosts(to) || !network.internal && !own.internal
        } else {
            !translated && network.icc
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
        let longer = |a: &(ipnet::IpNet, _, _), b: &(ipnet::IpNet, _, _)| {
            b.0.prefix_len() > a.0.prefix_len()
        };
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
    addresses
        .find(|a| a.contains(&neighbour))
        .map(ipnet::IpNet::addr)
}

/// Whether an address is one machine's, and the same one's on every link.
fn is_one_machines(address: IpAddr) -> bool {
    let elsewhere = match address {
        IpAddr::V4(address) => address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(elsewhere || address.is_unspecified() || address.is_multicast())
}
