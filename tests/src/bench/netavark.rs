//! netavark, told what podman tells it.

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

use mydocker_exec_netlink::netns::run_in;
use serde_json::json;

use super::{Container, Contender, run};
use crate::Host;

/// netavark's `setup` and `teardown`.
pub struct Netavark {
    binary: PathBuf,
    name: String,
    firewall: &'static str,
    folder: PathBuf,
}

impl Netavark {
    /// On `host`, where it makes its bridge with the first container. Its firewall is the first of its
    /// drivers for nftables and iptables that attaches and detaches one in `probe`.
    ///
    /// # Errors
    /// It can't be started, or neither works.
    pub fn new(binary: &Path, host: &Host, probe: &Container) -> io::Result<Self> {
        let version = run(Command::new(binary).arg("--version"), "")?;
        let mut this = Self {
            binary: binary.to_owned(),
            name: String::new(),
            firewall: "",
            folder: host.dir().to_owned(),
        };
        let mut failures = Vec::new();
        for firewall in ["nftables", "iptables"] {
            this.firewall = firewall;
            this.name = format!("{}, {firewall}", version.trim());
            let tried = run_in(host.ns(), || {
                this.attach(probe).and_then(|()| this.detach(probe))
            })?;
            match tried {
                Ok(()) => return Ok(this),
                Err(error) => failures.push(error.to_string()),
            }
        }
        Err(io::Error::other(failures.join("; ")))
    }

    /// Attaches one that publishes all of these ports of the host as its own.
    ///
    /// # Errors
    /// It fails.
    pub fn publish(&self, container: &Container, ports: RangeInclusive<u16>) -> io::Result<()> {
        let mapping = |port: u16| {
            json!({
                "host_ip": "", "host_port": port, "container_port": port, "range": 1, "protocol": "tcp",
            })
        };
        self.run("setup", container, &ports.map(mapping).collect::<Vec<_>>())
    }

    /// Which address a container gets: with podman, podman leases it.
    #[must_use]
    pub fn address(container: &Container) -> String {
        let [high, low] = (container.number + 2).to_be_bytes();
        format!("10.2.{high}.{low}")
    }

    fn run(
        &self,
        verb: &str,
        container: &Container,
        ports: &[serde_json::Value],
    ) -> io::Result<()> {
        let options = json!({
            "container_id": format!("{:064x}", container.number),
            "container_name": container.name(),
            "port_mappings": ports,
            "networks": {
                "n": { "interface_name": "eth0", "static_ips": [Self::address(container)] },
            },
            "network_info": {
                "n": {
                    "name": "n",
                    "id": format!("{:064x}", 1),
                    "driver": "bridge",
                    "network_interface": "netavark0",
                    "created": "2026-01-01T00:00:00Z",
                    "subnets": [{ "subnet": "10.2.0.0/16", "gateway": "10.2.0.1" }],
                    "ipv6_enabled": false,
                    "internal": false,
                    "dns_enabled": false,
                    "ipam_options": { "driver": "host-local" },
                    "options": {},
                },
            },
        });
        let mut command = Command::new(&self.binary);
        command.env("NETAVARK_FW", self.firewall);
        command.arg("--config").arg(&self.folder);
        command.arg(verb).arg(&container.netns);
        run(&mut command, &options.to_string()).map(drop)
    }

    fn port(container: &Container) -> [serde_json::Value; 1] {
        [json!({
            "host_ip": "",
            "host_port": container.port(),
            "container_port": 80,
            "range": 1,
            "protocol": "tcp",
        })]
    }
}

impl Contender for Netavark {
    fn name(&self) -> &str {
        &self.name
    }

    fn attach(&mut self, container: &Container) -> io::Result<()> {
        self.run("setup", container, &Self::port(container))
    }

    fn detach(&mut self, container: &Container) -> io::Result<()> {
        self.run("teardown", container, &Self::port(container))
    }
}
