//! What an OCI runtime is told: `config.json`, written as plain JSON so that any runtime can read it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use rustix::thread::CapabilitySet;
use serde_json::{Value, json};

use super::resources::{resources, rlimits};
use crate::{
    container::{NetworkMode, Record, cgroup, seccomp::Reader, user::User},
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

/// Where a container's parts are on the host, and what its image says of its user.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    /// Its mounted root filesystem.
    pub(crate) root: &'a Path,
    /// Its network namespace; none to stay in the host's.
    pub(crate) netns: Option<&'a Path>,
    /// Files bound over the image's: path on the host, path inside.
    pub(crate) files: &'a [(PathBuf, PathBuf)],
    /// As whom its program runs.
    pub(crate) user: &'a User,
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
    let confinement = &spec.confinement;
    let capabilities = confinement.capabilities.resolve();
    let mut config = json!({
        "ociVersion": "1.0.2",
        "hostname": spec.hostname,
        "root": { "path": text(places.root)?, "readonly": confinement.read_only },
        "process": {
            "terminal": spec.terminal,
            "user": {
                "uid": places.user.uid,
                "gid": places.user.gid,
                "additionalGids": places.user.additional_gids,
            },
            "args": spec.command,
            "env": env(record, places.user),
            "cwd": text(spec.workdir())?,
            "capabilities": capability_sets(capabilities, places.user),
            "rlimits": rlimits(&spec.limits),
        },
        "mounts": mounts(record, places)?,
        "linux": {
            "cgroupsPath": format!("/{}", cgroup::name(&record.id)),
            "namespaces": namespaces(places)?,
            "resources": resources(&spec.limits),
            "maskedPaths": MASKED_PATHS,
            "readonlyPaths": READONLY_PATHS,
            "sysctl": sysctls(&spec.network),
        },
    });
    if confinement.no_new_privileges {
        // Only if true: libcontainer takes a `false` for a reason to load the filter when it may no more.
        config["process"]["noNewPrivileges"] = json!(true);
    }
    // youki is made of the embedded library.
    let reader = match &spec.runtime {
        Some(program) if !program.ends_with("youki") => Reader::Standard,
        Some(_) | None => Reader::Libcontainer,
    };
    if let Some(seccomp) = confinement.seccomp.resolve(capabilities, reader)? {
        config["linux"]["seccomp"] = seccomp;
    }
    Ok(config)
}

/// Inheritable and ambient stay empty: a program that gives up root keeps nothing, and whoever is not root
/// starts with nothing, as execve(2) would have it.
fn capability_sets(capabilities: CapabilitySet, user: &User) -> Value {
    let names = privilege::names(capabilities);
    let held: &[String] = if user.uid == 0 { &names } else { &[] };
    json!({ "bounding": names, "effective": held, "permitted": held })
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
fn sysctls(network: &NetworkMode) -> Value {
    match network {
        // Somebody else's.
        NetworkMode::Host | NetworkMode::Container(_) => json!({}),
        NetworkMode::None | NetworkMode::Attached => json!({
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": "0 2147483647",
        }),
    }
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
        let access = if record.spec.confinement.read_only {
            "ro"
        } else {
            "rw"
        };
        mounts.push(mount(
            text(target)?,
            "bind",
            text(source)?,
            &["bind", access],
        ));
    }
    Ok(mounts)
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

/// The user's variables replace ours, and a later one an earlier.
fn env(record: &Record, user: &User) -> Vec<String> {
    let spec = &record.spec;
    let mut env = vec![PATH.to_owned(), format!("HOME={}", user.home)];
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

    fn root() -> User {
        User {
            uid: 0,
            gid: 0,
            additional_gids: vec![0],
            home: "/root".to_owned(),
        }
    }

    fn config_of(record: &Record) -> Value {
        config_for(record, &root())
    }

    fn config_for(record: &Record, user: &User) -> Value {
        let places = Places {
            root: Path::new("/merged"),
            netns: Some(Path::new("/run/netns/x")),
            files: &[("/b/hosts".into(), "/etc/hosts".into())],
            user,
        };
        config(record, &places).unwrap()
    }

    #[test]
    fn later_variables_win() {
        let mut record = example();
        record.spec.env = vec!["PATH=/x".into(), "A=1".into(), "A=2=3".into()];
        record.spec.hostname = Some("h".into());
        assert_eq!(
            env(&record, &root()),
            ["HOME=/root", "HOSTNAME=h", "PATH=/x", "A=2=3"]
        );
    }

    #[test]
    fn who_is_not_root_holds_no_capability() {
        let web = User {
            uid: 1000,
            gid: 1001,
            additional_gids: vec![1001, 4],
            home: "/srv".to_owned(),
        };
        let mut record = example();
        record.spec.confinement.capabilities.add = vec!["NET_ADMIN".parse().unwrap()];
        let process = &config_for(&record, &web)["process"];
        assert_eq!(
            process["user"],
            json!({ "uid": 1000, "gid": 1001, "additionalGids": [1001, 4] })
        );
        let capabilities = &process["capabilities"];
        assert_eq!(capabilities["effective"], json!([]));
        assert_eq!(capabilities["permitted"], json!([]));
        assert_eq!(capabilities["bounding"].as_array().unwrap().len(), 15);
        assert!(
            process["env"]
                .as_array()
                .unwrap()
                .contains(&json!("HOME=/srv"))
        );
        let capabilities = &config_of(&record)["process"]["capabilities"];
        assert_eq!(capabilities["effective"], capabilities["bounding"]);
    }

    #[test]
    fn a_mask_is_where_the_runtime_reads_it() {
        let mut record = example();
        let mut first_mask = |runtime: Option<&str>| {
            record.spec.runtime = runtime.map(Into::into);
            let rules = config_of(&record)["linux"]["seccomp"]["syscalls"].clone();
            let rules = rules.as_array().unwrap().clone();
            let args = rules
                .iter()
                .flat_map(|rule| rule["args"].as_array().into_iter().flatten());
            let mut masked = args.filter(|arg| arg["op"] == "SCMP_CMP_MASKED_EQ");
            masked.next().unwrap()["value"].as_u64().unwrap()
        };
        assert_eq!(first_mask(Some("/usr/sbin/runc")), 0x7e02_0000);
        assert_eq!(first_mask(Some("/usr/bin/youki")), 0);
        assert_eq!(first_mask(None), 0);
    }

    #[test]
    fn the_walls_are_up_unless_they_are_taken_down() {
        let mut record = example();
        let config = config_of(&record);
        assert_eq!(config["process"]["noNewPrivileges"], true);
        assert_eq!(config["root"]["readonly"], false);
        assert!(config["linux"]["seccomp"].is_object());
        record
            .spec
            .confinement
            .set("no-new-privileges=false")
            .unwrap();
        record.spec.confinement.set("seccomp=unconfined").unwrap();
        record.spec.confinement.read_only = true;
        let config = config_of(&record);
        assert!(config["process"]["noNewPrivileges"].is_null());
        assert_eq!(config["root"]["readonly"], true);
        assert!(config["linux"]["seccomp"].is_null());
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
