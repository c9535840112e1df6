//! Requests against a small model of the kernel, with crashes at every step.

use std::path::PathBuf;
use std::time::Duration;

use mydocker_core::{
    AttachSpec, EndpointId, Footprint, Listener, Netns, NetworkName, NetworkSpec, PortSpec,
    Process, Protocol,
};

use super::*;

mod kernel;

use kernel::{Kernel, stays};

struct Host {
    dir: tempfile::TempDir,
    kernel: Kernel,
}

impl Host {
    fn new() -> Self {
        let (dir, kernel) = (tempfile::tempdir().unwrap(), Kernel::default());
        Self { dir, kernel }
    }

    fn roots(&self) -> Roots {
        let (root, run_root) = (self.dir.path().join("lib"), self.dir.path().join("run"));
        Roots { root, run_root }
    }

    fn engine(&self) -> Engine<Kernel> {
        Engine::open(self.roots(), self.kernel.clone())
    }

    fn apply(&self, request: &Request) -> Result<Done, EngineError> {
        self.engine().apply(request)
    }

    fn state(&self) -> State {
        self.engine().view().unwrap().state
    }

    fn definition(&self, name: &str) -> PathBuf {
        self.dir
            .path()
            .join("lib/network")
            .join(format!("{name}.json"))
    }

    /// Kernel, state and definitions say the same, but for forwarding and settings, which stay.
    fn agrees(&self) {
        let state = self.state();
        assert!(state.pending().is_none() && state.debris().is_empty());
        let but = |all: Footprint| Footprint::from_iter(all.into_iter().filter(|o| !stays(o)));
        assert_eq!(but(self.kernel.objects()), but(state.footprint()));
        for name in ["net", "other"] {
            let known = state.network(&network(name)).is_some();
            assert_eq!(self.definition(name).exists(), known, "{name}");
        }
    }

    /// Lets a process die after so many ops; whether it did.
    fn dies_after(&self, life: usize, requests: &[Request]) -> bool {
        self.kernel.inside().life = Some(life);
        let mut engine = self.engine();
        let died = std::thread::scope(|scope| {
            let run = scope.spawn(|| engine.apply_batch(requests).map(|_| ()));
            run.join().is_err()
        });
        self.kernel.inside().life = None;
        died
    }
}

fn network(name: &str) -> NetworkName {
    name.parse().unwrap()
}

fn create(name: &str) -> Request {
    Request::CreateNetwork(NetworkSpec::new(network(name)))
}

fn remove(name: &str) -> Request {
    Request::RemoveNetwork(network(name))
}

fn netns(container: &str) -> Netns {
    format!("/run/netns/{container}").parse().unwrap()
}

fn attach(container: &str, ports: &[&str]) -> Request {
    let container_name = container.parse().unwrap();
    let mut spec = AttachSpec::new(network("net"), container_name, netns(container));
    spec.ports = ports
        .iter()
        .map(|port| port.parse::<PortSpec>().unwrap())
        .collect();
    Request::Attach(spec)
}

fn detach(container: &str) -> Request {
    let (network, container) = (network("net"), container.parse().unwrap());
    Request::Detach(EndpointId { network, container })
}

#[test]
fn a_life_leaves_nothing() {
    let host = Host::new();
    for request in [
        create("net"),
        attach("web", &["8080:80"]),
        attach("db", &[]),
        create("other"),
    ] {
        let planned = host.engine().plan(&request).unwrap();
        let done = host.apply(&request).unwrap();
        assert_eq!((done.plan, done.outcome), (planned, Outcome::Committed));
        assert!(done.recovered.is_empty());
        host.agrees();
    }
    assert_eq!(host.kernel.inside().looked, 4, "attaching looks at nothing");
    assert!(
        host.engine()
            .plan_repair()
            .unwrap()
            .iter()
            .all(|plan| plan.ops.is_empty())
    );
    for request in [detach("web"), remove("other"), detach("db"), remove("net")] {
        host.apply(&request).unwrap();
        host.agrees();
    }
    assert_eq!(host.state().footprint(), Footprint::new());
}

