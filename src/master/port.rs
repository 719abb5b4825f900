//! The port of a milter that is restarted: the same socket, or another one that listens before the old one is closed.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use super::child::InHand;
use super::handover::State;
use super::listener::{Access, ListenError, Listener, Relation, relation_of};
use super::report::Report;
use crate::config::{MilterConfig, Port};
use crate::sys::backlog::BacklogGauge;
use crate::sys::socket;
use crate::worker::Treatment;

/// Where the milter listens from now on.
pub(super) struct Settled {
    pub(super) listener: Listener,
    /// Why that is not where the configuration says.
    pub(super) failed: Option<String>,
}

/// The port that is configured: the same socket as before, or another one that listens before the old one is closed. If it cannot be had, the
/// milter keeps the port of before, and `milter` says so.
///
/// # Errors
/// When there is no port any more.
pub(super) fn go_on(
    old: Listener,
    state: &State,
    milter: &mut MilterConfig,
    access: Access,
    in_hand: &mut VecDeque<InHand>,
    report: &mut Report,
) -> io::Result<Settled> {
    let queue = milter.listen_queue_size;
    let was: Option<Port> = state
        .listener
        .as_ref()
        .and_then(|listener| listener.port.parse().ok());
    let settled = |listener, failed| Ok(Settled { listener, failed });
    let Some((was, relation)) = was
        .map(|was| {
            let relation = relation_of(&old, &was, &milter.port);
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
    let open = |port: &Port| {
        let listener = Listener::bind(port, access)?;
        listener
            .listen(port, queue)
            .inspect_err(|_| listener.remove_file())?;
        Ok(listener)
    };
    match open(&milter.port) {
        Ok(new) => {
            close(old, in_hand, report);
            settled(new, None)
        }
        // Only one of both can listen.
        Err(ListenError::InUse(_)) if relation == Relation::Overlap => {
            close(old, in_hand, report);
            match open(&milter.port) {
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
                    let again = open(&milter.port).map_err(io::Error::other)?;
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
    let (waiting, error) = drain(|| socket::accept(listener.socket()));
    in_hand.extend(waiting.into_iter().map(|socket| InHand {
        socket,
        treatment: Treatment::Policy,
        tcp,
    }));
    if let Some(error) = error {
        let left = BacklogGauge::new(tcp).read(listener.socket());
        report.warning(&format!(
            "connections that waited in the old port are cut ({}): {error}",
            left.map_or("unknown how many".to_owned(), |left| left.to_string())
        ));
    }
}

/// Everybody who waits, and what kept the others from being accepted.
fn drain(mut accept: impl FnMut() -> io::Result<OwnedFd>) -> (Vec<OwnedFd>, Option<io::Error>) {
    let mut waiting = Vec::new();
    loop {
        match accept() {
            Ok(socket) => waiting.push(socket),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (waiting, None),
            Err(error) if socket::concerns_one_connection(&error) => {}
            Err(error) => return (waiting, Some(error)),
        }
    }
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
        let (taken, error) = drain(|| queue.pop_front().unwrap());
        assert_eq!((taken.len(), error.is_none(), queue.len()), (2, true, 1));
        let mut queue = VecDeque::from([null(), failed(libc::EMFILE), null()]);
        let (taken, error) = drain(|| queue.pop_front().unwrap());
        assert_eq!(taken.len(), 1);
        assert_eq!(error.unwrap().raw_os_error(), Some(libc::EMFILE));
    }
}
