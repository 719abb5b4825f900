#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::file::LogFile;
use super::line::{Stamp, one_line};
use super::sink::{Datagrams, Sink, choose};
use super::*;
use crate::sys::calendar::{Civil, utc};

fn settings(to: LogTo, dir: &Path) -> Settings {
    Settings {
        to,
        utc: true,
        milter: "policy".to_owned(),
        last_resort: dir.join("policy.log"),
        owner: None,
    }
}

/// A server's socket that gives up after a while instead of hanging.
fn server(path: &Path) -> UnixDatagram {
    let server = UnixDatagram::bind(path).unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    server
}

fn received(server: &UnixDatagram) -> String {
    let mut buffer = vec![0; 65_536];
    let length = server.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn one_event_is_one_line_and_shows_what_would_break_it() {
    for (text, expected) in [
        ("plain ü", "plain ü"),
        (
            "policy.lua:3: no\nstack traceback:\n\t[C]: in ?\n\n\tpolicy.lua:3: in main chunk\n",
            "policy.lua:3: no | stack traceback: | [C]: in ? | policy.lua:3: in main chunk",
        ),
        ("a\u{1b}[31m\u{7f}\0b", "a\\u{1b}[31m\\u{7f}\\u{0}b"),
        ("a\tb\rc", "a b\\rc"),
        ("x\u{2028}y\u{202e}z", "x\\u{2028}y\\u{202e}z"),
        ("", ""),
        ("\n\n", ""),
    ] {
        assert_eq!(one_line(text), expected);
    }
    let long = one_line(&"ü\n".repeat(100_000));
    assert!(long.len() < 8100 && long.ends_with("..."), "{}", long.len());
}

#[test]
fn each_sink_has_its_form() {
    let stamp = Stamp {
        milter: "policy",
        pid: 7,
        time: utc(1_795_579_200 - 20 * 86_400),
    };
    let line = Line::new(
        Severity::Warning,
        "slow\nPRIORITY=0",
        Some("4XyZ\nMESSAGE=x"),
    );
    assert_eq!(
        line.for_journal(&stamp),
        "PRIORITY=4\nSYSLOG_FACILITY=2\nSYSLOG_IDENTIFIER=pmx-milter\nPMX_MILTER=policy\nQUEUE_ID=4XyZ | MESSAGE=x\nMESSAGE=policy: slow | PRIORITY=0\n"
    );
    assert_eq!(
        line.for_syslog(&stamp),
        "<20>Nov  5 04:00:00 pmx-milter/policy[7]: warning: slow | PRIORITY=0"
    );
    assert_eq!(
        line.for_journal_stream(&stamp),
        "<4>policy: slow | PRIORITY=0\n"
    );
    assert_eq!(
        line.for_file(&stamp),
        "2026-11-05T04:00:00Z policy[7]: warning: slow | PRIORITY=0\n"
    );
    let west = Stamp {
        time: Civil {
            offset_seconds: -12_600,
            ..stamp.time
        },
        ..stamp
    };
    let line = Line::new(Severity::Info, "x", None);
    assert_eq!(
        line.for_file(&west),
        "2026-11-05T04:00:00-03:30 policy[7]: x\n"
    );
}

#[test]
fn without_a_journal_syslog_is_used_and_without_that_a_file_and_both_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, syslog) = (dir.path().join("journal"), dir.path().join("log"));
    let used = |to: LogTo| {
        choose(&settings(to, dir.path()), (&journal, &syslog))
            .unwrap()
            .1
    };
    let choice = used(LogTo::Journal);
    assert_eq!(choice.used, LogTo::File(dir.path().join("policy.log")));
    let told = choice.to_string();
    assert!(
        told.contains("policy.log (no journal at ") && told.contains("; no syslog at "),
        "{told}"
    );
    let _syslog_server = server(&syslog);
    let choice = used(LogTo::Journal);
    assert_eq!(choice.used, LogTo::Syslog);
    assert!(choice.to_string().starts_with("syslog (no journal at "));
    let _journal_server = server(&journal);
    assert_eq!(used(LogTo::Journal).to_string(), "the journal");
    assert_eq!(used(LogTo::Syslog).to_string(), "syslog");
    assert_eq!(used(LogTo::Stderr).used, LogTo::Stderr);
    let error = choose(
        &settings(LogTo::File(dir.path().join("no/x.log")), dir.path()),
        (&journal, &syslog),
    )
    .err()
    .unwrap();
    assert!(
        error.to_string().contains("no/x.log")
            && error.to_string().ends_with("set log_to in pmx.conf"),
        "{error}"
    );
}

