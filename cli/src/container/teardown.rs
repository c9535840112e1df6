//! Takes a container down, from whatever state it is in.

use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::{
    NetworkFactory, cgroup,
    control::brief,
    id::Id,
    netns,
    process::Process,
    record::Record,
    store::{Containers, Locked},
};
use crate::store::remove_tree;

/// How long a killed process may take to be gone; only one stuck in the kernel takes longer.
const KILL_WAIT_MAX: Duration = Duration::from_secs(10);

/// Kills what still runs and removes attachments, namespace, cgroup, mount and the runtime's state.
///
/// Goes on after a failure, and may be repeated: what is not there is no error. What went wrong is
/// kept in the record, which the caller has to save, and returned.
pub(crate) fn teardown(
    containers: &Containers,
    record: &mut Record,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<()> {
    let network = record.is_attached().then_some(make_network);
    let torn_down = take_down(containers, &record.id, record.init.as_ref(), network);
    record.torn_down = torn_down.is_ok();
    record.error = torn_down.as_ref().err().map(ToString::to_string);
    torn_down.with_context(|| format!("container {} is not taken down whole", record.name))
}

/// Takes a container down that could not be started, or not watched over, and `why`. Nobody has seen one
/// that never ran, so it is removed; so is one that goes when it ends. If that fails its record stays.
pub(crate) fn undo(
    containers: &Containers,
    mut locked: Locked,
    make_network: &NetworkFactory<'_>,
    why: &anyhow::Error,
) -> anyhow::Result<()> {
    let torn_down = teardown(containers, &mut locked.record, make_network);
    let record = &mut locked.record;
    let goes = record.started_unix_s.is_none() || record.spec.auto_remove;
    if torn_down.is_ok() && goes {
        return containers.forget(locked);
    }
    record.set_exited(None);
    record.error.get_or_insert_with(|| brief(why));
    locked.save()?;
    torn_down
}

/// The same by its id alone, which is in all that a container has; `init`, its first process, and
/// `network` are those that are known to be needed.
pub(crate) fn take_down(
    containers: &Containers,
    id: &Id,
    init: Option<&Process>,
    network: Option<&NetworkFactory<'_>>,
) -> anyhow::Result<()> {
    let pin = containers.netns(id);
    let steps: [(&str, &dyn Fn() -> anyhow::Result<()>); 6] = [
        ("kill it", &|| init.map_or(Ok(()), kill)),
        ("remove its cgroup", &|| cgroup::remove(id)),
        ("detach it from its networks", &|| match network {
            Some(make) => make(containers)
                .context("can't open the network engine")?
                .detach(&pin),
            None => Ok(()),
        }),
        ("remove its network namespace", &|| netns::remove(&pin)),
        ("unmount its root filesystem", &|| {
            containers.overlay(id).unmount()
        }),
        ("remove its runtime files", &|| {
            remove_tree(&containers.runtime_dir().join(id.as_str()))?;
            Ok(remove_tree(&containers.bundle(id))?)
        }),
    ];
    let failures: Vec<_> = steps
        .into_iter()
        .filter_map(|(what, step)| step().err().map(|error| (what, error)))
        .map(|(what, error)| format!("can't {what}: {}", brief(&error)))
        .collect();
    if !failures.is_empty() {
        bail!(failures.join("; "));
    }
    Ok(())
}

fn kill(init: &Process) -> anyhow::Result<()> {
    let Some(handle) = init.open()? else {
        return Ok(());
    };
    handle.signal(Signal::KILL)?;
    if !handle.wait(KILL_WAIT_MAX)? {
        bail!("process {} does not die", init.pid);
    }
    Ok(())
}
