//! Port bindings: a port of the host that leads to a port of a container.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::RangeInclusive;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Family;

/// A transport protocol.
#[derive(
    Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its number in an IP header (`IPPROTO_TCP` …, linux/in.h).
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// `tcp`, `udp` or `sctp`.
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The protocol of that number.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|p| p.number() == number)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A port to publish: `[[HOSTIP:]HOST:]CONTAINER[/PROTOCOL]`, an IPv6 address in brackets. One `-p`
/// may say many of them at once: [`parse_list`](Self::parse_list).
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PortSpec {
    /// The host address to listen on; `None` for every one of every family the endpoint has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The host's port, not 0; `None` for a free one of [`EPHEMERAL`](Self::EPHEMERAL).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    /// The container's port, not 0.
    pub container_port: u16,
    /// The transport protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A string that is no port to publish.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{value}` is not a port to publish: {reason}; write [[HOSTIP:]HOST:]CONTAINER[/tcp|/udp|/sctp], such as 8080:80, 127.0.0.1:5353:53/udp, [::1]:8080:80, 9000-9010:80-90, or 80 for a free port of the host"
)]
pub struct PortSpecError {
    /// What was given, shortened when it is long.
    pub value: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl PortSpecError {
    fn of(value: &str, reason: &'static str) -> Self {
        let shown = value.chars().take(64).flat_map(char::escape_debug);
        Self {
            value: shown.collect(),
            reason,
        }
    }
}

impl PortSpec {
    /// Where a port of the host is looked for when none is named: what IANA leaves to whoever
    /// needs one (RFC 6335, section 6).
    pub const EPHEMERAL: RangeInclusive<u16> = 49152..=65535;

    /// What one `-p` says: a port, or as many as its ranges are long (`9000-9010:80-90`), 65535 at
    /// most. A range of container ports alone takes a free port of the host for each.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse_list(value: &str) -> Result<Vec<Self>, PortSpecError> {
        let ports = Ports::parse(value).map_err(|reason| PortSpecError::of(value, reason))?;
        Ok(ports.specs().collect())
    }
}

impl PortSpec {
    /// Whether a binding is one that this may speak of: what it leaves out can be anything.
    #[must_use]
    pub fn matches(&self, binding: &PortBinding) -> bool {
        self.host_ip.is_none_or(|ip| ip == binding.host_ip)
            && self.host_port.is_none_or(|port| port == binding.host_port)
            && self.container_port == binding.container_port
            && self.protocol == binding.protocol
    }
}

impl FromStr for PortSpec {
    type Err = PortSpecError;

    fn from_str(value: &str) -> Result<Self, PortSpecError> {
        let ports = Ports::parse(value).map_err(|reason| PortSpecError::of(value, reason))?;
        let mut specs = ports.specs();
        match (specs.next(), specs.next()) {
            (Some(one), None) => Ok(one),
            _ => Err(PortSpecError::of(
                value,
                "a range is many ports, and one is wanted here",
            )),
        }
    }
}

/// A `-p` as it is written: of two ranges, both are as long.
struct Ports {
    host_ip: Option<IpAddr>,
    host: Option<RangeInclusive<u16>>,
    container: RangeInclusive<u16>,
    protocol: Protocol,
}

impl Ports {
    fn parse(value: &str) -> Result<Self, &'static str> {
        let (ports, protocol) = match value.split_once('/') {
            None => (value, Protocol::Tcp),
            Some((ports, name)) => {
                let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
                let named = |p: &Protocol| name.eq_ignore_ascii_case(p.name());
                let protocol = all.into_iter().find(named);
                (
                    ports,
                    protocol.ok_or("the protocol must be tcp, udp or sctp")?,
                )
            }
        };
        let (host_ip, host, container) = match ports.rsplit_once(':') {
            None => (None, None, ports),
            Some((rest, container)) => {
                let (host_ip, host) = host(rest)?;
                (host_ip, host, container)
            }
        };
        let (host, container) = (host.map(range).transpose()?, range(container)?);
        if let Some(host) = &host
            && host.len() != container.len()
        {
            return Err("its two ranges differ in length");
        }
        Ok(Self {
            host_ip,
            host,
            container,
            protocol,
        })
    }

    fn specs(self) -> impl Iterator<Item = PortSpec> {
        let mut host = self.host;
        self.container.map(move |container_port| PortSpec {
            host_ip: self.host_ip,
            host_port: host.as_mut().and_then(Iterator::next),
            container_port,
            protocol: self.protocol,
        })
    }
}

