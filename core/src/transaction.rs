//! Transaction: carries a plan through to its end, or back.

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
    Begin(Plan),
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
    on_failure: OnFailure,
    todo: Vec<Op>,
    /// How many of `todo` have been answered.
    at: usize,
    landed: Vec<Op>,
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
    pub fn begin(plan: Plan) -> Self {
        let mut transaction = Self::applying(&plan);
        transaction.phase = Phase::Opening(Entry::Begin(plan));
        transaction
    }

    /// Picks up a plan whose beginning was recorded and whose end was not: any of its ops may
    /// have landed. What adds is undone, what removes is finished.
    #[must_use]
    pub fn resume(plan: &Plan) -> Self {
        let mut transaction = Self::applying(plan);
        transaction.resumed = true;
        if plan.on_failure == OnFailure::Undo {
            transaction.landed = as_if_landed(core::mem::take(&mut transaction.todo));
            transaction.turn_back(Failure {
                op: plan.ops.first().cloned(),
                error: OpError {
                    kind: ErrorKind::InDoubt,
                    detail: "the process that began it ended before it did".into(),
                },
            });
        }
        transaction.settle();
        transaction
    }

    fn applying(plan: &Plan) -> Self {
        Self {
            on_failure: plan.on_failure,
            todo: plan.ops.clone(),
            at: 0,
            landed: Vec::new(),
            cause: None,
            left: Vec::new(),
            lost: false,
            resumed: false,
            phase: Phase::Applying,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn poll(&self) -> Step<'_> {
        match &self.phase {
            Phase::Opening(entry) | Phase::Closing(entry) => Step::Record(entry),
            Phase::Applying | Phase::Undoing => Step::Apply(&self.todo[self.at..]),
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
        let offered = self.todo.len() - self.at;
        assert!(
            !results.is_empty() && results.len() <= offered,
            "{} results for {offered} ops",
            results.len()
        );
        let mut failed = None;
        for result in results {
            let op = self.todo[self.at].clone();
            self.at += 1;
            let Err(error) = result else {
                self.landed.push(op);
                continue;
            };
            if error.kind == ErrorKind::InDoubt && !undoing {
                self.landed.push(op.clone());
            }
            if undoing || self.on_failure == OnFailure::Continue {
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
        if let (false, OnFailure::Undo, Some(failure)) = (undoing, self.on_failure, failed) {
            self.turn_back(failure);
        }
        self.settle();
    }

    fn turn_back(&mut self, cause: Failure) {
        self.todo = prune(self.landed.drain(..).rev().map(Op::inverse).collect());
        self.at = 0;
        self.cause.get_or_insert(cause);
        self.phase = Phase::Undoing;
    }

    /// Closes once every op has its answer.
    fn settle(&mut self) {
        let working = matches!(self.phase, Phase::Applying | Phase::Undoing);
        if !working || self.at < self.todo.len() {
            return;
        }
        let left = core::mem::take(&mut self.left);
        self.phase = Phase::Closing(Entry::End(match self.cause.take() {
            None => Outcome::Committed,
            Some(cause) if left.is_empty() && !self.lost && self.on_failure == OnFailure::Undo => {
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
