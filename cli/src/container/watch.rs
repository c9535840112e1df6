//! What a supervisor does while its container runs.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, waitid},
};
use signal_hook::{
    consts::{SIGINT, SIGPIPE, SIGTERM},
    iterator::Signals,
};

use super::{
    bring_up::Running,
    control::{Control, Hello, brief},
    log::Stream,
    process::{Process, ProcessHandle},
    record::Record,
    slim::forget_program,
};

/// A program that ignores this many requests to end is killed, as with `docker run`.
const REQUESTS_TO_END_MAX: u32 = 3;
/// What a container gets to end by itself when the command it belongs to is gone.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(10);

/// How a container ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The program's exit code, or 128 + the signal that killed it.
    pub(crate) exit_code: u8,
    /// What went wrong meanwhile.
    pub(crate) trouble: Vec<String>,
}

/// Writes the log and passes signals on until the container has ended.
pub(crate) fn watch(
    record: &Record,
    mut running: Running,
    signals: Signals,
    control: &Control,
) -> Ended {
    let mut trouble = Vec::new();
    let (attached, input) = (running.attached, running.input.take());
    let logs = start_logs(running).unwrap_or_else(|error| {
        trouble.push(brief(&error));
        Vec::new()
    });
    let helped = record
        .init
        .as_ref()
        .map(|init| help(init, attached, signals, control))
        .transpose();
    trouble.extend(helped.err().as_ref().map(brief));
    forget_program();
    let exit_code = wait(record.init.as_ref()).unwrap_or_else(|error| {
        trouble.push(brief(&error));
        u8::MAX
    });
    // Nobody ever wrote to it: it was kept so that reading it does not end.
    drop(input);
    // With the first process everything in its pid namespace has died, so the output ends here.
    for log in logs {
        match log.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => trouble.push(format!("the log is not whole: {error}")),
            Err(_) => trouble.push("the log is not whole: a thread panicked".to_owned()),
        }
    }
    Ended { exit_code, trouble }
}

type LogThread = JoinHandle<io::Result<()>>;

fn start_logs(running: Running) -> anyhow::Result<Vec<LogThread>> {
    let mut threads = Vec::new();
    let Some(log) = running.log else {
        return Ok(threads);
    };
    let mut copy = |from: OwnedFd, stream| -> anyhow::Result<()> {
        let log = log.clone();
        threads.push(spawn(move || log.copy(File::from(from), stream))?);
        Ok(())
    };
    if let Some(terminal) = running.terminal {
        copy(terminal, Stream::Stdout)?;
    }
    if let Some((stdout, stderr)) = running.output {
        copy(stdout.into(), Stream::Stdout)?;
        copy(stderr.into(), Stream::Stderr)?;
    }
    Ok(threads)
}

/// Starts the threads that pass signals on to `init`, and that notice when the command is gone that
/// it is `attached` to.
pub(crate) fn help(
    init: &Process,
    attached: bool,
    mut signals: Signals,
    control: &Control,
) -> anyhow::Result<()> {
    if attached && let Some(init) = init.open()? {
        let control = control.try_clone()?;
        spawn(move || {
            // The command says nothing more: an answer means that it is gone.
            while let Ok(Some(_)) = control.receive::<Hello>() {}
            end(&init)
        })?;
    }
    if let Some(init) = init.open()? {
        spawn(move || pass_on(&mut signals, &init, attached))?;
    }
    Ok(())
}

fn spawn<T: Send + 'static>(
    f: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<T>> {
    thread::Builder::new()
        .spawn(f)
        .context("can't start a thread")
}

fn end(init: &ProcessHandle) -> anyhow::Result<()> {
    init.signal(Signal::TERM)?;
    if !init.wait(ORPHAN_TIMEOUT)? {
        init.signal(Signal::KILL)?;
    }
    Ok(())
}

fn pass_on(signals: &mut Signals, init: &ProcessHandle, attached: bool) -> anyhow::Result<()> {
    let mut requests_to_end = 0;
    // SIGPIPE is held only so that a write to nobody fails and does not kill us.
    for signal in signals.forever().filter(|&signal| signal != SIGPIPE) {
        requests_to_end += u32::from(signal == SIGINT || signal == SIGTERM);
        let signal = if attached && requests_to_end >= REQUESTS_TO_END_MAX {
            Signal::KILL
        } else {
            Signal::from_named_raw(signal).context("a signal without a name")?
        };
        init.signal(signal)?;
    }
    Ok(())
}

/// Waits for a child of ours: its exit code, or 128 + the signal that killed it.
pub(crate) fn wait(init: Option<&Process>) -> anyhow::Result<u8> {
    let pid = init
        .and_then(|init| Pid::from_raw(init.pid))
        .context("the container has no process")?;
    loop {
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                let killed = status.terminating_signal().map(|signal| 128 + signal);
                let code = status.exit_status().or(killed);
                return code
                    .and_then(|code| u8::try_from(code).ok())
                    .context("the container ended strangely");
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => bail!("can't wait for process {pid:?}: {errno}"),
        }
    }
}
