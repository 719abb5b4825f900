//! A restart loses nothing: no connection is refused or cut, no answer is wrong, no count goes back, whatever changes.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use scoreboard::{Phase, Reader, SlotState, Snapshot};
use support::crowd::Crowd;
use support::milter::{Milter, count};
use support::mta::{Address, Answer, Message, Mta};
use support::{SOON, process, wait_until};

fn policy(word: &str) -> String {
    format!(
        "local policy = {{}}\nfunction policy.mail(ctx, sender, args) end\nfunction policy.eom(ctx) ctx:add_header(\"X-Filter\", \"{word}\") end\nreturn policy\n"
    )
}

/// The same, but it takes its time to be loaded.
fn slow(word: &str) -> String {
    format!(
        "local stop = os.time() + 2\nwhile os.time() < stop do end\n{}",
        policy(word)
    )
}

fn message() -> Message {
    Message::from("a@b.example")
}

fn either(answer: &Answer) -> bool {
    answer.is_taken()
        && answer.edits.len() == 1
        && (answer.adds_header("X-Filter", "one") || answer.adds_header("X-Filter", "two"))
}

/// What only grows.
fn totals(board: &Snapshot) -> Vec<u64> {
    let global = &board.global;
    let mut totals = vec![
        global.generation,
        global.accepted,
        global.forks,
        global.deaths_clean,
        global.slots_high_water,
        board.messages(),
        board.connections(),
    ];
    totals.extend(board.counters().verdicts);
    totals
}

/// Looks at the board all the time, until it is told to stop: nothing goes back, the books balance, and it stays the same board.
fn watch(milter: &Milter, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<Result<u64, String>> {
    let path = milter.run_dir().join("policy.scoreboard");
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let first = scoreboard::read(&path).map_err(|error| error.to_string())?;
        let mut before = totals(&first);
        let mut looks = 0;
        while !stop.load(Ordering::SeqCst) {
            let board = scoreboard::read(&path).map_err(|error| error.to_string())?;
            if board.header.instance != first.header.instance {
                return Err("another instance".to_owned());
            }
            let now = totals(&board);
            if now.iter().zip(&before).any(|(now, before)| now < before) {
                return Err(format!("a count went back: {before:?}, then {now:?}"));
            }
            let books = board.books();
            if !books.is_balanced() {
                return Err(format!("the books do not balance: {books:?}"));
            }
            let mut slots = board.slots.iter();
            let live = slots.any(|slot| slot.master.state == SlotState::Live.word());
            if books.atomic && !live {
                return Err("nobody takes connections".to_owned());
            }
            before = now;
            looks += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(looks)
    })
}

#[test]
fn a_hundred_restarts_under_sixty_four_busy_connections_lose_nothing() {
    let milter = Milter::started(&policy("one"), "max_pooled_procs = 4");
    let master = milter.master();
    let crowd = Crowd::of(64, &milter.address(), either);
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = watch(&milter, &stop);
    for round in 0..100 {
        milter.write_policy(&policy(if round % 2 == 0 { "two" } else { "one" }));
        milter
            .pmx(&["restart"])
            .expect(0)
            .prints(&format!("restarted, pid {master}"))
            .prints("policy.lua has changed");
        let word = if round % 2 == 0 { "two" } else { "one" };
        let answer = milter.session().message(&message()).unwrap();
        assert!(
            answer.adds_header("X-Filter", word),
            "restart {round}: {answer:?}"
        );
    }
    let (sessions, messages) = crowd.disperse();
    stop.store(true, Ordering::SeqCst);
    let looks = watcher.join().unwrap().unwrap();
    assert!(messages > 1000 && looks > 100, "{messages} {looks}");
    let json = milter.wait_json("all is finished", |json| json["pool"]["requests"] == 0);
    // The test's own sessions came on top.
    assert_eq!(count(&json["pool"]["connections"]), sessions + 100);
    assert_eq!(count(&json["pool"]["messages"]), messages + 100);
    assert_eq!(json["generation"], 101);
    let path = milter.run_dir().join("policy.scoreboard");
    let board = Reader::open(&path).unwrap().detailed().unwrap();
    let ends = board.histograms().unwrap();
    assert_eq!(ends.of(Phase::Eom).iter().sum::<u64>(), messages + 100);
    assert!(board.books().accepted.is_balanced(), "{:?}", board.books());
    assert_eq!(json["lost"]["connections"], 0);
    assert_eq!(milter.master(), master, "the process is the same");
    milter.stop();
    assert!(milter.processes().is_empty());
    assert_eq!(milter.left_behind(), ["policy.scoreboard.last"]);
}

/// A message of a new session, which must be filtered by the policy with this word.
#[track_caller]
fn filtered_by(milter: &Milter, word: &str) {
    let answer = milter.session().message(&message()).unwrap();
    assert!(answer.adds_header("X-Filter", word), "{answer:?}");
}

