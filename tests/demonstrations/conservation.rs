//! Demonstration 4: children are killed, crashed and stopped at random, under load, and nothing is ever miscounted.
//!
//! Clients keep a ledger of their own (`support::ledger`). Meanwhile three readers look again and again: `pread`, a map, and
//! `status --format json`. At each look the board's books balance and the clients' ledger leaves room for what it says. In the end the
//! ledger and the board agree as closely as a client can know; and once the killing is over, to the unit.
//!
//! PMX_STORM_SECONDS makes it longer than a minute, PMX_STORM_SEED repeats the choices of one that failed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use scoreboard::{Death, MapReader, MasterBooks, Reader, Snapshot, decode_end, shown};

use crate::load::{CLIENTS, clients};
use crate::support::ledger::{Ledger, POLICY, Random};
use crate::support::looks::{EndOf, Seen, watch};
use crate::support::milter::Milter;
use crate::support::process::{self, runs};
use crate::support::totals::Totals;
use crate::support::{SOON, wait_until};

/// A number from the environment.
fn wish(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// Ways to die. Stopping is another: a stopped child goes on later, or is killed.
const ENDS: [Signal; 4] = [
    Signal::SIGKILL,
    Signal::SIGKILL,
    Signal::SIGSEGV,
    Signal::SIGABRT,
];

/// A child that was killed: its pid, by what, and instants between which it died.
#[derive(Clone, Copy)]
struct Kill {
    pid: i32,
    signal: Signal,
    between: (Instant, Instant),
}

/// Kills a random child now and then, whatever it is doing, until it is over. Some are stopped before, for longer than a connection may lie
/// unread, and of these some go on.
fn kill_children(master: i32, over: &AtomicBool, seconds: u64, random: &mut Random) -> Vec<Kill> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut kills = Vec::new();
    while Instant::now() < end && !over.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(50 + random.below(151)));
        let children = process::children(master);
        if children.is_empty() {
            continue; // All are dead, and the master waits before it forks again.
        }
        let pid = children[random.below(children.len() as u64) as usize];
        if random.below(8) == 0 {
            process::signal(pid, Signal::SIGSTOP);
            sleep(Duration::from_millis(random.below(1500)));
            process::signal(pid, Signal::SIGCONT);
            if random.below(2) == 0 {
                continue;
            }
        }
        let signal = ENDS[random.below(ENDS.len() as u64) as usize];
        let before = Instant::now();
        wait_until(SOON, "it is dead", || {
            // The first SIGSEGV finds Rust's handler, which lets the next one kill unless the fault was a real one.
            process::signal(pid, signal);
            (!runs(pid)).then_some(())
        });
        kills.push(Kill {
            pid,
            signal,
            between: (before, Instant::now()),
        });
    }
    kills
}

/// Nothing is in progress, and every death is on the board.
fn at_rest(milter: &Milter, deaths: usize) -> Snapshot {
    let board = milter.run_dir().join("policy.scoreboard");
    wait_until(
        SOON,
        "every session is over and every death is told",
        || {
            let snapshot = scoreboard::read(&board).unwrap();
            let told = snapshot.global.deaths_signal == deaths as u64;
            let resting = snapshot.requests() == 0
                && snapshot.in_progress() == 0
                && snapshot.global.waiting == 0;
            (told && resting).then_some(snapshot)
        },
    )
}

/// The board of a milter whose children were killed against what its clients know.
fn agrees_as_closely_as_clients_can_know(board: &Snapshot, ledger: &Ledger, kills: &[Kill]) {
    let (totals, clients) = (Totals::of(board), ledger.now());
    totals.agree(&Totals::default(), &clients, &clients);
    let deaths: Vec<(Instant, Instant)> = kills.iter().map(|kill| kill.between).collect();
    let doubtful = ledger.doubtful_quits(&deaths);
    println!(
        "{totals:?}\n{clients:?}\nquits of which it is not known whether they were read: {doubtful}"
    );
    assert_eq!(totals.connections, clients.opened);
    let cut = clients.cut + clients.quit_unread;
    let lost = totals.lost_connections;
    assert!(
        (cut..=cut + doubtful).contains(&lost),
        "cut {cut}, doubtful {doubtful}, lost {lost}"
    );
    let most = clients.finished + clients.cut_at_the_end;
    assert!((clients.finished..=most).contains(&totals.processed));
    // Each message that was begun and not answered was processed, aborted or lost; lost are no others.
    let unproven = clients.aborts - clients.aborts_read;
    let fate_unknown = clients.cut_in_envelope + unproven + clients.cut_at_the_end;
    assert!(
        totals.lost_messages <= fate_unknown,
        "lost {}",
        totals.lost_messages
    );
    assert_eq!(
        board.books().master(),
        MasterBooks::Balanced,
        "{:?}",
        board.books()
    );
    assert!(
        clients.cut > 0 && totals.lost_messages > 0,
        "the storm hit nobody"
    );
}

