//! Layers: one read-only directory each, shared by all images and containers that stand on it.

use std::{
    collections::BTreeSet,
    ffi::CStr,
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::{
    fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{Digest, ImageName, whiteout::OPAQUE_ATTRIBUTE};

/// A layer that is unpacked.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Layer {
    /// The digest of its archive, uncompressed (OCI's diff id).
    pub digest: Digest,
    /// What its directory is called: the same, but for a layer that has to take something from those
    /// below it.
    pub dir: Digest,
    /// The length of its archive, uncompressed.
    pub bytes: u64,
}

/// What earlier versions unpacked an image's archive to: `<root>/image/layers/IMAGE/VERSION`.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct LegacyLayer {
    /// The image.
    pub image: ImageName,
    /// 16 hex digits.
    pub version: String,
}

impl LegacyLayer {
    /// Refuses one that was not made here: it becomes a path.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.version.len() != 16 || !self.version.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            bail!("layer version `{}` is not 16 hex digits", self.version);
        }
        if self.image.archive().is_none() {
            bail!(
                "`{}` never was an image with a layer of its own",
                self.image
            );
        }
        Ok(())
    }
}

/// What a layer's directory is called that takes something from those below it.
pub(super) fn dependent(digest: &Digest, below: &[Layer]) -> Digest {
    let below: String = below
        .iter()
        .map(|layer| format!(" {}", layer.dir))
        .collect();
    Digest::of(format!("{digest} on{below}").as_bytes())
}

/// Makes the directory that a layer is unpacked into.
pub(super) fn create(path: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().mode(0o755).create(path);
    made.with_context(|| format!("can't create {}", path.display()))
}

/// Gives directories that a layer's archive has no entry of what they have below: overlayfs shows the
/// uppermost's owner, mode and attributes, and an archive with `tmp/x` alone must not close `/tmp`.
/// `below` are the directories of the layers below, lowest first.
pub(super) fn inherit(
    layer: &Path,
    implied: &BTreeSet<PathBuf>,
    below: &[PathBuf],
) -> anyhow::Result<()> {
    for path in implied {
        let made = layer.join(path);
        let what = || format!("can't make `{}` like that below", path.display());
        match uppermost(path, below) {
            Some(model) => copy_attributes(&model, &made).with_context(what)?,
            // As tar makes them, whatever the umask.
            None => {
                fs::set_permissions(&made, fs::Permissions::from_mode(0o755)).with_context(what)?
            }
        }
    }
    Ok(())
}

/// The directory that is seen at `path`, if it is one.
fn uppermost(path: &Path, below: &[PathBuf]) -> Option<PathBuf> {
    'layers: for layer in below.iter().rev() {
        let (mut at, mut opaque) = (layer.clone(), false);
        for part in path {
            at.push(part);
            // A link is not followed, so nothing is found outside.
            match fs::symlink_metadata(&at) {
                Ok(found) if found.is_dir() => opaque |= is_opaque(&at),
                // A file, a link, a whiteout or an opaque directory: what is further below is not seen.
                Ok(_) => return None,
                Err(_) if opaque => return None,
                Err(_) => continue 'layers,
            }
        }
        return Some(at);
    }
    None
}

fn copy_attributes(from: &Path, to: &Path) -> anyhow::Result<()> {
    let found = fs::symlink_metadata(from)?;
    std::os::unix::fs::lchown(to, Some(found.uid()), Some(found.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(found.mode() & 0o7777))?;
    for (name, value) in attributes(from)? {
        lsetxattr(to, name.as_str(), &value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Attributes that belong to a file wherever it is: not those of overlayfs, nor a host's labels.
const KEPT_ATTRIBUTES: [&str; 3] = ["user.", "security.capability", "system.posix_acl_"];

/// Whether an image may have this attribute.
pub(super) fn is_kept(name: &str) -> bool {
    KEPT_ATTRIBUTES.iter().any(|kept| name.starts_with(kept))
}

/// The extended attributes of a file, a link itself, that are the image's.
pub(super) fn attributes(path: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let what = || format!("can't read the attributes of {}", path.display());
    let names = read_all(|buffer| llistxattr(path, buffer)).with_context(what)?;
    let mut attributes = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Some(name) = CStr::from_bytes_with_nul(name)
            .ok()
            .and_then(|name| name.to_str().ok())
        else {
            continue;
        };
        if !is_kept(name) {
            continue;
        }
        match read_all(|buffer| lgetxattr(path, name, buffer)) {
            Ok(value) => attributes.push((name.to_owned(), value)),
            // Removed since.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno).with_context(what),
        }
    }
    Ok(attributes)
}

/// Longest list or value of attributes, bytes (the kernel's XATTR_LIST_MAX and XATTR_SIZE_MAX).
const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;

fn read_all(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    let len = match read(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(ATTRIBUTE_BYTES_MAX, 0);
            read(&mut buffer)?
        }
        // The file system has none.
        Err(Errno::NOTSUP) => 0,
        read => read?,
    };
    buffer.truncate(len);
    Ok(buffer)
}

/// Whether overlayfs does not merge that directory with those below.
pub(super) fn is_opaque(path: &Path) -> bool {
    let mut value = [0; 1];
    lgetxattr(path, OPAQUE_ATTRIBUTE, &mut value[..]).is_ok() && &value == b"y"
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn implied_directories_are_as_they_are_below() {
        let dir = TempDir::new().unwrap();
        let [low, high, layer] = ["low", "high", "layer"].map(|name| dir.path().join(name));
        for path in ["tmp/a", "etc", "own"] {
            fs::create_dir_all(low.join(path)).unwrap();
            fs::create_dir_all(layer.join(path)).unwrap();
        }
        let mode = |path: PathBuf, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(low.join("tmp"), 0o1777);
        mode(low.join("tmp/a"), 0o700);
        mode(low.join("etc"), 0o711);
        mode(layer.join("own"), 0o700);
        fs::create_dir_all(high.join("etc")).unwrap();
        mode(high.join("etc"), 0o750);
        // A link hides what is below it, and is not followed.
        std::os::unix::fs::symlink("/etc", high.join("own")).unwrap();
        let implied = ["etc", "own", "tmp", "tmp/a"].map(PathBuf::from).into();
        inherit(&layer, &implied, &[low, high]).unwrap();
        let modes = implied.iter().map(|path| {
            let found = fs::metadata(layer.join(path)).unwrap();
            found.permissions().mode() & 0o7777
        });
        assert_eq!(modes.collect::<Vec<_>>(), [0o750, 0o755, 0o1777, 0o700]);
    }

    #[test]
    fn a_layer_that_depends_on_others_is_called_so() {
        let digest = Digest::of(b"x");
        let below = |text: &str| Layer {
            digest,
            dir: Digest::of(text.as_bytes()),
            bytes: 1,
        };
        let dirs = [
            digest,
            dependent(&digest, &[]),
            dependent(&digest, &[below("a")]),
            dependent(&digest, &[below("b")]),
            dependent(&digest, &[below("a"), below("b")]),
        ];
        assert_eq!(BTreeSet::from(dirs).len(), dirs.len());
    }
}
