//! Joins a transaction to whoever carries it out and whoever remembers it.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::{
    Entry, Facts, Footprint, Listener, Netns, Op, OpError, OpResult, Outcome, PortBinding,
    Protocol, State, Step, Transaction,
};

/// Carries out ops: the real kernel, a model of it, or a log.
///
/// Four rules keep executors honest: removing what is not there succeeds; what lacks our mark is
/// not there; [`ErrorKind::InDoubt`](crate::ErrorKind::InDoubt) counts as landed; a thread that
/// enters a namespace is back before it does anything else, or ends.
pub trait Executor {
    /// Told before each transaction what the state wants. A kernel knows better what it holds; a
    /// model that has no memory of its own takes it from here.
    fn attend(&mut self, _state: &State) {}

    /// Tries a non-empty prefix of `ops` in order, one result each; fewer is fine, as with
    /// `write(2)`. No op behind the first that failed lands unreported: it was not tried, or its
    /// result says that it landed (or may have), and a [`Transaction`] undoes it.
    fn apply(&mut self, ops: &[Op]) -> Vec<OpResult>;

    /// Told after each transaction that did what it was to do: what a kernel puts off, it is made to do
    /// before somebody relies on it.
    fn hurry(&mut self) {}

    /// Every object that carries our mark, in the host and in the sandboxes that `wanted` speaks
    /// of; one that is gone holds nothing. A setting carries no mark: those of `wanted` are read,
    /// on links of ours, and told with the value that they have.
    ///
    /// # Errors
    /// What the kernel said when it was asked.
    fn observe(&mut self, wanted: &Footprint) -> Result<Footprint, OpError>;

    /// What planning needs to know of the host; [`Facts::gone`] and [`Facts::listeners`] stay empty.
    ///
    /// # Errors
    /// What the kernel said when it was asked.
    fn facts(&mut self) -> Result<Facts, OpError>;

    /// Programs of the host that listen where one of `wanted` would. One look at each port, never
    /// a dump, unless somebody has it, or there are so many ports that one list of those who listen
    /// there takes less.
    ///
    /// # Errors
    /// What the kernel said when it was asked. Where nobody may ask, nobody listens.
    fn listeners(&mut self, wanted: &[PortBinding]) -> Result<Vec<Listener>, OpError>;

    /// Whether the namespace is there. One look at one file, never a dump.
    fn is_alive(&mut self, netns: &Netns) -> bool;

    /// The namespaces that can be found on the host, its own not among them, by one path each: where
    /// to look for containers that nobody has on record. A look at every process and mount.
    ///
    /// # Errors
    /// What the kernel said when it was asked.
    fn namespaces(&mut self) -> Result<BTreeSet<Netns>, OpError>;

    /// What the kernel lacks to translate ports of that protocol, if anything. A look for a file or
    /// two, never a dump.
    fn lacks(&mut self, _protocol: Protocol) -> Option<&'static str> {
        None
    }
}

/// Remembers what a transaction is about to do, and how it ended.
pub trait Recorder {
    /// Why it could not.
    type Error;

    /// Keeps `entry`; when this returns, it outlives a crash of the process.
    ///
    /// # Errors
    /// The entry was not kept; the transaction stops where it is.
    fn record(&mut self, entry: &Entry) -> Result<(), Self::Error>;
}

/// Runs a transaction to its end.
///
/// # Errors
/// The recorder's: the transaction then rests where it is, and resuming it finds the truth.
pub fn drive<R: Recorder>(
    transaction: &mut Transaction,
    executor: &mut (impl Executor + ?Sized),
    recorder: &mut R,
) -> Result<Outcome, R::Error> {
    loop {
        match transaction.poll() {
            Step::Record(entry) => {
                recorder.record(entry)?;
                transaction.handle_recorded();
            }
            Step::Apply(ops) => {
                let results = executor.apply(ops);
                transaction.handle_results(&results);
            }
            Step::Done(outcome) => {
                if *outcome == Outcome::Committed {
                    executor.hurry();
                }
                return Ok(outcome.clone());
            }
        }
    }
}
