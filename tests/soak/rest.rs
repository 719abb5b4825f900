//! The rest after a storm: nothing is in progress, every death is told. Now the clients' ledger and the board must agree, first as closely as
//! clients can know, then, after some sessions that nobody disturbs, to the unit.

use std::collections::BTreeMap;

use scoreboard::{Death, MasterBooks, Snapshot, decode_end, shown};

use crate::census::{Peak, Sample};
use crate::changes::Changes;
use crate::faults::Kill;
use crate::side::{CHILDREN, Kind, Last, Side, Storm, settings};
use crate::support::ledger::{Counts, POLICY, Span};
use crate::support::totals::Totals;
use crate::support::{SOON, process, wait_until};

/// A round as the table tells it, and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) sessions: u64,
    pub(crate) messages: u64,
    pub(crate) changes: Changes,
    pub(crate) kills: Vec<Kill>,
    pub(crate) stops: u64,
    pub(crate) deaths: u64,
    pub(crate) lost_connections: u64,
    pub(crate) lost_messages: u64,
    /// Connections cut that a kill explains, and others.
    pub(crate) explained: u64,
    pub(crate) unexplained: u64,
    /// Of the readers, all three together.
    pub(crate) looks: u64,
    pub(crate) torn: u64,
    pub(crate) exact: u64,
    pub(crate) master: Sample,
    pub(crate) spared: Option<Sample>,
    pub(crate) child_rss_kib: u64,
    pub(crate) peak: Peak,
    complaints: Vec<String>,
}

impl Found {
    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.complaints.push(what());
        }
    }

    /// Fails with everything that is wrong.
    #[track_caller]
    pub(crate) fn judge(&self) {
        let all = self.complaints.join("\n");
        assert!(all.is_empty(), "{all}");
    }
}

/// What the storm left, once it has settled.
pub(crate) fn after(side: &mut Side, storm: Storm) -> Found {
    if side.kind == Kind::Changed {
        side.milter.write_policy(POLICY);
        side.milter.configure(&settings());
        side.milter.pmx(&["restart"]).expect(0);
    }
    let kills = &storm.faults.kills;
    let board = at_rest(side, kills);
    let (clients, totals) = (side.ledger.now(), Totals::of(&board));
    let spans: Vec<Span> = kills.iter().map(|kill| kill.between).collect();
    let cuts = side.ledger.unexplained_cuts(&spans);
    let unexplained = cuts.len() as u64;
    let doubtful = side.last.doubtful + side.ledger.doubtful_quits(&spans);
    let cut = |of: &Counts| of.cut + of.quit_unread;
    let sum = |part: fn(&crate::support::looks::Seen) -> u64| storm.seen.iter().map(part).sum();
    let last = side.last;
    let mut found = Found {
        sessions: clients.opened - last.clients.opened,
        messages: clients.finished - last.clients.finished,
        changes: storm.changes,
        kills: kills.clone(),
        stops: storm.faults.stops,
        deaths: board.global.deaths_signal - last.deaths,
        lost_connections: totals.lost_connections - last.totals.lost_connections,
        lost_messages: totals.lost_messages - last.totals.lost_messages,
        explained: cut(&clients) - cut(&last.clients) - unexplained,
        unexplained,
        looks: sum(|seen| seen.looks),
        torn: sum(|seen| seen.torn),
        exact: sum(|seen| seen.exact),
        master: Sample::default(),
        spared: None,
        child_rss_kib: 0,
        peak: storm.peak,
        complaints: Vec::new(),
    };
    let mut deaths = BTreeMap::new();
    for seen in &storm.seen {
        deaths.extend(&seen.deaths);
    }
    deaths.extend(board.deaths.iter().map(|death| (death.number, *death)));
    deaths.retain(|number, _| *number > last.deaths);
    for cut in cuts {
        let (from, to) = cut.span;
        let near = kills.iter().min_by_key(|kill| {
            let (before, after) = kill.between;
            before.saturating_duration_since(to) + from.saturating_duration_since(after)
        });
        found.check(false, || {
            format!(
                "{}, {:?} after the last answer, and no child was killed then; the next before or after: {near:?}; the cut: {:?}",
                cut.what,
                to - from,
                cut.span
            )
        });
    }
    agrees(&mut found, &board, &clients, doubtful);
    every_death_is_a_kill(&mut found, side, &board, &deaths);
    side.last = Last {
        clients,
        totals,
        deaths: board.global.deaths_signal,
        doubtful,
    };
    side.ledger.forget();
    calm(&mut found, side);
    resources(&mut found, side);
    found
}

/// Nothing is in progress, every killed child is buried, and the pool has its size.
fn at_rest(side: &Side, kills: &[Kill]) -> Snapshot {
    wait_until(2 * SOON, "rest", || {
        let board = side.board();
        let resting = board.requests() == 0 && board.in_progress() == 0;
        let nobody_waits = board.global.waiting == 0 && board.global.children_old == 0;
        let pids: Vec<u64> = board.slots.iter().map(|slot| slot.master.pid).collect();
        let buried = kills
            .iter()
            .all(|kill| !pids.contains(&kill.pid.unsigned_abs().into()));
        let there = board.global.slots_in_use == CHILDREN && board.retiring() == 0;
        (resting && nobody_waits && buried && there).then_some(board)
    })
}

