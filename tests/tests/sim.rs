//! Simulation: processes one after the other on one model kernel, refused, unanswered and killed
//! wherever a seed says. After each, and once all is calm, the rules hold.
//!
//! A failing seed prints the command that plays it again. `make sim SECONDS=600` looks for one.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::collections::BTreeSet;
use std::env;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use fastrand::Rng;
use mydocker_core::{
    EndpointId, ErrorKind, Executor, Facts, Footprint, NetworkSpec, Op, Outcome, Request, State,
    Transaction, drive,
};
use mydocker_exec_dryrun::{Crashed, Fault, Faulty, Kernel, until_crash};
use mydocker_tests::{
    Journal, Torn, World, attach, create, detach, netns, publish, remove, unpublish, word,
};

/// Transactions that a run of the tests begins at least.
const TRANSACTIONS_MIN: u64 = 100_000;
/// Processes on one host, from its first network to the end of a seed.
const PROCESSES: usize = 400;
/// After so many of them somebody looks whether all is as it should be.
const CALM_EVERY: usize = 20;
/// Ops that a process may fail at: as many as the longest plan has, its undo included.
const OPS: usize = 60;

const NETWORKS: [&str; 3] = ["front", "back", "a-name-too-long-for-a-link"];
const CONTAINERS: [&str; 5] = ["web", "db", "cache", "proxy", "cron"];
const PORTS: [&str; 7] = [
    "8080:80",
    "127.0.0.1:8080:80",
    "[::1]:8080:80",
    "8080:53/udp",
    "8081:80",
    "80",
    "9000:80",
];

/// One host, and who is at work there.
struct Simulation {
    rng: Rng,
    world: World,
    seen: Seen,
}

/// What became of transactions, or of processes on their way.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    begun: u64,
    committed: u64,
    rolled_back: u64,
    stranded: u64,
    died: u64,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.begun += other.begun;
        self.committed += other.committed;
        self.rolled_back += other.rolled_back;
        self.stranded += other.stranded;
        self.died += other.died;
    }
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let world = if rng.bool() {
            World::default()
        } else {
            World::beside_firewalls()
        };
        let seen = Seen::default();
        Self { rng, world, seen }
    }

    fn play(&mut self) {
        for process in 1..=PROCESSES {
            let request = self.request();
            self.process(&request);
            if self.rng.u8(..) < 4 {
                self.lose_a_container();
            }
            if process % CALM_EVERY == 0 {
                self.calm(&request);
            }
        }
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.rng.usize(..all.len())]
    }

    fn request(&mut self) -> Request {
        let (network, container) = (self.one_of(&NETWORKS), self.one_of(&CONTAINERS));
        let port = [self.one_of(&PORTS)];
        match self.rng.u8(..10) {
            0 | 1 => Request::CreateNetwork(self.network(network)),
            2 => remove(network),
            3..=5 => {
                let ports = if self.rng.bool() { &port[..] } else { &[] };
                Request::Attach(attach(network, container, ports))
            }
            6 | 7 => detach(network, container),
            8 => publish(network, container, &port),
            _ => unpublish(network, container, &port),
        }
    }

    fn network(&mut self, name: &str) -> NetworkSpec {
        let subnets: &[&str] = match self.rng.u8(..4) {
            0 => &["10.0.0.0/29"],
            1 => &["fd00:1::/64"],
            2 => &["10.0.1.0/24", "fd00:2::/64"],
            _ => &[],
        };
        NetworkSpec {
            icc: self.rng.bool(),
            isolate: self.rng.bool(),
            internal: self.rng.u8(..8) == 0,
            spoof: self.rng.u8(..8) == 0,
            ipv6: self.rng.bool(),
            ..create(name, subnets)
        }
    }

    /// A process: finishes what a dead one left, does what it was asked, and fails where it must.
    fn process(&mut self, request: &Request) {
        let kernel = std::mem::take(&mut self.world.kernel);
        let mut faulty = Faulty::new(kernel).with_chunks_of(self.rng.usize(1..OPS));
        for _ in 0..self.rng.usize(..4).saturating_sub(1) {
            let at = self.rng.usize(..OPS);
            faulty = faulty.with_fault(at, self.fault());
        }
        if self.rng.u8(..8) == 0 {
            let torn = if self.rng.bool() {
                Torn::Lost
            } else {
                Torn::Kept
            };
            self.world.journal.crash = Some((self.rng.usize(..4), torn));
        }
        let (journal, seen) = (&mut self.world.journal, &mut self.seen);
        let end = until_crash(|| live(journal, &mut faulty, request, seen));
        self.world.kernel = faulty.into_inner();
        if end != Ok(Ok(())) {
            self.seen.died += 1;
            self.world.journal = self.world.journal.reopened();
        }
        self.world.journal.crash = None;
    }

    fn fault(&mut self) -> Fault {
        let kinds = [
            ErrorKind::Exists,
            ErrorKind::Missing,
            ErrorKind::Denied,
            ErrorKind::Busy,
            ErrorKind::Os(105),
        ];
        match self.rng.u8(..6) {
            0 => Fault::LostBefore,
            1 => Fault::LostAfter,
            2 => Fault::Crash,
            _ => Fault::Refused(self.one_of(&kinds)),
        }
    }

    /// What a state may never be, whatever happened: it is the fold of its journal, and restoring it
    /// finds no address, port, MAC or name twice.
    fn check_record(&self, context: &dyn Debug) {
        let state = self.world.state();
        let restored = State::restore(state.snapshot());
        assert_eq!(restored.as_ref(), Ok(state), "{context:?}");
        let bindings = state.endpoints().flat_map(|endpoint| &endpoint.ports);
        let bindings: Vec<_> = bindings.collect();
        for (index, binding) in bindings.iter().enumerate() {
            let clash = bindings[..index]
                .iter()
                .find(|other| other.conflicts(binding));
            assert_eq!(clash, None, "{binding} after {context:?}");
        }
    }

    /// A container's namespace goes, with all that is in it.
    fn lose_a_container(&mut self) {
        let container = self.one_of(&CONTAINERS);
        self.world.kernel.kill_sandbox(&netns(container));
        // As the next command would find it, and then somebody starts it again.
        self.recover();
        let dead: Vec<EndpointId> = self
            .world
            .state()
            .joined(&word(container))
            .map(|e| e.id.clone())
            .collect();
        for id in dead {
            let gone = Facts {
                gone: BTreeSet::from([netns(container)]),
                ..Facts::default()
            };
            let plan = self
                .world
                .state()
                .plan(&gone, &Request::Detach(id))
                .unwrap();
            assert_eq!(self.world.carry_out(plan), Outcome::Committed);
        }
        self.world.kernel.start_sandbox(&netns(container));
    }

    /// Nothing fails any more.
    fn recover(&mut self) {
        if let Some(plan) = self.world.state().pending().cloned() {
            let mut transaction = Transaction::resume(&plan);
            let World { kernel, journal } = &mut self.world;
            drive(&mut transaction, kernel, journal).unwrap();
        }
        if let Some(plan) = self.world.state().sweep() {
            self.world.carry_out(plan);
        }
    }

    /// Once nothing fails any more, kernel and state agree, and nothing is left that nobody owns.
    fn calm(&mut self, context: &Request) {
        self.check_record(context);
        self.recover();
        assert_eq!(self.world.state().pending(), None, "{context:?}");
        assert_eq!(
            *self.world.state().debris(),
            Footprint::new(),
            "{context:?}"
        );
        let (held, wanted) = (self.world.held(), self.world.wanted());
        let leaked: Vec<_> = held.difference(&wanted).collect();
        assert!(leaked.is_empty(), "{leaked:#?} after {context:?}");
        // What an op that failed in a removal should have added is missing until repair.
        let plan = self.world.repair();
        let adds = |op: &Op| matches!(op, Op::Add(_));
        assert!(
            plan.ops.iter().all(adds),
            "{:#?} after {context:?}",
            plan.ops
        );
        self.world.carry_out(plan);
        self.world.assert_agrees(context);
        assert_eq!(self.world.repair().ops, [], "{context:?}");
    }
}

