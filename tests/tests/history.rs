//! What went wrong elsewhere, and that it does not here: a test for each advisory or issue about
//! ports, forwarding, IPv6 or reloading, with real packets. Some are matters of course in other
//! tests: CVE-2021-20199, who calls is who is seen, and moby#53713, icc=false hides no
//! published port, in publish.rs; GHSA-vchx-5pr6-ffx2, no process is started, in defects.rs.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use mydocker_exec_netlink::netns::run_in;
use mydocker_tests::{Dual, Host, Question, Server, Site, Transport, icmpv6};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Ipv6MulticastHops;

/// What `web` listens on: published everywhere, at 127.0.0.1 alone, and not at all.
const OPEN: u16 = 80;
const LOCAL: u16 = 81;
const CLOSED: u16 = 82;
/// The host's ports that lead there.
const PUBLISHED: u16 = 8080;
const PUBLISHED_LOCALLY: u16 = 8081;

const PUBLISH: &str = "-p 8080:80 -p 8080:80/udp -p 127.0.0.1:8081:81 -p 127.0.0.1:8081:81/udp";

/// A site on which `web` publishes ports, and who answers there.
fn published() -> Option<(Site, Server)> {
    let site = Site::new("", PUBLISH)?;
    let server = Server::start("web", &site.web, &[OPEN, LOCAL, CLOSED]).unwrap();
    Some((site, server))
}

fn at(dual: Dual, port: u16) -> [SocketAddr; 2] {
    dual.map(|address| SocketAddr::new(address, port))
}

/// Who answers there over TCP and over UDP, and whom it sees.
type Heard = [Option<(String, IpAddr)>; 2];

/// Asks all of these addresses at once.
fn ask(from: &Path, to: &[SocketAddr]) -> Vec<Heard> {
    let question = |to, transport| Question {
        from,
        transport,
        to,
    };
    let questions: Vec<_> = to
        .iter()
        .flat_map(|to| Transport::ALL.map(|transport| question(*to, transport)))
        .collect();
    let mut answers = Question::ask_all(&questions)
        .into_iter()
        .map(|answer| answer.ok().map(|answer| (answer.server, answer.source)));
    to.iter()
        .map(|_| [(); 2].map(|()| answers.next().unwrap()))
        .collect()
}

/// Checks that this one answers at all of these addresses, over TCP and UDP.
#[track_caller]
fn assert_open(from: &Path, to: &[SocketAddr], server: &str) {
    for (to, heard) in to.iter().zip(ask(from, to)) {
        let by = heard.map(|answer| answer.map(|(server, _)| server));
        assert_eq!(by, [Some(server.into()), Some(server.into())], "{to}");
    }
}

/// Checks that nobody answers at any of these addresses, over TCP or UDP.
#[track_caller]
fn assert_closed(from: &Path, to: &[SocketAddr]) {
    for (to, heard) in to.iter().zip(ask(from, to)) {
        assert_eq!(heard, [None, None], "{to}");
    }
}

/// What a firewall that reloads does, and what the answer to it is.
const FLUSH: &str = "nft flush ruleset";
const REPAIR: &str = "network repair";

/// A router advertisement (RFC 4861, 4.2): a default route for half an hour and a prefix to take an
/// address of.
fn router_advertisement(prefix: Ipv6Addr) -> Vec<u8> {
    const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    // Type, length in units of 8 bytes, bits of the prefix, on-link and autonomous; lifetimes.
    const PREFIX: [u8; 16] = [3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0];
    [&ADVERTISEMENT[..], &PREFIX, &prefix.octets()].concat()
}

/// Sends it to everybody on the only link of `space`.
fn advertise(space: &Path, prefix: Ipv6Addr) {
    let socket = icmpv6(space).unwrap();
    // One that came through a router is not believed.
    setsockopt(&socket, Ipv6MulticastHops, &255).unwrap();
    let message = router_advertisement(prefix);
    socket.send_to(&message, ("ff02::1", 0)).unwrap();
    sleep(Duration::from_millis(300));
}

