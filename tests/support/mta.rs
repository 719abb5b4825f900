//! An MTA's end of a milter connection, driven as Postfix does: a macro packet before every command, agreed NO* and NR_* bits
//! obeyed, commands without reply batched into the next write, ABORT after every message.
//!
//! Written apart from the program's own client so that one checks the other, and self-contained so that the benchmarks use the same.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Body bytes in one packet, as both MTAs fill them.
const CHUNK_BYTES: usize = 65_535;
/// Unsent bytes of commands without reply after which a write happens anyway.
const BATCH_BYTES: usize = 65_536;

/// Where a filter listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// TCP
    Tcp(SocketAddr),
    /// UNIX socket
    Unix(PathBuf),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What is offered in the negotiation.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Version
    pub version: u32,
    /// Action bits
    pub actions: u32,
    /// Step bits
    pub steps: u32,
}

/// What Postfix and Sendmail offer.
pub const FULL: Offer = Offer {
    version: 6,
    actions: 0x1ff,
    steps: 0x1f_ffff,
};

/// One message.
#[derive(Clone, Debug)]
pub struct Message {
    /// With angle brackets.
    pub sender: String,
    /// With angle brackets.
    pub recipients: Vec<String>,
    /// Name and value.
    pub headers: Vec<(String, String)>,
    /// With CR LF line ends.
    pub body: Vec<u8>,
    /// Macro `i`, told from DATA on.
    pub queue_id: String,
}

impl Message {
    /// A small message with this sender.
    pub fn from(sender: &str) -> Message {
        Message {
            sender: format!("<{sender}>"),
            recipients: vec!["<user@example.org>".to_owned()],
            headers: vec![
                ("From".to_owned(), sender.to_owned()),
                ("Subject".to_owned(), "test".to_owned()),
            ],
            body: b"Hello\r\n".to_vec(),
            queue_id: "QID1".to_owned(),
        }
    }

    /// The same with another recipient more.
    pub fn and_to(mut self, recipient: &str) -> Message {
        self.recipients.push(format!("<{recipient}>"));
        self
    }

    /// The same to this recipient only.
    pub fn only_to(mut self, recipient: &str) -> Message {
        self.recipients = vec![format!("<{recipient}>")];
        self
    }

    /// The same with another body.
    pub fn with_body(mut self, body: &[u8]) -> Message {
        self.body = body.to_vec();
        self
    }
}

/// What the filter said of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Code of the command that was decided: `E` unless a refusal or acceptance came earlier; `R` when no recipient is left.
    pub stage: char,
    /// Code of the final reply.
    pub reply: char,
    /// Text of a reply `y`.
    pub text: String,
    /// Modifications: code and payload.
    pub edits: Vec<(char, Vec<u8>)>,
    /// Progress packets seen.
    pub progress: usize,
    /// Replies to refused recipients: code and text.
    pub refused: Vec<(char, String)>,
}

impl Answer {
    fn none_yet() -> Answer {
        Answer {
            stage: 'E',
            reply: 'c',
            text: String::new(),
            edits: Vec::new(),
            progress: 0,
            refused: Vec::new(),
        }
    }

    /// Is the message taken, at its end?
    pub fn is_taken(&self) -> bool {
        self.stage == 'E' && matches!(self.reply, 'c' | 'a')
    }

    /// Was this header added, with this value?
    pub fn adds_header(&self, name: &str, value: &str) -> bool {
        // A filter that agreed on leading space writes it itself.
        let plain = format!("{name}\0{value}\0").into_bytes();
        let spaced = format!("{name}\0 {value}\0").into_bytes();
        self.edits
            .iter()
            .any(|(code, payload)| *code == 'h' && (*payload == plain || *payload == spaced))
    }
}

/// A connection to a filter.
pub struct Mta {
    stream: Stream,
    timeout: PollTimeout,
    out: Vec<u8>,
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// Step bits that the filter agreed to.
    pub steps: u32,
    /// Action bits that the filter asked for.
    pub actions: u32,
}

