//! A process that dies between any two steps, at its work or while it clears up after another
//! that died, leaves a kernel and a state that agree.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::collections::BTreeSet;
use std::fmt::Debug;

use mydocker_core::{Change, Footprint, OnFailure, Outcome, Plan, Request, Transaction, drive};
use mydocker_exec_dryrun::{Crashed, Fault, Faulty, until_crash};
use mydocker_tests::{Torn, World, netns, story};

/// Where a process dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// Before the op of that number.
    Op(usize),
    /// While recording the entry of that number.
    Record(usize, Torn),
}

/// Every place where a plan of so many ops, or its undo, could die; some are never reached.
fn deaths(ops: usize) -> Vec<Death> {
    let at_ops = (0..=2 * ops).map(Death::Op);
    let at_records =
        (0..2).flat_map(|at| [Torn::Lost, Torn::Kept].map(|torn| Death::Record(at, torn)));
    at_ops.chain(at_records).collect()
}

/// Runs one process until its end or `death`; `None` when it lived.
fn live(world: &mut World, mut transaction: Transaction, death: Option<Death>) -> Option<Crashed> {
    world.journal.crash = match death {
        Some(Death::Record(at, torn)) => Some((at, torn)),
        Some(Death::Op(_)) | None => None,
    };
    let mut faulty = Faulty::new(std::mem::take(&mut world.kernel));
    if let Some(Death::Op(at)) = death {
        faulty = faulty.with_fault(at, Fault::Crash);
    }
    let journal = &mut world.journal;
    let end = until_crash(|| drive(&mut transaction, &mut faulty, journal));
    world.kernel = faulty.into_inner();
    // What the next process knows is what was written down.
    world.journal = world.journal.reopened();
    end.flatten().err()
}

/// A new process: picks up what is pending, if anything is.
fn resume(world: &mut World, death: Option<Death>) -> Option<Crashed> {
    let plan = world.state().pending()?.clone();
    live(world, Transaction::resume(&plan), death)
}

fn cases() -> Vec<(World, Request, Plan)> {
    let story = story();
    let case = |at: usize| {
        let mut world = World::beside_firewalls().after(&story[..at]);
        let plan = world.plan(&story[at]).unwrap();
        (world, story[at].clone(), plan)
    };
    (0..story.len()).map(case).collect()
}

/// What holds once a process has come through: all or nothing, and nobody's nothing.
fn check(before: &World, plan: &Plan, world: &mut World, context: &dyn Debug) {
    assert_eq!(world.state().pending(), None, "{context:?}");
    assert_eq!(*world.state().debris(), Footprint::new(), "{context:?}");
    world.assert_agrees(context);
    let mut done = before.clone();
    done.carry_out(plan.clone());
    let settled = [before.state(), done.state()];
    assert!(
        settled.contains(&world.state()),
        "neither before nor after: {context:?}"
    );
    assert_eq!(world.repair().ops, [], "{context:?}");
}

#[test]
fn a_crash_at_every_step() {
    let mut crashes = 0;
    for (before, request, plan) in cases() {
        for death in deaths(plan.ops.len()) {
            let mut world = before.clone();
            let context = (&request, death);
            if live(&mut world, Transaction::begin(plan.clone()), Some(death)).is_none() {
                continue;
            }
            crashes += 1;
            resume(&mut world, None);
            check(&before, &plan, &mut world, &context);
        }
    }
    assert!(crashes > 100, "{crashes}");
}

#[test]
fn a_crash_at_every_step_of_the_resume_twice() {
    let mut crashes = 0;
    for (before, request, plan) in cases() {
        for first in deaths(plan.ops.len()) {
            let mut died = before.clone();
            live(&mut died, Transaction::begin(plan.clone()), Some(first));
            for second in deaths(plan.ops.len()) {
                let mut again = died.clone();
                if resume(&mut again, Some(second)).is_none() {
                    continue;
                }
                for third in deaths(plan.ops.len()) {
                    let mut world = again.clone();
                    if resume(&mut world, Some(third)).is_none() {
                        continue;
                    }
                    crashes += 1;
                    resume(&mut world, None);
                    check(
                        &before,
                        &plan,
                        &mut world,
                        &(&request, first, second, third),
                    );
                }
            }
        }
    }
    assert!(crashes > 1000, "{crashes}");
}

/// The container dies too, as it does when both are in one cgroup that is killed.
#[test]
fn a_crash_that_takes_the_container_along() {
    for (before, request, plan) in cases() {
        let sandboxes: BTreeSet<_> = ["web", "db"].map(netns).into();
        for death in deaths(plan.ops.len()) {
            for sandbox in &sandboxes {
                let mut world = before.clone();
                live(&mut world, Transaction::begin(plan.clone()), Some(death));
                world.kernel.kill_sandbox(sandbox);
                let context = (&request, death, sandbox);
                resume(&mut world, None);
                assert_eq!(world.state().pending(), None, "{context:?}");
                let (held, wanted) = (world.held(), world.wanted());
                let extra: Vec<_> = held.difference(&wanted).collect();
                assert!(extra.is_empty(), "{extra:#?} after {context:?}");
                // Whoever finds its container gone detaches it, and then all is well.
                let dead: Vec<_> = world
                    .state()
                    .endpoints()
                    .filter(|e| e.netns == *sandbox)
                    .map(|e| e.id.clone())
                    .collect();
                for id in dead {
                    let outcome = world.run(&Request::Detach(id));
                    assert_eq!(outcome, Ok(Outcome::Committed), "{context:?}");
                }
                world.assert_agrees(&context);
            }
        }
    }
}

/// Reading back what a dead process wrote, a second time, changes nothing.
#[test]
fn a_resume_that_was_not_needed_does_no_harm() {
    for (before, request, plan) in cases() {
        // Everything landed and was not recorded.
        let mut world = before.clone();
        let death = Death::Record(1, Torn::Lost);
        live(&mut world, Transaction::begin(plan.clone()), Some(death)).unwrap();
        resume(&mut world, None);
        let undone = plan.on_failure == OnFailure::Undo;
        let state = world.state();
        match &plan.change {
            Change::NetworkAdded(network) => {
                assert!(state.network(&network.name).is_none() && undone)
            }
            Change::EndpointAdded(endpoint) => {
                assert!(state.endpoint(&endpoint.id).is_none() && undone)
            }
            Change::NetworkRemoved(name) => assert!(state.network(name).is_none() && !undone),
            Change::EndpointRemoved(id) => assert!(state.endpoint(id).is_none() && !undone),
            Change::EndpointChanged(endpoint) => {
                assert_eq!(state.endpoint(&endpoint.id) == Some(endpoint), !undone);
            }
            Change::Several(_) | Change::Repaired => unreachable!("no single request does"),
        }
        world.assert_agrees(&request);
    }
}

/// A removal of which every op had landed is done when it is resumed: that its additions are
/// there already is no failure.
#[test]
fn a_resumed_removal_that_was_complete_is_committed() {
    for (before, request, plan) in cases() {
        if plan.on_failure == OnFailure::Undo {
            continue;
        }
        let mut world = before.clone();
        let death = Death::Record(1, Torn::Lost);
        live(&mut world, Transaction::begin(plan.clone()), Some(death)).unwrap();
        let pending = world.state().pending().unwrap().clone();
        let mut transaction = Transaction::resume(&pending);
        let outcome = drive(&mut transaction, &mut world.kernel, &mut world.journal);
        assert_eq!(outcome, Ok(Outcome::Committed), "{request:?}");
    }
}
