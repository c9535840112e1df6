//! Privilege: what the kernel lets only some processes do, and which of that this one may not.

use anyhow::bail;
use rustix::thread::{CapabilitySet, capabilities};

/// What changing networks takes: links, rules and routes, and to enter a container's namespace.
pub const FOR_NETWORKS: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::SYS_ADMIN);

/// What stopping and removing containers takes: their processes, mounts, files and networks.
pub(crate) const TO_END_CONTAINERS: CapabilitySet = FOR_NETWORKS
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::DAC_OVERRIDE);

/// What starting containers takes: beyond that, whatever they get themselves.
pub(crate) const TO_START_CONTAINERS: CapabilitySet = TO_END_CONTAINERS.union(IN_CONTAINERS);

/// Docker's default set: what programs running as root in a container commonly need.
pub(crate) const IN_CONTAINERS: CapabilitySet = CapabilitySet::AUDIT_WRITE
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_CHROOT);

/// Those of `needed` that this process lacks (capabilities(7), the effective set); none where nobody
/// can tell.
#[must_use]
pub fn lacking(needed: CapabilitySet) -> CapabilitySet {
    let has = capabilities(None).map_or(needed, |sets| sets.effective);
    needed.difference(has)
}

/// As `CAP_NET_ADMIN`, each.
#[must_use]
pub fn names(capabilities: CapabilitySet) -> Vec<String> {
    let names = capabilities.iter_names();
    names.map(|(name, _)| format!("CAP_{name}")).collect()
}

/// Refuses what would fail half-way for want of a capability, and says which.
pub(crate) fn check(what: &str, needed: CapabilitySet) -> anyhow::Result<()> {
    let lacking = lacking(needed);
    if lacking.is_empty() {
        return Ok(());
    }
    bail!(
        "{what} takes {}, which this process lacks: run as root",
        names(lacking).join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_named_as_the_kernel_does() {
        assert_eq!(names(FOR_NETWORKS), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        assert_eq!(names(IN_CONTAINERS).len(), 14);
    }

    #[test]
    fn what_nobody_can_have_is_lacking() {
        let unknown = CapabilitySet::from_bits_retain(1 << 63);
        assert_eq!(lacking(unknown), unknown);
        assert!(check("this", unknown).is_err() && check("this", CapabilitySet::empty()).is_ok());
    }
}
