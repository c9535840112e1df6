//! Connects the user with a container in the foreground.

use std::{
    fs::File,
    io::{self, PipeReader, Read, Write, pipe, stdin, stdout},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::Context;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::Signal,
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize},
};
use signal_hook::{
    consts::{SIGHUP, SIGPIPE, SIGWINCH},
    iterator::{backend::SignalDelivery, exfiltrator::SignalOnly},
};

use super::{
    control::{Control, Report},
    process::ProcessHandle,
    runtime::Failure,
    supervisor::PASSED_ON,
};

const BUFFER_BYTES: usize = 16 << 10;
/// How long what was written to a terminal may take to come out of it.
const REST_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// Signals that are held back from this process, for the container.
pub(crate) struct UserSignals {
    wake: UnixStream,
    delivery: Mutex<SignalDelivery<UnixStream, SignalOnly>>,
}

impl UserSignals {
    /// Holds them from now on.
    pub(crate) fn hold() -> anyhow::Result<Self> {
        let held = || -> io::Result<Self> {
            let (read, write) = UnixStream::pair()?;
            let wake = read.try_clone()?;
            let signals = PASSED_ON.iter().chain([&SIGWINCH, &SIGPIPE]);
            let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, signals)?;
            Ok(Self {
                wake,
                delivery: Mutex::new(delivery),
            })
        };
        held().context("can't handle signals")
    }

    /// What has come since the last call.
    fn take(&self) -> Vec<i32> {
        self.delivery
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pending()
            .collect()
    }
}

/// Passes input, output, signals and window sizes to and fro until the supervisor says how the
/// container ended, or is gone.
pub(crate) fn relay(
    control: &Control,
    signals: &UserSignals,
    terminal: Option<OwnedFd>,
    interactive: bool,
    supervisor: &ProcessHandle,
) -> anyhow::Result<Option<Report>> {
    let Some(terminal) = terminal else {
        return wait(control, signals, None, supervisor);
    };
    let terminal = File::from(terminal);
    if !interactive {
        return wait(control, signals, Some(&terminal), supervisor);
    }
    let _raw = RawMode::enter()?;
    let (stop, stopper) = pipe().context("can't make a pipe")?;
    thread::scope(|scope| {
        let input = scope.spawn(|| pump(&stop, &terminal));
        let report = wait(control, signals, Some(&terminal), supervisor);
        // Wakes the thread, which may sleep in front of the keyboard.
        drop(stopper);
        // What can't be typed in any more is no failure of the container's.
        let _ = input.join();
        report
    })
}

/// Shows output and passes signals on.
fn wait(
    control: &Control,
    signals: &UserSignals,
    mut terminal: Option<&File>,
    supervisor: &ProcessHandle,
) -> anyhow::Result<Option<Report>> {
    loop {
        let mut fds = vec![
            PollFd::new(control, PollFlags::IN),
            PollFd::new(&signals.wake, PollFlags::IN),
            PollFd::new(supervisor, PollFlags::IN),
        ];
        fds.extend(terminal.map(|terminal| PollFd::new(terminal, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("can't wait for the container"),
        }
        let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[1] {
            for signal in signals.take() {
                if signal == SIGHUP && terminal.is_some() {
                    // Nobody is left to type or to look on. Our end of its terminal closes, and the supervisor
                    // ends what survives that.
                    return Err(hung_up());
                }
                pass_on(signal, terminal, supervisor)?;
            }
        }
        if let Some(from) = terminal
            && ready[3]
            && !show(from)?
        {
            terminal = None;
        }
        if ready[0] {
            let report = control.receive::<Report>()?.map(|(report, _)| report);
            if let (Some(_), Some(from)) = (&report, terminal) {
                show_rest(from)?;
            }
            return Ok(report);
        }
        if ready[2] {
            // It was killed: there is no last word, and its end of the line may be held open by what it left.
            return Ok(None);
        }
    }
}

fn hung_up() -> anyhow::Error {
    // 128 + SIGHUP
    Failure {
        exit_code: 129,
        message: "the terminal hung up, so what ran in it was ended".to_owned(),
    }
    .into()
}

/// Shows what is still in a terminal. With the container gone it has an end; where others in the container
/// hold it open, it is over when nothing more comes.
fn show_rest(from: &File) -> anyhow::Result<()> {
    loop {
        let mut fds = [PollFd::new(from, PollFlags::IN)];
        match poll(&mut fds, Some(&REST_WAIT)) {
            Ok(0) => return Ok(()),
            Ok(_) if !show(from)? => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("can't wait for the container's terminal"),
        }
    }
}

/// Shows what can be read at once. Whether there may be more.
fn show(from: &File) -> anyhow::Result<bool> {
    let mut bytes = [0; BUFFER_BYTES];
    match (&mut &*from).read(&mut bytes) {
        Ok(0) => Ok(false),
        Ok(count) => {
            let mut out = stdout().lock();
            out.write_all(&bytes[..count])
                .and_then(|()| out.flush())
                .context("can't write to standard output")?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        // How a terminal says that nobody has its other end any more.
        Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(false),
        Err(error) => Err(error).context("can't read the container's terminal"),
    }
}

fn pass_on(signal: i32, terminal: Option<&File>, supervisor: &ProcessHandle) -> anyhow::Result<()> {
    // Held only so that a write to nobody fails, with the terminal restored, and does not kill us.
    if signal == SIGPIPE {
        return Ok(());
    }
    if signal == SIGWINCH {
        if let Some(terminal) = terminal
            && let Ok(size) = tcgetwinsize(stdout())
        {
            tcsetwinsize(terminal, size).context("can't size the container's terminal")?;
        }
        return Ok(());
    }
    match Signal::from_named_raw(signal) {
        Some(signal) => supervisor.signal(signal),
        None => Ok(()),
    }
}

/// Types what the user types, until the user's input ends or `stop` closes.
fn pump(stop: &PipeReader, terminal: &File) -> io::Result<()> {
    let user = stdin();
    let mut bytes = [0; BUFFER_BYTES];
    loop {
        let mut fds = [
            PollFd::new(&user, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if !fds[1].revents().is_empty() {
            return Ok(());
        }
        if fds[0].revents().is_empty() {
            continue;
        }
        // Not through `Stdin`, whose buffer would hide from `poll` what it has read.
        match rustix::io::read(user.as_fd(), &mut bytes) {
            Ok(0) => return Ok(()),
            Ok(count) => (&mut &*terminal).write_all(&bytes[..count])?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The user's terminal passes every key on, until this is dropped.
struct RawMode {
    before: Option<Termios>,
}

impl RawMode {
    fn enter() -> anyhow::Result<Self> {
        let what = "can't set up the terminal";
        if !isatty(stdin()) {
            return Ok(Self { before: None });
        }
        let before = tcgetattr(stdin()).context(what)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).context(what)?;
        Ok(Self {
            before: Some(before),
        })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that is gone needs no restoring.
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}
