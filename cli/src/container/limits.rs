//! What a container may use.

use std::{collections::BTreeSet, fs, ops::RangeInclusive, str::FromStr};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// What a container may use; nothing set is no limit.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Limits {
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time, percent of one processor; fractions count.
    pub cpu_percent: Option<f64>,
    /// Share of processor time where there is not enough for all, relative to the others' (1024 by default).
    #[serde(default)]
    pub cpu_shares: Option<u64>,
    /// Processors, as `0-2,4`.
    pub cpuset: Option<String>,
    /// Most processes and threads at a time.
    #[serde(default)]
    pub pids_max: Option<u32>,
    /// What a single process may use (setrlimit(2)).
    #[serde(default)]
    pub ulimits: Vec<Ulimit>,
}

/// A limit of each process: `NAME=SOFT[:HARD]`.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Ulimit {
    /// As in setrlimit(2) without `RLIMIT_`, in lower case.
    pub name: String,
    /// What holds until the process raises it; `u64::MAX` is no limit.
    pub soft: u64,
    /// As far as it may raise it.
    pub hard: u64,
}

impl Limits {
    /// Below this the kernel can't even start a program.
    const MEMORY_BYTES_MIN: u64 = 4 << 20;
    /// The kernel's shortest share is 1 ms of a period of 100 ms; its longest is bounded by our machines.
    const CPU_PERCENT_MAX: u32 = 100 * 1024;
    /// What the kernel takes.
    const CPU_SHARES_MIN: u64 = 2;
    const CPU_SHARES_MAX: u64 = 262_144;
    /// Most processes that a kernel can have (PID_MAX_LIMIT).
    const PIDS_MAX: u32 = 1 << 22;

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if let Some(bytes) = self.memory_bytes
            && !(Self::MEMORY_BYTES_MIN..=i64::MAX.cast_unsigned()).contains(&bytes)
        {
            bail!("a memory limit of {bytes} bytes is out of range: give 4m or more");
        }
        if let Some(percent) = self.cpu_percent
            && !(1.0..=f64::from(Self::CPU_PERCENT_MAX)).contains(&percent)
        {
            bail!(
                "a processor limit of {percent} % is out of range: give 1 to {} %, which is 0.01 to {} \
                 processors",
                Self::CPU_PERCENT_MAX,
                Self::CPU_PERCENT_MAX / 100
            );
        }
        if let Some(shares) = self.cpu_shares
            && !(Self::CPU_SHARES_MIN..=Self::CPU_SHARES_MAX).contains(&shares)
        {
            bail!(
                "processor shares of {shares} are out of range: give {} to {}",
                Self::CPU_SHARES_MIN,
                Self::CPU_SHARES_MAX
            );
        }
        if let Some(pids) = self.pids_max
            && !(1..=Self::PIDS_MAX).contains(&pids)
        {
            bail!(
                "a limit of {pids} processes is out of range: give 1 to {}, or -1 for no limit",
                Self::PIDS_MAX
            );
        }
        let mut names = BTreeSet::new();
        for ulimit in &self.ulimits {
            ulimit.check()?;
            if !names.insert(&ulimit.name) {
                bail!("ulimit `{}` is given twice", ulimit.name);
            }
        }
        if let Some(cpuset) = &self.cpuset {
            check_cpuset(cpuset)?;
        }
        Ok(())
    }
}

impl Ulimit {
    /// Those that OCI runtimes know.
    const NAMES: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];

    fn check(&self) -> anyhow::Result<()> {
        if !Self::NAMES.contains(&self.name.as_str()) {
            bail!(
                "`{}` is no ulimit: give one of {}",
                self.name,
                Self::NAMES.join(", ")
            );
        }
        if self.soft > self.hard {
            bail!(
                "ulimit `{}` has a soft limit of {} above its hard limit of {}",
                self.name,
                self.soft,
                self.hard
            );
        }
        Ok(())
    }
}

