//! The table of the module's documentation, row by row.

use mydocker_core::{
    Address, Bridge, Dnat, Hairpin, Instance, LinkSysctl, Mac, Master, Move, Protocol, Route, Up,
    Veth, Zone,
};

use super::*;

const OURS: Instance = Instance::DEFAULT;

fn name(text: &str) -> LinkName {
    text.parse().unwrap()
}

fn web() -> Netns {
    "/run/netns/web".parse().unwrap()
}

fn eth0() -> Link {
    Link::sandbox(web(), name("eth0"))
}

fn mac() -> Mac {
    "02:00:00:00:00:01".parse().unwrap()
}

fn bridge(text: &str) -> Object {
    Object::Bridge(Bridge {
        instance: OURS,
        name: name(text),
        mac: mac(),
        mtu_bytes: 1500,
        internal: false,
    })
}

fn veth() -> Object {
    Object::Veth(Veth {
        instance: OURS,
        name: name("mdv0"),
        mtu_bytes: 1500,
    })
}

fn moved() -> Object {
    Object::Move(Move {
        host: name("mdv0"),
        to: eth0(),
        mac: mac(),
    })
}

fn master(bridge: &str) -> Object {
    Object::Master(Master {
        link: name("mdv0"),
        bridge: name(bridge),
    })
}

fn hairpin() -> Object {
    Object::Hairpin(Hairpin { link: name("mdv0") })
}

fn address(text: &str) -> Object {
    Object::Address(Address {
        link: eth0(),
        address: text.parse().unwrap(),
    })
}

fn up() -> Object {
    Object::Up(Up { link: eth0() })
}

fn default_via(via: &str) -> Object {
    let via: std::net::IpAddr = via.parse().unwrap();
    let destination = if via.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    let (link, destination) = (eth0(), destination.parse().unwrap());
    Object::Route(Route {
        link,
        destination,
        via,
        metric: None,
    })
}

fn ipv6_off(value: i64) -> Object {
    let (link, family, key) = (eth0(), mydocker_core::Family::V6, "disable_ipv6".into());
    Object::LinkSysctl(LinkSysctl {
        link,
        family,
        key,
        value,
    })
}

fn dnat(to: &str) -> Object {
    let (at, protocol, port) = (None, Protocol::Tcp, 8080);
    Object::Dnat(Dnat {
        instance: OURS,
        at,
        protocol,
        port,
        to: to.parse().unwrap(),
    })
}

fn zone(internal: bool) -> Object {
    Object::Zone(Zone {
        instance: OURS,
        bridge: name("br0"),
        internal,
        icc: true,
        open: false,
        gateway6: None,
        trusted: BTreeSet::new(),
    })
}

fn add(kernel: &mut Kernel, object: Object) -> Result<(), ErrorKind> {
    kernel
        .apply(&[Op::Add(object)])
        .remove(0)
        .map_err(|error| error.kind)
}

fn del(kernel: &mut Kernel, object: Object) {
    assert_eq!(
        kernel.apply(&[Op::Del(object)]),
        [Ok(())],
        "a removal succeeds"
    );
}

/// A container on a bridge, with an address of each family and a way out.
fn wired() -> Kernel {
    let mut kernel = Kernel::new().with_namespace(web());
    let objects = [
        bridge("br0"),
        bridge("br1"),
        veth(),
        moved(),
        master("br0"),
        hairpin(),
        address("10.0.0.2/24"),
        address("fd00::2/64"),
        up(),
        default_via("10.0.0.1"),
        default_via("fd00::1"),
    ];
    for object in objects {
        assert_eq!(add(&mut kernel, object.clone()), Ok(()), "{object:?}");
    }
    kernel
}

fn holds(kernel: &Kernel, object: &Object) -> bool {
    kernel.objects().contains(object)
}

