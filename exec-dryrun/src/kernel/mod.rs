//! Kernel: a model of what the real one does with our ops.
//!
//! It holds objects and foreign things, refuses what the real one refuses, and lets go along what
//! the real one lets go along. Same ops, same answers: it knows no clock and no chance.
//!
//! | op | refused | and besides |
//! |---|---|---|
//! | Add, any | [`Missing`](ErrorKind::Missing): a base is not there, is foreign, or its namespace is gone | |
//! | Add Ruleset | `Exists`: a foreign table of that name | ours: made anew, without elements; Del takes these along |
//! | Add Zone, Masquerade, Dnat, Pinhole, Guard, Isolated | `Exists`: a key of it is there, with whatever data (`NLM_F_EXCL`) | Del goes by key: of an object that has some of them, the rest stays, and a ruleset with such a rest is none |
//! | Add Passage | `Missing`: its chain is not there; `Denied`: a process owns the table | there already: fine |
//! | Add Bridge, Veth | `Exists`: the name, or the peer's, is there, unless the next op moves the peer; `Os(EINVAL)`: it is `all` or `default` | |
//! | Add Move | `Exists`: the name is taken over there | frees the peer's name in the host; Del brings it back, or `Exists`: it is taken meanwhile |
//! | Add Master | `Os(EXFULL)`: 1023 ports; `Unsupported`: no bridge, and the port has left its old one | a port of another bridge changes over, its port flags gone |
//! | Add LooseEnd | `Unsupported`: somebody else leaves one, by [`Kernel::abduct_link`] or [`Kernel::abduct_far_end`] | |
//! | Add Hairpin | `Missing`: the link is no port | set again: fine |
//! | Add LinkSysctl | | overwrites; `disable_ipv6` flushes IPv6; Del does nothing; a loopback's is nobody's |
//! | Add Address | `Exists`: it is on the link; `Denied`: IPv6 where it is disabled | |
//! | Add Up, Forwarding | | set again: fine; of a loopback, that of a container alone |
//! | Add Route | `Os(ENETUNREACH)`, IPv6 `Os(EHOSTUNREACH)`: link down, or next hop in no subnet of the link; next hop is the link itself: `Os(ENETDOWN)` while it is down, and fine for IPv4 when it is up; IPv6 `Os(EINVAL)`: next hop is any address of the namespace; `Exists`: destination and metric are taken in the namespace, for IPv4 also by the subnet of a link that is up | |
//! | Del, any | | succeeds on what is absent or foreign, and leaves the latter alone; only a foreign element of our own table goes, for elements have no mark |
//! | Del Veth | | takes its peer and what stands on it, wherever that is |
//! | Del Bridge | | sets its ports free: they stay, without master and port flags |
//! | Del Master | | takes the port flags along |
//! | Del Up | | flushes the link's routes and IPv6 addresses, these not with `keep_addr_on_down` |
//! | a port of another MTU | | a bridge of 1500, which nobody set, takes the least of its ports' |
//! | Del Address | | the link's last IPv4 one takes its IPv4 routes along |
//! | end of a foreign chain | | takes the passage in it |
//! | end of a sandbox | | takes its links and so the host's ends of their cables |
//!
//! Packets are the business of [`Wires`](crate::Wires). Not modelled: secondary IPv4 addresses,
//! other tables' verdicts, the kernel's own link-local addresses.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each match picks one kind out of a set of all kinds"
)]

mod add;
mod del;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use mydocker_core::{
    Bridge, Element, ErrorKind, Executor, Facts, Footprint, ForeignChain, ForwardChain, Forwarding,
    Instance, Link, LinkName, Listener, LooseEnd, Master, Netns, Ns, Object, Op, OpError, OpResult,
    PortBinding, Veth, objects_of,
};

/// What a bridge has unless somebody sets it (`ETH_DATA_LEN`, linux/if_ether.h), bytes.
const BRIDGE_MTU_BYTES: u32 = 1500;

