//! Archives become images.

use std::{
    fs::{self, File},
    io::{IsTerminal, Read, stdin},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};

use super::{
    Digest, Image, ImageConfig, ImageName, Images, Layer,
    config::document,
    decompress::decompressed,
    digest::Hashing,
    images::Table,
    layer::{create, dependent, inherit},
    manifest::check_layers,
    members::{Members, shown},
    progress::Progress,
    saved::{self, Descriptor, SavedImage, SavedLayer, check_digest},
    staging::Staging,
    unpack::{Kind, Unpacked, unpack},
};
use crate::store::remove_tree;

/// What the names of archives end in.
const ENDINGS: [&str; 7] = [
    ".tar.gz", ".tar.zst", ".tgz", ".tzst", ".tar", ".gz", ".zst",
];
/// What Docker calls an image without a name.
const UNTAGGED: &str = "<none>:<none>";
/// What a tar archive is made of, bytes; zeros at its end.
const BLOCK_BYTES: u64 = 512;
/// A layer's directory while it is filled, in the staging.
const PARTIAL: &str = "partial";

/// A layer's archive, and what is known of it.
struct Packed<'a, R> {
    source: R,
    bytes: Option<u64>,
    kind: Kind,
    /// What it must be uncompressed, if anybody said so.
    diff_id: Option<Digest>,
    /// What it must be as it is.
    blob: Option<&'a Descriptor>,
    /// For people.
    what: String,
}

impl Images {
    /// Makes images of an archive, plain or compressed with gzip or zstd: of a root filesystem, as `docker
    /// save` writes them, or an OCI layout. `-` is standard input.
    ///
    /// They are called `name`, or as the archive says, or else as the file is called. Returns each with
    /// each of its names. Another image that had one of these has it no more.
    pub fn import(&self, path: &Path, name: Option<&ImageName>) -> anyhow::Result<Vec<Image>> {
        let from_stdin = path == Path::new("-");
        let shown = if from_stdin {
            "standard input".to_owned()
        } else {
            path.display().to_string()
        };
        let what = || format!("can't import {shown}");
        if from_stdin && stdin().is_terminal() {
            bail!("standard input is a terminal: pipe an archive to it, or name a file");
        }
        let file = if from_stdin {
            stdin().as_fd().try_clone_to_owned().map(File::from)
        } else {
            File::open(path)
        };
        let file = file.with_context(what)?;
        let default = match name {
            Some(name) => Ok(name.clone()),
            None if from_stdin => Err(anyhow::anyhow!(
                "standard input has no name: give one, mydocker image import - NAME"
            )),
            None => named_after(path),
        };
        if let Some(name) = name {
            self.check_free(&self.lock()?, name).with_context(what)?;
        }
        let staging = Staging::take(&self.dir()?)?;
        let archive = staging.seekable(file, &shown).with_context(what)?;
        loop {
            let images = self
                .read(&staging, &archive, name, &default)
                .with_context(what)?;
            if self.keep(&staging, &images).with_context(what)? {
                return Ok(images);
            }
        }
    }

    /// Makes an image of an archive that was placed by hand.
    pub(super) fn import_archive(
        &self,
        staging: &Staging,
        name: &ImageName,
        (file, path): (File, &Path),
        version: String,
    ) -> anyhow::Result<()> {
        let what = || format!("can't unpack {}", path.display());
        let archive = staging.seekable(file, name.as_str()).with_context(what)?;
        loop {
            let given = Ok(name.clone());
            let mut images = self
                .read(staging, &archive, Some(name), &given)
                .with_context(what)?;
            for image in &mut images {
                image.archive = Some(version.clone());
            }
            if self.keep(staging, &images).with_context(what)? {
                return Ok(());
            }
        }
    }

    /// Makes an image of one more layer on others. `pack` writes its archive.
    pub(crate) fn commit(
        &self,
        name: &ImageName,
        below: &[Layer],
        config: &ImageConfig,
        pack: impl FnOnce(&mut File) -> anyhow::Result<()>,
    ) -> anyhow::Result<Image> {
        check_layers(below.len() + 1).context("the image would have too many layers")?;
        config.check()?;
        self.check_free(&self.lock()?, name)?;
        let staging = Staging::take(&self.dir()?)?;
        let mut archive = staging.file()?;
        pack(&mut archive)?;
        let bytes = archive.metadata()?.len();
        loop {
            let packed = Packed {
                source: Whole(&archive, 0),
                bytes: Some(bytes),
                kind: Kind::Layer,
                diff_id: None,
                blob: None,
                what: format!("unpacking {name}"),
            };
            let mut layers = below.to_vec();
            layers.push(self.unpack_layer(&staging, packed, below)?);
            let image = made_here(name, layers, config.clone())?;
            let images = [image];
            if self.keep(&staging, &images)? {
                let [image] = images;
                return Ok(image);
            }
        }
    }

