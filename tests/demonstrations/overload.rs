//! Overload: ten times as many clients as the pool can carry, half of them silent. Every session that is served is right, none is forgotten,
//! the processes stay as large as they were, status answers all along, and what became of each connection is counted.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use scoreboard::{Reader, Snapshot};

use crate::support::looks::EndOf;
use crate::support::milter::{Milter, count};
use crate::support::mta::{FULL, Message, Mta};
use crate::support::process;
use crate::support::{SOON, wait_until};

/// Connections that the pool carries: two children with four each.
const CAPACITY: usize = 8;
const SILENT: usize = 5 * CAPACITY;
const TALKING: usize = 5 * CAPACITY;
/// Sessions that each of those who talk wants served by the policy.
const WANTED: usize = 2;

/// Answers CONNECT, which is where overload is told, and adds a header.
const POLICY: &str = r#"
local policy = {}
function policy.connect(ctx, host, family, address, port) end
function policy.eom(ctx) ctx:add_header("X-Filter", "ok") end
return policy
"#;

/// What the master and its children are, at the worst of several looks.
#[derive(Debug, Default)]
struct Size {
    resident: u64,
    descriptors: usize,
    looks: u64,
}

impl Size {
    fn look(&mut self, milter: &Milter, master: i32) {
        let resident = |pid| {
            let text = process::said(pid, "VmRSS:");
            text.split_whitespace()
                .next()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        let all = [master].into_iter().chain(milter.children());
        self.resident = self.resident.max(all.map(resident).sum());
        let open = fs::read_dir(format!("/proc/{master}/fd")).unwrap().count();
        self.descriptors = self.descriptors.max(open);
        self.looks += 1;
    }
}

/// Talks until it was served as often as it wants. The stage and reply of every session's message, as the client saw them.
fn talk(milter: &Milter, seen: &Mutex<BTreeMap<(char, char), u64>>) {
    let mut served = 0;
    while served < WANTED {
        let mut session = Mta::open(&milter.address(), 2 * SOON).unwrap();
        session.negotiate(FULL).unwrap();
        let (code, _) = session.connect().unwrap().unwrap();
        let (mut stage, mut reply) = ('C', char::from(code));
        if reply == 'c' {
            session.helo().unwrap();
            let answer = session.message(&Message::from("a@b.example")).unwrap();
            assert!(answer.adds_header("X-Filter", "ok"), "{answer:?}");
            (stage, reply) = (answer.stage, answer.reply);
            served += 1;
        }
        session.quit().unwrap();
        *seen.lock().unwrap().entry((stage, reply)).or_default() += 1;
        std::thread::sleep(Duration::from_millis(20)); // Load with gaps; nothing is awaited.
    }
}

fn overloaded(action: &str) -> (Milter, BTreeMap<(char, char), u64>, Snapshot) {
    let milter = Milter::started(
        POLICY,
        &format!(
            "max_pooled_procs = 2\nmin_pooled_procs = 2\ninterpreter_connections = 4\ntimeout = \"2s\"\nconcurrency_limit_action = \"{action}\"\n"
        ),
    );
    let master = milter.master();
    // What they need when they are full, silence included.
    let mut first: Vec<Mta> = (0..CAPACITY).map(|_| milter.session()).collect();
    for session in &mut first {
        assert!(
            session
                .message(&Message::from("a@b.example"))
                .unwrap()
                .is_taken()
        );
    }
    let mut before = Size::default();
    before.look(&milter, master);
    // From here on everybody comes at once: half of them say nothing, or nothing after the negotiation.
    let mut silent: Vec<Mta> = (0..SILENT).map(|_| milter.open()).collect();
    for session in silent.iter_mut().step_by(2) {
        let offer = [FULL.version, FULL.actions, FULL.steps].map(u32::to_be_bytes);
        session.put(b'O', &[offer.as_flattened()]);
        session.flush().unwrap();
    }
    let (seen, over) = (Mutex::default(), AtomicBool::new(false));
    let mut during = Size::default();
    std::thread::scope(|scope| {
        let (milter, seen, over) = (&milter, &seen, &over);
        let talking: Vec<_> = (0..TALKING)
            .map(|_| scope.spawn(move || talk(milter, seen)))
            .collect();
        let waiter = scope.spawn(move || {
            let _end = EndOf(over);
            for client in talking {
                client.join().unwrap();
            }
        });
        // The pool stays full until each of them has come a few times, unless it is to wait for that.
        let turned_away = || seen.lock().unwrap().values().sum::<u64>() >= 3 * TALKING as u64;
        while action != "wait" && !turned_away() && !over.load(Ordering::SeqCst) {
            during.look(milter, master);
        }
        for session in first {
            session.quit().unwrap();
        }
        while !over.load(Ordering::SeqCst) {
            let json = milter.json();
            assert_eq!(json["state"], "running", "{json:#}");
            assert!(
                count(&json["pool"]["requests"]) <= CAPACITY as u64 + 64,
                "{json:#}"
            );
            during.look(milter, master);
        }
        waiter.join().unwrap();
    });
    println!("{action}: before {before:?}, during {during:?}");
    assert!(during.looks > 0, "{during:?}");
    assert!(
        during.resident < before.resident + (16 << 10),
        "{before:?} {during:?} KiB"
    );
    // A connection is the master's for the moment in which it is passed on.
    assert!(
        during.descriptors <= before.descriptors + 64,
        "{before:?} {during:?}"
    );
    // Those who said nothing are let go, after their time and not before they were taken on.
    drop(silent);
    let reader = Reader::open(&milter.run_dir().join("policy.scoreboard")).unwrap();
    let rest = wait_until(SOON, "nothing is in progress", || {
        let snapshot = reader.snapshot().unwrap();
        (snapshot.requests() == 0 && snapshot.global.waiting == 0).then_some(snapshot)
    });
    let seen = seen.into_inner().unwrap();
    println!("{action}: {seen:?}");
    (milter, seen, rest)
}

#[test]
fn ten_times_the_clients_that_it_carries_are_served_one_after_the_other_when_they_may_wait() {
    let (milter, seen, board) = overloaded("wait");
    // Nobody got another answer than the policy's.
    assert_eq!(
        seen,
        BTreeMap::from([(('E', 'c'), (WANTED * TALKING) as u64)])
    );
    let served = CAPACITY + WANTED * TALKING;
    assert_eq!(board.messages(), served as u64);
    assert_eq!(board.connections(), (served + SILENT) as u64);
    assert_eq!(board.global.accepted, board.connections());
    assert_eq!(board.global.overload_passed, 0);
    assert_eq!(board.lost_connections(), 0);
    assert!(board.global.capacity_ns > 0 && board.global.capacity_episodes > 0);
    milter.stop();
}

#[test]
fn ten_times_the_clients_that_it_carries_get_the_answer_that_is_configured_and_are_counted_by_it() {
    for (action, reply) in [("tempfail", 't'), ("reject", 'r'), ("accept", 'a')] {
        let (milter, mut seen, board) = overloaded(action);
        let by_policy = seen.remove(&('E', 'c')).unwrap();
        let unserved = seen.remove(&('C', reply)).unwrap_or(0);
        assert_eq!(seen, BTreeMap::new(), "another answer than these two");
        assert_eq!(by_policy, (WANTED * TALKING) as u64);
        assert!(unserved > 0, "nobody came too many");
        assert_eq!(board.messages(), by_policy + CAPACITY as u64);
        assert_eq!(board.counters().overload_answered, unserved);
        // Of the silent ones some were to be answered so, had they said anything.
        let passed = board.global.overload_passed;
        assert!(
            (unserved..=unserved + SILENT as u64).contains(&passed),
            "{passed}"
        );
        let came = by_policy + unserved + (CAPACITY + SILENT) as u64;
        assert_eq!(board.connections(), came);
        assert_eq!(board.global.accepted, came);
        assert_eq!(board.lost_connections(), 0);
        milter.stop();
    }
}

#[test]
fn who_stops_in_the_middle_of_a_packet_or_takes_no_answer_is_let_go_and_nobody_else_waits() {
    let policy = r#"
local policy = {}
function policy.eom(ctx)
  if ctx.sender:match("^large@") then ctx:replace_body(string.rep("x", 16 * 1024 * 1024)) end
  ctx:add_header("X-Filter", "ok")
end
policy.collect = {"sender"}
return policy
"#;
    // One interpreter for all of them.
    let milter = Milter::started(policy, "max_pooled_procs = 1\n");
    let mut half = milter.session();
    half.put_raw(&[0, 0, 0, 9, b'M']);
    half.flush().unwrap();
    let mut deaf = milter.session();
    deaf.send_without_reading_the_end(&Message::from("large@b.example"))
        .unwrap();
    let mut session = milter.session();
    let mut served = 0;
    for text in ["in the middle of a packet", "and did not take its answer"] {
        wait_until(3 * SOON, text, || {
            let answer = session.message(&Message::from("a@b.example")).unwrap();
            assert!(answer.adds_header("X-Filter", "ok"), "{answer:?}");
            served += 1;
            milter.log().contains(text).then_some(())
        });
    }
    half.expect_close().unwrap();
    assert!(deaf.read_the_end().is_err());
    session.quit().unwrap();
    let json = milter.wait_json("all are over", |json| json["pool"]["requests"] == 0);
    assert_eq!(count(&json["pool"]["messages"]), served + 1, "{json:#}");
    assert_eq!(json["deaths"].as_array().unwrap().len(), 0, "{json:#}");
    milter.stop();
}
