//! What the process in a slot is at: for which message, since when, and how long the MTA will still wait for it.
#![forbid(unsafe_code)]

use std::time::Duration;

use scoreboard::{ChildRecord, Phase, Slot, SlotState, Snapshot, Verdict};

use super::view::{View, age, is_alive};

/// What the process in a slot says of itself.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Doing {
    pub(super) phase: Option<&'static str>,
    pub(super) since: Option<Duration>,
    pub(super) queue_id: Option<String>,
    /// For people.
    pub(super) text: Option<String>,
    /// Of the last processed message.
    pub(super) last_verdict: Option<&'static str>,
    /// Callbacks that wait.
    pub(super) suspended: Option<u64>,
}

/// What the process in a slot is at; nothing is known of an empty slot, or a process that has not spoken.
pub(super) fn doing(board: &Snapshot, slot: &Slot) -> Doing {
    let Some(child) = &slot.child else {
        return Doing::default();
    };
    Doing {
        phase: Some(Phase::from_word(child.phase).name()),
        since: age(board, child.phase_since_ns),
        queue_id: text(&child.queue_id),
        text: text(&child.doing),
        last_verdict: last_verdict(child),
        suspended: Some(child.suspended),
    }
}

/// A text of the board, safe for a terminal; `None` when it is empty.
pub(super) fn text(words: &[u64]) -> Option<String> {
    let text = scoreboard::shown(words);
    (!text.is_empty()).then_some(text)
}

fn last_verdict(child: &ChildRecord) -> Option<&'static str> {
    let word = child.last_verdict.checked_sub(1)?;
    Some(Verdict::from_word(word).name())
}

/// When the MTA gives up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Deadline {
    /// Seconds from now; negative when it has.
    pub(super) left: f64,
    /// How long it waits in all.
    pub(super) limit: Duration,
}

/// When the MTA gives up on the work in hand; `None` when there is none, nobody is left to answer, or the board tells no limit.
pub(super) fn deadline(view: &View, board: &Snapshot, slot: &Slot) -> Option<Deadline> {
    let alive = is_alive(board) || view.orphans > 0;
    if !alive {
        return None;
    }
    let limit = match Phase::from_word(slot.child.as_ref()?.phase) {
        Phase::Idle | Phase::Unknown(_) => return None,
        Phase::Connect | Phase::Mail | Phase::Rcpt | Phase::Data => board.global.command_timeout_ns,
        Phase::Header | Phase::Body | Phase::Eom => board.global.content_timeout_ns,
    };
    let left = board.deadline_left(slot)?;
    (limit > 0).then(|| Deadline {
        left,
        limit: Duration::from_nanos(limit),
    })
}

/// The state of a slot in one letter.
pub(in crate::control) fn letter(slot: &Slot) -> char {
    match slot.state() {
        SlotState::Free | SlotState::Empty => '.',
        SlotState::Starting => 'S',
        SlotState::Retiring => 'G',
        SlotState::Unknown(_) => '?',
        SlotState::Live => match slot.child.as_ref().map(|it| Phase::from_word(it.phase)) {
            None | Some(Phase::Idle) => '_',
            Some(Phase::Connect) => 'C',
            Some(Phase::Mail) => 'M',
            Some(Phase::Rcpt) => 'R',
            Some(Phase::Data) => 'D',
            Some(Phase::Header) => 'H',
            Some(Phase::Body) => 'B',
            Some(Phase::Eom) => 'E',
            Some(Phase::Unknown(_)) => '?',
        },
    }
}
