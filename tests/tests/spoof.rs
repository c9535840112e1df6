//! A container that says it is somebody else: nobody hears it, unless its network allows that.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use mydocker_core::Mac;
use mydocker_tests::{Call, Host, icmpv6};

/// Long for a frame inside one kernel.
const PATIENCE: Duration = Duration::from_millis(300);

/// A dual-stack network with a container that lies and one that is lied about, or to.
struct Scene {
    host: Host,
    liar: PathBuf,
    other: PathBuf,
}

const OTHER4: &str = "10.9.0.3";
const OTHER6: &str = "fd09::3";

impl Scene {
    /// Both know each other, and the host knows both.
    fn new(options: &str) -> Option<Self> {
        let host = Host::new()?;
        host.ok(&format!(
            "network create --subnet 10.9.0.0/24 --subnet fd09::/64 {options} yard"
        ));
        let (liar, other) = (host.sandbox("liar"), host.sandbox("other"));
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let addresses = host.connect("yard", "liar", &liar, "");
        assert_eq!(addresses, [ip("10.9.0.2"), ip("fd09::2")]);
        let addresses = host.connect("yard", "other", &other, "");
        assert_eq!(addresses, [ip(OTHER4), ip(OTHER6)]);
        let scene = Self { host, liar, other };
        for from in [&scene.liar, &scene.other] {
            for to in ["10.9.0.1", "10.9.0.2", OTHER4, "fd09::1", "fd09::2", OTHER6] {
                assert!(scene.pings(from, "", to), "{} {to}", from.display());
            }
        }
        for (from, to) in [(&scene.liar, OTHER4), (&scene.liar, OTHER6)] {
            let to = SocketAddr::new(ip(to), 80);
            let (from, server, port) = (from.as_path(), scene.other.as_path(), 80);
            let call = Call {
                from,
                to,
                server,
                port,
            };
            call.tcp().unwrap();
            call.udp().unwrap();
        }
        // A neighbour entry may change at once, not only a second after its last change.
        for (name, space) in [("yard", scene.host.ns()), ("eth0", &scene.other)] {
            scene.inside(
                space,
                &format!(
                    "sysctl -qw net.ipv4.neigh.{name}.locktime=0 net.ipv6.neigh.{name}.locktime=0"
                ),
            );
        }
        Some(scene)
    }

    fn inside(&self, space: &Path, command: &str) -> String {
        self.host.sh_in(space, command)
    }

    fn pings(&self, from: &Path, options: &str, to: &str) -> bool {
        let from = from.display();
        let ping = format!("busybox ping -q -c 1 -W 1 {options} {to} >&2");
        let said = format!("nsenter --net={from} {ping} && echo yes || echo no");
        self.host.sh(&said) == "yes\n"
    }

    /// The MAC address that the host has for an address.
    fn host_believes(&self, address: &str) -> Mac {
        self.neighbour(self.host.ns(), "yard", address)
    }

    /// The MAC address that the other container has for an address.
    fn other_believes(&self, address: &str) -> Mac {
        self.neighbour(&self.other, "eth0", address)
    }

    fn neighbour(&self, space: &Path, dev: &str, address: &str) -> Mac {
        let line = self.inside(space, &format!("ip neigh show {address} dev {dev}"));
        let mut words = line.split(' ').skip_while(|word| *word != "lladdr");
        words.nth(1).unwrap().parse().unwrap()
    }

    /// The port behind which the bridge has learned that a MAC address is.
    fn port_of(&self, mac: Mac) -> String {
        let all = self.host.sh("bridge fdb show br yard dynamic");
        let start = format!("{mac} dev ");
        let mut ports = all.lines().filter_map(|line| line.strip_prefix(&start));
        ports.next().unwrap().to_owned()
    }
}

/// The MAC address of what has this address.
fn mac(address: &str) -> Mac {
    Mac::of_address(address.parse().unwrap())
}

/// Whether a message of that type arrives.
fn hears(socket: &UdpSocket, kind: u8) -> bool {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut message = [0; 1500];
    while let Ok(len) = socket.recv(&mut message) {
        if message[..len].first() == Some(&kind) {
            return true;
        }
    }
    false
}

/// Does the same where lies are dropped and where they are allowed.
fn each(check: impl Fn(&Scene, bool)) {
    for (options, allowed) in [("", false), ("--opt spoof=allow", true)] {
        let Some(scene) = Scene::new(options) else {
            return;
        };
        check(&scene, allowed);
    }
}

