//! What runs out around a milter: descriptors, processes, room for the log, room in the run directory. It goes on with what it has, status
//! and log say what is short and what helps, once, and it is whole again when that has passed.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::milter::{ADDS_A_HEADER, Milter, count, pids};
use support::mta::{FULL, Message, Mta};
use support::{SOON, is_root, process, wait_until};

#[track_caller]
fn serves(session: &mut Mta) {
    let answer = session.message(&Message::from("a@b.example")).unwrap();
    assert!(answer.adds_header("X-Filter", "ok"), "{answer:?}");
}

/// A client that waited is served from the beginning.
#[track_caller]
fn is_served_at_last(mut waiting: Mta) {
    waiting.negotiate(FULL).unwrap();
    waiting.hello().unwrap();
    serves(&mut waiting);
    waiting.quit().unwrap();
}

/// The trouble that status shows, in JSON and as people see it.
#[track_caller]
fn trouble(milter: &Milter, text: &str) -> Value {
    let json = milter.wait_json(text, |json| {
        json["trouble"]["text"]
            .as_str()
            .is_some_and(|trouble| trouble.contains(text))
    });
    let long = milter.pmx(&["status", "--long"]).expect(0).out;
    assert!(
        long.contains("last trouble: ") && long.contains(text),
        "{long}"
    );
    json
}

/// The master has tried again a few times: so many heartbeats of a second have passed.
fn some_tries_later(milter: &Milter) {
    let board = milter.run_dir().join("policy.scoreboard");
    let heartbeat = || scoreboard::read(&board).unwrap().global.heartbeat_ns;
    let then = heartbeat();
    let tries = Duration::from_millis(3500).as_nanos();
    wait_until(SOON, "three tries", || {
        (u128::from(heartbeat() - then) > tries).then_some(())
    });
}

#[test]
fn without_a_descriptor_for_it_a_connection_waits_and_those_that_are_open_are_served() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 1\n");
    let mut open = milter.session();
    let master = milter.master();
    process::leave_no_descriptor(master);
    let waiting = milter.open();
    let json = trouble(&milter, "no connection can be accepted");
    assert_eq!(json["accepting"], false, "{json:#}");
    assert_eq!(json["not_accepting"], "resources", "{json:#}");
    serves(&mut open);
    some_tries_later(&milter);
    serves(&mut open);
    let log = milter.log();
    assert_eq!(
        log.matches("no connection can be accepted").count(),
        1,
        "{log}"
    );
    assert!(log.contains("raise the limit of open files"), "{log}");

    let most = process::hard_limit(master, "Max open files");
    process::limit(master, &format!("--nofile={most}:"));
    is_served_at_last(waiting);
    milter.wait_for_log("connections are accepted again");
    let json = milter.wait_json("it accepts", |json| json["accepting"] == true);
    assert_eq!(count(&json["lost"]["connections"]), 0, "{json:#}");
    open.quit().unwrap();
    milter.stop();
}

#[test]
fn without_a_process_for_a_child_connections_wait_for_it() {
    // Limits of processes do not bind root; they count all of a user's.
    let nobody_else = 61_234;
    let milter = Milter::with(ADDS_A_HEADER, "max_pooled_procs = 1\n");
    if is_root() {
        milter.pmx_as(nobody_else, &["start"]).expect(0);
    } else {
        milter.start();
    }
    let (master, child) = (milter.master(), milter.children()[0]);
    process::limit(master, "--nproc=1:");
    process::signal(child, Signal::SIGKILL);
    trouble(&milter, "no child can be forked");
    let waiting = milter.open();
    let json = milter.wait_json("it waits", |json| json["not_accepting"] == "no_child");
    assert_eq!(json["state"], "running", "{json:#}");
    some_tries_later(&milter);
    let log = milter.log();
    assert_eq!(log.matches("no child can be forked").count(), 1, "{log}");
    assert!(log.contains("raise the limit of processes"), "{log}");

    let most = process::hard_limit(master, "Max processes");
    process::limit(master, &format!("--nproc={most}:"));
    is_served_at_last(waiting);
    milter.wait_for_log("children are forked again");
    milter.wait_json("a child", |json| pids(json).len() == 1);
    milter.stop();
}