/// What stands before the container's port: an address, a port, or both. An address and nothing
/// after its colon asks for a free port of that address.
fn host(text: &str) -> Result<(Option<IpAddr>, Option<&str>), &'static str> {
    let (ip, port): (IpAddr, &str) = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, port) = rest.split_once(']').ok_or("`[` without `]`")?;
            let ip: Ipv6Addr = ip
                .parse()
                .map_err(|_| "no IPv6 address between the brackets")?;
            let port = port.strip_prefix(':').ok_or(
                "after an address goes the host's port, or nothing for a free one: ADDRESS::PORT",
            )?;
            (ip.into(), port)
        }
        None => match text.split_once(':') {
            None if text.is_empty() => return Err("the host's port is missing"),
            None if text.parse::<Ipv4Addr>().is_ok() => {
                return Err(
                    "after an address goes the host's port, or nothing for a free one: ADDRESS::PORT",
                );
            }
            None => return Ok((None, Some(text))),
            Some((ip, port)) => {
                let ip: Ipv4Addr = ip.parse().map_err(
                    |_| "the host address is not an IPv4 address (IPv6 goes in brackets)",
                )?;
                (ip.into(), port)
            }
        },
    };
    Ok((Some(ip), (!port.is_empty()).then_some(port)))
}

/// `80` or `80-90`.
fn range(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err("a range goes from the lower port to the higher");
    }
    Ok(first..=last)
}

fn port(text: &str) -> Result<u16, &'static str> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = if digits { text.parse().unwrap_or(0) } else { 0 };
    if port == 0 {
        Err("a port is a number from 1 to 65535")
    } else {
        Ok(port)
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            None => {}
        }
        match (self.host_port, self.host_ip) {
            (Some(port), _) => write!(f, "{port}:")?,
            (None, Some(_)) => f.write_str(":")?,
            (None, None) => {}
        }
        write!(f, "{}/{}", self.container_port, self.protocol)
    }
}

/// A published port of an endpoint: one address family, one host address or all of the family.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct PortBinding {
    /// The host address that it listens on; unspecified (`0.0.0.0`, `::`) for all of its family.
    pub host_ip: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// The container's port.
    pub container_port: u16,
    /// The transport protocol.
    pub protocol: Protocol,
}

impl PortBinding {
    /// The address family that it serves.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.host_ip)
    }

    /// Whether the two would fight over a packet.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.host_port == other.host_port
            && hosts_overlap(self.host_ip, other.host_ip)
    }
}

/// Whether who has a port at one address of the host and who has it at the other would fight over a
/// packet: both are the same, or of one family and one of them is all of it.
#[must_use]
pub fn hosts_overlap(a: IpAddr, b: IpAddr) -> bool {
    a == b || Family::of(a) == Family::of(b) && (a.is_unspecified() || b.is_unspecified())
}

