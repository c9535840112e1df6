//! Lock: one writer or many readers, and who they are for those who wait.

use std::fs::{File, TryLockError, read, read_to_string};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, major, minor};

use super::dir::Dir;
use super::error::io;
use super::{Access, StoreError};

const NAME: &str = "lock";
const POLL_MIN: Duration = Duration::from_micros(200);
const POLL_MAX: Duration = Duration::from_millis(10);
/// How much of the holder's command line is told.
const COMMAND_CHARS_MAX: usize = 120;

/// The lock on a directory, held until it is dropped. It has a file of its own, because the others
/// are replaced, and a lock stays with the file that was opened.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    access: Access,
}

impl Lock {
    /// Waits for the lock on `dir`, at most `wait`; `what` is in it, for the message. `None` when
    /// there is nothing to lock: a reader makes no files, and without this one there is no state;
    /// for a writer, when the directory was removed.
    pub(crate) fn take(
        dir: &Dir,
        what: &str,
        access: Access,
        wait: Duration,
    ) -> Result<Option<Self>, StoreError> {
        let path = dir.path_of(NAME);
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR | OFlags::CREATE,
        };
        let start = Instant::now();
        let mut poll = POLL_MIN;
        while let Some(file) = dir.open_file(NAME, flags)? {
            loop {
                let taken = match access {
                    Access::Read => file.try_lock_shared(),
                    Access::Write => file.try_lock(),
                };
                match taken {
                    Ok(()) => break,
                    Err(TryLockError::WouldBlock) if start.elapsed() < wait => {
                        thread::sleep(poll);
                        poll = (poll * 2).min(POLL_MAX);
                    }
                    Err(TryLockError::WouldBlock) => {
                        let holder = holder(&file);
                        let what = what.to_owned();
                        return Err(StoreError::Locked {
                            what,
                            path,
                            holder,
                            wait,
                        });
                    }
                    Err(TryLockError::Error(error)) => return Err(io("lock", &path)(error)),
                }
            }
            // Somebody may have removed it meanwhile, and others may lock the one that came after.
            if dir.holds(NAME, &file)? {
                let _file = file;
                return Ok(Some(Self { _file, access }));
            }
        }
        Ok(None)
    }

    /// Whether nobody else is in.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.access == Access::Write
    }
}

/// Who has the lock on a file, as far as the kernel and its process tell.
fn holder(file: &File) -> String {
    match pid(file) {
        Some(pid) => match command(pid) {
            Some(command) => format!("pid {pid} ({command})"),
            None => format!("pid {pid}"),
        },
        None => "another process".to_owned(),
    }
}

/// The process that locked a file. Source: proc_locks(5); one of another pid namespace is 0.
fn pid(file: &File) -> Option<u32> {
    let file = file.metadata().ok()?;
    let (major, minor) = (major(file.dev()), minor(file.dev()));
    let inode = format!("{major:02x}:{minor:02x}:{}", file.ino());
    let locks = read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            // One that only waits has an arrow behind its number.
            [_, "FLOCK", _, _, pid, place, ..] if place == inode => {
                pid.parse().ok().filter(|pid| *pid != 0)
            }
            _ => None,
        }
    })
}

/// The command line of a process, shortened, with its program's name alone.
fn command(pid: u32) -> Option<String> {
    let line = read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split_terminator('\0');
    let program = words.next()?;
    let program = Path::new(program).file_name()?.to_string_lossy();
    let words: Vec<&str> = std::iter::once(&*program).chain(words).collect();
    let shown = words
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .take(COMMAND_CHARS_MAX)
        .collect();
    Some(shown)
}
