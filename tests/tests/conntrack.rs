//! Connections end with the binding or the address that they were made through, and no others do.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mydocker_exec_netlink::netns::run_in;
use mydocker_tests::Host;

/// Long for one kernel, and nothing is waited for that is expected to be dropped.
const PATIENCE: Duration = Duration::from_secs(3);
/// Not the port of the container: moby#53384 looked for connections by the wrong one of the two.
const PUBLISHED: u16 = 8053;
const INNER: u16 = 53;

/// A host, a machine beside it, and two containers that are yet to be connected to `n`.
struct Scene {
    host: Host,
    lan: PathBuf,
    one: PathBuf,
    two: PathBuf,
    /// The host's address on the LAN.
    at: IpAddr,
    /// The neighbour's.
    beside: IpAddr,
    before: String,
}

impl Scene {
    fn new(v6: bool) -> Option<Self> {
        let (ours, theirs, subnet) = if v6 {
            ("2001:db8::1", "2001:db8::9", "fd00::/64")
        } else {
            ("192.0.2.1", "192.0.2.9", "10.0.0.0/24")
        };
        let length = if v6 { 64 } else { 24 };
        let host = Host::new()?;
        let lan = host.neighbour(
            "lan",
            &format!("{ours}/{length}"),
            &format!("{theirs}/{length}"),
        );
        let (one, two) = (host.sandbox("one"), host.sandbox("two"));
        let before = host.snapshot();
        host.ok(&format!("network create --subnet {subnet} n"));
        let (at, beside) = (ours.parse().unwrap(), theirs.parse().unwrap());
        Some(Self {
            host,
            lan,
            one,
            two,
            at,
            beside,
            before,
        })
    }

    /// Runs a test for each family.
    fn each(test: impl Fn(&Self)) {
        for v6 in [false, true] {
            let Some(scene) = Self::new(v6) else { return };
            test(&scene);
            for name in ["one", "two"] {
                let _ = scene.host.mydocker(&format!("network disconnect n {name}"));
            }
            scene.host.ok("network remove n");
            scene.host.assert_as(&scene.before);
        }
    }

