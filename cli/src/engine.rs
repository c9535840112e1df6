//! Engine: a store and an executor, and one transaction at a time between them.

mod dead;
mod dry_run;
mod error;
pub(crate) mod mind;
mod rebuild;
#[cfg(test)]
mod tests;

pub use error::EngineError;
pub use rebuild::Rebuilt;

use std::collections::BTreeSet;
use std::slice;
use std::sync::Arc;

use mydocker_core::{
    Change, ContainerName, Drift, EndpointId, Entry, ErrorKind, Executor, Facts, Failure,
    Footprint, Listener, Netns, Object, OnFailure, Op, OpError, Outcome, Plan, PortBinding,
    Protocol, Recorder, Rejection, Request, State, Step, Transaction, drive,
};

use crate::store::{Access, Options, Roots, Store, StoreError};
use mind::{Mind, Willing};

/// Carries out requests. The lock is held for the time of one call, and each call reads the
/// state anew: others may have changed it since.
#[derive(Debug)]
pub struct Engine<X> {
    roots: Roots,
    options: Options,
    executor: X,
}

/// A request that was carried out.
#[derive(Debug)]
pub struct Done {
    /// What was done.
    pub plan: Plan,
    /// How it ended: [`Outcome::Committed`].
    pub outcome: Outcome,
    /// How it ended with what earlier commands had left to do, oldest first.
    pub recovered: Vec<Outcome>,
    /// What was taken from containers that are gone before anything else was done.
    pub buried: Vec<Plan>,
    /// Why the history misses some of it; nothing else depends on that.
    pub forgotten: Option<StoreError>,
}

/// The state at one moment, and the definitions that could not be read.
#[derive(Debug)]
pub struct View {
    /// What is wanted.
    pub state: State,
    /// Why some networks are missing from it.
    pub damaged: Vec<StoreError>,
}

/// What is not as it should be.
#[derive(Debug)]
pub struct Check {
    /// In the kernel.
    pub drift: Vec<Drift>,
    /// On disk: definitions that can't be used, or the run state, without which there is no drift.
    pub damaged: Vec<StoreError>,
    /// A process died before it had done this: the next command that changes something finishes it or
    /// takes it back. Until then it is part of the drift.
    pub interrupted: Option<Change>,
}

impl View {
    fn of(roots: &Roots, options: &Options) -> Result<Self, EngineError> {
        let store = Store::open_with(roots, Access::Read, options)?;
        let (state, damaged) = store.into_parts();
        Ok(Self { state, damaged })
    }
}

impl<X: Executor> Engine<X> {
    /// An engine on the store below `roots`, whose ops go to `executor`. Opens nothing yet.
    pub fn open(roots: Roots, executor: X) -> Self {
        Self::with_options(roots, Options::default(), executor)
    }

    /// [`open`](Self::open), with other options for the store.
    pub fn with_options(roots: Roots, options: Options, executor: X) -> Self {
        Self {
            roots,
            options,
            executor,
        }
    }

    /// The executor, when nothing is left to be done.
    pub fn into_executor(self) -> X {
        self.executor
    }

    /// The executor.
    pub fn executor(&mut self) -> &mut X {
        &mut self.executor
    }

    /// Carries out a request, after whatever a dead process left to be done. Endpoints whose container
    /// is gone are detached first, as far as it takes a few looks, or if the request is refused.
    ///
    /// # Errors
    /// It was not carried out; [`EngineError::exit_code`] says what the kernel holds.
    pub fn apply(&mut self, request: &Request) -> Result<Done, EngineError> {
        self.apply_batch(slice::from_ref(request))
    }

    /// [`apply`](Self::apply) for several requests in one transaction, each as if those before it had
    /// been carried out: see [`State::plan_batch`].
    ///
    /// # Errors
    /// They were not carried out, or not all of those that remove something;
    /// [`EngineError::exit_code`] says what the kernel holds.
    pub fn apply_batch(&mut self, requests: &[Request]) -> Result<Done, EngineError> {
        let store = Store::open_for(&self.roots, requests, &self.options)?;
        let (store, recovered) = self.recover(store)?;
        self.apply_to(store, recovered, requests)
    }

    /// [`apply_batch`](Self::apply_batch) for what somebody asks who has seen the state, and changes
    /// nothing of the kernel. If that is nothing, nothing is done.
    ///
    /// # Errors
    /// The same.
    pub fn apply_with(
        &mut self,
        ask: impl FnOnce(&mut X, &State) -> Vec<Request>,
    ) -> Result<Done, EngineError> {
        let (store, recovered) = self.begin()?;
        let requests = ask(&mut self.executor, store.state());
        self.apply_to(store, recovered, &requests)
    }

