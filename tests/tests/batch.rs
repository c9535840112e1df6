//! Several requests as one: as one after the other would leave it, or as if none had been made.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

use mydocker_core::{
    Change, Damage, Entry, ErrorKind, Footprint, Instance, Ns, OnFailure, Op, Outcome, Plan,
    Rejection, Request, State, Transaction, drive,
};
use mydocker_exec_dryrun::{Fault, Faulty, until_crash};
use mydocker_tests::requests::script;
use mydocker_tests::{Torn, World, attach, create, detach, publish, remove, story, unpublish};
use proptest::prelude::*;

fn plan(world: &mut World, requests: &[Request]) -> Result<Plan, Rejection> {
    let before = world.state().clone();
    let planned = world.plan_batch(requests);
    assert_eq!(*world.state(), before, "planning leaves no trace");
    planned
}

/// The longest beginning of a script that can be carried out one after the other, the world after it,
/// and why it ends there.
fn one_by_one(world: &World, requests: &[Request]) -> (World, usize, Option<Rejection>) {
    let mut world = world.clone();
    for (count, request) in requests.iter().enumerate() {
        match world.run(request) {
            Ok(outcome) => assert_eq!(outcome, Outcome::Committed),
            Err(why) => return (world, count, Some(why)),
        }
    }
    (world, requests.len(), None)
}

/// What of a script can be carried out at all.
fn possible(world: &World, requests: Vec<Request>) -> Vec<Request> {
    let mut world = world.clone();
    let mut can = |request: &Request| world.run(request).is_ok();
    requests
        .into_iter()
        .filter(|request| can(request))
        .collect()
}

/// A script in which no network is made after another is removed: facts are of before both, and what is
/// left of one that goes stands in the way of one that comes.
fn orderly(mut requests: Vec<Request>) -> Vec<Request> {
    let mut removed = false;
    requests.retain(|request| {
        removed |= matches!(request, Request::RemoveNetwork(_));
        !removed || !matches!(request, Request::CreateNetwork(_))
    });
    requests
}

/// Carries a plan out on a kernel with a fault; the world afterwards, how it ended, and how many ops
/// were tried.
fn run(before: &World, plan: &Plan, at: usize, fault: Fault) -> (World, Outcome, usize) {
    let mut world = before.clone();
    let mut faulty = Faulty::new(world.kernel).with_fault(at, fault);
    let mut transaction = Transaction::begin(plan.clone());
    let outcome = drive(&mut transaction, &mut faulty, &mut world.journal).unwrap();
    let seen = faulty.seen();
    world.kernel = faulty.into_inner();
    (world, outcome, seen)
}

/// A world and a batch for it, of every mixture.
fn cases() -> Vec<(World, Vec<Request>)> {
    let story = story();
    let up = World::beside_firewalls().after(&story[..7]);
    let several = |world: &World, requests: &[Request]| (world.clone(), requests.to_vec());
    let attaches = |n: usize| {
        let attach = |i| Request::Attach(attach("front", &format!("c{i}"), &["80"]));
        Vec::from_iter((0..n).map(attach))
    };
    vec![
        // Networks and who is on them, up to the last of these and back.
        several(&World::beside_firewalls(), &story[..7]),
        several(&up, &story[7..]),
        several(&up, &attaches(4)),
        // Whoever leaves makes room for somebody else, under the same names and ports.
        several(
            &up,
            &[
                detach("front", "web"),
                Request::Attach(attach("front", "web", &["8081:80"])),
                publish("front", "db", &["8080:80"]),
            ],
        ),
        // The default route goes to another network and comes back, with other ports gone.
        several(
            &up,
            &[
                detach("front", "web"),
                unpublish("front", "db", &["5432"]),
                Request::Attach(attach("back", "db", &[])),
            ],
        ),
        several(
            &up,
            &[
                detach("back", "web"),
                remove("back"),
                Request::Attach(attach("front", "api", &["80"])),
            ],
        ),
        several(&up, &[detach("front", "web"), detach("back", "web")]),
    ]
}

/// That what is planned is what one after the other comes to, and that it is one change.
fn check(world: &World, requests: &[Request]) -> Plan {
    let (apart, count, why) = one_by_one(world, requests);
    assert_eq!((count, why), (requests.len(), None));
    let mut together = world.clone();
    let plan = plan(&mut together, requests).unwrap();
    let Change::Several(changes) = &plan.change else {
        panic!("{:?}", plan.change);
    };
    assert_eq!(changes.len(), requests.len());
    assert_eq!(together.carry_out(plan.clone()), Outcome::Committed);
    assert_eq!(together.state(), apart.state());
    assert_eq!(together.held(), apart.held());
    assert_eq!(together.forwarding(), apart.clone().forwarding());
    together.assert_agrees(&requests);
    assert_eq!(together.journal.reopened().state, *together.state());
    plan
}

