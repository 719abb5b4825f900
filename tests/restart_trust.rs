//! What a master obeys, and what it lets take its place: the request that was asked for and nothing else, a program whose trial went well.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use support::milter::Milter;
use support::restarting::{checker, filtered_by, message, policy, slow, wait_for_checker};
use support::{SOON, process, wait_until};

/// Sends a signal with a number, as `restart` tells a master of its request (sigqueue(3)).
fn signal_with(pid: i32, signal: Signal, value: u64) {
    assert!(pid > 1, "never signal pid {pid}");
    let value = nix::libc::sigval {
        sival_ptr: std::ptr::without_provenance_mut(usize::try_from(value).unwrap()),
    };
    // SAFETY: the value is a number for whoever reads it: nobody dereferences it.
    let _ = unsafe { nix::libc::sigqueue(pid, signal as i32, value) };
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
    signal_with(milter.master(), Signal::SIGUSR2, digest);
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
    signal_with(master, Signal::SIGUSR2, good);
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
    signal_with(master, Signal::SIGUSR2, digest("nonsense"));
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
