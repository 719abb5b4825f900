//! status for Prometheus: both text forms of a live board, checked by the programs that other people read them with, and against JSON.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::SOON;
use support::command::{Outcome, run};
use support::milter::{Milter, count};
use support::mta::Message;
use support::ports::free_port;
use support::process::signal;

/// The sender chooses the verdict.
const BY_SENDER: &str = include_str!("support/by_sender.lua");

/// Two milters, of which one runs and has seen several verdicts and a death; nothing moves any more.
fn used() -> Milter {
    let milter = Milter::new(BY_SENDER);
    let table = |name: &str, port: &str| {
        format!("[milter.{name}]\nport = \"{port}\"\npolicy = \"policy.lua\"\n")
    };
    let second = format!("inet:{}@127.0.0.1", free_port());
    let both = table("policy", &milter.port_setting()) + &table("other", &second);
    milter.configure_milters(&both);
    milter.pmx(&["start", "policy"]).expect(0);
    let mut session = milter.session();
    for sender in ["accept@x.example", "reject@x.example", "tempfail@x.example"] {
        session.message(&Message::from(sender)).unwrap();
    }
    session.quit().unwrap();
    for pid in milter.children() {
        signal(pid, Signal::SIGKILL);
    }
    milter.wait_json("the dead child is replaced", |it| {
        !it["deaths"].as_array().unwrap().is_empty()
            && it["slots"]
                .as_array()
                .unwrap()
                .iter()
                .all(|slot| slot["state"] == "live")
    });
    milter
}

/// Samples by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let before = all.insert(series.to_owned(), value.parse().unwrap());
        assert!(before.is_none(), "{series} stands twice");
    }
    all
}

#[track_caller]
fn page(milter: &Milter, format: &str, more: &[&str]) -> String {
    let mut arguments = vec!["status", "--format", format];
    arguments.extend(more);
    // One of the two does not run.
    milter.pmx(&arguments).expect(3).out
}

#[test]
fn every_value_is_the_one_in_json() {
    let milter = used();
    let json = milter.json();
    let pages = ["openmetrics", "prometheus"].map(|it| page(&milter, it, &["--per-slot"]));
    for text in pages {
        let all = samples(&text);
        let value = |name: &str, labels: &str| {
            let series = format!("{name}{{milter=\"policy\"{labels}}}");
            *all.get(&series)
                .unwrap_or_else(|| panic!("no {series} in\n{text}"))
        };
        let equals = |name: &str, labels: &str, json: &Value| {
            let (shown, counted) = (value(name, labels), count(json));
            assert_eq!(shown, counted as f64, "{name}{labels}");
        };
        for (label, verdicts) in [
            ("pmx_messages_total", "verdicts"),
            ("pmx_sessions_total", "sessions"),
        ] {
            for (verdict, number) in json[verdicts].as_object().unwrap() {
                equals(label, &format!(",verdict=\"{verdict}\""), number);
            }
        }
        assert_eq!(value("pmx_messages_total", ",verdict=\"reject\""), 1.0);
        let pool = &json["pool"];
        for (name, json) in [
            ("pmx_connections_in_progress", &pool["requests"]),
            ("pmx_connections_lost_total", &json["lost"]["connections"]),
            ("pmx_messages_lost_total", &json["lost"]["messages"]),
            ("pmx_messages_started_total", &json["messages_started"]),
            ("pmx_messages_aborted_total", &json["aborted"]),
            ("pmx_messages_in_progress", &json["messages_in_progress"]),
            ("pmx_recipients_refused_total", &json["recipients_refused"]),
            ("pmx_processes_max", &pool["slots_max"]),
            ("pmx_slots_high_water", &pool["slots_high_water"]),
            ("pmx_slots_retiring", &pool["retiring"]),
            ("pmx_orphans", &json["orphans"]),
        ] {
            equals(name, "", json);
        }
        assert_eq!(value("pmx_process_deaths_total", ",cause=\"signal\""), 1.0);
        assert_eq!(value("pmx_books_balanced", ""), 1.0);
        assert!(value("pmx_start_time_seconds", "") > 1.6e9);
        let slots = json["slots"].as_array().unwrap();
        let connections: f64 = slots
            .iter()
            .map(|slot| {
                let label = format!(",slot=\"{}\"", slot["slot"]);
                equals("pmx_slot_connections_total", &label, &slot["acc"]["slot"]);
                equals("pmx_slot_messages_total", &label, &slot["messages"]);
                equals(
                    "pmx_slot_processes_total",
                    &label,
                    &slot["acc"]["processes"],
                );
                equals("pmx_slot_pid", &label, &slot["pid"]);
                value("pmx_slot_connections_total", &label)
            })
            .sum();
        assert_eq!(value("pmx_connections_total", ""), connections);
        // Of the one that does not run: that it does not run.
        let other = |it: &&String| it.contains("\"other\"") && !it.starts_with("pmx_state{");
        let other: Vec<&String> = all.keys().filter(other).collect();
        assert_eq!(other, ["pmx_up{milter=\"other\"}"]);
        let states = all
            .iter()
            .filter(|(it, value)| it.starts_with("pmx_state{milter=\"other\"") && **value == 1.0);
        let states: Vec<&String> = states.map(|(it, _)| it).collect();
        assert!(
            states.len() == 1 && states[0].ends_with("state=\"not_running\"}"),
            "{states:?}"
        );
        assert_eq!(all["pmx_up{milter=\"other\"}"], 0.0);
        histograms_are_whole(&all);
        equals("pmx_message_duration_seconds_count", "", &pool["messages"]);
        assert!(value("pmx_phase_duration_seconds_count", ",phase=\"eom\"") >= 3.0);
        assert!(value("pmx_message_duration_seconds_sum", "") > 0.0);
    }
    assert!(!page(&milter, "prometheus", &[]).contains("pmx_slot_"));
}

