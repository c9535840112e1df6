//! Laws that hold for every script of requests.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use mydocker_core::{
    Address, AttachSpec, Change, ContainerName, Damage, Endpoint, EndpointId, Entry, ErrorKind,
    Executor, Facts, Family, Footprint, ForeignChain, ForeignForward, Holder, Instance, Link,
    LinkName, LinkSysctl, Listener, Master, NetworkName, NetworkSpec, Ns, Object, OnFailure, Op,
    Outcome, Passage, Plan, PortBinding, PortSpec, Protocol, Rejection, Request, Snapshot, State,
    TableFamily, Transaction, Up, drive,
};
use mydocker_exec_dryrun::{Fault, Faulty, Kernel};
use mydocker_tests::requests::script;
use mydocker_tests::{World, attach, create, detach, netns, publish, remove, unpublish, word};
use proptest::prelude::*;

/// A second opinion, as simple as can be: who is there.
#[derive(Default)]
struct Model(BTreeMap<NetworkName, BTreeSet<ContainerName>>);

impl Model {
    /// What must be refused whatever else the request says.
    fn refusal(&self, request: &Request) -> Option<Rejection> {
        match request {
            Request::CreateNetwork(spec) => {
                let name = spec.name.clone();
                self.0
                    .contains_key(&name)
                    .then_some(Rejection::NetworkExists(name))
            }
            Request::RemoveNetwork(name) => match self.0.get(name) {
                None => Some(Rejection::NetworkUnknown(name.clone())),
                Some(on) if on.is_empty() => None,
                Some(on) => Some(Rejection::NetworkInUse {
                    network: name.clone(),
                    containers: on.iter().cloned().collect(),
                }),
            },
            Request::Attach(spec) => match self.0.get(&spec.network) {
                None => Some(Rejection::NetworkUnknown(spec.network.clone())),
                Some(on) => on
                    .contains(&spec.container)
                    .then(|| Rejection::EndpointExists(spec.id())),
            },
            Request::Detach(id) | Request::Publish { id, .. } | Request::Unpublish { id, .. } => {
                let there = self
                    .0
                    .get(&id.network)
                    .is_some_and(|on| on.contains(&id.container));
                (!there).then(|| Rejection::EndpointUnknown(id.clone()))
            }
        }
    }

    fn take_in(&mut self, request: &Request) {
        match request {
            Request::CreateNetwork(spec) => {
                self.0.insert(spec.name.clone(), BTreeSet::new());
            }
            Request::RemoveNetwork(name) => {
                self.0.remove(name);
            }
            Request::Attach(spec) => {
                self.0
                    .entry(spec.network.clone())
                    .or_default()
                    .insert(spec.container.clone());
            }
            Request::Detach(id) => {
                self.0
                    .entry(id.network.clone())
                    .or_default()
                    .remove(&id.container);
            }
            Request::Publish { .. } | Request::Unpublish { .. } => {}
        }
    }

    fn check(&self, state: &State) {
        let networks: Vec<_> = state.networks().map(|n| n.name.clone()).collect();
        assert_eq!(networks, self.0.keys().cloned().collect::<Vec<_>>());
        let of = |name: &NetworkName| -> BTreeSet<ContainerName> {
            state
                .endpoints_of(name)
                .map(|e| e.id.container.clone())
                .collect()
        };
        for (name, on) in &self.0 {
            assert_eq!(of(name), *on);
        }
    }
}

/// Carries a script out; `each` sees the world before each accepted request, and its plan.
fn play(requests: &[Request], mut each: impl FnMut(&World, &Request, &Plan)) -> World {
    let (mut world, mut model) = (World::beside_firewalls(), Model::default());
    for request in requests {
        let planned = world.plan(request);
        if let Some(refusal) = model.refusal(request) {
            assert_eq!(planned, Err(refusal));
            continue;
        }
        let plan = match planned {
            Ok(plan) => plan,
            Err(rejection) => {
                assert!(!rejection.to_string().is_empty());
                continue;
            }
        };
        each(&world, request, &plan);
        let outcome = world.carry_out(plan);
        assert_eq!(
            outcome,
            Outcome::Committed,
            "a healthy kernel took {request:?}"
        );
        model.take_in(request);
        model.check(world.state());
        world.assert_agrees(request);
    }
    world
}

