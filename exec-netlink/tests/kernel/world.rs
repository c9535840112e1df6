//! A host of its own for each test: a namespace, sandboxes beside it, and the engine in small.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::resume_unwind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use mydocker_core::{
    AttachSpec, Damage, EndpointId, Entry, Executor, Facts, Footprint, Instance, Netns,
    NetworkSpec, Op, Outcome, Plan, Recorder, Rejection, Request, State, Transaction, drive,
};
use mydocker_exec_netlink::{NetlinkExecutor, netns};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// Long for a connection inside one kernel.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs a test on a thread in a namespace that is nobody else's host, or says that it can't.
pub fn on_a_host(test: impl FnOnce(&mut World) + Send) {
    let ended = thread::scope(|scope| {
        let host = scope.spawn(|| {
            if !nix::unistd::geteuid().is_root() {
                println!("skipped: needs root");
                return;
            }
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip link set lo up");
            test(&mut World::new());
        });
        host.join()
    });
    if let Err(panic) = ended {
        resume_unwind(panic);
    }
}

/// A state, the kernel that follows it, and containers' namespaces.
pub struct World {
    pub state: State,
    pub executor: NetlinkExecutor,
    directory: TempDir,
    sandboxes: Vec<Netns>,
}

/// Remembers nothing but what the state becomes.
struct Journal<'a>(&'a mut State);

impl Recorder for Journal<'_> {
    type Error = Damage;

    fn record(&mut self, entry: &Entry) -> Result<(), Damage> {
        self.0.absorb(entry)
    }
}

impl World {
    fn new() -> Self {
        Self {
            state: State::new(Instance::DEFAULT),
            executor: NetlinkExecutor::open(Instance::DEFAULT).unwrap(),
            directory: tempfile::tempdir().unwrap(),
            sandboxes: Vec::new(),
        }
    }

    /// A container's namespace; it goes with the world.
    pub fn sandbox(&mut self, name: &str) -> Netns {
        let path = self.directory.path().join(name);
        netns::create(&path).unwrap();
        let netns: Netns = path.to_str().unwrap().parse().unwrap();
        self.sandboxes.push(netns.clone());
        netns
    }

    pub fn plan(&mut self, request: &Request) -> Result<Plan, Rejection> {
        let mut facts = Facts::default();
        if self.state.needs_facts(request) {
            facts = self.executor.facts().unwrap();
        }
        if let Request::Detach(id) = request {
            let netns = self.state.endpoint(id).unwrap().netns.clone();
            if !self.executor.is_alive(&netns) {
                facts.gone.insert(netns);
            }
        }
        self.state.plan(&facts, request)
    }

    pub fn carry_out(&mut self, plan: Plan) -> Outcome {
        let mut transaction = Transaction::begin(plan);
        let journal = &mut Journal(&mut self.state);
        drive(&mut transaction, &mut self.executor, journal).unwrap()
    }

    pub fn request(&mut self, request: &Request) -> Outcome {
        let plan = self.plan(request).unwrap();
        self.carry_out(plan)
    }

    /// As [`Self::request`], for what must succeed and leave nothing to repair.
    pub fn commit(&mut self, request: &Request) {
        assert_eq!(self.request(request), Outcome::Committed);
        self.assert_settled();
    }

    pub fn create(&mut self, spec: NetworkSpec) {
        self.commit(&Request::CreateNetwork(spec));
    }

    pub fn attach(&mut self, spec: AttachSpec) {
        self.commit(&Request::Attach(spec));
    }

    pub fn detach(&mut self, network: &str, container: &str) {
        self.commit(&Request::Detach(endpoint(network, container)));
    }

    pub fn observe(&mut self) -> Footprint {
        self.executor.observe(&self.state.footprint()).unwrap()
    }

    /// What there is to repair.
    pub fn drift(&mut self) -> Vec<Op> {
        let observed = self.observe();
        let facts = self.executor.facts().unwrap();
        self.state.repair(&facts, &observed).ops
    }

    /// The kernel holds what the state wants, and nothing else.
    pub fn assert_settled(&mut self) {
        assert_eq!(self.drift(), []);
    }

    pub fn repair(&mut self) {
        let observed = self.observe();
        let facts = self.executor.facts().unwrap();
        let plan = self.state.repair(&facts, &observed);
        assert_ne!(plan.ops, [], "nothing drifted");
        println!(
            "{:#?}",
            plan.ops.iter().map(Op::to_string).collect::<Vec<_>>()
        );
        assert_eq!(self.carry_out(plan), Outcome::Committed);
        self.assert_settled();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for netns in &self.sandboxes {
            let _ = netns::remove(Path::new(netns.as_str()));
        }
    }
}

pub fn endpoint(network: &str, container: &str) -> EndpointId {
    EndpointId {
        network: network.parse().unwrap(),
        container: container.parse().unwrap(),
    }
}

pub fn attach_spec(network: &str, container: &str, netns: &Netns) -> AttachSpec {
    let (network, container) = (network.parse().unwrap(), container.parse().unwrap());
    AttachSpec::new(network, container, netns.clone())
}

/// A network of these subnets.
pub fn network(name: &str, subnets: &[&str]) -> NetworkSpec {
    let mut spec = NetworkSpec::new(name.parse().unwrap());
    spec.subnets = subnets.iter().map(|net| net.parse().unwrap()).collect();
    spec
}

/// Runs a command in the calling thread's namespace; its words stand between single spaces.
pub fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command in a container's namespace.
pub fn run_in(netns: &Netns, command: &str) -> String {
    inside(netns, || run(command))
}

pub fn inside<T: Send>(netns: &Netns, f: impl FnOnce() -> T + Send) -> T {
    netns::run_in(Path::new(netns.as_str()), f).unwrap()
}

/// All that the calling thread's namespace holds, line by line: links, addresses, routes, rules of
/// a firewall. A bridge's timers always differ.
pub fn contents() -> Vec<String> {
    let commands = [
        "ip -d link",
        "ip addr",
        "ip route show table all",
        "ip -6 route show table all",
        "nft list ruleset",
    ];
    let text = commands.map(run).join("---\n");
    text.lines().map(without_timers).collect()
}

fn without_timers(line: &str) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    while let Some(at) = words.iter().position(|word| word.ends_with("_timer")) {
        let number = words[at..].iter().position(|word| word.contains('.'));
        words.drain(at..=at + number.unwrap_or_default());
    }
    words.join(" ")
}

/// Fails with the lines that differ, not with all of them.
pub fn assert_same(before: &[String], after: &[String]) {
    let gone = before.iter().filter(|line| !after.contains(line));
    let new = after.iter().filter(|line| !before.contains(line));
    let gone: Vec<_> = gone.collect();
    assert!(
        before == after,
        "gone: {gone:#?} new: {:#?}",
        new.collect::<Vec<_>>()
    );
}

/// Tells everybody who connects who they are.
pub fn serve(netns: &Netns, port: u16) {
    let listener = inside(netns, || TcpListener::bind(("::", port)).unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let peer: SocketAddr = stream.peer_addr().unwrap();
            let _ = write!(stream, "{}", peer.ip().to_canonical());
        }
    });
}

/// Whom a server sees if one connects to it from the calling thread's namespace.
pub fn dial(to: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut peer = String::new();
    stream.read_to_string(&mut peer).ok()?;
    Some(peer)
}
