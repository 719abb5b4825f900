//! Clients that keep a milter busy, and messages that stay in hand.

use crate::support::ledger::{Ledger, Random};
use crate::support::milter::Milter;
use crate::support::mta::{Message, Mta};

/// Connections at a time.
pub(crate) const CLIENTS: u64 = 6;

/// Clients that open one connection after the other, until each has had `enough` of them or the port is closed.
pub(crate) fn clients(
    milter: &Milter,
    ledger: &Ledger,
    seed: u64,
    enough: impl Fn(u64) -> bool + Sync,
) {
    let address = milter.address();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (address, enough) = (&address, &enough);
            scope.spawn(move || {
                let mut random = Random(seed.wrapping_mul(CLIENTS).wrapping_add(client) | 1);
                let mut session = 0;
                while !enough(session) {
                    let name = format!("Q{seed:x}x{client}x{session}");
                    if ledger.session(address, &name, &mut random).is_err() {
                        return;
                    }
                    session += 1;
                }
            });
        }
    });
}

/// A message that each of so many children keeps at its end until the connection is closed: HELD0, HELD1 and so on. For
/// `support::ledger::POLICY` with [`PATIENT`], before there is other load.
pub(crate) fn held(milter: &Milter, children: usize) -> Vec<Mta> {
    let hold = |number| {
        let mut message = Message::from("stay@b.example");
        message.queue_id = format!("HELD{number}");
        let mut session = milter.session();
        session.send_without_reading_the_end(&message).unwrap();
        session
    };
    let sessions = (0..children).map(hold).collect();
    milter.wait_json("each child has its message", |json| {
        let slots = json["slots"].as_array().unwrap();
        let at_eom = slots.iter().filter(|slot| slot["phase"] == "eom");
        at_eom.count() == children
    });
    sessions
}

/// A pool of three children that wait long enough for the policy.
pub(crate) const PATIENT: &str = "max_pooled_procs = 3\nmin_pooled_procs = 3\ncallback_timeout = \"20m\"\neom_timeout = \"20m\"\n";