fn leases_are_sound(state: &State) {
    for network in state.networks() {
        let mut seen = BTreeSet::new();
        for endpoint in state.endpoints_of(&network.name) {
            assert_eq!(endpoint.addresses.len(), network.subnets.len());
            for (address, subnet) in endpoint.addresses.iter().zip(&network.subnets) {
                let ip = address.addr();
                let (first, last) = subnet.hosts();
                assert!(
                    (first..=last).contains(&ip),
                    "{ip} is no host of {}",
                    subnet.net
                );
                assert_eq!(address.prefix_len(), subnet.net.prefix_len());
                assert_ne!(Some(ip), subnet.gateway);
                assert!(!subnet.reserved.values().any(|reserved| *reserved == ip));
                assert!(seen.insert(ip), "{ip} is leased twice");
            }
        }
        let macs: BTreeSet<_> = state.endpoints_of(&network.name).map(|e| e.mac).collect();
        assert_eq!(
            macs.len(),
            state.endpoints_of(&network.name).count(),
            "macs differ"
        );
        assert!(
            !macs.contains(&network.mac),
            "{} is the bridge's own",
            network.mac
        );
    }
}

fn ports_are_sound(state: &State) {
    let all: Vec<_> = state.endpoints().flat_map(|e| &e.ports).collect();
    for (i, one) in all.iter().enumerate() {
        for other in &all[i + 1..] {
            assert!(!one.conflicts(other), "{one} and {other}");
        }
    }
}

fn default_routes_are_sound(state: &State) {
    let mut found: BTreeMap<(Ns, Family), usize> = BTreeMap::new();
    for object in state.footprint() {
        if let Object::Route(route) = object
            && route.destination.prefix_len() == 0
        {
            *found
                .entry((route.link.ns, Family::of(route.via)))
                .or_default() += 1;
        }
    }
    let mut wanted = BTreeMap::new();
    for endpoint in state.endpoints().filter(|endpoint| endpoint.default_route) {
        let network = state.network(&endpoint.id.network).unwrap();
        for family in network.families().filter(|f| network.way_out(*f).is_some()) {
            wanted.insert((Ns::Sandbox(endpoint.netns.clone()), family), 1);
        }
    }
    assert_eq!(found, wanted);
}

