//! What the programs of `make bench` have in common.

mod cost;
mod plot;

pub use cost::{Cost, Median};
pub use plot::{Line, plot};
