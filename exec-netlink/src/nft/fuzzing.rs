//! Every decoder of nf_tables, over any messages.

use mydocker_core::{Element, Instance, Object, Ruleset, Table, TableFamily};

use super::abi::*;
use super::batch::Batch;
use super::dump::{self, Contents, Seen};
use super::error::Acknowledgement;
use super::foreign;
use super::message::{FAMILY_BYTES, Message};

/// Reads the messages as answers to every question that we ask, and does about what they say is left
/// of our tables what would be done about it.
pub(crate) fn fuzz(messages: &[Message<'_>]) {
    let ruleset = Ruleset::of(Instance::DEFAULT);
    for message in messages {
        let _ = Acknowledgement::decode(message);
        let _ = dump::generation(message);
        for family in [TableFamily::Ip, TableFamily::Ip6, TableFamily::Inet] {
            let _ = dump::Table::decode(family, message).map(|table| table.is_ours());
            if let Some(body) = message.payload.get(FAMILY_BYTES..) {
                foreign::fuzz(family, body);
            }
        }
    }
    for table in &ruleset.tables {
        elements(messages, table);
        condition(messages, table);
    }
}

/// Every element that is read is one that we could have written.
fn elements(messages: &[Message<'_>], table: &Table) {
    for set in &table.sets {
        let read = |message| dump::elements(message, table.family, &table.name, *set);
        let all: Vec<Element> = messages.iter().flat_map(read).flatten().collect();
        let mut batch = Batch::new(&table.name);
        for element in &all {
            batch.add(element);
        }
        let again = batch.datagram(1);
        let written: Vec<Message<'_>> = super::message::messages(&again).collect();
        let read: Vec<Element> = written.iter().flat_map(read).flatten().collect();
        assert_eq!(read, all, "elements of {} read back", set.name);
    }
}

fn condition(messages: &[Message<'_>], table: &Table) {
    let bodies = |kind| {
        let body = |message: &Message<'_>| message.of(table.family, kind).map(<[u8]>::to_vec);
        messages.iter().filter_map(body).collect::<Vec<_>>()
    };
    let contents = Contents {
        dormant: false,
        chains: bodies(NFT_MSG_NEWCHAIN),
        sets: bodies(NFT_MSG_NEWSET),
        rules: bodies(NFT_MSG_NEWRULE),
    };
    let mut batch = Batch::new(&table.name);
    batch.renew_table(table, &contents);
    batch.retire_table(table, &contents);
    assert!(!batch.datagram(1).is_empty());
    let _ = Seen::Ours(contents).condition(table);
}

/// Writes an object of the firewall, there and gone.
pub(crate) fn fuzz_op(object: &Object) {
    let mut batch = Batch::new("mydocker");
    match object {
        Object::Ruleset(instance) => {
            for table in &Ruleset::of(*instance).tables {
                batch.create_table(table);
            }
        }
        Object::Passage(passage) => batch.insert_passage(passage),
        object => {
            for element in &object.elements() {
                batch.add(element);
                batch.delete(element);
            }
        }
    }
    assert!(!batch.datagram(1).is_empty());
}