#[test]
fn cases_are_what_one_after_the_other_comes_to() {
    for (world, requests) in cases() {
        check(&world, &requests);
    }
}

#[test]
fn one_fault_is_undone_wherever_it_is() {
    let faults = [
        Fault::Refused(ErrorKind::Denied),
        Fault::Refused(ErrorKind::Missing),
        Fault::LostBefore,
        Fault::LostAfter,
    ];
    let mut hits = 0;
    for (mut before, requests) in cases() {
        let plan = plan(&mut before, &requests).unwrap();
        for (fault, at) in faults.iter().flat_map(|f| (0..).map(move |at| (*f, at))) {
            if at >= plan.ops.len() {
                break;
            }
            let (mut world, outcome, _) = run(&before, &plan, at, fault);
            let context = (&requests, fault, at, &outcome);
            if plan.on_failure == OnFailure::Undo {
                assert!(matches!(outcome, Outcome::RolledBack(_)), "{context:?}");
                assert_eq!(world.held(), before.held(), "{context:?}");
                assert_eq!(world.forwarding(), before.forwarding(), "{context:?}");
                assert_eq!(world.state(), before.state(), "{context:?}");
            } else {
                let extra = world.held().difference(&world.wanted()).count();
                assert_eq!(extra, 0, "{context:?}");
            }
            hits += 1;
        }
    }
    assert!(hits > 100, "{hits}");
}

/// A process that dies, and the next one, which finds out.
#[test]
fn a_crash_at_every_step_leaves_all_or_nothing() {
    let mut crashes = 0;
    for (mut before, requests) in cases() {
        let plan = plan(&mut before, &requests).unwrap();
        let mut done = before.clone();
        done.carry_out(plan.clone());
        let at_records =
            (0..2).flat_map(|at| [Torn::Lost, Torn::Kept].map(|torn| (None, Some((at, torn)))));
        let at_ops = (0..=plan.ops.len()).map(|at| (Some(at), None));
        for (op, record) in at_ops.chain(at_records) {
            let mut world = before.clone();
            world.journal.crash = record;
            let mut faulty = Faulty::new(std::mem::take(&mut world.kernel));
            if let Some(at) = op {
                faulty = faulty.with_fault(at, Fault::Crash);
            }
            let mut transaction = Transaction::begin(plan.clone());
            let journal = &mut world.journal;
            let end = until_crash(|| drive(&mut transaction, &mut faulty, journal));
            if end.is_ok_and(|end| end.is_ok()) {
                continue;
            }
            crashes += 1;
            world.kernel = faulty.into_inner();
            world.journal = world.journal.reopened();
            if let Some(pending) = world.state().pending().cloned() {
                let mut resumed = Transaction::resume(&pending);
                drive(&mut resumed, &mut world.kernel, &mut world.journal).unwrap();
            }
            let context = (&requests, op, record);
            assert_eq!(*world.state().debris(), Footprint::new(), "{context:?}");
            let settled = [before.state(), done.state()];
            assert!(settled.contains(&world.state()), "{context:?}");
            world.assert_agrees(&context);
            assert_eq!(world.repair().ops, [], "{context:?}");
        }
    }
    assert!(crashes > 100, "{crashes}");
}

/// All firewall elements in one run, each cable right before its far end moves, then ports of the bridge,
/// and then each container once: an executor has few batches to make of them, and few visits.
#[test]
fn ops_come_as_they_are_best_carried_out() {
    let world = World::default().after(&[Request::CreateNetwork(create("n", &["10.0.0.0/16"]))]);
    let attach = |i| Request::Attach(attach("n", &format!("c{i}"), &["80"]));
    let requests: Vec<Request> = (0..50).map(attach).collect();
    let plan = check(&world, &requests);
    let mut visits: Vec<&Ns> = plan.ops.iter().map(|op| op.object().ns()).collect();
    visits.retain(|ns| **ns != Ns::Host);
    visits.dedup();
    // Far ends go to all of them first.
    assert_eq!(visits.len(), 2 * requests.len());
    let host = plan.ops.iter().map(Op::name);
    let mut kinds: Vec<&str> = host.take_while(|name| *name != "SetSysctl").collect();
    let (cables, others) = (["AddVeth", "MoveToNs"], kinds.clone());
    let cables_at = kinds.iter().position(|name| *name == cables[0]).unwrap();
    let made = kinds.drain(cables_at..cables_at + 2 * requests.len());
    assert!(
        made.collect::<Vec<_>>()
            .chunks(2)
            .all(|pair| pair == cables),
        "{others:?}"
    );
    kinds.dedup();
    assert_eq!(kinds, ["AddDnat", "AddGuard", "SetMaster", "SetHairpin"]);
    assert_eq!(plan.publishes().len(), 50);
}

