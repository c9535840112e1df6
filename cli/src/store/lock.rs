//! Lock: one writer or many readers, and the writer's name for those who wait.

use std::fs::{File, TryLockError};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::dir::Dir;
use super::error::io;
use super::{Access, StoreError};

const NAME: &str = "lock";
const POLL_MIN: Duration = Duration::from_micros(200);
const POLL_MAX: Duration = Duration::from_millis(10);
/// How much of its command line the holder tells.
const COMMAND_CHARS_MAX: usize = 120;

/// The lock on a directory, held until it is dropped. It has a file of its own, because the others
/// are replaced, and a lock stays with the file that was opened.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
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
                let lock = Self { file, access };
                lock.sign().map_err(io("write", &path))?;
                return Ok(Some(lock));
            }
        }
        Ok(None)
    }

    /// Whether nobody else is in.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.access == Access::Write
    }

    /// Tells those who wait who is in.
    fn sign(&self) -> std::io::Result<()> {
        if self.access == Access::Read {
            return Ok(());
        }
        let mut args = std::env::args_os();
        let program = args.next().unwrap_or_default();
        let program = std::path::Path::new(&program).file_name().map(Into::into);
        let words = program.into_iter().chain(args);
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into()).collect();
        let command: String = words.join(" ").chars().take(COMMAND_CHARS_MAX).collect();
        self.file.set_len(0)?;
        let text = format!("{} {command}\n", std::process::id());
        match self.file.write_all_at(text.as_bytes(), 0) {
            // A full disk must not keep us from removing something; we stay nameless.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
            written => written,
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.access == Access::Write {
            // Only so that nobody is blamed later; the lock itself goes with the file.
            self.file.set_len(0).ok();
        }
    }
}

/// Who has the lock, as it told itself.
fn holder(file: &File) -> String {
    let mut bytes = [0; 1024];
    let text = match file.read_at(&mut bytes, 0) {
        Ok(read) => String::from_utf8_lossy(&bytes[..read]).into_owned(),
        Err(_) => String::new(),
    };
    let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    match text.split_once(' ') {
        Some((pid, command)) => format!("pid {pid} ({command})"),
        None => "another process, which only reads".to_owned(),
    }
}
