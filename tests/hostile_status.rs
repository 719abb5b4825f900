//! status where somebody or something has been at the files: no signal death, no wait, a reason, and the right exit status. And nothing
//! that a board says drives a terminal.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use pmx_milter::cli;
use scoreboard::{Death, put_text};
use support::command::Outcome;
use support::crafted::{Records, board_file, dead_board, plant, run_dir};
use support::milter::{ADDS_A_HEADER, Milter};
use support::process::signal;
use support::{SOON, wait_until};

/// Every way in which status can print, each with its exit status for a board that cannot be read.
fn every_output() -> Vec<(Vec<String>, i32)> {
    let [program, _] = cli::commands();
    let status = program.find_subcommand("status").unwrap();
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut all = vec![(words("status --format openmetrics --per-slot"), 4)];
    for argument in status.get_arguments() {
        match argument.get_long() {
            Some("format") => all.extend(argument.get_possible_values().iter().map(|it| {
                let format = it.get_name();
                let code = if format == "nagios" { 3 } else { 4 };
                (words(&format!("status --format {format}")), code)
            })),
            Some(option @ ("long" | "history")) => {
                all.push((words(&format!("status --{option}")), 4))
            }
            _ => {}
        }
    }
    assert!(all.len() >= 6, "{all:?}");
    all
}

fn shows(milter: &Milter, output: &[String]) -> Outcome {
    let arguments: Vec<&str> = output.iter().map(String::as_str).collect();
    milter.pmx(&arguments)
}

/// What may stand in the place of a board, and what is said of it.
const PLANTED: &[(&str, &str)] = &[
    ("link", "it is a link, and links are not followed"),
    (
        "link to nowhere",
        "it is a link, and links are not followed",
    ),
    ("hard link", "it is no scoreboard"),
    ("pipe", "it is no scoreboard"),
    ("directory", "it is no scoreboard"),
];

fn make(kind: &str, board: &Path, other: &Path) {
    match kind {
        "link" => symlink(other, board).unwrap(),
        "link to nowhere" => symlink("/nowhere/at/all", board).unwrap(),
        "hard link" => fs::hard_link(other, board).unwrap(),
        "pipe" => mkfifo(board, Mode::from_bits_truncate(0o644)).unwrap(),
        "directory" => fs::create_dir(board).unwrap(),
        other => panic!("{other}"),
    }
}

#[test]
fn what_stands_in_the_place_of_a_board_is_unreadable_in_every_format() {
    let milter = Milter::new(ADDS_A_HEADER);
    let outputs = every_output();
    run_dir(&milter);
    milter.write(
        "other",
        "somebody else's file, long enough not to be short\n",
    );
    let (board, other) = (board_file(&milter), milter.path("other"));
    for (kind, reason) in PLANTED {
        make(kind, &board, &other);
        for (output, code) in &outputs {
            let outcome = shows(&milter, output);
            assert_eq!(
                outcome.code, *code,
                "{kind} {output:?}: {}{}",
                outcome.out, outcome.err
            );
            outcome.says(reason).says("policy");
        }
        if *kind == "directory" {
            fs::remove_dir(&board).unwrap();
        } else {
            fs::remove_file(&board).unwrap();
        }
    }
}

#[test]
fn a_start_replaces_what_was_planted_and_never_writes_through_it() {
    let text = "somebody else's file\n";
    for (kind, _) in PLANTED {
        let milter = Milter::new(ADDS_A_HEADER);
        run_dir(&milter);
        milter.write("other", text);
        let (board, other) = (board_file(&milter), milter.path("other"));
        make(kind, &board, &other);
        let outcome = milter.pmx(&["start"]);
        if *kind == "directory" {
            // It is not ours to remove, and says which.
            assert!(
                matches!(outcome.code, 1..=7),
                "{}{}",
                outcome.out,
                outcome.err
            );
            outcome.says("policy.scoreboard");
            assert!(board.is_dir() && milter.processes().is_empty());
        } else {
            outcome.expect(0);
            milter.status().expect(0).prints("policy: running");
            milter.stop();
        }
        assert_eq!(fs::read_to_string(&other).unwrap(), text, "{kind}");
    }
}

#[test]
fn a_board_that_is_cut_short_under_a_watching_status_ends_nothing() {
    let milter = Milter::new(ADDS_A_HEADER);
    plant(&milter, &dead_board());
    let watching = ["status", "--format", "json", "--watch", "0.1"];
    let mut running = milter.pmx_in_background(&watching);
    wait_until(SOON, "the board is shown", || {
        running.said().contains("\"state\":\"dead\"").then_some(())
    });
    let file = fs::OpenOptions::new()
        .write(true)
        .open(board_file(&milter))
        .unwrap();
    for length in [9_000, 600, 100, 0] {
        file.set_len(length).unwrap();
        let outcome = milter.status().expect(4);
        outcome
            .prints("policy: unreadable")
            .says("policy.scoreboard");
    }
    wait_until(SOON, "it is shown as unreadable", || {
        running
            .said()
            .contains("\"state\":\"unreadable\"")
            .then_some(())
    });
    plant(&milter, &dead_board());
    let deads = |said: &str| said.matches("\"state\":\"dead\"").count();
    let before = deads(&running.said());
    wait_until(SOON, "a whole board is shown again", || {
        (deads(&running.said()) > before).then_some(())
    });
    assert!(!running.has_ended());
    signal(running.pid(), Signal::SIGINT);
    assert_eq!(
        running.wait(SOON).code,
        128 + 2,
        "by the interrupt, not before"
    );
}

