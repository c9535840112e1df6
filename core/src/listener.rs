//! Listeners: programs of the host that have a port for themselves.

use alloc::string::String;
use core::fmt;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{PortBinding, Protocol, hosts_overlap};

/// A port of the host that one of its programs listens on. To publish it would take it away from
/// that program.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// The address that it is in the way of; unspecified for all of its family.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The transport protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// Whose it is, as far as can be seen.
    #[serde(default)]
    pub process: Option<Process>,
}

/// A process of the host.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// What it calls itself, which can be anything (`/proc/PID/comm`).
    pub name: String,
}

impl Listener {
    /// Whether both want packets to one address and port.
    #[must_use]
    pub fn conflicts(&self, binding: &PortBinding) -> bool {
        (self.protocol, self.port) == (binding.protocol, binding.host_port)
            && hosts_overlap(self.address, binding.host_ip)
    }
}

/// `` `nginx` (pid 1234) ``.
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (pid {})", self.name.escape_debug(), self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_in_the_way_of_its_own_address_and_of_all() {
        let conflict = |address: &str, host_ip: &str, host_port, protocol| {
            let (address, host_ip) = (address.parse().unwrap(), host_ip.parse().unwrap());
            let listener = Listener {
                address,
                port: 80,
                protocol: Protocol::Tcp,
                process: None,
            };
            listener.conflicts(&PortBinding {
                host_ip,
                host_port,
                container_port: 8080,
                protocol,
            })
        };
        let tcp = Protocol::Tcp;
        assert!(conflict("0.0.0.0", "127.0.0.1", 80, tcp));
        assert!(conflict("127.0.0.1", "0.0.0.0", 80, tcp));
        assert!(conflict("::1", "::1", 80, tcp));
        assert!(!conflict("127.0.0.1", "127.0.0.2", 80, tcp));
        assert!(!conflict("::", "0.0.0.0", 80, tcp));
        assert!(!conflict("0.0.0.0", "0.0.0.0", 81, tcp));
        assert!(!conflict("0.0.0.0", "0.0.0.0", 80, Protocol::Udp));
    }

    #[test]
    fn a_name_can_be_anything_and_prints_as_text() {
        let name = "a\u{1b}[2J\n".into();
        let shown = alloc::format!("{}", Process { pid: 7, name });
        assert_eq!(shown, "`a\\u{1b}[2J\\n` (pid 7)");
    }
}
