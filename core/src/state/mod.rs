//! State: which objects we want, and why.

mod adopt;
mod attach;
mod batch;
mod bindings;
mod create;
mod index;
mod passage;
mod publish;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use ipnet::IpNet;

use crate::snapshot::{Damage, NetworkRecord, Snapshot};
use crate::{
    Change, ContainerName, Endpoint, EndpointId, Entry, Facts, Family, Footprint, ForeignChain,
    Forwarding, Instance, Listener, Netns, Network, NetworkName, Ns, Object, OnFailure, Op,
    Outcome, Plan, PortBinding, Rejection, Request, Usage, Warning, diff, standing_on,
};
pub use attach::BRIDGE_PORTS_MAX;
pub use batch::BATCH_MAX;
use index::{NetworkState, PortIndex, Sandbox};
pub use publish::PORTS_MAX;

/// What one instance wants in the kernel: networks, endpoints, what an undo could not remove, and
/// the plan that was begun and not ended. It is the fold of its journal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct State {
    instance: Instance,
    networks: BTreeMap<NetworkName, NetworkState>,
    endpoints: BTreeMap<EndpointId, Endpoint>,
    passages: BTreeSet<ForeignChain>,
    debris: Footprint,
    pending: Option<Arc<Plan>>,
    // What follows is derived from the above, so that a request looks up only what it names.
    sandboxes: BTreeMap<ContainerName, Sandbox>,
    netns: BTreeMap<Netns, ContainerName>,
    ports: PortIndex,
}

impl State {
    /// Nothing wanted yet.
    #[must_use]
    pub fn new(instance: Instance) -> Self {
        Self {
            instance,
            networks: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            passages: BTreeSet::new(),
            debris: Footprint::new(),
            pending: None,
            sandboxes: BTreeMap::new(),
            netns: BTreeMap::new(),
            ports: PortIndex::default(),
        }
    }

    /// Takes up what [`snapshot`](Self::snapshot) put down.
    ///
    /// # Errors
    /// It contradicts itself; nothing is guessed at.
    pub fn restore(snapshot: Snapshot) -> Result<Self, Damage> {
        let mut state = Self::new(snapshot.instance);
        let mut searches = Vec::new();
        for NetworkRecord {
            network,
            up,
            cursors,
        } in snapshot.networks
        {
            searches.push((network.name.clone(), cursors));
            state.insert_network(network, up)?;
        }
        for endpoint in snapshot.endpoints {
            state.insert_endpoint(endpoint)?;
        }
        state.passages = snapshot.passages;
        state.debris = snapshot.debris;
        state.hold_debris();
        // Taking up the leases in order of name moved the searches; they go on where they were.
        for (name, cursors) in searches {
            if let Some(known) = state.networks.get_mut(&name) {
                known.set_cursors(&cursors);
            }
        }
        state.pending = snapshot.pending;
        Ok(state)
    }

