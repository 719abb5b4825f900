//! The three records of a board, word by word: what the master says of the milter, what the master says of a slot, what the child in a
//! slot says of itself. All fields are u64 words, so that any reader can index them; texts are a length word and words of bytes.
//!
//! One writer a record. Nothing in a child's record is believed: readers clamp it against the master's.
#![forbid(unsafe_code)]

use bytemuck::{Pod, Zeroable};

/// Words of the global record.
pub const GLOBAL_WORDS: usize = 160;
/// Words of a master's or a child's record of a slot.
pub const SLOT_WORDS: usize = 96;
/// Words of an entry of the death ring.
pub const DEATH_WORDS: usize = 16;

/// What one process counted since it was forked, or what earlier processes of a slot counted together. Only grows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Counters {
    /// Connections finished, overload answers included.
    pub connections_completed: u64,
    /// Messages begun: the first of MAIL, RCPT, DATA, header, body, eom packets reached us.
    pub messages_started: u64,
    /// Messages that ended without a final reply: abort, a new MAIL, the connection's end.
    pub messages_aborted: u64,
    /// Messages processed, by [`Verdict`].
    pub verdicts: [u64; 6],
    /// Verdicts other than continue at connect and helo, by [`SessionVerdict`].
    pub sessions: [u64; 4],
    /// Recipients refused.
    pub recipients_refused: u64,
    /// Connections answered without the policy, for the milter was full (`concurrency_limit_action`); part of the completed ones.
    pub overload_answered: u64,
    /// Nanoseconds in callbacks, by [`Phase`].
    pub phase_ns: [u64; 8],
    /// Nanoseconds from first packet to final reply, summed over processed messages.
    pub message_ns: u64,
    /// Processed messages by duration: bucket n holds those of at most 64 microseconds × 2^n, the last one all the rest.
    pub message_histogram: [u64; 32],
}

impl Counters {
    /// Messages processed: under exactly one verdict each.
    pub fn messages_processed(&self) -> u64 {
        self.verdicts
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Messages begun and neither processed nor aborted.
    pub fn messages_in_progress(&self) -> u64 {
        self.messages_started
            .saturating_sub(self.messages_processed())
            .saturating_sub(self.messages_aborted)
    }

    /// The sum of both, word by word.
    #[must_use]
    pub fn plus(&self, other: &Counters) -> Counters {
        let mut sum = *self;
        let words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut sum));
        let others: &[u64] = bytemuck::cast_slice(std::slice::from_ref(other));
        for (word, other) in words.iter_mut().zip(others) {
            *word = word.saturating_add(*other);
        }
        sum
    }
}

