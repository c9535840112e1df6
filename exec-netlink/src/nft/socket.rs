//! The way to the kernel and back.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use mydocker_core::{Element, Ruleset, Set, TableFamily};
use netlink_sys::Socket;
use netlink_sys::constants::NETLINK_NETFILTER;
use nix::sys::socket::{setsockopt, sockopt};

use super::abi::*;
use super::attr::Writer;
use super::batch::Batch;
use super::dump::{self, Contents, Seen, Table};
use super::error::{Acknowledgement, BatchError};
use super::message::{Message, messages, request};
use crate::netlink::{receive, send};
use crate::room::Room;

/// What a socket takes without being asked (`net.core.wmem_default` is 212,992).
const SEND_BYTES_DEFAULT: usize = 100 * 1024;
/// How often a dump is started again because the ruleset changed under it.
const DUMP_TRIES_MAX: usize = 64;

/// A netfilter socket. It belongs for ever to the network namespace of the thread that opened it.
///
/// The kernel does all its work inside `send`: when that returns, the answers are waiting. So
/// nothing here blocks, and an answer that is not there will not come.
///
/// After a deletion, closing the socket waits 8 to 16 ms for the kernel to let go of the deleted:
/// close it where nobody waits.
#[derive(Debug)]
pub struct NftSocket {
    socket: Arc<Socket>,
    sequence: u32,
}

