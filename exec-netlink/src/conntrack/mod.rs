//! Tracked connections that outlive what they were made through, and their end.
//!
//! A connection is translated as its first packet was, whatever the ruleset says since. So what
//! unpublishes a port or gives back an address ends the connections that it led to, and what
//! publishes a UDP port ends those that a client's datagrams made while nobody did: a client that
//! keeps sending would never reach the container. And a container whose walls somebody took down
//! keeps no visitor that came meanwhile, for what is established passes them.
//!
//! A kernel that can't list its connections (no `nf_conntrack_netlink`) keeps them until they time
//! out, and nothing fails for that.

mod entry;
#[cfg(test)]
mod kernel_test;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use mydocker_core::{Dnat, Family, Object, Op, OpError, Protocol};

use crate::netlink::{Message, messages};
use crate::route;
use crate::rtnl::RouteSocket;
use entry::Connection;
pub(crate) use socket::ConntrackSocket;

/// Endings that the kernel is asked for one at a time; it passes over its table's empty buckets in
/// half a millisecond for each, and takes nine to list what is in it.
const ENDINGS_MAX: usize = 8;

/// Passes that look for something each; what would take more looks at everything, once.
const PASSES_MAX: usize = 8;
/// As many connections are read in the time that an empty table is walked through once more: ten
/// milliseconds for its 262,144 buckets, which all namespaces share.
const READ_MAX: u32 = 4096;

/// Ends the connections that `ops`, all of which landed, leave behind.
pub(crate) fn flush<'a>(
    socket: &mut ConntrackSocket,
    routes: &mut RouteSocket,
    ops: impl Iterator<Item = &'a Op> + Clone,
) -> Result<(), OpError> {
    let mut stale = Stale::after(ops);
    if stale.is_empty() {
        return Ok(());
    }
    let count = socket.count()?;
    if count == 0 {
        return Ok(());
    }
    let endings = stale.endings();
    if endings.len() <= ENDINGS_MAX && socket.end_all(&endings)? {
        stale.forget_endings();
    }
    if stale.is_empty() {
        return Ok(());
    }
    let mut local = BTreeMap::new();
    for pass in stale.passes(count) {
        for connection in socket.list(pass)? {
            let is_local = |address| match local.get(&address) {
                Some(known) => *known,
                None => *local
                    .entry(address)
                    .or_insert(route::is_local(routes, address)),
            };
            if stale.has(&connection, is_local) {
                socket.end(&connection)?;
            }
        }
    }
    Ok(())
}

/// Whether an op leaves connections behind that are to end.
pub(crate) fn leaves_some(op: &Op) -> bool {
    matches!(op, Op::Add(Object::Ruleset(_))) || !Stale::after(std::iter::once(op)).is_empty()
}

/// The connections that a run of ops leaves behind.
#[derive(Debug, Default)]
struct Stale {
    /// Bindings that are no more, by what their connections have in common: the host addresses.
    unpublished: BTreeMap<(Protocol, u16, SocketAddr), BTreeSet<Option<IpAddr>>>,
    /// UDP ports that were not published before: the host addresses.
    published: BTreeMap<(Family, u16), BTreeSet<Option<IpAddr>>>,
    /// Addresses that are nobody's any more.
    released: BTreeSet<IpAddr>,
    /// Addresses that had no wall around them: they are guarded again together with everybody.
    exposed: BTreeSet<IpAddr>,
}

/// Connections that the kernel can be told to end without listing them.
///
/// None of IPv6, of which it would end all but those (see [`Pass::V6`]), and none of a port of SCTP,
/// whose ports it does not compare (`ctnetlink_filter_match_tuple`).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Ending {
    /// An address opened them.
    From(Ipv4Addr),
    /// An address answers them.
    AnsweredBy(Ipv4Addr),
    /// A published port, of one address of the host or of all, led them to a container.
    Led {
        protocol: Protocol,
        at: Option<Ipv4Addr>,
        port: u16,
        to: SocketAddrV4,
    },
}

