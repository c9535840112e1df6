//! What the ruleset does to real connections: a host with five networks, and a neighbour outside.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

use mydocker_core::{Element, Protocol, Ruleset};
use nix::sched::{CloneFlags, unshare};

use super::testing::{INSTANCE, isolated, masquerade, publish, run, sysctl, zone, zone6};
use super::{Batch, Condition, NftSocket};
use crate::netns::run_in_fd;

/// Long for a connection inside one kernel, short for one that is dropped.
const PATIENCE: Duration = Duration::from_millis(400);

fn ruleset() -> Ruleset {
    Ruleset::of(INSTANCE)
}

/// A namespace that lives as long as its file is open.
struct Host(File);

impl Host {
    fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let host = Self(thread::spawn(make).join().unwrap());
        host.within(|| {
            // No second of waiting for who else might have the address.
            sysctl("ipv6/conf/default/accept_dad", "0");
            run("ip link set lo up");
        });
        host
    }

    fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        run_in_fd(self.0.as_fd(), f).unwrap()
    }

    /// Joins it to the calling thread's namespace: `there` is its end, `here` ours.
    fn plug(&self, here: &str, there: &str, addresses: [&str; 2], gateways: [&str; 2]) {
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd());
        run(&format!(
            "ip link add {here} type veth peer name {there} netns {path}"
        ));
        run(&format!("ip link set {here} up"));
        self.within(|| {
            run(&format!("ip link set {there} up"));
            for address in addresses {
                let nodad = if address.contains(':') { " nodad" } else { "" };
                run(&format!("ip addr add {address} dev {there}{nodad}"));
            }
            for gateway in gateways {
                run(&format!("ip route add default via {gateway}"));
            }
        });
    }

    fn serve(&self, port: u16) {
        self.within(|| serve(&format!("[::]:{port}")));
    }

    /// Whom a server sees if one connects to it from here.
    fn dial(&self, to: &str) -> Option<String> {
        self.within(|| dial(to))
    }
}

/// Tells everybody who connects who they are.
fn serve(at: &str) {
    let listener = TcpListener::bind(at).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let peer: SocketAddr = stream.peer_addr().unwrap();
            let _ = write!(stream, "{}", peer.ip().to_canonical());
        }
    });
}

fn dial(to: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut peer = String::new();
    stream.read_to_string(&mut peer).ok()?;
    Some(peer)
}

/// A network of ours: a bridge with the first address, containers with the next ones.
fn network(bridge: &str, nets: [&str; 2], containers: u8) -> Vec<Host> {
    run(&format!("ip link add {bridge} type bridge"));
    let group = INSTANCE.bridge_group();
    run(&format!("ip link set {bridge} group {group}"));
    let gateways = nets.map(|net| format!("{net}1"));
    run(&format!("ip addr add {}/24 dev {bridge}", gateways[0]));
    run(&format!(
        "ip addr add {}/64 dev {bridge} nodad",
        gateways[1]
    ));
    run(&format!("ip link set {bridge} up"));
    sysctl(&format!("ipv4/conf/{bridge}/route_localnet"), "1");
    let mut hosts = Vec::new();
    for i in 0..containers {
        let host = Host::new();
        let addresses = [
            format!("{}{}/24", nets[0], i + 2),
            format!("{}{}/64", nets[1], i + 2),
        ];
        let here = format!("{bridge}{i}");
        let gateways = gateways.each_ref().map(String::as_str);
        host.plug(
            &here,
            "eth0",
            addresses.each_ref().map(String::as_str),
            gateways,
        );
        run(&format!("ip link set {here} master {bridge}"));
        run(&format!("ip link set {here} type bridge_slave hairpin on"));
        host.serve(80);
        hosts.push(host);
    }
    hosts
}

fn elements() -> Vec<Element> {
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    [
        zone6("web", "fd00:0:0:a::1"),
        zone6("db", "fd00:0:0:b::1"),
        zone("secret", true, false),
        zone("red", false, true),
        zone("blue", false, true),
        masquerade("10.0.0.0/24", "web"),
        masquerade("fd00:0:0:a::/64", "web"),
        masquerade("10.0.1.0/24", "db"),
        masquerade("fd00:0:0:b::/64", "db"),
        publish(None, tcp, 8080, "10.0.0.2:80"),
        publish(None, tcp, 8080, "[fd00:0:0:a::2]:80"),
        publish(Some("127.0.0.1"), tcp, 8081, "10.0.0.2:80"),
        publish(Some("192.0.2.1"), tcp, 8082, "10.0.0.3:80"),
        publish(Some("2001:db8::1"), tcp, 8082, "[fd00:0:0:a::3]:80"),
        // One address goes before all addresses.
        publish(Some("192.0.2.9"), tcp, 8080, "10.0.1.2:80"),
        publish(None, udp, 8080, "10.0.0.2:5353"),
        publish(None, tcp, 8090, "10.0.2.2:80"),
    ]
    .concat()
}

fn table() {
    let mut batch = Batch::new(&INSTANCE.table());
    for table in &ruleset().tables {
        batch.create_table(table);
    }
    elements().iter().for_each(|element| batch.add(element));
    NftSocket::open().unwrap().commit(&batch).unwrap();
}

