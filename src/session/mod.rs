//! One MTA connection as a pure state machine: bytes in, events for the policy, reply bytes out. No I/O, no clock.
//!
//! The caller feeds what it has read to [`Session::advance`], asks the policy about each event that it gets, and gives the outcome to
//! [`Session::answer`]; replies gather in one buffer. `dialogue` reads commands, `outcome` turns verdicts into replies; the worker, `try`, the
//! tests and the fuzzers all run this same code.
#![forbid(unsafe_code)]

mod close;
mod dialogue;
mod envelope;
mod finish;
mod message;
mod outcome;
mod overload;
mod plan;
mod stage;
mod tally;

use std::cell::RefCell;
use std::rc::Rc;

pub use close::{Broken, Close};
pub use outcome::After;
pub use overload::OverloadReply;
pub use plan::Plan;
pub use stage::Stage;
pub use tally::{MessageVerdict, SessionVerdict, Tally};

use crate::milter::negotiate::Agreement;
use crate::milter::reply::{self, Plain};
use crate::policy::event::{Callback, Event};
use crate::policy::facts::{Facts, Recipient};
use crate::policy::verdict::Verdict;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The policy.
    Policy,
    /// Nobody is asked: the connection is one too many.
    Overload(OverloadReply),
}

/// What the caller does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Reads more bytes.
    Input,
    /// Asks the policy, then calls [`Session::answer`].
    Call(Event<'a>),
    /// Forgets the policy's message (`Interpreter::end_message`), then advances with the rest. [`Session::ended`] says how it ended; the
    /// facts are those of the message until then.
    MessageOver,
    /// Replaces the policy's context by a new one on the same facts, then advances with the rest: a new SMTP client follows.
    NewClient,
    /// Writes what is in the output buffer, calls [`Session::end`], and closes.
    Close(Close),
}

/// Whose time the event in hand takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// `callback_timeout`, counted from the last reply.
    Callback,
    /// `eom_timeout`, for end of message and body chunks that are not answered together.
    Eom,
}

/// Where the session's work is, for status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Between messages, nothing in hand.
    #[default]
    Idle,
    /// connect and HELO
    Connect,
    /// MAIL
    Mail,
    /// RCPT
    Rcpt,
    /// DATA
    Data,
    /// Headers and their end.
    Header,
    /// Body
    Body,
    /// End of message.
    Eom,
}

/// What ends a message or a client's session, once it is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    /// The policy, or a limit of ours.
    Verdict(Verdict),
    /// The policy failed.
    Fault,
}

/// A callback that was asked for and is not yet answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InHand {
    callback: Callback,
    /// The MTA waits for a reply to this command.
    replied: bool,
}

/// How the message that ended last on a connection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// What it was counted under; `None` when it was aborted.
    pub verdict: Option<MessageVerdict>,
    /// Where it was then.
    pub phase: Phase,
    /// Changes that went to the MTA.
    pub edits: u32,
}

/// A message that ended: what is to be forgotten when the caller goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// All of it.
    Message,
    /// All but the macros up to this command, which are the next message's.
    KeepMacrosOf(u8),
}

/// One MTA connection.
#[derive(Debug)]
pub struct Session {
    plan: Rc<Plan>,
    facts: Rc<RefCell<Facts>>,
    mode: Mode,
    stage: Stage,
    agreed: Option<Agreement>,
    in_hand: Option<InHand>,
    /// A message is counted as started, and neither as processed nor as aborted.
    in_message: bool,
    /// A failed callback at RCPT decided the message, whose commands go on coming.
    faulted: bool,
    /// `body` is not called again for this message.
    skipped: bool,
    /// End of message came; what remains is its callback and the final reply.
    eom_due: bool,
    /// `close` was called for this client.
    closed: bool,
    over: Option<Over>,
    ended: Ended,
    /// What the next replied command of this message gets.
    decided: Option<Box<Decision>>,
    /// What this client got at connect or HELO.
    client_decided: Option<Box<Decision>>,
    /// The recipient whose callback is in hand.
    candidate: Option<Recipient>,
    overload_counted: bool,
}

