//! Links, addresses, routes and settings of one namespace.
//!
//! A datagram carries as many ops as can be written down without an answer in between: a link is
//! made and looked up in one, all that is set on it goes into the next, by index. By index, for a
//! message that names a link by its name would also hit a foreign one, if the message before it
//! failed because that one has the name.
//!
//! The kernel carries out every message of a datagram, also those after one that it refuses. What
//! then landed is reported, behind the one that failed: a
//! [`Transaction`](mydocker_core::Transaction) knows what it has to undo. Taking it back here would
//! take more along: a link that goes down loses the addresses and routes that it had before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsFd;

use mydocker_core::{
    Address, Bridge, ErrorKind, Hairpin, Instance, Link, LinkName, LinkSysctl, LooseEnd, Master,
    Move, Ns, Object, Op, OpError, OpResult, Route, Up, Veth,
};
use nix::errno::Errno;

use crate::errno::{gone_is_fine, missing};
use crate::home::{Home, open};
use crate::link::{BRIDGE_MTU_BYTES, Known, LOOPBACK_INDEX, Seen};
use crate::removal::Errands;
use crate::rtnl::{Answer, MESSAGES_MAX, Request, RouteSocket};
use crate::{address, carrier, errno, link, netns, route, sysctl};

/// Links that are removed one by one if there are fewer of them: to find a group for more takes a look
/// at all links of the host.
const GROUP_MIN: usize = 4;

/// Links of ours that one call of `apply` made or looked up.
pub(crate) type Links = BTreeMap<Link, Known>;

/// One namespace for as long as a run of ops is about it; the calling thread is in it, unless it
/// is the host's.
pub(crate) struct Space<'a> {
    pub(crate) ns: &'a Ns,
    pub(crate) home: &'a Home,
    pub(crate) socket: &'a mut RouteSocket,
    /// Whose links are ours.
    pub(crate) instance: Instance,
    /// Who waits for removals, in the host.
    pub(crate) errands: Option<&'a mut Errands>,
    pub(crate) links: &'a mut Links,
}

