//! The systemd units and the init script: systemd takes them, and a milter lives with what the unit leaves it.
//!
//! systemd itself does not run here. What its sandbox does is checked part by part: the capabilities by running with them alone, the
//! system calls by looking at those that a milter makes.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use support::command::{Outcome, Running, run, spawn};
use support::milter::{ADDS_A_HEADER, Milter, PROGRAM, count};
use support::mta::{Message, Mta};
use support::{SOON, process, wait_until};

const UNIT: &str = "pmx-milter@.service";
const EXPORTER: &str = "pmx-milter-exporter.service";

fn dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dist")
}

/// Everything that the unit says of a setting, in its order.
fn setting(name: &str) -> Vec<String> {
    let unit = fs::read_to_string(dist().join(UNIT)).unwrap();
    let words: Vec<String> = unit
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .flat_map(|value| value.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(!words.is_empty(), "the unit does not set {name}");
    words
}

/// The master as systemd would start it, with `wrapper` around the command of the unit.
fn run_by_unit(milter: &Milter, wrapper: &[&str]) -> Running {
    let start = setting("ExecStart");
    assert_eq!(start, ["/usr/sbin/pmx-milter", "run", "%i"]);
    let mut command = Command::new(wrapper[0]);
    command
        .args(&wrapper[1..])
        .arg(PROGRAM)
        .args(["run", "policy"])
        .env("PMX_CONF", milter.path("pmx.conf"))
        .env("PMX_TEST_DIR", milter.run_dir().parent().unwrap())
        .env_remove("NOTIFY_SOCKET");
    spawn(command)
}

/// A message through it, and another that is still in progress.
fn mail(milter: &Milter) -> Mta {
    wait_until(SOON, "it takes mail", || {
        Mta::ready(&milter.address(), SOON).ok()
    });
    let mut session = milter.session();
    assert!(
        session
            .message(&Message::from("a@b.example"))
            .unwrap()
            .is_taken()
    );
    session.begin(&Message::from("c@d.example")).unwrap();
    session
}

mod needs_systemd_analyze {
    use super::*;

    /// Asks systemd about the units, with the program where it is here.
    fn analyze(arguments: &[&str]) -> Outcome {
        let dir = tempfile::tempdir().unwrap();
        for name in [UNIT, EXPORTER, "pmx-milter.service"] {
            let unit = fs::read_to_string(dist().join(name)).unwrap();
            let here = unit.replace("/usr/sbin/pmx-milter", PROGRAM);
            fs::write(dir.path().join(name), here).unwrap();
        }
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).current_dir(dir.path());
        run(command, 2 * SOON)
    }

    #[test]
    fn systemd_finds_nothing_wrong_with_the_units() {
        let units = [UNIT, EXPORTER, "pmx-milter.service"].map(|name| format!("./{name}"));
        let mut arguments = vec!["verify", "--man=no"];
        arguments.extend(units.iter().map(String::as_str));
        let outcome = analyze(&arguments).expect(0);
        assert_eq!((outcome.out.as_str(), outcome.err.as_str()), ("", ""));
    }

    #[test]
    fn systemd_rates_the_exposure_of_a_milter_as_low() {
        // In tenths; systemd calls up to 4.0 OK. It is 3.0 with systemd 252.
        let limit = "--threshold=35";
        let unit = format!("./{UNIT}");
        let outcome = analyze(&["security", "--offline=yes", "--no-pager", limit, &unit]);
        let last = outcome.out.lines().last().unwrap_or_default().to_owned();
        println!("{last}");
        outcome.expect(0);
        assert!(last.contains("exposure level"), "{last}");
    }

    #[test]
    fn the_exporter_makes_only_system_calls_that_its_unit_lets_it_make() {
        let milter = Milter::started(ADDS_A_HEADER, "");
        let trace = milter.path("trace");
        let mut command = Command::new("setpriv");
        // The unit's user, here the one that the milters have.
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        if nix::unistd::geteuid().is_root() {
            command.args([
                format!("--reuid={}", nobody.uid),
                format!("--regid={}", nobody.gid),
                "--clear-groups".to_owned(),
            ]);
            fs::write(&trace, "").unwrap();
            std::os::unix::fs::chown(&trace, Some(nobody.uid.as_raw()), None).unwrap();
        }
        command
            .args(["strace", "-f", "-qq", "-o"])
            .arg(&trace)
            .args([PROGRAM, "exporter", "--listen", "0"])
            .env("PMX_CONF", milter.path("pmx.conf"));
        let mut running = spawn(command);
        let address = wait_until(SOON, "the exporter serves", || {
            let said = running.said();
            assert!(!running.has_ended(), "{said}");
            let (_, rest) = said.split_once("serving http://")?;
            rest.split_once("/metrics\n")?.0.parse().ok()
        });
        for path in ["/metrics", "/healthz", "/readyz/policy", "/nonsense"] {
            support::http::get(address, path);
        }
        milter.stop();
        support::http::get(address, "/healthz").expect(503);
        drop(running);
        let mut allowed = BTreeSet::new();
        members("@system-service", &mut allowed);
        for set in ["@privileged", "@resources"] {
            let mut refused = BTreeSet::new();
            members(set, &mut refused);
            allowed.retain(|call| !refused.contains(call));
        }
        let text = fs::read_to_string(dist().join(EXPORTER)).unwrap();
        assert!(text.contains(
            "SystemCallFilter=@system-service\nSystemCallFilter=~@privileged @resources\n"
        ));
        let trace = fs::read_to_string(trace).unwrap();
        let made: BTreeSet<String> = trace
            .lines()
            .filter_map(|line| line.split_once(' ')?.1.trim().split_once('('))
            .map(|(call, _)| call.to_owned())
            .filter(|call| {
                call.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            })
            .collect();
        assert!(made.contains("poll") && made.len() > 15, "{made:?}");
        // Of the start by the shell's side, before the filter.
        let missing: Vec<&String> = made
            .difference(&allowed)
            .filter(|call| *call != "execve")
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    /// The members of systemd's set of system calls, those of the sets in it too.
    fn members(set: &str, found: &mut BTreeSet<String>) {
        let outcome = analyze(&["syscall-filter", "--no-pager", set]).expect(0);
        for line in outcome.out.lines().map(str::trim).skip(1) {
            match line {
                "" => {}
                line if line.starts_with('#') => {}
                line if line.starts_with('@') => members(line, found),
                line => {
                    found.insert(line.to_owned());
                }
            }
        }
    }

    #[test]
    fn the_unit_lets_a_milter_make_every_system_call_that_it_makes() {
        let milter = Milter::new(ADDS_A_HEADER);
        let trace = milter.path("trace");
        let running = run_by_unit(
            &milter,
            &["strace", "-f", "-qq", "-o", trace.to_str().unwrap()],
        );
        let mut session = mail(&milter);
        process::signal(milter.children()[0], Signal::SIGKILL);
        assert!(
            session.complete(&Message::from("c@d.example")).is_err(),
            "the child was killed"
        );
        drop(mail(&milter));
        milter.pmx(&["restart"]).expect(0);
        drop(mail(&milter));
        milter.pmx(&["stop"]).expect(0);
        drop(running);

        let mut allowed = BTreeSet::new();
        for word in setting("SystemCallFilter") {
            if word.starts_with('@') {
                members(&word, &mut allowed);
            } else {
                allowed.insert(word);
            }
        }
        // systemd.exec(5): these are always allowed.
        let implied = ["execve", "exit", "exit_group", "rt_sigreturn"];
        allowed.extend(implied.map(str::to_owned));
        let families = setting("RestrictAddressFamilies");
        let text = fs::read_to_string(&trace).unwrap();
        let mut made = BTreeSet::new();
        for line in text.lines() {
            let Some((head, arguments)) = line.split_once('(') else {
                continue;
            };
            let name = head.rsplit(' ').next().unwrap();
            // The second half of a call that another process's line cut is none.
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if name.is_empty() || !name.bytes().all(plain) {
                continue;
            }
            made.insert(name.to_owned());
            if name == "socket" {
                let family = arguments.split(',').next().unwrap();
                assert!(families.iter().any(|it| it == family), "{line}");
            }
            // MemoryDenyWriteExecute; the name service of the C library maps code that is not writable.
            let denied = match name {
                "mmap" => line.contains("PROT_WRITE|PROT_EXEC"),
                "mprotect" | "pkey_mprotect" => line.contains("PROT_EXEC"),
                _ => false,
            };
            assert!(!denied, "{line}");
        }
        assert!(made.len() > 40, "{made:?}");
        let refused: Vec<_> = made.difference(&allowed).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }
}

mod needs_root {
    use super::*;

    #[test]
    fn a_milter_lives_with_the_capabilities_that_the_unit_leaves_it() {
        let milter = Milter::with(ADDS_A_HEADER, "graceful_timeout = \"1m\"");
        let mut bounds = "-all".to_owned();
        for capability in setting("CapabilityBoundingSet") {
            bounds.push_str(",+");
            bounds.push_str(
                &capability
                    .strip_prefix("CAP_")
                    .unwrap()
                    .to_ascii_lowercase(),
            );
        }
        assert_eq!(setting("NoNewPrivileges"), ["yes"]);
        let umask = format!("umask {}; exec \"$@\"", setting("UMask")[0]);
        let running = run_by_unit(
            &milter,
            &[
                "setpriv",
                "--no-new-privs",
                "--inh-caps=-all",
                "--bounding-set",
                &bounds,
                "sh",
                "-c",
                &umask,
                "sh",
            ],
        );
        let mut session = mail(&milter);
        let status = milter.wait_json("sizes are sampled", |milter| {
            milter["slots"][0]["rss_bytes"]
                .as_u64()
                .is_some_and(|bytes| bytes > 0)
        });
        assert_eq!(count(&status["pool"]["messages"]), 1);
        let master = milter.master();
        // A stop of systemd's with KillMode=mixed: TERM to the main process.
        assert_eq!(setting("KillMode"), ["mixed"]);
        process::signal(master, Signal::SIGTERM);
        assert!(
            session.complete(&Message::from("c@d.example")).is_ok(),
            "a stop lets a message finish"
        );
        drop(session);
        running.wait(SOON).expect(0);
        assert!(milter.processes().is_empty());
    }
}
