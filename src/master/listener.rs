//! The listening socket of a milter: bound at once, listening only when the milter can take mail.
//!
//! A stale unix socket is replaced, a live one refused. Until it listens a port refuses connections, so that an MTA applies its own default.
#![forbid(unsafe_code)]

mod address;
mod handed;

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::sys::socket::sockopt::ReuseAddr;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, listen,
    setsockopt, socket,
};
use nix::unistd::{AccessFlags, Gid, Uid};
use serde::{Deserialize, Serialize};

use crate::config::Port;
use crate::sys::process;
use crate::sys::socket::somebody_listens;
use crate::sys::user::effective_uid;

use address::relation;
pub(super) use address::{Relation, bound_to, of as address_of, only_ours, relation_of};
pub(super) use handed::ListenerState;

/// Why a port cannot be had.
#[derive(Debug)]
pub(super) enum ListenError {
    /// The host has no address of that family.
    Host(Port, String),
    /// Somebody listens there.
    InUse(Port),
    /// The path is no socket.
    NotASocket(PathBuf),
    /// The system refused: what was tried, on what.
    System(&'static str, Port, io::Error),
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::Host(port, why) => write!(
                f,
                "cannot bind {port}: its host has no address of that family ({why}); write an address, such as 127.0.0.1 or ::1"
            ),
            ListenError::InUse(port) => write!(
                f,
                "cannot bind {port}: the address is in use by another program; stop that one or choose another port"
            ),
            ListenError::NotASocket(path) => write!(
                f,
                "cannot bind unix:{}: a file that is no socket is there; remove it or choose another path",
                path.display()
            ),
            ListenError::System(what, port, error) => {
                let advice = match error.raw_os_error() {
                    Some(libc::EACCES) => {
                        "; a port below 1024 needs root, a socket needs a directory that may be written"
                    }
                    Some(libc::EADDRNOTAVAIL) => {
                        "; this machine has no such address (those it has: ip addr)"
                    }
                    Some(libc::ENOENT) => {
                        "; its directory does not exist: create it, or mend the path"
                    }
                    _ => "",
                };
                write!(f, "cannot {what} {port}: {error}{advice}")
            }
        }
    }
}

impl std::error::Error for ListenError {}

impl ListenError {
    /// Does the kernel not let us?
    pub(super) fn is_permission(&self) -> bool {
        matches!(self, ListenError::System(_, _, error) if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Who may connect to a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Access {
    /// Mode bits.
    pub(super) mode: u32,
    /// Owner, when it is to be set.
    pub(super) owner: Option<u32>,
    /// Group, when it is to be set.
    pub(super) group: Option<u32>,
}

/// A bound port.
#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
    /// A unix socket's path and inode: it is removed at the end only while it is still ours.
    file: Option<(PathBuf, u64)>,
    tcp: bool,
}

impl Listener {
    /// Binds a port, at the address that its host has now.
    pub(super) fn bind(port: &Port, access: Access) -> Result<Listener, ListenError> {
        Listener::bind_at(port, address::of(port)?, access)
    }

    /// Binds a port whose address is known.
    pub(super) fn bind_at(
        port: &Port,
        address: Option<SocketAddr>,
        access: Access,
    ) -> Result<Listener, ListenError> {
        match port {
            Port::Inet { .. } => bind_tcp(port, address, AddressFamily::Inet),
            Port::Inet6 { .. } => bind_tcp(port, address, AddressFamily::Inet6),
            Port::Unix(path) => bind_unix(port, path, access),
        }
    }

    /// Could [`Listener::bind`] have the port? Nothing is left of the trial. `running`: where this milter listens already.
    pub(super) fn probe(
        port: &Port,
        access: Access,
        running: Option<&Port>,
        run_dir: &Path,
    ) -> Result<(), ListenError> {
        let relation = running.map_or(Relation::Apart, |running| relation(running, port));
        if relation == Relation::Same {
            return Ok(());
        }
        let Port::Unix(path) = port else {
            return match Listener::bind(port, access) {
                // The milter itself has it, as far as it can be known here, and will close it.
                Err(ListenError::InUse(_)) if relation == Relation::Overlap => Ok(()),
                other => other.map(drop),
            };
        };
        examine(port, path)?;
        match path.parent() {
            // A start makes it.
            Some(folder) if folder == run_dir && !folder.exists() => Ok(()),
            Some(folder) => nix::unistd::eaccess(folder, AccessFlags::W_OK | AccessFlags::X_OK)
                .map_err(|error| ListenError::System("bind", port.clone(), error.into())),
            None => Ok(()),
        }
    }

    /// Begins to take connections.
    pub(super) fn listen(&self, port: &Port, queue: u32) -> Result<(), ListenError> {
        let most = i32::try_from(queue).unwrap_or(i32::MAX).clamp(1, 65_535);
        let backlog = Backlog::new(most).unwrap_or(Backlog::MAXCONN);
        listen(&self.socket, backlog).map_err(|error| match error {
            nix::errno::Errno::EADDRINUSE => ListenError::InUse(port.clone()),
            error => ListenError::System("listen on", port.clone(), error.into()),
        })
    }

    /// The socket.
    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Are its connections TCP?
    pub(super) fn is_tcp(&self) -> bool {
        self.tcp
    }

    /// Removes the unix socket, if it is still ours. Connections that wait in it are refused.
    pub(super) fn remove_file(&self) {
        if let Some((path, inode)) = &self.file
            && fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == *inode)
        {
            // Gone already: all the better.
            let _ = fs::remove_file(path);
        }
    }
}

fn bind_tcp(
    port: &Port,
    address: Option<SocketAddr>,
    family: AddressFamily,
) -> Result<Listener, ListenError> {
    let Some(address) = address else {
        return Err(ListenError::Host(port.clone(), "none".to_owned()));
    };
    let system = |what, error: nix::errno::Errno| match error {
        nix::errno::Errno::EADDRINUSE => ListenError::InUse(port.clone()),
        error => ListenError::System(what, port.clone(), error.into()),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)
        .map_err(|error| system("make a socket for", error))?;
    // Connections of the last run in TIME_WAIT must not keep the port.
    setsockopt(&socket, ReuseAddr, &true).map_err(|error| system("prepare", error))?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))
        .map_err(|error| system("bind", error))?;
    Ok(Listener {
        socket,
        file: None,
        tcp: true,
    })
}

