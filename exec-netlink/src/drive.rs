//! Drive: carries transactions out for async programs.

use std::panic::resume_unwind;

use mydocker_core::{Executor, Outcome, Recorder, Transaction};
use tokio::task::spawn_blocking;

/// A transaction that went as far as it could, and all that was lent for it.
#[derive(Debug)]
pub struct Driven<E, R: Recorder> {
    /// How it ended; or why the recorder could not keep an entry, and then the transaction rests
    /// where it is: driven once more, it goes on from there.
    pub outcome: Result<Outcome, R::Error>,
    /// The transaction.
    pub transaction: Transaction,
    /// Who carried it out.
    pub executor: E,
    /// Who remembers it.
    pub recorder: R,
}

/// As [`mydocker_core::drive`], on a thread of tokio's that may block, while the async ones go on.
///
/// All three are lent and come back. [`Ns::Host`](mydocker_core::Ns::Host) stays the namespace that
/// the executor was opened in, whichever thread that was.
///
/// Once polled, the transaction runs to its end, also if the future is dropped: what was lent goes
/// when it is through, and the recorder knows how it ended.
///
/// ```no_run
/// use mydocker_core::{
///     Damage, Entry, Executor, Instance, NetworkSpec, Outcome, Recorder, Request, State, Transaction,
/// };
/// use mydocker_exec_netlink::{NetlinkExecutor, drive};
///
/// /// Remembers as long as the process lives; a real one writes each entry to a file.
/// struct Book(State);
///
/// impl Recorder for Book {
///     type Error = Damage;
///
///     fn record(&mut self, entry: &Entry) -> Result<(), Damage> {
///         self.0.absorb(entry)
///     }
/// }
///
/// # async fn create() -> Result<(), Box<dyn std::error::Error>> {
/// let mut executor = NetlinkExecutor::open(Instance::DEFAULT)?;
/// let book = Book(State::new(Instance::DEFAULT));
/// let create = Request::CreateNetwork(NetworkSpec::new("web".parse()?));
/// let plan = book.0.plan(&executor.facts()?, &create)?;
/// let driven = drive(Transaction::begin(plan), executor, book).await;
/// assert_eq!(driven.outcome?, Outcome::Committed);
/// let (executor, book) = (driven.executor, driven.recorder); // for the next one
/// # Ok(())
/// # }
/// ```
///
/// # Panics
/// When the executor or the recorder does, outside of a tokio runtime, and in one that shut down
/// before the transaction began.
pub async fn drive<E, R>(
    mut transaction: Transaction,
    mut executor: E,
    mut recorder: R,
) -> Driven<E, R>
where
    E: Executor + Send + 'static,
    R: Recorder<Error: Send> + Send + 'static,
{
    let work = move || {
        let outcome = mydocker_core::drive(&mut transaction, &mut executor, &mut recorder);
        Driven {
            outcome,
            transaction,
            executor,
            recorder,
        }
    };
    match spawn_blocking(work).await {
        Ok(driven) => driven,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(error) => panic!("the runtime shut down before the transaction began: {error}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use mydocker_core::{
        Entry, Facts, Footprint, Instance, Listener, Netns, NetworkSpec, Op, OpError, OpResult,
        Plan, PortBinding, Request, State,
    };
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::NetlinkExecutor;

    struct Willing;

    impl Executor for Willing {
        fn apply(&mut self, ops: &[Op]) -> Vec<OpResult> {
            vec![Ok(()); ops.len()]
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

    /// Keeps an entry once somebody allows it.
    struct Patient(Receiver<()>);

    impl Recorder for Patient {
        type Error = std::sync::mpsc::RecvTimeoutError;

        fn record(&mut self, _: &Entry) -> Result<(), Self::Error> {
            self.0.recv_timeout(Duration::from_secs(5))
        }
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().build().unwrap()
    }

    fn plan() -> Plan {
        let create = Request::CreateNetwork(NetworkSpec::new("web".parse().unwrap()));
        let state = State::new(Instance::DEFAULT);
        state.plan(&Facts::default(), &create).unwrap()
    }

    #[test]
    fn other_tasks_go_on_meanwhile() {
        let (allow, allowed) = channel();
        let runtime = runtime();
        // Runs on the one thread there is, and only while the transaction leaves it alone.
        runtime.spawn(async move {
            for _ in 0..2 {
                allow.send(()).unwrap();
            }
        });
        let transaction = Transaction::begin(plan());
        let driven = runtime.block_on(drive(transaction, Willing, Patient(allowed)));
        assert_eq!(driven.outcome, Ok(Outcome::Committed));
    }

    #[test]
    fn what_the_recorder_stopped_goes_on() {
        let (allow, allowed) = channel();
        let runtime = runtime();
        allow.send(()).unwrap();
        drop(allow);
        let transaction = Transaction::begin(plan());
        let driven = runtime.block_on(drive(transaction, Willing, Patient(allowed)));
        driven.outcome.unwrap_err();
        let (allow, allowed) = channel();
        allow.send(()).unwrap();
        let again = drive(driven.transaction, driven.executor, Patient(allowed));
        assert_eq!(runtime.block_on(again).outcome, Ok(Outcome::Committed));
    }

    #[test]
    #[should_panic(expected = "is on fire")]
    fn a_panic_comes_through() {
        struct Burning;

        impl Recorder for Burning {
            type Error = ();

            fn record(&mut self, _: &Entry) -> Result<(), ()> {
                panic!("the disk is on fire")
            }
        }

        let transaction = Transaction::begin(plan());
        drop(runtime().block_on(drive(transaction, Willing, Burning)));
    }

    #[test]
    fn the_executor_may_be_lent() {
        fn lendable<T: Send + 'static>() {}
        lendable::<NetlinkExecutor>();
        lendable::<Driven<NetlinkExecutor, Patient>>();
    }
}
