//! What an operator must be able to rely on when others can write to the run directory, when the configuration is wrong, when a master
//! does not answer: through the program only.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use support::command::{Outcome, spawn};
use support::milter::{ADDS_A_HEADER, Milter, PROGRAM};
use support::mta::{Message, Mta};
use support::{SOON, process, wait_until};

const PMX_INIT: &str = env!("CARGO_BIN_EXE_pmx-init");

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

#[test]
fn what_a_start_would_refuse_is_said_by_check_and_by_restart_which_leaves_the_milter_alone() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let master = milter.master();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = format!("inet:{}@127.0.0.1", taken.local_addr().unwrap().port());
    let socket = milter.path("plain file");
    fs::write(&socket, "").unwrap();
    let cases = [
        ("status_group = \"no-such-group\"", 6, "status_group"),
        ("log_to = \"stderr\"", 6, "log_to"),
        ("socket_owner = \"no-such-user\"", 6, "socket_owner"),
        ("socket_group = \"no-such-group\"", 6, "socket_group"),
        ("log_to = \"file:no/such/directory/log\"", 1, "log file"),
    ];
    let ports = [
        (in_use.as_str(), 1, "in use"),
        ("inet:3366@::1", 1, "no address of that family"),
        ("inet:3366@192.0.2.1", 1, "no such address"),
        (&*format!("unix:{}", socket.display()), 1, "no socket"),
        (
            &*format!("unix:{}/no/such", milter.path("").display()),
            1,
            "does not exist",
        ),
    ];
    let with_port = |port: &str, settings: &str| {
        milter.configure_milters(&format!(
            "[milter.policy]\nport = \"{port}\"\npolicy = \"policy.lua\"\n{settings}\n"
        ));
    };
    let refused = |code: i32, text: &str| {
        milter.pmx(&["check"]).expect(code).says(text);
        milter
            .pmx(&["restart"])
            .expect(code)
            .says(text)
            .says("untouched");
        assert_eq!(milter.master(), master, "after {text}");
    };
    let own = milter.port_setting();
    for (settings, code, text) in cases {
        with_port(&own, settings);
        refused(code, text);
    }
    for (port, code, text) in ports {
        with_port(port, "");
        refused(code, text);
    }
    // Everything that is wrong, in one run.
    with_port(&in_use, "status_group = \"no-such-group\"");
    milter
        .pmx(&["check"])
        .expect(6)
        .says("in use")
        .says("no-such-group");
    // Its own port is no obstacle, nor is the same port on another address, nor another one that is free.
    for host in ["127.0.0.1", "0.0.0.0", "127.0.0.2"] {
        with_port(&format!("inet:{}@{host}", milter.port), "");
        milter.pmx(&["check"]).expect(0);
        milter.pmx(&["restart"]).expect(0);
    }
    assert_eq!(milter.master(), master);
    milter.status().expect(0).prints("@127.0.0.2");
}

#[test]
fn a_port_that_is_open_to_everybody_is_warned_of_once() {
    let milter = Milter::new(ADDS_A_HEADER);
    milter.configure_milters(&format!(
        "[milter.policy]\nport = \"inet:{}@0.0.0.0\"\npolicy = \"policy.lua\"\n",
        milter.port
    ));
    let outcome = milter.pmx(&["start"]).expect(0);
    let count = outcome.err.matches("no authentication").count();
    assert_eq!(count, 1, "{}", outcome.err);
}

#[test]
fn a_start_that_is_interrupted_ends_by_the_signal_and_leaves_no_master_to_come_up_later() {
    // The checker is busy with the policy's top level when the signal comes.
    let milter = Milter::on_unix_socket("while true do end\n", "callback_timeout = \"20s\"");
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let start = milter.pmx_in_background(&["start"]);
        wait_until(SOON, "the socket is bound", || {
            milter.path("socket").exists().then_some(())
        });
        process::signal(start.pid(), signal);
        start.wait(SOON).expect(code).says("interrupted by");
        assert!(milter.processes().is_empty(), "after {signal}");
        assert_eq!(milter.left_behind(), [""; 0]);
        assert!(!milter.path("socket").exists());
    }
}