impl FromStr for Ulimit {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let what = || format!("ulimit `{text}` is not NAME=SOFT[:HARD]");
        let (name, values) = text.split_once('=').with_context(what)?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let value = |text: &str| match text {
            "-1" | "unlimited" => Ok(u64::MAX),
            number => number.parse().with_context(what),
        };
        let ulimit = Self {
            name: name.to_owned(),
            soft: value(soft)?,
            hard: value(hard)?,
        };
        ulimit.check()?;
        Ok(ulimit)
    }
}

impl Limits {
    /// Refuses processors that this machine has not: the kernel would say less.
    pub(crate) fn check_here(&self) -> anyhow::Result<()> {
        let Some(cpuset) = &self.cpuset else {
            return Ok(());
        };
        let path = "/sys/devices/system/cpu/online";
        let online = fs::read_to_string(path).with_context(|| format!("can't read {path}"))?;
        check_online(cpuset, online.trim())
    }
}

fn check_online(cpuset: &str, online: &str) -> anyhow::Result<()> {
    let has =
        |cpu: u16| parse_cpuset(online).is_some_and(|all| all.iter().any(|r| r.contains(&cpu)));
    let mut asked = parse_cpuset(cpuset).into_iter().flatten().flatten();
    if let Some(missing) = asked.find(|cpu| !has(*cpu)) {
        bail!("there is no processor {missing} to run on: this machine has {online}");
    }
    Ok(())
}

/// A number of processors, as `1.5`, in percent of one.
pub fn parse_cpus(text: &str) -> anyhow::Result<f64> {
    let cpus: f64 = text
        .parse()
        .with_context(|| format!("a number of processors of `{text}` is not like 1.5"))?;
    Ok(cpus * 100.0)
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
    if parse_cpuset(text).is_none() {
        bail!("processor list `{text}` is not like 0-2,4");
    }
    Ok(())
}

/// The processors of a list, as ranges.
fn parse_cpuset(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = first.parse().ok()?..=last.parse().ok()?;
        (!range.is_empty()).then_some(range)
    };
    text.split(',').map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn processors_are_those_of_this_machine() {
        for (cpuset, there) in [
            ("0", true),
            ("0-2,5", true),
            ("4", false),
            ("0-65535", false),
        ] {
            assert_eq!(check_online(cpuset, "0-3,5").is_ok(), there, "{cpuset}");
        }
        let said = check_online("2,9", "0-3").unwrap_err().to_string();
        assert!(
            said.contains("processor 9") && said.contains("0-3"),
            "{said}"
        );
        for bad in ["", "1-", "2-1", "a", "0,,1", "65536"] {
            assert!(parse_cpuset(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn processors_are_percent() {
        for (text, percent) in [("1.5", 150.0), ("0.01", 1.0), ("2", 200.0)] {
            assert!((parse_cpus(text).unwrap() - percent).abs() < 1e-9, "{text}");
        }
        assert!(parse_cpus("").is_err() && parse_cpus("1,5").is_err());
        let with = |cpu_percent| Limits {
            cpu_percent: Some(cpu_percent),
            ..Limits::default()
        };
        with(1.0).check().unwrap();
        for bad in [0.0, -100.0, 0.99, f64::NAN, f64::INFINITY, 1e9] {
            assert!(with(bad).check().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_record_of_before_there_were_fractions_is_read() {
        let text = r#"{"memory_bytes":null,"cpu_percent":20,"cpuset":null}"#;
        let limits: Limits = serde_json::from_str(text).unwrap();
        assert_eq!(limits.cpu_percent, Some(20.0));
    }

    #[test]
    fn ulimits() {
        let ulimit: Ulimit = "nofile=64:-1".parse().unwrap();
        assert_eq!((ulimit.soft, ulimit.hard), (64, u64::MAX));
        assert_eq!("core=0".parse::<Ulimit>().unwrap().hard, 0);
        for bad in [
            "",
            "nofile",
            "files=1",
            "nofile=2:1",
            "nofile=x",
            "nofile=-2",
            "nofile=1:2:3",
        ] {
            assert!(bad.parse::<Ulimit>().is_err(), "{bad:?}");
        }
        let twice = Limits {
            ulimits: vec![ulimit.clone(), ulimit],
            ..Limits::default()
        };
        assert!(twice.check().is_err());
    }
}
