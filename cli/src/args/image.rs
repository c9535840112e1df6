//! The arguments of `mydocker image …` and `mydocker commit`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use mydocker::image::ImageName;

use super::Format;

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Make images of an archive: a root filesystem, what `docker save` writes, or an OCI layout
    #[command(visible_alias = "load")]
    Import(Import),
    /// List images
    #[command(visible_alias = "list")]
    Ls(ListImages),
    /// Remove images that no container stands on
    #[command(visible_alias = "remove")]
    Rm(RemoveImages),
    /// Show images as JSON: id, layers and how containers run on them
    Inspect(InspectImages),
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// A tar archive, plain or compressed with gzip or zstd; `-` for standard input
    pub(crate) file: PathBuf,
    /// What to call it; by default as the archive says, or else like the file
    pub(crate) name: Option<ImageName>,
}

#[derive(Debug, Args)]
pub(crate) struct ListImages {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Print ids only
    #[arg(long, short, conflicts_with = "format")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveImages {
    /// Also the last name of an image that containers stand on (they keep its layers), and all names
    /// of an id
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Names, ids or unique prefixes of ids
    #[arg(required = true)]
    pub(crate) image: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectImages {
    /// Names, ids or unique prefixes of ids
    #[arg(required = true)]
    pub(crate) image: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Commit {
    /// A name, id or unique prefix of an id
    pub(crate) container: String,
    /// What to call the image
    pub(crate) image: ImageName,
}
