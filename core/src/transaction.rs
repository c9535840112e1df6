//! Transaction: carries a plan through to its end, or back.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::plan::prune;
use crate::{ErrorKind, Object, OnFailure, Op, OpError, OpResult, Plan};

/// A line of the journal: intent, then outcome. State is the fold of these.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// About to be applied.
    Begin(Arc<Plan>),
    /// How the plan before it ended.
    End(Outcome),
}

/// How a transaction ended.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As asked.
    Committed,
    /// As it was before.
    RolledBack(Failure),
    /// Neither: some objects could not be removed, or a wanted one not be added.
    Stranded {
        /// The first failure.
        cause: Failure,
        /// What should be gone and is not.
        left: Vec<Object>,
    },
}

impl Outcome {
    /// Whether the state changes as a plan says that ended so.
    #[must_use]
    pub fn makes_change(&self, on_failure: OnFailure) -> bool {
        match self {
            Self::Committed => true,
            Self::RolledBack(_) => false,
            Self::Stranded { .. } => on_failure == OnFailure::Continue,
        }
    }
}

/// An op that failed, and why.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Failure {
    /// Which; `None` when a plan without ops was interrupted.
    pub op: Option<Op>,
    /// Why.
    pub error: OpError,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.op {
            Some(op) => write!(f, "{} {}: {}", op.name(), op.target(), self.error),
            None => write!(f, "{}", self.error),
        }
    }
}

