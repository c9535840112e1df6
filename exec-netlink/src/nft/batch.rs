//! Changes that the kernel makes all together or not at all.

use mydocker_core::{Chain, Element, Table, TableFamily};

use super::abi::*;
use super::attr::Writer;
use super::message::{FAMILY_BYTES, add_flags, begin, end, nft, set_sequence};
use super::ruleset::{self, family_number};
use super::{element, set};
use crate::netlink::HEADER_BYTES;

/// Elements of one message: ours take at most 84 bytes each.
const ELEMENTS_PER_MESSAGE_MAX: usize = 500;
/// Bytes of elements after which a message takes no more: their list is one attribute, and that
/// has at most 64 KiB.
const ELEMENT_BYTES_MAX: usize = 48 * 1024;

/// Changes to the tables of one name, in order; each call of a method is one op, counted from 0.
///
/// Elements that follow one another into the same set share messages, and all messages share one
/// datagram.
#[derive(Clone, Debug)]
pub struct Batch {
    table: String,
    out: Writer,
    /// Where each message starts; the first one opens the batch.
    messages: Vec<usize>,
    /// Where each op starts.
    ops: Vec<usize>,
    elements: Option<Elements>,
}

/// The message at the end, while it takes more elements.
#[derive(Clone, Copy, Debug)]
struct Elements {
    kind: u16,
    table: TableFamily,
    set: &'static str,
    list: usize,
    count: usize,
}

impl Batch {
    /// No changes yet to the tables called `table`.
    #[must_use]
    pub fn new(table: &str) -> Self {
        let mut out = Writer::default();
        let start = begin(
            &mut out,
            NFNL_MSG_BATCH_BEGIN,
            0,
            NFPROTO_UNSPEC,
            NFNL_SUBSYS_NFTABLES,
        );
        end(&mut out, start);
        let (messages, ops) = (vec![start], Vec::new());
        Self {
            table: table.to_owned(),
            out,
            messages,
            ops,
            elements: None,
        }
    }

    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// How many ops there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Creates the table with all that is static in it. `EEXIST` if there is a table of that
    /// name, whoever made it. Command: `nft -f`, and the ruleset as it prints itself.
    pub fn create_table(&mut self, table: &Table) {
        self.begin_op();
        let family = table.family;
        self.message(family, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, |out| {
            ruleset::encode_table(table, out);
        });
        for (id, set) in (1..).zip(&table.sets) {
            self.message(family, NFT_MSG_NEWSET, NLM_F_CREATE, |out| {
                set::encode(&table.name, id, set, out);
                set::encode_userdata(set, out);
            });
        }
        for chain in &table.chains {
            self.message(family, NFT_MSG_NEWCHAIN, NLM_F_CREATE, |out| {
                ruleset::encode_chain(table, chain, out);
            });
            self.append_rules(table, chain);
        }
    }

    pub(super) fn append_rules(&mut self, table: &Table, chain: &Chain) {
        for rule in &chain.rules {
            let flags = NLM_F_CREATE | NLM_F_APPEND;
            self.message(table.family, NFT_MSG_NEWRULE, flags, |out| {
                ruleset::encode_rule(table, chain, rule, out);
            });
        }
    }

    /// Deletes the table and all that is in it, whoever put it there. `ENOENT` if there is none. Whether it is ours is
    /// for the caller to know: [`NftSocket::look`](super::NftSocket::look).
    /// Command: `nft delete table FAMILY TABLE`
    pub fn delete_table(&mut self, family: TableFamily) {
        self.begin_op();
        let table = self.table.clone();
        self.message(family, NFT_MSG_DELTABLE, 0, |out| {
            out.string(NFTA_TABLE_NAME, &table);
        });
    }

    /// Adds an element. `EEXIST` if its key is there already, with whatever value: an undo would take
    /// away what it did not add. Command: `nft create element FAMILY TABLE SET { ELEMENT }`
    pub fn add(&mut self, element: &Element) {
        self.element(NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, element);
    }

    /// Deletes an element by its key; the value is not compared. `ENOENT` if it is not there.
    /// Command: `nft delete element FAMILY TABLE SET { ELEMENT }`
    pub fn delete(&mut self, element: &Element) {
        self.element(NFT_MSG_DELSETELEM, 0, element);
    }

    /// As [`Self::delete`], but one that is not there is fine. Linux 6.3 or later, `EINVAL` before.
    /// Command: `nft destroy element FAMILY TABLE SET { ELEMENT }`
    pub fn destroy(&mut self, element: &Element) {
        self.element(NFT_MSG_DESTROYSETELEM, 0, element);
    }

    /// What follows is one op.
    pub(super) fn begin_op(&mut self) {
        self.ops.push(self.out.bytes.len());
    }