fn reads_back<T>(value: &T)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let json = serde_json::to_string(value).unwrap();
    assert_eq!(serde_json::from_str::<T>(&json).unwrap(), *value);
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(400))]

    /// Plans lead where they say, and what they lead to is sound.
    #[test]
    fn an_accepted_plan_reaches_the_footprint(requests in script()) {
        let world = play(&requests, |world, _, plan| {
            assert!(!plan.ops.is_empty(), "a request does something");
            assert_eq!(plan.on_failure == OnFailure::Continue, plan.ops.iter().any(|op| matches!(op, Op::Del(_))));
            leases_are_sound(world.state());
            ports_are_sound(world.state());
            default_routes_are_sound(world.state());
        });
        leases_are_sound(world.state());
        ports_are_sound(world.state());
        default_routes_are_sound(world.state());
    }

    /// A plan that fails at its last op leaves no trace, in the kernel or in the state.
    #[test]
    fn undo_is_the_inverse(requests in script()) {
        play(&requests, |before, request, plan| {
            if plan.on_failure != OnFailure::Undo {
                return;
            }
            let mut world = before.clone();
            let last = plan.ops.len() - 1;
            let fault = Fault::Refused(ErrorKind::Busy);
            let mut faulty = Faulty::new(world.kernel).with_fault(last, fault);
            let mut transaction = Transaction::begin(plan.clone());
            let outcome = drive(&mut transaction, &mut faulty, &mut world.journal).unwrap();
            assert!(matches!(outcome, Outcome::RolledBack(_)), "{outcome:?}");
            world.kernel = faulty.into_inner();
            assert_eq!(world.held(), before.held(), "{request:?}");
            assert_eq!(world.forwarding(), before.clone().forwarding());
            assert_eq!(world.state(), before.state());
        });
    }

    /// Equal input gives byte-equal plans; what is written down reads back and means the same.
    #[test]
    fn the_same_input_gives_the_same_plan(requests in script()) {
        let world = play(&requests, |world, request, plan| {
            let mut again = world.clone();
            again.journal = world.journal.reopened();
            let twin = again.plan(request).unwrap();
            let bytes = |plan: &Plan| serde_json::to_vec(plan).unwrap();
            assert_eq!(bytes(&twin), bytes(plan));
            reads_back(request);
            reads_back(plan);
        });
        world.journal.entries.iter().for_each(reads_back);
        reads_back::<Snapshot>(&world.state().snapshot());
    }

    /// State is the fold of its journal, and of any snapshot and what came after it.
    #[test]
    fn state_is_the_fold_of_its_journal(requests in script(), cut in any::<prop::sample::Index>()) {
        let world = play(&requests, |_, _, _| {});
        prop_assert_eq!(&world.journal.reopened().state, world.state());
        let entries = &world.journal.entries;
        let cut = cut.index(entries.len() + 1);
        let mut state = State::new(world.state().instance());
        for (i, entry) in entries.iter().enumerate() {
            if i == cut {
                state = State::restore(state.snapshot()).unwrap();
            }
            state.absorb(entry).unwrap();
        }
        prop_assert_eq!(&state, world.state());
        prop_assert_eq!(&State::restore(state.snapshot()).unwrap(), &state);
    }

    /// Whatever happened to the kernel, one repair mends it and the next has nothing to do.
    #[test]
    fn repair_converges(
        requests in script(),
        drift in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..8),
    ) {
        let mut world = play(&requests, |_, _, _| {});
        for (index, how) in drift {
            let all: Vec<Object> = world.kernel.objects().iter().cloned().collect();
            if all.is_empty() {
                break;
            }
            match (&all[index.index(all.len())], how) {
                (Object::Veth(cable), 0..2) => {
                    world.kernel.abduct_link(cable.name);
                    continue;
                }
                (Object::Veth(cable), 2..4) => {
                    world.kernel.abduct_far_end(cable.name);
                    continue;
                }
                _ => {}
            }
            // Refusals are fine: then that drift did not happen.
            world.kernel.apply(&[drifted(&all, index.index(all.len()), how)]);
        }
        let plan = world.repair();
        let outcome = world.carry_out(plan.clone());
        prop_assert_eq!(outcome, Outcome::Committed, "{:#?}", plan.ops);
        world.assert_agrees(&plan.ops);
        prop_assert_eq!(world.repair().ops, []);
    }
}

/// Something that somebody does behind our back to one of our objects or its link.
fn drifted(all: &[Object], index: usize, how: u8) -> Op {
    let object = all[index].clone();
    let add = |link: &Link, address: &str| {
        let (link, address) = (link.clone(), word(address));
        Op::Add(Object::Address(Address { link, address }))
    };
    match (&object, how) {
        (Object::LinkSysctl(sysctl), _) => Op::Add(Object::LinkSysctl(LinkSysctl {
            value: sysctl.value ^ 1,
            ..sysctl.clone()
        })),
        (Object::Address(Address { link, .. }), 0) => add(link, "192.0.2.1/24"),
        (Object::Up(Up { link }), 1) if link.name != LinkName::LOOPBACK => {
            add(link, "10.0.0.77/24")
        }
        (Object::Master(master), 0..4) => {
            let bridge = all.iter().rev().find_map(|object| {
                if let Object::Bridge(bridge) = object {
                    Some(bridge.name)
                } else {
                    None
                }
            });
            let (link, bridge) = (master.link, bridge.unwrap_or(master.bridge));
            Op::Add(Object::Master(Master { link, bridge }))
        }
        _ => Op::Del(object),
    }
}

/// The kernel drops a link's routes with its last IPv4 address, also when that is a stray one
/// which a repair removes before it adds the right one.
#[test]
fn a_repair_brings_back_routes_that_went_with_an_address() {
    let requests = [
        Request::CreateNetwork(create("n", &["10.0.0.0/24"])),
        Request::Attach(attach("n", "web", &[])),
    ];
    let mut world = World::default().after(&requests);
    let link = Link::sandbox(netns("web"), word("eth0"));
    let address = |address: &str| {
        let (link, address) = (link.clone(), word(address));
        Object::Address(Address { link, address })
    };
    let drift = [
        Op::Add(address("10.0.0.77/24")),
        Op::Del(address("10.0.0.2/24")),
    ];
    assert_eq!(world.kernel.apply(&drift), [Ok(()), Ok(())]);
    let plan = world.repair();
    assert_eq!(world.carry_out(plan), Outcome::Committed);
    world.assert_agrees(&drift);
    assert_eq!(world.repair().ops, []);
}

