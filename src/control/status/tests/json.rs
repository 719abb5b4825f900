//! Status as JSON: names and order are a promise.
#![allow(clippy::unwrap_used)]

use bytemuck::Zeroable;
use scoreboard::{Death, Event, EventKind, History, Second, encode_end};
use serde_json::Value;

use super::super::json;
use super::super::view::{State, View};
use super::{NOW, SECOND, board, example, view, views};
use crate::control::help;

/// An example with everything in it that can be: a death, a second, an event, histograms.
fn full() -> View {
    let mut it = example();
    let board = it.board.as_mut().unwrap();
    let mut death = Death::zeroed();
    death.number = 1;
    death.end = encode_end(None, Some(9));
    board.deaths = vec![death];
    board.slots[0].histograms = Some(Box::default());
    let mut second = Second::zeroed();
    second.number = 1;
    let mut event = Event::zeroed();
    event.number = 1;
    event.kind = EventKind::Start.word();
    it.history = Some(History {
        seconds: vec![second],
        events: vec![event],
    });
    it
}

pub(super) fn parsed(views: &super::Views) -> Value {
    serde_json::from_str(&json::document(views)).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

#[test]
fn json_has_exactly_these_fields_in_this_order() {
    let it = full();
    let value = parsed(&views(vec![it]));
    assert_eq!(
        keys(&value),
        words("schema version instance boot_id time milters")
    );
    let milter = &value["milters"][0];
    let fields = "name state pid port vsz_bytes threads procs interpreters queue flags heartbeat_age_seconds pool verdicts sessions recipients_refused messages_started messages_in_progress aborted lost deaths slots instance orphans generation accepting not_accepting accepted rejected waiting backlog late_answers capacity busy_seconds message_seconds phase_seconds forks deaths_total crash_loop trouble books cut retries consistent history";
    assert_eq!(keys(milter), words(fields));
    for (field, inner) in [
        ("interpreters", "initialized max sequence"),
        (
            "pool",
            "slots_high_water slots_max retiring requests messages connections",
        ),
        (
            "verdicts",
            "accept reject tempfail discard quarantine error",
        ),
        ("sessions", "accept reject tempfail error"),
        ("lost", "connections messages"),
        ("capacity", "seconds episodes now"),
        ("busy_seconds", "0 1 2 4 8 16 32 64 128 256 512 more"),
        ("message_seconds", "count sum p50 p90 p99 buckets"),
        ("phase_seconds", "connect mail rcpt data header body eom"),
        ("deaths_total", "clean error signal"),
        ("trouble", "text age_seconds"),
        (
            "books",
            "balanced connections messages accepted unbalanced_slots",
        ),
        ("history", "seconds events"),
    ] {
        assert_eq!(keys(&milter[field]), words(inner), "{field}");
    }
    assert_eq!(
        keys(&milter["slots"][0]),
        words(
            "slot state pid vsz_bytes rss_bytes acc requests messages retiring phase queue_id since_seconds interpreters doing deadline_seconds last_verdict suspended generation age_seconds consistent"
        )
    );
    assert_eq!(
        keys(&milter["slots"][0]["acc"]),
        words("process slot processes")
    );
    assert_eq!(
        keys(&milter["deaths"][0]),
        words(
            "slot pid cause signal exit phase queue_id age_seconds lost_connections process_seconds"
        )
    );
    for account in ["connections", "messages", "accepted"] {
        assert_eq!(keys(&milter["books"][account]), words("total accounted"));
    }
    let history = &milter["history"];
    assert_eq!(
        keys(&history["seconds"][0]),
        words(
            "time age_seconds busy slots_in_use requests waiting backlog accepted verdicts aborted lost_connections"
        )
    );
    assert_eq!(
        keys(&history["events"][0]),
        words("time age_seconds kind slot pid value text")
    );
    for phase in milter["phase_seconds"].as_object().unwrap().values() {
        assert_eq!(keys(phase), words("count sum p50 p99 buckets"));
        assert_eq!(keys(&phase["buckets"][15]), words("le count"));
    }
}

#[test]
fn json_says_what_the_text_says() {
    let value = parsed(&views(vec![example()]));
    let milter = &value["milters"][0];
    assert_eq!(value["schema"], 1);
    assert_eq!(value["instance"], "00000000000000ab00000000000000cd");
    assert_eq!(value["time"], 1_700_000_000.123);
    assert_eq!(milter["state"], "running");
    assert_eq!(milter["pool"]["requests"], 3);
    assert_eq!(milter["pool"]["messages"], 1234);
    assert_eq!(milter["pool"]["connections"], 4567 + 1200);
    assert_eq!(milter["pool"]["retiring"], 1);
    assert_eq!(milter["verdicts"]["accept"], 617);
    assert_eq!(milter["messages_started"], 1236);
    assert_eq!(milter["messages_in_progress"], 2);
    assert_eq!(milter["heartbeat_age_seconds"], 0.25);
    let slot = &milter["slots"][1];
    assert_eq!(slot["acc"]["slot"], 1200);
    assert_eq!(slot["retiring"], true);
    assert_eq!(slot["phase"], "eom");
    assert_eq!(slot["since_seconds"], 0.5);
    assert_eq!(slot["queue_id"], "4ABC\u{fffd}");
}

#[test]
fn a_milter_without_a_board_has_every_field_and_null_for_what_is_not_known() {
    let value = parsed(&views(vec![view("m", State::NotRunning, None), example()]));
    let (down, up) = (&value["milters"][0], &value["milters"][1]);
    assert_eq!(keys(down), keys(up));
    assert_eq!(down["state"], "not_running");
    for field in ["pid", "port", "flags", "instance", "queue"] {
        assert!(down[field].is_null(), "{field}");
    }
    for group in [
        "pool",
        "verdicts",
        "sessions",
        "lost",
        "interpreters",
        "capacity",
        "busy_seconds",
        "deaths_total",
        "trouble",
    ] {
        assert_eq!(keys(&down[group]), keys(&up[group]));
        assert!(
            down[group]
                .as_object()
                .unwrap()
                .values()
                .all(Value::is_null)
        );
    }
    assert_eq!(down["slots"], Value::Array(Vec::new()));
}

#[test]
fn a_death_tells_its_cause() {
    let mut board = board(vec![]);
    board.deaths = [
        (encode_end(None, Some(9)), "signal", Some(9), None),
        (encode_end(Some(3), None), "error", None, Some(3)),
        (encode_end(Some(0), None), "error", None, Some(0)),
        (0, "unknown", None, None),
    ]
    .map(|(end, ..)| {
        let mut death = Death::zeroed();
        death.end = end;
        death.at_ns = NOW - 2 * SECOND;
        death
    })
    .to_vec();
    let value = parsed(&views(vec![view("m", State::Running, Some(board))]));
    let deaths = value["milters"][0]["deaths"].as_array().unwrap();
    let causes: Vec<&str> = deaths
        .iter()
        .map(|d| d["cause"].as_str().unwrap())
        .collect();
    assert_eq!(causes, ["signal", "error", "error", "unknown"]);
    assert_eq!(deaths[0]["signal"], 9);
    assert!(deaths[0]["exit"].is_null());
    assert_eq!(deaths[1]["exit"], 3);
    assert_eq!(deaths[0]["age_seconds"], 2.0);
}

#[test]
fn a_line_of_watched_json_is_one_line_and_the_manual_names_every_field() {
    let it = views(vec![full()]);
    assert!(!json::line(&it).contains('\n'));
    fn all(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, inner) in map {
                    found.push(key.clone());
                    all(inner, found);
                }
            }
            Value::Array(list) => list.iter().for_each(|inner| all(inner, found)),
            _ => {}
        }
    }
    let mut fields = Vec::new();
    all(&parsed(&it), &mut fields);
    let json = help::PMX_MILTER
        .split(".Sh JSON")
        .nth(1)
        .and_then(|rest| rest.split(".Sh ENVIRONMENT").next())
        .unwrap();
    let named: Vec<&str> = json.split_ascii_whitespace().collect();
    for field in fields {
        assert!(
            named.contains(&field.as_str()),
            "{field} is not in the manual"
        );
    }
}
