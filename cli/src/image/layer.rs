//! Layers: one read-only directory for each version of an image.

use std::{
    fmt::Write as _,
    fs::{DirBuilder, File},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{ImageName, unpack};
use crate::store::{Access, Dir, Durability, Lock, remove_tree};

/// Where images are, below the root.
const IMAGES: &str = "image";
/// Where layers are, below the images.
const LAYERS: &str = "layers";
/// What the name of an image's archive ends in.
const ARCHIVE: &str = ".tar";
/// What a layer that is being unpacked ends in.
const PARTIAL: &str = "partial";
/// How long to wait for another process that unpacks or prunes the same image.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(600);

/// Which version of which image. The version is a fingerprint of the archive's place, size and times.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct LayerId {
    /// The image.
    pub image: ImageName,
    /// 16 hex digits.
    pub version: String,
}

impl LayerId {
    /// Refuses one that was not made here: it becomes a path.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.version.len() != 16 || !self.version.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            bail!("layer version `{}` is not 16 hex digits", self.version);
        }
        Ok(())
    }
}

/// A layer in use: nobody else unpacks or prunes layers of this image until it is dropped.
#[derive(Debug)]
pub struct Layer {
    /// Its identity, to be recorded with the container that stands on it.
    pub id: LayerId,
    _lock: Lock,
}

/// The images below one root.
#[derive(Clone, Debug)]
pub struct Images {
    root: PathBuf,
}

impl Images {
    /// The images of `<root>/image`.
    pub fn new(root: &Path) -> Self {
        let root = root.to_path_buf();
        Self { root }
    }

    /// Where an image's archive has to be: `<root>/image/NAME.tar`.
    pub fn archive(&self, image: &ImageName) -> PathBuf {
        self.root.join(IMAGES).join(archive_name(image))
    }

