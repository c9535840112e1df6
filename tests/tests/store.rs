//! A request on disk reads only what it names, and ends as if it had read everything.
#![allow(clippy::unwrap_used, reason = "what helps a test is a test")]

use mydocker::engine::{Engine, EngineError};
use mydocker::store::Roots;
use mydocker_core::{Entry, Facts, Instance, Outcome, Rejection, Request, State};
use mydocker_tests::requests::script;
use mydocker_tests::{Idle, attach, create, detach, netns};
use proptest::prelude::*;

/// A store of its own, and a state in memory that all the same was asked of.
struct Pair {
    dir: tempfile::TempDir,
    state: State,
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(Self::roots(&dir).instance().unwrap());
        assert_ne!(state.instance(), Instance::DEFAULT);
        Self { dir, state }
    }

    fn roots(dir: &tempfile::TempDir) -> Roots {
        let (root, run_root) = (dir.path().join("lib"), dir.path().join("run"));
        Roots { root, run_root }
    }

    fn engine(&self) -> Engine<Idle> {
        Engine::open(Self::roots(&self.dir), Idle)
    }

    /// Asks both, who have to agree.
    fn apply(&mut self, request: &Request) -> Result<(), Rejection> {
        let told = self.engine().apply(request);
        let planned = self.state.plan(&Facts::default(), request);
        let plan = match (told, planned) {
            (Ok(done), Ok(plan)) => {
                assert_eq!(done.plan, plan);
                plan
            }
            (Err(EngineError::Rejected(told)), Err(rejection)) => {
                assert_eq!(told, rejection);
                return Err(rejection);
            }
            (told, planned) => panic!("{request:?}: {told:?}, and from memory {planned:?}"),
        };
        for entry in [Entry::Begin(plan.into()), Entry::End(Outcome::Committed)] {
            self.state.absorb(&entry).unwrap();
        }
        Ok(())
    }

    fn agree(&self) {
        assert_eq!(self.engine().view().unwrap().state, self.state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_part_of_the_state_is_enough(requests in script()) {
        let mut pair = Pair::new();
        for (place, mut request) in requests.into_iter().enumerate() {
            // Now and then a namespace that is another container's.
            if let (Request::Attach(spec), 0) = (&mut request, place % 7) {
                spec.netns = netns("c0");
            }
            pair.apply(&request).ok();
            pair.agree();
        }
    }
}

/// Whoever looks for a free address among many that are taken ends.
#[test]
fn the_last_address_is_found() {
    let mut pair = Pair::new();
    let network = create("n", &["10.0.0.0/24"]);
    pair.apply(&Request::CreateNetwork(network)).unwrap();
    let attach = |n: usize| Request::Attach(attach("n", &format!("c{n}"), &[]));
    let detach = |n: usize| detach("n", &format!("c{n}"));
    for n in 0..253 {
        pair.apply(&attach(n)).unwrap();
    }
    assert!(matches!(
        pair.apply(&attach(253)),
        Err(Rejection::Exhausted { .. })
    ));
    // The search goes on behind the last one, and is far from this one wherever it is.
    for n in [7, 130] {
        pair.apply(&detach(n)).unwrap();
        pair.apply(&attach(n)).unwrap();
    }
    pair.agree();
}
