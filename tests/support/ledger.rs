//! What the clients of a milter know, counted by themselves while they talk to it, and what the board may say if it tells the truth.
//!
//! Each step has two counts: one goes up before it is taken, one after its answer was read. What the board counts lies between the
//! second, read before the look at the board, and the first, read after it: at every instant, and whoever dies meanwhile.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::SOON;
use super::mta::{Address, Answer, FULL, Message, Mta};

/// Does what the sender asks for; `stay` needs an `eom_timeout`. MAIL and RCPT are answered, so that a message is known to be in progress.
pub const POLICY: &str = r#"
local policy = {}
function policy.mail(ctx, sender, args) end
function policy.rcpt(ctx, recipient, args) end
function policy.header(ctx, name, value) end
function policy.body(ctx, chunk) end
function policy.eom(ctx)
  local wish = ctx.sender:match("^(%a+)@")
  if wish == "slow" then milter.sleep(0.02) end
  if wish == "stay" then milter.sleep(1000) end
  if wish == "reject" then return milter.REJECT end
  if wish == "tempfail" then return milter.TEMPFAIL end
  ctx:add_header("X-Filter", "ok")
end
return policy
"#;

/// Senders, the final reply that each gets, and its place among the board's verdicts.
const SENDERS: [(&str, char, usize); 4] = [
    ("plain@b.example", 'c', 0),
    ("slow@b.example", 'c', 0),
    ("reject@b.example", 'r', 1),
    ("tempfail@b.example", 't', 2),
];

/// Two instants between which something happened.
pub type Span = (Instant, Instant);

/// A connection that was cut.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Between the last command that was answered and the end.
    pub span: Span,
    /// Which one, and how its client learnt of it.
    pub what: String,
}

/// Longest pause between two steps of a client.
const PAUSE: Duration = Duration::from_millis(4);

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident)+) => {
        /// The counts of all clients together.
        #[derive(Debug, Default)]
        pub struct Ledger {
            $($(#[$doc])* pub $name: AtomicU64,)+
            /// Queue ids of messages whose fate their clients did not learn.
            pub unanswered: Mutex<HashSet<String>>,
            /// Between the last command before a quit and the end of the connection.
            pub quits: Mutex<Vec<Span>>,
            /// Connections cut, their quit unread or not sent.
            pub cuts: Mutex<Vec<Cut>>,
        }

        /// The counts at one instant.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)+ }

        impl Ledger {
            /// The counts now.
            pub fn now(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::SeqCst),)+ }
            }
        }
    };
}

counts! {
    /// Connections that are being opened or were.
    opening
    /// Connections that were opened.
    opened
    /// Of these, connections whose HELO was answered.
    greeted
    /// Connections cut before their client sent a quit.
    cut
    /// Connections of which the kernel says that their quit was never read.
    quit_unread
    /// MAIL commands that are being sent or were.
    mails
    /// Messages of which MAIL and RCPT were answered.
    begun
    /// Messages cut before RCPT was answered.
    cut_in_envelope
    /// ABORT commands within a message, that are being sent or were.
    aborts
    /// Of these, those after which the filter answered again.
    aborts_read
    /// Messages of which everything is being sent or was.
    ends
    /// Messages whose final reply was read.
    finished
    /// Of these, accepted ones.
    accepted
    /// Of these, rejected ones.
    rejected
    /// Of these, those refused for now.
    tempfailed
    /// Messages cut at their final reply.
    cut_at_the_end
}

fn up(count: &AtomicU64) {
    count.fetch_add(1, Ordering::SeqCst);
}

/// A client's random numbers (xorshift64*).
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below this one.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    fn pause(&mut self, longest: Duration) {
        let microseconds = self.below(longest.as_micros() as u64);
        std::thread::sleep(Duration::from_micros(microseconds)); // Load with gaps; nothing is awaited.
    }
}

/// The connection ended too early, which only a death may cause; anything else fails the test.
fn is_cut(error: &io::Error) {
    let death = matches!(
        error.kind(),
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::ConnectionAborted
    );
    assert!(death, "not the end of a connection: {error}");
}

/// One connection of a client.
struct Talk<'a> {
    ledger: &'a Ledger,
    name: &'a str,
    mta: Mta,
    /// Longest pause.
    pause: Duration,
    /// An instant before the last command that was answered, or before the opening.
    sent: Instant,
    /// The message before this one, if it was aborted and nothing proves that the filter read that.
    aborted: Option<String>,
}

impl Ledger {
    /// One connection with up to three messages, from opening to its end. Queue ids begin with `name`. An error: it cannot be opened.
    pub fn session(&self, address: &Address, name: &str, random: &mut Random) -> io::Result<()> {
        self.session_with_pauses(address, name, random, PAUSE)
    }

