//! The families of a milter. Names are promises: they are only added, and the manual lists them.
//!
//! Labels have few values: never a queue id, a pid or an address. The sum over a family makes sense, hence capacity and use are apart.
#![forbid(unsafe_code)]

use scoreboard::histogram::{message_bounds_ns, phase_bounds_ns};
use scoreboard::records::BUSY_BUCKETS;
use scoreboard::{Phase, SessionVerdict, Verdict, shown};

use super::family::{
    Facts, Family, Histogram, Kind, Known, Point, Source, Value, each, if_known, one, one_ns, point,
};
use crate::control::StatusExit;
use crate::control::status::view::{self, State};

pub(super) const FAMILIES: &[Family] = &[
    Family::new(
        "pmx_build",
        Kind::Info,
        "The program that prints this.",
        Source::Program(|| labelled(&[("version", env!("CARGO_PKG_VERSION").to_owned())])),
    ),
    Family::new(
        "pmx_up",
        Kind::Gauge,
        "Whether the milter has a living master; a hung or suspended one is up, see pmx_state.",
        Source::Milter(up),
    ),
    Family::new(
        "pmx_state",
        Kind::StateSet,
        "What the milter does.",
        Source::Milter(states),
    ),
    Family::new(
        "pmx_milter",
        Kind::Info,
        "Version of the program that the milter runs, and its port.",
        Source::Board(about),
    ),
    Family::gauge(
        "pmx_start_time_seconds",
        "When the scoreboard was made, since 1970; counters began then.",
        |it| one_ns(it.board.header.created_wall_ns),
    ),
    Family::gauge(
        "pmx_heartbeat_timestamp_seconds",
        "When the master last gave a sign of life, since 1970.",
        heartbeat,
    ),
    Family::gauge(
        "pmx_generation",
        "Generation of configuration and policy, from 1.",
        |it| one(it.board.global.generation),
    ),
    Family::counter("pmx_connections", "Connections accepted.", |it| {
        one(it.board.global.accepted)
    }),
    Family::gauge(
        "pmx_connections_in_progress",
        "Connections in progress.",
        |it| one(it.board.requests()),
    ),
    Family::gauge(
        "pmx_connections_max",
        "Connections that the pool has room for; absent without a bound.",
        |it| if_known(view::capacity(it.board)),
    ),
    Family::counter(
        "pmx_connections_rejected",
        "Accepted connections that were closed without reaching a child.",
        |it| one(it.board.global.rejected),
    ),
    Family::counter(
        "pmx_connections_lost",
        "Connections cut by deaths of children.",
        |it| one(it.board.lost_connections()),
    ),
    Family::gauge(
        "pmx_connections_waiting",
        "Accepted connections on their way to a child or waiting for an interpreter.",
        |it| one(view::waiting(it.board)),
    ),
    Family::gauge(
        "pmx_backlog_connections",
        "Connections in the kernel's queue of the port; absent when the kernel does not tell.",
        |it| if_known(view::backlog(it.board)),
    ),
    Family::counter(
        "pmx_messages",
        "Messages processed, each under one verdict.",
        |it| {
            each(
                "verdict",
                words(Verdict::ALL, Verdict::name, &it.counters.verdicts),
            )
        },
    ),
    Family::counter("pmx_messages_started", "Messages begun.", |it| {
        one(it.counters.messages_started)
    }),
    Family::counter(
        "pmx_messages_aborted",
        "Messages that ended without a final reply.",
        |it| one(it.counters.messages_aborted),
    ),
    Family::counter(
        "pmx_messages_lost",
        "Messages cut by deaths of children.",
        |it| one(it.board.lost_messages()),
    ),
    Family::gauge("pmx_messages_in_progress", "Messages in progress.", |it| {
        one(it.board.in_progress())
    }),
    Family::counter("pmx_sessions", "Verdicts on connect and HELO.", |it| {
        each(
            "verdict",
            words(
                SessionVerdict::ALL,
                SessionVerdict::name,
                &it.counters.sessions,
            ),
        )
    }),
    Family::counter(
        "pmx_recipients_refused",
        "Recipients that the policy refused.",
        |it| one(it.counters.recipients_refused),
    ),
    Family::counter(
        "pmx_overload_answered",
        "Connections answered without the policy, for the milter was full.",
        |it| one(it.counters.overload_answered),
    ),
    Family::counter(
        "pmx_late_answers",
        "Answers that came after the MTA had given up.",
        |it| one(it.board.late_answers()),
    ),
    Family::gauge("pmx_processes", "Children now.", |it| {
        one(it.board.global.slots_in_use)
    }),
    Family::gauge(
        "pmx_processes_max",
        "Most children that can exist, retiring ones included.",
        |it| one(it.board.global.slots_max),
    ),
    Family::counter("pmx_processes_forked", "Children forked.", |it| {
        one(it.board.global.forks)
    }),
    Family::counter(
        "pmx_process_deaths",
        "Children that ended, by cause: clean, error (another exit status), signal.",
        |it| {
            let global = &it.board.global;
            let causes = [
                ("clean", global.deaths_clean),
                ("error", global.deaths_error),
                ("signal", global.deaths_signal),
            ];
            each("cause", causes.map(|(cause, n)| (cause, Value::Count(n))))
        },
    ),
    Family::gauge(
        "pmx_orphans",
        "Children without a master that finish their connections.",
        |it| one(it.view.orphans),
    ),
    Family::gauge(
        "pmx_slots_busy",
        "Slots with a connection in progress.",
        |it| one(it.board.busy()),
    ),
    Family::gauge(
        "pmx_slots_retiring",
        "Slots whose child is retiring.",
        |it| one(it.board.retiring()),
    ),
    Family::gauge("pmx_slots_high_water", "Slots ever used.", |it| {
        one(it.board.global.slots_high_water)
    }),
    Family::gauge("pmx_interpreters", "Interpreters that exist.", |it| {
        let children = it.board.slots.iter().filter_map(|slot| slot.child.as_ref());
        one(children.fold(0, |sum, child| sum.saturating_add(child.interpreters)))
    }),
    Family::counter(
        "pmx_capacity_seconds",
        "Time during which no child had room.",
        |it| one_ns(it.board.capacity_ns()),
    ),
    Family::counter("pmx_capacity_episodes", "How often that began.", |it| {
        one(it.board.global.capacity_episodes)
    }),
    Family::counter(
        "pmx_busy_slots_seconds",
        "Time with so many slots busy: more than the label before, up to this one.",
        busy_time,
    ),
    Family::histogram(
        "pmx_message_duration_seconds",
        "Processed messages, from their first packet to the final reply.",
        |it| {
            point(Value::Histogram(Histogram {
                buckets: it.counters.message_histogram.to_vec(),
                bounds_ns: message_bounds_ns().collect(),
                sum_ns: it.counters.message_ns,
            }))
        },
    ),
    Family::histogram("pmx_phase_duration_seconds", "Callbacks, by phase.", phases),
    Family::gauge(
        "pmx_books_balanced",
        "Whether every connection and message is accounted for.",
        |it| one(u64::from(it.board.books().is_balanced())),
    ),
    Family::gauge(
        "pmx_crash_loop",
        "Children that died young in a row; 0 when all is well.",
        |it| one(it.board.global.crash_loop),
    ),
];

