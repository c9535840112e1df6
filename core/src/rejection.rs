//! Rejections: why a request was refused. Nothing was tried.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use ipnet::IpNet;

use crate::{
    ContainerName, EndpointId, LinkName, Mac, Netns, NetworkName, PortBinding, PortSpec, Process,
    SubnetError,
};

/// Why a request was refused. Every variant names the value and what would be right.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "fields are what their message says")]
pub enum Rejection {
    /// A transaction was begun and not ended.
    #[error("an earlier transaction was interrupted and must be resumed first")]
    Pending,
    /// The name is taken.
    #[error("network `{0}` exists already: choose another name, or remove it first")]
    NetworkExists(NetworkName),
    /// Nobody knows it.
    #[error("there is no network `{0}`")]
    NetworkUnknown(NetworkName),
    /// Somebody is on it.
    #[error(
        "network `{network}` has endpoints: disconnect {} first",
        Names(containers)
    )]
    NetworkInUse {
        network: NetworkName,
        containers: Vec<ContainerName>,
    },
    /// Joined already.
    #[error("container `{}` is on network `{}` already", .0.container, .0.network)]
    EndpointExists(EndpointId),
    /// Never joined.
    #[error("container `{}` is not on network `{}`", .0.container, .0.network)]
    EndpointUnknown(EndpointId),
    /// A subnet that can't be.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// A subnet that somebody has.
    #[error("subnet {subnet} overlaps {with}: choose another, or none for a free one")]
    Overlap { subnet: IpNet, with: Holder },
    /// No automatic subnet left.
    #[error(
        "no free subnet is left in the pools {}: name one with --subnet, or remove a network",
        Names(pools)
    )]
    NoFreeSubnet { pools: Vec<IpNet> },
    /// A gateway, range or route that fits no subnet.
    #[error(
        "{what} {value} is in none of the network's subnets {}",
        Names(subnets)
    )]
    InNoSubnet {
        what: &'static str,
        value: String,
        subnets: Vec<IpNet>,
    },
    /// A route that containers could not have.
    #[error("route to {destination} can't be: {reason}")]
    Route {
        destination: IpNet,
        reason: &'static str,
    },
    /// Two of something that a subnet has one of.
    #[error("subnet {subnet} has two of {what}: {first} and {second}; give one")]
    Twice {
        what: &'static str,
        subnet: IpNet,
        first: String,
        second: String,
    },
    /// An interface of that name is there, and not ours.
    #[error(
        "the host has an interface `{0}` already: choose another network name, or name the bridge yourself"
    )]
    LinkTaken(LinkName),
    /// A sum of things that is too large.
    #[error("{count} {what} are more than the {max} allowed")]
    TooMany {
        what: &'static str,
        count: usize,
        max: usize,
    },
    /// A text that is too long.
    #[error("{what} of {bytes} bytes is longer than the {bytes_max} allowed")]
    TooLong {
        what: &'static str,
        bytes: usize,
        bytes_max: usize,
    },
    /// An MTU that IP can't live with.
    #[error("mtu {mtu} is out of range: {min} to 65535")]
    Mtu { mtu: u32, min: u32 },
    /// An address outside the network.
    #[error(
        "address {address} is not in network `{network}`: its subnets are {}",
        Names(subnets)
    )]
    AddressOutside {
        address: IpAddr,
        network: NetworkName,
        subnets: Vec<IpNet>,
    },
    /// An address that somebody has.
    #[error("address {address} is {holder}")]
    AddressTaken { address: IpAddr, holder: Holder },
    /// A subnet without a free address.
    #[error(
        "subnet {subnet} of network `{network}` is exhausted: {leased} of {capacity} addresses are leased, to {}",
        Names(holders)
    )]
    Exhausted {
        network: NetworkName,
        subnet: IpNet,
        leased: u128,
        capacity: u128,
        holders: Vec<ContainerName>,
    },
    /// A MAC that somebody has.
    #[error("mac {mac} belongs to container `{holder}` on network `{network}`")]
    MacTaken {
        mac: Mac,
        network: NetworkName,
        holder: ContainerName,
    },
    /// A host port that somebody has.
    #[error("port {binding} is {holder}")]
    PortTaken {
        binding: PortBinding,
        holder: Holder,
    },
    /// A request that fights with itself.
    #[error("ports {first} and {second} overlap: give one of them")]
    PortTwice { first: PortSpec, second: PortSpec },
    /// A host address of a family that the endpoint has no address of.
    #[error(
        "port {0} can't be published: the container has no address of that family on network `{1}`"
    )]
    PortFamily(PortSpec, NetworkName),
    /// Port 0.
    #[error("port {0} can't be published: a port is a number from 1 to 65535")]
    PortZero(PortSpec),
    /// No free port is left to take.
    #[error(
        "port {0} can't be published: every port of the host from {first} to {last} is taken; name one below {first}, such as 8080:{port}",
        first = PortSpec::EPHEMERAL.start(),
        last = PortSpec::EPHEMERAL.end(),
        port = .0.container_port
    )]
    PortsExhausted(PortSpec),
    /// A publication that is not there.
    #[error(
        "port {port} is not published by container `{container}` on network `{network}`: \
         `mydocker network port ls {network} {container}` says which are",
        container = .id.container,
        network = .id.network
    )]
    PortUnknown { port: PortSpec, id: EndpointId },
    /// Ports to publish, or to publish no more, and none of them.
    #[error("no port is given for container `{}` on network `{}`: name one, such as 8080:80", .0.container, .0.network)]
    NoPorts(EndpointId),
    /// A gateway where there is none.
    #[error(
        "gateway {gateway} can't be: that family is isolated, and the host has no address there; leave it out, or choose another gateway mode"
    )]
    GatewayIsolated { gateway: IpAddr },
    /// Nothing gets in.
    #[error(
        "network `{network}` is internal, which nothing gets into: leave trusted interface `{trusted}` out"
    )]
    InternalTrusts {
        trusted: LinkName,
        network: NetworkName,
    },
    /// Nothing gets in.
    #[error(
        "port {0} can't be published: network `{1}` is isolated, and the host has no way to its containers"
    )]
    PortIsolated(PortSpec, NetworkName),
    /// An address of the host for a port that is not the host's.
    #[error(
        "port {port} can't be published at an address of the host: network `{network}` is routed, and its containers are reached at their own addresses; write {container}",
        container = .port.container_port
    )]
    PortRouted {
        port: PortSpec,
        network: NetworkName,
    },
    /// The container's own address for one of the host.
    #[error(
        "port {0} can't be published: that address is the container's own; name one of the host's, or none"
    )]
    PortOwnAddress(PortSpec),
    /// Nothing gets in.
    #[error("network `{0}` is internal and publishes no ports")]
    InternalPublishes(NetworkName),
    /// The container's interface name is taken.
    #[error("container `{container}` has an interface `{ifname}` already")]
    IfnameTaken {
        container: ContainerName,
        ifname: LinkName,
    },
    /// One container, two namespaces.
    #[error("container `{container}` lives in namespace {known}, not in {given}")]
    OtherSandbox {
        container: ContainerName,
        known: Netns,
        given: Netns,
    },
    /// One namespace, two containers.
    #[error("namespace {netns} is that of container `{holder}`: use that name")]
    SharedSandbox { netns: Netns, holder: ContainerName },
    /// The kernel's limit (`BR_MAX_PORTS`, net/bridge/br_private.h).
    #[error(
        "network `{network}` has {max} endpoints, and a bridge of this kernel takes no more: make another network"
    )]
    BridgeFull { network: NetworkName, max: usize },
    /// A key that is no setting of an interface.
    #[error(
        "`{0}` is not the key of an interface setting: write lower-case letters, digits and `_`, such as arp_notify"
    )]
    SettingKey(String),
    /// A setting that mydocker makes itself, or that is given twice.
    #[error("setting `{0}` is given twice, or made by mydocker itself: leave this one out")]
    SettingTwice(String),
    /// A name or key that an undo could not free.
    #[error(
        "{0} is still held by what a failed transaction left over: mydocker tries again to remove it with every command"
    )]
    LeftOver(String),
    /// One of several that are to be carried out together.
    #[error("request {} of the batch: {why}; nothing of the batch was tried", .at + 1)]
    InBatch { at: usize, why: Box<Self> },
    /// The bridge's own MAC.
    #[error("mac {mac} is that of the bridge of network `{network}`: choose another")]
    MacOfBridge { mac: Mac, network: NetworkName },
}

