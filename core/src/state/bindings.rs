//! Which ports of the host, or of a container itself, a request to publish ends up with.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;

use super::create::at_most;
use super::index::PortIndex;
use super::publish::PORTS_MAX;
use crate::{
    EndpointId, Facts, Family, GatewayMode, Holder, Listener, Network, PortBinding, PortSpec,
    Protocol, Rejection, State,
};

impl State {
    /// Resolves what is to be published to one binding per family, none of which anybody has.
    pub(super) fn bindings(
        &self,
        facts: &Facts,
        network: &Network,
        id: &EndpointId,
        ports: &[PortSpec],
        addresses: &[IpNet],
    ) -> Result<Vec<PortBinding>, Rejection> {
        at_most("published ports", ports.len(), PORTS_MAX)?;
        if network.internal && !ports.is_empty() {
            return Err(Rejection::InternalPublishes(network.name.clone()));
        }
        for port in ports {
            check_port(network, port, addresses)?;
        }
        let of_mode = |mode| {
            let addresses = addresses.iter().map(IpNet::addr);
            addresses.filter(move |a| network.gateway_mode(Family::of(*a)) == mode)
        };
        let mut search = Search {
            state: self,
            listening: Listening::of(facts),
            families: of_mode(GatewayMode::Nat).map(Family::of).collect(),
            taken: PortIndex::default(),
            next: self.first_free(id),
        };
        let mut found: Vec<Vec<PortBinding>> = vec![Vec::new(); ports.len()];
        // Named ports first, so that no free one is what a later port of the request names.
        for (found, port) in found.iter_mut().zip(ports) {
            if let Some(host_port) = port.host_port {
                *found = search.named(ports, port, host_port)?;
            }
        }
        for (found, port) in found.iter_mut().zip(ports) {
            if port.host_port.is_none() {
                *found = search.free(port)?;
            }
        }
        // Several ports of the host may lead to what is one pinhole.
        let mut open = BTreeSet::new();
        let routed: Vec<IpAddr> = of_mode(GatewayMode::Routed).collect();
        for (found, port) in found.iter_mut().zip(ports) {
            let pinholes = routed.iter().map(|address| pinhole(port, *address));
            found.extend(pinholes.filter(|pinhole| open.insert(pinhole.clone())));
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Where an endpoint's search for a free port begins: elsewhere for each, and for one
    /// container the same each time.
    fn first_free(&self, id: &EndpointId) -> u16 {
        let names = ["port", id.network.as_str(), id.container.as_str()];
        let hash = self.instance.hash(&names);
        (hash % PortSpec::EPHEMERAL.len() as u64) as u16
    }
}

/// A search for ports of the host that nobody has.
struct Search<'s> {
    state: &'s State,
    listening: Listening<'s>,
    /// Those that a port at no address in particular stands for.
    families: BTreeSet<Family>,
    /// What earlier ports of the same request got.
    taken: PortIndex,
    /// Where to look for the next free one.
    next: u16,
}

impl Search<'_> {
    /// The bindings of a port of `ports` that names one of the host's.
    fn named(
        &mut self,
        ports: &[PortSpec],
        port: &PortSpec,
        host_port: u16,
    ) -> Result<Vec<PortBinding>, Rejection> {
        let own = bindings_of(port, host_port, &self.families);
        for binding in &own {
            if let Some(holder) = self.holder(binding) {
                let binding = binding.clone();
                return Err(Rejection::PortTaken { binding, holder });
            }
            if !self.taken.insert(binding, None) {
                return Err(port_twice(ports, port, binding));
            }
        }
        Ok(own)
    }

    /// The bindings of a port that names none of the host's: the next number that is free in every
    /// family.
    fn free(&mut self, port: &PortSpec) -> Result<Vec<PortBinding>, Rejection> {
        let all = PortSpec::EPHEMERAL;
        let count = all.len() as u16;
        for step in 0..count {
            let offset = (self.next + step) % count;
            let own = bindings_of(port, all.start() + offset, &self.families);
            let is_free = |binding: &PortBinding| {
                self.taken.conflict(binding).is_none() && self.holder(binding).is_none()
            };
            if own.iter().all(is_free) {
                self.next = offset + 1;
                for binding in &own {
                    self.taken.insert(binding, None);
                }
                return Ok(own);
            }
        }
        Err(Rejection::PortsExhausted(port.clone()))
    }

