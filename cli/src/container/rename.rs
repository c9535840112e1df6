//! Calls containers otherwise.

use anyhow::{Context, bail};
use mydocker_core::ContainerName;

use super::{id::Id, record::Status, store::Containers};
use crate::privilege;

/// Gives a container another name, which nobody else may have.
///
/// Refused for one that is on a network: its endpoints are called as it is, and giving them up to
/// take them again would interrupt it.
pub fn rename(containers: &Containers, id: &Id, name: &ContainerName) -> anyhow::Result<()> {
    privilege::check("renaming a container", privilege::TO_END_CONTAINERS)?;
    let mut locked = containers
        .lock(id)?
        .with_context(|| format!("no container {id}"))?;
    let record = &locked.record;
    if record.name == *name {
        bail!("container {name} has that name already");
    }
    if record.is_attached() && !record.torn_down {
        match record.status() {
            // What its supervisor has still to do goes by its namespace.
            Status::Exited => {}
            status @ (Status::Created | Status::Running) => bail!(
                "container {} is {status}, and known by that name on network {}: stop it, rename it, and \
                 start it again",
                record.name,
                record.spec.networks.join(", ")
            ),
        }
    }
    containers.rename(&mut locked, name)
}
