//! What answers an MTA: published on the board first, then written at once; what the kernel does not take now waits.
#![forbid(unsafe_code)]

use std::io;

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::connection::{Connection, Interest};
use super::interpreter::{Flow, Loop};
use crate::sys::socket;

/// Output buffers above this are given back.
const KEPT_BYTES: usize = 256 << 10;

impl Loop {
    /// Publishes what was counted, then writes what answers it.
    pub(super) fn flush(
        &mut self,
        key: u64,
        connection: &mut Connection,
        mut out: Vec<u8>,
        flow: Flow,
    ) -> Flow {
        self.leave(key, connection, !out.is_empty());
        let written = self.send(key, connection, &out);
        if out.capacity() > KEPT_BYTES {
            out = Vec::new();
        }
        out.clear();
        self.out = out;
        match flow {
            Flow::End => Flow::End,
            Flow::Open => written,
        }
    }

    pub(super) fn send(&mut self, key: u64, connection: &mut Connection, bytes: &[u8]) -> Flow {
        if bytes.is_empty() {
            return Flow::Open;
        }
        if !connection.unsent.is_empty() {
            connection.unsent.extend_from_slice(bytes);
            return Flow::Open;
        }
        match socket::write(&connection.socket, bytes) {
            Ok(count) if count == bytes.len() => {
                // It is the MTA's turn from now on, however long the answer took.
                connection.last = self.now;
                Flow::Open
            }
            Ok(count) => self.leave_unsent(key, connection, &bytes[count..]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                self.leave_unsent(key, connection, bytes)
            }
            Err(_) => Flow::End,
        }
    }

    pub(super) fn leave_unsent(
        &mut self,
        key: u64,
        connection: &mut Connection,
        bytes: &[u8],
    ) -> Flow {
        connection.unsent = bytes.to_vec();
        connection.last = self.now;
        self.watch(key, connection, Interest::Write);
        Flow::Open
    }

    pub(super) fn write_unsent(&mut self, key: u64, connection: &mut Connection) -> Flow {
        let bytes = std::mem::take(&mut connection.unsent);
        connection.interest = Interest::Write;
        match self.send(key, connection, &bytes) {
            Flow::End => Flow::End,
            Flow::Open => {
                if connection.unsent.is_empty() {
                    self.watch(key, connection, Interest::Read);
                } else if connection.unsent.len() < bytes.len() {
                    connection.last = self.now;
                }
                Flow::Open
            }
        }
    }

    pub(super) fn watch(&self, key: u64, connection: &mut Connection, interest: Interest) {
        if connection.interest == interest {
            return;
        }
        connection.interest = interest;
        let mut event = EpollEvent::new(flags(interest), key);
        if let Err(error) = self.epoll.modify(&connection.socket, &mut event) {
            log::error!("a connection cannot be watched: {error}");
        }
    }
}

pub(super) fn flags(interest: Interest) -> EpollFlags {
    match interest {
        Interest::Read => EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP,
        Interest::End => EpollFlags::EPOLLRDHUP,
        Interest::Write => EpollFlags::EPOLLOUT,
    }
}
