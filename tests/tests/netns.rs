//! The original's six scenarios on a real kernel, and that nothing is left of them.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mydocker_exec_netlink::netns::run_in;
use mydocker_tests::{Call, Host};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn to(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

/// `testbridge` 10.0.0.1/24, two containers, a LAN with another machine, and a router that has
/// no route back to the subnet.
struct Scene {
    host: Host,
    web: PathBuf,
    db: PathBuf,
    lan: PathBuf,
    router: PathBuf,
    before: String,
}

/// The port of `web`, and the host's port that leads to it.
const WEB: u16 = 80;
const PUBLISHED: u16 = 8080;

impl Scene {
    fn new() -> Option<Self> {
        let host = Host::new()?;
        let lan = host.neighbour("lan", "192.0.2.1/24", "192.0.2.9/24");
        let router = host.neighbour("router", "198.51.100.1/24", "198.51.100.9/24");
        host.sh("ip route add default via 198.51.100.9");
        let (web, db) = (host.sandbox("web"), host.sandbox("db"));
        let before = host.snapshot();
        host.ok("network create --subnet 10.0.0.1/24 testbridge");
        let publish = format!("-p {PUBLISHED}:{WEB} -p {PUBLISHED}:{WEB}/udp");
        assert_eq!(
            host.connect("testbridge", "web", &web, &publish),
            [ip("10.0.0.2")]
        );
        assert_eq!(host.connect("testbridge", "db", &db, ""), [ip("10.0.0.3")]);
        Some(Self {
            host,
            web,
            db,
            lan,
            router,
            before,
        })
    }

    /// A call over TCP and one over UDP; the source that `server` saw, the same for both.
    fn call(&self, from: &Path, to: SocketAddr, server: &Path, port: u16) -> IpAddr {
        let call = Call {
            from,
            to,
            server,
            port,
        };
        let tcp = call
            .tcp()
            .unwrap_or_else(|error| panic!("tcp {call:?}: {error}"));
        let udp = call
            .udp()
            .unwrap_or_else(|error| panic!("udp {call:?}: {error}"));
        assert_eq!(tcp, udp, "{call:?}");
        tcp
    }

    /// Takes it all down and compares with what was there before.
    fn leaves_nothing(self) {
        self.host.ok("network disconnect testbridge web");
        self.host.ok("network disconnect testbridge db");
        self.host.ok("network remove testbridge");
        self.host.assert_as(&self.before);
    }
}

#[test]
fn scenario_1_the_network_is_listed_and_routed() {
    let Some(scene) = Scene::new() else { return };
    let list = scene.host.ok("network list");
    let line: Vec<&str> = list
        .lines()
        .nth(1)
        .unwrap()
        .split_whitespace()
        .take(3)
        .collect();
    assert!(list.starts_with("NAME"), "{list}");
    assert_eq!(line, ["testbridge", "10.0.0.1/24", "bridge"]);
    let route = scene.host.sh("ip route show dev testbridge");
    assert_eq!(
        route.trim(),
        "10.0.0.0/24 proto kernel scope link src 10.0.0.1"
    );
    scene.leaves_nothing();
}

#[test]
fn scenario_2_containers_reach_each_other() {
    let Some(scene) = Scene::new() else { return };
    assert_eq!(
        scene.call(&scene.db, to("10.0.0.2", WEB), &scene.web, WEB),
        ip("10.0.0.3")
    );
    assert_eq!(
        scene.call(&scene.web, to("10.0.0.3", 5432), &scene.db, 5432),
        ip("10.0.0.2")
    );
    let routes = scene
        .host
        .sh(&format!("nsenter --net={} ip route", scene.web.display()));
    assert!(routes.contains("default via 10.0.0.1 dev eth0"), "{routes}");
    scene.leaves_nothing();
}

#[test]
fn scenario_3_the_host_reaches_a_container() {
    let Some(scene) = Scene::new() else { return };
    let host = scene.host.ns();
    assert_eq!(
        scene.call(host, to("10.0.0.2", WEB), &scene.web, WEB),
        ip("10.0.0.1")
    );
    scene.leaves_nothing();
}

#[test]
fn scenario_4_a_container_reaches_the_outside() {
    let Some(scene) = Scene::new() else { return };
    let seen = scene.call(&scene.db, to("198.51.100.9", 53), &scene.router, 53);
    assert_eq!(
        seen,
        ip("198.51.100.1"),
        "the router has no route to the subnet"
    );
    let seen = scene.call(&scene.db, to("192.0.2.9", 53), &scene.lan, 53);
    assert_eq!(seen, ip("192.0.2.1"));
    scene.leaves_nothing();
}

#[test]
fn scenario_5_another_machine_reaches_the_published_port() {
    let Some(scene) = Scene::new() else { return };
    let seen = scene.call(&scene.lan, to("192.0.2.1", PUBLISHED), &scene.web, WEB);
    assert_eq!(seen, ip("192.0.2.9"), "the client's address survives");
    scene.leaves_nothing();
}

#[test]
fn scenario_6_the_host_reaches_its_own_published_port() {
    let Some(scene) = Scene::new() else { return };
    let host = scene.host.ns();
    assert_eq!(
        scene.call(host, to("192.0.2.1", PUBLISHED), &scene.web, WEB),
        ip("192.0.2.1")
    );
    assert_eq!(
        scene.call(host, to("10.0.0.1", PUBLISHED), &scene.web, WEB),
        ip("10.0.0.1")
    );
    assert_eq!(
        scene.call(host, to("127.0.0.1", PUBLISHED), &scene.web, WEB),
        ip("10.0.0.1")
    );
    scene.leaves_nothing();
}

#[test]
fn disconnecting_takes_the_published_port_away() {
    let Some(scene) = Scene::new() else { return };
    let target = to("192.0.2.1", PUBLISHED);
    scene.host.ok("network disconnect testbridge web");
    let call = Call {
        from: &scene.lan,
        to: target,
        server: &scene.web,
        port: WEB,
    };
    assert!(call.tcp().is_err());
    let publish = format!("-p {PUBLISHED}:{WEB} -p {PUBLISHED}:{WEB}/udp");
    let again = scene
        .host
        .connect("testbridge", "web", &scene.web, &publish);
    assert_eq!(again, [ip("10.0.0.4")], "a released address rests");
    assert_eq!(
        scene.call(&scene.lan, target, &scene.web, WEB),
        ip("192.0.2.9")
    );
    scene.leaves_nothing();
}

/// Ports of a running endpoint come and go; who is connected by another one notices nothing.
#[test]
fn ports_come_and_go_while_a_connection_lasts() {
    let Some(scene) = Scene::new() else { return };
    let Scene { host, web, lan, .. } = &scene;
    let listener = run_in(web, || TcpListener::bind(("0.0.0.0", WEB)))
        .unwrap()
        .unwrap();
    let published = to("192.0.2.1", PUBLISHED);
    let mut client = run_in(lan, || TcpStream::connect(published))
        .unwrap()
        .unwrap();
    let (mut served, _) = listener.accept().unwrap();
    let mut lasts = || {
        served.write_all(b"still here").unwrap();
        let patience = Some(Duration::from_secs(5));
        client.set_read_timeout(patience).unwrap();
        let mut heard = [0; 10];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"still here");
    };
    lasts();
    let (ruleset, before) = (host.sh("nft list ruleset"), host.snapshot());
    let shown = host.ok("network port ls testbridge web");

    let dry = host.ok("network port add --dry-run testbridge web 8081:81");
    assert!(dry.contains("AddDnat") && !dry.contains("Veth"), "{dry}");
    assert_eq!(host.sh("nft list ruleset"), ruleset);
    host.ok("network port add testbridge web 8081-8082:81-82 8081:81/udp");
    scene.call(lan, to("192.0.2.1", 8081), web, 81);
    lasts();
    let call = |port, inner| Call {
        from: lan,
        to: to("192.0.2.1", port),
        server: web,
        port: inner,
    };
    assert!(call(8082, 82).tcp().is_ok());
    let said = host.fails(1, "network port add testbridge db 8082:5432");
    assert!(said.contains("held by container `web`"), "{said}");
    host.ok("network port rm testbridge web 8081:81 8081:81/udp 82");
    for (port, inner) in [(8081, 81), (8082, 82)] {
        assert!(call(port, inner).tcp().is_err(), "{port}");
    }
    assert!(call(8081, 81).udp().is_err());
    lasts();
    assert_eq!(host.ok("network port ls testbridge web"), shown);
    host.assert_as(&before);

    // The first port of an endpoint, of which the host chooses the number: also from inside.
    let json = host.ok("network port add --format json testbridge db 90");
    let ports: serde_json::Value = serde_json::from_str(&json).unwrap();
    let chosen = u16::try_from(ports[0]["host_port"].as_u64().unwrap()).unwrap();
    assert!(
        host.ok("network inspect testbridge")
            .contains(&chosen.to_string())
    );
    let call = |from| Call {
        from,
        to: to("192.0.2.1", chosen),
        server: &scene.db,
        port: 90,
    };
    assert_eq!(call(lan).tcp().unwrap(), ip("192.0.2.9"));
    assert_eq!(call(&scene.db).tcp().unwrap(), ip("10.0.0.1"));
    let taken = host.ok("network port rm testbridge db 90");
    assert_eq!(taken.lines().count(), 1, "a header and no port: {taken}");
    host.assert_as(&before);
    let said = host.fails(1, "network port rm testbridge db 90");
    assert!(said.contains("is not published"), "{said}");
    let said = host.fails(1, "network port ls testbridge nobody");
    assert!(said.contains("is not on network"), "{said}");
    drop((client, served));
    scene.leaves_nothing();
}