#[test]
fn sizes_of_pool_and_children_change_without_a_gap_and_what_changed_is_told() {
    let milter = Milter::started(&policy("one"), "max_pooled_procs = 2");
    let crowd = Crowd::of(16, &milter.address(), either);
    let sizes = [
        ("max_pooled_procs = 8\nmin_pooled_procs = 3", 16, 3),
        ("max_pooled_procs = 1\ninterpreters = 3", 2, 1),
        ("max_pooled_procs = 0", 2, 1),
        ("max_pooled_procs = 2\ninterpreter_connections = 1", 4, 1),
        ("max_pooled_procs = 2", 4, 1),
    ];
    for (settings, slots, least) in sizes {
        milter.configure(settings);
        let before = crowd.messages();
        milter.pmx(&["restart"]).expect(0).prints(" -> ");
        let what = format!("the old children have gone and {slots} slots are left: {settings}");
        milter.wait_json(&what, |json| {
            let all = json["slots"].as_array().unwrap();
            let is_new = |slot: &serde_json::Value| {
                slot["pid"].is_null() || slot["generation"] == json["generation"]
            };
            // The slots are published when a child is buried, their number at the end of that turn.
            all.iter().all(is_new) && json["pool"]["slots_max"] == slots
        });
        assert!(milter.children().len() >= least, "{settings}");
        wait_until(SOON, "mail goes on", || {
            (crowd.messages() > before + 16).then_some(())
        });
    }
    let (sessions, messages) = crowd.disperse();
    let json = milter.wait_json("all is finished", |json| json["pool"]["requests"] == 0);
    assert_eq!(count(&json["pool"]["connections"]), sessions);
    assert_eq!(count(&json["pool"]["messages"]), messages);
    assert_eq!(json["deaths"].as_array().unwrap().len(), 0, "{json:#}");
}

#[test]
fn everybody_is_served_in_every_phase_of_a_restart() {
    // Long enough that each phase lasts for as long as this test wants.
    let patient = "start_timeout = \"10m\"\ncallback_timeout = \"10m\"";
    for pool in [
        "max_pooled_procs = 1",
        "max_pooled_procs = 3",
        "max_pooled_procs = 0",
    ] {
        let milter = Milter::started(&policy("one"), &format!("{patient}\n{pool}"));
        let mut open = milter.session();
        let crowd = Crowd::of(12, &milter.address(), either);
        crowd.all_are_served("before");
        milter.write_policy(&slow("two"));
        let mut restart = milter.pmx_in_background(&["restart"]);
        let reading = wait_for_checker(&milter);
        process::signal(reading, Signal::SIGSTOP);
        crowd.all_are_served("while the policy is tried");
        process::signal(reading, Signal::SIGCONT);
        let held = new_children(&milter);
        for child in &held {
            process::signal(*child, Signal::SIGSTOP);
        }
        crowd.all_are_served("while no new child is ready");
        assert!(!restart.has_ended(), "{}", restart.said());
        for child in &held {
            process::signal(*child, Signal::SIGCONT);
        }
        restart.wait(SOON).expect(0);
        crowd.all_are_served("while old children finish");
        filtered_by(&milter, "two");
        assert!(
            open.message(&message())
                .unwrap()
                .adds_header("X-Filter", "one")
        );
        open.quit().unwrap();
        let (_, messages) = crowd.disperse();
        let json = milter.wait_json("all is finished", |json| {
            json["pool"]["requests"] == 0 && json["pool"]["retiring"] == 0
        });
        assert_eq!(count(&json["pool"]["messages"]), messages + 2);
        assert_eq!(json["deaths"].as_array().unwrap().len(), 0, "{json:#}");
    }
}

/// The children of the second generation, once the first of them is there; none of them can be ready yet.
#[track_caller]
fn new_children(milter: &Milter) -> Vec<i32> {
    let json = milter.wait_json("a child of the new generation", |json| {
        let mut slots = json["slots"].as_array().unwrap().iter();
        slots.any(|slot| slot["generation"] == 2 && !slot["pid"].is_null())
    });
    let slots = json["slots"].as_array().unwrap().iter();
    let new = slots.filter(|slot| slot["generation"] == 2 && !slot["pid"].is_null());
    new.map(|slot| {
        assert_eq!(slot["state"], "starting", "{slot:#}");
        support::milter::pid(&slot["pid"])
    })
    .collect()
}