#[test]
fn a_foreign_mac_address_gets_nowhere() {
    each(|scene, allowed| {
        scene.inside(&scene.liar, "ip link set eth0 address 02:00:00:00:00:99");
        for to in ["10.9.0.1", OTHER4, "fd09::1", OTHER6] {
            assert_eq!(scene.pings(&scene.liar, "", to), allowed, "{to}");
        }
        // Nor does the bridge learn from it where the other one is.
        let victim = mac(OTHER4);
        let before = scene.port_of(victim);
        scene.inside(&scene.liar, &format!("ip link set eth0 address {victim}"));
        // Should the other one say a word between (a multicast report), it is back where it was.
        let learned = (0..4).any(|_| {
            scene.pings(&scene.liar, "", "10.9.0.1");
            scene.port_of(victim) != before
        });
        assert_eq!(learned, allowed);
    });
}

#[test]
fn a_foreign_address_gets_nowhere() {
    each(|scene, allowed| {
        scene.inside(&scene.liar, "ip addr add 10.9.0.77/24 dev eth0");
        scene.inside(&scene.liar, "ip addr add fd09::77/64 dev eth0 nodad");
        for to in ["10.9.0.1", OTHER4] {
            assert_eq!(scene.pings(&scene.liar, "-I 10.9.0.77", to), allowed);
            assert!(scene.pings(&scene.liar, "-I 10.9.0.2", to));
        }
        for to in ["fd09::1", OTHER6] {
            assert_eq!(scene.pings(&scene.liar, "-I fd09::77", to), allowed);
            assert!(scene.pings(&scene.liar, "-I fd09::2", to));
        }
        // The question whether an address is free is no lie.
        let free = "busybox arping -q -D -c 1 -w 1 -I eth0 10.9.0.88 && echo free";
        assert_eq!(scene.inside(&scene.liar, free), "free\n");
        let taken = format!("busybox arping -q -D -c 1 -w 1 -I eth0 {OTHER4} || echo taken");
        assert_eq!(scene.inside(&scene.liar, &taken), "taken\n");
    });
}

#[test]
fn a_foreign_arp_claim_is_not_believed() {
    each(|scene, allowed| {
        // The host on where the other is, the other on where the host is.
        for claimed in [OTHER4, "10.9.0.1"] {
            scene.inside(
                &scene.liar,
                &format!("ip addr add {claimed}/32 dev eth0 noprefixroute"),
            );
            for how in ["-U", "-A"] {
                let claim = format!("busybox arping -q {how} -c 1 -w 1 -I eth0 {claimed} || true");
                scene.inside(&scene.liar, &claim);
            }
        }
        sleep(PATIENCE);
        let truth = |claimed| mac(if allowed { "10.9.0.2" } else { claimed });
        assert_eq!(scene.host_believes(OTHER4), truth(OTHER4));
        assert_eq!(scene.other_believes("10.9.0.1"), truth("10.9.0.1"));
    });
}

#[test]
fn a_foreign_neighbour_advertisement_is_not_believed() {
    each(|scene, allowed| {
        scene.inside(&scene.liar, "sysctl -qw net.ipv6.conf.eth0.hop_limit=255");
        let socket = icmpv6(&scene.liar).unwrap();
        let liar = mac("10.9.0.2").octets();
        // Type, code, checksum, flags (override), target, option: the target's MAC address.
        let claim = |claimed: &str, to: &str| {
            let target: Ipv6Addr = claimed.parse().unwrap();
            let head = [136, 0, 0, 0, 0x20, 0, 0, 0];
            let message = [&head[..], &target.octets(), &[2, 1], &liar].concat();
            socket.send_to(&message, (to, 0)).unwrap();
        };
        let before = (scene.host_believes(OTHER6), scene.other_believes("fd09::1"));
        assert!(before.0.octets() != liar && before.1.octets() != liar);
        claim(OTHER6, "fd09::1");
        claim("fd09::1", OTHER6);
        sleep(PATIENCE);
        let liar = Mac::from_octets(liar).unwrap();
        let after = (scene.host_believes(OTHER6), scene.other_believes("fd09::1"));
        assert_eq!(after, if allowed { (liar, liar) } else { before });
    });
}

#[test]
fn router_advertisements_and_redirects_are_not_heard() {
    each(|scene, allowed| {
        let socket = icmpv6(&scene.liar).unwrap();
        let listeners = [scene.host.ns(), &scene.other].map(|space| icmpv6(space).unwrap());
        for kind in [134, 137] {
            let mut message = [0; 40];
            message[0] = kind;
            socket.send_to(&message, ("ff02::1", 0)).unwrap();
            for listener in &listeners {
                assert_eq!(hears(listener, kind), allowed, "{kind}");
            }
        }
        // Other messages to all are.
        socket.send_to(&[200; 8], ("ff02::1", 0)).unwrap();
        for listener in &listeners {
            assert!(hears(listener, 200));
        }
    });
}
