//! Every request × every op × every way to fail, alone and in pairs, by exhaustion.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

use mydocker_core::{
    ErrorKind, Footprint, Object, OnFailure, Op, Outcome, Plan, Request, State, Transaction, drive,
};
use std::fmt::Debug;

use mydocker_exec_dryrun::{Fault, Faulty};
use mydocker_tests::{World, story};

const FAULTS: [Fault; 4] = [
    Fault::Refused(ErrorKind::Denied),
    Fault::Refused(ErrorKind::Missing),
    Fault::LostBefore,
    Fault::LostAfter,
];

/// Worlds before each request of the story, the request and its plan.
fn cases() -> Vec<(World, Request, Plan)> {
    let mut world = World::beside_firewalls();
    let step = |request: Request| {
        let mut before = world.clone();
        let plan = before.plan(&request).unwrap();
        world = std::mem::take(&mut world).after(std::slice::from_ref(&request));
        (before, request, plan)
    };
    story().into_iter().map(step).collect()
}

/// Carries out a plan with faults; the world afterwards, how it ended, and how many ops were tried.
fn run(
    before: &World,
    plan: &Plan,
    faults: &[(usize, Fault)],
    ops_at_once_max: usize,
) -> (World, Outcome, usize) {
    let mut world = before.clone();
    let mut faulty = Faulty::new(world.kernel).with_chunks_of(ops_at_once_max);
    for (at, fault) in faults {
        faulty = faulty.with_fault(*at, *fault);
    }
    let mut transaction = Transaction::begin(plan.clone());
    let outcome = drive(&mut transaction, &mut faulty, &mut world.journal).unwrap();
    let seen = faulty.seen();
    let kernel = faulty.into_inner();
    (World { kernel, ..world }, outcome, seen)
}

/// What holds however a request ended.
fn check(mut world: World, context: &dyn Debug) {
    let (held, wanted) = (world.held(), world.wanted());
    let extra: Footprint = held.difference(&wanted).cloned().collect();
    assert!(
        extra.is_empty(),
        "{extra:#?} belong to nobody after {context:?}"
    );
    let state = world.state().clone();
    assert_eq!(world.journal.reopened().state, state, "{context:?}");
    assert_eq!(State::restore(state.snapshot()), Ok(state), "{context:?}");
    settle(&mut world, context);
}

/// What holds of a plan that ended so.
fn check_outcome(before: &World, mut world: World, outcome: &Outcome, context: &dyn Debug) {
    match outcome {
        Outcome::RolledBack(_) => {
            assert_eq!(world.held(), before.held(), "{context:?}");
            let forwarding = before.clone().forwarding();
            assert_eq!(world.forwarding(), forwarding, "{context:?}");
        }
        Outcome::Committed | Outcome::Stranded { .. } => {}
    }
    check(world, context);
}

/// Sweeps and repairs, no more faults in the way: once is enough.
fn settle(world: &mut World, context: &dyn Debug) {
    let mut clean = world.state().snapshot();
    clean.debris.clear();
    let live = State::restore(clean).unwrap().footprint();
    let alive: Footprint = world.held().intersection(&live).cloned().collect();
    if let Some(plan) = world.state().sweep() {
        let ops = plan.ops.clone();
        assert_eq!(
            world.carry_out(plan),
            Outcome::Committed,
            "sweep after {context:?}"
        );
        assert_eq!(*world.state().debris(), Footprint::new(), "{context:?}");
        let held = world.held();
        let swept: Vec<_> = alive.difference(&held).collect();
        assert!(
            swept.is_empty(),
            "{ops:#?} swept {swept:#?}, in use, after {context:?}"
        );
    }
    let plan = world.repair();
    assert_eq!(
        world.carry_out(plan),
        Outcome::Committed,
        "repair after {context:?}"
    );
    world.assert_agrees(context);
    assert_eq!(world.repair().ops, [], "second repair after {context:?}");
}

#[test]
fn every_fault_at_every_op() {
    let mut hits = 0;
    for (before, request, plan) in cases() {
        for fault in FAULTS {
            for ops_at_once_max in [1, 3, usize::MAX] {
                for at in 0.. {
                    let (world, outcome, seen) =
                        run(&before, &plan, &[(at, fault)], ops_at_once_max);
                    if seen <= at {
                        break;
                    }
                    let context = (&request, fault, at, ops_at_once_max, &outcome);
                    let undo = plan.on_failure == OnFailure::Undo;
                    if undo {
                        let rolled_back = matches!(outcome, Outcome::RolledBack(_));
                        assert!(rolled_back, "one fault can be undone: {context:?}");
                    }
                    check_outcome(&before, world, &outcome, &context);
                    hits += 1;
                }
            }
        }
    }
    assert!(hits > 500, "{hits}");
}

