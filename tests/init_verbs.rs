//! The verbs that only init scripts give: `pmx-init try-restart` and `force-reload` touch what runs and start nothing.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use support::SOON;
use support::command::{Outcome, run};
use support::milter::{ADDS_A_HEADER, Milter};

fn pmx_init(milter: &Milter, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pmx-init"));
    command
        .arg("-c")
        .arg(milter.path("pmx.conf"))
        .args(arguments)
        .env("PMX_TEST_DIR", milter.run_dir().parent().unwrap())
        .env_remove("PMX_CONF");
    run(command, 2 * SOON)
}

/// Two milters, of which the second is enabled and does not run.
fn two() -> Milter {
    let milter = Milter::new(ADDS_A_HEADER);
    let log = milter.run_dir().join("log");
    let table = |name: &str, port: &str| {
        format!(
            "[milter.{name}]\nport = \"{port}\"\npolicy = \"policy.lua\"\nlog_to = \"file:{}\"\n",
            log.display()
        )
    };
    let other = format!("unix:{}/other.sock", milter.run_dir().display());
    let tables = table("policy", &milter.port_setting()) + &table("other", &other);
    milter.configure_milters(&tables);
    milter
}

#[test]
fn what_runs_is_restarted_and_what_does_not_run_is_not_started() {
    let milter = two();
    for verb in ["try-restart", "force-reload"] {
        pmx_init(&milter, &[verb])
            .expect(0)
            .prints("no milter runs");
        pmx_init(&milter, &[verb, "policy"])
            .expect(0)
            .prints("policy: not running");
        assert!(milter.processes().is_empty());
    }
    pmx_init(&milter, &["start", "policy"]).expect(0);
    for arguments in [&["try-restart"][..], &["force-reload", "policy", "other"]] {
        let before = milter.processes();
        pmx_init(&milter, arguments).expect(0);
        let after = milter.processes();
        assert!(
            after.iter().any(|pid| !before.contains(pid)),
            "{arguments:?}: {before:?} {after:?}"
        );
        pmx_init(&milter, &["status", "policy"]).expect(0);
        pmx_init(&milter, &["status", "other"]).expect(3);
    }
    pmx_init(&milter, &["stop"]).expect(0);
}

#[test]
fn a_broken_configuration_leaves_what_runs_alone_and_pmx_init_signs_the_complaint() {
    let milter = two();
    pmx_init(&milter, &["start", "policy"]).expect(0);
    let before = milter.processes();
    milter.write(
        "pmx.conf",
        &format!(
            "run_dir = \"{}\"\n[milter.policy\n",
            milter.run_dir().display()
        ),
    );
    let outcome = pmx_init(&milter, &["try-restart"]).expect(6);
    assert!(
        outcome
            .err
            .lines()
            .any(|line| line.starts_with("pmx-init: ")),
        "{}",
        outcome.err
    );
    assert!(!outcome.err.contains("pmx-milter:"), "{}", outcome.err);
    assert_eq!(
        outcome.err.matches("not TOML").count(),
        1,
        "{}",
        outcome.err
    );
    assert_eq!(milter.processes(), before);
    pmx_init(&milter, &["stop"]).expect(0);
}

#[test]
fn the_version_has_the_commit_or_says_that_it_is_a_debug_build() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pmx-init"));
    command.arg("--version");
    let line = run(command, SOON).expect(0).out;
    let (version, build) = line.trim_end().split_once(" (").unwrap();
    assert_eq!(version, concat!("pmx-init ", env!("CARGO_PKG_VERSION")));
    let build = build.strip_suffix(')').unwrap();
    let is_commit = build.len() == 12 && build.bytes().all(|byte| byte.is_ascii_hexdigit());
    let known = is_commit || build == "unknown commit" || option_env!("PMX_COMMIT") == Some(build);
    assert!(
        known || (build == "debug build" && cfg!(debug_assertions)),
        "{line}"
    );
}
