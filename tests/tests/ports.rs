//! What published ports cost: each is an element of a hash map, so that a request sends the kernel
//! its own ports, in one batch, and a packet meets the same rules however many there are.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use mydocker_exec_netlink::netns::run_in;
use mydocker_exec_netlink::nft::NftSocket;
use mydocker_tests::{Host, Question, Server, Transport};

/// 5,000 ports, as a value of `-p`, and some of them.
const MANY: &str = "10000-14999:10000-14999";
const SOME: [u16; 3] = [10_000, 12_500, 14_999];
const BEYOND: u16 = 15_000;

/// A network, a container that is not yet on it, and a machine on the LAN.
struct Scene {
    host: Host,
    web: PathBuf,
    lan: PathBuf,
    before: String,
}

/// What one command asked of nf_tables.
#[derive(Debug, Eq, PartialEq)]
struct Cost {
    /// Bytes of each datagram.
    sent: Vec<usize>,
    /// How often the kernel's ruleset changed.
    generations: u32,
}

impl Scene {
    fn new() -> Option<Self> {
        let host = Host::new()?;
        let lan = host.neighbour("lan", "192.0.2.1/24", "192.0.2.9/24");
        let web = host.sandbox("web");
        let before = host.snapshot();
        host.ok("network create --subnet 10.0.0.0/24 n");
        Some(Self {
            host,
            web,
            lan,
            before,
        })
    }

    fn connect(&self, ports: &str) -> Cost {
        let netns = self.web.display();
        self.cost(&format!("network connect n web {ports} --netns {netns}"))
    }

    /// Runs `mydocker`, which changes neither a chain nor a rule, nor makes one anew: their handles
    /// stay.
    #[track_caller]
    fn cost(&self, line: &str) -> Cost {
        let chains = || self.host.sh("nft --handle --terse list ruleset");
        let (before, generation) = (chains(), self.generation());
        let sent = sent_to_nf_tables(&self.host, line);
        assert_eq!(before, chains(), "{line}");
        Cost {
            sent,
            generations: self.generation() - generation,
        }
    }

    fn generation(&self) -> u32 {
        let read = || NftSocket::open()?.generation();
        run_in(self.host.ns(), read).unwrap().unwrap()
    }

    /// Who answers at a port of the host.
    fn ask(&self, transport: Transport, port: u16) -> Result<IpAddr, ErrorKind> {
        let question = Question {
            from: &self.lan,
            transport,
            to: SocketAddr::new("192.0.2.1".parse().unwrap(), port),
        };
        let answer = question.ask().map_err(|error| error.kind())?;
        assert_eq!(answer.server, "web");
        Ok(answer.source)
    }

    fn leaves_nothing(self) {
        self.host.ok("network remove n");
        self.host.assert_as(&self.before);
    }
}

/// Bytes of each datagram that `mydocker` sends to nf_tables.
fn sent_to_nf_tables(host: &Host, line: &str) -> Vec<usize> {
    // A file for each process: in one for all, a call of one cuts that of another in two.
    let traces = tempfile::tempdir().unwrap();
    let mydocker = host.mydocker_command(line);
    let output = Command::new("strace")
        .args([
            "-ff",
            "-qq",
            "-X",
            "raw",
            "-e",
            "trace=sendto,sendmsg",
            "-o",
        ])
        .arg(traces.path().join("trace"))
        .arg(mydocker.get_program())
        .args(mydocker.get_args())
        .envs(host.environment())
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    let files = std::fs::read_dir(traces.path()).unwrap();
    let read = |file: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(file.unwrap().path()).unwrap()
    };
    let calls: String = files.map(read).collect();
    let bytes = |call: &str| call.rsplit(" = ").next().unwrap().parse().unwrap();
    calls
        .lines()
        .filter(|call| is_for_nf_tables(call))
        .map(bytes)
        .collect()
}

/// Whether a call as strace shows it opens a batch, whose number rtnetlink has for longer messages,
/// or sends a message to the subsystem.
fn is_for_nf_tables(call: &str) -> bool {
    call.contains("{nlmsg_len=20, nlmsg_type=0x10,") || call.contains("nlmsg_type=0xa")
}

