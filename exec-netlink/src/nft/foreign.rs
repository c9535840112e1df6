//! Base chains of others on the forward hook, and the one rule of ours that may stand in them.

use std::io;

use mydocker_core::{ForeignChain, ForwardChain, Passage, TableFamily};

use super::abi::*;
use super::attr::{Attr, Writer, agree, attrs, find};
use super::batch::Batch;
use super::dump::{Table, comment};
use super::rule;
use super::socket::NftSocket;

/// Families whose tables see packets on their way between interfaces.
const FAMILIES: [TableFamily; 3] = [TableFamily::Ip, TableFamily::Ip6, TableFamily::Inet];

/// What foreign chains say, and which of them have our rule.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Foreign {
    /// All base chains on the forward hook that are not ours.
    pub(crate) chains: Vec<ForwardChain>,
    /// Those of them that have the rule of a passage, with its comment.
    pub(crate) passed: Vec<(ForwardChain, String)>,
}

impl Batch {
    /// Puts the rule at the head of its chain. `ENOENT` if there is no such chain.
    /// Command: `nft insert rule FAMILY TABLE CHAIN meta mark … accept comment …`
    pub(crate) fn insert_passage(&mut self, passage: &Passage) {
        let chain = &passage.chain;
        // Neither at the end nor beside another rule: at the head.
        self.one_message(chain.family, NFT_MSG_NEWRULE, NLM_F_CREATE, |out| {
            write_place(chain, out);
            out.nest(NFTA_RULE_EXPRESSIONS, |list| {
                list.bytes.extend_from_slice(&expressions(chain.family));
            });
            out.bytes(NFTA_RULE_USERDATA, &userdata(&passage.comment()));
        });
    }

    /// Deletes the rule of that number. `ENOENT` if it is gone.
    /// Command: `nft delete rule FAMILY TABLE CHAIN handle HANDLE`
    pub(crate) fn delete_rule(&mut self, chain: &ForeignChain, handle: u64) {
        self.one_message(chain.family, NFT_MSG_DELRULE, 0, |out| {
            write_place(chain, out);
            out.bytes(NFTA_RULE_HANDLE, &handle.to_be_bytes());
        });
    }
}

impl NftSocket {
    /// The numbers of the rules that are this passage: one, or as many as somebody copied; none
    /// where there is no such chain.
    pub(crate) fn passage_handles(&mut self, passage: &Passage) -> io::Result<Vec<u64>> {
        let (chain, comment) = (&passage.chain, passage.comment());
        let (table, name) = (chain.table.as_str(), chain.chain.as_str());
        let rules = self.steadily(|socket| socket.rules_of(chain.family, table, name))?;
        let ours = rules
            .iter()
            .map(|body| Seen::decode(chain.family, body))
            .filter(|rule| rule.judgement == Judgement::Passes(Some(comment.clone())));
        Ok(ours.filter_map(|rule| rule.handle).collect())
    }

    /// Every base chain on the forward hook that is in no table of ours and in no dormant one.
    pub(crate) fn foreign_forward_chains(&mut self) -> io::Result<Foreign> {
        self.steadily(|socket| {
            let mut all = Foreign::default();
            for family in FAMILIES {
                if socket.add_foreign(family, &mut all)?.is_none() {
                    return Ok(None);
                }
            }
            Ok(Some(all))
        })
    }

    fn add_foreign(&mut self, family: TableFamily, all: &mut Foreign) -> io::Result<Option<()>> {
        let Some(tables) = self.tables_once(family)? else {
            return Ok(None);
        };
        let base = self.dump(
            family,
            NFT_MSG_GETCHAIN,
            |_| (),
            |message, out| {
                let body = message.of(family, NFT_MSG_NEWCHAIN);
                out.extend(body.and_then(BaseChain::decode));
            },
        )?;
        let Some(base) = base else {
            return Ok(None);
        };
        for base in base {
            let table = tables.iter().find(|table| table.name == base.table);
            // One whose name is no text can't be told by it.
            let flags = table.map_or(0, |table| table.flags);
            if table.is_some_and(Table::is_ours) || flags & NFT_TABLE_F_DORMANT != 0 {
                continue;
            }
            let Some(rules) = self.rules_of(family, &base.table, &base.chain)? else {
                return Ok(None);
            };
            let rules: Vec<Judgement> = rules
                .iter()
                .map(|body| Seen::decode(family, body).judgement)
                .collect();
            let found = base.judged(family, flags, &rules);
            let comments = rules.into_iter().filter_map(Judgement::comment);
            all.passed
                .extend(comments.map(|comment| (found.clone(), comment)));
            all.chains.push(found);
        }
        Ok(Some(()))
    }

