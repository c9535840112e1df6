//! A state that was lost and is read off the kernel again.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

use mydocker_core::{
    Address, Adoption, Change, EndpointId, Executor, Hearsay, Link, NetworkRecord, Object,
    OnFailure, Op, Outcome, Plan, Request, Snapshot, State, Stray,
};
use mydocker_tests::requests::script;
use mydocker_tests::{World, attach, create, netns, story, word};
use proptest::prelude::*;

/// What definitions alone say.
fn definitions(state: &State) -> State {
    let networks = state.snapshot().networks.into_iter();
    let down = networks.map(|record| NetworkRecord {
        up: false,
        cursors: Vec::new(),
        ..record
    });
    let instance = state.instance();
    let networks = down.collect();
    State::restore(Snapshot {
        instance,
        networks,
        ..Snapshot::default()
    })
    .unwrap()
}

fn heard(state: &State) -> Hearsay {
    let mut hearsay = Hearsay::default();
    hearsay.hear_state(state);
    hearsay
}

/// The state that is read off the kernel, and that nothing in the kernel is left over then.
fn adopted(world: &mut World, from: &State, hearsay: &Hearsay) -> State {
    let (state, told) = from.adopt(hearsay, world.kernel.objects());
    let strays = told.iter().filter(|a| matches!(a, Adoption::Stray { .. }));
    assert_eq!(strays.collect::<Vec<_>>(), Vec::<&Adoption>::new());
    let facts = world.kernel.facts().unwrap();
    let repair = state.repair(&facts, world.kernel.objects());
    assert_eq!(repair.ops, []);
    state
}

fn played(requests: &[Request]) -> World {
    let mut world = World::beside_firewalls();
    for request in requests {
        // Those that make no sense are another test's matter.
        world.run(request).ok();
    }
    world
}

proptest! {
    #[test]
    fn with_the_names_of_old_nothing_is_lost(requests in script()) {
        let mut world = played(&requests);
        let lost = world.state().clone();
        let state = adopted(&mut world, &definitions(&lost), &heard(&lost));
        prop_assert_eq!(state.footprint(), lost.footprint());
        let kept = |state: &State| -> Vec<_> {
            state.endpoints().map(|e| (e.id.clone(), e.ports.clone(), e.sysctls.clone())).collect()
        };
        prop_assert_eq!(kept(&state), kept(&lost));
    }

    #[test]
    fn without_any_nothing_of_the_kernel_is(requests in script()) {
        let mut world = played(&requests);
        let lost = world.state().clone();
        let state = adopted(&mut world, &definitions(&lost), &Hearsay::default());
        prop_assert_eq!(state.endpoints().count(), lost.endpoints().count());
        let addresses = |state: &State| -> Vec<_> {
            state.endpoints().flat_map(|e| e.addresses.clone()).collect()
        };
        let (mut before, mut after) = (addresses(&lost), addresses(&state));
        before.sort();
        after.sort();
        prop_assert_eq!(before, after);
    }

    #[test]
    fn what_is_on_record_stays_as_it_is(requests in script()) {
        let world = played(&requests);
        let known = world.state().clone();
        let (state, told) = known.adopt(&Hearsay::default(), world.kernel.objects());
        prop_assert_eq!(state, known);
        prop_assert_eq!(told, []);
    }
}

/// A world where `web` is on two networks and publishes ports.
fn two_networks() -> World {
    let upto = story()
        .iter()
        .position(|request| matches!(request, Request::Unpublish { .. }));
    World::default().after(&story()[..upto.unwrap()])
}

#[test]
fn a_definition_that_is_gone_is_what_is_said_of_it() {
    let mut world = two_networks();
    let lost = world.state().clone();
    let blank = State::new(lost.instance());
    let state = adopted(&mut world, &blank, &heard(&lost));
    assert_eq!(state.footprint(), lost.footprint());
    // What was removed since is not said any more.
    let mut hearsay = heard(&lost);
    let removal = Plan {
        change: Change::NetworkRemoved(word("back")),
        on_failure: OnFailure::Continue,
        ops: Vec::new(),
        warnings: Vec::new(),
    };
    hearsay.hear_end(&removal, &Outcome::Committed);
    let (state, told) = blank.adopt(&hearsay, world.kernel.objects());
    assert_eq!(state.networks().count(), 1);
    let bridge = Some(word("back"));
    let why = Stray::NoNetwork(bridge);
    assert!(
        told.iter()
            .any(|a| matches!(a, Adoption::Stray { why: w, .. } if *w == why)),
        "{told:?}"
    );
}

