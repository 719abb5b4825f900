//! Dialogues by miltertest, a milter client that shares no code with us.
#![allow(clippy::unwrap_used)]

mod support;

mod needs_miltertest {
    use std::process::Command;

    use crate::support::command::run;
    use crate::support::milter::{Milter, count};
    use crate::support::{SOON, with_mta};

    /// Runs a script that has `conn` and functions that say what went wrong.
    fn plays(milter: &Milter, script: &str) {
        assert!(
            std::path::Path::new("/usr/bin/miltertest").exists(),
            "this test needs miltertest: run tests/run, or leave it out with -- --skip needs_miltertest::"
        );
        let prelude = r#"
            local function check(holds, what)
              if not holds then mt.echo("FAILED: " .. what) error(what) end
            end
            local conn = mt.connect("inet:" .. port .. "@127.0.0.1")
            check(conn ~= nil, "connect")
            -- No connect, HELO and DATA: miltertest makes it an error to send what the filter declined.
            local function envelope(sender, recipient)
              check(mt.macro(conn, SMFIC_MAIL, "i", "QID1") == nil, "macro")
              check(mt.mailfrom(conn, sender) == nil, "mailfrom")
              check(mt.rcptto(conn, recipient) == nil, "rcptto")
            end
            local function content()
              check(mt.header(conn, "From", "a@b.example") == nil, "header")
              check(mt.header(conn, "Subject", "test") == nil, "header")
              check(mt.eoh(conn) == nil, "eoh")
              check(mt.bodystring(conn, "Hello\r\n") == nil, "body")
              check(mt.eom(conn) == nil, "eom")
            end
        "#;
        milter.write(
            "script.lua",
            &format!("{prelude}\n{script}\nmt.disconnect(conn)\n"),
        );
        let mut command = Command::new("miltertest");
        command
            .args(["-D", &format!("port={}", milter.port), "-s"])
            .arg(milter.path("script.lua"));
        run(command, 2 * SOON).expect(0);
    }

    #[test]
    fn a_header_is_added_and_the_message_goes_on() {
        let milter = Milter::started(with_mta::POLICY, "");
        plays(
            &milter,
            r#"
            envelope("<plain@b.example>", "<user@example.org>")
            content()
            check(mt.getreply(conn) == SMFIR_CONTINUE, "continue")
            check(mt.eom_check(conn, MT_HDRADD, "X-Filter", "ok"), "header")
            "#,
        );
        assert_eq!(count(&milter.json()["verdicts"]["accept"]), 1);
    }

    #[test]
    fn a_body_is_replaced_and_a_header_changed() {
        let milter = Milter::started(with_mta::POLICY, "");
        plays(
            &milter,
            r#"
            envelope("<body@b.example>", "<user@example.org>")
            content()
            check(mt.eom_check(conn, MT_BODYCHANGE, "replaced\r\nby the policy\r\n"), "body")
            mt.abort(conn)
            envelope("<subject@b.example>", "<user@example.org>")
            content()
            check(mt.eom_check(conn, MT_HDRCHANGE, "Subject", "changed"), "subject")
            "#,
        );
        assert_eq!(count(&milter.json()["pool"]["messages"]), 2);
    }

    #[test]
    fn sender_and_recipients_are_changed() {
        let milter = Milter::started(with_mta::POLICY, "");
        plays(
            &milter,
            r#"
            envelope("<envelope@b.example>", "<user@example.org>")
            content()
            check(mt.eom_check(conn, MT_RCPTADD, "<more@example.org>"), "recipient")
            "#,
        );
    }

    #[test]
    fn verdicts_arrive_with_their_text() {
        let milter = Milter::started(with_mta::POLICY, "");
        plays(
            &milter,
            r#"
            envelope("<discard@b.example>", "<user@example.org>")
            content()
            check(mt.getreply(conn) == SMFIR_DISCARD, "discard")
            mt.abort(conn)
            envelope("<quarantine@b.example>", "<user@example.org>")
            content()
            check(mt.eom_check(conn, MT_QUARANTINE, "held by the policy"), "quarantine")
            mt.abort(conn)
            envelope("<plain@b.example>", "<bad@example.org>")
            check(mt.getreply(conn) == SMFIR_REPLYCODE, "recipient refused")
            "#,
        );
        let json = milter.json();
        assert_eq!(count(&json["verdicts"]["discard"]), 1, "{json:#}");
        assert_eq!(count(&json["verdicts"]["quarantine"]), 1, "{json:#}");
        assert_eq!(count(&json["recipients_refused"]), 1, "{json:#}");
    }
}