/// The life of a process, up to its end or its death.
fn live(
    journal: &mut Journal,
    faulty: &mut Faulty<Kernel>,
    request: &Request,
    seen: &mut Seen,
) -> Result<(), Crashed> {
    let mut run = |faulty: &mut _, journal: &mut Journal, mut transaction: Transaction| {
        seen.begun += 1;
        match drive(&mut transaction, faulty, journal)? {
            Outcome::Committed => seen.committed += 1,
            Outcome::RolledBack(_) => seen.rolled_back += 1,
            Outcome::Stranded { .. } => seen.stranded += 1,
        }
        Ok(())
    };
    if let Some(plan) = journal.state.pending().cloned() {
        run(faulty, journal, Transaction::resume(&plan))?;
    }
    if let Some(plan) = journal.state.sweep() {
        run(faulty, journal, Transaction::begin(plan))?;
    }
    let facts = if journal.state.needs_facts(request) {
        faulty.facts().unwrap()
    } else {
        Facts::default()
    };
    match journal.state.plan(&facts, request) {
        Ok(plan) => run(faulty, journal, Transaction::begin(plan)),
        Err(_) => Ok(()),
    }
}

/// Plays a seed; what happened.
fn play(seed: u64) -> Seen {
    let mut simulation = Simulation::new(seed);
    let played = catch_unwind(AssertUnwindSafe(|| simulation.play()));
    if let Err(panic) = played {
        announce(seed);
        resume_unwind(panic);
    }
    simulation.seen
}

#[expect(clippy::print_stderr, reason = "the way to see it again")]
fn announce(seed: u64) {
    eprintln!("again: MYDOCKER_SIM_SEED={seed} cargo test -p mydocker-tests --test sim");
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Plays one seed if one is given, or seeds for so many seconds, or as many of every second one from
/// `first` on as it takes for half of the transactions.
fn simulate(first: u64) {
    if let Some(seed) = number("MYDOCKER_SIM_SEED") {
        play(seed);
        return;
    }
    if let Some(seconds) = number("MYDOCKER_SIM_SECONDS") {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            play(fastrand::u64(..));
        }
        return;
    }
    let mut all = Seen::default();
    for seed in (first..).step_by(2) {
        all.add(play(seed));
        if all.begun >= TRANSACTIONS_MIN / 2 {
            break;
        }
    }
    // A simulation where nothing goes wrong shows nothing.
    let kinds = [all.committed, all.rolled_back, all.stranded, all.died];
    let least = kinds.into_iter().min();
    assert!(least > Some(TRANSACTIONS_MIN / 200), "{all:?}");
}

/// Two halves, for two processors.
#[test]
fn whatever_fails_the_rules_hold() {
    simulate(0);
}

#[test]
fn whatever_else_fails_the_rules_hold() {
    simulate(1);
}
