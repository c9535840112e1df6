//! What a container wrote becomes the archive of a layer.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, lgetxattr, openat,
        openat2, readlinkat, statat,
    },
    io::Errno,
};
use tar::{Builder, EntryType, Header};

use super::{
    headers::ATTRIBUTE,
    layer::{attributes, is_opaque},
    progress::Progress,
    whiteout::{OPAQUE, PREFIX, is_whiteout},
};

/// Attributes that say that overlayfs has a part of the file elsewhere.
const REFERENCES: [&str; 2] = ["trusted.overlay.redirect", "trusted.overlay.metacopy"];

/// Writes the upper directory of an overlay as the archive of an OCI layer, and returns how many device
/// nodes, pipes and sockets it left out.
///
/// The container may run meanwhile: what it removes is not there, what it adds may be, and no link that
/// it makes leads out of the directory. A file that gets shorter while it is read is an error.
pub(crate) fn pack(upper: &Path, into: &mut File) -> anyhow::Result<u64> {
    let progress = Progress::new("reading what the container wrote".to_owned(), None);
    let mut packer = Packer {
        builder: Builder::new(io::BufWriter::with_capacity(1 << 20, into)),
        root: match openat(CWD, upper, DIRECTORY, Mode::empty()) {
            Ok(root) => Some(root),
            // It never was started.
            Err(Errno::NOENT) => None,
            Err(errno) => {
                return Err(errno).with_context(|| format!("can't open {}", upper.display()));
            }
        },
        links: HashMap::new(),
        left_out: 0,
        progress,
    };
    packer.all()?;
    let mut written = packer
        .builder
        .into_inner()
        .context("can't write the layer")?;
    written.flush().context("can't write the layer")?;
    Ok(packer.left_out)
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

struct Packer<W: Write> {
    builder: Builder<W>,
    root: Option<OwnedFd>,
    /// The first name of a file that has several.
    links: HashMap<(u64, u64), PathBuf>,
    left_out: u64,
    progress: Progress,
}

impl<W: Write> Packer<W> {
    fn all(&mut self) -> anyhow::Result<()> {
        let mut open = vec![PathBuf::new()];
        while let Some(path) = open.pop() {
            let what = || format!("can't keep directory /{}", path.display());
            if let Some(dir) = self.open_dir(&path).with_context(what)? {
                let found = self.directory(&dir, &path).with_context(what)?;
                open.extend(found.into_iter().rev());
            }
        }
        Ok(())
    }

    /// A directory by its path, none if it was removed or replaced since its parent was read.
    fn open_dir(&self, path: &Path) -> rustix::io::Result<Option<OwnedFd>> {
        let Some(root) = &self.root else {
            return Ok(None);
        };
        if path.as_os_str().is_empty() {
            return root.try_clone().map(Some).map_err(|error| {
                error
                    .raw_os_error()
                    .map_or(Errno::IO, Errno::from_raw_os_error)
            });
        }
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match openat2(root, path, DIRECTORY, Mode::empty(), within) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Writes a directory and what is in it, and returns the directories in it.
    fn directory(&mut self, dir: &OwnedFd, path: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let by_fd = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
        // With a dot after it, it is the directory and not a link to it.
        let itself = by_fd.join(".");
        check_whole(&itself)?;
        // The root's own attributes are those of the container's mount.
        if !path.as_os_str().is_empty() {
            self.attributes(&itself)?;
            let mut header = header(&fstat(dir)?, EntryType::Directory, 0);
            self.builder.append_data(&mut header, path, io::empty())?;
        }
        if is_opaque(&itself) {
            self.whiteout(&path.join(OPAQUE))?;
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(dir)? {
            let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        let mut directories = Vec::new();
        for name in names {
            let below = path.join(&name);
            let what = || format!("can't keep /{}", below.display());
            if self.entry(dir, &name, &below).with_context(what)? {
                directories.push(below);
            }
        }
        Ok(directories)
    }

    /// Writes what is no directory; true for what is one.
    fn entry(&mut self, dir: &OwnedFd, name: &OsStr, path: &Path) -> anyhow::Result<bool> {
        let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            stat => stat?,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            let hidden = [PREFIX.as_bytes(), name.as_bytes()].concat();
            self.whiteout(&path.with_file_name(OsStr::from_bytes(&hidden)))?;
            return Ok(false);
        }
        if is_whiteout(path) {
            bail!("in an image, its name would hide another file: remove or rename it");
        }
        match kind {
            FileType::Directory => return Ok(true),
            FileType::RegularFile if self.link(&stat, path)? => {}
            FileType::RegularFile => {
                if self.file(dir, name, path)? && stat.st_nlink > 1 {
                    self.links
                        .insert((stat.st_dev, stat.st_ino), path.to_owned());
                }
            }
            FileType::Symlink => match readlinkat(dir, name, Vec::new()) {
                Ok(target) => {
                    let mut header = header(&stat, EntryType::Symlink, 0);
                    let target = OsStr::from_bytes(target.as_bytes());
                    self.builder.append_link(&mut header, path, target)?;
                }
                Err(Errno::NOENT | Errno::INVAL) => {}
                Err(errno) => return Err(errno.into()),
            },
            FileType::BlockDevice
            | FileType::CharacterDevice
            | FileType::Fifo
            | FileType::Socket
            | FileType::Unknown => self.left_out += 1,
        }
        Ok(false)
    }

    /// Writes one more name of a file that was written; false if it was not.
    fn link(&mut self, stat: &Stat, path: &Path) -> anyhow::Result<bool> {
        let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) else {
            return Ok(false);
        };
        let mut header = header(stat, EntryType::Link, 0);
        self.builder.append_link(&mut header, path, first)?;
        Ok(true)
    }

    /// Writes a file, unless it was removed or replaced since its directory was read.
    fn file(&mut self, dir: &OwnedFd, name: &OsStr, path: &Path) -> anyhow::Result<bool> {
        let file = match openat(dir, name, FILE, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        };
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        let by_fd = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
        check_whole(&by_fd)?;
        self.attributes(&by_fd)?;
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        let mut header = header(&stat, EntryType::Regular, bytes);
        let source = Exactly {
            inner: self.progress.reader(file),
            left: bytes,
        };
        self.builder.append_data(&mut header, path, source)?;
        Ok(true)
    }

    fn whiteout(&mut self, path: &Path) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        self.builder.append_data(&mut header, path, io::empty())
    }

    /// Writes the attributes of the file that comes next.
    fn attributes(&mut self, path: &Path) -> anyhow::Result<()> {
        let named = attributes(path)?.into_iter();
        let named: Vec<_> = named
            .map(|(name, value)| (format!("{ATTRIBUTE}{name}"), value))
            .collect();
        let extensions = named
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()));
        Ok(self.builder.append_pax_extensions(extensions)?)
    }
}