    /// All of it that can't be derived.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            instance: self.instance,
            networks: self.networks.values().map(NetworkState::record).collect(),
            endpoints: self.endpoints.values().cloned().collect(),
            passages: self.passages.clone(),
            debris: self.debris.clone(),
            pending: self.pending.clone(),
        }
    }

    /// One network of the [`snapshot`](Self::snapshot).
    #[must_use]
    pub fn record(&self, name: &NetworkName) -> Option<NetworkRecord> {
        self.networks.get(name).map(NetworkState::record)
    }

    /// Whose state it is.
    #[must_use]
    pub fn instance(&self) -> Instance {
        self.instance
    }

    /// All networks, by name.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values().map(|known| &known.network)
    }

    /// The network of that name.
    #[must_use]
    pub fn network(&self, name: &NetworkName) -> Option<&Network> {
        self.networks.get(name).map(|known| &known.network)
    }

    /// How much of each of the network's subnets is leased.
    pub fn usage(&self, name: &NetworkName) -> impl Iterator<Item = Usage> {
        let known = self.networks.get(name).into_iter();
        let pools = known.flat_map(|known| known.network.subnets.iter().zip(&known.pools));
        pools.map(|(subnet, pool)| Usage {
            subnet: subnet.net,
            leased: pool.leased(),
            capacity: pool.capacity(),
        })
    }

    /// Whether the kernel has the network's objects; after a reboot it has not, until the first
    /// container joins.
    #[must_use]
    pub fn is_up(&self, name: &NetworkName) -> bool {
        self.networks.get(name).is_some_and(|known| known.up)
    }

    /// All endpoints, by network and container.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    /// All containers and their namespaces, by namespace, beginning behind that one, and at the end
    /// again with the first.
    pub fn sandboxes_after(&self, netns: &Netns) -> impl Iterator<Item = (&Netns, &ContainerName)> {
        let behind = (Bound::Excluded(netns), Bound::Unbounded);
        self.netns.range(behind).chain(self.netns.range(..=netns))
    }

    /// The endpoint of that id.
    #[must_use]
    pub fn endpoint(&self, id: &EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(id)
    }

    /// The endpoints of a network, by container.
    pub fn endpoints_of(&self, network: &NetworkName) -> impl Iterator<Item = &Endpoint> {
        let containers = self
            .networks
            .get(network)
            .into_iter()
            .flat_map(|n| n.containers.iter());
        let id = |container: &ContainerName| EndpointId {
            network: network.clone(),
            container: container.clone(),
        };
        containers.filter_map(move |container| self.endpoints.get(&id(container)))
    }

    /// The endpoints of a container, in the order it joined.
    pub fn joined(&self, container: &ContainerName) -> impl Iterator<Item = &Endpoint> {
        let networks = self
            .sandboxes
            .get(container)
            .into_iter()
            .flat_map(|s| &s.networks);
        let id = |network: &NetworkName| EndpointId {
            network: network.clone(),
            container: container.clone(),
        };
        networks.filter_map(move |network| self.endpoints.get(&id(network)))
    }

    /// The foreign chains that have a passage of ours.
    #[must_use]
    pub fn passages(&self) -> &BTreeSet<ForeignChain> {
        &self.passages
    }

    /// What an undo could not remove; its addresses and ports stay taken.
    #[must_use]
    pub fn debris(&self) -> &Footprint {
        &self.debris
    }

    /// Begun and not ended: resume it before anything else.
    #[must_use]
    pub fn pending(&self) -> Option<&Arc<Plan>> {
        self.pending.as_ref()
    }

    /// The namespaces that have something of ours.
    #[must_use]
    pub fn netns(&self) -> BTreeSet<Netns> {
        self.netns.keys().cloned().collect()
    }

    /// Whether planning this request needs to know the host's routes, links and settings.
    #[must_use]
    pub fn needs_facts(&self, request: &Request) -> bool {
        match request {
            Request::CreateNetwork(_) => true,
            Request::Attach(spec) => {
                self.networks.contains_key(&spec.network) && !self.is_up(&spec.network)
            }
            Request::RemoveNetwork(_)
            | Request::Detach(_)
            | Request::Publish { .. }
            | Request::Unpublish { .. } => false,
        }
    }

    /// What would have to be done.
    ///
    /// # Errors
    /// Why it can't be; nothing was touched.
    pub fn plan(&self, facts: &Facts, request: &Request) -> Result<Plan, Rejection> {
        if self.pending.is_some() {
            return Err(Rejection::Pending);
        }
        let plan = match request {
            Request::CreateNetwork(spec) => self.plan_create(facts, spec),
            Request::RemoveNetwork(name) => self.plan_remove(name),
            Request::Attach(spec) => self.plan_attach(facts, spec),
            Request::Detach(id) => self.plan_detach(facts, id),
            Request::Publish { id, ports } => self.plan_publish(facts, id, ports),
            Request::Unpublish { id, ports } => self.plan_unpublish(id, ports),
        }?;
        self.check_debris(&plan)?;
        Ok(plan)
    }

    /// [`plan`](Self::plan), around the programs of the host: `look` says which of them listen
    /// where the plan would publish a port. If they do, a named port is refused, and another free
    /// one is looked for. A request without ports looks at nothing.
    ///
    /// # Errors
    /// Why it can't be, or why `look` could not; nothing was touched.
    pub fn plan_around<E: From<Rejection>>(
        &self,
        facts: Facts,
        request: &Request,
        look: impl FnMut(&[PortBinding]) -> Result<Vec<Listener>, E>,
    ) -> Result<Plan, E> {
        around(facts, |facts| self.plan(facts, request), look)
    }

    /// The names and keys of debris stay taken, as its addresses and ports do: whoever took one
    /// that was free after all would lose it to the next sweep, which goes by name. So would
    /// whoever wants the very same thing again.
    fn check_debris(&self, plan: &Plan) -> Result<(), Rejection> {
        for op in &plan.ops {
            if let Op::Add(object) = op
                && self
                    .debris
                    .iter()
                    .any(|held| held == object || held.excludes(object))
            {
                return Err(Rejection::LeftOver(format!("{}", op.target())));
            }
        }
        Ok(())
    }

    /// The smallest plan from what the kernel shows to what is wanted, debris gone. A container
    /// whose namespace is gone wants nothing any more.
    #[must_use]
    pub fn repair(&self, facts: &Facts, observed: &Footprint) -> Plan {
        let ways = self.all_ways(facts);
        let passages = self.in_chains(ways.passages);
        let recorded = self.in_chains(self.passages.iter().cloned());
        let mut wanted = self.wanted(&facts.gone);
        wanted.retain(|object| !recorded.contains(object));
        wanted.extend(passages.iter().cloned());
        // A passage that the kernel has and the record has not, or the other way round, takes an op
        // that changes nothing: the record follows from ops.
        let mut from = observed.clone();
        from.retain(|object| recorded.contains(object) || !passages.contains(object));
        from.extend(recorded.difference(&passages).cloned());
        let mut ops = diff(&from, &wanted);
        ops.extend(forwarding(facts, self.networks_up().flat_map(leading_out)));
        Plan {
            change: Change::Repaired,
            on_failure: OnFailure::Continue,
            ops,
            warnings: ways.warnings.into_iter().collect(),
        }
    }

    /// One more try at what an undo could not remove; `None` when there is nothing.
    #[must_use]
    pub fn sweep(&self) -> Option<Plan> {
        if self.debris.is_empty() {
            return None;
        }
        let ops = diff(&self.debris, &Footprint::new());
        Some(Plan {
            change: Change::Repaired,
            on_failure: OnFailure::Continue,
            ops,
            warnings: Vec::new(),
        })
    }

    /// All objects that the kernel may hold because of us: what is wanted, and debris.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        let mut all = self.wanted(&BTreeSet::new());
        all.extend(self.debris.iter().cloned());
        all
    }

    fn wanted(&self, gone: &BTreeSet<Netns>) -> Footprint {
        let mut all = self.in_chains(self.passages.iter().cloned());
        for network in self.networks_up() {
            all.extend(network.objects(self.instance));
            all.insert(Object::Ruleset(self.instance));
        }
        let living = self
            .sandboxes
            .iter()
            .filter(|(_, sandbox)| !gone.contains(&sandbox.netns));
        for (container, _) in living {
            let endpoints: Vec<&Endpoint> = self.joined(container).collect();
            all.extend(self.objects_of(&endpoints));
        }
        all
    }

    /// What the endpoints of one container want: to each destination one route, by the network
    /// that it joined first, unless it has an address there.
    fn objects_of(&self, endpoints: &[&Endpoint]) -> Footprint {
        let addresses = endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        let mut taken: BTreeSet<IpNet> = addresses.map(IpNet::trunc).collect();
        let mut all = Footprint::new();
        for endpoint in endpoints {
            let Some(network) = self.network(&endpoint.id.network) else {
                continue;
            };
            // Those of the first are taken as they are.
            all.append(&mut endpoint.objects(self.instance, network));
            let routes = endpoint.routes(network).into_iter();
            let first = routes.filter(|route| taken.insert(route.destination));
            all.extend(first.map(Object::Route));
        }
        all
    }

    /// What a network needs to be up.
    fn raise(&self, facts: &Facts, network: &Network) -> Raised {
        let mut objects = network.objects(self.instance);
        if self.networks_up().next().is_none() {
            objects.insert(Object::Ruleset(self.instance));
        }
        let ways = self.more_ways(facts, network);
        objects.extend(self.in_chains(ways.passages));
        Raised {
            objects,
            forwarding: forwarding(facts, leading_out(network)),
            warnings: ways.warnings.into_iter().collect(),
        }
    }

    fn networks_up(&self) -> impl Iterator<Item = &Network> + Clone {
        let up = self.networks.values().filter(|known| known.up);
        up.map(|known| &known.network)
    }

    /// Takes in one line of the journal.
    ///
    /// # Errors
    /// The line does not follow from the ones before; the state is as it was.
    pub fn absorb(&mut self, entry: &Entry) -> Result<(), Damage> {
        match entry {
            Entry::Begin(_) if self.pending.is_some() => Err(Damage::BeginTwice),
            Entry::Begin(plan) => {
                self.pending = Some(Arc::clone(plan));
                Ok(())
            }
            Entry::End(outcome) => {
                let plan = self.pending.take().ok_or(Damage::EndWithoutBegin)?;
                let concluded = self.conclude(&plan, outcome);
                if concluded.is_err() {
                    self.pending = Some(plan);
                }
                concluded
            }
        }
    }

    fn conclude(&mut self, plan: &Plan, outcome: &Outcome) -> Result<(), Damage> {
        match outcome {
            Outcome::Committed => self.apply(plan),
            Outcome::RolledBack(_) => Ok(()),
            Outcome::Stranded { left, .. } => {
                let mut all = self.footprint();
                all.extend(plan.ops.iter().map(|op| op.object().clone()));
                let left = left.iter().cloned().collect();
                if outcome.makes_change(plan.on_failure) {
                    self.apply(plan)?;
                }
                let left = standing_on(&left, &all);
                let debris: Footprint = left
                    .difference(&self.wanted(&BTreeSet::new()))
                    .cloned()
                    .collect();
                self.debris.extend(debris);
                self.reindex()
            }
        }
    }

    fn apply(&mut self, plan: &Plan) -> Result<(), Damage> {
        self.apply_change(&plan.change)?;
        self.take_in_passages(&plan.ops);
        Ok(())
    }

    fn apply_change(&mut self, change: &Change) -> Result<(), Damage> {
        match change {
            Change::NetworkAdded(network) => {
                self.insert_network(network.clone(), true)?;
                self.hold_debris();
                Ok(())
            }
            Change::NetworkRemoved(name) => self.remove_network(name),
            Change::EndpointAdded(endpoint) => self.insert_endpoint(endpoint.clone()),
            Change::EndpointRemoved(id) => self.remove_endpoint(id),
            Change::EndpointChanged(endpoint) => self.change_ports(endpoint),
            Change::Several(changes) => self.apply_several(changes),
            Change::Repaired => {
                self.debris.clear();
                self.reindex()
            }
        }
    }

    /// Derives everything anew after debris came or went: rare, so it may cost what it costs.
    fn reindex(&mut self) -> Result<(), Damage> {
        *self = Self::restore(self.snapshot())?;
        Ok(())
    }
}

