//! What is done to children in a storm: killed by one signal or another, stopped for a while, killed while they stand still.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::side::Side;
use crate::support::ledger::{Random, Span};
use crate::support::process::{self, runs};
use crate::support::{SOON, wait_until};

/// A child that was killed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kill {
    pub(crate) pid: i32,
    pub(crate) signal: Signal,
    /// Instants between which it died.
    pub(crate) between: Span,
}

/// All of a storm.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) kills: Vec<Kill>,
    /// Children that were stopped and went on.
    pub(crate) stops: u64,
}

/// Children that may be harmed, of those that the board names.
fn victims(side: &Side) -> Vec<i32> {
    let board = side.board();
    let mut slots: Vec<_> = board.slots.iter().collect();
    if let Some(spared) = side.kind.spared() {
        slots.remove(spared);
    }
    let pids = slots.iter().filter_map(|slot| {
        let pid = i32::try_from(slot.master.pid).ok()?;
        // A board is not believed when it comes to whom to kill.
        let (_, parent) = process::state(pid)?;
        (parent == side.master).then_some(pid)
    });
    pids.collect()
}

/// Harms a random child now and then, whatever it is doing, until it is over.
pub(crate) fn strike(side: &Side, random: &mut Random, over: &AtomicBool) -> Faults {
    let mut faults = Faults::default();
    while !over.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(50 + random.below(500)));
        let victims = victims(side);
        if victims.is_empty() {
            continue; // All are dead, and the master waits before it forks again.
        }
        let pid = victims[random.below(victims.len() as u64) as usize];
        match random.below(8) {
            0 => faults.kills.push(kill(pid, Signal::SIGSEGV)),
            1 => faults.kills.push(kill(pid, Signal::SIGABRT)),
            2 => {
                stop(pid, random);
                process::signal(pid, Signal::SIGCONT);
                faults.stops += 1;
            }
            3 => {
                stop(pid, random);
                faults.kills.push(kill(pid, Signal::SIGKILL));
            }
            _ => faults.kills.push(kill(pid, Signal::SIGKILL)),
        }
    }
    faults
}

fn kill(pid: i32, signal: Signal) -> Kill {
    let before = Instant::now();
    wait_until(SOON, "it is dead", || {
        // Again and again: the first SIGSEGV only finds Rust's handler.
        process::signal(pid, signal);
        (!runs(pid)).then_some(())
    });
    Kill {
        pid,
        signal,
        between: (before, Instant::now()),
    }
}

/// Stops it for a while: longer than its master waits for it to read, but not so long that it counts as hanging.
fn stop(pid: i32, random: &mut Random) {
    process::signal(pid, Signal::SIGSTOP);
    sleep(Duration::from_millis(random.below(1500)));
}
