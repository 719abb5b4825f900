//! What integration tests share: a milter of their own, throw-away MTAs, and deadlines instead of sleeps.
//!
//! Everything lives in a directory of its own under /tmp and on ports of its own, and is gone when its value is dropped, also
//! when the test fails. Each test file uses a part of it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod command;
pub mod crafted;
pub mod crowd;
#[cfg(target_arch = "x86_64")]
pub mod hijack;
pub mod http;
pub mod ledger;
pub mod looks;
pub mod milter;
pub mod mta;
pub mod ports;
pub mod postfix;
pub mod process;
pub mod pty;
pub mod restarting;
pub mod schema;
pub mod screen;
pub mod sendmail;
pub mod sink;
pub mod smtp;
pub mod totals;
pub mod with_mta;

use std::time::{Duration, Instant};

/// Longest that anything may take that is expected to happen soon. Generous: it bounds a failing test, it does not measure.
pub const SOON: Duration = Duration::from_secs(30);

/// Waits until `look` gives something.
///
/// # Panics
/// When the deadline passes, with `what` was waited for.
pub fn wait_until<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {deadline:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Is this process root's? Then milters run their policies as `nobody`.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
