//! What is asked for when a container is run.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, bail};
use mydocker_core::ContainerName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// Program and arguments, or what follows the entry point; a shell if both are empty. In a record,
    /// all of it.
    pub command: Vec<String>,
    /// What goes before the command instead of the image's entry point; nothing, if it is empty.
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    /// Variables, `KEY=VALUE`, on top of `PATH`, `HOME`, `HOSTNAME` and, with a terminal, `TERM`.
    pub env: Vec<String>,
    /// Where the program starts, absolute; made if it is missing. By default where the image says, or `/`.
    pub workdir: Option<PathBuf>,
    /// Who runs it: `USER[:GROUP]`, by name or number. By default whom the image names, or root.
    #[serde(default)]
    pub user: Option<String>,
    /// Host name; the id if none is given.
    pub hostname: Option<String>,
    /// Host directories or files seen inside.
    pub volumes: Vec<Volume>,
    /// What it may use.
    pub limits: Limits,
    /// Whether it gets a terminal of its own (`-t`).
    pub terminal: bool,
    /// Whether it reads what we read (`-i`).
    pub interactive: bool,
    /// Whether it outlives the command that starts it (`-d`): its output goes to a log.
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
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// Its own, with loopback only.
    None,
    /// The host's.
    Host,
    /// Its own, attached by a [`Network`](super::Network).
    Attached,
}

/// A host directory or file seen inside: `HOST:CONTAINER[:ro]`.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Volume {
    /// Absolute path on the host; a directory is made if nothing is there.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: PathBuf,
    /// Whether it can't be written to from inside.
    pub read_only: bool,
}

/// What a container may use; nothing set is no limit.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
pub struct Limits {
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time, percent of one processor.
    pub cpu_percent: Option<u32>,
    /// Processors, as `0-2,4`.
    pub cpuset: Option<String>,
}

impl Spec {
    /// A container of `image` with nothing special asked for: foreground, no network but loopback.
    pub fn new(image: ImageName) -> Self {
        Self {
            name: None,
            image,
            command: Vec::new(),
            entrypoint: None,
            env: Vec::new(),
            workdir: None,
            user: None,
            hostname: None,
            volumes: Vec::new(),
            limits: Limits::default(),
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
        for (what, len) in [
            ("arguments", self.command.len()),
            ("variables", self.env.len()),
            ("volumes", self.volumes.len()),
        ] {
            if len > LIST_LEN_MAX {
                bail!("{len} {what} are more than {LIST_LEN_MAX}");
            }
        }
        if let Some(text) = self
            .command
            .iter()
            .chain(&self.env)
            .find(|text| text.contains('\0'))
        {
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
        for volume in &self.volumes {
            volume.check()?;
        }
        if self.detached && self.interactive && !self.terminal {
            bail!("a detached container has nobody to read from: leave out -i or -d");
        }
        self.limits.check()
    }
}

impl Volume {
    fn check(&self) -> anyhow::Result<()> {
        if !self.source.is_absolute() {
            bail!(
                "volume source `{}` is not an absolute path",
                self.source.display()
            );
        }
        check_container_path("volume target", &self.target)?;
        if self.target == Path::new("/") {
            bail!("volume target `/` would hide the image: name a directory below it");
        }
        Ok(())
    }
}

impl FromStr for Volume {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut parts = text.split(':');
        let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
            bail!("volume `{text}` is not HOST:CONTAINER[:ro]");
        };
        let read_only = match (parts.next(), parts.next()) {
            (None | Some("rw"), None) => false,
            (Some("ro"), None) => true,
            _ => bail!("volume `{text}` is not HOST:CONTAINER[:ro]"),
        };
        let volume = Self {
            source: source.into(),
            target: target.into(),
            read_only,
        };
        volume.check().with_context(|| format!("volume `{text}`"))?;
        Ok(volume)
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source.display(), self.target.display())?;
        if self.read_only {
            f.write_str(":ro")
        } else {
            Ok(())
        }
    }
}

