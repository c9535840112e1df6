//! What planning imagines: a state that nobody keeps, and a kernel where everything succeeds.

use std::collections::BTreeSet;

use mydocker_core::{
    ContainerName, Damage, Entry, Executor, Facts, Family, Footprint, Listener, Netns, Object, Op,
    OpError, OpResult, PortBinding, Recorder, State,
};

use super::Memory;

/// A state that is gone when the process is.
pub(super) struct Mind {
    pub(super) state: State,
    /// What the plans so far would have turned on, which the host itself can't tell yet.
    pub(super) forwarding: BTreeSet<Family>,
}

impl Mind {
    pub(super) fn of(state: State) -> Self {
        let forwarding = BTreeSet::new();
        Self { state, forwarding }
    }
}

impl Recorder for Mind {
    type Error = Damage;

    fn record(&mut self, entry: &Entry) -> Result<(), Damage> {
        if let Entry::Begin(plan) = entry {
            let families = plan.ops.iter().filter_map(|op| match op {
                Op::Add(Object::Forwarding(forwarding)) => Some(forwarding.family),
                Op::Add(_) | Op::Del(_) => None,
            });
            self.forwarding.extend(families);
        }
        self.state.absorb(entry)
    }
}

impl Memory for Mind {
    fn state(&self) -> &State {
        &self.state
    }

    fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    fn sandboxes_after(
        &mut self,
        netns: &Netns,
        most: usize,
    ) -> Result<Vec<(Netns, ContainerName)>, Damage> {
        let all = self.state.sandboxes_after(netns).take(most);
        Ok(all.map(|(a, b)| (a.clone(), b.clone())).collect())
    }

    fn recall(&mut self, _: &ContainerName) -> Result<(), Damage> {
        Ok(())
    }

    fn complete(&mut self) -> Result<(), Damage> {
        Ok(())
    }
}

/// A kernel where everything succeeds.
pub(crate) struct Willing;

impl Executor for Willing {
    fn apply(&mut self, ops: &[Op]) -> Vec<OpResult> {
        ops.iter().map(|_| Ok(())).collect()
    }

    fn observe(&mut self, _: &Footprint) -> Result<Footprint, OpError> {
        Ok(Footprint::new())
    }

    fn facts(&mut self) -> Result<Facts, OpError> {
        Ok(Facts::default())
    }

    fn listeners(&mut self, _: &[PortBinding]) -> Result<Vec<Listener>, OpError> {
        Ok(Vec::new())
    }

    fn is_alive(&mut self, _: &Netns) -> bool {
        true
    }

    fn namespaces(&mut self) -> Result<BTreeSet<Netns>, OpError> {
        Ok(BTreeSet::new())
    }
}
