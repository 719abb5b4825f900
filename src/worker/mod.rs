//! A child: one process of the pool. Owns its connections, runs the policy, publishes its record of the board.
//!
//! Boot order of a child, the counterpart of the master's: signals, lock byte, board page, control page, user, interpreters, ready. It
//! never returns: it ends when it retires and its last connection is finished, when it is told to abort, or with its interpreters.
#![forbid(unsafe_code)]

mod connection;
mod ending;
mod intake;
mod interpreter;
mod ledger;
mod message_log;
mod meter;
mod orders;
mod output;
mod serve;
mod show;
#[cfg(test)]
mod tests;
mod timers;
mod work;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use nix::unistd::Pid;
use scoreboard::{ChildPage, Geometry};

use crate::config::{MilterConfig, OverloadAction};
use crate::policy::{Bundle, Lists};
use crate::sys::capability;
use crate::sys::control_page::ControlPage;
use crate::sys::landlock::Files;
use crate::sys::lock;
use crate::sys::memory;
use crate::sys::pass_fd;
use crate::sys::process::{self, PidFd};
use crate::sys::sandbox;
use crate::sys::signal;
use crate::sys::user::{Account, become_account, effective_uid};

use intake::Intake;
use ledger::Ledger;

/// Messages from the master, first byte.
pub mod order {
    /// A connection; the second byte says how to treat it ([`super::Treatment`]), the third whether it is TCP.
    pub const CONNECTION: u8 = b'C';
    /// Retire: take no more, finish, exit.
    pub const RETIRE: u8 = b'R';
    /// Abort: cut what is in hand, exit.
    pub const ABORT: u8 = b'A';
    /// Reopen the log; with the master's log file, if it is one, for a child opens no file.
    pub const REOPEN: u8 = b'L';
    /// Show that orders are read.
    pub const PROBE: u8 = b'P';
}

/// Messages to the master, first byte.
pub mod word {
    /// The interpreters are ready.
    pub const READY: u8 = b'Y';
    /// A connection is finished.
    pub const FINISHED: u8 = b'W';
}

/// How a connection is to be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// By the policy.
    Policy,
    /// Its first replied stage gets TEMPFAIL.
    Tempfail,
    /// It is accepted without the policy.
    Accept,
    /// It is refused.
    Reject,
}

impl Treatment {
    /// As a byte of an order.
    pub fn byte(self) -> u8 {
        match self {
            Treatment::Policy => b'p',
            Treatment::Tempfail => b't',
            Treatment::Accept => b'a',
            Treatment::Reject => b'r',
        }
    }

    /// From a byte of an order.
    pub fn from_byte(byte: u8) -> Option<Treatment> {
        match byte {
            b'p' => Some(Treatment::Policy),
            b't' => Some(Treatment::Tempfail),
            b'a' => Some(Treatment::Accept),
            b'r' => Some(Treatment::Reject),
            _ => None,
        }
    }
}

/// All that a child gets from its master.
#[derive(Debug)]
pub struct Seed {
    /// The milter.
    pub milter: MilterConfig,
    /// The policy's bytes.
    pub bundle: Arc<Bundle>,
    /// Whom to become, when started as root.
    pub account: Option<Account>,
    /// Slot of the pool.
    pub slot: u32,
    /// Number of the process in the slot.
    pub incarnation: u64,
    /// The child's end of the control socket.
    pub control: OwnedFd,
    /// The control page.
    pub page: OwnedFd,
    /// Connections that it carries at most; `None`: no bound.
    pub capacity: Option<u64>,
    /// The board, to map one page of.
    pub board: OwnedFd,
    /// Where that page is.
    pub geometry: Geometry,
    /// The lock file, inherited.
    pub lock: File,
    /// The byte to lock.
    pub lock_byte: i64,
    /// The master.
    pub master: Pid,
}

/// Overload answers under way at once in all children together; the rest waits.
pub const MOST_MARKED: u64 = 64;
/// What a child has open beside connections and interpreters: standard input, output and error, control socket, lock, log, its master;
/// and as many again for what is open for a moment.
const OWN_DESCRIPTORS: u64 = 16;
/// Poller, bell, and a connection that it has counted as finished and closes next.
const DESCRIPTORS_OF_AN_INTERPRETER: u64 = 3;
/// Exit status of a child that could not start.
pub const COULD_NOT_START: i32 = 3;
/// Exit status of a child that panicked, on whichever thread: EX_SOFTWARE of sysexits(3).
pub const PANICKED: i32 = 70;

