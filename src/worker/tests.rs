//! A child's inside without its process: intake, ledger and loop as its master made them, with the master's ends in the test's hands.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use nix::unistd::Pid;
use scoreboard::{Board, ChildPage, Spec};

use super::intake::Intake;
use super::interpreter::Loop;
use super::ledger::Ledger;
use super::orders::Handed;
use super::{Treatment, order};
use crate::config::Config;
use crate::policy::{self, Limits, Lists};
use crate::sys::control_page::{ControlPage, Word};
use crate::sys::pass_fd;
use crate::sys::process::PidFd;

/// A child that was not forked.
struct Child {
    intake: Arc<Intake>,
    /// The master's end.
    control: OwnedFd,
    page: ControlPage,
    _board: Board,
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
            _board: board,
            _dir: dir,
        }
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
