//! The table of images: their manifests, their layers, and the archives beside them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::fs::OFlags;

use super::{Digest, Image, ImageName, Layer, LegacyLayer, staging::Staging};
use crate::store::{Access, Dir, Durability, Lock, remove_tree};

/// Where images are, below the root.
const IMAGES: &str = "image";
/// Where their manifests are, below the images.
const MANIFESTS: &str = "manifests";
/// Where layers are, below the images.
pub(super) const LAYERS: &str = "layers";
/// Where layers are that are called after their digest, below the layers.
pub(super) const BY_DIGEST: &str = "sha256";
/// Fewer digits of an id are no id: `db` and `ada` are what somebody calls an image.
const ID_DIGITS_MIN: usize = 4;
/// How long to wait for another process that changes the table: it takes moments, unless it removes large
/// layers.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(600);

/// The images below one root.
#[derive(Clone, Debug)]
pub struct Images {
    root: PathBuf,
}

/// An image that nobody removes as long as this is held.
#[derive(Debug)]
pub struct HeldImage {
    /// The image.
    pub image: Image,
    _table: Table,
}

/// All images, and what could not be read.
#[derive(Debug, Default)]
pub struct ImageListing {
    /// Those that are unpacked, by name.
    pub images: Vec<Image>,
    /// Those of which there is only an archive: they are unpacked when they are first used.
    pub archives: Vec<ImageArchive>,
    /// Those whose manifest is damaged.
    pub damaged: Vec<DamagedImage>,
}

/// An archive that was placed by hand and has not been unpacked as it is now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageArchive {
    /// What it is called.
    pub name: ImageName,
    /// Its length, bytes.
    pub bytes: u64,
    /// When it was last written, seconds since 1970.
    pub modified_unix_s: u64,
}

/// An image whose manifest can't be read, and why, which names its file.
#[derive(Debug, thiserror::Error)]
#[error("can't read image {name}, which `mydocker image rm --force {name}` removes: {error:#}")]
pub struct DamagedImage {
    /// The image.
    pub name: ImageName,
    /// What is wrong with its manifest.
    pub error: anyhow::Error,
}

/// The directories of images, which nobody else changes while this is held.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) images: Dir,
    pub(super) manifests: Dir,
    pub(super) layers: Dir,
    _lock: Lock,
}

/// What a name leads to.
pub(super) enum Look {
    Image(Box<HeldImage>),
    /// An archive that was placed by hand, its path and its version: it has to be unpacked first.
    Archive(File, PathBuf, String),
}

impl Images {
    /// The images of `<root>/image`.
    pub fn new(root: &Path) -> Self {
        let root = root.to_path_buf();
        Self { root }
    }

    /// Where an image's archive may be placed by hand: `<root>/image/NAME.tar`; nowhere if its name has
    /// a tag or a registry.
    pub fn archive(&self, name: &ImageName) -> Option<PathBuf> {
        Some(self.root.join(IMAGES).join(name.archive()?))
    }

    /// Whether there is such an image, without a lock and without unpacking anything.
    pub fn has(&self, name: &ImageName) -> anyhow::Result<bool> {
        let listing = self.list()?;
        let has = listing.images.iter().any(|image| image.name == *name)
            || listing.archives.iter().any(|archive| archive.name == *name)
            || matches!(one_of(&listing.images, name.as_str()), Ok(Some(_)));
        Ok(has)
    }

    /// The directories of a container's layers, lowest first. Overlayfs refuses one that is there twice, and
    /// the upper one shows, and hides, all that the lower one does.
    pub fn layer_dirs(&self, layers: &[Layer], legacy: Option<&LegacyLayer>) -> Vec<PathBuf> {
        let all = self.root.join(IMAGES).join(LAYERS);
        let legacy = legacy.map(|layer| all.join(layer.image.as_str()).join(&layer.version));
        let mut seen = BTreeSet::new();
        let shown = layers.iter().rev().filter(|layer| seen.insert(layer.dir));
        let mut own: Vec<_> = shown.map(|layer| self.layer_dir(&layer.dir)).collect();
        own.reverse();
        legacy.into_iter().chain(own).collect()
    }