/// A model kernel: see the table above for what it does.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Kernel {
    objects: Footprint,
    foreign: Footprint,
    /// Elements that the removal of another object of their key left behind.
    rest: BTreeSet<(Instance, Element)>,
    host: Facts,
    alive: BTreeSet<Netns>,
    dead: BTreeSet<Netns>,
    any_namespace: bool,
}

impl Kernel {
    /// A host with nothing on it and no namespace but its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A host that holds exactly `footprint`; the namespaces that it speaks of are there.
    #[must_use]
    pub fn from_footprint(footprint: Footprint) -> Self {
        let mut kernel = Self::new();
        for object in footprint {
            if let Ns::Sandbox(netns) = object.ns() {
                kernel.alive.insert(netns.clone());
            }
            match &object {
                Object::Forwarding(Forwarding { family }) => {
                    kernel.host.forwarding.insert(*family);
                    continue;
                }
                Object::Passage(passage) => kernel.add_forward_chain(&passage.chain),
                _ => {}
            }
            kernel.objects.insert(object);
        }
        kernel
    }

    /// The same with these routes, interfaces, settings, MTU and listeners, none of them ours.
    #[must_use]
    pub fn with_facts(mut self, facts: Facts) -> Self {
        self.host = facts;
        self
    }

    /// The same with one more namespace.
    #[must_use]
    pub fn with_namespace(mut self, netns: Netns) -> Self {
        self.dead.remove(&netns);
        self.alive.insert(netns);
        self
    }

    /// The same, and every namespace that an op speaks of is there until it is killed.
    #[must_use]
    pub fn any_namespace(mut self) -> Self {
        self.any_namespace = true;
        self
    }

    /// The same with something that lacks our mark: a squatter on its name or key.
    #[must_use]
    pub fn with_foreign(mut self, object: Object) -> Self {
        self.foreign.insert(object);
        self
    }

    /// Everything of ours, but for [`Forwarding`], which belongs to nobody: see
    /// [`facts`](Executor::facts) for that.
    #[must_use]
    pub fn objects(&self) -> &Footprint {
        &self.objects
    }

    /// Everything that lacks our mark, but for what [`with_facts`](Self::with_facts) put there.
    #[must_use]
    pub fn foreign(&self) -> &Footprint {
        &self.foreign
    }

    /// Starts a sandbox, also one of a name that was there before.
    pub fn start_sandbox(&mut self, netns: &Netns) {
        self.dead.remove(netns);
        self.alive.insert(netns.clone());
    }

    /// Ends a sandbox: its links go, and with them the host's ends of their cables.
    pub fn kill_sandbox(&mut self, netns: &Netns) {
        self.alive.remove(netns);
        self.dead.insert(netns.clone());
        let inside = |object: &Object| matches!(object.ns(), Ns::Sandbox(ns) if ns == netns);
        let cables = self.objects.iter().filter_map(|object| match object {
            Object::Move(moved) if inside(object) => Some(moved.host),
            _ => None,
        });
        for host in cables.collect::<Vec<LinkName>>() {
            self.remove_link(host);
        }
        self.objects.retain(|object| !inside(object));
        self.foreign.retain(|object| !inside(object));
    }

    /// Somebody else's firewall arrives, and drops what is forwarded.
    pub fn add_forward_chain(&mut self, chain: &ForeignChain) {
        self.host.forward_chains.push(ForwardChain {
            family: chain.family,
            table: chain.table.to_string(),
            chain: chain.chain.to_string(),
            priority: 0,
            drops: true,
            owned: false,
        });
    }

    /// Somebody else's firewall goes, and with it what we have in it.
    pub fn remove_forward_chain(&mut self, chain: &ForeignChain) {
        let chains = &mut self.host.forward_chains;
        chains.retain(|found| found.named().as_ref() != Some(chain));
        self.objects
            .retain(|object| !matches!(object, Object::Passage(p) if p.chain == *chain));
    }

