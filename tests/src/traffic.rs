//! Real packets between namespaces.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mydocker_exec_netlink::netns::run_in;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

/// How long an answer may take. A packet that is dropped costs this much of a test's time.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What carries a question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// A connection.
    Tcp,
    /// A datagram.
    Udp,
}

impl Transport {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];
}

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
        self.over(Transport::Tcp)
    }

    /// Sends a datagram and waits for an answer; the caller's address as the listener saw it.
    ///
    /// # Errors
    /// No answer in time.
    pub fn udp(self) -> io::Result<IpAddr> {
        self.over(Transport::Udp)
    }

    fn over(self, transport: Transport) -> io::Result<IpAddr> {
        let _server = Server::start("server", self.server, &[self.port])?;
        let Self { from, to, .. } = self;
        let question = Question {
            from,
            transport,
            to,
        };
        Ok(question.ask()?.source)
    }
}

/// Who are you, and whom do you take me for?
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The namespace of who asks.
    pub from: &'a Path,
    /// How it is asked.
    pub transport: Transport,
    /// The address that is asked.
    pub to: SocketAddr,
}

/// What a [`Server`] answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Its name.
    pub server: String,
    /// The address that it was asked from, as it saw it.
    pub source: IpAddr,
}

impl Question<'_> {
    /// Asks once and waits for the answer.
    ///
    /// # Errors
    /// Refused, or no answer in time.
    pub fn ask(self) -> io::Result<Answer> {
        let mut answer = [0; 128];
        let len = run_in(self.from, || match self.transport {
            Transport::Tcp => {
                let mut stream = TcpStream::connect_timeout(&self.to, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.read(&mut answer)
            }
            Transport::Udp => {
                let socket = UdpSocket::bind((any(self.to), 0))?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.connect(self.to)?;
                socket.send(b"?")?;
                socket.recv(&mut answer)
            }
        })??;
        let text = String::from_utf8_lossy(&answer[..len]);
        let answer = text.split_once(' ').and_then(|(server, source)| {
            let source = source.parse().ok()?;
            let server = server.to_owned();
            Some(Answer { server, source })
        });
        answer.ok_or_else(|| io::Error::other("somebody else answered"))
    }

    /// Asks them all at the same time, so that silence is waited for only once.
    ///
    /// # Panics
    /// When a thread can't be started.
    #[must_use]
    pub fn ask_all(questions: &[Self]) -> Vec<io::Result<Answer>> {
        thread::scope(|scope| {
            let threads: Vec<_> = questions
                .iter()
                .map(|question| scope.spawn(|| question.ask()))
                .collect();
            let answers = threads.into_iter();
            answers
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        })
    }
}

/// Answers [`Question`]s, over TCP and UDP, until dropped.
#[derive(Debug)]
pub struct Server {
    /// The thread ends when the other end of this does.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `ports` at every address of the namespace `space`.
    ///
    /// # Errors
    /// A port is taken.
    pub fn start(name: &str, space: &Path, ports: &[u16]) -> io::Result<Self> {
        // Takes IPv4 as well (RFC 3493, 3.7).
        Self::start_at(name, space, Ipv6Addr::UNSPECIFIED.into(), ports)
    }

    /// Listens on `ports` at one address of the namespace `space`.
    ///
    /// # Errors
    /// A port is taken, or there is no such address.
    pub fn start_at(name: &str, space: &Path, at: IpAddr, ports: &[u16]) -> io::Result<Self> {
        let (listeners, sockets) = run_in(space, || {
            let addresses = || ports.iter().map(|port| (at, *port));
            let listeners: Vec<_> = addresses()
                .map(TcpListener::bind)
                .collect::<io::Result<_>>()?;
            let sockets: Vec<_> = addresses()
                .map(UdpSocket::bind)
                .collect::<io::Result<_>>()?;
            io::Result::Ok((listeners, sockets))
        })??;
        for listener in &listeners {
            listener.set_nonblocking(true)?;
        }
        for socket in &sockets {
            socket.set_nonblocking(true)?;
        }
        let (stop, stopped) = UnixStream::pair()?;
        let name = name.to_owned();
        let thread = thread::spawn(move || serve(&name, &listeners, &sockets, &stopped));
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        // Its sockets hold the namespace.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(name: &str, listeners: &[TcpListener], sockets: &[UdpSocket], stopped: &UnixStream) {
    let fds = listeners.iter().map(AsFd::as_fd);
    let fds = fds.chain(sockets.iter().map(AsFd::as_fd));
    let mut fds: Vec<_> = fds
        .chain([stopped.as_fd()])
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    let ready = |fd: &PollFd| fd.any().unwrap_or_default();
    while poll(&mut fds, PollTimeout::NONE).is_ok() && !fds.last().is_some_and(ready) {
        let answer = |source: SocketAddr| format!("{name} {}", source.ip().to_canonical());
        // A caller who hangs up has no answer to miss.
        for (fd, listener) in fds.iter().zip(listeners) {
            if ready(fd)
                && let Ok((mut stream, source)) = listener.accept()
            {
                let _ = stream.write_all(answer(source).as_bytes());
            }
        }
        for (fd, socket) in fds[listeners.len()..].iter().zip(sockets) {
            if ready(fd)
                && let Ok((_, source)) = socket.recv_from(&mut [0; 1])
            {
                let _ = socket.send_to(answer(source).as_bytes(), source);
            }
        }
    }
}

/// A socket for ICMPv6 messages; the kernel fills the checksum in.
///
/// # Errors
/// The kernel refuses.
pub fn icmpv6(space: &Path) -> io::Result<UdpSocket> {
    let (flags, protocol) = (SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6);
    let open = || socket(AddressFamily::Inet6, SockType::Raw, flags, protocol);
    Ok(UdpSocket::from(run_in(space, open)??))
}

/// A socket for SCTP packets as they are, headers and checksum ours: no kernel needs to know SCTP for
/// that. Received over IPv4, they begin with an IP header.
///
/// # Errors
/// The kernel refuses.
pub fn sctp(space: &Path, v6: bool) -> io::Result<UdpSocket> {
    let (flags, protocol) = (SockFlag::SOCK_CLOEXEC, SockProtocol::Sctp);
    let family = if v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let socket = run_in(space, || socket(family, SockType::Raw, flags, protocol))??;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn any(to: SocketAddr) -> IpAddr {
    match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