/// All of it, with bridged packets passing through the rules or not.
fn connections(bridge_nf: &str) {
    run("ip link set lo up");
    for switch in [
        "bridge/bridge-nf-call-iptables",
        "bridge/bridge-nf-call-ip6tables",
    ] {
        if std::path::Path::new("/proc/sys/net").join(switch).exists() {
            sysctl(switch, bridge_nf);
        } else {
            println!("no br_netfilter: bridged packets meet no rules");
        }
    }
    sysctl("ipv4/ip_forward", "1");
    sysctl("ipv6/conf/default/accept_dad", "0");
    sysctl("ipv6/conf/all/forwarding", "1");
    let outside = Host::new();
    outside.plug(
        "lan",
        "eth0",
        ["192.0.2.2/24", "2001:db8::2/64"],
        ["192.0.2.1", "2001:db8::1"],
    );
    for address in ["192.0.2.1/24", "192.0.2.9/24", "2001:db8::1/64 nodad"] {
        let (address, nodad) = address
            .split_once(' ')
            .unwrap_or((address, "noprefixroute"));
        run(&format!("ip addr add {address} dev lan {nodad}"));
    }
    run("ip route replace 192.0.2.0/24 dev lan");
    outside.serve(9000);
    let web = network("web", ["10.0.0.", "fd00:0:0:a::"], 2);
    let db = network("db", ["10.0.1.", "fd00:0:0:b::"], 1);
    let secret = network("secret", ["10.0.2.", "fd00:0:0:c::"], 2);
    let red = network("red", ["10.0.3.", "fd00:0:0:d::"], 1);
    let blue = network("blue", ["10.0.4.", "fd00:0:0:e::"], 1);
    serve("127.0.0.1:7000");
    serve("[::]:7001");
    serve("[::1]:8070");
    assert_eq!(
        outside.dial("10.0.0.2:80").as_deref(),
        Some("192.0.2.2"),
        "no rules, no refusal"
    );
    table();

    let mut wrong = Vec::new();
    let mut check = |what: &str, seen: Option<String>, wanted: &str| {
        let seen = seen.as_deref().unwrap_or("nobody");
        if seen != wanted {
            wrong.push(format!("{what}: {seen} instead of {wanted}"));
        }
    };
    // The outside to a published port: the source survives.
    check("outside, v4", outside.dial("192.0.2.1:8080"), "192.0.2.2");
    check(
        "outside, v6",
        outside.dial("[2001:db8::1]:8080"),
        "2001:db8::2",
    );
    check(
        "outside, one address, v4",
        outside.dial("192.0.2.1:8082"),
        "192.0.2.2",
    );
    check(
        "outside, one address, v6",
        outside.dial("[2001:db8::1]:8082"),
        "2001:db8::2",
    );
    check(
        "outside, another address",
        outside.dial("192.0.2.9:8082"),
        "nobody",
    );
    check(
        "outside, address before all",
        outside.dial("192.0.2.9:8080"),
        "192.0.2.2",
    );
    check(
        "outside, port of the host",
        outside.dial("192.0.2.1:7001"),
        "192.0.2.2",
    );
    // Without one it stays outside.
    check(
        "outside, unpublished, v4",
        outside.dial("10.0.0.2:80"),
        "nobody",
    );
    check(
        "outside, unpublished, v6",
        outside.dial("[fd00:0:0:a::2]:80"),
        "nobody",
    );
    check("outside, internal", outside.dial("10.0.2.2:80"), "nobody");
    check(
        "outside, internal, published",
        outside.dial("192.0.2.1:8090"),
        "nobody",
    );

    // The host itself.
    check("host, own address, v4", dial("192.0.2.1:8080"), "192.0.2.1");
    check(
        "host, own address, v6",
        dial("[2001:db8::1]:8080"),
        "2001:db8::1",
    );
    check("host, 127.0.0.1", dial("127.0.0.1:8080"), "10.0.0.1");
    check("host, 127.0.0.1 only", dial("127.0.0.1:8081"), "10.0.0.1");
    check("host, container", dial("10.0.0.2:80"), "10.0.0.1");
    check("host, internal container", dial("10.0.2.2:80"), "10.0.2.1");
    check("host, ::1", dial("[::1]:8080"), "fd00:0:0:a::1");
    check("host, ::1, a port of its own", dial("[::1]:8070"), "::1");

    // A container to itself and to its neighbour, directly and by the published port.
    for (i, client) in web.iter().enumerate() {
        let own = ["10.0.0.2", "10.0.0.3"][i];
        check("hairpin, v4", client.dial("192.0.2.1:8080"), "10.0.0.1");
        check("hairpin, gateway", client.dial("10.0.0.1:8080"), "10.0.0.1");
        check(
            "hairpin, v6",
            client.dial("[2001:db8::1]:8080"),
            "fd00:0:0:a::1",
        );
        check(
            "hairpin, one address",
            client.dial("192.0.2.1:8082"),
            "10.0.0.1",
        );
        check("neighbour", client.dial("10.0.0.3:80"), own);
    }
    check(
        "neighbour, v6",
        web[1].dial("[fd00:0:0:a::2]:80"),
        "fd00:0:0:a::3",
    );

    // Networks among themselves.
    check(
        "other network, published",
        db[0].dial("192.0.2.1:8080"),
        "10.0.1.2",
    );
    check(
        "other network, published, v6",
        db[0].dial("[2001:db8::1]:8080"),
        "fd00:0:0:b::2",
    );
    check("other network, v4", db[0].dial("10.0.0.2:80"), "nobody");
    check(
        "other network, v6",
        db[0].dial("[fd00:0:0:a::2]:80"),
        "nobody",
    );
    check("open networks, v4", red[0].dial("10.0.4.2:80"), "10.0.3.2");
    check(
        "open networks, v6",
        blue[0].dial("[fd00:0:0:d::2]:80"),
        "fd00:0:0:e::2",
    );
    check("open to closed", red[0].dial("10.0.0.2:80"), "nobody");
    check(
        "internal, neighbour",
        secret[0].dial("10.0.2.3:80"),
        "10.0.2.2",
    );
    check(
        "internal, other network",
        secret[0].dial("10.0.0.2:80"),
        "nobody",
    );
    check(
        "internal, published",
        secret[0].dial("192.0.2.1:8080"),
        "nobody",
    );

    // The way out.
    check("way out, v4", web[0].dial("192.0.2.2:9000"), "192.0.2.1");
    check(
        "way out, v6",
        web[0].dial("[2001:db8::2]:9000"),
        "2001:db8::1",
    );
    check(
        "way out, not masqueraded",
        red[0].dial("192.0.2.2:9000"),
        "10.0.3.2",
    );
    check(
        "way out, internal",
        secret[0].dial("192.0.2.2:9000"),
        "nobody",
    );

    // Bridges that somebody took out of their group are walled all the same.
    for bridge in ["web", "secret"] {
        run(&format!("ip link set {bridge} group 0"));
    }
    check(
        "no group, published",
        outside.dial("192.0.2.1:8080"),
        "nobody",
    );
    check(
        "no group, unpublished",
        outside.dial("10.0.0.2:80"),
        "nobody",
    );
    check(
        "no group, from a network",
        db[0].dial("10.0.0.2:80"),
        "nobody",
    );
    check(
        "no group, to a network",
        web[0].dial("10.0.1.2:80"),
        "nobody",
    );
    check("no group, internal", outside.dial("10.0.2.2:80"), "nobody");
    check(
        "no group, internal, way out",
        secret[0].dial("192.0.2.2:9000"),
        "nobody",
    );
    check(
        "no group, internal, other network",
        secret[0].dial("10.0.1.2:80"),
        "nobody",
    );
    check(
        "no group, neighbour",
        web[1].dial("10.0.0.2:80"),
        "10.0.0.3",
    );
    check("no group, host", dial("127.0.0.1:8080"), "10.0.0.1");
    check(
        "no group, way out",
        web[0].dial("192.0.2.2:9000"),
        "192.0.2.1",
    );
    for bridge in ["web", "secret"] {
        let group = INSTANCE.bridge_group();
        run(&format!("ip link set {bridge} group {group}"));
    }

    // 127.0.0.1 of the host is for the host, whatever neighbours and containers call their own.
    for (who, gateway, host) in [
        ("outside", "192.0.2.1", &outside),
        ("container", "10.0.0.1", &web[0]),
    ] {
        host.within(|| {
            run("ip link set lo down");
            run("ip addr flush dev lo");
            sysctl("ipv4/conf/eth0/route_localnet", "1");
            run(&format!("ip route add 127.0.0.0/8 via {gateway}"));
        });
        for port in [7000, 8080, 8081] {
            let seen = host.dial(&format!("127.0.0.1:{port}"));
            check(&format!("{who}, 127.0.0.1:{port}"), seen, "nobody");
        }
    }

    assert!(wrong.is_empty(), "bridge-nf {bridge_nf}: {wrong:#?}");

    // UDP: one question, one answer.
    let server = web[0].within(|| UdpSocket::bind("10.0.0.2:5353").unwrap());
    let client = outside.within(|| UdpSocket::bind("192.0.2.2:0").unwrap());
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    client.send_to(b"ping", "192.0.2.1:8080").unwrap();
    let (len, from) = server.recv_from(&mut [0; 16]).unwrap();
    assert_eq!((len, from), (4, client.local_addr().unwrap()));
    server.send_to(b"pong", from).unwrap();
    assert_eq!(
        client.recv_from(&mut [0; 16]).unwrap(),
        (4, "192.0.2.1:8080".parse().unwrap())
    );

    let mut socket = NftSocket::open().unwrap();
    for table in &ruleset().tables {
        let seen = socket.look(table).unwrap();
        assert_eq!(seen.condition(table), Condition::Intact);
    }
}

#[test]
fn connections_go_where_they_should() {
    isolated(|| connections("0"));
}

#[test]
fn connections_go_where_they_should_if_bridges_call_netfilter() {
    isolated(|| connections("1"));
}