/// Who has what was asked for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Holder {
    /// An endpoint.
    #[error("held by container `{}` on network `{}`", .0.container, .0.network)]
    Endpoint(EndpointId),
    /// A program of the host.
    #[error(
        "listened on by {} of the host: stop it, or choose another port",
        Program(.0.as_ref())
    )]
    Listener(Option<Process>),
    /// What an undo could not remove.
    #[error(
        "held by what a failed transaction left over: mydocker tries again to remove it with every command"
    )]
    Debris,
    /// The subnet's own.
    #[error("reserved: it is the network, broadcast or gateway address, or set aside by name")]
    Reserved,
    /// Another network.
    #[error("{1} of network `{0}`")]
    Network(NetworkName, IpNet),
    /// Another subnet of the same request.
    #[error("{0} of the same network")]
    Sibling(IpNet),
    /// A route of the host.
    #[error("the host's route to {0}")]
    Route(IpNet),
}

/// `` `nginx` (pid 1234) ``, or what is said of who can't be seen.
struct Program<'a>(Option<&'a Process>);

impl fmt::Display for Program<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(process) => write!(f, "{process}"),
            None => f.write_str("a program"),
        }
    }
}

/// `a, b and c`, cut after a few.
struct Names<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Names<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        for (i, item) in self.0.iter().take(SHOWN).enumerate() {
            let last = i > 0 && i + 1 == self.0.len();
            f.write_str(if last {
                " and "
            } else if i > 0 {
                ", "
            } else {
                ""
            })?;
            write!(f, "{item}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
