//! Which names a container knows beside its own, and whom it asks for others.

use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// The C libraries ask no more name servers than these (MAXNS of resolv.conf(5)).
const SERVERS_MAX: usize = 3;
/// What musl and old versions of glibc search.
const SEARCH_BYTES_MAX: usize = 255;
const HOSTS_MAX: usize = 4096;
/// Longest name that DNS has, bytes.
const NAME_BYTES_MAX: usize = 253;
/// Instead of an address.
const HOST_GATEWAY: &str = "host-gateway";

/// What was said about names.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Names {
    /// Name servers instead of the host's or the networks'.
    pub servers: Vec<IpAddr>,
    /// Domains to search instead of the host's or the networks'; `.` alone for none.
    pub search: Vec<String>,
    /// Names in `/etc/hosts` beside its own.
    pub hosts: Vec<ExtraHost>,
}

/// A name and its address: `NAME:IP`, or `NAME:host-gateway`.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Its address; none for the gateway of the container's first network, which is the host.
    pub address: Option<IpAddr>,
}

impl Names {
    /// Says what is wrong with it.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.servers.len() > SERVERS_MAX {
            bail!(
                "{} name servers are more than {SERVERS_MAX}, which is all that programs ask",
                self.servers.len()
            );
        }
        let search_bytes: usize = self.search.iter().map(|domain| domain.len() + 1).sum();
        if search_bytes > SEARCH_BYTES_MAX {
            bail!(
                "the domains to search are {search_bytes} bytes long, and {SEARCH_BYTES_MAX} are all \
                 that programs read"
            );
        }
        if self.hosts.len() > HOSTS_MAX {
            bail!("{} added hosts are more than {HOSTS_MAX}", self.hosts.len());
        }
        for domain in self.search.iter().filter(|domain| *domain != ".") {
            check_name("domain to search", domain)?;
        }
        for host in &self.hosts {
            check_name("added host", &host.name)?;
        }
        Ok(())
    }

    /// Whether it needs to know the gateway of the first network.
    pub fn want_gateway(&self) -> bool {
        self.hosts.iter().any(|host| host.address.is_none())
    }

    /// Lines for `/etc/hosts`, as pairs of address and name.
    pub(crate) fn resolve(&self, gateways: &[IpAddr]) -> anyhow::Result<Vec<(IpAddr, String)>> {
        let mut lines = Vec::new();
        for ExtraHost { name, address } in &self.hosts {
            if address.is_none() && gateways.is_empty() {
                bail!("host `{name}` is to be the gateway, and the first network has none");
            }
            let addresses = address.as_ref().map_or(gateways, std::slice::from_ref);
            lines.extend(addresses.iter().map(|address| (*address, name.clone())));
        }
        Ok(lines)
    }
}

impl FromStr for ExtraHost {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let what = || format!("host `{text}` is not NAME:IP or NAME:{HOST_GATEWAY}");
        let (name, address) = text.split_once([':', '=']).with_context(what)?;
        check_name("added host", name).with_context(what)?;
        let address = match address {
            HOST_GATEWAY => None,
            _ => Some(parse_address(address).with_context(what)?),
        };
        Ok(Self {
            name: name.to_owned(),
            address,
        })
    }
}

/// Takes `[::1]` as well as `::1`.
fn parse_address(text: &str) -> anyhow::Result<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    if let Some(bare) = bare {
        return Ok(bare.parse::<Ipv6Addr>()?.into());
    }
    Ok(text.parse()?)
}

/// A name that a file of names can hold: it has no white space and starts no comment.
pub fn check_name(what: &str, name: &str) -> anyhow::Result<()> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let starts = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.len() > NAME_BYTES_MAX || !name.starts_with(starts) || !name.chars().all(valid) {
        bail!(
            "{what} `{name}` is not a name of 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes and \
             underscores"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_addresses() {
        let host = |text: &str| text.parse::<ExtraHost>();
        for (text, name, address) in [
            ("db:10.0.0.9", "db", "10.0.0.9"),
            ("db.lan=10.0.0.9", "db.lan", "10.0.0.9"),
            ("six:::1", "six", "::1"),
            ("six:[fd00::1]", "six", "fd00::1"),
        ] {
            let host = host(text).unwrap();
            assert_eq!(host.name, name);
            assert_eq!(host.address, Some(address.parse().unwrap()), "{text}");
        }
        assert_eq!(host("up:host-gateway").unwrap().address, None);
        for bad in [
            "",
            "db",
            ":1.2.3.4",
            "db:",
            "db:1.2.3",
            "d b:1.2.3.4",
            "db:[1.2.3.4]",
            "#:1.2.3.4",
        ] {
            let said = format!("{:#}", host(bad).unwrap_err());
            assert!(said.contains(&format!("`{bad}`")), "{said}");
        }
    }

    #[test]
    fn the_gateway_is_found_or_missed() {
        let names = Names {
            hosts: vec![
                "a:1.2.3.4".parse().unwrap(),
                "up:host-gateway".parse().unwrap(),
            ],
            ..Names::default()
        };
        assert!(names.want_gateway());
        assert!(names.resolve(&[]).is_err());
        let gateways = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let lines = names.resolve(&gateways).unwrap();
        let text: Vec<_> = lines.iter().map(|(a, n)| format!("{a} {n}")).collect();
        assert_eq!(text, ["1.2.3.4 a", "10.0.0.1 up", "fd00::1 up"]);
    }

    #[test]
    fn what_programs_would_not_read_is_refused() {
        let check = |change: &dyn Fn(&mut Names)| {
            let mut names = Names::default();
            change(&mut names);
            names.check()
        };
        check(&|n| n.search = vec![".".into()]).unwrap();
        check(&|n| n.servers = vec!["::1".parse().unwrap(); 3]).unwrap();
        assert!(check(&|n| n.servers = vec!["::1".parse().unwrap(); 4]).is_err());
        assert!(check(&|n| n.search = vec!["a\nnameserver 1.2.3.4".into()]).is_err());
        assert!(check(&|n| n.search = vec!["a.example".into(); 40]).is_err());
    }
}
