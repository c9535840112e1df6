//! Images in archives: as `docker save` writes them, and OCI layouts.

use anyhow::{Context, bail};
use serde::Deserialize;

use super::{
    Digest,
    config::{Document, architecture},
    members::{MANIFEST, Members, blob, shown},
};

/// Most layers of an image: as many as Docker allows.
pub(super) const LAYERS_MAX: usize = 128;
/// Most images of one archive, and most entries of an index.
const IMAGES_MAX: usize = 1000;
/// How deep indexes may be in indexes.
const INDEXES_DEEP_MAX: u32 = 4;

/// An image in an archive.
#[derive(Debug)]
pub(super) struct SavedImage {
    /// What it was called where it comes from.
    pub(super) tags: Vec<String>,
    /// The digest of its configuration.
    pub(super) id: Digest,
    pub(super) document: Document,
    /// Lowest first.
    pub(super) layers: Vec<SavedLayer>,
}

/// A layer of it.
#[derive(Clone, Debug)]
pub(super) struct SavedLayer {
    /// Its file in the archive.
    pub(super) path: String,
    /// What the file's digest and length must be, where the archive says so.
    pub(super) blob: Option<Descriptor>,
    /// What its digest must be when it is uncompressed.
    pub(super) diff_id: Digest,
}

/// What OCI calls a reference to content.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// The images of an archive.
pub(super) fn images(members: &Members<'_>) -> anyhow::Result<Vec<SavedImage>> {
    // Newer versions of Docker write both, and this one says more of names.
    let images = if members.has(MANIFEST) {
        docker(members)?
    } else {
        oci(members)?
    };
    if images.is_empty() {
        bail!("there is no image in it for linux/{}", architecture());
    }
    Ok(images)
}

fn image(
    tags: Vec<String>,
    config: &[u8],
    layers: Vec<(String, Option<Descriptor>)>,
) -> anyhow::Result<SavedImage> {
    let document = Document::parse(config)?;
    let diff_ids = document.diff_ids();
    if diff_ids.len() != layers.len() {
        bail!(
            "its configuration has {} layers, and the archive {}",
            diff_ids.len(),
            layers.len()
        );
    }
    if !(1..=LAYERS_MAX).contains(&layers.len()) {
        bail!("{} layers are not 1 to {LAYERS_MAX}", layers.len());
    }
    let layers = layers.into_iter().zip(diff_ids);
    let layers = layers.map(|((path, blob), diff_id)| SavedLayer {
        path,
        blob,
        diff_id: *diff_id,
    });
    Ok(SavedImage {
        tags,
        id: Digest::of(config),
        layers: layers.collect(),
        document,
    })
}

fn docker(members: &Members<'_>) -> anyhow::Result<Vec<SavedImage>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Saved {
        config: String,
        #[serde(default)]
        repo_tags: Option<Vec<String>>,
        layers: Vec<String>,
    }
    let list: Vec<Saved> = members.json("the list of images", MANIFEST)?;
    check_count(list.len())?;
    let one = |saved: Saved| {
        let what = || format!("image `{}`", shown(&saved.config));
        let config = members.read("configuration", &saved.config)?;
        // It is called after its digest, HEX.json or blobs/sha256/HEX.
        let file = saved.config.rsplit('/').next().unwrap_or_default();
        if let Some(wanted) = Digest::from_hex(file.strip_suffix(".json").unwrap_or(file)) {
            check_digest("configuration", &wanted, &Digest::of(&config))?;
        }
        let layers = saved.layers.into_iter().map(|path| (path, None));
        image(
            saved.repo_tags.unwrap_or_default(),
            &config,
            layers.collect(),
        )
        .with_context(what)
    };
    list.into_iter().map(one).collect()
}

