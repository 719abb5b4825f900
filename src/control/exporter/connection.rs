//! One client: its request is read, the answer is written, and the rest that it sends is thrown away until it closes, for a socket that is
//! closed with bytes unread resets the connection, and the client may lose the answer. Each stage has its time; nothing waits.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::socket::{Shutdown, shutdown};

use crate::sys::socket;

use super::answer;
use super::ask::{self, Ask, Read};

/// For the whole request.
const ASKING: Duration = Duration::from_secs(5);
/// For the whole answer; Prometheus waits 10 s.
const ANSWERING: Duration = Duration::from_secs(10);
/// For a client to close.
const CLOSING: Duration = Duration::from_secs(2);
/// Most that is thrown away of what follows a request.
const MOST_WASTE: usize = 1 << 20;

enum Stage {
    Asking(Vec<u8>),
    Answering(Vec<u8>),
    /// Bytes that may still come.
    Closing(usize),
}

pub(super) struct Connection {
    socket: OwnedFd,
    stage: Stage,
    /// The stage's.
    pub(super) deadline: Instant,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    On,
    Over,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, now: Instant) -> Connection {
        Connection {
            socket,
            stage: Stage::Asking(Vec::new()),
            deadline: now + ASKING,
        }
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn events(&self) -> PollFlags {
        match self.stage {
            Stage::Asking(_) | Stage::Closing(_) => PollFlags::POLLIN,
            Stage::Answering(_) => PollFlags::POLLOUT,
        }
    }

    /// Whether it has its answer and is only waited for.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing(_))
    }

    /// Whether it has not asked yet.
    pub(super) fn is_asking(&self) -> bool {
        matches!(self.stage, Stage::Asking(_))
    }

    /// Its time is over.
    pub(super) fn expire(&mut self, now: Instant) -> Then {
        match &self.stage {
            // One that never said a word gets none.
            Stage::Asking(bytes) if !bytes.is_empty() => self.answer(answer::too_slow(), now),
            Stage::Asking(_) | Stage::Answering(_) | Stage::Closing(_) => Then::Over,
        }
    }

    /// Something can be read or written.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        respond: &mut dyn FnMut(&Ask) -> Vec<u8>,
    ) -> Then {
        match self.stage {
            Stage::Asking(_) => self.read(now, respond),
            Stage::Answering(_) => self.write(now),
            Stage::Closing(_) => self.drain(),
        }
    }

    fn read(&mut self, now: Instant, respond: &mut dyn FnMut(&Ask) -> Vec<u8>) -> Then {
        let Stage::Asking(bytes) = &mut self.stage else {
            return Then::On;
        };
        let mut buffer = [0; 4096];
        let before = bytes.len();
        match socket::read(&self.socket, &mut buffer) {
            Ok(0) => return Then::Over,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) => return on(&error),
        }
        if !ask::is_worth_reading(bytes, before) {
            return Then::On;
        }
        let reply = match ask::read(bytes) {
            Read::Part => return Then::On,
            Read::Whole(ask) => respond(&ask),
            Read::Refused(refusal) => answer::refuse(refusal),
        };
        self.answer(reply, now)
    }

    fn answer(&mut self, bytes: Vec<u8>, now: Instant) -> Then {
        self.stage = Stage::Answering(bytes);
        self.deadline = now + ANSWERING;
        self.write(now)
    }

    fn write(&mut self, now: Instant) -> Then {
        let Stage::Answering(bytes) = &mut self.stage else {
            return Then::On;
        };
        while !bytes.is_empty() {
            match socket::write(&self.socket, bytes) {
                Ok(count) => drop(bytes.drain(..count)),
                Err(error) => return on(&error),
            }
        }
        // A client that has gone already.
        if shutdown(self.socket.as_raw_fd(), Shutdown::Write).is_err() {
            return Then::Over;
        }
        self.stage = Stage::Closing(MOST_WASTE);
        self.deadline = now + CLOSING;
        self.drain()
    }

    fn drain(&mut self) -> Then {
        let Stage::Closing(left) = &mut self.stage else {
            return Then::On;
        };
        let mut buffer = [0; 4096];
        match socket::read(&self.socket, &mut buffer) {
            Ok(count) if count > 0 && count <= *left => {
                *left -= count;
                Then::On
            }
            Ok(_) => Then::Over,
            Err(error) => on(&error),
        }
    }
}

fn on(error: &io::Error) -> Then {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Then::On,
        _ => Then::Over,
    }
}
