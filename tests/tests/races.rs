//! Many processes at once on the same networks, and an embedded engine among them: each change is
//! made as a whole and none is lost.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use mydocker::store::{Access, Options, Roots, Store};
use mydocker_core::{AttachSpec, EndpointId, NetworkSpec, Request};
use mydocker_tests::Host;
use serde_json::Value;

const PROCESSES: u64 = 64;
/// Commands that each place runs, one after the other.
const ROUNDS: usize = 3;
const NETWORKS: [&str; 3] = ["red", "green", "blue"];
const CONTAINERS: usize = 6;
/// Few, so that many want the same.
const PORTS: std::ops::Range<u64> = 8000..8008;

/// Numbers that differ, and are the same in every run.
struct Dice(u64);

impl Dice {
    /// One of so many, by xorshift.
    fn roll(&mut self, faces: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % faces as u64).unwrap()
    }
}

/// Something that may be there once: a network, or an endpoint by network and container.
type Thing = (String, Option<String>);

/// How often each thing came and did not go.
#[derive(Default)]
struct Tally(Mutex<BTreeMap<Thing, i32>>);

impl Tally {
    fn count(&self, thing: Thing, change: i32) {
        *self.0.lock().unwrap().entry(thing).or_default() += change;
    }

    fn there(self) -> BTreeSet<Thing> {
        let counts = self.0.into_inner().unwrap().into_iter();
        let counts = counts.filter(|(_, count)| *count != 0);
        counts
            .map(|(thing, count)| {
                assert_eq!(count, 1, "{thing:?} came twice, or went twice");
                thing
            })
            .collect()
    }
}

/// What one place does next: the command, and what it does to a thing.
fn next(dice: &mut Dice, sandboxes: &[PathBuf]) -> (String, Option<(Thing, i32)>) {
    let network = NETWORKS[dice.roll(NETWORKS.len())];
    let which = dice.roll(CONTAINERS);
    let (name, path) = (format!("c{which}"), sandboxes[which].display());
    let port = PORTS.start + dice.roll(8) as u64;
    let itself = || (network.to_owned(), None);
    let endpoint = || (network.to_owned(), Some(name.clone()));
    match dice.roll(11) {
        0 => (format!("network create {network}"), Some((itself(), 1))),
        1 => (format!("network remove {network}"), Some((itself(), -1))),
        2..=4 => (
            format!("network connect {network} {name} -p {port}:80 --netns {path}"),
            Some((endpoint(), 1)),
        ),
        5 | 6 => (
            format!("network disconnect {network} {name}"),
            Some((endpoint(), -1)),
        ),
        7 => (
            format!("network port add {network} {name} {port}:81/udp"),
            None,
        ),
        8 => (
            format!("network port rm {network} {name} {port}:81/udp"),
            None,
        ),
        9 => ("network repair".to_owned(), None),
        _ => ("network list".to_owned(), None),
    }
}

/// That a command did what it should, or was refused in so many words.
fn succeeded(line: &str, output: &Output) -> bool {
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => true,
        Some(1) => {
            assert!(said.starts_with("error: "), "{line}: {said}");
            // Its turn may not come in time on a slow machine: then somebody else had it.
            let locked = said.contains("is locked by");
            assert!(
                !locked || said.contains("is locked by pid "),
                "{line}: {said}"
            );
            false
        }
        _ => panic!("{line}: {output:?}"),
    }
}

fn mix(host: &Host, seed: u64, sandboxes: &[PathBuf], tally: &Tally) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..ROUNDS {
        let (line, change) = next(&mut dice, sandboxes);
        let done = succeeded(&line, &host.mydocker(&line));
        if let (true, Some((thing, change))) = (done, change) {
            tally.count(thing, change);
        }
    }
}

/// The same mix by the embedded engine.
fn mix_embedded(host: &Host, sandboxes: &[PathBuf], tally: &Tally) {
    let mut engine = host.engine(Options::default());
    let mut dice = Dice(7);
    for _ in 0..10 * ROUNDS {
        let network = NETWORKS[dice.roll(NETWORKS.len())];
        let which = dice.roll(CONTAINERS);
        let (request, thing, change) =
            embedded_request(&mut dice, network, which, &sandboxes[which]);
        match engine.apply(&request) {
            Ok(_) => tally.count(thing, change),
            Err(error) => assert_eq!(error.exit_code(), 1, "{request:?}: {error}"),
        }
    }
}

fn embedded_request(
    dice: &mut Dice,
    network: &str,
    which: usize,
    sandbox: &Path,
) -> (Request, Thing, i32) {
    let (name, container) = (network.parse().unwrap(), format!("c{which}"));
    let itself = (network.to_owned(), None);
    let endpoint = (network.to_owned(), Some(container.clone()));
    let container = container.parse().unwrap();
    match dice.roll(6) {
        0 => (Request::CreateNetwork(NetworkSpec::new(name)), itself, 1),
        1 => (Request::RemoveNetwork(name), itself, -1),
        2..4 => {
            let path = sandbox.to_str().unwrap().parse().unwrap();
            let spec = AttachSpec::new(name, container, path);
            (Request::Attach(spec), endpoint, 1)
        }
        _ => {
            let network = name;
            let id = EndpointId { network, container };
            (Request::Detach(id), endpoint, -1)
        }
    }
}

