//! A newer kernel says more than we know: attributes of types that have no name yet, wherever one can
//! stand, messages of other types and subsystems, other flags. What we know is read as before.

use mydocker_core::{Element, Protocol, Ruleset, Table, TableFamily};
use proptest::prelude::*;

use super::abi::*;
use super::attr::{Attr, Writer, attrs};
use super::dump::{self, Contents, Seen};
use super::error::Acknowledgement;
use super::message::{FAMILY_BYTES, Message, begin, end, messages, nft};
use super::testing::{INSTANCE, guard, masquerade, publish, zone6};
use super::{Batch, Condition};

const TABLE: &str = "mydocker";

/// What stands between what we know: it comes round again as often as needed.
#[derive(Clone, Debug)]
struct Noise {
    turns: Vec<Turn>,
    next: usize,
}

/// What stands before one attribute or message, or at the end of a list of them.
#[derive(Clone, Debug)]
enum Turn {
    Nothing,
    Attribute {
        kind: u16,
        value: Vec<u8>,
    },
    /// Its value is itself a list, of types that mean something elsewhere.
    Nest {
        kind: u16,
    },
}

impl Noise {
    fn turn(&mut self) -> Turn {
        self.next += 1;
        self.turns[self.next % self.turns.len()].clone()
    }

    fn between(&mut self, out: &mut Writer) {
        match self.turn() {
            Turn::Nothing => {}
            Turn::Attribute { kind, value } => drop(out.bytes(kind, &value)),
            Turn::Nest { kind } => drop(out.nest(kind, |nest| {
                nest.number(NFTA_LIST_ELEM, 1).string(kind, TABLE);
            })),
        }
    }

    /// The same attributes, among others.
    fn among(&mut self, known: &[u8], out: &mut Writer) {
        for attr in attrs(known) {
            self.between(out);
            self.copy(attr, out);
        }
        self.between(out);
    }

    /// The kernel marks few of its nests as such.
    fn copy(&mut self, attr: Attr<'_>, out: &mut Writer) {
        if !attr.nested {
            out.bytes(attr.kind, attr.value);
            return;
        }
        let start = out.open(attr.kind);
        self.among(attr.value, out);
        out.close(start);
    }

    /// The messages of a datagram, with other flags and among others.
    fn datagram(&mut self, datagram: &[u8]) -> Vec<u8> {
        let mut out = Writer::default();
        for message in messages(datagram) {
            if let Turn::Attribute { kind, value } = self.turn() {
                // Of nf_tables as it may become, or of who knows whom.
                let unknown = [nft(0x80 | kind & 0x7f), kind | 0x8000];
                let unknown = unknown[usize::from(kind % 2)];
                let start = begin(&mut out, unknown, kind, NFPROTO_INET, 0);
                self.among(&value, &mut out);
                end(&mut out, start);
            }
            let (head, body) = message.payload.split_at(FAMILY_BYTES);
            let flags = message.flags | 0x20 << (self.next % 3);
            let start = begin(&mut out, message.kind, flags, head[0], 0);
            self.among(body, &mut out);
            end(&mut out, start);
        }
        out.bytes
    }
}

fn noise() -> impl Strategy<Value = Noise> {
    // The highest type that any attribute of ours has is 13.
    let kind = || 200_u16..=NLA_TYPE_MASK;
    let value = prop::collection::vec(any::<u8>(), 0..40);
    let turn = prop_oneof![
        Just(Turn::Nothing),
        (kind(), value).prop_map(|(kind, value)| Turn::Attribute { kind, value }),
        kind().prop_map(|kind| Turn::Nest { kind }),
    ];
    prop::collection::vec(turn, 1..20).prop_map(|turns| Noise { turns, next: 0 })
}

fn elements() -> Vec<Element> {
    let mut all = [
        zone6("br0", "fd00::1"),
        masquerade("10.0.0.0/24", "br0"),
        masquerade("fd00::/64", "br0"),
        publish(None, Protocol::Tcp, 80, "10.0.0.2:80"),
        publish(Some("::1"), Protocol::Sctp, 9, "[fd00::2]:9"),
        guard("mdv0", "02:6d:0a:00:00:02", &["10.0.0.2", "fd00::2"]),
    ]
    .concat();
    all.sort();
    all
}

