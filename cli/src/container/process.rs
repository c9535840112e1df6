//! A process that can be told from a later one with the same number.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::Child,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

use crate::store::boot_id;

/// A process by number, start time and boot: numbers are reused, the three together are not.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Process {
    /// Process number, as seen from our pid namespace.
    pub pid: i32,
    /// When it started, clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
    /// The boot that it is of (`/proc/sys/kernel/random/boot_id`): a record outlives it.
    pub boot_id: String,
}

impl Process {
    /// This very process.
    pub fn current() -> anyhow::Result<Self> {
        Self::of(std::process::id().cast_signed())
    }

    /// The process that has this number now.
    pub fn of(pid: i32) -> anyhow::Result<Self> {
        let (_, start_ticks) = stat(pid)
            .with_context(|| format!("can't read /proc/{pid}/stat"))?
            .ok_or_else(|| anyhow!("there is no process {pid}"))?;
        Ok(Self {
            pid,
            start_ticks,
            boot_id: boot_id()?,
        })
    }

    /// Whether it still runs. A zombie does not; what can't be read counts as gone.
    pub fn is_alive(&self) -> bool {
        boot_id().is_ok_and(|boot_id| boot_id == self.boot_id)
            && matches!(stat(self.pid), Ok(Some((state, ticks)))
                if ticks == self.start_ticks && state != b'Z' && state != b'X')
    }

    /// A handle that stays with this process, or none if it is gone.
    pub(crate) fn open(&self) -> anyhow::Result<Option<ProcessHandle>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => {
                return Err(errno).with_context(|| format!("can't open process {}", self.pid));
            }
        };
        // Checked after opening: from here on the handle can't come to mean another process.
        Ok(self.is_alive().then_some(ProcessHandle { fd }))
    }
}

/// A process that signals can be sent to without hitting a successor.
#[derive(Debug)]
pub(crate) struct ProcessHandle {
    fd: OwnedFd,
}

impl ProcessHandle {
    /// A child that has not been waited for, so that its number is still its own.
    pub(crate) fn of_child(child: &Child) -> anyhow::Result<Self> {
        let pid = Pid::from_raw(child.id().cast_signed()).context("a child has no number")?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).context("can't open a child")?;
        Ok(Self { fd })
    }

    /// Sends a signal; one that has ended gets none.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => {
                Err(errno).with_context(|| format!("can't send signal {}", signal.as_raw()))
            }
        }
    }

    /// Waits until it has ended, or until the time is over. Whether it has ended.
    pub(crate) fn wait(&self, timeout: Duration) -> anyhow::Result<bool> {
        // A deadline too far away to be told is none at all.
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            match poll(&mut fds, left.as_ref()) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("can't wait for a process"),
            }
        }
    }
}

impl AsFd for ProcessHandle {
    /// Readable once the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// State letter and start time, or none if there is no such process.
fn stat(pid: i32) -> io::Result<Option<(u8, u64)>> {
    let text = match fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        // ESRCH: it ended between open and read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(None),
        Err(error) => return Err(error),
    };
    parse_stat(&text)
        .map(Some)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The command name, in brackets, may contain anything, so fields are counted after the last bracket.
fn parse_stat(text: &[u8]) -> Option<(u8, u64)> {
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&text[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.bytes().next()?;
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some((state, start_ticks))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_command_name_can_not_mislead() {
        let stat = b"7 (a) R 1 (x)) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(parse_stat(stat), Some((b'S', 4242)));
        assert_eq!(parse_stat(b"7 (a"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn a_successor_is_another_process() {
        let me = Process::current().unwrap();
        assert!(me.is_alive());
        let (later, rebooted) = (
            Process {
                start_ticks: me.start_ticks + 1,
                ..me.clone()
            },
            Process {
                boot_id: "another".to_owned(),
                ..me
            },
        );
        for other in [later, rebooted] {
            assert!(!other.is_alive());
            assert!(other.open().unwrap().is_none());
        }
        assert!(Process::of(i32::MAX).is_err());
    }

    #[test]
    fn an_ended_child_is_not_alive() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id().cast_signed()).unwrap();
        let handle = process.open().unwrap().unwrap();
        assert!(!handle.wait(Duration::from_millis(10)).unwrap());
        handle.signal(Signal::KILL).unwrap();
        assert!(handle.wait(Duration::from_secs(5)).unwrap());
        // Still a zombie: nobody has waited for it.
        assert!(!process.is_alive());
        child.wait().unwrap();
        handle.signal(Signal::TERM).unwrap();
    }
}
