//! Commands, in the order of the dialogue: each is counted, kept if the policy reads it, and becomes an event if the policy has its callback.
#![forbid(unsafe_code)]

use super::close::{Broken, Close};
use super::message::{self, Kept};
use super::outcome::negotiated_reply;
use super::stage::{self, Order, Stage};
use super::{Decision, InHand, Mode, Over, Session, Step, Tally, envelope};
use crate::milter::command::{self, Command, without_brackets};
use crate::milter::frame::{self, Frame};
use crate::milter::negotiate::{self, Agreement, Step as Negotiated};
use crate::milter::reply::{self, Plain};
use crate::policy::event::{Callback, Event};
use crate::policy::facts::{Message, Recipient};
use crate::policy::verdict::Verdict;

/// Bytes of macros kept for a connection: the MTAs send some hundreds, with a client certificate a few thousand.
const MACRO_BYTES: usize = 64 << 10;

/// What a frame came to.
enum Next<'a> {
    /// It is done with.
    Frame,
    /// It is done with, and the caller has something to do.
    Step(Step<'a>),
    /// The caller has something to do first; then the same frame comes again.
    First(Step<'a>),
}

impl From<Broken> for Next<'_> {
    fn from(broken: Broken) -> Self {
        Next::Step(Step::Close(Close::Broken(broken)))
    }
}

impl Session {
    /// Takes whole frames from `input`, appends replies to `out`, counts in `tally`; stops at the first thing that the caller must do. Also says
    /// how many bytes were used; what an event borrows is among them. Called again after every step but [`Step::Input`] and [`Step::Close`].
    pub fn advance<'a>(
        &mut self,
        input: &'a [u8],
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> (usize, Step<'a>) {
        self.clear_message();
        let mut used = 0;
        loop {
            if self.eom_due && self.in_hand.is_none() {
                self.eom_due = false;
                let step = self.end_of_message(out, tally);
                return (used, step);
            }
            let rest = input.get(used..).unwrap_or_default();
            let (frame, bytes) = match frame::cut(rest, frame::PAYLOAD_BYTES) {
                Ok(Some(cut)) => cut,
                Ok(None) => return (used, Step::Input),
                Err(error) => return (used, Step::Close(Close::Broken(Broken::Frame(error)))),
            };
            let next = match command::parse(frame) {
                Ok(command) => self.command(frame, command, out, tally),
                Err(error) => Broken::Command(error).into(),
            };
            match next {
                Next::Frame => used += bytes,
                Next::Step(step) => return (used + bytes, step),
                Next::First(step) => return (used, step),
            }
        }
    }

    /// Forgets a message that is over.
    fn clear_message(&mut self) {
        if let Some(over) = self.over.take() {
            let mut facts = self.facts.borrow_mut();
            facts.message = None;
            match over {
                Over::Message => facts.macros.forget_message(),
                Over::KeepMacrosOf(code) => facts.macros.reach(code),
            }
        }
    }

