//! Whiteouts: how a layer says that what is below it is not there.
//!
//! In a layer's archive they are files, `.wh.NAME` and `.wh..wh..opq` (OCI image specification); for
//! overlayfs, a character device 0/0 called `NAME`, and an attribute of the directory.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, XattrFlags, fsetxattr, mkdirat, mknodat, openat,
        statat,
    },
    io::Errno,
};

/// Whether a layer's archive has a whiteout there.
pub(super) fn is_whiteout(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_bytes().starts_with(PREFIX.as_bytes())
}

/// What the name of a whiteout begins with.
pub(super) const PREFIX: &str = ".wh.";
/// What hides all that is in the directory below.
pub(super) const OPAQUE: &str = ".wh..wh..opq";
/// The attribute of a directory that overlayfs does not merge with those below.
pub(super) const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";

/// The whiteouts of one layer, done when all else is there: what hides a name must not hide what the
/// same layer has there, whichever came first.
#[derive(Debug, Default)]
pub(super) struct Whiteouts {
    hidden: BTreeSet<PathBuf>,
    opaque: BTreeSet<PathBuf>,
}

impl Whiteouts {
    /// Keeps an entry if it is a whiteout. `path` has nothing but names.
    pub(super) fn take(&mut self, path: &Path) -> anyhow::Result<bool> {
        let name = path.file_name().unwrap_or_default();
        let Some(hidden) = name.as_bytes().strip_prefix(PREFIX.as_bytes()) else {
            return Ok(false);
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        if name == OPAQUE {
            self.opaque.insert(parent.to_owned());
        } else if hidden.starts_with(PREFIX.as_bytes()) {
            // What AUFS kept for itself.
        } else if matches!(hidden, b"" | b"." | b"..") {
            bail!("a whiteout hides no name: a file should follow `{PREFIX}`");
        } else {
            self.hidden.insert(parent.join(OsStr::from_bytes(hidden)));
        }
        Ok(true)
    }

    /// The directories that they are in.
    pub(super) fn parents(&self) -> impl Iterator<Item = &Path> {
        let hidden = self.hidden.iter().filter_map(|path| path.parent());
        hidden.chain(self.opaque.iter().map(PathBuf::as_path))
    }

    /// Makes them as overlayfs has them, in the layer's directory.
    pub(super) fn apply(&self, layer: &Path) -> anyhow::Result<()> {
        for path in &self.opaque {
            let what = || format!("can't hide what is below `{}`", path.display());
            let dir = make_dir_inside(layer, path).with_context(what)?;
            set_opaque(&dir).with_context(what)?;
        }
        for path in &self.hidden {
            let what = || format!("can't hide `{}` of the layers below", path.display());
            let parent = path.parent().unwrap_or(Path::new(""));
            let dir = make_dir_inside(layer, parent).with_context(what)?;
            let name = path.file_name().unwrap_or_default();
            hide(&dir, name).with_context(what)?;
        }
        Ok(())
    }
}

fn hide(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0),
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
            set_opaque(&openat(parent, name, DIRECTORY, Mode::empty())?)
        }
        // It hides what is below by itself.
        Ok(_) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn set_opaque(dir: &OwnedFd) -> rustix::io::Result<()> {
    fsetxattr(dir, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a directory in the layer, made if it is missing. No link is followed, so it can't be elsewhere.
fn make_dir_inside(layer: &Path, path: &Path) -> rustix::io::Result<OwnedFd> {
    let mut dir = openat(CWD, layer, DIRECTORY, Mode::empty())?;
    for name in path
        .components()
        .map(|part| OsString::from(part.as_os_str()))
    {
        match mkdirat(&dir, &name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        dir = openat(&dir, &name, DIRECTORY, Mode::empty())?;
    }
    Ok(dir)
}
