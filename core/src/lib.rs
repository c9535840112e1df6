//! The deciding half of mydocker: a request becomes a plan, a plan becomes a transaction.
//!
//! The kernel's network configuration, as far as it is ours, is an ordered set of [`Object`]s.
//! [`State`] says which set we want; the ordered difference of two sets is a [`Plan`]; every
//! feature is that one subtraction. Nothing in this crate meets a kernel, a file, a clock or a
//! random number: facts and ids come in as data, ops go out as data, and an [`Executor`]
//! somewhere else carries them out.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod adoption;
mod binding;
mod bitmap;
mod drift;
mod drive;
mod endpoint;
mod facts;
mod flush;
mod instance;
mod listener;
mod mac;
mod name;
mod network;
mod object;
mod op;
mod passage;
mod plan;
mod pool;
mod reachability;
mod rejection;
mod request;
mod ruleset;
mod snapshot;
mod state;
mod subnet;
mod transaction;
mod warning;

pub use adoption::{Adoption, Hearsay, Stray};
pub use binding::{PortBinding, PortSpec, PortSpecError, Protocol, hosts_overlap};
pub use drift::Drift;
pub use drive::{Executor, Recorder, drive};
pub use endpoint::{Endpoint, EndpointId};
pub use facts::{Facts, ForwardChain};
pub use instance::Instance;
pub use listener::{Listener, Process};
pub use mac::{Mac, MacError};
pub use name::{
    ContainerName, LinkName, NameError, Netns, NetworkName, NftName, Reason, check_name,
};
pub use network::{Driver, DriverError, GatewayMode, GatewayModeError, Network};
pub use object::{
    Address, Base, Bridge, Dnat, Family, Footprint, Forwarding, Guard, Hairpin, Isolated, Link,
    LinkSysctl, LooseEnd, Masquerade, Master, Move, Ns, Object, Pinhole, Route, Up, Veth, Zone,
};
pub use op::{ErrorKind, Op, OpError, OpResult};
pub use passage::{ForeignChain, ForeignForward, ForeignForwardError, Passage};
pub use plan::{Change, OnFailure, Plan, diff, standing_on};
pub use pool::{Pool, PoolError, Usage};
pub use reachability::{Arrival, Call, Callee, Caller, Grant, Neighbour, Source, Wall};
pub use rejection::{Holder, Rejection};
pub use request::{AttachSpec, NetworkSpec, Request, Setting, StaticRoute};
pub use ruleset::{
    Chain, Element, EtherType, Expression, Field, Hook, Icmpv6, Kind, Rule, Ruleset, Set, SetType,
    Table, TableFamily, Value, Verdict, objects_of,
};
pub use snapshot::{Damage, NetworkRecord, Snapshot};
pub use state::{BATCH_MAX, BRIDGE_PORTS_MAX, PORTS_MAX, State};
pub use subnet::{Subnet, SubnetError};
pub use transaction::{Entry, Failure, Outcome, Step, Transaction};
pub use warning::Warning;
