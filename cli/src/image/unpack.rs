//! A root filesystem archive becomes a directory.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use anyhow::{Context, bail};
use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use tar::{Archive, EntryType};

/// What became of an archive's entries.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Unpacked {
    /// Files, directories and links made.
    pub made: u64,
    /// Device nodes and pipes, left out: a container's `/dev` is made afresh, and a device node of a
    /// hostile archive would be a way to the host's disks.
    pub left_out: u64,
}

/// Unpacks a root filesystem (tar or tar.gz) from `file`, which messages call `archive`, into the
/// existing directory `into`.
///
/// Keeps owners, modes and extended attributes. No entry lands outside `into`: `..` in a path, a link
/// that leads out and is then written through, and a hard link to a host's file are refused.
/// Equivalent to: `tar --extract --numeric-owner --preserve-permissions --directory INTO --file ARCHIVE`.
pub fn unpack(file: File, archive: &Path, into: &Path) -> anyhow::Result<Unpacked> {
    let bytes = file
        .metadata()
        .with_context(|| format!("can't read {}", archive.display()))?
        .len();
    let progress = progress_bar(archive, bytes);
    let mut reader = BufReader::with_capacity(1 << 20, progress.wrap_read(file));
    let gzip = reader
        .fill_buf()
        .with_context(|| format!("can't read {}", archive.display()))?
        .starts_with(&[0x1f, 0x8b]);
    let unpacked = if gzip {
        unpack_entries(MultiGzDecoder::new(reader), into)
    } else {
        unpack_entries(reader, into)
    };
    progress.finish_and_clear();
    let unpacked = unpacked.with_context(|| format!("can't unpack {}", archive.display()))?;
    if unpacked.made == 0 {
        bail!(
            "{} holds no files: it should be a root filesystem as a tar or tar.gz archive",
            archive.display()
        );
    }
    if into.join("manifest.json").is_file() && !into.join("bin").exists() {
        bail!(
            "{} is an archive of layers, as `docker save` writes: use `docker export CONTAINER` instead",
            archive.display()
        );
    }
    Ok(unpacked)
}

fn unpack_entries(reader: impl Read, into: &Path) -> anyhow::Result<Unpacked> {
    let mut unpacked = Unpacked::default();
    let mut archive = Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(rustix::process::geteuid().is_root());
    archive.set_preserve_mtime(true);
    archive.set_overwrite(true);
    for entry in archive
        .entries()
        .context("it is neither a tar nor a tar.gz archive")?
    {
        let mut entry =
            entry.context("it is neither a tar nor a tar.gz archive, or it is cut short")?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if left_out(entry.header().entry_type()) {
            unpacked.left_out += 1;
            continue;
        }
        let xattrs = !carries_overlay_marks(&mut entry);
        entry.set_unpack_xattrs(xattrs);
        if !entry
            .unpack_in(into)
            .with_context(|| format!("entry `{path}`"))?
        {
            bail!("entry `{path}` points outside the image");
        }
        unpacked.made += 1;
    }
    Ok(unpacked)
}

fn left_out(kind: EntryType) -> bool {
    kind.is_block_special() || kind.is_character_special() || kind.is_fifo()
}

/// Attributes in `trusted.` steer overlayfs itself (opaque directories, redirects), so an archive may
/// not bring its own.
fn carries_overlay_marks<R: Read>(entry: &mut tar::Entry<'_, R>) -> bool {
    let Ok(Some(extensions)) = entry.pax_extensions() else {
        return false;
    };
    extensions
        .flatten()
        .any(|extension| extension.key_bytes().starts_with(b"SCHILY.xattr.trusted."))
}

/// Drawn on stderr, and only if that is a terminal.
fn progress_bar(archive: &Path, bytes: u64) -> ProgressBar {
    let name = archive
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let style = ProgressStyle::with_template("unpacking {msg} [{bar:30}] {bytes}/{total_bytes}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style).with_message(name)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, DirBuilder},
        io::Write,
        os::unix::fs::{DirBuilderExt, PermissionsExt},
        path::PathBuf,
    };

    use flate2::{Compression, write::GzEncoder};
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
    fn attempt(bytes: &[u8]) -> (TempDir, PathBuf, anyhow::Result<Unpacked>) {
        let dir = TempDir::new().unwrap();
        let into = dir.path().join("into");
        fs::create_dir(&into).unwrap();
        fs::write(dir.path().join("victim"), "whole").unwrap();
        DirBuilder::new()
            .mode(0o700)
            .create(dir.path().join("dir"))
            .unwrap();
        let tar = dir.path().join("image.tar");
        fs::write(&tar, bytes).unwrap();
        let result = unpack(File::open(&tar).unwrap(), &tar, &into);
        (dir, into, result)
    }

    #[test]
    fn tar_and_gzip_alike() {
        let plain = archive(&[
            ("bin/", EntryType::Directory, ""),
            ("bin/sh", EntryType::Regular, "#!"),
            ("bin/ls", EntryType::Symlink, "sh"),
            ("bin/cat", EntryType::Link, "bin/sh"),
            ("dev/null", EntryType::Char, ""),
        ]);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&plain).unwrap();
        for bytes in [plain, encoder.finish().unwrap()] {
            let (_dir, into, result) = attempt(&bytes);
            assert_eq!(
                result.unwrap(),
                Unpacked {
                    made: 4,
                    left_out: 1
                }
            );
            assert_eq!(fs::read_to_string(into.join("bin/ls")).unwrap(), "#!");
            assert_eq!(fs::read_to_string(into.join("bin/cat")).unwrap(), "#!");
            assert!(!into.join("dev/null").exists());
        }
    }

    #[test]
    fn setuid_survives() {
        let mut builder = Builder::new(Vec::new());
        let mut su = header("su", EntryType::Regular, 1, "");
        su.set_mode(0o4755);
        su.set_cksum();
        builder.append(&su, &b"x"[..]).unwrap();
        let (_dir, into, result) = attempt(&builder.into_inner().unwrap());
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
            let (dir, into, result) = attempt(&archive(entries));
            let victim = dir.path().join("victim");
            assert_eq!(fs::read_to_string(&victim).unwrap(), "whole", "{entries:?}");
            assert!(!Path::new("/tmp/mydocker-escape").exists());
            let outside = dir.path().join("dir");
            assert_eq!(
                fs::metadata(&outside).unwrap().permissions().mode() & 0o777,
                0o700
            );
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
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
        let (_dir, into, result) = attempt(&archive(&[("/etc/motd", EntryType::Regular, "hi")]));
        result.unwrap();
        assert_eq!(fs::read_to_string(into.join("etc/motd")).unwrap(), "hi");
    }

    #[test]
    fn what_is_no_image_is_refused() {
        for bytes in [
            &b""[..],
            b"hello, world",
            &[0; 1024],
            &[0x1f, 0x8b, 9, 9, 9],
        ] {
            let (_dir, _into, result) = attempt(bytes);
            assert!(result.is_err(), "{bytes:?}");
        }
        let saved = archive(&[("manifest.json", EntryType::Regular, "[]")]);
        let error = attempt(&saved).2.unwrap_err();
        assert!(format!("{error:#}").contains("docker export"), "{error:#}");
    }
}
