//! The exporter: what `status` prints, over HTTP, whatever the milters' processes do; probes; and clients that misbehave.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::http::{Exporter, connect, exchange, get_with, reply};
use support::milter::{ADDS_A_HEADER, Milter};
use support::mta::Message;
use support::ports::free_port;
use support::process::signal;
use support::{SOON, is_root, wait_until};

const OPENMETRICS: &str = "Accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// A milter that has seen a message.
fn used() -> Milter {
    let milter = Milter::started(ADDS_A_HEADER, "");
    let mut session = milter.session();
    session.message(&Message::from("a@b.example")).unwrap();
    session.quit().unwrap();
    milter.wait_json("the session is over", |it| it["pool"]["requests"] == 0);
    milter
}

/// Without what changes by itself.
fn settled(page: &str) -> String {
    let moves = |line: &&str| !line.contains("heartbeat") && !line.contains("busy_slots_seconds");
    page.lines()
        .filter(moves)
        .fold(String::new(), |all, line| all + line + "\n")
}

#[test]
fn it_serves_what_status_prints_in_the_form_that_is_asked_for() {
    let milter = used();
    for more in [&[][..], &["--per-slot"]] {
        let exporter = Exporter::of(&milter, more);
        for (format, accept, kind) in [
            (
                "prometheus",
                "Accept: */*",
                "text/plain; version=0.0.4; charset=utf-8",
            ),
            (
                "openmetrics",
                OPENMETRICS,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ),
        ] {
            let served = get_with(exporter.address, "/metrics", &[accept]).expect(200);
            assert_eq!(served.header("content-type"), Some(kind));
            let length = served.body.len().to_string();
            assert_eq!(served.header("content-length"), Some(&*length));
            assert_eq!(served.header("connection"), Some("close"));
            assert!(served.header("date").unwrap().ends_with(" gmt"));
            let mut arguments = vec!["status", "--format", format];
            arguments.extend(more);
            let printed = milter.pmx(&arguments).expect(0).out;
            assert_eq!(settled(&served.body), settled(&printed));
            assert!(
                served
                    .body
                    .contains("pmx_messages_total{milter=\"policy\",verdict=\"accept\"} 1\n")
            );
            assert_eq!(served.body.contains("pmx_slot_"), !more.is_empty());
        }
    }
}

#[test]
fn it_answers_while_every_process_is_suspended_and_after_they_were_killed() {
    let milter = used();
    let exporter = Exporter::of(&milter, &[]);
    let all = |by: Signal| milter_processes(&milter, &exporter).for_each(|pid| signal(pid, by));
    for path in ["/healthz", "/readyz", "/healthz/policy", "/readyz/policy"] {
        assert_eq!(exporter.get(path).expect(200).body, "policy: ok\n");
    }
    all(Signal::SIGSTOP);
    wait_until(SOON, "its state is told", || {
        let page = exporter.get("/metrics").expect(200).body;
        page.contains("pmx_state{milter=\"policy\",state=\"stopped\"} 1")
            .then_some(())
    });
    let health = exporter.get("/healthz").expect(503).body;
    assert!(health.starts_with("policy: stopped ("), "{health}");
    exporter.get("/readyz/policy").expect(503);
    all(Signal::SIGCONT);
    wait_until(SOON, "it is well again", || {
        (exporter.get("/readyz").status == 200).then_some(())
    });
    all(Signal::SIGKILL);
    wait_until(SOON, "it is dead", || {
        let page = exporter.get("/metrics").expect(200).body;
        page.contains("pmx_up{milter=\"policy\"} 0").then_some(())
    });
    let page = exporter.get("/metrics").body;
    assert!(page.contains("pmx_messages_total{milter=\"policy\",verdict=\"accept\"} 1\n"));
    let health = exporter.get("/healthz").expect(503).body;
    assert!(health.starts_with("policy: dead ("), "{health}");
}

/// All that the milter runs; the exporter bears the test's mark too.
fn milter_processes(milter: &Milter, exporter: &Exporter) -> impl Iterator<Item = i32> {
    let own = exporter.pid();
    milter
        .processes()
        .into_iter()
        .filter(move |pid| *pid != own)
}

#[test]
fn a_milter_that_stops_is_not_ready_at_once_and_healthy_until_it_is_gone() {
    let milter = used();
    let exporter = Exporter::of(&milter, &[]);
    let mut session = milter.session();
    session.begin(&Message::from("a@b.example")).unwrap();
    let stop = milter.pmx_in_background(&["stop"]);
    wait_until(SOON, "it is not ready", || {
        (exporter.get("/readyz/policy").status == 503).then_some(())
    });
    assert_eq!(exporter.get("/readyz").body, "policy: retiring\n");
    assert_eq!(exporter.get("/healthz").expect(200).body, "policy: ok\n");
    session.complete(&Message::from("a@b.example")).unwrap();
    session.quit().unwrap();
    assert_eq!(stop.wait(SOON).code, 0);
    assert_eq!(
        exporter.get("/healthz").expect(503).body,
        "policy: not running\n"
    );
}

