//! Several requests as one: each planned as if those before it had been carried out, and all of them
//! done together or not at all.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;

use super::create::at_most;
use super::index::NetworkState;
use super::{around, landing};
use crate::plan::{diff, diff_step_by_step};
use crate::snapshot::Damage;
use crate::{
    Change, ContainerName, Endpoint, Facts, Footprint, ForeignChain, Listener, NetworkName, Object,
    OnFailure, Op, Plan, PortBinding, Rejection, Request, State, Warning,
};

/// Requests of one batch: what the history says of one stays a line that can be read.
pub const BATCH_MAX: usize = 4096;

impl State {
    /// One plan for all of `requests`, each as if those before it had been carried out. What they want
    /// together is subtracted from what they have: an op that a later request takes back is none, and
    /// ops of a kind stay together whichever requests they come from. All or nothing, if one of them
    /// adds something.
    ///
    /// Plans on the state itself, which is as before when this returns: a copy would cost as much as
    /// there is, and not as much as is asked for.
    ///
    /// # Errors
    /// Which of them can't be carried out, and why; nothing was touched.
    pub fn plan_batch(&mut self, facts: &Facts, requests: &[Request]) -> Result<Plan, Rejection> {
        at_most("requests at once", requests.len(), BATCH_MAX)?;
        if self.pending.is_some() {
            return Err(Rejection::Pending);
        }
        let named = Named::by(requests);
        let trail = Trail::of(self, named.networks.iter().copied());
        let before = self.footprint_of(&named);
        let mut draft = Draft::default();
        let mut way = Vec::new();
        let drafted = requests.iter().enumerate().try_for_each(|(at, request)| {
            self.draft(facts, request, &mut draft, &mut way)
                .map_err(|why| Rejection::InBatch {
                    at,
                    why: Box::new(why),
                })
        });
        let after = self.footprint_of(&named);
        trail.back(self, way);
        drafted?;
        Ok(draft.plan(facts, &before, &after))
    }

    /// What takes everybody off a network and then removes it, to be planned as a batch; nothing if there
    /// is no such network.
    #[must_use]
    pub fn removal(&self, name: &NetworkName) -> Vec<Request> {
        let endpoints = self.endpoints_of(name).map(|endpoint| endpoint.id.clone());
        let network = self.network(name).map(|network| network.name.clone());
        let detach = endpoints.map(Request::Detach);
        detach.chain(network.map(Request::RemoveNetwork)).collect()
    }

    /// [`plan_batch`](Self::plan_batch) around the programs of the host, as
    /// [`plan_around`](Self::plan_around) is for one request.
    ///
    /// # Errors
    /// Why it can't be, or why `look` could not; nothing was touched.
    pub fn plan_batch_around<E: From<Rejection>>(
        &mut self,
        facts: Facts,
        requests: &[Request],
        look: impl FnMut(&[PortBinding]) -> Result<Vec<Listener>, E>,
    ) -> Result<Plan, E> {
        around(facts, |facts| self.plan_batch(facts, requests), look)
    }

    /// Plans a request and takes its change in.
    fn draft(
        &mut self,
        facts: &Facts,
        request: &Request,
        draft: &mut Draft,
        way: &mut Vec<Change>,
    ) -> Result<(), Rejection> {
        let plan = self.plan(facts, request)?;
        self.step(&plan.change, way)
            .expect("a plan follows from the state that it was made for");
        self.take_in_passages(&plan.ops);
        draft.take_in(plan);
        Ok(())
    }

    /// Makes each of the changes, or none.
    pub(super) fn apply_several(&mut self, changes: &[Change]) -> Result<(), Damage> {
        let trail = Trail::of(self, changes.iter().filter_map(Change::network));
        let mut way = Vec::new();
        let made = changes
            .iter()
            .try_for_each(|change| self.step(change, &mut way));
        if made.is_err() {
            trail.back(self, way);
        }
        made
    }

    /// Makes a change, and notes what takes it back.
    fn step(&mut self, change: &Change, way: &mut Vec<Change>) -> Result<(), Damage> {
        let opposite = self.opposite(change)?;
        self.apply_change(change)?;
        way.push(opposite);
        Ok(())
    }