/// Published by the master for the milter as a whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct GlobalRecord {
    /// [`MilterState`].
    pub state: u64,
    /// Generation of configuration and policy, from 1.
    pub generation: u64,
    /// CLOCK_BOOTTIME ns of the master's last turn: at least one a second.
    pub heartbeat_ns: u64,
    /// 1 when connections are accepted.
    pub accepting: u64,
    /// [`NotAccepting`].
    pub not_accepting: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Of these: closed by the master without ever reaching a child.
    pub rejected: u64,
    /// Of these: in the master's hands now, on their way to a child.
    pub waiting: u64,
    /// Children forked.
    pub forks: u64,
    /// Children that ended as they should.
    pub deaths_clean: u64,
    /// Children that ended with another exit status.
    pub deaths_error: u64,
    /// Children that a signal ended.
    pub deaths_signal: u64,
    /// ns during which no child had room, up to the last change.
    pub capacity_ns: u64,
    /// How often that began.
    pub capacity_episodes: u64,
    /// BOOTTIME ns since when no child has room; 0 when one has.
    pub capacity_since_ns: u64,
    /// Slots with a process now.
    pub slots_in_use: u64,
    /// Slots ever used: readers read these only.
    pub slots_high_water: u64,
    /// Most processes that can exist: 2 × `max_pooled_procs`, or 1 without a pool.
    pub slots_max: u64,
    /// [`FLAG_NO_POOL`] and bits to come; 0 in a healthy pool.
    pub flags: u64,
    /// `interpreters`: most in one process.
    pub interpreters_max: u64,
    /// Connections that one process may carry at once; 0 without a bound.
    pub connections_max: u64,
    /// Slot that last took a connection, or `u64::MAX`.
    pub last_slot: u64,
    /// BOOTTIME ns of the last restart that was asked for; 0 when none was.
    pub reload_at_ns: u64,
    /// 0 none, 1 done, 2 refused.
    pub reload_result: u64,
    /// Wake-ups that only the timer noticed; stays 0.
    pub late_wakeups: u64,
    /// `max_pooled_procs`.
    pub children_max: u64,
    /// `min_pooled_procs`.
    pub children_min: u64,
    /// BOOTTIME ns when a stop was asked for; 0 when none was.
    pub stop_since_ns: u64,
    /// BOOTTIME ns when that stop cuts what is left.
    pub stop_deadline_ns: u64,
    /// `mta_timeouts`: ns that the MTA waits for an answer to a command.
    pub command_timeout_ns: u64,
    /// `mta_timeouts`: ns that it waits during the content.
    pub content_timeout_ns: u64,
    /// Connections passed on for an overload answer.
    pub overload_passed: u64,
    /// Most connections in progress at once.
    pub peak_requests: u64,
    /// Children of an older generation that still serve.
    pub children_old: u64,
    /// BOOTTIME ns until which no new child is forked, after children died young; 0 when none did.
    pub backoff_until_ns: u64,
    /// Children that died young in a row.
    pub crash_loop: u64,
    /// The port as the operator wrote it: length and up to 256 bytes.
    pub port: [u64; 33],
    /// Version of the program: length and up to 32 bytes.
    pub version: [u64; 5],
    /// The last thing that went wrong, for the operator: length and up to 256 bytes.
    pub trouble: [u64; 33],
    /// BOOTTIME ns of that.
    pub trouble_at_ns: u64,
    /// ns with so many slots busy (a connection in progress): none, 1, 2, up to 4, 8, and so on to 512, more. Up to the last publication.
    pub busy_ns: [u64; BUSY_BUCKETS],
    /// Connections in the kernel's queue of the port, sampled; `u64::MAX` when it does not tell.
    pub backlog: u64,
    /// 1 when addresses are hidden (`redact`).
    pub redacted: u64,
    /// `concurrency_limit`: most connections of the milter; 0 without a bound.
    pub concurrency_limit: u64,
    /// For later fields.
    pub reserved: [u64; 37],
}

/// Words of [`GlobalRecord::busy_ns`].
pub const BUSY_BUCKETS: usize = 12;

/// The word of [`GlobalRecord::busy_ns`] for this number of busy slots.
pub fn busy_bucket(busy: u64) -> usize {
    let doubled = busy
        .saturating_sub(1)
        .checked_ilog2()
        .map_or(0, |log| log as usize + 1);
    let bucket = if busy == 0 { 0 } else { doubled + 1 };
    bucket.min(BUSY_BUCKETS - 1)
}

/// Bit of [`GlobalRecord::flags`]: the pool is disabled, one process serves all.
pub const FLAG_NO_POOL: u64 = 0x1;

/// Published by the master for each slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct MasterRecord {
    /// [`SlotState`].
    pub state: u64,
    /// Number of the process in this slot, from 1; never used twice.
    pub incarnation: u64,
    /// Its pid; 0 when the slot is empty.
    pub pid: u64,
    /// Its start time in clock ticks since boot (field 22 of proc stat).
    pub start_time: u64,
    /// BOOTTIME ns of its fork.
    pub forked_at_ns: u64,
    /// Processes that the slot has had, this one included.
    pub processes: u64,
    /// Connections handed to this process.
    pub dispatched: u64,
    /// Of these: taken back, never picked up.
    pub returned: u64,
    /// Connections handed to earlier processes of the slot.
    pub dispatched_before: u64,
    /// Of these: taken back.
    pub returned_before: u64,
    /// Connections cut by the deaths of earlier processes.
    pub lost_connections: u64,
    /// Messages cut by the deaths of earlier processes.
    pub lost_messages: u64,
    /// [`RetireReason`].
    pub retire_reason: u64,
    /// BOOTTIME ns since when it retires; 0 when it does not.
    pub retiring_since_ns: u64,
    /// How the last process of the slot ended: [`encode_end`]; 0 when none has.
    pub last_end: u64,
    /// Processes of the slot that did not end as they should.
    pub crashes: u64,
    /// Virtual size of the process in bytes, sampled.
    pub vsz_bytes: u64,
    /// Resident size of the process in bytes, sampled.
    pub rss_bytes: u64,
    /// Generation of configuration and policy that it runs.
    pub generation: u64,
    /// Most connections that the process carried at once.
    pub peak_requests: u64,
    /// What earlier processes of the slot counted.
    pub base: Counters,
    /// Which copy of the earlier processes' histograms counts: its lowest bit.
    pub histogram_copy: u64,
    /// Answers of earlier processes that came after the MTA had given up.
    pub late_answers: u64,
    /// For later fields.
    pub reserved: [u64; 18],
}