    /// The image of this name, or the only one whose id starts with it. It is unpacked if it is an archive
    /// that was placed by hand and has not been yet, or has changed.
    ///
    /// Keep the answer until the container that stands on it is recorded, or its layers may go.
    pub fn image(&self, name: &ImageName) -> anyhow::Result<HeldImage> {
        if let Look::Image(held) = self.look(name)? {
            return Ok(*held);
        }
        let staging = Staging::take(&self.dir()?)?;
        loop {
            // Somebody may have unpacked it while we waited.
            match self.look(name)? {
                Look::Image(held) => return Ok(*held),
                Look::Archive(file, path, version) => {
                    self.import_archive(&staging, name, (file, &path), version)?;
                }
            }
        }
    }

    /// The image that `text` names, by name or by the start of its id, as [`Images::image`].
    pub fn find(&self, text: &str) -> anyhow::Result<Image> {
        match text.strip_prefix("sha256:") {
            Some(_) => match one_of(&self.list()?.images, text)? {
                Some(image) => Ok(image.clone()),
                None => bail!("no image `{text}`"),
            },
            None => Ok(self.image(&text.parse()?)?.image),
        }
    }

    /// All images.
    pub fn list(&self) -> anyhow::Result<ImageListing> {
        let mut listing = ImageListing::default();
        let Some(images) = self.open()? else {
            return Ok(listing);
        };
        let mut archives = BTreeMap::new();
        for file in images.names()? {
            let Some(name) = file
                .strip_suffix(".tar")
                .and_then(|stem| stem.parse::<ImageName>().ok())
            else {
                continue;
            };
            if name.archive().as_ref() != Some(&file) {
                continue;
            }
            match open_archive(&images, &name) {
                Ok(Some(found)) => drop(archives.insert(name, found)),
                // Removed since.
                Ok(None) => {}
                Err(error) => listing.damaged.push(DamagedImage { name, error }),
            }
        }
        if let Some(manifests) = images.open_dir(MANIFESTS)? {
            for name in manifests
                .names()?
                .iter()
                .filter_map(|file| ImageName::of_file(file))
            {
                match read(&manifests, &name) {
                    Ok(Some(image)) if image.archive.is_some() => {
                        // That of an archive that is gone or has changed is no image any more.
                        let as_now =
                            |(_, version): &(File, String)| image.archive.as_ref() == Some(version);
                        if archives.get(&name).is_some_and(as_now) {
                            archives.remove(&name);
                            listing.images.push(image);
                        }
                    }
                    Ok(Some(image)) => listing.images.push(image),
                    // Removed since.
                    Ok(None) => {}
                    Err(error) => listing.damaged.push(DamagedImage { name, error }),
                }
            }
        }
        for (name, (archive, _)) in archives {
            let found = archive
                .metadata()
                .with_context(|| format!("can't read the archive of {name}"))?;
            listing.archives.push(ImageArchive {
                name,
                bytes: found.len(),
                modified_unix_s: u64::try_from(found.mtime()).unwrap_or(0),
            });
        }
        Ok(listing)
    }

    /// What there is of this name.
    pub(super) fn look(&self, name: &ImageName) -> anyhow::Result<Look> {
        let table = self.lock()?;
        let archive = open_archive(&table.images, name)?;
        let known = read(&table.manifests, name).map_err(|error| DamagedImage {
            name: name.clone(),
            error,
        })?;
        let image = match (known, archive) {
            (Some(image), None) if image.archive.is_none() => image,
            (Some(image), Some(_)) if image.archive.is_none() => bail!(self.two_of(name)),
            (Some(image), Some((_, version))) if image.archive.as_ref() == Some(&version) => image,
            (_, Some((file, version))) => {
                let path = self.archive(name).unwrap_or_default();
                return Ok(Look::Archive(file, path, version));
            }
            (_, None) => match one_of(&self.list()?.images, name.as_str())? {
                Some(image) => image.clone(),
                None => bail!(self.none_of(name)),
            },
        };
        for layer in &image.layers {
            if table.layers.open_dir(&layer.dir.hex())?.is_none() {
                bail!(
                    "layer {} of image `{}` is gone: import the image again",
                    layer.dir,
                    image.name
                );
            }
        }
        Ok(Look::Image(Box::new(HeldImage {
            image,
            _table: table,
        })))
    }

    fn two_of(&self, name: &ImageName) -> String {
        let archive = self.archive(name).unwrap_or_default();
        format!(
            "image `{name}` was imported, and {} is there as well: `mydocker image rm {name}` removes what \
             was imported, or move the file",
            archive.display()
        )
    }

    fn none_of(&self, name: &ImageName) -> String {
        let import = "`mydocker image import FILE` makes one of an archive";
        match self.archive(name) {
            Some(archive) => format!(
                "no image `{name}`: {import}, or put its root filesystem at {}",
                archive.display()
            ),
            None => format!("no image `{name}`: {import}"),
        }
    }

