//! `top` as a user meets it: in a terminal, in a script, and with the ground pulled from under it.
#![allow(clippy::unwrap_used)]

mod support;

use support::milter::{ADDS_A_HEADER, Milter};

#[test]
fn without_a_terminal_top_says_what_to_use_instead() {
    let milter = Milter::new(ADDS_A_HEADER);
    milter
        .pmx(&["top"])
        .expect(2)
        .says("status --watch")
        .says("top --once");
    milter.pmx(&["top", "nosuch"]).expect(6).says("nosuch");
    milter.pmx(&["top", "--interval", "0"]).expect(2);
}

#[test]
fn once_prints_one_picture_without_control_characters() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let session = milter.session();
    let pid = milter.children()[0].to_string();
    let outcome = milter
        .pmx(&["top", "--once"])
        .expect(0)
        .prints("policy: running")
        .prints(&pid)
        .prints("q quit");
    assert!(outcome.out.lines().all(|line| line.chars().count() <= 80));
    assert_eq!(outcome.out.lines().count(), 24);
    assert!(!outcome.out.chars().any(|c| c.is_control() && c != '\n'));
    drop(session);
    milter.stop();
    milter
        .pmx(&["top", "--once"])
        .expect(0)
        .prints("policy: not running")
        .prints("pmx-milter start policy");
}

/// A terminal is given by setsid(1).
mod needs_setsid {
    use std::fs::{self, File};

    use nix::sys::signal::Signal;

    use super::support::milter::{ADDS_A_HEADER, Milter};
    use super::support::pty::Pty;

    const FAST: [&str; 3] = ["top", "--interval", "0.1"];

    /// The terminal is the user's again: as it was, with a cursor.
    #[track_caller]
    fn is_given_back(top: &Pty) {
        assert!(!top.is_raw(), "keys are not seen and not edited");
        assert!(!top.screen.alternate && !top.screen.hidden_cursor);
    }

    #[test]
    fn the_view_shows_a_milter_at_work_and_q_gives_the_terminal_back() {
        let milter = Milter::started(ADDS_A_HEADER, "");
        let session = milter.session();
        let mut top = milter.pmx_in_terminal(&FAST, 80, 24);
        top.wait_for("policy: running");
        top.wait_for("req 1 (peak");
        top.wait_for(&milter.master().to_string());
        top.wait_for(&format!("   0 _ {:>7}", milter.children()[0]));
        // Behind the whole screen comes what hides the cursor.
        top.wait_until("a hidden cursor", |screen| screen.hidden_cursor);
        assert!(top.is_raw() && top.screen.alternate);
        drop(session);
        top.wait_for("req 0 (peak");
        top.keys("?");
        top.wait_for("keys of pmx-milter top");
        top.keys("?");
        top.resize(120, 40);
        top.wait_for(&format!("{}by slot\n", " ".repeat(60)));
        top.resize(30, 5);
        top.wait_for("too small");
        top.resize(80, 24);
        top.wait_for("policy: running");
        top.keys("q");
        assert_eq!(top.ended(), 0);
        is_given_back(&top);
        milter.pmx(&["status"]).expect(0);
    }

    #[test]
    fn the_terminal_is_given_back_whatever_ends_the_view() {
        let milter = Milter::new(ADDS_A_HEADER);
        let started = || {
            let mut top = milter.pmx_in_terminal(&FAST, 80, 24);
            top.wait_for("policy: not running");
            top
        };
        for keys in ["\x03", "\x1b"] {
            let mut top = started();
            top.keys(keys);
            assert_eq!(top.ended(), 0, "{keys:?}");
            is_given_back(&top);
        }
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let top = &mut started();
            top.signal(signal);
            assert_eq!(top.ended(), 0, "{signal}");
            is_given_back(top);
        }
    }

    #[test]
    fn ctrl_z_lends_the_terminal_to_the_shell() {
        let milter = Milter::new(ADDS_A_HEADER);
        let mut top = milter.pmx_in_terminal(&FAST, 80, 24);
        top.wait_for("policy: not running");
        top.keys("\x1a");
        super::support::wait_until(super::support::SOON, "the stop", || {
            top.read();
            (!top.screen.alternate).then_some(())
        });
        assert!(!top.is_raw());
        top.signal(Signal::SIGCONT);
        top.wait_for("policy: not running");
        assert!(top.is_raw());
        top.keys("q");
        assert_eq!(top.ended(), 0);
        is_given_back(&top);
    }

    #[test]
    fn a_milter_that_is_stopped_and_started_is_followed() {
        let milter = Milter::started(ADDS_A_HEADER, "");
        let first = milter.master();
        let mut top = milter.pmx_in_terminal(&FAST, 80, 24);
        top.wait_for(&format!("pid {first}"));
        milter.stop();
        top.wait_for("policy: not running");
        milter.start();
        top.wait_for(&format!("pid {}", milter.master()));
        top.keys("q");
        assert_eq!(top.ended(), 0);
    }

    #[test]
    fn a_board_that_is_cut_or_removed_under_the_view_is_told_in_words() {
        let milter = Milter::started(ADDS_A_HEADER, "");
        // A copy: a milter whose own board is cut would end, and that is another story.
        let other = milter.path("other");
        fs::create_dir(&other).unwrap();
        let copy = other.join("policy.scoreboard");
        let original = milter.run_dir().join("policy.scoreboard");
        fs::copy(&original, &copy).unwrap();
        let dir = other.to_str().unwrap();
        let mut top = milter.pmx_in_terminal(&[&FAST[..], &["--run-dir", dir]].concat(), 80, 24);
        top.wait_for("policy: dead");
        File::options()
            .write(true)
            .open(&copy)
            .unwrap()
            .set_len(8192)
            .unwrap();
        top.wait_for("policy: unreadable");
        top.wait_for("8192 bytes, and its header tells");
        File::create(&copy).unwrap();
        top.wait_for("it is too short");
        fs::remove_file(&copy).unwrap();
        top.wait_for("policy: not running");
        fs::copy(&original, &copy).unwrap();
        top.wait_for("policy: dead");
        top.keys("q");
        assert_eq!(top.ended(), 0);
        is_given_back(&top);
    }
}
