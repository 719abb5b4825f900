//! What both MTAs must see of a milter: one story, told once, and played to each of them.

use super::milter::{Milter, count};
use super::sink::Sink;
use super::smtp::{Smtp, smtp_source, swaks};

/// The policy of the story.
pub const POLICY: &str = include_str!("by_sender.lua");

/// Connections so far, once none is in progress: the MTA's readiness was found out by a session.
fn connections(milter: &Milter) -> u64 {
    let json = milter.wait_json("no connection is in progress", |json| {
        json["pool"]["requests"] == 0
    });
    count(&json["pool"]["connections"])
}

const RECIPIENT: &str = "user@example.org";

/// Every verdict and edit that an SMTP client or the next server can see, one session each, then the counts.
pub fn every_verdict_arrives_and_is_counted(smtp_port: u16, sink: &Sink, milter: &Milter) {
    let before = connections(milter);
    swaks(smtp_port, "plain@b.example", RECIPIENT, &[]).expect(0);
    let plain = &sink.wait_for(1)[0];
    assert!(plain.has_line("X-Filter: ok"), "{}", plain.text);

    swaks(smtp_port, "body@b.example", RECIPIENT, &[]).expect(0);
    let replaced = &sink.wait_for(2)[1];
    assert_eq!(replaced.body(), "replaced\nby the policy\n");
    assert!(replaced.has_line("X-Filter: ok"), "{}", replaced.text);

    swaks(smtp_port, "subject@b.example", RECIPIENT, &[]).expect(0);
    let changed = &sink.wait_for(3)[2];
    assert!(changed.has_line("Subject: changed"), "{}", changed.text);

    // 24: RCPT was refused; the only recipient, so that the message ends unprocessed.
    swaks(smtp_port, "plain@b.example", "bad@example.org", &[])
        .expect(24)
        .prints("no such user here");
    swaks(smtp_port, "mail-tempfail@b.example", RECIPIENT, &[]).expect(23);
    swaks(smtp_port, "discard@b.example", RECIPIENT, &[]).expect(0);
    swaks(smtp_port, "tempfail@b.example", RECIPIENT, &[])
        .expect(26)
        .prints("451 4.7.1 come back later, 100% sure");
    swaks(smtp_port, "reject@b.example", RECIPIENT, &[])
        .expect(26)
        .prints("550-5.7.1 first line")
        .prints("550 5.7.1 second line");
    // A policy that fails refuses for now, and loses nothing.
    let fault = swaks(smtp_port, "fault@b.example", RECIPIENT, &[]).expect(26);
    assert!(fault.out.contains("<** 451"), "{}", fault.out);
    swaks(smtp_port, "quarantine@b.example", RECIPIENT, &[]).expect(0);
    swaks(smtp_port, "envelope@b.example", RECIPIENT, &[]).expect(0);
    let messages = sink.wait_for(4);
    assert!(
        messages[3].sender.contains("other@b.example"),
        "{:?}",
        messages[3]
    );

    // Sessions end with the client's QUIT, of which the milter learns a moment later.
    let json = milter.wait_json("every session is over", |json| {
        json["pool"]["requests"] == 0 && json["pool"]["connections"] == before + 11
    });
    let verdicts = &json["verdicts"];
    assert_eq!(count(&verdicts["accept"]), 4, "{json:#}");
    assert_eq!(count(&verdicts["tempfail"]), 2, "{json:#}");
    assert_eq!(count(&verdicts["reject"]), 1, "{json:#}");
    assert_eq!(count(&verdicts["discard"]), 1, "{json:#}");
    assert_eq!(count(&verdicts["quarantine"]), 1, "{json:#}");
    assert_eq!(count(&verdicts["error"]), 1, "{json:#}");
    assert_eq!(count(&json["recipients_refused"]), 1, "{json:#}");
    assert_eq!(count(&json["aborted"]), 1, "{json:#}");
    assert_eq!(count(&json["messages_started"]), 11, "{json:#}");
    assert_eq!(count(&json["pool"]["messages"]), 10, "{json:#}");
}

/// Several messages in one session, also with a refused one and a reset in between.
pub fn a_session_carries_several_messages(smtp_port: u16, sink: &Sink, milter: &Milter) {
    let content = "Subject: several\r\n\r\nHello";
    let before = connections(milter);
    let mut session = Smtp::connect(smtp_port);
    for _ in 0..3 {
        let (code, text) = session.message("plain@b.example", RECIPIENT, content);
        assert_eq!(code, 250, "{text}");
    }
    // One recipient is refused, the message goes on with the other.
    session.expect("MAIL FROM:<plain@b.example>", 250);
    let refusal = session.expect("RCPT TO:<bad@example.org>", 550);
    assert!(refusal.contains("no such user here"), "{refusal}");
    session.expect("RCPT TO:<user@example.org>", 250);
    session.expect("DATA", 354);
    session.expect("Subject: one of two\r\n\r\nHello\r\n.", 250);
    // Begun and given up.
    session.expect("MAIL FROM:<plain@b.example>", 250);
    session.expect("RCPT TO:<user@example.org>", 250);
    session.expect("RSET", 250);
    let (code, text) = session.message("reject@b.example", RECIPIENT, content);
    assert_eq!(code, 550, "{text}");
    let (code, text) = session.message("plain@b.example", RECIPIENT, content);
    assert_eq!(code, 250, "{text}");
    session.expect("QUIT", 221);

    let delivered = sink.wait_for(5);
    assert!(delivered.iter().all(|one| one.has_line("X-Filter: ok")));
    let json = milter.wait_json("the session is over", |json| {
        json["pool"]["requests"] == 0 && json["pool"]["connections"] == before + 1
    });
    assert_eq!(count(&json["pool"]["messages"]), 6, "{json:#}");
    assert_eq!(count(&json["messages_started"]), 7, "{json:#}");
    assert_eq!(count(&json["aborted"]), 1, "{json:#}");
    assert_eq!(count(&json["recipients_refused"]), 1, "{json:#}");
    assert_eq!(count(&json["verdicts"]["accept"]), 5, "{json:#}");
}

/// Sessions at once.
const SESSIONS: u32 = 50;
/// Fifty sessions at a time, so many messages, a session each; afterwards the counts say exactly what was sent.
pub fn fifty_parallel_sessions_are_counted_exactly(smtp_port: u16, messages: u32, milter: &Milter) {
    let before = connections(milter);
    smtp_source(smtp_port, SESSIONS, messages, 4000).expect(0);
    let json = milter.wait_json("every session is over", |json| {
        json["pool"]["requests"] == 0 && json["pool"]["connections"] == before + u64::from(messages)
    });
    assert_eq!(json["pool"]["messages"], messages, "{json:#}");
    assert_eq!(json["messages_started"], messages, "{json:#}");
    assert_eq!(json["verdicts"]["accept"], messages, "{json:#}");
    assert_eq!(json["aborted"], 0, "{json:#}");
    assert_eq!(json["lost"]["connections"], 0, "{json:#}");
    milter.status().expect(0).prints(&format!("msg={messages}"));
}
