//! As part of an async program.

use mydocker_core::{
    Damage, Entry, Executor, Instance, Outcome, Recorder, Request, State, Transaction,
};
use mydocker_exec_netlink::{NetlinkExecutor, drive};
use tokio::runtime::Builder;

use crate::forward;
use crate::world::{assert_same, attach_spec, contents, endpoint, inside, network, on_a_host, run};

struct Book(State);

impl Recorder for Book {
    type Error = Damage;

    fn record(&mut self, entry: &Entry) -> Result<(), Damage> {
        self.0.absorb(entry)
    }
}

type Engine = (NetlinkExecutor, Book);

async fn commit((mut executor, book): Engine, request: Request) -> Engine {
    let facts = executor.facts().unwrap();
    let plan = book.0.plan(&facts, &request).unwrap();
    let driven = drive(Transaction::begin(plan), executor, book).await;
    assert_eq!(driven.outcome, Ok(Outcome::Committed));
    let (mut executor, book) = (driven.executor, driven.recorder);
    let observed = executor.observe(&book.0.footprint()).unwrap();
    assert_eq!(book.0.repair(&facts, &observed).ops, []);
    (executor, book)
}

#[test]
fn an_async_program_drives() {
    on_a_host(|world| {
        forward();
        let (container, elsewhere) = (world.sandbox("a"), world.sandbox("elsewhere"));
        let before = contents();
        let executor = NetlinkExecutor::open(Instance::DEFAULT).unwrap();
        let mut engine = (executor, Book(State::new(Instance::DEFAULT)));
        let create = Request::CreateNetwork(network("web", &["10.66.0.0/24"]));
        let mut spec = attach_spec("web", "a", &container);
        spec.ports.push("8080:80".parse().unwrap());
        let detach = Request::Detach(endpoint("web", "a"));
        let remove = Request::RemoveNetwork("web".parse().unwrap());
        for request in [create, Request::Attach(spec), detach, remove] {
            let attach = matches!(request, Request::Attach(_));
            // A thread inherits its namespace: those of this runtime have another than the host.
            engine = inside(&elsewhere, || {
                let runtime = Builder::new_current_thread().build().unwrap();
                runtime.block_on(commit(engine, request))
            });
            if attach {
                assert!(run("ip addr show web").contains("10.66.0.1/24"));
                assert!(run("nft list tables").contains("inet mydocker"));
            }
        }
        assert_same(&before, &contents());
    });
}