/// A rogue router among the containers. Also CVE-2020-13401 and CVE-2020-13597. There are two walls:
/// it is not heard, unless spoofing is allowed, and it would not be listened to.
#[test]
fn cve_2020_10749_router_advertisements_of_a_container_change_nothing() {
    const ROGUE: Ipv6Addr = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 0);
    for (options, heard) in [("", false), ("--opt spoof=allow", true)] {
        let Some(Site {
            host, web, peer, ..
        }) = &Site::new(options, "")
        else {
            return;
        };
        let configured = || {
            let show = "ip -6 -o addr; ip -6 route";
            [host.sh(show), host.sh_in(peer, show)]
        };
        let before = configured();
        advertise(web, ROGUE);
        assert_eq!(configured(), before, "{options}");
        host.sh("sysctl -qw net.ipv6.conf.front.accept_ra=2");
        advertise(web, ROGUE);
        assert_eq!(configured() != before, heard, "{options}");
    }
}

/// IPv6 was left on where nobody had asked for it.
#[test]
fn cve_2024_32473_an_ipv4_only_endpoint_has_no_ipv6_address() {
    let Some(host) = Host::new() else { return };
    let web = host.sandbox("web");
    host.ok("network create --subnet 10.1.0.0/24 plain");
    host.connect("plain", "web", &web, "");
    let addresses = || {
        let show = "ip -6 -o addr | grep -v \" lo \" || true";
        host.sh(show) + &host.sh_in(&web, show)
    };
    assert_eq!(addresses(), "");
    // Addresses come when a link goes up: here, all of them.
    let again = "for link in $(ip -o link | cut -d: -f2 | cut -d@ -f1); do
                     ip link set $link down; ip link set $link up
                 done";
    host.sh(again);
    host.sh_in(&web, again);
    assert_eq!(addresses(), "");
}

/// Makes `space` send what goes to 127.0.0.1 to `gateway`, as nobody does by accident.
fn route_loopback_via(site: &Site, space: &Path, link: &str, gateway: IpAddr) {
    site.host.sh_in(
        space,
        &format!(
            "ip -4 addr flush dev lo
             sysctl -qw net.ipv4.conf.all.route_localnet=1
             ip route add 127.0.0.1 via {gateway} dev {link}"
        ),
    );
}

/// Containers on 127.0.0.1 need a setting of the kernel that opens it to the whole link.
#[test]
fn cve_2020_8558_nobody_else_reaches_the_hosts_loopback() {
    const HOSTS_OWN: u16 = 6379;
    let Some((site, _server)) = published() else {
        return;
    };
    let Site {
        host,
        peer,
        other,
        lan,
        ..
    } = &site;
    let _hosts_own = Server::start_at("host", host.ns(), Site::LOOPBACK[0], &[HOSTS_OWN]).unwrap();
    let ports = [HOSTS_OWN, PUBLISHED, PUBLISHED_LOCALLY];
    let loopback = ports.map(|port| SocketAddr::new(Site::LOOPBACK[0], port));
    assert_open(host.ns(), &loopback[..1], "host");
    assert_open(host.ns(), &loopback[1..], "web");
    route_loopback_via(&site, lan, "up0", Site::HOST[0]);
    route_loopback_via(&site, peer, "eth0", Site::FRONT[0]);
    route_loopback_via(&site, other, "eth0", Site::BACK[0]);
    for from in [lan, peer, other] {
        assert_closed(from, &loopback);
    }
    for links in ["all", "default", "lan"] {
        let setting = format!("sysctl -n net.ipv4.conf.{links}.route_localnet");
        assert_eq!(host.sh(&setting), "0\n", "{links}");
    }
    // Where the host's administrator opens its own loopback to a link, what we publish there stays
    // closed, and it is seen that such packets did arrive.
    host.sh("sysctl -qw net.ipv4.conf.lan.route_localnet=1");
    assert_open(lan, &loopback[..1], "host");
    assert_closed(lan, &loopback[1..]);
}

