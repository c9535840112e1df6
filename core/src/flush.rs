//! The half of an op that is about tracked connections, as a command.

use core::fmt;

use crate::{Dnat, Family, Guard, Object, Op, Protocol};

/// A line that ends the connections that an op leaves behind, as the op itself does; nothing for
/// most ops. `conntrack` fails where there is none to end, which is fine.
pub(crate) struct Flush<'a>(pub(crate) &'a Op);

impl fmt::Display for Flush<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Op::Del(Object::Dnat(dnat)) => fmt_led(dnat, f),
            Op::Add(Object::Dnat(dnat)) if dnat.protocol == Protocol::Udp => fmt_missed(dnat, f),
            Op::Del(Object::Guard(guard)) => fmt_released(guard, f),
            Op::Add(_) | Op::Del(_) => return Ok(()),
        }?;
        f.write_str(" >/dev/null 2>&1 || :")
    }
}

/// Those that a binding led to the container.
fn fmt_led(dnat: &Dnat, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (ip, port) = (dnat.to.ip(), dnat.to.port());
    fmt_to_port(dnat, f)?;
    if let Some(at) = dnat.at {
        write!(f, " --orig-dst {at}")?;
    }
    write!(f, " --reply-src {ip} --reply-port-src {port}")
}

/// Those that datagrams made while nobody published the port: to an address of the host, and
/// answered by it.
fn fmt_missed(dnat: &Dnat, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Dnat { at, port, to, .. } = dnat;
    if let Some(at) = at {
        fmt_to_port(dnat, f)?;
        return write!(f, " --orig-dst {at} --reply-src {at}");
    }
    let family = match Family::of(to.ip()) {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    write!(f, "\nip {family} -o addr | while read -r _ _ _ a _; do")?;
    write!(f, " conntrack -D -p udp --orig-port-dst {port}")?;
    f.write_str(" --orig-dst ${a%/*} --reply-src ${a%/*}; done")
}

fn fmt_to_port(dnat: &Dnat, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Dnat { protocol, port, .. } = dnat;
    write!(f, "\nconntrack -D -p {protocol} --orig-port-dst {port}")
}

/// Those of a container's addresses.
fn fmt_released(guard: &Guard, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\nfor a in")?;
    for address in guard.routed() {
        write!(f, " {address}")?;
    }
    f.write_str("; do conntrack -D --orig-src $a; conntrack -D --reply-src $a; done")
}