#[test]
fn a_server_that_does_not_read_costs_lines_that_are_counted_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let server = server(&path);
    let sink = Sink::Syslog(Datagrams::open(&path).unwrap());
    let mut journal = Journal::with(settings(LogTo::Syslog, dir.path()), sink);
    let sent = 5000;
    for number in 0..sent {
        journal.write(&Line::new(Severity::Info, &format!("line {number}"), None));
    }
    server.set_nonblocking(true).unwrap();
    let mut kept = 0;
    let mut buffer = [0; 65_536];
    while kept < sent && server.recv(&mut buffer).is_ok() {
        kept += 1;
    }
    assert!(
        kept > 0 && kept < sent,
        "the kernel's queue held all {sent} lines"
    );
    server.set_nonblocking(false).unwrap();
    journal.write(&Line::new(Severity::Info, "after", None));
    let notice = received(&server);
    assert!(
        notice.ends_with(&format!(
            "warning: log lines lost here: {} (their receiver was too slow)",
            sent - kept
        )),
        "{notice}"
    );
    assert!(received(&server).ends_with("]: after"));
}

#[test]
fn a_server_that_was_restarted_gets_the_next_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let first = server(&path);
    let sink = Sink::Journal(Datagrams::open(&path).unwrap());
    let mut journal = Journal::with(settings(LogTo::Journal, dir.path()), sink);
    drop(first);
    fs::remove_file(&path).unwrap();
    journal.write(&Line::new(Severity::Info, "into the void", None));
    let second = server(&path);
    journal.write(&Line::new(Severity::Error, "heard", None));
    assert!(received(&second).contains("log lines lost here: 1 ("));
    assert!(received(&second).ends_with("PMX_MILTER=policy\nMESSAGE=policy: heard\n"));
}

#[test]
fn a_log_file_is_appended_to_reopened_and_not_readable_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    let (mut journal, choice) =
        Journal::open(settings(LogTo::File(path.clone()), dir.path())).unwrap();
    assert_eq!(choice.instead, None);
    journal.write(&Line::new(Severity::Info, "one", None));
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & !0o640, 0, "{mode:o}");
    fs::rename(&path, dir.path().join("x.log.1")).unwrap();
    journal.write(&Line::new(Severity::Info, "two", None));
    journal.reopen();
    journal.write(&Line::new(Severity::Info, "three", None));
    let old = fs::read_to_string(dir.path().join("x.log.1")).unwrap();
    let new = fs::read_to_string(&path).unwrap();
    assert!(
        old.contains("]: one\n") && old.ends_with("]: two\n"),
        "{old}"
    );
    assert!(
        new.ends_with("]: three\n") && new.lines().count() == 1,
        "{new}"
    );
    let time = new.split(' ').next().unwrap();
    assert!(
        time.len() == 20 && time.ends_with('Z') && time.contains('T'),
        "{time}"
    );

    let moved = dir.path().join("x.log.2");
    fs::rename(&path, &moved).unwrap();
    fs::create_dir(&path).unwrap();
    journal.reopen();
    journal.write(&Line::new(Severity::Info, "four", None));
    let old = fs::read_to_string(&moved).unwrap();
    assert!(
        old.contains("warning: the log goes on in its old place: cannot write the log file")
            && old.ends_with("]: four\n"),
        "{old}"
    );
}

#[test]
fn a_log_file_that_is_a_link_or_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "").unwrap();
    let link = dir.path().join("link.log");
    symlink(&victim, &link).unwrap();
    let error = LogFile::open(&link, None).unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert!(LogFile::open(Path::new("/dev/full"), None).is_err());
    assert!(LogFile::open(dir.path(), None).is_err());
}

#[test]
fn what_root_creates_belongs_to_the_account_and_a_file_of_roots_in_a_strangers_directory_does_not()
{
    use std::os::unix::fs::{MetadataExt, chown};
    if crate::sys::user::effective_uid() != 0 {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let owner = Some((65_534, 65_534));
    let created = dir.path().join("created.log");
    LogFile::open(&created, owner).unwrap();
    assert_eq!(fs::metadata(&created).unwrap().uid(), 65_534);
    let found = dir.path().join("found.log");
    fs::write(&found, "").unwrap();
    chown(dir.path(), Some(65_534), None).unwrap();
    LogFile::open(&found, owner).unwrap();
    assert_eq!(fs::metadata(&found).unwrap().uid(), 0);
    chown(dir.path(), Some(0), None).unwrap();
    LogFile::open(&found, owner).unwrap();
    assert_eq!(fs::metadata(&found).unwrap().uid(), 65_534);
}

#[test]
fn the_macros_reach_the_file_by_level_and_message_log_always_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    let name: MilterName = "policy".parse().unwrap();
    let choice = start(
        &LogTo::File(path.clone()),
        LogLevel::Warn,
        true,
        &name,
        dir.path(),
        None,
    )
    .unwrap();
    assert_eq!(choice.used, LogTo::File(path.clone()));
    ::log::warn!(queue_id = "4X"; "heeded");
    ::log::info!("below the level");
    message("id=4X verdict=accept");
    reopen();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("]: warning: heeded\n"), "{text}");
    assert!(text.contains("]: id=4X verdict=accept\n"), "{text}");
    assert!(!text.contains("below the level"), "{text}");
    ::log::set_max_level(LevelFilter::Off);
}
