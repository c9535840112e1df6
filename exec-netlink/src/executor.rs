//! Carries out ops on the running kernel.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;

use mydocker_core::{
    Address, ErrorKind, Executor, Facts, Footprint, Instance, LinkName, Listener, Master, Netns,
    Ns, Object, Op, OpError, OpResult, PortBinding, Protocol, State,
};

use crate::errand::{Runner, Threads};
use crate::firewall::{self, Firewall};
use crate::home::{self, Home};
use crate::removal::Errands;
use crate::rtnl::RouteSocket;
use crate::solicited::Joining;
use crate::space::{Links, Space, deleted};
use crate::{carrier, census, conntrack, errno, facts, listeners, netns, observe, sysctl};

/// Carries out ops on the running kernel, over netlink and `/proc/sys`; no process is started.
///
/// [`Ns::Host`] is the network namespace of the thread that opened it, whichever thread uses it.
///
/// Ops that follow one another in one namespace share datagrams, see the table. Results are those
/// of a prefix of what was offered, up to the first op that failed, and on to the end of its
/// datagram, of which the kernel carries out the rest: what landed there is reported as landed, and
/// a [`Transaction`](mydocker_core::Transaction) undoes it with the rest.
///
/// | ops | datagrams |
/// |---|---|
/// | ruleset, zones, masquerading, published ports, passages | one nf_tables batch, all or nothing; then the connections that it leaves behind are looked for and ended |
/// | a cable with its far end in the container, and all look-ups for what follows | one |
/// | its bridge, hairpin mode, isolation | one |
/// | the container's settings, addresses, links up, routes | one visit, one datagram |
/// | a look at the carriers of the cable and its bridge, which is not put off then, and at the groups of its IPv6 addresses | none |
#[derive(Debug)]
pub struct NetlinkExecutor {
    instance: Instance,
    home: Home,
    socket: RouteSocket,
    firewall: Firewall,
    // Errands end when this is closed, and the firewall's socket first.
    errands: Errands,
    links: Links,
    /// What was plugged in, and has a carrier that the kernel was not asked to see yet.
    unseen: Vec<Master>,
    /// What containers that were visited last are about to listen to.
    joining: Vec<Joining>,
}

/// So many of them are waited for: those before them had the time that the others took.
const JOINING_MAX: usize = 16;

/// Who carries out an op.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place<'a> {
    Firewall,
    In(&'a Ns),
}

impl<'a> Place<'a> {
    fn of(op: &'a Op) -> Self {
        match op {
            Op::Add(object) | Op::Del(object) if object.firewall().is_some() => Self::Firewall,
            // A link is sent from where it is.
            Op::Add(Object::Move(_)) => Self::In(&Ns::Host),
            Op::Add(object) | Op::Del(object) => Self::In(object.ns()),
        }
    }
}

/// The ops that did what they say.
fn landed<'o>(ops: &'o [Op], results: &[OpResult]) -> impl Iterator<Item = &'o Op> + Clone {
    let tried = ops.iter().zip(results);
    tried.filter(|(_, result)| result.is_ok()).map(|(op, _)| op)
}

impl NetlinkExecutor {
    /// Opens sockets in the calling thread's network namespace, which is the host's from then on.
    ///
    /// # Errors
    /// The kernel has no rtnetlink for us, or `/proc` is not mounted.
    pub fn open(instance: Instance) -> Result<Self, OpError> {
        let home = Home::open().map_err(|error| errno::of_io("network namespace", &error))?;
        let socket = RouteSocket::open().map_err(|error| errno::of_io("rtnetlink", &error))?;
        Ok(Self {
            instance,
            home,
            socket,
            firewall: Firewall::default(),
            errands: Errands::new(Box::new(Threads)),
            links: Links::new(),
            unseen: Vec::new(),
            joining: Vec::new(),
        })
    }

    /// Has somebody else wait for what the kernel takes long to finish: by default it is threads.
    #[must_use]
    pub fn with_runner(mut self, runner: Box<dyn Runner>) -> Self {
        self.errands = Errands::new(runner);
        self
    }