impl NftSocket {
    /// Opens a socket in the calling thread's network namespace. Loads the kernel's module if need
    /// be; `EPROTONOSUPPORT` without one.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_NETFILTER)?;
        // Errors in words, and without the whole message coming back with each.
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        Ok(Self {
            socket: Arc::new(socket),
            sequence: 0,
        })
    }

    /// The socket itself, for another protocol of netfilter's while this one is at rest.
    pub(crate) fn shared(&self) -> Arc<Socket> {
        Arc::clone(&self.socket)
    }

    /// Makes all changes of `batch`, or none of them if it fails.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), BatchError> {
        if batch.is_empty() {
            return Ok(());
        }
        let first = self.take_sequences(batch.sequences());
        let datagram = batch.datagram(first);
        self.send(&datagram).map_err(BatchError::Unsent)?;
        let mut answered = false;
        let mut refusal: Option<(u32, Acknowledgement)> = None;
        let mut lost = None;
        let mut room = Room::new();
        loop {
            match receive(&self.socket, &mut room) {
                Ok(true) => {}
                Ok(false) => break,
                // The queue overflowed. What is in it still counts.
                Err(error) if lost.is_none() => {
                    lost = Some(error);
                    continue;
                }
                Err(_) => break,
            }
            for message in messages(&room) {
                let index = message.sequence.wrapping_sub(first);
                let Some(ack) = Acknowledgement::decode(&message) else {
                    continue;
                };
                if index >= batch.sequences() {
                    continue;
                }
                answered |= index == batch.last_message();
                // Every refused message answers: the first one is the cause. A refused commit
                // answers as the message that opened the batch, even after good ones.
                if ack.errno != 0 && refusal.as_ref().is_none_or(|(least, _)| index < *least) {
                    refusal = Some((index, ack));
                }
            }
        }
        match (refusal, lost) {
            (Some((index, ack)), _) => Err(BatchError::Refused {
                op: batch.op_at(index, ack.offset),
                errno: ack.errno,
                text: ack.text,
            }),
            (None, Some(error)) => Err(BatchError::InDoubt(error)),
            (None, None) if answered => Ok(()),
            (None, None) => Err(BatchError::InDoubt(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// The tables of a family. Command: `nft list tables FAMILY`
    pub fn tables(&mut self, family: TableFamily) -> io::Result<Vec<Table>> {
        self.steadily(|socket| socket.tables_once(family))
    }

    pub(super) fn tables_once(&mut self, family: TableFamily) -> io::Result<Option<Vec<Table>>> {
        self.dump(
            family,
            NFT_MSG_GETTABLE,
            |_| (),
            |message, out| out.extend(Table::decode(family, message)),
        )
    }

    /// The table of that family and name, if there is one.
    pub fn table(&mut self, family: TableFamily, name: &str) -> io::Result<Option<Table>> {
        let sequence = self.ask(family, NFT_MSG_GETTABLE, 0, |out| {
            out.string(NFTA_TABLE_NAME, name);
        })?;
        match self.answer(sequence, |message| Table::decode(family, message)) {
            Ok(table) => Ok(Some(table)),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What stands under the name of `wanted`, down to the last expression; elements aside.
    pub fn look(&mut self, wanted: &mydocker_core::Table) -> io::Result<Seen> {
        let (family, name) = (wanted.family, wanted.name.as_str());
        self.steadily(|socket| {
            let Some(table) = socket.table(family, name)? else {
                return Ok(Some(Seen::Absent));
            };
            if !table.is_ours() {
                return Ok(Some(Seen::Foreign));
            }
            let mut objects = |get, new, kind| socket.objects(family, get, new, kind, name);
            let chains = objects(NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN, NFTA_CHAIN_TABLE)?;
            let sets = objects(NFT_MSG_GETSET, NFT_MSG_NEWSET, NFTA_SET_TABLE)?;
            let rules = objects(NFT_MSG_GETRULE, NFT_MSG_NEWRULE, NFTA_RULE_TABLE)?;
            let (Some(chains), Some(sets), Some(rules)) = (chains, sets, rules) else {
                return Ok(None);
            };
            Ok(Some(Seen::Ours(Contents {
                dormant: table.flags != 0,
                chains,
                sets,
                rules,
            })))
        })
    }

    /// The elements of one set; nothing for one that we would never have written. `ENOENT` if there
    /// is no such table or set. Command: `nft list set FAMILY TABLE SET`
    pub fn elements(
        &mut self,
        family: TableFamily,
        table: &str,
        set: Set,
    ) -> io::Result<Vec<Option<Element>>> {
        self.steadily(|socket| socket.elements_once(family, table, set))
    }

    /// The elements of all sets of the ruleset, one set after another, at one moment; nothing for
    /// one that we would never have written. `ENOENT` if a table or set is missing.
    pub fn all_elements(&mut self, ruleset: &Ruleset) -> io::Result<Vec<Option<Element>>> {
        self.steadily(|socket| {
            let mut all = Vec::new();
            for table in &ruleset.tables {
                for set in &table.sets {
                    match socket.elements_once(table.family, &table.name, *set)? {
                        Some(elements) => all.extend(elements),
                        None => return Ok(None),
                    }
                }
            }
            Ok(Some(all))
        })
    }

    fn elements_once(
        &mut self,
        family: TableFamily,
        table: &str,
        set: Set,
    ) -> io::Result<Option<Vec<Option<Element>>>> {
        let all = self.dump(
            family,
            NFT_MSG_GETSETELEM,
            |out| {
                out.string(NFTA_SET_ELEM_LIST_TABLE, table);
                out.string(NFTA_SET_ELEM_LIST_SET, set.name);
            },
            |message, out| out.extend(dump::elements(message, family, table, set)),
        )?;
        // A worker of the kernel's rearranges a set some time after it has grown. A dump goes on meanwhile
        // where it has come to, by count: some elements are told twice, and as many others not at all.
        Ok(all.filter(|all| are_distinct(all)))
    }

    /// The attributes of all chains, sets or rules of a table. The request names the table, but not
    /// every kernel leaves out the others, and for chains none does.
    fn objects(
        &mut self,
        family: TableFamily,
        get: u16,
        new: u16,
        kind: u16,
        table: &str,
    ) -> io::Result<Option<Vec<Vec<u8>>>> {
        self.dump(
            family,
            get,
            |out| {
                out.string(kind, table);
            },
            |message, out| {
                let body = message
                    .of(family, new)
                    .filter(|body| dump::is_of_table(body, kind, table));
                out.extend(body.map(<[u8]>::to_vec));
            },
        )
    }

    /// Reads until the ruleset stayed as it was meanwhile. The kernel reports only a change between
    /// two datagrams of one dump.
    pub(super) fn steadily<T>(
        &mut self,
        read: impl Fn(&mut Self) -> io::Result<Option<T>>,
    ) -> io::Result<T> {
        let mut generation = self.generation()?;
        for _ in 0..DUMP_TRIES_MAX {
            let read = read(self)?;
            let before = generation;
            generation = self.generation()?;
            match read {
                Some(all) if generation == before => return Ok(all),
                Some(_) | None => {}
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// A number that grows by one with every batch committed in this namespace, by anybody.
    pub fn generation(&mut self) -> io::Result<u32> {
        let sequence = self.ask(TableFamily::Inet, NFT_MSG_GETGEN, 0, |_| ())?;
        self.answer(sequence, dump::generation)
    }

    /// The whole of one dump; nothing if the ruleset changed meanwhile.
    pub(super) fn dump<T>(
        &mut self,
        family: TableFamily,
        kind: u16,
        fill: impl Fn(&mut Writer),
        decode: impl Fn(&Message<'_>, &mut Vec<T>),
    ) -> io::Result<Option<Vec<T>>> {
        let sequence = self.ask(family, kind, NLM_F_DUMP, fill)?;
        let (mut all, mut intact) = (Vec::new(), true);
        let mut room = Room::new();
        while receive(&self.socket, &mut room)? {
            for message in messages(&room).filter(|m| m.sequence == sequence) {
                intact &= message.flags & NLM_F_DUMP_INTR == 0;
                if let Some(ack) = Acknowledgement::decode(&message) {
                    return Err(io::Error::from_raw_os_error(ack.errno));
                }
                if message.kind == NLMSG_DONE {
                    return match dump_error(message.payload) {
                        0 => Ok(intact.then_some(all)),
                        nix::libc::EINTR => Ok(None),
                        errno => Err(io::Error::from_raw_os_error(errno)),
                    };
                }
                decode(&message, &mut all);
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// The one message that answers a request, or the error that does.
    fn answer<T>(
        &mut self,
        sequence: u32,
        decode: impl Fn(&Message<'_>) -> Option<T>,
    ) -> io::Result<T> {
        let mut room = Room::new();
        while receive(&self.socket, &mut room)? {
            for message in messages(&room).filter(|m| m.sequence == sequence) {
                if let Some(ack) = Acknowledgement::decode(&message) {
                    return Err(io::Error::from_raw_os_error(ack.errno));
                }
                if let Some(answer) = decode(&message) {
                    return Ok(answer);
                }
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn ask(
        &mut self,
        family: TableFamily,
        kind: u16,
        flags: u16,
        fill: impl Fn(&mut Writer),
    ) -> io::Result<u32> {
        let sequence = self.take_sequences(1);
        self.send(&request(family, kind, flags, sequence, fill))?;
        Ok(sequence)
    }

    fn take_sequences(&mut self, count: u32) -> u32 {
        let first = self.sequence;
        self.sequence = first.wrapping_add(count);
        first
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        if datagram.len() > SEND_BYTES_DEFAULT {
            setsockopt(&self.socket.as_fd(), sockopt::SndBufForce, &datagram.len())?;
        }
        send(&self.socket, datagram)
    }
}

/// Whether no element is there twice.
fn are_distinct(elements: &[Option<Element>]) -> bool {
    let mut sorted: Vec<&Element> = elements.iter().flatten().collect();
    sorted.sort_unstable();
    sorted.array_windows().all(|[one, next]| one != next)
}

/// The positive `E*` in an `NLMSG_DONE`, or 0.
fn dump_error(payload: &[u8]) -> i32 {
    let code = payload
        .first_chunk::<4>()
        .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    code.checked_neg().unwrap_or_default().max(0)
}
