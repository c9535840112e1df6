//! Mounts that nobody else sees.

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
    for folder in folders {
        let tmpfs = Some("tmpfs");
        mount(tmpfs, *folder, tmpfs, MsFlags::empty(), none).expect("a folder to hide");
    }
}