#[test]
fn a_session_keeps_the_policy_it_began_with_and_new_ones_get_the_new_one_at_once() {
    let milter = Milter::started(&policy("one"), "max_pooled_procs = 1");
    let mut open = milter.session();
    open.begin(&message()).unwrap();
    milter.write_policy(&policy("two"));
    milter.pmx(&["restart"]).expect(0);
    filtered_by(&milter, "two");
    // The old child keeps its slot until it is done; until then the next generation has none.
    milter.write_policy(&policy("three"));
    let mut third = milter.pmx_in_background(&["restart"]);
    milter.wait_json("the third generation has begun", |json| {
        json["generation"] == 3
    });
    wait_until(SOON, "it says what it waits for", || {
        third
            .said()
            .contains("waiting: 1 process of before")
            .then_some(())
    });
    milter
        .pmx(&["status", "--long"])
        .expect(0)
        .prints("generation 3: 1 of 2 old");
    filtered_by(&milter, "two");
    let answer = open.complete(&message()).unwrap();
    assert!(answer.adds_header("X-Filter", "one"), "{answer:?}");
    open.quit().unwrap();
    third.wait(2 * SOON).expect(0);
    filtered_by(&milter, "three");
    let json = milter.json();
    assert_eq!(json["lost"]["connections"], 0, "{json:#}");
}

#[test]
fn a_restart_that_only_waits_for_a_slot_has_not_failed_however_long_it_waits() {
    let settings = "max_pooled_procs = 1\nstart_timeout = \"1s\"";
    let milter = Milter::started(&policy("one"), settings);
    let mut open = milter.session();
    open.begin(&message()).unwrap();
    milter.write_policy(&policy("two"));
    milter.pmx(&["restart"]).expect(0);
    milter.write_policy(&policy("three"));
    let mut third = milter.pmx_in_background(&["restart"]);
    milter.wait_json("the third generation has begun", |json| {
        json["generation"] == 3
    });
    let began = std::time::Instant::now();
    wait_until(SOON, "start_timeout has passed twice", || {
        (began.elapsed() >= Duration::from_millis(2500)).then_some(())
    });
    assert!(!third.has_ended(), "{}", third.said());
    filtered_by(&milter, "two");
    assert!(open.complete(&message()).unwrap().is_taken());
    open.quit().unwrap();
    third.wait(2 * SOON).expect(0);
    filtered_by(&milter, "three");
}

#[test]
fn a_connection_that_no_child_has_read_is_served_by_a_new_one() {
    let milter = Milter::started(&policy("one"), "max_pooled_procs = 1");
    let stuck = milter.children()[0];
    process::signal(stuck, Signal::SIGSTOP);
    let mut waiting = milter.open();
    wait_until(SOON, "the master has taken it back", || {
        let board = scoreboard::read(&milter.run_dir().join("policy.scoreboard")).unwrap();
        (board.global.waiting == 1).then_some(())
    });
    milter.write_policy(&policy("two"));
    milter.pmx(&["restart"]).expect(0);
    waiting.negotiate(support::mta::FULL).unwrap();
    waiting.hello().unwrap();
    let answer = waiting.message(&message()).unwrap();
    assert!(answer.adds_header("X-Filter", "two"), "{answer:?}");
    // The old one has heard nothing yet, and obeys as soon as it can.
    process::signal(stuck, Signal::SIGCONT);
    wait_until(SOON, "the old child has gone", || {
        (!process::runs(stuck)).then_some(())
    });
    let json = milter.json();
    assert_eq!(json["deaths"].as_array().unwrap().len(), 0, "{json:#}");
}

#[test]
fn another_port_is_opened_before_the_old_one_is_closed() {
    let milter = Milter::started(&policy("one"), "");
    let mut open = milter.session();
    let socket = milter.path("socket");
    milter.configure_milters(&format!(
        "[milter.policy]\nport = \"unix:{}\"\npolicy = \"policy.lua\"\n",
        socket.display()
    ));
    let master = milter.master();
    let before = milter.address();
    let mut silent = Mta::open(&before, SOON).unwrap();
    milter
        .pmx(&["restart"])
        .expect(0)
        .prints("port: ")
        .prints("smtpd_milters = unix:");
    assert_eq!(milter.master(), master);
    for mta in [&mut open, &mut silent] {
        if mta.actions == 0 {
            mta.negotiate(support::mta::FULL).unwrap();
            mta.hello().unwrap();
        }
        assert!(mta.message(&message()).unwrap().is_taken());
    }
    assert!(Mta::open(&before, SOON).is_err(), "the old port is closed");
    let mut moved = Mta::ready(&Address::Unix(socket.clone()), SOON).unwrap();
    assert!(moved.message(&message()).unwrap().is_taken());
    milter
        .status()
        .expect(0)
        .prints(&format!("port=unix:{}", socket.display()));
    // And back, with another mode in between.
    milter.configure("");
    milter.pmx(&["restart"]).expect(0);
    assert!(!socket.exists());
    filtered_by(&milter, "one");
}

/// The child of this name.
fn child_named(pid: i32, name: &str) -> Option<i32> {
    let comm = |child: &i32| fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
    let mut children = process::children(pid).into_iter();
    children.find(|child| comm(child).trim() == name)
}

