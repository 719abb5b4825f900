//! What a child reaches that was taken over: its connections, its log, its page of the scoreboard. Tried by the child itself, which ptrace
//! makes call the kernel (`support::hijack`).
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used)]

mod support;

mod needs_ptrace_and_landlock {
    use std::fs;
    use std::net::TcpListener;
    use std::path::Path;

    use nix::libc;
    use nix::sys::signal::Signal;

    use super::support::hijack::{Hijacked, mappings};
    use super::support::milter::{ADDS_A_HEADER, Milter};
    use super::support::mta::Message;
    use super::support::{SOON, process, wait_until};

    const EPERM: i64 = -(libc::EPERM as i64);
    const EACCES: i64 = -(libc::EACCES as i64);
    const ENOMEM: i64 = -(libc::ENOMEM as i64);
    const ENOSYS: i64 = -(libc::ENOSYS as i64);

    fn number(pid: i32) -> u64 {
        u64::try_from(pid).unwrap()
    }

    #[track_caller]
    fn serves(milter: &Milter) {
        let mut session = milter.session();
        let answer = session.message(&Message::from("a@b.example")).unwrap();
        assert!(answer.adds_header("X-Filter", "ok"), "{answer:?}");
        session.quit().unwrap();
    }

    #[test]
    fn a_child_opens_no_file_whoever_may_open_it() {
        let milter = Milter::started(
            ADDS_A_HEADER,
            "max_pooled_procs = 2\nmin_pooled_procs = 2\nstatus_mode = \"0644\"\n",
        );
        let (master, children) = (milter.master(), milter.children());
        let planted = milter.path("planted");
        fs::create_dir(&planted).unwrap();
        let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&planted, open_to_all).unwrap();
        let mut child = Hijacked::seize(children[0]);
        let proc_of = |pid: i32, what: &str| format!("/proc/{pid}/{what}");
        for (path, flags) in [
            // Everybody may read these, ...
            ("/etc/passwd".to_owned(), libc::O_RDONLY),
            ("/".to_owned(), libc::O_RDONLY | libc::O_DIRECTORY),
            ("/dev/null".to_owned(), libc::O_RDWR),
            (proc_of(master, "status"), libc::O_RDONLY),
            (proc_of(children[1], "status"), libc::O_RDONLY),
            (proc_of(children[0], "mem"), libc::O_RDWR),
            (
                show(&milter.run_dir().join("policy.scoreboard")),
                libc::O_RDONLY,
            ),
            (show(&milter.run_dir().join("policy.lock")), libc::O_RDONLY),
            (show(&milter.path("policy.lua")), libc::O_RDONLY),
            // ... and write here; the log is its user's own.
            (show(&milter.path("log")), libc::O_WRONLY | libc::O_APPEND),
            (show(&planted.join("file")), libc::O_WRONLY | libc::O_CREAT),
            ("/tmp".to_owned(), libc::O_RDWR | libc::O_TMPFILE),
        ] {
            let opened = child.open(Path::new(&path), flags);
            assert_eq!(opened, EACCES, "{path} with flags {flags:#x}");
        }
        for (path, flags) in [
            (proc_of(master, "mem"), libc::O_RDONLY),
            (proc_of(master, "environ"), libc::O_RDONLY),
            (proc_of(children[1], "mem"), libc::O_RDWR),
            (
                show(&milter.run_dir().join("policy.scoreboard")),
                libc::O_RDWR,
            ),
        ] {
            let opened = child.open(Path::new(&path), flags);
            assert!(opened < 0, "{path} with flags {flags:#x}: {opened}");
        }
        let policy = child.put_path(&milter.path("policy.lua"));
        let made = child.put_path(&planted.join("made"));
        let log = child.put_path(&milter.path("log"));
        for (call, arguments) in [
            (libc::SYS_mkdir, [made, 0o777, 0]),
            (libc::SYS_mknod, [made, u64::from(libc::S_IFIFO | 0o666), 0]),
            (libc::SYS_symlink, [policy, made, 0]),
            (libc::SYS_truncate, [log, 0, 0]),
        ] {
            assert_eq!(child.call(call, &arguments), EACCES, "system call {call}");
        }
        let device = libc::EXDEV;
        let linked = child.call(libc::SYS_link, &[log, made]);
        assert!(
            [EACCES, EPERM, -i64::from(device)].contains(&linked),
            "{linked}"
        );
        assert_eq!(fs::read_dir(&planted).unwrap().count(), 0);
        // Nothing of it hurt.
        child.let_go();
        serves(&milter);
        milter.stop();
    }

    fn show(path: &Path) -> String {
        path.display().to_string()
    }

    /// An address as the kernel takes it: AF_INET, port, 127.0.0.1.
    fn loopback(port: u16) -> Vec<u8> {
        let mut bytes = libc::AF_INET.to_ne_bytes()[..2].to_vec();
        bytes.extend(port.to_be_bytes());
        bytes.extend([127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn a_child_reaches_no_port_no_process_and_no_other_page() {
        let milter = Milter::started(
            ADDS_A_HEADER,
            "max_pooled_procs = 2\nmin_pooled_procs = 2\n",
        );
        let (master, children) = (milter.master(), milter.children());
        let board = mappings(children[0])
            .into_iter()
            .filter(|it| it.name.contains("policy.scoreboard"))
            .collect::<Vec<_>>();
        // One page of the board, histograms beside the record included, and the control page.
        assert_eq!(board.len(), 1, "{board:?}");
        let length = board[0].end - board[0].start;
        let geometry = scoreboard::read(&milter.run_dir().join("policy.scoreboard")).unwrap();
        let slots = geometry.slots.len() as u64;
        assert!(slots >= 2 && length <= 16 << 10, "{length}");
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let (to, from) = (loopback(server.local_addr().unwrap().port()), loopback(0));

        let mut child = Hijacked::seize(children[0]);
        let tcp = child.call(libc::SYS_socket, &[2, 1, 0]);
        assert!(tcp > 2, "{tcp}");
        let tcp = tcp.cast_unsigned();
        let (to, from) = (child.put(&to), child.put(&from));
        assert_eq!(child.call(libc::SYS_connect, &[tcp, to, 16]), EACCES);
        assert_eq!(child.call(libc::SYS_bind, &[tcp, from, 16]), EACCES);

        let text = child.put(&[0; 64]);
        let (parent, sibling) = (number(master), number(children[1]));
        let page = board[0].start;
        let grown = [
            page,
            length,
            2 * length,
            libc::MREMAP_MAYMOVE.cast_unsigned().into(),
        ];
        let kill = u64::from((Signal::SIGKILL as i32).cast_unsigned());
        for (what, call, arguments, expected) in [
            ("kill the master", libc::SYS_kill, vec![parent, 0], EPERM),
            ("kill a sibling", libc::SYS_kill, vec![sibling, kill], EPERM),
            ("kill all", libc::SYS_kill, vec![u64::MAX, kill], EPERM),
            ("trace", libc::SYS_ptrace, vec![16, sibling, 0, 0], EPERM),
            (
                "read memory",
                libc::SYS_process_vm_readv,
                vec![parent, text, 1, text, 1],
                EPERM,
            ),
            (
                "write memory",
                libc::SYS_process_vm_writev,
                vec![parent, text, 1, text, 1],
                EPERM,
            ),
            ("execute", libc::SYS_execve, vec![text, 0, 0], EPERM),
            ("become root", libc::SYS_setuid, vec![0], EPERM),
            ("become root's group", libc::SYS_setgid, vec![0], EPERM),
            (
                "limit another",
                libc::SYS_prlimit64,
                vec![parent, 0, 0, 0],
                EPERM,
            ),
            ("unshare", libc::SYS_unshare, vec![0x1000_0000], EPERM),
            ("io_uring", libc::SYS_io_uring_setup, vec![1, text], EPERM),
            ("stretch its page", libc::SYS_mremap, grown.to_vec(), ENOMEM),
            (
                "remap its page",
                libc::SYS_remap_file_pages,
                vec![page, 4096, 0, 0, 0],
                ENOMEM,
            ),
            ("clone3", libc::SYS_clone3, vec![text, 64], ENOSYS),
        ] {
            assert_eq!(child.call(call, &arguments), expected, "{what}");
        }
        for pid in [parent, sibling] {
            let other = child.call(libc::SYS_pidfd_open, &[pid, 0]);
            if other >= 0 {
                let other = other.cast_unsigned();
                assert_eq!(child.call(libc::SYS_pidfd_getfd, &[other, 3, 0]), EPERM);
                let signal = [other, kill, 0, 0];
                assert_eq!(child.call(libc::SYS_pidfd_send_signal, &signal), EPERM);
            }
        }
        assert_eq!(child.call(libc::SYS_close, &[tcp]), 0);
        child.let_go();
        assert_eq!(milter.children(), children);
        serves(&milter);
        milter.stop();
    }

    #[test]
    fn a_child_holds_what_it_needs_and_no_other_descriptor() {
        // The master has a board, its lock, a listener, pollers, signals and every other child's sockets open.
        let milter = Milter::started(
            ADDS_A_HEADER,
            "max_pooled_procs = 3\nmin_pooled_procs = 3\n",
        );
        for child in milter.children() {
            let entries = fs::read_dir(format!("/proc/{child}/fd")).unwrap();
            let mut open: Vec<String> = entries
                .map(|entry| show(&fs::read_link(entry.unwrap().path()).unwrap()))
                // Without the number of an inode.
                .map(|name| match name.split_once(":[") {
                    Some((kind, _)) => kind.to_owned(),
                    None => name,
                })
                .collect();
            open.sort();
            let (lock, log) = (milter.run_dir().join("policy.lock"), milter.path("log"));
            let mut expected = [
                // Standard input, output, error; poller, bell, its master; the control socket.
                "/dev/null",
                "/dev/null",
                "/dev/null",
                "anon_inode",
                "anon_inode",
                "anon_inode",
                "socket",
            ]
            .map(str::to_owned)
            .to_vec();
            expected.extend([show(&lock), show(&log)]);
            expected.sort();
            assert_eq!(open, expected);
        }
        milter.stop();
    }

    #[test]
    fn the_log_of_a_confined_child_goes_on_in_the_file_that_its_master_opened() {
        let policy = r#"
local policy = {}
function policy.eom(ctx)
  log.info("the child wrote this")
  ctx:add_header("X-Filter", "ok")
end
return policy
"#;
        let milter = Milter::started(policy, "max_pooled_procs = 1\nmessage_log = true\n");
        serves(&milter);
        let (old, log) = (milter.path("log.1"), milter.path("log"));
        fs::rename(&log, &old).unwrap();
        process::signal(milter.master(), Signal::SIGUSR1);
        wait_until(SOON, "the child writes to the new file", || {
            serves(&milter);
            let log = milter.log();
            (log.contains("the child wrote this") && log.contains("message queue_id="))
                .then_some(())
        });
        milter.wait_for_log("log reopened");
        // Nobody holds the old one any more.
        for pid in milter.processes() {
            let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
            for entry in entries {
                assert_ne!(fs::read_link(entry.unwrap().path()).unwrap(), old, "{pid}");
            }
        }
        milter.stop();
    }

    #[test]
    fn the_sandbox_is_told_at_start_and_off_when_that_is_asked_for() {
        let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 1\n");
        milter
            .wait_for_log("milter policy: its children are confined by seccomp and landlock (ABI ");
        milter.stop();
        milter.configure("max_pooled_procs = 1\nsandbox = \"off\"\n");
        milter.start();
        milter.wait_for_log("milter policy: its children are not confined (sandbox = false)");
        let mut child = Hijacked::seize(milter.children()[0]);
        let opened = child.open(Path::new("/etc/passwd"), libc::O_RDONLY);
        assert!(opened > 2, "{opened}");
        assert_eq!(child.call(libc::SYS_close, &[opened.cast_unsigned()]), 0);
        // What does not depend on it.
        assert_eq!(child.call(libc::SYS_setuid, &[0]), EPERM);
        let no_new_privs = libc::PR_GET_NO_NEW_PRIVS.cast_unsigned().into();
        assert_eq!(child.call(libc::SYS_prctl, &[no_new_privs, 0, 0, 0, 0]), 1);
        child.let_go();
        serves(&milter);
        milter.stop();
    }
}