/// Published by the child in a slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ChildRecord {
    /// The incarnation that writes: must equal the master's to count.
    pub incarnation: u64,
    /// What it counted.
    pub counters: Counters,
    /// Interpreters that exist now.
    pub interpreters: u64,
    /// Interpreters made so far: the sequence number of the youngest.
    pub interpreter_sequence: u64,
    /// Connections taken that wait for an interpreter.
    pub queue: u64,
    /// [`Phase`] of the work in hand.
    pub phase: u64,
    /// BOOTTIME ns since when.
    pub phase_since_ns: u64,
    /// Connections picked up so far.
    pub connections_taken: u64,
    /// 1 + [`Verdict`] of the last processed message; 0 before the first.
    pub last_verdict: u64,
    /// BOOTTIME ns of this publication.
    pub published_ns: u64,
    /// Queue id of the work in hand: length and up to 64 bytes.
    pub queue_id: [u64; 9],
    /// What it is about, for people: length and up to 128 bytes.
    pub doing: [u64; 17],
    /// Answers that came after the MTA had given up (`mta_timeouts`).
    pub late_answers: u64,
    /// Callbacks that wait (`milter.sleep`).
    pub suspended: u64,
    /// For later fields.
    pub reserved: [u64; 3],
}

/// One death, kept after everything else is gone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Death {
    /// Number of the entry, from 1; stored last.
    pub number: u64,
    /// BOOTTIME ns when it was noticed.
    pub at_ns: u64,
    /// Slot.
    pub slot: u64,
    /// Pid.
    pub pid: u64,
    /// [`encode_end`].
    pub end: u64,
    /// [`Phase`] of the work in hand.
    pub phase: u64,
    /// BOOTTIME ns since when it was in that phase.
    pub phase_since_ns: u64,
    /// BOOTTIME ns of its fork.
    pub forked_at_ns: u64,
    /// Connections that it took with it.
    pub lost_connections: u64,
    /// Queue id of the work in hand: length and up to 48 bytes.
    pub queue_id: [u64; 7],
}

/// How a process ended, as one word: exit status + 1, or signal number + 512.
pub fn encode_end(exit: Option<i32>, signal: Option<i32>) -> u64 {
    match (exit, signal) {
        (_, Some(signal)) => 512 + u64::from(signal.unsigned_abs() & 0xff),
        (Some(status), None) => 1 + u64::from(status.unsigned_abs() & 0xff),
        (None, None) => 0,
    }
}

/// The reverse: exit status or signal.
pub fn decode_end(end: u64) -> (Option<u8>, Option<u8>) {
    match end {
        1..=256 => (u8::try_from(end - 1).ok(), None),
        512..=767 => (None, u8::try_from(end - 512).ok()),
        _ => (None, None),
    }
}

/// Enums that stand in a word: unknown numbers are kept as such, since the board may be newer, or hostile.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
            /// A number that this version does not know.
            Unknown(u64),
        }

        impl $name {
            /// Every known one.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// From a board's word.
            pub fn from_word(word: u64) -> $name {
                match word {
                    $($number => $name::$variant,)+
                    other => $name::Unknown(other),
                }
            }

            /// As a board's word.
            pub fn word(self) -> u64 {
                match self {
                    $($name::$variant => $number,)+
                    $name::Unknown(other) => other,
                }
            }

            /// The name in every output.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                    $name::Unknown(_) => "unknown",
                }
            }
        }
    };
}

pub(crate) use words;

words! {
    /// What the master says that the milter does.
    MilterState {
        /// Not yet ready to take mail.
        Starting = 1 "starting",
        /// Takes connections.
        Running = 2 "running",
        /// Being stopped: finishes what it has.
        Retiring = 3 "retiring",
        /// Ended as it should.
        Stopped = 4 "stopped",
    }
}