#[test]
fn several_are_planned_as_if_one_after_the_other() {
    let host = Host::new();
    let requests = [
        create("net"),
        attach("web", &["80:80"]),
        create("other"),
        detach("web"),
    ];
    let planned = host.engine().plan_all(&requests).unwrap();
    assert!(host.kernel.objects().is_empty());
    let done = requests.map(|request| host.apply(&request).unwrap().plan);
    assert_eq!(planned, done);
    let error = host.engine().plan_all(&[remove("net"), attach("web", &[])]);
    assert!(matches!(error, Err(EngineError::Rejected(_))));
}

/// A batch is one transaction, and a dry run of it is what is done.
#[test]
fn several_at_once_are_all_or_nothing() {
    let host = Host::new();
    let requests = [
        create("net"),
        attach("web", &["80:80"]),
        attach("db", &[]),
        create("other"),
    ];
    let planned = host.engine().plan_batch(&requests).unwrap();
    assert!(host.kernel.objects().is_empty());
    let done = host.engine().apply_batch(&requests).unwrap();
    assert_eq!(planned, std::slice::from_ref(&done.plan));
    assert_eq!(done.plan.change.each().len(), 4);
    host.agrees();
    let before = (host.kernel.objects(), host.state());
    let refused =
        host.engine()
            .apply_batch(&[detach("web"), attach("api", &["80:80"]), attach("db", &[])]);
    let refused = refused.unwrap_err();
    assert!(
        refused.to_string().starts_with("request 3 of the batch: "),
        "{refused}"
    );
    assert_eq!((host.kernel.objects(), host.state()), before);
    host.kernel.inside().refused = vec!["SetHairpin"];
    let failed = host
        .engine()
        .apply_batch(&[detach("db"), attach("api", &["81:80"])]);
    assert!(
        matches!(failed, Err(EngineError::RolledBack(_))),
        "{failed:?}"
    );
    host.kernel.inside().refused.clear();
    assert_eq!((host.kernel.objects(), host.state()), before);
    host.agrees();
}

/// What a batch names is read, and whoever is in its way, however much else there is.
#[test]
fn a_batch_plans_around_those_it_does_not_name() {
    let host = Host::new();
    host.apply(&create("net")).unwrap();
    for n in 0..20 {
        host.apply(&attach(&format!("c{n}"), &["80"])).unwrap();
    }
    host.apply(&detach("c3")).unwrap();
    let several: Vec<Request> = (0..40).map(|n| attach(&format!("d{n}"), &["80"])).collect();
    host.engine().apply_batch(&several).unwrap();
    host.agrees();
    let state = host.state();
    let port = state
        .endpoints()
        .find_map(|endpoint| endpoint.host_ports().next());
    let port = port.unwrap().host_port.to_string();
    let taken = host
        .engine()
        .apply_batch(&[attach("e", &[]), attach("f", &[&format!("{port}:80")])]);
    assert!(taken.unwrap_err().to_string().contains(&port));
    let dead = ["c1", "d1", "d2"];
    host.kernel.inside().dead.extend(dead.map(netns));
    // What the requests speak of is theirs, and the others make room.
    let done = host
        .engine()
        .apply_batch(&[detach("d1"), detach("d2")])
        .unwrap();
    assert_eq!((buried(&done), host.state().endpoints().count()), (0, 57));
    host.agrees();
}

/// Requests that follow from the state are asked for under its lock; if there are none, nothing is.
#[test]
fn what_is_asked_of_the_state_is_carried_out() {
    let host = Host::new();
    host.engine()
        .apply_batch(&[create("net"), attach("web", &["80:80"]), attach("db", &[])])
        .unwrap();
    let name = network("net");
    let planned = host
        .engine()
        .plan_each([|_: &mut Kernel, state: &State| state.removal(&name)]);
    let done = host
        .engine()
        .apply_with(|_, state| state.removal(&name))
        .unwrap();
    assert_eq!(planned.unwrap(), [done.plan]);
    assert!(host.kernel.objects().iter().all(stays));
    host.agrees();
    let history = || Store::history(&host.roots()).unwrap().0.len();
    let (before, again) = (
        history(),
        host.engine().apply_with(|_, state| state.removal(&name)),
    );
    assert!(again.unwrap().plan.is_nothing());
    assert_eq!(history(), before);
}

