//! Makes an image of a container.

use anyhow::{Context, bail};

use super::{id::Id, record::Record, store::Containers};
use crate::{
    image::{Image, ImageConfig, ImageName, pack},
    privilege,
};

/// An image that was made of a container.
#[derive(Debug)]
pub struct Committed {
    /// The image.
    pub image: Image,
    /// How many device nodes, pipes and sockets are not in it.
    pub left_out: u64,
}

/// Makes an image of what a container wrote, on top of the layers it stands on, which runs as the
/// container was run. An image that had the name has it no more; what is nobody's then goes with
/// [`Images::prune`](crate::image::Images::prune).
///
/// A container that runs is not paused: a file that it is writing is in the image as it was at one
/// moment or another. Volumes are not part of it.
pub fn commit(containers: &Containers, id: &Id, name: &ImageName) -> anyhow::Result<Committed> {
    privilege::check(
        "making an image of a container",
        privilege::TO_END_CONTAINERS,
    )?;
    let Some(record) = containers.load(id)? else {
        bail!("no container `{id}`");
    };
    if record.legacy_layer.is_some() {
        bail!(
            "container {} was made by an earlier version, from an image without layers: run it again",
            record.name
        );
    }
    let upper = containers.overlay(id).upper();
    let mut left_out = 0;
    let packed = |archive: &mut std::fs::File| {
        // Nobody removes it meanwhile.
        let Some(_locked) = containers.lock(id)? else {
            bail!("it was removed");
        };
        left_out = pack(&upper, archive)?;
        Ok(())
    };
    let config = config(&record);
    let image = containers
        .images()
        .commit(name, &record.layers, &config, packed);
    let image =
        image.with_context(|| format!("can't make an image of container {}", record.name))?;
    Ok(Committed { image, left_out })
}

/// How the container ran, for those to come.
fn config(record: &Record) -> ImageConfig {
    let spec = &record.spec;
    let entrypoint = spec.entrypoint.clone().unwrap_or_default();
    // In a record, the command begins with the entry point.
    let cmd = spec.command.strip_prefix(entrypoint.as_slice());
    ImageConfig {
        env: spec.env.clone(),
        cmd: cmd.unwrap_or(&spec.command).to_vec(),
        entrypoint,
        working_dir: spec.workdir().display().to_string(),
        user: spec.user.clone().unwrap_or_default(),
        ..record.image_config.clone()
    }
}