/// The board against what its clients know, from the first round on.
fn agrees(found: &mut Found, board: &Snapshot, clients: &Counts, doubtful: u64) {
    let (totals, global) = (Totals::of(board), &board.global);
    let cut = clients.cut + clients.quit_unread;
    let lost = totals.lost_connections;
    found.check(totals.connections == clients.opened, || {
        format!("connections: {totals:?} {clients:?}")
    });
    found.check((cut..=cut + doubtful).contains(&lost), || {
        format!("{lost} connections are lost; {cut} clients were cut, and {doubtful} cannot know")
    });
    let most = clients.finished + clients.cut_at_the_end;
    let processed = totals.processed;
    found.check((clients.finished..=most).contains(&processed), || {
        format!("messages: {totals:?} {clients:?}")
    });
    // Each message that was begun and not answered was processed, aborted or lost; lost are no others.
    let unproven = clients.aborts - clients.aborts_read;
    let unknown = clients.cut_in_envelope + unproven + clients.cut_at_the_end;
    found.check(totals.lost_messages <= unknown, || {
        format!("lost messages: {totals:?} {clients:?}")
    });
    let books = board.books();
    found.check(
        books.is_balanced() && books.master() == MasterBooks::Balanced,
        || format!("{books:?}"),
    );
    let ended = global.deaths_clean + global.deaths_error + global.deaths_signal;
    found.check(global.forks == ended + global.slots_in_use, || {
        format!("children: {global:?}")
    });
    found.check(global.deaths_error == 0, || {
        format!("{} children ended with an error", global.deaths_error)
    });
    found.check(global.late_wakeups == 0, || {
        format!("{} wake-ups came late", global.late_wakeups)
    });
}

/// Each death of the round is told once, is a kill of ours, and names a message only if its client was left without an answer. A child
/// that retires may be gone before it is killed; where nobody retires, each kill is a death.
fn every_death_is_a_kill(
    found: &mut Found,
    side: &Side,
    board: &Snapshot,
    deaths: &BTreeMap<u64, Death>,
) {
    let numbers: Vec<u64> = deaths.keys().copied().collect();
    let expected: Vec<u64> = (side.last.deaths + 1..=board.global.deaths_signal).collect();
    found.check(numbers == expected, || {
        format!("deaths {expected:?}; told were {numbers:?}")
    });
    let lost: u64 = deaths.values().map(|death| death.lost_connections).sum();
    let all = found.lost_connections;
    found.check(lost == all, || {
        format!("{all} connections are lost; {lost} of them by deaths")
    });
    let mut kills = found.kills.clone();
    let unanswered = side.ledger.unanswered.lock().unwrap();
    for death in deaths.values() {
        let is_it = |kill: &Kill| u64::from(kill.pid.unsigned_abs()) == death.pid;
        let kill = kills.iter().position(is_it).map(|at| kills.swap_remove(at));
        let signal = kill.and_then(|kill| u8::try_from(kill.signal as i32).ok());
        found.check(
            signal.is_some() && decode_end(death.end) == (None, signal),
            || format!("{kill:?} became {death:?}"),
        );
        let id = shown(&death.queue_id);
        found.check(id.is_empty() || unanswered.contains(&id), || {
            format!("{id} was answered, and is said to have died with {death:?}")
        });
    }
    found.check(side.kind == Kind::Changed || kills.is_empty(), || {
        format!("killed, but no deaths: {kills:?}")
    });
}

/// Sessions that nobody disturbs: nothing is in doubt.
fn calm(found: &mut Found, side: &mut Side) {
    let (then, before) = (side.last.totals, side.last.clients);
    side.calm(5);
    let board = at_rest(side, &[]);
    let (now, clients) = (Totals::of(&board), side.ledger.now());
    for (what, grown, known) in [
        (
            "connections",
            now.connections - then.connections,
            clients.opened - before.opened,
        ),
        (
            "messages",
            now.started - then.started,
            clients.mails - before.mails,
        ),
        (
            "processed",
            now.processed - then.processed,
            clients.finished - before.finished,
        ),
        (
            "aborted",
            now.aborted - then.aborted,
            clients.aborts - before.aborts,
        ),
        (
            "cut",
            0,
            clients.cut + clients.quit_unread - before.cut - before.quit_unread,
        ),
        ("lost", now.lost_connections, then.lost_connections),
        ("lost messages", now.lost_messages, then.lost_messages),
        ("deaths", board.global.deaths_signal, side.last.deaths),
    ] {
        found.check(grown == known, || {
            format!("in the calm: {what}: {now:?} after {then:?}; {clients:?} after {before:?}")
        });
    }
    side.last.totals = now;
    side.last.clients = clients;
    side.ledger.forget();
}

/// What the processes use now; the one that was spared is still there and unharmed.
fn resources(found: &mut Found, side: &Side) {
    let board = side.board();
    let of = |pid| Sample::of(pid).unwrap_or_else(|| panic!("process {pid} is gone"));
    found.master = of(side.master);
    for child in process::children(side.master) {
        found.child_rss_kib = found.child_rss_kib.max(of(child).rss_kib);
    }
    if let (Some(slot), Some(pid)) = (side.kind.spared(), side.spared) {
        let slot = &board.slots[slot];
        let same = slot.master.pid == u64::from(pid.unsigned_abs());
        found.check(same && slot.lost_connections() == 0, || {
            format!(
                "the child that nobody harmed was process {pid}: {:?}",
                slot.master
            )
        });
        found.spared = Some(of(pid));
    }
    found.check(!side.milter.log().contains("panicked"), || {
        "something panicked: see the log".to_owned()
    });
}