    /// An op that is one message.
    pub(super) fn one_message(
        &mut self,
        family: TableFamily,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Writer),
    ) {
        self.begin_op();
        self.message(family, kind, flags, fill);
    }

    pub(super) fn message(
        &mut self,
        family: TableFamily,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Writer),
    ) {
        self.elements = None;
        let start = begin(&mut self.out, nft(kind), flags, family_number(family), 0);
        fill(&mut self.out);
        end(&mut self.out, start);
        self.messages.push(start);
    }

    fn element(&mut self, kind: u16, flags: u16, element: &Element) {
        let Element { table, set, .. } = *element;
        self.begin_op();
        let mut elements = match self.elements {
            Some(open)
                if (open.kind, open.table, open.set) == (kind, table, set)
                    && open.count < ELEMENTS_PER_MESSAGE_MAX
                    && self.out.bytes.len() - open.list < ELEMENT_BYTES_MAX =>
            {
                open
            }
            Some(_) | None => {
                let (name, mut list) = (self.table.clone(), 0);
                self.message(table, kind, flags, |out| {
                    out.string(NFTA_SET_ELEM_LIST_TABLE, &name);
                    out.string(NFTA_SET_ELEM_LIST_SET, set);
                    list = out.open(NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED);
                });
                Elements {
                    kind,
                    table,
                    set,
                    list,
                    count: 0,
                }
            }
        };
        element::encode(element, &mut self.out);
        elements.count += 1;
        self.out.close(elements.list);
        if let Some(start) = self.messages.last() {
            end(&mut self.out, *start);
        }
        self.elements = Some(elements);
    }

    /// The datagram: the messages numbered from `sequence`, the last change asking for an answer,
    /// between the two that make them a batch. (Before Linux 6.10 the end cannot ask for one.)
    #[must_use]
    pub fn datagram(&self, sequence: u32) -> Vec<u8> {
        // Its end has room, so that nothing is copied again.
        let mut out = Writer {
            bytes: Vec::with_capacity(self.out.bytes.len() + HEADER_BYTES + FAMILY_BYTES),
        };
        out.bytes.extend_from_slice(&self.out.bytes);
        for (index, start) in (0_u32..).zip(&self.messages) {
            set_sequence(&mut out.bytes, *start, sequence.wrapping_add(index));
        }
        if let Some(last) = self.messages.last() {
            add_flags(&mut out.bytes, *last, NLM_F_ACK);
        }
        let start = begin(
            &mut out,
            NFNL_MSG_BATCH_END,
            0,
            NFPROTO_UNSPEC,
            NFNL_SUBSYS_NFTABLES,
        );
        end(&mut out, start);
        set_sequence(
            &mut out.bytes,
            start,
            sequence.wrapping_add(self.messages_u32()),
        );
        out.bytes
    }

    /// How many sequence numbers [`Self::datagram`] uses.
    pub(super) fn sequences(&self) -> u32 {
        self.messages_u32() + 1
    }

    fn messages_u32(&self) -> u32 {
        u32::try_from(self.messages.len()).unwrap_or(u32::MAX - 1)
    }

    /// The index of the last change, counted as [`Self::datagram`] numbers messages.
    pub(super) fn last_message(&self) -> u32 {
        self.messages_u32() - 1
    }

    /// The op at `offset` bytes into the message with that index; of a message without offset, the
    /// first op. None for the messages that open and close the batch.
    pub(super) fn op_at(&self, message: u32, offset: Option<u32>) -> Option<usize> {
        let index = usize::try_from(message).ok().filter(|index| *index > 0)?;
        let start = *self.messages.get(index)?;
        let end = self
            .messages
            .get(index + 1)
            .copied()
            .unwrap_or(self.out.bytes.len());
        let offset = usize::try_from(offset.unwrap_or_default()).unwrap_or_default();
        let at = start.saturating_add(offset).min(end.saturating_sub(1));
        self.ops.partition_point(|op| *op <= at).checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use mydocker_core::Value;

    use super::*;
    use crate::nft::message::messages;

    #[test]
    fn elements_share_messages_and_are_found_again() {
        let mut batch = Batch::new("t");
        let bridge = |i: usize| {
            let name = Value::Link(format!("br{i}").parse().unwrap());
            Element::new(TableFamily::Inet, "bridges", &[name], &[]).unwrap()
        };
        for i in 0..1201 {
            batch.add(&bridge(i));
        }
        batch.delete(&bridge(7));
        assert_eq!(batch.messages.len(), 1 + 3 + 1);
        for (op, at) in batch.ops.iter().enumerate() {
            let message = batch
                .messages
                .iter()
                .rposition(|start| start <= at)
                .unwrap();
            let offset = u32::try_from(at - batch.messages[message]).unwrap();
            let message = u32::try_from(message).unwrap();
            assert_eq!(batch.op_at(message, Some(offset + 1)), Some(op));
        }
        assert_eq!(batch.op_at(2, None), Some(500));
        assert_eq!(batch.op_at(0, None), None);
        assert_eq!(batch.op_at(99, Some(4)), None);
        let datagram = batch.datagram(u32::MAX);
        let seen: Vec<_> = messages(&datagram).map(|m| (m.kind, m.sequence)).collect();
        assert_eq!(seen.len(), 6);
        assert_eq!(seen[0], (NFNL_MSG_BATCH_BEGIN, u32::MAX));
        assert_eq!(seen[5], (NFNL_MSG_BATCH_END, 4));
    }
}