#[test]
fn what_is_not_there_or_not_allowed_or_no_http_is_told_in_a_sentence() {
    let milter = used();
    let exporter = Exporter::of(&milter, &[]);
    let upload = format!(
        "POST /metrics HTTP/1.1\r\nContent-Length: 500000\r\n\r\n{}",
        "x".repeat(500_000)
    );
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000));
    for (request, status, says) in [
        ("GET / HTTP/1.1\r\n\r\n", 200, "/metrics"),
        ("GET /metrics?x=y HTTP/1.0\r\n\r\n", 200, "pmx_up"),
        ("GET http://mx.example/readyz HTTP/1.1\r\n\r\n", 200, "ok"),
        (
            "GET /nonsense HTTP/1.1\r\n\r\n",
            404,
            "there is nothing here, but:\n/metrics",
        ),
        (
            "GET /readyz/nobody HTTP/1.1\r\n\r\n",
            404,
            "no milter of this name",
        ),
        (
            "POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\na=b",
            405,
            "only GET and HEAD",
        ),
        // It is not read, and the answer arrives all the same.
        (&upload, 405, "only GET and HEAD"),
        ("nonsense\r\n\r\n", 400, "no HTTP request"),
        ("GET / HTTP/3.0\r\n\r\n", 505, "HTTP/1.1"),
        (&long, 431, "16 KiB"),
    ] {
        let reply = exchange(exporter.address, request.as_bytes()).unwrap();
        assert_eq!(reply.status, status, "{request:.40} {reply:?}");
        assert!(reply.body.contains(says), "{request:.40} {reply:?}");
        assert_eq!(
            reply.header("allow"),
            (status == 405).then_some("get, head")
        );
    }
    let head = exchange(exporter.address, b"HEAD /metrics HTTP/1.1\r\n\r\n").unwrap();
    let length: usize = head.header("content-length").unwrap().parse().unwrap();
    assert!(length > 1000 && head.body.is_empty(), "{head:?}");
}

#[test]
fn clients_that_never_ask_lock_nobody_out_and_a_slow_one_is_told() {
    let milter = used();
    let exporter = Exporter::of(&milter, &[]);
    let mut slow = connect(exporter.address).unwrap();
    slow.write_all(b"GET /metrics HT").unwrap();
    // More than it serves at once: they come after the slow one, which must not be pushed out by few.
    let few: Vec<_> = (0..20)
        .map(|_| connect(exporter.address).unwrap())
        .collect();
    let answer = reply(&mut slow).unwrap();
    assert_eq!(answer.status, 408, "{answer:?}");
    drop(few);
    let silent: Vec<_> = (0..500)
        .map(|_| connect(exporter.address).unwrap())
        .collect();
    exporter.get("/metrics").expect(200);
    let pid = exporter.pid();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(open < 100, "{open} descriptors");
    drop(silent);
    // One that goes away in the middle of an answer, and one that does not read it.
    for _ in 0..100 {
        let mut gone = connect(exporter.address).unwrap();
        gone.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    }
    exporter.get("/healthz").expect(200);
}

#[test]
fn clients_that_have_their_answer_and_do_not_close_keep_nobody_from_one() {
    let milter = used();
    let exporter = Exporter::of(&milter, &[]);
    let ask = b"GET / HTTP/1.1\r\n\r\n";
    let all: Vec<_> = (0..64)
        .map(|_| {
            let mut client = connect(exporter.address).unwrap();
            client.write_all(ask).unwrap();
            assert_eq!(reply(&mut client).unwrap().status, 200);
            client
        })
        .collect();
    // Places are those of the answered, not of one that is about to ask.
    let mut more: Vec<_> = (0..8).map(|_| connect(exporter.address).unwrap()).collect();
    exporter.get("/").expect(200);
    for client in &mut more {
        client.write_all(ask).unwrap();
        assert_eq!(reply(client).unwrap().status, 200);
    }
    drop(all);
}

