//! The process that watches over one container: this program, executed again.

use std::{ffi::OsString, os::fd::OwnedFd, path::PathBuf};

use anyhow::{Context, bail};
use rustix::process::setsid;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2},
    iterator::Signals,
};

use super::{
    NetworkFactory,
    bring_up::{Running, bring_up},
    control::{Control, Hello, Report, brief},
    exec::{EXECUTE, execute},
    id::Id,
    overlay::MadeDirs,
    process::Process,
    record::Record,
    store::Containers,
    teardown::{teardown, undo},
    wait,
    watch::{Ended, watch},
};

/// The hidden subcommand. Its arguments: root, run root, id. Its standard input: the control line.
pub(crate) const SUPERVISE: &str = "__supervise";

/// Signals that are passed on to the container.
pub(crate) const PASSED_ON: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// Call this first thing in `main`, before any thread is started: does the work of a hidden subcommand
/// if the command line names one, and answers what to exit with.
pub fn reexec(words: &[OsString], make_network: &NetworkFactory<'_>) -> Option<u8> {
    let work = words.get(1)?;
    if work != SUPERVISE && work != EXECUTE {
        return None;
    }
    let worked = || -> anyhow::Result<()> {
        let [_, _, root, run_root, id, ..] = words else {
            bail!("an argument is missing");
        };
        let (root, run_root) = (PathBuf::from(root), PathBuf::from(run_root));
        let id = id.to_str().unwrap_or_default().parse()?;
        let containers = Containers::open(&root, &run_root)?;
        match work == EXECUTE {
            true => execute(&containers, &id),
            false => supervise(&containers, &id, make_network),
        }
    };
    // Whatever could be said was said over the control line.
    Some(u8::from(worked().is_err()))
}

fn supervise(
    containers: &Containers,
    id: &Id,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<()> {
    let control = Control::from_stdin()?;
    // From here on a signal waits until there is a container to pass it on to.
    let prepared = Signals::new(PASSED_ON.iter().chain([&SIGPIPE]))
        .context("can't handle signals")
        .and_then(|signals| {
            setsid().context("can't start a session")?;
            Ok(signals)
        });
    let started = prepared.and_then(|signals| {
        let (hello, stdin) = control.receive::<Hello>()?.context("the command is gone")?;
        start(containers, id, make_network, &control, (hello, stdin))
            .map(|started| (signals, started))
    });
    match started {
        Ok((signals, (record, running))) => see_to_the_end(
            containers,
            &record,
            running,
            signals,
            &control,
            make_network,
        ),
        Err(error) => {
            // Nobody may be left to hear it.
            control.send(&Report::failed(&error), None::<OwnedFd>)?;
            Err(error)
        }
    }
}

/// Starts the container and says so; or undoes everything, its record included.
fn start(
    containers: &Containers,
    id: &Id,
    make_network: &NetworkFactory<'_>,
    control: &Control,
    hello: (Hello, Option<OwnedFd>),
) -> anyhow::Result<(Record, Running)> {
    let mut locked = containers
        .lock(id)?
        .with_context(|| format!("no container {id}"))?;
    if locked.record.torn_down {
        bail!("the command is gone, and somebody has cleaned up after it");
    }
    locked.record.supervisor = Process::current()?;
    locked.save_running()?;
    let mut made_dirs = MadeDirs::default();
    let running = bring_up(containers, &mut locked, make_network, &mut made_dirs, hello).and_then(
        |mut running| {
            // Where no command shows it, the terminal stays here and feeds the log.
            let terminal = if running.attached {
                running.terminal.take()
            } else {
                None
            };
            control.send(&Report::Running, terminal)?;
            Ok(running)
        },
    );
    match running {
        Ok(running) => Ok((locked.record.clone(), running)),
        Err(error) => Err(match undo(containers, locked, make_network, &error) {
            Ok(()) => {
                made_dirs.take_back();
                error
            }
            Err(undo) => error.context(format!("{undo:#}; it failed because")),
        }),
    }
}

/// Waits for the container's end and takes it down.
fn see_to_the_end(
    containers: &Containers,
    record: &Record,
    running: Running,
    signals: Signals,
    control: &Control,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<()> {
    let ended = watch(record, running, signals, control);
    let taken_down = finish(containers, &record.id, &ended, make_network);
    let Ended {
        exit_code,
        mut trouble,
    } = ended;
    trouble.extend(taken_down.as_ref().err().map(brief));
    let trouble = (!trouble.is_empty()).then(|| trouble.join("; "));
    // The command may be gone: always if the container is detached. The record says the same.
    let _ = control.send(&Report::Exited { exit_code, trouble }, None::<OwnedFd>);
    taken_down
}

fn finish(
    containers: &Containers,
    id: &Id,
    ended: &Ended,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<()> {
    let Some(mut locked) = containers.lock(id)? else {
        return Ok(());
    };
    let torn_down = teardown(containers, &mut locked.record, make_network);
    locked.record.set_exited(Some(ended.exit_code));
    let told = wait::end(&containers.exit_path(id), ended.exit_code);
    if locked.record.spec.auto_remove && torn_down.is_ok() {
        return containers.forget(locked);
    }
    let trouble = ended.trouble.iter().chain(&locked.record.error).cloned();
    let trouble: Vec<_> = trouble.chain(told.err().as_ref().map(brief)).collect();
    locked.record.error = (!trouble.is_empty()).then(|| trouble.join("; "));
    locked.save()?;
    torn_down
}