fn networks(host: &Host) -> Vec<Value> {
    serde_json::from_str(&host.ok("network list --format json")).unwrap()
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap()
}

/// Every network and endpoint there is; nothing that must be unique is there twice.
fn things(host: &Host) -> BTreeSet<Thing> {
    let (mut things, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for network in networks(host) {
        let name = text(&network, "name").to_owned();
        things.insert((name.clone(), None));
        let subnets = list(&network, "subnets")
            .iter()
            .map(|s| s["net"].to_string());
        let mut unique: Vec<String> = subnets.collect();
        for endpoint in list(&network, "endpoints") {
            let container = text(endpoint, "container").to_owned();
            things.insert((name.clone(), Some(container)));
            let own = list(endpoint, "addresses").iter().chain([&endpoint["mac"]]);
            unique.extend(own.map(|own| format!("{name} {own}")));
            let ports = list(endpoint, "ports").iter();
            unique.extend(ports.map(|port| {
                let [ip, number, protocol] =
                    ["host_ip", "host_port", "protocol"].map(|key| &port[key]);
                format!("{ip} {number} {protocol}")
            }));
            unique.push(format!("{} {}", endpoint["netns"], endpoint["ifname"]));
        }
        for one in unique {
            assert!(taken.insert(one.clone()), "{one} is there twice");
        }
    }
    things
}

fn remove(host: &Host, things: &BTreeSet<Thing>) {
    for (network, container) in things {
        if let Some(container) = container {
            host.ok(&format!("network disconnect {network} {container}"));
        }
    }
    for (network, _) in things.iter().filter(|(_, container)| container.is_none()) {
        host.ok(&format!("network remove {network}"));
    }
}

#[test]
fn a_mix_of_everything_by_sixty_four_processes_and_an_engine() {
    let Some(host) = Host::new() else { return };
    let sandboxes: Vec<_> = (0..CONTAINERS)
        .map(|which| host.sandbox(&format!("c{which}")))
        .collect();
    let before = host.snapshot();
    let tally = Tally::default();
    for network in NETWORKS {
        host.ok(&format!("network create {network}"));
        tally.count((network.to_owned(), None), 1);
    }
    thread::scope(|scope| {
        for seed in 1..=PROCESSES {
            let (host, sandboxes, tally) = (&host, &sandboxes, &tally);
            scope.spawn(move || mix(host, seed, sandboxes, tally));
        }
        scope.spawn(|| mix_embedded(&host, &sandboxes, &tally));
    });
    let things = things(&host);
    assert_eq!(things, tally.there(), "an update was lost");
    assert_eq!(host.ok("network repair --dry-run"), "nothing to do\n");
    remove(&host, &things);
    host.assert_as(&before);
}

/// Runs a line for each of so many numbers, all at once; all succeed.
fn all_at_once(host: &Host, line: impl Fn(u64) -> String + Sync) {
    thread::scope(|scope| {
        for number in 0..PROCESSES {
            let line = &line;
            scope.spawn(move || host.ok(&line(number)));
        }
    });
}

/// Where nobody is in the way of anybody, nobody is refused: subnets, addresses and free ports
/// are chosen for each.
#[test]
fn sixty_four_of_everything() {
    let Some(host) = Host::new() else { return };
    let sandboxes: Vec<_> = (0..PROCESSES)
        .map(|number| host.sandbox(&format!("c{number}")))
        .collect();
    let before = host.snapshot();
    host.ok("network create --subnet 10.1.0.0/24 --subnet fd01::/64 crowd");
    all_at_once(&host, |number| format!("network create n{number}"));
    all_at_once(&host, |number| {
        let sandbox = &sandboxes[usize::try_from(number).unwrap()];
        let path = sandbox.display();
        format!("network connect crowd c{number} -p 80 --netns {path}")
    });
    let things = things(&host);
    assert_eq!(things.len() as u64, 1 + 2 * PROCESSES);
    assert_eq!(host.ok("network repair --dry-run"), "nothing to do\n");
    all_at_once(&host, |number| {
        format!("network disconnect crowd c{number}")
    });
    all_at_once(&host, |number| format!("network remove n{number}"));
    host.ok("network remove crowd");
    host.assert_as(&before);
}

#[test]
fn who_has_the_lock_is_named_when_the_wait_is_over() {
    let Some(host) = Host::new() else { return };
    host.ok("network create n");
    let [(_, root), (_, run_root)] = host.environment();
    let store = Store::open(&Roots { root, run_root }, Access::Write).unwrap();
    let lock_wait = Duration::from_millis(50);
    let options = Options {
        lock_wait,
        ..Options::default()
    };
    let remove = Request::RemoveNetwork("n".parse().unwrap());
    let error = host.engine(options).apply(&remove).unwrap_err();
    let program = std::env::current_exe().unwrap();
    let program = program.file_name().unwrap().to_string_lossy();
    let holder = format!("locked by pid {} ({program}", std::process::id());
    assert!(error.to_string().contains(&holder), "{error}");
    assert_eq!(error.exit_code(), 1);
    // A command that came meanwhile has its turn once the lock is free.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| host.ok("network remove n"));
        drop(store);
        waiting.join().unwrap();
    });
}
