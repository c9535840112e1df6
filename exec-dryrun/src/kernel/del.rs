//! What the model kernel answers to a removal, and what it lets go along.

use mydocker_core::{
    Address, Element, Family, Footprint, Forwarding, Link, LinkName, Move, Object, OpResult, Up,
    standing_on,
};

use super::{Kernel, refused};

impl Kernel {
    pub(super) fn del(&mut self, object: &Object) -> OpResult {
        match object {
            Object::Ruleset(instance) => {
                self.remove([object.clone()].into());
                self.rest.retain(|(whose, _)| whose != instance);
            }
            Object::Hairpin(_) => self.remove([object.clone()].into()),
            Object::Zone(_)
            | Object::Masquerade(_)
            | Object::Dnat(_)
            | Object::Pinhole(_)
            | Object::Guard(_)
            | Object::Isolated(_) => self.remove_elements(object),
            Object::Bridge(bridge) => self.remove_link(bridge.name),
            Object::Veth(veth) => self.remove_link(veth.name),
            Object::Move(moved) => self.move_back(moved)?,
            Object::LooseEnd(_) => self.remove([object.clone()].into()),
            Object::Master(master) => self.release_port(master.link),
            // A setting has some value as long as its link is there.
            Object::LinkSysctl(_) => {}
            Object::Address(address) => self.remove_address(address),
            Object::Up(Up { link }) => {
                if !object.lingers() && self.objects.remove(object) {
                    if !self.is_set6(link, "keep_addr_on_down") {
                        self.flush_addresses(link, Family::V6);
                    }
                    self.flush_routes(link, None);
                }
            }
            Object::Passage(_) | Object::Route(_) => {
                self.objects.remove(object);
            }
            Object::Forwarding(Forwarding { family }) => {
                self.host.forwarding.remove(family);
            }
        }
        Ok(())
    }

    /// Removes whichever link of ours has that name in the host; one that lacks our mark is not
    /// there.
    pub(super) fn remove_link(&mut self, name: LinkName) {
        let is_it = |object: &&Object| match object {
            Object::Bridge(bridge) => bridge.name == name,
            Object::Veth(veth) => veth.name == name,
            Object::LooseEnd(end) => end.link == Link::host(name),
            _ => false,
        };
        let roots = self.objects.iter().filter(is_it).cloned().collect();
        self.remove(roots);
    }

    /// Takes a link out of its bridge; how it behaved as a port is forgotten.
    pub(super) fn release_port(&mut self, link: LinkName) {
        self.objects.retain(|object| match object {
            Object::Master(master) => master.link != link,
            Object::Hairpin(hairpin) => hairpin.link != link,
            _ => true,
        });
    }

    pub(super) fn flush_addresses(&mut self, link: &Link, family: Family) {
        self.objects.retain(|object| match object {
            Object::Address(address) => {
                address.link != *link || Family::of(address.address.addr()) != family
            }
            _ => true,
        });
    }

    /// Drops the link's routes, of one family or both.
    pub(super) fn flush_routes(&mut self, link: &Link, family: Option<Family>) {
        self.objects.retain(|object| match object {
            Object::Route(route) => {
                route.link != *link || family.is_some_and(|f| f != Family::of(route.via))
            }
            _ => true,
        });
    }

    fn remove(&mut self, roots: Footprint) {
        for object in standing_on(&roots, &self.objects) {
            if let Object::Master(master) = &object {
                self.release_port(master.link);
            }
            self.objects.remove(&object);
        }
    }

    /// An element has no mark but the table that it is in: whose it is, a deletion by key can't tell,
    /// nor can the real kernel.
    fn remove_elements(&mut self, object: &Object) {
        let gone = object.elements();
        let goes = |element: &Element| gone.iter().any(|gone| gone.same_key(element));
        let Some(instance) = object.firewall() else {
            return;
        };
        self.rest
            .retain(|(whose, element)| *whose != instance || !goes(element));
        let hit = |other: &&Object| object.shares_key(other);
        for other in self.objects.clone().iter().filter(hit) {
            let left = other
                .elements()
                .into_iter()
                .filter(|element| !goes(element));
            self.rest.extend(left.map(|element| (instance, element)));
            self.objects.remove(other);
        }
        self.foreign.retain(|other| !object.shares_key(other));
    }

    fn move_back(&mut self, moved: &Move) -> OpResult {
        let same = |o: &&Object| matches!(o, Object::Move(m) if (m.host, &m.to) == (moved.host, &moved.to));
        let Some(found) = self.objects.iter().find(same).cloned() else {
            return Ok(());
        };
        let peer = Link::host(moved.peer());
        if self.name_is_taken(&peer) {
            let detail = format!("EEXIST: interface {peer} is there already");
            return Err(refused(mydocker_core::ErrorKind::Exists, detail));
        }
        self.remove([found].into());
        Ok(())
    }

    fn remove_address(&mut self, address: &Address) {
        if !self.objects.remove(&Object::Address(address.clone())) {
            return;
        }
        let v4 = |a: &Address| Family::of(a.address.addr()) == Family::V4;
        let other = |o: &Object| matches!(o, Object::Address(a) if a.link == address.link && v4(a));
        // `fib_disable_ip`, net/ipv4/fib_frontend.c
        if v4(address) && !self.objects.iter().any(other) {
            self.flush_routes(&address.link, Some(Family::V4));
        }
    }
}
