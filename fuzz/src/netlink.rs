//! What the kernel sends.

use mydocker_exec_netlink::fuzzing;

/// A datagram as every kind of answer that is ever waited for, and the same bytes as entries of
/// iptables-legacy.
pub fn netlink(data: &[u8]) {
    fuzzing::datagram(data);
    fuzzing::legacy(data);
}
