//! Defects of the original that the planning core alone can show to be gone: a test each, by the
//! number of its row in the table of defects.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::collections::BTreeSet;
use std::net::IpAddr;

use mydocker_core::{
    Damage, Entry, Facts, Footprint, Holder, Instance, LinkName, Object, Op, Outcome, Rejection,
    Request, Snapshot, State,
};
use mydocker_exec_dryrun::Kernel;
use mydocker_tests::{World, attach, create, detach, remove, word};

fn network(name: &str, subnet: &str) -> Request {
    Request::CreateNetwork(create(name, &[subnet]))
}

fn endpoint(network: &str, container: &str) -> Request {
    Request::Attach(attach(network, container, &[]))
}

/// Containers until the network takes no more, or 300: their addresses, and the refusal.
fn fill(name: &str, subnet: &str) -> (Vec<IpAddr>, Option<Rejection>) {
    let mut state = World::default()
        .after(&[network(name, subnet)])
        .state()
        .clone();
    let mut addresses = Vec::new();
    for i in 0..300 {
        match state.plan(&Facts::default(), &endpoint(name, &format!("c{i}"))) {
            Ok(plan) => {
                state.absorb(&Entry::Begin(plan.into())).unwrap();
                state.absorb(&Entry::End(Outcome::Committed)).unwrap();
                let last = state
                    .endpoint(&attach(name, &format!("c{i}"), &[]).id())
                    .unwrap();
                addresses.push(last.addresses[0].addr());
            }
            Err(rejection) => return (addresses, Some(rejection)),
        }
    }
    (addresses, None)
}

/// One /21 or eight /24s were more than it could read back.
#[test]
fn row_01_any_number_of_networks_reads_back() {
    let mut world = World::default().after(&[network("large", "10.64.0.0/13")]);
    for i in 0..64 {
        world = world.after(&[network(&format!("n{i}"), &format!("10.1.{i}.0/24"))]);
        world = world.after(&[endpoint("large", &format!("c{i}"))]);
    }
    let json = serde_json::to_string(&world.state().snapshot()).unwrap();
    let snapshot: Snapshot = serde_json::from_str(&json).unwrap();
    let state = State::restore(snapshot).unwrap();
    assert_eq!(state, *world.state());
    assert!(
        state
            .plan(&Facts::default(), &endpoint("n63", "web"))
            .is_ok()
    );
    assert_eq!(world.journal.reopened().state, state);
}

/// It handed out broadcast and network address, and 10.0.0.4 of a /30.
#[test]
fn row_02_leases_are_hosts_of_the_subnet() {
    let (v24, _) = fill("a", "10.0.0.0/24");
    assert_eq!(v24.len(), 253);
    assert_eq!((v24[0], v24[252]), (word("10.0.0.2"), word("10.0.0.254")));
    let (v22, _) = fill("b", "10.0.0.0/22");
    assert!(!v22.contains(&word("10.0.0.0")));
    assert_eq!(
        v22[254],
        word::<IpAddr>("10.0.1.0"),
        "an ordinary host of a /22"
    );
    let (v30, _) = fill("c", "10.0.0.0/30");
    assert_eq!(v30, [word::<IpAddr>("10.0.0.2")]);
}

/// It returned nothing and no error.
#[test]
fn row_03_exhaustion_says_who_has_the_addresses() {
    let (_, refusal) = fill("tiny", "10.0.0.0/29");
    let Some(Rejection::Exhausted {
        leased,
        capacity,
        holders,
        ..
    }) = refusal
    else {
        panic!("{refusal:?}");
    };
    assert_eq!((leased, capacity, holders.len()), (5, 5, 5));
}

/// A /64 gave no address and no error, a /120 the wrong address.
#[test]
fn row_04_ipv6_subnets_lease_addresses_of_theirs() {
    for subnet in ["fd00:1::/64", "fd00:1::/120"] {
        let (addresses, _) = fill("six", subnet);
        assert_eq!(
            addresses[..2],
            [word::<IpAddr>("fd00:1::2"), word("fd00:1::3")]
        );
    }
    assert_eq!(fill("six", "fd00:1::/120").0.len(), 254);
}

/// It never released a container's address, and a new network inherited old leases.
#[test]
fn row_05_detach_releases_the_address() {
    let mut world = World::default().after(&[network("tiny", "10.0.0.0/30")]);
    for i in 0..10 {
        let name = format!("c{i}");
        world = world.after(&[endpoint("tiny", &name), detach("tiny", &name)]);
    }
    world = world.after(&[
        remove("tiny"),
        network("tiny", "10.0.0.0/30"),
        endpoint("tiny", "last"),
    ]);
    assert!(matches!(
        world.run(&endpoint("tiny", "more")),
        Err(Rejection::Exhausted { .. })
    ));
}

/// Releasing an address changed the caller's copy: 10.0.0.1 became 10.0.0.0.
#[test]
fn row_06_release_changes_nothing_else() {
    let mut world = World::default().after(&[network("n", "10.0.0.1/24"), endpoint("n", "web")]);
    let before = world.state().network(&word("n")).unwrap().clone();
    world = world.after(&[endpoint("n", "db"), detach("n", "web")]);
    assert_eq!(world.state().network(&word("n")), Some(&before));
    let db = world
        .state()
        .endpoint(&attach("n", "db", &[]).id())
        .unwrap();
    assert_eq!(db.addresses, [word("10.0.0.3/24")]);
    assert_eq!(before.subnets[0].gateway, Some(word("10.0.0.1")));
}

