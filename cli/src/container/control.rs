//! What the command that runs a container and the container's supervisor tell each other.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context, anyhow, bail};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, RecvMsg, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
        sendmsg, socketpair,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{process::ProcessHandle, runtime::Failure};

/// What the command says before anything is done. Carries standard input, if that is read; said once more
/// with what to run, if that is not in the container's record.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Hello {
    /// Size of the user's terminal.
    pub(crate) rows: u16,
    /// Size of the user's terminal.
    pub(crate) columns: u16,
    /// Whether the command stays, to show output and pass on input and signals.
    pub(crate) attached: bool,
}

/// What the supervisor says: `Running` or `Failed`, and after `Running` some time `Exited`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Report {
    /// The program runs. Carries its terminal, if it has one and the command stays.
    Running,
    /// It could not be started, and nothing of it is left.
    Failed {
        /// What to exit with, if the failure says so.
        exit_code: Option<u8>,
        /// What went wrong.
        message: String,
    },
    /// It has ended and is taken down.
    Exited {
        /// How it ended.
        exit_code: u8,
        /// What went wrong while it was taken down.
        trouble: Option<String>,
    },
}

impl Report {
    /// That it could not be started, because of an error.
    pub(crate) fn failed(error: &anyhow::Error) -> Self {
        Self::Failed {
            exit_code: error
                .downcast_ref()
                .map(|failure: &Failure| failure.exit_code),
            message: brief(error),
        }
    }
}

/// Longest message, bytes: an error's text is cut to fit.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
const TEXT_BYTES_MAX: usize = 8 << 10;

/// One end of the line. The other end's death reads as the end of messages.
#[derive(Debug)]
pub(crate) struct Control(OwnedFd);

impl Control {
    /// Both ends. Neither survives `execve` unless it is passed on.
    pub(crate) fn pair() -> anyhow::Result<(Self, Self)> {
        // Packets keep each message, and the file that comes with it, apart from the next.
        let (one, two) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .context("can't make a socket pair")?;
        Ok((Self(one), Self(two)))
    }

    /// The end that was passed to this process as its standard input.
    pub(crate) fn from_stdin() -> anyhow::Result<Self> {
        std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map(Self)
            .context("can't take over standard input")
    }

    /// Another handle on the same end.
    pub(crate) fn try_clone(&self) -> anyhow::Result<Self> {
        self.0
            .try_clone()
            .map(Self)
            .context("can't clone the control line")
    }

    /// The file below, to pass on or to poll.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends a message, with a file if one is given.
    pub(crate) fn send<T: Serialize, F: AsFd>(
        &self,
        message: &T,
        file: Option<F>,
    ) -> anyhow::Result<()> {
        let text = serde_json::to_vec(message).context("can't write a message")?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let files: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&files)) {
            bail!("no room to pass on a file");
        }
        sendmsg(
            &self.0,
            &[IoSlice::new(&text)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
        .context("the other process is gone")?;
        Ok(())
    }

    /// As [`Control::receive`], but also none if `peer` has ended: processes that it was making when it
    /// was killed may hold its end open.
    pub(crate) fn receive_from<T: DeserializeOwned>(
        &self,
        peer: &ProcessHandle,
    ) -> anyhow::Result<Option<(T, Option<OwnedFd>)>> {
        loop {
            let mut fds = [
                PollFd::new(self, PollFlags::IN),
                PollFd::new(peer, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("can't hear the other process"),
            }
            // The last message may have come with the end.
            if !fds[0].revents().is_empty() {
                return self.receive();
            }
            if !fds[1].revents().is_empty() {
                return Ok(None);
            }
        }
    }

    /// Waits for a message and the file that came with it; none if the other end is gone.
    pub(crate) fn receive<T: DeserializeOwned>(
        &self,
    ) -> anyhow::Result<Option<(T, Option<OwnedFd>)>> {
        let mut text = vec![0; MESSAGE_BYTES_MAX];
        let (received, file) = match receive_bytes(&self.0, &mut text) {
            Err(error) if error.downcast_ref() == Some(&Errno::CONNRESET) => return Ok(None),
            received => received?,
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(anyhow!(
                "a message is longer than {MESSAGE_BYTES_MAX} bytes"
            ));
        }
        let message =
            serde_json::from_slice(&text[..received.bytes]).context("a message makes no sense")?;
        Ok(Some((message, file)))
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes the file that comes with the next bytes on a socket.
pub(crate) fn receive_file(socket: impl AsFd) -> anyhow::Result<Option<OwnedFd>> {
    let mut text = [0; 4096];
    receive_bytes(socket, &mut text).map(|(_, file)| file)
}

fn receive_bytes(socket: impl AsFd, text: &mut [u8]) -> anyhow::Result<(RecvMsg, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(
            &socket,
            &mut [IoSliceMut::new(text)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(Errno::INTR) => {}
            received => break received.context("can't hear the other process")?,
        }
    };
    let mut file = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            file = files.last().or(file);
        }
    }
    Ok((received, file))
}

/// An error's text, short enough for a message.
pub(crate) fn brief(error: &anyhow::Error) -> String {
    let mut text = format!("{error:#}");
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn messages_files_and_the_end() {
        let (one, two) = Control::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        one.send(
            &Hello {
                rows: 24,
                columns: 80,
                attached: true,
            },
            Some(writer),
        )
        .unwrap();
        one.send(&Hello::default(), None::<OwnedFd>).unwrap();
        let (hello, file) = two.receive::<Hello>().unwrap().unwrap();
        assert_eq!((hello.rows, hello.columns), (24, 80));
        std::fs::File::from(file.unwrap()).write_all(b"hi").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hi");
        assert!(two.receive::<Hello>().unwrap().unwrap().1.is_none());
        drop(one);
        assert!(two.receive::<Hello>().unwrap().is_none());
        assert!(two.send(&Hello::default(), None::<OwnedFd>).is_err());
    }

    #[test]
    fn long_errors_fit() {
        let error = anyhow!("{}", "ä".repeat(100_000));
        assert!(brief(&error).len() < MESSAGE_BYTES_MAX / 2);
    }
}