    /// The attributes of a chain's rules, in order.
    fn rules_of(
        &mut self,
        family: TableFamily,
        table: &str,
        chain: &str,
    ) -> io::Result<Option<Vec<Vec<u8>>>> {
        let is = |body: &[u8], kind, name| find(body, kind).and_then(Attr::string) == Some(name);
        self.dump(
            family,
            NFT_MSG_GETRULE,
            |out| {
                out.string(NFTA_RULE_TABLE, table)
                    .string(NFTA_RULE_CHAIN, chain);
            },
            |message, out| {
                // Not every kernel leaves out what was not asked for.
                let body = message.of(family, NFT_MSG_NEWRULE).filter(|body| {
                    is(body, NFTA_RULE_TABLE, table) && is(body, NFTA_RULE_CHAIN, chain)
                });
                out.extend(body.map(<[u8]>::to_vec));
            },
        )
    }
}

fn write_place(chain: &ForeignChain, out: &mut Writer) {
    out.string(NFTA_RULE_TABLE, chain.table.as_str())
        .string(NFTA_RULE_CHAIN, chain.chain.as_str());
}

/// The rule of every passage, as the list inside `NFTA_RULE_EXPRESSIONS`.
fn expressions(family: TableFamily) -> Vec<u8> {
    rule::encode(family, &Passage::rule()).expressions.bytes
}

/// A rule's comment: type, length, value (libnftnl/udata.h).
fn userdata(comment: &str) -> Vec<u8> {
    let len = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    [&[NFTNL_UDATA_RULE_COMMENT, len], comment.as_bytes(), &[0]].concat()
}

/// A base chain on the forward hook, its names as far as they are text.
struct BaseChain {
    table: String,
    chain: String,
    priority: i32,
    drops: bool,
}

impl BaseChain {
    /// Reads an `NFT_MSG_NEWCHAIN`; nothing for a chain of another hook or of none.
    fn decode(body: &[u8]) -> Option<Self> {
        let text = |kind| {
            let bytes = find(body, kind)?.value.split(|byte| *byte == 0).next()?;
            Some(String::from_utf8_lossy(bytes).into_owned())
        };
        let hook = find(body, NFTA_CHAIN_HOOK)?.value;
        if find(hook, NFTA_HOOK_HOOKNUM)?.number()? != NF_INET_FORWARD {
            return None;
        }
        let policy = find(body, NFTA_CHAIN_POLICY).and_then(Attr::number);
        Some(Self {
            table: text(NFTA_CHAIN_TABLE)?,
            chain: text(NFTA_CHAIN_NAME)?,
            priority: find(hook, NFTA_HOOK_PRIORITY)?.number()?.cast_signed(),
            drops: policy.is_some_and(|policy| policy.cast_signed() == NF_DROP),
        })
    }

    /// The chain with what its rules make of a packet that none of them has a condition for. The
    /// rule of a passage changes nothing about that: it comes and goes with us.
    fn judged(self, family: TableFamily, table_flags: u32, rules: &[Judgement]) -> ForwardChain {
        let last_word = rules.iter().find_map(|rule| match rule {
            Judgement::Drops => Some(true),
            Judgement::Passes(Some(comment)) if is_of_some_instance(comment) => None,
            Judgement::Passes(_) => Some(false),
            Judgement::Depends => None,
        });
        ForwardChain {
            family,
            table: self.table,
            chain: self.chain,
            priority: self.priority,
            drops: last_word.unwrap_or(self.drops),
            owned: table_flags & NFT_TABLE_F_OWNER != 0,
        }
    }
}

/// Whether it is how a passage of any instance is told: the name of its table.
fn is_of_some_instance(comment: &str) -> bool {
    let table = mydocker_core::Instance::DEFAULT.table();
    comment
        .strip_prefix(table.as_str())
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// A rule of a foreign chain.
struct Seen {
    handle: Option<u64>,
    judgement: Judgement,
}

/// What a rule makes of packets.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Judgement {
    /// All are dropped.
    Drops,
    /// Those that our forward chain let through are accepted; the rule's comment, if any.
    Passes(Option<String>),
    /// Something else.
    Depends,
}

impl Judgement {
    fn comment(self) -> Option<String> {
        match self {
            Self::Passes(comment) => comment,
            Self::Drops | Self::Depends => None,
        }
    }
}

impl Seen {
    fn decode(family: TableFamily, body: &[u8]) -> Self {
        let handle = find(body, NFTA_RULE_HANDLE).and_then(|attr| attr.value.try_into().ok());
        Self {
            handle: handle.map(u64::from_be_bytes),
            judgement: judge(family, body),
        }
    }
}

