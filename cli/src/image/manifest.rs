//! What is kept of an image: `<root>/image/manifests/NAME.json`.

use anyhow::bail;
use serde::{Deserialize, Serialize};

use super::{Digest, ImageConfig, ImageName, Layer, saved::LAYERS_MAX};
use crate::versioned;

/// The format this version writes.
const FORMAT: u32 = 1;

/// An image: layers, and how containers run on them.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Image {
    format: u32,
    /// Its name. An image may have several, and is kept under each.
    pub name: ImageName,
    /// The digest of its OCI configuration, as with Docker.
    pub id: Digest,
    /// When it was made, seconds since 1970.
    pub created_unix_s: u64,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// How containers run unless told otherwise.
    pub config: ImageConfig,
    /// Which version of `NAME.tar` it was made from, if it is one that lies there.
    #[serde(default)]
    pub archive: Option<String>,
}

impl Image {
    pub(super) fn new(
        name: ImageName,
        id: Digest,
        created_unix_s: u64,
        layers: Vec<Layer>,
        config: ImageConfig,
    ) -> Self {
        Self {
            format: FORMAT,
            name,
            id,
            created_unix_s,
            layers,
            config,
            archive: None,
        }
    }

    /// The length of all its layers, uncompressed, bytes.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes).sum()
    }

    /// As text, for its file.
    pub(super) fn to_json(&self) -> anyhow::Result<Vec<u8>> {
        versioned::to_json(self, "an image's manifest")
    }

    /// From the text of its file; refused as a whole if any part is not as we would have written it.
    pub(super) fn from_json(name: &ImageName, text: &[u8]) -> anyhow::Result<Self> {
        let image: Self = versioned::from_json(text, FORMAT)?;
        if image.name != *name {
            bail!("it belongs to image {}", image.name);
        }
        check_layers(image.layers.len())?;
        image.config.check()?;
        Ok(image)
    }
}

/// Refuses an image that overlayfs could not show.
pub(super) fn check_layers(count: usize) -> anyhow::Result<()> {
    if !(1..=LAYERS_MAX).contains(&count) {
        bail!("{count} layers are not 1 to {LAYERS_MAX}");
    }
    Ok(())
}

#[cfg(test)]
pub(crate) fn example() -> Image {
    let digest = Digest::of(b"layer");
    let layer = Layer {
        digest,
        dir: digest,
        bytes: 5,
    };
    let config = ImageConfig::default();
    let name = "box".parse().unwrap();
    Image::new(name, Digest::of(b"config"), 1, vec![layer], config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_survives_its_file() {
        let image = example();
        let text = image.to_json().unwrap();
        let read = Image::from_json(&image.name, &text).unwrap();
        assert_eq!(read.to_json().unwrap(), text);
        assert_eq!(read.bytes(), 5);
    }

    #[test]
    fn a_damaged_manifest_is_refused() {
        let image = example();
        let text = String::from_utf8(image.to_json().unwrap()).unwrap();
        let dir = format!("\"dir\": \"{}\"", image.layers[0].dir);
        for (from, to) in [
            ("\"format\": 1", "\"format\": 2"),
            ("\"name\": \"box\"", "\"name\": \"other\""),
            ("\"name\": \"box\"", "\"name\": \"../box\""),
            (dir.as_str(), "\"dir\": \"sha256:../../../../etc\""),
            ("\"Env\": []", "\"Env\": [\"A=\\u0000\"]"),
            ("}", ""),
        ] {
            let damaged = text.replace(from, to);
            assert_ne!(damaged, text, "{from}");
            assert!(
                Image::from_json(&image.name, damaged.as_bytes()).is_err(),
                "{from} -> {to}"
            );
        }
        let mut none = example();
        none.layers.clear();
        assert!(Image::from_json(&none.name, &none.to_json().unwrap()).is_err());
    }
}