/// What a transaction wants next. Asking twice is harmless.
#[derive(Debug)]
pub enum Step<'t> {
    /// Keep this where it outlives the process, then call [`Transaction::handle_recorded`].
    Record(&'t Entry),
    /// Try these in order, then call [`Transaction::handle_results`].
    Apply(&'t [Op]),
    /// It is over.
    Done(&'t Outcome),
}

/// A plan on its way: opening, applying, perhaps undoing, closing, closed.
#[derive(Debug)]
pub struct Transaction {
    plan: Arc<Plan>,
    /// What takes back what has landed, once that is what is done.
    undo: Vec<Op>,
    /// How many of the plan's ops have been answered, or of `undo`.
    at: usize,
    /// Which of the plan's did not land.
    missed: BTreeSet<usize>,
    cause: Option<Failure>,
    left: Vec<Object>,
    /// Whether an undo could not bring back what had been removed.
    lost: bool,
    /// Whether a process before this one may have carried out any of it.
    resumed: bool,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Opening(Entry),
    Applying,
    Undoing,
    Closing(Entry),
    Closed(Outcome),
}

impl Transaction {
    /// Starts a plan that nobody has recorded yet.
    #[must_use]
    pub fn begin(plan: impl Into<Arc<Plan>>) -> Self {
        let plan = plan.into();
        let phase = Phase::Opening(Entry::Begin(Arc::clone(&plan)));
        Self::new(plan, phase)
    }

    /// Picks up a plan whose beginning was recorded and whose end was not: any of its ops may
    /// have landed. What adds is undone, what removes is finished.
    #[must_use]
    pub fn resume(plan: &Arc<Plan>) -> Self {
        let mut transaction = Self::new(Arc::clone(plan), Phase::Applying);
        transaction.resumed = true;
        if plan.on_failure == OnFailure::Undo {
            let cause = Failure {
                op: plan.ops.first().cloned(),
                error: OpError {
                    kind: ErrorKind::InDoubt,
                    detail: "the process that began it ended before it did".into(),
                },
            };
            transaction.turn_back(as_if_landed(plan.ops.clone()), cause);
        }
        transaction.settle();
        transaction
    }

    fn new(plan: Arc<Plan>, phase: Phase) -> Self {
        Self {
            plan,
            undo: Vec::new(),
            at: 0,
            missed: BTreeSet::new(),
            cause: None,
            left: Vec::new(),
            lost: false,
            resumed: false,
            phase,
        }
    }

    /// What is tried in this phase, from the first to the last.
    fn ops(&self) -> &[Op] {
        match self.phase {
            Phase::Undoing => &self.undo,
            Phase::Opening(_) | Phase::Applying | Phase::Closing(_) | Phase::Closed(_) => {
                &self.plan.ops
            }
        }
    }

    /// What to do next.
    #[must_use]
    pub fn poll(&self) -> Step<'_> {
        match &self.phase {
            Phase::Opening(entry) | Phase::Closing(entry) => Step::Record(entry),
            Phase::Applying | Phase::Undoing => Step::Apply(&self.ops()[self.at..]),
            Phase::Closed(outcome) => Step::Done(outcome),
        }
    }

    /// Answers [`Step::Record`].
    ///
    /// # Panics
    /// When nothing was to be recorded.
    pub fn handle_recorded(&mut self) {
        self.phase = match core::mem::replace(&mut self.phase, Phase::Applying) {
            Phase::Opening(_) => Phase::Applying,
            Phase::Closing(Entry::End(outcome)) => Phase::Closed(outcome),
            phase @ (Phase::Applying | Phase::Undoing | Phase::Closing(_) | Phase::Closed(_)) => {
                panic!("handle_recorded answers Step::Record, not {phase:?}")
            }
        };
        self.settle();
    }

    /// Answers [`Step::Apply`]: one result for each op of a non-empty prefix of what was offered.
    ///
    /// # Panics
    /// When no ops were offered, or the results can't be theirs.
    pub fn handle_results(&mut self, results: &[OpResult]) {
        let undoing = match self.phase {
            Phase::Applying => false,
            Phase::Undoing => true,
            Phase::Opening(_) | Phase::Closing(_) | Phase::Closed(_) => {
                panic!("handle_results answers Step::Apply")
            }
        };
        let offered = self.ops().len() - self.at;
        assert!(
            !results.is_empty() && results.len() <= offered,
            "{} results for {offered} ops",
            results.len()
        );
        let mut failed = None;
        for result in results {
            let at = self.at;
            self.at += 1;
            let Err(error) = result else {
                continue;
            };
            let op = self.ops()[at].clone();
            if error.kind != ErrorKind::InDoubt && !undoing {
                self.missed.insert(at);
            }
            if undoing || self.plan.on_failure == OnFailure::Continue {
                match &op {
                    Op::Del(object) => self.left.push(object.clone()),
                    // Its base went with a container that died meanwhile: nothing is left.
                    Op::Add(_) if error.kind == ErrorKind::Missing => continue,
                    // The process before this one added it, or its removal had not landed.
                    Op::Add(_) if (self.resumed || undoing) && error.kind == ErrorKind::Exists => {
                        continue;
                    }
                    Op::Add(_) => self.lost |= undoing,
                }
            }
            let failure = Failure {
                op: Some(op),
                error: error.clone(),
            };
            self.cause.get_or_insert_with(|| failure.clone());
            failed.get_or_insert(failure);
        }
        if let (false, OnFailure::Undo, Some(failure)) = (undoing, self.plan.on_failure, failed) {
            let tried = self.plan.ops[..self.at].iter().enumerate();
            let landed = tried.filter(|(at, _)| !self.missed.contains(at));
            let landed = landed.map(|(_, op)| op.clone()).collect();
            self.turn_back(landed, failure);
        }
        self.settle();
    }

    fn turn_back(&mut self, landed: Vec<Op>, cause: Failure) {
        self.undo = prune(landed.into_iter().rev().map(Op::inverse).collect());
        self.at = 0;
        self.cause.get_or_insert(cause);
        self.phase = Phase::Undoing;
    }

    /// Closes once every op has its answer.
    fn settle(&mut self) {
        let working = matches!(self.phase, Phase::Applying | Phase::Undoing);
        if !working || self.at < self.ops().len() {
            return;
        }
        let left = core::mem::take(&mut self.left);
        self.phase = Phase::Closing(Entry::End(match self.cause.take() {
            None => Outcome::Committed,
            Some(cause)
                if left.is_empty() && !self.lost && self.plan.on_failure == OnFailure::Undo =>
            {
                Outcome::RolledBack(cause)
            }
            Some(cause) => Outcome::Stranded { cause, left },
        }));
    }
}

/// Ops of which any may have landed, so that undoing them leaves what was there before: what they
/// remove is taken for put back meanwhile, and so it goes first. Half of it may be there, or something
/// else in its place.
fn as_if_landed(ops: Vec<Op>) -> Vec<Op> {
    let is_removal = |op: &Op| matches!(op, Op::Del(_));
    let (mut landed, additions): (Vec<Op>, _) = ops.into_iter().partition(is_removal);
    let back: Vec<Op> = landed.iter().rev().cloned().map(Op::inverse).collect();
    landed.extend(back);
    landed.extend(additions);
    landed
}