fn foreign(family: TableFamily, table: &str) -> ForeignChain {
    let (table, chain) = (word(table), word("FORWARD"));
    ForeignChain {
        family,
        table,
        chain,
    }
}

fn passages(plan: &Plan) -> Vec<String> {
    let its = |op: &&Op| matches!(op.object(), Object::Passage(_));
    let shown = |op: &Op| format!("{} {}", op.name(), op.target());
    plan.ops.iter().filter(its).map(shown).collect()
}

/// One passage for the whole host, of the families that somebody has, as long as somebody has them.
#[test]
fn passages_come_with_the_first_network_and_go_with_the_last() {
    let mut world = World::beside_firewalls();
    let mut run = |request: Request| {
        let plan = world.plan(&request).unwrap();
        assert_eq!(world.carry_out(plan.clone()), Outcome::Committed);
        world.assert_agrees(&request);
        assert_eq!(world.repair().ops, []);
        (passages(&plan), plan.warnings.len())
    };
    let (four, six) = (
        "AddPassage ip filter FORWARD",
        "AddPassage ip6 filter FORWARD",
    );
    let both = "AddPassage inet firewalld FORWARD";
    let told = NetworkSpec {
        foreign_forward: ForeignForward::Report,
        ..create("told", &["10.3.0.0/24"])
    };
    let first = run(Request::CreateNetwork(told));
    assert_eq!(
        first,
        (vec![], 6),
        "early, owned, unnameable, legacy and two to be let through"
    );
    let (ops, warnings) = run(Request::CreateNetwork(create("a", &["10.0.0.0/24"])));
    assert_eq!((ops, warnings), (vec![four.into(), both.into()], 4));
    let (ops, _) = run(Request::CreateNetwork(create(
        "b",
        &["10.1.0.0/24", "fd00::/64"],
    )));
    assert_eq!(ops, [six]);
    assert_eq!(
        run(Request::CreateNetwork(create("c", &["10.2.0.0/24"]))).0,
        [""; 0]
    );
    assert_eq!(run(remove("a")).0, [""; 0]);
    assert_eq!(run(remove("b")).0, [six.replace("Add", "Delete")]);
    let gone = [both, four].map(|op| op.replace("Add", "Delete"));
    assert_eq!(run(remove("c")).0, gone, "nobody who is left wants them");
    assert_eq!(run(remove("told")).0, [""; 0]);
}

/// Firewalls come and go, and repair follows: once is enough.
#[test]
fn repair_follows_firewalls_that_come_and_go() {
    let a = Request::CreateNetwork(create("a", &["10.0.0.0/24"]));
    let mut world = World::default().after(&[a]);
    let (ufw, other) = (
        foreign(TableFamily::Ip, "filter"),
        foreign(TableFamily::Inet, "x"),
    );
    for chain in [&ufw, &other] {
        world.kernel.add_forward_chain(chain);
    }
    // One of them is there already, and on record from then on.
    let (instance, chain) = (Instance::DEFAULT, ufw.clone());
    let passage = Op::Add(Object::Passage(Passage { instance, chain }));
    assert_eq!(world.kernel.apply(&[passage]), [Ok(())]);
    let repair = |world: &mut World| {
        let plan = world.repair();
        assert_eq!(world.carry_out(plan.clone()), Outcome::Committed);
        world.assert_agrees(&plan.ops);
        assert_eq!(world.repair().ops, []);
        passages(&plan)
    };
    let added = ["AddPassage ip filter FORWARD", "AddPassage inet x FORWARD"];
    assert_eq!(repair(&mut world), added);
    world.kernel.remove_forward_chain(&ufw);
    assert_eq!(repair(&mut world), ["DeletePassage ip filter FORWARD"]);
    // What an earlier life of ours left, nobody wants.
    let before = world.kernel.clone();
    let mut reborn = World::on(before);
    let remains = reborn.repair();
    assert_eq!(passages(&remains), ["DeletePassage inet x FORWARD"]);
    assert_eq!(world.run(&remove("a")), Ok(Outcome::Committed));
    assert_eq!(world.held(), Footprint::new());
}

