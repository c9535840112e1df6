//! The nf_tables half of an op: one batch for a run of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use mydocker_core::{
    Dnat, ErrorKind, Footprint, Guard, Instance, LinkName, Mac, Masquerade, Object, Op, OpError,
    OpResult, Protocol, Ruleset, Table, Zone,
};
use nix::errno::Errno;

use crate::errno;
use crate::home::Home;
use crate::nft::{Batch, BatchError, Condition, Element, NftSocket};

/// The host's socket to nf_tables, opened when it is first needed: attaching a container that
/// publishes nothing to a network without guards needs none.
#[derive(Debug, Default)]
pub(crate) struct Firewall {
    socket: Option<NftSocket>,
}

impl Firewall {
    /// Opens the socket in the host's namespace, once.
    pub(crate) fn open(&mut self, home: &Home) -> Result<(), OpError> {
        if self.socket.is_none() {
            let opened = home.inside(NftSocket::open)?;
            self.socket = Some(opened.map_err(|error| errno::of_io("nf_tables", &error))?);
        }
        Ok(())
    }

    fn socket(&mut self) -> Result<&mut NftSocket, OpError> {
        self.socket
            .as_mut()
            .ok_or_else(|| errno::in_doubt("no socket was opened"))
    }
}

/// Whether an object is part of the firewall.
pub(crate) fn is_its(object: &Object) -> bool {
    instance_of(object).is_some()
}

fn instance_of(object: &Object) -> Option<Instance> {
    match object {
        Object::Ruleset(instance)
        | Object::Zone(Zone { instance, .. })
        | Object::Masquerade(Masquerade { instance, .. })
        | Object::Dnat(Dnat { instance, .. })
        | Object::Guard(Guard { instance, .. }) => Some(*instance),
        _ => None,
    }
}

/// Tries ops in order, up to the first that fails. All of one instance go in one batch, which
/// lands as a whole or not at all; if it does not, they are tried one at a time, so that each has
/// an answer of its own.
pub(crate) fn apply(firewall: &mut Firewall, ops: &[Op]) -> Vec<OpResult> {
    let Some(instance) = ops.first().and_then(|op| instance_of(op.object())) else {
        return Vec::new();
    };
    let run = ops
        .iter()
        .take_while(|op| instance_of(op.object()) == Some(instance))
        .count();
    let ops = &ops[..run];
    match all_at_once(firewall, instance, ops) {
        Ok(()) => vec![Ok(()); ops.len()],
        Err(error) if error.kind == ErrorKind::InDoubt => vec![Err(error); ops.len()],
        Err(_) => one_by_one(firewall, instance, ops),
    }
}

fn all_at_once(firewall: &mut Firewall, instance: Instance, ops: &[Op]) -> Result<(), OpError> {
    let socket = firewall.socket()?;
    let mut batch = Batch::new(&instance.table());
    for op in ops {
        write(socket, &mut batch, instance, op)?;
    }
    commit(socket, &batch)
}

fn one_by_one(firewall: &mut Firewall, instance: Instance, ops: &[Op]) -> Vec<OpResult> {
    let mut results = Vec::new();
    for op in ops {
        let result = match op {
            Op::Add(_) => all_at_once(firewall, instance, std::slice::from_ref(op)),
            Op::Del(object) => remove(firewall, instance, object),
        };
        let failed = result.is_err();
        results.push(result);
        if failed {
            break;
        }
    }
    results
}

/// Element by element, for one that is absent keeps a batch from deleting the others.
fn remove(firewall: &mut Firewall, instance: Instance, object: &Object) -> Result<(), OpError> {
    if matches!(object, Object::Ruleset(_)) {
        let op = Op::Del(object.clone());
        return errno::gone_is_fine(all_at_once(firewall, instance, &[op]));
    }
    let socket = firewall.socket()?;
    for element in elements(object)? {
        let mut batch = Batch::new(&instance.table());
        batch.delete(&element);
        errno::gone_is_fine(commit(socket, &batch))?;
    }
    Ok(())
}

