//! Dir: a directory that only its owner can write, and the files in it.

use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, StatVfsMountFlags};
use rustix::io::{Errno, retry_on_intr};

use super::StoreError;
use super::error::io;

/// What a file is called until it is complete; no other name of ours begins with a dot.
const UNFINISHED: &str = ".new";
/// How a directory is opened.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
/// How often a tree is removed before what others put into it meanwhile keeps it.
const REMOVALS_MAX: u32 = 10;

/// Whether a change must outlive a loss of power, or only this process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Durability {
    /// It outlives a loss of power.
    Disk,
    /// It may be lost with the power, and then the file is as it was before: whole in either case.
    Whole,
    /// It outlives this process; what dies with the kernel needs no more.
    Kernel,
}

/// A directory below a root: opened once and gone by from then on, so that no symbolic link below
/// the root is ever followed.
#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
    fd: OwnedFd,
}

impl Dir {
    /// The directory `name` below `root`, `None` if there is none.
    pub(crate) fn open(root: &Path, name: &str) -> Result<Option<Self>, StoreError> {
        let fd = match rustix::fs::open(root, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.map_err(errno("open", root))?,
        };
        check(root, &fd, FileType::Directory)?;
        let path = root.to_path_buf();
        Self { path, fd }.open_dir(name)
    }

    /// The directory `name` below `root`, made if there is none.
    pub(crate) fn create(
        root: &Path,
        name: &str,
        durability: Durability,
    ) -> Result<Self, StoreError> {
        if let Some(dir) = Self::open(root, name)? {
            return Ok(dir);
        }
        let path = root.join(name);
        make_dir(&path)?;
        if durability == Durability::Disk {
            let synced = File::open(root).and_then(|parent| parent.sync_all());
            synced.map_err(io("sync", root))?;
        }
        Self::open(root, name)?.ok_or_else(|| io("open", &path)(ErrorKind::NotFound.into()))
    }

