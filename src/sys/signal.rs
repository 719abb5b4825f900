//! Signals as a descriptor: the master's loop decides, no handler runs.

use std::io;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals of a master: HUP and TERM stop gracefully, INT stops now, USR1 reopens logs, USR2 says that a restart is asked for, CHLD
/// tells of a death.
pub const MASTER: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
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

/// Signals that are read by a descriptor while this value lives; afterwards they are obeyed as before.
#[derive(Debug)]
pub struct Held {
    descriptor: SignalFd,
    before: SigSet,
}

/// Holds those of the signals that are not ignored: who started us with one ignored does not want us to end by it.
///
/// # Errors
/// The kernel's.
pub fn hold(signals: &[Signal]) -> io::Result<Held> {
    let before = SigSet::thread_get_mask()?;
    let obeyed: Vec<Signal> = signals
        .iter()
        .copied()
        .filter(|signal| !is_ignored(*signal))
        .collect();
    Ok(Held {
        descriptor: descriptor(&obeyed)?,
        before,
    })
}

impl Held {
    /// One that came meanwhile.
    pub fn take(&self) -> Option<Signal> {
        let info = self.descriptor.read_signal().ok()??;
        Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()
    }
}

impl std::os::fd::AsFd for Held {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Setting a mask that was set before cannot fail.
        let _ = self.before.thread_set_mask();
    }
}

fn is_ignored(signal: Signal) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with a null new action sigaction(2) only writes the present one to a valid pointer.
    let result = unsafe { libc::sigaction(signal as i32, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: it was written when the call succeeded.
    result == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Ends this process by a signal, so that whoever waits for it knows; returns when it is held or ignored.
pub fn end_by(signal: Signal) {
    let _ = nix::sys::signal::raise(signal);
}

/// A child's dispositions: INT, HUP, TERM, USR1 and USR2 are its master's business (a terminal sends INT and HUP to the whole group, systemd TERM to
/// the whole service: a child that died of it would cut the connections that a graceful stop lets finish); everything else is the default,
/// nothing is blocked.
///
/// # Errors
/// The kernel's.
pub fn reset_in_child() -> io::Result<()> {
    for signal in [
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
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
