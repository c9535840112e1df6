//! Real packets between namespaces, and the specification.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use mydocker_core::{
    AttachSpec, Call, Callee, Caller, Executor, Family, GatewayMode, Instance, NetworkSpec,
    Outcome, Protocol, Request, Source, State, Transaction, drive,
};
use mydocker_exec_netlink::{NetlinkExecutor, netns::run_in};
use mydocker_tests::{Host, Journal, Question, Server, Transport, attach, create, word};

use crate::{UPLINKS, hosts};

/// Networks of every kind, containers on one or two of them, and machines outside: one of them at
/// the end of an interface that a network trusts.
struct Town {
    host: Host,
    state: State,
    /// Where everybody is, by name.
    spaces: BTreeMap<&'static str, PathBuf>,
}

/// Of so many questions one is asked.
const STRIDE: usize = 23;

/// Called by everybody, in every container and on every machine.
const LISTENED: [u16; 6] = [80, 81, 8080, 8081, 8082, 8083];

impl Town {
    fn new() -> Option<Self> {
        let host = Host::new()?;
        let mut spaces = BTreeMap::from([("host", host.ns().to_owned())]);
        for (machine, ours, theirs) in UPLINKS {
            let long = |[v4, v6]: [&str; 2]| format!("{v4}/24 {v6}/64");
            let space = host.neighbour(machine, &long(ours), &long(theirs));
            let route = format!(
                "ip route add default via {}; ip -6 route add default via {}",
                ours[0], ours[1]
            );
            host.sh_in(&space, &route);
            spaces.insert(machine, space);
        }
        for name in [
            "web", "peer", "alone", "shy", "open", "own", "both", "astray", "inner", "mate",
            "isle", "islet",
        ] {
            spaces.insert(name, host.sandbox(name));
        }
        // The case that is modelled: frames between containers pass the rules for frames alone.
        host.sh("for family in ip ip6; do
                     setting=/proc/sys/net/bridge/bridge-nf-call-${family}tables
                     [ ! -e $setting ] || echo 0 > $setting
                 done");
        let state = run_in(host.ns(), || settle(&spaces)).unwrap();
        Some(Self {
            host,
            state,
            spaces,
        })
    }

    /// Who `name` is when it calls `to`.
    fn caller(name: &str, to: IpAddr) -> Caller {
        let outside = |theirs: [&str; 2]| Caller::Outside {
            interface: word(name),
            address: word(theirs[usize::from(to.is_ipv6())]),
        };
        match UPLINKS.iter().find(|(machine, ..)| *machine == name) {
            Some((_, _, theirs)) => outside(*theirs),
            None if name == "host" => Caller::Host,
            None => Caller::Container(word(name)),
        }
    }

    /// Some of the questions that can be asked, spread over all of them.
    fn calls(&self) -> Vec<(&'static str, Call)> {
        let mut all = Vec::new();
        for name in self.spaces.keys() {
            for to in self.called() {
                let from = Self::caller(name, to);
                // Whoever is outside calls its own loopback, and its own address, without us.
                let own = |a: &IpAddr| to.is_loopback() || *a == to;
                if matches!(&from, Caller::Outside { address, .. } if own(address)) {
                    continue;
                }
                for port in LISTENED {
                    for protocol in [Protocol::Tcp, Protocol::Udp] {
                        let (from, to) = (from.clone(), SocketAddr::new(to, port));
                        all.push((*name, Call { from, to, protocol }));
                    }
                }
            }
        }
        all.into_iter().step_by(STRIDE).collect()
    }

    /// Somebody listens everywhere, and says where.
    fn servers(&self) -> Vec<Server> {
        let mut all = Vec::new();
        for (name, space) in self.spaces.iter().filter(|(name, _)| **name != "host") {
            for port in LISTENED {
                all.push(Server::start(&format!("{name}:{port}"), space, &[port]).unwrap());
            }
        }
        // Or a datagram would be answered by another address than it was sent to.
        for address in self.own(&Caller::Host) {
            all.push(Server::start_at("host", self.host.ns(), address, &LISTENED).unwrap());
        }
        all
    }

    /// Every address that somebody has.
    fn called(&self) -> Vec<IpAddr> {
        let networks = self.state.networks();
        let gateways = networks.flat_map(|n| n.subnets.iter().filter_map(|s| s.gateway));
        let endpoints = self.state.endpoints();
        let containers = endpoints.flat_map(|e| e.addresses.iter().map(IpNet::addr));
        let machines = UPLINKS.iter().flat_map(|(_, ours, theirs)| [ours, theirs]);
        let rest = machines
            .flatten()
            .chain(&["127.0.0.1", "::1"])
            .map(|text| word(text));
        gateways.chain(containers).chain(rest).collect()
    }

    /// Who is to answer, and whom it may see, if anybody is.
    fn expected(&self, call: &Call) -> Option<(String, BTreeSet<IpAddr>)> {
        let hosts = hosts();
        let arrival = self.state.reach(&hosts, call).ok()?;
        let to = call.to.ip();
        let beyond = UPLINKS
            .iter()
            .find(|(_, _, theirs)| theirs.map(word::<IpAddr>).contains(&to));
        let name = match (&arrival.at, &call.from) {
            (Callee::Endpoint(id), _) => id.container.as_str(),
            (Callee::Caller, Caller::Container(container)) => container.as_str(),
            (Callee::Outside, _) => beyond?.0,
            _ => return Some(("host".into(), self.own(&call.from))),
        };
        let seen = match arrival.source {
            Source::Gateway(gateway) => [gateway].into(),
            Source::Host => beyond?.1.map(word).into(),
            Source::Caller => self.own(&call.from),
        };
        Some((format!("{name}:{}", arrival.port), seen))
    }

    /// The addresses that a caller may call from.
    fn own(&self, caller: &Caller) -> BTreeSet<IpAddr> {
        let loopback = ["127.0.0.1", "::1"].map(word::<IpAddr>);
        match caller {
            Caller::Outside { address, .. } => [*address].into(),
            Caller::Container(container) => {
                let addresses = self.state.joined(container).flat_map(|e| &e.addresses);
                addresses.map(IpNet::addr).chain(loopback).collect()
            }
            Caller::Host => {
                let networks = self.state.networks();
                let gateways = networks.flat_map(|n| n.subnets.iter().filter_map(|s| s.gateway));
                gateways.chain(loopback).chain(hosts()).collect()
            }
        }
    }
}

fn transport(protocol: Protocol) -> Transport {
    match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp | Protocol::Sctp => Transport::Udp,
    }
}

