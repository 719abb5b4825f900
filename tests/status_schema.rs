//! `dist/status.schema.json` describes what `status --format json` prints: of every milter, whatever its state, and with its history.
#![allow(clippy::unwrap_used)]

mod support;

use nix::sys::signal::Signal;
use pmx_milter::control::status::State;
use scoreboard::{EventKind, NotAccepting, Phase, SlotState, Verdict};
use serde_json::{Value, json};
use support::milter::{ADDS_A_HEADER, Milter};
use support::mta::Message;
use support::schema::Schema;
use support::{SOON, process, wait_until};

/// The document, which must be as the schema says.
#[track_caller]
fn valid(milter: &Milter, more: &[&str], code: i32) -> Value {
    let arguments = [&["status", "--format", "json", "policy"], more].concat();
    let outcome = milter.pmx(&arguments).expect(code);
    let document: Value = serde_json::from_str(&outcome.out).unwrap();
    let complaints = Schema::of_status().complaints(&document);
    assert_eq!(complaints, Vec::<String>::new(), "{document:#}");
    let it = &document["milters"][0];
    assert_eq!(it.get("history").is_some(), more.contains(&"--history"));
    document
}

#[track_caller]
fn state(document: &Value) -> &str {
    document["milters"][0]["state"].as_str().unwrap()
}

#[test]
fn the_schema_describes_a_milter_in_every_state_and_its_history() {
    let milter = Milter::with(ADDS_A_HEADER, "max_pooled_procs = 2");
    assert_eq!(state(&valid(&milter, &[], 3)), "not_running");
    assert_eq!(state(&valid(&milter, &["--history"], 3)), "not_running");
    milter.start();
    let mut session = milter.session();
    session.message(&Message::from("a@b.example")).unwrap();
    process::signal(milter.children()[0], Signal::SIGKILL);
    milter.wait_json("the death is on the board", |it| {
        !it["deaths"].as_array().unwrap().is_empty()
    });
    assert_eq!(state(&valid(&milter, &[], 0)), "running");
    // JSON is complete without it.
    valid(&milter, &["--long"], 0);
    valid(&milter, &["--history"], 0);
    for pid in milter.processes() {
        process::signal(pid, Signal::SIGKILL);
    }
    wait_until(SOON, "everybody is dead", || {
        milter.processes().is_empty().then_some(())
    });
    assert_eq!(state(&valid(&milter, &["--history"], 1)), "dead");
    std::fs::write(milter.run_dir().join("policy.scoreboard"), "no board").unwrap();
    assert_eq!(state(&valid(&milter, &[], 4)), "unreadable");
    valid(&milter, &["--history"], 4);
}

#[test]
fn what_the_schema_does_not_say_is_found() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 1");
    let document = valid(&milter, &["--history"], 0);
    let schema = Schema::of_status();
    type Change = (&'static str, fn(&mut Value));
    let changes: [Change; 6] = [
        ("a field is missing", |it| {
            it["milters"][0]["books"]
                .as_object_mut()
                .unwrap()
                .remove("balanced");
        }),
        ("a field is new", |it| {
            it["milters"][0]["slots"][0]["new"] = json!(1)
        }),
        ("another type", |it| it["milters"][0]["forks"] = json!("1")),
        ("an unknown word", |it| {
            it["milters"][0]["cut"] = json!("none")
        }),
        ("a negative count", |it| {
            it["milters"][0]["accepted"] = json!(-1)
        }),
        ("another schema", |it| it["schema"] = json!(2)),
    ];
    for (what, change) in changes {
        let mut wrong = document.clone();
        change(&mut wrong);
        assert_eq!(schema.complaints(&wrong).len(), 1, "{what}");
    }
}

#[test]
fn every_field_of_the_schema_is_always_there_but_history() {
    fn optional(schema: &Value, at: &str, found: &mut Vec<String>) {
        let Some(parts) = schema.as_object() else {
            return;
        };
        if let Some(fields) = schema.get("properties") {
            let required = schema["required"].as_array().unwrap();
            for name in fields.as_object().unwrap().keys() {
                if !required.contains(&json!(name)) {
                    found.push(format!("{at}/{name}"));
                }
            }
        }
        for (name, part) in parts {
            optional(part, &format!("{at}/{name}"), found);
        }
    }
    let mut found = Vec::new();
    optional(&Schema::of_status().0, "", &mut found);
    assert_eq!(found, ["/$defs/milter/history"]);
}

#[test]
fn the_words_of_the_schema_are_those_of_the_program() {
    let schema = Schema::of_status();
    let check = |pointer: &str, names: &[&str], unknown: bool| {
        let more = unknown.then_some("unknown");
        let expected: Vec<&str> = names.iter().copied().chain(more).collect();
        assert_eq!(schema.words(pointer), expected, "{pointer}");
    };
    let milter = "/$defs/milter/properties";
    let states: Vec<&str> = State::ALL.iter().map(|it| it.word()).collect();
    check(&format!("{milter}/state/enum"), &states, false);
    let reasons: Vec<&str> = NotAccepting::ALL[1..].iter().map(|it| it.name()).collect();
    check(&format!("{milter}/not_accepting/enum"), &reasons, true);
    let states: Vec<&str> = SlotState::ALL.iter().map(|it| it.name()).collect();
    check("/$defs/slot/properties/state/enum", &states, true);
    let verdicts: Vec<&str> = Verdict::ALL.iter().map(|it| it.name()).collect();
    check("/$defs/slot/properties/last_verdict/enum", &verdicts, true);
    let phases: Vec<&str> = Phase::ALL.iter().map(|it| it.name()).collect();
    check("/$defs/phase_name/enum", &phases, true);
    let kinds: Vec<&str> = EventKind::ALL.iter().map(|it| it.name()).collect();
    check("/$defs/event/properties/kind/enum", &kinds, true);
}
