//! What the programs of `make bench` have in common.

mod cni;
mod contender;
mod cost;
mod netavark;
mod ours;
mod plot;

pub use cni::Cni;
pub use contender::{Container, Contender, run};
pub use cost::{Cost, Median};
pub use netavark::Netavark;
pub use ours::{Floor, Mydocker, Script};
pub use plot::{Line, plot};
