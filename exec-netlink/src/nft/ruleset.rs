//! Our table: its chains and their rules, created in one batch and never edited.

use std::sync::LazyLock;

use super::abi::*;
use super::attr::Writer;
use super::rule::Rule;
use super::set::Set;

/// How the comment of every table that we made begins.
pub(super) const MARK: &str = "mydocker ";

/// What stands in the kernel under the name of our table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Condition {
    /// No such table.
    Absent,
    /// A table without our mark: somebody else's, to be left alone.
    Foreign,
    /// Ours, made by another version.
    Outdated,
    /// Ours and of this version, but chains, sets or rules were edited.
    Damaged,
    /// Ours, as created. Elements are not looked at.
    Intact,
}

/// A chain, and where it is attached if anywhere.
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) base: Option<Base>,
    pub(super) rules: Vec<Rule>,
}

/// Where a chain is attached; its policy is to accept.
pub(super) struct Base {
    kind: &'static str,
    hook: u32,
    priority: i32,
    text: &'static str,
}

impl Chain {
    fn base(
        name: &'static str,
        (kind, hook, priority): (&'static str, u32, i32),
        text: &'static str,
        rules: Vec<Rule>,
    ) -> Self {
        Self {
            name,
            base: Some(Base {
                kind,
                hook,
                priority,
                text,
            }),
            rules,
        }
    }

    /// The attributes of `NFT_MSG_NEWCHAIN`.
    pub(super) fn encode(&self, table: &str, out: &mut Writer) {
        out.string(NFTA_CHAIN_TABLE, table)
            .string(NFTA_CHAIN_NAME, self.name);
        let Some(base) = &self.base else { return };
        out.nest(NFTA_CHAIN_HOOK, |hook| {
            hook.number(NFTA_HOOK_HOOKNUM, base.hook);
            hook.bytes(NFTA_HOOK_PRIORITY, &base.priority.to_be_bytes());
        });
        out.bytes(NFTA_CHAIN_POLICY, &NF_ACCEPT.to_be_bytes());
        out.string(NFTA_CHAIN_TYPE, base.kind);
    }

    /// The attributes of `NFT_MSG_NEWRULE` for one of its rules.
    pub(super) fn encode_rule(&self, table: &str, rule: &Rule, out: &mut Writer) {
        out.string(NFTA_RULE_TABLE, table)
            .string(NFTA_RULE_CHAIN, self.name);
        out.nest(NFTA_RULE_EXPRESSIONS, |list| {
            list.bytes.extend_from_slice(&rule.expressions.bytes);
        });
    }
}

/// The attributes of `NFT_MSG_NEWTABLE`.
pub(super) fn encode_table(table: &str, out: &mut Writer) {
    out.string(NFTA_TABLE_NAME, table);
    let text = comment();
    // An attribute of libnftnl's making: type, length, value.
    let len = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let mut userdata = vec![NFTNL_UDATA_TABLE_COMMENT, len];
    userdata.extend_from_slice(text.as_bytes());
    userdata.push(0);
    out.bytes(NFTA_TABLE_USERDATA, &userdata);
}

/// The comment that marks a table as ours, and as made by this version: it ends in a hash of all
/// that the table is created with.
pub(super) fn comment() -> &'static str {
    static COMMENT: LazyLock<String> = LazyLock::new(|| {
        let mut out = Writer::default();
        Set::ALL
            .into_iter()
            .for_each(|set| set.encode("", &mut out));
        for chain in chains() {
            chain.encode("", &mut out);
            chain
                .rules
                .iter()
                .for_each(|rule| chain.encode_rule("", rule, &mut out));
        }
        format!("{MARK}ruleset {:016x}", fnv1a(&out.bytes))
    });
    &COMMENT
}