    /// A directory in it, `None` if there is none.
    pub(crate) fn open_dir(&self, name: &str) -> Result<Option<Self>, StoreError> {
        let path = self.path_of(name);
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let wanted = "directory";
                return Err(StoreError::Kind { path, wanted });
            }
            opened => opened.map_err(errno("open", &path))?,
        };
        check(&path, &fd, FileType::Directory)?;
        Ok(Some(Self { path, fd }))
    }

    /// Makes a directory in it, which must not be there yet.
    pub(crate) fn make_dir(&self, name: &str) -> Result<Self, StoreError> {
        let path = self.path_of(name);
        rustix::fs::mkdirat(&self.fd, name, Mode::RWXU).map_err(errno("make", &path))?;
        self.open_dir(name)?
            .ok_or_else(|| io("open", &path)(ErrorKind::NotFound.into()))
    }

    /// A directory in it, made for its owner only if there is none.
    pub(crate) fn own_dir(&self, name: &str) -> Result<Self, StoreError> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(errno("make", &self.path_of(name))(error)),
        }
        self.open_dir(name)?
            .ok_or_else(|| io("open", &self.path_of(name))(ErrorKind::NotFound.into()))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it, for messages.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A file in it, `None` if there is none; made with `OFlags::CREATE`.
    pub(crate) fn open_file(&self, name: &str, flags: OFlags) -> Result<Option<File>, StoreError> {
        let path = self.path_of(name);
        // Without O_NONBLOCK a pipe of that name would stop us before we see that it is one.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => {
                let wanted = "regular file";
                return Err(StoreError::Kind { path, wanted });
            }
            opened => opened.map_err(errno("open", &path))?,
        };
        check(&path, &fd, FileType::RegularFile)?;
        Ok(Some(fd.into()))
    }

    /// All of a file, `None` if there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(mut file) = self.open_file(name, OFlags::RDONLY)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(io("read", &self.path_of(name)))?;
        Ok(Some(bytes))
    }

    /// Puts a file there in one step: whoever looks sees the old one or the new one, whole.
    pub(crate) fn replace(
        &self,
        name: &str,
        bytes: &[u8],
        durability: Durability,
    ) -> Result<(), StoreError> {
        self.write_new(name, bytes, durability).inspect_err(|_| {
            // Best effort: the next one to write unlinks it too, and the error says more.
            rustix::fs::unlinkat(&self.fd, UNFINISHED, AtFlags::empty()).ok();
        })
    }

    /// A new file, which has a name only once it is [complete](Self::complete_file).
    pub(super) fn begin_file(&self) -> Result<File, StoreError> {
        self.unlink(UNFINISHED)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let path = self.path_of(UNFINISHED);
        self.open_file(UNFINISHED, flags)?
            .ok_or_else(|| io("make", &path)(ErrorKind::NotFound.into()))
    }

    /// Puts the file that was begun last in the place of the one of that name.
    pub(super) fn complete_file(&self, name: &str) -> Result<(), StoreError> {
        rustix::fs::renameat(&self.fd, UNFINISHED, &self.fd, name)
            .map_err(errno("replace", &self.path_of(name)))
    }

    fn write_new(
        &self,
        name: &str,
        bytes: &[u8],
        durability: Durability,
    ) -> Result<(), StoreError> {
        let unfinished = self.path_of(UNFINISHED);
        let mut file = self.begin_file()?;
        file.write_all(bytes).map_err(io("write", &unfinished))?;
        if durability != Durability::Kernel {
            file.sync_all().map_err(io("sync", &unfinished))?;
        }
        self.complete_file(name)?;
        self.sync(durability)
    }

    /// Removes what a process that died while it replaced a file left of it.
    pub(super) fn sweep(&self) {
        // Best effort: it is in the way of nobody but the next one to write, who will say so.
        self.unlink(UNFINISHED).ok();
    }

    /// Gives a file or directory another name, in one step.
    pub(crate) fn rename(
        &self,
        from: &str,
        to: &str,
        durability: Durability,
    ) -> Result<(), StoreError> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
            .map_err(errno("rename", &self.path_of(from)))?;
        self.sync(durability)
    }

    /// Removes a file; succeeds when there is none.
    pub(crate) fn remove(&self, name: &str, durability: Durability) -> Result<(), StoreError> {
        self.unlink(name)?;
        self.sync(durability)
    }

    fn unlink(&self, name: &str) -> Result<(), StoreError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // Said of what is not there, too.
            Err(Errno::ROFS) if !self.has(name)? => Ok(()),
            Err(error) => Err(errno("remove", &self.path_of(name))(error)),
        }
    }

    fn has(&self, name: &str) -> Result<bool, StoreError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(errno("look at", &self.path_of(name))(error)),
        }
    }

    /// That its file system takes writes.
    pub(super) fn check_writable(&self) -> Result<(), StoreError> {
        let found = rustix::fs::fstatvfs(&self.fd).map_err(errno("look at", &self.path))?;
        if found.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(errno("write", &self.path)(Errno::ROFS));
        }
        Ok(())
    }

    fn sync(&self, durability: Durability) -> Result<(), StoreError> {
        match durability {
            Durability::Disk => {
                retry_on_intr(|| rustix::fs::fsync(&self.fd)).map_err(errno("sync", &self.path))
            }
            Durability::Whole | Durability::Kernel => Ok(()),
        }
    }

    /// The names of all that is in it, in order; what is not UTF-8 is not ours.
    pub(crate) fn names(&self) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(errno("list", &self.path))? {
            let entry = entry.map_err(errno("list", &self.path))?;
            names.extend(entry.file_name().to_str().ok().map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Whether `file` is still what `name` leads to.
    pub(crate) fn holds(&self, name: &str, file: &File) -> Result<bool, StoreError> {
        let path = self.path_of(name);
        let opened = rustix::fs::fstat(file).map_err(errno("look at", &path))?;
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok((named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(errno("look at", &path)(error)),
        }
    }
}

/// Makes a directory, and those above it, for its owner only. One that is there is fine.
pub(crate) fn make_dir(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(io("make", path))
}

/// Removes a directory with all that is in it; succeeds when there is none.
pub(crate) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    let mut tries = 1;
    loop {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            // Who came to lock what is going makes a lock file in it.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && tries < REMOVALS_MAX => {
                tries += 1;
            }
            removed => return removed.map_err(io("remove", path)),
        }
    }
}

fn errno(action: &'static str, path: &Path) -> impl FnOnce(Errno) -> StoreError {
    let io = io(action, path);
    move |error| io(error.into())
}

/// Refuses what somebody else could have written.
fn check(path: &Path, fd: &impl std::os::fd::AsFd, kind: FileType) -> Result<(), StoreError> {
    let stat: Stat = rustix::fs::fstat(fd).map_err(errno("look at", path))?;
    let path = path.to_path_buf();
    if FileType::from_raw_mode(stat.st_mode) != kind {
        let directory = kind == FileType::Directory;
        let wanted = if directory {
            "directory"
        } else {
            "regular file"
        };
        return Err(StoreError::Kind { path, wanted });
    }
    let (owner, own) = (stat.st_uid, rustix::process::geteuid().as_raw());
    // What root owns is as safe as root.
    if owner != own && owner != 0 {
        return Err(StoreError::Owner { path, owner, own });
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o022 != 0 {
        return Err(StoreError::Mode { path, mode });
    }
    Ok(())
}