/// A port published at 127.0.0.1 answered whoever had a route to the container. Also moby#41872.
#[test]
fn moby_45610_a_loopback_published_port_is_closed_to_the_link() {
    let Some((site, _server)) = published() else {
        return;
    };
    let mut closed = at(Site::WEB, LOCAL).to_vec();
    closed.extend(
        [Site::HOST, Site::FRONT, Site::BACK]
            .map(|dual| at(dual, PUBLISHED_LOCALLY))
            .concat(),
    );
    for from in [&site.lan, &site.other] {
        assert_closed(from, &closed);
    }
}

/// Where forwarding is accepted, every port of a container answered whoever had a route to it:
/// what moby 28 took back.
#[test]
fn moby_48724_unpublished_ports_are_closed_where_forwarding_is_accepted() {
    let Some((site, _server)) = published() else {
        return;
    };
    site.host.sh("nft \"table inet firewall {
             chain forward { type filter hook forward priority filter; policy accept; accept; }
         }\"");
    // Published or not, by the container's own address; not published, by the host's.
    let mut closed = Vec::new();
    for port in [OPEN, LOCAL, CLOSED] {
        closed.extend(at(Site::WEB, port));
    }
    closed.extend(
        [OPEN, LOCAL, CLOSED]
            .map(|port| at(Site::HOST, port))
            .concat(),
    );
    assert_closed(&site.lan, &closed);
    assert_open(&site.lan, &at(Site::HOST, PUBLISHED), "web");
}

/// A reload of the firewall exposed ports that were published at 127.0.0.1. Nothing of ours is left
/// after a flush, so what the kernel does by itself is all there is: no port of the host leads
/// anywhere, 127.0.0.1 does not come in from a LAN; but a route to the container leads there.
#[test]
fn cve_2025_54388_a_flushed_firewall_publishes_nothing_and_repair_closes_the_rest() {
    let Some((site, _server)) = published() else {
        return;
    };
    let Site { host, lan, .. } = &site;
    let everywhere = |port| {
        [Site::HOST, Site::FRONT, Site::BACK]
            .map(|dual| at(dual, port))
            .concat()
    };
    let mut closed = everywhere(PUBLISHED_LOCALLY);
    closed.push(SocketAddr::new(Site::LOOPBACK[0], PUBLISHED_LOCALLY));
    let direct = at(Site::WEB, LOCAL);
    host.sh(FLUSH);
    assert_closed(lan, &[&closed[..], &everywhere(PUBLISHED)].concat());
    assert_open(lan, &direct, "web");
    host.ok(REPAIR);
    assert_closed(lan, &[&closed[..], &direct].concat());
    assert_open(lan, &everywhere(PUBLISHED), "web");
    assert_open(
        host.ns(),
        &[SocketAddr::new(Site::LOOPBACK[0], PUBLISHED_LOCALLY)],
        "web",
    );
}

/// A reload of the firewall took the walls between networks away. It does here, too: a kernel that
/// forwards does so until told otherwise; and a container reaches the host's loopback, which our
/// bridges let in and only the firewall kept them from. Repair builds all of it up again.
#[test]
fn cve_2025_54410_repair_isolates_networks_again() {
    const HOSTS_OWN: u16 = 6379;
    let Some((site, _server)) = published() else {
        return;
    };
    let Site { host, other, .. } = &site;
    let _hosts_own = Server::start_at("host", host.ns(), Site::LOOPBACK[0], &[HOSTS_OWN]).unwrap();
    route_loopback_via(&site, other, "eth0", Site::BACK[0]);
    let direct = [OPEN, LOCAL, CLOSED]
        .map(|port| at(Site::WEB, port))
        .concat();
    let hosts_own = [SocketAddr::new(Site::LOOPBACK[0], HOSTS_OWN)];
    let walls = [&direct[..], &hosts_own].concat();
    assert_closed(other, &walls);
    host.sh(FLUSH);
    assert_open(other, &direct, "web");
    assert_open(other, &hosts_own, "host");
    assert_closed(other, &at(Site::HOST, PUBLISHED));
    // What has just loaded its rules tracks connections.
    host.sh("nft 'table inet reloaded { chain c { type filter hook forward priority 0; ct state new; }; }'");
    let visitors = at(Site::WEB, LOCAL).map(|to| {
        let bind = || UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" });
        let visitor = run_in(other, bind).unwrap().unwrap();
        visitor.connect(to).unwrap();
        visitor
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        visitor
    });
    let is_heard = |visitor: &UdpSocket| {
        visitor.send(b"?").unwrap();
        visitor.recv(&mut [0; 128]).is_ok()
    };
    assert_eq!(visitors.each_ref().map(is_heard), [true; 2]);
    host.ok(REPAIR);
    assert_closed(other, &walls);
    assert_eq!(
        visitors.each_ref().map(is_heard),
        [false; 2],
        "who came in meanwhile"
    );
    assert_open(other, &at(Site::HOST, PUBLISHED), "web");
}