fn networks() -> Vec<NetworkSpec> {
    let dual =
        |name: &str, n: u8| create(name, &[&format!("10.{n}.0.0/24"), &format!("fd0{n}::/64")]);
    let modes = |mode| [Family::V4, Family::V6].map(|family| (family, mode)).into();
    vec![
        dual("front", 1),
        NetworkSpec {
            icc: false,
            ..dual("back", 2)
        },
        NetworkSpec {
            isolate: false,
            ..dual("open1", 3)
        },
        NetworkSpec {
            isolate: false,
            trusted: [word("vpn")].into(),
            ..dual("open2", 4)
        },
        NetworkSpec {
            gateway_modes: modes(GatewayMode::Routed),
            ..dual("routed", 5)
        },
        NetworkSpec {
            internal: true,
            ..dual("inside", 6)
        },
        NetworkSpec {
            gateway_modes: modes(GatewayMode::Isolated),
            ..dual("island", 7)
        },
    ]
}

/// Network, container, published ports; a container's first network is its way out.
const ENDPOINTS: [(&str, &str, &[&str]); 14] = [
    (
        "front",
        "web",
        &[
            "8080:80",
            "8080:80/udp",
            "127.0.0.1:8081:80",
            "[::1]:8081:80",
            "192.0.2.1:8082:81",
        ],
    ),
    ("front", "peer", &[]),
    ("back", "alone", &["8083:80"]),
    ("back", "shy", &[]),
    ("open1", "open", &[]),
    ("open2", "own", &[]),
    ("routed", "both", &["8084:80", "8084:80/udp"]),
    ("front", "both", &[]),
    ("open2", "astray", &[]),
    (
        "front",
        "astray",
        &["[2001:db8::1]:8082:81", "[2001:db8::1]:8083:81/udp"],
    ),
    ("inside", "inner", &[]),
    ("inside", "mate", &[]),
    ("island", "isle", &[]),
    ("island", "islet", &[]),
];

/// Makes it all, and says what is wanted.
fn settle(spaces: &BTreeMap<&str, PathBuf>) -> State {
    let mut executor = NetlinkExecutor::open(Instance::DEFAULT).unwrap();
    let mut journal = Journal::default();
    let networks = networks().into_iter().map(Request::CreateNetwork);
    let endpoints = ENDPOINTS.map(|(network, container, ports)| {
        Request::Attach(AttachSpec {
            netns: word(spaces[container].to_str().unwrap()),
            ..attach(network, container, ports)
        })
    });
    for request in networks.chain(endpoints) {
        let facts = executor.facts().unwrap();
        let plan = journal.state.plan(&facts, &request).unwrap();
        let outcome = drive(&mut Transaction::begin(plan), &mut executor, &mut journal).unwrap();
        assert_eq!(outcome, Outcome::Committed, "{request:?}");
    }
    journal.state
}

#[test]
fn real_packets_go_where_they_are_said_to_go() {
    let Some(town) = Town::new() else { return };
    let _servers = town.servers();
    let calls = town.calls();
    let question = |&(name, ref call): &(&'static str, Call)| Question {
        from: &town.spaces[name],
        transport: transport(call.protocol),
        to: call.to,
    };
    let questions: Vec<_> = calls.iter().map(question).collect();
    let answers = Question::ask_all(&questions);
    let mut wrong = Vec::new();
    for ((name, call), answer) in calls.iter().zip(&answers) {
        let right = match (town.expected(call), answer) {
            (Some((server, seen)), Ok(answer)) => {
                answer.server == server && seen.contains(&answer.source)
            }
            (expected, answer) => expected.is_none() && answer.is_err(),
        };
        if !right {
            let said = town.state.reach(&hosts(), call);
            let Call { to, protocol, .. } = call;
            wrong.push(format!(
                "{name} to {to}/{protocol}: {said:?}, and really {answer:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "of {}: {wrong:#?}", calls.len());
}