#[test]
fn a_name_is_had_once() {
    let mut kernel = wired();
    for object in [bridge("br0"), bridge("mdv0"), bridge("lo"), veth()] {
        assert_eq!(add(&mut kernel, object), Err(ErrorKind::Exists));
    }
    let links = ["eth7".into()].into();
    let mut listed = Kernel::new().with_facts(Facts {
        links,
        ..Facts::default()
    });
    assert_eq!(add(&mut listed, bridge("eth7")), Err(ErrorKind::Exists));
    // The peer's name is taken until it has moved.
    let mut kernel = Kernel::new().with_namespace(web());
    assert_eq!(add(&mut kernel, veth()), Ok(()));
    assert_eq!(add(&mut kernel, bridge("mdp0")), Err(ErrorKind::Exists));
    assert_eq!(add(&mut kernel, moved()), Ok(()));
    assert_eq!(add(&mut kernel, bridge("mdp0")), Ok(()));
}

#[test]
fn what_is_foreign_is_in_the_way_and_left_alone() {
    let mut kernel = Kernel::new().any_namespace();
    for object in [bridge("br0"), veth(), moved(), Object::Ruleset(OURS)] {
        kernel = kernel.with_foreign(object);
    }
    let before = kernel.clone();
    for object in [bridge("br0"), veth(), Object::Ruleset(OURS)] {
        assert_eq!(add(&mut kernel, object.clone()), Err(ErrorKind::Exists));
        del(&mut kernel, object);
    }
    assert_eq!(add(&mut kernel, master("br0")), Err(ErrorKind::Missing));
    del(&mut kernel, moved());
    assert_eq!(kernel, before);
    assert_eq!(kernel.observe(&[moved()].into()), Ok(Footprint::new()));
}

#[test]
fn a_link_moves_to_where_there_is_room() {
    let mut kernel = Kernel::new();
    assert_eq!(
        add(&mut kernel, moved()),
        Err(ErrorKind::Missing),
        "no cable"
    );
    assert_eq!(add(&mut kernel, veth()), Ok(()));
    assert_eq!(
        add(&mut kernel, moved()),
        Err(ErrorKind::Missing),
        "no namespace"
    );
    let mut taken = kernel
        .clone()
        .any_namespace()
        .with_foreign(Object::Move(Move {
            host: name("other"),
            to: eth0(),
            mac: mac(),
        }));
    assert_eq!(add(&mut taken, moved()), Err(ErrorKind::Exists));
    let mut kernel = kernel.with_namespace(web());
    assert_eq!(add(&mut kernel, moved()), Ok(()));
    assert_eq!(
        add(&mut kernel, moved()),
        Err(ErrorKind::Missing),
        "it has moved"
    );
    assert_eq!(add(&mut kernel, address("10.0.0.2/24")), Ok(()));
    del(&mut kernel, moved());
    assert_eq!(*kernel.objects(), [veth()].into());
    assert_eq!(add(&mut kernel, moved()), Ok(()), "it is back");
}

#[test]
fn a_cable_goes_with_all_that_stands_on_it() {
    let bridges: Footprint = [bridge("br0"), bridge("br1")].into();
    let mut kernel = wired();
    del(&mut kernel, veth());
    assert_eq!(*kernel.objects(), bridges);
    let mut kernel = wired();
    kernel.kill_sandbox(&web());
    assert_eq!(*kernel.objects(), bridges);
    assert_eq!(add(&mut kernel, veth()), Ok(()));
    assert_eq!(add(&mut kernel, moved()), Err(ErrorKind::Missing));
}

#[test]
fn a_port_forgets_how_it_behaved_when_it_leaves() {
    for leave in [
        Op::Del(bridge("br0")),
        Op::Del(master("br0")),
        Op::Add(master("br1")),
    ] {
        let mut kernel = wired();
        assert_eq!(kernel.apply(&[leave]), [Ok(())]);
        assert!(holds(&kernel, &veth()) && holds(&kernel, &moved()));
        for flag in [master("br0"), hairpin()] {
            assert!(!holds(&kernel, &flag));
        }
    }
    let mut kernel = wired();
    del(&mut kernel, master("br0"));
    assert_eq!(add(&mut kernel, hairpin()), Err(ErrorKind::Missing));
}

