//! Passage: the one rule of ours that stands in a place of somebody else's.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::shown;
use crate::{Expression, Family, Instance, NftName, Rule, TableFamily, Verdict};

/// A base chain of somebody else's that packets pass on their way between interfaces.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct ForeignChain {
    /// The family of its table.
    pub family: TableFamily,
    /// Its table.
    pub table: NftName,
    /// Its name.
    pub chain: NftName,
}

impl ForeignChain {
    /// Whether packets of that family come through it.
    #[must_use]
    pub fn sees(&self, family: Family) -> bool {
        self.family.sees(family)
    }
}

/// As `nft` names a chain: `ip filter FORWARD`.
impl fmt::Display for ForeignChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.chain)
    }
}

/// A rule at the head of a foreign chain that accepts what our own forward chain let through, and
/// so marked: an accept in one base chain does not save a packet from a drop in another one of the
/// same hook. It is the same rule however many networks there are, and one that iptables can print.
///
/// Its mark of ownership is its comment, together with all it does: one that somebody edited is
/// theirs from then on.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct Passage {
    /// Whose.
    pub instance: Instance,
    /// Where.
    pub chain: ForeignChain,
}

impl Passage {
    /// What the rule says. Equivalent to: meta mark & 0x01000000 == 0x01000000 accept
    #[must_use]
    pub fn rule() -> Rule {
        Rule {
            when: alloc::vec![Expression::Passed],
            then: Verdict::Accept,
        }
    }

    /// The comment that tells the rules of several instances in one chain apart.
    #[must_use]
    pub fn comment(&self) -> String {
        self.instance.table()
    }
}

/// What to do about a foreign chain that drops what is forwarded.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ForeignForward {
    /// Put a [`Passage`] into it.
    #[default]
    Accept,
    /// Leave it alone and say so.
    Report,
}

impl ForeignForward {
    /// Whether it is what goes without saying.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A word that says nothing about foreign chains.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is nothing to do about a foreign firewall: write accept or report")]
pub struct ForeignForwardError(String);

impl FromStr for ForeignForward {
    type Err = ForeignForwardError;

    fn from_str(value: &str) -> Result<Self, ForeignForwardError> {
        match value {
            "accept" => Ok(Self::Accept),
            "report" => Ok(Self::Report),
            other => Err(ForeignForwardError(shown(other))),
        }
    }
}
