//! Solicited-node groups, to which neighbours send when they look for an IPv6 address (RFC 4291, 2.7.1).

use std::fs::File;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use mydocker_core::{Address, LinkName, Ns};

use crate::home::{Home, open};

/// What a thread's namespace listens to. Source: proc_pid_net(5).
const LIST: &str = "/proc/thread-self/net/igmp6";
/// How long a worker of the kernel may take; mostly it was there before.
const PATIENCE: Duration = Duration::from_millis(100);
const POLL_MIN: Duration = Duration::from_micros(20);

/// Groups that a namespace is about to join. The kernel leaves that to a worker, also where no duplicates are
/// looked for (`addrconf_dad_work`, net/ipv6/addrconf.c). Until it came to it nobody hears a neighbour who asks,
/// and a first connection takes a second.
#[derive(Debug)]
pub(crate) struct Joining {
    ns: Ns,
    groups: Vec<(LinkName, Ipv6Addr)>,
}

impl Joining {
    /// Those of `addresses`, which are in `ns`; `None` if no address has any.
    pub(crate) fn of<'a>(ns: &Ns, addresses: impl Iterator<Item = &'a Address>) -> Option<Self> {
        let groups: Vec<_> = addresses
            .filter_map(|address| match address.address {
                IpNet::V4(_) => None,
                IpNet::V6(net) => Some((address.link.name, group(net.addr()))),
            })
            .collect();
        let ns = ns.clone();
        (!groups.is_empty()).then_some(Self { ns, groups })
    }

    /// Waits until they are joined, or the kernel takes longer than anybody should wait for it. Of a namespace
    /// that is gone, or does not tell, nothing is waited for.
    pub(crate) fn wait(&self, home: &Home) {
        // An open file would keep the namespace, so it is visited again.
        if let Ok(file) = open(&self.ns) {
            let _ = home.visit(file.as_fd(), || {
                let (list, begun, mut poll) = (File::open(LIST)?, Instant::now(), POLL_MIN);
                while !self.are_in(&list)? && begun.elapsed() < PATIENCE {
                    sleep(poll);
                    poll *= 2;
                }
                io::Result::Ok(())
            });
        }
    }

    fn are_in(&self, list: &File) -> io::Result<bool> {
        let (mut text, mut part) = (Vec::new(), [0; 4096]);
        loop {
            match list.read_at(&mut part, text.len() as u64)? {
                0 => break,
                read => text.extend(&part[..read]),
            }
        }
        let text = String::from_utf8_lossy(&text);
        let joined: Vec<_> = text.lines().filter_map(membership).collect();
        let mut groups = self.groups.iter();
        Ok(groups.all(|(link, group)| joined.contains(&(link.as_str(), *group))))
    }
}

/// The group of an address: its last 24 bits.
fn group(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

/// A line of the list: which link listens to which group.
fn membership(line: &str) -> Option<(&str, Ipv6Addr)> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (link, group) = (words.next()?, words.next()?);
    let bits = u128::from_str_radix(group, 16).ok()?;
    Some((link, Ipv6Addr::from_bits(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_the_end_of_an_address() {
        // RFC 4291, 2.7.1.
        let address = "4037::1:800:200e:8c6c".parse().unwrap();
        assert_eq!(group(address).to_string(), "ff02::1:ff0e:8c6c");
    }

    #[test]
    fn the_kernels_list_is_read() {
        let line = "2    eth0            ff0200000000000000000001ff000002     1 00000004 0";
        let group = "ff02::1:ff00:2".parse().unwrap();
        assert_eq!(membership(line), Some(("eth0", group)));
        for line in ["", "2 eth0", "2 eth0 what 1 00000004 0"] {
            assert_eq!(membership(line), None);
        }
    }
}