#[test]
fn a_dry_run_needs_nothing_and_makes_nothing() {
    let host = Host::new();
    let plan = host.engine().plan(&create("net")).unwrap();
    assert!(!plan.ops.is_empty());
    assert_eq!(host.engine().view().unwrap().state.networks().count(), 0);
    assert_eq!(std::fs::read_dir(host.dir.path()).unwrap().count(), 0);
    assert_eq!(host.kernel.inside().applied, 0);
}

#[test]
fn rejections_touch_nothing() {
    let host = Host::new();
    host.apply(&create("net")).unwrap();
    let applied = host.kernel.inside().applied;
    for request in [create("net"), remove("nobody"), detach("nobody")] {
        let error = host.apply(&request).unwrap_err();
        assert!(matches!(error, EngineError::Rejected(_)), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
    assert_eq!(host.kernel.inside().applied, applied);
}

#[test]
fn a_refusal_is_rolled_back() {
    let host = Host::new();
    host.kernel.inside().refused = vec!["AddAddress"];
    let error = host.apply(&create("net")).unwrap_err();
    assert!(matches!(error, EngineError::RolledBack(_)), "{error}");
    assert_eq!(error.exit_code(), 3);
    host.agrees();
    assert!(host.kernel.objects().is_empty());
}

/// A program that listens on a port of every address.
fn listens(port: u16) -> Listener {
    let (pid, name) = (7, "nginx".into());
    Listener {
        address: "0.0.0.0".parse().unwrap(),
        port,
        protocol: Protocol::Tcp,
        process: Some(Process { pid, name }),
    }
}

#[test]
fn what_the_host_listens_on_is_refused_and_named() {
    let host = Host::new();
    host.apply(&create("net")).unwrap();
    let before = host.kernel.objects();
    host.kernel.inside().listeners.push(listens(8080));
    let request = attach("web", &["8080:80"]);
    let refused = [
        host.apply(&request).unwrap_err(),
        host.engine().plan(&request).unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.exit_code(), 1);
        let words = "port 0.0.0.0:8080->80/tcp is listened on by `nginx` (pid 7)";
        assert!(error.to_string().starts_with(words), "{error}");
    }
    assert_eq!(host.kernel.objects(), before);
    host.apply(&attach("web", &["8081:80"])).unwrap();
}

#[test]
fn a_free_port_is_not_what_the_host_listens_on() {
    let host = Host::new();
    host.apply(&create("net")).unwrap();
    let request = attach("web", &["80", "81"]);
    let ports = |plan: Plan| -> Vec<u16> {
        let bindings = plan.publishes().into_iter();
        bindings.map(|binding| binding.host_port).collect()
    };
    let first = ports(host.engine().plan(&request).unwrap());
    // One after the other: each round of planning finds the next.
    for port in &first {
        host.kernel.inside().listeners.push(listens(*port));
    }
    let planned = ports(host.engine().plan(&request).unwrap());
    assert!(planned.iter().all(|port| !first.contains(port)));
    assert_eq!(ports(host.apply(&request).unwrap().plan), planned);
}

#[test]
fn only_ports_to_come_are_looked_at() {
    let host = Host::new();
    host.apply(&create("net")).unwrap();
    host.apply(&attach("db", &[])).unwrap();
    host.apply(&detach("db")).unwrap();
    assert_eq!(host.kernel.inside().probed, 0);
    host.apply(&attach("web", &["8080:80"])).unwrap();
    assert_eq!(host.kernel.inside().probed, 1);
    host.engine().repair().unwrap();
    host.apply(&detach("web")).unwrap();
    assert_eq!(host.kernel.inside().probed, 1);
}

#[test]
fn leftovers_are_named_and_swept_later() {
    let host = Host::new();
    host.kernel.inside().refused = vec!["AddAddress", "DeleteBridge"];
    let error = host.apply(&create("net")).unwrap_err();
    assert!(error.to_string().contains("DeleteBridge net"), "{error}");
    assert_eq!(error.exit_code(), 4);
    assert!(!host.definition("net").exists());
    let error = host.apply(&create("other")).unwrap_err();
    assert_eq!(error.exit_code(), 4, "{error}");
    host.kernel.inside().refused.clear();
    let done = host.apply(&create("net")).unwrap();
    assert_eq!(done.recovered, [Outcome::Committed]);
    host.agrees();
}

#[test]
fn a_dead_container_leaves() {
    let host = Host::new();
    for request in [create("net"), attach("web", &["8080:80"])] {
        host.apply(&request).unwrap();
    }
    host.kernel.inside().dead.insert(netns("db"));
    let error = host.apply(&attach("db", &[])).unwrap_err();
    assert!(matches!(error, EngineError::NoNamespace(_)), "{error}");
    assert_eq!(error.exit_code(), 1);
    host.kernel.inside().dead.insert(netns("web"));
    // Nothing leads to it any more, but what leads there can go.
    let id = EndpointId {
        network: network("net"),
        container: "web".parse().unwrap(),
    };
    let ports = |ports: &str| PortSpec::parse_list(ports).unwrap();
    let (ports, more) = (ports("8080:80"), ports("8081:80"));
    let error = host.apply(&Request::Publish {
        id: id.clone(),
        ports: more,
    });
    assert!(
        matches!(error, Err(EngineError::NoNamespace(_))),
        "{error:?}"
    );
    host.apply(&Request::Unpublish { id, ports }).unwrap();
    host.apply(&detach("web")).unwrap();
    host.agrees();
}

/// How many endpoints of containers that are gone were detached.
fn buried(done: &Done) -> usize {
    done.buried
        .iter()
        .map(|plan| plan.change.each().len())
        .sum()
}

/// Whoever is dead makes room with the next command about others, and a dry run says so; whoever
/// is beyond a few looks, once something of theirs is wanted.
#[test]
fn the_dead_make_room() {
    let host = Host::new();
    host.apply(&create("net")).unwrap();
    let crowd = dead::LOOKS_MAX + 8;
    let name = |n: usize| format!("c{n:03}");
    for n in 0..crowd {
        host.apply(&attach(&name(n), &[&format!("{}:80", 8000 + n)]))
            .unwrap();
    }
    let dies = |n: usize| host.kernel.inside().dead.insert(netns(&name(n)));
    let on_net = || host.state().endpoints().count();
    dies(0);
    let plans = host.engine().plan_all(&[create("other")]).unwrap();
    assert_eq!(plans.len(), 2, "{plans:?}");
    assert_eq!(on_net(), crowd, "a dry run");
    let done = host.apply(&create("other")).unwrap();
    assert_eq!(done.buried, plans[..1]);
    assert_eq!(on_net(), crowd - 1);
    // The last one is not among the first few, and has the port.
    dies(crowd - 1);
    assert_eq!(host.apply(&remove("other")).unwrap().buried, []);
    assert_eq!(on_net(), crowd - 1);
    let port = format!("{}:80", 8000 + crowd - 1);
    let done = host.apply(&attach("new", &[&port])).unwrap();
    assert_eq!(buried(&done), 1);
    host.agrees();
    // A network whose containers are all dead can go at once.
    for n in 1..crowd - 1 {
        dies(n);
    }
    host.kernel.inside().dead.insert(netns("new"));
    let done = host.apply(&remove("net")).unwrap();
    // A few of them first, and all others once they are in the way.
    assert_eq!((done.buried.len(), buried(&done)), (2, crowd - 1));
    host.agrees();
}

/// What is asked about a dead container itself is answered as ever.
#[test]
fn the_dead_are_themselves_to_be_named() {
    let host = Host::new();
    host.apply(&create("net")).unwrap();
    host.apply(&attach("a", &["8080:80"])).unwrap();
    host.apply(&attach("b", &[])).unwrap();
    for container in ["a", "b"] {
        host.kernel.inside().dead.insert(netns(container));
    }
    let done = host.apply(&detach("a")).unwrap();
    assert_eq!(buried(&done), 1, "the other one");
    let error = host.apply(&detach("b")).unwrap_err();
    assert!(matches!(error, EngineError::Rejected(_)), "{error}");
    host.agrees();
}

#[test]
fn a_process_may_die_between_any_two_ops() {
    let before = [create("net"), attach("web", &["8080:80"]), create("other")];
    let requests = [
        (3, vec![attach("db", &["8081:80"])]),
        (3, vec![detach("web")]),
        (3, vec![remove("other")]),
        (1, vec![attach("web", &[])]),
        (1, vec![remove("net")]),
        (0, vec![create("net")]),
        (0, before.to_vec()),
        (3, vec![detach("web"), attach("db", &["8080:80"])]),
        (3, vec![detach("web"), remove("net"), remove("other")]),
    ];
    for (given, requests) in requests {
        for life in 0.. {
            let host = Host::new();
            for request in &before[..given] {
                host.apply(request).unwrap();
            }
            if !host.dies_after(life, &requests) {
                host.agrees();
                break;
            }
            assert!(host.state().pending().is_some());
            let dry = host.engine().plan(&create("new"));
            let done = host.apply(&create("new")).unwrap();
            assert_eq!(done.recovered.len(), 1, "{requests:?} after {life} ops");
            assert_eq!(done.plan, dry.unwrap());
            host.agrees();
        }
    }
}

/// All ops are done, and the process died before or after the definition was brought in step.
#[test]
fn a_process_may_die_between_the_steps_of_an_end() {
    for (given, request) in [
        (vec![], create("net")),
        (vec![create("net")], remove("net")),
    ] {
        let host = Host::new();
        host.engine().settle().unwrap();
        for request in &given {
            host.apply(request).unwrap();
        }
        let tables = host.dir.path().join("run/network/state");
        let definition = host.definition("net");
        let before = [&tables, &definition].map(|file| std::fs::read(file).ok());
        host.apply(&request).unwrap();
        let after = std::fs::read(&definition).ok();
        assert_ne!(before[1].is_some(), after.is_some());
        let (plan, kernel) = (tables.with_file_name("plan"), host.kernel.objects());
        let begun = std::fs::read(&plan).unwrap();
        for definition_is in [&before[1], &after] {
            write_private(&tables, before[0].as_ref().unwrap());
            write_private(&plan, &begun);
            host.kernel.inside().objects = kernel.clone();
            match definition_is {
                Some(text) => write_private(&definition, text),
                None => std::fs::remove_file(&definition).unwrap_or_default(),
            }
            assert!(host.state().pending().is_some());
            let error = host.apply(&remove("nobody")).unwrap_err();
            assert!(matches!(error, EngineError::Rejected(_)), "{error}");
            host.agrees();
            assert!(host.kernel.objects().iter().all(stays));
        }
    }
}

fn write_private(path: &std::path::Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn what_cannot_be_recorded_is_taken_back() {
    let host = Host::new();
    host.apply(&create("other")).unwrap();
    // The definition's place is taken: the end can't be kept, the way back can.
    let place = host.definition("net");
    let temporary = host.dir.path().join("lib/network/.new");
    std::fs::create_dir(&temporary).unwrap();
    let error = host.apply(&create("net")).unwrap_err();
    assert!(matches!(error, EngineError::TakenBack(_)), "{error}");
    assert_eq!(error.exit_code(), 3);
    assert!(!place.exists());
    host.agrees();
    std::fs::remove_dir(&temporary).unwrap();
    host.apply(&create("net")).unwrap();
    host.agrees();
}

#[test]
fn sixteen_at_a_time_lose_nothing() {
    let host = Host::new();
    host.apply(&create("net")).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let mut engine = host.engine();
            scope.spawn(move || {
                for round in 0..4 {
                    let (container, port) =
                        (format!("c{thread}-{round}"), 8000 + thread * 4 + round);
                    let port = format!("{port}:80");
                    engine.apply(&attach(&container, &[&port])).unwrap();
                    engine.view().unwrap();
                    if round % 2 == 1 {
                        engine.apply(&detach(&container)).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(host.state().endpoints().count(), 32);
    host.agrees();
}

#[test]
fn the_lock_is_free_between_calls() {
    let host = Host::new();
    let options = Options {
        lock_wait: Duration::ZERO,
        ..Options::default()
    };
    let mut one = Engine::with_options(host.roots(), options.clone(), host.kernel.clone());
    let mut two = Engine::with_options(host.roots(), options.clone(), host.kernel.clone());
    one.apply(&create("net")).unwrap();
    two.apply(&create("other")).unwrap();
    let held = Store::open(&host.roots(), Access::Write).unwrap();
    let error = one.apply(&remove("net")).unwrap_err();
    assert_eq!(error.exit_code(), 1, "{error}");
    drop(held);
    one.apply(&remove("net")).unwrap();
}