/// A repair leaves connections alone that somebody translated while the walls were down: published ports look
/// like that. An internal network has none, so nobody stays there.
#[test]
fn whoever_was_led_into_an_internal_network_meanwhile_is_not_heard_there() {
    let Some(site) = Site::new("--internal", "") else {
        return;
    };
    let Site { host, web, lan, .. } = &site;
    let _server = Server::start("web", web, &[OPEN]).unwrap();
    host.sh_in(web, "ip route replace default via 10.1.0.1");
    let visitor = || {
        let visitor = run_in(lan, || UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        let patience = Some(Duration::from_secs(1));
        visitor.set_read_timeout(patience).unwrap();
        visitor
            .connect(SocketAddr::new(Site::HOST[0], 5353))
            .unwrap();
        visitor
    };
    let is_heard = |visitor: &UdpSocket| {
        visitor.send(b"?").unwrap();
        visitor.recv(&mut [0; 128]).is_ok()
    };
    host.sh(FLUSH);
    host.sh("nft 'table ip others {
             chain c { type nat hook prerouting priority -100; udp dport 5353 dnat to 10.1.0.2:80; }
         }'");
    let meanwhile = visitor();
    assert!(is_heard(&meanwhile) && is_heard(&meanwhile));
    host.ok(REPAIR);
    assert!(!is_heard(&meanwhile));
    assert!(!is_heard(&visitor()));
}

/// A published port was taken out of packets to other hosts' ports of that number. Also
/// CVE-2025-67499.
#[test]
fn ghsa_jv3w_x3r3_g6rm_traffic_to_other_hosts_is_not_hijacked() {
    const DNS: u16 = 53;
    const BEYOND: Dual = [
        IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 9)),
    ];
    let Some(site) = Site::new("", "-p 53:53 -p 53:53/udp") else {
        return;
    };
    let Site {
        host,
        web,
        peer,
        other,
        lan,
    } = &site;
    let beyond = host.neighbour(
        "beyond",
        "198.51.100.1/24 2001:db8:1::1/64",
        "198.51.100.9/24 2001:db8:1::9/64",
    );
    host.sh_in(
        &beyond,
        "ip route add default via 198.51.100.1
         ip -6 route add default via 2001:db8:1::1",
    );
    let _web = Server::start("web", web, &[DNS]).unwrap();
    let _beyond = Server::start("beyond", &beyond, &[DNS]).unwrap();
    assert_open(lan, &at(Site::HOST, DNS), "web");
    for from in [web, peer, other, lan, host.ns()] {
        assert_open(from, &at(BEYOND, DNS), "beyond");
    }
    // In transit, and seen as who it is.
    let heard = ask(lan, &at(BEYOND, DNS));
    let seen = heard.into_iter().flatten().map(|answer| answer.unwrap().1);
    let [v4, v6] = Site::LAN;
    assert_eq!(seen.collect::<Vec<_>>(), [v4, v4, v6, v6]);
}

