//! `kill -9` before every system call of every command that changes a network, on a real kernel:
//! the next command finds a kernel and a state that agree, and no file that nobody owns.

use mydocker_tests::tracer::{kill_before, kill_split_before};
use mydocker_tests::{Host, Trial};

#[track_caller]
fn kill_everywhere(trial: &Trial) {
    let kills = trial.run(|command, number| kill_before(command, 1, number));
    assert!(kills > 10, "the tracer saw little of it: {kills} calls");
}

/// A host with a network of both families, and on it a container that publishes ports.
struct Busy {
    host: Host,
    /// What the host was before.
    before: String,
    connect: String,
}

const DISCONNECT: &str = "network disconnect n web";

impl Busy {
    fn new() -> Option<Self> {
        let host = Host::new()?;
        let before = host.snapshot();
        host.ok("network create --subnet 10.1.0.0/24 --subnet fd01::/64 n");
        let web = host.sandbox("web");
        let connect = format!(
            "network connect n web --ip 10.1.0.9,fd01::9 -p 8080:80 -p 53:53/udp --netns {}",
            web.display()
        );
        host.ok(&connect);
        Some(Self {
            host,
            before,
            connect,
        })
    }

    /// Nothing is left. The bridge's link-local address comes when it has had a carrier for a
    /// moment, so only a host without it is the same as before.
    fn end(&self) {
        self.host.ok(DISCONNECT);
        self.host.ok("network remove n");
        self.host.assert_as(&self.before);
    }
}

/// The first command on a host makes the directories, too.
#[test]
fn creating_the_first_network() {
    let Some(host) = Host::new() else { return };
    let before = host.snapshot();
    let create = "network create --subnet 10.1.0.0/24 n";
    kill_everywhere(&Trial {
        tidy: &format!("rm -rf {0}/lib {0}/run", host.dir().display()),
        ..Trial::new(&host, create, &["network remove n"])
    });
    host.assert_as(&before);
}

#[test]
fn creating_a_network_of_both_families() {
    let Some(host) = Host::new() else { return };
    let before = host.snapshot();
    host.ok("network create --subnet 10.2.0.0/24 other");
    let create = "network create --subnet 10.1.0.0/24 --subnet fd01::/64 n";
    kill_everywhere(&Trial::new(&host, create, &["network remove n"]));
    host.ok("network remove other");
    host.assert_as(&before);
}

#[test]
fn removing_a_network() {
    let Some(host) = Host::new() else { return };
    let before = host.snapshot();
    let create = "network create --subnet 10.1.0.0/24 --subnet fd01::/64 n";
    host.ok(create);
    kill_everywhere(&Trial::new(&host, "network remove n", &[create]));
    host.ok("network remove n");
    host.assert_as(&before);
}

#[test]
fn connecting() {
    let Some(busy) = Busy::new() else { return };
    busy.host.ok(DISCONNECT);
    kill_everywhere(&Trial::new(&busy.host, &busy.connect, &[DISCONNECT]));
    busy.host.ok(&busy.connect);
    busy.end();
}

#[test]
fn disconnecting() {
    let Some(busy) = Busy::new() else { return };
    kill_everywhere(&Trial::new(&busy.host, DISCONNECT, &[&busy.connect]));
    busy.end();
}

/// All cables at once, by a group of links, and everybody's firewall elements in one batch.
#[test]
fn removing_a_network_with_all_on_it() {
    let Some(host) = Host::new() else { return };
    let before = host.snapshot();
    let mut back = vec!["network create --subnet 10.1.0.0/24 n".to_owned()];
    for number in 0..5 {
        let netns = host.sandbox(&format!("c{number}"));
        let (port, netns) = (8000 + number, netns.display());
        back.push(format!(
            "network connect n c{number} -p {port}:80 --netns {netns}"
        ));
    }
    back.iter().for_each(|line| drop(host.ok(line)));
    let undo: Vec<&str> = back.iter().map(String::as_str).collect();
    let remove = "network remove --force n";
    kill_everywhere(&Trial::new(&host, remove, &undo));
    host.ok(remove);
    host.assert_as(&before);
}

#[test]
fn publishing_and_unpublishing() {
    let Some(busy) = Busy::new() else { return };
    let (add, rm) = (
        "network port add n web 8081:81 8082:82/udp",
        "network port rm n web 8081:81 8082:82/udp",
    );
    kill_everywhere(&Trial::new(&busy.host, add, &[rm]));
    busy.host.ok(add);
    kill_everywhere(&Trial::new(&busy.host, rm, &[add]));
    busy.end();
}

#[test]
fn repairing() {
    let Some(busy) = Busy::new() else { return };
    kill_everywhere(&Trial {
        damage: "nft flush ruleset; ip addr del 10.1.0.1/24 dev n; ip addr del fd01::1/64 dev n",
        ..Trial::new(&busy.host, "network repair", &[])
    });
    busy.end();
}

/// Who waits for the kernel in a command's place dies; the command does without.
#[test]
fn waiting_for_the_kernel() {
    let Some(busy) = Busy::new() else { return };
    let (add, rm) = (
        "network port add n web 8081:81",
        "network port rm n web 8081:81",
    );
    // To send, to say so, to end; who removes no link has nothing to send.
    for (line, undo, places) in [(DISCONNECT, busy.connect.as_str(), 3), (rm, add, 2)] {
        if line == rm {
            busy.host.ok(add);
        }
        let trial = Trial::new(&busy.host, line, &[undo]);
        assert_eq!(trial.run(kill_split_before), places, "{line}");
    }
    busy.end();
}

/// Until then, `check` says what it was.
#[test]
fn what_a_dead_process_left_is_told() {
    let Some(busy) = Busy::new() else { return };
    busy.host.ok(DISCONNECT);
    let connect = busy.host.mydocker_command(&busy.connect);
    let told = (0..).find_map(|number| {
        assert!(
            kill_before(&connect, 1, number).met.is_some(),
            "it was never begun"
        );
        let output = busy.host.mydocker("network check");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code() == Some(4)).then_some(told)
    });
    let told = told.unwrap();
    assert!(
        told.contains("a process died before this was done: web on n attached"),
        "{told}"
    );
    busy.host.ok("network repair");
    assert_eq!(busy.host.ok("network check"), "");
    busy.host.ok(&busy.connect);
    busy.end();
}

/// Who comes after dies as well, before each of its calls, and a third one finds all well.
#[test]
fn undoing_what_a_dead_process_added() {
    let Some(busy) = Busy::new() else { return };
    busy.host.ok(DISCONNECT);
    kill_twice(&Trial::new(&busy.host, &busy.connect, &[DISCONNECT]));
    busy.host.ok(&busy.connect);
    busy.end();
}

#[test]
fn finishing_what_a_dead_process_began_to_remove() {
    let Some(busy) = Busy::new() else { return };
    kill_twice(&Trial::new(&busy.host, DISCONNECT, &[&busy.connect]));
    busy.end();
}

fn kill_twice(trial: &Trial) {
    // The first kill is everywhere in the other tests; a few places will do here.
    const STRIDE: usize = 9;
    let (mut first, mut second) = (STRIDE, 0);
    trial.run(|command, _| {
        let died = kill_before(command, 1, first);
        if died.met.is_none() {
            return died;
        }
        let next = trial.host.mydocker_command("network remove nosuch");
        if kill_before(&next, 1, second).met.is_some() {
            second += 1;
        } else {
            (first, second) = (first + STRIDE, 0);
        }
        died
    });
}
