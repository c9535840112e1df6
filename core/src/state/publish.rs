//! Planning published ports: which of the host's ports each one gets, and what stands in the way.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;

use super::create::at_most;
use super::index::PortIndex;
use crate::{
    Change, Endpoint, EndpointId, Facts, Family, GatewayMode, Holder, Listener, Network, OnFailure,
    Plan, PortBinding, PortSpec, Protocol, Rejection, State, diff,
};

/// Published ports of one endpoint: every port of every protocol, twice over.
const PORTS_MAX: usize = 1 << 18;

impl State {
    pub(super) fn plan_publish(
        &self,
        facts: &Facts,
        id: &EndpointId,
        ports: &[PortSpec],
    ) -> Result<Plan, Rejection> {
        let (endpoint, network) = self.publisher(id, ports)?;
        let count = endpoint.ports.len() + ports.len();
        at_most("published ports", count, PORTS_MAX)?;
        let mut changed = endpoint.clone();
        let more = self.bindings(facts, network, id, ports, &endpoint.addresses)?;
        // A pinhole may be there for another port of the host already.
        let there: BTreeSet<&PortBinding> = endpoint.ports.iter().collect();
        let more = more.into_iter().filter(|binding| !there.contains(binding));
        changed.ports.extend(more);
        Ok(self.change(endpoint, changed, network, OnFailure::Undo))
    }

    pub(super) fn plan_unpublish(
        &self,
        id: &EndpointId,
        ports: &[PortSpec],
    ) -> Result<Plan, Rejection> {
        let (endpoint, network) = self.publisher(id, ports)?;
        at_most("published ports", ports.len(), PORTS_MAX)?;
        // By what every spec names, or a long range of a long range would take forever.
        let mut leading_to: BTreeMap<(Protocol, u16), Vec<&PortBinding>> = BTreeMap::new();
        for binding in &endpoint.ports {
            let key = (binding.protocol, binding.container_port);
            leading_to.entry(key).or_default().push(binding);
        }
        let mut going: BTreeSet<&PortBinding> = BTreeSet::new();
        for port in ports {
            let all = leading_to.get(&(port.protocol, port.container_port));
            let all = all.into_iter().flatten().copied();
            let pinhole = |b: &PortBinding| port.host_ip.is_none() && endpoint.is_pinhole(b);
            let mut meant = all.filter(|b| port.matches(b) || pinhole(b)).peekable();
            if meant.peek().is_none() {
                let (port, id) = (port.clone(), id.clone());
                return Err(Rejection::PortUnknown { port, id });
            }
            going.extend(meant);
        }
        // A pinhole goes when it is named by its own port, or with the last port of the host that
        // leads there.
        let alone = ports.iter().filter(|port| port.host_port.is_none());
        let alone: BTreeSet<_> = alone.map(|p| (p.protocol, p.container_port)).collect();
        let still_led_to = |binding: &PortBinding| {
            let key = (binding.protocol, binding.container_port);
            let staying = |b: &&PortBinding| !endpoint.is_pinhole(b) && !going.contains(*b);
            let others = leading_to.get(&key).into_iter().flatten();
            !alone.contains(&key) && others.copied().any(|b| staying(&b))
        };
        let mut changed = endpoint.clone();
        changed.ports.retain(|binding| {
            !going.contains(binding) || endpoint.is_pinhole(binding) && still_led_to(binding)
        });
        Ok(self.change(endpoint, changed, network, OnFailure::Continue))
    }

    /// The endpoint whose ports are to change, and its network.
    fn publisher(
        &self,
        id: &EndpointId,
        ports: &[PortSpec],
    ) -> Result<(&Endpoint, &Network), Rejection> {
        let endpoint = self.endpoints.get(id).zip(self.network(&id.network));
        let found = endpoint.ok_or_else(|| Rejection::EndpointUnknown(id.clone()))?;
        if ports.is_empty() {
            return Err(Rejection::NoPorts(id.clone()));
        }
        Ok(found)
    }

    /// Nothing but what differs: the rest of the endpoint and its connections go on.
    fn change(
        &self,
        endpoint: &Endpoint,
        changed: Endpoint,
        network: &Network,
        on_failure: OnFailure,
    ) -> Plan {
        let [before, after] = [endpoint, &changed].map(|e| e.objects(self.instance, network));
        Plan {
            change: Change::EndpointChanged(changed),
            on_failure,
            ops: diff(&before, &after),
        }
    }

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
        let listening = Listening::of(facts);
        let of_mode = |mode| {
            let addresses = addresses.iter().map(IpNet::addr);
            addresses.filter(move |a| network.gateway_mode(Family::of(*a)) == mode)
        };
        let families: BTreeSet<Family> = of_mode(GatewayMode::Nat).map(Family::of).collect();
        let routed: Vec<IpAddr> = of_mode(GatewayMode::Routed).collect();
        let mut taken = PortIndex::default();
        let mut found = BTreeMap::new();
        // Named ports first, so that no free one is what a later port of the request names.
        for (place, port) in ports.iter().enumerate() {
            let Some(host_port) = port.host_port else {
                continue;
            };
            let own = bindings_of(port, host_port, &families);
            for binding in &own {
                let holder = self.ports.conflict(binding);
                if let Some(holder) = holder.or_else(|| listening.conflict(binding)) {
                    let binding = binding.clone();
                    return Err(Rejection::PortTaken { binding, holder });
                }
                if !taken.insert(binding, None) {
                    return Err(port_twice(ports, port, binding));
                }
            }
            found.insert(place, own);
        }
        let mut search = self.first_free(id);
        for (place, port) in ports.iter().enumerate() {
            if port.host_port.is_some() {
                continue;
            }
            let is_free = |binding: &PortBinding| {
                self.ports.conflict(binding).is_none()
                    && taken.conflict(binding).is_none()
                    && listening.conflict(binding).is_none()
            };
            let own = next_free(port, &families, &mut search, is_free)?;
            for binding in &own {
                taken.insert(binding, None);
            }
            found.insert(place, own);
        }
        let mut open = BTreeSet::new();
        for (place, port) in ports.iter().enumerate() {
            for address in &routed {
                let pinhole = pinhole(port, *address);
                if open.insert(pinhole.clone()) {
                    found.entry(place).or_insert_with(Vec::new).push(pinhole);
                }
            }
        }
        Ok(found.into_values().flatten().collect())
    }

    /// Where an endpoint's search for a free port begins: elsewhere for each, and for one
    /// container the same each time.
    fn first_free(&self, id: &EndpointId) -> u16 {
        let names = ["port", id.network.as_str(), id.container.as_str()];
        let hash = self.instance.hash(&names);
        (hash % PortSpec::EPHEMERAL.len() as u64) as u16
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

/// The bindings of a port that names none of the host's: the next number from `search` on that is
/// free in every family.
fn next_free(
    port: &PortSpec,
    families: &BTreeSet<Family>,
    search: &mut u16,
    is_free: impl Fn(&PortBinding) -> bool,
) -> Result<Vec<PortBinding>, Rejection> {
    let all = PortSpec::EPHEMERAL;
    let count = all.len() as u16;
    for step in 0..count {
        let offset = (*search + step) % count;
        let own = bindings_of(port, all.start() + offset, families);
        if own.iter().all(&is_free) {
            *search = offset + 1;
            return Ok(own);
        }
    }
    Err(Rejection::PortsExhausted(port.clone()))
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
    let unspecified = |family: &Family| match family {
        Family::V4 => IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED),
    };
    let hosts: Vec<IpAddr> = match port.host_ip {
        Some(ip) => Vec::from([ip]),
        None => families.iter().map(unspecified).collect(),
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
