//! What the kernel holds with our mark: links, and what stands on them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use mydocker_core::{
    Address, Bridge, ErrorKind, Footprint, Hairpin, Instance, Link, LinkName, LinkSysctl, LooseEnd,
    Master, Move, Ns, Object, OpError, Route, Up, Veth,
};

use crate::home::{self, Home};
use crate::link::Seen;
use crate::rtnl::RouteSocket;
use crate::{address, errno, link, netns, route, sysctl};

/// Every link of ours in the host and in the sandboxes of `wanted`, and what stands on them.
pub(crate) fn links(
    socket: &mut RouteSocket,
    home: &Home,
    instance: Instance,
    wanted: &Footprint,
) -> Result<Footprint, OpError> {
    // Settings carry no mark, and an interface has a hundred of them: those that nobody wants are
    // never taken back, so nobody needs to know them.
    let mut spaces: BTreeMap<&Ns, Vec<&LinkSysctl>> = BTreeMap::from([(&Ns::Host, Vec::new())]);
    for object in wanted {
        let settings = spaces.entry(object.ns()).or_default();
        if let Object::LinkSysctl(setting) = object {
            settings.push(setting);
        }
    }
    let settings = spaces.remove(&Ns::Host).unwrap_or_default();
    let host = home.inside(|| Look::at(socket, instance, &settings))??;
    let links = host.by_index();
    let mut all = host.of_host(&links);
    let mut visited = BTreeSet::new();
    for (ns, settings) in spaces {
        let file = match home::open(ns) {
            Ok(file) => file,
            Err(error) if error.kind == ErrorKind::Missing => continue,
            Err(error) => return Err(error),
        };
        let looked = netns::run_in_fd(file.as_fd(), || {
            let mut socket = RouteSocket::open().map_err(|e| errno::of_io("rtnetlink", &e))?;
            Look::at(&mut socket, instance, &settings)
        });
        let mut inside = looked.map_err(|e| errno::of_io("container's namespace", &e))??;
        inside.moved_from(&links, ns, wanted, &mut all);
        inside.stands_on_links(ns, &mut all);
        visited.insert(ns);
    }
    loosen(&host, &links, &visited, wanted, &mut all);
    Ok(all)
}

/// A bridge, or the near end of a cable.
fn host_link(link: &Seen, links: &BTreeMap<u32, &Seen>, instance: Instance, all: &mut Footprint) {
    let (Some(name), mtu_bytes) = (link.link_name(), link.mtu_bytes) else {
        return;
    };
    match link.kind.as_str() {
        "bridge" => {
            if let Some(mac) = link.mac {
                all.insert(Object::Bridge(Bridge {
                    instance,
                    name,
                    mac,
                    mtu_bytes,
                    internal: link.group == instance.internal_group(),
                }));
            }
        }
        "veth" => {
            let near = |end: LinkName| Veth {
                instance,
                name: end,
                mtu_bytes,
            };
            let peer = link.peer.filter(|_| !link.peer_is_away);
            let peer = peer.and_then(|index| links.get(&index)?.link_name());
            // A far end that was not moved yet is no cable of its own.
            if peer.is_none_or(|peer| near(peer).peer() != name) {
                all.insert(Object::Veth(near(name)));
            }
        }
        _ => {}
    }
    if let Some(master) = link.master.and_then(|index| links.get(&index))
        && let Some(bridge) = master.link_name()
    {
        let link_name = name;
        if link.up && link.is_silent() {
            all.insert(Object::Master(Master {
                link: link_name,
                bridge,
            }));
        }
        if link.hairpin {
            all.insert(Object::Hairpin(Hairpin { link: link_name }));
        }
    }
}

/// Cables whose far ends are neither in a container that was visited nor in the host, waiting to be moved,
/// are loose ends: wherever the far ends are, nobody could move them from there. What belongs into a
/// namespace that could not be visited may well be there.
fn loosen(
    host: &Look,
    links: &BTreeMap<u32, &Seen>,
    visited: &BTreeSet<&Ns>,
    wanted: &Footprint,
    all: &mut Footprint,
) {
    let belongs = wanted.iter().filter_map(|object| match object {
        Object::Move(moved) if visited.contains(&moved.to.ns) => Some(moved.host),
        _ => None,
    });
    let arrived = all.iter().filter_map(|object| match object {
        Object::Move(moved) => Some(moved.host),
        _ => None,
    });
    let lost = &belongs.collect::<BTreeSet<_>>() - &arrived.collect();
    let cables = all.iter().filter_map(|object| match object {
        Object::Veth(cable) if lost.contains(&cable.name) => Some(cable.clone()),
        _ => None,
    });
    for cable in cables.collect::<Vec<_>>() {
        let near = host
            .ours()
            .find(|seen| seen.link_name() == Some(cable.name));
        let far = near.filter(|near| !near.peer_is_away);
        let far = far.and_then(|near| links.get(&near.peer?)?.link_name());
        if far != Some(cable.peer()) {
            let link = Link::host(cable.name);
            all.remove(&Object::Veth(cable));
            all.insert(Object::LooseEnd(LooseEnd { link }));
        }
    }
}

