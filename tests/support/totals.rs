//! What a board says in all, by whichever reader, against itself and against what clients know (`ledger`).

use scoreboard::Snapshot;
use serde_json::Value;

use super::ledger::Counts;
use super::milter::count;

/// What a board says in all, from any of its readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub accepted: u64,
    /// Taken on by children. The one total that may go back: what a child never picked up before it died is returned, and counts again
    /// where it is handed on.
    pub connections: u64,
    pub requests: u64,
    pub started: u64,
    pub processed: u64,
    pub aborted: u64,
    pub in_progress: u64,
    pub lost_connections: u64,
    pub lost_messages: u64,
    pub verdicts: [u64; 6],
}

impl Totals {
    /// As the crate tells them.
    pub fn of(snapshot: &Snapshot) -> Totals {
        let counters = snapshot.counters();
        Totals {
            accepted: snapshot.global.accepted,
            connections: snapshot.connections(),
            requests: snapshot.requests(),
            started: counters.messages_started,
            processed: snapshot.messages(),
            aborted: counters.messages_aborted,
            in_progress: snapshot.in_progress(),
            lost_connections: snapshot.lost_connections(),
            lost_messages: snapshot.lost_messages(),
            verdicts: counters.verdicts,
        }
    }

    /// As `status --format json` tells them.
    pub fn in_json(milter: &Value) -> Totals {
        let verdicts = [
            "accept",
            "reject",
            "tempfail",
            "discard",
            "quarantine",
            "error",
        ];
        Totals {
            accepted: count(&milter["accepted"]),
            connections: count(&milter["pool"]["connections"]),
            requests: count(&milter["pool"]["requests"]),
            started: count(&milter["messages_started"]),
            processed: count(&milter["pool"]["messages"]),
            aborted: count(&milter["aborted"]),
            in_progress: count(&milter["messages_in_progress"]),
            lost_connections: count(&milter["lost"]["connections"]),
            lost_messages: count(&milter["lost"]["messages"]),
            verdicts: verdicts.map(|name| count(&milter["verdicts"][name])),
        }
    }

    /// Nothing is missing in itself, nothing went back, and the clients' counts before and after the look leave room for it.
    #[track_caller]
    pub fn agree(&self, earlier: &Totals, before: &Counts, after: &Counts) {
        let with = || {
            format!("{self:?}\nafter {earlier:?}\nclients before {before:?}\nand after {after:?}")
        };
        let accounted = self.processed + self.aborted + self.lost_messages + self.in_progress;
        assert_eq!(self.started, accounted, "messages: {}", with());
        let by_verdict: u64 = self.verdicts.iter().sum();
        assert_eq!(self.processed, by_verdict, "verdicts: {}", with());
        let growing = |of: &Totals| {
            let [a, b, c, d, e, f] = of.verdicts;
            let lost = [of.lost_connections, of.lost_messages];
            [
                of.accepted,
                of.started,
                of.processed,
                of.aborted,
                lost[0],
                lost[1],
                a,
                b,
                c,
                d,
                e,
                f,
            ]
        };
        for (now, then) in growing(self).iter().zip(growing(earlier)) {
            assert!(*now >= then, "a total went back: {}", with());
        }
        let [accepted, rejected, tempfailed, others @ ..] = self.verdicts;
        assert_eq!(others, [0; 3], "{}", with());
        for (what, least, told, most) in [
            ("accepted", before.greeted, self.accepted, after.opening),
            (
                "connections",
                before.greeted,
                self.connections,
                after.opening,
            ),
            ("started", before.begun, self.started, after.mails),
            ("processed", before.finished, self.processed, after.ends),
            ("aborted", before.aborts_read, self.aborted, after.aborts),
            ("verdict accept", before.accepted, accepted, after.ends),
            ("verdict reject", before.rejected, rejected, after.ends),
            (
                "verdict tempfail",
                before.tempfailed,
                tempfailed,
                after.ends,
            ),
        ] {
            assert!(
                (least..=most).contains(&told),
                "{what}: the board says {told}, the clients {least} to {most}: {}",
                with()
            );
        }
    }
}
