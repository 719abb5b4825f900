//! Durations: how long each phase of a connection takes in us, and how long messages take. The clock is read where a phase changes and
//! where an answer leaves, never for each packet.
#![forbid(unsafe_code)]

use std::time::Duration;

use scoreboard::records::Phase;

/// What was measured since the last publication.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Phases that ended, with their ns.
    pub(super) phases: Vec<(Phase, u64)>,
    /// ns of each processed message.
    pub(super) messages: Vec<u64>,
    /// Answers that came after the MTA had given up.
    pub(super) late: u64,
    /// Messages whose duration is noted, since ever.
    noted: u64,
}

impl Meter {
    /// Notes the duration of a message if one was processed: `processed` counts those since ever.
    pub(super) fn message(&mut self, processed: u64, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        while self.noted < processed {
            self.noted += 1;
            self.messages.push(ns);
        }
    }

    /// Nothing was measured since the last publication?
    pub(super) fn is_empty(&self) -> bool {
        self.phases.is_empty() && self.messages.is_empty() && self.late == 0
    }

    /// Forgets what has been published.
    pub(super) fn clear(&mut self) {
        self.phases.clear();
        self.messages.clear();
        self.late = 0;
    }
}

/// The phase that a connection is in, and the time that it took there: from a callback's begin to the answer, or to the end of what came
/// with it; waiting for the MTA does not count. Times are BOOTTIME ns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    phase: Phase,
    /// When the first callback began that is not answered yet.
    begun_ns: u64,
    /// Since when it counts; 0 while it does not.
    running_ns: u64,
    spent_ns: u64,
}

impl Timing {
    pub(super) fn new() -> Timing {
        Timing {
            phase: Phase::Idle,
            begun_ns: 0,
            running_ns: 0,
            spent_ns: 0,
        }
    }

    /// Whether a callback of this phase is no news.
    pub(super) fn goes_on(&self, phase: Phase) -> bool {
        self.phase == phase && self.running_ns != 0
    }

    /// Is an answer owed?
    pub(super) fn is_begun(&self) -> bool {
        self.begun_ns != 0
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// When the first callback began that is not answered yet.
    pub(super) fn begun_ns(&self) -> u64 {
        self.begun_ns
    }

    /// A callback of this phase begins. What the phase before took, if another one, is noted.
    pub(super) fn enter(&mut self, phase: Phase, now_ns: u64, meter: &mut Meter) {
        if self.phase != phase {
            self.end(now_ns, meter);
            self.phase = phase;
        }
        if self.begun_ns == 0 {
            self.begun_ns = now_ns;
        }
        if self.running_ns == 0 {
            self.running_ns = now_ns;
        }
    }

    /// The MTA was told that it goes on: its patience begins anew.
    pub(super) fn told(&mut self, now_ns: u64) {
        if self.begun_ns != 0 {
            self.begun_ns = now_ns;
        }
    }

    /// Nothing more is there to be worked on, and nothing was answered.
    pub(super) fn pause(&mut self, now_ns: u64) {
        if self.running_ns != 0 {
            self.spent_ns += now_ns.saturating_sub(self.running_ns);
            self.running_ns = 0;
        }
    }

    /// The phase was answered; the MTA waits no longer than `limit` for that.
    pub(super) fn answered(&mut self, now_ns: u64, limit: Duration, meter: &mut Meter) {
        let waited = u128::from(now_ns.saturating_sub(self.begun_ns));
        if self.begun_ns != 0 && waited > limit.as_nanos() {
            meter.late += 1;
        }
        self.end(now_ns, meter);
    }

    /// The phase is over: what it took is noted.
    pub(super) fn end(&mut self, now_ns: u64, meter: &mut Meter) {
        self.pause(now_ns);
        if self.begun_ns != 0 {
            meter.phases.push((self.phase, self.spent_ns));
        }
        *self = Timing::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_nanos(1000);

    #[test]
    fn waiting_for_the_mta_is_not_counted_and_another_phase_ends_the_one_before() {
        let mut meter = Meter::default();
        let mut timing = Timing::new();
        timing.enter(Phase::Header, 100, &mut meter);
        assert!(timing.goes_on(Phase::Header));
        timing.pause(150);
        assert!(!timing.goes_on(Phase::Header));
        timing.enter(Phase::Header, 500, &mut meter);
        assert_eq!(timing.begun_ns(), 100);
        timing.enter(Phase::Body, 510, &mut meter);
        timing.enter(Phase::Eom, 530, &mut meter);
        timing.answered(600, LIMIT, &mut meter);
        assert_eq!(
            meter.phases,
            [(Phase::Header, 60), (Phase::Body, 20), (Phase::Eom, 70)]
        );
        assert_eq!(meter.late, 0);
        timing.answered(700, LIMIT, &mut meter);
        assert_eq!(meter.phases.len(), 3, "nothing was begun");
    }

    #[test]
    fn an_answer_after_the_mtas_limit_is_late() {
        let mut meter = Meter::default();
        let mut timing = Timing::new();
        timing.enter(Phase::Rcpt, 1, &mut meter);
        timing.answered(1001, LIMIT, &mut meter);
        assert_eq!(meter.late, 0);
        timing.enter(Phase::Rcpt, 2000, &mut meter);
        timing.answered(3001, LIMIT, &mut meter);
        assert_eq!(meter.late, 1);
    }

    #[test]
    fn every_processed_message_has_one_duration() {
        let mut meter = Meter::default();
        meter.message(1, Duration::from_nanos(5));
        meter.message(1, Duration::from_nanos(6));
        meter.message(3, Duration::from_nanos(7));
        assert_eq!(meter.messages, [5, 7, 7]);
        meter.clear();
        meter.message(3, Duration::from_nanos(8));
        assert!(meter.messages.is_empty());
    }
}
