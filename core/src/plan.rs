//! Plan: what will be done, in order, as data.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{
    Address, Base, Endpoint, EndpointId, Footprint, Link, LinkName, Move, Netns, Network,
    NetworkName, Ns, Object, Op, PortBinding, Route, Veth, Warning,
};

/// A change to the state and the ops that make the kernel follow.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Plan {
    /// What the state will say once it is done.
    pub change: Change,
    /// What an op that fails means for the rest.
    pub on_failure: OnFailure,
    /// What to do, in order.
    pub ops: Vec<Op>,
    /// What stands in the way of containers and stays there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// What a plan does to the state.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A network is there, and up.
    NetworkAdded(Network),
    /// A network is gone.
    NetworkRemoved(NetworkName),
    /// A container joined a network, which is up from then on.
    EndpointAdded(Endpoint),
    /// A container left a network.
    EndpointRemoved(EndpointId),
    /// An endpoint publishes other ports than before.
    EndpointChanged(Endpoint),
    /// All of these, in order, each of which is one that a single request makes.
    Several(Vec<Self>),
    /// The kernel holds what the state wants; nothing that an undo left over remains.
    Repaired,
}

impl Change {
    /// The changes that single requests make: itself, unless it is several.
    #[must_use]
    pub fn each(&self) -> &[Self] {
        if let Self::Several(changes) = self {
            return changes;
        }
        core::slice::from_ref(self)
    }

    /// The network that it speaks of, if it is one.
    pub(crate) fn network(&self) -> Option<&NetworkName> {
        match self {
            Self::NetworkAdded(network) => Some(&network.name),
            Self::NetworkRemoved(name) => Some(name),
            Self::EndpointAdded(endpoint) | Self::EndpointChanged(endpoint) => {
                Some(&endpoint.id.network)
            }
            Self::EndpointRemoved(id) => Some(&id.network),
            Self::Several(_) | Self::Repaired => None,
        }
    }
}

impl Plan {
    /// Whether it is nothing: neither state nor kernel become another by it.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.ops.is_empty() && self.change.each().is_empty()
    }

    /// The ports of the host that it publishes and that were not published before.
    #[must_use]
    pub fn publishes(&self) -> Vec<PortBinding> {
        let added = |op: &Op| match op {
            Op::Add(Object::Dnat(dnat)) => Some(dnat.binding()),
            Op::Add(_) | Op::Del(_) => None,
        };
        self.ops.iter().filter_map(added).collect()
    }
}

/// Whether a plan is all or nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Take back what landed: what adds something is all or nothing.
    Undo,
    /// Go on and do all that can be done: what removes something must not stop half-way.
    Continue,
}

/// The ops that lead from one footprint to another: removals last to first, then additions first
/// to last. A removal that another one implies is left out, and what a removal takes along that
/// is still wanted is added again.
#[must_use]
pub fn diff(from: &Footprint, to: &Footprint) -> Vec<Op> {
    let removed = from.difference(to).cloned().collect();
    let gone = gone_with(&removed, from);
    let removals = removed.into_iter().rev().map(Op::Del);
    prune(removals.chain(additions(from, to, &gone)).collect())
}

/// The same, where each op can be taken back: what goes along with something else is removed before
/// it, by an op of its own, so that an undo has all of it to add.
pub(crate) fn diff_step_by_step(from: &Footprint, to: &Footprint) -> Vec<Op> {
    let gone = gone_with(&from.difference(to).cloned().collect(), from);
    let additions: Vec<Op> = additions(from, to, &gone).collect();
    // Removing a setting does nothing, and setting it again does something.
    let goes = |object: &Object| !object.lingers() || matches!(object, Object::LinkSysctl(_));
    // A link that goes down loses addresses, so these go before.
    let first = |object: &Object| matches!(object, Object::Address(_) | Object::Route(_));
    let (first, rest): (Vec<_>, Vec<_>) = gone.into_iter().rev().filter(goes).partition(first);
    let removals = first.into_iter().chain(rest).map(Op::Del);
    removals.chain(additions).collect()
}