/// Both tables and some elements, as a kernel might tell us of them.
fn told() -> Vec<u8> {
    let mut batch = Batch::new(TABLE);
    for table in &Ruleset::of(INSTANCE).tables {
        batch.create_table(table);
    }
    elements().iter().for_each(|element| batch.add(element));
    let mut out = Writer::default();
    for message in messages(&batch.datagram(1)) {
        // A set's number is for the batch that makes it.
        let is_set = message.kind == nft(NFT_MSG_NEWSET);
        copy(&message, &mut out, |attr| {
            !(is_set && attr.kind == NFTA_SET_ID)
        });
    }
    out.bytes
}

fn heard_elements(datagram: &[u8]) -> Vec<Option<Element>> {
    let mut all = Vec::new();
    for message in messages(datagram) {
        for table in &Ruleset::of(INSTANCE).tables {
            for set in &table.sets {
                all.extend(dump::elements(&message, table.family, TABLE, *set));
            }
        }
    }
    all.sort();
    all
}

fn heard_tables(datagram: &[u8], family: TableFamily) -> Vec<dump::Table> {
    messages(datagram)
        .filter_map(|message| dump::Table::decode(family, &message))
        .collect()
}

fn heard_condition(datagram: &[u8], table: &Table) -> Condition {
    let objects = |kind| -> Vec<Vec<u8>> {
        let bodies = messages(datagram).filter_map(|message| message.of(table.family, kind));
        bodies.map(<[u8]>::to_vec).collect()
    };
    let contents = Contents {
        dormant: false,
        chains: objects(NFT_MSG_NEWCHAIN),
        sets: objects(NFT_MSG_NEWSET),
        rules: objects(NFT_MSG_NEWRULE),
    };
    assert!(!contents.has_guests(table));
    Seen::Ours(contents).condition(table)
}

/// The datagram without its last rule.
fn without_last_rule(datagram: &[u8]) -> Vec<u8> {
    let all: Vec<_> = messages(datagram).collect();
    let is_rule = |message: &Message<'_>| message.kind == nft(NFT_MSG_NEWRULE);
    let last = all.iter().rposition(is_rule);
    let rest = all.iter().enumerate().filter(|(at, _)| Some(*at) != last);
    let mut out = Writer::default();
    for (_, message) in rest {
        copy(message, &mut out, |_| true);
    }
    out.bytes
}

fn copy(message: &Message<'_>, out: &mut Writer, keep: impl Fn(Attr<'_>) -> bool) {
    let (head, body) = message.payload.split_at(FAMILY_BYTES);
    let start = begin(out, message.kind, 0, head[0], 0);
    for attr in attrs(body).filter(|attr| keep(*attr)) {
        let nested = if attr.nested { NLA_F_NESTED } else { 0 };
        out.bytes(attr.kind | nested, attr.value);
    }
    end(out, start);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_we_do_not_know_changes_nothing(mut noise in noise()) {
        let (told, wanted) = (told(), elements());
        let heard = noise.datagram(&told);
        let wanted: Vec<_> = wanted.into_iter().map(Some).collect();
        prop_assert_eq!(heard_elements(&heard), wanted);
        let edited = noise.datagram(&without_last_rule(&told));
        for table in &Ruleset::of(INSTANCE).tables {
            let tables = heard_tables(&heard, table.family);
            prop_assert_eq!(&tables, &heard_tables(&told, table.family));
            prop_assert!(tables.len() == 1 && tables[0].is_ours());
            prop_assert_eq!(heard_condition(&heard, table), Condition::Intact);
            // And an edit is still seen.
            let edited = heard_condition(&edited, table);
            prop_assert_eq!(edited == Condition::Damaged, table.family == TableFamily::Bridge);
        }
    }

    #[test]
    fn a_refusal_is_understood_all_the_same(mut noise in noise()) {
        let mut out = Writer::default();
        out.bytes.extend_from_slice(&(-17_i32).to_ne_bytes());
        // The header of what was refused.
        out.bytes.extend_from_slice(&[0; 16]);
        let mut words = Writer::default();
        words.string(NLMSGERR_ATTR_MSG, "no").bytes(NLMSGERR_ATTR_OFFS, &7_u32.to_ne_bytes());
        noise.among(&words.bytes, &mut out);
        let message = Message {
            kind: NLMSG_ERROR,
            flags: NLM_F_CAPPED | 0x200,
            sequence: 1,
            payload: &out.bytes,
        };
        let refusal = Acknowledgement { errno: 17, text: Some("no".into()), offset: Some(7) };
        prop_assert_eq!(Acknowledgement::decode(&message), Some(refusal));
    }
}
