//! What a request looks up: kept in step with networks, endpoints and debris.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;

use crate::snapshot::{Damage, NetworkRecord};
use crate::{
    ContainerName, Endpoint, EndpointId, Family, Holder, Mac, Netns, Network, NetworkName, Object,
    Pool, PortBinding, Protocol, State, hosts_overlap,
};

/// A network and who is on it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NetworkState {
    pub(super) network: Network,
    /// Whether the kernel has its objects.
    pub(super) up: bool,
    /// One for each subnet, in order.
    pub(super) pools: Vec<Pool>,
    pub(super) containers: BTreeSet<ContainerName>,
    pub(super) macs: BTreeMap<Mac, ContainerName>,
}

impl NetworkState {
    pub(super) fn record(&self) -> NetworkRecord {
        let cursors = self.pools.iter().map(Pool::cursor).collect();
        NetworkRecord {
            network: self.network.clone(),
            up: self.up,
            cursors,
        }
    }

    pub(super) fn set_cursors(&mut self, cursors: &[IpAddr]) {
        for (pool, cursor) in self.pools.iter_mut().zip(cursors) {
            pool.set_cursor(*cursor);
        }
    }

    /// The pool that an address is of, if any.
    pub(super) fn pool_of(&mut self, address: IpAddr) -> Option<&mut Pool> {
        let index = self
            .network
            .subnets
            .iter()
            .position(|s| s.net.contains(&address))?;
        self.pools.get_mut(index)
    }
}

/// A container's namespace and the networks it joined, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Sandbox {
    pub(super) netns: Netns,
    pub(super) networks: Vec<NetworkName>,
}

/// Who publishes which port of the host, at which address; `None` stands for debris.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct PortIndex(BTreeMap<(Protocol, u16, Family, IpAddr), Option<Arc<EndpointId>>>);

impl PortIndex {
    fn key(binding: &PortBinding, host_ip: IpAddr) -> (Protocol, u16, Family, IpAddr) {
        let family = Family::of(host_ip);
        (binding.protocol, binding.host_port, family, host_ip)
    }

    /// Who stands in the way of a binding.
    pub(super) fn conflict(&self, binding: &PortBinding) -> Option<Holder> {
        let (ip, family) = (binding.host_ip, binding.family());
        let first = Self::key(binding, family.unspecified());
        let (&(.., lowest), holder) = self.0.range(first..).next().filter(|(key, _)| {
            let &&(protocol, port, of, _) = key;
            (protocol, port, of) == (binding.protocol, binding.host_port, family)
        })?;
        let holder = if hosts_overlap(lowest, ip) {
            holder
        } else {
            self.0.get(&Self::key(binding, ip))?
        };
        let of = |id: &Arc<EndpointId>| Holder::Endpoint(EndpointId::clone(id));
        Some(holder.as_ref().map_or(Holder::Debris, of))
    }

    /// Takes a port. False if it was taken.
    pub(super) fn insert(
        &mut self,
        binding: &PortBinding,
        holder: Option<&Arc<EndpointId>>,
    ) -> bool {
        if self.conflict(binding).is_some() {
            return false;
        }
        let key = Self::key(binding, binding.host_ip);
        self.0.insert(key, holder.cloned());
        true
    }

    /// Takes all ports of an endpoint, or none: then one that was taken, by another or by the endpoint
    /// itself.
    fn insert_all(&mut self, endpoint: &Endpoint) -> Result<(), PortBinding> {
        let holder = Arc::new(endpoint.id.clone());
        for (done, binding) in endpoint.host_ports().enumerate() {
            if !self.insert(binding, Some(&holder)) {
                for binding in endpoint.host_ports().take(done) {
                    self.remove(binding);
                }
                return Err(binding.clone());
            }
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, binding: &PortBinding) {
        self.0.remove(&Self::key(binding, binding.host_ip));
    }
}

impl State {
    /// Adds a network.
    pub(super) fn insert_network(&mut self, network: Network, up: bool) -> Result<(), Damage> {
        let name = network.name.clone();
        if self.networks.contains_key(&name) {
            return Err(Damage::NetworkTwice(name));
        }
        let pools = network.subnets.iter().map(Pool::new).collect();
        let (containers, macs) = (BTreeSet::new(), BTreeMap::new());
        self.networks.insert(
            name,
            NetworkState {
                network,
                up,
                pools,
                containers,
                macs,
            },
        );
        Ok(())
    }