    /// The change that takes another one back once it is made.
    fn opposite(&self, change: &Change) -> Result<Change, Damage> {
        let known = |id| {
            let endpoint = self.endpoint(id).cloned();
            endpoint.ok_or_else(|| Damage::EndpointUnknown(id.clone()))
        };
        Ok(match change {
            Change::NetworkAdded(network) => Change::NetworkRemoved(network.name.clone()),
            Change::NetworkRemoved(name) => match self.network(name) {
                Some(network) => Change::NetworkAdded(network.clone()),
                None => return Err(Damage::NetworkUnknown(name.clone())),
            },
            Change::EndpointAdded(endpoint) => Change::EndpointRemoved(endpoint.id.clone()),
            Change::EndpointRemoved(id) => Change::EndpointAdded(known(id)?),
            Change::EndpointChanged(endpoint) => Change::EndpointChanged(known(&endpoint.id)?),
            Change::Several(_) | Change::Repaired => return Err(Damage::NotOfSeveral),
        })
    }

    /// What is wanted, as far as these requests can change it.
    fn footprint_of(&self, named: &Named) -> Footprint {
        let mut all = self.in_chains(self.passages.iter().cloned());
        if self.networks_up().next().is_some() {
            all.insert(Object::Ruleset(self.instance));
        }
        let networks = named.networks.iter();
        let up = networks.filter_map(|name| self.networks.get(name).filter(|known| known.up));
        all.extend(up.flat_map(|known| known.network.objects(self.instance)));
        for container in &named.containers {
            let joined: Vec<&Endpoint> = self.joined(container).collect();
            all.extend(self.objects_of(&joined));
        }
        all
    }
}

/// Whom requests speak of.
#[derive(Default)]
struct Named<'r> {
    networks: BTreeSet<&'r NetworkName>,
    containers: BTreeSet<&'r ContainerName>,
}

impl<'r> Named<'r> {
    fn by(requests: &'r [Request]) -> Self {
        let mut named = Self::default();
        for request in requests {
            let (network, container) = match request {
                Request::CreateNetwork(spec) => (&spec.name, None),
                Request::RemoveNetwork(name) => (name, None),
                Request::Attach(spec) => (&spec.network, Some(&spec.container)),
                Request::Detach(id)
                | Request::Publish { id, .. }
                | Request::Unpublish { id, .. } => (&id.network, Some(&id.container)),
            };
            named.networks.insert(network);
            named.containers.extend(container);
        }
        named
    }
}

/// What the plans of a batch come to.
#[derive(Default)]
struct Draft {
    changes: Vec<Change>,
    forwarding: Vec<Op>,
    warnings: BTreeSet<Warning>,
    adds: bool,
}

impl Draft {
    fn take_in(&mut self, plan: Plan) {
        self.changes.push(plan.change);
        self.warnings.extend(plan.warnings);
        self.adds |= plan.on_failure == OnFailure::Undo;
        for op in plan.ops {
            if matches!(op, Op::Add(Object::Forwarding(_))) && !self.forwarding.contains(&op) {
                self.forwarding.push(op);
            }
        }
    }

    fn plan(self, facts: &Facts, before: &Footprint, after: &Footprint) -> Plan {
        let (on_failure, mut ops) = if self.adds {
            (OnFailure::Undo, diff_step_by_step(before, after))
        } else {
            (OnFailure::Continue, diff(before, after))
        };
        landing(&mut ops, facts);
        ops.extend(self.forwarding);
        Plan {
            change: Change::Several(self.changes),
            on_failure,
            ops,
            warnings: self.warnings.into_iter().collect(),
        }
    }
}

/// Where a state was before some changes to it: what no change speaks of.
struct Trail {
    networks: BTreeMap<NetworkName, (bool, Vec<IpAddr>)>,
    passages: BTreeSet<ForeignChain>,
}

impl Trail {
    fn of<'n>(state: &State, networks: impl Iterator<Item = &'n NetworkName>) -> Self {
        let there = networks.filter_map(|name| {
            let record = state.networks.get(name).map(NetworkState::record)?;
            Some((name.clone(), (record.up, record.cursors)))
        });
        Self {
            networks: there.collect(),
            passages: state.passages.clone(),
        }
    }

    /// Takes the state back there, `way` being the opposites of the changes since.
    fn back(self, state: &mut State, way: Vec<Change>) {
        for change in way.into_iter().rev() {
            state
                .apply_change(&change)
                .expect("what was just done can be taken back");
        }
        for (name, (up, cursors)) in self.networks {
            if let Some(known) = state.networks.get_mut(&name) {
                known.up = up;
                known.set_cursors(&cursors);
            }
        }
        state.passages = self.passages;
    }
}
