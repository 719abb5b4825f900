//! Numbers, durations, deaths and events as they stand in narrow columns. All text that comes from a board goes through
//! [`scoreboard::shown`]: nothing in it can drive the terminal.
#![forbid(unsafe_code)]

use std::time::Duration;

use scoreboard::{Death, Event, EventKind, NotAccepting, Phase, RetireReason, Snapshot, shown};

use crate::control::status::words::ended;

/// What is not known.
pub(super) const UNKNOWN: &str = "-";

/// A count in at most seven columns.
pub(super) fn count(number: u64) -> String {
    if number < 10_000_000 {
        return number.to_string();
    }
    let mut scaled = number as f64;
    for unit in ["k", "M", "G", "T", "P"] {
        scaled /= 1000.0;
        if scaled < 10_000.0 {
            return format!("{scaled:.0}{unit}");
        }
    }
    format!("{:.0}E", scaled / 1000.0)
}

/// A rate in at most seven columns.
pub(super) fn rate(number: f64) -> String {
    if number < 99.95 {
        format!("{number:.1}")
    } else {
        count(number.round() as u64)
    }
}

/// A duration in at most six columns: `0.5s`, `45s`, `12m`, `3h2m`, `12d`.
pub(super) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", duration.as_secs_f64()),
        10..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d", (seconds / 86_400).min(99_999)),
    }
}

/// The same of something that may not be known.
pub(super) fn short_or_unknown(duration: Option<Duration>) -> String {
    duration.map_or_else(|| UNKNOWN.to_owned(), short)
}

/// A time of reckoning in at most six columns, from microseconds on.
pub(super) fn latency(ns: u64) -> String {
    let us = ns as f64 / 1e3;
    if us < 1000.0 {
        format!("{us:.0}us")
    } else if us < 10_000.0 {
        format!("{:.1}ms", us / 1e3)
    } else if us < 1e6 {
        format!("{:.0}ms", us / 1e3)
    } else {
        short(Duration::from_nanos(ns))
    }
}

/// MiB with one decimal while it is narrow.
pub(super) fn mib(bytes: u64) -> String {
    let mib = bytes as f64 / 1_048_576.0;
    if mib < 999.95 {
        format!("{mib:.1}")
    } else {
        count(mib.round() as u64)
    }
}

/// A line about a death: how long ago, which slot, how, at what.
pub(super) fn death(board: &Snapshot, death: &Death) -> String {
    let mut line = format!(
        "{:>6} slot {} {}",
        short_or_unknown(board.age(death.at_ns)),
        death.slot,
        ended(death.end)
    );
    match Phase::from_word(death.phase) {
        Phase::Idle => {}
        phase => {
            line += " in ";
            line += phase.name();
        }
    }
    let queue_id = shown(&death.queue_id);
    if !queue_id.is_empty() {
        line += " ";
        line += &queue_id;
    }
    if death.lost_connections > 0 {
        line += &format!(", lost {}", death.lost_connections);
    }
    line
}

/// A line about an event.
pub(super) fn event(board: &Snapshot, event: &Event) -> String {
    let age = short_or_unknown(board.age(event.at_ns));
    let slot = if event.slot == u64::MAX {
        String::new()
    } else {
        format!("slot {} ", event.slot)
    };
    let value = event.value;
    let lasted = || short(Duration::from_nanos(value));
    let what = match EventKind::from_word(event.kind) {
        EventKind::Start => "takes mail".to_owned(),
        EventKind::Stop => "asked to stop".to_owned(),
        EventKind::Fork => format!("new process {value}, pid {}", event.pid),
        EventKind::Ready => "ready".to_owned(),
        EventKind::Retire => format!("retires: {}", RetireReason::from_word(value).name()),
        EventKind::Death => ended(value),
        EventKind::Full => format!("no room: {}", NotAccepting::from_word(value).name()),
        EventKind::Room => format!("room again after {}", lasted()),
        EventKind::Backoff => format!("no fork for {}", lasted()),
        EventKind::Restart => format!("restart: generation {value}"),
        EventKind::Resources => "descriptors or memory short".to_owned(),
        EventKind::Abort => format!("stop cuts {value} connections"),
        EventKind::Unknown(kind) => format!("event {kind}"),
    };
    format!("{age:>6} {slot}{what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_fits_its_column_and_reads_as_people_say_it() {
        for (number, text) in [
            (0, "0"),
            (9_999_999, "9999999"),
            (12_345_678, "12346k"),
            (u64::MAX, "18447P"),
        ] {
            assert!(count(number).len() <= 7, "{}", count(number));
            if text.len() <= 7 && number < 10_000_000 {
                assert_eq!(count(number), text);
            }
        }
        assert_eq!(rate(0.04), "0.0");
        assert_eq!(rate(99.94), "99.9");
        assert_eq!(rate(123.4), "123");
        for (seconds, text) in [
            (0.5, "0.5s"),
            (45.0, "45s"),
            (119.9, "119s"),
            (750.0, "12m"),
            (10_930.0, "3h2m"),
            (1e6, "11d"),
        ] {
            assert_eq!(short(Duration::from_secs_f64(seconds)), text);
        }
        assert!(short(Duration::MAX).len() <= 6);
        for (ns, text) in [
            (64_000, "64us"),
            (1_024_000, "1.0ms"),
            (16_384_000, "16ms"),
            (2_097_152_000, "2.1s"),
        ] {
            assert_eq!(latency(ns), text);
        }
        assert_eq!(mib(46_137_344), "44.0");
    }
}
