//! Who carries plans out: the kernel of this host, or a log over a model of it.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use mydocker::store::Roots;
use mydocker_core::{
    Executor, Facts, Footprint, Instance, Listener, Netns, Op, OpError, OpResult, PortBinding,
    Protocol, State,
};
use mydocker_exec_dryrun::{Kernel, Recorder};
use mydocker_exec_netlink::NetlinkExecutor;

use crate::args;
use crate::errand::Processes;
use crate::failure::Failure;

/// The executor that the command line names.
pub(crate) enum Backend {
    /// The kernel of this host.
    Netlink(Box<NetlinkExecutor>),
    /// A model that remembers nothing between commands, and a log that does.
    Record(Box<Recorder<Assumed, Log>>),
}

impl Backend {
    pub(crate) fn open(
        backend: args::Backend,
        roots: &Roots,
        instance: Instance,
    ) -> Result<Self, Failure> {
        Ok(match backend {
            args::Backend::Netlink => {
                let opened = NetlinkExecutor::open(instance);
                let executor = opened.map_err(Failure::no_netlink)?;
                Self::Netlink(Box::new(executor.with_runner(Box::new(Processes))))
            }
            args::Backend::Record => {
                let log = Log {
                    path: roots.run_root.join("network/record.log"),
                    file: None,
                };
                Self::Record(Box::new(Recorder::new(Assumed::default(), log)))
            }
        })
    }

    /// Makes sure that what was recorded is in the log.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Self::Netlink(_) => Ok(()),
            Self::Record(recorder) => recorder.finish().map(|_| ()),
        }
    }

    fn inner(&mut self) -> &mut dyn Executor {
        match self {
            Self::Netlink(netlink) => netlink.as_mut(),
            Self::Record(recorder) => recorder.as_mut(),
        }
    }
}

impl Executor for Backend {
    fn attend(&mut self, state: &State) {
        self.inner().attend(state);
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<OpResult> {
        self.inner().apply(ops)
    }

    fn hurry(&mut self) {
        self.inner().hurry();
    }

    fn observe(&mut self, wanted: &Footprint) -> Result<Footprint, OpError> {
        self.inner().observe(wanted)
    }

    fn facts(&mut self) -> Result<Facts, OpError> {
        self.inner().facts()
    }

    fn listeners(&mut self, wanted: &[PortBinding]) -> Result<Vec<Listener>, OpError> {
        self.inner().listeners(wanted)
    }

    fn is_alive(&mut self, netns: &Netns) -> bool {
        self.inner().is_alive(netns)
    }

    fn namespaces(&mut self) -> Result<BTreeSet<Netns>, OpError> {
        self.inner().namespaces()
    }

    fn lacks(&mut self, protocol: Protocol) -> Option<&'static str> {
        self.inner().lacks(protocol)
    }
}

/// A model kernel that holds what the state says it does, and has every namespace.
pub(crate) struct Assumed(Kernel);

impl Default for Assumed {
    fn default() -> Self {
        Self(Kernel::new().any_namespace())
    }
}

impl Executor for Assumed {
    fn attend(&mut self, state: &State) {
        self.0 = Kernel::from_footprint(state.footprint()).any_namespace();
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<OpResult> {
        self.0.apply(ops)
    }

    fn observe(&mut self, wanted: &Footprint) -> Result<Footprint, OpError> {
        self.0.observe(wanted)
    }

    fn facts(&mut self) -> Result<Facts, OpError> {
        self.0.facts()
    }

    fn listeners(&mut self, wanted: &[PortBinding]) -> Result<Vec<Listener>, OpError> {
        self.0.listeners(wanted)
    }

    fn is_alive(&mut self, netns: &Netns) -> bool {
        self.0.is_alive(netns)
    }

    fn namespaces(&mut self) -> Result<BTreeSet<Netns>, OpError> {
        self.0.namespaces()
    }
}

/// A file that is there once something was written to it.
pub(crate) struct Log {
    path: PathBuf,
    file: Option<File>,
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&self.path)?,
        };
        let written = file.write(bytes);
        self.file = Some(file);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), File::flush)
    }
}
