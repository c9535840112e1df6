//! mydocker, and who works on the bridge that it made.

use std::io;
use std::path::PathBuf;
use std::process::Command;

use super::{Container, Contender, run};
use crate::Host;

/// What the floor counts its interfaces from: nobody else gets that far.
const FIRST_INDEX: u32 = 1_000_000;
/// Addresses that mydocker does not get to.
const FLOOR: &str = "10.1.255.1";
const SHELL: &str = "10.1.255.2";
const GATEWAY: &str = "10.1.0.1";
/// Makes the table of the floor and of the script: like the map that mydocker has.
pub const FLOOR_TABLE: &str = "nft -f - <<'END'
table inet floor {
    map publish { type inet_proto . inet_service : ipv4_addr . inet_service; }
}
END";

/// `mydocker network connect` and `disconnect`.
pub struct Mydocker {
    binary: PathBuf,
    environment: [(&'static str, PathBuf); 2],
}

impl Mydocker {
    /// On `host`, with a network.
    ///
    /// # Panics
    /// When that can't be made.
    #[must_use]
    pub fn new(host: &Host) -> Self {
        host.ok("network create --subnet 10.1.0.0/16 n");
        Self {
            binary: crate::binary(),
            environment: host.environment(),
        }
    }

    fn run(&self, words: &[&str]) -> io::Result<String> {
        let mut command = Command::new(&self.binary);
        run(
            command.args(words).envs(self.environment.iter().cloned()),
            "",
        )
    }
}

impl Contender for Mydocker {
    fn name(&self) -> &str {
        "mydocker"
    }

    fn attach(&mut self, container: &Container) -> io::Result<()> {
        let (netns, name) = (container.netns.display().to_string(), container.name());
        let port = format!("{}:80", container.port());
        let words = [
            "network", "connect", "--netns", &netns, "-p", &port, "n", &name,
        ];
        self.run(&words).map(drop)
    }

    fn detach(&mut self, container: &Container) -> io::Result<()> {
        let words = ["network", "disconnect", "n", &container.name()];
        self.run(&words).map(drop)
    }
}

/// The floor: see `tests/bench/floor.rs`.
pub struct Floor {
    binary: PathBuf,
    bridge: String,
    attached: u32,
}

impl Floor {
    /// On the host and the bridge of [`Mydocker`].
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn new(host: &Host) -> Self {
        host.sh(FLOOR_TABLE);
        let bridge = host.sh("ip -o link show dev n | cut -d: -f1");
        Self {
            binary: crate::binary().with_file_name("examples").join("floor"),
            bridge: bridge.trim().to_owned(),
            attached: 0,
        }
    }

    fn index(&self) -> String {
        (FIRST_INDEX + self.attached).to_string()
    }
}

impl Contender for Floor {
    fn name(&self) -> &str {
        "floor"
    }

    fn attach(&mut self, container: &Container) -> io::Result<()> {
        self.attached += 1;
        let port = container.port().to_string();
        let mut command = Command::new(&self.binary);
        command.args(["attach", "floor0", &self.index(), &self.bridge]);
        command.arg(&container.netns);
        command.args([&format!("{FLOOR}/16"), GATEWAY]).arg(port);
        run(&mut command, "").map(drop)
    }

    fn detach(&mut self, container: &Container) -> io::Result<()> {
        let port = container.port().to_string();
        let mut command = Command::new(&self.binary);
        command
            .args(["detach-announced", &self.index(), FLOOR])
            .arg(port);
        run(&mut command, "").map(drop)
    }
}

/// What somebody would write who knows `ip` and `nft`.
///
/// On the host and the bridge of [`Mydocker`], with the table of [`Floor`].
pub struct Script;

impl Contender for Script {
    fn name(&self) -> &str {
        "ip + nft"
    }

    fn attach(&mut self, container: &Container) -> io::Result<()> {
        let (netns, port) = (container.netns.display(), container.port());
        let script = format!(
            "set -e
             ip link add script0 up master n type veth peer name eth0 netns {netns}
             bridge link set dev script0 hairpin on
             nsenter --net={netns} ip -batch - <<END
link set lo up
addr add {SHELL}/16 dev eth0
link set eth0 up
route add default via {GATEWAY}
END
             nft add element inet floor publish '{{ tcp . {port} : {SHELL} . 80 }}'"
        );
        run(Command::new("sh").arg("-c").arg(script), "").map(drop)
    }

    fn detach(&mut self, container: &Container) -> io::Result<()> {
        let port = container.port();
        let script = format!(
            "set -e
             nft delete element inet floor publish '{{ tcp . {port} }}'
             ip link del script0"
        );
        run(Command::new("sh").arg("-c").arg(script), "").map(drop)
    }
}