/// A state from before there were passages reads as one that has none.
#[test]
fn an_old_snapshot_has_no_passages() {
    let a = Request::CreateNetwork(create("a", &["10.0.0.0/24"]));
    let world = World::default().after(&[a]);
    let json = serde_json::to_value(world.state().snapshot()).unwrap();
    assert!(json.get("passages").is_none());
    assert!(
        json["networks"][0]["network"]
            .get("foreign_forward")
            .is_none()
    );
    let snapshot: Snapshot = serde_json::from_value(json).unwrap();
    assert_eq!(State::restore(snapshot).as_ref(), Ok(world.state()));
}

/// Neighbours remember for minutes whose an address is: one that comes back comes back with its MAC address,
/// in each family, however small a subnet is and whoever comes and goes.
#[test]
fn an_address_comes_back_with_its_mac() {
    let network = create("n", &["10.0.0.0/29", "fd00::/125"]);
    let mut world = World::default().after(&[Request::CreateNetwork(network)]);
    let (mut macs, mut there) = (BTreeMap::new(), Vec::new());
    for round in 0..60 {
        let name = format!("c{round}");
        world
            .run(&Request::Attach(attach("n", &name, &[])))
            .unwrap();
        there.push(name);
        for endpoint in world.state().endpoints() {
            for address in &endpoint.addresses {
                let mac = macs.entry(address.addr()).or_insert(endpoint.mac);
                assert_eq!(*mac, endpoint.mac, "{address}");
            }
        }
        // Up to four stay, and not always the same ones go.
        while there.len() > round % 5 {
            let goes = there.swap_remove(round * 7 % there.len());
            world.run(&detach("n", &goes)).unwrap();
        }
    }
    assert!(macs.len() > 8, "{macs:?}");
}

/// Two sets of a thousand objects differ by little: the diff is as little.
#[test]
fn a_diff_is_as_large_as_the_difference() {
    let mut world =
        World::default().after(&[Request::CreateNetwork(create("big", &["10.0.0.0/16"]))]);
    for i in 0..100 {
        let spec = attach("big", &format!("c{i}"), &[]);
        world.run(&Request::Attach(spec)).unwrap();
    }
    let one = Request::Attach(attach("big", "one-more", &["80:80"]));
    let plan = world.plan(&one).unwrap();
    let alone = World::default()
        .after(&[Request::CreateNetwork(create("big", &["10.0.0.0/16"]))])
        .plan(&one)
        .unwrap();
    assert_eq!(plan.ops.len(), alone.ops.len());
}