/// Plans as long as `look` finds programs of the host that nobody knew of where the plan would
/// publish a port.
fn around<E: From<Rejection>>(
    mut facts: Facts,
    mut plan: impl FnMut(&Facts) -> Result<Plan, Rejection>,
    mut look: impl FnMut(&[PortBinding]) -> Result<Vec<Listener>, E>,
) -> Result<Plan, E> {
    loop {
        let plan = plan(&facts)?;
        let wanted = plan.publishes();
        if wanted.is_empty() {
            return Ok(plan);
        }
        let mut found = look(&wanted)?;
        // Each round knows more than the last, so there is an end.
        found.retain(|listener| !facts.listeners.contains(listener));
        if found.is_empty() {
            return Ok(plan);
        }
        facts.listeners.extend(found);
    }
}

/// Keeps the ops that can land: nothing can be added to a namespace that is gone, such as the default
/// route that another network would take over.
fn landing(ops: &mut Vec<Op>, facts: &Facts) {
    ops.retain(|op| match (op, op.object().ns()) {
        (Op::Add(_), Ns::Sandbox(netns)) => !facts.gone.contains(netns),
        (Op::Add(_), Ns::Host) | (Op::Del(_), _) => true,
    });
}

/// What a network needs to be up: its own objects, the ruleset with the first, passages through
/// foreign firewalls that have none yet, forwarding if the host does none yet.
#[derive(Default)]
struct Raised {
    objects: Footprint,
    forwarding: Vec<Op>,
    warnings: Vec<Warning>,
}

/// The families that a network leads out of.
fn leading_out(network: &Network) -> impl Iterator<Item = Family> + '_ {
    network
        .families()
        .filter(|family| network.way_out(*family).is_some())
}

/// Turns forwarding on for families that the host does not forward yet.
fn forwarding(facts: &Facts, families: impl Iterator<Item = Family>) -> Vec<Op> {
    let missing: BTreeSet<Family> = families.filter(|f| !facts.forwarding.contains(f)).collect();
    let turn_on = |family| Op::Add(Object::Forwarding(Forwarding { family }));
    missing.into_iter().map(turn_on).collect()
}
