//! A child's inside without its process: intake, ledger and loop as its master made them, with the master's ends in the test's hands.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use nix::unistd::Pid;
use scoreboard::{Board, ChildPage, Spec};

use super::intake::Intake;
use super::interpreter::Loop;
use super::ledger::Ledger;
use super::orders::Handed;
use super::{PANICKED, Treatment, order, word};
use crate::config::Config;
use crate::policy::{self, Limits, Lists};
use crate::sys::clock;
use crate::sys::control_page::{ControlPage, Word};
use crate::sys::pass_fd;
use crate::sys::process::PidFd;

const LONG: Duration = Duration::from_secs(60);

/// A child that was not forked.
struct Child {
    intake: Arc<Intake>,
    /// The master's end.
    control: OwnedFd,
    page: ControlPage,
    board: Board,
    _dir: tempfile::TempDir,
}

impl Child {
    fn new(policy: &str, settings: &str) -> Child {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policy.lua");
        fs::write(&file, policy).unwrap();
        let bundle = policy::check_here(&file, &Limits::default()).unwrap();
        let milter = milter(dir.path(), settings);
        let spec = Spec {
            capacity: 1,
            mode: 0o600,
            group: None,
            previous_instance: [0; 2],
        };
        let mut board = Board::create(dir.path(), "policy.scoreboard", &spec).unwrap();
        board.adopt_child(0, 1);
        let own = ChildPage::map(board.descriptor(), board.geometry(), 0, 1).unwrap();
        let (descriptor, page) = ControlPage::create().unwrap();
        let ledger = Ledger::new(
            own,
            ControlPage::map(&descriptor).unwrap(),
            1,
            milter.interpreters as usize,
        );
        let (control, far_end) = pass_fd::pair().unwrap();
        let master = PidFd::open(Pid::this()).unwrap();
        let lists = Lists::new(&bundle);
        let intake = Intake::new(milter, Arc::new(bundle), lists, far_end, master, ledger).unwrap();
        Child {
            intake: Arc::new(intake),
            control,
            page,
            board,
            _dir: dir,
        }
    }

    fn queue(&self) -> u64 {
        self.board.read_child(0).queue
    }
}

fn milter(dir: &Path, settings: &str) -> crate::config::MilterConfig {
    let text = format!(
        "[milter.policy]\nport = \"inet:3366@127.0.0.1\"\npolicy = \"policy.lua\"\n{settings}\n"
    );
    let config = Config::parse_text(&dir.join("pmx.conf"), &text).unwrap();
    config.milters.into_iter().next().unwrap()
}

fn connection(treatment: Treatment) -> (Handed, UnixStream) {
    let (ours, mta) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let handed = Handed {
        socket: ours.into(),
        treatment,
    };
    (handed, mta)
}

const TAKES_ALL: &str = "return { eom = function(ctx) end }";

#[test]
fn the_only_interpreter_reads_every_order_that_waits_and_one_of_several_reads_one() {
    let order = [order::CONNECTION, Treatment::Policy.byte(), b'u'];
    for (settings, each_turn) in [
        ("interpreters = 1", [64, 70, 70]),
        ("interpreters = 2", [1, 2, 3]),
    ] {
        let child = Child::new(TAKES_ALL, settings);
        let mut mtas = Vec::new();
        for _ in 0..70 {
            let (handed, mta) = connection(Treatment::Policy);
            pass_fd::send(&child.control, &order, Some(&handed.socket)).unwrap();
            mtas.push(mta);
        }
        // Something that nobody understands holds up nothing.
        pass_fd::send(&child.control, b"?", None).unwrap();
        let mut interpreter = Loop::new(Arc::clone(&child.intake), 0).unwrap();
        // The other one is there already, so that none is started.
        if child.intake.several() {
            child.intake.open(1);
        }
        for taken in each_turn {
            interpreter.take_orders();
            assert_eq!(child.page.load(Word::Taken), taken, "{settings}");
        }
    }
}

#[test]
fn no_connection_is_queued_while_an_interpreter_becomes_free() {
    const ROUNDS: u64 = 20_000;
    let child = Child::new(
        TAKES_ALL,
        "max_pooled_procs = 0\ninterpreters = 2\ninterpreter_connections = 1",
    );
    let intake = &child.intake;
    intake.open(0);
    intake.open(1);
    let (first, _mta) = connection(Treatment::Policy);
    let (second, _other_mta) = connection(Treatment::Policy);
    let _served = intake.place(0, first).unwrap();
    assert!(intake.place(0, second).is_none());
    let _served_too = intake.inbox(1).pop().unwrap();
    // Both are full. Interpreter 1 finishes while interpreter 0 places another one: 1 must get it, one way or the other.
    let (begun, ended) = (AtomicU64::new(0), AtomicU64::new(0));
    let wait_for = |counter: &AtomicU64, value: u64| {
        for turn in 1u64.. {
            if counter.load(Ordering::Acquire) >= value {
                return;
            }
            // It is spun, so that both are on their way at once; on one processor the other one must run some time.
            if turn % 4096 == 0 {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    };
    let (mut next, _mta) = connection(Treatment::Policy);
    let (give, taken) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Owned: the other side sees by its end when this thread has failed.
            let give = give;
            for round in 1..=ROUNDS {
                wait_for(&begun, round);
                // Now early, now late in what the other side does meanwhile.
                for _ in 0..round % 512 {
                    std::hint::spin_loop();
                }
                give.send(intake.freed(1)).unwrap();
                ended.store(round, Ordering::Release);
            }
        });
        for round in 1..=ROUNDS {
            begun.store(round, Ordering::Release);
            let mine = intake.place(0, next);
            let popped = taken.recv_timeout(LONG).unwrap();
            wait_for(&ended, round);
            let got = mine.or(popped).or_else(|| intake.inbox(1).pop());
            next = got.unwrap_or_else(|| {
                let queue = child.queue();
                // Lets the other thread end.
                begun.store(ROUNDS, Ordering::Release);
                panic!("round {round}: queue {queue}, and interpreter 1 sleeps")
            });
        }
    });
}