fn oci(members: &Members<'_>) -> anyhow::Result<Vec<SavedImage>> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Descriptor>,
    }
    #[derive(Deserialize)]
    struct Manifest {
        config: Descriptor,
        layers: Vec<Descriptor>,
    }
    let index: Index = members.json("the index", "index.json")?;
    let tagged = |descriptor: Descriptor| {
        let tag = tag_of(&descriptor);
        (descriptor, tag, 1)
    };
    let mut open: Vec<_> = index.manifests.into_iter().rev().map(tagged).collect();
    let mut images: Vec<SavedImage> = Vec::new();
    while let Some((descriptor, tag, depth)) = open.pop() {
        check_count(open.len() + images.len())?;
        if descriptor
            .platform
            .as_ref()
            .is_some_and(|platform| !platform.is_ours())
        {
            continue;
        }
        if descriptor.media_type.contains("index")
            || descriptor.media_type.contains("manifest.list")
        {
            if depth > INDEXES_DEEP_MAX {
                bail!("its indexes are deeper than {INDEXES_DEEP_MAX}");
            }
            let text = read_blob(members, "index", &descriptor)?;
            let Index { manifests } = serde_json::from_slice(&text)
                .with_context(|| format!("index {} is not as it should be", descriptor.digest))?;
            let inner = manifests.into_iter().rev();
            open.extend(inner.map(|inner| {
                let own = tag_of(&inner).or_else(|| tag.clone());
                (inner, own, depth + 1)
            }));
            continue;
        }
        let text = read_blob(members, "manifest", &descriptor)?;
        let Manifest { config, layers } = serde_json::from_slice(&text)
            .with_context(|| format!("manifest {} is not as it should be", descriptor.digest))?;
        let text = read_blob(members, "configuration", &config)?;
        for layer in &layers {
            if !layer.media_type.contains(".tar") && !layer.media_type.contains("+tar") {
                bail!(
                    "layer {} is `{}`, which is no tar archive",
                    layer.digest,
                    shown(&layer.media_type)
                );
            }
        }
        let path = |layer: &Descriptor| blob(&layer.digest).display().to_string();
        let layers = layers.into_iter().map(|layer| (path(&layer), Some(layer)));
        let made = image(tag.into_iter().collect(), &text, layers.collect())
            .with_context(|| format!("image {}", descriptor.digest))?;
        match images.iter_mut().find(|image| image.id == made.id) {
            Some(same) => same.tags.extend(made.tags),
            None => images.push(made),
        }
    }
    Ok(images)
}

impl Platform {
    /// Attestations say `unknown`, and so are not.
    fn is_ours(&self) -> bool {
        self.os == "linux" && self.architecture == architecture()
    }
}

/// The image's name, if it is told as a whole: `org.opencontainers.image.ref.name` may be a tag alone.
fn tag_of(descriptor: &Descriptor) -> Option<String> {
    let annotations = descriptor.annotations.as_ref()?;
    let whole = |name: &&String| name.contains(['/', ':']);
    let name = annotations.get("io.containerd.image.name");
    name.or_else(|| {
        annotations
            .get("org.opencontainers.image.ref.name")
            .filter(whole)
    })
    .cloned()
}

fn read_blob(
    members: &Members<'_>,
    what: &str,
    descriptor: &Descriptor,
) -> anyhow::Result<Vec<u8>> {
    let path = blob(&descriptor.digest);
    let text = members.read(what, &path.display().to_string())?;
    check_digest(what, &descriptor.digest, &Digest::of(&text))?;
    Ok(text)
}

/// Refuses what is not what it should be.
pub(super) fn check_digest(what: &str, wanted: &Digest, found: &Digest) -> anyhow::Result<()> {
    if wanted == found {
        return Ok(());
    }
    bail!(
        "{what} should be {wanted} and is {found}: the archive is damaged, or somebody changed it"
    )
}

fn check_count(count: usize) -> anyhow::Result<()> {
    if count > IMAGES_MAX {
        bail!("it has more than {IMAGES_MAX} images");
    }
    Ok(())
}
