//! The port of a milter that is restarted with another one: it is had before the old one goes, or the restart says that it is not.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;

use support::SOON;
use support::crowd::Crowd;
use support::milter::Milter;
use support::mta::{Address, Mta};
use support::restarting::{either, filtered_by, message, policy, slow, wait_for_checker};

/// The milter on another host, with the same number.
fn on_host(milter: &Milter, host: &str, settings: &str) {
    milter.configure_milters(&format!(
        "[milter.policy]\nport = \"inet:{}@{host}\"\npolicy = \"policy.lua\"\n{settings}\n",
        milter.port
    ));
}

#[test]
fn a_port_that_another_program_has_is_refused_and_the_good_one_is_never_closed() {
    let milter = Milter::started(&policy("one"), "");
    let crowd = Crowd::of(4, &milter.address(), either);
    let _other = std::net::TcpListener::bind(("127.0.0.2", milter.port)).unwrap();
    // The same number; with 0.0.0.0 the milter's own port is in the way as well, and could be closed.
    for host in ["127.0.0.2", "0.0.0.0"] {
        on_host(&milter, host, "max_pooled_procs = 3");
        milter
            .pmx(&["restart"])
            .expect(1)
            .says("in use")
            .says("the running milter is untouched");
        assert_eq!(milter.json()["generation"], 1);
    }
    filtered_by(&milter, "one");
    crowd.disperse();
}

#[test]
fn a_port_that_is_lost_at_the_last_moment_fails_the_restart_and_the_old_one_serves() {
    let milter = Milter::started(&policy("one"), "");
    milter.write_policy(&slow("two"));
    on_host(&milter, "127.0.0.2", "max_pooled_procs = 3");
    let restart = milter.pmx_in_background(&["restart"]);
    wait_for_checker(&milter);
    let other = std::net::TcpListener::bind(("127.0.0.2", milter.port)).unwrap();
    let outcome = restart
        .wait(SOON)
        .expect(1)
        .says("it still listens on inet:")
        .says("all else of the new configuration serves")
        .prints("max_pooled_procs: ");
    assert!(!outcome.out.contains("port:"), "{}", outcome.out);
    assert!(!outcome.out.contains("smtpd_milters"), "{}", outcome.out);
    filtered_by(&milter, "two");
    let port = format!("port=inet:{}@127.0.0.1", milter.port);
    milter.status().expect(0).prints(&port);
    // Asked again when it is free.
    drop(other);
    milter
        .pmx(&["restart"])
        .expect(0)
        .prints("port: ")
        .prints("smtpd_milters = inet:127.0.0.2:");
    assert!(Mta::open(&milter.address(), SOON).is_err());
}

#[test]
fn a_port_that_overlaps_is_changed_and_one_that_is_written_otherwise_stays() {
    let milter = Milter::started(&policy("one"), "");
    on_host(&milter, "0.0.0.0", "");
    let wide = milter.pmx(&["restart"]).expect(0).prints("port: ");
    assert!(
        wide.err.contains("was closed for an instant"),
        "{}",
        wide.err
    );
    filtered_by(&milter, "one");
    milter.configure("");
    milter
        .pmx(&["restart"])
        .expect(0)
        .says("was closed for an instant");
    filtered_by(&milter, "one");
    on_host(&milter, "localhost", "");
    let same = milter.pmx(&["restart"]).expect(0).prints("@localhost");
    assert!(!same.err.contains("closed"), "{}", same.err);
    filtered_by(&milter, "one");
}

#[test]
fn another_port_is_opened_before_the_old_one_is_closed() {
    let milter = Milter::started(&policy("one"), "");
    let mut open = milter.session();
    let socket = milter.path("socket");
    milter.configure_milters(&format!(
        "[milter.policy]\nport = \"unix:{}\"\npolicy = \"policy.lua\"\n",
        socket.display()
    ));
    let master = milter.master();
    let before = milter.address();
    let mut silent = Mta::open(&before, SOON).unwrap();
    milter
        .pmx(&["restart"])
        .expect(0)
        .prints("port: ")
        .prints("smtpd_milters = unix:");
    assert_eq!(milter.master(), master);
    for mta in [&mut open, &mut silent] {
        if mta.actions == 0 {
            mta.negotiate(support::mta::FULL).unwrap();
            mta.hello().unwrap();
        }
        assert!(mta.message(&message()).unwrap().is_taken());
    }
    assert!(Mta::open(&before, SOON).is_err(), "the old port is closed");
    let mut moved = Mta::ready(&Address::Unix(socket.clone()), SOON).unwrap();
    assert!(moved.message(&message()).unwrap().is_taken());
    milter
        .status()
        .expect(0)
        .prints(&format!("port=unix:{}", socket.display()));
    // And back, with another mode in between.
    milter.configure("");
    milter.pmx(&["restart"]).expect(0);
    assert!(!socket.exists());
    filtered_by(&milter, "one");
}

#[test]
fn the_mode_of_a_socket_that_stays_is_set_anew() {
    let milter = Milter::on_unix_socket(&policy("one"), "socket_mode = \"0600\"");
    milter.start();
    let inode = |milter: &Milter| fs::metadata(milter.path("socket")).unwrap().ino();
    let before = inode(&milter);
    milter.configure("socket_mode = \"0640\"\nstatus_mode = \"0644\"");
    milter
        .pmx(&["restart"])
        .expect(0)
        .prints("socket_mode: \"0600\" -> \"0640\"");
    assert_eq!(inode(&milter), before);
    for (name, mode) in [("socket", 0o640), ("run/policy.scoreboard", 0o644)] {
        let meta = fs::metadata(milter.path(name)).unwrap();
        assert_eq!(meta.mode() & 0o7777, mode, "{name}");
    }
    filtered_by(&milter, "one");
}
