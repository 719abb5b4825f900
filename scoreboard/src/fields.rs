//! The table of every field on the board: what `schema` puts into the file and `FORMAT.md` tells people.
//!
//! A new field gets its row here, or the test of `schema` fails. Words and widths come from the structs themselves.
#![forbid(unsafe_code)]

use std::mem::offset_of;

#[cfg(test)]
use crate::histogram::PHASE_WORDS;
use crate::histogram::{self, PHASE_BUCKETS};
use crate::history::{Event, EventKind, Second};
use crate::layout::Header;
use crate::records::{
    ChildRecord, Counters, Death, GlobalRecord, MasterRecord, MilterState, NotAccepting, Phase,
    RetireReason, SessionVerdict, SlotState, Verdict,
};
use crate::schema::{Area, Field, Kind};

/// A row as the tables hold it.
struct Row {
    name: &'static str,
    word: usize,
    words: usize,
    kind: Kind,
    unit: &'static str,
    labels: fn() -> Vec<String>,
    help: &'static str,
}

/// Words of a field, from the function that borrows it.
const fn width<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>() / 8
}

fn no_labels() -> Vec<String> {
    Vec::new()
}

macro_rules! rows {
    ($name:ident of $record:ty { $($field:ident: $kind:expr, $unit:literal $(, labels $labels:expr)?; $help:literal)+ }) => {
        const $name: &[Row] = &[$(Row {
            name: stringify!($field),
            word: offset_of!($record, $field) / 8,
            words: width(|record: &$record| &record.$field),
            kind: $kind,
            unit: $unit,
            labels: rows!(@labels $($labels)?),
            help: $help,
        }),+];
    };
    (@labels) => { no_labels };
    (@labels $labels:expr) => { $labels };
}

macro_rules! values {
    ($($function:ident of $enum:ident)+) => {
        $(fn $function() -> Vec<(u64, &'static str)> {
            $enum::ALL.iter().map(|value| (value.word(), value.name())).collect()
        })+
    };
}

values! {
    milter_states of MilterState
    not_accepting of NotAccepting
    slot_states of SlotState
    retire_reasons of RetireReason
    verdicts of Verdict
    session_verdicts of SessionVerdict
    phases of Phase
    event_kinds of EventKind
}

