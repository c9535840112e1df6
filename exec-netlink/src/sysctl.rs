//! Settings below `/proc/sys/net`, of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mydocker_core::{ErrorKind, Family, LinkName, LinkSysctl, OpError};

use crate::errno;

const ROOT: &str = "/proc/sys/net";

fn directory(family: Family) -> PathBuf {
    Path::new(ROOT).join(match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    })
}

/// The directory of one interface's settings. IPv6 has none for an interface that can't carry it
/// (an MTU below 1280), and none at all where the kernel has no IPv6.
fn link_directory(family: Family, link: LinkName) -> PathBuf {
    directory(family).join("conf").join(link.as_str())
}

/// Writes `net.FAMILY.conf.LINK.KEY`. Where there is no IPv6, every setting of it is as wished.
/// Equivalent to: sysctl -qw net/FAMILY/conf/LINK/KEY=VALUE
pub(crate) fn set(sysctl: &LinkSysctl) -> Result<(), OpError> {
    // Ops are data and may come from a file: only a plain word becomes a part of a path.
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if sysctl.key.is_empty() || !sysctl.key.bytes().all(plain) {
        return Err(OpError {
            kind: ErrorKind::Unsupported,
            detail: format!(
                "`{}` is not the name of a setting",
                sysctl.key.escape_debug()
            ),
        });
    }
    let directory = link_directory(sysctl.family, sysctl.link.name);
    if sysctl.family == Family::V6 && !directory.exists() {
        return Ok(());
    }
    write(&directory.join(&sysctl.key), &sysctl.value.to_string())
}

/// Reads `net.FAMILY.conf.LINK.KEY`. An interface without IPv6 is one where it is disabled.
pub(crate) fn get(family: Family, link: LinkName, key: &str) -> Option<i64> {
    let directory = link_directory(family, link);
    let Ok(text) = fs::read_to_string(directory.join(key)) else {
        let absent = family == Family::V6 && key == "disable_ipv6" && !directory.exists();
        return absent.then_some(1);
    };
    text.trim_end().parse().ok()
}

/// Reads every setting of an interface that is a number.
pub(crate) fn get_all(family: Family, link: LinkName) -> Vec<(String, i64)> {
    let Ok(entries) = fs::read_dir(link_directory(family, link)) else {
        let absent = get(family, link, "disable_ipv6").map(|value| ("disable_ipv6".into(), value));
        return absent.into_iter().collect();
    };
    let keys = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    keys.filter_map(|key| get(family, link, &key).map(|value| (key, value)))
        .collect()
}

fn forwarding_path(family: Family) -> PathBuf {
    directory(family).join(match family {
        Family::V4 => "ip_forward",
        Family::V6 => "conf/all/forwarding",
    })
}

/// Turns forwarding on or off. Equivalent to: sysctl -qw net.ipv4.ip_forward=1
pub(crate) fn set_forwarding(family: Family, on: bool) -> Result<(), OpError> {
    let path = forwarding_path(family);
    if !on && !path.exists() {
        return Ok(());
    }
    write(&path, if on { "1" } else { "0" })
}

/// Whether this namespace forwards between interfaces. Without IPv6 there is none to turn on.
pub(crate) fn forwards(family: Family) -> bool {
    match fs::read_to_string(forwarding_path(family)) {
        Ok(text) => text.trim_end() != "0",
        Err(error) => family == Family::V6 && error.kind() == io::ErrorKind::NotFound,
    }
}

fn write(path: &Path, value: &str) -> Result<(), OpError> {
    // Not `fs::write`, which would ask to create the file.
    let opened = fs::OpenOptions::new().write(true).open(path);
    opened
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
        .map_err(|error| errno::of_io(&path.display().to_string(), &error))
}
