//! The port of a milter that is restarted: the same socket, or another one that listens before the old one is closed.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;

use super::child::InHand;
use super::handover::State;
use super::listener::{Access, ListenError, Listener};
use super::report::Report;
use crate::config::{MilterConfig, Port};
use crate::sys::socket;
use crate::worker::Treatment;

/// The port that is configured: the same socket as before, or another one that listens before the old one is closed.
pub(super) fn go_on(
    old: Listener,
    state: &State,
    milter: &mut MilterConfig,
    access: Access,
    in_hand: &mut VecDeque<InHand>,
    report: &mut Report,
) -> io::Result<Listener> {
    let queue = milter.listen_queue_size;
    let was: Option<Port> = state
        .listener
        .as_ref()
        .and_then(|listener| listener.port.parse().ok());
    let Some(was) = was.filter(|was| *was != milter.port) else {
        // Again, for the length of its queue may have changed.
        let listening = old.listen(&milter.port, queue).map_err(|it| it.to_string());
        let adjusted = old.adjust(access).map_err(|error| {
            format!("socket_mode, socket_owner or socket_group do not take effect: {error}")
        });
        for text in [listening, adjusted].into_iter().filter_map(Result::err) {
            report.warning(&text);
        }
        return Ok(old);
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
            close(old, in_hand);
            Ok(new)
        }
        // The same number on an address that overlaps: only one of both can listen.
        Err(ListenError::InUse(_))
            if number(&was).is_some() && number(&was) == number(&milter.port) =>
        {
            close(old, in_hand);
            match open(&milter.port) {
                Ok(new) => {
                    report.warning(&format!(
                        "{was} and {} overlap: the port was closed for an instant",
                        milter.port
                    ));
                    Ok(new)
                }
                Err(error) => {
                    report.warning(&format!("{error}; it listens on {was} again"));
                    milter.port = was;
                    open(&milter.port).map_err(io::Error::other)
                }
            }
        }
        Err(error) => {
            report.warning(&format!("{error}; it still listens on {was}"));
            milter.port = was;
            Ok(old)
        }
    }
}

fn number(port: &Port) -> Option<u16> {
    match port {
        Port::Inet { port, .. } | Port::Inet6 { port, .. } => Some(*port),
        Port::Unix(_) => None,
    }
}

/// Closes a port: the connections that wait in it are taken first.
fn close(listener: Listener, in_hand: &mut VecDeque<InHand>) {
    listener.remove_file();
    while let Ok(socket) = socket::accept(listener.socket()) {
        in_hand.push_back(InHand {
            socket,
            treatment: Treatment::Policy,
            tcp: listener.is_tcp(),
        });
    }
}