#[test]
fn routes_need_a_way_to_their_next_hop() {
    let mut kernel = wired();
    assert_eq!(
        add(&mut kernel, default_via("10.0.0.9")),
        Err(ErrorKind::Exists)
    );
    del(&mut kernel, default_via("10.0.0.1"));
    assert_eq!(
        add(&mut kernel, default_via("10.0.1.1")),
        Err(ErrorKind::Os(101))
    );
    assert_eq!(add(&mut kernel, default_via("10.0.0.2")), Ok(()));
    del(&mut kernel, default_via("10.0.0.2"));
    del(&mut kernel, default_via("fd00::1"));
    assert_eq!(
        add(&mut kernel, default_via("fd00::2")),
        Err(ErrorKind::Os(22))
    );
    assert_eq!(
        add(&mut kernel, default_via("fd01::1")),
        Err(ErrorKind::Os(113))
    );
    del(&mut kernel, up());
    assert_eq!(
        add(&mut kernel, default_via("10.0.0.1")),
        Err(ErrorKind::Os(101))
    );
    assert_eq!(
        add(&mut kernel, default_via("10.0.0.2")),
        Err(ErrorKind::Os(100))
    );
}

#[test]
fn routes_and_addresses_go_with_what_carries_them() {
    let mut kernel = wired();
    del(&mut kernel, up());
    assert!(holds(&kernel, &address("10.0.0.2/24")));
    for gone in [
        address("fd00::2/64"),
        default_via("10.0.0.1"),
        default_via("fd00::1"),
    ] {
        assert!(!holds(&kernel, &gone), "{gone:?}");
    }
    let mut kernel = wired();
    del(&mut kernel, address("10.0.0.2/24"));
    assert!(!holds(&kernel, &default_via("10.0.0.1")));
    assert!(holds(&kernel, &default_via("fd00::1")));
}

#[test]
fn an_address_is_had_once_and_ipv6_can_be_off() {
    let mut kernel = wired();
    assert_eq!(
        add(&mut kernel, address("10.0.0.2/24")),
        Err(ErrorKind::Exists)
    );
    assert_eq!(
        add(&mut kernel, address("fd00::2/96")),
        Err(ErrorKind::Exists)
    );
    assert_eq!(add(&mut kernel, ipv6_off(0)), Ok(()));
    assert_eq!(add(&mut kernel, ipv6_off(1)), Ok(()));
    assert!(!holds(&kernel, &ipv6_off(0)) && !holds(&kernel, &address("fd00::2/64")));
    assert_eq!(
        add(&mut kernel, address("fd00::3/64")),
        Err(ErrorKind::Denied)
    );
    del(&mut kernel, ipv6_off(1));
    assert!(holds(&kernel, &ipv6_off(1)), "a setting has some value");
}

#[test]
fn an_element_is_its_key() {
    let mut kernel = Kernel::new();
    assert_eq!(add(&mut kernel, zone(true)), Err(ErrorKind::Missing));
    assert_eq!(add(&mut kernel, Object::Ruleset(OURS)), Ok(()));
    for [first, second] in [
        [zone(true), zone(false)],
        [dnat("10.0.0.2:80"), dnat("10.0.0.3:80")],
    ] {
        assert_eq!(add(&mut kernel, first.clone()), Ok(()));
        assert_eq!(add(&mut kernel, first.clone()), Err(ErrorKind::Exists));
        assert_eq!(add(&mut kernel, second.clone()), Err(ErrorKind::Exists));
        del(&mut kernel, second.clone());
        assert!(!holds(&kernel, &first));
        assert_eq!(add(&mut kernel, second), Ok(()));
    }
    assert_eq!(
        add(&mut kernel, dnat("[fd00::2]:80")),
        Ok(()),
        "IPv6 has a map of its own"
    );
    del(&mut kernel, Object::Ruleset(OURS));
    assert_eq!(*kernel.objects(), Footprint::new());
}

