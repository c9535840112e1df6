//! Who reaches whom: what `State::reach` says is what the rules come to, for every combination of
//! options, and what real packets do.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use mydocker_core::{
    Arrival, AttachSpec, Call, Callee, Caller, Executor, Family, GatewayMode, Instance, Link,
    NetworkSpec, Outcome, PortSpec, Protocol, Request, Source, State, StaticRoute, Transaction,
    Wall, drive,
};
use mydocker_exec_dryrun::{Delivery, Loss, Receiver, Sender, Uplink, Wires};
use mydocker_exec_netlink::{NetlinkExecutor, netns::run_in};
use mydocker_tests::{
    Host, Journal, Question, Server, Transport, World, attach, create, netns, word,
};
use proptest::prelude::*;

/// Each network's, of which it takes some.
const SUBNETS: [[&str; 3]; 4] = [
    ["10.1.0.0/24", "fd01::/64", "10.1.1.0/24"],
    ["10.2.0.0/24", "fd02::/64", "fd02:0:0:1::/64"],
    ["10.3.0.0/24", "fd03::/64", "10.3.1.0/24"],
    ["10.4.0.0/24", "fd04::/64", "10.4.1.0/24"],
];
const CONTAINERS: [&str; 4] = ["c0", "c1", "c2", "c3"];

/// The host's interfaces, and a machine at the other end of each. Everything unknown is sent out by
/// the first.
const UPLINKS: [(&str, [&str; 2], [&str; 2]); 2] = [
    (
        "lan",
        ["192.0.2.1", "2001:db8::1"],
        ["192.0.2.9", "2001:db8::9"],
    ),
    (
        "vpn",
        ["198.51.100.1", "2001:db8:1::1"],
        ["198.51.100.9", "2001:db8:1::9"],
    ),
];

/// Loopback, what a static route leads to, and somebody far away.
const ELSEWHERE: [&str; 7] = [
    "127.0.0.1",
    "127.0.0.2",
    "::1",
    "172.20.0.5",
    "fd77::5",
    "203.0.113.7",
    "2001:db8:9::9",
];

fn name(index: usize) -> String {
    format!("n{index}")
}

fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.2)
}

fn modes() -> impl Strategy<Value = BTreeMap<Family, GatewayMode>> {
    let mode = prop_oneof![
        3 => Just(GatewayMode::Nat),
        2 => Just(GatewayMode::Routed),
        1 => Just(GatewayMode::Isolated),
    ];
    let family = prop::sample::select(&[Family::V4, Family::V6]);
    prop_oneof![2 => Just(BTreeMap::new()), 3 => prop::collection::btree_map(family, mode, 1..3)]
}

prop_compose! {
    fn network(index: usize)(
        subnets in prop::sample::subsequence(SUBNETS[index].to_vec(), 1..=3),
        (internal, no_icc, spoof) in (rarely(), prop::bool::weighted(0.3), rarely()),
        open in any::<bool>(),
        gateway_modes in modes(),
        trusted in prop_oneof![2 => Just(vec![]), 1 => Just(vec!["vpn"]), 1 => Just(vec!["n0", "lan"])],
        routes in prop_oneof![3 => Just(vec![]), 1 => Just(vec![
            ("172.20.0.0/16", 3), ("fd77::/64", 3), ("10.1.0.2/32", 1), ("10.4.0.0/25", 1),
        ])],
    ) -> NetworkSpec {
        let via = |destination: &str, host: u8| {
            let to: ipnet::IpNet = word(destination);
            let family = Family::of(to.addr());
            // Past the bridge, by the gateway: see `icc_off_holds_by_way_of_the_gateway`.
            let own = || subnets.iter().any(|s| word::<ipnet::IpNet>(s).contains(&to));
            if no_icc && host == 1 && own() {
                return None;
            }
            let net = subnets.iter().map(|s| word::<ipnet::IpNet>(s)).find(|s| Family::of(s.addr()) == family)?;
            let via = match net.addr() {
                IpAddr::V4(first) => IpAddr::V4((u32::from(first) + u32::from(host)).into()),
                IpAddr::V6(first) => IpAddr::V6((u128::from(first) + u128::from(host)).into()),
            };
            Some(StaticRoute { destination: to, via })
        };
        NetworkSpec {
            internal, icc: !no_icc, isolate: !open, spoof, gateway_modes,
            trusted: if internal { BTreeSet::new() } else { trusted.into_iter().map(word).collect() },
            routes: routes.iter().filter_map(|(to, host)| via(to, *host)).collect(),
            ..create(&name(index), &subnets)
        }
    }
}

prop_compose! {
    fn port()(
        host_ip in prop::sample::select(&[
            None, None, None, Some("127.0.0.1"), Some("::1"), Some("192.0.2.1"), Some("2001:db8::1"),
            Some("10.1.0.1"), Some("fd02::1"),
        ]),
        host_port in prop_oneof![5 => (8080u16..8082).prop_map(Some), 1 => Just(None)],
        container_port in 80u16..82,
        protocol in prop::sample::select(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp]),
    ) -> PortSpec {
        PortSpec { host_ip: host_ip.map(word), host_port, container_port, protocol }
    }
}

