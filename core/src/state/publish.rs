//! Planning changes of published ports, while the container runs.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::create::at_most;
use crate::{
    Change, Endpoint, EndpointId, Facts, Network, OnFailure, Plan, PortBinding, PortSpec, Protocol,
    Rejection, State, diff,
};

/// Published ports of one endpoint: every port of every protocol, twice over.
pub const PORTS_MAX: usize = 1 << 18;

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
        let leading_to = by_container_port(endpoint);
        let mut going: BTreeSet<&PortBinding> = BTreeSet::new();
        for port in ports {
            let all = leading_to.get(&(port.protocol, port.container_port));
            let (pinholes, host): (Vec<_>, Vec<_>) = all
                .into_iter()
                .flatten()
                .copied()
                .partition(|binding| endpoint.is_pinhole(binding));
            let leads = !host.is_empty();
            let named: Vec<_> = host.into_iter().filter(|b| port.matches(b)).collect();
            // A pinhole has no port of the host to be named by, unless others lead there, too.
            let means_pinholes = port.host_ip.is_none() && !(named.is_empty() && leads);
            if named.is_empty() && (pinholes.is_empty() || !means_pinholes) {
                let (port, id) = (port.clone(), id.clone());
                return Err(Rejection::PortUnknown { port, id });
            }
            going.extend(named);
            going.extend(pinholes.into_iter().filter(|_| means_pinholes));
        }
        // A pinhole goes when it is named by its own port, or with the last port of the host that
        // leads there.
        let alone = ports.iter().filter(|port| port.host_port.is_none());
        let alone: BTreeSet<_> = alone.map(|p| (p.protocol, p.container_port)).collect();
        let stays = |binding: &PortBinding| {
            let key = (binding.protocol, binding.container_port);
            let leads = |b: &&PortBinding| !endpoint.is_pinhole(b) && !going.contains(*b);
            let others = leading_to.get(&key).into_iter().flatten();
            endpoint.is_pinhole(binding)
                && !alone.contains(&key)
                && others.copied().any(|b| leads(&b))
        };
        let mut changed = endpoint.clone();
        changed
            .ports
            .retain(|binding| !going.contains(binding) || stays(binding));
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
            warnings: Vec::new(),
        }
    }
}

/// The ports of an endpoint by where they lead: to go through all for each of a long range would
/// take forever.
fn by_container_port(endpoint: &Endpoint) -> BTreeMap<(Protocol, u16), Vec<&PortBinding>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for binding in &endpoint.ports {
        let key = (binding.protocol, binding.container_port);
        all.entry(key).or_default().push(binding);
    }
    all
}
