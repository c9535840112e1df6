//! Starts containers that have ended once more.

use anyhow::{Context, bail};

use super::{
    NetworkFactory,
    id::Id,
    record::{Record, Status},
    run::{self, Means, Started, launch},
    stop::{stop_and_keep, take_over},
    store::{Containers, Locked},
};
use crate::privilege;

/// How much of a container that is started the user is to see.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Attach {
    /// Show its output, pass signals on and wait for its end; else its output goes to its log.
    pub output: bool,
    /// Have it read what this process reads, if it is one that reads at all.
    pub input: bool,
}

/// Starts a container that has ended: with its files, its name and what it was run with, attached anew
/// to its networks. `None` if it runs already, which is no error for one that is not to be shown.
///
/// After an error it has ended as before, and nothing of the attempt is left.
pub fn start(
    containers: &Containers,
    id: &Id,
    attach: Attach,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<Option<Started>> {
    check()?;
    // Settled first: one whose supervisor was killed has to be taken down before it is started.
    let Some(locked) = take_over(containers, id, make_network)? else {
        let Some(record) = containers.load(id)? else {
            bail!("no container {id}");
        };
        if attach.output {
            bail!("container {} runs already", record.name);
        }
        return Ok(None);
    };
    let means = Means {
        attached: attach.output,
        reads: attach.output && attach.input && locked.record.spec.interactive,
    };
    if attach.input && !locked.record.spec.interactive {
        let name = &locked.record.name;
        bail!("container {name} was run without -i, and reads nothing");
    }
    start_kept(containers, locked, means, make_network).map(Some)
}

/// Stops a container and starts it again, also one that goes when it ends.
pub fn restart(
    containers: &Containers,
    id: &Id,
    timeout: std::time::Duration,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<()> {
    check()?;
    let goes = keep(containers, id)?;
    let Some(mut locked) = stop_and_keep(containers, id, timeout, make_network)? else {
        bail!("no container {id}");
    };
    locked.record.spec.auto_remove = goes;
    let means = Means {
        attached: false,
        reads: false,
    };
    start_kept(containers, locked, means, make_network).map(drop)
}

fn check() -> anyhow::Result<()> {
    privilege::check("starting a container", privilege::TO_START_CONTAINERS)
}

/// Has a container stay when it ends. Whether it was to go. Should this process be killed before it
/// runs again, it stays, and is listed.
fn keep(containers: &Containers, id: &Id) -> anyhow::Result<bool> {
    let mut locked = containers
        .lock(id)?
        .with_context(|| format!("no container {id}"))?;
    let goes = locked.record.spec.auto_remove;
    if goes {
        locked.record.spec.auto_remove = false;
        locked.save()?;
    }
    Ok(goes)
}

/// Starts a container that is taken down, and that nobody else has changed since.
fn start_kept(
    containers: &Containers,
    mut locked: Locked,
    means: Means,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<Started> {
    debug_assert_eq!(locked.record.status(), Status::Exited);
    let spec = &locked.record.spec;
    run::check(spec)?;
    means.check(spec.terminal, "-i")?;
    let signals = means.hold_signals()?;
    locked.record.set_starting()?;
    locked.save()?;
    let record: Record = locked.record.clone();
    // The supervisor takes the lock. Until then the container is one that this process makes.
    drop(locked);
    launch(containers, &record, means, signals.as_ref(), make_network)
}
