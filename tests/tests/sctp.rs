//! SCTP is published where the kernel's connection tracking knows it, and refused where it does not.
//! Packets are made by hand, for few kernels have sockets for it.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use mydocker_tests::{Host, Site, sctp};

/// Where connection tracking keeps its settings.
const SETTINGS: &str = "/proc/sys/net/netfilter";

/// The ports of the client, of the host and of the container.
const CLIENT: u16 = 5555;
const PUBLISHED: u16 = 9;
const INNER: u16 = 99;

/// The first two messages of an association (RFC 9260, 3.3.2 and 3.3.3), and what marks it.
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const TAG: u32 = 0x1234_5678;

/// A packet with one chunk: ports, tag, checksum (RFC 9260, 3.1), then an initiation without options.
fn packet(from: u16, to: u16, tag: u32, chunk: u8) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), to.to_be_bytes()].concat();
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([chunk, 0, 0, 20]);
    packet.extend(TAG.to_be_bytes());
    // Window, streams out and in, first number.
    packet.extend([0, 0, 255, 255, 0, 1, 0, 1, 0, 0, 0, 7]);
    let sum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let shifted = |sum: u32| (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| shifted(sum))
    })
}

/// The next packet, and who sent it.
fn received(socket: &UdpSocket) -> (Vec<u8>, IpAddr) {
    let mut buffer = [0; 256];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    let header = match from {
        SocketAddr::V4(_) => usize::from(buffer[0] & 15) * 4,
        SocketAddr::V6(_) => 0,
    };
    (buffer[header..len].to_vec(), from.ip())
}

#[test]
fn a_published_port_is_translated_both_ways() {
    if !Path::new(SETTINGS)
        .join("nf_conntrack_sctp_timeout_established")
        .exists()
    {
        eprintln!("skipped: this kernel does not track SCTP");
        return;
    }
    let Some(site) = Site::new("", &format!("-p {PUBLISHED}:{INNER}/sctp")) else {
        return;
    };
    for (family, host) in Site::HOST.into_iter().enumerate() {
        let [lan, web] = [&site.lan, &site.web].map(|space| sctp(space, host.is_ipv6()).unwrap());
        let init = packet(CLIENT, PUBLISHED, 0, INIT);
        lan.send_to(&init, (host, 0)).unwrap();
        let (seen, from) = received(&web);
        assert_eq!(from, Site::LAN[family]);
        assert_eq!(seen, packet(CLIENT, INNER, 0, INIT));
        let answer = packet(INNER, CLIENT, TAG, INIT_ACK);
        web.send_to(&answer, (from, 0)).unwrap();
        let (seen, from) = received(&lan);
        assert_eq!(from, host);
        assert_eq!(seen, packet(PUBLISHED, CLIENT, TAG, INIT_ACK));
    }
}

/// As where `CONFIG_NF_CT_PROTO_SCTP` is off: settings for others, none for SCTP.
#[test]
fn a_kernel_that_does_not_track_it_is_named_and_nothing_is_touched() {
    let Some(host) = Host::new() else { return };
    let web = host.sandbox("web");
    host.ok("network create --subnet 10.0.0.0/24 n");
    host.connect("n", "web", &web, "");
    let before = host.snapshot();
    let without = |line: &str| {
        let mydocker = host.mydocker_command(line);
        let mut words = vec![mydocker.get_program()];
        words.extend(mydocker.get_args());
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        let script = format!(
            "mount -t tmpfs none {SETTINGS}; : > {SETTINGS}/nf_conntrack_udp_timeout; exec {}",
            words.join(" ")
        );
        let mut hidden = host.inside("unshare");
        hidden
            .args(["--mount", "sh", "-euc", &script])
            .output()
            .unwrap()
    };
    for line in [
        "network port add n web 8:8 9:9/sctp",
        "network port add n web 9:9/sctp --dry-run",
    ] {
        let output = without(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {said}");
        assert_eq!(
            said,
            "error: sctp is not supported by this kernel: \
             it was built without CONFIG_NF_CT_PROTO_SCTP\n"
        );
    }
    host.assert_as(&before);
    let output = without("network port add n web 8:8");
    assert!(output.status.success(), "{output:?}");
}
