//! What becomes of a callback's outcome: a reply now, a decision for the next reply, or the end of the message.
#![forbid(unsafe_code)]

use super::finish::{put_edits, put_verdict};
use super::message;
use super::stage::Stage;
use super::tally::{MessageVerdict, SessionVerdict};
use super::{Decision, Ended, Over, Session, Tally, envelope};
use crate::milter::negotiate;
use crate::milter::reply::{self, Plain};
use crate::policy::event::Callback;
use crate::policy::verdict::{Outcome, Verdict};

/// What the caller does after an answer, before it advances with the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum After {
    /// Nothing.
    Continue,
    /// Forgets the policy's message (`Interpreter::end_message`), as after [`super::Step::MessageOver`].
    MessageOver,
}

/// Appends a reply if the command has one.
pub(super) fn negotiated_reply(out: &mut Vec<u8>, replied: bool, plain: Plain) {
    if replied {
        reply::plain(out, plain);
    }
}

/// Appends a decision as a reply.
pub(super) fn put_decision(out: &mut Vec<u8>, decision: &Decision) {
    match decision {
        Decision::Verdict(verdict) => put_verdict(out, verdict),
        Decision::Fault => reply::plain(out, Plain::Tempfail),
    }
}

impl Session {
    /// Takes the outcome of the event that the last [`super::Step::Call`] gave.
    pub fn answer(&mut self, outcome: Outcome, out: &mut Vec<u8>, tally: &mut Tally) -> After {
        let Some(call) = self.in_hand.take() else {
            return After::Continue;
        };
        let decision = match outcome {
            Ok(verdict) => Decision::Verdict(verdict),
            Err(_) => Decision::Fault,
        };
        match call.callback {
            Callback::Abort => After::MessageOver,
            Callback::Close => After::Continue,
            Callback::Connect | Callback::Helo => {
                self.decide_client(decision, call.replied, out, tally);
                After::Continue
            }
            Callback::Unknown => self.answer_unknown(decision, call.replied, out, tally),
            Callback::Rcpt => self.answer_recipient(decision, call.replied, out, tally),
            Callback::Body => self.answer_body(decision, call.replied, out, tally),
            Callback::Mail | Callback::Data | Callback::Header | Callback::Eoh | Callback::Eom => {
                self.decide(decision, call.replied, out, tally)
            }
        }
    }

    fn decide_client(
        &mut self,
        decision: Decision,
        replied: bool,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) {
        if replied {
            put_decision(out, &decision);
        }
        let counted = match &decision {
            Decision::Fault => SessionVerdict::Error,
            Decision::Verdict(Verdict::Continue) => return,
            Decision::Verdict(verdict) => match MessageVerdict::of(verdict) {
                MessageVerdict::Reject => SessionVerdict::Reject,
                MessageVerdict::Tempfail => SessionVerdict::Tempfail,
                _ => SessionVerdict::Accept,
            },
        };
        tally.session_decided(counted);
        self.client_decided = Some(Box::new(decision));
    }

    /// A refusal is the command's, an acceptance the message's.
    fn answer_unknown(
        &mut self,
        decision: Decision,
        replied: bool,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> After {
        match (&decision, self.in_message) {
            (Decision::Fault, true) => self.fault_of_command(replied, out, tally),
            (Decision::Verdict(Verdict::Accept), true) => {
                self.decide(decision, replied, out, tally)
            }
            _ => {
                if decision == Decision::Fault {
                    tally.session_decided(SessionVerdict::Error);
                }
                if replied {
                    put_decision(out, &decision);
                }
                After::Continue
            }
        }
    }

    /// A refusal is the recipient's.
    fn answer_recipient(
        &mut self,
        decision: Decision,
        replied: bool,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> After {
        let recipient = self.candidate.take();
        match &decision {
            Decision::Verdict(
                verdict @ (Verdict::Reject | Verdict::Tempfail | Verdict::Reply(_)),
            ) => {
                tally.recipients_refused += 1;
                if replied {
                    put_verdict(out, verdict);
                }
                After::Continue
            }
            Decision::Fault => self.fault_of_command(replied, out, tally),
            Decision::Verdict(_) => {
                if let Some(recipient) = recipient {
                    let mut facts = self.facts.borrow_mut();
                    envelope::keep_recipient(facts.message.get_or_insert_default(), recipient);
                }
                self.decide(decision, replied, out, tally)
            }
        }
    }

    fn answer_body(
        &mut self,
        decision: Decision,
        replied: bool,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> After {
        if decision != Decision::Verdict(Verdict::Skip) {
            // With end of message in hand a final verdict is the reply to it.
            let last_and_final = self.eom_due && decision != Decision::Verdict(Verdict::Continue);
            return self.decide(decision, replied || last_and_final, out, tally);
        }
        self.skipped = true;
        let offered = self
            .agreed
            .is_some_and(|agreed| agreed.steps & negotiate::SKIP != 0);
        negotiated_reply(
            out,
            replied,
            if offered {
                Plain::Skip
            } else {
                Plain::Continue
            },
        );
        After::Continue
    }

    /// A verdict on the message: given now, or kept for the first command that has a reply.
    fn decide(
        &mut self,
        decision: Decision,
        replied: bool,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> After {
        let at_end = self.stage == Stage::Eom;
        match &decision {
            Decision::Verdict(Verdict::Continue) if !(at_end && replied) => {
                negotiated_reply(out, replied, Plain::Continue);
                After::Continue
            }
            _ if !replied => {
                if let Some(message) = self.facts.borrow_mut().message.as_deref_mut() {
                    message::drop_content(message);
                }
                self.decided = Some(Box::new(decision));
                After::Continue
            }
            _ => {
                self.conclude(&decision, out, tally);
                After::MessageOver
            }
        }
    }

    /// A callback failed whose refusal the MTA takes for the command's alone: the message is decided, and its commands go on coming.
    fn fault_of_command(&mut self, replied: bool, out: &mut Vec<u8>, tally: &mut Tally) -> After {
        let stage = self.stage;
        let after = self.decide(Decision::Fault, replied, out, tally);
        if after == After::MessageOver {
            self.faulted = true;
            self.stage = stage;
        }
        after
    }

    /// Gives a message its final reply, with its edits when it is taken at its end, and counts it.
    pub(super) fn conclude(&mut self, decision: &Decision, out: &mut Vec<u8>, tally: &mut Tally) {
        let phase = self.phase();
        let mut edits = 0;
        let counted = match decision {
            Decision::Fault => MessageVerdict::Error,
            Decision::Verdict(verdict) => match MessageVerdict::of(verdict) {
                MessageVerdict::Accept if self.stage == Stage::Eom => {
                    let mut facts = self.facts.borrow_mut();
                    edits = facts
                        .message
                        .as_deref()
                        .map_or(0, |message| message.edits.len());
                    let quarantined = facts
                        .message
                        .as_deref_mut()
                        .is_some_and(|message| put_edits(out, message));
                    if quarantined {
                        MessageVerdict::Quarantine
                    } else {
                        MessageVerdict::Accept
                    }
                }
                counted => counted,
            },
        };
        put_decision(out, decision);
        tally.message_processed(counted);
        self.ended = Ended {
            verdict: Some(counted),
            phase,
            edits: u32::try_from(edits).unwrap_or(u32::MAX),
        };
        self.message_ended(Over::Message);
    }
}
