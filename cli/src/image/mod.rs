//! Images: layers that are unpacked once and shared read-only, and how containers run on them.
//!
//! ```text
//! <root>/image/NAME.tar             an archive placed by hand, which is imported when it is first used
//! <root>/image/manifests/NAME.json  an image: its layers, and its configuration
//! <root>/image/layers/sha256/HEX/   a layer, the lower part of every overlay that has it
//! <root>/image/staging/             what is being made: empty unless somebody makes something
//! ```
//!
//! - An archive is a root filesystem, or has layers as `docker save` and OCI have them ([`Images::import`]).
//! - A layer is unpacked in the staging and renamed, and a manifest comes after its layers: what is found
//!   is whole. Whatever a killed process left is removed by the next that changes images, or removes a
//!   container.
//! - Digests are those of OCI: a layer's is that of its uncompressed archive, an image's that of its
//!   configuration. All of them are looked at when an archive is imported.
//! - The table's lock is held for moments, also while a container is recorded that stands on an image; the
//!   staging's for as long as it takes to unpack.

mod config;
mod decompress;
mod digest;
mod headers;
mod images;
mod import;
mod layer;
mod manifest;
mod members;
mod name;
mod pack;
mod progress;
mod removal;
mod saved;
mod staging;
#[cfg(test)]
mod tests;
mod unpack;
mod whiteout;

pub use config::{Empty, ImageConfig};
pub use digest::Digest;
pub use images::{DamagedImage, HeldImage, ImageArchive, ImageListing, Images};
pub use layer::{Layer, LegacyLayer};
pub use manifest::Image;
#[cfg(test)]
pub(crate) use manifest::example;
pub use name::{ImageName, ImageNameError};
pub(crate) use pack::pack;
pub use removal::{User, Users};
