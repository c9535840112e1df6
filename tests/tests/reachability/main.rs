//! Who reaches whom: what `State::reach` says is what the rules come to, for every combination of
//! options, and what real packets do.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

mod model;
mod packets;

use std::collections::BTreeSet;
use std::net::IpAddr;

use mydocker_exec_dryrun::Uplink;
use mydocker_tests::word;

/// The host's interfaces, and a machine at the other end of each. Everything unknown is sent out by
/// the first.
const UPLINKS: [(&str, [&str; 2], [&str; 2]); 2] = [
    (
        "lan",
        ["192.0.2.1", "2001:db8::1"],
        ["192.0.2.9", "2001:db8::9"],
    ),
    (
        "vpn",
        ["198.51.100.1", "2001:db8:1::1"],
        ["198.51.100.9", "2001:db8:1::9"],
    ),
];

fn uplinks() -> Vec<Uplink> {
    let uplink = |(name, ours, _): (&str, [&str; 2], _)| Uplink {
        name: word(name),
        addresses: ours.map(word).into(),
    };
    UPLINKS.map(uplink).into()
}

/// The host's addresses on its uplinks.
fn hosts() -> BTreeSet<IpAddr> {
    uplinks()
        .into_iter()
        .flat_map(|uplink| uplink.addresses)
        .collect()
}