words! {
    /// Why no connection is accepted.
    NotAccepting {
        /// Connections are accepted.
        Accepting = 0 "accepting",
        /// Every child is full.
        Full = 1 "full",
        /// `concurrency_limit` is reached.
        Limit = 2 "limit",
        /// The milter is being stopped.
        Stopping = 3 "stopping",
        /// Descriptors or memory are short.
        Resources = 4 "resources",
        /// No child is ready yet.
        NoChild = 5 "no_child",
    }
}

words! {
    /// What is in a slot.
    SlotState {
        /// Never used.
        Free = 0 "free",
        /// A process that is not ready yet.
        Starting = 1 "starting",
        /// A process that takes connections.
        Live = 2 "live",
        /// A process that is about to go away.
        Retiring = 3 "retiring",
        /// No process now.
        Empty = 4 "empty",
    }
}

words! {
    /// Why a child retires.
    RetireReason {
        /// It does not.
        None = 0 "none",
        /// `pooled_proc_idle_limit`.
        Idle = 1 "idle",
        /// `pooled_proc_connect_limit`.
        Connections = 2 "connections",
        /// `pooled_proc_message_limit`.
        Messages = 3 "messages",
        /// `pooled_proc_age_limit`.
        Age = 4 "age",
        /// `pooled_proc_rss_limit`.
        Rss = 5 "rss",
        /// The milter stops.
        Stop = 6 "stop",
        /// A new generation takes over.
        Restart = 7 "restart",
        /// It left a connection unread.
        Unresponsive = 8 "unresponsive",
    }
}

words! {
    /// What a processed message came to.
    Verdict {
        /// Taken.
        Accept = 0 "accept",
        /// Refused for good (5xx).
        Reject = 1 "reject",
        /// Refused for now (4xx).
        Tempfail = 2 "tempfail",
        /// Taken and thrown away.
        Discard = 3 "discard",
        /// Taken and held.
        Quarantine = 4 "quarantine",
        /// The policy failed: refused for now.
        Error = 5 "error",
    }
}

words! {
    /// What a session came to at connect or helo.
    SessionVerdict {
        /// No more filtering for this client.
        Accept = 0 "accept",
        /// Refused for good.
        Reject = 1 "reject",
        /// Refused for now.
        Tempfail = 2 "tempfail",
        /// The policy failed: refused for now.
        Error = 3 "error",
    }
}

words! {
    /// Where the work in hand is.
    Phase {
        /// Nothing in hand.
        Idle = 0 "idle",
        /// connect and helo
        Connect = 1 "connect",
        /// MAIL
        Mail = 2 "mail",
        /// RCPT
        Rcpt = 3 "rcpt",
        /// DATA
        Data = 4 "data",
        /// Headers and their end.
        Header = 5 "header",
        /// Body
        Body = 6 "body",
        /// End of message.
        Eom = 7 "eom",
    }
}

/// Writes a text into its words: length first, cut to what fits.
pub fn put_text(words: &mut [u64], text: &[u8]) {
    let Some((length, body)) = words.split_first_mut() else {
        return;
    };
    let room: &mut [u8] = bytemuck::cast_slice_mut(body);
    let taken = text.len().min(room.len());
    room[..taken].copy_from_slice(&text[..taken]);
    room[taken..].fill(0);
    *length = taken as u64;
}

/// The bytes of a text; a length that cannot be is cut to what is there.
pub fn text(words: &[u64]) -> &[u8] {
    let Some((length, body)) = words.split_first() else {
        return &[];
    };
    let bytes: &[u8] = bytemuck::cast_slice(body);
    let length = usize::try_from(*length).unwrap_or(usize::MAX);
    &bytes[..length.min(bytes.len())]
}

// The layout is an ABI: these fail to compile when a field moves a record's size.
const _: () = assert!(size_of::<GlobalRecord>() == GLOBAL_WORDS * 8);
const _: () = assert!(size_of::<MasterRecord>() == SLOT_WORDS * 8);
const _: () = assert!(size_of::<ChildRecord>() == SLOT_WORDS * 8);
const _: () = assert!(size_of::<Death>() == DEATH_WORDS * 8);
const _: () = assert!(size_of::<Counters>() == 56 * 8);
