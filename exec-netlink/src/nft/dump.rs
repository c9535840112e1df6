//! What the kernel says that it holds. Every function takes any bytes.

use mydocker_core::{Chain, Element, Ruleset, Set, TableFamily};

use super::abi::*;
use super::attr::{Attr, Writer, agree, attrs, find};
use super::message::{FAMILY_BYTES, Message, nft};
use super::ruleset::{self, Condition};
use super::{element, set};

/// A table as the kernel holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Table {
    /// Its name (`NFTA_TABLE_NAME`, linux/netfilter/nf_tables.h).
    pub name: String,
    /// `NFT_TABLE_F_*`: 1 for dormant (`NFTA_TABLE_FLAGS`).
    pub flags: u32,
    /// The kernel's number for it, never used again (`NFTA_TABLE_HANDLE`).
    pub handle: u64,
    /// Its comment (`NFTA_TABLE_USERDATA`).
    pub comment: Option<String>,
}

impl Table {
    /// Reads an `NFT_MSG_NEWTABLE` of that family; nothing for any other message.
    #[must_use]
    pub fn decode(family: TableFamily, message: &Message<'_>) -> Option<Self> {
        let body = message.of(family, NFT_MSG_NEWTABLE)?;
        let handle = find(body, NFTA_TABLE_HANDLE)
            .and_then(|attr| attr.value.try_into().ok())
            .map_or(0, u64::from_be_bytes);
        Some(Self {
            name: find(body, NFTA_TABLE_NAME)?.string()?.to_owned(),
            flags: find(body, NFTA_TABLE_FLAGS)
                .and_then(Attr::number)
                .unwrap_or_default(),
            handle,
            comment: find(body, NFTA_TABLE_USERDATA).and_then(|attr| comment(attr.value)),
        })
    }

    /// Whether it has our mark.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.comment
            .as_deref()
            .is_some_and(|comment| comment.starts_with(mydocker_core::Table::MARK))
    }
}

/// The comment in the user data of a table or rule: entries of type, length and value, of which
/// the comment has the same type in both (libnftnl/udata.h).
pub(super) fn comment(userdata: &[u8]) -> Option<String> {
    let mut rest = userdata;
    while let [kind, len, tail @ ..] = rest {
        let (value, tail) = tail.split_at_checked(usize::from(*len))?;
        if *kind == NFTNL_UDATA_TABLE_COMMENT {
            let text = value.split(|b| *b == 0).next()?;
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = tail;
    }
    None
}

/// Reads the elements in an `NFT_MSG_NEWSETELEM` about `set` of the table of that family and name;
/// nothing for one that we would never have written, and none in any other message.
#[must_use]
pub fn elements(
    message: &Message<'_>,
    family: TableFamily,
    table: &str,
    set: Set,
) -> Vec<Option<Element>> {
    let Some(body) = message.of(family, NFT_MSG_NEWSETELEM) else {
        return Vec::new();
    };
    let named = |kind| find(body, kind).and_then(Attr::string);
    if named(NFTA_SET_ELEM_LIST_TABLE) != Some(table)
        || named(NFTA_SET_ELEM_LIST_SET) != Some(set.name)
    {
        return Vec::new();
    }
    let list = find(body, NFTA_SET_ELEM_LIST_ELEMENTS).map_or(&[][..], |attr| attr.value);
    element::decode_list(family, set, list).collect()
}

/// Reads an `NFT_MSG_NEWGEN`: the number of the ruleset's generation.
pub(super) fn generation(message: &Message<'_>) -> Option<u32> {
    let attrs = message.payload.get(FAMILY_BYTES..)?;
    if message.kind != nft(NFT_MSG_NEWGEN) {
        return None;
    }
    find(attrs, NFTA_GEN_ID)?.number()
}

/// What stands in the kernel under the name of a table of ours.
#[derive(Clone, Debug)]
pub enum Seen {
    /// No such table.
    Absent,
    /// A table without our mark: somebody else's, to be left alone.
    Foreign,
    /// Ours, or what became of it.
    Ours(Contents),
}

impl Seen {
    /// What has become of `wanted`.
    #[must_use]
    pub fn condition(&self, wanted: &mydocker_core::Table) -> Condition {
        match self {
            Self::Absent => Condition::Absent,
            Self::Foreign => Condition::Foreign,
            Self::Ours(contents) if contents.as_created(wanted) => Condition::Intact,
            Self::Ours(_) => Condition::Damaged,
        }
    }
}

/// What a table consists of: the attributes of each object, as dumped.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub(super) dormant: bool,
    pub(super) chains: Vec<Vec<u8>>,
    pub(super) sets: Vec<Vec<u8>>,
    pub(super) rules: Vec<Vec<u8>>,
}

impl Contents {
    /// Whether everything of `table` is there as it was created.
    fn as_created(&self, table: &mydocker_core::Table) -> bool {
        !self.dormant
            && table.sets.iter().all(|set| self.has_set(table, set))
            && table
                .chains
                .iter()
                .all(|chain| self.has_chain(table, chain) && self.has_rules(table, chain))
    }