mod needs_mounts {
    use std::fs;
    use std::path::Path;

    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Room for a board and little else.
    const BOARD: &str = "size=12m,mode=755";

    /// Puts a small file system there, for this thread and what it starts: it is gone with them.
    fn small(place: &Path, size: &str) {
        fs::create_dir_all(place).unwrap();
        unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root and the right to mount");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(
            Some("none"),
            place,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(size),
        )
        .unwrap();
    }

    /// Leaves no byte there.
    fn fill(place: &Path) {
        let file = place.join("filler");
        let full = (0..).find_map(|_| {
            use std::io::Write;
            let mut file = fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(&file)
                .ok()?;
            file.write_all(&[0; 4096]).err()
        });
        assert_eq!(full.unwrap().raw_os_error(), Some(nix::libc::ENOSPC));
    }

    #[test]
    fn a_full_disk_costs_lines_of_the_log_and_no_mail_and_is_told() {
        let milter = Milter::new(ADDS_A_HEADER);
        let place = milter.path("logs");
        small(&place, "size=64k,mode=1777");
        let log = place.join("log");
        milter.configure(&format!(
            "max_pooled_procs = 1\nmessage_log = true\nlog_to = \"file:{}\"\n",
            log.display()
        ));
        milter.start();
        let mut session = milter.session();
        serves(&mut session);
        fill(&place);
        // The rest of the log's own last page takes some lines more.
        wait_until(SOON, "lines are lost", || {
            serves(&mut session);
            let json = milter.json();
            let text = json["trouble"]["text"].as_str().unwrap_or("").to_owned();
            text.contains("lines of the log are lost").then_some(())
        });
        let json = trouble(&milter, "see whether there is room where log_to sends them");
        assert_eq!(json["state"], "running", "{json:#}");
        for _ in 0..10 {
            serves(&mut session);
        }
        fs::remove_file(place.join("filler")).unwrap();
        wait_until(SOON, "the log says how many", || {
            serves(&mut session);
            let text = fs::read_to_string(&log).unwrap();
            let lost = text.lines().any(|line| {
                line.contains("log lines lost here: ") && line.contains("No space left on device")
            });
            lost.then_some(())
        });
        let before = fs::read_to_string(&log).unwrap();
        serves(&mut session);
        let after = fs::read_to_string(&log).unwrap();
        assert!(
            after[before.len()..].contains("message queue_id="),
            "{after}"
        );
        session.quit().unwrap();
        milter.stop();
    }

    #[test]
    fn a_full_run_directory_stops_nothing_and_a_restart_says_why_it_cannot_be() {
        let milter = Milter::new(ADDS_A_HEADER);
        small(&milter.run_dir(), BOARD);
        milter.start();
        let mut session = milter.session();
        serves(&mut session);
        fill(&milter.run_dir());
        let master = milter.master();
        let old = milter.children();
        // A death and a birth need no room, nor does what is published.
        process::signal(old[0], Signal::SIGKILL);
        session.expect_close().unwrap();
        milter.wait_json("a new child", |json| {
            pids(json).len() == 1 && pids(json) != old
        });
        let mut session = milter.session();
        serves(&mut session);
        let refused = milter.pmx(&["restart"]);
        assert_ne!(refused.code, 0, "{}", refused.out);
        assert!(
            refused
                .err
                .contains(&milter.run_dir().display().to_string())
                && refused.err.contains("No space left on device"),
            "{}",
            refused.err
        );
        assert_eq!(milter.master(), master);
        serves(&mut session);
        fs::remove_file(milter.run_dir().join("filler")).unwrap();
        milter.pmx(&["restart"]).expect(0);
        serves(&mut session);
        session.quit().unwrap();
        fill(&milter.run_dir());
        milter.stop();
        assert!(milter.processes().is_empty());
    }
}