fn judge(family: TableFamily, body: &[u8]) -> Judgement {
    let mut comment = find(body, NFTA_RULE_USERDATA).and_then(|attr| self::comment(attr.value));
    let list = find(body, NFTA_RULE_EXPRESSIONS).map_or(&[][..], |attr| attr.value);
    let mut rest = Vec::new();
    for expression in attrs(list) {
        match Part::of(expression.value) {
            Part::Idle => {}
            // What iptables-restore makes of what iptables-save made of a passage.
            Part::Comment(text) => comment = comment.or(text),
            part @ (Part::Accept | Part::Drop | Part::Other) => rest.push((part, expression)),
        }
    }
    match rest.as_slice() {
        [(Part::Drop, _)] => return Judgement::Drops,
        [(Part::Accept, _)] => return Judgement::Passes(None),
        _ => {}
    }
    let ours = expressions(family);
    let same = attrs(&ours).count() == rest.len()
        && attrs(&ours)
            .zip(&rest)
            .all(|(mine, (_, seen))| agree(mine.value, seen.value));
    if same {
        Judgement::Passes(comment)
    } else {
        Judgement::Depends
    }
}

/// One expression of a rule.
enum Part {
    /// Counts or logs, and lets every packet go on.
    Idle,
    /// The same, with a comment.
    Comment(Option<String>),
    /// Lets every packet through the chain.
    Accept,
    /// Ends every packet.
    Drop,
    /// Anything else.
    Other,
}

impl Part {
    fn of(expression: &[u8]) -> Self {
        let text = |bytes, kind| find(bytes, kind).and_then(Attr::string);
        let data = find(expression, NFTA_EXPR_DATA).map_or(&[][..], |attr| attr.value);
        match text(expression, NFTA_EXPR_NAME) {
            Some("counter" | "log") => Self::Idle,
            Some("reject") => Self::Drop,
            Some("immediate") => match verdict(data) {
                Some(NF_DROP) => Self::Drop,
                Some(NF_ACCEPT) => Self::Accept,
                Some(_) | None => Self::Other,
            },
            Some("target") if text(data, NFTA_TARGET_NAME) == Some("REJECT") => Self::Drop,
            Some("match") if text(data, NFTA_MATCH_NAME) == Some("comment") => {
                // `struct xt_comment_info`, linux/netfilter/xt_comment.h.
                Self::Comment(text(data, NFTA_MATCH_INFO).map(str::to_owned))
            }
            Some(_) | None => Self::Other,
        }
    }
}

fn verdict(immediate: &[u8]) -> Option<i32> {
    let code = find(immediate, NFTA_IMMEDIATE_DATA)
        .and_then(|data| find(data.value, NFTA_DATA_VERDICT))
        .and_then(|verdict| find(verdict.value, NFTA_VERDICT_CODE))
        .and_then(Attr::number)?;
    Some(code.cast_signed())
}

