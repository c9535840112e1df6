//! One step of a plan, and the command that does the same.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::flush::Flush;
use crate::{
    Dnat, Element, Family, Guard, Instance, Isolated, Link, Masquerade, Netns, Ns, Object, Passage,
    Pinhole, Route, Ruleset, Zone, ruleset,
};

/// Puts an object into the kernel or takes it out: the kernel's own grammar (NEWLINK, DELLINK).
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Create it.
    Add(Object),
    /// Remove it; succeeds when it is not there.
    Del(Object),
}

/// How the kernel answered an op.
pub type OpResult = Result<(), OpError>;

/// Why an op did not land, or may not have.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, thiserror::Error)]
#[error("{detail}")]
pub struct OpError {
    /// What it means for a plan.
    pub kind: ErrorKind,
    /// The kernel's words: errno name, extended acknowledgement.
    pub detail: String,
}

/// The kinds of failure that a transaction tells apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Something else already has its name or key (EEXIST).
    Exists,
    /// What it stands on is not there (ENODEV, ENOENT).
    Missing,
    /// Not allowed (EPERM, EACCES).
    Denied,
    /// In use (EBUSY).
    Busy,
    /// This kernel can't (EOPNOTSUPP).
    Unsupported,
    /// No answer came: it may have landed, and counts as if it had.
    InDoubt,
    /// Any other error number (errno.h).
    Os(i32),
}

impl Op {
    /// What takes it back.
    #[must_use]
    pub fn inverse(self) -> Self {
        match self {
            Self::Add(object) => Self::Del(object),
            Self::Del(object) => Self::Add(object),
        }
    }

    /// What it is about.
    #[must_use]
    pub fn object(&self) -> &Object {
        match self {
            Self::Add(object) | Self::Del(object) => object,
        }
    }

    /// The name users see.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let (add, del) = match self.object() {
            Object::Ruleset(_) => ("CreateRuleset", "DeleteRuleset"),
            Object::Zone(_) => ("AddZone", "DeleteZone"),
            Object::Masquerade(_) => ("AddMasquerade", "DeleteMasquerade"),
            Object::Dnat(_) => ("AddDnat", "DeleteDnat"),
            Object::Pinhole(_) => ("AddPinhole", "DeletePinhole"),
            Object::Guard(_) => ("AddGuard", "DeleteGuard"),
            Object::Passage(_) => ("AddPassage", "DeletePassage"),
            Object::Bridge(_) => ("CreateBridge", "DeleteBridge"),
            Object::Veth(_) => ("AddVeth", "DeleteVeth"),
            Object::Move(_) => ("MoveToNs", "MoveToHost"),
            Object::LooseEnd(_) => ("LeaveLooseEnd", "DeleteLooseEnd"),
            Object::Master(_) => ("SetMaster", "UnsetMaster"),
            Object::Hairpin(_) => ("SetHairpin", "UnsetHairpin"),
            Object::Isolated(_) => ("AddIsolated", "DeleteIsolated"),
            Object::LinkSysctl(_) => ("SetSysctl", "UnsetSysctl"),
            Object::Address(_) => ("AddAddress", "DeleteAddress"),
            Object::Up(_) => ("SetUp", "SetDown"),
            Object::Route(_) => ("AddRoute", "DeleteRoute"),
            Object::Forwarding(_) => ("EnableForwarding", "DisableForwarding"),
        };
        match self {
            Self::Add(_) => add,
            Self::Del(_) => del,
        }
    }

    /// What it acts on, in a word or two for a table.
    #[must_use]
    pub fn target(&self) -> impl fmt::Display + '_ {
        Target(self.object())
    }
}

struct Target<'a>(&'a Object);

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Object::Ruleset(instance) => f.write_str(&instance.table()),
            Object::Zone(Zone { bridge, .. }) => write!(f, "{bridge}"),
            Object::Masquerade(Masquerade { subnet, .. }) => write!(f, "{subnet}"),
            Object::Dnat(dnat) => write!(f, "{}", Key(dnat)),
            Object::Pinhole(Pinhole { protocol, to, .. }) => write!(f, "{to}/{protocol}"),
            Object::Guard(guard) => write!(f, "{}", guard.port),
            Object::Passage(passage) => write!(f, "{}", passage.chain),
            Object::Bridge(bridge) => write!(f, "{}", bridge.name),
            Object::Veth(veth) => write!(f, "{}", veth.name),
            Object::Move(moved) => write!(f, "{}", moved.to),
            Object::LooseEnd(end) => write!(f, "{}", end.link),
            Object::Master(master) => write!(f, "{}", master.link),
            Object::Hairpin(hairpin) => write!(f, "{}", hairpin.link),
            Object::Isolated(isolated) => write!(f, "{}", isolated.port),
            Object::LinkSysctl(sysctl) => write!(f, "{}", sysctl.link),
            Object::Address(address) => write!(f, "{}", address.link),
            Object::Up(up) => write!(f, "{}", up.link),
            Object::Route(route) => write!(f, "{}", route.link),
            Object::Forwarding(forwarding) => match forwarding.family {
                Family::V4 => f.write_str("ipv4"),
                Family::V6 => f.write_str("ipv6"),
            },
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ns {
            Ns::Host => write!(f, "{}", self.name),
            Ns::Sandbox(netns) => {
                write!(
                    f,
                    "{}@{}",
                    self.name,
                    netns.ip_netns_name().unwrap_or(netns.as_str())
                )
            }
        }
    }
}

