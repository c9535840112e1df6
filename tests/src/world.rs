//! World: one mydocker and a model kernel, and short words for what is asked of it.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "matches pick one kind of object of many"
)]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::str::FromStr;

use mydocker_core::{
    AttachSpec, EndpointId, Entry, Executor, Facts, Family, Footprint, ForwardChain, Instance,
    LinkName, Netns, NetworkSpec, Object, Outcome, Plan, Recorder, Rejection, Request, State,
    TableFamily, Transaction, Up, drive,
};
use mydocker_exec_dryrun::{Crashed, Kernel};

/// A journal in memory and the state that it folds to.
#[derive(Clone, Debug)]
pub struct Journal {
    /// The fold of `entries`.
    pub state: State,
    /// What outlives a crash.
    pub entries: Vec<Entry>,
    /// The process dies while it records the entry of that number, counted from here on.
    pub crash: Option<(usize, Torn)>,
}

/// What a crash during a record leaves of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Torn {
    /// Nothing.
    Lost,
    /// All of it.
    Kept,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            state: State::new(Instance::DEFAULT),
            entries: Vec::new(),
            crash: None,
        }
    }
}

impl Journal {
    /// What a new process makes of what is left.
    #[must_use]
    pub fn reopened(&self) -> Self {
        let mut fresh = Self::default();
        for entry in &self.entries {
            fresh.record(entry).expect("no crash was asked for");
        }
        fresh
    }
}

impl Recorder for Journal {
    type Error = Crashed;

    fn record(&mut self, entry: &Entry) -> Result<(), Crashed> {
        let torn = match &mut self.crash {
            Some((0, torn)) => Some(*torn),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        if torn != Some(Torn::Lost) {
            self.state
                .absorb(entry)
                .expect("an entry that follows from those before");
            self.entries.push(entry.clone());
        }
        torn.map_or(Ok(()), |_| Err(Crashed))
    }
}

/// One mydocker and the kernel that it runs on.
#[derive(Clone, Debug)]
pub struct World {
    /// What it remembers.
    pub journal: Journal,
    /// What it acts on.
    pub kernel: Kernel,
}

impl Default for World {
    fn default() -> Self {
        Self::on(Kernel::new().any_namespace())
    }
}

impl World {
    /// A mydocker that has not done anything yet on that kernel.
    #[must_use]
    pub fn on(kernel: Kernel) -> Self {
        let journal = Journal::default();
        Self { journal, kernel }
    }

    /// A mydocker on a host with firewalls of others: some that drop what is forwarded, for either
    /// family and for both, one that does not, and those that no rule of ours can help.
    #[must_use]
    pub fn beside_firewalls() -> Self {
        let chain = |family, table: &str, drops| ForwardChain {
            family,
            table: table.to_owned(),
            chain: "FORWARD".to_owned(),
            priority: 0,
            drops,
            owned: false,
        };
        let early = ForwardChain {
            priority: -150,
            ..chain(TableFamily::Inet, "early", true)
        };
        let owned = ForwardChain {
            owned: true,
            ..chain(TableFamily::Inet, "owned", true)
        };
        let facts = Facts {
            forward_chains: vec![
                chain(TableFamily::Ip, "filter", true),
                chain(TableFamily::Ip6, "filter", true),
                chain(TableFamily::Inet, "firewalld", true),
                chain(TableFamily::Inet, "counting", false),
                chain(TableFamily::Inet, "not a name", true),
                early,
                owned,
            ],
            legacy_drops: [Family::V4].into(),
            ..Facts::default()
        };
        Self::on(Kernel::new().any_namespace().with_facts(facts))
    }

    /// The same after `requests`, all of which must succeed.
    ///
    /// # Panics
    /// One does not.
    #[must_use]
    pub fn after(mut self, requests: &[Request]) -> Self {
        for request in requests {
            let outcome = self.run(request);
            assert_eq!(outcome, Ok(Outcome::Committed), "{request:?}");
        }
        self
    }

    /// What it wants.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.journal.state
    }

    /// What an engine finds out for a request: nothing that it does not need.
    pub fn facts(&mut self, request: &Request) -> Facts {
        if self.state().needs_facts(request) {
            return self.kernel.facts().expect("a model has facts");
        }
        let mut facts = Facts::default();
        if let Request::Detach(id) = request
            && let Some(netns) = self.state().endpoint(id).map(|e| e.netns.clone())
            && !self.kernel.is_alive(&netns)
        {
            facts.gone.insert(netns);
        }
        facts
    }

    /// Plans a request.
    ///
    /// # Errors
    /// The request's rejection.
    pub fn plan(&mut self, request: &Request) -> Result<Plan, Rejection> {
        let facts = self.facts(request);
        let Self { journal, kernel } = self;
        journal.state.plan_around(facts, request, |wanted| {
            Ok(kernel.listeners(wanted).expect("a model can be asked"))
        })
    }

    /// Plans several requests at once.
    ///
    /// # Errors
    /// The rejection of one of them.
    pub fn plan_batch(&mut self, requests: &[Request]) -> Result<Plan, Rejection> {
        let mut facts = Facts::default();
        for request in requests {
            let found = self.facts(request);
            facts.gone.extend(found.gone);
            if self.state().needs_facts(request) {
                let gone = facts.gone;
                facts = Facts {
                    gone,
                    ..self.kernel.facts().expect("a model has facts")
                };
            }
        }
        let Self { journal, kernel } = self;
        let state = &mut journal.state;
        state.plan_batch_around(facts, requests, |wanted| {
            Ok(kernel.listeners(wanted).expect("a model can be asked"))
        })
    }

