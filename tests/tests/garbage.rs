//! What containers that died without a word held comes back with the next command.
#![allow(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::path::Path;

use mydocker_exec_netlink::netns;
use mydocker_tests::{Call, Host};

#[test]
fn whoever_died_is_taken_off_by_the_next_command() {
    let Some(host) = Host::new() else { return };
    let before = host.snapshot();
    host.ok("network create --subnet 10.1.0.0/29 n");
    let with_network = host.snapshot();
    let leave = |sandbox: &Path| netns::remove(sandbox).unwrap();
    // Five addresses, and all five containers die: no address, name or port is lost for it.
    for round in 0..2 {
        let names: Vec<String> = (0..5).map(|n| format!("c{round}{n}")).collect();
        for (n, name) in names.iter().enumerate() {
            let sandbox = host.sandbox(name);
            host.connect("n", name, &sandbox, &format!("-p {}:80", 8080 + n));
            leave(&sandbox);
        }
    }
    let output = host.mydocker("network create --subnet 10.2.0.0/24 other");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("container `c14` is gone, and off network `n`"),
        "{said}"
    );
    assert_eq!(host.ok("network repair --dry-run"), "nothing to do\n");
    host.ok("network remove other");
    host.assert_as(&with_network);
    // The same name again, in another namespace.
    let first = host.sandbox("first");
    host.connect("n", "web", &first, "-p 8080:80");
    leave(&first);
    let second = host.sandbox("second");
    host.connect("n", "web", &second, "-p 8080:80");
    let call = Call {
        from: host.ns(),
        to: "127.0.0.1:8080".parse().unwrap(),
        server: &second,
        port: 80,
    };
    call.tcp().unwrap();
    leave(&second);
    host.ok("network remove n");
    host.assert_as(&before);
}

/// Repair looks at everybody, and a dry run of it says what it would take away.
#[test]
fn repair_takes_the_dead_off() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --subnet 10.1.0.0/24 n");
    let web = host.sandbox("web");
    host.connect("n", "web", &web, "-p 8080:80");
    netns::remove(&web).unwrap();
    let plan = host.ok("network repair --dry-run");
    assert!(plan.contains("DeleteDnat"), "{plan}");
    host.ok("network repair");
    assert_eq!(host.ok("network repair --dry-run"), "nothing to do\n");
    assert_eq!(
        host.ok("network inspect n")
            .matches("\"container\"")
            .count(),
        0
    );
}

/// What is held by whom, and what nobody alive holds goes.
#[test]
fn usage_is_listed_and_the_unused_pruned() {
    let Some(host) = Host::new() else { return };
    for network in ["used", "unused", "dead"] {
        host.ok(&format!("network create {network}"));
    }
    let (web, gone) = (host.sandbox("web"), host.sandbox("gone"));
    host.connect("used", "web", &web, "-p 8080:80");
    host.connect("dead", "gone", &gone, "");
    netns::remove(&gone).unwrap();
    let usage: serde_json::Value =
        serde_json::from_str(&host.ok("network df --format json")).unwrap();
    let leased = usage["subnets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["leased"].as_u64().unwrap());
    assert_eq!(leased.collect::<Vec<_>>(), [1, 0, 1]);
    let table = host.ok("network df");
    for cell in [
        "253",
        "web",
        "alive",
        "gone",
        "dead",
        "0.0.0.0:8080->80/tcp",
    ] {
        assert!(table.contains(cell), "{cell}: {table}");
    }
    let rules = host.sh("nft list ruleset");
    assert!(host.ok("network prune --dry-run").contains("DeleteBridge"));
    assert_eq!(host.sh("nft list ruleset"), rules, "a dry run");
    assert_eq!(host.ok("network prune"), "dead\nunused\n");
    assert_eq!(host.ok("network list --quiet"), "used\n");
    assert_eq!(host.ok("network prune"), "");
}
