//! Numbers of a board in words: durations, bounds, how a process ended, why it retires.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::time::Duration;

use nix::sys::signal::Signal;
use scoreboard::{NotAccepting, RetireReason, decode_end};

use crate::control::terminal;

/// `-` for what is not known.
pub(super) fn known<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// `3.1s` below 100 seconds, then `4m30s`.
pub(super) fn time(duration: Duration) -> String {
    // 99.95 would be rounded to 100.0.
    if duration < Duration::from_millis(99_950) {
        format!("{:.1}s", duration.as_secs_f64())
    } else {
        terminal::duration(duration.as_secs())
    }
}

/// A limit as the operator wrote it: `10s`, `5m`, and `0.5s`.
pub(super) fn limit(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        terminal::duration(duration.as_secs())
    } else {
        time(duration)
    }
}

/// `2.0s of 10s left`, `late by 3.1s`
pub(super) fn deadline(left: f64, of: Duration) -> String {
    let distance = Duration::try_from_secs_f64(left.abs()).unwrap_or(Duration::MAX);
    if left < 0.0 {
        format!("late by {}", time(distance))
    } else {
        format!("{} of {} left", time(distance), limit(of))
    }
}

/// The bound of a bucket in three digits: `64us`, `1.02ms`, `16.8s`.
fn bound(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000_000 => (ns as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let digits = match value {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = match text.split_once('.') {
        Some(_) => text.trim_end_matches('0').trim_end_matches('.'),
        None => &text,
    };
    format!("{text}{unit}")
}

/// A quantile: `p50 <= 64us`; above the last bound `p99 > 16.8s`; `p50 -` when nothing was counted.
pub(super) fn quantile<I: Iterator<Item = u64>>(
    name: &str,
    buckets: &[u64],
    bounds: fn() -> I,
    which: f64,
) -> String {
    if buckets.iter().all(|count| *count == 0) {
        return format!("{name} -");
    }
    match scoreboard::histogram::quantile_ns(buckets, bounds(), which) {
        Some(ns) => format!("{name} <= {}", bound(ns)),
        None => format!("{name} > {}", bound(bounds().last().unwrap_or(0))),
    }
}

/// `signal 9 (KILL)`
pub(super) fn signal(number: u64) -> String {
    let known = i32::try_from(number)
        .ok()
        .and_then(|number| Signal::try_from(number).ok());
    match known {
        Some(signal) => format!(
            "signal {number} ({})",
            signal.as_str().trim_start_matches("SIG")
        ),
        None => format!("signal {number}"),
    }
}

/// How a process ended: `exit 3`, `signal 9 (KILL)`.
pub(in crate::control) fn ended(end: u64) -> String {
    match decode_end(end) {
        (Some(status), _) => format!("exit {status}"),
        (None, Some(number)) => signal(u64::from(number)),
        (None, None) => "unknown end".to_owned(),
    }
}

/// Why a child retires.
pub(super) fn retire_reason(word: u64) -> &'static str {
    match RetireReason::from_word(word) {
        RetireReason::None => "no reason given",
        RetireReason::Idle => "idle (pooled_proc_idle_limit)",
        RetireReason::Connections => "connections (pooled_proc_connect_limit)",
        RetireReason::Messages => "messages (pooled_proc_message_limit)",
        RetireReason::Age => "age (pooled_proc_age_limit)",
        RetireReason::Rss => "memory (pooled_proc_rss_limit)",
        RetireReason::Stop => "the milter stops",
        RetireReason::Restart => "a new generation takes over",
        RetireReason::Unresponsive => "it left a connection unread",
        RetireReason::Unknown(_) => "a reason that this program does not know",
    }
}

/// Why no connection is accepted.
pub(super) fn not_accepting(word: u64) -> &'static str {
    match NotAccepting::from_word(word) {
        NotAccepting::Accepting => "connections are accepted",
        NotAccepting::Full => "every child is full",
        NotAccepting::Limit => "concurrency_limit is reached",
        NotAccepting::Stopping => "the milter is being stopped",
        NotAccepting::Resources => "descriptors or memory are short",
        NotAccepting::NoChild => "no child is ready",
        NotAccepting::Unknown(_) => "a reason that this program does not know",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scoreboard::encode_end;
    use scoreboard::histogram::{message_bounds_ns, phase_bounds_ns};

    #[test]
    fn bounds_of_buckets_have_three_digits() {
        let phases: Vec<String> = phase_bounds_ns().map(bound).collect();
        let words = "16us 64us 256us 1.02ms 4.1ms 16.4ms 65.5ms 262ms 1.05s 4.19s 16.8s 67.1s 268s 1074s 4295s";
        assert_eq!(phases.join(" "), words);
    }

    #[test]
    fn a_quantile_is_a_bound_or_lies_above_the_last_one() {
        let of = |buckets: &[u64]| quantile("p50", buckets, message_bounds_ns, 0.5);
        assert_eq!(of(&[0; 32]), "p50 -");
        assert_eq!(of(&[0, 3]), "p50 <= 128us");
        let mut last = [0; 32];
        last[31] = 1;
        assert_eq!(of(&last), "p50 > 68719s");
    }

    #[test]
    fn the_mtas_patience_reads_as_people_say_it() {
        let ten = Duration::from_secs(10);
        assert_eq!(deadline(2.04, ten), "2.0s of 10s left");
        assert_eq!(deadline(-3.1, ten), "late by 3.1s");
        assert_eq!(
            deadline(270.0, Duration::from_secs(300)),
            "4m30s of 5m left"
        );
        assert_eq!(
            deadline(0.1, Duration::from_millis(500)),
            "0.1s of 0.5s left"
        );
        assert_eq!(time(Duration::from_millis(99_960)), "1m39s");
        // Whatever a board says, it is no panic.
        assert!(deadline(f64::MAX, ten).ends_with("of 10s left"));
    }

    #[test]
    fn ends_name_their_signal() {
        assert_eq!(ended(encode_end(None, Some(9))), "signal 9 (KILL)");
        assert_eq!(ended(encode_end(None, Some(99))), "signal 99");
        assert_eq!(ended(encode_end(Some(3), None)), "exit 3");
        assert_eq!(ended(u64::MAX), "unknown end");
    }
}