    /// The names of the images there are, sorted.
    pub fn names(&self) -> anyhow::Result<Vec<ImageName>> {
        let Some(images) = Dir::open(&self.root, IMAGES)? else {
            return Ok(Vec::new());
        };
        let files = images.names()?;
        let names = files.iter().filter_map(|file| file.strip_suffix(ARCHIVE));
        // What is called otherwise is no image that a command could name.
        let mut names: Vec<ImageName> = names.filter_map(|name| name.parse().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// The directory of a layer, which exists as long as a container is recorded that stands on it.
    pub fn layer_dir(&self, layer: &LayerId) -> PathBuf {
        self.layers_dir(&layer.image).join(&layer.version)
    }

    /// The layer of the image as its archive is now, unpacked if it was not yet.
    ///
    /// Keep the answer until the container that stands on it is recorded, or [`Images::prune`] may
    /// take the layer away.
    pub fn layer(&self, image: &ImageName) -> anyhow::Result<Layer> {
        let Some((archive, version)) = self.open(image)? else {
            let archive = self.archive(image);
            bail!(
                "no image `{image}`: put its root filesystem at {}",
                archive.display()
            )
        };
        let (layers, lock) = self.lock(image)?;
        let id = LayerId {
            image: image.clone(),
            version,
        };
        if layers.open_dir(&id.version)?.is_none() {
            self.unpack(archive, &layers, &id)?;
        }
        Ok(Layer { id, _lock: lock })
    }

    /// Removes the layers of `image` that are neither its current version nor in use, and what a
    /// killed unpacking left. `in_use` is asked while no new user can appear.
    pub fn prune(
        &self,
        image: &ImageName,
        in_use: impl Fn(&LayerId) -> bool,
    ) -> anyhow::Result<()> {
        if !self.layers_dir(image).is_dir() {
            return Ok(());
        }
        let (dir, _lock) = self.lock(image)?;
        let current = self.open(image).ok().flatten().map(|(_, version)| version);
        for version in dir.names()? {
            let left = version.ends_with(PARTIAL);
            let image = image.clone();
            let id = LayerId { image, version };
            let stale = id.check().is_ok() && Some(&id.version) != current.as_ref() && !in_use(&id);
            if left || stale {
                remove_tree(&dir.path_of(&id.version))?;
            }
        }
        Ok(())
    }

    /// Beside the final place first, then renamed: a layer directory is whole or absent.
    fn unpack(&self, archive: File, layers: &Dir, id: &LayerId) -> anyhow::Result<()> {
        let partial_name = format!("{}.{PARTIAL}", id.version);
        let partial = layers.path_of(&partial_name);
        remove_tree(&partial)?;
        DirBuilder::new()
            .mode(0o755)
            .create(&partial)
            .with_context(|| format!("can't create {}", partial.display()))?;
        let made = unpack(archive, &self.archive(&id.image), &partial)
            .and_then(|_| Ok(layers.rename(&partial_name, &id.version, Durability::Kernel)?));
        if made.is_err() {
            remove_tree(&partial)?;
        }
        made
    }

    fn layers_dir(&self, image: &ImageName) -> PathBuf {
        self.root.join(IMAGES).join(LAYERS).join(image.as_str())
    }

    /// The image's archive and its version, if there is such an image and nobody else can write it.
    fn open(&self, image: &ImageName) -> anyhow::Result<Option<(File, String)>> {
        let Some(images) = Dir::open(&self.root, IMAGES)? else {
            return Ok(None);
        };
        let Some(archive) = images.open_file(&archive_name(image), OFlags::RDONLY)? else {
            return Ok(None);
        };
        let version = version(&archive);
        let version =
            version.with_context(|| format!("can't read {}", self.archive(image).display()))?;
        Ok(Some((archive, version)))
    }

    fn lock(&self, image: &ImageName) -> anyhow::Result<(Dir, Lock)> {
        let images = Dir::create(&self.root, IMAGES, Durability::Disk)?;
        let dir = images.own_dir(LAYERS)?.own_dir(image.as_str())?;
        let what = format!("image {image}");
        let lock = Lock::take(&dir, &what, Access::Write, LOCK_WAIT_MAX)?;
        let lock = lock.with_context(|| format!("{} is gone", dir.path().display()))?;
        Ok((dir, lock))
    }
}

fn archive_name(image: &ImageName) -> String {
    format!("{image}{ARCHIVE}")
}

/// Changes whenever the archive is replaced or written to, without reading it.
fn version(archive: &File) -> std::io::Result<String> {
    let meta = archive.metadata()?;
    let facts = [
        meta.dev(),
        meta.ino(),
        meta.size(),
        meta.mtime().cast_unsigned(),
        meta.mtime_nsec().cast_unsigned(),
        meta.ctime().cast_unsigned(),
        meta.ctime_nsec().cast_unsigned(),
    ];
    // FNV-1a: stable over releases, which std's hasher does not promise.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in facts.iter().flat_map(|fact| fact.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = write!(text, "{hash:016x}");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn image(root: &Path, content: &str) -> ImageName {
        let images = Images::new(root);
        let name: ImageName = "box".parse().unwrap();
        fs::create_dir_all(root.join("image")).unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        builder
            .append_data(&mut header, "motd", content.as_bytes())
            .unwrap();
        fs::write(images.archive(&name), builder.into_inner().unwrap()).unwrap();
        name
    }

    fn motd(images: &Images, id: &LayerId) -> String {
        fs::read_to_string(images.layer_dir(id).join("motd")).unwrap()
    }

    #[test]
    fn a_changed_archive_is_a_new_layer() {
        let root = TempDir::new().unwrap();
        let images = Images::new(root.path());
        let name = image(root.path(), "one");
        let one = images.layer(&name).unwrap().id;
        assert_eq!(images.layer(&name).unwrap().id, one);
        image(root.path(), "two!");
        let two = images.layer(&name).unwrap().id;
        assert_ne!(one, two);
        assert_eq!(
            (motd(&images, &one), motd(&images, &two)),
            ("one".into(), "two!".into())
        );

        images.prune(&name, |id| *id == one).unwrap();
        assert!(images.layer_dir(&one).exists());
        images.prune(&name, |_| false).unwrap();
        assert!(!images.layer_dir(&one).exists());
        assert!(images.layer_dir(&two).exists());
    }

    #[test]
    fn a_bad_archive_leaves_no_layer() {
        let root = TempDir::new().unwrap();
        let images = Images::new(root.path());
        let name = image(root.path(), "one");
        fs::write(images.archive(&name), "no tar").unwrap();
        assert!(images.layer(&name).is_err());
        let left: Vec<_> = fs::read_dir(images.layers_dir(&name))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["lock"]);
    }

    #[test]
    fn images_are_listed_by_name() {
        let root = TempDir::new().unwrap();
        let images = Images::new(root.path());
        assert_eq!(images.names().unwrap(), []);
        let name = image(root.path(), "one");
        for other in ["alpine.tar", "alpine.tar.part", "notes", ".tar", "a b.tar"] {
            fs::write(root.path().join("image").join(other), "").unwrap();
        }
        let names = images.names().unwrap();
        assert_eq!(names, ["alpine".parse().unwrap(), name]);
    }

    #[test]
    fn a_missing_archive_says_where_it_belongs() {
        let root = TempDir::new().unwrap();
        let error = Images::new(root.path())
            .layer(&"nosuch".parse().unwrap())
            .unwrap_err();
        assert!(error.to_string().contains("image/nosuch.tar"), "{error}");
    }
}
