//! A container's control group, in each hierarchy that the host has.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::{io::Errno, process::Signal};

use super::{id::Id, process::Process};

const ROOT: &str = "/sys/fs/cgroup";
/// How long killed processes may take to leave; only one stuck in the kernel takes longer.
const WAIT_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
const GONE: i32 = Errno::NODEV.raw_os_error();

/// What a container's cgroup is called below the root of each hierarchy. At the top, so that no
/// parent is left over.
pub(crate) fn name(id: &Id) -> String {
    format!("mydocker-{id}")
}

/// Kills what is left in a container's cgroups and removes them. Nothing there is no error.
///
/// Who is in them is what the kernel says, not what was written down: a process number that was
/// noted may be somebody else's by now.
pub(crate) fn remove(id: &Id) -> anyhow::Result<()> {
    for path in places(id)? {
        remove_one(&path).with_context(|| format!("can't remove cgroup {}", path.display()))?;
    }
    Ok(())
}

/// What a file of a container's cgroup says, in whichever hierarchy has it; none if none has.
pub(crate) fn read(id: &Id, file: &str) -> anyhow::Result<Option<String>> {
    for place in places(id)? {
        let path = place.join(file);
        match fs::read_to_string(&path) {
            Ok(text) => return Ok(Some(text)),
            // ENODEV: the cgroup was removed while the file was open.
            Err(error) if is_absent(&error) || error.raw_os_error() == Some(GONE) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("can't read {}", path.display()));
            }
        }
    }
    Ok(None)
}

/// Where a container's cgroups are, if they are.
fn places(id: &Id) -> anyhow::Result<Vec<PathBuf>> {
    let hierarchies = match fs::read_dir(ROOT) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("can't read {ROOT}")),
    };
    // At the top for version 2, one level down for version 1.
    let mut places = vec![Path::new(ROOT).join(name(id))];
    for entry in hierarchies {
        let entry = entry.with_context(|| format!("can't read {ROOT}"))?;
        places.push(entry.path().join(name(id)));
    }
    Ok(places)
}

fn remove_one(path: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        for pid in members(path)? {
            kill(path, pid)?;
        }
        match fs::remove_dir(path) {
            // Who was killed leaves when it has died.
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                thread::sleep(POLL);
            }
            Err(error) if !is_absent(&error) => return Err(error.into()),
            _ => return Ok(()),
        }
    }
}

fn kill(path: &Path, pid: i32) -> anyhow::Result<()> {
    // One that ended since is fine, and no other is meant.
    let Ok(process) = Process::of(pid) else {
        return Ok(());
    };
    let Some(process) = process.open()? else {
        return Ok(());
    };
    // Read again: before it was opened, the number may have become another's.
    if members(path)?.contains(&pid) {
        process.signal(Signal::KILL)?;
    }
    Ok(())
}

/// The processes in a cgroup; none if it is not there.
fn members(path: &Path) -> io::Result<Vec<i32>> {
    match fs::read_to_string(path.join("cgroup.procs")) {
        // Those of another pid namespace are called 0.
        Ok(text) => Ok(text
            .lines()
            .filter_map(|line| line.parse().ok())
            .filter(|pid| *pid > 0)
            .collect()),
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn is_absent(error: &io::Error) -> bool {
    // Of the root's entries, files are no hierarchies.
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn kills_its_members_and_goes() {
        let id: Id = Id::random().unwrap();
        let places = [Path::new(ROOT).to_owned(), Path::new(ROOT).join("pids")];
        let made = places.iter().map(|place| place.join(name(&id)));
        let made: Vec<_> = made.filter(|path| fs::create_dir(path).is_ok()).collect();
        let Some(cgroup) = made.iter().find(|path| path.join("cgroup.procs").exists()) else {
            println!("skipped: making a cgroup needs root and a writable {ROOT}");
            made.iter().for_each(|path| drop(fs::remove_dir(path)));
            return;
        };
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let joined = fs::write(cgroup.join("cgroup.procs"), child.id().to_string());
        let removed = remove(&id);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        joined.unwrap();
        removed.unwrap();
        assert!(made.iter().all(|path| !path.exists()));
        assert!(!status.success());
        remove(&id).unwrap();
    }
}
