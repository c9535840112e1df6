//! Cables: made many at a time, and each in one message if its far end goes into a container.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsFd;

use mydocker_core::{ErrorKind, LinkName, Move, Object, Op, OpResult, Veth};

use crate::home::open;
use crate::link::{self, Known};
use crate::rtnl::{Answer, MESSAGES_MAX, Request};
use crate::space::{Space, setting, unanswered};

/// A cable to be made, with its far end born where it goes, if that is known.
struct Cable<'o> {
    veth: &'o Veth,
    /// The namespace must be open until the kernel has seen the message.
    born: Option<(&'o Move, File)>,
}

impl<'o> Cable<'o> {
    /// Those that the first of `ops` make, as many as fit a datagram with a look at each.
    fn first_of(ops: &'o [Op]) -> Vec<Self> {
        let (mut all, mut rest) = (Vec::new(), ops);
        while let [Op::Add(Object::Veth(veth)), next @ ..] = rest
            && all.len() < MESSAGES_MAX / 2
        {
            let born = match next.first() {
                Some(Op::Add(Object::Move(moved))) if moved.host == veth.name => {
                    open(&moved.to.ns).ok().map(|netns| (moved, netns))
                }
                _ => None,
            };
            let cable = Self { veth, born };
            rest = &rest[cable.ops()..];
            all.push(cable);
        }
        all
    }

    /// How many ops it is.
    fn ops(&self) -> usize {
        1 + usize::from(self.born.is_some())
    }

    fn request(&self) -> Request {
        let born = self.born.as_ref();
        link::veth(
            self.veth,
            born.map(|(moved, netns)| (*moved, netns.as_fd())),
        )
    }
}

impl Space<'_> {
    /// Makes cables; where the op after one moves its far end, that end is born where it goes. Links are
    /// looked up in the same datagram, and so is what the ops after them need.
    pub(crate) fn make_cables(&mut self, ops: &[Op]) -> Vec<OpResult> {
        let cables = Cable::first_of(ops);
        let tried: usize = cables.iter().map(Cable::ops).sum();
        let mut names: BTreeSet<LinkName> = cables.iter().map(|cable| cable.veth.name).collect();
        names.extend(self.unknown(ops[tried..].iter().map_while(setting)));
        let mut requests: Vec<Request> = cables.iter().map(Cable::request).collect();
        requests.extend(names.iter().copied().map(link::find));
        let mut made = self.socket.exchange(&requests);
        let found = made.split_off(cables.len());
        let mut found: BTreeMap<LinkName, Answer> = names.into_iter().zip(found).collect();
        let mut results = Vec::with_capacity(tried);
        for (cable, made) in cables.iter().zip(made) {
            let near = found.remove(&cable.veth.name).and_then(Result::ok);
            match made {
                Ok(_) => {
                    self.remember_cable(cable, near.flatten().as_deref());
                    results.resize(results.len() + cable.ops(), Ok(()));
                }
                Err(error) if cable.born.is_none() || error.kind == ErrorKind::InDoubt => {
                    results.resize(results.len() + cable.ops(), Err(error));
                }
                // One at a time, to know which of the two it was.
                Err(_) => results.extend(self.make_apart(cable)),
            }
        }
        for (name, answer) in found {
            let seen = answer.ok().flatten();
            self.remember(name, seen.as_deref());
        }
        results
    }

    /// Makes a cable, and then moves its far end.
    fn make_apart(&mut self, cable: &Cable<'_>) -> Vec<OpResult> {
        let requests = [link::veth(cable.veth, None), link::find(cable.veth.name)];
        let mut answers = self.socket.exchange(&requests).into_iter();
        let made = answers.next().unwrap_or_else(unanswered).map(drop);
        let mut results = vec![made];
        if let (Ok(()), Some((moved, _))) = (&results[0], &cable.born) {
            let near = answers.next().and_then(Result::ok).flatten();
            self.remember(cable.veth.name, near.as_deref());
            results.extend(self.change(&[Op::Add(Object::Move((*moved).clone()))]));
        }
        results
    }

    /// Keeps both ends of a cable, as far as they can be known from the near one.
    fn remember_cable(&mut self, cable: &Cable<'_>, near: Option<&[u8]>) {
        let peer = self
            .remember(cable.veth.name, near)
            .and_then(|near| near.peer);
        if let (Some((moved, _)), Some(index)) = (&cable.born, peer) {
            let known = Known {
                index,
                has_ipv6: true,
            };
            self.links.insert(moved.to.clone(), known);
        }
    }
}
