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
use super::{Treatment, word};
use crate::config::MilterConfig;
use crate::policy::{Bundle, Interpreter, Limits, Lists};
use crate::sys::process::PidFd;
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
        })?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// An interpreter that could not be made hands its inbox to the first one.
    fn give_back(&self, index: usize) {
        let mut inbox = lock(&self.rooms[index].inbox);
        inbox.open = false;
        let waiting = std::mem::take(&mut inbox.waiting);
        drop(inbox);
        self.rooms[index].load.store(0, Ordering::Relaxed);
        for handed in waiting {
            if self.put(0, handed).is_err() {
                log::warn!("a connection is cut: no interpreter is left to serve it");
            }
        }
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
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }

    /// Finds who serves a connection that interpreter `me` read. `Some`: me.
    pub(super) fn place(self: &Arc<Self>, me: usize, handed: Handed) -> Option<Handed> {
        let each = self.milter.interpreter_connections;
        let here = (me, self.load(me));
        let (mut best, mut load) = here;
        let mut free = None;
        if self.several() {
            for (index, room) in self.rooms.iter().enumerate() {
                if !lock(&room.inbox).open {
                    free = free.or(Some(index));
                } else if self.load(index) < load {
                    (best, load) = (index, self.load(index));
                }
            }
        }
        // Without a pool the queue shows who waits; in a pool the master has counted, and an overload answer needs no room.
        let queue = self.milter.without_pool() && handed.treatment == Treatment::Policy;
        let mut queued = 0;
        if let Some(index) = free
            && load >= 1
            && self.spawn_open(index)
        {
            (best, load) = (index, 0);
        }
        let mine = if queue && load >= each {
            let mut waiting = lock(&self.queue);
            waiting.push_back(handed);
            queued = waiting.len() as u64;
            None
        } else if best == me {
            Some(handed)
        } else {
            self.put(best, handed).err()
        };
        if mine.is_some() {
            self.rooms[me].load.fetch_add(1, Ordering::Relaxed);
        }
        self.ledger.took(queued);
        mine
    }

    /// Starts interpreter `index`; its inbox is open already, so that a connection can wait there.
    fn spawn_open(self: &Arc<Self>, index: usize) -> bool {
        self.open(index);
        match self.spawn(index, None) {
            Ok(()) => true,
            Err(error) => {
                lock(&self.rooms[index].inbox).open = false;
                log::warn!("another interpreter cannot be started: {error}");
                false
            }
        }
    }

    /// Leaves a connection to interpreter `index`; gives it back when that one has ended meanwhile.
    fn put(&self, index: usize, handed: Handed) -> Result<(), Handed> {
        let mut inbox = lock(&self.rooms[index].inbox);
        if !inbox.open {
            return Err(handed);
        }
        self.rooms[index].load.fetch_add(1, Ordering::Relaxed);
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
        if self.milter.without_pool() {
            let mut queue = lock(&self.queue);
            if let Some(next) = queue.pop_front() {
                let queued = queue.len() as u64;
                drop(queue);
                self.ledger.queued(queued);
                return Some(next);
            }
        }
        self.rooms[index].load.fetch_sub(1, Ordering::Relaxed);
        None
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
        lock(&self.queue).drain(..).collect()
    }
}