/// What is removed, and what the kernel takes along.
fn gone_with(removed: &Footprint, from: &Footprint) -> Footprint {
    let mut gone = standing_on(removed, from);
    gone.extend(flushed(removed, from));
    gone
}

/// What is to be added once that is gone, in turns.
fn additions(from: &Footprint, to: &Footprint, gone: &Footprint) -> impl Iterator<Item = Op> {
    let missing = |object: &&Object| !from.contains(*object) || gone.contains(*object);
    let mut missing: Vec<&Object> = to.iter().filter(missing).collect();
    missing.sort_by_key(|object| Turn::of(object));
    missing.into_iter().cloned().map(Op::Add)
}

/// When an object is added: what is of the host comes before what is in containers, each of which is
/// entered once, and a cable comes right before its far end moves, so that it can be born there. Within a
/// turn, and for a single endpoint altogether, the order is that of objects.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Turn<'o> {
    Base,
    Cable(LinkName),
    Host,
    Sandbox(&'o Netns),
}

impl<'o> Turn<'o> {
    fn of(object: &'o Object) -> Self {
        match object {
            Object::Ruleset(_)
            | Object::Zone(_)
            | Object::Masquerade(_)
            | Object::Dnat(_)
            | Object::Pinhole(_)
            | Object::Guard(_)
            | Object::Isolated(_)
            | Object::Passage(_)
            | Object::Bridge(_) => Self::Base,
            Object::Veth(Veth { name: host, .. }) | Object::Move(Move { host, .. }) => {
                Self::Cable(*host)
            }
            Object::LooseEnd(_)
            | Object::Master(_)
            | Object::Hairpin(_)
            | Object::LinkSysctl(_)
            | Object::Address(_)
            | Object::Up(_)
            | Object::Route(_)
            | Object::Forwarding(_) => match object.ns() {
                Ns::Host => Self::Host,
                Ns::Sandbox(netns) => Self::Sandbox(netns),
            },
        }
    }
}

/// Routes that the kernel drops because the last IPv4 address of their link goes
/// (`fib_disable_ip`, net/ipv4/fib_frontend.c).
fn flushed(removed: &Footprint, from: &Footprint) -> Footprint {
    let addressed = |object: &Object| {
        if let Object::Address(Address { link, address }) = object {
            address.addr().is_ipv4().then(|| link.clone())
        } else {
            None
        }
    };
    let bare: BTreeSet<Link> = removed.iter().filter_map(addressed).collect();
    let kept: BTreeSet<Link> = from.difference(removed).filter_map(addressed).collect();
    let goes = |object: &&Object| {
        if let Object::Route(Route { link, via, .. }) = object {
            via.is_ipv4() && bare.contains(link) && !kept.contains(link)
        } else {
            false
        }
    };
    from.iter().filter(goes).cloned().collect()
}

/// Drops each removal that another removal implies, and those that are never an op.
pub(crate) fn prune(mut ops: Vec<Op>) -> Vec<Op> {
    let removed: Vec<&Object> = ops
        .iter()
        .filter_map(|op| match op {
            Op::Del(object) => Some(object),
            Op::Add(_) => None,
        })
        .collect();
    let going: BTreeSet<Base> = removed.iter().flat_map(|object| object.gives()).collect();
    ops.retain(|op| match op {
        Op::Add(_) => true,
        Op::Del(object) => !object.lingers() && !object.needs().any(|base| going.contains(&base)),
    });
    ops
}

/// `roots`, and everything in `all` that stands on them: when a link goes, so does what is on it.
/// One pass is enough, for [`Object`]'s order puts a base before whatever needs it.
#[must_use]
pub fn standing_on(roots: &Footprint, all: &Footprint) -> Footprint {
    let mut found = Footprint::new();
    let mut bases = BTreeSet::new();
    for object in all {
        if roots.contains(object) || object.needs().any(|base| bases.contains(&base)) {
            bases.extend(object.gives());
            found.insert(object.clone());
        }
    }
    found
}
