//! Callbacks that wait or never end: their own message pays, nobody else does.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::milter::{Milter, count};
use support::mta::{Message, Mta};

const POLICY: &str = r#"
local policy = {}
function policy.mail(ctx, sender, args)
  if sender == "mail-loop@b.example" then while true do end end
end
function policy.eom(ctx)
  local wish, seconds = ctx.sender:match("^(%a+)(%d*)@")
  if wish == "loop" then while true do end end
  if wish == "pattern" then
    return string.find(string.rep("a", 60), string.rep("a?", 60) .. string.rep("a", 61))
  end
  if wish == "hog" then local text = "x" while true do text = text .. text end end
  if wish == "sleep" then milter.sleep(tonumber(seconds)) end
  ctx:add_header("X-Filter", "ok")
end
return policy
"#;

#[track_caller]
fn serves(milter: &Milter) {
    let answer = milter
        .session()
        .message(&Message::from("plain@b.example"))
        .unwrap();
    assert!(
        answer.is_taken() && answer.adds_header("X-Filter", "ok"),
        "{answer:?}"
    );
}

#[test]
fn an_endless_loop_costs_its_message_a_tempfail_and_the_child_lives() {
    let milter = Milter::started(
        POLICY,
        "max_pooled_procs = 1\ncallback_timeout = \"1s\"\neom_timeout = \"1s\"",
    );
    let child = milter.children();
    let mut session = milter.session();
    for (sender, stage) in [
        ("loop@b.example", 'E'),
        ("pattern@b.example", 'E'),
        ("mail-loop@b.example", 'M'),
    ] {
        let answer = session.message(&Message::from(sender)).unwrap();
        assert_eq!((answer.stage, answer.reply), (stage, 't'), "{sender}");
        assert_eq!(answer.edits, []);
    }
    // The same session goes on.
    let answer = session.message(&Message::from("plain@b.example")).unwrap();
    assert!(answer.is_taken(), "{answer:?}");
    let json = milter.json();
    assert_eq!(count(&json["verdicts"]["error"]), 3, "{json:#}");
    assert_eq!(count(&json["verdicts"]["accept"]), 1, "{json:#}");
    assert_eq!(milter.children(), child);
    milter.wait_for_log("QID1");
}

#[test]
fn memory_beyond_the_limit_costs_its_message_a_tempfail_and_the_child_lives() {
    let milter = Milter::started(
        POLICY,
        "max_pooled_procs = 1\ninterpreter_memory_limit = \"16M\"",
    );
    let child = milter.children();
    let mut session = milter.session();
    let answer = session.message(&Message::from("hog@b.example")).unwrap();
    assert_eq!((answer.stage, answer.reply), ('E', 't'));
    let answer = session.message(&Message::from("plain@b.example")).unwrap();
    assert!(answer.is_taken(), "{answer:?}");
    assert_eq!(milter.children(), child);
}

#[test]
fn eight_endless_loops_do_not_stop_a_ninth_session() {
    let milter = Milter::started(
        POLICY,
        "max_pooled_procs = 1\ninterpreters = 1\neom_timeout = \"12s\"",
    );
    let mut looping: Vec<Mta> = (0..8).map(|_| milter.session()).collect();
    for session in &mut looping {
        session
            .send_without_reading_the_end(&Message::from("loop@b.example"))
            .unwrap();
    }
    milter.wait_json("eight messages are in progress", |json| {
        json["messages_in_progress"] == 8
    });
    serves(&milter);
    let json = milter.json();
    assert_eq!(
        json["messages_in_progress"], 8,
        "the loops still ran when the ninth was served: {json:#}"
    );
    for session in &mut looping {
        assert_eq!(session.read_the_end().unwrap(), 't');
    }
    serves(&milter);
}

#[test]
fn a_sleeping_callback_holds_up_nobody() {
    let milter = Milter::started(
        POLICY,
        "max_pooled_procs = 1\ninterpreters = 1\neom_timeout = \"120s\"",
    );
    let mut sleeping: Vec<Mta> = (0..20).map(|_| milter.session()).collect();
    for session in &mut sleeping {
        session
            .send_without_reading_the_end(&Message::from("sleep100@b.example"))
            .unwrap();
    }
    milter.wait_json("twenty messages are in progress", |json| {
        json["messages_in_progress"] == 20
    });
    serves(&milter);
    // A connection that ends cancels its callback: the sleepers are not waited for.
    drop(sleeping);
    let json = milter.wait_json("the sleepers are gone", |json| {
        json["pool"]["requests"] == 0
    });
    assert_eq!(count(&json["aborted"]), 20, "{json:#}");
    serves(&milter);
}

#[test]
fn a_sleep_ends_when_its_time_has_come_and_the_message_goes_on() {
    let milter = Milter::started(POLICY, "max_pooled_procs = 1");
    let start = std::time::Instant::now();
    let answer = milter
        .session()
        .message(&Message::from("sleep1@b.example"))
        .unwrap();
    assert!(answer.is_taken() && answer.adds_header("X-Filter", "ok"));
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn progress_is_sent_while_the_end_of_a_message_takes_long() {
    let milter = Milter::started(POLICY, "");
    let answer = milter
        .session()
        .message(&Message::from("sleep11@b.example"))
        .unwrap();
    assert!(answer.is_taken(), "{answer:?}");
    // Every 5 seconds; Sendmail gives up after 10 without a packet.
    assert!(answer.progress >= 2, "{answer:?}");
}

#[test]
fn a_connection_that_says_nothing_harms_nobody() {
    let milter = Milter::started(POLICY, "max_pooled_procs = 1");
    let silent = milter.open();
    serves(&milter);
    drop(silent);
    milter.wait_json("both are over", |json| json["pool"]["requests"] == 0);
}
