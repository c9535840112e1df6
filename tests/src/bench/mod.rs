//! What the programs of `make bench` have in common.

mod caller;
mod cni;
mod contender;
mod cost;
mod ideal;
mod netavark;
mod ours;
mod plot;
mod rates;

pub use caller::Caller;
pub use cni::Cni;
pub use contender::{Container, Contender, run};
pub use cost::{Cost, Median};
pub use ideal::ideal;
pub use netavark::Netavark;
pub use ours::{Floor, Mydocker, Script};
pub use plot::{Line, plot};
pub use rates::{Rates, Ratios, Typical};