impl Limits {
    /// Below this the kernel can't even start a program.
    const MEMORY_BYTES_MIN: u64 = 4 << 20;
    /// The kernel's shortest share is 1 ms of a period of 100 ms; its longest is bounded by our machines.
    const CPU_PERCENT_MAX: u32 = 100 * 1024;

    fn check(&self) -> anyhow::Result<()> {
        if let Some(bytes) = self.memory_bytes
            && !(Self::MEMORY_BYTES_MIN..=i64::MAX.cast_unsigned()).contains(&bytes)
        {
            bail!("a memory limit of {bytes} bytes is out of range: give 4m or more");
        }
        if let Some(percent) = self.cpu_percent
            && !(1..=Self::CPU_PERCENT_MAX).contains(&percent)
        {
            bail!(
                "a processor limit of {percent} % is out of range: give 1 to {}",
                Self::CPU_PERCENT_MAX
            );
        }
        if let Some(cpuset) = &self.cpuset {
            check_cpuset(cpuset)?;
        }
        Ok(())
    }
}

/// A memory size in bytes, as `100m`: bytes without a unit, else `b`, `k`, `m`, `g` (powers of 1024).
pub fn parse_memory(text: &str) -> anyhow::Result<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => bail!("memory size `{text}` has no unit of b, k, m or g"),
    };
    let count: u64 = digits
        .parse()
        .with_context(|| format!("memory size `{text}` is not like 100m"))?;
    count
        .checked_mul(unit)
        .with_context(|| format!("memory size `{text}` is too large"))
}

fn check_cpuset(text: &str) -> anyhow::Result<()> {
    let valid = |part: &str| match part.split_once('-') {
        Some((first, last)) => {
            matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(f), Ok(l)) if f <= l)
        }
        None => part.parse::<u16>().is_ok(),
    };
    if !text.split(',').all(valid) {
        bail!("processor list `{text}` is not like 0-2,4");
    }
    Ok(())
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

fn check_container_path(what: &str, path: &Path) -> anyhow::Result<()> {
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
    fn volumes() {
        let volume: Volume = "/a:/b:ro".parse().unwrap();
        assert_eq!(
            (volume.to_string().as_str(), volume.read_only),
            ("/a:/b:ro", true)
        );
        assert!(!"/a:/b".parse::<Volume>().unwrap().read_only);
        for bad in [
            "",
            "/a",
            "a:/b",
            "/a:b",
            "/a:/b:xx",
            "/a:/b:ro:ro",
            "/a:/../b",
            "/a:/",
            ":/b",
        ] {
            assert!(bad.parse::<Volume>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn memory_sizes() {
        for (text, bytes) in [
            ("100m", 100 << 20),
            ("1G", 1 << 30),
            ("4096", 4096),
            ("8kb", 8192),
        ] {
            assert_eq!(parse_memory(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "m", "-1", "1.5g", "1x", "99999999999g", "1 m"] {
            assert!(parse_memory(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_first() {
        let spec = |change: &dyn Fn(&mut Spec)| {
            let mut spec = Spec::new("box".parse().unwrap());
            change(&mut spec);
            spec.check()
        };
        assert!(spec(&|_| ()).is_ok());
        let bad: [&dyn Fn(&mut Spec); 10] = [
            &|s| s.env = vec!["NOVALUE".into()],
            &|s| s.env = vec!["=x".into()],
            &|s| s.command = vec!["a\0".into()],
            &|s| s.command = vec![String::new()],
            &|s| s.workdir = Some("tmp".into()),
            &|s| s.workdir = Some("/a/../..".into()),
            &|s| s.hostname = Some("a b".into()),
            &|s| s.limits.cpu_percent = Some(0),
            &|s| s.limits.cpuset = Some("1-".into()),
            &|s| s.limits.memory_bytes = Some(1),
        ];
        for (index, change) in bad.iter().enumerate() {
            assert!(spec(change).is_err(), "case {index}");
        }
    }
}
