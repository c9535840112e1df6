//! Endpoints whose container is gone: how their addresses and ports come back.

use mydocker_core::{Endpoint, EndpointId, Executor, Facts, Plan, Request, State, Transaction};

use super::{Memory, run};

/// Namespaces that one command looks at, beyond those in its way: some 3 µs each, which an attach has
/// to spare. Whoever is dead among more is found by a later command, or once in the way.
pub(super) const LOOKS_MAX: usize = 8;

/// The endpoints whose namespaces are gone, of at most `looks`: those that follow the one that the
/// request is about, so that commands about others look at others. What a request is itself to take
/// away or change is its own business.
pub(super) fn find<M: Memory>(
    executor: &mut impl Executor,
    memory: &mut M,
    request: &Request,
    looks: usize,
) -> Result<Vec<EndpointId>, M::Error> {
    let state = memory.state();
    let is_dead = |endpoint: &&Endpoint| !executor.is_alive(&endpoint.netns);
    let ids = |dead: &mut dyn Iterator<Item = &Endpoint>| dead.map(|e| e.id.clone()).collect();
    let (netns, own) = match request {
        Request::CreateNetwork(_) => {
            return Ok(ids(&mut state.endpoints().take(looks).filter(is_dead)));
        }
        Request::RemoveNetwork(name) => {
            return Ok(ids(&mut state
                .endpoints_of(name)
                .take(looks)
                .filter(is_dead)));
        }
        Request::Attach(spec) => (spec.netns.clone(), None),
        Request::Detach(id) | Request::Publish { id, .. } | Request::Unpublish { id, .. } => {
            match state.endpoint(id) {
                Some(endpoint) => (endpoint.netns.clone(), Some(id)),
                None => return Ok(Vec::new()),
            }
        }
    };
    let mut dead = memory.sandboxes_after(&netns, looks)?;
    dead.retain(|(netns, _)| !executor.is_alive(netns));
    let mut found = Vec::new();
    for (_, container) in dead {
        memory.recall(&container)?;
        let joined = memory.state().joined(&container);
        let others = joined.filter(|endpoint| Some(&endpoint.id) != own);
        found.extend(others.map(|endpoint| endpoint.id.clone()));
    }
    Ok(found)
}

/// All endpoints whose namespaces are gone.
pub(super) fn find_all(executor: &mut impl Executor, state: &State) -> Vec<EndpointId> {
    let all = state.endpoints();
    let dead = all.filter(|endpoint| !executor.is_alive(&endpoint.netns));
    dead.map(|endpoint| endpoint.id.clone()).collect()
}

/// Detaches them. What was done, a plan for each.
pub(super) fn bury<M: Memory>(
    executor: &mut impl Executor,
    memory: &mut M,
    dead: Vec<EndpointId>,
) -> Result<Vec<Plan>, M::Error> {
    let mut plans = Vec::new();
    for id in dead {
        let state = memory.state();
        let gone = state.endpoint(&id).map(|endpoint| endpoint.netns.clone());
        let facts = Facts {
            gone: gone.into_iter().collect(),
            ..Facts::default()
        };
        // Nobody else has the lock: it is there, and nothing keeps it.
        let Ok(plan) = state.plan(&facts, &Request::Detach(id)) else {
            continue;
        };
        run(&mut Transaction::begin(plan.clone()), executor, memory)?;
        plans.push(plan);
    }
    Ok(plans)
}
