//! A filter in memory: the session and an interpreter behind `Read` and `Write`, so that the client of `crate::client` talks to it without
//! sockets. What the worker does with many connections and an event loop happens here with one, waiting in place.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::policy::event::Event;
use crate::policy::{Context, Interpreter, Outcome, Progress, Wake};
use crate::session::{After, Budget, Close, Mode, Plan, Session, Step, Tally};

/// How long callbacks may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From one reply to the next.
    pub callback: Duration,
    /// Unanswered body callbacks and end of message together.
    pub eom: Duration,
}

/// Is told of every callback: what was asked, and what came of it.
pub type Listener = Box<dyn FnMut(&str, &Outcome)>;

/// A session with its policy.
pub struct Rehearsal {
    interpreter: Interpreter,
    context: Context,
    session: Session,
    tally: Tally,
    deadlines: Deadlines,
    last_reply: Instant,
    eom_since: Option<Instant>,
    input: Vec<u8>,
    out: Vec<u8>,
    closed: Option<Close>,
    listener: Listener,
}

impl Rehearsal {
    /// A new connection.
    pub fn new(
        interpreter: Interpreter,
        message_size_limit: usize,
        mode: Mode,
        deadlines: Deadlines,
        listener: Listener,
    ) -> Rehearsal {
        let plan = Rc::new(Plan::new(interpreter.wants(), message_size_limit));
        let session = Session::new(plan, mode);
        let context = interpreter.context(Rc::clone(session.facts()));
        Rehearsal {
            interpreter,
            context,
            session,
            tally: Tally::default(),
            deadlines,
            last_reply: Instant::now(),
            eom_since: None,
            input: Vec::new(),
            out: Vec::new(),
            closed: None,
            listener,
        }
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What was counted.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Why the session is over, if it is.
    pub fn closed(&self) -> Option<Close> {
        self.closed
    }

    /// Takes bytes of the MTA's, and does all that they ask for.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let mut used = 0;
        while self.closed.is_none() {
            let replies = self.out.len();
            let rest = input.get(used..).unwrap_or_default();
            let (taken, step) = self.session.advance(rest, &mut self.out, &mut self.tally);
            used += taken;
            if self.out.len() > replies {
                self.last_reply = Instant::now();
            }
            match step {
                Step::Input => break,
                Step::Call(event) => self.call(event),
                Step::MessageOver => self.end_message(),
                Step::NewClient => {
                    self.context = self.interpreter.context(Rc::clone(self.session.facts()));
                }
                Step::Close(close) => {
                    self.closed = Some(close);
                    self.end();
                }
            }
        }
        input.drain(..used);
        self.input = input;
    }

    /// The replies so far.
    pub fn take_replies(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// The connection ends.
    pub fn end(&mut self) {
        while let Some(event) = self.session.end(&mut self.tally) {
            let what = describe(&event);
            let outcome = self.run(event, Instant::now() + self.deadlines.callback);
            (self.listener)(&what, &outcome);
        }
    }

    fn end_message(&mut self) {
        self.eom_since = None;
        self.interpreter.end_message(&mut self.context);
    }

    fn call(&mut self, event: Event<'_>) {
        let what = describe(&event);
        let deadline = match self.session.budget() {
            Budget::Callback => self.last_reply + self.deadlines.callback,
            Budget::Eom => *self.eom_since.get_or_insert_with(Instant::now) + self.deadlines.eom,
        };
        let outcome = self.run(event, deadline);
        (self.listener)(&what, &outcome);
        let replies = self.out.len();
        let after = self.session.answer(outcome, &mut self.out, &mut self.tally);
        if self.out.len() > replies {
            self.last_reply = Instant::now();
        }
        if after == After::MessageOver {
            self.end_message();
        }
    }

    fn run(&mut self, event: Event<'_>, deadline: Instant) -> Outcome {
        let mut progress = self.interpreter.start(&mut self.context, event, deadline);
        loop {
            let call = match progress {
                Progress::Done(outcome) => return outcome,
                Progress::Suspended(call) => call,
            };
            match call.wake {
                Wake::At(time) => {
                    std::thread::sleep(time.saturating_duration_since(Instant::now()));
                }
                Wake::Yielded => {}
                Wake::Progress => {
                    self.session.progress(&mut self.out);
                }
            }
            progress = self.interpreter.resume(&mut self.context, call, deadline);
        }
    }
}

impl Write for Rehearsal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.feed(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Rehearsal {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.out.is_empty() && self.closed.is_none() {
            // Nothing can come any more until the other side writes, and it is the one that waits.
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the session owes a reply and gives none",
            ));
        }
        let count = self.out.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.out[..count]);
        self.out.drain(..count);
        Ok(count)
    }
}

/// What is asked, in a few words; strangers' bytes are escaped.
fn describe(event: &Event<'_>) -> String {
    let mut text = event.callback().name().to_owned();
    let argument: &[u8] = match event {
        Event::Helo(name) => name,
        Event::Mail { sender: b"", .. } => b"<>",
        Event::Mail { sender, .. } => sender,
        Event::Rcpt { recipient, .. } => recipient,
        Event::Header { name, .. } => name,
        Event::Unknown(command) => command,
        Event::Body(chunk) => {
            // Writing to a String cannot fail.
            let _ = write!(text, " {} bytes", chunk.len());
            return text;
        }
        Event::Connect { .. }
        | Event::Data
        | Event::Eoh
        | Event::Eom
        | Event::Abort
        | Event::Close => return text,
    };
    text.push(' ');
    for character in String::from_utf8_lossy(argument).chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}
