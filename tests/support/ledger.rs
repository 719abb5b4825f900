//! What the clients of a milter know, counted by themselves while they talk to it, and what the board may say if it tells the truth.
//!
//! Each step has two counts: one goes up before it is taken, one after its answer was read. What the board counts lies between the
//! second, read before the look at the board, and the first, read after it: at every instant, and whoever dies meanwhile.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use scoreboard::Snapshot;
use serde_json::Value;

use super::SOON;
use super::milter::count;
use super::mta::{Address, FULL, Message, Mta};

/// Does what the sender asks for. MAIL and RCPT are answered, so that a message is known to be in progress.
pub const POLICY: &str = r#"
local policy = {}
function policy.mail(ctx, sender, args) end
function policy.rcpt(ctx, recipient, args) end
function policy.header(ctx, name, value) end
function policy.body(ctx, chunk) end
function policy.eom(ctx)
  local wish = ctx.sender:match("^(%a+)@")
  if wish == "slow" then milter.sleep(0.02) end
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

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident)+) => {
        /// The counts of all clients together.
        #[derive(Debug, Default)]
        pub struct Ledger {
            $($(#[$doc])* pub $name: AtomicU64,)+
            /// Queue ids of messages whose fate their clients did not learn.
            pub unanswered: Mutex<HashSet<String>>,
            /// Between the last command before a quit and the end of the connection.
            pub quits: Mutex<Vec<(Instant, Instant)>>,
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

    fn pause(&mut self) {
        let microseconds = self.below(4000);
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

impl Ledger {
    /// One connection with up to three messages, from opening to its end. Queue ids begin with `name`.
    pub fn session(&self, address: &Address, name: &str, random: &mut Random) {
        up(&self.opening);
        let mut mta = Mta::open(address, SOON).expect("the port is open all the time");
        up(&self.opened);
        let mut sent = Instant::now();
        if let Err(error) = mta.negotiate(FULL).and_then(|()| mta.hello()) {
            is_cut(&error);
            return up(&self.cut);
        }
        up(&self.greeted);
        let mut aborted = None;
        for number in 0..=random.below(3) {
            random.pause();
            let id = format!("{name}x{number}");
            let decided = self.message(&mut mta, id, &mut aborted, &mut sent, random);
            if decided.is_err() {
                self.unanswered.lock().unwrap().extend(aborted);
                return up(&self.cut);
            }
        }
        self.unanswered.lock().unwrap().extend(aborted);
        random.pause();
        self.quit(mta, sent);
    }

    /// One message. `aborted` is the id of the one before it, if it was aborted and nothing proves that the filter read that; `sent` becomes
    /// an instant before the last command that was answered.
    fn message(
        &self,
        mta: &mut Mta,
        id: String,
        aborted: &mut Option<String>,
        sent: &mut Instant,
        random: &mut Random,
    ) -> Result<(), ()> {
        let (sender, reply, verdict) = SENDERS[random.below(4) as usize];
        let mut message = Message::from(sender).and_to("second@example.org");
        message.queue_id = id;
        let unanswered = |error: io::Error, where_to: &AtomicU64| {
            is_cut(&error);
            up(where_to);
            self.unanswered
                .lock()
                .unwrap()
                .insert(message.queue_id.clone());
        };
        up(&self.mails);
        *sent = Instant::now();
        if let Some(decided) = mta
            .begin(&message)
            .map_err(|error| unanswered(error, &self.cut_in_envelope))?
        {
            panic!("decided too early: {decided:?}");
        }
        up(&self.begun);
        if aborted.take().is_some() {
            up(&self.aborts_read);
        }
        random.pause();
        if random.below(8) == 0 {
            up(&self.aborts);
            *aborted = Some(message.queue_id.clone());
            mta.put(b'A', &[]);
            return mta.flush().map_err(|error| is_cut(&error));
        }
        up(&self.ends);
        *sent = Instant::now();
        let answer = mta
            .complete(&message)
            .map_err(|error| unanswered(error, &self.cut_at_the_end))?;
        assert_eq!((answer.stage, answer.reply), ('E', reply), "{answer:?}");
        up([&self.accepted, &self.rejected, &self.tempfailed][verdict]);
        up(&self.finished);
        Ok(())
    }

    /// Quits and reads to the end: an end by reset says that the quit was never read.
    fn quit(&self, mut mta: Mta, sent: Instant) {
        mta.put(b'Q', &[]);
        match mta.flush().and_then(|()| mta.reply()) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                self.quits.lock().unwrap().push((sent, Instant::now()));
            }
            Err(error) => {
                is_cut(&error);
                up(&self.quit_unread);
            }
            Ok(reply) => panic!("a quit was answered: {reply:?}"),
        }
    }

    /// Quits of which it cannot be told whether they were read: a child died (between these instants) before the connection ended.
    pub fn doubtful_quits(&self, deaths: &[(Instant, Instant)]) -> u64 {
        let quits = self.quits.lock().unwrap();
        let overlaps = |(from, to): &&(Instant, Instant)| {
            deaths
                .iter()
                .any(|(before, after)| before <= to && after >= from)
        };
        quits.iter().filter(overlaps).count() as u64
    }
}

/// What a board says in all, from any of its readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub connections: u64,
    pub requests: u64,
    pub started: u64,
    pub processed: u64,
    pub aborted: u64,
    pub in_progress: u64,
    pub lost_connections: u64,
    pub lost_messages: u64,
    pub verdicts: [u64; 6],
}

impl Totals {
    /// As the crate tells them.
    pub fn of(snapshot: &Snapshot) -> Totals {
        let counters = snapshot.counters();
        Totals {
            connections: snapshot.connections(),
            requests: snapshot.requests(),
            started: counters.messages_started,
            processed: snapshot.messages(),
            aborted: counters.messages_aborted,
            in_progress: snapshot.in_progress(),
            lost_connections: snapshot.lost_connections(),
            lost_messages: snapshot.lost_messages(),
            verdicts: counters.verdicts,
        }
    }

    /// As `status --format json` tells them.
    pub fn in_json(milter: &Value) -> Totals {
        let verdicts = [
            "accept",
            "reject",
            "tempfail",
            "discard",
            "quarantine",
            "error",
        ];
        Totals {
            connections: count(&milter["pool"]["connections"]),
            requests: count(&milter["pool"]["requests"]),
            started: count(&milter["messages_started"]),
            processed: count(&milter["pool"]["messages"]),
            aborted: count(&milter["aborted"]),
            in_progress: count(&milter["messages_in_progress"]),
            lost_connections: count(&milter["lost"]["connections"]),
            lost_messages: count(&milter["lost"]["messages"]),
            verdicts: verdicts.map(|name| count(&milter["verdicts"][name])),
        }
    }

    /// Nothing is missing in itself, nothing went back, and the clients' counts before and after the look leave room for it.
    #[track_caller]
    pub fn agree(&self, earlier: &Totals, before: &Counts, after: &Counts) {
        let with = || {
            format!("{self:?}\nafter {earlier:?}\nclients before {before:?}\nand after {after:?}")
        };
        let accounted = self.processed + self.aborted + self.lost_messages + self.in_progress;
        assert_eq!(self.started, accounted, "messages: {}", with());
        let by_verdict: u64 = self.verdicts.iter().sum();
        assert_eq!(self.processed, by_verdict, "verdicts: {}", with());
        let growing = |of: &Totals| {
            let [a, b, c, d, e, f] = of.verdicts;
            let lost = [of.lost_connections, of.lost_messages];
            [
                of.connections,
                of.started,
                of.processed,
                of.aborted,
                lost[0],
                lost[1],
                a,
                b,
                c,
                d,
                e,
                f,
            ]
        };
        for (now, then) in growing(self).iter().zip(growing(earlier)) {
            assert!(*now >= then, "a total went back: {}", with());
        }
        let [accepted, rejected, tempfailed, others @ ..] = self.verdicts;
        assert_eq!(others, [0; 3], "{}", with());
        for (what, least, told, most) in [
            (
                "connections",
                before.greeted,
                self.connections,
                after.opening,
            ),
            ("started", before.begun, self.started, after.mails),
            ("processed", before.finished, self.processed, after.ends),
            ("aborted", before.aborts_read, self.aborted, after.aborts),
            ("accepted", before.accepted, accepted, after.ends),
            ("rejected", before.rejected, rejected, after.ends),
            ("tempfailed", before.tempfailed, tempfailed, after.ends),
        ] {
            assert!(
                (least..=most).contains(&told),
                "{what}: the board says {told}, the clients {least} to {most}: {}",
                with()
            );
        }
    }
}
