//! What the model kernel answers to an addition.

use std::net::IpAddr;

use mydocker_core::{
    Address, Element, ErrorKind, Family, Footprint, ForwardChain, Forwarding, Hairpin, Instance,
    Link, LinkName, LinkSysctl, Master, Move, Ns, Object, OpError, OpResult, Passage, Route, Up,
    Veth,
};

use super::{Kernel, refused};

/// `EINVAL`, errno.h.
const EINVAL: i32 = 22;
/// `EXFULL`, errno.h: what a bridge says when it has no port number left.
const EXFULL: i32 = 54;
/// `ENETDOWN`, errno.h.
const ENETDOWN: i32 = 100;
/// `ENETUNREACH`, errno.h.
const ENETUNREACH: i32 = 101;
/// `EHOSTUNREACH`, errno.h.
const EHOSTUNREACH: i32 = 113;
/// Source: `BR_MAX_PORTS`, net/bridge/br_private.h, less port 0.
const BRIDGE_PORTS_MAX: usize = 1023;
/// `IP6_RT_PRIO_USER`, linux/ipv6_route.h: what the kernel makes of no metric.
const METRIC6_DEFAULT: u32 = 1024;

impl Kernel {
    pub(super) fn add(&mut self, object: &Object) -> OpResult {
        match object {
            Object::Ruleset(instance) => self.make_table(*instance)?,
            Object::Zone(zone) => self.may_add_element(object, zone.instance)?,
            Object::Masquerade(masquerade) => self.may_add_element(object, masquerade.instance)?,
            Object::Dnat(dnat) => self.may_add_element(object, dnat.instance)?,
            Object::Pinhole(pinhole) => self.may_add_element(object, pinhole.instance)?,
            Object::Guard(guard) => self.may_add_element(object, guard.instance)?,
            Object::Passage(passage) => self.must_have_chain(passage)?,
            Object::Bridge(bridge) => self.may_name(&Link::host(bridge.name))?,
            Object::Veth(veth) => {
                self.may_name(&Link::host(veth.name))?;
                self.may_name(&Link::host(veth.peer()))?;
            }
            Object::Move(moved) => self.may_move(moved)?,
            Object::LooseEnd(_) => return Err(refused(ErrorKind::Unsupported, "nobody adds one")),
            Object::Master(master) => self.enslave(master)?,
            Object::Isolated(isolated) => self.may_add_element(object, isolated.instance)?,
            Object::Hairpin(Hairpin { link }) => self.must_be_port(*link)?,
            Object::LinkSysctl(sysctl) => self.overwrite(sysctl)?,
            Object::Address(address) => self.may_add_address(address)?,
            Object::Up(Up { link }) => self.may_raise(link)?,
            Object::Route(route) => self.may_add_route(route)?,
            Object::Forwarding(Forwarding { family }) => {
                self.host.forwarding.insert(*family);
                return Ok(());
            }
        }
        self.objects.insert(object.clone());
        Ok(())
    }

    /// Makes a cable with its far end where it is to go, so that this never has a name in the host:
    /// what the executor does with two ops in a row. Whether it did; if not, they are two ops.
    pub(super) fn add_cable(&mut self, veth: &Veth, moved: &Move) -> bool {
        let near = self.may_name(&Link::host(veth.name));
        let far = self.may_name(&moved.to);
        let fits = near.is_ok() && far.is_ok() && self.ns_is_there(&moved.to.ns);
        if fits {
            let both = [Object::Veth(veth.clone()), Object::Move(moved.clone())];
            self.objects.extend(both);
        }
        fits
    }

    fn must_have(&self, link: &Link) -> OpResult {
        if self.has_link(link) {
            Ok(())
        } else {
            Err(refused(
                ErrorKind::Missing,
                format!("ENODEV: there is no interface {link}"),
            ))
        }
    }

    fn may_name(&self, link: &Link) -> OpResult {
        if self.name_is_taken(link) {
            return Err(exists(format!("interface {link}")));
        }
        Ok(())
    }

    /// A container's loopback has no mark of ours, and is raised all the same.
    fn may_raise(&self, link: &Link) -> OpResult {
        let inside = matches!(link.ns, Ns::Sandbox(_)) && self.ns_is_there(&link.ns);
        if inside && link.name == LinkName::LOOPBACK {
            return Ok(());
        }
        self.must_have(link)
    }

