//! Busy clients: each opens a session, sends a few messages, quits, and begins again, until it is told to stop. What they saw is counted;
//! anything but a whole session with right answers is a complaint. They think a little between messages, so that many of them leave the
//! machine some time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::mta::{Address, Answer, Message, Mta};
use super::{SOON, wait_until};

/// Between two messages.
const THOUGHT: Duration = Duration::from_millis(15);

/// Clients at work.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

/// What they saw so far.
#[derive(Default)]
pub struct Seen {
    /// Sessions that were opened.
    pub sessions: AtomicU64,
    /// Messages that were answered as they should be.
    pub messages: AtomicU64,
    /// Sessions that came to their end, by client.
    pub finished: Vec<AtomicU64>,
}

impl Crowd {
    /// So many clients. `right`: is the answer to a message as it should be?
    pub fn of(clients: usize, address: &Address, right: fn(&Answer) -> bool) -> Crowd {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Seen {
            finished: (0..clients).map(|_| AtomicU64::new(0)).collect(),
            ..Seen::default()
        });
        let clients = (0..clients)
            .map(|number| {
                let (stop, seen, address) = (Arc::clone(&stop), Arc::clone(&seen), address.clone());
                std::thread::spawn(move || {
                    let work = Work {
                        stop: &stop,
                        seen: &seen,
                        address: &address,
                        right,
                    };
                    work.go_on(number)
                })
            })
            .collect();
        Crowd {
            stop,
            seen,
            clients,
        }
    }

    /// Messages so far.
    pub fn messages(&self) -> u64 {
        self.seen.messages.load(Ordering::SeqCst)
    }

    /// Waits until every client has begun a session from now on and come to its end: nobody is left out.
    #[track_caller]
    pub fn all_are_served(&self, when: &str) {
        let finished = || {
            let each = self.seen.finished.iter();
            each.map(|it| it.load(Ordering::SeqCst)).collect::<Vec<_>>()
        };
        let before = finished();
        // The first one may have begun before.
        wait_until(SOON, &format!("every client is served {when}"), || {
            let now = finished();
            let mut each = now.iter().zip(&before);
            each.all(|(now, before)| *now >= before + 2).then_some(())
        });
    }

    /// They finish what they have and go: sessions and messages in all.
    #[track_caller]
    pub fn disperse(self) -> (u64, u64) {
        self.stop.store(true, Ordering::SeqCst);
        let complaints: Vec<String> = self
            .clients
            .into_iter()
            .filter_map(|client| client.join().unwrap().err())
            .collect();
        assert_eq!(complaints, Vec::<String>::new());
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        (count(&self.seen.sessions), count(&self.seen.messages))
    }
}

struct Work<'a> {
    stop: &'a AtomicBool,
    seen: &'a Seen,
    address: &'a Address,
    right: fn(&Answer) -> bool,
}

impl Work<'_> {
    fn go_on(&self, number: usize) -> Result<(), String> {
        let mut round = number;
        while !self.stop.load(Ordering::SeqCst) {
            round += 1;
            let failed = |what: &str, error: std::io::Error| {
                format!("client {number}, session {round}: {what}: {error}")
            };
            let mut mta = Mta::open(self.address, SOON).map_err(|it| failed("refused", it))?;
            self.seen.sessions.fetch_add(1, Ordering::SeqCst);
            mta.negotiate(super::mta::FULL)
                .and_then(|()| mta.hello())
                .map_err(|it| failed("cut at its beginning", it))?;
            let message = Message::from(&format!("client{number}@b.example"));
            for _ in 0..1 + round % 4 {
                let answer = mta
                    .message(&message)
                    .map_err(|it| failed("cut in a message", it))?;
                if !(self.right)(&answer) {
                    return Err(format!("client {number}: a wrong answer: {answer:?}"));
                }
                self.seen.messages.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(THOUGHT);
            }
            mta.quit().map_err(|it| failed("cut at its end", it))?;
            self.seen.finished[number].fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}
