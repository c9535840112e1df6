//! An archive of files becomes a directory: a root filesystem, or one layer of it.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::fs::{XattrFlags, lsetxattr};
use tar::{Archive, EntryType};

use super::{
    headers::{Recorder, attributes},
    layer::is_kept,
    members::{NO_TAR, shown},
    whiteout::{Whiteouts, is_whiteout},
};

/// Most entries of one archive.
const ENTRIES_MAX: u64 = 10_000_000;
/// Smaller files are written without asking first whether there is room.
const SMALL_BYTES: u64 = 16 << 20;

/// What an archive's entries are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// All of a root filesystem; a file called like a whiteout is a file.
    Root,
    /// A layer: some of its entries say that something below is not there.
    Layer,
}

/// What became of an archive's entries.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Unpacked {
    /// Files, directories, links and whiteouts made.
    pub(super) made: u64,
    /// Device nodes and pipes, left out: a container's `/dev` is made afresh, and a device node of a
    /// hostile archive would be a way to the host's disks.
    pub(super) left_out: u64,
    /// Directories that it has no entry of, and only something in them. Each comes after its parent.
    pub(super) implied: BTreeSet<PathBuf>,
    /// Whether files were made that a layer would have had as whiteouts.
    pub(super) like_whiteouts: bool,
}

/// Unpacks what `reader` gives, uncompressed, into the existing directory `into`.
///
/// Keeps owners, modes and extended attributes. No entry lands outside `into`: `..` in a path, a link
/// that leads out and is then written through, and a hard link to a host's file are refused.
/// Equivalent to: `tar --extract --numeric-owner --preserve-permissions --directory INTO`.
pub(super) fn unpack(reader: impl Read, into: &Path, kind: Kind) -> anyhow::Result<Unpacked> {
    let mut unpacked = Unpacked::default();
    let mut whiteouts = Whiteouts::default();
    let mut directories = Directories::default();
    let recorder = Recorder::default();
    let mut archive = Archive::new(recorder.reader(reader));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(rustix::process::geteuid().is_root());
    archive.set_preserve_mtime(true);
    archive.set_overwrite(true);
    archive.set_unpack_xattrs(false);
    recorder.begin();
    for entry in archive.entries().context(NO_TAR)? {
        let mut entry = entry.context(NO_TAR)?;
        let headers = recorder.end();
        let text = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let what = || format!("entry `{}`", shown(&text));
        if unpacked.made + unpacked.left_out >= ENTRIES_MAX {
            bail!("it has more than {ENTRIES_MAX} entries");
        }
        let Some(path) = inside(&entry.path().with_context(what)?) else {
            bail!("{} points outside the image", what());
        };
        let kind_of_entry = entry.header().entry_type();
        if kind == Kind::Layer && whiteouts.take(&path).with_context(what)? {
            unpacked.made += 1;
        } else if left_out(kind_of_entry) {
            unpacked.left_out += 1;
        } else {
            check_room(entry.size(), into).with_context(what)?;
            if !entry.unpack_in(into).with_context(what)? {
                bail!("{} points outside the image", what());
            }
            if kind_of_entry.is_file() || kind_of_entry.is_dir() {
                set_attributes(&into.join(&path), &headers).with_context(what)?;
            }
            directories.add(&path, kind_of_entry);
            unpacked.like_whiteouts |= is_whiteout(&path);
            unpacked.made += 1;
        }
        // What is read from then on are the headers of the next one.
        io::copy(&mut entry, &mut io::sink()).with_context(what)?;
        recorder.begin();
    }
    recorder.end();
    whiteouts.apply(into)?;
    for parent in whiteouts.parents() {
        directories.add_parents(parent);
        directories.add_parent(parent);
    }
    unpacked.implied = directories.implied(into);
    Ok(unpacked)
}

/// The path as it is below the root; none if it leads out.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut below = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) if !part.as_bytes().contains(&0) => below.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::Normal(_) | Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(below)
}

fn left_out(kind: EntryType) -> bool {
    kind.is_block_special() || kind.is_character_special() || kind.is_fifo()
}

