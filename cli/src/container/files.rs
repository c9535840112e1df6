//! The files in `/etc` that tell a container who and where it is.

use std::{
    fmt::Write as _,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::network::Attached;
use crate::store::make_dir;

/// Files of ours that are bound over the image's: path on the host, path inside.
///
/// They are rewritten in place, never replaced: a bind mount stays with the file it was made from.
#[derive(Clone, Debug)]
pub(crate) struct EtcFiles {
    dir: PathBuf,
}

const HOSTNAME: &str = "hostname";
const HOSTS: &str = "hosts";
const RESOLV_CONF: &str = "resolv.conf";

impl EtcFiles {
    /// Makes them in `dir`, as they are for a container that is attached to nothing.
    pub(crate) fn create(dir: PathBuf, hostname: &str) -> anyhow::Result<Self> {
        make_dir(&dir)?;
        let files = Self { dir };
        files.write(HOSTNAME, &format!("{hostname}\n"))?;
        files.write(HOSTS, &hosts(&[]))?;
        files.write(RESOLV_CONF, &resolv_conf(&host_resolv_conf()?, &[], &[]))?;
        Ok(files)
    }

    /// Rewrites them for a container that lives in the host's network.
    pub(crate) fn copy_from_host(&self, hostname: &str) -> anyhow::Result<()> {
        let hosts = fs::read_to_string("/etc/hosts").context("can't read /etc/hosts")?;
        self.write(
            HOSTS,
            &format!("{}\n127.0.1.1\t{hostname}\n", hosts.trim_end()),
        )?;
        // Loopback is the host's own there, so its name servers are kept.
        self.write(RESOLV_CONF, &host_resolv_conf()?)
    }

    /// Rewrites them for a container that has been attached.
    pub(crate) fn attach(&self, attached: &Attached) -> anyhow::Result<()> {
        self.write(HOSTS, &hosts(&attached.hosts))?;
        self.write(
            RESOLV_CONF,
            &resolv_conf(
                &host_resolv_conf()?,
                &attached.nameservers,
                &attached.search,
            ),
        )
    }

    /// Path on the host and path inside, of each.
    pub(crate) fn mounts(&self) -> [(PathBuf, PathBuf); 3] {
        [HOSTNAME, HOSTS, RESOLV_CONF]
            .map(|name| (self.dir.join(name), Path::new("/etc").join(name)))
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.dir.join(name);
        fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))
    }
}

fn hosts(own: &[(IpAddr, String)]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for (address, name) in own {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{address}\t{name}");
    }
    text
}

/// The host's, or nothing where the host has none.
fn host_resolv_conf() -> anyhow::Result<String> {
    match fs::read_to_string("/etc/resolv.conf") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.context("can't read /etc/resolv.conf"),
    }
}

/// With name servers of its own, the container gets those; else the host's text without loopback
/// ones, which would be the container itself.
fn resolv_conf(host: &str, nameservers: &[IpAddr], search: &[String]) -> String {
    let mut text = String::new();
    if nameservers.is_empty() {
        for line in host.lines().filter(|line| !names_loopback(line)) {
            text.push_str(line);
            text.push('\n');
        }
        return text;
    }
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    for server in nameservers {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

fn names_loopback(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("nameserver")
        && words
            .next()
            .and_then(|word| word.split('%').next())
            .and_then(|word| word.parse::<IpAddr>().ok())
            .is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_name_servers_stay_on_the_host() {
        let host =
            "# stub\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.1\nsearch lan\n";
        assert_eq!(
            resolv_conf(host, &[], &[]),
            "# stub\nnameserver 192.0.2.1\nsearch lan\n"
        );
        let servers = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let own = resolv_conf(host, &servers, &["a".to_owned(), "b".to_owned()]);
        assert_eq!(own, "search a b\nnameserver 10.0.0.1\nnameserver fd00::1\n");
    }

    #[test]
    fn own_addresses_follow_localhost() {
        let text = hosts(&[("10.0.0.2".parse().unwrap(), "web".to_owned())]);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("\n10.0.0.2\tweb\n"));
    }
}