    fn command<'a>(
        &mut self,
        frame: Frame<'a>,
        command: Command<'a>,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> Next<'a> {
        if let Mode::Overload(reply) = self.mode {
            let step = self.overload_command(reply, frame.code, &command, out, tally);
            return step.map_or(Next::Frame, Next::Step);
        }
        let Some(agreed) = self.agreed else {
            return match command {
                Command::Negotiate(version, actions, steps) => {
                    self.negotiate(version, actions, steps, out)
                }
                Command::Quit => Next::Step(Step::Close(Close::Quit)),
                _ => self.never(frame.code),
            };
        };
        match command {
            Command::Negotiate(..) => self.never(frame.code),
            Command::Macros(code, strings) => {
                let mut facts = self.facts.borrow_mut();
                facts.macros.store(code, strings);
                match facts.macros.bytes() {
                    bytes if bytes > MACRO_BYTES => {
                        Broken::Excess("macros", bytes, MACRO_BYTES).into()
                    }
                    _ => Next::Frame,
                }
            }
            Command::Connect(host, peer) => {
                if !stage::connect_may_come(self.stage) {
                    return self.never(frame.code);
                }
                let event = match envelope::connect(host, peer) {
                    Ok(event) => event,
                    Err(broken) => return broken.into(),
                };
                self.reach(Stage::Idle, frame.code);
                if self.plan.keep.client {
                    self.facts.borrow_mut().client = envelope::client(&event);
                }
                self.ask(event, Negotiated::Connect, agreed, out)
            }
            Command::Helo(name) => {
                if !stage::helo_may_come(self.stage, agreed) {
                    return self.never(frame.code);
                }
                if let Err(broken) = envelope::check_name("a HELO name", name) {
                    return broken.into();
                }
                if self.in_message {
                    return Next::First(self.abort(Over::Message, tally));
                }
                self.faulted = false;
                self.reach(Stage::Idle, frame.code);
                if self.plan.keep.helo {
                    self.facts.borrow_mut().helo = Some(name.into());
                }
                if let Some(decision) = &self.client_decided {
                    if !agreed.no_reply(Negotiated::Helo) {
                        super::outcome::put_decision(out, decision);
                    }
                    return Next::Frame;
                }
                self.ask(Event::Helo(name), Negotiated::Helo, agreed, out)
            }
            Command::Mail(..)
            | Command::Rcpt(..)
            | Command::Data
            | Command::Header(..)
            | Command::Eoh
            | Command::Body(_)
            | Command::Eom(_) => self.message_command(frame.code, command, agreed, out, tally),
            Command::Unknown(text) => self.unknown(text, agreed, out),
            Command::Abort => {
                if self.in_message {
                    return Next::Step(self.abort(Over::Message, tally));
                }
                if self.stage > Stage::Idle {
                    self.stage = Stage::Idle;
                }
                self.faulted = false;
                self.facts.borrow_mut().macros.forget_message();
                Next::Frame
            }
            Command::Quit => Next::Step(Step::Close(Close::Quit)),
            Command::QuitNewConnection => self.new_client(tally),
        }
    }

