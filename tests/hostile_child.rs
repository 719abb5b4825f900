//! A child that was taken over and does what it can to its master, its siblings and the scoreboard. It is one of the shipped program's
//! own children, which ptrace makes do it (`support::hijack`); what it may write, the test writes into its memory.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used)]

mod support;

mod needs_ptrace {
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;
    use std::process::{Child as Process, Command};
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::libc;
    use nix::sys::signal::Signal;

    use super::support::hijack::{Hijacked, Mapping, mapping, memory};
    use super::support::ledger::Random;
    use super::support::milter::{ADDS_A_HEADER, Milter, count, pids};
    use super::support::mta::{FULL, Message, Mta};
    use super::support::{SOON, process, wait_until};

    const TWO: &str = "max_pooled_procs = 2\nmin_pooled_procs = 2\n";
    const MSG_DONTWAIT: u64 = libc::MSG_DONTWAIT.cast_unsigned() as u64;

    #[track_caller]
    fn serves(milter: &Milter) {
        let mut session = milter.session();
        let answer = session.message(&Message::from("a@b.example")).unwrap();
        assert!(answer.adds_header("X-Filter", "ok"), "{answer:?}");
        session.quit().unwrap();
    }

    /// Somebody whose pid is written wherever a pid could be looked for.
    struct Bystander(Process);

    impl Bystander {
        fn new() -> Bystander {
            Bystander(Command::new("sleep").arg("600").spawn().unwrap())
        }

        fn pid(&self) -> u64 {
            u64::from(self.0.id())
        }

        fn is_unharmed(&mut self) -> bool {
            self.0.try_wait().unwrap().is_none()
        }
    }

    impl Drop for Bystander {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// The number of the control socket: the one socket of a child without connections.
    fn control_socket(child: i32) -> u64 {
        let mut sockets = sockets(child);
        assert_eq!(sockets.len(), 1, "{sockets:?}");
        sockets.remove(0)
    }

