//! What an attach asks of the kernel is the same however many containers there are: as many calls,
//! messages and bytes.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::env;
use std::error::Error;
use std::process::Command;

use mydocker_core::{AttachSpec, Executor, Facts, Instance, NetworkSpec, Outcome, Request, Step};
use mydocker_core::{State, Transaction};
use mydocker_exec_netlink::{NetlinkExecutor, netns};
use mydocker_tests::Host;
use mydocker_tests::tracer::{Counts, count, count_all, mark};
use nix::libc::{SYS_clock_nanosleep, SYS_fallocate, SYS_ftruncate, SYS_pread64, SYS_pwrite64};
use nix::sched::{CloneFlags, unshare};

/// In it, this program is the one that is counted, and has that many containers attached before.
const PARKED: &str = "MYDOCKER_TEST_PARKED";

/// A host of its own: a state and an executor.
struct Small {
    state: State,
    executor: NetlinkExecutor,
}

impl Small {
    /// Carries a request out; `counted` is what is counted of it.
    fn request(&mut self, request: &Request, counted: bool) {
        self.executor.attend(&self.state);
        let facts = match self.state.needs_facts(request) {
            true => self.executor.facts().unwrap(),
            false => Facts::default(),
        };
        let mark = || {
            if counted {
                mark();
            }
        };
        mark();
        if let Request::Attach(spec) = request {
            assert!(self.executor.is_alive(&spec.netns));
        }
        let look = |wanted: &[_]| {
            let found = self.executor.listeners(wanted);
            found.map_err(|error| Box::<dyn Error>::from(error.to_string()))
        };
        let plan = self.state.plan_around(facts, request, look).unwrap();
        let mut transaction = Transaction::begin(plan);
        loop {
            match transaction.poll() {
                Step::Record(entry) => {
                    self.state.absorb(entry).unwrap();
                    transaction.handle_recorded();
                }
                Step::Apply(ops) => {
                    let results = self.executor.apply(ops);
                    transaction.handle_results(&results);
                }
                Step::Done(outcome) => {
                    assert_eq!(*outcome, Outcome::Committed);
                    break;
                }
            }
        }
        mark();
        self.executor.hurry();
    }
}

/// Attaches so many, and then the one that counts.
fn attach(parked: usize) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut host = Small {
        state: State::new(Instance::DEFAULT),
        executor: NetlinkExecutor::open(Instance::DEFAULT).unwrap(),
    };
    let mut network = NetworkSpec::new("n".parse().unwrap());
    network.subnets = vec!["10.1.0.0/16".parse().unwrap(), "fd01::/64".parse().unwrap()];
    host.request(&Request::CreateNetwork(network), false);
    let path = |number| dir.path().join(format!("container{number:03}"));
    for number in 0..=parked {
        let path = path(number);
        netns::create(&path).unwrap();
        let netns = path.to_str().unwrap().parse().unwrap();
        let container = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let mut spec = AttachSpec::new("n".parse().unwrap(), container, netns);
        spec.ports = vec![format!("{}:80", 20_000 + number).parse().unwrap()];
        host.request(&Request::Attach(spec), number == parked);
    }
    for number in 0..=parked {
        netns::remove(&path(number)).unwrap();
    }
}

/// Has this program attach beside so many, and counts.
fn counted(parked: usize) -> Counts {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "attaching", "--test-threads", "1", "--nocapture"]);
    command.env(PARKED, parked.to_string());
    count(&command)
}

#[test]
fn attaching() {
    if !mydocker_tests::is_root() {
        return;
    }
    if let Ok(parked) = env::var(PARKED) {
        return attach(parked.parse().unwrap());
    }
    let few = counted(10);
    assert!(few.messages > 5 && few.received_bytes > 0, "{few:?}");
    assert_eq!(few, counted(320));
}

/// So many more blocks of the tables may be read and written, which are trees.
const BLOCKS_MORE_MAX: usize = 24;

/// The whole process, whatever it does: reading the command line, files, and what is written in the end.
#[test]
fn a_whole_attach() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --subnet 10.1.0.0/16 --subnet fd01::/64 n");
    let mut parked = 0;
    let mut beside = |count| {
        while parked < count {
            let name = format!("c{parked:03}");
            let sandbox = host.sandbox(&name);
            let ports = format!("-p {}:80", 20_000 + parked);
            host.connect("n", &name, &sandbox, &ports);
            parked += 1;
        }
        let sandbox = host.sandbox(&format!("last{count:03}"));
        let line = format!(
            "network connect --netns {} n last -p 8080:80",
            sandbox.display()
        );
        let mut counts = count_all(&host.mydocker_command(&line), 1);
        host.ok("network disconnect n last");
        // A worker of the kernel's may be waited for, with a list read to its end each time.
        let waits = counts.calls.remove(&SYS_clock_nanosleep).unwrap_or(0);
        let of_tables = [SYS_pread64, SYS_pwrite64, SYS_ftruncate, SYS_fallocate];
        let of_tables = of_tables.map(|number| counts.calls.remove(&number));
        let of_tables = of_tables.into_iter().flatten().sum::<usize>();
        (counts, of_tables - 2 * waits)
    };
    let (few, few_blocks) = beside(10);
    assert!(few.messages > 5 && few.received_bytes > 0, "{few:?}");
    assert!(few_blocks > 0);
    let (many, many_blocks) = beside(900);
    assert_eq!(few, many);
    assert!(
        many_blocks <= few_blocks + BLOCKS_MORE_MAX,
        "{few_blocks}, {many_blocks}"
    );
}
