//! A kernel that is asked nothing and does nothing.

use std::collections::BTreeSet;

use mydocker_core::{
    Executor, Facts, Footprint, Listener, Netns, Op, OpError, OpResult, PortBinding,
};

/// A kernel where everything succeeds at no cost: what is left is the rest.
pub struct Idle;

impl Executor for Idle {
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
