//! `make bench`: what deciding costs, without a kernel. Leases at any fill, and whole plans beside few
//! endpoints and many.
#![expect(clippy::unwrap_used, reason = "what fails here is the benchmark")]

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use mydocker_core::{Entry, Facts, Instance, Outcome, Pool, Request, State, Subnet};
use mydocker_tests::{attach, create, detach, word};

fn main() {
    divan::main();
}

/// How full a pool is.
#[derive(Clone, Copy, Debug)]
enum Fill {
    Empty,
    /// Every other address, so that no search is helped by runs.
    Half,
    /// All but ten, far from each other.
    AllButTen,
}

fn pool(net: &str, fill: Fill) -> Pool {
    let mut pool = Pool::new(&Subnet::new(word(net)).unwrap());
    match fill {
        Fill::Empty => {}
        Fill::Half => {
            for offset in (1..1 << 23).map(|n| 2 * n) {
                let address = std::net::Ipv4Addr::from_bits((10 << 24) + offset);
                pool.lease(address.into()).unwrap();
            }
        }
        Fill::AllButTen => {
            while let Some(address) = pool.next_free() {
                pool.lease(address).unwrap();
            }
            for n in 0..10 {
                let address = std::net::Ipv4Addr::from_bits((10 << 24) + 77 + n * 1_600_000);
                pool.release(address.into());
            }
        }
    }
    pool
}

/// One lease and its end.
fn pairs(bencher: Bencher, mut pool: Pool) {
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        let address = pool.next_free().unwrap();
        pool.lease(address).unwrap();
        pool.release(black_box(address));
    });
}

#[divan::bench(args = [Fill::Empty, Fill::Half, Fill::AllButTen])]
fn lease_and_release_of_8(bencher: Bencher, fill: Fill) {
    pairs(bencher, pool("10.0.0.0/8", fill));
}

#[divan::bench]
fn lease_and_release_of_64(bencher: Bencher) {
    pairs(bencher, pool("fd00::/64", Fill::Empty));
}

/// Endpoints, and networks that they are spread over; each publishes a port. A network takes 1023.
const SIZES: [(usize, usize); 5] = [(10, 1), (1_000, 1), (10, 100), (1_000, 100), (10_000, 100)];

fn state((endpoints, networks): (usize, usize)) -> State {
    let mut state = State::new(Instance::DEFAULT);
    for n in 0..networks {
        let subnet = format!("10.{n}.0.0/16");
        carry_out(
            &mut state,
            &Request::CreateNetwork(create(&format!("n{n}"), &[&subnet])),
        );
    }
    for n in 0..endpoints {
        let (network, port) = (format!("n{}", n % networks), format!("{}:80", 10_000 + n));
        carry_out(
            &mut state,
            &Request::Attach(attach(&network, &format!("c{n}"), &[&port])),
        );
    }
    state
}

fn carry_out(state: &mut State, request: &Request) {
    let plan = state.plan(&Facts::default(), request).unwrap();
    state.absorb(&Entry::Begin(plan.into())).unwrap();
    state.absorb(&Entry::End(Outcome::Committed)).unwrap();
}

/// Planning a request, the plan's end included.
fn plans(bencher: Bencher, state: &State, request: &Request) {
    let facts = Facts::default();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        drop(black_box(state.plan(&facts, black_box(request)).unwrap()));
    });
}

#[divan::bench(args = SIZES)]
fn plan_attach(bencher: Bencher, size: (usize, usize)) {
    let request = Request::Attach(attach("n0", "new", &["8080:80"]));
    plans(bencher, &state(size), &request);
}

#[divan::bench(args = SIZES)]
fn plan_detach(bencher: Bencher, size: (usize, usize)) {
    plans(bencher, &state(size), &detach("n0", "c0"));
}
