//! What a milter does when things go wrong around it: a child that does not read, a crowd at a full pool, too few descriptors, a child that
//! never comes up.
#![allow(clippy::unwrap_used)]

mod support;

use nix::sys::signal::Signal;
use support::milter::{ADDS_A_HEADER, Milter, count, pids};
use support::mta::{FULL, Message, Mta};
use support::{SOON, process, wait_until};

#[track_caller]
fn serves(session: &mut Mta) {
    let answer = session.message(&Message::from("a@b.example")).unwrap();
    assert!(answer.is_taken(), "{answer:?}");
}

fn unread_warnings(milter: &Milter) -> usize {
    milter.log().matches("leaves a connection unread").count()
}

#[test]
fn a_child_that_does_not_read_gets_no_more_until_it_shows_that_it_reads() {
    let milter = Milter::started(
        ADDS_A_HEADER,
        "max_pooled_procs = 2\nmin_pooled_procs = 2\n",
    );
    let lowest = pids(&milter.json())[0];
    process::signal(lowest, Signal::SIGSTOP);
    // The first connection finds out; the others must not pay for it.
    let mut first = milter.session();
    serves(&mut first);
    first.quit().unwrap();
    for _ in 0..5 {
        let mut session = milter.session();
        serves(&mut session);
        session.quit().unwrap();
    }
    // Each of them would have been given to it, found unread after a second, and taken back.
    assert_eq!(unread_warnings(&milter), 1, "{}", milter.log());
    let json = milter.json();
    assert_eq!(count(&json["slots"][0]["acc"]["process"]), 0, "{json:#}");
    assert_eq!(count(&json["slots"][1]["acc"]["process"]), 6, "{json:#}");

    process::signal(lowest, Signal::SIGCONT);
    wait_until(SOON, "the child that reads again gets a connection", || {
        let mut session = milter.session();
        serves(&mut session);
        session.quit().unwrap();
        (count(&milter.json()["slots"][0]["acc"]["process"]) > 0).then_some(())
    });
    milter.stop();
}

#[test]
fn a_busy_child_that_reads_slowly_keeps_its_connections() {
    let policy = r#"
local policy = {}
function policy.connect(ctx)
  local till = os.clock() + 0.008
  while os.clock() < till do end
end
return policy
"#;
    let milter = Milter::started(policy, "max_pooled_procs = 1\ncallback_timeout = \"60s\"\n");
    // All of them at once, with their negotiation and connect: reading the last one takes the child more than a second of callbacks.
    let offer = [FULL.version, FULL.actions, FULL.steps].map(u32::to_be_bytes);
    let mut sessions: Vec<Mta> = (0..200)
        .map(|_| {
            let mut session = milter.open();
            session.put(b'O', &[offer.as_flattened()]);
            session.put(b'C', &[b"client.example\0", b"4\0\x19", b"192.0.2.1\0"]);
            session.flush().unwrap();
            session
        })
        .collect();
    for session in &mut sessions {
        assert_eq!(session.reply().unwrap().0, b'O');
        assert_eq!(session.reply().unwrap().0, b'c');
    }
    assert_eq!(unread_warnings(&milter), 0, "{}", milter.log());
    drop(sessions);
    milter.stop();
}

#[test]
fn a_crowd_at_a_full_pool_is_one_episode_and_one_line_of_the_log() {
    let milter = Milter::started(
        ADDS_A_HEADER,
        "max_pooled_procs = 1\ninterpreter_connections = 1\n",
    );
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let mut session = milter.session();
                    serves(&mut session);
                    session.quit().unwrap();
                }
            });
        }
    });
    assert_eq!(
        milter.log().matches(" is full:").count(),
        1,
        "{}",
        milter.log()
    );
    let board = milter.run_dir().join("policy.scoreboard");
    let reader = scoreboard::Reader::open(&board).unwrap();
    assert_eq!(reader.snapshot().unwrap().global.capacity_episodes, 1);
    milter.stop();
}

#[test]
fn with_few_descriptors_a_child_gets_no_more_connections_than_it_can_open() {
    let milter = Milter::with(
        ADDS_A_HEADER,
        "max_pooled_procs = 1\ninterpreter_connections = 1000\n",
    );
    milter
        .pmx_with_descriptors(190, &["start"])
        .expect(0)
        .says("a process carries 62 connections at most");
    let mut sessions: Vec<Mta> = (0..62).map(|_| milter.session()).collect();
    let waiting: Vec<Mta> = (0..60).map(|_| milter.open()).collect();
    for session in &mut sessions {
        serves(session);
    }
    let json = milter.json();
    assert_eq!(count(&json["pool"]["requests"]), 62, "{json:#}");
    // Those that waited come in, all of them.
    drop(sessions);
    for mut session in waiting {
        session.negotiate(FULL).unwrap();
        session.hello().unwrap();
        serves(&mut session);
        session.quit().unwrap();
    }
    milter.wait_json("nothing is in progress", |json| {
        json["pool"]["requests"] == 0 && json["lost"]["connections"] == 0
    });
    milter.stop();
}

#[test]
fn a_child_that_never_comes_up_is_replaced() {
    let policy = r#"
local till = os.clock() + 0.7
while os.clock() < till do end
return { eom = function(ctx) ctx:add_header("X-Filter", "ok") end }
"#;
    let milter = Milter::started(
        policy,
        "max_pooled_procs = 1\nstart_timeout = \"5s\"\ncallback_timeout = \"20s\"\n",
    );
    let first = milter.children()[0];
    process::signal(first, Signal::SIGKILL);
    let second = wait_until(SOON, "its successor", || {
        milter.children().into_iter().find(|child| *child != first)
    });
    process::signal(second, Signal::SIGSTOP);
    let mut session = milter.session();
    serves(&mut session);
    assert!(!process::runs(second));
    milter.wait_for_log("was not ready within 5 s (start_timeout) and is killed");
    session.quit().unwrap();
    milter.stop();
}

#[test]
fn a_stop_does_not_keep_connections_that_nobody_will_serve() {
    let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 1\n");
    let only = milter.children()[0];
    process::signal(only, Signal::SIGSTOP);
    let mut session = milter.open();
    milter.wait_for_log("leaves a connection unread");
    let stopping = milter.pmx_in_background(&["stop"]);
    // Long before graceful_timeout, which is 5 minutes.
    session.expect_close().unwrap();
    process::signal(only, Signal::SIGCONT);
    stopping.wait(SOON).expect(0);
}