    /// One batch, and then the end of the connections that what landed of it leaves behind.
    fn apply_to_firewall(&mut self, ops: &[Op]) -> Vec<OpResult> {
        if let Err(error) = self.firewall.open(&self.home) {
            return vec![Err(error)];
        }
        let mut results = firewall::apply(&mut self.firewall, ops);
        let flushed = self.firewall.conntrack();
        let flushed = flushed.and_then(|mut socket| {
            conntrack::flush(&mut socket, &mut self.socket, landed(ops, &results))
        });
        if let Err(error) = flushed {
            half_done(ops, &mut results, &error);
        }
        results
    }

    /// Waits until the links that `ops` remove are gone, and corrects the results of those that are not.
    ///
    /// # Errors
    /// The first such result.
    fn end_removals(&mut self, ops: &[Op], results: &mut [OpResult]) -> OpResult {
        let mut ended = Ok(());
        for (links, error) in self.errands.end_removals() {
            let tried = ops.iter().zip(results.iter_mut());
            for (_, result) in
                tried.filter(|(op, _)| deleted(op).is_some_and(|l| links.contains(&l)))
            {
                *result = Err(error.clone());
            }
            ended = ended.and(Err(error));
        }
        ended
    }

    fn apply_in(&mut self, ns: &Ns, ops: &[Op]) -> Vec<OpResult> {
        let (home, links, instance) = (&self.home, &mut self.links, self.instance);
        if *ns == Ns::Host {
            let socket = &mut self.socket;
            let errands = Some(&mut self.errands);
            return Space {
                ns,
                home,
                socket,
                instance,
                errands,
                links,
            }
            .apply(ops);
        }
        let file = match home::open(ns) {
            Ok(file) => file,
            Err(error) if error.kind == ErrorKind::Missing => {
                return answers_of_the_gone(ops, &error);
            }
            Err(error) => return vec![Err(error)],
        };
        let visit = home.visit(file.as_fd(), || {
            let socket = &mut RouteSocket::open()?;
            Ok(Space {
                ns,
                home,
                socket,
                instance,
                errands: None,
                links,
            }
            .apply(ops))
        });
        match visit {
            Ok(Ok(results)) => {
                let addresses = landed(ops, &results).filter_map(added_address);
                self.joining.truncate(JOINING_MAX - 1);
                self.joining.splice(..0, Joining::of(ns, addresses));
                results
            }
            Ok(Err(error)) | Err(error) => {
                let error: std::io::Error = error;
                vec![Err(errno::of_io("container's namespace", &error))]
            }
        }
    }
}

/// Ops of which only the firewall's half is done, since connections could not be ended, count as
/// landed: additions are undone, and removals tried again.
fn half_done(ops: &[Op], results: &mut [OpResult], error: &OpError) {
    for (op, result) in ops.iter().zip(results) {
        if result.is_ok() && conntrack::leaves_some(op) {
            *result = Err(OpError {
                kind: ErrorKind::InDoubt,
                detail: format!("connections that should have ended go on: {error}"),
            });
        }
    }
}

fn added_address(op: &Op) -> Option<&Address> {
    match op {
        Op::Add(Object::Address(address)) => Some(address),
        _ => None,
    }
}

/// In a namespace that is no more, nothing can be added and everything is removed.
fn answers_of_the_gone(ops: &[Op], error: &OpError) -> Vec<OpResult> {
    let removals = ops.iter().take_while(|op| matches!(op, Op::Del(_))).count();
    let mut results = vec![Ok(()); removals];
    if removals < ops.len() {
        results.push(Err(error.clone()));
    }
    results
}

/// Whether something of the firewall's goes: the kernel makes whoever closes the socket wait for it.
fn removes_rules(ops: &[Op]) -> bool {
    let goes = |op: &Op| matches!(op, Op::Del(object) if object.firewall().is_some());
    ops.iter().any(goes)
}

impl Drop for NetlinkExecutor {
    fn drop(&mut self) {
        self.errands.keep();
    }
}