    fn apply_to(
        &mut self,
        mut store: Store,
        recovered: Vec<Outcome>,
        requests: &[Request],
    ) -> Result<Done, EngineError> {
        let (buried, plan) = self.plan_past_dead(
            &mut store,
            requests,
            |engine, store, dead| engine.bury(store, dead),
            |engine, store| engine.plan_past_rivals(store, requests),
        )?;
        self.finish(&mut store, plan, recovered, buried)
    }

    /// Detaches endpoints whose container is gone, and then plans; and if the requests are refused,
    /// perhaps because of somebody who is no more, looks at all of them and plans again.
    fn plan_past_dead<M: Memory>(
        &mut self,
        memory: &mut M,
        requests: &[Request],
        bury: impl Fn(&mut Self, &mut M, Vec<EndpointId>) -> Result<Vec<Plan>, EngineError>,
        plan: impl Fn(&mut Self, &mut M) -> Result<Plan, EngineError>,
    ) -> Result<(Vec<Plan>, Plan), EngineError>
    where
        EngineError: From<M::Error>,
    {
        let dead = dead::find(&mut self.executor, memory, requests, dead::LOOKS_MAX)?;
        let mut buried = bury(self, memory, dead)?;
        match plan(self, memory) {
            Err(EngineError::Rejected(_)) => {
                memory.complete()?;
                let dead = dead::find(&mut self.executor, memory, requests, usize::MAX)?;
                buried.extend(bury(self, memory, dead)?);
                // Refused again, perhaps, and with all the reasons known.
                Ok((buried, plan(self, memory)?))
            }
            planned => Ok((buried, planned?)),
        }
    }

    /// Plans with what is known of the state, and anew for as long as that gets in the way of somebody
    /// who was not known.
    fn plan_past_rivals(
        &mut self,
        store: &mut Store,
        requests: &[Request],
    ) -> Result<Plan, EngineError> {
        let mut rounds = 0;
        loop {
            let plan = self.plan_now(store.state_mut(), requests)?;
            if !store.recall_rivals(&plan)? {
                return Ok(plan);
            }
            rounds += 1;
            if rounds == RIVALS_ROUNDS_MAX {
                store.complete()?;
            }
        }
    }

    fn plan_now(&mut self, state: &mut State, requests: &[Request]) -> Result<Plan, EngineError> {
        for netns in requests
            .iter()
            .filter_map(|request| entered(state, request))
        {
            if !self.executor.is_alive(netns) {
                return Err(EngineError::NoNamespace(netns.clone()));
            }
        }
        let facts = self.facts(state, requests)?;
        let look = |wanted: &[_]| self.executor.listeners(wanted).map_err(EngineError::Host);
        let plan = plan_together(state, facts, requests, look)?;
        self.check_protocols(&plan)?;
        Ok(plan)
    }

    fn bury(&mut self, store: &mut Store, dead: Vec<EndpointId>) -> Result<Vec<Plan>, EngineError> {
        dead::bury(&mut self.executor, store, dead)
            .map_err(|error| EngineError::Interrupted { error, again: None })
    }

    /// Finishes or takes back what a dead process left to be done, as every change does first.
    ///
    /// # Errors
    /// It could not be.
    pub fn settle(&mut self) -> Result<Vec<Outcome>, EngineError> {
        Ok(self.begin()?.1)
    }

    /// Makes the kernel hold what the state wants, which is nothing any more for containers that are
    /// gone.
    ///
    /// # Errors
    /// It does not, or not all of it; [`EngineError::exit_code`] says what it holds.
    pub fn repair(&mut self) -> Result<Done, EngineError> {
        let (store, recovered) = self.begin()?;
        self.repair_store(store, recovered)
    }

    fn repair_store(
        &mut self,
        mut store: Store,
        recovered: Vec<Outcome>,
    ) -> Result<Done, EngineError> {
        let dead = dead::find_all(&mut self.executor, store.state());
        let buried = self.bury(&mut store, dead)?;
        let plan = repair_plan(&mut self.executor, store.state())?;
        self.finish(&mut store, plan, recovered, buried)
    }