    /// Somebody deletes a link of the host, whoever's it is.
    pub fn delete_link(&mut self, name: LinkName) {
        self.remove_link(name);
        let base = mydocker_core::Base::Link(Link::host(name));
        self.foreign
            .retain(|o| o.gives().all(|given| given != base));
    }

    /// Somebody takes the host's end of a cable away, into a namespace that nobody looks into.
    pub fn abduct_link(&mut self, name: LinkName) {
        match self.far_end(name) {
            Some(far_end) => self.leave(name, far_end),
            None => self.delete_link(name),
        }
    }

    /// Somebody takes the far end of a cable out of its container, into a namespace that nobody looks into.
    pub fn abduct_far_end(&mut self, name: LinkName) {
        if self.far_end(name).is_some() {
            self.leave(name, Link::host(name));
        }
    }

    /// Where the far end of a cable is, if it has left the host.
    fn far_end(&self, name: LinkName) -> Option<Link> {
        self.objects.iter().find_map(|object| match object {
            Object::Move(moved) if moved.host == name => Some(moved.to.clone()),
            _ => None,
        })
    }

    /// Of a cable, leaves one end and what stands on that.
    fn leave(&mut self, name: LinkName, link: Link) {
        let base = mydocker_core::Base::Link(link.clone());
        let on_it = |object: &&Object| {
            !matches!(object, Object::Move(_)) && object.needs().any(|needed| needed == base)
        };
        let on_it: Vec<Object> = self.objects.iter().filter(on_it).cloned().collect();
        self.remove_link(name);
        self.objects.insert(Object::LooseEnd(LooseEnd { link }));
        self.objects.extend(on_it);
    }

    /// Somebody flushes all firewalls, ours and those of others.
    pub fn flush_firewalls(&mut self) {
        self.host.forward_chains.clear();
        self.objects.retain(|object| object.firewall().is_none());
        self.rest.clear();
        self.foreign.retain(|object| object.firewall().is_none());
    }

    fn try_one(&mut self, op: &Op) -> OpResult {
        match op {
            Op::Add(object) => self.add(object),
            Op::Del(object) => self.del(object),
        }
    }

    fn ns_is_there(&self, ns: &Ns) -> bool {
        match ns {
            Ns::Host => true,
            Ns::Sandbox(netns) => {
                !self.dead.contains(netns) && (self.any_namespace || self.alive.contains(netns))
            }
        }
    }

    /// Whether the link is there and ours to work on.
    fn has_link(&self, link: &Link) -> bool {
        self.ns_is_there(&link.ns) && self.is_ours(link)
    }

    fn is_ours(&self, link: &Link) -> bool {
        self.objects.iter().any(|object| match object {
            Object::Bridge(bridge) => *link == Link::host(bridge.name),
            Object::Veth(veth) => {
                *link == Link::host(veth.name)
                    || (*link == Link::host(veth.peer()) && self.far_end(veth.name).is_none())
            }
            Object::Move(moved) => *link == moved.to,
            Object::LooseEnd(end) => *link == end.link,
            _ => false,
        })
    }

    /// Whether no other link can have that name, whoever has it.
    fn name_is_taken(&self, link: &Link) -> bool {
        let base = mydocker_core::Base::Link(link.clone());
        let listed = link.ns == Ns::Host && self.host.links.contains(link.name.as_str());
        let foreign = || self.foreign.iter().any(|o| o.gives().any(|b| b == base));
        self.has_link(link) || link.name == LinkName::LOOPBACK || listed || foreign()
    }

    /// An object as it reads: a bridge whose MTU nobody set has the least of its ports'.
    fn shown(&self, object: &Object) -> Object {
        match object {
            Object::Bridge(bridge) if bridge.mtu_bytes == BRIDGE_MTU_BYTES => {
                let least = self.ports(bridge.name).map(|port| port.mtu_bytes).min();
                let mtu_bytes = least.unwrap_or(BRIDGE_MTU_BYTES);
                Object::Bridge(Bridge {
                    mtu_bytes,
                    ..bridge.clone()
                })
            }
            other => other.clone(),
        }
    }