prop_compose! {
    /// A container on a network or two.
    fn container(index: usize)(
        networks in prop::sample::subsequence(vec![0usize, 1, 2, 3], 1..=2).prop_shuffle(),
        ports in prop::collection::vec(prop::collection::vec(port(), 0..3), 2),
        default_route in prop::collection::vec(prop::bool::weighted(0.9), 2),
    ) -> Vec<AttachSpec> {
        networks.iter().zip(ports).zip(default_route).map(|((network, ports), default_route)| AttachSpec {
            ports, default_route,
            ..attach(&name(*network), CONTAINERS[index], &[])
        }).collect()
    }
}

fn script() -> impl Strategy<Value = Vec<Request>> {
    let networks = (network(0), network(1), network(2), network(3));
    let containers = (container(0), container(1), container(2), container(3));
    (networks, containers).prop_map(|((a, b, c, d), (e, f, g, h))| {
        let networks = [a, b, c, d].into_iter().map(Request::CreateNetwork);
        let endpoints = [e, f, g, h].into_iter().flatten().map(Request::Attach);
        networks.chain(endpoints).collect()
    })
}

/// What becomes of the requests; where one publishes what can't be, the container is there without.
fn played(requests: Vec<Request>) -> World {
    let mut world = World::default();
    for mut request in requests {
        if world.run(&request).is_ok() {
            continue;
        }
        if let Request::Attach(spec) = &mut request {
            spec.ports.clear();
        }
        // A network whose gateways contradict its mode is one less.
        let _ = world.run(&request);
    }
    world
}

fn uplinks() -> Vec<Uplink> {
    let uplink = |(name, ours, _): (&str, [&str; 2], _)| Uplink {
        name: word(name),
        addresses: ours.map(word).into(),
    };
    UPLINKS.map(uplink).into()
}

fn callers() -> Vec<Caller> {
    let containers = CONTAINERS.map(|name| Caller::Container(word(name)));
    let outside = UPLINKS.iter().flat_map(|(interface, _, theirs)| {
        theirs.map(|address| Caller::Outside {
            interface: word(interface),
            address: word(address),
        })
    });
    containers
        .into_iter()
        .chain([Caller::Host])
        .chain(outside)
        .collect()
}

/// Every address that somebody has, one of each subnet that nobody has, and some elsewhere.
fn called(state: &State) -> BTreeSet<IpAddr> {
    let subnets = SUBNETS.iter().flatten().map(|s| word::<ipnet::IpNet>(s));
    let nobodys = subnets.filter_map(|net| net.hosts().nth(98));
    let gateways = state
        .networks()
        .flat_map(|n| n.subnets.iter().filter_map(|s| s.gateway));
    let containers = state
        .endpoints()
        .flat_map(|e| e.addresses.iter().map(ipnet::IpNet::addr));
    let hosts = UPLINKS.iter().flat_map(|(_, ours, theirs)| [ours, theirs]);
    let fixed = hosts.flatten().chain(&ELSEWHERE).map(|text| word(text));
    gateways
        .chain(containers)
        .chain(nobodys)
        .chain(fixed)
        .collect()
}

fn sender(caller: &Caller) -> Sender {
    match caller {
        Caller::Container(container) => Sender::Container(netns(container.as_str())),
        Caller::Host => Sender::Host,
        Caller::Outside { interface, address } => Sender::Outside {
            interface: *interface,
            address: *address,
        },
    }
}

