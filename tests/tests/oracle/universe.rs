//! What lists are made of: few objects, so that they meet.
//!
//! Left out, and why:
//! - Links of two instances: an executor is opened for one, and a plan has the links of one.
//! - A cable's host end and its far end before it moves, as what an address, a route, a setting or `Up` is
//!   about: of these, `Up` is never told, and no plan has any.
//! - Two IPv4 addresses of one subnet on one link: what the second becomes is up to
//!   `promote_secondaries`, which a namespace inherits from the machine.
//! - Overlapping subnets of one bridge to be masqueraded: core allows none, and what the kernel makes of
//!   them depends on their order.
//! - An MTU below 1280, with which a link has no IPv6: every setting of it is as wished then, see the
//!   tests of the executor.
//! - Settings that the kernel changes by itself (`forwarding`), and values that it refuses.
//! - Elements that somebody puts into our tables: they can't be told from ours.

use std::collections::BTreeSet;

use mydocker_core::{
    Address, Bridge, Dnat, Family, ForeignChain, Forwarding, Guard, Hairpin, Instance, Isolated,
    Link, LinkName, LinkSysctl, Masquerade, Master, Move, Netns, Ns, Object, Op, Passage, Pinhole,
    Protocol, Request, Route, TableFamily, Up, Veth, Zone,
};
use mydocker_tests::{World, netns, requests, word};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

/// Who the executor is opened for.
pub const OURS: Instance = Instance::DEFAULT;

/// Another one, whose firewall stands beside.
pub fn theirs() -> Instance {
    Instance::of_run_root("/somewhere/else")
}

/// The containers' namespaces.
pub fn sandboxes() -> [Netns; 2] {
    ["a", "b"].map(netns)
}

/// What is tried, and what happens in between.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct List {
    /// What has our names and not our mark, from the start.
    pub foreign: Vec<Squatter>,
    /// In order.
    pub acts: Vec<Act>,
}

/// One step of a list.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Act {
    /// Ops, offered at once.
    Apply(Vec<Op>),
    /// A container ends.
    Kill(Netns),
    /// A namespace of that name is there again.
    Revive(Netns),
    /// Somebody deletes a link of the host.
    Unlink(LinkName),
    /// Somebody flushes all firewalls.
    Flush,
}

impl List {
    /// All that it is about.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        let ops = self.acts.iter().flat_map(|act| match act {
            Act::Apply(ops) => ops.as_slice(),
            Act::Kill(_) | Act::Revive(_) | Act::Unlink(_) | Act::Flush => &[],
        });
        ops.map(Op::object)
    }

    /// The namespaces that are there from the start.
    pub fn namespaces(&self) -> BTreeSet<Netns> {
        let mut all: BTreeSet<Netns> = sandboxes().into();
        all.extend(self.objects().filter_map(|object| match object.ns() {
            Ns::Sandbox(netns) => Some(netns.clone()),
            Ns::Host => None,
        }));
        all
    }
}

/// Something that lacks our mark.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Squatter {
    /// A link called as a bridge of ours.
    Bridge,
    /// A link called as a cable of ours.
    Cable,
    /// A link called as the far end of a cable of ours before it moves.
    Peer,
    /// A link in a container, called as ours.
    Eth0,
    /// A link in a container, and a default route by it.
    DefaultRoute,
    /// A table called as ours.
    Table,
}

fn select<T: Clone + std::fmt::Debug + 'static>(all: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(all.to_vec())
}

/// Links and what stands on them.
pub fn links() -> Vec<Object> {
    let mut all: Vec<Object> = [("br0", 1500), ("br0", 1400), ("br1", 1400)]
        .map(|(name, mtu_bytes)| bridge(name, mtu_bytes))
        .into();
    all.extend(
        [
            ("mdv0", 1500),
            ("mdv1", 1500),
            ("mdv1", 1400),
            ("br1", 1500),
        ]
        .map(veth),
    );
    all.extend(
        [
            ("mdv0", "a", "eth0"),
            ("mdv1", "a", "eth0"),
            ("mdv1", "b", "eth0"),
            ("mdv1", "a", "eth1"),
        ]
        .map(moved),
    );
    all.extend(
        [
            ("mdv0", "br0"),
            ("mdv0", "br1"),
            ("mdv1", "br0"),
            ("mdv1", "br1"),
        ]
        .map(master),
    );
    all.extend(["mdv0", "mdv1", "br0"].map(|link| Object::Hairpin(Hairpin { link: word(link) })));
    for link in ends() {
        all.push(Object::Up(Up { link: link.clone() }));
        all.extend(settings(&link));
        all.extend(addresses(&link));
        all.extend(routes(&link));
    }
    all.extend([Family::V4, Family::V6].map(|family| Object::Forwarding(Forwarding { family })));
    all
}

