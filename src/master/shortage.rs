//! Something that is short for a while, descriptors or processes or room for the log: told when it begins and when it has passed, not at every try.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// After so long without a failure the next one is another episode.
const GAP: Duration = Duration::from_secs(60);

/// One thing that may be short.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shortage {
    last: Option<Instant>,
}

impl Shortage {
    /// It is short now. True: an episode begins.
    pub(super) fn hits(&mut self, now: Instant) -> bool {
        let last = self.last.replace(now);
        last.is_none_or(|last| now.saturating_duration_since(last) > GAP)
    }

    /// There is enough of it. True: an episode has ended.
    pub(super) fn passes(&mut self) -> bool {
        self.last.take().is_some()
    }
}

/// What may be short for a master.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shortages {
    /// For accepting connections: descriptors, memory.
    pub(super) accepting: Shortage,
    /// For forking children: processes, memory, descriptors.
    pub(super) forking: Shortage,
    /// Room where the log goes.
    pub(super) log: Shortage,
    /// Lines of the log that this process is known to have lost.
    pub(super) own_lines_lost: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_is_told_once_and_so_is_its_end() {
        let mut shortage = Shortage::default();
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        assert!(!shortage.passes());
        assert!(shortage.hits(at(0)));
        assert!(!shortage.hits(at(59)) && !shortage.hits(at(118)));
        assert!(shortage.passes() && !shortage.passes());
        assert!(shortage.hits(at(119)));
        assert!(shortage.hits(at(300)));
    }
}