/// Publishing went before the administrator's rules. Here it is last: whatever is dropped anywhere
/// on a packet's way is dropped, before our rules and after them.
#[test]
fn cve_2019_9946_what_the_administrator_drops_is_dropped() {
    const CHAINS: [&str; 6] = [
        "prerouting priority raw",
        "prerouting priority mangle",
        "forward priority -150",
        "forward priority filter",
        "forward priority 100",
        "postrouting priority mangle",
    ];
    let ports = || (PUBLISHED..).zip(CHAINS);
    let publish: String = ports()
        .map(|(port, _)| format!("-p {port}:{OPEN} -p {port}:{OPEN}/udp "))
        .collect();
    let Some(site) = Site::new("", &publish) else {
        return;
    };
    let _server = Server::start("web", &site.web, &[OPEN]).unwrap();
    let all: Vec<_> = ports().flat_map(|(port, _)| at(Site::HOST, port)).collect();
    assert_open(&site.lan, &all, "web");
    // One port for each place, told by what was called.
    for (port, chain) in ports() {
        let drop = if chain.starts_with("prerouting") {
            format!("th dport {port} drop")
        } else {
            format!("meta l4proto {{ tcp, udp }} ct original proto-dst {port} drop")
        };
        site.host.sh(&format!(
            "nft \"table inet admin{port} {{
                 chain c {{ type filter hook {chain}; {drop}; }}
             }}\""
        ));
    }
    assert_closed(&site.lan, &all);
    for (port, _) in ports() {
        site.host.sh(&format!("nft delete table inet admin{port}"));
    }
    assert_open(&site.lan, &all, "web");
}

/// Published ports are not the input chain's business, though a firewall's users think so: the
/// packets are forwarded, and what the firewall says of those is heard. Also moby#22054.
#[test]
fn moby_4737_a_firewall_that_forwards_nothing_closes_published_ports() {
    let Some((site, _server)) = published() else {
        return;
    };
    let firewall = |hook| {
        site.host.sh(&format!(
            "nft \"table inet {hook}wall {{
                 chain c {{ type filter hook {hook} priority filter; iifname lan meta l4proto {{ tcp, udp }} drop; }}
             }}\""
        ));
    };
    let published = at(Site::HOST, PUBLISHED);
    firewall("input");
    assert_open(&site.lan, &published, "web");
    firewall("forward");
    assert_closed(&site.lan, &published);
}

/// Another's chains and policies were changed, and other users of the kernel fell silent.
#[test]
fn moby_39439_foreign_chains_and_policies_stay() {
    let Some(host) = Host::new() else { return };
    host.sh(
        "nft \"
         table inet firewall {
             chain input { type filter hook input priority filter; policy drop; iifname lo accept; }
             chain forward { type filter hook forward priority filter; policy drop; ct state established accept; }
         }
         table ip nat {
             chain PREROUTING { type nat hook prerouting priority dstnat; tcp dport 8080 dnat to 192.0.2.77; }
             chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; }
         }
         table ip filter {
             chain FORWARD { type filter hook forward priority filter; policy accept; }
             chain DOCKER-USER { return; }
         }\"",
    );
    let policies = || {
        let all = host.sh("nft list ruleset");
        let foreign = all
            .split("table ")
            .filter(|table| !table.contains(" mydocker"));
        let lines = foreign.flat_map(|table| table.lines().filter(|line| line.contains("policy")));
        lines.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let (web, before, policies_before) = (host.sandbox("web"), host.snapshot(), policies());
    host.ok("network create --subnet 10.1.0.0/24 --subnet fd01::/64 front");
    host.connect("front", "web", &web, "-p 8080:80");
    assert_eq!(policies(), policies_before);
    host.ok("network disconnect front web");
    host.ok("network remove front");
    host.assert_as(&before);
}

/// A helper listened on all addresses of the host. There is none that does.
#[test]
fn cve_2021_4024_nobody_listens_where_the_lan_could_hear() {
    let Some((site, _server)) = published() else {
        return;
    };
    let listeners = site.host.sh("ss -Hltun");
    let addresses = listeners
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4));
    for address in addresses {
        let address: SocketAddr = address.parse().unwrap();
        assert!(address.ip().is_loopback(), "{listeners}");
    }
}