    /// Whether the set is there as it was created.
    pub(super) fn has_set(&self, table: &mydocker_core::Table, set: &Set) -> bool {
        let ours = encoded(|out| set::encode(&table.name, 0, set, out));
        one_agrees(&self.sets, NFTA_SET_NAME, set.name, &ours)
    }

    /// Whether the chain is there as it was created, whatever is in it.
    pub(super) fn has_chain(&self, table: &mydocker_core::Table, chain: &Chain) -> bool {
        let ours = encoded(|out| ruleset::encode_chain(table, chain, out));
        one_agrees(&self.chains, NFTA_CHAIN_NAME, chain.name, &ours)
    }

    fn has_rules(&self, table: &mydocker_core::Table, chain: &Chain) -> bool {
        if chain.name == Ruleset::ADMIN {
            return true;
        }
        let mut seen = named(&self.rules, NFTA_RULE_CHAIN, chain.name);
        chain.rules.iter().all(|rule| {
            let ours = encoded(|out| ruleset::encode_rule(table, chain, rule, out));
            seen.next().is_some_and(|theirs| agree(&ours, theirs))
        }) && seen.next().is_none()
    }

    /// Whether there is a set of that name.
    pub(super) fn knows_set(&self, name: &str) -> bool {
        named(&self.sets, NFTA_SET_NAME, name).next().is_some()
    }

    /// Whether there is a chain of that name.
    pub(super) fn knows_chain(&self, name: &str) -> bool {
        named(&self.chains, NFTA_CHAIN_NAME, name).next().is_some()
    }

    /// Whether an administrator put something into the table.
    pub(super) fn has_guests(&self, table: &mydocker_core::Table) -> bool {
        let names = |objects: &[Vec<u8>], kind| -> Vec<String> {
            let name = |object: &Vec<u8>| find(object, kind)?.string().map(str::to_owned);
            objects.iter().filter_map(name).collect()
        };
        let chains = names(&self.chains, NFTA_CHAIN_NAME);
        let sets = names(&self.sets, NFTA_SET_NAME);
        named(&self.rules, NFTA_RULE_CHAIN, Ruleset::ADMIN)
            .next()
            .is_some()
            || chains
                .iter()
                .any(|name| table.chains.iter().all(|chain| chain.name != name))
            || sets
                .iter()
                .any(|name| table.sets.iter().all(|set| set.name != name))
    }
}

fn encoded(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::default();
    fill(&mut out);
    out.bytes
}

/// The objects that an attribute gives this name.
fn named<'a>(
    objects: &'a [Vec<u8>],
    kind: u16,
    name: &'a str,
) -> impl Iterator<Item = &'a Vec<u8>> {
    objects
        .iter()
        .filter(move |object| find(object, kind).and_then(Attr::string) == Some(name))
}

fn one_agrees(objects: &[Vec<u8>], kind: u16, name: &str, ours: &[u8]) -> bool {
    named(objects, kind, name)
        .next()
        .is_some_and(|theirs| agree(ours, theirs))
}

/// Whether an attribute of type `kind` names this table.
pub(super) fn is_of_table(body: &[u8], kind: u16, table: &str) -> bool {
    attrs(body).any(|attr| attr.kind == kind && attr.string() == Some(table))
}

#[cfg(test)]
mod tests {
    use mydocker_core::{Instance, Ruleset, Value};
    use proptest::prelude::*;

    use super::*;
    use crate::nft::Batch;
    use crate::nft::error::Acknowledgement;
    use crate::nft::message::messages;

    fn decode_all(datagram: &[u8]) {
        for message in messages(datagram) {
            let _ = Acknowledgement::decode(&message);
            for table in &Ruleset::of(Instance::DEFAULT).tables {
                for set in &table.sets {
                    let _ = elements(&message, table.family, "t", *set);
                }
                let _ = Table::decode(table.family, &message);
                for kind in [NFT_MSG_NEWCHAIN, NFT_MSG_NEWSET, NFT_MSG_NEWRULE] {
                    if let Some(body) = message.of(table.family, kind) {
                        let body = vec![body.to_vec()];
                        let contents = Contents {
                            dormant: false,
                            chains: body.clone(),
                            sets: body.clone(),
                            rules: body,
                        };
                        let _ = contents.as_created(table);
                        let _ = contents.has_guests(table);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            decode_all(&bytes);
        }

        #[test]
        fn damaged_messages_are_survived(at in 0_usize..9000, to: u8, cut in 0_usize..9000) {
            let mut batch = Batch::new("t");
            for table in &Ruleset::of(Instance::DEFAULT).tables {
                batch.create_table(table);
            }
            let bridge = Value::Link("br0".parse().unwrap());
            let own = Element::new(TableFamily::Inet, "own", &[bridge, bridge], &[]);
            batch.add(&own.unwrap());
            let mut bytes = batch.datagram(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            bytes.truncate(cut.max(100));
            decode_all(&bytes);
        }
    }
}
