//! Mounts that nobody else sees.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Gives this thread, and those it starts, mounts of its own, which end with the last of them; an empty
/// file system hides each of `folders`.
///
/// # Panics
/// When the kernel refuses.
pub fn own_mounts(folders: &[&str]) {
    unshare(CloneFlags::CLONE_NEWNS).expect("mounts of our own");
    let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount(none, "/", none, private, none).expect("private mounts");
    folders.iter().for_each(in_memory);
}

/// Has a folder in memory, empty, in mounts of one's own.
///
/// # Panics
/// When the kernel refuses.
pub fn in_memory(folder: impl AsRef<Path>) {
    let (tmpfs, mode) = (Some("tmpfs"), Some("mode=755"));
    mount(tmpfs, folder.as_ref(), tmpfs, MsFlags::empty(), mode).expect("a folder");
}
