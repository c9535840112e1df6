//! The original's defects that show on a host, one test each: the numbers are those of the list
//! in docs/seed-defects.md. Those of the planner alone are in seed_defects.rs.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::process::{Command, Stdio};

use mydocker_tests::{Call, Host};

/// 7: sixteen at once got five addresses, six of them twice.
#[test]
fn defect_07_concurrent_connects_get_distinct_addresses() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --subnet 10.7.0.0/24 crowd");
    let children: Vec<_> = (0..16)
        .map(|n| {
            let sandbox = host.sandbox(&format!("c{n}"));
            let mut command = host.mydocker_command("network connect --format json crowd");
            command.arg(format!("c{n}")).arg("--netns").arg(sandbox);
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut addresses = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let endpoint: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        addresses.push(endpoint["addresses"][0].as_str().unwrap().to_owned());
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 16, "{addresses:?}");
    let inspected: serde_json::Value =
        serde_json::from_str(&host.ok("network inspect crowd")).unwrap();
    assert_eq!(inspected[0]["endpoints"].as_array().unwrap().len(), 16);
}

/// 8: without --driver or --subnet, or with an unknown driver, it crashed and leaked an address.
#[test]
fn defect_08_flags_have_defaults_and_drivers_are_checked() {
    let Some(host) = Host::new() else { return };
    let before = host.snapshot();
    let said = host.fails(2, "network create --driver nosuch x");
    assert!(said.contains("`nosuch` is not a network driver"), "{said}");
    host.assert_as(&before);
    host.ok("network create plain");
    assert!(host.ok("network list").contains("plain"));
    host.ok("network remove plain");
    host.assert_as(&before);
}

/// 9: it took over any interface of that name, and deleted it with the network.
#[test]
fn defect_09_somebody_elses_interface_is_left_alone() {
    let Some(host) = Host::new() else { return };
    host.sh("ip link add precious type veth peer name peer");
    let before = host.snapshot();
    let said = host.fails(1, "network create --subnet 10.9.0.0/24 precious");
    assert!(said.contains("`precious`"), "{said}");
    host.assert_as(&before);
    // Behind its back as well: made after the network, in place of its bridge.
    host.ok("network create --subnet 10.9.0.0/24 mine");
    host.sh("ip link del mine; ip link add mine type veth peer name minepeer");
    host.ok("network remove mine");
    assert!(
        host.sh("ip -o link show mine").contains("mine"),
        "not ours any more"
    );
}

/// 10: a second network of the same name succeeded.
#[test]
fn defect_10_names_are_unique() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --subnet 10.10.0.0/24 twin");
    let before = host.snapshot();
    let said = host.fails(1, "network create --subnet 10.11.0.0/24 twin");
    assert!(said.contains("network `twin` exists already"), "{said}");
    host.assert_as(&before);
}

/// 11: names were not checked; over 15 bytes they failed late, and `../../x` became a path.
#[test]
fn defect_11_names_are_checked_and_long_ones_work() {
    let Some(host) = Host::new() else { return };
    let before = host.snapshot();
    host.fails(2, "network create ../../x");
    host.assert_as(&before);
    host.ok("network create --subnet 10.11.0.0/24 a-name-longer-than-an-interface");
    let bridges = host.sh("ip -o link show type bridge");
    assert!(bridges.contains(": md-"), "{bridges}");
    host.ok("network remove a-name-longer-than-an-interface");
    host.assert_as(&before);
}

/// 12: overlapping subnets and clashes with the host's routes went unnoticed.
#[test]
fn defect_12_subnets_must_not_clash() {
    let Some(host) = Host::new() else { return };
    let _lan = host.neighbour("lan", "10.12.0.1/16", "10.12.0.9/16");
    let said = host.fails(1, "network create --subnet 10.12.5.0/24 clash");
    assert!(said.contains("10.12.0.0/16"), "{said}");
    host.ok("network create --subnet 10.13.0.0/24 first");
    let said = host.fails(1, "network create --subnet 10.13.0.128/25 second");
    assert!(said.contains("`first`"), "{said}");
}

/// 13: words after the port became words of iptables.
#[test]
fn defect_13_a_port_is_nothing_but_a_port() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --subnet 10.13.0.0/24 n");
    let sandbox = host.sandbox("c");
    let before = host.snapshot();
    let mut command = host.mydocker_command("network connect n c -p");
    command
        .arg("81 -m comment --comment pwned:80")
        .arg("--netns")
        .arg(&sandbox);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not a port to publish"));
    host.assert_as(&before);
}

