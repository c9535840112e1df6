//! Endpoints whose container is gone: how their addresses and ports come back.

use std::collections::BTreeSet;

use mydocker_core::{
    BATCH_MAX, Endpoint, EndpointId, Executor, Facts, Plan, Request, State, Transaction,
};

use super::{Memory, run};

/// Namespaces that one command looks at, beyond those in its way: some 3 µs each, which an attach has
/// to spare. Whoever is dead among more is found by a later command, or once in the way.
pub(super) const LOOKS_MAX: usize = 8;

/// The endpoints whose namespaces are gone, of at most `looks`: those that follow the one that the first
/// request is about, so that commands about others look at others. What the requests are themselves to
/// take away or change is their own business.
pub(super) fn find<M: Memory>(
    executor: &mut impl Executor,
    memory: &mut M,
    requests: &[Request],
    looks: usize,
) -> Result<Vec<EndpointId>, M::Error> {
    let own: BTreeSet<&EndpointId> = requests.iter().filter_map(changed).collect();
    let mut found = BTreeSet::new();
    let mut anchor = None;
    for request in requests {
        let state = memory.state();
        let listed: &mut dyn Iterator<Item = &Endpoint> = match request {
            Request::CreateNetwork(_) => &mut state.endpoints(),
            Request::RemoveNetwork(name) => &mut state.endpoints_of(name),
            Request::Attach(spec) => {
                anchor.get_or_insert_with(|| spec.netns.clone());
                continue;
            }
            Request::Detach(id) | Request::Publish { id, .. } | Request::Unpublish { id, .. } => {
                let endpoint = state.endpoint(id);
                anchor = anchor.or_else(|| endpoint.map(|endpoint| endpoint.netns.clone()));
                continue;
            }
        };
        let others = listed.filter(|endpoint| !own.contains(&endpoint.id));
        let dead = others.take(looks).filter(|e| !executor.is_alive(&e.netns));
        found.extend(dead.map(|endpoint| endpoint.id.clone()));
    }
    let Some(netns) = anchor else {
        return Ok(found.into_iter().collect());
    };
    let mut dead = memory.sandboxes_after(&netns, looks)?;
    dead.retain(|(netns, _)| !executor.is_alive(netns));
    for (_, container) in dead {
        memory.recall(&container)?;
        let joined = memory.state().joined(&container);
        let others = joined.filter(|endpoint| !own.contains(&endpoint.id));
        found.extend(others.map(|endpoint| endpoint.id.clone()));
    }
    Ok(found.into_iter().collect())
}

/// The endpoint that a request takes away or changes.
fn changed(request: &Request) -> Option<&EndpointId> {
    match request {
        Request::Detach(id) | Request::Publish { id, .. } | Request::Unpublish { id, .. } => {
            Some(id)
        }
        Request::CreateNetwork(_) | Request::RemoveNetwork(_) | Request::Attach(_) => None,
    }
}

/// All endpoints whose namespaces are gone.
pub(super) fn find_all(executor: &mut impl Executor, state: &State) -> Vec<EndpointId> {
    let all = state.endpoints();
    let dead = all.filter(|endpoint| !executor.is_alive(&endpoint.netns));
    dead.map(|endpoint| endpoint.id.clone()).collect()
}

/// Detaches them. What was done: one plan, or none.
pub(super) fn bury<M: Memory>(
    executor: &mut impl Executor,
    memory: &mut M,
    dead: Vec<EndpointId>,
) -> Result<Vec<Plan>, M::Error> {
    let mut plans = Vec::new();
    for dead in dead.chunks(BATCH_MAX) {
        let gone = dead.iter().filter_map(|id| memory.state().endpoint(id));
        let facts = Facts {
            gone: gone.map(|endpoint| endpoint.netns.clone()).collect(),
            ..Facts::default()
        };
        let requests: Vec<Request> = dead.iter().cloned().map(Request::Detach).collect();
        // Nobody else has the lock: they are there, and nothing keeps them.
        let Ok(plan) = memory.state_mut().plan_batch(&facts, &requests) else {
            continue;
        };
        run(&mut Transaction::begin(plan.clone()), executor, memory)?;
        plans.push(plan);
    }
    Ok(plans)
}