fn write(
    socket: &mut NftSocket,
    batch: &mut Batch,
    instance: Instance,
    op: &Op,
) -> Result<(), OpError> {
    let mut delete_ours = |batch: &mut Batch, table: &Table| {
        let owned = socket.owned(table.family, &table.name);
        if owned.map_err(|error| errno::of_io("nf_tables", &error))? == Some(true) {
            batch.delete_table(table.family);
        }
        Ok(())
    };
    match op {
        Op::Add(Object::Ruleset(_)) => {
            // A table of ours that somebody edited is made anew, one of somebody else's is not
            // touched: creating it is refused.
            for table in &Ruleset::of(instance).tables {
                delete_ours(batch, table)?;
                batch.create_table(table);
            }
        }
        Op::Del(Object::Ruleset(_)) => {
            for table in &Ruleset::of(instance).tables {
                delete_ours(batch, table)?;
            }
        }
        Op::Add(object) => elements(object)?
            .iter()
            .for_each(|element| batch.add(element)),
        Op::Del(object) => elements(object)?
            .iter()
            .for_each(|element| batch.delete(element)),
    }
    Ok(())
}

fn commit(socket: &mut NftSocket, batch: &Batch) -> Result<(), OpError> {
    match socket.commit(batch) {
        Ok(()) => Ok(()),
        Err(BatchError::Refused { errno, text, .. }) => Err(errno::refusal(errno, text.as_deref())),
        Err(BatchError::Unsent(error)) => Err(errno::of_io("nf_tables", &error)),
        Err(BatchError::InDoubt(error)) => Err(errno::in_doubt(error)),
    }
}

/// The elements that an object is made of.
fn elements(object: &Object) -> Result<Vec<Element>, OpError> {
    Ok(match object {
        Object::Zone(zone) => {
            let mut all = vec![Element::Bridge(zone.bridge), Element::Own(zone.bridge)];
            all.extend(zone.internal.then_some(Element::Internal(zone.bridge)));
            all.extend(zone.open.then_some(Element::Open(zone.bridge)));
            all
        }
        Object::Masquerade(Masquerade { subnet, bridge, .. }) => {
            vec![Element::masquerade(*subnet, *bridge)]
        }
        Object::Dnat(Dnat {
            at,
            protocol,
            port,
            to,
            ..
        }) => {
            let element = Element::publish(*at, protocol.number(), *port, *to);
            vec![element.ok_or_else(|| OpError {
                kind: ErrorKind::Os(Errno::EINVAL as i32),
                detail: "EINVAL: a port of one family can't lead to an address of the other".into(),
            })?]
        }
        Object::Guard(guard) => {
            let (port, mac) = (guard.port, guard.mac);
            let mut all = vec![Element::Port(port), Element::Mac(port, mac)];
            for address in &guard.addresses {
                all.push(Element::Address(port, mac, *address));
                if let IpAddr::V6(target) = address {
                    all.push(Element::Target(port, *target));
                }
            }
            // What goes into one set shares a message.
            all.sort();
            all
        }
        _ => Vec::new(),
    })
}

/// What our tables hold. One that was edited, or holds what we would never have put there, counts
/// as absent with all its elements: then all of it is made anew, in one batch.
pub(crate) fn observe(firewall: &mut Firewall, instance: Instance) -> Result<Footprint, OpError> {
    let ruleset = Ruleset::of(instance);
    let socket = firewall.socket()?;
    let read = |error: io::Error| errno::of_io("nf_tables", &error);
    for table in &ruleset.tables {
        match socket.condition(table).map_err(read)? {
            Condition::Intact => {}
            Condition::Absent | Condition::Foreign | Condition::Outdated | Condition::Damaged => {
                return Ok(Footprint::new());
            }
        }
    }
    let elements = socket.all_elements(&instance.table()).map_err(read)?;
    Ok(objects(instance, elements).unwrap_or_default())
}