fn broken(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The bits "leave out" and "no reply" of a command.
fn bits(code: u8) -> (u32, u32) {
    match code {
        b'C' => (0x01, 0x1000),
        b'H' => (0x02, 0x2000),
        b'M' => (0x04, 0x4000),
        b'R' => (0x08, 0x8000),
        b'T' => (0x200, 0x1_0000),
        b'L' => (0x20, 0x80),
        b'N' => (0x40, 0x4_0000),
        b'B' => (0x10, 0x8_0000),
        b'U' => (0x100, 0x2_0000),
        _ => (0, 0),
    }
}

const HEADER_LEADING_SPACE: u32 = 0x10_0000;

impl Mta {
    /// Connects only; nothing is sent. Reads and writes fail after `timeout`.
    pub fn open(address: &Address, timeout: Duration) -> io::Result<Mta> {
        let stream = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, timeout)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                Stream::Tcp(stream)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                Stream::Unix(stream)
            }
        };
        Ok(Mta {
            stream,
            timeout: PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX),
            out: Vec::new(),
            input: vec![0; 4096],
            start: 0,
            end: 0,
            steps: 0,
            actions: 0,
        })
    }

    /// Connects, negotiates everything that the MTAs offer, announces a client and says HELO: where Postfix is before a message.
    pub fn ready(address: &Address, timeout: Duration) -> io::Result<Mta> {
        let mut mta = Mta::open(address, timeout)?;
        mta.negotiate(FULL)?;
        mta.hello()?;
        Ok(mta)
    }

    /// Negotiates.
    pub fn negotiate(&mut self, offer: Offer) -> io::Result<()> {
        let mut payload = Vec::new();
        for word in [offer.version, offer.actions, offer.steps] {
            payload.extend_from_slice(&word.to_be_bytes());
        }
        self.put(b'O', &[&payload]);
        self.flush()?;
        let (code, payload) = self.reply()?;
        if code != b'O' || payload.len() < 12 {
            return Err(broken(format!("answer {code:#x} to the negotiation")));
        }
        let word = |index: usize| {
            let bytes = &payload[index * 4..index * 4 + 4];
            u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        };
        if word(0) > offer.version || word(1) & !offer.actions != 0 || word(2) & !offer.steps != 0 {
            return Err(broken(format!(
                "the filter wants more than was offered: {payload:x?}"
            )));
        }
        (self.actions, self.steps) = (word(1), word(2));
        Ok(())
    }

    /// Connect and HELO. A refusal is an error.
    pub fn hello(&mut self) -> io::Result<()> {
        for reply in [self.connect()?, self.helo()?] {
            if !matches!(reply, None | Some((b'c', _))) {
                return Err(broken(format!("connect or HELO was answered {reply:?}")));
            }
        }
        Ok(())
    }

    /// The connect command; its reply, if there is one.
    pub fn connect(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let macros = b"j\0mx.test.example\0{daemon_name}\0mx.test.example\0{daemon_addr}\x00127.0.0.1\0v\0Postfix 3.7\0_\0c.test [192.0.2.1]\0";
        self.command(
            b'C',
            macros,
            &[b"c.test\0", b"4", &[0x30, 0x39], b"192.0.2.1\0"],
        )
    }

    /// The HELO command; its reply, if there is one.
    pub fn helo(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        self.command(b'H', b"", &[b"c.test\0"])
    }

    /// A macro packet and its command. `None`: it was left out or nobody waits for a reply.
    pub fn command(
        &mut self,
        code: u8,
        macros: &[u8],
        parts: &[&[u8]],
    ) -> io::Result<Option<(u8, Vec<u8>)>> {
        if self.push(code, macros, parts)? {
            self.flush()?;
            return self.reply().map(Some);
        }
        Ok(None)
    }

    /// Queues a command. True: a reply is to be read after the next flush.
    fn push(&mut self, code: u8, macros: &[u8], parts: &[&[u8]]) -> io::Result<bool> {
        let (leave_out, no_reply) = bits(code);
        let is_left_out = self.steps & leave_out != 0;
        // Postfix tells the macros of a command even when the command itself is left out, but for the content, which it then does
        // not read at all.
        if !(is_left_out && matches!(code, b'L' | b'N' | b'B')) {
            self.put(b'D', &[&[code], macros]);
        }
        if is_left_out {
            return Ok(false);
        }
        self.put(code, parts);
        if self.steps & no_reply == 0 {
            return Ok(true);
        }
        if self.out.len() >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(false)
    }

    /// Queues a packet as it is.
    pub fn put(&mut self, code: u8, parts: &[&[u8]]) {
        let payload: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(payload + 1).expect("test payloads are small");
        self.out.extend_from_slice(&length.to_be_bytes());
        self.out.push(code);
        for part in parts {
            self.out.extend_from_slice(part);
        }
    }

    /// Queues bytes that need not be packets.
    pub fn put_raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Sends what is queued.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(&self.out)?,
            Stream::Unix(stream) => stream.write_all(&self.out)?,
        }
        self.out.clear();
        Ok(())
    }

    /// Waits in poll(2) as both MTAs do (Postfix's timed_read.c, Sendmail's milter.c). Who blocks in a read of a UNIX socket instead is
    /// woken whenever the filter has taken a packet, for nothing.
    fn wait(&self) -> io::Result<()> {
        let descriptor: BorrowedFd = match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        };
        let mut wanted = [PollFd::new(descriptor, PollFlags::POLLIN)];
        match poll(&mut wanted, self.timeout)? {
            0 => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "the filter does not answer",
            )),
            _ => Ok(()),
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.input.len() {
            if self.start > 0 {
                self.input.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                self.input.resize(self.input.len() * 2, 0);
            }
        }
        self.wait()?;
        let room = &mut self.input[self.end..];
        let count = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(room)?,
            Stream::Unix(stream) => stream.read(room)?,
        };
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the filter closed the connection",
            ));
        }
        self.end += count;
        Ok(())
    }

    /// Reads one packet: code and payload.
    pub fn reply(&mut self) -> io::Result<(u8, Vec<u8>)> {
        loop {
            let there = &self.input[self.start..self.end];
            if let Some((head, rest)) = there.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*head) as usize;
                if !(1..=65_536).contains(&length) {
                    return Err(broken(format!("a reply of {length} bytes")));
                }
                if rest.len() >= length {
                    let reply = (rest[0], rest[1..length].to_vec());
                    self.start += 4 + length;
                    return Ok(reply);
                }
            }
            self.fill()?;
        }
    }

    /// Waits until the filter closes; anything it sends before is an error.
    pub fn expect_close(&mut self) -> io::Result<()> {
        match self.reply() {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
            Ok((code, payload)) => Err(broken(format!("{:?} {payload:x?}", code as char))),
        }
    }

    /// MAIL and RCPT of a message, answered; the message stays open. `Some`: the filter decided already.
    pub fn begin(&mut self, message: &Message) -> io::Result<Option<Answer>> {
        let mut answer = Answer::none_yet();
        Ok(self.envelope(message, &mut answer)?.then_some(answer))
    }

    /// True: the message is decided.
    fn envelope(&mut self, message: &Message, answer: &mut Answer) -> io::Result<bool> {
        let bare = message.sender.trim_matches(['<', '>']);
        let macros =
            format!("{{mail_addr}}\0{bare}\0{{mail_host}}\0b.example\0{{mail_mailer}}\0smtp\0");
        let reply = self.command(
            b'M',
            macros.as_bytes(),
            &[message.sender.as_bytes(), b"\0SIZE=100\0"],
        )?;
        if decided('M', reply, answer)? {
            return Ok(true);
        }
        for (index, recipient) in message.recipients.iter().enumerate() {
            let bare = recipient.trim_matches(['<', '>']);
            let mut macros = format!(
                "{{rcpt_addr}}\0{bare}\0{{rcpt_host}}\0example.org\0{{rcpt_mailer}}\0smtp\0"
            );
            if index > 0 {
                macros.push_str(&format!("i\0{}\0", message.queue_id));
            }
            let reply = self.command(b'R', macros.as_bytes(), &[recipient.as_bytes(), b"\0"])?;
            match reply {
                Some((code @ (b'r' | b't' | b'y'), payload)) => {
                    answer.refused.push((code as char, text(&payload)));
                    if answer.refused.len() == message.recipients.len() {
                        (answer.stage, answer.reply) = ('R', code as char);
                        return Ok(true);
                    }
                }
                reply => {
                    if decided('R', reply, answer)? {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// A whole message; afterwards ABORT is queued, as Postfix does after every message.
    pub fn message(&mut self, message: &Message) -> io::Result<Answer> {
        let mut answer = Answer::none_yet();
        if !self.envelope(message, &mut answer)? && !self.content(message, &mut answer)? {
            self.finish(message, &mut answer)?;
        }
        self.put(b'A', &[]);
        Ok(answer)
    }

    /// The rest of a message that [`Mta::begin`] left open.
    pub fn complete(&mut self, message: &Message) -> io::Result<Answer> {
        let mut answer = Answer::none_yet();
        if !self.content(message, &mut answer)? {
            self.finish(message, &mut answer)?;
        }
        self.put(b'A', &[]);
        Ok(answer)
    }

    /// DATA, headers, body: true when the message is decided.
    fn content(&mut self, message: &Message, answer: &mut Answer) -> io::Result<bool> {
        let id = format!("i\0{}\0", message.queue_id).into_bytes();
        let reply = self.command(b'T', &id, &[])?;
        if decided('T', reply, answer)? {
            return Ok(true);
        }
        let space: &[u8] = if self.steps & HEADER_LEADING_SPACE == 0 {
            b""
        } else {
            b" "
        };
        for (name, value) in &message.headers {
            let parts = [name.as_bytes(), b"\0", space, value.as_bytes(), b"\0"];
            let reply = self.command(b'L', &id, &parts)?;
            if decided('L', reply, answer)? {
                return Ok(true);
            }
        }
        let reply = self.command(b'N', &id, &[])?;
        if decided('N', reply, answer)? {
            return Ok(true);
        }
        for chunk in message.body.chunks(CHUNK_BYTES) {
            match self.command(b'B', &id, &[chunk])? {
                Some((b's', _)) => break,
                reply => {
                    if decided('B', reply, answer)? {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// End of message: modifications, progress, final reply.
    fn finish(&mut self, message: &Message, answer: &mut Answer) -> io::Result<()> {
        let id = format!("i\0{}\0", message.queue_id).into_bytes();
        self.push(b'E', &id, &[])?;
        self.flush()?;
        loop {
            let (code, payload) = self.reply()?;
            match code {
                b'p' => answer.progress += 1,
                b'h' | b'i' | b'm' | b'b' | b'+' | b'2' | b'-' | b'e' | b'q' => {
                    answer.edits.push((code as char, payload));
                }
                b'c' | b'a' | b'r' | b't' | b'd' | b'y' => {
                    answer.reply = code as char;
                    answer.text = text(&payload);
                    // One final reply, and nothing behind it.
                    if self.start != self.end {
                        return Err(broken("bytes after the final reply".to_owned()));
                    }
                    return Ok(());
                }
                other => {
                    return Err(broken(format!(
                        "reply {:?} to the end of a message",
                        other as char
                    )));
                }
            }
        }
    }

    /// Sends everything of a message up to and including its end, but reads no reply to the end.
    pub fn send_without_reading_the_end(&mut self, message: &Message) -> io::Result<()> {
        let mut answer = self.begin(message)?.unwrap_or(Answer::none_yet());
        if answer.reply != 'c' || self.content(message, &mut answer)? {
            return Err(broken(format!("decided too early: {answer:?}")));
        }
        let id = format!("i\0{}\0", message.queue_id).into_bytes();
        self.push(b'E', &id, &[])?;
        self.flush()
    }

    /// Reads what the end of a message is answered with, after [`Mta::send_without_reading_the_end`].
    pub fn read_the_end(&mut self) -> io::Result<char> {
        loop {
            let (code, _) = self.reply()?;
            if matches!(code, b'c' | b'a' | b'r' | b't' | b'd' | b'y') {
                return Ok(code as char);
            }
        }
    }

    /// Quits as Postfix does and closes.
    pub fn quit(mut self) -> io::Result<()> {
        self.put(b'Q', &[]);
        self.flush()
    }

    /// For reset tests and the like.
    pub fn descriptor(&self) -> RawFd {
        match &self.stream {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload)
        .trim_end_matches('\0')
        .to_owned()
}

fn decided(stage: char, reply: Option<(u8, Vec<u8>)>, answer: &mut Answer) -> io::Result<bool> {
    match reply {
        None | Some((b'c', _)) => Ok(false),
        Some((code @ (b'a' | b'r' | b't' | b'd' | b'y'), payload)) => {
            (answer.stage, answer.reply) = (stage, code as char);
            answer.text = text(&payload);
            Ok(true)
        }
        Some((code, _)) => Err(broken(format!(
            "reply {:?} to command {stage}",
            code as char
        ))),
    }
}