/// Refuses what is only a reference to a file below, which another kernel or mount may make.
fn check_whole(path: &Path) -> anyhow::Result<()> {
    for name in REFERENCES {
        if lgetxattr(path, name, &mut [0_u8; 0][..]).is_ok() {
            bail!(
                "it has the attribute {name}, so that its content is elsewhere: copy it in the container"
            );
        }
    }
    Ok(())
}

fn header(stat: &Stat, kind: EntryType, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(bytes);
    header
}

/// As many bytes as were promised, or an error.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let max = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self.inner.read(&mut buffer[..max])?;
        if read == 0 && max > 0 {
            return Err(io::Error::other(
                "it got shorter while it was read: try again",
            ));
        }
        self.left -= u64::try_from(read).unwrap_or(u64::MAX);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Seek, os::unix::fs::symlink};

    use rustix::fs::{XattrFlags, lsetxattr, mknodat};
    use tempfile::TempDir;

    use super::*;

    /// What is in the archive of `upper`: path, kind and where a link leads.
    fn packed(upper: &Path) -> anyhow::Result<Vec<(String, EntryType, String)>> {
        let mut file = tempfile::tempfile()?;
        pack(upper, &mut file)?;
        file.rewind()?;
        let mut archive = tar::Archive::new(file);
        let entries = archive.entries()?.map(|entry| {
            let entry = entry?;
            let link = entry.link_name()?.unwrap_or_default().display().to_string();
            Ok((
                entry.path()?.display().to_string(),
                entry.header().entry_type(),
                link,
            ))
        });
        entries.collect()
    }

    fn entry(path: &str, kind: EntryType, link: &str) -> (String, EntryType, String) {
        (path.to_owned(), kind, link.to_owned())
    }

    fn is_root() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            println!("skipped: whiteouts need root");
        }
        root
    }

    #[test]
    fn what_overlayfs_keeps_becomes_what_a_layer_has() {
        if !is_root() {
            return;
        }
        use EntryType::{Directory, Link, Regular, Symlink};
        let upper = TempDir::new().unwrap();
        let path = |name: &str| upper.path().join(name);
        fs::create_dir(path("dir")).unwrap();
        lsetxattr(
            path("dir"),
            "trusted.overlay.opaque",
            b"y",
            XattrFlags::empty(),
        )
        .unwrap();
        fs::write(path("dir/a"), "a").unwrap();
        fs::hard_link(path("dir/a"), path("dir/b")).unwrap();
        symlink("/etc", path("link")).unwrap();
        mknodat(
            CWD,
            path("gone"),
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )
        .unwrap();
        assert_eq!(
            packed(upper.path()).unwrap(),
            [
                entry(".wh.gone", Regular, ""),
                entry("link", Symlink, "/etc"),
                entry("dir", Directory, ""),
                entry("dir/.wh..wh..opq", Regular, ""),
                entry("dir/a", Regular, ""),
                entry("dir/b", Link, "dir/a"),
            ]
        );
    }

    #[test]
    fn what_no_layer_could_have_is_refused() {
        if !is_root() {
            return;
        }
        for (attribute, name) in [
            (Some("trusted.overlay.metacopy"), "file"),
            (Some("trusted.overlay.redirect"), "dir"),
            (None, ".wh.file"),
        ] {
            let upper = TempDir::new().unwrap();
            let path = upper.path().join(name);
            match name {
                "dir" => fs::create_dir(&path).unwrap(),
                _ => fs::write(&path, "").unwrap(),
            }
            if let Some(attribute) = attribute {
                lsetxattr(&path, attribute, b"x", XattrFlags::empty()).unwrap();
            }
            let said = format!("{:#}", packed(upper.path()).unwrap_err());
            assert!(said.contains(&format!("/{name}")), "{said}");
        }
    }

    #[test]
    fn what_never_ran_wrote_nothing() {
        let dir = TempDir::new().unwrap();
        assert_eq!(packed(&dir.path().join("upper")).unwrap(), []);
    }

    #[test]
    fn a_file_that_gets_shorter_is_missed() {
        let mut read = Vec::new();
        let mut source = Exactly {
            inner: &b"short"[..],
            left: 6,
        };
        assert!(source.read_to_end(&mut read).is_err());
        let mut source = Exactly {
            inner: &b"longer since"[..],
            left: 6,
        };
        read.clear();
        source.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"longer");
    }
}