/// The process that reads the policy in a trial.
fn checker(milter: &Milter) -> Option<i32> {
    child_named(child_named(milter.master(), "pmx-trial")?, "pmx-checker")
}

/// Waits until a trial reads the policy: all else has been looked at then.
#[track_caller]
fn wait_for_checker(milter: &Milter) -> i32 {
    wait_until(SOON, "the trial's checker", || checker(milter))
}

/// The milter on another host, with the same number.
fn on_host(milter: &Milter, host: &str, settings: &str) {
    milter.configure_milters(&format!(
        "[milter.policy]\nport = \"inet:{}@{host}\"\npolicy = \"policy.lua\"\n{settings}\n",
        milter.port
    ));
}

#[test]
fn a_port_that_another_program_has_is_refused_and_the_good_one_is_never_closed() {
    let milter = Milter::started(&policy("one"), "");
    let crowd = Crowd::of(4, &milter.address(), either);
    let _other = std::net::TcpListener::bind(("127.0.0.2", milter.port)).unwrap();
    // The same number; with 0.0.0.0 the milter's own port is in the way as well, and could be closed.
    for host in ["127.0.0.2", "0.0.0.0"] {
        on_host(&milter, host, "max_pooled_procs = 3");
        milter
            .pmx(&["restart"])
            .expect(1)
            .says("in use")
            .says("the running milter is untouched");
        assert_eq!(milter.json()["generation"], 1);
    }
    filtered_by(&milter, "one");
    crowd.disperse();
}

#[test]
fn a_port_that_is_lost_at_the_last_moment_fails_the_restart_and_the_old_one_serves() {
    let milter = Milter::started(&policy("one"), "");
    milter.write_policy(&slow("two"));
    on_host(&milter, "127.0.0.2", "max_pooled_procs = 3");
    let restart = milter.pmx_in_background(&["restart"]);
    wait_for_checker(&milter);
    let other = std::net::TcpListener::bind(("127.0.0.2", milter.port)).unwrap();
    let outcome = restart
        .wait(SOON)
        .expect(1)
        .says("it still listens on inet:")
        .says("all else of the new configuration serves")
        .prints("max_pooled_procs: ");
    assert!(!outcome.out.contains("port:"), "{}", outcome.out);
    assert!(!outcome.out.contains("smtpd_milters"), "{}", outcome.out);
    filtered_by(&milter, "two");
    let port = format!("port=inet:{}@127.0.0.1", milter.port);
    milter.status().expect(0).prints(&port);
    // Asked again when it is free.
    drop(other);
    milter
        .pmx(&["restart"])
        .expect(0)
        .prints("port: ")
        .prints("smtpd_milters = inet:127.0.0.2:");
    assert!(Mta::open(&milter.address(), SOON).is_err());
}

#[test]
fn a_port_that_overlaps_is_changed_and_one_that_is_written_otherwise_stays() {
    let milter = Milter::started(&policy("one"), "");
    on_host(&milter, "0.0.0.0", "");
    let wide = milter.pmx(&["restart"]).expect(0).prints("port: ");
    assert!(
        wide.err.contains("was closed for an instant"),
        "{}",
        wide.err
    );
    filtered_by(&milter, "one");
    milter.configure("");
    milter
        .pmx(&["restart"])
        .expect(0)
        .says("was closed for an instant");
    filtered_by(&milter, "one");
    on_host(&milter, "localhost", "");
    let same = milter.pmx(&["restart"]).expect(0).prints("@localhost");
    assert!(!same.err.contains("closed"), "{}", same.err);
    filtered_by(&milter, "one");
}

#[test]
fn the_mode_of_a_socket_that_stays_is_set_anew() {
    let milter = Milter::on_unix_socket(&policy("one"), "socket_mode = \"0600\"");
    milter.start();
    let inode = |milter: &Milter| fs::metadata(milter.path("socket")).unwrap().ino();
    let before = inode(&milter);
    milter.configure("socket_mode = \"0640\"\nstatus_mode = \"0644\"");
    milter
        .pmx(&["restart"])
        .expect(0)
        .prints("socket_mode: \"0600\" -> \"0640\"");
    assert_eq!(inode(&milter), before);
    for (name, mode) in [("socket", 0o640), ("run/policy.scoreboard", 0o644)] {
        let meta = fs::metadata(milter.path(name)).unwrap();
        assert_eq!(meta.mode() & 0o7777, mode, "{name}");
    }
    filtered_by(&milter, "one");
}

/// Runs a copy of the program with these arguments.
fn by(program: &std::path::Path, milter: &Milter, arguments: &[&str]) -> support::command::Outcome {
    let mut command = Command::new(program);
    command
        .arg("-c")
        .arg(milter.path("pmx.conf"))
        .args(arguments)
        .env("PMX_TEST_DIR", milter.path(""))
        .env_remove("NOTIFY_SOCKET");
    support::command::run(command, 2 * SOON)
}

