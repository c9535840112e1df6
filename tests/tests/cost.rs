//! What a plan costs, counted and not timed: allocations do not depend on how busy the machine is.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]
#![expect(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use mydocker_core::{Entry, Facts, Instance, Outcome, Request, State};
use mydocker_tests::{attach, create, detach, publish, unpublish};

thread_local! {
    /// Allocations of this thread: the test harness has others.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, and how often it is asked.
struct Counting;

// SAFETY: all of it is the system's allocator; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn carry_out(state: &mut State, request: &Request) {
    let plan = state.plan(&Facts::default(), request).unwrap();
    state.absorb(&Entry::Begin(plan.into())).unwrap();
    state.absorb(&Entry::End(Outcome::Committed)).unwrap();
}

/// So many endpoints, each with a port of its own, spread over so many networks.
fn state(endpoints: usize, networks: usize) -> State {
    let mut state = State::new(Instance::DEFAULT);
    for n in 0..networks {
        let network = create(&format!("n{n}"), &[&format!("10.{n}.0.0/16")]);
        carry_out(&mut state, &Request::CreateNetwork(network));
    }
    for n in 0..endpoints {
        let (network, port) = (format!("n{}", n % networks), format!("{}:80", 10_000 + n));
        let spec = attach(&network, &format!("c{n}"), &[&port]);
        carry_out(&mut state, &Request::Attach(spec));
    }
    state
}

/// How often planning a request allocates, the plan included.
fn allocations(state: &State, request: &Request) -> usize {
    let facts = Facts::default();
    let before = ALLOCATIONS.get();
    let plan = state.plan(&facts, request);
    let after = ALLOCATIONS.get();
    plan.unwrap();
    after - before
}

/// What a request touches is what it names.
#[test]
fn a_plan_allocates_as_often_beside_many_as_beside_few() {
    let (few, many) = (state(10, 1), state(10_000, 100));
    for request in [
        Request::Attach(attach("n0", "new", &["8080:80"])),
        Request::Attach(attach("n0", "new", &["80", "127.0.0.1::53/udp"])),
        detach("n0", "c0"),
        publish("n0", "c0", &["8080:80"]),
        unpublish("n0", "c0", &["80"]),
    ] {
        let counts = [&few, &many].map(|state| allocations(state, &request));
        assert_eq!(counts[0], counts[1], "{request:?}");
        assert!(counts[0] < 200, "{counts:?} for {request:?}");
    }
}
