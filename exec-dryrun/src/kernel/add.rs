//! What the model kernel answers to an addition.

use std::net::IpAddr;

use mydocker_core::{
    Address, ErrorKind, Family, Footprint, ForwardChain, Forwarding, Hairpin, Instance, Link,
    LinkName, LinkSysctl, Master, Move, Object, OpError, OpResult, Passage, Route, Up,
};

use super::{Kernel, refused};

/// `EINVAL`, errno.h.
const EINVAL: i32 = 22;
/// `EXFULL`, errno.h: what a bridge says when it has no port number left.
const EXFULL: i32 = 54;
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
            Object::Ruleset(instance) => self.may_add_table(*instance)?,
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
            Object::Master(master) => self.enslave(master)?,
            Object::Isolated(isolated) => self.may_add_element(object, isolated.instance)?,
            Object::Hairpin(Hairpin { link }) => self.must_be_port(*link)?,
            Object::LinkSysctl(sysctl) => self.overwrite(sysctl)?,
            Object::Address(address) => self.may_add_address(address)?,
            Object::Up(Up { link }) => self.must_have(link)?,
            Object::Route(route) => self.may_add_route(route)?,
            Object::Forwarding(Forwarding { family }) => {
                self.host.forwarding.insert(*family);
                return Ok(());
            }
        }
        self.objects.insert(object.clone());
        Ok(())
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

    fn may_add_table(&self, instance: Instance) -> OpResult {
        let table = Object::Ruleset(instance);
        if self.objects.contains(&table) || self.foreign.contains(&table) {
            return Err(exists(format!("table {}", instance.table())));
        }
        Ok(())
    }

    fn may_add_element(&self, object: &Object, instance: Instance) -> OpResult {
        if !self.objects.contains(&Object::Ruleset(instance)) {
            let detail = format!("ENOENT: there is no table {}", instance.table());
            return Err(refused(ErrorKind::Missing, detail));
        }
        if self
            .objects
            .iter()
            .chain(&self.foreign)
            .any(|other| object.shares_key(other))
        {
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
        let off = |s: &LinkSysctl| {
            s.link == *link && s.family == Family::V6 && s.key == "disable_ipv6" && s.value != 0
        };
        self.objects
            .iter()
            .any(|o| matches!(o, Object::LinkSysctl(s) if off(s)))
    }

    fn may_add_route(&self, new: &Route) -> OpResult {
        self.must_have(&new.link)?;
        let family = Family::of(new.via);
        let here: Vec<&Address> = addresses(&self.objects, &new.link).collect();
        let reached = here
            .iter()
            .any(|address| address.address.contains(&new.via));
        let up = self.objects.contains(&Object::Up(Up {
            link: new.link.clone(),
        }));
        if !reached || !up {
            let (errno, name) = match family {
                Family::V4 => (ENETUNREACH, "ENETUNREACH"),
                Family::V6 => (EHOSTUNREACH, "EHOSTUNREACH"),
            };
            let detail = format!("{name}: {} does not lead to next hop {}", new.link, new.via);
            return Err(refused(ErrorKind::Os(errno), detail));
        }
        if here.iter().any(|address| address.address.addr() == new.via) {
            let detail = format!("EINVAL: next hop {} is {} itself", new.via, new.link);
            return Err(refused(ErrorKind::Os(EINVAL), detail));
        }
        let taken = |o: &Object| match o {
            Object::Route(old) => {
                old.link.ns == new.link.ns
                    && old.destination == new.destination
                    && metric(old.metric, old.via) == metric(new.metric, new.via)
            }
            // An IPv4 subnet's own route has metric 0 and stands in the same place.
            Object::Address(old) => {
                family == Family::V4
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
}

fn addresses<'a>(all: &'a Footprint, link: &'a Link) -> impl Iterator<Item = &'a Address> {
    all.iter().filter_map(move |object| match object {
        Object::Address(address) if address.link == *link => Some(address),
        _ => None,
    })
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
