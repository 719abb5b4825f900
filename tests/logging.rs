//! What the log says of messages, sessions and policies that fail, through the program and its log file.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use support::milter::Milter;
use support::mta::{FULL, Message};
use support::{SOON, wait_until};

const COLLECTS: &str = r#"
local policy = {collect = {"client", "helo", "sender", "recipients"}}
function policy.mail(ctx, sender, args)
  if sender == "refused@b.example" then return milter.REJECT end
end
function policy.eom(ctx)
  ctx:add_header("X-One", "1")
  ctx:add_header("X-Two", "2")
end
return policy
"#;

/// The lines of `message_log`, when there are so many.
fn message_lines(milter: &Milter, number: usize) -> Vec<String> {
    wait_until(SOON, "the messages are in the log", || {
        let lines: Vec<String> = milter
            .log()
            .lines()
            .filter_map(|line| {
                line.find("message queue_id=")
                    .map(|at| line[at..].to_owned())
            })
            .collect();
        (lines.len() == number).then_some(lines)
    })
}

#[test]
fn the_message_log_has_the_edits_and_the_stage_of_each_message() {
    let milter = Milter::started(COLLECTS, "message_log = true");
    let mut session = milter.session();
    session.message(&Message::from("a@b.example")).unwrap();
    session
        .message(&Message::from("refused@b.example"))
        .unwrap();
    session.begin(&Message::from("c@b.example")).unwrap();
    drop(session);
    let lines = message_lines(&milter, 3);
    assert!(
        lines[0].contains(" edits=2 stage=eom verdict=accept "),
        "{lines:#?}"
    );
    assert!(
        lines[0].contains("client=c.test address=192.0.2.1 ")
            && lines[0].contains(" from=a@b.example recipients=1 "),
        "{lines:#?}"
    );
    assert!(
        lines[1].contains(" edits=0 stage=mail verdict=reject "),
        "{lines:#?}"
    );
    assert!(
        lines[2].contains(" edits=0 stage=mail verdict=aborted "),
        "{lines:#?}"
    );
}

#[test]
fn redact_hides_whatever_names_somebody_in_the_message_log() {
    let milter = Milter::started(COLLECTS, "message_log = true\nredact = true");
    let mut session = milter.session();
    session.message(&Message::from("a@b.example")).unwrap();
    let line = message_lines(&milter, 1).remove(0);
    assert!(
        line.contains(
            " client=redacted address=redacted helo=redacted from=redacted recipients=1 edits=2 "
        ),
        "{line}"
    );
}

#[test]
fn a_callback_that_sleeps_past_its_time_is_logged_with_file_and_line() {
    let milter = Milter::started(
        "local policy = {}\nlocal function wait()\n  milter.sleep(60)\nend\nfunction policy.mail(ctx)\n  wait()\nend\nreturn policy\n",
        "callback_timeout = \"200ms\"",
    );
    let mut session = milter.session();
    session.message(&Message::from("a@b.example")).unwrap();
    milter.wait_for_log("policy.mail: out of time while suspended");
    milter.wait_for_log("policy.lua:3:");
    milter.wait_for_log("policy.lua:6:");
}

#[test]
fn what_is_no_milter_protocol_and_who_is_silent_is_logged_with_the_peer_and_the_key() {
    let milter = Milter::started(COLLECTS, "timeout = \"300ms\"");
    let mut stranger = TcpStream::connect(("127.0.0.1", milter.port)).unwrap();
    stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let peer = stranger.local_addr().unwrap();
    milter.wait_for_log(&format!(
        "of MTA {peer} is closed, for it is not the milter protocol"
    ));
    let silent = TcpStream::connect(("127.0.0.1", milter.port)).unwrap();
    let peer = silent.local_addr().unwrap();
    milter.wait_for_log(&format!("of MTA {peer} is closed: it was silent for"));
    milter.wait_for_log("s (timeout)");
}

#[test]
fn the_log_says_what_follows_from_a_callback_that_fails() {
    let milter = Milter::started(
        "local policy = {}\nfunction policy.helo(ctx, name) if name == \"bad\" then error(\"one\") end end\nfunction policy.eom(ctx) error(\"two\") end\nfunction policy.close(ctx) error(\"three\") end\nreturn policy\n",
        "",
    );
    let mut session = milter.session();
    session.message(&Message::from("a@b.example")).unwrap();
    drop(session);
    milter.wait_for_log("the policy failed, the message gets TEMPFAIL: policy.lua:3: two");
    milter.wait_for_log("the policy failed, nothing depends on it: policy.lua:4: three");
    let mut session = milter.open();
    session.negotiate(FULL).unwrap();
    session.connect().unwrap();
    session.put_raw(b"\0\0\0\x05Hbad\0");
    session.flush().unwrap();
    milter.wait_for_log("the policy failed, the SMTP client gets TEMPFAIL: policy.lua:2: one");
}

/// Postfix and Sendmail may keep a milter's connection for the next SMTP client.
#[test]
fn the_next_client_of_a_connection_has_its_own_time() {
    let milter = Milter::started(
        "local policy = {}\nfunction policy.connect(ctx) milter.sleep(0.01) end\nfunction policy.close(ctx) end\nreturn policy\n",
        "callback_timeout = \"500ms\"",
    );
    let mut session = milter.session();
    // QUIT_NC
    session.put_raw(b"\0\0\0\x01K");
    session.flush().unwrap();
    // The time of the first client's last callback is over when the second comes.
    std::thread::sleep(Duration::from_millis(800));
    let answer = session.connect().unwrap();
    assert_eq!(answer, Some((b'c', Vec::new())), "{}", milter.log());
}
