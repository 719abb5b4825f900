//! How connections reach the interpreters of a child: every interpreter polls the control socket, here it is chosen who serves.
//!
//! With one interpreter, the default in a pool, nothing is handed on. With several, whoever reads a connection gives it to the one with
//! the fewest, or makes another interpreter. Without a pool what nobody has room for waits in a queue.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use super::interpreter::Loop;
use super::ledger::Ledger;
use super::orders::{Handed, Shortage};
use super::{PANICKED, Treatment, word};
use crate::config::MilterConfig;
use crate::policy::{Bundle, Interpreter, Limits, Lists};
use crate::sys::process::{self, PidFd};
use crate::sys::{control_page, pass_fd, random, socket};

/// One interpreter as the others see it.
struct Room {
    /// Connections that it carries, those in its inbox included.
    load: AtomicU32,
    inbox: Mutex<Inbox>,
    bell: OwnedFd,
}

#[derive(Default)]
struct Inbox {
    open: bool,
    waiting: Vec<Handed>,
}

/// What the interpreters of a child share.
pub(super) struct Intake {
    pub(super) milter: MilterConfig,
    pub(super) control: OwnedFd,
    pub(super) master: PidFd,
    pub(super) ledger: Ledger,
    pub(super) limits: Limits,
    bundle: Arc<Bundle>,
    lists: Lists,
    rooms: Vec<Room>,
    queue: Mutex<VecDeque<Handed>>,
    retiring: AtomicBool,
    aborting: AtomicBool,
    sequence: AtomicU64,
    pub(super) shortage: Mutex<Shortage>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Runs an interpreter on a thread. A panic there ends the child, as one of the first interpreter does: otherwise the dead interpreter
/// would go on getting connections.
fn or_end_the_child(run: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
        process::exit_now(PANICKED);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is whole at every moment: a thread that panicked leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Intake {
    pub(super) fn new(
        milter: MilterConfig,
        bundle: Arc<Bundle>,
        lists: Lists,
        control: OwnedFd,
        master: PidFd,
        ledger: Ledger,
    ) -> io::Result<Intake> {
        let interpreters = (milter.interpreters as usize).clamp(1, control_page::MOST_INTERPRETERS);
        let room = |_| {
            Ok(Room {
                load: AtomicU32::new(0),
                inbox: Mutex::default(),
                bell: socket::wake_counter()?,
            })
        };
        let limits = Limits {
            memory: milter.interpreter_memory_limit,
            callback_timeout: milter.callback_timeout,
            ..Limits::default()
        };
        Ok(Intake {
            rooms: (0..interpreters).map(room).collect::<io::Result<_>>()?,
            milter,
            bundle,
            lists,
            control,
            master,
            ledger,
            limits,
            queue: Mutex::default(),
            retiring: AtomicBool::new(false),
            aborting: AtomicBool::new(false),
            sequence: AtomicU64::new(0),
            shortage: Mutex::default(),
            threads: Mutex::default(),
        })
    }

    /// More than one interpreter may exist.
    pub(super) fn several(&self) -> bool {
        self.rooms.len() > 1
    }

    /// Builds a Lua state with the policy in it.
    pub(super) fn engine(&self) -> Result<Interpreter, String> {
        let seed = random::seed().map_err(|error| error.to_string())?;
        let engine = Interpreter::new(&self.bundle, &self.lists, &self.limits, seed)
            .map_err(|error| error.to_string())?;
        self.sequence.fetch_add(1, Ordering::Relaxed);
        Ok(engine)
    }

    /// Says on the board how many interpreters there are.
    pub(super) fn publish_interpreters(&self) {
        let open = self.rooms.iter().filter(|room| lock(&room.inbox).open);
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.ledger.interpreters(open.count() as u64, sequence);
    }

    /// Interpreter `index` takes connections from now on.
    pub(super) fn open(&self, index: usize) {
        lock(&self.rooms[index].inbox).open = true;
    }

    /// The descriptor that wakes interpreter `index`.
    pub(super) fn bell(&self, index: usize) -> &OwnedFd {
        &self.rooms[index].bell
    }

    /// Starts another interpreter on a thread of its own; `ready` hears how that went.
    pub(super) fn spawn(
        self: &Arc<Self>,
        index: usize,
        ready: Option<mpsc::Sender<Result<(), String>>>,
    ) -> io::Result<()> {
        let intake = Arc::clone(self);
        let thread = std::thread::Builder::new().name(format!("pmx-lua-{index}"));
        let thread = thread.spawn(move || {
            or_end_the_child(|| {
                let made = Loop::new(Arc::clone(&intake), index);
                let (report, running) = match made {
                    Ok(running) => (Ok(()), Some(running)),
                    Err(error) => (Err(error), None),
                };
                if ready.is_none()
                    && let Err(error) = &report
                {
                    log::error!("another interpreter cannot be made: {error}");
                }
                if let Some(ready) = ready {
                    // Nobody listens when the child gave up meanwhile.
                    let _ = ready.send(report);
                } else {
                    intake.publish_interpreters();
                }
                match running {
                    Some(mut running) => running.run(),
                    None => intake.give_back(index),
                }
            })
        })?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// An interpreter that could not be made leaves its inbox to the others.
    pub(super) fn give_back(&self, index: usize) {
        let mut inbox = lock(&self.rooms[index].inbox);
        inbox.open = false;
        let waiting = std::mem::take(&mut inbox.waiting);
        drop(inbox);
        for handed in waiting {
            self.rooms[index].load.fetch_sub(1, Ordering::Relaxed);
            if let Err(handed) = self.serve_anywhere(handed) {
                log::warn!("a connection is cut: no interpreter is left to serve it");
                self.unserved(handed.treatment);
            }
        }
    }

    /// Leaves a connection to the first interpreter that takes one.
    fn serve_anywhere(&self, mut handed: Handed) -> Result<(), Handed> {
        for (index, room) in self.rooms.iter().enumerate() {
            room.load.fetch_add(1, Ordering::Relaxed);
            match self.deliver(index, handed) {
                Ok(()) => return Ok(()),
                Err(back) => handed = back,
            }
        }
        Err(handed)
    }

    /// A connection that was taken ends without an interpreter: its books are closed, and the master is woken as by any other end.
    pub(super) fn unserved(&self, treatment: Treatment) {
        self.ledger.unserved(treatment != Treatment::Policy);
        // A full queue already wakes the master.
        let _ = pass_fd::send(&self.control, &[word::FINISHED], None);
    }

    /// Waits for the other interpreters to end.
    pub(super) fn join(&self) {
        loop {
            let Some(thread) = lock(&self.threads).pop() else {
                return;
            };
            // It cannot have panicked: that ends the child.
            let _ = thread.join();
        }
    }

    /// Finds who serves a connection that interpreter `me` read. `Some`: me.
    ///
    /// The choice and the place taken, or the queue, are one step under the queue's lock, and so is what [`Intake::freed`] does: a connection
    /// never goes into the queue while an interpreter that was free, or became so meanwhile, sleeps.
    pub(super) fn place(self: &Arc<Self>, me: usize, handed: Handed) -> Option<Handed> {
        self.ledger.took();
        self.grow(me);
        // Without a pool the queue shows who waits; in a pool the master has counted, and an overload answer needs no room.
        let (chosen, handed) =
            if self.milter.without_pool() && handed.treatment == Treatment::Policy {
                let mut queue = lock(&self.queue);
                let (chosen, load) = self.least_loaded(me);
                let next = if load < self.milter.interpreter_connections {
                    // Whoever waits already goes first.
                    match queue.pop_front() {
                        Some(first) => {
                            queue.push_back(handed);
                            first
                        }
                        None => handed,
                    }
                } else {
                    queue.push_back(handed);
                    self.ledger.queued(queue.len() as u64);
                    return None;
                };
                self.rooms[chosen].load.fetch_add(1, Ordering::Relaxed);
                (chosen, next)
            } else {
                let (chosen, _) = self.least_loaded(me);
                self.rooms[chosen].load.fetch_add(1, Ordering::Relaxed);
                (chosen, handed)
            };
        if chosen == me {
            return Some(handed);
        }
        let back = self.deliver(chosen, handed).err()?;
        self.rooms[me].load.fetch_add(1, Ordering::Relaxed);
        Some(back)
    }

    /// Makes another interpreter when there may be one and each has something to do.
    fn grow(self: &Arc<Self>, me: usize) {
        if !self.several() || self.least_loaded(me).1 == 0 {
            return;
        }
        let free = self.rooms.iter().position(|room| !lock(&room.inbox).open);
        if let Some(index) = free {
            self.spawn_open(index);
        }
    }

    /// The open interpreter with the fewest connections, `me` if there is no better one.
    fn least_loaded(&self, me: usize) -> (usize, u32) {
        let mut least = (me, self.load(me));
        if self.several() {
            for (index, room) in self.rooms.iter().enumerate() {
                if self.load(index) < least.1 && lock(&room.inbox).open {
                    least = (index, self.load(index));
                }
            }
        }
        least
    }

    /// Starts interpreter `index`; its inbox is open already, so that a connection can wait there.
    fn spawn_open(self: &Arc<Self>, index: usize) {
        self.open(index);
        if let Err(error) = self.spawn(index, None) {
            lock(&self.rooms[index].inbox).open = false;
            log::warn!("another interpreter cannot be started: {error}");
        }
    }

    /// Leaves a connection to interpreter `index`, whose load it is already; gives it back when that one has ended meanwhile.
    fn deliver(&self, index: usize, handed: Handed) -> Result<(), Handed> {
        let mut inbox = lock(&self.rooms[index].inbox);
        if !inbox.open {
            drop(inbox);
            self.rooms[index].load.fetch_sub(1, Ordering::Relaxed);
            return Err(handed);
        }
        inbox.waiting.push(handed);
        drop(inbox);
        socket::wake(&self.rooms[index].bell);
        Ok(())
    }

    fn load(&self, index: usize) -> u32 {
        self.rooms[index].load.load(Ordering::Relaxed)
    }

    /// What the others left for interpreter `index`.
    pub(super) fn inbox(&self, index: usize) -> Vec<Handed> {
        socket::rest(&self.rooms[index].bell);
        std::mem::take(&mut lock(&self.rooms[index].inbox).waiting)
    }

    /// Interpreter `index` finished a connection; the next one of the queue, if there is one, takes its place.
    pub(super) fn freed(&self, index: usize) -> Option<Handed> {
        if !self.milter.without_pool() {
            self.rooms[index].load.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let mut queue = lock(&self.queue);
        let next = queue.pop_front();
        if next.is_some() {
            self.ledger.queued(queue.len() as u64);
        } else {
            // Under the lock: see `place`.
            self.rooms[index].load.fetch_sub(1, Ordering::Relaxed);
        }
        next
    }

    /// Every interpreter shall finish what it has and end.
    pub(super) fn retire(&self) {
        self.retiring.store(true, Ordering::Release);
        self.ring_all();
    }

    /// Every interpreter shall cut what it has and end.
    pub(super) fn abort(&self) {
        self.aborting.store(true, Ordering::Release);
        self.retire();
    }

    fn ring_all(&self) {
        for room in &self.rooms {
            socket::wake(&room.bell);
        }
    }

    /// Is it to retire? Acquire: pairs with [`Intake::retire`].
    pub(super) fn is_retiring(&self) -> bool {
        self.retiring.load(Ordering::Acquire)
    }

    /// Is it to abort? Acquire: pairs with [`Intake::abort`].
    pub(super) fn is_aborting(&self) -> bool {
        self.aborting.load(Ordering::Acquire)
    }

    /// May interpreter `index` end? Nothing is handed to it afterwards.
    pub(super) fn close(&self, index: usize) -> bool {
        if !lock(&self.queue).is_empty() && !self.is_aborting() {
            return false;
        }
        let mut inbox = lock(&self.rooms[index].inbox);
        if !inbox.waiting.is_empty() {
            return false;
        }
        inbox.open = false;
        true
    }

    /// Connections that wait for an interpreter, to be cut.
    pub(super) fn drain_queue(&self) -> Vec<Handed> {
        let mut queue = lock(&self.queue);
        let waiting: Vec<Handed> = queue.drain(..).collect();
        if !waiting.is_empty() {
            self.ledger.queued(0);
        }
        waiting
    }
}
