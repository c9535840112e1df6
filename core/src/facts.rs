//! Facts: what planning needs to know of the host.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Family, ForeignChain, Listener, Netns, NftName, TableFamily};

/// What planning needs to know of the host, handed in as data. They are gathered only for
/// requests that need them ([`State::needs_facts`](crate::State::needs_facts)): attaching a
/// container to a network that is up asks the host nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Facts {
    /// Destinations of the host's routes, for clashes and automatic subnets.
    pub routes: Vec<IpNet>,
    /// Names of the host's interfaces.
    pub links: BTreeSet<String>,
    /// Families that the host forwards already.
    pub forwarding: BTreeSet<Family>,
    /// The smallest MTU of the interfaces that default routes leave by, bytes.
    pub mtu_bytes: Option<u32>,
    /// Namespaces that are gone, of those in question, and all that was in them.
    pub gone: BTreeSet<Netns>,
    /// What others have on the forward hook of nf_tables; those of dormant tables don't count.
    pub forward_chains: Vec<ForwardChain>,
    /// Families whose FORWARD chain of iptables-legacy drops what none of its rules names.
    pub legacy_drops: BTreeSet<Family>,
    /// Programs of the host that listen on ports in question
    /// ([`State::plan_around`](crate::State::plan_around)).
    pub listeners: Vec<Listener>,
}

/// A base chain on the forward hook, in a table that is not ours.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardChain {
    /// The family of its table.
    pub family: TableFamily,
    /// Its table, as the kernel has it: any bytes that are text.
    pub table: String,
    /// Its name, likewise.
    pub chain: String,
    /// Less comes earlier (`NFTA_HOOK_PRIORITY`).
    #[serde(default)]
    pub priority: i32,
    /// Whether it drops what none of its rules names, by its policy or by a rule without a
    /// condition. One that accepts by a rule that somebody made what our own forward chain let
    /// through does not; a [`Passage`](crate::Passage) does not count here.
    pub drops: bool,
    /// Whether only the process that owns the table can change it (`NFT_TABLE_F_OWNER`).
    #[serde(default)]
    pub owned: bool,
}

impl ForwardChain {
    /// The chain, if its names can be written.
    #[must_use]
    pub fn named(&self) -> Option<ForeignChain> {
        let name = |text: &str| text.parse::<NftName>().ok();
        Some(ForeignChain {
            family: self.family,
            table: name(&self.table)?,
            chain: name(&self.chain)?,
        })
    }
}