    /// The same of a client that waits up to so long between its steps.
    pub fn session_with_pauses(
        &self,
        address: &Address,
        name: &str,
        random: &mut Random,
        pause: Duration,
    ) -> io::Result<()> {
        up(&self.opening);
        // Before it is opened: it may be served, and its child killed, before we are here again.
        let sent = Instant::now();
        let mta = Mta::open(address, SOON)?;
        up(&self.opened);
        let mut talk = Talk {
            ledger: self,
            name,
            mta,
            pause,
            sent,
            aborted: None,
        };
        match talk.messages(name, random) {
            Ok(()) => talk.quit(),
            Err(error) => {
                is_cut(&error);
                up(&self.cut);
                talk.was_cut(&error);
                self.leave(talk.aborted);
            }
        }
        Ok(())
    }

    /// Nobody knows what became of this message.
    fn leave(&self, id: impl IntoIterator<Item = String>) {
        self.unanswered.lock().unwrap().extend(id);
    }
}

impl Talk<'_> {
    fn messages(&mut self, name: &str, random: &mut Random) -> io::Result<()> {
        self.mta.negotiate(FULL)?;
        self.mta.hello()?;
        up(&self.ledger.greeted);
        for number in 0..=random.below(3) {
            random.pause(self.pause);
            let (sender, reply, verdict) = SENDERS[random.below(4) as usize];
            let mut message = Message::from(sender).and_to("second@example.org");
            message.queue_id = format!("{name}x{number}");
            self.begin(&message)?;
            random.pause(self.pause);
            if random.below(8) == 0 {
                up(&self.ledger.aborts);
                self.aborted = Some(message.queue_id);
                self.mta.put(b'A', &[]);
                self.mta.flush()?;
            } else {
                let answer = self.complete(&message)?;
                assert_eq!((answer.stage, answer.reply), ('E', reply), "{answer:?}");
                let ledger = self.ledger;
                up([&ledger.accepted, &ledger.rejected, &ledger.tempfailed][verdict]);
                up(&ledger.finished);
            }
        }
        random.pause(self.pause);
        Ok(())
    }

    fn begin(&mut self, message: &Message) -> io::Result<()> {
        up(&self.ledger.mails);
        let sent = Instant::now();
        let decided = self.mta.begin(message).inspect_err(|_| {
            up(&self.ledger.cut_in_envelope);
            self.ledger.leave([message.queue_id.clone()]);
        })?;
        assert_eq!(decided, None, "decided too early");
        self.sent = sent;
        up(&self.ledger.begun);
        if self.aborted.take().is_some() {
            up(&self.ledger.aborts_read);
        }
        Ok(())
    }

    fn complete(&mut self, message: &Message) -> io::Result<Answer> {
        up(&self.ledger.ends);
        let sent = Instant::now();
        let answer = self.mta.complete(message).inspect_err(|_| {
            up(&self.ledger.cut_at_the_end);
            self.ledger.leave([message.queue_id.clone()]);
        })?;
        self.sent = sent;
        Ok(answer)
    }

    fn was_cut(&self, error: &io::Error) {
        self.ledger.cuts.lock().unwrap().push(Cut {
            span: (self.sent, Instant::now()),
            what: format!("session {}: {error}", self.name),
        });
    }

    /// Quits and reads to the end: an end by reset says that the quit was never read.
    fn quit(mut self) {
        self.ledger.leave(self.aborted.take());
        self.mta.put(b'Q', &[]);
        let end = self.mta.flush().and_then(|()| self.mta.reply());
        let span = (self.sent, Instant::now());
        match end {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                self.ledger.quits.lock().unwrap().push(span);
            }
            Err(error) => {
                is_cut(&error);
                up(&self.ledger.quit_unread);
                self.was_cut(&error);
            }
            Ok(reply) => panic!("a quit was answered: {reply:?}"),
        }
    }
}

impl Ledger {
    /// Quits of which it cannot be told whether they were read: a child died (between these instants) before the connection ended.
    pub fn doubtful_quits(&self, deaths: &[Span]) -> u64 {
        let quits = self.quits.lock().unwrap();
        quits.iter().filter(|quit| meets_one(quit, deaths)).count() as u64
    }

    /// Forgets messages, quits and cuts one by one, once they are judged; the counts stay.
    pub fn forget(&self) {
        self.unanswered.lock().unwrap().clear();
        self.quits.lock().unwrap().clear();
        self.cuts.lock().unwrap().clear();
    }

    /// Cuts that no death explains.
    pub fn unexplained_cuts(&self, deaths: &[Span]) -> Vec<Cut> {
        let cuts = self.cuts.lock().unwrap();
        let unexplained = |cut: &&Cut| !meets_one(&cut.span, deaths);
        cuts.iter().filter(unexplained).cloned().collect()
    }
}

fn meets_one((from, to): &Span, others: &[Span]) -> bool {
    let meets = |(before, after): &Span| before <= to && after >= from;
    others.iter().any(meets)
}
