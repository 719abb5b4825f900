//! The MTA's side of the demo: a few clients at once, each with one session after the other, each answer looked at.
#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::client::{Address, Change, Client, Letter, Offer};
use crate::config::Port;

/// Sessions altogether.
pub(super) const SESSIONS: u64 = 200;
/// Messages of each.
pub(super) const MESSAGES: u64 = 2;
/// Clients at once.
const CLIENTS: u64 = 4;
/// For each step of the dialogue.
const LIMIT: Duration = Duration::from_secs(10);
/// How often it is told how far they are.
const TURN: Duration = Duration::from_millis(50);

/// How a run of sessions went.
#[derive(Debug)]
pub(super) enum Went {
    /// Every message got its header.
    Well,
    /// It was told to stop.
    Interrupted,
    /// A session failed.
    Badly(io::Error),
}

/// Runs all sessions. `turn` is called meanwhile with the number of finished ones; false ends the run.
pub(super) fn drive(port: &Port, mut turn: impl FnMut(u64) -> bool) -> Went {
    let next = AtomicU64::new(0);
    let finished = AtomicU64::new(0);
    let enough = AtomicBool::new(false);
    let client = || -> io::Result<()> {
        loop {
            // Relaxed, here and below: numbers that order nothing else.
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= SESSIONS || enough.load(Ordering::Relaxed) {
                return Ok(());
            }
            if let Err(error) = session(port, number) {
                enough.store(true, Ordering::Relaxed);
                return Err(error);
            }
            finished.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let mut interrupted = false;
        while clients.iter().any(|client| !client.is_finished()) {
            if !interrupted && !turn(finished.load(Ordering::Relaxed)) {
                interrupted = true;
                enough.store(true, Ordering::Relaxed);
            }
            thread::sleep(TURN);
        }
        let results: io::Result<Vec<()>> = clients
            .into_iter()
            .map(|client| {
                client
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
            })
            .collect();
        match results {
            Err(error) => Went::Badly(error),
            Ok(_) if interrupted => Went::Interrupted,
            Ok(_) => {
                turn(finished.load(Ordering::Relaxed));
                Went::Well
            }
        }
    })
}

/// One SMTP client's visit.
fn session(port: &Port, number: u64) -> io::Result<()> {
    let mut client = Client::connect(port, LIMIT)?;
    client.negotiate(Offer::default())?;
    // Addresses of the block that is reserved for documentation (RFC 5737).
    let last = u8::try_from(1 + number % 200).unwrap_or(1);
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 40_000);
    client.hello(
        b"client.example.org",
        &Address::Inet(address),
        b"client.example.org",
    )?;
    for message in 0..MESSAGES {
        let answer = client.message(&letter(number, message))?;
        let marked = answer
            .changes
            .iter()
            .any(|change| matches!(change, Change::AddHeader(name, _) if name == b"X-Filter"));
        if !answer.is_taken() || !marked {
            return Err(io::Error::other(format!(
                "a message was answered {:?}, and its header is {}",
                answer.reply,
                if marked { "there" } else { "missing" }
            )));
        }
    }
    client.quit()
}

fn letter(session: u64, message: u64) -> Letter {
    let header = |name: &str, value: String| (name.as_bytes().to_vec(), value.into_bytes());
    Letter {
        sender: b"<sender@example.org>".to_vec(),
        recipients: vec![b"<reader@example.com>".to_vec()],
        headers: vec![
            header("From", "Sender <sender@example.org>".to_owned()),
            header("To", "Reader <reader@example.com>".to_owned()),
            header("Subject", format!("message {message} of session {session}")),
        ],
        body: b"Hello.\r\n".repeat(100),
        queue_id: format!("DEMO{session:04}{message}").into_bytes(),
        ..Letter::default()
    }
}
