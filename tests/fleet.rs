//! Several hosts with the same milter behind a real HAProxy: sessions are spread, and a host that stops or dies is no reason for a message
//! that sees no filter.
#![allow(clippy::unwrap_used)]

mod support;

/// Left out by name where it is missing, and said so: never passed unseen.
mod needs_haproxy {
    use std::fs;
    use std::net::SocketAddr;
    use std::path::Path;
    use std::process::Command;

    use crate::support::command::{Running, run, spawn};
    use crate::support::http::Exporter;
    use crate::support::milter::{ADDS_A_HEADER, Milter, count};
    use crate::support::mta::{Address, Message, Mta};
    use crate::support::ports::free_port;
    use crate::support::{SOON, wait_until};

    /// A host: its own run directory, port and exporter.
    struct Host {
        milter: Milter,
        exporter: Exporter,
    }

    impl Host {
        fn new() -> Host {
            let milter = Milter::started(ADDS_A_HEADER, "");
            let exporter = Exporter::of(&milter, &[]);
            Host { milter, exporter }
        }

        /// Connections it has ever had; 0 when it does not run.
        fn connections(&self) -> u64 {
            let json = self.milter.json();
            match &json["pool"]["connections"] {
                serde_json::Value::Null => 0,
                number => count(number),
            }
        }
    }

    /// The example configuration, with the addresses of this test.
    fn config(port: u16, hosts: &[Host; 2]) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/haproxy.cfg");
        let mut text = fs::read_to_string(path).unwrap();
        let mut replace = |from: &str, to: String| {
            assert_eq!(text.matches(from).count(), 1, "{from}");
            text = text.replace(from, &to);
        };
        replace(
            "    bind 127.0.0.1:3366\n",
            format!("    bind 127.0.0.1:{port}\n"),
        );
        for (server, host) in ["mx1 192.0.2.11", "mx2 192.0.2.12"].iter().zip(hosts) {
            let (name, _) = server.split_once(' ').unwrap();
            let (port, exporter) = (host.milter.port, host.exporter.address.port());
            replace(
                &format!("    server {server}:3366\n"),
                format!("    server {name} 127.0.0.1:{port} port {exporter}\n"),
            );
        }
        text
    }

    /// HAProxy before two hosts.
    struct Fleet {
        hosts: [Host; 2],
        address: Address,
        haproxy: Running,
        _dir: tempfile::TempDir,
    }

    impl Fleet {
        fn new() -> Fleet {
            let hosts = [Host::new(), Host::new()];
            let port = free_port();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("haproxy.cfg");
            fs::write(&path, config(port, &hosts)).unwrap();
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(&path);
            let mut fleet = Fleet {
                hosts,
                address: Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port))),
                haproxy: spawn(command),
                _dir: dir,
            };
            wait_until(SOON, "HAProxy listens", || {
                assert!(!fleet.haproxy.has_ended(), "{}", fleet.haproxy.said());
                Mta::ready(&fleet.address, SOON).ok()?.quit().ok()
            });
            fleet
        }

        /// Waits until HAProxy has said this.
        #[track_caller]
        fn wait_for_haproxy(&mut self, text: &str) {
            wait_until(SOON, &format!("HAProxy says {text:?}"), || {
                self.haproxy.said().contains(text).then_some(())
            });
        }

        /// A session through HAProxy.
        #[track_caller]
        fn session(&mut self) -> Mta {
            let session = Mta::ready(&self.address, SOON);
            session.unwrap_or_else(|error| panic!("no session: {error}\n{}", self.haproxy.said()))
        }

        fn connections(&self) -> [u64; 2] {
            self.hosts.each_ref().map(Host::connections)
        }
    }

    /// One more message of a session.
    #[track_caller]
    fn mail(session: &mut Mta) {
        let answer = session.message(&Message::from("a@b.example")).unwrap();
        assert!(answer.is_taken(), "{answer:?}");
        assert!(!answer.edits.is_empty(), "no filter has seen it");
    }

    #[test]
    fn the_example_configuration_is_good() {
        let hosts = [Host::new(), Host::new()];
        let dir = tempfile::tempdir().unwrap();
        let changed = dir.path().join("haproxy.cfg");
        fs::write(&changed, config(free_port(), &hosts)).unwrap();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/haproxy.cfg");
        for path in [&shipped, &changed] {
            let mut command = Command::new("haproxy");
            command.arg("-c").arg("-f").arg(path);
            let outcome = run(command, SOON).expect(0);
            assert!(!outcome.err.contains("WARNING"), "{}", outcome.err);
        }
    }

    #[test]
    fn sessions_are_spread_and_a_host_that_stops_loses_none() {
        let mut fleet = Fleet::new();
        let mut sessions: Vec<Mta> = (0..20).map(|_| fleet.session()).collect();
        sessions.iter_mut().for_each(mail);
        let spread = fleet.connections();
        assert!(spread.iter().all(|number| *number >= 5), "{spread:?}");
        // Checks are no connections of the milters. The first was the one that saw HAProxy listen.
        assert_eq!(spread.iter().sum::<u64>(), 1 + 20);
        // One stops: what it has goes on to its end, and whatever is new is served.
        let stop = fleet.hosts[0].milter.pmx_in_background(&["stop"]);
        fleet.hosts[0]
            .milter
            .wait_json("it is being stopped", |it| it["state"] == "retiring");
        sessions.iter_mut().for_each(mail);
        let mut more: Vec<Mta> = (0..20).map(|_| fleet.session()).collect();
        more.iter_mut().for_each(mail);
        // The board has told HAProxy.
        fleet.wait_for_haproxy("mx1 is DOWN");
        let said = fleet.haproxy.said();
        assert!(said.contains("code: 503"), "{said}");
        sessions.iter_mut().for_each(mail);
        sessions
            .drain(..)
            .chain(more)
            .for_each(|session| session.quit().unwrap());
        assert_eq!(stop.wait(2 * SOON).code, 0);
        for _ in 0..5 {
            let mut session = fleet.session();
            mail(&mut session);
            session.quit().unwrap();
        }
        let served = fleet.connections();
        assert_eq!(served[0], 0, "it is stopped");
        assert_eq!(served[1], spread[1] + 25);
        // It comes back, and gets its share.
        fleet.hosts[0].milter.start();
        fleet.wait_for_haproxy("mx1 is UP");
        wait_until(SOON, "the host that is back is used", || {
            let mut session = fleet.session();
            mail(&mut session);
            session.quit().unwrap();
            (fleet.hosts[0].connections() > 0).then_some(())
        });
    }

    #[test]
    fn a_host_that_dies_loses_only_what_it_was_serving() {
        let mut fleet = Fleet::new();
        let mut held: Vec<Mta> = (0..10).map(|_| fleet.session()).collect();
        held.iter_mut().for_each(mail);
        fleet.hosts[1].milter.pmx(&["stop", "-KILL"]).expect(0);
        // Also before HAProxy has noticed.
        for _ in 0..20 {
            let mut session = fleet.session();
            mail(&mut session);
            session.quit().unwrap();
        }
        let alive = held
            .iter_mut()
            .filter_map(|session| session.message(&Message::from("a@b.example")).ok())
            .count();
        assert!((3..=7).contains(&alive), "{alive} of 10");
    }
}
