//! The administrator's chain: first to judge, and never touched.
#![allow(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::net::SocketAddr;
use std::path::Path;

use mydocker_tests::{Call, Host};

fn call(from: &Path, to: &str, server: &Path) -> bool {
    let to: SocketAddr = to.parse().unwrap();
    let port = 80;
    Call {
        from,
        to,
        server,
        port,
    }
    .tcp()
    .is_ok()
}

fn chain(host: &Host) -> String {
    let table = host.sh("nft list tables inet | grep mydocker | cut -d' ' -f3");
    host.sh(&format!("nft list chain inet {} admin", table.trim()))
}

/// portmap before 0.7.5 (CVE-2019-9946) put its rules before the administrator's.
#[test]
fn an_administrator_judges_first_and_no_command_of_ours_forgets_it() {
    let Some(host) = Host::new() else { return };
    let before = host.snapshot();
    let lan = host.neighbour("lan0", "192.0.2.1/24", "192.0.2.9/24");
    let with_lan = host.snapshot();
    host.ok("network create --subnet 10.1.0.0/24 n");
    let web = host.sandbox("web");
    host.connect("n", "web", &web, "-p 8080:80 -p 8081:80");
    let at = |port| format!("192.0.2.1:{port}");
    assert!(call(&lan, &at(8080), &web));
    // By the port that the outside sees, not the one that it was rewritten to.
    let table = host.sh("nft list tables inet | cut -d' ' -f3");
    let admin = format!("inet {} admin", table.trim());
    host.sh(&format!(
        "nft 'add rule {admin} iifname lan0 meta l4proto tcp ct original proto-dst 8080 drop'"
    ));
    let rules = chain(&host);
    let judged = |what: &str| {
        assert!(!call(&lan, &at(8080), &web), "{what}");
        assert!(call(&lan, &at(8081), &web), "{what}");
        assert_eq!(chain(&host), rules, "{what}");
    };
    judged("at once");
    assert_eq!(host.ok("network repair --dry-run"), "nothing to do\n");
    for damage in ["flush chain", "delete rule"] {
        let forward = format!("inet {} forward", table.trim());
        let handle = host.sh(&format!(
            "nft -a list chain {forward} | grep -o 'handle [0-9]*$'"
        ));
        let last = handle.lines().last().unwrap();
        let place = if damage == "delete rule" { last } else { "" };
        host.sh(&format!("nft {damage} {forward} {place}"));
        host.ok("network repair");
        judged(damage);
        assert_eq!(host.ok("network repair --dry-run"), "nothing to do\n");
    }
    // Gone with the last network but for the rule, which then judges nothing, and back again.
    host.ok("network disconnect n web");
    host.ok("network remove n");
    assert_eq!(chain(&host), rules);
    assert!(!host.sh("nft list ruleset").contains("hook"));
    host.ok("network create --subnet 10.1.0.0/24 n");
    host.connect("n", "web", &web, "-p 8080:80 -p 8081:80");
    judged("after the network was made again");
    host.ok("network disconnect n web");
    host.sh(&format!("nft flush chain {admin}"));
    host.ok("network remove n");
    host.assert_as(&with_lan);
    host.sh("ip link del lan0");
    host.assert_as(&before);
}
