//! Readers of a board that look again and again, by `pread`, a map or `status --format json`: at each look the books balance, nothing has gone
//! back, no copy was torn twice running, and what clients count (`ledger`) leaves room for what the board says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use scoreboard::{Death, MasterBooks, Snapshot};
use serde_json::Value;

use super::ledger::{Counts, Ledger};
use super::milter::{count, sum};
use super::totals::Totals;

/// What one reader has seen.
#[derive(Default)]
pub struct Seen {
    /// Looks so far.
    pub looks: u64,
    /// What the last whole copy said.
    pub totals: Totals,
    /// Looks that got no whole copy, and said so.
    pub torn: u64,
    /// Looks at which the master's books balanced to the unit.
    pub exact: u64,
    was_inconsistent: bool,
    /// Deaths that were told, by their number.
    pub deaths: BTreeMap<u64, Death>,
}

impl Seen {
    /// A reader that knows what another one saw before.
    pub fn after(totals: Totals) -> Seen {
        Seen {
            totals,
            ..Seen::default()
        }
    }

    #[track_caller]
    fn look(&mut self, inconsistent: bool, totals: Totals, before: &Counts, after: &Counts) {
        self.looks += 1;
        let twice = inconsistent && self.was_inconsistent;
        assert!(
            !twice,
            "look {} after an inconsistent one is inconsistent",
            self.looks
        );
        self.was_inconsistent = inconsistent;
        self.torn += u64::from(inconsistent);
        if !inconsistent {
            totals.agree(&self.totals, before, after);
            self.totals = totals;
        }
    }

    /// A look through the crate, between these counts of the clients.
    #[track_caller]
    pub fn snapshot(&mut self, snapshot: &Snapshot, before: &Counts, after: &Counts) {
        let slots = &snapshot.slots;
        let whole = snapshot.global_consistent && slots.iter().all(|slot| slot.consistent);
        let books = snapshot.books();
        assert!(books.is_balanced(), "{books:?}");
        self.exact += u64::from(books.master() == MasterBooks::Balanced);
        let requests: u64 = slots.iter().map(scoreboard::Slot::requests).sum();
        assert_eq!(requests, snapshot.requests());
        for death in &snapshot.deaths {
            let known = self.deaths.entry(death.number).or_insert(*death);
            assert_eq!(known, death, "an entry of the death ring changed");
        }
        self.look(!whole, Totals::of(snapshot), before, after);
    }

    /// A look at `status --format json`.
    #[track_caller]
    pub fn json(&mut self, milter: &Value, before: &Counts, after: &Counts) {
        let slots = milter["slots"].as_array().unwrap();
        let whole =
            milter["consistent"] == true && slots.iter().all(|slot| slot["consistent"] == true);
        assert_eq!(milter["state"], "running", "{milter:#}");
        assert_eq!(milter["books"]["balanced"], true, "{milter:#}");
        assert_eq!(sum(milter, "requests"), count(&milter["pool"]["requests"]));
        assert_eq!(sum(milter, "messages"), count(&milter["pool"]["messages"]));
        let master = &milter["books"]["accepted"];
        self.exact += u64::from(master["total"] == master["accounted"]);
        self.look(!whole, Totals::in_json(milter), before, after);
    }
}

/// Looks at the board until it is over; at least once. `seen`: what this reader knows already.
pub fn watch(
    mut seen: Seen,
    over: &AtomicBool,
    ledger: &Ledger,
    pause: Duration,
    mut look: impl FnMut(&mut Seen, &Counts),
) -> Seen {
    loop {
        let before = ledger.now();
        look(&mut seen, &before);
        if over.load(Ordering::SeqCst) {
            return seen;
        }
        sleep(pause);
    }
}

/// Ends the others when one of them fails: a scope waits for its threads.
pub struct EndOf<'a>(pub &'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