#[test]
fn five_thousand_ports_are_one_batch_of_elements() {
    let Some(scene) = Scene::new() else { return };
    let one = scene.connect("-p 9:9 -p 9:9/udp");
    assert_eq!((one.sent.len(), one.generations), (1, 1), "{one:?}");
    let gone = scene.cost("network disconnect n web");
    assert_eq!((gone.sent.len(), gone.generations), (1, 1), "{gone:?}");

    let many = scene.connect(&format!("-p {MANY} -p {MANY}/udp"));
    assert_eq!((many.sent.len(), many.generations), (1, 1), "{many:?}");
    assert!(many.sent[0] < 5_000 * one.sent[0], "{many:?}, {one:?}");
    let server = Server::start("web", &scene.web, &[&SOME[..], &[BEYOND]].concat()).unwrap();
    let client: IpAddr = "192.0.2.9".parse().unwrap();
    for transport in Transport::ALL {
        for port in SOME {
            let answer = scene.ask(transport, port);
            assert_eq!(answer, Ok(client), "{transport:?} {port}");
        }
        let answer = scene.ask(transport, BEYOND);
        assert_eq!(answer, Err(ErrorKind::ConnectionRefused), "{transport:?}");
    }
    drop(server);

    let gone = scene.cost("network disconnect n web");
    assert_eq!((gone.sent.len(), gone.generations), (1, 1), "{gone:?}");
    scene.leaves_nothing();
}

/// One port of a running container, and a container with one, beside none and beside 5,000: byte for
/// byte the same.
#[test]
fn a_port_costs_the_same_whatever_the_host_has() {
    let Some(scene) = Scene::new() else { return };
    scene.connect("");
    let db = scene.host.sandbox("db");
    let lines = [
        "network port add n web 9:9".to_owned(),
        "network port rm n web 9:9".to_owned(),
        format!("network connect n db -p 9:9 --netns {}", db.display()),
        "network disconnect n db".to_owned(),
    ];
    let costs = || lines.each_ref().map(|line| scene.cost(line));
    let alone = costs();
    for cost in &alone {
        assert_eq!((cost.sent.len(), cost.generations), (1, 1), "{cost:?}");
    }
    let many = scene.cost(&format!("network port add n web {MANY}"));
    assert_eq!((many.sent.len(), many.generations), (1, 1), "{many:?}");
    assert_eq!(costs(), alone);
    let many = scene.cost(&format!("network port rm n web {MANY}"));
    assert_eq!((many.sent.len(), many.generations), (1, 1), "{many:?}");
    scene.cost("network disconnect n web");
    scene.leaves_nothing();
}

/// The rules that apply to the first packet of a connection on its way to a published port, in order;
/// a trace has none of those that don't, but [`Scene::cost`] sees that there are as many as before.
fn rules_met(scene: &Scene, port: u16) -> Vec<String> {
    let seen = scene.host.dir().join("seen");
    let mut monitor = scene
        .host
        .inside("nft")
        .args(["monitor", "trace"])
        .stdout(File::create(&seen).unwrap())
        .spawn()
        .unwrap();
    // The first packet may have been under way when the monitor came, the last one may be yet.
    let met = (0..100).find_map(|_| {
        scene.ask(Transport::Tcp, port).unwrap();
        thread::sleep(Duration::from_millis(20));
        second_packet(&seen)
    });
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    met.expect("three packets")
}

/// What a monitor wrote of the second of three packets: one line for each rule, and one for the
/// packet itself.
fn second_packet(seen: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(seen).unwrap();
    let of_packets: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("trace id ")?.split_once(' '))
        .collect();
    let mut ids: Vec<&str> = of_packets.iter().map(|(id, _)| *id).collect();
    ids.dedup();
    let (second, _third) = (*ids.get(1)?, ids.get(2)?);
    let of_second = of_packets.iter().filter(|(id, _)| *id == second);
    let rules = of_second.filter(|(_, what)| !what.contains(" packet: "));
    Some(rules.map(|(_, what)| (*what).to_owned()).collect())
}

#[test]
fn a_packet_meets_the_same_rules_however_many_ports_are_published() {
    let Some(scene) = Scene::new() else { return };
    let [first, middle, last] = SOME;
    scene.connect(&format!("-p {first}:{first}"));
    let _server = Server::start("web", &scene.web, &SOME).unwrap();
    scene.host.sh("nft 'add table inet trace
         add chain inet trace first { type filter hook prerouting priority -400; }
         add rule inet trace first iifname lan tcp flags & (syn | ack) == syn meta nftrace set 1'");
    let alone = rules_met(&scene, first);
    let translating = |rule: &&String| rule.contains(" rule dnat ");
    assert_eq!(alone.iter().filter(translating).count(), 1, "{alone:#?}");
    let rest = format!("{}-{last}", first + 1);
    scene.cost(&format!("network port add n web {rest}:{rest}"));
    for port in [first, middle, last] {
        assert_eq!(rules_met(&scene, port), alone, "port {port}");
    }
}
