//! Port bindings: a port of the host that leads to a port of a container.

use alloc::string::String;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// One `-p`: `[HOSTIP:]HOST:CONTAINER[/PROTOCOL]`, an IPv6 address in brackets.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PortSpec {
    /// The host address to listen on; `None` for every one of every family the endpoint has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The host's port, not 0.
    pub host_port: u16,
    /// The container's port, not 0.
    pub container_port: u16,
    /// The transport protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A string that is no port to publish.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{value}` is not a port to publish: {reason}; write [HOSTIP:]HOST:CONTAINER[/tcp|/udp|/sctp], such as 8080:80, 127.0.0.1:5353:53/udp or [::1]:8080:80"
)]
pub struct PortSpecError {
    /// What was given, shortened when it is long.
    pub value: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FromStr for PortSpec {
    type Err = PortSpecError;

    fn from_str(value: &str) -> Result<Self, PortSpecError> {
        parse(value).map_err(|reason| PortSpecError {
            value: value
                .chars()
                .take(64)
                .flat_map(char::escape_debug)
                .collect(),
            reason,
        })
    }
}

fn parse(value: &str) -> Result<PortSpec, &'static str> {
    let (ports, protocol) = match value.split_once('/') {
        None => (value, Protocol::Tcp),
        Some((ports, "tcp")) => (ports, Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some((ports, "sctp")) => (ports, Protocol::Sctp),
        Some(_) => return Err("the protocol must be tcp, udp or sctp"),
    };
    let (rest, container) = ports.rsplit_once(':').ok_or("the host's port is missing")?;
    let (host_ip, host) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (ip, host) = rest.split_once("]:").ok_or("`[` without `]:`")?;
            let ip: Ipv6Addr = ip
                .parse()
                .map_err(|_| "no IPv6 address between the brackets")?;
            (Some(ip.into()), host)
        }
        None => match rest.split_once(':') {
            None => (None, rest),
            Some((ip, host)) => {
                let ip: Ipv4Addr = ip.parse().map_err(
                    |_| "the host address is not an IPv4 address (IPv6 goes in brackets)",
                )?;
                (Some(ip.into()), host)
            }
        },
    };
    Ok(PortSpec {
        host_ip,
        host_port: port(host)?,
        container_port: port(container)?,
        protocol,
    })
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
        write!(
            f,
            "{}:{}/{}",
            self.host_port, self.container_port, self.protocol
        )
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

    /// Whether the two would fight over a packet: a wildcard overlaps every address of its family.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.host_port == other.host_port
            && self.family() == other.family()
            && (self.host_ip == other.host_ip
                || self.host_ip.is_unspecified()
                || other.host_ip.is_unspecified())
    }
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
    }

    // The third is how the original was made to pass words of the caller's to iptables.
    #[test]
    fn refuses_the_rest() {
        for bad in [
            "",
            "80",
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
            host_ip in any::<Option<IpAddr>>(), host_port in 1u16.., container_port in 1u16..,
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
    }
}
