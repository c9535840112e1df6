//! The CNI plugins, run as a runtime does: loopback, bridge (with host-local), portmap.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use mydocker_exec_netlink::netns::run_in;
use serde_json::{Value, json};

use super::{Container, Contender, run};
use crate::Host;

/// `ADD` and `DEL` of a list of plugins.
pub struct Cni {
    plugins: PathBuf,
    name: String,
    leases: PathBuf,
    /// What the bridge plugin said of the container that was attached last.
    result: Value,
}

impl Cni {
    /// On `host`, where they make their bridge with the first container. Attaches and detaches one in
    /// `probe`, to see whether they work.
    ///
    /// # Errors
    /// They don't.
    pub fn new(plugins: &Path, host: &Host, probe: &Container) -> io::Result<Self> {
        // Without an environment it fails, and says who it is; not all know their version.
        let output = Command::new(plugins.join("bridge")).env_clear().output()?;
        let about = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_version = |word: &&str| word.starts_with('v') && word.contains('.');
        let version = about.split_whitespace().find(is_version);
        let version = version.map_or_else(String::new, |version| format!(" {version}"));
        let mut this = Self {
            plugins: plugins.to_owned(),
            name: String::new(),
            leases: host.dir().join("cni"),
            result: Value::Null,
        };
        run_in(host.ns(), || {
            this.attach(probe).and_then(|()| this.detach(probe))
        })??;
        // Asked for nftables, old ones don't hear of it.
        let tables = host.sh("nft list tables");
        let firewall = if tables.contains("cni_hostport") {
            "nftables"
        } else {
            "iptables"
        };
        this.name = format!("CNI plugins{version}, {firewall}");
        Ok(this)
    }

    fn bridge(&self) -> Value {
        json!({
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "ipMasq": true,
            "ipMasqBackend": "nftables",
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": "10.3.0.0/16" }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
                "dataDir": self.leases,
            },
        })
    }

    fn portmap(container: &Container) -> Value {
        let port = json!({ "hostPort": container.port(), "containerPort": 80, "protocol": "tcp" });
        json!({
            "type": "portmap",
            "backend": "nftables",
            "snat": true,
            "runtimeConfig": { "portMappings": [port] },
        })
    }

    fn run(
        &self,
        verb: &str,
        container: &Container,
        mut config: Value,
        previous: &Value,
    ) -> io::Result<String> {
        config["cniVersion"] = "1.0.0".into();
        config["name"] = "n".into();
        if !previous.is_null() {
            config["prevResult"] = previous.clone();
        }
        let plugin = config["type"].as_str().unwrap_or_default();
        let interface = if plugin == "loopback" { "lo" } else { "eth0" };
        let mut command = Command::new(self.plugins.join(plugin));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container.name())
            .env("CNI_NETNS", &container.netns)
            .env("CNI_IFNAME", interface)
            .env("CNI_PATH", &self.plugins);
        run(&mut command, &config.to_string())
    }
}

impl Contender for Cni {
    fn name(&self) -> &str {
        &self.name
    }

    fn attach(&mut self, container: &Container) -> io::Result<()> {
        let add = |config, previous| self.run("ADD", container, config, previous);
        add(json!({ "type": "loopback" }), &Value::Null)?;
        let result = add(self.bridge(), &Value::Null)?;
        let result = serde_json::from_str(&result)?;
        add(Self::portmap(container), &result)?;
        self.result = result;
        Ok(())
    }

    fn detach(&mut self, container: &Container) -> io::Result<()> {
        let del = |config| self.run("DEL", container, config, &self.result);
        del(Self::portmap(container))?;
        del(self.bridge())?;
        self.run(
            "DEL",
            container,
            json!({ "type": "loopback" }),
            &Value::Null,
        )
        .map(drop)
    }
}