#[test]
fn every_pair_of_faults() {
    let mut hits = 0;
    for (before, request, plan) in cases() {
        for (first, second) in FAULTS.iter().flat_map(|a| FAULTS.map(|b| (*a, b))) {
            for at in 0.. {
                let alone = run(&before, &plan, &[(at, first)], usize::MAX);
                if alone.2 <= at {
                    break;
                }
                for then in at + 1..alone.2 {
                    let faults = [(at, first), (then, second)];
                    let (world, outcome, _) = run(&before, &plan, &faults, usize::MAX);
                    check_outcome(&before, world, &outcome, &(&request, faults, &outcome));
                    hits += 1;
                }
            }
        }
    }
    assert!(hits > 1000, "{hits}");
}

/// The next requests meet what the failed one left, before anybody swept.
#[test]
fn the_next_request_after_a_fault() {
    for (before, request, plan) in cases() {
        for fault in [Fault::Refused(ErrorKind::Busy), Fault::LostAfter] {
            for at in 0.. {
                let (mut world, outcome, seen) = run(&before, &plan, &[(at, fault)], usize::MAX);
                if seen <= at {
                    break;
                }
                for next in story().into_iter().chain(story()) {
                    if world.run(&next).is_ok() {
                        check(world.clone(), &(&request, fault, at, &outcome, &next));
                    }
                }
            }
        }
    }
}

/// Somebody else sits on a name or key that the plan wants: the plan is taken back, and they
/// keep what they have.
#[test]
fn a_squatter_on_every_name_is_left_alone() {
    let mut squatters = 0;
    for (before, request, plan) in cases() {
        for (index, op) in plan.ops.iter().enumerate() {
            let Op::Add(object) = op else { continue };
            let exclusive = matches!(
                object,
                Object::Ruleset(_)
                    | Object::Zone(_)
                    | Object::Masquerade(_)
                    | Object::Dnat(_)
                    | Object::Pinhole(_)
                    | Object::Guard(_)
                    | Object::Bridge(_)
                    | Object::Veth(_)
                    | Object::Move(_)
                    | Object::Address(_)
                    | Object::Route(_)
            );
            // What is foreign stands on something foreign, unless it stands on ours.
            if !exclusive {
                continue;
            }
            let mut world = before.clone();
            world.kernel = world.kernel.with_foreign(object.clone());
            let mut transaction = Transaction::begin(plan.clone());
            let outcome = drive(&mut transaction, &mut world.kernel, &mut world.journal).unwrap();
            let context = (&request, object, &outcome);
            assert!(world.kernel.foreign().contains(object), "{context:?}");
            match (plan.on_failure, &outcome) {
                (OnFailure::Undo, Outcome::RolledBack(failure)) => {
                    assert_eq!(failure.op.as_ref(), plan.ops.get(index), "{context:?}");
                    assert_eq!(failure.error.kind, ErrorKind::Exists, "{context:?}");
                    assert_eq!(world.held(), before.held(), "{context:?}");
                }
                (OnFailure::Continue, Outcome::Stranded { left, .. }) => {
                    assert_eq!(*left, [], "{context:?}");
                }
                _ => panic!("{context:?}"),
            }
            squatters += 1;
        }
    }
    assert!(squatters > 20, "{squatters}");
}

/// A squatter that has a mark of its own, or none, also survives answers that got lost and a
/// resume that can't know what landed.
#[test]
fn a_squatter_survives_doubt() {
    for (before, _, plan) in cases() {
        for object in plan.ops.iter().map(Op::object) {
            let marked = matches!(
                object,
                Object::Ruleset(_)
                    | Object::Bridge(_)
                    | Object::Veth(_)
                    | Object::Move(_)
                    | Object::Route(_)
            );
            if !marked || before.kernel.objects().contains(object) {
                continue;
            }
            for at in 0..plan.ops.len() {
                let mut squatted = before.clone();
                squatted.kernel = squatted.kernel.with_foreign(object.clone());
                for fault in [Fault::LostBefore, Fault::LostAfter] {
                    let (mut world, outcome, _) = run(&squatted, &plan, &[(at, fault)], 1);
                    assert!(world.kernel.foreign().contains(object), "{outcome:?}");
                    if let Some(plan) = world.state().sweep() {
                        world.carry_out(plan);
                    }
                    assert!(world.kernel.foreign().contains(object), "{outcome:?}");
                    if plan.on_failure == OnFailure::Undo {
                        assert_eq!(world.held(), before.held(), "{outcome:?}");
                    }
                }
                let mut world = squatted.clone();
                let mut resumed = Transaction::resume(&plan.clone().into());
                world
                    .journal
                    .state
                    .absorb(&mydocker_core::Entry::Begin(plan.clone().into()))
                    .unwrap();
                drive(&mut resumed, &mut world.kernel, &mut world.journal).unwrap();
                assert!(world.kernel.foreign().contains(object), "{object:?}");
            }
        }
    }
}
