//! How many connections wait in the kernel's queue of a listening socket: what an operator asks when nothing is accepted any more.
//!
//! TCP tells it through TCP_INFO (tcp(7); for a listening socket `tcpi_unacked` is the length of the queue), unix sockets through
//! sock_diag(7) with UDIAG_SHOW_RQLEN.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use nix::sys::stat::fstat;

/// Asks for the queue of one listening socket, again and again.
#[derive(Debug)]
pub struct BacklogGauge {
    /// The channel to sock_diag; `None` for TCP, which needs none, or when the kernel has no such channel.
    netlink: Option<OwnedFd>,
    tcp: bool,
}

impl BacklogGauge {
    /// A gauge for a TCP or a unix socket.
    pub fn new(tcp: bool) -> BacklogGauge {
        let netlink = || {
            socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                SockProtocol::NetlinkSockDiag,
            )
            .ok()
        };
        BacklogGauge {
            netlink: if tcp { None } else { netlink() },
            tcp,
        }
    }

    /// Connections that wait now; `None` when the kernel does not tell.
    pub fn read(&self, listener: &OwnedFd) -> Option<u64> {
        if self.tcp {
            tcp_queue(listener).ok()
        } else {
            unix_queue(self.netlink.as_ref()?, listener)
        }
    }
}

fn tcp_queue(listener: &OwnedFd) -> io::Result<u64> {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or(0);
    // SAFETY: getsockopt(2) writes at most `length` bytes into `info`, which is that large; the descriptor is open.
    let result = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain integers, all of them zeroed before.
    let info = unsafe { info.assume_init() };
    Ok(u64::from(info.tcpi_unacked))
}

/// Length of a netlink header (netlink(7)).
const HEADER: usize = 16;
/// Length of `struct unix_diag_msg` (sock_diag(7)).
const ANSWER: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_RQLEN: u16 = 4;

fn unix_queue(netlink: &OwnedFd, listener: &OwnedFd) -> Option<u64> {
    // The protocol has 32 bits for the inode; the kernel compares these.
    let inode = (fstat(listener).ok()?.st_ino & 0xffff_ffff) as u32;
    let mut request = Vec::with_capacity(HEADER + 24);
    request.extend_from_slice(&u32::try_from(HEADER + 24).ok()?.to_ne_bytes());
    request.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    // struct unix_diag_req: family, protocol, padding; states, inode, what to show, no cookie.
    request.extend_from_slice(&[u8::try_from(libc::AF_UNIX).ok()?, 0, 0, 0]);
    for word in [u32::MAX, inode, UDIAG_SHOW_RQLEN, u32::MAX, u32::MAX] {
        request.extend_from_slice(&word.to_ne_bytes());
    }
    send(netlink.as_raw_fd(), &request, MsgFlags::MSG_DONTWAIT).ok()?;
    let mut answer = [0; 512];
    // The kernel answers before send returns; nothing there means that it does not know the socket.
    let count = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT).ok()?;
    queue_of(answer.get(..count)?, inode)
}

/// The queue in an answer of sock_diag about this inode.
fn queue_of(answer: &[u8], inode: u32) -> Option<u64> {
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?))
    };
    let half = |at: usize| -> Option<u16> {
        Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?))
    };
    if half(4)? != SOCK_DIAG_BY_FAMILY || word(HEADER + 4)? != inode {
        return None;
    }
    let mut at = HEADER + ANSWER;
    // Each attribute is at least four bytes long, so that this ends.
    loop {
        let length = usize::from(half(at)?);
        if half(at + 2)? == UNIX_DIAG_RQLEN {
            return word(at + 4).map(u64::from);
        }
        at = at.checked_add(length.max(4).next_multiple_of(4))?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn the_queue_of_either_kind_of_socket_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap();
        let listener = OwnedFd::from(listener);
        let gauge = BacklogGauge::new(true);
        assert_eq!(gauge.read(&listener), Some(0));
        let waiting: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(port).unwrap()).collect();
        assert_eq!(gauge.read(&listener), Some(3));
        drop(waiting);

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = OwnedFd::from(UnixListener::bind(&path).unwrap());
        let gauge = BacklogGauge::new(false);
        let _waiting: Vec<UnixStream> = (0..2)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        // A kernel without unix_diag does not tell; one that does tells the truth.
        assert!(matches!(gauge.read(&listener), Some(2) | None));
    }

    #[test]
    fn an_answer_that_is_cut_short_or_about_another_socket_tells_nothing() {
        let mut answer = vec![0; HEADER + ANSWER];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        answer[HEADER + 4..HEADER + 8].copy_from_slice(&7_u32.to_ne_bytes());
        for (kind, value) in [(9_u16, 1_u32), (UNIX_DIAG_RQLEN, 5)] {
            answer.extend_from_slice(&8_u16.to_ne_bytes());
            answer.extend_from_slice(&kind.to_ne_bytes());
            answer.extend_from_slice(&value.to_ne_bytes());
        }
        assert_eq!(queue_of(&answer, 7), Some(5));
        assert_eq!(queue_of(&answer, 8), None);
        for length in 0..answer.len() {
            assert_eq!(queue_of(&answer[..length], 7), None, "{length}");
        }
    }
}
