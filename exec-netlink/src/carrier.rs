//! Carriers, which the kernel looks at later unless somebody asks.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use mydocker_core::LinkName;
use nix::libc::{self, __c_anonymous_ifr_ifru, IFNAMSIZ, ifreq};

/// `ETHTOOL_GLINK` (linux/ethtool.h).
const GET_LINK: u32 = 0x0a;

/// `struct ethtool_value` (linux/ethtool.h).
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Has the kernel see now whether a link has a carrier. It puts that off (`linkwatch_fire_event`,
/// net/core/link_watch.c), and until then what is sent is dropped: a first connection would be tried again
/// a second later. Whoever asks hurries it, on Linux 6.8 or later (`linkwatch_sync_dev`).
/// `socket` is any socket of the link's namespace. Equivalent to: ethtool LINK
///
/// # Errors
/// Nobody knows of a carrier there.
pub(crate) fn see(socket: impl AsFd, link: LinkName) -> io::Result<()> {
    let mut value = Value {
        command: GET_LINK,
        data: 0,
    };
    let mut request = ifreq {
        ifr_name: [0; IFNAMSIZ],
        ifr_ifru: __c_anonymous_ifr_ifru {
            ifru_data: (&raw mut value).cast(),
        },
    };
    // A name is shorter than that, so it ends.
    for (to, from) in request.ifr_name.iter_mut().zip(link.as_str().bytes()) {
        *to = from.cast_signed();
    }
    let socket = socket.as_fd().as_raw_fd();
    #[expect(unsafe_code, reason = "no safe wrapper asks this")]
    // SAFETY: the kernel reads and writes the request and the value, which are as it wants them.
    let answer = unsafe { libc::ioctl(socket, libc::SIOCETHTOOL, &raw mut request) };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