/// Whether the model's packet went where it was said to go.
fn agree(state: &State, said: &Result<Arrival, Wall>, seen: &Result<Delivery, Loss>) -> bool {
    match (said, seen) {
        (Ok(arrival), Ok(delivery)) => {
            let at = match (&arrival.at, &delivery.at) {
                (Callee::Endpoint(id), Receiver::Container(link)) => {
                    let endpoint = state.endpoint(id).unwrap();
                    *link == Link::sandbox(endpoint.netns.clone(), endpoint.ifname)
                }
                (Callee::Caller, Receiver::Sender)
                | (Callee::Host, Receiver::Host)
                | (Callee::Outside, Receiver::Outside) => true,
                _ => false,
            };
            let source = match arrival.source {
                Source::Caller => delivery.source == delivery.sent_from,
                Source::Gateway(gateway) => delivery.source == gateway,
                Source::Host => uplinks()[0].addresses.contains(&delivery.source),
            };
            at && source && arrival.port == delivery.port
        }
        // The host has no way there, and sends it where it sends all that it does not know.
        (Err(Wall::NoGateway(_)), Ok(delivery)) => delivery.at == Receiver::Outside,
        (Err(wall), Err(loss)) => is_reason(wall, loss),
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

/// Whether what a packet met is what was said to be in its way.
fn is_reason(wall: &Wall, loss: &Loss) -> bool {
    let dropped = |by: &str| matches!(loss, Loss::Dropped { chain, .. } if *chain == by);
    match wall {
        Wall::Loopback(_) => matches!(loss, Loss::Martian(_)),
        Wall::Nobody(..) => matches!(loss, Loss::Nobody(..)),
        Wall::NoRoute(..) => matches!(loss, Loss::NoRoute(..)),
        Wall::NoIcc(_) => matches!(loss, Loss::Isolated(..)) || dropped("forward"),
        Wall::Internal(_) | Wall::Closed { .. } | Wall::NoGateway(_) => dropped("forward"),
        Wall::NoWayBack(..) => !matches!(loss, Loss::Martian(_)),
        Wall::AnswersAstray(..) => {
            dropped("prerouting")
                || dropped("forward")
                || matches!(loss, Loss::Astray(_) | Loss::Isolated(..))
        }
        Wall::Unfit(_) | Wall::Unknown(_) => true,
    }
}

/// Asks everything, and says where the two disagree.
fn disagreements(state: &State) -> Vec<String> {
    let uplinks = uplinks();
    let hosts = uplinks
        .iter()
        .flat_map(|uplink| uplink.addresses.clone())
        .collect();
    let footprint = state.footprint();
    let wires = Wires::new(&footprint, &uplinks);
    let mut wrong = Vec::new();
    for from in callers() {
        if let Caller::Container(container) = &from
            && state.joined(container).next().is_none()
        {
            continue;
        }
        for to in called(state) {
            if let Caller::Outside { address, .. } = &from
                && (address.is_ipv4() != to.is_ipv4())
            {
                continue;
            }
            for (port, protocol) in ports() {
                let to = SocketAddr::new(to, port);
                let call = Call {
                    from: from.clone(),
                    to,
                    protocol,
                };
                let said = state.reach(&hosts, &call);
                let seen = wires.send(&sender(&from), to, protocol);
                if !agree(state, &said, &seen) {
                    wrong.push(format!(
                        "{from:?} to {to}/{protocol}: {said:?}, and the packet: {seen:?}"
                    ));
                }
            }
        }
    }
    wrong
}

/// Such as are published, and such as are not.
fn ports() -> impl Iterator<Item = (u16, Protocol)> {
    let tcp = [80, 81, 8080, 8081].map(|port| (port, Protocol::Tcp));
    let udp = [80, 8080].map(|port| (port, Protocol::Udp));
    tcp.into_iter().chain(udp)
}

/// A neighbour that is called by way of the gateway is a neighbour still.
#[test]
#[ignore = "what comes in and leaves by one bridge passes the forward chain, icc or not"]
fn icc_off_holds_by_way_of_the_gateway() {
    let detour = StaticRoute {
        destination: word("10.1.0.2/32"),
        via: word("10.1.0.1"),
    };
    let network = NetworkSpec {
        icc: false,
        routes: vec![detour],
        ..create("n0", &["10.1.0.0/24"])
    };
    let world = World::default().after(&[
        Request::CreateNetwork(network),
        Request::Attach(attach("n0", "c0", &[])),
        Request::Attach(attach("n0", "c1", &[])),
    ]);
    assert_eq!(disagreements(world.state()), Vec::<String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every caller × every address × published and unpublished ports.
    #[test]
    fn the_rules_come_to_what_is_said(requests in script()) {
        let world = played(requests);
        let wrong = disagreements(world.state());
        prop_assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

/// Networks of every kind, containers on one or two of them, and machines outside: one of them at
/// the end of an interface that a network trusts.
struct Town {
    host: Host,
    state: State,
    /// Where everybody is, by name.
    spaces: BTreeMap<&'static str, PathBuf>,
}

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

    /// One of many questions that can be asked, spread over all of them.
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
                for (port, protocol) in LISTENED.into_iter().flat_map(|port| {
                    [Protocol::Tcp, Protocol::Udp].map(|protocol| (port, protocol))
                }) {
                    let (from, to) = (from.clone(), SocketAddr::new(to, port));
                    all.push((*name, Call { from, to, protocol }));
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
        let containers = endpoints.flat_map(|e| e.addresses.iter().map(ipnet::IpNet::addr));
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
                addresses.map(ipnet::IpNet::addr).chain(loopback).collect()
            }
            Caller::Host => {
                let networks = self.state.networks();
                let gateways = networks.flat_map(|n| n.subnets.iter().filter_map(|s| s.gateway));
                gateways.chain(loopback).chain(hosts()).collect()
            }
        }
    }
}

/// How many questions one is asked for.
const STRIDE: usize = 23;

fn transport(protocol: Protocol) -> Transport {
    match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp | Protocol::Sctp => Transport::Udp,
    }
}

/// The host's addresses on its uplinks.
fn hosts() -> BTreeSet<IpAddr> {
    uplinks()
        .into_iter()
        .flat_map(|uplink| uplink.addresses)
        .collect()
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
        let expected = town.expected(call);
        let right = match (&expected, answer) {
            (Some((server, seen)), Ok(answer)) => {
                answer.server == *server && seen.contains(&answer.source)
            }
            (None, Err(_)) => true,
            (Some(_), Err(_)) | (None, Ok(_)) => false,
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