    /// How the kernel differs from what the state wants, and which files can't be used; where the run
    /// state is one of them, nobody knows what is wanted. Changes nothing.
    ///
    /// # Errors
    /// The state or the kernel could not be read.
    pub fn check(&mut self) -> Result<Check, EngineError> {
        let (store, damage) = Store::open_damaged(&self.roots, Access::Read, &self.options)?;
        let mut damaged = Store::examine(&self.roots)?;
        if let Some(damage) = damage {
            damaged.insert(0, damage);
            return Ok(Check {
                drift: Vec::new(),
                damaged,
                interrupted: None,
            });
        }
        let mut mind = Mind::of(store.state().clone());
        let interrupted = mind.state.pending().map(|plan| plan.change.clone());
        recover(&mut Willing, &mut mind)?;
        let (facts, observed) = look(&mut self.executor, &mind.state)?;
        // Until here nobody made the kernel differ from what had been read.
        drop(store);
        let drift = mind.state.drift(&facts, &observed);
        Ok(Check {
            drift,
            damaged,
            interrupted,
        })
    }

    /// The state as it is now. Makes no file, and waits for a writer to end.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn view(&self) -> Result<View, EngineError> {
        View::of(&self.roots, &self.options)
    }

    /// [`view`](Self::view), for those who have no executor.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn look(roots: &Roots) -> Result<View, EngineError> {
        View::of(roots, &Options::default())
    }

    fn begin(&mut self) -> Result<(Store, Vec<Outcome>), EngineError> {
        let store = Store::open_with(&self.roots, Access::Write, &self.options)?;
        self.recover(store)
    }

    fn recover(&mut self, mut store: Store) -> Result<(Store, Vec<Outcome>), EngineError> {
        let recovered = recover(&mut self.executor, &mut store)
            .map_err(|error| EngineError::Interrupted { error, again: None })?;
        Ok((store, recovered))
    }

    fn facts(&mut self, state: &State, requests: &[Request]) -> Result<Facts, EngineError> {
        self.executor.attend(state);
        let mut facts = match requests.iter().any(|request| state.needs_facts(request)) {
            true => self.executor.facts().map_err(EngineError::Host)?,
            false => Facts::default(),
        };
        for request in requests {
            if let Request::Detach(id) = request
                && let Some(endpoint) = state.endpoint(id)
                && !self.executor.is_alive(&endpoint.netns)
            {
                facts.gone.insert(endpoint.netns.clone());
            }
        }
        Ok(facts)
    }

    /// That the kernel can translate what the plan publishes.
    fn check_protocols(&mut self, plan: &Plan) -> Result<(), EngineError> {
        let published: BTreeSet<Protocol> = plan.ops.iter().filter_map(published).collect();
        for protocol in published {
            if let Some(what) = self.executor.lacks(protocol) {
                return Err(EngineError::Unsupported(protocol, what));
            }
        }
        Ok(())
    }

    fn finish(
        &mut self,
        store: &mut Store,
        plan: Plan,
        recovered: Vec<Outcome>,
        buried: Vec<Plan>,
    ) -> Result<Done, EngineError> {
        let plan = Arc::new(plan);
        let outcome = match plan.is_nothing() {
            true => Outcome::Committed,
            false => self.carry_out(store, Arc::clone(&plan))?,
        };
        match outcome {
            Outcome::Committed => Ok(Done {
                // Nobody else is left who has it.
                plan: Arc::unwrap_or_clone(plan),
                outcome,
                recovered,
                buried,
                forgotten: store.forgotten(),
            }),
            Outcome::RolledBack(failure) => Err(EngineError::RolledBack(failure.into())),
            Outcome::Stranded { cause, left } => {
                let cause = cause.into();
                Err(EngineError::Stranded { cause, left })
            }
        }
    }

    /// Drives a plan to its end. When its end can't be recorded, what was done would be taken
    /// back by the next command; better now, while somebody is told.
    fn carry_out(&mut self, store: &mut Store, plan: Arc<Plan>) -> Result<Outcome, EngineError> {
        let on_failure = plan.on_failure;
        let mut transaction = Transaction::begin(plan);
        let error = match run(&mut transaction, &mut self.executor, store) {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error,
        };
        if let Step::Record(Entry::Begin(_)) = transaction.poll() {
            return Err(EngineError::Store(error));
        }
        let resumed = store
            .reopen()
            .and_then(|()| resume(&mut self.executor, store));
        match resumed {
            Ok(Some(Outcome::RolledBack(_))) => Err(EngineError::TakenBack(error)),
            Ok(Some(Outcome::Stranded { left, .. })) if on_failure == OnFailure::Undo => {
                let detail = error.to_string();
                let kind = ErrorKind::InDoubt;
                let error = OpError { kind, detail };
                let cause = Failure { op: None, error }.into();
                Err(EngineError::Stranded { cause, left })
            }
            Ok(Some(outcome)) => Ok(outcome),
            Ok(None) => Err(EngineError::Interrupted { error, again: None }),
            Err(again) => {
                let again = Some(again.into());
                Err(EngineError::Interrupted { error, again })
            }
        }
    }
}