    /// Plans a request and carries it out.
    ///
    /// # Errors
    /// The request's rejection.
    pub fn run(&mut self, request: &Request) -> Result<Outcome, Rejection> {
        let plan = self.plan(request)?;
        Ok(self.carry_out(plan))
    }

    /// Carries out a plan.
    pub fn carry_out(&mut self, plan: Plan) -> Outcome {
        let mut transaction = Transaction::begin(plan);
        drive(&mut transaction, &mut self.kernel, &mut self.journal)
            .expect("no crash was asked for")
    }

    /// What would bring the kernel back to what is wanted.
    pub fn repair(&mut self) -> Plan {
        let facts = self.kernel.facts().expect("a model has facts");
        let wanted = self.state().footprint();
        let observed = self
            .kernel
            .observe(&wanted)
            .expect("a model can be looked at");
        self.state().repair(&facts, &observed)
    }

    /// What the kernel holds of what must come and go with requests: all but loopbacks, which
    /// once up stay up.
    #[must_use]
    pub fn held(&self) -> Footprint {
        without_loopbacks(self.kernel.objects())
    }

    /// What state wants the kernel to hold, in the same terms.
    #[must_use]
    pub fn wanted(&self) -> Footprint {
        without_loopbacks(&self.state().footprint())
    }

    /// The families that the host forwards.
    pub fn forwarding(&mut self) -> BTreeSet<Family> {
        self.kernel.facts().expect("a model has facts").forwarding
    }

    /// That the kernel holds what state says, no more and no less.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn assert_agrees(&self, context: &dyn Debug) {
        let (held, wanted) = (self.held(), self.wanted());
        let extra: Vec<_> = held.difference(&wanted).collect();
        let missing: Vec<_> = wanted.difference(&held).collect();
        assert!(
            extra.is_empty() && missing.is_empty(),
            "extra {extra:#?}, missing {missing:#?}, after {context:?}"
        );
        let up = |object: &&Object| matches!(object, Object::Up(_));
        for object in self.state().footprint().iter().filter(up) {
            assert!(
                self.kernel.objects().contains(object),
                "{object:?} after {context:?}"
            );
        }
    }
}

fn without_loopbacks(all: &Footprint) -> Footprint {
    let counts = |object: &&Object| match object {
        Object::Up(Up { link }) => link.name != LinkName::LOOPBACK,
        Object::Forwarding(_) => false,
        _ => true,
    };
    all.iter().filter(counts).cloned().collect()
}

/// Whatever a word stands for.
///
/// # Panics
/// It stands for nothing of the kind.
#[must_use]
pub fn word<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect(text)
}

/// A namespace of `ip netns`.
#[must_use]
pub fn netns(name: &str) -> Netns {
    word(&format!("/run/netns/{name}"))
}

/// A request for a network with these subnets.
#[must_use]
pub fn create(name: &str, subnets: &[&str]) -> NetworkSpec {
    NetworkSpec {
        subnets: subnets.iter().map(|subnet| word(subnet)).collect(),
        ..NetworkSpec::new(word(name))
    }
}

/// A request for a network's end.
#[must_use]
pub fn remove(name: &str) -> Request {
    Request::RemoveNetwork(word(name))
}

/// A request for an endpoint that publishes these ports.
#[must_use]
pub fn attach(network: &str, container: &str, ports: &[&str]) -> AttachSpec {
    AttachSpec {
        ports: ports.iter().map(|port| word(port)).collect(),
        ..AttachSpec::new(word(network), word(container), netns(container))
    }
}

/// A request for an endpoint's end.
#[must_use]
pub fn detach(network: &str, container: &str) -> Request {
    Request::Detach(EndpointId {
        network: word(network),
        container: word(container),
    })
}

/// A request for more ports of an endpoint.
#[must_use]
pub fn publish(network: &str, container: &str, ports: &[&str]) -> Request {
    let spec = attach(network, container, ports);
    let id = spec.id();
    Request::Publish {
        id,
        ports: spec.ports,
    }
}

/// A request for fewer ports of an endpoint.
#[must_use]
pub fn unpublish(network: &str, container: &str, ports: &[&str]) -> Request {
    let spec = attach(network, container, ports);
    let id = spec.id();
    Request::Unpublish {
        id,
        ports: spec.ports,
    }
}

/// Requests of every kind, in an order in which all succeed: dual stack, published ports
/// that come and go, isolation, a second network and the default route's handover.
#[must_use]
pub fn story() -> Vec<Request> {
    let back = NetworkSpec {
        icc: false,
        isolate: false,
        ..create("back", &["10.89.0.0/24"])
    };
    vec![
        Request::CreateNetwork(create("front", &["10.88.0.1/24", "fd00:88::/64"])),
        Request::CreateNetwork(back),
        Request::Attach(attach(
            "front",
            "web",
            &["8080:80", "127.0.0.1:5353:53/udp"],
        )),
        Request::Attach(attach("front", "db", &[])),
        Request::Attach(attach("back", "web", &[])),
        publish("front", "web", &["8081:81", "82"]),
        publish("front", "db", &["5432:5432", "127.0.0.1::5432"]),
        unpublish("front", "web", &["8080:80", "82"]),
        unpublish("front", "db", &["5432"]),
        detach("front", "web"),
        detach("front", "db"),
        detach("back", "web"),
        remove("back"),
        remove("front"),
    ]
}