impl Session {
    /// A session of which nothing has been read.
    pub fn new(plan: Rc<Plan>, mode: Mode) -> Session {
        Session {
            plan,
            facts: Rc::default(),
            mode,
            stage: Stage::Start,
            agreed: None,
            in_hand: None,
            in_message: false,
            faulted: false,
            skipped: false,
            eom_due: false,
            closed: false,
            over: None,
            ended: Ended::default(),
            decided: None,
            client_decided: None,
            candidate: None,
            overload_counted: false,
        }
    }

    /// What is known of the session and its message: share it with the policy's context.
    pub fn facts(&self) -> &Rc<RefCell<Facts>> {
        &self.facts
    }

    /// The recipient whose callback is in hand: not among those of the message until the policy takes it.
    pub fn candidate(&self) -> Option<&Recipient> {
        self.candidate.as_ref()
    }

    /// Appends a progress packet when the MTA takes one: while a callback is in hand after end of message came.
    pub fn progress(&self, out: &mut Vec<u8>) -> bool {
        let possible = self.in_hand.is_some_and(|call| match call.callback {
            Callback::Eom => true,
            Callback::Body => self.eom_due,
            _ => false,
        });
        if possible {
            reply::plain(out, Plain::Progress);
        }
        possible
    }

    /// The connection ended, by the peer or by us: counts a message in progress as aborted. Gives the callbacks that remain, abort then
    /// close, one a call, then `None`. Their outcomes matter to the log only.
    pub fn end(&mut self, tally: &mut Tally) -> Option<Event<'static>> {
        let phase = self.phase();
        self.in_hand = None;
        self.eom_due = false;
        if matches!(self.mode, Mode::Overload(_)) {
            return None;
        }
        if self.in_message {
            self.in_message = false;
            self.aborted(phase, tally);
            if self.plan.wants.has(Callback::Abort) {
                return Some(Event::Abort);
            }
        }
        if self.stage > Stage::Client && self.plan.wants.has(Callback::Close) && !self.closed {
            self.closed = true;
            return Some(Event::Close);
        }
        None
    }

    /// How the message that ended last did: of use when the caller learns that it is over.
    pub fn ended(&self) -> Ended {
        self.ended
    }

    fn aborted(&mut self, phase: Phase, tally: &mut Tally) {
        tally.message_aborted();
        self.ended = Ended {
            verdict: None,
            phase,
            edits: 0,
        };
    }

    /// What follows when the callback in hand fails, in the words of a log line.
    pub fn when_it_fails(&self) -> &'static str {
        match self.in_hand.map(|call| call.callback) {
            Some(Callback::Connect | Callback::Helo) => "the SMTP client gets TEMPFAIL",
            Some(Callback::Unknown) => "the command gets TEMPFAIL",
            Some(Callback::Abort | Callback::Close) | None => "nothing depends on it",
            Some(_) => "the message gets TEMPFAIL",
        }
    }

    /// Where the session is.
    pub fn phase(&self) -> Phase {
        if let Some(call) = self.in_hand {
            match call.callback {
                Callback::Connect | Callback::Helo => return Phase::Connect,
                Callback::Eom => return Phase::Eom,
                _ => {}
            }
        }
        match self.stage {
            Stage::Start | Stage::Client | Stage::Idle => Phase::Idle,
            Stage::Mail => Phase::Mail,
            Stage::Rcpt => Phase::Rcpt,
            Stage::Data => Phase::Data,
            Stage::Header | Stage::Eoh => Phase::Header,
            Stage::Body => Phase::Body,
            Stage::Eom => Phase::Eom,
        }
    }

    /// Is a message counted as started, and neither as processed nor as aborted?
    pub fn in_message(&self) -> bool {
        self.in_message
    }

    /// Is nothing under way, so that the connection could end without harm to a message?
    pub fn between_messages(&self) -> bool {
        self.stage <= Stage::Idle && self.in_hand.is_none()
    }

    /// Whose time the event in hand takes; without one, that of the next.
    pub fn budget(&self) -> Budget {
        match self.in_hand {
            Some(InHand {
                callback: Callback::Eom,
                ..
            })
            | Some(InHand {
                callback: Callback::Body,
                replied: false,
            }) => Budget::Eom,
            _ => Budget::Callback,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_at_rest_is_small() {
        // An idle session has about 1 KB with its policy's context, client and HELO name.
        assert!(size_of::<Session>() <= 128, "{}", size_of::<Session>());
        assert!(size_of::<Facts>() <= 176, "{}", size_of::<Facts>());
    }
}
