//! Many at once, on a real kernel: each batch is one transaction, all of it or nothing.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mydocker::engine::EngineError;
use mydocker::store::Options;
use mydocker_core::{AttachSpec, EndpointId, Request};
use mydocker_tests::{Call, Host};

/// More than the executor puts into one datagram, or asks for one by one.
const MANY: usize = 70;

const CREATE: &str = "network create --subnet 10.1.0.0/24 n";

fn name(number: usize) -> String {
    format!("c{number:03}")
}

fn attach(number: usize, sandbox: &Path) -> Request {
    let netns = sandbox.to_str().unwrap().parse().unwrap();
    let mut spec = AttachSpec::new("n".parse().unwrap(), name(number).parse().unwrap(), netns);
    spec.ports = vec![format!("{}:80", 8000 + number).parse().unwrap()];
    Request::Attach(spec)
}

fn detach(number: usize) -> Request {
    let (network, container) = ("n".parse().unwrap(), name(number).parse().unwrap());
    Request::Detach(EndpointId { network, container })
}

fn sandboxes(host: &Host) -> Vec<PathBuf> {
    (0..MANY)
        .map(|number| host.sandbox(&name(number)))
        .collect()
}

fn attaches(sandboxes: &[PathBuf]) -> Vec<Request> {
    let all = sandboxes.iter().enumerate();
    all.map(|(number, sandbox)| attach(number, sandbox))
        .collect()
}

#[test]
fn many_come_and_go_at_once() {
    let Some(host) = Host::new() else { return };
    let before = host.snapshot();
    host.ok(&format!("{CREATE} --subnet fd01::/64"));
    let sandboxes = sandboxes(&host);
    let mut engine = host.engine(Options::default());
    engine.apply_batch(&attaches(&sandboxes)).unwrap();
    assert_eq!(host.ok("network check"), "");
    let lan = host.neighbour("lan", "192.0.2.1/24", "192.0.2.9/24");
    for number in [0, MANY / 2, MANY - 1] {
        let port = 8000 + u16::try_from(number).unwrap();
        let call = Call {
            from: &lan,
            to: SocketAddr::new("192.0.2.1".parse().unwrap(), port),
            server: &sandboxes[number],
            port: 80,
        };
        call.tcp().unwrap();
    }
    host.sh("ip link del lan");
    // Some go while others come in their place.
    let mut mixed: Vec<Request> = (0..40).map(detach).collect();
    mixed.extend((0..40).map(|number| attach(number, &sandboxes[number])));
    engine.apply_batch(&mixed).unwrap();
    assert_eq!(host.ok("network check"), "");
    let all: Vec<Request> = (0..MANY).map(detach).collect();
    engine.apply_batch(&all).unwrap();
    assert_eq!(host.ok("network check"), "");
    host.ok("network remove n");
    drop(engine);
    host.assert_as(&before);
}

/// Somebody else's interface is in the way of one of them, in the middle of a datagram.
#[test]
fn one_that_fails_takes_all_back() {
    let Some(host) = Host::new() else { return };
    host.ok(CREATE);
    let sandboxes = sandboxes(&host);
    let foreign = &sandboxes[10];
    host.sh_in(foreign, "ip link add eth0 type bridge");
    let before = host.snapshot();
    let failed = host
        .engine(Options::default())
        .apply_batch(&attaches(&sandboxes));
    let error = failed.unwrap_err();
    assert!(matches!(error, EngineError::RolledBack(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("MoveToNs") && text.contains("c010"), "{text}");
    host.assert_as(&before);
    assert_eq!(host.ok("network check"), "");
    host.sh_in(foreign, "ip link show eth0 type bridge");
    assert_eq!(host.sh_in(&sandboxes[9], "ip -o link | wc -l").trim(), "1");
}

#[test]
fn a_network_goes_with_all_on_it() {
    let Some(host) = Host::new() else { return };
    let before = host.snapshot();
    for line in [CREATE, "network create other"] {
        host.ok(line);
    }
    for number in 0..9 {
        let sandbox = host.sandbox(&name(number));
        host.connect(
            "n",
            &name(number),
            &sandbox,
            &format!("-p {}:80", 8000 + number),
        );
    }
    let refused = host.fails(1, "network remove n");
    assert!(refused.contains("--force"), "{refused}");
    let with_all = host.snapshot();
    let dry = host.ok("network remove --force --dry-run n other nosuch");
    assert_eq!(dry.matches("DeleteVeth").count(), 9, "{dry}");
    assert_eq!(dry.matches("DeleteBridge").count(), 2, "{dry}");
    host.assert_as(&with_all);
    assert_eq!(
        host.ok("network remove -f n other nosuch"),
        "n\nother\nnosuch\n"
    );
    host.assert_as(&before);
}

/// One that is not there keeps the others where they are.
#[test]
fn several_disconnect_at_once_or_not_at_all() {
    let Some(host) = Host::new() else { return };
    host.ok(CREATE);
    let before = host.snapshot();
    for number in 0..6 {
        let sandbox = host.sandbox(&name(number));
        host.connect("n", &name(number), &sandbox, "");
    }
    let with_all = host.snapshot();
    let refused = host.fails(1, "network disconnect n c000 c001 nosuch c002");
    assert!(
        refused.contains("request 3") && refused.contains("nosuch"),
        "{refused}"
    );
    host.assert_as(&with_all);
    host.ok("network disconnect n c000 c001 c002 c003 c004 c005");
    host.assert_as(&before);
}
