//! What the board tells of a living milter beyond its counts: the work in hand, durations, late answers, events, seconds; and that none of it
//! is lost with a child.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scoreboard::records::Phase;
use scoreboard::{EventKind, History, Reader, Slot, Snapshot, shown};
use support::milter::Milter;
use support::mta::{FULL, Message};
use support::wait_until;

const SOON: Duration = Duration::from_secs(20);

const SLEEPS: &str = r#"
local policy = {}
policy.collect = { "client", "sender", "recipients" }
function policy.rcpt(ctx, recipient)
  local seconds = ctx.sender:match("^sleep(%d+)@")
  if seconds then milter.sleep(tonumber(seconds) / 10) end
end
function policy.body(ctx, chunk) end
function policy.eom(ctx)
  if ctx.sender:match("^stay@") then milter.sleep(60) end
  ctx:add_header("X-Filter", "ok")
end
return policy
"#;

fn board(milter: &Milter) -> Reader {
    Reader::open(&milter.run_dir().join("policy.scoreboard")).unwrap()
}

fn look(milter: &Milter) -> Snapshot {
    board(milter).detailed().unwrap()
}

fn history(milter: &Milter) -> History {
    board(milter).history().unwrap()
}

/// Waits for a slot of which this holds.
fn slot(milter: &Milter, what: &str, holds: impl Fn(&Snapshot, &Slot) -> bool) -> (Snapshot, Slot) {
    wait_until(SOON, what, || {
        let snapshot = look(milter);
        let slot = snapshot.slots.iter().find(|slot| holds(&snapshot, slot))?;
        Some((snapshot.clone(), slot.clone()))
    })
}

fn phase(slot: &Slot) -> Phase {
    slot.child
        .as_ref()
        .map_or(Phase::Idle, |child| Phase::from_word(child.phase))
}

/// Answers in the histogram of a phase.
fn answers(snapshot: &Snapshot, phase: Phase) -> u64 {
    snapshot.histograms().unwrap().of(phase).iter().sum()
}

#[test]
fn a_callback_that_waits_is_shown_with_its_message_and_its_mtas_deadline_and_an_answer_too_late_is_counted()
 {
    let milter = Milter::started(
        SLEEPS,
        "mta_timeouts = \"1s,300s\"\nmax_pooled_procs = 1\ncallback_timeout = \"20s\"\n",
    );
    let mut mta = milter.session();
    let message = Message::from("sleep15@b.example").and_to("second@example.org");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| mta.message(&message));
        let (snapshot, slot) = slot(&milter, "a suspended callback at rcpt", |_, slot| {
            phase(slot) == Phase::Rcpt && slot.child.as_ref().unwrap().suspended == 1
        });
        let child = slot.child.as_ref().unwrap();
        let doing = shown(&child.doing);
        assert!(
            doing.contains("from sleep15@b.example to user@example.org"),
            "{doing}"
        );
        let second = " from sleep15@b.example to second@example.org +1";
        self::slot(&milter, "the second recipient's callback", |_, slot| {
            shown(&slot.child.as_ref().unwrap().doing).ends_with(second)
        });
        let left = snapshot.deadline_left(&slot).unwrap();
        assert!(left <= 1.0, "{left}");
        assert!(waiting.join().unwrap().unwrap().is_taken());
    });
    let (snapshot, slot) = slot(&milter, "no work in hand", |_, slot| {
        phase(slot) == Phase::Idle
    });
    let child = slot.child.as_ref().unwrap();
    assert_eq!((child.suspended, child.doing[0]), (0, 0));
    assert_eq!(snapshot.deadline_left(&slot), None);
    // Both recipients were answered after 1.5 s.
    assert_eq!(snapshot.late_answers(), 2);
    assert_eq!(answers(&snapshot, Phase::Rcpt), 2);
    let counters = snapshot.counters();
    assert!(counters.phase_ns[3] >= 3_000_000_000, "{counters:?}");
    assert!(counters.message_ns >= 3_000_000_000);
    assert_eq!(counters.message_histogram.iter().sum::<u64>(), 1);
    mta.quit().unwrap();
    milter.stop();
}

