//! status as a monitoring plugin: one line, thresholds, performance data, exit status.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashSet;
use std::process::Command;

use pmx_milter::control::status::Metric;
use support::SOON;
use support::command::{Outcome, run};
use support::milter::{ADDS_A_HEADER, Milter, PROGRAM};
use support::mta::Message;
use support::ports::free_port;

/// Room for two connections.
const SMALL: &str = "max_pooled_procs = 2\ninterpreter_connections = 1";

#[track_caller]
fn plugin(milter: &Milter, more: &[&str]) -> Outcome {
    let mut arguments = vec!["status", "--format", "nagios"];
    arguments.extend(more);
    let outcome = milter.pmx(&arguments);
    assert_eq!(outcome.out.lines().count(), 1, "{}", outcome.out);
    outcome
}

/// Performance data: label, value with its unit, and the four fields after it.
#[track_caller]
fn performance(line: &str) -> Vec<(String, String, Vec<String>)> {
    let (_, data) = line.trim_end().split_once(" | ").unwrap();
    assert!(!data.contains('|'), "{line}");
    let mut rest = data;
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (label, after) = rest.strip_prefix('\'').unwrap().split_once("'=").unwrap();
        assert!(!label.contains(['\'', '=']), "{line}");
        let (fields, next) = after.split_once(' ').unwrap_or((after, ""));
        let mut fields = fields.split(';').map(str::to_owned);
        all.push((
            label.to_owned(),
            fields.next().unwrap(),
            fields.collect::<Vec<_>>(),
        ));
        assert_eq!(all.last().unwrap().2.len(), 4, "{line}");
        rest = next;
    }
    all
}

#[test]
fn thresholds_make_the_level_and_stand_in_the_performance_data() {
    let milter = Milter::started(ADDS_A_HEADER, SMALL);
    let mut session = milter.session();
    let message = Message::from("a@b.example");
    session.message(&message).unwrap();
    milter.wait_json("one of two is busy", |it| it["pool"]["requests"] == 1);
    // Thresholds, exit status, what the line begins with.
    let table: &[(&[&str], i32, &str)] = &[
        (
            &[],
            0,
            "PMX OK: policy running, 1 connections in progress | ",
        ),
        (&["-w", "80", "-c", "95"], 0, "PMX OK: "),
        (
            &["-w", "40", "-c", "95"],
            1,
            "PMX WARNING: policy busy 50% (-w 40) | ",
        ),
        (
            &["-w", "40", "-c", "45"],
            2,
            "PMX CRITICAL: policy busy 50% (-c 45) | ",
        ),
        (
            &["-c", "requests=~:0"],
            2,
            "PMX CRITICAL: policy requests 1 (-c ~:0) | ",
        ),
        (&["--critical=requests=~:1"], 0, "PMX OK: "),
        (
            &["-crequests=@1:1"],
            2,
            "PMX CRITICAL: policy requests 1 (-c @1:1) | ",
        ),
        (
            &["-w", "heartbeat=100:"],
            1,
            "PMX WARNING: policy heartbeat ",
        ),
        (&["-w", "p99=@0:0"], 0, "PMX OK: "),
        (
            &[
                "-w", "errors=0", "-c", "deaths=0", "-c", "lost=0", "-c", "late=0",
            ],
            0,
            "PMX OK: ",
        ),
        (
            &["-w", "-5:-1"],
            1,
            "PMX WARNING: policy busy 50% (-w -5:-1) | ",
        ),
        // The last one counts.
        (&["-w", "1", "-w", "60"], 0, "PMX OK: "),
        (
            &["-w", "requests=0", "-c", "busy=1"],
            2,
            "PMX CRITICAL: policy busy 50% (-c 1); policy requests 1 (-w 0) | ",
        ),
    ];
    for (more, code, start) in table {
        let outcome = plugin(&milter, more).expect(*code);
        assert!(outcome.out.starts_with(start), "{more:?}: {}", outcome.out);
        let data = performance(&outcome.out);
        let labels: Vec<&str> = data.iter().map(|it| &*it.0).collect();
        let metrics: Vec<&str> = Metric::ALL.iter().map(|it| it.name()).collect();
        assert_eq!(labels, metrics);
    }
    let line = plugin(&milter, &["-w", "0:40", "-c", "~:95"]).out;
    let data = performance(&line);
    let of = |label: &str| data.iter().find(|it| it.0 == label).unwrap().clone();
    assert_eq!(
        of("busy"),
        (
            "busy".into(),
            "50%".into(),
            ["40", "~:95", "0", "100"].map(String::from).into()
        )
    );
    assert_eq!(of("requests").2, ["", "", "0", "2"]);
    assert_eq!(of("tempfail").1, "0c");
    assert!(of("heartbeat").1.ends_with('s'));
    session.quit().unwrap();
}