    fn make_table(&mut self, instance: Instance) -> OpResult {
        let table = Object::Ruleset(instance);
        if self.foreign.contains(&table) {
            return Err(exists(format!("table {}", instance.table())));
        }
        self.del(&table)
    }

    fn may_add_element(&self, object: &Object, instance: Instance) -> OpResult {
        if !self.objects.contains(&Object::Ruleset(instance)) {
            let detail = format!("ENOENT: there is no table {}", instance.table());
            return Err(refused(ErrorKind::Missing, detail));
        }
        let mut others = self.objects.iter().chain(&self.foreign);
        let elements = object.elements();
        let left = |(whose, rest): &(Instance, Element)| {
            *whose == instance && elements.iter().any(|element| element.same_key(rest))
        };
        if others.any(|other| object.shares_key(other)) || self.rest.iter().any(left) {
            return Err(exists(format!(
                "an element of that key in {}",
                instance.table()
            )));
        }
        Ok(())
    }

    fn must_have_chain(&self, Passage { chain, .. }: &Passage) -> OpResult {
        let is_it = |found: &&ForwardChain| found.named().as_ref() == Some(chain);
        match self.host.forward_chains.iter().find(is_it) {
            None => {
                let detail = format!("ENOENT: there is no chain {chain}");
                Err(refused(ErrorKind::Missing, detail))
            }
            Some(found) if found.owned => {
                let detail = format!("EPERM: the table of {chain} belongs to a process");
                Err(refused(ErrorKind::Denied, detail))
            }
            Some(_) => Ok(()),
        }
    }

    fn may_move(&self, moved: &Move) -> OpResult {
        let peer = Link::host(moved.peer());
        if !self.is_ours(&Link::host(moved.host)) || !self.is_ours(&peer) {
            return Err(refused(
                ErrorKind::Missing,
                format!("ENODEV: there is no interface {peer}"),
            ));
        }
        if !self.ns_is_there(&moved.to.ns) {
            let detail = format!("ENOENT: the namespace of {} is gone", moved.to);
            return Err(refused(ErrorKind::Missing, detail));
        }
        self.may_name(&moved.to)
    }

    fn enslave(&mut self, master: &Master) -> OpResult {
        self.must_have(&Link::host(master.link))?;
        self.must_have(&Link::host(master.bridge))?;
        if self.objects.contains(&Object::Master(master.clone())) {
            return Ok(());
        }
        let is_bridge = |o: &Object| matches!(o, Object::Bridge(b) if b.name == master.bridge);
        if !self.objects.iter().any(is_bridge) {
            // The kernel unplugs first.
            self.release_port(master.link);
            let detail = format!("EOPNOTSUPP: {} is no bridge", master.bridge);
            return Err(refused(ErrorKind::Unsupported, detail));
        }
        let is_port = |o: &&Object| matches!(o, Object::Master(m) if m.bridge == master.bridge);
        if self.objects.iter().filter(is_port).count() >= BRIDGE_PORTS_MAX {
            let detail = format!("EXFULL: bridge {} has no port left", master.bridge);
            return Err(refused(ErrorKind::Os(EXFULL), detail));
        }
        self.release_port(master.link);
        Ok(())
    }

    fn must_be_port(&self, link: LinkName) -> OpResult {
        let is_it = |o: &Object| matches!(o, Object::Master(m) if m.link == link);
        if self.objects.iter().any(is_it) {
            Ok(())
        } else {
            Err(refused(
                ErrorKind::Missing,
                format!("{link} is no port of a bridge"),
            ))
        }
    }

    fn overwrite(&mut self, sysctl: &LinkSysctl) -> OpResult {
        self.must_have(&sysctl.link)?;
        self.objects.retain(|object| match object {
            Object::LinkSysctl(old) => {
                (&old.link, old.family, &old.key) != (&sysctl.link, sysctl.family, &sysctl.key)
            }
            _ => true,
        });
        if sysctl.family == Family::V6 && sysctl.key == "disable_ipv6" && sysctl.value != 0 {
            self.flush_addresses(&sysctl.link, Family::V6);
            self.flush_routes(&sysctl.link, Some(Family::V6));
        }
        Ok(())
    }