    /// Refuses a name that an archive has which lies there: one of the two would be hidden.
    pub(super) fn check_free(&self, table: &Table, name: &ImageName) -> anyhow::Result<()> {
        match open_archive(&table.images, name)? {
            Some(_) => bail!(
                "the name `{name}` is that of {}: remove that file or choose another name",
                self.archive(name).unwrap_or_default().display()
            ),
            None => Ok(()),
        }
    }

    pub(super) fn layer_dir(&self, dir: &Digest) -> PathBuf {
        let all = self.root.join(IMAGES).join(LAYERS);
        all.join(BY_DIGEST).join(dir.hex())
    }

    /// The directory of images, none if there is none.
    pub(super) fn open(&self) -> anyhow::Result<Option<Dir>> {
        Ok(Dir::open(&self.root, IMAGES)?)
    }

    /// The directory of images, made if it is missing.
    pub(super) fn dir(&self) -> anyhow::Result<Dir> {
        Ok(Dir::create(&self.root, IMAGES, Durability::Disk)?)
    }

    pub(super) fn lock(&self) -> anyhow::Result<Table> {
        let images = self.dir()?;
        let lock = Lock::take(&images, "the table of images", Access::Write, LOCK_WAIT_MAX)?;
        let lock = lock.with_context(|| format!("{} is gone", images.path().display()))?;
        Ok(Table {
            manifests: images.own_dir(MANIFESTS)?,
            layers: images.own_dir(LAYERS)?.own_dir(BY_DIGEST)?,
            images,
            _lock: lock,
        })
    }
}

impl Table {
    pub(super) fn has_layer(&self, dir: &Digest) -> anyhow::Result<bool> {
        Ok(self.layers.open_dir(&dir.hex())?.is_some())
    }

    /// Moves a layer that is whole to its place, unless it is there.
    pub(super) fn keep_layer(&self, from: &Path, dir: &Digest) -> anyhow::Result<()> {
        if self.has_layer(dir)? {
            return Ok(remove_tree(from)?);
        }
        let to = self.layers.path_of(&dir.hex());
        std::fs::rename(from, &to).with_context(|| format!("can't make {}", to.display()))
    }

    /// Writes manifests. Whatever had their names has them no more.
    pub(super) fn keep(&self, images: &[Image]) -> anyhow::Result<()> {
        // The layers' names, before what leads to them.
        let what = || format!("can't sync {}", self.layers.path().display());
        let layers = File::open(self.layers.path()).with_context(what)?;
        layers.sync_all().with_context(what)?;
        for image in images {
            let (file, text) = (image.name.file(), image.to_json()?);
            self.manifests.replace(&file, &text, Durability::Disk)?;
        }
        Ok(())
    }
}

/// The only image whose id starts with `text`, which may be given with its `sha256:`.
pub(super) fn one_of<'i>(images: &'i [Image], text: &str) -> anyhow::Result<Option<&'i Image>> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    if digits.len() < ID_DIGITS_MIN {
        return Ok(None);
    }
    let mut matching = images
        .iter()
        .filter(|image| image.id.hex().starts_with(digits));
    let Some(one) = matching.next() else {
        return Ok(None);
    };
    match matching.find(|image| image.id != one.id) {
        Some(two) => bail!(
            "`{text}` means image {} as well as {}: give more digits",
            one.id.short(),
            two.id.short()
        ),
        None => Ok(Some(one)),
    }
}

pub(super) fn read(manifests: &Dir, name: &ImageName) -> anyhow::Result<Option<Image>> {
    let file = name.file();
    let Some(text) = manifests.read(&file)? else {
        return Ok(None);
    };
    let path = manifests.path_of(&file);
    Image::from_json(name, &text)
        .with_context(|| format!("{} is damaged", path.display()))
        .map(Some)
}

/// An image's archive and its version, if there is one and nobody else can write it.
fn open_archive(images: &Dir, name: &ImageName) -> anyhow::Result<Option<(File, String)>> {
    let Some(file) = name.archive() else {
        return Ok(None);
    };
    let Some(archive) = images.open_file(&file, OFlags::RDONLY)? else {
        return Ok(None);
    };
    let version = version(&archive);
    let version =
        version.with_context(|| format!("can't read {}", images.path_of(&file).display()))?;
    Ok(Some((archive, version)))
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
