//! Lists and deletions against the kernel, with `conntrack` as the witness.

use std::net::Ipv4Addr;
use std::process::Command;

use mydocker_core::{Dnat, Family, Guard, Instance, Object, Op, Protocol};

use super::socket::ConntrackSocket;
use super::{Ending, Pass, flush};
use crate::nft::NftSocket;
use crate::nft::testing::{isolated, run};
use crate::rtnl::RouteSocket;

/// Runs `f` in a host that has 192.0.2.1 and 2001:db8::1.
fn on_a_host(f: impl FnOnce() + Send) {
    isolated(|| {
        if let Err(error) = Command::new("conntrack").arg("-V").output() {
            println!("skipped: no `conntrack` to compare with: {error}");
            return;
        }
        run("ip link set lo up");
        run("ip addr add 192.0.2.1/32 dev lo");
        run("ip addr add 2001:db8::1/128 dev lo nodad");
        f();
    });
}

/// Tracks a connection from port 1 of `source`: the others are an address and a port.
fn track(protocol: &str, source: &str, destination: (&str, u16), answers: (&str, u16)) {
    let ((to, port), (by, answering)) = (destination, answers);
    let tcp = if protocol == "tcp" {
        " --state ESTABLISHED"
    } else {
        ""
    };
    run(&format!(
        "conntrack -I -p {protocol} -t 600 -s {source} -d {to} --sport 1 --dport {port} -r {by} \
         -q {source} --reply-port-src {answering} --reply-port-dst 1{tcp}"
    ));
}

/// The original destinations of what is tracked, sorted.
fn tracked() -> Vec<String> {
    let word = |line: &str, key: &str| {
        let mut words = line.split_whitespace();
        let found = words.find_map(|word| word.strip_prefix(key).map(str::to_owned));
        found.unwrap_or_default()
    };
    let both = ["ipv4", "ipv6"].map(|family| run(&format!("conntrack -L -f {family}")));
    let lines = both.iter().flat_map(|text| text.lines());
    let mut all: Vec<String> = lines
        .map(|line| format!("{} {}", word(line, "dst="), word(line, "dport=")))
        .collect();
    all.sort();
    all
}

fn dnat(protocol: Protocol, port: u16, to: &str) -> Object {
    Object::Dnat(Dnat {
        instance: Instance::DEFAULT,
        at: None,
        protocol,
        port,
        to: to.parse().unwrap(),
    })
}

