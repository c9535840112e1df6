//! What an OCI runtime is told: `config.json`, written as plain JSON so that any runtime can read it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use serde_json::{Value, json};

use crate::{
    container::{Limits, NetworkMode, Record, cgroup},
    privilege,
    store::make_dir,
};

/// Docker's default: what of `/proc` and `/sys` tells about, or reaches, the host.
const MASKED_PATHS: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
];

const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Length of the kernel's accounting period for processor time, microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// Where a container's parts are on the host.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    /// Its mounted root filesystem.
    pub(crate) root: &'a Path,
    /// Its pinned network namespace; none to stay in the host's.
    pub(crate) netns: Option<&'a Path>,
    /// Files bound over the image's: path on the host, path inside.
    pub(crate) files: &'a [(PathBuf, PathBuf)],
}

/// Writes the bundle's `config.json` into the directory `bundle`.
pub(crate) fn write(bundle: &Path, record: &Record, places: &Places<'_>) -> anyhow::Result<()> {
    make_dir(bundle)?;
    let path = bundle.join("config.json");
    let text = serde_json::to_vec_pretty(&config(record, places)?)
        .context("can't write a runtime's config")?;
    fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))
}

fn config(record: &Record, places: &Places<'_>) -> anyhow::Result<Value> {
    let spec = &record.spec;
    let capabilities = privilege::names(privilege::IN_CONTAINERS);
    Ok(json!({
        "ociVersion": "1.0.2",
        "hostname": spec.hostname,
        "root": { "path": text(places.root)?, "readonly": false },
        "process": {
            "terminal": spec.terminal,
            "user": { "uid": 0, "gid": 0 },
            "args": spec.command,
            "env": env(record),
            "cwd": text(spec.workdir())?,
            // Inheritable and ambient stay empty: a program that gives up root keeps nothing.
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "noNewPrivileges": true,
        },
        "mounts": mounts(record, places)?,
        "linux": {
            "cgroupsPath": format!("/{}", cgroup::name(&record.id)),
            "namespaces": namespaces(places)?,
            "resources": resources(&spec.limits),
            "maskedPaths": MASKED_PATHS,
            "readonlyPaths": READONLY_PATHS,
            "sysctl": sysctls(spec.network),
        },
    }))
}

fn namespaces(places: &Places<'_>) -> anyhow::Result<Vec<Value>> {
    let mut namespaces: Vec<_> = ["pid", "mount", "uts", "ipc"]
        .into_iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    if let Some(netns) = places.netns {
        namespaces.push(json!({ "type": "network", "path": text(netns)? }));
    }
    Ok(namespaces)
}

/// As Docker has them: no privilege is needed for low ports and for ping in a namespace of one's own.
fn sysctls(network: NetworkMode) -> Value {
    match network {
        NetworkMode::Host => json!({}),
        NetworkMode::None | NetworkMode::Attached => json!({
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": "0 2147483647",
        }),
    }
}

fn resources(limits: &Limits) -> Value {
    // The runtime adds the devices that every container has (null, zero, tty, ...).
    let mut resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    if let Some(bytes) = limits.memory_bytes {
        resources["memory"] = json!({ "limit": bytes });
    }
    let mut cpu = json!({});
    if let Some(percent) = limits.cpu_percent {
        cpu["period"] = json!(CPU_PERIOD_US);
        cpu["quota"] = json!(CPU_PERIOD_US * u64::from(percent) / 100);
    }
    if let Some(cpuset) = &limits.cpuset {
        cpu["cpus"] = json!(cpuset);
    }
    resources["cpu"] = cpu;
    resources
}

fn mounts(record: &Record, places: &Places<'_>) -> anyhow::Result<Vec<Value>> {
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
        mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", "ro"],
        ),
    ];
    for volume in &record.spec.volumes {
        let options: &[&str] = if volume.read_only {
            &["rbind", "ro", "rro"]
        } else {
            &["rbind", "rw"]
        };
        mounts.push(mount(
            text(&volume.target)?,
            "bind",
            text(&volume.source)?,
            options,
        ));
    }
    for (source, target) in places.files {
        // A volume at the same place is what the user wants to see there.
        if record
            .spec
            .volumes
            .iter()
            .any(|volume| target.starts_with(&volume.target))
        {
            continue;
        }
        mounts.push(mount(text(target)?, "bind", text(source)?, &["bind", "rw"]));
    }
    Ok(mounts)
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

/// The user's variables replace ours, and a later one an earlier.
fn env(record: &Record) -> Vec<String> {
    let spec = &record.spec;
    let mut env = vec![PATH.to_owned(), "HOME=/root".to_owned()];
    env.extend(
        spec.hostname
            .iter()
            .map(|hostname| format!("HOSTNAME={hostname}")),
    );
    if spec.terminal {
        env.push("TERM=xterm".to_owned());
    }
    for variable in &spec.env {
        let key = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
        env.retain(|have| key(have) != key(variable));
        env.push(variable.clone());
    }
    env
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .ok_or_else(|| anyhow!("the path {} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::example;

    fn config_of(record: &Record) -> Value {
        let places = Places {
            root: Path::new("/merged"),
            netns: Some(Path::new("/run/netns/x")),
            files: &[("/b/hosts".into(), "/etc/hosts".into())],
        };
        config(record, &places).unwrap()
    }

    #[test]
    fn later_variables_win() {
        let mut record = example();
        record.spec.env = vec!["PATH=/x".into(), "A=1".into(), "A=2=3".into()];
        record.spec.hostname = Some("h".into());
        assert_eq!(
            env(&record),
            ["HOME=/root", "HOSTNAME=h", "PATH=/x", "A=2=3"]
        );
    }

    #[test]
    fn limits_become_resources() {
        let mut record = example();
        record.spec.limits = Limits {
            memory_bytes: Some(1 << 20),
            cpu_percent: Some(20),
            cpuset: Some("0".into()),
        };
        let resources = &config_of(&record)["linux"]["resources"];
        assert_eq!(resources["memory"]["limit"], 1 << 20);
        assert_eq!(
            resources["cpu"],
            json!({ "period": 100_000, "quota": 20_000, "cpus": "0" })
        );
    }

    #[test]
    fn a_volume_hides_our_file() {
        let mut record = example();
        let has_hosts = |record: &Record| {
            config_of(record)["mounts"]
                .as_array()
                .unwrap()
                .iter()
                .any(|m| m["destination"] == "/etc/hosts")
        };
        assert!(has_hosts(&record));
        record.spec.volumes = vec!["/tmp:/etc:ro".parse().unwrap()];
        assert!(!has_hosts(&record));
    }
}
