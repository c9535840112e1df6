//! Processes by the sockets that they have open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use mydocker_core::Process;

/// The processes that have these sockets open, as far as we may look (`/proc/PID/fd`). Of several
/// it is the oldest, which started the others.
pub(super) fn holding(inodes: &BTreeSet<u32>) -> BTreeMap<u32, Process> {
    let mut found = BTreeMap::new();
    if inodes.is_empty() {
        return found;
    }
    for pid in pids() {
        if found.len() == inodes.len() {
            break;
        }
        let process = Path::new("/proc").join(pid.to_string());
        for inode in sockets(&process) {
            if inodes.contains(&inode) && !found.contains_key(&inode) {
                let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
                let name = name.trim_end_matches('\n').to_owned();
                found.insert(inode, Process { pid, name });
            }
        }
    }
    found
}

/// All processes, the lowest number first. Those that end meanwhile have nothing.
fn pids() -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The numbers of a process's sockets: its descriptors lead to `socket:[NUMBER]`.
fn sockets(process: &Path) -> impl Iterator<Item = u32> {
    let descriptors = fs::read_dir(process.join("fd")).into_iter();
    descriptors.flatten().flatten().filter_map(|descriptor| {
        let target = fs::read_link(descriptor.path()).ok()?;
        let number = target.to_str()?.strip_prefix("socket:[")?;
        number.strip_suffix(']')?.parse().ok()
    })
}
