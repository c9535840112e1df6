//! Census: which namespaces there are, by what leads to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use mydocker_core::Netns;
use nix::errno::Errno;

use crate::home::{self, Home};

/// Every namespace but home that a mount or a process leads to, by one path each; by a mount if there
/// is one, since processes end.
pub(crate) fn namespaces(home: &Home) -> io::Result<BTreeSet<Netns>> {
    let mut found = BTreeMap::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    for path in mounts.lines().filter_map(bound_at) {
        add(&path, &mut found)?;
    }
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name
            .to_str()
            .filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
        if let Some(pid) = pid {
            add(&format!("/proc/{pid}/ns/net"), &mut found)?;
        }
    }
    found.remove(&home.id());
    Ok(found.into_values().collect())
}

/// Notes what a path leads to, unless another one does. A path that we could not write down leads
/// nowhere.
fn add(path: &str, found: &mut BTreeMap<(u64, u64), Netns>) -> io::Result<()> {
    let Ok(netns) = path.parse() else {
        return Ok(());
    };
    match fs::metadata(path) {
        Ok(file) => {
            found.entry(home::id(&file)).or_insert(netns);
            Ok(())
        }
        Err(error) if is_nowhere(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a process ended while we looked, a mount is hidden by another one, or nobody lets us see
/// where a process is: there we could not enter.
fn is_nowhere(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    let nowhere = [
        Errno::ENOENT,
        Errno::ENOTDIR,
        Errno::ESRCH,
        Errno::EACCES,
        Errno::EPERM,
    ];
    errno.is_some_and(|errno| nowhere.contains(&errno))
}

/// Where a network namespace is bound, if that is what a line of `mountinfo` says
/// (proc_pid_mountinfo(5)). A path with a blank in it is escaped there, and no path of ours.
fn bound_at(line: &str) -> Option<String> {
    let (of_mount, of_source) = line.split_once(" - ")?;
    let mut of_mount = of_mount.split(' ').skip(3);
    let (root, path) = (of_mount.next()?, of_mount.next()?);
    (of_source.starts_with("nsfs ") && root.starts_with("net:[")).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_namespaces_are_known_by_their_lines() {
        let bound = "584 27 0:4 net:[4026532437] /run/netns/web rw shared:322 - nsfs nsfs rw";
        assert_eq!(bound_at(bound).as_deref(), Some("/run/netns/web"));
        for other in [
            "584 27 0:4 mnt:[4026532437] /run/mnt rw shared:322 - nsfs nsfs rw",
            "26 30 0:24 / /run rw,nosuid shared:13 - tmpfs tmpfs rw,size=1k",
            "",
            "26 30",
        ] {
            assert_eq!(bound_at(other), None, "{other}");
        }
    }
}