/// What is at the path of a unix socket.
enum There {
    Nothing,
    /// A socket on which nobody listens.
    Stale,
}

fn examine(port: &Port, path: &Path) -> Result<There, ListenError> {
    let system = |what, error: io::Error| ListenError::System(what, port.clone(), error);
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => Err(ListenError::NotASocket(path.to_owned())),
        Ok(_) => match somebody_listens(path) {
            Ok(true) => Err(ListenError::InUse(port.clone())),
            Ok(false) => Ok(There::Stale),
            Err(error) => Err(system("ask who listens on", error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(There::Nothing),
        Err(error) => Err(system("examine", error)),
    }
}

fn bind_unix(port: &Port, path: &Path, access: Access) -> Result<Listener, ListenError> {
    let system = |what, error: io::Error| ListenError::System(what, port.clone(), error);
    if let There::Stale = examine(port, path)? {
        fs::remove_file(path).map_err(|error| system("remove the stale socket of", error))?;
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)
        .map_err(|error| system("make a socket for", error.into()))?;
    let address = UnixAddr::new(path).map_err(|error| system("name", error.into()))?;
    // The mode comes with the name: a chmod afterwards would follow a link that somebody put in its place.
    let umask = process::set_umask(0o777 & !access.mode);
    let bound = bind(socket.as_raw_fd(), &address);
    process::set_umask(umask);
    bound.map_err(|error| match error {
        nix::errno::Errno::EADDRINUSE => ListenError::InUse(port.clone()),
        error => system("bind", error.into()),
    })?;
    // Nobody can connect before it listens: the owner is in time.
    match hand_over(path, access) {
        Ok(inode) => Ok(Listener {
            socket,
            file: Some((path.to_owned(), inode)),
            tcp: false,
        }),
        Err(error) => {
            // Only a name goes, whatever it names.
            let _ = fs::remove_file(path);
            Err(system("set owner (socket_owner, socket_group) of", error))
        }
    }
}

/// Gives our new socket to its owner; its inode. Whoever may write to its directory can put something else in its place at any moment,
/// which must not become theirs.
fn hand_over(path: &Path, access: Access) -> io::Result<u64> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.file_type().is_socket() || meta.uid() != effective_uid() || meta.nlink() != 1 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "something else was put in its place",
        ));
    }
    if access.owner.is_some() || access.group.is_some() {
        nix::unistd::fchownat(
            &file,
            c"",
            access.owner.map(Uid::from_raw),
            access.group.map(Gid::from_raw),
            AtFlags::AT_EMPTY_PATH,
        )?;
    }
    Ok(meta.ino())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_our_own_socket_is_given_away_never_what_was_put_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let access = Access {
            mode: 0o600,
            owner: Some(effective_uid()),
            group: None,
        };
        let _listener = UnixListener::bind(path("real")).unwrap();
        hand_over(&path("real"), access).unwrap();
        fs::write(path("secret"), "x").unwrap();
        symlink(path("secret"), path("link to a file")).unwrap();
        symlink(path("real"), path("link to a socket")).unwrap();
        for name in ["secret", "link to a file", "link to a socket"] {
            assert!(hand_over(&path(name), access).is_err(), "{name}");
        }
        fs::hard_link(path("real"), path("second")).unwrap();
        assert!(hand_over(&path("second"), access).is_err());
    }
}
