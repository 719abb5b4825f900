//! What status says is exact: text and JSON, sums and slots, after sessions and messages whose number the test knows.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::milter::{Milter, count, sum};
use support::mta::Message;
use support::with_mta::POLICY;

/// The number behind `KEY=` in a text.
#[track_caller]
fn number(text: &str, key: &str) -> u64 {
    let (_, rest) = text
        .split_once(key)
        .unwrap_or_else(|| panic!("{key} is missing in:\n{text}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("no number behind {key} in:\n{text}"))
}

/// The three numbers of `acc=a/b/c` in a slot's line.
#[track_caller]
fn acc(line: &str) -> [u64; 3] {
    let (_, rest) = line.split_once("acc=").unwrap();
    let word = rest.split_whitespace().next().unwrap();
    let numbers: Vec<u64> = word
        .split('/')
        .map(|number| number.parse().unwrap())
        .collect();
    numbers.try_into().unwrap()
}

/// started = processed + aborted + lost + in progress, and each processed message under exactly one verdict.
#[track_caller]
fn messages_are_conserved(json: &Value) {
    let processed = count(&json["pool"]["messages"]);
    let verdicts: u64 = json["verdicts"]
        .as_object()
        .unwrap()
        .values()
        .map(count)
        .sum();
    assert_eq!(verdicts, processed, "{json:#}");
    assert_eq!(
        count(&json["messages_started"]),
        processed
            + count(&json["aborted"])
            + count(&json["lost"]["messages"])
            + count(&json["messages_in_progress"]),
        "{json:#}"
    );
}

/// Text and JSON say the same, and slots add up to the summary.
#[track_caller]
fn text_json_and_slots_agree(milter: &Milter) {
    let (json, text) = (milter.json(), milter.status().expect(0).out);
    let summary = text
        .lines()
        .find(|line| line.trim_start().starts_with("slots="))
        .unwrap_or_else(|| panic!("no summary in:\n{text}"));
    assert_eq!(
        number(summary, " req="),
        count(&json["pool"]["requests"]),
        "{text}{json:#}"
    );
    assert_eq!(
        number(summary, " msg="),
        count(&json["pool"]["messages"]),
        "{text}{json:#}"
    );
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.trim_start().starts_with("slot#"))
        .collect();
    assert_eq!(
        lines.len(),
        json["slots"].as_array().unwrap().len(),
        "{text}{json:#}"
    );
    let requests: u64 = lines.iter().map(|line| number(line, " req=")).sum();
    assert_eq!(requests, number(summary, " req="), "{text}");
    assert_eq!(sum(&json, "requests"), count(&json["pool"]["requests"]));
    assert_eq!(sum(&json, "messages"), count(&json["pool"]["messages"]));
    let taken_on: u64 = lines.iter().map(|line| acc(line)[1]).sum();
    assert_eq!(taken_on, count(&json["pool"]["connections"]), "{text}");
    messages_are_conserved(&json);
}

#[test]
fn sessions_and_messages_of_one_client_are_counted_exactly() {
    const SESSIONS: u64 = 7;
    const MESSAGES: u64 = 5;
    let milter = Milter::started(POLICY, "max_pooled_procs = 3");
    for _ in 0..SESSIONS {
        let mut session = milter.session();
        for _ in 0..MESSAGES {
            let answer = session.message(&Message::from("plain@b.example")).unwrap();
            assert!(answer.is_taken(), "{answer:?}");
        }
        session.quit().unwrap();
    }
    let json = milter.wait_json("every session is over", |json| {
        json["pool"]["requests"] == 0
    });
    assert_eq!(count(&json["pool"]["connections"]), SESSIONS, "{json:#}");
    assert_eq!(
        count(&json["pool"]["messages"]),
        SESSIONS * MESSAGES,
        "{json:#}"
    );
    assert_eq!(
        count(&json["verdicts"]["accept"]),
        SESSIONS * MESSAGES,
        "{json:#}"
    );
    text_json_and_slots_agree(&milter);
    let text = milter.status().expect(0).out;
    assert_eq!(number(&text, "msg="), SESSIONS * MESSAGES, "{text}");
}

#[test]
fn what_a_client_saw_is_on_the_board_when_it_saw_it() {
    let milter = Milter::started(POLICY, "max_pooled_procs = 1");
    let mut session = milter.session();
    for number in 1..=20 {
        session.message(&Message::from("plain@b.example")).unwrap();
        // No wait: the result was published before its bytes were written.
        let json = milter.json();
        assert_eq!(count(&json["pool"]["messages"]), number, "{json:#}");
        assert_eq!(count(&json["messages_in_progress"]), 0, "{json:#}");
        assert_eq!(count(&json["pool"]["requests"]), 1, "{json:#}");
    }
}

#[test]
fn each_verdict_counts_under_its_own_name() {
    let milter = Milter::started(POLICY, "max_pooled_procs = 2");
    let mut session = milter.session();
    for (sender, stage, reply) in [
        ("plain", 'E', 'c'),
        ("discard", 'E', 'd'),
        ("tempfail", 'E', 'y'),
        ("reject", 'E', 'y'),
        ("quarantine", 'E', 'c'),
        ("fault", 'E', 't'),
        ("mail-tempfail", 'M', 't'),
    ] {
        let answer = session
            .message(&Message::from(&format!("{sender}@b.example")))
            .unwrap();
        assert_eq!(
            (answer.stage, answer.reply),
            (stage, reply),
            "{sender}: {answer:?}"
        );
        if sender == "fault" {
            assert_eq!(answer.edits, [], "a fault drops the edits");
        }
    }
    let json = milter.json();
    for (verdict, expected) in [
        ("accept", 1),
        ("discard", 1),
        ("tempfail", 2),
        ("reject", 1),
        ("quarantine", 1),
        ("error", 1),
    ] {
        assert_eq!(
            count(&json["verdicts"][verdict]),
            expected,
            "{verdict}: {json:#}"
        );
    }
    text_json_and_slots_agree(&milter);
}

#[test]
fn refused_recipients_and_aborted_messages_are_counted_apart() {
    let milter = Milter::started(POLICY, "max_pooled_procs = 1");
    let mut session = milter.session();
    let one_of_two = Message::from("plain@b.example").and_to("bad@example.org");
    let answer = session.message(&one_of_two).unwrap();
    assert!(answer.is_taken() && answer.refused.len() == 1, "{answer:?}");
    assert_eq!(answer.refused[0].1, "550 5.1.1 no such user here");
    let all_refused = Message::from("plain@b.example").only_to("bad@example.org");
    let answer = session.message(&all_refused).unwrap();
    assert_eq!((answer.stage, answer.reply), ('R', 'y'), "{answer:?}");
    // MAIL again without ABORT: the message before it is aborted.
    session.begin(&Message::from("plain@b.example")).unwrap();
    assert!(
        session
            .message(&Message::from("plain@b.example"))
            .unwrap()
            .is_taken()
    );
    // The connection ends within a message.
    session.begin(&Message::from("plain@b.example")).unwrap();
    drop(session);
    let json = milter.wait_json("the session is over", |json| json["pool"]["requests"] == 0);
    assert_eq!(count(&json["recipients_refused"]), 2, "{json:#}");
    assert_eq!(count(&json["aborted"]), 3, "{json:#}");
    assert_eq!(count(&json["pool"]["messages"]), 2, "{json:#}");
    assert_eq!(count(&json["messages_started"]), 5, "{json:#}");
    messages_are_conserved(&json);
}

#[test]
fn verdicts_at_connect_and_helo_count_under_sessions() {
    let policy = r#"
        local policy = {}
        function policy.connect(ctx, host, family, address, port) end
        function policy.helo(ctx, name) return milter.REJECT end
        return policy"#;
    let milter = Milter::started(policy, "max_pooled_procs = 1");
    let mut session = milter.open();
    session.negotiate(support::mta::FULL).unwrap();
    assert_eq!(session.connect().unwrap().map(|reply| reply.0), Some(b'c'));
    assert_eq!(session.helo().unwrap().map(|reply| reply.0), Some(b'r'));
    let json = milter.json();
    assert_eq!(count(&json["sessions"]["reject"]), 1, "{json:#}");
    assert_eq!(count(&json["pool"]["messages"]), 0, "{json:#}");
}

#[test]
fn parallel_sessions_over_several_children_add_up_at_every_instant() {
    const CLIENTS: u64 = 8;
    const SESSIONS: u64 = 10;
    const MESSAGES: u64 = 3;
    let milter = Milter::started(POLICY, "max_pooled_procs = 4");
    let address = milter.address();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let address = address.clone();
            std::thread::spawn(move || {
                for _ in 0..SESSIONS {
                    let mut session = support::mta::Mta::ready(&address, support::SOON).unwrap();
                    for _ in 0..MESSAGES {
                        let message = Message::from("plain@b.example");
                        assert!(session.message(&message).unwrap().is_taken());
                    }
                    session.quit().unwrap();
                }
            })
        })
        .collect();
    let mut seen = 0;
    while !clients.iter().all(std::thread::JoinHandle::is_finished) {
        let json = milter.json();
        assert_eq!(
            sum(&json, "requests"),
            count(&json["pool"]["requests"]),
            "{json:#}"
        );
        assert_eq!(
            sum(&json, "messages"),
            count(&json["pool"]["messages"]),
            "{json:#}"
        );
        messages_are_conserved(&json);
        let messages = count(&json["pool"]["messages"]);
        assert!(messages >= seen, "counters never go back");
        seen = messages;
    }
    for client in clients {
        client.join().unwrap();
    }
    let json = milter.wait_json("every session is over", |json| {
        json["pool"]["requests"] == 0
    });
    assert_eq!(
        count(&json["pool"]["connections"]),
        CLIENTS * SESSIONS,
        "{json:#}"
    );
    assert_eq!(
        count(&json["pool"]["messages"]),
        CLIENTS * SESSIONS * MESSAGES,
        "{json:#}"
    );
    assert_eq!(count(&json["lost"]["connections"]), 0, "{json:#}");
    text_json_and_slots_agree(&milter);
}