/// One request is planned as itself, and several as one.
fn plan_together<E: From<Rejection>>(
    state: &mut State,
    facts: Facts,
    requests: &[Request],
    look: impl FnMut(&[PortBinding]) -> Result<Vec<Listener>, E>,
) -> Result<Plan, E> {
    match requests {
        [request] => state.plan_around(facts, request, look),
        several => state.plan_batch_around(facts, several, look),
    }
}

/// The namespace that must be there for a request: nothing leads to a container that is gone.
fn entered<'a>(state: &'a State, request: &'a Request) -> Option<&'a Netns> {
    match request {
        Request::Attach(spec) => Some(&spec.netns),
        Request::Publish { id, .. } => state.endpoint(id).map(|endpoint| &endpoint.netns),
        Request::CreateNetwork(_)
        | Request::RemoveNetwork(_)
        | Request::Detach(_)
        | Request::Unpublish { .. } => None,
    }
}

/// The protocol of a port that an op publishes.
fn published(op: &Op) -> Option<Protocol> {
    let Op::Add(Object::Dnat(dnat)) = op else {
        return None;
    };
    Some(dnat.protocol)
}

fn repair_plan(executor: &mut impl Executor, state: &State) -> Result<Plan, EngineError> {
    let (facts, observed) = look(executor, state)?;
    Ok(state.repair(&facts, &observed))
}

/// What there is to know of the host, and what the kernel holds of ours.
fn look(executor: &mut impl Executor, state: &State) -> Result<(Facts, Footprint), EngineError> {
    executor.attend(state);
    let mut facts = executor.facts().map_err(EngineError::Host)?;
    let sandboxes = state.netns().into_iter();
    facts.gone = sandboxes
        .filter(|netns| !executor.is_alive(netns))
        .collect();
    let observed = executor
        .observe(&state.footprint())
        .map_err(EngineError::Host)?;
    Ok((facts, observed))
}

/// How often a plan is made anew around somebody who was not known, before everybody is: on a network
/// that is nearly full there may be many.
const RIVALS_ROUNDS_MAX: usize = 4;

/// Who remembers a state, all of it or what one request names, and takes entries into it.
trait Memory: Recorder {
    fn state(&self) -> &State;

    /// The state, to plan on: it is left as it was.
    fn state_mut(&mut self) -> &mut State;

    /// As [`State::sandboxes_after`].
    fn sandboxes_after(
        &mut self,
        netns: &Netns,
        most: usize,
    ) -> Result<Vec<(Netns, ContainerName)>, Self::Error>;

    /// Makes all endpoints of a container part of the state.
    fn recall(&mut self, container: &ContainerName) -> Result<(), Self::Error>;

    /// Makes everything part of it.
    fn complete(&mut self) -> Result<(), Self::Error>;
}

impl Memory for Store {
    fn state(&self) -> &State {
        Self::state(self)
    }

    fn state_mut(&mut self) -> &mut State {
        Self::state_mut(self)
    }

    fn sandboxes_after(
        &mut self,
        netns: &Netns,
        most: usize,
    ) -> Result<Vec<(Netns, ContainerName)>, StoreError> {
        Self::sandboxes_after(self, netns, most)
    }

    fn recall(&mut self, container: &ContainerName) -> Result<(), StoreError> {
        Self::recall(self, container)
    }

    fn complete(&mut self) -> Result<(), StoreError> {
        Self::complete(self)
    }
}

/// Finishes or undoes what a dead process began, then tries once more to remove what an earlier
/// undo could not. How each of the two ended.
fn recover<M: Memory>(
    executor: &mut impl Executor,
    memory: &mut M,
) -> Result<Vec<Outcome>, M::Error> {
    let mut outcomes = Vec::from_iter(resume(executor, memory)?);
    if let Some(plan) = memory.state().sweep() {
        outcomes.push(run(&mut Transaction::begin(plan), executor, memory)?);
    }
    Ok(outcomes)
}

fn resume<M: Memory>(
    executor: &mut impl Executor,
    memory: &mut M,
) -> Result<Option<Outcome>, M::Error> {
    let Some(mut transaction) = memory.state().pending().map(Transaction::resume) else {
        return Ok(None);
    };
    run(&mut transaction, executor, memory).map(Some)
}

fn run<M: Memory>(
    transaction: &mut Transaction,
    executor: &mut impl Executor,
    memory: &mut M,
) -> Result<Outcome, M::Error> {
    executor.attend(memory.state());
    drive(transaction, executor, memory)
}
