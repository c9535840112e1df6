//! The nf_tables half of an op: one batch for a run of them.

use std::io;
use std::sync::Arc;

use mydocker_core::{
    Element, ErrorKind, Footprint, Instance, Object, Op, OpError, OpResult, Passage, Ruleset,
    Table, objects_of,
};

use netlink_sys::Socket;

use crate::conntrack::ConntrackSocket;
use crate::errno;
use crate::home::Home;
use crate::nft::{Batch, BatchError, Condition, Foreign, NftSocket, Seen};

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

    /// The socket, if it is open.
    pub(crate) fn shared(&self) -> Option<Arc<Socket>> {
        self.socket.as_ref().map(NftSocket::shared)
    }

    /// The way to tracked connections.
    pub(crate) fn conntrack(&mut self) -> Result<ConntrackSocket, OpError> {
        Ok(ConntrackSocket::over(self.socket()?.shared()))
    }

    fn socket(&mut self) -> Result<&mut NftSocket, OpError> {
        self.socket
            .as_mut()
            .ok_or_else(|| errno::in_doubt("no socket was opened"))
    }
}

/// Tries ops in order, up to the first that fails. All of one instance go in one batch, which
/// lands as a whole or not at all; if it does not, they are tried one at a time, so that each has
/// an answer of its own.
pub(crate) fn apply(firewall: &mut Firewall, ops: &[Op]) -> Vec<OpResult> {
    let Some(instance) = ops.first().and_then(|op| op.object().firewall()) else {
        return Vec::new();
    };
    let ops = &ops[..batch_length(instance, ops)];
    match all_at_once(firewall, instance, ops) {
        Ok(()) => vec![Ok(()); ops.len()],
        Err(error) if error.kind == ErrorKind::InDoubt => vec![Err(error); ops.len()],
        Err(_) => one_by_one(firewall, instance, ops),
    }
}

/// How many ops fit a batch. Tables and passages are looked at before it is written: what it does to
/// one must be seen by the next op about it.
fn batch_length(instance: Instance, ops: &[Op]) -> usize {
    let looked_at = |object: &Object| matches!(object, Object::Ruleset(_) | Object::Passage(_));
    let fits = |(at, op): &(usize, &Op)| {
        let object = op.object();
        let before = || ops[..*at].iter().any(|earlier| earlier.object() == object);
        object.firewall() == Some(instance) && !(looked_at(object) && before())
    };
    ops.iter().enumerate().take_while(fits).count()
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
    if matches!(object, Object::Ruleset(_) | Object::Passage(_)) {
        let op = Op::Del(object.clone());
        return errno::gone_is_fine(all_at_once(firewall, instance, &[op]));
    }
    let socket = firewall.socket()?;
    for element in object.elements() {
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
    let mut look = |table: &Table| {
        let seen = socket.look(table);
        seen.map_err(|error| errno::of_io("nf_tables", &error))
    };
    match op {
        Op::Add(Object::Ruleset(_)) => {
            for table in &Ruleset::of(instance).tables {
                match look(table)? {
                    Seen::Ours(contents) => batch.renew_table(table, &contents),
                    // One of somebody else's is not touched: creating it is refused.
                    Seen::Absent | Seen::Foreign => batch.create_table(table),
                }
            }
        }
        Op::Del(Object::Ruleset(_)) => {
            for table in &Ruleset::of(instance).tables {
                if let Seen::Ours(contents) = look(table)? {
                    batch.retire_table(table, &contents);
                }
            }
        }
        Op::Add(Object::Passage(passage)) => {
            // One is enough, also where an earlier life of ours left it.
            if handles(socket, passage)?.is_empty() {
                batch.insert_passage(passage);
            }
        }
        Op::Del(Object::Passage(passage)) => {
            for handle in handles(socket, passage)? {
                batch.delete_rule(&passage.chain, handle);
            }
        }
        Op::Add(object) => object
            .elements()
            .iter()
            .for_each(|element| batch.add(element)),
        Op::Del(object) => object
            .elements()
            .iter()
            .for_each(|element| batch.delete(element)),
    }
    Ok(())
}

/// The numbers of the rules that are this passage. The kernel chose them, so that it takes a dump of
/// one chain to know them: when a network comes or goes, never when a container does.
fn handles(socket: &mut NftSocket, passage: &Passage) -> Result<Vec<u64>, OpError> {
    let found = socket.passage_handles(passage);
    found.map_err(|error| errno::of_io("nf_tables", &error))
}

fn commit(socket: &mut NftSocket, batch: &Batch) -> Result<(), OpError> {
    match socket.commit(batch) {
        Ok(()) => Ok(()),
        Err(BatchError::Refused { errno, text, .. }) => Err(errno::refusal(errno, text.as_deref())),
        Err(BatchError::Unsent(error)) => Err(errno::of_io("nf_tables", &error)),
        Err(BatchError::InDoubt(error)) => Err(errno::in_doubt(error)),
    }
}

/// What our tables hold. One that was edited, or holds what we would never have put there, counts
/// as absent with all its elements: then all of it is made anew, in one batch.
pub(crate) fn observe(firewall: &mut Firewall, instance: Instance) -> Result<Footprint, OpError> {
    let ruleset = Ruleset::of(instance);
    let socket = firewall.socket()?;
    let read = |error: io::Error| errno::of_io("nf_tables", &error);
    for table in &ruleset.tables {
        match socket.look(table).map_err(read)?.condition(table) {
            Condition::Intact => {}
            Condition::Absent | Condition::Foreign | Condition::Damaged => {
                return Ok(Footprint::new());
            }
        }
    }
    let elements = socket.all_elements(&ruleset).map_err(read)?;
    let ours: Option<Vec<Element>> = elements.into_iter().collect();
    Ok(ours
        .and_then(|elements| objects_of(instance, elements))
        .unwrap_or_default())
}

/// What others have on the forward hook. Nothing where nobody lets us look, or there are no
/// nf_tables to look at: then a network can't come up, and planning one is no reason to fail.
pub(crate) fn foreign(firewall: &mut Firewall, home: &Home) -> Result<Foreign, OpError> {
    let seen = firewall.open(home).and_then(|()| {
        let seen = firewall.socket()?.foreign_forward_chains();
        seen.map_err(|error| errno::of_io("nf_tables", &error))
    });
    match seen {
        Err(error) if matches!(error.kind, ErrorKind::Denied | ErrorKind::Unsupported) => {
            Ok(Foreign::default())
        }
        seen => seen,
    }
}

/// The passages of an instance. One that somebody edited is not among them, and will never be
/// removed: it is theirs.
pub(crate) fn passages(foreign: Foreign, instance: Instance) -> impl Iterator<Item = Object> {
    let passages = foreign
        .passed
        .into_iter()
        .filter_map(move |(chain, comment)| {
            let chain = chain.named()?;
            let passage = Passage { instance, chain };
            (passage.comment() == comment).then_some(passage)
        });
    passages.map(Object::Passage)
}
