//! Reachability: who reaches whom, and why. From what is wanted alone, not from rules: what the
//! ruleset and the kernel must come to as well.

mod question;

use alloc::collections::BTreeSet;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use crate::{
    ContainerName, EndpointId, Family, LinkName, NetworkName, PortBinding, Protocol, State,
};
use question::Question;

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

/// `published by web on front at every IPv4 address of the host`
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
    ///     state.absorb(&Entry::Begin(plan.into()))?;
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

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};

    use super::*;
    use crate::{
        AttachSpec, Entry, Facts, GatewayMode, Instance, NetworkSpec, Outcome, Request, State,
    };

    fn network(name: &str, subnet: &str) -> NetworkSpec {
        NetworkSpec {
            subnets: [subnet.parse().unwrap()].into(),
            ..NetworkSpec::new(name.parse().unwrap())
        }
    }

    fn attach(network: &str, container: &str, ports: &[&str]) -> Request {
        let [network, name] = [network, container].map(ToString::to_string);
        let netns = std::format!("/run/netns/{container}").parse().unwrap();
        Request::Attach(AttachSpec {
            ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
            ..AttachSpec::new(network.parse().unwrap(), name.parse().unwrap(), netns)
        })
    }

    fn town() -> State {
        let back = NetworkSpec {
            icc: false,
            trusted: ["vpn".parse().unwrap()].into(),
            ..network("back", "10.2.0.0/24")
        };
        let inside = NetworkSpec {
            internal: true,
            ..network("inside", "10.3.0.0/24")
        };
        let routed = NetworkSpec {
            gateway_modes: [(Family::V4, GatewayMode::Routed)].into(),
            ..network("routed", "10.4.0.0/24")
        };
        let networks = [network("front", "10.1.0.0/24"), back, inside, routed];
        let endpoints = [
            attach("front", "web", &["8080:80", "127.0.0.1:8081:80"]),
            attach("front", "peer", &[]),
            attach("back", "db", &[]),
            attach("back", "web", &["8082:80"]),
            attach("inside", "safe", &[]),
            attach("routed", "own", &["80"]),
        ];
        let mut state = State::new(Instance::DEFAULT);
        for request in networks
            .map(Request::CreateNetwork)
            .into_iter()
            .chain(endpoints)
        {
            let plan = state.plan(&Facts::default(), &request).unwrap();
            state.absorb(&Entry::Begin(plan.into())).unwrap();
            state.absorb(&Entry::End(Outcome::Committed)).unwrap();
        }
        state
    }

    fn why(state: &State, from: &str, to: &str) -> String {
        let from = match from {
            "host" => Caller::Host,
            "lan" | "vpn" => Caller::Outside {
                interface: from.parse().unwrap(),
                address: "192.0.2.9".parse().unwrap(),
            },
            container => Caller::Container(container.parse().unwrap()),
        };
        let (to, protocol) = (to.parse().unwrap(), Protocol::Tcp);
        let hosts = ["192.0.2.1".parse().unwrap()].into();
        match state.reach(&hosts, &Call { from, to, protocol }) {
            Ok(arrival) => std::format!("yes: {}", arrival.why),
            Err(wall) => std::format!("no: {wall}"),
        }
    }

    #[test]
    fn every_answer_says_why() {
        let state = town();
        for (from, to, said) in [
            ("web", "127.0.0.1:80", "yes: it does not leave the caller"),
            (
                "peer",
                "10.1.0.2:81",
                "yes: both are on network `front`, which is not filtered",
            ),
            (
                "peer",
                "192.0.2.1:8080",
                "yes: published by web on front at every IPv4 address of the host",
            ),
            (
                "peer",
                "192.0.2.1:8081",
                "yes: published by web on front at 127.0.0.1 alone: the host's own services and firewall decide",
            ),
            (
                "peer",
                "10.1.0.1:9",
                "yes: nobody publishes 9/tcp: the host's own services and firewall decide",
            ),
            (
                "peer",
                "10.4.0.2:80",
                "yes: 80/tcp of own on routed is open at its own address: network `routed` is routed",
            ),
            ("peer", "203.0.113.7:80", "yes: network `front` leads out"),
            (
                "vpn",
                "10.2.0.2:80",
                "yes: network `back` trusts interface `vpn`",
            ),
            (
                "host",
                "10.3.0.2:80",
                "yes: the host reaches all on network `inside`",
            ),
            (
                "host",
                "203.0.113.7:80",
                "yes: no container is concerned: the host decides",
            ),
            (
                "nobody",
                "10.1.0.2:80",
                "no: there is no container `nobody`",
            ),
            (
                "host",
                "224.0.0.1:80",
                "no: 224.0.0.1 is not an address that can be routed to from there",
            ),
            (
                "lan",
                "127.0.0.1:8081",
                "no: 127.0.0.1 of the host is reached from the host alone",
            ),
            (
                "peer",
                "10.1.0.9:80",
                "no: nobody on network `front` has address 10.1.0.9",
            ),
            (
                "safe",
                "192.0.2.1:8080",
                "no: container `safe` has no route to 192.0.2.1",
            ),
            (
                "host",
                "192.0.2.1:8082",
                "no: web on back would answer by network `front`, under an address that it does not have there",
            ),
            (
                "db",
                "10.2.0.3:80",
                "no: icc is off on network `back`: its containers reach each other by published ports alone",
            ),
            ("peer", "10.3.0.2:80", "no: network `inside` is internal"),
            (
                "lan",
                "10.1.0.2:80",
                "no: port 80/tcp of 10.1.0.2 is closed to `lan`, which the network does not trust",
            ),
            (
                "peer",
                "10.2.0.2:80",
                "no: port 80/tcp of 10.2.0.2 is closed to network `front`: one of the two is isolated",
            ),
        ] {
            assert_eq!(why(&state, from, to), said, "{from} to {to}");
        }
    }
}
