//! The whole life of a milter behind a real Postfix, as its clients and the next server see it.
#![allow(clippy::unwrap_used)]

mod support;

mod needs_postfix {
    use crate::support::milter::Milter;
    use crate::support::mta::Mta;
    use crate::support::postfix::Postfix;
    use crate::support::sink::Sink;
    use crate::support::smtp::{Smtp, swaks};
    use crate::support::{SOON, with_mta};

    fn milter_and_postfix(sink: Option<u16>) -> (Milter, Postfix) {
        let milter = Milter::started(with_mta::POLICY, "max_pooled_procs = 4");
        let postfix = Postfix::start(&format!("inet:127.0.0.1:{}", milter.port), sink);
        (milter, postfix)
    }

    #[test]
    fn every_verdict_and_edit_reaches_the_client_or_the_next_server() {
        let sink = Sink::start();
        let (milter, postfix) = milter_and_postfix(Some(sink.port));
        with_mta::every_verdict_arrives_and_is_counted(postfix.port, &sink, &milter);
        assert!(
            postfix.queue().contains('!'),
            "the quarantined message is on hold: {}",
            postfix.queue()
        );
        milter.stop();
        milter.status().expect(3);
    }

    #[test]
    fn a_session_carries_several_messages() {
        let sink = Sink::start();
        let (milter, postfix) = milter_and_postfix(Some(sink.port));
        with_mta::a_session_carries_several_messages(postfix.port, &sink, &milter);
    }

    #[test]
    fn fifty_parallel_sessions_are_counted_exactly() {
        let (milter, postfix) = milter_and_postfix(None);
        with_mta::fifty_parallel_sessions_are_counted_exactly(postfix.port, 300, &milter);
    }

    #[test]
    fn mail_that_does_not_come_by_smtp_is_filtered_too() {
        let sink = Sink::start();
        let (milter, postfix) = milter_and_postfix(Some(sink.port));
        postfix
            .submit(
                "plain@b.example",
                "user@example.org",
                "Subject: local\n\nHello\n",
            )
            .expect(0);
        let delivered = &sink.wait_for(1)[0];
        assert!(delivered.has_line("X-Filter: ok"), "{}", delivered.text);
        milter.wait_json("it is counted", |json| json["verdicts"]["accept"] == 1);
    }

    #[test]
    fn a_unix_socket_serves_postfix_when_its_group_may_write() {
        let milter = Milter::on_unix_socket(
            with_mta::POLICY,
            "socket_mode = \"0660\"\nsocket_group = \"postfix\"",
        );
        milter.start();
        let sink = Sink::start();
        let postfix = Postfix::start(&milter.port_setting(), Some(sink.port));
        swaks(postfix.port, "plain@b.example", "user@example.org", &[]).expect(0);
        let delivered = &sink.wait_for(1)[0];
        assert!(delivered.has_line("X-Filter: ok"), "{}", delivered.text);
    }

    #[test]
    fn idle_smtp_sessions_do_not_keep_others_waiting() {
        // Postfix holds a milter connection for each SMTP session, idle ones too.
        let (milter, postfix) = milter_and_postfix(None);
        let idle: Vec<Smtp> = (0..40).map(|_| Smtp::connect(postfix.port)).collect();
        swaks(postfix.port, "plain@b.example", "user@example.org", &[]).expect(0);
        let json = milter.json();
        assert!(json["pool"]["requests"].as_u64().unwrap() >= 40, "{json:#}");
        for mut session in idle {
            let (code, text) = session.message(
                "plain@b.example",
                "user@example.org",
                "Subject: s\r\n\r\nHello",
            );
            assert_eq!(code, 250, "{text}");
            session.expect("QUIT", 221);
        }
        let json = milter.wait_json("all are over", |json| json["pool"]["requests"] == 0);
        assert_eq!(json["verdicts"]["accept"], 41, "{json:#}");
    }

    #[test]
    fn a_stopped_milter_makes_postfix_answer_for_now_and_a_started_one_serves_again() {
        let (milter, postfix) = milter_and_postfix(None);
        milter.stop();
        assert!(Mta::open(&milter.address(), SOON).is_err());
        swaks(postfix.port, "plain@b.example", "user@example.org", &[])
            .expect(23)
            .prints("451 4.7.1");
        milter.start();
        swaks(postfix.port, "plain@b.example", "user@example.org", &[]).expect(0);
    }
}