/// Sets those attributes that an image may have. Others in `trusted.` steer overlayfs itself (opaque
/// directories, redirects), so an archive may not bring its own.
fn set_attributes(path: &Path, headers: &[u8]) -> anyhow::Result<()> {
    for (name, value) in attributes(headers)?
        .iter()
        .filter(|(name, _)| is_kept(name))
    {
        lsetxattr(path, name.as_str(), value, XattrFlags::empty())
            .with_context(|| format!("can't set its attribute `{}`", shown(name)))?;
    }
    Ok(())
}

/// Refuses a file before it fills the disk: a few bytes of archive may stand for any length.
pub(super) fn check_room(bytes: u64, into: &Path) -> anyhow::Result<()> {
    if bytes < SMALL_BYTES {
        return Ok(());
    }
    let found = rustix::fs::statvfs(into)
        .with_context(|| format!("can't see how much room there is at {}", into.display()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if bytes > free {
        bail!(
            "it takes {bytes} bytes, and {free} are free at {}",
            into.display()
        );
    }
    Ok(())
}

/// Which directories there must be, and which of them have an entry of their own.
#[derive(Debug, Default)]
struct Directories {
    told: BTreeSet<PathBuf>,
    needed: BTreeSet<PathBuf>,
}

impl Directories {
    fn add(&mut self, path: &Path, kind: EntryType) {
        if kind.is_dir() && !self.told.contains(path) {
            self.told.insert(path.to_owned());
        }
        self.add_parents(path);
    }

    fn add_parents(&mut self, path: &Path) {
        for parent in path.ancestors().skip(1) {
            // Where one is known, those above it are.
            if !self.add_parent(parent) {
                break;
            }
        }
    }

    fn add_parent(&mut self, path: &Path) -> bool {
        !path.as_os_str().is_empty()
            && !self.needed.contains(path)
            && self.needed.insert(path.to_owned())
    }

    fn implied(self, root: &Path) -> BTreeSet<PathBuf> {
        let is_dir = |path: &PathBuf| {
            fs::symlink_metadata(root.join(path)).is_ok_and(|found| found.is_dir())
        };
        let implied = self
            .needed
            .difference(&self.told)
            .filter(|path| is_dir(path));
        implied.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, DirBuilder},
        os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        path::PathBuf,
    };

    use rustix::fs::lgetxattr;
    use tar::{Builder, Header};
    use tempfile::TempDir;

    use super::*;

    /// A header whose path is written raw, since the builder itself refuses hostile ones.
    fn header(path: &str, kind: EntryType, size: u64, link: &str) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        if let Some(gnu) = header.as_gnu_mut() {
            gnu.name[..path.len()].copy_from_slice(path.as_bytes());
            gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_cksum();
        header
    }

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let (body, link) = if *kind == EntryType::Regular {
                (*content, "")
            } else {
                ("", *content)
            };
            builder
                .append(
                    &header(path, *kind, body.len() as u64, link),
                    body.as_bytes(),
                )
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// Unpacks into `<dir>/into`; `<dir>/victim` and `<dir>/dir` must stay as they are.
    fn attempt(bytes: &[u8], kind: Kind) -> (TempDir, PathBuf, anyhow::Result<Unpacked>) {
        let dir = TempDir::new().unwrap();
        let into = dir.path().join("into");
        fs::create_dir(&into).unwrap();
        fs::write(dir.path().join("victim"), "whole").unwrap();
        DirBuilder::new()
            .mode(0o700)
            .create(dir.path().join("dir"))
            .unwrap();
        let result = unpack(bytes, &into, kind);
        (dir, into, result)
    }

    #[test]
    fn files_directories_and_links() {
        let bytes = archive(&[
            ("bin/", EntryType::Directory, ""),
            ("bin/sh", EntryType::Regular, "#!"),
            ("bin/ls", EntryType::Symlink, "sh"),
            ("bin/cat", EntryType::Link, "bin/sh"),
            ("dev/null", EntryType::Char, ""),
            ("usr/lib/x", EntryType::Regular, "x"),
            ("bin/.wh.gone", EntryType::Regular, ""),
        ]);
        let (_dir, into, result) = attempt(&bytes, Kind::Root);
        let unpacked = result.unwrap();
        assert_eq!((unpacked.made, unpacked.left_out), (6, 1));
        assert_eq!(
            unpacked.implied,
            ["usr", "usr/lib"].map(PathBuf::from).into()
        );
        assert_eq!(fs::read_to_string(into.join("bin/ls")).unwrap(), "#!");
        assert_eq!(fs::read_to_string(into.join("bin/cat")).unwrap(), "#!");
        assert!(!into.join("dev").exists());
        assert!(into.join("bin/.wh.gone").is_file(), "no layer, no whiteout");
    }

    /// What overlayfs takes for a whiteout.
    fn is_whiteout(path: &Path) -> bool {
        let found = fs::symlink_metadata(path);
        found.is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == 0)
    }

    fn is_opaque(path: &Path) -> bool {
        let mut value = [0; 8];
        lgetxattr(path, "trusted.overlay.opaque", &mut value[..])
            .is_ok_and(|len| &value[..len] == b"y")
    }

    #[test]
    fn whiteouts_hide_what_is_below_and_nothing_of_their_own_layer() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: whiteouts need root");
            return;
        }
        use EntryType::{Directory, Regular};
        let bytes = archive(&[
            ("etc/.wh.passwd", Regular, ""),
            ("a/", Directory, ""),
            ("a/.wh..wh..opq", Regular, ""),
            ("a/kept", Regular, "a"),
            (".wh.b", Regular, ""),
            ("b/", Directory, ""),
            ("c", Regular, "c"),
            (".wh.c", Regular, ""),
            (".wh..wh.plnk", Regular, ""),
        ]);
        let (_dir, into, result) = attempt(&bytes, Kind::Layer);
        assert_eq!(result.unwrap().implied, ["etc"].map(PathBuf::from).into());
        assert!(is_whiteout(&into.join("etc/passwd")));
        assert!(is_opaque(&into.join("a")) && is_opaque(&into.join("b")));
        assert_eq!(fs::read_to_string(into.join("a/kept")).unwrap(), "a");
        assert_eq!(fs::read_to_string(into.join("c")).unwrap(), "c");
        let mut names: Vec<_> = fs::read_dir(&into)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["a", "b", "c", "etc"]);
    }

    #[test]
    fn no_whiteout_lands_outside() {
        use EntryType::{Regular, Symlink};
        let hostile: &[&[(&str, EntryType, &str)]] = &[
            &[("../.wh.victim", Regular, "")],
            &[("a/../../.wh.victim", Regular, "")],
            &[(".wh...", Regular, "")],
            &[(".wh..", Regular, "")],
            &[(".wh.", Regular, "")],
            &[("out", Symlink, ".."), ("out/.wh.victim", Regular, "")],
            &[("out", Symlink, ".."), ("out/.wh..wh..opq", Regular, "")],
            &[("out", Symlink, "../dir"), ("out/a/.wh.x", Regular, "")],
            &[
                ("out", Symlink, "/tmp"),
                ("out/.wh.mydocker-escape", Regular, ""),
            ],
        ];
        for entries in hostile {
            let (dir, _into, result) = attempt(&archive(entries), Kind::Layer);
            assert!(result.is_err(), "{entries:?}");
            assert_untouched(dir.path(), entries);
        }
    }

    /// What lies beside the image is as it was.
    fn assert_untouched(dir: &Path, entries: &[(&str, EntryType, &str)]) {
        let victim = fs::read_to_string(dir.join("victim"));
        assert_eq!(victim.unwrap(), "whole", "{entries:?}");
        assert!(fs::symlink_metadata("/tmp/mydocker-escape").is_err());
        let outside = dir.join("dir");
        let mode = fs::metadata(&outside).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{entries:?}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{entries:?}");
        assert!(!is_opaque(dir) && !is_opaque(&outside));
    }

    #[test]
    fn what_is_longer_than_the_disk_is_refused_at_once() {
        let mut huge = header("huge", EntryType::Regular, 1 << 60, "");
        huge.set_cksum();
        let (_dir, into, result) = attempt(huge.as_bytes(), Kind::Layer);
        let error = format!("{:#}", result.unwrap_err());
        assert!(
            error.contains("`huge`") && error.contains("are free"),
            "{error}"
        );
        assert!(!into.join("huge").exists());
    }

    #[test]
    fn attributes_survive_and_none_steers_overlayfs() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: attributes of the system need root");
            return;
        }
        let capability = [&[1, 0, 0, 2, 10, 32, 10, 0][..], &[0; 12]].concat();
        let mut builder = Builder::new(Vec::new());
        for (path, kind) in [
            ("dir/", EntryType::Directory),
            ("dir/file", EntryType::Regular),
        ] {
            let opaque = ("SCHILY.xattr.trusted.overlay.opaque", &b"y"[..]);
            let colour = ("SCHILY.xattr.user.colour", &b"dark\nblue"[..]);
            let capability = ("SCHILY.xattr.security.capability", capability.as_slice());
            let all = [opaque, colour, capability];
            let few = if path == "dir/" { 2 } else { 3 };
            builder
                .append_pax_extensions(all.into_iter().take(few))
                .unwrap();
            let mut header = header(path, kind, 0, "");
            header.set_uid(1000);
            header.set_cksum();
            builder.append(&header, &b""[..]).unwrap();
        }
        let (_dir, into, result) = attempt(&builder.into_inner().unwrap(), Kind::Layer);
        result.unwrap();
        for path in ["dir", "dir/file"].map(|path| into.join(path)) {
            let mut value = [0; 64];
            let len = lgetxattr(&path, "user.colour", &mut value[..]).unwrap();
            assert_eq!(&value[..len], b"dark\nblue");
            assert!(!is_opaque(&path));
        }
        let mut value = [0; 64];
        let len = lgetxattr(into.join("dir/file"), "security.capability", &mut value[..]);
        assert_eq!(&value[..len.unwrap()], capability);
    }

    #[test]
    fn setuid_survives() {
        let mut builder = Builder::new(Vec::new());
        let mut su = header("su", EntryType::Regular, 1, "");
        su.set_mode(0o4755);
        su.set_cksum();
        builder.append(&su, &b"x"[..]).unwrap();
        let (_dir, into, result) = attempt(&builder.into_inner().unwrap(), Kind::Root);
        result.unwrap();
        assert_eq!(
            fs::metadata(into.join("su")).unwrap().permissions().mode() & 0o7777,
            0o4755
        );
    }

    #[test]
    fn nothing_lands_outside() {
        use EntryType::{Directory, Link, Regular, Symlink};
        let hostile: &[&[(&str, EntryType, &str)]] = &[
            &[("../victim", Regular, "broken")],
            &[("a/../../victim", Regular, "broken")],
            &[("out", Symlink, ".."), ("out/victim", Regular, "broken")],
            &[
                ("out", Symlink, "/tmp"),
                ("out/mydocker-escape", Regular, "broken"),
            ],
            &[("hard", Link, "../victim"), ("hard", Regular, "broken")],
            &[("out", Symlink, "../dir"), ("out", Directory, "")],
            &[("out", Symlink, "../dir"), ("out/new", Directory, "")],
            &[("hard", Link, "/etc/passwd")],
            &[("out", Symlink, ".."), ("hard", Link, "out/victim")],
            &[
                ("victim", Symlink, "../victim"),
                ("victim", Regular, "kept inside"),
            ],
        ];
        for entries in hostile {
            let (dir, into, result) = attempt(&archive(entries), Kind::Root);
            assert_untouched(dir.path(), entries);
            if let Ok(unpacked) = result {
                // Only the last case is harmless: the link is replaced, not followed.
                assert_eq!(unpacked.made, 2, "{entries:?}");
                assert_eq!(
                    fs::read_to_string(into.join("victim")).unwrap(),
                    "kept inside"
                );
            }
        }
    }

    #[test]
    fn absolute_paths_stay_below() {
        let (_dir, into, result) = attempt(
            &archive(&[("/etc/motd", EntryType::Regular, "hi")]),
            Kind::Root,
        );
        result.unwrap();
        assert_eq!(fs::read_to_string(into.join("etc/motd")).unwrap(), "hi");
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let whole = archive(&[
            ("motd", EntryType::Regular, "hi"),
            ("x", EntryType::Regular, "x"),
        ]);
        for bytes in [
            &b"hello, world"[..],
            &[7; 1024],
            &whole[..514],
            &whole[..700],
            &whole[..1300],
        ] {
            let (_dir, _into, result) = attempt(bytes, Kind::Root);
            assert!(result.is_err(), "{} bytes", bytes.len());
        }
        let (_dir, _into, result) = attempt(&[0; 1024], Kind::Layer);
        assert_eq!(
            result.unwrap(),
            Unpacked::default(),
            "an empty layer is one"
        );
    }
}