/// What the connections of one walk through the kernel's table have in common.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Pass {
    /// Nothing.
    All,
    /// They are of IPv6. To look for one address is no use: the kernel then lists all but that
    /// (`ctnetlink_filter_match_tuple`, net/netfilter/nf_conntrack_netlink.c, as of 6.18).
    V6,
    /// An address opened them.
    From(Ipv4Addr),
    /// An address answers them, whichever they were opened to.
    AnsweredBy(Ipv4Addr),
    /// They are datagrams to a port, whatever the address.
    Udp(Family, u16),
}

impl Pass {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::From(v4),
            IpAddr::V6(_) => Self::V6,
        }
    }

    fn answered_by(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::AnsweredBy(v4),
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl Stale {
    fn after<'a>(ops: impl Iterator<Item = &'a Op> + Clone) -> Self {
        let mut stale = Self::default();
        for op in ops.clone() {
            match op {
                Op::Del(Object::Dnat(dnat)) => {
                    let key = (dnat.protocol, dnat.port, dnat.to);
                    stale.unpublished.entry(key).or_default().insert(dnat.at);
                }
                Op::Add(Object::Dnat(dnat)) if dnat.protocol == Protocol::Udp => {
                    let Dnat { at, port, to, .. } = dnat;
                    let key = (Family::of(to.ip()), *port);
                    stale.published.entry(key).or_default().insert(*at);
                }
                Op::Del(Object::Guard(guard)) => stale.released.extend(guard.routed()),
                Op::Add(_) | Op::Del(_) => {}
            }
        }
        let raised = |op| matches!(op, &Op::Add(Object::Ruleset(_)));
        let walls_were_down = ops.clone().any(raised);
        // A repair makes a guard anew, and its container lives on.
        for op in ops {
            if let Op::Add(Object::Guard(guard)) = op {
                for address in guard.routed() {
                    stale.released.remove(&address);
                    stale.exposed.extend(walls_were_down.then_some(address));
                }
            }
        }
        stale
    }

    fn is_empty(&self) -> bool {
        self.unpublished.is_empty()
            && self.published.is_empty()
            && self.released.is_empty()
            && self.exposed.is_empty()
    }

    /// What of it the kernel can end by itself. Whose address is given back loses all connections, those
    /// of published ports among them.
    fn endings(&self) -> BTreeSet<Ending> {
        let released = self.released.iter().filter_map(|address| v4(*address));
        let mut all: BTreeSet<Ending> = released
            .flat_map(|address| [Ending::From(address), Ending::AnsweredBy(address)])
            .collect();
        for ((protocol, port, to), hosts) in &self.unpublished {
            let (protocol, port) = (*protocol, *port);
            let SocketAddr::V4(to) = *to else { continue };
            if protocol == Protocol::Sctp || self.released.contains(&(*to.ip()).into()) {
                continue;
            }
            for at in hosts {
                let at = at.and_then(v4);
                all.insert(Ending::Led {
                    protocol,
                    at,
                    port,
                    to,
                });
            }
        }
        all
    }

    /// Leaves what is not among [`Self::endings`].
    fn forget_endings(&mut self) {
        let released = &self.released;
        self.unpublished.retain(|(protocol, _, to), _| match to {
            SocketAddr::V4(to) => {
                *protocol == Protocol::Sctp && !released.contains(&(*to.ip()).into())
            }
            SocketAddr::V6(_) => true,
        });
        self.released.retain(IpAddr::is_ipv6);
    }

    /// The walks that come by all of them, through a table of `count` connections.
    fn passes(&self, count: u32) -> BTreeSet<Pass> {
        let released = self.released.iter().copied();
        let mut all: BTreeSet<Pass> = released
            .flat_map(|address| [Pass::from(address), Pass::answered_by(address)])
            .collect();
        let exposed = self.exposed.iter().copied();
        all.extend(exposed.map(Pass::answered_by));
        let answering = self.unpublished.keys().map(|(_, _, to)| to.ip());
        all.extend(answering.map(Pass::answered_by));
        let ports = self.published.keys();
        all.extend(ports.map(|(family, port)| Pass::Udp(*family, *port)));
        if all.contains(&Pass::V6) {
            all.retain(|pass| !matches!(pass, Pass::Udp(Family::V6, _)));
        }
        if all.len() > PASSES_MAX || all.len() > 1 && count <= READ_MAX {
            all = BTreeSet::from([Pass::All]);
        }
        all
    }

    fn has(&self, connection: &Connection, is_local: impl FnMut(IpAddr) -> bool) -> bool {
        self.released.contains(&connection.source.ip())
            || self.released.contains(&connection.answers.ip())
            || self.came_in(connection)
            || self.was_led(connection)
            || self.missed(connection, is_local)
    }

    /// Whether it was opened to an address that had no wall around it, past every published port. If
    /// it may be, its next packet opens it anew.
    fn came_in(&self, connection: &Connection) -> bool {
        let Connection {
            answers,
            destination,
            ..
        } = connection;
        answers == destination && self.exposed.contains(&answers.ip())
    }

    /// Whether it went through a binding that is no more.
    fn was_led(&self, connection: &Connection) -> bool {
        let Some(protocol) = Protocol::of_number(connection.protocol) else {
            return false;
        };
        let (ip, port) = (connection.destination.ip(), connection.destination.port());
        let hosts = self.unpublished.get(&(protocol, port, connection.answers));
        hosts.is_some_and(|hosts| hosts.contains(&None) || hosts.contains(&Some(ip)))
    }

    /// Whether it would have gone through a binding that was not there yet. What only passes
    /// through the host, such as a container's questions to a name server, has other addresses.
    fn missed(&self, connection: &Connection, mut is_local: impl FnMut(IpAddr) -> bool) -> bool {
        let (ip, port) = (connection.destination.ip(), connection.destination.port());
        if connection.protocol != Protocol::Udp.number()
            || connection.answers != connection.destination
        {
            return false;
        }
        let hosts = self.published.get(&(Family::of(ip), port));
        hosts
            .is_some_and(|hosts| hosts.contains(&Some(ip)) || hosts.contains(&None) && is_local(ip))
    }
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// Reads any message, and names the connection that it is about again.
pub(crate) fn fuzz(message: &Message<'_>) {
    let _ = entry::counted(message);
    if let Some(connection) = Connection::decode(message) {
        assert!(messages(&connection.delete()).count() == 1);
        let mut stale = Stale::default();
        stale.exposed.insert(connection.answers.ip());
        let _ = stale.has(&connection, |_| true);
    }
}

#[cfg(test)]
mod tests {
    use mydocker_core::{Guard, Instance};

    use super::*;

    fn dnat(at: Option<&str>, protocol: Protocol, port: u16, to: &str) -> Object {
        Object::Dnat(Dnat {
            instance: Instance::DEFAULT,
            at: at.map(|at| at.parse().unwrap()),
            protocol,
            port,
            to: to.parse().unwrap(),
        })
    }

    fn guard(addresses: &[&str]) -> Object {
        Object::Guard(Guard {
            instance: Instance::DEFAULT,
            port: "mdv0".parse().unwrap(),
            mac: "02:6d:0a:00:00:02".parse().unwrap(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        })
    }

    fn connection(protocol: Protocol, [source, destination, answers]: [&str; 3]) -> Connection {
        Connection {
            protocol: protocol.number(),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            answers: answers.parse().unwrap(),
            key: Vec::new(),
        }
    }

    fn is_local(address: IpAddr) -> bool {
        ["192.0.2.1", "127.0.0.1", "2001:db8::1"].contains(&address.to_string().as_str())
    }

    fn ends(ops: &[Op], protocol: Protocol, addresses: [&str; 3]) -> bool {
        Stale::after(ops.iter()).has(&connection(protocol, addresses), is_local)
    }

    /// moby#53384: the port of the host and that of the container are two.
    #[test]
    fn what_went_through_a_binding_that_is_no_more() {
        use Protocol::{Tcp, Udp};
        let (client, to) = ("192.0.2.9:1", "10.0.0.2:80");
        let gone = [Op::Del(dnat(None, Tcp, 8080, to))];
        assert!(ends(&gone, Tcp, [client, "192.0.2.1:8080", to]));
        assert!(ends(&gone, Tcp, [client, "192.0.2.7:8080", to]));
        assert!(!ends(&gone, Udp, [client, "192.0.2.1:8080", to]));
        assert!(!ends(&gone, Tcp, [client, "192.0.2.1:8081", to]));
        assert!(!ends(&gone, Tcp, [client, "192.0.2.1:8080", "10.0.0.2:81"]));
        assert!(!ends(&gone, Tcp, [client, "192.0.2.1:8080", "10.0.0.3:80"]));
        assert!(!ends(&gone, Tcp, [client, to, to]), "not by the binding");
        let one = [Op::Del(dnat(Some("192.0.2.1"), Tcp, 8080, to))];
        assert!(ends(&one, Tcp, [client, "192.0.2.1:8080", to]));
        assert!(!ends(&one, Tcp, [client, "127.0.0.1:8080", to]));
    }

    #[test]
    fn what_came_before_the_port_was_published() {
        use Protocol::{Tcp, Udp};
        let to = "10.0.0.2:53";
        let added = [Op::Add(dnat(None, Udp, 53, to))];
        let both =
            |ops: &[Op], destination| ends(ops, Udp, ["10.0.0.7:1", destination, destination]);
        assert!(both(&added, "192.0.2.1:53"));
        assert!(!both(&added, "192.0.2.1:54"));
        assert!(!both(&added, "8.8.8.8:53"), "passes through");
        assert!(!both(&added, "[2001:db8::1]:53"), "of the other family");
        assert!(!ends(
            &added,
            Tcp,
            ["10.0.0.7:1", "192.0.2.1:53", "192.0.2.1:53"]
        ));
        assert!(!ends(
            &added,
            Udp,
            ["10.0.0.7:1", "192.0.2.1:53", "10.0.0.3:53"]
        ));
        let one = [Op::Add(dnat(Some("127.0.0.1"), Udp, 53, to))];
        assert!(both(&one, "127.0.0.1:53") && !both(&one, "192.0.2.1:53"));
        let v6 = [Op::Add(dnat(None, Udp, 53, "[fd00::2]:53"))];
        assert!(both(&v6, "[2001:db8::1]:53") && !both(&v6, "192.0.2.1:53"));
        let tcp = Op::Add(dnat(None, Tcp, 53, to));
        assert!(
            !leaves_some(&tcp),
            "nothing that is sent is sent in vain for long"
        );
    }

    #[test]
    fn what_an_address_had_that_is_nobodys_now() {
        use Protocol::Tcp;
        let gone = Op::Del(guard(&["10.0.0.2", "fd00::2", "fe80::2"]));
        let ops = [gone.clone()];
        assert!(ends(&ops, Tcp, ["10.0.0.2:1", "8.8.8.8:53", "8.8.8.8:53"]));
        assert!(ends(
            &ops,
            Tcp,
            ["192.0.2.9:1", "192.0.2.1:8080", "10.0.0.2:80"]
        ));
        assert!(ends(
            &ops,
            Tcp,
            ["[fd00::9]:1", "[fd00::2]:80", "[fd00::2]:80"]
        ));
        assert!(!ends(
            &ops,
            Tcp,
            ["[fe80::2]:1", "[fe80::9]:80", "[fe80::9]:80"]
        ));
        assert!(!ends(&ops, Tcp, ["10.0.0.3:1", "8.8.8.8:53", "8.8.8.8:53"]));
        let again = [gone, Op::Add(guard(&["10.0.0.2", "fe80::2"]))];
        assert!(!ends(
            &again,
            Tcp,
            ["10.0.0.2:1", "8.8.8.8:53", "8.8.8.8:53"]
        ));
        assert!(ends(
            &again,
            Tcp,
            ["[fd00::2]:1", "[fd00::9]:80", "[fd00::9]:80"]
        ));
    }

    #[test]
    fn what_came_in_while_there_were_no_walls() {
        use Protocol::Tcp;
        let raised = Op::Add(Object::Ruleset(Instance::DEFAULT));
        let again = [raised, Op::Add(guard(&["10.0.0.2"]))];
        let (client, web) = ("192.0.2.9:1", "10.0.0.2:80");
        assert!(ends(&again, Tcp, [client, web, web]));
        assert!(
            !ends(&again, Tcp, [client, "192.0.2.1:8080", web]),
            "published"
        );
        assert!(
            !ends(&again, Tcp, ["10.0.0.2:1", client, client]),
            "its own"
        );
        assert!(!ends(&again[1..], Tcp, [client, web, web]), "they stood");
    }

    #[test]
    fn what_the_kernel_ends_by_itself() {
        use Protocol::{Sctp, Tcp};
        let to = "10.0.0.2:80".parse().unwrap();
        let led = |protocol, at| Ending::Led {
            protocol,
            at,
            port: 8080,
            to,
        };
        let mut ops = vec![
            Op::Del(dnat(None, Tcp, 8080, "10.0.0.2:80")),
            Op::Del(dnat(Some("192.0.2.1"), Tcp, 8080, "10.0.0.2:80")),
            Op::Del(dnat(None, Sctp, 8080, "10.0.0.2:80")),
            Op::Del(dnat(None, Tcp, 8080, "[fd00::2]:80")),
        ];
        let mut stale = Stale::after(ops.iter());
        let one = Some(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(stale.endings(), [led(Tcp, None), led(Tcp, one)].into());
        stale.forget_endings();
        assert_eq!(stale.unpublished.len(), 2);
        assert!(stale.endings().is_empty() && !stale.is_empty());
        ops.push(Op::Del(guard(&["10.0.0.2", "fd00::2"])));
        let mut stale = Stale::after(ops.iter());
        let address = *to.ip();
        let all = [Ending::From(address), Ending::AnsweredBy(address)];
        assert_eq!(stale.endings(), all.into());
        stale.forget_endings();
        assert_eq!((stale.unpublished.len(), stale.released.len()), (1, 1));
    }

    #[test]
    fn a_few_passes_each_for_something_or_one_for_all() {
        let of = |ports: std::ops::Range<u16>| -> Vec<Op> {
            let to = |port| format!("10.0.0.2:{port}");
            ports
                .map(|port| Op::Del(dnat(None, Protocol::Tcp, port, &to(port))))
                .collect()
        };
        let passes = |ops: &[Op]| Stale::after(ops.iter()).passes(READ_MAX + 1);
        let address = Ipv4Addr::new(10, 0, 0, 2);
        let mut ops = of(1..5001);
        assert_eq!(passes(&ops), [Pass::AnsweredBy(address)].into());
        ops.push(Op::Del(guard(&["10.0.0.2"])));
        let own = [Pass::From(address), Pass::AnsweredBy(address)];
        assert_eq!(passes(&ops), own.into());
        let few = Stale::after(ops.iter()).passes(READ_MAX);
        assert_eq!(few, [Pass::All].into());
        ops.extend((1..100).map(|port| Op::Add(dnat(None, Protocol::Udp, port, "10.0.0.9:1"))));
        assert_eq!(passes(&ops), [Pass::All].into());
        assert!(passes(&[]).is_empty());
        let v6 = [
            Op::Add(dnat(None, Protocol::Udp, 53, "[fd00::2]:53")),
            Op::Del(guard(&["fd00::3"])),
        ];
        assert_eq!(passes(&v6[..1]), [Pass::Udp(Family::V6, 53)].into());
        assert_eq!(passes(&v6), [Pass::V6].into());
    }
}
