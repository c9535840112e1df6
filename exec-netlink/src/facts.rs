//! What planning needs to know of the host.

use std::collections::BTreeSet;

use mydocker_core::{Facts, Family, OpError};

use crate::home::Home;
use crate::rtnl::RouteSocket;
use crate::{legacy, link, route, sysctl};

/// Lists the host's links and routes, reads whether it forwards and asks iptables-legacy.
pub(crate) fn gather(socket: &mut RouteSocket, home: &Home) -> Result<Facts, OpError> {
    let links = socket.dump(&link::list(), link::Seen::decode)?;
    let mut routes = socket.dump(&route::list(), route::Seen::decode)?;
    routes.retain(route::Seen::leads_away);
    let families = || [Family::V4, Family::V6].into_iter();
    let (forwarding, legacy_drops) = home.inside(|| {
        let forwarding = families().filter(|family| sysctl::forwards(*family));
        let dropping = families().filter(|family| legacy::drops_forwarded(*family));
        (forwarding.collect(), dropping.collect())
    })?;
    let ways_out: BTreeSet<u32> = routes
        .iter()
        .filter(|route| route.destination.prefix_len() == 0)
        .filter_map(|route| route.index)
        .collect();
    let mtu_bytes = links
        .iter()
        .filter(|link| ways_out.contains(&link.index))
        .map(|link| link.mtu_bytes)
        .min();
    let destinations: BTreeSet<_> = routes.iter().map(|route| route.destination).collect();
    Ok(Facts {
        routes: destinations.into_iter().collect(),
        links: links.into_iter().map(|link| link.name).collect(),
        forwarding,
        mtu_bytes,
        gone: BTreeSet::new(),
        listeners: Vec::new(),
        forward_chains: Vec::new(),
        legacy_drops,
    })
}
