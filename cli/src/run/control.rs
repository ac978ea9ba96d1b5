//! The socket between `steadfast run` and its child: one message at a time, some with a file.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// To the child: its standard input.
    Input,
    /// From the child: the device, and the kind of file that it is.
    Device(Kind),
    /// To the child: the network is up, start the command.
    Go,
    /// From the child: it ends with this exit code, and why.
    Failed(u8, String),
}

/// The kinds of device that the child makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The file of a TUN device.
    Tun,
    /// A packet socket.
    Packet,
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Message::Input => b"input".to_vec(),
            Message::Device(Kind::Tun) => b"tun".to_vec(),
            Message::Device(Kind::Packet) => b"packet".to_vec(),
            Message::Go => b"go".to_vec(),
            Message::Failed(code, text) => [&b"fail"[..], &[*code], text.as_bytes()].concat(),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Message> {
        Some(match bytes {
            b"input" => Message::Input,
            b"tun" => Message::Device(Kind::Tun),
            b"packet" => Message::Device(Kind::Packet),
            b"go" => Message::Go,
            [b'f', b'a', b'i', b'l', code, text @ ..] => {
                Message::Failed(*code, String::from_utf8_lossy(text).into_owned())
            }
            _ => return None,
        })
    }
}

/// One end of the socket. It is closed when the command starts.
#[derive(Debug)]
pub(super) struct Control(OwnedFd);

/// The longest message.
const LONGEST: usize = 4096;

impl Control {
    /// The two ends: ours, and the file that becomes the child's standard input.
    pub(super) fn pair() -> io::Result<(Control, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Control(ours), theirs))
    }

    /// Takes the child's end out of its standard input, and puts the command's in its place.
    pub(super) fn from_stdin() -> io::Result<Control> {
        let control = Control(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?);
        match control.receive()? {
            Some((Message::Input, Some(input))) => rustix::stdio::dup2_stdin(input)?,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        Ok(control)
    }

    pub(super) fn send(&self, message: &Message, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut bytes = message.bytes();
        bytes.truncate(LONGEST);
        let files: Vec<BorrowedFd<'_>> = file.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&files));
        }
        sendmsg(&self.0, &[io::IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for a message. `None`: the other end is closed.
    pub(super) fn receive(&self) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
        let mut bytes = [0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut buffers = [io::IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.0, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                // The other end died with a message of ours unread.
                Err(Errno::CONNRESET) => return Ok(None),
                received => break received?,
            }
        };
        let file = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        if received.bytes == 0 {
            return Ok(None);
        }
        let whole = !received.flags.contains(ReturnFlags::TRUNC);
        let message = Message::parse(&bytes[..received.bytes]).filter(|_| whole);
        Ok(Some((message.ok_or(io::ErrorKind::InvalidData)?, file)))
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_one_by_one_with_their_files() {
        let (ours, theirs) = Control::pair().unwrap();
        let theirs = Control(theirs);
        let file = std::fs::File::open("/dev/null").unwrap();
        ours.send(&Message::Input, Some(file.as_fd())).unwrap();
        ours.send(&Message::Failed(127, "no such command".to_owned()), None).unwrap();
        let (message, input) = theirs.receive().unwrap().unwrap();
        assert_eq!((message, input.is_some()), (Message::Input, true));
        let (message, none) = theirs.receive().unwrap().unwrap();
        assert_eq!((message, none.is_none()), (Message::Failed(127, "no such command".to_owned()), true));
        drop(ours);
        assert!(theirs.receive().unwrap().is_none());
    }
}
