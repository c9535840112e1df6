//! Takes a container down, from whatever state it is in.

use std::{fmt::Display, time::Duration};

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::{
    NetworkFactory, control::brief, netns, record::Record, runtime, store::Containers,
    store::remove_tree,
};

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
    let steps: [(&str, &dyn Fn() -> anyhow::Result<()>); 6] = [
        ("kill it", &|| kill(record)),
        ("remove its cgroup", &|| {
            runtime::delete(&record.id, &containers.runtime_dir())
        }),
        ("detach it from its networks", &|| {
            detach(containers, record, make_network)
        }),
        ("remove its network namespace", &|| {
            netns::remove(&containers.netns(&record.id))
        }),
        ("unmount its root filesystem", &|| {
            containers.overlay(record).unmount()
        }),
        ("remove its runtime files", &|| {
            remove_tree(&containers.bundle(&record.id))
        }),
    ];
    let failures: Vec<_> = steps
        .into_iter()
        .filter_map(|(what, step)| step().err().map(|error| failure(what, &brief(&error))))
        .collect();
    record.torn_down = failures.is_empty();
    record.error = (!failures.is_empty()).then(|| failures.join("; "));
    match &record.error {
        None => Ok(()),
        Some(error) => bail!("container {} is not taken down whole: {error}", record.name),
    }
}

fn failure(what: &str, why: &dyn Display) -> String {
    format!("can't {what}: {why}")
}

fn kill(record: &Record) -> anyhow::Result<()> {
    let Some(init) = record.init else {
        return Ok(());
    };
    let Some(handle) = init.open()? else {
        return Ok(());
    };
    handle.signal(Signal::KILL)?;
    if !handle.wait(KILL_WAIT_MAX)? {
        bail!("process {} does not die", init.pid);
    }
    Ok(())
}

fn detach(
    containers: &Containers,
    record: &Record,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<()> {
    if !record.is_attached() {
        return Ok(());
    }
    make_network(containers, record)
        .context("can't open the network engine")?
        .detach(record.name.as_str())
}