#[test]
fn an_answer_that_needs_no_room_does_not_hide_who_waits() {
    let child = Child::new(
        TAKES_ALL,
        "max_pooled_procs = 0\ninterpreters = 1\ninterpreter_connections = 1",
    );
    child.intake.open(0);
    let place = |treatment| child.intake.place(0, connection(treatment).0);
    assert!(place(Treatment::Policy).is_some());
    assert!(place(Treatment::Policy).is_none());
    assert_eq!(child.queue(), 1);
    assert!(place(Treatment::Tempfail).is_some());
    assert_eq!(child.queue(), 1);
    assert_eq!(child.intake.drain_queue().len(), 1);
    assert_eq!(child.queue(), 0);
}

#[test]
fn a_connection_that_nobody_can_serve_is_finished() {
    let child = Child::new(TAKES_ALL, "interpreters = 2");
    // The first one has something to do and takes no more; the second one gets the connection, and cannot be made.
    child.intake.open(1);
    assert!(
        child
            .intake
            .place(0, connection(Treatment::Policy).0)
            .is_some()
    );
    let (handed, mut mta) = connection(Treatment::Reject);
    assert!(child.intake.place(0, handed).is_none());
    child.intake.give_back(1);
    assert_eq!(child.page.load(Word::Taken), 2);
    assert_eq!(child.page.load(Word::Completed), 1);
    assert_eq!(child.page.load(Word::CompletedMarked), 1);
    let said = pass_fd::receive_plain(&child.control).unwrap().unwrap();
    assert_eq!(said.bytes(), [word::FINISHED]);
    let end = std::io::Read::read(&mut mta, &mut [0]).unwrap();
    assert_eq!(end, 0, "the MTA sees the end");
}

#[test]
fn a_panic_on_any_thread_ends_the_child() {
    const MARK: &str = "PMX_TEST_PANIC_ON_A_THREAD";
    if std::env::var_os(MARK).is_some() {
        let child = Child::new(TAKES_ALL, "interpreters = 2");
        // There is no such interpreter.
        child.intake.spawn(99, None).unwrap();
        child.intake.join();
        return;
    }
    let name = "worker::tests::a_panic_on_any_thread_ends_the_child";
    let status = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(MARK, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(PANICKED));
}

/// Negotiation and connect of an MTA.
fn hello() -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 13, b'O'];
    for word in [6u32, 0x1ff, 0x1f_ffff] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    let connect = b"Cc.test\x004\x30\x39192.0.2.1\0";
    bytes.extend_from_slice(&u32::try_from(connect.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(connect);
    bytes
}

#[test]
fn the_last_callbacks_have_their_whole_time_however_old_the_turn_is() {
    // Nothing within a sort can be suspended.
    let policy = r"
        local policy = {}
        function policy.connect(ctx) end
        function policy.close(ctx)
          local list = {}
          for i = 1, 64 do list[i] = i end
          table.sort(list, function(a, b) for i = 1, 100000 do end return a < b end)
        end
        return policy";
    let child = Child::new(policy, "interpreters = 1");
    let intake = Arc::clone(&child.intake);
    let (closes, wait) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut interpreter = Loop::new(intake, 0).unwrap();
        let (handed, mut mta) = connection(Treatment::Policy);
        interpreter.admit(handed);
        let key = interpreter.connections.keys(|_| true)[0];
        std::io::Write::write_all(&mut mta, &hello()).unwrap();
        interpreter.ready(key, EpollFlags::EPOLLIN);
        drop(mta);
        closes.send(()).unwrap();
        interpreter.now_ns -= 60_000_000_000;
        interpreter.ready(key, EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP);
    });
    wait.recv_timeout(LONG).unwrap();
    let end = Instant::now() + LONG;
    let (until, now) = loop {
        assert!(Instant::now() < end && !thread.is_finished(), "never busy");
        if let Some(until) = child.page.busy_until(1) {
            break (until, clock::boottime_ns());
        }
    };
    assert!(until > now, "{until} has passed at {now}");
    thread.join().unwrap();
}
