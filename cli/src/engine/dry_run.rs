//! What would be done, by an engine that does nothing.

use std::slice;

use mydocker_core::{Executor, Facts, Plan, Rejection, Request, State, Transaction};

use super::mind::{Mind, Willing};
use super::{Engine, EngineError, dead, plan_together, recover, repair_plan, run};
use crate::store::{Access, Store};

impl<X: Executor> Engine<X> {
    /// What [`apply`](Self::apply) would do. Writes nothing and makes no file, and needs no more
    /// rights than reading does. What a dead process left counts as dealt with; where the
    /// executor can't look at the host, nothing is in the way there.
    ///
    /// # Errors
    /// It can't be done, or the state could not be read.
    pub fn plan(&mut self, request: &Request) -> Result<Plan, EngineError> {
        let mut mind = self.imagine()?;
        Ok(self.plan_next(&mut mind, slice::from_ref(request))?.1)
    }

    /// [`plan`](Self::plan) for requests one after the other, each as if those before it had been
    /// carried out, and before it what is taken from containers that are gone.
    ///
    /// # Errors
    /// One of them can't be done, or the state could not be read.
    pub fn plan_all(&mut self, requests: &[Request]) -> Result<Vec<Plan>, EngineError> {
        self.plan_each(
            requests
                .chunks(1)
                .map(|one| |_: &mut X, _: &State| one.to_vec()),
        )
    }

    /// What [`apply_batch`](Self::apply_batch) would do, and before it what is taken from containers
    /// that are gone.
    ///
    /// # Errors
    /// It can't be done, or the state could not be read.
    pub fn plan_batch(&mut self, requests: &[Request]) -> Result<Vec<Plan>, EngineError> {
        self.plan_each([|_: &mut X, _: &State| requests.to_vec()])
    }

    /// What [`apply_with`](Self::apply_with) would do for each of these, one after the other, as
    /// [`plan_all`](Self::plan_all) has it.
    ///
    /// # Errors
    /// The same.
    pub fn plan_each<F: FnOnce(&mut X, &State) -> Vec<Request>>(
        &mut self,
        asks: impl IntoIterator<Item = F>,
    ) -> Result<Vec<Plan>, EngineError> {
        let mut mind = self.imagine()?;
        let mut plans = Vec::new();
        for ask in asks {
            let requests = ask(&mut self.executor, &mind.state);
            let (buried, plan) = self.plan_next(&mut mind, &requests)?;
            plans.extend(buried);
            plans.push(plan);
        }
        Ok(plans)
    }

    /// What [`repair`](Self::repair) would do, one plan after the other. Writes nothing and makes no
    /// file.
    ///
    /// # Errors
    /// The state or the kernel could not be read.
    pub fn plan_repair(&mut self) -> Result<Vec<Plan>, EngineError> {
        // Held until the kernel was looked at, or others would make it differ from what was read.
        let store = Store::open_with(&self.roots, Access::Read, &self.options)?;
        let mut mind = Mind::of(store.state().clone());
        recover(&mut Willing, &mut mind)?;
        self.imagine_repair(mind)
    }

    pub(super) fn imagine_repair(&mut self, mut mind: Mind) -> Result<Vec<Plan>, EngineError> {
        let dead = dead::find_all(&mut self.executor, &mind.state);
        let mut plans = dead::bury(&mut Willing, &mut mind, dead)?;
        plans.push(repair_plan(&mut self.executor, &mind.state)?);
        Ok(plans)
    }

    /// The state as recovering would leave it.
    fn imagine(&self) -> Result<Mind, EngineError> {
        let mut mind = Mind::of(self.view()?.state);
        recover(&mut Willing, &mut mind)?;
        Ok(mind)
    }

    /// What would be done next, and before it.
    fn plan_next(
        &mut self,
        mind: &mut Mind,
        requests: &[Request],
    ) -> Result<(Vec<Plan>, Plan), EngineError> {
        let bury = |_: &mut Self, mind: &mut Mind, dead| Ok(dead::bury(&mut Willing, mind, dead)?);
        let plan = |engine: &mut Self, mind: &mut Mind| engine.imagine_plan(mind, requests);
        self.plan_past_dead(mind, requests, bury, plan)
    }

    fn imagine_plan(&mut self, mind: &mut Mind, requests: &[Request]) -> Result<Plan, EngineError> {
        let mut facts = match self.facts(&mind.state, requests) {
            Err(EngineError::Host(_)) => Facts::default(),
            facts => facts?,
        };
        facts.forwarding.extend(&mind.forwarding);
        let look =
            |wanted: &[_]| Ok::<_, Rejection>(self.executor.listeners(wanted).unwrap_or_default());
        let plan = plan_together(&mut mind.state, facts, requests, look)?;
        self.check_protocols(&plan)?;
        run(&mut Transaction::begin(plan.clone()), &mut Willing, mind)?;
        Ok(plan)
    }
}