#[test]
fn a_new_program_file_takes_over_also_when_it_has_the_old_ones_name() {
    let milter = Milter::new(&policy("one"));
    let program = milter.path("pmx-milter");
    let install = || {
        let fresh = milter.path("pmx-milter.new");
        // Not by this process: another thread's child would hold the file open for writing, and it could not be executed.
        let mut copy = Command::new("cp");
        copy.arg(support::milter::PROGRAM).arg(&fresh);
        support::command::run(copy, SOON).expect(0);
        fs::rename(&fresh, &program).unwrap();
        fs::metadata(&program).unwrap().ino()
    };
    let runs = |pid: i32| fs::metadata(format!("/proc/{pid}/exe")).unwrap().ino();
    let first = install();
    by(&program, &milter, &["start"]).expect(0);
    let master = milter.master();
    assert_eq!(runs(master), first);
    let mut open = milter.session();
    let second = install();
    by(&program, &milter, &["restart"])
        .expect(0)
        .prints("program: another file of version");
    assert_eq!((milter.master(), runs(master)), (master, second));
    assert!(open.message(&message()).unwrap().is_taken());
    open.quit().unwrap();
    filtered_by(&milter, "one");
    by(&program, &milter, &["restart"])
        .expect(0)
        .prints("nothing changed");
    by(&program, &milter, &["stop"]).expect(0);
    assert!(milter.processes().is_empty());
}

/// Locks a file as long as it is open.
fn lock(file: &fs::File) {
    let lock = nix::libc::flock {
        l_type: i16::try_from(nix::libc::F_WRLCK).unwrap(),
        l_whence: 0,
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_SETLK(&lock)).unwrap();
}

/// A file of this process's own: kept open and locked.
fn write_locked(path: &Path, text: &str) -> fs::File {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    lock(&file);
    file
}

/// Of a request's bytes: the first eight of its SHA-256.
fn digest(text: &str) -> u64 {
    use sha2::Digest;
    let all = sha2::Sha256::digest(text.as_bytes());
    u64::from_be_bytes(all[..8].try_into().unwrap())
}

/// A request for a restart with this program, and its digest.
#[track_caller]
fn request(milter: &Milter, program: &str, id: u64) -> (String, u64) {
    let dump = milter.pmx(&["check", "--dump"]).expect(0).out;
    let request = serde_json::json!({
        "id": format!("{id:016x}"),
        "program": program,
        "config_file": milter.path("pmx.conf"),
        "config": dump,
    });
    let text = request.to_string();
    let digest = digest(&text);
    (text, digest)
}

/// The file of a request, or of the answer to it.
fn file(milter: &Milter, kind: &str, id: u64) -> PathBuf {
    milter.run_dir().join(format!("policy.{kind}-{id:016x}"))
}

/// The master's answer.
#[track_caller]
fn answer(milter: &Milter, id: u64) -> String {
    wait_until(SOON, "an answer", || {
        fs::read_to_string(file(milter, "answer", id)).ok()
    })
}

/// Asks the master for a restart with this program, as the control program does; its answer.
#[track_caller]
fn ask_for(milter: &Milter, program: &str, id: u64) -> String {
    let (text, digest) = request(milter, program, id);
    let _lock = write_locked(&file(milter, "restart", id), &text);
    process::signal_with(milter.master(), Signal::SIGUSR2, digest);
    answer(milter, id)
}

#[test]
fn a_program_that_cannot_take_over_is_refused_and_the_milter_serves_on() {
    let milter = Milter::started(&policy("one"), "");
    let (master, children) = (milter.master(), milter.children());
    let none = milter.path("none");
    let text = milter.path("pmx.conf");
    for (id, program, why) in [
        (1, "/bin/false", "ended without a word"),
        (2, "/bin/ls", "takeover"),
        (3, none.to_str().unwrap(), "No such file"),
        (4, text.to_str().unwrap(), "no program"),
        (5, "/", "no program"),
        (6, "/usr/bin/yes", "says more in its trial"),
    ] {
        let answer = ask_for(&milter, program, id);
        assert!(answer.starts_with("failed 1 "), "{program}: {answer}");
        assert!(answer.contains(why), "{program}: {answer}");
        filtered_by(&milter, "one");
    }
    assert_eq!((milter.master(), milter.children()), (master, children));
    let board = scoreboard::read(&milter.run_dir().join("policy.scoreboard")).unwrap();
    assert_eq!(
        (board.global.generation, board.global.reload_result),
        (1, 2)
    );
    assert_ne!(board.global.reload_at_ns, 0);
    filtered_by(&milter, "one");
    milter.stop();
    assert_eq!(milter.left_behind(), ["policy.scoreboard.last"]);
}

