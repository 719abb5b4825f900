//! pmx-milter-guide(7): what it shows works, and it names everything that `status` may show.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use pmx_milter::control::status::State;
use support::SOON;
use support::command::run;
use support::milter::{ADDS_A_HEADER, Milter, PROGRAM};

fn guide() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/pmx-milter-guide.7");
    fs::read_to_string(path).unwrap()
}

/// The lines of the displays of the page.
fn displays(page: &str) -> Vec<Vec<&str>> {
    let mut displays = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.starts_with(".Bd") {
            displays.push(lines.by_ref().take_while(|line| *line != ".Ed").collect());
        }
    }
    displays
}

/// What `# cat FILE` shows on the page.
fn shown(page: &str, file: &str) -> String {
    let command = format!("# cat {file}");
    let display = displays(page)
        .into_iter()
        .find(|lines| lines.contains(&command.as_str()))
        .unwrap_or_else(|| panic!("{command} is not on the page"));
    let lines = display
        .into_iter()
        .skip_while(|line| *line != command)
        .skip(1)
        .take_while(|line| !line.starts_with("# "));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_configuration_and_the_policy_of_the_first_mail_work() {
    let page = guide();
    let milter = Milter::new(ADDS_A_HEADER);
    let conf = shown(&page, "/etc/pmx/pmx.conf");
    assert!(conf.contains("inet:3366@127.0.0.1"), "{conf}");
    milter.configure_milters(&conf.replace("inet:3366@127.0.0.1", &milter.port_setting()));
    milter.write("policy.lua", &shown(&page, "/etc/pmx/policy.lua"));
    let postfix = format!("inet:127.0.0.1:{}", milter.port);
    let sendmail = format!("`S=inet:{}@127.0.0.1, F=T')dnl", milter.port);
    milter.pmx(&["check"]).expect(0).prints("policy: good, ");
    let started = milter.pmx(&["start"]).expect(0);
    for (printed, on_page) in [
        (postfix, "smtpd_milters = inet:127.0.0.1:3366"),
        (
            sendmail,
            "INPUT_MAIL_FILTER(`policy', `S=inet:3366@127.0.0.1, F=T')dnl",
        ),
    ] {
        assert!(started.out.contains(&printed), "{}", started.out);
        assert!(page.contains(on_page), "{on_page}");
    }
    let mut session = milter.session();
    let message = support::mta::Message::from("a@b.example");
    let answer = session.message(&message).unwrap();
    assert!(answer.adds_header("X-Filter", "ok"), "{answer:?}");
}

#[test]
fn it_says_what_to_do_in_every_state() {
    let page = guide();
    for state in State::ALL {
        let item = format!(".It {}", state.word().replace('_', " "));
        assert!(page.lines().any(|line| line == item), "{item}");
    }
}

#[test]
fn it_says_what_to_do_whenever_no_connection_is_accepted() {
    let page = guide();
    let words = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/control/status/words.rs");
    let source = fs::read_to_string(words).unwrap();
    let reasons: Vec<&str> = source
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("NotAccepting::")?
                .split_once(" => \"")
        })
        .filter(|(reason, _)| *reason != "Accepting" && *reason != "Unknown(_)")
        .filter_map(|(_, text)| text.strip_suffix("\","))
        .collect();
    assert_eq!(reasons.len(), 5, "{reasons:?}");
    for reason in reasons {
        let item = format!(".It not accepting: {reason}");
        assert!(page.lines().any(|line| line == item), "{item}");
    }
}

#[test]
fn every_command_of_ours_on_the_page_exists() {
    let page = guide();
    let mut seen = 0;
    for line in page.lines() {
        for (at, _) in line.match_indices("pmx-milter ") {
            let verb: String = line[at + "pmx-milter ".len()..]
                .chars()
                .take_while(char::is_ascii_lowercase)
                .collect();
            // A word that is no command follows in prose or in .Xr.
            if !line.starts_with(".Ql") && !line.starts_with("# ") {
                continue;
            }
            let mut command = Command::new(PROGRAM);
            command.args([verb.as_str(), "--help"]);
            run(command, SOON).expect(0);
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
}
