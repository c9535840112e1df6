//! Containers: run, watched over, stopped and removed, without a daemon.
//!
//! Every container has one supervisor, a process of ours that is the parent of the container's first
//! process, waits for it, and takes everything down when it ends:
//!
//! ```text
//! mydocker run ──spawns──▶ supervisor ──clones──▶ first process (pid 1 inside)
//!      ▲      control line      │
//!      └── Running / Failed / Exited
//! ```
//!
//! - The supervisor is this program, re-executed ([`reexec`]), because the runtime may clone only from
//!   a process with a single thread. It leads a session of its own, so it survives the terminal.
//! - A container in the foreground is tied to its command: signals are passed on, and if the command is
//!   killed the supervisor stops the container and takes it down.
//! - The first process dies with its supervisor (`PR_SET_PDEATHSIG`). If the supervisor is killed, what
//!   is left is found by [`Record::is_abandoned`] and taken down by the next [`stop`], [`remove`] or
//!   [`tidy`]; so is what was running when the machine stopped. A program that changes its user sheds that
//!   tie (the kernel's rule) and runs on alone: it is still listed as running, and [`stop`] and
//!   [`remove`] find it by its recorded number and start time, and kill it.
//! - What changes a container holds the lock in its directory, so two removals and a supervisor never meet.
//! - A record that can't be read is named, and the other containers are usable. What is taken down goes by
//!   the id alone, so that [`remove`] by force gets rid of such a container, too.

mod bring_up;
mod cgroup;
mod commit;
mod control;
mod defaults;
mod files;
mod foreground;
mod id;
mod log;
mod netns;
mod network;
mod overlay;
mod process;
mod record;
mod run;
mod runtime;
mod spec;
mod stop;
mod store;
mod supervisor;
mod teardown;
mod watch;

pub use commit::{Committed, commit};
pub use id::Id;
pub use log::{LogLine, Stream, read_log};
pub use network::{Attached, Network, NetworkFactory};
pub use process::Process;
pub use record::{Record, Status};
pub use run::{Started, run};
pub use runtime::Failure;
pub use spec::{Limits, NetworkMode, Spec, Volume, parse_memory};
pub use stop::{remove, stop, tidy};
pub use store::{Containers, Damaged, Listing};
pub use supervisor::reexec;
