//! Sockets as the master and the interpreters use them: accepted, read and written without ever blocking.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::sockopt::TcpNoDelay;
use nix::sys::socket::{MsgFlags, setsockopt};

/// Accepts one connection: close-on-exec and non-blocking from the start.
///
/// # Errors
/// `WouldBlock` when nobody waits; EMFILE, ENFILE, ENOMEM when something is short; ECONNABORTED when the peer left again.
pub fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: accept4(2) with null pointers stores no address; the descriptor is open.
    let fd = unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Was it one connection only that could not be accepted? The peer left again, or the network had an error of its own (accept(2)); the next
/// one may be had at once. Of anything else more tries at once make nothing better.
pub fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ETIMEDOUT
                | libc::ECONNRESET
        )
    )
}

/// Does somebody listen on this unix socket? Never waits: one whose queue of connections is full listens too.
///
/// # Errors
/// The kernel's, when it cannot be known.
pub fn somebody_listens(path: &Path) -> io::Result<bool> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let asking = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(asking.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) | Err(Errno::EAGAIN) => Ok(true),
        Err(Errno::ECONNREFUSED) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Who is at the other end, for log lines: an address, or of a unix socket the process that connected.
pub fn peer(socket: &OwnedFd) -> String {
    use nix::sys::socket::sockopt::PeerCredentials;
    use nix::sys::socket::{SockaddrStorage, getpeername, getsockopt};
    match getpeername::<SockaddrStorage>(socket.as_raw_fd()) {
        Ok(address)
            if address.as_sockaddr_in().is_some() || address.as_sockaddr_in6().is_some() =>
        {
            address.to_string()
        }
        Ok(_) => getsockopt(socket, PeerCredentials).map_or_else(
            |_| "on the unix socket".to_owned(),
            |who| format!("pid {}", who.pid()),
        ),
        // The kernel forgets the address of a connection that was reset.
        Err(_) => "that has gone".to_owned(),
    }
}

/// Sends small packets at once: a modification and its final reply must not wait for the MTA's delayed acknowledgement.
pub fn no_delay(socket: &OwnedFd) {
    // A socket that refuses is one that has just been closed: the next read tells.
    let _ = setsockopt(socket, TcpNoDelay, &true);
}

/// Reads what is there. 0: the peer has ended its side.
///
/// # Errors
/// `WouldBlock` when nothing is there; others when the connection is broken.
pub fn read(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(nix::unistd::read(socket.as_fd(), buffer)?)
}

/// Writes what the kernel takes now; never raises SIGPIPE.
///
/// # Errors
/// `WouldBlock` when it takes nothing; others when the connection is broken.
pub fn write(socket: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(nix::sys::socket::send(
        socket.as_raw_fd(),
        bytes,
        MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
    )?)
}

/// A counter that wakes another thread's event loop.
///
/// # Errors
/// The kernel's, when descriptors are short.
pub fn wake_counter() -> io::Result<OwnedFd> {
    use nix::sys::eventfd::{EfdFlags, EventFd};
    let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    Ok(event.into())
}

/// Wakes whoever polls the counter. A counter that is full already wakes.
pub fn wake(counter: &OwnedFd) {
    let _ = nix::unistd::write(counter.as_fd(), &1u64.to_ne_bytes());
}

/// Puts the counter back to rest.
pub fn rest(counter: &OwnedFd) {
    let _ = nix::unistd::read(counter.as_fd(), &mut [0; 8]);
}