/// `0.0.0.0:8080->80/tcp`, as `docker ps` has it.
impl fmt::Display for PortBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = core::net::SocketAddr::new(self.host_ip, self.host_port);
        write!(f, "{}->{}/{}", host, self.container_port, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn reads_what_docker_reads() {
        let spec = |s: &str| s.parse::<PortSpec>().unwrap().to_string();
        assert_eq!(spec("8080:80"), "8080:80/tcp");
        assert_eq!(spec("127.0.0.1:8080:80"), "127.0.0.1:8080:80/tcp");
        assert_eq!(spec("[::1]:5353:53/udp"), "[::1]:5353:53/udp");
        assert_eq!(spec("0.0.0.0:1:65535/sctp"), "0.0.0.0:1:65535/sctp");
        assert_eq!(spec("80"), "80/tcp");
        assert_eq!(spec("53/UDP"), "53/udp");
        assert_eq!(spec("127.0.0.1::80"), "127.0.0.1::80/tcp");
        assert_eq!(spec("[::1]::80/udp"), "[::1]::80/udp");
        assert_eq!(spec("8080-8080:80-80"), "8080:80/tcp");
    }

    #[test]
    fn a_range_is_as_many_ports_as_it_is_long() {
        let list = |s: &str| -> Vec<String> {
            let specs = PortSpec::parse_list(s).unwrap();
            specs.iter().map(ToString::to_string).collect()
        };
        assert_eq!(list("8080:80"), ["8080:80/tcp"]);
        assert_eq!(
            list("127.0.0.1:9000-9002:80-82/udp"),
            [
                "127.0.0.1:9000:80/udp",
                "127.0.0.1:9001:81/udp",
                "127.0.0.1:9002:82/udp"
            ]
        );
        assert_eq!(list("80-81"), ["80/tcp", "81/tcp"]);
        assert_eq!(list("[::1]::80-81"), ["[::1]::80/tcp", "[::1]::81/tcp"]);
        let all = PortSpec::parse_list("1-65535:1-65535").unwrap();
        assert_eq!(all.len(), 65535);
        assert!(all.iter().all(|s| s.host_port == Some(s.container_port)));
        for (bad, reason) in [
            ("9000-9010:80", "differ in length"),
            ("9000:80-81", "differ in length"),
            ("9000-9001:80-82", "differ in length"),
            ("9001-9000:81-80", "lower port to the higher"),
            ("9000-:80", "number from 1 to 65535"),
            ("1-2-3:1-3", "number from 1 to 65535"),
        ] {
            let error = PortSpec::parse_list(bad).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        let error = "80-81:80-81".parse::<PortSpec>().unwrap_err();
        assert!(error.to_string().contains("a range is many ports"));
    }

    #[test]
    fn what_a_spec_leaves_out_can_be_anything() {
        let binding = PortBinding {
            host_ip: "127.0.0.1".parse().unwrap(),
            host_port: 8080,
            container_port: 80,
            protocol: Protocol::Tcp,
        };
        let matches = |s: &str| s.parse::<PortSpec>().unwrap().matches(&binding);
        for yes in ["80", "8080:80", "127.0.0.1::80", "127.0.0.1:8080:80"] {
            assert!(matches(yes), "{yes}");
        }
        for no in [
            "80/udp",
            "8081:80",
            "8080:81",
            "127.0.0.2::80",
            "0.0.0.0:8080:80",
        ] {
            assert!(!matches(no), "{no}");
        }
    }

    #[test]
    fn json_of_before_there_were_free_ports_is_read() {
        let old = r#"{"host_port":8080,"container_port":80,"protocol":"tcp"}"#;
        let spec: PortSpec = serde_json::from_str(old).unwrap();
        assert_eq!(spec, "8080:80".parse().unwrap());
        assert_eq!(serde_json::to_string(&spec).unwrap(), old);
        let free: PortSpec = serde_json::from_str(r#"{"container_port":80}"#).unwrap();
        assert_eq!(free, "80".parse().unwrap());
        assert!(serde_json::from_str::<PortSpec>(r#"{"container_port":80,"x":1}"#).is_err());
    }

    // The third is how the original was made to pass words of the caller's to iptables.
    #[test]
    fn refuses_the_rest() {
        for bad in [
            "",
            "127.0.0.1:80",
            "[::1]:80",
            "::80",
            "80-81/",
            "81 -m comment --comment pwned:80",
            "0:80",
            "80:0",
            "65536:80",
            "+80:80",
            "80:80/icmp",
            "80:80/",
            "::1:80:80",
            "[::1:80:80",
            "1.2.3:80:80",
            "a:b",
            ":80",
            "80:",
            "1.2.3.4:80:80:80",
            "[127.0.0.1]:80:80",
        ] {
            let error = bad.parse::<PortSpec>().unwrap_err();
            assert!(error.to_string().contains("such as 8080:80"), "{error}");
        }
    }

    #[test]
    fn a_wildcard_overlaps_every_address_of_its_family() {
        let bind = |ip: &str, host_port, protocol| PortBinding {
            host_ip: ip.parse().unwrap(),
            host_port,
            container_port: 80,
            protocol,
        };
        let any = bind("0.0.0.0", 80, Protocol::Tcp);
        assert!(any.conflicts(&bind("127.0.0.1", 80, Protocol::Tcp)));
        assert!(bind("127.0.0.1", 80, Protocol::Tcp).conflicts(&any));
        assert!(!any.conflicts(&bind("::", 80, Protocol::Tcp)));
        assert!(!any.conflicts(&bind("0.0.0.0", 80, Protocol::Udp)));
        assert!(!bind("10.0.0.1", 80, Protocol::Tcp).conflicts(&bind(
            "10.0.0.2",
            80,
            Protocol::Tcp
        )));
    }

    proptest! {
        #[test]
        fn a_printed_spec_reads_back(
            host_ip in any::<Option<IpAddr>>(), host_port in prop::option::of(1u16..), container_port in 1u16..,
            protocol in prop::sample::select(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp]),
        ) {
            let spec = PortSpec { host_ip, host_port, container_port, protocol };
            prop_assert_eq!(spec.to_string().parse(), Ok(spec));
        }

        #[test]
        fn no_input_panics(text in ".{0,40}") {
            if let Err(error) = text.parse::<PortSpec>() {
                prop_assert!(!error.to_string().is_empty());
            }
        }

        #[test]
        fn a_list_and_a_spec_agree(text in "([0-9.:\\[\\]]{0,12}:)?[0-9]{1,2}(-[0-9]{1,2})?(/udp)?") {
            match PortSpec::parse_list(&text).as_deref() {
                Ok([one]) => prop_assert_eq!(text.parse(), Ok(one.clone())),
                Ok(many) => {
                    prop_assert!(text.parse::<PortSpec>().is_err());
                    for spec in many {
                        prop_assert_eq!(spec.to_string().parse(), Ok(spec.clone()));
                    }
                }
                Err(error) => prop_assert_eq!(text.parse::<PortSpec>(), Err(error.clone())),
            }
        }
    }
}