/// Runs a child to its end; the caller exits with the status.
pub fn worker_main(seed: Seed) -> i32 {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| serve(seed))) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            // The master learns of it by the exit status.
            log::error!("a child cannot start: {error}");
            COULD_NOT_START
        }
        Err(_) => PANICKED,
    }
}

/// Descriptors that a child needs: its connections, those answered beside them, and its own few.
fn descriptors(milter: &MilterConfig, capacity: Option<u64>) -> u64 {
    let marked = match milter.concurrency_limit_action {
        OverloadAction::Wait => 0,
        OverloadAction::Tempfail | OverloadAction::Accept | OverloadAction::Reject => MOST_MARKED,
    };
    let own = OWN_DESCRIPTORS + DESCRIPTORS_OF_AN_INTERPRETER * u64::from(milter.interpreters);
    capacity
        .unwrap_or(u64::MAX)
        .saturating_add(marked)
        .saturating_add(own)
}

fn serve(seed: Seed) -> io::Result<()> {
    // What the master let go of is closed already; what is overlooked there is closed here.
    let kept = [
        seed.control.as_raw_fd(),
        seed.page.as_raw_fd(),
        seed.board.as_raw_fd(),
        seed.lock.as_raw_fd(),
    ];
    process::close_all_but(kept.into_iter().chain(crate::log::descriptor()));
    crate::log::begin_in_child();
    signal::reset_in_child()?;
    let master = PidFd::open(seed.master)?;
    if nix::unistd::getppid() != seed.master {
        return Err(io::Error::other("its master is gone"));
    }
    process::set_name(&format!("pmx {}", seed.milter.name));
    memory::keep_freed();
    if !lock::take(&seed.lock, seed.lock_byte)? {
        return Err(io::Error::other(
            "another process holds the lock of its slot",
        ));
    }
    let board = ChildPage::map(
        std::os::fd::AsFd::as_fd(&seed.board),
        seed.geometry,
        seed.slot,
        seed.incarnation,
    )?;
    drop(seed.board);
    let page = ControlPage::map(&seed.page)?;
    drop(seed.page);
    // The one bound on what a child holds that it cannot lie about.
    let descriptors = descriptors(&seed.milter, seed.capacity);
    process::limit_descriptors(descriptors)?;
    if let Some(account) = &seed.account {
        become_account(account)?;
    }
    capability::give_up_all()?;
    process::gain_nothing_by_executing()?;
    if effective_uid() == 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "a policy never runs as root",
        ));
    }
    if seed.milter.sandbox
        && let Err(error) = sandbox::enter(Files::None)
    {
        log::warn!(
            "a child runs without all of its sandbox: {error}; sandbox = false says that this is meant"
        );
    }
    let lists = Lists::new(&seed.bundle);
    let interpreters = usize::try_from(seed.milter.interpreters).unwrap_or(1);
    let intake = Arc::new(Intake::new(
        seed.milter,
        seed.bundle,
        lists,
        seed.control,
        master,
        Ledger::new(board, page, seed.incarnation, interpreters),
    )?);
    let preload = intake.milter.preload_interpreters.max(1) as usize;
    let (ready, made) = mpsc::channel();
    for index in 1..preload {
        intake.spawn(index, Some(ready.clone()))?;
    }
    drop(ready);
    // The first interpreter lives on the first thread: a child with one interpreter has one thread.
    let mut first = interpreter::Loop::new(Arc::clone(&intake), 0).map_err(io::Error::other)?;
    for _ in 1..preload {
        match made.recv_timeout(Duration::from_secs(60)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(io::Error::other(error)),
            Err(_) => return Err(io::Error::other("an interpreter did not come up")),
        }
    }
    intake.publish_interpreters();
    pass_fd::send(&intake.control, &[word::READY], None)?;
    first.run();
    intake.join();
    // Keeps the lock byte until here.
    drop(seed.lock);
    Ok(())
}
