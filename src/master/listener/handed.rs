//! A listening socket as it crosses an exec, and what becomes of it when the configuration says something else.
#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use nix::fcntl::AtFlags;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::AcceptConn;
use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};

use super::{Access, Listener};
use crate::config::Port;
use crate::sys::exec::{self, Inherited};

/// A listener in words.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::master) struct ListenerState {
    socket: RawFd,
    file: Option<(PathBuf, u64)>,
    tcp: bool,
    /// As the operator wrote it.
    pub(in crate::master) port: String,
}

impl Listener {
    /// In words.
    pub(in crate::master) fn hand_over(&self, port: &Port) -> ListenerState {
        ListenerState {
            socket: exec::number(&self.socket),
            file: self.file.clone(),
            tcp: self.tcp,
            port: port.to_string(),
        }
    }

    /// Gives a unix socket that goes on the mode and the owner that are configured now. A name that is no more ours is left alone.
    ///
    /// # Errors
    /// The kernel's.
    pub(in crate::master) fn adjust(&self, access: Access) -> io::Result<()> {
        let Some((path, inode)) = &self.file else {
            return Ok(());
        };
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
            .open(path)?;
        let meta = file.metadata()?;
        if meta.ino() != *inode || !meta.file_type().is_socket() {
            return Err(io::Error::other("something else is in its place"));
        }
        let owner = access.owner.filter(|uid| *uid != meta.uid());
        let group = access.group.filter(|gid| *gid != meta.gid());
        if owner.is_some() || group.is_some() {
            nix::unistd::fchownat(
                &file,
                c"",
                owner.map(Uid::from_raw),
                group.map(Gid::from_raw),
                AtFlags::AT_EMPTY_PATH,
            )?;
        }
        if meta.mode() & 0o777 != access.mode & 0o777 {
            // By the descriptor, as proc names it: a link that somebody put in its place is not followed.
            let by_descriptor = format!("/proc/self/fd/{}", exec::number(&file));
            fs::set_permissions(by_descriptor, fs::Permissions::from_mode(access.mode))?;
        }
        Ok(())
    }

    /// Takes a listener up.
    ///
    /// # Errors
    /// When the descriptor is no listening socket.
    pub(in crate::master) fn take_up(
        state: &ListenerState,
        inherited: &mut Inherited,
    ) -> io::Result<Listener> {
        let socket = inherited.take_socket(state.socket)?;
        if !getsockopt(&socket, AcceptConn)? {
            return Err(io::Error::other("the port's socket does not listen"));
        }
        Ok(Listener {
            socket,
            file: state.file.clone(),
            tcp: state.tcp,
        })
    }
}
