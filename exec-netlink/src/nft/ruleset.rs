//! Core's description of our tables, as messages: created in one batch and made
//! anew when somebody edited them.

use mydocker_core::{Chain, Hook, Kind, Rule, Table, TableFamily};

use super::abi::*;
use super::attr::Writer;
use super::rule;

/// What stands in the kernel under the name of our table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Condition {
    /// No such table.
    Absent,
    /// A table without our mark: somebody else's, to be left alone.
    Foreign,
    /// Ours, but chains, sets or rules were edited, or another version made them.
    Damaged,
    /// Ours, as created. Elements are not looked at, nor what an administrator put beside it.
    Intact,
}

/// The attributes of `NFT_MSG_NEWTABLE`.
pub(super) fn encode_table(table: &Table, out: &mut Writer) {
    out.string(NFTA_TABLE_NAME, &table.name);
    let text = Table::MARK;
    // An attribute of libnftnl's making: type, length, value.
    let len = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let mut userdata = vec![NFTNL_UDATA_TABLE_COMMENT, len];
    userdata.extend_from_slice(text.as_bytes());
    userdata.push(0);
    out.bytes(NFTA_TABLE_USERDATA, &userdata);
}

/// The attributes of `NFT_MSG_NEWCHAIN`.
pub(super) fn encode_chain(table: &Table, chain: &Chain, out: &mut Writer) {
    out.string(NFTA_CHAIN_TABLE, &table.name)
        .string(NFTA_CHAIN_NAME, chain.name);
    let Some((kind, hook, priority)) = chain.base else {
        return;
    };
    out.nest(NFTA_CHAIN_HOOK, |nest| {
        nest.number(NFTA_HOOK_HOOKNUM, number(hook));
        nest.bytes(NFTA_HOOK_PRIORITY, &priority.to_be_bytes());
    });
    out.bytes(NFTA_CHAIN_POLICY, &NF_ACCEPT.to_be_bytes());
    let kind = match kind {
        Kind::Filter => "filter",
        Kind::Nat => "nat",
    };
    out.string(NFTA_CHAIN_TYPE, kind);
}

/// The number of a family in a message's header.
pub(super) fn family_number(family: TableFamily) -> u8 {
    match family {
        TableFamily::Ip => NFPROTO_IPV4,
        TableFamily::Ip6 => NFPROTO_IPV6,
        TableFamily::Inet => NFPROTO_INET,
        TableFamily::Bridge => NFPROTO_BRIDGE,
    }
}

/// Bridges count their hooks alike (`NF_BR_*`, linux/netfilter_bridge.h).
fn number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => NF_INET_PRE_ROUTING,
        Hook::Input => NF_INET_LOCAL_IN,
        Hook::Forward => NF_INET_FORWARD,
        Hook::Output => NF_INET_LOCAL_OUT,
        Hook::Postrouting => NF_INET_POST_ROUTING,
    }
}

/// The attributes of `NFT_MSG_NEWRULE` for one of a chain's rules.
pub(super) fn encode_rule(table: &Table, chain: &Chain, rule: &Rule, out: &mut Writer) {
    out.string(NFTA_RULE_TABLE, &table.name)
        .string(NFTA_RULE_CHAIN, chain.name);
    let code = rule::encode(table.family, rule);
    out.nest(NFTA_RULE_EXPRESSIONS, |list| {
        list.bytes.extend_from_slice(&code.expressions.bytes);
    });
}