/// The names alone: labels of an array with a word for each value.
fn names(values: &[(u64, &'static str)]) -> Vec<String> {
    values.iter().map(|(_, name)| (*name).to_owned()).collect()
}

fn last_verdicts() -> Vec<(u64, &'static str)> {
    std::iter::once((0, "none"))
        .chain(
            verdicts()
                .into_iter()
                .map(|(number, name)| (number + 1, name)),
        )
        .collect()
}

fn reload_results() -> Vec<(u64, &'static str)> {
    vec![(0, "none"), (1, "done"), (2, "refused")]
}

fn yes_no() -> Vec<(u64, &'static str)> {
    vec![(0, "no"), (1, "yes")]
}

/// Upper bounds of the buckets in seconds, as Prometheus writes them: 64 microseconds × 2^n.
fn bucket_bounds() -> Vec<String> {
    histogram::message_bounds_ns()
        .map(|ns| format!("{}", ns as f64 / 1e9))
        .chain(std::iter::once("+Inf".to_owned()))
        .collect()
}

/// Upper bounds of the words of `busy_ns`.
fn busy_bounds() -> Vec<String> {
    std::iter::once("0".to_owned())
        .chain((0..10).map(|n| (1_u64 << n).to_string()))
        .chain(std::iter::once("+Inf".to_owned()))
        .collect()
}

use Kind::{Counter, Enum, Flags, Gauge, Plain, Text};

rows! { HEADER of Header {
    magic: Plain, ""; "the bytes 89 50 4D 58 53 42 0D 0A"
    abi: Plain, ""; "major << 32 + minor"
    endian: Plain, ""; "0x0102030405060708 as the writer sees it"
    header_len: Plain, "bytes"; "length of this header"
    file_size: Plain, "bytes"; "size of the file; must equal what fstat says"
    page_size: Plain, "bytes"; "size of a page on the writer's machine"
    m_off: Plain, "bytes"; "offset of the first master record"
    m_stride: Plain, "bytes"; "from one master record to the next"
    m_copy_len: Plain, "bytes"; "length of one copy of a master record"
    c_off: Plain, "bytes"; "offset of the first child page"
    c_stride: Plain, "bytes"; "from one child page to the next"
    c_copy_len: Plain, "bytes"; "length of one copy of a child record"
    nslots: Plain, ""; "slots that the file has room for"
    schema_off: Plain, "bytes"; "offset of this schema"
    schema_len: Plain, "bytes"; "length of this schema"
    instance: Plain, ""; "random; never subtract counters of different instances"
    boot: Plain, ""; "boot id, high word first; 0 when unknown"
    master_pid: Plain, ""; "pid of the master"
    master_start: Plain, "ticks"; "start time of the master since boot, field 22 of proc stat; 0 when unknown"
    pid_namespace: Plain, ""; "inode of the master's pid namespace; 0 when unknown"
    created_wall_ns: Plain, "ns"; "CLOCK_REALTIME of the creation"
    created_boot_ns: Plain, "ns"; "CLOCK_BOOTTIME of the same instant"
    previous_instance: Plain, ""; "instance that this one follows; 0 when none"
    ready: Plain, ""; "1, stored after everything else"
    seconds_off: Plain, "bytes"; "offset of the ring of seconds; 0 when there is none (1.0)"
    seconds_stride: Plain, "bytes"; "from one second to the next"
    seconds_count: Plain, ""; "seconds that are kept"
    events_off: Plain, "bytes"; "offset of the ring of events; 0 when there is none (1.0)"
    events_stride: Plain, "bytes"; "from one event to the next"
    events_count: Plain, ""; "events that are kept"
    m_hist_off: Plain, "bytes"; "from a master record to the two copies of its histograms; 0 when there are none (1.0)"
    c_hist_off: Plain, "bytes"; "from a child page to its histograms; 0 when there are none (1.0)"
    hist_phases: Plain, ""; "phases with a histogram"
    hist_buckets: Plain, ""; "buckets of each"
} }

rows! { GLOBAL of GlobalRecord {
    state: Enum(milter_states), ""; "what the master says that the milter does"
    generation: Gauge, ""; "generation of configuration and policy, from 1"
    heartbeat_ns: Plain, "ns"; "CLOCK_BOOTTIME of the master's last turn, at least one a second"
    accepting: Enum(yes_no), ""; "whether connections are accepted"
    not_accepting: Enum(not_accepting), ""; "why they are not"
    accepted: Counter, "connections"; "accepted by the master"
    rejected: Counter, "connections"; "of these, closed by the master without reaching a child"
    waiting: Gauge, "connections"; "of these, in the master's hands now"
    forks: Counter, "processes"; "children forked"
    deaths_clean: Counter, "processes"; "children that ended as they should"
    deaths_error: Counter, "processes"; "children that ended with another exit status"
    deaths_signal: Counter, "processes"; "children that a signal ended"
    capacity_ns: Counter, "ns"; "time without room in any child, up to the last change"
    capacity_episodes: Counter, ""; "how often that began"
    capacity_since_ns: Plain, "ns"; "CLOCK_BOOTTIME since when no child has room; 0 when one has"
    slots_in_use: Gauge, "slots"; "slots with a process now"
    slots_high_water: Gauge, "slots"; "slots ever used; read these only"
    slots_max: Gauge, "slots"; "most processes that can exist"
    flags: Flags, ""; "bit 0: no pool, one process serves all"
    interpreters_max: Gauge, "interpreters"; "most in one process"
    connections_max: Gauge, "connections"; "most at once in one process; 0 without a bound"
    last_slot: Plain, ""; "slot that last took a connection, or 2^64 - 1"
    reload_at_ns: Plain, "ns"; "CLOCK_BOOTTIME of the last restart asked for; 0 when none"
    reload_result: Enum(reload_results), ""; "what became of it"
    late_wakeups: Counter, ""; "wake-ups that only the timer noticed; stays 0"
    children_max: Gauge, "processes"; "max_pooled_procs"
    children_min: Gauge, "processes"; "min_pooled_procs"
    stop_since_ns: Plain, "ns"; "CLOCK_BOOTTIME when a stop was asked for; 0 when none"
    stop_deadline_ns: Plain, "ns"; "CLOCK_BOOTTIME when that stop cuts what is left"
    command_timeout_ns: Plain, "ns"; "how long the MTA waits for an answer to a command"
    content_timeout_ns: Plain, "ns"; "how long it waits during the content"
    overload_passed: Counter, "connections"; "passed on for an overload answer"
    peak_requests: Gauge, "connections"; "most in progress at once"
    children_old: Gauge, "processes"; "children of an older generation that still serve"
    backoff_until_ns: Plain, "ns"; "CLOCK_BOOTTIME until which no child is forked; 0 when forking is free"
    crash_loop: Gauge, "processes"; "children that died young in a row"
    port: Text, ""; "the port as the operator wrote it"
    version: Text, ""; "version of the program"
    trouble: Text, ""; "the last thing that went wrong"
    trouble_at_ns: Plain, "ns"; "CLOCK_BOOTTIME of that"
    busy_ns: Counter, "ns", labels busy_bounds; "time with so many slots busy, at most the label and more than the one before"
    backlog: Gauge, "connections"; "in the kernel's queue of the port, sampled; 2^64 - 1 when it does not tell"
    redacted: Enum(yes_no), ""; "whether addresses are hidden"
    concurrency_limit: Gauge, "connections"; "most of the milter at once; 0 without a bound"
} }

rows! { MASTER of MasterRecord {
    state: Enum(slot_states), ""; "what is in the slot"
    incarnation: Plain, ""; "number of the process in the slot; the child's record counts only if it names the same"
    pid: Plain, ""; "its pid; 0 when the slot is empty"
    start_time: Plain, "ticks"; "its start time since boot, field 22 of proc stat"
    forked_at_ns: Plain, "ns"; "CLOCK_BOOTTIME of its fork"
    processes: Counter, "processes"; "processes that the slot has had"
    dispatched: Counter, "connections"; "handed to this process"
    returned: Counter, "connections"; "of these, taken back, never picked up"
    dispatched_before: Counter, "connections"; "handed to earlier processes"
    returned_before: Counter, "connections"; "of these, taken back"
    lost_connections: Counter, "connections"; "cut by the deaths of earlier processes"
    lost_messages: Counter, "messages"; "cut by the deaths of earlier processes"
    retire_reason: Enum(retire_reasons), ""; "why the process retires"
    retiring_since_ns: Plain, "ns"; "CLOCK_BOOTTIME since when it retires; 0 when it does not"
    last_end: Plain, ""; "how the last process ended: exit status + 1, or signal + 512; 0 when none has"
    crashes: Counter, "processes"; "processes that did not end as they should"
    vsz_bytes: Gauge, "bytes"; "virtual size of the process, sampled"
    rss_bytes: Gauge, "bytes"; "resident size of the process, sampled"
    generation: Gauge, ""; "generation of configuration and policy that it runs"
    peak_requests: Gauge, "connections"; "most that the process carried at once"
    base: Counter, ""; "what earlier processes counted"
    histogram_copy: Plain, ""; "its lowest bit: which copy of the earlier processes' histograms counts"
    late_answers: Counter, "answers"; "of earlier processes, after the MTA had given up"
} }

rows! { CHILD of ChildRecord {
    incarnation: Plain, ""; "the process that writes"
    counters: Counter, ""; "what it counted"
    interpreters: Gauge, "interpreters"; "that exist now"
    interpreter_sequence: Counter, "interpreters"; "made so far"
    queue: Gauge, "connections"; "taken, waiting for an interpreter"
    phase: Enum(phases), ""; "where the work in hand is"
    phase_since_ns: Plain, "ns"; "CLOCK_BOOTTIME since when"
    connections_taken: Counter, "connections"; "picked up so far"
    last_verdict: Enum(last_verdicts), ""; "of the last processed message"
    published_ns: Plain, "ns"; "CLOCK_BOOTTIME of this publication"
    queue_id: Text, ""; "queue id of the work in hand"
    doing: Text, ""; "what it is about, for people"
    late_answers: Counter, "answers"; "after the MTA had given up"
    suspended: Gauge, "callbacks"; "that wait"
} }

rows! { COUNTERS of Counters {
    connections_completed: Counter, "connections"; "finished, overload answers included"
    messages_started: Counter, "messages"; "begun"
    messages_aborted: Counter, "messages"; "ended without a final reply"
    verdicts: Counter, "messages", labels || names(&verdicts()); "processed, by verdict"
    sessions: Counter, "sessions", labels || names(&session_verdicts()); "verdicts other than continue at connect and helo"
    recipients_refused: Counter, "recipients"; "refused"
    overload_answered: Counter, "connections"; "answered without the policy, as the milter was full"
    phase_ns: Counter, "ns", labels || names(&phases()); "time in callbacks, by phase"
    message_ns: Counter, "ns"; "from first packet to final reply, summed over processed messages"
    message_histogram: Counter, "messages", labels bucket_bounds; "processed, by duration: upper bounds in seconds"
} }

rows! { DEATH of Death {
    number: Plain, ""; "number of the entry, from 1; 0 while it is written"
    at_ns: Plain, "ns"; "CLOCK_BOOTTIME when it was noticed"
    slot: Plain, ""; "slot"
    pid: Plain, ""; "pid"
    end: Plain, ""; "exit status + 1, or signal + 512"
    phase: Enum(phases), ""; "where the work in hand was"
    phase_since_ns: Plain, "ns"; "CLOCK_BOOTTIME since when"
    forked_at_ns: Plain, "ns"; "CLOCK_BOOTTIME of its fork"
    lost_connections: Gauge, "connections"; "that it took with it"
    queue_id: Text, ""; "queue id of the work in hand"
} }

rows! { SECOND of Second {
    number: Plain, ""; "number of the entry, from 1; 0 while it is written"
    at_ns: Plain, "ns"; "CLOCK_BOOTTIME"
    busy: Gauge, "slots"; "with a connection in progress"
    slots_in_use: Gauge, "slots"; "with a process"
    requests: Gauge, "connections"; "in progress"
    waiting: Gauge, "connections"; "in the master's hands or waiting for an interpreter"
    backlog: Gauge, "connections"; "in the kernel's queue of the port; 2^64 - 1 when it does not tell"
    accepted: Counter, "connections"; "accepted"
    verdicts: Counter, "messages", labels || names(&verdicts()); "processed, by verdict"
    aborted: Counter, "messages"; "ended without a final reply"
    lost_connections: Counter, "connections"; "cut by deaths"
} }

rows! { EVENT of Event {
    number: Plain, ""; "number of the entry, from 1; 0 while it is written"
    at_ns: Plain, "ns"; "CLOCK_BOOTTIME"
    kind: Enum(event_kinds), ""; "what happened"
    slot: Plain, ""; "slot, or 2^64 - 1 when it is about the milter"
    pid: Plain, ""; "pid, or 0"
    value: Plain, ""; "start, restart: generation; stop: signal; fork: processes of the slot; retire: retire_reason; death: as end of a death; full: not_accepting; room: ns it lasted; backoff: ns it will; abort: connections in progress"
} }

/// A histogram for each phase, one after the other.
fn phase_histograms() -> Vec<Field> {
    let rows = phases().into_iter().skip(1).enumerate();
    rows.map(|(row, (_, phase))| Field {
        area: Area::Histograms,
        name: phase.to_owned(),
        word: row * PHASE_BUCKETS,
        words: PHASE_BUCKETS,
        kind: Kind::Counter,
        unit: "answers",
        labels: histogram::phase_bounds_ns()
            .map(|ns| format!("{}", ns as f64 / 1e9))
            .chain(std::iter::once("+Inf".to_owned()))
            .collect(),
        help: "by duration: upper bounds in seconds",
    })
    .collect()
}

/// The fields of a record, in order; the counters that stand in it are told one by one.
pub(crate) fn of(area: Area) -> Vec<Field> {
    let rows = match area {
        Area::Header => HEADER,
        Area::Global => GLOBAL,
        Area::Master => MASTER,
        Area::Child => CHILD,
        Area::Death => DEATH,
        Area::Second => SECOND,
        Area::Event => EVENT,
        Area::Histograms => return phase_histograms(),
    };
    let mut fields = Vec::new();
    for row in rows {
        if matches!(row.name, "base" | "counters") {
            let group =
                |part: &Row| field(area, format!("{}.{}", row.name, part.name), row.word, part);
            fields.extend(COUNTERS.iter().map(group));
        } else {
            fields.push(field(area, row.name.to_owned(), 0, row));
        }
    }
    fields
}

fn field(area: Area, name: String, start: usize, row: &Row) -> Field {
    Field {
        area,
        name,
        word: start + row.word,
        words: row.words,
        kind: row.kind,
        unit: row.unit,
        labels: (row.labels)(),
        help: row.help,
    }
}

/// The word at which the reserved ones of a record begin.
#[cfg(test)]
pub(crate) fn reserved(area: Area) -> usize {
    match area {
        Area::Header => offset_of!(Header, reserved) / 8,
        Area::Global => offset_of!(GlobalRecord, reserved) / 8,
        Area::Master => offset_of!(MasterRecord, reserved) / 8,
        Area::Child => offset_of!(ChildRecord, reserved) / 8,
        Area::Death => size_of::<Death>() / 8,
        Area::Second => size_of::<Second>() / 8,
        Area::Event => offset_of!(Event, reserved) / 8,
        Area::Histograms => PHASE_WORDS,
    }
}
