//! Takes a container down, from whatever state it is in.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::{
    NetworkFactory, cgroup,
    control::brief,
    id::Id,
    netns,
    process::Process,
    record::Record,
    runtime,
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
    let known = Known {
        init: record.init.as_ref(),
        runtime: record.spec.runtime.as_deref(),
        network,
    };
    let torn_down = take_down(containers, &record.id, &known);
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

/// What is known of a container beside its id, as far as it is needed.
#[derive(Default)]
pub(crate) struct Known<'a> {
    /// Its first process.
    pub(crate) init: Option<&'a Process>,
    /// Its runtime, if that is not the embedded one.
    pub(crate) runtime: Option<&'a Path>,
    /// Who takes it off its networks.
    pub(crate) network: Option<&'a NetworkFactory<'a>>,
}

/// The same by its id, which is in all that a container has.
pub(crate) fn take_down(containers: &Containers, id: &Id, known: &Known<'_>) -> anyhow::Result<()> {
    let pin = containers.netns(id);
    let state = containers.runtime_dir();
    let steps: [(&str, &dyn Fn() -> anyhow::Result<()>); 7] = [
        ("kill it", &|| known.init.map_or(Ok(()), kill)),
        ("have its runtime delete it", &|| match known.runtime {
            Some(program) => runtime::delete(program, &state, id),
            None => Ok(()),
        }),
        ("remove its cgroup", &|| cgroup::remove(id)),
        ("detach it from its networks", &|| match known.network {
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
            remove_tree(&state.join(id.as_str()))?;
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