/// 14: anything but HOST:CONTAINER over TCP was logged, and then ignored.
#[test]
fn defect_14_a_bad_port_is_an_error() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --subnet 10.14.0.0/24 n");
    let sandbox = host.sandbox("c");
    let path = sandbox.display();
    for port in [
        ":80",
        "0:80",
        "80:0",
        "80:80/icmp",
        "65536:80",
        "::1:80:80",
        "9000-9010:80",
    ] {
        host.fails(2, &format!("network connect n c -p {port} --netns {path}"));
    }
    let said = host.fails(
        1,
        &format!("network connect n c -p [::1]:80:80 --netns {path}"),
    );
    assert!(said.contains("no address of that family"), "{said}");
}

/// 15: a second container on the same port was silently dead.
#[test]
fn defect_15_a_port_has_one_owner() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --subnet 10.15.0.0/24 n");
    let (a, b) = (host.sandbox("a"), host.sandbox("b"));
    host.connect("n", "a", &a, "-p 8080:80");
    let before = host.snapshot();
    for port in ["8080:81", "127.0.0.1:8080:80"] {
        let said = host.fails(
            1,
            &format!("network connect n b -p {port} --netns {}", b.display()),
        );
        assert!(
            said.contains("held by container `a` on network `n`"),
            "{said}"
        );
        host.assert_as(&before);
    }
    host.connect("n", "b", &b, "-p 8080:80/udp");
}

/// 16: forwarding was off, and nothing but PREROUTING was rewritten; netns.rs has the packets.
#[test]
fn defect_16_forwarding_is_turned_on() {
    let Some(host) = Host::new() else { return };
    assert_eq!(host.sh("sysctl -n net.ipv4.ip_forward").trim(), "0");
    let plan = host.ok("network create --dry-run --subnet 10.16.0.0/24 n");
    assert!(plan.contains("EnableForwarding"), "{plan}");
    assert_eq!(
        host.sh("sysctl -n net.ipv4.ip_forward").trim(),
        "0",
        "a dry run touches nothing"
    );
    host.ok("network create --subnet 10.16.0.0/24 n");
    assert_eq!(host.sh("sysctl -n net.ipv4.ip_forward").trim(), "1");
}

/// 18: failures exited with 0.
#[test]
fn defect_18_failures_have_exit_codes() {
    let Some(host) = Host::new() else { return };
    host.fails(1, "network remove nosuch");
    host.fails(1, "network disconnect nosuch c");
    host.fails(1, "network inspect nosuch");
    host.fails(2, "network create");
    host.fails(2, "nosuch");
    host.fails(1, "stop nosuch");
    host.fails(1, "rm nosuch");
    host.fails(1, "logs nosuch");
}

/// 21: a network was removed from under its containers.
#[test]
fn defect_21_a_network_in_use_stays() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --subnet 10.21.0.0/24 n");
    let sandbox = host.sandbox("web");
    host.connect("n", "web", &sandbox, "");
    let before = host.snapshot();
    let said = host.fails(1, "network remove n");
    assert!(said.contains("disconnect web first"), "{said}");
    host.assert_as(&before);
}

/// 22: after a reboot networks could be neither used nor removed.
#[test]
fn defect_22_networks_survive_a_reboot() {
    let Some(host) = Host::new() else { return };
    for network in ["used", "unused"] {
        host.ok(&format!("network create {network}"));
    }
    let sandbox = host.sandbox("web");
    let first = host.connect("used", "web", &sandbox, "-p 8080:80");
    // What a reboot does: /run and the kernel forget, the disk does not.
    std::fs::remove_dir_all(host.dir().join("run")).unwrap();
    host.sh("ip link del used; ip link del unused; nft flush ruleset");
    host.sh("for l in $(ip -o link | grep -o 'mdv[0-9a-f]*'); do ip link del $l; done");
    let sandbox = host.sandbox("web2");
    let again = host.connect("used", "web", &sandbox, "-p 8080:80");
    assert_eq!(first, again, "no address is leased to the dead");
    let call = Call {
        from: host.ns(),
        to: "127.0.0.1:8080".parse().unwrap(),
        server: &sandbox,
        port: 80,
    };
    call.tcp().unwrap();
    host.ok("network remove unused");
    host.ok("network disconnect used web");
    host.ok("network remove used");
    assert_eq!(host.sh("nft list ruleset"), "");
}

