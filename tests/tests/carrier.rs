//! Whether packets pass as soon as a command has ended, whatever the kernel puts off.

use mydocker_tests::Host;

/// Else a first connection waits for a second: until the kernel has looked at the cable's carrier, the
/// bridge drops what is for it.
#[test]
fn a_bridge_forwards_to_a_container_as_soon_as_it_is_attached() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --subnet 10.0.0.0/24 n");
    for number in 0..20 {
        let name = format!("c{number}");
        host.connect("n", &name, &host.sandbox(&name), "");
        // `ip link show` of one would have it look.
        let ports = host.sh("bridge link show");
        assert_eq!(ports.lines().count(), number + 1, "{ports}");
        let forwards = |port: &str| port.contains("state forwarding");
        assert!(ports.lines().all(forwards), "{ports}");
    }
}
