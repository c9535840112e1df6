//! Drift: how the kernel differs from what is wanted, in words.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

use serde::Serialize;

use crate::{Base, EndpointId, Facts, Family, Footprint, Link, Ns, Object, Op, Passage, State};

/// One way in which the kernel differs from what is wanted.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Drift {
    /// Not there.
    Missing {
        /// What is wanted.
        object: Object,
        /// Whose it is, if a container's.
        of: Option<EndpointId>,
        /// How many more objects that stand on it are missing with it.
        with_it: usize,
    },
    /// There, but otherwise.
    Changed {
        /// What is wanted.
        object: Object,
        /// What is there.
        is: Object,
        /// Whose it is, if a container's.
        of: Option<EndpointId>,
    },
    /// There, under our mark, and wanted by nobody.
    LeftOver {
        /// What is there.
        object: Object,
    },
    /// Not there, and something that lacks our mark has its name: repair can't help.
    Squatted {
        /// What is wanted.
        object: Object,
    },
    /// An endpoint whose namespace is gone.
    Dead {
        /// Which.
        of: EndpointId,
    },
}

impl State {
    /// How the kernel differs from what is wanted; [`repair`](Self::repair) is what to do about it.
    #[must_use]
    pub fn drift(&self, facts: &Facts, observed: &Footprint) -> Vec<Drift> {
        let dead = self.endpoints().filter(|e| facts.gone.contains(&e.netns));
        let mut all: Vec<Drift> = dead.map(|e| Drift::Dead { of: e.id.clone() }).collect();
        let owners = self.owners();
        let (mut missing, mut surplus) = (Footprint::new(), Footprint::new());
        for op in self.repair(facts, observed).ops {
            match op {
                Op::Add(object) => missing.insert(object),
                Op::Del(object) => surplus.insert(object),
            };
        }
        // Of what a dead container had, one line is enough.
        surplus.retain(|object| {
            let owner = owners.get(object).and_then(|id| self.endpoint(id));
            owner.is_none_or(|endpoint| !facts.gone.contains(&endpoint.netns))
        });
        let given: BTreeSet<Base> = missing.iter().flat_map(Object::gives).collect();
        for object in &missing {
            if object.needs().any(|base| given.contains(&base)) {
                continue;
            }
            let of = owners.get(object).cloned();
            let object = object.clone();
            let is = surplus.iter().find(|is| is.excludes(&object)).cloned();
            all.push(match is {
                Some(is) => Drift::Changed { object, is, of },
                None if is_squatted(facts, &object) => Drift::Squatted { object },
                None => Drift::Missing {
                    with_it: crate::standing_on(&[object.clone()].into(), &missing).len() - 1,
                    object,
                    of,
                },
            });
        }
        surplus.retain(|is| !missing.iter().any(|object| is.excludes(object)));
        all.extend(surplus.into_iter().map(|object| Drift::LeftOver { object }));
        all
    }

    /// Whose an object is, of those that containers want.
    fn owners(&self) -> BTreeMap<Object, EndpointId> {
        let mut all = BTreeMap::new();
        for endpoint in self.endpoints() {
            if let Some(network) = self.network(&endpoint.id.network) {
                let objects = endpoint.objects(self.instance(), network);
                all.extend(objects.into_iter().map(|o| (o, endpoint.id.clone())));
            }
        }
        all
    }
}

/// Whether the host has a link of that name: it is not ours, or it would not be missing.
fn is_squatted(facts: &Facts, object: &Object) -> bool {
    object.gives().any(|base| match base {
        Base::Link(Link { ns: Ns::Host, name }) => facts.links.contains(name.as_str()),
        Base::Link(_) | Base::Port(_) | Base::Ruleset(_) => false,
    })
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing {
                object,
                of,
                with_it,
            } => {
                write!(f, "{} is missing", Words(object, of.as_ref()))?;
                match with_it {
                    0 => Ok(()),
                    more => write!(f, ", and {more} more with it"),
                }
            }
            Self::Changed { object, is, of } => {
                write!(f, "{} was changed: ", Words(object, of.as_ref()))?;
                if matches!(is, Object::LooseEnd(_)) {
                    return f.write_str("somebody took its other end away");
                }
                let (before, now) = (Op::Add(object.clone()), Op::Add(is.clone()));
                write!(f, "`{now}` instead of `{before}`")
            }
            Self::LeftOver { object } => {
                write!(f, "{} is there, and nobody wants it", Words(object, None))
            }
            Self::Squatted { object } => write!(
                f,
                "{} is missing, and something that is not ours has its name: repair leaves that alone",
                Words(object, None)
            ),
            Self::Dead { of } => write!(f, "container {of} is gone"),
        }
    }
}

/// What an object is, in words, and whose.
struct Words<'a>(&'a Object, Option<&'a EndpointId>);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |link: &Link| match &link.ns {
            Ns::Host => alloc::format!("{}", link.name),
            Ns::Sandbox(netns) => alloc::format!("{} in {netns}", link.name),
        };
        match self.0 {
            Object::Ruleset(instance) => {
                write!(
                    f,
                    "the ruleset of tables inet and bridge {}",
                    instance.table()
                )
            }
            Object::Zone(zone) => write!(f, "what the firewall knows of bridge {}", zone.bridge),
            Object::Masquerade(masquerade) => write!(f, "masquerading of {}", masquerade.subnet),
            Object::Dnat(dnat) => {
                write!(
                    f,
                    "published port {} to {}",
                    Op::Add(self.0.clone()).target(),
                    dnat.to
                )
            }
            Object::Pinhole(pinhole) => write!(f, "open port {}/{}", pinhole.to, pinhole.protocol),
            Object::Guard(guard) => write!(f, "the guard of {}", guard.port),
            Object::Isolated(isolated) => write!(f, "the isolation of {}", isolated.port),
            Object::Passage(Passage { chain, .. }) => write!(f, "the passage through {chain}"),
            Object::Bridge(bridge) => write!(f, "bridge {}", bridge.name),
            Object::Veth(veth) => write!(f, "cable {}", veth.name),
            Object::Move(moved) => write!(f, "interface {}", of(&moved.to)),
            Object::LooseEnd(end) => write!(f, "the loose end {}", of(&end.link)),
            Object::Master(master) => {
                write!(
                    f,
                    "the place of {} on bridge {}",
                    master.link, master.bridge
                )
            }
            Object::Hairpin(hairpin) => write!(f, "hairpin mode of {}", hairpin.link),
            Object::LinkSysctl(sysctl) => {
                let (key, value) = (&sysctl.key, sysctl.value);
                write!(f, "setting {key}={value} of {}", of(&sysctl.link))
            }
            Object::Address(address) => {
                write!(f, "address {} of {}", address.address, of(&address.link))
            }
            Object::Up(up) => write!(f, "the up state of {}", of(&up.link)),
            Object::Route(route) => {
                write!(
                    f,
                    "route {} via {} of {}",
                    route.destination,
                    route.via,
                    of(&route.link)
                )
            }
            Object::Forwarding(forwarding) => match forwarding.family {
                Family::V4 => f.write_str("IPv4 forwarding"),
                Family::V6 => f.write_str("IPv6 forwarding"),
            },
        }?;
        match self.1 {
            Some(id) => write!(f, " (container {id})"),
            None => Ok(()),
        }
    }
}