#[test]
fn redact_keeps_addresses_off_the_board() {
    let milter = Milter::started(SLEEPS, "redact = true\n");
    let mut mta = milter.session();
    let message = Message::from("sleep5@b.example");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| mta.message(&message));
        let (snapshot, slot) = slot(&milter, "work at rcpt", |_, slot| {
            phase(slot) == Phase::Rcpt
        });
        assert_eq!(snapshot.global.redacted, 1);
        assert_eq!(shown(&slot.child.unwrap().doing), "");
        waiting.join().unwrap().unwrap();
    });
    let file = std::fs::read(milter.run_dir().join("policy.scoreboard")).unwrap();
    assert!(!file.windows(9).any(|bytes| bytes == b"b.example"));
    mta.quit().unwrap();
    milter.stop();
}

#[test]
fn a_killed_child_leaves_its_job_in_the_deaths_and_its_durations_in_the_sums() {
    let milter = Milter::started(SLEEPS, "max_pooled_procs = 1\nmin_pooled_procs = 1\n");
    let mut mta = milter.session();
    for _ in 0..5 {
        assert!(
            mta.message(&Message::from("quick@b.example"))
                .unwrap()
                .is_taken()
        );
    }
    let mut stay = Message::from("stay@b.example");
    stay.queue_id = "4KILLED".to_owned();
    mta.send_without_reading_the_end(&stay).unwrap();
    let (before, slot) = slot(&milter, "work at eom", |_, slot| phase(slot) == Phase::Eom);
    assert_eq!(shown(&slot.child.as_ref().unwrap().queue_id), "4KILLED");
    kill(
        Pid::from_raw(i32::try_from(slot.master.pid).unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    let after = wait_until(SOON, "the death", || {
        Some(look(&milter)).filter(|snapshot| !snapshot.deaths.is_empty())
    });
    let death = &after.deaths[0];
    assert_eq!(shown(&death.queue_id), "4KILLED");
    assert_eq!(Phase::from_word(death.phase), Phase::Eom);
    assert_eq!((death.pid, death.lost_connections), (slot.master.pid, 1));
    for phase in Phase::ALL
        .iter()
        .copied()
        .filter(|phase| *phase != Phase::Idle)
    {
        assert_eq!(answers(&after, phase), answers(&before, phase), "{phase:?}");
    }
    assert_eq!(answers(&after, Phase::Eom), 5);
    let counters = after.counters();
    assert_eq!(
        counters.message_histogram.iter().sum::<u64>(),
        counters.messages_processed()
    );
    // A second life of the slot goes on from there.
    let mut mta = milter.session();
    assert!(
        mta.message(&Message::from("quick@b.example"))
            .unwrap()
            .is_taken()
    );
    assert_eq!(answers(&look(&milter), Phase::Eom), 6);

    let kinds: Vec<EventKind> = history(&milter)
        .events
        .iter()
        .rev()
        .map(|event| EventKind::from_word(event.kind))
        .collect();
    // It died before it finished a connection, so that the next one waits a moment.
    use EventKind::{Backoff, Death, Fork, Ready, Start};
    assert_eq!(kinds, [Fork, Ready, Start, Death, Backoff, Fork, Ready]);
    mta.quit().unwrap();
    milter.stop();
}

#[test]
fn every_second_has_a_line_and_the_queue_of_a_full_milter_is_in_it() {
    let milter = Milter::started(
        SLEEPS,
        "max_pooled_procs = 1\ninterpreter_connections = 1\n",
    );
    let serving = milter.session();
    let waiting: Vec<_> = (0..3).map(|_| milter.open()).collect();
    let seen = wait_until(SOON, "a second with a full pool and its queue", || {
        let history = history(&milter);
        let latest = history.seconds.first()?;
        (latest.busy == 1 && latest.requests == 1 && latest.backlog == 3).then_some(history)
    });
    let numbers: Vec<u64> = seen.seconds.iter().map(|second| second.number).collect();
    let expected: Vec<u64> = (1..=numbers.len() as u64).rev().collect();
    assert_eq!(numbers, expected);
    assert!(
        seen.events
            .iter()
            .any(|event| event.kind == EventKind::Full.word())
    );
    let snapshot = look(&milter);
    assert_eq!(snapshot.global.backlog, 3);
    assert!(snapshot.capacity_ns() > 0);
    assert!(snapshot.global.busy_ns[1] > 0);
    // The time with so many slots busy is all the time that there was.
    let busy: u64 = snapshot.global.busy_ns.iter().sum();
    let lived = snapshot.global.heartbeat_ns - snapshot.header.created_boot_ns;
    assert!(busy <= lived && busy > lived / 2, "{busy} of {lived}");
    serving.quit().unwrap();
    drop(waiting);
    wait_until(SOON, "room again", || {
        let events = history(&milter).events;
        events
            .iter()
            .any(|event| event.kind == EventKind::Room.word() && event.value > 0)
            .then_some(())
    });
    milter.stop();
}

#[test]
fn the_time_between_two_messages_of_a_connection_is_nobodys_delay() {
    let policy = r#"
local policy = {}
function policy.header(ctx, name, value) end
return policy
"#;
    let milter = Milter::started(policy, "mta_timeouts = \"1s,1s\"\nmax_pooled_procs = 1\n");
    let mut mta = milter.session();
    let message = Message::from("a@b.example");
    // Headers that nobody answers, then silence for longer than the MTA's patience, then an abort and the next message.
    assert!(mta.begin(&message).unwrap().is_none());
    mta.put(b'L', &[b"Subject\0", b"first\0"]);
    mta.flush().unwrap();
    slot(&milter, "the header", |snapshot, _| {
        snapshot.counters().messages_started == 1 && snapshot.requests() == 1
    });
    std::thread::sleep(Duration::from_millis(1200));
    mta.put(b'A', &[]);
    assert!(mta.message(&message).unwrap().is_taken());
    // The same with headers in one read and their end in a later one, which is answered without a callback.
    assert!(mta.begin(&message).unwrap().is_none());
    mta.put(b'L', &[b"Subject\0", b"second\0"]);
    mta.flush().unwrap();
    assert!(mta.complete(&message).unwrap().is_taken());
    std::thread::sleep(Duration::from_millis(1200));
    assert!(mta.message(&message).unwrap().is_taken());
    assert_eq!(look(&milter).late_answers(), 0);
    mta.quit().unwrap();
    milter.stop();
}

#[test]
fn a_pool_that_can_grow_is_not_full_and_one_that_answers_for_itself_is() {
    let policy = r#"
local policy = {}
function policy.connect(ctx, host) end
return policy
"#;
    let milter = Milter::started(
        policy,
        "max_pooled_procs = 3\ninterpreter_connections = 1\nconcurrency_limit_action = \"tempfail\"\n",
    );
    let first = milter.session();
    let snapshot = wait_until(SOON, "the first one in progress", || {
        Some(look(&milter)).filter(|snapshot| snapshot.requests() == 1)
    });
    assert_eq!(snapshot.global.capacity_episodes, 0);
    let others: Vec<_> = (0..2).map(|_| milter.session()).collect();
    wait_until(SOON, "all three in progress and the pool full", || {
        let snapshot = look(&milter);
        (snapshot.requests() == 3 && snapshot.global.capacity_episodes == 1).then_some(())
    });
    let before = look(&milter).capacity_ns();
    // Whoever comes now is answered without the policy: somebody should know.
    let mut refused = milter.open();
    refused.negotiate(FULL).unwrap();
    let answer = refused.connect().unwrap().map(|answer| answer.0);
    assert_eq!(answer, Some(b't'));
    drop(refused);
    milter.wait_for_log("new ones are answered tempfail");
    wait_until(SOON, "time goes on without room", || {
        (look(&milter).capacity_ns() > before).then_some(())
    });
    first.quit().unwrap();
    others
        .into_iter()
        .for_each(|session| session.quit().unwrap());
    milter.stop();
}
