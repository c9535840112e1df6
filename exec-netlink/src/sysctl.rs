//! Settings below `/proc/sys/net`, of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mydocker_core::{ErrorKind, Family, LinkSysctl, OpError};

use crate::errno;

const ROOT: &str = "/proc/sys/net";

fn directory(family: Family) -> PathBuf {
    Path::new(ROOT).join(match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    })
}

/// The file of a setting. Ops are data and may come from anywhere: only a plain word becomes a part
/// of a path.
fn file(sysctl: &LinkSysctl) -> Result<PathBuf, OpError> {
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
    let links = directory(sysctl.family).join("conf");
    Ok(links.join(sysctl.link.name.as_str()).join(&sysctl.key))
}

/// Whether there is no such file because its interface can't carry IPv6 (an MTU below 1280), or
/// because no interface of this kernel can.
fn lacks_ipv6(sysctl: &LinkSysctl, file: &Path) -> bool {
    sysctl.family == Family::V6 && !file.parent().is_some_and(Path::exists)
}

/// Writes `net.FAMILY.conf.LINK.KEY`. Where there is no IPv6, every setting of it is as wished.
/// Equivalent to: sysctl -qw net/FAMILY/conf/LINK/KEY=VALUE
pub(crate) fn set(sysctl: &LinkSysctl) -> Result<(), OpError> {
    let file = file(sysctl)?;
    match write(&file, &sysctl.value.to_string()) {
        Err(error) if error.kind == ErrorKind::Missing && lacks_ipv6(sysctl, &file) => Ok(()),
        written => written,
    }
}

/// The setting with the value that it has; as wished where there is no IPv6.
/// Equivalent to: sysctl -n net/FAMILY/conf/LINK/KEY
pub(crate) fn get(sysctl: &LinkSysctl) -> Option<LinkSysctl> {
    let file = file(sysctl).ok()?;
    let value = match fs::read_to_string(&file) {
        Ok(text) => text.trim_end().parse().ok()?,
        Err(_) if lacks_ipv6(sysctl, &file) => sysctl.value,
        Err(_) => return None,
    };
    Some(LinkSysctl {
        value,
        ..sysctl.clone()
    })
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

/// Whether connection tracking, and NAT with it, knows SCTP: then it has a patience for it, as it has
/// for UDP. Whether containers have sockets for it is another matter, and theirs.
///
/// Before connection tracking is loaded there is no telling; our ruleset loads it.
pub(crate) fn tracks_sctp() -> bool {
    let known = |name| Path::new(ROOT).join("netfilter").join(name).exists();
    known("nf_conntrack_sctp_timeout_established") || !known("nf_conntrack_udp_timeout")
}

fn write(path: &Path, value: &str) -> Result<(), OpError> {
    // Not `fs::write`, which would ask to create the file.
    let opened = fs::OpenOptions::new().write(true).open(path);
    opened
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
        .map_err(|error| errno::of_io(&path.display().to_string(), &error))
}