#[test]
fn nothing_on_a_board_reaches_the_terminal_as_a_control_character() {
    // Clears the screen, sets the title, CSI of one byte, DEL, an overlong slash, a bell, lines of its own, and a label's end.
    const EVIL: &[u8] = b"\x1b[2J\x1b]0;x\x07\xc2\x9b1m\x9b\x7f\xc0\xaf\r\n\n# EOF\n\"} 1|'=\0";
    let milter = Milter::new(ADDS_A_HEADER);
    let mut records = Records::running();
    put_text(&mut records.global.port, EVIL);
    put_text(&mut records.global.version, &EVIL[..32]);
    put_text(&mut records.global.trouble, EVIL);
    records.global.trouble_at_ns = records.global.heartbeat_ns;
    put_text(&mut records.child.queue_id, EVIL);
    put_text(&mut records.child.doing, EVIL);
    // Numbers that are no words of ours.
    records.child.phase = u64::MAX - 1;
    records.child.last_verdict = u64::MAX;
    records.master.retire_reason = 1 << 40;
    let mut board = records.publish(&milter);
    let mut death = <Death as bytemuck::Zeroable>::zeroed();
    death.at_ns = records.global.heartbeat_ns;
    death.end = u64::MAX;
    put_text(&mut death.queue_id, EVIL);
    board.append_death(death);
    for (output, _) in every_output() {
        let outcome = shows(&milter, &output);
        assert!(outcome.code < 5, "{output:?}: {}", outcome.code);
        let all = outcome.out + &outcome.err;
        let bad = all.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(bad, None, "{output:?}: {all:?}");
        let ends = all.lines().filter(|line| *line == "# EOF").count();
        assert!(ends <= 1, "{output:?}: a line of the board's own\n{all}");
    }
    drop(board);
}

mod needs_root {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use support::command::run;
    use support::milter::PROGRAM;

    use super::*;

    /// Two users who are neither root nor each other.
    const WE: u32 = 65_534;
    const SOMEBODY: u32 = 54_321;

    #[test]
    fn a_run_directory_of_somebody_else_is_refused_and_what_cannot_be_read_is_unknown() {
        let milter = Milter::new(ADDS_A_HEADER);
        let dir = run_dir(&milter);
        chown(&dir, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        // Where the program was built, other users may not go.
        fs::copy(PROGRAM, milter.path("pmx")).unwrap();
        let (conf, dir_text) = (milter.path("pmx.conf"), dir.display().to_string());
        let text = fs::read_to_string(&conf).unwrap();
        let plain: String = text
            .lines()
            .filter(|line| !line.starts_with("user") && !line.starts_with("log_to"))
            .flat_map(|line| [line, "\n"])
            .collect();
        milter.write("pmx.conf", &plain);
        let pmx = |arguments: &[&str]| {
            let mut command = Command::new(milter.path("pmx"));
            command.arg("-c").arg(&conf).args(arguments).uid(WE).gid(WE);
            command
                .env("PMX_TEST_DIR", milter.path(""))
                .current_dir("/");
            run(command, SOON)
        };
        let refused = pmx(&["start"]);
        assert!(matches!(refused.code, 1..=7), "{}", refused.err);
        refused
            .says(&dir_text)
            .says("it belongs to user number 54321");
        assert!(
            fs::read_dir(&dir).unwrap().next().is_none(),
            "nothing is left"
        );
        pmx(&["status"]).expect(3).prints("policy: not running");
        // A board that we may not read is there, and more cannot be said.
        plant(&milter, &dead_board());
        fs::set_permissions(board_file(&milter), fs::Permissions::from_mode(0o600)).unwrap();
        let outcome = pmx(&["status"]).expect(4);
        outcome.says("status_mode").prints("policy: unreadable");
        pmx(&["status", "--format", "nagios"]).expect(3);
        // Nor into a directory that we may not search.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        pmx(&["status"]).expect(4).says(&dir_text);
        pmx(&["status", "policy"]).expect(4).says(&dir_text);
    }
}

mod needs_mounts {
    use std::process::Command;

    use support::command::run;
    use support::milter::PROGRAM;

    use super::*;

    #[test]
    fn a_run_directory_without_room_for_a_board_is_told_and_no_signal_ends_the_start() {
        let milter = Milter::new(ADDS_A_HEADER);
        let dir = run_dir(&milter);
        // The mount is gone with the shell that made it.
        let script = "set -e; mount -t tmpfs -o size=64k,mode=755 none \"$1\"; status=0
            \"$2\" -c \"$3\" start || status=$?; ls -A \"$1\"; exit $status";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]);
        command.arg(&dir).arg(PROGRAM).arg(milter.path("pmx.conf"));
        command
            .env("PMX_TEST_DIR", milter.path(""))
            .current_dir("/");
        let outcome = run(command, SOON);
        assert!(
            matches!(outcome.code, 1..=7),
            "{}: {}",
            outcome.code,
            outcome.err
        );
        let outcome = outcome
            .says("no room for its ")
            .says(&dir.display().to_string());
        let left: Vec<&str> = outcome
            .out
            .lines()
            .filter(|it| !it.ends_with(".lock"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(milter.processes().is_empty());
    }
}
