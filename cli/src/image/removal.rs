//! Removing images, and what is nobody's any more.

use std::collections::BTreeSet;

use anyhow::bail;

use super::{
    Digest, Image, ImageListing, ImageName, Images, Layer, LegacyLayer,
    images::{BY_DIGEST, LAYERS, Table, one_of, read},
    staging::Staging,
};
use crate::store::{Dir, Durability, remove_tree};

/// What a layer ends in that is being removed.
const GOING: &str = ".going";

/// Who stands on images.
#[derive(Debug, Default)]
pub struct Users {
    /// The containers that can be read.
    pub containers: Vec<User>,
    /// Whether there are others, of which nobody knows what they stand on.
    pub unknown: bool,
}

/// A container, as far as images matter to it.
#[derive(Debug)]
pub struct User {
    /// What it is called.
    pub container: String,
    /// The image it was made from.
    pub image: ImageName,
    /// That image's id; none if an earlier version made it.
    pub id: Option<Digest>,
    /// The layers it stands on.
    pub layers: Vec<Layer>,
    /// The same, if an earlier version made it.
    pub legacy: Option<LegacyLayer>,
}

impl Images {
    /// Removes names of images, and the layers that are nobody's any more. A name that is the last of
    /// its image is refused while a container stands on that, unless `force`: then the container keeps
    /// the layers. `text` is a name, or the only id that starts so. Returns the names that went.
    pub fn remove(
        &self,
        text: &str,
        force: bool,
        users: impl Fn() -> anyhow::Result<Users>,
    ) -> anyhow::Result<Vec<ImageName>> {
        let table = self.lock()?;
        let listing = self.list()?;
        let names = going(&listing, text, force)?;
        if !force {
            check_unused(&listing, &names, &users()?)?;
        }
        for name in &names {
            let imported = read(&table.manifests, name)
                .map(|image| image.is_some_and(|image| image.archive.is_none()));
            table.manifests.remove(&name.file(), Durability::Disk)?;
            // What was imported goes first, and then what it stood in the way of.
            if !imported.unwrap_or(true)
                && let Some(archive) = name.archive()
            {
                table.images.remove(&archive, Durability::Disk)?;
            }
        }
        self.sweep(&table, &users()?)?;
        Ok(names)
    }

    /// Removes layers that neither an image nor a container stands on, and what a killed process left.
    /// `users` is asked while no new one can appear.
    pub fn prune(&self, users: impl Fn() -> anyhow::Result<Users>) -> anyhow::Result<()> {
        if self.open()?.is_none() {
            return Ok(());
        }
        let table = self.lock()?;
        self.sweep(&table, &users()?)
    }

    fn sweep(&self, table: &Table, users: &Users) -> anyhow::Result<()> {
        Staging::sweep(&table.images)?;
        let going = table.layers.names()?;
        for name in going.iter().filter(|name| name.ends_with(GOING)) {
            remove_tree(&table.layers.path_of(name))?;
        }
        let listing = self.list()?;
        if users.unknown || !listing.damaged.is_empty() {
            // Which layers those stand on is not known.
            return Ok(());
        }
        let of_images = listing.images.iter().flat_map(|image| &image.layers);
        let of_users = users.containers.iter().flat_map(|user| &user.layers);
        let used: BTreeSet<Digest> = of_images.chain(of_users).map(|layer| layer.dir).collect();
        let known: BTreeSet<String> = listing
            .images
            .iter()
            .map(|image| image.name.file())
            .collect();
        for file in table.manifests.names()? {
            // Those of archives that are gone or have changed.
            if ImageName::of_file(&file).is_some() && !known.contains(&file) {
                table.manifests.remove(&file, Durability::Kernel)?;
            }
        }
        for name in table.layers.names()? {
            if Digest::from_hex(&name).is_some_and(|digest| !used.contains(&digest)) {
                // Out of sight at once: one half removed would be taken for whole.
                let old = format!("{name}{GOING}");
                table.layers.rename(&name, &old, Durability::Disk)?;
                remove_tree(&table.layers.path_of(&old))?;
            }
        }
        sweep_legacy(&table.images, users)
    }
}

/// The names that go with `text`.
fn going(listing: &ImageListing, text: &str, force: bool) -> anyhow::Result<Vec<ImageName>> {
    if let Ok(name) = text.parse::<ImageName>() {
        let known = listing.images.iter().map(|image| &image.name);
        let known = known.chain(listing.archives.iter().map(|archive| &archive.name));
        if known.into_iter().any(|known| *known == name) {
            return Ok(vec![name]);
        }
    }
    let damaged = listing
        .damaged
        .iter()
        .find(|damaged| damaged.name.as_str() == text);
    match (damaged, force) {
        (Some(damaged), true) => return Ok(vec![damaged.name.clone()]),
        (Some(damaged), false) => bail!("{damaged}"),
        (None, _) => {}
    }
    let Some(image) = one_of(&listing.images, text)? else {
        bail!("no image `{text}`");
    };
    let names = listing.images.iter().filter(|other| other.id == image.id);
    let names: Vec<ImageName> = names.map(|other| other.name.clone()).collect();
    if names.len() > 1 && !force {
        let shown: Vec<_> = names.iter().map(ImageName::as_str).collect();
        bail!(
            "image {} has the names {}: give one of them, or remove all by force",
            image.id.short(),
            shown.join(", ")
        );
    }
    Ok(names)
}

/// Refuses to remove the last name of what a container stands on.
fn check_unused(listing: &ImageListing, names: &[ImageName], users: &Users) -> anyhow::Result<()> {
    for name in names {
        let id = listing
            .images
            .iter()
            .find(|image| image.name == *name)
            .map(|image| image.id);
        let other = |image: &&Image| Some(image.id) == id && !names.contains(&image.name);
        if listing.images.iter().any(|image| other(&image)) {
            continue;
        }
        let stands = |user: &&User| match user.id {
            Some(used) => Some(used) == id,
            None => user.image == *name,
        };
        if let Some(user) = users.containers.iter().find(stands) {
            bail!(
                "image `{name}` is in use by container {}: remove that first, or the image by force",
                user.container
            );
        }
    }
    Ok(())
}

/// Removes what earlier versions unpacked, once no container of theirs stands on it.
fn sweep_legacy(images: &Dir, users: &Users) -> anyhow::Result<()> {
    let Some(layers) = images.open_dir(LAYERS)? else {
        return Ok(());
    };
    for image in layers.names()?.iter().filter(|name| *name != BY_DIGEST) {
        let Ok(name) = image.parse::<ImageName>() else {
            continue;
        };
        let used = |user: &User| {
            user.legacy
                .as_ref()
                .is_some_and(|layer| layer.image == name)
        };
        if !users.containers.iter().any(used) {
            remove_tree(&layers.path_of(image))?;
        }
    }
    Ok(())
}