/// Fowler, Noll and Vo's hash, FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The table as `nft -f` would read it, for people and for dry runs.
#[must_use]
pub fn text(table: &str) -> String {
    let mut text = format!("table inet {table} {{\n  comment \"{}\"\n", comment());
    for set in Set::ALL {
        text.push_str(&format!("  {}\n", set.text()));
    }
    for chain in chains() {
        text.push_str(&format!("  chain {} {{\n", chain.name));
        if let Some(base) = chain.base {
            text.push_str(&format!("    type {}; policy accept;\n", base.text));
        }
        for rule in chain.rules {
            text.push_str(&format!("    {}\n", rule.text));
        }
        text.push_str("  }\n");
    }
    text.push_str("}\n");
    text
}

/// The chains, those that are jumped to before those that jump.
///
/// Netfilter priorities (linux/netfilter_ipv4.h): raw -300, dstnat -100, filter 0, srcnat 100.
pub(super) fn chains() -> [Chain; 6] {
    [
        Chain {
            name: "publish",
            base: None,
            rules: publish(),
        },
        Chain::base(
            "raw",
            ("filter", NF_INET_PRE_ROUTING, -300),
            "filter hook prerouting priority raw",
            raw(),
        ),
        Chain::base(
            "prerouting",
            ("nat", NF_INET_PRE_ROUTING, -100),
            "nat hook prerouting priority dstnat",
            prerouting(),
        ),
        Chain::base(
            "output",
            ("nat", NF_INET_LOCAL_OUT, -100),
            // nft refuses the name dstnat here.
            "nat hook output priority -100",
            output(),
        ),
        Chain::base(
            "postrouting",
            ("nat", NF_INET_POST_ROUTING, 100),
            "nat hook postrouting priority srcnat",
            postrouting(),
        ),
        Chain::base(
            "forward",
            // Before the filters of others: a packet that we refuse is not theirs to count.
            ("filter", NF_INET_FORWARD, -10),
            "filter hook forward priority filter - 10",
            forward(),
        ),
    ]
}

/// A published port: its destination becomes the container. One lookup each, one address before
/// all addresses. A lookup that finds nothing, or finds a packet too short, ends its rule.
fn publish() -> Vec<Rule> {
    vec![
        Rule::new("dnat ip to ip daddr . meta l4proto . th dport map @publish4_at")
            .ipv4()
            .daddr4(0)
            .l4proto(1)
            .dport(2)
            .mapped_by(Set::Publish4At)
            .dnat4(),
        Rule::new("dnat ip to meta l4proto . th dport map @publish4")
            .l4proto(0)
            .dport(1)
            .mapped_by(Set::Publish4)
            .dnat4(),
        Rule::new("dnat ip6 to ip6 daddr . meta l4proto . th dport map @publish6_at")
            .ipv6()
            .daddr6(0)
            .l4proto(4)
            .dport(5)
            .mapped_by(Set::Publish6At)
            .dnat6(),
        Rule::new("dnat ip6 to meta l4proto . th dport map @publish6")
            .l4proto(0)
            .dport(1)
            .mapped_by(Set::Publish6)
            .dnat6(),
    ]
}

/// `route_localnet` on a bridge lets the host's 127.0.0.1 reach containers. It must not let
/// containers reach the host's 127.0.0.1.
fn raw() -> Vec<Rule> {
    vec![
        Rule::new("iifname @bridges ip daddr 127.0.0.0/8 drop")
            .iifname(0)
            .in_set(Set::Bridges)
            .ipv4()
            .daddr4_loopback()
            .drop(),
        Rule::new("iifname @bridges ip saddr 127.0.0.0/8 drop")
            .iifname(0)
            .in_set(Set::Bridges)
            .ipv4()
            .saddr4_loopback()
            .drop(),
    ]
}