#[test]
fn only_the_very_bytes_that_were_asked_for_are_obeyed() {
    let milter = Milter::started(&policy("one"), "");
    let master = milter.master();
    let program = support::milter::PROGRAM;
    let (text, good) = request(&milter, program, 1);
    // Whoever shares the master's user can write to the file: the lock stays, and so does the name.
    let changed = text.replace("policy.lua", "other.lua");
    assert_ne!(changed, text);
    milter.write("other.lua", &policy("two"));
    let kept = write_locked(&file(&milter, "restart", 1), &changed);
    process::signal_with(master, Signal::SIGUSR2, good);
    let refused = answer(&milter, 1);
    assert!(
        refused.contains("another process has changed it"),
        "{refused}"
    );
    drop(kept);
    // A signal that tells no digest asks for nothing, and a file without its writer is nobody's request.
    let kept = write_locked(
        &file(&milter, "restart", 2),
        &request(&milter, program, 2).0,
    );
    process::signal(master, Signal::SIGUSR2);
    for id in 100..500 {
        fs::write(file(&milter, "restart", id), &text).unwrap();
    }
    milter.pmx(&["restart"]).expect(0).prints("nothing changed");
    filtered_by(&milter, "one");
    assert!(file(&milter, "restart", 2).exists());
    assert!((100..500).all(|id| !file(&milter, "restart", id).exists()));
    assert_eq!(milter.json()["generation"], 2);
    drop(kept);
    // One that makes no sense is told so.
    let kept = write_locked(&file(&milter, "restart", 3), "nonsense");
    process::signal_with(master, Signal::SIGUSR2, digest("nonsense"));
    let refused = answer(&milter, 3);
    assert!(
        refused.contains("it is ignored") || refused.contains("expected"),
        "{refused}"
    );
    drop(kept);
    milter.stop();
    assert_eq!(milter.left_behind(), ["policy.scoreboard.last"]);
}

#[test]
fn a_takeover_that_fails_is_told_and_children_finish_what_they_have() {
    let milter = Milter::started(&policy("one"), "");
    let mut open = milter.session();
    open.begin(&message()).unwrap();
    milter.write_policy(&slow("two"));
    let restart = milter.pmx_in_background(&["restart"]);
    wait_for_checker(&milter);
    // What must not be removed is removed after the trial has looked at it.
    let lock = milter.run_dir().join("policy.lock");
    let kept = milter.path("kept");
    fs::rename(&lock, &kept).unwrap();
    fs::copy(&kept, &lock).unwrap();
    restart
        .wait(SOON)
        .expect(1)
        .says("cannot take over: the lock file is another one by now");
    milter.wait_for_log("cannot take over: the lock file is another one by now");
    assert!(open.complete(&message()).unwrap().is_taken());
    open.quit().unwrap();
    wait_until(SOON, "nobody is left", || {
        milter.processes().is_empty().then_some(())
    });
    milter.write_policy(&policy("one"));
    milter.start();
    filtered_by(&milter, "one");
}

#[test]
fn children_that_do_not_come_up_leave_the_old_ones_serving_and_are_told() {
    let milter = Milter::started(&policy("one"), "max_pooled_procs = 1");
    // What the old ones finish does not make the new ones look well.
    let crowd = Crowd::of(4, &milter.address(), either);
    // Long enough that a new child can be killed before it is ready.
    milter.write_policy(&slow("two"));
    let mut restart = milter.pmx_in_background(&["restart"]);
    let old = milter.children();
    wait_until(2 * SOON, "the restart is given up", || {
        for pid in milter.children() {
            if !old.contains(&pid) {
                process::signal(pid, Signal::SIGKILL);
            }
        }
        restart.has_ended().then_some(())
    });
    restart
        .wait(SOON)
        .expect(1)
        .says("no child of the new generation comes up");
    milter.status().expect(0).prints("policy: running");
    filtered_by(&milter, "one");
    assert!(crowd.disperse().1 > 0);
    // As soon as one comes up, it takes over.
    wait_until(2 * SOON, "the new generation serves", || {
        let answer = milter.session().message(&message()).unwrap();
        answer.adds_header("X-Filter", "two").then_some(())
    });
}

