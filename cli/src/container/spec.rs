//! What is asked for when a container is run.

use std::path::{Component, Path, PathBuf};

use anyhow::bail;
use mydocker_core::ContainerName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{confinement::Confinement, id::Id, limits::Limits, names::Names, user, volume::Volume};
use crate::image::ImageName;

/// Most volumes, variables or arguments of one container.
const LIST_LEN_MAX: usize = 4096;
/// Longest host name the kernel takes, bytes.
const HOSTNAME_BYTES_MAX: usize = 64;

/// A container as it is asked for: everything but where it is kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Spec {
    /// Its name; its id if none is given.
    pub name: Option<ContainerName>,
    /// The image it starts from.
    pub image: ImageName,
    /// What goes before the command instead of the image's entry point; nothing, if it is empty.
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    /// Program and arguments, or what follows the entry point; a shell if both are empty. In a record,
    /// all of it.
    pub command: Vec<String>,
    /// Variables, `KEY=VALUE`, on top of `PATH`, `HOME`, `HOSTNAME` and, with a terminal, `TERM`.
    pub env: Vec<String>,
    /// Where the program starts, absolute; made if it is missing. By default where the image says, or `/`.
    pub workdir: Option<PathBuf>,
    /// Who runs it: `USER[:GROUP]`, by name or number. By default whom the image names, or root.
    #[serde(default)]
    pub user: Option<String>,
    /// Host name; the id if none is given.
    pub hostname: Option<String>,
    /// Which names it knows beside its own.
    #[serde(default)]
    pub names: Names,
    /// Host directories or files seen inside.
    pub volumes: Vec<Volume>,
    /// What it may use.
    pub limits: Limits,
    /// What it may do.
    #[serde(default)]
    pub confinement: Confinement,
    /// The OCI runtime that makes it, an absolute path, instead of the embedded one.
    #[serde(default)]
    pub runtime: Option<PathBuf>,
    /// Whether it gets a terminal of its own (`-t`).
    pub terminal: bool,
    /// Whether it reads what we read (`-i`); nothing comes, and no end either, while it is in the background.
    pub interactive: bool,
    /// Whether it was to outlive the command that ran it (`-d`): its output goes to a log.
    pub detached: bool,
    /// Whether every trace of it goes when it ends.
    pub auto_remove: bool,
    /// Which network namespace it lives in.
    pub network: NetworkMode,
    /// Names of the networks it joins, for listings.
    pub networks: Vec<String>,
    /// How it joins them: kept for, and only understood by, the [`Network`](super::Network) that is made from it.
    pub attachments: Value,
}

/// Which network namespace a container lives in.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// Its own, with loopback only.
    None,
    /// The host's.
    Host,
    /// Its own, attached by a [`Network`](super::Network).
    Attached,
    /// That of another container, which runs.
    Container(Id),
}

impl Spec {
    /// A container of `image` with nothing special asked for: foreground, no network but loopback.
    pub fn new(image: ImageName) -> Self {
        Self {
            name: None,
            image,
            entrypoint: None,
            command: Vec::new(),
            env: Vec::new(),
            workdir: None,
            user: None,
            hostname: None,
            names: Names::default(),
            volumes: Vec::new(),
            limits: Limits::default(),
            confinement: Confinement::default(),
            runtime: None,
            terminal: false,
            interactive: false,
            detached: false,
            auto_remove: false,
            network: NetworkMode::None,
            networks: Vec::new(),
            attachments: Value::Null,
        }
    }

    /// Where the program starts.
    pub(crate) fn workdir(&self) -> &Path {
        self.workdir.as_deref().unwrap_or(Path::new("/"))
    }

    /// Says what is wrong with it, before anything is done.
    pub fn check(&self) -> anyhow::Result<()> {
        let entrypoint = self.entrypoint.iter().flatten();
        for (what, len) in [
            ("arguments", self.command.len() + entrypoint.clone().count()),
            ("variables", self.env.len()),
            ("volumes", self.volumes.len()),
        ] {
            if len > LIST_LEN_MAX {
                bail!("{len} {what} are more than {LIST_LEN_MAX}");
            }
        }
        let mut texts = self.command.iter().chain(&self.env).chain(entrypoint);
        if let Some(text) = texts.find(|text| text.contains('\0')) {
            bail!("{text:?} contains a NUL byte");
        }
        if self.command.first().is_some_and(String::is_empty) {
            bail!("the command is empty");
        }
        for variable in &self.env {
            if variable.find('=').is_none_or(|at| at == 0) {
                bail!("variable `{variable}` is not KEY=VALUE");
            }
        }
        check_container_path("working directory", self.workdir())?;
        if let Some(hostname) = &self.hostname {
            check_hostname(hostname)?;
        }
        if let Some(user) = &self.user {
            user::check(user)?;
        }
        self.names.check()?;
        for volume in &self.volumes {
            volume.check()?;
        }
        if let Some(runtime) = self.runtime.as_ref().filter(|path| !path.is_absolute()) {
            bail!("runtime `{}` is not an absolute path", runtime.display());
        }

        self.limits.check()
    }
}

fn check_hostname(text: &str) -> anyhow::Result<()> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if text.is_empty() || text.len() > HOSTNAME_BYTES_MAX || !text.chars().all(valid) {
        bail!(
            "host name `{text}` is not 1 to {HOSTNAME_BYTES_MAX} letters, digits, dots and dashes"
        );
    }
    Ok(())
}

pub(crate) fn check_container_path(what: &str, path: &Path) -> anyhow::Result<()> {
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        bail!(
            "{what} `{}` is not an absolute path without `..`",
            path.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_first() {
        let spec = |change: &dyn Fn(&mut Spec)| {
            let mut spec = Spec::new("box".parse().unwrap());
            change(&mut spec);
            spec.check()
        };
        assert!(spec(&|_| ()).is_ok());
        let bad: [&dyn Fn(&mut Spec); 15] = [
            &|s| s.env = vec!["NOVALUE".into()],
            &|s| s.env = vec!["=x".into()],
            &|s| s.command = vec!["a\0".into()],
            &|s| s.command = vec![String::new()],
            &|s| s.workdir = Some("tmp".into()),
            &|s| s.workdir = Some("/a/../..".into()),
            &|s| s.hostname = Some("a b".into()),
            &|s| s.entrypoint = Some(vec!["a\0".into()]),
            &|s| s.user = Some(":".into()),
            &|s| s.names.search = vec!["a b".into()],
            &|s| s.runtime = Some("runc".into()),
            &|s| s.limits.pids_max = Some(0),
            &|s| s.limits.cpu_percent = Some(0.0),
            &|s| s.limits.cpuset = Some("1-".into()),
            &|s| s.limits.memory_bytes = Some(1),
        ];
        for (index, change) in bad.iter().enumerate() {
            assert!(spec(change).is_err(), "case {index}");
        }
    }
}