    /// The cables that are plugged into a bridge.
    fn ports(&self, bridge: LinkName) -> impl Iterator<Item = &Veth> {
        let plugged = move |veth: &&Veth| {
            let (link, bridge) = (veth.name, bridge);
            let master = Object::Master(Master { link, bridge });
            self.objects.contains(&master)
        };
        let cables = self.objects.iter().filter_map(|object| match object {
            Object::Veth(veth) => Some(veth),
            _ => None,
        });
        cables.filter(plugged)
    }

    /// The ruleset and its elements as they read when some of them belong to nothing.
    fn ruins(&self, instance: Instance) -> Footprint {
        let of_it = |object: &&Object| object.firewall() == Some(instance);
        let whole = self.objects.iter().filter(of_it).flat_map(Object::elements);
        let rest = self.rest.iter().filter(|(whose, _)| *whose == instance);
        let all = whole.chain(rest.map(|(_, element)| *element));
        objects_of(instance, all).unwrap_or_default()
    }
}

impl Executor for Kernel {
    fn apply(&mut self, ops: &[Op]) -> Vec<OpResult> {
        let mut results = Vec::new();
        while let Some(op) = ops.get(results.len()) {
            if let (Op::Add(Object::Veth(veth)), Some(Op::Add(Object::Move(moved)))) =
                (op, ops.get(results.len() + 1))
                && veth.name == moved.host
                && self.add_cable(veth, moved)
            {
                results.extend([Ok(()), Ok(())]);
                continue;
            }
            let result = self.try_one(op);
            let failed = result.is_err();
            results.push(result);
            if failed {
                break;
            }
        }
        results
    }

    fn observe(&mut self, wanted: &Footprint) -> Result<Footprint, OpError> {
        let namespaces: BTreeSet<&Ns> = wanted.iter().map(Object::ns).collect();
        let seen = |object: &&Object| *object.ns() == Ns::Host || namespaces.contains(object.ns());
        let shown = self.objects.iter().filter(seen);
        let mut all: Footprint = shown.map(|object| self.shown(object)).collect();
        for instance in self.rest.iter().map(|(instance, _)| *instance) {
            all.retain(|object| {
                object.firewall() != Some(instance) || matches!(object, Object::Passage(_))
            });
            all.extend(self.ruins(instance));
        }
        Ok(all)
    }

    fn facts(&mut self) -> Result<Facts, OpError> {
        let mut facts = self.host.clone();
        facts.listeners.clear();
        facts.links.insert(LinkName::LOOPBACK.to_string());
        for object in self.objects.iter().chain(&self.foreign) {
            match object {
                Object::Bridge(bridge) => {
                    facts.links.insert(bridge.name.to_string());
                }
                Object::Veth(veth) => {
                    facts.links.insert(veth.name.to_string());
                }
                Object::Address(address) if address.link.ns == Ns::Host => {
                    facts.routes.push(address.address.trunc());
                }
                Object::Route(route) if route.link.ns == Ns::Host => {
                    facts.routes.push(route.destination);
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    fn listeners(&mut self, wanted: &[PortBinding]) -> Result<Vec<Listener>, OpError> {
        let all = self.host.listeners.iter().filter(|listener| {
            let mut wanted = wanted.iter();
            wanted.any(|binding| listener.conflicts(binding))
        });
        Ok(all.cloned().collect())
    }

    fn is_alive(&mut self, netns: &Netns) -> bool {
        self.ns_is_there(&Ns::Sandbox(netns.clone()))
    }

    fn namespaces(&mut self) -> Result<BTreeSet<Netns>, OpError> {
        let of_objects = self.objects.iter().filter_map(|object| match object.ns() {
            Ns::Sandbox(netns) => Some(netns),
            Ns::Host => None,
        });
        Ok(self.alive.iter().chain(of_objects).cloned().collect())
    }
}

/// A refusal in the kernel's words.
fn refused(kind: ErrorKind, detail: impl Into<String>) -> OpError {
    let detail = detail.into();
    OpError { kind, detail }
}
