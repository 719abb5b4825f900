//! The whole life of a milter behind a real Sendmail, which negotiates, aborts and times out differently from Postfix.
#![allow(clippy::unwrap_used)]

mod support;

mod needs_sendmail {
    use crate::support::milter::Milter;
    use crate::support::sendmail::Sendmail;
    use crate::support::sink::Sink;
    use crate::support::smtp::swaks;
    use crate::support::{SOON, wait_until, with_mta};

    fn milter_and_sendmail(sink: Option<u16>) -> (Milter, Sendmail) {
        let milter = Milter::started(with_mta::POLICY, "max_pooled_procs = 4");
        let sendmail = Sendmail::start(&milter.port_setting(), sink);
        (milter, sendmail)
    }

    #[test]
    fn every_verdict_and_edit_reaches_the_client_or_the_next_server() {
        let sink = Sink::start();
        let (milter, sendmail) = milter_and_sendmail(Some(sink.port));
        with_mta::every_verdict_arrives_and_is_counted(sendmail.port, &sink, &milter);
        wait_until(SOON, "a quarantined message in the queue", || {
            (sendmail.queued("hf").len() == 1).then_some(())
        });
        milter.stop();
        milter.status().expect(3);
    }

    #[test]
    fn a_session_carries_several_messages() {
        let sink = Sink::start();
        let (milter, sendmail) = milter_and_sendmail(Some(sink.port));
        with_mta::a_session_carries_several_messages(sendmail.port, &sink, &milter);
    }

    #[test]
    fn parallel_sessions_are_counted_exactly() {
        let (milter, sendmail) = milter_and_sendmail(None);
        with_mta::fifty_parallel_sessions_are_counted_exactly(sendmail.port, 100, &milter);
    }

    #[test]
    fn a_long_end_of_message_is_kept_alive_by_progress() {
        // Sendmail gives up after 10 s (R:10s) without a packet; progress restarts its clock.
        let policy = r#"
            local policy = {}
            function policy.eom(ctx) milter.sleep(13) ctx:add_header("X-Filter", "late") end
            return policy"#;
        let milter = Milter::started(policy, "");
        let sink = Sink::start();
        let sendmail = Sendmail::start(&milter.port_setting(), Some(sink.port));
        swaks(sendmail.port, "plain@b.example", "user@example.org", &[]).expect(0);
        let delivered = &sink.wait_for(1)[0];
        assert!(delivered.has_line("X-Filter: late"), "{}", delivered.text);
    }

    #[test]
    fn a_unix_socket_serves_sendmail() {
        let milter = Milter::on_unix_socket(with_mta::POLICY, "");
        milter.start();
        let sink = Sink::start();
        let sendmail = Sendmail::start(&milter.port_setting(), Some(sink.port));
        swaks(sendmail.port, "plain@b.example", "user@example.org", &[]).expect(0);
        let delivered = &sink.wait_for(1)[0];
        assert!(delivered.has_line("X-Filter: ok"), "{}", delivered.text);
    }
}