#[test]
fn an_argument_may_name_an_inherited_descriptor_which_no_master_keeps() {
    let milter = Milter::new(ADDS_A_HEADER);
    milter.configure_milters(&format!(
        "[milter.policy]\nport = \"{}\"\npolicy = \"{}\"\n",
        milter.port_setting(),
        milter.path("policy.lua").display()
    ));
    milter.write("marker", "");
    let through_a_shell = |verb: &str| {
        let mut shell = Command::new("bash");
        let script = "exec 3<\"$2\" 7<\"$3\"; exec \"$1\" -c /dev/fd/3 $4";
        shell
            .args(["-c", script, "bash", PROGRAM])
            .arg(milter.path("pmx.conf"))
            .arg(milter.path("marker"))
            .arg(verb)
            .env("PMX_TEST_DIR", milter.run_dir().parent().unwrap());
        spawn(shell)
    };
    let holds_the_marker = |pid: i32| {
        fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .any(|path| path == milter.path("marker"))
    };
    through_a_shell("check").wait(SOON).expect(0);
    through_a_shell("start").wait(SOON).expect(0);
    assert!(!holds_the_marker(milter.master()));
    assert!(!milter.children().into_iter().any(holds_the_marker));
    milter.stop();
    let _running = through_a_shell("run policy");
    wait_until(SOON, "it takes mail", || {
        Mta::ready(&milter.address(), SOON).ok()
    });
    assert!(!holds_the_marker(milter.master()));
}

#[test]
fn run_fails_when_the_milter_runs_already_so_that_a_supervisor_knows() {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let pid = milter.master().to_string();
    milter
        .pmx(&["run", "policy"])
        .expect(1)
        .says("runs already")
        .says(&pid);
    milter.status().expect(0);
}

#[test]
fn each_program_signs_its_complaints_about_arguments() {
    for (program, name) in [(PROGRAM, "pmx-milter"), (PMX_INIT, "pmx-init")] {
        let mut command = Command::new(program);
        command.args(["stop", "-USR2"]);
        let outcome = spawn(command).wait(SOON).expect(2);
        assert!(
            outcome.err.starts_with(&format!("{name}: ")),
            "{}",
            outcome.err
        );
    }
}

#[test]
fn every_line_for_sendmail_makes_it_wait_for_a_milter_that_is_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for file in ["examples/pmx.conf", "man/pmx.conf.5", "README.md"] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        for line in text
            .lines()
            .filter(|line| line.contains("INPUT_MAIL_FILTER("))
        {
            assert!(line.contains("F=T"), "{file}: {line}");
            seen += 1;
        }
    }
    assert!(seen >= 2);
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

    fn pmx_init(milter: &Milter, verb: &str) -> Outcome {
        let mut command = Command::new(PMX_INIT);
        command
            .arg("-c")
            .arg(milter.path("pmx.conf"))
            .arg(verb)
            .env("PMX_TEST_DIR", milter.run_dir().parent().unwrap());
        spawn(command).wait(2 * SOON)
    }

    #[test]
    fn what_the_user_may_not_do_is_told_for_the_user_that_the_master_will_be() {
        let milter = Milter::on_unix_socket(ADDS_A_HEADER, "");
        let log = format!("log_to = \"file:{}/own.log\"", milter.run_dir().display());
        milter.configure(&log);
        // The directory of the socket is root's.
        pmx_init(&milter, "start").expect(4).says("bind");
        let mine = format!(
            "[milter.policy]\nport = \"unix:{}/socket\"\npolicy = \"policy.lua\"\n{log}\n",
            milter.run_dir().display()
        );
        for key in ["status_group", "socket_group"] {
            milter.configure_milters(&format!("{mine}{key} = \"daemon\"\n"));
            pmx_init(&milter, "start")
                .expect(6)
                .says(key)
                .says("not in this group");
        }
        milter.configure_milters(&mine);
        pmx_init(&milter, "start").expect(0);
        pmx_init(&milter, "stop").expect(0);
    }

    #[test]
    fn a_master_of_roots_works_only_in_a_directory_of_roots_and_pmx_init_only_beside_none() {
        let milter = Milter::new(ADDS_A_HEADER);
        let log = milter.run_dir().join("own.log");
        milter.configure(&format!("log_to = \"file:{}\"", log.display()));
        let init = |verb: &str| pmx_init(&milter, verb);
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