    /// Unpacks what of an archive is not yet there. An image with several names is there several times.
    fn read(
        &self,
        staging: &Staging,
        archive: &File,
        name: Option<&ImageName>,
        default: &anyhow::Result<ImageName>,
    ) -> anyhow::Result<Vec<Image>> {
        let default = || match default {
            Ok(name) => Ok(name.clone()),
            Err(error) => bail!("{error:#}"),
        };
        let Some(members) = Members::scan(archive)? else {
            let name = default()?;
            let root = self.unpack_root(staging, archive, &name)?;
            return Ok(vec![made_here(&name, vec![root], ImageConfig::default())?]);
        };
        let saved = saved::images(&members)?;
        if let (Some(name), 2..) = (name, saved.len()) {
            let tags: Vec<_> = saved
                .iter()
                .flat_map(|image| &image.tags)
                .map(|tag| shown(tag))
                .collect();
            bail!(
                "it has {} images, which can't all be called {name}: {}",
                saved.len(),
                tags.join(", ")
            );
        }
        let alone = saved.len() == 1;
        // All names first: an archive is imported whole or not at all.
        let names = |image: &SavedImage| match name {
            Some(name) => Ok(vec![name.clone()]),
            None => names_of(image, alone.then_some(&default)),
        };
        let names: Vec<_> = saved.iter().map(names).collect::<Result<_, _>>()?;
        let mut images = Vec::new();
        for (saved, names) in saved.into_iter().zip(names) {
            let layers = self.unpack_saved(staging, &members, &saved.layers)?;
            let created = saved.document.created_unix_s().unwrap_or_else(now_unix_s);
            let config = saved.document.into_config();
            for name in names {
                let (layers, config) = (layers.clone(), config.clone());
                images.push(Image::new(name, saved.id, created, layers, config));
            }
        }
        Ok(images)
    }

    fn unpack_root(
        &self,
        staging: &Staging,
        archive: &File,
        name: &ImageName,
    ) -> anyhow::Result<Layer> {
        let packed = Packed {
            source: Whole(archive, 0),
            bytes: Some(archive.metadata()?.len()),
            kind: Kind::Root,
            diff_id: None,
            blob: None,
            what: format!("unpacking {name}"),
        };
        self.unpack_layer(staging, packed, &[])
    }

    fn unpack_saved(
        &self,
        staging: &Staging,
        members: &Members<'_>,
        saved: &[SavedLayer],
    ) -> anyhow::Result<Vec<Layer>> {
        let mut layers: Vec<Layer> = Vec::new();
        for (index, layer) in saved.iter().enumerate() {
            let source = members.open("layer", &layer.path)?;
            let packed = Packed {
                bytes: Some(source.left()),
                source,
                kind: Kind::Layer,
                diff_id: Some(layer.diff_id),
                blob: layer.blob.as_ref(),
                what: format!("layer {} of {}", index + 1, saved.len()),
            };
            let unpacked = self.unpack_layer(staging, packed, &layers);
            layers.push(unpacked.with_context(|| format!("layer `{}`", shown(&layer.path)))?);
        }
        Ok(layers)
    }

