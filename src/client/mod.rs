//! The MTA's side of the protocol, as Postfix does it: for `try`, `demo`, tests and benches. The server uses nothing of it.
//!
//! Blocking, over any stream; deadlines are the stream's own. Steps that the filter declined are left out, steps without reply are not waited
//! for and leave together with the next command that has one. An error means that an MTA would have applied its default action.
#![forbid(unsafe_code)]

mod applied;
pub mod decode;
pub mod encode;
mod stream;

use std::io::{self, Read, Write};

pub use applied::Applied;
pub use decode::{Change, Reply};
pub use encode::Address;
pub use stream::Stream;

use crate::milter::command::without_brackets;
use crate::milter::frame;
use crate::milter::negotiate::{Agreement, Step};

/// `SMFIP_HDR_LEADSPC`: header values keep their leading space.
const LEADING_SPACE: u32 = 0x10_0000;
/// Largest body chunk.
const CHUNK_BYTES: usize = 65_535;
/// Most replies to one end of message: a filter that never ends is an error.
const MOST_REPLIES: usize = 100_000;

/// What the MTA offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Version, 2 to 6.
    pub version: u32,
    /// Action bits.
    pub actions: u32,
    /// Step bits.
    pub steps: u32,
}

impl Default for Offer {
    /// What Postfix and Sendmail offer.
    fn default() -> Offer {
        Offer {
            version: 6,
            actions: 0x1ff,
            steps: 0x1f_ffff,
        }
    }
}

/// One message with its envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Letter {
    /// Sender with brackets, as MAIL gives it.
    pub sender: Vec<u8>,
    /// ESMTP words of MAIL.
    pub sender_args: Vec<Vec<u8>>,
    /// Recipients with brackets, as RCPT gives them.
    pub recipients: Vec<Vec<u8>>,
    /// Header fields; values without the one leading space, folds are LF.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Body, lines end in CR LF.
    pub body: Vec<u8>,
    /// Queue id; empty: none is told.
    pub queue_id: Vec<u8>,
}

/// Where a reply was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// connect
    Connect,
    /// HELO
    Helo,
    /// MAIL
    Mail,
    /// RCPT: the last recipient was refused and there is no other, or the message was decided there.
    Rcpt,
    /// DATA
    Data,
    /// A header.
    Header,
    /// End of headers.
    Eoh,
    /// A body chunk.
    Body,
    /// End of message.
    Eom,
}

/// How a message, or a client's session, was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where.
    pub at: At,
    /// The final reply.
    pub reply: Reply,
    /// Recipients refused, by index, with their replies.
    pub refused: Vec<(usize, Reply)>,
    /// Modifications, if it came to the end.
    pub changes: Vec<Change>,
    /// Progress packets seen.
    pub progress: usize,
}

impl Answer {
    /// Was the message taken (whatever happens to it then)?
    pub fn is_taken(&self) -> bool {
        matches!(self.reply, Reply::Continue | Reply::Accept | Reply::Discard)
    }

    /// The message as it comes out.
    pub fn apply(&self, letter: &Letter) -> Applied {
        let refused: Vec<usize> = self.refused.iter().map(|(index, _)| *index).collect();
        Applied::new(letter, &refused, &self.changes)
    }
}

/// In which pieces commands leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// Everything up to the next command that has a reply, in one write.
    #[default]
    UntilReply,
    /// A write a command.
    EachCommand,
    /// A write a byte.
    EachByte,
}

/// An MTA's connection to a filter.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    out: Vec<u8>,
    input: Vec<u8>,
    pace: Pace,
    agreed: Agreement,
}