#[test]
fn a_container_without_a_name_is_called_like_its_cable() {
    let mut world = two_networks();
    let lost = world.state().clone();
    let state = adopted(&mut world, &definitions(&lost), &Hearsay::default());
    let (before, after) = (
        netns_of(&lost, "/run/netns/web"),
        netns_of(&state, "/run/netns/web"),
    );
    assert_eq!((before.len(), after.len()), (2, 2));
    assert!(after[0].container.as_str().starts_with("mdv"), "{after:?}");
    assert_eq!(after[0].container, after[1].container);
    // It can be taken off its networks like any other.
    world.journal.state = state;
    for id in after {
        world.run(&Request::Detach(id)).unwrap();
    }
    world.assert_agrees(&"detached");
}

fn netns_of(state: &State, netns: &str) -> Vec<EndpointId> {
    let on = state.endpoints().filter(|e| e.netns.as_str() == netns);
    on.map(|endpoint| endpoint.id.clone()).collect()
}

#[test]
fn what_the_kernel_lost_too_is_what_is_said_of_it() {
    let mut world = two_networks();
    let lost = world.state().clone();
    world.kernel.flush_firewalls();
    let web = Link::sandbox(netns("web"), word("eth0"));
    let held = world.kernel.objects().clone();
    let address = held
        .iter()
        .find(|o| matches!(o, Object::Address(Address { link, .. }) if *link == web));
    world.kernel.apply(&[Op::Del(address.unwrap().clone())]);
    let (state, told) = definitions(&lost).adopt(&heard(&lost), world.kernel.objects());
    assert_eq!(state.footprint(), lost.footprint(), "{told:?}");
    // And without anybody's word, a cable to an interface without address is nobody's.
    let (state, told) = definitions(&lost).adopt(&Hearsay::default(), world.kernel.objects());
    let stray = |a: &&Adoption| {
        matches!(
            a,
            Adoption::Stray {
                why: Stray::NoAddress(_),
                ..
            }
        )
    };
    assert_eq!(told.iter().filter(stray).count(), 1, "{told:?}");
    assert_eq!(state.endpoints().count(), 2);
    world.journal.state = state;
    let repair = world.repair();
    world.carry_out(repair);
    world.assert_agrees(&"repaired");
}

#[test]
fn whose_namespace_is_nowhere_is_a_stray() {
    let world = two_networks();
    let lost = world.state().clone();
    let mut seen = world.kernel.objects().clone();
    seen.retain(|object| *object.ns() == mydocker_core::Ns::Host);
    let (state, told) = definitions(&lost).adopt(&heard(&lost), &seen);
    assert_eq!(state.endpoints().count(), 0);
    let stray = |a: &&Adoption| {
        matches!(
            a,
            Adoption::Stray {
                why: Stray::NoNamespace,
                ..
            }
        )
    };
    assert_eq!(told.iter().filter(stray).count(), 3, "{told:?}");
    for told in told {
        assert!(!told.to_string().is_empty());
    }
}

/// Two containers can't have one address, whatever the kernel shows.
#[test]
fn contradictions_are_strays() {
    let world = World::default().after(&[
        Request::CreateNetwork(create("n", &["10.0.0.0/24"])),
        Request::Attach(attach("n", "one", &[])),
        Request::Attach(attach("n", "two", &[])),
    ]);
    // `two` has given itself the address of `one`.
    let taken = world.state().endpoints().next().unwrap().addresses[0];
    let link = Link::sandbox(netns("two"), word("eth0"));
    let mut seen = world.kernel.objects().clone();
    seen.retain(|object| !matches!(object, Object::Address(a) if a.link == link));
    let address = taken;
    seen.insert(Object::Address(Address { link, address }));
    let (state, told) = definitions(world.state()).adopt(&Hearsay::default(), &seen);
    assert_eq!(state.endpoints().count(), 1);
    let why = |a: &Adoption| {
        matches!(
            a,
            Adoption::Stray {
                why: Stray::Contradiction(_),
                ..
            }
        )
    };
    assert!(told.iter().any(why), "{told:?}");
}
