//! Real packets between namespaces.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use mydocker_exec_netlink::netns::run_in;

/// How long an answer may take. A packet that is dropped costs this much of a test's time.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Somebody who listens and somebody who calls.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The namespace of who calls.
    pub from: &'a Path,
    /// The address that is called.
    pub to: SocketAddr,
    /// The namespace of who listens, on every address.
    pub server: &'a Path,
    /// The port that is listened on.
    pub port: u16,
}

impl Call<'_> {
    /// Calls over TCP and waits for an answer; the caller's address as the listener saw it.
    ///
    /// # Errors
    /// No connection or no answer in time.
    pub fn tcp(self) -> io::Result<IpAddr> {
        let listener = run_in(self.server, || TcpListener::bind((any(self.to), self.port)))??;
        listener.set_nonblocking(true)?;
        let client = run_in(self.from, || TcpStream::connect_timeout(&self.to, PATIENCE));
        let mut client = client??;
        let (mut served, peer) = accept(&listener)?;
        served.set_nonblocking(false)?;
        served.write_all(b"pong")?;
        client.set_read_timeout(Some(PATIENCE))?;
        client.read_exact(&mut [0; 4])?;
        Ok(peer.ip().to_canonical())
    }

    /// Sends a datagram and waits for an answer; the caller's address as the listener saw it.
    ///
    /// # Errors
    /// No answer in time.
    pub fn udp(self) -> io::Result<IpAddr> {
        let server = run_in(self.server, || UdpSocket::bind((any(self.to), self.port)))??;
        let client = run_in(self.from, || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind((any(self.to), 0))?;
            socket.connect(self.to)?;
            socket.send(b"ping")?;
            Ok(socket)
        })??;
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(PATIENCE))?;
        }
        let (_, peer) = server.recv_from(&mut [0; 4])?;
        server.send_to(b"pong", peer)?;
        client.recv(&mut [0; 4])?;
        Ok(peer.ip().to_canonical())
    }
}

fn any(to: SocketAddr) -> IpAddr {
    match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let start = Instant::now();
    loop {
        match listener.accept() {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && start.elapsed() < PATIENCE =>
            {
                thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}
