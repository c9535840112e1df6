//! Faulty: makes an executor fail as a real one can, at ops of one's choice.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mydocker_core::{
    ErrorKind, Executor, Facts, Footprint, Listener, Netns, Op, OpError, OpResult, PortBinding,
    Protocol, State,
};

/// A way in which one op fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The kernel says no; nothing happened.
    Refused(ErrorKind),
    /// The request is lost: nothing happened and nobody knows
    /// ([`InDoubt`](ErrorKind::InDoubt)).
    LostBefore,
    /// The answer is lost: it happened and nobody knows ([`InDoubt`](ErrorKind::InDoubt)).
    LostAfter,
    /// The process dies before this op: unwinds with [`Crashed`], past every printed message,
    /// up to [`until_crash`].
    Crash,
}

/// What a [`Fault::Crash`] unwinds with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Crashed;

/// Runs a process up to its end or its [`Fault::Crash`]. What it borrowed is then as a dead
/// process left it: look at the kernel and at what was recorded, trust nothing else.
///
/// # Errors
/// It crashed.
///
/// # Panics
/// With any other panic of the process.
pub fn until_crash<T>(process: impl FnOnce() -> T) -> Result<T, Crashed> {
    catch_unwind(AssertUnwindSafe(process)).map_err(|panic| match panic.downcast::<Crashed>() {
        Ok(crashed) => *crashed,
        Err(other) => resume_unwind(other),
    })
}

/// Wraps any executor and fails the ops that it is told to, counted from 0 over everything that
/// is ever tried: the ops of an undo count on where those before it stopped.
#[derive(Clone, Debug)]
pub struct Faulty<X> {
    inner: X,
    faults: BTreeMap<usize, Fault>,
    ops_at_once_max: usize,
    seen: usize,
}

impl<X: Executor> Faulty<X> {
    /// Fails nothing yet.
    pub fn new(inner: X) -> Self {
        Self {
            inner,
            faults: BTreeMap::new(),
            ops_at_once_max: usize::MAX,
            seen: 0,
        }
    }

    /// The same, but the op number `at` fails.
    #[must_use]
    pub fn with_fault(mut self, at: usize, fault: Fault) -> Self {
        self.faults.insert(at, fault);
        self
    }

    /// The same, but at most so many ops are answered at once.
    ///
    /// # Panics
    /// When that is none.
    #[must_use]
    pub fn with_chunks_of(mut self, ops_at_once_max: usize) -> Self {
        assert!(ops_at_once_max > 0, "an executor answers at least one op");
        self.ops_at_once_max = ops_at_once_max;
        self
    }

    /// How many ops were tried.
    #[must_use]
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// Who is behind it.
    pub fn inner(&self) -> &X {
        &self.inner
    }

    /// Who is behind it, for good.
    pub fn into_inner(self) -> X {
        self.inner
    }

    fn try_one(&mut self, op: &Op) -> OpResult {
        let fault = self.faults.get(&self.seen).copied();
        let lost = || {
            let (kind, detail) = (ErrorKind::InDoubt, "no answer (injected)".into());
            Err(OpError { kind, detail })
        };
        if fault == Some(Fault::Crash) {
            resume_unwind(Box::new(Crashed));
        }
        self.seen += 1;
        match fault {
            Some(Fault::Refused(kind)) => {
                let detail = "refused (injected)".into();
                Err(OpError { kind, detail })
            }
            Some(Fault::LostBefore) => lost(),
            Some(Fault::LostAfter) => {
                self.pass_on(op).ok();
                lost()
            }
            Some(Fault::Crash) | None => self.pass_on(op),
        }
    }

    fn pass_on(&mut self, op: &Op) -> OpResult {
        let mut results = self.inner.apply(std::slice::from_ref(op));
        results.pop().expect("an executor answers at least one op")
    }
}

impl<X: Executor> Executor for Faulty<X> {
    fn attend(&mut self, state: &State) {
        self.inner.attend(state);
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<OpResult> {
        let mut results = Vec::new();
        for op in ops.iter().take(self.ops_at_once_max) {
            let result = self.try_one(op);
            let failed = result.is_err();
            results.push(result);
            if failed {
                break;
            }
        }
        results
    }

    fn hurry(&mut self) {
        self.inner.hurry();
    }

    fn observe(&mut self, wanted: &Footprint) -> Result<Footprint, OpError> {
        self.inner.observe(wanted)
    }

    fn facts(&mut self) -> Result<Facts, OpError> {
        self.inner.facts()
    }

    fn listeners(&mut self, wanted: &[PortBinding]) -> Result<Vec<Listener>, OpError> {
        self.inner.listeners(wanted)
    }

    fn is_alive(&mut self, netns: &Netns) -> bool {
        self.inner.is_alive(netns)
    }

    fn namespaces(&mut self) -> Result<BTreeSet<Netns>, OpError> {
        self.inner.namespaces()
    }

    fn lacks(&mut self, protocol: Protocol) -> Option<&'static str> {
        self.inner.lacks(protocol)
    }
}

#[cfg(test)]
mod tests {
    use mydocker_core::{Instance, Object};

    use super::*;
    use crate::Kernel;

    fn op() -> Op {
        Op::Add(Object::Ruleset(Instance::DEFAULT))
    }

    fn try_with(fault: Fault) -> (Option<ErrorKind>, usize) {
        let mut faulty = Faulty::new(Kernel::new()).with_fault(0, fault);
        let results = faulty.apply(&[op(), op()]);
        let kind = results[0].as_ref().err().map(|error| error.kind);
        (kind, faulty.into_inner().objects().len())
    }

    #[test]
    fn each_fault_does_what_it_says() {
        let busy = ErrorKind::Busy;
        assert_eq!(try_with(Fault::Refused(busy)), (Some(busy), 0));
        assert_eq!(try_with(Fault::LostBefore), (Some(ErrorKind::InDoubt), 0));
        assert_eq!(try_with(Fault::LostAfter), (Some(ErrorKind::InDoubt), 1));
        assert_eq!(until_crash(|| try_with(Fault::Crash)), Err(Crashed));
    }

    #[test]
    fn it_answers_a_few_ops_at_once() {
        let mut faulty = Faulty::new(Kernel::new()).with_chunks_of(1);
        assert_eq!(faulty.apply(&[op(), op()]).len(), 1);
        assert_eq!(faulty.seen(), 1);
    }

    #[test]
    #[should_panic(expected = "another panic")]
    fn other_panics_pass_through() {
        until_crash(|| panic!("another panic")).ok();
    }
}
