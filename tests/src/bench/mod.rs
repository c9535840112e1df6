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
mod stand;

pub use caller::Caller;
pub use cni::Cni;
pub use contender::{Container, Contender, run};
pub use cost::{Cost, Median};
pub use ideal::ideal;
pub use netavark::Netavark;
pub use ours::{FLOOR_TABLE, Floor, Mydocker, Script};
pub use plot::{Line, plot};
pub use rates::{Rates, Ratios, Typical};
pub use stand::{Stand, keep, numbers, settle, timed};