/// Firewalls of both instances.
pub fn walls() -> Vec<Object> {
    let mut all = Vec::new();
    for instance in [OURS, theirs()] {
        all.push(Object::Ruleset(instance));
        all.extend(zones(instance));
        all.extend(ports(instance));
        all.extend(guards(instance));
        let chains = chains().into_iter();
        all.extend(chains.map(|chain| Object::Passage(Passage { instance, chain })));
        let way = |subnet| Masquerade {
            instance,
            subnet: word(subnet),
            bridge: word("br0"),
        };
        all.extend(["10.0.0.0/24", "fd00::/64"].map(|subnet| Object::Masquerade(way(subnet))));
    }
    all
}

/// Somebody else's chains, which are there from the start.
pub fn chains() -> [ForeignChain; 2] {
    [(TableFamily::Ip, "filter"), (TableFamily::Inet, "other")].map(|(family, table)| {
        ForeignChain {
            family,
            table: word(table),
            chain: word("FORWARD"),
        }
    })
}

fn bridge(name: &str, mtu_bytes: u32) -> Object {
    Object::Bridge(Bridge {
        instance: OURS,
        name: word(name),
        mac: word("02:00:00:00:00:01"),
        mtu_bytes,
        internal: false,
    })
}

fn veth((name, mtu_bytes): (&str, u32)) -> Object {
    Object::Veth(Veth {
        instance: OURS,
        name: word(name),
        mtu_bytes,
    })
}

fn moved((host, place, name): (&str, &str, &str)) -> Object {
    Object::Move(Move {
        host: word(host),
        to: Link::sandbox(netns(place), word(name)),
        mac: word("02:00:00:00:00:02"),
    })
}

fn master((link, bridge): (&str, &str)) -> Object {
    Object::Master(Master {
        link: word(link),
        bridge: word(bridge),
    })
}

/// What may be up and have addresses.
fn ends() -> Vec<Link> {
    vec![
        Link::host(word("br0")),
        Link::sandbox(netns("a"), word("eth0")),
        Link::sandbox(netns("a"), word("eth1")),
        Link::sandbox(netns("b"), word("eth0")),
        Link::sandbox(netns("b"), LinkName::LOOPBACK),
    ]
}

fn settings(link: &Link) -> Vec<Object> {
    let all = [
        (Family::V4, "rp_filter", 1),
        (Family::V4, "rp_filter", 2),
        (Family::V6, "accept_ra", 0),
        (Family::V6, "disable_ipv6", 1),
        (Family::V6, "disable_ipv6", 0),
        (Family::V6, "keep_addr_on_down", 1),
    ];
    let setting = |(family, key, value): (Family, &str, i64)| LinkSysctl {
        link: link.clone(),
        family,
        key: key.into(),
        value,
    };
    all.map(|all| Object::LinkSysctl(setting(all))).into()
}

fn addresses(link: &Link) -> Vec<Object> {
    let all = [
        "10.0.0.2/24",
        "10.0.0.2/16",
        "10.1.0.2/24",
        "fd00::2/64",
        "fd00::2/80",
        "fd01::2/64",
    ];
    let address = |text| Address {
        link: link.clone(),
        address: word(text),
    };
    all.map(|text| Object::Address(address(text))).into()
}

fn routes(link: &Link) -> Vec<Object> {
    let all = [
        ("0.0.0.0/0", "10.0.0.1", None),
        ("0.0.0.0/0", "10.0.0.1", Some(50)),
        ("0.0.0.0/0", "10.1.0.1", None),
        ("10.1.0.0/24", "10.0.0.2", None),
        ("172.16.0.0/16", "10.0.3.1", None),
        ("::/0", "fd00::1", None),
        ("::/0", "fd00::1", Some(50)),
        ("fd01::/64", "fd00::2", None),
    ];
    let route = |(destination, via, metric)| Route {
        link: link.clone(),
        destination: word(destination),
        via: word(via),
        metric,
    };
    all.map(|all| Object::Route(route(all))).into()
}

fn zones(instance: Instance) -> Vec<Object> {
    let zone = |bridge, internal| Zone {
        instance,
        bridge: word(bridge),
        internal,
        icc: true,
        open: false,
        gateway6: None,
        trusted: BTreeSet::new(),
    };
    let plain = zone("br0", false);
    let all = [
        Zone {
            icc: false,
            open: true,
            ..plain.clone()
        },
        Zone {
            trusted: [word("up0")].into(),
            gateway6: Some(word("fd00::1")),
            ..plain.clone()
        },
        zone("br0", true),
        zone("br1", false),
        plain,
    ];
    all.map(Object::Zone).into()
}

fn ports(instance: Instance) -> Vec<Object> {
    let dnat = |at: Option<&str>, port, to| {
        Object::Dnat(Dnat {
            instance,
            at: at.map(word),
            protocol: Protocol::Tcp,
            port,
            to: word(to),
        })
    };
    let pinhole = |protocol| {
        let to = word("10.0.0.2:80");
        Object::Pinhole(Pinhole {
            instance,
            protocol,
            to,
        })
    };
    vec![
        dnat(None, 8080, "10.0.0.2:80"),
        dnat(None, 8080, "10.0.0.3:80"),
        dnat(Some("127.0.0.1"), 8080, "10.0.0.2:80"),
        dnat(None, 8080, "[fd00::2]:80"),
        pinhole(Protocol::Tcp),
        pinhole(Protocol::Udp),
    ]
}

