//! Endpoints whose container is gone: how their addresses and ports come back.

use mydocker_core::{Endpoint, EndpointId, Executor, Facts, Plan, Request, State, Transaction};

use super::{Memory, run};

/// Endpoints that one command looks at, beyond those in its way: some 3 µs each, which an attach has
/// to spare. Whoever is dead among more is found by a later command, or once in the way.
pub(super) const LOOKS_MAX: usize = 8;

/// The endpoints whose namespaces are gone, of at most `looks`: those that follow the one that the
/// request names, so that commands about others look at others. What a request is itself to take
/// away or change is its own business.
pub(super) fn find(
    executor: &mut impl Executor,
    state: &State,
    request: &Request,
    looks: usize,
) -> Vec<EndpointId> {
    let is_dead = |endpoint: &&Endpoint| !executor.is_alive(&endpoint.netns);
    let ids = |dead: &mut dyn Iterator<Item = &Endpoint>| dead.map(|e| e.id.clone()).collect();
    match request {
        Request::CreateNetwork(_) => ids(&mut state.endpoints().take(looks).filter(is_dead)),
        Request::RemoveNetwork(name) => {
            ids(&mut state.endpoints_of(name).take(looks).filter(is_dead))
        }
        Request::Attach(spec) => {
            ids(&mut state.endpoints_from(&spec.id()).take(looks).filter(is_dead))
        }
        Request::Detach(id) | Request::Publish { id, .. } | Request::Unpublish { id, .. } => {
            let others = state.endpoints_from(id).filter(|other| other.id != *id);
            ids(&mut others.take(looks).filter(is_dead))
        }
    }
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