fn broken(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl<S: Read + Write> Client<S> {
    /// A client on a connected stream.
    pub fn new(stream: S) -> Client<S> {
        let agreed = Agreement {
            version: 0,
            actions: 0,
            steps: 0,
        };
        Client {
            stream,
            out: Vec::new(),
            input: Vec::new(),
            pace: Pace::default(),
            agreed,
        }
    }

    /// Sets in which pieces commands leave.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// The stream.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream, to set its deadlines or to break it.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Offers, and takes what the filter answers.
    ///
    /// # Errors
    /// The stream's; `InvalidData` when the answer takes what was not offered, as an MTA checks it.
    pub fn negotiate(&mut self, offer: Offer) -> io::Result<Agreement> {
        encode::negotiate(&mut self.out, offer.version, offer.actions, offer.steps);
        self.flush()?;
        match self.read()? {
            Reply::Negotiated {
                version,
                actions,
                steps,
                ..
            } => {
                let wide = actions & !offer.actions != 0 || steps & !offer.steps != 0;
                if version > offer.version || wide {
                    return Err(broken("the filter takes what was not offered"));
                }
                self.agreed = Agreement {
                    version,
                    actions,
                    steps,
                };
                Ok(self.agreed)
            }
            _ => Err(broken("the filter did not answer the negotiation")),
        }
    }

    /// What was agreed.
    pub fn agreed(&self) -> Agreement {
        self.agreed
    }

    /// Sends connect and HELO. `Some`: the filter decided on this client.
    ///
    /// # Errors
    /// The stream's; `InvalidData` when the filter breaks the protocol.
    pub fn hello(
        &mut self,
        host: &[u8],
        address: &Address,
        helo: &[u8],
    ) -> io::Result<Option<Answer>> {
        encode::macros(
            &mut self.out,
            b'C',
            &[(b"j", b"mx.example.org"), (b"{daemon_name}", b"smtpd")],
        );
        if !self.agreed.left_out(Step::Connect) {
            encode::connect(&mut self.out, host, address);
            if let Some(answer) = self.stage(At::Connect, Step::Connect)? {
                return Ok(Some(answer));
            }
        }
        encode::macros(&mut self.out, b'H', &[]);
        if !self.agreed.left_out(Step::Helo) {
            encode::helo(&mut self.out, helo);
            if let Some(answer) = self.stage(At::Helo, Step::Helo)? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// Sends a message up to its final reply, and the abort with which Postfix ends each.
    ///
    /// # Errors
    /// The stream's; `InvalidData` when the filter breaks the protocol.
    pub fn message(&mut self, letter: &Letter) -> io::Result<Answer> {
        let mut refused = Vec::new();
        let mut answer = match self.envelope(letter, &mut refused)? {
            Some(answer) => answer,
            None => match self.content(letter)? {
                Some(answer) => answer,
                None => self.end_of_message(letter)?,
            },
        };
        answer.refused = refused;
        encode::abort(&mut self.out);
        if answer.at != At::Eom {
            self.flush()?;
        }
        Ok(answer)
    }

    fn envelope(
        &mut self,
        letter: &Letter,
        refused: &mut Vec<(usize, Reply)>,
    ) -> io::Result<Option<Answer>> {
        encode::macros(
            &mut self.out,
            b'M',
            &[(b"{mail_addr}", without_brackets(&letter.sender))],
        );
        if !self.agreed.left_out(Step::Mail) {
            encode::mail(&mut self.out, &letter.sender, &letter.sender_args);
            if let Some(answer) = self.stage(At::Mail, Step::Mail)? {
                return Ok(Some(answer));
            }
        }
        for (index, recipient) in letter.recipients.iter().enumerate() {
            let mut macros: Vec<(&[u8], &[u8])> =
                vec![(b"{rcpt_addr}", without_brackets(recipient))];
            // Postfix has a queue file from the second recipient on.
            if index > 0 && !letter.queue_id.is_empty() {
                macros.push((b"i", &letter.queue_id));
            }
            encode::macros(&mut self.out, b'R', &macros);
            if self.agreed.left_out(Step::Rcpt) {
                continue;
            }
            encode::rcpt(&mut self.out, recipient, &[]);
            if let Some(answer) = self.stage(At::Rcpt, Step::Rcpt)? {
                if matches!(answer.reply, Reply::Accept | Reply::Discard) {
                    return Ok(Some(answer));
                }
                refused.push((index, answer.reply.clone()));
                if refused.len() == letter.recipients.len() {
                    return Ok(Some(answer));
                }
            }
        }
        Ok(None)
    }

    fn content(&mut self, letter: &Letter) -> io::Result<Option<Answer>> {
        self.put_queue_id(b'T', letter);
        if !self.agreed.left_out(Step::Data) && self.agreed.version >= 4 {
            encode::data(&mut self.out);
            if let Some(answer) = self.stage(At::Data, Step::Data)? {
                return Ok(Some(answer));
            }
        }
        if !self.agreed.left_out(Step::Header) {
            for (name, value) in &letter.headers {
                self.put_queue_id(b'L', letter);
                if self.agreed.steps & LEADING_SPACE == 0 {
                    encode::header(&mut self.out, name, value);
                } else {
                    encode::header(&mut self.out, name, &[b" ", value.as_slice()].concat());
                }
                if let Some(answer) = self.stage(At::Header, Step::Header)? {
                    return Ok(Some(answer));
                }
            }
        }
        self.put_queue_id(b'N', letter);
        if !self.agreed.left_out(Step::Eoh) {
            encode::eoh(&mut self.out);
            if let Some(answer) = self.stage(At::Eoh, Step::Eoh)? {
                return Ok(Some(answer));
            }
        }
        if !self.agreed.left_out(Step::Body) {
            for chunk in letter.body.chunks(CHUNK_BYTES) {
                self.put_queue_id(b'B', letter);
                encode::body(&mut self.out, chunk);
                match self.stage(At::Body, Step::Body)? {
                    Some(answer) if answer.reply == Reply::Skip => break,
                    Some(answer) => return Ok(Some(answer)),
                    None => {}
                }
            }
        }
        Ok(None)
    }

    fn end_of_message(&mut self, letter: &Letter) -> io::Result<Answer> {
        self.put_queue_id(b'E', letter);
        encode::eom(&mut self.out, b"");
        self.flush()?;
        let mut changes = Vec::new();
        let mut progress = 0;
        for _ in 0..MOST_REPLIES {
            match self.read()? {
                Reply::Change(change) => changes.push(self.without_space(change)),
                Reply::Progress => progress += 1,
                Reply::Skip | Reply::Negotiated { .. } => {
                    return Err(broken("the filter gave a reply that ends no message"));
                }
                reply => {
                    return Ok(Answer {
                        at: At::Eom,
                        reply,
                        refused: Vec::new(),
                        changes,
                        progress,
                    });
                }
            }
        }
        Err(broken("the filter gives no final reply"))
    }

    fn without_space(&self, change: Change) -> Change {
        if self.agreed.steps & LEADING_SPACE == 0 {
            return change;
        }
        let cut = |value: Vec<u8>| {
            value
                .strip_prefix(b" ")
                .map_or(value.clone(), <[u8]>::to_vec)
        };
        match change {
            Change::AddHeader(name, value) => Change::AddHeader(name, cut(value)),
            Change::InsertHeader(index, name, value) => {
                Change::InsertHeader(index, name, cut(value))
            }
            Change::ChangeHeader(nth, name, value) => Change::ChangeHeader(nth, name, cut(value)),
            other => other,
        }
    }

    /// Sends an SMTP command that the MTA does not know. `None`: go on, or it was declined.
    ///
    /// # Errors
    /// The stream's; `InvalidData` when the filter breaks the protocol.
    pub fn unknown(&mut self, command: &[u8]) -> io::Result<Option<Reply>> {
        if self.agreed.left_out(Step::Unknown) || self.agreed.version < 3 {
            return Ok(None);
        }
        encode::unknown(&mut self.out, command);
        let answer = self.stage(At::Helo, Step::Unknown)?;
        Ok(answer.map(|answer| answer.reply))
    }

    /// Aborts a message.
    ///
    /// # Errors
    /// The stream's.
    pub fn abort(&mut self) -> io::Result<()> {
        encode::abort(&mut self.out);
        self.flush()
    }

    /// Announces a new SMTP client.
    ///
    /// # Errors
    /// The stream's.
    pub fn new_client(&mut self) -> io::Result<()> {
        encode::quit_new_connection(&mut self.out);
        self.flush()
    }

    /// Ends the session; the filter answers nothing and closes.
    ///
    /// # Errors
    /// The stream's.
    pub fn quit(&mut self) -> io::Result<()> {
        encode::quit(&mut self.out);
        self.flush()
    }

    /// Sends bytes as they are, for what an MTA would not send.
    ///
    /// # Errors
    /// The stream's.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.extend_from_slice(bytes);
        self.flush()
    }

    fn put_queue_id(&mut self, code: u8, letter: &Letter) {
        if letter.queue_id.is_empty() {
            encode::macros(&mut self.out, code, &[]);
        } else {
            encode::macros(&mut self.out, code, &[(b"i", &letter.queue_id)]);
        }
    }

    /// Waits for the reply to the command just encoded, if it has one. `None`: go on.
    fn stage(&mut self, at: At, step: Step) -> io::Result<Option<Answer>> {
        if self.pace != Pace::UntilReply {
            self.flush()?;
        }
        if self.agreed.no_reply(step) {
            return Ok(None);
        }
        self.flush()?;
        match self.read()? {
            Reply::Continue => Ok(None),
            Reply::Skip if at != At::Body => Err(broken("the filter skips what is no body")),
            Reply::Change(_) | Reply::Progress | Reply::Negotiated { .. } => {
                Err(broken("the filter gave a reply that belongs elsewhere"))
            }
            reply => Ok(Some(Answer {
                at,
                reply,
                refused: Vec::new(),
                changes: Vec::new(),
                progress: 0,
            })),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        if self.pace == Pace::EachByte {
            for byte in &out {
                self.stream.write_all(std::slice::from_ref(byte))?;
                self.stream.flush()?;
            }
        } else {
            self.stream.write_all(&out)?;
            self.stream.flush()?;
        }
        self.out = out;
        self.out.clear();
        Ok(())
    }

    /// Waits for one reply.
    ///
    /// # Errors
    /// The stream's; `UnexpectedEof` when the filter closed; `InvalidData` when an MTA would not take it.
    pub fn read(&mut self) -> io::Result<Reply> {
        loop {
            match frame::cut(&self.input, frame::PAYLOAD_BYTES) {
                Ok(Some((frame, used))) => {
                    let reply = decode::reply(frame);
                    self.input.drain(..used);
                    return reply.ok_or_else(|| broken("the filter gave an impossible reply"));
                }
                Ok(None) => {}
                Err(_) => return Err(broken("the filter gave a reply of an impossible length")),
            }
            let mut buffer = [0; 16 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
