//! `kill -9` before every system call of every command that changes a network, on a real kernel:
//! the next command finds a kernel and a state that agree, and no file that nobody owns.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

use mydocker_tests::tracer::kill_before;
use mydocker_tests::{Host, Trial};

#[track_caller]
fn kill_everywhere(trial: &Trial) {
    let kills = trial.run(|command, number| kill_before(command, 1, number));
    assert!(kills > 10, "the tracer saw little of it: {kills} calls");
}

/// A host with a network of both families, and on it a container that publishes ports.
fn host_with_container() -> Option<(Host, String)> {
    let host = Host::new()?;
    host.ok("network create --subnet 10.1.0.0/24 --subnet fd01::/64 n");
    let web = host.sandbox("web");
    let connect = format!(
        "network connect n web --ip 10.1.0.9,fd01::9 -p 8080:80 -p 53:53/udp --netns {}",
        web.display()
    );
    host.ok(&connect);
    Some((host, connect))
}

/// That the host is as any other on which there was a network once.
fn assert_clean(host: &Host) {
    let files: Vec<_> = std::fs::read_dir(host.dir().join("lib/network"))
        .unwrap()
        .collect();
    assert!(files.is_empty(), "{files:?}");
    assert_eq!(host.sh("nft list ruleset"), "");
    let links = host.sh("ip -o link");
    assert_eq!(links.lines().count(), 1, "{links}");
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
    let Some((host, connect)) = host_with_container() else {
        return;
    };
    host.ok("network disconnect n web");
    let before = host.snapshot();
    kill_everywhere(&Trial::new(&host, connect, &["network disconnect n web"]));
    host.assert_as(&before);
    host.ok("network remove n");
    assert_clean(&host);
}

#[test]
fn disconnecting() {
    let Some((host, connect)) = host_with_container() else {
        return;
    };
    kill_everywhere(&Trial::new(&host, "network disconnect n web", &[&connect]));
    host.ok("network disconnect n web");
    host.ok("network remove n");
    assert_clean(&host);
}

#[test]
fn publishing_and_unpublishing() {
    let Some((host, _)) = host_with_container() else {
        return;
    };
    let before = host.snapshot();
    let (add, rm) = (
        "network port add n web 8081:81 8082:82/udp",
        "network port rm n web 8081:81 8082:82/udp",
    );
    kill_everywhere(&Trial::new(&host, add, &[rm]));
    host.assert_as(&before);
    host.ok(add);
    kill_everywhere(&Trial::new(&host, rm, &[add]));
    host.ok(rm);
    host.assert_as(&before);
}

#[test]
fn repairing() {
    let Some((host, _)) = host_with_container() else {
        return;
    };
    let before = host.snapshot();
    kill_everywhere(&Trial {
        damage: "nft flush ruleset; ip addr del 10.1.0.1/24 dev n; ip addr del fd01::1/64 dev n",
        ..Trial::new(&host, "network repair", &[])
    });
    host.assert_as(&before);
    host.ok("network disconnect n web");
    host.ok("network remove n");
    assert_clean(&host);
}

/// Who comes after dies as well, before each of its calls, and a third one finds all well.
#[test]
fn undoing_what_a_dead_process_added() {
    let Some((host, connect)) = host_with_container() else {
        return;
    };
    host.ok("network disconnect n web");
    let before = host.snapshot();
    kill_twice(&Trial::new(&host, connect, &["network disconnect n web"]));
    host.assert_as(&before);
}

#[test]
fn finishing_what_a_dead_process_began_to_remove() {
    let Some((host, connect)) = host_with_container() else {
        return;
    };
    kill_twice(&Trial::new(&host, "network disconnect n web", &[&connect]));
    host.ok("network disconnect n web");
    host.ok("network remove n");
    assert_clean(&host);
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
