//! What somebody else changed is told in words, and repaired with the smallest plan.
#![allow(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::path::PathBuf;

use mydocker_exec_netlink::netns;
use mydocker_tests::{Call, Host};

/// A network with a container that publishes a port.
fn site() -> Option<(Host, PathBuf)> {
    let host = Host::new()?;
    host.ok("network create --subnet 10.1.0.0/24 --ipv6 n");
    let web = host.sandbox("web");
    host.connect("n", "web", &web, "-p 8080:80");
    assert_eq!(host.ok("network check"), "");
    Some((host, web))
}

/// What `network check` says when something is wrong.
fn check(host: &Host) -> String {
    let output = host.mydocker("network check");
    assert_eq!(output.status.code(), Some(4));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_is_told_and_repaired() {
    let Some((host, web)) = site() else { return };
    let inside = format!("nsenter --net={}", web.display());
    let elsewhere = host.sandbox("elsewhere");
    let elsewhere = elsewhere.display();
    for (damage, said) in [
        (
            "nft flush ruleset",
            "the ruleset of tables inet and bridge mydocker",
        ),
        (
            "nft delete element inet $table publish4 '{ tcp . 8080 }'",
            "published port 8080/tcp to 10.1.0.2:80 (container web on n) is missing",
        ),
        (
            "nft add element inet $table publish4 '{ tcp . 9 : 10.1.0.9 . 9 }'",
            "published port 9/tcp to 10.1.0.9:9 is there, and nobody wants it",
        ),
        ("ip link del dev n", "bridge n is missing, and "),
        ("ip link set dev n mtu 1400", "bridge n was changed: "),
        // The group of internal networks; where it is the other way round, an older version made the bridge.
        (
            "ip link set dev n group $((0x69000000 | 0x${table#*_}))",
            "bridge n was changed: ",
        ),
        (
            "ip link del dev $cable",
            " (container web on n) is missing, and ",
        ),
        (
            "ip link set dev $cable nomaster",
            " on bridge n (container web on n) is missing",
        ),
        (
            "$inside ip link set eth0 netns $elsewhere",
            " (container web on n) was changed: somebody took its other end away",
        ),
        (
            "$inside ip link set eth0 netns $host",
            " (container web on n) was changed: somebody took its other end away",
        ),
        (
            "ip link set dev $cable netns $elsewhere",
            " (container web on n) is missing, and ",
        ),
        (
            "ip addr del 10.1.0.1/24 dev n",
            "address 10.1.0.1/24 of n is missing",
        ),
        (
            "$inside ip addr flush dev eth0",
            "address 10.1.0.2/24 of eth0 in ",
        ),
        (
            "$inside ip route del default",
            "route 0.0.0.0/0 via 10.1.0.1 of eth0 in ",
        ),
        (
            "sysctl -qw net.ipv4.conf.n.route_localnet=0",
            "setting route_localnet=1 of n is missing",
        ),
        (
            "sysctl -qw net.ipv4.ip_forward=0",
            "IPv4 forwarding is missing",
        ),
    ] {
        host.sh(&format!(
            "table=$(nft list tables inet | cut -d' ' -f3)
             cable=$(ls /sys/class/net >/dev/null; ip -o link | grep -o 'mdv[0-9a-f]*' | head -1)
             inside='{inside}' elsewhere={elsewhere} host={}
             {damage}",
            host.ns().display()
        ));
        let told = check(&host);
        assert!(told.contains(said), "{damage}: {told}");
        host.ok("network repair");
        assert_eq!(host.ok("network check"), "", "{damage}");
        assert_eq!(
            host.ok("network repair --dry-run"),
            "nothing to do\n",
            "{damage}"
        );
        let call = Call {
            from: host.ns(),
            to: "127.0.0.1:8080".parse().unwrap(),
            server: &web,
            port: 80,
        };
        call.tcp()
            .unwrap_or_else(|error| panic!("after {damage}: {error}"));
    }
}

#[test]
fn a_dead_container_is_one_line() {
    let Some((host, web)) = site() else { return };
    netns::remove(&web).unwrap();
    assert_eq!(check(&host), "container web on n is gone\n");
    let json = host.mydocker("network check --format json").stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["drift"][0]["kind"], "dead");
    assert_eq!(json["drift"][0]["of"]["container"], "web");
}

/// Somebody's interface has the name of our bridge, and keeps it.
#[test]
fn a_squatter_is_named_and_left_alone() {
    let Some((host, _web)) = site() else { return };
    host.sh("ip link del dev n; ip link add name n type veth peer name squatter");
    let told = check(&host);
    assert!(
        told.contains("bridge n is missing, and something that is not ours has its name"),
        "{told}"
    );
    let before = host.sh("ip -o link show dev n");
    let said = host.fails(4, "network repair");
    assert!(said.contains("belongs to somebody else"), "{said}");
    assert_eq!(host.sh("ip -o link show dev n"), before);
    host.sh("ip link del dev n");
    host.ok("network repair");
    assert_eq!(host.ok("network check"), "");
}

#[test]
fn a_damaged_definition_is_named() {
    let Some((host, _web)) = site() else { return };
    host.ok("network create other");
    let file = host.dir().join("lib/network/other.json");
    std::fs::write(&file, "{").unwrap();
    let told = check(&host);
    assert!(told.contains("other.json"), "{told}");
}
