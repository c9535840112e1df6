//! Ports that a program of the host has: they are refused with its name, or gone around.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::thread;
use std::time::Duration;

use mydocker_exec_netlink::netns::run_in;
use mydocker_tests::{Call, Host};

/// A host with a network of both families, and a container that is yet to be connected.
struct Scene {
    host: Host,
    web: PathBuf,
}

impl Scene {
    fn new() -> Option<Self> {
        let host = Host::new()?;
        let web = host.sandbox("web");
        host.ok("network create --subnet 10.0.0.0/24 --subnet fd00::/64 n");
        Some(Self { host, web })
    }

    /// Runs `f` in the host's namespace, on behalf of this very process.
    fn on_host<T: Send>(&self, f: impl FnOnce() -> std::io::Result<T> + Send) -> T {
        run_in(self.host.ns(), f).unwrap().unwrap()
    }

    fn connect(&self, ports: &str) -> String {
        format!(
            "network connect --netns {} {ports} n web",
            self.web.display()
        )
    }

    /// Publishing is refused with the name of this process, and touches nothing.
    #[track_caller]
    fn is_refused(&self, port: &str) {
        let before = self.host.snapshot();
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        let who = format!(
            "listened on by `{}` (pid {})",
            name.trim(),
            std::process::id()
        );
        let line = self.connect(&format!("-p {port}"));
        let dry = line.replace("connect", "connect --dry-run");
        for line in [line, dry] {
            let said = self.host.fails(1, &line);
            assert!(said.contains(&who), "{said}");
        }
        self.host.assert_as(&before);
    }

    /// Publishing works, and is taken back.
    #[track_caller]
    fn is_fine(&self, port: &str) {
        self.host.ok(&self.connect(&format!("-p {port}")));
        self.host.ok("network disconnect n web");
    }
}

#[test]
fn a_port_that_the_host_listens_on_is_refused() {
    let Some(scene) = Scene::new() else { return };
    for at in ["0.0.0.0:8080", "127.0.0.1:8080", "[::]:8080", "[::1]:8080"] {
        let at: SocketAddr = at.parse().unwrap();
        let listener = scene.on_host(|| TcpListener::bind(at));
        scene.is_refused("8080:80");
        scene.is_fine("8080:80/udp");
        drop(listener);
        let socket = scene.on_host(|| UdpSocket::bind(at));
        scene.is_refused("8080:80/udp");
        scene.is_fine("8080:80");
        drop(socket);
    }
}

#[test]
fn another_address_or_family_is_fine() {
    let Some(scene) = Scene::new() else { return };
    let _v4 = scene.on_host(|| TcpListener::bind("127.0.0.1:8080"));
    scene.is_refused("127.0.0.1:8080:80");
    scene.is_fine("127.0.0.2:8080:80");
    scene.is_fine("[::]:8080:80");
    let _v6 = scene.on_host(|| TcpListener::bind("[::1]:8081"));
    scene.is_refused("[::]:8081:80");
    scene.is_fine("0.0.0.0:8081:80");
}

/// moby#20486, moby#36591: "port is already allocated", and nobody listens.
#[test]
fn a_port_that_nobody_listens_on_is_free() {
    let Some(scene) = Scene::new() else { return };
    let Scene { host, web } = &scene;
    let listener = scene.on_host(|| TcpListener::bind("127.0.0.1:8080"));
    let stream = scene.on_host(|| TcpStream::connect("127.0.0.1:8080"));
    let from = stream.local_addr().unwrap().port();
    let (served, _) = listener.accept().unwrap();
    drop(listener);
    // One end of the connection has each of them, and both have been used before.
    for port in [8080, from] {
        scene.is_fine(&format!("{port}:80"));
    }
    host.ok(&scene.connect("-p 8080:80"));
    host.ok("network port add n web 8081:80 8080:80/udp");
    host.ok("network repair");
    let to = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 8080);
    let call = Call {
        from: host.ns(),
        to,
        server: web,
        port: 80,
    };
    call.tcp().unwrap();
    drop((stream, served));
}

#[test]
fn ports_of_a_running_container_are_looked_at_as_well() {
    let Some(scene) = Scene::new() else { return };
    let host = &scene.host;
    host.ok(&scene.connect("-p 8080:80"));
    let before = host.snapshot();
    let mut program = host.inside("busybox");
    program.args(["nc", "-ll", "-p", "8081", "-e", "cat"]);
    let mut child = program.stdout(Stdio::null()).spawn().unwrap();
    let listens = || !host.sh("ss -Hltn sport = :8081").is_empty();
    while !listens() {
        thread::sleep(Duration::from_millis(5));
    }
    let said = host.fails(1, "network port add n web 8082:82 8081:81");
    let pid = child.id();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(said.contains(&format!("`busybox` (pid {pid})")), "{said}");
    host.assert_as(&before);
    host.ok("network port add n web 8082:82 8081:81");
}

fn chosen(json: &[u8]) -> u16 {
    let endpoint: serde_json::Value = serde_json::from_slice(json).unwrap();
    let port = endpoint["ports"][0]["host_port"].as_u64().unwrap();
    port.try_into().unwrap()
}

#[test]
fn a_free_port_is_one_that_nobody_listens_on() {
    let Some(scene) = Scene::new() else { return };
    let Scene { host, .. } = &scene;
    let line = scene.connect("--format json -p 80");
    let first = chosen(host.ok(&line).as_bytes());
    host.ok("network disconnect n web");
    // The one that it would have, of one family, and the one after, of the other.
    let _v4 = scene.on_host(|| TcpListener::bind(("127.0.0.1", first)));
    let _v6 = scene.on_host(|| TcpListener::bind(("::1", first + 1)));
    assert_eq!(chosen(host.ok(&line).as_bytes()), first + 2);
}

#[test]
fn eight_at_a_time_choose_eight_ports() {
    let Some(scene) = Scene::new() else { return };
    let host = &scene.host;
    let start = |i: u32| {
        let path = host.sandbox(&format!("c{i}"));
        let path = path.display();
        let line = format!("network connect --format json --netns {path} -p 80 n c{i}");
        let mut command = host.mydocker_command(&line);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..8).map(start).collect();
    let outputs = children.into_iter().map(|c| c.wait_with_output().unwrap());
    let port = |output: Output| {
        assert!(output.status.success(), "{output:?}");
        chosen(&output.stdout)
    };
    let ports: BTreeSet<u16> = outputs.map(port).collect();
    assert_eq!(ports.len(), 8, "{ports:?}");
}