    pub(super) fn remove_network(&mut self, name: &NetworkName) -> Result<(), Damage> {
        match self.networks.get(name) {
            None => Err(Damage::NetworkUnknown(name.clone())),
            Some(known) if !known.containers.is_empty() => Err(Damage::NetworkInUse(name.clone())),
            Some(_) => {
                self.networks.remove(name);
                Ok(())
            }
        }
    }

    /// Adds an endpoint, and with it its leases, MAC, ports and sandbox. Checks first and
    /// changes then, so that a contradiction leaves the state as it was.
    pub(super) fn insert_endpoint(&mut self, endpoint: Endpoint) -> Result<(), Damage> {
        let id = endpoint.id.clone();
        if self.endpoints.contains_key(&id) {
            return Err(Damage::EndpointTwice(id));
        }
        let Some(known) = self.networks.get_mut(&id.network) else {
            return Err(Damage::NetworkUnknown(id.network));
        };
        for (index, address) in endpoint.addresses.iter().enumerate() {
            let free = known
                .pool_of(address.addr())
                .map(|pool| pool.check(address.addr()));
            let same = |other: &IpNet| other.addr() == address.addr();
            if free != Some(Ok(())) || endpoint.addresses[..index].iter().any(same) {
                return Err(Damage::AddressTwice(id, address.addr()));
            }
        }
        if known.macs.contains_key(&endpoint.mac) {
            return Err(Damage::MacTwice(id, endpoint.mac));
        }
        let holder = self.netns.get(&endpoint.netns);
        if holder.is_some_and(|holder| *holder != id.container) {
            return Err(Damage::NetnsTwice(id, endpoint.netns));
        }
        let sandbox = self.sandboxes.get(&id.container);
        if sandbox.is_some_and(|sandbox| sandbox.netns != endpoint.netns) {
            return Err(Damage::NetnsOther(id, endpoint.netns));
        }
        if let Err(taken) = self.ports.insert_all(&endpoint) {
            return Err(Damage::PortTwice(id, taken));
        }
        for address in &endpoint.addresses {
            if let Some(pool) = known.pool_of(address.addr()) {
                // It is free, as was seen above.
                pool.lease(address.addr()).ok();
            }
        }
        known.up = true;
        known.containers.insert(id.container.clone());
        known.macs.insert(endpoint.mac, id.container.clone());
        let sandbox = self
            .sandboxes
            .entry(id.container.clone())
            .or_insert_with(|| Sandbox {
                netns: endpoint.netns.clone(),
                networks: Vec::new(),
            });
        let rank_of = |network: &NetworkName| {
            let id = EndpointId {
                network: network.clone(),
                container: id.container.clone(),
            };
            self.endpoints.get(&id).map(|endpoint| endpoint.rank)
        };
        // Ranks differ in whatever we wrote. If some don't, the order is still one and the same.
        let rank = (Some(endpoint.rank), &id.network);
        let place = sandbox.networks.partition_point(|n| (rank_of(n), n) < rank);
        sandbox.networks.insert(place, id.network.clone());
        self.netns
            .insert(endpoint.netns.clone(), id.container.clone());
        self.endpoints.insert(id, endpoint);
        Ok(())
    }

    /// Adds an endpoint that is on record and was not part of this state so far, and its network where
    /// that was not either. The searches for free addresses go on where they were.
    ///
    /// # Errors
    /// It contradicts what is here; there is its network at most.
    pub fn recall(&mut self, network: NetworkRecord, endpoint: Endpoint) -> Result<(), Damage> {
        let name = network.network.name.clone();
        if !self.networks.contains_key(&name) {
            self.insert_network(network.network, network.up)?;
        }
        self.insert_endpoint(endpoint)?;
        if let Some(known) = self.networks.get_mut(&name) {
            known.set_cursors(&network.cursors);
        }
        Ok(())
    }