/// What one request adds and a later one removes is no op.
#[test]
fn what_is_taken_back_is_not_done() {
    let mut world =
        World::default().after(&[Request::CreateNetwork(create("n", &["10.0.0.0/24"]))]);
    let there_and_back = [
        Request::Attach(attach("n", "web", &["80:80"])),
        detach("n", "web"),
    ];
    assert_eq!(plan(&mut world, &there_and_back).unwrap().ops, []);
    assert_eq!(plan(&mut world, &[]).unwrap().ops, []);
}

#[test]
fn a_rejection_says_which_and_leaves_no_trace() {
    let mut world =
        World::default().after(&[Request::CreateNetwork(create("n", &["10.0.0.0/24"]))]);
    let web = Request::Attach(attach("n", "web", &["80:80"]));
    let db = Request::Attach(attach("n", "db", &["80:81"]));
    let refused = plan(&mut world, &[web.clone(), db]).unwrap_err();
    let text = refused.to_string();
    assert!(text.starts_with("request 2 of the batch: "), "{text}");
    assert!(text.contains("container `web`"), "{text}");
    let many = vec![web; 4097];
    let refused = plan(&mut world, &many).unwrap_err();
    assert!(matches!(refused, Rejection::TooMany { .. }), "{refused}");
}

/// A journal whose batch can't be is damaged, and is not followed half-way.
#[test]
fn an_impossible_batch_is_damage() {
    let requests = [
        Request::CreateNetwork(create("n", &["10.0.0.0/24"])),
        Request::Attach(attach("n", "web", &["80:80"])),
        Request::Attach(attach("n", "db", &[])),
    ];
    let mut world = World::default();
    let possible = plan(&mut world, &requests).unwrap();
    let Change::Several(changes) = &possible.change else {
        panic!("{:?}", possible.change);
    };
    let again = Change::EndpointRemoved(attach("n", "db", &[]).id());
    for (wrong, damage) in [
        (changes[1].clone(), None),
        (Change::Repaired, Some(Damage::NotOfSeveral)),
        (possible.change.clone(), Some(Damage::NotOfSeveral)),
        (Change::Several(Vec::new()), Some(Damage::NotOfSeveral)),
    ] {
        let mut changes = changes.clone();
        changes.extend([again.clone(), wrong]);
        let change = Change::Several(changes);
        let mut state = State::new(Instance::DEFAULT);
        let begun = Plan {
            change,
            ..possible.clone()
        };
        state.absorb(&Entry::Begin(begun.into())).unwrap();
        let before = state.clone();
        let absorbed = state.absorb(&Entry::End(Outcome::Committed)).unwrap_err();
        assert!(damage.is_none_or(|damage| damage == absorbed), "{absorbed}");
        assert_eq!(state, before, "as it was");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// A batch is its requests one after the other, or is refused where they are.
    #[test]
    fn a_batch_is_its_requests_one_after_the_other(first in script(), then in script()) {
        let mut world = World::beside_firewalls();
        for request in &first {
            world.run(request).ok();
        }
        let then = orderly(then);
        let (_, count, why) = one_by_one(&world, &then);
        let refused = plan(&mut world, &then).err();
        let expected = why.map(|why| Rejection::InBatch { at: count, why: Box::new(why) });
        prop_assert_eq!(refused, expected);
        check(&world, &then[..count]);
        let possible = possible(&world, then);
        check(&world, &possible);
    }

    /// A batch that fails anywhere leaves no trace, in the kernel or in the state.
    #[test]
    fn undo_is_the_inverse(first in script(), then in script(), at in any::<prop::sample::Index>()) {
        let mut world = World::beside_firewalls();
        for request in &first {
            world.run(request).ok();
        }
        let batch = possible(&world, orderly(then));
        let plan = plan(&mut world, &batch).unwrap();
        if plan.on_failure == OnFailure::Continue || plan.ops.is_empty() {
            return Ok(());
        }
        let at = at.index(plan.ops.len());
        let (mut after, outcome, _) = run(&world, &plan, at, Fault::Refused(ErrorKind::Busy));
        prop_assert!(matches!(outcome, Outcome::RolledBack(_)), "{:?}", outcome);
        prop_assert_eq!(after.held(), world.held());
        prop_assert_eq!(after.forwarding(), world.forwarding());
        prop_assert_eq!(after.state(), world.state());
    }
}
