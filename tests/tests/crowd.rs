//! A crowd: two hundred containers on one network, started and ended by eight commands at a time. Each has
//! an address of its own and answers there, and nothing is left of them.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mydocker_exec_netlink::netns::run_in;
use mydocker_tests::{Dock, eventually};
use serde_json::Value;

const CONTAINERS: usize = 200;
const AT_ONCE: usize = 8;
/// Each so many publish a port.
const PUBLISHED: usize = 10;
/// A server answers soon or never.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);

fn name(number: usize) -> String {
    format!("c{number:03}")
}

fn port(number: usize) -> Option<u16> {
    let publishes = number.is_multiple_of(PUBLISHED);
    publishes.then(|| u16::try_from(10_000 + number).unwrap())
}

/// Starts a server that tells the id of its container.
fn start(number: usize) -> String {
    let name = name(number);
    let port = port(number).map_or(String::new(), |port| format!("-p {port}:80"));
    format!("run -d --name {name} --net crowd {port} busybox httpd -f -p 80 -h /etc")
}

/// Runs a line for each container, so many at a time; all succeed. Says what it took.
fn each(dock: &Dock, what: &str, line: impl Fn(usize) -> String + Sync) {
    let (start, next) = (Instant::now(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= CONTAINERS {
                        break;
                    }
                    let output = dock.host.mydocker(&line(number));
                    let quiet = output.status.success() && output.stderr.is_empty();
                    assert!(quiet, "{}: {output:?}", line(number));
                }
            });
        }
    });
    eprintln!("{what}: {:?}", start.elapsed());
}

/// What a server says to whoever is in the calling thread's namespace.
fn ask(to: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, ANSWER_WAIT_MAX)?;
    stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
    stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().last().unwrap_or_default().to_owned())
}

struct Member {
    id: String,
    address: IpAddr,
    port: Option<u16>,
}

/// Who is there, by name: all of them run, and nothing that must be unique is there twice.
fn members(dock: &Dock) -> Vec<Member> {
    let mut rows: Vec<Value> = dock.ps();
    rows.sort_by_key(|row| row["name"].to_string());
    let mut unique = BTreeSet::new();
    let members = rows.iter().enumerate().map(|(number, row)| {
        assert_eq!(row["name"], name(number));
        assert_eq!(row["status"], "running", "{row}");
        for key in ["id", "pid", "ip"] {
            assert!(unique.insert(row[key].to_string()), "{key} twice: {row}");
        }
        let published = row["ports"].as_array().unwrap().len();
        assert_eq!(published, usize::from(port(number).is_some()), "{row}");
        Member {
            id: row["id"].as_str().unwrap().to_owned(),
            address: row["ip"][0].as_str().unwrap().parse().unwrap(),
            port: port(number),
        }
    });
    let members: Vec<Member> = members.collect();
    assert_eq!(members.len(), CONTAINERS);
    members
}

/// The host reaches each at its address, and by its published port.
fn check_from_the_host(dock: &Dock, members: &[Member]) {
    run_in(dock.host.ns(), || {
        for member in members {
            let there = SocketAddr::new(member.address, 80);
            let published = member.port.map(|port| (Ipv4Addr::LOCALHOST, port).into());
            for to in [Some(there), published].into_iter().flatten() {
                let mut said = String::new();
                // A container runs a moment before its server listens.
                eventually(&format!("{to} answers"), || {
                    ask(to).is_ok_and(|answer| {
                        said = answer;
                        true
                    })
                });
                assert_eq!(said, member.id, "{to}");
            }
        }
    })
    .unwrap();
}

/// Another container reaches each at its address.
fn check_from_a_container(dock: &Dock, members: &[Member]) {
    let addresses: Vec<String> = members
        .iter()
        .map(|member| member.address.to_string())
        .collect();
    let mut command = dock
        .host
        .mydocker_command("run --rm --net crowd busybox sh -ec");
    command.arg(format!(
        "for ip in {}; do wget -q -O - http://$ip/hostname; done",
        addresses.join(" ")
    ));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let ids: Vec<&str> = members.iter().map(|member| member.id.as_str()).collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), ids);
}

#[test]
fn two_hundred_containers_come_answer_and_go() {
    let Some(dock) = Dock::new() else { return };
    let before = dock.host.snapshot();
    dock.host.ok("network create --subnet 10.2.0.0/22 crowd");
    let free = dock.host.ok("network df");
    each(&dock, "started", start);
    dock.check_network("all run");
    let members = members(&dock);
    check_from_the_host(&dock, &members);
    check_from_a_container(&dock, &members);
    // A server without a word for SIGTERM is killed after that second.
    each(&dock, "stopped", |number| {
        format!("stop -t 1 {}", name(number))
    });
    assert!(
        dock.ps()
            .iter()
            .all(|row| row["status"] == "exited" && row["exit_code"] == 137)
    );
    assert_eq!(dock.host.ok("network df"), free, "no address, no port");
    each(&dock, "removed", |number| format!("rm {}", name(number)));
    assert!(dock.ps().is_empty());
    dock.host.ok("network remove crowd");
    dock.check_empty("all are removed");
    dock.host.assert_as(&before);
}

#[test]
fn two_hundred_containers_are_removed_while_they_run() {
    let Some(dock) = Dock::new() else { return };
    let before = dock.host.snapshot();
    dock.host.ok("network create --subnet 10.2.0.0/22 crowd");
    each(&dock, "started", start);
    assert_eq!(members(&dock).len(), CONTAINERS);
    each(&dock, "removed by force", |number| {
        format!("rm -f {}", name(number))
    });
    assert!(dock.ps().is_empty());
    dock.host.ok("network remove crowd");
    dock.check_empty("all are removed");
    dock.host.assert_as(&before);
}