impl Space<'_> {
    /// Tries ops in order, up to the first that fails.
    pub(crate) fn apply(&mut self, ops: &[Op]) -> Vec<OpResult> {
        let mut results = Vec::with_capacity(ops.len());
        while let Some(first) = ops.get(results.len()) {
            let step = self.step(first, &ops[results.len()..]);
            let failed = step.is_empty() || step.iter().any(Result::is_err);
            results.extend(step);
            if failed {
                break;
            }
        }
        results
    }

    /// Tries one op, and those after it that can share its datagram.
    fn step(&mut self, first: &Op, ops: &[Op]) -> Vec<OpResult> {
        match first {
            Op::Del(_) if self.errands.is_some() && deleted(first).is_some() => {
                self.delete_all(ops.iter().map_while(deleted))
            }
            Op::Del(object) => vec![self.remove(object)],
            Op::Add(Object::Bridge(bridge)) => vec![self.make_bridge(bridge)],
            Op::Add(Object::Veth(_)) => self.make_cables(ops),
            Op::Add(Object::LinkSysctl(sysctl)) => vec![self.set(sysctl)],
            Op::Add(Object::Forwarding(forwarding)) => {
                let family = forwarding.family;
                vec![self.inside(|| sysctl::set_forwarding(family, true))]
            }
            Op::Add(_) => self.change(ops),
        }
    }

    fn inside(&self, f: impl FnOnce() -> OpResult + Send) -> OpResult {
        match self.ns {
            Ns::Host => self.home.inside(f)?,
            Ns::Sandbox(_) => f(),
        }
    }

    fn make_bridge(&mut self, bridge: &Bridge) -> OpResult {
        let requests = [link::bridge(bridge), link::find(bridge.name)];
        let mut answers = self.socket.exchange(&requests).into_iter();
        answers.next().unwrap_or_else(unanswered)?;
        let seen = answers.next().unwrap_or_else(unanswered)?;
        self.remember(bridge.name, seen.as_deref());
        if bridge.mtu_bytes == BRIDGE_MTU_BYTES {
            return Ok(());
        }
        let known = self.known(bridge.name)?;
        let resized = self.socket.ask(link::resize(known.index, bridge.mtu_bytes));
        if let Err(error) = resized {
            self.delete(bridge.name)?;
            return Err(error);
        }
        Ok(())
    }

    fn set(&mut self, sysctl: &LinkSysctl) -> OpResult {
        let name = sysctl.link.name;
        self.look_up([name].into())?;
        self.known(name)?;
        self.inside(|| sysctl::set(sysctl))
    }

    /// As many of `ops` as are changes of links, in one datagram.
    pub(crate) fn change(&mut self, ops: &[Op]) -> Vec<OpResult> {
        let objects = changes(ops);
        let names = self.unknown(objects.iter().copied());
        if let Err(error) = self.look_up(names) {
            return vec![Err(error)];
        }
        // Namespaces that messages refer to must stay open until the kernel has seen them.
        let mut open = Vec::new();
        let (mut requests, mut counts) = (Vec::new(), Vec::new());
        let mut refused = None;
        for object in &objects {
            match self.requests(object, &mut open) {
                Ok(more) => {
                    counts.push(more.len());
                    requests.extend(more);
                }
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        let mut answers = self.socket.exchange(&requests).into_iter();
        let mut results: Vec<OpResult> = Vec::with_capacity(objects.len());
        for (object, count) in objects.iter().zip(counts) {
            let mut result = Ok(());
            for answer in answers.by_ref().take(count) {
                result = result.and(answer.map(drop));
            }
            results.push(verdict(object, result));
        }
        for (object, result) in objects.iter().zip(&mut results) {
            match (object, &result) {
                (Object::Move(moved), Err(_)) => self.return_stray(moved, result),
                (Object::Up(Up { link }), Ok(())) if self.waits(link, &objects) => {
                    // Whether it has a carrier is no news.
                    let _ = carrier::see(&*self.socket, link.name);
                }
                _ => {}
            }
        }
        if results.iter().all(Result::is_ok) {
            results.extend(refused.map(Err));
        }
        results
    }

    /// Whether a container's link that was raised has something that waits until the kernel sees its
    /// carrier, as IPv6 does. What had its addresses before may have some of that.
    fn waits(&self, link: &Link, objects: &[&Object]) -> bool {
        let mut addresses = objects.iter().filter_map(|object| match object {
            Object::Address(address) if address.link == *link => Some(address.address),
            _ => None,
        });
        let is_given_v4_only = match addresses.next() {
            Some(first) => first.addr().is_ipv4() && addresses.all(|more| more.addr().is_ipv4()),
            None => false,
        };
        matches!(self.ns, Ns::Sandbox(_)) && !self.is_loopback(link) && !is_given_v4_only
    }

    /// A link whose name is taken where it goes is sent there all the same and then not renamed:
    /// it comes back. If it can't, the move counts as landed.
    fn return_stray(&mut self, moved: &Move, result: &mut OpResult) {
        let Ok(netns) = open(&moved.to.ns) else {
            return;
        };
        let (home, instance, links) = (self.home, self.instance, &mut Links::new());
        let back = netns::run_in_fd(netns.as_fd(), || {
            let socket = &mut RouteSocket::open()?;
            let ns = &moved.to.ns;
            let stray = Move {
                to: Link {
                    ns: ns.clone(),
                    name: moved.peer(),
                },
                ..moved.clone()
            };
            Ok(Space {
                ns,
                home,
                socket,
                instance,
                errands: None,
                links,
            }
            .send_back(&stray))
        });
        let back = back.and_then(|back: std::io::Result<_>| back);
        match back.map_err(|error| errno::of_io("container's namespace", &error)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => *result = Err(errno::in_doubt(error)),
        }
    }

    /// The messages that set `object`, of a link that was looked up.
    fn requests(
        &self,
        object: &Object,
        open_files: &mut Vec<File>,
    ) -> Result<Vec<Request>, OpError> {
        Ok(vec![match object {
            Object::Move(moved) => {
                let index = self.known(moved.peer())?.index;
                let netns = open(&moved.to.ns)?;
                let request = link::send(index, netns.as_fd(), moved.to.name, Some(moved.mac));
                open_files.push(netns);
                request
            }
            Object::Master(Master { link, bridge }) => {
                let bridge = self.known(*bridge)?;
                return Ok(link::plug(&self.known(*link)?, bridge.index).into());
            }
            Object::Hairpin(Hairpin { link }) => link::hairpin(self.known(*link)?.index, true),
            Object::Address(Address { link, address }) => {
                address::add(self.known(link.name)?.index, *address)
            }
            Object::Up(Up { link }) if self.is_loopback(link) => link::raise(LOOPBACK_INDEX),
            Object::Up(Up { link }) => link::raise(self.known(link.name)?.index),
            Object::Route(route) => route::add(self.known(route.link.name)?.index, route)?,
            other => return Err(not_ours_to_do(other)),
        }])
    }

    /// Takes an object out. What is not there, or lacks our mark, is out already.
    fn remove(&mut self, object: &Object) -> OpResult {
        match object {
            Object::Bridge(Bridge { name, .. }) | Object::Veth(Veth { name, .. }) => {
                self.delete(*name)
            }
            Object::LooseEnd(LooseEnd { link }) => self.delete(link.name),
            Object::Move(moved) => self.send_back(moved),
            Object::Master(Master { link, .. }) => {
                self.undo(*link, |seen| seen.master.map(|_| link::unplug(seen.index)))
            }
            Object::Hairpin(Hairpin { link }) => self.undo(*link, |seen| {
                seen.hairpin.then(|| link::hairpin(seen.index, false))
            }),
            Object::Address(Address { link, address }) => {
                self.undo(link.name, |seen| address::delete(seen.index, *address))
            }
            Object::Up(Up { link }) => {
                self.undo(link.name, |seen| seen.up.then(|| link::lower(seen.index)))
            }
            Object::Route(route) => self.remove_route(route),
            Object::LinkSysctl(_) => Ok(()),
            Object::Forwarding(forwarding) => {
                let family = forwarding.family;
                self.inside(|| sysctl::set_forwarding(family, false))
            }
            other => Err(not_ours_to_do(other)),
        }
    }

    fn delete(&mut self, name: LinkName) -> OpResult {
        self.links.clear();
        self.undo(name, |seen| Some(link::delete(seen.index)))
    }

    /// Removes links of the host, and returns when they are down or gone
    /// ([`Errands::end_removals`]). Many go at once: they are put into a group that is nobody else's.
    fn delete_all(&mut self, names: impl Iterator<Item = LinkName>) -> Vec<OpResult> {
        let names: Vec<LinkName> = names.collect();
        if names.len() < GROUP_MIN {
            return self.delete_each(&names);
        }
        self.links.clear();
        let all = match self.socket.dump(&link::list(), Seen::decode) {
            Ok(all) => all,
            Err(error) => return vec![Err(error)],
        };
        let ours = |seen: &&Seen| {
            let name = seen.link_name().filter(|name| names.contains(name));
            name.is_some_and(|name| self.is_ours(name, seen))
        };
        let group = self.instance.leaving_group();
        let (goes, stays): (Vec<_>, Vec<_>) = all.iter().partition(ours);
        if goes.len() < GROUP_MIN || stays.iter().any(|seen| seen.group == group) {
            return self.delete_each(&names);
        }
        let goes: BTreeMap<&str, u32> = goes.iter().map(|s| (s.name.as_str(), s.index)).collect();
        let regroup = |index: &u32| link::regroup(*index, group);
        let requests: Vec<Request> = goes.values().map(regroup).collect();
        let answers = self.socket.exchange(&requests).into_iter();
        let mut results: BTreeMap<&str, OpResult> = goes
            .keys()
            .zip(answers)
            .map(|(name, answer)| (*name, gone_is_fine(answer.map(drop))))
            .collect();
        let leave = goes.iter().filter(|(name, _)| results[*name].is_ok());
        let leave = leave.filter_map(|(name, index)| Some((name.parse().ok()?, *index)));
        let leave = leave.collect();
        let left = self.announce(&link::delete_group(group), leave);
        if let Err(error) = left {
            let leaving = results.values_mut().filter(|result| result.is_ok());
            leaving.for_each(|result| *result = Err(error.clone()));
        }
        // What is not there is out already.
        let result = |name: &LinkName| results.remove(name.as_str()).unwrap_or(Ok(()));
        names.iter().map(result).collect()
    }

    /// One after the other, up to the first that can't be removed.
    fn delete_each(&mut self, names: &[LinkName]) -> Vec<OpResult> {
        self.links.clear();
        let mut results = Vec::with_capacity(names.len());
        for name in names {
            let result = match self.find(*name) {
                Ok(Some(seen)) => {
                    self.announce(&link::delete(seen.index), [(*name, seen.index)].into())
                }
                found => found.map(drop),
            };
            let failed = result.is_err();
            results.push(result);
            if failed {
                break;
            }
        }
        results
    }

    fn announce(&mut self, request: &Request, links: BTreeMap<LinkName, u32>) -> OpResult {
        match &mut self.errands {
            Some(errands) => errands.remove(self.home, request, links),
            None => gone_is_fine(self.socket.ask(request.clone()).map(drop)),
        }
    }

    /// An IPv4 route without a metric must be there, or the kernel would take one that has some.
    fn remove_route(&mut self, route: &Route) -> OpResult {
        let mut all = None;
        if route.via.is_ipv4() && route.metric.is_none() {
            all = Some(self.socket.dump(&route::list(), route::Seen::decode)?);
        }
        self.undo(route.link.name, |seen| {
            let is_it = |found: &route::Seen| found.is(seen.index, route);
            let there = all.is_none_or(|all| all.iter().any(is_it));
            there.then(|| route::delete(seen.index, route).ok())?
        })
    }

    /// Refuses what the kernel would do by halves: a link that comes back to where its name is taken
    /// is sent all the same, and not renamed.
    fn send_back(&mut self, moved: &Move) -> OpResult {
        self.links.clear();
        let (near, taken) = self.near_end(moved)?;
        let Some(near) = near else {
            return Ok(());
        };
        let (home, mut blocked) = (self.home.as_fd(), false);
        let sent = self.undo(moved.to.name, |seen| {
            // Indices repeat between namespaces: each end must name the other.
            let ends = (near.peer, seen.peer) == (Some(seen.index), Some(near.index));
            blocked = ends && taken;
            (ends && !taken).then(|| link::send(seen.index, home, moved.peer(), None))
        });
        match blocked {
            true => Err(errno::refusal(Errno::EEXIST as i32, None)),
            false => sent,
        }
    }

    /// The end of a cable that stayed in the host, and whether the name is taken that the other one had
    /// there.
    fn near_end(&self, moved: &Move) -> Result<(Option<Seen>, bool), OpError> {
        let answers = self.home.inside(|| {
            let mut socket = RouteSocket::open().map_err(|e| errno::of_io("rtnetlink", &e))?;
            Ok(socket.exchange(&[link::find(moved.host), link::find(moved.peer())]))
        })?;
        let mut answers = answers?.into_iter().map(|answer| match answer {
            Err(error) if error.kind == ErrorKind::Missing => Ok(None),
            other => other,
        });
        let near = answers.next().unwrap_or_else(unanswered)?;
        let peer = answers.next().unwrap_or_else(unanswered)?;
        Ok((self.ours(moved.host, near.as_deref()), peer.is_some()))
    }

    /// Sends what `request` says to undo something on a link of ours, if there is such a link.
    fn undo(&mut self, name: LinkName, request: impl FnOnce(&Seen) -> Option<Request>) -> OpResult {
        match self.find(name)?.as_ref().and_then(request) {
            Some(request) => gone_is_fine(self.socket.ask(request).map(drop)),
            None => Ok(()),
        }
    }

    /// A link of ours, if there is such a link.
    fn find(&mut self, name: LinkName) -> Result<Option<Seen>, OpError> {
        match self.socket.ask(link::find(name)) {
            Err(error) if error.kind == ErrorKind::Missing => Ok(None),
            found => Ok(self.ours(name, found?.as_deref())),
        }
    }

    /// The names of links that the changes need and that nobody has looked up yet.
    pub(crate) fn unknown<'o>(
        &self,
        objects: impl Iterator<Item = &'o Object>,
    ) -> BTreeSet<LinkName> {
        let mut names = BTreeSet::new();
        for object in objects {
            match object {
                Object::Move(moved) => names.extend([moved.peer()]),
                Object::Master(Master { link, bridge }) => names.extend([*link, *bridge]),
                Object::Hairpin(Hairpin { link }) => drop(names.insert(*link)),
                Object::Up(Up { link }) if self.is_loopback(link) => {}
                Object::Address(Address { link, .. })
                | Object::Up(Up { link })
                | Object::Route(Route { link, .. }) => {
                    names.insert(link.name);
                }
                _ => {}
            }
        }
        names.retain(|name| !self.links.contains_key(&self.link(*name)));
        names
    }

    /// Looks links up, all in one datagram, and keeps those of ours.
    fn look_up(&mut self, mut names: BTreeSet<LinkName>) -> Result<(), OpError> {
        names.retain(|name| !self.links.contains_key(&self.link(*name)));
        let requests: Vec<Request> = names.iter().copied().map(link::find).collect();
        let answers = self.socket.exchange(&requests);
        for (name, answer) in names.into_iter().zip(answers) {
            match answer {
                Ok(seen) => drop(self.remember(name, seen.as_deref())),
                Err(error) if error.kind == ErrorKind::Missing => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn known(&self, name: LinkName) -> Result<Known, OpError> {
        let link = self.link(name);
        let known = self.links.get(&link).copied();
        known.ok_or_else(|| missing(&link))
    }

    /// Keeps a link that the kernel described, if it is ours.
    pub(crate) fn remember(&mut self, name: LinkName, seen: Option<&[u8]>) -> Option<Seen> {
        let seen = self.ours(name, seen)?;
        self.links.insert(self.link(name), seen.known());
        Some(seen)
    }

    /// A link of ours as the kernel described it. It also finds links by their other names.
    fn ours(&self, name: LinkName, seen: Option<&[u8]>) -> Option<Seen> {
        let seen = Seen::decode(seen?)?;
        self.is_ours(name, &seen).then_some(seen)
    }

    /// Whether it has our mark, be it that of a link which was to be removed when somebody died.
    fn is_ours(&self, name: LinkName, seen: &Seen) -> bool {
        let instance = self.instance;
        let is_marked = instance.owns(seen.group) || seen.group == instance.leaving_group();
        is_marked && seen.name == name.as_str()
    }

    fn link(&self, name: LinkName) -> Link {
        let ns = self.ns.clone();
        Link { ns, name }
    }

    /// A container's loopback interface has no mark of ours, and we raise it all the same.
    fn is_loopback(&self, link: &Link) -> bool {
        link.name == LinkName::LOOPBACK && matches!(self.ns, Ns::Sandbox(_))
    }
}

/// The link of the host that an op removes.
pub(crate) fn deleted(op: &Op) -> Option<LinkName> {
    match op {
        Op::Del(Object::Bridge(Bridge { name, .. }) | Object::Veth(Veth { name, .. })) => {
            Some(*name)
        }
        _ => None,
    }
}

/// The object that an op adds by a change of a link that is there.
pub(crate) fn setting(op: &Op) -> Option<&Object> {
    match op {
        Op::Add(
            object @ (Object::Move(_)
            | Object::Master(_)
            | Object::Hairpin(_)
            | Object::Address(_)
            | Object::Up(_)
            | Object::Route(_)),
        ) => Some(object),
        _ => None,
    }
}

/// What the first of `ops` add by changes of links, as many as fit a datagram. A link that is sent away
/// may be back before it is sent again.
fn changes(ops: &[Op]) -> Vec<&Object> {
    let mut all: Vec<&Object> = Vec::new();
    for object in ops.iter().map_while(setting).take(MESSAGES_MAX) {
        let sent = |other: &&Object| match (other, object) {
            (Object::Move(other), Object::Move(moved)) => other.host == moved.host,
            _ => false,
        };
        if all.iter().any(sent) {
            break;
        }
        all.push(object);
    }
    all
}

/// An answer in our words: a link that is no port of a bridge lacks what hairpin mode stands on.
fn verdict(object: &Object, result: OpResult) -> OpResult {
    match (object, result) {
        (Object::Hairpin(Hairpin { link }), Err(error)) if error.kind == ErrorKind::Unsupported => {
            Err(missing(format!("bridge of {link}")))
        }
        (_, result) => result,
    }
}

pub(crate) fn unanswered() -> Answer {
    Err(errno::in_doubt("nothing was sent"))
}

fn not_ours_to_do(object: &Object) -> OpError {
    OpError {
        kind: ErrorKind::Unsupported,
        detail: format!("not a change of a link: {object:?}"),
    }
}
