//! Warnings: what a plan can't do, and the command that would.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{Family, ForeignChain, LinkName, Passage, Ruleset, TableFamily};

/// A firewall of somebody else's that drops what containers send and receive, and that a plan leaves
/// alone. In words it names the chain and the command that lets containers through.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Warning {
    /// The network wants it left alone.
    ForeignDrop(ForeignChain),
    /// It judges before our own chain has marked anything, so that only the bridge tells.
    EarlyDrop {
        /// The chain.
        chain: ForeignChain,
        /// The bridge of the network.
        bridge: LinkName,
    },
    /// Its table belongs to a process, and nobody else can change it.
    OwnedDrop(ForeignChain),
    /// `nft` can't write the names of its table and of itself.
    UnnameableDrop {
        /// The family of the table.
        family: TableFamily,
        /// The table's name.
        table: String,
        /// The chain's name.
        chain: String,
    },
    /// It is the FORWARD chain of iptables-legacy, which knows no nf_tables.
    LegacyDrop(Family),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bit = Ruleset::PASSED;
        match self {
            Self::ForeignDrop(chain) => {
                write!(f, "chain {chain} drops what is forwarded; ")?;
                write!(f, "to let containers through: {}", Insert(chain))
            }
            Self::EarlyDrop { chain, bridge } => {
                write!(f, "chain {chain} drops what is forwarded before mydocker ")?;
                write!(f, "can judge it; to let containers through: ")?;
                write!(f, "nft 'insert rule {chain} iifname \"{bridge}\" accept; ")?;
                write!(f, "insert rule {chain} oifname \"{bridge}\" accept'")
            }
            Self::OwnedDrop(chain) => {
                write!(f, "chain {chain} drops what is forwarded, and only the ")?;
                write!(
                    f,
                    "process that owns the table can change it: have it accept "
                )?;
                write!(f, "mark {bit:#x}/{bit:#x} (firewalld lets others in with ")?;
                f.write_str("NftablesTableOwner=no in /etc/firewalld/firewalld.conf)")
            }
            Self::UnnameableDrop {
                family,
                table,
                chain,
            } => {
                let (table, chain) = (table.escape_debug(), chain.escape_debug());
                write!(
                    f,
                    "chain `{chain}` of table {family} `{table}` drops what is "
                )?;
                write!(
                    f,
                    "forwarded, and no command can name it: give it and its table "
                )?;
                f.write_str("names of letters, digits, `_`, `.`, `/` and `-`")
            }
            Self::LegacyDrop(family) => {
                let command = match family {
                    Family::V4 => "iptables-legacy",
                    Family::V6 => "ip6tables-legacy",
                };
                write!(f, "chain FORWARD of {command} drops what is forwarded; ")?;
                write!(f, "to let containers through: {command} -I FORWARD ")?;
                write!(f, "-m mark --mark {bit:#x}/{bit:#x} -j ACCEPT")
            }
        }
    }
}

/// The rule of a passage, as a command that somebody may type.
struct Insert<'a>(&'a ForeignChain);

impl fmt::Display for Insert<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nft 'insert rule {} {}'", self.0, Passage::rule())
    }
}