/// 23: five digits named an interface, and a container on two networks always collided.
#[test]
fn defect_23_interface_names_do_not_collide() {
    let Some(host) = Host::new() else { return };
    let sandbox = host.sandbox("web");
    for network in ["one", "two", "three"] {
        host.ok(&format!("network create {network}"));
        host.connect(network, "web", &sandbox, "");
    }
    let inside = host.sh(&format!("nsenter --net={} ip -o link", sandbox.display()));
    for name in ["eth0", "eth1", "eth2"] {
        assert!(inside.contains(&format!(" {name}@")), "{inside}");
    }
    let defaults = host.sh(&format!(
        "nsenter --net={} ip route show default",
        sandbox.display()
    ));
    assert_eq!(defaults.lines().count(), 1, "{defaults}");
}

/// 24: a disconnect always failed, and nobody heard of it.
#[test]
fn defect_24_disconnect_works_and_a_second_one_says_so() {
    let Some(host) = Host::new() else { return };
    host.ok("network create n");
    let sandbox = host.sandbox("web");
    host.connect("n", "web", &sandbox, "-p 8080:80");
    host.ok("network disconnect n web");
    let said = host.fails(1, "network disconnect n web");
    assert!(
        said.contains("container `web` is not on network `n`"),
        "{said}"
    );
}

/// A namespace that is not there is refused, and so is a file that is none.
#[test]
fn a_namespace_must_be_one() {
    let Some(host) = Host::new() else { return };
    host.ok("network create n");
    let before = host.snapshot();
    for path in ["/nosuch/netns", "/etc/passwd", "nosuch"] {
        host.fails(1, &format!("network connect n web --netns {path}"));
        host.assert_as(&before);
    }
}

/// Everything of the network is done by this process: none is started.
#[test]
fn no_process_is_started() {
    let Some(host) = Host::new() else { return };
    let sandbox = host.sandbox("web");
    let trace = host.dir().join("trace");
    for line in [
        "network create --subnet 10.30.0.0/24 --ipv6 n".to_owned(),
        format!(
            "network connect n web -p 8080:80 --netns {}",
            sandbox.display()
        ),
        "network disconnect n web".to_owned(),
        "network remove n".to_owned(),
    ] {
        let mydocker = host.mydocker_command(&line);
        let status = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=execve,execveat,fork,vfork", "-o"])
            .arg(&trace)
            .arg(mydocker.get_program())
            .args(mydocker.get_args())
            .envs(host.environment())
            .status()
            .unwrap();
        assert!(status.success(), "{line}");
        let calls = std::fs::read_to_string(&trace).unwrap();
        let started = calls.lines().filter(|call| call.contains("exec")).count();
        assert_eq!(
            started, 2,
            "nsenter and mydocker themselves, and nothing else\n{calls}"
        );
    }
}

/// Somebody flushes the firewall, removes a bridge or kills a container: repair brings back what
/// is wanted, and has nothing to do the second time.
#[test]
fn repair_brings_back_what_somebody_took_away() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --subnet 10.31.0.0/24 n");
    let (web, dead) = (host.sandbox("web"), host.sandbox("dead"));
    host.connect("n", "web", &web, "-p 8080:80");
    host.connect("n", "dead", &dead, "-p 8081:80");
    let call = || {
        Call {
            from: host.ns(),
            to: "127.0.0.1:8080".parse().unwrap(),
            server: &web,
            port: 80,
        }
        .tcp()
    };
    call().unwrap();
    assert_eq!(host.ok("network repair --dry-run"), "nothing to do\n");
    mydocker_exec_netlink::netns::remove(&dead).unwrap();
    for damage in [
        "nft flush ruleset",
        "ip link del dev n",
        "ip addr flush dev n",
        "sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.n.route_localnet=0",
    ] {
        host.sh(damage);
        assert_ne!(
            host.ok("network repair --dry-run"),
            "nothing to do\n",
            "{damage}"
        );
        host.ok("network repair");
        call().unwrap_or_else(|error| panic!("after {damage}: {error}"));
        assert_eq!(
            host.ok("network repair --dry-run"),
            "nothing to do\n",
            "{damage}"
        );
    }
    let said = host.fails(1, "network disconnect n dead");
    assert!(said.contains("is not on network `n`"), "{said}");
}
