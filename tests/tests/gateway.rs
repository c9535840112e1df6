//! Gateway modes and trusted interfaces, with real packets.
#![allow(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use mydocker_tests::{Call, Host};

fn call<'a>(from: &'a Path, to: impl Into<IpAddr>, port: u16, server: &'a Path) -> Call<'a> {
    let to = SocketAddr::new(to.into(), port);
    Call {
        from,
        to,
        server,
        port,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A route of a neighbour through the host.
fn route(host: &Host, neighbour: &Path, to: &str, via: &str) {
    let there = neighbour.display();
    host.sh(&format!(
        "nsenter --net={there} ip route add {to} via {via}"
    ));
}

#[test]
fn a_routed_network_translates_nothing_and_opens_published_ports_only() {
    let Some(host) = Host::new() else { return };
    let lan4 = host.neighbour("lan4", "192.0.2.1/24", "192.0.2.9/24");
    let lan6 = host.neighbour("lan6", "2001:db8::1/64", "2001:db8::9/64");
    host.ok("network create --subnet 10.1.0.0/24 --subnet fd00:1::/64 --opt gateway-mode=routed r");
    host.ok("network create --subnet 10.2.0.0/24 --subnet fd00:2::/64 n");
    route(&host, &lan4, "10.1.0.0/24", "192.0.2.1");
    route(&host, &lan6, "fd00:1::/64", "2001:db8::1");
    let (web, other) = (host.sandbox("web"), host.sandbox("other"));
    let addresses = host.connect("r", "web", &web, "-p 8080:80 -p 53/udp");
    host.connect("n", "other", &other, "");
    let ports = host.ok("network port ls r web");
    for address in &addresses {
        assert!(ports.contains(&format!("{address}")), "{ports}");
        let (lan, seen) = match address {
            IpAddr::V4(_) => (&lan4, ip("192.0.2.9")),
            IpAddr::V6(_) => (&lan6, ip("2001:db8::9")),
        };
        // In: open at the container's own address, and nothing but what is published.
        assert_eq!(call(lan, *address, 80, &web).tcp().unwrap(), seen);
        assert_eq!(call(lan, *address, 53, &web).udp().unwrap(), seen);
        assert!(call(lan, *address, 81, &web).tcp().is_err());
        assert!(call(lan, *address, 80, &web).udp().is_err());
        // From another network alike.
        assert!(call(&other, *address, 80, &web).tcp().is_ok());
        assert!(call(&other, *address, 81, &web).tcp().is_err());
        // Out: under the container's own address.
        assert_eq!(call(&web, seen, 9000, lan).tcp().unwrap(), *address);
    }
    // No port of the host is taken.
    assert!(call(&lan4, ip("192.0.2.1"), 8080, &web).tcp().is_err());
    assert!(call(host.ns(), ip("127.0.0.1"), 8080, &web).tcp().is_err());
    host.ok("network port add n other 8080:80");
    // While it runs, and without the host's port: it never had one.
    host.ok("network port rm r web 8080:80");
    assert!(call(&lan4, addresses[0], 80, &web).tcp().is_err());
    assert_eq!(host.ok("network repair --dry-run"), "nothing to do\n");
}

#[test]
fn modes_are_a_familys_own() {
    let Some(host) = Host::new() else { return };
    let lan4 = host.neighbour("lan4", "192.0.2.1/24", "192.0.2.9/24");
    let lan6 = host.neighbour("lan6", "2001:db8::1/64", "2001:db8::9/64");
    host.ok(
        "network create --subnet 10.1.0.0/24 --subnet fd00:1::/64 --opt gateway-mode-ipv6=routed n",
    );
    route(&host, &lan6, "fd00:1::/64", "2001:db8::1");
    let web = host.sandbox("web");
    let addresses = host.connect("n", "web", &web, "-p 8080:80");
    let published = Call {
        from: &lan4,
        to: "192.0.2.1:8080".parse().unwrap(),
        server: &web,
        port: 80,
    };
    assert_eq!(published.tcp().unwrap(), ip("192.0.2.9"));
    assert_eq!(
        call(&web, ip("192.0.2.9"), 9000, &lan4).tcp().unwrap(),
        ip("192.0.2.1")
    );
    let own = addresses[1];
    assert_eq!(call(&lan6, own, 80, &web).tcp().unwrap(), ip("2001:db8::9"));
    assert_eq!(
        call(&web, ip("2001:db8::9"), 9000, &lan6).tcp().unwrap(),
        own
    );
}

#[test]
fn an_isolated_family_has_no_host_on_its_bridge() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --subnet 10.1.0.0/24 --opt gateway-mode=isolated i");
    assert_eq!(host.sh("ip -o addr show dev i scope global"), "");
    let (a, b) = (host.sandbox("a"), host.sandbox("b"));
    let [first] = host.connect("i", "a", &a, "")[..] else {
        panic!()
    };
    host.connect("i", "b", &b, "");
    assert!(call(&b, first, 80, &a).tcp().is_ok());
    assert!(call(host.ns(), first, 80, &a).tcp().is_err());
    let said = host.fails(1, "network port add i a 8080:80");
    assert!(said.contains("network `i` is isolated"), "{said}");
    let said = host.fails(2, "network create --opt gateway-mode=none x");
    assert!(said.contains("nat, routed or isolated"), "{said}");
}

#[test]
fn a_trusted_interface_reaches_unpublished_ports() {
    let Some(host) = Host::new() else { return };
    let friend = host.neighbour("vpn0", "192.0.2.1/24", "192.0.2.9/24");
    let stranger = host.neighbour("lan0", "198.51.100.1/24", "198.51.100.9/24");
    host.ok("network create --subnet 10.1.0.0/24 --opt trusted-interface=vpn0 n");
    host.ok("network create --subnet 10.2.0.0/24 m");
    for (neighbour, via) in [(&friend, "192.0.2.1"), (&stranger, "198.51.100.1")] {
        route(&host, neighbour, "10.0.0.0/8", via);
    }
    let (web, other) = (host.sandbox("web"), host.sandbox("other"));
    let [address] = host.connect("n", "web", &web, "")[..] else {
        panic!()
    };
    let [elsewhere] = host.connect("m", "other", &other, "")[..] else {
        panic!()
    };
    assert_eq!(
        call(&friend, address, 80, &web).tcp().unwrap(),
        ip("192.0.2.9")
    );
    assert!(call(&stranger, address, 80, &web).tcp().is_err());
    assert!(
        call(&friend, elsewhere, 80, &other).tcp().is_err(),
        "of one network alone"
    );
    assert_eq!(host.ok("network repair --dry-run"), "nothing to do\n");
    let said = host.fails(
        1,
        "network create --internal --opt trusted-interface=vpn0 x",
    );
    assert!(
        said.contains("leave trusted interface `vpn0` out"),
        "{said}"
    );
}
