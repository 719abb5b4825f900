//! The control socket between master and child: a SEQPACKET pair that carries one short message, with or without a descriptor, a call.
//!
//! Every call is non-blocking by `MSG_DONTWAIT`, so that nobody who shares the socket can make the other side block.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socketpair,
};

/// Longest message.
pub const MESSAGE_BYTES: usize = 16;
/// 64-bit words that hold a control message with as many descriptors as the kernel lets through (SCM_MAX_FD, 253): a cmsghdr of two words
/// and 4 bytes each, rounded up. With less room a sender could make us do without the last ones, which is harmless, but also needless.
const ROOM_WORDS: usize = 2 + 127;
/// A control message with a pidfd of the sender (linux/socket.h): comes with every message to a socket on which somebody has set
/// SO_PASSPIDFD. The far end of a child is one that the child may set so.
const SCM_PIDFD: libc::c_int = 4;

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

/// Receives one message and the descriptor that came with it; surplus ones are closed. `Ok(None)` at the end: the other side is gone.
///
/// A message that was sent with a descriptor comes without it when this process has no number left for one: the kernel has closed it then.
///
/// # Errors
/// `WouldBlock` when nothing waits.
pub fn receive(socket: &OwnedFd) -> io::Result<Option<Received>> {
    receive_into(socket, &mut [0; ROOM_WORDS])
}

/// Receives one message that should carry no descriptor: with no room for any, the kernel closes what a hostile sender passes, and the
/// receiver's table of descriptors is not in its hands. `Ok(None)` at the end.
///
/// # Errors
/// `WouldBlock` when nothing waits.
pub fn receive_plain(socket: &OwnedFd) -> io::Result<Option<Received>> {
    receive_into(socket, &mut [])
}

fn receive_into(socket: &OwnedFd, room: &mut [u64]) -> io::Result<Option<Received>> {
    let mut message = [0; MESSAGE_BYTES];
    let mut part = libc::iovec {
        iov_base: message.as_mut_ptr().cast(),
        iov_len: MESSAGE_BYTES,
    };
    // SAFETY: zeros are a valid msghdr, null pointers and no lengths; it has private members with some C libraries, so that it cannot be
    // written out.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    if !room.is_empty() {
        header.msg_control = room.as_mut_ptr().cast();
        header.msg_controllen = std::mem::size_of_val(room) as _;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header points to `part`, which points to `message`, and to `room`, with their true lengths; all outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: recvmsg(2) just filled the header and `room`, and nobody has taken the descriptors yet.
    let passed = unsafe { take_descriptors(&header) };
    if length == 0 && passed.is_none() {
        return Ok(None);
    }
    Ok(Some(Received {
        message,
        length: length.min(MESSAGE_BYTES),
        passed,
    }))
}