    fn sockets(child: i32) -> Vec<u64> {
        let entries = fs::read_dir(format!("/proc/{child}/fd")).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
            })
            .map(|path| path.file_name().unwrap().to_str().unwrap().parse().unwrap())
            .collect()
    }

    /// Fills a page once, with a word of somebody's choice or random ones.
    fn scribble(memory: &File, page: &Mapping, random: &mut Random, bystander: u64) {
        let words = (page.end - page.start) / 8;
        let kind = random.below(4);
        let bytes: Vec<u8> = (0..words)
            .flat_map(|_| {
                let word = match kind {
                    0 => u64::MAX,
                    1 => bystander,
                    // Escape sequences, should somebody show it as text.
                    2 => u64::from_le_bytes(*b"\x1b]0;x\x07\x1b["),
                    _ => random.below(u64::MAX),
                };
                word.to_ne_bytes()
            })
            .collect();
        // Fails when the child has been killed meanwhile.
        let _ = memory.write_all_at(&bytes, page.start);
    }

    /// What must hold whatever one child does: everybody is served, status answers, nothing else is touched.
    #[track_caller]
    fn all_is_well(milter: &Milter, sibling: i32, bystander: &mut Bystander) {
        serves(milter);
        let json = milter.json();
        assert_eq!(json["state"], "running", "{json:#}");
        assert!(pids(&json).contains(&sibling), "the sibling died: {json:#}");
        let text = milter.pmx(&["status", "--long"]).expect(0).out;
        let hidden = |it: char| it.is_control() && it != '\n';
        assert!(!text.contains(hidden), "{text:?}");
        assert!(bystander.is_unharmed());
    }

    /// Books that balance, records that are whole, a header that is read: in JSON, after the hostile child is gone.
    fn board_is_whole(milter: &Milter, without: i32) {
        milter.wait_json("the board is whole again", |json| {
            let slots = json["slots"].as_array().unwrap();
            json["books"]["balanced"] == true
                && json["consistent"] == true
                && slots.iter().all(|slot| slot["consistent"] == true)
                && slots.iter().all(|slot| slot["state"] == "live")
                && pids(json).len() == 2
                && !pids(json).contains(&without)
        });
    }

    #[test]
    fn random_bytes_in_its_page_of_the_board_and_a_flood_of_wake_ups_harm_nobody() {
        // A pool that is full most of the time: then the master listens to wake-ups.
        let milter = Milter::started(
            ADDS_A_HEADER,
            &format!("{TWO}interpreter_connections = 1\n"),
        );
        let children = milter.children();
        let mut bystander = Bystander::new();
        let page = mapping(children[0], "policy.scoreboard");
        let memory = memory(children[0]);
        let control = control_socket(children[0]);
        let mut child = Hijacked::seize(children[0]);
        // It takes what makes a call not wait away from the socket, where that lies with the socket.
        assert_eq!(child.call(libc::SYS_fcntl, &[control, 4, 0]), 0);
        let byte = child.put(b"W");
        let flags = MSG_DONTWAIT | u64::from(libc::MSG_NOSIGNAL.cast_unsigned());
        child.let_go_calling(libc::SYS_sendto, &[control, byte, 1, flags, 0, 0]);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (over, bystander_pid) = (&over, bystander.pid());
            scope.spawn(move || {
                let mut random = Random(7);
                while !over.load(Ordering::SeqCst) {
                    scribble(&memory, &page, &mut random, bystander_pid);
                }
            });
            for _ in 0..3 {
                scope.spawn(|| {
                    while !over.load(Ordering::SeqCst) {
                        serves(&milter);
                    }
                });
            }
            let _end = End(over);
            for _ in 0..20 {
                all_is_well(&milter, children[1], &mut bystander);
            }
        });
        assert_eq!(milter.master(), process::state(children[1]).unwrap().1);
        // It does not serve, but nor has it claimed anything: whoever has the machine ends it.
        assert!(process::runs(children[0]));
        process::signal(children[0], Signal::SIGKILL);
        board_is_whole(&milter, children[0]);
        all_is_well(&milter, children[1], &mut bystander);
        milter.stop();
    }

    struct End<'a>(&'a AtomicBool);

    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_child_that_claims_what_cannot_be_is_replaced_and_nobody_else_notices() {
        let milter = Milter::started(ADDS_A_HEADER, TWO);
        let mut bystander = Bystander::new();
        let mut random = Random(11);
        for round in 0..8 {
            let children = milter.wait_json("two children", |json| pids(json).len() == 2);
            let children = pids(&children);
            // Somebody is served by the other one all along.
            let pages = ["policy.scoreboard", "pmx-milter-control"];
            let pages = pages.map(|name| mapping(children[0], name));
            let memory = memory(children[0]);
            let mut session = Mta::open(&milter.address(), SOON).unwrap();
            for page in &pages {
                scribble(&memory, page, &mut random, bystander.pid());
            }
            // The next event makes the master look.
            session.negotiate(FULL).ok();
            drop(session);
            wait_until(SOON, "the liar is gone", || {
                for page in &pages {
                    scribble(&memory, page, &mut random, bystander.pid());
                }
                (!process::runs(children[0])).then_some(())
            });
            milter.wait_for_log(&format!("child {} claims what cannot be", children[0]));
            board_is_whole(&milter, children[0]);
            all_is_well(&milter, children[1], &mut bystander);
            let json = milter.json();
            assert_eq!(json["deaths_total"]["signal"], round + 1, "{json:#}");
        }
        milter.wait_for_log("by its master, for claims that cannot be");
        milter.stop();
    }

    #[test]
    fn what_a_child_counted_that_was_caught_lying_counts_for_nothing() {
        let milter = Milter::started(ADDS_A_HEADER, "max_pooled_procs = 1\n");
        serves(&milter);
        milter.wait_json("nothing is in progress", |json| {
            json["pool"]["requests"] == 0 && json["pool"]["messages"] == 1
        });
        let liar = milter.children()[0];
        // Lost with it.
        let mut lost = milter.session();
        milter.wait_json("it is served", |json| json["pool"]["requests"] == 1);
        // It publishes no more; both copies of its record say the same, and that it is its own (the incarnation, first word).
        process::signal(liar, Signal::SIGSTOP);
        let (board, words) = (
            mapping(liar, "policy.scoreboard"),
            mapping(liar, "pmx-milter-control"),
        );
        let memory = memory(liar);
        for copy in [128, 2112] {
            let counters = u64::MAX.to_ne_bytes().repeat(8);
            memory
                .write_all_at(&counters, board.start + copy + 8)
                .unwrap();
        }
        memory
            .write_all_at(&u64::MAX.to_ne_bytes(), words.start)
            .unwrap();
        milter.wait_for_log(&format!("child {liar} claims what cannot be"));
        let after = milter.wait_json("its successor", |json| {
            !pids(json).contains(&liar) && pids(json).len() == 1
        });
        // Not even the message that it served in truth: nobody can tell.
        assert_eq!(after["pool"]["messages"], 0, "{after:#}");
        assert_eq!(after["verdicts"]["accept"], 0, "{after:#}");
        assert_eq!(after["lost"]["connections"], 1, "{after:#}");
        assert_eq!(after["books"]["balanced"], true, "{after:#}");
        milter.wait_for_log("; 1 connections and 0 messages are lost");
        lost.expect_close().ok();
        serves(&milter);
        milter.stop();
    }

    #[test]
    fn a_child_that_forbids_descriptors_is_replaced_and_nobody_is_kept_waiting() {
        const SO_PASSRIGHTS: u64 = 83;
        let milter = Milter::started(ADDS_A_HEADER, TWO);
        let children = milter.children();
        let control = control_socket(children[0]);
        let mut child = Hijacked::seize(children[0]);
        let off = child.put(&[0; 4]);
        let level = u64::from(libc::SOL_SOCKET.cast_unsigned());
        let set = child.call(
            libc::SYS_setsockopt,
            &[control, level, SO_PASSRIGHTS, off, 4],
        );
        child.let_go_hanging();
        if set != 0 {
            // Linux before 6.16 has no such option; or the sandbox forbids it.
            eprintln!("LEFT OUT: setsockopt(SO_PASSRIGHTS): {set}");
            process::signal(children[0], Signal::SIGKILL);
            return;
        }
        for _ in 0..20 {
            serves(&milter);
        }
        wait_until(SOON, "it is killed", || {
            (!process::runs(children[0])).then_some(())
        });
        milter.wait_for_log("by its master, for forbidding that it is given connections");
        board_is_whole(&milter, children[0]);
        assert!(pids(&milter.json()).contains(&children[1]));
        milter.stop();
    }

    #[test]
    fn a_child_that_shuts_its_control_socket_is_replaced() {
        let milter = Milter::started(ADDS_A_HEADER, TWO);
        let children = milter.children();
        let control = control_socket(children[0]);
        let mut child = Hijacked::seize(children[0]);
        assert_eq!(child.call(libc::SYS_shutdown, &[control, 2]), 0);
        // It hangs, so that it is not its own end that makes it go.
        child.let_go_hanging();
        serves(&milter);
        wait_until(SOON, "it is killed", || {
            (!process::runs(children[0])).then_some(())
        });
        milter.wait_for_log("by its master, for shutting its control socket");
        board_is_whole(&milter, children[0]);
        assert!(pids(&milter.json()).contains(&children[1]));
        serves(&milter);
        milter.stop();
    }

    #[test]
    fn a_child_that_lies_with_care_holds_less_than_twice_its_connections() {
        const CARRIES: usize = 32;
        let milter = Milter::started(
            ADDS_A_HEADER,
            &format!("max_pooled_procs = 1\ninterpreter_connections = {CARRIES}\n"),
        );
        let liar = milter.children()[0];
        let words = mapping(liar, "pmx-milter-control");
        let control = control_socket(liar);
        let mut child = Hijacked::seize(liar);
        let (message, room) = (child.put(&[0; 64]), child.put(&[0; 64]));
        let part = child.put(&[message.to_ne_bytes(), 64_u64.to_ne_bytes()].concat());
        let header = child.put(&[0; 56]);
        let byte = child.put(b"W");
        let mut clients = Vec::new();
        let (mut taken, mut most) = (0_u64, 0);
        for _ in 0..4 * CARRIES {
            clients.push(milter.open());
            wait_until(SOON, "it is given the connection", || {
                // struct msghdr: one part, room for a descriptor.
                child.write(
                    header,
                    &[0, 0, part, 1, room, 64, 0].map(u64::to_ne_bytes).concat(),
                );
                let got = child.call(libc::SYS_recvmsg, &[control, header, MSG_DONTWAIT]);
                (got > 0).then_some(())
            });
            taken += 1;
            // Taken, and finished: as an honest child would say.
            for word in [1, 0] {
                let at = words.start + 8 * word;
                child.write(at, &taken.to_ne_bytes());
            }
            child.call(libc::SYS_sendto, &[control, byte, 1, MSG_DONTWAIT, 0, 0]);
            most = most.max(sockets(liar).len() - 1);
        }
        assert!(
            most >= CARRIES,
            "it holds {most} only: the lie does not work"
        );
        assert!(most <= 2 * CARRIES, "it holds {most}");
        child.let_go();
        process::signal(liar, Signal::SIGKILL);
        let json = milter.wait_json("its successor", |json| !pids(json).contains(&liar));
        assert_eq!(count(&json["pool"]["connections"]), clients.len() as u64);
        for client in &mut clients {
            client.expect_close().unwrap();
        }
        serves(&milter);
        milter.stop();
    }

    #[test]
    fn without_the_sandbox_what_a_child_scribbles_over_the_board_is_repaired() {
        let milter = Milter::started(ADDS_A_HEADER, &format!("{TWO}sandbox = false\n"));
        for _ in 0..3 {
            serves(&milter);
        }
        let before = milter.wait_json("nothing is in progress", |json| {
            json["pool"]["requests"] == 0
        });
        let children = milter.children();
        let page = mapping(children[0], "policy.scoreboard");
        let length = page.end - page.start;
        let mut child = Hijacked::seize(children[0]);
        // Its page becomes the first of the file: header, global record, rings.
        let first = child.call(libc::SYS_remap_file_pages, &[page.start, length, 0, 0, 0]);
        assert_eq!(first, 0, "remap_file_pages");
        let garbage: Vec<u8> = (0..length).map(|at| (at * 7 % 251) as u8).collect();
        child.write(page.start, &garbage);
        child.let_go_hanging();
        let board = milter.run_dir().join("policy.scoreboard");
        wait_until(SOON, "the header and the global record are whole", || {
            let snapshot = scoreboard::read(&board).ok()?;
            (snapshot.global_consistent && snapshot.global.accepted == 3).then_some(())
        });
        process::signal(children[0], Signal::SIGKILL);
        board_is_whole(&milter, children[0]);
        let after = milter.json();
        for number in ["connections", "messages"] {
            assert_eq!(after["pool"][number], before["pool"][number], "{after:#}");
        }
        serves(&milter);
        milter.stop();
    }
}