/// Translation comes before routing, which would refuse a packet to 127.0.0.1 from a neighbour: it
/// must still be one to 127.0.0.1 by then, or a port published on that address is open to the
/// neighbours. The host's own packets are translated in `output`. The kernel refuses ::1 earlier.
fn prerouting() -> Vec<Rule> {
    vec![
        Rule::new("ip daddr 127.0.0.0/8 return")
            .ipv4()
            .daddr4_loopback()
            .back(),
        Rule::new("fib daddr type local jump publish")
            .daddr_local()
            .jump("publish"),
    ]
}

/// IPv6 has no `route_localnet`: what was ::1 never comes back from a container. Left alone, it is
/// refused at once, and whoever meant "localhost" goes on to 127.0.0.1.
fn output() -> Vec<Rule> {
    vec![
        Rule::new("ip6 daddr ::1 return")
            .ipv6()
            .daddr6_loopback()
            .back(),
        Rule::new("fib daddr type local jump publish")
            .daddr_local()
            .jump("publish"),
    ]
}

/// While a bridge calls here (bridge-nf-call-iptables), there is no iifname and oifname is the
/// bridge: such packets are hairpins or return at the fourth rule.
fn postrouting() -> Vec<Rule> {
    vec![
        // A container to a published port of its own network: the answer must come back through
        // us, not straight to a container that knows nothing of it.
        Rule::new("ct status dnat ip saddr . oifname @masquerade4 masquerade")
            .ct_dnat()
            .ipv4()
            .saddr4(0)
            .oifname(1)
            .in_set(Set::Masquerade4)
            .masquerade(),
        Rule::new("ct status dnat ip6 saddr . oifname @masquerade6 masquerade")
            .ct_dnat()
            .ipv6()
            .saddr6(0)
            .oifname(4)
            .in_set(Set::Masquerade6)
            .masquerade(),
        // The host to its own 127.0.0.1:port: nobody could answer that source.
        Rule::new("oifname @bridges ip saddr 127.0.0.0/8 masquerade")
            .oifname(0)
            .in_set(Set::Bridges)
            .ipv4()
            .saddr4_loopback()
            .masquerade(),
        // Into and between networks of ours the source survives.
        Rule::new("oifname @bridges return")
            .oifname(0)
            .in_set(Set::Bridges)
            .back(),
        // The way out.
        Rule::new("ip saddr . iifname @masquerade4 masquerade")
            .ipv4()
            .saddr4(0)
            .iifname(1)
            .in_set(Set::Masquerade4)
            .masquerade(),
        Rule::new("ip6 saddr . iifname @masquerade6 masquerade")
            .ipv6()
            .saddr6(0)
            .iifname(4)
            .in_set(Set::Masquerade6)
            .masquerade(),
    ]
}

/// Who may talk to whom. An accept here ends this chain only; others on the hook still judge.
fn forward() -> Vec<Rule> {
    vec![
        Rule::new("iifname != @bridges oifname != @bridges return")
            .iifname(0)
            .not_in_set(Set::Bridges)
            .oifname(0)
            .not_in_set(Set::Bridges)
            .back(),
        Rule::new("iifname . oifname @own accept")
            .iifname(0)
            .oifname(4)
            .in_set(Set::Own)
            .accept(),
        Rule::new("iifname @internal drop")
            .iifname(0)
            .in_set(Set::Internal)
            .drop(),
        Rule::new("oifname @internal drop")
            .oifname(0)
            .in_set(Set::Internal)
            .drop(),
        Rule::new("ct state established,related accept")
            .ct_established()
            .accept(),
        // Published ports.
        Rule::new("oifname @bridges ct status dnat accept")
            .oifname(0)
            .in_set(Set::Bridges)
            .ct_dnat()
            .accept(),
        Rule::new("iifname @open oifname @open accept")
            .iifname(0)
            .in_set(Set::Open)
            .oifname(0)
            .in_set(Set::Open)
            .accept(),
        // Unpublished ports, and other networks.
        Rule::new("oifname @bridges drop")
            .oifname(0)
            .in_set(Set::Bridges)
            .drop(),
    ]
}