fn guard(addresses: &[&str]) -> Object {
    Object::Guard(Guard {
        instance: Instance::DEFAULT,
        port: "mdv0".parse().unwrap(),
        mac: "02:6d:0a:00:00:02".parse().unwrap(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
    })
}

fn conntrack() -> ConntrackSocket {
    ConntrackSocket::over(NftSocket::open().unwrap().shared())
}

fn flush_after(ops: &[Op]) {
    let mut routes = RouteSocket::open().unwrap();
    flush(&mut conntrack(), &mut routes, ops.iter()).unwrap();
}

#[test]
fn the_kernel_lists_what_a_pass_is_about() {
    on_a_host(|| {
        let mut socket = conntrack();
        assert_eq!(socket.count().unwrap(), 0);
        track("udp", "192.0.2.9", ("192.0.2.1", 53), ("192.0.2.1", 53));
        track("udp", "192.0.2.9", ("192.0.2.1", 54), ("10.0.0.2", 53));
        track("tcp", "10.0.0.2", ("8.8.8.8", 53), ("8.8.8.8", 53));
        track("udp", "fd00::9", ("2001:db8::1", 53), ("fd00::2", 53));
        assert_eq!(socket.count().unwrap(), 4);
        let mut listed = |pass| {
            let all = socket.list(pass).unwrap().into_iter();
            let mut all: Vec<String> = all.map(|c| c.destination.to_string()).collect();
            all.sort();
            all
        };
        let address = Ipv4Addr::new(10, 0, 0, 2);
        assert_eq!(listed(Pass::AnsweredBy(address)), ["192.0.2.1:54"]);
        assert_eq!(listed(Pass::From(address)), ["8.8.8.8:53"]);
        assert_eq!(listed(Pass::V6), ["[2001:db8::1]:53"]);
        assert_eq!(listed(Pass::Udp(Family::V6, 53)), ["[2001:db8::1]:53"]);
        assert_eq!(listed(Pass::Udp(Family::V4, 53)), ["192.0.2.1:53"]);
        assert_eq!(listed(Pass::All).len(), 4);
    });
}

#[test]
fn each_op_ends_its_own_connections() {
    on_a_host(|| {
        track("udp", "192.0.2.9", ("192.0.2.1", 53), ("192.0.2.1", 53));
        track("udp", "10.0.0.9", ("8.8.8.8", 53), ("8.8.8.8", 53));
        track("udp", "192.0.2.9", ("192.0.2.1", 8053), ("10.0.0.2", 53));
        track("tcp", "192.0.2.9", ("192.0.2.1", 8080), ("10.0.0.2", 80));
        track("tcp", "192.0.2.9", ("192.0.2.1", 8081), ("10.0.0.2", 81));
        track("tcp", "10.0.0.2", ("8.8.8.8", 443), ("8.8.8.8", 443));
        track("udp", "fd00::9", ("2001:db8::1", 53), ("2001:db8::1", 53));
        assert_eq!(tracked().len(), 7);
        flush_after(&[Op::Add(dnat(Protocol::Tcp, 53, "10.0.0.2:53"))]);
        assert_eq!(tracked().len(), 7);
        flush_after(&[
            Op::Add(dnat(Protocol::Udp, 53, "10.0.0.3:53")),
            Op::Add(dnat(Protocol::Udp, 53, "[fd00::3]:53")),
            Op::Del(dnat(Protocol::Tcp, 8080, "10.0.0.2:80")),
        ]);
        let left = [
            "192.0.2.1 8053",
            "192.0.2.1 8081",
            "8.8.8.8 443",
            "8.8.8.8 53",
        ];
        assert_eq!(tracked(), left);
        flush_after(&[Op::Del(guard(&["10.0.0.2", "fe80::2"]))]);
        assert_eq!(tracked(), ["8.8.8.8 53"]);
    });
}

/// What differs in one thing only stays, of whatever protocol.
#[test]
fn the_kernel_ends_what_it_is_told_to() {
    on_a_host(|| {
        let all = || {
            track("tcp", "192.0.2.9", ("192.0.2.1", 8080), ("10.0.0.2", 80));
            track("udp", "192.0.2.9", ("192.0.2.1", 8080), ("10.0.0.2", 80));
            track("tcp", "192.0.2.6", ("192.0.2.7", 8080), ("10.0.0.2", 80));
            track("tcp", "192.0.2.5", ("192.0.2.1", 8081), ("10.0.0.2", 80));
            track("tcp", "192.0.2.8", ("192.0.2.1", 8080), ("10.0.0.2", 81));
            track("tcp", "192.0.2.7", ("192.0.2.1", 8080), ("10.0.0.3", 80));
            track("tcp", "fd00::9", ("2001:db8::1", 8080), ("fd00::2", 80));
        };
        let mut socket = conntrack();
        let to = "10.0.0.2:80".parse().unwrap();
        let led = |at| Ending::Led {
            protocol: Protocol::Tcp,
            at,
            port: 8080,
            to,
        };
        all();
        if !socket.end_all(&[led(None)].into()).unwrap() {
            println!("skipped: a kernel before 6.11 ends what it listed only");
            assert_eq!(socket.count().unwrap(), 7);
            return;
        }
        assert_eq!(socket.count().unwrap(), 5);
        run("conntrack -F");
        all();
        let here = "192.0.2.1".parse().unwrap();
        assert!(socket.end_all(&[led(Some(here))].into()).unwrap());
        assert_eq!(socket.count().unwrap(), 6);
        let by = Ending::AnsweredBy(*to.ip());
        assert!(socket.end_all(&[by].into()).unwrap());
        assert_eq!(socket.count().unwrap(), 2);
        let from = Ending::From("192.0.2.7".parse().unwrap());
        assert!(socket.end_all(&[from].into()).unwrap());
        assert_eq!(tracked(), ["2001:db8::1 8080"]);
    });
}

#[test]
fn thousands_of_bindings_end_theirs_at_once() {
    on_a_host(|| {
        track("tcp", "192.0.2.9", ("192.0.2.1", 10_005), ("10.0.0.2", 80));
        track("tcp", "192.0.2.8", ("192.0.2.1", 9_999), ("10.0.0.2", 80));
        let ports = 10_000..15_000;
        let ops: Vec<Op> = ports
            .map(|port| Op::Del(dnat(Protocol::Tcp, port, "10.0.0.2:80")))
            .collect();
        flush_after(&ops);
        assert_eq!(tracked(), ["192.0.2.1 9999"]);
    });
}

/// Somebody else may have ended it since it was listed.
#[test]
fn what_ended_by_itself_is_ended() {
    on_a_host(|| {
        track("udp", "192.0.2.9", ("192.0.2.1", 53), ("192.0.2.1", 53));
        let mut socket = conntrack();
        let listed = socket.list(Pass::All).unwrap();
        run("conntrack -D -p udp");
        socket.end(&listed[0]).unwrap();
        assert_eq!(socket.count().unwrap(), 0);
    });
}
