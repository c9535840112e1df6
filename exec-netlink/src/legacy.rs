//! iptables-legacy: what its FORWARD chain makes of packets. It is read the way that
//! `iptables-legacy -S` reads it and never changed: that takes the whole table at once, behind the
//! back of whoever else is at it.

use std::fs;
use std::io;
use std::mem::align_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use mydocker_core::{Family, Ruleset};
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::nft::attr::{native_i32, native_u32};

const TABLE: &[u8] = b"filter";
/// `XT_TABLE_MAXNAMELEN`, linux/netfilter/x_tables.h.
const TABLE_NAME_BYTES: usize = 32;
/// Bytes of `struct xt_entry_match` and `struct xt_entry_target`: size, name, revision.
const EXTENSION_BYTES: usize = 32;
/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`, linux/netfilter_ipv4/ip_tables.h; ip6_tables.h has
/// the same numbers.
const GET_INFO: c_int = 64;
const GET_ENTRIES: c_int = 65;
/// `NF_INET_FORWARD`, linux/netfilter.h.
const FORWARD: usize = 2;
/// What a standard target says: `-NF_DROP - 1` and `-NF_ACCEPT - 1`.
const VERDICT_DROP: i32 = -1;
const VERDICT_ACCEPT: i32 = -2;
/// How often a table that is replaced while it is read is read again.
const TRIES_MAX: usize = 8;
/// More than any table has: the kernel's word for a size is not taken for any amount of memory.
const ENTRIES_BYTES_MAX: usize = 256 << 20;

/// Whether the FORWARD chain of iptables-legacy, in the calling thread's namespace, drops what none
/// of its rules names. Not so where a rule of it accepts what our own forward chain marked, or where
/// nobody may look. Equivalent to: iptables-legacy -S FORWARD
pub(crate) fn drops_forwarded(family: Family) -> bool {
    is_loaded(family)
        && Layout::of(family)
            .forward()
            .is_ok_and(|chain| chain.drops())
}

/// Whether the namespace has the table. To ask for one that is not there would load it.
fn is_loaded(family: Family) -> bool {
    let file = Path::new("/proc/thread-self/net").join(match family {
        Family::V4 => "ip_tables_names",
        Family::V6 => "ip6_tables_names",
    });
    let names = fs::read(file).unwrap_or_default();
    names.split(|byte| *byte == b'\n').any(|name| name == TABLE)
}

/// Where things are in the structures of one family.
#[derive(Clone, Copy)]
struct Layout {
    domain: AddressFamily,
    level: c_int,
    /// Bytes of `struct ipt_ip` or `struct ip6t_ip6`, all zero when a rule takes every packet.
    address_bytes: usize,
    /// Where the `target_offset` of an entry is; its `next_offset` follows.
    offsets_at: usize,
    /// Bytes of `struct ipt_entry` or `struct ip6t_entry`; matches and target follow.
    entry_bytes: usize,
}

impl Layout {
    fn of(family: Family) -> Self {
        // Two counters of 64 bits end an entry.
        let with_counters = |bytes: usize| bytes.next_multiple_of(align_of::<u64>()) + 16;
        match family {
            Family::V4 => Self {
                domain: AddressFamily::Inet,
                level: libc::IPPROTO_IP,
                address_bytes: 84,
                offsets_at: 88,
                entry_bytes: with_counters(96),
            },
            Family::V6 => Self {
                domain: AddressFamily::Inet6,
                level: libc::IPPROTO_IPV6,
                address_bytes: 133,
                offsets_at: 140,
                entry_bytes: with_counters(148),
            },
        }
    }

    /// The FORWARD chain of the table, which must be there.
    fn forward(self) -> io::Result<Chain> {
        let socket = socket(
            self.domain,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Raw,
        )?;
        for _ in 0..TRIES_MAX {
            match self.forward_once(&socket) {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::EAGAIN.into())
    }

    fn forward_once(self, socket: &OwnedFd) -> io::Result<Chain> {
        // `struct ipt_getinfo`: the name, then numbers of 32 bits: the hooks, where each begins,
        // where each has its policy, how many entries and how many bytes of them.
        let mut info = [0; TABLE_NAME_BYTES + 13 * 4];
        info[..TABLE.len()].copy_from_slice(TABLE);
        self.ask(socket, GET_INFO, &mut info)?;
        let number = |index: usize| at(&info, TABLE_NAME_BYTES + 4 * index);
        let bytes = number(12).filter(|bytes| *bytes <= ENTRIES_BYTES_MAX);
        let (Some(begin), Some(policy), Some(bytes)) =
            (number(1 + FORWARD), number(6 + FORWARD), bytes)
        else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        // `struct ipt_get_entries`: the name, how many bytes, and the entries.
        let header = (TABLE_NAME_BYTES + 4).next_multiple_of(align_of::<u64>());
        let mut entries = vec![0; header + bytes];
        entries[..TABLE.len()].copy_from_slice(TABLE);
        entries[TABLE_NAME_BYTES..][..4].copy_from_slice(&info[TABLE_NAME_BYTES + 12 * 4..]);
        self.ask(socket, GET_ENTRIES, &mut entries)?;
        Ok(Chain {
            layout: self,
            entries: entries.split_off(header),
            begin,
            policy,
        })
    }

    /// `getsockopt(2)`: the kernel reads what it is asked for from `buffer`, and fills it.
    fn ask(self, socket: &OwnedFd, option: c_int, buffer: &mut [u8]) -> io::Result<()> {
        let mut len = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
        // nix has no socket option whose buffer is also read, or is as long as the kernel says.
        #[expect(unsafe_code, reason = "no safe wrapper takes these options")]
        // SAFETY: the kernel writes at most `len` bytes from the pointer on, which is that of an
        // exclusively borrowed buffer of `len` initialized bytes, and any bytes are valid ones.
        let answer = unsafe {
            let start = buffer.as_mut_ptr().cast();
            libc::getsockopt(socket.as_raw_fd(), self.level, option, start, &raw mut len)
        };
        Errno::result(answer)?;
        Ok(())
    }
}

/// The FORWARD chain among the entries of a table.
struct Chain {
    layout: Layout,
    entries: Vec<u8>,
    begin: usize,
    policy: usize,
}

impl Chain {
    fn drops(&self) -> bool {
        let mut offset = self.begin;
        while let Some(entry) = self.entry(offset) {
            match entry.judgement() {
                Some(drops) => return drops,
                None if offset >= self.policy || entry.next == 0 => return false,
                None => offset += entry.next,
            }
        }
        false
    }

    fn entry(&self, offset: usize) -> Option<Entry<'_>> {
        let bytes = self.entries.get(offset..)?;
        let offsets = bytes.get(self.layout.offsets_at..)?.first_chunk::<4>()?;
        let [t0, t1, n0, n1] = *offsets;
        let target = usize::from(u16::from_ne_bytes([t0, t1]));
        let next = usize::from(u16::from_ne_bytes([n0, n1]));
        Some(Entry {
            address: bytes.get(..self.layout.address_bytes)?,
            matches: bytes.get(self.layout.entry_bytes..target)?,
            target: bytes.get(target..next)?,
            next,
        })
    }
}

/// One rule, or the policy, which looks like a rule.
struct Entry<'a> {
    address: &'a [u8],
    matches: &'a [u8],
    target: &'a [u8],
    next: usize,
}

impl Entry<'_> {
    /// Whether it drops all packets, or takes all of ours past whatever drops them.
    fn judgement(&self) -> Option<bool> {
        if self.address.iter().any(|byte| *byte != 0) {
            return None;
        }
        let verdict = name_of(self.target).and_then(|name| match name {
            b"" => native_i32(self.target.get(EXTENSION_BYTES..)?),
            b"REJECT" => Some(VERDICT_DROP),
            _ => None,
        });
        let matches = extensions(self.matches).filter(|one| name_of(one) != Some(b"comment"));
        let matches: Vec<&[u8]> = matches.collect();
        match (verdict?, matches.as_slice()) {
            (VERDICT_DROP, []) => Some(true),
            (VERDICT_ACCEPT, []) => Some(false),
            (VERDICT_ACCEPT, [one]) if is_our_mark(one) => Some(false),
            _ => None,
        }
    }
}

/// The matches of an entry, each with its header.
fn extensions(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let size = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let (one, others) = rest.split_at_checked(size.max(EXTENSION_BYTES))?;
        rest = others;
        Some(one)
    })
}

fn name_of(extension: &[u8]) -> Option<&[u8]> {
    let name = extension.get(2..EXTENSION_BYTES - 1)?;
    name.split(|byte| *byte == 0).next()
}

/// `-m mark --mark 0x1000000/0x1000000`: `struct xt_mark_mtinfo1`, linux/netfilter/xt_mark.h.
fn is_our_mark(extension: &[u8]) -> bool {
    let mut wanted = [Ruleset::PASSED; 2].map(u32::to_ne_bytes).concat();
    wanted.push(0);
    name_of(extension) == Some(b"mark") && extension[EXTENSION_BYTES..].starts_with(&wanted)
}

fn at(bytes: &[u8], offset: usize) -> Option<usize> {
    usize::try_from(native_u32(bytes.get(offset..)?)?).ok()
}

/// Reads entries of both families, behind two numbers: where the chain begins, and its policy.
pub(crate) fn fuzz(bytes: &[u8]) {
    let (Some(begin), Some(policy)) = (at(bytes, 0), at(bytes, 4)) else {
        return;
    };
    for family in [Family::V4, Family::V6] {
        let (layout, entries) = (Layout::of(family), bytes[8..].to_vec());
        let chain = Chain {
            layout,
            entries,
            begin,
            policy,
        };
        let _ = chain.drops();
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;
    use crate::nft::testing::isolated;

    fn iptables(command: &str, line: &str) {
        let output = Command::new(command)
            .args(line.split(' '))
            .output()
            .unwrap();
        assert!(output.status.success(), "{command} {line}: {output:?}");
    }

    #[test]
    fn what_the_chain_makes_of_the_unnamed() {
        isolated(|| {
            for (command, family) in [
                ("iptables-legacy", Family::V4),
                ("ip6tables-legacy", Family::V6),
            ] {
                if Command::new(command).arg("-V").output().is_err() {
                    println!("skipped: no `{command}` to compare with");
                    continue;
                }
                assert!(!drops_forwarded(family), "no table, and none was loaded");
                assert!(!is_loaded(family));
                let mark = "-m mark --mark 0x1000000/0x1000000";
                for (line, drops) in [
                    ("-P INPUT DROP", false),
                    ("-P FORWARD DROP", true),
                    ("-A FORWARD -i lo -j ACCEPT", true),
                    ("-N OTHER", true),
                    ("-A FORWARD -j OTHER", true),
                    ("-A OTHER -j DROP", true),
                    ("-A FORWARD -m mark --mark 0x1/0x1 -j ACCEPT", true),
                    (
                        &format!("-I FORWARD {mark} -m comment --comment x -j ACCEPT"),
                        false,
                    ),
                    ("-I FORWARD -j REJECT", true),
                    (&format!("-I FORWARD {mark} -j ACCEPT"), false),
                    ("-F FORWARD", true),
                    ("-P FORWARD ACCEPT", false),
                    ("-A FORWARD -j DROP", true),
                    ("-I FORWARD -j ACCEPT", false),
                ] {
                    iptables(command, line);
                    assert_eq!(drops_forwarded(family), drops, "{command} {line}");
                }
            }
        });
    }

    proptest! {
        #[test]
        fn any_entries_are_survived(
            entries in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..600),
            begin in 0_usize..600,
            policy in 0_usize..600,
        ) {
            for family in [Family::V4, Family::V6] {
                let (layout, entries) = (Layout::of(family), entries.clone());
                let _ = Chain { layout, entries, begin, policy }.drops();
            }
        }
    }
}
