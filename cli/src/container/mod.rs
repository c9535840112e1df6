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
//!   a process with a single thread. It leads a session of its own, so it survives the terminal. It
//!   restarts nothing: [`start()`] makes another one.
//! - Another program in a container ([`exec()`]) has such a helper, too, which dies with its command, or,
//!   in the background, ends at once.
//! - A container in the foreground is tied to its command: signals are passed on, and if the command is
//!   killed the supervisor stops the container and takes it down.
//! - The first process dies with its supervisor (`PR_SET_PDEATHSIG`). If the supervisor is killed, what
//!   is left is found by [`Record::is_abandoned`] and taken down by the next [`stop`], [`remove`] or
//!   [`tidy`]; so is what was running when the machine stopped. A program that starts as another user is tied
//!   all the same; one that changes its user later sheds that tie (the kernel's rule), and one that another
//!   runtime started never had it. They run on alone: still listed as running, and [`stop`] and
//!   [`remove`] find them by recorded number and start time, and kill them.
//! - What changes a container holds the lock in its directory, so two removals and a supervisor never meet.
//! - A record that can't be read is named, and the other containers are usable. What is taken down goes by
//!   the id alone, so that [`remove`] by force gets rid of such a container, too.

mod bring_up;
mod capabilities;
mod cgroup;
mod commit;
mod confinement;
mod control;
mod defaults;
mod env;
mod exec;
mod files;
mod foreground;
mod helper;
mod id;
mod limits;
mod log;
mod log_reader;
mod names;
mod netns;
mod network;
mod overlay;
mod process;
mod record;
mod rename;
mod run;
mod runtime;
mod seccomp;
mod slim;
mod spec;
mod start;
mod stats;
mod stop;
mod store;
mod supervisor;
mod teardown;
mod user;
mod volume;
mod wait;
mod watch;

pub use capabilities::{Capabilities, Capability};
pub use commit::{Committed, commit};
pub use confinement::Confinement;
pub use env::variables;
pub use exec::{Exec, Executed, exec};
pub use id::Id;
pub use limits::{Limits, Ulimit, parse_cpus, parse_memory};
pub use log::{LogLine, Stream};
pub use log_reader::{LogReader, LogWatch, read_log};
pub use names::{ExtraHost, Names, check_name};
pub use network::{Attached, Network, NetworkFactory};
pub use process::Process;
pub use record::{Record, Status};
pub use rename::rename;
pub use run::{Started, run};
pub use runtime::{Failure, find as find_runtime};
pub use seccomp::{Profile, Seccomp};
pub use spec::{NetworkMode, Spec};
pub use start::{Attach, restart, start};
pub use stats::{Traffic, Usage};
pub use stop::{kill, remove, stop, tidy};
pub use store::{Containers, Damaged, Listing};
pub use supervisor::reexec;
pub use volume::Volume;
pub use wait::wait;