    pub(super) fn remove_endpoint(&mut self, id: &EndpointId) -> Result<(), Damage> {
        let Some(endpoint) = self.endpoints.remove(id) else {
            return Err(Damage::EndpointUnknown(id.clone()));
        };
        if let Some(known) = self.networks.get_mut(&id.network) {
            known.containers.remove(&id.container);
            known.macs.remove(&endpoint.mac);
            for address in &endpoint.addresses {
                if let Some(pool) = known.pool_of(address.addr()) {
                    pool.release(address.addr());
                }
            }
        }
        for binding in endpoint.host_ports() {
            self.ports.remove(binding);
        }
        if let Some(sandbox) = self.sandboxes.get_mut(&id.container) {
            sandbox.networks.retain(|network| *network != id.network);
            if sandbox.networks.is_empty() {
                self.netns.remove(&endpoint.netns);
                self.sandboxes.remove(&id.container);
            }
        }
        Ok(())
    }

    /// Replaces the ports of an endpoint by those of `changed`, which is the same otherwise. A
    /// contradiction leaves the state as it was.
    pub(super) fn change_ports(&mut self, changed: &Endpoint) -> Result<(), Damage> {
        let id = &changed.id;
        let Some(endpoint) = self.endpoints.get_mut(id) else {
            return Err(Damage::EndpointUnknown(id.clone()));
        };
        let before = core::mem::replace(endpoint, changed.clone());
        let same = Endpoint {
            ports: changed.ports.clone(),
            ..before.clone()
        };
        if same != *changed {
            *endpoint = before;
            return Err(Damage::EndpointOther(id.clone()));
        }
        for binding in before.host_ports() {
            self.ports.remove(binding);
        }
        if let Err(taken) = self.ports.insert_all(changed) {
            // They were there before.
            self.ports.insert_all(&before).ok();
            self.endpoints.insert(id.clone(), before);
            return Err(Damage::PortTwice(id.clone(), taken));
        }
        Ok(())
    }

    /// Keeps the addresses and ports of debris from being given to anybody.
    pub(super) fn hold_debris(&mut self) {
        for object in &self.debris {
            if let Object::Address(held) = object {
                for known in self.networks.values_mut() {
                    if let Some(pool) = known.pool_of(held.address.addr()) {
                        // One that an endpoint or a gateway has is held already.
                        pool.lease(held.address.addr()).ok();
                    }
                }
            }
            if let Object::Dnat(dnat) = object {
                self.ports.insert(&dnat.binding(), None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few words, so that they meet.
    fn binding() -> impl Strategy<Value = PortBinding> {
        let hosts = ["0.0.0.0", "127.0.0.1", "192.0.2.1", "::", "::1"];
        let hosts = hosts.map(|host| host.parse::<IpAddr>().unwrap());
        (
            prop::sample::select(hosts.to_vec()),
            80_u16..82,
            prop::sample::select([Protocol::Tcp, Protocol::Udp].to_vec()),
        )
            .prop_map(|(host_ip, host_port, protocol)| PortBinding {
                host_ip,
                host_port,
                container_port: 1,
                protocol,
            })
    }

    proptest! {
        #[test]
        fn a_port_is_taken_by_whoever_it_conflicts_with(
            steps in prop::collection::vec((binding(), prop::option::of("[a-c]")), 1..40),
        ) {
            let mut index = PortIndex::default();
            let mut taken: Vec<(PortBinding, EndpointId)> = Vec::new();
            for (binding, holder) in steps {
                let Some(holder) = holder else {
                    index.remove(&binding);
                    taken.retain(|(other, _)| *other != binding);
                    continue;
                };
                let (network, container) = ("n".parse().unwrap(), holder.parse().unwrap());
                let holder = EndpointId { network, container };
                let in_the_way = taken.iter().filter(|(other, _)| other.conflicts(&binding));
                let in_the_way: Vec<_> =
                    in_the_way.map(|(_, holder)| Holder::Endpoint(holder.clone())).collect();
                match index.conflict(&binding) {
                    Some(found) => prop_assert!(in_the_way.contains(&found)),
                    None => prop_assert!(in_the_way.is_empty()),
                }
                let free = in_the_way.is_empty();
                prop_assert_eq!(index.insert(&binding, Some(&Arc::new(holder.clone()))), free);
                if free {
                    taken.push((binding, holder));
                }
            }
        }
    }
}
