//! Ends containers and removes them, whether or not their supervisor still lives.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::{
    NetworkFactory,
    id::Id,
    process::{Process, ProcessHandle},
    record::{Record, Status},
    store::{Containers, Damaged, Locked},
    teardown::{Known, take_down, teardown},
};
use crate::privilege;

/// How long a supervisor may take to take a dead container down, and a command to start its supervisor.
const SUPERVISOR_WAIT_MAX: Duration = Duration::from_secs(60);
const START_POLL: Duration = Duration::from_millis(20);
/// How long a command waits for a supervisor to say how its container has just ended.
const LAST_WORD_WAIT_MAX: Duration = Duration::from_secs(2);

/// Stops a container: SIGTERM, then SIGKILL after `timeout`. Returns when its processes are dead and
/// it is taken down, by its supervisor or, if that was killed, here. One that has ended is no error.
///
/// `None` if the container was to be removed when it ended.
pub fn stop(
    containers: &Containers,
    id: &Id,
    timeout: Duration,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<Option<Record>> {
    privilege::check("stopping a container", privilege::TO_END_CONTAINERS)?;
    Ok(stop_and_keep(containers, id, timeout, make_network)?.map(|locked| locked.record))
}

/// Removes a container with its record, log and files. One that runs is refused, or killed if `force`;
/// so is one whose record is damaged, which may run. One that is gone already is no error.
pub fn remove(
    containers: &Containers,
    id: &Id,
    force: bool,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<()> {
    privilege::check("removing a container", privilege::TO_END_CONTAINERS)?;
    match containers.load(id) {
        Ok(Some(record)) if !force => match record.status() {
            Status::Exited => {}
            status @ (Status::Created | Status::Running) => {
                bail!(
                    "container {} is {status}: stop it first, or remove it by force",
                    record.name
                )
            }
        },
        Ok(_) => {}
        Err(_) if force => return remove_damaged(containers, id, make_network),
        Err(error) => {
            let id = id.clone();
            return Err(Damaged { id, error }.into());
        }
    }
    match stop_and_keep(containers, id, Duration::ZERO, make_network)? {
        Some(locked) => containers.forget(locked),
        None => Ok(()),
    }
}

/// Its supervisor, should it live, finds nothing more to do when the container has died.
fn remove_damaged(
    containers: &Containers,
    id: &Id,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<()> {
    let Some(held) = containers.hold(id)? else {
        return Ok(());
    };
    let known = Known {
        network: Some(make_network),
        ..Known::default()
    };
    take_down(containers, id, &known)
        .with_context(|| format!("container {id} is not taken down whole"))?;
    containers.forget_damaged(held)
}

/// Takes down every container that has ended and whose supervisor was killed before it could do so,
/// and removes what is half made or half removed. Those that are being taken down are waited for a little, so
/// that it is known how they ended. Returns the containers; what goes wrong with one does not keep the
/// others.
pub fn tidy(
    containers: &Containers,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<Vec<anyhow::Result<Record>>> {
    let mut tidied: Vec<_> = containers.sweep().err().into_iter().map(Err).collect();
    for record in containers.list()?.records {
        if is_left_over(&record) {
            tidied.extend(tidy_one(containers, &record.id, make_network).transpose());
        } else if record.status() == Status::Exited
            && !record.torn_down
            && let Some(supervisor) = record.supervisor.open()?
        {
            // It knows how the container ended, and is about to write that down.
            supervisor.wait(LAST_WORD_WAIT_MAX)?;
        }
    }
    Ok(tidied)
}

/// Whether it has ended and nobody is left to take it down.
fn is_left_over(record: &Record) -> bool {
    record.is_abandoned() && !record.init_is_alive()
}

/// Takes down a container that was read to be left over; `None` if it is not.
fn tidy_one(
    containers: &Containers,
    id: &Id,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<Option<Record>> {
    privilege::check("stopping a container", privilege::TO_END_CONTAINERS)?;
    let Some(locked) = containers.lock(id)? else {
        return Ok(None);
    };
    // What was read may be older than its supervisor: it named the command that has made the container
    // since, and ended. Nobody changes it now.
    if !is_left_over(&locked.record) {
        return Ok(None);
    }
    let settled = settle(containers, locked, None, Duration::ZERO, make_network)?;
    Ok(settled.map(|locked| locked.record))
}

/// A container that has ended, taken down and locked; none if it runs, is being made, or is gone.
pub(crate) fn take_over(
    containers: &Containers,
    id: &Id,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<Option<Locked>> {
    loop {
        let Some(locked) = containers.lock(id)? else {
            return Ok(None);
        };
        if locked.record.status() != Status::Exited {
            return Ok(None);
        }
        if locked.record.torn_down {
            return Ok(Some(locked));
        }
        let Some(supervisor) = locked.record.supervisor.open()? else {
            return settle(containers, locked, None, Duration::ZERO, make_network);
        };
        let record = locked.record.clone();
        drop(locked);
        await_supervisor(&record, &supervisor)?;
    }
}

/// Sends a signal to a container's first process. After SIGKILL it is dead and taken down, as after
/// [`stop`].
pub fn kill(
    containers: &Containers,
    id: &Id,
    signal: Signal,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<()> {
    privilege::check("signalling a container", privilege::TO_END_CONTAINERS)?;
    let record = containers
        .load(id)?
        .with_context(|| format!("no container {id}"))?;
    let name = &record.name;
    let init = record.init.as_ref().map(Process::open).transpose()?;
    let Some(init) = init.flatten() else {
        bail!("container {name} does not run");
    };
    if signal == Signal::KILL {
        return stop(containers, id, Duration::ZERO, make_network).map(drop);
    }
    init.signal(signal)
        .with_context(|| format!("can't signal container {name}"))
}

/// Stops a container and keeps the lock on what is left of it.
pub(crate) fn stop_and_keep(
    containers: &Containers,
    id: &Id,
    timeout: Duration,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<Option<Locked>> {
    let deadline = Instant::now() + SUPERVISOR_WAIT_MAX;
    loop {
        // While its supervisor starts it or takes it down, that one holds the lock.
        let Some(locked) = containers.lock(id)? else {
            return Ok(None);
        };
        let record = &locked.record;
        let init = record
            .init
            .as_ref()
            .map(Process::open)
            .transpose()?
            .flatten();
        let Some(supervisor) = record.supervisor.open()? else {
            if record.torn_down {
                return Ok(Some(locked));
            }
            return settle(containers, locked, init.as_ref(), timeout, make_network);
        };
        let record = record.clone();
        drop(locked);
        end(&record, init.as_ref(), timeout)?;
        let (name, process) = (&record.name, record.supervisor.pid);
        let started = record.init.is_some();
        if started {
            await_supervisor(&record, &supervisor)?;
        } else if Instant::now() > deadline {
            bail!(
                "container {name} is still being made by process {process}: kill that process and try again"
            );
        } else {
            thread::sleep(START_POLL);
        }
    }
}

/// Ends and takes down a container that has no supervisor any more, so that nobody else needs the lock.
fn settle(
    containers: &Containers,
    mut locked: Locked,
    init: Option<&ProcessHandle>,
    timeout: Duration,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<Option<Locked>> {
    let record = &mut locked.record;
    end(record, init, timeout)?;
    let torn_down = teardown(containers, record, make_network);
    record.set_exited(None);
    let goes = record.spec.auto_remove && torn_down.is_ok();
    if goes {
        containers.forget(locked)?;
        return Ok(None);
    }
    locked.save()?;
    torn_down?;
    Ok(Some(locked))
}

/// Waits until the supervisor has taken down its container, which is dead.
fn await_supervisor(record: &Record, supervisor: &ProcessHandle) -> anyhow::Result<()> {
    if supervisor.wait(SUPERVISOR_WAIT_MAX)? {
        return Ok(());
    }
    bail!(
        "container {} is dead, but its supervisor (process {}) has not taken it down for {} s: kill that \
         process and try again",
        record.name,
        record.supervisor.pid,
        SUPERVISOR_WAIT_MAX.as_secs()
    )
}

fn end(record: &Record, init: Option<&ProcessHandle>, timeout: Duration) -> anyhow::Result<()> {
    let Some(init) = init else {
        return Ok(());
    };
    let name = &record.name;
    if !timeout.is_zero() {
        init.signal(Signal::TERM)
            .with_context(|| format!("can't stop container {name}"))?;
    }
    if !init.wait(timeout)? {
        init.signal(Signal::KILL)
            .with_context(|| format!("can't kill container {name}"))?;
    }
    Ok(())
}
