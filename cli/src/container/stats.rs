//! What a running container uses: processor time, memory, processes, network.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use serde::Serialize;

use super::{cgroup, id::Id, record::Record, spec::NetworkMode};

/// What a container has used until one moment.
#[derive(Clone, Debug)]
pub struct Usage {
    at: Instant,
    cpu_ns: u64,
    /// Memory in use, bytes, without what the kernel caches of files and could drop at once.
    pub memory_bytes: u64,
    /// Memory it may use, bytes: its limit, or all that the host has.
    pub memory_max_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// What came and went, by interface; nothing for one that lives in the host's network.
    pub network: Vec<Traffic>,
}

/// What has passed an interface, as seen from inside.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Traffic {
    /// The interface's name inside.
    pub interface: String,
    /// What came in, bytes.
    pub received_bytes: u64,
    /// What went out, bytes.
    pub sent_bytes: u64,
}

impl Usage {
    /// Looks now; none if the container does not run.
    pub fn of(record: &Record) -> anyhow::Result<Option<Self>> {
        let look = || -> anyhow::Result<Option<Self>> {
            let Some(pid) = record.pid() else {
                return Ok(None);
            };
            let at = Instant::now();
            let id = &record.id;
            let network = match record.spec.network {
                NetworkMode::Host => Vec::new(),
                NetworkMode::None | NetworkMode::Attached | NetworkMode::Container(_) => {
                    traffic(pid)?
                }
            };
            Ok(Some(Self {
                at,
                cpu_ns: cpu_ns(id)?,
                memory_bytes: memory_bytes(id)?,
                memory_max_bytes: memory_max_bytes(id)?,
                pids: pids(id)?,
                network,
            }))
        };
        match look() {
            // It ended while we looked.
            Err(_) if record.pid().is_none() => Ok(None),
            looked => {
                looked.with_context(|| format!("can't tell what container {} uses", record.name))
            }
        }
    }

    /// Processor time since an earlier look, percent of one processor.
    pub fn cpu_percent_since(&self, earlier: &Self) -> f64 {
        let used = Duration::from_nanos(self.cpu_ns.saturating_sub(earlier.cpu_ns));
        let passed = self.at.saturating_duration_since(earlier.at);
        if passed.is_zero() {
            return 0.0;
        }
        100.0 * used.as_secs_f64() / passed.as_secs_f64()
    }
}

fn cpu_ns(id: &Id) -> anyhow::Result<u64> {
    if let Some(text) = cgroup::read(id, "cpuacct.usage")? {
        return number(&text);
    }
    let text = file(id, "cpu.stat")?;
    Ok(field(&text, "usage_usec")?.saturating_mul(1000))
}

fn memory_bytes(id: &Id) -> anyhow::Result<u64> {
    let (used, inactive) = match cgroup::read(id, "memory.usage_in_bytes")? {
        Some(text) => (text, "total_inactive_file"),
        None => (file(id, "memory.current")?, "inactive_file"),
    };
    let dropped = field(&file(id, "memory.stat")?, inactive)?;
    Ok(number(&used)?.saturating_sub(dropped))
}

fn memory_max_bytes(id: &Id) -> anyhow::Result<u64> {
    let text = match cgroup::read(id, "memory.limit_in_bytes")? {
        Some(text) => text,
        None => file(id, "memory.max")?,
    };
    let host = host_memory_bytes()?;
    Ok(match text.trim() {
        "max" => host,
        // Version 1 says the highest number of pages for no limit.
        text => number(text)?.min(host),
    })
}

fn host_memory_bytes() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("can't read /proc/meminfo")?;
    let text = text.replace(':', " ");
    Ok(field(&text, "MemTotal")?.saturating_mul(1024))
}

fn pids(id: &Id) -> anyhow::Result<u64> {
    match cgroup::read(id, "pids.current")? {
        Some(text) => number(&text),
        // No such controller: then those that are counted are the processes without their threads.
        None => Ok(file(id, "cgroup.procs")?.lines().count() as u64),
    }
}

fn file(id: &Id, name: &str) -> anyhow::Result<String> {
    cgroup::read(id, name)?.with_context(|| format!("its cgroup has no {name}"))
}

fn number(text: &str) -> anyhow::Result<u64> {
    let text = text.trim();
    text.parse()
        .with_context(|| format!("`{text}` is no number"))
}

/// The number after a word at the beginning of a line.
fn field(text: &str, name: &str) -> anyhow::Result<u64> {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() == Some(name) {
            return number(words.next().unwrap_or_default());
        }
    }
    Err(anyhow!("there is no {name}"))
}

/// Of the interfaces in the namespace of a process, but for loopback: this file shows that one,
/// whoever reads it.
fn traffic(pid: i32) -> anyhow::Result<Vec<Traffic>> {
    let path = format!("/proc/{pid}/net/dev");
    let text = fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
    parse_dev(&text).with_context(|| format!("{path} is not as expected"))
}

fn parse_dev(text: &str) -> Option<Vec<Traffic>> {
    let mut all = Vec::new();
    // Two lines of titles come first.
    for line in text.lines().skip(2) {
        let (interface, counters) = line.split_once(':')?;
        let mut counters = counters.split_ascii_whitespace();
        let received_bytes = counters.next()?.parse().ok()?;
        let sent_bytes = counters.nth(7)?.parse().ok()?;
        if interface.trim() != "lo" {
            all.push(Traffic {
                interface: interface.trim().to_owned(),
                received_bytes,
                sent_bytes,
            });
        }
    }
    all.sort_by(|a, b| a.interface.cmp(&b.interface));
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_interfaces() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    \
            lo:  1 2 0 0 0 0 0 0  3 4 0 0 0 0 0 0\n  \
            eth1: 5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0\n  eth0:1000 6 0 0 0 0 0 0 2000 5 0 0 0 0 0 0\n";
        let traffic = parse_dev(text).unwrap();
        let brief: Vec<_> = traffic
            .iter()
            .map(|one| (one.interface.as_str(), one.received_bytes, one.sent_bytes))
            .collect();
        assert_eq!(brief, [("eth0", 1000, 2000), ("eth1", 5, 6)]);
        assert_eq!(parse_dev("a\nb\nnonsense\n"), None);
    }

    #[test]
    fn fields_and_numbers() {
        let text = "usage_usec 12\nuser_usec 7\n";
        assert_eq!(field(text, "user_usec").unwrap(), 7);
        assert!(field(text, "usage").is_err() && number("x").is_err());
        assert_eq!(number("12\n").unwrap(), 12);
        assert!(host_memory_bytes().unwrap() > 1 << 20);
    }

    #[test]
    fn processor_time_is_of_one_processor() {
        let usage = |ms: u64, cpu_ms: u64| Usage {
            at: Instant::now() + Duration::from_millis(ms),
            cpu_ns: cpu_ms * 1_000_000,
            memory_bytes: 0,
            memory_max_bytes: 0,
            pids: 0,
            network: Vec::new(),
        };
        let (first, second) = (usage(0, 0), usage(1000, 1500));
        let percent = second.cpu_percent_since(&first);
        assert!((149.0..151.0).contains(&percent), "{percent}");
        assert!(first.cpu_percent_since(&first).abs() < f64::EPSILON);
    }
}
