//! Memory and descriptors of a milter's processes, and whether they grow.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use crate::rest::Found;
use crate::side::Side;
use crate::support::process;

/// How much more of the master's own memory than after the first rounds is growth: an allocator keeps some pages more or less, whereas what
/// leaks with each of some thousand connections, deaths or restarts is soon above it.
const MASTER_MORE_KIB: u64 = 512;
/// Likewise of a child's, whose Lua state may hold more garbage at one rest than at another: up to 1 MiB, and what it keeps alive.
const CHILD_MORE_KIB: u64 = 1536;

/// What a process uses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Resident memory.
    pub(crate) rss_kib: u64,
    /// Of this, its own: without files and shared memory, of which any amount may be mapped.
    pub(crate) own_kib: u64,
    /// Open descriptors; `None`: only root may count them.
    pub(crate) descriptors: Option<usize>,
}

impl Sample {
    /// Of a process that runs.
    pub(crate) fn of(pid: i32) -> Option<Sample> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let kib = |key: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok();
        Some(Sample {
            rss_kib: kib("VmRSS:")?,
            own_kib: kib("RssAnon:")?,
            descriptors: descriptors.map(Iterator::count),
        })
    }
}

/// The most that was seen in a storm.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peak {
    pub(crate) master: Sample,
    pub(crate) child_rss_kib: u64,
}

impl Peak {
    /// Looks at all processes until it is over.
    pub(crate) fn watched(side: &Side, over: &AtomicBool) -> Peak {
        let mut peak = Peak::default();
        while !over.load(Ordering::SeqCst) {
            if let Some(now) = Sample::of(side.master) {
                let most = &mut peak.master;
                most.rss_kib = most.rss_kib.max(now.rss_kib);
                most.own_kib = most.own_kib.max(now.own_kib);
                most.descriptors = most.descriptors.max(now.descriptors);
            }
            for child in process::children(side.master) {
                let rss = Sample::of(child).map_or(0, |child| child.rss_kib);
                peak.child_rss_kib = peak.child_rss_kib.max(rss);
            }
            sleep(Duration::from_millis(250));
        }
        peak
    }
}

/// A milter's processes at rest after the first rounds, to compare with.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    first: Option<(Sample, Option<Sample>)>,
}

impl Growth {
    /// Has the master, or the child that was not harmed, more than after the first rounds?
    pub(crate) fn judge(&mut self, found: &Found) {
        let now = (found.master, found.spared);
        let first = *self.first.get_or_insert(now);
        let master = ("master", MASTER_MORE_KIB, Some(first.0), Some(now.0));
        let child = ("child in slot 0", CHILD_MORE_KIB, first.1, now.1);
        for (who, most, first, now) in [master, child] {
            let (Some(first), Some(now)) = (first, now) else {
                continue;
            };
            assert!(
                now.own_kib <= first.own_kib + most,
                "the memory of the {who} grows: {first:?}, now {now:?}"
            );
            assert!(
                now.descriptors <= first.descriptors,
                "the descriptors of the {who} grow: {first:?}, now {now:?}"
            );
        }
    }
}
