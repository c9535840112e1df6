//! Images: plain root filesystem archives, unpacked once and shared read-only.
//!
//! An image is `<root>/image/NAME.tar` (tar or tar.gz), placed by hand. Each version of it becomes
//! one layer directory below `<root>/image/layers/NAME/`, the lower half of every container's overlay.

mod layer;
mod name;
mod unpack;

pub use layer::{Images, Layer, LayerId};
pub use name::ImageName;
pub use unpack::{Unpacked, unpack};
