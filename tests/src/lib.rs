//! Test support: a host in a namespace, a host in miniature, and short words for requests; and what the
//! benchmarks have in common.

pub mod bench;
mod dock;
mod host;
mod idle;
pub mod listing;
mod mounts;
mod pty;
pub mod requests;
mod scenario;
mod site;
pub mod tracer;
mod traffic;
mod trial;
mod world;

pub use dock::{Dock, eventually};
pub use host::{Host, binary, is_root};
pub use idle::Idle;
pub use mounts::{in_memory, own_mounts};
pub use pty::Terminal;
pub use scenario::{Scenario, Step};
pub use site::{Dual, Site};
pub use traffic::{Answer, Call, Question, Server, Transport, icmpv6, sctp};
pub use trial::{Attempt, Trial};
pub use world::{
    Journal, Torn, World, attach, create, detach, netns, publish, remove, story, unpublish, word,
};