/// The command that does the same: `ip -n web addr add 10.88.0.2/24 dev eth0`. Names stand behind
/// their keyword, for `ip` reads a bare `n` or `up` as a word of its own.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(object) => fmt_add(object, f),
            Self::Del(object) => fmt_del(object, f),
        }?;
        write!(f, "{}", Flush(self))
    }
}

fn fmt_add(object: &Object, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match object {
        Object::Ruleset(instance) => {
            write!(f, "nft -f - <<'EOF'\n{}\nEOF", Ruleset::of(*instance))
        }
        Object::Zone(Zone { instance, .. })
        | Object::Masquerade(Masquerade { instance, .. })
        | Object::Dnat(Dnat { instance, .. })
        | Object::Pinhole(Pinhole { instance, .. })
        | Object::Guard(Guard { instance, .. })
        | Object::Isolated(Isolated { instance, .. }) => fmt_elements(object, f, |element, f| {
            let (family, set) = (element.table, element.set);
            let table = instance.table();
            write!(f, "add element {family} {table} {set} {{ {element} }}")
        }),
        Object::Passage(passage) => {
            let (chain, rule, comment) = (&passage.chain, Passage::rule(), passage.comment());
            write!(f, "nft 'insert rule {chain} {rule} comment \"{comment}\"'")
        }
        // `ip` takes no group for a device that is yet to be made, as netlink does.
        Object::Bridge(bridge) => {
            let (name, mac, mtu) = (bridge.name, bridge.mac, bridge.mtu_bytes);
            let group = bridge.group();
            write!(
                f,
                "ip link add name {name} address {mac} mtu {mtu} type bridge; "
            )?;
            write!(f, "ip link set dev {name} group {group}")
        }
        Object::Veth(veth) => {
            let (name, peer, mtu) = (veth.name, veth.peer(), veth.mtu_bytes);
            let group = veth.instance.cable_group();
            let end = format!("mtu {mtu} numtxqueues 1 numrxqueues 1");
            write!(
                f,
                "ip link add name {name} {end} type veth peer name {peer} {end}; "
            )?;
            write!(
                f,
                "ip link set dev {name} group {group}; ip link set dev {peer} group {group}"
            )
        }
        Object::Move(moved) => {
            let (peer, mac, name) = (moved.peer(), moved.mac, moved.to.name);
            write!(
                f,
                "ip link set dev {peer} address {mac} netns {} name {name}",
                Place(&moved.to.ns)
            )
        }
        // Nobody adds one.
        Object::LooseEnd(_) => f.write_str(":"),
        Object::Master(master) => write!(
            f,
            "ip link set dev {} master {} addrgenmode none up",
            master.link, master.bridge
        ),
        Object::Hairpin(hairpin) => write!(f, "bridge link set dev {} hairpin on", hairpin.link),
        Object::LinkSysctl(sysctl) => {
            // With slashes, since an interface name may have dots of its own.
            let family = match sysctl.family {
                Family::V4 => "ipv4",
                Family::V6 => "ipv6",
            };
            let (name, key, value) = (sysctl.link.name, &sysctl.key, sysctl.value);
            write!(f, "{}sysctl -qw ", Inside(&sysctl.link.ns))?;
            write!(f, "net/{family}/conf/{name}/{key}={value}")
        }
        Object::Address(address) => {
            let nodad = match Family::of(address.address.addr()) {
                Family::V4 => "",
                Family::V6 => " nodad",
            };
            let link = &address.link;
            write!(
                f,
                "{} addr add {} dev {}{nodad}",
                Ip(&link.ns),
                address.address,
                link.name
            )
        }
        Object::Up(up) => write!(f, "{} link set dev {} up", Ip(&up.link.ns), up.link.name),
        Object::Route(route) => fmt_route("add", route, f),
        Object::Forwarding(forwarding) => {
            write!(f, "sysctl -qw {}=1", forwarding_key(forwarding.family))
        }
    }
}

