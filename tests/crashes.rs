//! Whatever ends, stops or hangs a child: its own message is named, other connections are unharmed, what it had not read is handed on, and
//! the pool is whole again. Random deaths under load are in `demonstrations/conservation.rs`.
#![allow(clippy::unwrap_used)]

mod support;

use nix::sys::signal::Signal;
use scoreboard::Snapshot;
use serde_json::Value;
use support::milter::{Milter, count, pid, pids};
use support::mta::{FULL, Message, Mta};
use support::{SOON, process, wait_until};

/// Keeps the body; a message from stay@ waits at its end, one from spin@ computes there without an end.
const POLICY: &str = r#"
local policy = { collect = {"body"} }
function policy.mail(ctx, sender, args) end
function policy.rcpt(ctx, recipient, args) end
function policy.body(ctx, chunk) end
function policy.eom(ctx)
  if ctx.sender:match("^stay@") then milter.sleep(1000) end
  if ctx.sender:match("^spin@") then while true do end end
  ctx:add_header("X-Filter", #ctx.body)
end
return policy
"#;
/// Two children with a connection each at most, the lower slot first.
const TWO: &str = "max_pooled_procs = 2\nmin_pooled_procs = 2\ninterpreter_connections = 1\n";

/// A message with its queue id.
fn message(sender: &str, queue_id: &str) -> Message {
    let mut message = Message::from(sender);
    message.queue_id = queue_id.to_owned();
    message
}

#[track_caller]
fn serves(milter: &Milter) {
    let mut session = milter.session();
    let answer = session.message(&Message::from("a@b.example")).unwrap();
    assert!(answer.is_taken(), "{answer:?}");
    session.quit().unwrap();
}

/// The newest death, once it is told.
fn death_of(milter: &Milter, victim: i32) -> Value {
    let json = milter.wait_json("the death is told", |json| {
        json["deaths"][0]["pid"] == victim
    });
    json["deaths"][0].clone()
}

#[test]
fn whatever_signal_ends_a_child_its_message_is_named_and_the_other_child_serves_on() {
    for signal in [
        Signal::SIGKILL,
        Signal::SIGSEGV,
        Signal::SIGABRT,
        Signal::SIGBUS,
        Signal::SIGILL,
    ] {
        let milter = Milter::started(POLICY, &format!("{TWO}eom_timeout = \"20m\"\n"));
        let mut killer = milter.session();
        killer
            .send_without_reading_the_end(&message("stay@b.example", "4KILLER"))
            .unwrap();
        let mut other = milter.session();
        let long = message("b@b.example", "4OTHER");
        other.begin(&long).unwrap();
        let json = milter.wait_json("both are busy", |json| json["slots"][0]["phase"] == "eom");
        let children = pids(&json);
        let victim = children[0];
        // Nobody can take these two, which wait.
        let mut waiting: Vec<Mta> = (0..2).map(|_| milter.open()).collect();
        wait_until(SOON, "the child is dead", || {
            // Rust's handler lets the second one kill unless the fault was a real one.
            process::signal(victim, signal);
            (!process::runs(victim)).then_some(())
        });
        assert!(killer.read_the_end().is_err(), "its client was cut");
        let death = death_of(&milter, victim);
        assert_eq!(death["signal"], signal as i32, "{death}");
        assert_eq!(death["queue_id"], "4KILLER", "{death}");
        assert_eq!(death["phase"], "eom", "{death}");
        milter.wait_for_log("it was at eom of 4KILLER");
        // The other one goes on where it was, and those who waited get the successor.
        assert!(other.complete(&long).unwrap().is_taken());
        other.quit().unwrap();
        for session in &mut waiting {
            session.negotiate(FULL).unwrap();
            session.hello().unwrap();
            let answer = session.message(&Message::from("a@b.example")).unwrap();
            assert!(answer.is_taken(), "{answer:?}");
            session.put(b'Q', &[]);
            session.flush().unwrap();
        }
        let json = milter.wait_json("all is over", |json| {
            json["pool"]["requests"] == 0 && pids(json).len() == 2
        });
        assert_eq!(count(&json["lost"]["connections"]), 1, "{json:#}");
        assert_eq!(count(&json["lost"]["messages"]), 1, "{json:#}");
        assert_eq!(json["books"]["balanced"], true, "{json:#}");
        assert!(pids(&json).contains(&children[1]), "{json:#}");
        milter.stop();
    }
}

#[test]
fn a_child_that_gets_no_memory_dies_of_it_alone_and_names_its_message() {
    let milter = Milter::started(POLICY, TWO);
    let children = milter.children();
    let mut large = milter.session();
    let mut other = milter.session();
    let long = message("b@b.example", "4OTHER");
    other.begin(&long).unwrap();
    // Enough to learn whose message it is, and not to hold it.
    let size = process::said(children[0], "VmSize:");
    let kilobytes: u64 = size.split_whitespace().next().unwrap().parse().unwrap();
    process::limit(children[0], &format!("--as={}", (kilobytes + 4096) * 1024));
    let message = message("a@b.example", "4LARGE").with_body(&vec![b'x'; 32 << 20]);
    assert!(large.message(&message).is_err(), "its client was cut");
    let death = death_of(&milter, children[0]);
    assert_eq!(death["signal"], Signal::SIGABRT as i32, "{death}");
    assert_eq!(death["queue_id"], "4LARGE", "{death}");
    assert!(other.complete(&long).unwrap().is_taken());
    other.quit().unwrap();
    milter.wait_json("its successor", |json| {
        pids(json).len() == 2 && !pids(json).contains(&children[0])
    });
    // The successor has what memory there is.
    let mut session = milter.session();
    assert!(session.message(&message).unwrap().is_taken());
    session.quit().unwrap();
    milter.stop();
}

/// The child of the lowest slot computes at the end of message 4SPIN.
fn spinning(milter: &Milter) -> (Mta, i32) {
    let mut session = milter.session();
    session
        .send_without_reading_the_end(&message("spin@b.example", "4SPIN"))
        .unwrap();
    let json = milter.wait_json("it computes", |json| json["slots"][0]["phase"] == "eom");
    (session, pids(&json)[0])
}

#[test]
fn a_child_that_is_stopped_in_a_callback_is_killed_past_its_deadline_and_replaced() {
    // The child knows its deadline and would keep it, if it ran.
    let milter = Milter::started(POLICY, &format!("{TWO}eom_timeout = \"2s\"\n"));
    let (mut spinning, victim) = spinning(&milter);
    let mut other = milter.session();
    process::signal(victim, Signal::SIGSTOP);
    let answer = other.message(&Message::from("a@b.example")).unwrap();
    assert!(answer.is_taken(), "{answer:?}");
    assert!(spinning.read_the_end().is_err(), "its client was cut");
    let death = death_of(&milter, victim);
    assert_eq!(death["queue_id"], "4SPIN", "{death}");
    milter.wait_for_log("by its master, for it hung in the policy past its deadline");
    other.quit().unwrap();
    milter.wait_json("its successor", |json| pids(json).len() == 2);
    serves(&milter);
    milter.stop();
}

/// Kills whoever is in the higher slot, until the master waits for long before it forks again. What the board said then.
fn crash_loop(milter: &Milter, keep: i32) -> Snapshot {
    let board = milter.run_dir().join("policy.scoreboard");
    wait_until(2 * SOON, "the master waits before it forks", || {
        for child in process::children(milter.master()) {
            if child != keep {
                process::signal(child, Signal::SIGKILL);
            }
        }
        let snapshot = scoreboard::read(&board).unwrap();
        (snapshot.global.crash_loop >= 7 && snapshot.global.backoff_until_ns > 0)
            .then_some(snapshot)
    })
}

#[test]
fn a_master_that_waits_before_it_forks_again_serves_everybody_meanwhile() {
    let settings = TWO.replace("interpreter_connections = 1", "interpreter_connections = 8");
    let milter = Milter::started(POLICY, &settings);
    let keep = milter.children()[0];
    let mut open = milter.session();
    let before = crash_loop(&milter, keep).global;
    // An open session, a new one, status: all within the pause, whose end is on the board. None of them ends, which would end the pause.
    assert!(
        open.message(&Message::from("a@b.example"))
            .unwrap()
            .is_taken()
    );
    let mut new = milter.session();
    assert!(
        new.message(&Message::from("a@b.example"))
            .unwrap()
            .is_taken()
    );
    let text = milter.pmx(&["status", "--long"]).expect(0).out;
    let after = scoreboard::read(&milter.run_dir().join("policy.scoreboard"))
        .unwrap()
        .global;
    assert!(after.heartbeat_ns > before.heartbeat_ns);
    assert!(text.contains("crash loop"), "{text}");
    assert_eq!(
        after.backoff_until_ns, before.backoff_until_ns,
        "served within the pause"
    );
    assert!(
        after.heartbeat_ns < before.backoff_until_ns,
        "served within the pause"
    );
    new.quit().unwrap();
    open.quit().unwrap();
    // A connection that was finished says that not all die: the pool is whole at once.
    let json = milter.wait_json("two children", |json| pids(json).len() == 2);
    assert!(json["crash_loop"] == 0, "{json:#}");
    assert_eq!(pid(&json["slots"][0]["pid"]), keep);
    milter.stop();
}

#[cfg(target_arch = "x86_64")]
mod needs_ptrace {
    use super::support::hijack::Hijacked;
    use super::*;

    #[test]
    fn a_child_that_hangs_in_native_code_is_killed_past_its_deadline_and_replaced() {
        let milter = Milter::started(POLICY, &format!("{TWO}eom_timeout = \"2s\"\n"));
        let (mut spinning, victim) = spinning(&milter);
        let mut other = milter.session();
        // Where no hook of Lua's is ever reached again.
        Hijacked::seize(victim).let_go_hanging();
        for _ in 0..3 {
            let answer = other.message(&Message::from("a@b.example")).unwrap();
            assert!(answer.is_taken(), "{answer:?}");
        }
        assert!(spinning.read_the_end().is_err(), "its client was cut");
        let death = death_of(&milter, victim);
        assert_eq!(death["signal"], Signal::SIGKILL as i32, "{death}");
        assert_eq!(death["queue_id"], "4SPIN", "{death}");
        milter.wait_for_log("by its master, for it hung in the policy past its deadline");
        other.quit().unwrap();
        serves(&milter);
        milter.stop();
    }
}
