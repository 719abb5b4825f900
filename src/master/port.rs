//! The port of a milter that is restarted: the same socket, or another one that listens before the old one is closed.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::child::InHand;
use super::handover::State;
use super::listener::{Access, ListenError, Listener, Relation, bound_to, relation_of};
use super::report::Report;
use crate::config::{MilterConfig, Port};
use crate::sys::backlog::BacklogGauge;
use crate::sys::socket;
use crate::worker::Treatment;

/// Taken of an old port beyond what waited in it when it was begun to be closed: they came meanwhile.
const LATE_COMERS: usize = 1024;
/// The longest queue that a port can have (`listen_queue_size`), when the kernel does not tell how much of it is used.
const LONGEST_QUEUE: u64 = 65_535;

/// Where the milter listens from now on.
pub(super) struct Settled {
    pub(super) listener: Listener,
    /// Why that is not where the configuration says.
    pub(super) failed: Option<String>,
}

/// The port that is configured: the same socket as before, or another one that listens before the old one is closed. If it cannot be had, the
/// milter keeps the port of before, and `milter` says so. `address` is that of another TCP port, looked up in the trial: no name service is
/// asked here, where nobody is served meanwhile.
///
/// # Errors
/// When there is no port any more.
pub(super) fn go_on(
    old: Listener,
    state: &State,
    milter: &mut MilterConfig,
    (access, address): (Access, Option<SocketAddr>),
    in_hand: &mut VecDeque<InHand>,
    report: &mut Report,
) -> io::Result<Settled> {
    let queue = milter.listen_queue_size;
    let was = state.port();
    let settled = |listener, failed| Ok(Settled { listener, failed });
    let Some((was, relation)) = was
        .map(|was| {
            let relation = relation_of(&old, &was, (&milter.port, address));
            (was, relation)
        })
        .filter(|(_, relation)| *relation != Relation::Same)
    else {
        // Again, for the length of its queue may have changed.
        let listening = old.listen(&milter.port, queue).map_err(|it| it.to_string());
        let adjusted = old.adjust(access).map_err(|error| {
            format!("socket_mode, socket_owner or socket_group do not take effect: {error}")
        });
        for text in [listening, adjusted].into_iter().filter_map(Result::err) {
            report.warning(&text);
        }
        return settled(old, None);
    };
    let before = bound_to(&old);
    let open = |port: &Port, address| {
        let listener = Listener::bind_at(port, address, access)?;
        listener
            .listen(port, queue)
            .inspect_err(|_| listener.remove_file())?;
        Ok(listener)
    };
    match open(&milter.port, address) {
        Ok(new) => {
            close(old, in_hand, report);
            settled(new, None)
        }
        // Only one of both can listen.
        Err(ListenError::InUse(_)) if relation == Relation::Overlap => {
            close(old, in_hand, report);
            match open(&milter.port, address) {
                Ok(new) => {
                    report.warning(&format!(
                        "{was} and {} overlap: the port was closed for an instant",
                        milter.port
                    ));
                    settled(new, None)
                }
                Err(error) => {
                    let text = format!(
                        "{error}; it listens on {was} again, which was closed for an instant"
                    );
                    milter.port = was;
                    let again = open(&milter.port, before).map_err(io::Error::other)?;
                    settled(again, Some(text))
                }
            }
        }
        Err(error) => {
            let text = format!("{error}; it still listens on {was}");
            milter.port = was;
            settled(old, Some(text))
        }
    }
}

/// Closes a port: the connections that wait in it are taken first.
fn close(listener: Listener, in_hand: &mut VecDeque<InHand>, report: &mut Report) {
    listener.remove_file();
    let tcp = listener.is_tcp();
    // No more than wait now and come while these are taken, else whoever connects fast enough keeps the old port open.
    let gauge = BacklogGauge::new(tcp);
    let queued = gauge.read(listener.socket()).unwrap_or(LONGEST_QUEUE);
    let most = usize::try_from(queued).unwrap_or(usize::MAX);
    let (waiting, error) = drain(most.saturating_add(LATE_COMERS), || {
        socket::accept(listener.socket())
    });
    in_hand.extend(waiting.into_iter().map(|socket| InHand {
        socket,
        treatment: Treatment::Policy,
        tcp,
    }));
    if let Some(error) = error {
        let left = gauge.read(listener.socket());
        report.warning(&format!(
            "connections that waited in the old port are cut ({}): {error}",
            left.map_or("unknown how many".to_owned(), |left| left.to_string())
        ));
    }
}

/// Everybody who waits, up to so many, and what kept the others from being accepted.
fn drain(
    most: usize,
    mut accept: impl FnMut() -> io::Result<OwnedFd>,
) -> (Vec<OwnedFd>, Option<io::Error>) {
    let mut waiting = Vec::new();
    for _ in 0..most {
        match accept() {
            Ok(socket) => waiting.push(socket),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (waiting, None),
            Err(error) if socket::concerns_one_connection(&error) => {}
            Err(error) => return (waiting, Some(error)),
        }
    }
    let error = io::Error::other("more and more came while it was being closed");
    (waiting, Some(error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_who_left_while_he_waited_keeps_nobody_behind_him_from_being_taken() {
        let null = || std::fs::File::open("/dev/null").map(OwnedFd::from);
        let failed = |errno| Err(io::Error::from_raw_os_error(errno));
        let mut queue = VecDeque::from([
            null(),
            failed(libc::ECONNABORTED),
            null(),
            failed(libc::EINTR),
            failed(libc::EAGAIN),
            null(),
        ]);
        let (taken, error) = drain(9, || queue.pop_front().unwrap());
        assert_eq!((taken.len(), error.is_none(), queue.len()), (2, true, 1));
        let mut queue = VecDeque::from([null(), failed(libc::EMFILE), null()]);
        let (taken, error) = drain(9, || queue.pop_front().unwrap());
        assert_eq!(taken.len(), 1);
        assert_eq!(error.unwrap().raw_os_error(), Some(libc::EMFILE));
    }

    #[test]
    fn who_comes_faster_than_he_is_taken_keeps_no_port_open() {
        let (taken, error) = drain(9, || std::fs::File::open("/dev/null").map(OwnedFd::from));
        assert_eq!((taken.len(), error.is_some()), (9, true));
    }
}