#[test]
fn a_pool_that_outgrows_its_board_gets_a_new_one_that_carries_the_totals_on() {
    let milter = Milter::started(&policy("one"), "max_pooled_procs = 2");
    let read = || scoreboard::read(&milter.run_dir().join("policy.scoreboard")).unwrap();
    for _ in 0..3 {
        filtered_by(&milter, "one");
    }
    let mut open = milter.session();
    open.begin(&message()).unwrap();
    let before = milter.wait_json("one is in progress", |json| {
        json["messages_in_progress"] == 1 && json["pool"]["requests"] == 1
    });
    let old = read().header.instance;
    // Twice as many slots as these do not fit into the 1,024 of the board.
    milter.configure("max_pooled_procs = 600");
    milter
        .pmx(&["restart"])
        .expect(0)
        .says("a new scoreboard was made");
    let board = read();
    assert_ne!(board.header.instance, old);
    assert_eq!(board.header.previous_instance, old);
    assert!(board.header.nslots >= 1200);
    let same = [
        "messages_started",
        "messages_in_progress",
        "verdicts",
        "aborted",
    ];
    let now = milter.json();
    for member in same {
        assert_eq!(now[member], before[member], "{now:#}");
    }
    assert_eq!(now["pool"]["connections"], before["pool"]["connections"]);
    assert_eq!(now["pool"]["slots_max"], 1200);
    filtered_by(&milter, "one");
    // Once more, while a child still writes to the board of before; and what it then finishes is seen.
    milter.configure("max_pooled_procs = 3");
    milter.pmx(&["restart"]).expect(0);
    assert_eq!(read().header.instance, board.header.instance);
    assert!(open.complete(&message()).unwrap().is_taken());
    milter.wait_json("it is counted while its child lives", |json| {
        json["verdicts"]["accept"] == 5 && json["pool"]["requests"] == 1
    });
    open.quit().unwrap();
    let json = milter.wait_json("its child has gone", |json| {
        json["pool"]["requests"] == 0 && json["pool"]["retiring"] == 0
    });
    assert_eq!(json["pool"]["messages"], 5, "{json:#}");
    assert_eq!(json["pool"]["connections"], 5, "{json:#}");
    let board = read();
    assert!(board.books().is_balanced(), "{:?}", board.books());
    milter.stop();
    assert_eq!(milter.left_behind(), ["policy.scoreboard.last"]);
}

#[test]
fn a_new_board_has_everything_on_it_before_it_has_its_name() {
    let milter = Milter::started(&policy("one"), "max_pooled_procs = 2");
    for _ in 0..3 {
        filtered_by(&milter, "one");
    }
    let path = milter.run_dir().join("policy.scoreboard");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    // All the time: what is to be seen lasts for an instant.
    let reader = std::thread::spawn(move || {
        let (mut instances, mut before) = (Vec::new(), Vec::new());
        while !stopped.load(Ordering::SeqCst) {
            let board = scoreboard::read(&path).map_err(|error| error.to_string())?;
            if board.state() == scoreboard::MilterState::Stopped {
                return Err("the old board is closed, and no new one is there".to_owned());
            }
            let now = totals(&board);
            if now.iter().zip(&before).any(|(now, before)| now < before) {
                return Err(format!("a count went back: {before:?}, then {now:?}"));
            }
            before = now;
            if instances.last() != Some(&board.header.instance) {
                instances.push(board.header.instance);
            }
        }
        Ok(instances.len())
    });
    // Each time more than the board has slots for.
    for most in [600, 1300, 2700] {
        milter.configure(&format!("max_pooled_procs = {most}"));
        milter
            .pmx(&["restart"])
            .expect(0)
            .says("a new scoreboard was made");
        milter.wait_json("every old child has gone", |json| {
            json["pool"]["retiring"] == 0
        });
    }
    stop.store(true, Ordering::SeqCst);
    assert_eq!(reader.join().unwrap(), Ok(4));
    milter.stop();
    assert_eq!(milter.left_behind(), ["policy.scoreboard.last"]);
}

mod needs_mounts {
    use super::*;

    /// In a mount namespace of its own with a small tmpfs on the run directory ($1): the program is $2, its configuration $3, the log $4.
    const IN_A_SMALL_TMPFS: &str = r#"
        set -u; mount -t tmpfs -o size=16m,mode=755 none "$1" || exit 99
        pmx() { "$program" -c "$conf" "$@"; }
        run=$1 program=$2 conf=$3 log=$4 times=0
        fill() { dd if=/dev/zero of="$run/fill" bs=4k 2>/dev/null; true; }
        told() { i=0; until [ "$(grep -c "$1" "$log")" -ge "$2" ]; do i=$((i + 1)); [ $i -lt 3000 ] || exit 98; sleep 0.01; done; }
        pmx start || exit 97
        fill; pmx restart; echo "full: $?"; rm "$run/fill"
        # Loads slowly, so that there is time to fill the directory before the answer.
        cp "$5" "$6"
        for when in never later; do
            times=$((times + 1))
            pmx restart & asker=$!
            told "a restart is asked for" $times
            fill
            if [ $when = later ]; then told "cannot be answered" 2; rm "$run/fill"; fi
            wait $asker; echo "$when: $?"
            rm -f "$run/fill"
        done
        pmx stop
        ls -A "$run"
    "#;