/// Owns every descriptor of a received message, also of one that was cut (MSG_CTRUNC: the kernel has installed the first ones all the
/// same); keeps the first that was passed and closes the others, and what the kernel itself adds.
///
/// # Safety
/// The header is as recvmsg(2) left it, its control buffer is there and aligned for a cmsghdr, and this is called once.
unsafe fn take_descriptors(header: &libc::msghdr) -> Option<OwnedFd> {
    let mut first = None;
    // SAFETY: the caller's.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give null or a header within what the kernel wrote.
    while let Some(control) = unsafe { at.as_ref() } {
        let passed = control.cmsg_type == libc::SCM_RIGHTS;
        if control.cmsg_level == libc::SOL_SOCKET && (passed || control.cmsg_type == SCM_PIDFD) {
            // SAFETY: arithmetic only.
            let before = unsafe { libc::CMSG_LEN(0) } as usize;
            // Its type is another one in musl.
            #[allow(clippy::unnecessary_cast)]
            let bytes = (control.cmsg_len as usize).saturating_sub(before);
            // SAFETY: the data of a message that the kernel wrote.
            let data = unsafe { libc::CMSG_DATA(control) }.cast::<RawFd>();
            for index in 0..bytes / size_of::<RawFd>() {
                // SAFETY: within the message's length; read without a claim to alignment.
                let fd = unsafe { data.add(index).read_unaligned() };
                // The kernel says so when it could not make a pidfd (an error's number).
                if fd < 0 {
                    continue;
                }
                // SAFETY: the kernel just made this descriptor for us (SCM_RIGHTS, SCM_PIDFD); nobody else owns it.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                // A surplus one is dropped here, that is closed.
                first = first.or(passed.then_some(fd));
            }
        }
        // SAFETY: as above; `at` came from the same header.
        at = unsafe { libc::CMSG_NXTHDR(header, at) };
    }
    first
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

    /// The reading end of a pipe, after so many copies of its writing end were passed as one message.
    fn pass_many(master: &OwnedFd, count: usize) -> OwnedFd {
        let (reading, writing) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let fds = vec![writing.as_raw_fd(); count];
        sendmsg::<UnixAddr>(
            master.as_raw_fd(),
            &[IoSlice::new(b"C")],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        reading
    }

    /// Is no copy of the writing end left? A program that another test starts holds one for a moment.
    fn is_hung_up(reading: &OwnedFd) -> bool {
        use nix::poll::{PollFd, PollFlags, poll};
        use std::os::fd::AsFd;
        let mut polled = [PollFd::new(reading.as_fd(), PollFlags::empty())];
        poll(&mut polled, 5000u16).unwrap() == 1
    }

    #[test]
    fn no_descriptor_stays_open_however_many_come() {
        let (master, child) = pair().unwrap();
        for count in [1, 2, 5, 253] {
            let reading = pass_many(&master, count);
            let received = receive(&child).unwrap().unwrap();
            assert_eq!(received.bytes(), b"C");
            assert!(received.passed.is_some());
            drop(received);
            assert!(is_hung_up(&reading), "{count} were passed");
        }
    }

    #[test]
    fn what_the_kernel_adds_of_the_sender_is_closed_and_is_no_descriptor_that_was_passed() {
        const SO_PASSPIDFD: libc::c_int = 76;
        const MESSAGES: usize = 200;
        let (master, child) = pair().unwrap();
        let on: libc::c_int = 1;
        // SAFETY: an int and its length.
        let set = unsafe {
            libc::setsockopt(
                child.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_PASSPIDFD,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        if set != 0 {
            // Linux before 6.5 adds none.
            eprintln!("LEFT OUT: {}", io::Error::last_os_error());
            return;
        }
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        for _ in 0..MESSAGES {
            send(&master, b"C", Some(&file)).unwrap();
            let passed = receive(&child).unwrap().unwrap().passed.unwrap();
            let passed = std::fs::read_link(format!("/proc/self/fd/{}", passed.as_raw_fd()));
            assert_eq!(passed.unwrap().to_str(), Some("/dev/null"));
            send(&master, b"A", None).unwrap();
            assert!(receive(&child).unwrap().unwrap().passed.is_none());
        }
        // Other tests may have a few.
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let pidfds = open
            .filter_map(|it| std::fs::read_link(it.path()).ok())
            .filter(|it| it.to_string_lossy().contains("pidfd"));
        assert!(pidfds.count() < MESSAGES / 2);
    }

    #[test]
    fn of_a_message_that_was_cut_nothing_stays_open() {
        let (master, child) = pair().unwrap();
        let reading = pass_many(&master, 5);
        // Room for a header and two descriptors.
        let received = receive_into(&child, &mut [0; 3]).unwrap().unwrap();
        assert!(received.passed.is_some());
        drop(received);
        assert!(is_hung_up(&reading));
    }

    #[test]
    fn what_expects_no_descriptor_gets_none() {
        let (master, child) = pair().unwrap();
        for count in [1, 5, 253] {
            let reading = pass_many(&master, count);
            let received = receive_plain(&child).unwrap().unwrap();
            assert_eq!(received.bytes(), b"C");
            assert!(received.passed.is_none());
            assert!(is_hung_up(&reading), "{count} were passed");
        }
        drop(master);
        assert!(receive_plain(&child).unwrap().is_none());
    }
}
