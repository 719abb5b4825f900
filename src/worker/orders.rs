//! What the master sends a child through the control socket, one message at a time.
//!
//! A connection whose descriptor found no number here is gone: the kernel has closed it. It is counted as served, so that the master does
//! not wait for it for ever.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::intake::{Intake, lock};
use super::{Treatment, order};
use crate::sys::{pass_fd, socket};

/// After so long without a loss, the next one is told again.
const EPISODE: Duration = Duration::from_secs(60);

/// A connection on its way to an interpreter.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) socket: OwnedFd,
    pub(super) treatment: Treatment,
}

/// What the control socket brought.
#[derive(Debug)]
pub(super) enum Order {
    /// A connection.
    Connection(Handed),
    /// Retire.
    Retire,
    /// Abort.
    Abort,
    /// Reopen the log: go on in this file, or connect anew if it is none.
    Reopen(Option<OwnedFd>),
    /// Something that needs no more, or that nobody understands.
    Done,
    /// Nothing waits.
    Nothing,
    /// The master is gone.
    Gone,
}

/// A shortage that is told once, however many connections it costs.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    last: Option<Instant>,
}

impl Shortage {
    /// Another loss; true when it is the first of its episode.
    fn begins(&mut self, now: Instant) -> bool {
        let last = self.last.replace(now);
        last.is_none_or(|last| now.saturating_duration_since(last) > EPISODE)
    }
}

impl Intake {
    /// Reads one message of the master.
    pub(super) fn receive(&self) -> Order {
        let mut received = match pass_fd::receive(&self.control) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Order::Nothing,
            Err(error) => {
                log::error!("the control socket: {error}");
                return Order::Gone;
            }
            Ok(None) => return Order::Gone,
            Ok(Some(received)) => received,
        };
        match (received.message, received.passed.take()) {
            ([order::CONNECTION, treatment, tcp, ..], Some(socket)) => {
                if tcp == b't' {
                    socket::no_delay(&socket);
                }
                Order::Connection(Handed {
                    socket,
                    treatment: Treatment::from_byte(treatment).unwrap_or(Treatment::Tempfail),
                })
            }
            ([order::CONNECTION, treatment, ..], None) => {
                self.lost_on_the_way(treatment);
                Order::Done
            }
            ([order::RETIRE, ..], None) => Order::Retire,
            ([order::ABORT, ..], None) => Order::Abort,
            ([order::REOPEN, ..], file) => Order::Reopen(file),
            ([order::PROBE, ..], None) => {
                self.ledger.heard();
                Order::Done
            }
            _ => Order::Done,
        }
    }

    fn lost_on_the_way(&self, treatment: u8) {
        if lock(&self.shortage).begins(Instant::now()) {
            log::error!(
                "a connection is cut, for this process has no file descriptor left for it (its limit is {}); raise LimitNOFILE of the unit (ulimit -n), or lower interpreter_connections",
                crate::sys::process::descriptor_limit()
            );
        }
        self.ledger.took();
        self.unserved(Treatment::from_byte(treatment).unwrap_or(Treatment::Policy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_once_an_episode() {
        let mut shortage = Shortage::default();
        let begin = Instant::now();
        let told: Vec<u64> = [0, 1, 59, 118, 179, 180]
            .into_iter()
            .filter(|second| shortage.begins(begin + Duration::from_secs(*second)))
            .collect();
        assert_eq!(told, [0, 179]);
    }
}
