//! What the sessions of one thread have come to: plain totals that only grow. The worker publishes them before it writes the reply bytes.
//!
//! At every instant `started` is the sum of the processed messages, the aborted ones and those in progress.
#![forbid(unsafe_code)]

use crate::policy::verdict::Verdict;

/// What a processed message is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum MessageVerdict {
    /// Taken, changed or not.
    Accept = 0,
    /// Refused for good.
    Reject,
    /// Refused for now.
    Tempfail,
    /// Taken and thrown away.
    Discard,
    /// Taken into quarantine.
    Quarantine,
    /// The policy failed: refused for now.
    Error,
}

impl MessageVerdict {
    /// Its name in status outputs and logs.
    pub fn name(self) -> &'static str {
        match self {
            MessageVerdict::Accept => "accept",
            MessageVerdict::Reject => "reject",
            MessageVerdict::Tempfail => "tempfail",
            MessageVerdict::Discard => "discard",
            MessageVerdict::Quarantine => "quarantine",
            MessageVerdict::Error => "error",
        }
    }

    /// What a verdict that ends a message counts as.
    pub(super) fn of(verdict: &Verdict) -> MessageVerdict {
        match verdict {
            Verdict::Continue | Verdict::Accept | Verdict::Skip => MessageVerdict::Accept,
            Verdict::Reject => MessageVerdict::Reject,
            Verdict::Tempfail => MessageVerdict::Tempfail,
            Verdict::Discard => MessageVerdict::Discard,
            Verdict::Reply(text) if text.is_permanent() => MessageVerdict::Reject,
            Verdict::Reply(_) => MessageVerdict::Tempfail,
        }
    }
}

/// What a verdict at connect or HELO is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum SessionVerdict {
    /// No more filtering for this client.
    Accept = 0,
    /// The client is refused for good.
    Reject,
    /// The client is refused for now.
    Tempfail,
    /// The policy failed: refused for now.
    Error,
}

/// Totals of one thread's sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages of which the first packet came.
    pub started: u64,
    /// Messages that ended without their final reply.
    pub aborted: u64,
    /// Processed messages by [`MessageVerdict`].
    pub verdicts: [u64; 6],
    /// Clients decided on at connect or HELO, by [`SessionVerdict`].
    pub sessions: [u64; 4],
    /// Recipients refused by a message's policy.
    pub recipients_refused: u64,
    /// Connections answered without the policy, being too many.
    pub overload_answered: u64,
    /// The verdict of the message that ended last; `None` when it was aborted.
    pub last_verdict: Option<MessageVerdict>,
}

impl Tally {
    /// Messages that got their final reply.
    pub fn processed(&self) -> u64 {
        self.verdicts.iter().sum()
    }

    pub(super) fn message_processed(&mut self, verdict: MessageVerdict) {
        self.verdicts[verdict as usize] += 1;
        self.last_verdict = Some(verdict);
    }

    pub(super) fn message_aborted(&mut self) {
        self.aborted += 1;
        self.last_verdict = None;
    }

    pub(super) fn session_decided(&mut self, verdict: SessionVerdict) {
        self.sessions[verdict as usize] += 1;
    }
}