/// The objects that elements make up; nothing if some are left over.
fn objects(instance: Instance, elements: Vec<Element>) -> Option<Footprint> {
    let mut all = Footprint::from([Object::Ruleset(instance)]);
    let mut zones: BTreeMap<LinkName, Zone> = BTreeMap::new();
    let [mut own, mut internal, mut open] = [const { BTreeSet::<LinkName>::new() }; 3];
    let mut ports = BTreeSet::<LinkName>::new();
    let mut guards: BTreeMap<LinkName, Guard> = BTreeMap::new();
    let (mut addresses, mut targets) = (BTreeSet::new(), BTreeSet::new());
    for element in elements {
        match element {
            Element::Bridge(bridge) => {
                let (internal, open) = (false, false);
                zones.insert(
                    bridge,
                    Zone {
                        instance,
                        bridge,
                        internal,
                        open,
                    },
                );
            }
            Element::Own(bridge) => drop(own.insert(bridge)),
            Element::Internal(bridge) => drop(internal.insert(bridge)),
            Element::Open(bridge) => drop(open.insert(bridge)),
            Element::Masquerade { subnet, bridge } => {
                all.insert(Object::Masquerade(Masquerade {
                    instance,
                    subnet,
                    bridge,
                }));
            }
            Element::Publish4 {
                at,
                protocol,
                port,
                to,
            } => {
                let (at, to) = (at.map(IpAddr::V4), SocketAddr::V4(to));
                all.insert(dnat(instance, at, protocol, port, to)?);
            }
            Element::Publish6 {
                at,
                protocol,
                port,
                to,
            } => {
                let (at, to) = (at.map(IpAddr::V6), SocketAddr::V6(to));
                all.insert(dnat(instance, at, protocol, port, to)?);
            }
            Element::Port(port) => drop(ports.insert(port)),
            Element::Mac(port, mac) => {
                let addresses = BTreeSet::new();
                let guard = Guard {
                    instance,
                    port,
                    mac,
                    addresses,
                };
                if guards.insert(port, guard).is_some() {
                    return None;
                }
            }
            Element::Address(port, mac, address) => drop(addresses.insert((port, mac, address))),
            Element::Target(port, target) => drop(targets.insert((port, target))),
            Element::Stray(_) => return None,
        }
    }
    let bridges: BTreeSet<LinkName> = zones.keys().copied().collect();
    if own != bridges || !internal.is_subset(&bridges) || !open.is_subset(&bridges) {
        return None;
    }
    all.extend(guarded(ports, guards, addresses, &targets)?);
    for (bridge, mut zone) in zones {
        zone.internal = internal.contains(&bridge);
        zone.open = open.contains(&bridge);
        all.insert(Object::Zone(zone));
    }
    Some(all)
}

/// The guards that elements make up; nothing if some are left over or missing.
fn guarded(
    ports: BTreeSet<LinkName>,
    mut guards: BTreeMap<LinkName, Guard>,
    addresses: BTreeSet<(LinkName, Mac, IpAddr)>,
    targets: &BTreeSet<(LinkName, Ipv6Addr)>,
) -> Option<Vec<Object>> {
    let mut claimed = BTreeSet::new();
    for (port, mac, address) in addresses {
        let guard = guards.get_mut(&port).filter(|guard| guard.mac == mac)?;
        guard.addresses.insert(address);
        if let IpAddr::V6(target) = address {
            claimed.insert((port, target));
        }
    }
    let whole = claimed == *targets && guards.keys().eq(&ports);
    whole.then(|| guards.into_values().map(Object::Guard).collect())
}

fn dnat(
    instance: Instance,
    at: Option<IpAddr>,
    protocol: u8,
    port: u16,
    to: SocketAddr,
) -> Option<Object> {
    let protocol = Protocol::of_number(protocol)?;
    Some(Object::Dnat(Dnat {
        instance,
        at,
        protocol,
        port,
        to,
    }))
}