#[test]
fn a_client_that_still_sends_is_not_reset_before_it_has_read_its_answer() {
    let milter = used();
    let exporter = Exporter::of(&milter, &[]);
    let mut client = connect(exporter.address).unwrap();
    client
        .write_all(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n")
        .unwrap();
    assert_eq!(reply(&mut client).unwrap().status, 405);
    let answered = Instant::now();
    for _ in 0..10 {
        let sent = client.write_all(b"0123456789");
        // It is waited for some time only.
        if answered.elapsed() > Duration::from_secs(1) {
            break;
        }
        sent.unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn term_int_and_hup_end_it_with_0_also_while_clients_are_connected() {
    let milter = used();
    for by in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let exporter = Exporter::of(&milter, &[]);
        let _client = connect(exporter.address).unwrap();
        exporter.get("/healthz").expect(200);
        let outcome = exporter.end(by).expect(0);
        assert_eq!(outcome.err, "", "{by}");
    }
}

#[test]
fn an_address_that_is_taken_is_told_with_who_has_it_and_what_to_do() {
    let milter = used();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    milter
        .pmx(&["exporter", "--listen", &address])
        .expect(1)
        .says(&format!(
            "exporter: cannot listen on {address}: Address already in use"
        ))
        .says(&format!("held by pid {}", std::process::id()))
        .says("choose another with --listen");
    milter
        .pmx(&["exporter", "--listen", "192.0.2.1:0"])
        .expect(1)
        .says("exporter: cannot listen on 192.0.2.1:0")
        .says("this machine has no such address");
    milter
        .pmx(&["exporter", "--listen", "mx.example.org:9366"])
        .expect(2)
        .says("give ADDRESS:PORT with a numeric address");
}

#[test]
fn one_that_others_can_reach_says_so() {
    let milter = used();
    let mut exporter = Exporter::on(&milter, "0.0.0.0:0", &[]);
    let said = exporter.said();
    assert!(said.contains("anybody who reaches 0.0.0.0:"), "{said}");
    let mut local = Exporter::of(&milter, &[]);
    assert!(!local.said().contains("anybody"));
    assert!(local.address.ip().is_loopback());
}

#[test]
fn a_milter_that_is_added_is_served_and_a_broken_configuration_is_told_once() {
    let milter = used();
    let mut exporter = Exporter::of(&milter, &[]);
    let table = |name: &str, port: u16| {
        format!("[milter.{name}]\nport = \"inet:{port}@127.0.0.1\"\npolicy = \"policy.lua\"\n")
    };
    let both = table("policy", milter.port) + &table("other", free_port());
    milter.configure_milters(&both);
    let ups = |page: &str| -> Vec<String> {
        let lines = page.lines().filter(|line| line.starts_with("pmx_up{"));
        lines.map(str::to_owned).collect()
    };
    let expected = ["pmx_up{milter=\"policy\"} 1", "pmx_up{milter=\"other\"} 0"];
    assert_eq!(ups(&exporter.get("/metrics").body), expected);
    exporter.get("/healthz/policy").expect(200);
    exporter.get("/healthz").expect(503);
    milter.configure_milters("nonsense = 1\n");
    for _ in 0..3 {
        assert_eq!(ups(&exporter.get("/metrics").body), expected);
    }
    let told = exporter.said().matches("nonsense").count();
    let once = milter.pmx(&["status"]).err.matches("nonsense").count();
    assert_eq!(told, once, "{}", exporter.said());
    milter.configure_milters(&table("policy", milter.port));
    assert_eq!(ups(&exporter.get("/metrics").body), expected[..1]);
}

#[test]
fn a_probe_of_one_milter_looks_at_that_one_only() {
    let milter = used();
    let mut exporter = Exporter::of(&milter, &[]);
    milter.configure_milters(&format!(
        "[milter.policy]\nport = \"inet:{}@127.0.0.1\"\npolicy = \"policy.lua\"\n\
         [milter.other]\nport = \"inet:{}@127.0.0.1\"\npolicy = \"policy.lua\"\n",
        milter.port,
        free_port()
    ));
    fs::write(milter.run_dir().join("other.scoreboard"), "no board").unwrap();
    for path in ["/readyz/policy", "/healthz/policy"] {
        assert_eq!(exporter.get(path).expect(200).body, "policy: ok\n");
    }
    assert!(!exporter.said().contains("other"), "{}", exporter.said());
    for path in [
        "/readyz/other",
        "/healthz/policy",
        "/readyz/other",
        "/metrics",
    ] {
        exporter.get(path);
    }
    let page = exporter.get("/metrics").expect(200).body;
    assert!(page.contains("pmx_up{milter=\"other\"} 0\n"), "{page}");
    let unreadable = "pmx_state{milter=\"other\",state=\"unreadable\"} 1\n";
    assert!(page.contains(unreadable), "{page}");
    // Once, whoever asks in between.
    let told = exporter.said().matches("status other: ").count();
    assert_eq!(told, 1, "{}", exporter.said());
}

#[test]
fn root_is_given_up_once_the_port_is_had() {
    let milter = used();
    let exporter = Exporter::of(&milter, &[]);
    exporter.get("/metrics").expect(200);
    let status = fs::read_to_string(format!("/proc/{}/status", exporter.pid())).unwrap();
    let ids = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .unwrap();
    let ids: Vec<u32> = ids
        .split_ascii_whitespace()
        .map(|id| id.parse().unwrap())
        .collect();
    let own = nix::unistd::geteuid().as_raw();
    assert!(
        ids.iter().all(|id| *id != 0 && (is_root() || *id == own)),
        "{ids:?}"
    );
}
