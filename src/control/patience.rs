//! What takes longer than a second says so: after a second, then every ten, until it is done.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// Nobody wonders before this.
const FIRST: Duration = Duration::from_secs(1);
/// Between two lines.
const AGAIN: Duration = Duration::from_secs(10);

/// Of one wait.
pub(super) struct Patience {
    begin: Instant,
    next: Instant,
}

impl Patience {
    /// A wait that begins now.
    pub(super) fn new(now: Instant) -> Patience {
        Patience {
            begin: now,
            next: now + FIRST,
        }
    }

    /// How long it has taken, when something should be said.
    pub(super) fn due(&mut self, now: Instant) -> Option<Duration> {
        if now < self.next {
            return None;
        }
        self.next = now + AGAIN;
        Some(now - self.begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_silent_for_a_second_and_then_speaks_every_ten() {
        let begin = Instant::now();
        let mut patience = Patience::new(begin);
        let spoken: Vec<u64> = (0..250)
            .filter_map(|tenth| {
                patience.due(begin + Duration::from_millis(tenth * 100))?;
                Some(tenth)
            })
            .collect();
        assert_eq!(spoken, [10, 110, 210]);
    }
}