    /// Unpacks a layer into the staging, unless it is there. Its digest is looked at either way.
    fn unpack_layer(
        &self,
        staging: &Staging,
        packed: Packed<'_, impl Read>,
        below: &[Layer],
    ) -> anyhow::Result<Layer> {
        let below_dirs = below.iter().map(|layer| {
            let place = self.place(staging, &layer.dir);
            place.with_context(|| format!("layer {} is gone", layer.dir))
        });
        let below_dirs = below_dirs.collect::<anyhow::Result<Vec<_>>>()?;
        let there = packed.diff_id.and_then(|digest| {
            let names = [digest, dependent(&digest, below)];
            names
                .into_iter()
                .find(|dir| self.place(staging, dir).is_some())
        });
        let partial = staging.path_of(PARTIAL);
        let progress = Progress::new(packed.what, packed.bytes);
        let mut as_is = Hashing::new(progress.reader(packed.source));
        let mut plain = Hashing::new(decompressed(&mut as_is)?.1);
        let unpacked = match there {
            Some(_) => Unpacked::default(),
            None => {
                remove_tree(&partial)?;
                create(&partial)?;
                unpack(&mut plain, &partial, packed.kind)?
            }
        };
        let plain = plain.finish()?;
        let (digest, bytes) = (plain.digest, plain.bytes);
        let as_is = as_is.finish()?;
        if let Some(blob) = packed.blob {
            check_digest("its file", &blob.digest, &as_is.digest)?;
            if blob.size != as_is.bytes {
                bail!(
                    "its file should have {} bytes and has {}",
                    blob.size,
                    as_is.bytes
                );
            }
        }
        if let Some(wanted) = packed.diff_id {
            check_digest("its content", &wanted, &digest)?;
        }
        if let Some(dir) = there {
            return Ok(Layer { digest, dir, bytes });
        }
        if packed.kind == Kind::Root && unpacked.made == 0 {
            bail!(
                "it holds no files: it should be a root filesystem, or what `docker save` writes"
            );
        }
        if packed.kind == Kind::Root && plain.zeros < BLOCK_BYTES {
            // A layer's digest would have told.
            bail!("it is cut short: what marks the end of a tar archive is not there");
        }
        inherit(&partial, &unpacked.implied, &below_dirs)?;
        let dir = if unpacked.like_whiteouts {
            Digest::of(format!("{digest} with whiteouts as files").as_bytes())
        } else if unpacked.implied.is_empty() {
            digest
        } else {
            dependent(&digest, below)
        };
        if self.place(staging, &dir).is_none() {
            let whole = staging.path_of(&dir.hex());
            let moved = fs::rename(&partial, &whole);
            moved.with_context(|| format!("can't make {}", whole.display()))?;
        }
        Ok(Layer { digest, dir, bytes })
    }

    /// Where a layer is, in the staging or in its place.
    fn place(&self, staging: &Staging, dir: &Digest) -> Option<PathBuf> {
        let places = [staging.path_of(&dir.hex()), self.layer_dir(dir)];
        places.into_iter().find(|place| place.is_dir())
    }

    /// Moves images to where they are found, layers first. False if somebody removed a layer meanwhile
    /// that was there.
    fn keep(&self, staging: &Staging, images: &[Image]) -> anyhow::Result<bool> {
        staging.sync()?;
        let table: Table = self.lock()?;
        for image in images.iter().filter(|image| image.archive.is_none()) {
            self.check_free(&table, &image.name)?;
        }
        for layer in images.iter().flat_map(|image| &image.layers) {
            let staged = staging.path_of(&layer.dir.hex());
            if staged.is_dir() {
                table.keep_layer(&staged, &layer.dir)?;
            } else if !table.has_layer(&layer.dir)? {
                return Ok(false);
            }
        }
        table.keep(images)?;
        Ok(true)
    }
}

/// An archive from its beginning, whoever else reads it.
struct Whole<'f>(&'f File, u64);

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(self.0, buffer, self.1)?;
        self.1 += u64::try_from(read).unwrap_or(u64::MAX);
        Ok(read)
    }
}

/// An image that has no configuration from elsewhere.
fn made_here(name: &ImageName, layers: Vec<Layer>, config: ImageConfig) -> anyhow::Result<Image> {
    let created = now_unix_s();
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    let id = Digest::of(&document(&config, &diff_ids, created)?);
    Ok(Image::new(name.clone(), id, created, layers, config))
}

/// What an image is called that nobody gave a name.
fn names_of(
    image: &SavedImage,
    default: Option<&impl Fn() -> anyhow::Result<ImageName>>,
) -> anyhow::Result<Vec<ImageName>> {
    let tags = image.tags.iter().filter(|tag| *tag != UNTAGGED);
    let names: Vec<ImageName> = tags
        .map(|tag| tag.parse())
        .collect::<Result<_, _>>()
        .context("give it another name: mydocker image import FILE NAME")?;
    match (names.is_empty(), default) {
        (false, _) => Ok(names),
        (true, Some(default)) => Ok(vec![default()?]),
        (true, None) => bail!(
            "image {} has no name, and there are others",
            image.id.short()
        ),
    }
}

/// The image that a file is called like.
fn named_after(path: &Path) -> anyhow::Result<ImageName> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = ENDINGS.iter().find_map(|ending| file.strip_suffix(ending));
    stem.unwrap_or(&file)
        .parse()
        .context("give it a name: mydocker image import FILE NAME")
}

fn now_unix_s() -> u64 {
    // A clock before 1970 is shown as 1970.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