fn labelled(labels: &[(&'static str, String)]) -> Vec<Point> {
    vec![Point {
        labels: labels.to_vec(),
        value: Value::Count(1),
    }]
}

fn up(milter: &Facts<'_>) -> Vec<Point> {
    one(u64::from(milter.view.state.exit() == StatusExit::Running))
}

fn states(it: &Facts<'_>) -> Vec<Point> {
    let is = |state: State| Value::Count(u64::from(state == it.view.state));
    each(
        "state",
        State::ALL.iter().map(|state| (state.word(), is(*state))),
    )
}

fn about(it: &Known<'_>) -> Vec<Point> {
    labelled(&[
        ("version", shown(&it.board.global.version)),
        ("port", it.view.port().unwrap_or_default()),
    ])
}

fn heartbeat(it: &Known<'_>) -> Vec<Point> {
    let Some(age) = it.view.heartbeat_age() else {
        return Vec::new();
    };
    let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
    one_ns(it.board.wall_ns.saturating_sub(age))
}

fn words<T: Copy>(
    all: &'static [T],
    name: fn(T) -> &'static str,
    counts: &[u64],
) -> Vec<(&'static str, Value)> {
    let values = all.iter().zip(counts);
    values
        .map(|(word, count)| (name(*word), Value::Count(*count)))
        .collect()
}

/// 0, 1, 2, 4 and so on to 512, and more.
fn busy_time(it: &Known<'_>) -> Vec<Point> {
    let bound = |bucket: usize| match bucket {
        0 => "0".to_owned(),
        last if last == BUSY_BUCKETS - 1 => "+Inf".to_owned(),
        other => (1_u64 << (other - 1)).to_string(),
    };
    let times = it.board.global.busy_ns.iter().enumerate();
    each(
        "busy",
        times.map(|(bucket, ns)| (bound(bucket), Value::Nanoseconds(*ns))),
    )
}

/// A histogram for each phase with work in hand; none of a board that has none.
fn phases(it: &Known<'_>) -> Vec<Point> {
    let Some(histograms) = &it.phases else {
        return Vec::new();
    };
    let rows = Phase::ALL.iter().filter_map(|phase| {
        let buckets = histograms.of(*phase);
        let sum_ns = usize::try_from(phase.word())
            .ok()
            .and_then(|row| it.counters.phase_ns.get(row).copied())?;
        let histogram = Histogram {
            buckets: buckets.to_vec(),
            bounds_ns: phase_bounds_ns().collect(),
            sum_ns,
        };
        (!buckets.is_empty()).then(|| (phase.name(), Value::Histogram(histogram)))
    });
    each("phase", rows)
}
