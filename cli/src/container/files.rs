//! The files in `/etc` that tell a container who and where it is.

use std::{
    fmt::Write as _,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{names::Names, network::Attached};
use crate::store::make_dir;

/// Files of ours that are bound over the image's: path on the host, path inside.
///
/// They are rewritten in place, never replaced: a bind mount stays with the file it was made from.
#[derive(Clone, Debug)]
pub(crate) struct EtcFiles {
    dir: PathBuf,
    names: Names,
}

const HOSTNAME: &str = "hostname";
const HOSTS: &str = "hosts";
const RESOLV_CONF: &str = "resolv.conf";

impl EtcFiles {
    /// Makes them in `dir`, so that they can be bound. What is in them is known when it is known where the
    /// container lives: [`attach`](Self::attach) or [`copy_from_host`](Self::copy_from_host) writes it.
    pub(crate) fn create(dir: PathBuf, hostname: &str, names: Names) -> anyhow::Result<Self> {
        make_dir(&dir)?;
        let files = Self { dir, names };
        files.write(HOSTNAME, &format!("{hostname}\n"))?;
        files.write(HOSTS, "")?;
        files.write(RESOLV_CONF, "")?;
        Ok(files)
    }

    /// Has in `dir` those that another container has in `theirs`: the same files, and they stay when it goes.
    pub(crate) fn share(dir: PathBuf, theirs: &Path) -> anyhow::Result<Self> {
        make_dir(&dir)?;
        for name in [HOSTNAME, HOSTS, RESOLV_CONF] {
            let from = theirs.join(name);
            fs::hard_link(&from, dir.join(name))
                .with_context(|| format!("can't share {}", from.display()))?;
        }
        let names = Names::default();
        Ok(Self { dir, names })
    }

    /// Rewrites them for a container that lives in the host's network.
    pub(crate) fn copy_from_host(&self, hostname: &str) -> anyhow::Result<()> {
        let mut text = fs::read_to_string("/etc/hosts").context("can't read /etc/hosts")?;
        text.truncate(text.trim_end().len());
        let _ = write!(text, "\n127.0.1.1\t{hostname}\n");
        add_hosts(&mut text, &self.names.resolve(&[])?);
        self.write(HOSTS, &text)?;
        let resolver = Resolver {
            servers: &self.names.servers,
            search: self.search(),
            // It is the host's own there.
            reaches_loopback: true,
        };
        self.write(RESOLV_CONF, &resolver.conf(&host_resolv_conf()?))
    }

    /// Rewrites them for a container that has been attached, or to nothing by the default.
    pub(crate) fn attach(&self, attached: &Attached) -> anyhow::Result<()> {
        let mut text = LOCALHOST.to_owned();
        add_hosts(&mut text, &attached.hosts);
        add_hosts(&mut text, &self.names.resolve(&attached.gateways)?);
        self.write(HOSTS, &text)?;
        let asks_networks = self.names.servers.is_empty() && !attached.nameservers.is_empty();
        let resolver = Resolver {
            servers: if asks_networks {
                &attached.nameservers
            } else {
                &self.names.servers
            },
            search: self.search().or(asks_networks.then_some(&attached.search)),
            reaches_loopback: false,
        };
        self.write(RESOLV_CONF, &resolver.conf(&host_resolv_conf()?))
    }

    /// The domains to search that were asked for.
    fn search(&self) -> Option<&[String]> {
        (!self.names.search.is_empty()).then_some(self.names.search.as_slice())
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

const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

fn add_hosts(text: &mut String, hosts: &[(IpAddr, String)]) {
    for (address, name) in hosts {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{address}\t{name}");
    }
}

/// The host's, or nothing where the host has none.
fn host_resolv_conf() -> anyhow::Result<String> {
    match fs::read_to_string("/etc/resolv.conf") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.context("can't read /etc/resolv.conf"),
    }
}

/// Whom a container asks for names.
struct Resolver<'a> {
    /// The host's, if there are none.
    servers: &'a [IpAddr],
    /// The host's, if none; `.` alone is no domain at all.
    search: Option<&'a [String]>,
    /// Whether a name server of the host on loopback is one for the container, too.
    reaches_loopback: bool,
}

impl Resolver<'_> {
    /// The host's `resolv.conf` with what is to be replaced replaced.
    fn conf(&self, host: &str) -> String {
        let replaces = !self.servers.is_empty() || self.search.is_some();
        let keeps = |line: &&str| match line.split_whitespace().next() {
            Some("nameserver") => {
                self.servers.is_empty() && (self.reaches_loopback || !names_loopback(line))
            }
            Some("search" | "domain") => self.search.is_none(),
            // It is about what was there.
            Some(word) if word.starts_with(['#', ';']) => !replaces,
            _ => true,
        };
        let mut text = String::new();
        for line in host.lines().filter(keeps) {
            text.push_str(line);
            text.push('\n');
        }
        let domains = self.search.unwrap_or_default();
        if !domains.is_empty() && *domains != ["."] {
            let _ = writeln!(text, "search {}", domains.join(" "));
        }
        for server in self.servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        text
    }
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
    use tempfile::TempDir;

    use super::*;

    const HOST: &str = "# stub\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.1\n\
        search lan\noptions edns0\n";

    fn conf(servers: &[&str], search: Option<&[&str]>, reaches_loopback: bool) -> String {
        let servers: Vec<_> = servers.iter().map(|text| text.parse().unwrap()).collect();
        let search: Option<Vec<_>> =
            search.map(|domains| domains.iter().map(|domain| (*domain).to_owned()).collect());
        let resolver = Resolver {
            servers: &servers,
            search: search.as_deref(),
            reaches_loopback,
        };
        resolver.conf(HOST)
    }

    #[test]
    fn loopback_name_servers_stay_on_the_host() {
        assert_eq!(
            conf(&[], None, false),
            "# stub\nnameserver 192.0.2.1\nsearch lan\noptions edns0\n"
        );
        assert_eq!(conf(&[], None, true), HOST);
    }

    #[test]
    fn what_is_asked_for_takes_the_place_of_the_hosts() {
        assert_eq!(
            conf(&["10.0.0.1", "fd00::1"], Some(&["a", "b"]), false),
            "options edns0\nsearch a b\nnameserver 10.0.0.1\nnameserver fd00::1\n"
        );
        assert_eq!(
            conf(&["127.0.0.1"], None, false),
            "search lan\noptions edns0\nnameserver 127.0.0.1\n"
        );
        assert_eq!(
            conf(&[], Some(&["."]), false),
            "nameserver 192.0.2.1\noptions edns0\n"
        );
    }

    #[test]
    fn own_addresses_follow_localhost_and_others_them() {
        let dir = TempDir::new().unwrap();
        let names = Names {
            servers: vec!["192.0.2.9".parse().unwrap()],
            hosts: vec!["up:host-gateway".parse().unwrap()],
            ..Names::default()
        };
        let files = EtcFiles::create(dir.path().join("a"), "web", names).unwrap();
        let attached = Attached {
            hosts: vec![("10.0.0.2".parse().unwrap(), "web w".to_owned())],
            nameservers: vec!["10.0.0.1".parse().unwrap()],
            gateways: vec!["10.0.0.1".parse().unwrap()],
            ..Attached::default()
        };
        files.attach(&attached).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let hosts = read("a/hosts");
        assert!(hosts.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(
            hosts.ends_with("\n10.0.0.2\tweb w\n10.0.0.1\tup\n"),
            "{hosts}"
        );
        let conf = read("a/resolv.conf");
        assert!(conf.ends_with("nameserver 192.0.2.9\n"), "{conf}");
        assert!(!conf.contains("10.0.0.1"), "{conf}");
        assert!(files.attach(&Attached::default()).is_err(), "no gateway");

        // Another's are the same files, also when these are gone.
        EtcFiles::share(dir.path().join("b"), &dir.path().join("a")).unwrap();
        files.write(HOSTS, "later\n").unwrap();
        fs::remove_dir_all(dir.path().join("a")).unwrap();
        assert_eq!(read("b/hosts"), "later\n");
    }
}