/// Reads a chain and a rule out of any bytes, and what the one makes of the other.
pub(super) fn fuzz(family: TableFamily, body: &[u8]) {
    let Seen { handle, judgement } = Seen::decode(family, body);
    let _ = handle;
    if let Some(base) = BaseChain::decode(body) {
        let _ = base.judged(family, 0, &[judgement]).named();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nft::message::messages;
    use crate::nft::testing::{isolated, nft_script, run};

    fn passage(family: TableFamily) -> Passage {
        let [table, chain] = ["t", "f"].map(|name| name.parse().unwrap());
        Passage {
            instance: mydocker_core::Instance::DEFAULT,
            chain: ForeignChain {
                family,
                table,
                chain,
            },
        }
    }

    /// A chain of somebody else's with these rules, as it is seen.
    fn seen(policy: &str, rules: &str) -> Foreign {
        nft_script(&format!(
            "table inet t {{ chain f {{ type filter hook forward priority 0; policy {policy}; {rules}\n}}\n}}"
        ));
        let seen = NftSocket::open().unwrap().foreign_forward_chains().unwrap();
        run("nft delete table inet t");
        seen
    }

    #[test]
    fn what_a_chain_makes_of_the_unnamed() {
        isolated(|| {
            let mark = "meta mark & 0x01000000 == 0x01000000";
            let ours = format!("{mark} accept comment \"mydocker\";");
            let of_another = format!("{mark} accept comment \"mydocker_0123ab\";");
            let theirs = format!("{mark} counter accept comment \"containers\";");
            for (policy, rules, drops) in [
                ("accept", "", false),
                ("drop", "", true),
                ("drop", "accept;", false),
                ("drop", "iifname lo accept;", true),
                ("accept", "iifname lo drop;", false),
                ("accept", "counter log drop;", true),
                ("accept", "reject with icmpx type admin-prohibited;", true),
                ("drop", &ours, true),
                ("drop", &of_another, true),
                ("drop", &theirs, false),
                ("accept", &format!("{theirs} drop;"), false),
                ("accept", &format!("drop; {theirs}"), true),
            ] {
                let [chain] = &seen(policy, rules).chains[..] else {
                    panic!("{policy} {rules}: one chain");
                };
                assert_eq!(chain.drops, drops, "{policy} {rules}");
            }
            assert_eq!(seen("drop", &ours).passed[0].1, "mydocker");
            let narrower = format!("iifname lo {ours}");
            assert_eq!(seen("drop", &narrower).passed, []);
        });
    }

    #[test]
    fn one_rule_at_the_head_and_gone_again() {
        isolated(|| {
            for family in FAMILIES {
                run(&format!("nft add table {family} t"));
                nft_script(&format!(
                    "table {family} t {{ chain f {{ type filter hook forward priority 0; counter;\n}}\n}}"
                ));
                let before = run(&format!("nft list table {family} t"));
                let (mut socket, passage) = (NftSocket::open().unwrap(), passage(family));
                assert_eq!(socket.passage_handles(&passage).unwrap(), []);
                let mut batch = Batch::new("mydocker");
                batch.insert_passage(&passage);
                socket.commit(&batch).unwrap();
                let listed = run(&format!("nft list chain {family} t f"));
                let rule = format!("{} comment \"mydocker\"", Passage::rule());
                assert_eq!(listed.lines().nth(3).map(str::trim), Some(&*rule));
                let [handle] = socket.passage_handles(&passage).unwrap()[..] else {
                    panic!("one rule: {listed}");
                };
                let mut batch = Batch::new("mydocker");
                batch.delete_rule(&passage.chain, handle);
                socket.commit(&batch).unwrap();
                assert_eq!(run(&format!("nft list table {family} t")), before);
            }
        });
    }

    /// The kernel takes any bytes for a name, and nobody's name keeps us from looking on.
    #[test]
    fn a_name_that_is_no_text_is_told() {
        isolated(|| {
            let mut socket = NftSocket::open().unwrap();
            let mut batch = Batch::new("mydocker");
            batch.one_message(TableFamily::Ip, NFT_MSG_NEWTABLE, NLM_F_CREATE, |out| {
                out.bytes(NFTA_TABLE_NAME, b"t\xff\0");
            });
            batch.one_message(TableFamily::Ip, NFT_MSG_NEWCHAIN, NLM_F_CREATE, |out| {
                out.bytes(NFTA_CHAIN_TABLE, b"t\xff\0");
                out.string(NFTA_CHAIN_NAME, "f'\n");
                out.nest(NFTA_CHAIN_HOOK, |hook| {
                    hook.number(NFTA_HOOK_HOOKNUM, NF_INET_FORWARD);
                    hook.number(NFTA_HOOK_PRIORITY, 0);
                });
                out.bytes(NFTA_CHAIN_POLICY, &NF_DROP.to_be_bytes());
                out.string(NFTA_CHAIN_TYPE, "filter");
            });
            socket.commit(&batch).unwrap();
            let [chain] = &socket.foreign_forward_chains().unwrap().chains[..] else {
                panic!("one chain");
            };
            assert_eq!((&*chain.table, &*chain.chain), ("t\u{fffd}", "f'\n"));
            assert!(chain.drops && chain.named().is_none());
        });
    }

    #[test]
    fn no_chain_no_rule() {
        isolated(|| {
            let mut socket = NftSocket::open().unwrap();
            let mut batch = Batch::new("mydocker");
            batch.insert_passage(&passage(TableFamily::Inet));
            socket.commit(&batch).unwrap_err();
            assert_eq!(
                socket.passage_handles(&passage(TableFamily::Inet)).unwrap(),
                []
            );
        });
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = judge(TableFamily::Ip, &bytes);
            let _ = BaseChain::decode(&bytes);
        }

        #[test]
        fn damaged_rules_are_survived(at in 0_usize..400, to: u8) {
            let mut batch = Batch::new("mydocker");
            batch.insert_passage(&passage(TableFamily::Ip));
            let mut bytes = batch.datagram(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            for message in messages(&bytes) {
                if let Some(body) = message.of(TableFamily::Ip, NFT_MSG_NEWRULE) {
                    let _ = judge(TableFamily::Ip, body);
                }
            }
        }
    }
}
