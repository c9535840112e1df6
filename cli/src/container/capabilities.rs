//! What root in a container may do: Docker's default capabilities, with some added and dropped.

use std::{fmt, str::FromStr};

use anyhow::Context;
use rustix::thread::{self, CapabilitySet};
use serde::{Deserialize, Serialize};

use crate::privilege;

/// What differs from the default.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
pub struct Capabilities {
    /// Those that it has beside the default ones.
    pub add: Vec<Capability>,
    /// Those of the default that it has not.
    pub drop: Vec<Capability>,
}

/// A capability by name, or all of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Capability {
    /// All that this process has itself.
    All,
    /// One of capabilities(7).
    One(CapabilitySet),
}

impl Capabilities {
    /// The capabilities of root in the container. As Docker counts: with all added, those that are dropped
    /// by name are missing; with all dropped, those that are added by name are there.
    pub(crate) fn resolve(&self) -> CapabilitySet {
        let (add, drop) = (named(&self.add), named(&self.drop));
        if self.add.contains(&Capability::All) {
            let ours = thread::capabilities(None).map_or(add, |sets| sets.permitted);
            return ours.difference(drop);
        }
        if self.drop.contains(&Capability::All) {
            return add;
        }
        privilege::IN_CONTAINERS.difference(drop).union(add)
    }
}

fn named(list: &[Capability]) -> CapabilitySet {
    list.iter()
        .fold(CapabilitySet::empty(), |set, one| match one {
            Capability::All => set,
            Capability::One(one) => set.union(*one),
        })
}

impl FromStr for Capability {
    type Err = anyhow::Error;

    /// Takes `NET_ADMIN` as well as `CAP_NET_ADMIN`, in any case.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" {
            return Ok(Self::All);
        }
        let one = CapabilitySet::from_name(name).with_context(|| {
            format!("`{text}` is no capability: give ALL or a name of capabilities(7), such as NET_ADMIN")
        })?;
        Ok(Self::One(one))
    }
}

impl TryFrom<String> for Capability {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> Self {
        capability.to_string()
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("ALL"),
            Self::One(one) => f.write_str(&privilege::names(*one).concat()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(add: &[&str], drop: &[&str]) -> CapabilitySet {
        let parse = |list: &[&str]| list.iter().map(|one| one.parse().unwrap()).collect();
        Capabilities {
            add: parse(add),
            drop: parse(drop),
        }
        .resolve()
    }

    #[test]
    fn added_and_dropped_as_by_docker() {
        let usual = privilege::IN_CONTAINERS;
        assert_eq!(resolved(&[], &[]), usual);
        assert_eq!(
            resolved(&["net_admin"], &["CAP_CHOWN"]),
            usual
                .union(CapabilitySet::NET_ADMIN)
                .difference(CapabilitySet::CHOWN)
        );
        assert_eq!(resolved(&[], &["ALL"]), CapabilitySet::empty());
        assert_eq!(resolved(&["CHOWN"], &["all"]), CapabilitySet::CHOWN);
        assert_eq!(resolved(&["CHOWN"], &["CHOWN"]), usual);
        let ours = thread::capabilities(None).unwrap().permitted;
        assert_eq!(
            resolved(&["ALL"], &["CHOWN", "ALL"]),
            ours.difference(CapabilitySet::CHOWN)
        );
    }

    #[test]
    fn names_survive_a_file_and_others_do_not() {
        let capability: Capability = "Cap_Sys_Ptrace".parse().unwrap();
        let text = serde_json::to_string(&capability).unwrap();
        assert_eq!(text, "\"CAP_SYS_PTRACE\"");
        assert_eq!(
            serde_json::from_str::<Capability>(&text).unwrap(),
            capability
        );
        for bad in ["", "CAP_", "NET ADMIN", "NET_ADMIN|CHOWN", "0x1"] {
            let said = bad.parse::<Capability>().unwrap_err().to_string();
            assert!(said.contains(&format!("`{bad}`")), "{said}");
        }
    }
}