    #[test]
    fn a_run_directory_without_room_is_told_and_no_answer_is_waited_for_in_vain() {
        let milter = Milter::new(&policy("one"));
        milter.write("slow.lua", &slow("one"));
        let dir = milter.run_dir();
        fs::create_dir_all(&dir).unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c", IN_A_SMALL_TMPFS, "sh"])
            .args([&dir, Path::new(support::milter::PROGRAM)])
            .args(["pmx.conf", "log", "slow.lua", "policy.lua"].map(|name| milter.path(name)))
            .env("PMX_TEST_DIR", milter.path(""))
            .current_dir("/");
        let outcome = support::command::run(command, 4 * SOON).expect(0);
        let outcome = outcome
            .prints("full: 1")
            .says("No space left on device")
            .says("; free some space there, or enlarge it")
            .prints("never: 0")
            .says("is there no space left?")
            .prints("later: 0");
        let (_, later) = outcome.out.split_once("never: 0").unwrap();
        assert!(later.contains("nothing changed"), "{}", outcome.out);
        assert!(
            outcome
                .out
                .trim_end()
                .ends_with("policy.lock\npolicy.scoreboard.last"),
            "{}",
            outcome.out
        );
    }
}

mod needs_root {
    use super::*;

    fn open_files(pid: i32) -> Option<Vec<String>> {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let links = entries.map(|entry| fs::read_link(entry.ok()?.path()).ok());
        let mut links: Vec<String> = links
            .map(|link| Some(link?.display().to_string()))
            .collect::<Option<_>>()?;
        links.sort();
        Some(links)
    }

    #[test]
    fn the_process_that_checks_the_policy_in_a_trial_has_nothing_of_its_master() {
        assert!(
            support::is_root(),
            "this test needs root: run tests/run, or leave it out with -- --skip needs_root::"
        );
        let milter = Milter::started(&policy("one"), "");
        milter.write_policy(&slow("two"));
        let restart = milter.pmx_in_background(&["restart"]);
        let mut seen = Vec::new();
        let end = std::time::Instant::now() + SOON;
        let is_alone = |links: &[String]| {
            links.len() == 4 && links[..3] == ["/dev/null"; 3] && links[3].starts_with("pipe:")
        };
        while !is_alone(&seen) && std::time::Instant::now() < end {
            if let Some(links) = checker(&milter).and_then(open_files) {
                seen = links;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(is_alone(&seen), "{seen:?}");
        restart.wait(SOON).expect(0);
        filtered_by(&milter, "two");
    }

    mod needs_python3_and_cc {
        use super::*;

        #[test]
        fn a_trial_counts_only_if_it_ends_well_and_its_plan_is_sealed() {
            let milter = Milter::started(&policy("one"), "");
            let master = milter.master();
            let wrong = [
                ("3", "did not end well"),
                ("0", "its plan could still be changed"),
            ];
            for (id, (status, why)) in (1..).zip(wrong) {
                let source = milter.path("says-ready.c");
                let code = format!(
                    "#include <stdio.h>\nint main(void) {{ puts(\"ready 0\"); return {status}; }}\n"
                );
                fs::write(&source, code).unwrap();
                let program = milter.path(&format!("says-ready-{status}"));
                let mut cc = Command::new("cc");
                cc.arg("-o").arg(&program).arg(&source);
                support::command::run(cc, SOON).expect(0);
                let answer = ask_for(&milter, program.to_str().unwrap(), id);
                assert!(answer.starts_with("failed 1 "), "{answer}");
                assert!(answer.contains(why), "{answer}");
                assert_eq!(milter.master(), master);
            }
            filtered_by(&milter, "one");
        }
    }
}

mod needs_postfix {
    use super::*;
    use crate::support::postfix::Postfix;
    use crate::support::smtp::smtp_source;

    #[test]
    fn postfix_defers_nothing_while_its_milter_is_restarted() {
        let milter = Milter::started(&policy("one"), "max_pooled_procs = 4");
        let postfix = Postfix::start(&format!("inet:127.0.0.1:{}", milter.port), None);
        let port = postfix.port;
        let source = std::thread::spawn(move || smtp_source(port, 20, 1500, 500));
        let mut restarts = 0;
        while !source.is_finished() {
            milter.write_policy(&policy(if restarts % 2 == 0 { "two" } else { "one" }));
            milter.pmx(&["restart"]).expect(0);
            restarts += 1;
        }
        source.join().unwrap().expect(0);
        assert!(restarts >= 3, "{restarts} restarts");
        let json = milter.wait_json("all is finished", |json| json["pool"]["requests"] == 0);
        assert_eq!(json["verdicts"]["accept"], 1500, "{json:#}");
        let log = postfix.log();
        for word in ["451 4.", "milter-reject", "warning: milter", "deferred"] {
            assert!(!log.contains(word), "{word} in Postfix's log");
        }
    }
}