    fn never(&self, code: u8) -> Next<'static> {
        Broken::Order(code, self.stage).into()
    }

    fn negotiate(
        &mut self,
        version: u32,
        actions: u32,
        steps: u32,
        out: &mut Vec<u8>,
    ) -> Next<'static> {
        match negotiate::agree(&self.plan.wish, version, actions, steps) {
            Ok(agreed) => {
                negotiate::put_answer(out, &self.plan.wish, agreed);
                self.facts.borrow_mut().actions = agreed.actions;
                self.agreed = Some(agreed);
                self.stage = Stage::Client;
                Next::Frame
            }
            Err(error) => Broken::Version(error).into(),
        }
    }

    fn reach(&mut self, stage: Stage, code: u8) {
        self.stage = stage;
        self.facts.borrow_mut().macros.reach(code);
    }

    /// The event goes to the policy if it has the callback; otherwise the MTA may go on.
    fn ask<'a>(
        &mut self,
        event: Event<'a>,
        step: Negotiated,
        agreed: Agreement,
        out: &mut Vec<u8>,
    ) -> Next<'a> {
        let callback = event.callback();
        let replied = !agreed.no_reply(step);
        if self.plan.wants.has(callback) {
            self.in_hand = Some(InHand { callback, replied });
            return Next::Step(Step::Call(event));
        }
        negotiated_reply(out, replied, Plain::Continue);
        Next::Frame
    }

    /// A message in progress ends without its final reply.
    fn abort(&mut self, over: Over, tally: &mut Tally) -> Step<'static> {
        self.aborted(self.phase(), tally);
        self.message_ended(over);
        if self.plan.wants.has(Callback::Abort) {
            self.in_hand = Some(InHand {
                callback: Callback::Abort,
                replied: false,
            });
            return Step::Call(Event::Abort);
        }
        Step::MessageOver
    }

    pub(super) fn message_ended(&mut self, over: Over) {
        self.in_message = false;
        self.stage = Stage::Idle;
        self.decided = None;
        self.candidate = None;
        self.eom_due = false;
        self.over = Some(over);
    }

    /// `K`: all is forgotten but what was negotiated.
    fn new_client(&mut self, tally: &mut Tally) -> Next<'static> {
        if self.in_message {
            return Next::First(self.abort(Over::Message, tally));
        }
        if self.stage > Stage::Client && self.plan.wants.has(Callback::Close) && !self.closed {
            self.closed = true;
            self.in_hand = Some(InHand {
                callback: Callback::Close,
                replied: false,
            });
            return Next::First(Step::Call(Event::Close));
        }
        self.stage = Stage::Client;
        self.faulted = false;
        self.closed = false;
        self.client_decided = None;
        let mut facts = self.facts.borrow_mut();
        facts.client = None;
        facts.helo = None;
        facts.macros.forget_all();
        Next::Step(Step::NewClient)
    }

    fn unknown<'a>(&mut self, text: &'a [u8], agreed: Agreement, out: &mut Vec<u8>) -> Next<'a> {
        let replied = !agreed.no_reply(Negotiated::Unknown);
        let decision = match &self.client_decided {
            _ if self.faulted => Some(&Decision::Fault),
            Some(decision) => Some(&**decision),
            // What is decided waits for a command of the message.
            None if self.decided.is_some() => Some(&Decision::Verdict(Verdict::Continue)),
            None => return self.ask(Event::Unknown(text), Negotiated::Unknown, agreed, out),
        };
        if let Some(decision) = decision.filter(|_| replied) {
            super::outcome::put_decision(out, decision);
        }
        Next::Frame
    }

    fn message_command<'a>(
        &mut self,
        code: u8,
        command: Command<'a>,
        agreed: Agreement,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> Next<'a> {
        let (to, step) = match &command {
            Command::Mail(..) => (Stage::Mail, Some(Negotiated::Mail)),
            Command::Rcpt(..) => (Stage::Rcpt, Some(Negotiated::Rcpt)),
            Command::Data => (Stage::Data, Some(Negotiated::Data)),
            Command::Header(..) => (Stage::Header, Some(Negotiated::Header)),
            Command::Eoh => (Stage::Eoh, Some(Negotiated::Eoh)),
            Command::Body(_) => (Stage::Body, Some(Negotiated::Body)),
            _ => (Stage::Eom, None),
        };
        match stage::order(self.stage, to, agreed) {
            Order::Never => return self.never(code),
            Order::Next => {}
            Order::Begin if self.in_message => {
                return Next::First(self.abort(Over::KeepMacrosOf(code), tally));
            }
            Order::Begin => self.begin(tally),
        }
        self.reach(to, code);
        // End of message is always answered.
        let replied = step.is_none_or(|step| !agreed.no_reply(step));
        if self.faulted {
            negotiated_reply(out, replied, Plain::Tempfail);
            if to == Stage::Eom {
                self.faulted = false;
                self.stage = Stage::Idle;
            }
            return Next::Frame;
        }
        if self.decided.is_some() {
            return self.give_decision(replied, out, tally);
        }
        match command {
            Command::Mail(raw, args) => {
                let sender = without_brackets(raw);
                if self.plan.keep.sender {
                    self.message(|message| message.sender = Some(sender.into()));
                }
                self.ask(Event::Mail { sender, args }, Negotiated::Mail, agreed, out)
            }
            Command::Rcpt(raw, args) => {
                if self.plan.keep.recipients && !self.message(|message| envelope::has_room(message))
                {
                    return self.too_many_recipients(replied, out, tally);
                }
                let recipient = without_brackets(raw);
                if self.plan.wants.has(Callback::Rcpt) {
                    self.candidate = Some(Recipient::new(raw));
                } else if self.plan.keep.recipients {
                    self.message(|message| {
                        envelope::keep_recipient(message, Recipient::new(raw));
                    });
                }
                self.ask(
                    Event::Rcpt { recipient, args },
                    Negotiated::Rcpt,
                    agreed,
                    out,
                )
            }
            Command::Header(name, value) => {
                if self.plan.keep.headers {
                    let most = self.plan.message_bytes;
                    let kept =
                        self.message(|message| message::keep_header(message, name, value, most));
                    if kept == Kept::TooLarge {
                        return self.too_large(replied, out, tally);
                    }
                }
                self.ask(
                    Event::Header { name, value },
                    Negotiated::Header,
                    agreed,
                    out,
                )
            }
            Command::Body(chunk) => {
                if chunk.is_empty() || self.skipped {
                    negotiated_reply(out, replied, Plain::Continue);
                    return Next::Frame;
                }
                if self.keep_chunk(chunk) == Kept::TooLarge {
                    return self.too_large(replied, out, tally);
                }
                self.ask(Event::Body(chunk), Negotiated::Body, agreed, out)
            }
            Command::Eom(chunk) => {
                self.eom_due = true;
                if chunk.is_empty() || self.skipped {
                    return Next::Frame;
                }
                if self.keep_chunk(chunk) == Kept::TooLarge {
                    return self.too_large(true, out, tally);
                }
                if !self.plan.wants.has(Callback::Body) {
                    return Next::Frame;
                }
                // Not answered by itself: the reply that is due is the message's.
                self.in_hand = Some(InHand {
                    callback: Callback::Body,
                    replied: false,
                });
                Next::Step(Step::Call(Event::Body(chunk)))
            }
            Command::Data => self.ask(Event::Data, Negotiated::Data, agreed, out),
            Command::Eoh => self.ask(Event::Eoh, Negotiated::Eoh, agreed, out),
            _ => Next::Frame,
        }
    }

    /// The first command of a message came.
    fn begin(&mut self, tally: &mut Tally) {
        tally.started += 1;
        self.in_message = true;
        self.faulted = false;
        self.skipped = false;
        self.decided = self.client_decided.clone();
        self.facts.borrow_mut().message = Some(Box::default());
    }

    fn message<R>(&self, change: impl FnOnce(&mut Message) -> R) -> R {
        let mut facts = self.facts.borrow_mut();
        change(facts.message.get_or_insert_default())
    }

    fn keep_chunk(&self, chunk: &[u8]) -> Kept {
        if !self.plan.keep.body {
            return Kept::Yes;
        }
        let most = self.plan.message_bytes;
        self.message(|message| message::keep_chunk(message, chunk, most))
    }

    /// A decision from a stage without reply is given at the first command that has one; the rest of the message is dropped as it comes.
    fn give_decision(
        &mut self,
        replied: bool,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> Next<'static> {
        let Some(decision) = self.decided.take() else {
            return Next::Frame;
        };
        let ends = match &*decision {
            Decision::Verdict(Verdict::Accept | Verdict::Discard) => true,
            // A refusal here is the recipient's only.
            _ => self.stage != Stage::Rcpt,
        };
        if replied && ends {
            self.conclude(&decision, out, tally);
            return Next::Step(Step::MessageOver);
        }
        if replied {
            super::outcome::put_decision(out, &decision);
            tally.recipients_refused += 1;
        }
        self.decided = Some(decision);
        Next::Frame
    }

    fn too_large(&mut self, replied: bool, out: &mut Vec<u8>, tally: &mut Tally) -> Next<'static> {
        log::warn!(
            "{}a message of more than {} bytes is refused for now; message_size_limit sets the most that is kept",
            self.log_prefix(),
            self.plan.message_bytes
        );
        self.decided = Some(Box::new(Decision::Verdict(Verdict::Tempfail)));
        self.give_decision(replied, out, tally)
    }

    fn too_many_recipients(
        &mut self,
        replied: bool,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> Next<'static> {
        log::warn!(
            "{}a message with more than {} recipients is refused for now",
            self.log_prefix(),
            envelope::MOST_RECIPIENTS
        );
        if replied {
            // This one only: the message goes on with those it has.
            reply::plain(out, Plain::Tempfail);
            tally.recipients_refused += 1;
        } else {
            self.decided = Some(Box::new(Decision::Verdict(Verdict::Tempfail)));
        }
        Next::Frame
    }

    fn log_prefix(&self) -> String {
        self.facts
            .borrow()
            .queue_id()
            .map_or_else(String::new, |id| format!("{}: ", id.escape_ascii()))
    }

    /// End of message, all of the body seen.
    fn end_of_message(&mut self, out: &mut Vec<u8>, tally: &mut Tally) -> Step<'static> {
        if self.plan.wants.has(Callback::Eom) {
            self.in_hand = Some(InHand {
                callback: Callback::Eom,
                replied: true,
            });
            return Step::Call(Event::Eom);
        }
        self.conclude(&Decision::Verdict(Verdict::Continue), out, tally);
        Step::MessageOver
    }
}
