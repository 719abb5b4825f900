//! `check` tells whether the MTA of this machine asks the milters, and changes nothing by what it finds.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use support::SOON;
use support::command::{Outcome, run};
use support::milter::{ADDS_A_HEADER, Milter, PROGRAM};

/// `check` with this script as postconf, and no other in PATH.
fn check(milter: &Milter, postconf: Option<&str>) -> Outcome {
    let bin = milter.path("bin");
    let _ = fs::remove_dir_all(&bin);
    fs::create_dir(&bin).unwrap();
    if let Some(script) = postconf {
        let path = bin.join("postconf");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(PROGRAM);
    command
        .arg("-c")
        .arg(milter.path("pmx.conf"))
        .arg("check")
        .env("PATH", &bin);
    run(command, 2 * SOON)
}

/// A postconf that answers as Postfix's does.
fn answering(main: &str, master: &str) -> String {
    format!("case $1 in\n-x) echo '{main}';;\n-Px) echo '{master}';;\nesac")
}

#[test]
fn check_tells_whether_postfix_asks_and_what_to_write() {
    let milter = Milter::new(ADDS_A_HEADER);
    let postfix = format!("inet:127.0.0.1:{}", milter.port);
    check(&milter, Some(&answering("smtpd_milters = ", "")))
        .expect(0)
        .prints("policy: good, ")
        .prints(&format!("policy: Postfix does not ask it (smtpd_milters is empty); to have it do so: postconf -e 'smtpd_milters = {postfix}' && postfix reload"));
    let asking = format!("smtpd_milters = inet:localhost:8891, {postfix}");
    let outcome = check(&milter, Some(&answering(&asking, ""))).expect(0);
    assert!(
        outcome.out.ends_with("policy: Postfix asks it\n"),
        "{}",
        outcome.out
    );
    check(
        &milter,
        Some(&answering(
            &format!("{asking}\nmilter_default_action = accept"),
            "",
        )),
    )
    .expect(0)
    .prints("lets mail pass unfiltered");
    let master = format!("submission/inet/smtpd_milters = {postfix}");
    check(&milter, Some(&answering("smtpd_milters =", &master)))
        .expect(0)
        .prints("policy: Postfix asks it in submission/inet");
}

#[test]
fn without_a_postfix_that_is_set_up_check_says_nothing_of_it() {
    let milter = Milter::new(ADDS_A_HEADER);
    let failing = "echo 'smtpd_milters = '; echo 'postconf: fatal: open main.cf' >&2; exit 1";
    for postconf in [None, Some(failing), Some("exec /bin/sleep 1000")] {
        let outcome = check(&milter, postconf).expect(0);
        assert!(
            !outcome.out.contains("Postfix"),
            "{postconf:?}: {}",
            outcome.out
        );
        assert_eq!(outcome.err, "", "{postconf:?}");
    }
}

#[test]
fn the_effective_configuration_is_printed_alone() {
    let milter = Milter::new(ADDS_A_HEADER);
    let mut command = Command::new(PROGRAM);
    command
        .arg("-c")
        .arg(milter.path("pmx.conf"))
        .args(["check", "--dump"]);
    let dump = run(command, SOON).expect(0).out;
    assert!(!dump.contains("Postfix"), "{dump}");
}

mod needs_overlay {
    use super::*;

    #[test]
    fn check_tells_whether_sendmail_asks_and_what_to_write() {
        let milter = Milter::new(ADDS_A_HEADER);
        // Files in /etc/mail that only this program sees.
        let script = r#"set -e
mount -t tmpfs none /mnt
mkdir /mnt/changes /mnt/work
mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/changes,workdir=/mnt/work /etc
mkdir -p /etc/mail
printf '%s\n' "$3" >/etc/mail/sendmail.cf
PATH=/nowhere exec "$1" -c "$2" check"#;
        let check = |cf: &str| {
            let mut command = Command::new("unshare");
            command
                .args(["--mount", "sh", "-c", script, "sh", PROGRAM])
                .arg(milter.path("pmx.conf"))
                .arg(cf);
            run(command, SOON).expect(0)
        };
        let port = milter.port;
        check("")
            .prints("policy: Sendmail does not ask it")
            .prints(&format!(
                "INPUT_MAIL_FILTER(`policy', `S=inet:{port}@127.0.0.1, F=T')dnl"
            ));
        let defined = format!("Xany, S=inet:{port}@localhost, F=T, T=R:2m\nO InputMailFilters=any");
        check(&defined).prints("policy: Sendmail asks it\n");
    }
}