/// Sixteen at once got five addresses between them.
#[test]
fn row_07_a_plan_made_from_old_knowledge_is_refused() {
    let world = World::default().after(&[network("n", "10.0.0.0/24")]);
    let plan = |name: &str| {
        world
            .state()
            .plan(&Facts::default(), &endpoint("n", name))
            .unwrap()
    };
    // Two that looked at the same state want the same address, and one of them gets it.
    let (first, second) = (plan("a"), plan("b"));
    let mut state = world.state().clone();
    state.absorb(&Entry::Begin(first.into())).unwrap();
    assert_eq!(
        state.absorb(&Entry::Begin(second.clone().into())),
        Err(Damage::BeginTwice)
    );
    assert!(state.plan(&Facts::default(), &endpoint("n", "c")) == Err(Rejection::Pending));
    state.absorb(&Entry::End(Outcome::Committed)).unwrap();
    let settled = state.clone();
    state.absorb(&Entry::Begin(second.into())).unwrap();
    let taken = Damage::AddressTwice(attach("n", "b", &[]).id(), word("10.0.0.2"));
    assert_eq!(state.absorb(&Entry::End(Outcome::Committed)), Err(taken));
    assert_eq!(
        state.endpoints().collect::<Vec<_>>(),
        settled.endpoints().collect::<Vec<_>>()
    );
}

/// The second create gave the bridge a second gateway and NAT rule.
#[test]
fn row_10_a_name_is_created_once() {
    let mut world = World::default().after(&[network("n", "10.0.0.0/24")]);
    let held = world.held();
    for subnet in ["10.0.0.0/24", "10.1.0.0/24"] {
        let refused = world.run(&network("n", subnet));
        assert_eq!(refused, Err(Rejection::NetworkExists(word("n"))));
    }
    assert_eq!(world.held(), held);
}

/// Neither other networks nor the host's routes were looked at.
#[test]
fn row_12_subnets_overlap_nothing() {
    let facts = Facts {
        routes: vec![word("192.0.2.0/24"), word("0.0.0.0/0")],
        ..Facts::default()
    };
    let mut world = World::on(Kernel::new().any_namespace().with_facts(facts))
        .after(&[network("n", "10.0.0.0/24")]);
    for (subnet, with) in [
        (
            "10.0.0.0/25",
            Holder::Network(word("n"), word("10.0.0.0/24")),
        ),
        (
            "10.0.0.0/16",
            Holder::Network(word("n"), word("10.0.0.0/24")),
        ),
        ("192.0.2.128/25", Holder::Route(word("192.0.2.0/24"))),
    ] {
        let subnet_asked = word(subnet);
        let refused = world.run(&network("m", subnet));
        assert_eq!(
            refused,
            Err(Rejection::Overlap {
                subnet: subnet_asked,
                with
            })
        );
    }
}

/// The second container's rule was appended, and dead.
#[test]
fn row_15_a_port_leads_to_one_container() {
    let web = attach("n", "web", &["8080:80", "127.0.0.1:9090:90"]);
    let mut world = World::default().after(&[network("n", "10.0.0.0/24"), Request::Attach(web)]);
    for port in ["8080:80", "127.0.0.1:8080:81", "9090:1", "0.0.0.0:9090:1"] {
        let refused = world.run(&Request::Attach(attach("n", "b", &[port])));
        assert!(
            matches!(refused, Err(Rejection::PortTaken { .. })),
            "{port}: {refused:?}"
        );
    }
    for port in ["8080:80/udp", "127.0.0.2:9090:90"] {
        world = world.after(&[Request::Attach(attach("n", "b", &[port])), detach("n", "b")]);
    }
}

/// A network could be removed under its containers.
#[test]
fn row_21_a_network_in_use_stays() {
    let mut world = World::default().after(&[network("n", "10.0.0.0/24"), endpoint("n", "web")]);
    let (network, containers) = (word("n"), vec![word("web")]);
    assert_eq!(
        world.run(&remove("n")),
        Err(Rejection::NetworkInUse {
            network,
            containers
        })
    );
    let world = world.after(&[detach("n", "web"), remove("n")]);
    assert_eq!(world.held(), Footprint::new());
}

/// Interfaces were named by five digits: even odds of a collision at 373 containers, and certain
/// for one container on two networks.
#[test]
fn row_23_interface_names_do_not_collide() {
    let two = World::default().after(&[
        network("a", "10.0.0.0/24"),
        network("b", "10.1.0.0/24"),
        endpoint("a", "web"),
        endpoint("b", "web"),
    ]);
    let cables = |world: &World| -> BTreeSet<LinkName> {
        world
            .state()
            .endpoints()
            .map(|endpoint| endpoint.host_link)
            .collect()
    };
    assert_eq!(cables(&two).len(), 2);
    let mut names = BTreeSet::new();
    let mut plan_for = |instance: Instance, i: usize| {
        let mut state = State::new(instance);
        let facts = Facts::default();
        let plan = state.plan(&facts, &network("n", "10.0.0.0/16")).unwrap();
        state.absorb(&Entry::Begin(plan.into())).unwrap();
        state.absorb(&Entry::End(Outcome::Committed)).unwrap();
        let plan = state
            .plan(&facts, &endpoint("n", &format!("c{i}")))
            .unwrap();
        let cable = plan.ops.iter().find_map(|op| match op {
            Op::Add(Object::Veth(veth)) => Some([veth.name, veth.peer()]),
            Op::Add(_) | Op::Del(_) => None,
        });
        names.extend(cable.unwrap());
    };
    for i in 0..2000 {
        plan_for(Instance::DEFAULT, i);
        plan_for(Instance::of_run_root("/tmp/another"), i);
    }
    assert_eq!(names.len(), 8000);
}