#[test]
fn what_a_removal_by_key_leaves_spoils_the_ruleset() {
    let mut kernel = Kernel::new();
    let ruleset = Object::Ruleset(OURS);
    for object in [ruleset.clone(), dnat("10.0.0.2:80"), zone(true)] {
        assert_eq!(add(&mut kernel, object), Ok(()));
    }
    let observed = |kernel: &mut Kernel| kernel.observe(&Footprint::new()).unwrap();
    let before = observed(&mut kernel);
    // It leaves the bridge's element in `internal`.
    del(&mut kernel, zone(false));
    assert_eq!(observed(&mut kernel), Footprint::new());
    assert_eq!(add(&mut kernel, zone(true)), Err(ErrorKind::Exists));
    del(&mut kernel, zone(true));
    assert_eq!(add(&mut kernel, zone(true)), Ok(()));
    assert_eq!(observed(&mut kernel), before);
    // A ruleset that is there is made anew.
    assert_eq!(add(&mut kernel, ruleset.clone()), Ok(()));
    assert_eq!(observed(&mut kernel), [ruleset].into());
}

#[test]
fn a_cable_that_is_born_moved_needs_no_name_for_its_far_end() {
    let squatter = bridge("mdp0");
    let mut kernel = Kernel::new().with_namespace(web()).with_foreign(squatter);
    assert_eq!(add(&mut kernel, veth()), Err(ErrorKind::Exists));
    let both = [veth(), moved()].map(Op::Add);
    assert_eq!(kernel.apply(&both), [Ok(()), Ok(())]);
    let back = kernel.apply(&[Op::Del(moved())]).remove(0);
    assert_eq!(back.map_err(|error| error.kind), Err(ErrorKind::Exists));
}

#[test]
fn a_bridge_without_an_mtu_of_its_own_has_its_ports() {
    let mut kernel = wired();
    kernel.delete_link(name("mdv0"));
    let thin = Object::Veth(Veth {
        instance: OURS,
        name: name("mdv0"),
        mtu_bytes: 1400,
    });
    for object in [thin, master("br0")] {
        assert_eq!(add(&mut kernel, object), Ok(()));
    }
    assert!(holds(&kernel, &bridge("br0")));
    assert!(
        !kernel
            .observe(&Footprint::new())
            .unwrap()
            .contains(&bridge("br0"))
    );
    del(&mut kernel, master("br0"));
    assert!(
        kernel
            .observe(&Footprint::new())
            .unwrap()
            .contains(&bridge("br0"))
    );
}

#[test]
fn a_refusal_ends_the_batch() {
    let mut kernel = Kernel::new();
    let ops = [bridge("a"), bridge("a"), bridge("b")].map(Op::Add);
    let results = kernel.apply(&ops);
    assert_eq!(results.len(), 2);
    assert!(results[0].is_ok() && results[1].is_err());
    assert!(!holds(&kernel, &bridge("b")));
}

#[test]
fn a_footprint_becomes_a_kernel_and_is_observed_again() {
    let kernel = wired();
    let mut all = kernel.objects().clone();
    let family = mydocker_core::Family::V4;
    all.insert(Object::Forwarding(Forwarding { family }));
    let mut twin = Kernel::from_footprint(all);
    assert_eq!(
        twin.observe(kernel.objects()).as_ref(),
        Ok(kernel.objects())
    );
    assert!(twin.facts().unwrap().forwarding.contains(&family));
    assert!(twin.is_alive(&web()) && !twin.is_alive(&"/run/netns/db".parse().unwrap()));
    let host = twin.observe(&Footprint::new()).unwrap();
    assert!(host.iter().all(|object| *object.ns() == Ns::Host));
}