#[test]
fn two_networks_of_both_families() {
    let Some(host) = Host::new() else { return };
    let lan = host.neighbour("lan", "2001:db8::1/64", "2001:db8::9/64");
    host.sh("ip -6 route add default via 2001:db8::9");
    let (web, db) = (host.sandbox("web"), host.sandbox("db"));
    let before = host.snapshot();
    host.ok("network create --subnet 10.1.0.0/24 --subnet fd00:1::/64 front");
    host.ok("network create --subnet fd00:2::/64 back");
    let web_ips = host.connect("front", "web", &web, "-p 8080:80");
    assert_eq!(web_ips, [ip("10.1.0.2"), ip("fd00:1::2")]);
    assert_eq!(host.connect("back", "web", &web, ""), [ip("fd00:2::2")]);
    assert_eq!(host.connect("back", "db", &db, ""), [ip("fd00:2::3")]);
    let seen = |from: &Path, to: SocketAddr, server: &Path, port| {
        Call {
            from,
            to,
            server,
            port,
        }
        .tcp()
        .unwrap_or_else(|error| panic!("{to}: {error}"))
    };
    // At once: no duplicate address detection to wait for.
    assert_eq!(seen(&db, to("fd00:2::2", 80), &web, 80), ip("fd00:2::3"));
    assert_eq!(
        seen(&lan, to("2001:db8::1", 8080), &web, 80),
        ip("2001:db8::9")
    );
    assert_eq!(
        seen(&web, to("2001:db8::9", 53), &lan, 53),
        ip("2001:db8::1")
    );
    // Exactly one default route, and it moves when its network is left.
    let defaults = |family: &str| {
        host.sh(&format!(
            "nsenter --net={} ip {family} route show default",
            web.display()
        ))
    };
    assert_eq!(defaults("-6").lines().count(), 1);
    assert!(defaults("-6").contains("via fd00:1::1"));
    host.ok("network disconnect front web");
    assert!(
        defaults("-6").contains("via fd00:2::1"),
        "{}",
        defaults("-6")
    );
    assert_eq!(defaults("-4"), "");
    host.ok("network disconnect back web");
    host.ok("network disconnect back db");
    host.ok("network remove front back");
    host.assert_as(&before);
}