#[test]
fn what_never_happened_is_unknown_in_the_data_and_no_alert() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let line = plugin(&milter, &["-c", "p99=0.1"]).expect(0).out;
    assert!(line.contains("'p99'=U;;0.1;0;"), "{line}");
}

#[test]
fn a_threshold_on_what_cannot_be_known_is_not_silently_fine() {
    // One process for all has no bound to be a percentage of.
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 0");
    plugin(&milter, &[]).expect(0).prints("'busy'=U;");
    let limited = plugin(&milter, &["-w", "80"]).expect(3);
    limited.prints("policy busy is not known");
}

#[test]
fn wrong_arguments_are_unknown_and_say_so_on_the_first_line() {
    let milter = Milter::new(ADDS_A_HEADER);
    for more in [
        &["-w", "nonsense=1"][..],
        &["-w", "20:10"],
        &["-c", "/etc/pmx/pmx.conf"],
        &["-c"],
        &["--watch", "1"],
        &["--per-slot"],
        &["--nonsense"],
        &["../x"],
    ] {
        let outcome = plugin(&milter, more).expect(3);
        assert!(outcome.out.starts_with("PMX UNKNOWN: "), "{}", outcome.out);
        assert!(!outcome.err.is_empty());
    }
    for option in ["--help", "--version"] {
        milter.pmx(&["status", "--format=nagios", option]).expect(3);
    }
}

#[test]
fn in_other_formats_c_is_the_configuration_and_thresholds_are_refused() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let file = milter.path("pmx.conf");
    let alone = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env_remove("PMX_CONF");
        run(command, SOON)
    };
    let file = file.to_str().unwrap();
    for format in ["text", "json", "openmetrics", "prometheus"] {
        // Before and after the verb it is the same.
        alone(&["-c", file, "status", "--format", format]).expect(0);
        alone(&["status", "-c", file, "--format", format]).expect(0);
        for option in ["--warning", "--critical"] {
            let outcome = milter.pmx(&["status", "--format", format, option, "1"]);
            outcome.expect(2).says("--format nagios");
        }
    }
    alone(&["-c", file, "status", "--format", "nagios", "-c", "1"]).expect(0);
    alone(&["status", "--format", "nagios", "-c", file])
        .expect(3)
        .prints("-c FILE stands before status");
    milter.pmx(&["status", "--per-slot"]).expect(2);
    let watched = ["status", "--format", "prometheus", "--watch", "1"];
    milter.pmx(&watched).expect(2).says("--watch");
}

#[test]
fn labels_of_several_milters_differ_in_their_first_19_characters() {
    for names in [
        ["one", "two"],
        ["a-long-name-for-tests-1", "a-long-name-for-tests-2"],
    ] {
        let milter = Milter::new(ADDS_A_HEADER);
        let tables = names.map(|name| {
            let port = free_port();
            format!("[milter.{name}]\nport = \"inet:{port}@127.0.0.1\"\npolicy = \"policy.lua\"\n")
        });
        milter.configure_milters(&tables.concat());
        milter.pmx(&["start"]).expect(0);
        let line = plugin(&milter, &["-c", "busy=95"]).expect(0).out;
        let data = performance(&line);
        let starts: HashSet<String> = data
            .iter()
            .map(|it| it.0.chars().take(19).collect())
            .collect();
        assert_eq!(starts.len(), 2 * Metric::ALL.len(), "{line}");
        // Both are judged.
        milter.pmx(&["stop", names[1]]).expect(0);
        let start = format!("PMX CRITICAL: {} not running | ", names[1]);
        let line = plugin(&milter, &[]).expect(2).out;
        assert!(line.starts_with(&start), "{line}");
        // Named alone, labels need no name.
        let line = plugin(&milter, &[names[0]]).expect(0).out;
        assert!(line.contains("| 'requests'=0;"), "{line}");
    }
}
