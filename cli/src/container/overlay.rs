//! A container's root filesystem: its image below, its own changes above.

use std::{
    ffi::CString,
    fs::{self, DirBuilder},
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::DirBuilderExt},
    },
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, anyhow};
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2, unlinkat},
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

use crate::store::{make_dir, remove_tree};

/// How long the options of a mount may be, bytes: the kernel takes a page, and a byte ends them.
const OPTIONS_BYTES_MAX: usize = 4096;
/// How often a path is tried that the kernel can't follow while others mount and rename.
const OPENS_MAX: u32 = 1000;

/// The directories `upper`, `work` and `merged` in `<root>/overlay2/ID`.
#[derive(Clone, Debug)]
pub(crate) struct Overlay {
    dir: PathBuf,
}

impl Overlay {
    /// The overlay that is kept in `dir`, absolute.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where the container's root shows while it is mounted.
    pub(crate) fn merged(&self) -> PathBuf {
        self.dir.join("merged")
    }

    /// Where what the container writes is.
    pub(crate) fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    /// Mounts it over the layers of an image, absolute paths, lowest first.
    /// Equivalent to: `mount -t overlay overlay -o lowerdir=TOP:…:BOTTOM,upperdir=U,workdir=W MERGED`.
    pub(crate) fn mount(&self, layers: &[PathBuf]) -> anyhow::Result<()> {
        make_dir(&self.dir)?;
        // The upper directory's mode is that of the container's `/`: any user in it must be able to enter.
        for (name, mode) in [("upper", 0o755), ("work", 0o700), ("merged", 0o755)] {
            let path = self.dir.join(name);
            DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&path)
                .with_context(|| format!("can't create {}", path.display()))?;
        }
        let merged = self.merged();
        let what = || format!("can't mount the root filesystem at {}", merged.display());
        // A file renamed or changed by reference alone could not be kept by a commit.
        let own = [
            &b",redirect_dir=off,metacopy=off,upperdir="[..],
            &escape(&self.upper()),
            b",workdir=",
            &escape(&self.dir.join("work")),
        ]
        .concat();
        let mut options = [b"lowerdir=".to_vec(), joined(layers), own.clone()].concat();
        let mut opened = Vec::new();
        if options.len() >= OPTIONS_BYTES_MAX {
            for layer in layers {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let layer = rustix::fs::open(layer, flags, Mode::empty());
                opened.push(layer.with_context(what)?);
            }
            let short: Vec<PathBuf> = opened
                .iter()
                .map(|layer| format!("/proc/self/fd/{}", layer.as_raw_fd()).into())
                .collect();
            options = [b"lowerdir=".to_vec(), joined(&short), own].concat();
        }
        let options = CString::new(options).with_context(what)?;
        let flags = MountFlags::empty();
        mount("overlay", &merged, "overlay", flags, options.as_c_str()).with_context(what)?;
        // Until here the paths led through them.
        drop(opened);
        Ok(())
    }

    /// Unmounts it. One that is not mounted is no error. Equivalent to: `umount --lazy MERGED`.
    pub(crate) fn unmount(&self) -> anyhow::Result<()> {
        let merged = self.merged();
        match unmount(&merged, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // INVAL: not mounted.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).with_context(|| format!("can't unmount {}", merged.display())),
        }
    }

    /// Removes its directories. Unmount it first.
    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        // Never recursively: were it still mounted, that would empty the container, volumes and all.
        match fs::remove_dir(self.merged()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("can't remove {}", self.merged().display()))
            }
            _ => Ok(remove_tree(&self.dir)?),
        }
    }

    /// Makes the directory `path` in the mounted root, as seen from inside: a link in the image
    /// can't lead it out. Equivalent to: `chroot MERGED mkdir -p PATH`.
    pub(crate) fn make_dir_inside(&self, path: &Path) -> anyhow::Result<()> {
        let what = || format!("can't make {} in the container", path.display());
        let mut made = PathBuf::from("/");
        for part in path.components().skip(1) {
            let parent = self
                .open_inside(&made, OFlags::DIRECTORY)
                .with_context(what)?;
            match mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).with_context(what),
            }
            made.push(part);
        }
        self.open_inside(&made, OFlags::DIRECTORY)
            .with_context(what)
            .map(drop)
    }

    /// Reads a file as a process in the container would find it; none if there is none. One that is longer
    /// than `bytes_max`, or that is no plain file and may have no end, is refused.
    pub(crate) fn read_inside(
        &self,
        path: &Path,
        bytes_max: u64,
    ) -> anyhow::Result<Option<Vec<u8>>> {
        let what = || format!("can't read {} in the container", path.display());
        let found = match self.open_inside(path, OFlags::empty()) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(errno).with_context(what),
        };
        // Looked at before it is opened: to open a device or a pipe does something.
        let kind = FileType::from_raw_mode(fstat(&found).with_context(what)?.st_mode);
        if kind != FileType::RegularFile {
            return Err(anyhow!("it is no plain file")).with_context(what);
        }
        let file = fs::File::open(format!("/proc/self/fd/{}", found.as_raw_fd()));
        let mut bytes = Vec::new();
        file.and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes))
            .with_context(what)?;
        if bytes.len() as u64 > bytes_max {
            return Err(anyhow!("it is longer than {bytes_max} bytes")).with_context(what);
        }
        Ok(Some(bytes))
    }

    /// Removes `path` if it is a link to nothing, as `/etc/resolv.conf` of a system with systemd is: no
    /// file can be bound over it.
    pub(crate) fn drop_dangling_link(&self, path: &Path) -> anyhow::Result<()> {
        let what = || format!("can't replace {} in the container", path.display());
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        match self.open_inside(path, OFlags::empty()) {
            Err(Errno::NOENT) => {}
            Err(Errno::AGAIN) => return Err(Errno::AGAIN).with_context(what),
            // What else is wrong with it is told by whoever binds something over it.
            Ok(_) | Err(_) => return Ok(()),
        }
        let removed = match self.open_inside(parent, OFlags::DIRECTORY) {
            Ok(parent) => unlinkat(parent, name, AtFlags::empty()),
            Err(errno) => Err(errno),
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).with_context(what),
        }
    }

    /// Opens a path as a process in the container would find it.
    fn open_inside(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let root = rustix::fs::open(self.merged(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let open = || {
            openat2(
                &root,
                path,
                flags | OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::IN_ROOT,
            )
        };
        let mut opened = open();
        for _ in 1..OPENS_MAX {
            // At a `..` the kernel gives up when anything is mounted or renamed, anywhere on the host.
            if opened.as_ref().err() != Some(&Errno::AGAIN) {
                break;
            }
            thread::yield_now();
            opened = open();
        }
        opened
    }
}

/// Directories that were missing and have been made on the host, so that they can be taken back.
#[derive(Debug, Default)]
pub(crate) struct MadeDirs(Vec<PathBuf>);

impl MadeDirs {
    /// Makes `path`, with those above it, unless something is there.
    pub(crate) fn make(&mut self, path: &Path) -> anyhow::Result<()> {
        let there = |path: &Path| rustix::fs::statat(CWD, path, AtFlags::empty()).is_ok();
        let mut missing: Vec<_> = path.ancestors().take_while(|path| !there(path)).collect();
        while let Some(path) = missing.pop() {
            fs::create_dir(path)
                .with_context(|| format!("can't create volume directory {}", path.display()))?;
            self.0.push(path.to_owned());
        }
        Ok(())
    }

    /// Removes what was made, except what has been filled since.
    pub(crate) fn take_back(self) {
        for path in self.0.into_iter().rev() {
            // Not empty means that somebody has found a use for it.
            let _ = fs::remove_dir(path);
        }
    }
}

/// Layers as overlayfs wants them, uppermost first.
fn joined(layers: &[PathBuf]) -> Vec<u8> {
    let layers: Vec<_> = layers.iter().rev().map(|layer| escape(layer)).collect();
    layers.join(&b':')
}

/// Overlayfs splits its options at `,` and lower directories at `:`.
fn escape(path: &Path) -> Vec<u8> {
    let mut escaped = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b',' | b':') {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn separators_in_paths_are_escaped() {
        assert_eq!(escape(Path::new(r"/a:b,c\d")), br"/a\:b\,c\\d");
    }

    #[test]
    fn mounts_writes_and_goes() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: mounting needs root");
            return;
        }
        let dir = TempDir::new().unwrap();
        let lower = dir.path().join("low:er,1");
        fs::create_dir(&lower).unwrap();
        fs::write(lower.join("motd"), "image").unwrap();
        symlink("/outside", lower.join("link")).unwrap();
        let overlay = Overlay::new(dir.path().join("o"));
        overlay.mount(std::slice::from_ref(&lower)).unwrap();
        fs::write(overlay.merged().join("motd"), "container").unwrap();
        assert_eq!(fs::read_to_string(lower.join("motd")).unwrap(), "image");
        assert!(overlay.remove().is_err(), "not while it is mounted");
        assert!(overlay.merged().join("motd").exists());

        overlay.make_dir_inside(Path::new("/a/b")).unwrap();
        assert!(overlay.merged().join("a/b").is_dir());
        assert!(overlay.make_dir_inside(Path::new("/link/x")).is_err());
        assert!(!Path::new("/outside").exists());

        overlay.drop_dangling_link(Path::new("/motd")).unwrap();
        overlay.drop_dangling_link(Path::new("/link")).unwrap();
        overlay.drop_dangling_link(Path::new("/no/such")).unwrap();
        assert!(overlay.merged().join("motd").exists());
        assert!(!overlay.merged().join("link").is_symlink());

        let read = |path: &str| overlay.read_inside(Path::new(path), 9);
        assert_eq!(read("/motd").unwrap().unwrap(), b"container");
        assert_eq!(read("/missing").unwrap(), None);
        assert_eq!(read("/motd/x").unwrap(), None);
        assert!(read("/a").is_err(), "a directory");
        symlink("/../../etc/passwd", overlay.merged().join("out")).unwrap();
        assert_eq!(read("/out").unwrap(), None, "it leads nowhere in here");
        fs::write(overlay.merged().join("long"), "0123456789").unwrap();
        assert!(read("/long").is_err());

        overlay.unmount().unwrap();
        overlay.unmount().unwrap();
        overlay.remove().unwrap();
        overlay.remove().unwrap();
        assert!(!dir.path().join("o").exists());
    }

    /// More than their paths fit into a mount's options, and each is seen where it should be.
    #[test]
    fn many_layers_are_one_root() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: mounting needs root");
            return;
        }
        let dir = TempDir::new().unwrap();
        let layer = |number: usize| {
            let path = dir.path().join(format!("{number:064}"));
            fs::create_dir(&path).unwrap();
            fs::write(path.join("top"), number.to_string()).unwrap();
            fs::write(path.join(number.to_string()), "").unwrap();
            path
        };
        let layers: Vec<PathBuf> = (0..128).map(layer).collect();
        let overlay = Overlay::new(dir.path().join("o"));
        overlay.mount(&layers).unwrap();
        let seen = fs::read_dir(overlay.merged()).unwrap().count();
        let top = fs::read_to_string(overlay.merged().join("top"));
        overlay.unmount().unwrap();
        overlay.remove().unwrap();
        assert_eq!((seen, top.unwrap().as_str()), (129, "127"));
    }

    #[test]
    fn a_dangling_link_goes_while_others_rename() {
        let dir = TempDir::new().unwrap();
        let overlay = Overlay::new(dir.path().join("o"));
        let link = overlay.merged().join("etc/link");
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        fs::write(&one, "").unwrap();
        let done = AtomicBool::new(false);
        let renames = || {
            while !done.load(Ordering::Relaxed) {
                fs::rename(&one, &two).unwrap();
                fs::rename(&two, &one).unwrap();
            }
        };
        let drop_links = || {
            (0..2000).all(|_| {
                symlink("../".repeat(20) + "run/nothing", &link).unwrap();
                let dropped = overlay.drop_dangling_link(Path::new("/etc/link"));
                dropped.is_ok() && !link.is_symlink()
            })
        };
        let gone = thread::scope(|scope| {
            scope.spawn(renames);
            let gone = drop_links();
            done.store(true, Ordering::Relaxed);
            gone
        });
        assert!(gone, "it was taken for a link to something");
    }

    #[test]
    fn made_directories_can_be_taken_back() {
        let dir = TempDir::new().unwrap();
        let mut made = MadeDirs::default();
        made.make(&dir.path().join("a/b/c")).unwrap();
        made.make(dir.path()).unwrap();
        fs::write(dir.path().join("a/kept"), "").unwrap();
        made.take_back();
        assert!(dir.path().join("a/kept").exists());
        assert!(!dir.path().join("a/b").exists());
    }
}