#[test]
fn a_container_that_is_gone_can_be_disconnected() {
    let Some(scene) = Scene::new() else { return };
    mydocker_exec_netlink::netns::remove(&scene.web).unwrap();
    scene.leaves_nothing();
}

/// Two run roots in one namespace: each has its own marks, and neither touches the other's.
#[test]
fn two_instances_share_a_namespace() {
    let Some(host) = Host::new() else { return };
    let (web, db) = (host.sandbox("web"), host.sandbox("db"));
    let before = host.snapshot();
    host.ok("network create --subnet 10.0.0.0/24 one");
    host.connect("one", "web", &web, "-p 8080:80");
    let with_one = host.snapshot();
    let other = |line: &str| {
        let roots = [("lib2", "--root"), ("run2", "--run-root")];
        let mut command = host.mydocker_command("");
        for (folder, flag) in roots {
            command.arg(flag).arg(host.dir().join(folder));
        }
        let output = command.args(line.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    };
    other("network create --subnet 10.1.0.0/24 two");
    other(&format!(
        "network connect --netns {} -p 8081:80 two web",
        db.display()
    ));
    let call = |from: &Path, port, server: &Path| {
        Call {
            from,
            to: to("127.0.0.1", port),
            server,
            port: WEB,
        }
        .tcp()
    };
    assert!(call(host.ns(), 8080, &web).is_ok());
    assert!(call(host.ns(), 8081, &db).is_ok());
    let across = Call {
        from: &web,
        to: to("10.1.0.2", WEB),
        server: &db,
        port: WEB,
    };
    assert!(across.tcp().is_err(), "networks don't see each other");
    other("network disconnect two web");
    other("network remove two");
    host.assert_as(&with_one);
    host.ok("network disconnect one web");
    host.ok("network remove one");
    host.assert_as(&before);
}