fn guards(instance: Instance) -> Vec<Object> {
    let guard = |port: &str, mac: &str, addresses: &[&str]| {
        Object::Guard(Guard {
            instance,
            port: word(port),
            mac: word(mac),
            addresses: addresses.iter().map(|address| word(address)).collect(),
        })
    };
    let isolated = |port| {
        Object::Isolated(Isolated {
            instance,
            port: word(port),
        })
    };
    vec![
        guard("mdv0", "02:00:00:00:00:02", &["10.0.0.2", "fd00::2"]),
        guard("mdv0", "02:00:00:00:00:02", &["10.0.0.2"]),
        guard("mdv0", "02:00:00:00:00:03", &["10.0.0.2", "fd00::2"]),
        guard("mdv1", "02:00:00:00:00:02", &[]),
        isolated("mdv0"),
        isolated("mdv1"),
    ]
}

/// Lists about `objects`.
pub fn lists(objects: Vec<Object>) -> impl Strategy<Value = List> {
    let squatters = [
        Squatter::Bridge,
        Squatter::Cable,
        Squatter::Peer,
        Squatter::Eth0,
        Squatter::DefaultRoute,
        Squatter::Table,
    ];
    let foreign = prop_oneof![
        4 => Just(vec![]),
        1 => prop::sample::subsequence(squatters.to_vec(), 1..=2),
    ];
    let first = some(objects.clone(), 0.5).prop_map(|all| Act::Apply(adds(sound(all))));
    let rest = prop::collection::vec(act(objects), 1..4);
    (foreign, first, rest).prop_map(|(foreign, first, mut acts)| {
        acts.insert(0, first);
        List { foreign, acts }
    })
}

fn act(objects: Vec<Object>) -> impl Strategy<Value = Act> {
    let chaos = (select(&objects), prop::bool::weighted(0.6)).prop_map(|(object, add)| {
        if add {
            Op::Add(object)
        } else {
            Op::Del(object)
        }
    });
    prop_oneof![
        6 => prop::collection::vec(chaos, 1..8).prop_map(Act::Apply),
        3 => some(objects.clone(), 0.1).prop_map(|all| Act::Apply(adds(all))),
        2 => some(objects, 0.1).prop_map(|all| Act::Apply(dels(all))),
        1 => select(&sandboxes()).prop_map(Act::Kill),
        1 => select(&sandboxes()).prop_map(Act::Revive),
        1 => select(&["br0", "br1", "mdv0", "mdv1"]).prop_map(|name| Act::Unlink(word(name))),
        1 => Just(Act::Flush),
    ]
}

/// Requests of a script that is carried out on both.
const REQUESTS_MAX: usize = 14;

/// Lists that are plans, one after another; a container may end in between.
pub fn plans() -> impl Strategy<Value = List> {
    let containers = select(&["c0", "c1", "c2"]);
    let death = prop::option::of((any::<prop::sample::Index>(), containers));
    (requests::script(), death).prop_map(|(mut requests, death)| {
        requests.truncate(REQUESTS_MAX);
        let death = death.map(|(at, who)| (at.index(requests.len()), netns(who)));
        List {
            foreign: Vec::new(),
            acts: planned(&requests, death.as_ref()),
        }
    })
}

fn planned(requests: &[Request], death: Option<&(usize, Netns)>) -> Vec<Act> {
    let mut world = World::default();
    for chain in chains() {
        world.kernel.add_forward_chain(&chain);
    }
    let mut acts = Vec::new();
    for (at, request) in requests.iter().enumerate() {
        if let Some((_, netns)) = death.filter(|(when, _)| *when == at) {
            world.kernel.kill_sandbox(netns);
            acts.push(Act::Kill(netns.clone()));
        }
        if let Ok(plan) = world.plan(request) {
            acts.push(Act::Apply(plan.ops.clone()));
            world.carry_out(plan);
        }
    }
    acts
}

/// Some objects, in the order that they are made in.
fn some(objects: Vec<Object>, share: f64) -> impl Strategy<Value = Vec<Object>> {
    let chosen = prop::collection::vec(prop::bool::weighted(share), objects.len());
    chosen.prop_map(move |chosen| {
        let all = objects.iter().zip(chosen);
        let mut all: Vec<Object> = all.filter(|(_, it)| *it).map(|(o, _)| o.clone()).collect();
        all.sort();
        all
    })
}

/// Those that can stand together on a host that has none.
fn sound(all: Vec<Object>) -> Vec<Object> {
    let mut kept: Vec<Object> = Vec::new();
    for object in all {
        let given = |base| {
            kept.iter()
                .any(|base_of| base_of.gives().any(|b| b == base))
        };
        if object.needs().all(given) && !kept.iter().any(|other| other.excludes(&object)) {
            kept.push(object);
        }
    }
    kept
}

fn adds(all: Vec<Object>) -> Vec<Op> {
    all.into_iter().map(Op::Add).collect()
}

fn dels(all: Vec<Object>) -> Vec<Op> {
    all.into_iter().rev().map(Op::Del).collect()
}