#[test]
fn acc_tells_the_process_the_slot_and_how_many_processes_it_had() {
    let milter = Milter::started(POLICY, "max_pooled_procs = 1");
    for _ in 0..3 {
        let mut session = milter.session();
        session.message(&Message::from("plain@b.example")).unwrap();
        session.quit().unwrap();
    }
    milter.wait_json("every session is over", |json| {
        json["pool"]["requests"] == 0
    });
    let text = milter.status().expect(0).out;
    let line = text.lines().find(|line| line.contains("slot#0:")).unwrap();
    assert_eq!(acc(line), [3, 3, 1], "{text}");
    let victim = milter.children()[0];
    support::process::signal(victim, nix::sys::signal::Signal::SIGKILL);
    milter.wait_json("another child", |json| {
        support::milter::pids(json)
            .first()
            .is_some_and(|pid| *pid != victim)
    });
    let mut session = milter.session();
    session.message(&Message::from("plain@b.example")).unwrap();
    let json = milter.json();
    let total: u64 = json["slots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slot| count(&slot["acc"]["slot"]))
        .sum();
    assert_eq!(total, 4, "{json:#}");
    let processes: u64 = json["slots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slot| count(&slot["acc"]["processes"]))
        .sum();
    assert_eq!(processes, 2, "{json:#}");
    text_json_and_slots_agree(&milter);
}