    fn may_add_address(&self, new: &Address) -> OpResult {
        self.must_have(&new.link)?;
        let family = Family::of(new.address.addr());
        if family == Family::V6 && self.ipv6_is_off(&new.link) {
            let detail = format!("EACCES: IPv6 is disabled on {}", new.link);
            return Err(refused(ErrorKind::Denied, detail));
        }
        // IPv4 tells addresses of several prefix lengths apart, IPv6 does not.
        let same = |old: &Address| {
            old.link == new.link
                && old.address.addr() == new.address.addr()
                && (family == Family::V6 || old.address == new.address)
        };
        let taken = |o: &Object| matches!(o, Object::Address(old) if same(old));
        if self.objects.iter().chain(&self.foreign).any(taken) {
            return Err(exists(format!("address {} on {}", new.address, new.link)));
        }
        Ok(())
    }

    fn ipv6_is_off(&self, link: &Link) -> bool {
        self.is_set6(link, "disable_ipv6")
    }

    /// Whether that setting of IPv6 was turned on.
    pub(super) fn is_set6(&self, link: &Link, key: &str) -> bool {
        let on = |s: &LinkSysctl| {
            s.link == *link && s.family == Family::V6 && s.key == key && s.value != 0
        };
        self.objects
            .iter()
            .any(|o| matches!(o, Object::LinkSysctl(s) if on(s)))
    }

    fn may_add_route(&self, new: &Route) -> OpResult {
        self.must_have(&new.link)?;
        let family = Family::of(new.via);
        let here: Vec<&Address> = addresses(&self.objects, &new.link).collect();
        let reached = here
            .iter()
            .any(|address| address.address.contains(&new.via));
        let up = self.is_up(&new.link);
        let itself = self.is_itself(new);
        if let Some((errno, name)) = next_hop(family, up, reached, itself) {
            let detail = format!("{name}: {} does not lead to next hop {}", new.link, new.via);
            return Err(refused(ErrorKind::Os(errno), detail));
        }
        let taken = |o: &Object| match o {
            Object::Route(old) => {
                old.link.ns == new.link.ns
                    && old.destination == new.destination
                    && metric(old.metric, old.via) == metric(new.metric, new.via)
            }
            // An IPv4 subnet's own route has metric 0 and stands in the same place, once its link is up.
            Object::Address(old) => {
                family == Family::V4
                    && self.is_up(&old.link)
                    && old.link.ns == new.link.ns
                    && old.address.trunc() == new.destination
                    && metric(new.metric, new.via) == 0
            }
            _ => false,
        };
        if self.objects.iter().chain(&self.foreign).any(taken) {
            return Err(exists(format!(
                "a route to {} by {}",
                new.destination, new.link
            )));
        }
        Ok(())
    }

    fn is_up(&self, link: &Link) -> bool {
        let link = link.clone();
        self.objects.contains(&Object::Up(Up { link }))
    }

    /// Whether a next hop is an address of the interface; of IPv6, of any in the namespace.
    fn is_itself(&self, route: &Route) -> bool {
        let near = |link: &Link| match Family::of(route.via) {
            Family::V4 => *link == route.link,
            Family::V6 => link.ns == route.link.ns,
        };
        self.objects.iter().any(|object| match object {
            Object::Address(Address { link, address }) => near(link) && address.addr() == route.via,
            _ => false,
        })
    }
}

fn addresses<'a>(all: &'a Footprint, link: &'a Link) -> impl Iterator<Item = &'a Address> {
    all.iter().filter_map(move |object| match object {
        Object::Address(address) if address.link == *link => Some(address),
        _ => None,
    })
}

/// What is wrong with a next hop, if anything: where an interface is up, whether one of its subnets
/// has it, whether it is that interface.
fn next_hop(family: Family, up: bool, reached: bool, itself: bool) -> Option<(i32, &'static str)> {
    match (family, up, itself) {
        (Family::V4, true, true) => None,
        (Family::V4, false, true) => Some((ENETDOWN, "ENETDOWN")),
        (Family::V6, _, true) => Some((EINVAL, "EINVAL")),
        (_, true, false) if reached => None,
        (Family::V4, _, false) => Some((ENETUNREACH, "ENETUNREACH")),
        (Family::V6, _, false) => Some((EHOSTUNREACH, "EHOSTUNREACH")),
    }
}

fn metric(given: Option<u32>, via: IpAddr) -> u32 {
    match (Family::of(via), given) {
        (Family::V4, given) => given.unwrap_or(0),
        (Family::V6, None | Some(0)) => METRIC6_DEFAULT,
        (Family::V6, Some(given)) => given,
    }
}

fn exists(what: String) -> OpError {
    refused(
        ErrorKind::Exists,
        format!("EEXIST: {what} is there already"),
    )
}
