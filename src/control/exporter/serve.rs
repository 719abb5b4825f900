//! The loop: wait, accept, advance, expire. Connections are bounded; a client that neither asks nor reads costs one of them for seconds.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::signal::Held;
use crate::sys::socket;

use super::ask::Ask;
use super::connection::{Connection, Then};

/// Most clients at once. Beyond it the oldest of those that have their answer goes, if there is none the oldest that has not asked, so that
/// nobody locks Prometheus out by only connecting or by not closing.
const MOST: usize = 64;
/// How long nobody is accepted when the kernel has no descriptor for us.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves until a signal comes.
///
/// # Errors
/// When the kernel cannot wait for events.
pub(super) fn serve(
    listener: OwnedFd,
    signals: &Held,
    mut respond: impl FnMut(&Ask) -> Vec<u8>,
) -> io::Result<()> {
    let mut clients: Vec<Connection> = Vec::new();
    let mut paused_until = None;
    loop {
        let now = Instant::now();
        paused_until = paused_until.filter(|end| *end > now);
        let next = clients
            .iter()
            .map(|client| client.deadline)
            .chain(paused_until)
            .min();
        let ready = wait(
            &listener,
            signals,
            &clients,
            paused_until.is_none(),
            next,
            now,
        )?;
        if signals.take().is_some() {
            return Ok(());
        }
        let now = Instant::now();
        let mut at = 0;
        clients.retain_mut(|client| {
            let is_ready = ready.get(at).copied().unwrap_or(false);
            at += 1;
            let then = if is_ready {
                client.advance(now, &mut respond)
            } else if client.deadline <= now {
                client.expire(now)
            } else {
                Then::On
            };
            then == Then::On
        });
        if paused_until.is_none() && !accept(&listener, &mut clients, now) {
            paused_until = Some(now + PAUSE);
        }
    }
}

/// Which clients can be advanced.
fn wait(
    listener: &OwnedFd,
    signals: &Held,
    clients: &[Connection],
    accepting: bool,
    next: Option<Instant>,
    now: Instant,
) -> io::Result<Vec<bool>> {
    let wanted = if accepting {
        PollFlags::POLLIN
    } else {
        PollFlags::empty()
    };
    let mut descriptors = vec![
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        PollFd::new(listener.as_fd(), wanted),
    ];
    descriptors.extend(
        clients
            .iter()
            .map(|it| PollFd::new(it.descriptor(), it.events())),
    );
    let timeout = next.map_or(PollTimeout::NONE, |next| {
        // Rounded up: a wait of less than a millisecond would not wait at all.
        let left = next.saturating_duration_since(now) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut descriptors, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(descriptors[2..]
        .iter()
        .map(|it| it.any().unwrap_or(true))
        .collect())
}

/// Takes whoever waits. False: the kernel is short of something.
fn accept(listener: &OwnedFd, clients: &mut Vec<Connection>, now: Instant) -> bool {
    // In turns, so that a flood of connections holds up no answer.
    for _ in 0..MOST {
        match socket::accept(listener) {
            Ok(client) => {
                if clients.len() >= MOST {
                    clients.remove(first_to_go(clients));
                }
                clients.push(Connection::new(client, now));
            }
            Err(error) if socket::concerns_one_connection(&error) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

/// Whose place a newcomer gets; they stand in the order in which they came. One whose answer is on its way goes last: it is served.
fn first_to_go(clients: &[Connection]) -> usize {
    let answered = clients.iter().position(Connection::is_closing);
    answered
        .or_else(|| clients.iter().position(Connection::is_asking))
        .unwrap_or(0)
}