/// Buckets only grow, the last one is the count, and there is a sum.
#[track_caller]
fn histograms_are_whole(all: &BTreeMap<String, f64>) {
    let mut seen = 0;
    for (series, total) in all.iter().filter(|it| it.0.contains("_seconds_count{")) {
        let (name, labels) = series.trim_end_matches('}').split_once("_count{").unwrap();
        let start = format!("{name}_bucket{{{labels},le=\"");
        let mut buckets: Vec<(f64, f64)> = all
            .iter()
            .filter_map(|(series, value)| {
                let bound = series.strip_prefix(&start)?.trim_end_matches("\"}");
                Some((bound.parse().unwrap(), *value))
            })
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(
            buckets.is_sorted_by(|one, other| one.1 <= other.1),
            "{series}"
        );
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, *total)), "{series}");
        assert!(all[&format!("{name}_sum{{{labels}}}")] >= 0.0);
        seen += 1;
    }
    // Messages, and each phase with work in hand.
    assert_eq!(seen, 1 + 7);
}

#[test]
fn the_two_forms_differ_where_their_rules_differ() {
    let milter = used();
    let (open, classic) = (
        page(&milter, "openmetrics", &[]),
        page(&milter, "prometheus", &[]),
    );
    for line in [
        "# TYPE pmx_messages counter",
        "# TYPE pmx_build info",
        "# TYPE pmx_state stateset",
        "# UNIT pmx_message_duration_seconds seconds",
        "pmx_state{milter=\"policy\",pmx_state=\"running\"} 1",
    ] {
        assert!(open.lines().any(|it| it == line), "{line}\n{open}");
        assert!(!classic.lines().any(|it| it == line), "{line}\n{classic}");
    }
    for line in [
        "# TYPE pmx_messages_total counter",
        "# TYPE pmx_build_info gauge",
        "# TYPE pmx_state gauge",
        "pmx_state{milter=\"policy\",state=\"running\"} 1",
    ] {
        assert!(classic.lines().any(|it| it == line), "{line}\n{classic}");
    }
    assert!(open.ends_with("\n# EOF\n") && !classic.contains("EOF"));
    assert!(open.contains("pmx_messages_created{") && !classic.contains("_created"));
    // The same numbers.
    let numbers = |text: &str| -> Vec<(String, f64)> {
        let kept = |name: &String| {
            !name.contains("_created") && !name.contains("heartbeat") && !name.contains("state")
        };
        samples(text).into_iter().filter(|it| kept(&it.0)).collect()
    };
    assert_eq!(numbers(&open), numbers(&classic));
}

/// Runs a program over a page.
fn check(milter: &Milter, page: &str, program: &str, arguments: &[&str]) -> Outcome {
    milter.write("page", page);
    let mut command = Command::new("sh");
    command
        .args(["-c", "file=$1; shift; exec \"$@\" <\"$file\"", "sh"])
        .arg(milter.path("page"))
        .arg(program)
        .args(arguments);
    run(command, SOON)
}

/// Left out by name where it is missing, and said so: never passed unseen.
mod needs_promtool {
    use super::*;

    #[test]
    fn promtool_finds_nothing_wrong_with_the_classic_form() {
        let milter = used();
        for more in [&[][..], &["--per-slot"]] {
            let page = page(&milter, "prometheus", more);
            let outcome = check(&milter, &page, "promtool", &["check", "metrics"]);
            assert_eq!((outcome.code, &*outcome.err), (0, ""), "{}", outcome.out);
        }
        // It would say so.
        let wrong = "# TYPE pmx_x counter\npmx_x 1\n";
        let outcome = check(&milter, wrong, "promtool", &["check", "metrics"]);
        assert_ne!(outcome.code, 0);
    }
}

mod needs_prometheus_client {
    use super::*;

    /// Debian's module belongs to Debian's Python.
    const PYTHON: &str = "/usr/bin/python3";

    const PARSE: &str = "
import sys
from prometheus_client.openmetrics.parser import text_fd_to_metric_families
for family in text_fd_to_metric_families(sys.stdin):
    assert family.documentation, family.name
    for sample in family.samples:
        print(sample.name, len(sample.labels), family.type)
";

    #[test]
    fn the_openmetrics_parser_of_prometheus_reads_every_sample() {
        let milter = used();
        let page = page(&milter, "openmetrics", &["--per-slot"]);
        let outcome = check(&milter, &page, PYTHON, &["-c", PARSE]).expect(0);
        assert_eq!(outcome.out.lines().count(), samples(&page).len());
        outcome
            .prints("pmx_state 2 stateset")
            .prints("pmx_build_info 1 info");
        // It would say so.
        let wrong = page.replace("# EOF\n", "");
        check(&milter, &wrong, PYTHON, &["-c", PARSE]).expect(1);
    }
}