/// Every death is told once, and names a message only if its client was left without an answer.
fn deaths_name_the_right_messages(
    readers: &[&Seen],
    board: &Snapshot,
    ledger: &Ledger,
    kills: &[Kill],
) {
    let mut deaths: BTreeMap<u64, Death> = board.deaths.iter().map(|it| (it.number, *it)).collect();
    for seen in readers {
        deaths.extend(&seen.deaths);
    }
    let numbers: Vec<u64> = deaths.keys().copied().collect();
    assert_eq!(
        numbers,
        (1..=kills.len() as u64).collect::<Vec<u64>>(),
        "a death was never seen"
    );
    let sorted = |mut pids: Vec<u64>| {
        pids.sort_unstable();
        pids
    };
    let killed = kills.iter().map(|kill| u64::from(kill.pid.unsigned_abs()));
    let told = deaths.values().map(|death| death.pid);
    assert_eq!(sorted(told.collect()), sorted(killed.collect()));
    let lost: u64 = deaths.values().map(|death| death.lost_connections).sum();
    assert_eq!(lost, board.lost_connections());
    let unanswered = ledger.unanswered.lock().unwrap();
    let mut named = 0;
    for death in deaths.values() {
        let kill = kills
            .iter()
            .find(|kill| u64::from(kill.pid.unsigned_abs()) == death.pid);
        let signal = kill.map(|kill| u8::try_from(kill.signal as i32).unwrap());
        assert_eq!(decode_end(death.end), (None, signal), "{death:?}");
        let id = shown(&death.queue_id);
        if !id.is_empty() {
            named += 1;
            assert!(
                unanswered.contains(&id),
                "{id} was answered, and is said to have died with {death:?}"
            );
        }
    }
    println!("{named} of {} deaths name a message", deaths.len());
    assert!(named > 0, "no death names a message");
}

#[test]
fn a_storm_of_kills_under_load_never_makes_the_board_differ_from_what_the_clients_know() {
    let seconds = wish("PMX_STORM_SECONDS", 60);
    let now = std::time::SystemTime::now();
    let clock = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let seed = wish("PMX_STORM_SEED", clock);
    println!("PMX_STORM_SEED={seed} PMX_STORM_SECONDS={seconds}");
    let milter = Milter::started(POLICY, "max_pooled_procs = 4\nmin_pooled_procs = 3\n");
    let board = milter.run_dir().join("policy.scoreboard");
    let (master, ledger, over) = (milter.master(), Ledger::default(), AtomicBool::new(false));
    let kills = Mutex::new(Vec::new());
    let seen = std::thread::scope(|scope| {
        let (milter, ledger, over, kills) = (&milter, &ledger, &over, &kills);
        scope.spawn(move || {
            let _end = EndOf(over);
            let mut random = Random(seed | 1);
            *kills.lock().unwrap() = kill_children(master, over, seconds, &mut random);
        });
        scope.spawn(move || {
            let _end = EndOf(over);
            clients(milter, ledger, seed, |_| over.load(Ordering::SeqCst));
        });
        let (pread, map) = (
            Reader::open(&board).unwrap(),
            MapReader::open(&board).unwrap(),
        );
        let by_pread = scope.spawn(move || {
            let _end = EndOf(over);
            watch(
                Seen::default(),
                over,
                ledger,
                Duration::from_millis(7),
                |seen, before| {
                    let snapshot = pread.snapshot().unwrap();
                    seen.snapshot(&snapshot, before, &ledger.now());
                },
            )
        });
        let by_map = scope.spawn(move || {
            let _end = EndOf(over);
            watch(
                Seen::default(),
                over,
                ledger,
                Duration::from_millis(3),
                |seen, before| {
                    seen.snapshot(&map.snapshot(), before, &ledger.now());
                },
            )
        });
        let _end = EndOf(over);
        let by_json = watch(
            Seen::default(),
            over,
            ledger,
            Duration::from_millis(100),
            |seen, before| {
                let json = milter.json();
                seen.json(&json, before, &ledger.now());
            },
        );
        [by_pread.join().unwrap(), by_map.join().unwrap(), by_json]
    });
    let kills = kills.into_inner().unwrap();
    let snapshot = at_rest(&milter, kills.len());
    println!("{} children killed", kills.len());
    for (name, seen) in ["pread", "map", "json"].iter().zip(&seen) {
        println!(
            "{name}: {} looks, {} with exact books of the master",
            seen.looks, seen.exact
        );
        assert!(seen.exact > 0);
    }
    agrees_as_closely_as_clients_can_know(&snapshot, &ledger, &kills);
    deaths_name_the_right_messages(&[&seen[0], &seen[1]], &snapshot, &ledger, &kills);

    // The calm after it: nobody is killed, nothing is in doubt.
    let calm = Ledger::default();
    clients(&milter, &calm, seed + 1, |sessions| sessions == 20);
    let after = at_rest(&milter, kills.len());
    let (then, now, clients) = (Totals::of(&snapshot), Totals::of(&after), calm.now());
    for (what, grown, known) in [
        (
            "connections",
            now.connections - then.connections,
            clients.opened,
        ),
        ("connections", clients.opened, CLIENTS * 20),
        ("messages", now.started - then.started, clients.mails),
        (
            "processed",
            now.processed - then.processed,
            clients.finished,
        ),
        ("aborted", now.aborted - then.aborted, clients.aborts),
        (
            "accepted",
            now.verdicts[0] - then.verdicts[0],
            clients.accepted,
        ),
        (
            "rejected",
            now.verdicts[1] - then.verdicts[1],
            clients.rejected,
        ),
        (
            "tempfailed",
            now.verdicts[2] - then.verdicts[2],
            clients.tempfailed,
        ),
        (
            "lost connections",
            now.lost_connections,
            then.lost_connections,
        ),
        ("lost messages", now.lost_messages, then.lost_messages),
        ("deaths", after.global.deaths_signal, kills.len() as u64),
    ] {
        assert_eq!(grown, known, "{what}: {now:?} after {then:?}; {clients:?}");
    }
    assert_eq!(Totals::in_json(&milter.json()), now);
    milter.stop();
}