proptest! {
    #![proptest_config(config(200))]

    /// No plan takes a port from a program of the host. One that is named is refused only if
    /// somebody listens there, and a free one never.
    #[test]
    fn ports_of_the_hosts_programs_are_left_to_them(
        programs in prop::collection::vec(program(), 0..24), named in prop::option::of(8080_u16..8083),
    ) {
        let facts = Facts { listeners: programs.clone(), ..Facts::default() };
        let kernel = Kernel::new().any_namespace().with_facts(facts);
        let dual = Request::CreateNetwork(create("n", &["10.0.0.0/24", "fd00::/64"]));
        let mut world = World::on(kernel).after(&[dual]);
        let named = named.map(|port| format!("{port}:80"));
        let ports: Vec<&str> = ["80", "127.0.0.1::81", "82/udp"].into_iter().chain(named.as_deref()).collect();
        match world.plan(&Request::Attach(attach("n", "web", &ports))) {
            Ok(plan) => {
                let taken = plan.publishes();
                prop_assert!(taken.iter().all(|binding| programs.iter().all(|p| !p.conflicts(binding))));
            }
            Err(Rejection::PortTaken { binding, holder: Holder::Listener(_) }) => {
                prop_assert!(programs.iter().any(|program| program.conflicts(&binding)));
                prop_assert!(binding.host_port < 49152, "{binding}");
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}

/// A program that listens on one of the ports that are named, or that are looked at first for a
/// free one.
fn program() -> impl Strategy<Value = Listener> {
    let addresses = ["0.0.0.0", "127.0.0.1", "127.0.0.2", "::", "::1"];
    let protocols = [Protocol::Tcp, Protocol::Udp];
    // Where the search for `web` on `n` begins.
    let ports = prop_oneof![8080_u16..8083, 50343_u16..50350];
    let address = prop::sample::select(addresses.to_vec()).prop_map(|text| text.parse().unwrap());
    (address, ports, prop::sample::select(protocols.to_vec())).prop_map(
        |(address, port, protocol)| Listener {
            address,
            port,
            protocol,
            process: None,
        },
    )
}

/// A bridge of this kernel takes 1023 ports, and planning knows.
#[test]
fn the_1024th_endpoint_is_refused() {
    let mut world =
        World::default().after(&[Request::CreateNetwork(create("big", &["10.0.0.0/16"]))]);
    let mut state = world.state().clone();
    for i in 0..1023 {
        let spec = attach("big", &format!("c{i}"), &[]);
        let plan = state
            .plan(&Facts::default(), &Request::Attach(spec))
            .unwrap();
        state
            .absorb(&mydocker_core::Entry::Begin(plan.into()))
            .unwrap();
        state
            .absorb(&mydocker_core::Entry::End(Outcome::Committed))
            .unwrap();
    }
    let request = Request::Attach(attach("big", "one-more", &[]));
    let refused = state.plan(&Facts::default(), &request);
    let (network, max) = (word("big"), 1023);
    assert_eq!(refused, Err(Rejection::BridgeFull { network, max }));
    let hosts: BTreeSet<_> = state
        .endpoints()
        .map(|endpoint| endpoint.host_link)
        .collect();
    assert_eq!(hosts.len(), 1023, "host ends have names of their own");
    world.journal.state = state;
    leases_are_sound(world.state());
}

/// The ports of the host that an endpoint publishes, as they are shown.
fn published(world: &World, network: &str, container: &str) -> Vec<String> {
    let id = EndpointId {
        network: word(network),
        container: word(container),
    };
    let endpoint = world.state().endpoint(&id).unwrap();
    endpoint.ports.iter().map(ToString::to_string).collect()
}

/// A free port is one number for both families, nobody's, and the same when asked again.
#[test]
fn a_port_that_is_not_named_is_a_free_one() {
    let dual = Request::CreateNetwork(create("n", &["10.0.0.0/24", "fd00::/64"]));
    let mut world = World::default().after(std::slice::from_ref(&dual));
    let web = Request::Attach(attach("n", "web", &["80", "80/udp", "127.0.0.1::81", "82"]));
    let plan = world.plan(&web).unwrap();
    assert_eq!(world.plan(&web).unwrap(), plan);
    world = world.after(std::slice::from_ref(&web));
    let Change::EndpointAdded(endpoint) = plan.change else {
        panic!("{:?}", plan.change);
    };
    let numbers: Vec<u16> = endpoint.ports.iter().map(|b| b.host_port).collect();
    let [a, a6, b, b6, c, d, d6] = numbers[..] else {
        panic!("{numbers:?}");
    };
    assert_eq!((a, b, d), (a6, b6, d6), "one number for both families");
    assert_eq!(BTreeSet::from([a, b, c, d]).len(), 4);
    assert!(numbers.iter().all(|n| PortSpec::EPHEMERAL.contains(n)));
    assert_eq!(
        published(&world, "n", "web")[0],
        format!("0.0.0.0:{a}->80/tcp")
    );

    // Whoever has the number already keeps it, be it on one address of one family.
    let squatter = format!("127.0.0.1:{a}:1");
    let mut other = World::default().after(&[
        dual.clone(),
        Request::Attach(attach("n", "db", &[&squatter])),
    ]);
    let Change::EndpointAdded(second) = other.plan(&web).unwrap().change else {
        panic!("an attach adds an endpoint");
    };
    assert_eq!(second.ports[0].host_port, a + 1);
    // A port that the same request names later is not taken, either.
    let named = Request::Attach(attach("n", "web", &["80", &format!("{a}:81")]));
    let both = World::default().after(&[dual, named]);
    let shown = published(&both, "n", "web");
    assert_eq!(shown[0], format!("0.0.0.0:{}->80/tcp", a + 1));
    assert_eq!(shown[2], format!("0.0.0.0:{a}->81/tcp"));
}

#[test]
fn free_ports_come_to_an_end() {
    let mut state = State::new(Instance::DEFAULT);
    let facts = Facts::default();
    let mut commit = |request: Request| -> Result<(), Rejection> {
        let plan = state.plan(&facts, &request)?;
        state.absorb(&Entry::Begin(plan.into())).unwrap();
        state.absorb(&Entry::End(Outcome::Committed)).unwrap();
        Ok(())
    };
    let all = PortSpec::EPHEMERAL.len();
    let most = AttachSpec {
        ports: PortSpec::parse_list(&format!("1-{}", all - 1)).unwrap(),
        ..attach("n", "most", &[])
    };
    for request in [
        Request::CreateNetwork(create("n", &["10.0.0.0/24"])),
        Request::Attach(most),
        Request::Attach(attach("n", "last", &["80"])),
    ] {
        assert_eq!(commit(request), Ok(()));
    }
    let refused = commit(Request::Attach(attach("n", "none", &["80"]))).unwrap_err();
    assert_eq!(refused, Rejection::PortsExhausted(word("80")));
    let text = refused.to_string();
    assert!(text.contains("49152 to 65535 is taken"), "{text}");
    assert!(text.contains("such as 8080:80"), "{text}");
    // Another protocol has ports of its own.
    let udp = Request::Attach(attach("n", "udp", &["80/udp"]));
    assert_eq!(commit(udp), Ok(()));
    let tcp = |b: &&PortBinding| b.protocol == Protocol::Tcp;
    let bindings = state.endpoints().flat_map(|e| &e.ports);
    let numbers: BTreeSet<u16> = bindings.filter(tcp).map(|b| b.host_port).collect();
    assert_eq!(numbers, PortSpec::EPHEMERAL.collect());
}

/// Ports come and go one by one, and the rest of the endpoint is not touched.
#[test]
fn changing_ports_touches_nothing_else() {
    let many: Vec<String> = (9000..9200).map(|port| format!("{port}:{port}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut world = World::default().after(&[
        Request::CreateNetwork(create("n", &["10.0.0.0/24"])),
        Request::Attach(attach("n", "web", &many)),
        Request::Attach(attach("n", "db", &[])),
    ]);
    let mut names = |request: Request| -> Vec<&'static str> {
        let plan = world.plan(&request).unwrap();
        let names = plan.ops.iter().map(Op::name).collect();
        assert_eq!(world.carry_out(plan), Outcome::Committed);
        names
    };
    assert_eq!(names(publish("n", "web", &["80:80"])), ["AddDnat"]);
    assert_eq!(names(unpublish("n", "web", &["80:80"])), ["DeleteDnat"]);
    let first = ["AddDnat", "SetHairpin"];
    assert_eq!(names(publish("n", "db", &["80:80"])), first);
    assert_eq!(names(publish("n", "db", &["81:80"])), ["AddDnat"]);
    let last = ["UnsetHairpin", "DeleteDnat", "DeleteDnat"];
    assert_eq!(names(unpublish("n", "db", &["80"])), last);
}

/// What a plan never makes, a file does not bring in either: found by the fuzz target `store`.
#[test]
fn what_is_read_keeps_the_invariants() {
    let world = World::default().after(&[
        Request::CreateNetwork(create("n", &["10.0.0.0/24"])),
        Request::CreateNetwork(create("m", &["10.1.0.0/24"])),
        Request::Attach(attach("n", "web", &["80:80"])),
        Request::Attach(attach("m", "web", &[])),
        Request::Attach(attach("n", "db", &[])),
    ]);
    // In order of name: web on m, db on n, web on n.
    let damage = |change: &dyn Fn(&mut Vec<Endpoint>)| {
        let mut snapshot = world.state().snapshot();
        change(&mut snapshot.endpoints);
        State::restore(snapshot).map_err(|damage| damage.to_string())
    };
    let db = attach("n", "db", &[]).id();
    let web = attach("n", "web", &[]).id();
    let port = world.state().endpoint(&web).unwrap().ports[0].clone();
    assert_eq!(
        damage(&|all| all[1].netns = netns("web")).unwrap_err(),
        Damage::NetnsTwice(db, netns("web")).to_string()
    );
    assert_eq!(
        damage(&|all| all[2].netns = netns("other")).unwrap_err(),
        Damage::NetnsOther(web.clone(), netns("other")).to_string()
    );
    assert_eq!(
        damage(&|all| all[2].addresses = vec![all[2].addresses[0]; 2]).unwrap_err(),
        Damage::AddressTwice(web.clone(), word("10.0.0.2")).to_string()
    );
    assert_eq!(
        damage(&|all| all[2].ports = vec![all[2].ports[0].clone(); 2]).unwrap_err(),
        Damage::PortTwice(web, port).to_string()
    );
    let same_rank = damage(&|all| all[2].rank = all[0].rank).unwrap();
    assert_eq!(
        State::restore(same_rank.snapshot()).as_ref(),
        Ok(&same_rank)
    );
}

/// A journal whose endpoint changes into what can't be is damaged, and is not followed.
#[test]
fn an_impossible_change_is_damage() {
    let world = World::default().after(&[
        Request::CreateNetwork(create("n", &["10.0.0.0/24"])),
        Request::Attach(attach("n", "web", &["80:80", "81:81"])),
        Request::Attach(attach("n", "db", &["82:82"])),
    ]);
    let before = world.state();
    let endpoint = |name: &str| before.endpoints().find(|e| e.id.container == word(name));
    let (web, db) = (endpoint("web").unwrap(), endpoint("db").unwrap());
    let mut taken = web.clone();
    taken.ports.extend(db.ports.clone());
    let mut twice = web.clone();
    twice.ports.insert(0, web.ports[1].clone());
    let mut moved = web.clone();
    moved.ifname = word("eth7");
    let mut stranger = web.clone();
    stranger.id.container = word("nobody");
    for (changed, damage) in [
        (
            &taken,
            Damage::PortTwice(web.id.clone(), db.ports[0].clone()),
        ),
        (
            &twice,
            Damage::PortTwice(web.id.clone(), web.ports[1].clone()),
        ),
        (&moved, Damage::EndpointOther(web.id.clone())),
        (&stranger, Damage::EndpointUnknown(stranger.id.clone())),
    ] {
        let mut state = before.clone();
        let plan = Plan {
            change: Change::EndpointChanged(changed.clone()),
            on_failure: OnFailure::Undo,
            ops: Vec::new(),
            warnings: Vec::new(),
        };
        state.absorb(&Entry::Begin(plan.into())).unwrap();
        let pending = state.clone();
        let absorbed = state.absorb(&Entry::End(Outcome::Committed));
        assert_eq!(absorbed, Err(damage));
        assert_eq!(state, pending, "as it was");
    }
}

/// What an undo left over is not wanted again before it is swept: the sweep would take it away.
#[test]
fn a_left_over_hairpin_is_not_taken_for_a_new_one() {
    let mut world = World::default().after(&[
        Request::CreateNetwork(create("n", &["10.0.0.0/24"])),
        Request::Attach(attach("n", "web", &["80:80"])),
    ]);
    let plan = world.plan(&unpublish("n", "web", &["80"])).unwrap();
    assert_eq!(plan.ops[0].name(), "UnsetHairpin");
    let fault = Fault::Refused(ErrorKind::Busy);
    let mut faulty = Faulty::new(world.kernel).with_fault(0, fault);
    let mut transaction = Transaction::begin(plan);
    let outcome = drive(&mut transaction, &mut faulty, &mut world.journal).unwrap();
    assert!(matches!(outcome, Outcome::Stranded { .. }), "{outcome:?}");
    world.kernel = faulty.into_inner();
    let again = publish("n", "web", &["80:80"]);
    assert!(matches!(world.plan(&again), Err(Rejection::LeftOver(_))));
    let sweep = world.state().sweep().unwrap();
    assert_eq!(world.carry_out(sweep), Outcome::Committed);
    assert_eq!(world.run(&again), Ok(Outcome::Committed));
    world.assert_agrees(&again);
}

/// Requests for what is so already.
#[test]
fn a_request_already_satisfied_is_refused() {
    let net: IpNet = word("10.0.0.0/24");
    let spec = NetworkSpec {
        subnets: vec![net],
        ..NetworkSpec::new(word("n"))
    };
    let requests = [
        Request::CreateNetwork(spec),
        Request::Attach(attach("n", "c", &[])),
        detach("n", "c"),
        remove("n"),
    ];
    let mut world = World::default();
    for request in requests {
        assert_eq!(world.run(&request), Ok(Outcome::Committed));
        let held = world.held();
        assert!(world.run(&request).is_err(), "{request:?}");
        assert_eq!(world.held(), held);
    }
    assert_eq!(world.held(), Footprint::new());
}