    fn any(&self) -> IpAddr {
        match self.at {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// Somebody who keeps one socket for good, and does not hear of refusals.
    fn client(&self, from: &Path) -> UdpSocket {
        let socket = run_in(from, || UdpSocket::bind((self.any(), 0)));
        patient(socket.unwrap().unwrap())
    }

    fn server(&self, inside: &Path, port: u16) -> UdpSocket {
        let socket = run_in(inside, || UdpSocket::bind((self.any(), port)));
        patient(socket.unwrap().unwrap())
    }

    fn published(&self) -> SocketAddr {
        SocketAddr::new(self.at, PUBLISHED)
    }

    /// A line for each connection of the host that mentions all of `words`.
    fn tracked(&self, words: &[&str]) -> Vec<String> {
        let all = self
            .host
            .sh("conntrack -L -f ipv4 2>/dev/null; conntrack -L -f ipv6 2>/dev/null");
        let has = |line: &&str| {
            let mut of_line = line.split_whitespace();
            words.iter().all(|word| of_line.any(|other| other == *word))
        };
        all.lines().filter(has).map(ToOwned::to_owned).collect()
    }
}

fn patient(socket: UdpSocket) -> UdpSocket {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// One datagram there and one back; the sender has sent from the same socket before.
#[track_caller]
fn reaches(client: &UdpSocket, to: SocketAddr, server: &UdpSocket) {
    client.send_to(b"ping", to).unwrap();
    let (_, peer) = server.recv_from(&mut [0; 4]).expect("the first datagram");
    server.send_to(b"pong", peer).unwrap();
    let (_, from) = client.recv_from(&mut [0; 4]).expect("an answer");
    assert_eq!(from, to);
}

/// moby#8795, plugins#123: clients that never stop sending from one socket reach the container that
/// took over the port, with their first datagram.
#[test]
fn a_restarted_udp_service_is_reached_at_once() {
    Scene::each(|scene| {
        let Scene { host, one, two, .. } = scene;
        let to = scene.published();
        let clients = [scene.client(&scene.lan), scene.client(host.ns())];
        let publish = format!("-p {PUBLISHED}:{INNER}/udp");
        host.connect("n", "one", one, &publish);
        let server = scene.server(one, INNER);
        for client in &clients {
            reaches(client, to, &server);
        }
        host.ok("network disconnect n one");
        for client in &clients {
            client.send_to(b"lost", to).unwrap();
        }
        host.connect("n", "two", two, &publish);
        let server = scene.server(two, INNER);
        for client in &clients {
            reaches(client, to, &server);
        }
    });
}

/// moby#8795: the same for who sent before anybody published the port.
#[test]
fn a_udp_port_is_reached_by_who_sent_before_it_was_published() {
    Scene::each(|scene| {
        let Scene { host, one, .. } = scene;
        let to = scene.published();
        let clients = [scene.client(&scene.lan), scene.client(host.ns())];
        host.connect("n", "one", one, "");
        let server = scene.server(one, INNER);
        for client in &clients {
            client.send_to(b"lost", to).unwrap();
        }
        assert!(!scene.tracked(&[&format!("dport={PUBLISHED}")]).is_empty());
        host.ok(&format!("network port add n one {PUBLISHED}:{INNER}/udp"));
        for client in &clients {
            reaches(client, to, &server);
        }
    });
}

/// moby#53384: what goes is what came by that port of the host.
#[test]
fn an_unpublished_port_takes_its_own_connections_along() {
    Scene::each(|scene| {
        let Scene { host, one, .. } = scene;
        let publish = format!("-p {PUBLISHED}:{INNER}/udp -p 8080:80 -p 8081:80");
        host.connect("n", "one", one, &publish);
        let listener = run_in(one, || TcpListener::bind((scene.any(), 80)));
        let listener = listener.unwrap().unwrap();
        let mut streams = [8080, 8081].map(|port| {
            let to = SocketAddr::new(scene.at, port);
            let client = run_in(&scene.lan, || TcpStream::connect(to));
            (client.unwrap().unwrap(), listener.accept().unwrap().0)
        });
        let client = scene.client(&scene.lan);
        reaches(&client, scene.published(), &scene.server(one, INNER));
        let of = |port: u16| scene.tracked(&[&format!("dport={port}")]).len();
        assert_eq!([of(8080), of(8081), of(PUBLISHED)], [1, 1, 1]);
        host.ok(&format!(
            "network port rm n one 8081:80 {PUBLISHED}:{INNER}/udp"
        ));
        assert_eq!([of(8080), of(8081), of(PUBLISHED)], [1, 0, 0]);
        let (client, served) = &mut streams[0];
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        served.write_all(b"still here").unwrap();
        let mut heard = [0; 10];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"still here");
    });
}

#[test]
fn the_next_holder_of_an_address_has_no_connections_of_the_last() {
    Scene::each(|scene| {
        let Scene { host, one, two, .. } = scene;
        let v4 = scene.at.is_ipv4();
        let address = if v4 { "10.0.0.7" } else { "fd00::7" };
        host.connect("n", "one", one, &format!("--ip {address} -p 8080:80"));
        // In through the port, in from the host, and out.
        let inside: SocketAddr = SocketAddr::new(address.parse().unwrap(), 80);
        let outside = SocketAddr::new(scene.beside, INNER);
        let server = scene.server(one, 80);
        reaches(&scene.client(host.ns()), inside, &server);
        reaches(
            &scene.client(one),
            outside,
            &scene.server(&scene.lan, INNER),
        );
        let listener = run_in(one, || TcpListener::bind((scene.any(), 80)));
        let to = SocketAddr::new(scene.at, 8080);
        let stream = run_in(&scene.lan, || TcpStream::connect(to))
            .unwrap()
            .unwrap();
        let served = listener.unwrap().unwrap().accept().unwrap();
        let [from, by] = [format!("src={address}"), format!("dst={address}")];
        let of_it = || scene.tracked(&[&from]).len() + scene.tracked(&[&by]).len();
        assert!(of_it() >= 3, "{}", of_it());
        host.ok("network disconnect n one");
        assert_eq!(of_it(), 0);
        drop((stream, served));
        host.connect("n", "two", two, &format!("--ip {address}"));
        assert_eq!(scene.tracked(&[&from]), [""; 0]);
    });
}

/// A container asks a name server outside while another one publishes the same port: the answer
/// still finds it, which takes the connection's translation.
#[test]
fn what_only_passes_through_goes_on() {
    Scene::each(|scene| {
        let Scene { host, one, two, .. } = scene;
        let nameserver = scene.server(&scene.lan, INNER);
        let to = SocketAddr::new(scene.beside, INNER);
        host.connect("n", "one", one, "");
        let asking = scene.client(one);
        asking.send_to(b"ping", to).unwrap();
        let (_, peer) = nameserver.recv_from(&mut [0; 4]).unwrap();
        assert_eq!(peer.ip(), scene.at, "masqueraded");
        host.connect("n", "two", two, &format!("-p {INNER}:{INNER}/udp"));
        host.ok("network disconnect n two");
        nameserver.send_to(b"pong", peer).unwrap();
        assert_eq!(asking.recv_from(&mut [0; 4]).unwrap().1, to);
        assert_eq!(scene.tracked(&[&format!("dst={}", scene.beside)]).len(), 1);
    });
}

/// What a dry run prints does the same, also for a port of every address of the host.
#[test]
fn a_script_ends_the_same_connections() {
    Scene::each(|scene| {
        let Scene { host, one, .. } = scene;
        let port = format!("n one {PUBLISHED}:{INNER}/udp");
        host.connect("n", "one", one, "");
        let (client, server) = (scene.client(&scene.lan), scene.server(one, INNER));
        client.send_to(b"lost", scene.published()).unwrap();
        host.sh(&host.ok(&format!("network port add --dry-run=script {port}")));
        reaches(&client, scene.published(), &server);
        // The state knows nothing of that port; repair takes it away, and it can be added.
        let tracked = || scene.tracked(&[&format!("dport={PUBLISHED}")]).len();
        assert_eq!(tracked(), 1);
        host.ok("network repair");
        assert_eq!(tracked(), 0);
        host.ok(&format!("network port add {port}"));
        reaches(&client, scene.published(), &server);
        host.sh(&host.ok(&format!("network port rm --dry-run=script {port}")));
        assert_eq!(tracked(), 0);
    });
}

/// A network without guards can't tell whose connections an address has; its ports can.
#[test]
fn ports_are_flushed_where_spoofing_is_allowed() {
    let Some(host) = Host::new() else { return };
    let (one, two) = (host.sandbox("one"), host.sandbox("two"));
    host.ok("network create --subnet 10.0.0.0/24 --opt spoof=allow n");
    let publish = format!("-p {PUBLISHED}:{INNER}/udp");
    let bind = |inside: &Path, port| {
        let socket = run_in(inside, || UdpSocket::bind(("0.0.0.0", port)));
        patient(socket.unwrap().unwrap())
    };
    let client = bind(host.ns(), 0);
    let to: SocketAddr = ([127, 0, 0, 1], PUBLISHED).into();
    for (name, inside) in [("one", &one), ("two", &two)] {
        host.connect("n", name, inside, &publish);
        reaches(&client, to, &bind(inside, INNER));
        host.ok(&format!("network disconnect n {name}"));
        client.send_to(b"lost", to).unwrap();
    }
}
