//! Staging: where archives and layers are while they are not complete.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, bail};

use super::{
    decompress::{Compression, decompressed},
    progress::Progress,
    unpack::check_room,
};
use crate::store::{Access, Dir, Durability, Lock, StoreError, remove_tree};

/// Where it is, below the images.
const STAGING: &str = "staging";
/// How long to wait for another process that unpacks images.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(600);
/// After how many bytes it is looked again whether there is room for more.
const CHUNK_BYTES: u64 = 64 << 20;

/// What one process makes of images at a time. Whoever holds it finds it empty, whatever killed the one
/// before, and leaves it empty.
#[derive(Debug)]
pub(super) struct Staging {
    dir: Dir,
    _lock: Lock,
}

impl Staging {
    /// Waits until nobody else is in.
    pub(super) fn take(images: &Dir) -> anyhow::Result<Self> {
        Self::take_within(images, LOCK_WAIT_MAX)
    }

    /// Removes what a killed process left, unless somebody is in.
    pub(super) fn sweep(images: &Dir) -> anyhow::Result<()> {
        let Some(dir) = images.open_dir(STAGING)? else {
            return Ok(());
        };
        // Most often there is nothing, and nobody has to be kept out.
        if dir.names()?.iter().all(|name| is_kept(name)) {
            return Ok(());
        }
        match Self::take_within(images, Duration::ZERO) {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.downcast_ref(), Some(StoreError::Locked { .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn take_within(images: &Dir, wait: Duration) -> anyhow::Result<Self> {
        let dir = images.own_dir(STAGING)?;
        let lock = Lock::take(&dir, "the making of images", Access::Write, wait)?;
        let lock = lock.with_context(|| format!("{} is gone", dir.path().display()))?;
        let staging = Self { dir, _lock: lock };
        staging.clear()?;
        Ok(staging)
    }

    /// A place in it.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.dir.path_of(name)
    }

    fn clear(&self) -> anyhow::Result<()> {
        for name in self.dir.names()?.iter().filter(|name| !is_kept(name)) {
            let path = self.dir.path_of(name);
            let is_dir = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
            if is_dir {
                remove_tree(&path)?;
            } else {
                self.dir.remove(name, Durability::Kernel)?;
            }
        }
        Ok(())
    }

    /// A file that has no name and goes with whoever holds it.
    pub(super) fn file(&self) -> anyhow::Result<File> {
        let path = self.dir.path_of(SPOOL);
        let made = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = made.with_context(|| format!("can't create {}", path.display()))?;
        self.dir.remove(SPOOL, Durability::Kernel)?;
        Ok(file)
    }

    /// An archive that can be read here and there: itself, or a copy if it is compressed or a pipe.
    pub(super) fn seekable(&self, archive: File, shown: &str) -> anyhow::Result<File> {
        let found = archive.metadata()?;
        if found.is_dir() {
            bail!("it is a directory, and should be a tar archive");
        }
        let known = found.is_file().then_some(found.len());
        let progress = Progress::new(format!("reading {shown}"), known);
        let mut copy = None;
        {
            let (compression, mut source) = decompressed(progress.reader(&archive))?;
            if compression != Compression::None || !found.is_file() {
                let mut spool = self.file()?;
                self.copy(&mut source, &mut spool)?;
                copy = Some(spool);
            }
        }
        Ok(copy.unwrap_or(archive))
    }

    /// Copies all of it, as long as there is room for as much again: a short archive may stand for any
    /// length, and a full disk is everybody's trouble.
    fn copy(&self, source: &mut dyn io::Read, spool: &mut File) -> anyhow::Result<()> {
        loop {
            let copied = io::copy(&mut io::Read::take(&mut *source, CHUNK_BYTES), spool)?;
            if copied < CHUNK_BYTES {
                return Ok(());
            }
            let so_far = spool.metadata()?.len();
            check_room(CHUNK_BYTES, self.dir.path())
                .with_context(|| format!("it has more than {so_far} bytes uncompressed"))?;
        }
    }

    /// Writes what is in it to the disk, before anything says that it is there.
    pub(super) fn sync(&self) -> anyhow::Result<()> {
        let what = || format!("can't sync {}", self.dir.path().display());
        let dir = File::open(self.dir.path()).with_context(what)?;
        rustix::fs::syncfs(dir.as_fd()).with_context(what)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Best effort: whoever is next does it, or says why it can't be done.
        self.clear().ok();
    }
}

const SPOOL: &str = "archive";

fn is_kept(name: &str) -> bool {
    [".", "..", "lock"].contains(&name)
}
