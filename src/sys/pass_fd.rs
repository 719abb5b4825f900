//! The control socket between master and child: a SEQPACKET pair that carries one short message, with or without a descriptor, a call.
//!
//! Every call is non-blocking by `MSG_DONTWAIT`, so that nobody who shares the socket can make the other side block.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    recvmsg, sendmsg, socketpair,
};

/// Longest message.
pub const MESSAGE_BYTES: usize = 16;

/// Makes a pair: the master's end and the child's end.
///
/// # Errors
/// The kernel's.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// Sends a message, perhaps with a descriptor.
///
/// # Errors
/// `WouldBlock` when the queue is full; `BrokenPipe` when the other end is gone.
pub fn send(socket: &OwnedFd, message: &[u8], passed: Option<&OwnedFd>) -> io::Result<()> {
    let parts = [IoSlice::new(message)];
    let fds: [RawFd; 1];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match passed {
        Some(fd) => {
            fds = [fd.as_raw_fd()];
            sendmsg::<UnixAddr>(
                socket.as_raw_fd(),
                &parts,
                &[ControlMessage::ScmRights(&fds)],
                flags,
                None,
            )?;
        }
        None => {
            sendmsg::<UnixAddr>(socket.as_raw_fd(), &parts, &[], flags, None)?;
        }
    }
    Ok(())
}

/// What one receive brought.
#[derive(Debug)]
pub struct Received {
    /// The message's bytes.
    pub message: [u8; MESSAGE_BYTES],
    /// How many of them.
    pub length: usize,
    /// The descriptor, if one came.
    pub passed: Option<OwnedFd>,
}

impl Received {
    /// The bytes that came.
    pub fn bytes(&self) -> &[u8] {
        &self.message[..self.length]
    }
}

/// Receives one message. `Ok(None)` at the end: the other side is gone.
///
/// # Errors
/// `WouldBlock` when nothing waits.
pub fn receive(socket: &OwnedFd) -> io::Result<Option<Received>> {
    let mut received = Received {
        message: [0; MESSAGE_BYTES],
        length: 0,
        passed: None,
    };
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let mut parts = [IoSliceMut::new(&mut received.message)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let got = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let length = got.bytes.min(MESSAGE_BYTES);
    let mut passed = None;
    if let Ok(messages) = got.cmsgs() {
        for message in messages {
            if let ControlMessageOwned::ScmRights(fds) = message {
                for fd in fds {
                    // SAFETY: the kernel just made this descriptor for us (SCM_RIGHTS); nobody else owns it. Surplus ones are dropped, that is closed.
                    passed = Some(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
    }
    if length == 0 && passed.is_none() {
        return Ok(None);
    }
    received.length = length;
    received.passed = passed;
    Ok(Some(received))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_descriptor_arrives_and_the_end_is_seen() {
        let (master, child) = pair().unwrap();
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        send(&master, b"C1", Some(&file)).unwrap();
        let received = receive(&child).unwrap().unwrap();
        assert_eq!(received.bytes(), b"C1");
        assert!(received.passed.is_some());
        assert_eq!(
            receive(&child).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(master);
        assert!(receive(&child).unwrap().is_none());
    }
}
