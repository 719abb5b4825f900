//! What an operator must be able to rely on when others can write to the run directory, when the configuration is wrong, when a master
//! does not answer: through the program only.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use support::command::spawn;
use support::milter::{ADDS_A_HEADER, Milter, PROGRAM};
use support::mta::{Message, Mta};
use support::{SOON, process, wait_until};

/// Another program that holds byte 0 of a file, as a milter's master does; ended when dropped.
struct LockHolder(Child);

impl LockHolder {
    fn of(path: &Path) -> LockHolder {
        let script = "import fcntl, sys\nf = open(sys.argv[1], 'r+b')\nfcntl.lockf(f, fcntl.LOCK_EX, 1, 0)\nprint('held', flush=True)\nsys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "held\n");
        LockHolder(child)
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for LockHolder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The run directory before a first start.
fn make_run_dir(milter: &Milter) {
    fs::create_dir(milter.run_dir()).unwrap();
}

#[test]
fn a_link_in_the_place_of_a_lock_file_names_nobody_who_is_signalled() {
    let milter = Milter::new(ADDS_A_HEADER);
    make_run_dir(&milter);
    let foreign = milter.path("foreign.lock");
    fs::write(&foreign, "").unwrap();
    let mut stranger = LockHolder::of(&foreign);
    std::os::unix::fs::symlink(&foreign, milter.run_dir().join("policy.lock")).unwrap();
    milter
        .pmx(&["stop", "-KILL"])
        .expect(1)
        .says("policy.lock")
        .says("symbolic link");
    assert!(stranger.lives());
}

#[test]
fn a_fifo_in_the_place_of_a_lock_file_makes_nobody_wait() {
    let milter = Milter::new(ADDS_A_HEADER);
    make_run_dir(&milter);
    let fifo = milter.run_dir().join("policy.lock");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    milter.status().expect(3);
    milter.pmx(&["start"]).expect(1).says("policy.lock");
    milter
        .pmx(&["stop", "policy"])
        .expect(1)
        .says("policy.lock");
    milter.pmx(&["restart"]);
    assert!(milter.processes().is_empty());
}

#[test]
fn a_graceful_stop_gives_up_a_suspended_master_and_says_what_lives_and_what_to_do() {
    let milter = Milter::started(ADDS_A_HEADER, "graceful_timeout = \"1s\"");
    let master = milter.master();
    process::signal(master, Signal::SIGSTOP);
    milter
        .pmx(&["stop"])
        .expect(1)
        .says(&format!("master {master} (suspended)"))
        .says("child")
        .says(&format!("kill -CONT {master}"))
        .says("-KILL");
    milter.pmx(&["stop", "-KILL"]).expect(0);
    assert!(milter.processes().is_empty());
}

#[test]
fn a_graceful_stop_gives_up_orphans_of_a_dead_master_and_names_the_way_out() {
    let milter = Milter::started(ADDS_A_HEADER, "graceful_timeout = \"1s\"");
    let mut session = milter.session();
    session.begin(&Message::from("a@b.example")).unwrap();
    process::signal(milter.master(), Signal::SIGKILL);
    milter
        .pmx(&["stop"])
        .expect(1)
        .says("orphan")
        .says("stop -INT");
    milter.pmx(&["stop", "-INT"]).expect(0);
    assert!(milter.processes().is_empty());
}

/// A program that listens on a unix socket and accepts nobody, with its queue full.
fn listen_and_fill_the_queue(path: &Path) -> (OwnedFd, Vec<OwnedFd>) {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
    };
    let address = UnixAddr::new(path).unwrap();
    let make = || {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap()
    };
    let listener = make();
    bind(listener.as_raw_fd(), &address).unwrap();
    listen(&listener, Backlog::new(1).unwrap()).unwrap();
    let mut waiting = Vec::new();
    loop {
        let one = make();
        match connect(one.as_raw_fd(), &address) {
            Ok(()) => waiting.push(one),
            Err(error) => {
                assert_eq!(error, nix::errno::Errno::EAGAIN);
                return (listener, waiting);
            }
        }
    }
}

#[test]
fn a_socket_whose_listener_is_too_busy_to_accept_is_in_use_and_nobody_waits_for_it() {
    let milter = Milter::on_unix_socket(ADDS_A_HEADER, "start_timeout = \"1s\"");
    let busy = listen_and_fill_the_queue(&milter.path("socket"));
    milter.pmx(&["start"]).expect(1).says("in use");
    drop(busy);
    // A stop that cleans up behind a dead master asks too.
    milter.start();
    process::signal(milter.master(), Signal::SIGKILL);
    for child in milter.children() {
        process::signal(child, Signal::SIGKILL);
    }
    wait_until(SOON, "every process has ended", || {
        milter.processes().is_empty().then_some(())
    });
    fs::remove_file(milter.path("socket")).unwrap();
    let busy = listen_and_fill_the_queue(&milter.path("socket"));
    milter.pmx(&["stop", "policy"]).expect(0);
    assert!(milter.path("socket").exists());
    drop(busy);
}

#[test]
fn a_unix_socket_has_its_mode_whatever_the_umask() {
    let milter = Milter::on_unix_socket(ADDS_A_HEADER, "socket_mode = \"0626\"\numask = \"0077\"");
    milter.start();
    let mode = fs::metadata(milter.path("socket"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o626);
}

mod needs_root {
    use super::*;

    /// Gives it to an unprivileged user.
    fn give_away(path: &Path) {
        std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).expect(
            "this test needs root: run tests/run, or leave it out with -- --skip needs_root::",
        );
    }

    #[test]
    fn root_does_not_signal_a_process_that_the_owner_of_the_run_directory_points_at() {
        let milter = Milter::new(ADDS_A_HEADER);
        make_run_dir(&milter);
        give_away(&milter.run_dir());
        let lock = milter.run_dir().join("policy.lock");
        fs::write(&lock, "").unwrap();
        // A file of root's that its user has renamed, and one of the user's that a process of root's locks.
        for owned_by_user in [false, true] {
            if owned_by_user {
                give_away(&lock);
            }
            let mut stranger = LockHolder::of(&lock);
            let pid = stranger.0.id().to_string();
            milter.pmx(&["stop", "-KILL"]).expect(1).says(&pid);
            assert!(stranger.lives());
        }
        milter.pmx(&["stop"]).expect(0);
    }

    #[test]
    fn a_master_of_roots_works_only_in_a_directory_of_roots_and_pmx_init_only_beside_none() {
        let milter = Milter::new(ADDS_A_HEADER);
        let log = milter.run_dir().join("own.log");
        milter.configure(&format!("log_to = \"file:{}\"", log.display()));
        let init = |verb: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pmx-init"));
            command
                .arg("-c")
                .arg(milter.path("pmx.conf"))
                .arg(verb)
                .env("PMX_TEST_DIR", milter.run_dir().parent().unwrap());
            spawn(command).wait(2 * SOON)
        };
        init("start").expect(0).says("share");
        let master = milter.master();
        // It could put a board of its own in the place of root's.
        milter.pmx(&["restart"]).expect(1).says("pmx-init");
        assert_eq!(milter.master(), master);
        init("restart").expect(0);
        init("stop").expect(0);
        milter.pmx(&["start"]).expect(1).says("pmx-init");
        assert!(milter.processes().is_empty());

        std::os::unix::fs::chown(milter.run_dir(), Some(0), Some(0)).unwrap();
        milter.start();
        let master = milter.master();
        init("start").expect(1).says("stop it first");
        assert_eq!(milter.master(), master);
        assert_eq!(fs::metadata(milter.run_dir()).unwrap().uid(), 0);
        milter.stop();
    }
}

mod needs_pid_namespaces {
    use super::*;

    #[test]
    fn a_milter_of_another_pid_namespace_keeps_its_files_and_is_said_to_be_out_of_reach() {
        let milter = Milter::new(ADDS_A_HEADER);
        // Two containers beside each other that share the run directory.
        let inside = |arguments: &[&str]| {
            let mut container = Command::new("unshare");
            container
                .args(["--pid", "--fork", "--kill-child", PROGRAM, "-c"])
                .arg(milter.path("pmx.conf"))
                .args(arguments)
                .env("PMX_TEST_DIR", milter.run_dir().parent().unwrap());
            spawn(container)
        };
        let _first = inside(&["run", "policy"]);
        wait_until(SOON, "it takes mail", || {
            Mta::ready(&milter.address(), SOON).ok()
        });
        inside(&["stop", "policy"])
            .wait(SOON)
            .expect(1)
            .says("another pid namespace");
        assert!(milter.run_dir().join("policy.scoreboard").exists());
        assert!(milter.run_dir().join("policy.pid").exists());
        milter.status().expect(0).prints("policy: running");
        inside(&["start"])
            .wait(SOON)
            .expect(0)
            .prints("another pid namespace");
    }
}