    /// Who has it already: a container, debris or a program of the host.
    fn holder(&self, binding: &PortBinding) -> Option<Holder> {
        let ours = self.state.ports.conflict(binding);
        ours.or_else(|| self.listening.conflict(binding))
    }
}

/// Who of the host's programs listens on which port.
struct Listening<'a>(BTreeMap<(Protocol, u16), Vec<&'a Listener>>);

impl<'a> Listening<'a> {
    fn of(facts: &'a Facts) -> Self {
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for listener in &facts.listeners {
            let key = (listener.protocol, listener.port);
            all.entry(key).or_default().push(listener);
        }
        Self(all)
    }

    /// Who stands in the way of a binding.
    fn conflict(&self, binding: &PortBinding) -> Option<Holder> {
        let all = self.0.get(&(binding.protocol, binding.host_port))?;
        let found = all.iter().find(|listener| listener.conflicts(binding))?;
        Some(Holder::Listener(found.process.clone()))
    }
}

/// Whether a port can be published by a container with these addresses, whoever has it.
fn check_port(network: &Network, port: &PortSpec, addresses: &[IpNet]) -> Result<(), Rejection> {
    if port.host_port == Some(0) || port.container_port == 0 {
        return Err(Rejection::PortZero(port.clone()));
    }
    let name = || network.name.clone();
    let mode = |family| network.gateway_mode(family);
    let Some(ip) = port.host_ip else {
        let mut families = addresses.iter().map(|a| Family::of(a.addr()));
        return if families.all(|family| mode(family) == GatewayMode::Isolated) {
            Err(Rejection::PortIsolated(port.clone(), name()))
        } else {
            Ok(())
        };
    };
    if addresses
        .iter()
        .all(|a| Family::of(a.addr()) != Family::of(ip))
    {
        return Err(Rejection::PortFamily(port.clone(), name()));
    }
    if addresses.iter().any(|a| a.addr() == ip) {
        return Err(Rejection::PortOwnAddress(port.clone()));
    }
    match mode(Family::of(ip)) {
        GatewayMode::Nat => Ok(()),
        GatewayMode::Routed => Err(Rejection::PortRouted {
            port: port.clone(),
            network: name(),
        }),
        GatewayMode::Isolated => Err(Rejection::PortIsolated(port.clone(), name())),
    }
}

/// What a port of a container under its own address is.
fn pinhole(port: &PortSpec, address: IpAddr) -> PortBinding {
    PortBinding {
        host_ip: address,
        host_port: port.container_port,
        container_port: port.container_port,
        protocol: port.protocol,
    }
}

/// A port on every address means every family that the container has.
fn bindings_of(port: &PortSpec, host_port: u16, families: &BTreeSet<Family>) -> Vec<PortBinding> {
    let hosts: Vec<IpAddr> = match port.host_ip {
        Some(ip) => Vec::from([ip]),
        None => families.iter().copied().map(Family::unspecified).collect(),
    };
    let binding = |host_ip| PortBinding {
        host_ip,
        host_port,
        container_port: port.container_port,
        protocol: port.protocol,
    };
    hosts.into_iter().map(binding).collect()
}

/// The error for a port that an earlier one of the same request overlaps.
fn port_twice(ports: &[PortSpec], second: &PortSpec, binding: &PortBinding) -> Rejection {
    let both = [Family::V4, Family::V6].into();
    let overlaps = |port: &&PortSpec| {
        port.host_port.is_some_and(|host_port| {
            let all = bindings_of(port, host_port, &both);
            all.iter().any(|other| other.conflicts(binding))
        })
    };
    Rejection::PortTwice {
        first: ports.iter().find(overlaps).unwrap_or(second).clone(),
        second: second.clone(),
    }
}
