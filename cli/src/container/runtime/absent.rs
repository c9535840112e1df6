//! In place of a runtime, when mydocker is built without one.

use std::{os::fd::OwnedFd, path::Path};

use anyhow::bail;

use super::Stdio;
use crate::container::Id;

/// Never made.
#[derive(Debug)]
pub(crate) enum Created {}

impl Created {
    /// Never called.
    pub(crate) fn pid(&self) -> i32 {
        match *self {}
    }

    /// Never called.
    pub(crate) fn start(self) -> anyhow::Result<()> {
        match self {}
    }
}

/// Refuses.
pub(crate) fn check() -> anyhow::Result<()> {
    bail!("this mydocker is built without containers: build it with the feature `containers`")
}

/// Refuses.
pub(crate) fn create(
    _id: &Id,
    _bundle: &Path,
    _state_root: &Path,
    _stdio: Stdio,
) -> anyhow::Result<(Created, Option<OwnedFd>)> {
    check()?;
    bail!("there is no runtime")
}

/// Refuses.
pub(crate) fn exec(
    _id: &Id,
    _bundle: &Path,
    _state_root: &Path,
    _request: &Path,
    _stdio: Stdio,
    _tied: bool,
) -> anyhow::Result<(i32, Option<OwnedFd>)> {
    check()?;
    bail!("there is no runtime")
}
