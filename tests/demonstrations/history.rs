//! Demonstration 10: what happened before a milter died is on its board, event for event as in its log.

use nix::sys::signal::Signal;

use crate::support::milter::{ADDS_A_HEADER, Milter, pids};
use crate::support::mta::Message;
use crate::support::process;
use crate::support::{SOON, wait_until};

/// Kind, slot, pid and what else can be compared.
type Line = (String, Option<String>, Option<String>, String);

fn line(kind: &str, slot: Option<&str>, pid: Option<&str>, more: &str) -> Line {
    let owned = |text: &str| text.trim_matches([',', ':']).to_owned();
    (
        kind.to_owned(),
        slot.map(owned),
        pid.map(owned),
        more.to_owned(),
    )
}

/// What a line of the master's log says has happened; `None` when it is about something else.
fn logged(text: &str) -> Option<Line> {
    let (_, said) = text.split_once("]: ")?;
    let said = said
        .trim_start_matches("debug: ")
        .trim_start_matches("warning: ")
        .trim_start_matches("error: ");
    let words: Vec<&str> = said.split_whitespace().collect();
    match words.as_slice() {
        ["child", pid, "forked", "into", "slot", slot] => {
            Some(line("fork", Some(slot), Some(pid), ""))
        }
        ["child", pid, "of", "slot", slot, "is", "ready"] => {
            Some(line("ready", Some(slot), Some(pid), ""))
        }
        ["child", pid, "of", "slot", slot, "retires:", reason] => {
            Some(line("retire", Some(slot), Some(pid), reason))
        }
        [
            "child",
            pid,
            "of",
            "slot",
            slot,
            "was",
            "ended",
            "by",
            signal,
            ..,
        ] => Some(line(
            "death",
            Some(slot),
            Some(pid),
            signal.trim_start_matches("SIG"),
        )),
        [
            "child",
            pid,
            "of",
            "slot",
            slot,
            "ended",
            "with",
            "status",
            status,
            ..,
        ] => Some(line("death", Some(slot), Some(pid), status)),
        ["milter", _, "takes", "mail", ..] => Some(line("start", None, None, "")),
        ["milter", _, "is", "full:" | "full", ..] => Some(line("full", None, None, "")),
        ["milter", _, "has", "room", "again", ..] => Some(line("room", None, None, "")),
        ["milter", _, "forks", "no", "child", ..] => Some(line("backoff", None, None, "")),
        ["milter", _, "stops:", ..] => Some(line("stop", None, None, "")),
        _ => None,
    }
}

/// The same of a line of `status --history`.
fn told(text: &str) -> Line {
    let words: Vec<&str> = text.split_whitespace().skip(1).collect();
    let [kind, slot, pid, more @ ..] = words.as_slice() else {
        panic!("no event: {text}");
    };
    let more = match (*kind, more) {
        ("retire", ["the", "milter", "stops"]) => "stop",
        ("retire", [reason, ..]) => *reason,
        ("death", ["signal", _, name, ..]) => name.trim_matches(['(', ')']),
        ("death", [_, status, ..]) => *status,
        _ => "",
    };
    line(
        kind,
        slot.strip_prefix("slot#"),
        pid.strip_prefix("pid="),
        more,
    )
}

/// The events of `status --history`: below the last line of the table of seconds.
fn events(text: &str) -> Vec<Line> {
    let is_event = |line: &&str| {
        let mut words = line.split_whitespace();
        words
            .next()
            .is_some_and(|time| time.contains(':') && time.contains('.'))
    };
    text.lines().filter(is_event).map(told).collect()
}

#[test]
fn the_history_of_a_dead_milter_is_event_for_event_what_its_log_says() {
    let milter = Milter::started(
        ADDS_A_HEADER,
        "max_pooled_procs = 2\nmin_pooled_procs = 1\npooled_proc_connect_limit = 3\ninterpreter_connections = 1\n",
    );
    let serve = || {
        let mut session = milter.session();
        assert!(
            session
                .message(&Message::from("a@b.example"))
                .unwrap()
                .is_taken()
        );
        session.quit().unwrap();
        milter.wait_json("the session is over", |json| json["pool"]["requests"] == 0);
    };
    // Children that retire at their limit.
    for _ in 0..5 {
        serve();
    }
    // A full pool, and room again. The first of these is the last one of its child, which retires with it: two more fill the pool.
    let all = [milter.session(), milter.session(), milter.session()];
    milter.wait_json("it is full", |json| json["capacity"]["now"] == true);
    drop(all);
    milter.wait_for_log("has room again");
    // A child that dies after it has finished connections, and one that dies before, so that the next one waits.
    let kill = || {
        let json = milter.wait_json("somebody serves", |json| !pids(json).is_empty());
        let victims = pids(&json);
        for pid in &victims {
            process::signal(*pid, Signal::SIGKILL);
        }
        milter.wait_json("their deaths are told", |json| {
            pids(json).iter().all(|pid| !victims.contains(pid))
        });
    };
    kill();
    let session = milter.session();
    kill();
    drop(session);
    serve();
    // It is being stopped when it dies itself.
    let session = milter.session();
    let stop = milter.pmx_in_background(&["stop"]);
    milter.wait_json("it retires", |json| json["state"] == "retiring");
    milter.wait_for_log("retires: stop");
    // Who waits for the end of the stop would clear away what is left.
    drop(stop);
    process::signal(milter.master(), Signal::SIGKILL);
    wait_until(SOON, "everybody is dead", || {
        let left = milter.processes();
        for pid in &left {
            process::signal(*pid, Signal::SIGKILL);
        }
        left.is_empty().then_some(())
    });
    drop(session);
    let text = milter.pmx(&["status", "--history"]).expect(1).out;
    let (events, log) = (events(&text), milter.log());
    let lines: Vec<Line> = log.lines().filter_map(logged).collect();
    for kind in [
        "start", "fork", "ready", "retire", "death", "full", "room", "backoff", "stop",
    ] {
        assert!(
            events.iter().any(|event| event.0 == kind),
            "no {kind} in:\n{text}\n{log}"
        );
    }
    for (event, line) in events.iter().zip(&lines) {
        assert_eq!(event, line, "\n{text}\n{log}");
    }
    assert_eq!(events.len(), lines.len(), "\n{text}\n{log}");
}
