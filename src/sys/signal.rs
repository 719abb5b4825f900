//! Signals as a descriptor: the master's loop decides, no handler runs.

use std::io;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals of a master: HUP and TERM stop gracefully, INT stops now, USR1 reopens logs, CHLD tells of a death.
pub const MASTER: [Signal; 5] = [
    Signal::SIGHUP,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGUSR1,
    Signal::SIGCHLD,
];

fn set(signals: &[Signal]) -> SigSet {
    signals.iter().copied().collect()
}

/// Blocks the signals and gives a descriptor that reads them.
///
/// # Errors
/// The kernel's.
pub fn descriptor(signals: &[Signal]) -> io::Result<SignalFd> {
    let set = set(signals);
    set.thread_block()?;
    Ok(SignalFd::with_flags(
        &set,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

/// A child's dispositions: INT, HUP and USR1 are its master's business (a terminal sends them to the whole group), everything else is the default,
/// nothing is blocked.
///
/// # Errors
/// The kernel's.
pub fn reset_in_child() -> io::Result<()> {
    for signal in [
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGPIPE,
    ] {
        ignore(signal)?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// Ignores a signal.
///
/// # Errors
/// The kernel's.
pub fn ignore(signal: Signal) -> io::Result<()> {
    // SAFETY: SIG_IGN installs no handler, so no code runs in signal context.
    unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn) }?;
    Ok(())
}