fn fmt_del(object: &Object, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match object {
        Object::Ruleset(instance) => {
            let table = instance.table();
            write!(
                f,
                "nft 'delete table inet {table}; delete table bridge {table}'"
            )
        }
        Object::Zone(Zone { instance, .. })
        | Object::Masquerade(Masquerade { instance, .. })
        | Object::Dnat(Dnat { instance, .. })
        | Object::Pinhole(Pinhole { instance, .. })
        | Object::Guard(Guard { instance, .. })
        | Object::Isolated(Isolated { instance, .. }) => fmt_elements(object, f, |element, f| {
            let (family, set, key) = (element.table, element.set, ruleset::Key(element));
            let table = instance.table();
            write!(f, "delete element {family} {table} {set} {{ {key} }}")
        }),
        Object::Passage(passage) => fmt_del_passage(passage, f),
        Object::Bridge(bridge) => write!(f, "ip link del dev {}", bridge.name),
        Object::Veth(veth) => write!(f, "ip link del dev {}", veth.name),
        Object::Move(moved) => {
            let (ip, name, peer) = (Ip(&moved.to.ns), moved.to.name, moved.peer());
            write!(f, "{ip} link set dev {name} netns $$ name {peer}")
        }
        Object::LooseEnd(end) => write!(f, "{} link del dev {}", Ip(&end.link.ns), end.link.name),
        Object::Master(master) => write!(f, "ip link set dev {} nomaster down", master.link),
        Object::Hairpin(hairpin) => write!(f, "bridge link set dev {} hairpin off", hairpin.link),
        Object::LinkSysctl(_) => f.write_str(":"),
        Object::Address(address) => {
            let link = &address.link;
            write!(
                f,
                "{} addr del {} dev {}",
                Ip(&link.ns),
                address.address,
                link.name
            )
        }
        Object::Up(up) => write!(f, "{} link set dev {} down", Ip(&up.link.ns), up.link.name),
        Object::Route(route) => fmt_route("del", route, f),
        Object::Forwarding(forwarding) => {
            write!(f, "sysctl -qw {}=0", forwarding_key(forwarding.family))
        }
    }
}

/// All elements of an object in one `nft` command: all of them or none.
fn fmt_elements(
    object: &Object,
    f: &mut fmt::Formatter<'_>,
    each: impl Fn(&Element, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    f.write_str("nft '")?;
    for (index, element) in object.elements().iter().enumerate() {
        f.write_str(if index > 0 { "; " } else { "" })?;
        each(element, f)?;
    }
    f.write_str("'")
}

/// A rule is deleted by the number that the kernel gave it.
fn fmt_del_passage(passage: &Passage, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (chain, comment) = (&passage.chain, passage.comment());
    write!(f, "nft -a list chain {chain} | ")?;
    write!(
        f,
        "sed -n 's/.* accept comment \"{comment}\" # handle /handle /p' | "
    )?;
    write!(f, "xargs -r -L 1 nft delete rule {chain}")
}

fn fmt_route(verb: &str, route: &Route, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let family = match Family::of(route.via) {
        Family::V4 => "",
        Family::V6 => " -6",
    };
    write!(f, "{}{family} route {verb} ", Ip(&route.link.ns))?;
    match route.destination.prefix_len() {
        0 => f.write_str("default")?,
        _ => write!(f, "{}", route.destination)?,
    }
    write!(f, " via {} dev {}", route.via, route.link.name)?;
    write!(f, " proto {}", Instance::ROUTE_PROTOCOL)?;
    route
        .metric
        .map_or(Ok(()), |metric| write!(f, " metric {metric}"))
}

fn forwarding_key(family: Family) -> &'static str {
    match family {
        Family::V4 => "net.ipv4.ip_forward",
        Family::V6 => "net.ipv6.conf.all.forwarding",
    }
}

/// `ip`, in the right namespace.
struct Ip<'a>(&'a Ns);

impl fmt::Display for Ip<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ns::Host => f.write_str("ip"),
            Ns::Sandbox(netns) => match netns.ip_netns_name() {
                Some(name) => write!(f, "ip -n {name}"),
                None => write!(f, "{}ip", Inside(self.0)),
            },
        }
    }
}

/// What to put before any other command to run it in a namespace.
struct Inside<'a>(&'a Ns);

impl fmt::Display for Inside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ns::Host => Ok(()),
            Ns::Sandbox(netns) => write!(f, "nsenter --net={netns} "),
        }
    }
}

/// A namespace as `ip link set … netns` takes it: a name under /run/netns, or any path.
struct Place<'a>(&'a Ns);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |netns: &Netns| netns.ip_netns_name().map(String::from);
        match self.0 {
            Ns::Host => f.write_str("$$"),
            Ns::Sandbox(netns) => match name(netns) {
                Some(name) => f.write_str(&name),
                None => write!(f, "{netns}"),
            },
        }
    }
}

/// The element's key as people write it: `8080/tcp`, `127.0.0.1:8080/tcp`.
struct Key<'a>(&'a Dnat);

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dnat {
            at, protocol, port, ..
        } = self.0;
        match at {
            Some(ip @ IpAddr::V4(_)) => write!(f, "{ip}:")?,
            Some(ip @ IpAddr::V6(_)) => write!(f, "[{ip}]:")?,
            None => {}
        }
        write!(f, "{port}/{protocol}")
    }
}