impl Executor for NetlinkExecutor {
    fn attend(&mut self, _: &State) {
        self.unseen.clear();
        self.joining.clear();
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<OpResult> {
        self.links.clear();
        if removes_rules(ops) && self.firewall.open(&self.home).is_ok() {
            // One errand does for both: links are down before rules go.
            self.firewall
                .shared()
                .into_iter()
                .for_each(|socket| self.errands.keep_with_next(socket));
        }
        let mut results = Vec::with_capacity(ops.len());
        while let Some(first) = ops.get(results.len()) {
            let (place, rest) = (Place::of(first), &ops[results.len()..]);
            let run = rest.iter().take_while(|op| Place::of(op) == place).count();
            let run = &rest[..run];
            let answers = match place {
                Place::Firewall => self.apply_to_firewall(run),
                // What is removed may be made again.
                Place::In(_) if self.end_removals(ops, &mut results).is_err() => break,
                Place::In(ns) => self.apply_in(ns, run),
            };
            let stop = answers.len() < run.len() || answers.iter().any(Result::is_err);
            results.extend(answers);
            if stop {
                break;
            }
        }
        // The results say so.
        let _ = self.end_removals(ops, &mut results);
        for op in landed(ops, &results) {
            if let Op::Add(Object::Master(master)) = op {
                self.unseen.push(master.clone());
            }
            // The kernel would look for a module of the name of a link that is no more.
            if let Some(gone) = deleted(op) {
                let stays = |master: &Master| ![master.link, master.bridge].contains(&gone);
                self.unseen.retain(stays);
            }
        }
        results
    }

    /// Has the kernel see what was plugged into bridges, and then those: until it has, both drop what is
    /// sent. It has begun meanwhile, and who asks at once waits for it. Then waits until containers hear
    /// neighbours who look for their IPv6 addresses.
    fn hurry(&mut self) {
        let plugged = std::mem::take(&mut self.unseen);
        let bridges: BTreeSet<LinkName> = plugged.iter().map(|master| master.bridge).collect();
        for link in plugged.iter().map(|master| master.link).chain(bridges) {
            // Whether it has a carrier is no news.
            let _ = carrier::see(&self.socket, link);
        }
        for joining in std::mem::take(&mut self.joining) {
            joining.wait(&self.home);
        }
    }

    fn observe(&mut self, wanted: &Footprint) -> Result<Footprint, OpError> {
        self.firewall.open(&self.home)?;
        let mut all = firewall::observe(&mut self.firewall, self.instance)?;
        let foreign = firewall::foreign(&mut self.firewall, &self.home)?;
        all.extend(firewall::passages(foreign, self.instance));
        let links = observe::links(&mut self.socket, &self.home, self.instance, wanted)?;
        all.extend(links);
        Ok(all)
    }

    fn facts(&mut self) -> Result<Facts, OpError> {
        let foreign = firewall::foreign(&mut self.firewall, &self.home)?;
        let mut facts = facts::gather(&mut self.socket, &self.home)?;
        facts.forward_chains = foreign.chains;
        Ok(facts)
    }

    fn listeners(&mut self, wanted: &[PortBinding]) -> Result<Vec<Listener>, OpError> {
        listeners::find(&self.home, wanted)
    }

    fn is_alive(&mut self, netns: &Netns) -> bool {
        !netns::is_gone(Path::new(netns.as_str()))
    }

    fn namespaces(&mut self) -> Result<BTreeSet<Netns>, OpError> {
        census::namespaces(&self.home).map_err(|error| errno::of_io("namespaces", &error))
    }

    fn lacks(&mut self, protocol: Protocol) -> Option<&'static str> {
        match protocol {
            Protocol::Tcp | Protocol::Udp => None,
            Protocol::Sctp => {
                let tracked = self.home.inside(sysctl::tracks_sctp);
                // Who can't look finds out when trying.
                (tracked == Ok(false)).then_some("it was built without CONFIG_NF_CT_PROTO_SCTP")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mydocker_core::{Dnat, Protocol};
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn connections_that_go_on_are_told() {
        let dnat = |protocol| {
            Object::Dnat(Dnat {
                instance: Instance::DEFAULT,
                at: None,
                protocol,
                port: 8080,
                to: "10.0.0.2:80".parse().unwrap(),
            })
        };
        let ops = [
            Op::Add(dnat(Protocol::Tcp)),
            Op::Add(dnat(Protocol::Udp)),
            Op::Del(dnat(Protocol::Tcp)),
        ];
        let refused = errno::refusal(Errno::EEXIST as i32, None);
        let mut results = vec![Ok(()), Ok(()), Err(refused.clone())];
        half_done(
            &ops,
            &mut results,
            &errno::refusal(Errno::EPERM as i32, None),
        );
        assert_eq!((&results[0], &results[2]), (&Ok(()), &Err(refused)));
        let told = results[1].as_ref().unwrap_err();
        assert_eq!(told.kind, ErrorKind::InDoubt);
        assert!(told.detail.contains("EPERM"), "{told}");
    }
}