/// What one namespace holds.
pub(crate) struct Look {
    pub(crate) instance: Instance,
    pub(crate) all: Vec<Seen>,
    pub(crate) addresses: Vec<address::Seen>,
    pub(crate) routes: Vec<route::Seen>,
    pub(crate) settings: Vec<LinkSysctl>,
}

impl Look {
    /// Looks around in the namespace of the calling thread and the socket, and reads `settings`.
    fn at(
        socket: &mut RouteSocket,
        instance: Instance,
        settings: &[&LinkSysctl],
    ) -> Result<Self, OpError> {
        let mut look = Self {
            instance,
            all: socket.dump(&link::list(), Seen::decode)?,
            addresses: socket.dump(&address::list(), address::Seen::decode)?,
            routes: socket.dump(&route::list(), route::Seen::decode)?,
            settings: Vec::new(),
        };
        let known: BTreeSet<LinkName> = look.ours().filter_map(Seen::link_name).collect();
        let ours = settings
            .iter()
            .filter(|setting| known.contains(&setting.link.name));
        look.settings = ours.filter_map(|setting| sysctl::get(setting)).collect();
        Ok(look)
    }

    fn by_index(&self) -> BTreeMap<u32, &Seen> {
        self.all.iter().map(|link| (link.index, link)).collect()
    }

    /// What there is of ours, where this is the host.
    fn of_host(&self, links: &BTreeMap<u32, &Seen>) -> Footprint {
        let mut all = Footprint::new();
        self.stands_on_links(&Ns::Host, &mut all);
        for link in self.ours() {
            host_link(link, links, self.instance, &mut all);
        }
        all
    }

    fn ours(&self) -> impl Iterator<Item = &Seen> {
        let ours = |link: &&Seen| self.instance.owns(link.group);
        self.all.iter().filter(ours)
    }

    fn our_link(&self, index: u32, ns: &Ns) -> Option<Link> {
        let seen = self.ours().find(|link| link.index == index)?;
        let (ns, name) = (ns.clone(), seen.link_name()?);
        Some(Link { ns, name })
    }

    fn stands_on_links(&self, ns: &Ns, all: &mut Footprint) {
        for seen in self.addresses.iter().filter(|seen| !seen.is_link_local()) {
            if let Some(link) = self.our_link(seen.index, ns) {
                let address = seen.address;
                all.insert(Object::Address(Address { link, address }));
            }
        }
        for seen in self.routes.iter().filter(|seen| seen.is_marked()) {
            if let (Some(via), Some(index)) = (seen.via, seen.index)
                && let Some(link) = self.our_link(index, ns)
            {
                let (destination, metric) = (seen.destination, seen.metric);
                all.insert(Object::Route(Route {
                    link,
                    destination,
                    via,
                    metric,
                }));
            }
        }
        all.extend(self.settings.iter().cloned().map(Object::LinkSysctl));
        let inside = matches!(ns, Ns::Sandbox(_));
        for seen in self.all.iter().filter(|seen| seen.up) {
            let Some(name) = seen.link_name() else {
                continue;
            };
            let loopback = inside && name == LinkName::LOOPBACK;
            // That the near end of a cable is up is part of its being plugged in.
            let ours = self.instance.owns(seen.group) && (inside || seen.kind == "bridge");
            if loopback || ours {
                let link = Link {
                    ns: ns.clone(),
                    name,
                };
                all.insert(Object::Up(Up { link }));
            }
        }
    }

    /// The far ends of the host's cables that are here, and what took the place of one. Others under our
    /// mark are not ours: a container may well run a mydocker of its own.
    fn moved_from(
        &mut self,
        host: &BTreeMap<u32, &Seen>,
        ns: &Ns,
        wanted: &Footprint,
        all: &mut Footprint,
    ) {
        let instance = self.instance;
        let is_wanted = |link: &Link| {
            let mut objects = wanted.iter();
            objects.any(|object| matches!(object, Object::Move(moved) if moved.to == *link))
        };
        for seen in self.all.iter_mut().filter(|link| instance.owns(link.group)) {
            let Some(name) = seen.link_name() else {
                continue;
            };
            let to = Link {
                ns: ns.clone(),
                name,
            };
            let near = seen.peer.and_then(|index| host.get(&index));
            // Indices repeat between namespaces: each end must name the other.
            let near = near.filter(|near| {
                let away = seen.peer_is_away && near.peer_is_away;
                away && instance.owns(near.group) && near.peer == Some(seen.index)
            });
            match (near.and_then(|near| near.link_name()), seen.mac) {
                (Some(host), Some(mac)) => drop(all.insert(Object::Move(Move { host, to, mac }))),
                _ if is_wanted(&to) => drop(all.insert(Object::LooseEnd(LooseEnd { link: to }))),
                _ => seen.group = 0,
            }
        }
    }
}

/// What a look comes to, as the host's and as a container's of that host.
pub(crate) fn fuzz(host: &Look, inside: &mut Look) -> Footprint {
    let links = host.by_index();
    let mut all = host.of_host(&links);
    if let Ok(netns) = "/run/netns/fuzz".parse() {
        let ns = Ns::Sandbox(netns);
        inside.moved_from(&links, &ns, &Footprint::new(), &mut all);
        inside.stands_on_links(&ns, &mut all);
    }
    all
}
